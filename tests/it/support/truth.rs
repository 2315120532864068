//! An independent reader: plain delta-rs, which knows nothing of lakegate.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use datafusion::prelude::SessionContext;
use deltalake::DeltaTable;
use deltalake::logstore::{StorageConfig, default_logstore};
use futures::TryStreamExt;
use lakegate::model::TableName;
use object_store::ObjectStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;

use super::ground::Ground;

/// The table as plain delta-rs knows it, through a store of its own; nothing is loaded, and it need not be there.
pub(crate) fn plain(ground: &Ground, name: &TableName) -> DeltaTable {
    let (url, options) = ground.table_address(name);
    let options = options.into_iter().map(|(key, value)| (key.to_lowercase(), value));
    let (store, path) = object_store::parse_url_opts(&url, options).unwrap();
    let store: Arc<dyn ObjectStore> = Arc::from(store);
    let files = Arc::new(PrefixStore::new(Arc::clone(&store), path));
    DeltaTable::new(default_logstore(files, store, &url, &StorageConfig::default()))
}

/// The table as plain delta-rs opens it; none when there is none.
pub(crate) async fn open(ground: &Ground, name: &TableName) -> Option<DeltaTable> {
    let mut table = plain(ground, name);
    match table.load().await {
        Ok(()) => Some(table),
        Err(deltalake::DeltaTableError::NotATable(_)) => None,
        Err(error) => panic!("plain delta-rs cannot read the table: {error}"),
    }
}

/// The column `id` of the newest version, sorted; empty when there is no table.
pub(crate) async fn rows(ground: &Ground, name: &TableName) -> Vec<i64> {
    match open(ground, name).await {
        Some(table) => rows_of(table).await,
        None => Vec::new(),
    }
}

/// The column `id` of what is loaded, sorted.
pub(crate) async fn rows_of(table: DeltaTable) -> Vec<i64> {
    let context = SessionContext::new();
    table.update_datafusion_session(&context.state()).unwrap();
    let provider = table.table_provider().await.unwrap();
    let batches = context.read_table(provider).unwrap().collect().await.unwrap();
    let mut rows: Vec<i64> = Vec::new();
    for batch in &batches {
        let ids = batch.column_by_name("id").unwrap();
        rows.extend(ids.as_primitive::<Int64Type>().values());
    }
    rows.sort_unstable();
    rows
}

/// The data files that lie in the table's folder, whether a version names them or not.
pub(crate) async fn data_files(ground: &Ground, name: &TableName) -> Vec<Path> {
    listed(ground, &ground.table_path(name))
        .await
        .into_iter()
        .filter(|path| path.as_ref().ends_with(".parquet") && !path.as_ref().contains("/_"))
        .collect()
}

/// Everything in one of the table's own folders, such as `attempts`.
pub(crate) async fn own(ground: &Ground, name: &TableName, folder: &str) -> Vec<Path> {
    listed(ground, &ground.table_path(name).join("_lakegate").join(folder)).await
}

async fn listed(ground: &Ground, folder: &Path) -> Vec<Path> {
    let listed = ground.store().list(Some(folder)).map_ok(|object| object.location).try_collect::<Vec<_>>().await;
    match listed {
        Err(object_store::Error::NotFound { .. }) => Vec::new(),
        result => result.unwrap(),
    }
}
