//! What a scan tells DataFusion of each file, so that counts and minima are answered without reading rows.

use std::cmp::Ordering;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::UInt64Type;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, ColumnStatistics, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::physical_optimizer::pruning::PruningStatistics;
use object_store::ObjectMeta;

use crate::lake::bounds::{SafeBounds, are_exact};
use crate::lake::snapshot::{DataFile, Pinned};
use crate::lake::store::TablePlace;

/// A data file as a scan names it.
pub(crate) fn partitioned(place: &TablePlace, file: &DataFile) -> PartitionedFile {
    let location = file.path.parts().fold(place.path().clone(), |path, part| path.join(part));
    let object = ObjectMeta { location, last_modified: file.modified, size: file.size, e_tag: None, version: None };
    PartitionedFile::from(object).with_partition_values(file.partition.clone())
}

/// What is known of a whole version, worked out once.
#[derive(Debug, Default)]
pub(crate) struct FileStatistics(OnceLock<Arc<Statistics>>);

impl FileStatistics {
    /// What is known of the files `kept`, in the leaf's order of columns: of all files everything that is exact; of others
    /// rows and bytes, and what is exact of the columns `read`, which are told where all of their rows are of the answer.
    pub(crate) fn of(
        &self,
        pinned: &Pinned,
        columns: &TableSchema,
        kept: &[usize],
        read: Option<&[usize]>,
    ) -> Statistics {
        let files = pinned.files();
        if kept.len() == files.len() {
            return self.0.get_or_init(|| Arc::new(known_of(pinned, columns, kept, |_| true))).as_ref().clone();
        }
        match read {
            // Wide tables have many columns that nobody asks for, and this is worked out for each plan.
            Some(read) => known_of(pinned, columns, kept, |place| read.contains(&place)),
            None => sizes(pinned, columns, kept),
        }
    }
}

fn known_of(pinned: &Pinned, columns: &TableSchema, kept: &[usize], is_wanted: impl Fn(usize) -> bool) -> Statistics {
    let mut statistics = sizes(pinned, columns, kept);
    let bounds = SafeBounds::new(pinned);
    let fields = columns.table_schema().fields().iter().zip(&mut statistics.column_statistics);
    for (_, (field, known)) in fields.enumerate().filter(|(place, _)| is_wanted(*place)) {
        let column = Column::from_name(field.name());
        known.null_count = sum(bounds.null_counts(&column), kept);
        if are_exact(field.data_type()) {
            let places = || kept.iter().copied();
            known.min_value = extreme(bounds.min_values(&column), places(), Ordering::Less);
            known.max_value = extreme(bounds.max_values(&column), places(), Ordering::Greater);
        }
    }
    statistics
}

/// The sum of the counts of the files at these places; unknown as soon as one file has none.
fn sum(counts: Option<ArrayRef>, places: &[usize]) -> Precision<usize> {
    let Some(counts) = counts.as_ref().and_then(|counts| counts.as_primitive_opt::<UInt64Type>()) else {
        return Precision::Absent;
    };
    let known = |place: &usize| counts.is_valid(*place).then(|| usize::try_from(counts.value(*place)).ok()).flatten();
    places.iter().map(known).sum::<Option<usize>>().map_or(Precision::Absent, Precision::Exact)
}

/// Between which values those of a column of the files `kept` are, as far as that is known.
pub(crate) fn bounds_of(pinned: &Pinned, column: &str, kept: &[usize]) -> ColumnStatistics {
    let (bounds, column) = (SafeBounds::new(pinned), Column::from_name(column));
    let places = || kept.iter().copied();
    ColumnStatistics {
        min_value: extreme(bounds.min_values(&column), places(), Ordering::Less).to_inexact(),
        max_value: extreme(bounds.max_values(&column), places(), Ordering::Greater).to_inexact(),
        ..ColumnStatistics::new_unknown()
    }
}

/// The least or greatest of the bounds of the files at these places; unknown as soon as one file has none.
fn extreme(values: Option<ArrayRef>, places: impl Iterator<Item = usize>, wanted: Ordering) -> Precision<ScalarValue> {
    let Some(values) = values else { return Precision::Absent };
    let mut best: Option<ScalarValue> = None;
    for index in places {
        let Ok(value) = ScalarValue::try_from_array(&values, index) else { return Precision::Absent };
        if value.is_null() {
            return Precision::Absent;
        }
        if best.as_ref().is_none_or(|best| value.partial_cmp(best) == Some(wanted)) {
            best = Some(value);
        }
    }
    best.map_or(Precision::Absent, Precision::Exact)
}

fn sizes(pinned: &Pinned, columns: &TableSchema, kept: &[usize]) -> Statistics {
    let (mut rows, mut bytes) = (Some(0_usize), 0_usize);
    for file in kept.iter().map(|place| &pinned.files()[*place]) {
        rows = rows.zip(file.rows).map(|(sum, rows)| sum.saturating_add(rows));
        bytes = bytes.saturating_add(usize::try_from(file.size).unwrap_or(usize::MAX));
    }
    Statistics {
        num_rows: rows.map_or(Precision::Absent, Precision::Exact),
        total_byte_size: Precision::Inexact(bytes),
        column_statistics: vec![ColumnStatistics::new_unknown(); columns.table_schema().fields().len()],
    }
}
