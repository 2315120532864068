//! What decides who gets in, and can change while the server runs: users, grants, the certificate.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use crate::access::{Directory, LiveDirectory};
use crate::config::Settings;
use crate::flight::FlightError;
use crate::flight::tls::Tls;

/// What decides who gets in.
#[derive(Clone, Debug)]
pub struct Entrance {
    /// Who there is and what they may see.
    pub(crate) directory: LiveDirectory,
    /// How connections are encrypted; nothing where they are not.
    pub(crate) tls: Option<Arc<Tls>>,
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

    /// Reads users, grants and certificate again. What cannot be used is said in the log, and stays as it was.
    pub fn reload(&self, settings: &Settings) {
        let access = &settings.access;
        let before = self.directory.current();
        let before = before.files();
        match access.read_files(&settings.folder, &settings.tables) {
            // A file that vanished must not open the door, nor the shutters before what is kept back.
            Ok((files, _))
                if (files.users.is_none() && before.users.is_some())
                    || (files.grants.is_none() && before.grants.is_some()) =>
            {
                tracing::error!(
                    "the users file or the grants file is gone; what it said still counts until the server is started anew"
                );
            }
            Ok((files, warnings)) => {
                for warning in warnings {
                    tracing::warn!("{warning}");
                }
                let closed = access.is_closed() || files.users.is_some();
                let users = files.users.as_ref().map_or(0, |list| list.users.len());
                self.directory.replace(Directory::new(files, closed));
                tracing::info!(users, "users and grants were read again");
            }
            Err(problems) => {
                tracing::error!("users and grants stay as they were, for their files cannot be used: {problems}");
            }
        }
        if let Some(tls) = &self.tls {
            match tls.reload() {
                Ok(()) => tracing::info!("the certificate was read again, for new connections"),
                Err(error) => tracing::error!("the certificate stays as it was: {error}"),
            }
        }
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
