//! What decides who gets in, and can change while the server runs: users, grants, the certificate.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use crate::access::{Directory, Grants, LiveDirectory};
use crate::config::{AccessFiles, Settings, UserList};
use crate::error::chain_text;
use crate::flight::FlightError;
use crate::flight::tls::Tls;
use crate::query::{PolicyPart, PolicyProblem, QueryEngine, QueryError};

/// What decides who gets in.
#[derive(Clone, Debug)]
pub struct Entrance {
    /// Who there is and what they may see.
    pub(crate) directory: LiveDirectory,
    /// How connections are encrypted; nothing where they are not.
    pub(crate) tls: Option<Arc<Tls>>,
}

/// What could be used of the files.
enum Read {
    /// Users and grants.
    Both(AccessFiles),
    /// The users, for the grants are gone or wrong.
    Users(UserList),
    /// Nothing.
    Nothing,
}

/// When each file was changed last, and how large it is: tells that something is new without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntranceStamp(Vec<Option<(SystemTime, u64)>>);

impl Entrance {
    /// The entrance as configured.
    ///
    /// # Errors
    /// When the certificate or its key cannot be used.
    pub fn open(settings: &Settings) -> Result<Self, FlightError> {
        let access = &settings.access;
        let directory = LiveDirectory::new(Directory::new(access.files.clone(), access.is_closed()));
        let tls = settings.serve.tls.as_ref().map(Tls::open).transpose()?.map(Arc::new);
        Ok(Self { directory, tls })
    }

    /// Reads users, grants and certificate again. What cannot be used is said in the log, and stays as it was; so do
    /// grants when a row filter or mask has got a fault that it had not before. Of users counts then what takes something
    /// away: nobody has to mend the grants to shut somebody out.
    pub async fn reload(&self, settings: &Arc<Settings>, engine: &dyn QueryEngine) {
        let entrance = self.clone();
        let own = Arc::clone(settings);
        // Files are read on a thread where that may take its time.
        let read = tokio::task::spawn_blocking(move || entrance.read(&own)).await;
        let files = match read {
            Ok(Read::Both(files)) => match self.has_new_faults(&files, engine).await {
                true => files.users.and_then(|users| self.without_grants(&users)),
                false => Some(files),
            },
            Ok(Read::Users(users)) => self.without_grants(&users),
            Ok(Read::Nothing) | Err(_) => None,
        };
        let Some(files) = files else { return };
        let closed = settings.access.is_closed() || files.users.is_some();
        let users = files.users.as_ref().map_or(0, |list| list.users.len());
        self.directory.replace(Directory::new(files, closed));
        tracing::info!(users, "users and grants were read again");
    }

    /// What is known already, less whom and what a list of users no longer has; nothing where there were no users.
    fn without_grants(&self, users: &UserList) -> Option<AccessFiles> {
        let before = self.directory.current();
        let AccessFiles { users: known, grants } = before.files();
        let narrowed = known.as_ref()?.narrowed_to(users);
        tracing::warn!("until the grants are mended, of users only what was taken away counts");
        Some(AccessFiles { users: Some(narrowed), grants: grants.clone() })
    }

    /// The files as they are now, as far as they can be used; the certificate is exchanged at once.
    fn read(&self, settings: &Settings) -> Read {
        if let Some(tls) = &self.tls {
            match tls.reload() {
                Ok(()) => tracing::info!("the certificate was read again, for new connections"),
                Err(error) => tracing::error!("the certificate stays as it was: {error}"),
            }
        }
        let access = &settings.access;
        let before = self.directory.current();
        let before = before.files();
        match access.read_files(&settings.folder, &settings.tables) {
            // A file that vanished must not open the door, nor the shutters before what is kept back.
            Ok((files, _)) if files.users.is_none() && before.users.is_some() => {
                tracing::error!("the users file is gone; what it said still counts until the server is started anew");
                Read::Nothing
            }
            Ok((files, _)) if files.grants.is_none() && before.grants.is_some() => {
                tracing::error!("the grants file is gone; what it said still counts until the server is started anew");
                files.users.map_or(Read::Nothing, Read::Users)
            }
            Ok((files, warnings)) => {
                for warning in warnings {
                    tracing::warn!("{warning}");
                }
                Read::Both(files)
            }
            Err(problems) => {
                tracing::error!("users and grants stay as they were, for their files cannot be used: {problems}");
                access.read_users(&settings.folder).map_or(Read::Nothing, Read::Users)
            }
        }
    }

    /// Whether a row filter or mask cannot be used with its table, and that is not so of what counts now: a table whose
    /// columns changed must not keep somebody from shutting out a user.
    async fn has_new_faults(&self, files: &AccessFiles, engine: &dyn QueryEngine) -> bool {
        let tried = async {
            let now = problems(files, engine).await?;
            let before =
                if now.is_empty() { vec![] } else { problems(self.directory.current().files(), engine).await? };
            Ok::<_, QueryError>((now, before))
        };
        let (now, before) = match tried.await {
            Ok(found) => found,
            Err(error) => {
                // One that cannot be used shows nothing to anybody: what is shut out by the files does not wait for it.
                tracing::warn!(error = %chain_text(&error), "row filters and masks could not be tried; they count untried");
                return false;
            }
        };
        let mut is_new = false;
        for problem in &now {
            // A filter may have another place among the table's.
            let known = |old: &PolicyProblem| (&old.table, &old.reason) == (&problem.table, &problem.reason);
            let counts = problem.part == PolicyPart::Columns || before.iter().any(known);
            is_new |= !counts;
            match counts {
                true => tracing::error!("{problem}"),
                false => tracing::error!("users and grants stay as they were, for a policy cannot be used: {problem}"),
            }
        }
        is_new
    }

    /// The state of the files as far as it can be told without reading them.
    pub fn stamp(settings: &Settings) -> EntranceStamp {
        let mut files: Vec<&PathBuf> = vec![&settings.access.users_file, &settings.access.grants_file];
        if let Some(tls) = &settings.serve.tls {
            files.extend([&tls.certificate, &tls.key]);
            files.extend(&tls.client_ca);
        }
        let stamp = |path: &&PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        EntranceStamp(files.iter().map(stamp).collect())
    }
}

/// What of the grants cannot be used with the tables as they are now.
async fn problems(files: &AccessFiles, engine: &dyn QueryEngine) -> Result<Vec<PolicyProblem>, QueryError> {
    match &files.grants {
        Some(grants) => engine.check_policies(&Grants::from(grants)).await,
        None => Ok(Vec::new()),
    }
}
