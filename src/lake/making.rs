//! Tables in the making: the first load of a large table, and a load of everything anew.
//!
//! The rows go to a Delta table of their own in a folder below the table's, by attempts like any others, so that a
//! load that is cut off goes on where its last attempt landed. When that table is whole, one commit of the table
//! itself takes its files over; until then readers keep what was there. `<table>/_lakegate/making.json` names the
//! folder and the attempt it will follow: when the table has moved on, what was made is of no use any more.

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use deltalake::kernel::Action;

use crate::error::ErrorKind;
use crate::lake::store::{self, TablePlace};
use crate::lake::table::TableState;
use crate::lake::{Attempt, LakeError, LakeTable, OWN_FOLDER, Snapshot, Staged, schema};

/// What stands in `making.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    folder: String,
    /// The newest attempt of the table when this was begun.
    follows: Option<i64>,
}

impl Begun {
    /// With what the paths of its data files begin.
    pub(super) fn prefix(&self) -> String {
        format!("{}/", self.folder)
    }
}

/// What is in the making for a table, whether it is of use or not.
pub(super) async fn begun(place: &TablePlace) -> Result<Option<Begun>, LakeError> {
    let bytes = store::read(place.store().as_ref(), &note(place)).await?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

fn note(place: &TablePlace) -> Path {
    place.own(&["making.json"])
}

impl Attempt {
    /// The table in the making, where one was begun that follows on what is there.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn begun_making(&self) -> Result<Option<LakeTable>, LakeError> {
        let place = self.table().place();
        let begun = begun(place).await?.filter(|begun| begun.follows == self.chain().attempt());
        Ok(begun.map(|begun| self.table().beside(TableState::new(place.making(&begun.folder)))))
    }

    /// The table in the making that this attempt is to take over: the one begun before, where it still follows on
    /// what is there, or a new one.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn making(&self) -> Result<LakeTable, LakeError> {
        let place = self.table().place();
        let follows = self.chain().attempt();
        let begun = match begun(place).await? {
            Some(begun) if begun.follows == follows => begun,
            older => {
                if let Some(older) = older {
                    forget(place, &older).await?;
                }
                let begun = Begun { folder: format!("whole-{}", Uuid::now_v7().simple()), follows };
                let text = serde_json::to_vec(&begun).map_err(|cause| {
                    LakeError::because(ErrorKind::Internal, "cannot write down what is in the making", cause)
                })?;
                let path = note(place);
                let put = place.store().put(&path, text.into()).await;
                put.map_err(|cause| LakeError::store(format!("cannot write {path}"), cause))?;
                begun
            }
        };
        Ok(self.table().beside(TableState::new(place.making(&begun.folder))))
    }

    /// Takes the files of a table in the making in the place of all that is there.
    ///
    /// # Errors
    /// When the columns cannot be written down.
    pub fn adopt(&self, made: &Snapshot, key: &[String]) -> Result<Staged, LakeError> {
        let mut staged = Staged {
            operation: deltalake::protocol::DeltaOperation::Write {
                mode: deltalake::protocol::SaveMode::Overwrite,
                partition_by: None,
                predicate: None,
            },
            rows_written: made.rows().unwrap_or(0),
            adopts: true,
            ..Staged::nothing()
        };
        let columns = made.schema();
        match self.snapshot() {
            None => staged.create = Some(schema::creation(self.table().name(), &columns, key)?),
            Some(snapshot) => {
                staged.actions = schema::actions(snapshot, &columns, key)?;
                staged.remove(snapshot, |_| true);
            }
        }
        let folder = made.place().path().filename().unwrap_or_default().to_owned();
        for view in made.pinned().eager.log_data().iter() {
            #[expect(deprecated, reason = "the log's own entry of a file is what is to be written again")]
            let mut add = view.add_action();
            add.path = format!("{folder}/{}", add.path);
            staged.actions.push(Action::Add(add));
            staged.bytes_written += u64::try_from(view.size()).unwrap_or(0);
        }
        Ok(staged)
    }
}

/// Removes the log and the records of a table in the making. Its data files may be the table's by now; those that are
/// not go with the table's other orphans.
async fn forget(place: &TablePlace, begun: &Begun) -> Result<(), LakeError> {
    let folder = place.making(&begun.folder);
    for own in ["_delta_log", OWN_FOLDER] {
        let path = folder.path().clone().join(own);
        let listed: Vec<_> = match place.store().list(Some(&path)).try_collect().await {
            Err(object_store::Error::NotFound { .. }) => Vec::new(),
            listed => listed.map_err(|cause| LakeError::store(format!("cannot list {path}"), cause))?,
        };
        for object in listed {
            store::discard(place.store().as_ref(), &object.location).await;
        }
    }
    Ok(())
}

impl LakeTable {
    /// Forgets what is in the making: it was taken over, or is to begin anew. Files that no version names go with the
    /// table's other orphans.
    ///
    /// # Errors
    /// When the store does not answer; what is left then is forgotten by the next whole load.
    pub async fn forget_making(&self) -> Result<(), LakeError> {
        let place = self.place();
        let Some(begun) = begun(place).await? else { return Ok(()) };
        store::discard(place.store().as_ref(), &note(place)).await;
        forget(place, &begun).await
    }

    /// A handle of another state of the same table.
    fn beside(&self, state: TableState) -> Self {
        Self::new(Arc::clone(self.shared()), Arc::new(state))
    }
}
