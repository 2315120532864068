//! Data files written by hand, so that the protocol of attempts is tested without the lake's own writer.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use chrono::Utc;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::{Action, Add, Protocol, StructType, new_metadata};
use lakegate::lake::{Attempt, Committed, Facts, LakeError, Lease, Staged, TableCreation};
use lakegate::model::{CarriedFile, FileStatus, Reject, TableName};
use object_store::ObjectStoreExt;

use super::ground::Ground;

/// The name all tests of the protocol use.
pub(crate) fn table_name() -> TableName {
    TableName::new("s", "t").unwrap()
}

/// Writes one data file with these numbers in its column `id`, and the actions that would make it count.
pub(crate) async fn staged(ground: &Ground, name: &TableName, rows: &[i64], is_first: bool) -> Staged {
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Int64Array::from(rows.to_vec()))]).unwrap();
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, Arc::clone(&schema), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let path = format!("part-{}.parquet", uuid::Uuid::new_v4());
    let size = bytes.len();
    ground.store().put(&ground.table_path(name).join(path.as_str()), bytes.into()).await.unwrap();
    let add = Add {
        path,
        partition_values: HashMap::new(),
        size: size as i64,
        modification_time: Utc::now().timestamp_millis(),
        data_change: true,
        stats: Some(format!(r#"{{"numRecords":{}}}"#, rows.len())),
        tags: None,
        deletion_vector: None,
        base_row_id: None,
        default_row_commit_version: None,
        clustering_provider: None,
    };
    let columns: StructType = schema.as_ref().try_into_kernel().unwrap();
    let create = is_first.then(|| TableCreation {
        metadata: new_metadata(&columns, Vec::<String>::new(), [("delta.checkpointInterval", "10")]).unwrap(),
        protocol: serde_json::from_str::<Protocol>(r#"{"minReaderVersion":1,"minWriterVersion":2}"#).unwrap(),
    });
    Staged {
        actions: vec![Action::Add(add)],
        rows_written: rows.len() as u64,
        bytes_written: size as u64,
        create,
        ..Staged::nothing()
    }
}

/// What an attempt that carries one file says.
pub(crate) fn facts(file: &str) -> Facts {
    Facts {
        position: Some(serde_json::json!({ "file": file })),
        files: vec![carried(file)],
        definition_hash: "definition".to_owned(),
        ..Facts::default()
    }
}

/// A file as an attempt carries it.
pub(crate) fn carried(path: &str) -> CarriedFile {
    CarriedFile {
        path: path.to_owned(),
        size: 1,
        e_tag: None,
        modified: chrono::DateTime::UNIX_EPOCH,
        content_hash: format!("hash of {path}"),
        rows: 1,
        rejected: 0,
        status: FileStatus::Loaded,
        data_files: Vec::new(),
    }
}

/// A row that did not fit.
pub(crate) fn reject(file: &str, line: u64) -> Reject {
    Reject {
        file: file.to_owned(),
        line: Some(line),
        column: None,
        reason: "expected a number".to_owned(),
        raw: "x".repeat(200),
    }
}

/// A whole load of one file with these rows: what every test of the protocol does most of the time.
pub(crate) async fn load(
    ground: &Ground,
    table: &lakegate::lake::LakeTable,
    file: &str,
    rows: &[i64],
) -> Result<Committed, LakeError> {
    let lease = table.lease("test", std::time::Duration::from_secs(10)).await?;
    let result = load_under(ground, table, &lease, file, rows).await;
    lease.release().await;
    result
}

/// The same, under a lease that is held already. A file the chain knows is not loaded again.
pub(crate) async fn load_under(
    ground: &Ground,
    table: &lakegate::lake::LakeTable,
    lease: &Lease,
    file: &str,
    rows: &[i64],
) -> Result<Committed, LakeError> {
    let attempt = table.begin(lease).await?;
    if attempt.chain().files().contains_key(file) {
        let version = attempt.snapshot().unwrap().version();
        return Ok(Committed { version, attempt: attempt.chain().attempt().unwrap() });
    }
    commit(ground, attempt, file, rows).await
}

/// Writes the rows and commits.
pub(crate) async fn commit(
    ground: &Ground,
    attempt: Attempt,
    file: &str,
    rows: &[i64],
) -> Result<Committed, LakeError> {
    let staged = staged(ground, &table_name(), rows, attempt.snapshot().is_none()).await;
    attempt.commit(staged, facts(file)).await
}
