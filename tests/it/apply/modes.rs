//! What each mode does with the files of a table.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::physical_optimizer::pruning::PruningStatistics;
use lakegate::error::{Classify, ErrorKind};
use lakegate::model::{ChangeBatch, ChangeKind, LoadMode};

use super::{Fixture, change, plan, rows};

fn numbers(range: std::ops::Range<i64>) -> RecordBatch {
    let texts = StringArray::from_iter_values(range.clone().map(|number| format!("{number:x}")));
    rows(vec![("id", Arc::new(Int64Array::from_iter_values(range)) as ArrayRef), ("text", Arc::new(texts))])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appended_rows_are_all_there_once_and_a_small_load_is_one_file() {
    let fixture = Fixture::new(64 << 20).await;
    let schema = numbers(0..1).schema();
    let changes = (0..40).map(|part| change(ChangeKind::Append, numbers(part * 500..(part + 1) * 500))).collect();
    let loaded = fixture.load(plan(schema.clone(), &[], LoadMode::Append), changes).await.unwrap();
    assert_eq!((loaded.rows_written, loaded.files_added), (20_000, 1));
    let more = vec![change(ChangeKind::Append, numbers(20_000..20_010))];
    fixture.load(plan(schema, &["id"], LoadMode::Append), more).await.unwrap();
    assert_eq!(fixture.number("select count(*) from t").await, 20_010);
    assert_eq!(fixture.number("select sum(id) from t").await, (0..20_010).sum::<i64>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replacing_takes_out_every_file_that_was_there() {
    let fixture = Fixture::new(64 << 20).await;
    let schema = numbers(0..1).schema();
    for from in [0, 1000] {
        let changes = vec![change(ChangeKind::Append, numbers(from..from + 10))];
        fixture.load(plan(schema.clone(), &[], LoadMode::Replace), changes).await.unwrap();
    }
    assert_eq!(fixture.number("select count(*) from t").await, 10);
    assert_eq!(fixture.number("select min(id) from t").await, 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirrored_file_that_goes_takes_exactly_its_rows_along() {
    let fixture = Fixture::new(64 << 20).await;
    let schema = numbers(0..1).schema();
    let of_file = |file: usize, range| ChangeBatch { kind: ChangeKind::Append, rows: numbers(range), file: Some(file) };
    let changes = vec![of_file(0, 0..10), of_file(0, 10..20), of_file(1, 100..110)];
    let loaded = fixture.load(plan(schema.clone(), &[], LoadMode::Mirror), changes).await.unwrap();
    let first = &loaded.data_files[&0];
    assert!(!first.is_empty() && !loaded.data_files[&1].is_empty());
    let changes = vec![of_file(0, 1000..1005)];
    let plan_again = plan(schema.clone(), &[], LoadMode::Mirror);
    let loaded = fixture.load_replacing(plan_again, changes, first).await.unwrap();
    assert_eq!(loaded.files_removed, first.len());
    assert_eq!(fixture.number("select count(*) from t").await, 15);
    assert_eq!(fixture.number("select sum(id) from t").await, (100..110).sum::<i64>() + (1000..1005).sum::<i64>());
    let unknown = ["no-such-file.parquet".to_owned()];
    let error = fixture.load_replacing(plan(schema, &[], LoadMode::Mirror), vec![], &unknown).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::DataLoss);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_replaces_rows_and_columns_whatever_they_were() {
    let fixture = Fixture::new(64 << 20).await;
    let first = vec![change(ChangeKind::Upsert, numbers(0..10))];
    fixture.load(plan(numbers(0..1).schema(), &["id"], LoadMode::Upsert), first).await.unwrap();
    let other = rows(vec![("id", Arc::new(StringArray::from(vec!["a", "b", "a"])) as ArrayRef)]);
    let mut anew = plan(other.schema(), &["id"], LoadMode::Upsert);
    anew.reload = true;
    fixture.load(anew, vec![change(ChangeKind::Upsert, other)]).await.unwrap();
    assert_eq!(fixture.number("select count(*) from t where id in ('a', 'b')").await, 2);
    assert_eq!(fixture.lake.table(&fixture.table).snapshot().await.unwrap().unwrap().schema().fields().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_is_removed_when_a_load_is_given_up() {
    let fixture = Fixture::new(4 << 10).await;
    let first = vec![change(ChangeKind::Append, numbers(0..10))];
    fixture.load(plan(numbers(0..1).schema(), &[], LoadMode::Append), first).await.unwrap();
    let before = fixture.files_on_disk();
    let table = fixture.lake.table(&fixture.table);
    for mode in [LoadMode::Append, LoadMode::Upsert] {
        let lease = table.lease("test", std::time::Duration::from_secs(5)).await.unwrap();
        let attempt = table.begin(&lease).await.unwrap();
        let key: &[&str] = if mode == LoadMode::Upsert { &["id"] } else { &[] };
        let mut writer = attempt.writer(plan(numbers(0..1).schema(), key, mode)).unwrap();
        for part in 0..20 {
            let kind = if mode == LoadMode::Upsert { ChangeKind::Upsert } else { ChangeKind::Append };
            writer.write(change(kind, numbers(part * 1000..(part + 1) * 1000))).await.unwrap();
        }
        writer.abort().await;
        assert_eq!(fixture.files_on_disk(), before, "{mode:?}");
    }
    assert_eq!(fixture.number("select count(*) from t").await, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_without_a_value_is_refused_and_nothing_is_told_of_the_row() {
    let fixture = Fixture::new(64 << 20).await;
    let ids = Int64Array::from(vec![Some(1), None]);
    let texts = StringArray::from(vec!["one", "secret"]);
    let batch = rows(vec![("id", Arc::new(ids) as ArrayRef), ("text", Arc::new(texts))]);
    let upsert = plan(batch.schema(), &["id"], LoadMode::Upsert);
    let error = fixture.load(upsert, vec![change(ChangeKind::Upsert, batch)]).await.err().unwrap();
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(text.contains("`id`") && text.contains("row 2") && !text.contains("secret"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_files_whose_keys_change_are_written_anew_and_ranges_stay_apart() {
    let fixture = Fixture::new(16 << 10).await;
    let schema = numbers(0..1).schema();
    let upsert = || plan(schema.clone(), &["id"], LoadMode::Upsert);
    let even = |range: std::ops::Range<i64>| {
        let ids: Vec<i64> = range.map(|number| number * 2).collect();
        let texts = StringArray::from_iter_values(ids.iter().map(|id| format!("{:032x}", id * 7_777_777_777)));
        rows(vec![("id", Arc::new(Int64Array::from(ids)) as ArrayRef), ("text", Arc::new(texts))])
    };
    let first = fixture.load(upsert(), vec![change(ChangeKind::Upsert, even(0..20_000))]).await.unwrap();
    assert!(first.files_added > 10, "{}", first.files_added);

    let absent = rows(vec![("id", Arc::new(Int64Array::from(vec![50_001, -1])) as ArrayRef)]);
    let nothing = fixture.load(upsert(), vec![change(ChangeKind::Delete, absent)]).await.unwrap();
    assert_eq!((nothing.files_removed, nothing.files_added), (0, 0));

    let inside = numbers(20_001..20_004);
    let one = fixture.load(upsert(), vec![change(ChangeKind::Upsert, inside)]).await.unwrap();
    assert_eq!((one.files_removed, one.estimate.files), (1, 1));
    assert_eq!(one.estimate.rewrite_bytes, one.bytes_removed);
    assert!(one.bytes_written < 3 * one.bytes_removed);
    assert_eq!(one.rows_written, 3);

    let above = fixture.load(upsert(), vec![change(ChangeKind::Upsert, numbers(50_000..50_010))]).await.unwrap();
    assert!(above.files_removed <= 1);
    assert_eq!(fixture.number("select count(*) from t").await, 20_012);

    let library = fixture.library_table().await;
    let eager = library.snapshot().unwrap().snapshot();
    let column = datafusion::common::Column::from_name("id");
    let ends = |array: ArrayRef| {
        let array = arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(&array).clone();
        array.values().to_vec()
    };
    let (lower, upper) = (eager.min_values(&column).unwrap(), eager.max_values(&column).unwrap());
    let mut ranges: Vec<(i64, i64)> = ends(lower).into_iter().zip(ends(upper)).collect();
    ranges.sort_unstable();
    assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0), "{ranges:?}");
}
