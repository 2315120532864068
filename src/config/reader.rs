//! From TOML text to the low form: every value with its place, every problem noted, none of them final.
//!
//! A low table is declared once with [`low_table!`](crate::config::reader::low_table): its keys, what they mean,
//! their types and defaults. Reading, the list of known keys and the JSON Schema come from that declaration.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::access::Spot;
use crate::config::problem::Problem;
use crate::config::schema::key_paths;

/// A value as the user may write it.
pub(crate) trait Low: Sized {
    /// Reads a value; what is wrong is noted in the context, and then there is no value.
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self>;

    /// The JSON Schema of such values.
    fn schema() -> serde_json::Value;
}

/// One file's text with its name.
#[derive(Debug)]
pub(crate) struct SourceFile {
    /// The name it is reported under.
    pub(crate) name: PathBuf,
    /// Its whole text.
    pub(crate) text: String,
}

impl SourceFile {
    /// Line and column in characters, both from 1, of a byte of the text.
    pub(crate) fn line_and_column(&self, byte: usize) -> (usize, usize) {
        let before = self.text.get(..byte.min(self.text.len())).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        (line, before[line_start..].trim_start_matches('\u{feff}').chars().count() + 1)
    }
}

/// Where a value stands.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    file: Arc<SourceFile>,
    byte: usize,
    /// The key with those above it.
    pub(crate) key: String,
}

impl Place {
    /// A problem at this place.
    pub(crate) fn problem(&self, message: impl Into<String>) -> Problem {
        let mut problem = Problem::of_file(self.file.name.clone(), message);
        problem.at = Some(self.file.line_and_column(self.byte));
        problem.key = self.key.clone();
        problem
    }

    /// The line, for saying later why something is as it is.
    pub(crate) fn spot(&self) -> Spot {
        Spot { file: self.file.name.clone(), line: self.file.line_and_column(self.byte).0 }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    /// The value.
    pub(crate) value: T,
    /// Its place; for a default the place of the table it is in.
    pub(crate) place: Place,
    /// Whether the user wrote it.
    pub(crate) written: bool,
}

/// What stands under a key.
#[derive(Clone, Debug)]
pub(crate) enum Field<T> {
    /// Nothing, and there is no default.
    Missing,
    /// Something that could not be read; a problem says so.
    Wrong,
    /// A value, possibly the default.
    Given(At<T>),
}

impl<T> Field<T> {
    /// Whether nothing stands there.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Missing)
    }

    /// The value with its place, where there is a readable one.
    pub(crate) fn given(&self) -> Option<&At<T>> {
        match self {
            Self::Given(at) => Some(at),
            Self::Missing | Self::Wrong => None,
        }
    }

    /// The value with its place, when the user wrote it.
    pub(crate) fn written(&self) -> Option<&At<T>> {
        self.given().filter(|at| at.written)
    }

    /// Where the value stands, when the user wrote it.
    pub(crate) fn written_place(&self) -> Option<&Place> {
        self.written().map(|at| &at.place)
    }

    /// The value, where there is a readable one.
    pub(crate) fn value(&self) -> Option<&T> {
        self.given().map(|at| &at.value)
    }
}

impl<T: Clone> Field<T> {
    /// A copy of the value, where there is a readable one.
    pub(crate) fn copied(&self) -> Option<T> {
        self.value().cloned()
    }
}

/// What reading one file needs and gathers.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    file: Arc<SourceFile>,
    problems: &'a mut Vec<Problem>,
    /// The schema of the whole file, for saying where a key belongs.
    schema: fn() -> serde_json::Value,
}

impl Context<'_> {
    /// The place of a span.
    pub(crate) fn place(&self, span: Range<usize>, key: &str) -> Place {
        Place { file: Arc::clone(&self.file), byte: span.start, key: key.to_owned() }
    }

    /// Notes that a value is of another type than expected. Found text is shown, so this is not for secrets.
    pub(crate) fn mismatch<T>(&mut self, value: &Spanned<DeValue<'_>>, key: &str, expected: &str) -> Option<T> {
        let problem = self.place(value.span(), key).problem(format!("found {}", found(value.get_ref())));
        self.note(problem.expected(expected))
    }

    /// Notes a problem; for use where a value would be returned.
    pub(crate) fn note<T>(&mut self, problem: Problem) -> Option<T> {
        self.problems.push(problem);
        None
    }
}

/// Reads a whole file into its low form. After an error of syntax other than a key given twice the rest of
/// the file would only be guessed at, so nothing more is said about it.
pub(crate) fn read_file<T: Low>(file: &Arc<SourceFile>, problems: &mut Vec<Problem>) -> Option<At<T>> {
    let (root, errors) = DeTable::parse_recoverable(&file.text);
    let mut broken = None;
    for error in errors {
        let twice = error.message() == "duplicate key";
        let key = error.span().filter(|_| twice).and_then(|span| file.text.get(span)).unwrap_or("");
        let byte = error.span().map_or(0, |span| span.start);
        let line = file.line_and_column(byte).0;
        // More errors on the line of the first are its echoes.
        if !twice && broken.replace(line) == Some(line) {
            continue;
        }
        let place = Place { file: Arc::clone(file), byte, key: key.to_owned() };
        let message = if twice { "the key stands here a second time" } else { error.message() };
        problems.push(place.problem(if twice { message.to_owned() } else { format!("this is no TOML: {message}") }));
    }
    if broken.is_some() {
        return None;
    }
    let span = root.span();
    let value = Spanned::new(span.clone(), DeValue::Table(root.into_inner()));
    let mut context = Context { file: Arc::clone(file), problems, schema: T::schema };
    let place = context.place(span, "");
    T::read(&value, "", &mut context).map(|value| At { value, place, written: true })
}

/// A table being read key by key.
#[derive(Debug)]
pub(crate) struct TableReader<'t, 'i> {
    table: &'t DeTable<'i>,
    span: Range<usize>,
    key: &'t str,
}

impl<'t, 'i> TableReader<'t, 'i> {
    /// Begins with a value that should be a table.
    pub(crate) fn new(value: &'t Spanned<DeValue<'i>>, key: &'t str, context: &mut Context<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Table(table) => Some(Self { table, span: value.span(), key }),
            _ => context.mismatch(value, key, "a table with keys of its own"),
        }
    }

    /// What stands under a key of this table; `default` is TOML text.
    pub(crate) fn field<T: Low>(&self, name: &str, default: Option<&str>, context: &mut Context<'_>) -> Field<T> {
        let key = join(self.key, name);
        if let Some(value) = self.table.get(name) {
            return match T::read(value, &key, context) {
                Some(read) => Field::Given(At { value: read, place: context.place(value.span(), &key), written: true }),
                None => Field::Wrong,
            };
        }
        let Some(Ok(value)) = default.map(DeValue::parse) else { return Field::Missing };
        let place = context.place(self.span.clone(), &key);
        // A default's own spans point into the default; the table's place is the nearest there is in the file.
        let value = Spanned::new(self.span.clone(), value.into_inner());
        T::read(&value, &key, context).map_or(Field::Wrong, |value| Field::Given(At { value, place, written: false }))
    }

    /// Notes every key that is neither known nor planned for later.
    pub(crate) fn finish(&self, known: &[&str], later: &[(&str, &str)], context: &mut Context<'_>) {
        for name in self.table.keys() {
            let word = name.get_ref().as_ref();
            if known.contains(&word) {
                continue;
            }
            let place = context.place(name.span(), &join(self.key, word));
            let problem = match later.iter().find(|(key, _)| *key == word) {
                Some((_, what)) => place.problem(format!("{what} is not built yet; take the key out")),
                None => Self::unknown(word, &place, known, context.schema),
            };
            context.note::<()>(problem);
        }
    }

    /// The nearest key of this table, else the same key where it belongs.
    fn unknown(word: &str, place: &Place, known: &[&str], schema: fn() -> serde_json::Value) -> Problem {
        let problem = place.problem(format!("`{word}` is no known key here"));
        let mut problem = problem.expected(format!("one of {}", known.join(", "))).near(word, known.iter().copied());
        if problem.nearest.is_none() {
            let paths = key_paths(&schema());
            problem.nearest = paths.into_iter().find(|path| path.rsplit('.').next() == Some(word));
        }
        problem
    }
}

/// A key below others.
pub(crate) fn join(above: &str, name: &str) -> String {
    if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") }
}

/// A value as problems show it: its type and, where short, its text.
pub(crate) fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.chars().count() <= 60 => format!("the text {text:?}"),
        DeValue::String(_) => "a long text".to_owned(),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(value) => format!("{value}"),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(items) => format!("a list of {}", items.len()),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

impl<T: Low> Low for Vec<At<T>> {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        let DeValue::Array(items) = value.get_ref() else { return context.mismatch(value, key, "a list") };
        let mut read = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let key = format!("{key}[{}]", index + 1);
            if let Some(value) = T::read(item, &key, context) {
                read.push(At { value, place: context.place(item.span(), &key), written: true });
            }
        }
        // Items that could not be read must not look as if they had never been there.
        (read.len() == items.len()).then_some(read)
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "array", "items": T::schema() })
    }
}

/// One value, or a list of them: `[source]` and `[[source]]`.
#[derive(Clone, Debug)]
pub(crate) struct OneOrMany<T>(pub(crate) Vec<At<T>>);

impl<T: Low> Low for OneOrMany<T> {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        if matches!(value.get_ref(), DeValue::Array(_)) {
            return Vec::read(value, key, context).map(Self);
        }
        let place = context.place(value.span(), key);
        T::read(value, key, context).map(|value| Self(vec![At { value, place, written: true }]))
    }

    fn schema() -> serde_json::Value {
        json!({ "anyOf": [T::schema(), { "type": "array", "items": T::schema() }] })
    }
}

/// Values under names the user chooses: `[connections.NAME]`. Those that could not be read are `None`.
#[derive(Clone, Debug)]
pub(crate) struct Named<T>(pub(crate) BTreeMap<String, Option<At<T>>>);

impl<T: Low> Low for Named<T> {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        let table = TableReader::new(value, key, context)?.table;
        let mut read = BTreeMap::new();
        for (name, value) in table {
            let key = join(key, name.get_ref());
            let place = context.place(name.span(), &key);
            let value = T::read(value, &key, context).map(|value| At { value, place, written: true });
            read.insert(name.get_ref().to_string(), value);
        }
        Some(Self(read))
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "object", "additionalProperties": T::schema() })
    }
}

/// Declares a low table: `field ("key"): Type = default;` each with a doc comment, where the key is given when it
/// is a Rust keyword, and the default is TOML. `later { "key": "what it will do" }` names keys of the design
/// that are not built yet.
macro_rules! low_table {
    (
        $(#[doc = $about:literal])+
        $name:ident {
            $( $(#[doc = $doc:literal])+ $field:ident $(($key:literal))? : $kind:ty $(= $default:tt)? ; )*
        }
        $(later { $($later:literal : $what:literal),* $(,)? })?
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug)]
        pub(crate) struct $name {
            $( $(#[doc = $doc])+ pub(crate) $field: $crate::config::reader::Field<$kind>, )*
        }

        impl $name {
            const KEYS: &'static [&'static str] =
                &[$( $crate::config::reader::low_table!(@key $field $($key)?) ),*];
            const LATER: &'static [(&'static str, &'static str)] = &[$($(($later, $what)),*)?];
        }

        impl $crate::config::reader::Low for $name {
            fn read(
                value: &toml::Spanned<toml::de::DeValue<'_>>,
                key: &str,
                context: &mut $crate::config::reader::Context<'_>,
            ) -> Option<Self> {
                let table = $crate::config::reader::TableReader::new(value, key, context)?;
                let read = Self {
                    $( $field: table.field(
                        $crate::config::reader::low_table!(@key $field $($key)?),
                        $crate::config::reader::low_table!(@default $($default)?),
                        context,
                    ), )*
                };
                table.finish(Self::KEYS, Self::LATER, context);
                Some(read)
            }

            fn schema() -> serde_json::Value {
                let mut properties = serde_json::Map::new();
                $(
                    properties.insert(
                        $crate::config::reader::low_table!(@key $field $($key)?).to_owned(),
                        $crate::config::schema::property(
                            <$kind as $crate::config::reader::Low>::schema(),
                            concat!($($doc),+),
                            $crate::config::reader::low_table!(@default $($default)?),
                        ),
                    );
                )*
                serde_json::json!({ "type": "object", "properties": properties, "additionalProperties": false })
            }
        }
    };
    (@key $field:ident $key:literal) => { $key };
    (@key $field:ident) => { stringify!($field) };
    (@default $default:tt) => { Some(stringify!($default)) };
    (@default) => { None };
}
pub(crate) use low_table;
