//! Start, health, stop: what an operator and a supervisor see.

use super::{Case, Outcome, in_scratch, run_cases};
use crate::driver::{Client, Driver};
use crate::prepare::Places;
use crate::raw::{Raw, code, frame, text};
use crate::server::{Launch, Server};
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// Runs it.
///
/// # Errors
/// When the suite's directory cannot be made.
pub fn run(places: &Places) -> Result<Outcome> {
    in_scratch(places, "lifecycle", |scratch| {
        let launch = |name: &str| -> Result<Launch> {
            let directory = scratch.join(name);
            std::fs::create_dir_all(&directory).context("make a directory")?;
            Ok(Launch::new(places.server(), &directory))
        };
        let cases = vec![
            Case::new("lifecycle: it starts on an empty directory, says so and answers", || start(&launch("start")?)),
            Case::new("lifecycle: SIGTERM and SIGINT end it with status 0", || {
                let launch = launch("signals")?;
                let by_term = launch.start()?.end_by(Signal::TERM)?;
                let by_int = launch.start()?.end_by(Signal::INT)?;
                Ok(format!("{} ms and {} ms", by_term.as_millis(), by_int.as_millis()))
            }),
            Case::new("lifecycle: it stops in time under load and with readers waiting at the tail", || {
                stop_under_load(places, &launch("load")?, scratch)
            }),
            Case::new("lifecycle: streams and events are there after a graceful restart", || {
                restart(places, &launch("restart")?)
            }),
        ];
        Ok(run_cases(cases, 2))
    })
}

fn start(launch: &Launch) -> Result<String> {
    let server = launch.start()?;
    let controller = &server.ready.controller;
    // Where the greeting goes is the server's choice; that it is there before anybody needs it is not.
    let said = server.banner.join("\n") + &server.log_tail();
    let for_python = said.lines().filter(|line| line.contains("python") || line.contains("pravega")).count();
    ensure!(for_python >= 3, "no three lines for a Python client in {said}");
    ensure!(said.contains(controller.as_str()), "the address of the controller is not in {said}");
    for path in ["/healthz", "/readyz", "/metrics"] {
        let (status, body) = server.get(path)?;
        ensure!(status == 200, "GET {path} answers {status}: {body}");
    }
    let (status, _) = server.get("/no/such/page")?;
    ensure!(status == 404, "GET of a page that does not exist answers {status}");
    let (_, metrics) = server.get("/metrics")?;
    ensure!(metrics.lines().any(|line| !line.starts_with('#') && line.contains(' ')), "no metric in {metrics:?}");
    let mode = std::fs::metadata(&launch.data).context("the data directory")?.permissions().mode() & 0o777;
    ensure!(mode == 0o700, "the data directory has the mode {mode:o}");
    let data = launch.data.canonicalize().context("the data directory")?;
    ensure!(Path::new(&server.ready.data) == data, "the ready line says data={}", server.ready.data);
    let (ready, memory) = (server.ready_after.as_millis(), server.resident_bytes()? >> 20);
    server.stop()?;
    Ok(format!("ready after {ready} ms, {memory} MiB resident"))
}

fn stop_under_load(places: &Places, launch: &Launch, scratch: &Path) -> Result<String> {
    let server = launch.start()?;
    let controller = server.ready.controller.clone();
    let rust = |name: &str, arguments: &[&str]| {
        let arguments = [&["--scope", "load", "--stream", "ledger"][..], arguments].concat();
        Client::Rust.command(places, &controller, name, &arguments)
    };
    Driver::run(rust("setup", &["--segments", "1"]), Duration::from_secs(60))?;
    let ledger = scratch.join("load-ledger.txt");
    let path = ledger.to_str().context("the path of the ledger is text")?;
    let mut writer = Driver::start(rust("ledger-write", &["--ledger", path]))?;
    writer.wait_for("the first acknowledgements", Duration::from_secs(60), |value| {
        value.get("progress")?.as_u64().filter(|progress| *progress > 100)
    })?;
    // Readers that wait for bytes that do not come: far behind the tail nothing is, so they wait at it.
    let mut waiting = Vec::new();
    Driver::run(
        Client::Rust.command(places, &controller, "setup", &["--scope", "load", "--stream", "idle"]),
        Duration::from_secs(60),
    )?;
    for _ in 0..10 {
        let mut raw = Raw::hello(&server.ready.segment_store)?;
        let segment = text("load/idle/0.#epoch.0");
        let request = [&segment[..], &0_i64.to_be_bytes(), &1000_i32.to_be_bytes(), &text(""), &1_i64.to_be_bytes()];
        raw.send(&frame(code::READ_SEGMENT, &request.concat()))?;
        waiting.push(raw);
    }
    std::thread::sleep(Duration::from_millis(300));
    let took = server.stop()?;
    // The writer is dropped and thereby killed: without a server it would wait for ever.
    drop(writer);
    Ok(format!("{} ms", took.as_millis()))
}

fn restart(places: &Places, launch: &Launch) -> Result<String> {
    let fill = |server: &Server, arguments: &[&str]| {
        let command = Client::Rust.command(places, &server.ready.controller, "fill", arguments);
        Driver::run(command, Duration::from_secs(120))
    };
    let server = launch.start()?;
    fill(&server, &["--scope", "kept", "--stream", "kept", "--mib", "4", "--event", "1024"])?;
    server.stop()?;
    let server = launch.start()?;
    let out = launch.data.with_extension("read");
    let path = out.to_str().context("the path of the payloads is text")?;
    let arguments = ["--scope", "kept", "--stream", "kept", "--out", path, "--expect", "4096"];
    let command = Client::Rust.command(places, &server.ready.controller, "ledger-read", &arguments);
    let printed = Driver::run(command, Duration::from_secs(120))?;
    let read = crate::driver::number(&printed, "read")?;
    ensure!(read == 4096.0, "{read} of 4096 events are there after a restart");
    let ready = server.ready_after.as_millis();
    server.stop()?;
    Ok(format!("ready after {ready} ms"))
}
