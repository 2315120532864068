//! What is going on right now: a list that things enter when they begin and leave when they end, however they end.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

/// Things that are going on, by id. Clones are one list.
#[derive(Debug)]
pub struct Live<T>(Arc<Mutex<HashMap<Uuid, Arc<T>>>>);

/// One of them; leaves the list when dropped.
#[derive(Debug)]
pub struct Entry<T> {
    live: Live<T>,
    id: Uuid,
    thing: Arc<T>,
}

impl<T> Live<T> {
    /// Enters something.
    pub fn enter(&self, id: Uuid, thing: Arc<T>) -> Entry<T> {
        self.lock().insert(id, Arc::clone(&thing));
        Entry { live: self.clone(), id, thing }
    }

    /// The thing of an id, while it goes on.
    pub fn get(&self, id: Uuid) -> Option<Arc<T>> {
        self.lock().get(&id).cloned()
    }

    /// All of them, in no order.
    pub fn all(&self) -> Vec<Arc<T>> {
        self.lock().values().cloned().collect()
    }

    /// Whether nothing goes on.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Live<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Deref for Entry<T> {
    type Target = Arc<T>;

    fn deref(&self) -> &Arc<T> {
        &self.thing
    }
}

impl<T> Drop for Entry<T> {
    fn drop(&mut self) {
        let mut live = self.live.lock();
        // Something else may have entered under the same id since: a result that goes on over another connection.
        if live.get(&self.id).is_some_and(|thing| Arc::ptr_eq(thing, &self.thing)) {
            live.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_leaves_the_list() {
        let live = Live::default();
        let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
        let first = live.enter(one, Arc::new("first"));
        let second = live.enter(other, Arc::new("second"));
        assert_eq!((**first, live.all().len()), ("first", 2));
        drop(first);
        assert!(live.get(one).is_none() && live.get(other).is_some());
        drop(second);
        assert!(live.is_empty());
    }

    #[test]
    fn what_was_replaced_does_not_take_along_what_came_in_its_place() {
        let (live, id) = (Live::default(), Uuid::new_v4());
        let first = live.enter(id, Arc::new("first"));
        let second = live.enter(id, Arc::new("second"));
        drop(first);
        assert_eq!(live.get(id).as_deref(), Some(&"second"));
        drop(second);
        assert!(live.is_empty());
    }
}
