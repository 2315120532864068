//! Lakegate keeps a Delta Lake in step with piles of files and serves it over Arrow Flight SQL.
//!
//! Each room (module) stands on a floor and may use only rooms on floors below its own. The table
//! is [`FLOORS`]; `tests/it/tidy.rs` reads it from here and holds every `use crate::` line to it.

pub mod access;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod error;
pub mod etl;
pub mod flight;
pub mod journal;
pub mod lake;
pub mod model;
pub mod query;
pub mod runtime;
pub mod source;
pub mod telemetry;

/// Which rooms stand on which floor. Rooms on one floor never use each other.
pub const FLOORS: &[(u8, &[&str])] = &[
    (8, &["cli"]),
    (7, &["flight"]),
    (6, &["etl", "delivery"]),
    (5, &["query"]),
    (4, &["journal"]),
    (3, &["lake", "source", "access"]),
    (2, &["runtime", "telemetry"]),
    (1, &["config"]),
    (0, &["model", "error"]),
];
