//! The Flight SQL service over a real socket, asked by arrow-flight's client and by plain Flight.

mod bad_days;
pub(crate) mod engine;
mod freed;
mod history;
mod lake;
mod limits;
mod line;
mod metadata;
mod prepared;
mod resume;
pub(crate) mod server;
mod sessions;
mod sharing;
mod statements;
mod stopping;
mod who;
