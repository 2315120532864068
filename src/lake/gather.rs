//! Taking in small data files: what many small changes leave is written anew as few files, in the commit of a later one.

use std::collections::HashSet;
use std::sync::Arc;

use deltalake::kernel::{Action, Add};
use futures::TryStreamExt;

use crate::error::chain_text;
use crate::lake::apply::Base;
use crate::lake::schema::Conform;
use crate::lake::{Attempt, LakeError, Snapshot, Staged, TableWriter, WritePlan};
use crate::model::{ChangeBatch, ChangeKind};

/// Small files from which on they are taken in: each costs every reader a request or two.
const MANY_FILES: usize = 32;

/// Largest small file in bytes: so many of them are read and written within a second or two.
const SMALL_BYTES: u64 = 1 << 20;

/// The part of a full data file that is small, one of so many.
const SMALL_PART: u64 = 8;

impl Attempt {
    /// Where the table has many small data files, stages besides that their rows stand in few. `key` are the columns that
    /// name a row, where any do. Rows stay what they are, and so do older versions. What fails here stops nobody: the
    /// files stay as they are, and the next change tries again.
    pub async fn gather(&self, staged: &mut Staged, key: &[String]) {
        let Some(snapshot) = self.snapshot() else { return };
        // Next to anything but new rows it would have to know what else happens to the files and their columns.
        let only_adds = staged.create.is_none() && staged.actions.iter().all(|action| matches!(action, Action::Add(_)));
        let small = small_files(snapshot, self.table().target_file_size());
        if !only_adds || small.len() < MANY_FILES || !snapshot.pinned().partition_columns().is_empty() {
            return;
        }
        match self.written_anew(snapshot, &small, key).await {
            Ok(adds) => staged.take_in(snapshot, &small.into_iter().collect(), adds),
            Err(error) => {
                let error = chain_text(&error);
                tracing::warn!(table = %self.table().name(), error, "could not take in small data files");
            }
        }
    }

    /// Writes the rows of these files anew, in their order or that of the key.
    async fn written_anew(
        &self,
        snapshot: &Arc<Snapshot>,
        places: &[usize],
        key: &[String],
    ) -> Result<Vec<Add>, LakeError> {
        let mut writer = self.writer(WritePlan::append(&snapshot.schema(), key))?;
        if let Err(error) = self.pour(snapshot, places, &mut writer).await {
            writer.abort().await;
            return Err(error);
        }
        Ok(adds(writer.finish(&[]).await?).collect())
    }

    async fn pour(
        &self,
        snapshot: &Arc<Snapshot>,
        places: &[usize],
        writer: &mut TableWriter,
    ) -> Result<(), LakeError> {
        let table = self.table().name().clone();
        let conform = Conform::new(table.clone(), snapshot.schema());
        let base = Base::new(Arc::clone(snapshot), Arc::clone(self.table().environment()), conform);
        let what = move |cause| LakeError::rows(format!("cannot read a data file of table {table}"), cause);
        let mut batches = base.read(places)?.map_err(what);
        while let Some(rows) = batches.try_next().await? {
            writer.write(ChangeBatch { kind: ChangeKind::Append, rows, file: None }).await?;
        }
        Ok(())
    }
}

impl Staged {
    /// Puts new files in the place of these, with the same rows: whoever follows the changes of the table has none in them.
    fn take_in(&mut self, snapshot: &Snapshot, places: &HashSet<usize>, new: Vec<Add>) {
        let staged_before = self.actions.len();
        self.remove(snapshot, |place| places.contains(&place));
        self.add(new);
        for action in self.actions.iter_mut().skip(staged_before) {
            match action {
                Action::Add(add) => add.data_change = false,
                Action::Remove(remove) => remove.data_change = false,
                _ => {}
            }
        }
    }
}

/// The data files that staged changes add.
fn adds(staged: Staged) -> impl Iterator<Item = Add> {
    staged.actions.into_iter().filter_map(|action| match action {
        Action::Add(add) => Some(add),
        _ => None,
    })
}

/// The places in the log of small files, oldest first.
fn small_files(snapshot: &Snapshot, target_file_size: u64) -> Vec<usize> {
    let (files, most) = (snapshot.pinned().files(), SMALL_BYTES.min(target_file_size / SMALL_PART));
    snapshot.pinned().oldest_first().iter().copied().filter(|place| files[*place].size <= most).collect()
}
