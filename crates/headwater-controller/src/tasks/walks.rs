//! Going through the past of a stream, which may be much larger than memory: a record of an epoch has up to 320 KB, and
//! a stream may have lived through thousands.
//!
//! What lies between two cuts is looked at a page of records at a time, and of each only what it created is kept. Most
//! cuts need none of it: their segments were open together, or they leave keys out and are no cuts whatever came between.
//!
//! Bounded, whoever asks and however many: what is read at once ([`READS`], [`RECORDS`]), and long walks ([`Turns`]), of
//! which each has two pages, read and decoded, and the surfaces between which it goes. That takes nothing from what
//! requests share, which is all in use when the disk is full: just then a subscriber has to be able to go on.

use std::sync::Arc;

use bytes::Bytes;
use headwater_types::SegmentId;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::open::missing_epoch;
use super::slots::{Slot, View};
use super::{Inner, Result};
use crate::model::{ControllerError, StreamCut};
use crate::ports::Entry;
use crate::state::cuts::{self, Order, Segments, Spans, Surface, Way};
use crate::state::epochs::{Epoch, Segment};
use crate::state::keys;

/// Pages of epoch records that are read or decoded at once.
pub(super) const READS: usize = 4;
/// Single records that are. So many that some whose bytes are slow to come do not hold up the others.
pub(super) const RECORDS: usize = 64;
/// Bytes of records that a page aims at; the table ends it at 2 MiB and a record.
const PAGE_BYTES: usize = 1 << 20;
/// Most records of a page.
const PAGE_EPOCHS: usize = 32;
/// Records of a first page, when it is not known how large they are.
const FIRST_EPOCHS: usize = 2;
/// Epochs that are looked at without a turn: what readers and writers ask about lies in the last few.
const SHORT_EPOCHS: usize = 8;

/// Long walks at once. Those that clients ask for do not hold up those by which the controller decides. Nobody waits for a
/// turn who has one.
pub(super) struct Turns {
    asked: Semaphore,
    own: Semaphore,
}

impl Default for Turns {
    fn default() -> Self {
        Self { asked: Semaphore::new(1), own: Semaphore::new(4) }
    }
}

/// Who wants to know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum For {
    /// A client; it can ask again.
    Client,
    /// The controller, to decide or to carry out what is decided.
    Itself,
}

/// One question about a stream's past. A turn that it has taken is held until [`Walk::rest`], or until it is dropped.
pub(super) struct Walk<'a> {
    inner: &'a Inner,
    slot: &'a Slot,
    whose: For,
    /// Records that it had read.
    read: usize,
    /// How many make a page.
    page_epochs: usize,
    turn: Option<SemaphorePermit<'a>>,
}

/// Segments that lie wholly before a cut and not before another.
pub(super) struct Past {
    from: Surface,
    to: Surface,
    spans: Spans,
    has_begun: bool,
}

impl Inner {
    pub(super) fn walk<'a>(&'a self, slot: &'a Slot, whose: For) -> Walk<'a> {
        Walk { inner: self, slot, whose, read: 0, page_epochs: FIRST_EPOCHS, turn: None }
    }

    /// Epoch records from `first` on, at least one and at most `count`, and the size of the largest.
    pub(super) async fn epoch_page(&self, slot: &Slot, first: i32, count: usize) -> Result<(Vec<Epoch>, usize)> {
        let _reading = self.reads.acquire().await.expect("never closed");
        let after = (first > 0).then(|| keys::epoch(first - 1));
        let page = self.ports.tables.scan(&slot.table, keys::EPOCH_PREFIX, after.as_deref(), count).await?;
        let (mut epochs, mut largest) = (Vec::with_capacity(page.len()), 0);
        for (entry, number) in page.into_iter().zip(first..) {
            largest = largest.max(entry.value.len());
            let epoch = Epoch::decode(&entry.value)?;
            if epoch.epoch != number {
                return Err(missing_epoch(slot, number));
            }
            epochs.push(epoch);
        }
        if epochs.is_empty() { Err(missing_epoch(slot, first)) } else { Ok((epochs, largest)) }
    }
}

impl Walk<'_> {
    /// Before so many records more are read.
    async fn take_turn(&mut self, records: usize) -> Result<()> {
        if self.turn.is_some() || self.read.saturating_add(records) <= SHORT_EPOCHS {
            return Ok(());
        }
        let turns = match self.whose {
            For::Client => &self.inner.turns.asked,
            For::Itself => &self.inner.turns.own,
        };
        self.turn = Some(turns.acquire().await.expect("never closed"));
        Ok(())
    }

    /// Lets others have their turn while something else is done with what was found.
    pub(super) fn rest(&mut self) {
        self.turn = None;
    }

    pub(super) fn slot(&self) -> &Slot {
        self.slot
    }

    /// Records of the stream, one answer per key.
    pub(super) async fn read(&self, keys: &[Bytes]) -> Result<Vec<Option<Entry>>> {
        Ok(self.inner.ports.tables.read(&self.slot.table, keys).await?)
    }

    /// The record of an epoch; `None` if there is none of that number.
    pub(super) async fn epoch(&mut self, number: i32) -> Result<Option<Arc<Epoch>>> {
        if let Some(epoch) = self.slot.epoch(number) {
            return Ok(Some(epoch));
        }
        self.take_turn(1).await?;
        self.read += 1;
        self.inner.epoch(self.slot, number).await
    }

    /// Segments that the next epochs of the spans created; `None` when all are done.
    pub(super) async fn created(&mut self, spans: &mut Spans) -> Result<Option<Vec<Segment>>> {
        let Some((first, last)) = spans.next() else { return Ok(None) };
        // Whoever has far to go waits for its turn at the beginning.
        self.take_turn(spans.count()).await?;
        let count = self.page_epochs.min((last - first) as usize + 1);
        let (page, largest) = self.inner.epoch_page(self.slot, first, count).await?;
        self.read += page.len();
        self.page_epochs = (PAGE_BYTES / largest.max(1)).clamp(1, PAGE_EPOCHS);
        spans.pass(page.last().expect("a page is not empty").epoch);
        let created = page.iter().flat_map(Epoch::created_here).copied().collect();
        // Looking at so much takes a while.
        tokio::task::yield_now().await;
        Ok(Some(created))
    }

    /// The segments that a cut names. One that never was is left out, and if all are wanted, so is what was not looked for
    /// yet then.
    pub(super) async fn segments(&mut self, cut: &StreamCut, wants_all: bool) -> Result<Segments> {
        let mut found = Segments::new();
        // From the youngest back: its epoch has most of the others, too.
        for id in cut.keys().rev() {
            if found.contains_key(id) {
                continue;
            }
            let epoch = if id.epoch < 0 { None } else { self.epoch(id.epoch).await? };
            for segment in epoch.iter().flat_map(|epoch| epoch.segments()) {
                if cut.contains_key(&segment.id) {
                    found.entry(segment.id).or_insert((*segment, id.epoch));
                }
            }
            if wants_all && !found.contains_key(id) {
                break;
            }
        }
        Ok(found)
    }

    /// The surface of what is a cut unless something between its segments says otherwise, and where that may be.
    async fn likely(&mut self, cut: &StreamCut) -> Result<Option<(Surface, Spans)>> {
        let segments = self.segments(cut, true).await?;
        if segments.len() < cut.len() {
            return Ok(None);
        }
        Ok(Surface::new(cut, &segments).map(|surface| {
            let doubts = surface.doubts(&segments);
            (surface, doubts)
        }))
    }

    /// `None` for a cut that is not valid.
    pub(super) async fn surface(&mut self, cut: &StreamCut) -> Result<Option<Surface>> {
        let Some((surface, mut doubts)) = self.likely(cut).await? else { return Ok(None) };
        while let Some(created) = self.created(&mut doubts).await? {
            if created.iter().any(|segment| surface.is_contradicted(cut, segment)) {
                return Ok(None);
            }
        }
        Ok(Some(surface))
    }

    /// The surface of a cut that was valid when it was taken down; `None` for an empty one.
    pub(super) async fn standing(&mut self, cut: &StreamCut) -> Result<Option<Surface>> {
        Ok(self.likely(cut).await?.map(|(surface, _)| surface))
    }

    /// Where the stream begins.
    async fn head(&mut self, view: &View) -> Result<Surface> {
        match &view.head.truncation {
            Some(truncation) => self.standing(&truncation.cut).await?.ok_or_else(|| no_cut(self.slot)),
            None => {
                let first = self.epoch(0).await?.ok_or_else(|| missing_epoch(self.slot, 0))?;
                Ok(Surface::of_segments(first.segments()))
            }
        }
    }

    /// A cut whose surface is given is nowhere behind one that was valid when it was taken down, or that is empty.
    pub(super) async fn is_at_or_after(&mut self, cut: (&Surface, &StreamCut), before: &StreamCut) -> Result<bool> {
        if before.is_empty() {
            return Ok(true);
        }
        let on_before = self.standing(before).await?;
        Ok(on_before.is_some_and(|on_before| cuts::order_on(cut, (&on_before, before)) == Order::EqualOrAfter))
    }

    /// What is on the way from one surface to another, in no order; `None` if it leads back.
    pub(super) async fn between(&mut self, from: &Surface, to: &Surface) -> Result<Option<Vec<SegmentId>>> {
        let way = Way::new(from, to);
        if way.is_backwards() {
            return Ok(None);
        }
        let (mut found, mut spans) = (way.ends(), way.spans());
        while let Some(created) = self.created(&mut spans).await? {
            found.extend(created.iter().filter(|segment| way.touches(segment)).map(|segment| segment.id));
        }
        Ok(Some(found.into_iter().collect()))
    }

    /// Segments that lie wholly before a valid cut and not before the stream's head.
    pub(super) async fn past(&mut self, view: &View, cut: &StreamCut) -> Result<Past> {
        let to = self.standing(cut).await?.ok_or_else(|| no_cut(self.slot))?;
        let from = self.head(view).await?;
        let spans = Way::new(&from, &to).spans();
        Ok(Past { from, to, spans, has_begun: false })
    }

    /// Some more of them, each once; `None` at the end.
    pub(super) async fn more_past(&mut self, past: &mut Past) -> Result<Option<Vec<SegmentId>>> {
        let candidates = if past.has_begun {
            let Some(mut created) = self.created(&mut past.spans).await? else { return Ok(None) };
            created.retain(|segment| !past.from.has(segment) && !past.from.is_past(segment));
            created
        } else {
            past.has_begun = true;
            past.from.segments()
        };
        Ok(Some(candidates.iter().filter(|segment| past.to.is_past(segment)).map(|segment| segment.id).collect()))
    }

    /// Bytes of the stream before a valid cut that is not before its head, since the stream was created.
    pub(super) async fn bytes_before(&mut self, view: &View, cut: &StreamCut) -> Result<i64> {
        let mut past = self.past(view, cut).await?;
        let mut bytes = bytes_from_head(view, cut);
        while let Some(ids) = self.more_past(&mut past).await? {
            bytes = bytes.saturating_add(self.inner.sealed_bytes(self.slot, &ids).await?);
        }
        Ok(bytes)
    }
}

impl Inner {
    /// Bytes of sealed segments together, as far as they are known.
    pub(super) async fn sealed_bytes(&self, slot: &Slot, ids: &[SegmentId]) -> Result<i64> {
        let sealed = self.sealed(slot, ids).await?;
        Ok(sealed.into_iter().flatten().fold(0, |sum: i64, sealed| sum.saturating_add(sealed.bytes.max(0))))
    }
}

/// Bytes before a cut, but for those of segments between the stream's head and the cut.
pub(super) fn bytes_from_head(view: &View, cut: &StreamCut) -> i64 {
    let head = view.head.truncation.as_ref();
    let before = head.map_or(0, |truncation| truncation.bytes.saturating_sub(offsets(&truncation.cut)));
    before.saturating_add(offsets(cut))
}

fn offsets(cut: &StreamCut) -> i64 {
    cut.values().fold(0, |sum: i64, offset| sum.saturating_add((*offset).max(0)))
}

pub(super) fn no_cut(slot: &Slot) -> ControllerError {
    ControllerError::Internal(format!("a recorded position of {} is no cut", slot.name))
}
