//! The token there is, and the one way to the next.
//!
//! Guarantees:
//! * at most one renewal is under way; whoever has no token waits for it, whoever has one does not
//! * a renewal goes on when its callers go away, and its outcome is there for the next
//! * after a failure the issuer is left alone for [`PAUSE`], while a token that is still good is used

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::answers::{Begun, DeviceSignIn, Granted, Refusal};
use super::device::{Heard, Waiting};
use super::http::Asker;
use super::{Secret, Told};
use crate::error::{Error, ErrorKind, Result};
use crate::told;

/// Least time between a failed renewal and the next, and between a token and a doubt about it: thousands of callers that are
/// refused together are one question a second to the issuer.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// Longest time before its end that a token is renewed. An issuer that is away for less goes unnoticed.
const AHEAD_MAX: Duration = Duration::from_secs(60);

/// How tokens are got when there is no refresh token.
pub(super) enum Grant {
    ClientCredentials,
    /// Tells a person what to do.
    Device(Box<dyn Fn(&DeviceSignIn) + Send + Sync>),
}

/// See the [module](self).
pub(super) struct Renewal {
    asker: Asker,
    grant: Grant,
    /// Fields that every grant is asked for with.
    wanted: Vec<(&'static str, String)>,
    tell_refresh: Option<Told>,
    state: Mutex<State>,
}

/// The header, or why there is none.
type Outcome = Result<Arc<str>>;
type UnderWay = Shared<BoxFuture<'static, Outcome>>;

struct State {
    token: Option<Token>,
    refresh: Option<Secret>,
    under_way: Option<UnderWay>,
    /// The last renewal, if it failed.
    failed: Option<(Instant, Error)>,
}

struct Token {
    header: Arc<str>,
    got: Instant,
    /// From when on it is renewed, and when it ends; `None`: the issuer did not say.
    due_and_end: Option<(Instant, Instant)>,
}

impl Token {
    /// `asked`: before the question, since the issuer counts from some time after.
    fn new(granted: &Granted, asked: Instant) -> Self {
        let due_and_end = granted.time.and_then(|time| {
            let ahead = AHEAD_MAX.min(time / 3);
            Some((asked.checked_add(time - ahead)?, asked.checked_add(time)?))
        });
        Self { header: format!("Bearer {}", granted.token).into(), got: asked, due_and_end }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.due_and_end.is_some_and(|(due, _)| now >= due)
    }

    fn is_good(&self, now: Instant) -> bool {
        self.due_and_end.is_none_or(|(_, end)| now < end)
    }
}

/// What a caller is to do.
enum Next {
    Use(Arc<str>),
    WaitFor(UnderWay),
    Fail(Error),
}

impl State {
    /// What to do now, and where a renewal that has to begin sends its outcome.
    fn next(&mut self, now: Instant) -> (Next, Option<oneshot::Sender<Outcome>>) {
        let is_due = self.token.as_ref().is_none_or(|token| token.is_due(now));
        let failed = self.failed.as_ref().filter(|(at, _)| now < *at + PAUSE).map(|(_, error)| error.clone());
        let mut begin = None;
        if is_due && self.under_way.is_none() && failed.is_none() {
            let (outcome, hear) = oneshot::channel();
            let heard = async move {
                hear.await.unwrap_or_else(|_| {
                    Err(Error::new(ErrorKind::Unavailable, "the runtime that asked the issuer for a token has ended"))
                })
            };
            self.under_way = Some(heard.boxed().shared());
            begin = Some(outcome);
        }
        let good = self.token.as_ref().filter(|token| token.is_good(now));
        let next = match (good, &self.under_way, failed) {
            (Some(token), _, _) => Next::Use(token.header.clone()),
            (None, Some(under_way), _) => Next::WaitFor(under_way.clone()),
            (None, None, Some(error)) => Next::Fail(error),
            (None, None, None) => unreachable!("without a token and a failure, a renewal is under way"),
        };
        (next, begin)
    }
}

impl Renewal {
    pub(super) fn new(
        asker: Asker,
        grant: Grant,
        wanted: Vec<(&'static str, String)>,
        refresh: Option<Secret>,
        tell_refresh: Option<Told>,
    ) -> Self {
        let state = State { token: None, refresh, under_way: None, failed: None };
        Self { asker, grant, wanted, tell_refresh, state: Mutex::new(state) }
    }

    pub(super) fn issuer(&self) -> &str {
        self.asker.issuer()
    }

    /// The header of a token that is good.
    pub(super) async fn authorization(self: &Arc<Self>) -> Result<String> {
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|_| Error::new(ErrorKind::Invalid, "tokens are asked for in a Tokio runtime only"))?;
        let (next, begin) = self.locked().next(Instant::now());
        if let Some(outcome) = begin {
            // Not by the caller, who may go away; and begun without the lock, since a runtime that ends drops it here.
            let renewing = Renewing { renewal: self.clone(), outcome: Some(outcome) };
            runtime.spawn(renewing.run());
        }
        match next {
            Next::Use(header) => Ok(header.to_string()),
            Next::WaitFor(under_way) => under_way.await.map(|header| header.to_string()),
            Next::Fail(error) => Err(error),
        }
    }

    /// See [`Credentials::refused`](crate::Credentials::refused).
    pub(super) fn refused(&self) -> bool {
        let mut state = self.locked();
        // Nobody is asked to sign in again because a store does not take what came of it.
        if matches!(self.grant, Grant::Device(_)) && state.refresh.is_none() {
            return false;
        }
        // A young token came after the one that was refused, most likely; if not, the next is no better.
        if state.token.as_ref().is_some_and(|token| token.got.elapsed() >= PAUSE) {
            state.token = None;
        }
        true
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while it holds the token")
    }

    async fn renew(&self) -> Result<Token> {
        let refresh = self.locked().refresh.clone();
        if let Some(Secret(refresh)) = refresh {
            let asked = Instant::now();
            match self.ask(&[("grant_type", "refresh_token"), ("refresh_token", &refresh)]).await? {
                Ok(granted) => return Ok(self.took(&granted, asked)),
                Err(refusal) if refusal.code == "invalid_grant" => {
                    tracing::debug!(target: told::TOKEN, issuer = self.issuer(), "refresh token is not taken any more");
                    self.locked().refresh = None;
                }
                Err(refusal) => return Err(self.asker.refused(&refusal)),
            }
        }
        match &self.grant {
            Grant::ClientCredentials => {
                let asked = Instant::now();
                let fields = self.with_wanted(&[("grant_type", "client_credentials")]);
                let granted = self.ask(&fields).await?.map_err(|refusal| self.asker.refused(&refusal))?;
                Ok(self.took(&granted, asked))
            }
            Grant::Device(tell) => self.sign_in(tell).await,
        }
    }

    fn with_wanted<'a>(&'a self, fields: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let wanted = self.wanted.iter().map(|(name, value)| (*name, value.as_str()));
        fields.iter().copied().chain(wanted).collect()
    }

    /// Asks for a token.
    async fn ask(&self, fields: &[(&str, &str)]) -> Result<Result<Granted, Refusal>> {
        let places = self.asker.places().await?;
        match self.asker.post(&places.token, &places, fields).await? {
            Ok(answer) => Granted::of(&answer).map(Ok).map_err(|what| self.asker.odd(what)),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    /// Keeps the refresh token; the one from before stays good if there is no other (RFC 6749, 6).
    fn took(&self, granted: &Granted, asked: Instant) -> Token {
        if let Some(refresh) = &granted.refresh {
            let refresh = Secret(refresh.clone());
            let is_new = self.locked().refresh.replace(refresh.clone()).as_ref() != Some(&refresh);
            if is_new && let Some(tell) = &self.tell_refresh {
                tell(&refresh.0);
            }
        }
        Token::new(granted, asked)
    }

    /// Lets a person sign in.
    async fn sign_in(&self, tell: &(dyn Fn(&DeviceSignIn) + Send + Sync)) -> Result<Token> {
        let places = self.asker.places().await?;
        let Some(device) = &places.device else {
            let what = format!("issuer {} lets nobody sign in on another device", self.issuer());
            return Err(Error::new(ErrorKind::Unsupported, what));
        };
        let begun = Instant::now();
        let device = device.as_ref().map_err(Clone::clone)?;
        let answer = self.asker.post(device, &places, &self.with_wanted(&[])).await?;
        let answer = answer.map_err(|refusal| self.asker.refused(&refusal))?;
        let Begun { sign_in, device_code, interval } = Begun::of(&answer).map_err(|what| self.asker.odd(what))?;
        tell(&sign_in);
        let mut waiting = Waiting::new(interval, begun + sign_in.time);
        let mut next = waiting.first(Instant::now());
        while let Some(at) = next {
            tokio::time::sleep_until(at).await;
            let asked = Instant::now();
            let grant = "urn:ietf:params:oauth:grant-type:device_code";
            let outcome = self.ask(&[("grant_type", grant), ("device_code", &device_code)]).await;
            let heard = match outcome {
                Ok(Ok(granted)) => return Ok(self.took(&granted, asked)),
                Ok(Err(refusal)) => match refusal.code.as_str() {
                    "authorization_pending" => Heard::Pending,
                    "slow_down" => Heard::SlowDown,
                    "expired_token" => break,
                    _ => return Err(self.asker.refused(&refusal)),
                },
                // Somebody may be typing the code at this moment.
                Err(error) if error.kind() == ErrorKind::Unavailable => Heard::Silence,
                Err(error) => return Err(error),
            };
            next = waiting.next(heard, Instant::now());
        }
        let what = format!("issuer {}: nobody signed in while the code was good", self.issuer());
        Err(Error::new(ErrorKind::Unauthenticated, what))
    }
}

/// A renewal that is under way. Dropped before its end, by a runtime that ends, it is as if it had never begun.
struct Renewing {
    renewal: Arc<Renewal>,
    outcome: Option<oneshot::Sender<Outcome>>,
}

impl Renewing {
    async fn run(mut self) {
        let renewed = self.renewal.renew().await;
        let mut state = self.renewal.locked();
        state.under_way = None;
        let outcome = match renewed {
            Ok(token) => {
                tracing::debug!(target: told::TOKEN, issuer = self.renewal.issuer(), "token renewed");
                state.failed = None;
                Ok(state.token.insert(token).header.clone())
            }
            Err(error) => {
                tracing::warn!(target: told::TOKEN, issuer = self.renewal.issuer(), ?error, "token could not be renewed");
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        };
        drop(state);
        if let Some(tell) = self.outcome.take() {
            // They may all have gone away.
            let _ = tell.send(outcome);
        }
    }
}

impl Drop for Renewing {
    fn drop(&mut self) {
        if self.outcome.is_some() {
            self.renewal.locked().under_way = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(seconds: Option<u64>) -> Granted {
        Granted { token: "t".into(), time: seconds.map(Duration::from_secs), refresh: None }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_renewed_while_it_is_still_good() {
        let asked = Instant::now();
        let at = |seconds| asked + Duration::from_secs(seconds);
        // How long it is good, when it is due.
        for (time, due) in [(3, 2), (30, 20), (180, 120), (300, 240), (36_000, 35_940)] {
            let token = Token::new(&granted(Some(time)), asked);
            assert!(!token.is_due(at(due) - Duration::from_millis(1)), "{time}");
            assert!(token.is_due(at(due)) && token.is_good(at(due)), "{time}");
            assert!(token.is_good(at(time) - Duration::from_millis(1)) && !token.is_good(at(time)), "{time}");
        }
        let endless = Token::new(&granted(None), asked);
        assert!(!endless.is_due(at(1 << 30)) && endless.is_good(at(1 << 30)));
    }

    #[tokio::test(start_paused = true)]
    async fn callers_with_a_good_token_wait_for_nobody_and_all_others_for_one_renewal() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut state = State { token: None, refresh: None, under_way: None, failed: None };
        let (next, begin) = state.next(now);
        assert!(matches!(next, Next::WaitFor(_)) && begin.is_some());
        let (next, again) = state.next(now);
        assert!(matches!(next, Next::WaitFor(_)) && again.is_none(), "one is enough");

        state.under_way = None;
        state.token = Some(Token::new(&granted(Some(30)), now));
        let (next, begin) = state.next(at(19));
        assert!(matches!(next, Next::Use(_)) && begin.is_none());
        let (next, begin) = state.next(at(20));
        assert!(matches!(next, Next::Use(_)) && begin.is_some(), "due, and still good");
        let (next, again) = state.next(at(29));
        assert!(matches!(next, Next::Use(_)) && again.is_none());
        assert!(matches!(state.next(at(30)).0, Next::WaitFor(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_issuer_that_failed_is_left_alone_for_a_while() {
        let now = Instant::now();
        let away = Error::new(ErrorKind::Unavailable, "away");
        let failed = Some((now, away));
        let token = Some(Token::new(&granted(Some(0)), now));
        let mut state = State { token, refresh: None, under_way: None, failed };
        let (next, begin) = state.next(now + PAUSE - Duration::from_millis(1));
        assert!(matches!(next, Next::Fail(_)) && begin.is_none());
        let (next, begin) = state.next(now + PAUSE);
        assert!(matches!(next, Next::WaitFor(_)) && begin.is_some());
    }
}
