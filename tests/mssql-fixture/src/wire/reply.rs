//! One answer on its way: takes what the engine yields, turns it into tokens and packets, and hands them over in bounded chunks.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::packet::{Framer, HEADER};
use super::token::{self, Done, done, environment};
use super::type_info::{Abilities, ColumnShape};
use crate::engine::{Output, SqlError, TransactionEvent};
use crate::value::{Column, Value};

/// Chunks that may wait between the engine and the socket.
pub(crate) const CHUNKS_IN_FLIGHT: usize = 4;
/// Size of a chunk in a long answer. The first is one packet, so that the first rows come early.
const CHUNK: usize = 64 << 10;

/// What an answer needs to know of its connection.
#[derive(Debug, Clone)]
pub(crate) struct ReplyStyle {
    /// Packet size in bytes, header included.
    pub(crate) packet_size: usize,
    /// The session's number.
    pub(crate) spid: u16,
    /// The server's name in messages.
    pub(crate) server: Arc<str>,
    /// Rows with NULLs are sent as NBCROW.
    pub(crate) null_bitmaps: bool,
    /// What the client can take.
    pub(crate) abilities: Abilities,
    /// The database that the session is in.
    pub(crate) database: String,
}

/// Collects tokens and sends them off. Lives in the thread that runs the engine.
pub(crate) struct Reply {
    chunks: mpsc::Sender<Bytes>,
    attention: Arc<AtomicBool>,
    style: ReplyStyle,
    framer: Framer,
    tokens: BytesMut,
    packets: BytesMut,
    flush_at: usize,
    shapes: Vec<ColumnShape>,
    statement_done: Done,
    /// The last statement's DONE: held back, because whether more follows is known only then.
    held: Option<Held>,
    in_result: bool,
    failed: bool,
    ended: bool,
}

struct Held {
    status: u16,
    command: u16,
    rows: u64,
}

impl Reply {
    /// An answer that goes to `chunks`; `attention` is set when the client cancels.
    pub(crate) fn new(style: ReplyStyle, chunks: mpsc::Sender<Bytes>, attention: Arc<AtomicBool>) -> Self {
        Self {
            framer: Framer::reply(style.packet_size, style.spid),
            flush_at: style.packet_size - HEADER,
            chunks,
            attention,
            style,
            tokens: BytesMut::with_capacity(CHUNK * 2),
            packets: BytesMut::new(),
            shapes: Vec::new(),
            statement_done: Done::Batch,
            held: None,
            in_result: false,
            failed: false,
            ended: false,
        }
    }

    /// Tells the client that its connection was reset.
    pub(crate) fn reset(&mut self) {
        token::put_reset(&mut self.tokens);
    }

    /// From here on statements belong to a procedure call.
    pub(crate) fn enter_procedure(&mut self) {
        self.statement_done = Done::InProcedure;
        self.failed = false;
    }

    /// Ends a procedure call: its return status and its OUTPUT parameters.
    pub(crate) fn leave_procedure(&mut self, outputs: &[(u16, Column, Value)]) {
        self.release(true);
        if !self.failed {
            token::put_return_status(0, &mut self.tokens);
            for (ordinal, column, value) in outputs {
                if let Err(misfit) = token::put_return_value(*ordinal, column, value, &mut self.tokens) {
                    self.put_error(&SqlError::internal(misfit));
                }
            }
        }
        let status = if self.failed { done::ERROR } else { 0 };
        self.held = Some(Held { status, command: 0, rows: 0 });
        self.statement_done = Done::Procedure;
    }

    /// Ends the answer and says whether it has told the client that its attention was heard.
    pub(crate) fn finish(mut self) -> bool {
        let heard = self.attention.load(Ordering::SeqCst);
        if heard {
            self.release(true);
            token::put_done(Done::Batch, done::ATTENTION, 0, 0, &mut self.tokens);
        } else if self.held.is_some() {
            self.release(false);
        } else {
            let status = if self.failed { done::ERROR } else { 0 };
            token::put_done(Done::Batch, status, 0, 0, &mut self.tokens);
        }
        self.ended = true;
        let _ = self.send();
        heard
    }

    /// The database that the session is in by now.
    pub(crate) fn database_name(&self) -> &str {
        &self.style.database
    }

    /// Writes the statement's end that was held back.
    fn release(&mut self, more: bool) {
        if let Some(Held { status, command, rows }) = self.held.take() {
            let status = status | if more { done::MORE } else { 0 };
            token::put_done(self.statement_done, status, command, rows, &mut self.tokens);
            if self.statement_done == Done::Procedure {
                self.statement_done = Done::InProcedure;
            }
        }
    }

    fn put_error(&mut self, error: &SqlError) {
        self.failed = true;
        token::put_error(error, &self.style.server, &mut self.tokens);
    }

    /// Sends whole packets off if enough has gathered.
    #[inline]
    fn flow(&mut self) -> ControlFlow<()> {
        if self.tokens.len() < self.flush_at { ControlFlow::Continue(()) } else { self.send() }
    }

    fn send(&mut self) -> ControlFlow<()> {
        self.framer.frame(&mut self.tokens, &mut self.packets, self.ended);
        self.flush_at = (self.flush_at * 2).min(CHUNK);
        let chunk = self.packets.split().freeze();
        if !chunk.is_empty() && self.chunks.blocking_send(chunk).is_err() {
            return ControlFlow::Break(());
        }
        if self.attention.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Output for Reply {
    fn columns(&mut self, columns: &[Column]) -> ControlFlow<()> {
        self.release(true);
        self.in_result = true;
        token::put_columns(columns, self.style.abilities, &mut self.shapes, &mut self.tokens);
        self.flow()
    }

    fn row(&mut self, values: &[Value]) -> ControlFlow<()> {
        let misfit = if values.len() == self.shapes.len() {
            match token::put_row(&self.shapes, values, self.style.null_bitmaps, &mut self.tokens) {
                Ok(()) => return self.flow(),
                Err(misfit) => misfit.to_string(),
            }
        } else {
            format!("a row of {} values for {} columns", values.len(), self.shapes.len())
        };
        self.put_error(&SqlError::internal(misfit));
        ControlFlow::Break(())
    }

    fn done(&mut self, rows: Option<u64>, _more: bool) -> ControlFlow<()> {
        self.release(true);
        let mut status = if self.failed { done::ERROR } else { 0 };
        if rows.is_some() {
            status |= done::COUNT;
        }
        let command = if self.in_result { token::COMMAND_SELECT } else { 0 };
        self.held = Some(Held { status, command, rows: rows.unwrap_or(0) });
        self.in_result = false;
        if self.statement_done == Done::Batch {
            self.failed = false;
        }
        self.flow()
    }

    fn error(&mut self, error: &SqlError) -> ControlFlow<()> {
        self.release(true);
        self.put_error(error);
        self.flow()
    }

    fn transaction(&mut self, event: TransactionEvent) -> ControlFlow<()> {
        self.release(true);
        token::put_transaction(event, &mut self.tokens);
        self.flow()
    }

    fn database(&mut self, name: &str) -> ControlFlow<()> {
        self.release(true);
        let old = std::mem::replace(&mut self.style.database, name.to_owned());
        token::put_environment(environment::DATABASE, name, &old, &mut self.tokens);
        let text = format!("Changed database context to '{name}'.");
        token::put_info(5701, &text, &self.style.server, &mut self.tokens);
        self.flow()
    }

    fn message(&mut self, text: &str) -> ControlFlow<()> {
        self.release(true);
        token::put_info(0, text, &self.style.server, &mut self.tokens);
        self.flow()
    }
}
