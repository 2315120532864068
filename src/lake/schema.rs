//! A table's columns and how they may change.
