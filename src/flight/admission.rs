//! Turns: how many statements compute at the same time, and who comes next.
//!
//! There are so many places. Who finds none free waits in a line of their own; lines take turns, one statement each,
//! and of one person's statements the first to come is the first to go. Members of the role `admin` have places
//! beyond these, and go ahead of all lines. What is given back goes to who is next at once.
//!
//! A place is held while a statement is planned and while the engine works for it. A result that waits for its client
//! gives its place away when somebody wants it (`housekeeping.rs`), and gets one again, ahead of its person's line,
//! when the client goes on.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tonic::Status;

use crate::config::ServingLimits;
use crate::flight::status::not_now;

/// The turns of one server. Clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Admission(Arc<Places>);

#[derive(Debug)]
struct Places {
    general: usize,
    reserved: usize,
    longest_queue: usize,
    patience: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    reserved_taken: usize,
    admins: VecDeque<Waiter>,
    lines: HashMap<String, VecDeque<Waiter>>,
    /// Those who have a line, in the order of their turns.
    turns: VecDeque<String>,
    waiting: usize,
    last: u64,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    give: oneshot::Sender<Slot>,
}

/// Who wants a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Person {
    /// Their name.
    pub(crate) name: String,
    /// Whether they have the role `admin`.
    pub(crate) is_admin: bool,
}

/// A place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    /// None once it was given on.
    places: Option<Arc<Places>>,
    reserved: bool,
}

impl Admission {
    /// All places free.
    pub(crate) fn new(limits: &ServingLimits) -> Self {
        Self(Arc::new(Places {
            general: limits.statements.get(),
            reserved: limits.admin_statements.get(),
            longest_queue: limits.queue.get(),
            patience: limits.queue_wait,
            state: Mutex::default(),
        }))
    }

    /// A place, now or after a while.
    ///
    /// # Errors
    /// `UNAVAILABLE` when too many wait already, or nobody made place in time.
    pub(crate) async fn enter(&self, person: &Person) -> Result<Slot, Status> {
        let mut waiting = match self.0.take_or_wait(person, false)? {
            Turn::Now(slot) => return Ok(slot),
            Turn::Later(waiting) => waiting,
        };
        match tokio::time::timeout(self.0.patience, &mut waiting.given).await {
            Ok(Ok(slot)) => Ok(slot),
            _ => Err(busy(&format!(
                "no place became free within {} (`limits.queue_wait`)",
                humantime::format_duration(self.0.patience)
            ))),
        }
    }

    /// A place for a statement that had one before: however long it takes, and ahead of the person's line.
    pub(crate) async fn enter_again(&self, person: &Person) -> Result<Slot, Status> {
        match self.0.take_or_wait(person, true)? {
            Turn::Now(slot) => Ok(slot),
            Turn::Later(mut waiting) => {
                (&mut waiting.given).await.map_err(|_| busy("the server gave up handing out places"))
            }
        }
    }

    /// How many wait for a place.
    pub(crate) fn waiting(&self) -> usize {
        self.0.lock().waiting
    }

    /// How many places are taken.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> usize {
        let state = self.0.lock();
        state.taken + state.reserved_taken
    }
}

enum Turn {
    Now(Slot),
    Later(Waiting),
}

/// Somebody who waits; leaves the line when dropped.
struct Waiting {
    places: Arc<Places>,
    person: Person,
    number: u64,
    given: oneshot::Receiver<Slot>,
}

impl Places {
    fn take_or_wait(self: &Arc<Self>, person: &Person, again: bool) -> Result<Turn, Status> {
        let mut state = self.lock();
        if state.taken < self.general {
            state.taken += 1;
            return Ok(Turn::Now(self.slot(false)));
        }
        if person.is_admin && state.reserved_taken < self.reserved {
            state.reserved_taken += 1;
            return Ok(Turn::Now(self.slot(true)));
        }
        if state.waiting >= self.longest_queue && !again && !person.is_admin {
            let told = format!("{} statements wait for their turn already (`limits.queue`)", state.waiting);
            return Err(busy(&told));
        }
        let (give, given) = oneshot::channel();
        state.last += 1;
        let number = state.last;
        state.line_up(person, Waiter { number, give }, again);
        Ok(Turn::Later(Waiting { places: Arc::clone(self), person: person.clone(), number, given }))
    }

    fn slot(self: &Arc<Self>, reserved: bool) -> Slot {
        Slot { places: Some(Arc::clone(self)), reserved }
    }

    /// Gives a place to who is next.
    fn give_on(self: &Arc<Self>, reserved: bool) {
        let mut state = self.lock();
        while let Some(next) = state.next(reserved) {
            match next.give.send(self.slot(reserved)) {
                Ok(()) => return,
                // Nobody is there any more: the place is still ours to give.
                Err(mut slot) => slot.places = None,
            }
        }
        if reserved {
            state.reserved_taken -= 1;
        } else {
            state.taken -= 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn line_up(&mut self, person: &Person, waiter: Waiter, ahead: bool) {
        self.waiting += 1;
        let line = if person.is_admin {
            &mut self.admins
        } else {
            if !self.lines.contains_key(&person.name) {
                self.turns.push_back(person.name.clone());
            }
            self.lines.entry(person.name.clone()).or_default()
        };
        if ahead { line.push_front(waiter) } else { line.push_back(waiter) }
    }

    fn next(&mut self, reserved: bool) -> Option<Waiter> {
        if let Some(admin) = self.admins.pop_front() {
            self.waiting -= 1;
            return Some(admin);
        }
        if reserved {
            return None;
        }
        let name = self.turns.pop_front()?;
        let line = self.lines.get_mut(&name)?;
        let next = line.pop_front();
        self.waiting -= usize::from(next.is_some());
        if line.is_empty() {
            self.lines.remove(&name);
        } else {
            self.turns.push_back(name);
        }
        next
    }

    fn leave(&mut self, person: &Person, number: u64) {
        let line = if person.is_admin { Some(&mut self.admins) } else { self.lines.get_mut(&person.name) };
        let Some(line) = line else { return };
        let before = line.len();
        line.retain(|waiter| waiter.number != number);
        self.waiting -= before - line.len();
        if line.is_empty() && !person.is_admin {
            self.lines.remove(&person.name);
            self.turns.retain(|name| *name != person.name);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.places.lock().leave(&self.person, self.number);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(places) = self.places.take() {
            places.give_on(self.reserved);
        }
    }
}

fn busy(told: &str) -> Status {
    not_now(format!("the server is busy: {told}; try again in a while"))
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures::FutureExt;

    use super::*;

    fn admission(statements: usize, queue: usize) -> Admission {
        let folder = tempfile::tempdir().unwrap();
        let mut limits = crate::config::load(folder.path(), None).unwrap().limits.serving;
        limits.statements = statements.try_into().unwrap();
        limits.admin_statements = 1.try_into().unwrap();
        limits.queue = queue.try_into().unwrap();
        limits.queue_wait = Duration::from_secs(600);
        Admission::new(&limits)
    }

    fn person(name: &str) -> Person {
        Person { name: name.to_owned(), is_admin: name == "root" }
    }

    type Asked<'a> = Pin<Box<dyn Future<Output = Result<Slot, Status>> + 'a>>;

    /// Asks for a place that is not free.
    fn ask<'a>(admission: &'a Admission, person: &'a Person) -> Asked<'a> {
        let mut asked: Asked<'a> = Box::pin(admission.enter(person));
        assert!((&mut asked).now_or_never().is_none());
        asked
    }

    #[tokio::test]
    async fn people_take_turns_and_each_is_served_in_order() {
        let admission = admission(1, 10);
        let (ann, bob) = (person("ann"), person("bob"));
        let held = admission.enter(&ann).await.unwrap();
        let mut asked = [&ann, &ann, &ann, &bob, &bob].map(|person| ask(&admission, person));
        assert_eq!(admission.waiting(), 5);
        let mut order = Vec::new();
        let mut place = Some(held);
        while order.len() < asked.len() {
            drop(place.take());
            for (number, waiting) in asked.iter_mut().enumerate() {
                if !order.contains(&number)
                    && let Some(slot) = waiting.now_or_never()
                {
                    order.push(number);
                    place = Some(slot.unwrap());
                }
            }
        }
        assert_eq!(order, [0, 3, 1, 4, 2]);
        drop(place);
        drop(asked);
        assert_eq!((admission.taken(), admission.waiting()), (0, 0));
    }

    #[tokio::test]
    async fn admins_always_get_in_and_go_ahead() {
        let admission = admission(1, 1);
        let (ann, root) = (person("ann"), person("root"));
        let held = admission.enter(&ann).await.unwrap();
        let mut waiting = ask(&admission, &ann);
        let reserved = admission.enter(&root).await.unwrap();
        let mut second = ask(&admission, &root);
        drop(held);
        let slot = (&mut second).now_or_never().expect("ahead of the others").unwrap();
        assert!((&mut waiting).now_or_never().is_none());
        drop(reserved);
        assert!((&mut waiting).now_or_never().is_none(), "a reserved place is not given to others");
        drop(slot);
        waiting.now_or_never().unwrap().unwrap();
        assert_eq!(admission.taken(), 0);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_says_so() {
        let admission = admission(1, 1);
        let ann = person("ann");
        let held = admission.enter(&ann).await.unwrap();
        let waiting = ask(&admission, &ann);
        let refused = admission.enter(&person("bob")).await.unwrap_err();
        assert!(
            refused.code() == tonic::Code::Unavailable && refused.message().contains("limits.queue"),
            "{refused:?}"
        );
        drop(waiting);
        assert_eq!(admission.waiting(), 0);
        drop(ask(&admission, &ann));
        drop(held);
        assert_eq!(admission.taken(), 0);
    }

    #[tokio::test]
    async fn who_leaves_the_line_takes_no_place_along() {
        let admission = admission(1, 10);
        let (ann, bob) = (person("ann"), person("bob"));
        let held = admission.enter(&ann).await.unwrap();
        let (gone, mut stays) = (ask(&admission, &ann), ask(&admission, &bob));
        drop(held);
        // The place was given to the first, who goes before taking it.
        drop(gone);
        let slot = (&mut stays).now_or_never().unwrap().unwrap();
        drop(slot);
        assert_eq!((admission.taken(), admission.waiting()), (0, 0));
    }

    #[tokio::test]
    async fn who_had_a_place_comes_before_those_of_the_same_person_who_had_none() {
        let admission = admission(1, 1);
        let ann = person("ann");
        let held = admission.enter(&ann).await.unwrap();
        let mut first = ask(&admission, &ann);
        let mut again: Asked<'_> = Box::pin(admission.enter_again(&ann));
        assert!((&mut again).now_or_never().is_none(), "though the queue is full");
        drop(held);
        assert!((&mut first).now_or_never().is_none());
        drop((&mut again).now_or_never().unwrap().unwrap());
        first.now_or_never().unwrap().unwrap();
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let mut limits = crate::config::load(folder.path(), None).unwrap().limits.serving;
        (limits.statements, limits.queue_wait) = (1.try_into().unwrap(), Duration::from_millis(20));
        let admission = Admission::new(&limits);
        let _held = admission.enter(&person("ann")).await.unwrap();
        let refused = admission.enter(&person("bob")).await.unwrap_err();
        assert!(refused.message().contains("limits.queue_wait"), "{refused:?}");
        assert_eq!(admission.waiting(), 0);
    }
}
