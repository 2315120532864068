//! What there is: catalogs, schemas, tables, keys, types, and what the server can do.
//!
//! The schemas are the specification's to the letter (FlightSql.proto): drivers refuse others. The
//! ticket of such an answer is the command itself.

mod catalogs;
mod foreign_keys;
mod like;
mod primary_keys;
mod schemas;
mod sql_info;
mod table_types;
mod tables;
mod type_info;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::sql::{
    Command, CommandGetDbSchemas, CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTables, CommandGetXdbcTypeInfo,
};
use tonic::Status;

use crate::error::ErrorKind;
use crate::flight::caller::Caller;
use crate::flight::metadata::foreign_keys::ForeignKeys;
use crate::flight::service::Service;
use crate::flight::status::refuse;

/// The one catalog there is.
pub(crate) const CATALOG: &str = "lakegate";

/// A question about what there is.
#[derive(Clone, Debug)]
pub(crate) enum MetadataCommand {
    /// The catalogs.
    Catalogs,
    /// The schemas of catalogs.
    Schemas(CommandGetDbSchemas),
    /// The tables of schemas.
    Tables(CommandGetTables),
    /// The kinds of table.
    TableTypes,
    /// What the server can do.
    SqlInfo(CommandGetSqlInfo),
    /// The types columns can have.
    TypeInfo(CommandGetXdbcTypeInfo),
    /// The columns that name a table's rows.
    PrimaryKeys(CommandGetPrimaryKeys),
    /// Columns that name rows of other tables.
    ForeignKeys(ForeignKeys),
}

impl TryFrom<Command> for MetadataCommand {
    type Error = Status;

    fn try_from(command: Command) -> Result<Self, Status> {
        Ok(match command {
            Command::CommandGetCatalogs(_) => Self::Catalogs,
            Command::CommandGetDbSchemas(command) => Self::Schemas(command),
            Command::CommandGetTables(command) => Self::Tables(command),
            Command::CommandGetTableTypes(_) => Self::TableTypes,
            Command::CommandGetSqlInfo(command) => Self::SqlInfo(command),
            Command::CommandGetXdbcTypeInfo(command) => Self::TypeInfo(command),
            Command::CommandGetPrimaryKeys(command) => Self::PrimaryKeys(command),
            Command::CommandGetExportedKeys(command) => Self::ForeignKeys(command.into()),
            Command::CommandGetImportedKeys(command) => Self::ForeignKeys(command.into()),
            Command::CommandGetCrossReference(command) => Self::ForeignKeys(command.into()),
            other => {
                let message = format!("`{}` cannot be asked for here", other.type_url());
                return Err(refuse(ErrorKind::Unsupported, message));
            }
        })
    }
}

impl MetadataCommand {
    /// The answer's schema.
    pub(crate) fn schema(&self) -> SchemaRef {
        match self {
            Self::Catalogs => catalogs::schema(),
            Self::Schemas(command) => schemas::schema(command),
            Self::Tables(command) => tables::schema(command),
            Self::TableTypes => table_types::schema(),
            Self::SqlInfo(_) => sql_info::schema(),
            Self::TypeInfo(_) => type_info::schema(),
            Self::PrimaryKeys(_) => primary_keys::schema(),
            Self::ForeignKeys(_) => foreign_keys::schema(),
        }
    }

    /// The answer, in one piece: names are few.
    pub(crate) async fn answer(&self, service: &Service, caller: &Caller) -> Result<RecordBatch, Status> {
        match self {
            Self::Catalogs => catalogs::answer(),
            Self::Schemas(command) => schemas::answer(command, &service.tables(caller).await?),
            Self::Tables(command) => tables::answer(command, &service.tables(caller).await?),
            Self::TableTypes => table_types::answer(),
            Self::SqlInfo(command) => sql_info::answer(command),
            Self::TypeInfo(command) => type_info::answer(command),
            Self::PrimaryKeys(command) => primary_keys::answer(command, &service.tables(caller).await?),
            Self::ForeignKeys(asked) => foreign_keys::answer(asked, &service.tables(caller).await?),
        }
    }
}

/// Whether a filter on the catalog lets ours pass: none does, and an empty one asks for tables without a catalog.
fn catalog_matches(filter: Option<&str>) -> bool {
    filter.is_none_or(|name| name == CATALOG)
}
