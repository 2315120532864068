//! Who may see what: principals, and what each of them may read and change.
//!
//! [`Access`] is what one principal may do by the grants of one moment. It is made when a call
//! comes in and goes with the statement through planning; the scan enforces it.

mod grants;
mod principal;
mod rights;

pub use grants::{Grant, Grantee, Grants, Policy, Scope};
pub use principal::{ADMIN_ROLE, Principal};
pub use rights::{Access, Columns, TableRights};
