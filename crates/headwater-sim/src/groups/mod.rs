//! Readers of a group that share a stream while it scales: they see old states, lose races, crash, sleep, and begin anew.
//!
//! ```text
//!   readers (Member, a copy of the state) ──conditional append──► log of the group ──► watcher: is this allowed?
//!      │                                                                                  ▲
//!      └──────────── read ──────────► stream that is written and scaled ── events read ───┘
//! ```
//!
//! What is held after every append: each segment is assigned, unassigned, waiting or done, and only one of these; none is
//! lost; none is read before all that it follows is done; a checkpoint has an offset for all that was being read when it
//! began. Of what is read: nothing of a key is passed over; nothing is read twice unless a reader died without saying where it
//! was, went on after it was taken for dead, or the group began anew. In the end everything was read.

mod reader;
mod watcher;
mod world;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use headwater_records::group::{Fresh, GroupConfiguration, Handover, Initial, Placed, Update, decide};
use headwater_records::revisioned::{self, Payload};
use headwater_records::{Offsets, READ};

use crate::chance::Chance;
use crate::harness::Failure;
use reader::{Move, Reader, Replica, event};
use watcher::Watcher;
use world::{Log, Stream};

/// What a run did.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct GroupsReport {
    /// Events written and read.
    pub events: u64,
    /// Of these, how many were read more than once.
    pub again: u64,
    /// Changes of the state.
    pub updates: u64,
    /// Checkpoints that were complete.
    pub checkpoints: u64,
    /// Readers that died or were taken for dead.
    pub crashes: u64,
    /// How often the group began anew.
    pub resets: u64,
    /// Of these, to where only some were read of the segments that another follows on.
    pub in_merges: u64,
    /// How often the state was compacted.
    pub compactions: u64,
    /// Hash over what was appended and read.
    pub trace: u64,
}

/// Moves while the stream is written.
const MOVES: u64 = 4_000;
/// Moves in which everything has to be read after that.
const LAST_MOVES: u64 = 60_000;
/// Most readers at once.
const READERS_MAX: usize = 5;
/// Lines of what happened last that a failure shows.
const HISTORY_LINES: usize = 200;

/// What may happen in a run.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Readers die and their position is known.
    dies: bool,
    /// Readers die and it is not.
    vanishes: bool,
    /// Readers sleep and are taken for dead.
    sleeps: bool,
    /// The group begins anew.
    resets: bool,
    handover: Option<Handover>,
}

struct Run {
    chance: Chance,
    plan: Plan,
    stream: Stream,
    log: Log,
    watcher: Watcher,
    readers: Vec<Reader>,
    named: u64,
    now: Duration,
    report: GroupsReport,
    history: VecDeque<String>,
}

/// Runs a seed.
///
/// # Errors
/// A broken promise.
pub fn groups_run(seed: u64) -> Result<GroupsReport, Box<Failure>> {
    let mut run = Run::new(seed);
    match run.run() {
        Ok(()) => Ok(run.report),
        Err(what) => {
            let history = run.history.into_iter().collect();
            Err(Box::new(Failure { seed, points: run.report.updates, what, history }))
        }
    }
}

/// A whole state as one event.
fn whole(initial: &Initial) -> Bytes {
    let payload = Payload::Initial(initial.encode().expect("short texts")).encode().expect("a short payload");
    revisioned::event(&payload).expect("a short event")
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let plan = Plan {
            dies: chance.percent(40),
            vanishes: chance.percent(30),
            sleeps: chance.percent(30),
            resets: chance.percent(25),
            handover: *chance.pick(&[Some(Handover::AtCheckpoint), Some(Handover::AtOnce), None]),
        };
        let stream = Stream::new(1 + chance.index(4), 1 + chance.index(12));
        let configuration = GroupConfiguration {
            automatic_checkpoint_ms: 300 + i64::try_from(chance.below(4000)).expect("small"),
            refresh_ms: i64::try_from(chance.below(3000)).expect("small"),
            ..GroupConfiguration::default()
        };
        let starting = stream.tail().into_keys().map(|segment| (segment, 0)).collect();
        let initial = fresh(configuration, &starting, &stream, &mut chance);
        let mut log = Log::default();
        log.append(&whole(&initial));
        let watcher = Watcher::new(initial, &stream);
        let (now, named, report) = (Duration::ZERO, 0, GroupsReport::default());
        Self { chance, plan, stream, log, watcher, readers: Vec::new(), named, now, report, history: VecDeque::new() }
    }

    fn run(&mut self) -> Result<(), String> {
        self.note(format!("{:?}", self.plan));
        for _ in 0..MOVES {
            self.now += Duration::from_millis(self.chance.below(60));
            match self.chance.below(1000) {
                0..200 => {
                    let key = self.chance.index(self.stream.written.len());
                    self.stream.write(key);
                }
                200..206 => {
                    self.note("the stream scales".to_owned());
                    self.stream.scale(&mut self.chance);
                }
                206..216 if self.readers.len() < READERS_MAX => self.join()?,
                216..219 if self.plan.dies => self.lose(true)?,
                219..222 if self.plan.vanishes => self.lose(false)?,
                222..225 => self.leave()?,
                225..228 if self.plan.sleeps => self.sleep()?,
                228..229 if self.plan.resets => self.reset()?,
                229..239 => self.compact()?,
                _ => drop(self.act()?),
            }
        }
        self.stream.seal();
        self.note("the stream is sealed".to_owned());
        let mut ended = 0;
        for _ in 0..LAST_MOVES {
            self.now += Duration::from_millis(self.chance.below(60));
            if self.readers.is_empty() {
                self.join()?;
            }
            for reader in &mut self.readers {
                reader.asleep_until = Duration::ZERO;
            }
            ended = if self.act()? { ended + 1 } else { ended };
            // Whoever comes to the end closes its reader.
            if ended > 0 && self.readers.is_empty() {
                return self.finish();
            }
        }
        Err(format!("not all is read, and {} readers do no more: {:?}", self.readers.len(), self.watcher.state))
    }

    fn finish(&mut self) -> Result<(), String> {
        self.watcher.ended(&self.stream)?;
        self.report.events = self.stream.written.iter().sum();
        self.report.again = self.watcher.again;
        self.report.checkpoints = self.watcher.checkpoints;
        Ok(())
    }

    fn note(&mut self, line: String) {
        if self.history.len() == HISTORY_LINES {
            self.history.pop_front();
        }
        self.history.push_back(format!("{:8.3} {line}", self.now.as_secs_f64()));
    }

    fn hash(&mut self, bytes: &[u8]) {
        let next = crc32c::crc32c_append(self.report.trace as u32, bytes);
        self.report.trace = self.report.trace.rotate_left(7) ^ u64::from(next);
    }

    fn appended(&mut self, who: &str, updates: &[Update]) -> Result<(), String> {
        self.hash(&event(updates));
        for update in updates {
            self.report.updates += 1;
            self.note(format!("{who} appends {update:?}"));
            self.watcher.applied(update, &self.stream)?;
        }
        Ok(())
    }

    /// Reading twice has a reason.
    fn may_read_again(&self) -> bool {
        let unknown = (self.plan.vanishes || self.plan.sleeps) && self.report.crashes > 0;
        unknown || self.report.resets > 0
    }

    /// A reader makes a move. True if that was its last one, at the end of all.
    fn act(&mut self) -> Result<bool, String> {
        if self.readers.is_empty() {
            return Ok(false);
        }
        let index = self.chance.index(self.readers.len());
        let reader = &mut self.readers[index];
        if self.now < reader.asleep_until {
            return Ok(false);
        }
        let id = reader.member.id().to_owned();
        match reader.act(&mut self.log, &self.stream, self.now, &mut self.chance) {
            Move::Quiet | Move::Reconfigure => {}
            Move::Appended(updates) => self.appended(&id, &updates)?,
            Move::Read(event) => {
                self.hash(format!("{event:?}").as_bytes());
                self.note(format!("{id} reads {event:?}"));
                let again = self.may_read_again();
                self.watcher.read(event, again)?;
            }
            Move::Ended => {
                self.note(format!("{id} is at the end"));
                let reader = self.readers.remove(index);
                self.remove(&id, &reader.member.offsets())?;
                return Ok(true);
            }
            Move::Offline => {
                self.note(format!("{id} finds that it is gone"));
                self.readers.remove(index);
                if self.report.crashes == 0 && self.report.resets == 0 {
                    return Err(format!("{id} is gone without a reason"));
                }
            }
        }
        Ok(false)
    }

    fn join(&mut self) -> Result<(), String> {
        self.named += 1;
        let id = format!("r{}", self.named);
        let handover = match self.plan.handover {
            Some(handover) => handover,
            None => *self.chance.pick(&[Handover::AtCheckpoint, Handover::AtOnce]),
        };
        let mut reader = Reader::new(id.clone(), handover, &self.log, self.now, &mut self.chance);
        let updates = reader.join(&mut self.log, &mut self.chance);
        self.readers.push(reader);
        self.appended(&id, &updates)
    }

    /// Somebody takes a reader out of the group.
    fn remove(&mut self, id: &str, offsets: &Offsets) -> Result<(), String> {
        let Some(update) = decide::offline(&self.watcher.state, id, offsets) else { return Ok(()) };
        let updates = [update];
        self.log.append(&event(&updates));
        self.appended("somebody", &updates)
    }

    fn any_reader(&mut self) -> Option<usize> {
        (!self.readers.is_empty()).then(|| self.chance.index(self.readers.len()))
    }

    /// A reader dies.
    fn lose(&mut self, known: bool) -> Result<(), String> {
        let Some(index) = self.any_reader() else { return Ok(()) };
        let reader = self.readers.remove(index);
        self.report.crashes += 1;
        self.note(format!("{} dies", reader.member.id()));
        let offsets = if known { reader.member.offsets() } else { Offsets::new() };
        self.remove(reader.member.id(), &offsets)
    }

    /// A reader says goodbye.
    fn leave(&mut self) -> Result<(), String> {
        let Some(index) = self.any_reader() else { return Ok(()) };
        let reader = self.readers.remove(index);
        self.remove(reader.member.id(), &reader.member.offsets())
    }

    /// A reader sleeps for so long that somebody takes it for dead, and then goes on.
    fn sleep(&mut self) -> Result<(), String> {
        let Some(index) = self.any_reader() else { return Ok(()) };
        let reader = &mut self.readers[index];
        reader.asleep_until = self.now + Duration::from_millis(self.chance.below(10_000));
        let (id, mut offsets) = (reader.member.id().to_owned(), reader.member.offsets());
        self.report.crashes += 1;
        if self.chance.percent(50) {
            offsets.clear();
        }
        self.note(format!("{id} sleeps"));
        self.remove(&id, &offsets)
    }

    /// The group begins anew, at the last checkpoint or behind all that is there.
    fn reset(&mut self) -> Result<(), String> {
        let starting = match self.watcher.state.last_checkpoint() {
            Some(offsets) if self.chance.percent(70) => offsets.clone(),
            _ => {
                let written = self.stream.written.clone();
                self.watcher.skip_to(&written);
                self.stream.tail()
            }
        };
        self.report.resets += 1;
        self.report.in_merges += u64::from(!Watcher::are_whole(&starting, &self.stream));
        let mut configuration = self.watcher.state.configuration().clone();
        configuration.generation += 1;
        let initial = fresh(configuration, &starting, &self.stream, &mut self.chance);
        for updates in [[Update::Reconfiguring(true)], [Update::Replace(Box::new(initial))]] {
            self.log.append(&event(&updates));
            self.appended("somebody", &updates)?;
        }
        Ok(())
    }

    /// Somebody writes the whole state, and truncates what came before the last time.
    fn compact(&mut self) -> Result<(), String> {
        let mut replica = Replica::open(&self.log);
        replica.fetch(&self.log, &mut self.chance);
        let initial = Initial::Compacted(Box::new(replica.state.compacted()));
        let event = whole(&initial);
        if self.log.append_at(replica.revision, &event).is_err() {
            return Ok(());
        }
        self.note("somebody compacts the state".to_owned());
        self.hash(&event);
        self.watcher.compacted(&initial)?;
        self.report.compactions += 1;
        if let Some(old) = self.log.mark.replace(replica.revision) {
            self.log.truncate(old);
        }
        Ok(())
    }
}

/// A group that begins at these offsets. Java's clients do not say which keys the segments have.
fn fresh(configuration: GroupConfiguration, starting: &Offsets, stream: &Stream, chance: &mut Chance) -> Initial {
    let known = chance.percent(50);
    let place = |(segment, offset): (&_, &i64)| {
        let range = known.then(|| stream.range(segment));
        (headwater_types::StreamSegment::clone(segment), Placed { offset: (*offset).max(READ), range })
    };
    Initial::Fresh(Fresh { configuration, starting: starting.iter().map(place).collect(), ..Fresh::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_read_everything_once_and_in_order() {
        let mut total = GroupsReport::default();
        for seed in 0..SEEDS {
            let report = groups_run(seed).unwrap_or_else(|failure| panic!("{failure}"));
            total.events += report.events;
            total.again += report.again;
            total.checkpoints += report.checkpoints;
            total.crashes += report.crashes;
            total.resets += report.resets;
            total.in_merges += report.in_merges;
            total.compactions += report.compactions;
        }
        assert!(total.events > SEEDS * 500 && total.again > 0, "{total:?}");
        assert!(total.checkpoints > SEEDS && total.crashes > SEEDS && total.resets > 0, "{total:?}");
        assert!(total.in_merges > 0, "{total:?}");
        assert!(total.compactions > SEEDS, "{total:?}");
    }

    /// Of T11.
    const SEEDS: u64 = 60;

    #[test]
    fn a_seed_always_does_the_same() {
        for seed in 0..4 {
            assert_eq!(groups_run(seed).unwrap(), groups_run(seed).unwrap());
        }
    }
}
