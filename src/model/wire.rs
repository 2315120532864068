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
    /// How exactly floating-point numbers are sent.
    #[serde(default)]
    pub precision: Precision,
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

/// How exactly columns of floating-point numbers (`double`, `float`) are sent. Measurements and what models say of them are
/// mostly noise in their last digits, and noise is what no codec makes smaller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As they are.
    #[default]
    Full,
    /// With 32 bits: about 7 decimal digits.
    Float32,
    /// With 16 bits: about 3 decimal digits, and nothing above 65,504.
    Float16,
    /// With 32 bits of which the last 11 are zero, which codecs take out: about 4 decimal digits.
    Rounded,
}
