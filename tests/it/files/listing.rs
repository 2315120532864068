//! Which files are found, and what is said when they cannot be.

use object_store::{ObjectStore, ObjectStoreExt};

use super::*;
use crate::support::s3;

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
    let mut second = landing.sources()[0].clone();
    second.files = Location::Local(landing.path("*.ndjson"));
    second.format = FileFormat::Ndjson;
    let files = Location::Local(landing.path("a.*"));
    let third = FileSource { files, ..landing.sources()[0].clone() };
    landing.sources().extend([second, third]);
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

/// A landing in a bucket of its own, and the store to put files there.
async fn bucket_landing(glob: &str, format: FileFormat) -> (Landing, Arc<dyn ObjectStore>) {
    let mut landing = Landing::new("unused", format);
    let connection = lakegate::config::S3Connection {
        endpoint: Some(s3::endpoint().parse().unwrap()),
        region: Some("us-east-1".to_owned()),
        access_key_id: Some("test".into()),
        secret_access_key: Some("test".into()),
        allow_http: true,
    };
    let location = Location::S3 { bucket: s3::bucket(), key: glob.to_owned() };
    let store = lakegate::runtime::store::open(&location, Some(&connection)).unwrap();
    let source = &mut landing.sources()[0];
    (source.files, source.connection) = (location, Some(connection));
    (landing, store)
}

async fn put(store: &Arc<dyn ObjectStore>, key: &str, content: impl Into<object_store::PutPayload>) {
    store.put(&key.into(), content.into()).await.unwrap();
}

#[tokio::test]
async fn a_bucket_is_read_like_a_folder() {
    let (mut landing, store) = bucket_landing("in/**/*.csv", csv()).await;
    let error = landing.failure().await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("nothing is stored under s3://"), "{error}");
    for key in ["in/a.csv", "in/x/b.csv", "in/_c.csv", "in/d.txt", "other/e.csv"] {
        put(&store, key, "n,t\n1,x\n").await;
    }
    let loaded = landing.load().await;
    assert_eq!((loaded.rows().len(), loaded.progress), (2, loaded.total));
    assert!(loaded.end.files[0].path.starts_with("s3://lake-"));
    assert_eq!(loaded.end.files[0].content_hash, blake3::hash(b"n,t\n1,x\n").to_hex().as_str());
    assert!(landing.try_load().await.unwrap().is_none());
    // Written again with the same content: the tag says so. With other content: it is refused in mode append.
    put(&store, "in/a.csv", "n,t\n1,x\n").await;
    put(&store, "in/x/b.csv", "n,t\n2,y\n").await;
    store.copy(&"in/a.csv".into(), &"in/z.csv".into()).await.unwrap();
    let again = landing.try_load().await.unwrap().unwrap();
    let mut statuses: Vec<_> = again.statuses();
    statuses.sort_by(|(a, _), (b, _)| a.cmp(b));
    let seconds_apart = statuses.len() == 3;
    let wanted = [("a.csv", FileStatus::Touched), ("b.csv", FileStatus::Refused), ("z.csv", FileStatus::Loaded)];
    let wanted = wanted.map(|(name, status)| (name.to_owned(), status));
    // A store that counts time in seconds may show the rewritten file as it was.
    assert_eq!(statuses, if seconds_apart { &wanted[..] } else { &wanted[1..] });
}

#[tokio::test]
async fn parquet_in_a_bucket_is_read_whatever_the_footer_is_long() {
    for declared in [true, false] {
        let (mut landing, store) = bucket_landing("*.parquet", FileFormat::Parquet).await;
        let names: Vec<String> =
            (0..900).map(|n| format!("a_rather_long_column_name_{n:04}_{}", "x".repeat(80))).collect();
        let column = || Arc::new(arrow::array::Int64Array::from(vec![1, 2])) as arrow::array::ArrayRef;
        let batch = RecordBatch::try_from_iter(names.iter().map(|name| (name.as_str(), column()))).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        let whole = writer.into_inner().unwrap();
        put(&store, "cut.parquet", whole[..whole.len() / 2].to_vec()).await;
        put(&store, "whole.parquet", whole).await;
        if declared {
            landing = landing.columns(&[(&names[7], "int")]);
        }
        let loaded = landing.load().await;
        assert_eq!(loaded.schema.fields().len(), if declared { 1 } else { 900 });
        assert_eq!(loaded.batches.iter().map(|(_, _, rows)| rows.num_rows()).sum::<usize>(), 2);
        assert_eq!(loaded.reasons().len(), 1);
        assert!(loaded.rejects[0].file.ends_with("/cut.parquet"));
    }
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_named() {
    let (mut landing, _) = bucket_landing("*.csv", csv()).await;
    let missing = Location::S3 { bucket: "no-such-bucket".to_owned(), key: "x/*.csv".to_owned() };
    landing.sources()[0].files = missing;
    let error = landing.failure().await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("s3://no-such-bucket/x"), "{error}");
}
