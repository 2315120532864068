//! The Flight SQL service: the only room that knows tonic and arrow-flight.
//!
//! `service.rs` holds the ten calls of Flight; each hands over to the file of the command it was
//! asked for. A command's plan, schema and rows live together in that file. Errors become gRPC
//! statuses in `status.rs` and nowhere else.

mod actions;
mod admission;
mod allowance;
mod announcement;
mod authenticator;
mod bindings;
mod caller;
mod cancel;
pub mod client;
mod client_cache;
mod command;
mod connection;
mod connection_count;
mod credentials;
mod described;
mod do_get;
mod download;
mod entrance;
mod error;
mod fetch;
mod frame;
mod gate;
mod handshake;
mod housekeeping;
mod incoming;
mod ingest;
mod metadata;
mod parameters;
mod patience;
mod plans;
mod prepared;
mod profile;
mod pull;
mod results;
mod rows;
mod run;
mod server;
mod service;
mod session;
mod session_token;
mod sharing;
mod standing;
mod statement;
mod status;
mod tls;
mod update;

pub use client::{ClientCredentials, ClientError, ClientOptions, FlightClient};
pub use client_cache::{CacheEntry, ClientCache, cache_entries, clear_cache};
pub use entrance::{Entrance, EntranceStamp};
pub use error::FlightError;
pub use fetch::{Answer, Moved, Question};
pub use pull::Arrival;
pub use server::{ServiceParts, check_exposure, serve, serve_with};
