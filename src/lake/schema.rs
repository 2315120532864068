//! A table's columns, how they may change, and what the log says of them.
//!
//! A table may get new columns (nested ones too) and wider integers and decimals; files with a narrower
//! column are then written anew in the same commit. Everything else is refused by name.

mod conform;
mod widen;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use deltalake::DeltaTableError;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::{Action, Metadata, MetadataExt, Protocol, StructType, new_metadata};

use crate::error::ErrorKind;
use crate::lake::bounds::are_safe;
use crate::lake::snapshot::features;
use crate::lake::{LakeError, Snapshot, TableCreation};
use crate::model::{ColumnType, TableName};

pub(super) use conform::Conform;

/// Which columns have statistics.
const STATISTICS_COLUMNS: &str = "delta.dataSkippingStatsColumns";

/// How many columns have statistics where none are named.
const STATISTICS_COUNT: &str = "delta.dataSkippingNumIndexedCols";

/// Columns with statistics besides the key: a file's entry in the log stays below some ten kilobytes.
const MOST_STATISTICS_COLUMNS: usize = 64;

/// Commits between two checkpoints: a fresh reader then reads at most so many entries (the library's own
/// default is 100).
const CHECKPOINT_INTERVAL: &str = "10";

/// The table feature of columns of date and time without a zone.
const TIMESTAMP_NTZ: &str = "timestampNtz";

/// What a table's columns become when rows with other columns come.
#[derive(Debug)]
pub(super) struct Evolution {
    /// The columns afterwards.
    pub(super) schema: SchemaRef,
    /// Whether that is another schema than before.
    pub(super) changed: bool,
    /// Whether files that are there have to be written anew.
    pub(super) rewrite: bool,
}

/// The columns of a new table whose first rows have the columns `incoming`.
///
/// # Errors
/// `InvalidInput` when two names differ at most in case, or a type has no place in a table.
pub(super) fn first(table: &TableName, incoming: &Schema) -> Result<SchemaRef, LakeError> {
    let fields = incoming.fields().iter().map(|field| {
        let kind = column_type(table, field)?;
        Ok(Field::new(field.name(), kind.to_arrow(), field.is_nullable()))
    });
    let schema = Schema::new(fields.collect::<Result<Vec<_>, LakeError>>()?);
    check_names(table, &schema)?;
    Ok(Arc::new(schema))
}

/// What the columns `current` become when rows with the columns `incoming` come.
///
/// # Errors
/// `InvalidInput` that names table, column, old and new type when the rows do not fit.
pub(super) fn evolve(table: &TableName, current: &Schema, incoming: &Schema) -> Result<Evolution, LakeError> {
    let mut fields: Vec<FieldRef> = current.fields().iter().cloned().collect();
    let (mut changed, mut rewrite) = (false, false);
    for field in incoming.fields() {
        let Some(known) = fields.iter_mut().find(|known| known.name() == field.name()) else {
            let kind = column_type(table, field)?;
            fields.push(Arc::new(Field::new(field.name(), kind.to_arrow(), true)));
            changed = true;
            continue;
        };
        if matches!(field.data_type(), DataType::Null) {
            continue;
        }
        let (old, new) = (column_type(table, known)?, column_type(table, field)?);
        let merged = widen::merge(&old, &new).ok_or_else(|| does_not_fit(table, field.name(), &old, &new))?;
        if merged.changed {
            let wider = Field::new(known.name(), merged.kind.to_arrow(), known.is_nullable());
            *known = Arc::new(wider.with_metadata(known.metadata().clone()));
        }
        changed |= merged.changed;
        rewrite |= merged.rewrite;
    }
    for known in current.fields().iter().filter(|known| !known.is_nullable()) {
        if incoming.field_with_name(known.name()).is_err() {
            let text = format!("table {table}: column `{}` must have a value and is missing", known.name());
            return Err(LakeError::new(ErrorKind::InvalidInput, text));
        }
    }
    let schema = Schema::new(fields);
    check_names(table, &schema)?;
    Ok(Evolution { schema: Arc::new(schema), changed, rewrite })
}

/// What makes a table with the columns `schema`.
///
/// # Errors
/// When the columns cannot be a Delta schema.
pub(super) fn creation(table: &TableName, schema: &Schema, key: &[String]) -> Result<TableCreation, LakeError> {
    let kernel = kernel_schema(table, schema)?;
    let mut configuration = HashMap::from([("delta.checkpointInterval".to_owned(), CHECKPOINT_INTERVAL.to_owned())]);
    let (property, value) = statistics_property(&statistics_columns(schema, key));
    configuration.insert(property.to_owned(), value);
    let metadata = new_metadata(&kernel, Vec::<String>::new(), configuration)
        .map_err(|cause| LakeError::delta(format!("cannot describe table {table}"), cause.into()))?;
    let protocol = if has_timestamp_ntz(schema) {
        protocol(table, &HashSet::from([TIMESTAMP_NTZ.to_owned()]), &HashSet::from([TIMESTAMP_NTZ.to_owned()]))?
    } else {
        // The oldest protocol: every Delta reader and writer knows it.
        parse_protocol(table, serde_json::json!({"minReaderVersion": 1, "minWriterVersion": 2}))?
    };
    Ok(TableCreation { metadata, protocol })
}

/// The actions that give a table the columns `schema`.
///
/// # Errors
/// When the columns cannot be a Delta schema.
pub(super) fn actions(snapshot: &Snapshot, schema: &Schema, key: &[String]) -> Result<Vec<Action>, LakeError> {
    let eager = &snapshot.pinned().eager;
    let table = snapshot.place().name();
    let what = |cause: DeltaTableError| LakeError::delta(format!("cannot change the columns of table {table}"), cause);
    let (property, value) = statistics_property(&statistics_columns(schema, key));
    let metadata: Metadata = eager
        .metadata()
        .clone()
        .with_schema(&kernel_schema(table, schema)?)
        .and_then(|metadata| metadata.add_config_key(property.to_owned(), value))
        .map_err(|cause| what(cause.into()))?;
    let mut actions = vec![Action::Metadata(metadata)];
    let readers: HashSet<String> = features(eager.protocol(), "readerFeatures").into_iter().collect();
    if has_timestamp_ntz(schema) && !readers.contains(TIMESTAMP_NTZ) {
        actions.insert(0, Action::Protocol(with_timestamp_ntz(table, eager.protocol(), readers)?));
    }
    Ok(actions)
}

/// The columns with statistics, in order: those whose bounds are safe, the key's first of all.
pub(super) fn statistics_columns(schema: &Schema, key: &[String]) -> Vec<String> {
    let safe = |field: &&FieldRef| are_safe(field.data_type());
    let (named, others): (Vec<&FieldRef>, Vec<&FieldRef>) =
        schema.fields().iter().filter(safe).partition(|field| key.contains(field.name()));
    named
        .into_iter()
        .chain(others.into_iter().take(MOST_STATISTICS_COLUMNS))
        .map(|field| field.name().clone())
        .collect()
}

/// A column's name as a list of columns has it.
pub(super) fn quote(column: &str) -> String {
    let plain = column.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && column.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if plain { column.to_owned() } else { format!("`{}`", column.replace('`', "``")) }
}

fn statistics_property(columns: &[String]) -> (&'static str, String) {
    // An empty list would mean the library's default, the first columns whatever they are.
    if columns.is_empty() {
        return (STATISTICS_COUNT, "0".to_owned());
    }
    (STATISTICS_COLUMNS, columns.iter().map(|column| quote(column)).collect::<Vec<_>>().join(","))
}

fn with_timestamp_ntz(table: &TableName, now: &Protocol, mut readers: HashSet<String>) -> Result<Protocol, LakeError> {
    let mut writers: HashSet<String> = features(now, "writerFeatures").into_iter().collect();
    if writers.is_empty() {
        // What writer version 2 asks for without naming it (Delta protocol, "Supported Features").
        writers.extend(["appendOnly".to_owned(), "invariants".to_owned()]);
    }
    readers.insert(TIMESTAMP_NTZ.to_owned());
    writers.insert(TIMESTAMP_NTZ.to_owned());
    protocol(table, &readers, &writers)
}

fn protocol(table: &TableName, readers: &HashSet<String>, writers: &HashSet<String>) -> Result<Protocol, LakeError> {
    let sorted = |names: &HashSet<String>| {
        let mut names: Vec<String> = names.iter().cloned().collect();
        names.sort();
        names
    };
    let value = serde_json::json!({
        "minReaderVersion": 3,
        "minWriterVersion": 7,
        "readerFeatures": sorted(readers),
        "writerFeatures": sorted(writers),
    });
    parse_protocol(table, value)
}

fn parse_protocol(table: &TableName, value: serde_json::Value) -> Result<Protocol, LakeError> {
    serde_json::from_value(value).map_err(|cause| {
        LakeError::because(ErrorKind::Internal, format!("cannot describe the protocol of table {table}"), cause)
    })
}

fn kernel_schema(table: &TableName, schema: &Schema) -> Result<StructType, LakeError> {
    schema.try_into_kernel().map_err(|cause| {
        LakeError::because(ErrorKind::InvalidInput, format!("the columns of table {table} are no Delta schema"), cause)
    })
}

fn column_type(table: &TableName, field: &Field) -> Result<ColumnType, LakeError> {
    ColumnType::from_arrow(field.data_type()).ok_or_else(|| {
        let text = format!(
            "table {table}: column `{}` has the type {}, which no column of a table can have; declare its type in \
             [[columns]]",
            field.name(),
            field.data_type()
        );
        LakeError::new(ErrorKind::InvalidInput, text)
    })
}

fn does_not_fit(table: &TableName, column: &str, old: &ColumnType, new: &ColumnType) -> LakeError {
    let text = format!(
        "table {table}: column `{column}` is {old} and cannot take values of {new}; a column may only become a wider \
         integer or decimal: declare its type in [[columns]], correct the source, or load into a new table"
    );
    LakeError::new(ErrorKind::InvalidInput, text)
}

/// Delta tells columns apart without regard to case.
fn check_names(table: &TableName, schema: &Schema) -> Result<(), LakeError> {
    let root = DataType::Struct(schema.fields().clone());
    match duplicate(&root, "") {
        None => Ok(()),
        Some((first, second)) => {
            let text = format!(
                "table {table}: the columns `{first}` and `{second}` have one name (upper and lower case count as the \
                 same); rename one of them"
            );
            Err(LakeError::new(ErrorKind::InvalidInput, text))
        }
    }
}

fn duplicate(data_type: &DataType, path: &str) -> Option<(String, String)> {
    match data_type {
        DataType::Struct(fields) => {
            let mut seen: HashMap<String, &str> = HashMap::new();
            for field in fields {
                if let Some(first) = seen.insert(field.name().to_lowercase(), field.name()) {
                    return Some((format!("{path}{first}"), format!("{path}{}", field.name())));
                }
            }
            fields.iter().find_map(|field| duplicate(field.data_type(), &format!("{path}{}.", field.name())))
        }
        DataType::List(item) | DataType::Map(item, _) => duplicate(item.data_type(), path),
        _ => None,
    }
}

fn has_timestamp_ntz(schema: &Schema) -> bool {
    fn within(data_type: &DataType) -> bool {
        match data_type {
            DataType::Timestamp(_, None) => true,
            DataType::Struct(fields) => fields.iter().any(|field| within(field.data_type())),
            DataType::List(item) | DataType::Map(item, _) => within(item.data_type()),
            _ => false,
        }
    }
    schema.fields().iter().any(|field| within(field.data_type()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TableName {
        "ops.orders".parse().unwrap()
    }

    fn schema(columns: &[(&str, &str)]) -> Schema {
        let field =
            |(name, kind): &(&str, &str)| Field::new(*name, kind.parse::<ColumnType>().unwrap().to_arrow(), true);
        Schema::new(columns.iter().map(field).collect::<Vec<_>>())
    }

    fn evolved(old: &[(&str, &str)], new: &[(&str, &str)]) -> Result<Evolution, String> {
        evolve(&table(), &schema(old), &schema(new)).map_err(|error| error.to_string())
    }

    #[test]
    fn columns_are_added_at_the_end_and_inside_structs_without_a_rewrite() {
        let old = [("id", "int"), ("engine", "struct<count: int>")];
        let new = [("engine", "struct<kind: string, count: int>"), ("id", "int"), ("note", "string")];
        let evolution = evolved(&old, &new).unwrap();
        assert!(evolution.changed && !evolution.rewrite);
        let expected = schema(&[("id", "int"), ("engine", "struct<count: int, kind: string>"), ("note", "string")]);
        assert_eq!(evolution.schema.as_ref(), &expected);
    }

    #[test]
    fn wider_numbers_ask_for_a_rewrite_and_narrower_ones_for_nothing() {
        for (old, new, merged) in [
            ("smallint", "int", "int"),
            ("int", "bigint", "bigint"),
            ("decimal(10,2)", "decimal(12,4)", "decimal(12,4)"),
            ("int", "decimal(12,2)", "decimal(12,2)"),
            ("bigint", "decimal(20,0)", "decimal(20,0)"),
            ("array<int>", "array<bigint>", "array<bigint>"),
        ] {
            let evolution = evolved(&[("n", old)], &[("n", new)]).unwrap();
            assert!(evolution.changed && evolution.rewrite, "{old} to {new}");
            assert_eq!(evolution.schema.as_ref(), &schema(&[("n", merged)]), "{old} to {new}");
            let back = evolved(&[("n", merged)], &[("n", old)]).unwrap();
            assert!(!back.changed && !back.rewrite, "{old} into {merged}");
        }
    }

    #[test]
    fn other_changes_are_refused_with_both_types() {
        for (old, new) in [("int", "string"), ("double", "bigint"), ("date", "timestamp"), ("real", "double")] {
            let error = evolved(&[("n", old)], &[("n", new)]).unwrap_err();
            assert!(error.contains("ops.orders") && error.contains("`n`"), "{error}");
            assert!(error.contains(old) && error.contains(new), "{error}");
        }
    }

    #[test]
    fn names_that_differ_only_in_case_are_refused() {
        assert!(evolved(&[("id", "int")], &[("ID", "int")]).unwrap_err().contains("`id` and `ID`"));
        assert!(first(&table(), &schema(&[("a", "int"), ("A", "int")])).is_err());
        assert!(first(&table(), &schema(&[("s", "struct<x: int, X: int>")])).is_err());
    }

    #[test]
    fn only_safe_columns_have_statistics() {
        let columns = schema(&[("x", "double"), ("id", "bigint"), ("m", "decimal(19,4)"), ("odd name", "string")]);
        let key = ["odd name".to_owned()];
        assert_eq!(statistics_columns(&columns, &key), ["odd name", "id"]);
        let made = creation(&table(), &columns, &key).unwrap();
        assert_eq!(made.metadata.configuration()[STATISTICS_COLUMNS], "`odd name`,id");
        let made = creation(&table(), &schema(&[("x", "double")]), &[]).unwrap();
        assert_eq!(made.metadata.configuration()[STATISTICS_COUNT], "0");
    }

    #[test]
    fn only_a_timestamp_without_zone_asks_for_the_newer_protocol() {
        let plain = creation(&table(), &schema(&[("t", "timestamp")]), &[]).unwrap();
        assert!(features(&plain.protocol, "readerFeatures").is_empty());
        let zoneless = creation(&table(), &schema(&[("t", "array<timestamp_ntz>")]), &[]).unwrap();
        assert_eq!(features(&zoneless.protocol, "readerFeatures"), [TIMESTAMP_NTZ]);
    }
}
