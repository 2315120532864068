//! Rows on the local disk: Arrow IPC files, written while they arrive and read batch by batch.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use flate2::Crc;

use crate::flight::client_cache::names;

/// Bytes that are looked at and written at once.
const BUFFER: usize = 1 << 20;

/// One open file with rows: its name may go while it is read.
pub(super) type OpenRows = FileReader<File>;

/// Rows that are on the disk, of one result, in order.
#[derive(Debug)]
pub(crate) struct KeptRows(VecDeque<OpenRows>);

impl KeptRows {
    /// Rows in several files of one schema, the first ones first.
    pub(super) fn new(files: impl IntoIterator<Item = OpenRows>) -> Self {
        Self(files.into_iter().collect())
    }

    /// The next rows; none at the end.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) fn next_batch(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        while let Some(file) = self.0.front_mut() {
            match file.next() {
                Some(batch) => return batch.map(Some),
                None => drop(self.0.pop_front()),
            }
        }
        Ok(None)
    }
}

/// Opens a file with rows that has been looked at.
pub(super) fn open(mut file: File) -> Result<OpenRows, ArrowError> {
    file.rewind()?;
    FileReader::try_new(file, None)
}

/// The CRC-32 of a file, reading all of it. Lets others go on meanwhile, such as who waits for Ctrl-C.
pub(super) async fn checksum(file: &mut File) -> io::Result<u32> {
    let (mut found, mut buffer) = (Crc::new(), vec![0; BUFFER]);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(found.sum());
        }
        found.update(&buffer[..read]);
        tokio::task::yield_now().await;
    }
}

/// Writes rows under a temporary name, counting their checksum. A file that does not get its own name goes with this; one that was
/// left by a process which died, by [`names::sweep`].
pub(crate) struct RowsWriter {
    rows: FileWriter<Sink>,
    part: Part,
}

impl RowsWriter {
    /// Begins a file that may take `limit` bytes; more is an error, as is a full disk.
    pub(super) fn begin(folder: &Path, schema: &Schema, limit: u64) -> Result<Self, ArrowError> {
        let part = Part::new(folder);
        let file = part.create()?;
        let file = BufWriter::with_capacity(BUFFER, file);
        let rows = FileWriter::try_new(Sink { file, length: 0, checksum: Crc::new(), limit }, schema)?;
        Ok(Self { rows, part })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// When the disk is full, or they are more than there is room for.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        self.rows.write(batch)
    }

    /// Puts all on the disk; gives the length in bytes, the CRC-32, and the file that waits for its name.
    pub(super) fn finish(self) -> Result<(u64, u32, Part), ArrowError> {
        let Self { rows, part } = self;
        let Sink { file, length, checksum, .. } = rows.into_inner()?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Ok((length, checksum.sum(), part))
    }
}

/// A file that has no name of its own yet; it goes when it is dropped before it gets one.
#[derive(Debug)]
pub(super) struct Part(PathBuf);

impl Part {
    pub(super) fn new(folder: &Path) -> Self {
        Self(folder.join(names::part()))
    }

    /// Makes the file, for nobody else to read.
    pub(super) fn create(&self) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.0)
    }

    /// Gives the file its name, in the place of what had it.
    pub(super) fn rename(self, path: &Path) -> io::Result<()> {
        fs::rename(&self.0, path)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Where it has its name by now, there is nothing.
        let _ = fs::remove_file(&self.0);
    }
}

/// Where the rows go.
struct Sink {
    file: BufWriter<File>,
    length: u64,
    checksum: Crc,
    limit: u64,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.length + bytes.len() as u64 > self.limit {
            let message = format!("the rows take more than the {} bytes there are for them", self.limit);
            return Err(io::Error::other(message));
        }
        let written = self.file.write(bytes)?;
        self.checksum.update(&bytes[..written]);
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
