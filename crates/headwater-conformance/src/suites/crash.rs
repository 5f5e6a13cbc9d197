//! `kill -9` under load, again and again, with the same writers alive throughout.
//!
//! Some kills hit a server that still recovers, some one that scales; a further writer commits transactions, which must
//! be there whole or not at all.

use super::{Case, Outcome, in_scratch, run_cases};
use crate::chance::Chance;
use crate::compatibility::Gathered;
use crate::driver::{Client, Driver};
use crate::ledger::{Totals, Written, check_file, parse_ledger};
use crate::prepare::Places;
use crate::server::{Addresses, Launch, Server};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

const SCOPE: &str = "crash";
const STREAM: &str = "ledger";
/// The client may sit out a pause of ten seconds between two attempts, and needs several attempts.
const PROGRESS_WITHIN: Duration = Duration::from_secs(90);

/// A scale that a kill interrupted has ended so long after the next start.
const RESUMED_WITHIN: Duration = Duration::from_secs(10);

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How often the server is killed.
    pub cycles: u32,
    /// Every choice follows from it.
    pub seed: u64,
    /// Writer objects of the genuine Rust client.
    pub writers: u32,
    /// Routing keys, shared by the writers.
    pub keys: u32,
    /// Scale the stream, also at the very moment of a kill.
    pub scale: bool,
    /// One more writer, which commits transactions.
    pub transactions: bool,
}

/// Runs it.
///
/// # Errors
/// When the first server does not start.
pub fn run(places: &Places, plan: &Plan) -> Result<Outcome> {
    in_scratch(places, "crash", |scratch| {
        let name = format!(
            "crash: {} writers × {} keys, kill -9 {} times, seed {}",
            plan.writers, plan.keys, plan.cycles, plan.seed
        );
        let found = Gathered::default();
        let case = Case::new(name, || {
            let group = "a server that is killed and started again";
            let sentence =
                "writers and transactions go on over kills and scales, and everything is there once, in order";
            found.one(Client::Rust, group, sentence, || crash(places, plan, scratch))
        });
        let outcome = run_cases(vec![case], 1);
        if plan.scale && plan.transactions {
            found.store(places, Client::Rust, "crash")?;
        }
        Ok(outcome)
    })
}

fn crash(places: &Places, plan: &Plan, scratch: &Path) -> Result<String> {
    let mut chance = Chance::new(plan.seed);
    let mut launch = Launch::new(places.server(), scratch);
    launch.addresses = Addresses::free()?;
    let mut server = launch.start()?;
    let controller = server.ready.controller.clone();
    let rust = |name: &str, arguments: &[&str]| {
        let arguments = [&["--scope", SCOPE, "--stream", STREAM][..], arguments].concat();
        Client::Rust.command(places, &controller, name, &arguments)
    };
    // The least the stream may ever have; it begins with four.
    Driver::run(rust("setup", &["--segments", "2"]), PROGRESS_WITHIN)?;
    Driver::run(rust("scale", &["--to", "4"]), PROGRESS_WITHIN)?;
    let ledger = scratch.join("ledger.txt");
    let numbers = [plan.seed.to_string(), plan.writers.to_string(), plan.keys.to_string()];
    let transactions = plan.transactions.to_string();
    let arguments = ["--run", &numbers[0], "--writers", &numbers[1], "--keys", &numbers[2]];
    let arguments = [&arguments[..], &["--transactions", &transactions]].concat();
    let path = ledger.to_str().context("the path of the ledger is text")?;
    let mut writer = Driver::start(rust("ledger-write", &[&arguments[..], &["--ledger", path]].concat()))?;

    let mut to_ready = Vec::new();
    let mut slowest_resume = Duration::ZERO;
    for cycle in 1..=plan.cycles {
        slowest_resume = slowest_resume.max(progress(&mut writer, &mut server, cycle)?);
        // Every other kill comes while the stream is being scaled.
        let scaling = if plan.scale && cycle % 2 == 0 {
            let to = 2 + chance.below(7);
            let scaling = Driver::start(rust("scale", &["--to", &to.to_string()]))?;
            std::thread::sleep(Duration::from_millis(chance.below(60)));
            Some(scaling)
        } else {
            std::thread::sleep(Duration::from_millis(chance.below(1_200)));
            None
        };
        server.kill()?;
        std::thread::sleep(Duration::from_millis(chance.below(200)));
        // Now and then the next one is killed while it still recovers.
        while chance.below(6) == 0 {
            let starting = launch.spawn()?;
            std::thread::sleep(Duration::from_millis(chance.below(120)));
            starting.kill();
        }
        server = launch.start().with_context(|| format!("start {cycle} after a kill"))?;
        to_ready.push(server.ready_after);
        if let Some(scaling) = scaling {
            // It may fail: the client asks again after the kill, when the stream has been scaled already. It must end.
            let mut scaling = scaling;
            scaling.until_it_ends(PROGRESS_WITHIN)?;
        }
    }
    if plan.scale {
        // What the last kill left half done goes on by itself; until that is finished another scale is refused.
        let asked = Instant::now();
        while let Err(refused) = Driver::run(rust("scale", &["--to", "5"]), PROGRESS_WITHIN) {
            ensure!(asked.elapsed() < RESUMED_WITHIN, "still refused after {RESUMED_WITHIN:?}: {refused}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    progress(&mut writer, &mut server, plan.cycles + 1)?;
    let printed = writer.finish_after_crashes(Duration::from_secs(240))?;
    // Once more, when nothing is under way: what is read afterwards comes from what is on disk.
    server.kill()?;
    let server = launch.start().context("start after the last kill")?;
    to_ready.push(server.ready_after);

    let mut written = written(plan.seed, &ledger, &printed)?;
    written.transactional = plan.transactions.then_some(plan.writers);
    let payloads = scratch.join("read.bin");
    let out = payloads.to_str().context("the path of the payloads is text")?;
    let expect = written.acknowledged.len().to_string();
    Driver::run(rust("ledger-read", &["--out", out, "--expect", &expect]), Duration::from_secs(600))?;
    let totals = match check_file(&written, &payloads)? {
        Ok(totals) => totals,
        Err(violations) => {
            let list: Vec<String> = violations.iter().map(|violation| format!("  {violation}")).collect();
            bail!("{} acknowledged\n{}", written.acknowledged.len(), list.join("\n"))
        }
    };
    ensure!(totals.acknowledged > u64::from(plan.cycles), "only {totals:?}: that was no load");
    let committed = written.acknowledged.iter().filter(|event| Some(event.writer) == written.transactional).count();
    let committed = committed / plan.keys.max(1) as usize;
    ensure!(committed > 0 || !plan.transactions, "no transaction was committed");
    server.stop()?;
    Ok(format!("{}; {committed} transactions", summary(&totals, &mut to_ready, slowest_resume)))
}

/// Waits until acknowledgements arrive again. Returns how long that took.
fn progress(writer: &mut Driver, server: &mut Server, cycle: u32) -> Result<Duration> {
    let started = Instant::now();
    let before = writer.progress();
    while writer.progress() == before {
        server.alive()?;
        if writer.has_ended() || started.elapsed() > PROGRESS_WITHIN {
            bail!("cycle {cycle}: no event was acknowledged for {:?} with a server that is ready", started.elapsed());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(started.elapsed())
}

fn written(run: u64, ledger: &Path, printed: &[Value]) -> Result<Written> {
    let text = std::fs::read_to_string(ledger).context("read the ledger")?;
    let mut written = Written { run, acknowledged: parse_ledger(&text)?, ..Written::default() };
    let writers =
        printed.iter().find_map(|value| value.get("writers")?.as_array()).context("no account of what was sent")?;
    for entry in writers {
        let writer = entry.get("writer").and_then(Value::as_u64).context("no writer")?;
        let keys = entry.get("sent_per_key").and_then(Value::as_array).context("no keys")?;
        for (key, sent) in keys.iter().enumerate() {
            let sent = sent.as_u64().context("no number of events")?;
            written.sent.insert((u32::try_from(writer)?, u32::try_from(key)?), sent);
        }
    }
    Ok(written)
}

fn summary(totals: &Totals, to_ready: &mut [Duration], slowest_resume: Duration) -> String {
    to_ready.sort();
    let milliseconds = |share: usize| to_ready.get((to_ready.len() - 1) * share / 100).map_or(0, Duration::as_millis);
    format!(
        "{} sent, {} acknowledged, {} read ({} of them unknown to the writer), 0 lost; time to ready median {} ms, \
         worst {} ms; slowest first acknowledgement after ready {:.1} s",
        totals.sent,
        totals.acknowledged,
        totals.read,
        totals.unknown_read,
        milliseconds(50),
        milliseconds(100),
        slowest_resume.as_secs_f64()
    )
}
