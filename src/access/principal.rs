//! Who asks.

use std::collections::BTreeSet;

/// The role whose members see and do everything: all tables, all sessions, everybody's statements.
pub const ADMIN_ROLE: &str = "admin";

/// Who asks, as far as it was proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The name, as in the users file, a token's subject or a certificate.
    pub name: String,
    /// Roles the principal has, by membership or by a claim.
    pub roles: BTreeSet<String>,
}

impl Principal {
    /// Who everybody is where no users are configured.
    pub fn anonymous() -> Self {
        Self { name: "anonymous".to_owned(), roles: BTreeSet::new() }
    }

    /// Whoever runs the program on the machine that holds the lake: they could read its files as well.
    pub fn operator() -> Self {
        Self { name: "operator".to_owned(), roles: BTreeSet::from([ADMIN_ROLE.to_owned()]) }
    }

    /// Whether the principal has a role.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.contains(role)
    }
}
