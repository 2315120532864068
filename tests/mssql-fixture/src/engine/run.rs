//! Runs a batch: statement after statement, with its variables, its flow and its errors.

use std::ops::ControlFlow;
use std::time::Duration;

use rusqlite::params_from_iter;
use rusqlite::types::ValueRef;

use super::ast::{Expression, Kind, SetOption, Statement};
use super::bind::{Prepared, Variable};
use super::error::{SqlError, Stop};
use super::output::{Output, TransactionEvent};
use super::parse;
use super::session::{Halt, Isolation, Session};
use super::storage::{load, load_into};
use crate::value::{Column, SqlType, Value};

/// How deep sp_executesql may call itself, as SQL Server's nesting of procedures.
const MAX_NESTING: u32 = 32;
/// The longest WAITFOR that is waited.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// After these errors the batch goes on with its next statement, unless XACT_ABORT is on.
const CONTINUE_AFTER: &[i32] = &[220, 229, 515, 547, 1222, 2601, 2627, 2628, 3902, 3903, 8115, 8134, 8152];
/// These errors end the transaction whatever XACT_ABORT says.
const DOOM: &[i32] = &[1205, 3951, 3952, 3960, 3961];

/// Keeps the last `done` back, so that the very last one of a batch can say that nothing follows.
pub(super) struct Answer<'o> {
    output: &'o mut dyn Output,
    held: Option<Option<u64>>,
}

fn sent(flow: ControlFlow<()>) -> Result<(), Stop> {
    if flow.is_break() { Err(Stop::Gone) } else { Ok(()) }
}

impl<'o> Answer<'o> {
    fn new(output: &'o mut dyn Output) -> Self {
        Self { output, held: None }
    }

    /// Sends what is held back; more follows.
    fn output(&mut self) -> Result<&mut dyn Output, Stop> {
        if let Some(rows) = self.held.take() {
            sent(self.output.done(rows, true))?;
        }
        Ok(&mut *self.output)
    }

    pub(super) fn done(&mut self, rows: Option<u64>) -> Result<(), Stop> {
        self.output()?;
        self.held = Some(rows);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Stop> {
        sent(self.output.done(self.held.take().flatten(), false))
    }

    /// Sends a whole result set that was made here.
    pub(super) fn table(&mut self, columns: &[Column], rows: &[Vec<Value>]) -> Result<(), Stop> {
        let output = self.output()?;
        sent(output.columns(columns))?;
        for row in rows {
            sent(output.row(row))?;
        }
        self.done(Some(u64::try_from(rows.len()).unwrap_or(u64::MAX)))
    }

    pub(super) fn event(&mut self, event: TransactionEvent) -> Result<(), Stop> {
        sent(self.output()?.transaction(event))
    }
}

/// What comes after a statement.
enum Next {
    Go,
    /// RETURN
    Leave,
}

impl Session {
    pub(super) fn run_batch(&mut self, batch: &str, output: &mut dyn Output) -> Result<(), Stop> {
        let mut answer = Answer::new(output);
        let ran = match parse::batch(batch) {
            Ok(statements) => self.statements(&statements, &mut answer).map(drop),
            Err(error) => Err(Halt::Error(error)),
        };
        match ran {
            Ok(()) => {}
            Err(Halt::Error(error)) => self.report(&error, &mut answer)?,
            Err(Halt::Stop(stop)) => {
                self.stopped(stop, &mut answer);
                return Err(stop);
            }
        }
        answer.finish()
    }

    /// A batch that is cut off leaves nothing of its statement, and no transaction under XACT_ABORT.
    fn stopped(&mut self, stop: Stop, answer: &mut Answer<'_>) {
        // Whatever is wrong with SQLite's end of it is thrown away with the transaction.
        let _ = self.end_statement(false);
        if self.settings.xact_abort
            && let Some(descriptor) = self.rollback_transaction()
            && stop == Stop::Cancelled
        {
            let _ = answer.event(TransactionEvent::RolledBack(descriptor));
        }
    }

    /// Sends an error and ends what it ends.
    fn report(&mut self, error: &SqlError, answer: &mut Answer<'_>) -> Result<(), Stop> {
        self.last_error = error.number;
        self.row_count = 0;
        let doomed = self.settings.xact_abort && error.class > 10 || DOOM.contains(&error.number);
        let rolled_back = if doomed { self.rollback_transaction() } else { None };
        sent(answer.output()?.error(error))?;
        if let Some(descriptor) = rolled_back {
            answer.event(TransactionEvent::RolledBack(descriptor))?;
        }
        answer.done(None)
    }

    fn statements(&mut self, statements: &[Statement], answer: &mut Answer<'_>) -> Result<Next, Halt> {
        for statement in statements {
            if let Next::Leave = self.statement(statement, answer)? {
                return Ok(Next::Leave);
            }
        }
        Ok(Next::Go)
    }

    /// One statement; its error is sent here when the batch goes on after it.
    fn statement(&mut self, statement: &Statement, answer: &mut Answer<'_>) -> Result<Next, Halt> {
        self.context.lock().started = super::convert::now();
        let ran = self.faulty(statement).and_then(|after| self.kind(statement, after, answer));
        let keep = ran.is_ok();
        let ended = self.end_statement(keep);
        match ran.and_then(|next| ended.map(|()| next)) {
            Ok(next) => {
                if !matches!(statement.kind, Kind::If { .. } | Kind::While { .. } | Kind::Block(_)) {
                    self.last_error = 0;
                }
                Ok(next)
            }
            Err(Halt::Error(error)) => {
                let error = if error.line <= 1 { error.at(statement.line) } else { error };
                let goes_on = CONTINUE_AFTER.contains(&error.number) && !self.settings.xact_abort;
                if !goes_on {
                    return Err(Halt::Error(error));
                }
                self.report(&error, answer)?;
                Ok(Next::Go)
            }
            Err(stop) => Err(stop),
        }
    }

    /// Waits at gates and meets faults: the rows after which this statement fails, and how.
    fn faulty(&self, statement: &Statement) -> Result<Option<(u64, SqlError)>, Halt> {
        let lower = statement.text.to_lowercase();
        if lower.starts_with("exec fixture.") {
            return Ok(None);
        }
        let cancelled = || self.cancellation.is_cancelled();
        let faults = &self.shared.faults;
        if cancelled() || !faults.pass_gates(&lower, &cancelled) {
            return Err(Stop::Cancelled.into());
        }
        match faults.due(&lower) {
            Some((after, error)) if after > 0 && matches!(statement.kind, Kind::Query(_)) => Ok(Some((after, error))),
            Some((_, error)) => Err(Halt::Error(error)),
            None => Ok(None),
        }
    }

    fn kind(
        &mut self,
        statement: &Statement,
        fails: Option<(u64, SqlError)>,
        answer: &mut Answer<'_>,
    ) -> Result<Next, Halt> {
        match &statement.kind {
            Kind::Query(query) => {
                let (prepared, _) = self.bound(|binder| binder.statement(query))?;
                if prepared.assign.is_empty() {
                    self.stream(&prepared, fails, answer)?;
                } else {
                    self.assign(&prepared)?;
                }
            }
            Kind::Insert(_) | Kind::Update(_) | Kind::Delete(_) => {
                let rows = self.write(&statement.kind)?;
                self.affected(rows, answer)?;
            }
            Kind::Declare(all) => {
                for (name, sql_type, value) in all {
                    let value = match value {
                        Some(value) => self.value(value, Some(sql_type))?,
                        None => Value::Null,
                    };
                    self.variables.insert(name.to_lowercase(), Variable { sql_type: sql_type.clone(), value });
                }
            }
            Kind::SetVariable { name, value } => {
                let known = self.variables.get(&name.to_lowercase()).map(|variable| variable.sql_type.clone());
                let sql_type = known
                    .ok_or_else(|| SqlError::new(137, 15, format!("Must declare the scalar variable \"{name}\".")))?;
                let value = self.value(value, Some(&sql_type))?;
                self.variables.insert(name.to_lowercase(), Variable { sql_type, value });
            }
            Kind::Set(option) => self.set(option)?,
            Kind::Begin | Kind::Commit | Kind::Rollback => self.transaction_statement(&statement.kind, answer)?,
            Kind::If { .. } | Kind::While { .. } | Kind::Block(_) => return self.flow(&statement.kind, answer),
            Kind::Return => return Ok(Next::Leave),
            Kind::Print(text) => {
                let text = self.value(text, Some(&SqlType::NVarChar { length: None }))?;
                let Value::Text(text) = text else { return Ok(Next::Go) };
                sent(answer.output()?.message(&text))?;
            }
            Kind::WaitFor(delay) => self.wait(delay)?,
            Kind::Throw { number, message } => return Err(self.thrown(Some(number), message)?.into()),
            Kind::RaiseError(message) => return Err(self.thrown(None, message)?.into()),
            Kind::Use(database) => self.use_database(database, answer)?,
            Kind::Execute { name, arguments } => self.execute(name, arguments, answer)?,
            ddl => {
                self.define(ddl)?;
                answer.done(None)?;
            }
        }
        Ok(Next::Go)
    }

    /// Tells how many rows a statement changed.
    fn affected(&mut self, rows: u64, answer: &mut Answer<'_>) -> Result<(), Halt> {
        self.row_count = i64::try_from(rows).unwrap_or(i64::MAX);
        answer.done((!self.settings.no_count).then_some(rows))?;
        Ok(())
    }

    fn flow(&mut self, kind: &Kind, answer: &mut Answer<'_>) -> Result<Next, Halt> {
        match kind {
            Kind::If { condition, then, otherwise } => {
                let holds = self.holds(condition)?;
                match (holds, otherwise) {
                    (true, _) => self.statement(then, answer),
                    (false, Some(otherwise)) => self.statement(otherwise, answer),
                    (false, None) => Ok(Next::Go),
                }
            }
            Kind::While { condition, body } => {
                while self.holds(condition)? {
                    if self.cancellation.is_cancelled() {
                        return Err(Stop::Cancelled.into());
                    }
                    if let Next::Leave = self.statement(body, answer)? {
                        return Ok(Next::Leave);
                    }
                }
                Ok(Next::Go)
            }
            Kind::Block(statements) => self.statements(statements, answer),
            _ => Ok(Next::Go),
        }
    }

    fn holds(&mut self, condition: &Expression) -> Result<bool, Halt> {
        let (prepared, _) = self.bound(|binder| binder.truth(condition))?;
        let row = self.first_row(&prepared)?;
        self.end_statement(true)?;
        Ok(matches!(row.and_then(|row| row.into_iter().next()), Some(Value::Int(number)) if number != 0))
    }

    /// Evaluates an expression, converted to a type when one is given.
    pub(super) fn value(&mut self, expression: &Expression, to: Option<&SqlType>) -> Result<Value, Halt> {
        let (prepared, _) = self.bound(|binder| binder.scalar(expression, to))?;
        let row = self.first_row(&prepared)?;
        Ok(row.and_then(|row| row.into_iter().next()).unwrap_or(Value::Null))
    }

    fn first_row(&self, prepared: &Prepared) -> Result<Option<Vec<Value>>, Halt> {
        let read = || {
            let mut statement = self.connection.prepare_cached(&prepared.sql)?;
            let mut rows = statement.query(params_from_iter(&prepared.parameters))?;
            let Some(row) = rows.next()? else { return Ok(None) };
            let mut values = Vec::new();
            for (at, column) in prepared.columns.iter().enumerate() {
                values.push(load(row.get_ref(at)?, &column.sql_type));
            }
            Ok(Some(values))
        };
        read().map_err(|error| self.halt(error))
    }

    /// `SELECT @a = …`: the last row counts; without rows nothing changes.
    fn assign(&mut self, prepared: &Prepared) -> Result<(), Halt> {
        let read = || {
            let mut statement = self.connection.prepare_cached(&prepared.sql)?;
            let mut rows = statement.query(params_from_iter(&prepared.parameters))?;
            let (mut last, mut count) = (Vec::new(), 0);
            while let Some(row) = rows.next()? {
                count += 1;
                last.clear();
                for (at, column) in prepared.columns.iter().enumerate() {
                    last.push(load(row.get_ref(at)?, &column.sql_type));
                }
            }
            Ok((last, count))
        };
        let (values, count) = read().map_err(|error| self.halt(error))?;
        for (name, value) in prepared.assign.iter().zip(values) {
            if let Some(variable) = self.variables.get_mut(name) {
                variable.value = value;
            }
        }
        self.row_count = count;
        Ok(())
    }

    /// Sends a result set row by row. Nothing is collected: one row's values are reused for the next.
    fn stream(
        &mut self,
        prepared: &Prepared,
        fails: Option<(u64, SqlError)>,
        answer: &mut Answer<'_>,
    ) -> Result<(), Halt> {
        if self.settings.format_only {
            sent(answer.output()?.columns(&prepared.columns))?;
            return self.affected(0, answer);
        }
        let mut statement = self.connection.prepare_cached(&prepared.sql).map_err(|error| self.halt(error))?;
        let mut rows = statement.query(params_from_iter(&prepared.parameters)).map_err(|error| self.halt(error))?;
        let mut values = vec![Value::Null; prepared.columns.len()];
        let mut count = 0u64;
        let mut begun = false;
        let fails_at = fails.as_ref().map_or(u64::MAX, |(after, _)| *after);
        loop {
            if self.cancellation.is_cancelled() {
                return Err(Stop::Cancelled.into());
            }
            // The first row is fetched before the columns are sent, so that an error at once stands alone.
            let row = rows.next().map_err(|error| self.halt(error))?;
            if !begun {
                sent(answer.output()?.columns(&prepared.columns))?;
                begun = true;
            }
            let Some(row) = row else { break };
            if count == fails_at {
                break;
            }
            for (at, (slot, column)) in values.iter_mut().zip(&prepared.columns).enumerate() {
                let stored: ValueRef<'_> = row.get_ref(at).map_err(|error| self.halt(error))?;
                load_into(slot, stored, &column.sql_type);
            }
            sent(answer.output.row(&values))?;
            count += 1;
        }
        drop(rows);
        drop(statement);
        if let Some((_, error)) = fails {
            return Err(Halt::Error(error));
        }
        self.affected(count, answer)
    }

    fn set(&mut self, option: &SetOption) -> Result<(), Halt> {
        match option {
            SetOption::Isolation(isolation) => self.settings.isolation = *isolation,
            SetOption::LockTimeout(milliseconds) => self.settings.lock_timeout = *milliseconds,
            SetOption::XactAbort(on) => self.settings.xact_abort = *on,
            SetOption::NoCount(on) => self.settings.no_count = *on,
            SetOption::IdentityInsert(name, on) => {
                self.load_catalog()?;
                let table = self.object(name)?;
                self.settings.identity_insert = on.then_some(table.id);
            }
            SetOption::FormatOnly(on) => self.settings.format_only = *on,
            SetOption::Other => {}
        }
        // A transaction that has read nothing yet may still be moved to another level.
        if let (SetOption::Isolation(isolation), Some(transaction)) = (option, &mut self.transaction)
            && *isolation != Isolation::Snapshot
            && transaction.isolation != Isolation::Snapshot
        {
            transaction.isolation = *isolation;
        }
        Ok(())
    }

    fn transaction_statement(&mut self, kind: &Kind, answer: &mut Answer<'_>) -> Result<(), Halt> {
        match kind {
            Kind::Begin => {
                if let (descriptor, true) = self.begin_transaction() {
                    answer.event(TransactionEvent::Began(descriptor))?;
                }
            }
            Kind::Commit => {
                if let Some(descriptor) = self.commit_transaction()? {
                    answer.event(TransactionEvent::Committed(descriptor))?;
                }
            }
            _ => {
                let descriptor = self.rollback_transaction().ok_or_else(|| {
                    let message = "The ROLLBACK TRANSACTION request has no corresponding BEGIN TRANSACTION.";
                    SqlError::new(3903, 16, message)
                })?;
                answer.event(TransactionEvent::RolledBack(descriptor))?;
            }
        }
        answer.done(None)?;
        Ok(())
    }

    /// Waits at a gate that nobody opens, so that a cancel ends it at once.
    fn wait(&mut self, delay: &Expression) -> Result<(), Halt> {
        let Value::Time(ticks) = self.value(delay, Some(&SqlType::Time { scale: 3 }))? else { return Ok(()) };
        let delay = Duration::from_nanos(ticks.saturating_mul(100)).min(LONGEST_WAIT);
        let cancelled = || self.cancellation.is_cancelled();
        if self.shared.faults.wait(delay, &cancelled) { Ok(()) } else { Err(Stop::Cancelled.into()) }
    }

    fn thrown(&mut self, number: Option<&Expression>, message: &Expression) -> Result<SqlError, Halt> {
        let number = match number {
            Some(number) => match self.value(number, Some(&SqlType::Int))? {
                Value::Int(number) => i32::try_from(number).unwrap_or(50000),
                _ => 50000,
            },
            None => 50000,
        };
        let message = self.value(message, Some(&SqlType::NVarChar { length: None }))?;
        let Value::Text(message) = message else { return Ok(SqlError::new(number, 16, "")) };
        Ok(SqlError::new(number, 16, message))
    }

    fn use_database(&mut self, database: &str, answer: &mut Answer<'_>) -> Result<(), Halt> {
        let own = self.shared.options.name.clone();
        if !super::catalog::same(database, &own) && !super::catalog::same(database, "master") {
            let message =
                format!("Database '{database}' does not exist. Make sure that the name is entered correctly.");
            return Err(SqlError::new(911, 16, message).into());
        }
        sent(answer.output()?.database(&own))?;
        Ok(())
    }

    /// `sp_executesql`: a batch of its own with variables of its own.
    pub(super) fn nested(
        &mut self,
        text: &str,
        variables: std::collections::HashMap<String, Variable>,
        answer: &mut Answer<'_>,
    ) -> Result<(), Halt> {
        if self.nesting >= MAX_NESTING {
            let message = "Maximum stored procedure, function, trigger, or view nesting level exceeded (limit 32).";
            return Err(SqlError::new(217, 16, message).into());
        }
        let statements = parse::batch(text)?;
        let outer = std::mem::replace(&mut self.variables, variables);
        let settings = self.settings;
        self.nesting += 1;
        let ran = self.statements(&statements, answer);
        self.nesting -= 1;
        self.variables = outer;
        // What a nested batch SETs ends with it.
        self.settings = settings;
        ran.map(drop)
    }
}
