//! Every way to try the engine, each a function of one seed: what the tests, the soak and the regression seeds run.

use std::fmt;

use crate::chance::Chance;
use crate::disk::{AfterFailedSync, Faults};
use crate::groups::groups_run;
use crate::harness::Failure;
use crate::harness::clients::clients_run;
use crate::harness::crash::{Plan, crash_run};
use crate::harness::faults::{FaultOutcome, fault_run, full_run};
use crate::harness::repair::repair_run;
use crate::harness::rot::{every_bit_run, rot_run};
use crate::stepped::EngineLaunch;

/// A way to try the engine.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Mode {
    /// Power cuts and killed processes at I/O boundaries.
    Crash,
    /// The same with almost no memory.
    CrashTiny,
    /// The same with almost no memory while the wall clock jumps.
    CrashClock,
    /// Crashes of a store whose chunks are in a bucket that does not always answer.
    CrashBucket,
    /// One call of the disk fails.
    Error,
    /// One sync fails; what reads show afterwards varies.
    Sync,
    /// The disk can only be read from some call on.
    ReadOnly,
    /// The disk is full for a while.
    Full,
    /// The same with almost no memory.
    FullTiny,
    /// Stored bytes are damaged, one place at a time.
    Rot,
    /// The same in a store with almost no memory, which has more in its chunks and less in its journal.
    RotTiny,
    /// Files of a store whose chunks are in a bucket are damaged.
    RotBucket,
    /// Each bit of the small files is flipped.
    EveryBit,
    /// Littered and damaged stores are repaired.
    Repair,
    /// Several clients, lost replies, crashes; their histories must make sense.
    Histories,
    /// Readers of a group share a stream that scales.
    Groups,
}

/// What a run did, for a person.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Summary {
    /// Crash points, faults, damaged places: what the mode counts.
    pub count: u64,
    /// In words.
    pub text: String,
    /// Hash over everything that happened; the same for the same seed.
    pub trace: u64,
}

/// Disks that fill up have fewer bytes than this.
const FULL_BYTES: u64 = 5 << 20;
/// Crash points of one seed.
const POINTS: u64 = 250;
/// Requests of one run with faults.
const REQUESTS: u64 = 60;
/// Damaged places of one seed.
const PLACES: u64 = 100;
/// Littered copies of one store.
const STORES: u64 = 20;
/// Operations of one history.
const OPERATIONS: u64 = 200;
/// A run of this many requests makes so many calls at most; a fault behind the last call is none.
const CALLS: u64 = 320;

impl Mode {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Crash,
        Self::CrashTiny,
        Self::CrashClock,
        Self::CrashBucket,
        Self::Error,
        Self::Sync,
        Self::ReadOnly,
        Self::Full,
        Self::FullTiny,
        Self::Rot,
        Self::RotTiny,
        Self::RotBucket,
        Self::EveryBit,
        Self::Repair,
        Self::Histories,
        Self::Groups,
    ];

    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::CrashTiny => "crash-tiny",
            Self::CrashClock => "crash-clock",
            Self::CrashBucket => "crash-bucket",
            Self::Error => "error",
            Self::Sync => "sync",
            Self::ReadOnly => "read-only",
            Self::Full => "full",
            Self::FullTiny => "full-tiny",
            Self::Rot => "rot",
            Self::RotTiny => "rot-tiny",
            Self::RotBucket => "rot-bucket",
            Self::EveryBit => "every-bit",
            Self::Repair => "repair",
            Self::Histories => "histories",
            Self::Groups => "groups",
        }
    }

    /// The mode of that name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// Runs a seed.
    ///
    /// # Errors
    /// A broken promise.
    pub fn run(self, seed: u64) -> Result<Summary, Box<Failure>> {
        let both = [EngineLaunch::default(), EngineLaunch::tiny()];
        let [usual, tiny] = &both;
        let mut chance = Chance::new(seed ^ 0x5eed);
        match self {
            Self::Crash => crash(usual, Plan::of(seed, POINTS)),
            Self::CrashTiny => crash(tiny, Plan::of(seed, POINTS)),
            Self::CrashClock => crash(tiny, Plan { clock_jumps: true, ..Plan::of(seed, POINTS) }),
            Self::CrashBucket => {
                // Twice as often with almost no memory: what happens in a bucket happens after a checkpoint.
                let launch = if chance.percent(67) { tiny } else { usual };
                let remote_per_mille = *chance.pick(&[0, 20, 100, 400]);
                crash(&launch.clone().in_bucket(), Plan { remote_per_mille, ..Plan::of(seed, POINTS) })
            }
            Self::Error => {
                let error_at_calls = [chance.below(CALLS)].into();
                faults(chance.pick(&both), seed, Faults { error_at_calls, ..Faults::default() })
            }
            Self::Sync => {
                let fail_syncs = [chance.below(CALLS / 3)].into();
                let kinds = [AfterFailedSync::NewUntilPowerCut, AfterFailedSync::OldAtOnce];
                let after_failed_sync = *chance.pick(&kinds);
                let launch = chance.pick(&both);
                faults(launch, seed, Faults { fail_syncs, after_failed_sync, ..Faults::default() })
            }
            Self::ReadOnly => {
                let read_only_from_call = Some(chance.below(CALLS));
                faults(chance.pick(&both), seed, Faults { read_only_from_call, ..Faults::default() })
            }
            Self::Full => full(usual, seed, chance.below(FULL_BYTES)),
            Self::FullTiny => full(tiny, seed, chance.below(FULL_BYTES)),
            Self::Rot => rot(usual, seed),
            Self::RotTiny => rot(tiny, seed),
            Self::RotBucket => rot(&tiny.clone().in_bucket(), seed),
            Self::EveryBit => {
                let report = every_bit_run(chance.pick(&both), seed)?;
                Ok(Summary { count: report.count(), text: format!("{:?}", report.tally), trace: report.trace })
            }
            Self::Repair => {
                let report = repair_run(chance.pick(&both), seed, STORES)?;
                Ok(Summary { count: report.repaired, text: format!("{report:?}"), trace: report.trace })
            }
            Self::Histories => {
                let report = clients_run(chance.pick(&both), seed, OPERATIONS)?;
                Ok(Summary { count: report.operations, text: format!("{report:?}"), trace: report.trace })
            }
            Self::Groups => {
                let report = groups_run(seed)?;
                Ok(Summary { count: report.updates, text: format!("{report:?}"), trace: report.trace })
            }
        }
    }

    /// Seeds that found something once, and must not again.
    pub fn regressions() -> Vec<(Self, u64)> {
        let lines = include_str!("../seeds/regressions.txt").lines().filter(|line| !line.starts_with('#'));
        let parse = |line: &str| {
            let mut words = line.split(' ');
            Some((Self::of(words.next()?)?, words.next()?.parse().ok()?))
        };
        lines.map(|line| parse(line).unwrap_or_else(|| panic!("{line:?} is no mode and seed"))).collect()
    }

    /// What to type to see a seed again.
    pub fn command(self, seed: u64) -> String {
        format!("cargo run --release -p headwater-sim -- replay {} {seed}", self.name())
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn crash(launch: &EngineLaunch, plan: Plan) -> Result<Summary, Box<Failure>> {
    let report = crash_run(launch, plan)?;
    Ok(Summary { count: report.points, text: format!("{report:?}"), trace: report.trace })
}

fn faults(launch: &EngineLaunch, seed: u64, faults: Faults) -> Result<Summary, Box<Failure>> {
    let report = fault_run(launch, seed, REQUESTS, faults)?;
    let met = matches!(report.outcome, FaultOutcome::Stopped(_));
    Ok(Summary { count: u64::from(met), text: format!("{report:?}"), trace: report.trace })
}

fn full(launch: &EngineLaunch, seed: u64, capacity: u64) -> Result<Summary, Box<Failure>> {
    let report = full_run(launch, seed, REQUESTS, capacity)?;
    let met = report.opened_late || report.waited > 0 || report.relieved;
    Ok(Summary { count: u64::from(met), text: format!("{report:?}"), trace: report.trace })
}

fn rot(launch: &EngineLaunch, seed: u64) -> Result<Summary, Box<Failure>> {
    let report = rot_run(launch, seed, PLACES)?;
    Ok(Summary { count: report.count(), text: format!("{:?}", report.tally), trace: report.trace })
}
