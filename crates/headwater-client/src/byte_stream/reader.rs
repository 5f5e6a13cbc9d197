//! Reading bytes.

use std::io::{self, SeekFrom};
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use futures::future::BoxFuture;
use headwater_proto::controller::stream_info::AccessOperation;
use headwater_types::ScopedStream;
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};

use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::SegmentInfo;
use crate::reading::{Piece, SegmentReader};
use crate::segments::{SegmentStores, Target};

/// Most bytes asked for at a time: the reader holds at most two such pieces.
const PIECE_BYTES: usize = 1 << 20;

/// Reads the bytes of a stream of one segment from any offset on; at the tail it waits for more.
///
/// As an [`AsyncRead`] it comes to an end when the stream is sealed, and fails with the [`Error`] inside an [`io::Error`].
pub struct ByteReader {
    stores: SegmentStores,
    target: Target,
    reader: SegmentReader,
    /// Read and not yet taken: what stands before the reader's own offset.
    rest: Bytes,
    truncated_to: Option<u64>,
    seeking: Seeking,
}

/// How far an [`AsyncSeek`] is.
enum Seeking {
    No,
    /// So far from the end, wherever that is.
    /// Behind a lock that nobody needs, so that a reader can be shared: asking it something borrows it.
    FromEnd(i64, Mutex<BoxFuture<'static, Result<SegmentInfo>>>),
}

impl std::fmt::Debug for ByteReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ByteReader")
            .field("segment", &self.target.name)
            .field("offset", &self.offset())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Reads the bytes of a stream of one segment, from an offset on. The stream may be sealed.
    ///
    /// # Errors
    /// `NotFound`; `Invalid`: it has several segments.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn byte_reader(&self, stream: &ScopedStream, from: u64) -> Result<ByteReader> {
        let segment = match self.head_segments(stream).await?.as_slice() {
            [(segment, _)] => *segment,
            segments => {
                let what = format!("stream {stream} has {} segments and not one", segments.len());
                return Err(Error::new(ErrorKind::Invalid, what));
            }
        };
        let (stores, target) = (self.segments().clone(), Target::new(stream, segment, AccessOperation::Read));
        let reader = SegmentReader::new(stores.clone(), target.clone(), from, PIECE_BYTES);
        Ok(ByteReader { stores, target, reader, rest: Bytes::new(), truncated_to: None, seeking: Seeking::No })
    }
}

impl ByteReader {
    /// Offset of the byte that is read next.
    pub fn offset(&self) -> u64 {
        self.reader.offset() - self.rest.len() as u64
    }

    /// Bytes that can be taken without waiting.
    pub fn buffered(&self) -> usize {
        self.rest.len()
    }

    /// Goes on at an offset. One behind the end is waited for; one before the [`head`](Self::head) makes the next read fail.
    pub fn seek_to(&mut self, offset: u64) {
        let begin = self.offset();
        self.seeking = Seeking::No;
        self.truncated_to = None;
        match offset.checked_sub(begin).and_then(|skip| usize::try_from(skip).ok()) {
            Some(skip) if skip <= self.rest.len() => self.rest.advance(skip),
            _ => {
                self.rest = Bytes::new();
                self.reader.seek(offset);
            }
        }
    }

    /// Offset of the first byte that can be read.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`, `Denied`.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn head(&self) -> Result<u64> {
        Ok(self.stores.info(&self.target).await?.start)
    }

    /// Offset behind the last byte that is stored.
    ///
    /// # Errors
    /// As [`head`](Self::head).
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn tail(&self) -> Result<u64> {
        Ok(self.stores.info(&self.target).await?.end)
    }

    /// Where the stream begins, if the last read found that its bytes had been truncated.
    pub fn truncated_to(&self) -> Option<u64> {
        self.truncated_to
    }

    /// The next bytes, as many as came together, at most 1 MiB; waits for them at the tail. `None` at the end of a stream that is
    /// sealed.
    ///
    /// # Errors
    /// * `Truncated`: the bytes are gone; [`truncated_to`](Self::truncated_to) tells where the stream begins now;
    /// * `NotFound`: the stream was deleted;
    /// * `Invalid`: the stream is sealed and does not reach so far;
    /// * `Unavailable`, `Denied`. The next call tries again.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        std::future::poll_fn(|cx| self.poll_fill(cx)).await?;
        Ok(Some(std::mem::take(&mut self.rest)).filter(|bytes| !bytes.is_empty()))
    }

    /// Ready when there are bytes to take, or will never be any.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Ok(()));
        }
        match ready!(self.reader.poll_next(cx))? {
            Piece::Data { data, .. } => {
                self.rest = data;
                Poll::Ready(Ok(()))
            }
            Piece::End => Poll::Ready(Ok(())),
            Piece::Truncated { start } => {
                self.truncated_to = Some(start);
                let what = format!("{} begins at {start} now, behind {}", self.target.name, self.offset());
                Poll::Ready(Err(Error::new(ErrorKind::Truncated, what)))
            }
            Piece::Gone => {
                let what = format!("segment {} does not exist any more", self.target.name);
                Poll::Ready(Err(Error::new(ErrorKind::NotFound, what)))
            }
        }
    }
}

impl AsyncRead for ByteReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_fill(cx))?;
        let taken = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest.split_to(taken));
        Poll::Ready(Ok(()))
    }
}

impl AsyncSeek for ByteReader {
    /// # Errors
    /// An offset before 0 or beyond 2^64.
    fn start_seek(mut self: Pin<&mut Self>, position: SeekFrom) -> io::Result<()> {
        match position {
            SeekFrom::Start(offset) => self.seek_to(offset),
            SeekFrom::Current(by) => {
                let offset = moved(self.offset(), by)?;
                self.seek_to(offset);
            }
            SeekFrom::End(by) => {
                let (stores, target) = (self.stores.clone(), self.target.clone());
                self.seeking = Seeking::FromEnd(by, Mutex::new(Box::pin(async move { stores.info(&target).await })));
            }
        }
        Ok(())
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        if let Seeking::FromEnd(by, info) = &mut self.seeking {
            let info = info.get_mut().expect("nobody ever locks it");
            let (by, info) = (*by, ready!(info.as_mut().poll(cx)));
            self.seeking = Seeking::No;
            let offset = moved(info?.end, by)?;
            self.seek_to(offset);
        }
        Poll::Ready(Ok(self.offset()))
    }
}

fn moved(from: u64, by: i64) -> io::Result<u64> {
    from.checked_add_signed(by)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "seek to an offset before the first byte"))
}
