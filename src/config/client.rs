//! Who asks a server and where results are kept, as the environment of a client says it.

use std::path::PathBuf;

use secrecy::SecretString;

/// What the environment says about who asks.
#[derive(Clone, Debug, Default)]
pub struct ClientEnvironment {
    /// `LAKEGATE_USER`.
    pub user: Option<String>,
    /// `LAKEGATE_PASSWORD`.
    pub password: Option<SecretString>,
    /// `LAKEGATE_TOKEN`.
    pub token: Option<SecretString>,
}

/// What the environment says about who asks; empty variables say nothing.
pub fn client_environment() -> ClientEnvironment {
    let read = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    ClientEnvironment {
        user: read("LAKEGATE_USER"),
        password: read("LAKEGATE_PASSWORD").map(SecretString::from),
        token: read("LAKEGATE_TOKEN").map(SecretString::from),
    }
}

/// Where this system keeps what can be made anew: `XDG_CACHE_HOME` and its like, as the Python client finds it. None for somebody
/// without a home.
pub fn client_cache_folder() -> Option<PathBuf> {
    if cfg!(target_os = "macos") {
        return Some(std::env::home_dir()?.join("Library/Caches/lakegate"));
    }
    // The specification asks to ignore what is no absolute path.
    let named = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
    Some(named.or_else(|| Some(std::env::home_dir()?.join(".cache")))?.join("lakegate"))
}
