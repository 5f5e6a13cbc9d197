//! What is secret stays so: planted passwords, tokens and keys are in no log, no figure and no answer, whether they are
//! right, wrong, or in a file that makes no sense.

use std::fmt::Write as _;
use std::sync::Mutex;

use headwater_auth::Rpc;
use headwater_proto::controller as proto;
use headwater_server::{BearerConfig, Server};
use headwater_wire::{Request as Wire, Token};
use tonic::client::Grpc;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata};

use crate::auth::{ask, authorized, basic, entry, message, put, signed, start};
use crate::client::{PATIENCE, SEGMENT};
use crate::server::{Served, config};
use crate::signer::Signer;

/// Everything that the server in this process has said, at whatever level, while there is something here.
static SAID: Mutex<Option<String>> = Mutex::new(None);

struct Listener;

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

impl Line {
    fn say(self) {
        if let Some(said) = SAID.lock().unwrap().as_mut() {
            said.push_str(&self.0);
            said.push('\n');
        }
    }
}

impl tracing::Subscriber for Listener {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("headwater") && SAID.lock().unwrap().is_some()
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut line = Line(attributes.metadata().name().to_owned());
        attributes.record(&mut line);
        line.say();
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut line = Line(String::new());
        values.record(&mut line);
        line.say();
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().target().to_owned());
        event.record(&mut line);
        line.say();
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::disallowed_methods, reason = "the operator's files, not the store's")]
async fn planted_secrets_are_in_no_log_no_figure_and_no_answer() {
    const PASSWORD: &str = "planted-password-7c1d";
    const WRONG: &str = "planted-wrong-password-9e2f";
    const KEY: &str = "planted-signing-key-of-more-than-thirty-two-bytes";
    const PROOF: &str = "planted-proof-55aa";
    const JWK: &str = "planted-private-part-of-a-key-41b8";
    const PEM: &str = "planted-key-of-a-certificate-c0de";
    *SAID.lock().unwrap() = Some(String::new());
    tracing::subscriber::set_global_default(Listener).expect("no other test listens");

    let files = tempfile::tempdir().unwrap();
    let (keys, issuer) = (files.path().join("keys"), Signer::new());
    put(&keys, &format!(r#"{{"keys":[{}]}}"#, issuer.published("k")));
    let bearer = BearerConfig {
        keys: Some(keys.clone()),
        issuer: None,
        audience: "us".to_owned(),
        claim: Some("grants".to_owned()),
    };
    let users = entry("admin", PASSWORD, &["prn::*,READ_UPDATE"]) + &entry("nobody", "n", &[]);
    let (running, auth) = start(|auth| {
        put(auth.passwords.as_ref().unwrap(), &users);
        put(auth.token_key.as_ref().unwrap(), KEY);
        auth.bearer = Some(bearer);
    })
    .await;
    let token = |until: i64, claims: &str| {
        let payload =
            format!(r#"{{"aud":"us","sub":"planted-subject","exp":{until},"grants":["prn::*,READ"]{claims}}}"#);
        issuer.sign(r#"{"alg":"ES256","kid":"k"}"#, &payload)
    };
    let (good, old) = (token(i64::from(i32::MAX), ""), token(1, ""));
    let changed =
        |token: &str| format!("{}{}", &token[..token.len() - 4], if token.ends_with("AAAA") { "BBBB" } else { "AAAA" });
    let forged = changed(&good);
    let own = signed(r#"{"alg":"HS512"}"#, r#"{"aud":"segmentstore","exp":1,"*":"READ_UPDATE"}"#, KEY.as_bytes());
    let admin = basic("admin", PASSWORD);
    let headers =
        [admin.clone(), basic("admin", WRONG), basic("nobody", "n"), good.clone(), old.clone(), forged.clone()];
    let mut answers = String::new();

    // Everybody asks for everything, over every protocol.
    let mut client = Grpc::new(running.channel().await);
    for header in &headers {
        for rpc in [Rpc::CreateScope, Rpc::UpdateStream, Rpc::ListScopes, Rpc::GetStreamConfiguration] {
            if let Err(status) = ask(&mut client, rpc, message(rpc, "stream"), Some(header)).await {
                writeln!(answers, "{status:?} {status}").unwrap();
            }
        }
        for (method, path) in
            [("GET", "/metrics"), ("GET", "/v1/scopes"), ("DELETE", "/v1/scopes/x"), ("GET", "/v1/%ff")]
        {
            answers += &running.http(method, path, &format!("Authorization: {header}\r\n")).await;
        }
    }
    let info = proto::StreamInfo { scope: "scope".into(), stream: "stream".into(), access_operation: 4 };
    let issued = running.controller().await.get_delegation_token(authorized(info, &admin)).await;
    let issued = issued.unwrap().into_inner().delegation_token;
    let stolen = changed(&issued);
    for text in [&issued, &own, &stolen] {
        let mut store = running.store().await;
        let (segment, token) = ("scope/other/0.#epoch.0".into(), Token::new(text.as_str()));
        let reply = store.ask(Wire::SealSegment { request_id: 7, segment, token }).await;
        writeln!(answers, "{reply:?}").unwrap();
        store.token = Token::new(text.as_str());
        writeln!(answers, "{:?}", store.try_set_up(1, SEGMENT).await).unwrap();
    }

    // Files that make no sense, to a server that runs and to one that starts.
    let tls = running.directory.path().join("data/tls/key.pem");
    let secret = std::fs::read_to_string(&tls).unwrap();
    put(&auth.path().join("users"), &format!("admin:{PROOF}:prn::*,READ_UPDATE\n"));
    put(&keys, &format!(r#"{{"keys":[{{"kty":"EC","crv":"P-256","kid":"k","d":"{JWK}"}}]}}"#));
    put(&tls, &format!("-----BEGIN PRIVATE KEY-----\n{PEM}\n-----END PRIVATE KEY-----\n"));
    let figures = tokio::time::timeout(PATIENCE, async {
        loop {
            running.server.reload();
            let page = running.http("GET", "/metrics", &format!("Authorization: {admin}\r\n")).await;
            let counted = |name: &str, least: u32| {
                let figure = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
                figure.unwrap().parse::<u32>().unwrap() >= least
            };
            if counted("auth_reloads_failed_total", 2) && counted("tls_reloads_failed_total", 1) {
                return page;
            }
        }
    });
    answers += &figures.await.expect("all three are looked at and refused");
    for bad in ["users", "keys"] {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config(&directory);
        let path = if bad == "users" { auth.path().join("users") } else { keys.clone() };
        let bearer = BearerConfig { keys: Some(path.clone()), issuer: None, audience: "us".into(), claim: None };
        config.auth = Some(headwater_server::AuthConfig {
            passwords: (bad == "users").then_some(path),
            bearer: (bad == "keys").then_some(bearer),
            token_key: None,
            token_lifetime_seconds: 600,
        });
        let error = Server::start(config).await.expect_err("such files keep a server from starting");
        let mut cause: Option<&dyn std::error::Error> = Some(&error);
        while let Some(error) = cause {
            writeln!(answers, "{error} {error:?}").unwrap();
            cause = error.source();
        }
    }

    let log = match &running.server {
        Served::Here(_) => SAID.lock().unwrap().take().unwrap(),
        Served::Binary(_) => std::fs::read_to_string(running.directory.path().join("data.log")).unwrap(),
    };
    running.server.stop().await;
    for expected in ["not read again", "not reloaded"] {
        assert!(log.contains(expected), "the log is listened to: {log}");
    }
    let mut secrets: Vec<&str> = vec![PASSWORD, WRONG, KEY, PROOF, JWK, PEM];
    secrets.extend(headers.iter().map(|header| header.split_once(' ').unwrap().1));
    // Also each part of a token, and each line of a key.
    let tokens = [&good, &old, &forged, &issued, &own, &stolen];
    secrets.extend(tokens.iter().flat_map(|token| token.split('.').skip(1)));
    secrets.extend(secret.lines().filter(|line| !line.starts_with("-----")));
    for secret in secrets {
        assert!(secret.len() > 5, "{secret} is found anywhere");
        assert!(!log.contains(secret), "{secret} is in the log");
        assert!(!answers.contains(secret), "{secret} is in an answer");
    }
}
