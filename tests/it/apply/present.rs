//! Rows that are present at a source: what is written for them, and what is not.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use lakegate::error::{Classify, ErrorKind};
use lakegate::model::{ChangeKind, ContentHash, KeyFolding, KeyRange, LoadMode};

use super::reading::every_type;
use super::{Fixture, Told, change, plan, rows};

fn numbers(ids: impl Iterator<Item = i64>) -> RecordBatch {
    let ids: Vec<i64> = ids.collect();
    let texts = StringArray::from_iter_values(ids.iter().map(|id| format!("{:032x}", id * 7_777_777_777)));
    rows(vec![("id", Arc::new(Int64Array::from(ids)) as ArrayRef), ("text", Arc::new(texts))])
}

fn key(id: i64) -> Option<RecordBatch> {
    Some(rows(vec![("id", Arc::new(Int64Array::from(vec![id])) as ArrayRef)]))
}

fn present(rows: RecordBatch) -> Told {
    Told::Change(change(ChangeKind::Present, rows))
}

fn everything() -> Told {
    Told::Complete(KeyRange::default())
}

fn upsert() -> lakegate::lake::WritePlan {
    plan(numbers(0..0).schema(), &["id"], LoadMode::Upsert)
}

/// A table of the even numbers below twenty thousand in many files.
async fn even_numbers() -> Fixture {
    let fixture = Fixture::new(16 << 10).await;
    let first = fixture.load(upsert(), vec![change(ChangeKind::Upsert, numbers((0..10_000).map(|n| n * 2)))]).await;
    assert!(first.unwrap().files_added > 10);
    fixture
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_the_table_has_already_write_no_file_and_one_that_differs_writes_one() {
    let fixture = even_numbers().await;
    let all = || (0..10).map(|part| present(numbers((part * 1000..(part + 1) * 1000).map(|n| n * 2))));
    let same = fixture.tell(upsert(), all().chain([everything()]).collect(), &[]).await.unwrap();
    assert_eq!((same.rows_written, same.files_added, same.files_removed, same.estimate.files), (0, 0, 0, 0));

    let ids: ArrayRef = Arc::new(Int64Array::from(vec![5000]));
    let other = rows(vec![("id", ids), ("text", Arc::new(StringArray::from(vec!["other"])))]);
    let one = fixture.tell(upsert(), all().chain([everything(), present(other)]).collect(), &[]).await.unwrap();
    assert_eq!((one.rows_written, one.files_removed, one.estimate.files), (1, 1, 1));
    assert_eq!(one.estimate.rewrite_bytes, one.bytes_removed);
    assert_eq!(fixture.number("select id from t where text = 'other'").await, 5000);
    assert_eq!(fixture.number("select count(*) from t").await, 10_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_outside_of_complete_ranges_stay() {
    let fixture = even_numbers().await;
    // Present without a range: nothing goes.
    let told = vec![present(numbers([7, 8].into_iter()))];
    let loaded = fixture.tell(upsert(), told, &[]).await.unwrap();
    assert_eq!((loaded.rows_written, fixture.number("select count(*) from t").await), (1, 10_001));
    // A range by keys alone: what lies in it and is not there goes, and only its files are written anew.
    let keys = rows(vec![("id", Arc::new(Int64Array::from_iter_values((100..120).step_by(4))) as ArrayRef)]);
    let range = KeyRange { after: key(100), until: key(120) };
    let told = vec![Told::Complete(range), Told::Change(change(ChangeKind::PresentKeys, keys))];
    let loaded = fixture.tell(upsert(), told, &[]).await.unwrap();
    assert_eq!((loaded.rows_written, loaded.files_removed), (0, 1));
    assert_eq!(fixture.number("select count(*) from t").await, 10_001 - 6);
    assert_eq!(fixture.number("select count(*) from t where id between 100 and 120").await, 5);
    assert_eq!(fixture.number("select count(*) from t where id in (100, 104, 108, 112, 116)").await, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_newer_than_what_is_present_whatever_came_first() {
    let fixture = even_numbers().await;
    let text = |ids: Vec<i64>, text: &str| {
        let texts = StringArray::from_iter_values(ids.iter().map(|_| text));
        rows(vec![("id", Arc::new(Int64Array::from(ids)) as ArrayRef), ("text", Arc::new(texts))])
    };
    let told = vec![
        Told::Change(change(ChangeKind::Upsert, text(vec![1, 2], "changed"))),
        Told::Change(change(ChangeKind::Delete, key(4).unwrap())),
        present(text(vec![1, 2, 4, 6], "present")),
        Told::Complete(KeyRange { after: key(-1), until: key(6) }),
        Told::Change(change(ChangeKind::Upsert, text(vec![3], "changed"))),
    ];
    let loaded = fixture.tell(upsert(), told, &[]).await.unwrap();
    assert_eq!(loaded.rows_written, 4);
    assert_eq!(fixture.number("select sum(id) from t where text = 'changed'").await, 6);
    assert_eq!(fixture.number("select sum(id) from t where text = 'present'").await, 6);
    assert_eq!(fixture.number("select count(*) from t where id <= 6").await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_goes_when_nothing_is_present() {
    let fixture = even_numbers().await;
    let loaded = fixture.tell(upsert(), vec![everything()], &[]).await.unwrap();
    assert_eq!((loaded.rows_written, loaded.files_added), (0, 0));
    assert_eq!(fixture.number("select count(*) from t").await, 0);
    let told = vec![everything(), present(numbers(0..5)), present(numbers(3..7))];
    let loaded = fixture.tell(upsert(), told, &[]).await.unwrap();
    assert_eq!((loaded.rows_written, fixture.number("select count(*) from t").await), (7, 7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_load_puts_every_row_that_is_present() {
    let fixture = Fixture::new(16 << 10).await;
    let keys = rows(vec![("id", Arc::new(Int64Array::from(vec![100])) as ArrayRef)]);
    let told = vec![
        Told::Change(change(ChangeKind::Upsert, numbers(10..12))),
        present(numbers(0..20)),
        Told::Change(change(ChangeKind::PresentKeys, keys)),
        everything(),
        Told::Change(change(ChangeKind::Delete, key(5).unwrap())),
    ];
    let loaded = fixture.tell(upsert(), told, &[]).await.unwrap();
    assert_eq!((loaded.rows_written, fixture.number("select count(*) from t").await), (19, 19));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_is_the_same_as_itself_and_differs_when_one_value_does() {
    let fixture = Fixture::new(64 << 20).await;
    let upsert = || plan(every_type(0).schema(), &["id"], LoadMode::Upsert);
    let all: Vec<RecordBatch> = (1..=3).map(every_type).collect();
    fixture.load(upsert(), all.iter().map(|rows| change(ChangeKind::Upsert, rows.clone())).collect()).await.unwrap();
    let told = || all.iter().map(|rows| present(rows.clone())).chain([everything()]).collect();
    let same = fixture.tell(upsert(), told(), &[]).await.unwrap();
    assert_eq!((same.rows_written, same.files_added), (0, 0));
    for column in 1..all[0].num_columns() {
        let mut columns = all[1].columns().to_vec();
        columns[column] = arrow::array::new_null_array(columns[column].data_type(), 1);
        let null = RecordBatch::try_new(all[1].schema(), columns).unwrap();
        for (rows, written) in [(&null, 1), (&null, 0), (&all[1], 1), (&all[1], 0)] {
            let loaded = fixture.tell(upsert(), vec![present(rows.clone())], &[]).await.unwrap();
            assert_eq!(loaded.rows_written, written, "column {column}");
            let found = fixture.query("select * from t where id = 2").await;
            assert_eq!(found[0].column(column).null_count(), rows.column(column).null_count());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_that_come_grow_or_are_missing_write_nothing_forever() {
    let fixture = Fixture::new(64 << 20).await;
    let narrow = rows(vec![
        ("id", Arc::new(Int32Array::from(vec![1, 2])) as ArrayRef),
        ("a", Arc::new(Int32Array::from(vec![10, 20]))),
        ("gone", Arc::new(StringArray::from(vec!["x", "y"]))),
    ]);
    let load = |rows: RecordBatch| {
        let plan = plan(rows.schema(), &["id"], LoadMode::Upsert);
        let fixture = &fixture;
        async move { fixture.tell(plan, vec![present(rows), everything()], &[]).await.unwrap() }
    };
    assert_eq!(load(narrow.clone()).await.rows_written, 2);
    // A column is missing: what stands in it stays.
    let fewer = narrow.project(&[0, 1]).unwrap();
    assert_eq!(load(fewer.clone()).await.files_added, 0);
    // One that comes, without values, and one that is wider: files are written anew for the width alone.
    let wide = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("a", DataType::Int64, true),
        Field::new("new", DataType::Utf8, true),
    ]));
    let values = |new: Vec<Option<&str>>| {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![1, 2])),
            Arc::new(Int64Array::from(vec![10, 20])),
            Arc::new(StringArray::from(new)),
        ];
        RecordBatch::try_new(Arc::clone(&wide), columns).unwrap()
    };
    let wider = load(values(vec![None, None])).await;
    assert_eq!((wider.rows_written, wider.files_removed, wider.files_added), (0, 1, 1));
    assert_eq!(fixture.number("select count(*) from t where gone in ('x', 'y')").await, 2);
    assert_eq!(load(values(vec![None, None])).await.files_added, 0);
    // A row that is put has no value in the column that is missing.
    assert_eq!(load(values(vec![None, Some("n")])).await.rows_written, 1);
    assert_eq!(load(values(vec![None, Some("n")])).await.files_added, 0);
    assert_eq!(fixture.number("select count(gone) from t").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_in_memory_is_compared_all_the_same() {
    let fixture = Fixture::with_memory(1 << 20, 48 << 20).await;
    let wide = |ids: std::ops::Range<i64>| {
        let texts = StringArray::from_iter_values(ids.clone().map(|id| format!("{:0400x}", id * 1_000_003)));
        rows(vec![("id", Arc::new(Int64Array::from_iter_values(ids)) as ArrayRef), ("text", Arc::new(texts))])
    };
    let parts = |from: i64| (0..30).map(move |part| from + (part * 17 % 30) * 4000).map(move |at| wide(at..at + 4000));
    fixture.load(upsert(), parts(0).map(|rows| change(ChangeKind::Upsert, rows)).collect()).await.unwrap();
    let told = parts(0).map(present).chain([everything()]).collect();
    let same = fixture.tell(upsert(), told, &[]).await.unwrap();
    assert_eq!((same.rows_written, same.files_added), (0, 0));
    let told = parts(60_000).map(present).chain([everything()]).collect();
    let half = fixture.tell(upsert(), told, &[]).await.unwrap();
    assert_eq!(half.rows_written, 60_000);
    assert_eq!(fixture.number("select count(*) from t").await, 120_000);
    assert_eq!(fixture.number("select min(id) from t").await, 60_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_without_keys_and_keys_without_values_are_refused() {
    let fixture = Fixture::new(64 << 20).await;
    for mode in [LoadMode::Append, LoadMode::Replace] {
        for key in [&[][..], &["id"]] {
            let told = vec![present(numbers(0..1))];
            let error = fixture.tell(plan(numbers(0..1).schema(), key, mode), told, &[]).await.err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
            let error = fixture.tell(plan(numbers(0..1).schema(), key, mode), vec![everything()], &[]).await;
            assert_eq!(error.err().unwrap().kind(), ErrorKind::Internal);
        }
    }
    fixture.load(upsert(), vec![change(ChangeKind::Upsert, numbers(0..3))]).await.unwrap();
    let null = rows(vec![("id", Arc::new(Int64Array::from(vec![None::<i64>])) as ArrayRef)]);
    for kind in [ChangeKind::Present, ChangeKind::PresentKeys] {
        let told = vec![Told::Change(change(kind, null.clone()))];
        let error = fixture.tell(upsert(), told, &[]).await.err().unwrap();
        assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains("`id`"), "{error}");
    }
    for end in [null, numbers(0..0), numbers(0..2)] {
        let told = vec![Told::Complete(KeyRange { after: Some(end), until: None })];
        assert_eq!(fixture.tell(upsert(), told, &[]).await.err().unwrap().kind(), ErrorKind::Internal);
    }
    assert_eq!(fixture.number("select count(*) from t").await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_written_otherwise_are_the_same_keys() {
    let fixture = Fixture::new(2 << 10).await;
    let texts = |keys: &[String], value: &str| {
        let values = StringArray::from_iter_values(keys.iter().map(|_| value));
        rows(vec![("id", Arc::new(StringArray::from_iter_values(keys)) as ArrayRef), ("v", Arc::new(values))])
    };
    let folding = vec![KeyFolding::LettersWithoutCase];
    let upsert = || lakegate::lake::WritePlan {
        folding: folding.clone(),
        ..plan(texts(&[], "").schema(), &["id"], LoadMode::Upsert)
    };
    let lower: Vec<String> = (0..500).map(|number| format!("key-{number:03}")).collect();
    let upper: Vec<String> = lower.iter().map(|key| format!("{}  ", key.to_uppercase())).collect();
    fixture.load(upsert(), vec![change(ChangeKind::Upsert, texts(&lower, "v"))]).await.unwrap();
    // By their keys alone they are there.
    let keys = texts(&upper, "").project(&[0]).unwrap();
    let told = vec![Told::Change(change(ChangeKind::PresentKeys, keys.clone())), everything()];
    let same = fixture.tell(upsert(), told, &[]).await.unwrap();
    assert_eq!((same.rows_written, same.files_added, same.files_removed), (0, 0, 0));
    let snapshot = fixture.lake.table(&fixture.table).snapshot().await.unwrap().unwrap();
    let found = snapshot.present(&fixture.environment, &[keys.slice(10, 7), keys.slice(12, 8)], &folding).await;
    assert_eq!(found.unwrap(), 10);
    let range = KeyRange { after: Some(keys.slice(99, 1)), until: Some(keys.slice(199, 1)) };
    let left_out = [keys.slice(150, 300)];
    let found = snapshot.content(&fixture.environment, &snapshot.schema(), &range, &left_out, &folding).await.unwrap();
    let mut expected = ContentHash::new(&snapshot.schema()).unwrap();
    expected.add(&texts(&lower[100..150], "v")).unwrap();
    assert_eq!(found.to_string(), expected.to_string());
    // As rows they differ from the table's, and take their place.
    let told = vec![present(texts(&upper[100..200], "v")), Told::Complete(range)];
    let loaded = fixture.tell(upsert(), told, &[]).await.unwrap();
    assert_eq!(loaded.rows_written, 100);
    assert_eq!(fixture.number("select count(*) from t").await, 500);
    assert_eq!(fixture.number("select count(*) from t where id like 'KEY-1__  '").await, 100);
    let rest = KeyRange { after: Some(keys.slice(199, 1)), until: None };
    let told = vec![present(texts(&lower[300..], "v")), Told::Complete(rest)];
    let loaded = fixture.tell(upsert(), told, &[]).await.unwrap();
    assert_eq!((loaded.rows_written, fixture.number("select count(*) from t").await), (0, 400));
}
