//! One result as it is kept: its messages in the order they were made, on bounded disk.
//!
//! Small ones stay in memory, where they cost less than a file. Others lie in segments, files without a name that are gone
//! with their process. A result that takes more than it may gives up its oldest segments, as far as all readers have passed
//! them; then it is whole no more.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use arrow::buffer::Buffer;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::delivery::WireMessage;
use crate::delivery::spool::write_message;

/// Bytes that disk is counted in.
const UNIT: u64 = 1 << 10;
/// Part of the disk that one result may take.
const PARTS: u64 = 4;
/// Parts of a result, where it takes all it may, that are given up one by one.
const SEGMENTS: u64 = 8;
/// Bytes of a segment at most: so few that giving one up leaves most, so many that files are few.
const LONGEST_SEGMENT: u64 = 64 << 20;
/// Bytes of a result that stay in memory: with as many of them as are kept at most, 8 MiB.
const SMALL: usize = 32 << 10;

/// Work that may block.
pub type Job<T> = Box<dyn FnOnce() -> io::Result<T> + Send>;

/// The disk that results may take. Clones are one.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    folder: Option<Arc<PathBuf>>,
    /// Units that are free.
    room: Arc<Semaphore>,
    /// Bytes that one result may take.
    pub(super) largest: u64,
}

impl Disk {
    /// So many bytes, in files in a folder or where temporary ones are.
    pub(super) fn new(folder: Option<PathBuf>, size: u64) -> Self {
        let units = usize::try_from(size / UNIT).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { folder: folder.map(Arc::new), room: Arc::new(Semaphore::new(units)), largest: size / PARTS }
    }

    fn take(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).ok()?;
        Arc::clone(&self.room).try_acquire_many_owned(units).ok()
    }
}

/// The messages of a result that are kept, without a gap.
#[derive(Debug)]
pub struct StoredResult {
    disk: Disk,
    segments: VecDeque<Segment>,
    messages: VecDeque<Stored>,
    /// The number of the first of them.
    first: u64,
    /// Bytes on disk.
    bytes: u64,
    /// Bytes in memory.
    small: usize,
    /// After the disk failed nothing is kept any more.
    given_up: bool,
}

#[derive(Debug)]
struct Segment {
    /// Made when it is first written to.
    file: Arc<OnceLock<File>>,
    len: u64,
    /// The number of the message that comes after its last.
    end: u64,
    room: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Stored {
    made: (u64, u64),
    place: Place,
}

#[derive(Debug)]
enum Place {
    Memory(WireMessage),
    Disk { file: Arc<OnceLock<File>>, offset: u64, header: usize, body: usize },
}

/// Whether a message is kept.
pub enum Put {
    /// It is, once this is done, if anything is to be done; until then it is not read, and no other is kept.
    Kept(Option<Job<()>>),
    /// There is no room.
    NoRoom,
}

/// Where a message was found.
pub enum Found {
    /// Here.
    Here(WireMessage),
    /// On disk: this reads it.
    OnDisk(Job<WireMessage>),
}

impl StoredResult {
    pub(super) fn new(disk: Disk) -> Self {
        let (segments, messages) = (VecDeque::new(), VecDeque::new());
        Self { disk, segments, messages, first: 0, bytes: 0, small: 0, given_up: false }
    }

    /// Keeps the message of a number, which is the next unless some before could not be kept, and how many rows and bytes
    /// were `made` with it. Room is made first by `others`, which says whether it gave anything up, then by what is before
    /// `passed`.
    pub fn put(
        &mut self,
        number: u64,
        message: &WireMessage,
        made: (u64, u64),
        passed: u64,
        others: impl FnMut() -> bool,
    ) -> Put {
        if self.given_up {
            return Put::NoRoom;
        }
        if number != self.end() {
            self.clear();
            self.first = number;
        }
        let (header, body) = (message.header.len(), message.body_len());
        if self.segments.is_empty() && self.small + header + body <= SMALL {
            self.small += header + body;
            self.messages.push_back(Stored { made, place: Place::Memory(apart(message)) });
            return Put::Kept(None);
        }
        let len = (header + body) as u64;
        let Some(room) = self.make_room(len, passed, others) else { return Put::NoRoom };
        let (file, offset) = self.place(number, len, room);
        let place = Place::Disk { file: Arc::clone(&file), offset, header, body };
        self.messages.push_back(Stored { made, place });
        let (disk, message) = (self.disk.clone(), message.clone());
        Put::Kept(Some(Box::new(move || write(&disk, &file, offset, &message))))
    }

    /// The message of a number, and what was made with it; none where it is not kept.
    pub fn read(&self, number: u64) -> Option<(Found, (u64, u64))> {
        let stored = self.messages.get(usize::try_from(number.checked_sub(self.first)?).ok()?)?;
        let found = match &stored.place {
            Place::Memory(message) => Found::Here(message.clone()),
            Place::Disk { file, offset, header, body } => {
                let (file, offset, header, body) = (Arc::clone(file), *offset, *header, *body);
                Found::OnDisk(Box::new(move || read(&file, offset, header, body)))
            }
        };
        Some((found, stored.made))
    }

    /// Whether all of the first so many messages are kept.
    pub fn has_first(&self, messages: u64) -> bool {
        !self.given_up && self.first == 0 && self.end() == messages
    }

    /// Gives the disk back, and keeps nothing from now on.
    pub fn give_up(&mut self) {
        self.given_up = true;
        self.clear();
    }

    fn end(&self) -> u64 {
        self.first + self.messages.len() as u64
    }

    fn clear(&mut self) {
        self.messages.clear();
        self.segments.clear();
        (self.bytes, self.small) = (0, 0);
    }

    fn make_room(&mut self, len: u64, passed: u64, mut others: impl FnMut() -> bool) -> Option<OwnedSemaphorePermit> {
        loop {
            let may_take = self.bytes + len <= self.disk.largest;
            if may_take && let Some(room) = self.disk.take(len) {
                return Some(room);
            }
            let is_room_made = (may_take && others()) || self.drop_oldest(passed);
            if !is_room_made {
                return None;
            }
        }
    }

    /// Gives up the oldest segment, if all its messages come before `passed`; whether there was one.
    fn drop_oldest(&mut self, passed: u64) -> bool {
        if self.segments.front().is_none_or(|oldest| oldest.end > passed) {
            return false;
        }
        let Some(oldest) = self.segments.pop_front() else { return false };
        self.bytes -= oldest.len;
        let gone = usize::try_from(oldest.end - self.first).unwrap_or(usize::MAX).min(self.messages.len());
        self.messages.drain(..gone);
        self.first = oldest.end;
        true
    }

    /// Where the next message goes: into the last segment, or a new one.
    fn place(&mut self, number: u64, len: u64, room: OwnedSemaphorePermit) -> (Arc<OnceLock<File>>, u64) {
        self.bytes += len;
        let longest = (self.disk.largest / SEGMENTS).min(LONGEST_SEGMENT);
        if let Some(last) = self.segments.back_mut().filter(|last| last.len + len <= longest) {
            let offset = last.len;
            last.room.merge(room);
            (last.len, last.end) = (offset + len, number + 1);
            return (Arc::clone(&last.file), offset);
        }
        let file = Arc::default();
        self.segments.push_back(Segment { file: Arc::clone(&file), len, end: number + 1, room });
        (file, 0)
    }
}

/// A message that holds nothing but its own bytes: it may share its buffers with much that is larger.
fn apart(message: &WireMessage) -> WireMessage {
    let body = match message.body_len() {
        0 => Vec::new(),
        _ => vec![Buffer::from(message.contiguous_body().to_vec())],
    };
    WireMessage { header: Bytes::copy_from_slice(&message.header), body, app_metadata: Bytes::new() }
}

fn write(disk: &Disk, file: &OnceLock<File>, offset: u64, message: &WireMessage) -> io::Result<()> {
    write_message(disk.folder.as_deref().map(PathBuf::as_path), file, offset, message)
}

fn read(file: &OnceLock<File>, offset: u64, header: usize, body: usize) -> io::Result<WireMessage> {
    let file = file.get().ok_or(io::ErrorKind::NotFound)?;
    let (mut head, mut rest) = (vec![0; header], vec![0; body]);
    file.read_exact_at(&mut head, offset)?;
    file.read_exact_at(&mut rest, offset + header as u64)?;
    let body = if rest.is_empty() { Vec::new() } else { vec![Buffer::from(rest)] };
    Ok(WireMessage { header: head.into(), body, app_metadata: Bytes::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn message(number: u64, bytes: usize) -> WireMessage {
        let body = vec![Buffer::from(vec![number as u8; bytes])];
        WireMessage { header: Bytes::from(number.to_string().into_bytes()), body, ..WireMessage::default() }
    }

    fn put(stored: &mut StoredResult, number: u64, bytes: usize, passed: u64) -> bool {
        match stored.put(number, &message(number, bytes), (number, 0), passed, || false) {
            Put::Kept(write) => {
                if let Some(write) = write {
                    write().unwrap();
                }
                true
            }
            Put::NoRoom => false,
        }
    }

    fn is_kept(stored: &StoredResult, number: u64, bytes: usize) -> bool {
        let Some((found, made)) = stored.read(number) else { return false };
        let found = match found {
            Found::Here(message) => message,
            Found::OnDisk(read) => read().unwrap(),
        };
        assert_eq!((&found.header, found.body_len(), made), (&message(number, 0).header, bytes, (number, 0)));
        found.contiguous_body().iter().all(|byte| *byte == number as u8)
    }

    #[test]
    fn what_was_put_is_read_back_and_small_results_need_no_disk() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("results");
        let disk = Disk::new(Some(place.clone()), 64 << 20);
        let mut stored = StoredResult::new(disk.clone());
        assert!(put(&mut stored, 0, 0, 0) && put(&mut stored, 1, 1000, 0));
        assert!(is_kept(&stored, 0, 0) && is_kept(&stored, 1, 1000) && !place.exists());
        assert!(put(&mut stored, 2, 3 * MIB, 0) && put(&mut stored, 3, 1, 0));
        assert!(is_kept(&stored, 0, 0) && is_kept(&stored, 2, 3 * MIB) && is_kept(&stored, 3, 1));
        assert!(stored.has_first(4) && stored.read(4).is_none());
        assert_eq!(std::fs::read_dir(place).unwrap().count(), 0, "files have no names");
        drop(stored);
        assert_eq!(disk.room.available_permits() as u64, (64 << 20) / UNIT);
    }

    #[test]
    fn a_result_takes_no_more_than_its_part_and_gives_up_only_what_all_have_passed() {
        let disk = Disk::new(None, 64 << 20);
        let mut stored = StoredResult::new(disk.clone());
        for number in 0..16 {
            assert!(put(&mut stored, number, MIB - 2, 0), "{number}");
        }
        assert!(!put(&mut stored, 16, MIB, 0), "somebody still needs the first");
        assert!(put(&mut stored, 16, MIB, 3));
        assert!(!stored.has_first(17) && stored.read(0).is_none() && is_kept(&stored, 15, MIB - 2));
        // One that was not kept leaves a gap, and what comes after it is kept anew.
        assert!(put(&mut stored, 18, MIB, 18));
        assert!(stored.read(16).is_none() && is_kept(&stored, 18, MIB));
        assert!(disk.room.available_permits() as u64 >= (62 << 20) / UNIT);
    }

    #[test]
    fn others_make_room_and_a_disk_that_fails_keeps_nothing() {
        let disk = Disk::new(None, 4 << 20);
        let mut others = vec![StoredResult::new(disk.clone()), StoredResult::new(disk.clone())];
        for other in &mut others {
            assert!(put(other, 0, MIB - 1, 0));
        }
        let (_one, _two) = (disk.take(MIB as u64).unwrap(), disk.take(MIB as u64).unwrap());
        let mut stored = StoredResult::new(disk.clone());
        assert!(!put(&mut stored, 0, MIB - 1, 0));
        assert!(matches!(stored.put(0, &message(0, MIB - 1), (0, 0), 0, || others.pop().is_some()), Put::Kept(_)));
        assert_eq!(others.len(), 1);
        let mut broken = StoredResult::new(Disk::new(Some("/dev/null/no-folder".into()), 64 << 20));
        let Put::Kept(Some(write)) = broken.put(0, &message(0, MIB), (0, 0), 0, || false) else { panic!("no room") };
        assert!(write().is_err());
        broken.give_up();
        assert!(!broken.has_first(1) && !put(&mut broken, 1, 1, 1));
    }
}
