//! The grants file: roles and who has them, what is granted to whom, which rows and values are kept back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::access::known::NameOf;
use crate::config::access::values::{Grantee, May, OneTable, Scope, SqlExpression, is_role_name};
use crate::config::access::{Spot, low};
use crate::config::lakegate_file::optional;
use crate::config::problem::Problem;
use crate::config::reader::{At, Field, Named, Place, SourceFile, low_table};
use crate::config::values::{Chosen, FormatVersion, Text};
use crate::model::TableName;

low_table! {
    /// The whole of a grants file.
    LowGrants {
        /// Version of this format.
        version: FormatVersion = 1;
        /// Roles by name, and who has them besides those whom the users file gives them.
        roles: Named<LowRole> = {};
        /// What is granted to whom; without a grant nothing is seen, not even by name.
        grant: Vec<At<LowGrant>> = [];
        /// Which rows of a table are seen; several for one table have to be true at once.
        row_filter: Vec<At<LowRowFilter>> = [];
        /// What is seen in the place of a column's values.
        mask: Vec<At<LowMask>> = [];
    }
}

low_table! {
    /// `[roles.NAME]`
    LowRole {
        /// Names of principals that have the role.
        members: Vec<At<Text>> = [];
        /// Values of claims that give the role, as in groups:analysts.
        claims: Vec<At<Text>> = [];
    }
}

low_table! {
    /// `[[grant]]`
    LowGrant {
        /// A role, user:NAME or everyone.
        to: Grantee;
        /// schema.table, schema.* or *.
        on: Scope;
        /// The columns that may be read; all, later ones too, where nothing is given.
        columns: Vec<At<Text>>;
        /// What may be done: read, write or both.
        may: Vec<At<Chosen<May>>> = ["read"];
    }
}

low_table! {
    /// `[[row_filter]]`
    LowRowFilter {
        /// schema.table
        on: OneTable;
        /// A SQL condition over the table's own columns; it may use current_user() and has_role('NAME').
        condition ("where"): SqlExpression;
    }
}

low_table! {
    /// `[[mask]]`
    LowMask {
        /// schema.table
        on: OneTable;
        /// The column.
        column: Text;
        /// A SQL expression of the column's type over the table's own columns.
        value ("as"): SqlExpression;
    }
}

/// What a grants file says, line by line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrantList {
    /// Roles by name.
    pub roles: BTreeMap<String, RoleDefinition>,
    /// What is granted.
    pub grants: Vec<GrantLine>,
    /// Which rows are seen.
    pub row_filters: Vec<RowFilterLine>,
    /// What is seen in the place of values.
    pub masks: Vec<MaskLine>,
}

/// A role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleDefinition {
    /// Principals that have it.
    pub members: BTreeSet<String>,
    /// Claims that give it, each as `claim:value`.
    pub claims: BTreeSet<String>,
    /// Where it stands.
    pub spot: Spot,
}

/// A grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantLine {
    /// To whom.
    pub to: Grantee,
    /// On what.
    pub on: Scope,
    /// The columns that may be read; all where there is nothing.
    pub columns: Option<BTreeSet<String>>,
    /// Whether rows may be read.
    pub read: bool,
    /// Whether rows may be added, changed and deleted.
    pub write: bool,
    /// Where it stands.
    pub spot: Spot,
}

/// A row filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowFilterLine {
    /// The table.
    pub on: TableName,
    /// The condition in SQL.
    pub condition: String,
    /// Where it stands.
    pub spot: Spot,
}

/// A mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskLine {
    /// The table.
    pub on: TableName,
    /// The column.
    pub column: String,
    /// What is seen instead, in SQL.
    pub value: String,
    /// Where it stands.
    pub spot: Spot,
}

/// The names in a grants file of what is defined elsewhere, each with its place.
pub(super) type Names = Vec<(NameOf, Place)>;

/// What a grants file says, and the names in it; nothing where something of it could not be read.
pub(super) fn read(file: &Arc<SourceFile>, problems: &mut Vec<Problem>) -> Option<(GrantList, Names)> {
    let low: LowGrants = low(file, problems)?;
    let mut names = Names::new();
    let roles = roles(&low, &mut names, problems);
    let grants = low.grant.value().and_then(|lines| each(lines, |at| grant(at, &mut names, problems)));
    let filters = low.row_filter.value().and_then(|lines| each(lines, |at| row_filter(at, &mut names, problems)));
    let masks = low.mask.value().and_then(|lines| each(lines, |at| mask(at, &mut names, problems)));
    let masks = masks.filter(|_| no_mask_twice(low.mask.value(), problems));
    low.version.value()?;
    Some((GrantList { roles: roles?, grants: grants?, row_filters: filters?, masks: masks? }, names))
}

/// All of them, or nothing where one is missing; every one is looked at.
fn each<T, U>(lines: &[At<T>], mut read: impl FnMut(&At<T>) -> Option<U>) -> Option<Vec<U>> {
    let read: Vec<_> = lines.iter().map(&mut read).collect();
    read.into_iter().collect()
}

fn roles(low: &LowGrants, names: &mut Names, problems: &mut Vec<Problem>) -> Option<BTreeMap<String, RoleDefinition>> {
    let mut roles = BTreeMap::new();
    let mut whole = true;
    for (name, at) in &low.roles.value()?.0 {
        let role = at.as_ref().and_then(|at| role(name, at, names, problems));
        whole &= role.is_some();
        roles.extend(role.map(|role| (name.clone(), role)));
    }
    whole.then_some(roles)
}

fn role(name: &str, at: &At<LowRole>, names: &mut Names, problems: &mut Vec<Problem>) -> Option<RoleDefinition> {
    if !is_role_name(name) {
        let problem = at.place.problem(format!("{name:?} is no name of a role"));
        problems.push(problem.expected("letters, digits and . _ -, and not `everyone`"));
        return None;
    }
    let members = at.value.members.value()?;
    names.extend(members.iter().map(|member| (NameOf::User(member.value.0.clone()), member.place.clone())));
    let claims = at.value.claims.value()?;
    for claim in claims {
        if !claim.value.0.split_once(':').is_some_and(|(claim, value)| !claim.is_empty() && !value.is_empty()) {
            let problem = claim.place.problem(format!("{:?} names no claim and value", claim.value.0));
            problems.push(problem.expected("\"claim:value\", as in \"groups:analysts\""));
            return None;
        }
        names.push((NameOf::Claim(claim.value.0.clone()), claim.place.clone()));
    }
    let texts = |list: &[At<Text>]| list.iter().map(|text| text.value.0.clone()).collect();
    Some(RoleDefinition { members: texts(members), claims: texts(claims), spot: at.place.spot() })
}

fn grant(at: &At<LowGrant>, names: &mut Names, problems: &mut Vec<Problem>) -> Option<GrantLine> {
    let low = &at.value;
    let to = required(&low.to, "to", &at.place, problems);
    let on = required(&low.on, "on", &at.place, problems);
    let columns = optional(&low.columns)?;
    let may = low.may.value()?;
    let (to, on) = (to?, on?);
    match &to.value {
        Grantee::Everyone => {}
        Grantee::Role(role) => names.push((NameOf::Role(role.clone()), to.place.clone())),
        Grantee::User(user) => names.push((NameOf::User(user.clone()), to.place.clone())),
    }
    match &on.value {
        Scope::All => {}
        Scope::Schema(schema) => names.push((NameOf::GrantedSchema(schema.clone()), on.place.clone())),
        Scope::Table(table) => {
            names.push((NameOf::GrantedTable(table.clone()), on.place.clone()));
            for column in columns.iter().flatten() {
                names.push((NameOf::GrantedColumn(table.clone(), column.value.0.clone()), column.place.clone()));
            }
        }
    }
    let may: Vec<_> = may.iter().map(|word| word.value.0).collect();
    if may.is_empty() || columns.as_ref().is_some_and(Vec::is_empty) {
        problems.push(at.place.problem("the grant allows nothing").expected("columns and rights, or no such grant"));
        return None;
    }
    let columns = columns.map(|columns| columns.into_iter().map(|column| column.value.0).collect());
    let (read, write) = (may.contains(&May::Read), may.contains(&May::Write));
    Some(GrantLine { to: to.value.clone(), on: on.value.clone(), columns, read, write, spot: at.place.spot() })
}

fn row_filter(at: &At<LowRowFilter>, names: &mut Names, problems: &mut Vec<Problem>) -> Option<RowFilterLine> {
    let on = required(&at.value.on, "on", &at.place, problems);
    let condition = required(&at.value.condition, "where", &at.place, problems);
    let (on, condition) = (on?, condition?);
    names.push((NameOf::KeptBackTable(on.value.0.clone()), on.place.clone()));
    Some(RowFilterLine { on: on.value.0.clone(), condition: condition.value.0.clone(), spot: at.place.spot() })
}

fn mask(at: &At<LowMask>, names: &mut Names, problems: &mut Vec<Problem>) -> Option<MaskLine> {
    let on = required(&at.value.on, "on", &at.place, problems);
    let column = required(&at.value.column, "column", &at.place, problems);
    let value = required(&at.value.value, "as", &at.place, problems);
    let (on, column, value) = (on?, column?, value?);
    let table = on.value.0.clone();
    names.push((NameOf::KeptBackTable(table.clone()), on.place.clone()));
    names.push((NameOf::MaskedColumn(table.clone(), column.value.0.clone()), column.place.clone()));
    let (column, value) = (column.value.0.clone(), value.value.0.clone());
    Some(MaskLine { on: table, column, value, spot: at.place.spot() })
}

fn no_mask_twice(masks: Option<&Vec<At<LowMask>>>, problems: &mut Vec<Problem>) -> bool {
    let mut seen = BTreeSet::new();
    let mut twice = false;
    for at in masks.into_iter().flatten() {
        let (Some(on), Some(column)) = (at.value.on.value(), at.value.column.value()) else { continue };
        if !seen.insert((on.0.clone(), column.0.clone())) {
            let message = format!("{}.{} has a mask already; which one is meant?", on.0, column.0);
            problems.push(at.place.problem(message).expected("one mask for a column"));
            twice = true;
        }
    }
    !twice
}

/// A value that has to be there.
fn required<'a, T>(field: &'a Field<T>, key: &str, above: &Place, problems: &mut Vec<Problem>) -> Option<&'a At<T>> {
    if field.is_missing() {
        problems.push(above.problem(format!("`{key}` is missing")));
    }
    field.given()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> (Option<GrantList>, Vec<String>) {
        let file = Arc::new(SourceFile { name: "grants.toml".into(), text: text.to_owned() });
        let mut problems = Vec::new();
        let list = read(&file, &mut problems).map(|(list, _)| list);
        (list, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn every_key_is_read() {
        let (list, problems) = read_text(
            r#"
            [roles.analysts]
            members = ["ann", "bob"]
            claims = ["groups:analysts"]
            [[grant]]
            to = "analysts"
            on = "weather.*"
            [[grant]]
            to = "user:ann"
            on = "ops.orders"
            columns = ["id", "total"]
            may = ["read", "write"]
            [[grant]]
            to = "everyone"
            on = "*"
            may = ["write"]
            [[row_filter]]
            on = "ops.orders"
            where = "region = 'EU' or has_role('global')"
            [[mask]]
            on = "ops.orders"
            column = "email"
            as = "case when has_role('pii') then email else '***' end"
            "#,
        );
        assert_eq!(problems, [""; 0]);
        let list = list.unwrap();
        assert!(list.roles["analysts"].members.contains("bob"));
        assert!(list.roles["analysts"].claims.contains("groups:analysts"));
        let [first, second, third] = list.grants.as_slice() else { panic!("{list:?}") };
        assert_eq!(
            (&first.to, &first.on),
            (&Grantee::Role("analysts".to_owned()), &Scope::Schema("weather".to_owned()))
        );
        assert!(first.read && !first.write && first.columns.is_none() && first.spot.line == 5);
        assert!(second.read && second.write && second.columns.as_ref().unwrap().contains("total"));
        assert!(!third.read && third.write && third.on == Scope::All && third.to == Grantee::Everyone);
        assert_eq!(list.row_filters[0].condition, "region = 'EU' or has_role('global')");
        assert_eq!((list.masks[0].column.as_str(), list.masks[0].spot.line), ("email", 20));
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (text, wanted) in [
            ("[[grnat]]", "grants.toml:1:3: grnat: `grnat` is no known key here"),
            ("[[grant]]\nto = \"a\"", "`on` is missing"),
            ("[[grant]]\nto = \"usr:a\"\non = \"*\"", "grants.toml:2:6: grant[1].to: \"usr:a\" is nobody"),
            ("[[grant]]\nto = \"a\"\non = \"Weather.*\"", "is no table and no schema"),
            ("[[grant]]\nto = \"a\"\non = \"weather\"", "is no table and no schema"),
            ("[[grant]]\nto = \"a\"\non = \"*\"\nmay = [\"raed\"]", "did you mean `read`?"),
            ("[[grant]]\nto = \"a\"\non = \"*\"\ncolumns = []", "allows nothing"),
            ("[roles.everyone]", "is no name of a role"),
            ("[roles.a]\nclaims = [\"analysts\"]", "names no claim and value"),
            ("[[row_filter]]\non = \"a.b\"\nwhere = \"x =\"", "this is no SQL expression"),
            ("[[row_filter]]\non = \"a.b\"\nwhere = \"true; drop table x\"", "after the expression stands `;`"),
            ("[[row_filter]]\non = \"a.*\"\nwhere = \"true\"", "is no name of a table"),
            (
                "[[mask]]\non = \"a.b\"\ncolumn = \"c\"\nas = \"1\"\n[[mask]]\non = \"a.b\"\ncolumn = \"c\"\nas = \"2\"",
                "has a mask already",
            ),
        ] {
            let (list, said) = read_text(text);
            assert!(list.is_none() || text.starts_with("[[grnat"), "{text}");
            assert!(said.iter().any(|said| said.contains(wanted)), "{text}: {said:?}");
        }
    }
}
