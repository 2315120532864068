//! The wire of the stand-in: TDS 7.3 B to 7.4, and TDS 8 for what it is on top of them (MS-TDS, sections named beside the code).

mod bulk;
mod connection;
mod cursor;
mod decode;
mod encode;
mod handshake;
mod login;
mod packet;
mod prelogin;
mod pump;
mod reply;
mod requests;
mod rpc;
#[cfg(test)]
mod tests;
mod text;
mod tls;
mod token;
mod transport;
mod type_info;

pub use prelogin::Encryption;
pub use tls::TlsError;

pub(crate) use connection::serve;
pub(crate) use handshake::Front;
pub(crate) use tls::Tls;
