//! What happened to each file since the last load, and what that means in each mode. The table in `docs/files.md`
//! says the same in words; change both together.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::listing::{ListedFile, Place};
use crate::model::{CarriedFile, FileStatus, LoadMode};

/// What a listing and what is known say together, before any file was opened.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// Files to be read, for all that is known by now.
    pub(super) candidates: Vec<Candidate>,
    /// Known files that are not there any more.
    pub(super) vanished: Vec<CarriedFile>,
    /// Files left for next time because they were written to a moment ago.
    pub(super) growing: usize,
}

/// A file that is not simply as it was.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) file: ListedFile,
    pub(super) change: Change,
}

/// What is known of a file that is not as it was.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// Nobody knows its name.
    New,
    /// Nobody knows its name, but a known file of that size is gone: its content tells whether it was renamed.
    NewOrRenamed,
    /// Its name is known and its content is another.
    Changed(Box<CarriedFile>),
    /// Its name is known, its size is the same and its date another: its content tells.
    ChangedOrTouched(Box<CarriedFile>),
    /// Its content is known to be the same.
    Touched(Box<CarriedFile>),
}

/// What is to be done with a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// Its rows are read. In mode `mirror` those of its earlier content go.
    Read { replaces: bool },
    /// Nothing is read, and this is recorded.
    Record(Vec<CarriedFile>),
    /// It is not taken, with the reason.
    Refuse(CarriedFile, String),
}

impl Change {
    /// Whether the content must be known to tell what happened.
    pub(super) fn needs_hash(&self) -> bool {
        matches!(self, Self::NewOrRenamed | Self::ChangedOrTouched(_))
    }
}

/// Holds a listing against what is known. Costs one look-up per file.
pub(super) fn compare(
    listed: Vec<ListedFile>,
    known: &HashMap<String, CarriedFile>,
    again: bool,
    settle: impl Fn(usize) -> Duration,
    now: DateTime<Utc>,
) -> Comparison {
    let mut comparison = Comparison::default();
    let mut there = 0;
    let mut candidates = Vec::new();
    for file in &listed {
        let entry = known.get(&file.path);
        there += usize::from(entry.is_some_and(|entry| entry.status != FileStatus::Removed));
        if entry.is_some_and(|entry| is_same_look(file, entry) && !is_tried_again(entry, again)) {
            continue;
        }
        if is_growing(file, settle(file.block), now) {
            comparison.growing += 1;
            continue;
        }
        let change = match entry {
            Some(entry) if entry.status != FileStatus::Removed && !is_empty_handed(entry) => change_of(file, entry),
            _ => Change::New,
        };
        candidates.push(Candidate { file: file.clone(), change });
    }
    let present = known.values().filter(|entry| entry.status != FileStatus::Removed).count();
    if there < present {
        let paths: HashSet<&str> = listed.iter().map(|file| file.path.as_str()).collect();
        let gone =
            known.values().filter(|entry| entry.status != FileStatus::Removed && !paths.contains(entry.path.as_str()));
        comparison.vanished = gone.cloned().collect();
        comparison.vanished.sort_by(|a, b| a.path.cmp(&b.path));
    }
    let gone_sizes: HashSet<u64> =
        comparison.vanished.iter().filter(|entry| has_rows(entry)).map(|entry| entry.size).collect();
    for candidate in &mut candidates {
        if matches!(candidate.change, Change::New) && gone_sizes.contains(&candidate.file.size) {
            candidate.change = Change::NewOrRenamed;
        }
    }
    candidates.sort_by(|a, b| (a.file.modified, &a.file.path).cmp(&(b.file.modified, &b.file.path)));
    comparison.candidates = candidates;
    comparison
}

/// Says what is to be done with a candidate whose content is known as far as its change asks for it. A vanished
/// file whose content came back under another name is taken out of `vanished`.
pub(super) fn decide(
    candidate: &Candidate,
    hash: Option<&str>,
    vanished: &mut Vec<CarriedFile>,
    mode: LoadMode,
) -> Action {
    let file = &candidate.file;
    match &candidate.change {
        Change::New => Action::Read { replaces: false },
        Change::NewOrRenamed => {
            let old = vanished.iter().position(|old| has_rows(old) && Some(old.content_hash.as_str()) == hash);
            match old {
                Some(old) => {
                    let old = vanished.remove(old);
                    let moved = carried(file, &old, FileStatus::Renamed);
                    // The old name is free: a file that comes under it is a new one.
                    let left =
                        CarriedFile { status: FileStatus::Removed, rows: 0, rejected: 0, data_files: vec![], ..old };
                    Action::Record(vec![moved, left])
                }
                None => Action::Read { replaces: false },
            }
        }
        Change::Touched(old) => Action::Record(vec![carried(file, old, FileStatus::Touched)]),
        Change::ChangedOrTouched(old) if hash == Some(old.content_hash.as_str()) => {
            Action::Record(vec![carried(file, old, FileStatus::Touched)])
        }
        Change::Changed(old) | Change::ChangedOrTouched(old) => match mode {
            // What is recorded keeps the hash of the content that was loaded: were it put back, it would be known.
            LoadMode::Append => Action::Refuse(carried(file, old, FileStatus::Refused), CHANGED_IN_APPEND.to_owned()),
            LoadMode::Upsert | LoadMode::Replace => Action::Read { replaces: false },
            LoadMode::Mirror => Action::Read { replaces: true },
        },
    }
}

const CHANGED_IN_APPEND: &str = "the file was loaded before and has other content now; in mode `append` each file is \
    loaded once, and the rows loaded from it stay as they are. Give new content a new file name, or use mode `upsert` \
    (rows replace those with their key) or `mirror` (the table is what the files are)";

fn change_of(file: &ListedFile, entry: &CarriedFile) -> Change {
    let entry = Box::new(entry.clone());
    let is_object = matches!(file.place, Place::Object(..));
    if is_object && file.e_tag.is_some() && file.e_tag == entry.e_tag && file.size == entry.size {
        return Change::Touched(entry);
    }
    // The entry of a refused file has the look of what was refused and the hash of what was loaded.
    if file.size == entry.size || entry.status == FileStatus::Refused {
        Change::ChangedOrTouched(entry)
    } else {
        Change::Changed(entry)
    }
}

fn is_same_look(file: &ListedFile, entry: &CarriedFile) -> bool {
    let same_tag = file.e_tag == entry.e_tag || file.e_tag.is_none() || entry.e_tag.is_none();
    file.size == entry.size && file.modified == entry.modified && same_tag
}

/// Files that are looked at again though they look as they did: those that were taken out, and those that could
/// not be read when the definition was another.
fn is_tried_again(entry: &CarriedFile, again: bool) -> bool {
    entry.status == FileStatus::Removed || again && is_empty_handed(entry)
}

/// Refused, and no row of it was ever taken.
fn is_empty_handed(entry: &CarriedFile) -> bool {
    entry.status == FileStatus::Refused && entry.rows == 0
}

fn has_rows(entry: &CarriedFile) -> bool {
    !is_empty_handed(entry)
}

/// Written to within the time a file must be left alone. A date that far in the future is no sign of writing.
fn is_growing(file: &ListedFile, settle: Duration, now: DateTime<Utc>) -> bool {
    if !matches!(file.place, Place::Local(_)) {
        return false;
    }
    let age = now.signed_duration_since(file.modified).abs();
    age.to_std().is_ok_and(|age| age < settle)
}

/// An entry with a file's look and another's content.
fn carried(file: &ListedFile, old: &CarriedFile, status: FileStatus) -> CarriedFile {
    CarriedFile {
        path: file.path.clone(),
        size: file.size,
        e_tag: file.e_tag.clone(),
        modified: file.modified,
        content_hash: old.content_hash.clone(),
        rows: old.rows,
        rejected: old.rejected,
        status,
        data_files: old.data_files.clone(),
    }
}
