//! What somebody was let in with, and what they may see by it, for as long as a statement of theirs runs: users and grants
//! may be read again meanwhile.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tonic::Status;

use crate::access::{Access, Directory, LiveDirectory};
use crate::error::ErrorKind;
use crate::flight::session_token::{Origin, password_mark};
use crate::flight::status::refuse;
use crate::runtime::clock::Clock;

/// What somebody was let in with, and what they may see by it.
#[derive(Clone)]
pub(crate) struct Standing {
    live: LiveDirectory,
    clock: Arc<dyn Clock>,
    name: String,
    origin: Origin,
    access: Access,
    /// The directory that was looked at last.
    seen: Arc<Directory>,
}

impl std::fmt::Debug for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Standing").field("access", &self.access).finish_non_exhaustive()
    }
}

impl Standing {
    /// What somebody was let in with, and what they may see by `seen`, the directory of the moment when they were.
    pub(crate) fn new(
        (live, seen): (LiveDirectory, Arc<Directory>),
        clock: Arc<dyn Clock>,
        name: String,
        origin: Origin,
    ) -> Self {
        let access = access(&seen, &name, &origin);
        Self { live, clock, name, origin, access, seen }
    }

    /// Who it is, and what they may see and do.
    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// Checks that what was seen by it may be seen still. Costs nothing as long as users and grants are not read again.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` where it lets nobody in any more, `PERMISSION_DENIED` where something was taken away or kept back.
    pub(crate) fn check(&mut self) -> Result<(), Status> {
        let now = self.live.current();
        if Arc::ptr_eq(&now, &self.seen) {
            return Ok(());
        }
        if !holds(&now, &self.name, &self.origin, self.clock.now()) {
            return Err(refuse(
                ErrorKind::Unauthenticated,
                "what you logged in with was taken back while the statement ran; log in anew",
            ));
        }
        if !access(&now, &self.name, &self.origin).covers(&self.access) {
            return Err(refuse(
                ErrorKind::PermissionDenied,
                "what you may see was changed while the statement ran; run it again",
            ));
        }
        self.seen = now;
        Ok(())
    }

    /// That of somebody whom nothing can be taken from.
    #[cfg(test)]
    pub(crate) fn for_test(access: Access) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(crate::runtime::clock::SystemClock);
        let live = LiveDirectory::new(Directory::new(crate::config::AccessFiles::default(), false));
        let (seen, name) = (live.current(), access.principal().name.clone());
        Self { live, clock, name, origin: Origin::Anonymous, access, seen }
    }
}

/// Whether what somebody was let in with holds by a directory, as far as that can tell: it knows nothing of certificates and
/// of an identity provider's tokens.
pub(crate) fn holds(directory: &Directory, name: &str, origin: &Origin, now: DateTime<Utc>) -> bool {
    match origin {
        Origin::Anonymous => !directory.is_closed(),
        Origin::Password { mark } => {
            let hash = directory.user(name).and_then(|user| user.password.as_ref());
            hash.is_some_and(|hash| password_mark(hash) == *mark)
        }
        Origin::Token { id } => directory.token(id, now).is_some_and(|(owner, _)| owner == name),
        Origin::Provider { .. } | Origin::Certificate => true,
    }
}

fn access(directory: &Directory, name: &str, origin: &Origin) -> Access {
    match origin {
        Origin::Anonymous => directory.anonymous(),
        Origin::Provider { claims } => directory.access(name, claims),
        _ => directory.access(name, &[]),
    }
}
