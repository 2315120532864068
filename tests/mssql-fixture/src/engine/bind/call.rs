//! Binds function calls: aggregates and window functions become SQLite's, everything else a call of ours.

use super::{Binder, Bound, Sorting, kind};
use crate::engine::ast::{Call, Expression, Order};
use crate::engine::error::SqlError;
use crate::engine::function::{self, Function};
use crate::value::{SqlType, Value};

const NAME_LENGTH: SqlType = SqlType::NVarChar { length: Some(128) };
const LONG: SqlType = SqlType::NVarChar { length: None };

/// What the arguments of a function are brought to, and what it gives.
struct Signature {
    /// The type of each argument; the last one holds for all that follow. `None` leaves an argument as it is.
    arguments: &'static [Option<SqlType>],
    result: SqlType,
}

impl Binder<'_> {
    pub(super) fn function(&mut self, call: &Call) -> Result<Bound, SqlError> {
        if call.over.is_some() || is_aggregate(&call.name) {
            return self.aggregate(call);
        }
        match (call.name.as_str(), call.arguments.as_slice()) {
            ("ISNULL", [value, other]) => {
                let value = self.expression(value)?;
                let other = self.expression(other)?;
                let target = value.sql_type.clone().unwrap_or_else(|| other.kind());
                let other = self.cast(other, &target, 0, false)?;
                let nullable = value.nullable && other.nullable;
                let sql = format!("ifnull({}, {})", value.sql, other.sql);
                Ok(Bound { nullable, sorting: value.sorting, ..Bound::of(sql, target) })
            }
            ("COALESCE", [_, _, ..]) => {
                let all = call.arguments.iter().map(|one| self.expression(one)).collect::<Result<Vec<_>, _>>()?;
                let (all, sql_type, sorting) = self.same_type(all)?;
                let list: Vec<_> = all.iter().map(|one| one.sql.as_str()).collect();
                let nullable = all.iter().all(|one| one.nullable);
                Ok(Bound { nullable, sorting, ..Bound::of(format!("coalesce({})", list.join(", ")), sql_type) })
            }
            ("NULLIF", [left, right]) => {
                let equal = self.condition(&Expression::Operation {
                    operator: crate::engine::ast::Operator::Equal,
                    left: Box::new(left.clone()),
                    right: Box::new(right.clone()),
                })?;
                let left = self.expression(left)?;
                let sql = format!("(CASE WHEN {equal} THEN NULL ELSE {} END)", left.sql);
                Ok(Bound { sorting: left.sorting.clone(), ..Bound::of(sql, left.kind()) })
            }
            ("CHANGE_TRACKING_CURRENT_VERSION", []) => self.current_version(),
            ("CHANGE_TRACKING_MIN_VALID_VERSION", [table]) => self.min_valid_version(table),
            _ => self.scalar_function(call),
        }
    }

    fn scalar_function(&mut self, call: &Call) -> Result<Bound, SqlError> {
        let mut arguments = call.arguments.iter().map(|one| self.expression(one)).collect::<Result<Vec<_>, _>>()?;
        let signature = self.signature(&call.name, &arguments)?;
        for (at, argument) in arguments.iter_mut().enumerate() {
            let wanted = signature.arguments.get(at).or(signature.arguments.last()).cloned().flatten();
            if let Some(wanted) = wanted {
                let free_text = wanted == LONG && argument.sql_type.as_ref().is_some_and(SqlType::is_text);
                if !free_text {
                    *argument = self.cast(argument.clone(), &wanted, 0, false)?;
                }
            }
        }
        self.named(&call.name, signature.result, arguments)
    }

    /// A call of a function of ours by name.
    pub(super) fn named(&mut self, name: &str, result: SqlType, arguments: Vec<Bound>) -> Result<Bound, SqlError> {
        let types = arguments.iter().map(Bound::kind).collect();
        let collation = arguments
            .first()
            .map_or_else(|| self.catalog.database.collation.clone(), |argument| self.collation_of(argument));
        let function = Function::Named(name.to_owned());
        let bound = self.call(function::Call { function, arguments: types, result, collation }, &arguments)?;
        Ok(Bound { nullable: true, ..bound })
    }

    fn signature(&self, name: &str, arguments: &[Bound]) -> Result<Signature, SqlError> {
        let first = || arguments.first().map_or(SqlType::Int, Bound::kind);
        let text_of_first = || match first() {
            sql_type if sql_type.is_binary() => SqlType::VarBinary { length: Some(8000) },
            sql_type if sql_type.is_code_page_text() => match sql_type {
                SqlType::Char { length } => SqlType::VarChar { length: Some(length) },
                other => other,
            },
            SqlType::NVarChar { length } => SqlType::NVarChar { length },
            SqlType::NChar { length } => SqlType::NVarChar { length: Some(length) },
            _ => SqlType::NVarChar { length: Some(4000) },
        };
        let number = |sql_type: SqlType| match sql_type {
            SqlType::TinyInt | SqlType::SmallInt => SqlType::Int,
            SqlType::Real => SqlType::Float,
            sql_type if kind::as_decimal(&sql_type).is_some() => sql_type,
            _ => SqlType::Float,
        };
        const ANY: &[Option<SqlType>] = &[None];
        const TEXT: &[Option<SqlType>] = &[Some(LONG)];
        const TEXT_NUMBERS: &[Option<SqlType>] = &[Some(LONG), Some(SqlType::BigInt)];
        const NUMBER: &[Option<SqlType>] = &[Some(SqlType::BigInt)];
        let binary_first = first().is_binary();
        let (arguments, result): (&'static [Option<SqlType>], SqlType) = match name {
            "LEN" if binary_first => (ANY, SqlType::Int),
            "SUBSTRING" | "LEFT" | "RIGHT" if binary_first => (&[None, Some(SqlType::BigInt)], text_of_first()),
            "LEN" | "ASCII" | "UNICODE" => (TEXT, SqlType::Int),
            "DATALENGTH" => {
                let big = matches!(
                    first(),
                    SqlType::VarChar { length: None }
                        | SqlType::NVarChar { length: None }
                        | SqlType::VarBinary { length: None }
                        | SqlType::Text
                        | SqlType::NText
                        | SqlType::Image
                        | SqlType::Xml
                );
                (ANY, if big { SqlType::BigInt } else { SqlType::Int })
            }
            "UPPER" | "LOWER" | "LTRIM" | "RTRIM" | "TRIM" | "REVERSE" => (TEXT, text_of_first()),
            "SUBSTRING" | "LEFT" | "RIGHT" => (TEXT_NUMBERS, text_of_first()),
            "REPLICATE" => (TEXT_NUMBERS, SqlType::NVarChar { length: None }),
            "REPLACE" => (TEXT, SqlType::NVarChar { length: Some(4000) }),
            "STUFF" => (
                &[Some(LONG), Some(SqlType::BigInt), Some(SqlType::BigInt), Some(LONG)],
                SqlType::NVarChar { length: Some(4000) },
            ),
            "CHARINDEX" => (&[Some(LONG), Some(LONG), Some(SqlType::BigInt)], SqlType::Int),
            "CONCAT" | "CONCAT_WS" => (TEXT, SqlType::NVarChar { length: Some(4000) }),
            "QUOTENAME" => (TEXT, SqlType::NVarChar { length: Some(258) }),
            "SPACE" => (NUMBER, SqlType::VarChar { length: Some(8000) }),
            "CHAR" => (NUMBER, SqlType::Char { length: 1 }),
            "NCHAR" => (NUMBER, SqlType::NChar { length: 1 }),
            "ABS" | "SIGN" | "FLOOR" | "CEILING" => (ANY, number(first())),
            "ROUND" => (&[None, Some(SqlType::BigInt)], number(first())),
            "POWER" | "SQRT" => (&[Some(SqlType::Float)], number(first())),
            "RAND" => (ANY, SqlType::Float),
            "GETDATE" | "GETUTCDATE" => (ANY, SqlType::DateTime),
            "SYSUTCDATETIME" | "SYSDATETIME" => (ANY, SqlType::DateTime2 { scale: 7 }),
            "SYSDATETIMEOFFSET" => (ANY, SqlType::DateTimeOffset { scale: 7 }),
            "YEAR" | "MONTH" | "DAY" => {
                (moment_argument(arguments.first(), &[Some(SqlType::DateTime2 { scale: 7 })]), SqlType::Int)
            }
            "DATEPART" => {
                (moment_argument(arguments.get(1), &[Some(LONG), Some(SqlType::DateTime2 { scale: 7 })]), SqlType::Int)
            }
            "DATEDIFF" => (&[Some(LONG), Some(SqlType::DateTime2 { scale: 7 })], SqlType::Int),
            "DATEDIFF_BIG" => (&[Some(LONG), Some(SqlType::DateTime2 { scale: 7 })], SqlType::BigInt),
            "DATEADD" => {
                let result = arguments.get(2).map_or(SqlType::DateTime, Bound::kind);
                let result = if result.is_text() || result.is_integer() { SqlType::DateTime } else { result };
                (&[Some(LONG), Some(SqlType::BigInt), None], result)
            }
            "EOMONTH" => (&[Some(SqlType::DateTime2 { scale: 7 })], SqlType::Date),
            "DATEFROMPARTS" => (NUMBER, SqlType::Date),
            "FX_WKB" => (TEXT, SqlType::VarBinary { length: None }),
            "NEWID" | "NEWSEQUENTIALID" => (ANY, SqlType::UniqueIdentifier),
            "MIN_ACTIVE_ROWVERSION" => (ANY, SqlType::Binary { length: 8 }),
            "SCOPE_IDENTITY" => (ANY, SqlType::Decimal { precision: 38, scale: 0 }),
            "SERVERPROPERTY" | "SQL_VARIANT_PROPERTY" | "DATABASEPROPERTYEX" | "COLLATIONPROPERTY" => {
                (TEXT, SqlType::Variant)
            }
            "OBJECT_ID" | "DB_ID" | "SCHEMA_ID" | "HAS_PERMS_BY_NAME" | "IS_MEMBER" | "IS_ROLEMEMBER"
            | "IS_SRVROLEMEMBER" => (TEXT, SqlType::Int),
            "TYPE_NAME" | "DB_NAME" | "ORIGINAL_DB_NAME" | "OBJECT_NAME" | "OBJECT_SCHEMA_NAME" | "SCHEMA_NAME" => {
                (NUMBER, NAME_LENGTH)
            }
            "SUSER_SNAME" | "SUSER_NAME" | "ORIGINAL_LOGIN" | "USER_NAME" | "HOST_NAME" | "APP_NAME" => {
                (ANY, NAME_LENGTH)
            }
            _ => {
                return Err(SqlError::new(195, 15, format!("'{name}' is not a recognized built-in function name.")));
            }
        };
        Ok(Signature { arguments, result })
    }

    /// `@@ROWCOUNT` and its like.
    pub(super) fn global(&mut self, name: &str) -> Result<Bound, SqlError> {
        let globals = self.globals;
        let number = |number: i64| Ok(Bound::constant(Value::Int(number), SqlType::Int));
        let text = |text: String| Ok(Bound::constant(Value::Text(text), SqlType::NVarChar { length: Some(300) }));
        let upper = name.to_ascii_uppercase();
        match upper.as_str() {
            "@@ROWCOUNT" => number(globals.row_count),
            "@@TRANCOUNT" => number(globals.depth),
            "@@SPID" => Ok(Bound::constant(Value::Int(i64::from(globals.spid)), SqlType::SmallInt)),
            "@@ERROR" => number(i64::from(globals.error)),
            "@@LOCK_TIMEOUT" => number(globals.lock_timeout),
            "@@FETCH_STATUS" => number(-1),
            "@@MAX_PRECISION" => Ok(Bound::constant(Value::Int(38), SqlType::TinyInt)),
            "@@OPTIONS" => number(5496),
            "@@MICROSOFTVERSION" => number(0x1000_1027),
            "@@SERVERNAME" | "@@SERVICENAME" => text("MSSQL-FIXTURE".to_owned()),
            "@@LANGUAGE" => text("us_english".to_owned()),
            "@@VERSION" => {
                let options = self.context.lock().shared.options.clone();
                text(format!("Microsoft SQL Server (mssql-fixture) - {} {}", options.product_version, options.edition))
            }
            "@@DBTS" => self.named("@@DBTS", SqlType::VarBinary { length: Some(8) }, Vec::new()),
            "@@IDENTITY" => self.named("@@IDENTITY", SqlType::Decimal { precision: 38, scale: 0 }, Vec::new()),
            _ => Err(SqlError::new(137, 15, format!("Must declare the scalar variable \"{name}\"."))),
        }
    }

    fn aggregate(&mut self, call: &Call) -> Result<Bound, SqlError> {
        let over = match &call.over {
            Some(window) => Some(self.window(&window.partition, &window.order)?),
            None => None,
        };
        let closed = |sql: String| match &over {
            Some(over) => format!("{sql} OVER ({over})"),
            None => sql,
        };
        if call.star {
            let sql_type = if call.name == "COUNT_BIG" { SqlType::BigInt } else { SqlType::Int };
            return Ok(Bound { nullable: false, ..Bound::of(closed("count(*)".to_owned()), sql_type) });
        }
        let arguments = call.arguments.iter().map(|one| self.expression(one)).collect::<Result<Vec<_>, _>>()?;
        let ranking = matches!(call.name.as_str(), "ROW_NUMBER" | "NTILE" | "RANK" | "DENSE_RANK");
        if ranking {
            let list: Vec<_> = arguments.iter().map(|argument| argument.sql.as_str()).collect();
            let sql = format!("{}({})", call.name.to_lowercase(), list.join(", "));
            return Ok(Bound { nullable: false, ..Bound::of(closed(sql), SqlType::BigInt) });
        }
        let Some(first) = arguments.into_iter().next() else {
            return Err(SqlError::new(
                174,
                15,
                format!("The {} function requires arguments.", call.name.to_lowercase()),
            ));
        };
        self.aggregate_of(call, first, &closed)
    }

    fn aggregate_of(
        &mut self,
        call: &Call,
        first: Bound,
        closed: &dyn Fn(String) -> String,
    ) -> Result<Bound, SqlError> {
        let distinct = if call.distinct { "DISTINCT " } else { "" };
        let collate = self.sorted(&first.kind(), &first.sorting)?;
        let sorting = first.sorting.clone();
        let simple = |function: &str| closed(format!("{function}({distinct}{}{collate})", first.sql));
        match call.name.as_str() {
            "COUNT" => Ok(Bound { nullable: false, ..Bound::of(simple("count"), SqlType::Int) }),
            "COUNT_BIG" => Ok(Bound { nullable: false, ..Bound::of(simple("count"), SqlType::BigInt) }),
            "MIN" | "MAX" | "LAG" | "LEAD" | "FIRST_VALUE" | "LAST_VALUE" => {
                let sql = simple(&call.name.to_lowercase());
                Ok(Bound { sorting, ..Bound::of(sql, first.kind()) })
            }
            "STRING_AGG" => {
                let separator = match call.arguments.get(1) {
                    Some(separator) => self.expression(separator)?.sql,
                    None => "''".to_owned(),
                };
                let first = self.as_text(first)?;
                Ok(Bound { sorting, ..Bound::of(format!("group_concat({}, {separator})", first.sql), LONG) })
            }
            _ => {
                let total = match first.kind() {
                    SqlType::TinyInt | SqlType::SmallInt | SqlType::Int => SqlType::Int,
                    SqlType::BigInt => SqlType::BigInt,
                    SqlType::Money | SqlType::SmallMoney => SqlType::Money,
                    SqlType::Real | SqlType::Float => SqlType::Float,
                    SqlType::Decimal { scale, .. } => SqlType::Decimal { precision: 38, scale },
                    other => {
                        let name = crate::engine::convert::type_name(&other);
                        let message = format!("Operand data type {name} is invalid for sum operator.");
                        return Err(SqlError::new(8117, 16, message));
                    }
                };
                let sum = if matches!(total, SqlType::Decimal { .. }) { "fx_sum" } else { "sum" };
                let sum = Bound::of(simple(sum), total.clone());
                if call.name == "SUM" {
                    // An int total that grows too great is an error, as in SQL Server.
                    return if total == SqlType::Int { self.checked_total(sum) } else { Ok(sum) };
                }
                let count = Bound::of(simple("count"), SqlType::BigInt);
                let quotient = match &total {
                    SqlType::Decimal { scale, .. } => SqlType::Decimal { precision: 38, scale: (*scale).max(6) },
                    other => other.clone(),
                };
                let count =
                    if matches!(total, SqlType::Decimal { .. }) { count } else { self.cast(count, &total, 0, false)? };
                let function = Function::Arithmetic(crate::engine::ast::Operator::Divide);
                let collation = self.catalog.database.collation.clone();
                let arguments = vec![total, count.kind()];
                // Nothing averages to NULL: the total is NULL then, before the division by nothing is looked at.
                self.call(function::Call { function, arguments, result: quotient, collation }, &[sum, count])
            }
        }
    }

    fn checked_total(&mut self, sum: Bound) -> Result<Bound, SqlError> {
        let wide = Bound { sql_type: Some(SqlType::BigInt), ..sum };
        self.cast(wide, &SqlType::Int, 0, false)
    }

    fn window(&mut self, partition: &[Expression], order: &[Order]) -> Result<String, SqlError> {
        let mut sql = String::new();
        for (at, expression) in partition.iter().enumerate() {
            let bound = self.expression(expression)?;
            let collate = self.sorted(&bound.kind(), &bound.sorting)?;
            sql.push_str(if at == 0 { "PARTITION BY " } else { ", " });
            sql.push_str(&format!("{}{collate}", bound.sql));
        }
        for (at, order) in order.iter().enumerate() {
            // `ORDER BY (SELECT NULL)` means any order.
            let bound = self.expression(&order.expression)?;
            let collate = self.sorted(&bound.kind(), &bound.sorting)?;
            sql.push_str(if at == 0 { " ORDER BY " } else { ", " });
            sql.push_str(&format!("{}{collate}{}", bound.sql, if order.descending { " DESC" } else { "" }));
        }
        Ok(sql)
    }

    /// A bound value of a type, without anything of a table.
    pub(super) fn typed(sql: impl Into<String>, sql_type: SqlType) -> Bound {
        Bound { sorting: Sorting::Default, ..Bound::of(sql, sql_type) }
    }
}

/// Dates and times are taken as they are; text is read as a datetime2.
fn moment_argument(argument: Option<&Bound>, otherwise: &'static [Option<SqlType>]) -> &'static [Option<SqlType>] {
    let Some(argument) = argument else { return otherwise };
    let kind = argument.kind();
    if kind.is_text() || kind.is_integer() {
        otherwise
    } else if otherwise.len() == 1 {
        &[None]
    } else {
        &[Some(LONG), None]
    }
}

fn is_aggregate(name: &str) -> bool {
    matches!(name, "COUNT" | "COUNT_BIG" | "MIN" | "MAX" | "SUM" | "AVG" | "STRING_AGG")
}
