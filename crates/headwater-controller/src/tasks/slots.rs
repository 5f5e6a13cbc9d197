//! What is kept in memory per stream: its locks, and what its records say.
//!
//! The number of streams kept is bounded; those in use and those that are marked as having work stay.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater_types::{ScopedStream, SegmentId};

use crate::ports::Version;
use crate::state::epochs::Epoch;
use crate::state::head::Head;
use crate::state::keys;

/// Streams kept in memory while nothing happens to them.
const STREAMS_KEPT: usize = 4096;
/// Epoch records kept per stream beside the current one.
const EPOCHS_KEPT: usize = 16;
/// Sealed segments per stream whose successors are known without a read.
const SEALED_KEPT: usize = 1024;

/// What a stream's records say.
#[derive(Debug)]
pub(super) struct View {
    pub(super) head: Head,
    /// Version of the head record.
    pub(super) version: Version,
    pub(super) current: Arc<Epoch>,
}

/// One stream.
pub(super) struct Slot {
    pub(super) name: ScopedStream,
    pub(super) table: String,
    /// Held by who changes the stream, from loading to the end.
    pub(super) work: Arc<tokio::sync::Mutex<()>>,
    /// Read by who creates a transaction. Written, under `work`, to wait until all that began before are finished.
    pub(super) creators: tokio::sync::RwLock<()>,
    /// Version of the stream's entry in the work table, if there is one.
    pub(super) mark: tokio::sync::Mutex<Option<Version>>,
    /// Position of the last commit that was accepted; `None` until it is looked up.
    pub(super) position: tokio::sync::Mutex<Option<i64>>,
    /// Held by who looks at or changes the marks of the stream's writers. The innermost lock: never wait for `work` in
    /// it.
    pub(super) times: tokio::sync::Mutex<()>,
    /// Open transactions of an earlier run have to be given their timers.
    pub(super) rearm: AtomicBool,
    /// When completed transactions were last tidied away, as open time of the store.
    pub(super) purged_ms: AtomicI64,
    /// When the last transaction was completed, as open time of the store; less than 0 until it is looked up. Changes
    /// under `work`.
    pub(super) completed_ms: AtomicI64,
    pub(super) driver: Mutex<Driver>,
    view: Mutex<Option<Arc<View>>>,
    memory: Mutex<Memory>,
}

/// State of the background driver.
#[derive(Debug, Default)]
pub(super) struct Driver {
    pub(super) running: bool,
    pub(super) wanted: bool,
}

/// Records that never change once written.
#[derive(Debug, Default)]
struct Memory {
    epochs: BTreeMap<i32, Arc<Epoch>>,
    sealed: BTreeMap<SegmentId, i32>,
}

impl Slot {
    fn new(name: ScopedStream) -> Self {
        Self {
            table: keys::stream_table(&name),
            name,
            work: Arc::default(),
            creators: tokio::sync::RwLock::default(),
            mark: tokio::sync::Mutex::default(),
            position: tokio::sync::Mutex::default(),
            times: tokio::sync::Mutex::default(),
            rearm: AtomicBool::new(false),
            purged_ms: AtomicI64::new(i64::MIN),
            completed_ms: AtomicI64::new(-1),
            driver: Mutex::default(),
            view: Mutex::default(),
            memory: Mutex::default(),
        }
    }

    pub(super) fn view(&self) -> Option<Arc<View>> {
        locked(&self.view).clone()
    }

    /// Only by who holds `work`.
    pub(super) fn publish(&self, view: Option<Arc<View>>) {
        *locked(&self.view) = view;
    }

    /// The stream is gone; a later one of that name has other epochs.
    pub(super) fn forget_all(&self) {
        self.publish(None);
        *locked(&self.memory) = Memory::default();
    }

    pub(super) fn epoch(&self, epoch: i32) -> Option<Arc<Epoch>> {
        if let Some(view) = self.view()
            && view.current.epoch == epoch
        {
            return Some(Arc::clone(&view.current));
        }
        locked(&self.memory).epochs.get(&epoch).cloned()
    }

    pub(super) fn remember_epoch(&self, epoch: Arc<Epoch>) {
        let mut memory = locked(&self.memory);
        memory.epochs.insert(epoch.epoch, epoch);
        while memory.epochs.len() > EPOCHS_KEPT {
            memory.epochs.pop_first();
        }
    }

    pub(super) fn sealed_in(&self, segment: SegmentId) -> Option<i32> {
        locked(&self.memory).sealed.get(&segment).copied()
    }

    pub(super) fn remember_sealed(&self, segment: SegmentId, epoch: i32) {
        let mut memory = locked(&self.memory);
        if memory.sealed.len() >= SEALED_KEPT {
            memory.sealed.clear();
        }
        memory.sealed.insert(segment, epoch);
    }
}

/// All streams in memory.
#[derive(Default)]
pub(super) struct Slots(Mutex<SlotMap>);

#[derive(Default)]
struct SlotMap {
    streams: BTreeMap<ScopedStream, (Arc<Slot>, u64)>,
    /// Counts uses; the higher, the more recent.
    uses: u64,
}

impl Slots {
    /// The slot of a stream, which need not exist.
    pub(super) fn slot(&self, name: &ScopedStream) -> Arc<Slot> {
        let mut map = locked(&self.0);
        map.uses += 1;
        let uses = map.uses;
        if let Some((slot, used)) = map.streams.get_mut(name) {
            *used = uses;
            return Arc::clone(slot);
        }
        if map.streams.len() >= STREAMS_KEPT {
            map.evict();
        }
        let slot = Arc::new(Slot::new(name.clone()));
        map.streams.insert(name.clone(), (Arc::clone(&slot), uses));
        slot
    }

    pub(super) fn all(&self) -> Vec<Arc<Slot>> {
        locked(&self.0).streams.values().map(|(slot, _)| Arc::clone(slot)).collect()
    }
}

impl SlotMap {
    /// Drops the quarter that was not used for longest, as far as nobody holds it.
    fn evict(&mut self) {
        let mut ages: Vec<u64> = self.streams.values().map(|(_, used)| *used).collect();
        let quarter = ages.len() / 4;
        let limit = *ages.select_nth_unstable(quarter).1;
        self.streams.retain(|_, (slot, used)| {
            let marked = slot.mark.try_lock().map_or(true, |mark| mark.is_some());
            *used > limit || marked || Arc::strong_count(slot) > 1
        });
    }
}

/// None of these locks is held while anything can panic half way through a change, so a poisoned one is whole.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use headwater_types::Name;

    use super::*;

    fn stream(number: usize) -> ScopedStream {
        ScopedStream { scope: Name::parse("s").unwrap(), stream: Name::parse(&format!("t{number}")).unwrap() }
    }

    #[test]
    fn streams_in_use_and_streams_with_work_stay_in_memory() {
        let slots = Slots::default();
        let held = slots.slot(&stream(0));
        *slots.slot(&stream(1)).mark.try_lock().unwrap() = Some(7);
        for number in 2..3 * STREAMS_KEPT {
            slots.slot(&stream(number));
        }
        assert!(slots.all().len() <= STREAMS_KEPT);
        assert!(Arc::ptr_eq(&held, &slots.slot(&stream(0))));
        assert_eq!(*slots.slot(&stream(1)).mark.try_lock().unwrap(), Some(7));
    }
}
