//! The whole stand-in, wire and engine, through tiberius.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use mssql_fixture::engine::{Isolation, SqlError};
use mssql_fixture::{Encryption, Server, ServerOptions};
use tiberius::error::Error;
use tiberius::numeric::Numeric;
use tiberius::{AuthMethod, Client, Config, EncryptionLevel, IntoSql, IsolationLevel, Query, TokenRow};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

type Connection = Client<Compat<TcpStream>>;

fn config(server: &Server, encryption: EncryptionLevel) -> Config {
    let mut config = Config::new();
    config.host("localhost");
    config.port(server.address().port());
    config.authentication(AuthMethod::sql_server("sa", ServerOptions::default().password));
    config.encryption(encryption);
    config.trust_cert_ca_bundle(server.ca_pem().as_bytes());
    config.database("ops");
    config
}

async fn connect(server: &Server, config: Config) -> tiberius::Result<Connection> {
    let socket = TcpStream::connect(server.address()).await?;
    Client::connect(config, socket.compat_write()).await
}

async fn started() -> (Server, Connection) {
    let server = Server::start(ServerOptions::default()).await.unwrap();
    let connection = connect(&server, config(&server, EncryptionLevel::Required)).await.unwrap();
    (server, connection)
}

/// Runs a batch and gives its error's number.
async fn try_batch(connection: &mut Connection, sql: &str) -> Result<Vec<Vec<tiberius::Row>>, u32> {
    let results = async { connection.simple_query(sql).await?.into_results().await };
    results.await.map_err(|error| match error {
        Error::Server(token) => token.code(),
        other => panic!("{other}"),
    })
}

async fn batch(connection: &mut Connection, sql: &str) -> Vec<tiberius::Row> {
    try_batch(connection, sql).await.unwrap().into_iter().next().unwrap_or_default()
}

#[tokio::test]
async fn tables_are_made_filled_read_and_changed_over_tls() {
    let (_server, mut connection) = started().await;
    batch(&mut connection, "CREATE TABLE dbo.t (id int NOT NULL PRIMARY KEY, name nvarchar(50), amount decimal(18,4))")
        .await;
    let mut insert = Query::new("INSERT INTO dbo.t (id, name, amount) VALUES (@P1, @P2, @P3), (@P4, NULL, NULL)");
    insert.bind(1i32);
    insert.bind("héllo 漢字");
    insert.bind(Numeric::new_with_scale(-12_345, 4));
    insert.bind(2i32);
    assert_eq!(insert.execute(&mut connection).await.unwrap().rows_affected(), [2]);
    let rows = batch(&mut connection, "SELECT id, name, amount FROM dbo.t ORDER BY id").await;
    assert_eq!(rows[0].get::<&str, _>("name"), Some("héllo 漢字"));
    assert_eq!(rows[0].get::<Numeric, _>("amount").map(|n| n.value()), Some(-12_345));
    assert_eq!(rows[1].get::<&str, _>("name"), None);
    let changed = connection.execute("UPDATE dbo.t SET name = @P1 WHERE id = @P2", &[&"deux", &2i32]).await.unwrap();
    assert_eq!(changed.total(), 1);
    let row = batch(&mut connection, "SELECT name FROM dbo.t WHERE id = 2").await;
    assert_eq!(row[0].get::<&str, _>(0), Some("deux"));
}

#[tokio::test]
async fn an_error_has_its_number_and_the_connection_goes_on() {
    let (_server, mut connection) = started().await;
    assert_eq!(try_batch(&mut connection, "SELECT * FROM dbo.nowhere").await.unwrap_err(), 208);
    assert_eq!(try_batch(&mut connection, "FROBNICATE").await.unwrap_err(), 102);
    assert_eq!(batch(&mut connection, "SELECT 1").await[0].get::<i32, _>(0), Some(1));
}

#[tokio::test]
async fn a_snapshot_transaction_sees_what_was_there_when_it_first_read() {
    let (server, mut reader) = started().await;
    server.database().execute("ALTER DATABASE ops SET ALLOW_SNAPSHOT_ISOLATION ON").unwrap();
    server
        .database()
        .execute("CREATE TABLE dbo.t (id int NOT NULL PRIMARY KEY); INSERT INTO dbo.t VALUES (1)")
        .unwrap();
    let mut writer = connect(&server, config(&server, EncryptionLevel::Off)).await.unwrap();
    reader.begin_transaction_with_isolation(IsolationLevel::Snapshot).await.unwrap();
    assert_eq!(batch(&mut reader, "SELECT COUNT(*) FROM dbo.t").await[0].get::<i32, _>(0), Some(1));
    batch(&mut writer, "INSERT INTO dbo.t VALUES (2)").await;
    assert_eq!(batch(&mut reader, "SELECT COUNT(*) FROM dbo.t").await[0].get::<i32, _>(0), Some(1));
    reader.commit_transaction().await.unwrap();
    assert_eq!(batch(&mut reader, "SELECT COUNT(*) FROM dbo.t").await[0].get::<i32, _>(0), Some(2));
    assert!(server.database().faults().statements().iter().any(|seen| seen.isolation == Isolation::Snapshot));
}

#[tokio::test]
async fn a_transaction_in_a_batch_is_the_clients_too() {
    let (server, mut connection) = started().await;
    server.database().execute("CREATE TABLE dbo.t (id int NOT NULL PRIMARY KEY)").unwrap();
    batch(&mut connection, "BEGIN TRANSACTION").await;
    batch(&mut connection, "INSERT INTO dbo.t VALUES (1)").await;
    batch(&mut connection, "IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION").await;
    assert_eq!(batch(&mut connection, "SELECT COUNT(*) FROM dbo.t").await[0].get::<i32, _>(0), Some(0));
}

#[tokio::test]
async fn rows_in_bulk_are_all_there_or_none() {
    let (_server, mut connection) = started().await;
    batch(
        &mut connection,
        "CREATE TABLE dbo.t (id int NOT NULL PRIMARY KEY, name nvarchar(50) NULL, at datetime2(7) NULL, b varbinary(max))",
    )
    .await;
    for (first, expected) in [(0, Ok(3000)), (2999, Err(2627))] {
        let mut load = connection.bulk_insert("dbo.t").await.unwrap();
        for id in first..first + 3000i32 {
            let mut row = TokenRow::new();
            row.push(id.into_sql());
            row.push(Some("näme").filter(|_| id % 3 == 0).into_sql());
            row.push(tiberius::ColumnData::DateTime2(None));
            row.push(vec![7u8; 40].into_sql());
            load.send(row).await.unwrap();
        }
        let loaded = load.finalize().await.map(|loaded| loaded.total()).map_err(|error| match error {
            Error::Server(token) => token.code(),
            other => panic!("{other}"),
        });
        assert_eq!(loaded, expected);
        let count = batch(&mut connection, "SELECT COUNT(*), COUNT(name) FROM dbo.t").await;
        assert_eq!((count[0].get::<i32, _>(0), count[0].get::<i32, _>(1)), (Some(3000), Some(1000)));
    }
}

#[tokio::test]
async fn changes_are_tracked_for_a_client() {
    let (server, mut connection) = started().await;
    let set_up = "
        ALTER DATABASE ops SET CHANGE_TRACKING = ON (CHANGE_RETENTION = 2 DAYS, AUTO_CLEANUP = ON)
        GO
        CREATE TABLE dbo.t (id int NOT NULL PRIMARY KEY, name nvarchar(50))
        GO
        ALTER TABLE dbo.t ENABLE CHANGE_TRACKING
        GO
        INSERT INTO dbo.t VALUES (1, N'one'), (2, N'two')
        GO
        DELETE FROM dbo.t WHERE id = 1";
    let lines: Vec<&str> = set_up.lines().map(str::trim).collect();
    server.database().execute(&lines.join("\n")).unwrap();
    let poll = "DECLARE @last bigint = 1; SELECT CT.SYS_CHANGE_OPERATION, CT.[id], T.[name] FROM \
                CHANGETABLE(CHANGES [dbo].[t], @last) AS CT LEFT OUTER JOIN [dbo].[t] AS T ON T.[id] = CT.[id] \
                ORDER BY CT.[id] OPTION (MAXDOP 1);";
    let rows = batch(&mut connection, poll).await;
    let seen: Vec<_> = rows.iter().map(|row| (row.get::<&str, _>(0), row.get::<i32, _>(1))).collect();
    assert_eq!(seen, [(Some("D"), Some(1))]);
    let version = batch(&mut connection, "SELECT CHANGE_TRACKING_CURRENT_VERSION()").await;
    assert_eq!(version[0].get::<i64, _>(0), Some(2));
}

#[tokio::test]
async fn a_statement_fails_after_as_many_rows_as_a_test_asks_for() {
    let (server, mut connection) = started().await;
    server.database().execute("CREATE TABLE dbo.t (id int NOT NULL PRIMARY KEY)").unwrap();
    let rows: Vec<String> = (0..500).map(|id| format!("({id})")).collect();
    server.database().execute(&format!("INSERT INTO dbo.t VALUES {}", rows.join(","))).unwrap();
    server.database().faults().fail("from dbo.t", 100, SqlError::known(1205), 1);
    assert_eq!(try_batch(&mut connection, "SELECT id FROM dbo.t").await.unwrap_err(), 1205);
    assert_eq!(batch(&mut connection, "SELECT id FROM dbo.t").await.len(), 500);
}

#[tokio::test]
async fn a_database_is_served_again_after_its_server_has_stopped() {
    let (server, mut connection) = started().await;
    batch(&mut connection, "CREATE TABLE dbo.t (id int NOT NULL PRIMARY KEY)").await;
    let (database, listen) = (server.database().clone(), server.address());
    server.stop().await;
    assert!(connection.simple_query("SELECT 1").await.is_err());
    let options = ServerOptions { listen, encryption: Encryption::Off, ..ServerOptions::default() };
    let server = Server::serve(database, options).await.unwrap();
    let mut connection = connect(&server, config(&server, EncryptionLevel::NotSupported)).await.unwrap();
    assert_eq!(batch(&mut connection, "SELECT COUNT(*) FROM dbo.t").await[0].get::<i32, _>(0), Some(0));
}

#[tokio::test]
async fn what_drivers_send_of_their_own_accord_is_understood() {
    let (server, mut connection) = started().await;
    server.database().execute("CREATE TABLE dbo.t (id int IDENTITY(1,1) PRIMARY KEY, name nvarchar(50))").unwrap();
    for sql in [
        // pymssql: at the start, with autocommit off, and at each commit.
        "SET ARITHABORT ON;SET CONCAT_NULL_YIELDS_NULL ON;SET ANSI_NULLS ON;SET ANSI_NULL_DFLT_ON ON;SET ANSI_PADDING \
         ON;SET ANSI_WARNINGS ON;SET ANSI_NULL_DFLT_ON ON;SET CURSOR_CLOSE_ON_COMMIT ON;SET QUOTED_IDENTIFIER ON;SET \
         TEXTSIZE 2147483647;",
        "use [ops]",
        "BEGIN TRAN",
        "COMMIT TRAN",
        "BEGIN TRAN",
        "ROLLBACK TRAN",
    ] {
        batch(&mut connection, sql).await;
    }
    // pymssql before a bulk load: which columns there are, and their metadata without rows.
    let columns = batch(
        &mut connection,
        "SELECT column_id, TYPE_NAME(system_type_id) AS system_type_name, is_identity FROM sys.columns WHERE object_id \
         = OBJECT_ID(N'dbo.t')",
    )
    .await;
    assert_eq!(columns.len(), 2);
    assert_eq!(columns[0].get::<bool, _>("is_identity"), Some(true));
    batch(&mut connection, "INSERT INTO dbo.t (name) VALUES (N'one')").await;
    let results = try_batch(&mut connection, "SET FMTONLY ON select * from dbo.t SET FMTONLY OFF").await.unwrap();
    assert!(results.iter().all(Vec::is_empty));
    assert_eq!(batch(&mut connection, "SELECT * FROM dbo.t").await.len(), 1);
}
