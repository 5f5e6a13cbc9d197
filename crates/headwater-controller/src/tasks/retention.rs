//! Truncating streams as their retention policies say, in a run every so often.
//!
//! A table of their own, `retention`, names the streams that have a policy. An entry is written before the policy is in
//! force and taken back by the run that finds none.
//!
//! How old something is, is a difference in the age of the store (`clock`), which no jump of the wall clock moves.
//!
//! A decision is made and recorded under the stream's lock, and so are subscriptions, so that nothing is truncated on
//! facts that have changed meanwhile.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_types::{ScopedStream, SegmentId};
use tracing::{debug, warn};

use super::slots::{Slot, View};
use super::subscribers::CUTS_PER_PAGE;
use super::walks::{For, Walk, no_cut};
use super::{Inner, Result, fan_out, present, put, remove};
use crate::model::{
    ControllerError, PAGE_ENTRIES, PLANNED_SEGMENTS_MAX, PlannedSegment, PlannedTruncation, RetentionPlan,
    RetentionPolicy, StreamConfig, StreamCut,
};
use crate::state::cuts::{self, Order, Surface};
use crate::state::head::State;
use crate::state::keys;
use crate::state::retention::{Choice, Kept, LowerBound, Mark, Position, Readers, choose, thin};

/// Longest time from a start to the first run.
const FIRST: Duration = Duration::from_secs(60);

/// Everything a decision about one stream needs. Of the cuts, which may be many and large, where they lie.
struct Facts {
    /// Keys of the cuts that are stored, oldest first.
    keys: Vec<Bytes>,
    /// The cuts, and where the stream ends if that is news.
    marks: Vec<Mark>,
    /// How many of them are behind the stream's head, or ahead of it here and behind it there.
    gone: usize,
    /// The stream ends now where it ended when the newest cut was taken down.
    is_idle: bool,
    /// Where it ends.
    tail: Kept,
    /// Where all subscribers together stand.
    readers: Option<(StreamCut, Readers)>,
    /// Bytes before the stream begins.
    head_bytes: i64,
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
        let facts = self.facts(&slot, &view, For::Itself).await?;
        let position = self.position(&slot, &facts, policy).await?;
        if !facts.is_idle {
            let number = facts.keys.last().map_or(0, |key| keys::kept_number(key) + 1);
            let mut changes = vec![put(keys::kept(number), facts.tail.encode())];
            changes.extend(thin(facts.keys.len()).map(|index| remove(facts.keys[index].clone())));
            self.ports.tables.commit(&slot.table, changes).await?;
        }
        let Some(position) = position else { return Ok(()) };
        if !stream.truncate(position.cut, For::Itself).await? {
            debug!(stream = %name, "retention has nothing to truncate");
            return Ok(());
        }
        let stored = facts.keys.into_iter().zip(&facts.marks);
        let gone = stored.filter(|(_, mark)| mark.bytes < position.bytes).map(|(key, _)| remove(key));
        let gone: Vec<_> = gone.collect();
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
        let facts = self.facts(&slot, &view, For::Client).await?;
        let truncation = match self.position(&slot, &facts, policy).await? {
            None => None,
            Some(position) => Some(self.planned(&slot, &view, position, facts.head_bytes).await?),
        };
        // Nobody keeps a group from saying that it stands where the stream has not come to yet.
        let held = |bytes: i64| facts.tail.bytes.saturating_sub(bytes).max(0);
        Ok(Some(RetentionPlan {
            policy,
            clock_jumped,
            stored_bytes: held(facts.head_bytes),
            held_bytes: facts.readers.as_ref().map(|(_, readers)| held(readers.bytes)),
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
        let (mut segments, mut count) = (BTreeMap::<SegmentId, PlannedSegment>::new(), 0);
        // Those of the lowest numbers are shown.
        let mut plan = |segment: PlannedSegment| {
            count += usize::from(segments.insert(segment.id, segment).is_none());
            if segments.len() > PLANNED_SEGMENTS_MAX {
                segments.pop_last();
            }
        };
        let mut walk = self.walk(slot, For::Client);
        let mut past = walk.past(view, &position.cut).await?;
        while let Some(ids) = walk.more_past(&mut past).await? {
            let ends = self.sealed(slot, &ids).await?;
            for (id, sealed) in ids.into_iter().zip(ends) {
                let to = sealed.map_or(0, |sealed| sealed.bytes).max(begin(id));
                plan(PlannedSegment { id, from: begin(id), to, is_deleted: true });
            }
        }
        drop((walk, past));
        for (id, to) in &position.cut {
            if *to > begin(*id) {
                plan(PlannedSegment { id: *id, from: begin(*id), to: *to, is_deleted: false });
            }
        }
        Ok(PlannedTruncation {
            bytes: position.bytes.saturating_sub(head_bytes),
            cut: position.cut,
            more_segments: count - segments.len(),
            segments: segments.into_values().collect(),
        })
    }

    async fn facts(&self, slot: &Slot, view: &View, whose: For) -> Result<Facts> {
        let (mut keys_kept, mut marks, mut last_cut) = (Vec::new(), Vec::new(), None);
        let mut after: Option<Bytes> = None;
        loop {
            let scan = self.ports.tables.scan(&slot.table, keys::KEPT_PREFIX, after.as_deref(), CUTS_PER_PAGE);
            let page = scan.await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            for entry in page {
                let kept = Kept::decode(&entry.value)?;
                marks.push(kept.mark());
                last_cut = Some(kept.cut);
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
        let is_idle = last_cut.is_some_and(|last| last == cut);
        let mut walk = self.walk(slot, whose);
        let tail = Kept { time_ms: self.moment().age_ms, bytes: walk.bytes_before(view, &cut).await?, cut };
        if !is_idle {
            marks.push(tail.mark());
        }

        let head = self.head_cut(slot, view).await?;
        let on_head = walk.standing(&head).await?.ok_or_else(|| no_cut(slot))?;
        // The head may be where a subscriber stood, ahead of a cut here and behind it there: that is no place to truncate at
        // any more.
        let places = Places { keys: &keys_kept, tail: &tail };
        let gone =
            places.first(&mut walk, marks.len(), (&on_head, &head), |order| order == Order::EqualOrAfter).await?;
        let readers = match self.slowest(&mut walk, (&on_head, &head)).await? {
            None => None,
            Some((cut, surface)) => {
                let at = (&surface, &cut);
                let before = places.first(&mut walk, marks.len(), at, |order| order != Order::Before).await?;
                let after = places.first(&mut walk, marks.len(), at, |order| order == Order::EqualOrAfter).await?;
                let is_kept = after < marks.len() && *places.cut(&walk, after).await? == cut;
                let bytes = walk.bytes_before(view, &cut).await?;
                let index = |place: usize| place.saturating_sub(gone);
                let readers =
                    Readers { bytes, before: index(before), after: index(after), is_kept: is_kept && after >= gone };
                Some((cut, readers))
            }
        };
        let head_bytes = view.head.truncation.as_ref().map_or(0, |truncation| truncation.bytes);
        Ok(Facts { keys: keys_kept, marks, gone, is_idle, tail, readers, head_bytes })
    }

    /// Where all subscribers together stand, if there are any.
    async fn slowest(&self, walk: &mut Walk<'_>, head: (&Surface, &StreamCut)) -> Result<Option<(StreamCut, Surface)>> {
        let (mut bound, mut after, mut is_held) = (LowerBound::default(), None::<Bytes>, false);
        loop {
            let page = self.subscribers(walk.slot(), after.as_deref()).await?;
            let Some((last, _)) = page.last() else { break };
            (after, is_held) = (Some(last.clone()), true);
            for (_, subscriber) in page {
                // Who has named no position may need everything, and nobody can read what is before the head.
                let cut = subscriber.cut;
                let surface = walk.standing(&cut).await?;
                let is_ahead = surface.is_some_and(|on| cuts::order_on((&on, &cut), head) == Order::EqualOrAfter);
                bound.add(if is_ahead { &cut } else { head.1 });
            }
        }
        if !is_held {
            return Ok(None);
        }
        let segments = walk.segments(bound.named(), false).await?;
        let cut = bound.finish(&segments);
        drop(segments);
        if let Some(surface) = walk.surface(&cut).await? {
            return Ok(Some((cut, surface)));
        }
        warn!(stream = %walk.slot().name, "positions of subscribers contradict each other, nothing is given up");
        Ok(Some((head.1.clone(), head.0.clone())))
    }

    /// Where to truncate, unless the stream begins there or later.
    async fn position(&self, slot: &Slot, facts: &Facts, policy: RetentionPolicy) -> Result<Option<Position>> {
        let readers = facts.readers.as_ref();
        let kept = &facts.marks[facts.gone..];
        let chosen = choose(policy, self.moment().age_ms, kept, readers.map(|(_, readers)| *readers));
        let position = match (chosen, readers) {
            (Some(Choice::Kept(index)), _) => {
                let places = Places { keys: &facts.keys, tail: &facts.tail };
                let cut = places.cut(&self.walk(slot, For::Itself), facts.gone + index).await?;
                Some(Position { cut: cut.into_owned(), bytes: kept[index].bytes })
            }
            (Some(Choice::Readers), Some((cut, readers))) => Some(Position { cut: cut.clone(), bytes: readers.bytes }),
            _ => None,
        };
        Ok(position.filter(|position| position.bytes > facts.head_bytes))
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

/// The cuts that were taken down, which are read when they are needed, and where the stream ends now.
struct Places<'a> {
    keys: &'a [Bytes],
    tail: &'a Kept,
}

impl Places<'_> {
    async fn cut(&self, walk: &Walk<'_>, index: usize) -> Result<Cow<'_, StreamCut>> {
        let Some(key) = self.keys.get(index) else { return Ok(Cow::Borrowed(&self.tail.cut)) };
        let found = walk.read(std::slice::from_ref(key)).await?.pop().flatten();
        // Truncating at a cut removes it, and so does a list that has grown too long.
        let gone = || ControllerError::Unavailable("a cut was given up meanwhile".into());
        Ok(Cow::Owned(Kept::decode(&found.ok_or_else(gone)?.value)?.cut))
    }

    /// Number of the first of so many cuts that lies so to another. Each is nowhere behind those before it, since where a
    /// stream ends only grows; so it is found without looking at all.
    async fn first(
        &self,
        walk: &mut Walk<'_>,
        count: usize,
        other: (&Surface, &StreamCut),
        lies: impl Fn(Order) -> bool,
    ) -> Result<usize> {
        let (mut from, mut to) = (0, count);
        while from < to {
            let middle = from.midpoint(to);
            let cut = self.cut(walk, middle).await?;
            let on = walk.standing(&cut).await?.ok_or_else(|| no_cut(walk.slot()))?;
            if lies(cuts::order_on((&on, &cut), other)) {
                to = middle;
            } else {
                from = middle + 1;
            }
        }
        Ok(from)
    }
}
