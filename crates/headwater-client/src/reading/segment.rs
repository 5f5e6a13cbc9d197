//! One segment's bytes from an offset on: the next piece is asked for while the last one is worked on.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use headwater_wire::{Reply, Request};
use tokio::time::Instant;
use tokio_util::sync::ReusableBoxFuture;

use crate::connection::Connection;
use crate::error::{Error, ErrorKind, Result};
use crate::retry::Backoff;
use crate::segments::{SegmentStores, Target, Verdict, offset, signed, unexpected};

/// What comes next in a segment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Piece {
    /// Bytes that follow on those before.
    Data {
        data: Bytes,
        /// Nothing followed on them when they were sent.
        at_tail: bool,
    },
    /// The segment is sealed and everything was read.
    End,
    /// What was to be read is gone; the segment begins here now, further on.
    Truncated { start: u64 },
    /// The segment does not exist any more.
    Gone,
}

/// Reads a segment forward. At its tail, the next piece comes when it is written.
pub(crate) struct SegmentReader {
    stores: SegmentStores,
    target: Target,
    /// Of the piece that is asked for, or will be.
    offset: u64,
    /// Most bytes of a piece.
    piece_bytes: i32,
    /// Shared with other readers.
    connection: Option<Connection>,
    asked: Option<ReusableBoxFuture<'static, (Result<Piece>, Option<Connection>)>>,
    /// Done: there is nothing behind.
    over: bool,
}

impl std::fmt::Debug for SegmentReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentReader")
            .field("segment", &self.target.name)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

impl SegmentReader {
    /// Begins at `offset`; pieces have at most `piece_bytes`.
    pub(crate) fn new(stores: SegmentStores, target: Target, offset: u64, piece_bytes: usize) -> Self {
        let piece_bytes = i32::try_from(piece_bytes).unwrap_or(i32::MAX);
        Self { stores, target, offset, piece_bytes, connection: None, asked: None, over: false }
    }

    /// Offset of the next piece.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes on somewhere else.
    pub(crate) fn seek(&mut self, offset: u64) {
        self.offset = offset;
        self.asked = None;
        self.over = false;
    }

    /// The next piece; waits for it at the tail.
    ///
    /// # Errors
    /// `Unavailable`, `Denied` and what else a segment store refuses for. The next call tries again.
    ///
    /// # Cancel safety
    /// Nothing is lost: the next call goes on with the same piece.
    pub(crate) async fn next(&mut self) -> Result<Piece> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`next`](Self::next), for those who are polled themselves.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece>> {
        if self.over {
            return Poll::Ready(Ok(Piece::End));
        }
        self.ask();
        let asked = self.asked.as_mut().expect("it was just asked");
        let (outcome, connection) = ready!(asked.poll(cx));
        self.asked = None;
        self.connection = connection;
        let piece = outcome?;
        match &piece {
            Piece::Data { data, .. } => {
                self.offset += data.len() as u64;
                self.ask();
            }
            Piece::End => self.over = true,
            Piece::Truncated { .. } | Piece::Gone => {}
        }
        Poll::Ready(Ok(piece))
    }

    fn ask(&mut self) {
        if self.asked.is_none() {
            let (stores, target) = (self.stores.clone(), self.target.clone());
            let (offset, piece_bytes, connection) = (self.offset, self.piece_bytes, self.connection.take());
            self.asked = Some(ReusableBoxFuture::new(read(stores, target, offset, piece_bytes, connection)));
        }
    }
}

/// Asks for one piece until there is an answer, for as long as it takes at the tail.
async fn read(
    stores: SegmentStores,
    target: Target,
    from: u64,
    piece_bytes: i32,
    mut connection: Option<Connection>,
) -> (Result<Piece>, Option<Connection>) {
    // A read may wait at the tail for hours before something fails: time is counted from then.
    let mut backoff: Option<Backoff> = None;
    loop {
        let begun = Instant::now();
        let outcome = attempt(&stores, &target, from, piece_bytes, &mut connection).await;
        let error = match outcome {
            Ok(Attempt::Piece(piece)) => return (Ok(piece), connection),
            // An answer without data: the server has let go of a read that waited too long.
            Ok(Attempt::Empty) => {
                backoff = None;
                continue;
            }
            Ok(Attempt::Again(error)) => error,
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                stores.forget_place(&target);
                connection = None;
                error
            }
            Err(error) => return (Err(error), None),
        };
        tracing::debug!(target: crate::told::RETRY, segment = %target.name, %error, "read is tried again");
        if begun.elapsed() > stores.retry_for() {
            backoff = None;
        }
        if !backoff.get_or_insert_with(|| Backoff::for_at_most(stores.retry_for())).pause().await {
            return (Err(error), None);
        }
    }
}

enum Attempt {
    Piece(Piece),
    Empty,
    Again(Error),
}

async fn attempt(
    stores: &SegmentStores,
    target: &Target,
    from: u64,
    suggested_length: i32,
    connection: &mut Option<Connection>,
) -> Result<Attempt> {
    let token = stores.token(target).await?;
    let asked = signed(from)?;
    if connection.as_ref().is_none_or(|connection| connection.ended().is_some()) {
        *connection = Some(stores.share(target).await?);
    }
    let open = connection.as_ref().expect("there is one now");
    let reply = open.call(|request_id| Request::ReadSegment {
        segment: target.text(),
        offset: asked,
        suggested_length,
        token,
        request_id,
    });
    let reply = match stores.judge(target, reply.await?) {
        Verdict::Answer(reply) => reply,
        Verdict::Again(error) => {
            *connection = None;
            return Ok(Attempt::Again(error));
        }
        Verdict::Refused(error) => return Err(error),
    };
    match reply {
        Reply::SegmentRead { segment, offset: at, .. } if at != asked || segment != target.text() => {
            let what =
                format!("segment store sent bytes of {segment} at {at} that were asked of {} at {asked}", target.name);
            Err(Error::new(ErrorKind::Protocol, what))
        }
        Reply::SegmentRead { data, end_of_segment: true, .. } if data.is_empty() => Ok(Attempt::Piece(Piece::End)),
        Reply::SegmentRead { data, .. } if data.is_empty() => Ok(Attempt::Empty),
        Reply::SegmentRead { data, at_tail, .. } => Ok(Attempt::Piece(Piece::Data { data, at_tail })),
        // A read behind the end of a sealed segment.
        Reply::SegmentIsSealed { .. } => Ok(Attempt::Piece(Piece::End)),
        // Whoever went on there would come to the same for ever.
        Reply::SegmentIsTruncated { start_offset, .. } if start_offset <= asked => {
            let what = format!("segment store says that {} begins at {start_offset}, not at {asked}", target.name);
            Err(Error::new(ErrorKind::Protocol, what))
        }
        Reply::SegmentIsTruncated { start_offset, .. } => {
            Ok(Attempt::Piece(Piece::Truncated { start: offset(start_offset)? }))
        }
        Reply::NoSuchSegment { .. } => Ok(Attempt::Piece(Piece::Gone)),
        reply => Err(unexpected(target, "ReadSegment", &reply)),
    }
}
