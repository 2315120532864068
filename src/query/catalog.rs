//! Which tables there are: names resolved once per statement, each to one pinned version, and a
//! listing of names, versions and columns that is cheap to ask for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::datasource::empty::EmptyTable;
use futures::future::try_join_all;

use crate::access::{Access, TableRights};
use crate::config::{RESULTS_SCHEMA, Settings, TableDefinition, TableSource};
use crate::error::{Classify, ErrorKind};
use crate::lake::{At, Lake, Made, Snapshot};
use crate::model::TableName;
use crate::query::dependencies::Dependencies;
use crate::query::opened::{self, Opened};
use crate::query::rewrite::Asked;
use crate::query::sample::Sample;
use crate::query::sealed::seen_key;
use crate::query::system::{SYSTEM_SCHEMA, System};
use crate::query::{QueryError, TablePins};

/// The one catalog.
pub(crate) const CATALOG: &str = "lakegate";

/// The schema that describes the others.
pub(crate) const INFORMATION_SCHEMA: &str = "information_schema";

/// One version of a table, ready to be read.
#[derive(Clone)]
pub(crate) struct Version {
    /// The Delta version.
    pub(crate) number: u64,
    /// The table's own name for itself.
    pub(crate) id: String,
    /// Reads its rows; its schema is the table's.
    pub(crate) provider: Arc<dyn TableProvider>,
    /// What it says of itself, where people made the table.
    pub(crate) made: Made,
    /// Whether the table was dropped with it.
    pub(crate) is_dropped: bool,
}

impl Version {
    /// The table's own name for itself, and the version.
    fn identity(&self) -> (String, u64) {
        (self.id.clone(), self.number)
    }
}

impl From<Arc<Snapshot>> for Version {
    fn from(snapshot: Arc<Snapshot>) -> Self {
        Self {
            number: snapshot.version(),
            id: snapshot.id().to_owned(),
            provider: snapshot.provider(),
            made: snapshot.made(),
            is_dropped: snapshot.is_dropped(),
        }
    }
}

/// Where versions of tables come from.
#[async_trait]
pub(crate) trait Versions: Send + Sync {
    /// The newest version; none when the table was never loaded.
    async fn newest(&self, table: &TableName) -> Result<Option<Version>, QueryError>;

    /// An older version. `NotFound` when it is not there, or the time is before the first.
    async fn at(&self, table: &TableName, at: At) -> Result<Version, QueryError>;

    /// The rows of a version that an older one had not; none where it did not only gain files since.
    async fn gained(
        &self,
        table: &TableName,
        version: u64,
        since: u64,
    ) -> Result<Option<Arc<dyn TableProvider>>, QueryError>;

    /// The tables of a schema that may be there, in order.
    async fn tables_in(&self, schema: &str) -> Result<Vec<TableName>, QueryError>;

    /// The versions of a group's members that belong together; none before the group was published.
    async fn group(&self, group: &str) -> Result<Option<TablePins>, QueryError>;
}

#[async_trait]
impl Versions for Lake {
    async fn newest(&self, table: &TableName) -> Result<Option<Version>, QueryError> {
        Ok(self.table(table).snapshot().await?.map(Version::from))
    }

    async fn at(&self, table: &TableName, at: At) -> Result<Version, QueryError> {
        Ok(self.table(table).snapshot_at(at).await?.into())
    }

    async fn gained(
        &self,
        table: &TableName,
        version: u64,
        since: u64,
    ) -> Result<Option<Arc<dyn TableProvider>>, QueryError> {
        let table = self.table(table);
        let now = table.snapshot_at(At::Version(version)).await?;
        Ok(now.gained_since(table.snapshot_at(At::Version(since)).await?.as_ref()))
    }

    async fn tables_in(&self, schema: &str) -> Result<Vec<TableName>, QueryError> {
        Ok(self.tables_in(schema).await?.into_iter().collect())
    }

    async fn group(&self, group: &str) -> Result<Option<TablePins>, QueryError> {
        Ok(self.manifests().newest(group).await?)
    }
}

/// The tables that are defined, and how their names become versions.
pub(crate) struct Catalog {
    settings: Arc<Settings>,
    versions: Arc<dyn Versions>,
    system: System,
}

/// A statement's tables.
#[derive(Clone, Default)]
pub(crate) struct Resolved {
    /// What reads each table, by schema and name as they stand in the rewritten statement.
    pub(crate) tables: HashMap<(String, String), Arc<dyn TableProvider>>,
    /// The version of every table that is read at no version the statement itself names.
    pub(crate) pins: TablePins,
    /// Whether `information_schema` is read.
    pub(crate) lists: bool,
    /// What of the tables may be seen by whom, as a digest.
    pub(crate) rights: String,
    /// What the rows depend on; none where something is read that has no versions.
    pub(crate) dependencies: Option<Dependencies>,
    /// The tables of which not everything may be seen: their scans are still to be sealed.
    pub(crate) restricted: Vec<((String, String), TableName, TableRights)>,
    /// The samples that are still to be drawn, from what may be seen.
    samples: Vec<Sampling>,
}

/// A sample of a table of a statement.
#[derive(Clone)]
struct Sampling {
    /// The name as it stands in the statement.
    name: (String, String),
    /// The same of the table it is drawn from.
    whole: (String, String),
    table: TableName,
    /// The columns that name a row, where they are seen as they are.
    key: Vec<String>,
    sample: Sample,
}

impl Resolved {
    /// Draws the samples. The tables are sealed by then: who draws sees no more than who reads.
    ///
    /// # Errors
    /// When one cannot be planned.
    pub(crate) fn draw_samples(&mut self) -> Result<(), QueryError> {
        for Sampling { name, whole, table, key, sample } in std::mem::take(&mut self.samples) {
            if let Some(whole) = self.tables.get(&whole).cloned() {
                self.tables.insert(name, sample.of(&table, whole, &key)?);
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolved").field("pins", &self.pins).finish_non_exhaustive()
    }
}

/// What a name in a statement stands for.
enum Meant {
    Defined(TableName, Option<Asked>),
    /// A table that people make; whether it is there shows when it is opened.
    Made(TableName, Option<Asked>),
    System(String),
    Information,
}

impl Catalog {
    pub(crate) fn new(settings: Arc<Settings>, versions: Arc<dyn Versions>, system: System) -> Self {
        Self { settings, versions, system }
    }

    /// The schema of names written without one: the only one there is.
    pub(crate) fn default_schema(settings: &Settings) -> Option<String> {
        let schemas: BTreeSet<&str> = settings.tables.keys().map(TableName::schema).collect();
        match schemas.len() {
            1 => schemas.first().map(|only| (*only).to_owned()),
            _ => None,
        }
    }

    /// Definitions in order of their names.
    pub(crate) fn definitions(&self) -> &BTreeMap<TableName, TableDefinition> {
        &self.settings.tables
    }

    /// The newest version of a table that is defined; none when it was never loaded.
    pub(crate) async fn newest(&self, name: &TableName) -> Result<Option<Version>, QueryError> {
        self.versions.newest(name).await
    }

    /// What a principal may see and do with a table that is defined.
    pub(crate) fn rights(name: &TableName, access: &Access) -> TableRights {
        access.table(name, None)
    }

    /// Resolves each name once, but for those of functions. `pins` are honoured where the statement itself names no version,
    /// and of tables in `since` only rows are read that were not there in that version.
    ///
    /// # Errors
    /// `NotFound` for tables and versions that are not there, with the nearest name there is. A table of which nothing
    /// may be read is not there. `PermissionDenied` when it was planned for other rights (`planned_for`) before.
    pub(crate) async fn resolve(
        &self,
        references: Vec<TableReference>,
        is_function: impl Fn(&str) -> bool,
        (pins, since): (&TablePins, &TablePins),
        access: &Access,
        planned_for: Option<&str>,
    ) -> Result<Resolved, QueryError> {
        let (mut wanted, mut samples) = (Vec::new(), Vec::new());
        for reference in references {
            // Functions in FROM are listed among the tables.
            if matches!(reference, TableReference::Bare { .. }) && is_function(reference.table()) {
                continue;
            }
            let name = self.key(&reference);
            let (reference, sample) = Sample::take(reference);
            let key = self.key(&reference);
            samples.extend(sample.map(|sample| (name, key.clone(), sample)));
            let meant = self.meaning(&reference, access).await;
            // What has become of a table is not told to those who once could see it.
            let meant = if planned_for.is_some() { meant.map_err(|_| rights_changed())? } else { meant? };
            // A table and its samples are of one version.
            if !wanted.iter().any(|(known, _)| *known == key) {
                wanted.push((key, meant));
            }
        }
        let groups = self.groups(&wanted, pins).await?;
        let opened = wanted.into_iter().map(|(key, meant)| self.open(key, meant, pins, &groups, access));
        let mut opened = try_join_all(opened).await?;
        let seen = opened.iter().filter_map(|opened| opened.rights.clone()).collect();
        let mut resolved = Resolved { rights: opened::digest(&seen, access), ..Resolved::default() };
        if planned_for.is_some_and(|planned_for| planned_for != resolved.rights) {
            return Err(rights_changed());
        }
        self.leave_out(&mut opened, since).await?;
        resolved.dependencies = opened::dependencies(&opened, &seen, access);
        for Opened { key, rights, provider, pin, row_key, version: _ } in opened {
            if let (Some((name, rights)), Some(version)) = (rights, &provider) {
                let drawn = samples.extract_if(.., |(_, whole, _)| *whole == key);
                resolved.samples.extend(drawn.map(|(drawn, whole, sample)| {
                    let (table, key) = (name.clone(), seen_key(&row_key, &rights));
                    Sampling { name: drawn, whole, table, key, sample }
                }));
                if !version.schema().fields().iter().any(|field| rights.reads(field.name())) {
                    return Err(self.unknown(name.schema(), name.table(), access).await);
                }
                if !rights.sees_everything() {
                    resolved.restricted.push((key.clone(), name, rights));
                }
            }
            match provider {
                Some(provider) => {
                    resolved.tables.insert(key, provider);
                }
                None => resolved.lists = true,
            }
            resolved.pins.extend(pin);
        }
        match samples.first() {
            Some((_, (schema, table), _)) => {
                Err(QueryError::unsupported(format!("`{schema}.{table}` has no samples; leave TABLESAMPLE out")))
            }
            None => Ok(resolved),
        }
    }

    /// Leaves out the rows that were there in versions before.
    async fn leave_out(&self, opened: &mut [Opened], since: &TablePins) -> Result<(), QueryError> {
        for (name, before) in since {
            let read = opened.iter_mut().find_map(|opened| match &opened.pin {
                Some((pinned, version)) if pinned == name => Some((*version, &mut opened.provider)),
                _ => None,
            });
            let Some((version, provider)) = read else { return Err(not_only_gained(name)) };
            let gained = self.versions.gained(name, version, *before).await?;
            *provider = Some(gained.ok_or_else(|| not_only_gained(name))?);
        }
        Ok(())
    }

    /// Names of tables that people may have made.
    pub(crate) async fn made(&self) -> Result<Vec<TableName>, QueryError> {
        self.versions.tables_in(RESULTS_SCHEMA).await
    }

    /// What a reference is looked up by.
    pub(crate) fn key(&self, reference: &TableReference) -> (String, String) {
        let schema = reference.schema().map(str::to_owned).or_else(|| Self::default_schema(&self.settings));
        (schema.unwrap_or_default(), reference.table().to_owned())
    }

    async fn meaning(&self, reference: &TableReference, access: &Access) -> Result<Meant, QueryError> {
        let (schema, written) = self.key(reference);
        let (table, asked) = match Asked::from_internal_name(&written) {
            Some((table, asked)) => (table, Some(asked)),
            None => (written.as_str(), None),
        };
        if let Some(catalog) = reference.catalog()
            && catalog != CATALOG
        {
            let message = format!("there is no catalog `{catalog}`; the only one is `{CATALOG}`");
            return Err(QueryError::new(ErrorKind::NotFound, message));
        }
        match schema.as_str() {
            INFORMATION_SCHEMA | SYSTEM_SCHEMA if asked.is_some() => Err(QueryError::invalid(format!(
                "`{schema}.{table}` has no versions; leave VERSION or TIMESTAMP AS OF out"
            ))),
            INFORMATION_SCHEMA => Ok(Meant::Information),
            SYSTEM_SCHEMA if System::has(table) => Ok(Meant::System(table.to_owned())),
            _ => match TableName::new(&schema, table) {
                Ok(name) if self.is_there(&name, access) => Ok(Meant::Defined(name, asked)),
                Ok(name) if name.schema() == RESULTS_SCHEMA => Ok(Meant::Made(name, asked)),
                // A name without a schema may be that of a table that people made.
                _ if reference.schema().is_none()
                    && let Ok(name) = TableName::new(RESULTS_SCHEMA, table) =>
                {
                    Ok(Meant::Made(name, asked))
                }
                // As it was written: the schema it would be in need not be known to who asks.
                _ => Err(self.unknown(reference.schema().unwrap_or_default(), table, access).await),
            },
        }
    }

    /// Whether a table is defined, and there for the principal.
    fn is_there(&self, name: &TableName, access: &Access) -> bool {
        self.settings.tables.contains_key(name) && Self::rights(name, access).is_readable()
    }

    /// The error of a name that nothing has which who asks may see, with the nearest name of what they may see.
    pub(crate) async fn unknown(&self, schema: &str, table: &str, access: &Access) -> QueryError {
        let written = if schema.is_empty() { table.to_owned() } else { format!("{schema}.{table}") };
        let made = self.made_near(&written, access).await;
        let names = self.settings.tables.keys().filter(|name| self.is_there(name, access)).map(ToString::to_string);
        let system = System::tables().into_iter().map(|(name, _, _)| format!("{SYSTEM_SCHEMA}.{name}"));
        let known = names.chain(system).chain(made);
        let nearest = known.filter_map(|name| Some((nearness(&written, &name)?, name))).min();
        let hint = match nearest {
            Some((_, name)) => format!("did you mean `{name}`?"),
            None => "SHOW TABLES lists what there is".to_owned(),
        };
        QueryError::new(ErrorKind::NotFound, format!("there is no table `{written}`; {hint}"))
    }

    /// The tables that people made whose names are near to a written one, as far as who asks sees something of them.
    async fn made_near(&self, written: &str, access: &Access) -> Vec<String> {
        let mut near = Vec::new();
        // Without the list there is no hint, and the error is the same.
        for name in self.made().await.unwrap_or_default() {
            let text = name.to_string();
            // A name without a schema was looked for among them already.
            if name.table() != written && nearness(written, &text).is_some() && self.shows(&name, access).await {
                near.push(text);
            }
        }
        near
    }

    /// Whether somebody sees a column of a table that people made.
    async fn shows(&self, name: &TableName, access: &Access) -> bool {
        let Ok(Some(newest)) = self.versions.newest(name).await else { return false };
        let rights = access.table(name, newest.made.owner.as_deref());
        !newest.is_dropped && newest.provider.schema().fields().iter().any(|field| rights.reads(field.name()))
    }

    /// The published versions of every group the statement touches.
    async fn groups(
        &self,
        wanted: &[((String, String), Meant)],
        pins: &TablePins,
    ) -> Result<HashMap<String, TablePins>, QueryError> {
        let mut groups = BTreeSet::new();
        for (_, meant) in wanted {
            if let Meant::Defined(name, None) = meant
                && !pins.contains_key(name)
                && let Some(group) = self.settings.tables.get(name).and_then(|table| table.load.group.as_ref())
            {
                groups.insert(group.clone());
            }
        }
        let found = try_join_all(groups.into_iter().map(async |group| {
            let published = self.versions.group(&group).await?;
            Ok::<_, QueryError>((group, published.unwrap_or_default()))
        }));
        Ok(found.await?.into_iter().collect())
    }

    async fn open(
        &self,
        key: (String, String),
        meant: Meant,
        pins: &TablePins,
        groups: &HashMap<String, TablePins>,
        access: &Access,
    ) -> Result<Opened, QueryError> {
        let name = match meant {
            Meant::Made(name, asked) => return self.open_made(key, name, asked, pins, access).await,
            Meant::Information => {
                return Ok(Opened { key, rights: None, provider: None, pin: None, row_key: vec![], version: None });
            }
            Meant::System(table) => {
                let provider = Some(self.system.provider(&table, access)?);
                return Ok(Opened { key, rights: None, provider, pin: None, row_key: vec![], version: None });
            }
            Meant::Defined(name, Some(asked)) => {
                let version = self.asked_version(&name, asked).await?;
                let rights = Some((name.clone(), Self::rights(&name, access)));
                let row_key = self.row_key(&name);
                let read = Some(version.identity());
                return Ok(Opened { key, rights, provider: Some(version.provider), pin: None, row_key, version: read });
            }
            Meant::Defined(name, None) => name,
        };
        let rights = Some((name.clone(), Self::rights(&name, access)));
        let row_key = self.row_key(&name);
        let definition = self.settings.tables.get(&name);
        let group = definition.and_then(|table| table.load.group.as_ref());
        let published = group.and_then(|group| groups.get(group)).and_then(|tables| tables.get(&name));
        let at_one_moment = definition.is_some_and(|own| matches!(own.source, TableSource::SqlServer(_)));
        let empty = || Some(self.without_rows(&name));
        let version = match pins.get(&name).or(published) {
            Some(&BEFORE_FIRST) => {
                return Ok(Opened::without_rows(key, rights, empty(), name, row_key));
            }
            Some(pin) => self.pinned_version(&name, *pin).await?,
            // Its newest version need not be of the moment of the others.
            None if at_one_moment && group.is_some() => return Err(not_published(&name, group)),
            None => match self.versions.newest(&name).await? {
                Some(version) => version,
                None if definition.is_some_and(rows_come_by_sql) => {
                    return Ok(Opened::without_rows(key, rights, empty(), name, row_key));
                }
                None => return Err(not_loaded(&name)),
            },
        };
        let pin = Some((name, version.number));
        let read = Some(version.identity());
        Ok(Opened { key, rights, provider: Some(version.provider), pin, row_key, version: read })
    }

    /// A table that people made, or the error of one that is not there: whoever may not see it gets the same.
    async fn open_made(
        &self,
        key: (String, String),
        name: TableName,
        asked: Option<Asked>,
        pins: &TablePins,
        access: &Access,
    ) -> Result<Opened, QueryError> {
        let rights = |version: &Version| access.table(&name, version.made.owner.as_deref());
        let is_visible = |version: &Version| rights(version).is_readable() && !version.is_dropped;
        // As it was written: the schema it would be in otherwise need not be known to who asks.
        let written = if key.0 == RESULTS_SCHEMA { RESULTS_SCHEMA } else { "" };
        let unknown = || self.unknown(written, name.table(), access);
        let Some(newest) = self.versions.newest(&name).await? else { return Err(unknown().await) };
        let found = match (asked, pins.get(&name)) {
            (Some(asked), _) => self.asked_version(&name, asked).await,
            (None, Some(pin)) => self.pinned_version(&name, *pin).await,
            (None, None) => Ok(newest.clone()),
        };
        let version = match found {
            // Which versions there are is told to those only who see the table.
            Err(error) if error.kind() == ErrorKind::NotFound && !is_visible(&newest) => {
                return Err(unknown().await);
            }
            found => found?,
        };
        if !is_visible(&version) {
            return Err(unknown().await);
        }
        let rights = Some((name.clone(), rights(&version)));
        let pin = asked.is_none().then_some((name.clone(), version.number));
        let read = Some(version.identity());
        Ok(Opened { key, rights, provider: Some(version.provider), pin, row_key: version.made.key, version: read })
    }

    /// The columns that name a row of a table that is defined.
    fn row_key(&self, name: &TableName) -> Vec<String> {
        self.settings.tables.get(name).map(|table| table.key.clone()).unwrap_or_default()
    }

    /// A table that nothing was written to yet, as its definition declares it.
    fn without_rows(&self, name: &TableName) -> Arc<dyn TableProvider> {
        let columns = self.settings.tables.get(name).map(|table| table.columns.as_slice()).unwrap_or_default();
        let fields =
            columns.iter().map(|column| Field::new(&column.name, column.column_type.to_arrow(), column.nullable));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Arc::new(EmptyTable::new(schema))
    }

    async fn pinned_version(&self, name: &TableName, pin: u64) -> Result<Version, QueryError> {
        match self.versions.newest(name).await? {
            Some(newest) if newest.number == pin => Ok(newest),
            Some(_) => self.versions.at(name, At::Version(pin)).await,
            None => Err(not_loaded(name)),
        }
    }

    async fn asked_version(&self, name: &TableName, asked: Asked) -> Result<Version, QueryError> {
        let newest = self.versions.newest(name).await?.ok_or_else(|| not_loaded(name))?;
        match asked {
            Asked::Version(number) if number == newest.number => Ok(newest),
            Asked::Version(number) if number > newest.number => Err(QueryError::new(
                ErrorKind::NotFound,
                format!("{name} has no version {number}; its newest is {}", newest.number),
            )),
            Asked::Version(number) => self.versions.at(name, At::Version(number)).await,
            Asked::Time(time) => self.versions.at(name, At::Time(time)).await,
        }
    }
}

/// What stands for the version of a table that has none yet.
pub(crate) const BEFORE_FIRST: u64 = u64::MAX;

/// Whether a table has no source: then it is there, without rows, before anything was written to it.
fn rows_come_by_sql(definition: &TableDefinition) -> bool {
    definition.writable && matches!(&definition.source, TableSource::Files(blocks) if blocks.is_empty())
}

fn not_only_gained(name: &TableName) -> QueryError {
    let text = format!("{name} has not only gained rows since the result was made; run the query again for all of it");
    QueryError::new(ErrorKind::Conflict, text)
}

fn rights_changed() -> QueryError {
    QueryError::new(
        ErrorKind::PermissionDenied,
        "what may be seen has changed since this was planned; run the query again",
    )
}

fn not_published(name: &TableName, group: Option<&String>) -> QueryError {
    let group = group.map_or("", String::as_str);
    let text = format!(
        "table {name} is of the group {group}, which is shown as soon as all its tables were loaded from one state of \
         their database; run `lakegate sync {name}`, which loads all of them, or see `lakegate loads`"
    );
    QueryError::new(ErrorKind::NotFound, text)
}

fn not_loaded(name: &TableName) -> QueryError {
    QueryError::new(ErrorKind::NotFound, format!("table {name} has not been loaded yet; run `lakegate sync {name}`"))
}

/// How far a known name is from a written one, where it may have been meant; one that is written without a schema is
/// compared with the table's own. What has no column for who asks is no hint to itself.
fn nearness(written: &str, known: &str) -> Option<usize> {
    let lower = written.to_lowercase();
    let distance = match known.split_once('.') {
        Some((_, table)) if !written.contains('.') => strsim::damerau_levenshtein(&lower, table),
        _ => strsim::damerau_levenshtein(&lower, known),
    };
    (distance <= 1 + known.len() / 4 && known != written).then_some(distance)
}
