//! How the results of one client are encoded.

use serde::{Deserialize, Serialize};

/// How the results of one client are encoded. What changes the schema is fixed when a statement is
/// planned and travels in its ticket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireProfile {
    /// How message bodies are compressed.
    pub codec: Codec,
    /// Whether columns may be sent as dictionaries; plain types otherwise.
    pub dictionaries: bool,
}

/// How message bodies are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Not at all: every client can read it.
    #[default]
    None,
    /// LZ4 frames.
    Lz4,
    /// Zstandard, level 1.
    Zstd,
}
