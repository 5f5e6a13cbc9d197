//! Counts what is stored in each segment, so that streams can be scaled by it.
//!
//! A writer looks its counters up once, when it is set up, and then only adds to them. Counters of segments that no
//! writer has any more are dropped when they are read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater_controller::{Load, LoadMeter};
use headwater_engine::Engine;
use headwater_types::{SegmentName, StreamSegment};

/// What came into one segment since it was last asked for.
#[derive(Debug, Default)]
pub struct Counter {
    events: AtomicU64,
    bytes: AtomicU64,
}

impl Counter {
    /// Adds an append that was stored.
    pub fn add(&self, events: u32, bytes: usize) {
        self.events.fetch_add(events.into(), Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// The counters of all segments that clients write to.
#[derive(Clone, Debug, Default)]
pub struct Loads(Arc<Mutex<Counters>>);

type Counters = BTreeMap<SegmentName, (StreamSegment, Arc<Counter>)>;

impl Loads {
    /// Counters of a stream's segment, or of the segment that a transaction's or a transient one is for. `None` for a
    /// name that is no stream's.
    pub fn counter(&self, segment: &SegmentName) -> Option<Arc<Counter>> {
        let name = segment.parent().unwrap_or_else(|| segment.clone());
        let counted = name.stream_segment()?;
        let mut counters = self.counters();
        let (_, counter) = counters.entry(name).or_insert_with(|| (counted, Arc::default()));
        Some(Arc::clone(counter))
    }

    fn counters(&self) -> MutexGuard<'_, Counters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The counters of a store.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) loads: Loads,
    pub(crate) engine: Engine,
}

impl LoadMeter for Meter {
    fn take(&self) -> Vec<Load> {
        self.loads.take()
    }

    fn has_room(&self) -> bool {
        !self.engine.is_full()
    }
}

impl Loads {
    fn take(&self) -> Vec<Load> {
        let mut loads = Vec::new();
        self.counters().retain(|_, (segment, counter)| {
            let (events, bytes) = (counter.events.swap(0, Ordering::Relaxed), counter.bytes.swap(0, Ordering::Relaxed));
            if events > 0 || bytes > 0 {
                loads.push(Load { segment: segment.clone(), events, bytes });
            }
            // Under the lock nobody else can get hold of the last one.
            Arc::strong_count(counter) > 1
        });
        loads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> SegmentName {
        SegmentName::parse(text).unwrap()
    }

    #[test]
    fn what_is_stored_is_given_out_once_and_transactions_count_for_their_parent() {
        let loads = Loads::default();
        let plain = loads.counter(&name("s/t/0.#epoch.0")).unwrap();
        let transaction = format!("s/t/0.#epoch.0#transaction.{:032x}", 5);
        let transaction = loads.counter(&name(&transaction)).unwrap();
        plain.add(2, 10);
        transaction.add(1, 5);
        let taken = loads.take();
        assert_eq!(taken.len(), 1);
        assert_eq!((taken[0].events, taken[0].bytes), (3, 15));
        assert_eq!(taken[0].segment, name("s/t/0.#epoch.0").stream_segment().unwrap());
        assert_eq!(loads.take(), Vec::new());
        assert!(loads.counter(&name("something")).is_none());
    }

    #[test]
    fn counters_that_nobody_writes_to_are_dropped_after_they_were_read() {
        let loads = Loads::default();
        loads.counter(&name("s/t/0.#epoch.0")).unwrap().add(1, 1);
        assert_eq!(loads.take().len(), 1);
        assert_eq!(loads.counters().len(), 0);
        let held = loads.counter(&name("s/t/0.#epoch.0"));
        loads.take();
        assert_eq!(loads.counters().len(), 1);
        drop(held);
    }
}
