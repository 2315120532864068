//! Applying changes to a table's files.
