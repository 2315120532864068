//! What one entry of a table's log says, as far as lakegate asks.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use deltalake::logstore::LogStoreRef;
use serde::Deserialize;

use crate::error::ErrorKind;
use crate::lake::commit::FENCE_KEY;
use crate::lake::store::TablePlace;
use crate::lake::{LakeError, TRANSACTION_APP};

/// One entry of the log.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct LogEntry {
    /// Lakegate's `txn` number, where the entry sets it.
    pub(super) transaction: Option<i64>,
    /// When it was committed, by the committer's clock.
    pub(super) committed_at: Option<DateTime<Utc>>,
    /// The operation's name, such as `WRITE`.
    pub(super) operation: String,
    /// Whether everything before is thrown away: an overwrite or a replacement of the table.
    pub(super) overwrites: bool,
    /// The version a restore went back to.
    pub(super) restored: Option<u64>,
    /// Whether rows were added or removed.
    pub(super) changes_rows: bool,
    /// Whether it is an empty version that only fences off.
    pub(super) is_fence: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    commit_info: Option<serde_json::Map<String, serde_json::Value>>,
    txn: Option<TransactionLine>,
    add: Option<FileLine>,
    remove: Option<FileLine>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TransactionLine {
    app_id: String,
    version: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileLine {
    data_change: Option<bool>,
}

impl LogEntry {
    /// Reads the entry of a version; none when there is none (yet, or any more).
    pub(super) async fn read(place: &TablePlace, log: &LogStoreRef, version: u64) -> Result<Option<Self>, LakeError> {
        let what = || format!("version {version} in the log of table {}", place.name());
        let bytes = Arc::clone(log)
            .read_commit_entry(version)
            .await
            .map_err(|cause| LakeError::delta(format!("cannot read {}", what()), cause))?;
        let Some(bytes) = bytes else { return Ok(None) };
        Self::parse(&bytes)
            .map(Some)
            .map_err(|cause| LakeError::because(ErrorKind::DataLoss, format!("{} is damaged", what()), cause))
    }

    fn parse(text: &[u8]) -> serde_json::Result<Self> {
        let mut entry = Self::default();
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            entry.take(serde_json::from_slice(line)?);
        }
        Ok(entry)
    }

    fn take(&mut self, line: Line) {
        if let Some(transaction) = line.txn.filter(|txn| txn.app_id == TRANSACTION_APP) {
            self.transaction = Some(transaction.version);
        }
        for file in [line.add, line.remove].into_iter().flatten() {
            self.changes_rows |= file.data_change.unwrap_or(true);
        }
        if let Some(info) = line.commit_info {
            self.take_info(&info);
        }
    }

    fn take_info(&mut self, info: &serde_json::Map<String, serde_json::Value>) {
        let text = |value: &serde_json::Value| value.as_str().map(|text| text.trim_matches('"').to_owned());
        let parameter = |name: &str| info.get("operationParameters").and_then(|parameters| parameters.get(name));
        self.committed_at = info.get("timestamp").and_then(|time| DateTime::from_timestamp_millis(time.as_i64()?));
        self.operation = info.get("operation").and_then(text).unwrap_or_default();
        self.is_fence = info.get(FENCE_KEY).and_then(serde_json::Value::as_bool).unwrap_or(false);
        if self.operation == "RESTORE" {
            let version = parameter("version");
            self.restored = version.and_then(|version| version.as_u64().or_else(|| text(version)?.parse().ok()));
        }
        let is_overwrite = parameter("mode").and_then(text).is_some_and(|mode| mode == "Overwrite");
        let is_partial = parameter("predicate").and_then(text).is_some_and(|text| !text.is_empty() && text != "[]");
        self.overwrites = self.operation.contains("REPLACE TABLE") || (is_overwrite && !is_partial);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_says_who_made_it_and_what_it_did() {
        let text = concat!(
            r#"{"commitInfo":{"timestamp":1700000000000,"operation":"WRITE","operationParameters":{"mode":"Append"}}}"#,
            "\n",
            r#"{"add":{"path":"a.parquet","dataChange":true}}"#,
            "\n",
            r#"{"txn":{"appId":"other","version":3}}"#,
            "\n",
            r#"{"txn":{"appId":"lakegate","version":7}}"#,
        );
        let entry = LogEntry::parse(text.as_bytes()).unwrap();
        assert_eq!(entry.transaction, Some(7));
        assert_eq!(entry.committed_at, DateTime::from_timestamp(1_700_000_000, 0));
        assert!(entry.changes_rows && !entry.overwrites && !entry.is_fence);
    }

    #[test]
    fn restores_overwrites_and_compactions_are_told_apart() {
        let restore = r#"{"commitInfo":{"operation":"RESTORE","operationParameters":{"version":"2"}}}"#;
        assert_eq!(LogEntry::parse(restore.as_bytes()).unwrap().restored, Some(2));
        let overwrite = r#"{"commitInfo":{"operation":"WRITE","operationParameters":{"mode":"\"Overwrite\""}}}"#;
        assert!(LogEntry::parse(overwrite.as_bytes()).unwrap().overwrites);
        let partial =
            r#"{"commitInfo":{"operation":"WRITE","operationParameters":{"mode":"Overwrite","predicate":"a = 1"}}}"#;
        assert!(!LogEntry::parse(partial.as_bytes()).unwrap().overwrites);
        let compaction = r#"{"add":{"path":"a","dataChange":false}}"#;
        assert!(!LogEntry::parse(compaction.as_bytes()).unwrap().changes_rows);
    }
}
