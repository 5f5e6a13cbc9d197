//! Replays simulated crashes of the engine by seed.
//!
//! ```text
//!   cargo run --release -p headwater-sim -- crash --seed 17 --points 1000
//!   cargo run --release -p headwater-sim -- crash --seed 1 --seeds 1000     (a night's work)
//!   cargo run --release -p headwater-sim -- sync --seed 3 --sync 40
//! ```
//!
//! A failure prints what happened before it and ends with exit code 1.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use headwater_sim::{EngineLaunch, Faults, Plan, crash_run, fault_run};

#[derive(Parser)]
#[command(about = "Replays simulated crashes of the engine by seed")]
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
    /// Lets one sync fail, restarts, and compares.
    Sync {
        /// Decides the requests.
        #[arg(long)]
        seed: u64,
        /// Which sync, counted from 0.
        #[arg(long)]
        sync: u64,
        /// How many requests.
        #[arg(long, default_value_t = 60)]
        requests: u64,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().what {
        What::Crash { seed, seeds, points } => (seed..seed.saturating_add(seeds)).try_for_each(|seed| {
            let report = crash_run(&EngineLaunch::default(), Plan { seed, points })?;
            println!("seed {seed}: {report:?}");
            Ok(())
        }),
        What::Sync { seed, sync, requests } => {
            let faults = Faults { fail_syncs: [sync].into(), ..Faults::default() };
            let outcome = fault_run(&EngineLaunch::default(), seed, requests, faults);
            outcome.map(|outcome| println!("seed {seed}, sync {sync}: {outcome:?}"))
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
