//! Procedure calls: what RPC messages say (MS-TDS 2.2.6.6) and what the procedures that drivers use mean.

use std::collections::HashMap;

use super::cursor::{Cursor, DecodeError};
use super::decode::WireType;
use super::reply::Reply;
use super::requests::Requests;
use crate::engine::{Output, Parameter, SqlError, Stop};
use crate::value::{Collation, Column, SqlType, Value};

/// One call of a message; a message may hold several.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    procedure: Procedure,
    arguments: Vec<Argument>,
}

/// The procedure called.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Procedure {
    ExecuteSql,
    Prepare,
    Execute,
    PrepareAndExecute,
    Unprepare,
    ResetConnection,
    /// One of the cursor procedures, which this server has not.
    Cursor(String),
    /// Any other, by its name: the engine decides.
    Named(String),
}

/// One argument.
#[derive(Debug, Clone, PartialEq)]
struct Argument {
    output: bool,
    /// The caller asks for the procedure's own default value.
    default: bool,
    parameter: Parameter,
}

/// A statement that the client has prepared.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    statement: String,
    names: Vec<String>,
}

/// The statements that the client has prepared, by handle.
#[derive(Debug, Default)]
pub(crate) struct PreparedStatements {
    statements: HashMap<i64, Prepared>,
    last: i64,
}

impl PreparedStatements {
    /// Forgets all, as the reset of a connection does.
    pub(crate) fn clear(&mut self) {
        self.statements.clear();
    }

    fn add(&mut self, prepared: Prepared) -> i64 {
        self.last += 1;
        self.statements.insert(self.last, prepared);
        self.last
    }

    fn get(&self, handle: &Value) -> Result<Prepared, SqlError> {
        let known = if let Value::Int(number) = handle { self.statements.get(number) } else { None };
        known.cloned().ok_or_else(|| unknown_handle(handle))
    }
}

fn unknown_handle(handle: &Value) -> SqlError {
    let number = if let Value::Int(number) = handle { *number } else { 0 };
    SqlError::new(8179, 16, format!("Could not find prepared statement with handle {number}."))
}

impl Procedure {
    fn numbered(number: u16) -> Result<Self, DecodeError> {
        Ok(match number {
            1..=9 => Self::Cursor(format!("sp_cursor procedure {number}")),
            10 => Self::ExecuteSql,
            11 => Self::Prepare,
            12 => Self::Execute,
            13 => Self::PrepareAndExecute,
            15 => Self::Unprepare,
            other => return Err(DecodeError::malformed(format!("procedure number {other} is not known"))),
        })
    }

    fn named(name: String) -> Self {
        let lower = name.to_ascii_lowercase().replace(['[', ']'], "");
        match lower.rsplit('.').next().unwrap_or_default() {
            "sp_executesql" => Self::ExecuteSql,
            "sp_prepare" => Self::Prepare,
            "sp_execute" => Self::Execute,
            "sp_prepexec" => Self::PrepareAndExecute,
            "sp_unprepare" => Self::Unprepare,
            "sp_reset_connection" => Self::ResetConnection,
            cursor if cursor.starts_with("sp_cursor") => Self::Cursor(name),
            _ => Self::Named(name),
        }
    }
}

/// Reads all calls of an RPC message, behind its ALL_HEADERS.
pub(crate) fn read_calls(input: &mut Cursor<'_>) -> Result<Vec<Call>, DecodeError> {
    /// In place of a name's length: the number of a well-known procedure follows.
    const BY_NUMBER: u16 = 0xFFFF;
    let mut calls = Vec::new();
    while !input.is_empty() {
        let procedure = match input.u16()? {
            BY_NUMBER => Procedure::numbered(input.u16()?)?,
            units => Procedure::named(super::cursor::utf16(input.bytes(usize::from(units) * 2)?)),
        };
        let _options = input.u16()?;
        let mut arguments = Vec::new();
        while !input.is_empty() {
            if is_separator(input.peek()) {
                input.u8()?;
                break;
            }
            arguments.push(read_argument(input)?);
        }
        calls.push(Call { procedure, arguments });
    }
    Ok(calls)
}

/// Whether the next byte parts two calls: no parameter's name is so long.
fn is_separator(byte: Option<u8>) -> bool {
    matches!(byte, Some(0x80 | 0xFE | 0xFF))
}

fn read_argument(input: &mut Cursor<'_>) -> Result<Argument, DecodeError> {
    const BY_REFERENCE: u8 = 0x01;
    const DEFAULT: u8 = 0x02;
    let name = input.short_text()?;
    let status = input.u8()?;
    let wire_type = WireType::read(input)?;
    let value = wire_type.read_value(input)?;
    Ok(Argument {
        output: status & BY_REFERENCE != 0,
        default: status & DEFAULT != 0,
        parameter: Parameter { name, sql_type: wire_type.sql_type, value },
    })
}

/// Runs one call.
pub(crate) fn run_call(
    call: Call,
    session: &mut dyn Requests,
    prepared: &mut PreparedStatements,
    reply: &mut Reply,
) -> Result<(), Stop> {
    reply.enter_procedure();
    match execute(call, session, prepared, reply) {
        Ok(outputs) => reply.leave_procedure(&outputs),
        Err(Refusal::Sql(error)) => {
            let _ = reply.error(&error);
            reply.leave_procedure(&[]);
        }
        Err(Refusal::Stop(stop)) => return Err(stop),
    }
    Ok(())
}

/// Why a call gave nothing back.
enum Refusal {
    Sql(SqlError),
    Stop(Stop),
}

impl From<SqlError> for Refusal {
    fn from(error: SqlError) -> Self {
        Self::Sql(error)
    }
}

impl From<Stop> for Refusal {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

type Outputs = Vec<(u16, Column, Value)>;

fn execute(
    call: Call,
    session: &mut dyn Requests,
    prepared: &mut PreparedStatements,
    reply: &mut Reply,
) -> Result<Outputs, Refusal> {
    let mut arguments = call.arguments.into_iter();
    let mut next = |name: &str| arguments.next().ok_or_else(|| missing(name));
    match call.procedure {
        Procedure::ExecuteSql => {
            let statement = text(next("@stmt")?)?;
            let names = arguments.next().map(text).transpose()?.map_or_else(Vec::new, |list| declared_names(&list));
            let arguments: Vec<_> = arguments.collect();
            let outputs = outputs(&arguments, 2);
            run_prepared(&Prepared { statement, names }, arguments, session, reply)?;
            Ok(outputs)
        }
        Procedure::Prepare => {
            next("@handle")?;
            let names = declared_names(&text(next("@params")?)?);
            let statement = text(next("@stmt")?)?;
            Ok(vec![handle_output(prepared.add(Prepared { statement, names }))])
        }
        Procedure::PrepareAndExecute => {
            next("@handle")?;
            let names = declared_names(&text(next("@params")?)?);
            let statement = text(next("@stmt")?)?;
            let handle = prepared.add(Prepared { statement, names });
            let known = prepared.get(&Value::Int(handle))?;
            run_prepared(&known, arguments.collect(), session, reply)?;
            Ok(vec![handle_output(handle)])
        }
        Procedure::Execute => {
            let known = prepared.get(&next("@handle")?.parameter.value)?;
            run_prepared(&known, arguments.collect(), session, reply)?;
            Ok(Vec::new())
        }
        Procedure::Unprepare => {
            let handle = next("@handle")?.parameter.value;
            let Value::Int(number) = handle else { return Err(unknown_handle(&handle).into()) };
            prepared.statements.remove(&number).ok_or_else(|| unknown_handle(&handle))?;
            Ok(Vec::new())
        }
        Procedure::ResetConnection => {
            session.reset();
            prepared.clear();
            Ok(Vec::new())
        }
        Procedure::Cursor(name) => {
            Err(SqlError::new(2812, 16, format!("Could not find stored procedure '{name}': no cursors here.")).into())
        }
        Procedure::Named(name) => {
            let arguments: Vec<_> = arguments.filter(|argument| !argument.default).collect();
            let outputs = outputs(&arguments, 0);
            let statement = call_text(&name, &arguments);
            run_prepared(&Prepared { statement, names: Vec::new() }, arguments, session, reply)?;
            Ok(outputs)
        }
    }
}

fn missing(name: &str) -> SqlError {
    SqlError::new(201, 16, format!("Procedure or function expects parameter '{name}', which was not supplied."))
}

/// The text of an argument; NULL is the empty text.
fn text(argument: Argument) -> Result<String, SqlError> {
    match argument.parameter.value {
        Value::Text(text) => Ok(text),
        Value::Null => Ok(String::new()),
        _ => Err(SqlError::new(214, 16, "Procedure expects parameter of type 'ntext/nchar/nvarchar'.")),
    }
}

/// Runs a statement with arguments, which have the declared names where they come without their own.
fn run_prepared(
    prepared: &Prepared,
    arguments: Vec<Argument>,
    session: &mut dyn Requests,
    reply: &mut Reply,
) -> Result<(), Stop> {
    let mut declared = prepared.names.iter();
    let parameters: Vec<Parameter> = arguments
        .into_iter()
        .enumerate()
        .map(|(place, Argument { mut parameter, .. })| {
            let name = declared.next();
            if parameter.name.is_empty() {
                parameter.name = name.cloned().unwrap_or_else(|| unnamed(place));
            }
            parameter
        })
        .collect();
    session.run(&prepared.statement, &parameters, reply)
}

/// The name of an argument without one.
fn unnamed(place: usize) -> String {
    format!("@argument{place}")
}

/// `EXEC` with the arguments of a call by name.
fn call_text(name: &str, arguments: &[Argument]) -> String {
    let list: Vec<String> = arguments
        .iter()
        .enumerate()
        .map(|(place, argument)| match argument.parameter.name.as_str() {
            "" => unnamed(place),
            name => format!("{name} = {name}"),
        })
        .collect();
    format!("EXEC {name} {}", list.join(", "))
}

/// The names in a declaration list such as `@a int, @b decimal(9,2) OUTPUT`.
fn declared_names(list: &str) -> Vec<String> {
    let mut depth = 0;
    list.split(|character| {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        character == ',' && depth == 0
    })
    .filter_map(|declaration| declaration.split_whitespace().next())
    .map(String::from)
    .collect()
}

/// What is given back for OUTPUT arguments: the engine changes none, so each has the value it came with.
fn outputs(arguments: &[Argument], before: u16) -> Outputs {
    (before..)
        .zip(arguments)
        .filter(|(_, argument)| argument.output)
        .map(|(ordinal, Argument { parameter, .. })| {
            let Parameter { name, sql_type, value } = parameter;
            (ordinal, Column::new(name.clone(), sql_type.clone(), Collation::default()), value.clone())
        })
        .collect()
}

fn handle_output(handle: i64) -> (u16, Column, Value) {
    (0, Column::new("@handle", SqlType::Int, Collation::default()), Value::Int(handle))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_a_declaration_list() {
        assert_eq!(declared_names("@a int, @b decimal(9,2) OUTPUT,@c nvarchar(max)"), ["@a", "@b", "@c"]);
        assert!(declared_names("").is_empty());
    }

    #[test]
    fn a_procedure_is_known_by_name_in_any_spelling() {
        assert_eq!(Procedure::named("sys.sp_ExecuteSQL".into()), Procedure::ExecuteSql);
        assert_eq!(Procedure::named("[sp_prepexec]".into()), Procedure::PrepareAndExecute);
        assert_eq!(Procedure::named("fixture.cut".into()), Procedure::Named("fixture.cut".into()));
    }

    #[test]
    fn two_calls_in_one_message_are_two() {
        // sp_unprepare 7, then sp_unprepare 8.
        let call = |handle: u8| [0xFF, 0xFF, 15, 0, 0, 0, 0, 0, 0x26, 4, 4, handle, 0, 0, 0];
        let message = [call(7).as_slice(), &[0xFF], &call(8)].concat();
        let calls = read_calls(&mut Cursor::new(&message)).unwrap();
        let handles: Vec<_> = calls.iter().map(|call| call.arguments[0].parameter.value.clone()).collect();
        assert_eq!(handles, [Value::Int(7), Value::Int(8)]);
    }
}
