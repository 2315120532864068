//! Tables that people made: whose they are, what names their rows, and whether they were dropped.
//!
//! All of it stands in the configuration of the table's Delta metadata, so that it changes in the same commit as rows and
//! columns do, and each version says it of itself.

use std::collections::BTreeSet;

use chrono::{DateTime, SecondsFormat, Utc};
use deltalake::kernel::{Action, Metadata, MetadataExt};
use deltalake::protocol::{DeltaOperation, SaveMode};

use crate::error::ErrorKind;
use crate::lake::{Lake, LakeError, Snapshot, Staged};
use crate::model::TableName;

/// Who made the table.
const OWNER: &str = "lakegate.owner";

/// The columns that name a row, as a list in JSON.
const KEY: &str = "lakegate.key";

/// Since when it is the owner's.
const SINCE: &str = "lakegate.since";

/// There, and `true`, where the table was dropped.
const DROPPED: &str = "lakegate.dropped";

/// What a version of a table that people made says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Who made it.
    pub owner: Option<String>,
    /// When they made it, by their process's clock: another table of the name, dropped before, was none of theirs.
    pub since: Option<DateTime<Utc>>,
    /// Columns that name a row.
    pub key: Vec<String>,
}

impl Snapshot {
    /// What the version says of itself, where people made the table.
    pub fn made(&self) -> Made {
        let configuration = self.pinned().eager.metadata().configuration();
        let key = configuration.get(KEY).and_then(|key| serde_json::from_str(key).ok());
        let since = configuration.get(SINCE).and_then(|since| DateTime::parse_from_rfc3339(since).ok());
        Made {
            owner: configuration.get(OWNER).cloned(),
            since: since.map(|since| since.to_utc()),
            key: key.unwrap_or_default(),
        }
    }

    /// Whether the table was dropped with this version: there is no table then, until somebody makes it anew.
    pub fn is_dropped(&self) -> bool {
        self.pinned().eager.metadata().configuration().contains_key(DROPPED)
    }
}

impl Staged {
    /// Says in the same commit what the table is from then on, and that it is there.
    ///
    /// # Errors
    /// When the table cannot be described.
    pub fn describe(&mut self, base: Option<&Snapshot>, made: &Made) -> Result<(), LakeError> {
        let made = made.clone();
        self.change_metadata(base, move |mut metadata| {
            metadata = match made.owner {
                Some(owner) => metadata.add_config_key(OWNER.to_owned(), owner)?,
                None => metadata.remove_config_key(OWNER)?,
            };
            metadata = match made.since {
                Some(since) => {
                    let since = since.to_rfc3339_opts(SecondsFormat::Micros, true);
                    metadata.add_config_key(SINCE.to_owned(), since)?
                }
                None => metadata.remove_config_key(SINCE)?,
            };
            let key = serde_json::Value::from(made.key).to_string();
            Ok(metadata.add_config_key(KEY.to_owned(), key)?.remove_config_key(DROPPED)?)
        })
    }

    /// Drops the table: takes out every row, and says so.
    ///
    /// # Errors
    /// When the table cannot be described.
    pub fn drop_table(base: &Snapshot) -> Result<Self, LakeError> {
        let operation = DeltaOperation::Write { mode: SaveMode::Overwrite, partition_by: None, predicate: None };
        let mut staged = Self { operation, ..Self::nothing() };
        staged.remove(base, |_| true);
        staged.change_metadata(Some(base), |metadata| {
            Ok(metadata.add_config_key(DROPPED.to_owned(), "true".to_owned())?)
        })?;
        Ok(staged)
    }

    /// Takes out every row.
    pub fn delete_all(base: &Snapshot) -> Self {
        let mut staged = Self { operation: DeltaOperation::Delete { predicate: None }, ..Self::nothing() };
        staged.remove(base, |_| true);
        staged
    }

    fn change_metadata(
        &mut self,
        base: Option<&Snapshot>,
        change: impl FnOnce(Metadata) -> Result<Metadata, deltalake::DeltaTableError>,
    ) -> Result<(), LakeError> {
        let failed = |cause| LakeError::delta("cannot describe a table", cause);
        if let Some(create) = &mut self.create {
            create.metadata = change(create.metadata.clone()).map_err(failed)?;
            return Ok(());
        }
        let staged = self.actions.iter_mut().find_map(|action| match action {
            Action::Metadata(metadata) => Some(metadata),
            _ => None,
        });
        match (staged, base) {
            (Some(metadata), _) => *metadata = change(metadata.clone()).map_err(failed)?,
            (None, Some(base)) => {
                let metadata = base.pinned().eager.metadata().clone();
                self.actions.insert(0, Action::Metadata(change(metadata).map_err(failed)?));
            }
            (None, None) => return Err(LakeError::new(ErrorKind::Internal, "there is no table to describe")),
        }
        Ok(())
    }
}

impl Lake {
    /// The tables of a schema whose folders are there, dropped ones and those being made included, in order.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn tables_in(&self, schema: &str) -> Result<BTreeSet<TableName>, LakeError> {
        let folder = self.0.place.folder(schema);
        let listed = match self.0.place.store().list_with_delimiter(Some(&folder)).await {
            Ok(listed) => listed.common_prefixes,
            Err(object_store::Error::NotFound { .. }) => Vec::new(),
            Err(cause) => return Err(LakeError::store(format!("cannot list {folder}"), cause)),
        };
        Ok(listed.iter().filter_map(|path| TableName::new(schema, path.filename()?).ok()).collect())
    }
}
