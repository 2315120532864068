//! Delimited text: fields from bytes, rows from fields.

use std::borrow::Cow;
use std::collections::HashMap;

use memchr::{memchr_iter, memchr2};

use super::block::{Block, Dialect, RecordEnd, closing_quote, record_end, trim_line_end};
use super::column::{Cells, Failures, Layout, Parsed, Targets, build, finish, nulls};
use super::json;
use super::shape::Shape;
use crate::config::CsvOptions;
use crate::model::{ColumnType, Reject};
use crate::source::SourceError;

/// How one file's text is to be understood.
#[derive(Debug)]
pub(super) struct CsvFile {
    path: String,
    dialect: Dialect,
    null_words: Vec<Vec<u8>>,
    /// Whether the empty field is a null word: asked for every field, so it is not looked up.
    empty_is_null: bool,
    /// The names of the fields, in the file's order.
    pub(super) names: Vec<String>,
    /// The header as it stands in the file, to know it again; none where there is none.
    header: Option<Vec<u8>>,
}

/// The structure of the text the options describe.
pub(super) fn dialect(options: &CsvOptions) -> Dialect {
    Dialect { delimiter: options.delimiter, quote: options.quote, comment: options.comment }
}

impl CsvFile {
    /// Understands a file's first record: its header, or its first row where it has none; then the fields are called
    /// as `positional` says, or `column_1` and so on.
    ///
    /// # Errors
    /// With the reason when the header is no text or names a column twice.
    pub(super) fn new(
        path: &str,
        options: &CsvOptions,
        first: &[u8],
        positional: Option<&[String]>,
    ) -> Result<Self, String> {
        let dialect = dialect(options);
        let records = split(first, dialect, None, None);
        let fields = records.fields.iter().map(|field| field.text(first, dialect.quote));
        let null_words = options.null_words.iter().filter(|word| !word.is_empty());
        let null_words = null_words.map(|word| word.clone().into_bytes()).collect();
        let empty_is_null = options.null_words.iter().any(String::is_empty);
        let (names, header) = if options.header {
            (header_names(fields)?, Some(first.to_vec()))
        } else if let Some(names) = positional {
            (names.to_vec(), None)
        } else {
            ((1..=records.fields.len()).map(|number| format!("column_{number}")).collect(), None)
        };
        Ok(Self { path: path.to_owned(), dialect, null_words, empty_is_null, names, header })
    }

    /// Reads a block's rows. A row with a field that does not fit is a reject.
    ///
    /// # Errors
    /// None that the file's content can bring about.
    pub(super) fn read(&self, targets: &Targets, layout: &Layout, mut block: Block) -> Result<Parsed, SourceError> {
        let text = block.text.as_slice();
        let records = self.split(text);
        let rows = records.spans.len();
        let mut failures = Failures::default();
        let mut arrays = Vec::with_capacity(targets.columns.len());
        for (target, source) in targets.columns.iter().zip(&layout.source_of) {
            let Some(source) = *source else {
                arrays.push(nulls(&target.kind, rows));
                continue;
            };
            let cells = self.cells(text, &records, source, target.kind == ColumnType::String);
            arrays.push(match &target.kind {
                ColumnType::Struct(_) | ColumnType::Array(_) | ColumnType::Map(..) => {
                    nested(&target.kind, &target.name, &cells, &mut failures)
                }
                kind => build(kind, &target.formats, &cells, &target.name, &mut failures),
            });
        }
        let mut lines = Lines::new(text, block.first_line);
        let describe = |(start, end): (u32, u32), reason: String, lines: &mut Lines<'_>| Reject {
            file: self.path.clone(),
            line: Some(lines.at(start as usize)),
            column: None,
            reason,
            raw: Reject::clip_raw(trim_line_end(&text[start as usize..end as usize])),
        };
        let (batch, mut rejects) =
            finish(targets, arrays, rows, failures, |row| describe(records.spans[row], String::new(), &mut lines))?;
        let mut lines = Lines::new(text, block.first_line);
        rejects.extend(records.misfits.into_iter().map(|(span, reason)| describe(span, reason, &mut lines)));
        rejects.sort_by_key(|reject| reject.line);
        block.rejects.append(&mut rejects);
        Ok(Parsed { rows: (rows > 0).then_some(batch), rejects: block.rejects, stored: block.stored })
    }

    /// What kinds of values a block's columns hold; rows that do not fit the header are left out.
    pub(super) fn infer(&self, block: &Block) -> Vec<Shape> {
        let text = block.text.as_slice();
        let records = self.split(text);
        let mut shapes = vec![Shape::default(); self.names.len()];
        for (column, shape) in shapes.iter_mut().enumerate() {
            let cells = self.cells(text, &records, column, false);
            for index in 0..cells.len() {
                if let Ok(Some(value)) = cells.get(index) {
                    shape.see_text(&value);
                    if shape.text {
                        break;
                    }
                }
            }
        }
        shapes
    }

    fn is_null_word(&self, text: &[u8]) -> bool {
        !self.null_words.is_empty() && self.null_words.iter().any(|word| word.as_slice() == text)
    }

    fn split(&self, text: &[u8]) -> Records {
        split(text, self.dialect, Some(self.names.len()), self.header.as_deref())
    }

    fn cells<'a>(&'a self, text: &'a [u8], records: &'a Records, column: usize, keep_text: bool) -> CsvCells<'a> {
        let is_utf8 = records.is_utf8;
        CsvCells { file: self, text, records, column, keep_text, is_utf8 }
    }
}

fn header_names<'a>(fields: impl Iterator<Item = Cow<'a, [u8]>>) -> Result<Vec<String>, String> {
    let mut names = Vec::<String>::new();
    let mut seen = HashMap::new();
    for (index, field) in fields.enumerate() {
        let name = std::str::from_utf8(&field)
            .map_err(|_| format!("the header's field {} is not valid in the file's encoding", index + 1))?
            .trim();
        let name = if name.is_empty() { format!("column_{}", index + 1) } else { name.to_owned() };
        if let Some(first) = seen.insert(super::names::fold(&name), index) {
            return Err(format!(
                "columns {} (`{}`) and {} (`{name}`) have the same name; rename one of them",
                first + 1,
                names[first],
                index + 1
            ));
        }
        names.push(name);
    }
    Ok(names)
}

/// Cells that hold JSON text.
fn nested(kind: &ColumnType, column: &str, cells: &CsvCells<'_>, failures: &mut Failures) -> arrow::array::ArrayRef {
    let texts: Vec<Option<String>> = (0..cells.len())
        .map(|index| {
            let found = cells.get(index).and_then(|text| {
                let Some(text) = text else { return Ok(None) };
                let text = String::from_utf8_lossy(&text).into_owned();
                json::check(&text).map(|()| Some(text))
            });
            found.unwrap_or_else(|reason| {
                failures.add(index, column, reason);
                None
            })
        })
        .collect();
    let raws: Vec<Option<&str>> = texts.iter().map(|text| text.as_deref().filter(|text| *text != "null")).collect();
    let rows: Vec<usize> = (0..raws.len()).collect();
    json::nested(kind, &[], &raws, &rows, column, failures)
}

/// One field's place in a block. The two high bits are free because a block is at most some 64 MiB.
#[derive(Clone, Copy, Debug)]
struct Field {
    /// Where the text starts; the high bit says that it stands in quotes.
    start: u32,
    /// Where it ends; the high bit says that quotes are doubled in it.
    end: u32,
}

const FLAG: u32 = 1 << 31;

impl Field {
    fn new(start: usize, end: usize, quoted: bool, doubled: bool) -> Self {
        let place = |at: usize, flag: bool| u32::try_from(at).unwrap_or(FLAG - 1) | if flag { FLAG } else { 0 };
        Self { start: place(start, quoted), end: place(end, doubled) }
    }

    fn is_quoted(self) -> bool {
        self.start & FLAG != 0
    }

    fn text(self, block: &[u8], quote: Option<u8>) -> Cow<'_, [u8]> {
        let raw = &block[(self.start & !FLAG) as usize..(self.end & !FLAG) as usize];
        match quote {
            Some(quote) if self.end & FLAG != 0 => Cow::Owned(undouble(raw, quote)),
            _ => Cow::Borrowed(raw),
        }
    }
}

fn undouble(raw: &[u8], quote: u8) -> Vec<u8> {
    let mut text = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter();
    while let Some(byte) = bytes.next() {
        text.push(*byte);
        if *byte == quote {
            bytes.next();
        }
    }
    text
}

/// The fields of a block's rows.
#[derive(Debug, Default)]
struct Records {
    /// Row by row.
    fields: Vec<Field>,
    /// Where each row stands.
    spans: Vec<(u32, u32)>,
    /// Records that are no rows, with the reason.
    misfits: Vec<((u32, u32), String)>,
    width: usize,
    is_utf8: bool,
}

/// Splits a block into rows of `width` fields; of any number where none is given.
fn split(text: &[u8], dialect: Dialect, width: Option<usize>, header: Option<&[u8]>) -> Records {
    let mut records = Records { is_utf8: std::str::from_utf8(text).is_ok(), ..Records::default() };
    records.width = width.unwrap_or(0);
    let mut start = 0;
    while start < text.len() {
        let rest = &text[start..];
        if matches!(rest, [b'\n', ..] | [b'\r', b'\n', ..] | [b'\r']) {
            start += if rest[0] == b'\n' { 1 } else { 2 };
            continue;
        }
        let is_comment = dialect.comment == Some(rest[0]);
        let before = records.fields.len();
        let line =
            if is_comment { Err(String::new()) } else { split_record(text, start, dialect, &mut records.fields) };
        let end = match &line {
            Ok(end) => *end,
            Err(_) => match record_end(text, start, dialect) {
                RecordEnd::After(end) => end,
                RecordEnd::Missing | RecordEnd::OpenQuote => text.len(),
            },
        };
        let span = (u32::try_from(start).unwrap_or(u32::MAX), u32::try_from(end).unwrap_or(u32::MAX));
        let found = records.fields.len() - before;
        let misfit = match line {
            _ if is_comment => None,
            Err(reason) => Some(reason),
            Ok(_) if header.is_some_and(|header| trim_line_end(&text[start..end]) == header) => {
                Some("the header again: files may have been joined".to_owned())
            }
            Ok(_) => width
                .filter(|width| *width != found)
                .map(|width| format!("{width} fields were expected and {found} found")),
        };
        if is_comment || misfit.is_some() {
            records.fields.truncate(before);
            records.misfits.extend(misfit.map(|reason| (span, reason)));
        } else {
            records.spans.push(span);
        }
        start = end;
    }
    records
}

/// Splits one record into fields and returns where the next begins.
fn split_record(text: &[u8], start: usize, dialect: Dialect, fields: &mut Vec<Field>) -> Result<usize, String> {
    let mut at = start;
    loop {
        let quote = dialect.quote.filter(|quote| text.get(at) == Some(quote));
        if let Some(quote) = quote {
            let Some((closing, doubled)) = closing_quote(text, at + 1, quote) else {
                return Err("a quote is not closed".to_owned());
            };
            fields.push(Field::new(at + 1, closing, true, doubled));
            match &text[closing + 1..] {
                [] | [b'\r'] => return Ok(text.len()),
                [b'\n', ..] => return Ok(closing + 2),
                [b'\r', b'\n', ..] => return Ok(closing + 3),
                [next, ..] if *next == dialect.delimiter => at = closing + 2,
                _ => return Err(format!("field {} goes on after its closing quote", fields.len())),
            }
            continue;
        }
        let Some(length) = memchr2(dialect.delimiter, b'\n', &text[at..]) else {
            let end = if text.ends_with(b"\r") && text.len() > at { text.len() - 1 } else { text.len() };
            fields.push(Field::new(at, end, false, false));
            return Ok(text.len());
        };
        let end = at + length;
        if text[end] == dialect.delimiter {
            fields.push(Field::new(at, end, false, false));
            at = end + 1;
        } else {
            let trimmed = if length > 0 && text[end - 1] == b'\r' { end - 1 } else { end };
            fields.push(Field::new(at, trimmed, false, false));
            return Ok(end + 1);
        }
    }
}

/// One column of a block.
struct CsvCells<'a> {
    file: &'a CsvFile,
    text: &'a [u8],
    records: &'a Records,
    column: usize,
    /// Whether spaces and emptiness mean something.
    keep_text: bool,
    is_utf8: bool,
}

impl Cells for CsvCells<'_> {
    fn len(&self) -> usize {
        self.records.spans.len()
    }

    #[inline]
    fn get(&self, index: usize) -> Result<Option<Cow<'_, [u8]>>, String> {
        let field = self.records.fields[index * self.records.width + self.column];
        let text = field.text(self.text, self.file.dialect.quote);
        if text.is_empty() {
            // Emptiness is a value only of text, and only where it is no null word or stands in quotes.
            let is_value = self.keep_text && (field.is_quoted() || !self.file.empty_is_null);
            return Ok(is_value.then_some(text));
        }
        if !field.is_quoted() && self.file.is_null_word(&text) {
            return Ok(None);
        }
        if !self.is_utf8 && std::str::from_utf8(&text).is_err() {
            return Err("the text is not valid in the file's encoding".to_owned());
        }
        if self.keep_text {
            return Ok(Some(text));
        }
        if !text[0].is_ascii_whitespace() && !text[text.len() - 1].is_ascii_whitespace() {
            return Ok(Some(text));
        }
        // What is not text has no spaces, and nothing but spaces can only mean that there is no value.
        let trimmed = match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.trim_ascii()),
            Cow::Owned(text) => Cow::Owned(text.trim_ascii().to_vec()),
        };
        Ok((!trimmed.is_empty()).then_some(trimmed))
    }

    fn row(&self, index: usize) -> usize {
        index
    }
}

/// Line numbers of places in a block, asked for in rising order.
pub(super) struct Lines<'a> {
    text: &'a [u8],
    place: usize,
    line: u64,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a [u8], first_line: u64) -> Self {
        Self { text, place: 0, line: first_line }
    }

    pub(super) fn at(&mut self, place: usize) -> u64 {
        let place = place.max(self.place);
        self.line += memchr_iter(b'\n', &self.text[self.place..place]).count() as u64;
        self.place = place;
        self.line
    }
}

#[cfg(test)]
mod tests {
    use arrow::util::pretty::pretty_format_batches;

    use super::super::column::Target;
    use super::*;

    fn options() -> CsvOptions {
        CsvOptions {
            delimiter: b',',
            quote: Some(b'"'),
            header: true,
            encoding: encoding_rs::UTF_8,
            null_words: vec![String::new(), "NA".to_owned()],
            comment: Some(b'#'),
        }
    }

    fn targets(columns: &[(&str, &str)]) -> Targets {
        let target = |(name, kind): &(&str, &str)| Target {
            name: (*name).to_owned(),
            from: None,
            kind: kind.parse().unwrap(),
            formats: vec![],
            nullable: true,
        };
        Targets::new(columns.iter().map(target).collect(), true)
    }

    /// Line, column and reason of a reject.
    type Reason = (Option<u64>, Option<String>, String);

    fn read(columns: &[(&str, &str)], header: &str, body: &[u8]) -> (String, Vec<Reason>) {
        let file = CsvFile::new("f.csv", &options(), header.as_bytes(), None).unwrap();
        let targets = targets(columns);
        let layout = targets.layout(&file.names).unwrap();
        let block = Block { text: body.to_vec(), first_line: 2, ..Block::default() };
        let parsed = file.read(&targets, &layout, block).unwrap();
        let rows = pretty_format_batches(&parsed.rows.into_iter().collect::<Vec<_>>()).unwrap().to_string();
        let rejects = parsed.rejects.into_iter().map(|reject| (reject.line, reject.column, reject.reason)).collect();
        (rows, rejects)
    }

    #[test]
    fn fields_are_what_the_quotes_say() {
        let body = b"1,\"a \"\"b\"\"\nc\"\r\n# not a row\n\n2,NA\n3,\"NA\"\n 4 , x\n5,\"\"\n6,";
        let (rows, rejects) = read(&[("n", "int"), ("t", "string")], "n,t", body);
        assert!(rejects.is_empty(), "{rejects:?}");
        let wanted = "\
+---+-------+
| n | t     |
+---+-------+
| 1 | a \"b\" |
|   | c     |
| 2 |       |
| 3 | NA    |
| 4 |  x    |
| 5 |       |
| 6 |       |
+---+-------+";
        assert_eq!(rows, wanted);
    }

    #[test]
    fn rows_that_do_not_fit_are_named_by_line_and_column() {
        let body = b"1,2013-01-31\nx,2013-01-31\n2\n\"3\"z,1\nn,d\n4,\xFF\n5,31.01.2013\n99999999999,2013-01-31\n";
        let (rows, rejects) = read(&[("n", "int"), ("d", "date")], "n,d", body);
        assert_eq!(rows.lines().count(), 5, "{rows}");
        let lines: Vec<_> = rejects.iter().map(|(line, column, _)| (line.unwrap(), column.as_deref())).collect();
        assert_eq!(
            lines,
            [(3, Some("n")), (4, None), (5, None), (6, None), (7, Some("d")), (8, Some("d")), (9, Some("n"))]
        );
        for (index, part) in
            ["not an integer", "2 fields", "closing quote", "header again", "encoding", "date", "range"]
                .into_iter()
                .enumerate()
        {
            assert!(rejects[index].2.contains(part), "{index}: {}", rejects[index].2);
        }
    }

    #[test]
    fn columns_are_found_by_name_and_missing_ones_are_null() {
        let (rows, rejects) = read(&[("b", "int"), ("c", "string"), ("a", "int")], "A,x,b", b"1,2,3\n");
        assert!(rejects.is_empty());
        assert!(rows.contains("| 3 |   | 1 |"), "{rows}");
    }

    #[test]
    fn nested_columns_are_json_text() {
        let body = b"\"{\"\"x\"\": [1, 2]}\"\nnot json\n\n";
        let (rows, rejects) = read(&[("s", "struct<x: array<int>>")], "s", body);
        assert!(rows.contains("{x: [1, 2]}"), "{rows}");
        assert!(rejects[0].2.contains("JSON"), "{rejects:?}");
    }

    #[test]
    fn a_name_that_stands_twice_is_refused() {
        let error = CsvFile::new("f.csv", &options(), b"a,b,A", None).unwrap_err();
        assert_eq!(error, "columns 1 (`a`) and 3 (`A`) have the same name; rename one of them");
        assert!(CsvFile::new("f.csv", &options(), b"a b,a_b", None).is_err());
    }
}
