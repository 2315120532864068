//! One connection after its login: takes requests, has the engine run them, sends the answers.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::BytesMut;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::bulk::BulkLoad;
use super::cursor::{Cursor, DecodeError, utf16};
use super::handshake::{self, Front, LoggedIn};
use super::packet::{Framer, HEADER, Message, Packet, PacketReader, kind, status};
use super::pump::{self, CancelOnDrop, Sent};
use super::reply::{CHUNKS_IN_FLIGHT, Reply, ReplyStyle};
use super::requests::Requests;
use super::rpc::{self, PreparedStatements};
use super::token::{self, Done, done};
use super::transport::Transport;
use crate::engine::{Faults, FixtureError, Isolation, Output, SqlError, TransactionEvent};
use crate::value::Column;

/// What the engine's thread needs of a connection; it goes there with each request and comes back after it.
struct Workplace<S> {
    session: S,
    prepared: PreparedStatements,
    /// The target of the `INSERT BULK` that came last, until its rows have come.
    bulk: Option<Vec<Column>>,
    database: String,
}

/// A connection that has logged in.
struct Connection<S> {
    reader: PacketReader<ReadHalf<Transport>>,
    writer: WriteHalf<Transport>,
    style: ReplyStyle,
    faults: Faults,
    workplace: Option<Workplace<S>>,
    /// The start of a message that came while the one before was answered.
    ahead: Option<Packet>,
}

/// Serves one client from its first byte to its last, with a session of the database.
pub(crate) async fn serve(socket: TcpStream, front: Arc<Front>) -> io::Result<()> {
    serve_session(socket, &front, |login| front.database.session(login)).await
}

/// Serves one client with a session that `open_session` gives for a login.
pub(super) async fn serve_session<S: Requests>(
    socket: TcpStream,
    front: &Front,
    open_session: impl FnOnce(&str) -> Result<S, FixtureError>,
) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let Some(LoggedIn { reader, session, style }) = handshake::open(socket, front, open_session).await? else {
        return Ok(());
    };
    let (transport, _) = reader.into_parts();
    let (read, writer) = tokio::io::split(transport);
    let workplace =
        Workplace { session, prepared: PreparedStatements::default(), bulk: None, database: style.database.clone() };
    let mut connection = Connection {
        reader: PacketReader::new(read),
        writer,
        style,
        faults: front.database.faults().clone(),
        workplace: Some(workplace),
        ahead: None,
    };
    let result = connection.run().await;
    // The client may be gone already.
    let _ = connection.writer.shutdown().await;
    result
}

impl<S: Requests> Connection<S> {
    /// Takes requests until the client goes.
    async fn run(&mut self) -> io::Result<()> {
        loop {
            let first = match self.ahead.take() {
                Some(packet) => packet,
                None => match self.reader.next().await? {
                    Some(packet) => packet,
                    None => return Ok(()),
                },
            };
            let open = match first.kind {
                kind::ATTENTION => {
                    pump::attention_delay(&self.faults).await;
                    self.acknowledge().await?
                }
                kind::BULK => self.bulk(first).await?,
                _ => {
                    let message = self.reader.rest_of_message(first).await?;
                    self.request(message).await?
                }
            };
            if !open {
                return Ok(());
            }
        }
    }

    /// Answers one request; `false` when the connection is over.
    async fn request(&mut self, message: Message) -> io::Result<bool> {
        if message.status & status::IGNORE != 0 {
            return self.work(|_, _| {}).await;
        }
        let reset = message.status & (status::RESET | status::RESET_KEEP_TRANSACTION) != 0;
        self.work(move |workplace, reply| {
            if reset {
                workplace.session.reset();
                workplace.prepared.clear();
                reply.reset();
            }
            workplace.answer(&message, reply);
        })
        .await
    }

    /// Has `work` done in a thread that may block, and sends what it answers; `false` when the connection is over.
    async fn work(&mut self, work: impl FnOnce(&mut Workplace<S>, &mut Reply) + Send + 'static) -> io::Result<bool> {
        let Some(mut workplace) = self.workplace.take() else { return Ok(false) };
        let cancel = CancelOnDrop(workplace.session.cancel());
        let attention = Arc::new(AtomicBool::new(false));
        let (sender, chunks) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let mut style = self.style.clone();
        style.database.clone_from(&workplace.database);
        if self.faults.wire().split_packets {
            style.packet_size = HEADER + 1;
        }
        let mut reply = Reply::new(style, sender, Arc::clone(&attention));
        let job = tokio::task::spawn_blocking(move || {
            work(&mut workplace, &mut reply);
            reply.database_name().clone_into(&mut workplace.database);
            (workplace, reply.finish())
        });
        let sent = pump::send(&mut self.reader, &mut self.writer, chunks, &*cancel.0, &attention, &self.faults).await?;
        let Sent::Whole { attention, ahead } = sent else { return Ok(false) };
        let (workplace, heard) = job.await.map_err(io::Error::other)?;
        self.workplace = Some(workplace);
        self.ahead = ahead;
        if attention && !heard { self.acknowledge().await } else { Ok(true) }
    }

    /// Tells the client that its attention was heard, in a message of its own.
    async fn acknowledge(&mut self) -> io::Result<bool> {
        let (mut tokens, mut packets) = (BytesMut::new(), BytesMut::new());
        token::put_done(Done::Batch, done::ATTENTION, 0, 0, &mut tokens);
        Framer::reply(self.style.packet_size, self.style.spid).frame(&mut tokens, &mut packets, true);
        self.writer.write_all(&packets).await?;
        self.writer.flush().await?;
        Ok(true)
    }

    /// Takes the rows of a bulk load, whose first packet is here, as they come.
    async fn bulk(&mut self, first: Packet) -> io::Result<bool> {
        let Some(target) = self.workplace.as_mut().and_then(|workplace| workplace.bulk.take()) else {
            let _ = self.reader.rest_of_message(first).await?;
            let error = SqlError::new(
                4002,
                16,
                "The incoming tabular data stream (TDS) is incorrect: rows without INSERT BULK.",
            );
            return self
                .work(move |_, reply| {
                    let _ = reply.error(&error);
                })
                .await;
        };
        let mut load = BulkLoad::new(target);
        let mut packet = first;
        loop {
            let full = load.push(&packet.payload);
            if packet.is_last() {
                let withdrawn = packet.status & status::IGNORE != 0;
                return self.work(move |workplace, reply| workplace.end_bulk(load, withdrawn, reply)).await;
            }
            if full {
                load = self.insert(load).await?;
            }
            packet = match self.reader.next().await? {
                Some(packet) if packet.kind == kind::BULK => packet,
                Some(packet) if packet.kind == kind::ATTENTION => {
                    self.blocking(move |workplace| load.abandon(&mut workplace.session)).await?;
                    return self.acknowledge().await;
                }
                Some(packet) => return Err(invalid(format!("a packet of type {:#04x} among bulk rows", packet.kind))),
                None => {
                    self.blocking(move |workplace| load.abandon(&mut workplace.session)).await?;
                    return Ok(false);
                }
            };
        }
    }

    async fn insert(&mut self, mut load: BulkLoad) -> io::Result<BulkLoad> {
        self.blocking(move |workplace| {
            load.insert(&mut workplace.session);
            load
        })
        .await
    }

    /// Has `work` done in a thread that may block, without an answer.
    async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Workplace<S>) -> T + Send + 'static,
    ) -> io::Result<T> {
        let mut workplace = self.workplace.take().ok_or_else(|| io::Error::other("the session is gone"))?;
        let job = tokio::task::spawn_blocking(move || {
            let result = work(&mut workplace);
            (workplace, result)
        });
        let (workplace, result) = job.await.map_err(io::Error::other)?;
        self.workplace = Some(workplace);
        Ok(result)
    }
}

impl<S: Requests> Workplace<S> {
    /// Runs a request. What is wrong with it is said in `reply`.
    fn answer(&mut self, message: &Message, reply: &mut Reply) {
        self.bulk = None;
        let result = match message.kind {
            kind::SQL_BATCH => self.batch(&message.body, reply),
            kind::RPC => self.calls(&message.body, reply),
            kind::TRANSACTION_MANAGER => self.transaction(&message.body, reply),
            other => Err(DecodeError::malformed(format!("a message of type {other:#04x}"))),
        };
        if let Err(error) = result {
            let text = format!("The incoming tabular data stream (TDS) protocol stream is incorrect: {error}.");
            let _ = reply.error(&SqlError::new(8009, 16, text));
        }
    }

    fn batch(&mut self, body: &[u8], reply: &mut Reply) -> Result<(), DecodeError> {
        let mut input = Cursor::new(body);
        input.all_headers()?;
        let text = utf16(input.bytes(input.remaining())?);
        if is_bulk_insert(&text) {
            match self.session.bulk(&text) {
                Ok(target) => self.bulk = Some(target),
                Err(error) => {
                    let _ = reply.error(&error);
                }
            }
        } else {
            // A stop says that nobody waits for more: what has been answered is ended properly all the same.
            let _ = self.session.run(&text, &[], reply);
        }
        Ok(())
    }

    fn calls(&mut self, body: &[u8], reply: &mut Reply) -> Result<(), DecodeError> {
        let mut input = Cursor::new(body);
        input.all_headers()?;
        for call in rpc::read_calls(&mut input)? {
            if rpc::run_call(call, &mut self.session, &mut self.prepared, reply).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Transaction manager requests: begin, commit, roll back (MS-TDS 2.2.6.9).
    fn transaction(&mut self, body: &[u8], reply: &mut Reply) -> Result<(), DecodeError> {
        const BEGIN: u16 = 5;
        const COMMIT: u16 = 7;
        const ROLLBACK: u16 = 8;
        /// Flag of commit and rollback: begin another transaction at once.
        const BEGIN_NEXT: u8 = 1;
        let mut input = Cursor::new(body);
        input.all_headers()?;
        let request = input.u16()?;
        let begin_next = match request {
            BEGIN => true,
            COMMIT | ROLLBACK => {
                let ended = if request == COMMIT {
                    self.session.commit().map(|ended| ended.map(TransactionEvent::Committed))
                } else {
                    self.session.rollback().map(|ended| Some(TransactionEvent::RolledBack(ended)))
                };
                report(ended, reply);
                let _name = short_bytes(&mut input)?;
                !input.is_empty() && input.u8()? & BEGIN_NEXT != 0
            }
            other => return Err(DecodeError::malformed(format!("transaction manager request {other}"))),
        };
        if begin_next {
            let isolation = isolation(input.u8()?)?;
            report(self.session.begin(isolation).map(|descriptor| Some(TransactionEvent::Began(descriptor))), reply);
        }
        Ok(())
    }

    fn end_bulk(&mut self, load: BulkLoad, withdrawn: bool, reply: &mut Reply) {
        if withdrawn {
            return load.abandon(&mut self.session);
        }
        let _ = match load.finish(&mut self.session) {
            Ok(rows) => reply.done(Some(rows), false),
            Err(error) => reply.error(&error),
        };
    }
}

fn report(result: Result<Option<TransactionEvent>, SqlError>, reply: &mut Reply) {
    let _ = match result {
        Ok(Some(event)) => reply.transaction(event),
        Ok(None) => return,
        Err(error) => reply.error(&error),
    };
}

/// B_VARBYTE: the name of a transaction.
fn short_bytes<'a>(input: &mut Cursor<'a>) -> Result<&'a [u8], DecodeError> {
    if input.is_empty() {
        return Ok(&[]);
    }
    let length = usize::from(input.u8()?);
    input.bytes(length)
}

fn isolation(level: u8) -> Result<Option<Isolation>, DecodeError> {
    Ok(match level {
        0 => None,
        1 => Some(Isolation::ReadUncommitted),
        2 => Some(Isolation::ReadCommitted),
        3 => Some(Isolation::RepeatableRead),
        4 => Some(Isolation::Serializable),
        5 => Some(Isolation::Snapshot),
        other => return Err(DecodeError::malformed(format!("isolation level {other}"))),
    })
}

/// Whether a batch is the statement that rows in bulk follow.
fn is_bulk_insert(text: &str) -> bool {
    let mut words = text.split_ascii_whitespace();
    let mut next_is = |word: &str| words.next().is_some_and(|next| next.eq_ignore_ascii_case(word));
    next_is("INSERT") && next_is("BULK")
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
