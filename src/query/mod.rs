//! Answering SQL over the lake, and changing its tables by SQL.

mod arithmetic;
mod cancel;
mod catalog;
mod change;
mod clauses;
mod constants;
mod date_trunc;
mod dependencies;
mod dialect;
mod distinct;
pub mod embedded;
mod embedded_plan;
pub mod engine;
pub mod error;
mod estimate;
mod explain;
mod identity;
mod in_turn;
mod listing;
mod literals;
mod memory;
mod naming;
mod opened;
mod order;
mod parameters;
mod parse;
mod policy;
mod redact;
mod rewrite;
mod sample;
mod sealed;
mod session;
mod small;
mod statement;
mod sum;
mod system;
mod unpacked;
mod values;

pub use dependencies::{Dependencies, TableRead};
pub use distinct::Distinct;
pub use embedded::LakeEngine;
pub use engine::{
    ChangeValues, Changed, IfExisting, IfMissing, IncomingRows, Ingestion, Planned, QueryEngine, Statement,
    StatementKind, StatementOptions, TablePins, TableSummary,
};
pub use error::QueryError;
pub use estimate::{ColumnEstimate, Estimate, Origin, Rows};
pub use memory::{MemoryGauge, environment, pool};
pub use policy::{PolicyPart, PolicyProblem};
pub use redact::without_literals;
pub use session::is_time_zone;
pub use system::told_of_own_tables;
pub(crate) use unpacked::Unpacked;
