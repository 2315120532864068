//! The Flight SQL service: the only room that knows tonic and arrow-flight.
//!
//! `service.rs` holds the ten calls of Flight; each hands over to the file of the command it was
//! asked for. A command's plan, schema and rows live together in that file. Errors become gRPC
//! statuses in `status.rs` and nowhere else.

mod actions;
mod bindings;
mod caller;
mod cancel;
pub mod client;
mod command;
mod error;
mod gate;
mod handshake;
mod incoming;
mod ingest;
mod line;
mod metadata;
mod parameters;
mod patience;
mod prepared;
mod results;
mod running;
mod server;
mod service;
mod session;
mod statement;
mod status;
mod update;

pub use client::{ClientError, FlightClient};
pub use error::FlightError;
pub use server::{ServiceParts, check_exposure, serve};
