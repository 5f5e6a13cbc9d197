//! Tokens of an issuer: a real one over loopback, whose tokens the store checks.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Response, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures::future::BoxFuture;
use headwater_client::{
    ClientOptions, Credentials, ErrorKind, EventWriterOptions, OidcIssuer, OidcTokens, Result, bearer,
};
use headwater_server::{AuthConfig, BearerConfig};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::Store;

/// Clocks may differ by so much: the store takes a token for so long after its end, and these end earlier by that.
const SKEW_SECONDS: u64 = 30;
const CLIENT: &str = "cli & more";
/// Nothing that a form or a header would let stand as it is.
const SECRET: &str = "s3cret: ä+/=%&";

/// How questions for tokens are answered.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Good,
    Busy,
    TooMany,
    Html,
    Slow,
    Endless,
    LongByItsHeader,
    NotJson,
    NoToken,
    Redirect,
    RepeatsSecret,
}

/// What is asked of an issuer, and how it answers.
struct Desk {
    home: String,
    /// The one client that it knows.
    client: (&'static str, &'static str),
    pair: EcdsaKeyPair,
    /// Of a token, in seconds.
    lifetime: AtomicU64,
    mood: Mutex<Mood>,
    /// Whether tokens come with another one to refresh them.
    refreshes: bool,
    /// The refresh token that is good now: each can be used once.
    refresh: Mutex<Option<String>>,
    /// What is said about a person's sign-in, then yes; with when it was asked.
    sign_in: Mutex<VecDeque<&'static str>>,
    asked_about_sign_in: Mutex<Vec<Instant>>,
    /// In seconds: how long a person's code is good.
    code_time: AtomicU64,
    grants: Mutex<Vec<String>>,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
    pieces: AtomicUsize,
}

/// A running issuer.
struct Issuer {
    desk: Arc<Desk>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Issuer {
    async fn start() -> Self {
        Self::start_with((CLIENT, SECRET), false).await
    }

    async fn start_with(client: (&'static str, &'static str), refreshes: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let home = format!("http://{}", listener.local_addr().unwrap());
        let chance = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &chance).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &chance).unwrap();
        let desk = Arc::new(Desk {
            home,
            client,
            pair,
            lifetime: AtomicU64::new(300),
            mood: Mutex::new(Mood::Good),
            refreshes,
            refresh: Mutex::default(),
            sign_in: Mutex::default(),
            asked_about_sign_in: Mutex::default(),
            code_time: AtomicU64::new(600),
            grants: Mutex::default(),
            under_way: AtomicUsize::new(0),
            most_under_way: AtomicUsize::new(0),
            pieces: AtomicUsize::new(0),
        });
        let serving = tokio::spawn(serve(listener, desk.clone()));
        Self { desk, serving }
    }

    fn mood(&self, mood: Mood) {
        *self.desk.mood.lock().unwrap() = mood;
    }

    /// Nobody listens any more.
    async fn leave(&mut self) {
        self.serving.abort();
        let _ = (&mut self.serving).await;
    }

    /// Listens again, where it did before.
    async fn return_(&mut self) {
        let listener = TcpListener::bind(self.desk.home.strip_prefix("http://").unwrap()).await.unwrap();
        self.serving = tokio::spawn(serve(listener, self.desk.clone()));
    }

    /// As the client knows it.
    fn known(&self) -> OidcIssuer {
        OidcIssuer::new(&self.desk.home, self.desk.client.0).unwrap().answer_timeout(Duration::from_secs(1))
    }

    fn tokens(&self) -> OidcTokens {
        self.known().secret(self.desk.client.1).client_credentials().unwrap()
    }

    /// By which grants tokens were asked for.
    fn grants(&self) -> Vec<String> {
        self.desk.grants.lock().unwrap().clone()
    }

    /// A store that believes this issuer and nobody else.
    async fn store(&self, credentials: impl Credentials) -> Store {
        let auth = AuthConfig {
            passwords: None,
            bearer: Some(BearerConfig {
                keys: None,
                issuer: Some(self.desk.home.clone()),
                audience: "pravega-controller".to_owned(),
                claim: Some("grants".to_owned()),
            }),
            token_key: None,
            token_lifetime_seconds: 600,
        };
        Store::start_with(Some(auth), |options| options.credentials(credentials)).await
    }
}

async fn serve(listener: TcpListener, desk: Arc<Desk>) {
    axum::serve(listener, router(desk)).await.unwrap();
}

fn router(desk: Arc<Desk>) -> axum::Router {
    use axum::routing::{get, post};
    let about = json!({
        "issuer": desk.home, "jwks_uri": format!("{}/keys", desk.home), "token_endpoint": format!("{}/token", desk.home),
        "device_authorization_endpoint": format!("{}/device", desk.home),
    });
    let keys = desk.published();
    axum::Router::new()
        .route("/.well-known/openid-configuration", get(async move || about.to_string()))
        .route("/keys", get(async move || keys))
        .route("/device", {
            let desk = desk.clone();
            post(async move |headers: HeaderMap, form: String| desk.device(&headers, &form))
        })
        .route("/token", post(async move |headers: HeaderMap, form: String| desk.token(&headers, &form).await))
}

type Answer = Response<Body>;

fn answer(status: StatusCode, body: &Value) -> Answer {
    Response::builder().status(status).header("content-type", "application/json").body(body.to_string().into()).unwrap()
}

fn no(code: &str) -> Answer {
    answer(StatusCode::BAD_REQUEST, &json!({ "error": code }))
}

impl Desk {
    fn published(&self) -> String {
        let point = self.pair.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "kid": "k", "x": x, "y": y}]}).to_string()
    }

    fn signed(&self, lifetime: u64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        // Up to a second more than it is said to be good, since this is in whole seconds.
        let claims = json!({
            "iss": self.home, "aud": "pravega-controller", "sub": "u", "exp": now + lifetime + 1 - SKEW_SECONDS,
            "grants": ["prn::*,READ_UPDATE"], "jti": self.grants.lock().unwrap().len(),
        });
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"k"}"#);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Whether the client has proven itself, as RFC 6749 wants it: with its secret, or, without one, by its name.
    fn knows(&self, headers: &HeaderMap, form: &[(String, String)]) -> bool {
        let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let (client, secret) = self.client;
        let expected = format!("Basic {}", STANDARD.encode(format!("{}:{}", encoded(client), encoded(secret))));
        match headers.get("authorization") {
            Some(header) => header.to_str().unwrap() == expected,
            None => {
                form.contains(&("client_id".to_owned(), client.to_owned()))
                    && form.iter().all(|(_, value)| value != "client_credentials")
            }
        }
    }

    fn device(&self, headers: &HeaderMap, form: &str) -> Answer {
        let form: Vec<(String, String)> = form_urlencoded::parse(form.as_bytes()).into_owned().collect();
        if !self.knows(headers, &form) {
            return no("invalid_client");
        }
        answer(
            StatusCode::OK,
            &json!({
                "device_code": "the device's", "user_code": "WDJB-MJHT", "verification_uri": format!("{}/go", self.home),
                "verification_uri_complete": format!("{}/go?code=WDJB-MJHT", self.home),
                "expires_in": self.code_time.load(Ordering::Relaxed), "interval": 0,
            }),
        )
    }

    async fn token(self: Arc<Self>, headers: &HeaderMap, form: &str) -> Answer {
        let under_way = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_under_way.fetch_max(under_way, Ordering::SeqCst);
        // Long enough for others to come meanwhile.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let answer = self.clone().answer(headers, form).await;
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        answer
    }

    async fn answer(self: Arc<Self>, headers: &HeaderMap, form: &str) -> Answer {
        let form: Vec<(String, String)> = form_urlencoded::parse(form.as_bytes()).into_owned().collect();
        let field = |name: &str| form.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
        let grant = field("grant_type").unwrap_or_default();
        self.grants.lock().unwrap().push(grant.rsplit(':').next().unwrap().to_owned());
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Good => {}
            Mood::Busy => return answer(StatusCode::SERVICE_UNAVAILABLE, &json!({})),
            Mood::TooMany => return answer(StatusCode::TOO_MANY_REQUESTS, &json!({"error": "rate_limited"})),
            Mood::Html => return Response::new("<html>welcome".into()),
            Mood::NotJson => return Response::new("[\"access_token\"]".into()),
            Mood::NoToken => return answer(StatusCode::OK, &json!({"token_type": "Bearer", "expires_in": 5})),
            Mood::Slow => tokio::time::sleep(Duration::from_secs(60)).await,
            Mood::Redirect => {
                let elsewhere = format!("{}/keys", self.home);
                return Response::builder().status(307).header("location", elsewhere).body(Body::empty()).unwrap();
            }
            Mood::RepeatsSecret => {
                let body = json!({"error": "invalid_client", "error_description": format!("{SECRET} is wrong")});
                return answer(StatusCode::UNAUTHORIZED, &body);
            }
            Mood::LongByItsHeader => {
                return Response::builder().header("content-length", 1_u64 << 40).body(endless(self)).unwrap();
            }
            Mood::Endless => return Response::new(endless(self)),
        }
        if !self.knows(headers, &form) {
            return answer(StatusCode::UNAUTHORIZED, &json!({"error": "invalid_client", "error_description": "who?"}));
        }
        match grant {
            "client_credentials" => {}
            "refresh_token" => {
                if self.refresh.lock().unwrap().take().as_deref() != field("refresh_token") {
                    return no("invalid_grant");
                }
            }
            "urn:ietf:params:oauth:grant-type:device_code" => {
                assert_eq!(field("device_code"), Some("the device's"));
                self.asked_about_sign_in.lock().unwrap().push(Instant::now());
                let mut sign_in = self.sign_in.lock().unwrap();
                match sign_in.front().copied() {
                    Some("for ever") => return no("authorization_pending"),
                    Some(code) => {
                        sign_in.pop_front();
                        return no(code);
                    }
                    None => {}
                }
            }
            _ => return no("unsupported_grant_type"),
        }
        let lifetime = self.lifetime.load(Ordering::Relaxed);
        let mut body = json!({"access_token": self.signed(lifetime), "token_type": "bearer", "expires_in": lifetime});
        if self.refreshes {
            let refresh = format!("refresh {}", self.grants.lock().unwrap().len()).replace(' ', "-");
            body["refresh_token"] = json!(refresh);
            *self.refresh.lock().unwrap() = Some(refresh);
        }
        answer(StatusCode::OK, &body)
    }
}

/// As many bytes as are taken.
fn endless(desk: Arc<Desk>) -> Body {
    let pieces = std::iter::repeat_with(move || {
        desk.pieces.fetch_add(1, Ordering::Relaxed);
        Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 64 << 10]))
    });
    Body::from_stream(futures::stream::iter(pieces))
}

/// Sees what is sent, and what of it is refused.
struct Watched {
    inner: OidcTokens,
    sent: Arc<Mutex<Vec<String>>>,
    refused: Arc<AtomicUsize>,
}

impl Credentials for Watched {
    fn authorization(&self) -> BoxFuture<'_, Result<String>> {
        Box::pin(async {
            let header = self.inner.authorization().await?;
            let mut sent = self.sent.lock().unwrap();
            if sent.last() != Some(&header) {
                sent.push(header.clone());
            }
            Ok(header)
        })
    }

    fn refused(&self) -> bool {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.inner.refused()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_end_soon_are_renewed_under_load_and_no_call_fails() {
    let issuer = Issuer::start_with((CLIENT, SECRET), true).await;
    // A third of it is left when another is asked for: more than a busy machine keeps anybody waiting.
    issuer.desk.lifetime.store(3, Ordering::Relaxed);
    let (sent, refused) = (Arc::new(Mutex::default()), Arc::new(AtomicUsize::new(0)));
    let watched = Watched { inner: issuer.tokens(), sent: sent.clone(), refused: refused.clone() };
    let store = issuer.store(watched).await;
    let stream = store.stream("s/t", 2).await;
    let begun = Instant::now();
    let callers = (0..8).map(|_| {
        let client = store.client.clone();
        let stream = stream.clone();
        tokio::spawn(async move {
            let mut calls = 0;
            while begun.elapsed() < Duration::from_secs(8) {
                assert_eq!(client.current_segments(&stream).await.unwrap().len(), 2);
                calls += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            calls
        })
    });
    let mut calls = 0;
    for caller in callers.collect::<Vec<_>>() {
        calls += caller.await.unwrap();
    }
    let writer = store.client.event_writer(&stream, EventWriterOptions::default()).await.unwrap();
    writer.write("key", "event").await.unwrap().await.unwrap();
    let sent = sent.lock().unwrap().clone();
    let distinct: BTreeSet<_> = sent.iter().collect();
    assert!(calls > 100 && distinct.len() >= 3, "{calls} calls with {} tokens", distinct.len());
    assert_eq!(refused.load(Ordering::Relaxed), 0, "no token had ended when it was sent");
    assert_eq!(issuer.desk.most_under_way.load(Ordering::SeqCst), 1, "callers share one question");
    let grants = issuer.grants();
    assert_eq!((grants[0].as_str(), grants[1].as_str()), ("client_credentials", "refresh_token"));
    assert!(grants.len() <= 12, "asked {} times in 8 s for tokens of three", grants.len());

    // The tokens did end: the store says so.
    let late = ClientOptions::new(&store.address()).unwrap().credentials(bearer(&sent[0]["Bearer ".len()..]).unwrap());
    let refused = late.connect().unwrap().current_segments(&stream).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unauthenticated, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_is_away_is_noticed_when_the_token_has_ended_and_waited_for() {
    let mut issuer = Issuer::start().await;
    issuer.desk.lifetime.store(9, Ordering::Relaxed);
    let store = issuer.store(issuer.tokens()).await;
    store.stream("s/t", 1).await;
    let impatient = ClientOptions::new(&store.address()).unwrap().retry_for(Duration::from_millis(200));
    let impatient = impatient.credentials(issuer.tokens()).connect().unwrap();
    impatient.scopes().await.unwrap();
    let begun = Instant::now();
    issuer.leave().await;
    while begun.elapsed() < Duration::from_secs(7) {
        // Also when it is due, and the issuer is asked in vain.
        impatient.scopes().await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let away = loop {
        match impatient.scopes().await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => break error,
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "the token does not end");
    };
    assert_eq!(away.kind(), ErrorKind::Unavailable, "{away:?}");
    assert!(away.to_string().contains("does not answer"), "{away:?}");

    let patient = {
        let client = store.client.clone();
        tokio::spawn(async move { client.scopes().await })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!patient.is_finished(), "whoever has time waits for the issuer");
    issuer.return_().await;
    assert!(patient.await.unwrap().is_ok());
    // When the pause after the last failure is over.
    let begun = Instant::now();
    while let Err(error) = impatient.scopes().await {
        assert!(begun.elapsed() < Duration::from_secs(20), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_refused_once_for_all_who_ask() {
    let issuer = Issuer::start().await;
    let wrong = issuer.known().secret("planted").client_credentials().unwrap();
    let store = issuer.store(wrong).await;
    let begun = Instant::now();
    let calls = futures::future::join_all((0..50).map(|_| store.client.scopes())).await;
    for call in calls {
        let refused = call.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unauthenticated, "{refused:?}");
        assert!(refused.to_string().contains("invalid_client (who?)"), "{refused}");
        assert!(!format!("{refused:?}").contains("planted"));
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "it is not tried again");
    assert_eq!(issuer.grants().len(), 1);
    // The right one is good.
    issuer.store(issuer.tokens()).await.client.scopes().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_none_are_errors_soon_and_without_their_bytes() {
    let issuer = Issuer::start().await;
    for (mood, kind, words) in [
        (Mood::Busy, ErrorKind::Unavailable, "503"),
        (Mood::TooMany, ErrorKind::Unavailable, "429"),
        (Mood::Slow, ErrorKind::Unavailable, "does not answer"),
        (Mood::Html, ErrorKind::Protocol, "no JSON object"),
        (Mood::NotJson, ErrorKind::Protocol, "no JSON object"),
        (Mood::NoToken, ErrorKind::Protocol, "no token"),
        (Mood::Redirect, ErrorKind::Protocol, "307"),
        (Mood::Endless, ErrorKind::Protocol, "131072 bytes"),
        (Mood::LongByItsHeader, ErrorKind::Protocol, "131072 bytes"),
        (Mood::RepeatsSecret, ErrorKind::Unauthenticated, "repeats the secret"),
    ] {
        issuer.mood(mood);
        issuer.desk.pieces.store(0, Ordering::Relaxed);
        let begun = Instant::now();
        let error = issuer.tokens().obtain().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{mood:?}: {error:?}");
        let said = format!("{error:?}");
        assert!(said.contains(words) && !said.contains(SECRET), "{mood:?}: {said}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{mood:?} took {:?}", begun.elapsed());
        let taken = issuer.desk.pieces.load(Ordering::Relaxed) * (64 << 10);
        assert!(taken < 64 << 20, "{mood:?}: {taken} bytes were on their way");
    }
    issuer.mood(Mood::Good);
    issuer.tokens().obtain().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_describes_itself_otherwise_is_asked_for_nothing() {
    const DEVICE: &str = "device_authorization_endpoint";
    const NEARBY: &str = "http://id.example/device";
    for (about, kind, words) in [
        (json!({"issuer": "https://id.example", "token_endpoint": "HOME/token"}), ErrorKind::Protocol, "calls itself"),
        (
            json!({"issuer": "HOME", "token_endpoint": "http://id.example/token"}),
            ErrorKind::Protocol,
            "token_endpoint is",
        ),
        (json!({"issuer": "HOME"}), ErrorKind::Protocol, "does not say where"),
        (json!(["HOME"]), ErrorKind::Protocol, "calls itself"),
        (json!({"issuer": "HOME", "token_endpoint": "HOME/token"}), ErrorKind::Unsupported, "lets nobody sign in"),
        (json!({"issuer": "HOME", "token_endpoint": "HOME/token", DEVICE: NEARBY}), ErrorKind::Protocol, DEVICE),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let home = format!("http://{}", listener.local_addr().unwrap());
        let about = about.to_string().replace("HOME", &home);
        let router = axum::Router::new().fallback(async move || about);
        let serving = tokio::spawn(async move { axum::serve(listener, router).await });
        let tokens = OidcIssuer::new(&home, CLIENT).unwrap().device(|_| panic!("nobody is asked")).unwrap();
        let error = tokens.obtain().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.to_string().contains(words), "{error:?}");
        if words == DEVICE {
            // To a program it is nothing where people would sign in: its token is asked for, and here there is none.
            let tokens = OidcIssuer::new(&home, CLIENT).unwrap().secret(SECRET).client_credentials().unwrap();
            let error = tokens.obtain().await.unwrap_err();
            assert!(error.to_string().contains("its token is none"), "{error:?}");
        }
        serving.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_goes_away_leaves_the_token_to_others() {
    let issuer = Issuer::start().await;
    let tokens = loop {
        let tokens = issuer.tokens();
        let is_asked = async {
            while issuer.desk.under_way.load(Ordering::SeqCst) == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            biased;
            // The issuer takes 20 ms for its answer.
            () = is_asked => break tokens,
            // Nobody looked meanwhile.
            _ = tokens.obtain() => issuer.desk.grants.lock().unwrap().clear(),
        }
    };
    tokens.obtain().await.unwrap();
    assert_eq!(issuer.grants().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_signs_in_once_and_is_asked_about_as_often_as_the_issuer_wants() {
    let issuer = Issuer::start_with((CLIENT, SECRET), true).await;
    issuer.desk.lifetime.store(1, Ordering::Relaxed);
    issuer.desk.sign_in.lock().unwrap().extend(["authorization_pending", "slow_down"]);
    let prompts = Arc::new(Mutex::new(Vec::new()));
    let tokens = {
        let prompts = prompts.clone();
        issuer.known().device(move |sign_in| prompts.lock().unwrap().push(sign_in.clone())).unwrap()
    };
    let store = issuer.store(tokens).await;
    // The call waits for the person.
    store.client.scopes().await.unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        store.client.scopes().await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let prompts = prompts.lock().unwrap();
    assert_eq!(prompts.len(), 1);
    assert_eq!(
        (prompts[0].address.as_str(), prompts[0].code.as_str()),
        (&*format!("{}/go", issuer.desk.home), "WDJB-MJHT")
    );
    let asked = issuer.desk.asked_about_sign_in.lock().unwrap();
    assert_eq!(asked.len(), 3);
    assert!(asked[2] - asked[1] >= Duration::from_secs(5), "slower by five seconds when it is told so");
    assert_eq!(issuer.grants()[..4], ["device_code", "device_code", "device_code", "refresh_token"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_may_be_denied_or_never_come() {
    let issuer = Issuer::start().await;
    for (said, code_time, kind, words) in [
        ("access_denied", 600, ErrorKind::Denied, "access_denied"),
        ("expired_token", 600, ErrorKind::Unauthenticated, "nobody signed in"),
        ("for ever", 1, ErrorKind::Unauthenticated, "nobody signed in"),
        ("unsupported_grant_type", 600, ErrorKind::Unsupported, "unsupported_grant_type"),
    ] {
        *issuer.desk.sign_in.lock().unwrap() = ["authorization_pending", said].into();
        issuer.desk.code_time.store(code_time, Ordering::Relaxed);
        let begun = Instant::now();
        let error = issuer.known().device(|_| ()).unwrap().obtain().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{said}: {error:?}");
        assert!(error.to_string().contains(words), "{said}: {error}");
        assert!(begun.elapsed() < Duration::from_secs(30), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_is_trusted_by_its_certificate_alone() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let home = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let about = json!({"issuer": home, "token_endpoint": format!("{home}/token")}).to_string();
    let router = axum::Router::new()
        .route("/token", axum::routing::post(async || r#"{"access_token":"t","token_type":"Bearer"}"#))
        .fallback(async move || about);
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let serving = tokio::spawn(async move { axum::serve(Encrypted { listener, acceptor }, router).await });
    let known = || OidcIssuer::new(&home, CLIENT).unwrap().secret(SECRET);

    let trusting = known().trusting(made.cert.pem().as_bytes()).unwrap().client_credentials().unwrap();
    assert_eq!(trusting.authorization().await.unwrap(), "Bearer t");
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap().cert.pem();
    let error = known().trusting(other.as_bytes()).unwrap().client_credentials().unwrap().obtain().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(format!("{error:?}").contains("certificate"), "{error:?}");
    serving.abort();
}

/// Accepts TLS; who cannot speak it is passed over.
struct Encrypted {
    listener: TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
}

impl axum::serve::Listener for Encrypted {
    type Io = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (socket, address) = self.listener.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(socket).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A person's file.
fn written(directory: &Path, line: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let path = directory.join("credentials");
    std::fs::write(&path, line).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

async fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
    command.args(arguments).stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_let_in_by_an_issuer() {
    let issuer = Issuer::start_with(("plain", "secret"), true).await;
    let store = issuer.store(issuer.tokens()).await;
    store.stream("s/t", 1).await;
    let files = tempfile::tempdir().unwrap();
    let home = &issuer.desk.home;
    let list = async |line: &str| {
        let file = written(files.path(), line);
        let address = store.address();
        let place = ["--server", &address, "--credentials", &file, "--patience", "2"];
        let output = run(&[&["scope", "list"][..], &place[..]].concat()).await;
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let ours = "_system\ns\n".to_owned();
    let (code, out, error) = list(&format!("OIDC {home} plain secret=planted")).await;
    assert_eq!((code, out.as_str()), (77, ""), "{error}");
    assert!(error.contains("invalid_client") && !error.contains("planted"), "{error}");
    let (code, _, error) = list("OIDC http://id.example plain").await;
    assert_eq!(code, 64, "{error}");

    let (code, _, error) = list("OIDC http://127.0.0.1:1 plain secret=planted").await;
    assert_eq!(code, 69, "{error}");
    assert!(error.contains("issuer http://127.0.0.1:1 does not answer"), "{error}");

    // A program's own.
    let line = format!("OIDC {home} plain secret=secret");
    assert_eq!(list(&line).await, (0, ours.clone(), String::new()));
    let (file, backup) = (written(files.path(), &line), files.path().join("backup"));
    let output = run(&["backup", "--server", &store.http(), "--credentials", &file, backup.to_str().unwrap()]).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));

    // A person, who is asked once.
    let line = format!("OIDC {home} plain");
    let (code, out, told) = list(&line).await;
    assert_eq!((code, &out), (0, &ours), "{told}");
    assert!(told.contains(&format!("open {home}/go and enter WDJB-MJHT")), "{told}");
    for _ in 0..2 {
        assert_eq!(list(&line).await, (0, ours.clone(), String::new()), "the session goes on");
    }
    // Until the issuer takes it no more.
    *issuer.desk.refresh.lock().unwrap() = None;
    let (code, out, told) = list(&line).await;
    assert_eq!((code, &out), (0, &ours), "{told}");
    assert!(told.contains("WDJB-MJHT"), "{told}");
}
