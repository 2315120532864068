//! What landed: the attempts from the table's `txn` number back to the first.

use std::collections::HashMap;
use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use crate::error::{Classify, ErrorKind};
use crate::lake::LakeError;
use crate::lake::record::{self, Record, RejectsObject, Summary};
use crate::lake::rejects;
use crate::lake::store::TablePlace;
use crate::model::{CarriedFile, Reject};

/// After so many attempts their records are folded: reading them one by one costs a request each.
const FOLD_AFTER_ATTEMPTS: usize = 32;

/// Records are folded when they name more than one file in so many of those known: writing a summary then
/// costs as much as what it saves at the next reading.
const FOLD_AFTER_SHARE: usize = 4;

/// Fewer files than these are not worth a summary of their own.
const FOLD_AFTER_FILES: usize = 1_000;

/// Records read at the same time.
const READS_AT_ONCE: usize = 16;

/// What landed. Cheap to clone.
#[derive(Clone)]
pub struct Chain {
    place: TablePlace,
    folded: Option<Arc<Folded>>,
    nothing: Arc<HashMap<String, CarriedFile>>,
}

/// A chain up to one number, as it is kept in memory.
#[derive(Clone, Debug)]
pub(super) struct Folded {
    pub(super) number: i64,
    /// The Delta version as which `number` landed.
    pub(super) version: u64,
    epoch: Option<String>,
    position: Option<serde_json::Value>,
    schema_hash: String,
    definition_hash: String,
    files: Arc<HashMap<String, CarriedFile>>,
    rejects: Vec<RejectsObject>,
    /// Numbers on the chain whose records may still lie about.
    pub(super) landed: Vec<i64>,
    /// Attempts and files since the newest summary.
    unfolded: (usize, usize),
}

impl Chain {
    pub(super) fn new(place: TablePlace, folded: Option<Arc<Folded>>) -> Self {
        Self { place, folded, nothing: Arc::default() }
    }

    /// How far the source has been read, in the source's own words; none before the first attempt.
    pub fn position(&self) -> Option<&serde_json::Value> {
        self.folded.as_ref()?.position.as_ref()
    }

    /// The newest entry of every file, by path.
    pub fn files(&self) -> &Arc<HashMap<String, CarriedFile>> {
        self.folded.as_ref().map_or(&self.nothing, |folded| &folded.files)
    }

    /// The number of the attempt that landed last.
    pub fn attempt(&self) -> Option<i64> {
        self.folded.as_ref().map(|folded| folded.number)
    }

    /// The hash of the definition the last attempt was made with.
    pub fn definition_hash(&self) -> Option<&str> {
        self.folded.as_ref().map(|folded| folded.definition_hash.as_str())
    }

    /// The life of the source that [`Chain::position`] belongs to, where the source names it.
    pub fn epoch(&self) -> Option<&str> {
        self.folded.as_ref()?.epoch.as_deref()
    }

    /// Rows that did not fit, each with the number of its attempt, newest attempt first.
    pub fn rejects(&self) -> BoxStream<'static, Result<(i64, Reject), LakeError>> {
        let objects = self.folded.as_ref().map_or_else(Vec::new, |folded| folded.rejects.clone());
        rejects::read_all(self.place.clone(), objects.into_iter().rev().collect())
    }

    /// How many rows did not fit, over all attempts that landed.
    pub fn rejected_rows(&self) -> u64 {
        self.folded.as_ref().map_or(0, |folded| folded.rejects.iter().map(|object| object.count).sum())
    }

    pub(super) fn folded(&self) -> Option<&Arc<Folded>> {
        self.folded.as_ref()
    }
}

impl Folded {
    /// The chain that ends in `number`. `known` is what was read of the table before.
    pub(super) async fn load(
        place: &TablePlace,
        number: i64,
        known: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, LakeError> {
        if let Some(known) = known.filter(|known| known.number == number) {
            return Ok(Arc::clone(known));
        }
        if let Some(known) = known.filter(|known| known.number < number)
            && let Ok(Some(found)) = Self::walk(place, number, Some(Arc::clone(known))).await
        {
            return Ok(found);
        }
        // Somebody may fold and remove records while they are read here: look twice before complaining.
        match Self::load_anew(place, number).await {
            Err(error) if error.kind() == ErrorKind::DataLoss => Self::load_anew(place, number).await,
            result => result,
        }
    }

    async fn load_anew(place: &TablePlace, number: i64) -> Result<Arc<Self>, LakeError> {
        let summaries = record::summary_numbers(place).await?;
        let newest = summaries.into_iter().rfind(|summary| *summary <= number);
        let start = match newest {
            Some(newest) => Summary::read(place, newest).await?.map(|summary| Arc::new(Self::from(summary))),
            None => None,
        };
        Self::walk(place, number, start).await?.ok_or_else(|| {
            let text = format!(
                "the records of table {} do not lead back to their summary; restore {} from a copy of the lake",
                place.name(),
                place.own(&[])
            );
            LakeError::new(ErrorKind::DataLoss, text)
        })
    }

    /// Follows the records from `number` back to `start`; none when they do not lead there.
    async fn walk(place: &TablePlace, number: i64, start: Option<Arc<Self>>) -> Result<Option<Arc<Self>>, LakeError> {
        let floor = start.as_ref().map(|start| start.number);
        let mut records = Self::read_between(place, floor, number).await?;
        let mut path = Vec::new();
        let mut next = Some(number);
        while next != floor {
            let Some(wanted) = next.filter(|next| Some(*next) > floor) else { return Ok(None) };
            let record = records.remove(&wanted).ok_or_else(|| missing(place, wanted))?;
            next = record.base;
            path.push(record);
        }
        let mut folded = start.map(Arc::unwrap_or_clone);
        while let Some(record) = path.pop() {
            folded = Some(match folded {
                Some(folded) => folded.with(record),
                None => Self::first(record),
            });
        }
        Ok(folded.map(Arc::new))
    }

    async fn read_between(
        place: &TablePlace,
        floor: Option<i64>,
        number: i64,
    ) -> Result<HashMap<i64, Record>, LakeError> {
        if floor == Some(number) {
            return Ok(HashMap::new());
        }
        let mut wanted = record::numbers(place).await?;
        wanted.retain(|found| Some(*found) > floor && *found <= number);
        let reads: Vec<_> = wanted.into_iter().map(|wanted| Record::read(place, wanted)).collect();
        let records: Vec<_> = stream::iter(reads).buffer_unordered(READS_AT_ONCE).try_collect().await?;
        Ok(records.into_iter().flatten().map(|record| (record.number, record)).collect())
    }

    /// The chain whose first attempt is `record`.
    pub(super) fn first(record: Record) -> Self {
        let empty = Self {
            number: record.number,
            version: record.target_version(),
            epoch: None,
            position: None,
            schema_hash: String::new(),
            definition_hash: String::new(),
            files: Arc::default(),
            rejects: Vec::new(),
            landed: Vec::new(),
            unfolded: (0, 0),
        };
        empty.with(record)
    }

    /// The chain with one more attempt at its end.
    pub(super) fn with(mut self, record: Record) -> Self {
        self.number = record.number;
        self.version = record.target_version();
        self.epoch = record.epoch;
        self.position = record.position;
        self.schema_hash = record.schema_hash;
        self.definition_hash = record.definition_hash;
        self.unfolded.0 += 1;
        self.unfolded.1 += record.files.len() + record.forgotten_files.len();
        if !record.files.is_empty() || !record.forgotten_files.is_empty() {
            let files = Arc::make_mut(&mut self.files);
            for path in &record.forgotten_files {
                files.remove(path);
            }
            files.extend(record.files.into_iter().map(|file| (file.path.clone(), file)));
        }
        self.rejects.extend(record.rejects);
        self.landed.push(record.number);
        self
    }

    /// Whether it is time to fold the records into a summary.
    pub(super) fn is_long(&self) -> bool {
        let (attempts, files) = self.unfolded;
        let worth = FOLD_AFTER_FILES.max(self.files.len() / FOLD_AFTER_SHARE);
        attempts >= FOLD_AFTER_ATTEMPTS || (attempts > 1 && files >= worth)
    }

    /// The chain as a summary says it.
    pub(super) fn summary(&self) -> Summary {
        let mut files: Vec<CarriedFile> = self.files.values().cloned().collect();
        files.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        Summary {
            format: record::format(),
            number: self.number,
            version: self.version,
            epoch: self.epoch.clone(),
            position: self.position.clone(),
            schema_hash: self.schema_hash.clone(),
            definition_hash: self.definition_hash.clone(),
            files,
            rejects: self.rejects.clone(),
            landed: self.landed.clone(),
        }
    }

    /// The same chain as a summary will give it; `existing` are the numbers whose records still lie about.
    pub(super) fn as_folded(&self, existing: &[i64]) -> Self {
        let landed = self.landed.iter().copied().filter(|number| existing.contains(number)).collect();
        Self { landed, unfolded: (0, 0), ..self.clone() }
    }

    /// The rejects that are visible.
    pub(super) fn rejects(&self) -> &[RejectsObject] {
        &self.rejects
    }
}

impl From<Summary> for Folded {
    fn from(summary: Summary) -> Self {
        let files = summary.files.into_iter().map(|file| (file.path.clone(), file)).collect();
        Self {
            number: summary.number,
            version: summary.version,
            epoch: summary.epoch,
            position: summary.position,
            schema_hash: summary.schema_hash,
            definition_hash: summary.definition_hash,
            files: Arc::new(files),
            rejects: summary.rejects,
            landed: summary.landed,
            unfolded: (0, 0),
        }
    }
}

fn missing(place: &TablePlace, number: i64) -> LakeError {
    let text = format!(
        "table {} says that attempt {number} landed, but its record is not in {}; restore it from a copy of the \
         lake, or move the table's folder away to load it anew",
        place.name(),
        place.own(&["attempts"]),
    );
    LakeError::new(ErrorKind::DataLoss, text)
}
