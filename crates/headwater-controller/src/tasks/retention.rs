//! Truncating streams as their retention policies say, in a run every so often.
//!
//! A table of their own, `retention`, names the streams that have a policy. An entry is written before the policy is in
//! force and taken back by the run that finds none.
//!
//! Time-based retention believes the wall clock only as long as it goes with the monotonic one: after a jump ahead of
//! more than a day, also one while the server was away, nothing is truncated by time until the clock has been steady for
//! a day or has come back. A restart does not shorten that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use headwater_types::ScopedStream;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::slots::{Slot, View};
use super::{Inner, Result, fan_out, present, put, remove};
use crate::codec::{Decoder, Encoder};
use crate::model::{
    PAGE_ENTRIES, RetentionKind, RetentionPlan, RetentionPolicy, StreamConfig, StreamCut, UpdateStream,
};
use crate::state::cuts::{self, Order};
use crate::state::epochs::History;
use crate::state::head::State;
use crate::state::keys;
use crate::state::retention::{JUMP_MS, Kept, Position, choose, has_jumped, lower_bound, thin};

/// Longest time from a start to the first run.
const FIRST: Duration = Duration::from_secs(60);
/// A clock that jumped is believed again after this much steady time.
const STEADY: Duration = Duration::from_millis(JUMP_MS.unsigned_abs());

/// What retention remembers about time.
pub(super) struct Clocks {
    /// Wall clock and monotonic clock at the last look.
    last: (i64, Instant),
    /// Until when the wall clock is not believed, and what it said before it jumped.
    doubted: Option<(Instant, i64)>,
}

/// Everything a decision about one stream needs.
struct Facts {
    kept: Vec<(Bytes, Kept)>,
    /// The stream ends now where it ended when the newest cut was taken down.
    is_idle: bool,
    /// Where it ends.
    tail: Kept,
    /// Where all subscribers together stand.
    readers: Option<Position>,
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
        let mut clocks = None;
        // Who is restarted often has streams truncated as well.
        let mut pause = self.options.retention_every.min(FIRST);
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
            pause = self.options.retention_every;
            if let Err(error) = self.retain_all(&mut clocks).await {
                warn!(%error, "retention is left for the next time");
            }
        }
    }

    async fn retain_all(self: &Arc<Self>, clocks: &mut Option<Clocks>) -> Result<()> {
        self.look_at_clock(clocks).await?;
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

    /// Decides whether the wall clock can be believed, and remembers what it said for the next start.
    async fn look_at_clock(&self, clocks: &mut Option<Clocks>) -> Result<()> {
        let (wall_ms, now) = (self.now_ms(), Instant::now());
        let key = Bytes::from_static(keys::RETENTION_CLOCK);
        let clocks = match clocks {
            Some(clocks) => clocks,
            None => {
                let found = self.ports.tables.read(keys::COUNTERS, std::slice::from_ref(&key)).await?.pop().flatten();
                let (last_ms, doubted_ms) = match found {
                    None => (wall_ms, None),
                    Some(entry) => {
                        let mut decoder = Decoder::new("retention clock", 1, &entry.value)?;
                        let record = (decoder.i64()?, decoder.option(Decoder::i64)?);
                        decoder.finish()?;
                        record
                    }
                };
                // How long nobody looked is not known, so anything up to a day is taken for that.
                clocks.insert(Clocks { last: (last_ms, now), doubted: doubted_ms.map(|before| (now + STEADY, before)) })
            }
        };
        let passed_ms = i64::try_from(now.duration_since(clocks.last.1).as_millis()).unwrap_or(i64::MAX);
        if has_jumped(wall_ms.saturating_sub(clocks.last.0), passed_ms) {
            warn!(
                before_ms = clocks.last.0,
                now_ms = wall_ms,
                "the wall clock has jumped ahead by more than a day: nothing is truncated by time until it was steady for a day"
            );
            let before = clocks.doubted.map_or(clocks.last.0, |(_, before)| before);
            clocks.doubted = Some((now + STEADY, before));
        }
        if let Some((until, before)) = clocks.doubted
            && (now >= until || !has_jumped(wall_ms.saturating_sub(before), 0))
        {
            info!("the wall clock is believed again");
            clocks.doubted = None;
        }
        clocks.last = (wall_ms, now);
        self.clock_doubted.store(clocks.doubted.is_some(), Ordering::Relaxed);
        let mut encoder = Encoder::new(1);
        encoder.i64(wall_ms).option(clocks.doubted, |encoder, (_, before)| {
            encoder.i64(before);
        });
        self.ports.tables.commit(keys::COUNTERS, vec![put(key, encoder.finish())]).await?;
        Ok(())
    }

    /// Takes down where the stream ends, and truncates it if its policy says so.
    async fn retain(self: &Arc<Self>, name: &ScopedStream) -> Result<()> {
        let slot = self.slots.slot(name);
        let view = self.view(&slot).await?;
        let policy = view.as_ref().and_then(|view| view.head.config.retention);
        let (Some(view), Some(policy)) = (view, policy) else {
            self.ports.tables.commit(keys::RETENTION, vec![remove(keys::scoped_key(name))]).await?;
            return Ok(());
        };
        if view.head.state != State::Active {
            return Ok(());
        }
        let facts = self.facts(&slot, &view).await?;
        if !facts.is_idle {
            let number = facts.kept.last().map_or(0, |(key, _)| keys::kept_number(key) + 1);
            let mut changes = vec![put(keys::kept(number), facts.tail.encode())];
            changes.extend(thin(facts.kept.len()).map(|index| remove(facts.kept[index].0.clone())));
            self.ports.tables.commit(&slot.table, changes).await?;
        }
        if policy.kind == RetentionKind::Time && self.clock_doubted.load(Ordering::Relaxed) {
            return Ok(());
        }
        let Some(position) = facts.choose(policy, self.now_ms()) else { return Ok(()) };
        match self.truncate_stream(name.clone(), position.cut).await? {
            UpdateStream::Success => {}
            // The cut lies behind the head, where somebody else has truncated; or the stream was sealed meanwhile.
            UpdateStream::Failure | UpdateStream::Sealed | UpdateStream::StreamNotFound => {
                debug!(stream = %name, "retention has nothing to truncate");
                return Ok(());
            }
        }
        let Some(view) = self.view(&slot).await? else { return Ok(()) };
        let head = view.head.truncation.as_ref().map_or(0, |truncation| truncation.bytes);
        let gone: Vec<_> =
            facts.kept.into_iter().filter(|(_, kept)| kept.bytes < head).map(|(key, _)| remove(key)).collect();
        if !gone.is_empty() {
            self.ports.tables.commit(&slot.table, gone).await?;
        }
        Ok(())
    }

    /// What the next run would do about a stream; `None` if the stream has no retention policy.
    pub(super) async fn retention_plan(&self, name: &ScopedStream) -> Result<Option<RetentionPlan>> {
        let (slot, view) = self.complete(name).await?;
        let Some(policy) = view.head.config.retention else { return Ok(None) };
        let clock_doubted = self.clock_doubted.load(Ordering::Relaxed);
        if view.head.state != State::Active {
            let plan = RetentionPlan { policy, clock_doubted, stored_bytes: 0, held_bytes: None, truncation: None };
            return Ok(Some(plan));
        }
        let facts = self.facts(&slot, &view).await?;
        let doubtful = policy.kind == RetentionKind::Time && clock_doubted;
        let chosen = facts.choose(policy, self.now_ms()).filter(|_| !doubtful);
        Ok(Some(RetentionPlan {
            policy,
            clock_doubted,
            stored_bytes: facts.tail.bytes - facts.head_bytes,
            held_bytes: facts.readers.as_ref().map(|readers| facts.tail.bytes - readers.bytes),
            truncation: chosen.map(|position| (position.cut, position.bytes - facts.head_bytes)),
        }))
    }

    async fn facts(&self, slot: &Slot, view: &View) -> Result<Facts> {
        let mut kept = Vec::new();
        let mut after: Option<Bytes> = None;
        loop {
            let scan = self.ports.tables.scan(&slot.table, keys::KEPT_PREFIX, after.as_deref(), PAGE_ENTRIES);
            let page = scan.await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            for entry in page {
                kept.push((entry.key, Kept::decode(&entry.value)?));
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
        let is_idle = kept.last().is_some_and(|(_, last)| last.cut == cut);
        let tail = Kept { time_ms: self.now_ms(), bytes: self.bytes_before(slot, view, &cut).await?, cut };

        let head = self.head_cut(slot, view).await?;
        let subscribers: Vec<StreamCut> =
            self.subscribers(slot).await?.into_iter().map(|(_, subscriber)| subscriber.cut).collect();
        let named = kept.iter().map(|(_, kept)| &kept.cut).chain(&subscribers).chain([&head]);
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
                cut = head;
            }
            let bytes = self.bytes_before(slot, view, &cut).await?;
            readers = Some(Position { cut, bytes });
        }
        let head_bytes = view.head.truncation.as_ref().map_or(0, |truncation| truncation.bytes);
        Ok(Facts { kept, is_idle, tail, readers, head_bytes, history })
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
        let mut kept: Vec<Kept> = self.kept.iter().map(|(_, kept)| kept.clone()).collect();
        if !self.is_idle {
            kept.push(self.tail.clone());
        }
        choose(policy, now_ms, &kept, self.readers.as_ref(), |a, b| {
            // What is no cut any more is no place to truncate at.
            cuts::order(a, b, &self.history).unwrap_or(Order::Overlaps)
        })
        .filter(|position| position.bytes > self.head_bytes)
    }
}
