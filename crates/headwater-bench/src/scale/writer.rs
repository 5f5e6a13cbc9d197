//! A writer of keys to a stream whose segments change under it: no event twice, none lost, none of a key before another of
//! it that was due earlier.
//!
//! ```text
//!   due ─► waiting of the key's segment ─► under way ─► acknowledged
//!                ▲                             │
//!                └──── successors ◄── sealed ──┘
//! ```
//!
//! A server that seals a segment acknowledges what it stored and refuses the rest: what is under way then goes to the
//! successors, before anything newer of the same keys. Which events were acknowledged where is remembered, and the
//! segments are read back and compared with that ([`Written`]).
//!
//! Successors are asked for while nothing else is done: the time that takes is the writer's own, and part of what is found.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use headwater_types::{ScopedStream, SegmentId, hash};
use headwater_wire::{Reply, Text};

use crate::connection::{Connection, Framing, refused};
use crate::controller::{Controller, Piece};
use crate::error::BenchError;
use crate::event::{Block, Identity};
use crate::latency::Latencies;
use crate::pace::{Schedule, readable, sleep_exactly};
use crate::verify::Written;
use crate::write::generator::{Times, wire_id};

/// Most bytes of one append.
const BLOCK_BYTES: usize = 64 << 10;
/// Most events that are not acknowledged, waiting ones included. What is due beyond that is not sent, and makes the
/// run invalid if it stays so.
const EVENTS_MAX: u64 = 1 << 16;
/// A segment that was sealed has successors by then.
const PATIENCE: Duration = Duration::from_secs(30);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(1);

/// What a writer did.
#[derive(Debug)]
pub(super) struct Outcome {
    /// From when an event was due to its acknowledgement.
    pub(super) latencies: Latencies,
    /// Events acknowledged while it counted.
    pub(super) counted: u64,
    /// The longest time between two acknowledgements of one key while it counted.
    pub(super) longest_pause_ns: u64,
    /// What each segment that the writer met must hold.
    pub(super) written: Vec<Written>,
}

#[derive(Debug)]
struct Key {
    /// In its events.
    id: u64,
    /// In the key space.
    position: f64,
    /// Index of the segment that took its last event; it may be sealed by now.
    segment: usize,
    /// Sequence of its next event.
    next: u64,
    acknowledged_at_ns: Option<u64>,
}

/// An event on its way.
#[derive(Clone, Copy, Debug)]
struct Event {
    key: usize,
    sequence: u64,
    due_ns: u64,
}

#[derive(Debug, Eq, PartialEq)]
enum State {
    /// The writer's registration is under way.
    Opening,
    Open,
    /// Indices of the segments that follow.
    Sealed(Vec<usize>),
}

#[derive(Debug)]
struct Segment {
    piece: Piece,
    name: Text,
    state: State,
    /// Events sent here and acknowledged here; they count as the protocol's event numbers do.
    sent: u64,
    acknowledged: u64,
    under_way: VecDeque<Event>,
    waiting: VecDeque<Event>,
    /// Sequences of each key acknowledged here.
    stored: BTreeMap<usize, Range<u64>>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Writer {
    connection: Connection,
    controller: Controller,
    stream: ScopedStream,
    first_id: u64,
    keys: Vec<Key>,
    /// In the order in which they were met; the writer's id on the wire follows from the index.
    segments: Vec<Segment>,
    block: Block,
    /// Offered and not acknowledged.
    left: u64,
    latencies: Latencies,
    counted: u64,
    longest_pause_ns: u64,
}

impl Writer {
    /// Registers for all segments of the stream. Ids of keys begin with `first_id`.
    pub(super) fn open(
        server: &str,
        controller: &str,
        stream: &ScopedStream,
        first_id: u64,
        keys: usize,
        event_bytes: usize,
    ) -> Result<Self, BenchError> {
        let controller = Controller::open(controller)?;
        let pieces = controller.current_segments(stream)?;
        let mut writer = Self {
            connection: Connection::greeted(server)?,
            controller,
            stream: stream.clone(),
            first_id,
            keys: Vec::with_capacity(keys),
            segments: Vec::new(),
            block: Block::new(event_bytes, 1),
            left: 0,
            latencies: Latencies::new(),
            counted: 0,
            longest_pause_ns: 0,
        };
        let indices: Vec<usize> = pieces.into_iter().map(|piece| writer.meet(piece)).collect::<Result<_, _>>()?;
        for number in 0..keys {
            let position = hash::routing_key(&format!("key-{number}"));
            let segment = writer.that_has(&indices, position)?;
            let id = first_id + number as u64;
            writer.keys.push(Key { id, position, segment, next: 0, acknowledged_at_ns: None });
        }
        Ok(writer)
    }

    /// Writes event `n` of the schedule to key `n` of all in turn, until the end, and waits for everything under way.
    ///
    /// # Errors
    /// Also [`BenchError::Behind`], if the writer could not keep to its schedule.
    pub(super) fn run(mut self, times: &Times, schedule: &Schedule) -> Result<Outcome, BenchError> {
        sleep_exactly();
        let (mut offered, total) = (0, schedule.total());
        loop {
            let now = times.now_ns();
            if now >= schedule.judged_at() || offered == total {
                break;
            }
            let due = schedule.due_by(now);
            while offered < due && self.left < EVENTS_MAX {
                self.offer((offered % self.keys.len() as u64) as usize, schedule.due(offered));
                offered += 1;
            }
            self.send()?;
            let until = if self.left < EVENTS_MAX { schedule.due(offered) } else { schedule.judged_at() };
            if readable(self.connection.socket(), times.now_ns(), until.min(schedule.judged_at()))? {
                self.take_replies(times)?;
            }
        }
        schedule.judge(offered)?;
        while self.left > 0 {
            self.send()?;
            self.take_replies(times)?;
        }
        Ok(Outcome {
            written: self.written(),
            latencies: self.latencies,
            counted: self.counted,
            longest_pause_ns: self.longest_pause_ns,
        })
    }

    /// Registers for a segment unless that was done before. Returns its index.
    fn meet(&mut self, piece: Piece) -> Result<usize, BenchError> {
        if let Some(index) = self.segments.iter().position(|segment| segment.piece.id == piece.id) {
            return Ok(index);
        }
        let index = self.segments.len();
        let name: Text = self.stream.segment(piece.id).as_str().into();
        self.connection.put_setup(wire_id(self.first_id + index as u64), &name)?;
        self.segments.push(Segment {
            piece,
            name,
            state: State::Opening,
            sent: 0,
            acknowledged: 0,
            under_way: VecDeque::new(),
            waiting: VecDeque::new(),
            stored: BTreeMap::new(),
        });
        Ok(index)
    }

    /// Which of these segments has the position.
    fn that_has(&self, indices: &[usize], position: f64) -> Result<usize, BenchError> {
        let has = |index: &&usize| {
            let range = self.segments[**index].piece.range;
            (range.low()..range.high()).contains(&position)
        };
        indices.iter().find(has).copied().ok_or_else(|| BenchError::Refused {
            request: "a question for segments",
            reply: format!("segments of which none has {position} of the key space"),
        })
    }

    fn offer(&mut self, key: usize, due_ns: u64) {
        let sequence = self.keys[key].next;
        self.keys[key].next += 1;
        self.left += 1;
        let segment = &mut self.segments[self.keys[key].segment];
        assert!(!matches!(segment.state, State::Sealed(_)), "the keys of a sealed segment have moved on");
        segment.waiting.push_back(Event { key, sequence, due_ns });
    }

    /// Sends what waits for segments that are open, as few appends as possible.
    fn send(&mut self) -> Result<(), BenchError> {
        let per_append = (BLOCK_BYTES / self.block.stride()).max(1);
        for (index, segment) in self.segments.iter_mut().enumerate() {
            while segment.state == State::Open && !segment.waiting.is_empty() {
                let count = segment.waiting.len().min(per_append);
                let mut data = BytesMut::with_capacity(count * self.block.stride());
                for event in segment.waiting.drain(..count) {
                    let Event { key, sequence, due_ns } = event;
                    let identity = Identity { writer: self.keys[key].id, sequence, due_ns };
                    data.extend_from_slice(self.block.one(identity));
                    segment.under_way.push_back(event);
                }
                segment.sent += count as u64;
                let (writer, number) = (wire_id(self.first_id + index as u64), segment.sent.cast_signed());
                self.connection.put_append(Framing::Block, writer, data.freeze(), count, number)?;
            }
        }
        self.connection.flush()
    }

    /// Waits until something comes and handles all of it.
    fn take_replies(&mut self, times: &Times) -> Result<(), BenchError> {
        self.connection.receive("events were under way")?;
        let now = times.now_ns();
        while let Some(reply) = self.connection.buffered_reply()? {
            match reply {
                Reply::AppendSetup { ref segment, last_event_number: i64::MIN, .. } => {
                    let index = self.index_of(segment).ok_or_else(|| refused("SetupAppend", &reply))?;
                    self.segments[index].state = State::Open;
                }
                Reply::DataAppended { writer, event_number, .. } => {
                    let index = writer.0.wrapping_sub(wire_id(self.first_id).0);
                    let index = usize::try_from(index).ok().filter(|index| *index < self.segments.len());
                    let index = index.ok_or_else(|| refused("an append", &reply))?;
                    self.acknowledge(times, index, event_number, now)?;
                }
                Reply::SegmentIsSealed { ref segment, .. } => {
                    let index = self.index_of(segment).ok_or_else(|| refused("an append", &reply))?;
                    self.leave(index)?;
                }
                Reply::KeepAlive => {}
                reply => return Err(refused("an append", &reply)),
            }
        }
        Ok(())
    }

    fn index_of(&self, name: &Text) -> Option<usize> {
        self.segments.iter().position(|segment| segment.name == *name)
    }

    fn acknowledge(&mut self, times: &Times, index: usize, number: i64, now_ns: u64) -> Result<(), BenchError> {
        let segment = &mut self.segments[index];
        let acknowledged = number.cast_unsigned();
        let sealed = matches!(segment.state, State::Sealed(_));
        if sealed || !(segment.acknowledged + 1..=segment.sent).contains(&acknowledged) {
            let reply = format!("an acknowledgement of event {number} of segment {}, not under way", segment.name);
            return Err(BenchError::Refused { request: "an append", reply });
        }
        for _ in segment.acknowledged..acknowledged {
            let Event { key: index, sequence, due_ns } =
                segment.under_way.pop_front().expect("as many are under way as were sent and not acknowledged");
            let stored = segment.stored.entry(index).or_insert(sequence..sequence);
            assert_eq!(stored.end, sequence, "events of a key go to a segment one after the other");
            stored.end += 1;
            self.left -= 1;
            if times.counts(due_ns) {
                self.latencies.record(now_ns.saturating_sub(due_ns));
            }
            let key = &mut self.keys[index];
            if times.counts(now_ns) {
                self.counted += 1;
                // From the beginning, if nothing came of this key since.
                let before = key.acknowledged_at_ns.unwrap_or(0).max(times.counted_from_ns);
                self.longest_pause_ns = self.longest_pause_ns.max(now_ns - before);
            }
            key.acknowledged_at_ns = Some(now_ns);
        }
        segment.acknowledged = acknowledged;
        Ok(())
    }

    /// A segment takes no more events: what it has not acknowledged goes to its successors, and so do its keys.
    fn leave(&mut self, index: usize) -> Result<(), BenchError> {
        if matches!(self.segments[index].state, State::Sealed(_)) {
            // Each append that was under way is refused by itself.
            return Ok(());
        }
        let successors = self.successors(self.segments[index].piece.id)?;
        let successors: Vec<usize> = successors.into_iter().map(|piece| self.meet(piece)).collect::<Result<_, _>>()?;
        let segment = &mut self.segments[index];
        segment.state = State::Sealed(successors);
        let moved: Vec<Event> = segment.under_way.drain(..).chain(segment.waiting.drain(..)).collect();
        for key in 0..self.keys.len() {
            if self.keys[key].segment == index {
                self.keys[key].segment = self.home_of(index, self.keys[key].position)?;
            }
        }
        for event in moved {
            let home = self.keys[event.key].segment;
            self.segments[home].waiting.push_back(event);
        }
        Ok(())
    }

    /// Where a position is written now that was in this segment once: another key may have found the successor sealed.
    fn home_of(&self, mut index: usize, position: f64) -> Result<usize, BenchError> {
        while let State::Sealed(successors) = &self.segments[index].state {
            index = self.that_has(successors, position)?;
        }
        Ok(index)
    }

    fn successors(&self, id: SegmentId) -> Result<Vec<Piece>, BenchError> {
        let asked = Instant::now();
        loop {
            let successors = self.controller.successors(&self.stream, id)?;
            if !successors.is_empty() {
                return Ok(successors);
            }
            if asked.elapsed() > PATIENCE {
                let waiting = "a sealed segment had to have successors";
                return Err(BenchError::Silent { seconds: PATIENCE.as_secs(), waiting });
            }
            std::thread::sleep(ASK_AGAIN_AFTER);
        }
    }

    /// What each segment must hold, by what was acknowledged.
    fn written(&self) -> Vec<Written> {
        let of = |segment: &Segment| Written {
            segment: segment.name.clone(),
            writers: segment.stored.iter().map(|(key, stored)| (self.keys[*key].id, stored.clone())).collect(),
        };
        self.segments.iter().map(of).collect()
    }
}
