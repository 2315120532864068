//! Who asks a server, as the environment of a client says it.

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
