//! What running work needs whatever it does: time, retries, stopping, object stores, faults in tests.

pub mod clock;
pub mod fault;
pub mod retry;
pub mod shutdown;
pub mod store;
