//! The rows that are in the table now, file by file.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::row::OwnedRow;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::runtime_env::RuntimeEnv;
use deltalake::kernel::Add;
use futures::{StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use crate::error::chain_text;
use crate::lake::apply::locate::RunFile;
use crate::lake::schema::Conform;
use crate::lake::sort::{KeyOrder, SortedBy, adapt, sort};
use crate::lake::writer::{DataFiles, WriterPlace, encode};
use crate::lake::{LakeError, Snapshot, scan};

/// Files read at the same time while they are merged; more are sorted anew, because each holds a row group in memory.
const MOST_STREAMS: usize = 24;

/// Reads the files of a snapshot in the columns rows are to have.
#[derive(Clone)]
pub(in crate::lake) struct Base {
    snapshot: Arc<Snapshot>,
    environment: Arc<RuntimeEnv>,
    conform: Conform,
}

impl Base {
    pub(in crate::lake) fn new(snapshot: Arc<Snapshot>, environment: Arc<RuntimeEnv>, conform: Conform) -> Self {
        Self { snapshot, environment, conform }
    }

    /// The rows of files one after the other, in the order they stand in.
    pub(in crate::lake) fn read(&self, places: &[usize]) -> Result<SendableRecordBatchStream, LakeError> {
        let what = || format!("cannot read the data files of table {}", self.snapshot.place().name());
        let rows = scan::read(self.snapshot.pinned(), &self.environment, places, self.conform.schema())
            .map_err(|cause| LakeError::rows(what(), cause))?;
        let conform = self.conform.clone();
        let conformed = rows.map(move |rows| conform.rows(&rows?).map_err(|error| external(&error)));
        Ok(adapt(self.conform.schema(), conformed))
    }

    /// The rows of files as streams that are each sorted by `order`: files known to be sorted and apart from each
    /// other one after the other, everything else sorted anew.
    pub(super) fn sorted(
        &self,
        files: &[RunFile],
        key: &[String],
        order: &KeyOrder,
    ) -> Result<Vec<SendableRecordBatchStream>, LakeError> {
        let places: HashSet<usize> = files.iter().map(|file| file.place).collect();
        let sorted = self.sorted_files(&places, &SortedBy::new(key, order.folding()));
        let (ready, unready): (Vec<&RunFile>, Vec<&RunFile>) =
            files.iter().partition(|file| sorted.contains(&file.place));
        let (chains, unready) = chains(&ready, unready.iter().map(|file| file.place).collect());
        let mut streams = Vec::new();
        for chain in &chains {
            streams.push(self.read(chain)?);
        }
        if !unready.is_empty() {
            streams.push(sort(&self.environment, order, self.read(&unready)?));
        }
        Ok(streams)
    }

    /// Which of these files the log says are sorted so.
    pub(in crate::lake) fn sorted_files(&self, places: &HashSet<usize>, sorted_by: &SortedBy) -> HashSet<usize> {
        let views = self.snapshot.pinned().eager.log_data();
        let is_sorted = |place: usize, view: deltalake::kernel::LogicalFileView| {
            #[expect(deprecated, reason = "no other call shows a file's tags")]
            let add = view.add_action();
            sorted_by.is_stated(add.tags.as_ref()).then_some(place)
        };
        let wanted = views.iter().enumerate().filter(|(place, _)| places.contains(place));
        wanted.filter_map(|(place, view)| is_sorted(place, view)).collect()
    }
}

/// Splits sorted files, given by their lower bound, into as few chains as have no overlap within; files without
/// bounds make chains of their own. When that are too many, all are to be sorted anew.
fn chains(ready: &[&RunFile], mut unready: Vec<usize>) -> (Vec<Vec<usize>>, Vec<usize>) {
    let mut chains: Vec<(Vec<usize>, Option<OwnedRow>)> = Vec::new();
    for file in ready {
        let follows = |chain: &&mut (Vec<usize>, Option<OwnedRow>)| {
            let end = chain.1.as_ref().zip(file.bounds.as_ref());
            end.is_some_and(|(end, (lower, _))| end < lower)
        };
        let end = file.bounds.as_ref().map(|(_, upper)| upper.clone());
        match chains.iter_mut().find(follows) {
            Some(chain) => {
                chain.0.push(file.place);
                chain.1 = end;
            }
            None => chains.push((vec![file.place], end)),
        }
    }
    if chains.len() > MOST_STREAMS {
        unready.extend(ready.iter().map(|file| file.place));
        return (Vec::new(), unready);
    }
    (chains.into_iter().map(|(chain, _)| chain).collect(), unready)
}

/// Writes every file of `snapshot` but `gone` anew, each on its own, because a column became wider.
///
/// # Errors
/// When files cannot be read or written.
pub(crate) async fn rewrite(
    place: &WriterPlace,
    snapshot: &Arc<Snapshot>,
    conform: &Conform,
    files: &DataFiles,
    gone: &HashSet<usize>,
) -> Result<Vec<(usize, Vec<Add>)>, LakeError> {
    let base = Base::new(Arc::clone(snapshot), Arc::clone(&place.environment), conform.clone());
    let kept: HashSet<usize> = (0..snapshot.files()).filter(|index| !gone.contains(index)).collect();
    let sorted = files.sorted_by().map(|by| base.sorted_files(&kept, by)).unwrap_or_default();
    let mut rewritten = Vec::new();
    for index in 0..snapshot.files() {
        if !kept.contains(&index) {
            continue;
        }
        let open = if sorted.contains(&index) { files.begin() } else { files.unsorted().begin() };
        let table = snapshot.place().name().clone();
        let what = move |cause| LakeError::rows(format!("cannot rewrite a data file of table {table}"), cause);
        let rows = base.read(&[index])?.map_err(what).boxed();
        rewritten.push((index, encode(open, rows, CancellationToken::new()).await?));
    }
    Ok(rewritten)
}

/// An error of ours on its way through a stream of DataFusion's.
fn external(error: &LakeError) -> datafusion::error::DataFusionError {
    datafusion::error::DataFusionError::Execution(chain_text(error))
}
