//! Events of one writer on their way to one segment: a state machine without socket, clock or task.
//!
//! ```text
//!   push ─► open batch ─► queued ─► sent ─► stored
//!                           ▲         │
//!                           └─ again ─┘   after a lost connection; what the segment has got is told by the next set-up
//! ```
//!
//! Invariants:
//! * events are stored in the order in which they were pushed
//! * numbers are given once, when a batch is sent first, or come with the events; they only grow: the segment takes no number
//!   twice
//! * nothing is sent before the segment has said what it has got of this writer ([`Flow::set_up`])
//! * a large event travels alone

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use headwater_types::limits::EVENT_BYTES_MAX;
use headwater_types::{EventNumber, WriterId};

use super::core::Limits;
use super::ticket::{Outcome, Place, Ticket};
use crate::error::{Error, ErrorKind, Result};
use crate::model::SegmentRange;

/// Bytes of the header that stands before each event: the code 0 and the length.
pub(crate) const HEADER_BYTES: usize = 8;
/// Batches on their way before a further one waits until it is full. One is being made durable while the next arrives;
/// more would only be smaller.
const SENT_SMALL_MAX: usize = 2;
/// No writer lives to give half of all numbers.
pub(crate) const NUMBER_MAX: EventNumber = EventNumber::MAX / 2;

/// An event inside a batch.
#[derive(Clone, Copy, Debug)]
struct Member {
    /// Of its key: decides where it goes if the segment is sealed.
    hash: f64,
    /// Behind its last byte.
    end: usize,
    /// Has to be stored together with the one before it.
    joined: bool,
}

/// Events that are appended together or not at all.
#[derive(Debug)]
pub(crate) struct Batch {
    data: Bytes,
    members: Vec<Member>,
    /// The caller's number of each event; empty if the caller gives none.
    numbers: Vec<EventNumber>,
    ticket: Arc<Ticket>,
    /// Of its last event; `None` until it is sent.
    last_number: Option<EventNumber>,
    /// Too long for one append.
    is_large: bool,
}

/// A batch that takes more.
#[derive(Debug, Default)]
struct OpenBatch {
    data: BytesMut,
    members: Vec<Member>,
    numbers: Vec<EventNumber>,
    ticket: Arc<Ticket>,
    /// Counts the open batches of a flow.
    sequence: u64,
}

/// Events that are stored together.
#[derive(Clone, Debug)]
pub(crate) struct Together {
    /// Of their key.
    pub(crate) hash: f64,
    /// The caller's number, if it gives one.
    pub(crate) number: Option<EventNumber>,
    pub(crate) events: Vec<Bytes>,
}

impl Batch {
    pub(crate) fn resolve(&self, outcome: Outcome) {
        self.ticket.resolve(outcome);
    }

    /// Its events, without headers.
    pub(crate) fn taken_apart(&self, header_bytes: usize) -> Vec<Together> {
        let (mut start, mut index) = (0, 0);
        let mut event = |member: &Member| {
            let event = self.data.slice(start + header_bytes..member.end);
            start = member.end;
            event
        };
        let together = |members: &[Member]| {
            let number = self.numbers.get(index).copied();
            index += members.len();
            Together { hash: members[0].hash, number, events: members.iter().map(&mut event).collect() }
        };
        self.members.chunk_by(|_, next| next.joined).map(together).collect()
    }
}

/// Something to be sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Send {
    Append {
        data: Bytes,
        event_count: i32,
        last_event_number: EventNumber,
    },
    /// Uploads it as a segment of its own and merges that, if the writer's number in the segment is `previous`.
    Large {
        data: Bytes,
        previous: Option<EventNumber>,
        number: EventNumber,
    },
}

/// How far the flow is with its segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Link {
    /// Nobody has been asked.
    Idle,
    /// A connection is being made and the writer registered.
    SettingUp,
    /// The segment takes what is sent.
    Up,
    /// A large event is on its way; everything else waits.
    Uploading,
    /// The segment takes no more; where its keys are is being asked.
    Sealed,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) segment: SegmentRange,
    pub(crate) writer: WriterId,
    pub(crate) link: Link,
    /// Grows with every set-up; what belongs to an older one is not listened to.
    pub(crate) generation: u64,
    /// Length of the segment as of the last acknowledgement.
    observed_end: Option<u64>,
    /// It may have got something of this writer behind that: from a process before this one, or an acknowledgement was lost.
    may_have_more: bool,
    open: OpenBatch,
    queued: VecDeque<Batch>,
    sent: VecDeque<Batch>,
    /// Last number that the segment has for sure.
    stored: Option<EventNumber>,
    /// Last number given.
    given: EventNumber,
    /// The segment has never been asked what it has got: a writer of this id may have been here before.
    is_new: bool,
    /// Highest number of events that were given up; what was on its way may still arrive.
    given_up: EventNumber,
    batch_bytes: usize,
    /// Before each event; 0 where bytes are written as they are.
    header_bytes: usize,
    /// The open batch waits until it is full or told to go.
    lingers: bool,
    /// Numbers come with the events.
    is_numbered: bool,
    /// Keys of it still belong to segments before it: nothing is sent.
    pub(crate) is_blocked: bool,
}

impl Flow {
    pub(crate) fn new(segment: SegmentRange, writer: WriterId, limits: Limits) -> Self {
        let Limits { batch_bytes, header_bytes, lingers, is_numbered, .. } = limits;
        Self {
            segment,
            writer,
            link: Link::Idle,
            generation: 0,
            observed_end: None,
            may_have_more: is_numbered,
            open: OpenBatch::default(),
            queued: VecDeque::new(),
            sent: VecDeque::new(),
            stored: None,
            given: 0,
            is_new: true,
            given_up: 0,
            batch_bytes,
            header_bytes,
            lingers,
            is_numbered,
            is_blocked: false,
        }
    }

    /// Whether nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.members.is_empty() && self.queued.is_empty() && self.sent.is_empty()
    }

    /// Tickets of everything under way.
    pub(crate) fn tickets(&self) -> impl Iterator<Item = Arc<Ticket>> + '_ {
        let open = (!self.open.members.is_empty()).then_some(&self.open.ticket);
        self.sent.iter().chain(&self.queued).map(|batch| &batch.ticket).chain(open).cloned()
    }

    /// Number of the open batch, if it began with the last so many events.
    pub(crate) fn just_opened(&self, events: usize) -> Option<u64> {
        (self.open.members.len() == events).then_some(self.open.sequence)
    }

    /// Takes events that have to be stored together, and returns the place of each.
    pub(crate) fn push(
        &mut self,
        hash: f64,
        number: Option<EventNumber>,
        events: &[Bytes],
        mut placed: impl FnMut(Place, u64),
    ) {
        assert_eq!(number.is_some(), self.is_numbered, "a writer gives all its events numbers, or none");
        let bytes: usize = events.iter().map(|event| self.header_bytes + event.len()).sum();
        let is_large = bytes > HEADER_BYTES + EVENT_BYTES_MAX;
        if is_large || self.open.data.len() + bytes > self.batch_bytes {
            self.close();
        }
        if self.open.data.capacity() == 0 {
            self.open.data.reserve(bytes);
        }
        for (at, event) in events.iter().enumerate() {
            let start = self.open.data.len();
            let length = i32::try_from(event.len()).expect("the writer has checked the length");
            if self.header_bytes > 0 {
                self.open.data.extend_from_slice(&[0; 4]);
                self.open.data.extend_from_slice(&length.to_be_bytes());
            }
            self.open.data.extend_from_slice(event);
            let end = self.open.data.len();
            let index = self.open.members.len();
            self.open.members.push(Member { hash, end, joined: at > 0 });
            self.open.numbers.extend(number);
            placed(Place { ticket: self.open.ticket.clone(), index, start: start as u64 }, (end - start) as u64);
        }
        if is_large || self.open.data.len() >= self.batch_bytes {
            self.close();
        }
    }

    /// The open batch takes no more.
    fn close(&mut self) {
        if self.open.members.is_empty() {
            return;
        }
        let sequence = self.open.sequence + 1;
        let room = self.open.data.len().min(self.batch_bytes);
        let events = self.open.members.len();
        let next = OpenBatch { sequence, ..OpenBatch::default() };
        let OpenBatch { data, members, numbers, ticket, .. } = std::mem::replace(&mut self.open, next);
        // Batches of a busy writer are alike: the next one gets its room at once.
        if self.queued.len() + self.sent.len() >= SENT_SMALL_MAX {
            self.open.data.reserve(room);
            self.open.members.reserve(events);
        }
        let is_large = data.len() > HEADER_BYTES + EVENT_BYTES_MAX;
        self.queued.push_back(Batch { data: data.freeze(), members, numbers, ticket, last_number: None, is_large });
    }

    /// The open batch goes, if it is still this one.
    pub(crate) fn hurry(&mut self, sequence: u64) {
        if self.open.sequence == sequence {
            self.close();
        }
    }

    /// The open batch goes.
    pub(crate) fn hurry_all(&mut self) {
        self.close();
    }

    /// What can be sent now.
    pub(crate) fn next(&mut self) -> Option<Send> {
        if self.link != Link::Up || self.is_blocked {
            return None;
        }
        let may_go = !self.lingers && self.sent.len() < SENT_SMALL_MAX;
        if self.queued.is_empty() && may_go {
            self.close();
        }
        if self.queued.front()?.is_large && !self.sent.is_empty() {
            // It travels alone.
            return None;
        }
        let mut batch = self.queued.pop_front()?;
        let number = *batch.last_number.get_or_insert_with(|| {
            self.given = match batch.numbers.last() {
                Some(number) => *number,
                None => self.given + i64::try_from(batch.members.len()).expect("a batch has fewer events than bytes"),
            };
            self.given
        });
        let data = batch.data.clone();
        let send = if batch.is_large {
            self.link = Link::Uploading;
            Send::Large { data, previous: self.stored, number }
        } else {
            let event_count = i32::try_from(batch.members.len()).expect("a batch has fewer events than bytes");
            Send::Append { data, event_count, last_event_number: number }
        };
        self.sent.push_back(batch);
        Some(send)
    }

    /// A connection is being made.
    pub(crate) fn begin_set_up(&mut self) -> u64 {
        self.link = Link::SettingUp;
        self.generation += 1;
        self.generation
    }

    /// The segment says what it has got of this writer. What it has not got goes again, with the numbers it has. Returns
    /// bytes that are stored.
    ///
    /// # Errors
    /// The number is none of ours: somebody else writes under this writer's id.
    pub(crate) fn set_up(&mut self, last: Option<EventNumber>) -> Result<usize> {
        assert_eq!(self.link, Link::SettingUp, "only a writer that was registered is told");
        if last.is_some_and(|last| last > NUMBER_MAX) {
            return Err(Error::new(ErrorKind::Protocol, "segment store says that a writer has used up its numbers"));
        }
        let may_be_late = last.is_some_and(|last| last <= self.given_up);
        let is_ours = may_be_late || last == self.stored || self.queued.iter().any(|batch| batch.last_number == last);
        // Numbers that the caller gives mean the same events, whichever of its processes has written them.
        if !is_ours && !self.is_new && !self.is_numbered {
            let what = format!("another process writes to segment {} under this writer's id", self.segment.id);
            return Err(Error::new(ErrorKind::Conflict, what));
        }
        self.is_new = false;
        self.link = Link::Up;
        self.may_have_more |= last != self.stored;
        self.stored = last;
        self.given = self.given.max(last.unwrap_or(0));
        let mut bytes = 0;
        while let Some(batch) = self.queued.pop_front() {
            if batch.last_number.is_none_or(|number| Some(number) > last) {
                self.queued.push_front(batch);
                break;
            }
            bytes += batch.data.len();
            batch.ticket.resolve(Outcome::Stored { segment: self.segment.id, start: None });
        }
        Ok(bytes)
    }

    /// The segment has everything up to this number, and this length. Returns the bytes that are stored.
    pub(crate) fn acknowledge(&mut self, number: EventNumber, length: Option<u64>) -> usize {
        let mut bytes = 0;
        while let Some(batch) = self.sent.pop_front() {
            let last = batch.last_number.expect("what was sent has a number");
            if last > number {
                self.sent.push_front(batch);
                break;
            }
            bytes += batch.data.len();
            let start = length.filter(|_| last == number).and_then(|end| end.checked_sub(batch.data.len() as u64));
            batch.ticket.resolve(Outcome::Stored { segment: self.segment.id, start });
        }
        self.stored = Some(number).max(self.stored);
        self.observed_end = length.max(self.observed_end);
        self.may_have_more &= length.is_none();
        bytes
    }

    /// The connection was lost, or the segment has to be looked for again.
    pub(crate) fn disconnect(&mut self) {
        self.link = Link::Idle;
        self.generation += 1;
        while let Some(batch) = self.sent.pop_back() {
            self.queued.push_front(batch);
        }
    }

    /// Gives up everything under way. Returns its bytes.
    pub(crate) fn fail(&mut self, error: &Error) -> usize {
        self.close();
        let numbers = self.sent.iter().chain(&self.queued).filter_map(|batch| batch.last_number);
        self.given_up = numbers.max().unwrap_or(0).max(self.given_up);
        let mut bytes = 0;
        for batch in self.sent.drain(..).chain(self.queued.drain(..)) {
            bytes += batch.data.len();
            batch.ticket.resolve(Outcome::Failed(error.clone()));
        }
        bytes
    }

    /// Everything under way, in order. The segment gets nothing of it any more.
    pub(crate) fn take_all(&mut self) -> Vec<Batch> {
        self.close();
        self.sent.drain(..).chain(self.queued.drain(..)).collect()
    }

    /// An offset that everything the segment has of this writer lies before, if that is anything: `Some(None)` if the segment has
    /// to be asked.
    pub(crate) fn observed(&self) -> Option<Option<u64>> {
        (self.may_have_more || self.observed_end.is_some()).then(|| self.observed_end.filter(|_| !self.may_have_more))
    }

    /// Last number that the segment has for sure.
    pub(crate) fn stored(&self) -> Option<EventNumber> {
        self.stored
    }

    /// Everything of this writer in segments before this one lies before its beginning.
    pub(crate) fn follows(&mut self) {
        self.observed_end.get_or_insert(0);
    }

    /// The caller's number of the first event under way.
    pub(crate) fn first_number(&self) -> Option<EventNumber> {
        let first = self.sent.front().or(self.queued.front());
        first.map_or(self.open.numbers.first(), |batch| batch.numbers.first()).copied()
    }

    /// Something is under way that the segment has, by the caller's number.
    pub(crate) fn repeats(&self) -> bool {
        self.first_number().is_some_and(|first| Some(first) <= self.stored)
    }
}
