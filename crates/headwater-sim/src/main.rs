//! Runs the simulation by hand.
//!
//! ```text
//!   cargo run --release -p headwater-sim -- soak --hours 8                    (every mode, fresh seeds)
//!   cargo run --release -p headwater-sim -- replay crash-tiny 17              (one seed of one mode)
//!   cargo run --release -p headwater-sim -- crash --seed 1 --seeds 1000       (more or fewer crash points)
//!   cargo run --release -p headwater-sim -- flips --count 100000
//!   cargo run --release -p headwater-sim -- fault --seed 3 --fail-sync 40
//!   cargo run --release -p headwater-sim -- sweep --seed 1 --seeds 20         (every call fails once)
//! ```
//!
//! A failure prints what happened before it, says how to see it again, and ends with exit code 1.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use headwater_engine::io::{Random, RealRandom};
use headwater_sim::{
    EngineLaunch, Failure, FaultOutcome, Faults, Mode, Plan, RotReport, crash_run, fault_run, rot_run, soak,
};

#[derive(Parser)]
#[command(about = "Simulated crashes, faults and rot of the engine, by seed")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Cuts the power at random I/O boundaries and compares what is found with the model.
    Crash {
        /// First seed.
        #[arg(long)]
        seed: u64,
        /// How many seeds, one after the other.
        #[arg(long, default_value_t = 1)]
        seeds: u64,
        /// Crash points per seed.
        #[arg(long, default_value_t = 250)]
        points: u64,
    },
    /// Lets something fail, restarts on a sound disk, and compares.
    Fault {
        /// Decides the requests.
        #[arg(long)]
        seed: u64,
        /// How many requests.
        #[arg(long, default_value_t = 40)]
        requests: u64,
        /// This call of the disk fails, counted from 0.
        #[arg(long)]
        error_at_call: Option<u64>,
        /// This sync fails, counted from 0.
        #[arg(long)]
        fail_sync: Option<u64>,
        /// Most bytes the disk takes.
        #[arg(long)]
        capacity: Option<u64>,
    },
    /// Damages stored bytes, one place at a time, and reads everything back.
    Flips {
        /// First seed.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Places to damage.
        #[arg(long, default_value_t = 2_000)]
        count: u64,
    },
    /// Plants bugs in the engine, one at a time, and looks for them. Needs a build with the feature `canary`.
    Canaries,
    /// Runs every mode in turn over fresh seeds, and says once a minute how far it is.
    Soak {
        /// How long, at least; a fraction will do.
        #[arg(long)]
        hours: f64,
        /// First seed; a random one if not given.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Runs one seed of one mode again, as printed by a failure.
    Replay {
        /// Its name.
        mode: String,
        /// First seed.
        seed: u64,
        /// How many seeds, one after the other.
        #[arg(long, default_value_t = 1)]
        seeds: u64,
    },
    /// Runs a seed once for every call of the disk, which fails.
    Sweep {
        /// First seed.
        #[arg(long)]
        seed: u64,
        /// How many seeds, one after the other.
        #[arg(long, default_value_t = 1)]
        seeds: u64,
        /// How many requests.
        #[arg(long, default_value_t = 40)]
        requests: u64,
    },
}

/// Lets every call fail in turn, until a run is over before its call comes.
fn sweep(seed: u64, requests: u64) -> Result<(), Box<Failure>> {
    let mut stopped = 0;
    for call in 0.. {
        let faults = Faults { error_at_calls: [call].into(), ..Faults::default() };
        let report = fault_run(&EngineLaunch::default(), seed, requests, faults)?;
        stopped += u64::from(matches!(report.outcome, FaultOutcome::Stopped(_)));
        if report.counts.calls <= call {
            println!("seed {seed}: {call} calls, {stopped} of them stop the store when they fail");
            break;
        }
    }
    Ok(())
}

/// Damages stores of one seed after the other, in turn with much and with little memory.
fn flips(seed: u64, count: u64) -> Result<(), Box<Failure>> {
    let mut total = RotReport::default();
    for seed in seed.. {
        let rest = count.saturating_sub(total.count());
        if rest == 0 {
            break;
        }
        let launch = if seed.is_multiple_of(2) { EngineLaunch::default() } else { EngineLaunch::tiny() };
        total.add(&rot_run(&launch, seed, rest.min(100))?);
    }
    for ((kind, verdict), count) in &total.tally {
        println!("{count:8} {kind:?} {verdict:?}");
    }
    println!("{:8} places damaged, no wrong byte, no panic, no file removed", total.count());
    Ok(())
}

#[cfg(not(feature = "canary"))]
fn canaries() -> ExitCode {
    println!("no bug can be planted in this build; try --features canary");
    ExitCode::FAILURE
}

#[cfg(feature = "canary")]
fn canaries() -> ExitCode {
    let (mut passed, mut failed) = (0, 0);
    for catch in headwater_sim::catch_all() {
        // Bug 0 is none, and must not be found.
        let right = (catch.number == 0) == catch.by.is_none();
        *(if right { &mut passed } else { &mut failed }) += 1;
        match catch.by {
            Some((mode, seed, what)) => println!("{:3} {}: {mode} {seed}: {what}", catch.number, catch.bug),
            None => println!("{:3} {}: nothing found", catch.number, catch.bug),
        }
    }
    let soaked = headwater_sim::repeat_what_soak_found();
    *(if soaked.is_ok() { &mut passed } else { &mut failed }) += 1;
    match soaked {
        Ok(typed) => println!("soak: a planted bug is found, and again by {typed:?}, which finds nothing without it"),
        Err(what) => println!("soak: {what}"),
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn main() -> ExitCode {
    let result = match Arguments::parse().what {
        What::Crash { seed, seeds, points } => (seed..seed.saturating_add(seeds)).try_for_each(|seed| {
            let report = crash_run(&EngineLaunch::default(), Plan::of(seed, points))?;
            println!("seed {seed}: {report:?}");
            Ok(())
        }),
        What::Fault { seed, requests, error_at_call, fail_sync, capacity } => {
            let error_at_calls = error_at_call.into_iter().collect();
            let fail_syncs = fail_sync.into_iter().collect();
            let faults = Faults { error_at_calls, fail_syncs, capacity, ..Faults::default() };
            let report = fault_run(&EngineLaunch::default(), seed, requests, faults);
            report.map(|report| println!("seed {seed}: {report:?}"))
        }
        What::Flips { seed, count } => flips(seed, count),
        What::Canaries => return canaries(),
        What::Soak { hours, seed } => {
            if !(0.0..=100_000.0).contains(&hours) {
                println!("{hours} is no number of hours");
                return ExitCode::FAILURE;
            }
            // Fresh seeds are far from those of the tests and of each other.
            let seed = seed.unwrap_or_else(|| (RealRandom.bits() >> 80) as u64);
            println!("first seed {seed}");
            soak(seed, Duration::from_secs_f64(hours * 3600.0))
        }
        What::Replay { mode, seed, seeds } => {
            let Some(mode) = Mode::of(&mode) else {
                println!("there is no mode {mode}, only {}", Mode::ALL.map(Mode::name).join(", "));
                return ExitCode::FAILURE;
            };
            (seed..seed.saturating_add(seeds)).try_for_each(|seed| {
                println!("{mode} {seed}: {}", mode.run(seed)?.text);
                Ok(())
            })
        }
        What::Sweep { seed, seeds, requests } => {
            (seed..seed.saturating_add(seeds)).try_for_each(|seed| sweep(seed, requests))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}
