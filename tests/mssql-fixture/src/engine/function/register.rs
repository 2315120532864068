//! Makes the functions, aggregates and collations known to a SQLite connection.

use rusqlite::functions::{Aggregate, Context as Arguments, FunctionFlags};
use rusqlite::types::{Value as Stored, ValueRef};
use rusqlite::{Connection, Error};

use super::{SharedContext, evaluate};
use crate::collation::Collation;
use crate::engine::error::SqlError;
use crate::engine::storage::{OFFSET_COLLATION, load, store};
use crate::value::{SqlType, Value};

/// Registers everything on one connection.
pub(crate) fn register(connection: &Connection, context: &SharedContext) -> rusqlite::Result<()> {
    let plain = FunctionFlags::SQLITE_UTF8;
    for (name, flags) in [("fx", plain | FunctionFlags::SQLITE_DETERMINISTIC), ("fxv", plain)] {
        let context = context.clone();
        connection.create_scalar_function(name, -1, flags, move |arguments| call(arguments, &context))?;
    }
    let for_switch = context.clone();
    connection.create_scalar_function("fx_on", 0, plain, move |_| Ok(for_switch.lock().tracking))?;
    let for_context = context.clone();
    connection
        .create_scalar_function("fx_context", 0, plain, move |_| Ok(for_context.lock().change_context.clone()))?;
    let for_sum = context.clone();
    connection.create_aggregate_function("fx_sum", 1, plain, Sum(for_sum))?;
    connection.create_collation(OFFSET_COLLATION, |left, right| left.get(..16).cmp(&right.get(..16)))?;
    connection.collation_needed(|connection, name| match Collation::parse(name) {
        Some(collation) => connection.create_collation(name, move |left, right| collation.compare(left, right)),
        None => Ok(()),
    })
}

fn failed(context: &SharedContext, error: SqlError) -> Error {
    let text = error.to_string();
    context.lock().error = Some(error);
    Error::UserFunctionError(text.into())
}

fn call(arguments: &Arguments<'_>, context: &SharedContext) -> rusqlite::Result<Stored> {
    let number: i64 = arguments.get(0)?;
    let call = usize::try_from(number).ok().and_then(|number| context.lock().calls.get(number).cloned());
    let Some(call) = call else {
        return Err(failed(context, SqlError::internal("a function call nobody made")));
    };
    let values =
        call.arguments.iter().enumerate().map(|(at, sql_type)| load(arguments.get_raw(at + 1), sql_type)).collect();
    evaluate(&call, values, context).map(|value| store(&value)).map_err(|error| failed(context, error))
}

/// SUM over decimals.
struct Sum(SharedContext);

/// SUM's state: nothing before the first number.
type Total = Option<i128>;

impl Aggregate<Total, Stored> for Sum {
    fn init(&self, _: &mut Arguments<'_>) -> rusqlite::Result<Total> {
        Ok(None)
    }

    fn step(&self, arguments: &mut Arguments<'_>, total: &mut Total) -> rusqlite::Result<()> {
        let stored = arguments.get_raw(0);
        if matches!(stored, ValueRef::Null) {
            return Ok(());
        }
        if let Value::Decimal { unscaled, .. } = load(stored, &SqlType::Decimal { precision: 38, scale: 0 }) {
            let sum = total.unwrap_or(0).checked_add(unscaled).ok_or_else(|| {
                failed(
                    &self.0,
                    SqlError::new(8115, 16, "Arithmetic overflow error converting expression to data type numeric."),
                )
            })?;
            *total = Some(sum);
        }
        Ok(())
    }

    fn finalize(&self, _: &mut Arguments<'_>, total: Option<Total>) -> rusqlite::Result<Stored> {
        Ok(total.flatten().map_or(Stored::Null, |unscaled| store(&Value::Decimal { unscaled, scale: 0 })))
    }
}
