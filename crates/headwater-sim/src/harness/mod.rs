//! Runs a store on a simulated disk, cuts the power wherever it hurts, and compares what is found with the model.
//!
//! One run is one seed. Requests and pieces of background work alternate as the seed says. At I/O boundaries an image of
//! the disk is kept; each image is a *crash point*: the store is opened on what a power cut leaves of it, everything is
//! looked at and compared with the states the [`History`] allows at that moment. Then the run goes on as if nothing had
//! happened. In some points the power is cut a second time during the recovery, or after it, or the first crash is a
//! killed process whose page cache survives: what was shown once must still be there.
//!
//! From time to time the run itself crashes and goes on with what it finds, so that stores grow old.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use headwater_engine::StoreError;
use headwater_engine::api::{Outcome, Reply, Request};
use headwater_engine::io::Io;
use headwater_types::SegmentName;

use crate::chance::{Chance, SimRandom};
use crate::clock::SimClock;
use crate::compare::{Found, look_at_all};
use crate::disk::{Counts, Faults, Image, SimDisk};
use crate::history::{Allowed, History, Ticket};
use crate::model::{Finding, Ledger, Numbers, State};
use crate::workload::{Universe, Workload};

/// A store that does its background work piece by piece, when told.
pub trait Store {
    /// Hands over a request. The reply may be sent during this or any later call.
    ///
    /// # Errors
    /// The store had to stop.
    fn submit(&mut self, request: Request, reply: Box<dyn Reply>) -> Result<(), StoreError>;
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
    /// Opens the store on this disk, or creates it.
    ///
    /// # Errors
    /// The store cannot be opened.
    fn open(&self, io: Io) -> Result<Self::Store, StoreError>;
    /// Number of containers of every store it opens.
    fn containers(&self) -> u32;
}

/// How much one run does.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Decides everything else.
    pub seed: u64,
    /// Stop after so many crash points.
    pub points: u64,
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// Crash points checked.
    pub points: u64,
    /// Of these, with a second crash during recovery.
    pub points_in_recovery: u64,
    /// Of these, with a killed process first.
    pub points_after_kill: u64,
    /// Crashes the run itself went through.
    pub crashes: u64,
    /// Requests handed over.
    pub requests: u64,
    /// Requests answered.
    pub answers: u64,
    /// Calls of the disk.
    pub calls: u64,
    /// Hash over all calls of the disk and all answers.
    pub trace: u64,
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

/// Of 1000 I/O boundaries so many become crash points.
const IMAGES_PER_MILLE: u64 = 350;
/// Of 100 crash points so many see another power cut during recovery.
const CRASH_IN_RECOVERY_PERCENT: u64 = 30;
/// Of 100 crash points so many begin with a killed process and end with a power cut.
const KILL_FIRST_PERCENT: u64 = 15;
/// Of 100 crash points so many see another power cut after everything was looked at.
const CUT_AFTERWARDS_PERCENT: u64 = 15;
/// Most requests and pieces of work between a recovery and that power cut.
const LIVE_ON_STEPS: u64 = 40;
/// Of 100 steps without a request so many ask for work that is not needed yet.
const NUDGE_PERCENT: u64 = 5;
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
        let store = guarded("opening the store", || self.launch.open(io).map_err(|error| chain(&error)))?;
        Ok(Running { store, disk: disk.clone(), answers: Arc::default() })
    }

    /// Opens the store on `disk`, looks at everything and closes it by forgetting it.
    fn recover(&self, disk: &SimDisk, chance: &mut Chance) -> Result<Found, String> {
        let mut running = self.open(disk, chance).map_err(|error| format!("the store does not open: {error}"))?;
        self.look(&mut running, chance)
    }

    fn look(&self, running: &mut Running<L::Store>, chance: &mut Chance) -> Result<Found, String> {
        look_at_all(self.universe, &mut |request| running.ask(request, chance))
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

    /// Tries one crash.
    fn check_point(
        &self,
        image: &Image,
        known: &Known<'_>,
        chance: &mut Chance,
        report: &mut Report,
    ) -> Result<(), String> {
        report.points += 1;
        if chance.percent(KILL_FIRST_PERCENT) {
            report.points_after_kill += 1;
            let disk = image.process_kill(chance.bits());
            return self.check_found(&disk, known, chance, report, 100).map_err(|what| format!("after a kill: {what}"));
        }
        let disk = image.power_cut(chance.bits());
        let checked = self.check_found(&disk, known, chance, report, CUT_AFTERWARDS_PERCENT);
        checked.map_err(|what| format!("after a power cut: {what}"))
    }

    /// Opens what a crash left behind, and maybe crashes again.
    fn check_found(
        &self,
        disk: &SimDisk,
        known: &Known<'_>,
        chance: &mut Chance,
        report: &mut Report,
        again_percent: u64,
    ) -> Result<(), String> {
        if chance.percent(CRASH_IN_RECOVERY_PERCENT) {
            disk.record(1000, 0);
            drop(self.open(disk, chance).map_err(|what| format!("the store does not open: {what}"))?);
            let images = disk.take_images();
            if !images.is_empty() {
                report.points_in_recovery += 1;
                let second = chance.pick(&images).power_cut(chance.bits());
                let context = |what| format!("after a power cut during recovery: {what}");
                let found = self.recover(&second, chance).map_err(context)?;
                return self.explain(&found, &known.allowed, known.ledger).map(|_| ()).map_err(context);
            }
        }
        let found = self.recover(disk, chance)?;
        let explained = self.explain(&found, &known.allowed, known.ledger)?;
        if chance.percent(again_percent) { self.live_on(disk, known, explained, chance) } else { Ok(()) }
    }

    /// After a recovery, goes on for a while and cuts the power: what was shown and what was answered must still be there.
    fn live_on(
        &self,
        disk: &SimDisk,
        known: &Known<'_>,
        explained: Explained,
        chance: &mut Chance,
    ) -> Result<(), String> {
        let states = explained.fitting.iter().zip(&known.allowed);
        let states = states.map(|(fitting, allowed)| vec![allowed.states[*fitting].after_restart()]).collect();
        let mut history = History::new(states, known.numbers.clone());
        let mut ledger = known.ledger.clone();
        for finding in explained.findings {
            ledger.learn(finding);
        }
        let mut workload = Workload::new(chance.bits());
        let mut running = self.open(disk, chance).map_err(|what| format!("the store does not open again: {what}"))?;
        history.opened(disk.counts().calls);
        for _ in 0..chance.below(LIVE_ON_STEPS) {
            if chance.percent(50) {
                let request = workload.next(&history, &ledger);
                let ticket = history.ask(&request, &ledger);
                running.submit(ticket, request)?;
            } else {
                running.run_one(chance.bits())?;
            }
            for (ticket, calls, outcome) in running.take_answers() {
                let checked = history.answered(ticket, &outcome, calls, &mut ledger);
                checked.map_err(|what| format!("answer after recovery is wrong: {what}"))?;
            }
        }
        drop(running);
        let context = |what| format!("after recovery, {} more calls and a power cut: {what}", disk.counts().calls);
        let found = self.recover(&disk.image().power_cut(chance.bits()), chance).map_err(context)?;
        self.explain(&found, &history.allowed_at(u64::MAX), &ledger).map(|_| ()).map_err(context)
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
    fn submit(&mut self, ticket: Ticket, request: Request) -> Result<(), String> {
        let reply = Mailbox { ticket, disk: self.disk.clone(), answers: self.answers.clone() };
        let store = &mut self.store;
        guarded("the store", move || store.submit(request, Box::new(reply)).map_err(|error| stopped(&error)))
    }

    fn run_one(&mut self, choice: u64) -> Result<bool, String> {
        let store = &mut self.store;
        guarded("the store", move || store.run_one(choice).map_err(|error| stopped(&error)))
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
        self.submit(0, request.clone())?;
        for _ in 0..WORK_MAX {
            if let Some((_, _, outcome)) = self.take_answers().pop() {
                return Ok(outcome);
            }
            if !self.run_one(chance.bits())? {
                break;
            }
        }
        match self.take_answers().pop() {
            Some((_, _, outcome)) => Ok(outcome),
            None => Err(format!("no answer to {request:?}")),
        }
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
}

/// Runs a seed until `plan.points` crash points were checked.
///
/// # Errors
/// The first broken promise.
pub fn crash_run<L: Launch>(launch: &L, plan: Plan) -> Result<Report, Box<Failure>> {
    let universe = Universe::default();
    let mut chance = Chance::new(plan.seed);
    let world = World { launch, clock: Arc::new(SimClock::new(1_700_000_000_000)), universe: &universe };
    let workload = Workload::new(chance.bits());
    let mut run =
        Run { world, chance, workload, ledger: Ledger::default(), report: Report::default(), events: Vec::new() };
    match run.run(plan.points) {
        Ok(()) => Ok(run.report),
        Err(what) => Err(Box::new(Failure { seed: plan.seed, points: run.report.points, what, history: run.story() })),
    }
}

impl<L: Launch> Run<'_, L> {
    fn run(&mut self, points: u64) -> Result<(), String> {
        let disk = SimDisk::new(self.chance.bits());
        let containers = self.world.launch.containers() as usize;
        let mut history = History::new(vec![vec![State::default()]; containers], Numbers::default());
        let mut found = disk;
        while self.report.points < points {
            let image = self.epoch(found, &mut history)?;
            self.report.crashes += 1;
            let killed = self.chance.percent(25);
            self.events.push(Event::Crashed(if killed { "process killed" } else { "power cut" }));
            let seed = self.chance.bits();
            found = if killed { image.process_kill(seed) } else { image.power_cut(seed) };
            // What the run goes on with is found out on a copy: the opening itself is full of crash points.
            let preview = found.image().process_kill(seed);
            let seen = self.world.recover(&preview, &mut self.chance)?;
            let allowed = history.allowed_at(image.counts.calls);
            let explained = self.world.explain(&seen, &allowed, &self.ledger)?;
            for finding in explained.findings {
                self.ledger.learn(finding);
            }
            // A killed process leaves bytes behind that the next power cut may still take, until the opening completes.
            let states = explained.fitting.iter().zip(&allowed).map(|(fitting, allowed)| {
                let from = if killed { 0 } else { *fitting };
                allowed.states[from..=*fitting].iter().map(State::after_restart).collect()
            });
            history = History::new(states.collect(), history.into_numbers());
        }
        Ok(())
    }

    /// Runs from an opening to a crash; returns the disk at the crash.
    fn epoch(&mut self, disk: SimDisk, history: &mut History) -> Result<Image, String> {
        self.events.push(Event::Opened);
        disk.record(IMAGES_PER_MILLE, self.chance.bits());
        let opened = self.world.open(&disk, &mut self.chance);
        let mut running = opened.map_err(|what| format!("the store does not open: {what}"))?;
        self.check_step(Vec::new(), &disk, history)?;
        history.opened(disk.counts().calls);

        let requests = 20 + self.chance.below(150);
        // Some runs keep the store busy, others let it come to rest after each request.
        let submit_percent = *self.chance.pick(&[10, 40, 70]);
        let mut submitted = 0;
        while submitted < requests {
            self.world.clock.advance(Duration::from_millis(self.chance.below(20)));
            if self.chance.percent(submit_percent) {
                submitted += 1;
                self.submit(&mut running, history)?;
            } else if self.chance.percent(NUDGE_PERCENT) {
                running.nudge(self.chance.bits())?;
            } else {
                running.run_one(self.chance.bits())?;
            }
            self.take_step(&running, &disk, history)?;
        }
        if self.chance.percent(30) {
            self.come_to_rest(&mut running, history)?;
        }
        if self.chance.percent(15) {
            self.events.push(Event::Crashed("closed"));
            let Running { store, answers, .. } = running;
            guarded("the store", move || store.close().map_err(|error| stopped(&error)))?;
            let answers = std::mem::take(&mut *answers.lock().unwrap_or_else(PoisonError::into_inner));
            self.check_step(answers, &disk, history)?;
        }
        self.report.calls += disk.counts().calls;
        self.report.trace = self.report.trace.rotate_left(7) ^ disk.trace();
        Ok(disk.image())
    }

    fn submit(&mut self, running: &mut Running<L::Store>, history: &mut History) -> Result<(), String> {
        let request = self.workload.next(history, &self.ledger);
        let ticket = history.ask(&request, &self.ledger);
        self.events.push(Event::Asked(ticket, request.clone()));
        self.report.requests += 1;
        running.submit(ticket, request)
    }

    /// Works until there is nothing left; then only reads of open segments may lack an answer.
    fn come_to_rest(&mut self, running: &mut Running<L::Store>, history: &mut History) -> Result<(), String> {
        for _ in 0..WORK_MAX {
            let worked = running.run_one(self.chance.bits())?;
            self.take_step(running, &running.disk.clone(), history)?;
            if !worked {
                let forgotten = history.unanswered().find(|(_, request)| !matches!(request, Request::Read { .. }));
                return match forgotten {
                    Some((ticket, request)) => Err(format!("request {ticket} was never answered: {request:?}")),
                    None => Ok(()),
                };
            }
        }
        Err(format!("the store still has work after {WORK_MAX} pieces of it"))
    }

    fn take_step(&mut self, running: &Running<L::Store>, disk: &SimDisk, history: &mut History) -> Result<(), String> {
        self.check_step(running.take_answers(), disk, history)
    }

    /// Checks the answers and the crash points of one step. A step may both write and answer: what was acknowledged
    /// before a crash point must be there, but what an answer taught of versions came after it, and a store that crashed
    /// there may give them to others.
    fn check_step(&mut self, answers: Vec<Answered>, disk: &SimDisk, history: &mut History) -> Result<(), String> {
        let images = disk.take_images();
        let ledger = if images.is_empty() || answers.is_empty() { None } else { Some(self.ledger.clone()) };
        self.check_answers(answers, history)?;
        let ledger = ledger.as_ref().unwrap_or(&self.ledger);
        for image in images {
            let mut chance = self.chance.fork();
            let calls = image.counts.calls;
            let known = Known { allowed: history.allowed_at(calls), ledger, numbers: history.numbers() };
            let checked = self.world.check_point(&image, &known, &mut chance, &mut self.report);
            checked.map_err(|what| format!("crash before call {calls} since the last opening\n{what}"))?;
        }
        Ok(())
    }

    fn check_answers(&mut self, answers: Vec<Answered>, history: &mut History) -> Result<(), String> {
        for (ticket, calls, outcome) in answers {
            self.report.answers += 1;
            self.report.trace = self.report.trace.rotate_left(7) ^ ticket;
            self.events.push(Event::Answered(ticket, outcome.clone()));
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

/// How a run with faults ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FaultOutcome {
    /// The store worked on.
    Survived,
    /// The store stopped, and said why.
    Stopped(String),
}

/// Runs a fixed workload on a disk with faults, then restarts on a sound disk and compares. The first restart finds the
/// page cache of the first run, as after a crash of the process; the second follows a power cut. Also tells what was
/// asked of the faulty disk.
///
/// # Errors
/// A broken promise. That the store stops is none.
pub fn fault_run<L: Launch>(
    launch: &L,
    seed: u64,
    requests: u64,
    faults: Faults,
) -> Result<(FaultOutcome, Counts), Box<Failure>> {
    let universe = Universe::default();
    let mut chance = Chance::new(seed);
    let world = World { launch, clock: Arc::new(SimClock::new(1_700_000_000_000)), universe: &universe };
    let workload = Workload::new(chance.bits());
    let mut run =
        Run { world, chance, workload, ledger: Ledger::default(), report: Report::default(), events: Vec::new() };
    let result = run.fault_run(requests, faults);
    result.map_err(|what| Box::new(Failure { seed, points: 0, what, history: run.story() }))
}

impl<L: Launch> Run<'_, L> {
    fn fault_run(&mut self, requests: u64, faults: Faults) -> Result<(FaultOutcome, Counts), String> {
        let disk = SimDisk::new(self.chance.bits());
        disk.set_faults(faults);
        let containers = self.world.launch.containers() as usize;
        let mut history = History::new(vec![vec![State::default()]; containers], Numbers::default());
        let outcome = self.run_until_stopped(&disk, requests, &mut history)?;

        self.events.push(Event::Crashed("restart on a sound disk"));
        let known = Known { allowed: history.allowed_at(u64::MAX), ledger: &self.ledger, numbers: history.numbers() };
        let image = disk.image();
        for after in [image.process_kill(self.chance.bits()), image.power_cut(self.chance.bits())] {
            let found = self.world.recover(&after, &mut self.chance)?;
            let explained = self.world.explain(&found, &known.allowed, known.ledger)?;
            self.world.live_on(&after, &known, explained, &mut self.chance)?;
        }
        Ok((outcome, disk.counts()))
    }

    fn run_until_stopped(
        &mut self,
        disk: &SimDisk,
        requests: u64,
        history: &mut History,
    ) -> Result<FaultOutcome, String> {
        self.events.push(Event::Opened);
        let mut running = match self.world.open(disk, &mut self.chance) {
            Ok(running) => running,
            Err(what) => return Ok(FaultOutcome::Stopped(what)),
        };
        history.opened(disk.counts().calls);
        let mut submitted = 0;
        while submitted < requests {
            let result;
            if self.chance.percent(40) {
                submitted += 1;
                let request = self.workload.next(history, &self.ledger);
                let ticket = history.ask(&request, &self.ledger);
                self.events.push(Event::Asked(ticket, request.clone()));
                result = running.submit(ticket, request);
            } else if self.chance.percent(NUDGE_PERCENT) {
                result = running.nudge(self.chance.bits());
            } else {
                result = running.run_one(self.chance.bits()).map(|_| ());
            }
            // Whatever it answers before it stops must be true.
            self.check_answers(running.take_answers(), history)?;
            if let Err(what) = result {
                self.events.push(Event::Crashed("stopped"));
                return Ok(FaultOutcome::Stopped(what));
            }
        }
        Ok(FaultOutcome::Survived)
    }
}
