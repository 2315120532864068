//! What running work needs whatever it does: time, retries, stopping, lists of what goes on, object stores, faults in
//! tests.

pub mod clock;
pub mod fault;
pub mod live;
pub mod retry;
pub mod shutdown;
pub mod store;
