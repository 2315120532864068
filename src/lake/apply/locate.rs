//! Which data files changes by key have to meet, and which of them are written anew together.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};
use datafusion::common::Column;
use datafusion::physical_optimizer::pruning::PruningStatistics;

use crate::lake::Snapshot;
use crate::lake::apply::spool::{locate_end, removes};
use crate::lake::bounds::SafeBounds;
use crate::lake::sort::{KeyOrder, SortedBy};
use crate::model::KeyFolding;

/// A data file below this size is written anew for keys above it instead of being left alone: many loads of a few
/// rows then do not make many files.
const TINY_BYTES: u64 = 1 << 20;

/// Times the change's own bytes that a last file may have to be written anew for keys above it.
const TAIL_FACTOR: u64 = 20;

/// The bounds of one column of a key in one file, in the form rows compare by.
type Bounds = (OwnedRow, OwnedRow);

/// Meets sorted changes with the bounds of data files.
pub(super) struct Locator {
    order: KeyOrder,
    converters: Vec<RowConverter>,
    /// Files with bounds of the first key column, by their lower bound.
    files: Vec<Located>,
    /// For each of them which file, it or one before it, reaches highest.
    reach: Vec<usize>,
    /// Files without such bounds: they meet every key.
    boundless: Vec<usize>,
    sizes: Vec<u64>,
    everything: bool,
    any: bool,
    beyond: bool,
}

struct Located {
    /// Where in the log the file stands.
    place: usize,
    first: Bounds,
    others: Vec<Option<Bounds>>,
    touched: bool,
}

/// What is written anew, in the order of keys.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Each run takes the changes up to its bound that runs before it left.
    pub(super) runs: Vec<Run>,
    rewrite_bytes: u64,
}

/// Neighbouring files that are written anew together.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// Where in the log they stand, by their lower bound; none for keys that no file is near.
    pub(super) files: Vec<RunFile>,
    /// The greatest first key column of changes that go here; all that are left where there is none.
    pub(super) upto: Option<OwnedRow>,
}

/// A file of a run.
#[derive(Clone, Debug)]
pub(super) struct RunFile {
    /// Where in the log it stands.
    pub(super) place: usize,
    /// Bounds of its first key column.
    pub(super) bounds: Option<Bounds>,
}

impl Plan {
    /// How many files are written anew, and their bytes.
    pub(super) fn cost(&self) -> (usize, u64) {
        (self.runs.iter().map(|run| run.files.len()).sum(), self.rewrite_bytes)
    }
}

impl Locator {
    /// Over the files of `base`; `everything` when all of them have to be written anew anyhow.
    pub(super) fn new(base: Option<&Snapshot>, schema: &Schema, order: &KeyOrder, everything: bool) -> Self {
        let fields: Vec<_> = order.columns().iter().map(|column| schema.field(*column)).collect();
        // A key of a type that has no row form was refused before.
        let converters: Vec<RowConverter> = fields
            .iter()
            .filter_map(|field| RowConverter::new(vec![SortField::new(field.data_type().clone())]).ok())
            .collect();
        let mut locator = Self {
            order: order.clone(),
            converters,
            files: Vec::new(),
            reach: Vec::new(),
            boundless: Vec::new(),
            sizes: Vec::new(),
            everything,
            any: false,
            beyond: false,
        };
        let Some(base) = base else { return locator };
        let pinned = base.pinned();
        locator.sizes = pinned.files().iter().map(|file| file.size).collect();
        let known = SafeBounds::new(pinned);
        let bounds: Vec<Vec<Option<Bounds>>> = fields
            .iter()
            .zip(&locator.converters)
            .enumerate()
            .map(|(place, (field, converter))| {
                let ends = match order.folding().get(place) {
                    Some(KeyFolding::Exact) | None => {
                        let column = Column::from_name(field.name());
                        known.min_values(&column).zip(known.max_values(&column))
                    }
                    // The log's own bounds are of values as they are, which is another order.
                    Some(_) if place == 0 => folded_bounds(base, &fields, order),
                    Some(_) => None,
                };
                let comparable = |ends: ArrayRef| cast(&ends, field.data_type()).ok();
                let found = ends.and_then(|(min, max)| comparable(min).zip(comparable(max)));
                found.and_then(|ends| pairs(converter, &ends).ok()).unwrap_or_default()
            })
            .collect();
        locator.place_files(&bounds);
        locator
    }

    fn place_files(&mut self, bounds: &[Vec<Option<Bounds>>]) {
        for place in 0..self.sizes.len() {
            let mut of_file = bounds.iter().map(|column| column.get(place).cloned().flatten());
            match of_file.next().flatten() {
                Some(first) => {
                    self.files.push(Located { place, first, others: of_file.collect(), touched: false });
                }
                None => self.boundless.push(place),
            }
        }
        self.files.sort_by(|a, b| a.first.0.cmp(&b.first.0));
        let mut highest = 0;
        for index in 0..self.files.len() {
            if self.files[index].first.1 > self.files[highest].first.1 {
                highest = index;
            }
            self.reach.push(highest);
        }
    }

    /// Takes the next changes in the order of keys, one per key.
    pub(super) fn see(&mut self, changes: &RecordBatch) -> Result<(), ArrowError> {
        let count = changes.num_rows();
        self.any |= count > 0;
        if count == 0 || !self.boundless.is_empty() {
            return Ok(());
        }
        let keys = self.order.keys(changes)?;
        let keys = keys.into_iter().zip(&self.converters).map(|(key, converter)| converter.convert_columns(&[key]));
        let keys = keys.collect::<Result<Vec<Rows>, _>>()?;
        let Some(first) = keys.first() else { return Ok(()) };
        let (least, greatest) = (first.row(0), first.row(count - 1));
        let mut met = vec![false; count];
        for file in &mut self.files {
            if file.first.0.row() > greatest {
                break;
            }
            if file.first.1.row() >= least {
                file.meet(&keys, count, &mut met);
            }
        }
        let removes = removes(changes);
        for row in (0..count).filter(|row| !met[*row] && !removes.value(*row)) {
            self.route(first, row);
        }
        Ok(())
    }

    /// A new key goes to the file whose range holds it or lies next above it, so that ranges do not grow.
    fn route(&mut self, keys: &Rows, row: usize) {
        let below = locate_end(self.reach.len(), |index| self.files[self.reach[index]].first.1.row() < keys.row(row));
        match self.reach.get(below) {
            Some(file) => self.files[*file].touched = true,
            None => self.beyond = true,
        }
    }

    /// Takes keys whose first column lies between two ends, the ends included.
    pub(super) fn see_range(&mut self, least: Option<&OwnedRow>, greatest: Option<&OwnedRow>) {
        self.any = true;
        for file in &mut self.files {
            let below = least.is_some_and(|least| file.first.1 < *least);
            let above = greatest.is_some_and(|greatest| file.first.0 > *greatest);
            file.touched |= !below && !above;
        }
    }

    /// Takes keys by their first column, sorted.
    pub(super) fn see_first(&mut self, keys: &[OwnedRow]) {
        self.any |= !keys.is_empty();
        for file in &mut self.files {
            let start = keys.partition_point(|key| *key < file.first.0);
            file.touched |= keys.get(start).is_some_and(|key| *key <= file.first.1);
        }
    }

    /// The files that the keys may stand in, by their lower bound.
    pub(super) fn met(self) -> Vec<RunFile> {
        let all = self.any && !self.boundless.is_empty();
        let met = self.files.into_iter().filter(|file| all || file.touched).map(Located::into_run);
        let boundless = self.boundless.into_iter().filter(|_| all).map(|place| RunFile { place, bounds: None });
        met.chain(boundless).collect()
    }

    /// What is written anew for changes of so many bytes.
    pub(super) fn plan(mut self, change_bytes: u64, target_file_size: u64) -> Plan {
        if self.everything || (self.any && !self.boundless.is_empty()) {
            return self.whole();
        }
        if !self.any {
            return Plan::default();
        }
        if self.beyond {
            self.touch_last(change_bytes, target_file_size);
        }
        let mut plan = Plan { runs: self.runs(), rewrite_bytes: 0 };
        plan.rewrite_bytes = plan.runs.iter().flat_map(|run| &run.files).map(|file| self.sizes[file.place]).sum();
        if self.beyond {
            let highest = self.reach.last().map(|highest| &self.files[*highest]);
            match plan.runs.last_mut().filter(|_| highest.is_some_and(|file| file.touched)) {
                Some(last) => last.upto = None,
                None => plan.runs.push(Run::default()),
            }
        }
        plan
    }

    fn whole(self) -> Plan {
        let mut files: Vec<RunFile> = self.files.into_iter().map(Located::into_run).collect();
        files.extend(self.boundless.into_iter().map(|place| RunFile { place, bounds: None }));
        let rewrite_bytes = self.sizes.iter().sum();
        Plan { runs: vec![Run { files, upto: None }], rewrite_bytes }
    }

    /// The file that reaches highest takes the keys above it, unless that would cost too much.
    fn touch_last(&mut self, change_bytes: u64, target_file_size: u64) {
        let Some(highest) = self.reach.last() else { return };
        let size = self.sizes[self.files[*highest].place];
        let cheap = size < target_file_size && size <= change_bytes.saturating_mul(TAIL_FACTOR);
        if size < TINY_BYTES || cheap {
            self.files[*highest].touched = true;
        }
    }

    /// Touched files that overlap, or that no untouched file stands between.
    fn runs(&mut self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let mut next_to_last = false;
        for file in std::mem::take(&mut self.files) {
            if !file.touched {
                next_to_last = false;
                self.files.push(file);
                continue;
            }
            let joins = |run: &&mut Run| next_to_last || run.upto.as_ref().is_some_and(|upto| file.first.0 <= *upto);
            let kept = Located { place: file.place, first: file.first.clone(), others: Vec::new(), touched: true };
            match runs.last_mut().filter(joins) {
                Some(run) => {
                    run.upto = run.upto.take().max(Some(file.first.1.clone()));
                    run.files.push(file.into_run());
                }
                None => runs.push(Run { upto: Some(file.first.1.clone()), files: vec![file.into_run()] }),
            }
            self.files.push(kept);
            next_to_last = true;
        }
        runs
    }
}

impl Located {
    /// Notes which changes may have their key in this file.
    fn meet(&mut self, keys: &[Rows], count: usize, met: &mut [bool]) {
        let Some(first) = keys.first() else { return };
        let start = locate_end(count, |row| first.row(row) < self.first.0.row());
        let end = locate_end(count, |row| first.row(row) <= self.first.1.row());
        for (row, met) in met.iter_mut().enumerate().take(end).skip(start) {
            let within = self.others.iter().zip(&keys[1..]).all(|(bounds, keys)| {
                bounds.as_ref().is_none_or(|(min, max)| keys.row(row) >= min.row() && keys.row(row) <= max.row())
            });
            if within {
                self.touched = true;
                *met = true;
            }
        }
    }

    fn into_run(self) -> RunFile {
        RunFile { place: self.place, bounds: Some(self.first) }
    }
}

/// The bounds of the first column of the key in each file, folded, as the files' own entries in the log tell.
fn folded_bounds(base: &Snapshot, fields: &[&Field], order: &KeyOrder) -> Option<(ArrayRef, ArrayRef)> {
    let key: Vec<String> = fields.iter().map(|field| field.name().clone()).collect();
    let sorted_by = SortedBy::new(&key, order.folding());
    let views = base.pinned().eager.log_data();
    let tags = views.iter().map(|view| {
        #[expect(deprecated, reason = "no other call shows a file's tags")]
        let add = view.add_action();
        add.tags
    });
    sorted_by.bounds(fields.first()?.data_type(), tags)
}

fn pairs(converter: &RowConverter, (min, max): &(ArrayRef, ArrayRef)) -> Result<Vec<Option<Bounds>>, ArrowError> {
    let lower = converter.convert_columns(&[Arc::clone(min)])?;
    let upper = converter.convert_columns(&[Arc::clone(max)])?;
    let pair =
        |row: usize| (min.is_valid(row) && max.is_valid(row)).then(|| (lower.row(row).owned(), upper.row(row).owned()));
    Ok((0..min.len()).map(pair).collect())
}
