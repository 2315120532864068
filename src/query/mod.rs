//! Answering SQL over the lake.

mod arithmetic;
mod cancel;
mod catalog;
mod clauses;
mod dialect;
pub mod embedded;
pub mod engine;
pub mod error;
mod explain;
mod identity;
mod listing;
mod literals;
mod memory;
mod parameters;
mod parse;
mod policy;
mod rewrite;
mod sealed;
mod session;
mod statement;
mod sum;
mod system;
mod telling;

pub use embedded::LakeEngine;
pub use engine::{Planned, QueryEngine, Statement, StatementOptions, TablePins, TableSummary};
pub use error::QueryError;
pub use memory::{environment, pool};
pub use policy::{PolicyPart, PolicyProblem};
