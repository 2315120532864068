//! Moving data into the lake: one load of one table, many tables side by side, and the schedule.
//!
//! A load takes the table's lease, begins an attempt, reads what is new, writes it, and commits data and
//! position together ([`load`]). Until the commit nothing counts; after it everything does. What happened
//! stands in the journal.

mod ahead;
mod definition;
mod error;
mod group;
mod known;
mod load;
mod progress;
mod put_off;
mod rejects;
mod schedule;
mod sync;
mod verify;
mod whole;

pub use definition::DefinitionMark;
pub use error::EtlError;
pub use progress::{Progress, Silent};
pub use sync::{Loads, OpenSource, SyncOptions, SyncReport, TableOutcome};
pub use verify::{VerifyOptions, VerifyReport};

/// Every place in this room where a test can make the program fail, die or freeze.
pub const POINTS: &[&str] = &[
    "etl.reading.opened",
    "etl.events.end",
    "etl.prepared",
    "etl.journal.before",
    "etl.ahead.small",
    "etl.whole.every",
    "etl.whole.piece",
    "etl.whole.kept",
    "etl.whole.made",
    "etl.whole.adopted",
];
