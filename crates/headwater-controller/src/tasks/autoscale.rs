//! Scaling streams by their load: every five seconds what came in is folded into each segment's rates, and a stream whose
//! segments are too busy or too idle is scaled as a client would scale it.
//!
//! Only streams that were written to lately are kept in memory, and streams by rate that have more segments than they
//! must. A table of its own, `scaling`, names the streams by rate; a start goes through it slowly, since a stream that
//! nobody writes to any more has to come back to its least number of segments all the same.
//!
//! Rates are lost with the process: a start is followed by twenty minutes without merges.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_types::ScopedStream;
use tracing::{debug, info, warn};

use super::slots::{Slot, View, locked};
use super::{Inner, Result, present, put, remove};
use crate::model::{PAGE_ENTRIES, Scale, ScalingKind, SegmentHeat, SegmentRange, StreamConfig};
use crate::ports::Load;
use crate::state::autoscale::{Heat, Rates, TICK_SECONDS, wish};
use crate::state::head::State;
use crate::state::keys;

/// Streams whose load is kept; more than that at once, and the load of new ones is not looked at.
const STREAMS_MAX: usize = 100_000;
/// Pause between two streams that a start looks at.
const GENTLY: Duration = Duration::from_millis(5);

/// Load of all streams that were written to lately.
#[derive(Default)]
pub(super) struct Loads(std::sync::Mutex<BTreeMap<ScopedStream, StreamLoad>>);

/// Load of one stream.
struct StreamLoad {
    /// Keeps the stream's records in memory.
    slot: Arc<Slot>,
    /// By number, which a segment shares with its duplicates of a rolling commit; they have the same keys.
    segments: BTreeMap<i32, SegmentLoad>,
}

#[derive(Clone, Copy, Default)]
struct SegmentLoad {
    events: Rates,
    kilobytes: Rates,
}

impl Inner {
    /// Notes that the stream scales by itself, if it does.
    pub(super) async fn note_scaling(&self, stream: &ScopedStream, config: &StreamConfig) -> Result<()> {
        if config.scaling.kind != ScalingKind::Fixed {
            self.ports.tables.commit(keys::SCALING, vec![put(keys::scoped_key(stream), present())]).await?;
        }
        Ok(())
    }

    pub(super) async fn run_autoscale(self: Arc<Self>) {
        let mut stopped = self.stopped.subscribe();
        loop {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(TICK_SECONDS)) => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
            self.fold_loads().await;
        }
    }

    async fn fold_loads(self: &Arc<Self>) {
        let mut came: BTreeMap<ScopedStream, Vec<Load>> = BTreeMap::new();
        for load in self.ports.loads.take() {
            came.entry(load.segment.stream.clone()).or_default().push(load);
        }
        {
            let mut loads = locked(&self.loads.0);
            for name in came.keys() {
                if loads.len() < STREAMS_MAX && !loads.contains_key(name) {
                    loads.insert(name.clone(), StreamLoad { slot: self.slots.slot(name), segments: BTreeMap::new() });
                }
            }
        }
        let names: Vec<ScopedStream> = locked(&self.loads.0).keys().cloned().collect();
        for name in names {
            if self.is_stopped() {
                return;
            }
            if let Err(error) = self.fold_load(&name, came.remove(&name).unwrap_or_default()).await {
                warn!(stream = %name, %error, "cannot be scaled now");
            }
        }
    }

    async fn fold_load(self: &Arc<Self>, name: &ScopedStream, came: Vec<Load>) -> Result<()> {
        let Some(slot) = locked(&self.loads.0).get(name).map(|load| Arc::clone(&load.slot)) else { return Ok(()) };
        let view = self.view(&slot).await?.filter(|view| view.head.state == State::Active);
        let Some(view) = view else {
            locked(&self.loads.0).remove(name);
            return Ok(());
        };
        let Some(heats) = self.fold_segments(name, &view, came) else { return Ok(()) };
        let policy = view.head.config.scaling;
        if policy.kind == ScalingKind::Fixed || view.head.is_unfinished() {
            return Ok(());
        }
        let Some(wish) = wish(policy, &heats) else { return Ok(()) };
        let (sealed, made) = (wish.seal.len(), wish.ranges.len());
        match self.scale(name.clone(), wish.seal, wish.ranges).await? {
            Scale::Started { epoch, .. } => info!(stream = %name, epoch, sealed, made, "scales by its load"),
            // Somebody else scales it; the next tick looks again.
            Scale::Failure | Scale::PreconditionFailed => debug!(stream = %name, "is not scaled by its load"),
        }
        Ok(())
    }

    /// Brings the stream's load up to date. `None` once there is nothing left to watch.
    fn fold_segments(&self, name: &ScopedStream, view: &View, came: Vec<Load>) -> Option<Vec<Heat>> {
        let mut loads = locked(&self.loads.0);
        let load = loads.get_mut(name)?;
        let kind = view.head.config.scaling.kind;
        let mut amounts: BTreeMap<i32, (u64, u64)> = BTreeMap::new();
        for load in came {
            let amount = amounts.entry(load.segment.id.number).or_default();
            *amount = (amount.0.saturating_add(load.events), amount.1.saturating_add(load.bytes));
        }
        let mut segments = BTreeMap::new();
        let mut heats = Vec::with_capacity(view.current.segments().len());
        let mut silent = true;
        for segment in view.current.segments() {
            let mut rates = load.segments.remove(&segment.id.number).unwrap_or_default();
            let (events, bytes) = amounts.remove(&segment.id.number).unwrap_or_default();
            rates.events.fold(events as f64);
            rates.kilobytes.fold(bytes as f64 / 1024.0);
            silent &= rates.events.is_silent() && rates.kilobytes.is_silent();
            segments.insert(segment.id.number, rates);
            let rates = if kind == ScalingKind::Kilobytes { rates.kilobytes } else { rates.events };
            heats.push(Heat { id: segment.id, range: segment.range, rates });
        }
        load.segments = segments;
        let may_shrink =
            kind != ScalingKind::Fixed && heats.len() > view.head.config.scaling.min_segments.max(1) as usize;
        if silent && !may_shrink {
            loads.remove(name);
            return None;
        }
        Some(heats)
    }

    /// Finds the streams by rate that have more segments than they must.
    pub(super) async fn find_scaled(self: Arc<Self>) {
        if let Err(error) = self.find_scaled_gently().await {
            warn!(%error, "streams that nobody writes to keep their segments until the next start");
        }
    }

    async fn find_scaled_gently(&self) -> Result<()> {
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
                let slot = self.slots.slot(&name);
                let scaling =
                    self.view(&slot).await?.map(|view| (view.head.config.scaling, view.current.segments().len()));
                match scaling {
                    Some((policy, count)) if policy.kind != ScalingKind::Fixed => {
                        let mut loads = locked(&self.loads.0);
                        if count > policy.min_segments.max(1) as usize && loads.len() < STREAMS_MAX {
                            loads.entry(name).or_insert(StreamLoad { slot, segments: BTreeMap::new() });
                        }
                    }
                    _ => {
                        self.ports.tables.commit(keys::SCALING, vec![remove(entry.key)]).await?;
                    }
                }
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
            let rates = load.and_then(|load| load.segments.get(&segment.id.number)).copied().unwrap_or_default();
            SegmentHeat {
                segment: SegmentRange { id: segment.id, range: segment.range },
                events_per_second: rates.events.averages(),
                kilobytes_per_second: rates.kilobytes.averages(),
            }
        });
        Ok(heat.collect())
    }
}
