//! A row that did not fit, kept with the reason.

use serde::{Deserialize, Serialize};

/// One rejected row. Values in it are the source's own: whoever may not see the table may not see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// The file the row stands in, as listed.
    pub file: String,
    /// The row's first line, counted from 1; none where the whole file is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The column that did not fit, where it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// What was expected and what was found.
    pub reason: String,
    /// The row as it stood in the file, at most [`Reject::MAX_RAW_BYTES`]; bytes that are no text are replaced.
    pub raw: String,
}

impl Reject {
    /// Longest raw text kept of one row, in bytes: enough to find it, and a 10 MB line does not fill the lake.
    pub const MAX_RAW_BYTES: usize = 16 * 1024;

    /// A raw row as it is kept: replaced where it is no UTF-8, cut where it is too long.
    pub fn clip_raw(raw: &[u8]) -> String {
        let end = raw.len().min(Self::MAX_RAW_BYTES);
        let mut text = String::from_utf8_lossy(&raw[..end]).into_owned();
        if end < raw.len() {
            text.push_str(&format!("… ({} bytes in all)", raw.len()));
        }
        text
    }
}
