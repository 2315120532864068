//! The server: a listener, and a task for each connection.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use crate::engine::{Database, DatabaseOptions, FixtureError};
use crate::value::Collation;
use crate::wire::{self, Encryption, Front, Tls, TlsError};

/// How a server is started.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The database to create.
    pub database: DatabaseOptions,
    /// The administrator's login.
    pub user: String,
    /// The administrator's password.
    pub password: String,
    /// What is encrypted.
    pub encryption: Encryption,
    /// Rows with a NULL are sent as NBCROW, as SQL Server does where it is shorter; else all rows are sent as ROW.
    pub null_bitmaps: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            database: DatabaseOptions::default(),
            user: "sa".to_owned(),
            password: "Stand-in-2022".to_owned(),
            encryption: Encryption::default(),
            null_bitmaps: false,
        }
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The database could not be created.
    #[error("cannot create the database")]
    Database(#[from] FixtureError),
    /// There is no certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A running server. It ends when it is dropped or [`stop`](Self::stop)ped; the database lives on while anybody holds it.
pub struct Server {
    address: SocketAddr,
    front: Arc<Front>,
    /// Dropping it ends the listener.
    _running: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    /// Creates a database and serves it. Needs a Tokio runtime; the connections run on it.
    ///
    /// # Errors
    /// When the address is taken, or the database or the certificate cannot be made.
    pub async fn start(options: ServerOptions) -> Result<Self, StartError> {
        let database = Database::create(options.database.clone())?;
        Self::serve(database, options).await
    }

    /// Serves a database that is there already, such as that of a server stopped before; `options.database` is not looked at.
    ///
    /// # Errors
    /// When the address is taken or the certificate cannot be made.
    pub async fn serve(database: Database, options: ServerOptions) -> Result<Self, StartError> {
        let listen_error = |source| StartError::Listen { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let collation = Collation::parse(&database.options().collation).unwrap_or_default();
        let front = Arc::new(Front {
            collation,
            database,
            administrator: (options.user, options.password),
            encryption: options.encryption,
            tls: Tls::generate(address.ip())?,
            null_bitmaps: options.null_bitmaps,
            name: Arc::from("mssql-fixture"),
        });
        let (running, stopped) = oneshot::channel();
        let task = tokio::spawn(accept(listener, Arc::clone(&front), stopped));
        Ok(Self { address, front, _running: running, task })
    }

    /// The address the server listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The database it serves.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.front.database
    }

    /// The certificate, as PEM, of the authority that signed the server's: clients trust the server through it.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.front.tls.ca_pem
    }

    /// Stops listening and closes all connections; returns when the address is free again.
    pub async fn stop(self) {
        let Self { _running, task, .. } = self;
        drop(_running);
        // It can only have been cancelled by the runtime's own end.
        let _ = task.await;
    }
}

/// Accepts connections until `stopped`; dropping the set then ends them all.
async fn accept(listener: TcpListener, front: Arc<Front>, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => if let Ok((socket, _)) = accepted {
                let front = Arc::clone(&front);
                // A client that breaks off or speaks nonsense ends its own connection and nothing else.
                connections.spawn(async move { drop(wire::serve(socket, front).await) });
            },
        }
    }
    connections.shutdown().await;
}
