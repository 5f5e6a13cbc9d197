//! A store so simple that it is right by inspection, and the ways to get it wrong.
//!
//! Its journal holds no requests, only their numbers and a checksum: the requests themselves are kept in memory that
//! outlives every crash. That is enough to put the harness on trial: what the journal loses, the store forgets.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use headwater_engine::StoreError;
use headwater_engine::api::{
    Delta, Outcome, ReadResult, Refusal, Reply, Request, Response, SegmentInfo, TableEntry, TableInfo, VERSION_MISSING,
};
use headwater_engine::io::{File, Io};
use headwater_sim::model::{Answer, Finding, Ledger, Numbers, State};
use headwater_sim::{Launch, SimBucket, Store};

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Bug {
    Nothing,
    NoSync,
    AcknowledgesBeforeSync,
    DirectoryNotSynced,
    SyncErrorIgnored,
    ServesTheCacheAfterAKill,
    ChecksumNotChecked,
    ReadsBeforeDurable,
    ForgetsSealsAfterRestart,
    ForgetsWritersAfterRestart,
    ForgetsTruncationsAfterRestart,
    LosesTheLastRecord,
    ReplaysTheLastRecordTwice,
    ReusesVersions,
    NeverAnswersDeletes,
}

pub(crate) const CONTAINERS: u32 = 2;
const RECORD: usize = 12;
/// Record of a restart: uploads under way ended there.
const RESTARTED: u64 = u64::MAX;

pub(crate) struct NaiveLaunch {
    pub(crate) bug: Bug,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl NaiveLaunch {
    pub(crate) fn new(bug: Bug) -> Self {
        Self { bug, requests: Arc::default() }
    }
}

impl Launch for NaiveLaunch {
    type Store = NaiveStore;

    fn open(&self, io: Io, _bucket: SimBucket) -> Result<NaiveStore, StoreError> {
        NaiveStore::open(self.bug, io, self.requests.clone())
    }

    fn containers(&self) -> u32 {
        CONTAINERS
    }

    fn table_compact_bytes(&self) -> u64 {
        u64::MAX
    }
}

struct Waiting {
    outcome: Outcome,
    reply: Box<dyn Reply>,
    /// Bytes of the journal that must be durable before.
    after: u64,
}

pub(crate) struct NaiveStore {
    bug: Bug,
    requests: Arc<Mutex<Vec<Request>>>,
    journal: Arc<dyn File>,
    ordered: Vec<State>,
    durable: Vec<State>,
    /// States that become durable with that length of the journal.
    pending: VecDeque<(u64, Vec<State>)>,
    unwritten: Vec<u8>,
    written: u64,
    synced: u64,
    waiting: VecDeque<Waiting>,
    parked: Vec<(Request, Box<dyn Reply>)>,
    numbers: Numbers,
    ledger: Ledger,
}

fn failed(action: &'static str) -> impl Fn(std::io::Error) -> StoreError {
    move |source| StoreError::Io { path: "journal".into(), action, source }
}

fn record(number: u64) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

impl NaiveStore {
    fn open(bug: Bug, io: Io, requests: Arc<Mutex<Vec<Request>>>) -> Result<Self, StoreError> {
        let mut bytes = Vec::new();
        let names = io.disk.list("").map_err(failed("list"))?;
        if names.contains(&"journal".to_owned()) {
            let file = io.disk.open("journal").map_err(failed("open"))?;
            bytes.resize(file.length().map_err(failed("measure"))? as usize, 0);
            file.read_at(0, &mut bytes).map_err(failed("read"))?;
        }
        let mut numbers = Vec::new();
        for chunk in bytes.chunks_exact(RECORD) {
            let number = u64::from_le_bytes(chunk[..8].try_into().expect("eight bytes"));
            let known =
                number == RESTARTED || number < requests.lock().expect("nobody panics with the requests").len() as u64;
            if (bug != Bug::ChecksumNotChecked && record(number) != chunk) || !known {
                break;
            }
            numbers.push(number);
        }
        match bug {
            Bug::LosesTheLastRecord => drop(numbers.pop()),
            Bug::ReplaysTheLastRecordTwice => numbers.extend(numbers.last().copied()),
            _ => {}
        }
        numbers.push(RESTARTED);
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| record(*number)).collect();
        let journal = if bug == Bug::ServesTheCacheAfterAKill && names.contains(&"journal".to_owned()) {
            // Everything read is believed to be on the disk.
            let journal = io.disk.open("journal").map_err(failed("open"))?;
            journal.write_at((bytes.len() - RECORD) as u64, &record(RESTARTED)).map_err(failed("write"))?;
            journal
        } else {
            if names.contains(&"journal.new".to_owned()) {
                io.disk.remove("journal.new").map_err(failed("remove"))?;
            }
            let journal = io.disk.create("journal.new").map_err(failed("create"))?;
            journal.write_at(0, &bytes).map_err(failed("write"))?;
            journal.sync().map_err(failed("sync"))?;
            io.disk.rename("journal.new", "journal").map_err(failed("rename"))?;
            if bug != Bug::DirectoryNotSynced {
                io.disk.sync_directory("").map_err(failed("sync"))?;
            }
            journal
        };
        let mut store = Self {
            bug,
            requests: requests.clone(),
            journal,
            ordered: vec![State::default(); CONTAINERS as usize],
            durable: Vec::new(),
            pending: VecDeque::new(),
            unwritten: Vec::new(),
            written: bytes.len() as u64,
            synced: bytes.len() as u64,
            waiting: VecDeque::new(),
            parked: Vec::new(),
            numbers: Numbers::default(),
            ledger: Ledger::default(),
        };
        for number in numbers {
            if number == RESTARTED {
                for state in &mut store.ordered {
                    *state = state.after_restart();
                }
                continue;
            }
            let request = requests.lock().expect("nobody panics with the requests")[number as usize].clone();
            store.replay(request);
        }
        store.durable = store.ordered.clone();
        Ok(store)
    }

    fn replay(&mut self, request: Request) {
        let forgotten = match request {
            Request::Seal { .. } => self.bug == Bug::ForgetsSealsAfterRestart,
            Request::Truncate { .. } => self.bug == Bug::ForgetsTruncationsAfterRestart,
            _ => false,
        };
        if forgotten {
            return;
        }
        let writer = match &request {
            Request::Append(append) => Some((append.segment.clone(), append.writer)),
            _ => None,
        };
        self.decide(request);
        if let Some((segment, writer)) = writer
            && self.bug == Bug::ForgetsWritersAfterRestart
        {
            let state = &mut self.ordered[segment.container(CONTAINERS) as usize];
            if let Some(segment) = state.segments.get_mut(&*segment.key()) {
                Arc::make_mut(segment).attributes.remove(&writer.into());
            }
        }
    }

    /// Applies; tells the answer and whether something changed.
    fn decide(&mut self, request: Request) -> (Answer, bool) {
        let container = request.segment().container(CONTAINERS) as usize;
        let decision = self.ordered[container].decide(&request, &self.ledger, &mut self.numbers);
        let changed = !decision.steps.is_empty();
        if let Some(last) = decision.steps.into_iter().last() {
            self.ordered[container] = last;
        }
        if let Answer::Versions { incarnation, versions } = &decision.answer {
            for (key, change) in versions.iter().flatten().flatten() {
                let (key, version) = (key.clone(), self.version(*change));
                self.ledger.learn(Finding::Version { incarnation: *incarnation, key, change: *change, version });
            }
        }
        if let Some(found) = self.ordered[container].find(request.segment()) {
            let growth = found.table.growth;
            self.ledger.learn(Finding::Length { incarnation: found.incarnation, growth, start: 0, length: growth });
        }
        (decision.answer, changed)
    }

    fn version(&self, change: u64) -> i64 {
        if self.bug == Bug::ReusesVersions { change as i64 % 7 } else { change as i64 }
    }

    fn outcome(&self, answer: Answer) -> Outcome {
        let entry = |(key, entry): (bytes::Bytes, headwater_sim::model::Entry)| TableEntry {
            key,
            version: self.version(entry.change),
            value: entry.value,
        };
        Ok(match answer {
            Answer::Refused(mut refusals) => return Err(refusals.remove(0)),
            Answer::Done => Response::Done,
            Answer::Info { start, length, sealed, event_count } => {
                Response::Info(SegmentInfo { start, length, sealed, modified_millis: 0, event_count })
            }
            Answer::LastEvent(number) => Response::LastEvent(number),
            Answer::Appended { length } => Response::Appended { length },
            Answer::Sealed { length } => Response::Sealed { length },
            Answer::Merged { length } => Response::Merged { length },
            Answer::MergedBatch(lengths) => Response::MergedBatch(lengths),
            Answer::Attribute(value) => Response::Attribute(value),
            Answer::Located(known) => Response::Located(*known.last().expect("the length is always known")),
            Answer::Versions { versions, .. } => {
                let version = |put: Option<Option<(bytes::Bytes, u64)>>| {
                    put.map_or(VERSION_MISSING, |put| put.map_or(0, |(_, change)| self.version(change)))
                };
                Response::Versions(versions.into_iter().map(version).collect())
            }
            Answer::Values { values, .. } => {
                Response::Values(values.into_iter().map(|found| found.map(entry)).collect())
            }
            Answer::Page { entries, count_max, keys_only, .. } => {
                let mut page: Vec<_> = entries.into_iter().take(count_max).map(entry).collect();
                if keys_only {
                    page.iter_mut().for_each(|entry| entry.value.clear());
                }
                Response::Page(page)
            }
            Answer::Delta(expected) => {
                let mut entries: Vec<_> = expected.table.entries.into_iter().collect();
                entries.retain(|(_, entry)| entry.change > expected.newer_than);
                entries.sort_by_key(|(_, entry)| entry.change);
                let reached_end = entries.len() <= expected.count_max;
                entries.truncate(expected.count_max);
                let last = entries.last().map_or(expected.newer_than, |(_, entry)| entry.change);
                let position = if reached_end { expected.table.last_change } else { last };
                let entries = entries.into_iter().map(entry).collect();
                Response::Delta(Delta { entries, should_clear: false, reached_end, position })
            }
            Answer::Table { growth, entries, key_length, .. } => {
                Response::Table(TableInfo { start: 0, length: growth.unwrap_or(u64::MAX >> 1), entries, key_length })
            }
            Answer::Read => unreachable!("reads are served apart"),
        })
    }

    /// `None`: has to wait.
    fn read(&self, request: &Request) -> Option<Outcome> {
        let Request::Read { segment, offset, bytes_max } = request else { unreachable!("only reads are parked") };
        let states = if self.bug == Bug::ReadsBeforeDurable { &self.ordered } else { &self.durable };
        let Some(found) = states[segment.container(CONTAINERS) as usize].find(segment) else {
            return Some(Err(Refusal::NoSuchSegment));
        };
        let length = found.length();
        if *offset < found.start {
            return Some(Err(Refusal::Truncated { start: found.start }));
        }
        if *offset >= length && !found.sealed {
            return None;
        }
        if *offset > length {
            return Some(Err(Refusal::BehindEnd { length }));
        }
        let data = found.bytes(*offset, (*bytes_max).max(8));
        let at_end = offset + data.len() as u64 == length;
        let read = ReadResult { data: vec![data.into()], at_tail: at_end, end_of_segment: at_end && found.sealed };
        Some(Ok(Response::Read(read)))
    }

    fn answer_durable(&mut self) {
        while let Some((_, states)) = self.pending.pop_front_if(|(after, _)| *after <= self.synced) {
            self.durable = states;
        }
        let acknowledged = if self.bug == Bug::AcknowledgesBeforeSync { self.written } else { self.synced };
        while let Some(waiting) = self.waiting.pop_front_if(|waiting| waiting.after <= acknowledged) {
            waiting.reply.send(waiting.outcome);
        }
        for (request, reply) in std::mem::take(&mut self.parked) {
            match self.read(&request) {
                Some(outcome) => reply.send(outcome),
                None => self.parked.push((request, reply)),
            }
        }
    }
}

impl Store for NaiveStore {
    fn close(mut self) -> Result<(), StoreError> {
        while self.run_one(0)? {}
        for (_, reply) in self.parked.drain(..) {
            reply.send(Err(Refusal::Closing));
        }
        Ok(())
    }

    fn submit(&mut self, request: Request, reply: Box<dyn Reply>) -> Result<(), StoreError> {
        if matches!(request, Request::Read { .. }) {
            self.parked.push((request, reply));
            self.answer_durable();
            return Ok(());
        }
        let number = {
            let mut requests = self.requests.lock().expect("nobody panics with the requests");
            requests.push(request.clone());
            requests.len() as u64 - 1
        };
        let dropped = self.bug == Bug::NeverAnswersDeletes && matches!(request, Request::Delete { .. });
        let from = if let Request::TableDelta { from, .. } = &request { *from } else { 0 };
        let (mut answer, changed) = self.decide(request);
        if let Answer::Delta(page) = &mut answer {
            // Positions are numbers of changes here.
            page.newer_than = from;
        }
        if changed {
            self.unwritten.extend(record(number));
        }
        let after = self.written + self.unwritten.len() as u64;
        if changed {
            self.pending.push_back((after, self.ordered.clone()));
        }
        let outcome = self.outcome(answer);
        if !dropped {
            self.waiting.push_back(Waiting { outcome, reply, after });
        }
        self.answer_durable();
        Ok(())
    }

    fn run_one(&mut self, choice: u64) -> Result<bool, StoreError> {
        if !self.unwritten.is_empty() && (choice.is_multiple_of(2) || self.synced == self.written) {
            self.journal.write_at(self.written, &self.unwritten).map_err(failed("write"))?;
            self.written += self.unwritten.len() as u64;
            self.unwritten.clear();
        } else if self.synced < self.written {
            if self.bug != Bug::NoSync {
                let result = self.journal.sync().map_err(failed("sync"));
                if self.bug != Bug::SyncErrorIgnored {
                    result?;
                }
            }
            self.synced = self.written;
        } else {
            return Ok(false);
        }
        self.answer_durable();
        Ok(true)
    }
}
