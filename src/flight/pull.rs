//! A result as it comes from a server, over connections that are cut: what is missing is asked for from the last whole message on.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::error::FlightError as WireError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, Ticket};
use futures::stream::{self, Stream};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use crate::delivery::Position;
use crate::flight::download::RESUME;
use crate::flight::status::may_be_answered_later;
use crate::runtime::retry::RetryPolicy;

/// How often a server is looked for that went away: for about six minutes, a little longer than it keeps what is missing.
const COME_BACK: RetryPolicy =
    RetryPolicy { attempts: 40, first_pause: Duration::from_millis(250), longest_pause: Duration::from_secs(10) };

/// What happens to a result on its way.
#[derive(Clone, Debug)]
pub enum Arrival {
    /// Rows begin to come: about so many bytes, where the server knows.
    Begins(Option<u64>),
    /// So many bytes more have come.
    Bytes(u64),
    /// The connection was cut; the server is asked again after a pause.
    Cut {
        /// How.
        reason: String,
        /// The pause.
        pause: Duration,
    },
    /// The rest comes.
    GoesOn,
}

/// Whoever is told of what happens to a result on its way.
#[derive(Clone)]
pub(crate) struct Watcher(pub(crate) Arc<dyn Fn(Arrival) + Send + Sync>);

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watcher")
    }
}

/// One result on its way.
pub(crate) struct Pull {
    calls: FlightServiceClient<Channel>,
    headers: MetadataMap,
    ticket: Ticket,
    watcher: Watcher,
    rows: Option<Streaming<FlightData>>,
    /// Where it is; none where the server does not tell.
    position: Option<Position>,
    /// Tries since the last message.
    attempt: u32,
}

impl Pull {
    /// Asks for the result of a ticket with these headers, that of whoever asks among them.
    pub(crate) fn new(
        calls: FlightServiceClient<Channel>,
        headers: MetadataMap,
        ticket: Ticket,
        watcher: Watcher,
    ) -> Self {
        Self { calls, headers, ticket, watcher, rows: None, position: Some(Position::default()), attempt: 0 }
    }

    /// The messages, without those that came twice.
    pub(crate) fn messages(self) -> impl Stream<Item = Result<FlightData, WireError>> + Send + 'static {
        stream::try_unfold(self, |mut pull| async move {
            let message = pull.next_message().await.map_err(WireError::from)?;
            Ok::<_, WireError>(message.map(|message| (message, pull)))
        })
    }

    async fn next_message(&mut self) -> Result<Option<FlightData>, Status> {
        loop {
            match self.try_next().await {
                Err(status) if self.may_go_on(&status) => {
                    self.rows = None;
                    self.attempt += 1;
                    let pause = COME_BACK.pause(self.attempt, &mut rand::rng());
                    (self.watcher.0)(Arrival::Cut { reason: status.message().to_owned(), pause });
                    tokio::time::sleep(pause).await;
                }
                came => return came,
            }
        }
    }

    async fn try_next(&mut self) -> Result<Option<FlightData>, Status> {
        let rows = match &mut self.rows {
            Some(rows) => rows,
            none => {
                let request = request(&self.ticket, &self.headers, self.position.unwrap_or_default())?;
                none.insert(self.calls.do_get(request).await?.into_inner())
            }
        };
        let Some(message) = rows.message().await? else { return Ok(None) };
        let after = Position::of_label(&message.app_metadata);
        if let (Some(before), Some(after)) = (self.position, after)
            && after.next != before.next + 1
        {
            return Err(Status::data_loss("the server left out a part of the result, or sent it twice"));
        }
        self.position = after;
        if std::mem::take(&mut self.attempt) > 0 {
            (self.watcher.0)(Arrival::GoesOn);
        }
        (self.watcher.0)(Arrival::Bytes((message.data_header.len() + message.data_body.len()) as u64));
        Ok(Some(message))
    }

    /// Whether the rest may come when it is asked for again: something came, the server tells where the result is, and the
    /// connection was cut or the server is going away. What it says itself of the statement is final.
    fn may_go_on(&self, status: &Status) -> bool {
        let begun = self.position.is_some_and(|position| position.next > 0);
        begun && may_be_answered_later(status) && self.attempt < COME_BACK.attempts
    }
}

fn request(ticket: &Ticket, headers: &MetadataMap, from: Position) -> Result<Request<Ticket>, Status> {
    let mut request = Request::new(ticket.clone());
    *request.metadata_mut() = headers.clone();
    let unsendable = |_| Status::internal("the position holds letters that cannot be sent");
    let from = MetadataValue::try_from(from.to_string()).map_err(unsendable)?;
    request.metadata_mut().insert(RESUME, from);
    Ok(request)
}
