//! A query engine over tables in memory, for tests of the service alone: it can be slow, endless and
//! failing on request, and tells when what it runs was dropped.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int64Array, LargeListArray, RecordBatch, StringArray, StringViewArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider};
use datafusion::common::TableReference;
use datafusion::datasource::{MemTable, TableProvider};
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::DFParserBuilder;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use futures::Stream;
use lakegate::access::{Access, Grants};
use lakegate::error::ErrorKind;
use lakegate::query::{
    ChangeValues, Changed, Dependencies, Distinct, Estimate, IncomingRows, Ingestion, Planned, PolicyProblem,
    QueryEngine, QueryError, Statement, StatementKind, TableRead, TableSummary,
};
use tokio::sync::watch;

/// Rows of `big.numbers`: eight messages' worth.
pub(crate) const BIG_ROWS: i64 = 1_000_000;

/// The engine.
pub(crate) struct MemoryEngine {
    context: SessionContext,
    tables: Vec<TableSummary>,
    /// What goes on in `slow.endless`.
    pub(crate) endless: Arc<Endless>,
    /// Who asked, in order.
    pub(crate) asked: Mutex<Vec<Access>>,
    /// Whether it tells what rows depend on, without which no two results are the same.
    pub(crate) vouches: AtomicBool,
    /// Plans that were run.
    pub(crate) executed: AtomicUsize,
}

impl MemoryEngine {
    /// Tables `weather.hourly`, `weather.stations`, `shapes.wide`, `big.numbers`, `slow.endless`, `slow.broken`, `system.loads`.
    pub(crate) fn new() -> Self {
        let endless = Arc::new(Endless::default());
        // One partition: rows come in the order they are in.
        let config =
            SessionConfig::new().with_default_catalog_and_schema("lakegate", "weather").with_target_partitions(1);
        let context = SessionContext::new_with_config(config);
        let catalog = MemoryCatalogProvider::new();
        for schema in ["weather", "shapes", "big", "slow", "system"] {
            catalog.register_schema(schema, Arc::new(MemorySchemaProvider::new())).unwrap();
        }
        context.register_catalog("lakegate", Arc::new(catalog));
        let mut tables = Vec::new();
        let mut add = |schema: &str, table: &str, key: &[&str], provider: Arc<dyn TableProvider>| {
            tables.push(TableSummary {
                schema: schema.to_owned(),
                table: table.to_owned(),
                version: (schema != "system").then_some(0),
                columns: provider.schema(),
                key: key.iter().map(|column| (*column).to_owned()).collect(),
                description: None,
                owner: None,
                writable: false,
                foreign_keys: Vec::new(),
            });
            context.register_table(TableReference::partial(schema, table), provider).unwrap();
        };
        add("weather", "hourly", &["station", "hour"], memory(hourly()));
        add("weather", "stations", &["station"], memory(stations()));
        add("shapes", "wide", &[], memory(wide()));
        add("big", "numbers", &["n"], memory_of(numbers()));
        add("slow", "endless", &[], endless.table());
        add("slow", "broken", &[], broken());
        add("system", "loads", &[], memory(stations()));
        let (vouches, executed) = (AtomicBool::new(false), AtomicUsize::new(0));
        Self { context, tables, endless, asked: Mutex::default(), vouches, executed }
    }

    async fn logical(&self, statement: &Statement) -> Result<LogicalPlan, DataFusionError> {
        let mut tokens = Tokenizer::new(&GenericDialect {}, &statement.sql).tokenize_with_location().unwrap();
        let mut count = 0;
        for token in &mut tokens {
            if let Token::Placeholder(name) = &mut token.token
                && name == "?"
            {
                count += 1;
                *name = format!("${count}");
            }
        }
        let mut parsed: VecDeque<_> =
            DFParserBuilder::new(tokens).with_dialect(&GenericDialect {}).build()?.parse_statements()?;
        let parsed = parsed.pop_front().ok_or_else(|| DataFusionError::Plan("no statement".to_owned()))?;
        self.context.state().statement_to_plan(parsed).await
    }
}

#[async_trait]
impl QueryEngine for MemoryEngine {
    async fn plan(&self, statement: Statement, access: &Access) -> Result<Planned, QueryError> {
        assert_ne!(statement.sql, "panic", "asked for by a test");
        self.asked.lock().unwrap().push(access.clone());
        if statement.sql == "break" {
            return Err(QueryError::new(ErrorKind::Internal, "secret place /var/lib"));
        }
        let mut plan = self.logical(&statement).await?;
        if matches!(plan, LogicalPlan::Dml(_) | LogicalPlan::Ddl(_) | LogicalPlan::Copy(_)) {
            return Err(QueryError::new(ErrorKind::Unsupported, "tables are read only"));
        }
        let mut fields: Vec<_> = plan.get_parameter_fields()?.into_iter().collect();
        fields.sort_by_key(|(name, _)| name[1..].parse::<usize>().unwrap());
        let parameters = fields.into_iter().map(|(name, field)| {
            let data_type = field.map_or(DataType::Null, |field| field.data_type().clone());
            Arc::new(Field::new(name, data_type, true))
        });
        let parameters = parameters.collect();
        if !statement.parameters.is_empty() {
            plan = plan.with_param_values(statement.parameters.clone())?;
        }
        let schema = Arc::clone(plan.schema().inner());
        let kind = StatementKind::Query;
        let (plan, memory) = (Arc::new(plan), Arc::default());
        let dependencies = self.vouches.load(Ordering::SeqCst).then(dependencies);
        Ok(Planned { statement, schema, parameters, kind, plan, memory, dependencies })
    }

    fn in_fixed_order(&self, mut planned: Planned) -> Planned {
        // Tables in memory have one partition, and only what reads them without more ado is asked for in a fixed order.
        planned.statement.options.partitions = planned.statement.sql.contains("big.numbers").then_some(1);
        planned
    }

    async fn execute(&self, planned: &Planned, timeout: Duration) -> Result<SendableRecordBatchStream, QueryError> {
        self.executed.fetch_add(1, Ordering::SeqCst);
        let plan = planned.plan.downcast_ref::<LogicalPlan>().unwrap().clone();
        let frame = self.context.execute_logical_plan(plan).await?;
        let batches = frame.execute_stream().await?;
        let schema = batches.schema();
        let late = tokio::time::sleep(timeout);
        let late = futures::stream::once(async move {
            late.await;
            Err(DataFusionError::from(QueryError::new(ErrorKind::DeadlineExceeded, "the statement ran too long")))
        });
        let ended =
            futures::StreamExt::chain(futures::StreamExt::map(batches, Some), futures::stream::once(async { None }));
        let both = futures::stream::select(ended, futures::StreamExt::map(late, Some));
        let both = futures::StreamExt::take_while(both, |item| std::future::ready(item.is_some()));
        let both = futures::StreamExt::filter_map(both, std::future::ready);
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, both)))
    }

    async fn estimate(&self, planned: &Planned) -> Arc<Estimate> {
        // As if each text were one of four.
        let mut estimate = Estimate::unknown(&planned.schema);
        for column in &mut estimate.columns {
            column.distinct = Some(Distinct { count: 4.0, within: 4.0, of_rows: 1_000_000.0 });
        }
        Arc::new(estimate)
    }

    async fn change(&self, _: &Planned, _: ChangeValues, _: Duration) -> Result<Changed, QueryError> {
        Err(QueryError::new(ErrorKind::Unsupported, "tables are read only"))
    }

    async fn ingest(&self, _: Ingestion, _: IncomingRows, _: &Access, _: Duration) -> Result<Changed, QueryError> {
        Err(QueryError::new(ErrorKind::Unsupported, "tables are read only"))
    }

    async fn tables(&self, _access: &Access) -> Result<Vec<TableSummary>, QueryError> {
        Ok(self.tables.clone())
    }

    /// There are no policies for tables in memory: whatever a grants file says of others is read elsewhere.
    async fn check_policies(&self, _: &Grants) -> Result<Vec<PolicyProblem>, QueryError> {
        Ok(Vec::new())
    }

    fn memory(&self) -> Arc<dyn MemoryPool> {
        Arc::clone(&self.context.runtime_env().memory_pool)
    }
}

/// What all rows depend on: tables in memory are always the same.
fn dependencies() -> Dependencies {
    let (written, name) = (("big".to_owned(), "numbers".to_owned()), "big.numbers".parse().unwrap());
    let tables = vec![TableRead { written, name, id: "in memory".to_owned(), version: 0 }];
    Dependencies { tables, rights: "all".to_owned(), person: None, day: None, grows: false }
}

/// A table whose first row panics.
fn broken() -> Arc<dyn TableProvider> {
    #[derive(Debug)]
    struct Broken(SchemaRef);

    impl PartitionStream for Broken {
        fn schema(&self) -> &SchemaRef {
            &self.0
        }

        fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
            let rows = futures::stream::poll_fn(|_| panic!("asked for by a test"));
            Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.0), rows))
        }
    }

    Arc::new(StreamingTable::try_new(endless_schema(), vec![Arc::new(Broken(endless_schema()))]).unwrap())
}

/// A table that never ends, and what became of those who read it.
#[derive(Debug, Default)]
pub(crate) struct Endless {
    /// Batches made so far, by all readers.
    pub(crate) produced: AtomicUsize,
    readers: watch::Sender<usize>,
}

impl Endless {
    fn table(self: &Arc<Self>) -> Arc<dyn TableProvider> {
        let partition = Arc::new(EndlessPartition { endless: Arc::clone(self), schema: endless_schema() });
        let table = StreamingTable::try_new(endless_schema(), vec![partition]).unwrap();
        Arc::new(table.with_infinite_table(true))
    }

    /// Waits until as many read it, for ten seconds at most.
    pub(crate) async fn has_readers(&self, count: usize) {
        let mut readers = self.readers.subscribe();
        let waited = tokio::time::timeout(Duration::from_secs(10), readers.wait_for(|now| *now == count));
        waited.await.expect("the number of readers is reached").unwrap();
    }
}

#[derive(Debug)]
struct EndlessPartition {
    endless: Arc<Endless>,
    schema: SchemaRef,
}

impl PartitionStream for EndlessPartition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = EndlessRows::start(Arc::clone(&self.endless));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}

struct EndlessRows(Arc<Endless>);

impl EndlessRows {
    fn start(endless: Arc<Endless>) -> Pin<Box<dyn Stream<Item = Result<RecordBatch, DataFusionError>> + Send>> {
        endless.readers.send_modify(|count| *count += 1);
        Box::pin(futures::stream::unfold(Self(endless), async |rows| {
            tokio::task::yield_now().await;
            let number = i64::try_from(rows.0.produced.fetch_add(1, Ordering::SeqCst)).unwrap();
            let column: ArrayRef = Arc::new(Int64Array::from(vec![number; 8192]));
            Some((Ok(RecordBatch::try_new(endless_schema(), vec![column]).unwrap()), rows))
        }))
    }
}

impl Drop for EndlessRows {
    fn drop(&mut self) {
        self.0.readers.send_modify(|count| *count -= 1);
    }
}

fn endless_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]))
}

fn memory(batch: RecordBatch) -> Arc<dyn TableProvider> {
    memory_of(vec![batch])
}

fn memory_of(batches: Vec<RecordBatch>) -> Arc<dyn TableProvider> {
    Arc::new(MemTable::try_new(batches[0].schema(), vec![batches]).unwrap())
}

fn batch(columns: Vec<(&str, ArrayRef, bool)>) -> RecordBatch {
    let fields: Vec<_> =
        columns.iter().map(|(name, array, nullable)| Field::new(*name, array.data_type().clone(), *nullable)).collect();
    let columns = columns.into_iter().map(|(_, array, _)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn hourly() -> RecordBatch {
    batch(vec![
        ("station", Arc::new(StringViewArray::from(vec!["EWR", "JFK", "a station with a long name"])), false),
        ("hour", Arc::new(Int64Array::from(vec![1, 2, 3])), false),
        ("degrees", Arc::new(Float64Array::from(vec![Some(1.5), None, Some(-3.25)])), true),
    ])
}

fn stations() -> RecordBatch {
    batch(vec![
        ("station", Arc::new(StringArray::from(vec!["EWR", "JFK"])), false),
        ("place", Arc::new(StringArray::from(vec![Some("Newark"), None])), true),
    ])
}

fn wide() -> RecordBatch {
    let list = LargeListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None]);
    batch(vec![("list", Arc::new(list), true), ("id", Arc::new(Int64Array::from(vec![1, 2])), false)])
}

fn numbers() -> Vec<RecordBatch> {
    let slices = (0..BIG_ROWS).step_by(100_000).map(|start| {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(start..start + 100_000));
        let texts = (start..start + 100_000).map(|number| format!("row number {number}"));
        let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts));
        batch(vec![("n", numbers, false), ("text", texts, true)])
    });
    slices.collect()
}
