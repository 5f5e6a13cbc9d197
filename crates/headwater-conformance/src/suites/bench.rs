//! `headwater bench` itself: it measures a running server, its reports are whole, and it has no figures when it should
//! have none. How fast anything is, is not tested here, but for the time until a killed server is there again.

use super::{Case, Outcome, in_scratch, run_cases};
use crate::liar::{Liar, Lie};
use crate::prepare::Places;
use crate::server::{Launch, Server};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// A run without figures.
const DOUBT: i32 = 1;
/// A run that makes no sense.
const USAGE: i32 = 64;

/// Runs it.
///
/// # Errors
/// When the suite's directory cannot be made or the server does not start.
pub fn run(places: &Places) -> Result<Outcome> {
    in_scratch(places, "bench", |scratch| {
        let server = Launch::new(places.server(), scratch).start()?;
        let cases = vec![
            Case::new("bench: a closed loop is verified, audited and reported whole", || {
                let load = ["--writers", "2", "--segments", "5", "--seconds", "0.5", "--warmup", "0.2"];
                let report = write(places, &server, scratch, &load)?;
                ensure!(number(&report, "/events_per_second")? > 0.0, "no events in {report}");
                ensure!(number(&report, "/events_verified")? > 0.0, "nothing was verified in {report}");
                ensure!(number(&report, "/audit/server_syncs")? > 0.0, "no syncs in {report}");
                Ok(format!("{} events", number(&report, "/events_verified")?))
            }),
            Case::new("bench: an open loop writes what was due and nothing else", || {
                let load = ["--rate", "200", "--size", "100", "--seconds", "1", "--warmup", "0.5"];
                let report = write(places, &server, scratch, &load)?;
                // A run that is valid may be one event in a hundred short.
                let (events, timed) = (number(&report, "/events_verified")?, number(&report, "/latency/count")?);
                ensure!((297.0..=300.0).contains(&events), "not 300 events in {report}");
                ensure!((197.0..=200.0).contains(&timed), "not 200 latencies in {report}");
                Ok(format!("ack p50 {} µs", number(&report, "/latency/p50_us")?))
            }),
            Case::new("bench: readers at the tail see everything", || {
                let load = ["--rate", "200", "--seconds", "1", "--warmup", "0.2", "--readers", "2"];
                let report = bench(places, "tail", &server, scratch, &load)?;
                let (written, read) = (number(&report, "/acknowledged/count")?, number(&report, "/read/count")?);
                ensure!(written > 0.0 && read == 2.0 * written, "two readers did not see all in {report}");
                Ok(String::new())
            }),
            Case::new("bench: one reader and many at the tail of one segment are compared", || {
                let report = bench(places, "fanout", &server, scratch, FANOUT)?;
                spread(&report, "/delivered_ratio", 1)?;
                spread(&report, "/read_p99_ratio", 1)?;
                let (one, all) = (number(&report, "/one/readers")?, number(&report, "/all/readers")?);
                ensure!((one, all) == (1.0, 3.0), "not one reader and three in {report}");
                // Paced runs alone: 200 a second for half a second, once for one reader and once for three.
                ensure!(number(&report, "/events_verified")? > 390.0, "not all was verified in {report}");
                Ok(format!("{:.1} × as much is delivered", spread(&report, "/delivered_ratio", 1)?))
            }),
            Case::new("bench: transactions are committed, read back and compared with plain writes", || {
                let report = bench(places, "txn", &server, scratch, &with_controller(&server, TXN))?;
                let (events, aborted) = (number(&report, "/events_verified")?, number(&report, "/aborted")?);
                ensure!(events > 0.0 && events % 10.0 == 0.0, "not whole transactions of 10 events in {report}");
                ensure!(aborted == 4.0, "not one aborted transaction of each writer and round in {report}");
                let commits = spread(&report, "/transactions/per_second", 2)?;
                let written = spread(&report, "/transactions/events_per_second", 2)?;
                ensure!((written - 10.0 * commits).abs() < 1e-6 * written, "not 10 events each in {report}");
                let (all, part) = (spread(&report, "/transactions/p50_us", 2)?, spread(&report, "/commit_p50_us", 2)?);
                ensure!(all >= part, "committing takes longer than the whole in {report}");
                spread(&report, "/plain/per_second", 2)?;
                Ok(format!("{commits:.0} commits/s"))
            }),
            Case::new("bench: transactions come when they are due", || {
                let load = ["--rate", "20", "--rounds", "1", "--seconds", "1", "--warmup", "0", "--events", "3"];
                let report = bench(places, "txn", &server, scratch, &with_controller(&server, &load))?;
                // Of 20 transactions and of 20 plain appends, none may be missing: a hundredth of 20 is less than one.
                ensure!(number(&report, "/events_verified")? == 120.0, "not 2 × 20 × 3 events in {report}");
                Ok(String::new())
            }),
            Case::new("bench: keys of a table are put, updated, got and compared", || {
                let report = bench(places, "kv", &server, scratch, KV)?;
                for operation in ["put", "update", "get"] {
                    spread(&report, &format!("/{operation}/per_second"), 1)?;
                    spread(&report, &format!("/{operation}/p99_us"), 1)?;
                    spread(&report, &format!("/{operation}/paced_p99_us"), 1)?;
                }
                // Each key at the end, and some 100 paced gets.
                ensure!(number(&report, "/values_verified")? > 2090.0, "not all was verified in {report}");
                Ok(format!("{:.0} puts/s", spread(&report, "/put/per_second", 1)?))
            }),
            Case::new("bench: no event is lost or doubled where a stream is split and merged", || {
                let report = bench(places, "scale", &server, scratch, &with_controller(&server, SCALE))?;
                ensure!(number(&report, "/scales")? == 3.0, "not three scales in {report}");
                // One of the quiet stream; 1, then 2, then 1, then 2 of the other.
                ensure!(number(&report, "/segments_verified")? == 7.0, "not seven segments in {report}");
                let events = number(&report, "/events_verified")?;
                ensure!((990.0..=1000.0).contains(&events), "not 2 × 500 events in {report}");
                let (typical, longest) = (spread(&report, "/scale_p50_ms", 1)?, spread(&report, "/scale_max_ms", 1)?);
                ensure!(typical <= longest, "the longest scale is not the longest in {report}");
                let pause = spread(&report, "/scaling/longest_pause_ms", 1)?;
                // Events of each of 16 keys are due 32 ms apart.
                ensure!(pause >= 25.0, "no pause of a key is that short in {report}");
                Ok(format!("longest pause {pause:.0} ms"))
            }),
            Case::new("bench: checkpoints are made beside the acknowledgements that are called disturbed", || {
                let report = bench(places, "mixed", &server, scratch, BULK)?;
                let checkpoints = number(&report, "/checkpoints")?;
                ensure!(checkpoints > 0.0, "no checkpoint in {report}");
                Ok(format!("{checkpoints} checkpoints"))
            }),
            Case::new("bench: writers are measured alone and beside readers of old data", || {
                let report = bench(places, "mixed", &server, scratch, MIXED)?;
                for figure in ["/p99_ratio", "/throughput_ratio", "/read_bytes_per_second_paced"] {
                    spread(&report, figure, 1)?;
                }
                let old = number(&report, "/old_bytes")?;
                ensure!(old > 0.9 * 8.0 * f64::from(1 << 20), "not 8 MiB of old data in {report}");
                ensure!(number(&report, "/events_verified")? > 190.0, "not all was verified in {report}");
                Ok(String::new())
            }),
            Case::new("bench: a store that lies yields no figures, whatever is measured", || {
                let (txn, scale) = (with_controller(&server, TXN), with_controller(&server, SCALE));
                for (command, load, lie, words) in [
                    ("fanout", FANOUT, Lie::Repeat, "came again"),
                    ("fanout", FANOUT, Lie::Flip, "was changed"),
                    ("txn", &txn[..], Lie::Repeat, "came again"),
                    ("txn", &txn[..], Lie::Longer, "bytes instead of"),
                    ("kv", KV, Lie::Flip, "does not have the value that was put"),
                    ("kv", KV, Lie::Unconditional, "on condition of a version"),
                    ("scale", &scale[..], Lie::Repeat, "came again"),
                    ("scale", &scale[..], Lie::Longer, "bytes instead of"),
                    ("mixed", MIXED, Lie::Flip, "was changed"),
                ] {
                    let liar = Liar::start(&server.ready.segment_store, lie)?;
                    let output = command_line(places, command, &liar.address(), &server, scratch, load).output();
                    let output = output.with_context(|| format!("run headwater bench {command}"))?;
                    without_figures(&output, DOUBT, words).with_context(|| format!("bench {command}, {lie:?}"))?;
                }
                Ok(String::new())
            }),
            Case::new("bench: settings that make no sense are named before anything runs", || {
                for (command, load, flag) in [
                    ("fanout", ["--readers", "1"], "--readers"),
                    ("txn", ["--events", "0"], "--events"),
                    ("kv", ["--keys", "10"], "--keys"),
                    ("scale", ["--every", "60"], "--every"),
                    ("mixed", ["--beside=readers", "--mib=0"], "--mib"),
                ] {
                    // Nobody listens there.
                    let output = command_line(places, command, "127.0.0.1:1", &server, scratch, &load).output();
                    let output = output.with_context(|| format!("run headwater bench {command}"))?;
                    without_figures(&output, USAGE, flag)?;
                }
                Ok(String::new())
            }),
            Case::new(
                "bench: what was acknowledged before kill -9 is there within two seconds of the next start",
                || {
                    let output = Command::new(places.server())
                        .args(["bench", "recover", "--mib", "256", "--json", "--data-dir"])
                        .arg(scratch)
                        .output()
                        .context("run headwater bench recover")?;
                    let report = whole(&output)?;
                    ensure!(number(&report, "/events_verified")? == 262_144.0, "not 262144 events in {report}");
                    let (ready, replayed) = (number(&report, "/recovery_ms")?, number(&report, "/replayed_bytes")?);
                    ensure!(replayed >= f64::from(32 << 20), "hardly anything was left to recover in {report}");
                    // The one figure that is a promise (T25), eight times what an idle machine needs.
                    ensure!(ready <= 2000.0, "ready only after {ready} ms");
                    Ok(format!("ready after {ready:.0} ms, {:.0} MiB in no checkpoint", replayed / f64::from(1 << 20)))
                },
            ),
            Case::new("bench: our client and the genuine one are measured by the same words", || {
                let genuine = format!("rust={}", places.genuine_rust().display());
                let output = Command::new(places.server())
                    .args(["bench", "clients", "--json", "--sizes", "1000", "--seconds", "0.2", "--rounds", "1"])
                    .args(["--read-mib", "1", "--with", &genuine, "--data-dir"])
                    .arg(scratch)
                    .output()
                    .context("run headwater bench clients")?;
                let report = whole(&output)?;
                for client in ["headwater", "embedded", "rust"] {
                    let read = number(&report, &format!("/sizes/1000/{client}/0/read"))?;
                    ensure!(read == 1049.0, "{client} did not read 1 MiB of events in {report}");
                    ensure!(
                        number(&report, &format!("/sizes/1000/{client}/0/written"))? > 0.0,
                        "no events in {report}"
                    );
                }
                Ok(String::new())
            }),
            Case::new("bench: all that a genuine client was told to be stored is stored", || {
                let output = Command::new(places.server())
                    .args(["bench", "genuine", "--json", "--seconds", "0.5", "--client"])
                    .arg(places.genuine_rust())
                    .arg("--data-dir")
                    .arg(scratch)
                    .output()
                    .context("run headwater bench genuine")?;
                let report = whole(&output)?;
                let stored = number(&report, "/events_stored")?;
                ensure!(stored > 0.0 && number(&report, "/ratio")? > 0.0, "no events in {report}");
                Ok(format!("{stored} events"))
            }),
            Case::new("bench: a server that stores nothing yields no figures", || without_storage(places)),
        ];
        // One after the other: an open loop that falls behind is invalid, whoever slowed it down.
        let outcome = run_cases(cases, 1);
        server.stop()?;
        Ok(outcome)
    })
}

/// One round of each mode, as short as it can be.
const FANOUT: &[&str] = &["--readers", "3", "--rate", "200", "--rounds", "1", "--seconds", "0.4", "--warmup", "0.1"];
const TXN: &[&str] =
    &["--events", "10", "--writers", "2", "--segments", "2", "--rounds", "2", "--seconds", "0.4", "--warmup", "0.1"];
const KV: &[&str] = &["--keys", "2000", "--rate", "200", "--rounds", "1", "--seconds", "0.4", "--warmup", "0.1"];
const SCALE: &[&str] = &["--rate", "500", "--every", "0.3", "--rounds", "1", "--seconds", "0.9", "--warmup", "0.1"];
/// A container makes a checkpoint of 16 MiB.
const BULK: &[&str] = &["--rate", "200", "--bulk", "100", "--bulk-mib", "64", "--seconds", "1"];
const MIXED: &[&str] =
    &["--beside", "readers", "--mib", "8", "--rate", "200", "--rounds", "1", "--seconds", "0.4", "--warmup", "0.1"];

fn with_controller<'a>(server: &'a Server, load: &[&'a str]) -> Vec<&'a str> {
    [&["--controller", &server.ready.controller], load].concat()
}

/// A figure of so many rounds, more than nothing: its median.
fn spread(report: &Value, path: &str, rounds: usize) -> Result<f64> {
    let at = |part: &str| number(report, &format!("{path}/{part}"));
    let (least, median, greatest) = (at("least")?, at("median")?, at("greatest")?);
    let found = report.pointer(&format!("{path}/rounds")).and_then(Value::as_array).map(Vec::len);
    ensure!(found == Some(rounds), "not {rounds} rounds of {path} in {report}");
    ensure!(0.0 < least && least <= median && median <= greatest, "{path} makes no sense in {report}");
    Ok(median)
}

fn write(places: &Places, server: &Server, scratch: &Path, load: &[&str]) -> Result<Value> {
    bench(places, "write", server, scratch, load)
}

fn bench(places: &Places, command: &str, server: &Server, scratch: &Path, load: &[&str]) -> Result<Value> {
    let output = command_line(places, command, &server.ready.segment_store, server, scratch, load).output();
    whole(&output.with_context(|| format!("run headwater bench {command}"))?)
}

/// `segment_store` is the server's, or somebody's who stands before it.
fn command_line(
    places: &Places,
    command: &str,
    segment_store: &str,
    server: &Server,
    scratch: &Path,
    load: &[&str],
) -> Command {
    let mut line = Command::new(places.server());
    line.args(["bench", command, "--json", "--server", segment_store, "--metrics", &server.ready.http]);
    line.arg("--data-dir").arg(scratch).args(load);
    line
}

/// That a run failed, printed nothing, and said why.
fn without_figures(output: &Output, code: i32, why: &str) -> Result<()> {
    ensure!(output.status.code() == Some(code), "it ended with {}", output.status);
    ensure!(output.stdout.is_empty(), "it printed {}", String::from_utf8_lossy(&output.stdout));
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains(why), "it did not say why: {said}");
    Ok(())
}

/// The report of a run that ended well.
fn whole(output: &Output) -> Result<Value> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "it ended with {}: {said}", output.status);
    serde_json::from_slice(&output.stdout).context("the report is one JSON object")
}

fn number(report: &Value, path: &str) -> Result<f64> {
    report.pointer(path).and_then(Value::as_f64).with_context(|| format!("no number {path} in {report}"))
}

/// Ends with its owner.
struct Null(Child);

impl Drop for Null {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What was acknowledged cannot be read back, which must be an error and nothing else.
fn without_storage(places: &Places) -> Result<String> {
    let mut null = Command::new(places.server())
        .args(["bench", "null", "--controller", "127.0.0.1:0", "--segment-store", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .map(Null)
        .context("start headwater bench null")?;
    let mut line = String::new();
    BufReader::new(null.0.stdout.take().context("its standard output")?).read_line(&mut line)?;
    let address = line.split_whitespace().find_map(|field| field.strip_prefix("segment-store="));
    let address = address.with_context(|| format!("no address in {line:?}"))?;
    let output = Command::new(places.server())
        .args(["bench", "write", "--json", "--seconds", "0.2", "--warmup", "0", "--server", address])
        .output()
        .context("run headwater bench write")?;
    without_figures(&output, DOUBT, "ReadSegment")?;
    Ok(String::new())
}
