//! Tables of SQL Server kept in step, against the stand-in or a real server.

mod changes;
mod commands;
mod drift;
mod faults;
mod gentle;
mod groups;
mod idle;
mod key_diff;
mod keys;
mod methods;
mod model;
mod real;
mod repair;
mod resume;
mod rowversion;
mod servers;
mod support;
mod values;
mod verify;
