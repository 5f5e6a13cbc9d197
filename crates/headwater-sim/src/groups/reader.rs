//! One reader: a copy of the state that may be old, and an application that handles events one by one.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use headwater_records::group::{Effect, Handover, Initial, Intent, Member, Offline, State, Step, Update, decide};
use headwater_records::revisioned::{self, Events, Payload};
use headwater_types::StreamSegment;

use super::world::{EVENT_BYTES, Event, Found, Log, Stream};
use crate::chance::Chance;

/// Payloads are far smaller.
const PAYLOAD_BYTES_MAX: usize = 1 << 24;

/// A client's copy of the state.
#[derive(Clone, Debug)]
pub(super) struct Replica {
    pub(super) state: State,
    /// Everything before is applied.
    pub(super) revision: u64,
}

impl Replica {
    /// From the place that the mark names.
    pub(super) fn open(log: &Log) -> Self {
        let mut events = Events::new(log.mark.unwrap_or(0), PAYLOAD_BYTES_MAX);
        events.feed(log.read(events.offset(), usize::MAX).expect("the mark is in the log"));
        let (_, payload) = events.next_event().expect("an event").expect("a whole one");
        let Payload::Initial(initial) = Payload::decode(&payload).expect("a payload") else { panic!("no state") };
        let state = Initial::decode(&initial).expect("a state").into();
        Self { state, revision: events.offset() }
    }

    /// Applies what is there, or a part of it.
    pub(super) fn fetch(&mut self, log: &Log, chance: &mut Chance) {
        let Some(bytes) = log.read(self.revision, usize::MAX) else {
            // It slept through two compactions.
            *self = Self::open(log);
            return self.fetch(log, chance);
        };
        let mut events = Events::new(self.revision, PAYLOAD_BYTES_MAX);
        events.feed(bytes);
        while let Some((_, payload)) = events.next_event().expect("events only") {
            match Payload::decode(&payload).expect("a payload") {
                Payload::Initial(initial) => self.state = Initial::decode(&initial).expect("a state").into(),
                Payload::Updates(updates) => {
                    for update in updates {
                        let update = Update::decode(&update).expect("an update");
                        self.state.apply(&update).expect("the watcher has applied it");
                    }
                }
            }
            self.revision = events.offset();
            if chance.percent(5) {
                return;
            }
        }
    }
}

/// Updates as one event.
pub(super) fn event(updates: &[Update]) -> Bytes {
    let encoded = updates.iter().map(|update| update.encode().expect("short texts")).collect();
    let payload = Payload::Updates(encoded).encode().expect("a short payload");
    revisioned::event(&payload).expect("a short event")
}

/// What a reader did in one move.
#[derive(Debug)]
pub(super) enum Move {
    /// Nothing that others see.
    Quiet,
    /// It appended this.
    Appended(Vec<Update>),
    /// It read this.
    Read(Event),
    /// It came to the end of everything.
    Ended,
    /// The group has it no more.
    Offline,
    /// It finds that the configuration is being replaced.
    Reconfigure,
}

/// One reader.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) member: Member,
    replica: Replica,
    open: BTreeMap<StreamSegment, i64>,
    /// To be appended, once the replica is up to date.
    pending: Option<(Intent, Need)>,
    names: u64,
    pub(super) asleep_until: Duration,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Need {
    Append,
    Fetch,
}

impl Reader {
    /// A reader that is to join.
    pub(super) fn new(id: String, handover: Handover, log: &Log, now: Duration, chance: &mut Chance) -> Self {
        let delay = Duration::from_millis(chance.below(3000));
        let member = Member::new(id, handover, now, delay, chance.below(1000) as f64 / 1000.0);
        let (open, pending) = (BTreeMap::new(), None);
        Self { member, replica: Replica::open(log), open, pending, names: 0, asleep_until: now }
    }

    /// Adds itself to the group.
    pub(super) fn join(&mut self, log: &mut Log, chance: &mut Chance) -> Vec<Update> {
        loop {
            self.replica.fetch(log, chance);
            let updates = vec![self.member.join(&self.replica.state).expect("every reader has a name of its own")];
            if self.append(&updates, log, true) {
                return updates;
            }
        }
    }

    fn append(&mut self, updates: &[Update], log: &mut Log, conditional: bool) -> bool {
        let event = event(updates);
        if !conditional {
            log.append(&event);
            return true;
        }
        if log.append_at(self.replica.revision, &event).is_err() {
            return false;
        }
        for update in updates {
            self.replica.state.apply(update).expect("nothing came in between");
        }
        self.replica.revision = log.end();
        true
    }

    /// Makes one move.
    pub(super) fn act(&mut self, log: &mut Log, stream: &Stream, now: Duration, chance: &mut Chance) -> Move {
        match self.try_act(log, stream, now, chance) {
            Ok(done) => done,
            Err(Offline { .. }) => Move::Offline,
        }
    }

    fn try_act(&mut self, log: &mut Log, stream: &Stream, now: Duration, chance: &mut Chance) -> Result<Move, Offline> {
        if let Some((intent, need)) = self.pending.take() {
            if need == Need::Fetch {
                self.replica.fetch(log, chance);
                self.pending = Some((intent, Need::Append));
                return Ok(Move::Quiet);
            }
            return self.attempt(intent, log, now, chance);
        }
        // An application takes several events at a time before it looks at the group again.
        if chance.percent(70) && self.member.is_reading() {
            return Ok(self.read(stream, chance));
        }
        match self.member.next(&self.replica.state, now)? {
            Step::Refresh => {
                self.replica.fetch(log, chance);
                self.member.refreshed(&self.replica.state, now)?;
            }
            Step::Append(intent) => self.pending = Some((intent, Need::Append)),
            Step::Successors(segment) => {
                let successors = stream.successors(&segment);
                let unplaced = decide::unplaced(&self.replica.state, &segment, &successors);
                let ranges = stream.ranges_of(&unplaced);
                self.pending = Some((Intent::Complete { segment, successors, ranges }, Need::Append));
            }
            Step::CreateCheckpoint => {
                self.names += 1;
                let name = format!("{}-{}", self.member.id(), self.names);
                self.pending = Some((Intent::CreateCheckpoint(name), Need::Append));
            }
            Step::Checkpoint(_) => {}
            Step::Publish => {
                let updates = vec![Update::Published(true)];
                self.append(&updates, log, false);
                return Ok(Move::Appended(updates));
            }
            Step::Reconfigure => return Ok(Move::Reconfigure),
            Step::Read => return Ok(self.read(stream, chance)),
            Step::End => return Ok(Move::Ended),
        }
        Ok(Move::Quiet)
    }

    fn attempt(&mut self, intent: Intent, log: &mut Log, now: Duration, chance: &mut Chance) -> Result<Move, Offline> {
        let distance_ms = i64::try_from(chance.below(200_000)).expect("small");
        let updates = self.member.updates(&intent, &self.replica.state, distance_ms)?;
        let conditional = intent != Intent::Report;
        if !updates.is_empty() && !self.append(&updates, log, conditional) {
            self.pending = Some((intent, Need::Fetch));
            return Ok(Move::Quiet);
        }
        // Others have to hear of it even if this reader finds out that it is gone.
        let settled = self.member.settled(&intent, &updates, &self.replica.state, now);
        for effect in settled? {
            match effect {
                Effect::Open { segment, offset, .. } => drop(self.open.insert(segment, offset)),
                Effect::Close(segment) => drop(self.open.remove(&segment)),
            }
        }
        Ok(if updates.is_empty() { Move::Quiet } else { Move::Appended(updates) })
    }

    fn read(&mut self, stream: &Stream, chance: &mut Chance) -> Move {
        if self.open.is_empty() {
            return Move::Quiet;
        }
        let segment = self.open.keys().nth(chance.index(self.open.len())).cloned().expect("an index below the count");
        let offset = self.open[&segment];
        match stream.read(&segment, offset) {
            Found::Tail => Move::Quiet,
            Found::End => {
                self.open.remove(&segment);
                self.member.read_to_end(&segment);
                Move::Quiet
            }
            Found::Event(event) => {
                self.open.insert(segment.clone(), offset + EVENT_BYTES);
                if self.member.read_to(&segment, offset + EVENT_BYTES) {
                    self.open.remove(&segment);
                }
                Move::Read(event)
            }
        }
    }
}
