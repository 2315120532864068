//! Text cut into blocks of whole records, so that blocks can be understood in parallel.

use std::sync::Arc;

use memchr::{memchr, memchr_iter, memchr2, memrchr};

use super::input::{Meter, ReadFailure, Text};
use crate::model::Reject;

/// Size a block is cut at, in bytes: some ten thousand rows, and a few of them fit the processor's cache.
const BLOCK: usize = 2 * 1024 * 1024;

/// No record is longer, in bytes: a quote that is never closed or a binary file must not fill the memory.
const LONGEST_RECORD: usize = 64 * 1024 * 1024;

/// Whole records of a file.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) text: Vec<u8>,
    /// The line the text begins with, counted from 1.
    pub(super) first_line: u64,
    /// Where the records stand, where the cutter knows it (JSON elements).
    pub(super) spans: Vec<(usize, usize)>,
    /// Stored bytes read for this block.
    pub(super) stored: u64,
    /// Records before this block that could not be cut out.
    pub(super) rejects: Vec<Reject>,
}

/// How a text falls into records.
#[derive(Debug)]
pub(super) enum Cutter {
    /// A record is a line.
    Lines,
    /// A record is a line, or several where a quoted field spans them.
    Delimited(Dialect),
    /// A record is an element of an array, or one of several values in a row.
    Elements(Phase),
}

/// The bytes that structure delimited text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialect {
    pub(super) delimiter: u8,
    pub(super) quote: Option<u8>,
    pub(super) comment: Option<u8>,
}

/// How far into a JSON document the cutter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Start,
    InArray,
    Sequence,
    End,
}

/// The blocks of one file, in order.
pub(super) struct Blocks {
    path: String,
    text: Text,
    meter: Arc<Meter>,
    cutter: Cutter,
    /// Text read and not handed out.
    held: Vec<u8>,
    more: bool,
    line: u64,
    /// Lines end with a carriage return alone, as on old Macintoshes; none until the first look.
    lone_return: Option<bool>,
    /// Inside a line too long to be kept.
    skipping: bool,
    rejects: Vec<Reject>,
}

impl Blocks {
    pub(super) fn new(path: &str, text: Text, meter: Arc<Meter>, cutter: Cutter) -> Self {
        Self {
            path: path.to_owned(),
            text,
            meter,
            cutter,
            held: Vec::new(),
            more: true,
            line: 1,
            lone_return: None,
            skipping: false,
            rejects: Vec::new(),
        }
    }

    /// The next block; none at the end. A block may be empty of records.
    ///
    /// # Errors
    /// When the file cannot be read or unpacked, or a JSON element is too long.
    pub(super) fn next(&mut self) -> Result<Option<Block>, ReadFailure> {
        let mut wanted = BLOCK;
        loop {
            self.fill(wanted)?;
            if self.held.is_empty() && !self.more {
                return Ok(self.last());
            }
            if self.skipping {
                self.skip_line();
                continue;
            }
            let cut = self.cutter.cut(&self.held, !self.more);
            if cut.end > 0 {
                return Ok(Some(self.take(cut)));
            }
            if self.more && self.held.len() < LONGEST_RECORD {
                wanted = (self.held.len() * 2).max(BLOCK);
                continue;
            }
            self.reject_first_line(cut.open_quote)?;
        }
    }

    /// The first record that is neither blank nor a comment, without its line end; none where there is none. Unless
    /// it is `kept` for the first block it is gone.
    ///
    /// # Errors
    /// When the file cannot be read, or the record does not end.
    pub(super) fn first_record(&mut self, dialect: Dialect, kept: bool) -> Result<Option<Vec<u8>>, ReadFailure> {
        let mut wanted = BLOCK;
        loop {
            self.fill(wanted)?;
            let Some(first) = self.held.first() else { return Ok(None) };
            let is_comment = Some(*first) == dialect.comment;
            let line_end = memchr(b'\n', &self.held);
            let is_blank = matches!(self.held.as_slice(), [b'\n', ..] | [b'\r', b'\n', ..]);
            let end = match record_end(&self.held, 0, dialect) {
                _ if is_comment || is_blank => line_end.map(|end| end + 1),
                RecordEnd::After(end) => Some(end),
                RecordEnd::Missing if self.more => None,
                RecordEnd::Missing => Some(self.held.len()),
                RecordEnd::OpenQuote if self.more => None,
                RecordEnd::OpenQuote => {
                    return Err(ReadFailure::Broken("the first record has a quote that is not closed".to_owned()));
                }
            };
            match end {
                Some(end) if kept && !is_comment && !is_blank => {
                    return Ok(Some(trim_line_end(&self.held[..end]).to_vec()));
                }
                Some(end) => {
                    let record = self.consume(end);
                    if !is_comment && !is_blank {
                        return Ok(Some(trim_line_end(&record).to_vec()));
                    }
                }
                None if self.more && self.held.len() < LONGEST_RECORD => wanted = (self.held.len() * 2).max(BLOCK),
                None if self.more => {
                    return Err(ReadFailure::Broken("the first record is longer than 64 MiB".to_owned()));
                }
                None => return Ok(None),
            }
        }
    }

    fn fill(&mut self, wanted: usize) -> Result<(), ReadFailure> {
        if self.more && self.held.len() < wanted {
            let filled = self.text.fill(&mut self.held, wanted);
            self.more = filled.map_err(|error| self.meter.failure(&self.path, error))?;
        }
        let lone = *self
            .lone_return
            .get_or_insert_with(|| memchr(b'\n', &self.held).is_none() && memchr(b'\r', &self.held).is_some());
        if lone && !matches!(self.cutter, Cutter::Elements(_)) {
            self.held.iter_mut().filter(|byte| **byte == b'\r').for_each(|byte| *byte = b'\n');
        }
        Ok(())
    }

    fn take(&mut self, cut: Cut) -> Block {
        let first_line = self.line;
        let text = self.consume(cut.end);
        Block {
            text,
            first_line,
            spans: cut.spans,
            stored: self.meter.take_bytes(),
            rejects: std::mem::take(&mut self.rejects),
        }
    }

    fn consume(&mut self, end: usize) -> Vec<u8> {
        let rest = self.held[end..].to_vec();
        let mut taken = std::mem::replace(&mut self.held, rest);
        taken.truncate(end);
        self.line += memchr_iter(b'\n', &taken).count() as u64;
        taken
    }

    /// What is left to tell when all records are handed out.
    fn last(&mut self) -> Option<Block> {
        if let Cutter::Elements(phase) = &mut self.cutter {
            if *phase == Phase::InArray {
                self.rejects.push(Reject {
                    file: self.path.clone(),
                    line: Some(self.line),
                    column: None,
                    reason: "the array is not closed: the file may have been cut off".to_owned(),
                    raw: String::new(),
                });
            }
            *phase = Phase::End;
        }
        let stored = self.meter.take_bytes();
        if stored == 0 && self.rejects.is_empty() {
            return None;
        }
        Some(Block { first_line: self.line, stored, rejects: std::mem::take(&mut self.rejects), ..Block::default() })
    }

    /// Gives up on the record at hand: it does not end. Only its first line is lost to the rejects; reading goes
    /// on with the next.
    fn reject_first_line(&mut self, open_quote: bool) -> Result<(), ReadFailure> {
        if matches!(self.cutter, Cutter::Elements(_)) {
            return Err(ReadFailure::Broken(format!("the element in line {} is longer than 64 MiB", self.line)));
        }
        let line = self.line;
        let end = memchr(b'\n', &self.held).map(|end| end + 1);
        let taken = self.consume(end.unwrap_or(self.held.len()));
        self.skipping = end.is_none() && self.more;
        let reason = if open_quote && !self.skipping {
            "the quote that opens here is never closed"
        } else {
            "the line is longer than 64 MiB"
        };
        self.rejects.push(Reject {
            file: self.path.clone(),
            line: Some(line),
            column: None,
            reason: reason.to_owned(),
            raw: Reject::clip_raw(trim_line_end(&taken)),
        });
        Ok(())
    }

    fn skip_line(&mut self) {
        let end = memchr(b'\n', &self.held);
        self.skipping = end.is_none() && self.more;
        self.consume(end.map_or(self.held.len(), |end| end + 1));
    }
}

/// How much of a text is whole records.
#[derive(Debug, Default)]
struct Cut {
    end: usize,
    spans: Vec<(usize, usize)>,
    open_quote: bool,
}

impl Cutter {
    fn cut(&mut self, text: &[u8], is_end: bool) -> Cut {
        match self {
            Self::Lines if is_end => Cut { end: text.len(), ..Cut::default() },
            Self::Lines => Cut { end: memrchr(b'\n', text).map_or(0, |end| end + 1), ..Cut::default() },
            Self::Delimited(dialect) => cut_delimited(text, *dialect, is_end),
            Self::Elements(phase) => cut_elements(text, phase, is_end),
        }
    }
}

fn cut_delimited(text: &[u8], dialect: Dialect, is_end: bool) -> Cut {
    let may_span = dialect.quote.is_some_and(|quote| memchr(quote, text).is_some());
    if !may_span {
        let end = if is_end { text.len() } else { memrchr(b'\n', text).map_or(0, |end| end + 1) };
        return Cut { end, ..Cut::default() };
    }
    let mut end = 0;
    loop {
        match record_end(text, end, dialect) {
            RecordEnd::After(next) => end = next,
            RecordEnd::Missing if is_end => return Cut { end: text.len(), ..Cut::default() },
            RecordEnd::Missing => return Cut { end, ..Cut::default() },
            RecordEnd::OpenQuote => return Cut { end, open_quote: true, ..Cut::default() },
        }
    }
}

/// Where a record of delimited text ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordEnd {
    /// The line end is before this place.
    After(usize),
    /// The text ends first.
    Missing,
    /// The text ends within a quoted field.
    OpenQuote,
}

/// Finds the end of the record that begins at `start`. A quote opens a field only at the field's first byte.
pub(super) fn record_end(text: &[u8], start: usize, dialect: Dialect) -> RecordEnd {
    let is_comment = text.get(start).is_some_and(|first| Some(*first) == dialect.comment);
    let Some(quote) = dialect.quote.filter(|_| !is_comment) else {
        return memchr(b'\n', &text[start..]).map_or(RecordEnd::Missing, |end| RecordEnd::After(start + end + 1));
    };
    let mut at = start;
    loop {
        let Some(found) = memchr2(quote, b'\n', &text[at..]) else { return RecordEnd::Missing };
        let found = at + found;
        if text[found] == b'\n' {
            return RecordEnd::After(found + 1);
        }
        at = found + 1;
        if found == start || text[found - 1] == dialect.delimiter {
            match closing_quote(text, at, quote) {
                Some((closing, _)) => at = closing + 1,
                None => return RecordEnd::OpenQuote,
            }
        }
    }
}

/// The place of the quote that closes the field whose text begins at `start`, and whether quotes are doubled in it.
pub(super) fn closing_quote(text: &[u8], start: usize, quote: u8) -> Option<(usize, bool)> {
    let (mut at, mut doubled) = (start, false);
    loop {
        let found = at + memchr(quote, &text[at..])?;
        if text.get(found + 1) != Some(&quote) {
            return Some((found, doubled));
        }
        doubled = true;
        at = found + 2;
    }
}

fn cut_elements(text: &[u8], phase: &mut Phase, is_end: bool) -> Cut {
    let mut cut = Cut::default();
    loop {
        let mut at = cut.end;
        while at < text.len() && (text[at].is_ascii_whitespace() || *phase == Phase::InArray && text[at] == b',') {
            at += 1;
        }
        cut.end = at;
        let Some(first) = text.get(at) else { return cut };
        match (*phase, first) {
            (Phase::Start, b'[') => (*phase, cut.end) = (Phase::InArray, at + 1),
            (Phase::Start, _) => *phase = Phase::Sequence,
            (Phase::InArray, b']') => (*phase, cut.end) = (Phase::End, at + 1),
            // Whatever follows the end is one record, which no reader understands.
            (Phase::End, _) => (cut.spans, cut.end) = ([cut.spans, vec![(at, text.len())]].concat(), text.len()),
            (Phase::InArray | Phase::Sequence, _) => match value_end(text, at) {
                Some(end) if end < text.len() || is_end => {
                    cut.spans.push((at, end));
                    cut.end = end;
                }
                // Cut off within a value: what is left of it says so, and needs no second complaint.
                _ if is_end => {
                    *phase = Phase::End;
                    cut.spans.push((at, text.len()));
                    cut.end = text.len();
                }
                _ => return cut,
            },
        }
    }
}

/// The end of the JSON value that begins at `start`, going by its brackets and strings only; none where the text ends first.
fn value_end(text: &[u8], start: usize) -> Option<usize> {
    let (mut at, mut depth) = (start, 0_usize);
    loop {
        match text.get(at)? {
            b'"' => {
                at = string_end(text, at + 1)?;
                if depth == 0 {
                    return Some(at);
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ if depth == 0 => {
                let rest = &text[at..];
                let ends =
                    |byte: &u8| matches!(byte, b',' | b']' | b'}' | b'{' | b'[' | b'"') || byte.is_ascii_whitespace();
                // At least one byte is taken, so that nonsense cannot stop the cutter.
                let length = rest.iter().skip(1).position(ends).map_or(rest.len(), |length| length + 1);
                return Some(at + length);
            }
            _ => {}
        }
        at += 1;
    }
}

fn string_end(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let found = at + memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[found] == b'"' {
            return Some(found + 1);
        }
        at = found + 2;
    }
}

/// A record without the line end.
pub(super) fn trim_line_end(record: &[u8]) -> &[u8] {
    let record = record.strip_suffix(b"\n").unwrap_or(record);
    record.strip_suffix(b"\r").unwrap_or(record)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const DIALECT: Dialect = Dialect { delimiter: b',', quote: Some(b'"'), comment: Some(b'#') };

    fn blocks(text: &[u8], cutter: Cutter) -> Blocks {
        let reader = Text::new(Box::new(Cursor::new(text.to_vec())), encoding_rs::UTF_8);
        Blocks::new("f", reader, Arc::default(), cutter)
    }

    fn ends(text: &str) -> (usize, bool) {
        let cut = Cutter::Delimited(DIALECT).cut(text.as_bytes(), false);
        (cut.end, cut.open_quote)
    }

    #[test]
    fn a_block_never_ends_within_quotes() {
        assert_eq!(ends("a,b\nc,"), (4, false));
        assert_eq!(ends("a,\"x\ny\"\nc"), (8, false));
        assert_eq!(ends("a,\"x\n"), (0, true));
        assert_eq!(ends("a,\"x\"\"\n\"\nz\n"), (11, false));
        // A quote inside a field or a comment is a letter.
        assert_eq!(ends("5\" pipe,1\nb,2\n"), (14, false));
        assert_eq!(ends("# don\"t\na,\"b\"\n"), (14, false));
    }

    #[test]
    fn a_quote_that_is_never_closed_costs_its_line_only() {
        let mut blocks = blocks(b"a,b\n1,2\n\"3,4\n5,6\n", Cutter::Delimited(DIALECT));
        assert_eq!(blocks.first_record(DIALECT, false).unwrap().unwrap(), b"a,b");
        let first = blocks.next().unwrap().unwrap();
        assert_eq!((first.text.as_slice(), first.first_line), (b"1,2\n".as_slice(), 2));
        let second = blocks.next().unwrap().unwrap();
        assert_eq!((second.text.as_slice(), second.first_line), (b"5,6\n".as_slice(), 4));
        assert_eq!((second.rejects[0].line, second.rejects[0].raw.as_str()), (Some(3), "\"3,4"));
    }

    #[test]
    fn a_line_beyond_the_limit_is_a_reject_and_the_next_is_read() {
        let text = [vec![b'x'; LONGEST_RECORD + 3 * BLOCK], b"\nok\n".to_vec()].concat();
        let mut blocks = blocks(&text, Cutter::Lines);
        let block = blocks.next().unwrap().unwrap();
        assert_eq!((block.text.as_slice(), block.first_line), (b"ok\n".as_slice(), 2));
        assert!(block.rejects[0].reason.contains("64 MiB"));
        assert!(block.rejects[0].raw.len() < 2 * Reject::MAX_RAW_BYTES);
    }

    #[test]
    fn elements_are_found_wherever_the_text_is_cut() {
        let text = br#" [ {"a": "]}\"", "b": [1, {"c": 2}]} , 5,"x" ,
            null ] "#;
        for cut in 0..text.len() {
            let (mut phase, mut found, mut held) = (Phase::Start, Vec::new(), text[..cut].to_vec());
            for is_end in [false, true] {
                let cut_at = cut_elements(&held, &mut phase, is_end);
                found.extend(
                    cut_at.spans.iter().map(|(from, to)| String::from_utf8_lossy(&held[*from..*to]).into_owned()),
                );
                held.drain(..cut_at.end);
                held.extend_from_slice(if is_end { b"" } else { &text[cut..] });
            }
            assert_eq!(found, [r#"{"a": "]}\"", "b": [1, {"c": 2}]}"#, "5", "\"x\"", "null"], "cut at {cut}");
            assert_eq!(phase, Phase::End);
        }
    }

    #[test]
    fn an_array_cut_off_says_so() {
        let mut blocks = blocks(b"[{\"a\":1},", Cutter::Elements(Phase::Start));
        assert_eq!(blocks.next().unwrap().unwrap().spans, [(1, 8)]);
        assert!(blocks.next().unwrap().unwrap().rejects[0].reason.contains("not closed"));
        assert!(blocks.next().unwrap().is_none());
    }

    #[test]
    fn old_line_ends_are_line_ends() {
        let mut blocks = blocks(b"a\rb\rc", Cutter::Lines);
        assert_eq!(blocks.next().unwrap().unwrap().text, b"a\nb\nc");
    }
}
