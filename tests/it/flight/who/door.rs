//! A server with users, and how clients come to it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{Criteria, Ticket};
use chrono::DateTime;
use lakegate::access::{NewToken, change_users, hash_password};
use lakegate::config::{Settings, User, UserToken};
use lakegate::flight::{Entrance, FlightError, ServiceParts, serve_with};
use lakegate::journal::Journal;
use lakegate::runtime::clock::{Clock, ManualClock};
use lakegate::runtime::shutdown::Shutdown;
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::super::engine::MemoryEngine;
use crate::support::credentials::{self, with_header};

/// Ann's password, with what goes wrong in it elsewhere.
pub(crate) const PASSWORD: &str = "pass:wörd";

/// A folder with a configuration.
pub(crate) struct House {
    pub(crate) folder: TempDir,
}

/// A server over a house.
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) engine: Arc<MemoryEngine>,
    pub(crate) clock: ManualClock,
    pub(crate) settings: Arc<Settings>,
    pub(crate) entrance: Entrance,
    pub(crate) shutdown: Shutdown,
    pub(crate) stopped: JoinHandle<Result<(), FlightError>>,
}

/// Hashing takes its time: once for all tests.
fn password_hash() -> SecretString {
    static HASH: OnceLock<SecretString> = OnceLock::new();
    HASH.get_or_init(|| hash_password(&PASSWORD.into()).unwrap()).clone()
}

impl House {
    /// A house without users.
    pub(crate) fn empty() -> Self {
        let house = Self { folder: tempfile::tempdir().unwrap() };
        house.write("lakegate.toml", "");
        house
    }

    /// A house whose users are Ann, with [`PASSWORD`], and Bob, without any.
    pub(crate) fn with_users() -> Self {
        let house = Self::empty();
        house.change(|users| {
            let user = |password| User { password, roles: ["sales".to_owned()].into(), tokens: vec![], spot: None };
            users.insert("ann".to_owned(), user(Some(password_hash())));
            users.insert("bob".to_owned(), user(None));
        });
        house
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    /// Changes the users file.
    pub(crate) fn change(&self, change: impl FnOnce(&mut std::collections::BTreeMap<String, User>)) {
        let path = self.path().join("users.toml");
        change_users(&path, self.path(), |list| {
            change(&mut list.users);
            Ok(())
        })
        .unwrap();
    }

    /// Gives a user a token that counts for so long.
    pub(crate) fn token(&self, user: &str, lifetime: Option<Duration>) -> NewToken {
        let token = NewToken::make().unwrap();
        let now = start_of_time();
        let kept = UserToken {
            id: token.id.clone(),
            hash: token.hash,
            label: None,
            created_at: now,
            expires_at: lifetime.map(|lifetime| now + lifetime),
        };
        self.change(|users| users.get_mut(user).unwrap().tokens.push(kept));
        token
    }

    /// Opens a door with a key of its own kind.
    pub(crate) async fn open_with(&self, key: &str) -> Door {
        let mut settings = lakegate::config::load(self.path(), None).unwrap();
        settings.tickets.key = Some(key.repeat(32).into());
        settings.tickets.lifetime = Duration::from_secs(3600);
        let settings = Arc::new(settings);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (engine, shutdown) = (Arc::new(MemoryEngine::new()), Shutdown::new());
        let clock = ManualClock::new(start_of_time());
        let entrance = Entrance::open(&settings).unwrap();
        let parts = ServiceParts {
            engine: engine.clone(),
            settings: Arc::clone(&settings),
            journal: Arc::new(Journal::open(&settings.lake, Arc::new(clock.clone())).unwrap()),
            clock: Arc::new(clock.clone()) as Arc<dyn Clock>,
        };
        let (kept, stop) = (entrance.clone(), shutdown.clone());
        let stopped = tokio::spawn(async move { serve_with(listener, parts, &kept, stop).await });
        Door { address, engine, clock, settings, entrance, shutdown, stopped }
    }

    pub(crate) async fn open(&self) -> Door {
        self.open_with("01").await
    }
}

fn start_of_time() -> DateTime<chrono::Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

impl Door {
    /// A connection in the clear.
    pub(crate) async fn client(&self) -> FlightServiceClient<Channel> {
        let channel = Endpoint::new(format!("http://{}", self.address)).unwrap().connect().await.unwrap();
        FlightServiceClient::new(channel)
    }

    /// Reads the files anew, as a signal makes the program do.
    pub(crate) async fn reload(&self) {
        self.entrance.reload(&self.settings, self.engine.as_ref()).await;
    }

    /// Who a call with this header is taken for, and with which roles.
    pub(crate) async fn who(&self, header: Option<&str>) -> Result<String, Status> {
        who(&mut self.client().await, &self.engine.asked, header).await
    }

    /// The token that a handshake with this header is answered with.
    pub(crate) async fn log_in(&self, header: &str) -> Result<String, Status> {
        credentials::log_in(&mut self.client().await, header).await
    }
}

/// Who a call on a connection is taken for: `name role role`.
pub(crate) async fn who(
    client: &mut FlightServiceClient<Channel>,
    asked: &Mutex<Vec<lakegate::access::Access>>,
    header: Option<&str>,
) -> Result<String, Status> {
    asked.lock().unwrap().clear();
    client.do_get(with_header(Ticket::new("select 1"), header)).await?;
    let access = asked.lock().unwrap().pop().unwrap();
    let principal = access.principal();
    let words = [principal.name.clone()].into_iter().chain(principal.roles.iter().cloned());
    Ok(words.collect::<Vec<_>>().join(" "))
}

/// What every call answers that is not let in; those that stream, and that which bypasses the generated service, too.
pub(crate) async fn refusals(door: &Door, header: Option<&str>) -> Vec<Status> {
    let mut client = door.client().await;
    let descriptor = || arrow_flight::FlightDescriptor::new_cmd("select 1");
    let flight_data = arrow_flight::FlightData { flight_descriptor: Some(descriptor()), ..Default::default() };
    vec![
        client.do_get(with_header(Ticket::new("select 1"), header)).await.map(drop).unwrap_err(),
        client.get_flight_info(with_header(descriptor(), header)).await.map(drop).unwrap_err(),
        client.poll_flight_info(with_header(descriptor(), header)).await.map(drop).unwrap_err(),
        client.get_schema(with_header(descriptor(), header)).await.map(drop).unwrap_err(),
        client.list_flights(with_header(Criteria::default(), header)).await.map(drop).unwrap_err(),
        client.list_actions(with_header(arrow_flight::Empty {}, header)).await.map(drop).unwrap_err(),
        client.do_put(with_header(futures::stream::iter([flight_data]), header)).await.map(drop).unwrap_err(),
        client
            .do_action(with_header(arrow_flight::Action::new("CloseSession", ""), header))
            .await
            .map(drop)
            .unwrap_err(),
    ]
}
