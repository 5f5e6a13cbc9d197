//! Runs a store on a simulated disk, breaks whatever may break, and compares what is found with the model.
//!
//! * [`clients`]: several clients at a time, whose histories must make sense
//! * [`crash`]: the power is cut wherever it hurts
//! * [`faults`]: calls of the disk fail, or it is full for a while
//! * [`threads`]: the same clients on the engine's own threads
//! * [`repair`]: what `check --repair` does changes nothing that is served
//! * [`rot`]: stored bytes are not what was written
//!
//! What they share is here: a running store, the disk it runs on, what was asked and answered, and how what is found is
//! explained by the states that the [`History`] allows.

pub(crate) mod clients;
pub(crate) mod crash;
pub(crate) mod faults;
pub(crate) mod repair;
pub(crate) mod rot;
pub(crate) mod threads;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use headwater_engine::StoreError;
use headwater_engine::api::{Outcome, Refusal, Reply, Request, SYSTEM_TABLES};
use headwater_engine::io::Io;
use headwater_types::SegmentName;

use crate::chance::{Chance, SimRandom};
use crate::clock::SimClock;
use crate::compare::{Found, Refusing, look_at_all};
use crate::disk::{SimBucket, SimDisk};
use crate::history::{Allowed, History, Ticket};
use crate::model::{Finding, Ledger, Numbers, State};
use crate::workload::{Universe, Workload};
use crash::Report;

/// A store that does its background work piece by piece, when told.
pub trait Store {
    /// Hands over a request. The reply may be sent during this or any later call.
    ///
    /// # Errors
    /// The store had to stop.
    fn submit(&mut self, request: Request, reply: Box<dyn Reply>) -> Result<(), StoreError>;
    /// Does what a container does before it takes a request: less may be held back afterwards.
    ///
    /// # Errors
    /// The store had to stop.
    fn catch_up(&mut self, _container: u32) -> Result<(), StoreError> {
        Ok(())
    }
    /// Does one piece of work; `choice` picks which. `false`: there was nothing to do.
    ///
    /// # Errors
    /// The store had to stop.
    fn run_one(&mut self, choice: u64) -> Result<bool, StoreError>;
    /// Asks for work that only a long run would bring about, such as a checkpoint; `choice` picks which.
    ///
    /// # Errors
    /// The store had to stop.
    fn nudge(&mut self, _choice: u64) -> Result<(), StoreError> {
        Ok(())
    }
    /// Requests of a container that were handed over and wait, undecided, for memory. They are decided first come, first
    /// served.
    fn held(&self, _container: u32) -> usize {
        0
    }
    /// The disk is full: of what is held, and of what comes, only what frees room is decided.
    fn is_full(&self) -> bool {
        false
    }
    /// Why reads were refused with `Damaged` since the last call.
    fn take_damage(&mut self) -> Vec<StoreError> {
        Vec::new()
    }
    /// Closes in good order: everything asked for becomes durable or is refused with `Closing`.
    ///
    /// # Errors
    /// The store had to stop.
    fn close(self) -> Result<(), StoreError>
    where
        Self: Sized;
}

/// Opens stores.
pub trait Launch: Sync {
    /// What it opens.
    type Store: Store;
    /// Opens the store on this disk, or creates it. `bucket` is there for those who keep chunks in one.
    ///
    /// # Errors
    /// The store cannot be opened.
    fn open(&self, io: Io, bucket: SimBucket) -> Result<Self::Store, StoreError>;
    /// Number of containers of every store it opens.
    fn containers(&self) -> u32;
    /// A table's log of fewer bytes than this grows and shrinks only by what is asked.
    fn table_compact_bytes(&self) -> u64;
}

/// A promise that was broken.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Of the run.
    pub seed: u64,
    /// Crash points passed before.
    pub points: u64,
    /// What is wrong.
    pub what: String,
    /// What happened before, oldest first.
    pub history: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.history {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "seed {}, after {} crash points:", self.seed, self.points)?;
        write!(f, "{}", shorten(&self.what))
    }
}

impl std::error::Error for Failure {}

/// Pieces of work after which a store that still has more is considered stuck.
const WORK_MAX: u32 = 100_000;
/// Most of the history that a failure shows, in lines.
const HISTORY_LINES: usize = 400;

/// An answer and when it was given.
type Answered = (Ticket, u64, Outcome);

/// Takes replies, and notes how many calls the disk had seen then.
struct Mailbox {
    ticket: Ticket,
    disk: SimDisk,
    answers: Arc<Mutex<Vec<Answered>>>,
}

impl Reply for Mailbox {
    fn send(self: Box<Self>, outcome: Outcome) {
        let answered = (self.ticket, self.disk.counts().calls, outcome);
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push(answered);
    }
}

/// A store and what it runs on.
struct Running<S> {
    store: S,
    disk: SimDisk,
    answers: Arc<Mutex<Vec<Answered>>>,
}

/// The world of one seed.
struct World<'a, L> {
    launch: &'a L,
    clock: Arc<SimClock>,
    universe: &'a Universe,
}

/// Calls something that must not panic.
fn guarded<T>(what: &str, call: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("{what} panicked: {}", text.unwrap_or_default()))
    })
}

/// An error with its causes.
fn chain(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn stopped(error: &StoreError) -> String {
    format!("the store stopped: {}", chain(error))
}

impl<L: Launch> World<'_, L> {
    fn open(&self, disk: &SimDisk, chance: &mut Chance) -> Result<Running<L::Store>, String> {
        let random = Arc::new(SimRandom::new(chance.bits()));
        let io = Io { disk: Arc::new(disk.clone()), clock: self.clock.clone(), random };
        let open = || self.launch.open(io, disk.bucket()).map_err(|error| chain(&error));
        let store = guarded("opening the store", open)?;
        Ok(Running { store, disk: disk.clone(), answers: Arc::default() })
    }

    /// Opens the store on `disk`, looks at everything and closes it by forgetting it.
    fn recover(&self, disk: &SimDisk, chance: &mut Chance) -> Result<Found, String> {
        let mut running = self.open(disk, chance).map_err(|error| format!("the store does not open: {error}"))?;
        self.look(&mut running, chance)
    }

    fn look(&self, running: &mut Running<L::Store>, chance: &mut Chance) -> Result<Found, String> {
        look_at_all(self.universe, Refusing::Never, &mut |request| running.ask(request, chance))
    }

    /// Finds the state of each container that fits what was found.
    fn explain(&self, found: &Found, allowed: &[Allowed<'_>], ledger: &Ledger) -> Result<Explained, String> {
        let mut explained = Explained::default();
        for (container, allowed) in allowed.iter().enumerate() {
            let count = self.launch.containers();
            let here = |name: &SegmentName| name.container(count) as usize == container;
            let mut differences = Vec::new();
            // The newest first: most crashes lose little.
            let fitting = allowed.states.iter().enumerate().rev().find_map(|(index, state)| {
                match found.fits(&state.after_restart(), ledger, &here) {
                    Ok(findings) => Some((index, findings)),
                    Err(difference) => {
                        differences.push(difference);
                        None
                    }
                }
            });
            let Some((index, findings)) = fitting else {
                let claimed = allowed.claimed_by.map_or("found at the opening".to_owned(), |ticket| {
                    format!("shown by the answer to request {ticket}")
                });
                let count = differences.len();
                let mut text = format!(
                    "container {container} is in none of {count} allowed states, the oldest of which was {claimed}"
                );
                for (steps_back, difference) in differences.iter().enumerate().take(40) {
                    text.push_str(&format!("\n  {steps_back} steps before the newest: {difference}"));
                }
                return Err(text);
            };
            explained.fitting.push(index);
            explained.findings.extend(findings);
        }
        Ok(explained)
    }
}

/// What is known at the moment of a crash.
struct Known<'a> {
    allowed: Vec<Allowed<'a>>,
    ledger: &'a Ledger,
    numbers: &'a Numbers,
}

/// What was found, in terms of the model.
#[derive(Default)]
struct Explained {
    /// For each container, which of the allowed states fits.
    fitting: Vec<usize>,
    findings: Vec<Finding>,
}

impl<S: Store> Running<S> {
    /// Hands over a request and notes it in the history, which decides it unless the store holds it back.
    fn submit(&mut self, request: &Request, history: &mut History, ledger: &Ledger) -> (Ticket, Result<(), String>) {
        let ticket = history.ticket();
        let container = history.container(request.segment()) as u32;
        let store = &mut self.store;
        let caught_up = guarded("the store", move || store.catch_up(container).map_err(|error| stopped(&error)));
        if caught_up.is_err() {
            return (ticket, caught_up);
        }
        self.settle(history, ledger);
        let before = self.store.held(container);
        let result = self.hand_over(ticket, request.clone());
        if result.is_ok() && self.store.held(container) > before {
            history.hold(ticket, request);
        } else {
            let may_overtake = only_looks(request) || self.store.is_full() && frees_room(request);
            if !may_overtake && history.is_held(request.segment()) {
                let what = format!("request {ticket} overtakes another write to {}", request.segment());
                return (ticket, Err(what));
            }
            history.decide(ticket, request, ledger);
            // What gives memory back lets others go on.
            self.settle(history, ledger);
        }
        (ticket, result)
    }

    fn hand_over(&mut self, ticket: Ticket, request: Request) -> Result<(), String> {
        let reply = Mailbox { ticket, disk: self.disk.clone(), answers: self.answers.clone() };
        let store = &mut self.store;
        guarded("the store", move || store.submit(request, Box::new(reply)).map_err(|error| stopped(&error)))
    }

    fn work(&mut self, choice: u64) -> Result<bool, String> {
        let store = &mut self.store;
        guarded("the store", move || store.run_one(choice).map_err(|error| stopped(&error)))
    }

    /// Does a piece of work, after which the store may hold less back.
    fn run_one(&mut self, choice: u64, history: &mut History, ledger: &Ledger) -> Result<bool, String> {
        let result = self.work(choice);
        self.settle(history, ledger);
        result
    }

    /// Decides in the history what the store does not hold back any more.
    fn settle(&self, history: &mut History, ledger: &Ledger) {
        let of_these: fn(&Request) -> bool = if self.store.is_full() { frees_room } else { |_| true };
        for container in 0..history.steps().len() {
            history.settle(container, self.store.held(container as u32), of_these, ledger);
        }
    }

    fn nudge(&mut self, choice: u64) -> Result<(), String> {
        let store = &mut self.store;
        guarded("the store", move || store.nudge(choice).map_err(|error| stopped(&error)))
    }

    fn take_answers(&self) -> Vec<Answered> {
        std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Hands over a request and works until it is answered.
    fn ask(&mut self, request: Request, chance: &mut Chance) -> Result<Outcome, String> {
        self.hand_over(0, request.clone())?;
        for _ in 0..WORK_MAX {
            if let Some((_, _, outcome)) = self.take_answers().pop() {
                return Ok(outcome);
            }
            if !self.work(chance.bits())? {
                break;
            }
        }
        match self.take_answers().pop() {
            Some((_, _, outcome)) => Ok(outcome),
            None => Err(format!("no answer to {request:?}")),
        }
    }
}

/// Requests that change nothing, and may overtake those that do.
fn only_looks(request: &Request) -> bool {
    match request {
        Request::Read { .. }
        | Request::Info { .. }
        | Request::Attribute { .. }
        | Request::Locate { .. }
        | Request::TableGet { .. }
        | Request::TableScan { .. }
        | Request::TableDelta { .. }
        | Request::TableInfo { .. }
        | Request::ListChunks { .. } => true,
        // An open writer has to be told of its appends that wait.
        Request::OpenWriter { .. }
        | Request::Create { .. }
        | Request::Append(_)
        | Request::Seal { .. }
        | Request::Truncate { .. }
        | Request::Delete { .. }
        | Request::Merge { .. }
        | Request::MergeBatch { .. }
        | Request::UpdateAttributes { .. }
        | Request::SetPolicy { .. }
        | Request::TableUpdate { .. }
        | Request::DeleteTable { .. } => false,
    }
}

/// Requests that a full disk does not hold up, since they free room or end what holds it.
fn frees_room(request: &Request) -> bool {
    match request {
        Request::Seal { .. }
        | Request::Truncate { .. }
        | Request::Delete { .. }
        | Request::DeleteTable { .. }
        | Request::Merge { .. }
        | Request::MergeBatch { .. } => true,
        Request::TableUpdate { segment, .. } => segment.as_str().starts_with(SYSTEM_TABLES),
        Request::Create { on_reserve, .. } => *on_reserve,
        _ => false,
    }
}

/// Something worth showing when a run fails.
enum Event {
    Opened,
    Asked(Ticket, Request),
    Answered(Ticket, Outcome),
    Crashed(&'static str),
}

/// A run of one seed.
struct Run<'a, L: Launch> {
    world: World<'a, L>,
    chance: Chance,
    workload: Workload,
    ledger: Ledger,
    report: Report,
    events: Vec<Event>,
    /// A read may be refused because its bytes cannot be had.
    may_refuse: bool,
}

impl<'a, L: Launch> Run<'a, L> {
    fn new(launch: &'a L, universe: &'a Universe, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let world = World { launch, clock: Arc::new(SimClock::new(1_700_000_000_000)), universe };
        let workload = Workload::new(chance.bits());
        Self {
            world,
            chance,
            workload,
            ledger: Ledger::new(launch.table_compact_bytes()),
            report: Report::default(),
            events: Vec::new(),
            may_refuse: false,
        }
    }

    /// What went wrong, with what happened before.
    fn failure(&self, seed: u64, what: String) -> Box<Failure> {
        Box::new(Failure { seed, points: self.report.points, what, history: self.story() })
    }

    fn new_history(&self) -> History {
        let containers = self.world.launch.containers() as usize;
        History::new(vec![vec![State::default()]; containers], Numbers::default())
    }

    fn submit(&mut self, running: &mut Running<L::Store>, history: &mut History) -> Result<(), String> {
        let request = self.workload.next(history, &self.ledger);
        self.report.requests += 1;
        let (ticket, result) = running.submit(&request, history, &self.ledger);
        self.report.held += u64::from(!history.is_open(ticket));
        self.events.push(Event::Asked(ticket, request));
        result
    }

    fn run_one(&mut self, running: &mut Running<L::Store>, history: &mut History) -> Result<bool, String> {
        running.run_one(self.chance.bits(), history, &self.ledger)
    }

    fn take_answers(&mut self, running: &Running<L::Store>, history: &mut History) -> Result<(), String> {
        self.check_answers(running.take_answers(), history)
    }

    fn check_answers(&mut self, answers: Vec<Answered>, history: &mut History) -> Result<(), String> {
        for (ticket, calls, outcome) in answers {
            self.report.answers += 1;
            self.report.trace = self.report.trace.rotate_left(7) ^ ticket;
            self.events.push(Event::Answered(ticket, outcome.clone()));
            if self.may_refuse && outcome.as_ref().is_err_and(|refusal| *refusal == Refusal::Damaged) {
                history.refused(ticket)?;
                continue;
            }
            let checked = history.answered(ticket, &outcome, calls, &mut self.ledger);
            checked.map_err(|what| format!("answer to request {ticket} is wrong: {what}"))?;
        }
        Ok(())
    }

    /// The end of what happened, for a person.
    fn story(&self) -> Vec<String> {
        let from = self.events.len().saturating_sub(HISTORY_LINES);
        self.events[from..].iter().map(Event::line).collect()
    }
}

impl Event {
    fn line(&self) -> String {
        let line = match self {
            Self::Opened => "---- opened".to_owned(),
            Self::Asked(ticket, request) => format!("{ticket:5} ? {request:?}"),
            Self::Answered(ticket, Ok(response)) => format!("{ticket:5} = {response:?}"),
            Self::Answered(ticket, Err(refusal)) => format!("{ticket:5} = refused: {refusal:?}"),
            Self::Crashed(how) => format!("---- {how}"),
        };
        shorten(&line)
    }
}

/// Cuts byte strings down to their beginning, which identifies a payload, and their length on paper.
fn shorten(line: &str) -> String {
    const SHOWN: usize = 12;
    let mut short = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("b\"") {
        let (before, quoted) = rest.split_at(at + 2);
        short.push_str(before);
        let mut escaped = false;
        let end = quoted.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let (inside, after) = quoted.split_at(end.unwrap_or(quoted.len()));
        short.extend(inside.chars().take(SHOWN));
        if inside.chars().count() > SHOWN {
            short.push('…');
        }
        rest = after;
    }
    short.push_str(rest);
    short
}
