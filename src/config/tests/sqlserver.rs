//! SQL Server: what connections and tables become, and what is said about wrong ones.

use std::path::Path;

use secrecy::ExposeSecret;

use super::*;

/// A connection with all that is required.
const OPS: &str = "[connections.ops]\ntype = \"sqlserver\"\nhost = \"127.0.0.1\"\ndatabase = \"ops\"\nuser = \"reader\"\npassword = { env = \"KEY\" }\n";

/// What is said about keys added to [`OPS`], with lines counted from the first of them.
fn about_ops(keys: &str) -> Vec<String> {
    about(&[("lakegate.toml", &format!("{OPS}{keys}"))], "lakegate.toml", OPS.lines().count())
}

/// What is said about a table definition that may use connections to SQL Server (`ops`) and to a bucket (`store`).
fn about_table(text: &str) -> Vec<String> {
    let lakegate = format!("{OPS}[connections.store]\ntype = \"s3\"\n");
    about(&[("lakegate.toml", &lakegate), ("tables/ops/orders.toml", text)], "tables/ops/orders.toml", 0)
}

fn about(files: &[(&str, &str)], file: &str, lines_before: usize) -> Vec<String> {
    let mut problems = report(files).problems;
    for problem in &mut problems {
        assert_eq!(problem.file, Path::new(file), "{problem}");
        problem.file = Path::new("").to_owned();
        problem.at = problem.at.map(|(line, column)| (line.saturating_sub(lines_before), column));
    }
    problems.iter().map(ToString::to_string).collect()
}

fn connection(text: &str) -> SqlServerConnection {
    let mut settings = settings(&[("lakegate.toml", text), ("ca.pem", "-----BEGIN CERTIFICATE-----\n")]);
    let Some(Connection::SqlServer(connection)) = settings.connections.remove("ops") else { panic!("{settings:?}") };
    connection
}

fn sql_table(text: &str) -> TableDefinition {
    let mut settings = settings(&[("lakegate.toml", OPS), ("tables/ops/orders.toml", text)]);
    settings.tables.remove(&"ops.orders".parse().unwrap()).unwrap()
}

fn sql_source(table: &TableDefinition) -> &SqlServerSource {
    let TableSource::SqlServer(source) = &table.source else { panic!("{:?}", table.source) };
    source
}

#[test]
fn defaults_of_a_connection_are_encrypted_and_gentle() {
    let ops = connection(OPS);
    assert_eq!(
        (ops.name.as_str(), ops.host.as_str(), ops.port, ops.database.as_str()),
        ("ops", "127.0.0.1", 1433, "ops")
    );
    let SqlServerLogin::Password { user, password } = &ops.login else { panic!("{ops:?}") };
    assert_eq!((user.as_str(), password.expose_secret()), ("reader", "s3cret-hidden"));
    assert_eq!((ops.encrypt, &ops.trust, ops.certificate_host.as_deref()), (Encrypt::Required, &Trust::System, None));
    assert_eq!((ops.read_intent, ops.packet_size), (false, 8000));
    assert_eq!((ops.timeout, ops.connect_timeout), (Duration::from_secs(300), Duration::from_secs(15)));
    assert_eq!((ops.lock_timeout, ops.max_connections.get()), (Duration::from_secs(5), 4));
    assert_eq!((ops.rate, ops.hours, ops.pause), (None, None, Duration::ZERO));
    assert_eq!((ops.chunk_time, ops.isolation), (Duration::from_secs(2), Isolation::Snapshot));
}

#[test]
fn every_key_of_a_connection_is_read() {
    let text = r#"
        [connections.ops]
        type = "sqlserver"
        host = "db.example.org"
        port = 14330
        database = "Operations DB"
        token = { file = "ca.pem" }
        encrypt = "strict"
        ca_file = "ca.pem"
        certificate_host = "db.internal"
        read_intent = true
        packet_size = 0x3FFF
        timeout = "1h"
        connect_timeout = "1m"
        lock_timeout = "0s"
        max_connections = 1
        rate = "100Mbit/s"
        hours = "22:00-06:30"
        pause = "250ms"
        chunk_time = "500ms"
        isolation = "snapshot_or_read_committed"
    "#;
    let ops = connection(text);
    assert_eq!((ops.host.as_str(), ops.port, ops.database.as_str()), ("db.example.org", 14330, "Operations DB"));
    assert!(matches!(&ops.login, SqlServerLogin::EntraToken(token) if token.expose_secret().starts_with("-----")));
    assert_eq!(ops.encrypt, Encrypt::Strict);
    assert!(matches!(&ops.trust, Trust::Authority(path) if path.is_absolute() && path.ends_with("ca.pem")));
    assert_eq!(ops.certificate_host.as_deref(), Some("db.internal"));
    assert_eq!((ops.read_intent, ops.packet_size), (true, 16_383));
    assert_eq!((ops.timeout, ops.connect_timeout), (Duration::from_secs(3600), Duration::from_secs(60)));
    assert_eq!((ops.lock_timeout, ops.max_connections.get()), (Duration::ZERO, 1));
    assert_eq!(ops.rate, Some(100_000_000));
    let hours = ops.hours.unwrap();
    assert_eq!((hours.from.to_string(), hours.to.to_string()), ("22:00:00".to_owned(), "06:30:00".to_owned()));
    assert_eq!((ops.pause, ops.chunk_time), (Duration::from_millis(250), Duration::from_millis(500)));
    assert_eq!(ops.isolation, Isolation::SnapshotOrReadCommitted);
}

#[test]
fn a_table_of_sql_server_needs_no_more_than_its_name() {
    let table = sql_table("[source]\nconnection = \"ops\"\ntable = \"orders\"");
    let source = sql_source(&table);
    assert_eq!(
        (source.connection.name.as_str(), source.schema.as_str(), source.table.as_str()),
        ("ops", "dbo", "orders")
    );
    assert_eq!(source.method, Method::Auto);
    let wanted = ColumnChoices {
        timestamps: Timestamps::Ntz,
        sub_microseconds: SubMicroseconds::Truncate,
        times: Times::Text,
        variants: Variants::Fail,
        offsets: false,
        max_cell_bytes: 64 << 20,
        oversize: Oversize::Fail,
        leave_out: vec![],
    };
    assert_eq!(source.columns, wanted);
    assert_eq!((table.load.mode, table.load.max_rejects), (LoadMode::Upsert, 0.1));
    assert_eq!((table.load.max_rewrite, table.load.max_lag), (Some(20.0), Duration::from_secs(900)));
    assert!(table.key.is_empty() && table.columns.is_empty());
}

#[test]
fn every_key_of_a_table_of_sql_server_is_read() {
    let table = sql_table(
        r#"
        [[source]]
        connection = "ops"
        table = "[my schema].[or]]ders]"
        method = "key_diff"
        timestamps = "utc"
        sub_microseconds = "text"
        times = "microseconds"
        variants = "text"
        offsets = true
        max_cell = "1MiB"
        oversize = "reject"
        leave_out = ["photo", "Old Notes"]
        [load]
        every = "30s"
        mode = "upsert"
        max_rejects = 0
        max_rewrite = 5
        max_lag = "1m"
        [table]
        key = ["order_id"]
        "#,
    );
    let source = sql_source(&table);
    assert_eq!(
        (source.schema.as_str(), source.table.as_str(), source.method),
        ("my schema", "or]ders", Method::KeyDiff)
    );
    let wanted = ColumnChoices {
        timestamps: Timestamps::Utc,
        sub_microseconds: SubMicroseconds::Text,
        times: Times::Microseconds,
        variants: Variants::Text,
        offsets: true,
        max_cell_bytes: 1 << 20,
        oversize: Oversize::Reject,
        leave_out: vec!["photo".to_owned(), "Old Notes".to_owned()],
    };
    assert_eq!(source.columns, wanted);
    assert_eq!((table.load.mode, table.load.max_rejects, table.load.max_rewrite), (LoadMode::Upsert, 0.0, Some(5.0)));
    assert_eq!(table.key, ["order_id"]);
}

/// `(keys added to a right connection, what is said)`: each has this one problem.
const WRONG_KEYS: &[(&str, &str)] = &[
    (
        "region = \"eu-1\"",
        ":1:10: connections.ops.region: this key means something for buckets only, and this connection has type = \"sqlserver\"; expected type = \"s3\", or no such key",
    ),
    ("port = 0", ":1:8: connections.ops.port: found the number 0; expected a port from 1 to 65535"),
    ("port = \"1433\"", ":1:8: connections.ops.port: found the text \"1433\"; expected a port"),
    (
        "packet_size = 511",
        ":1:15: connections.ops.packet_size: found the number 511; expected a number of bytes from 512 to 32767",
    ),
    (
        "packet_size = 16384",
        ":1:15: connections.ops.packet_size: 16384 bytes are too many for a packet that is encrypted; expected at most 16383",
    ),
    ("timeout = \"0s\"", ":1:11: connections.ops.timeout: the time is zero"),
    ("connect_timeout = \"0s\"", ":1:19: connections.ops.connect_timeout: the time is zero"),
    ("chunk_time = \"0s\"", ":1:14: connections.ops.chunk_time: the time is zero"),
    ("lock_timeout = \"25d\"", ":1:16: connections.ops.lock_timeout: SQL Server waits at most 24 days for a lock"),
    ("lock_timeout = \"5m\"", ":1:16: warning: connections.ops.lock_timeout: lock_timeout is not shorter than timeout"),
    ("timeout = \"3s\"", ":1:11: warning: connections.ops.timeout: lock_timeout is not shorter than timeout"),
    ("max_connections = 0", ":1:19: connections.ops.max_connections: found the number 0"),
    (
        "rate = \"100Mbps\"",
        ":1:8: connections.ops.rate: \"100Mbps\" cannot be read: `Mbps` is no unit here; expected a rate such as \"100Mbit/s\" or \"10MB/s\"",
    ),
    (
        "hours = \"22-6\"",
        ":1:9: connections.ops.hours: \"22-6\" is no part of a day; expected two times of the day in UTC such as \"22:00-06:00\"",
    ),
    ("hours = \"00:00-24:00\"", ":1:9: connections.ops.hours: \"00:00-24:00\" ends when it begins"),
    (
        "isolation = \"nolock\"",
        ":1:13: connections.ops.isolation: found the text \"nolock\"; expected one of snapshot, snapshot_or_read_committed",
    ),
    (
        "encrypt = \"none\"",
        ":1:11: connections.ops.encrypt: found the text \"none\"; expected one of required, strict, login, off",
    ),
    (
        "token = { env = \"KEY\" }",
        ":1:9: connections.ops.token: a token is used without user and password; expected token, or user and password",
    ),
    (
        "trust_server_certificate = true",
        ":1:28: warning: connections.ops.trust_server_certificate: any certificate is taken",
    ),
    (
        "trust_server_certificate = true\nca_file = \"ca.pem\"",
        ":2:11: connections.ops.ca_file: trust_server_certificate = true takes any certificate, so this key would mean nothing; expected one or the other",
    ),
    (
        "trust_server_certificate = true\ncertificate_host = \"db\"",
        ":2:20: connections.ops.certificate_host: trust_server_certificate = true takes any certificate",
    ),
    (
        "encrypt = \"off\"\ncertificate_host = \"db\"",
        ":2:20: warning: connections.ops.certificate_host: this key has no effect with encrypt = \"off\"",
    ),
    ("ca_file = \"none.pem\"", ":1:11: connections.ops.ca_file: the file none.pem cannot be read: No such file"),
    (
        "ca_file = \"lakegate.toml\"",
        ":1:11: connections.ops.ca_file: the ending of lakegate.toml does not tell what it holds; expected .pem or .crt for PEM, .der for DER",
    ),
    ("server = \"x\"", ":1:1: connections.ops.server: `server` is no known key here; expected one of type, endpoint, "),
];

#[test]
fn each_mistake_in_a_connection_is_named_at_its_place() {
    for (keys, wanted) in WRONG_KEYS {
        let said = about_ops(keys);
        assert_eq!(said.len(), 1, "{keys}\n{said:#?}");
        assert!(said[0].starts_with(wanted), "{keys}\n   is: {}\nnot: {wanted}", said[0]);
    }
}

/// `(keys of a connection, what is said)`: each has this one problem.
const WRONG_CONNECTIONS: &[(&str, &str)] = &[
    (
        "database = \"ops\"\ntoken = { env = \"KEY\" }",
        ":1:14: connections.ops: the connection has no `host`; expected host = \"db.example.org\"",
    ),
    ("host = \"db\"\ntoken = { env = \"KEY\" }", ":1:14: connections.ops: the connection has no `database`"),
    (
        "host = \"db\"\ndatabase = \"ops\"",
        ":1:14: connections.ops: the connection has no login; expected user and password, or token",
    ),
    (
        "host = \"db\"\ndatabase = \"ops\"\nuser = \"a\"",
        ":1:14: connections.ops: user and password belong together; one of them is missing",
    ),
    (
        "host = \"db\"\ndatabase = \"ops\"\npassword = { env = \"KEY\" }",
        ":1:14: connections.ops: user and password belong together",
    ),
    (
        "host = \"db\"\ndatabase = \"ops\"\nuser = \"a\"\ntoken = { env = \"KEY\" }",
        ":6:9: connections.ops.token: a token is used without user and password",
    ),
    (
        "host = \"db\"\ndatabase = \"ops\"\ntoken = { env = \"EMPTY\" }",
        ":5:9: connections.ops.token: the secret cannot be read from the environment variable EMPTY: it is empty",
    ),
    (
        "host = \"db\"\ndatabase = \" \"\ntoken = { env = \"KEY\" }",
        ":4:12: connections.ops.database: the text is empty",
    ),
    (
        "host = \"db\\\\SQLEXPRESS\"\ndatabase = \"ops\"\ntoken = { env = \"KEY\" }",
        ":3:8: connections.ops.host: \"db\\\\SQLEXPRESS\" names an instance, and instances are not looked up; put its port into `port`; expected a name or IP address",
    ),
    (
        "host = \"db,1433\"\ndatabase = \"ops\"\ntoken = { env = \"KEY\" }",
        ":3:8: connections.ops.host: \"db,1433\" holds more than a name; the port stands in `port`",
    ),
    (
        "host = \"db.example.org:1433\"\ndatabase = \"ops\"\ntoken = { env = \"KEY\" }",
        ":3:8: connections.ops.host: \"db.example.org:1433\" holds more than a name",
    ),
    (
        "host = \".\"\ndatabase = \"ops\"\ntoken = { env = \"KEY\" }",
        ":3:8: connections.ops.host: \".\" is no name of a server",
    ),
    (
        "host = \"db\"\ndatabase = \"ops\"\nencrypt = \"off\"\ntoken = { env = \"KEY\" }",
        ":5:11: warning: connections.ops.encrypt: nothing is encrypted; rows and the password go to db in the clear; expected encrypt = \"required\"",
    ),
    (
        "host = \"db\"\ndatabase = \"ops\"\nencrypt = \"login\"\ntoken = { env = \"KEY\" }",
        ":5:11: warning: connections.ops.encrypt: only the login is encrypted; rows go to and from db in the clear",
    ),
];

#[test]
fn each_connection_that_is_not_whole_says_what_is_missing() {
    for (keys, wanted) in WRONG_CONNECTIONS {
        let said = super::about_lakegate(&format!("[connections.ops]\ntype = \"sqlserver\"\n{keys}"));
        assert_eq!(said.len(), 1, "{keys}\n{said:#?}");
        assert!(said[0].starts_with(wanted), "{keys}\n   is: {}\nnot: {wanted}", said[0]);
    }
}

#[test]
fn encryption_that_is_off_is_no_matter_on_this_machine() {
    for host in ["localhost", "127.0.0.1", "::1"] {
        for encrypt in ["off", "login"] {
            let text = OPS.replace("127.0.0.1", host) + &format!("encrypt = \"{encrypt}\"\npacket_size = 32767");
            assert_eq!(about(&[("lakegate.toml", &text)], "lakegate.toml", 0), [] as [String; 0]);
        }
    }
}

#[test]
fn keys_of_sql_server_are_refused_for_a_bucket() {
    for key in
        ["host = \"db\"", "database = \"x\"", "password = { env = \"KEY\" }", "encrypt = \"required\"", "port = 1433"]
    {
        let said = super::about_lakegate(&format!("[connections.store]\ntype = \"s3\"\n{key}"));
        let name = key.split(' ').next().unwrap();
        let wanted = format!(
            "connections.store.{name}: this key means something for SQL Server only, and this connection has type = \"s3\"; expected type = \"sqlserver\", or no such key"
        );
        assert_eq!(said.len(), 1, "{said:#?}");
        assert!(said[0].ends_with(&wanted), "{said:#?}");
    }
}

#[test]
fn a_lake_is_not_kept_in_sql_server() {
    let said = about_ops("[lake]\nlocation = \"s3://b/lake\"\nconnection = \"ops\"");
    assert_eq!(
        said,
        [
            ":3:14: lake.connection: [connections.ops] reaches SQL Server, which has no files; expected a connection with type = \"s3\""
        ]
    );
}

/// `(definition, what is said)`: each definition has this one problem.
const WRONG_TABLES: &[(&str, &str)] = &[
    ("[source]\nconnection = \"ops\"", ":1:1: source: the source has no `table`; expected table = \"dbo.orders\""),
    (
        "[source]\ntable = \"dbo.orders\"",
        ":1:1: source: the source has a `table` and no `connection`; expected the NAME of a [connections.NAME]",
    ),
    (
        "[source]\nconnection = \"opps\"\ntable = \"a\"",
        ":2:14: source.connection: there is no [connections.opps] in lakegate.toml (there: ops, store); did you mean `ops`?",
    ),
    (
        "[source]\nconnection = \"store\"\ntable = \"a\"",
        ":2:14: source.connection: [connections.store] reaches a bucket, which has files and no tables; expected a connection with type = \"sqlserver\"",
    ),
    (
        "[source]\nconnection = \"ops\"\ntable = \"x.dbo.a\"",
        ":3:9: source.table: \"x.dbo.a\": the name has more than two parts; the connection names the database; expected schema and table such as",
    ),
    ("[source]\nconnection = \"ops\"\ntable = \"[a\"", ":3:9: source.table: \"[a\": a bracket is not closed"),
    ("[source]\nconnection = \"ops\"\ntable = 3", ":3:9: source.table: found the number 3; expected schema and table"),
    (
        "[source]\nconnection = \"ops\"\ntable = \"a\"\nfiles = \"a.csv\"",
        ":4:9: source.files: this key means something for files only, and this source is a table of SQL Server; expected no such key",
    ),
    (
        "[source]\nconnection = \"ops\"\ntable = \"a\"\nformat = \"csv\"",
        ":4:10: source.format: this key means something for files only",
    ),
    (
        "[source]\nconnection = \"ops\"\ntable = \"a\"\nheader = true",
        ":4:10: source.header: this key means something for files only",
    ),
    (
        "[source]\nconnection = \"ops\"\ntable = \"a\"\nsettle = \"1s\"",
        ":4:10: source.settle: this key means something for files only",
    ),
    (
        "[source]\nconnection = \"ops\"\ntable = \"a\"\nmethod = \"cdc\"",
        ":4:10: source.method: `cdc` is not built yet; expected one of auto, change_tracking, rowversion, key_diff, reload",
    ),
    (
        "[source]\nconnection = \"ops\"\ntable = \"a\"\ntimestamps = \"local\"",
        ":4:14: source.timestamps: found the text \"local\"; expected one of ntz, utc",
    ),
    (
        "[source]\nconnection = \"ops\"\ntable = \"a\"\nmax_cell = \"0B\"",
        ":4:12: source.max_cell: \"0B\" cannot be read: the value is zero",
    ),
    (
        "[source]\nconnection = \"ops\"\ntable = \"a\"\nleave_out = [\"x\", \"X\"]",
        ":4:19: source.leave_out[2]: `X` is left out twice",
    ),
    (
        "[source]\nconnection = \"ops\"\ntable = \"a\"\nleave_out = [\"ID\"]\n[table]\nkey = [\"id\"]",
        ":4:14: source.leave_out[1]: `ID` is part of the key and cannot be left out",
    ),
    (
        "[[source]]\nfiles = \"a.csv\"\n[[source]]\nconnection = \"ops\"\ntable = \"a\"",
        ":3:1: source[2]: a table of SQL Server is the only source of its table, and here are 2; expected one [source]",
    ),
    (
        "[source]\nconnection = \"ops\"\ntable = \"a\"\n[load]\nmode = \"append\"",
        ":5:8: load.mode: rows of a table of SQL Server always take the place of those with their key; expected no `mode`, or mode = \"upsert\"",
    ),
    (
        "[source]\nconnection = \"ops\"\ntable = \"a\"\n[[columns]]\nname = \"a\"\ntype = \"int\"",
        ":4:1: columns[1]: the columns of a table of SQL Server and their types come from the database; expected no [[columns]]; [source] has leave_out",
    ),
    (
        "[source]\nconnection = \"ops\"\ntable = \"a\"\n[table]\ntimestamps = \"utc\"",
        ":5:1: table.timestamps: `timestamps` is no known key here; expected one of key, writable; did you mean `source.timestamps`?",
    ),
    (
        "[source]\nfiles = \"a.csv\"\ntimestamps = \"utc\"",
        ":3:14: source.timestamps: this key means something for tables of SQL Server only, and this source is files; expected connection and table of a SQL Server, or no such key",
    ),
    (
        "[source]\nfiles = \"a.csv\"\nmethod = \"auto\"",
        ":3:10: source.method: this key means something for tables of SQL Server only",
    ),
];

#[test]
fn each_mistake_in_a_table_of_sql_server_is_named_at_its_place() {
    for (text, wanted) in WRONG_TABLES {
        let said = about_table(text);
        assert_eq!(said.len(), 1, "{text}\n{said:#?}");
        assert!(said[0].starts_with(wanted), "{text}\n   is: {}\nnot: {wanted}", said[0]);
    }
}

#[test]
fn tables_of_a_group_come_from_one_connection() {
    let two = format!("{OPS}{}", OPS.replace("connections.ops", "connections.hr"));
    let table = |connection| format!("[source]\nconnection = \"{connection}\"\ntable = \"a\"\n[load]\ngroup = \"g\"");
    let files = "[source]\nfiles = \"in/*.csv\"\n[load]\ngroup = \"g\"".to_owned();
    let said = |first: &str, second: &str| {
        problems(&[("lakegate.toml", &two), ("tables/a/one.toml", first), ("tables/a/two.toml", second)])
    };
    assert_eq!(said(&table("ops"), &table("ops")), [] as [String; 0]);
    assert_eq!(said(&files, &files), [] as [String; 0]);
    assert_eq!(
        said(&table("ops"), &table("hr")),
        ["tables/a/two.toml:5:9: load.group: the tables of a group are read at one moment, and so come from one \
          connection: a.one is from [connections.ops], a.two from [connections.hr]; expected a group of its own for \
          the tables of each connection"]
    );
    let mixed = said(&files, &table("ops"));
    assert!(mixed.len() == 1 && mixed[0].contains("a.one is from files, a.two from [connections.ops]"), "{mixed:#?}");
}

#[test]
fn a_secondary_that_may_answer_does_not_go_with_change_tracking() {
    let lakegate = format!("{OPS}read_intent = true");
    let table = |method| format!("[source]\nconnection = \"ops\"\ntable = \"a\"\nmethod = \"{method}\"");
    let said = |method| problems(&[("lakegate.toml", &lakegate), ("tables/ops/orders.toml", &table(method))]);
    let wanted = "tables/ops/orders.toml:4:10: warning: source.method: Change Tracking is not answered by readable secondaries, and [connections.ops] may reach one; expected read_intent = false there";
    assert_eq!(said("change_tracking"), [wanted]);
    assert_eq!(said("rowversion"), [] as [String; 0]);
}

#[test]
fn a_table_does_not_repeat_what_is_wrong_with_its_sql_server() {
    let uses = "[source]\nconnection = \"ops\"\ntable = \"dbo.orders\"";
    for lakegate in ["[connections.ops]\ntype = \"sqlserve\"", "connections = 3", "= broken"] {
        let said = problems(&[("lakegate.toml", lakegate), ("tables/a/b.toml", uses)]);
        assert_eq!(said.len(), 1, "{said:#?}");
        assert!(said[0].starts_with("lakegate.toml"), "{said:#?}");
    }
}

#[test]
fn no_secret_of_sql_server_shows_in_debug_or_in_any_problem() {
    let wrong = [
        "password = \"plain-hidden\"",
        "password = { value = \"table-hidden\" }",
        "token = [\"list-hidden\"]",
        "token = \"unfinished-hidden",
        "host = \"db;User Id=sa;Password=text-hidden\"",
        "host = \"sa:text-hidden@db\"",
    ];
    for key in wrong {
        let head = "[connections.ops]\ntype = \"sqlserver\"\ndatabase = \"ops\"\nuser = \"reader\"\n";
        let report = report(&[("lakegate.toml", &format!("{head}{key}\n"))]);
        let said = format!("{report:?} {}", Problems::of(&report.problems).unwrap());
        assert!(!said.contains("hidden"), "{said}");
    }
    let table = "[source]\nconnection = \"ops\"\ntable = \"orders\"";
    let token = OPS.replace("user = \"reader\"\npassword", "token");
    for lakegate in [OPS, &token] {
        let settings = settings(&[("lakegate.toml", lakegate), ("tables/ops/orders.toml", table)]);
        assert!(!format!("{settings:?}").contains("hidden"));
    }
}
