//! Brings the rows of one result to a client: from its disk, from the server, or the newest of them from there.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::error::FlightError as WireError;
use futures::TryStreamExt;

use crate::flight::announcement::{Announcement, Held, plain_schema};
use crate::flight::client::{Batches, ClientError, FlightClient};
use crate::flight::client_cache::{ClientCache, KeptRows, Known, RowsWriter, now, question};

/// A statement with its values, and where its results are kept.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// One statement.
    pub sql: &'a str,
    /// Texts, one for each `?` or `$n`; they become what the statement expects there.
    pub parameters: &'a [String],
    /// Where its results are kept; none keeps nothing.
    pub cache: Option<&'a ClientCache>,
    /// Whether all rows are to come from the server, even where the same are on the disk.
    pub fresh: bool,
}

/// What of a result comes from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// Nothing: it has not changed.
    Nothing,
    /// The rows that were added since.
    NewRows,
    /// All of it.
    Whole,
}

/// A result on its way. What comes from the server goes into the cache meanwhile.
pub struct Answer<'a> {
    schema: SchemaRef,
    moved: Moved,
    /// Rows that are here, which come first.
    kept: Option<KeptRows>,
    arriving: Option<Batches>,
    keeping: Option<Keeping<'a>>,
}

/// Rows on their way into the cache.
struct Keeping<'a> {
    cache: &'a ClientCache,
    writer: RowsWriter,
    /// The result whose rows come before those that are written.
    before: Option<String>,
    question: String,
    known: Known,
}

impl<'a> Question<'a> {
    /// The last answer, if the server said so lately that it is the answer that it need not be asked again.
    pub async fn recent(&self, max_staleness: Duration) -> Option<Answer<'a>> {
        let cache = self.cache.filter(|_| !self.fresh)?;
        let known = cache.known(&question(self.sql, self.parameters)).filter(|known| known.is_fresh(max_staleness))?;
        let schema = plain_schema(&known.wire_schema).ok()?;
        let kept = cache.find(&known.identity, &schema).await?;
        Some(Answer::of_kept(schema, kept))
    }

    /// Asks a server, which decides whether whoever asks may have the rows, and whether those that are here are still the answer.
    /// When the connection is cut, the rest is asked for again, for some minutes; an error of the kind `Conflict` then says that only
    /// the whole can be had.
    ///
    /// # Errors
    /// When the server refuses the statement, or a parameter does not fit.
    pub async fn ask(&self, client: &mut FlightClient) -> Result<Answer<'a>, ClientError> {
        let Some(cache) = self.cache else {
            let announced = self.ask_for_all(client).await?;
            return Answer::of_arriving(client, announced, None, None);
        };
        let name = question(self.sql, self.parameters);
        let known = cache.known(&name).filter(|_| !self.fresh);
        let mut announced = client.ask(self.sql, self.parameters, &held(known.as_ref())).await?;
        if let Some(identity) = announced.identity.clone().filter(|_| !self.fresh)
            && let Some(kept) = cache.find(&identity, &announced.schema).await
        {
            // The server gives the basis with rows alone; that of the same result is still good.
            let basis = known.filter(|known| known.identity == identity).and_then(|known| known.basis);
            cache.remember(&name, &noted(&announced, identity, announced.basis.clone().or(basis)));
            return Ok(Answer::of_kept(announced.schema, kept));
        }
        let before = match &announced.appended_to {
            Some(before) => cache.find(before, &announced.schema).await,
            None => None,
        };
        if before.is_none() && !announced.is_whole() {
            // What was said to be here has gone or is damaged.
            announced = self.ask_for_all(client).await?;
        }
        let keeping = announced.identity.clone().and_then(|identity| {
            let known = noted(&announced, identity, announced.basis.clone());
            let (writer, before) = (cache.writer(&announced.schema)?, announced.appended_to.clone());
            Some(Keeping { cache, writer, before, question: name, known })
        });
        Answer::of_arriving(client, announced, before, keeping)
    }

    async fn ask_for_all(&self, client: &mut FlightClient) -> Result<Announcement, ClientError> {
        let announced = client.ask(self.sql, self.parameters, &Held::default()).await?;
        if !announced.is_whole() {
            return Err(
                WireError::protocol("a part of the result was left out for a client that has nothing of it").into()
            );
        }
        Ok(announced)
    }
}

/// What is shown to the server.
fn held(known: Option<&Known>) -> Held {
    let identity = known.map(|known| known.identity.clone());
    Held { identity, basis: known.and_then(|known| known.basis.clone()) }
}

/// What is remembered of an answer.
fn noted(announced: &Announcement, identity: String, basis: Option<String>) -> Known {
    Known { identity, basis, wire_schema: announced.info.schema.clone(), checked_at: now() }
}

impl<'a> Answer<'a> {
    fn of_kept(schema: SchemaRef, kept: KeptRows) -> Self {
        Self { schema, moved: Moved::Nothing, kept: Some(kept), arriving: None, keeping: None }
    }

    fn of_arriving(
        client: &mut FlightClient,
        announced: Announcement,
        before: Option<KeptRows>,
        keeping: Option<Keeping<'a>>,
    ) -> Result<Self, ClientError> {
        let (schema, moved) =
            (Arc::clone(&announced.schema), if before.is_some() { Moved::NewRows } else { Moved::Whole });
        Ok(Self { schema, moved, kept: before, arriving: Some(client.fetch(announced)?), keeping })
    }

    /// Its columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// What of it comes from the server.
    pub fn moved(&self) -> Moved {
        self.moved
    }

    /// The next rows, and whether they came from the server; none at the end, with which all is in the cache.
    ///
    /// # Errors
    /// As [`Question::ask`].
    pub async fn next_batch(&mut self) -> Result<Option<(RecordBatch, bool)>, ClientError> {
        if let Some(kept) = &mut self.kept {
            // Reading a disk waits for nobody, and others have to be heard: whoever presses Ctrl-C.
            tokio::task::yield_now().await;
            match kept.next_batch().map_err(ClientError::Kept)? {
                Some(batch) => return Ok(Some((batch, false))),
                None => self.kept = None,
            }
        }
        let Some(arriving) = &mut self.arriving else { return Ok(None) };
        let Some(batch) = arriving.try_next().await? else {
            self.arriving = None;
            self.settle();
            return Ok(None);
        };
        if let Some(keeping) = &mut self.keeping
            && let Err(error) = keeping.writer.write(&batch)
        {
            tracing::warn!("the result is not kept on the disk: {error}");
            self.keeping = None;
        }
        Ok(Some((batch, true)))
    }

    fn settle(&mut self) {
        let Some(Keeping { cache, writer, before, question, known }) = self.keeping.take() else { return };
        if cache.adopt(writer, &known.identity, before.as_deref()) {
            cache.remember(&question, &known);
        }
    }
}

impl fmt::Debug for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("schema", &self.schema).field("moved", &self.moved).finish_non_exhaustive()
    }
}
