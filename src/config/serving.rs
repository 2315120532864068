//! From the low form to what those who are served may use, and what is kept of it.

use std::num::NonZeroUsize;

use crate::config::lakegate_file::{Surroundings, optional, positive};
use crate::config::low::{LowHistory, LowLimits};
use crate::config::reader::Field;
use crate::config::settings::{HistorySettings, ServingLimits};
use crate::config::values::Size;

/// With less, in bytes, a statement cannot sort two batches of ordinary rows, so even spilling fails.
const LEAST_STATEMENT_MEMORY: u64 = 8 << 20;
/// Places for statements at least: they wait for storage as well as they compute.
const LEAST_STATEMENTS: usize = 8;
/// Places for statements for each thread.
const STATEMENTS_PER_THREAD: usize = 4;
/// Least of a message's size, in bytes: a statement's text and its values.
const LEAST_REQUEST: u64 = 1 << 20;
/// Least of the headers' size, in bytes: a bearer token and what proxies add.
const LEAST_HEADERS: u64 = 8 << 10;

/// The limits, where memory and threads are known.
pub(super) fn serving_limits(
    low: &LowLimits,
    machine: Option<(usize, NonZeroUsize)>,
    around: &mut Surroundings<'_>,
) -> Option<ServingLimits> {
    let statement_memory = at_least(&low.statement_memory, LEAST_STATEMENT_MEMORY, "8MiB", around);
    let request_size = at_least(&low.request_size, LEAST_REQUEST, "1MiB", around);
    let header_size = at_least(&low.header_size, LEAST_HEADERS, "8KiB", around);
    let [queue_wait, idle_reader, result_window, session_idle] =
        [&low.queue_wait, &low.idle_reader, &low.result_window, &low.session_idle].map(|span| positive(span, around));
    let (memory, threads) = machine?;
    let usual = (STATEMENTS_PER_THREAD * threads.get()).max(LEAST_STATEMENTS);
    let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    Some(ServingLimits {
        statement_memory: statement_memory?.map_or(memory - memory / 4, bytes).min(memory),
        statements: optional(&low.statements)?.map(|count| count.0).or(NonZeroUsize::new(usual))?,
        admin_statements: low.admin_statements.copied()?.0,
        queue: low.queue.copied()?.0,
        queue_wait: queue_wait?,
        idle_reader: idle_reader?,
        result_bytes: optional(&low.result_bytes)?.map(|size| size.0),
        result_window: result_window?,
        max_result_bytes: optional(&low.max_result_bytes)?.map(|size| size.0),
        sessions: low.sessions.copied()?.0,
        sessions_per_person: low.sessions_per_person.copied()?.0,
        session_idle: session_idle?,
        connections: low.connections.copied()?.0,
        bound_statements: low.bound_statements.copied()?.0,
        bound_memory: bytes(low.bound_memory.copied()?.0),
        request_size: bytes(request_size??),
        header_size: u32::try_from(header_size??).unwrap_or(u32::MAX),
    })
}

/// What is kept of statements and sessions.
pub(super) fn history_settings(low: &LowHistory, around: &mut Surroundings<'_>) -> Option<HistorySettings> {
    let keep = positive(&low.keep, around);
    Some(HistorySettings { keep: keep?, size: low.size.copied()?.0, texts: low.texts.copied()?.0 })
}

/// A size that may be missing and is no slip; `None` when it is wrong.
fn at_least(field: &Field<Size>, least: u64, told: &str, around: &mut Surroundings<'_>) -> Option<Option<u64>> {
    if let Field::Given(at) = field
        && at.value.0 < least
    {
        around
            .problems
            .push(at.place.problem("the size is too small to work with").expected(format!("at least {told}")));
        return None;
    }
    optional(field).map(|size| size.map(|size| size.0))
}
