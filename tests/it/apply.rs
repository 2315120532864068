//! How data lies in the lake: writing in every mode, changes by key, what is present at a source, columns that change,
//! reading by safe bounds.

mod columns;
mod folded;
mod model;
mod modes;
mod present;
mod present_model;
mod reading;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};
use lakegate::config::LakeSettings;
use lakegate::lake::{Facts, Lake, LakeError, RewriteEstimate, Staged, WritePlan};
use lakegate::model::{ChangeBatch, ChangeKind, KeyRange, LoadMode, Location, TableName};
use lakegate::runtime::clock::SystemClock;

/// A lake in a folder of its own with one table.
struct Fixture {
    folder: tempfile::TempDir,
    environment: Arc<RuntimeEnv>,
    lake: Lake,
    table: TableName,
}

/// What a load did, and what it said it would cost.
struct Loaded {
    estimate: RewriteEstimate,
    rows_written: u64,
    bytes_written: u64,
    bytes_removed: u64,
    files_removed: usize,
    files_added: usize,
    data_files: BTreeMap<usize, Vec<String>>,
    renamed: BTreeMap<String, Vec<String>>,
}

/// One thing a load tells its writer.
enum Told {
    Change(ChangeBatch),
    Complete(KeyRange),
}

impl Fixture {
    async fn new(target_file_size: u64) -> Self {
        Self::with_memory(target_file_size, 256 << 20).await
    }

    async fn with_memory(target_file_size: u64, bytes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pool = lakegate::query::pool(bytes);
        let environment = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc().unwrap();
        let settings = LakeSettings {
            location: Location::Local(folder.path().to_owned()),
            connection: None,
            target_file_size,
            lease_lifetime: Duration::from_secs(30),
        };
        let lake = Lake::open(&settings, Arc::clone(&environment), Arc::new(SystemClock)).await.unwrap();
        Self { folder, environment, lake, table: "ops.orders".parse().unwrap() }
    }

    async fn load(&self, plan: WritePlan, changes: Vec<ChangeBatch>) -> Result<Loaded, LakeError> {
        self.load_replacing(plan, changes, &[]).await
    }

    async fn load_replacing(
        &self,
        plan: WritePlan,
        changes: Vec<ChangeBatch>,
        replaced: &[String],
    ) -> Result<Loaded, LakeError> {
        self.tell(plan, changes.into_iter().map(Told::Change).collect(), replaced).await
    }

    async fn tell(&self, plan: WritePlan, told: Vec<Told>, replaced: &[String]) -> Result<Loaded, LakeError> {
        let table = self.lake.table(&self.table);
        let lease = table.lease("test", Duration::from_secs(20)).await?;
        let attempt = table.begin(&lease).await?;
        let mut writer = attempt.writer(plan)?;
        for told in told {
            let taken = match told {
                Told::Change(change) => writer.write(change).await,
                Told::Complete(range) => writer.complete(&range),
            };
            if let Err(error) = taken {
                writer.abort().await;
                return Err(error);
            }
        }
        let estimate = match writer.prepare().await {
            Ok(estimate) => estimate,
            Err(error) => {
                writer.abort().await;
                return Err(error);
            }
        };
        let staged = writer.finish(replaced).await?;
        let loaded = Loaded::new(estimate, &staged);
        attempt.commit(staged, Facts::default()).await?;
        Ok(loaded)
    }

    async fn query(&self, sql: &str) -> Vec<RecordBatch> {
        let snapshot = self.lake.table(&self.table).snapshot().await.unwrap().unwrap();
        let config = SessionConfig::new().with_target_partitions(2);
        let context = SessionContext::new_with_config_rt(config, Arc::clone(&self.environment));
        context.register_table("t", snapshot.provider()).unwrap();
        context.sql(sql).await.unwrap().collect().await.unwrap()
    }

    async fn number(&self, sql: &str) -> i64 {
        let batches = self.query(sql).await;
        batches[0].column(0).as_primitive::<Int64Type>().value(0)
    }

    /// Parquet files below the table's folder, named by a version or not.
    fn files_on_disk(&self) -> usize {
        let folder = self.folder.path().join("ops/orders");
        let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
        entries.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".parquet")).count()
    }

    /// The table as the library alone sees it.
    async fn library_table(&self) -> deltalake::DeltaTable {
        let path = self.folder.path().join("ops/orders");
        let url = deltalake::ensure_table_uri(path.to_str().unwrap()).unwrap();
        deltalake::open_table(url).await.unwrap()
    }
}

impl Loaded {
    fn new(estimate: RewriteEstimate, staged: &Staged) -> Self {
        let is_add = |action: &&deltalake::kernel::Action| matches!(action, deltalake::kernel::Action::Add(_));
        Self {
            estimate,
            rows_written: staged.rows_written,
            bytes_written: staged.bytes_written,
            bytes_removed: staged.bytes_removed,
            files_removed: staged.files_removed,
            files_added: staged.actions.iter().filter(is_add).count(),
            data_files: staged.data_files_by_file.clone(),
            renamed: staged.data_files_renamed.clone(),
        }
    }
}

fn plan(schema: SchemaRef, key: &[&str], mode: LoadMode) -> WritePlan {
    WritePlan {
        schema,
        key: key.iter().map(|&column| column.to_owned()).collect(),
        folding: vec![],
        mode,
        reload: false,
    }
}

fn rows(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

fn change(kind: ChangeKind, rows: RecordBatch) -> ChangeBatch {
    ChangeBatch { kind, rows, file: None }
}
