//! The vocabulary every room shares: names, types, changes, positions. No I/O, no async.

pub mod change;
pub mod column_type;
pub mod content;
pub mod file;
pub mod folding;
pub mod load;
pub mod location;
pub mod name;
pub mod reject;
pub mod wire;

pub use change::{ChangeBatch, ChangeKind, KeyRange};
pub use column_type::ColumnType;
pub use content::ContentHash;
pub use file::{CarriedFile, FileStatus};
pub use folding::KeyFolding;
pub use load::LoadMode;
pub use location::Location;
pub use name::TableName;
pub use reject::Reject;
pub use wire::{Codec, Precision, WireProfile};
