//! The engine as the server sees it.

use std::sync::Arc;

use crate::api::{Outcome, Refusal, Reply, Request};
use crate::io::Io;

/// How large a store may be and how it divides its memory. Everything not named here is derived.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of containers, fixed when the store is created; later starts use what the store says.
    pub containers: u32,
    /// Memory for everything, in bytes; at least [`MEMORY_BYTES_MIN`].
    pub memory_bytes: u64,
}

/// Less memory than this cannot hold the largest requests.
pub const MEMORY_BYTES_MIN: u64 = 128 << 20;

/// Why a store cannot be opened, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk refused.
    #[error("{path}: could not {action}")]
    Io {
        /// File or directory, relative to the data directory.
        path: String,
        /// What was attempted.
        action: &'static str,
        /// The disk's word.
        source: std::io::Error,
    },
    /// Stored bytes are not what was written.
    #[error("{path} at byte {offset}: {what}")]
    Damaged {
        /// File, relative to the data directory.
        path: String,
        /// Where.
        offset: u64,
        /// What was expected and found.
        what: String,
    },
    /// Written by a newer release; nothing was touched.
    #[error("{path} has format {found}, this release reads up to {known}")]
    Newer {
        /// File, relative to the data directory.
        path: String,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
}

/// Called once, from a thread of the engine, when the store cannot go on (a failed write or sync, damage, a broken
/// invariant). The process has to end: nothing may be acknowledged any more.
pub type OnFatal = Arc<dyn Fn(StoreError) + Send + Sync>;

/// Room for requests under way, in bytes; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    _permit: tokio::sync::OwnedSemaphorePermit,
}

/// A handle on the open store; clones share it.
#[derive(Clone, Debug)]
pub struct Engine {
    room: Arc<tokio::sync::Semaphore>,
}

/// Figures for `/metrics`.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Pairs of metric name and value; names end in their unit, counters in `_total`.
    pub values: Vec<(&'static str, u64)>,
}

impl Engine {
    /// Opens (or creates) the store on `io`, replays its journal and starts its threads. Blocks while it recovers.
    ///
    /// # Errors
    /// Any [`StoreError`]; the store is left as it was found.
    pub fn open(io: Io, options: &Options, on_fatal: OnFatal) -> Result<Self, StoreError> {
        let _ = (io, options, on_fatal);
        todo!("under construction")
    }

    /// Hands over a request; the reply comes from a thread of the engine. Never blocks. Requests handed over one after
    /// the other for one segment are decided in that order.
    pub fn submit(&self, request: Request, reply: Box<dyn Reply>) {
        let _ = request;
        reply.send(Err(Refusal::Closing));
    }

    /// [`submit`](Self::submit) and wait.
    ///
    /// # Cancel safety
    /// Dropping the future gives up waiting; the request is carried out all the same (a parked read is dropped).
    pub async fn call(&self, request: Request) -> Outcome {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.submit(request, Box::new(sender));
        receiver.await.unwrap_or(Err(Refusal::Closing))
    }

    /// Takes room for `bytes` of a request, waiting until there is some: the caller stops reading from its connection
    /// meanwhile. Keep the permit until the reply. `bytes` above the whole room wait for all of it.
    pub async fn room(&self, bytes: usize) -> Permit {
        let all = u32::try_from(bytes).unwrap_or(u32::MAX).min(1 << 20);
        let permit = self.room.clone().acquire_many_owned(all).await;
        Permit { _permit: permit.expect("the room is never closed") }
    }

    /// Draws the name for a transient segment of `parent`.
    pub fn transient_name(
        &self,
        parent: &headwater_types::SegmentName,
        writer: headwater_types::WriterId,
    ) -> headwater_types::SegmentName {
        parent.transient(writer, 0)
    }

    /// Figures of this moment.
    pub fn metrics(&self) -> Metrics {
        Metrics::default()
    }

    /// Refuses new requests, answers parked reads, makes everything durable, closes the journal and joins the threads.
    /// Blocks; call it from a thread that may.
    pub fn close(&self) {}
}
