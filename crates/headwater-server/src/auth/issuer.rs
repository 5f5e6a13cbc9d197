//! The issuer whose tokens are believed: its keys from a file, or from itself by OpenID Connect discovery.
//!
//! Guarantees:
//! * keys come from the file or the address that the operator named and from nowhere that a token names
//! * an issuer that does not answer changes nothing: the keys that are known stay good
//! * between two questions to the issuer there is a pause of [`ASK_EVERY`], however many tokens there are whose signature
//!   holds by no key that is known; one question takes [`PATIENCE`] at most
//! * whoever has such a token waits for the question that is under way, or begins one, and waits for no other; nobody else
//!   waits
//!
//! Source: OpenID Connect Discovery 1.0, section 4.

use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use headwater_auth::bearer::{Bearer, TokenError, Trust};
use headwater_auth::keys::{KeySet, SignatureError};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::files::{Watched, keys};
use super::{AuthError, BearerConfig};
use crate::settling::{LOOK_EVERY, Look};

/// Least time from the end of a question to the issuer to the next one.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// Keys of this age are asked for again.
const OLD: Duration = Duration::from_secs(5 * 60);
/// How long the issuer may take to answer a question: to describe itself, and to say its keys.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

enum Source {
    File(Watched<KeySet>),
    Discovery(Arc<Discovery>),
}

struct Discovery {
    issuer: String,
    client: reqwest::Client,
    known: RwLock<Keys>,
    asked: Mutex<Asked>,
}

/// How far the questions to the issuer are.
#[derive(Default)]
enum Asked {
    #[default]
    Never,
    /// One is under way; cancelled is what waits for its answer.
    Now(CancellationToken),
    /// The last one ended then.
    At(Instant),
}

/// Those of a moment, if there are any.
type Keys = Option<Arc<KeySet>>;

/// Whether they were taken at once.
fn are_same(one: &Keys, other: &Keys) -> bool {
    one.as_ref().map(Arc::as_ptr) == other.as_ref().map(Arc::as_ptr)
}

/// See the [module](self).
pub(super) struct Issuer {
    trust: Trust,
    source: Source,
}

impl Issuer {
    /// Nothing is asked yet.
    pub(super) fn open(config: &BearerConfig) -> Result<Self, AuthError> {
        let trust =
            Trust { issuer: config.issuer.clone(), audience: config.audience.clone(), claim: config.claim.clone() };
        let source = match (&config.keys, &config.issuer) {
            (Some(path), _) => Source::File(Watched::open(path.clone(), keys)?),
            (None, issuer) => Source::Discovery(Arc::new(Discovery::new(issuer.as_deref().unwrap_or_default())?)),
        };
        Ok(Self { trust, source })
    }

    /// Judges a token, and says by which keys; has the issuer asked first if it may have a key by which the token is good,
    /// and calls `changed` if it has others now.
    pub(super) async fn check(
        &self,
        token: &str,
        now: i64,
        changed: impl FnOnce(),
    ) -> (Result<Bearer, TokenError>, Keys) {
        let check = |keys: &Keys| match keys {
            Some(keys) => self.trust.check(keys, token, now),
            None => Err(SignatureError::UnknownKey.into()),
        };
        let keys = self.keys();
        let decided = check(&keys);
        match (&self.source, &decided) {
            (Source::Discovery(discovery), Err(TokenError::Signature(error))) if error.may_hold_by_newer_keys() => {
                if !discovery.ask(&keys, ASK_EVERY).await {
                    return (decided, keys);
                }
                changed();
                let keys = self.keys();
                (check(&keys), keys)
            }
            _ => (decided, keys),
        }
    }

    /// Whether these are still the keys that tokens are judged by.
    pub(super) fn has(&self, keys: &Keys) -> bool {
        are_same(&self.keys(), keys)
    }

    fn keys(&self) -> Keys {
        match &self.source {
            Source::File(keys) => Some(keys.current()),
            Source::Discovery(discovery) => discovery.current(),
        }
    }

    /// Takes the file of keys if there is one and it changed and has stayed as it is for `settling`.
    pub(super) fn look(&self, settling: Duration) -> Look<AuthError> {
        match &self.source {
            Source::File(keys) => keys.look(settling),
            Source::Discovery(_) => Look::Same,
        }
    }

    /// Asks an issuer that is to be asked when its keys are old, for as long as it is let, and calls `changed` when it has
    /// others, also if they came for a caller who did not stay to say so.
    pub(super) async fn keep_fresh(&self, changed: impl Fn()) {
        let Source::Discovery(discovery) = &self.source else { return };
        let mut keys = discovery.current();
        loop {
            sleep(LOOK_EVERY).await;
            if discovery.ask(&keys, if keys.is_some() { OLD } else { ASK_EVERY }).await {
                keys = discovery.current();
                changed();
            }
        }
    }
}

impl Discovery {
    fn new(issuer: &str) -> Result<Self, AuthError> {
        let refused = || AuthError::Issuer { issuer: issuer.to_owned() };
        if !is_safe(issuer) {
            return Err(refused());
        }
        // One provider of cryptography in the process; whoever was first has chosen the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            // To where somebody else says is not where the operator said.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|_| refused())?;
        let issuer = issuer.to_owned();
        Ok(Self { issuer, client, known: RwLock::default(), asked: Mutex::default() })
    }

    fn current(&self) -> Keys {
        self.known.read().expect("a panic ends the process").clone()
    }

    /// Waits for the question that is under way, or for a new one unless the last ended within `pause`; true if the keys are
    /// others than `before` now.
    async fn ask(self: &Arc<Self>, before: &Keys, pause: Duration) -> bool {
        if let Some(answered) = self.question(pause) {
            answered.cancelled().await;
        }
        !are_same(before, &self.current())
    }

    /// Whoever has begun a question may go away meanwhile: the answer is taken all the same, or callers who never wait could
    /// keep the issuer's keys from being known.
    fn question(self: &Arc<Self>, pause: Duration) -> Option<CancellationToken> {
        let mut asked = self.asked.lock().expect("a panic ends the process");
        match &*asked {
            Asked::Now(answered) => return Some(answered.clone()),
            Asked::At(ended) if ended.elapsed() < pause => return None,
            Asked::At(_) | Asked::Never => {}
        }
        let answered = CancellationToken::new();
        *asked = Asked::Now(answered.clone());
        // Also if the runtime drops the question unanswered nobody is left waiting.
        let (this, answering) = (self.clone(), answered.clone().drop_guard());
        tokio::spawn(async move {
            this.take().await;
            *this.asked.lock().expect("a panic ends the process") = Asked::At(Instant::now());
            drop(answering);
        });
        Some(answered)
    }

    async fn take(&self) {
        let late = |_| Err(format!("it has not answered within {} s", PATIENCE.as_secs()));
        match timeout(PATIENCE, self.fetch()).await.unwrap_or_else(late) {
            Ok(keys) if self.current().as_deref() == Some(&keys) => {}
            Ok(keys) => {
                *self.known.write().expect("a panic ends the process") = Some(Arc::new(keys));
                tracing::info!(issuer = self.issuer, "keys of the issuer taken");
            }
            Err(error) => {
                tracing::warn!(issuer = self.issuer, error, "issuer gives no keys, those that are known stay good");
            }
        }
    }

    async fn fetch(&self) -> Result<KeySet, String> {
        let base = self.issuer.trim_end_matches('/');
        let about = self.get(&format!("{base}/.well-known/openid-configuration")).await?;
        let about: Value = serde_json::from_str(&about).map_err(|_| "its description is no JSON".to_owned())?;
        if about.get("issuer").and_then(Value::as_str) != Some(&self.issuer) {
            return Err("it calls itself otherwise".to_owned());
        }
        let at = about.get("jwks_uri").and_then(Value::as_str).filter(|at| is_safe(at));
        let keys = self.get(at.ok_or("it does not say where its keys are, or not safely")?).await?;
        KeySet::parse(&keys).map_err(|error| error.to_string())
    }

    async fn get(&self, address: &str) -> Result<String, String> {
        let failed = |error: reqwest::Error| crate::secrets::chain(&error);
        let mut response = self.client.get(address).send().await.and_then(|r| r.error_for_status()).map_err(failed)?;
        if !response.status().is_success() {
            return Err(format!("it answers with {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(failed)? {
            if body.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err("its answer is too long".to_owned());
            }
            body.extend_from_slice(&piece);
        }
        String::from_utf8(body).map_err(|_| "its answer is no text".to_owned())
    }
}

/// Nobody on the way can put keys of their own in.
fn is_safe(address: &str) -> bool {
    let Ok(address) = reqwest::Url::parse(address) else { return false };
    match address.scheme() {
        "https" => true,
        "http" => match address.host_str() {
            Some("localhost") => true,
            Some(host) => host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()),
            None => false,
        },
        _ => false,
    }
}

#[cfg(test)]
#[allow(dead_code, reason = "these tests need some of it")]
#[path = "../../tests/it/signer.rs"]
mod signer;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::body::{Body, Bytes};
    use axum::http::{StatusCode, Uri, header};
    use axum::response::{IntoResponse as _, Response};
    use futures::{FutureExt as _, StreamExt as _};
    use tokio::net::TcpListener;

    use super::signer::Signer;
    use super::*;

    #[test]
    fn keys_come_over_tls_or_from_this_machine() {
        for (address, expected) in [
            ("https://id.example/realms/r", true),
            ("http://127.0.0.1:8080/", true),
            ("http://[::1]:8080/", true),
            ("http://localhost:8080", true),
            ("http://id.example", false),
            ("http://localhost.example", false),
            ("file:///etc/passwd", false),
            ("", false),
        ] {
            assert_eq!(is_safe(address), expected, "{address}");
        }
    }

    /// How an issuer answers. What it says otherwise is right, and would be believed.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    enum Mood {
        Good,
        CallsItselfOtherwise,
        HasNoName,
        KeysByPlainHttp,
        KeysInAFile,
        KeysNowhere,
        DescriptionElsewhere,
        KeysElsewhere,
        DescriptionFails,
        KeysFail,
        DescriptionIsNoJson,
        KeysAreNoJson,
        KeysAreNoText,
        NoKeys,
        DescriptionTooLong,
        KeysTooLong,
        DescriptionNever,
        KeysNever,
        KeysNeverEnd,
        /// Not bad: two answers, neither of which takes too long.
        Slow,
    }

    const BAD: [Mood; 18] = [
        Mood::CallsItselfOtherwise,
        Mood::HasNoName,
        Mood::KeysByPlainHttp,
        Mood::KeysInAFile,
        Mood::KeysNowhere,
        Mood::DescriptionElsewhere,
        Mood::KeysElsewhere,
        Mood::DescriptionFails,
        Mood::KeysFail,
        Mood::DescriptionIsNoJson,
        Mood::KeysAreNoJson,
        Mood::KeysAreNoText,
        Mood::NoKeys,
        Mood::DescriptionTooLong,
        Mood::KeysTooLong,
        Mood::DescriptionNever,
        Mood::KeysNever,
        Mood::KeysNeverEnd,
    ];

    /// How long [`Mood::Slow`] takes for one answer.
    const SLOW: Duration = PATIENCE.saturating_sub(Duration::from_secs(3));

    /// An issuer, and a listener where nobody is to ask.
    struct Stage {
        home: String,
        elsewhere: std::net::SocketAddr,
        mood: Mutex<Mood>,
        keys: Mutex<String>,
        asked: AtomicUsize,
        asked_elsewhere: AtomicUsize,
        /// Answers that do not come, or not at once.
        kept_waiting: AtomicUsize,
    }

    impl Stage {
        async fn open() -> Arc<Self> {
            let (here, there) = (TcpListener::bind("127.0.0.1:0").await, TcpListener::bind("127.0.0.1:0").await);
            let (here, there) = (here.unwrap(), there.unwrap());
            let stage = Arc::new(Self {
                home: format!("http://{}", here.local_addr().unwrap()),
                elsewhere: there.local_addr().unwrap(),
                mood: Mutex::new(Mood::Good),
                keys: Mutex::default(),
                asked: AtomicUsize::new(0),
                asked_elsewhere: AtomicUsize::new(0),
                kept_waiting: AtomicUsize::new(0),
            });
            let (of_here, of_there) = (stage.clone(), stage.clone());
            let here_router = axum::Router::new().fallback(async move |uri: Uri| {
                of_here.asked.fetch_add(1, Ordering::Relaxed);
                of_here.answer(uri.path()).await
            });
            // Where they are not to be taken from there are the same keys.
            let there_router = axum::Router::new().fallback(async move |uri: Uri| {
                of_there.asked_elsewhere.fetch_add(1, Ordering::Relaxed);
                of_there.right(uri.path().ends_with("keys"))
            });
            tokio::spawn(async move { axum::serve(here, here_router).await });
            tokio::spawn(async move { axum::serve(there, there_router).await });
            stage
        }

        /// What asks it for its keys.
        fn issuer(&self) -> Issuer {
            let issuer = Issuer::open(&BearerConfig {
                keys: None,
                issuer: Some(self.home.clone()),
                audience: "us".to_owned(),
                claim: Some("grants".to_owned()),
            });
            issuer.unwrap()
        }

        fn publish(&self, signer: &Signer, id: &str) {
            *self.keys.lock().unwrap() = format!(r#"{{"keys":[{}]}}"#, signer.published(id));
        }

        /// One of its tokens.
        fn token(&self, signer: &Signer, header: &str) -> String {
            let payload =
                format!(r#"{{"iss":"{}","aud":"us","sub":"u","exp":300,"grants":["prn::*,READ"]}}"#, self.home);
            signer.sign(header, &payload).strip_prefix("Bearer ").unwrap().to_owned()
        }

        fn take(&self, mood: Mood) {
            *self.mood.lock().unwrap() = mood;
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }

        fn kept_waiting(&self) -> usize {
            self.kept_waiting.load(Ordering::Relaxed)
        }

        /// Until so many answers have been waited for.
        async fn keeps_waiting(&self, count: usize) {
            while self.kept_waiting() < count {
                sleep(Duration::from_millis(1)).await;
            }
        }

        fn description(&self, issuer: &str, keys: &str) -> String {
            format!(r#"{{"issuer":"{issuer}","jwks_uri":"{keys}"}}"#)
        }

        fn right(&self, is_keys: bool) -> String {
            match is_keys {
                true => self.keys.lock().unwrap().clone(),
                false => self.description(&self.home, &format!("{}/keys", self.home)),
            }
        }

        /// No address of this machine alone, and yet one that leads to it.
        fn plain(&self) -> String {
            format!("http://0.0.0.0:{}/keys", self.elsewhere.port())
        }

        async fn answer(&self, path: &str) -> Response {
            let (mood, is_keys) = (*self.mood.lock().unwrap(), path == "/keys");
            let (home, keys) = (&self.home, format!("{}/keys", self.home));
            let right = self.right(is_keys);
            let never = async || {
                self.kept_waiting.fetch_add(1, Ordering::Relaxed);
                std::future::pending::<Response>().await
            };
            let long = || format!("{right}{}", " ".repeat(ANSWER_BYTES_MAX));
            match (mood, is_keys) {
                (Mood::CallsItselfOtherwise, false) => self.description(&format!("{home}/"), &keys).into_response(),
                (Mood::HasNoName, false) => format!(r#"{{"jwks_uri":"{keys}"}}"#).into_response(),
                (Mood::KeysByPlainHttp, false) => self.description(home, &self.plain()).into_response(),
                (Mood::KeysInAFile, false) => self.description(home, "file:///etc/passwd").into_response(),
                (Mood::KeysNowhere, false) => format!(r#"{{"issuer":"{home}"}}"#).into_response(),
                (Mood::DescriptionElsewhere, false) | (Mood::KeysElsewhere, true) => {
                    let at = format!("http://{}{path}", self.elsewhere);
                    (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, at)], right).into_response()
                }
                (Mood::DescriptionFails, false) => (StatusCode::INTERNAL_SERVER_ERROR, right).into_response(),
                (Mood::KeysFail, true) => (StatusCode::SERVICE_UNAVAILABLE, right).into_response(),
                (Mood::DescriptionIsNoJson, false) | (Mood::KeysAreNoJson, true) => {
                    format!("<html>{right}</html>").into_response()
                }
                (Mood::KeysAreNoText, true) => [right.as_bytes(), &[0xff]].concat().into_response(),
                (Mood::NoKeys, true) => r#"{"keys":[]}"#.into_response(),
                (Mood::DescriptionTooLong, false) | (Mood::KeysTooLong, true) => long().into_response(),
                (Mood::DescriptionNever, false) | (Mood::KeysNever, true) => never().await,
                (Mood::Slow, _) => {
                    self.kept_waiting.fetch_add(1, Ordering::Relaxed);
                    sleep(SLOW).await;
                    right.into_response()
                }
                (Mood::KeysNeverEnd, true) => {
                    self.kept_waiting.fetch_add(1, Ordering::Relaxed);
                    let begun = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(right))]);
                    Body::from_stream(begun.chain(futures::stream::pending())).into_response()
                }
                _ => right.into_response(),
            }
        }
    }

    /// Lets time pass, but for what others do meanwhile.
    async fn pass(time: Duration) {
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
    }

    fn named(id: &str) -> String {
        format!(r#"{{"alg":"ES256","kid":"{id}"}}"#)
    }

    const UNKNOWN: TokenError = TokenError::Signature(SignatureError::UnknownKey);

    #[tokio::test]
    async fn callers_with_unknown_keys_wait_for_one_question_and_there_is_a_pause_behind_it() {
        let signer = Signer::new();
        let stage = Stage::open().await;
        let issuer = Arc::new(stage.issuer());
        let token = stage.token(&signer, &named("k"));
        let call = || {
            let (issuer, token) = (issuer.clone(), token.clone());
            tokio::spawn(async move { issuer.check(&token, 0, || ()).await.0.map(drop) })
        };
        let second = Duration::from_secs(1);
        for mood in [Mood::DescriptionNever, Mood::KeysNever] {
            stage.take(mood);
            let waiting = stage.kept_waiting();
            let callers: Vec<_> = (0..20).map(|_| call()).collect();
            stage.keeps_waiting(waiting + 1).await;
            pass(PATIENCE - second).await;
            sleep(second / 10).await;
            assert!(callers.iter().all(|caller| !caller.is_finished()), "{mood:?}: it still may answer");
            pass(second).await;
            let answers = timeout(second * 5, futures::future::join_all(callers)).await.expect("all are done together");
            assert!(answers.into_iter().all(|answer| answer.unwrap() == Err(UNKNOWN)), "{mood:?}");
            pass(ASK_EVERY - second).await;
            assert_eq!(timeout(second * 5, call()).await.expect("nothing to wait for").unwrap(), Err(UNKNOWN));
            assert_eq!(stage.kept_waiting(), waiting + 1, "{mood:?}: one question for all, and no other so soon");
            pass(second).await;
            let late = call();
            stage.keeps_waiting(waiting + 2).await;
            pass(PATIENCE).await;
            assert_eq!(late.await.unwrap(), Err(UNKNOWN));
            pass(ASK_EVERY).await;
        }
        stage.publish(&signer, "k");
        stage.take(Mood::Good);
        let callers: Vec<_> = (0..20).map(|_| call()).collect();
        let answers = timeout(second * 5, futures::future::join_all(callers)).await.unwrap();
        assert!(answers.into_iter().all(|answer| answer.unwrap() == Ok(())), "one answer is everybody's");
    }

    #[tokio::test]
    async fn a_question_has_its_patience_for_both_answers_together() {
        let signer = Signer::new();
        let stage = Stage::open().await;
        let issuer = stage.issuer();
        stage.publish(&signer, "k");
        stage.take(Mood::Slow);
        let token = stage.token(&signer, &named("k"));
        let passing = async {
            stage.keeps_waiting(1).await;
            pass(SLOW).await;
            stage.keeps_waiting(2).await;
            pass(PATIENCE - SLOW).await;
        };
        let ((decided, _), ()) = tokio::join!(issuer.check(&token, 0, || ()), passing);
        assert_eq!(decided, Err(UNKNOWN));
        // Each of them by itself came soon enough.
        pass(SLOW).await;
        stage.take(Mood::Good);
        pass(ASK_EVERY).await;
        issuer.check(&token, 0, || ()).await.0.unwrap();
    }

    #[tokio::test]
    async fn keys_that_are_replaced_under_their_name_are_asked_for_and_so_are_those_that_no_token_names() {
        for header in [named("k"), r#"{"alg":"ES256"}"#.to_owned()] {
            let (old, new) = (Signer::new(), Signer::new());
            let stage = Stage::open().await;
            let issuer = Arc::new(stage.issuer());
            let check = async |token: &str| issuer.check(token, 0, || ()).await.0.map(drop);
            let (of_old, of_new) = (stage.token(&old, &header), stage.token(&new, &header));
            stage.publish(&old, "k");
            check(&of_old).await.unwrap();
            let asked = stage.asked();

            stage.publish(&new, "k");
            let forged = Err(TokenError::Signature(SignatureError::Forged));
            assert_eq!(check(&of_new).await, forged, "{header}: the issuer was asked a moment ago");
            check(&of_old).await.unwrap();
            assert_eq!(stage.asked(), asked, "{header}");
            pass(ASK_EVERY).await;
            check(&of_new).await.unwrap();
            assert!(stage.asked() > asked, "{header}");

            // However many forgeries come, one question is asked, and nobody waits for it but they.
            stage.take(Mood::KeysNever);
            pass(ASK_EVERY).await;
            let waiting = stage.kept_waiting();
            let forgeries: Vec<_> = (0..20)
                .map(|_| {
                    let (issuer, token) = (issuer.clone(), of_old.clone());
                    tokio::spawn(async move { issuer.check(&token, 0, || ()).await.0.map(drop) })
                })
                .collect();
            stage.keeps_waiting(waiting + 1).await;
            check(&of_new).now_or_never().expect("who is known does not wait").unwrap();
            assert!(forgeries.iter().all(|call| !call.is_finished()), "{header}");
            pass(PATIENCE).await;
            for call in forgeries {
                assert_eq!(call.await.unwrap(), forged, "{header}");
            }
            assert_eq!(stage.kept_waiting(), waiting + 1, "{header}");
        }
    }

    #[tokio::test]
    async fn an_issuer_that_answers_badly_is_not_followed_and_its_old_keys_stay_good() {
        let (old, new) = (Signer::new(), Signer::new());
        let stage = Stage::open().await;
        stage.publish(&old, "old");
        let issuer = stage.issuer();
        let (of_old, of_new) = (stage.token(&old, &named("old")), stage.token(&new, &named("new")));
        let changes = AtomicUsize::new(0);
        let check = async |token: &str| {
            let checking = issuer.check(token, 0, || _ = changes.fetch_add(1, Ordering::Relaxed));
            tokio::time::timeout(Duration::from_secs(60), checking).await.expect("nothing hangs").0
        };
        check(&of_old).await.unwrap();
        assert_eq!(changes.load(Ordering::Relaxed), 1);

        stage.publish(&new, "new");
        for mood in BAD {
            stage.take(mood);
            let (asked, waiting) = (stage.asked(), stage.kept_waiting());
            pass(ASK_EVERY).await;
            let waits = async {
                if matches!(mood, Mood::DescriptionNever | Mood::KeysNever | Mood::KeysNeverEnd) {
                    stage.keeps_waiting(waiting + 1).await;
                    pass(PATIENCE).await;
                }
            };
            let (decided, ()) = tokio::join!(check(&of_new), waits);
            assert_eq!(decided, Err(UNKNOWN), "{mood:?}");
            assert!(stage.asked() > asked, "{mood:?}: the issuer was asked");
            check(&of_old).await.unwrap_or_else(|error| panic!("{mood:?}: {error}"));
            assert_eq!(stage.asked_elsewhere.load(Ordering::Relaxed), 0, "{mood:?}");
        }
        assert_eq!(changes.load(Ordering::Relaxed), 1, "its keys never changed meanwhile");

        // Nothing else was wrong with any of it.
        stage.take(Mood::Good);
        pass(ASK_EVERY).await;
        check(&of_new).await.unwrap();
        assert!(check(&of_old).await.is_err());
        assert_eq!(changes.load(Ordering::Relaxed), 2);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.get(stage.plain()).send().await.unwrap().error_for_status().unwrap();
        assert_eq!(stage.asked_elsewhere.load(Ordering::Relaxed), 1, "whoever asks there is heard");
    }
}
