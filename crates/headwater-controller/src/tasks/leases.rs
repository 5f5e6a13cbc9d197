//! Timers of open transactions.
//!
//! Each open transaction has one timer. A ping only moves the lease in the record; when the timer fires, the record
//! says whether the lease is really over, so a ping that races with its timer wins.

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
    pub(super) fn len(&self) -> usize {
        locked(&self.timers).armed.len()
    }

    /// Open transactions behind one, in the order of their streams.
    pub(super) fn behind(&self, after: Option<&Key>, count: usize) -> Vec<Key> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        locked(&self.timers).armed.range((from, Bound::Unbounded)).map(|(key, _)| key.clone()).take(count).collect()
    }

    pub(super) fn arm(&self, stream: &ScopedStream, id: TransactionId, after: Duration) {
        let key = (stream.clone(), id);
        let at = Instant::now() + after;
        let mut timers = locked(&self.timers);
        if let Some(before) = timers.armed.insert(key.clone(), at) {
            timers.due.remove(&(before, key.clone()));
        }
        timers.due.insert((at, key));
        assert_eq!(timers.due.len(), timers.armed.len(), "each timer is in both lists");
        drop(timers);
        self.changed.notify_one();
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
                self.leases.arm(&stream, id, RETRY);
            }
        }
    }

    async fn expire(self: &Arc<Self>, stream: &ScopedStream, id: TransactionId) -> Result<()> {
        let slot = self.slots.slot(stream);
        let Some((transaction, _)) = self.transaction(&slot, id).await? else { return Ok(()) };
        if transaction.phase != Phase::Open {
            return Ok(());
        }
        let remaining_ms = transaction.remaining_ms(self.now_ms());
        if remaining_ms > 0 {
            self.leases.arm(stream, id, Duration::from_millis(remaining_ms as u64));
            return Ok(());
        }
        info!(%stream, transaction = %id, "lease is over, aborting");
        self.end_by_abort(&slot, id).await?;
        Ok(())
    }
}
