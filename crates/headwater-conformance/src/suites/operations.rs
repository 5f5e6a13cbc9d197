//! What an operator does: check, doctor, backup, restore; with the real binary.

use super::{Case, Outcome, in_scratch, run_cases};
use crate::driver::{Client, Driver, number};
use crate::prepare::Places;
use crate::server::{Launch, Server, wait};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What was looked at is doubtful.
const DOUBT: i32 = 1;
/// Somebody else has it.
const CANNOT_CREATE: i32 = 73;
/// It is not there.
const NO_INPUT: i32 = 66;
/// The bytes are not what was written.
const IO_OR_INTEGRITY: i32 = 74;
/// It is not what it should be, or newer.
const CONFIG: i32 = 78;

/// None of these commands has much to do here.
const ENDS_WITHIN: Duration = Duration::from_secs(60);
/// Events of a filled stream.
const EVENTS: &str = "4096";

/// Runs it.
///
/// # Errors
/// When the suite's directory cannot be made.
pub fn run(places: &Places) -> Result<Outcome> {
    in_scratch(places, "operations", |scratch| {
        let launch = |name: &str| -> Result<Launch> {
            let directory = scratch.join(name);
            std::fs::create_dir_all(&directory).context("make a directory")?;
            Ok(Launch::new(places.server(), &directory))
        };
        let cases = vec![
            Case::new(
                "operations: check refuses a store in use, calls a stopped one sound and finds a flipped bit",
                || check(places, &launch("check")?),
            ),
            Case::new("operations: doctor says what it found, and whether it is bad", || doctor(&launch("doctor")?)),
            Case::new("operations: a backup under load restores to all that was acknowledged before it", || {
                backup(places, &launch("backup")?)
            }),
        ];
        Ok(run_cases(cases, 2))
    })
}

/// Exit code and standard output of one command; its standard error if the code is another than expected.
fn ends(binary: &Path, arguments: &[&str], expected: i32) -> Result<String> {
    ends_in(binary, arguments, &[], expected)
}

/// [`ends`] with more environment variables.
pub(super) fn ends_in(
    binary: &Path,
    arguments: &[&str],
    environment: &[(String, String)],
    expected: i32,
) -> Result<String> {
    let mut command = Command::new(binary);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
    if wait(&mut child, ENDS_WITHIN)?.is_none() {
        let _ = child.kill();
        let _ = child.wait();
        anyhow::bail!("not ended within {ENDS_WITHIN:?}: {command:?}");
    }
    let output = child.wait_with_output().context("collect what it said")?;
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let code = output.status.code().with_context(|| format!("{command:?} ended by a signal\n{errors}"))?;
    ensure!(code == expected, "{command:?} ended with {code}, expected {expected}\n{said}{errors}");
    ensure!(code == 0 || !said.trim().is_empty() || errors.lines().count() == 1, "{command:?} said\n{errors}");
    Ok(said.into_owned())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the path is text")
}

fn fill(places: &Places, server: &Server) -> Result<()> {
    let arguments = ["--scope", "kept", "--stream", "kept", "--mib", "4", "--event", "1024"];
    let command = Client::Rust.command(places, &server.ready.controller, "fill", &arguments);
    Driver::run(command, Duration::from_secs(120)).map(|_| ())
}

/// Files of a directory whose names end so.
fn files(directory: &Path, suffix: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry.context("list a directory")?.path();
        if path.is_dir() {
            found.extend(files(&path, suffix)?);
        } else if path.to_string_lossy().ends_with(suffix) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn check(places: &Places, launch: &Launch) -> Result<String> {
    let (binary, data) = (&launch.binary, text(&launch.data)?);
    let server = launch.start()?;
    fill(places, &server)?;
    ends(binary, &["check", data], CANNOT_CREATE)?;
    ends(binary, &["check", data, "--repair"], CANNOT_CREATE)?;
    // As after a crash: what that leaves behind must be no doubt.
    server.kill()?;
    let said = ends(binary, &["check", data], 0)?;
    ensure!(said.contains("sound"), "{said}");
    let left = ["catalogue-0000/0000000000000777.run", "journal/thesis.txt"];
    for file in left {
        std::fs::write(launch.data.join(file), "left over").context("leave a file over")?;
    }
    ends(binary, &["check", data], DOUBT)?;
    let said = ends(binary, &["check", data, "--repair", "--json"], 0)?;
    let json: Value = serde_json::from_str(&said).context("what check --repair --json says")?;
    let repairs = json["repairs"].as_array().context("repairs")?;
    for file in left {
        let repair =
            repairs.iter().find(|repair| repair["file"] == file).with_context(|| format!("{file} in {said}"))?;
        let aside = launch.data.join(repair["aside"].as_str().context("a path")?);
        let is_moved = !launch.data.join(file).exists() && aside.exists();
        ensure!(is_moved, "{file} was not set aside: {said}");
    }
    ensure!(json["verdict_before"] == "doubtful" && json["verdict"] == "sound", "{said}");
    launch.start()?.stop()?;
    let said = ends(binary, &["check", data, "--json"], 0)?;
    let json: Value = serde_json::from_str(&said).context("what check --json says")?;
    ensure!(json["format"] == 1 && json["verdict"] == "sound" && json["summary"]["closed"] == true, "{said}");

    let journal = files(&launch.data.join("journal"), ".log")?;
    let victim = journal.first().context("there is a journal")?;
    let mut bytes = std::fs::read(victim).context("read a journal file")?;
    bytes[3 * 4096 + 70] ^= 4;
    std::fs::write(victim, &bytes).context("flip a bit")?;
    let name = victim.strip_prefix(&launch.data).context("a file of the store")?.to_string_lossy().into_owned();
    let said = ends(binary, &["check", data, "--repair"], DOUBT)?;
    ensure!(said.contains("nothing repaired"), "{said}");
    ensure!(std::fs::read(victim).context("read a journal file")? == bytes, "a doubtful store was changed");
    let said = ends(binary, &["check", data], DOUBT)?;
    ensure!(
        said.lines().any(|line| line.starts_with("doubt") && line.contains(&name)),
        "{name} is not named in\n{said}"
    );
    let said = ends(binary, &["check", data, "--json"], DOUBT)?;
    let json: Value = serde_json::from_str(&said).context("what check --json says")?;
    let named = json["findings"].as_array().is_some_and(|all| all.iter().any(|one| one["file"] == name.as_str()));
    ensure!(json["verdict"] == "doubtful" && named, "{said}");
    ends(binary, &["check", "/no/such/directory"], NO_INPUT)?;
    Ok(String::new())
}

fn doctor(launch: &Launch) -> Result<String> {
    let said = ends(&launch.binary, &["doctor", text(&launch.data)?, "--json"], 0)?;
    let json: Value = serde_json::from_str(&said).context("what doctor --json says")?;
    let findings = json["findings"].as_array().context("findings")?;
    for code in ["file-system", "sync", "free-space", "open-files", "memory", "port", "clock"] {
        ensure!(findings.iter().any(|finding| finding["code"] == code), "{code} is missing in {said}");
    }
    for finding in findings {
        let (is_fine, has_advice) = (finding["severity"] == "fine", finding["advice"] != "");
        ensure!(is_fine != has_advice, "advice goes with trouble: {finding}");
    }
    ensure!(!launch.data.exists(), "the doctor made the data directory");
    ends(&launch.binary, &["doctor", "/proc/headwater-conformance"], DOUBT)?;
    let sync = findings.iter().find(|finding| finding["code"] == "sync").map(|finding| finding["what"].to_string());
    Ok(sync.unwrap_or_default())
}

fn backup(places: &Places, launch: &Launch) -> Result<String> {
    let binary = &launch.binary;
    let at = |name: &str| launch.data.with_extension(name);
    let (saved, again, restored) = (at("saved"), at("again"), at("restored"));
    let server = launch.start()?;
    fill(places, &server)?;
    // Somebody writes all the time.
    let controller = server.ready.controller.clone();
    let rust = |name: &str, arguments: &[&str]| {
        let arguments = [&["--scope", "load", "--stream", "ledger"][..], arguments].concat();
        Client::Rust.command(places, &controller, name, &arguments)
    };
    Driver::run(rust("setup", &["--segments", "2"]), Duration::from_secs(60))?;
    let ledger = at("ledger");
    let mut writer = Driver::start(rust("ledger-write", &["--ledger", text(&ledger)?]))?;
    let progress = |value: &Value| value.get("progress")?.as_u64().filter(|progress| *progress > 100);
    writer.wait_for("the first acknowledgements", Duration::from_secs(60), progress)?;

    let address = format!("http://{}", server.ready.http);
    let said = ends(binary, &["backup", "--server", &address, text(&saved)?], 0)?;
    ends(binary, &["backup", "--server", &address, text(&saved)?], CONFIG)?;
    ends(binary, &["backup", "--server", &address, text(&again)?], 0)?;
    drop(writer);
    server.kill()?;
    ends(binary, &["backup", "--server", &address, text(&at("nobody"))?], CANNOT_CREATE)?;

    ends(binary, &["restore", text(&saved)?, text(&restored)?], 0)?;
    ends(binary, &["restore", text(&saved)?, text(&restored)?], CONFIG)?;
    let mut of_restored = launch.clone();
    of_restored.data.clone_from(&restored);
    let server = of_restored.start().context("start on the restored store")?;
    let out = at("read");
    let arguments = ["--scope", "kept", "--stream", "kept", "--out", text(&out)?, "--expect", EVENTS];
    let command = Client::Rust.command(places, &server.ready.controller, "ledger-read", &arguments);
    let read = number(&Driver::run(command, Duration::from_secs(120))?, "read")?;
    ensure!(read == 4096.0, "{read} of 4096 events are there after a restore");
    server.stop()?;
    ends(binary, &["check", text(&restored)?], 0)?;

    // What is damaged or newer is refused before anything is made.
    let (damaged, newer) = (at("from-damaged"), at("from-newer"));
    let log = files(&again.join("journal"), ".log")?;
    let log = log.first().context("a backup has a journal")?;
    let mut bytes = std::fs::read(log).context("read a file of the backup")?;
    bytes[5000] ^= 1;
    std::fs::write(log, bytes).context("damage the backup")?;
    ends(binary, &["restore", text(&again)?, text(&damaged)?], IO_OR_INTEGRITY)?;
    let list = saved.join("backup.json");
    let json = std::fs::read_to_string(&list).context("read the backup's list")?;
    ensure!(json.contains("\"format\": 1"), "{json}");
    std::fs::write(&list, json.replace("\"format\": 1", "\"format\": 9999")).context("make it newer")?;
    ends(binary, &["restore", text(&saved)?, text(&newer)?], CONFIG)?;
    ensure!(!damaged.exists() && !newer.exists(), "a refused restore made its directory");
    Ok(said.lines().last().unwrap_or_default().split(", in ").next().unwrap_or_default().to_owned())
}
