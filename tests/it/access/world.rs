//! A lake with something to hide, the principals it is hidden from, and servers each of them can ask.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow_flight::flight_service_client::FlightServiceClient;
use chrono::Utc;
use datafusion::common::ScalarValue;
use futures::TryStreamExt;
use lakegate::access::{
    ADMIN_ROLE, Access, Grant, Grantee, Grants, Policy, Principal, Scope, change_users, hash_password,
};
use lakegate::config::User;
use lakegate::error::ErrorKind;
use lakegate::flight::{Entrance, ServiceParts, serve_with};
use lakegate::journal::{LoadRecord, LoadStatus, VerificationRecord, VerificationStatus};
use lakegate::model::TableName;
use lakegate::query::{QueryEngine, QueryError, Statement};
use lakegate::runtime::clock::SystemClock;
use lakegate::runtime::shutdown::Shutdown;
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::queries::house::{House, statement, text};
use crate::support::credentials::{self, basic};

/// The columns of `ops.people`.
pub(super) const PEOPLE: &[(&str, &str)] = &[
    ("id", "bigint"),
    ("name", "string"),
    ("region", "string"),
    ("salary", "bigint"),
    ("secret", "string"),
    ("address", "struct<street: string, city: string>"),
    ("tags", "array<string>"),
];

/// Rows of the north, which everybody sees who sees rows: secrets that are numbers would be.
const NORTH: &str = "select 1 as id, 'ann' as name, 'north' as region, 100 as salary, 'secretval-1' as secret, \
                     named_struct('street', 'secretval-street', 'city', 'Oslo') as address, \
                     ['secretval-tag'] as tags \
                     union all select 2, 'bob', 'north', 200, 'secretval-2', \
                     named_struct('street', 'secretval-street', 'city', 'Bergen'), ['secretval-tag']";

/// Rows of the south, which a row filter hides.
const SOUTH: &str = "select 3 as id, 'hiddenrow-cleo' as name, 'south' as region, 0 as salary, 'secretval-3' as secret, \
                     named_struct('street', 'secretval-street', 'city', 'hiddenrow-city') as address, \
                     ['hiddenrow-tag'] as tags \
                     union all select 4, 'hiddenrow-dan', 'south', 999999, 'secretval-4', \
                     named_struct('street', 'secretval-street', 'city', 'hiddenrow-city'), ['hiddenrow-tag']";

/// What a masked secret is seen as.
pub(super) const MASK: &str = "'***'";

/// The lake: `ops.people` in two versions, `pub.numbers`, and `payroll.wages`, whose schema nobody is granted.
pub(super) async fn lake() -> House {
    let house =
        House::new(&["ops.people = \n[table]\nkey = [\"id\", \"secret\"]", "pub.numbers", "payroll.wages"]).await;
    house.load("ops.people", PEOPLE, NORTH).await;
    house.load("ops.people", PEOPLE, SOUTH).await;
    house.load("pub.numbers", &[("n", "bigint")], "select * from generate_series(1, 10) g(n)").await;
    house.load("payroll.wages", &[("codeword", "string")], "select 'secretval-wage' as codeword").await;
    let now = Utc::now();
    house.journal.record_load(LoadRecord {
        load_id: uuid::Uuid::from_u128(7),
        table: "ops.people".parse().unwrap(),
        started_at: now,
        ended_at: now,
        status: LoadStatus::Failed,
        rows_read: 4,
        rows_written: 0,
        rows_rejected: 4,
        bytes_read: 10,
        bytes_written: 0,
        version: None,
        attempt: Some(2),
        position: Some(serde_json::json!({ "key": "secretval-position" })),
        error_kind: Some(ErrorKind::InvalidInput),
        error: Some("`secretval-error` is no bigint".to_owned()),
        written: None,
    });
    house.journal.record_verification(VerificationRecord {
        verification_id: uuid::Uuid::from_u128(8),
        table: "ops.people".parse().unwrap(),
        started_at: now,
        ended_at: now,
        status: VerificationStatus::Differs,
        version: Some(1),
        method: None,
        since: None,
        ranges: 1,
        rows: 4,
        left_out: 0,
        differences: vec![serde_json::json!({ "after": ["secretval-difference"] })],
        key: vec!["id".to_owned()],
        notes: vec![],
        repaired_version: None,
        error_kind: None,
        error: None,
    });
    house
}

/// Somebody who asks: what the engine is told of them, and what files say so to a server.
#[derive(Clone, Debug)]
pub(super) struct Person {
    access: Access,
    grants: Vec<Grant>,
    /// What is kept back of `ops.people`, from everybody on their server.
    policy: Policy,
}

impl Deref for Person {
    type Target = Access;

    fn deref(&self) -> &Access {
        &self.access
    }
}

impl Person {
    /// Somebody of another name who may see the same.
    pub(super) fn called(self, name: &str) -> Self {
        principal(name, self.grants, self.policy)
    }

    fn name(&self) -> &str {
        &self.access.principal().name
    }

    fn password(&self) -> String {
        format!("the pässword of {}", self.name())
    }
}

fn table(name: &str) -> Scope {
    Scope::Table(name.parse().unwrap())
}

fn read(on: Scope, columns: Option<&[&str]>) -> Grant {
    let columns = columns.map(|columns| columns.iter().map(|column| (*column).to_owned()).collect());
    Grant { to: Grantee::Everyone, on, columns, read: true, write: false }
}

/// A principal called `name`, who may read `pub.numbers` and what else is granted; on a server to nobody else.
pub(super) fn principal(name: &str, grants: Vec<Grant>, policy: Policy) -> Person {
    let to = || Grantee::User(name.to_owned());
    let grants: Vec<Grant> = grants.into_iter().map(|grant| Grant { to: to(), ..grant }).collect();
    let mut all = vec![read(table("pub.numbers"), None)];
    all.extend(grants.iter().cloned());
    let policies = BTreeMap::from([("ops.people".parse::<TableName>().unwrap(), policy.clone())]);
    let policies = policies.into_iter().filter(|(_, policy): &(_, Policy)| *policy != Policy::default()).collect();
    let principal = Principal { name: name.to_owned(), roles: BTreeSet::from(["analyst".to_owned()]) };
    Person { access: Access::granted(principal, Arc::new(Grants { grants: all, policies })), grants, policy }
}

/// Everything, by the role that gives it.
pub(super) fn admin() -> Person {
    let principal = Principal { name: "root".to_owned(), roles: BTreeSet::from([ADMIN_ROLE.to_owned()]) };
    Person { access: Access::granted(principal, Arc::default()), grants: vec![], policy: Policy::default() }
}

/// All of `ops.people`.
pub(super) fn allowed() -> Person {
    principal("allowed", vec![read(table("ops.people"), None)], Policy::default())
}

/// Nothing of `ops.people`.
pub(super) fn denied_table() -> Person {
    principal("denied", vec![], Policy::default())
}

/// `ops.people` without `secret`, `address` and `tags`.
pub(super) fn denied_column() -> Person {
    let seen = ["id", "name", "region", "salary"];
    principal("columns", vec![read(table("ops.people"), Some(&seen))], Policy::default())
}

/// The rows of the north.
pub(super) fn filtered_rows() -> Person {
    filtered("region = 'north'")
}

/// The rows a filter lets through.
pub(super) fn filtered(filter: &str) -> Person {
    let policy = Policy { filters: vec![filter.to_owned()], ..Policy::default() };
    principal("filtered", vec![read(table("ops.people"), None)], policy)
}

/// All rows, with everything that is secret masked.
pub(super) fn masked_column() -> Person {
    let masks =
        [("secret", MASK), ("address", "named_struct('street', '***', 'city', address.city)"), ("tags", "null")];
    masked(&masks)
}

/// All rows under these masks.
pub(super) fn masked(masks: &[(&str, &str)]) -> Person {
    let masks = masks.iter().map(|(column, mask)| ((*column).to_owned(), (*mask).to_owned())).collect();
    let policy = Policy { masks, ..Policy::default() };
    principal("masked", vec![read(table("ops.people"), None)], policy)
}

/// The rows of a statement for a principal, or its error as text with its kind.
pub(super) async fn ask(house: &House, access: &Access, sql: &str) -> Result<Vec<String>, String> {
    ask_with(house, access, sql, vec![]).await
}

/// The same, with values for its parameters.
pub(super) async fn ask_with(
    house: &House,
    access: &Access,
    sql: &str,
    parameters: Vec<ScalarValue>,
) -> Result<Vec<String>, String> {
    let told = |error: QueryError| {
        use lakegate::error::Classify;
        format!("{}: {}", error.kind().as_str(), lakegate::error::chain_text(&error))
    };
    let statement = Statement { parameters, ..statement(sql) };
    let planned = house.engine.plan(statement, access).await.map_err(told)?;
    let stream = house.engine.execute(&planned, Duration::from_secs(60)).await.map_err(told)?;
    let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(|error| told(QueryError::from(error)))?;
    Ok(text(&batches))
}

/// A server over the lake, with users and grants in files of its own. All servers have one key, as those of one house do.
pub(super) struct Server {
    address: SocketAddr,
    shutdown: Shutdown,
    entrance: Entrance,
    parts: ServiceParts,
    files: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}

impl Server {
    /// A server that lets these people in; of `ops.people` the same is kept back from all of them.
    async fn open(house: &House, people: &[&Person]) -> Arc<Self> {
        let files = tempfile::tempdir().unwrap();
        std::fs::write(files.path().join("grants.toml"), grants_file(people)).unwrap();
        change_users(&files.path().join("users.toml"), files.path(), |list| {
            list.users.extend(people.iter().map(|person| (person.name().to_owned(), user(person))));
            Ok(())
        })
        .unwrap();
        let mut settings = house.settings.as_ref().clone();
        settings.tickets.key = Some("01".repeat(32).into());
        settings.access.users_file = files.path().join("users.toml");
        settings.access.grants_file = files.path().join("grants.toml");
        let (read, odd) = settings.access.read_files(files.path(), &settings.tables).unwrap();
        assert!(odd.is_empty(), "{odd:?}");
        settings.access.files = read;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let engine: Arc<dyn QueryEngine> = house.engine.clone();
        let (settings, journal) = (Arc::new(settings), Arc::clone(&house.journal));
        let parts = ServiceParts { engine, settings, journal, clock: Arc::new(SystemClock) };
        let (shutdown, entrance) = (Shutdown::new(), Entrance::open(&parts.settings).unwrap());
        let server = Arc::new(Self { address, shutdown, entrance, parts, files });
        let (entrance, parts, stop) = (server.entrance.clone(), server.parts.clone(), server.shutdown.clone());
        tokio::spawn(async move { serve_with(listener, parts, &entrance, stop).await });
        server
    }

    /// Takes somebody out of the users file, which is not read anew by that.
    pub(super) fn remove(&self, name: &str) {
        change_users(&self.files.path().join("users.toml"), self.files.path(), |list| {
            list.users.remove(name);
            Ok(())
        })
        .unwrap();
    }

    /// Writes another grants file and has it read, as a signal makes the program do.
    pub(super) async fn grant_anew(&self, people: &[&Person]) {
        std::fs::write(self.files.path().join("grants.toml"), grants_file(people)).unwrap();
        self.entrance.reload(&self.parts.settings, self.parts.engine.as_ref()).await;
    }
}

/// A connection of somebody who has logged in with a password; each call carries the token of their session.
pub(super) struct Connection {
    pub(super) channel: InterceptedService<Channel, Session>,
    pub(super) server: Arc<Server>,
}

/// Shows the token of a session with each call.
#[derive(Clone)]
pub(super) struct Session(MetadataValue<Ascii>);

impl Interceptor for Session {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Logs somebody in at a server of their own.
pub(super) async fn connect(house: &House, person: &Person) -> Connection {
    log_in(&Server::open(house, &[person]).await, person).await
}

/// Logs all of them in, at as few servers as there are things to be kept back.
pub(super) async fn connect_all(house: &House, people: &[Person]) -> Vec<Connection> {
    let mut servers: Vec<(&Policy, Arc<Server>)> = Vec::new();
    let mut connections = Vec::new();
    for person in people {
        let server = match servers.iter().find(|(policy, _)| **policy == person.policy) {
            Some((_, server)) => Arc::clone(server),
            None => {
                let alike: Vec<&Person> = people.iter().filter(|other| other.policy == person.policy).collect();
                let server = Server::open(house, &alike).await;
                servers.push((&person.policy, Arc::clone(&server)));
                server
            }
        };
        connections.push(log_in(&server, person).await);
    }
    connections
}

async fn log_in(server: &Arc<Server>, person: &Person) -> Connection {
    let channel = Endpoint::new(format!("http://{}", server.address)).unwrap().connect().await.unwrap();
    let password = basic(person.name(), &person.password());
    let token = credentials::log_in(&mut FlightServiceClient::new(channel.clone()), &password).await.unwrap();
    let session = Session(format!("Bearer {token}").parse().unwrap());
    Connection { channel: InterceptedService::new(channel, session), server: Arc::clone(server) }
}

/// A user of the users file. Hashing takes its time: once for each of them in all tests.
fn user(person: &Person) -> User {
    static HASHES: Mutex<BTreeMap<String, SecretString>> = Mutex::new(BTreeMap::new());
    let mut hashes = HASHES.lock().unwrap();
    let hash = hashes.entry(person.name().to_owned());
    let hash = hash.or_insert_with(|| hash_password(&person.password().into()).unwrap()).clone();
    let roles = person.access.principal().roles.clone();
    User { password: Some(hash), roles, tokens: vec![], spot: None }
}

/// The grants file that says what these people may see.
fn grants_file(people: &[&Person]) -> String {
    let mut file = grant_text(&read(table("pub.numbers"), None));
    for grant in people.iter().flat_map(|person| &person.grants) {
        file += &grant_text(grant);
    }
    let policy = &people[0].policy;
    for filter in &policy.filters {
        writeln!(file, "[[row_filter]]\non = \"ops.people\"\nwhere = {filter:?}").unwrap();
    }
    for (column, mask) in &policy.masks {
        writeln!(file, "[[mask]]\non = \"ops.people\"\ncolumn = {column:?}\nas = {mask:?}").unwrap();
    }
    file
}

fn grant_text(grant: &Grant) -> String {
    let (to, on) = (grant.to.to_string(), grant.on.to_string());
    let mut text = format!("[[grant]]\nto = {to:?}\non = {on:?}\n");
    if let Some(columns) = &grant.columns {
        let columns: Vec<&String> = columns.iter().collect();
        writeln!(text, "columns = {columns:?}").unwrap();
    }
    let may = [("read", grant.read), ("write", grant.write)].into_iter();
    let may: Vec<&str> = may.filter_map(|(word, may)| may.then_some(word)).collect();
    writeln!(text, "may = {may:?}").unwrap();
    text
}
