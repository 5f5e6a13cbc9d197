//! Who is calling, and what holds the answers together: password file, issuer's keys, signing key.
//!
//! ```text
//!   gRPC, HTTP: authorization header ─► identify ─► caller ─► the table of operations
//!   segment store: delegation token ─► verify ────► claims ─► the table of operations
//! ```
//!
//! Guarantees:
//! * without a word about who calls, a caller is nobody, to whom nothing is granted
//! * a wrong password costs a derivation, and no more of those run at a time than leave a processor to others, also
//!   when callers do not wait for them
//! * whoever was known before waits for at most the derivations that run already, however many strangers wait
//! * crowds of strangers delay one who comes from elsewhere by one derivation for each of their networks at most
//! * what was decided by files or keys that were replaced since is not kept
//! * a file that is no good when it is read again, or still being written, changes nothing; one that is good is taken also
//!   while an issuer does not answer
//!
//! What is decided is in `headwater-auth`; here are files, clocks and threads.

mod files;
pub(crate) mod grpc;
pub(crate) mod http;
mod issuer;
mod line;
pub mod users;
pub(crate) mod wire;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use headwater_auth::cache::{Cache, ENTRIES_MAX};
use headwater_auth::keys::KeysError;
use headwater_auth::passwords::{FileError as PasswordFileError, PasswordFile};
use headwater_auth::places::Seal;
use headwater_auth::{Grants, Level, Resource, bearer, delegation};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use self::files::Watched;
use self::issuer::Issuer;
pub(crate) use self::line::Origin;
use self::line::Strangers;
use crate::metrics::Metrics;
pub use crate::secrets::FileError;
use crate::secrets::chain;
use crate::settling::{Look, Occasion, settle};

/// Calls of callers known before that may wait for a processor; further ones are refused. As many as are known: the calls of
/// one caller wait for one derivation, whose answer they share.
const RETURNING_MAX: usize = ENTRIES_MAX;
/// Longest header that is looked at, in bytes.
const HEADER_BYTES_MAX: usize = 16 << 10;

/// How callers prove who they are. At least one of `passwords` and `bearer` has to be there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AuthConfig {
    /// The password file, for `Basic`.
    pub passwords: Option<PathBuf>,
    /// Whose tokens are believed, for `Bearer`.
    pub bearer: Option<BearerConfig>,
    /// A file with the key that signs delegation tokens; `None`: one in the data directory, made at the first start.
    pub token_key: Option<PathBuf>,
    /// How long a delegation token is good for, in seconds.
    pub token_lifetime_seconds: u32,
}

/// Whose tokens are believed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BearerConfig {
    /// A file with public keys, PEM or a JSON key set; `None`: the issuer is asked for them.
    pub keys: Option<PathBuf>,
    /// The issuer, which is also the address where it describes itself.
    pub issuer: Option<String>,
    /// What `aud` of a token has to name.
    pub audience: String,
    /// A claim with further grants.
    pub claim: Option<String>,
}

/// Why nobody could be identified.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// A file is of no use.
    #[error(transparent)]
    File(#[from] FileError),
    /// The password file has a bad line.
    #[error("password file {}", path.display())]
    Passwords {
        /// Which file.
        path: PathBuf,
        /// The line.
        source: PasswordFileError,
    },
    /// The password file has nothing in it.
    #[error("password file {} is empty; a comment says that nobody is meant", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// The keys of the issuer cannot be read.
    #[error("keys in {}", path.display())]
    Keys {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: KeysError,
    },
    /// The signing key is too short.
    #[error("signing key in {}", path.display())]
    TokenKey {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: delegation::ShortKey,
    },
    /// The system has no randomness.
    #[error("no random bytes")]
    NoChance,
    /// The address of the issuer makes no sense.
    #[error("issuer {issuer:?} is neither an https:// address nor an http:// one of this machine")]
    Issuer {
        /// As configured.
        issuer: String,
    },
}

/// Who calls.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// Nobody has to prove anything on this server.
    Anyone,
    /// Somebody who did not say who they are.
    Nobody,
    /// Somebody who proved it.
    Known {
        /// For the log.
        name: Arc<str>,
        grants: Arc<Grants>,
    },
}

static NOTHING: std::sync::LazyLock<Grants> = std::sync::LazyLock::new(Grants::default);

impl Caller {
    /// What they may do; `None`: everything.
    pub(crate) fn grants(&self) -> Option<&Grants> {
        match self {
            Self::Anyone => None,
            Self::Nobody => Some(&NOTHING),
            Self::Known { grants, .. } => Some(grants),
        }
    }

    pub(crate) fn is_nobody(&self) -> bool {
        matches!(self, Self::Nobody)
    }

    /// Whether they see something in a list.
    pub(crate) fn sees(&self, resource: Resource<'_>) -> bool {
        self.may(resource, Level::Read)
    }

    /// Whether they have a level.
    pub(crate) fn may(&self, resource: Resource<'_>, level: Level) -> bool {
        self.grants().is_none_or(|grants| grants.allow(resource, level))
    }
}

/// Why a caller is not who they say they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Unknown {
    #[error("credentials are malformed, of an unknown kind, or wrong")]
    Refused,
    #[error("too many others prove who they are")]
    Busy,
}

/// Everything that identification needs. Clones share it.
#[derive(Clone, Debug)]
pub struct Guard(Option<Arc<Inner>>);

struct Inner {
    passwords: Option<Watched<PasswordFile>>,
    issuer: Option<Issuer>,
    key: delegation::Key,
    places: Seal,
    lifetime_seconds: u32,
    known: Mutex<Cache<Caller>>,
    deriving: Arc<Semaphore>,
    /// Taken before `deriving` by callers who were never known, so that only few of them are ever in that queue.
    strangers: Strangers,
    /// Others who wait.
    returning: Arc<AtomicUsize>,
    clock: Clock,
    look: Notify,
    metrics: Metrics,
}

/// Milliseconds since 1970.
pub(crate) type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("lifetime_seconds", &self.lifetime_seconds).finish_non_exhaustive()
    }
}

impl Guard {
    /// Lets everybody do everything.
    pub fn off() -> Self {
        Self(None)
    }

    /// Reads all files. The data directory has to be ours by now.
    ///
    /// # Errors
    /// Any [`AuthError`].
    pub(crate) fn open(
        config: &AuthConfig,
        data_dir: &std::path::Path,
        clock: Clock,
        metrics: Metrics,
    ) -> Result<Self, AuthError> {
        let passwords = config.passwords.clone().map(|path| Watched::open(path, files::passwords)).transpose()?;
        let issuer = config.bearer.as_ref().map(Issuer::open).transpose()?;
        let key = files::signing_key(config.token_key.as_deref(), data_dir)?;
        let at_once = (std::thread::available_parallelism().map_or(1, usize::from) - 1).max(1);
        let inner = Inner {
            passwords,
            issuer,
            places: key.places(),
            key,
            lifetime_seconds: config.token_lifetime_seconds,
            known: Mutex::new(Cache::new(&files::chance()?)),
            deriving: Arc::new(Semaphore::new(at_once)),
            strangers: Strangers::new((at_once - 1).max(1)),
            returning: Arc::default(),
            clock,
            look: Notify::new(),
            metrics,
        };
        Ok(Self(Some(Arc::new(inner))))
    }

    /// Whether callers have to prove who they are.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Who calls, by the headers of a call and where it comes from.
    pub(crate) async fn identify(&self, headers: &HeaderMap, origin: Origin) -> Result<Caller, Unknown> {
        let Some(inner) = &self.0 else { return Ok(Caller::Anyone) };
        let mut said = headers.get_all(axum::http::header::AUTHORIZATION).iter();
        let (first, more) = (said.next(), said.next());
        let Some(header) = first else { return Ok(Caller::Nobody) };
        let header = header.to_str().ok().filter(|header| more.is_none() && header.len() <= HEADER_BYTES_MAX);
        let header = header.unwrap_or_default();
        let identified = inner.identify(header, origin).await;
        match &identified {
            Ok(_) => {}
            Err(Unknown::Refused) => _ = inner.metrics.auth_refused(kind(header)).inc(),
            Err(Unknown::Busy) => _ = inner.metrics.auth_busy.inc(),
        }
        identified
    }

    /// A delegation token for some resources; empty on a server that asks for none.
    pub(crate) fn issue(&self, grants: &[(Resource<'_>, Level)]) -> Option<String> {
        match &self.0 {
            None => Some(String::new()),
            Some(inner) => inner.key.sign(grants, inner.now(), inner.lifetime_seconds),
        }
    }

    /// A place in a list for a caller to come back with, which may be behind something that they may not read. It stays good
    /// for as long as the signing key does, also over a start.
    pub(crate) fn seal(&self, list: &str, place: String) -> String {
        match &self.0 {
            Some(inner) if !place.is_empty() => {
                let salt = files::chance().expect("the system had random bytes at the start");
                inner.places.seal(list, &place, salt)
            }
            // Whoever may read everything may read the place; the beginning is no secret.
            _ => place,
        }
    }

    /// The place that a caller came back with; `None` if it is none of this list.
    pub(crate) fn unseal(&self, list: &str, place: String) -> Option<String> {
        match &self.0 {
            Some(inner) if !place.is_empty() => inner.places.open(list, &place),
            _ => Some(place),
        }
    }

    /// Looks at the files now.
    pub(crate) fn look(&self) {
        if let Some(inner) = &self.0 {
            inner.look.notify_one();
        }
    }

    /// Looks at the files now and then, and asks the issuer for its keys, until `stopping`.
    pub(crate) async fn keep_fresh(self, stopping: CancellationToken) {
        let Some(inner) = self.0 else { return };
        // Each by itself: no file waits for an issuer that does not answer.
        let keys = async {
            if let Some(issuer) = &inner.issuer {
                issuer.keep_fresh(|| inner.forget()).await;
            }
        };
        stopping.run_until_cancelled(futures::future::join(inner.keep_files(), keys)).await;
    }
}

impl Inner {
    fn now(&self) -> i64 {
        (self.clock)().div_euclid(1000)
    }

    fn forget(&self) {
        self.known.lock().expect("a panic ends the process").doubt();
    }

    async fn keep_files(self: &Arc<Self>) {
        let metrics = &self.metrics;
        let tell = |looked: Result<PathBuf, AuthError>| match looked {
            Ok(path) => {
                self.forget();
                metrics.auth_reloads.inc();
                tracing::info!(file = %path.display(), "read again");
            }
            Err(error) => {
                metrics.auth_reloads_failed.inc();
                tracing::warn!(error = chain(&error), "not read again, what was known before stays");
            }
        };
        loop {
            let occasion = Occasion::next(&self.look).await;
            let looking = self.clone();
            settle(occasion, move |settling| looking.look(settling), tell).await;
        }
    }

    fn look(&self, settling: Duration) -> Vec<Look<AuthError>> {
        let passwords = self.passwords.as_ref().map(|passwords| passwords.look(settling));
        passwords.into_iter().chain(self.issuer.as_ref().map(|issuer| issuer.look(settling))).collect()
    }

    fn found(&self, header: &str, now: i64) -> Option<Caller> {
        self.known.lock().expect("a panic ends the process").find(header.as_bytes(), now)
    }

    async fn identify(self: &Arc<Self>, header: &str, origin: Origin) -> Result<Caller, Unknown> {
        let now = self.now();
        let (method, rest) = header.split_once(' ').ok_or(Unknown::Refused)?;
        let (kind, token) = (kind(method), rest.trim());
        // In one spelling: those of one credential are one caller, who is known once and derives once.
        let header = format!("{} {token}", kind.as_str());
        if let Some(caller) = self.found(&header, now) {
            return Ok(caller);
        }
        match kind {
            Kind::Basic => self.basic(&header, token, origin, now).await,
            Kind::Bearer => self.bearer(&header, token, now).await,
            Kind::Other => Err(Unknown::Refused),
        }
    }

    async fn basic(self: &Arc<Self>, header: &str, token: &str, origin: Origin, now: i64) -> Result<Caller, Unknown> {
        let passwords = self.passwords.as_ref().ok_or(Unknown::Refused)?.current();
        let pair = String::from_utf8(STANDARD.decode(token).map_err(|_| Unknown::Refused)?);
        let pair = pair.map_err(|_| Unknown::Refused)?;
        let (user, password) = pair.split_once(':').ok_or(Unknown::Refused)?;
        // Every minute everybody comes again who is who they say: they are not to queue behind those who are not.
        let returns = self.known.lock().expect("a panic ends the process").was_good(header.as_bytes());
        let (turn, place) = match returns {
            true => (None, Some(Returning::join(self.returning.clone()).ok_or(Unknown::Busy)?)),
            false => (Some(self.strangers.turn(origin).await.ok_or(Unknown::Busy)?), None),
        };
        let permit = self.deriving.clone().acquire_owned().await.expect("never closed");
        // Another call of the same client may have come first.
        if let Some(caller) = self.found(header, now) {
            return Ok(caller);
        }
        let (user, password, header) = (user.to_owned(), password.to_owned(), header.to_owned());
        let this = self.clone();
        let deriving = tokio::task::spawn_blocking(move || {
            let grants = passwords.check(&user, password.as_bytes()).cloned().map(Arc::new);
            let caller = grants.map(|grants| Caller::Known { name: user.into(), grants });
            if let Some(caller) = &caller {
                this.keep(&header, caller, now, i64::MAX, || {
                    this.passwords.as_ref().is_some_and(|watched| Arc::ptr_eq(&watched.current(), &passwords))
                });
            }
            drop(passwords);
            // Not before, whether or not the caller still waits: nothing ends a derivation that has begun. And not
            // before the answer is kept, so that whoever is next with the same password finds it.
            drop((permit, turn, place));
            caller
        });
        deriving.await.expect("a panic ends the process").ok_or(Unknown::Refused)
    }

    /// Keeps what was found if what it was found by is still in force. Asked under the lock that
    /// [`forget`](Self::forget) takes after every change, so that nothing is kept beyond one.
    fn keep(&self, header: &str, caller: &Caller, now: i64, until: i64, is_in_force: impl FnOnce() -> bool) {
        let mut known = self.known.lock().expect("a panic ends the process");
        if is_in_force() {
            known.keep(header.as_bytes(), caller.clone(), now, until);
        }
    }

    async fn bearer(&self, header: &str, token: &str, now: i64) -> Result<Caller, Unknown> {
        let issuer = self.issuer.as_ref().ok_or(Unknown::Refused)?;
        let (checked, keys) = issuer.check(token, now, || self.forget()).await;
        match checked {
            Ok(bearer::Bearer { subject, grants, until }) => {
                let caller = Caller::Known { name: subject.into(), grants: Arc::new(grants) };
                self.keep(header, &caller, now, until, || issuer.has(&keys));
                Ok(caller)
            }
            Err(error) => {
                tracing::debug!(%error, "token refused");
                Err(Unknown::Refused)
            }
        }
    }
}

/// The scheme of an authorization header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Basic,
    Bearer,
    Other,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Bearer => "bearer",
            Self::Other => "other",
        }
    }
}

/// By the first word of a header. The names of schemes know no case.
fn kind(header: &str) -> Kind {
    let method = header.split(' ').next().unwrap_or_default();
    let is = |name| method.eq_ignore_ascii_case(name);
    if is("basic") {
        Kind::Basic
    } else if is("bearer") {
        Kind::Bearer
    } else {
        Kind::Other
    }
}

/// A place among those who were known before and wait for a derivation.
struct Returning(Arc<AtomicUsize>);

impl Returning {
    fn join(count: Arc<AtomicUsize>) -> Option<Self> {
        // Made first, so that a refusal gives the place back.
        let place = Self(count);
        if place.0.fetch_add(1, Ordering::Relaxed) < RETURNING_MAX { Some(place) } else { None }
    }
}

impl Drop for Returning {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A value that others may replace.
type Shared<T> = RwLock<Arc<T>>;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicI64;

    use futures::FutureExt as _;

    use super::line::LINE_MAX;
    use super::*;
    use crate::settling::LOOK_EVERY;

    const HERE: Origin = Origin::UNKNOWN;

    fn of_user(user: &str, password: &str) -> HeaderMap {
        let header = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        HeaderMap::from_iter([(axum::http::header::AUTHORIZATION, header.parse().unwrap())])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whoever_was_known_before_does_not_queue_behind_wrong_passwords() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        let salt = [7; headwater_auth::passwords::SALT_BYTES];
        let iterations = 100_000.try_into().unwrap();
        let entry =
            headwater_auth::passwords::new_entry("good", b"right", &["prn::*,READ".into()], &salt, iterations).unwrap();
        crate::secrets::put(&path, &entry, 0o600).unwrap();
        let config = AuthConfig { passwords: Some(path), bearer: None, token_key: None, token_lifetime_seconds: 600 };
        let metrics = Metrics::new();
        let (now, asked) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
        let clock: Clock = {
            let now = now.clone();
            Arc::new(move || now.load(Ordering::Relaxed))
        };
        let guard = Guard::open(&config, directory.path(), clock, metrics.clone()).unwrap();
        guard.identify(&of_user("good", "right"), HERE).await.unwrap();
        for round in 1..=3 {
            now.fetch_add(61_000, Ordering::Relaxed);
            let inner = guard.0.as_ref().unwrap();
            assert!(inner.found("basic Z29vZDpyaWdodA==", inner.now()).is_none(), "it is looked at again");
            let strangers: Vec<_> = (0..LINE_MAX)
                .map(|number| {
                    let (guard, asked) = (guard.clone(), asked.clone());
                    tokio::spawn(async move {
                        let _ = guard.identify(&of_user("good", &format!("wrong {round} {number}")), HERE).await;
                        asked.fetch_add(1, Ordering::Relaxed);
                    })
                })
                .collect();
            while inner.strangers.waiting() < LINE_MAX - 1 {
                tokio::task::yield_now().await;
            }
            let before = asked.load(Ordering::Relaxed);
            guard.identify(&of_user("good", "right"), HERE).await.expect("there is a place for who was known before");
            let passed = asked.load(Ordering::Relaxed) - before;
            let running = i64::try_from(std::thread::available_parallelism().map_or(1, usize::from)).unwrap();
            assert!(passed <= 2 * running, "{passed} of {LINE_MAX} strangers went first");
            strangers.iter().for_each(tokio::task::JoinHandle::abort);
            while inner.strangers.waiting() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(
                inner.found("basic Z29vZDpyaWdodA==", inner.now()).is_some(),
                "it is known as it is looked for here"
            );
        }
        assert_eq!(metrics.auth_busy.get(), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_knows_the_password_gets_in_past_crowds_at_more_addresses_than_the_line_has_places() {
        const CROWDS: u8 = 40;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        let salt = [7; headwater_auth::passwords::SALT_BYTES];
        let iterations = 10_000.try_into().unwrap();
        let entry =
            headwater_auth::passwords::new_entry("good", b"right", &["prn::*,READ".into()], &salt, iterations).unwrap();
        crate::secrets::put(&path, &entry, 0o600).unwrap();
        let config = AuthConfig { passwords: Some(path), bearer: None, token_key: None, token_lifetime_seconds: 600 };
        let metrics = Metrics::new();
        let guard = Guard::open(&config, directory.path(), Arc::new(|| 0), metrics.clone()).unwrap();
        let derived = || metrics.auth_refused(Kind::Basic).get();
        let at = |last: u8| Origin::from(std::net::IpAddr::from([10, 0, 0, last]));
        let crowds: Vec<_> = (0..CROWDS)
            .map(|number| {
                let (guard, headers) = (guard.clone(), of_user("good", &format!("wrong {number}")));
                tokio::spawn(async move {
                    loop {
                        let refused = guard.identify(&headers, at(number)).await.unwrap_err();
                        if refused == Unknown::Busy {
                            tokio::task::yield_now().await;
                        }
                    }
                })
            })
            .collect();
        let inner = guard.0.as_ref().unwrap();
        while inner.strangers.waiting() < LINE_MAX {
            tokio::task::yield_now().await;
        }
        let before = derived();
        while let Err(refused) = guard.identify(&of_user("good", "right"), at(CROWDS)).await {
            assert_eq!(refused, Unknown::Busy);
            tokio::task::yield_now().await;
        }
        let passed = derived() - before;
        assert!(passed <= 2 * u64::from(CROWDS), "{passed} derivations of {CROWDS} crowds went first");
        crowds.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn callers_who_do_not_wait_leave_no_more_derivations_behind_than_run_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        crate::secrets::put(&path, "# nobody\n", 0o600).unwrap();
        let config = AuthConfig { passwords: Some(path), bearer: None, token_key: None, token_lifetime_seconds: 600 };
        let metrics = Metrics::new();
        let guard = Guard::open(&config, directory.path(), Arc::new(|| 0), metrics.clone()).unwrap();
        let inner = guard.0.as_ref().unwrap();
        let limit = inner.deriving.available_permits();
        let file = inner.passwords.as_ref().unwrap().current();
        // Beside the watched one and ours, every derivation has one, and every caller who waits.
        let running = || Arc::strong_count(&file) - 2;
        let headers = |user: &str| of_user(user, "x");
        let mut most = 0;
        for number in 0..limit * 4 + 16 {
            let headers = headers(&format!("user{number}"));
            let _ = tokio::time::timeout(Duration::from_millis(5), guard.identify(&headers, HERE)).await;
            most = most.max(running());
            assert!(running() <= limit, "{} derivations after {number} calls", running());
        }
        assert!(most > 0, "a derivation outlives the call that it was for");
        assert_eq!(metrics.auth_busy.get(), 0, "who has gone waits for nothing");
        while running() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let strangers = inner.strangers.clone();
        let turn = || {
            let strangers = strangers.clone();
            Box::pin(async move { strangers.turn(HERE).await })
        };
        let mut crowd: Vec<_> = (0..LINE_MAX + limit).map(|_| turn()).collect();
        let mut turns = Vec::new();
        crowd.retain_mut(|waits| waits.now_or_never().map(|turn| turns.extend(turn)).is_none());
        assert_eq!(inner.strangers.waiting(), LINE_MAX);
        assert_eq!(guard.identify(&headers("late"), HERE).await.unwrap_err(), Unknown::Busy);
        let before = metrics.auth_busy.get();
        assert!(before > 0);
        // Somebody from elsewhere is in nobody's way.
        let elsewhere = std::net::IpAddr::from([10, 0, 0, 1]).into();
        let headers_elsewhere = headers("elsewhere");
        let mut waits = Box::pin(guard.identify(&headers_elsewhere, elsewhere));
        assert!(futures::poll!(&mut waits).is_pending());
        drop(turns);
        let crowd = tokio::spawn(futures::future::join_all(crowd.into_iter().map(|waits| async { drop(waits.await) })));
        assert_eq!(waits.await.unwrap_err(), Unknown::Refused, "the password was looked at");
        assert_eq!(metrics.auth_busy.get(), before);
        crowd.await.unwrap();
        assert_eq!(guard.identify(&headers("last"), HERE).await.unwrap_err(), Unknown::Refused);
        assert!(metrics.auth_refused(Kind::Basic).get() > 0);
    }

    /// A line that costs little.
    fn cheap(user: &str) -> String {
        let salt = [7; headwater_auth::passwords::SALT_BYTES];
        let iterations = 16.try_into().unwrap();
        headwater_auth::passwords::new_entry(user, b"x", &["prn::*,READ".into()], &salt, iterations).unwrap() + "\n"
    }

    #[tokio::test(start_paused = true)]
    #[allow(clippy::disallowed_methods, reason = "the operator's file, not the store's")]
    async fn a_file_whose_writer_pauses_behind_a_line_is_taken_when_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        crate::secrets::put(&path, &cheap("first"), 0o600).unwrap();
        let passwords = Some(path.clone());
        let config = AuthConfig { passwords, bearer: None, token_key: None, token_lifetime_seconds: 600 };
        let metrics = Metrics::new();
        let guard = Guard::open(&config, directory.path(), Arc::new(|| 0), metrics.clone()).unwrap();
        let stopping = CancellationToken::new();
        let fresh = tokio::spawn(guard.clone().keep_fresh(stopping.clone()));
        let known = async |user: &str| guard.identify(&of_user(user, "x"), HERE).await.is_ok();
        // Before one look and behind it, with a pause that is shorter than the time between two.
        tokio::time::sleep(LOOK_EVERY - Duration::from_millis(50)).await;
        std::fs::write(&path, cheap("second")).unwrap();
        tokio::time::sleep(LOOK_EVERY - Duration::from_millis(100)).await;
        assert!(known("first").await && !known("second").await);
        std::fs::write(&path, cheap("second") + &cheap("third")).unwrap();
        tokio::time::sleep(LOOK_EVERY * 4).await;
        assert!(!known("first").await && known("second").await && known("third").await);
        assert_eq!((metrics.auth_reloads.get(), metrics.auth_reloads_failed.get()), (1, 0));
        // Who asks does not wait.
        std::fs::write(&path, cheap("fourth")).unwrap();
        guard.look();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(known("fourth").await);
        assert_eq!((metrics.auth_reloads.get(), metrics.auth_reloads_failed.get()), (2, 0));
        stopping.cancel();
        fresh.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_issuer_that_does_not_answer_holds_up_no_change_of_users() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        crate::secrets::put(&path, &cheap("first"), 0o600).unwrap();
        // Takes connections and says nothing.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bearer = BearerConfig {
            keys: None,
            issuer: Some(format!("http://{}", silent.local_addr().unwrap())),
            audience: "us".to_owned(),
            claim: None,
        };
        let passwords = Some(path.clone());
        let config = AuthConfig { passwords, bearer: Some(bearer), token_key: None, token_lifetime_seconds: 600 };
        let metrics = Metrics::new();
        let guard = Guard::open(&config, directory.path(), Arc::new(|| 0), metrics.clone()).unwrap();
        let stopping = CancellationToken::new();
        let fresh = tokio::spawn(guard.clone().keep_fresh(stopping.clone()));
        let begun = tokio::time::Instant::now();
        let _asked = silent.accept().await.unwrap();
        for round in 1..=5 {
            crate::secrets::put(&path, &(cheap("first") + &cheap(&format!("other{round}"))), 0o600).unwrap();
            let changed = tokio::time::Instant::now();
            while metrics.auth_reloads.get() < round {
                tokio::time::sleep(Duration::from_millis(100)).await;
                assert!(changed.elapsed() < LOOK_EVERY * 3, "change {round} is not taken");
            }
        }
        assert!(begun.elapsed() > issuer::PATIENCE, "it was waited for all the time");
        stopping.cancel();
        fresh.await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    #[allow(clippy::disallowed_methods, reason = "the operator's file, not the store's")]
    async fn a_password_file_is_read_again_a_thousand_times_and_no_login_fails() {
        const ROUNDS: usize = 1000;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        let salt = [7; headwater_auth::passwords::SALT_BYTES];
        let iterations = 16.try_into().unwrap();
        let entry = |user: &str, password: &str| {
            let grants = ["prn::*,READ".into()];
            headwater_auth::passwords::new_entry(user, password.as_bytes(), &grants, &salt, iterations).unwrap() + "\n"
        };
        let good = entry("good", "right");
        crate::secrets::put(&path, &good, 0o600).unwrap();
        let passwords = Some(path.clone());
        let config = AuthConfig { passwords, bearer: None, token_key: None, token_lifetime_seconds: 600 };
        let guard = Guard::open(&config, directory.path(), Arc::new(|| 0), Metrics::new()).unwrap();
        let inner = guard.0.clone().unwrap();
        let stopping = CancellationToken::new();
        let logins = tokio::spawn({
            let (guard, stopping) = (guard.clone(), stopping.clone());
            async move {
                let mut logins = 0;
                while !stopping.is_cancelled() {
                    guard.identify(&of_user("good", "right"), HERE).await.expect("nobody is refused meanwhile");
                    logins += 1;
                    tokio::task::yield_now().await;
                }
                logins
            }
        });
        let look = || inner.look(Duration::ZERO).pop().unwrap();
        for round in 0..ROUNDS {
            // Cut in the line of the one who comes all the time, and now and then looked at until it was refused.
            std::fs::write(&path, &good[..1 + round % 100]).unwrap();
            assert!(matches!(look(), Look::Unsettled));
            if round % 10 == 0 {
                assert!(matches!(look(), Look::Failed(_)));
            }
            std::fs::write(&path, good.clone() + &entry("other", &format!("other {round}"))).unwrap();
            assert!(matches!(look(), Look::Unsettled));
            assert!(matches!(look(), Look::Changed(_)));
            inner.forget();
            if round % 100 == 0 {
                let other = of_user("other", &format!("other {round}"));
                guard.identify(&other, HERE).await.expect("what is new is in use");
            }
        }
        stopping.cancel();
        assert!(logins.await.unwrap() > 100);
    }
}
