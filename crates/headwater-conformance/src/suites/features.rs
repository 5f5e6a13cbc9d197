//! Every feature the genuine Rust and Python clients have, one driver command each, several at a time on one server.

use super::{Case, Outcome, in_scratch, run_cases, run_named_cases};
use crate::compatibility::{Feature, Findings};
use crate::driver::{Client, Driver};
use crate::prepare::Places;
use crate::server::Launch;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;

/// A driver that takes longer hangs. Rebalancing alone keeps the clients waiting for tens of seconds.
const LIMIT: Duration = Duration::from_secs(240);

/// Most of the time the drivers wait for the clients' own timers, so several run at once.
const AT_ONCE: usize = 4;

const RUST: &[(&str, &str)] = &[
    ("streams", "streams are created, updated, sealed, deleted and listed over pages"),
    ("truncate", "a stream truncated at a cut starts there"),
    ("table", "tables keep their conditions, iterators and deltas"),
    ("synchronizer", "table synchronizers converge"),
    ("index", "index streams are searched, truncated and extended"),
    ("jumbo", "events of 20 MiB come back whole"),
    ("txn", "transactions commit and abort, also around a scale"),
    ("byte", "byte streams seek, tail, truncate and seal"),
    ("reader-group", "reader groups hand over, survive a death and start at cuts"),
];

const PYTHON: &[(&str, &str)] = &[
    ("tags", "streams with tags are listed over pages, sealed and deleted"),
    ("byte", "byte streams seek, tail and truncate"),
    ("txn", "transactions commit and abort"),
    ("cuts", "reader groups start at cuts, at the tail and over two streams"),
    ("reader-group", "reader groups hand over and survive a killed reader"),
];

/// Runs the features of one client, all of them or those whose name is in `only`.
///
/// # Errors
/// When the server does not start.
pub fn run(places: &Places, client: Client, only: &[String]) -> Result<Outcome> {
    let (name, commands) = match client {
        Client::Rust => ("rust", RUST),
        Client::Python => ("python", PYTHON),
    };
    in_scratch(places, name, |scratch| {
        let server = Launch::new(places.server(), scratch).start()?;
        let controller = &server.ready.controller;
        let wanted = |command: &str| only.is_empty() || only.iter().any(|o| o == command);
        let mut cases: Vec<Case<'_>> = commands
            .iter()
            .filter(|(command, _)| wanted(command))
            .map(|(command, sentence)| {
                Case::new(format!("{name} {command}: {sentence}"), move || {
                    let scope = format!("{name}-{command}");
                    Driver::run(client.command(places, controller, command, &["--scope", &scope]), LIMIT)?;
                    Ok(String::new())
                })
            })
            .collect();
        if client == Client::Python && wanted("policies") {
            cases.push(Case::new("python policies: what the wheel sets, the crate reads", || {
                policies(places, controller)
            }));
        }
        let held = run_named_cases(cases, AT_ONCE);
        let mut outcome = held.iter().fold(Outcome::default(), |sum, (_, held)| sum.and(Outcome::of(*held)));
        if only.is_empty() {
            let features = held.iter().filter_map(|(name, works)| Feature::parse(name, *works)).collect();
            Findings { client: client.name().to_owned(), version: client.version(places)?, features }.store(places)?;
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
