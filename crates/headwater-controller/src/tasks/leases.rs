//! Timers of open transactions.
//!
//! Each open transaction has one timer, and when it fires the lease is over. A ping sets it anew before it writes the
//! record, and whoever acts on a timer that fired looks at both after that: either it sees the ping, or one of the two
//! finds the record changed. So a ping that races with its timer wins, or is answered that the transaction is aborted.
//!
//! After a start each gets a whole lease, since nobody could ping while the server was away, up to where pings could have
//! brought it at most.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use headwater_types::{ScopedStream, TransactionId};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

use super::slots::locked;
use super::{Inner, Result};
use crate::state::transactions::Phase;

/// Pause before an expiry that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// An open transaction.
pub(super) type Key = (ScopedStream, TransactionId);

/// All armed timers.
#[derive(Default)]
pub(super) struct Leases {
    timers: Mutex<Timers>,
    changed: Notify,
}

/// Invariant: both hold the same timers.
#[derive(Default)]
struct Timers {
    due: BTreeSet<(Instant, Key)>,
    armed: BTreeMap<Key, Instant>,
}

impl Leases {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        locked(&self.timers).armed.len()
    }

    /// Open transactions behind one, in the order of their streams.
    pub(super) fn behind(&self, after: Option<&Key>, count: usize) -> Vec<Key> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        locked(&self.timers).armed.range((from, Bound::Unbounded)).map(|(key, _)| key.clone()).take(count).collect()
    }

    /// Sets a timer, or sets it anew.
    pub(super) fn arm(&self, stream: &ScopedStream, id: TransactionId, after: Duration) {
        self.set(stream, id, after, true);
    }

    /// Sets a timer unless there is one.
    pub(super) fn arm_missing(&self, stream: &ScopedStream, id: TransactionId, after: Duration) {
        self.set(stream, id, after, false);
    }

    fn set(&self, stream: &ScopedStream, id: TransactionId, after: Duration, anew: bool) {
        let key = (stream.clone(), id);
        let at = Instant::now() + after;
        let mut timers = locked(&self.timers);
        if let Some(before) = timers.armed.get(&key).copied() {
            if !anew {
                return;
            }
            timers.due.remove(&(before, key.clone()));
        }
        timers.armed.insert(key.clone(), at);
        timers.due.insert((at, key));
        assert_eq!(timers.due.len(), timers.armed.len(), "each timer is in both lists");
        drop(timers);
        self.changed.notify_one();
    }

    /// Until the timer fires; `None` if there is none.
    pub(super) fn remaining(&self, stream: &ScopedStream, id: TransactionId) -> Option<Duration> {
        let at = locked(&self.timers).armed.get(&(stream.clone(), id)).copied();
        at.map(|at| at.saturating_duration_since(Instant::now()))
    }

    pub(super) fn disarm(&self, stream: &ScopedStream, id: TransactionId) {
        let key = (stream.clone(), id);
        let mut timers = locked(&self.timers);
        if let Some(at) = timers.armed.remove(&key) {
            timers.due.remove(&(at, key));
        }
    }

    /// Waits for the next timer and takes it.
    async fn fired(&self) -> Key {
        loop {
            let changed = self.changed.notified();
            let next = locked(&self.timers).due.first().map(|(at, _)| *at);
            match next {
                None => changed.await,
                Some(at) if at <= Instant::now() => {
                    let mut timers = locked(&self.timers);
                    if timers.due.first().is_some_and(|(first, _)| *first == at)
                        && let Some((_, key)) = timers.due.pop_first()
                    {
                        timers.armed.remove(&key);
                        return key;
                    }
                }
                Some(at) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(at) => {}
                        () = changed => {}
                    }
                }
            }
        }
    }
}

impl Inner {
    /// Aborts transactions whose lease is over, until the controller stops.
    pub(super) async fn run_leases(self: Arc<Self>) {
        let mut stopped = self.stopped.subscribe();
        loop {
            let (stream, id) = tokio::select! {
                fired = self.leases.fired() => fired,
                _ = stopped.wait_for(|stopped| *stopped) => return,
            };
            if let Err(error) = self.expire(&stream, id).await {
                warn!(%stream, transaction = %id, %error, "could not end an overdue transaction, trying again");
                self.leases.arm_missing(&stream, id, RETRY);
            }
        }
    }

    async fn expire(self: &Arc<Self>, stream: &ScopedStream, id: TransactionId) -> Result<()> {
        let slot = self.slots.slot(stream);
        let Some((transaction, version)) = self.transaction(&slot, id).await? else { return Ok(()) };
        if transaction.phase != Phase::Open {
            return Ok(());
        }
        self.mark(&slot).await?;
        // Looked at after the record: the ping that wrote what was read there has set the timer before.
        if self.leases.remaining(stream, id).is_some() {
            return Ok(());
        }
        // Whoever changes the record meanwhile has set the timer anew or ended the transaction.
        if self.decide_abort(&slot, id, transaction, version).await? {
            info!(%stream, transaction = %id, "lease is over, aborting");
        }
        Ok(())
    }
}
