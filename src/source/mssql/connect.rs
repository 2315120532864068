//! Opening connections to a SQL Server: encryption, login, routing, and no more of them at a time than allowed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use secrecy::ExposeSecret;
use tiberius::{AuthMethod, Client, Config, EncryptionLevel};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

use crate::config::{Encrypt, SqlServerConnection, SqlServerLogin, Trust};
use crate::error::ErrorKind;
use crate::source::mssql::collation::Incomparable;
use crate::source::mssql::discover::{self, TableStates};
use crate::source::mssql::error::SqlServerError;
use crate::source::mssql::pace::Rate;
use crate::source::mssql::session::Session;
use crate::source::mssql::statements::SourceTable;

/// How the program names itself to the server, for `sys.dm_exec_sessions` and Resource Governor.
const PROGRAM: &str = concat!("lakegate ", env!("CARGO_PKG_VERSION"));
/// How often a server may send the client on to another address: Azure does so once.
const REDIRECTS: usize = 3;
/// Idle connections kept open for the next poll.
const IDLE: usize = 1;

/// The wire below a client.
pub(super) type Wire = Client<Compat<TcpStream>>;

/// Connections to the databases of one program. Clones share them.
#[derive(Clone, Default)]
pub struct Connections(Arc<Mutex<HashMap<String, Arc<Pool>>>>);

/// The connections to one database.
struct Pool {
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Session>>,
    /// How its tables stand, and when that was asked for.
    states: tokio::sync::Mutex<Option<(Instant, Arc<TableStates>)>>,
    learned: Mutex<HashMap<SourceTable, Learned>>,
    /// The most that is read from it, where there is a limit.
    rate: Option<Arc<Rate>>,
}

/// What loads of a table have learned for the next ones of this process.
#[derive(Default)]
struct Learned {
    /// A value of its key that only the server can compare, and when it was met.
    incomparable: Option<(Instant, Incomparable)>,
    /// Whether too little of it is as it was to be repaired.
    beyond_repair: bool,
    /// That it was looked at and had not changed.
    idle: Option<Idle>,
}

/// That a table did not change between two versions of its database.
#[derive(Clone, Copy, Debug)]
pub(super) struct Idle {
    pub(super) since: i64,
    pub(super) newest: i64,
    /// When its position should move on all the same.
    pub(super) until: DateTime<Utc>,
}

impl Connections {
    /// A connection: an idle one, or a new one as soon as there are fewer than `max_connections`.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses the login.
    pub async fn take(&self, settings: &SqlServerConnection) -> Result<Taken, SqlServerError> {
        let pool = self.pool(settings);
        let permit = Arc::clone(&pool.permits).acquire_owned().await;
        let permit =
            permit.map_err(|_| SqlServerError::line("connecting", ErrorKind::Internal, "the pool is closed"))?;
        let idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // An idle connection may have been cut meanwhile, by a firewall or a restart.
        let alive = match idle {
            Some(mut session) => session.is_alive().await.then_some(session),
            None => None,
        };
        let mut session = match alive {
            Some(session) => session,
            None => open(settings).await?,
        };
        session.hold(Some(permit));
        Ok(Taken { session: Some(session), pool })
    }

    /// The limit of what is read from a database, which all share who read from it.
    pub(super) fn rate(&self, settings: &SqlServerConnection) -> Option<Arc<Rate>> {
        self.pool(settings).rate.clone()
    }

    /// How the tracked tables of a database stand, asked for at `asked` or later: of many tables that are loaded
    /// together one asks. Empty where the server does not tell.
    ///
    /// # Errors
    /// When the server cannot be reached or does not answer.
    pub async fn states(
        &self,
        settings: &SqlServerConnection,
        asked: Option<Instant>,
    ) -> Result<Arc<TableStates>, SqlServerError> {
        let pool = self.pool(settings);
        let mut known = pool.states.lock().await;
        if let (Some((at, states)), Some(asked)) = (&*known, asked)
            && *at >= asked
        {
            return Ok(Arc::clone(states));
        }
        let at = Instant::now();
        let mut session = self.take(settings).await?;
        let states = Arc::new(discover::states(&mut session).await?);
        *known = Some((at, Arc::clone(&states)));
        Ok(states)
    }

    /// Takes note of a value of a table's key that only the server can compare: the next try reads the table otherwise.
    pub fn note_incomparable(&self, settings: &SqlServerConnection, table: &SourceTable, value: Incomparable) {
        self.learned(settings, table, |learned| learned.incomparable = Some((Instant::now(), value)));
    }

    /// Such a value, where one was met at `since` or later.
    pub fn incomparable(
        &self,
        settings: &SqlServerConnection,
        table: &SourceTable,
        since: Option<Instant>,
    ) -> Option<Incomparable> {
        let known = self.learned(settings, table, |learned| learned.incomparable.clone());
        known.filter(|(at, _)| since.is_none_or(|since| *at >= since)).map(|(_, value)| value)
    }

    /// Takes note that too little of a table is as it was: the next try reads it whole.
    pub fn note_beyond_repair(&self, settings: &SqlServerConnection, table: &SourceTable) {
        self.learned(settings, table, |learned| learned.beyond_repair = true);
    }

    /// Whether that was noted. It holds for one try: what the next finds is another matter.
    pub fn was_beyond_repair(&self, settings: &SqlServerConnection, table: &SourceTable) -> bool {
        self.learned(settings, table, |learned| std::mem::take(&mut learned.beyond_repair))
    }

    /// Takes note that a table did not change.
    pub(super) fn note_idle(&self, settings: &SqlServerConnection, table: &SourceTable, idle: Idle) {
        self.learned(settings, table, |learned| learned.idle = Some(idle));
    }

    /// What was noted of a table last.
    pub(super) fn idle(&self, settings: &SqlServerConnection, table: &SourceTable) -> Option<Idle> {
        self.learned(settings, table, |learned| learned.idle)
    }

    fn learned<T>(
        &self,
        settings: &SqlServerConnection,
        table: &SourceTable,
        look: impl FnOnce(&mut Learned) -> T,
    ) -> T {
        let pool = self.pool(settings);
        let mut learned = pool.learned.lock().unwrap_or_else(PoisonError::into_inner);
        look(learned.entry(table.clone()).or_default())
    }

    fn pool(&self, settings: &SqlServerConnection) -> Arc<Pool> {
        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pool = pools.entry(settings.name.clone()).or_insert_with(|| {
            Arc::new(Pool {
                permits: Arc::new(Semaphore::new(settings.max_connections.get())),
                idle: Mutex::default(),
                states: tokio::sync::Mutex::default(),
                learned: Mutex::default(),
                rate: settings.rate.map(|bits| Arc::new(Rate::new(bits))),
            })
        });
        Arc::clone(pool)
    }
}

/// A connection in use. Given back when it is dropped between two statements, thrown away otherwise: what the
/// server still sends for an unread answer would be taken for the next one's.
pub struct Taken {
    session: Option<Session>,
    pool: Arc<Pool>,
}

impl std::ops::Deref for Taken {
    type Target = Session;

    #[expect(clippy::expect_used, reason = "the session is only taken out by drop")]
    fn deref(&self) -> &Session {
        self.session.as_ref().expect("a session")
    }
}

impl std::ops::DerefMut for Taken {
    #[expect(clippy::expect_used, reason = "the session is only taken out by drop")]
    fn deref_mut(&mut self) -> &mut Session {
        self.session.as_mut().expect("a session")
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let Some(mut session) = self.session.take().filter(Session::is_reusable) else { return };
        // Others may open a connection only when this one can be had.
        let _permit = session.hold(None);
        let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(session);
        }
    }
}

/// Opens a connection, following the server's redirections.
async fn open(settings: &SqlServerConnection) -> Result<Session, SqlServerError> {
    let (mut host, mut port) = (settings.host.clone(), settings.port);
    for _ in 0..=REDIRECTS {
        let found =
            tokio::time::timeout(settings.connect_timeout, tokio::net::lookup_host((host.as_str(), port))).await;
        if let Err(cause) = found.unwrap_or_else(|late| Err(late.into())).map(drop) {
            let message = format!("the name of the host is not known here ({cause}); check `host`");
            return Err(SqlServerError::line(doing(settings, &host, port), ErrorKind::Unavailable, message));
        }
        match reach(settings, &host, port).await {
            Ok(client) => return Session::begin(client, settings).await,
            Err(tiberius::error::Error::Routing { host: other, port: other_port }) => {
                tracing::debug!(connection = %settings.name, host = %other, "the server sends us on");
                (host, port) = (other, other_port);
            }
            Err(error) => return Err(SqlServerError::driver(doing(settings, &host, port), error)),
        }
    }
    let message = "the server sends the client from address to address; check the name of the server";
    Err(SqlServerError::line(doing(settings, &host, port), ErrorKind::Unavailable, message))
}

fn doing(settings: &SqlServerConnection, host: &str, port: u16) -> String {
    format!("cannot connect to {host}:{port}, database {} (connection `{}`)", settings.database, settings.name)
}

async fn reach(settings: &SqlServerConnection, host: &str, port: u16) -> Result<Wire, tiberius::error::Error> {
    let late = |_| tiberius::error::Error::Io {
        kind: std::io::ErrorKind::TimedOut,
        message: "no answer within connect_timeout".to_owned(),
    };
    let limit: Duration = settings.connect_timeout;
    let config = config(settings, host, port)?;
    let tcp = tokio::time::timeout(limit, TcpStream::connect((host, port))).await.map_err(late)??;
    tcp.set_nodelay(true)?;
    tokio::time::timeout(limit, Client::connect(config, tcp.compat_write())).await.map_err(late)?
}

fn config(settings: &SqlServerConnection, host: &str, port: u16) -> Result<Config, tiberius::error::Error> {
    let mut config = Config::new();
    config.host(host);
    config.port(port);
    config.database(&settings.database);
    config.application_name(PROGRAM);
    config.packet_size(settings.packet_size);
    config.readonly(settings.read_intent);
    config.handshake_timeout(Some(settings.connect_timeout));
    // The session waits for answers with a timer of its own, which costs less than the driver's.
    config.command_timeout(None);
    config.encryption(match settings.encrypt {
        Encrypt::Required => EncryptionLevel::Required,
        Encrypt::Strict => EncryptionLevel::Strict,
        Encrypt::LoginOnly => EncryptionLevel::Off,
        Encrypt::Off => EncryptionLevel::NotSupported,
    });
    match &settings.trust {
        Trust::System => {}
        Trust::Authority(file) => config.trust_cert_ca_bundle(std::fs::read(file).map_err(|cause| {
            tiberius::error::Error::Tls(format!("cannot read ca_file {}: {cause}", file.display()))
        })?),
        Trust::AnyCertificate => config.trust_cert(),
    }
    if let Some(name) = &settings.certificate_host {
        config.hostname_in_certificate(name);
    }
    config.authentication(match &settings.login {
        SqlServerLogin::Password { user, password } => AuthMethod::sql_server(user, password.expose_secret()),
        SqlServerLogin::EntraToken(token) => AuthMethod::aad_token(token.expose_secret()),
    });
    Ok(config)
}
