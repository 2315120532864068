//! What a client that has a result shows, to be sent only what has been added to it: a sealed note of which statement it is
//! the result of, and of which version of its one table.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::delivery::{DeliveryError, Identity, Purpose, Sealer};
use crate::model::TableName;

/// What a result was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis {
    /// A name of the statement with all its rows depend on, but for the version.
    pub(super) statement: String,
    /// The one table it reads.
    pub table: TableName,
    /// The table's own name for itself.
    pub(super) id: String,
    /// The version it was read at.
    pub version: u64,
    /// The result.
    pub identity: Identity,
}

impl Basis {
    /// Whether the result `now` is one of the same statement, over a later version of the same table.
    pub fn is_before(&self, now: &Self) -> bool {
        self.statement == now.statement && self.table == now.table && self.id == now.id && self.version < now.version
    }

    /// As a text that only servers with the same key can read or make.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn seal(&self, sealer: &Sealer) -> Result<String, DeliveryError> {
        let content = serde_json::to_vec(self)
            .map_err(|error| DeliveryError::Sealing { what: "basis", reason: error.to_string() })?;
        Ok(URL_SAFE_NO_PAD.encode(sealer.seal(Purpose::Basis, &content)?))
    }

    /// Reads such a text; one that cannot be read is as good as none.
    pub fn open(text: &str, sealer: &Sealer) -> Option<Self> {
        let sealed = URL_SAFE_NO_PAD.decode(text).ok()?;
        serde_json::from_slice(&sealer.open(Purpose::Basis, &sealed).ok()?).ok()
    }
}
