//! Each mode with each thing that can happen to a file.

use super::*;

use LoadStatus::{Committed, Unchanged};

/// Two files are loaded; then nothing is new.
async fn begun(mode: &str) -> Team {
    let team = team(mode, "");
    team.drop_file("in/a.csv", csv(&[(1, "a"), (2, "b")]));
    team.drop_file("in/b.csv", csv(&[(3, "c")]));
    let outcome = sync(&team, Committed).await;
    assert_eq!((outcome.record.rows_read, outcome.record.rows_written, outcome.record.version), (3, 3, Some(0)));
    assert_eq!(team.rows("s.t").await, ["1|a", "2|b", "3|c"]);
    assert_eq!(sync(&team, Unchanged).await.record.version, Some(0));
    team
}

/// What a table holds after one more thing has happened, which must stay so.
async fn after(team: &Team, expected: &[&str]) {
    let outcome = sync(team, Committed).await;
    assert_eq!(team.rows("s.t").await, expected, "{outcome:?}");
    sync(team, Unchanged).await;
    assert_eq!(team.rows("s.t").await, expected);
}

#[tokio::test]
async fn append_adds_each_file_once_whatever_happens_to_it() {
    let team = begun("append").await;
    team.drop_file("in/c.csv", csv(&[(1, "again"), (4, "d")]));
    after(&team, &["1|a", "1|again", "2|b", "3|c", "4|d"]).await;

    team.drop_file("in/b.csv", csv(&[(3, "other")]));
    let outcome = sync(&team, Committed).await;
    assert_eq!(outcome.record.rows_rejected, 1, "refused as a whole");
    assert!(outcome.reject_reasons[0].contains("in/b.csv"), "{outcome:?}");
    assert_eq!(team.rows("s.t").await.len(), 5, "its earlier rows stay");
    sync(&team, Unchanged).await;

    team.touch("in/a.csv");
    after(&team, &["1|a", "1|again", "2|b", "3|c", "4|d"]).await;
    team.rename("in/a.csv", "in/z.csv");
    after(&team, &["1|a", "1|again", "2|b", "3|c", "4|d"]).await;
    team.remove("in/z.csv");
    sync(&team, Unchanged).await;
    team.drop_file("in/z.csv", csv(&[(1, "a"), (2, "b")]));
    team.sync_one().await;
    assert_eq!(team.rows("s.t").await, ["1|a", "1|again", "2|b", "3|c", "4|d"], "dropped again, loaded once");
}

#[tokio::test]
async fn upsert_puts_each_row_in_the_place_of_its_key() {
    let team = begun("upsert").await;
    team.drop_file("in/c.csv", csv(&[(1, "old"), (4, "d")]));
    team.drop_file("in/d.csv", csv(&[(1, "new")]));
    after(&team, &["1|new", "2|b", "3|c", "4|d"]).await;
    team.drop_file("in/b.csv", csv(&[(3, "changed"), (2, "also")]));
    after(&team, &["1|new", "2|also", "3|changed", "4|d"]).await;
    team.touch("in/a.csv");
    after(&team, &["1|new", "2|also", "3|changed", "4|d"]).await;
    team.rename("in/a.csv", "in/z.csv");
    after(&team, &["1|new", "2|also", "3|changed", "4|d"]).await;
    team.remove("in/b.csv");
    sync(&team, Unchanged).await;
    team.drop_file("in/b.csv", csv(&[(3, "changed"), (2, "also")]));
    team.sync_one().await;
    assert_eq!(team.rows("s.t").await, ["1|new", "2|also", "3|changed", "4|d"]);
}

#[tokio::test]
async fn replace_takes_the_files_that_came_and_nothing_else_empties_the_table() {
    let team = begun("replace").await;
    team.drop_file("in/c.csv", csv(&[(7, "x"), (8, "y")]));
    after(&team, &["7|x", "8|y"]).await;
    team.touch("in/c.csv");
    after(&team, &["7|x", "8|y"]).await;
    team.rename("in/c.csv", "in/z.csv");
    after(&team, &["7|x", "8|y"]).await;
    team.remove("in/z.csv");
    sync(&team, Unchanged).await;
    assert_eq!(team.rows("s.t").await, ["7|x", "8|y"]);
    team.drop_file("in/a.csv", csv(&[(9, "changed")]));
    after(&team, &["9|changed"]).await;
}

#[tokio::test]
async fn mirror_is_what_the_files_are() {
    let team = begun("mirror").await;
    team.drop_file("in/c.csv", csv(&[(4, "d")]));
    after(&team, &["1|a", "2|b", "3|c", "4|d"]).await;
    team.drop_file("in/a.csv", csv(&[(1, "changed")]));
    after(&team, &["1|changed", "3|c", "4|d"]).await;
    team.touch("in/b.csv");
    after(&team, &["1|changed", "3|c", "4|d"]).await;
    team.rename("in/b.csv", "in/z.csv");
    after(&team, &["1|changed", "3|c", "4|d"]).await;
    team.remove("in/z.csv");
    after(&team, &["1|changed", "4|d"]).await;
    team.drop_file("in/z.csv", csv(&[(3, "c")]));
    after(&team, &["1|changed", "3|c", "4|d"]).await;
    for file in ["in/a.csv", "in/c.csv", "in/z.csv"] {
        team.remove(file);
    }
    after(&team, &[]).await;
}

#[tokio::test]
async fn a_file_in_mirror_keeps_its_rows_apart_when_columns_get_wider() {
    let team = begun("mirror").await;
    team.drop_file("in/c.csv", "id,v\n5000000000,big\n");
    after(&team, &["1|a", "2|b", "3|c", "5000000000|big"]).await;
    team.drop_file("in/d.csv", "id,v\n1.5,half\n");
    let outcome = team.sync_one().await;
    if outcome.record.status == Committed {
        team.remove("in/a.csv");
        sync(&team, Committed).await;
        let rows = team.rows("s.t").await;
        assert_eq!(rows.len(), 3, "{rows:?}");
        assert!(!rows.iter().any(|row| row.ends_with("|a") || row.ends_with("|b")), "{rows:?}");
    } else {
        assert!(outcome.record.error.unwrap().contains("id"), "the column is named");
    }
}
