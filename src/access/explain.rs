//! What somebody may see and do with a table, and why: by file and line.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::access::{ADMIN_ROLE, Access, Columns, Directory};
use crate::config::{GrantLine, Spot};
use crate::model::TableName;

/// What somebody may see and do with a table, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Who.
    pub principal: String,
    /// The table.
    pub table: String,
    /// Whether the table is there for them at all.
    pub visible: bool,
    /// Columns that may be read: all, those added later too, where there is nothing.
    pub columns: Option<Vec<String>>,
    /// Whether rows may be added, changed and deleted.
    pub write: bool,
    /// Which rows are told, where the table is the program's own and not all of them are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub told: Option<String>,
    /// Conditions a row has to fulfil to be seen.
    pub row_filters: Vec<Kept>,
    /// What is seen in the place of columns' values.
    pub masks: BTreeMap<String, Kept>,
    /// Roles, each with what gives it.
    pub roles: BTreeMap<String, Vec<String>>,
    /// Grants that count, each with its place.
    pub grants: Vec<Granted>,
    /// What else there is to say.
    pub notes: Vec<String>,
}

/// SQL that keeps something back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// The expression.
    pub sql: String,
    /// Where it stands.
    pub at: String,
}

/// A grant that counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Granted {
    /// To whom, as in the file.
    pub to: String,
    /// On what, as in the file.
    pub on: String,
    /// The columns; all where there is nothing.
    pub columns: Option<Vec<String>>,
    /// `read`, `write` or both.
    pub may: Vec<String>,
    /// Where it stands.
    pub at: String,
}

impl Directory {
    /// What somebody may see and do with a table, and why. Claims are those a token would bring along (`claim:value`).
    pub fn explain(&self, name: &str, claims: &[String], table: &TableName) -> Explanation {
        let principal = self.principal(name, claims);
        let access = self.access_to_explain(name, claims);
        let rights = access.table(table, None);
        let list = self.files().grants.as_ref();
        let lines = list.into_iter().flat_map(|list| &list.grants);
        let fits = |line: &&GrantLine| {
            let grant = crate::access::Grant::from(*line);
            !access.is_unrestricted() && grant.fits(access.principal(), table)
        };
        let filters = list.into_iter().flat_map(|list| &list.row_filters).filter(|line| line.on == *table);
        let masks = list.into_iter().flat_map(|list| &list.masks).filter(|line| line.on == *table);
        let restricted = !access.is_unrestricted();
        Explanation {
            principal: access.principal().name.clone(),
            table: table.to_string(),
            visible: rights.is_visible(),
            columns: match &rights.columns {
                Columns::All => None,
                Columns::Only(columns) => Some(columns.iter().cloned().collect()),
            },
            write: rights.write,
            told: None,
            row_filters: filters.filter(|_| restricted).map(|line| kept(&line.condition, &line.spot)).collect(),
            masks: masks
                .filter(|_| restricted)
                .map(|line| (line.column.clone(), kept(&line.value, &line.spot)))
                .collect(),
            roles: principal.roles.iter().map(|role| (role.clone(), self.why_role(name, claims, role))).collect(),
            grants: lines.filter(fits).map(granted).collect(),
            notes: self.notes(name, access.is_unrestricted(), table),
        }
    }

    /// The same of a table of the program's own, of which `told` is told to those who may not see everything: no grant,
    /// filter or mask counts there.
    pub fn explain_own(&self, name: &str, claims: &[String], table: &TableName, told: &str) -> Explanation {
        let restricted = !self.access_to_explain(name, claims).is_unrestricted();
        let mut explained = self.explain(name, claims, table);
        explained.notes.push("it needs no grant: it tells each reader what they may know".to_owned());
        Explanation {
            visible: true,
            columns: None,
            write: false,
            told: restricted.then(|| told.to_owned()),
            row_filters: Vec::new(),
            masks: BTreeMap::new(),
            grants: Vec::new(),
            ..explained
        }
    }

    fn access_to_explain(&self, name: &str, claims: &[String]) -> Access {
        if self.is_closed() { self.access(name, claims) } else { self.anonymous() }
    }

    /// What gives somebody a role.
    fn why_role(&self, name: &str, claims: &[String], role: &str) -> Vec<String> {
        let mut why = Vec::new();
        if let Some(user) = self.user(name).filter(|user| user.roles.contains(role)) {
            let at = user.spot.as_ref().map_or_else(|| "the users file".to_owned(), ToString::to_string);
            why.push(format!("{at}: roles of [users.{name}]"));
        }
        if let Some(definition) = self.files().grants.as_ref().and_then(|list| list.roles.get(role)) {
            if definition.members.contains(name) {
                why.push(format!("{}: members of [roles.{role}]", definition.spot));
            }
            for claim in claims.iter().filter(|claim| definition.claims.contains(*claim)) {
                why.push(format!("{}: the claim {claim}", definition.spot));
            }
        }
        why
    }

    fn notes(&self, name: &str, unrestricted: bool, table: &TableName) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.is_closed() {
            notes.push("no users are configured: everybody is `anonymous`".to_owned());
        } else if unrestricted {
            notes.push(format!("the role `{ADMIN_ROLE}` sees and does everything; filters and masks do not count"));
        } else if self.files().users.is_some() && self.user(name).is_none() {
            notes.push(format!("`{name}` is no user of the users file"));
        }
        if table.schema() == "results" && !unrestricted {
            notes.push("whoever made a table of this schema may read and write it".to_owned());
        }
        notes
    }
}

fn kept(sql: &str, spot: &Spot) -> Kept {
    Kept { sql: sql.to_owned(), at: spot.to_string() }
}

fn granted(line: &GrantLine) -> Granted {
    let may = [(line.read, "read"), (line.write, "write")];
    Granted {
        to: line.to.to_string(),
        on: line.on.to_string(),
        columns: line.columns.as_ref().map(|columns| columns.iter().cloned().collect()),
        may: may.iter().filter(|(allowed, _)| *allowed).map(|(_, word)| (*word).to_owned()).collect(),
        at: line.spot.to_string(),
    }
}
