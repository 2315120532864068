//! Handing results out: sealed tickets, the schema clients see, messages of bounded size, and whose message goes next.
//!
//! Knows Arrow's IPC format, but neither gRPC nor HTTP: the rooms above put the messages on a line.

pub mod basis;
pub mod encode;
pub mod error;
pub mod identity;
pub mod key;
pub mod learned;
pub mod line;
mod opening;
pub mod position;
mod precision;
pub mod result_cache;
pub mod seal;
mod size;
pub mod spool;
pub mod stored_result;
pub mod ticket;
pub mod wire_estimate;
pub mod wire_schema;
pub mod words;

pub use basis::Basis;
pub use encode::{EncodedResult, Encoders, MESSAGE_BYTES, WireMessage, Work, single_batch};
pub use error::DeliveryError;
pub use identity::Identity;
pub use key::TicketKey;
pub use learned::{LearnedSizes, Learning};
pub use line::{Lane, LineDefaults, Lines};
pub use opening::Opening;
pub use position::Position;
pub use result_cache::{ResultCache, ResultKey};
pub use seal::{Purpose, Sealer};
pub use spool::{Spool, Tail};
pub use stored_result::{Found, Job, Put, StoredResult};
pub use ticket::Ticket;
pub use wire_estimate::{ColumnBytes, WireEstimate};
pub use wire_schema::{conform, result_schema, wire_schema};
pub use words::few_words;
