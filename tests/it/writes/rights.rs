//! Who may write what, and that nothing is learned by writing.

use lakegate::access::{Access, Grant, Grantee, Grants, Scope};
use lakegate::error::ErrorKind;

use super::place::{Place, refusal, somebody};

const NOTES: &str = "[table]\nwritable = true\n[[columns]]\nname = \"id\"\ntype = \"bigint\"\n\
                     [[columns]]\nname = \"secret\"\ntype = \"string\"\n";

fn grant(to: &str, on: Scope, read: bool, write: bool) -> Grant {
    Grant { to: Grantee::User(to.to_owned()), on, columns: None, read, write }
}

fn grants() -> Grants {
    let notes = || Scope::Table("ops.notes".parse().unwrap());
    let results = || Scope::Schema("results".to_owned());
    let mut narrow = grant("narrow", notes(), true, true);
    narrow.columns = Some(["id".to_owned()].into());
    Grants {
        grants: vec![
            grant("reader", notes(), true, false),
            grant("writer", notes(), true, true),
            grant("adder", notes(), false, true),
            narrow,
            grant("ann", results(), false, true),
            grant("bob", Scope::Table("results.other".parse().unwrap()), true, true),
        ],
        ..Grants::default()
    }
}

async fn attempt(place: &Place, who: &Access, sql: &str) -> Result<u64, ErrorKind> {
    let result = place.change_as(sql, vec![], who).await;
    result.map_err(|error| {
        let kind = lakegate::error::Classify::kind(&error);
        assert!(!error.to_string().contains("secret"), "{sql}: {error}");
        kind
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_takes_a_grant_and_changing_by_content_takes_sight_of_everything() {
    let place = Place::local(&[("ops.notes", NOTES)]).await;
    let who = |name: &str| somebody(name, grants());
    let insert = "insert into ops.notes values (1, 'x')";
    let delete = "delete from ops.notes where id = 1";
    let update = "update ops.notes set id = 2 where id = 1";
    assert_eq!(attempt(&place, &who("stranger"), insert).await, Err(ErrorKind::NotFound));
    assert_eq!(attempt(&place, &who("reader"), insert).await, Err(ErrorKind::PermissionDenied));
    assert_eq!(attempt(&place, &who("writer"), insert).await, Ok(1));
    assert_eq!(attempt(&place, &who("adder"), insert).await, Ok(1));
    assert_eq!(attempt(&place, &who("narrow"), insert).await, Ok(1));
    for name in ["adder", "narrow"] {
        assert_eq!(attempt(&place, &who(name), delete).await, Err(ErrorKind::PermissionDenied), "{name}");
        assert_eq!(attempt(&place, &who(name), update).await, Err(ErrorKind::PermissionDenied), "{name}");
    }
    assert_eq!(attempt(&place, &who("reader"), delete).await, Err(ErrorKind::PermissionDenied));
    assert_eq!(attempt(&place, &who("writer"), update).await, Ok(3));
    let read = "insert into ops.notes select 1, table_name from results.hidden";
    place.run("create table hidden as select 'x' as table_name").await;
    assert_eq!(attempt(&place, &who("writer"), read).await, Err(ErrorKind::NotFound), "what is read needs a grant too");
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_to_what_may_not_be_seen_is_answered_as_if_it_were_not_there() {
    let place = Place::local(&[("ops.notes", NOTES)]).await;
    place.run("create table concealed as select 1 as a").await;
    let stranger = somebody("stranger", grants());
    for sql in [
        "create table ops.notes (a bigint)",
        "insert into ops.notes values (1, 'x')",
        "insert into notes values (1, 'x')",
        "delete from notes",
        "drop table notes",
        "create table results.concealed (a bigint)",
        "create table if not exists concealed (a bigint)",
        "create or replace table concealed (a bigint)",
        "insert into results.concealed values (1)",
    ] {
        let other = |text: &str| text.replace("notes", "nix").replace("concealed", "nix");
        let (kind, told) = refusal(place.change_as(sql, vec![], &stranger).await, sql);
        let absent = refusal(place.change_as(&other(sql), vec![], &stranger).await, sql);
        assert_eq!((kind, other(&told)), absent, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_belong_to_those_who_make_them() {
    let place = Place::local(&[]).await;
    let (ann, bob, cleo) = (somebody("ann", grants()), somebody("bob", grants()), somebody("cleo", grants()));
    assert_eq!(attempt(&place, &cleo, "create table own as select 1 as a").await, Err(ErrorKind::PermissionDenied));
    assert_eq!(attempt(&place, &ann, "create table own as select 1 as a").await, Ok(1));
    assert_eq!(place.rows_as("select a from own", &ann).await.unwrap(), ["1"]);
    for sql in ["insert into own values (2)", "drop table own", "delete from own", "alter table own add column b int"] {
        assert_eq!(attempt(&place, &bob, sql).await, Err(ErrorKind::NotFound), "{sql}");
    }
    let unseen = refusal(place.rows_as("select a from results.own", &bob).await, "select").1;
    let absent = refusal(place.rows_as("select a from results.nix", &bob).await, "select").1;
    assert_eq!(unseen.replace("own", "nix"), absent, "a table that may not be seen is not there");
    let unseen = refusal(place.rows_as("select a from results.own version as of 9", &bob).await, "select").1;
    assert_eq!(unseen.replace("own", "nix"), absent);
    assert_eq!(attempt(&place, &ann, "insert into own values (2)").await, Ok(1));
    assert_eq!(attempt(&place, &ann, "drop table own").await, Ok(0));

    place.run("create table other as select 'old' as a").await;
    place.run("drop table other").await;
    let access = somebody(
        "bob",
        Grants { grants: vec![grant("bob", Scope::Schema("results".to_owned()), false, true)], ..Grants::default() },
    );
    assert_eq!(attempt(&place, &access, "create table other as select 'new' as a").await, Ok(1));
    let owner = somebody("bob", Grants::default());
    assert_eq!(place.rows_as("select a from results.other", &owner).await.unwrap(), ["new"]);
    let older = place.rows_as("select a from results.other version as of 0", &owner).await;
    assert_eq!(refusal(older, "the former owner's rows").0, ErrorKind::NotFound);
    assert_eq!(
        place.rows("select a from results.other version as of 0").await,
        ["old"],
        "who may see all may see those"
    );
}
