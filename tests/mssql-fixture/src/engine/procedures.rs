//! EXEC: the few procedures of SQL Server's that clients call, and `fixture.…`, by which a test of another process
//! sets faults and looks at what happened.

use std::collections::HashMap;
use std::time::Duration;

use super::admin;
use super::ast::{Expression, Name};
use super::bind::Variable;
use super::catalog::{Catalog, same};
use super::convert::{Manner, convert};
use super::error::SqlError;
use super::faults::WireFaults;
use super::parse;
use super::run::Answer;
use super::session::{Halt, Session};
use crate::collation::Collation;
use crate::value::{Column, SqlType, Value};

const TEXT: SqlType = SqlType::NVarChar { length: None };

/// Arguments of a procedure, by place and by name.
struct Arguments(Vec<(Option<String>, Value)>);

impl Arguments {
    fn get(&self, at: usize, name: &str) -> Option<&Value> {
        let named =
            self.0.iter().find(|(own, _)| own.as_deref().is_some_and(|own| same(own.trim_start_matches('@'), name)));
        let placed = || self.0.get(at).filter(|(own, _)| own.is_none());
        named.or_else(placed).map(|(_, value)| value).filter(|value| !value.is_null())
    }

    fn text(&self, at: usize, name: &str) -> Option<String> {
        match self.get(at, name)? {
            Value::Text(text) => Some(text.clone()),
            Value::Int(number) => Some(number.to_string()),
            _ => None,
        }
    }

    fn number(&self, at: usize, name: &str) -> Option<i64> {
        match self.get(at, name)? {
            Value::Int(number) => Some(*number),
            Value::Bit(bit) => Some(i64::from(*bit)),
            Value::Text(text) if same(text, "on") => Some(1),
            Value::Text(text) if same(text, "off") => Some(0),
            Value::Text(text) => text.parse().ok(),
            Value::Decimal { unscaled, scale: 0 } => i64::try_from(*unscaled).ok(),
            _ => None,
        }
    }

    /// Whether a switch is to be on; without an argument it is.
    fn on(&self) -> bool {
        self.number(0, "on") != Some(0)
    }

    fn demanded_text(&self, at: usize, name: &str) -> Result<String, SqlError> {
        self.text(at, name).ok_or_else(|| missing(name))
    }

    fn demanded_number(&self, at: usize, name: &str) -> Result<i64, SqlError> {
        self.number(at, name).ok_or_else(|| missing(name))
    }
}

fn missing(name: &str) -> SqlError {
    SqlError::new(201, 16, format!("Procedure or function expects parameter '@{name}', which was not supplied."))
}

fn milliseconds(number: i64) -> Duration {
    Duration::from_millis(u64::try_from(number).unwrap_or(0))
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

impl Session {
    pub(super) fn execute(
        &mut self,
        name: &Name,
        arguments: &[(Option<String>, Expression)],
        answer: &mut Answer<'_>,
    ) -> Result<(), Halt> {
        let mut values = Vec::new();
        for (own, expression) in arguments {
            let value = self.value(expression, None)?;
            values.push((own.clone(), value));
        }
        self.end_statement(true)?;
        let arguments = Arguments(values);
        if name.schema().is_some_and(|schema| same(schema, "fixture")) {
            return self.fixture(&name.last().to_lowercase(), &arguments, answer);
        }
        match name.last().to_lowercase().as_str() {
            "sp_executesql" => self.execute_sql(&arguments, answer),
            "sp_rename" => self.rename_procedure(&arguments, answer),
            "sp_addrolemember" => {
                let (role, member) =
                    (arguments.demanded_text(0, "rolename")?, arguments.demanded_text(1, "membername")?);
                self.define(&super::ast::Kind::AddRoleMember { role, member })?;
                answer.done(None)?;
                Ok(())
            }
            "sp_set_session_context" | "sp_reset_connection" | "sp_updatestats" => {
                answer.done(None)?;
                Ok(())
            }
            _ => Err(SqlError::new(2812, 16, format!("Could not find stored procedure '{}'.", name.text())).into()),
        }
    }

    fn execute_sql(&mut self, arguments: &Arguments, answer: &mut Answer<'_>) -> Result<(), Halt> {
        let text = arguments.demanded_text(0, "stmt")?;
        let declared = match arguments.text(1, "params") {
            Some(declared) => parse::declarations(&declared)?,
            None => Vec::new(),
        };
        let mut variables = HashMap::new();
        for (at, (name, sql_type)) in declared.into_iter().enumerate() {
            let value = arguments.get(at + 2, name.trim_start_matches('@')).cloned().unwrap_or(Value::Null);
            let from = type_of(&value);
            let value = convert(value, &from, &sql_type, &Manner::default())?;
            variables.insert(name.to_lowercase(), Variable { sql_type, value });
        }
        self.nested(&text, variables, answer)
    }

    fn rename_procedure(&mut self, arguments: &Arguments, answer: &mut Answer<'_>) -> Result<(), Halt> {
        let old = parse::object_name(&arguments.demanded_text(0, "objname")?)?;
        let new = arguments.demanded_text(1, "newname")?;
        let kind = arguments.text(2, "objtype").unwrap_or_else(|| "OBJECT".to_owned());
        self.load_catalog()?;
        if !self.context.lock().catalog.is_owner(&self.login) {
            return Err(SqlError::new(15247, 16, "User does not have permission to perform this action.").into());
        }
        self.open_write()?;
        self.guarded(|session| {
            let current = std::sync::Arc::clone(&session.context.lock().catalog);
            let mut catalog = Catalog { version: session.shared.next_catalog(), ..(*current).clone() };
            session.rename(&mut catalog, &old, &new, &kind)?;
            session.put_in_force(catalog)
        })?;
        answer.done(None)?;
        Ok(())
    }

    fn fixture(&mut self, name: &str, arguments: &Arguments, answer: &mut Answer<'_>) -> Result<(), Halt> {
        let shared = std::sync::Arc::clone(&self.shared);
        let faults = shared.faults.clone();
        match name {
            "expire" => {
                let table = arguments.demanded_text(0, "table")?;
                admin::expire(&shared, &table, arguments.demanded_number(1, "version")?)?;
            }
            "backup" => {
                let version = admin::backup(&shared)?;
                answer.table(&[column("version", SqlType::BigInt)], &[vec![Value::Int(version)]])?;
                return Ok(());
            }
            "restore" => {
                admin::restore(&shared, arguments.demanded_number(0, "version")?)?;
            }
            "recreate" => admin::recreate(&shared, &arguments.demanded_text(0, "table")?)?,
            "read_only_secondary" => shared.set_secondary(arguments.on()),
            "unseen_deletes" => shared.set_unseen_deletes(arguments.on()),
            "fail" => {
                let contains = arguments.demanded_text(0, "contains")?;
                let after = arguments.number(1, "after_rows").unwrap_or(0);
                let number = arguments.demanded_number(2, "number")?;
                let times = arguments.number(3, "times").unwrap_or(1);
                let mut error = SqlError::known(i32::try_from(number).unwrap_or(50000));
                if let Some(message) = arguments.text(4, "message") {
                    error.message = message;
                }
                if let Some(class) = arguments.number(5, "class") {
                    error.class = u8::try_from(class).unwrap_or(16);
                }
                faults.fail(&contains, count(after), error, u32::try_from(times).unwrap_or(u32::MAX));
            }
            "hold" => faults.hold_for_the_wire(&arguments.demanded_text(0, "contains")?),
            "release" => {
                faults.open_gates(&arguments.text(0, "contains").unwrap_or_default());
                faults.release();
            }
            "clear" => {
                shared.set_secondary(false);
                faults.clear();
            }
            "statements" => return self.seen(answer),
            "forget_statements" => faults.forget_statements(),
            "connections" => {
                let open = i64::try_from(faults.connections()).unwrap_or(i64::MAX);
                answer.table(&[column("connections", SqlType::Int)], &[vec![Value::Int(open)]])?;
                return Ok(());
            }
            _ => {
                let mut refused = None;
                faults.set_wire(|wire| refused = wire_fault(wire, name, arguments).err());
                if let Some(error) = refused {
                    return Err(error.into());
                }
            }
        }
        answer.done(None)?;
        Ok(())
    }

    /// The log of statements as a result set.
    fn seen(&self, answer: &mut Answer<'_>) -> Result<(), Halt> {
        let columns = [
            column("session", SqlType::Int),
            column("login", TEXT),
            column("isolation", TEXT),
            column("in_transaction", SqlType::Bit),
            column("text", TEXT),
        ];
        let rows: Vec<_> = self
            .shared
            .faults
            .statements()
            .into_iter()
            .map(|seen| {
                vec![
                    Value::Int(i64::from(seen.session)),
                    Value::Text(seen.login),
                    Value::Text(format!("{:?}", seen.isolation)),
                    Value::Bit(seen.in_transaction),
                    Value::Text(seen.text),
                ]
            })
            .collect();
        answer.table(&columns, &rows)?;
        Ok(())
    }
}

fn column(name: &str, sql_type: SqlType) -> Column {
    Column::new(name, sql_type, Collation::default())
}

/// Sets a fault of the wire by its name.
fn wire_fault(wire: &mut WireFaults, name: &str, arguments: &Arguments) -> Result<(), SqlError> {
    match name {
        "cut" => wire.cut = Some(count(arguments.demanded_number(0, "after_bytes")?)),
        "stall" => {
            wire.stall = Some(super::faults::Stall {
                after_bytes: count(arguments.demanded_number(0, "after_bytes")?),
                duration: arguments.number(1, "milliseconds").map(milliseconds),
            });
        }
        "split_packets" => wire.split_packets = arguments.on(),
        "slow_attention" => wire.slow_attention = arguments.number(0, "milliseconds").map(milliseconds),
        "routing" => {
            let port = arguments.number(1, "port").and_then(|port| u16::try_from(port).ok());
            wire.routing = arguments.text(0, "host").zip(port);
        }
        "login_failure" => {
            wire.login_failure = arguments.number(0, "number").and_then(|number| i32::try_from(number).ok());
        }
        _ => return Err(SqlError::new(2812, 16, format!("Could not find stored procedure 'fixture.{name}'."))),
    }
    Ok(())
}

/// The type a literal argument has.
fn type_of(value: &Value) -> SqlType {
    match value {
        Value::Null | Value::Int(_) => SqlType::BigInt,
        Value::Bit(_) => SqlType::Bit,
        Value::Real(_) => SqlType::Real,
        Value::Float(_) => SqlType::Float,
        Value::Decimal { scale, .. } => SqlType::Decimal { precision: 38, scale: *scale },
        Value::Money(_) => SqlType::Money,
        Value::Text(_) => TEXT,
        Value::Bytes(_) => SqlType::VarBinary { length: None },
        Value::Guid(_) => SqlType::UniqueIdentifier,
        Value::Date(_) => SqlType::Date,
        Value::Time(_) => SqlType::Time { scale: 7 },
        Value::DateTime { .. } => SqlType::DateTime,
        Value::SmallDateTime { .. } => SqlType::SmallDateTime,
        Value::DateTime2 { .. } => SqlType::DateTime2 { scale: 7 },
        Value::DateTimeOffset { .. } => SqlType::DateTimeOffset { scale: 7 },
    }
}
