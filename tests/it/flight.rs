//! The Flight SQL service over a real socket, asked by arrow-flight's client and by plain Flight.

mod engine;
mod lake;
mod metadata;
mod prepared;
mod server;
mod statements;
mod stopping;
mod who;
