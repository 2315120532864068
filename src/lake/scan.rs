//! Reading a pinned version of a table: a plain Parquet scan over the files that can hold matching rows.
//!
//! The library's own scan replays the log on every call and prunes with bounds that are not bounds
//! (`bounds.rs`); it is used only for tables with features a plain scan cannot read.

mod files;
mod footers;
mod forecast;
mod gained;
mod late;
mod leaf;
mod numbered;
mod partitioned;
mod staged;

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Statistics};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::TableType;
use datafusion::datasource::physical_plan::ParquetSource;
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use deltalake::delta_datafusion::{DeltaScanConfig, DeltaScanNext};

use crate::lake::LakeError;
use crate::lake::bounds::{LONGEST_LIST_COMPARED, SafeBounds};
use crate::lake::scan::files::{FileStatistics, bounds_of};
use crate::lake::scan::leaf::{group, groups, scan_of};
use crate::lake::snapshot::{DataFile, Pinned, features};
use crate::lake::sort::task_context;
use crate::lake::store::TablePlace;

pub(crate) use footers::Footers;
pub use footers::{StoredColumn, StoredForm, StoredWords};
pub(crate) use forecast::{Forecast, forecast_of, look_at_footers};
pub use numbered::{FILE_COLUMN, ROW_COLUMN};

/// Features whose tables the library's own scan has to read.
const LIBRARY_FEATURES: &[&str] = &["deletionVectors", "columnMapping", "variantType", "typeWidening"];

/// The rows of a pinned version.
///
/// # Errors
/// When the table uses features nobody here can read.
pub(super) fn provider(pinned: &Arc<Pinned>) -> std::result::Result<Arc<dyn TableProvider>, LakeError> {
    let mapped = pinned.eager.table_properties().column_mapping_mode.is_some();
    let needed = features(pinned.eager.protocol(), "readerFeatures");
    if mapped || needed.iter().any(|feature| LIBRARY_FEATURES.contains(&feature.as_str())) {
        let config = DeltaScanConfig {
            schema_force_view_types: false,
            ..DeltaScanConfig::new().with_wrap_partition_values(false)
        };
        let scan = DeltaScanNext::new(pinned.eager.clone(), config)
            .map_err(|cause| LakeError::rows(format!("cannot read table {}", pinned.place.name()), cause))?;
        return Ok(Arc::new(LibraryScan { pinned: Arc::clone(pinned), scan }));
    }
    Ok(Arc::new(PlainScan {
        pinned: Arc::clone(pinned),
        statistics: FileStatistics::default(),
        left_out: HashSet::new(),
    }))
}

/// A scan by the library, with the table's store made known to whoever runs it.
#[derive(Debug)]
struct LibraryScan {
    pinned: Arc<Pinned>,
    scan: DeltaScanNext,
}

#[async_trait]
impl TableProvider for LibraryScan {
    fn schema(&self) -> SchemaRef {
        self.scan.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.pinned.table.update_datafusion_session(state)?;
        self.scan.scan(state, projection, filters, limit).await
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        self.scan.supports_filters_pushdown(filters)
    }
}

/// A scan of plain Parquet files.
#[derive(Debug)]
struct PlainScan {
    pinned: Arc<Pinned>,
    statistics: FileStatistics,
    /// Places in the log of files that are not read.
    left_out: HashSet<usize>,
}

#[async_trait]
impl TableProvider for PlainScan {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.pinned.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let leaf = Leaf::new(&self.pinned, state);
        let by_file = |filter: &Expr| partitioned::decides(filter, self.pinned.partition_columns());
        let (by_file, by_row): (Vec<Expr>, Vec<Expr>) = filters.iter().cloned().partition(by_file);
        let predicate = leaf.predicate(&by_row)?;
        let mut kept = leaf.prune(predicate.as_ref())?;
        kept.retain(|place| !self.left_out.contains(place));
        partitioned::retain(&mut kept, &leaf, &by_file)?;
        if by_row.is_empty() {
            kept = enough(self.pinned.files(), &kept, limit);
        }
        let all_rows = by_row.is_empty() && !by_file.is_empty() && limit.is_none();
        let read = all_rows.then(|| leaf.projection(projection)).transpose()?;
        let statistics = self.statistics.of(&self.pinned, &leaf.columns, &kept, read.as_deref());
        leaf.plan(&kept, projection, predicate, limit, statistics)
    }

    /// Partition columns decide for a file as a whole. Every other filter is applied again above the scan: pruning only
    /// leaves out what cannot match.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let support = filters.iter().map(|filter| {
            let by_file = partitioned::decides(filter, self.pinned.partition_columns());
            if by_file { TableProviderFilterPushDown::Exact } else { TableProviderFilterPushDown::Inexact }
        });
        Ok(support.collect())
    }
}

/// One plan of a plain scan.
struct Leaf<'a> {
    pinned: &'a Pinned,
    state: &'a dyn Session,
    columns: TableSchema,
}

impl<'a> Leaf<'a> {
    fn new(pinned: &'a Pinned, state: &'a dyn Session) -> Self {
        let columns = table_columns(&pinned.schema, pinned.partition_columns());
        Self { pinned, state, columns }
    }

    /// The filters over the leaf's own order of columns.
    fn predicate(&self, filters: &[Expr]) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        let Some(filter) = conjunction(filters.to_vec()) else { return Ok(None) };
        let schema = DFSchema::try_from(Arc::clone(self.columns.table_schema()))?;
        self.state.create_physical_expr(filter, &schema).map(Some)
    }

    /// The files, by their place in the log, that can hold rows of the answer.
    fn prune(&self, predicate: Option<&Arc<dyn PhysicalExpr>>) -> Result<Vec<usize>> {
        let places = self.pinned.oldest_first();
        let Some(predicate) = predicate else { return Ok(places.to_vec()) };
        let pruning = PruningPredicateBuilder::new()
            .with_file_schema(Arc::clone(self.columns.table_schema()))
            .with_max_in_list_size(LONGEST_LIST_COMPARED)
            .try_build(Arc::clone(predicate));
        // A predicate that cannot be used for pruning is no error: every file stays.
        let Ok(pruning) = pruning else { return Ok(places.to_vec()) };
        let kept = pruning.prune(&SafeBounds::new(self.pinned))?;
        Ok(places.iter().copied().filter(|place| kept[*place]).collect())
    }

    fn plan(
        &self,
        kept: &[usize],
        projection: Option<&Vec<usize>>,
        predicate: Option<Arc<dyn PhysicalExpr>>,
        limit: Option<usize>,
        statistics: Statistics,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let indices = self.projection(projection)?;
        if kept.is_empty() {
            return Ok(Arc::new(EmptyExec::new(Arc::new(self.columns.table_schema().project(&indices)?))));
        }
        let place = &self.pinned.place;
        let groups = groups(place, self.pinned.files(), kept, self.state.config().target_partitions());
        let parquet = TableParquetOptions {
            global: self.state.config_options().execution.parquet.clone(),
            ..TableParquetOptions::default()
        };
        let mut source = ParquetSource::new(self.columns.clone()).with_table_parquet_options(parquet);
        if let Some(predicate) = predicate {
            let known = |column: &str| bounds_of(self.pinned, column, kept);
            source = if late::pays(&predicate, self.columns.table_schema(), &indices, known) {
                // The filter above is handed down to a source that takes it, and would be there twice.
                source.with_pushdown_filters(true)
            } else {
                source.with_predicate(predicate)
            };
        }
        register(place, self.state);
        let config = scan_of(place, self.state.runtime_env(), source, groups)
            .with_projection_indices(Some(indices))?
            .with_limit(limit)
            .with_statistics(statistics)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    /// Positions in the leaf's order of columns, in which partition columns stand last.
    fn projection(&self, projection: Option<&Vec<usize>>) -> Result<Vec<usize>> {
        let every: Vec<usize> = (0..self.pinned.schema.fields().len()).collect();
        let wanted = projection.unwrap_or(&every);
        let names = wanted.iter().map(|index| self.pinned.schema.field(*index).name());
        Ok(names.map(|name| self.columns.table_schema().index_of(name)).collect::<std::result::Result<_, _>>()?)
    }
}

/// The rows of the files at these places in the log, one file after the other, in those columns that `wanted` names.
///
/// # Errors
/// When the table uses features a plain scan cannot read.
pub(super) fn read(
    pinned: &Pinned,
    environment: &Arc<RuntimeEnv>,
    places: &[usize],
    wanted: &Schema,
) -> Result<SendableRecordBatchStream> {
    let columns = table_columns(&pinned.schema, pinned.partition_columns());
    let place = &pinned.place;
    let stored = pinned.schema.fields().iter().filter(|field| wanted.index_of(field.name()).is_ok());
    let names = stored.map(|field| columns.table_schema().index_of(field.name()));
    let names = names.collect::<std::result::Result<_, _>>()?;
    let groups = vec![group(place, pinned.files(), places)];
    let config = scan_of(place, environment, ParquetSource::new(columns), groups)
        .with_projection_indices(Some(names))?
        .with_preserve_order(true)
        .build();
    DataSourceExec::from_data_source(config).execute(0, task_context(environment))
}

/// Makes a table's store known to whoever runs a plan.
pub(super) fn register(place: &TablePlace, state: &dyn Session) {
    let environment = state.runtime_env();
    if environment.object_store(place.store_url()).is_err() {
        environment.register_object_store(place.store_url().as_ref(), Arc::clone(place.store()));
    }
}

/// A table's columns as files hold them: the partition columns apart.
fn table_columns(schema: &Schema, partition_columns: &[String]) -> TableSchema {
    let (apart, stored): (Vec<FieldRef>, Vec<FieldRef>) =
        schema.fields().iter().cloned().partition(|field: &Arc<Field>| partition_columns.contains(field.name()));
    let in_order = partition_columns.iter().filter_map(|name| apart.iter().find(|field| field.name() == name).cloned());
    let apart: Vec<FieldRef> = in_order.collect();
    TableSchema::builder(Arc::new(Schema::new(stored))).with_table_partition_cols(apart).build()
}

/// The first of the files `places` that have `limit` rows for sure; all of them without a limit.
fn enough(files: &[DataFile], places: &[usize], limit: Option<usize>) -> Vec<usize> {
    let Some(limit) = limit else { return places.to_vec() };
    let mut rows = 0_usize;
    let mut kept = Vec::new();
    for place in places {
        if rows >= limit && !kept.is_empty() {
            break;
        }
        rows = rows.saturating_add(files[*place].rows.unwrap_or(0));
        kept.push(*place);
    }
    kept
}
