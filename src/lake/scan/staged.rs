//! Reading data files that no version names yet.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use chrono::DateTime;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::datasource::physical_plan::ParquetSource;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use deltalake::kernel::{Action, Add};
use object_store::path::Path;

use crate::error::ErrorKind;
use crate::lake::scan::leaf::{groups, scan_of};
use crate::lake::scan::{register, table_columns};
use crate::lake::snapshot::DataFile;
use crate::lake::store::TablePlace;
use crate::lake::{Attempt, LakeError, Staged};

impl Attempt {
    /// The rows of the staged data files that `wanted` picks by their names, in the columns `schema`, which they have.
    ///
    /// # Errors
    /// When a name is no path.
    pub fn staged_rows(
        &self,
        staged: &Staged,
        schema: &SchemaRef,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Arc<dyn TableProvider>, LakeError> {
        let adds = staged.actions.iter().filter_map(|action| match action {
            Action::Add(add) if wanted(&add.path) => Some(data_file(add)),
            _ => None,
        });
        let files = adds.collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(Arc::new(StagedScan { place: self.table().place().clone(), schema: Arc::clone(schema), files }))
    }

    /// The rows that are there now, but for those of data files that are to be taken out.
    pub fn remaining_rows(&self, staged: &Staged) -> Option<Arc<dyn TableProvider>> {
        let removed: HashSet<&str> = staged
            .actions
            .iter()
            .filter_map(|action| match action {
                Action::Remove(remove) => Some(remove.path.as_str()),
                _ => None,
            })
            .collect();
        let snapshot = self.snapshot()?;
        let views = snapshot.pinned().eager.log_data();
        let gone = views.iter().enumerate().filter(|(_, view)| removed.contains(view.path().as_ref()));
        let gone = gone.map(|(place, _)| place).collect();
        Some(snapshot.without(gone))
    }
}

fn data_file(add: &Add) -> std::result::Result<DataFile, LakeError> {
    let path = Path::from_url_path(&add.path).map_err(|cause| {
        LakeError::because(ErrorKind::Internal, format!("{} is no path of a data file", add.path), cause)
    })?;
    Ok(DataFile {
        path,
        size: u64::try_from(add.size).unwrap_or(0),
        modified: DateTime::from_timestamp_millis(add.modification_time).unwrap_or_default(),
        rows: None,
        partition: Vec::new(),
    })
}

struct StagedScan {
    place: TablePlace,
    schema: SchemaRef,
    files: Vec<DataFile>,
}

impl fmt::Debug for StagedScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "staged files of {}", self.place.name())
    }
}

#[async_trait]
impl TableProvider for StagedScan {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let every: Vec<usize> = (0..self.schema.fields().len()).collect();
        let wanted = projection.cloned().unwrap_or(every);
        if self.files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(Arc::new(self.schema.project(&wanted)?))));
        }
        register(&self.place, state);
        let places: Vec<usize> = (0..self.files.len()).collect();
        let groups = groups(&self.place, &self.files, &places, state.config().target_partitions());
        let source = ParquetSource::new(table_columns(&self.schema, &[]));
        let config = scan_of(&self.place, state.runtime_env(), source, groups)
            .with_projection_indices(Some(wanted))?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}
