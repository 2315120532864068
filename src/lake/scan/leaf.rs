//! What every scan of Parquet files is made of, whatever names the files.

use std::sync::Arc;

use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::execution::runtime_env::RuntimeEnv;

use crate::lake::scan::files::partitioned;
use crate::lake::snapshot::DataFile;
use crate::lake::store::TablePlace;

/// A scan of groups of files as `source` reads them, with what is remembered of their metadata.
pub(super) fn scan_of(
    place: &TablePlace,
    environment: &RuntimeEnv,
    source: ParquetSource,
    groups: Vec<FileGroup>,
) -> FileScanConfigBuilder {
    let source = source.with_parquet_file_reader_factory(Arc::new(readers(place, environment)));
    FileScanConfigBuilder::new(place.store_url().clone(), Arc::new(source)).with_file_groups(groups)
}

/// What reads a table's files, and remembers their metadata.
pub(super) fn readers(place: &TablePlace, environment: &RuntimeEnv) -> CachedParquetFileReaderFactory {
    let cache = environment.cache_manager.get_file_metadata_cache();
    CachedParquetFileReaderFactory::new(Arc::clone(place.store()), cache)
}

/// Those of `files` at these places, to be read in so many partitions.
pub(super) fn groups(place: &TablePlace, files: &[DataFile], places: &[usize], partitions: usize) -> Vec<FileGroup> {
    balance(places, files, partitions).iter().map(|places| group(place, files, places)).collect()
}

/// Those of `files` at these places, to be read one after the other.
pub(super) fn group(place: &TablePlace, files: &[DataFile], places: &[usize]) -> FileGroup {
    FileGroup::new(places.iter().map(|index| partitioned(place, &files[*index])).collect())
}

/// Splits files into at most `partitions` groups of about equal bytes: the largest first, each to the group that
/// has least. The same files always make the same groups.
pub(super) fn balance(kept: &[usize], files: &[DataFile], partitions: usize) -> Vec<Vec<usize>> {
    let mut by_size: Vec<(usize, usize)> = kept.iter().copied().enumerate().collect();
    by_size.sort_by_key(|(position, place)| (std::cmp::Reverse(files[*place].size), *position));
    let mut groups = vec![(0_u64, Vec::new()); partitions.clamp(1, kept.len().max(1))];
    for (position, place) in by_size {
        if let Some(least) = groups.iter_mut().min_by_key(|(bytes, _)| *bytes) {
            least.0 += files[place].size;
            least.1.push((position, place));
        }
    }
    let in_order = |(_, mut group): (u64, Vec<(usize, usize)>)| {
        group.sort_unstable();
        group.into_iter().map(|(_, place)| place).collect::<Vec<_>>()
    };
    groups.into_iter().map(in_order).filter(|group| !group.is_empty()).collect()
}
