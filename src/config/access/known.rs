//! Whether what the grants file names is there: a name that is not means that somebody sees less than was meant, or
//! of a filter or mask that everybody sees more.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::RESULTS_SCHEMA;
use crate::config::access::grants::Names;
use crate::config::access::{AccessFiles, AccessSettings};
use crate::config::folder::RESERVED_SCHEMAS;
use crate::config::problem::Problem;
use crate::config::table::{TableDefinition, TableSource};
use crate::model::TableName;

/// The role that needs no definition: its members see and do everything.
const ADMIN: &str = "admin";

/// A name in a grants file, of something that is defined elsewhere.
#[derive(Clone, Debug)]
pub(super) enum NameOf {
    /// A principal, as member of a role or as who is granted something.
    User(String),
    /// A role.
    Role(String),
    /// A claim and its value.
    Claim(String),
    /// A schema of a grant.
    GrantedSchema(String),
    /// A table of a grant.
    GrantedTable(TableName),
    /// A table of a row filter or mask.
    KeptBackTable(TableName),
    /// A column of a grant.
    GrantedColumn(TableName, String),
    /// A masked column.
    MaskedColumn(TableName, String),
}

/// Notes each name that is not there.
pub(super) fn check(
    settings: &AccessSettings,
    files: &AccessFiles,
    names: &Names,
    tables: &BTreeMap<TableName, TableDefinition>,
    problems: &mut Vec<Problem>,
) {
    let users: BTreeSet<&str> = files.users.iter().flat_map(|list| list.users.keys()).map(String::as_str).collect();
    let roles = roles(files);
    for (name, place) in names {
        let problem = match name {
            // Names of an identity provider or of certificates are not known here.
            NameOf::User(user) if files.users.is_none() || settings.knows_others() || users.contains(user.as_str()) => {
                continue;
            }
            NameOf::User(user) => place
                .problem(format!("there is no user `{user}` in the users file"))
                .near(user, users.iter().copied())
                .warning(),
            NameOf::Role(role) if roles.contains(role.as_str()) => continue,
            NameOf::Role(role) => place
                .problem(format!("there is no role `{role}`: nobody has it"))
                .expected("a role of [roles] or of the users file, user:NAME, or everyone")
                .near(role, roles.iter().copied()),
            NameOf::Claim(claim) => match unknown_claim(settings, claim) {
                Some(message) => place.problem(message).warning(),
                None => continue,
            },
            NameOf::GrantedSchema(schema) if is_reserved(schema) => place
                .problem(format!("{schema} needs no grant: its tables tell each reader what they may know"))
                .warning(),
            NameOf::GrantedSchema(_) => continue,
            NameOf::GrantedTable(table) if is_reserved(table.schema()) => {
                place.problem(format!("{table} needs no grant: it tells each reader what they may know")).warning()
            }
            NameOf::GrantedTable(table) if is_known(table, tables) => continue,
            NameOf::GrantedTable(table) => no_table(place.problem(no_definition(table)), table, tables).warning(),
            NameOf::KeptBackTable(table) if is_reserved(table.schema()) => place
                .problem(format!("nothing can be kept back of {table}: it tells each reader what they may know"))
                .expected("a filter or mask on the table that it tells of"),
            NameOf::KeptBackTable(table) if is_known(table, tables) => continue,
            NameOf::KeptBackTable(table) => no_table(place.problem(no_definition(table)), table, tables),
            NameOf::GrantedColumn(table, column) => match unknown_column(table, column, tables) {
                Some(columns) => place.problem(no_column(table, column)).near(column, columns).warning(),
                None => continue,
            },
            NameOf::MaskedColumn(table, column) => match unknown_column(table, column, tables) {
                Some(columns) => place.problem(no_column(table, column)).near(column, columns),
                None => continue,
            },
        };
        problems.push(problem);
    }
}

/// The roles there are: those of both files, and the one that needs no definition.
pub(in crate::config) fn roles(files: &AccessFiles) -> BTreeSet<&str> {
    let of_grants = files.grants.iter().flat_map(|list| list.roles.keys());
    let of_users = files.users.iter().flat_map(|list| list.users.values()).flat_map(|user| &user.roles);
    std::iter::once(ADMIN).chain(of_grants.chain(of_users).map(String::as_str)).collect()
}

fn is_known(table: &TableName, tables: &BTreeMap<TableName, TableDefinition>) -> bool {
    tables.contains_key(table) || table.schema() == RESULTS_SCHEMA
}

/// Whether a schema's tables are the program's own. Grants, filters and masks are not looked at when they are read.
fn is_reserved(schema: &str) -> bool {
    RESERVED_SCHEMAS.contains(&schema)
}

fn no_definition(table: &TableName) -> String {
    format!("no definition makes a table {table}")
}

fn no_column(table: &TableName, column: &str) -> String {
    format!("{table} has no column `{column}`")
}

fn no_table(problem: Problem, table: &TableName, tables: &BTreeMap<TableName, TableDefinition>) -> Problem {
    let known: Vec<_> = tables.keys().map(ToString::to_string).collect();
    problem.near(&table.to_string(), known.iter().map(String::as_str))
}

/// The columns a table has, where they are declared and the one named is not among them.
fn unknown_column<'a>(
    table: &TableName,
    column: &str,
    tables: &'a BTreeMap<TableName, TableDefinition>,
) -> Option<Vec<&'a str>> {
    let definition = tables.get(table)?;
    let declared = matches!(definition.source, TableSource::Files(_)) && !definition.columns.is_empty();
    let columns: Vec<_> = definition.columns.iter().map(|declared| declared.name.as_str()).collect();
    (declared && !columns.contains(&column)).then_some(columns)
}

fn unknown_claim(settings: &AccessSettings, claim: &str) -> Option<String> {
    let (name, _) = claim.split_once(':')?;
    match &settings.oidc {
        None => Some("claims come with tokens of an identity provider, and [access.oidc] names none".to_owned()),
        Some(oidc) if oidc.role_claims.iter().any(|known| known == name) => None,
        Some(oidc) => {
            let known = oidc.role_claims.join(", ");
            Some(format!("the claim `{name}` is not looked at; access.oidc.role_claims names {known}"))
        }
    }
}
