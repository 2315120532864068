//! Sends one answer while listening for an attention, with the faults that a test has asked for.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use super::packet::{Packet, PacketReader, kind};
use super::requests::Cancel;
use crate::engine::{Faults, Stall};

/// How often a fault that waits looks whether it may go on.
const GLANCE: Duration = Duration::from_millis(5);

/// How sending an answer ended.
pub(crate) enum Sent {
    /// All of it went out.
    Whole {
        /// The client has cancelled meanwhile.
        attention: bool,
        /// The client has sent the start of its next message already.
        ahead: Option<Packet>,
    },
    /// The client is gone, or a fault has cut the connection.
    Gone,
}

/// Cancels the engine's run when the connection's task ends before it.
pub(crate) struct CancelOnDrop(pub(crate) Box<dyn Cancel>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

enum Heard {
    Attention,
    Packet(Packet),
    Gone,
}

/// Sends `chunks` to `writer` until they end, and listens to `reader` meanwhile: an attention sets `attention` and cancels the run.
pub(crate) async fn send<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    reader: &mut PacketReader<R>,
    writer: &mut W,
    mut chunks: mpsc::Receiver<Bytes>,
    cancel: &dyn Cancel,
    attention: &Arc<AtomicBool>,
    faults: &Faults,
) -> io::Result<Sent> {
    let mut breaks = Breaks::take(faults, attention);
    let sending = async {
        while let Some(chunk) = chunks.recv().await {
            if !breaks.write(writer, &chunk).await? {
                return Ok(false);
            }
        }
        writer.flush().await.map(|()| true)
    };
    tokio::pin!(sending);
    let listening = listen(reader, faults);
    tokio::pin!(listening);
    let (mut deaf, mut ahead) = (false, None);
    loop {
        tokio::select! {
            biased;
            heard = &mut listening, if !deaf => {
                deaf = true;
                match heard? {
                    Heard::Attention => {
                        attention.store(true, Ordering::SeqCst);
                        cancel.cancel();
                    }
                    Heard::Packet(packet) => ahead = Some(packet),
                    Heard::Gone => return Ok(Sent::Gone),
                }
            }
            sent = &mut sending => {
                let attention = attention.load(Ordering::SeqCst);
                return Ok(if sent? { Sent::Whole { attention, ahead } } else { Sent::Gone });
            }
        }
    }
}

/// What the client says while it is being answered.
async fn listen<R: AsyncRead + Unpin>(reader: &mut PacketReader<R>, faults: &Faults) -> io::Result<Heard> {
    match reader.next().await? {
        Some(packet) if packet.kind == kind::ATTENTION => {
            attention_delay(faults).await;
            Ok(Heard::Attention)
        }
        Some(packet) => Ok(Heard::Packet(packet)),
        None => Ok(Heard::Gone),
    }
}

/// Waits as long as attentions are to be answered late.
pub(crate) async fn attention_delay(faults: &Faults) {
    if let Some(limit) = faults.wire().slow_attention {
        released(faults, faults.releases(), Some(limit), || false).await;
    }
}

/// Waits for a [`Faults::release`] beyond the first `before`, for `limit` to pass or for `over` to say so.
async fn released(faults: &Faults, before: u64, limit: Option<Duration>, over: impl Fn() -> bool) {
    let end = limit.map(|limit| Instant::now() + limit);
    let mut glances = tokio::time::interval(GLANCE);
    glances.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while faults.releases() == before && !over() && end.is_none_or(|end| Instant::now() < end) {
        glances.tick().await;
    }
}

/// The breaks that a test has put into this answer.
struct Breaks<'a> {
    faults: &'a Faults,
    attention: &'a AtomicBool,
    cut: Option<u64>,
    stall: Option<Stall>,
    /// Releases before this answer: a later one ends its stall, also when it comes before the stall begins.
    releases: u64,
    sent: u64,
}

impl<'a> Breaks<'a> {
    fn take(faults: &'a Faults, attention: &'a AtomicBool) -> Self {
        let releases = faults.releases();
        let (cut, stall) = faults.take_break();
        Self { faults, attention, cut, stall, releases, sent: 0 }
    }

    /// Writes `bytes`, but stops where a break stands; `false` when the connection is to be closed.
    async fn write<W: AsyncWrite + Unpin>(&mut self, writer: &mut W, mut bytes: &[u8]) -> io::Result<bool> {
        if let Some(stall) = self.stall.take_if(|stall| stall.after_bytes <= self.sent + bytes.len() as u64) {
            let (now, later) = bytes.split_at(usize::try_from(stall.after_bytes - self.sent).unwrap_or(usize::MAX));
            if !self.put(writer, now).await? {
                return Ok(false);
            }
            writer.flush().await?;
            released(self.faults, self.releases, stall.duration, || self.attention.load(Ordering::SeqCst)).await;
            bytes = later;
        }
        self.put(writer, bytes).await
    }

    async fn put<W: AsyncWrite + Unpin>(&mut self, writer: &mut W, bytes: &[u8]) -> io::Result<bool> {
        if let Some(cut) = self.cut.filter(|cut| *cut <= self.sent + bytes.len() as u64) {
            let kept = usize::try_from(cut - self.sent).unwrap_or(usize::MAX);
            writer.write_all(&bytes[..kept]).await?;
            writer.flush().await?;
            return Ok(false);
        }
        self.sent += bytes.len() as u64;
        writer.write_all(bytes).await?;
        Ok(true)
    }
}
