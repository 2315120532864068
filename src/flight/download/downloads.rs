//! The downloads there are, and how long those rest whose clients were cut off.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tonic::Status;
use uuid::Uuid;

use crate::config::SpoolSettings;
use crate::delivery::{Opening, Position, Spool};
use crate::flight::caller::Caller;
use crate::flight::download::{Core, Download, Kept, Wanted, Way};
use crate::flight::gate::Pass;
use crate::flight::rows::{Outgoing, RunRows};
use crate::flight::service::Service;

/// Downloads that rest at most: each may hold a few messages that were made ahead. One of which all was sent makes room, else the
/// one that rests longest.
const MOST_AT_REST: usize = 128;
/// How long the end of a result is kept of which all was sent: what is on its way then is through sooner.
const WHOLE: Duration = Duration::from_secs(30);
/// How long a download rests whose connection is still open: its client gave it up, unless somebody between the two did.
const GIVEN_UP: Duration = Duration::from_secs(2);

/// The downloads of one server. Clones are one.
#[derive(Clone)]
pub(crate) struct Downloads(Arc<Inner>);

struct Inner {
    spool: Spool,
    keep: Duration,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// Whether the server stops: then nothing rests.
    closed: bool,
    by_ticket: HashMap<Uuid, Entry>,
}

struct Entry {
    kept: Arc<Kept>,
    /// Where it was read from last.
    address: Option<SocketAddr>,
    /// Since when nobody reads it.
    rests: Option<Instant>,
    /// Whether all of it was made when it was left: hardly anybody comes back to those.
    is_whole: bool,
}

impl Downloads {
    /// None yet.
    pub(crate) fn new(settings: &SpoolSettings) -> Self {
        let spool = Spool::new(settings.folder.clone(), settings.size);
        Self(Arc::new(Inner { spool, keep: settings.keep, table: Mutex::default() }))
    }

    /// Begins a download of rows that are made from the first one on, for a client that wants them from a position on.
    pub(crate) fn begin(&self, caller: &Caller, rows: RunRows, next: Outgoing, wanted: Wanted) -> Download {
        let ticket = rows.run.handle.ticket;
        let (shared, mut tail) = (rows.shared().map(|shared| (shared, Vec::new())), self.0.spool.begin());
        if shared.is_some() {
            tail.give_up();
        }
        let core = Mutex::new(Core {
            reader: 0,
            waker: None,
            rows: Some(rows),
            is_whole: false,
            made: Position::default(),
            left_out: (wanted.from.next > 0).then_some(wanted.from),
            tail,
            shared,
            opening: Opening::new(self.0.spool.begin()),
            opens: None,
            writing: None,
            reading: None,
        });
        let kept = Arc::new(Kept { ticket, access: caller.access.clone(), core });
        let entry = Entry { kept: Arc::clone(&kept), address: caller.address, rests: None, is_whole: false };
        let before = {
            let mut table = self.table();
            if table.closed { None } else { table.by_ticket.insert(ticket, entry) }
        };
        // Whoever reads the one before still reads on; nobody can come back to it.
        if let Some(before) = before.filter(|before| before.rests.is_some()) {
            before.kept.let_go();
        }
        Download { kept, downloads: self.clone(), reader: 0, way: Way::new(wanted, next), ended: false }
    }

    /// Goes on with the download of a ticket; gives the pass back where what comes after the position is not there any more.
    ///
    /// # Errors
    /// When the caller may not see it any more, or had other rows before.
    pub(crate) fn resume(
        &self,
        (service, caller): (&Service, &Caller),
        (ticket, sql, wanted): (Uuid, &str, Wanted),
        pass: Pass,
    ) -> Result<Result<Download, Pass>, Status> {
        let claimed = {
            let mut table = self.table();
            table.by_ticket.get_mut(&ticket).map(|entry| {
                let before = (entry.address, entry.rests);
                (entry.address, entry.rests) = (caller.address, None);
                (Arc::clone(&entry.kept), before)
            })
        };
        let Some((kept, before)) = claimed else { return Ok(Err(pass)) };
        let resumed = match kept.holds(&caller.access, wanted) {
            Ok(true) => kept.go_on((service, caller), (sql, wanted, pass)),
            Ok(false) => {
                self.forget(&kept);
                return Ok(Err(pass));
            }
            Err(status) => Err(status),
        };
        let mut table = self.table();
        if let Some(entry) = table.by_ticket.get_mut(&ticket).filter(|entry| Arc::ptr_eq(&entry.kept, &kept)) {
            match &resumed {
                // The one before may have left while this one came.
                Ok(download) if kept.is_read_by(download.reader) => entry.rests = None,
                Ok(_) => {}
                // Whoever has it, or comes for it with better right, finds it as it was; its reader may have left meanwhile.
                Err(_) => (entry.address, entry.rests) = (before.0, entry.rests.or(before.1)),
            }
        }
        drop(table);
        resumed.map(Ok)
    }

    /// The reader of a download has left it. It rests, if somebody can come back to it and has not yet.
    pub(super) fn rests(&self, kept: &Arc<Kept>, reader: u64) {
        let is_whole = kept.is_whole();
        let gone = {
            let mut table = self.table();
            let closed = table.closed;
            match table.by_ticket.get_mut(&kept.ticket).filter(|entry| Arc::ptr_eq(&entry.kept, kept)) {
                // Whoever came back meanwhile reads it.
                Some(_) if !kept.is_left_by(reader) => None,
                Some(entry) if !closed => {
                    (entry.rests, entry.is_whole) = (Some(Instant::now()), is_whole);
                    table.surplus()
                }
                Some(_) => table.by_ticket.remove(&kept.ticket).map(|entry| entry.kept),
                None => Some(Arc::clone(kept)),
            }
        };
        if let Some(gone) = gone {
            gone.let_go();
        }
    }

    /// Nobody can come back to a download any more.
    pub(super) fn forget(&self, kept: &Arc<Kept>) {
        {
            let mut table = self.table();
            if table.by_ticket.get(&kept.ticket).is_some_and(|entry| Arc::ptr_eq(&entry.kept, kept)) {
                table.by_ticket.remove(&kept.ticket);
            }
        }
        kept.let_go();
    }

    /// Forgets what rested long enough, what was stopped, and what its client gave up: it did where the connection it was read
    /// over is still open.
    pub(crate) fn sweep(&self, is_open: impl Fn(SocketAddr) -> bool) {
        let at_rest: Vec<_> = {
            let table = self.table();
            let resting = table.by_ticket.values().filter_map(|entry| Some((entry, entry.rests?)));
            resting
                .map(|(entry, since)| (Arc::clone(&entry.kept), since, entry.address.is_some_and(&is_open)))
                .collect()
        };
        // Who has one that was stopped is told so once they take something again, and nobody goes on with it: the disk it
        // held is others'.
        let read: Vec<_> = {
            let table = self.table();
            let read = table.by_ticket.values().filter(|entry| entry.rests.is_none());
            read.map(|entry| Arc::clone(&entry.kept)).collect()
        };
        read.iter().filter(|kept| kept.is_stopped()).for_each(|kept| kept.give_disk_back());
        let no_room = self.0.spool.is_full();
        for (kept, since, is_open) in at_rest {
            let (rested, is_whole) = (since.elapsed(), kept.is_whole());
            let longest = match (is_whole, is_open) {
                (true, _) if no_room => Duration::ZERO,
                (true, _) => self.0.keep.min(WHOLE),
                (false, true) => self.0.keep.min(GIVEN_UP),
                (false, false) => self.0.keep,
            };
            if rested >= longest || kept.is_stopped() {
                self.forget_at_rest(&kept, since);
            } else {
                kept.end_without_standing();
            }
        }
    }

    /// From now on nothing rests: the server stops.
    pub(crate) fn close(&self) {
        let at_rest: Vec<Entry> = {
            let mut table = self.table();
            table.closed = true;
            table.by_ticket.extract_if(|_, entry| entry.rests.is_some()).map(|(_, entry)| entry).collect()
        };
        at_rest.iter().for_each(|entry| entry.kept.let_go());
    }

    /// Forgets a download, unless somebody came back to it meanwhile.
    fn forget_at_rest(&self, kept: &Arc<Kept>, since: Instant) {
        let removed = {
            let mut table = self.table();
            let still = table.by_ticket.get(&kept.ticket);
            let still = still.is_some_and(|entry| Arc::ptr_eq(&entry.kept, kept) && entry.rests == Some(since));
            still.then(|| table.by_ticket.remove(&kept.ticket)).flatten()
        };
        if let Some(removed) = removed {
            removed.kept.let_go();
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Takes out the one that is missed least, where too many rest.
    fn surplus(&mut self) -> Option<Arc<Kept>> {
        let resting =
            || self.by_ticket.iter().filter_map(|(ticket, entry)| Some((!entry.is_whole, entry.rests?, *ticket)));
        if resting().count() <= MOST_AT_REST {
            return None;
        }
        let (_, _, ticket) = resting().min()?;
        self.by_ticket.remove(&ticket).map(|entry| entry.kept)
    }
}
