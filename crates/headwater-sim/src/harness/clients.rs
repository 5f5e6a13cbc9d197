//! Several clients of one store, each with one request under way at a time. Replies get lost, the store crashes, clients send
//! again or ask what became of it. What they asked and heard is recorded, and must be explained by one order of events.
//!
//! Nothing here knows what the store should answer: see [`histories`](crate::histories).

use std::collections::BTreeMap;

use bytes::Bytes;
use headwater_engine::api::{
    self, Expect, Outcome, Refusal, Request, Response, SegmentKind, SegmentPolicy, TableChange,
};
use headwater_types::{SegmentName, WriterId};

use super::crash::NUDGE_PERCENT;
use super::{Event, Failure, Launch, Run, Running, WORK_MAX};
use crate::chance::Chance;
use crate::disk::SimDisk;
use crate::histories::appends::{self, Append, AppendHistory, Read, Seen, bytes_of};
use crate::histories::versions::{self, Change, Condition, Get, Key, Update, VersionHistory};
use crate::histories::{Moment, Span};
use crate::history::Ticket;
use crate::workload::Universe;

/// What the clients did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ClientsReport {
    /// Requests handed over.
    pub operations: u64,
    /// Appends and updates nobody heard of.
    pub unknown: u64,
    /// Appends and updates refused because of their condition.
    pub refused: u64,
    /// Crashes of the store.
    pub crashes: u64,
    /// Hash over all calls of the disk and all answers.
    pub trace: u64,
}

/// Lets clients do so many operations on one store, and checks the histories.
///
/// # Errors
/// Something no order of events explains.
pub fn clients_run<L: Launch>(launch: &L, seed: u64, operations: u64) -> Result<ClientsReport, Box<Failure>> {
    let universe = Universe::default();
    let mut run = Run::new(launch, &universe, seed);
    let mut clients = Clients::new();
    run.clients(&mut clients, operations).map_err(|what| run.failure(seed, what))?;
    Ok(clients.report)
}

/// Clients at a time.
pub(super) const CLIENTS: usize = 4;
/// Keys of the table.
const KEYS: Key = 4;
/// Of 100 answers so many get lost.
pub(super) const LOST_PERCENT: u64 = 6;
/// Of 1000 steps so many crash the store.
const CRASH_PER_MILLE: u64 = 4;

/// What a client waits for.
#[derive(Clone, Debug)]
enum Doing {
    Append(usize),
    Number,
    Read { offset: u64 },
    Length,
    Update(usize),
    Get(Key),
}

#[derive(Clone, Debug, Default)]
struct Client {
    busy: bool,
    /// Last number of this writer, as far as it knows.
    number: Option<i64>,
    /// An append whose outcome is not known.
    unsure: Option<usize>,
    length: u64,
    /// What it last saw of each key.
    versions: BTreeMap<Key, Option<i64>>,
}

/// What the clients know, and what they did and heard.
pub(super) struct Clients {
    clients: Vec<Client>,
    under_way: BTreeMap<Ticket, (usize, Doing, Moment)>,
    appends: AppendHistory,
    versions: VersionHistory,
    now: Moment,
    tickets: Ticket,
    values: u64,
    pub(super) report: ClientsReport,
    stream: SegmentName,
    table: SegmentName,
}

fn key_bytes(key: Key) -> Bytes {
    Bytes::copy_from_slice(&key.to_be_bytes())
}

impl Clients {
    pub(super) fn new() -> Self {
        let name = |text: &str| SegmentName::parse(text).expect("fixed names are well formed");
        Self {
            clients: vec![Client::default(); CLIENTS],
            under_way: BTreeMap::new(),
            appends: AppendHistory::default(),
            versions: VersionHistory::default(),
            now: 0,
            tickets: 0,
            values: 0,
            report: ClientsReport::default(),
            stream: name("s/a/0.#epoch.0"),
            table: name("s/kv/0.#epoch.0"),
        }
    }

    fn tick(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    fn value(&mut self) -> u64 {
        self.values += 1;
        self.values
    }

    fn request_of(&self, append: &Append) -> Request {
        let filler = append.value % 200 * (append.value % 7);
        Request::Append(api::Append {
            segment: self.stream.clone(),
            writer: WriterId(append.writer),
            data: bytes_of(append.value, filler as usize).into(),
            event_count: 1,
            previous: append.previous,
            number: append.number,
            expected_length: append.condition,
        })
    }

    /// Whatever is under way is not heard of any more.
    pub(super) fn crash(&mut self) {
        for (client, doing, _) in std::mem::take(&mut self.under_way).into_values() {
            self.clients[client].busy = false;
            if let Doing::Append(index) = doing {
                self.clients[client].unsure = Some(index);
            }
        }
        self.report.crashes += 1;
    }

    /// Takes an answer.
    pub(super) fn hear(&mut self, ticket: Ticket, outcome: &Outcome, is_lost: bool) -> Result<(), String> {
        let Some((index, doing, begun)) = self.under_way.remove(&ticket) else {
            return Err(format!("request {ticket} was answered twice"));
        };
        let span = Span::new(begun, self.tick());
        let unexpected = || Err(format!("request {ticket}: unexpected answer {outcome:?}"));
        let client = &mut self.clients[index];
        client.busy = false;
        if is_lost {
            if let Doing::Append(append) = doing {
                client.unsure = Some(append);
            }
            return Ok(());
        }
        match (doing, outcome) {
            (Doing::Append(at), outcome) => {
                let append = &mut self.appends.appends[at];
                append.span = span;
                append.result = match outcome {
                    Ok(Response::Appended { length }) => {
                        (client.number, client.length) = (Some(append.number), *length);
                        appends::Heard::Stored { length: *length }
                    }
                    Err(Refusal::LengthMismatch { length }) => {
                        client.length = *length;
                        appends::Heard::OtherLength { length: *length }
                    }
                    Err(Refusal::WriterConflict { stored }) => {
                        client.number = *stored;
                        appends::Heard::OtherNumber { stored: *stored }
                    }
                    _ => return unexpected(),
                };
                self.report.refused += u64::from(!matches!(append.result, appends::Heard::Stored { .. }));
            }
            (Doing::Number, Ok(Response::LastEvent(number))) => client.number = *number,
            (Doing::Read { offset }, Ok(Response::Read(read))) => {
                self.appends.reads.push(Read { offset, bytes: read.data.concat(), span });
            }
            (Doing::Length, Ok(Response::Info(info))) => {
                client.length = info.length;
                self.appends.lengths.push(Seen { length: info.length, span });
            }
            (Doing::Update(at), outcome) => {
                let update = &mut self.versions.updates[at];
                update.span = span;
                update.result = match outcome {
                    Ok(Response::Versions(versions)) if versions.len() == update.changes.len() => {
                        for (change, version) in update.changes.iter().zip(versions) {
                            client.versions.insert(change.key, change.value.map(|_| *version));
                        }
                        versions::Heard::Done(versions.clone())
                    }
                    Err(Refusal::KeyMissing | Refusal::KeyVersion) => {
                        self.report.refused += 1;
                        client.versions.retain(|key, _| update.changes.iter().all(|change| change.key != *key));
                        versions::Heard::Refused
                    }
                    _ => return unexpected(),
                };
            }
            (Doing::Get(key), Ok(Response::Values(values))) if values.len() == 1 => {
                let found = found(&values[0])?;
                client.versions.insert(key, found.map(|(version, _)| version));
                self.versions.gets.push(Get { key, found, span });
            }
            _ => return unexpected(),
        }
        Ok(())
    }

    /// What has to be there before the clients begin.
    pub(super) fn segments(&self) -> [(SegmentName, SegmentKind); 2] {
        [(self.stream.clone(), SegmentKind::Stream), (self.table.clone(), SegmentKind::Table { key_length: 4 })]
    }

    /// Lets an idle client do something.
    pub(super) fn begin(&mut self, index: usize, chance: &mut Chance) -> (Ticket, Request) {
        let (doing, request) = self.next_of(index, chance);
        self.clients[index].busy = true;
        self.report.operations += 1;
        self.tickets += 1;
        let (ticket, begun) = (self.tickets, self.tick());
        match doing {
            Doing::Append(at) => self.appends.appends[at].span = Span::open(begun),
            Doing::Update(at) => self.versions.updates[at].span = Span::open(begun),
            Doing::Number | Doing::Read { .. } | Doing::Length | Doing::Get(_) => {}
        }
        self.under_way.insert(ticket, (index, doing, begun));
        (ticket, request)
    }

    fn next_of(&mut self, index: usize, chance: &mut Chance) -> (Doing, Request) {
        let (segment, table) = (self.stream.clone(), self.table.clone());
        let writer = index as u128 + 1;
        if let Some(at) = self.clients[index].unsure.take() {
            if chance.percent(50) {
                // As it was: if it is stored, its number says so.
                let again = self.appends.appends[at].clone();
                let request = self.request_of(&again);
                self.appends.appends.push(Append { result: appends::Heard::Nothing, ..again });
                return (Doing::Append(self.appends.appends.len() - 1), request);
            }
            return (Doing::Number, Request::OpenWriter { segment, writer: WriterId(writer) });
        }
        let length = self.clients[index].length;
        match chance.below(100) {
            0..45 => {
                let previous = self.clients[index].number;
                let condition = chance.percent(50).then_some(length);
                let append = Append {
                    value: self.value(),
                    writer,
                    previous,
                    number: previous.unwrap_or(0) + 1 + chance.below(3) as i64,
                    condition,
                    span: Span::open(0),
                    result: appends::Heard::Nothing,
                };
                let request = self.request_of(&append);
                self.appends.appends.push(append);
                (Doing::Append(self.appends.appends.len() - 1), request)
            }
            45..60 if length > 0 => {
                let offset = chance.below(length);
                (Doing::Read { offset }, Request::Read { segment, offset, bytes_max: 8 << chance.below(10) })
            }
            45..68 => (Doing::Length, Request::Info { segment }),
            68..88 => self.update_of(index, chance),
            _ => {
                let key = chance.below(u64::from(KEYS)) as Key;
                (Doing::Get(key), Request::TableGet { segment: table, keys: vec![key_bytes(key)] })
            }
        }
    }

    fn update_of(&mut self, index: usize, chance: &mut Chance) -> (Doing, Request) {
        let first = chance.below(u64::from(KEYS)) as Key;
        let count = if chance.percent(30) { 2 } else { 1 };
        let mut changes = Vec::new();
        for key in (0..count).map(|step| (first + step) % KEYS) {
            let condition = match self.clients[index].versions.get(&key) {
                None => {
                    let request = Request::TableGet { segment: self.table.clone(), keys: vec![key_bytes(key)] };
                    return (Doing::Get(key), request);
                }
                Some(None) => Condition::Missing,
                Some(Some(version)) => Condition::Version(*version),
            };
            let removes = count == 1 && condition != Condition::Missing && chance.percent(25);
            let value = (!removes).then(|| self.value());
            changes.push(Change { key, condition, value });
        }
        let asked = changes.iter().map(|change| TableChange {
            key: key_bytes(change.key),
            value: change.value.map(|value| Bytes::copy_from_slice(&value.to_be_bytes())),
            expect: match change.condition {
                Condition::Missing => Expect::Missing,
                Condition::Version(version) => Expect::Version(version),
            },
        });
        let request = Request::TableUpdate { segment: self.table.clone(), changes: asked.collect(), at: None };
        self.versions.updates.push(Update { changes, span: Span::open(0), result: versions::Heard::Nothing });
        (Doing::Update(self.versions.updates.len() - 1), request)
    }

    /// Reads everything.
    pub(super) fn see_the_end(
        &mut self,
        ask: &mut dyn FnMut(Request) -> Result<Outcome, String>,
    ) -> Result<(), String> {
        let info = ask(Request::Info { segment: self.stream.clone() })?;
        let Ok(Response::Info(info)) = info else { return Err(format!("unexpected answer {info:?}")) };
        while (self.appends.content.len() as u64) < info.length {
            let offset = self.appends.content.len() as u64;
            let request = Request::Read { segment: self.stream.clone(), offset, bytes_max: 50_000 };
            match ask(request)? {
                Ok(Response::Read(read)) if read.data.iter().any(|piece| !piece.is_empty()) => {
                    self.appends.content.extend(read.data.concat());
                }
                other => return Err(format!("unexpected answer {other:?}")),
            }
        }
        for key in 0..KEYS {
            let request = Request::TableGet { segment: self.table.clone(), keys: vec![key_bytes(key)] };
            match ask(request)? {
                Ok(Response::Values(values)) if values.len() == 1 => {
                    if let Some(found) = found(&values[0])? {
                        self.versions.last.insert(key, found);
                    }
                }
                other => return Err(format!("unexpected answer {other:?}")),
            }
        }
        Ok(())
    }

    /// Whether one order of events explains everything that was heard.
    pub(super) fn check(&mut self) -> Result<(), String> {
        let unknown = self.appends.appends.iter().filter(|append| append.result == appends::Heard::Nothing).count()
            + self.versions.updates.iter().filter(|update| update.result == versions::Heard::Nothing).count();
        self.report.unknown = unknown as u64;
        self.appends.check()?;
        self.versions.check()
    }
}

/// Version and value of an entry as clients put it.
fn found(entry: &Option<api::TableEntry>) -> Result<Option<(i64, u64)>, String> {
    let Some(entry) = entry else { return Ok(None) };
    let value = entry.value[..].try_into().map_err(|_| format!("a value nobody put: {entry:?}"))?;
    Ok(Some((entry.version, u64::from_be_bytes(value))))
}

impl<L: Launch> Run<'_, L> {
    fn clients(&mut self, clients: &mut Clients, operations: u64) -> Result<(), String> {
        let mut disk = SimDisk::new(self.chance.bits());
        self.events.push(Event::Opened);
        let mut running = self.world.open(&disk, &mut self.chance)?;
        for (segment, kind) in clients.segments() {
            let request = Request::Create { segment, kind, policy: SegmentPolicy::default(), on_reserve: false };
            running.ask(request, &mut self.chance)?.map_err(|refusal| refusal.to_string())?;
        }
        while clients.report.operations < operations {
            if self.chance.below(1000) < CRASH_PER_MILLE {
                clients.crash();
                disk = self.crash_and_open(disk, &mut running)?;
            }
            let client = self.chance.index(CLIENTS);
            if !clients.clients[client].busy && self.chance.percent(50) {
                let (ticket, request) = clients.begin(client, &mut self.chance);
                self.events.push(Event::Asked(ticket, request.clone()));
                running.hand_over(ticket, request)?;
            } else if self.chance.percent(NUDGE_PERCENT) {
                running.nudge(self.chance.bits())?;
            } else {
                running.work(self.chance.bits())?;
            }
            self.hear(clients, &running)?;
        }
        for _ in 0..WORK_MAX {
            let worked = running.work(self.chance.bits())?;
            self.hear(clients, &running)?;
            if !worked {
                break;
            }
        }
        if let Some((ticket, under_way)) = clients.under_way.first_key_value() {
            return Err(format!("request {ticket} was never answered: {under_way:?}"));
        }
        if self.chance.percent(50) {
            disk = self.crash_and_open(disk, &mut running)?;
        }
        let chance = &mut self.chance;
        clients.see_the_end(&mut |request| running.ask(request, chance))?;
        clients.report.trace = self.report.trace.rotate_left(7) ^ disk.trace();
        clients.check()
    }

    fn crash_and_open(&mut self, disk: SimDisk, running: &mut Running<L::Store>) -> Result<SimDisk, String> {
        let (image, seed) = (disk.image(), self.chance.bits());
        let killed = self.chance.percent(30);
        self.events.push(Event::Crashed(if killed { "process killed" } else { "power cut" }));
        self.report.trace = self.report.trace.rotate_left(7) ^ disk.trace();
        let disk = if killed { image.process_kill(seed) } else { image.power_cut(seed) };
        *running = self.world.open(&disk, &mut self.chance)?;
        Ok(disk)
    }

    fn hear(&mut self, clients: &mut Clients, running: &Running<L::Store>) -> Result<(), String> {
        for (ticket, _, outcome) in running.take_answers() {
            // Of those only that ask what became of something, every answer is heard.
            let is_lost = self.chance.percent(LOST_PERCENT);
            self.report.trace = self.report.trace.rotate_left(7) ^ ticket;
            clients.hear(ticket, &outcome, is_lost)?;
            self.events.push(Event::Answered(ticket, outcome));
        }
        Ok(())
    }
}
