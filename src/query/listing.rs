//! The catalogue as it is listed: names, versions and columns, remembered for a moment, and the
//! catalog a statement is planned against, with an `information_schema` that opens no table.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use datafusion::catalog::information_schema::InformationSchemaProvider;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableFunction, TableProvider};
use datafusion::datasource::empty::EmptyTable;
use datafusion::error::Result;
use datafusion::logical_expr::TableType;
use futures::{StreamExt, stream};

use crate::access::Access;
use crate::config::{ForeignKey, TableDefinition};
use crate::error::chain_text;
use crate::model::TableName;
use crate::query::TableSummary;
use crate::query::catalog::{CATALOG, Catalog, INFORMATION_SCHEMA, Resolved};
use crate::query::sealed::{seen_columns, seen_key};
use crate::query::system::{SYSTEM_SCHEMA, System};
use crate::runtime::clock::Clock;

/// How long a listing is good for: a person who loads a table and then looks finds it; a client that
/// asks for every table's columns one by one costs one look.
const FRESH: Duration = Duration::from_secs(1);

/// Tables whose log is looked at at the same time.
const PARALLEL_TABLES: usize = 16;

/// Tables of `information_schema` that would tell the engine's own settings, or nothing right.
const LEFT_EMPTY: &[&str] = &["df_settings", "views"];

/// The listing and when it was made.
type Remembered = Option<(Instant, Arc<Vec<TableSummary>>)>;

/// Makes listings and remembers the last.
pub(crate) struct Listings {
    catalog: Arc<Catalog>,
    clock: Arc<dyn Clock>,
    last: tokio::sync::Mutex<Remembered>,
}

impl Listings {
    pub(crate) fn new(catalog: Arc<Catalog>, clock: Arc<dyn Clock>) -> Self {
        Self { catalog, clock, last: tokio::sync::Mutex::default() }
    }

    /// The tables a principal may read, with the columns they may read.
    pub(crate) async fn visible(&self, access: &Access) -> Arc<Vec<TableSummary>> {
        let all = self.newest().await;
        if access.is_unrestricted() {
            return all;
        }
        Arc::new(all.iter().filter_map(|table| visible(table, access)).collect())
    }

    /// The tables that can be read, in order of schema and name. Those that were never loaded are not
    /// among them, nor those that cannot be opened, which the log names.
    async fn newest(&self) -> Arc<Vec<TableSummary>> {
        let mut last = self.last.lock().await;
        let now = self.clock.monotonic();
        if let Some((made, listing)) = last.as_ref()
            && now.saturating_duration_since(*made) < FRESH
        {
            return Arc::clone(listing);
        }
        let listing = Arc::new(self.make().await);
        *last = Some((now, Arc::clone(&listing)));
        listing
    }

    /// Forgets the last listing: a table was made or changed by this process, and whoever did it looks for it.
    pub(crate) async fn forget(&self) {
        *self.last.lock().await = None;
    }

    async fn make(&self) -> Vec<TableSummary> {
        let definitions = self.catalog.definitions();
        let made = self.catalog.made().await.unwrap_or_else(|error| {
            tracing::warn!(error = %chain_text(&error), "the tables that people made cannot be listed");
            Vec::new()
        });
        let defined = definitions.iter().map(|(name, table)| (name.clone(), Some(table)));
        let made = made.into_iter().filter(|name| !definitions.contains_key(name)).map(|name| (name, None));
        let looks: Vec<_> = defined.chain(made).map(|(name, table)| self.look(name, table)).collect();
        let opened = stream::iter(looks).buffered(PARALLEL_TABLES);
        let mut tables: Vec<TableSummary> = opened.filter_map(std::future::ready).collect().await;
        tables.extend(System::tables().into_iter().map(|(table, columns, description)| TableSummary {
            schema: SYSTEM_SCHEMA.to_owned(),
            table: table.to_owned(),
            version: None,
            columns,
            key: Vec::new(),
            description: Some(description.to_owned()),
            owner: None,
            writable: false,
            foreign_keys: Vec::new(),
        }));
        tables.sort_by(|a, b| (&a.schema, &a.table).cmp(&(&b.schema, &b.table)));
        tables
    }

    async fn look(&self, name: TableName, definition: Option<&TableDefinition>) -> Option<TableSummary> {
        match self.catalog.newest(&name).await {
            Ok(version) => version.filter(|version| !version.is_dropped).map(|version| TableSummary {
                schema: name.schema().to_owned(),
                table: name.table().to_owned(),
                version: Some(version.number),
                columns: version.provider.schema(),
                key: definition.map_or(version.made.key, |definition| definition.key.clone()),
                description: definition.and_then(|definition| definition.description.clone()),
                owner: version.made.owner,
                writable: definition.is_none_or(|definition| definition.writable),
                foreign_keys: definition.map(|definition| definition.foreign_keys.clone()).unwrap_or_default(),
            }),
            Err(error) => {
                tracing::warn!(table = %name, error = %chain_text(&error), "a table cannot be listed");
                None
            }
        }
    }
}

/// A table as a principal sees it; none where it is not there for them.
fn visible(table: &TableSummary, access: &Access) -> Option<TableSummary> {
    let Ok(name) = TableName::new(&table.schema, &table.table) else { return None };
    if table.schema == SYSTEM_SCHEMA {
        return Some(table.clone());
    }
    let rights = access.table(&name, table.owner.as_deref());
    let columns = seen_columns(&table.columns, &rights);
    if columns.fields().is_empty() {
        return None;
    }
    let key = seen_key(&table.key, &rights);
    let writable = table.writable && rights.write;
    let told = |foreign: &&ForeignKey| {
        let theirs = access.table(&foreign.references, None);
        foreign.columns.iter().all(|column| rights.reads(column))
            && foreign.their_columns.iter().all(|column| theirs.reads(column))
    };
    let foreign_keys = table.foreign_keys.iter().filter(told).cloned().collect();
    Some(TableSummary { columns, key, writable, foreign_keys, ..table.clone() })
}

/// The catalog of one statement: the tables it was resolved to and, where it asks for them, all others
/// by name and columns.
#[derive(Clone, Debug)]
pub(crate) struct StatementCatalog {
    resolved: Arc<Resolved>,
    information: Option<Arc<InformationSchema>>,
}

impl StatementCatalog {
    /// `listing` is given where the statement reads `information_schema`.
    pub(crate) fn new(
        resolved: Resolved,
        listing: Option<Arc<Vec<TableSummary>>>,
        functions: HashMap<String, Arc<TableFunction>>,
    ) -> Self {
        let information = listing.map(|listing| {
            let listed = Arc::new(Listed(listing));
            Arc::new(InformationSchema(InformationSchemaProvider::new(listed).with_table_functions(functions)))
        });
        Self { resolved: Arc::new(resolved), information }
    }
}

impl CatalogProviderList for StatementCatalog {
    fn register_catalog(&self, _: String, _: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == CATALOG).then(|| Arc::new(self.clone()) as Arc<dyn CatalogProvider>)
    }
}

impl CatalogProvider for StatementCatalog {
    fn schema_names(&self) -> Vec<String> {
        let schemas: BTreeSet<&String> = self.resolved.tables.keys().map(|(schema, _)| schema).collect();
        schemas.into_iter().cloned().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if name == INFORMATION_SCHEMA {
            return self.information.clone().map(|information| information as Arc<dyn SchemaProvider>);
        }
        Some(Arc::new(StatementSchema { name: name.to_owned(), resolved: Arc::clone(&self.resolved) }))
    }
}

/// A schema's tables, as far as the statement names them.
#[derive(Debug)]
struct StatementSchema {
    name: String,
    resolved: Arc<Resolved>,
}

#[async_trait]
impl SchemaProvider for StatementSchema {
    fn table_names(&self) -> Vec<String> {
        let own = |(schema, table): &(String, String)| (*schema == self.name).then(|| table.clone());
        self.resolved.tables.keys().filter_map(own).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        Ok(self.resolved.tables.get(&(self.name.clone(), name.to_owned())).cloned())
    }

    fn table_exist(&self, name: &str) -> bool {
        self.resolved.tables.contains_key(&(self.name.clone(), name.to_owned()))
    }
}

/// The library's tables about tables, over a listing.
#[derive(Debug)]
struct InformationSchema(InformationSchemaProvider);

#[async_trait]
impl SchemaProvider for InformationSchema {
    fn table_names(&self) -> Vec<String> {
        self.0.table_names()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let table = self.0.table(name).await?;
        if LEFT_EMPTY.contains(&name) {
            return Ok(table.map(|table| Arc::new(EmptyTable::new(table.schema())) as Arc<dyn TableProvider>));
        }
        Ok(table)
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.table_exist(name)
    }
}

/// A listing as a catalog whose tables have columns and no rows.
#[derive(Clone, Debug)]
struct Listed(Arc<Vec<TableSummary>>);

impl CatalogProviderList for Listed {
    fn register_catalog(&self, _: String, _: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == CATALOG).then(|| Arc::new(self.clone()) as Arc<dyn CatalogProvider>)
    }
}

impl CatalogProvider for Listed {
    fn schema_names(&self) -> Vec<String> {
        let schemas: BTreeSet<&str> = self.0.iter().map(|table| table.schema.as_str()).collect();
        schemas.into_iter().map(str::to_owned).collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        Some(Arc::new(ListedSchema { name: name.to_owned(), listing: Arc::clone(&self.0) }))
    }
}

/// One schema of a listing.
#[derive(Debug)]
struct ListedSchema {
    name: String,
    listing: Arc<Vec<TableSummary>>,
}

impl ListedSchema {
    fn find(&self, name: &str) -> Option<&TableSummary> {
        self.listing.iter().find(|table| table.schema == self.name && table.table == name)
    }
}

#[async_trait]
impl SchemaProvider for ListedSchema {
    fn table_names(&self) -> Vec<String> {
        self.listing.iter().filter(|table| table.schema == self.name).map(|table| table.table.clone()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let table = self.find(name);
        Ok(table.map(|table| Arc::new(EmptyTable::new(Arc::clone(&table.columns))) as Arc<dyn TableProvider>))
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        Ok(self.find(name).map(|_| TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.find(name).is_some()
    }
}
