//! Every feature the genuine Rust and Python clients have, one driver command each, several at a time on one server.

use super::{Case, Outcome, in_scratch, run_cases};
use crate::compatibility::Gathered;
use crate::driver::{Client, Driver};
use crate::prepare::Places;
use crate::server::{Addresses, Launch};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// A driver that takes longer hangs. Rebalancing alone keeps the clients waiting for tens of seconds.
const LIMIT: Duration = Duration::from_secs(240);
/// The client may sit out a pause of ten seconds between two attempts.
const PROGRESS_WITHIN: Duration = Duration::from_secs(60);

/// Most of the time the drivers wait for the clients' own timers, so several run at once.
const AT_ONCE: usize = 4;

/// Commands of the drivers, and the groups of features that they belong to, which are those of the Java client's tests.
const RUST: &[(&str, &str)] = &[
    // Two runs of the server long, so it begins before all others.
    ("retention", "retention"),
    ("elastic", "scaling"),
    ("reader-group", "reader groups"),
    ("txn", "transactions"),
    ("txn-ends", "transactions"),
    ("streams", "stream manager"),
    ("truncate", "stream manager"),
    ("writer", "event writers"),
    ("jumbo", "event writers"),
    ("scaling", "scaling"),
    ("table", "key-value tables"),
    ("synchronizer", "revisioned streams and state synchronizers"),
    ("index", "index streams"),
    ("byte", "byte streams"),
];

const PYTHON: &[(&str, &str)] = &[
    ("retention", "retention"),
    ("elastic", "scaling"),
    // A lease of the wheel and its half long.
    ("txn-ends", "transactions"),
    ("reader-group", "reader groups"),
    ("cuts", "reader groups"),
    ("txn", "transactions"),
    ("tags", "stream manager"),
    ("writer", "event writers"),
    ("scaling", "scaling"),
    ("byte", "byte streams"),
];

/// Runs the features of one client, all of them or those whose name is in `only`.
///
/// # Errors
/// When the server does not start.
pub fn run(places: &Places, client: Client, only: &[String]) -> Result<Outcome> {
    let name = client.short_name();
    let commands = match client {
        Client::Rust => RUST,
        Client::Python => PYTHON,
    };
    in_scratch(places, name, |scratch| {
        let mut launch = Launch::new(places.server(), scratch);
        // Drivers wait for retention to run, and this is the shortest time from one run to the next.
        launch.extra = ["--retention-minutes", "1"].map(str::to_owned).to_vec();
        let server = launch.start()?;
        let controller = &server.ready.controller;
        let found = &Gathered::default();
        let wanted = |command: &str| only.is_empty() || only.iter().any(|o| o == command);
        let mut cases: Vec<Case<'_>> = commands
            .iter()
            .filter(|(command, _)| wanted(command))
            .map(|(command, group)| {
                Case::new(format!("{name} {command}: {group}"), move || {
                    let scope = format!("{name}-{command}");
                    checks(found, client, command, group, || {
                        let driver = client.command(places, controller, command, &["--scope", &scope]);
                        let printed = Driver::run(driver, LIMIT)?;
                        aborted(places, controller, &scope, &printed)?;
                        Ok(printed)
                    })
                })
            })
            .collect();
        if client == Client::Python && wanted("policies") {
            cases.push(Case::new("python policies: what the wheel sets, the crate reads", || {
                let sentence = "policies by time and by size are kept as they were set, at creation and by an update";
                found.one(client, "retention", sentence, || policies(places, controller))
            }));
        }
        if client == Client::Python && wanted("restart") {
            cases.push(Case::new("python restart: a server that is killed and started again", || {
                restart(places, scratch, found)
            }));
        }
        let mut outcome = run_cases(cases, AT_ONCE);
        if only.is_empty() {
            found.store(places, client, name)?;
        }
        let stop = Case::new(format!("{name}: the server lives through all of it and stops"), || {
            let memory = server.resident_bytes()? / (1024 * 1024);
            let stopped = server.stop()?;
            Ok(format!("{memory} MiB resident, stopped within {} ms", stopped.as_millis()))
        });
        outcome = outcome.and(run_cases(vec![stop], 1));
        Ok(outcome)
    })
}

/// Runs a driver: each check that it prints is a feature, of the group that it names itself or of `group`. If it fails,
/// one that does not work stands for those that it did not come to.
fn checks(
    found: &Gathered,
    client: Client,
    name: &str,
    group: &str,
    run: impl FnOnce() -> Result<Vec<Value>>,
) -> Result<String> {
    let printed = match run() {
        Ok(printed) => printed,
        Err(error) => {
            found.keep(client, group, &format!("everything that `{name}` looks at"), false);
            return Err(error);
        }
    };
    let mut count = 0;
    for value in printed {
        let text = |field: &str| value.get(field).and_then(Value::as_str);
        let Some(check) = text("check") else { continue };
        found.keep(client, text("group").unwrap_or(group), check, true);
        count += 1;
    }
    ensure!(count > 0, "{name} looked at nothing");
    Ok(format!("{count} features"))
}

/// What has become of transactions that ended by themselves: the wheel says that they are not open, the crate how they ended.
fn aborted(places: &Places, controller: &str, scope: &str, printed: &[Value]) -> Result<()> {
    for value in printed {
        let text = |field: &str| value.get(field).and_then(Value::as_str);
        let (Some(id), Some(stream)) = (text("aborted"), text("stream")) else { continue };
        let arguments = ["--scope", scope, "--stream", stream, "--id", id];
        Driver::run(Client::Rust.command(places, controller, "txn-aborted", &arguments), LIMIT)?;
    }
    Ok(())
}

/// A server of its own is killed twice under a writer.
fn restart(places: &Places, scratch: &Path, found: &Gathered) -> Result<String> {
    let scratch = scratch.join("restart");
    std::fs::create_dir(&scratch).with_context(|| format!("make {}", scratch.display()))?;
    let mut launch = Launch::new(places.server(), &scratch);
    launch.addresses = Addresses::free()?;
    let mut server = launch.start()?;
    let command = Client::Python.command(places, &server.ready.controller, "restart", &["--scope", "python-restart"]);
    let sentence = "a writer goes on over two kills, and every event is there once, in order per key";
    found.one(Client::Python, "a server that is killed and started again", sentence, || {
        let mut writer = Driver::start(command)?;
        for kill in 1..=3 {
            let (before, begun) = (writer.progress(), Instant::now());
            while writer.progress() < before + 200 {
                server.alive()?;
                let waits = !writer.has_ended() && begun.elapsed() < PROGRESS_WITHIN;
                ensure!(waits, "{} events were acknowledged before kill {kill}", writer.progress());
                std::thread::sleep(Duration::from_millis(20));
            }
            if kill < 3 {
                server.kill()?;
                server = launch.start()?;
            }
        }
        writer.finish(LIMIT)?;
        server.stop()?;
        Ok(String::new())
    })
}

/// The wheel cannot read a configuration back; the crate can.
fn policies(places: &Places, controller: &str) -> Result<String> {
    let scope = "python-policies";
    Driver::run(Client::Python.command(places, controller, "policies", &["--scope", scope]), LIMIT)?;
    // (stream, scale type, rate, factor, segments, retention type, parameter), numbered as in the published interface.
    let expected = [
        ("policy-fixed", 0, 0, 0, 3, 0, 0),
        ("policy-events", 2, 100, 2, 3, 2, 10_000_000),
        ("policy-bytes", 1, 512, 4, 2, 1, 86_400_000),
    ];
    for (name, scale, rate, factor, segments, retention, parameter) in expected {
        for stream in [name.to_owned(), format!("{name}-updated")] {
            let arguments = ["--scope", scope, "--stream", &stream];
            let printed = Driver::run(Client::Rust.command(places, controller, "policies", &arguments), LIMIT)?;
            let config = printed.iter().find(|value| value.get("scale_type").is_some()).context("no configuration")?;
            let field = |field: &str| config.get(field).cloned().unwrap_or(Value::Null);
            let retention_seen = (field("retention_type"), field("retention_param"));
            ensure!(field("tags") == json!([name]), "{stream}: tags {}", field("tags"));
            ensure!(
                retention_seen == (json!(retention), json!(parameter)),
                "{stream}: retention {retention_seen:?}, set to {retention} {parameter}"
            );
            ensure!(
                field("scale_type") == json!(scale) && field("min_num_segments") == json!(segments),
                "{stream}: scaling {config}, set to type {scale} with {segments} segments"
            );
            if scale != 0 {
                let rates = (field("target_rate"), field("scale_factor"));
                ensure!(rates == (json!(rate), json!(factor)), "{stream}: {rates:?}, set to {rate} and {factor}");
            }
        }
    }
    Ok(String::new())
}
