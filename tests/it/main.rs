//! Lakegate's integration tests: one binary, so that the program is linked once.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod access;
mod apply;
mod attempts;
mod bad_input;
mod cli;
mod faults;
mod files;
mod flight;
mod hostile;
mod loads;
mod queries;
mod slt;
mod sqlserver;
mod support;
mod tidy;
mod writes;
