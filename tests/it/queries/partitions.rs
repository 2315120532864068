//! Tables in folders by the values of some columns, as other writers make them: what is asked by these columns.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::{Action, Add, Protocol, StructType, new_metadata};
use lakegate::error::{Classify, ErrorKind};
use lakegate::lake::{Facts, Staged, TableCreation};
use lakegate::model::TableName;
use object_store::local::LocalFileSystem;

use crate::queries::house::House;
use crate::support::counting::CountingStore;

const CONFIG: &str = "[limits]\nthreads = 2\nmemory = \"256MiB\"\n";
const ROWS: usize = 5_000;
/// Folders by day and place.
const FOLDERS: [(Option<&str>, Option<&str>); 4] = [
    (Some("2024-01-01"), Some("x")),
    (Some("2024-01-02"), Some("x")),
    (Some("2024-01-02"), Some("y")),
    (None, Some("7")),
];

/// `t.parts`: four files of one folder each, whose rows have `id` and `twice`.
async fn parted() -> (House, Arc<CountingStore>) {
    let store = CountingStore::new(Arc::new(LocalFileSystem::new()));
    let house = House::through(Arc::clone(&store) as _, &["t.parts"], CONFIG).await;
    let name = TableName::new("t", "parts").unwrap();
    let handle = house.lake.table(&name);
    let lease = handle.lease("test", Duration::from_secs(30)).await.unwrap();
    let attempt = handle.begin(&lease).await.unwrap();
    let folder = house.folder.path().join("lake/t/parts");
    let mut actions = Vec::new();
    for (number, (day, place)) in (0..).zip(FOLDERS) {
        actions.push(Action::Add(written(&folder, number, day, place)));
    }
    let mut fields = stored().fields().to_vec();
    fields.push(Arc::new(Field::new("day", DataType::Date32, true)));
    fields.push(Arc::new(Field::new("place", DataType::Utf8, true)));
    let columns: StructType = (&Schema::new(fields)).try_into_kernel().unwrap();
    let create = TableCreation {
        metadata: new_metadata(&columns, ["day", "place"], [("delta.checkpointInterval", "10")]).unwrap(),
        protocol: serde_json::from_str::<Protocol>(r#"{"minReaderVersion":1,"minWriterVersion":2}"#).unwrap(),
    };
    let staged = Staged { actions, create: Some(create), ..Staged::nothing() };
    attempt.commit(staged, Facts { definition_hash: "definition".to_owned(), ..Facts::default() }).await.unwrap();
    lease.release().await;
    (house, store)
}

fn stored() -> Schema {
    Schema::new(["id", "twice"].map(|name| Field::new(name, DataType::Int64, true)).to_vec())
}

/// Writes a file of a folder, and says it as the log does.
fn written(table: &std::path::Path, number: usize, day: Option<&str>, place: Option<&str>) -> Add {
    let ids = || (number * ROWS..(number + 1) * ROWS).map(|id| i64::try_from(id).unwrap());
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(ids())),
        Arc::new(Int64Array::from_iter_values(ids().map(|id| 2 * id))),
    ];
    let schema = Arc::new(stored());
    let rows = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, schema, None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    let path = format!("part-{number}.parquet");
    std::fs::create_dir_all(table).unwrap();
    std::fs::write(table.join(&path), &bytes).unwrap();
    let values = [("day", day), ("place", place)];
    let (least, greatest) = (number * ROWS, (number + 1) * ROWS - 1);
    Add {
        path,
        partition_values: values.map(|(name, value)| (name.to_owned(), value.map(str::to_owned))).into(),
        size: i64::try_from(bytes.len()).unwrap(),
        modification_time: 1_700_000_000_000,
        data_change: true,
        stats: Some(format!(
            r#"{{"numRecords":{ROWS},"minValues":{{"id":{least}}},"maxValues":{{"id":{greatest}}},"nullCount":{{"id":0}}}}"#
        )),
        tags: None,
        deletion_vector: None,
        base_row_id: None,
        default_row_commit_version: None,
        clustering_provider: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_by_partitions_reads_their_files_alone_and_is_not_applied_again() {
    let (house, store) = parted().await;
    for (filter, files) in [
        ("day = date '2024-01-01'", 1),
        ("day > date '2024-01-01'", 2),
        ("day = date '2024-01-02' and place = 'y'", 1),
        ("day is null", 1),
        ("day is not null", 3),
        ("place in ('y', 'z')", 1),
        ("place not in ('x', null)", 0),
        ("place like 'x%' or day is null", 3),
        ("date_trunc('month', day) = timestamp '2024-01-01'", 3),
        ("extract(day from day) = 2", 2),
        ("upper(place) = 'X' and day < date '2024-01-02'", 1),
        ("day = date '2023-01-01'", 0),
        ("(place = '7') is not true or cast(place as int) > 6", 4),
        ("place not in ('x', 'y') and cast(place as int) = 7", 1),
    ] {
        let sql = format!("select id, twice from t.parts where {filter}");
        store.take();
        let rows = house.rows(&sql).await.unwrap();
        assert_eq!(rows.len(), files * ROWS, "{sql}");
        assert_eq!(store.take().files.len(), files, "{sql}");
        let plan = house.rows(&format!("explain {sql}")).await.unwrap().join("\n");
        assert!(!plan.contains("FilterExec"), "{sql}: {plan}");
    }
    let both = "select id from t.parts where place = 'x' and id % 1000 = 7";
    assert_eq!(house.rows(both).await.unwrap().len(), 10);
    assert_eq!(store.take().files.len(), 2, "{both}");
    let either = "select id from t.parts where place = 'y' or id < 10";
    assert_eq!(house.rows(either).await.unwrap().len(), ROWS + 10);
    let values = "select distinct day, place from t.parts order by day nulls last, place";
    assert_eq!(house.rows(values).await.unwrap(), ["2024-01-01 x", "2024-01-02 x", "2024-01-02 y", "NULL 7"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_and_extremes_by_partitions_come_from_what_the_log_says() {
    let (house, store) = parted().await;
    store.take();
    for (sql, row) in [
        ("select count(*) from t.parts where day = date '2024-01-02'", "10000"),
        ("select count(id), min(id), max(id) from t.parts where place = 'y'", "5000 10000 14999"),
        ("select count(day), count(place) from t.parts", "15000 20000"),
        ("select count(*), count(day) from t.parts where place >= '7' and day is null", "5000 0"),
        ("select count(*) from t.parts where place = 'nowhere'", "0"),
    ] {
        assert_eq!(house.rows(sql).await.unwrap(), [row], "{sql}");
        let read = store.take();
        assert!(read.files.is_empty(), "{sql} opens {:?}", read.files);
    }
    let some = house.rows("select id from t.parts where place = 'x' limit 3").await.unwrap();
    assert_eq!(some.len(), 3);
    assert_eq!(store.take().files.len(), 1, "the first file of the partition has rows enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_by_partitions_that_fails_is_the_askers_mistake() {
    let (house, _) = parted().await;
    let error = house.rows("select id from t.parts where cast(place as int) + 1 = 8").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}
