//! What a login may do and see.

use crate::{database, error, one, query, run};

#[test]
fn a_table_without_rights_is_neither_listed_nor_read() {
    let database = database();
    let mut owner = database.session("sa").unwrap();
    run(
        &mut owner,
        "CREATE TABLE s.t (id int NOT NULL PRIMARY KEY); CREATE TABLE s.secret (id int NOT NULL PRIMARY KEY);
         ALTER TABLE s.t ENABLE CHANGE_TRACKING; CREATE LOGIN etl WITH PASSWORD = 'pw'; CREATE USER etl FOR LOGIN etl;
         GRANT SELECT ON OBJECT::[s].[t] TO etl",
    );
    let mut etl = database.session("etl").unwrap();
    assert_eq!(query(&mut etl, "SELECT name FROM sys.tables"), ["t"]);
    assert_eq!(one(&mut etl, "SELECT COUNT(*) FROM sys.columns"), "1");
    assert_eq!(query(&mut etl, "SELECT id FROM s.t"), Vec::<String>::new());
    assert_eq!(error(&mut etl, "SELECT id FROM s.secret"), 229);
    assert_eq!(error(&mut etl, "INSERT s.t VALUES (1)"), 229);
    assert_eq!(error(&mut etl, "DELETE s.t"), 229);
    assert_eq!(error(&mut etl, "CREATE TABLE x (a int)"), 262);
    assert_eq!(one(&mut etl, "SELECT OBJECT_ID(N's.secret')"), "NULL");
    let asked = "SELECT HAS_PERMS_BY_NAME(N'[s].[t]', N'OBJECT', N'SELECT'), HAS_PERMS_BY_NAME(N'[s].[t]', N'OBJECT', N'VIEW CHANGE TRACKING'),
        HAS_PERMS_BY_NAME(N'[s].[secret]', N'OBJECT', N'SELECT'), HAS_PERMS_BY_NAME(N'[s].[nope]', N'OBJECT', N'SELECT')";
    assert_eq!(one(&mut etl, asked), "1 0 0 NULL");
    // Tracking needs a right of its own.
    let oldest = "SELECT CHANGE_TRACKING_MIN_VALID_VERSION(OBJECT_ID(N's.t'))";
    assert_eq!(error(&mut etl, "SELECT * FROM CHANGETABLE(CHANGES s.t, 0) AS c"), 229);
    assert_eq!(one(&mut etl, oldest), "NULL");
    run(
        &mut owner,
        "GRANT VIEW CHANGE TRACKING, SELECT ON SCHEMA::[s] TO [etl]; DENY SELECT ON OBJECT::s.secret TO etl",
    );
    assert_eq!(query(&mut etl, "SELECT id FROM CHANGETABLE(CHANGES s.t, 0) AS c"), Vec::<String>::new());
    assert_eq!(one(&mut etl, oldest), "0");
    assert_eq!(error(&mut etl, "SELECT id FROM s.secret"), 229);
    assert_eq!(error(&mut etl, "SELECT row_count FROM sys.dm_db_partition_stats"), 262);
    run(
        &mut owner,
        "GRANT VIEW DATABASE STATE TO etl; REVOKE SELECT ON SCHEMA::s FROM etl; REVOKE SELECT ON s.t FROM etl",
    );
    assert_eq!(
        query(
            &mut etl,
            "SELECT row_count FROM sys.dm_db_partition_stats AS p JOIN sys.tables AS t ON t.object_id = p.object_id WHERE t.name = 't'"
        ),
        ["0"]
    );
    assert_eq!(error(&mut etl, "SELECT id FROM s.t"), 229);
}

#[test]
fn views_and_roles_give_rights() {
    let database = database();
    let mut owner = database.session("sa").unwrap();
    run(&mut owner, "CREATE TABLE t (id int); INSERT t VALUES (1)");
    run(&mut owner, "CREATE VIEW v AS SELECT id FROM t");
    run(&mut owner, "CREATE USER a; CREATE USER b; GRANT SELECT ON v TO a; ALTER ROLE db_datareader ADD MEMBER b");
    let mut a = database.session("a").unwrap();
    let mut b = database.session("b").unwrap();
    assert_eq!(query(&mut a, "SELECT id FROM v"), ["1"]);
    assert_eq!(error(&mut a, "SELECT id FROM t"), 229);
    assert_eq!(query(&mut b, "SELECT id FROM t"), ["1"]);
}

#[test]
fn passwords_are_those_of_create_login() {
    let database = database();
    database.execute("CREATE LOGIN etl WITH PASSWORD = N'pw', CHECK_POLICY = OFF").unwrap();
    assert_eq!(database.password_matches("etl", "pw"), Some(true));
    assert_eq!(database.password_matches("etl", "no"), Some(false));
    assert_eq!(database.password_matches("other", "pw"), None);
}
