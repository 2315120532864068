//! What a ticket holds: a statement pinned to table versions, for whom, how encoded, until when.
//!
//! Tickets are stateless: any server with the same key and lake redeems them, also after a restart.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use datafusion::common::ScalarValue;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::delivery::{DeliveryError, MESSAGE_BYTES, Purpose, Sealer};
use crate::model::WireProfile;
use crate::query::{Statement, StatementOptions, TablePins};

/// First byte of a ticket's content, raised when the content changes in a way older servers misread.
const CONTENT_VERSION: u8 = 2;

/// A result that can be fetched.
#[derive(Clone, Debug, PartialEq)]
pub struct Ticket {
    /// Names the ticket, for cancelling what was started with it.
    pub id: Uuid,
    /// What to run, with the version of every table.
    pub statement: Statement,
    /// Who may redeem it.
    pub principal: String,
    /// How the result is encoded.
    pub profile: WireProfile,
    /// Bytes on the line that its messages are cut to: by the client's line when it asked, whatever line it comes back on.
    pub message_bytes: usize,
    /// After this it is not redeemed any more.
    pub expires_at: DateTime<Utc>,
}

impl Ticket {
    /// A new ticket that lives for `lifetime` from `now` on.
    pub fn new(
        statement: Statement,
        principal: &str,
        (profile, message_bytes): (WireProfile, usize),
        now: DateTime<Utc>,
        lifetime: Duration,
    ) -> Self {
        let lifetime = chrono::Duration::from_std(lifetime).unwrap_or(chrono::Duration::MAX);
        Self {
            id: Uuid::new_v4(),
            statement,
            principal: principal.to_owned(),
            profile,
            message_bytes,
            expires_at: now.checked_add_signed(lifetime).unwrap_or(DateTime::<Utc>::MAX_UTC),
        }
    }

    /// The ticket as bytes that only servers with the same key can read or make.
    ///
    /// # Errors
    /// `Encode` when a parameter's type cannot be written, `Sealing` when there is no randomness.
    pub fn seal(&self, sealer: &Sealer) -> Result<Vec<u8>, DeliveryError> {
        let content = Content {
            id: self.id,
            sql: self.statement.sql.clone(),
            parameters: write_parameters(&self.statement.parameters).map_err(DeliveryError::Encode)?,
            pins: self.statement.pins.clone(),
            options: self.statement.options.clone(),
            principal: self.principal.clone(),
            profile: self.profile,
            message_bytes: self.message_bytes,
            expires_at: self.expires_at.timestamp_millis(),
        };
        let mut bytes = vec![CONTENT_VERSION];
        serde_json::to_writer(&mut bytes, &content)
            .map_err(|error| DeliveryError::Sealing { what: "ticket", reason: error.to_string() })?;
        sealer.seal(Purpose::Ticket, &bytes)
    }

    /// Reads a sealed ticket back, whether its time is over or not: what was begun with it goes on, and is stopped by it.
    ///
    /// # Errors
    /// `NotOurs` when it was altered or sealed elsewhere.
    pub fn open(sealed: &[u8], sealer: &Sealer) -> Result<Self, DeliveryError> {
        let bytes = sealer.open(Purpose::Ticket, sealed)?;
        let other = |reason: String| DeliveryError::OtherVersion { reason };
        let Some((&CONTENT_VERSION, json)) = bytes.split_first() else {
            return Err(other(format!("layout {:?}", bytes.first())));
        };
        let content: Content = serde_json::from_slice(json).map_err(|error| other(error.to_string()))?;
        let expires_at = DateTime::from_timestamp_millis(content.expires_at).unwrap_or(DateTime::<Utc>::MIN_UTC);
        let parameters = read_parameters(content.parameters.as_deref()).map_err(|error| other(error.to_string()))?;
        Ok(Self {
            id: content.id,
            statement: Statement { sql: content.sql, parameters, pins: content.pins, options: content.options },
            principal: content.principal,
            profile: content.profile,
            message_bytes: content.message_bytes,
            expires_at,
        })
    }

    /// Checks that something can be begun with it.
    ///
    /// # Errors
    /// `Expired` when its time is over.
    pub fn check(&self, now: DateTime<Utc>) -> Result<(), DeliveryError> {
        if now < self.expires_at { Ok(()) } else { Err(DeliveryError::Expired) }
    }
}

/// The content as it is written.
#[derive(Serialize, Deserialize)]
struct Content {
    id: Uuid,
    sql: String,
    /// One row, a column per parameter, as an Arrow IPC stream in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parameters: Option<String>,
    pins: TablePins,
    options: StatementOptions,
    principal: String,
    profile: WireProfile,
    #[serde(default = "usual_message")]
    message_bytes: usize,
    /// Milliseconds since 1970, UTC.
    expires_at: i64,
}

/// What tickets said that named no size.
fn usual_message() -> usize {
    MESSAGE_BYTES
}

/// Values of parameters as a text that tells them and their types apart; none where there are none.
pub(super) fn write_parameters(parameters: &[ScalarValue]) -> Result<Option<String>, ArrowError> {
    if parameters.is_empty() {
        return Ok(None);
    }
    let columns = parameters.iter().map(|value| value.to_array().map_err(ArrowError::from));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let fields = columns.iter().enumerate();
    let fields: Vec<_> =
        fields.map(|(at, column)| Field::new((at + 1).to_string(), column.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
    writer.write(&RecordBatch::try_new(schema, columns)?)?;
    Ok(Some(STANDARD.encode(writer.into_inner()?)))
}

fn read_parameters(text: Option<&str>) -> Result<Vec<ScalarValue>, ArrowError> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let bytes = STANDARD.decode(text).map_err(|error| ArrowError::IpcError(error.to_string()))?;
    let batch = StreamReader::try_new(bytes.as_slice(), None)?.next().transpose()?;
    let batch = batch.ok_or_else(|| ArrowError::IpcError("no row of parameters".to_owned()))?;
    let values = batch.columns().iter().map(|column| ScalarValue::try_from_array(column, 0).map_err(ArrowError::from));
    values.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::TicketKey;

    fn sealer() -> Sealer {
        Sealer::new(&TicketKey::parse(&"07".repeat(32)).unwrap())
    }

    fn ticket(now: DateTime<Utc>) -> Ticket {
        let statement = Statement {
            sql: "select * from a.b where c = $1".to_owned(),
            parameters: vec![
                ScalarValue::Int64(Some(7)),
                ScalarValue::Utf8(None),
                ScalarValue::Null,
                ScalarValue::TimestampMicrosecond(Some(1), Some("UTC".into())),
                ScalarValue::Decimal128(Some(1234), 10, 2),
            ],
            pins: TablePins::from([("a.b".parse().unwrap(), 12)]),
            options: StatementOptions { partitions: Some(1), batch_rows: Some(8192), ..StatementOptions::default() },
        };
        let encoding = (WireProfile::default(), MESSAGE_BYTES / 8);
        Ticket::new(statement, "anonymous", encoding, now, Duration::from_secs(60))
    }

    #[test]
    fn a_ticket_comes_back_as_it_was_sealed() {
        let now = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let ticket = ticket(now);
        let sealed = ticket.seal(&sealer()).unwrap();
        let opened = Ticket::open(&sealed, &sealer()).unwrap();
        opened.check(now).unwrap();
        assert_eq!(opened, ticket);
    }

    #[test]
    fn a_ticket_past_its_time_says_to_run_the_query_again() {
        let now = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let sealed = ticket(now).seal(&sealer()).unwrap();
        let opened = Ticket::open(&sealed, &sealer()).unwrap();
        let error = opened.check(now + chrono::Duration::seconds(60)).unwrap_err();
        assert!(matches!(error, DeliveryError::Expired));
        assert!(error.to_string().contains("run the query again"), "{error}");
    }

    #[test]
    fn the_text_of_a_statement_does_not_show_in_its_ticket() {
        let sealed = ticket(Utc::now()).seal(&sealer()).unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"select"));
    }
}
