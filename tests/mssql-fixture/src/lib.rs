//! A stand-in for SQL Server: TDS 7.4 on a real socket over SQLite, for tests and a demo.
//!
//! The engine ([`engine`]) knows no TDS and the wire (private) knows no SQLite; both know [`value`]. [`Server`] joins them.

pub mod collation;
mod collation_order;
pub mod engine;
pub mod seed;
mod server;
pub mod value;
mod wire;

pub use server::{Server, ServerOptions, StartError};
pub use wire::{Encryption, TlsError};
