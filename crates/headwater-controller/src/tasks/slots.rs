//! What is kept in memory per stream: its locks, and what its records say.
//!
//! The number of streams kept is bounded, and so are the bytes of all their records, of which one stream may have more
//! than a thousand others. Streams that were not used for longest go; those in use and those that are marked as having
//! work stay, without their records if need be, which are read again when somebody asks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
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
/// Bytes of them.
const EPOCHS_BYTES_KEPT: usize = 1 << 20;
/// Sealed segments per stream whose successors are known without a read.
const SEALED_KEPT: usize = 1024;

/// Bytes of a slot without records and names, its place among the others included.
const SLOT_BYTES: usize = 1024;
/// Bytes of an entry of a cut, and of a sealed segment.
const ENTRY_BYTES: usize = 32;

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
    /// it. How many there are; `None` until they are counted.
    pub(super) times: tokio::sync::Mutex<Option<usize>>,
    /// Open transactions of an earlier run have to be given their timers.
    pub(super) rearm: AtomicBool,
    /// When completed transactions were last tidied away, as open time of the store.
    pub(super) purged_ms: AtomicI64,
    /// When the last transaction was completed, as open time of the store; less than 0 until it is looked up. Changes
    /// under `work`.
    pub(super) completed_ms: AtomicI64,
    pub(super) driver: Mutex<Driver>,
    memory: Mutex<Memory>,
    /// Bytes of all slots together.
    total: Arc<AtomicUsize>,
}

/// State of the background driver.
#[derive(Debug, Default)]
pub(super) struct Driver {
    pub(super) running: bool,
    pub(super) wanted: bool,
}

/// Records in memory.
#[derive(Debug, Default)]
struct Memory {
    view: Option<Arc<View>>,
    // These never change once written.
    epochs: BTreeMap<i32, Arc<Epoch>>,
    sealed: BTreeMap<SegmentId, i32>,
    /// What the slot counts for.
    bytes: usize,
    /// Counts how often everything was forgotten: what was read before that may be of a stream that is gone.
    generation: u64,
}

impl Memory {
    fn weight(&self) -> usize {
        let current = self.view.as_ref().map(|view| view.current.epoch);
        let epochs = self.epochs.values().filter(|epoch| Some(epoch.epoch) != current);
        self.view.as_ref().map_or(0, |view| view.weight())
            + epochs.map(|epoch| epoch.weight()).sum::<usize>()
            + self.sealed.len() * ENTRY_BYTES
    }
}

impl View {
    fn weight(&self) -> usize {
        let Head { config, truncation, scale, rolling, update, truncate, .. } = &self.head;
        let tags = [Some(config), update.as_ref()].into_iter().flatten().flat_map(|config| &config.tags);
        let cuts = [truncation.as_ref().map(|truncation| &truncation.cut), truncate.as_ref()];
        let entries = cuts.into_iter().flatten().map(|cut| cut.len()).sum::<usize>()
            + scale.as_ref().map_or(0, |plan| plan.sealed.len() + 2 * plan.new.len())
            + rolling.as_ref().map_or(0, |rolling| rolling.transactions.len());
        size_of::<Self>()
            + tags.map(|tag| size_of::<String>() + tag.len()).sum::<usize>()
            + entries * ENTRY_BYTES
            + self.current.weight()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let memory = self.memory.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.total.fetch_sub(memory.bytes, Ordering::Relaxed);
    }
}

impl Slot {
    fn new(name: ScopedStream, total: &Arc<AtomicUsize>) -> Self {
        let slot = Self {
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
            memory: Mutex::default(),
            total: Arc::clone(total),
        };
        slot.change(|_| ());
        slot
    }

    /// Every change of what is in memory goes through here, so that it is weighed.
    fn change(&self, change: impl FnOnce(&mut Memory)) {
        let mut memory = locked(&self.memory);
        change(&mut memory);
        // The name is in the map as well, and in the table's.
        let bytes = SLOT_BYTES + 3 * self.table.len() + memory.weight();
        let before = std::mem::replace(&mut memory.bytes, bytes);
        self.total.fetch_add(bytes, Ordering::Relaxed);
        self.total.fetch_sub(before, Ordering::Relaxed);
    }

    pub(super) fn view(&self) -> Option<Arc<View>> {
        locked(&self.memory).view.clone()
    }

    /// Only by who holds `work`.
    pub(super) fn publish(&self, view: Option<Arc<View>>) {
        self.change(|memory| memory.view = view);
    }

    /// The stream is gone, and a later one of that name has other epochs; or they take too much. Only by who holds
    /// `work`.
    pub(super) fn forget_all(&self) {
        self.change(|memory| {
            *memory = Memory { bytes: memory.bytes, generation: memory.generation + 1, ..Memory::default() };
        });
    }

    pub(super) fn epoch(&self, epoch: i32) -> Option<Arc<Epoch>> {
        let memory = locked(&self.memory);
        let current = memory.view.as_ref().map(|view| &view.current).filter(|current| current.epoch == epoch);
        current.or_else(|| memory.epochs.get(&epoch)).cloned()
    }

    /// To be asked for before a record is read that is to be remembered.
    pub(super) fn generation(&self) -> u64 {
        locked(&self.memory).generation
    }

    /// Remembers a record, unless everything was forgotten since that generation.
    pub(super) fn remember_epoch(&self, epoch: Arc<Epoch>, generation: u64) {
        self.change(|memory| {
            if memory.generation != generation {
                return;
            }
            memory.epochs.insert(epoch.epoch, epoch);
            let bytes = |memory: &Memory| memory.epochs.values().map(|epoch| epoch.weight()).sum::<usize>();
            while memory.epochs.len() > EPOCHS_KEPT || bytes(memory) > EPOCHS_BYTES_KEPT {
                memory.epochs.pop_first();
            }
        });
    }

    pub(super) fn sealed_in(&self, segment: SegmentId) -> Option<i32> {
        locked(&self.memory).sealed.get(&segment).copied()
    }

    pub(super) fn remember_sealed(&self, segment: SegmentId, epoch: i32) {
        self.change(|memory| {
            if memory.sealed.len() >= SEALED_KEPT {
                memory.sealed.clear();
            }
            memory.sealed.insert(segment, epoch);
        });
    }
}

/// All streams in memory.
pub(super) struct Slots {
    map: Mutex<SlotMap>,
    /// Bytes that all slots weigh.
    total: Arc<AtomicUsize>,
    bytes_max: usize,
}

#[derive(Default)]
struct SlotMap {
    streams: BTreeMap<ScopedStream, (Arc<Slot>, u64)>,
    /// Counts uses; the higher, the more recent.
    uses: u64,
    /// From which use on it is worth while to look again for what can go.
    look_at: u64,
}

impl Slots {
    /// Keeps about so many bytes in memory, more only if there is so much in use.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { map: Mutex::default(), total: Arc::default(), bytes_max }
    }

    /// The slot of a stream, which need not exist.
    pub(super) fn slot(&self, name: &ScopedStream) -> Arc<Slot> {
        let mut map = locked(&self.map);
        map.uses += 1;
        let uses = map.uses;
        let slot = match map.streams.get_mut(name) {
            Some((slot, used)) => {
                *used = uses;
                Arc::clone(slot)
            }
            None => {
                if map.streams.len() >= STREAMS_KEPT {
                    map.evict();
                }
                let slot = Arc::new(Slot::new(name.clone(), &self.total));
                map.streams.insert(name.clone(), (Arc::clone(&slot), uses));
                slot
            }
        };
        if self.bytes() > self.bytes_max && uses >= map.look_at {
            self.lighten(&mut map);
        }
        slot
    }

    pub(super) fn all(&self) -> Vec<Arc<Slot>> {
        locked(&self.map).streams.values().map(|(slot, _)| Arc::clone(slot)).collect()
    }

    fn bytes(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Gives up what was not used for longest, until a quarter is free or nothing more can go.
    fn lighten(&self, map: &mut SlotMap) {
        let mut ages: Vec<(u64, ScopedStream)> =
            map.streams.iter().map(|(name, (_, used))| (*used, name.clone())).collect();
        ages.sort_unstable_by_key(|(used, _)| *used);
        // Whoever asks just now wants the last.
        ages.pop();
        let count = ages.len() as u64;
        for (_, name) in ages {
            if self.bytes() <= self.bytes_max / 4 * 3 {
                return;
            }
            let Some((slot, _)) = map.streams.get(&name) else { continue };
            if slot.is_idle() {
                map.streams.remove(&name);
            } else if let Ok(_work) = slot.work.try_lock() {
                slot.forget_all();
            }
        }
        map.look_at = map.uses + count / 4;
    }
}

impl Slot {
    /// Nobody holds it, but for the map, and nothing is to be done to the stream.
    fn is_idle(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1 && self.mark.try_lock().is_ok_and(|mark| mark.is_none())
    }
}

impl SlotMap {
    /// Drops the quarter that was not used for longest, as far as nobody holds it.
    fn evict(&mut self) {
        let mut ages: Vec<u64> = self.streams.values().map(|(_, used)| *used).collect();
        let quarter = ages.len() / 4;
        let limit = *ages.select_nth_unstable(quarter).1;
        self.streams.retain(|_, (slot, used)| *used > limit || !slot.is_idle());
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
    use crate::model::{SEGMENTS_MAX, ScalingPolicy, StreamConfig};

    fn stream(number: usize) -> ScopedStream {
        ScopedStream { scope: Name::parse("s").unwrap(), stream: Name::parse(&format!("t{number}")).unwrap() }
    }

    #[test]
    fn streams_in_use_and_streams_with_work_stay_in_memory() {
        let slots = Slots::new(usize::MAX);
        let held = slots.slot(&stream(0));
        *slots.slot(&stream(1)).mark.try_lock().unwrap() = Some(7);
        for number in 2..3 * STREAMS_KEPT {
            slots.slot(&stream(number));
        }
        assert!(slots.all().len() <= STREAMS_KEPT);
        assert!(Arc::ptr_eq(&held, &slots.slot(&stream(0))));
        assert_eq!(*slots.slot(&stream(1)).mark.try_lock().unwrap(), Some(7));
    }

    /// As large as a record gets: 10,000 segments, and tags.
    fn large() -> View {
        let mut config = StreamConfig::new(ScalingPolicy::fixed(1));
        config.tags = vec!["t".repeat(1024); 128];
        let current = Arc::new(Epoch::first(0, SEGMENTS_MAX, 0));
        View { head: Head::new(config, 0), version: 0, current }
    }

    #[test]
    fn records_are_weighed_and_those_not_used_for_longest_go() {
        let bytes_max = 8 << 20;
        let slots = Slots::new(bytes_max);
        let (view, held) = (Arc::new(large()), slots.slot(&stream(0)));
        assert!(view.weight() > 400_000, "{}", view.weight());
        *slots.slot(&stream(1)).mark.try_lock().unwrap() = Some(7);
        for number in 0..2000 {
            let slot = slots.slot(&stream(number));
            slot.publish(Some(Arc::clone(&view)));
            for epoch in 1..20 {
                let segments = Epoch::first(0, SEGMENTS_MAX, 0).segments().to_vec();
                slot.remember_epoch(Arc::new(Epoch::new(epoch, epoch, 0, segments)), slot.generation());
                if number > 3 {
                    break;
                }
            }
            let weights = |slot: &Arc<Slot>| locked(&slot.memory).bytes;
            assert_eq!(slots.all().iter().map(weights).sum::<usize>(), slots.bytes(), "what is there is counted");
            assert!(weights(&slot) < 3 << 20, "one stream has {} bytes", weights(&slot));
            assert!(slots.bytes() < bytes_max + (3 << 20), "{} bytes at stream {number}", slots.bytes());
        }
        assert!(slots.all().len() < 30, "{} streams", slots.all().len());
        assert!(Arc::ptr_eq(&held, &slots.slot(&stream(0))), "in use");
        assert!(held.view().is_none(), "its records can be read again");
        let marked = slots.slot(&stream(1));
        assert!(marked.view().is_none() && *marked.mark.try_lock().unwrap() == Some(7));
        assert!(slots.slot(&stream(1999)).view().is_some());
    }

    #[test]
    fn a_record_that_was_read_before_everything_was_forgotten_is_not_remembered() {
        let slots = Slots::new(usize::MAX);
        let slot = slots.slot(&stream(0));
        let (before, epoch) = (slot.generation(), Arc::new(Epoch::first(0, 1, 0)));
        slot.forget_all();
        slot.remember_epoch(Arc::clone(&epoch), before);
        assert!(slot.epoch(0).is_none(), "it may be of a stream that was deleted");
        slot.remember_epoch(epoch, slot.generation());
        assert!(slot.epoch(0).is_some());
    }

    #[test]
    fn records_that_somebody_is_changing_stay() {
        let slots = Slots::new(1 << 20);
        let slot = slots.slot(&stream(0));
        let _work = slot.work.try_lock().unwrap();
        slot.publish(Some(Arc::new(large())));
        for number in 1..100 {
            slots.slot(&stream(number)).publish(Some(Arc::new(large())));
        }
        assert!(slot.view().is_some());
        drop(slots);
        assert!(slot.view().is_some());
    }
}
