//! All that one writer has under way, and where each key goes: a state machine like the flows it consists of.
//!
//! Invariants:
//! * every key has one segment at a time, and changes it only together with all its events under way
//! * bytes under way never exceed the window, except by one event that is larger than the window
//! * once the stream is sealed, every event fails with that
//! * where events have numbers, each segment gets them in the order of their numbers, and only after everything before it
//!   was stored that belongs to its keys: what a segment has as last number tells of all its keys up to there
//!
//! The last one takes care where segments are merged: as long as a key of the new segment belongs to one of the old, nothing
//! goes to the new one ([`Flow::is_blocked`]), and the old one is taken for sealed, which it is or is about to be.
//!
//! What has to be done outside is left in [`Core::effects`], in the order in which it has to be done.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use headwater_types::{EventNumber, SegmentId, WriterId};

use super::flow::{Batch, Flow, Link, Send};
use super::numbered::Kept;
use super::ticket::{Ack, Outcome, Place, Ticket};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{SegmentRange, Successor};

/// Something to be done outside.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Give these to the segment.
    Send { segment: SegmentId, send: Send },
    /// Find the segment and register the writer there.
    SetUp { segment: SegmentId, generation: u64 },
    /// Ask what follows on the segment.
    Resolve { segment: SegmentId },
    /// The connection's registration is of no use any more.
    Drop { segment: SegmentId },
    /// What comes next is tried as if nothing had gone wrong.
    ForgetTrouble { segment: SegmentId },
    /// Look at this batch again after the linger time.
    Linger { segment: SegmentId, sequence: u64 },
    /// There is room again.
    Room,
}

/// What bounds and shapes batches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) batch_bytes: usize,
    pub(crate) window_bytes: usize,
    pub(crate) lingers: bool,
    /// Bytes put before each event. 0: what is written is no events but bytes, of which none may be missing before others,
    /// and their places are offsets in one segment.
    pub(crate) header_bytes: usize,
    /// Each event comes with a number; none may be missing before others.
    pub(crate) is_numbered: bool,
}

#[derive(Debug)]
struct Route {
    /// The last key of its range; a key equal to it belongs here.
    high: f64,
    segment: SegmentId,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) effects: Vec<Effect>,
    /// By ascending keys, without gaps.
    routes: Vec<Route>,
    flows: BTreeMap<SegmentId, Flow>,
    writer: WriterId,
    limits: Limits,
    /// What segments have got under the writer's id, if events come with numbers.
    kept: Kept,
    /// Last number that came with an event.
    last_number: EventNumber,
    bytes: usize,
    /// Why nothing is taken any more.
    over: Option<Error>,
    /// How often events were given up.
    failures: u64,
    /// Why, the last time.
    failure: Option<Error>,
}

impl Core {
    pub(crate) fn new(writer: WriterId, segments: &[SegmentRange], limits: Limits, kept: Kept) -> Self {
        let mut core = Self {
            effects: Vec::new(),
            routes: Vec::new(),
            flows: BTreeMap::new(),
            writer,
            limits,
            kept,
            last_number: 0,
            bytes: 0,
            over: None,
            failures: 0,
            failure: None,
        };
        let mut segments = segments.to_vec();
        segments.sort_by(|a, b| a.range.low().total_cmp(&b.range.low()));
        for segment in segments {
            core.routes.push(Route { high: segment.range.high(), segment: segment.id });
            core.flow_to(segment);
        }
        core
    }

    fn flow_to(&mut self, segment: SegmentRange) -> &mut Flow {
        let (writer, limits) = (self.writer, self.limits);
        self.flows.entry(segment.id).or_insert_with(|| Flow::new(segment, writer_on(writer, segment.id), limits))
    }

    /// Takes events of one key that have to be stored together. `None`: there is no room for them now.
    ///
    /// # Errors
    /// Nothing is taken any more.
    pub(crate) fn push(&mut self, hash: f64, number: Option<EventNumber>, events: &[Bytes]) -> Result<Option<Ack>> {
        if let Some(error) = &self.over {
            return Err(error.clone());
        }
        if let Some(number) = number
            && number <= self.last_number
        {
            let what = format!("event {number} comes after event {}", self.last_number);
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        if let Some(stored) = number.and_then(|number| self.stored_in(hash, number)) {
            self.last_number = number.unwrap_or_default();
            let ticket = Ticket::resolved(Outcome::Stored { segment: stored, start: None });
            let length = events.iter().map(|event| self.limits.header_bytes + event.len()).sum::<usize>() as u64;
            return Ok(Some(Ack::new(Place { ticket, index: 0, start: 0 }, length)));
        }
        let bytes: usize = events.iter().map(|event| self.limits.header_bytes + event.len()).sum();
        if self.bytes > 0 && self.bytes + bytes > self.limits.window_bytes {
            return Ok(None);
        }
        self.bytes += bytes;
        self.last_number = number.unwrap_or_default();
        let segment = self.segment_of(hash);
        let flow = self.flows.get_mut(&segment).expect("every route leads to a flow");
        let mut ack = None;
        // Of events that are stored together the last one's place tells of all.
        flow.push(hash, number, events, |place, length| ack = Some(Ack::new(place, length)));
        if self.limits.lingers
            && let Some(sequence) = flow.just_opened(events.len())
        {
            self.effects.push(Effect::Linger { segment, sequence });
        }
        self.go_on(segment);
        Ok(ack)
    }

    fn segment_of(&self, hash: f64) -> SegmentId {
        // The first bound that is not below: a key on a bound belongs to the lower segment, as in Pravega's clients.
        let at = self.routes.partition_point(|route| route.high < hash);
        self.routes[at.min(self.routes.len() - 1)].segment
    }

    /// The segment that has the event of this key and number, as far as is known.
    pub(crate) fn stored_in(&self, hash: f64, number: EventNumber) -> Option<SegmentId> {
        let segment = self.segment_of(hash);
        let now = self.flows.get(&segment).and_then(Flow::stored).filter(|stored| *stored >= number);
        now.map(|_| segment).or_else(|| self.kept.find(hash, number))
    }

    /// Whether the event of this key and number is known to be stored.
    pub(crate) fn is_stored(&self, hash: f64, number: EventNumber) -> bool {
        self.stored_in(hash, number).is_some() || self.kept.has_forgotten(number)
    }

    /// Sends what can be sent, and sees to it that the segment can be sent to.
    fn go_on(&mut self, segment: SegmentId) {
        let Some(flow) = self.flows.get_mut(&segment) else { return };
        if flow.link == Link::Idle && !flow.is_empty() {
            let generation = flow.begin_set_up();
            self.effects.push(Effect::SetUp { segment, generation });
        }
        while let Some(send) = flow.next() {
            self.effects.push(Effect::Send { segment, send });
        }
    }

    /// Batches that wait for more do not any longer.
    pub(crate) fn hurry(&mut self, only: Option<(SegmentId, u64)>) {
        let segments: Vec<_> = match only {
            Some((segment, _)) => vec![segment],
            None => self.flows.keys().copied().collect(),
        };
        for segment in segments {
            if let Some(flow) = self.flows.get_mut(&segment) {
                match only {
                    Some((_, sequence)) => flow.hurry(sequence),
                    None => flow.hurry_all(),
                }
            }
            self.go_on(segment);
        }
    }

    /// What was placed anew has waited long enough, and nobody looks at its batch again.
    fn hurry_all(&mut self, segment: SegmentId) {
        if let Some(flow) = self.flows.get_mut(&segment) {
            flow.hurry_all();
        }
    }

    /// Tickets of everything under way.
    pub(crate) fn tickets(&self) -> Vec<Arc<Ticket>> {
        self.flows.values().flat_map(Flow::tickets).collect()
    }

    /// Least number of the events under way, if they have numbers.
    pub(crate) fn first_number(&self) -> Option<EventNumber> {
        self.flows.values().filter_map(Flow::first_number).min()
    }

    /// How often events were given up so far, and why nothing is taken any more, or why the last time.
    pub(crate) fn failures(&self) -> (u64, Option<&Error>) {
        (self.failures, self.over.as_ref().or(self.failure.as_ref()))
    }

    /// Bytes under way.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A place that everything lies before that this writer has written: offsets in segments, `None` if the segment has to be
    /// asked for its end.
    pub(crate) fn observed(&self) -> Vec<(SegmentId, Option<u64>)> {
        self.flows.values().filter_map(|flow| Some((flow.segment.id, flow.observed()?))).collect()
    }

    /// The writer on a segment, if the flow still is at this generation.
    pub(crate) fn writer_at(&self, segment: SegmentId, generation: u64) -> Option<WriterId> {
        self.current(segment, generation).map(|flow| flow.writer)
    }

    /// Whether this registration is not answered yet.
    pub(crate) fn is_setting_up(&self, segment: SegmentId, generation: u64) -> bool {
        self.current(segment, generation).is_some_and(|flow| flow.link == Link::SettingUp)
    }

    /// Whether something is under way to the segment.
    pub(crate) fn is_busy(&self, segment: SegmentId) -> bool {
        self.flows.get(&segment).is_some_and(|flow| !flow.is_empty())
    }

    /// Counts the registrations on a segment.
    pub(crate) fn generation(&self, segment: SegmentId) -> u64 {
        self.flows.get(&segment).map_or(0, |flow| flow.generation)
    }

    /// The writer's own id.
    pub(crate) fn writer(&self) -> WriterId {
        self.writer
    }

    fn current(&self, segment: SegmentId, generation: u64) -> Option<&Flow> {
        self.flows.get(&segment).filter(|flow| flow.generation == generation)
    }

    fn current_mut(&mut self, segment: SegmentId, generation: u64) -> Option<&mut Flow> {
        self.flows.get_mut(&segment).filter(|flow| flow.generation == generation)
    }

    fn release(&mut self, bytes: usize) {
        self.bytes -= bytes;
        if bytes > 0 {
            self.effects.push(Effect::Room);
        }
    }

    /// The segment knows the writer, and has this much of it. If that is more than before, what went wrong is forgotten.
    pub(crate) fn set_up(&mut self, segment: SegmentId, generation: u64, last: Option<EventNumber>) {
        let Some(flow) = self.current_mut(segment, generation) else { return };
        if flow.link != Link::SettingUp {
            return;
        }
        let goes_on = last > flow.stored();
        match flow.set_up(last) {
            Ok(bytes) => {
                let repeats = flow.repeats();
                let again = if repeats { flow.take_all() } else { Vec::new() };
                if goes_on {
                    self.effects.push(Effect::ForgetTrouble { segment });
                }
                let found = self.place(again);
                self.release(bytes + found);
                if repeats {
                    self.hurry_all(segment);
                }
                self.go_on(segment);
            }
            Err(error) => self.fail(segment, &error),
        }
    }

    /// The segment has stored everything up to this number.
    pub(crate) fn acknowledged(
        &mut self,
        segment: SegmentId,
        generation: u64,
        number: EventNumber,
        length: Option<u64>,
    ) {
        let Some(flow) = self.current_mut(segment, generation) else { return };
        let bytes = flow.acknowledge(number, length);
        self.release(bytes);
        self.go_on(segment);
    }

    /// A large event is stored.
    pub(crate) fn uploaded(&mut self, segment: SegmentId, generation: u64, number: EventNumber, length: Option<u64>) {
        let Some(flow) = self.current_mut(segment, generation) else { return };
        let bytes = flow.acknowledge(number, length);
        // The registration does not know of the number that came with the merge.
        flow.disconnect();
        self.effects.push(Effect::Drop { segment });
        self.release(bytes);
        self.go_on(segment);
    }

    /// The connection was lost, or leads to the wrong place.
    pub(crate) fn disconnected(&mut self, segment: SegmentId, generation: u64) {
        let Some(flow) = self.current_mut(segment, generation) else { return };
        flow.disconnect();
        self.effects.push(Effect::Drop { segment });
        self.go_on(segment);
    }

    /// The segment takes no more.
    pub(crate) fn sealed(&mut self, segment: SegmentId, generation: u64) {
        let Some(flow) = self.current_mut(segment, generation) else { return };
        if flow.link != Link::Sealed {
            flow.disconnect();
            flow.link = Link::Sealed;
            self.effects.push(Effect::Drop { segment });
            self.effects.push(Effect::Resolve { segment });
        }
    }

    /// Gives up what is under way to a segment; what comes later is tried anew, unless nothing may be missing before it.
    pub(crate) fn fail(&mut self, segment: SegmentId, error: &Error) {
        if self.limits.header_bytes == 0 || self.limits.is_numbered {
            self.end(error);
        } else {
            self.give_up(segment, error);
        }
    }

    fn give_up(&mut self, segment: SegmentId, error: &Error) {
        let Some(flow) = self.flows.get_mut(&segment) else { return };
        flow.disconnect();
        let bytes = flow.fail(error);
        self.failures += 1;
        self.failure = Some(error.clone());
        self.effects.push(Effect::ForgetTrouble { segment });
        self.effects.push(Effect::Drop { segment });
        self.release(bytes);
    }

    /// Gives up everything, for good.
    pub(crate) fn end(&mut self, error: &Error) {
        self.over.get_or_insert_with(|| error.clone());
        let segments: Vec<_> = self.flows.keys().copied().collect();
        for segment in segments {
            self.give_up(segment, error);
        }
        self.effects.push(Effect::Room);
    }

    /// What follows on a sealed segment: its keys and all their events move there. `last` is the last number that it has got,
    /// if events come with numbers: some may be the work of a process before this one.
    pub(crate) fn succeeded(&mut self, segment: SegmentId, successors: &[Successor], last: Option<EventNumber>) {
        let Some(flow) = self.flows.get(&segment) else { return };
        let range = flow.segment.range;
        let mut following: Vec<SegmentRange> =
            successors.iter().map(|successor| successor.segment).filter(|next| next.range.overlaps(range)).collect();
        following.sort_by(|a, b| a.range.low().total_cmp(&b.range.low()));
        if following.is_empty() || self.limits.header_bytes == 0 {
            self.end(&Error::new(ErrorKind::Sealed, "stream is sealed"));
            return;
        }
        for next in &following {
            self.flow_to(*next).follows();
        }
        // Each route to the segment is replaced by those to its successors, as far as they have keys there.
        let (mut routes, mut low) = (Vec::with_capacity(self.routes.len() + following.len()), 0.0);
        for route in self.routes.drain(..) {
            let high = route.high;
            if route.segment == segment {
                let parts = following.iter().filter(|next| next.range.low() < high && next.range.high() > low);
                let before = routes.len();
                routes.extend(parts.map(|next| Route { high: next.range.high().min(high), segment: next.id }));
                // The successors cover all its keys; what a server leaves out goes to the last of them.
                match routes[before..].last_mut() {
                    Some(last) => last.high = high,
                    None => routes.push(Route { high, segment: following[following.len() - 1].id }),
                }
            } else {
                routes.push(route);
            }
            low = high;
        }
        self.routes = routes;
        let oldest = self.first_number();
        let mut flow = self.flows.remove(&segment).expect("it was there above");
        let mut batches = flow.take_all();
        if self.limits.is_numbered {
            if let Some(last) = last.max(flow.stored()) {
                self.kept.add(flow.segment, last);
            }
            // What was given up is neither under way nor stored.
            if self.over.is_none() {
                self.kept.forget_below(oldest.unwrap_or(self.last_number));
            }
            let blocked = self.flows.values().filter(|flow| flow.is_blocked && !following.contains(&flow.segment));
            following.extend(blocked.map(|flow| flow.segment).collect::<Vec<_>>());
            for next in &following {
                self.wait_for_earlier(*next, &mut batches);
            }
        }
        let found = self.place(batches);
        self.release(found);
        for next in following {
            self.hurry_all(next.id);
            self.go_on(next.id);
        }
    }

    /// A segment gets nothing while one before it has keys of it. What has waited so far is added to what is placed anew: it
    /// may have come before what others waited with.
    fn wait_for_earlier(&mut self, next: SegmentRange, batches: &mut Vec<Batch>) {
        let (mut earlier, mut low) = (Vec::new(), 0.0);
        for route in &self.routes {
            // Of segments that share keys the one of the earlier epoch comes first.
            let overlaps = next.range.low() < route.high && next.range.high() > low;
            if overlaps && route.segment.epoch < next.id.epoch {
                earlier.push(route.segment);
            }
            low = route.high;
        }
        let flow = self.flows.get_mut(&next.id).expect("every route leads to a flow");
        if flow.is_blocked {
            batches.extend(flow.take_all());
        }
        flow.is_blocked = !earlier.is_empty();
        for segment in earlier {
            let generation = self.generation(segment);
            self.sealed(segment, generation);
        }
    }

    /// Gives events that were under way to where their keys are now, those with numbers by these. Returns the bytes of those
    /// that turn out to be stored.
    fn place(&mut self, batches: Vec<Batch>) -> usize {
        let header_bytes = self.limits.header_bytes;
        let apart = batches.iter().enumerate().flat_map(|(at, batch)| {
            batch.taken_apart(header_bytes).into_iter().enumerate().map(move |(nth, together)| (at, nth, together))
        });
        let mut apart: Vec<_> = apart.collect();
        apart.sort_by_key(|(.., together)| together.number);
        let (mut placed, mut bytes) = (Vec::with_capacity(apart.len()), 0);
        for (at, nth, together) in apart {
            let mut places = Vec::with_capacity(together.events.len());
            let stored = together.number.and_then(|number| self.stored_in(together.hash, number));
            if let Some(segment) = stored {
                let ticket = Ticket::resolved(Outcome::Stored { segment, start: None });
                let place = |index| Place { ticket: ticket.clone(), index, start: 0 };
                places.extend((0..together.events.len()).map(place));
                bytes += together.events.iter().map(|event| header_bytes + event.len()).sum::<usize>();
            } else {
                let next = self.segment_of(together.hash);
                let flow = self.flows.get_mut(&next).expect("every route leads to a flow");
                flow.push(together.hash, together.number, &together.events, |place, _| places.push(place));
            }
            placed.push((at, nth, places));
        }
        placed.sort_by_key(|(at, nth, _)| (*at, *nth));
        let mut placed = placed.into_iter().peekable();
        for (at, batch) in batches.iter().enumerate() {
            let mut places = Vec::new();
            while let Some((.., more)) = placed.next_if(|(of, ..)| *of == at) {
                places.extend(more);
            }
            batch.resolve(Outcome::Moved(places.into()));
        }
        bytes
    }
}

/// The writer's id on one segment. They differ, since on one connection an id stands for one segment, and come out alike
/// each time, so that a writer that starts again is known.
pub(crate) fn writer_on(writer: WriterId, segment: SegmentId) -> WriterId {
    // An odd factor keeps different segments apart.
    const SPREAD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    let offset = (segment.as_i64() as u64 as u128).wrapping_mul(SPREAD);
    WriterId(writer.0.wrapping_add(offset))
}

#[cfg(test)]
mod tests {
    use headwater_types::KeyRange;

    use super::*;

    fn core() -> (Core, SegmentId) {
        let (id, range) = (SegmentId::new(0, 0), KeyRange::new(0.0, 1.0).unwrap());
        let limits =
            Limits { batch_bytes: 1 << 10, window_bytes: 1 << 16, lingers: false, header_bytes: 8, is_numbered: true };
        (Core::new(WriterId(7), &[SegmentRange { id, range }], limits, Kept::default()), id)
    }

    #[test]
    fn trouble_is_forgotten_if_a_segment_has_got_more_by_whomever() {
        let (mut core, id) = core();
        for number in 1..=3 {
            assert!(core.push(0.5, Some(number), &[Bytes::from_static(b"x")]).unwrap().is_some());
        }
        for (last, goes_on) in [(None, false), (Some(1), true), (Some(1), false), (Some(2), true), (Some(3), true)] {
            core.effects.clear();
            core.set_up(id, core.generation(id), last);
            let forgets = core.effects.iter().any(|effect| matches!(effect, Effect::ForgetTrouble { .. }));
            assert_eq!(forgets, goes_on, "{last:?}");
            // Others were faster.
            core.disconnected(id, core.generation(id));
        }
        assert_eq!(core.bytes(), 0);
    }

    #[test]
    fn what_ended_a_writer_is_told_whatever_fails_after_it() {
        let (mut core, id) = core();
        assert!(core.push(0.5, Some(1), &[Bytes::from_static(b"x")]).unwrap().is_some());
        core.fail(id, &Error::new(ErrorKind::Denied, "first"));
        core.fail(id, &Error::new(ErrorKind::Unavailable, "second"));
        assert_eq!(core.failures().1.map(Error::kind), Some(ErrorKind::Denied));
    }
}
