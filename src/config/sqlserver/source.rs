//! `[source]` with a table of SQL Server.

use std::collections::HashSet;

use crate::config::lakegate_file::{Connections, Surroundings, refuse, unknown_connection};
use crate::config::low::LowSource;
use crate::config::reader::{At, Field};
use crate::config::settings::{Connection, SqlServerConnection};
use crate::config::table::{ColumnChoices, Method, SqlServerSource};
use crate::config::table_file::csv_places;
use crate::config::values::Chosen;

/// `max_rewrite` of tables of SQL Server where none is written: loads of such tables come every few seconds,
/// and each of them would rewrite much for a few scattered keys (`docs/decisions/0004-write-budget-is-opt-in.md`).
pub(in crate::config) const DEFAULT_MAX_REWRITE: f64 = 20.0;

/// Whether a source is a table of SQL Server: it names one, or its connection reaches SQL Server.
pub(in crate::config) fn is_sql_server(low: &LowSource, connections: &Connections) -> bool {
    let connection = low.connection.value().and_then(|name| connections.as_ref()?.get(&name.0));
    !matches!(low.table, Field::Missing) || matches!(connection, Some(Some(Connection::SqlServer(_))))
}

/// Notes the keys that only a table of SQL Server has, for a source that is files.
pub(in crate::config) fn refuse_source_keys(low: &LowSource, around: &mut Surroundings<'_>) {
    let places = [
        low.method.written_place(),
        low.timestamps.written_place(),
        low.sub_microseconds.written_place(),
        low.times.written_place(),
        low.variants.written_place(),
        low.offsets.written_place(),
        low.max_cell.written_place(),
        low.oversize.written_place(),
        low.leave_out.written_place(),
    ];
    let message = "this key means something for tables of SQL Server only, and this source is files";
    refuse(&places, message, "connection and table of a SQL Server, or no such key", around);
}

fn refuse_file_keys(low: &LowSource, around: &mut Surroundings<'_>) {
    let own = [low.files.written_place(), low.format.written_place(), low.settle.written_place()];
    let places = [&own[..], &csv_places(low)[..]].concat();
    let message = "this key means something for files only, and this source is a table of SQL Server";
    refuse(&places, message, "no such key", around);
}

/// A table of SQL Server as source.
pub(in crate::config) fn sql_server_source(
    at: &At<LowSource>,
    connections: &Connections,
    around: &mut Surroundings<'_>,
) -> Option<SqlServerSource> {
    let low = &at.value;
    refuse_file_keys(low, around);
    if matches!(low.table, Field::Missing) {
        around.problems.push(at.place.problem("the source has no `table`").expected("table = \"dbo.orders\""));
    }
    let connection = connection(at, connections, around);
    let leave_out = leave_out(low, around);
    if let (Some(method), Some(SqlServerConnection { name, read_intent: true, .. })) =
        (low.method.given(), connection.as_ref())
        && method.value.0 == Method::ChangeTracking
    {
        let message =
            format!("Change Tracking is not answered by readable secondaries, and [connections.{name}] may reach one");
        around.problems.push(method.place.problem(message).expected("read_intent = false there").warning());
    }
    let (table, Chosen(method)) = (low.table.copied()?, low.method.copied()?);
    let columns = ColumnChoices {
        timestamps: low.timestamps.copied()?.0,
        sub_microseconds: low.sub_microseconds.copied()?.0,
        times: low.times.copied()?.0,
        variants: low.variants.copied()?.0,
        offsets: low.offsets.copied()?,
        max_cell_bytes: low.max_cell.copied()?.0,
        oversize: low.oversize.copied()?.0,
        leave_out: leave_out?,
    };
    Some(SqlServerSource { connection: connection?, schema: table.schema, table: table.table, method, columns })
}

fn connection(
    at: &At<LowSource>,
    connections: &Connections,
    around: &mut Surroundings<'_>,
) -> Option<SqlServerConnection> {
    let name = match &at.value.connection {
        Field::Wrong => return None,
        Field::Missing => {
            let problem = at.place.problem("the source has a `table` and no `connection`");
            around.problems.push(problem.expected("the NAME of a [connections.NAME] with type = \"sqlserver\""));
            return None;
        }
        Field::Given(name) => name,
    };
    let connections = connections.as_ref()?;
    match connections.get(&name.value.0) {
        Some(Some(Connection::SqlServer(connection))) => Some(connection.clone()),
        Some(Some(Connection::S3(_))) => {
            let message = format!("[connections.{}] reaches a bucket, which has files and no tables", name.value.0);
            around.problems.push(name.place.problem(message).expected("a connection with type = \"sqlserver\""));
            None
        }
        // What is wrong with it has been said where it stands.
        Some(None) => None,
        None => {
            around.problems.push(unknown_connection(name, connections));
            None
        }
    }
}

/// Names each once; SQL Server mostly takes names that differ in case only for one.
fn leave_out(low: &LowSource, around: &mut Surroundings<'_>) -> Option<Vec<String>> {
    let names = low.leave_out.copied()?;
    let mut seen = HashSet::new();
    for name in &names {
        if !seen.insert(name.value.0.to_lowercase()) {
            around.problems.push(name.place.problem(format!("`{}` is left out twice", name.value.0)));
        }
    }
    Some(names.into_iter().map(|name| name.value.0).collect())
}
