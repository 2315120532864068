//! `lakegate grants explain`: what somebody may see and do with a table, and why.

use std::io::Write;

use indicatif::MultiProgress;

use crate::access::{Directory, Explanation};
use crate::cli::CliError;
use crate::cli::arguments::{Common, Explain};
use crate::cli::program::{self, Chatter};
use crate::config::problem::nearest;
use crate::config::{RESULTS_SCHEMA, Settings};
use crate::model::TableName;
use crate::query;

pub(super) fn explain(common: &Common, arguments: &Explain) -> Result<(), CliError> {
    let settings = program::settings(common, Chatter::Quiet, &MultiProgress::new())?;
    let directory = Directory::new(settings.access.files.clone(), settings.access.is_closed());
    let (user, claims, table) = (&arguments.user, &arguments.claims, &arguments.table);
    let own = query::told_of_own_tables();
    let told = own.iter().find(|(name, _)| *name == table.to_string()).map(|(_, told)| *told);
    let explanation = match told {
        Some(told) => directory.explain_own(user, claims, table, told),
        None => {
            let mut explanation = directory.explain(user, claims, table);
            explanation.notes.extend(unknown_table(&settings, table, own.into_iter().map(|(name, _)| name)));
            explanation
        }
    };
    let text = match arguments.json {
        true => serde_json::to_string_pretty(&explanation).map_err(|error| CliError::failed(&error))?,
        false => text(&explanation),
    };
    writeln!(std::io::stdout(), "{text}").map_err(CliError::stdout)
}

fn unknown_table(settings: &Settings, table: &TableName, own: impl Iterator<Item = String>) -> Option<String> {
    if settings.tables.contains_key(table) || table.schema() == RESULTS_SCHEMA {
        return None;
    }
    let known: Vec<_> = settings.tables.keys().map(ToString::to_string).chain(own).collect();
    let meant = nearest(&table.to_string(), known.iter().map(String::as_str));
    let hint = meant.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
    Some(format!("no definition makes a table {table}{hint}"))
}

/// For people.
fn text(found: &Explanation) -> String {
    let columns = match (&found.columns, found.visible) {
        (None, _) => "all, later ones too".to_owned(),
        (Some(columns), true) if !columns.is_empty() => columns.join(", "),
        _ => "none".to_owned(),
    };
    let mut lines = vec![
        format!("{} on {}: {}", found.principal, found.table, summary(found)),
        format!("  columns    {columns}"),
        format!("  write      {}", if found.write { "yes" } else { "no" }),
    ];
    lines.extend(found.told.iter().map(|told| format!("  rows       {told}")));
    let mut listed = |title: &str, entries: Vec<String>| {
        let entries = if entries.is_empty() { vec!["none".to_owned()] } else { entries };
        for (number, entry) in entries.into_iter().enumerate() {
            lines.push(format!("  {:10} {entry}", if number == 0 { title } else { "" }));
        }
    };
    listed("rows where", found.row_filters.iter().map(|kept| format!("{}  ({})", kept.sql, kept.at)).collect());
    let masks = found.masks.iter().map(|(column, kept)| format!("{column} as {}  ({})", kept.sql, kept.at));
    listed("masks", masks.collect());
    let grants = found.grants.iter().map(|grant| {
        let columns = grant.columns.as_ref().map(|columns| format!(" ({})", columns.join(", "))).unwrap_or_default();
        format!("{} {}{columns} to {}  ({})", grant.may.join(", "), grant.on, grant.to, grant.at)
    });
    listed("grants", grants.collect());
    let roles = found.roles.iter().map(|(role, why)| format!("{role}  ({})", why.join("; ")));
    listed("roles", roles.collect());
    lines.extend(found.notes.iter().map(|note| format!("  note       {note}")));
    lines.join("\n")
}

fn summary(found: &Explanation) -> &'static str {
    let kept_back =
        !found.row_filters.is_empty() || !found.masks.is_empty() || found.columns.is_some() || found.told.is_some();
    match (found.visible, kept_back) {
        (false, _) => "it is not there, not even by name",
        (true, true) => "parts of it are seen",
        (true, false) => "all of it is seen",
    }
}
