//! Which tables people may write to.

use crate::config::lakegate_file::Surroundings;
use crate::config::low::LowTable;
use crate::config::reader::{At, Field};
use crate::model::{LoadMode, TableName};

/// The schema of tables that are made by SQL and have no definition.
pub const RESULTS_SCHEMA: &str = "results";

/// Whether a definition says that its table may be written.
pub(super) fn is_writable(low: &LowTable) -> bool {
    low.table.value().and_then(|table| table.writable.value()).copied().unwrap_or(false)
}

/// Checks that nothing takes away what people write, and that a table without a source has columns.
pub(super) fn check(name: &TableName, low: &At<LowTable>, from_sql_server: bool, around: &mut Surroundings<'_>) {
    if name.schema() == RESULTS_SCHEMA {
        let message =
            format!("the schema `{RESULTS_SCHEMA}` holds tables that people make by SQL, which have no definition");
        around.problems.push(low.place.problem(message).expected("another folder below tables/"));
    }
    let Some(writable) = low.value.table.value().and_then(|table| table.writable.given()).filter(|at| at.value) else {
        return;
    };
    if from_sql_server {
        let message = "a table of SQL Server is what the database holds, so nothing else can be written into it";
        around.problems.push(writable.place.problem(message).expected("a table of its own for what you write"));
        return;
    }
    let load = low.value.load.value();
    if matches!(low.value.source, Field::Missing) {
        if low.value.columns.value().is_some_and(Vec::is_empty) {
            let message = "the table has no [source] to take its columns from, and none are declared";
            around.problems.push(low.place.problem(message).expected("[[columns]] with name and type"));
        }
        let schedule = load.and_then(|load| load.every.written_place().or(load.cron.written_place()));
        if let Some(place) = schedule {
            let problem = place.problem("the table has no [source], so there is nothing to load");
            around.problems.push(problem.expected("no `every` and no `cron`"));
        }
    }
    if let Some(group) = load.and_then(|load| load.group.given()) {
        let message = "tables of a group are shown as its loads published them, so what people write would not be seen";
        around.problems.push(group.place.problem(message).expected("no `group`, or not writable"));
    }
    let mode = load.and_then(|load| load.mode.given());
    if let Some(mode) = mode.filter(|mode| matches!(mode.value.0, LoadMode::Replace | LoadMode::Mirror)) {
        let message = "loads in this mode would take away the rows that people write, as the table is writable";
        around.problems.push(mode.place.problem(message).expected("mode = \"append\" or \"upsert\", or not writable"));
    }
}
