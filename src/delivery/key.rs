//! The key that seals tickets: from the configuration, or the machine's own secret.

use std::io::Write;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::TryRngCore;
use rand::rngs::OsRng;
use secrecy::ExposeSecret;

use crate::config::TicketSettings;
use crate::delivery::DeliveryError;

/// Where the machine's own secret lies below the state folder.
const FILE_NAME: &str = "ticket-key";

/// 32 secret bytes. Does not show itself in `Debug`.
#[derive(Clone)]
pub struct TicketKey([u8; 32]);

impl TicketKey {
    /// The key of this server: the configured one; else the machine's own, which is made on first
    /// use as `ticket-key` in `state_folder` with mode 0600; else, where there is no such folder or
    /// it cannot be written, a new one that lives as long as the process.
    ///
    /// # Errors
    /// When the configured key is not 32 bytes, or the file is damaged or open to other users.
    pub fn resolve(settings: &TicketSettings, state_folder: Option<&Path>) -> Result<Self, DeliveryError> {
        if let Some(key) = &settings.key {
            return Self::parse(key.expose_secret());
        }
        match state_folder.map(Self::of_machine) {
            Some(Ok(key)) => Ok(key),
            Some(Err(DeliveryError::SecretFile { path, reason })) if !path.exists() => {
                tracing::warn!(path = %path.display(), %reason, "tickets will not outlive this process: their key cannot be kept");
                Self::generate()
            }
            Some(Err(error)) => Err(error),
            None => {
                tracing::warn!(
                    "tickets will not outlive this process: neither XDG_STATE_HOME nor HOME is set, nor `tickets.key`"
                );
                Self::generate()
            }
        }
    }

    /// Reads a key from text: 64 hex digits, or base64 of 32 bytes.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self, DeliveryError> {
        let text = text.trim();
        let bytes = from_hex(text).or_else(|| STANDARD.decode(text).ok()).ok_or(DeliveryError::BadKey)?;
        bytes.try_into().map(Self).map_err(|_| DeliveryError::BadKey)
    }

    /// The key for one purpose, derived so that what is sealed for one cannot pass for another.
    pub(crate) fn derive(&self, context: &str) -> [u8; 32] {
        blake3::derive_key(context, &self.0)
    }

    fn generate() -> Result<Self, DeliveryError> {
        let mut bytes = [0; 32];
        OsRng
            .try_fill_bytes(&mut bytes)
            .map_err(|error| DeliveryError::Sealing { what: "ticket", reason: error.to_string() })?;
        Ok(Self(bytes))
    }

    /// Reads the machine's secret, making it first where there is none. Of two processes that make
    /// it at once one wins and both read the winner's.
    fn of_machine(folder: &Path) -> Result<Self, DeliveryError> {
        let path = folder.join(FILE_NAME);
        let failed = |reason: String| DeliveryError::SecretFile { path: path.clone(), reason };
        if !path.exists() {
            create_private(folder, &path, &Self::generate()?.0).map_err(|error| failed(error.to_string()))?;
        }
        if others_can_read(&path).map_err(|error| failed(error.to_string()))? {
            return Err(failed(format!("others can read it; run `chmod 600 {}`", path.display())));
        }
        let text = std::fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
        Self::parse(&text).map_err(|_| failed("it does not hold a key; delete it to have a new one made".to_owned()))
    }
}

impl std::fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TicketKey(…)")
    }
}

fn create_private(folder: &Path, path: &Path, key: &[u8]) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    // Temporary files are made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    writeln!(file, "{}", STANDARD.encode(key))?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(lost) if lost.error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(lost) => Err(lost.error),
    }
}

#[cfg(unix)]
fn others_can_read(path: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::metadata(path)?.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn others_can_read(_path: &Path) -> std::io::Result<bool> {
    Ok(false)
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    (0..64).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(key: Option<&str>) -> TicketSettings {
        TicketSettings { key: key.map(Into::into), lifetime: std::time::Duration::from_secs(60) }
    }

    #[test]
    fn a_key_reads_the_same_from_hex_and_base64() {
        let hex = TicketKey::parse(&"0a".repeat(32)).unwrap();
        let base64 = TicketKey::parse(&STANDARD.encode([10; 32])).unwrap();
        assert_eq!(hex.0, base64.0);
        assert!(TicketKey::parse("short").is_err());
        assert!(TicketKey::parse(&STANDARD.encode([1; 31])).is_err());
    }

    #[test]
    fn the_machines_secret_is_made_once_and_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state/lakegate");
        let first = TicketKey::resolve(&settings(None), Some(&state)).unwrap();
        let second = TicketKey::resolve(&settings(None), Some(&state)).unwrap();
        assert_eq!(first.0, second.0);
        let mode = std::fs::metadata(state.join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        TicketKey::resolve(&settings(None), Some(folder.path())).unwrap();
        let path = folder.path().join(FILE_NAME);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = TicketKey::resolve(&settings(None), Some(folder.path())).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn without_a_folder_the_key_lives_with_the_process() {
        assert!(TicketKey::resolve(&settings(None), None).is_ok());
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(TicketKey::resolve(&settings(None), Some(&file.path().join("below-a-file"))).is_ok());
    }
}
