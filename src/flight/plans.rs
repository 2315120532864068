//! Plans on their way from the call that made a ticket to the one that redeems it, which is most often the next. A plan
//! that is not there any more is made anew from the ticket: nothing hangs on this but time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::access::Access;
use crate::query::Planned;

/// Plans kept at most: each holds a copy of the engine's settings, some tens of KiB.
const MOST: usize = 256;
/// How long a plan is kept: clients fetch at once, or much later.
const KEPT: Duration = Duration::from_secs(10);

/// The plans of tickets that were not redeemed yet.
#[derive(Default)]
pub(crate) struct Plans(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    plans: HashMap<Uuid, (Planned, Access)>,
    in_order: VecDeque<(Instant, Uuid)>,
}

impl Plans {
    /// Keeps the plan of a ticket, made for somebody with this access.
    pub(crate) fn keep(&self, ticket: Uuid, planned: Planned, access: Access) {
        let now = Instant::now();
        let mut kept = self.lock();
        kept.forget(now, MOST - 1);
        kept.plans.insert(ticket, (planned, access));
        kept.in_order.push_back((now, ticket));
    }

    /// The plan of a ticket, once, if what may be seen is still the same.
    pub(crate) fn take(&self, ticket: Uuid, access: &Access) -> Option<Planned> {
        let (planned, planned_for) = self.lock().plans.remove(&ticket)?;
        planned_for.is_same_as(access).then_some(planned)
    }

    /// Forgets plans nobody came for.
    pub(crate) fn sweep(&self) {
        self.lock().forget(Instant::now(), MOST);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Forgets what is old, and the oldest until no more than `most` are left.
    fn forget(&mut self, now: Instant, most: usize) {
        while let Some((kept_at, ticket)) = self.in_order.front().copied()
            && (self.plans.len() > most
                || now.saturating_duration_since(kept_at) >= KEPT
                || self.in_order.len() > 4 * MOST)
        {
            self.in_order.pop_front();
            self.plans.remove(&ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Schema;

    use super::*;
    use crate::access::{Grants, Principal};
    use crate::query::{Statement, StatementKind, StatementOptions, TablePins};

    fn planned() -> Planned {
        let (sql, options) = ("select 1".to_owned(), StatementOptions::default());
        Planned {
            statement: Statement { sql, parameters: vec![], pins: TablePins::new(), options },
            schema: Arc::new(Schema::empty()),
            parameters: vec![],
            kind: StatementKind::Query,
            plan: Arc::new(()),
            memory: Arc::default(),
            dependencies: None,
        }
    }

    fn ann(grants: &Arc<Grants>) -> Access {
        Access::granted(Principal { name: "ann".to_owned(), roles: [].into() }, Arc::clone(grants))
    }

    #[test]
    fn a_plan_is_taken_once_and_only_under_the_same_grants() {
        let (plans, grants) = (Plans::default(), Arc::new(Grants::default()));
        let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
        plans.keep(one, planned(), ann(&grants));
        plans.keep(other, planned(), ann(&grants));
        assert!(plans.take(one, &ann(&grants)).is_some() && plans.take(one, &ann(&grants)).is_none());
        assert!(plans.take(other, &ann(&Arc::new(Grants::default()))).is_none(), "grants were read anew");
    }

    #[test]
    fn few_are_kept() {
        let (plans, grants) = (Plans::default(), Arc::new(Grants::default()));
        let first = Uuid::new_v4();
        plans.keep(first, planned(), ann(&grants));
        for _ in 0..3 * MOST {
            let ticket = Uuid::new_v4();
            plans.keep(ticket, planned(), ann(&grants));
        }
        assert!(plans.lock().plans.len() <= MOST && plans.take(first, &ann(&grants)).is_none());
        for _ in 0..5 * MOST {
            let ticket = Uuid::new_v4();
            plans.keep(ticket, planned(), ann(&grants));
            plans.take(ticket, &ann(&grants)).unwrap();
        }
        assert!(plans.lock().in_order.len() <= 4 * MOST + 1);
    }
}
