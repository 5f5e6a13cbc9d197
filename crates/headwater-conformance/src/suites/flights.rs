//! The main job: 336,776 flights, written by the wheel while the crate scales the stream, read by three readers.

use super::{Case, Outcome, in_scratch, run_cases};
use crate::driver::{Client, Driver, number};
use crate::flights::{FLIGHTS, check, parse_deliveries};
use crate::prepare::Places;
use crate::server::Launch;
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::time::{Duration, Instant};

const SCOPE: &str = "flights";
const STREAM: &str = "flights";
const READERS: usize = 3;
/// Far above what a working server needs; a hang ends here.
const LIMIT: Duration = Duration::from_secs(600);

/// Runs it.
///
/// # Errors
/// When the server does not start.
pub fn run(places: &Places) -> Result<Outcome> {
    in_scratch(places, "flights", |scratch| {
        let server = Launch::new(places.server(), scratch).start()?;
        let controller = &server.ready.controller;
        let write = Case::new("flights: the wheel writes all of them while the crate scales 4 → 8 → 3", || {
            write(places, controller)
        });
        let mut outcome = run_cases(vec![write], 1);
        if outcome.failed == 0 {
            let read = Case::new("flights: three readers read every one once, in order per aircraft", || {
                read(places, controller, scratch)
            });
            outcome = outcome.and(run_cases(vec![read], 1));
        }
        let stop = Case::new("flights: the server stops", || {
            server.stop()?;
            Ok(String::new())
        });
        Ok(outcome.and(run_cases(vec![stop], 1)))
    })
}

fn write(places: &Places, controller: &str) -> Result<String> {
    let rust = |name: &str, arguments: &[&str]| {
        let arguments = [&["--scope", SCOPE, "--stream", STREAM][..], arguments].concat();
        Driver::run(Client::Rust.command(places, controller, name, &arguments), LIMIT)
    };
    // Three is the least the stream may ever have, so that it can come back to three; four when writing begins.
    rust("setup", &["--segments", "3"])?;
    rust("scale", &["--to", "4"])?;
    let flights = places.flights();
    let flights = flights.to_str().context("the path of the flights is text")?;
    let mut writer = Driver::start(Client::Python.command(
        places,
        controller,
        "flights-write",
        &["--scope", SCOPE, "--stream", STREAM, "--flights", flights],
    ))?;
    // The scales happen while the writer writes: each starts at a share of its progress and ends before its end.
    for (share, to) in [(0.15, 8), (0.45, 3)] {
        let start = (FLIGHTS as f64 * share) as u64;
        writer.wait_for("the writer's progress", LIMIT, |value| {
            value.get("progress")?.as_u64().filter(|progress| *progress >= start)
        })?;
        let printed = rust("scale", &["--to", &to.to_string()])?;
        ensure!(number(&printed, "to")? == f64::from(to), "scaled to {printed:?}");
        ensure!(!writer.has_ended(), "the writer had finished before the stream was scaled to {to}");
    }
    // Until now it would have held back a little towards its end, so that it cannot finish first.
    writer.tell_to_finish();
    let printed = writer.finish(LIMIT)?;
    ensure!(number(&printed, "written")? == FLIGHTS as f64, "the writer wrote {printed:?}");
    let segments = rust("segments", &[])?;
    let count = segments.iter().find_map(|value| value.get("segments")?.as_array()).map_or(0, Vec::len);
    ensure!(count == 3, "the stream has {count} segments after the last scale");
    Ok(format!("{:.0} flights/s written", FLIGHTS as f64 / number(&printed, "seconds")?))
}

fn read(places: &Places, controller: &str, scratch: &Path) -> Result<String> {
    let started = Instant::now();
    let files: Vec<_> = (0..READERS).map(|i| scratch.join(format!("reader-{i}.tsv"))).collect();
    let mut readers = Vec::new();
    for (i, file) in files.iter().enumerate() {
        let reader = format!("reader-{i}");
        let out = file.to_str().context("the path of a reader's file is text")?;
        let arguments = ["--scope", SCOPE, "--stream", STREAM, "--group", "flight-readers", "--reader", &reader];
        let arguments = [&arguments[..], &["--out", out]].concat();
        readers.push(Driver::start(Client::Python.command(places, controller, "flights-read", &arguments))?);
    }
    // Until all are read, and then on for a while: what is delivered twice shows.
    let quiet = Duration::from_secs(5);
    let (mut count, mut last) = (0, Instant::now());
    loop {
        std::thread::sleep(Duration::from_millis(50));
        let now: u64 = readers.iter_mut().map(Driver::progress).sum();
        if now != count {
            (count, last) = (now, Instant::now());
        }
        if count >= FLIGHTS as u64 && last.elapsed() > quiet {
            break;
        }
        ensure!(last.elapsed() < Duration::from_secs(90), "{count} of {FLIGHTS} flights were read, then none any more");
        ensure!(started.elapsed() < LIMIT, "{count} of {FLIGHTS} flights were read within {LIMIT:?}");
        if readers.iter_mut().any(Driver::has_ended) {
            break; // finish() says why
        }
    }
    let elapsed = last.duration_since(started);
    for reader in readers {
        reader.finish(Duration::from_secs(60))?;
    }
    let texts: Vec<String> = files
        .iter()
        .map(|file| std::fs::read_to_string(file).with_context(|| format!("read {}", file.display())))
        .collect::<Result<_>>()?;
    let mut deliveries = Vec::new();
    let mut shares = Vec::new();
    for text in &texts {
        let read = parse_deliveries(text)?;
        shares.push(read.len());
        deliveries.extend(read);
    }
    let file = std::fs::read_to_string(places.flights()).context("read the flights")?;
    let lines: Vec<&str> = file.lines().collect();
    let carriers = check(&lines, deliveries)?;
    Ok(format!(
        "{:.0} flights/s read, {} carriers, shares {shares:?}",
        FLIGHTS as f64 / elapsed.as_secs_f64(),
        carriers.len()
    ))
}
