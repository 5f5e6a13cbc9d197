//! Scaling streams by their load: every five seconds what came in is folded into each segment's rates, and a stream
//! whose segments are too busy or too idle is scaled as a client would scale it.
//!
//! Only streams that were written to lately are kept in memory, and streams by rate that have more segments than they
//! must. A table of their own, `scaling`, names the streams by rate; a start goes through it slowly, since a stream
//! that nobody writes to any more has to come back to its least number of segments all the same.
//!
//! Rates are lost with the process: a start is followed by twenty minutes without merges.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_types::{KeyRange, ScopedStream, SegmentId};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::slots::{View, locked};
use super::{Inner, Result, present, put, remove};
use crate::model::{
    PAGE_ENTRIES, Scale, ScalingKind, ScalingPolicy, SegmentHeat, SegmentRange, StreamConfig, segments_max,
};
use crate::ports::Load;
use crate::state::autoscale::{Heat, Rates, TICK_SECONDS, Wish, wish};
use crate::state::head::State;
use crate::state::keys;

/// Streams whose load is kept; more than that at once, and the load of new ones is not looked at.
const STREAMS_MAX: usize = 100_000;
/// Ticks without load after which a stream is forgotten that need not shrink; 20 min.
const IDLE_TICKS: u32 = 240;
/// Pause between two streams that a start looks at.
const GENTLY: Duration = Duration::from_millis(5);

/// Load of all streams that were written to lately.
#[derive(Default)]
pub(super) struct Loads(std::sync::Mutex<BTreeMap<ScopedStream, StreamLoad>>);

/// Load of one stream. Holds nothing of the stream's records, so that they can leave the memory.
struct StreamLoad {
    policy: ScalingPolicy,
    /// By number, which a segment shares with its duplicates of a rolling commit; they have the same keys.
    segments: BTreeMap<i32, SegmentLoad>,
    /// The stream has other segments or another policy by now.
    is_stale: bool,
    /// A scale that was asked for is not answered yet.
    is_scaling: bool,
    idle_ticks: u32,
}

#[derive(Clone, Copy)]
struct SegmentLoad {
    id: SegmentId,
    range: KeyRange,
    events: Rates,
    kilobytes: Rates,
}

impl StreamLoad {
    fn new(view: &View) -> Self {
        let mut load = Self {
            policy: view.head.config.scaling,
            segments: BTreeMap::new(),
            is_stale: false,
            is_scaling: false,
            idle_ticks: 0,
        };
        load.refresh(view);
        load
    }

    /// Takes over what the stream is now; segments that stay keep their rates.
    fn refresh(&mut self, view: &View) {
        self.policy = view.head.config.scaling;
        self.is_stale = false;
        let mut before = std::mem::take(&mut self.segments);
        for segment in view.current.segments() {
            let (events, kilobytes) =
                before.remove(&segment.id.number).map(|load| (load.events, load.kilobytes)).unwrap_or_default();
            let load = SegmentLoad { id: segment.id, range: segment.range, events, kilobytes };
            self.segments.insert(segment.id.number, load);
        }
    }

    /// Adds what came in during so many seconds. Load of segments that the stream has not got makes this stale.
    fn fold(&mut self, came: Vec<Load>, seconds: f64) {
        self.idle_ticks = if came.is_empty() { self.idle_ticks.saturating_add(1) } else { 0 };
        let mut amounts: BTreeMap<i32, (u64, u64)> = BTreeMap::new();
        for load in came {
            let amount = amounts.entry(load.segment.id.number).or_default();
            *amount = (amount.0.saturating_add(load.events), amount.1.saturating_add(load.bytes));
        }
        for (number, segment) in &mut self.segments {
            let (events, bytes) = amounts.remove(number).unwrap_or_default();
            segment.events.fold(events as f64, seconds);
            segment.kilobytes.fold(bytes as f64 / 1024.0, seconds);
        }
        self.is_stale |= !amounts.is_empty();
    }

    fn may_shrink(&self) -> bool {
        self.policy.kind != ScalingKind::Fixed && self.segments.len() > self.policy.min_segments.max(1) as usize
    }

    fn wish(&self, name: &ScopedStream) -> Option<Wish> {
        let bytes = match self.policy.kind {
            ScalingKind::Fixed => return None,
            ScalingKind::Kilobytes => true,
            ScalingKind::Events => false,
        };
        let heat = |load: &SegmentLoad| {
            let rates = if bytes { load.kilobytes } else { load.events };
            Heat { id: load.id, range: load.range, rates }
        };
        let mut heats: Vec<Heat> = self.segments.values().map(heat).collect();
        heats.sort_by(|a, b| a.range.low().total_cmp(&b.range.low()));
        wish(self.policy, &heats, segments_max(name))
    }
}

impl Inner {
    /// Notes that the stream scales by itself, if it does. The caller holds the stream's lock.
    pub(super) async fn note_scaling(&self, stream: &ScopedStream, config: &StreamConfig) -> Result<()> {
        if config.scaling.kind != ScalingKind::Fixed {
            self.ports.tables.commit(keys::SCALING, vec![put(keys::scoped_key(stream), present())]).await?;
        }
        Ok(())
    }

    /// The stream has other segments or another policy now. If it has more segments than it must it is looked at from now
    /// on, also if nobody writes to it.
    pub(super) fn load_has_changed(&self, stream: &ScopedStream, view: &View) {
        let mut loads = locked(&self.loads.0);
        if let Some(load) = loads.get_mut(stream) {
            load.is_stale = true;
            return;
        }
        let load = StreamLoad::new(view);
        if load.may_shrink() && loads.len() < STREAMS_MAX {
            loads.insert(stream.clone(), load);
        }
    }

    pub(super) async fn run_autoscale(self: Arc<Self>) {
        let mut stopped = self.stopped.subscribe();
        let mut last = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(TICK_SECONDS)) => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
            let came = self.ports.loads.take();
            let seconds = last.elapsed().as_secs_f64();
            last = Instant::now();
            self.fold_loads(came, seconds).await;
        }
    }

    async fn fold_loads(self: &Arc<Self>, loads: Vec<Load>, seconds: f64) {
        let mut came: BTreeMap<ScopedStream, Vec<Load>> = BTreeMap::new();
        for load in loads {
            came.entry(load.segment.stream.clone()).or_default().push(load);
        }
        // What is not known yet or not true any more; everything else needs no look at the stream.
        let unknown: Vec<ScopedStream> = {
            let loads = locked(&self.loads.0);
            let room = STREAMS_MAX.saturating_sub(loads.len());
            let new = came.keys().filter(|name| !loads.contains_key(name)).take(room);
            let stale = loads.iter().filter(|(_, load)| load.is_stale).map(|(name, _)| name);
            new.chain(stale).cloned().collect()
        };
        for name in unknown {
            if self.is_stopped() {
                return;
            }
            let view = match self.view(&self.slots.slot(&name)).await {
                Ok(view) => view.filter(|view| view.head.state == State::Active),
                Err(error) => {
                    warn!(stream = %name, %error, "its load is not looked at now");
                    continue;
                }
            };
            let mut loads = locked(&self.loads.0);
            match view {
                Some(view) => {
                    loads.entry(name).and_modify(|load| load.refresh(&view)).or_insert_with(|| StreamLoad::new(&view))
                }
                None => {
                    loads.remove(&name);
                    continue;
                }
            };
        }
        let has_room = self.ports.loads.has_room();
        let mut wishes = Vec::new();
        {
            let mut loads = locked(&self.loads.0);
            loads.retain(|name, load| {
                load.fold(came.remove(name).unwrap_or_default(), seconds);
                if load.idle_ticks >= IDLE_TICKS && !load.may_shrink() {
                    return false;
                }
                if has_room
                    && !load.is_stale
                    && !load.is_scaling
                    && let Some(wish) = load.wish(name)
                {
                    load.is_scaling = true;
                    wishes.push((name.clone(), wish));
                }
                true
            });
        }
        for (name, wish) in wishes {
            // Whoever holds the stream up holds nobody else up.
            tokio::spawn(Arc::clone(self).scale_by_load(name, wish));
        }
    }

    async fn scale_by_load(self: Arc<Self>, name: ScopedStream, wish: Wish) {
        let (sealed, made) = (wish.seal.len(), wish.ranges.len());
        match self.scale(name.clone(), wish.seal, wish.ranges).await {
            Ok(Scale::Started { epoch, .. }) => info!(stream = %name, epoch, sealed, made, "scales by its load"),
            // Somebody else scales it, or it is not what it was; the next tick looks again.
            Ok(Scale::Failure | Scale::PreconditionFailed) => debug!(stream = %name, "is not scaled by its load"),
            Err(error) => warn!(stream = %name, %error, "cannot be scaled by its load now"),
        }
        if let Some(load) = locked(&self.loads.0).get_mut(&name) {
            load.is_scaling = false;
            load.is_stale = true;
        }
    }

    /// Finds the streams by rate that have more segments than they must.
    pub(super) async fn find_scaled(self: Arc<Self>) {
        if let Err(error) = self.find_scaled_gently().await {
            warn!(%error, "streams that nobody writes to keep their segments until the next start");
        }
    }

    async fn find_scaled_gently(self: &Arc<Self>) -> Result<()> {
        let mut after: Option<Bytes> = None;
        loop {
            let page = self.ports.tables.scan(keys::SCALING, b"", after.as_deref(), PAGE_ENTRIES).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.key.clone());
            for entry in page {
                if self.is_stopped() {
                    return Ok(());
                }
                let name = keys::scoped_stream(&entry.key)?;
                let stream = self.open(&name).await?;
                match stream.view.as_ref().filter(|view| view.head.config.scaling.kind != ScalingKind::Fixed) {
                    Some(view) => {
                        let load = StreamLoad::new(view);
                        let mut loads = locked(&self.loads.0);
                        if load.may_shrink() && loads.len() < STREAMS_MAX {
                            loads.entry(name).or_insert(load);
                        }
                    }
                    // Who writes an entry holds the stream's lock, too, and puts its policy in force before letting go.
                    None if stream.view.as_ref().is_none_or(|view| view.head.update.is_none()) => {
                        self.ports.tables.commit(keys::SCALING, vec![remove(entry.key)]).await?;
                    }
                    None => {}
                }
                drop(stream);
                tokio::time::sleep(GENTLY).await;
            }
        }
    }

    /// Load of the open segments of a stream; zero for those that nobody wrote to lately.
    pub(super) async fn heat(&self, name: &ScopedStream) -> Result<Vec<SegmentHeat>> {
        let (_, view) = self.complete(name).await?;
        if view.head.state == State::Sealed {
            return Ok(Vec::new());
        }
        let loads = locked(&self.loads.0);
        let load = loads.get(name);
        let heat = view.current.segments().iter().map(|segment| {
            let found = load.and_then(|load| load.segments.get(&segment.id.number));
            SegmentHeat {
                segment: SegmentRange { id: segment.id, range: segment.range },
                events_per_second: found.map_or([0.0; 4], |load| load.events.averages()),
                kilobytes_per_second: found.map_or([0.0; 4], |load| load.kilobytes.averages()),
            }
        });
        Ok(heat.collect())
    }
}
