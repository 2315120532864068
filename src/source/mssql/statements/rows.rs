//! Statements that read rows of tables: changes, chunks, bounds, counts.

use std::fmt::Write;

use super::{SourceTable, quote, text_literal};
use crate::source::mssql::column::ColumnPlan;
use crate::source::mssql::key::{KeyColumn, KeyError};

const END: &str = " OPTION (MAXDOP 1);";

/// A part of a table by its key, as key texts ([`KeyColumn::text`]) of the first key columns; empty means open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyRange<'a> {
    /// Only rows after this key. If it has fewer columns than the key, no row that begins with it is included.
    pub after: &'a [String],
    /// Only rows up to this key, itself included. If it has fewer columns than the key, all rows that begin with it
    /// are included.
    pub until: &'a [String],
}

/// All that changed in a tracked table after version `since`. A row has: the version of its last change (`bigint`),
/// the operation (`nchar(1)`: I, U or D), the key by [`KeyColumn::plan`], whether the row is there now (`int`, 0 or 1),
/// then the columns of `plans`.
///
/// # Errors
/// When a text of the range is no value of its key column.
pub fn changes(
    table: &SourceTable,
    keys: &[KeyColumn],
    plans: &[ColumnPlan],
    since: i64,
    range: KeyRange<'_>,
) -> Result<String, KeyError> {
    let filter = Filter::new(keys, range, "CT")?;
    let present = keys.first().map(|key| format!("CASE WHEN T.{} IS NULL THEN 0 ELSE 1 END", quote(key.name())));
    let list = ["CT.SYS_CHANGE_VERSION".to_owned(), "CT.SYS_CHANGE_OPERATION".to_owned()]
        .into_iter()
        .chain(key_list(keys, "CT"))
        .chain(present)
        .chain(column_list(plans))
        .collect::<Vec<_>>();
    let join = keys.iter().map(|key| format!("T.{0} = CT.{0}", quote(key.name()))).collect::<Vec<_>>();
    Ok(format!(
        "{}SELECT {} FROM CHANGETABLE(CHANGES {table}, @last) AS CT LEFT OUTER JOIN {table} AS T ON {}{}{END}",
        filter.declare(&[format!("@last bigint = {since}")]),
        list.join(", "),
        join.join(" AND "),
        filter.clause(&[]),
    ))
}

/// The keys of all rows that changed after version `since`, by [`KeyColumn::plan`].
///
/// # Errors
/// When a text of the range is no value of its key column.
pub fn changed_keys(
    table: &SourceTable,
    keys: &[KeyColumn],
    since: i64,
    range: KeyRange<'_>,
) -> Result<String, KeyError> {
    let filter = Filter::new(keys, range, "CT")?;
    Ok(format!(
        "{}SELECT {} FROM CHANGETABLE(CHANGES {table}, @last) AS CT{}{END}",
        filter.declare(&[format!("@last bigint = {since}")]),
        key_list(keys, "CT").collect::<Vec<_>>().join(", "),
        filter.clause(&[]),
    ))
}

/// Which of many tables changed after a version each, in one round trip. A row has: the table's place in `tables`
/// (`int`), 1 if it changed, else 0 (`int`), and the oldest version from which its changes can be asked for (`bigint`,
/// NULL where the server does not tell). `tables` must not be empty.
pub fn idle(tables: &[(SourceTable, i64)]) -> String {
    let declared: Vec<_> =
        tables.iter().enumerate().map(|(place, (_, since))| format!("@v{place} bigint = {since}")).collect();
    let selects: Vec<_> = tables
        .iter()
        .enumerate()
        .map(|(place, (table, _))| {
            format!(
                "SELECT {place}, CASE WHEN EXISTS (SELECT 1 FROM CHANGETABLE(CHANGES {table}, @v{place}) AS c) \
                 THEN 1 ELSE 0 END, CHANGE_TRACKING_MIN_VALID_VERSION(OBJECT_ID({}))",
                text_literal(&table.to_string())
            )
        })
        .collect();
    format!("DECLARE {}; {}{END}", declared.join(", "), selects.join(" UNION ALL "))
}

/// The oldest version from which changes of a table can still be asked for: `bigint`. NULL when it is not tracked, is
/// not there or may not be seen, which must never be taken for 0.
pub fn min_valid_version(table: &SourceTable) -> String {
    format!("SELECT CHANGE_TRACKING_MIN_VALID_VERSION(OBJECT_ID({}));", text_literal(&table.to_string()))
}

/// The first `rows` rows of a range in key order, in the columns of `plans`. For the next chunk, `range.after` is the
/// key of the last row.
///
/// # Errors
/// When a text of the range is no value of its key column.
pub fn chunk(
    table: &SourceTable,
    keys: &[KeyColumn],
    plans: &[ColumnPlan],
    range: KeyRange<'_>,
    rows: u64,
) -> Result<String, KeyError> {
    let filter = Filter::new(keys, range, "T")?;
    let order: Vec<_> = keys.iter().map(|key| format!("T.{}", quote(key.name()))).collect();
    Ok(format!(
        "{}SELECT TOP ({rows}) {} FROM {table} AS T{} ORDER BY {}{END}",
        filter.declare(&[]),
        column_list(plans).collect::<Vec<_>>().join(", "),
        filter.clause(&[]),
        order.join(", "),
    ))
}

/// All rows of a range in no order, in the columns of `plans`.
///
/// # Errors
/// When a text of the range is no value of its key column.
pub fn range(
    table: &SourceTable,
    keys: &[KeyColumn],
    plans: &[ColumnPlan],
    range: KeyRange<'_>,
) -> Result<String, KeyError> {
    let filter = Filter::new(keys, range, "T")?;
    let columns = column_list(plans).collect::<Vec<_>>().join(", ");
    Ok(format!("{}SELECT {columns} FROM {table} AS T{}{END}", filter.declare(&[]), filter.clause(&[])))
}

/// All rows of a table in no order, in the columns of `plans`: for tables without a key.
pub fn whole(table: &SourceTable, plans: &[ColumnPlan]) -> String {
    format!("SELECT {} FROM {table} AS T{END}", column_list(plans).collect::<Vec<_>>().join(", "))
}

/// The key of every row of a table in no order, by [`KeyColumn::plan`].
pub fn keys(table: &SourceTable, keys: &[KeyColumn]) -> String {
    format!("SELECT {} FROM {table} AS T{END}", key_list(keys, "T").collect::<Vec<_>>().join(", "))
}

/// Rows whose row version is `from` or above, in the columns of `plans`. There is no upper bound: under SNAPSHOT what is
/// seen is one state of the table, and all of it that is new.
pub fn newer_rows(table: &SourceTable, column: &str, from: u64, plans: &[ColumnPlan]) -> String {
    format!(
        "{} SELECT {} FROM {table} AS T WHERE T.{} >= @lo{END}",
        low_mark(from),
        column_list(plans).collect::<Vec<_>>().join(", "),
        quote(column),
    )
}

/// How many rows a table has, and how many of them have a row version of `from` or above: two results of one `bigint`.
pub fn newer_count(table: &SourceTable, column: &str, from: u64) -> String {
    format!(
        "{} SELECT COUNT_BIG(*) FROM {table} AS T{END} SELECT COUNT_BIG(*) FROM {table} AS T WHERE T.{} >= @lo{END}",
        low_mark(from),
        quote(column),
    )
}

fn low_mark(from: u64) -> String {
    format!("DECLARE @lo binary(8) = 0x{from:016X};")
}

/// How many rows a range has: `bigint`.
///
/// # Errors
/// When a text of the range is no value of its key column.
pub fn count(table: &SourceTable, keys: &[KeyColumn], range: KeyRange<'_>) -> Result<String, KeyError> {
    let filter = Filter::new(keys, range, "T")?;
    Ok(format!("{}SELECT COUNT_BIG(*) FROM {table} AS T{}{END}", filter.declare(&[]), filter.clause(&[])))
}

/// The least and the greatest value of a key column as key texts: two results of one, NULL in an empty table. Asked for
/// at once, the whole key would be read; one by one, each is an end of its index.
pub fn bounds(table: &SourceTable, key: &KeyColumn) -> String {
    let column = key.ordered(&format!("T.{}", quote(key.name())));
    let of = |end: &str| format!("SELECT {} FROM {table} AS T{END}", key.server_text(&format!("{end}({column})")));
    format!("{} {}", of("MIN"), of("MAX"))
}

/// Where to cut a table into `parts` of equal size by its first key column. A row has: the part's number from 1
/// (`bigint`), and the greatest value in it as a key text. It reads the whole key.
pub fn key_splits(table: &SourceTable, key: &KeyColumn, parts: u32) -> String {
    let column = format!("T.{}", quote(key.name()));
    format!(
        "SELECT x.tile, {} FROM (SELECT {} AS k, NTILE({parts}) OVER (ORDER BY {column}) AS tile FROM {table} AS T) \
         AS x GROUP BY x.tile ORDER BY x.tile{END}",
        key.server_text("MAX(x.k)"),
        key.ordered(&column),
    )
}

fn key_list(keys: &[KeyColumn], alias: &str) -> impl Iterator<Item = String> {
    keys.iter().flat_map(|key| key.plan().select(alias)).collect::<Vec<_>>().into_iter()
}

fn column_list(plans: &[ColumnPlan]) -> impl Iterator<Item = String> {
    plans.iter().flat_map(|plan| plan.select("T"))
}

/// A range as variables and a condition.
struct Filter {
    declared: Vec<String>,
    conditions: Vec<String>,
}

impl Filter {
    fn new(keys: &[KeyColumn], range: KeyRange<'_>, alias: &str) -> Result<Self, KeyError> {
        let (mut declared, mut conditions) = (Vec::new(), Vec::new());
        for (texts, prefix, last, not_last) in [(range.after, "a", ">", ">"), (range.until, "z", "<=", "<")] {
            if texts.len() > keys.len() {
                return Err(KeyError::Columns { kept: texts.len(), columns: keys.len() });
            }
            let mut sides = Vec::new();
            for (place, (key, text)) in keys.iter().zip(texts).enumerate() {
                let variable = format!("@{prefix}{}", place + 1);
                declared.push(format!("{variable} {} = {}", key.variable_type(), key.literal(text)?));
                sides.push((format!("{alias}.{}", quote(key.name())), key.operand(&variable)));
            }
            if let Some(condition) = compare(&sides, last, not_last) {
                conditions.push(condition);
            }
        }
        Ok(Self { declared, conditions })
    }

    fn declare(&self, more: &[String]) -> String {
        let all: Vec<_> = more.iter().chain(&self.declared).map(String::as_str).collect();
        if all.is_empty() { String::new() } else { format!("DECLARE {}; ", all.join(", ")) }
    }

    fn clause(&self, more: &[String]) -> String {
        let all: Vec<_> = more.iter().chain(&self.conditions).map(String::as_str).collect();
        if all.is_empty() { String::new() } else { format!(" WHERE {}", all.join(" AND ")) }
    }
}

/// Compares columns with variables as one key, so that the first column alone bounds the part of the index that is
/// read: `k1 >= @a1 AND (k1 > @a1 OR k2 > @a2)`.
fn compare(sides: &[(String, String)], last: &str, strict: &str) -> Option<String> {
    let ((column, variable), rest) = sides.split_first()?;
    let Some(deeper) = compare(rest, last, strict) else {
        return Some(format!("{column} {last} {variable}"));
    };
    let deeper = if rest.len() > 1 { format!("({deeper})") } else { deeper };
    let mut condition = String::new();
    // Writing to a String cannot fail.
    let _ = write!(condition, "{column} {strict}= {variable} AND ({column} {strict} {variable} OR {deeper})");
    Some(condition)
}
