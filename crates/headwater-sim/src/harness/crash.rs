//! Crashes.
//!
//! One run is one seed. Requests and pieces of background work alternate as the seed says. At I/O boundaries an image of
//! the disk is kept; each image is a *crash point*: the store is opened on what a power cut leaves of it, everything is
//! looked at and compared with the states the [`History`] allows at that moment. Then the run goes on as if nothing had
//! happened. In some points the power is cut a second time during the recovery, or after it, or the first crash is a
//! killed process whose page cache survives: what was shown once must still be there.
//!
//! From time to time the run itself crashes and goes on with what it finds, so that stores grow old.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use headwater_engine::api::Request;
use headwater_engine::io::Clock;

use super::{
    Answered, Event, Explained, Failure, Known, Launch, Run, Running, Store, WORK_MAX, World, guarded, stopped,
};
use crate::chance::Chance;
use crate::disk::{Faults, Image, SimDisk};
use crate::history::History;
use crate::model::State;
use crate::workload::{Universe, Workload};

/// How much one run does.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Decides everything else.
    pub seed: u64,
    /// Stop after so many crash points.
    pub points: u64,
    /// Sets the wall clock at random: an hour, a day, ten years, forth and back.
    pub clock_jumps: bool,
    /// Of 1000 requests to the bucket that change or list something so many get no answer.
    pub remote_per_mille: u64,
}

impl Plan {
    /// So many crash points, with a clock that goes and a bucket, if there is one, that answers.
    pub fn of(seed: u64, points: u64) -> Self {
        Self { seed, points, clock_jumps: false, remote_per_mille: 0 }
    }
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
    /// Of these, held back by a store that was short of memory.
    pub held: u64,
    /// Requests answered.
    pub answers: u64,
    /// Calls of the disk.
    pub calls: u64,
    /// Hash over all calls of the disk and all answers.
    pub trace: u64,
}

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
pub(super) const NUDGE_PERCENT: u64 = 5;
/// Of 100 steps so many set the wall clock, if it jumps.
const CLOCK_JUMP_PERCENT: u64 = 4;
/// Where the wall clock jumps, in hours from where it is; 0 stands for the ends of the range.
const CLOCK_JUMP_HOURS: [i64; 9] = [-24, -1, 1, 24, 24 * 365, 24 * 3650, -24 * 3650, 0, 0];

impl<L: Launch> World<'_, L> {
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
    pub(super) fn live_on(
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
        let mut asked = BTreeMap::new();
        for _ in 0..chance.below(LIVE_ON_STEPS) {
            if chance.percent(50) {
                let request = workload.next(&history, &ledger);
                let (ticket, result) = running.submit(&request, &mut history, &ledger);
                asked.insert(ticket, request);
                result?;
            } else {
                running.run_one(chance.bits(), &mut history, &ledger)?;
            }
            for (ticket, calls, outcome) in running.take_answers() {
                let checked = history.answered(ticket, &outcome, calls, &mut ledger);
                let request = asked.get(&ticket);
                checked.map_err(|what| format!("answer after recovery is wrong: {what}\n   asked {request:?}"))?;
            }
        }
        drop(running);
        let context = |what| format!("after recovery, {} more calls and a power cut: {what}", disk.counts().calls);
        let found = self.recover(&disk.image().power_cut(chance.bits()), chance).map_err(context)?;
        self.explain(&found, &history.allowed_at(u64::MAX), &ledger).map(|_| ()).map_err(context)
    }
}

/// Runs a seed until `plan.points` crash points were checked.
///
/// # Errors
/// The first broken promise.
pub fn crash_run<L: Launch>(launch: &L, plan: Plan) -> Result<Report, Box<Failure>> {
    let universe = Universe::default();
    let mut run = Run::new(launch, &universe, plan.seed);
    run.run(plan).map_err(|what| run.failure(plan.seed, what))?;
    Ok(run.report)
}

impl<L: Launch> Run<'_, L> {
    fn run(&mut self, plan: Plan) -> Result<(), String> {
        let disk = SimDisk::new(self.chance.bits());
        let mut history = self.new_history();
        let mut found = disk;
        while self.report.points < plan.points {
            let image = self.epoch(found, plan, &mut history)?;
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
    fn epoch(&mut self, disk: SimDisk, plan: Plan, history: &mut History) -> Result<Image, String> {
        self.events.push(Event::Opened);
        disk.record(IMAGES_PER_MILLE, self.chance.bits());
        disk.set_faults(Faults { remote_per_mille: plan.remote_per_mille, ..Faults::default() });
        let mut running = loop {
            match self.world.open(&disk, &mut self.chance) {
                // Another attempt, as a person would make.
                Err(what) if plan.remote_per_mille > 0 && what.contains("object storage: could not") => {}
                opened => break opened.map_err(|what| format!("the store does not open: {what}"))?,
            }
        };
        self.check_step(Vec::new(), &disk, history)?;
        history.opened(disk.counts().calls);

        let requests = 20 + self.chance.below(150);
        // Some runs keep the store busy, others let it come to rest after each request.
        let submit_percent = *self.chance.pick(&[10, 40, 70]);
        let mut submitted = 0;
        while submitted < requests {
            self.world.clock.advance(Duration::from_millis(self.chance.below(20)));
            if plan.clock_jumps && self.chance.percent(CLOCK_JUMP_PERCENT) {
                self.jump();
            }
            if self.chance.percent(submit_percent) {
                submitted += 1;
                self.submit(&mut running, history)?;
            } else if self.chance.percent(NUDGE_PERCENT) {
                running.nudge(self.chance.bits())?;
            } else {
                self.run_one(&mut running, history)?;
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

    fn jump(&mut self) {
        let hours = *self.chance.pick(&CLOCK_JUMP_HOURS);
        let now = self.world.clock.wall_millis();
        let ends = if self.chance.percent(50) { i64::MIN } else { i64::MAX };
        self.world.clock.set_wall(if hours == 0 { ends } else { now.saturating_add(hours * 3_600_000) });
    }

    /// Works until there is nothing left; then only reads of open segments may lack an answer.
    pub(super) fn come_to_rest(
        &mut self,
        running: &mut Running<L::Store>,
        history: &mut History,
    ) -> Result<(), String> {
        for _ in 0..WORK_MAX {
            let worked = self.run_one(running, history)?;
            self.take_step(running, &running.disk.clone(), history)?;
            if !worked {
                let may_wait = |request: &Request| match request {
                    // At the end of an open segment.
                    Request::Read { segment, offset, .. } => {
                        let found = history.newest(segment).find(segment);
                        found.is_some_and(|found| !found.sealed && *offset >= found.length())
                    }
                    _ => false,
                };
                let forgotten = history.unanswered().find(|(_, request)| !may_wait(request));
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
}
