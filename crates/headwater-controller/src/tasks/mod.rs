//! Doing what `state` decided: one lock per stream under which its state changes, one background driver per stream that
//! finishes what was left half done, one task for leases.
//!
//! ```text
//!   call ─► Open (lock, load) ─► settle what is unfinished ─► decide ─► record ─► perform ─► record the end
//!                                        ▲
//!   driver (after an error, a restart, a commit)
//! ```
//!
//! Invariants:
//! * nothing is done to a stream before its head record says that it will be (`Open::commit`)
//! * a stream with unfinished work or an open transaction has an entry in the work table (`Inner::mark`), so a start
//!   looks at those streams only
//! * what readers see in memory is what the table holds: it changes after a commit succeeded and is forgotten when one
//!   did not (`Open::drop`)
//! * a call that changes something runs to its end even if the caller goes away (`detached`)

mod autoscale;
mod clock;
mod commits;
mod controller;
mod groups;
mod items;
mod lag;
mod leases;
mod observed;
mod open;
mod queries;
mod recovery;
mod retention;
mod scaling;
mod scopes;
mod slots;
mod streams;
mod subscribers;
mod tables;
mod transactions;
mod truncation;
mod walks;
mod watermarks;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
pub use controller::Controller;
use headwater_types::SegmentName;
use tokio::sync::{Mutex, RwLock, Semaphore, watch};
use tokio::task::JoinSet;

use crate::codec::DecodeError;
use crate::model::{ControllerError, ControllerOptions, StreamConfig};
use crate::ports::{Change, Expect, PortError, Ports};
use crate::state::epochs::Segment;

type Result<T, E = ControllerError> = std::result::Result<T, E>;

/// Scopes share this many locks.
const SCOPE_LOCKS: usize = 64;
/// Streams that are driven at once in the background.
const DRIVERS_MAX: usize = 64;
/// Calls to the segment store that one step has under way at once.
const FAN_OUT: usize = 32;
/// Transaction numbers taken from the counter at a time; a restart skips what is left of them.
const TRANSACTION_NUMBERS: i64 = 10_000;

/// Everything a [`Controller`] shares.
struct Inner {
    ports: Ports,
    slots: slots::Slots,
    /// Read by who adds a stream to a scope, written by who creates or deletes the scope.
    scopes: [RwLock<()>; SCOPE_LOCKS],
    /// Scopes that somebody is emptying.
    emptying: std::sync::Mutex<std::collections::BTreeSet<headwater_types::Name>>,
    /// Held by who changes a key-value table or a reader group.
    items: [Mutex<()>; items::ITEM_LOCKS],
    /// Unused transaction numbers.
    numbers: Mutex<Range<i64>>,
    leases: leases::Leases,
    times: watermarks::Times,
    loads: autoscale::Loads,
    drivers: Semaphore,
    /// Held by who reads a page of records of epochs.
    reads: Semaphore,
    /// Held by who reads one.
    records: Semaphore,
    turns: walks::Turns,
    /// Held by who looks at what the readers of a group have written.
    looking: Arc<Semaphore>,
    options: ControllerOptions,
    clock: clock::Clock,
    stopped: watch::Sender<bool>,
}

impl Inner {
    fn new(ports: Ports, options: ControllerOptions) -> Self {
        Self {
            clock: clock::Clock::new(ports.clock.now_ms()),
            ports,
            slots: slots::Slots::new(options.records_bytes_max),
            scopes: std::array::from_fn(|_| RwLock::new(())),
            emptying: std::sync::Mutex::default(),
            items: std::array::from_fn(|_| Mutex::new(())),
            numbers: Mutex::new(0..0),
            leases: leases::Leases::default(),
            times: watermarks::Times::default(),
            loads: autoscale::Loads::default(),
            drivers: Semaphore::new(DRIVERS_MAX),
            reads: Semaphore::new(walks::READS),
            records: Semaphore::new(walks::RECORDS),
            turns: walks::Turns::default(),
            looking: Arc::new(Semaphore::new(1)),
            options,
            stopped: watch::Sender::new(false),
        }
    }

    /// What people are shown as the time. What is decided by a time is counted by [`moment`](Self::moment).
    fn wall_ms(&self) -> i64 {
        self.ports.clock.now_ms()
    }

    fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    /// Creates the segments with the scale policy and rollover size of the stream.
    async fn create_segments(&self, names: Vec<SegmentName>, config: &StreamConfig) -> Result<()> {
        let (hint, rollover) = (config.scaling.hint(), config.rollover());
        fan_out(names, |name| {
            let segments = Arc::clone(&self.ports.segments);
            async move { segments.create_segment(&name, hint, rollover).await }
        })
        .await?;
        Ok(())
    }

    async fn delete_segments(&self, names: Vec<SegmentName>) -> Result<()> {
        fan_out(names, |name| {
            let segments = Arc::clone(&self.ports.segments);
            async move { segments.delete_segment(&name).await }
        })
        .await?;
        Ok(())
    }

    /// Seals the segments and returns their final lengths; −1 for one that is gone.
    async fn seal_segments(&self, names: Vec<SegmentName>) -> Result<Vec<i64>> {
        let ends = fan_out(names, |name| {
            let segments = Arc::clone(&self.ports.segments);
            async move { segments.seal_segment(&name).await }
        })
        .await?;
        Ok(ends
            .into_iter()
            .map(|sealed| match sealed {
                crate::ports::Sealed::Sealed { end } => end as i64,
                crate::ports::Sealed::NoSuchSegment => crate::state::epochs::SealedSegment::BYTES_UNKNOWN,
            })
            .collect())
    }
}

/// Performs a step for many items, a bounded number at once, and returns the results in order. After an error nothing
/// new is started; what is under way is waited for, so that no late effect meets the next attempt.
async fn fan_out<I, T, F>(items: Vec<I>, perform: impl Fn(I) -> F) -> Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T, PortError>> + Send + 'static,
{
    let mut results: Vec<Option<T>> = Vec::new();
    results.resize_with(items.len(), || None);
    let mut waiting: VecDeque<(usize, I)> = items.into_iter().enumerate().collect();
    if waiting.len() == 1 {
        let (_, item) = waiting.pop_front().expect("it has one element");
        return Ok(vec![perform(item).await?]);
    }
    let mut running = JoinSet::new();
    let mut error = None;
    loop {
        while running.len() < FAN_OUT && error.is_none() {
            let Some((index, item)) = waiting.pop_front() else { break };
            let step = perform(item);
            running.spawn(async move { (index, step.await) });
        }
        match running.join_next().await {
            None => break,
            Some(Ok((index, Ok(result)))) => results[index] = Some(result),
            Some(Ok((_, Err(failure)))) => error = Some(failure.into()),
            Some(Err(failure)) => error = Some(ControllerError::Internal(failure.to_string())),
        }
    }
    match error {
        Some(error) => Err(error),
        None => Ok(results.into_iter().map(|result| result.expect("every step ran")).collect()),
    }
}

/// Runs to the end whatever becomes of the caller: a change that stops halfway would leave memory behind the table.
async fn detached<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) => Err(ControllerError::Internal(error.to_string())),
    }
}

impl From<DecodeError> for ControllerError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Newer { .. } => Self::Newer(error.to_string()),
            DecodeError::Malformed { .. } => Self::Damaged(error.to_string()),
        }
    }
}

fn put(key: Bytes, value: Bytes) -> Change {
    Change { key, expect: Expect::Any, put: Some(value) }
}

fn remove(key: Bytes) -> Change {
    Change { key, expect: Expect::Any, put: None }
}

/// Value of an entry whose key says it all.
fn present() -> Bytes {
    crate::codec::Encoder::new(1).finish()
}

fn segment_names<'a>(
    stream: &headwater_types::ScopedStream,
    segments: impl IntoIterator<Item = &'a Segment>,
) -> Vec<SegmentName> {
    segments.into_iter().map(|segment| stream.segment(segment.id)).collect()
}
