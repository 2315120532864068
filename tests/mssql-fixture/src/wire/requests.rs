//! What the wire asks of a session. The engine's [`Session`] is the one that is served; tests of the wire bring their own.

use crate::engine::{CancelHandle, Isolation, Output, Parameter, Session, SqlError, Stop};
use crate::value::{Column, Value};

/// One connection's session, as [`Session`] documents it.
pub(crate) trait Requests: Send + 'static {
    /// [`Session::run`]
    fn run(&mut self, batch: &str, parameters: &[Parameter], output: &mut dyn Output) -> Result<(), Stop>;
    /// [`Session::begin`]
    fn begin(&mut self, isolation: Option<Isolation>) -> Result<u64, SqlError>;
    /// [`Session::commit`]
    fn commit(&mut self) -> Result<Option<u64>, SqlError>;
    /// [`Session::rollback`]
    fn rollback(&mut self) -> Result<u64, SqlError>;
    /// [`Session::transaction`]
    fn transaction(&self) -> Option<u64>;
    /// [`Session::bulk`]
    fn bulk(&mut self, statement: &str) -> Result<Vec<Column>, SqlError>;
    /// [`Session::bulk_rows`]
    fn bulk_rows(&mut self, rows: Vec<Vec<Value>>) -> Result<u64, SqlError>;
    /// [`Session::cancel_handle`]
    fn cancel(&mut self) -> Box<dyn Cancel>;
    /// [`Session::spid`]
    fn spid(&self) -> u16;
    /// [`Session::reset`]
    fn reset(&mut self);
}

/// Cancels a run from outside.
pub(crate) trait Cancel: Send + Sync {
    /// [`CancelHandle::cancel`]
    fn cancel(&self);
}

impl Cancel for CancelHandle {
    fn cancel(&self) {
        Self::cancel(self);
    }
}

impl Requests for Session {
    fn run(&mut self, batch: &str, parameters: &[Parameter], output: &mut dyn Output) -> Result<(), Stop> {
        Self::run(self, batch, parameters, output)
    }

    fn begin(&mut self, isolation: Option<Isolation>) -> Result<u64, SqlError> {
        Self::begin(self, isolation)
    }

    fn commit(&mut self) -> Result<Option<u64>, SqlError> {
        Self::commit(self)
    }

    fn rollback(&mut self) -> Result<u64, SqlError> {
        Self::rollback(self)
    }

    fn transaction(&self) -> Option<u64> {
        Self::transaction(self)
    }

    fn bulk(&mut self, statement: &str) -> Result<Vec<Column>, SqlError> {
        Self::bulk(self, statement)
    }

    fn bulk_rows(&mut self, rows: Vec<Vec<Value>>) -> Result<u64, SqlError> {
        Self::bulk_rows(self, rows)
    }

    fn cancel(&mut self) -> Box<dyn Cancel> {
        Box::new(self.cancel_handle())
    }

    fn spid(&self) -> u16 {
        Self::spid(self)
    }

    fn reset(&mut self) {
        Self::reset(self);
    }
}
