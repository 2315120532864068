//! From the low form of a table definition to the high one.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::config::S3Connection;
use crate::config::foreign_keys;
use crate::config::lakegate_file::{Connections, Surroundings, connection, location, optional, positive, refuse};
use crate::config::low::{FormatWord, LowColumn, LowLoad, LowSource, LowTable};
use crate::config::reader::{At, Field, OneOrMany, Place};
use crate::config::sqlserver::{self, is_sql_server, sql_server_source};
use crate::config::table::{
    ColumnDefinition, CsvOptions, FileFormat, FileSource, LoadSettings, Schedule, TableDefinition, TableSource,
};
use crate::config::values::{Byte, Text};
use crate::config::writable::{self, is_writable};
use crate::model::{ColumnType, LoadMode, Location, TableName};

/// The definition of one table, checked as a whole.
pub(super) fn definition(
    name: TableName,
    defined_in: PathBuf,
    content_hash: String,
    low: &At<LowTable>,
    connections: &Connections,
    around: &mut Surroundings<'_>,
) -> Option<TableDefinition> {
    let blocks = low.value.source.value().map(|OneOrMany(blocks)| blocks.as_slice()).unwrap_or_default();
    let origin = match blocks.iter().any(|block| is_sql_server(&block.value, connections)) {
        true => Origin::SqlServer,
        false => Origin::Files,
    };
    writable::check(&name, low, origin == Origin::SqlServer, around);
    let source = source(low, connections, around);
    let load = low.value.load.value().and_then(|load| load_settings(load, origin, around));
    let key = key(&low.value, around);
    let columns = match origin {
        Origin::Files => {
            check_key_columns(&low.value, around);
            check_upsert(&low.value, around);
            columns(&low.value, key.as_deref().unwrap_or_default(), around)
        }
        Origin::SqlServer => {
            check_left_out(blocks, key.as_deref().unwrap_or_default(), around);
            no_columns(&low.value, around)
        }
    };
    let key = key?.into_iter().map(|at| at.value.0).collect();
    let foreign_keys = foreign_keys::foreign_keys(&low.value, around);
    Some(TableDefinition {
        name,
        defined_in,
        content_hash,
        source: source?,
        load: load?,
        key,
        columns: columns?,
        description: optional(&low.value.description)?,
        writable: is_writable(&low.value),
        foreign_keys: foreign_keys?,
    })
}

/// What kind of source a table has; many keys mean something for one of them only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Files,
    SqlServer,
}

fn source(low: &At<LowTable>, connections: &Connections, around: &mut Surroundings<'_>) -> Option<TableSource> {
    let given = match &low.value.source {
        Field::Given(at) => at,
        Field::Wrong => return None,
        Field::Missing if is_writable(&low.value) => return Some(TableSource::Files(Vec::new())),
        Field::Missing => {
            let problem = low.place.problem("the table has no [source], so there is nothing to load");
            around.problems.push(
                problem
                    .expected("[source] with files = \"landing/*.csv\" or the like, or [table] with writable = true"),
            );
            return None;
        }
    };
    if given.value.0.is_empty() {
        around.problems.push(given.place.problem("the list of sources is empty").expected("at least one"));
        return None;
    }
    let blocks = &given.value.0;
    match blocks.iter().find(|block| is_sql_server(&block.value, connections)) {
        None => {
            let made: Vec<_> = blocks.iter().map(|source| file_source(source, connections, around)).collect();
            made.into_iter().collect::<Option<_>>().map(TableSource::Files)
        }
        Some(table) if blocks.len() == 1 => sql_server_source(table, connections, around).map(TableSource::SqlServer),
        Some(table) => {
            let message =
                format!("a table of SQL Server is the only source of its table, and here are {}", blocks.len());
            around.problems.push(table.place.problem(message).expected("one [source]"));
            None
        }
    }
}

fn file_source(at: &At<LowSource>, connections: &Connections, around: &mut Surroundings<'_>) -> Option<FileSource> {
    let low = &at.value;
    if matches!(low.files, Field::Missing) {
        let problem = at.place.problem("the source has neither `files` nor `table`");
        around.problems.push(problem.expected(
            "files = \"landing/*.csv\" or \"s3://bucket/prefix/**/*.parquet\", or connection and table of a SQL Server",
        ));
    }
    sqlserver::refuse_source_keys(low, around);
    let files = low.files.given().and_then(|files| pattern(files, around));
    let connection: Option<Option<S3Connection>> = connection(&low.connection, files.as_ref(), connections, around);
    let word = format_word(low, around);
    let format = match word {
        Some(FormatWord::Csv) => csv_options(low, around).map(FileFormat::Csv),
        Some(FormatWord::Parquet) => Some(FileFormat::Parquet),
        Some(FormatWord::Ndjson) => Some(FileFormat::Ndjson),
        Some(FormatWord::Json) => Some(FileFormat::Json),
        None => None,
    };
    if word.is_some_and(|word| word != FormatWord::Csv) {
        refuse_csv_options(low, around);
    }
    if let (Some(settle), Some(Location::S3 { .. })) = (low.settle.written(), &files) {
        let message = "settle has no effect on a bucket, where files appear whole";
        around.problems.push(settle.place.problem(message).warning());
    }
    Some(FileSource { files: files?, connection: connection?, format: format?, settle: low.settle.copied()?.0 })
}

/// What makes a path a pattern.
const WILDCARDS: [char; 4] = ['*', '?', '[', '{'];

/// The place of the files, with a pattern that can be matched.
fn pattern(at: &At<Text>, around: &mut Surroundings<'_>) -> Option<Location> {
    let location = location(at, around)?;
    if let Err(error) = globset::GlobBuilder::new(&at.value.0).literal_separator(true).build() {
        let message = format!("{:?} is no pattern: {}", at.value.0, error.kind());
        around.problems.push(at.place.problem(message).expected("a path with *, ?, [a-z], {a,b} or **"));
        return None;
    }
    let below_folder = matches!(&location, Location::Local(path) if path.starts_with(around.folder));
    if below_folder && around.folder.to_string_lossy().contains(WILDCARDS) {
        let folder = around.folder.display();
        let message = format!("the folder {folder} has a character in its name that counts as a wildcard");
        around.problems.push(at.place.problem(message).expected("a folder without *, ?, [ and {, or an absolute path"));
        return None;
    }
    Some(location)
}

/// The format that is written, or else told by the ending of the files.
fn format_word(low: &LowSource, around: &mut Surroundings<'_>) -> Option<FormatWord> {
    match &low.format {
        Field::Given(at) => return Some(at.value.0),
        Field::Wrong => return None,
        Field::Missing => {}
    }
    let files = low.files.given()?;
    let told = format_of(&files.value.0);
    if told.is_none() {
        let message = format!("the ending of {:?} does not tell what the files are", files.value.0);
        around
            .problems
            .push(files.place.problem(message).expected("format = \"csv\", \"parquet\", \"ndjson\" or \"json\""));
    }
    told
}

fn ending(files: &str) -> String {
    let lower = files.to_ascii_lowercase();
    let plain = [".gz", ".zst", ".bz2"].into_iter().find_map(|ending| lower.strip_suffix(ending)).unwrap_or(&lower);
    plain.rsplit(['/', '\\']).next().and_then(|name| Some(name.rsplit_once('.')?.1)).unwrap_or("").to_owned()
}

fn format_of(files: &str) -> Option<FormatWord> {
    match ending(files).as_str() {
        "csv" | "tsv" => Some(FormatWord::Csv),
        "parquet" => Some(FormatWord::Parquet),
        "ndjson" | "jsonl" => Some(FormatWord::Ndjson),
        "json" => Some(FormatWord::Json),
        _ => None,
    }
}

fn csv_options(low: &LowSource, around: &mut Surroundings<'_>) -> Option<CsvOptions> {
    let tabs = low.files.value().is_some_and(|files| ending(&files.0) == "tsv");
    let delimiter = match (&low.delimiter, tabs) {
        (Field::Given(at), true) if !at.written => Some(b'\t'),
        (Field::Given(At { value: Byte(Some(byte)), .. }), _) => Some(*byte),
        (Field::Given(at), _) => {
            around.problems.push(at.place.problem("the delimiter is empty").expected("one character such as \";\""));
            None
        }
        _ => None,
    };
    let quote = low.quote.copied().map(|byte| byte.0);
    let comment = optional(&low.comment).map(|byte| byte.and_then(|byte| byte.0));
    let mut same = |one: Option<u8>, other: Option<u8>, field: &Field<Byte>, message: &str| {
        if let (Some(one), Some(other), Some(at)) = (one, other, field.given())
            && one == other
        {
            let shown = char::from(one).escape_default();
            around.problems.push(at.place.problem(format!("{message}: both are `{shown}`")));
        }
    };
    let blamed = if low.quote.written().is_some() { &low.quote } else { &low.delimiter };
    same(quote.flatten(), delimiter, blamed, "quote and delimiter are the same");
    same(comment.flatten(), delimiter, &low.comment, "comment and delimiter are the same");
    same(comment.flatten(), quote.flatten(), &low.comment, "comment and quote are the same");
    Some(CsvOptions {
        delimiter: delimiter?,
        quote: quote?,
        header: low.header.copied()?,
        encoding: low.encoding.copied()?.0,
        null_words: low.null_words.copied()?.into_iter().map(|at| at.value).collect(),
        comment: comment?,
    })
}

/// Where the keys stand that mean something for csv alone; none for those that are not written.
pub(super) fn csv_places(low: &LowSource) -> [Option<&Place>; 6] {
    [
        low.delimiter.written_place(),
        low.quote.written_place(),
        low.header.written_place(),
        low.encoding.written_place(),
        low.null_words.written_place(),
        low.comment.written_place(),
    ]
}

fn refuse_csv_options(low: &LowSource, around: &mut Surroundings<'_>) {
    let places = csv_places(low);
    let message = "this key means something for csv files only, and these are others";
    refuse(&places, message, "format = \"csv\", or no such key", around);
}

fn load_settings(low: &LowLoad, origin: Origin, around: &mut Surroundings<'_>) -> Option<LoadSettings> {
    if let (Some(every), Some(_)) = (low.every.given(), low.cron.given()) {
        around.problems.push(every.place.problem("both `every` and `cron` are given").expected("one of them"));
    }
    let every = match &low.every {
        Field::Missing => Some(None),
        given => positive(given, around).map(Some),
    };
    if let (None, Some(at), Origin::Files) = (low.max_rewrite.written(), low.max_lag.written(), origin) {
        let problem = at.place.problem("max_lag has no effect without max_rewrite, which puts changes off");
        around.problems.push(problem.warning());
    }
    if let Some(at) = low.group.given()
        && !at.value.0.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    {
        let problem = at.place.problem(format!("{:?} is no name of a group", at.value.0));
        around.problems.push(problem.expected("lower-case letters, digits and _"));
    }
    let mode = load_mode(low, origin, around);
    let default_max_rewrite = (origin == Origin::SqlServer).then_some(sqlserver::DEFAULT_MAX_REWRITE);
    let cron = optional(&low.cron)?.map(|line| Schedule::Cron(line.0));
    Some(LoadSettings {
        schedule: every?.map(Schedule::Every).or(cron),
        mode: mode?,
        max_rejects: low.max_rejects.copied()?.0,
        max_rewrite: optional(&low.max_rewrite)?.map(|times| times.0).or(default_max_rewrite),
        max_lag: low.max_lag.copied()?.0,
        group: optional(&low.group)?.map(|group| group.0),
    })
}

/// A table of SQL Server says itself which rows changed, so there is one mode.
fn load_mode(low: &LowLoad, origin: Origin, around: &mut Surroundings<'_>) -> Option<LoadMode> {
    let at = low.mode.given()?;
    match (origin, at.value.0) {
        (Origin::Files, mode) => Some(mode),
        (Origin::SqlServer, mode) if at.written && mode != LoadMode::Upsert => {
            let message = "rows of a table of SQL Server always take the place of those with their key";
            around.problems.push(at.place.problem(message).expected("no `mode`, or mode = \"upsert\""));
            None
        }
        (Origin::SqlServer, _) => Some(LoadMode::Upsert),
    }
}

fn key(low: &LowTable, around: &mut Surroundings<'_>) -> Option<Vec<At<Text>>> {
    let key = low.table.value()?.key.copied()?;
    let mut seen: HashMap<String, &str> = HashMap::new();
    for column in &key {
        if seen.insert(column.value.0.to_lowercase(), &column.value.0).is_some() {
            around.problems.push(column.place.problem(format!("the key names `{}` twice", column.value.0)));
        }
    }
    Some(key)
}

fn columns(low: &LowTable, key: &[At<Text>], around: &mut Surroundings<'_>) -> Option<Vec<ColumnDefinition>> {
    let declared = low.columns.value()?;
    check_names_once(declared, around);
    let made: Vec<_> = declared.iter().map(|column| self::column(column, key, around)).collect();
    made.into_iter().collect()
}

/// Each name once: readers of Delta tables take names that differ in case only for one.
fn check_names_once(declared: &[At<LowColumn>], around: &mut Surroundings<'_>) {
    let mut names: HashMap<String, &str> = HashMap::new();
    let mut origins: HashMap<&str, &str> = HashMap::new();
    for column in declared {
        let Some(name) = column.value.name.given() else { continue };
        if let Some(first) = names.insert(name.value.0.to_lowercase(), &name.value.0) {
            let message = if *first == *name.value.0 {
                format!("the column `{first}` is declared twice")
            } else {
                format!(
                    "the columns `{first}` and `{}` differ in case only, and readers take them for one",
                    name.value.0
                )
            };
            around.problems.push(name.place.problem(message));
        }
        let origin = column.value.from.given().unwrap_or(name);
        if let Some(first) = origins.insert(&origin.value.0, &name.value.0)
            && *first != *name.value.0
        {
            let message = format!("the columns `{first}` and `{}` both come from `{}`", name.value.0, origin.value.0);
            around.problems.push(origin.place.problem(message).expected("each column of the files once"));
        }
    }
}

fn column(at: &At<LowColumn>, key: &[At<Text>], around: &mut Surroundings<'_>) -> Option<ColumnDefinition> {
    let low = &at.value;
    if matches!(low.name, Field::Missing) {
        around.problems.push(at.place.problem("the column has no `name`"));
    }
    if matches!(low.column_type, Field::Missing) {
        around.problems.push(at.place.problem("the column has no `type`").expected("type = \"bigint\" or the like"));
    }
    if let Some(name) = low.name.given() {
        check_column_name(&name.value.0, &name.place, around);
    }
    if let Some(kind) = low.column_type.given() {
        check_field_names(&kind.value, &kind.place, around);
        let dated = matches!(kind.value, ColumnType::Date | ColumnType::Timestamp | ColumnType::TimestampNtz);
        if let (false, Some(formats)) = (dated, low.formats.written()) {
            let message = format!("formats are for dates and timestamps, and this column is {}", kind.value);
            around.problems.push(formats.place.problem(message));
        }
    }
    let in_key = low.name.value().is_some_and(|name| key.iter().any(|part| part.value.0 == name.0));
    if let (true, Some(At { value: true, place, .. })) = (in_key, low.nullable.written()) {
        let problem = place.problem("a column of the key cannot be nullable: a row without a key has no name");
        around.problems.push(problem.expected("nullable = false, or no such key"));
    }
    Some(ColumnDefinition {
        name: low.name.copied()?.0,
        from: optional(&low.from)?.map(|from| from.0),
        column_type: low.column_type.copied()?,
        formats: low.formats.copied()?.into_iter().map(|at| at.value.0).collect(),
        nullable: low.nullable.copied()? && !in_key,
    })
}

/// The characters that names of columns in Delta tables without column mapping cannot have (Delta protocol,
/// "Column Mapping": what Parquet writers of Spark refuse).
pub(crate) const REFUSED_IN_NAMES: &[char] = &[' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '='];

fn check_column_name(name: &str, place: &Place, around: &mut Surroundings<'_>) {
    if name.contains(REFUSED_IN_NAMES) {
        let simple: String = name.trim().chars().map(|c| if REFUSED_IN_NAMES.contains(&c) { '_' } else { c }).collect();
        let message = format!("{name:?} has a character that names of columns in Delta tables cannot have");
        let expected = format!("a name without spaces and ,;{{}}()=, such as name = {simple:?} with from = {name:?}");
        around.problems.push(place.problem(message).expected(expected));
    }
}

/// Names of nested fields: allowed characters, each once.
fn check_field_names(kind: &ColumnType, place: &Place, around: &mut Surroundings<'_>) {
    match kind {
        ColumnType::Struct(fields) => {
            let mut seen = HashMap::new();
            for (name, kind) in fields {
                check_column_name(name, place, around);
                if seen.insert(name.to_lowercase(), ()).is_some() {
                    around.problems.push(place.problem(format!("the struct has the field `{name}` twice")));
                }
                check_field_names(kind, place, around);
            }
        }
        ColumnType::Array(item) => check_field_names(item, place, around),
        ColumnType::Map(key, value) => {
            check_field_names(key, place, around);
            check_field_names(value, place, around);
        }
        _ => {}
    }
}

/// Every column of the key is declared, where columns are, and can be compared.
fn check_key_columns(low: &LowTable, around: &mut Surroundings<'_>) {
    let (Some(table), Some(declared)) = (low.table.value(), low.columns.value()) else { return };
    let Some(key) = table.key.value().filter(|_| !declared.is_empty()) else { return };
    // A column whose name could not be read may be the one.
    let Some(names) = declared.iter().map(|column| column.value.name.value()).collect::<Option<Vec<_>>>() else {
        return;
    };
    for part in key {
        let found = declared.iter().zip(&names).find(|(_, name)| name.0 == part.value.0);
        let Some((column, _)) = found else {
            let problem = part.place.problem(format!("the key names `{}`, which is not declared", part.value.0));
            let known = names.iter().map(|name| name.0.as_str());
            let list = known.clone().collect::<Vec<_>>().join(", ");
            around.problems.push(problem.expected(format!("one of {list}")).near(&part.value.0, known));
            continue;
        };
        match column.value.column_type.value() {
            Some(kind @ (ColumnType::Struct(_) | ColumnType::Array(_) | ColumnType::Map(..))) => {
                let message = format!("`{}` is {kind}, which cannot be a key", part.value.0);
                around.problems.push(part.place.problem(message).expected("a column with a plain type"));
            }
            Some(kind @ (ColumnType::Real | ColumnType::Double)) => {
                let message =
                    format!("`{}` is {kind}: floats compare badly, and files cannot be skipped by them", part.value.0);
                around.problems.push(part.place.problem(message).expected("an exact type").warning());
            }
            _ => {}
        }
    }
}

/// A table of SQL Server has the columns the database says.
fn no_columns(low: &LowTable, around: &mut Surroundings<'_>) -> Option<Vec<ColumnDefinition>> {
    let declared = low.columns.value()?;
    let Some(first) = declared.first() else { return Some(Vec::new()) };
    let problem = first.place.problem("the columns of a table of SQL Server and their types come from the database");
    around.problems.push(problem.expected("no [[columns]]; [source] has leave_out, timestamps and the like"));
    None
}

fn check_left_out(blocks: &[At<LowSource>], key: &[At<Text>], around: &mut Surroundings<'_>) {
    for name in blocks.iter().filter_map(|block| block.value.leave_out.value()).flatten() {
        if key.iter().any(|part| part.value.0.eq_ignore_ascii_case(&name.value.0)) {
            let message = format!("`{}` is part of the key and cannot be left out", name.value.0);
            around.problems.push(name.place.problem(message));
        }
    }
}

fn check_upsert(low: &LowTable, around: &mut Surroundings<'_>) {
    let mode = low.load.value().and_then(|load| load.mode.given());
    let Some(mode) = mode.filter(|mode| mode.value.0 == LoadMode::Upsert) else { return };
    let no_key = low.table.value().is_some_and(|table| table.key.value().is_some_and(Vec::is_empty));
    if no_key {
        let problem = mode.place.problem("mode upsert replaces rows by their key, and the table has none");
        around.problems.push(problem.expected("[table] with key = [\"…\"], or another mode"));
    }
}
