//! What an issuer's answers mean: tokens, a person's sign-in, a no.

use std::time::Duration;

use serde_json::Value;

use super::http::safe;
use crate::error::ErrorKind;

/// Longest time believed of an answer: what ends later is asked for again by then.
const TIME_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// Longest time for which a person's code is waited for.
const CODE_TIME_MAX: Duration = Duration::from_secs(3600);
/// Longest code, in characters: a person types it.
const CODE_CHARS_MAX: usize = 64;
/// Longest words of an issuer that are repeated, in characters.
const WORDS_CHARS_MAX: usize = 300;

/// A token, and what comes with it.
#[derive(Eq, PartialEq)]
#[cfg_attr(test, derive(Debug))]
pub(super) struct Granted {
    pub(super) token: String,
    /// How long it is good; `None`: the issuer does not say.
    pub(super) time: Option<Duration>,
    /// With what the next one is asked for.
    pub(super) refresh: Option<String>,
}

impl Granted {
    /// Reads an answer of the token endpoint (RFC 6749, 5.1); otherwise, what is odd about it.
    pub(super) fn of(answer: &Value) -> Result<Self, &'static str> {
        let text = |name: &str| answer.get(name).and_then(Value::as_str);
        let can_be_sent = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !text("token_type").is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")) {
            return Err("its token is none of type Bearer");
        }
        let token = text("access_token").filter(can_be_sent).ok_or("its answer has no token that can be sent")?;
        let time = match answer.get("expires_in") {
            None | Some(Value::Null) => None,
            Some(time) => Some(seconds(time).ok_or("its token's time is no number of seconds")?),
        };
        let refresh = text("refresh_token").filter(can_be_sent);
        Ok(Self { token: token.to_owned(), time, refresh: refresh.map(str::to_owned) })
    }
}

/// What a person has to do in order to sign in.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct DeviceSignIn {
    /// Where to go, with a browser on any device: `https://`, or on this machine.
    pub address: String,
    /// What to enter there: at most 64 printable characters.
    pub code: String,
    /// An address that has the code in it, for a link or a picture to scan.
    pub address_with_code: Option<String>,
    /// How long the code is good.
    pub time: Duration,
}

/// A sign-in that has begun.
#[cfg_attr(test, derive(Debug))]
pub(super) struct Begun {
    pub(super) sign_in: DeviceSignIn,
    /// What the sign-in is asked about with; secret.
    pub(super) device_code: String,
    /// Least time between two questions.
    pub(super) interval: Duration,
}

impl Begun {
    /// Reads an answer of the device authorization endpoint (RFC 8628, 3.2); otherwise, what is odd about it.
    pub(super) fn of(answer: &Value) -> Result<Self, &'static str> {
        /// RFC 8628, 3.2: when the issuer does not say.
        const INTERVAL: Duration = Duration::from_secs(5);
        let text = |name: &str| answer.get(name).and_then(Value::as_str);
        // Printed on a terminal: nothing that would do something there.
        let is_readable = |text: &str| !text.is_empty() && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        // As it is written by the library that reads addresses, which leaves no control characters in it.
        let address = |name| text(name).and_then(safe).map(String::from);
        let code = text("user_code").filter(|code| is_readable(code) && code.len() <= CODE_CHARS_MAX);
        let time = answer.get("expires_in").and_then(seconds).ok_or("its code has no time")?;
        let interval = match answer.get("interval") {
            None | Some(Value::Null) => INTERVAL,
            Some(interval) => seconds(interval).ok_or("its interval is no number of seconds")?,
        };
        let sign_in = DeviceSignIn {
            // Google's name for it is older than the standard's.
            address: address("verification_uri")
                .or_else(|| address("verification_url"))
                .ok_or("it names no safe address to sign in at")?,
            code: code.ok_or("its code is none that a person could enter")?.to_owned(),
            address_with_code: address("verification_uri_complete"),
            time: time.min(CODE_TIME_MAX),
        };
        let device_code = text("device_code").filter(|code| !code.is_empty()).ok_or("its answer has no device code")?;
        Ok(Self { sign_in, device_code: device_code.to_owned(), interval: interval.min(CODE_TIME_MAX) })
    }
}

/// An issuer's no (RFC 6749, 5.2).
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Refusal {
    pub(super) code: String,
    said: Option<String>,
}

impl Refusal {
    /// Reads it from an answer, if it is one.
    pub(super) fn of(answer: &Value) -> Option<Self> {
        let code = answer.get("error")?.as_str()?;
        let said = answer.get("error_description").and_then(Value::as_str).map(str::to_owned);
        Some(Self { code: code.to_owned(), said })
    }

    /// What a caller can do about it.
    pub(super) fn kind(&self) -> ErrorKind {
        match self.code.as_str() {
            "access_denied" | "unauthorized_client" => ErrorKind::Denied,
            "temporarily_unavailable" | "server_error" => ErrorKind::Unavailable,
            "unsupported_grant_type" => ErrorKind::Unsupported,
            "invalid_request" | "invalid_scope" | "invalid_target" => ErrorKind::Invalid,
            // `invalid_client`, `invalid_grant`, `expired_token`, and whatever else an issuer has against somebody.
            _ => ErrorKind::Unauthenticated,
        }
    }

    /// Whether it only says how often a person's sign-in may be asked about (RFC 8628, 3.5).
    pub(super) fn is_pace(&self) -> bool {
        ["authorization_pending", "slow_down"].contains(&self.code.as_str())
    }

    /// The same, without the issuer's words if they repeat one of these.
    pub(super) fn hiding(mut self, secrets: &[&str]) -> Self {
        let repeats = |text: &str| secrets.iter().any(|secret| !secret.is_empty() && text.contains(secret));
        if repeats(&self.code) {
            self.code = "error".to_owned();
            self.said = None;
        }
        if self.said.as_deref().is_some_and(repeats) {
            self.said = Some("it repeats the secret".to_owned());
        }
        self
    }

    /// What the issuer said, without what could harm a terminal or a log.
    pub(super) fn words(&self) -> String {
        let all = match &self.said {
            Some(said) => format!("{} ({said})", self.code),
            None => self.code.clone(),
        };
        let readable = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
        all.chars().take(WORDS_CHARS_MAX).map(readable).collect()
    }
}

/// Seconds, as a number or, against the standard, as its digits.
fn seconds(value: &Value) -> Option<Duration> {
    let number = match value {
        Value::String(digits) => digits.parse().ok()?,
        other => other.as_f64()?,
    };
    (number >= 0.0).then(|| Duration::try_from_secs_f64(number).unwrap_or(TIME_MAX).min(TIME_MAX))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn granted(token: &str, time: Option<u64>, refresh: Option<&str>) -> Granted {
        Granted { token: token.into(), time: time.map(Duration::from_secs), refresh: refresh.map(str::to_owned) }
    }

    #[test]
    fn tokens_are_read_as_issuers_write_them() {
        for (answer, expected) in [
            (
                json!({"access_token":"t","token_type":"Bearer","expires_in":300,"scope":"x"}),
                granted("t", Some(300), None),
            ),
            (json!({"access_token":"t","token_type":"bearer","refresh_token":"r"}), granted("t", None, Some("r"))),
            (json!({"access_token":"t","token_type":"BEARER","expires_in":"3599"}), granted("t", Some(3599), None)),
            (json!({"access_token":"t","token_type":"Bearer","expires_in":0}), granted("t", Some(0), None)),
            (
                json!({"access_token":"t","token_type":"Bearer","expires_in":1e300}),
                granted("t", Some(TIME_MAX.as_secs()), None),
            ),
        ] {
            assert_eq!(Granted::of(&answer), Ok(expected), "{answer}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for answer in [
            json!({}),
            json!([]),
            json!({"access_token":"t"}),
            json!({"access_token":"t","token_type":"mac"}),
            json!({"access_token":"","token_type":"Bearer"}),
            json!({"access_token":7,"token_type":"Bearer"}),
            json!({"access_token":"a\r\nb: c","token_type":"Bearer"}),
            json!({"access_token":"ä","token_type":"Bearer"}),
            json!({"access_token":"t","token_type":"Bearer","expires_in":-1}),
            json!({"access_token":"t","token_type":"Bearer","expires_in":"soon"}),
            json!({"access_token":"t","token_type":"Bearer","expires_in":{}}),
        ] {
            assert!(Granted::of(&answer).is_err(), "{answer}");
        }
    }

    #[test]
    fn a_sign_in_says_where_to_go_and_what_to_enter() {
        let mut answer = json!({
            "device_code": "d", "user_code": "WDJB-MJHT", "verification_uri": "https://id.example/device",
            "verification_uri_complete": "https://id.example/device?user_code=WDJB-MJHT", "expires_in": 1800,
        });
        let begun = Begun::of(&answer).unwrap();
        assert_eq!(
            (begun.sign_in.address.as_str(), begun.sign_in.code.as_str()),
            ("https://id.example/device", "WDJB-MJHT")
        );
        assert_eq!(begun.sign_in.address_with_code.as_deref(), Some("https://id.example/device?user_code=WDJB-MJHT"));
        assert_eq!((begun.sign_in.time, begun.interval), (Duration::from_secs(1800), Duration::from_secs(5)));
        for (name, odd) in [
            ("user_code", json!("\u{1b}[2J")),
            ("user_code", json!("x".repeat(65))),
            ("user_code", json!("")),
            ("verification_uri", json!("http://id.example/device")),
            ("verification_uri", json!("javascript:alert(1)")),
            ("verification_uri", json!("nonsense")),
            ("device_code", json!(null)),
            ("expires_in", json!(null)),
            ("expires_in", json!(-5)),
            ("interval", json!("often")),
        ] {
            let good = answer[name].take();
            answer[name] = odd;
            assert!(Begun::of(&answer).is_err(), "{answer}");
            answer[name] = good;
        }
        answer["verification_uri_complete"] = json!("javascript:alert(1)");
        assert_eq!(Begun::of(&answer).unwrap().sign_in.address_with_code, None);
        answer["verification_uri"] = json!("https://id.example/\u{1b}[2J\r\n");
        assert!(Begun::of(&answer).unwrap().sign_in.address.chars().all(|c| !c.is_control()));
    }

    #[test]
    fn a_no_has_a_kind_and_words_that_harm_nobody() {
        let refusal = |answer: Value| Refusal::of(&answer).unwrap();
        for (code, kind) in [
            ("invalid_client", ErrorKind::Unauthenticated),
            ("invalid_grant", ErrorKind::Unauthenticated),
            ("something_new", ErrorKind::Unauthenticated),
            ("access_denied", ErrorKind::Denied),
            ("unsupported_grant_type", ErrorKind::Unsupported),
            ("invalid_scope", ErrorKind::Invalid),
            ("temporarily_unavailable", ErrorKind::Unavailable),
        ] {
            assert_eq!(refusal(json!({ "error": code })).kind(), kind, "{code}");
        }
        let said = |said: &str| refusal(json!({"error": "invalid_client", "error_description": said}));
        assert_eq!(said("wrong").hiding(&["", "planted"]).words(), "invalid_client (wrong)");
        assert_eq!(said("\u{1b}[2J\n").words(), "invalid_client (?[2J?)");
        let repeated = said("planted is wrong").hiding(&["other", "planted"]);
        assert_eq!(repeated.words(), "invalid_client (it repeats the secret)");
        assert_eq!(refusal(json!({ "error": "no planted" })).hiding(&["planted"]).words(), "error");
        assert_eq!(said(&"x".repeat(10_000)).words().len(), WORDS_CHARS_MAX);
        assert_eq!(Refusal::of(&json!({"error": {}})), None);
    }
}
