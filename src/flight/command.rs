//! What a client asks for, read once from the bytes of a descriptor or a ticket.

use arrow_flight::FlightDescriptor;
use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::sql::{Any, Command};
use prost::Message;
use tonic::Status;

use crate::error::ErrorKind;
use crate::flight::metadata::MetadataCommand;
use crate::flight::status::refuse;

/// Every Flight SQL message's type begins so (FlightSql.proto).
const FLIGHT_SQL: &str = "type.googleapis.com/arrow.flight.protocol.sql.";

/// What a descriptor asks for.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// The answer to a text.
    Statement(String),
    /// The answer to a prepared statement, by its handle.
    Prepared(bytes::Bytes),
    /// What there is.
    Metadata(MetadataCommand),
}

/// What a ticket redeems.
#[derive(Clone, Debug)]
pub(crate) enum Redeemed {
    /// A ticket that this or another server sealed.
    Sealed(bytes::Bytes),
    /// What could also be asked for by a descriptor.
    Asked(Asked),
}

impl TryFrom<&FlightDescriptor> for Asked {
    type Error = Status;

    fn try_from(descriptor: &FlightDescriptor) -> Result<Self, Status> {
        if descriptor.r#type() == DescriptorType::Path {
            return Err(refuse(
                ErrorKind::Unsupported,
                "a path names nothing here; send SQL, such as `select * from schema.table`, as the descriptor's command",
            ));
        }
        match decode(&descriptor.cmd)? {
            Decoded::Text(sql) => Ok(Self::Statement(sql)),
            Decoded::Command(command) => Self::from_command(command),
        }
    }
}

impl TryFrom<&arrow_flight::Ticket> for Redeemed {
    type Error = Status;

    fn try_from(ticket: &arrow_flight::Ticket) -> Result<Self, Status> {
        match decode(&ticket.ticket)? {
            Decoded::Text(sql) => Ok(Self::Asked(Asked::Statement(sql))),
            Decoded::Command(Command::TicketStatementQuery(sealed)) => Ok(Self::Sealed(sealed.statement_handle)),
            Decoded::Command(command) => Asked::from_command(command).map(Self::Asked),
        }
    }
}

impl Asked {
    fn from_command(command: Command) -> Result<Self, Status> {
        match command {
            Command::CommandStatementQuery(query) => {
                refuse_transaction(query.transaction_id.as_deref())?;
                Ok(Self::Statement(query.query))
            }
            Command::CommandPreparedStatementQuery(query) => Ok(Self::Prepared(query.prepared_statement_handle)),
            Command::CommandStatementSubstraitPlan(_) => {
                Err(refuse(ErrorKind::Unsupported, "Substrait plans are not read; send SQL text instead"))
            }
            other => MetadataCommand::try_from(other).map(Self::Metadata),
        }
    }
}

/// Refuses the id of a transaction: there are none (SqlInfo says so too), each statement sees a snapshot.
pub(crate) fn refuse_transaction(id: Option<&[u8]>) -> Result<(), Status> {
    match id {
        Some([_, ..]) => Err(refuse(ErrorKind::Unsupported, "there are no transactions; use autocommit")),
        _ => Ok(()),
    }
}

enum Decoded {
    Command(Command),
    Text(String),
}

/// Reads bytes as a Flight SQL message, else as the text of a statement. That they parse as an
/// `Any` is not enough: so does the text `EXPLAIN SELECT 1`, with an empty type.
fn decode(bytes: &[u8]) -> Result<Decoded, Status> {
    if bytes.is_empty() {
        return Err(refuse(ErrorKind::InvalidInput, "the request names no command and no statement"));
    }
    match Any::decode(bytes) {
        Ok(any) if any.type_url.starts_with(FLIGHT_SQL) => {
            Command::try_from(any).map(Decoded::Command).map_err(|error| {
                refuse(ErrorKind::InvalidInput, format!("the Flight SQL message cannot be read: {error}"))
            })
        }
        _ => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Decoded::Text(text.to_owned())),
            Err(_) => Err(refuse(ErrorKind::InvalidInput, "this is neither a Flight SQL message nor SQL in UTF-8")),
        },
    }
}

#[cfg(test)]
mod tests {
    use arrow_flight::sql::{CommandGetCatalogs, CommandStatementQuery, ProstMessageExt};

    use super::*;

    fn asked(command: impl Into<bytes::Bytes>) -> Result<Asked, Status> {
        Asked::try_from(&FlightDescriptor::new_cmd(command))
    }

    #[test]
    fn text_is_a_statement_even_where_it_looks_like_a_message() {
        for text in ["select 1", "EXPLAIN SELECT 1", "\n\u{3}abc", "with a as (select 1) select * from a"] {
            assert!(matches!(asked(text), Ok(Asked::Statement(sql)) if sql == text), "{text}");
        }
    }

    #[test]
    fn messages_are_read_by_their_type() {
        let query = CommandStatementQuery { query: "select 1".to_owned(), transaction_id: None };
        assert!(matches!(asked(query.as_any().encode_to_vec()), Ok(Asked::Statement(sql)) if sql == "select 1"));
        let catalogs = CommandGetCatalogs {}.as_any().encode_to_vec();
        assert!(matches!(asked(catalogs), Ok(Asked::Metadata(MetadataCommand::Catalogs))));
    }

    #[test]
    fn what_is_neither_is_refused() {
        for bytes in [&b""[..], &b"\xff\xfe\x00"[..]] {
            assert_eq!(asked(bytes.to_vec()).unwrap_err().code(), tonic::Code::InvalidArgument);
        }
        let path = FlightDescriptor::new_path(vec!["a".to_owned()]);
        assert_eq!(Asked::try_from(&path).unwrap_err().code(), tonic::Code::Unimplemented);
    }
}
