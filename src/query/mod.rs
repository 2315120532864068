//! Answering SQL over the lake.

mod dialect;
pub mod engine;
pub mod error;
mod memory;

pub use engine::{Planned, QueryEngine, Statement, StatementOptions, TablePins, TableSummary};
pub use error::QueryError;
pub use memory::environment;
