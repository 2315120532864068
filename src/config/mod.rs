//! What the user wrote, checked and turned into what the program runs on.
//!
//! Two steps: the *low* form is the text with its places, no I/O beyond reading the files; the *high*
//! form ([`Settings`], [`TableDefinition`]) is validated, has every default filled in, and cannot be wrong.

pub mod settings;
pub mod state;
pub mod table;

pub use settings::{
    Connection, LakeSettings, Limits, LogFormat, LogSettings, S3Connection, ServeSettings, Settings, TicketSettings,
};
pub use state::state_folder;
pub use table::{ColumnDefinition, CsvOptions, FileFormat, FileSource, LoadSettings, Schedule, TableDefinition};
