//! Turns T-SQL into SQLite's SQL: names become columns, every expression gets its SQL Server type, and wherever SQL
//! Server would convert, a call of a function of ours stands in the SQL.

mod call;
mod changes;
mod dml;
mod expression;
mod kind;
mod query;
mod source;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use rusqlite::types::Value as Stored;

pub(crate) use dml::Target;
pub(crate) use query::OutColumn;

use super::ast::{Expression, Name, Query};
use super::catalog::{Catalog, Object, Scope, same};
use super::convert::{Manner, convert, fits};
use super::error::SqlError;
use super::function::{Call, Function, SharedContext, is_volatile};
use super::storage::{OFFSET_COLLATION, store};
use crate::collation::Collation;
use crate::value::{Column, SqlType, Value};

/// A variable of a batch.
#[derive(Debug, Clone)]
pub(crate) struct Variable {
    pub(crate) sql_type: SqlType,
    pub(crate) value: Value,
}

/// What `@@…` say.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Globals {
    pub(crate) row_count: i64,
    pub(crate) error: i32,
    pub(crate) depth: i64,
    pub(crate) spid: u16,
    pub(crate) lock_timeout: i64,
}

/// A statement ready for SQLite.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prepared {
    pub(crate) sql: String,
    pub(crate) parameters: Vec<Stored>,
    pub(crate) columns: Vec<Column>,
    /// For `SELECT @a = …`: the variable each column goes to.
    pub(crate) assign: Vec<String>,
}

/// What a statement needs, known once it is bound.
#[derive(Debug, Clone, Default)]
pub(crate) struct Needs {
    /// Tables and views it reads or writes.
    pub(crate) objects: BTreeSet<i32>,
    /// Catalogue views it reads.
    pub(crate) views: BTreeSet<&'static str>,
    /// Whether it asks Change Tracking.
    pub(crate) tracking: bool,
}

impl Needs {
    /// Whether the statement reads anything at all of the database.
    pub(crate) fn touches_data(&self) -> bool {
        self.tracking || !self.objects.is_empty() || !self.views.is_empty()
    }
}

/// Where an expression's collation comes from; the stronger one wins.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sorting {
    /// A literal or a variable.
    Default,
    /// A column.
    Implicit(Collation),
    /// COLLATE.
    Explicit(Collation),
    /// Two columns that differ.
    Conflict,
}

/// A bound expression.
#[derive(Debug, Clone)]
struct Bound {
    sql: String,
    /// `None` for a bare NULL, which takes every type.
    sql_type: Option<SqlType>,
    nullable: bool,
    sorting: Sorting,
    /// The value of a literal.
    constant: Option<Value>,
    /// The column it is, when it is just one.
    column: Option<SourceColumn>,
}

impl Bound {
    fn of(sql: impl Into<String>, sql_type: SqlType) -> Self {
        Self {
            sql: sql.into(),
            sql_type: Some(sql_type),
            nullable: true,
            sorting: Sorting::Default,
            constant: None,
            column: None,
        }
    }

    fn null() -> Self {
        Self { sql: "NULL".to_owned(), sql_type: None, constant: Some(Value::Null), ..Self::of("", SqlType::Int) }
    }

    fn constant(value: Value, sql_type: SqlType) -> Self {
        Self { nullable: false, constant: Some(value.clone()), ..Self::of(literal(&value), sql_type) }
    }

    fn kind(&self) -> SqlType {
        self.sql_type.clone().unwrap_or(SqlType::Int)
    }
}

/// A column of something behind FROM.
#[derive(Debug, Clone)]
struct SourceColumn {
    name: String,
    sql: String,
    sql_type: SqlType,
    nullable: bool,
    collation: Collation,
    identity: bool,
    computed: bool,
    hidden: bool,
}

/// Something behind FROM.
#[derive(Debug, Clone)]
struct BoundSource {
    /// The name columns are qualified with.
    alias: String,
    /// Schema and name when no alias hides them.
    full: Option<(String, String)>,
    sql_alias: String,
    columns: Vec<SourceColumn>,
    object: Option<Arc<Object>>,
}

#[derive(Clone)]
struct CommonTableSource {
    name: String,
    sql_name: String,
    columns: Vec<OutColumn>,
}

/// A SQLite literal.
fn literal(value: &Value) -> String {
    match store(value) {
        Stored::Null => "NULL".to_owned(),
        Stored::Integer(number) if number == i64::MIN => "(-9223372036854775807 - 1)".to_owned(),
        Stored::Integer(number) => number.to_string(),
        Stored::Real(number) => format!("{number:?}"),
        Stored::Text(text) if text.contains('\0') => {
            let hexed: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
            format!("CAST(x'{hexed}' AS TEXT)")
        }
        Stored::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Stored::Blob(bytes) => {
            let hexed: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("x'{hexed}'")
        }
    }
}

/// Binds the statements of one session, one after the other.
pub(crate) struct Binder<'a> {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) needs: Needs,
    context: &'a SharedContext,
    login: &'a str,
    variables: &'a HashMap<String, Variable>,
    globals: Globals,
    identity_insert: Option<i32>,
    parameters: Vec<Stored>,
    bound_variables: HashMap<String, usize>,
    scopes: Vec<Vec<BoundSource>>,
    common: Vec<CommonTableSource>,
    next_alias: usize,
    /// How many views deep: what a view reads needs no right of its own.
    in_view: u32,
}

impl<'a> Binder<'a> {
    pub(crate) fn new(
        catalog: Arc<Catalog>,
        context: &'a SharedContext,
        login: &'a str,
        variables: &'a HashMap<String, Variable>,
        globals: Globals,
        identity_insert: Option<i32>,
    ) -> Self {
        Self {
            catalog,
            needs: Needs::default(),
            context,
            login,
            variables,
            globals,
            identity_insert,
            parameters: Vec::new(),
            bound_variables: HashMap::new(),
            scopes: Vec::new(),
            common: Vec::new(),
            next_alias: 0,
            in_view: 0,
        }
    }

    /// Binds a query that is a statement.
    pub(crate) fn statement(&mut self, query: &Query) -> Result<Prepared, SqlError> {
        let assign = query::assigned(query)?;
        let bound = self.query(query)?;
        let columns = bound.columns.iter().map(|column| column.column(&self.catalog.database.collation)).collect();
        Ok(self.prepared(bound.sql, columns, assign))
    }

    /// Binds an expression by itself as a query of one row, converted to a type when one is given.
    pub(crate) fn scalar(&mut self, expression: &Expression, to: Option<&SqlType>) -> Result<Prepared, SqlError> {
        self.scopes.push(Vec::new());
        let mut bound = self.expression(expression)?;
        if let Some(to) = to {
            bound = self.cast(bound, to, 0, false)?;
        }
        let column = Column::new("", bound.kind(), self.collation_of(&bound));
        let sql = format!("SELECT {}", bound.sql);
        Ok(self.prepared(sql, vec![column], Vec::new()))
    }

    /// Binds a condition by itself.
    pub(crate) fn truth(&mut self, expression: &Expression) -> Result<Prepared, SqlError> {
        self.scopes.push(Vec::new());
        let sql = format!("SELECT ({})", self.condition(expression)?);
        let column = Column::new("", SqlType::Int, Collation::default());
        Ok(self.prepared(sql, vec![column], Vec::new()))
    }

    fn prepared(&mut self, sql: String, columns: Vec<Column>, assign: Vec<String>) -> Prepared {
        Prepared { sql, parameters: std::mem::take(&mut self.parameters), columns, assign }
    }

    fn alias(&mut self) -> String {
        self.next_alias += 1;
        format!("s{}", self.next_alias)
    }

    /// Puts a call into the SQL, or its value when all arguments are literals.
    fn call(&mut self, call: Call, arguments: &[Bound]) -> Result<Bound, SqlError> {
        let nullable = arguments.iter().any(|argument| argument.nullable);
        let constants: Option<Vec<Value>> = arguments.iter().map(|argument| argument.constant.clone()).collect();
        let foldable = matches!(
            call.function,
            Function::Cast { .. } | Function::Assign { .. } | Function::Arithmetic(_) | Function::Negate
        );
        let sorting = arguments.first().map_or(Sorting::Default, |argument| argument.sorting.clone());
        let result = call.result.clone();
        if let (Some(values), true) = (constants, foldable) {
            let value = self.context.evaluate(&call, values)?;
            return Ok(Bound { nullable: value.is_null(), sorting, ..Bound::constant(value, result) });
        }
        let name = if is_volatile(&call.function) { "fxv" } else { "fx" };
        let number = self.context.intern(call);
        let mut sql = format!("{name}({number}");
        for argument in arguments {
            sql.push_str(", ");
            sql.push_str(&argument.sql);
        }
        sql.push(')');
        Ok(Bound { nullable, sorting, ..Bound::of(sql, result) })
    }

    /// Converts to a type; nothing happens when the stored forms are the same and nothing can be lost.
    fn cast(&mut self, bound: Bound, to: &SqlType, style: i32, tolerant: bool) -> Result<Bound, SqlError> {
        let Some(from) = bound.sql_type.clone() else {
            return Ok(Bound { sql_type: Some(to.clone()), ..bound });
        };
        if kind::widens(&from, to) && bound.constant.is_none() {
            return Ok(Bound { sql_type: Some(to.clone()), column: None, ..bound });
        }
        let call = Call {
            function: Function::Cast { style, tolerant },
            arguments: vec![from],
            result: to.clone(),
            collation: self.collation_of(&bound),
        };
        self.call(call, &[bound])
    }

    /// Brings two expressions to one type, as comparisons need it. Stored forms that SQLite compares right as they
    /// are stay as they are.
    fn unify(&mut self, left: Bound, right: Bound) -> Result<(Bound, Bound, SqlType), SqlError> {
        let (left_type, right_type) = match (&left.sql_type, &right.sql_type) {
            (None, None) => return Ok((left, right, SqlType::Int)),
            (Some(one), None) | (None, Some(one)) => {
                let one = one.clone();
                return Ok((left, right, one));
            }
            (Some(left), Some(right)) => (left.clone(), right.clone()),
        };
        let (left, left_type) = short_literal(left, left_type, &right_type);
        let (right, right_type) = short_literal(right, right_type, &left_type);
        let common = kind::common(&left_type, &right_type);
        let number = |sql_type: &SqlType| {
            sql_type.is_integer() || matches!(sql_type, SqlType::Real | SqlType::Float | SqlType::Bit)
        };
        let comparable =
            super::storage::same_form(&left_type, &right_type) || (number(&left_type) && number(&right_type));
        if comparable {
            return Ok((left, right, common));
        }
        Ok((self.cast(left, &common, 0, false)?, self.cast(right, &common, 0, false)?, common))
    }

    fn collation_of(&self, bound: &Bound) -> Collation {
        match &bound.sorting {
            Sorting::Implicit(collation) | Sorting::Explicit(collation) => collation.clone(),
            Sorting::Default | Sorting::Conflict => self.catalog.database.collation.clone(),
        }
    }

    /// What has to follow an expression of a type so that SQLite sorts it right: ` COLLATE "…"` or nothing.
    fn sorted(&self, sql_type: &SqlType, sorting: &Sorting) -> Result<String, SqlError> {
        if matches!(sql_type, SqlType::DateTimeOffset { .. }) {
            return Ok(format!(" COLLATE {OFFSET_COLLATION}"));
        }
        if !sql_type.is_text() {
            return Ok(String::new());
        }
        let collation = match sorting {
            Sorting::Implicit(collation) | Sorting::Explicit(collation) => collation,
            Sorting::Default => &self.catalog.database.collation,
            Sorting::Conflict => {
                return Err(SqlError::new(
                    468,
                    16,
                    "Cannot resolve the collation conflict between the columns in the operation.",
                ));
            }
        };
        Ok(format!(" COLLATE \"{}\"", collation.name()))
    }

    fn variable(&self, name: &str) -> Result<&'a Variable, SqlError> {
        let found = self.variables.get(&name.to_lowercase());
        found.ok_or_else(|| SqlError::new(137, 15, format!("Must declare the scalar variable \"{name}\".")))
    }

    /// The object of a name; none, or none that may be seen, is error 208.
    fn object(&self, name: &Name) -> Result<Arc<Object>, SqlError> {
        self.catalog.object(name).cloned().ok_or_else(|| SqlError::unknown_object(&name.text()))
    }

    /// Error 229 unless the login has the right on the object.
    fn demand(&self, permission: &str, object: &Object) -> Result<(), SqlError> {
        if self.in_view > 0 || self.catalog.allows(self.login, permission, Scope::Object(object.id)) {
            return Ok(());
        }
        Err(SqlError {
            state: 5,
            ..SqlError::new(
                229,
                14,
                format!(
                    "The {permission} permission was denied on the object '{}', database '{}', schema '{}'.",
                    object.name,
                    self.catalog.database.name,
                    self.catalog.schema_name(object.schema)
                ),
            )
        })
    }

    /// The column of a name, from the innermost query outwards.
    fn resolve(&self, name: &Name) -> Result<SourceColumn, SqlError> {
        let wanted = name.last();
        for scope in self.scopes.iter().rev() {
            let mut found: Option<&SourceColumn> = None;
            for source in scope.iter().filter(|source| answers(source, name)) {
                let Some(column) = source.columns.iter().find(|column| same(&column.name, wanted)) else { continue };
                if found.is_some() {
                    return Err(SqlError::new(209, 16, format!("Ambiguous column name '{wanted}'.")));
                }
                found = Some(column);
            }
            if let Some(column) = found {
                return Ok(column.clone());
            }
        }
        if name.0.len() > 1 && !self.scopes.iter().flatten().any(|source| answers(source, name)) {
            return Err(SqlError::new(
                4104,
                16,
                format!("The multi-part identifier \"{}\" could not be bound.", name.text()),
            ));
        }
        Err(SqlError::unknown_column(wanted))
    }

    fn converted(&self, value: Value, from: &SqlType, to: &SqlType) -> Result<Value, SqlError> {
        convert(value, from, to, &Manner { style: 0, collation: self.catalog.database.collation.clone() })
    }
}

/// Whether a source answers to the qualification of a column's name.
fn answers(source: &BoundSource, name: &Name) -> bool {
    match name.0.as_slice() {
        [_] => true,
        [.., schema, table, _] => {
            source.full.as_ref().is_some_and(|(own, object)| same(own, schema) && same(object, table))
        }
        [table, _] => same(&source.alias, table),
        [] => false,
    }
}

/// A whole number too great for `int` is a decimal to T-SQL; beside an integer it is better read as a bigint, so that
/// SQLite can use its index.
fn short_literal(bound: Bound, own: SqlType, other: &SqlType) -> (Bound, SqlType) {
    if let (Some(Value::Decimal { unscaled, scale: 0 }), true) = (&bound.constant, other.is_integer())
        && let Ok(number) = i64::try_from(*unscaled)
        && fits(*unscaled, 19)
    {
        return (Bound::constant(Value::Int(number), SqlType::BigInt), SqlType::BigInt);
    }
    (bound, own)
}
