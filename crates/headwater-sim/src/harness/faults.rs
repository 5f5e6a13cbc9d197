//! Calls of the disk fail, or it is full for a while.
//!
//! [`fault_run`]: whatever fails, a store gives right answers or stops with an error (it never panics), and a restart on a
//! sound disk finds everything that was answered: in the page cache as the failed run left it, after a power cut, and
//! after a power cut that follows the first. [`full_run`]: a store on a full disk refuses nothing and forgets nothing, goes on
//! reading, and answers everything once there is room.

use headwater_engine::api::{Request, SegmentKind, SegmentPolicy};

use super::crash::NUDGE_PERCENT;
use super::{Event, Failure, Known, Launch, Run, Running, Store, World};
use crate::chance::Chance;
use crate::disk::{Counts, Faults, SimDisk};
use crate::history::History;
use crate::workload::Universe;

/// How a run with faults ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FaultOutcome {
    /// The store worked on.
    Survived,
    /// The store stopped, and said why.
    Stopped(String),
}

/// What a run with faults did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FaultReport {
    /// How it ended.
    pub outcome: FaultOutcome,
    /// What was asked of the faulty disk.
    pub counts: Counts,
    /// Hash over all calls of that disk and all answers.
    pub trace: u64,
}

/// Runs a fixed workload on a disk with faults, then restarts on a sound disk and compares. The first restart finds the
/// page cache of the first run, as after a crash of the process; the second follows a power cut.
///
/// # Errors
/// A broken promise. That the store stops is none; that it panics is one.
pub fn fault_run<L: Launch>(launch: &L, seed: u64, requests: u64, faults: Faults) -> Result<FaultReport, Box<Failure>> {
    let universe = Universe::default();
    let mut run = Run::new(launch, &universe, seed);
    run.fault_run(requests, faults).map_err(|what| run.failure(seed, what))
}

/// What a store did on a disk that was full for a while.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FullReport {
    /// The store could not be created before there was room.
    pub opened_late: bool,
    /// Requests without an answer when room was made.
    pub waited: u64,
    /// The store itself made room when it was full: everything in it was deleted.
    pub relieved: bool,
    /// Requests answered in all.
    pub answers: u64,
    /// Hash over all calls of the disk and all answers.
    pub trace: u64,
}

/// Runs a workload on a disk that takes `capacity` bytes, then makes room; everything must be answered then. After a
/// restart everything must still be there.
///
/// # Errors
/// A broken promise.
pub fn full_run<L: Launch>(launch: &L, seed: u64, requests: u64, capacity: u64) -> Result<FullReport, Box<Failure>> {
    let universe = Universe::default();
    let mut run = Run::new(launch, &universe, seed);
    run.full_run(requests, capacity).map_err(|what| run.failure(seed, what))
}

/// Pieces of work in which a read of durable bytes must be answered, whatever else waits.
const READ_STEPS: usize = 2_000;

/// Pieces of work in which what was deleted is gone.
const RELIEF_STEPS: usize = 5_000;
/// A disk of this size has room for the reserve and some bookkeeping when nothing else is on it.
const RELIEVED_BYTES: u64 = 3 << 20;

impl<L: Launch> Run<'_, L> {
    fn fault_run(&mut self, requests: u64, faults: Faults) -> Result<FaultReport, String> {
        let disk = SimDisk::new(self.chance.bits());
        let dies = faults.crash_at_call.is_some() || faults.torn_at_call.is_some();
        self.may_refuse = dies || !faults.error_at_calls.is_empty() || !faults.unreadable.is_empty();
        disk.set_faults(faults);
        let mut history = self.new_history();
        let outcome = self.run_until_stopped(&disk, requests, &mut history)?;
        self.events.push(Event::Crashed("restart on a sound disk"));
        self.restart(&disk, &history)?;
        Ok(FaultReport { outcome, counts: disk.counts(), trace: self.trace(&disk) })
    }

    /// The first restart finds the page cache of the run, the second what a power cut leaves.
    fn restart(&mut self, disk: &SimDisk, history: &History) -> Result<(), String> {
        let known = Known { allowed: history.allowed_at(u64::MAX), ledger: &self.ledger, numbers: history.numbers() };
        let image = disk.image();
        let mut killed = true;
        for after in [image.process_kill(self.chance.bits()), image.power_cut(self.chance.bits())] {
            let found = self.world.recover(&after, &mut self.chance)?;
            let explained = self.world.explain(&found, &known.allowed, known.ledger)?;
            if std::mem::take(&mut killed) {
                // What was just served may have stood in the page cache alone. Its own stream of chance: see below.
                let mut chance = Chance::new(image.counts.calls);
                self.world.cut_after_serving(&after, &known, &explained, &mut chance)?;
            }
            self.world.live_on(&after, &known, explained, &mut self.chance)?;
        }
        Ok(())
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
            Err(what) => return stopped_well(what),
        };
        history.opened(disk.counts().calls);
        let mut submitted = 0;
        while submitted < requests {
            let result;
            if self.chance.percent(40) {
                submitted += 1;
                result = self.submit(&mut running, history);
            } else if self.chance.percent(NUDGE_PERCENT) {
                result = running.nudge(self.chance.bits());
            } else {
                result = self.run_one(&mut running, history).map(|_| ());
            }
            // Whatever it answers before it stops must be true.
            self.take_answers(&running, history)?;
            if let Err(what) = result {
                self.events.push(Event::Crashed("stopped"));
                return stopped_well(what);
            }
        }
        Ok(FaultOutcome::Survived)
    }

    fn full_run(&mut self, requests: u64, capacity: u64) -> Result<FullReport, String> {
        let disk = SimDisk::new(self.chance.bits());
        let small = Faults { capacity: Some(capacity), ..Faults::default() };
        disk.set_faults(small.clone());
        let mut history = self.new_history();
        let mut report = FullReport::default();
        self.events.push(Event::Opened);
        let mut running = match self.world.open(&disk, &mut self.chance) {
            Ok(running) => running,
            Err(what) => {
                // Half a store, which the next start makes whole.
                stopped_well(what)?;
                report.opened_late = true;
                disk.set_faults(Faults::default());
                let running = self.world.open(&disk, &mut self.chance)?;
                disk.set_faults(small);
                running
            }
        };
        history.opened(disk.counts().calls);
        let had_reserve = !running.store.is_full();
        let mut submitted = 0;
        while submitted < requests {
            if self.chance.percent(40) {
                submitted += 1;
                self.submit(&mut running, &mut history)?;
            } else if self.chance.percent(NUDGE_PERCENT) {
                running.nudge(self.chance.bits())?;
            } else {
                self.run_one(&mut running, &mut history)?;
            }
            self.take_answers(&running, &mut history)?;
        }
        self.read_on(&mut running, &mut history)?;
        if had_reserve && running.store.is_full() && self.chance.percent(50) {
            self.delete_all(&mut running, &mut history, capacity)?;
            report.relieved = true;
        }
        report.waited =
            history.unanswered().filter(|(_, request)| !matches!(request, Request::Read { .. })).count() as u64;
        self.events.push(Event::Crashed("not: there is room again"));
        disk.set_faults(Faults::default());
        self.come_to_rest(&mut running, &mut history)?;
        drop(running);
        self.restart(&disk, &history)?;
        report.answers = self.report.answers;
        report.trace = self.trace(&disk);
        Ok(report)
    }

    fn trace(&self, disk: &SimDisk) -> u64 {
        self.report.trace.rotate_left(7) ^ disk.trace()
    }

    /// Reads the last durable byte of every segment that has one: no read waits for the disk to have room.
    fn read_on(&mut self, running: &mut Running<L::Store>, history: &mut History) -> Result<(), String> {
        for name in self.world.universe.byte_segments() {
            let Some(claimed) = history.claimed(name) else { continue };
            let (incarnation, offset) = (claimed.incarnation, claimed.length().saturating_sub(1));
            let lives = |found: &crate::model::Segment| found.incarnation == incarnation && found.start <= offset;
            if claimed.length() == 0 || !history.newest(name).find(name).is_some_and(lives) {
                continue;
            }
            let request = Request::Read { segment: name.clone(), offset, bytes_max: 100 };
            let (ticket, result) = running.submit(&request, history, &self.ledger);
            self.events.push(Event::Asked(ticket, request));
            result?;
            for _ in 0..READ_STEPS {
                self.take_answers(running, history)?;
                if !history.is_open(ticket) {
                    break;
                }
                self.run_one(running, history)?;
            }
            if history.is_open(ticket) {
                return Err(format!("request {ticket} reads durable bytes of {name} and waits for the full disk"));
            }
        }
        Ok(())
    }
}

impl<L: Launch> Run<'_, L> {
    /// Creates on the reserve what is missing and deletes everything while the disk is full: that must go through, and make
    /// room.
    fn delete_all(
        &mut self,
        running: &mut Running<L::Store>,
        history: &mut History,
        capacity: u64,
    ) -> Result<(), String> {
        let missing = self.world.universe.byte_segments().map(|name| {
            let kind = if name.is_transient() { SegmentKind::Transient } else { SegmentKind::Stream };
            Request::Create { segment: name.clone(), kind, policy: SegmentPolicy::default(), on_reserve: true }
        });
        let bytes = self.world.universe.byte_segments().map(|name| Request::Delete { segment: name.clone() });
        let tables = self.world.universe.tables.iter();
        let tables = tables.map(|(name, _)| Request::DeleteTable { segment: name.clone(), must_be_empty: false });
        for request in missing.chain(bytes).chain(tables).collect::<Vec<_>>() {
            let (ticket, result) = running.submit(&request, history, &self.ledger);
            self.events.push(Event::Asked(ticket, request));
            result?;
            for _ in 0..READ_STEPS {
                self.take_answers(running, history)?;
                if !history.is_waiting(ticket) {
                    break;
                }
                self.run_one(running, history)?;
            }
            if history.is_waiting(ticket) {
                return Err(format!("request {ticket} may use the reserve and waits for the full disk"));
            }
        }
        for _ in 0..RELIEF_STEPS {
            if !running.store.is_full() {
                return Ok(());
            }
            self.run_one(running, history)?;
            self.take_answers(running, history)?;
        }
        if capacity < RELIEVED_BYTES { Ok(()) } else { Err("everything was deleted and the disk is still full".into()) }
    }
}

impl<L: Launch> World<'_, L> {
    /// Cuts the power right after everything was shown: it must be shown again.
    fn cut_after_serving(
        &self,
        disk: &SimDisk,
        known: &Known<'_>,
        shown: &super::Explained,
        chance: &mut Chance,
    ) -> Result<(), String> {
        let context = |what| format!("after a restart with the old page cache and a power cut: {what}");
        let found = self.recover(&disk.image().power_cut(chance.bits()), chance).map_err(context)?;
        let pairs = known.allowed.iter().zip(&shown.fitting);
        let narrowed = pairs.map(|(allowed, fitting)| crate::history::Allowed {
            states: &allowed.states[*fitting..=*fitting],
            claimed_by: allowed.claimed_by,
        });
        self.explain(&found, &narrowed.collect::<Vec<_>>(), known.ledger).map(|_| ()).map_err(context)
    }
}

/// A store may stop; a panic is no way to do so.
fn stopped_well(what: String) -> Result<FaultOutcome, String> {
    if what.contains(" panicked: ") { Err(what) } else { Ok(FaultOutcome::Stopped(what)) }
}
