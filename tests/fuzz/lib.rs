//! What the fuzz targets share.

pub use harness::{Call, Server};

mod harness;
