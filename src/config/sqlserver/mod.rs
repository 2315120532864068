//! SQL Server in both formats: `[connections.NAME]` with `type = "sqlserver"`, and `[source]` with `table`.

mod connection;
mod source;
pub(super) mod values;

pub use values::source_table_name;

pub(super) use connection::{refuse_keys, sql_server_connection};
pub(super) use source::{DEFAULT_MAX_REWRITE, is_sql_server, refuse_source_keys, sql_server_source};
