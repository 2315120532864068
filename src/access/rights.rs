//! What one principal may see and do, by the grants of one moment.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::access::{ADMIN_ROLE, Grant, Grants, Policy, Principal};
use crate::config::RESULTS_SCHEMA;
use crate::model::TableName;

/// What one principal may see and do. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Access {
    principal: Arc<Principal>,
    /// None where nobody is kept from anything: no users are configured, or the operator asks.
    grants: Option<Arc<Grants>>,
}

/// Columns of a table that may be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Columns {
    /// All, those that are added later too.
    All,
    /// These; none at all where it is empty.
    Only(BTreeSet<String>),
}

/// What a principal may see and do with one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRights {
    /// Columns that may be read.
    pub columns: Columns,
    /// What is kept back of rows and values.
    pub policy: Policy,
    /// Whether rows may be added, changed and deleted.
    pub write: bool,
}

impl Access {
    /// Everything, for a principal whom nothing restricts.
    pub fn unrestricted(principal: Principal) -> Self {
        Self { principal: Arc::new(principal), grants: None }
    }

    /// What the grants give a principal. Whoever has the role `admin` may see and do everything, policies
    /// included: they could take them away.
    pub fn granted(principal: Principal, grants: Arc<Grants>) -> Self {
        let grants = (!principal.has_role(ADMIN_ROLE)).then_some(grants);
        Self { principal: Arc::new(principal), grants }
    }

    /// Who it is.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Whether everything may be seen and done: all tables, everybody's statements and sessions.
    pub fn is_unrestricted(&self) -> bool {
        self.grants.is_none()
    }

    /// Whether the same may be seen and done by the same principal, as far as can be told without comparing grants: those
    /// of another moment count as others.
    pub fn is_same_as(&self, other: &Self) -> bool {
        let same_grants = match (&self.grants, &other.grants) {
            (None, None) => true,
            (Some(own), Some(others)) => Arc::ptr_eq(own, others),
            _ => false,
        };
        same_grants && self.principal == other.principal
    }

    /// Whether all that `earlier` let the same person see may be seen still, and looks the same: with the same roles, of which
    /// filters and masks may ask, and with the same kept back of each table they could read.
    pub fn covers(&self, earlier: &Self) -> bool {
        let Some(now) = &self.grants else { return self.principal.name == earlier.principal.name };
        let Some(before) = &earlier.grants else { return false };
        let read = |grant: &&Grant| grant.read && grant.is_to(&earlier.principal);
        let still = |grant: &Grant| {
            let mut now = now.grants.iter().filter(read);
            now.any(|now| (&now.on, &now.columns) == (&grant.on, &grant.columns))
        };
        // Whoever made a table of that schema reads it without a grant.
        let concerns =
            |table: &&TableName| table.schema() == RESULTS_SCHEMA || earlier.table(table, None).is_readable();
        let mut kept_back = before.policies.keys().chain(now.policies.keys()).filter(concerns);
        self.principal == earlier.principal
            && before.grants.iter().filter(read).all(still)
            && kept_back.all(|table| before.policies.get(table) == now.policies.get(table))
    }

    /// What may be done with a table. `owner` is who made it, for tables that were made by SQL: its owner may read and
    /// write it.
    pub fn table(&self, table: &TableName, owner: Option<&str>) -> TableRights {
        let Some(grants) = &self.grants else { return TableRights::all() };
        let policy = grants.policies.get(table).cloned().unwrap_or_default();
        if owner.is_some_and(|owner| owner == self.principal.name) {
            return TableRights { policy, ..TableRights::all() };
        }
        let mut rights = TableRights { columns: Columns::Only(BTreeSet::new()), policy, write: false };
        for grant in grants.grants.iter().filter(|grant| grant.fits(&self.principal, table)) {
            rights.write |= grant.write;
            match (&mut rights.columns, &grant.columns) {
                _ if !grant.read => {}
                (columns, None) => *columns = Columns::All,
                (Columns::Only(columns), Some(more)) => columns.extend(more.iter().cloned()),
                (Columns::All, Some(_)) => {}
            }
        }
        rights
    }

    /// Whether tables may be made in a schema.
    pub fn may_create_in(&self, schema: &str) -> bool {
        use crate::access::Scope;
        let Some(grants) = &self.grants else { return true };
        let covers = |scope: &Scope| match scope {
            Scope::All => true,
            Scope::Schema(name) => name == schema,
            Scope::Table(_) => false,
        };
        grants.grants.iter().any(|grant| grant.write && covers(&grant.on) && grant.is_to(&self.principal))
    }
}

impl TableRights {
    /// Everything.
    pub fn all() -> Self {
        Self { columns: Columns::All, policy: Policy::default(), write: true }
    }

    /// Whether the table is there for the principal at all; where it is not, not even its name is told.
    pub fn is_visible(&self) -> bool {
        self.write || self.is_readable()
    }

    /// Whether rows may be read, were it only some of them or of some columns.
    pub fn is_readable(&self) -> bool {
        self.columns != Columns::Only(BTreeSet::new())
    }

    /// Whether each value of each row may be seen: then what was rejected, counted and measured may be seen as well.
    pub fn sees_everything(&self) -> bool {
        self.columns == Columns::All && self.policy == Policy::default()
    }

    /// Whether a column may be read.
    pub fn reads(&self, column: &str) -> bool {
        match &self.columns {
            Columns::All => true,
            Columns::Only(columns) => columns.contains(column),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Grant, Grantee, Scope};

    fn grant(to: Grantee, on: Scope, columns: &[&str]) -> Grant {
        let columns = (!columns.is_empty()).then(|| columns.iter().map(|column| (*column).to_owned()).collect());
        Grant { to, on, columns, read: true, write: false }
    }

    fn access(name: &str, roles: &[&str], grants: Vec<Grant>) -> Access {
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        Access::granted(Principal { name: name.to_owned(), roles }, Arc::new(Grants { grants, ..Grants::default() }))
    }

    fn name(text: &str) -> TableName {
        text.parse().unwrap()
    }

    #[test]
    fn nothing_is_seen_without_a_grant() {
        let rights = access("ann", &[], vec![]).table(&name("ops.orders"), None);
        assert!(!rights.is_visible() && !rights.reads("id") && !rights.write);
    }

    #[test]
    fn columns_of_several_grants_add_up() {
        let orders = || Scope::Table(name("ops.orders"));
        let ann = access(
            "ann",
            &["sales"],
            vec![
                grant(Grantee::Role("sales".to_owned()), orders(), &["id"]),
                grant(Grantee::User("ann".to_owned()), orders(), &["total"]),
                grant(Grantee::User("bob".to_owned()), orders(), &[]),
            ],
        );
        let rights = ann.table(&name("ops.orders"), None);
        assert!(rights.reads("id") && rights.reads("total") && !rights.reads("email") && !rights.sees_everything());
        assert!(!ann.table(&name("ops.customers"), None).is_visible());
    }

    #[test]
    fn who_made_a_table_may_read_and_write_it_and_others_may_not() {
        let table = name("results.scores");
        assert!(access("ann", &[], vec![]).table(&table, Some("ann")).write);
        assert!(!access("bob", &[], vec![]).table(&table, Some("ann")).is_visible());
    }

    #[test]
    fn admins_see_everything_and_policies_keep_from_everybody_else() {
        let everyone = vec![grant(Grantee::Everyone, Scope::All, &[])];
        assert!(access("root", &[ADMIN_ROLE], vec![]).is_unrestricted());
        let table = name("ops.orders");
        let policies = [(table.clone(), Policy { filters: vec!["false".to_owned()], ..Policy::default() })].into();
        let grants = Arc::new(Grants { grants: everyone, policies });
        let ann = Access::granted(Principal { name: "ann".to_owned(), roles: BTreeSet::new() }, grants);
        let rights = ann.table(&table, None);
        assert!(rights.reads("id") && !rights.sees_everything());
    }

    #[test]
    fn later_rights_cover_earlier_ones_unless_something_was_taken_away_or_kept_back() {
        let to_ann = |on: &str| grant(Grantee::User("ann".to_owned()), Scope::Table(name(on)), &[]);
        let granted = |roles: &[&str], grants: Vec<Grant>, kept_back: &[&str]| {
            let roles = roles.iter().map(|role| (*role).to_owned()).collect();
            let policy = || Policy { filters: vec!["false".to_owned()], ..Policy::default() };
            let policies = kept_back.iter().map(|table| (name(table), policy())).collect();
            Access::granted(Principal { name: "ann".to_owned(), roles }, Arc::new(Grants { grants, policies }))
        };
        let orders = || vec![to_ann("ops.orders")];
        let earlier = granted(&[], orders(), &[]);
        let with_columns = grant(Grantee::User("ann".to_owned()), Scope::Table(name("ops.orders")), &["id"]);
        let to_bob = grant(Grantee::User("bob".to_owned()), Scope::Table(name("ops.orders")), &[]);
        let by_everyone = grant(Grantee::Everyone, Scope::Table(name("ops.orders")), &[]);
        let write_only = Grant { read: false, write: true, ..to_ann("ops.orders") };
        for (now, covers) in [
            (granted(&[], orders(), &[]), true),
            (granted(&[], vec![to_ann("ops.orders"), to_ann("ops.more")], &["ops.more"]), true),
            (granted(&[], vec![by_everyone], &[]), true),
            (granted(&[ADMIN_ROLE], vec![], &[]), true),
            (granted(&[], vec![], &[]), false),
            (granted(&[], vec![to_bob], &[]), false),
            (granted(&[], vec![with_columns], &[]), false),
            (granted(&[], vec![write_only], &[]), false),
            (granted(&[], orders(), &["ops.orders"]), false),
            (granted(&[], orders(), &["results.made"]), false),
            (granted(&["sales"], orders(), &[]), false),
        ] {
            assert_eq!(now.covers(&earlier), covers, "{now:?}");
        }
        let everything = granted(&[ADMIN_ROLE], vec![], &[]);
        assert!(everything.covers(&everything) && !earlier.covers(&everything));
    }

    #[test]
    fn tables_are_made_where_a_whole_schema_may_be_written() {
        let write = |on| Grant { read: false, write: true, ..grant(Grantee::Everyone, on, &[]) };
        assert!(access("ann", &[], vec![write(Scope::Schema("results".to_owned()))]).may_create_in("results"));
        assert!(!access("ann", &[], vec![write(Scope::Table(name("results.a")))]).may_create_in("results"));
    }
}
