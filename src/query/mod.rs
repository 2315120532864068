//! Answering SQL over the lake.

pub mod engine;
pub mod error;

pub use engine::{Planned, QueryEngine, Statement, StatementOptions, TablePins, TableSummary};
pub use error::QueryError;
