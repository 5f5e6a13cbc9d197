//! `headwater-conformance`: runs the suites against the real binary, one by one or all.

use clap::{Parser, Subcommand};
use headwater_conformance::chance::Chance;
use headwater_conformance::compatibility;
use headwater_conformance::driver::Client;
use headwater_conformance::prepare::{Places, prepare};
use headwater_conformance::suites::{
    Outcome, auth, bench,
    ceiling::{self, Crowd},
    clients, crash, features, figures, flights, full, java, lifecycle, malformed, operations, refusals, s3, storms,
};
use std::process::ExitCode;
use std::time::Duration;

/// Starts the real release binary and drives it with the genuine published clients.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    suite: Suite,
    /// Do not build or fetch anything first: everything is known to be there.
    #[arg(long, global = true)]
    prepared: bool,
}

#[derive(Subcommand)]
enum Suite {
    /// Only build the server and the Rust client's driver, and fetch the Python client and the flights.
    Prepare,
    /// Features of the Rust crate.
    Rust {
        /// Only these driver commands, for instance `txn`.
        only: Vec<String>,
    },
    /// Features of the Python wheel.
    Python {
        /// Only these driver commands, for instance `byte`.
        only: Vec<String>,
    },
    /// Features of the Java client, by its own JUnit tests. Needs a JDK of 17 or later and Maven.
    Java {
        /// Only these tests, for instance `TransactionTest` or `TransactionTest#lease`.
        only: Vec<String>,
    },
    /// Compares docs/compatibility.md with what the clients' suites found last.
    Compatibility {
        /// Write it instead.
        #[arg(long)]
        write: bool,
    },
    /// All flights, written by the wheel while the crate scales the stream, read by three readers.
    Flights,
    /// Scales, kills, lost calls and readers that come and go, with our own client.
    Storms {
        /// How long each lasts.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Repeats a run's choices, though not when they meet. Printed by every run.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// `kill -9` under load.
    Crash {
        /// How often the server is killed.
        #[arg(long, default_value_t = 5)]
        cycles: u32,
        /// Repeats a run's choices. Printed by every run.
        #[arg(long)]
        seed: Option<u64>,
        /// Writer objects.
        #[arg(long, default_value_t = 4)]
        writers: u32,
        /// Routing keys, shared by the writers.
        #[arg(long, default_value_t = 16)]
        keys: u32,
        /// Do not scale the stream meanwhile.
        #[arg(long)]
        no_scale: bool,
        /// No writer of transactions.
        #[arg(long)]
        no_transactions: bool,
    },
    /// Bytes that no client sends.
    Malformed {
        /// Repeats a run's garbage. Printed by every run.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Little memory, and peers that want much of it.
    Ceiling {
        /// With 10,000 idle connections and 1,000 writers of large frames.
        #[arg(long)]
        full: bool,
    },
    /// A disk that fills up under a writer.
    Full,
    /// Start, health, stop.
    Lifecycle,
    /// Check, doctor, backup, restore.
    Operations,
    /// Starts that must be refused.
    Refusals,
    /// Chunks in an S3 server, reached through a proxy that misbehaves.
    S3 {
        /// Repeats a run's faults. Printed by every run.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Genuine clients over TLS that prove who they are.
    Auth,
    /// `headwater bench` against the server; not how fast it is.
    Bench,
    /// `headwater bench clients` with the genuine Rust and Java clients; not a test. Needs a JDK of 17 or later and
    /// Maven.
    Clients {
        /// More words for it, such as `--json`.
        #[arg(last = true)]
        words: Vec<String>,
    },
    /// Measurements for a closing note; not a test.
    Figures {
        /// How much to write before the measured restart.
        #[arg(long, default_value_t = 256)]
        mib: u32,
    },
    /// Every suite but the figures.
    All,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let places = Places::new();
    let builds = !cli.prepared || matches!(cli.suite, Suite::Prepare);
    let result = if !builds || matches!(cli.suite, Suite::Compatibility { .. }) { Ok(()) } else { prepare(&places) };
    match result.and_then(|()| run(&places, cli.suite)) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(outcome)) => {
            println!("{} passed, {} failed", outcome.passed, outcome.failed);
            if outcome.failed == 0 && outcome.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("headwater-conformance: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(places: &Places, suite: Suite) -> anyhow::Result<Option<Outcome>> {
    let seeded = |seed: Option<u64>| {
        let seed = seed.unwrap_or_else(Chance::fresh_seed);
        println!("seed {seed}");
        seed
    };
    let crash_plan = |seed| crash::Plan { cycles: 10, seed, writers: 4, keys: 16, scale: true, transactions: true };
    Ok(Some(match suite {
        Suite::Prepare => return Ok(None),
        Suite::Figures { mib } => {
            figures::run(places, mib)?;
            return Ok(None);
        }
        Suite::Clients { words } => {
            clients::run(places, &words)?;
            return Ok(None);
        }
        Suite::Rust { only } => features::run(places, Client::Rust, &only)?,
        Suite::Python { only } => features::run(places, Client::Python, &only)?,
        Suite::Java { only } => java::run(places, &only)?,
        Suite::Compatibility { write } => compatibility::run(places, write)?,
        Suite::Flights => flights::run(places)?,
        Suite::Crash { cycles, seed, writers, keys, no_scale, no_transactions } => {
            let (scale, transactions) = (!no_scale, !no_transactions);
            crash::run(places, &crash::Plan { cycles, seed: seeded(seed), writers, keys, scale, transactions })?
        }
        Suite::Storms { seconds, seed } => storms::run(places, seeded(seed), Duration::from_secs(seconds))?,
        Suite::Auth => auth::run(places)?,
        Suite::Malformed { seed } => malformed::run(places, seeded(seed))?,
        Suite::Ceiling { full } => ceiling::run(places, if full { Crowd::FULL } else { Crowd::QUICK })?,
        Suite::Full => full::run(places)?,
        Suite::Lifecycle => lifecycle::run(places)?,
        Suite::Operations => operations::run(places)?,
        Suite::Refusals => refusals::run(places)?,
        Suite::S3 { seed } => s3::run(places, seeded(seed))?,
        Suite::Bench => bench::run(places)?,
        Suite::All => {
            let mut outcome = refusals::run(places)?.and(lifecycle::run(places)?);
            outcome = outcome.and(operations::run(places)?);
            outcome = outcome.and(features::run(places, Client::Rust, &[])?);
            outcome = outcome.and(features::run(places, Client::Python, &[])?);
            outcome = outcome.and(auth::run(places)?);
            outcome = outcome.and(java::run(places, &[])?);
            outcome = outcome.and(bench::run(places)?);
            outcome = outcome.and(malformed::run(places, seeded(None))?);
            outcome = outcome.and(s3::run(places, seeded(None))?);
            outcome = outcome.and(ceiling::run(places, Crowd::QUICK)?).and(full::run(places)?);
            outcome = outcome.and(flights::run(places)?);
            outcome = outcome.and(crash::run(places, &crash_plan(seeded(None)))?);
            outcome = outcome.and(storms::run(places, seeded(None), Duration::from_secs(10))?);
            outcome.and(compatibility::run(places, false)?)
        }
    }))
}
