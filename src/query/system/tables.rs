//! `system.tables`: each table that is defined, with its newest version, none of whose columns has a value before the
//! first load, and each that people made.

use std::sync::Arc;

use datafusion::error::DataFusionError;
use futures::stream;
use futures::{StreamExt, TryStreamExt};

use crate::config::TableDefinition;
use crate::model::LoadMode;
use crate::query::sealed::seen_key;
use crate::query::system::columns::{Columns, count, failed, name, number, schema, text, time};
use crate::query::system::{BATCH_ROWS, Batches, Definition, PARALLEL_TABLES, System, Wanted};

/// `system.tables`. A table that people made has no `mode`, for nothing loads it.
pub(super) static TABLES: Definition = Definition {
    name: "tables",
    description: "Tables that are defined or that people made, with their newest version",
    told: "tables they may read; rows, bytes and files of those of which they see everything",
    columns: &[
        schema(),
        name(),
        number("version"),
        time("committed_at"),
        number("rows"),
        number("bytes"),
        number("files"),
        text("mode"),
        text("key_columns"),
        text("load_group"),
        text("description"),
    ],
    goes_through_tables: true,
    rows,
};

fn rows(system: System, wanted: Wanted) -> Batches {
    let names = system.names(&wanted, |name| wanted.names(name));
    let (settings, made) = (Arc::clone(&system.settings), Arc::clone(&wanted.made));
    stream::iter(names)
        .map(move |name| {
            let (system, made) = (system.clone(), made.get(&name).map(|table| Arc::clone(&table.newest)));
            async move {
                let snapshot = match made {
                    Some(newest) => Some(newest),
                    None => system.lake.table(&name).snapshot().await.map_err(failed)?,
                };
                Ok::<_, DataFusionError>((name, snapshot))
            }
        })
        .buffered(PARALLEL_TABLES)
        .try_chunks(BATCH_ROWS)
        .map_err(|error| error.1)
        .and_then(move |rows| {
            std::future::ready({
                let mut table = Columns::new(&TABLES);
                let snapshot = |get: &dyn Fn(&crate::lake::Snapshot) -> Option<i64>| {
                    rows.iter().map(|(_, s)| s.as_deref().and_then(get)).collect::<Vec<_>>()
                };
                let definition = |get: &dyn Fn(&TableDefinition) -> Option<String>| {
                    rows.iter().map(|(name, _)| settings.tables.get(name).and_then(get)).collect::<Vec<_>>()
                };
                table.names(rows.iter().map(|(name, _)| name));
                table.numbers(snapshot(&|s| count(s.version())));
                table.times(rows.iter().map(|(_, s)| s.as_deref().and_then(|s| s.committed_at())));
                let whole = |get: &dyn Fn(&crate::lake::Snapshot) -> Option<i64>| {
                    let whole = rows.iter().map(|(name, s)| s.as_deref().filter(|_| wanted.everything(name)));
                    whole.map(|s| s.and_then(get)).collect::<Vec<_>>()
                };
                table.numbers(whole(&|s| s.rows().and_then(count)));
                table.numbers(whole(&|s| count(s.bytes())));
                table.numbers(whole(&|s| i64::try_from(s.files()).ok()));
                table.texts(definition(&|d| Some(mode_text(d.load.mode).to_owned())));
                let keys = rows.iter().map(|(name, _)| {
                    let defined = settings.tables.get(name).map(|definition| &definition.key);
                    let key = defined.or_else(|| Some(&wanted.made.get(name)?.says.key))?;
                    let key = seen_key(key, &wanted.rights(name));
                    (!key.is_empty()).then(|| key.join(", "))
                });
                table.texts(keys.collect::<Vec<_>>());
                table.texts(definition(&|d| d.load.group.clone()));
                table.texts(definition(&|d| d.description.clone()));
                table.batch()
            })
        })
        .boxed()
}

fn mode_text(mode: LoadMode) -> &'static str {
    match mode {
        LoadMode::Append => "append",
        LoadMode::Upsert => "upsert",
        LoadMode::Replace => "replace",
        LoadMode::Mirror => "mirror",
    }
}
