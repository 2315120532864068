//! The Flight SQL service over a real socket, asked by arrow-flight's client and by plain Flight.

mod engine;
mod history;
mod lake;
mod limits;
mod metadata;
mod prepared;
mod server;
mod sessions;
mod statements;
mod stopping;
mod who;
