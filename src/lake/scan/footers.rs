//! What the ends of some data files say of their columns: how many bytes values take, and how many different ones there
//! are. No row is read for it.
//!
//! The largest files are looked at: a load that adds a small one changes nothing of what is found.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::error::Result;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::future::try_join_all;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::basic::{Encoding, Type};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};

use crate::lake::scan::files::partitioned;
use crate::lake::scan::leaf::readers;
use crate::lake::snapshot::{DataFile, Pinned};

/// Files that are looked at.
const LOOKED_AT: usize = 3;
/// Part of the rows looked at whose values may stand as they are, in a column of words: small files hardly have dictionaries.
const MOST_PLAIN: f64 = 0.1;
/// Bytes of a dictionary that are none of its words: the header of its page.
const DICTIONARY_HEADER: f64 = 20.0;
/// Compressed bytes of a dictionary below which its words are hardly shorter than they were.
const SMALL_DICTIONARY: f64 = 150.0;
/// Rows of a page of data, as most programs write them, and the bytes of its header.
const PAGE_ROWS: f64 = 20_000.0;
const PAGE_HEADER: f64 = 25.0;
/// Bytes that say how often a position comes again (Parquet format, "Run Length Encoding / Bit-Packing Hybrid"), about.
const RUN_BYTES: f64 = 4.0;
/// Most bits of a position in a dictionary that are tried.
const MOST_BITS: i32 = 24;

/// A column as data files hold it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StoredColumn {
    /// Bytes that a row takes of them.
    pub packed: f64,
    /// Bytes of a text as it is, without its length; none for other types, and where the files do not tell.
    pub length: Option<f64>,
    /// How the values stand there.
    pub form: StoredForm,
}

/// How values stand in data files.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StoredForm {
    /// It is not known.
    Unknown,
    /// Each where it is, or most of them: there are too many different ones for a dictionary.
    Plain,
    /// All as positions in dictionaries, one for each group of rows.
    Words(StoredWords),
}

/// The dictionaries of a column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StoredWords {
    /// Different values in all, about.
    pub count: f64,
    /// Those of a group of rows, of the one that has most.
    pub in_group: f64,
    /// Rows of that group.
    pub group_rows: f64,
    /// Bytes of its dictionary, compressed.
    pub packed: f64,
}

/// What is known of the columns of a version.
#[derive(Debug, Default)]
pub(crate) struct Footers(HashMap<String, StoredColumn>);

impl Footers {
    /// Reads the ends of the largest files, unless they are remembered.
    pub(super) async fn read(pinned: &Pinned, environment: &RuntimeEnv) -> Result<Self> {
        let readers = readers(&pinned.place, environment);
        let (metrics, options) = (ExecutionPlanMetricsSet::new(), ArrowReaderOptions::new());
        let opened = largest(pinned.files()).into_iter();
        let opened = opened.map(|file| readers.create_reader(0, partitioned(&pinned.place, file), None, &metrics));
        let opened = opened.collect::<Result<Vec<_>>>()?;
        let options = &options;
        let read = opened.into_iter().map(|mut reader| async move { reader.get_metadata(Some(options)).await });
        let read = try_join_all(read).await?;
        let rows: Option<usize> = pinned.files().iter().map(|file| file.rows).sum();
        Ok(Self::of(&read, rows.map(|rows| rows as f64)))
    }

    /// What is known of a column.
    pub(crate) fn column(&self, name: &str) -> Option<StoredColumn> {
        self.0.get(name).copied()
    }

    /// What these files say, of a table of so many rows.
    fn of(files: &[Arc<ParquetMetaData>], table_rows: Option<f64>) -> Self {
        let mut gathered: HashMap<&str, Gathered<'_>> = HashMap::new();
        let mut rows = 0.0;
        for group in files.iter().flat_map(|file| file.row_groups()) {
            let group_rows = whole(group.num_rows());
            rows += group_rows;
            for chunk in group.columns() {
                let Some(name) = chunk.column_path().parts().first() else { continue };
                gathered.entry(name).or_default().take(chunk, group_rows);
            }
        }
        if rows < 1.0 {
            return Self::default();
        }
        let times = table_rows.map_or(1.0, |all| (all / rows).max(1.0));
        let columns = gathered.into_iter().map(|(name, column)| (name.to_owned(), column.settled(rows, times)));
        Self(columns.collect())
    }
}

/// The largest files, the same ones whoever looks.
fn largest(files: &[DataFile]) -> Vec<&DataFile> {
    let mut files: Vec<&DataFile> = files.iter().collect();
    files.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.path.cmp(&b.path)));
    files.truncate(LOOKED_AT);
    files
}

fn whole(number: i64) -> f64 {
    number.max(0) as f64
}

/// What is gathered of a column.
#[derive(Default)]
struct Gathered<'a> {
    packed: f64,
    /// Bytes of texts, and how many there are.
    texts: (f64, f64),
    /// Rows of groups where something stands in another way than as words, or is within another column.
    plain_rows: f64,
    groups: Vec<Group<'a>>,
}

/// A group of rows of a column whose values stand in a dictionary.
struct Group<'a> {
    words: f64,
    rows: f64,
    packed: f64,
    /// The least and the greatest text, where they are told.
    bounds: Option<(&'a [u8], &'a [u8])>,
}

impl<'a> Gathered<'a> {
    fn take(&mut self, chunk: &'a ColumnChunkMetaData, rows: f64) {
        self.packed += whole(chunk.compressed_size());
        let statistics = chunk.statistics();
        let nulls = statistics.and_then(|known| known.null_count_opt()).unwrap_or(0) as f64;
        let values = (whole(chunk.num_values()) - nulls).max(0.0);
        if let Some(bytes) = chunk.unencoded_byte_array_data_bytes() {
            self.texts.0 += whole(bytes);
            self.texts.1 += values;
        }
        let dictionary = dictionary_bytes(chunk).filter(|_| chunk.column_path().parts().len() == 1);
        let Some(packed) = dictionary.filter(|_| has_words_only(chunk)) else {
            // A group without a value has no dictionary, and says nothing of the others.
            if values > 0.0 {
                self.plain_rows += rows;
            }
            return;
        };
        let bounds = statistics.and_then(|known| Some((known.min_bytes_opt()?, known.max_bytes_opt()?)));
        let bounds = bounds.filter(|_| chunk.column_type() == Type::BYTE_ARRAY);
        self.groups.push(Group { words: distinct(chunk, packed, values).min(values.max(1.0)), rows, packed, bounds });
    }

    /// What it comes to, of so many rows of a table that has so many times as many.
    fn settled(self, rows: f64, times: f64) -> StoredColumn {
        let (bytes, values) = self.texts;
        let length = (values > 0.0).then(|| bytes / values);
        // Hardly a word comes again in a small group, however few there are.
        let largest = self.groups.iter().map(|group| group.rows).fold(0.0, f64::max);
        let large = self.groups.iter().filter(|group| 2.0 * group.rows >= largest);
        let most = large.max_by(|a, b| a.words.total_cmp(&b.words));
        let form = match most {
            Some(most) if self.plain_rows <= MOST_PLAIN * rows => {
                let sum: f64 = self.groups.iter().map(|group| group.words).sum();
                // Groups that lie apart have words of their own, and so have those that were not looked at.
                let count = if lie_apart(&self.groups) { sum * times } else { most.words };
                let (in_group, group_rows, packed) = (most.words, most.rows, most.packed);
                StoredForm::Words(StoredWords { count, in_group, group_rows, packed })
            }
            _ => StoredForm::Plain,
        };
        StoredColumn { packed: self.packed / rows, length, form }
    }
}

/// Whether each of several groups has texts between bounds that no other one reaches.
fn lie_apart(groups: &[Group<'_>]) -> bool {
    let bounds: Option<Vec<_>> = groups.iter().map(|group| group.bounds).collect();
    let Some(mut bounds) = bounds.filter(|bounds| bounds.len() > 1) else { return false };
    bounds.sort_unstable();
    bounds.windows(2).all(|pair| pair[0].1 <= pair[1].0 && pair[0] != pair[1])
}

/// Bytes of the page that holds a group's dictionary, compressed; none where it has none.
fn dictionary_bytes(chunk: &ColumnChunkMetaData) -> Option<f64> {
    let bytes = chunk.data_page_offset() - chunk.dictionary_page_offset()?;
    (bytes > 0).then_some(bytes as f64)
}

/// Whether all pages of data hold positions in the dictionary. Who says nothing of pages names the old encoding, which is
/// that of both, and names plain pages besides only where there are some.
fn has_words_only(chunk: &ColumnChunkMetaData) -> bool {
    let words = [Encoding::PLAIN_DICTIONARY, Encoding::RLE_DICTIONARY];
    match chunk.page_encoding_stats_mask() {
        Some(mask) => words.into_iter().any(|encoding| mask.is_only(encoding)),
        None => {
            let used = chunk.encodings_mask();
            used.is_set(Encoding::PLAIN_DICTIONARY) && !used.is_set(Encoding::PLAIN)
        }
    }
}

/// About how many words a group's dictionary has, which takes so many bytes: the file does not say so. Two things tell: how
/// large the page is, and how many bits a position has, by the size of all pages before they were compressed.
fn distinct(chunk: &ColumnChunkMetaData, dictionary: f64, values: f64) -> f64 {
    let text = chunk.unencoded_byte_array_data_bytes().filter(|_| values > 0.0).map(|bytes| whole(bytes) / values);
    let word = match chunk.column_type() {
        Type::BOOLEAN => 1.0,
        Type::INT32 | Type::FLOAT => 4.0,
        Type::INT64 | Type::DOUBLE => 8.0,
        Type::INT96 => 12.0,
        Type::FIXED_LEN_BYTE_ARRAY => f64::from(chunk.column_descr().type_length()).max(1.0),
        Type::BYTE_ARRAY => 4.0 + text.unwrap_or(8.0),
    };
    let body = (dictionary - DICTIONARY_HEADER).max(1.0);
    // What Zstandard makes of words: measured with random letters and numbers.
    let packed = if chunk.column_type() == Type::BYTE_ARRAY { 0.6 * word - 1.9 } else { 0.4 * word };
    let part = (SMALL_DICTIONARY / dictionary).min(1.0);
    let by_size = (body / (part * word + (1.0 - part) * packed.max(0.5))).max(1.0);
    let headers = (whole(chunk.num_values()) / PAGE_ROWS).ceil().max(1.0) * PAGE_HEADER + DICTIONARY_HEADER;
    let size = whole(chunk.uncompressed_size()) - headers;
    let Some(bits) = by_bits(size, values, word) else {
        // All that is not words says how often one comes again. Words that are alike pack better than was thought: this tells
        // of more of them, where they do not change too often.
        return by_size.max((size / (word + RUN_BYTES)).min(4.0 * by_size));
    };
    // What of the pages is words has to stand out from what their headers may have more or less than was thought.
    let found = match bits.counted {
        Some(words) if words * word > 4.0 * headers => words,
        _ => by_size.clamp(bits.least, bits.most),
    };
    // Rows that stand sorted take fewer bits than their positions have.
    if found < by_size / 3.0 { by_size } else { found }
}

/// What the bits of positions tell of the number of words.
struct ByBits {
    least: f64,
    most: f64,
    /// The number, where it follows from the bytes that positions leave.
    counted: Option<f64>,
}

/// How many words there are, when words and positions together have this size: a position has as many bits as the number
/// of words needs. None where positions take less, because the same ones follow each other.
fn by_bits(size: f64, values: f64, word: f64) -> Option<ByBits> {
    if size < values / 8.0 {
        return None;
    }
    for bits in 1..=MOST_BITS {
        let (below, most) = (f64::from(bits - 1).exp2(), f64::from(bits).exp2());
        let words = (size - values * f64::from(bits) / 8.0) / word;
        if words <= below {
            // With so many bits nothing is left for them, with one less there were more than it can name.
            return Some(ByBits { least: (below / 2.0).floor() + 1.0, most: below.max(1.0), counted: None });
        }
        if words <= most {
            return Some(ByBits { least: below + 1.0, most, counted: Some(words) });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
    use bytes::Bytes;
    use parquet::arrow::ArrowWriter;
    use parquet::basic::{Compression, ZstdLevel};
    use parquet::file::metadata::ParquetMetaDataReader;
    use parquet::file::properties::WriterProperties;

    use super::*;

    /// What is said of columns that are written as the lake's own.
    fn footers(columns: Vec<(&str, ArrayRef)>, group_rows: usize) -> Footers {
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).unwrap()))
            .set_dictionary_page_size_limit(128 << 10)
            .set_max_row_group_row_count(Some(group_rows))
            .build();
        let mut file = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut file, rows.schema(), Some(properties)).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
        let read = ParquetMetaDataReader::new().parse_and_finish(&Bytes::from(file)).unwrap();
        Footers::of(&[Arc::new(read)], None)
    }

    /// A number that looks like a random one below `most`.
    fn noise(at: usize, most: u64) -> u64 {
        ((at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % most
    }

    fn texts(rows: usize, text: impl Fn(usize) -> String) -> ArrayRef {
        Arc::new(StringArray::from_iter_values((0..rows).map(text)))
    }

    fn words(footers: &Footers, column: &str) -> Option<StoredWords> {
        match footers.column(column)?.form {
            StoredForm::Words(words) => Some(words),
            _ => None,
        }
    }

    #[test]
    fn few_words_are_counted_about_and_many_are_no_words() {
        let rows = 200_000;
        let footers = footers(
            vec![
                ("two", texts(rows, |at| ["yes", "no"][at % 2].to_owned())),
                ("kind", texts(rows, |at| format!("kind {}", noise(at, 20)))),
                ("city", texts(rows, |at| format!("city number {:x}", noise(noise(at, 1000) as usize, 1 << 40)))),
                ("number", texts(rows, |at| noise(at, 10_000_000).to_string())),
                ("id", Arc::new(Int64Array::from_iter_values((0..).take(rows)))),
                ("score", Arc::new(Float64Array::from_iter_values((0..rows).map(|at| noise(at, 1 << 40) as f64)))),
            ],
            262_144,
        );
        for (column, count) in [("two", 2.0), ("kind", 20.0), ("city", 1_000.0)] {
            let found = words(&footers, column).unwrap_or_else(|| panic!("{column}: {footers:?}"));
            assert!((count / 2.0..=count * 2.0).contains(&found.in_group), "{column}: {found:?}");
            assert!(found.count.to_bits() == found.in_group.to_bits(), "one group: {found:?}");
        }
        for column in ["number", "id", "score"] {
            assert_eq!(footers.column(column).map(|known| known.form), Some(StoredForm::Plain), "{column}");
        }
        let number = footers.column("number").unwrap();
        assert!(number.length.is_some_and(|length| (6.8..=7.0).contains(&length)), "{number:?}");
        let score = footers.column("score").unwrap();
        assert!((4.0..8.5).contains(&score.packed) && score.length.is_none(), "{score:?}");
        assert_eq!(footers.column("nothing"), None);
    }

    #[test]
    fn a_small_file_of_different_texts_has_as_many_words_as_rows() {
        let footers = footers(vec![("id", texts(3_000, |at| format!("order-{at:08}")))], 262_144);
        let found = words(&footers, "id").unwrap();
        assert!((2_500.0..=3_000.0).contains(&found.in_group), "{found:?}");
    }

    #[test]
    fn groups_that_lie_apart_have_words_of_their_own() {
        let rows = 100_000;
        let footers = footers(
            vec![
                ("session", texts(rows, |at| format!("session {:04}", at / 500))),
                ("kind", texts(rows, |at| format!("kind {}", noise(at, 9)))),
            ],
            20_000,
        );
        let (session, kind) = (words(&footers, "session").unwrap(), words(&footers, "kind").unwrap());
        assert!(session.count > 3.0 * session.in_group, "{session:?}");
        assert!(kind.count.to_bits() == kind.in_group.to_bits() && (5.0..=18.0).contains(&kind.count), "{kind:?}");
    }
}
