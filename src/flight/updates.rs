//! What changes tables through Flight SQL: refused, with what to do instead.

use tonic::Status;

use crate::error::ErrorKind;
use crate::flight::status::refuse;

/// Answers INSERT, UPDATE, DELETE and DDL.
pub(crate) fn refuse_statement() -> Status {
    refuse(
        ErrorKind::Unsupported,
        "tables are not changed by SQL: describe where their rows come from in tables/<schema>/<table>.toml and run \
         `lakegate sync`. Queries are run with execute_query, not as updates",
    )
}

/// Answers a bulk ingestion.
pub(crate) fn refuse_ingest() -> Status {
    refuse(
        ErrorKind::Unsupported,
        "rows cannot be sent to a table: put them as a file where the table's definition looks for files, and run \
         `lakegate sync`",
    )
}
