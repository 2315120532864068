//! What T-SQL's scalar functions do, on values. SQLite calls them by number: the binder interns every call with the
//! types of its arguments, so that nothing of a type has to pass through SQLite.

mod arithmetic;
mod metadata;
mod moment;
mod register;
mod text;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use metadata::DATABASE_ID;
pub(crate) use register::register;

use super::Shared;
use super::ast::Operator;
use super::catalog::Catalog;
use super::convert::{Manner, convert, too_long};
use super::error::SqlError;
use crate::collation::Collation;
use crate::value::{SqlType, Value};

/// What a call does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Function {
    /// CAST, CONVERT and the TRY_ forms, which give NULL instead of an error.
    Cast {
        style: i32,
        tolerant: bool,
    },
    /// CONVERT whose style is an argument.
    CastStyled,
    /// Putting a value into a column: longer text is an error, and so is NULL where it must not be.
    Assign {
        table: String,
        column: String,
        not_null: bool,
    },
    /// `+ - * / %` and the bit operators.
    Arithmetic(Operator),
    Negate,
    BitNot,
    Like,
    /// The next number of a table's identity column.
    NextIdentity(i32),
    /// The next rowversion.
    NextRowVersion,
    /// Any function of T-SQL's, by name.
    Named(String),
}

/// A function with the types it is called with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Call {
    pub(crate) function: Function,
    pub(crate) arguments: Vec<SqlType>,
    pub(crate) result: SqlType,
    pub(crate) collation: Collation,
}

/// What a session's functions know: the catalogue in force, who asks, and what DML has left behind.
pub(crate) struct Context {
    pub(crate) shared: Arc<Shared>,
    pub(crate) login: String,
    pub(crate) spid: u16,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) change_context: Option<Vec<u8>>,
    /// Whether the triggers of Change Tracking note what they see.
    pub(crate) tracking: bool,
    /// The error of the function that failed last; SQLite itself carries only text.
    pub(crate) error: Option<SqlError>,
    pub(crate) last_identity: Option<i64>,
    /// The moment the statement began, so that GETDATE() is one value in it.
    pub(crate) started: super::convert::Moment,
    calls: Vec<Arc<Call>>,
    numbers: HashMap<Call, usize>,
}

/// A context that functions and the session share.
#[derive(Clone)]
pub(crate) struct SharedContext(Arc<Mutex<Context>>);

impl SharedContext {
    pub(crate) fn new(shared: Arc<Shared>, login: &str, spid: u16, catalog: Arc<Catalog>) -> Self {
        Self(Arc::new(Mutex::new(Context {
            shared,
            login: login.to_owned(),
            spid,
            catalog,
            change_context: None,
            tracking: true,
            error: None,
            last_identity: None,
            started: super::convert::now(),
            calls: Vec::new(),
            numbers: HashMap::new(),
        })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Context> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a call; the same call has the same number.
    pub(crate) fn intern(&self, call: Call) -> usize {
        let mut context = self.lock();
        if let Some(number) = context.numbers.get(&call) {
            return *number;
        }
        let number = context.calls.len();
        context.calls.push(Arc::new(call.clone()));
        context.numbers.insert(call, number);
        number
    }

    /// Evaluates a call at once, for constants.
    pub(crate) fn evaluate(&self, call: &Call, values: Vec<Value>) -> Result<Value, SqlError> {
        evaluate(call, values, self)
    }
}

/// Functions whose result may differ from call to call, or that change something.
pub(crate) fn is_volatile(function: &Function) -> bool {
    match function {
        Function::NextIdentity(_) | Function::NextRowVersion => true,
        Function::Named(name) => matches!(
            name.as_str(),
            "NEWID" | "NEWSEQUENTIALID" | "RAND" | "MIN_ACTIVE_ROWVERSION" | "@@DBTS" | "@@IDENTITY" | "SCOPE_IDENTITY"
        ),
        _ => false,
    }
}

/// Evaluates a call.
fn evaluate(call: &Call, mut values: Vec<Value>, context: &SharedContext) -> Result<Value, SqlError> {
    let manner = |style| Manner { style, collation: call.collation.clone() };
    let from = call.arguments.first().unwrap_or(&call.result);
    match &call.function {
        Function::Cast { style, tolerant } => {
            let converted = convert(first(&mut values), from, &call.result, &manner(*style));
            if *tolerant { Ok(converted.unwrap_or(Value::Null)) } else { converted }
        }
        Function::CastStyled => {
            let style = match values.get(1) {
                Some(Value::Int(style)) => i32::try_from(*style).unwrap_or(0),
                _ => return Ok(Value::Null),
            };
            convert(first(&mut values), from, &call.result, &manner(style))
        }
        Function::Assign { table, column, not_null } => {
            let value = first(&mut values);
            if value.is_null() {
                return if *not_null { Err(not_nullable(table, column)) } else { Ok(Value::Null) };
            }
            assign(value, from, &call.result, &manner(0), table, column)
        }
        Function::Arithmetic(operator) => arithmetic::operate(*operator, &values, &call.result),
        Function::Negate => arithmetic::negate(&first(&mut values), &call.result),
        Function::BitNot => Ok(match first(&mut values) {
            Value::Int(number) => Value::Int(!number),
            Value::Bit(bit) => Value::Bit(!bit),
            _ => Value::Null,
        }),
        Function::Like => Ok(text::like(&values, &call.collation)),
        Function::NextIdentity(table) => {
            let mut context = context.lock();
            let next = context.shared.next_identity(*table);
            context.last_identity = Some(next);
            Ok(Value::Int(next))
        }
        Function::NextRowVersion => {
            let context = context.lock();
            Ok(Value::Bytes(context.shared.next_row_version(context.spid).to_be_bytes().to_vec()))
        }
        Function::Named(name) => named(name, call, values, context),
    }
}

fn named(name: &str, call: &Call, values: Vec<Value>, context: &SharedContext) -> Result<Value, SqlError> {
    if let Some(value) = text::call(name, call, &values)? {
        return Ok(value);
    }
    if let Some(value) = moment::call(name, call, &values, context)? {
        return Ok(value);
    }
    if let Some(value) = arithmetic::call(name, call, &values)? {
        return Ok(value);
    }
    metadata::call(name, &values, context)
}

fn first(values: &mut Vec<Value>) -> Value {
    if values.is_empty() { Value::Null } else { values.swap_remove(0) }
}

fn not_nullable(table: &str, column: &str) -> SqlError {
    SqlError {
        state: 2,
        ..SqlError::new(
            515,
            16,
            format!(
                "Cannot insert the value NULL into column '{column}', table '{table}'; column does not allow nulls. INSERT \
             or UPDATE fails."
            ),
        )
    }
}

/// Converts a value for a column, and refuses what the column cannot hold.
pub(crate) fn assign(
    value: Value,
    from: &SqlType,
    to: &SqlType,
    manner: &Manner,
    table: &str,
    column: &str,
) -> Result<Value, SqlError> {
    if (from.is_text() || from.is_binary()) && too_long(&value, to, &manner.collation) {
        let shown = match &value {
            Value::Text(text) => text.chars().take(50).collect(),
            _ => String::new(),
        };
        return Err(SqlError::new(
            2628,
            16,
            format!(
                "String or binary data would be truncated in table '{table}', column '{column}'. Truncated value: \
                 '{shown}'."
            ),
        ));
    }
    convert(value, from, to, manner)
}
