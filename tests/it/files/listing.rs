//! Which files are found, and what is said when they cannot be.

use super::*;

#[tokio::test]
async fn a_missing_folder_is_named() {
    let mut landing = Landing::new("nowhere/*.csv", csv());
    let error = landing.failure().await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let text = error.to_string();
    assert!(text.contains("/nowhere does not exist; create it or correct `files`"), "{text}");
}

#[tokio::test]
async fn a_missing_file_is_named_and_a_vanished_one_is_not_an_error() {
    let mut landing = Landing::new("one.csv", csv());
    assert_eq!(landing.failure().await.kind(), ErrorKind::NotFound);
    landing.put("one.csv", "n\n1\n", 1);
    landing.load().await;
    fs::remove_file(landing.path("one.csv")).unwrap();
    assert!(landing.try_load().await.unwrap().is_none());
}

#[tokio::test]
async fn a_folder_is_no_file() {
    let mut landing = Landing::new("", csv());
    let error = landing.failure().await;
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("*.csv"), "{error}");
}

#[tokio::test]
async fn globs_find_what_they_say() {
    let mut landing = Landing::new("in/**/*.csv", csv());
    for name in
        ["in/a.csv", "in/x/y/b.csv", "in/.c.csv", "in/_d.csv", "in/e.csv.tmp", "in/f.txt", "in/_z/g.csv", "h.csv"]
    {
        landing.put(name, "n\n1\n", 1);
    }
    let mut found: Vec<_> = landing.load().await.statuses().into_iter().map(|(name, _)| name).collect();
    found.sort();
    assert_eq!(found, ["a.csv", "b.csv"]);
}

#[tokio::test]
async fn several_blocks_feed_one_table_and_share_no_file() {
    let mut landing = Landing::new("*.csv", csv());
    let mut second = landing.definition.sources[0].clone();
    second.files = Location::Local(landing.path("*.ndjson"));
    second.format = FileFormat::Ndjson;
    let third = FileSource { files: Location::Local(landing.path("a.*")), ..landing.definition.sources[0].clone() };
    landing.definition.sources.extend([second, third]);
    landing.put("a.csv", "n,t\n1,x\n", 1);
    landing.put("b.ndjson", "{\"t\":\"y\",\"n\":2.5,\"extra\":true}\n", 2);
    let loaded = landing.load().await;
    assert_eq!(loaded.types(), ["n double", "t string", "extra boolean"]);
    assert_eq!(loaded.rows(), [r#"{"n":1.0,"t":"x"}"#, r#"{"n":2.5,"t":"y","extra":true}"#]);
}

#[tokio::test]
async fn a_file_changed_while_it_is_read_starts_the_load_anew() {
    for deleted in [true, false] {
        let mut landing = Landing::new("*.csv", csv()).columns(&[("n", "bigint"), ("t", "string")]);
        let row = format!("1,{}\n", "x".repeat(1000));
        landing.put("big.csv", format!("n,t\n{}", row.repeat(60_000)), 1);
        let source = FilesSource::new(&landing.definition, Arc::new(landing.clock.clone()))
            .unwrap()
            .with_threads(std::num::NonZeroUsize::MIN);
        let mut reading = source.open(&landing.known).await.unwrap().unwrap();
        // The first batch is out and most of the file is not read yet: the window is small.
        assert!(matches!(reading.events.next().await, Some(Ok(SourceEvent::Changes(_)))));
        if deleted {
            fs::remove_file(landing.path("big.csv")).unwrap();
        } else {
            landing.put("big.csv", "n,t\n1,y\n", 2);
        }
        let error = loop {
            match reading.events.next().await.expect("an error ends the reading") {
                Ok(SourceEvent::End(_)) => panic!("the change was not noticed"),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().contains("big.csv"), "{error}");
        assert!(reading.events.next().await.is_none());
        let next = landing.try_load().await.unwrap();
        assert_eq!(next.map_or(0, |next| next.rows().len()), usize::from(!deleted));
    }
}

#[tokio::test]
async fn nobody_listening_stops_the_reading() {
    let mut landing = Landing::new("*.csv", csv());
    landing.put("a.csv", format!("n\n{}", "1\n".repeat(3_000_000)), 1);
    let source = FilesSource::new(&landing.definition, Arc::new(landing.clock.clone())).unwrap();
    let mut reading = source.open(&landing.known).await.unwrap().unwrap();
    assert!(reading.events.next().await.unwrap().is_ok());
    drop(reading);
    assert_eq!(landing.load().await.end.files[0].rows, 3_000_000);
}
