//! Who is let in and who may see what: users and their passwords, tokens, principals, and what each of them may
//! read and change.
//!
//! [`Directory`] is what the users file and the grants file say at one moment. [`Access`] is what one principal may
//! do by it: it is made when a call comes in and goes with the statement through planning; the scan enforces it.

mod directory;
mod error;
mod explain;
mod failures;
mod grants;
mod jwt;
mod key_sets;
mod password;
mod principal;
mod rights;
mod token;
mod users_file;

pub use directory::{Directory, LiveDirectory};
pub use error::AccessError;
pub use explain::{Explanation, Granted, Kept};
pub use failures::Failures;
pub use grants::{Grant, Grantee, Grants, Policy, Scope};
pub use jwt::{Claims, JwtError, KeySet, looks_like_jwt};
pub use key_sets::Provider;
pub use password::{NotChecked, PasswordChecks, hash_password, verify_password};
pub use principal::{ADMIN_ROLE, Principal};
pub use rights::{Access, Columns, TableRights};
pub use token::{NewToken, TOKEN_PREFIX, token_id};
pub use users_file::change_users;
