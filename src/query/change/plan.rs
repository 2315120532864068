//! Understanding a statement that changes tables, before it runs.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::datasource::empty::EmptyTable;

use crate::access::Access;
use crate::lake::{FILE_COLUMN, ROW_COLUMN, Snapshot};
use crate::query::change::target::{Refused, Target};
use crate::query::change::{Action, Change, Named, TARGET};
use crate::query::embedded::Engine;
use crate::query::engine::StatementKind;
use crate::query::statement::Understood;
use crate::query::{Planned, QueryError, Statement, identity};

/// The one column a change answers with where a result is asked for.
pub(crate) const COUNT: &str = "count";

/// What [`Planned::plan`] holds of a statement that changes tables.
pub(crate) struct PlannedChange {
    /// What is changed.
    pub(crate) change: Change,
    /// By whom.
    pub(crate) access: Access,
    /// The parameters it has, in order.
    pub(crate) parameters: Vec<FieldRef>,
    /// Whether something is written out in it whose type hangs on what stands beside it.
    pub(crate) literals: bool,
}

/// Tables that stand for names people cannot write.
pub(crate) type Given = HashMap<String, Arc<dyn TableProvider>>;

impl Engine {
    /// Finds out whether a change could run: its tables, rights, columns and parameters.
    ///
    /// # Errors
    /// As planning a query; `PermissionDenied` where the principal may not change the table.
    pub(crate) async fn plan_change(
        &self,
        mut statement: Statement,
        understood: Understood,
        mut change: Change,
        access: &Access,
    ) -> Result<Planned, QueryError> {
        // The table that is changed is found where those that are read are.
        change.target.schema = change.target.schema.or_else(|| statement.options.schema.clone());
        let target = Target::find(&change.target, change.action.words(), &self.settings, access);
        let target = self.hinting(&change.target, target, access).await?;
        let live = self.live(&target).await?;
        let checked = self.check_change(&change.action, &target, live.as_deref(), access);
        self.hinting(&change.target, checked, access).await?;
        let mut parameters = Vec::new();
        if let Some(rows) = change.action.rows() {
            let given = given_target(&change.action, live.as_deref(), &target)?;
            let understood = understood.with_query(rows.clone());
            let mut state = self.sessions.state(&statement.options)?.as_ref().clone();
            identity::register(&mut state, access.principal())?;
            let (_, fields, _) = self.logical_plan(&mut state, understood, &mut statement, access, &given).await?;
            parameters = hinted(fields, &change.action, live.as_deref(), &target)?;
        }
        let plan = PlannedChange {
            change,
            access: access.clone(),
            parameters: parameters.clone(),
            literals: understood.literals,
        };
        let kind = StatementKind::Change;
        let (schema, plan, memory) = (count_schema(), Arc::new(plan), Arc::default());
        Ok(Planned { statement, schema, parameters, kind, plan, memory, dependencies: None })
    }

    /// The newest version of a target; none where there is none, or it was dropped.
    pub(crate) async fn live(&self, target: &Target) -> Result<Option<Arc<Snapshot>>, QueryError> {
        let newest = self.lake.table(&target.name).snapshot().await?;
        Ok(newest.filter(|newest| !newest.is_dropped()))
    }

    /// What was found out of a table, or why not; of one that is not there with the nearest name of what who asks may see, as
    /// for one that is read.
    pub(crate) async fn hinting<T>(
        &self,
        named: &Named,
        found: Result<T, Refused>,
        access: &Access,
    ) -> Result<T, QueryError> {
        match found {
            Err(Refused::Missing(_)) => {
                let schema = named.schema.as_deref().unwrap_or_default();
                Err(self.catalog.unknown(schema, &named.table, access).await)
            }
            found => Ok(found?),
        }
    }

    /// Checks rights, and that the table is there where it has to be.
    pub(crate) fn check_change(
        &self,
        action: &Action,
        target: &Target,
        live: Option<&Snapshot>,
        access: &Access,
    ) -> Result<(), Refused> {
        match action {
            Action::Create(create) => Ok(super::define::check_create(create.existing, target, live, access)?),
            Action::Drop { if_exists: true } if live.is_none() => Ok(()),
            Action::Delete(_) | Action::Update(_) => {
                target.check(live, access)?;
                Ok(target.check_sees_everything(live, access)?)
            }
            Action::Insert(_) | Action::Drop { .. } | Action::AddColumns { .. } => target.check(live, access),
        }
    }
}

/// The target as the statement itself reads it.
pub(crate) fn given_target(action: &Action, live: Option<&Snapshot>, target: &Target) -> Result<Given, QueryError> {
    if !matches!(action, Action::Delete(_) | Action::Update(_)) {
        return Ok(Given::new());
    }
    let provider = match live {
        Some(live) => live.numbered(),
        None => {
            let mut fields = target.columns(None)?.fields().to_vec();
            fields.extend([FILE_COLUMN, ROW_COLUMN].map(|name| Arc::new(Field::new(name, DataType::Int64, false))));
            Arc::new(EmptyTable::new(Arc::new(Schema::new(fields))))
        }
    };
    Ok(Given::from([(TARGET.to_owned(), provider)]))
}

/// Parameters whose type nothing else tells have that of the column they stand for.
fn hinted(
    mut fields: Vec<FieldRef>,
    action: &Action,
    live: Option<&Snapshot>,
    target: &Target,
) -> Result<Vec<FieldRef>, QueryError> {
    let mut hint = |number: usize, kind: &DataType| {
        if let Some(field) = number.checked_sub(1).and_then(|at| fields.get_mut(at)) {
            *field = Arc::new(Field::new(field.name(), kind.clone(), true));
        }
    };
    match action {
        Action::Insert(insert) => {
            let columns = target.columns(live)?;
            for (number, at) in &insert.hints {
                let column = match insert.columns.get(*at) {
                    Some(name) => columns.field_with_name(name).ok(),
                    None => columns.fields().get(*at).map(AsRef::as_ref),
                };
                column.into_iter().for_each(|column| hint(*number, column.data_type()));
            }
        }
        Action::Update(update) => {
            let columns = target.columns(live)?;
            for (number, name) in &update.hints {
                columns.field_with_name(name).into_iter().for_each(|column| hint(*number, column.data_type()));
            }
        }
        _ => {}
    }
    Ok(fields)
}

/// What a change answers with where a result is asked for: how many rows it changed.
pub(crate) fn count_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(COUNT, DataType::Int64, false)]))
}

/// A name as an ingestion gives it.
impl Named {
    /// A schema and a table.
    pub(crate) fn of(schema: &str, table: &str) -> Self {
        Self { schema: Some(schema.to_owned()), table: table.to_owned() }
    }
}
