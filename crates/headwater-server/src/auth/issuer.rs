//! The issuer whose tokens are believed: its keys from a file, or from itself by OpenID Connect discovery.
//!
//! Guarantees:
//! * keys come from the file or the address that the operator named and from nowhere that a token names
//! * an issuer that does not answer changes nothing: the keys that are known stay good
//! * the issuer is asked at most every [`ASK_EVERY`], however many tokens name keys that nobody knows
//!
//! Source: OpenID Connect Discovery 1.0, section 4.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use headwater_auth::bearer::{Bearer, TokenError, Trust};
use headwater_auth::keys::{KeySet, SignatureError};
use serde_json::Value;
use tokio::time::Instant;

use super::files::{Watched, keys};
use super::{AuthError, BearerConfig};
use crate::settling::Look;

/// Least time between two questions to the issuer.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// Keys of this age are asked for again.
const OLD: Duration = Duration::from_secs(5 * 60);
/// How long the issuer may take for one answer.
const PATIENCE: Duration = Duration::from_secs(10);
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
    /// Held while the issuer is asked.
    asked: Arc<tokio::sync::Mutex<Option<Instant>>>,
}

/// Those of a moment, if there are any.
type Keys = Option<Arc<KeySet>>;

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

    /// Judges a token, and says by which keys; asks the issuer first if it may have a key that is not known yet, and
    /// calls `changed` if it has others now.
    pub(super) async fn check(
        &self,
        token: &str,
        now: i64,
        changed: impl FnOnce(),
    ) -> (Result<Bearer, TokenError>, Keys) {
        let unknown = TokenError::Signature(SignatureError::UnknownKey);
        let check = |keys: &Keys| match keys {
            Some(keys) => self.trust.check(keys, token, now),
            None => Err(unknown.clone()),
        };
        let keys = self.keys();
        let decided = check(&keys);
        match &self.source {
            Source::Discovery(discovery) if decided.as_ref() == Err(&unknown) => {
                if discovery.ask(ASK_EVERY).await {
                    changed();
                }
                let keys = self.keys();
                (check(&keys), keys)
            }
            _ => (decided, keys),
        }
    }

    /// Whether these are still the keys that tokens are judged by.
    pub(super) fn has(&self, keys: Option<&Arc<KeySet>>) -> bool {
        self.keys().as_ref().map(Arc::as_ptr) == keys.map(Arc::as_ptr)
    }

    /// Those that tokens are judged by.
    pub(super) fn keys(&self) -> Keys {
        match &self.source {
            Source::File(keys) => Some(keys.current()),
            Source::Discovery(discovery) => discovery.current(),
        }
    }

    /// Takes the file of keys if there is one and it changed.
    pub(super) fn look(&self) -> Look<AuthError> {
        match &self.source {
            Source::File(keys) => keys.look(),
            Source::Discovery(_) => Look::Same,
        }
    }

    /// Asks the issuer if its keys are old.
    pub(super) async fn refresh_if_old(&self) {
        if let Source::Discovery(discovery) = &self.source {
            let is_known = discovery.current().is_some();
            discovery.ask(if is_known { OLD } else { ASK_EVERY }).await;
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
            .timeout(PATIENCE)
            // To where somebody else says is not where the operator said.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|_| refused())?;
        let issuer = issuer.to_owned();
        Ok(Self { issuer, client, known: RwLock::default(), asked: Arc::default() })
    }

    fn current(&self) -> Keys {
        self.known.read().expect("a panic ends the process").clone()
    }

    /// Asks the issuer unless it was asked within `pause`; true if its keys are others now.
    /// Whoever asked may go away meanwhile: the answer is taken all the same, or callers who never wait could keep the
    /// issuer's keys from being known.
    async fn ask(self: &Arc<Self>, pause: Duration) -> bool {
        let before = self.current();
        let mut asked = self.asked.clone().lock_owned().await;
        let is_changed = before.as_ref().map(Arc::as_ptr) != self.current().as_ref().map(Arc::as_ptr);
        if is_changed || asked.is_some_and(|at| at.elapsed() < pause) {
            return is_changed;
        }
        *asked = Some(Instant::now());
        let this = self.clone();
        let taking = tokio::spawn(async move {
            let is_changed = this.take(before).await;
            drop(asked);
            is_changed
        });
        taking.await.expect("a panic ends the process")
    }

    async fn take(&self, before: Keys) -> bool {
        match self.fetch().await {
            Ok(keys) if before.as_deref() == Some(&keys) => false,
            Ok(keys) => {
                *self.known.write().expect("a panic ends the process") = Some(Arc::new(keys));
                tracing::info!(issuer = self.issuer, "keys of the issuer taken");
                true
            }
            Err(error) => {
                tracing::warn!(issuer = self.issuer, error, "issuer gives no keys, those that are known stay good");
                false
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
    use futures::StreamExt as _;
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

    /// An issuer, and a listener where nobody is to ask.
    struct Stage {
        home: String,
        elsewhere: std::net::SocketAddr,
        mood: Mutex<Mood>,
        keys: Mutex<String>,
        asked: AtomicUsize,
        asked_elsewhere: AtomicUsize,
        /// Answers that do not come.
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

    #[tokio::test]
    async fn an_issuer_that_answers_badly_is_not_followed_and_its_old_keys_stay_good() {
        let (old, new) = (Signer::new(), Signer::new());
        let published = |signer: &Signer, id: &str| format!(r#"{{"keys":[{}]}}"#, signer.published(id));
        let stage = Stage::open().await;
        *stage.keys.lock().unwrap() = published(&old, "old");
        let issuer = Issuer::open(&BearerConfig {
            keys: None,
            issuer: Some(stage.home.clone()),
            audience: "us".to_owned(),
            claim: Some("grants".to_owned()),
        });
        let issuer = issuer.unwrap();
        let payload = format!(r#"{{"iss":"{}","aud":"us","sub":"u","exp":300,"grants":["prn::*,READ"]}}"#, stage.home);
        let token = |signer: &Signer, id: &str| {
            let signed = signer.sign(&format!(r#"{{"alg":"ES256","kid":"{id}"}}"#), &payload);
            signed.strip_prefix("Bearer ").unwrap().to_owned()
        };
        let (of_old, of_new) = (token(&old, "old"), token(&new, "new"));
        let changes = AtomicUsize::new(0);
        let check = async |token: &str| {
            let checking = issuer.check(token, 0, || _ = changes.fetch_add(1, Ordering::Relaxed));
            tokio::time::timeout(Duration::from_secs(60), checking).await.expect("nothing hangs").0
        };
        check(&of_old).await.unwrap();
        assert_eq!(changes.load(Ordering::Relaxed), 1);

        *stage.keys.lock().unwrap() = published(&new, "new");
        for mood in BAD {
            *stage.mood.lock().unwrap() = mood;
            let (asked, waiting) = (stage.asked.load(Ordering::Relaxed), stage.kept_waiting.load(Ordering::Relaxed));
            pass(ASK_EVERY).await;
            let waits = async {
                if matches!(mood, Mood::DescriptionNever | Mood::KeysNever | Mood::KeysNeverEnd) {
                    while stage.kept_waiting.load(Ordering::Relaxed) == waiting {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    pass(PATIENCE).await;
                }
            };
            let (decided, ()) = tokio::join!(check(&of_new), waits);
            assert_eq!(decided, Err(TokenError::Signature(SignatureError::UnknownKey)), "{mood:?}");
            assert!(stage.asked.load(Ordering::Relaxed) > asked, "{mood:?}: the issuer was asked");
            check(&of_old).await.unwrap_or_else(|error| panic!("{mood:?}: {error}"));
            assert_eq!(stage.asked_elsewhere.load(Ordering::Relaxed), 0, "{mood:?}");
        }
        assert_eq!(changes.load(Ordering::Relaxed), 1, "its keys never changed meanwhile");

        // Nothing else was wrong with any of it.
        *stage.mood.lock().unwrap() = Mood::Good;
        pass(ASK_EVERY).await;
        check(&of_new).await.unwrap();
        assert!(check(&of_old).await.is_err());
        assert_eq!(changes.load(Ordering::Relaxed), 2);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.get(stage.plain()).send().await.unwrap().error_for_status().unwrap();
        assert_eq!(stage.asked_elsewhere.load(Ordering::Relaxed), 1, "whoever asks there is heard");
    }
}
