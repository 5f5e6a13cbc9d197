//! Truncating streams as their retention policies say, in a run every so often.
//!
//! A table of their own, `retention`, names the streams that have a policy. An entry is written before the policy is in
//! force and taken back by the run that finds none.
//!
//! How old something is, is a difference in the age of the store (`clock`), which no jump of the wall clock moves.
//!
//! A decision is made and recorded under the stream's lock, and so are subscriptions, so that nothing is truncated on
//! facts that have changed meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_types::{ScopedStream, SegmentId};
use tracing::{debug, warn};

use super::slots::{Slot, View};
use super::{Inner, Result, fan_out, present, put, remove};
use crate::model::{
    PAGE_ENTRIES, PLANNED_SEGMENTS_MAX, PlannedSegment, PlannedTruncation, RetentionPlan, RetentionPolicy,
    StreamConfig, StreamCut,
};
use crate::state::cuts::{self, Order, Surface};
use crate::state::epochs::History;
use crate::state::head::State;
use crate::state::keys;
use crate::state::retention::{Kept, Position, choose, lower_bound, thin};

/// Longest time from a start to the first run.
const FIRST: Duration = Duration::from_secs(60);

/// Everything a decision about one stream needs.
struct Facts {
    /// Keys of the cuts that are stored, oldest first.
    keys: Vec<Bytes>,
    /// The cuts, and where the stream ends if that is news.
    kept: Vec<Kept>,
    /// The stream ends now where it ended when the newest cut was taken down.
    is_idle: bool,
    /// Where it ends.
    tail: Kept,
    /// Where all subscribers together stand.
    readers: Option<Position>,
    /// Where the stream begins, and the bytes before.
    head: StreamCut,
    head_bytes: i64,
    history: History,
}

impl Inner {
    /// Notes that the stream has a retention policy, if it has.
    pub(super) async fn note_retention(&self, stream: &ScopedStream, config: &StreamConfig) -> Result<()> {
        if config.retention.is_some() {
            self.ports.tables.commit(keys::RETENTION, vec![put(keys::scoped_key(stream), present())]).await?;
        }
        Ok(())
    }

    pub(super) async fn run_retention(self: Arc<Self>) {
        let mut stopped = self.stopped.subscribe();
        // Who is restarted often has streams truncated as well.
        let mut pause = self.options.retention_every.min(FIRST);
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
            pause = self.options.retention_every;
            if let Err(error) = self.retain_all().await {
                warn!(%error, "retention is left for the next time");
            }
        }
    }

    async fn retain_all(self: &Arc<Self>) -> Result<()> {
        self.keep_clock().await?;
        if self.clock_jumped() {
            warn!("the wall clock is not where it should be by the time that has passed; retention does not go by it");
        }
        let mut after: Option<Bytes> = None;
        loop {
            let page = self.ports.tables.scan(keys::RETENTION, b"", after.as_deref(), PAGE_ENTRIES).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.key.clone());
            for entry in page {
                if self.is_stopped() {
                    return Ok(());
                }
                let stream = keys::scoped_stream(&entry.key)?;
                if let Err(error) = self.retain(&stream).await {
                    warn!(%stream, %error, "retention is left for the next time");
                }
            }
        }
    }

    /// Takes down where the stream ends, and truncates it if its policy says so.
    async fn retain(self: &Arc<Self>, name: &ScopedStream) -> Result<()> {
        let mut stream = self.open(name).await?;
        stream.settle().await?;
        let policy = stream.view.as_ref().and_then(|view| view.head.config.retention);
        let (Some(view), Some(policy)) = (stream.view.clone(), policy) else {
            // Who writes an entry holds the stream's lock, too.
            self.ports.tables.commit(keys::RETENTION, vec![remove(keys::scoped_key(name))]).await?;
            return Ok(());
        };
        if view.head.state != State::Active {
            return Ok(());
        }
        let slot = Arc::clone(&stream.slot);
        let facts = self.facts(&slot, &view).await?;
        if !facts.is_idle {
            let number = facts.keys.last().map_or(0, |key| keys::kept_number(key) + 1);
            let mut changes = vec![put(keys::kept(number), facts.tail.encode())];
            changes.extend(thin(facts.keys.len()).map(|index| remove(facts.keys[index].clone())));
            self.ports.tables.commit(&slot.table, changes).await?;
        }
        let Some(position) = facts.choose(policy, self.moment().age_ms) else { return Ok(()) };
        if !stream.truncate(position.cut).await? {
            debug!(stream = %name, "retention has nothing to truncate");
            return Ok(());
        }
        let gone: Vec<_> = facts
            .keys
            .into_iter()
            .zip(&facts.kept)
            .filter(|(_, kept)| kept.bytes < position.bytes)
            .map(|(key, _)| remove(key))
            .collect();
        if !gone.is_empty() {
            self.ports.tables.commit(&slot.table, gone).await?;
        }
        Ok(())
    }

    /// What the next run would do about a stream; `None` if the stream has no retention policy.
    pub(super) async fn retention_plan(&self, name: &ScopedStream) -> Result<Option<RetentionPlan>> {
        let (slot, view) = self.complete(name).await?;
        let Some(policy) = view.head.config.retention else { return Ok(None) };
        let clock_jumped = self.clock_jumped();
        if view.head.state != State::Active {
            let plan = RetentionPlan { policy, clock_jumped, stored_bytes: 0, held_bytes: None, truncation: None };
            return Ok(Some(plan));
        }
        let facts = self.facts(&slot, &view).await?;
        let truncation = match facts.choose(policy, self.moment().age_ms) {
            None => None,
            Some(position) => Some(self.planned(&slot, &view, position, facts.head_bytes).await?),
        };
        Ok(Some(RetentionPlan {
            policy,
            clock_jumped,
            stored_bytes: facts.tail.bytes - facts.head_bytes,
            held_bytes: facts.readers.as_ref().map(|readers| facts.tail.bytes - readers.bytes),
            truncation,
        }))
    }

    /// What a truncation at a valid cut behind the stream's head would take.
    async fn planned(
        &self,
        slot: &Slot,
        view: &View,
        position: Position,
        head_bytes: i64,
    ) -> Result<PlannedTruncation> {
        let head = self.head_cut(slot, view).await?;
        let begin = |id: SegmentId| head.get(&id).map_or(0, |offset| (*offset).max(0));
        let past = self.past(slot, view, &position.cut).await?;
        let ends = self.sealed(slot, &past).await?;
        let mut segments: BTreeMap<SegmentId, PlannedSegment> = BTreeMap::new();
        for (id, sealed) in past.into_iter().zip(ends) {
            let to = sealed.map_or(0, |sealed| sealed.bytes).max(begin(id));
            segments.insert(id, PlannedSegment { id, from: begin(id), to, is_deleted: true });
        }
        for (id, to) in &position.cut {
            if *to > begin(*id) {
                segments.insert(*id, PlannedSegment { id: *id, from: begin(*id), to: *to, is_deleted: false });
            }
        }
        Ok(PlannedTruncation {
            bytes: position.bytes - head_bytes,
            cut: position.cut,
            more_segments: segments.len().saturating_sub(PLANNED_SEGMENTS_MAX),
            segments: segments.into_values().take(PLANNED_SEGMENTS_MAX).collect(),
        })
    }

    async fn facts(&self, slot: &Slot, view: &View) -> Result<Facts> {
        let (mut keys_kept, mut kept) = (Vec::new(), Vec::new());
        let mut after: Option<Bytes> = None;
        loop {
            let scan = self.ports.tables.scan(&slot.table, keys::KEPT_PREFIX, after.as_deref(), PAGE_ENTRIES);
            let page = scan.await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            for entry in page {
                kept.push(Kept::decode(&entry.value)?);
                keys_kept.push(entry.key);
            }
        }
        let segments: Vec<_> = view.current.ids().collect();
        let infos = fan_out(segments.clone(), |id| {
            let (store, segment) = (Arc::clone(&self.ports.segments), slot.name.segment(id));
            async move { store.segment_info(&segment).await }
        })
        .await?;
        let ends = segments
            .into_iter()
            .zip(infos)
            .map(|(id, info)| (id, info.map_or(0, |info| i64::try_from(info.length).unwrap_or(i64::MAX))));
        let cut: StreamCut = ends.collect();
        let is_idle = kept.last().is_some_and(|last: &Kept| last.cut == cut);
        let tail = Kept { time_ms: self.moment().age_ms, bytes: self.bytes_before(slot, view, &cut).await?, cut };

        let head = self.head_cut(slot, view).await?;
        let subscribers: Vec<StreamCut> =
            self.subscribers(slot).await?.into_iter().map(|(_, subscriber)| subscriber.cut).collect();
        let named = kept.iter().map(|kept| &kept.cut).chain(&subscribers).chain([&head]);
        let lowest = named.filter_map(|cut| Some(cuts::creation_epochs(cut)?.0)).min().unwrap_or(view.head.epoch);
        let history = self.epochs(slot, lowest, view.head.epoch).await?;
        let mut readers = None;
        if !subscribers.is_empty() {
            // Who has named no position may need everything, and nobody can read what is before the head.
            let from_head = |cut: StreamCut| {
                let ahead = cuts::is_equal_or_after(&cut, &head, &history);
                if ahead { cut } else { head.clone() }
            };
            let subscribers: Vec<StreamCut> = subscribers.into_iter().map(from_head).collect();
            let mut cut = lower_bound(&subscribers, &history);
            if cuts::surface(&cut, &history).is_none() {
                warn!(stream = %slot.name, "positions of subscribers contradict each other, nothing is given up");
                cut = head.clone();
            }
            let bytes = self.bytes_before(slot, view, &cut).await?;
            readers = Some(Position { cut, bytes });
        }
        let head_bytes = view.head.truncation.as_ref().map_or(0, |truncation| truncation.bytes);
        if !is_idle {
            kept.push(tail.clone());
        }
        Ok(Facts { keys: keys_kept, kept, is_idle, tail, readers, head, head_bytes, history })
    }

    /// Where the stream begins.
    pub(super) async fn head_cut(&self, slot: &Slot, view: &View) -> Result<StreamCut> {
        match &view.head.truncation {
            Some(truncation) => Ok(truncation.cut.clone()),
            None => {
                let first = self.epoch(slot, 0).await?.ok_or_else(|| super::open::missing_epoch(slot, 0))?;
                Ok(first.ids().map(|id| (id, 0)).collect::<BTreeMap<_, _>>())
            }
        }
    }
}

impl Facts {
    /// Where to truncate, unless the stream begins there or later.
    fn choose(&self, policy: RetentionPolicy, now_ms: i64) -> Option<Position> {
        let segments = self.history.segments();
        let surface = |cut: &StreamCut| cuts::surface_among(cut, &self.history, &segments);
        let head_on = surface(&self.head)?;
        // The head may be where a subscriber stood, ahead of a cut here and behind it there: that is no place to truncate at
        // any more, and neither is what is no cut any more.
        let kept: Vec<_> = self.kept.iter().filter_map(|kept| Some((kept, surface(&kept.cut)?))).collect();
        let is_left = |(kept, on): &&(&Kept, Surface)| {
            cuts::order_on((on, &kept.cut), (&head_on, &self.head)) == Order::EqualOrAfter
        };
        let kept: Vec<_> = kept.iter().filter(is_left).map(|(kept, _)| *kept).collect();
        let readers_on = self.readers.as_ref().map(|readers| surface(&readers.cut));
        choose(policy, now_ms, &kept, self.readers.as_ref(), |kept, readers_cut| {
            let (Some(kept_on), Some(Some(readers_on))) = (surface(kept), &readers_on) else {
                return Order::Overlaps;
            };
            cuts::order_on((&kept_on, kept), (readers_on, readers_cut))
        })
        .filter(|position| position.bytes > self.head_bytes)
    }
}
