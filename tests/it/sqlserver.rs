//! Tables of SQL Server kept in step, against the stand-in or a real server.

mod changes;
mod commands;
mod drift;
mod faults;
mod idle;
mod model;
mod resume;
mod servers;
mod support;
mod values;
