//! The vocabulary every room shares: names, types, changes, positions. No I/O, no async.

pub mod change;
pub mod column_type;
pub mod file;
pub mod load;
pub mod location;
pub mod name;
pub mod reject;
pub mod wire;

pub use change::{ChangeBatch, ChangeKind};
pub use column_type::ColumnType;
pub use file::{CarriedFile, FileStatus};
pub use load::LoadMode;
pub use location::Location;
pub use name::TableName;
pub use reject::Reject;
pub use wire::{Codec, WireProfile};
