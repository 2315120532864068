//! What is done with rows in each mode while they come.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use deltalake::kernel::Add;
use futures::StreamExt;

use crate::error::ErrorKind;
use crate::lake::LakeError;
use crate::lake::apply::Apply;
use crate::lake::schema::{Conform, Evolution};
use crate::lake::sort::{KeyOrder, sort};
use crate::lake::writer::data_files::DataFiles;
use crate::lake::writer::encoders::{Encoders, Pipe, encode};
use crate::lake::writer::{RewriteEstimate, WritePlan, WriterPlace};
use crate::model::{ChangeBatch, ChangeKind, KeyRange, LoadMode};

/// The tasks that take rows.
pub(super) enum Work {
    /// Rows without order, encoded side by side.
    Loose(Box<Encoders>),
    /// Rows sorted by key before they are encoded.
    Sorted(Pipe<Vec<Add>>),
    /// Rows of each source file in data files of their own.
    PerFile(Box<PerFile>),
    /// Rows that take the place of those with their key.
    Keyed(Box<Apply>),
}

/// What the tasks made.
#[derive(Default)]
pub(super) struct Done {
    /// New data files.
    pub(super) adds: Vec<Add>,
    /// New data files by source file.
    pub(super) by_file: BTreeMap<usize, Vec<String>>,
    /// Places in the log of the data files whose rows stand in new ones now, or are gone.
    pub(super) removed: HashSet<usize>,
    /// Rows written for the change, where not all that came were.
    pub(super) rows: Option<u64>,
}

impl Work {
    /// Starts what the plan asks for.
    pub(super) fn begin(
        place: &WriterPlace,
        plan: &WritePlan,
        evolution: &Evolution,
        files: &DataFiles,
    ) -> Result<Self, LakeError> {
        let order = key_order(plan, evolution)?;
        match (plan.mode, order) {
            (LoadMode::Upsert, Some(order)) => {
                let base = place.snapshot.clone().filter(|_| !plan.reload);
                Ok(Self::Keyed(Box::new(Apply::begin(place, base, plan, evolution, order)?)))
            }
            (LoadMode::Upsert, None) => {
                let text =
                    format!("table {}: mode upsert needs a key; name its columns in [table] key", place.place.name());
                Err(LakeError::new(ErrorKind::InvalidInput, text))
            }
            (LoadMode::Mirror, _) => Ok(Self::PerFile(Box::new(PerFile::new(files.unsorted())))),
            (LoadMode::Append | LoadMode::Replace, None) => {
                Ok(Self::Loose(Box::new(Encoders::for_this_runtime(files.clone()))))
            }
            (LoadMode::Append | LoadMode::Replace, Some(order)) => {
                Ok(Self::Sorted(sorted(place, evolution, order, files)))
            }
        }
    }

    /// Takes rows.
    pub(super) async fn write(&mut self, conform: &Conform, change: ChangeBatch) -> Result<(), LakeError> {
        let present = matches!(change.kind, ChangeKind::Present | ChangeKind::PresentKeys);
        match self {
            Self::Loose(_) | Self::Sorted(_) | Self::PerFile(_) if present => Err(only_by_key()),
            Self::Loose(encoders) => encoders.write(conform.rows(&change.rows)?).await,
            Self::Sorted(pipe) => pipe.write(conform.rows(&change.rows)?).await,
            Self::PerFile(per_file) => per_file.write(conform, change).await,
            Self::Keyed(apply) => apply.write(conform, &change).await,
        }
    }

    /// Takes note that all rows in a range came, or will come.
    pub(super) fn complete(&mut self, range: &KeyRange) -> Result<(), LakeError> {
        match self {
            Self::Keyed(apply) => apply.complete(range),
            _ => Err(only_by_key()),
        }
    }

    /// What a change by key would cost.
    pub(super) async fn prepare(&mut self) -> Result<RewriteEstimate, LakeError> {
        match self {
            Self::Keyed(apply) => apply.prepare().await,
            _ => Ok(RewriteEstimate::default()),
        }
    }

    /// Completes all files.
    pub(super) async fn finish(self, files: &DataFiles) -> Result<Done, LakeError> {
        match self {
            Self::Loose(encoders) => Ok(Done { adds: encoders.finish().await?, ..Done::default() }),
            Self::Sorted(pipe) => Ok(Done { adds: pipe.finish().await?, ..Done::default() }),
            Self::PerFile(per_file) => per_file.finish().await,
            Self::Keyed(apply) => {
                let applied = apply.finish(files).await?;
                Ok(Done { adds: applied.adds, removed: applied.removed, rows: Some(applied.rows), ..Done::default() })
            }
        }
    }

    /// Gives up; complete files stay until they are discarded.
    pub(super) async fn abort(self) {
        match self {
            Self::Loose(encoders) => encoders.abort().await,
            Self::Sorted(pipe) => pipe.abort().await,
            Self::PerFile(per_file) => per_file.abort().await,
            Self::Keyed(apply) => apply.abort().await,
        }
    }
}

fn only_by_key() -> LakeError {
    let text = "what is present can be compared only with a table that has a key, and in mode upsert";
    LakeError::new(ErrorKind::Internal, text)
}

fn key_order(plan: &WritePlan, evolution: &Evolution) -> Result<Option<KeyOrder>, LakeError> {
    let places = plan.key.iter().map(|key| evolution.schema.index_of(key));
    let places = places
        .collect::<Result<Vec<_>, _>>()
        .map_err(|cause| LakeError::because(ErrorKind::InvalidInput, "a key column is not among the columns", cause))?;
    for place in &places {
        let field = evolution.schema.field(*place);
        if field.data_type().is_nested() {
            let text = format!("column `{}` cannot be a key: it is {}", field.name(), field.data_type());
            return Err(LakeError::new(ErrorKind::InvalidInput, text));
        }
    }
    Ok(KeyOrder::new(&evolution.schema, places, &plan.folding))
}

fn sorted(place: &WriterPlace, evolution: &Evolution, order: KeyOrder, files: &DataFiles) -> Pipe<Vec<Add>> {
    let (environment, table, open) = (Arc::clone(&place.environment), place.place.name().clone(), files.begin());
    Pipe::start(&evolution.schema, move |rows, stop| async move {
        let what = move |cause| LakeError::rows(format!("cannot sort the rows of table {table}"), cause);
        let sorted = sort(&environment, &order, rows);
        encode(open, sorted.map(move |rows| rows.map_err(what.clone())).boxed(), stop).await
    })
}

/// Data files that each hold rows of one source file only.
pub(super) struct PerFile {
    files: DataFiles,
    open: Option<(usize, Encoders)>,
    done: Done,
}

impl PerFile {
    fn new(files: DataFiles) -> Self {
        Self { files, open: None, done: Done::default() }
    }

    async fn write(&mut self, conform: &Conform, change: ChangeBatch) -> Result<(), LakeError> {
        let Some(file) = change.file else {
            return Err(LakeError::new(ErrorKind::Internal, "mode mirror needs to know which file rows come from"));
        };
        if self.open.as_ref().is_none_or(|(open, _)| *open != file) {
            self.complete().await?;
        }
        let (_, encoders) = self.open.get_or_insert_with(|| (file, Encoders::for_this_runtime(self.files.clone())));
        encoders.write(conform.rows(&change.rows)?).await
    }

    async fn complete(&mut self) -> Result<(), LakeError> {
        let Some((file, encoders)) = self.open.take() else { return Ok(()) };
        let adds = encoders.finish().await?;
        self.done.by_file.entry(file).or_default().extend(adds.iter().map(|add| add.path.clone()));
        self.done.adds.extend(adds);
        Ok(())
    }

    async fn finish(mut self) -> Result<Done, LakeError> {
        self.complete().await?;
        Ok(self.done)
    }

    async fn abort(self) {
        if let Some((_, encoders)) = self.open {
            encoders.abort().await;
        }
    }
}
