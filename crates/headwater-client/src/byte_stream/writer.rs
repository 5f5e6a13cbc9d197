//! Writing bytes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use headwater_proto::controller::stream_info::AccessOperation;
use headwater_types::ScopedStream;
use headwater_types::limits::EVENT_BYTES_MAX;
use tokio::sync::Mutex;

use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::segments::Target;
use crate::writer::{Ack, EventWriter, EventWriterOptions};

/// Bytes that are appended together at most. Source: the pieces of Pravega's clients.
const PIECE_BYTES: usize = EVENT_BYTES_MAX;

/// How a [`ByteWriter`] works.
#[derive(Clone, Debug, Default)]
pub struct ByteWriterOptions {
    options: EventWriterOptions,
}

impl ByteWriterOptions {
    /// Most bytes of several writes that are appended together. From 1 KiB to 8 MiB; default 512 KiB.
    #[must_use]
    pub fn batch_bytes(self, bytes: usize) -> Self {
        Self { options: self.options.batch_bytes(bytes) }
    }

    /// Most bytes that are written and not yet stored; writing waits while there are as many. At least 64 KiB; default 32 MiB.
    #[must_use]
    pub fn window_bytes(self, bytes: usize) -> Self {
        Self { options: self.options.window_bytes(bytes) }
    }
}

/// Appends bytes to a stream of one segment, each exactly once and in order, through lost connections and restarts of servers.
///
/// Several writers may append to one stream; what is written at once with at most 8 MiB is never mixed with another's.
///
/// After the first failure nothing is taken any more, so that no bytes are missing before others: make another writer, look at
/// the [`tail`](Self::tail), and go on from there.
///
/// Cheap to clone; clones share everything. When the last one is dropped, what is under way is given up:
/// [`flush`](Self::flush) first.
#[doc = crate::example!("../examples/byte_writer.rs")]
#[derive(Clone, Debug)]
pub struct ByteWriter {
    client: Client,
    target: Target,
    writer: EventWriter,
    /// Held by whoever hands over pieces of one write.
    order: Arc<Mutex<()>>,
}

/// Bytes on their way: resolves once they are stored, with the offset behind the last one; `None` if the acknowledgement was
/// lost and the bytes were found stored. Dropping it changes nothing for the bytes.
#[derive(Debug)]
#[must_use = "bytes are stored when their ByteAck resolves; call flush if single writes do not matter"]
pub struct ByteAck(Ack);

impl Future for ByteAck {
    type Output = Result<Option<u64>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let written = std::task::ready!(Pin::new(&mut self.0).poll(cx))?;
        Poll::Ready(Ok(written.offset.map(|offset| offset + written.length)))
    }
}

impl Client {
    /// A writer of bytes to a stream of one segment. Make it with [`StreamConfig::fixed(1)`](crate::StreamConfig::fixed).
    ///
    /// # Errors
    /// `NotFound`; `Sealed`; `Invalid`: it has several segments.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn byte_writer(&self, stream: &ScopedStream, options: ByteWriterOptions) -> Result<ByteWriter> {
        let segment = self.only_segment(stream).await?;
        let target = Target::new(stream, segment, AccessOperation::Write);
        let all = crate::model::SegmentRange { id: segment, range: headwater_types::KeyRange::split(1)[0] };
        let writer = EventWriter::of_bytes(self, stream, all, options.options);
        Ok(ByteWriter { client: self.clone(), target, writer, order: Arc::default() })
    }
}

impl ByteWriter {
    /// The stream.
    pub fn stream(&self) -> &ScopedStream {
        self.writer.stream()
    }

    /// Hands over bytes and returns as soon as there is room for them; the [`ByteAck`] resolves once all are stored.
    ///
    /// * `bytes`: at least one. More than 8 MiB are appended in pieces, between which other writers' bytes may come.
    ///
    /// # Errors
    /// * `Invalid`: there are no bytes;
    /// * that of the first failure: nothing is taken any more.
    ///
    /// The `ByteAck` fails with
    /// * `Unavailable`: the server did not answer within the time for retries. The bytes **may be stored**, all or those of the
    ///   first pieces;
    /// * `Sealed`: the bytes, or those of the last pieces, are not stored;
    /// * `NotFound`, `Denied`: the stream was deleted, the permission withdrawn.
    ///
    /// # Cancel safety
    /// Dropping the future before it is ready writes nothing of at most 8 MiB, and the first pieces of more. Dropping the
    /// `ByteAck` changes nothing.
    pub async fn write(&self, bytes: impl Into<Bytes>) -> Result<ByteAck> {
        let mut bytes = bytes.into();
        if bytes.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "no bytes to write"));
        }
        let _order = self.order.lock().await;
        while bytes.len() > PIECE_BYTES {
            let piece = bytes.split_to(PIECE_BYTES);
            // Pieces are stored in order: the last one tells of all.
            drop(self.writer.push(0.0, &[piece]).await?);
        }
        Ok(ByteAck(self.writer.push(0.0, &[bytes]).await?))
    }

    /// Waits until everything that was handed over before is stored.
    ///
    /// # Errors
    /// The first failure.
    ///
    /// # Cancel safety
    /// Gives up waiting.
    pub async fn flush(&self) -> Result<()> {
        // Told again and again: bytes behind a gap are worth nothing.
        self.writer.flush_without_gap().await
    }

    /// Bytes that are handed over and not yet stored.
    pub fn bytes_under_way(&self) -> usize {
        self.writer.bytes_under_way()
    }

    /// Offset behind the last byte that is stored, whoever wrote it.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`, `Denied`.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn tail(&self) -> Result<u64> {
        Ok(self.client.segments().info(&self.target).await?.end)
    }

    /// Drops everything before an offset. Nothing happens if it is gone already.
    ///
    /// # Errors
    /// `Invalid`: the stream does not reach so far. `NotFound`, `Unavailable`, `Denied`.
    ///
    /// # Cancel safety
    /// It may be gone.
    pub async fn truncate(&self, to: u64) -> Result<()> {
        self.client.segments().truncate(&self.target, to).await
    }

    /// Waits until everything that was handed over is stored, and lets nothing be written any more, by anybody. Readers come
    /// to an end then. Sealing twice does no harm.
    ///
    /// The segment is sealed and not the stream, which can be deleted only after [`Client::seal_stream`].
    ///
    /// # Errors
    /// The first failure of what was written; then the stream is not sealed. `NotFound`, `Unavailable`, `Denied`.
    ///
    /// # Cancel safety
    /// It may be sealed.
    pub async fn seal(&self) -> Result<()> {
        self.flush().await?;
        self.client.segments().seal(&self.target).await
    }
}
