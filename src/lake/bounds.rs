//! Bounds of columns in data files, only where they are safe.
