//! The messages of results that were sent last, kept on disk for clients that are cut off and come back.
//!
//! Each result keeps its newest messages, a [`Tail`]: a client that is cut off lacks what was on its way, not more. A tail is
//! made of segments, files without a name that are gone with their process, of which the oldest makes room for the next. All
//! tails together have as many segments as the disk they may use; where there is none left, a tail is content with fewer, and
//! with none it keeps nothing.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use arrow::buffer::Buffer;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::delivery::{Position, WireMessage};
use crate::runtime::fault;

/// Bytes of a segment: three of the largest messages, and little enough for a hundred results to have one in a gigabyte.
const SEGMENT_BYTES: u64 = 8 << 20;
/// Segments of one tail: what stands in the buffers of both ends of a connection and in a client's windows is some 20 MiB at most.
const MOST_SEGMENTS: usize = 6;

/// The disk that results may use to keep what they sent. Clones are one.
#[derive(Clone, Debug)]
pub struct Spool {
    /// Where the files are; where temporary ones are where there is none.
    folder: Option<Arc<PathBuf>>,
    /// How many segments there may be still.
    room: Arc<Semaphore>,
}

impl Spool {
    /// Keeps at most `size` bytes; nothing where that is less than a segment.
    pub fn new(folder: Option<PathBuf>, size: u64) -> Self {
        let segments = usize::try_from(size / SEGMENT_BYTES).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { folder: folder.map(Arc::new), room: Arc::new(Semaphore::new(segments)) }
    }

    /// Begins to keep what a result sends.
    pub fn begin(&self) -> Tail {
        Tail { spool: self.clone(), segments: VecDeque::new(), kept: VecDeque::new(), given_up: false }
    }

    /// Whether there is no room for one more segment.
    pub fn is_full(&self) -> bool {
        self.room.available_permits() == 0
    }
}

/// Writes a message at a place of a file, which is made first where it is not there.
pub(super) fn write_message(
    folder: Option<&Path>,
    file: &OnceLock<File>,
    offset: u64,
    message: &WireMessage,
) -> io::Result<()> {
    if file.get().is_none() {
        // Nobody else is making it: messages are written one after the other.
        let _ = file.set(unnamed_file(folder)?);
    }
    let file = file.get().ok_or(io::ErrorKind::NotFound)?;
    file.write_all_at(&message.header, offset)?;
    let mut at = offset + message.header.len() as u64;
    for part in &message.body {
        file.write_all_at(part, at)?;
        at += part.len() as u64;
    }
    Ok(())
}

/// A file that is gone with its process, in a folder or where temporary ones are.
fn unnamed_file(folder: Option<&Path>) -> io::Result<File> {
    let Some(folder) = folder else { return tempfile::tempfile() };
    std::fs::create_dir_all(folder)?;
    tempfile::tempfile_in(folder)
}

/// The newest messages of a result, without a gap.
#[derive(Debug)]
pub struct Tail {
    spool: Spool,
    segments: VecDeque<Segment>,
    kept: VecDeque<Kept>,
    /// After the disk failed nothing is kept any more.
    given_up: bool,
}

#[derive(Debug)]
struct Segment {
    /// Made when it is first written to.
    file: Arc<OnceLock<File>>,
    len: u64,
    messages: usize,
    room: OwnedSemaphorePermit,
}

/// Where a message is.
#[derive(Debug)]
struct Kept {
    before: Position,
    label: Bytes,
    file: Arc<OnceLock<File>>,
    offset: u64,
    header: usize,
    body: usize,
}

impl Tail {
    /// Keeps a message that comes after `before`. What comes back writes it, and may block; until it is done nothing is read
    /// and no other message is written.
    pub fn put(
        &mut self,
        before: Position,
        message: &WireMessage,
    ) -> Option<impl FnOnce() -> io::Result<()> + Send + 'static + use<>> {
        let (header, body) = (message.header.len(), message.body_len());
        let len = (header + body) as u64;
        if self.given_up || len > SEGMENT_BYTES || !self.has_room(len) {
            self.clear();
            return None;
        }
        let segment = self.segments.back_mut()?;
        let (file, offset) = (Arc::clone(&segment.file), segment.len);
        segment.len += len;
        segment.messages += 1;
        let label = message.app_metadata.clone();
        self.kept.push_back(Kept { before, label, file: Arc::clone(&file), offset, header, body });
        let (spool, message) = (self.spool.clone(), message.clone());
        Some(move || write(&spool, &file, offset, &message))
    }

    /// What comes before the message of this number; none where it is not kept.
    pub fn before(&self, number: u64) -> Option<Position> {
        self.at(number).map(|kept| kept.before)
    }

    /// The message of this number; none where it is not kept. What comes back reads it, and may block.
    pub fn read(&self, number: u64) -> Option<impl FnOnce() -> io::Result<WireMessage> + Send + 'static + use<>> {
        let kept = self.at(number)?;
        let (file, offset, header, body) = (Arc::clone(&kept.file), kept.offset, kept.header, kept.body);
        let label = kept.label.clone();
        Some(move || -> io::Result<WireMessage> {
            let file = file.get().ok_or(io::ErrorKind::NotFound)?;
            let (mut head, mut rest) = (vec![0; header], vec![0; body]);
            file.read_exact_at(&mut head, offset)?;
            file.read_exact_at(&mut rest, offset + header as u64)?;
            let body = if rest.is_empty() { Vec::new() } else { vec![Buffer::from(rest)] };
            Ok(WireMessage { header: head.into(), body, app_metadata: label })
        })
    }

    /// Gives the disk back. What is sent from now on is kept.
    pub fn clear(&mut self) {
        self.kept.clear();
        self.segments.clear();
    }

    /// Gives the disk back, and keeps nothing from now on.
    pub fn give_up(&mut self) {
        self.given_up = true;
        self.clear();
    }

    fn at(&self, number: u64) -> Option<&Kept> {
        let first = self.kept.front()?.before.next;
        self.kept.get(usize::try_from(number.checked_sub(first)?).ok()?)
    }

    /// Whether the last segment has room for so many bytes, a new one if need be.
    fn has_room(&mut self, len: u64) -> bool {
        if self.segments.back().is_some_and(|last| last.len + len <= SEGMENT_BYTES) {
            return true;
        }
        let more = self.segments.len() < MOST_SEGMENTS;
        let room = more.then(|| Arc::clone(&self.spool.room).try_acquire_owned().ok()).flatten();
        let Some(room) = room.or_else(|| self.drop_oldest()) else { return false };
        self.segments.push_back(Segment { file: Arc::default(), len: 0, messages: 0, room });
        true
    }

    /// Takes the room of the oldest segment.
    fn drop_oldest(&mut self) -> Option<OwnedSemaphorePermit> {
        let oldest = self.segments.pop_front()?;
        self.kept.drain(..oldest.messages.min(self.kept.len()));
        Some(oldest.room)
    }
}

fn write(spool: &Spool, file: &OnceLock<File>, offset: u64, message: &WireMessage) -> io::Result<()> {
    fault::point("delivery.spool.write").map_err(io::Error::other)?;
    write_message(spool.folder.as_deref().map(PathBuf::as_path), file, offset, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn message(number: u64, bytes: usize) -> WireMessage {
        let header = Bytes::from(number.to_string().into_bytes());
        WireMessage { header, body: vec![Buffer::from(vec![number as u8; bytes])], app_metadata: Bytes::new() }
    }

    /// Sends messages of so many bytes; where the result is then.
    fn send(tail: &mut Tail, mut at: Position, bytes: &[usize]) -> Position {
        for bytes in bytes {
            let mut message = message(at.next, *bytes);
            let before = at;
            at = at.after(&message);
            message.app_metadata = at.label().into();
            if let Some(write) = tail.put(before, &message) {
                write().unwrap();
            }
        }
        at
    }

    fn is_kept(tail: &Tail, number: u64, bytes: usize) -> bool {
        let Some(read) = tail.read(number) else { return false };
        let read = read().unwrap();
        assert_eq!((&read.header, read.body_len()), (&message(number, 0).header, bytes));
        assert!(read.contiguous_body().iter().all(|byte| *byte == number as u8));
        Position::of_label(&read.app_metadata).unwrap().next == number + 1
    }

    #[test]
    fn what_was_sent_last_is_read_back_and_the_oldest_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(Some(folder.path().join("spool")), 16 << 20);
        let mut tail = spool.begin();
        let at = send(&mut tail, Position::default(), &[0, 3 * MIB, 3 * MIB]);
        assert!(is_kept(&tail, 0, 0) && is_kept(&tail, 1, 3 * MIB) && is_kept(&tail, 2, 3 * MIB));
        assert!(tail.before(3).is_none() && tail.before(2).unwrap().next == 2);
        // The second segment, and then the first again.
        send(&mut tail, at, &[6 * MIB, 6 * MIB]);
        assert!(!is_kept(&tail, 2, 3 * MIB) && is_kept(&tail, 3, 6 * MIB) && is_kept(&tail, 4, 6 * MIB));
        assert!(spool.is_full());
        assert_eq!(std::fs::read_dir(folder.path().join("spool")).unwrap().count(), 0, "files have no names");
        drop(tail);
        assert!(!spool.is_full());
    }

    #[test]
    fn without_room_nothing_is_kept_and_what_comes_later_has_no_gap() {
        let spool = Spool::new(None, 8 << 20);
        let (mut one, mut other) = (spool.begin(), spool.begin());
        let at = send(&mut one, Position::default(), &[10, 10]);
        assert!(send(&mut other, Position::default(), &[10]).next == 1 && !is_kept(&other, 0, 10));
        // Larger than any segment.
        let at = send(&mut one, at, &[9 * MIB]);
        assert!(!is_kept(&one, 1, 10) && !is_kept(&one, 2, 9 * MIB));
        send(&mut one, at, &[10]);
        assert!(is_kept(&one, 3, 10) && one.before(2).is_none());
        one.give_up();
        send(&mut other, Position::default(), &[10]);
        assert!(is_kept(&other, 0, 10));
        assert!(Spool::new(None, 0).begin().put(Position::default(), &message(0, 1)).is_none());
    }
}
