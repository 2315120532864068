//! Answering SQL over the lake.

mod clauses;
mod dialect;
pub mod engine;
pub mod error;
mod memory;
mod parse;
mod rewrite;
mod statement;

pub use engine::{Planned, QueryEngine, Statement, StatementOptions, TablePins, TableSummary};
pub use error::QueryError;
pub use memory::environment;
