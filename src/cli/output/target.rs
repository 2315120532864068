//! Where bytes go: standard output, or a file that appears only when it is whole.

use std::fs::File;
use std::io::{self, BufWriter, Stdout, Write};
use std::path::{Path, PathBuf};

/// Buffered, so that a row is not a system call.
const BUFFER: usize = 256 * 1024;

/// Where bytes go.
pub(super) enum Target {
    /// To whoever reads our output.
    Stdout(BufWriter<Stdout>),
    /// Into a file beside its final name.
    File(BufWriter<File>, Part),
}

/// A file that is not whole yet; it goes when it is dropped before [`Target::finish`].
pub(super) struct Part {
    path: PathBuf,
    wanted: PathBuf,
    whole: bool,
}

impl Target {
    pub(super) fn open(file: Option<&Path>) -> io::Result<Self> {
        let Some(wanted) = file else { return Ok(Self::Stdout(BufWriter::with_capacity(BUFFER, io::stdout()))) };
        if wanted.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
        }
        let name = wanted.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it names no file"))?;
        let path = wanted.with_file_name(format!(".{}.{}.part", name.to_string_lossy(), std::process::id()));
        let file = File::create(&path)?;
        Ok(Self::File(BufWriter::with_capacity(BUFFER, file), Part { path, wanted: wanted.to_owned(), whole: false }))
    }

    /// Whether this is a file, which can be read from its end.
    pub(super) fn is_file(&self) -> bool {
        matches!(self, Self::File(..))
    }

    /// Everything is written: a file gets its name.
    pub(super) fn finish(self) -> io::Result<()> {
        match self {
            Self::Stdout(mut out) => out.flush(),
            Self::File(out, mut part) => {
                out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
                std::fs::rename(&part.path, &part.wanted)?;
                part.whole = true;
                Ok(())
            }
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.whole {
            // What stays behind is hidden and named as a part.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(out) => out.write(bytes),
            Self::File(out, _) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(out) => out.flush(),
            Self::File(out, _) => out.flush(),
        }
    }
}
