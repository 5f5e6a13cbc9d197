//! The threads of an open store, one owner per piece of state.
//!
//! ```text
//!   callers ─► container 0…n ─► journal ─► acknowledgement
//!                   │   ▲           │
//!                   │   ├───────────┘ what is durable
//!                   │   ├── readers (chunks)
//!                   │   ├── lookups (catalogue on the disk) and values (of tables, in chunks)
//!                   │   └── keeper  (checkpoints, merges)      reaper (deletes chunks)
//!                   └────────►                                 witness (second witness, spare journal files)
//! ```
//!
//! Plain threads, not async tasks: what they do waits for the disk, and that should not share a scheduler with sockets.
//! Only a container's short steps run in other threads, too: see [`SharedContainer`]. Queues between threads are bounded by what the callers may have under way
//! ([`Engine::room`](crate::Engine::room)), so sending never blocks and the threads cannot wait for one another in a ring.

mod container;
mod journal;
mod keeper;
mod lookups;
mod lull;
mod merges;
mod readers;
mod reaper;
mod witness;

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use crate::api::{Reply, Request};
use crate::catalogue::Installed;
use crate::container::{Ack, Again, Back, CheckpointDone, CheckpointJob, ColdRead, Token};
use crate::error::StoreError;
use crate::journal::{Record, Reserve};
use crate::{OnFatal, StoreError as Fault};

pub(crate) use container::{Neighbours, SharedContainer};
pub(crate) use journal::JournalTask;
pub(crate) use keeper::KeeperTask;
pub(crate) use lookups::{Lookups, start_lookups};
pub(crate) use lull::Lull;
pub(crate) use merges::Merges;
pub(crate) use readers::start_readers;
pub(crate) use reaper::start_reaper;
pub(crate) use witness::WitnessTask;

/// Where an answer of this engine goes.
pub(crate) type Answer = Box<dyn Reply>;

impl Token for Answer {
    fn is_abandoned(&self) -> bool {
        (**self).is_abandoned()
    }
}

/// What a container is told.
pub(crate) enum ContainerInput {
    Request(Request, Answer),
    Durable(u64),
    CheckpointDone(Box<CheckpointDone>),
    ReadAgain(Again<Answer>),
    LookedUp(Back<Answer>),
    /// Runs of its catalogue were merged.
    Merged(Installed),
    Checkpoint,
    /// Answer once everything so far is in a durable checkpoint.
    Flush(Answer),
    /// Whether room on the disk is low has changed: [`Figures::is_low`] says what it is.
    Room,
    /// Drop reads that nobody waits for.
    Sweep,
    /// Refuse everything; answer when all that was ordered is durable.
    Close(Sender<()>),
}

impl ContainerInput {
    /// Whether it may take long: it goes through many segments, or waits for the disk.
    fn is_long(&self) -> bool {
        match self {
            Self::Request(request, _) => matches!(
                request,
                Request::Truncate { .. }
                    | Request::Locate { .. }
                    | Request::Delete { .. }
                    | Request::DeleteTable { .. }
                    | Request::Merge { .. }
                    | Request::MergeBatch { .. }
                    | Request::TableScan { .. }
                    | Request::TableDelta { .. }
            ),
            Self::Durable(_) | Self::Merged(_) => false,
            Self::CheckpointDone(_)
            | Self::ReadAgain(_)
            | Self::LookedUp(_)
            | Self::Checkpoint
            | Self::Flush(_)
            | Self::Room
            | Self::Sweep
            | Self::Close(_) => true,
        }
    }

    /// Whether a step may read stored bytes here and now.
    fn may_read_chunks(&self) -> bool {
        matches!(
            self,
            Self::Request(
                Request::TableGet { .. }
                    | Request::TableUpdate { .. }
                    | Request::TableScan { .. }
                    | Request::TableDelta { .. },
                _
            )
        )
    }
}

/// What the journal's thread is told.
pub(crate) enum JournalInput {
    /// Records of one container, and what to answer once they are durable.
    Records(Vec<Record>, Vec<Ack<Answer>>),
    /// A container's checkpoint is durable up to this operation.
    Covered(u32, u64),
    /// An image was let go; what it held may be released.
    Unpinned,
    Close(Sender<()>),
}

/// What the keeper's thread is told.
pub(crate) enum KeeperInput {
    Checkpoint(Box<CheckpointJob>),
    Close(Sender<()>),
}

/// A cold read and the container it belongs to.
pub(crate) type ReadInput = (u32, ColdRead<Answer>);

/// Figures the threads publish.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) journal_syncs: AtomicU64,
    pub(crate) journal_bytes: AtomicU64,
    pub(crate) journal_files_bytes: AtomicU64,
    pub(crate) journal_records: AtomicU64,
    pub(crate) journal_frame: AtomicU64,
    pub(crate) tail_discarded_bytes: AtomicU64,
    pub(crate) replayed_bytes: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) merges: AtomicU64,
    pub(crate) damaged_reads: AtomicU64,
    pub(crate) disk_full_waits: AtomicU64,
    /// Room on the disk is low, as containers were told.
    pub(crate) is_low: AtomicBool,
    pub(crate) storage_waits: AtomicU64,
    pub(crate) storage_refusals: AtomicU64,
    pub(crate) copies_due: AtomicU64,
    /// Bytes the scrubber has read.
    pub(crate) scrub_bytes: AtomicU64,
    /// Bytes of its present pass, and how many of them it has read.
    pub(crate) scrub_pass_bytes: AtomicU64,
    pub(crate) scrub_pass_read_bytes: AtomicU64,
    pub(crate) scrub_passes: AtomicU64,
    pub(crate) scrub_findings: AtomicU64,
    /// Times it waited for object storage.
    pub(crate) scrub_waits: AtomicU64,
    pub(crate) containers: Vec<ContainerFigures>,
}

impl Figures {
    /// Counts a wait for something that may pass, and tells a person now and then.
    pub(crate) fn waits(&self, error: &StoreError, what: &'static str) {
        let counter = if error.is_full() { &self.disk_full_waits } else { &self.storage_waits };
        if counter.fetch_add(1, Relaxed).is_multiple_of(60) {
            tracing::warn!(error = error as &dyn std::error::Error, "{what}");
        }
    }

    /// Counts a read that was refused because of this, and tells a person.
    pub(crate) fn note_failed_read(&self, error: &StoreError) {
        if error.is_passing() {
            self.storage_refusals.fetch_add(1, Relaxed);
            tracing::warn!(error = error as &dyn std::error::Error, "stored bytes cannot be reached");
        } else {
            self.damaged_reads.fetch_add(1, Relaxed);
            tracing::error!(error = error as &dyn std::error::Error, "stored bytes cannot be served");
        }
    }
}

/// Figures of one container.
#[derive(Debug, Default)]
pub(crate) struct ContainerFigures {
    /// Last operation ordered.
    pub(crate) sequence: AtomicU64,
    /// Last operation the durable checkpoint includes.
    pub(crate) checkpointed: AtomicU64,
    pub(crate) unstored_bytes: AtomicU64,
    pub(crate) cached_bytes: AtomicU64,
    pub(crate) catalogue_bytes: AtomicU64,
    pub(crate) index_bytes: AtomicU64,
    pub(crate) segments: AtomicU64,
    pub(crate) damaged_reads: AtomicU64,
    /// Requests that wait for memory, for room on the disk, or for the journal.
    pub(crate) held: AtomicU64,
}

/// Tells containers and a person whether room on the disk is low, if that has changed. Whoever may have changed it calls
/// this, and one thread does so again and again, so that nobody is left with old news.
pub(crate) fn announce(reserve: &Reserve, figures: &Figures, containers: &[Arc<SharedContainer>]) {
    let is_low = reserve.is_low();
    if figures.is_low.swap(is_low, SeqCst) == is_low {
        return;
    }
    let (there, wanted) = reserve.bytes();
    if is_low {
        tracing::warn!(reserve = there, wanted, "disk is full, writes wait; what frees room goes on");
    } else {
        tracing::info!(reserve = there, "there is room on the disk again");
    }
    for container in containers {
        container.send(ContainerInput::Room);
    }
}

/// Starts a thread. A store has a handful for its whole life.
pub(crate) fn start(
    name: String,
    fatal: OnFatal,
    run: impl FnOnce() -> Result<(), StoreError> + Send + 'static,
) -> JoinHandle<()> {
    std::thread::Builder::new()
        .name(name)
        .spawn(move || {
            if let Err(fault) = run() {
                fatal(fault);
            }
        })
        .expect("the system has room for a handful of threads")
}

/// Tells `fatal` once, whichever thread is first.
pub(crate) fn once(fatal: OnFatal) -> OnFatal {
    let told = std::sync::Once::new();
    Arc::new(move |fault: Fault| {
        let mut fault = Some(fault);
        told.call_once(|| fatal(fault.take().expect("called once")));
    })
}
