//! What a result is: a name that equal results have, whoever asks for them, and different ones never.
//!
//! The name is a keyed hash over all that the rows and their columns depend on: the statement with its values and
//! options, the version of every table it reads, what may be seen of them, and how the columns are sent. Who does not
//! have the key learns nothing from it, and can make none. How bodies are compressed is not in it: it changes no row.

use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use serde::{Deserialize, Serialize};

use crate::delivery::ticket::write_parameters;
use crate::delivery::{Basis, Sealer};
use crate::model::{Codec, WireProfile};
use crate::query::{Dependencies, Planned};

/// The name of a result, in hex.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(String);

impl Identity {
    /// The identity of what a planned statement gives under `schema`; none where its rows may be others each time.
    pub fn of(planned: &Planned, schema: &Schema, profile: WireProfile, sealer: &Sealer) -> Option<Self> {
        let content = Content::of(planned, planned.dependencies.as_ref()?, schema, profile).ok()?;
        Some(Self(sealer.name_of_result(&serde_json::to_vec(&content).ok()?)))
    }

    /// What the result is made of, where what is added to its one table is added to it, row by row.
    pub fn basis(&self, planned: &Planned, schema: &Schema, profile: WireProfile, sealer: &Sealer) -> Option<Basis> {
        let mut dependencies = planned.dependencies.clone().filter(|read| read.grows)?;
        let [read] = dependencies.tables.as_mut_slice() else { return None };
        // Of a version that the text itself names there is no later one.
        if planned.statement.pins.get(&read.name) != Some(&read.version) {
            return None;
        }
        let (table, id, version) = (read.name.clone(), read.id.clone(), std::mem::take(&mut read.version));
        let content = Content::of(planned, &dependencies, schema, profile).ok()?;
        let mut named = b"whatever the version ".to_vec();
        serde_json::to_writer(&mut named, &content).ok()?;
        let statement = sealer.name_of_result(&named);
        Some(Basis { statement, table, id, version, identity: self.clone() })
    }

    /// The identity as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is hashed. Each part stands under a name of its own, so that no two contents have the same text.
#[derive(Serialize)]
struct Content<'a> {
    /// Another release may compute, name or convert otherwise.
    release: &'static str,
    sql: &'a str,
    parameters: Option<String>,
    time_zone: &'a str,
    schema: Option<&'a str>,
    partitions: Option<usize>,
    batch_rows: Option<usize>,
    dependencies: &'a Dependencies,
    profile: WireProfile,
    /// The columns as they are announced, as a digest.
    columns: String,
}

impl<'a> Content<'a> {
    fn of(
        planned: &'a Planned,
        dependencies: &'a Dependencies,
        schema: &Schema,
        profile: WireProfile,
    ) -> Result<Self, ArrowError> {
        let (statement, options) = (&planned.statement, &planned.statement.options);
        let columns = StreamWriter::try_new_with_options(Vec::new(), schema, IpcWriteOptions::default())?;
        Ok(Self {
            release: env!("CARGO_PKG_VERSION"),
            sql: &statement.sql,
            parameters: write_parameters(&statement.parameters)?,
            time_zone: &options.time_zone,
            schema: options.schema.as_deref(),
            partitions: options.partitions,
            batch_rows: options.batch_rows,
            dependencies,
            profile: WireProfile { codec: Codec::None, ..profile },
            columns: blake3::hash(&columns.into_inner()?).to_hex().to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field};
    use chrono::NaiveDate;
    use datafusion::common::ScalarValue;

    use super::*;
    use crate::delivery::{TicketKey, result_schema};
    use crate::model::Precision;
    use crate::query::{Statement, StatementKind, StatementOptions, TablePins, TableRead};

    fn sealer(byte: &str) -> Sealer {
        Sealer::new(&TicketKey::parse(&byte.repeat(32)).unwrap())
    }

    fn read(name: &str, id: &str, version: u64) -> TableRead {
        let written = ("a".to_owned(), "b".to_owned());
        TableRead { written, name: name.parse().unwrap(), id: id.to_owned(), version }
    }

    fn planned() -> Planned {
        let statement = Statement {
            sql: "select c from a.b where c = $1".to_owned(),
            parameters: vec![ScalarValue::Utf8(Some("x".to_owned()))],
            pins: TablePins::new(),
            options: StatementOptions::default(),
        };
        Planned {
            statement,
            schema: Arc::new(Schema::new(vec![Field::new("c", DataType::Utf8, true)])),
            parameters: vec![],
            kind: StatementKind::Query,
            plan: Arc::new(()),
            memory: Arc::default(),
            dependencies: Some(Dependencies {
                tables: vec![read("a.b", "one", 3)],
                rights: "all".to_owned(),
                person: None,
                day: None,
                grows: true,
            }),
        }
    }

    fn under(planned: &Planned, profile: WireProfile) -> Option<Identity> {
        Identity::of(planned, &result_schema(&planned.schema, profile, &[0]), profile, &sealer("01"))
    }

    fn changed(change: impl FnOnce(&mut Planned)) -> Option<Identity> {
        let mut other = planned();
        change(&mut other);
        under(&other, WireProfile::default())
    }

    fn depending(change: impl FnOnce(&mut Dependencies)) -> Option<Identity> {
        changed(|planned| change(planned.dependencies.as_mut().unwrap()))
    }

    #[test]
    fn equal_results_have_one_identity_and_it_is_a_name_in_hex() {
        let one = under(&planned(), WireProfile::default()).unwrap();
        assert_eq!(changed(|_| {}), Some(one.clone()));
        assert!(one.as_str().len() == 64 && one.as_str().bytes().all(|byte| byte.is_ascii_hexdigit()));
        // When it was asked, at which pins it was planned, and for whom, is not in it but by what follows from that.
        let same = changed(|planned| {
            planned.statement.options.now = Some(chrono::Utc::now());
            planned.statement.options.rights = Some("of somebody".to_owned());
            planned.statement.pins = TablePins::from([("a.b".parse().unwrap(), 3)]);
        });
        assert_eq!(same, Some(one.clone()));
        let packed = WireProfile { codec: Codec::Zstd, ..WireProfile::default() };
        assert_eq!(under(&planned(), packed), Some(one));
    }

    #[test]
    fn whatever_changes_rows_or_columns_changes_the_identity() {
        let day = NaiveDate::from_ymd_opt(2026, 1, 1).unwrap();
        let next = day.succ_opt().unwrap();
        let statement = |change: fn(&mut Statement)| changed(|planned| change(&mut planned.statement));
        let mut all = vec![
            under(&planned(), WireProfile::default()),
            under(&planned(), WireProfile { dictionaries: true, ..WireProfile::default() }),
            under(&planned(), WireProfile { precision: Precision::Rounded, ..WireProfile::default() }),
            statement(|statement| statement.sql.push_str(" limit 1")),
            statement(|statement| statement.parameters.clear()),
            statement(|statement| statement.parameters = vec![ScalarValue::Utf8(Some("y".to_owned()))]),
            statement(|statement| statement.parameters = vec![ScalarValue::LargeUtf8(Some("x".to_owned()))]),
            statement(|statement| statement.parameters = vec![ScalarValue::Utf8(None)]),
            statement(|statement| statement.options.time_zone = "Europe/Vienna".to_owned()),
            statement(|statement| statement.options.schema = Some("a".to_owned())),
            statement(|statement| statement.options.partitions = Some(1)),
            statement(|statement| statement.options.batch_rows = Some(1)),
            changed(|planned| planned.schema = Arc::new(Schema::new(vec![Field::new("d", DataType::Utf8, true)]))),
            changed(|planned| planned.schema = Arc::new(Schema::new(vec![Field::new("c", DataType::Int64, true)]))),
            depending(|read| read.tables.clear()),
            depending(|read| read.tables[0].version = 4),
            depending(|read| read.tables[0].id = "other".to_owned()),
            depending(|read| read.tables[0].name = "a.c".parse().unwrap()),
            depending(|read| read.tables[0].written.1 = "b@v3".to_owned()),
            depending(|read_tables| read_tables.tables.push(read("a.d", "two", 1))),
            depending(|read| read.rights = "some".to_owned()),
            depending(|read| read.person = Some("ann".to_owned())),
            depending(|read| read.person = Some("bob".to_owned())),
            depending(|read| read.day = Some((day, day))),
            depending(|read| read.day = Some((next, day))),
            Identity::of(&planned(), &planned().schema, WireProfile::default(), &sealer("02")),
        ];
        assert!(all.iter().all(Option::is_some));
        let count = all.len();
        all.sort_by_key(|identity| identity.as_ref().map(|identity| identity.0.clone()));
        all.dedup();
        assert_eq!(all.len(), count);
    }

    fn basis(change: impl FnOnce(&mut Planned)) -> Option<Basis> {
        let mut planned = planned();
        planned.statement.pins = TablePins::from([("a.b".parse().unwrap(), 3)]);
        change(&mut planned);
        let profile = WireProfile::default();
        let identity = Identity::of(&planned, &planned.schema, profile, &sealer("01"))?;
        identity.basis(&planned, &planned.schema, profile, &sealer("01"))
    }

    /// Moves the statement on to another version.
    fn at(version: u64) -> impl FnOnce(&mut Planned) {
        move |planned| {
            planned.dependencies.as_mut().unwrap().tables[0].version = version;
            planned.statement.pins.insert("a.b".parse().unwrap(), version);
        }
    }

    #[test]
    fn a_basis_is_before_a_later_version_of_the_same_and_nothing_else() {
        let before = basis(|_| {}).unwrap();
        assert_eq!(before.version, 3);
        let later = basis(at(5)).unwrap();
        assert!(before.is_before(&later) && !later.is_before(&before) && !before.is_before(&before));
        assert_ne!(before.identity, later.identity);
        for other in [
            basis(|planned| {
                at(5)(planned);
                planned.statement.sql.push_str(" and true");
            }),
            basis(|planned| {
                at(5)(planned);
                planned.dependencies.as_mut().unwrap().rights = "other".to_owned();
            }),
            basis(|planned| {
                at(5)(planned);
                planned.dependencies.as_mut().unwrap().tables[0].id = "another".to_owned();
            }),
        ] {
            assert!(!before.is_before(&other.unwrap()));
        }
    }

    #[test]
    fn what_does_not_grow_row_by_row_has_no_basis() {
        assert_eq!(basis(|planned| planned.dependencies.as_mut().unwrap().grows = false), None);
        assert_eq!(basis(|planned| planned.dependencies.as_mut().unwrap().tables.push(read("a.d", "two", 1))), None);
        assert_eq!(basis(|planned| planned.statement.pins.clear()), None, "the text names the version");
    }

    #[test]
    fn a_basis_is_read_by_who_has_the_key() {
        let basis = basis(|_| {}).unwrap();
        let text = basis.seal(&sealer("01")).unwrap();
        assert_eq!(Basis::open(&text, &sealer("01")), Some(basis));
        assert_eq!((Basis::open(&text, &sealer("02")), Basis::open("nothing", &sealer("01"))), (None, None));
    }

    #[test]
    fn what_may_be_another_each_time_has_no_identity() {
        assert_eq!(changed(|planned| planned.dependencies = None), None);
    }
}
