//! Which tickets are being redeemed right now, so that they can be cancelled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The results on their way, by ticket. Clones are one list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Running(Arc<Mutex<List>>);

/// Each result has an id of its own, for a ticket may be redeemed several times at once.
type List = HashMap<Uuid, HashMap<Uuid, CancellationToken>>;

/// An entry of the list; leaves it when dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    list: Running,
    ticket: Uuid,
    result: Uuid,
}

impl Running {
    /// Enters a result that `stop` stops.
    pub(crate) fn register(&self, ticket: Uuid, stop: CancellationToken) -> Registration {
        let result = Uuid::new_v4();
        self.lock().entry(ticket).or_default().insert(result, stop);
        Registration { list: self.clone(), ticket, result }
    }

    /// Stops every result of a ticket; how many there were.
    pub(crate) fn cancel(&self, ticket: Uuid) -> usize {
        let list = self.lock();
        let results = list.get(&ticket).into_iter().flat_map(HashMap::values);
        results.inspect(|stop| stop.cancel()).count()
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut list = self.list.lock();
        if let Some(results) = list.get_mut(&self.ticket) {
            results.remove(&self.result);
            if results.is_empty() {
                list.remove(&self.ticket);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_leaves_the_list_when_it_ends() {
        let running = Running::default();
        let (ticket, stops) = (Uuid::new_v4(), [CancellationToken::new(), CancellationToken::new()]);
        let first = running.register(ticket, stops[0].clone());
        let second = running.register(ticket, stops[1].clone());
        drop(first);
        assert_eq!(running.cancel(ticket), 1);
        assert!(!stops[0].is_cancelled() && stops[1].is_cancelled());
        drop(second);
        assert_eq!(running.cancel(ticket), 0);
        assert!(running.lock().is_empty());
    }
}
