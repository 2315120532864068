//! Tables of SQL Server.

pub mod calendar;
pub mod change_tracking;
pub mod collation;
pub mod column;
pub mod connect;
pub mod decode;
pub mod discover;
pub mod doctor;
pub mod drift;
pub mod error;
pub mod group;
pub mod key;
pub mod key_diff;
pub mod left_out;
pub mod method;
pub mod output;
pub mod pace;
pub mod position;
pub mod ranges;
pub mod repair;
pub mod rowversion;
pub mod session;
pub mod shape;
pub mod source;
pub mod statements;
pub mod verify;
pub mod whole;

pub use column::{ColumnOptions, ColumnPlan, ColumnProblem, SourceColumn, SqlType};
pub use decode::{CellError, Pushed, RowDecoder};
pub use key::{KeyColumn, KeyError};
pub use statements::SourceTable;
