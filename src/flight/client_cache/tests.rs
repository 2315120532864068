//! The cache of a client without a server.

use std::os::unix::fs::symlink;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, SchemaRef};
use tempfile::TempDir;

use super::*;

const SERVER: &str = "grpc://lake:8815";
const FIRST: &str = "00000000000000000000000000000001";
const SECOND: &str = "00000000000000000000000000000002";
const THIRD: &str = "00000000000000000000000000000003";

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]))
}

fn numbers(values: std::ops::Range<i64>) -> RecordBatch {
    RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from_iter_values(values))]).unwrap()
}

/// A cache in a folder that is not there yet.
fn cache(size: Option<u64>) -> (TempDir, ClientCache) {
    let folder = tempfile::tempdir().unwrap();
    let cache = ClientCache::new(&folder.path().join("cache"), SERVER, &ClientOptions::default(), size);
    (folder, cache)
}

fn keep(cache: &ClientCache, identity: &str, before: Option<&str>, values: std::ops::Range<i64>) -> bool {
    let mut writer = cache.writer(&schema()).unwrap();
    writer.write(&numbers(values)).unwrap();
    cache.adopt(writer, identity, before)
}

async fn found(cache: &ClientCache, identity: &str) -> Option<Vec<i64>> {
    let mut rows = cache.find(identity, &schema()).await?;
    let mut values = Vec::new();
    while let Some(batch) = rows.next_batch().unwrap() {
        values.extend_from_slice(batch.column(0).as_primitive::<Int64Type>().values());
    }
    Some(values)
}

fn files(cache: &ClientCache) -> Vec<String> {
    let entries = fs::read_dir(&cache.own).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn answer(identity: &str) -> Known {
    let told = arrow_flight::FlightInfo::new().try_with_schema(&schema()).unwrap();
    Known {
        identity: identity.to_owned(),
        basis: Some("sealed".to_owned()),
        wire_schema: told.schema,
        checked_at: now().floor(),
    }
}

#[tokio::test]
async fn what_was_kept_is_found_by_its_owner_and_read_by_nobody_else() {
    let (_folder, cache) = cache(None);
    assert_eq!(found(&cache, FIRST).await, None);
    assert!(keep(&cache, FIRST, None, 0..1000));
    assert_eq!(found(&cache, FIRST).await.unwrap(), Vec::from_iter(0..1000_i64));
    assert_eq!(found(&cache, SECOND).await, None);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let kept = files(&cache);
    assert_eq!((kept.len(), mode(&cache.own), mode(&cache.own.join(&kept[0]))), (1, 0o700, 0o600));
    let other = ClientCache::new(&cache.root, "grpc://other:8815", &ClientOptions::default(), None);
    assert_eq!(found(&other, FIRST).await, None);
    // A folder that others may enter is shut.
    fs::set_permissions(&cache.own, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(keep(&cache, SECOND, None, 0..1));
    assert_eq!(mode(&cache.own), 0o700);
}

#[tokio::test]
async fn damaged_files_and_rows_of_other_types_are_removed() {
    let damages: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes[200] ^= 1,
        |bytes| bytes.truncate(bytes.len() - 1),
        |bytes| bytes.push(0),
        |bytes| bytes.clear(),
    ];
    for damage in damages {
        let (_folder, cache) = cache(None);
        assert!(keep(&cache, FIRST, None, 0..1000));
        let path = cache.own.join(&files(&cache)[0]);
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();
        assert_eq!(found(&cache, FIRST).await, None);
        assert_eq!(files(&cache), Vec::<String>::new());
        assert!(keep(&cache, FIRST, None, 0..1000) && found(&cache, FIRST).await.is_some());
    }
    let (_folder, cache) = cache(None);
    assert!(keep(&cache, FIRST, None, 0..10));
    let other = Schema::new(vec![Field::new("n", DataType::Utf8, true)]);
    assert!(cache.find(FIRST, &other).await.is_none() && files(&cache).is_empty());
}

#[tokio::test]
async fn new_rows_stand_alone_and_hang_on_those_before() {
    let (_folder, cache) = cache(None);
    assert!(keep(&cache, FIRST, None, 0..10) && keep(&cache, SECOND, Some(FIRST), 10..20));
    assert!(keep(&cache, THIRD, Some(SECOND), 20..30));
    assert_eq!(found(&cache, THIRD).await.unwrap(), Vec::from_iter(0..30_i64));
    assert_eq!(found(&cache, FIRST).await.unwrap(), Vec::from_iter(0..10_i64));
    let second = files(&cache).into_iter().find(|name| name.starts_with(SECOND)).unwrap();
    fs::remove_file(cache.own.join(second)).unwrap();
    assert_eq!(found(&cache, THIRD).await, None);
    assert!(files(&cache).iter().all(|name| name.starts_with(FIRST)), "nothing without the rows before");
    assert!(!keep(&cache, THIRD, Some(SECOND), 20..30), "nor is it kept");
    // Two results that name each other have no end.
    assert!(keep(&cache, SECOND, Some(FIRST), 0..1));
    fs::rename(cache.own.join(&files(&cache)[0]), cache.own.join(format!("{FIRST}+{SECOND}-1-00000000.arrow")))
        .unwrap();
    assert!(!cache.has(SECOND) && found(&cache, SECOND).await.is_none());
}

#[tokio::test]
async fn what_was_not_used_for_longest_makes_room_and_what_is_too_large_is_not_kept() {
    let (_folder, cache) = cache(Some(20_000));
    let used = |identity: &str, seconds: u64| {
        let name = files(&cache).into_iter().find(|name| name.starts_with(identity)).unwrap();
        let times = FileTimes::new().set_accessed(UNIX_EPOCH + Duration::from_secs(seconds));
        File::open(cache.own.join(name)).unwrap().set_times(times).unwrap();
    };
    // About 8 kB each.
    assert!(keep(&cache, FIRST, None, 0..1000) && keep(&cache, SECOND, None, 0..1000));
    used(FIRST, 2);
    used(SECOND, 1);
    assert!(keep(&cache, THIRD, None, 0..1000));
    assert!(found(&cache, FIRST).await.is_some() && found(&cache, THIRD).await.is_some());
    assert_eq!(found(&cache, SECOND).await, None);

    let mut writer = cache.writer(&schema()).unwrap();
    let error = writer.write(&numbers(0..10_000)).unwrap_err();
    assert!(error.to_string().contains("20000 bytes"), "{error}");
    drop(writer);
    assert_eq!(files(&cache).len(), 2, "what was begun is gone");
    // Together with the rows before it is too large.
    assert!(!keep(&cache, SECOND, Some(FIRST), 0..2000));
    assert_eq!(files(&cache).len(), 2);
}

#[test]
fn the_last_answer_to_a_question_is_remembered_while_its_rows_are_here() {
    let (_folder, cache) = cache(None);
    cache.remember("question", &answer(FIRST));
    assert_eq!(cache.known("question"), None, "there is no folder yet");
    assert!(keep(&cache, FIRST, None, 0..10));
    let known = answer(FIRST);
    cache.remember("question", &known);
    assert_eq!(cache.known("question"), Some(known.clone()));
    assert_eq!(cache.known("another"), None);
    assert!(known.is_fresh(Duration::from_secs(3600)));
    let (old, ahead) = (known.checked_at - 7200.0, known.checked_at + 7200.0);
    assert!(!Known { checked_at: old, ..known.clone() }.is_fresh(Duration::from_secs(3600)));
    assert!(!Known { checked_at: ahead, ..known.clone() }.is_fresh(Duration::from_secs(3600)));

    cache.remember("question", &answer(SECOND));
    assert_eq!(cache.known("question"), None, "its rows are not here");
    for broken in ["", "{}", r#"{"identity":"../x","basis":null,"schema":"","checked_at":1}"#] {
        fs::write(cache.own.join("question.known"), broken).unwrap();
        assert_eq!(cache.known("question"), None, "{broken}");
    }
    let odd = format!(r#"{{"identity":"{FIRST}","basis":"a b\n","schema":"","checked_at":1}}"#);
    fs::write(cache.own.join("question.known"), odd).unwrap();
    assert_eq!(cache.known("question").unwrap().basis, None, "what cannot be a header is shown to nobody");
}

#[test]
fn only_results_are_listed_and_removed() {
    let (_folder, cache) = cache(None);
    assert!(cache_entries(&cache.root).is_empty());
    clear_cache(&cache.root).unwrap();
    assert!(keep(&cache, FIRST, None, 0..10));
    cache.remember("question", &answer(FIRST));
    let other = ClientCache::new(&cache.root, "grpc://other:8815", &ClientOptions::default(), None);
    assert!(keep(&other, SECOND, None, 0..10));
    let foreign = [cache.root.join("mine.arrow"), cache.own.join("mine.arrow"), cache.root.join("mine/x.known")];
    fs::create_dir(cache.root.join("mine")).unwrap();
    foreign.iter().for_each(|path| fs::write(path, "x").unwrap());
    let identities: std::collections::BTreeSet<_> =
        cache_entries(&cache.root).into_iter().map(|entry| entry.identity).collect();
    assert_eq!(Vec::from_iter(identities), [FIRST, SECOND]);
    clear_cache(&cache.root).unwrap();
    assert!(cache_entries(&cache.root).is_empty());
    assert_eq!(files(&cache), ["mine.arrow"]);
    assert!(foreign.iter().all(|path| path.exists()));
}

#[test]
fn a_folder_that_cannot_be_written_only_keeps_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "x").unwrap();
    symlink("nowhere", folder.path().join("link")).unwrap();
    for name in ["file", "link"] {
        let cache = ClientCache::new(&folder.path().join(name), SERVER, &ClientOptions::default(), None);
        assert!(cache.writer(&schema()).is_none());
        cache.remember("question", &answer(FIRST));
        assert_eq!(cache.known("question"), None);
    }
}
