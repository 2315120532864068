//! What each thing that can happen to a file means in each mode: the table in `docs/files.md`, row by row.

use super::*;

const ALL: [LoadMode; 4] = [LoadMode::Append, LoadMode::Upsert, LoadMode::Replace, LoadMode::Mirror];

/// A landing with `a.csv` and `b.csv` loaded.
async fn loaded(mode: LoadMode) -> Landing {
    let mut landing = Landing::new("*.csv", csv()).mode(mode);
    landing.put("b.csv", "n\n2\n", 1);
    landing.put("a.csv", "n\n1\n", 2);
    let first = landing.load().await;
    // Older files first, whatever their names.
    assert_eq!(first.rows(), [r#"{"n":2}"#, r#"{"n":1}"#]);
    let kind = if mode == LoadMode::Upsert { ChangeKind::Upsert } else { ChangeKind::Append };
    assert_eq!(
        first.batches.iter().map(|(kind, file, _)| (*kind, *file)).collect::<Vec<_>>(),
        [(kind, Some(0)), (kind, Some(1))]
    );
    assert!(landing.try_load().await.unwrap().is_none(), "nothing is new in mode {mode:?}");
    landing
}

#[tokio::test]
async fn a_new_file_is_read_alone() {
    for mode in ALL {
        let mut landing = loaded(mode).await;
        landing.put("c.csv", "n\n3\n", 3);
        let next = landing.load().await;
        assert_eq!(next.rows(), [r#"{"n":3}"#], "{mode:?}");
        assert_eq!(next.statuses(), [("c.csv".to_owned(), FileStatus::Loaded)]);
        assert!(next.end.replaced_files.is_empty());
    }
}

#[tokio::test]
async fn a_changed_file_is_refused_in_append_and_read_again_elsewhere() {
    for mode in ALL {
        for content in ["n\n9\n", "n\n10\n11\n"] {
            let mut landing = loaded(mode).await;
            landing.put("a.csv", content, 5);
            let next = landing.load().await;
            if mode == LoadMode::Append {
                assert!(next.rows().is_empty());
                assert_eq!(next.statuses(), [("a.csv".to_owned(), FileStatus::Refused)]);
                assert_eq!((next.rejects[0].line, next.rejects.len()), (None, 1));
                assert!(next.rejects[0].reason.contains("mode `upsert`"), "{}", next.rejects[0].reason);
                assert_eq!(next.end.files[0].rows, 1, "its earlier rows stay");
                assert!(landing.try_load().await.unwrap().is_none(), "it is told once");
                landing.put("a.csv", "n\n1\n", 6);
                let back = landing.load().await;
                assert_eq!(back.statuses(), [("a.csv".to_owned(), FileStatus::Touched)], "the old content is known");
            } else {
                assert_eq!(next.rows().len(), content.lines().count() - 1, "{mode:?}");
                let replaced = [landing.path("a.csv").to_str().unwrap().to_owned()];
                let wanted: &[String] = if mode == LoadMode::Mirror { &replaced } else { &[] };
                assert_eq!(next.end.replaced_files, wanted, "{mode:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_touched_file_is_recorded_only() {
    for mode in ALL {
        let mut landing = loaded(mode).await;
        let before = landing.known.files[landing.path("a.csv").to_str().unwrap()].clone();
        touch(&landing.path("a.csv"), 9);
        let next = landing.load().await;
        assert_eq!(next.statuses(), [("a.csv".to_owned(), FileStatus::Touched)], "{mode:?}");
        assert!(next.batches.is_empty() && next.rejects.is_empty() && next.end.replaced_files.is_empty());
        let entry = &next.end.files[0];
        assert_eq!((&entry.content_hash, entry.rows, &entry.data_files), (&before.content_hash, 1, &before.data_files));
        assert!(landing.try_load().await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_renamed_file_is_recorded_only_and_its_old_name_is_free_again() {
    for mode in ALL {
        let mut landing = loaded(mode).await;
        let before = landing.known.files[landing.path("a.csv").to_str().unwrap()].clone();
        fs::rename(landing.path("a.csv"), landing.path("z.csv")).unwrap();
        let next = landing.load().await;
        assert_eq!(
            next.statuses(),
            [("z.csv".to_owned(), FileStatus::Renamed), ("a.csv".to_owned(), FileStatus::Removed)],
            "{mode:?}"
        );
        assert!(next.batches.is_empty() && next.end.replaced_files.is_empty(), "its rows stay");
        assert_eq!(next.end.files[0].data_files, before.data_files);
        assert!(landing.try_load().await.unwrap().is_none());
        // Two files with equal content that both exist are two files.
        landing.put("copy.csv", "n\n1\n", 20);
        assert_eq!(landing.load().await.statuses(), [("copy.csv".to_owned(), FileStatus::Loaded)], "{mode:?}");
    }
}

#[tokio::test]
async fn a_vanished_file_takes_its_rows_along_in_mirror_only() {
    for mode in ALL {
        let mut landing = loaded(mode).await;
        fs::remove_file(landing.path("a.csv")).unwrap();
        let next = landing.try_load().await.unwrap();
        if mode == LoadMode::Mirror {
            let next = next.unwrap();
            assert_eq!(next.statuses(), [("a.csv".to_owned(), FileStatus::Removed)]);
            assert_eq!(next.end.replaced_files, [landing.path("a.csv").to_str().unwrap()]);
            assert!(landing.try_load().await.unwrap().is_none());
        } else {
            assert!(next.is_none(), "{mode:?}");
        }
    }
}

#[tokio::test]
async fn a_file_that_comes_back_is_loaded_again_in_mirror_only() {
    for mode in ALL {
        let mut landing = loaded(mode).await;
        fs::remove_file(landing.path("a.csv")).unwrap();
        let _ = landing.try_load().await.unwrap();
        landing.put("a.csv", "n\n1\n", 30);
        let next = landing.load().await;
        if mode == LoadMode::Mirror {
            assert_eq!(next.rows(), [r#"{"n":1}"#]);
            assert!(next.end.replaced_files.is_empty());
        } else {
            assert_eq!(next.statuses(), [("a.csv".to_owned(), FileStatus::Touched)], "{mode:?}");
            assert!(next.batches.is_empty());
        }
    }
}

#[tokio::test]
async fn two_files_of_equal_content_are_two_files() {
    let mut landing = Landing::new("*.csv", csv());
    landing.put("a.csv", "n\n1\n", 1);
    landing.put("b.csv", "n\n1\n", 1);
    assert_eq!(landing.load().await.rows().len(), 2);
}

#[tokio::test]
async fn a_file_put_in_anothers_place_with_its_date_is_noticed() {
    let mut landing = loaded(LoadMode::Mirror).await;
    landing.put("new.tmp", "n\n7\n", 2);
    fs::rename(landing.path("new.tmp"), landing.path("a.csv")).unwrap();
    assert_eq!(landing.load().await.rows(), [r#"{"n":7}"#]);
}

#[tokio::test]
async fn a_growing_file_is_left_for_next_time() {
    let mut landing = Landing::new("*.csv", csv());
    landing.sources()[0].settle = Duration::from_secs(30);
    landing.put("done.csv", "n\n1\n", 0);
    fs::write(landing.path("growing.csv"), "n\n2\n").unwrap();
    assert_eq!(landing.load().await.rows(), [r#"{"n":1}"#]);
    assert!(landing.try_load().await.unwrap().is_none());
    landing.clock.advance(Duration::from_secs(31));
    assert_eq!(landing.load().await.rows(), [r#"{"n":2}"#]);
    assert!(landing.clock.now() > chrono::Utc::now());
}

#[tokio::test]
async fn a_growing_file_has_not_vanished() {
    let mut landing = loaded(LoadMode::Mirror).await;
    landing.sources()[0].settle = Duration::from_secs(30);
    fs::write(landing.path("a.csv"), "n\n1\n5\n").unwrap();
    assert!(landing.try_load().await.unwrap().is_none());
}

#[tokio::test]
async fn a_refused_file_is_tried_again_when_it_or_the_definition_changes() {
    let mut landing = Landing::new("*.csv", csv());
    landing.put("good.csv", "a,b\n1,2\n", 1);
    landing.put("twice.csv", "a,A\n1,2\n", 2);
    let first = landing.load().await;
    assert_eq!(first.statuses()[1], ("twice.csv".to_owned(), FileStatus::Refused));
    assert!(landing.try_load().await.unwrap().is_none());
    landing.definition.content_hash = "second".to_owned();
    assert_eq!(landing.load().await.statuses(), [("twice.csv".to_owned(), FileStatus::Refused)]);
    landing.put("twice.csv", "a,b\n5,6\n", 3);
    assert_eq!(landing.load().await.rows(), [r#"{"a":5,"b":6}"#]);
}
