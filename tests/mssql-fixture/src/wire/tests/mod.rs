//! The wire against tiberius, with a session that plays a part in place of the engine.

mod bulk;
mod faults;
mod login;
mod requests;
mod values;

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tiberius::{AuthMethod, Client, Config, EncryptionLevel};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

use super::connection::serve_session;
use super::handshake::Front;
use super::prelogin::Encryption;
use super::requests::{Cancel, Requests};
use super::tls::Tls;
use crate::engine::{Database, DatabaseOptions, Isolation, Output, Parameter, SqlError, Stop};
use crate::value::{Collation, Column, SqlType, Value};

/// What the player has been asked to do.
#[derive(Debug, Default)]
struct Seen {
    batches: Vec<String>,
    parameters: Vec<Parameter>,
    bulk_rows: Vec<Vec<Value>>,
    events: Vec<&'static str>,
    resets: usize,
}

/// A session that answers a few words.
#[derive(Default)]
struct Player {
    seen: Arc<Mutex<Seen>>,
    cancelled: Arc<AtomicBool>,
    transaction: Option<u64>,
    bulk_target: Vec<Column>,
    tables: Arc<Vec<Table>>,
}

struct Flag(Arc<AtomicBool>);

impl Cancel for Flag {
    fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn column(name: &str, sql_type: SqlType) -> Column {
    Column::new(name, sql_type, Collation::default())
}

fn goes_on(flow: ControlFlow<()>) -> Result<(), Stop> {
    if flow.is_continue() { Ok(()) } else { Err(Stop::Gone) }
}

impl Player {
    /// `count` rows of a number and a text.
    fn count(&self, count: u64, output: &mut dyn Output) -> Result<(), Stop> {
        let columns = [column("n", SqlType::BigInt), column("t", SqlType::NVarChar { length: Some(50) })];
        goes_on(output.columns(&columns))?;
        for number in 0..count {
            if self.cancelled.load(Ordering::SeqCst) {
                return Err(Stop::Cancelled);
            }
            let number = number.cast_signed();
            goes_on(output.row(&[Value::Int(number), Value::Text(format!("row {number}"))]))?;
        }
        goes_on(output.done(Some(count), false))
    }
}

impl Requests for Player {
    fn run(&mut self, batch: &str, parameters: &[Parameter], output: &mut dyn Output) -> Result<(), Stop> {
        {
            let mut seen = self.seen.lock().unwrap();
            seen.batches.push(batch.to_owned());
            seen.parameters = parameters.to_vec();
        }
        let mut words = batch.split_whitespace();
        let (word, number) = (words.next().unwrap_or_default(), words.next().and_then(|n| n.parse().ok()).unwrap_or(0));
        match word {
            "count" => self.count(number, output),
            "twice" => self.count(number, output).and_then(|()| self.count(number, output)),
            "deadlock" => {
                goes_on(output.columns(&[column("n", SqlType::Int)]))?;
                for row in 0..number.cast_signed() {
                    goes_on(output.row(&[Value::Int(row)]))?;
                }
                goes_on(output.error(&SqlError::known(1205)))?;
                goes_on(output.done(None, false))
            }
            "wait" => {
                while !self.cancelled.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                Err(Stop::Cancelled)
            }
            "echo" => {
                let columns: Vec<Column> = parameters.iter().map(|p| column(&p.name, p.sql_type.clone())).collect();
                let values: Vec<Value> = parameters.iter().map(|p| p.value.clone()).collect();
                goes_on(output.columns(&columns))?;
                goes_on(output.row(&values))?;
                goes_on(output.done(Some(1), false))
            }
            "misfit" => {
                goes_on(output.columns(&[column("n", SqlType::TinyInt)]))?;
                goes_on(output.row(&[Value::Int(7)]))?;
                goes_on(output.row(&[Value::Int(256)]))
            }
            "print" => {
                goes_on(output.message("hello"))?;
                goes_on(output.done(None, false))
            }
            table => {
                let tables = Arc::clone(&self.tables);
                let Some((_, columns, rows)) = tables.iter().find(|(name, _, _)| *name == table) else {
                    return goes_on(output.done(Some(0), false));
                };
                goes_on(output.columns(columns))?;
                for row in rows {
                    goes_on(output.row(row))?;
                }
                goes_on(output.done(Some(rows.len() as u64), false))
            }
        }
    }

    fn begin(&mut self, isolation: Option<Isolation>) -> Result<u64, SqlError> {
        let event = if isolation == Some(Isolation::Snapshot) { "begin snapshot" } else { "begin" };
        self.seen.lock().unwrap().events.push(event);
        self.transaction = Some(77);
        Ok(77)
    }

    fn commit(&mut self) -> Result<Option<u64>, SqlError> {
        self.seen.lock().unwrap().events.push("commit");
        self.transaction.take().map(Some).ok_or_else(|| SqlError::new(3902, 16, "no transaction"))
    }

    fn rollback(&mut self) -> Result<u64, SqlError> {
        self.seen.lock().unwrap().events.push("rollback");
        self.transaction.take().ok_or_else(|| SqlError::new(3903, 16, "no transaction"))
    }

    fn transaction(&self) -> Option<u64> {
        self.transaction
    }

    fn bulk(&mut self, statement: &str) -> Result<Vec<Column>, SqlError> {
        self.seen.lock().unwrap().batches.push(statement.to_owned());
        Ok(self.bulk_target.clone())
    }

    fn bulk_rows(&mut self, rows: Vec<Vec<Value>>) -> Result<u64, SqlError> {
        let count = rows.len() as u64;
        self.seen.lock().unwrap().bulk_rows.extend(rows);
        Ok(count)
    }

    fn cancel(&mut self) -> Box<dyn Cancel> {
        self.cancelled = Arc::default();
        Box::new(Flag(Arc::clone(&self.cancelled)))
    }

    fn spid(&self) -> u16 {
        52
    }

    fn reset(&mut self) {
        self.seen.lock().unwrap().resets += 1;
    }
}

/// A table that the player gives when a batch is its name.
type Table = (String, Vec<Column>, Vec<Vec<Value>>);

/// A server whose sessions are players.
struct Stage {
    address: SocketAddr,
    front: Arc<Front>,
    seen: Arc<Mutex<Seen>>,
}

impl Stage {
    async fn new() -> Self {
        Self::with(Encryption::LoginOnly, false, Vec::new()).await
    }

    async fn with(encryption: Encryption, null_bitmaps: bool, tables: Vec<Table>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let front = Arc::new(Front {
            database: Database::create(DatabaseOptions::default()).unwrap(),
            collation: Collation::default(),
            administrator: ("sa".into(), "pässword".into()),
            encryption,
            tls: Tls::generate(address.ip()).unwrap(),
            null_bitmaps,
            name: Arc::from("stage"),
        });
        let (seen, tables) = (Arc::new(Mutex::new(Seen::default())), Arc::new(tables));
        let stage = Self { address, front: Arc::clone(&front), seen: Arc::clone(&seen) };
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (front, seen, tables) = (Arc::clone(&front), Arc::clone(&seen), Arc::clone(&tables));
                tokio::spawn(async move {
                    let bulk_target = tables.first().map(|(_, columns, _)| columns.clone()).unwrap_or_default();
                    let player = Player { seen, tables, bulk_target, ..Player::default() };
                    serve_session(socket, &front, |_| Ok(player)).await
                });
            }
        });
        stage
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    fn config(&self, encryption: EncryptionLevel) -> Config {
        let mut config = Config::new();
        config.host("localhost");
        config.port(self.address.port());
        config.authentication(AuthMethod::sql_server("sa", "pässword"));
        config.encryption(encryption);
        config.trust_cert_ca_bundle(self.front.tls.ca_pem.as_bytes());
        config.database("ops");
        config
    }

    async fn client(&self) -> tiberius::Result<Client<Compat<TcpStream>>> {
        connect(self.config(EncryptionLevel::NotSupported)).await
    }
}

async fn connect(config: Config) -> tiberius::Result<Client<Compat<TcpStream>>> {
    let socket = TcpStream::connect(config.get_addr().replace("localhost", "127.0.0.1")).await?;
    socket.set_nodelay(true)?;
    Client::connect(config, socket.compat_write()).await
}

/// The number of an error that the server sent.
fn number(error: &tiberius::error::Error) -> Option<u32> {
    if let tiberius::error::Error::Server(token) = error { Some(token.code()) } else { None }
}
