//! Results that several may have: while they are made, and after that on disk for as long as there is room.
//!
//! A result is found by what it is and how it is encoded ([`ResultKey`]), so it never grows old: over another version of a
//! table, under other rights, it is another one. What was asked for longest ago makes room.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::delivery::stored_result::Disk;
use crate::delivery::{Identity, StoredResult};
use crate::model::WireProfile;

/// Results at most: each may have a file open, and what describes its messages in memory.
const MOST: usize = 256;

/// What a result is, and how it is encoded: two with the same have the same messages, or could have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResultKey(String);

impl ResultKey {
    /// The key of a result in messages of about so many bytes. Its columns' types are part of the identity.
    pub fn new(identity: &Identity, profile: WireProfile, message_bytes: usize) -> Self {
        Self(format!("{} {profile:?} {message_bytes}", identity.as_str()))
    }
}

/// The results there are. Clones are one.
#[derive(Debug)]
pub struct ResultCache<T>(Arc<Inner<T>>);

#[derive(Debug)]
struct Inner<T> {
    disk: Disk,
    table: Mutex<Table<T>>,
}

#[derive(Debug)]
struct Table<T> {
    entries: HashMap<ResultKey, Entry<T>>,
    /// Counts what is asked for.
    asked: u64,
}

#[derive(Debug)]
struct Entry<T> {
    result: Arc<T>,
    asked: u64,
}

impl<T> Clone for ResultCache<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> ResultCache<T> {
    /// None yet; they may take `size` bytes of disk.
    pub fn new(folder: Option<PathBuf>, size: u64) -> Self {
        let table = Mutex::new(Table { entries: HashMap::new(), asked: 0 });
        Self(Arc::new(Inner { disk: Disk::new(folder, size), table }))
    }

    /// Bytes that one result may take; none where nothing is kept at all.
    pub fn largest(&self) -> u64 {
        self.0.disk.largest
    }

    /// A place for the messages of a result.
    pub fn begin(&self) -> StoredResult {
        StoredResult::new(self.0.disk.clone())
    }

    /// The result of a key, which counts as asked for.
    pub fn get(&self, key: &ResultKey) -> Option<Arc<T>> {
        let mut table = self.table();
        table.asked += 1;
        let asked = table.asked;
        let entry = table.entries.get_mut(key)?;
        entry.asked = asked;
        Some(Arc::clone(&entry.result))
    }

    /// Lets a result be found, in place of that which was found before; the one that has come meanwhile where there is one.
    pub fn put(&self, key: &ResultKey, result: &Arc<T>, before: Option<&Arc<T>>) -> Option<Arc<T>> {
        let surplus = self.table().entries.len() >= MOST;
        if surplus {
            self.forget_oldest();
        }
        let mut table = self.table();
        let there = table.entries.get(key).map(|entry| Arc::clone(&entry.result));
        if let Some(there) = there.filter(|there| before.is_none_or(|before| !Arc::ptr_eq(there, before))) {
            return Some(there);
        }
        table.asked += 1;
        let entry = Entry { result: Arc::clone(result), asked: table.asked };
        table.entries.insert(key.clone(), entry);
        None
    }

    /// Lets a result be found no more.
    pub fn remove(&self, key: &ResultKey, result: &Arc<T>) {
        let mut table = self.table();
        if table.entries.get(key).is_some_and(|entry| Arc::ptr_eq(&entry.result, result)) {
            table.entries.remove(key);
        }
    }

    /// Forgets the one that was asked for longest ago, of those that nobody uses now; whether there was one.
    pub fn forget_oldest(&self) -> bool {
        let forgotten = {
            let mut table = self.table();
            // Whoever comes for one finds it under this lock.
            let unused = table.entries.iter().filter(|(_, entry)| Arc::strong_count(&entry.result) == 1);
            let oldest = unused.min_by_key(|(_, entry)| entry.asked).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| table.entries.remove(&oldest))
        };
        forgotten.is_some()
    }

    fn table(&self) -> MutexGuard<'_, Table<T>> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ResultKey {
        ResultKey(name.to_owned())
    }

    #[test]
    fn what_was_asked_for_longest_ago_goes_first_and_what_is_used_stays() {
        let cache = ResultCache::new(None, 1 << 20);
        for name in ["a", "b", "c"] {
            assert!(cache.put(&key(name), &Arc::new(name), None).is_none());
        }
        let used = cache.get(&key("b")).unwrap();
        cache.get(&key("a")).unwrap();
        assert!(cache.forget_oldest() && cache.get(&key("c")).is_none());
        assert!(cache.forget_oldest() && cache.get(&key("a")).is_none());
        assert!(!cache.forget_oldest(), "the last one is used");
        drop(used);
        assert!(cache.forget_oldest() && cache.get(&key("b")).is_none());
    }

    #[test]
    fn one_that_came_first_stays_and_one_that_is_over_is_replaced() {
        let cache = ResultCache::new(None, 1 << 20);
        let (first, second) = (Arc::new(1), Arc::new(2));
        assert!(cache.put(&key("a"), &first, None).is_none());
        let there = cache.put(&key("a"), &second, None).unwrap();
        assert!(Arc::ptr_eq(&there, &first));
        assert!(cache.put(&key("a"), &second, Some(&there)).is_none());
        cache.remove(&key("a"), &first);
        assert_eq!(cache.get(&key("a")).as_deref(), Some(&2));
        cache.remove(&key("a"), &second);
        assert!(cache.get(&key("a")).is_none());
    }

    #[test]
    fn there_are_only_so_many() {
        let cache = ResultCache::new(None, 1 << 20);
        for number in 0..2 * MOST {
            cache.put(&key(&number.to_string()), &Arc::new(number), None);
        }
        assert_eq!(cache.table().entries.len(), MOST);
        assert!(cache.get(&key("0")).is_none());
    }
}
