//! One append at a time to one segment, with its outcome known: what changes shared state is built on it.
//!
//! Guarantees:
//! * an append is stored at most once, through lost connections and restarts of servers: the segment remembers the number of
//!   the last one, and is asked for it before anything is sent again
//! * an append at an offset is told to have failed only if it is not stored and never will be
//! * what was given up half done keeps its number for ever; the next append has a higher one
//!
//! Source: the conditional writer of Pravega's Java client works alike.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_types::{EventNumber, WriterId, attribute};
use headwater_wire::{OutgoingAppend, Reply};
use tokio::sync::mpsc;

use crate::connection::{AppendSink, Connection};
use crate::error::{Error, ErrorKind, Result};
use crate::retry::Backoff;
use crate::segments::{SegmentStores, Target, Verdict, signed, unexpected};

/// See the module.
pub(crate) struct Appender {
    stores: SegmentStores,
    target: Target,
    writer: WriterId,
    /// Last number given.
    given: EventNumber,
    session: Option<Session>,
}

/// The writer's registration on one connection.
struct Session {
    connection: Connection,
    id: i64,
    /// Number of the last append that the segment had when the writer was registered.
    stored: EventNumber,
    /// What the server says under the registration's id.
    replies: mpsc::UnboundedReceiver<Result<Reply>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.forget(self.id);
    }
}

struct Replies(mpsc::UnboundedSender<Result<Reply>>);

impl AppendSink for Replies {
    fn reply(&self, reply: Reply) {
        let _ = self.0.send(Ok(reply));
    }

    fn closed(&self, error: &Error) {
        let _ = self.0.send(Err(error.clone()));
    }
}

impl Session {
    async fn reply(&mut self) -> Result<Reply> {
        match self.replies.recv().await {
            Some(outcome) => outcome,
            None => Err(Error::new(ErrorKind::Unavailable, "connection was lost")),
        }
    }
}

/// What is appended, and where.
#[derive(Clone, Copy, Debug)]
enum How {
    /// One event, at the end.
    Event,
    /// One event, if the segment has this length.
    EventAt(i64),
    /// Bytes as they are, if the segment has this length.
    BytesAt(i64),
}

/// What became of one attempt.
enum Attempt {
    Stored,
    /// The segment had another length.
    Overtaken,
    /// The registration is of no use any more.
    Again(Error),
}

impl Appender {
    /// Under an identity of its own.
    pub(crate) fn new(stores: SegmentStores, target: Target) -> Self {
        let writer = WriterId(uuid::Uuid::new_v4().as_u128());
        Self { stores, target, writer, given: 0, session: None }
    }

    /// Appends one event, whose header is added; with `at`, only if the segment has exactly that length. Whether it is stored,
    /// which without `at` it always is.
    ///
    /// # Errors
    /// `Unavailable`: the event may be stored. `Sealed`, `NotFound`, `Denied` and others: it is not.
    ///
    /// # Cancel safety
    /// The event may be stored.
    pub(crate) async fn append(&mut self, event: &Bytes, at: Option<u64>) -> Result<bool> {
        self.store(event, at.map_or(Ok(How::Event), |at| signed(at).map(How::EventAt))?).await
    }

    /// As [`append`](Self::append) at an offset, without a header: any bytes.
    pub(crate) async fn append_bytes_at(&mut self, bytes: &Bytes, at: u64) -> Result<bool> {
        self.store(bytes, How::BytesAt(signed(at)?)).await
    }

    async fn store(&mut self, data: &Bytes, how: How) -> Result<bool> {
        let mut backoff = Backoff::for_at_most(self.stores.retry_for());
        let (mut number, mut is_doubtful) = (None, false);
        loop {
            let limit = backoff.attempt(self.stores.request_timeout());
            let (error, was_sent) = match self.attempt(data, how, &mut number, is_doubtful, limit).await {
                Ok(Attempt::Stored) => return Ok(true),
                Ok(Attempt::Overtaken) => return Ok(false),
                Ok(Attempt::Again(error)) => (error, false),
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    self.stores.forget_place(&self.target);
                    (error, true)
                }
                // A server that cannot be understood may have stored it all the same.
                Err(error) if error.kind() == ErrorKind::Protocol && number.is_some() => {
                    let what = format!("{}: whether an event is stored is not known", self.target.name);
                    (Error::caused(ErrorKind::Unavailable, what, error), true)
                }
                Err(error) if is_doubtful => {
                    let what = format!("{}: whether an event is stored is not known", self.target.name);
                    return Err(Error::caused(ErrorKind::Unavailable, what, error));
                }
                Err(error) => return Err(error),
            };
            self.session = None;
            is_doubtful |= was_sent && number.is_some();
            tracing::debug!(target: crate::told::RETRY, segment = %self.target.name, %error, "append is tried again");
            if !backoff.pause().await {
                return Err(error);
            }
        }
    }

    async fn attempt(
        &mut self,
        data: &Bytes,
        how: How,
        number: &mut Option<EventNumber>,
        is_doubtful: bool,
        limit: Duration,
    ) -> Result<Attempt> {
        // Not put back when the future is dropped: the next append registers anew.
        let session = self.session.take().filter(|session| session.connection.ended().is_none());
        let mut session = match session {
            Some(session) => session,
            None => match self.set_up(limit).await? {
                Ok(session) => session,
                Err(error) => return Ok(Attempt::Again(error)),
            },
        };
        if number.is_some_and(|number| session.stored >= number) {
            self.session = Some(session);
            return Ok(Attempt::Stored);
        }
        let number = *number.get_or_insert_with(|| {
            self.given = self.given.max(session.stored) + 1;
            self.given
        });
        let reply = tokio::time::timeout(limit, self.send(&mut session, data, how, number)).await;
        let reply = reply.unwrap_or_else(|_| {
            let what = format!("segment store did not answer about {} within {limit:.1?}", self.target.name);
            Err(Error::new(ErrorKind::Unavailable, what))
        });
        let reply = match self.stores.judge(&self.target, reply?) {
            Verdict::Answer(reply) => reply,
            Verdict::Again(error) => return Ok(Attempt::Again(error)),
            Verdict::Refused(error) => return Err(error),
        };
        match reply {
            Reply::DataAppended { .. } => {
                self.session = Some(session);
                Ok(Attempt::Stored)
            }
            // The one that was sent before may have moved the end itself. If it has not yet, it cannot any more.
            Reply::ConditionalCheckFailed { .. } if is_doubtful => match self.set_up(limit).await? {
                Ok(session) => {
                    let is_stored = session.stored >= number;
                    self.session = Some(session);
                    Ok(if is_stored { Attempt::Stored } else { Attempt::Overtaken })
                }
                Err(error) => Ok(Attempt::Again(error)),
            },
            Reply::ConditionalCheckFailed { .. } => {
                self.session = Some(session);
                Ok(Attempt::Overtaken)
            }
            // Something of an earlier connection arrived late; what the segment has got is asked again.
            Reply::InvalidEventNumber { .. } => {
                let what = format!("{}: an earlier append came late", self.target.name);
                Err(Error::new(ErrorKind::Unavailable, what))
            }
            reply => Err(unexpected(&self.target, "an append", &reply)),
        }
    }

    /// Sends it and waits for what the server says about it.
    async fn send(&self, session: &mut Session, data: &Bytes, how: How, number: EventNumber) -> Result<Reply> {
        let append = |request_id, data| OutgoingAppend {
            request_id,
            writer: self.writer,
            data,
            event_count: 1,
            last_event_number: number,
        };
        let conditional = match how {
            How::Event => None,
            How::EventAt(at) => Some((at, true)),
            How::BytesAt(at) => Some((at, false)),
        };
        if let Some((at, is_event)) = conditional {
            let connection = session.connection.clone();
            let answered = connection.append_at(|id| append(id, data.clone()), at, is_event);
            return tokio::select! {
                reply = answered => reply,
                // Some servers tell of failures under the registration's id.
                reply = session.reply() => reply,
            };
        }
        let framed = headwater_records::revisioned::event(data);
        let framed = framed.map_err(|error| Error::caused(ErrorKind::Invalid, "event is too large", error))?;
        session.connection.append(append(session.id, framed))?;
        loop {
            match session.reply().await? {
                Reply::DataAppended { event_number, .. } if event_number < number => {}
                reply => return Ok(reply),
            }
        }
    }

    /// Registers the writer on a connection of its own. The inner error is one that another attempt may change.
    async fn set_up(&self, limit: Duration) -> Result<Result<Session>> {
        let endpoint = self.stores.place(&self.target).await?;
        let token = self.stores.token(&self.target).await?;
        let connection = self.stores.open(&endpoint).await?;
        let (told, replies) = mpsc::unbounded_channel();
        let id = connection.set_up(self.writer, self.target.text(), token, Arc::new(Replies(told)))?;
        let mut session = Session { connection, id, stored: 0, replies };
        let reply = tokio::time::timeout(limit, session.reply()).await;
        let reply = reply.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Unavailable, format!("segment store did not answer within {limit:.1?}")))
        });
        match self.stores.judge(&self.target, reply?) {
            Verdict::Answer(Reply::AppendSetup { last_event_number, .. }) => {
                session.stored = if last_event_number == attribute::NULL { 0 } else { last_event_number };
                Ok(Ok(session))
            }
            Verdict::Answer(reply) => Err(unexpected(&self.target, "SetupAppend", &reply)),
            Verdict::Again(error) => Ok(Err(error)),
            Verdict::Refused(error) => Err(error),
        }
    }
}
