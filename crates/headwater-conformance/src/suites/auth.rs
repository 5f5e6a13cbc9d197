//! The genuine clients over TLS, proving who they are with a password, on a server that asks for tokens everywhere.
//!
//! Tokens end after ten seconds here, so that every client has to renew them while it works.

use super::{Case, Outcome, in_scratch, run_cases};
use crate::driver::{Client, Driver};
use crate::prepare::{self, Places};
use crate::server::Launch;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A driver that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(240);
/// How long the issuer, or the server about it, may take for anything.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most of the time the drivers wait for the clients' own timers, so several run at once.
const AT_ONCE: usize = 4;

/// Of the user that the clients are.
const PASSWORD: &str = "app-secret";

/// What each client does; the reader groups work for longer than a token lasts.
const FEATURES: &[(Client, &str)] = &[
    (Client::Rust, "table"),
    (Client::Rust, "synchronizer"),
    (Client::Rust, "txn"),
    (Client::Rust, "byte"),
    (Client::Rust, "reader-group"),
    (Client::Python, "tags"),
    (Client::Python, "byte"),
    (Client::Python, "txn"),
    (Client::Python, "reader-group"),
];

/// Runs all of it.
///
/// # Errors
/// When the server does not start.
pub fn run(places: &Places) -> Result<Outcome> {
    in_scratch(places, "auth", |scratch| {
        let users = scratch.join("users");
        // Scopes may be made, and everything done in those of this suite.
        add_user(places, &users, "app", PASSWORD, &["prn::/,READ_UPDATE", "prn::/scope:auth-*,READ_UPDATE"])?;
        let launch = guarded(places, scratch, &users)?;
        let server = launch.start()?;
        let authority = launch.data.join("tls/ca.pem");
        let port = server.ready.controller.rsplit(':').next().context("the controller has a port")?;
        let controller = format!("tls://localhost:{port}");
        let cases = FEATURES.iter().map(|(client, command)| {
            let (controller, authority) = (controller.clone(), authority.clone());
            let name = match client {
                Client::Rust => "rust",
                Client::Python => "python",
            };
            Case::new(format!("{name} {command} over TLS with a password"), move || {
                let scope = format!("auth-{name}-{command}");
                let mut driver = client.command(places, &controller, command, &["--scope", &scope]);
                prove(&mut driver, &authority);
                Driver::run(driver, LIMIT)?;
                Ok(String::new())
            })
        });
        let outcome = run_cases(cases.collect(), AT_ONCE);
        let stop = Case::new("the server lives through all of it and stops", || {
            server.stop()?;
            Ok(String::new())
        });
        let issued = Case::new(
            "tokens of an OpenID Connect issuer are believed, also when its key changes or it is gone",
            || issuer(places, scratch),
        );
        Ok(outcome.and(run_cases(vec![stop, issued], 1)))
    })
}

/// A server with TLS in `scratch` that knows the users of a file and whose tokens end after ten seconds.
pub(super) fn guarded(places: &Places, scratch: &Path, users: &Path) -> Result<Launch> {
    let mut launch = Launch::new(places.server(), scratch);
    let users = users.to_str().context("the scratch directory is UTF-8")?;
    let arguments = ["--tls", "self-signed", "--auth-passwords", users, "--token-lifetime", "10"];
    launch.extra = arguments.map(str::to_owned).to_vec();
    Ok(launch)
}

/// The same for one that believes an issuer, which it finds by its address.
pub(super) fn believing(places: &Places, scratch: &Path, issuer: &str) -> Result<Launch> {
    let mut launch = Launch::new(places.server(), scratch);
    let arguments = ["--tls", "self-signed", "--auth-issuer", issuer, "--token-lifetime", "10"];
    launch.extra = arguments.map(str::to_owned).to_vec();
    Ok(launch)
}

/// An issuer, and its address.
pub(super) fn start_issuer(places: &Places) -> Result<(Driver, String)> {
    prepare::issuer(places)?;
    let mut command = Command::new("node");
    command.arg(places.issuer());
    let mut issuer = Driver::start(command)?;
    let address = issuer.wait_for("its address", PATIENCE, |line| Some(line.get("issuer")?.as_str()?.to_owned()))?;
    Ok((issuer, address))
}

/// A server that believes the tokens of an issuer in a process of its own, found by discovery.
fn issuer(places: &Places, scratch: &Path) -> Result<String> {
    let (mut issuer, address) = start_issuer(places)?;
    let directory = scratch.join("issuer");
    std::fs::create_dir(&directory)?;
    let mut launch = Launch::new(places.server(), &directory);
    launch.extra.extend(["--auth-issuer".to_owned(), address.clone()]);
    let server = launch.start()?;
    let http = server.ready.http.clone();
    let metrics = |token: &str| Ok::<_, anyhow::Error>(ask(&http, "GET", "/metrics", token)?.0);

    ensure!(metrics("")? == 401, "figures without a token");
    let reader = token(&address, "READ")?;
    ensure!(metrics(&reader)? == 200, "a token that grants READ is refused");
    ensure!(ask(&http, "POST", "/v1/backups", &reader)?.0 == 403, "a token that grants READ begins a backup");
    ensure!(metrics(&token(&address, "WHATEVER")?)? == 403, "an unknown level grants something");
    let forged = format!("{}A{}", &reader[..reader.len() - 9], &reader[reader.len() - 8..]);
    ensure!(forged == reader || metrics(&forged)? == 401, "a changed signature is believed");

    // Another key takes over. The server may not ask more often than every ten seconds.
    issuer.say("another key")?;
    issuer.wait_for("another key", PATIENCE, |line| line.get("key").map(|_| ()))?;
    let begun = Instant::now();
    let newer = loop {
        let newer = token(&address, "READ_UPDATE")?;
        // It signs with its keys in turn.
        let is_new = newer.split('.').next() != reader.split('.').next();
        if is_new && metrics(&newer)? == 200 {
            break newer;
        }
        ensure!(begun.elapsed() < PATIENCE, "the issuer's new key is never asked for");
        std::thread::sleep(Duration::from_millis(500));
    };
    let last = token(&address, "READ")?;
    issuer.finish(PATIENCE)?;
    ensure!(metrics(&newer)? == 200 && metrics(&last)? == 200, "tokens end with the process of their issuer");
    server.stop()?;
    Ok(String::new())
}

/// A token as a service fetches it for itself, granting one level on everything.
fn token(issuer: &str, level: &str) -> Result<String> {
    let body = format!("grant_type=client_credentials&scope={level}");
    let host = issuer.strip_prefix("http://").context("the issuer is on loopback")?;
    // The name that it calls itself by may have several addresses; it listens on this one.
    let address = host.replace("localhost", "127.0.0.1");
    let head = format!(
        "POST /token HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let (status, answer) = exchange(&address, &(head + &body))?;
    ensure!(status == 200, "the issuer answers {status}: {answer}");
    let object = answer.find('{').and_then(|from| Some(&answer[from..=answer.rfind('}')?])).context("no object")?;
    let answer: Value = serde_json::from_str(object)?;
    Ok(answer.get("access_token").and_then(Value::as_str).context("no token")?.to_owned())
}

fn ask(server: &str, method: &str, path: &str, token: &str) -> Result<(u16, String)> {
    let authorization = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    exchange(server, &format!("{method} {path} HTTP/1.1\r\nHost: {server}\r\n{authorization}Connection: close\r\n\r\n"))
}

/// Status and what follows the head.
fn exchange(address: &str, request: &str) -> Result<(u16, String)> {
    let mut socket = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(request.as_bytes())?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    Ok((status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()))
}

/// Sets what the genuine clients read their credentials and their trust from.
fn prove(driver: &mut Command, authority: &Path) {
    driver.env("pravega_client_auth_method", "Basic");
    driver.env("pravega_client_auth_username", "app");
    driver.env("pravega_client_auth_password", PASSWORD);
    driver.env("pravega_client_tls_cert_path", authority);
}

/// `headwater user add`, as a script runs it.
pub(super) fn add_user(places: &Places, file: &Path, name: &str, password: &str, grants: &[&str]) -> Result<()> {
    let mut command = Command::new(places.server());
    command.args(["user", "add"]).arg(file).arg(name);
    for grant in grants {
        command.args(["--grant", grant]);
    }
    let mut child = command.stdin(Stdio::piped()).spawn().context("start headwater user add")?;
    writeln!(child.stdin.take().context("its standard input")?, "{password}")?;
    let ended = child.wait()?;
    if !ended.success() {
        bail!("headwater user add ended with {ended}");
    }
    Ok(())
}
