//! Making tables, dropping them, and adding columns.

use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use datafusion::common::ScalarValue;

use crate::access::{Access, TableRights};
use crate::config::RESULTS_SCHEMA;
use crate::error::ErrorKind;
use crate::lake::{Attempt, Made, Snapshot, Staged, TableWriter, WritePlan};
use crate::model::ColumnType;
use crate::query::QueryError;
use crate::query::change::fit::Shape;
use crate::query::change::insert::discard_unless;
use crate::query::change::plan::Given;
use crate::query::change::run::{Outcome, Run, told, version_of};
use crate::query::change::statement::check_name;
use crate::query::change::target::{Target, missing};
use crate::query::change::unique::check_unique;
use crate::query::change::{Create, Existing};

/// Checks that a table may be made.
///
/// # Errors
/// `AlreadyExists` and `PermissionDenied`.
pub(crate) fn check_create(
    existing: Existing,
    target: &Target,
    live: Option<&Snapshot>,
    access: &Access,
) -> Result<(), QueryError> {
    let rights = live.map(|live| target.rights(Some(live), access));
    // Whoever may make none learns nothing of the names of those that are there.
    if !rights.as_ref().is_some_and(TableRights::is_visible) && !access.may_create_in(RESULTS_SCHEMA) {
        return Err(QueryError::new(
            ErrorKind::PermissionDenied,
            format!("you may not make tables in the schema `{RESULTS_SCHEMA}`; it takes a grant to write it"),
        ));
    }
    let Some(rights) = rights else { return Ok(()) };
    match existing {
        Existing::Keep if rights.is_visible() => Ok(()),
        Existing::Replace if rights.write => Ok(()),
        Existing::Replace if rights.is_visible() => Err(QueryError::new(
            ErrorKind::PermissionDenied,
            format!("{} may be read and not written by you", target.name),
        )),
        Existing::Fail | Existing::Keep | Existing::Replace => Err(exists(target)),
    }
}

/// The error of a name that is taken.
pub(crate) fn exists(target: &Target) -> QueryError {
    QueryError::new(
        ErrorKind::AlreadyExists,
        format!("there is a table `{}` already; choose another name", target.name),
    )
}

impl Run {
    /// Makes a table, with the rows of a query where one gives any.
    pub(crate) async fn create(
        &self,
        attempt: Attempt,
        target: &Target,
        live: Option<&Arc<Snapshot>>,
        create: &Create,
        values: Vec<ScalarValue>,
    ) -> Result<Outcome, QueryError> {
        if live.is_some() && create.existing == Existing::Keep {
            return Ok(Outcome::Nothing(version_of(live)));
        }
        let mut rows = match &create.rows {
            Some(query) => Some(self.rows(query, values, &Given::new()).await?),
            None => None,
        };
        let schema = match &rows {
            Some(rows) if create.columns.is_empty() => made_of(&rows.schema, &create.key)?,
            _ => Arc::new(Schema::new(with_key(create.columns.clone(), &create.key))),
        };
        if let Some(rows) = &rows
            && rows.schema.fields().len() != schema.fields().len()
        {
            return Err(QueryError::invalid(format!(
                "CREATE TABLE declares {} columns, and its query gives {}",
                schema.fields().len(),
                rows.schema.fields().len()
            )));
        }
        let mut writer = attempt.writer(anew(&attempt, &schema, &create.key)).map_err(told)?;
        let filled = match &mut rows {
            Some(rows) => {
                let from = (0..schema.fields().len()).map(Some).collect();
                let shape =
                    Shape { table: target.name.clone(), schema: Arc::clone(&schema), from, key: create.key.clone() };
                self.pour(rows, &shape, &mut writer).await
            }
            None => Ok(0),
        };
        self.made(attempt, target, live, (&schema, &create.key), (writer, filled)).await
    }

    /// What was written into a new table, ready to be committed.
    pub(crate) async fn made(
        &self,
        attempt: Attempt,
        target: &Target,
        live: Option<&Arc<Snapshot>>,
        (schema, key): (&SchemaRef, &[String]),
        (writer, filled): (TableWriter, Result<u64, QueryError>),
    ) -> Result<Outcome, QueryError> {
        let rows = match filled {
            Ok(rows) => rows,
            Err(error) => {
                writer.abort().await;
                return Err(error);
            }
        };
        let mut staged = writer.finish(&[]).await.map_err(told)?;
        let before = match live {
            // A table stays its maker's, whoever fills it anew.
            Some(live) => live.made(),
            None => Made {
                owner: Some(self.access.principal().name.clone()),
                since: Some(self.engine.clock.now()),
                ..Made::default()
            },
        };
        let made = Made { key: key.to_vec(), ..before };
        let described = staged.describe(attempt.snapshot().map(AsRef::as_ref), &made);
        let checked = match described {
            Ok(()) => check_unique(self, &attempt, &staged, (schema, key), |_| true, &target.name).await,
            Err(error) => Err(told(error)),
        };
        discard_unless(checked.and_then(|()| self.go_on()), attempt, staged, rows).await
    }

    /// Drops a table.
    pub(crate) fn drop_table(&self, attempt: Attempt, live: Option<&Arc<Snapshot>>) -> Result<Outcome, QueryError> {
        let Some(live) = live else { return Ok(Outcome::Nothing(None)) };
        self.go_on()?;
        let staged = Staged::drop_table(live).map_err(told)?;
        Ok(Outcome::Commit(Box::new(attempt), Box::new(staged), 0))
    }

    /// Adds columns, without a value in the rows that are there.
    pub(crate) async fn add_columns(
        &self,
        attempt: Attempt,
        target: &Target,
        live: Option<&Arc<Snapshot>>,
        columns: &[FieldRef],
        if_not_exists: bool,
    ) -> Result<Outcome, QueryError> {
        let Some(live) = live else { return Err(missing(&target.name).into()) };
        let mut fields = live.schema().fields().to_vec();
        for column in columns {
            let known = fields.iter().any(|field| field.name().eq_ignore_ascii_case(column.name()));
            if known && !if_not_exists {
                return Err(QueryError::new(
                    ErrorKind::AlreadyExists,
                    format!("{} has a column `{}` already", target.name, column.name()),
                ));
            }
            if !known {
                fields.push(Arc::clone(column));
            }
        }
        if fields.len() == live.schema().fields().len() {
            return Ok(Outcome::Nothing(Some(live.version())));
        }
        let schema = Arc::new(Schema::new(fields));
        let key = target.key(Some(live));
        let writer = attempt.writer(WritePlan::append(&schema, &key)).map_err(told)?;
        let staged = writer.finish(&[]).await.map_err(told)?;
        discard_unless(self.go_on(), attempt, staged, 0).await
    }
}

/// Rows of a new table, in the place of all that was there.
pub(crate) fn anew(attempt: &Attempt, schema: &SchemaRef, key: &[String]) -> WritePlan {
    WritePlan { reload: attempt.snapshot().is_some(), ..WritePlan::append(schema, key) }
}

/// The columns of a table that is made of rows.
///
/// # Errors
/// `InvalidInput` for a column whose name or type no table can have.
pub(crate) fn made_of(rows: &Schema, key: &[String]) -> Result<SchemaRef, QueryError> {
    let field = |field: &FieldRef| {
        check_name(field.name())?;
        let kind = ColumnType::from_arrow(field.data_type()).ok_or_else(|| {
            QueryError::invalid(format!(
                "column `{}` is {}, which no column of a table can be; convert it with CAST",
                field.name(),
                field.data_type()
            ))
        })?;
        Ok::<_, QueryError>(Arc::new(Field::new(field.name(), kind.to_arrow(), true)))
    };
    let fields = rows.fields().iter().map(field).collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(Schema::new(with_key(fields, key))))
}

/// The columns, those of the key never NULL.
fn with_key(fields: Vec<FieldRef>, key: &[String]) -> Vec<FieldRef> {
    let never_null = |field: FieldRef| match key.contains(field.name()) {
        true => Arc::new(field.as_ref().clone().with_nullable(false)),
        false => field,
    };
    fields.into_iter().map(never_null).collect()
}
