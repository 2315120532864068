//! Binds what asks Change Tracking: CHANGETABLE and its two functions.

use super::{Binder, Bound, BoundSource, SourceColumn};
use crate::engine::ast::{Expression, Name};
use crate::engine::error::SqlError;
use crate::engine::tracking;
use crate::value::SqlType;

impl Binder<'_> {
    /// Error 22117 on a readable secondary.
    fn demand_primary(&self) -> Result<(), SqlError> {
        if self.context.lock().shared.is_secondary() { Err(SqlError::known(22117)) } else { Ok(()) }
    }

    pub(super) fn current_version(&mut self) -> Result<Bound, SqlError> {
        self.demand_primary()?;
        self.needs.tracking = true;
        if self.catalog.database.tracking.is_none() {
            return Ok(Self::typed("NULL", SqlType::BigInt));
        }
        Ok(Self::typed("(SELECT value FROM fx_state WHERE name = 'version')", SqlType::BigInt))
    }

    pub(super) fn min_valid_version(&mut self, table: &Expression) -> Result<Bound, SqlError> {
        self.demand_primary()?;
        self.needs.tracking = true;
        let table = self.expression(table)?;
        let table = self.cast(table, &SqlType::Int, 0, false)?;
        if self.catalog.database.tracking.is_none() {
            return Ok(Self::typed("NULL", SqlType::BigInt));
        }
        let allowed = self.named("FX_CAN_TRACK", SqlType::Bit, vec![table.clone()])?;
        let sql = format!("(SELECT min_valid FROM fx_tracked WHERE object_id = {} AND {})", table.sql, allowed.sql);
        Ok(Self::typed(sql, SqlType::BigInt))
    }

    pub(super) fn change_source(
        &mut self,
        table: &Name,
        since: Option<&Expression>,
        alias: &str,
    ) -> Result<String, SqlError> {
        self.demand_primary()?;
        let object = self.object(table)?;
        self.demand("SELECT", &object)?;
        self.demand("VIEW CHANGE TRACKING", &object)?;
        if object.tracking.is_none() {
            let name = self.catalog.full_name(&object);
            return Err(SqlError::new(22105, 16, format!("Change tracking is not enabled on table '{name}'.")));
        }
        self.needs.objects.insert(object.id);
        self.needs.tracking = true;
        let since = match since {
            Some(since) => {
                let since = self.expression(since)?;
                self.cast(since, &SqlType::BigInt, 0, false)?.sql
            }
            None => "NULL".to_owned(),
        };
        let unseen = self.context.lock().shared.shows_unseen_deletes();
        let sql_alias = self.alias();
        let system = |name: &str, sql_type: SqlType| SourceColumn {
            name: name.to_owned(),
            sql: format!("{sql_alias}.{}", name.to_lowercase()),
            sql_type,
            nullable: true,
            collation: self.catalog.database.collation.clone(),
            identity: false,
            computed: false,
            hidden: false,
        };
        let mut columns = vec![
            system("SYS_CHANGE_VERSION", SqlType::BigInt),
            system("SYS_CHANGE_CREATION_VERSION", SqlType::BigInt),
            system("SYS_CHANGE_OPERATION", SqlType::NChar { length: 1 }),
            system("SYS_CHANGE_COLUMNS", SqlType::VarBinary { length: Some(4100) }),
            system("SYS_CHANGE_CONTEXT", SqlType::VarBinary { length: Some(128) }),
        ];
        for column in object.primary_columns() {
            columns.push(SourceColumn {
                name: column.name.clone(),
                sql: format!("{sql_alias}.{}", column.physical),
                sql_type: column.sql_type.clone(),
                nullable: false,
                collation: column.collation.clone(),
                identity: column.identity.is_some(),
                computed: false,
                hidden: false,
            });
        }
        let sql = format!("({}) AS {sql_alias}", tracking::changes_query(&object, &since, unseen));
        if let Some(scope) = self.scopes.last_mut() {
            scope.push(BoundSource { alias: alias.to_owned(), full: None, sql_alias, columns, object: None });
        }
        Ok(sql)
    }
}
