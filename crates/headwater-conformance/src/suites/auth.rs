//! The genuine Rust and Python clients over TLS: proving who they are with a password or as clients of Keycloak, on
//! servers that ask for tokens everywhere, and saying nothing on one that asks for none.
//!
//! Tokens end after ten seconds here, so that a client that works for longer has to renew them.

use super::{Case, Outcome, in_scratch, run_cases};
use crate::compatibility::Gathered;
use crate::courier::{Change, Courier};
use crate::driver::{Client, Driver};
use crate::prepare::{self, Places};
use crate::server::{Launch, Server};
use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A driver that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(240);
/// How long the issuer, or the server about it, may take for anything.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most of the time the drivers wait for the clients' own timers, so several run at once.
const AT_ONCE: usize = 4;

/// Shows nothing.
const NOBODY: &str = "";
/// Of the user that the clients are.
const PASSWORD: &str = "app-secret";

/// What each client does, and what that is about.
const FEATURES: &[(Client, &str, &str)] = &[
    (Client::Rust, "reader-group", "reader groups"),
    (Client::Rust, "txn", "transactions"),
    (Client::Rust, "table", "tables"),
    (Client::Rust, "synchronizer", "table synchronizers"),
    (Client::Rust, "byte", "byte streams"),
    (Client::Rust, "index", "index streams"),
    (Client::Rust, "writer", "event writers"),
    (Client::Python, "reader-group", "reader groups"),
    (Client::Python, "tags", "scopes, streams and tags"),
    (Client::Python, "byte", "byte streams"),
    (Client::Python, "txn", "transactions"),
    (Client::Python, "writer", "event writers"),
];

/// The same of those that prove themselves with tokens of an issuer.
const BELIEVED: &[(Client, &str, &str)] = &[
    (Client::Rust, "reader-group", "reader groups"),
    (Client::Rust, "txn", "transactions"),
    (Client::Rust, "writer", "event writers"),
    (Client::Rust, "byte", "byte streams"),
    (Client::Rust, "table", "tables"),
    (Client::Rust, "synchronizer", "table synchronizers"),
    (Client::Rust, "index", "index streams"),
    (Client::Python, "reader-group", "reader groups"),
    (Client::Python, "txn", "transactions"),
    (Client::Python, "writer", "event writers"),
    (Client::Python, "byte", "byte streams"),
];
/// Those of both that work for longer than a token lasts; the others are too short to say anything about that.
const RENEWING: [&str; 2] = ["reader-group", "txn"];
/// How long tokens last: the least that the server takes.
const TOKEN_SECONDS: &str = "10";
/// Those that work for longer do some of their work only then.
const OUTLIVED_SECONDS: &str = "11";

/// The same without any credentials, on a server that asks for none.
const ENCRYPTED: &[(Client, &str, &str)] = &[
    (Client::Rust, "writer", "event writers and readers"),
    (Client::Rust, "byte", "byte streams"),
    (Client::Rust, "table", "tables"),
    (Client::Python, "writer", "event writers and readers"),
    (Client::Python, "byte", "byte streams"),
];

/// What each client does once with a token for the segment store that is good, and with ones that are not.
const ONCE: &[(Client, &[&str])] =
    &[(Client::Rust, &["write", "read", "table", "bytes"]), (Client::Python, &["write", "read", "bytes"])];
/// Those of them that ask for another token when theirs is refused as expired. The set-up of a writer is repeated for ever as
/// it was; by itself no client comes with a token whose end its own clock has seen.
const RENEWED: [(&str, &[&str]); 2] = [
    ("readers renew a token that is refused as expired", &["read"]),
    ("tables renew a token that is refused as expired", &["table"]),
];
/// How long a client that was refused is watched: most of them try again.
const AFTER_A_REFUSAL: Duration = Duration::from_secs(2);

/// Who gets nothing done: name, password, what the refusal says, and a sentence.
const REFUSED: [(&str, &str, &str, &str); 4] = [
    (NOBODY, "", "Unauthenticated", "who says nothing is refused"),
    ("app", "wrong", "Unauthenticated", "a wrong password is refused"),
    ("nobody", PASSWORD, "Unauthenticated", "an unknown user is refused"),
    ("stranger", PASSWORD, "PermissionDenied", "who was granted nothing in a scope makes nothing there"),
];

/// Groups of features, as the Java client's tests are called.
const BY_PASSWORD: &str = "authentication";
const BY_TOKEN: &str = "bearer tokens of an OpenID Connect issuer, over TLS";
const TLS: &str = "TLS";

/// Runs all of it.
///
/// # Errors
/// When the server does not start.
pub fn run(places: &Places) -> Result<Outcome> {
    in_scratch(places, "auth", |scratch| {
        let users = scratch.join("users");
        // Scopes may be made, and everything done in those of this suite.
        add_user(places, &users, "app", PASSWORD, &["prn::/,READ_UPDATE", "prn::/scope:auth-*,READ_UPDATE"])?;
        add_user(places, &users, "stranger", PASSWORD, &["prn::/scope:elsewhere,READ_UPDATE"])?;
        let directory = |name: &str| {
            let directory = scratch.join(name);
            std::fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
            Ok::<_, anyhow::Error>(directory)
        };
        let passwords = Place::start(guarded(places, scratch, &users)?)?;
        let mut encrypted = Launch::new(places.server(), &directory("tls")?);
        encrypted.extra = ["--tls", "self-signed"].map(str::to_owned).to_vec();
        let encrypted = Place::start(encrypted)?;
        let of_tokens = directory("tokens")?;
        // Each of them is a client of its own at the issuer, granted no more than its scope.
        let lifetime: u32 = TOKEN_SECONDS.parse().context("a number")?;
        let client = |(client, command, _): &(Client, &str, &str)| {
            let scope = scope_of(*client, command);
            let grants =
                format!("prn::/,READ_UPDATE prn::/scope:{scope},READ_UPDATE prn::/scope:{scope}/*,READ_UPDATE");
            (scope, json!({ "secret": PASSWORD, "grants": grants, "lifetime": lifetime }))
        };
        let clients: Value = BELIEVED.iter().map(client).collect::<serde_json::Map<_, _>>().into();
        let (issuer, address) = start_issuer(places, Some(&clients))?;
        let believing = Place::start(believing(places, &of_tokens, &address)?)?;
        let known_as = |scope: &str| {
            let known = json!({
                "realm": "headwater", "auth-server-url": address, "resource": scope,
                "credentials": { "secret": PASSWORD },
            });
            let path = of_tokens.join(format!("{scope}.json"));
            std::fs::write(&path, known.to_string()).context("write what a client knows of the issuer")?;
            Ok::<_, anyhow::Error>(path)
        };

        let found = &Gathered::default();
        // First those that take longest: by itself a client asks for a minute before it believes that nobody knows it.
        let mut cases: Vec<Case<'_>> = [Client::Python, Client::Rust]
            .into_iter()
            .flat_map(|client| REFUSED.map(|refused| refusal(places, found, &passwords, client, refused)))
            .collect();
        cases.extend(ONCE.iter().map(|(client, whats)| {
            let name = format!("{} once: tokens for the segment store that are no good", client.short_name());
            let users = &users;
            Case::new(name, move || tampered(places, scratch, users, found, *client, whats))
        }));
        let suites =
            [(BY_PASSWORD, FEATURES, &passwords), (BY_TOKEN, BELIEVED, &believing), (TLS, ENCRYPTED, &encrypted)];
        for (group, features, place) in suites {
            let known_as = &known_as;
            cases.extend(features.iter().map(move |(client, command, about)| {
                let name = client.short_name();
                Case::new(format!("{name} {command}: {group}"), move || {
                    let scope = scope_of(*client, command);
                    let mut driver = client.command(places, &place.controller, command, &["--scope", &scope]);
                    driver.env("pravega_client_tls_cert_path", &place.authority);
                    let (how, tokens) = match group {
                        BY_PASSWORD => {
                            prove(&mut driver, "app", PASSWORD);
                            ("over TLS with a password", "tokens")
                        }
                        BY_TOKEN => {
                            driver.env("pravega_client_auth_method", "Bearer");
                            driver.env("pravega_client_auth_keycloak", known_as(&scope)?);
                            ("as a client of Keycloak", "tokens of both kinds")
                        }
                        _ => ("over TLS", ""),
                    };
                    let mut sentence = format!("{about}, {how}");
                    if group != TLS && RENEWING.contains(command) {
                        driver.args(["--outlive", OUTLIVED_SECONDS]);
                        sentence += &format!(", while {tokens} end after ten seconds");
                    }
                    found.one(*client, group, &sentence, || Driver::run(driver, LIMIT))?;
                    Ok(String::new())
                })
            }));
        }
        let outcome = run_cases(cases, AT_ONCE);
        for client in [Client::Rust, Client::Python] {
            found.store(places, client, "auth")?;
        }
        let stop = Case::new("the servers live through all of it and stop", || {
            for place in [passwords, believing, encrypted] {
                place.server.stop()?;
            }
            let printed = issuer.finish(PATIENCE)?;
            let tickets: Vec<&str> = printed.iter().filter_map(|line| line.get("ticket")?.as_str()).collect();
            for (client, command, _) in BELIEVED {
                let scope = scope_of(*client, command);
                let count = tickets.iter().filter(|ticket| **ticket == scope).count();
                let wanted = if RENEWING.contains(command) { 2 } else { 1 };
                ensure!(count >= wanted, "{scope} fetched {count} tokens, and should have at least {wanted}");
            }
            Ok(format!("{} tokens of the issuer", tickets.len()))
        });
        let issued = Case::new(
            "tokens of an OpenID Connect issuer are believed, also when its key changes or it is gone",
            || issued(places, scratch),
        );
        Ok(outcome.and(run_cases(vec![stop, issued], 1)))
    })
}

/// Of a client that does one of these.
fn scope_of(client: Client, command: &str) -> String {
    format!("auth-{}-{command}", client.short_name())
}

fn refusal<'a>(
    places: &'a Places,
    found: &'a Gathered,
    place: &'a Place,
    client: Client,
    (user, password, because, sentence): (&'static str, &'static str, &'static str, &'static str),
) -> Case<'a> {
    Case::new(format!("{} as {user}: {sentence}", client.short_name()), move || {
        let arguments = ["--scope", "auth-refused", "--because", because];
        let mut driver = client.command(places, &place.controller, "refused", &arguments);
        driver.env("pravega_client_tls_cert_path", &place.authority);
        if user != NOBODY {
            prove(&mut driver, user, password);
        }
        found.one(client, BY_PASSWORD, sentence, || Driver::run(driver, LIMIT))?;
        Ok(String::new())
    })
}

/// Somebody between the client and the controller changes the tokens that the client goes to the segment store with. The
/// client would not come with such a one by itself: it renews its tokens in time and cannot make any.
fn tampered(
    places: &Places,
    scratch: &Path,
    users: &Path,
    found: &Gathered,
    client: Client,
    whats: &[&str],
) -> Result<String> {
    let directory = scratch.join(format!("courier-{}", client.short_name()));
    std::fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
    let mut launch = Launch::new(places.server(), &directory);
    let users = users.to_str().context("the scratch directory is UTF-8")?;
    // Without TLS, which would keep anybody from changing anything.
    launch.extra = ["--auth-passwords", users, "--token-lifetime", "60"].map(str::to_owned).to_vec();
    let server = launch.start()?;
    let courier = Courier::start(&server.ready.controller, &launch.data.join("token.key"))?;
    let (scope, address) = (format!("auth-{}-once", client.short_name()), courier.address.to_string());
    let once = |what: &str| {
        let mut command = client.command(places, &address, "once", &["--scope", &scope, "--what", what]);
        prove(&mut command, "app", PASSWORD);
        command
    };
    let refused = || tokens_refused(&server.ready.http);
    let events = || {
        let printed = Driver::run(once("read"), LIMIT)?;
        printed.iter().find_map(|line| line.get("events")?.as_u64()).context("how many events there are")
    };
    for what in whats {
        Driver::run(once(what), LIMIT).with_context(|| format!("{what} with good tokens"))?;
    }
    ensure!(refused()? == 0, "good tokens are refused");

    let sentence = "a token that is forged, signed with another key, for another scope or expired opens nothing";
    found.one(client, BY_PASSWORD, sentence, || {
        for change in Change::FOR_EVER {
            courier.do_with_tokens(change);
            for what in whats {
                let (before, begun) = (refused()?, Instant::now());
                let mut driver = Driver::start(once(what))?;
                while refused()? == before {
                    ensure!(begun.elapsed() < PATIENCE, "{what} with a token that is {change:?} is not refused");
                    std::thread::sleep(Duration::from_millis(20));
                }
                let done = driver.wait_for("an end", AFTER_A_REFUSAL, |line| line.get("done").map(drop));
                ensure!(done.is_err(), "{what} with a token that is {change:?} goes through");
            }
        }
        courier.do_with_tokens(Change::Nothing);
        let events = events()?;
        ensure!(events == 1, "{events} events are stored instead of one");
        Ok(())
    })?;
    let all = refused()?;

    for (sentence, renewing) in RENEWED {
        let whats: Vec<_> = whats.iter().filter(|what| renewing.contains(what)).collect();
        if whats.is_empty() {
            continue;
        }
        found.one(client, BY_PASSWORD, sentence, || {
            for what in whats {
                courier.do_with_tokens(Change::ExpiredOnce);
                let before = refused()?;
                Driver::run(once(what), LIMIT).with_context(|| format!("{what} with a token that has expired"))?;
                ensure!(refused()? > before, "{what}: no token was refused as expired");
            }
            Ok(())
        })?;
    }
    let renewed = refused()? - all;
    server.stop()?;
    Ok(format!("{all} times refused for good, {renewed} times for a new token"))
}

/// How many commands of the segment store's protocol were refused for their tokens.
fn tokens_refused(http: &str) -> Result<u64> {
    let who = STANDARD.encode(format!("app:{PASSWORD}"));
    let head =
        format!("GET /metrics HTTP/1.1\r\nHost: {http}\r\nAuthorization: Basic {who}\r\nConnection: close\r\n\r\n");
    let (status, page) = exchange(http, &head)?;
    ensure!(status == 200, "{status} for the figures");
    let value = page.lines().find_map(|line| line.strip_prefix("tokens_refused_total "));
    value.context("a figure of refused tokens")?.trim().parse().context("a number")
}

/// A server with TLS that runs, and what a client has to know of it.
struct Place {
    server: Server,
    controller: String,
    authority: PathBuf,
}

impl Place {
    fn start(launch: Launch) -> Result<Self> {
        let server = launch.start()?;
        let port = server.ready.controller.rsplit(':').next().context("the controller has a port")?;
        Ok(Self { controller: format!("tls://localhost:{port}"), authority: launch.data.join("tls/ca.pem"), server })
    }
}

/// A server with TLS in `scratch` that knows the users of a file and whose tokens end after ten seconds.
pub(super) fn guarded(places: &Places, scratch: &Path, users: &Path) -> Result<Launch> {
    let mut launch = Launch::new(places.server(), scratch);
    let users = users.to_str().context("the scratch directory is UTF-8")?;
    let arguments = ["--tls", "self-signed", "--auth-passwords", users, "--token-lifetime", TOKEN_SECONDS];
    launch.extra = arguments.map(str::to_owned).to_vec();
    Ok(launch)
}

/// The same for one that believes an issuer, which it finds by its address.
pub(super) fn believing(places: &Places, scratch: &Path, issuer: &str) -> Result<Launch> {
    let mut launch = Launch::new(places.server(), scratch);
    let arguments = ["--tls", "self-signed", "--auth-issuer", issuer, "--token-lifetime", TOKEN_SECONDS];
    launch.extra = arguments.map(str::to_owned).to_vec();
    Ok(launch)
}

/// An issuer, and its address. `clients` of Keycloak may have some from it as they know it.
pub(super) fn start_issuer(places: &Places, clients: Option<&Value>) -> Result<(Driver, String)> {
    prepare::issuer(places)?;
    let mut command = Command::new("node");
    command.arg(places.issuer()).args(clients.map(Value::to_string));
    let mut issuer = Driver::start(command)?;
    let address = issuer.wait_for("its address", PATIENCE, |line| Some(line.get("issuer")?.as_str()?.to_owned()))?;
    Ok((issuer, address))
}

/// A server that believes the tokens of an issuer in a process of its own, found by discovery.
fn issued(places: &Places, scratch: &Path) -> Result<String> {
    let (mut issuer, address) = start_issuer(places, None)?;
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

/// Sets what the genuine clients read their credentials from.
fn prove(driver: &mut Command, user: &str, password: &str) {
    driver.env("pravega_client_auth_method", "Basic");
    driver.env("pravega_client_auth_username", user);
    driver.env("pravega_client_auth_password", password);
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
