//! One session of a client, as `system.sessions` tells it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionEnd {
    /// Its client closed it.
    Closed,
    /// Its connection was closed.
    Disconnected,
    /// Nobody used it for long, or for longer than others when there was no room for one more.
    Idle,
    /// The server stopped.
    Stopped,
}

impl SessionEnd {
    /// As `system.sessions` says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Disconnected => "disconnected",
            Self::Idle => "idle",
            Self::Stopped => "stopped",
        }
    }
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Names the session.
    pub session_id: Uuid,
    /// Whose it is.
    pub principal: String,
    /// Where its first call came from.
    pub address: Option<String>,
    /// What the client's program calls itself.
    pub client: String,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it was used last.
    pub used_at: DateTime<Utc>,
    /// When it ended; none while it goes on.
    pub ended_at: Option<DateTime<Utc>>,
    /// Why it ended.
    pub end: Option<SessionEnd>,
    /// Statements it ran.
    pub statements: u64,
    /// Its options that are not the defaults, each as `name=value`.
    pub options: Vec<String>,
}

/// A session that goes on: what is written by whoever holds it, and read by whoever looks.
#[derive(Debug)]
pub struct OpenSession {
    /// Names the session.
    pub session_id: Uuid,
    /// Whose it is.
    pub principal: String,
    /// Where its first call came from.
    pub address: Option<String>,
    /// What the client's program calls itself.
    pub client: String,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// Milliseconds after that when it was used last.
    pub used_millis: AtomicU64,
    /// Statements it ran.
    pub statements: AtomicU64,
    /// Its options that are not the defaults, each as `name=value`.
    pub options: Mutex<Vec<String>>,
}

impl OpenSession {
    /// How it stands.
    pub fn now(&self) -> SessionRecord {
        let used = i64::try_from(self.used_millis.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        let used_at = TimeDelta::try_milliseconds(used).and_then(|after| self.started_at.checked_add_signed(after));
        SessionRecord {
            session_id: self.session_id,
            principal: self.principal.clone(),
            address: self.address.clone(),
            client: self.client.clone(),
            started_at: self.started_at,
            used_at: used_at.unwrap_or(self.started_at),
            ended_at: None,
            end: None,
            statements: self.statements.load(Ordering::Relaxed),
            options: self.options.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
