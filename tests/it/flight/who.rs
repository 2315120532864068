//! Who is let in, over real sockets: passwords, tokens, sessions, an identity provider, certificates.

mod certificates;
pub(crate) mod door;
mod passwords;
mod provider;
mod sessions;
