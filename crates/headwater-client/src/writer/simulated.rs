//! Numbered writing against a model of segments, one step after the other in an order that is drawn: connections are lost,
//! what was sent on them arrives late, segments are split and merged, and the process dies and starts again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Buf as _, Bytes};
use headwater_types::{EventNumber, KeyRange, SegmentId, WriterId};

use super::core::{Core, Effect, Limits};
use super::flow::{HEADER_BYTES, Send};
use super::numbered::Kept;
use super::ticket::Ack;
use crate::model::{SegmentRange, Successor};

const EVENTS: EventNumber = 60;
/// An event takes 16 bytes.
const BATCH_BYTES: usize = 64;
const WINDOW_BYTES: usize = 400;

/// Numbers drawn from a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }
}

/// The key of an event: always the same.
fn hash_of(number: EventNumber) -> f64 {
    [0.0, 0.1, 0.25, 0.3, 0.5, 0.6, 0.75, 0.9][(number * 5 % 8) as usize]
}

struct Segment {
    range: KeyRange,
    is_sealed: bool,
    /// The writer's last number.
    last: Option<EventNumber>,
    stored: Vec<EventNumber>,
    successors: Vec<Successor>,
}

/// What a connection carries for one segment.
struct Session {
    segment: SegmentId,
    generation: u64,
    /// The number that the next append has to find; known once the set-up has arrived.
    expected: Option<Option<EventNumber>>,
    appends: VecDeque<(Bytes, EventNumber)>,
    /// The process does not listen any more.
    is_lost: bool,
}

struct World {
    chance: Chance,
    segments: BTreeMap<SegmentId, Segment>,
    current: Vec<SegmentRange>,
    epoch: i32,
    sessions: Vec<Session>,
    /// Segments whose successors are being asked for.
    asked: Vec<SegmentId>,
    /// Batches to be looked at again.
    lingering: Vec<(SegmentId, u64)>,
    core: Core,
    next: EventNumber,
    acks: Vec<Ack>,
}

fn open(current: &[SegmentRange], kept: Kept, lingers: bool) -> Core {
    let (batch_bytes, window_bytes, header_bytes) = (BATCH_BYTES, WINDOW_BYTES, HEADER_BYTES);
    let limits = Limits { batch_bytes, window_bytes, lingers, header_bytes, is_numbered: true };
    Core::new(WriterId(7), current, limits, kept)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let ranges = KeyRange::split(1 + chance.below(4));
        let current: Vec<_> =
            (0..).zip(ranges).map(|(at, range)| SegmentRange { id: SegmentId::new(at, 0), range }).collect();
        let core = open(&current, Kept::default(), chance.below(2) == 0);
        let mut world = Self {
            chance,
            segments: BTreeMap::new(),
            current: Vec::new(),
            epoch: 0,
            sessions: Vec::new(),
            asked: Vec::new(),
            lingering: Vec::new(),
            core,
            next: 1,
            acks: Vec::new(),
        };
        world.add(current);
        world
    }

    fn add(&mut self, segments: Vec<SegmentRange>) {
        for SegmentRange { id, range } in &segments {
            let (range, successors) = (*range, Vec::new());
            let segment = Segment { range, is_sealed: false, last: None, stored: Vec::new(), successors };
            self.segments.insert(*id, segment);
        }
        self.current.extend(segments);
        self.current.sort_by(|a, b| a.range.low().total_cmp(&b.range.low()));
    }

    /// Splits one segment or merges two neighbours.
    fn scale(&mut self) {
        self.epoch += 1;
        let at = self.chance.below(self.current.len());
        let count = if self.chance.below(2) == 0 { 1 } else { 2.min(self.current.len() - at) };
        let sealed: Vec<_> = self.current.drain(at..at + count).collect();
        let (low, high) = (sealed[0].range.low(), sealed[count - 1].range.high());
        let middle = low + (high - low) / 2.0;
        let ranges = if count == 2 { vec![(low, high)] } else { vec![(low, middle), (middle, high)] };
        let ranges = ranges.into_iter().map(|(low, high)| KeyRange::new(low, high).unwrap());
        let epoch = self.epoch;
        let id = |at| SegmentId::new(i32::try_from(self.segments.len()).unwrap() + at, epoch);
        let new: Vec<_> = (0..).zip(ranges).map(|(at, range)| SegmentRange { id: id(at), range }).collect();
        let predecessors: Vec<_> = sealed.iter().map(|it| it.id).collect();
        for old in &sealed {
            let follow = new.iter().filter(|next| next.range.overlaps(old.range));
            let successors = follow.map(|next| Successor { segment: *next, predecessors: predecessors.clone() });
            let old = self.segments.get_mut(&old.id).unwrap();
            (old.successors, old.is_sealed) = (successors.collect(), true);
        }
        self.add(new);
    }

    /// Takes over what the writer wants to be done.
    fn collect(&mut self) {
        for effect in std::mem::take(&mut self.core.effects) {
            match effect {
                Effect::SetUp { segment, generation } => {
                    let appends = VecDeque::new();
                    self.sessions.push(Session { segment, generation, expected: None, appends, is_lost: false });
                }
                Effect::Send { segment, send: Send::Append { data, last_event_number, .. } } => {
                    let session = self.sessions.iter_mut().rfind(|it| it.segment == segment && !it.is_lost);
                    session.unwrap().appends.push_back((data, last_event_number));
                }
                Effect::Send { send: Send::Large { .. }, .. } => panic!("no event is large"),
                Effect::Resolve { segment } => self.asked.push(segment),
                Effect::Drop { segment } => {
                    self.sessions.iter_mut().filter(|it| it.segment == segment).for_each(|it| it.is_lost = true);
                }
                Effect::Linger { segment, sequence } => self.lingering.push((segment, sequence)),
                Effect::ForgetTrouble { .. } | Effect::Room => {}
            }
        }
    }

    /// The oldest thing on one connection arrives.
    fn deliver(&mut self, at: usize) {
        let session = &mut self.sessions[at];
        let (id, generation) = (session.segment, session.generation);
        let segment = self.segments.get_mut(&id).unwrap();
        let Some(expected) = session.expected else {
            session.expected = Some(segment.last);
            if !session.is_lost {
                self.core.set_up(id, generation, segment.last);
                self.check_position();
            }
            return;
        };
        let Some((mut data, number)) = session.appends.pop_front() else {
            if session.is_lost {
                self.sessions.remove(at);
            }
            return;
        };
        if segment.is_sealed {
            session.appends.clear();
            if !session.is_lost {
                self.core.sealed(id, generation);
            }
        } else if segment.last != expected {
            session.appends.clear();
            if !session.is_lost {
                self.core.disconnected(id, generation);
            }
        } else {
            while data.has_remaining() {
                data.advance(HEADER_BYTES);
                segment.stored.push(data.get_i64());
            }
            (segment.last, session.expected) = (Some(number), Some(Some(number)));
            if !session.is_lost {
                self.core.acknowledged(id, generation, number, Some(segment.stored.len() as u64));
            }
        }
    }

    /// What the writer says is stored, which it is.
    fn known(&self) -> BTreeSet<EventNumber> {
        let known = (1..=EVENTS).filter(|number| self.core.is_stored(hash_of(*number), *number));
        let known: BTreeSet<_> = known.collect();
        let stored: BTreeSet<_> = self.segments.values().flat_map(|segment| &segment.stored).copied().collect();
        assert!(known.is_subset(&stored), "{known:?} of {stored:?}");
        known
    }

    /// Whatever is told as stored lies before the place that the writer would note.
    fn check_position(&self) {
        let end = |id| self.segments[&id].stored.len() as u64;
        let cut = self.core.observed().into_iter().map(|(id, offset)| (id, offset.unwrap_or_else(|| end(id))));
        let cut: Vec<_> = cut.collect();
        let told = self.core.first_number().unwrap_or(self.next);
        for (id, segment) in &self.segments {
            for (at, number) in (1..).zip(&segment.stored).filter(|(_, number)| **number < told) {
                let has_key = |range: KeyRange| {
                    let hash = hash_of(*number);
                    (range.low() < hash || range.low() == 0.0) && hash <= range.high()
                };
                let is_behind = |(of, offset): &(SegmentId, u64)| {
                    if of == id { *offset >= at } else { of.epoch > id.epoch && has_key(self.segments[of].range) }
                };
                assert!(cut.iter().any(is_behind), "event {number} in segment {id} lies behind {cut:?}");
            }
        }
    }

    /// The process dies, and another one begins where it has to, or before.
    fn restart(&mut self) {
        self.check_position();
        self.sessions.iter_mut().for_each(|session| session.is_lost = true);
        self.asked.clear();
        self.lingering.clear();
        self.acks.clear();
        let mut kept = Kept::default();
        for (id, segment) in &self.segments {
            if let Some(last) = segment.last {
                kept.add(SegmentRange { id: *id, range: segment.range }, last);
            }
        }
        let after = kept.of_all_keys().unwrap_or(0);
        self.next = 1 + self.chance.below(usize::try_from(after).unwrap() + 1) as EventNumber;
        self.core = open(&self.current, kept, self.chance.below(2) == 0);
    }

    fn step(&mut self, is_calm: bool) {
        match self.chance.below(if is_calm { 22 } else { 28 }) {
            0..=7 if self.next <= EVENTS => {
                let event = Bytes::copy_from_slice(&self.next.to_be_bytes());
                let taken = self.core.push(hash_of(self.next), Some(self.next), &[event]).unwrap();
                self.next += i64::from(taken.is_some());
                self.acks.extend(taken);
            }
            8..=16 if !self.sessions.is_empty() => {
                let at = self.chance.below(self.sessions.len());
                self.deliver(at);
            }
            17..=19 if !self.asked.is_empty() => {
                let at = self.chance.below(self.asked.len());
                let segment = self.asked.swap_remove(at);
                let known = self.known();
                let Segment { successors, last, is_sealed, .. } = &self.segments[&segment];
                assert!(is_sealed, "a writer leaves only segments that are sealed");
                self.core.succeeded(segment, &successors.clone(), *last);
                self.check_position();
                assert!(self.known().is_superset(&known), "what is known to be stored stays known");
            }
            20 | 21 if !self.lingering.is_empty() => {
                let at = self.chance.below(self.lingering.len());
                let batch = self.lingering.swap_remove(at);
                self.core.hurry(Some(batch));
            }
            22 | 23 if self.epoch < 12 => self.scale(),
            24..=26 => {
                let alive: Vec<_> = self.sessions.iter().filter(|it| !it.is_lost).collect();
                if !alive.is_empty() {
                    let session = alive[self.chance.below(alive.len())];
                    self.core.disconnected(session.segment, session.generation);
                }
            }
            27 if self.chance.below(4) == 0 => self.restart(),
            _ => {}
        }
        self.collect();
    }

    /// Every event is stored once, and those of one key in order.
    fn check(&self, seed: u64) {
        let mut found: BTreeMap<u64, Vec<EventNumber>> = BTreeMap::new();
        // By id, what follows comes later.
        for number in self.segments.values().flat_map(|segment| &segment.stored) {
            found.entry(hash_of(*number).to_bits()).or_default().push(*number);
        }
        for (hash, numbers) in found {
            let of_key = (1..=EVENTS).filter(|number| hash_of(*number).to_bits() == hash);
            assert_eq!(numbers, of_key.collect::<Vec<_>>(), "seed {seed}");
        }
        let count: usize = self.segments.values().map(|segment| segment.stored.len()).sum();
        assert_eq!(count, usize::try_from(EVENTS).unwrap(), "seed {seed}");
        self.check_position();
        assert_eq!(self.core.bytes(), 0, "seed {seed}: everything is told of");
    }
}

#[test]
fn numbered_events_are_stored_once_and_in_order_whatever_happens() {
    for seed in 0..3000 {
        let mut world = World::new(seed);
        for _ in 0..400 {
            world.step(false);
        }
        let mut steps = 0;
        while world.next <= EVENTS || world.core.bytes() > 0 {
            world.step(true);
            steps += 1;
            assert!(steps < 100_000, "seed {seed}: the writer hangs");
        }
        world.check(seed);
    }
}
