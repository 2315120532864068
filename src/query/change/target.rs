//! The table a statement changes: which one is meant, whether it may be changed, and its columns.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};

use crate::access::{Access, TableRights};
use crate::config::{RESULTS_SCHEMA, Settings, TableDefinition};
use crate::error::ErrorKind;
use crate::lake::Snapshot;
use crate::model::TableName;
use crate::query::QueryError;
use crate::query::catalog::{Catalog, INFORMATION_SCHEMA};
use crate::query::change::Named;
use crate::query::system::SYSTEM_SCHEMA;

/// A table that may be written, if it is there.
pub(crate) struct Target {
    /// Its name.
    pub(crate) name: TableName,
    /// What defines it; nothing for a table that people made.
    pub(crate) definition: Option<TableDefinition>,
}

/// Why a table cannot be changed.
pub(crate) enum Refused {
    /// There is none of this name, or not for the principal.
    Missing(String),
    /// Something else.
    Otherwise(QueryError),
}

impl From<QueryError> for Refused {
    fn from(error: QueryError) -> Self {
        Self::Otherwise(error)
    }
}

impl From<Refused> for QueryError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Missing(name) => {
                let message = format!("there is no table `{name}`; SHOW TABLES lists what there is");
                Self::new(ErrorKind::NotFound, message)
            }
            Refused::Otherwise(error) => error,
        }
    }
}

impl Target {
    /// The table that is meant by a name. A name without a schema is that of the default schema where it is defined and
    /// may be seen, and of `results` otherwise.
    ///
    /// # Errors
    /// `Missing` where there cannot be such a table for the principal, `Unsupported` where it cannot be written.
    pub(crate) fn find(named: &Named, words: &str, settings: &Settings, access: &Access) -> Result<Self, Refused> {
        let name = meant(named, settings, access).ok_or_else(|| Refused::Missing(written(named)))?;
        if [SYSTEM_SCHEMA, INFORMATION_SCHEMA].contains(&name.schema()) {
            let message = format!("{words} is refused: lakegate itself fills {name}");
            return Err(QueryError::unsupported(message).into());
        }
        let rights = access.table(&name, None);
        // One that may not be seen is answered as one that is not there.
        let Some(definition) = settings.tables.get(&name).filter(|_| rights.is_visible()) else {
            if name.schema() == RESULTS_SCHEMA {
                return Ok(Self { name, definition: None });
            }
            return Err(if words.starts_with("CREATE") {
                QueryError::unsupported(format!(
                    "{words} {name} is refused: tables are made in the schema `{RESULTS_SCHEMA}`, and elsewhere by a \
                     definition in tables/{}/{}.toml",
                    name.schema(),
                    name.table()
                ))
                .into()
            } else {
                missing(&name)
            });
        };
        if !definition.writable {
            return Err(QueryError::unsupported(format!(
                "{words} of {name} is refused: its rows come from loads (`lakegate sync {name}`); its definition has to say \
                 `writable = true` in [table] before people can write to it"
            ))
            .into());
        }
        if matches!(words, "CREATE TABLE" | "DROP TABLE" | "ALTER TABLE") {
            return Err(QueryError::unsupported(format!(
                "{words} {name} is refused: it is defined in tables/{}/{}.toml; change it there",
                name.schema(),
                name.table()
            ))
            .into());
        }
        check_write(&name, &rights)?;
        Ok(Self { name, definition: Some(definition.clone()) })
    }

    /// What may be done with a version of the table.
    pub(crate) fn rights(&self, live: Option<&Snapshot>, access: &Access) -> TableRights {
        let owner = live.and_then(|live| live.made().owner);
        access.table(&self.name, owner.as_deref())
    }

    /// Checks that there is such a table, and that it may be written.
    ///
    /// # Errors
    /// `Missing` and `PermissionDenied`.
    pub(crate) fn check(&self, live: Option<&Snapshot>, access: &Access) -> Result<(), Refused> {
        if live.is_none() && self.definition.is_none() {
            return Err(missing(&self.name));
        }
        let rights = self.rights(live, access);
        if !rights.is_visible() {
            return Err(missing(&self.name));
        }
        Ok(check_write(&self.name, &rights)?)
    }

    /// Checks that rows may be changed by what they hold: whoever does not see everything would learn it.
    ///
    /// # Errors
    /// `PermissionDenied`.
    pub(crate) fn check_sees_everything(&self, live: Option<&Snapshot>, access: &Access) -> Result<(), QueryError> {
        if self.rights(live, access).sees_everything() {
            return Ok(());
        }
        Err(QueryError::new(
            ErrorKind::PermissionDenied,
            format!("rows of {} are updated and deleted by those only who may read the whole table", self.name),
        ))
    }

    /// The columns rows are written in: those of the table, and those its definition adds.
    ///
    /// # Errors
    /// When nothing says what they are.
    pub(crate) fn columns(&self, live: Option<&Snapshot>) -> Result<SchemaRef, QueryError> {
        let declared = self.definition.iter().flat_map(|definition| {
            let field = |column: &crate::config::ColumnDefinition| {
                Arc::new(Field::new(&column.name, column.column_type.to_arrow(), column.nullable))
            };
            definition.columns.iter().map(field)
        });
        let Some(live) = live else {
            let fields: Vec<_> = declared.collect();
            if fields.is_empty() {
                return Err(QueryError::new(
                    ErrorKind::NotFound,
                    format!(
                        "table {} has no columns before its first load; run `lakegate sync {}`",
                        self.name, self.name
                    ),
                ));
            }
            return Ok(Arc::new(Schema::new(fields)));
        };
        let mut fields = live.schema().fields().to_vec();
        for field in declared {
            if !fields.iter().any(|known| known.name() == field.name()) {
                fields.push(Arc::new(field.as_ref().clone().with_nullable(true)));
            }
        }
        Ok(Arc::new(Schema::new(fields)))
    }

    /// Columns that name a row.
    pub(crate) fn key(&self, live: Option<&Snapshot>) -> Vec<String> {
        match &self.definition {
            Some(definition) => definition.key.clone(),
            None => live.map(|live| live.made().key).unwrap_or_default(),
        }
    }
}

/// The name that is meant; none for what is no name of a table.
fn meant(named: &Named, settings: &Settings, access: &Access) -> Option<TableName> {
    let Some(schema) = &named.schema else {
        let default = Catalog::default_schema(settings).and_then(|schema| TableName::new(&schema, &named.table).ok());
        return match default {
            Some(name) if settings.tables.contains_key(&name) && access.table(&name, None).is_visible() => Some(name),
            _ => TableName::new(RESULTS_SCHEMA, &named.table).ok(),
        };
    };
    TableName::new(schema, &named.table).ok()
}

fn written(named: &Named) -> String {
    named.schema.as_ref().map_or_else(|| named.table.clone(), |schema| format!("{schema}.{}", named.table))
}

fn check_write(name: &TableName, rights: &TableRights) -> Result<(), QueryError> {
    if rights.write {
        return Ok(());
    }
    Err(QueryError::new(ErrorKind::PermissionDenied, format!("{name} may be read and not written by you")))
}

/// What is said of a table that is not there, or not for the principal.
pub(crate) fn missing(name: &TableName) -> Refused {
    Refused::Missing(name.to_string())
}
