//! Plans on their way from the call that made a ticket to the one that redeems it, which is most often the next. A plan
//! that is not there any more is made anew from the ticket: nothing hangs on this but time.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use datafusion::common::ScalarValue;
use uuid::Uuid;

use crate::access::Access;
use crate::query::{Planned, Statement};

/// Plans kept at most: each holds a copy of the engine's settings, some tens of KiB.
const MOST: usize = 256;
/// Bytes that plans kept may take together, as they are estimated.
const MOST_BYTES: usize = 64 << 20;
/// What a plan takes whatever it is of.
const PLAN_BYTES: usize = 64 << 10;
/// What it takes for each byte of its text: a literal and its comma take two, and an expression takes some 200.
const PLAN_BYTES_PER_TEXT_BYTE: usize = 128;
/// What it takes for each column of its result: a field with its name in each of several steps.
const PLAN_BYTES_PER_COLUMN: usize = 1 << 10;
/// How long a plan is kept: clients fetch at once, or much later.
const KEPT: Duration = Duration::from_secs(10);

/// The plans of tickets that were not redeemed yet.
#[derive(Default)]
pub(crate) struct Plans(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    plans: HashMap<Uuid, (Planned, Access)>,
    /// What they take together.
    bytes: usize,
    in_order: VecDeque<(Instant, Uuid)>,
}

impl Plans {
    /// Keeps the plan of a ticket, made for somebody with this access, unless it alone takes more than there is for all.
    pub(crate) fn keep(&self, ticket: Uuid, planned: Planned, access: Access) {
        let (now, bytes) = (Instant::now(), bytes_of(&planned));
        if bytes > MOST_BYTES {
            return;
        }
        let mut kept = self.lock();
        kept.forget(now, MOST - 1, MOST_BYTES - bytes);
        kept.bytes += bytes;
        kept.plans.insert(ticket, (planned, access));
        kept.in_order.push_back((now, ticket));
    }

    /// The plan of a ticket, once, if what may be seen is still the same.
    pub(crate) fn take(&self, ticket: Uuid, access: &Access) -> Option<Planned> {
        let (planned, planned_for) = self.lock().remove(ticket)?;
        planned_for.is_same_as(access).then_some(planned)
    }

    /// Forgets plans nobody came for.
    pub(crate) fn sweep(&self) {
        self.lock().forget(Instant::now(), MOST, MOST_BYTES);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn remove(&mut self, ticket: Uuid) -> Option<(Planned, Access)> {
        let removed = self.plans.remove(&ticket)?;
        self.bytes -= bytes_of(&removed.0);
        Some(removed)
    }

    /// Forgets what is old, and the oldest until no more than `most` are left, and they take no more than `most_bytes`.
    fn forget(&mut self, now: Instant, most: usize, most_bytes: usize) {
        while let Some((kept_at, ticket)) = self.in_order.front().copied()
            && (self.plans.len() > most
                || self.bytes > most_bytes
                || now.saturating_duration_since(kept_at) >= KEPT
                || self.in_order.len() > 4 * MOST)
        {
            self.in_order.pop_front();
            self.remove(ticket);
        }
    }
}

/// About how many bytes a plan takes, at most.
fn bytes_of(planned: &Planned) -> usize {
    let Statement { sql, parameters, .. } = &planned.statement;
    let values: usize = parameters.iter().map(ScalarValue::size).sum();
    let columns = planned.schema.fields().len();
    // Values stand in the statement and, once bound, in the plan.
    PLAN_BYTES + sql.len() * PLAN_BYTES_PER_TEXT_BYTE + columns * PLAN_BYTES_PER_COLUMN + 2 * values
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Schema;

    use super::*;
    use crate::access::{Grants, Principal};
    use crate::query::{StatementKind, StatementOptions, TablePins};

    fn planned() -> Planned {
        planned_of("select 1".to_owned())
    }

    fn planned_of(sql: String) -> Planned {
        let options = StatementOptions::default();
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
    fn what_is_kept_is_bounded_in_bytes() {
        let (plans, grants) = (Plans::default(), Arc::new(Grants::default()));
        let keep = |sql: String| {
            let ticket = Uuid::new_v4();
            plans.keep(ticket, planned_of(sql), ann(&grants));
            ticket
        };
        let long = || format!("select {}", "1,".repeat(50 << 10));
        let tickets: Vec<_> = (0..20).map(|_| keep(long())).collect();
        assert!(plans.lock().bytes <= MOST_BYTES);
        let huge = keep(format!("select '{}'", "x".repeat(1 << 20)));
        assert!(plans.take(huge, &ann(&grants)).is_none(), "it is not kept, and nothing goes for it");
        assert!(plans.take(tickets[19], &ann(&grants)).is_some() && plans.take(tickets[0], &ann(&grants)).is_none());
        let mut of_values = planned();
        of_values.statement.parameters = vec![ScalarValue::Utf8(Some("x".repeat(MOST_BYTES)))];
        let ticket = Uuid::new_v4();
        plans.keep(ticket, of_values, ann(&grants));
        assert!(plans.take(ticket, &ann(&grants)).is_none());
        for ticket in tickets {
            plans.take(ticket, &ann(&grants));
        }
        assert_eq!(plans.lock().bytes, 0);
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
