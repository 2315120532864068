//! One writer per table at a time.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Who holds a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The machine's name.
    pub host: String,
    /// The process's number.
    pub process: u32,
    /// Since when, by the holder's clock.
    pub since: DateTime<Utc>,
    /// What for.
    pub purpose: String,
}

/// The right to change one table, until it is dropped or lost.
pub struct Lease {
    _holder: Holder,
}
