//! The Flight SQL service over a real socket, asked by arrow-flight's client and by plain Flight.

pub(crate) mod engine;
mod lake;
mod metadata;
mod prepared;
pub(crate) mod server;
mod statements;
mod stopping;
mod who;
