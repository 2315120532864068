//! What the database is made of: schemas, tables, columns, keys, principals and rights.
//!
//! A catalogue is never changed: DDL makes a new one under a new number, and SQLite's file holds the number that is
//! in force. So a snapshot sees the catalogue of its time, and a DDL that is rolled back never was.

use std::collections::HashMap;
use std::sync::Arc;

use super::ast::{Grant, Name};
use super::convert::Moment;
use crate::collation::Collation;
use crate::value::SqlType;

/// A whole catalogue.
#[derive(Debug, Clone)]
pub(crate) struct Catalog {
    pub(crate) version: i64,
    pub(crate) database: DatabaseState,
    pub(crate) schemas: Vec<Schema>,
    pub(crate) objects: HashMap<i32, Arc<Object>>,
    pub(crate) names: HashMap<(i32, String), i32>,
    pub(crate) types: Vec<UserType>,
    pub(crate) logins: HashMap<String, Option<String>>,
    pub(crate) roles: Vec<(String, String)>,
    pub(crate) rights: Vec<Right>,
    pub(crate) policies: Vec<Policy>,
    pub(crate) next_id: i32,
}

/// Settings of the database.
#[derive(Debug, Clone)]
pub(crate) struct DatabaseState {
    pub(crate) name: String,
    pub(crate) collation: Collation,
    pub(crate) created: Moment,
    pub(crate) compatibility: i64,
    pub(crate) snapshot: bool,
    pub(crate) read_committed_snapshot: bool,
    pub(crate) read_only: bool,
    pub(crate) tracking: Option<DatabaseTracking>,
}

/// Change Tracking of the database.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DatabaseTracking {
    pub(crate) retention: i64,
    /// 1 minutes, 2 hours, 3 days.
    pub(crate) unit: u8,
    pub(crate) auto_cleanup: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Schema {
    pub(crate) id: i32,
    pub(crate) name: String,
}

/// An alias type.
#[derive(Debug, Clone)]
pub(crate) struct UserType {
    pub(crate) id: i32,
    pub(crate) schema: i32,
    pub(crate) name: String,
    pub(crate) sql_type: SqlType,
    pub(crate) nullable: bool,
}

/// A row-level security policy, as far as the catalogue shows it.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) id: i32,
    pub(crate) schema: i32,
    pub(crate) name: String,
    pub(crate) targets: Vec<i32>,
}

/// What a right is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Server,
    Database,
    Schema(i32),
    Object(i32),
}

/// One GRANT or DENY.
#[derive(Debug, Clone)]
pub(crate) struct Right {
    pub(crate) user: String,
    pub(crate) permission: String,
    pub(crate) scope: Scope,
    pub(crate) deny: bool,
}

/// A table or a view.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) id: i32,
    pub(crate) schema: i32,
    pub(crate) name: String,
    pub(crate) created: Moment,
    pub(crate) modified: Moment,
    /// The number of the catalogue in which its shape changed last.
    pub(crate) changed: i64,
    pub(crate) columns: Vec<TableColumn>,
    pub(crate) next_column: i32,
    pub(crate) keys: Vec<Key>,
    pub(crate) view: Option<View>,
    pub(crate) tracking: Option<TableTracking>,
    pub(crate) system_versioned: bool,
    pub(crate) memory_optimized: bool,
    /// Whether SQLite has no rowid for it: it is clustered by its primary key.
    pub(crate) without_rowid: bool,
}

/// A view's text; its columns are the object's.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) text: String,
}

/// Change Tracking of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableTracking {
    pub(crate) columns_updated: bool,
}

/// A column of a table.
#[derive(Debug, Clone)]
pub(crate) struct TableColumn {
    pub(crate) id: i32,
    pub(crate) name: String,
    /// Its name in SQLite, which renaming does not change; empty for a computed column.
    pub(crate) physical: String,
    pub(crate) sql_type: SqlType,
    pub(crate) user_type: Option<i32>,
    pub(crate) nullable: bool,
    pub(crate) collation: Collation,
    pub(crate) identity: Option<(i64, i64)>,
    pub(crate) default: Option<DefaultValue>,
    pub(crate) computed: Option<Computed>,
    pub(crate) masked: bool,
    pub(crate) sparse: bool,
    pub(crate) column_set: bool,
    pub(crate) hidden: bool,
    pub(crate) encrypted: bool,
    pub(crate) generated: u8,
}

/// A default constraint.
#[derive(Debug, Clone)]
pub(crate) struct DefaultValue {
    pub(crate) id: i32,
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A computed column's expression.
#[derive(Debug, Clone)]
pub(crate) struct Computed {
    pub(crate) text: String,
    pub(crate) persisted: bool,
}

/// A primary key, a unique constraint or an index.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    /// `index_id`: 1 is the clustered one.
    pub(crate) index: i32,
    /// The constraint's object id; 0 for a plain index.
    pub(crate) constraint: i32,
    pub(crate) name: String,
    pub(crate) primary: bool,
    pub(crate) unique: bool,
    pub(crate) filtered: bool,
    /// Column id and whether it descends.
    pub(crate) columns: Vec<(i32, bool)>,
    pub(crate) included: Vec<i32>,
    /// The index in SQLite; `None` when the table itself is the key.
    pub(crate) physical: Option<String>,
}

impl Object {
    /// The table in SQLite.
    pub(crate) fn table(&self) -> String {
        format!("t{}", self.id)
    }

    pub(crate) fn column(&self, name: &str) -> Option<&TableColumn> {
        self.columns.iter().find(|column| same(&column.name, name))
    }

    pub(crate) fn column_by_id(&self, id: i32) -> Option<&TableColumn> {
        self.columns.iter().find(|column| column.id == id)
    }

    pub(crate) fn primary(&self) -> Option<&Key> {
        self.keys.iter().find(|key| key.primary)
    }

    /// The columns of the primary key in key order.
    pub(crate) fn primary_columns(&self) -> Vec<&TableColumn> {
        let ids = self.primary().map(|key| key.columns.as_slice()).unwrap_or_default();
        ids.iter().filter_map(|(id, _)| self.column_by_id(*id)).collect()
    }
}

/// Whether two names are the same. Names compare without case, as in the default collation.
pub(crate) fn same(left: &str, right: &str) -> bool {
    left.eq_ignore_ascii_case(right) || left.to_lowercase() == right.to_lowercase()
}

/// The schema that owns what SQL Server brings itself.
pub(crate) const SYS_SCHEMA: i32 = 4;

impl Catalog {
    /// The catalogue of an empty database.
    pub(crate) fn empty(name: &str, collation: Collation, created: Moment) -> Self {
        let schema = |id, name: &str| Schema { id, name: name.to_owned() };
        Self {
            version: 0,
            database: DatabaseState {
                name: name.to_owned(),
                collation,
                created,
                compatibility: 160,
                snapshot: false,
                read_committed_snapshot: false,
                read_only: false,
                tracking: None,
            },
            schemas: vec![
                schema(1, "dbo"),
                schema(2, "guest"),
                schema(3, "INFORMATION_SCHEMA"),
                schema(SYS_SCHEMA, "sys"),
            ],
            objects: HashMap::new(),
            names: HashMap::new(),
            types: Vec::new(),
            logins: HashMap::new(),
            roles: Vec::new(),
            rights: Vec::new(),
            policies: Vec::new(),
            // Object ids of users begin far above the system's, as SQL Server's do.
            next_id: 581_577_110,
        }
    }

    /// A new object id. SQL Server's ids jump about; here they grow by its usual step of 16.
    pub(crate) fn new_id(&mut self) -> i32 {
        self.next_id += 16;
        self.next_id
    }

    pub(crate) fn schema(&self, name: &str) -> Option<&Schema> {
        self.schemas.iter().find(|schema| same(&schema.name, name))
    }

    pub(crate) fn schema_name(&self, id: i32) -> &str {
        self.schemas.iter().find(|schema| schema.id == id).map_or("", |schema| schema.name.as_str())
    }

    /// The object of a name of one, two or three parts; without a schema it is dbo's.
    pub(crate) fn object(&self, name: &Name) -> Option<&Arc<Object>> {
        if let [database, _, _] = name.0.as_slice()
            && !same(database, &self.database.name)
        {
            return None;
        }
        let schema = self.schema(name.schema().unwrap_or("dbo"))?.id;
        let id = self.names.get(&(schema, name.last().to_lowercase()))?;
        self.objects.get(id)
    }

    /// `schema.name` of an object.
    pub(crate) fn full_name(&self, object: &Object) -> String {
        format!("{}.{}", self.schema_name(object.schema), object.name)
    }

    pub(crate) fn put(&mut self, object: Object) {
        self.names.insert((object.schema, object.name.to_lowercase()), object.id);
        self.objects.insert(object.id, Arc::new(object));
    }

    pub(crate) fn remove(&mut self, id: i32) {
        if let Some(object) = self.objects.remove(&id) {
            self.names.remove(&(object.schema, object.name.to_lowercase()));
        }
        self.rights.retain(|right| right.scope != Scope::Object(id));
    }

    /// Whether a login owns the database: `sa`, and members of db_owner.
    pub(crate) fn is_owner(&self, login: &str) -> bool {
        same(login, "sa") || same(login, "dbo") || self.in_role(login, "db_owner")
    }

    fn in_role(&self, login: &str, role: &str) -> bool {
        self.roles.iter().any(|(known, member)| same(known, role) && same(member, login))
    }

    /// Whether a right is held on a scope or one around it, and denied on none of them.
    pub(crate) fn allows(&self, login: &str, permission: &str, scope: Scope) -> bool {
        if self.is_owner(login) {
            return true;
        }
        let mut scopes = vec![scope, Scope::Database, Scope::Server];
        if let Scope::Object(id) = scope
            && let Some(object) = self.objects.get(&id)
        {
            scopes.push(Scope::Schema(object.schema));
        }
        let names = |right: &Right| right.permission == permission || right.permission == "CONTROL";
        let mine = |right: &&Right| {
            (same(&right.user, login) || same(&right.user, "public") || self.in_role(login, &right.user))
                && scopes.contains(&right.scope)
        };
        let denied = self.rights.iter().filter(mine).any(|right| right.deny && names(right))
            || (permission == "SELECT" && self.in_role(login, "db_denydatareader"));
        let reader = permission == "SELECT" && self.in_role(login, "db_datareader");
        let writer = matches!(permission, "INSERT" | "UPDATE" | "DELETE") && self.in_role(login, "db_datawriter");
        !denied && (reader || writer || self.rights.iter().filter(mine).any(|right| !right.deny && names(right)))
    }

    /// Whether the catalogue views show an object to a login: any right on it shows it.
    pub(crate) fn shows(&self, login: &str, object: &Object) -> bool {
        ["SELECT", "VIEW DEFINITION", "VIEW CHANGE TRACKING", "INSERT", "UPDATE", "DELETE", "ALTER", "REFERENCES"]
            .iter()
            .any(|permission| self.allows(login, permission, Scope::Object(object.id)))
    }

    /// Notes a GRANT, DENY or REVOKE.
    pub(crate) fn change_right(&mut self, grant: Grant, permission: &str, scope: Scope, user: &str) {
        self.rights
            .retain(|right| !(right.scope == scope && right.permission == permission && same(&right.user, user)));
        if grant != Grant::Revoke {
            let deny = grant == Grant::Deny;
            self.rights.push(Right { user: user.to_owned(), permission: permission.to_owned(), scope, deny });
        }
    }
}
