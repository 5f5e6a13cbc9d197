//! `headwater bench` itself: it measures a running server, its reports are whole, and it has no figures when it should
//! have none. How fast anything is, is not tested here, but for the time until a killed server is there again.

use super::{Case, Outcome, in_scratch, run_cases};
use crate::prepare::Places;
use crate::server::{Launch, Server};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

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
                    let (ready, journal) = (number(&report, "/recovery_ms")?, number(&report, "/journal_bytes")?);
                    // The one figure that is a promise (T25), eight times what an idle machine needs.
                    ensure!(ready <= 2000.0, "ready only after {ready} ms");
                    Ok(format!("ready after {ready:.0} ms, journal {:.0} MiB", journal / f64::from(1 << 20)))
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
            Case::new("bench: a server that stores nothing yields no figures", || without_storage(places)),
        ];
        // One after the other: an open loop that falls behind is invalid, whoever slowed it down.
        let outcome = run_cases(cases, 1);
        server.stop()?;
        Ok(outcome)
    })
}

fn write(places: &Places, server: &Server, scratch: &Path, load: &[&str]) -> Result<Value> {
    bench(places, "write", server, scratch, load)
}

fn bench(places: &Places, command: &str, server: &Server, scratch: &Path, load: &[&str]) -> Result<Value> {
    let output = Command::new(places.server())
        .args(["bench", command, "--json", "--server", &server.ready.segment_store, "--metrics", &server.ready.http])
        .arg("--data-dir")
        .arg(scratch)
        .args(load)
        .output()
        .with_context(|| format!("run headwater bench {command}"))?;
    whole(&output)
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
    ensure!(output.status.code() == Some(1), "it ended with {}", output.status);
    ensure!(output.stdout.is_empty(), "it printed {}", String::from_utf8_lossy(&output.stdout));
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains("ReadSegment"), "it did not say why: {said}");
    Ok(String::new())
}
