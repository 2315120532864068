//! Columns that come, grow wider, or do not fit.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Int32Array, Int64Array, ListArray, RecordBatch, StringArray,
    StructArray, TimestampMicrosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, Int64Type};
use lakegate::error::{Classify, ErrorKind};
use lakegate::model::{ChangeBatch, ChangeKind, LoadMode};

use super::{Fixture, change, plan, rows};

/// Planes with an engine, and in it a list of parts; later ones have more fields at both depths.
fn planes(id: i64, later: bool) -> RecordBatch {
    let mut part = vec![("name", Arc::new(StringArray::from(vec!["fan", "core"])) as ArrayRef)];
    if later {
        part.push(("weight", Arc::new(Int64Array::from(vec![7, 8]))));
    }
    let parts = structure(part);
    let element = Arc::new(Field::new("element", parts.data_type().clone(), true));
    let list = ListArray::new(element, OffsetBuffer::from_lengths([2]), Arc::new(parts), None);
    let mut engine = vec![("parts", Arc::new(list) as ArrayRef)];
    if later {
        engine.insert(0, ("maker", Arc::new(StringArray::from(vec!["GE"]))));
    }
    rows(vec![("id", Arc::new(Int64Array::from(vec![id])) as ArrayRef), ("engine", Arc::new(structure(engine)))])
}

fn structure(columns: Vec<(&str, ArrayRef)>) -> StructArray {
    let fields: Fields =
        columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
    StructArray::new(fields, columns.into_iter().map(|(_, column)| column).collect(), None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_that_come_later_are_null_in_older_rows_at_every_depth() {
    for mode in [LoadMode::Append, LoadMode::Upsert] {
        let fixture = Fixture::new(64 << 20).await;
        let key: &[&str] = if mode == LoadMode::Upsert { &["id"] } else { &[] };
        let kind = if mode == LoadMode::Upsert { ChangeKind::Upsert } else { ChangeKind::Append };
        for (id, later) in [(1, false), (2, true), (3, false)] {
            let batch = planes(id, later);
            fixture.load(plan(batch.schema(), key, mode), vec![change(kind, batch)]).await.unwrap();
        }
        let makers = "select count(*) from t where engine['maker'] is null";
        assert_eq!(fixture.number(makers).await, 2, "{mode:?}");
        let weights = "select sum(p['weight']) from (select unnest(engine['parts']) as p from t)";
        assert_eq!(fixture.number(weights).await, 15, "{mode:?}");
        let names = "select count(p['name']) from (select unnest(engine['parts']) as p from t)";
        assert_eq!(fixture.number(names).await, 6, "{mode:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wider_integer_or_decimal_writes_the_files_anew_in_the_same_version() {
    let narrow = |id: i32| {
        let amount = Decimal128Array::from(vec![i128::from(id) * 100]).with_precision_and_scale(5, 2).unwrap();
        rows(vec![("id", Arc::new(Int32Array::from(vec![id])) as ArrayRef), ("amount", Arc::new(amount))])
    };
    let wide = |id: i64| {
        let amount = Decimal128Array::from(vec![i128::from(id)]).with_precision_and_scale(20, 3).unwrap();
        rows(vec![("id", Arc::new(Int64Array::from(vec![id])) as ArrayRef), ("amount", Arc::new(amount))])
    };
    for mode in [LoadMode::Append, LoadMode::Upsert, LoadMode::Mirror] {
        let fixture = Fixture::new(64 << 20).await;
        let key: &[&str] = if mode == LoadMode::Upsert { &["id"] } else { &[] };
        let kind = if mode == LoadMode::Upsert { ChangeKind::Upsert } else { ChangeKind::Append };
        let batch = |rows| vec![ChangeBatch { kind, rows, file: Some(0) }];
        let first = fixture.load(plan(narrow(1).schema(), key, mode), batch(narrow(7))).await.unwrap();
        let second = fixture.load(plan(wide(1).schema(), key, mode), batch(wide(1 << 40))).await.unwrap();
        assert_eq!(second.files_removed, 1, "{mode:?}");
        let third = fixture.load(plan(narrow(1).schema(), key, mode), batch(narrow(8))).await.unwrap();
        assert_eq!(third.rows_written, 1);
        assert_eq!(fixture.number("select sum(id) from t").await, (1 << 40) + 15, "{mode:?}");
        let exact = "select count(*) from t where amount = 7.000 or amount = 8";
        assert_eq!(fixture.number(exact).await, 2, "{mode:?}");
        let snapshot = fixture.lake.table(&fixture.table).snapshot().await.unwrap().unwrap();
        assert_eq!(snapshot.version(), 2);
        assert_eq!(snapshot.schema().field(0).data_type(), &DataType::Int64);
        if mode == LoadMode::Mirror {
            let renamed = &second.renamed[&first.data_files[&0][0]];
            let gone = fixture.load_replacing(plan(wide(1).schema(), key, mode), vec![], renamed).await.unwrap();
            assert_eq!(gone.files_removed, 1);
            assert_eq!(fixture.number("select count(*) from t where id = 7").await, 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_do_not_fit_change_nothing_and_both_types_are_named() {
    let fixture = Fixture::new(64 << 20).await;
    let first = rows(vec![("id", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]);
    fixture.load(plan(first.schema(), &[], LoadMode::Append), vec![change(ChangeKind::Append, first)]).await.unwrap();
    let other = rows(vec![("id", Arc::new(StringArray::from(vec!["secret"])) as ArrayRef)]);
    let error = fixture.load(plan(other.schema(), &[], LoadMode::Append), vec![]).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let text = error.to_string();
    assert!(["ops.orders", "`id`", "bigint", "string"].iter().all(|part| text.contains(part)), "{text}");
    assert_eq!(fixture.lake.table(&fixture.table).snapshot().await.unwrap().unwrap().version(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_column_without_zone_raises_the_protocol_and_other_readers_agree() {
    let fixture = Fixture::new(64 << 20).await;
    let first = rows(vec![("id", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]);
    fixture.load(plan(first.schema(), &[], LoadMode::Append), vec![change(ChangeKind::Append, first)]).await.unwrap();
    let later = rows(vec![
        ("id", Arc::new(Int64Array::from(vec![2])) as ArrayRef),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![1_700_000_000_000_001]))),
    ]);
    fixture.load(plan(later.schema(), &[], LoadMode::Append), vec![change(ChangeKind::Append, later)]).await.unwrap();
    assert_eq!(fixture.number("select count(*) from t where at is null").await, 1);
    let library = fixture.library_table().await;
    let context = datafusion::prelude::SessionContext::new();
    context.register_table("t", library.table_provider().await.unwrap()).unwrap();
    let answer = context.sql("select count(at), count(*) from t").await.unwrap().collect().await.unwrap();
    let figure = |column: usize| answer[0].column(column).as_primitive::<Int64Type>().value(0);
    assert_eq!((figure(0), figure(1)), (1, 2));
}
