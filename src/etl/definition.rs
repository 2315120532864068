//! What a load was made with, kept on the chain, and what follows when the definition changes.

use serde::{Deserialize, Serialize};

use crate::config::{TableDefinition, TableSource};
use crate::etl::EtlError;
use crate::lake::Chain;
use crate::model::{ColumnType, LoadMode};

/// What of a definition decides how loads meet what is there. Stands on the chain as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefinitionMark {
    /// How new rows meet old ones.
    pub mode: LoadMode,
    /// Columns that name a row.
    pub key: Vec<String>,
    /// What the rows come from.
    #[serde(default)]
    pub origin: Origin,
    /// BLAKE3 of the definition's text, in hex.
    pub text: String,
}

/// What rows come from: what is known of one kind means nothing to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Files.
    #[default]
    Files,
    /// A table of SQL Server.
    SqlServer,
}

impl Origin {
    fn in_words(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::SqlServer => "SQL Server",
        }
    }
}

impl DefinitionMark {
    /// The mark of a definition.
    pub fn of(definition: &TableDefinition) -> Self {
        Self {
            mode: definition.load.mode,
            key: definition.key.clone(),
            origin: match definition.source {
                TableSource::Files(_) => Origin::Files,
                TableSource::SqlServer(_) => Origin::SqlServer,
            },
            text: definition.content_hash.clone(),
        }
    }

    /// The mark a table was loaded with last; none before the first load and for what another program wrote.
    pub fn on(chain: &Chain) -> Option<Self> {
        serde_json::from_str(chain.definition_hash()?).ok()
    }
}

impl std::fmt::Display for DefinitionMark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Strings and an enum: they always become JSON.
        f.write_str(&serde_json::to_string(self).unwrap_or_default())
    }
}

/// Checks what can be said of a definition alone.
pub(super) fn check(definition: &TableDefinition) -> Result<(), EtlError> {
    let name = &definition.name;
    let file = definition.defined_in.display();
    let keyed_by_source = matches!(definition.source, TableSource::SqlServer(_));
    if definition.load.mode == LoadMode::Upsert && definition.key.is_empty() && !keyed_by_source {
        return Err(EtlError::Definition(format!(
            "table {name} has mode = \"upsert\" and no key; name the columns that tell rows apart as key in [table] of {file}"
        )));
    }
    for key in &definition.key {
        let declared = definition.columns.iter().find(|column| column.name == *key);
        if declared.is_some_and(|column| is_nested(&column.column_type)) {
            return Err(EtlError::Definition(format!(
                "column `{key}` of table {name} is a struct, array or map and cannot be part of its key; change [table] key in {file}"
            )));
        }
    }
    Ok(())
}

/// Checks that a table may be loaded anew in the place of what is there.
pub(super) fn check_reload(definition: &TableDefinition) -> Result<(), EtlError> {
    if !definition.writable {
        return Ok(());
    }
    Err(EtlError::Definition(format!(
        "table {} is writable, and loading it anew would take away what people wrote into it; where that is meant, take \
         `writable = true` out of {} first",
        definition.name,
        definition.defined_in.display()
    )))
}

/// Checks that the key's columns are among those that will be loaded.
pub(super) fn check_key(definition: &TableDefinition, columns: &arrow::datatypes::Schema) -> Result<(), EtlError> {
    for key in &definition.key {
        if columns.field_with_name(key).is_err() {
            let names: Vec<&str> = columns.fields().iter().map(|field| field.name().as_str()).collect();
            return Err(EtlError::Definition(format!(
                "column `{key}` of the key of {} is not among the columns that are loaded ({}); change [table] key in {}",
                definition.name,
                names.join(", "),
                definition.defined_in.display(),
            )));
        }
    }
    Ok(())
}

/// Checks that a key the definition names is the one the source tells its changes by.
pub(super) fn check_own_key(definition: &TableDefinition, own: &[String]) -> Result<(), EtlError> {
    let named = &definition.key;
    if own.is_empty() || named.is_empty() || named == own {
        return Ok(());
    }
    Err(EtlError::Definition(format!(
        "the key of {} is ({}) in {} and ({}) in the database, which tells its changes by that; leave key out",
        definition.name,
        named.join(", "),
        definition.defined_in.display(),
        own.join(", "),
    )))
}

/// Checks that loads under `new` may go on where those under `old` stopped.
pub(super) fn check_change(
    definition: &TableDefinition,
    old: Option<&DefinitionMark>,
    new: &DefinitionMark,
) -> Result<(), EtlError> {
    let Some(old) = old else { return Ok(()) };
    let name = &definition.name;
    if old.origin != new.origin {
        return Err(EtlError::Definition(format!(
            "table {name} was loaded from {} and comes from {} now, and the rows that are there would stay; run `lakegate \
             sync {name} --reload` to load it anew in their place",
            old.origin.in_words(),
            new.origin.in_words(),
        )));
    }
    let anew = format!("run `lakegate sync {name} --reload` to load it from all files anew");
    if new.mode == LoadMode::Upsert && old.key != new.key {
        return Err(EtlError::Definition(format!(
            "the key of table {name} changed from ({}) to ({}), and rows that are there may share a key; {anew}",
            old.key.join(", "),
            new.key.join(", "),
        )));
    }
    let problem = match (old.mode, new.mode) {
        (from, to) if from == to => None,
        (_, LoadMode::Upsert) => Some("rows that are there may share a key"),
        (_, LoadMode::Mirror) => Some("it is not known which of the rows that are there came from which file"),
        (_, LoadMode::Append | LoadMode::Replace) => None,
    };
    match problem {
        Some(problem) => Err(EtlError::Definition(format!(
            "table {name} was loaded with mode = \"{}\" and has mode = \"{}\" now: {problem}; {anew}",
            mode_name(old.mode),
            mode_name(new.mode),
        ))),
        None => Ok(()),
    }
}

fn is_nested(column_type: &ColumnType) -> bool {
    matches!(column_type, ColumnType::Struct(_) | ColumnType::Array(_) | ColumnType::Map(..))
}

fn mode_name(mode: LoadMode) -> &'static str {
    match mode {
        LoadMode::Append => "append",
        LoadMode::Upsert => "upsert",
        LoadMode::Replace => "replace",
        LoadMode::Mirror => "mirror",
    }
}
