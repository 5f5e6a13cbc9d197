//! Delegation tokens: what the controller hands out and the segment store asks for.
//!
//! A token is a JSON web token under HS512. For each resource it has one claim, whose name is the resource and whose value
//! is the level.
//!
//! Guarantees:
//! * every token has an end; one without an end is refused, whoever signed it
//! * what is signed is plain ASCII without `>`, `?` and `~`, so that its base64 is the same in both alphabets: the Rust
//!   client reads it in the other one
//! * only HS512 is believed, and only for the segment store (`aud`)
//!
//! Source: Pravega's delegation tokens, whose names of claims and order are kept.

use std::fmt;

use ring::hmac;
use serde_json::Value;

use crate::grants::{Level, Resource, TABLE, is_plain};
use crate::jws::{self, Unverified};
use crate::places::Seal;

/// How long a token is good for unless the operator says otherwise, in seconds.
pub const LIFETIME_SECONDS: u32 = 600;
/// Fewest bytes of a key.
pub const KEY_BYTES_MIN: usize = 32;
/// What every token says it is about.
const SUBJECT: &str = "segmentstoreresource";
/// Whom every token is for.
const AUDIENCE: &str = "segmentstore";
/// A token from the future is refused, but for what clocks differ, in seconds.
const SKEW_SECONDS: i64 = 30;
/// The header of every token.
const HEADER: &str = r#"{"alg":"HS512"}"#;

/// The key that signs.
#[derive(Clone)]
pub struct Key(hmac::Key);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// The key is too short to be one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("signing key of {bytes} bytes, at least {KEY_BYTES_MIN} are needed")]
pub struct ShortKey {
    /// Bytes there are.
    pub bytes: usize,
}

impl Key {
    /// The bytes as they are; text is not decoded.
    ///
    /// # Errors
    /// [`ShortKey`].
    pub fn new(bytes: &[u8]) -> Result<Self, ShortKey> {
        if bytes.len() < KEY_BYTES_MIN { Err(ShortKey { bytes: bytes.len() }) } else { Ok(Self::of(bytes)) }
    }

    fn of(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA512, bytes))
    }

    /// What seals places in lists. Its secret is this key's signature of something that no token begins with.
    pub fn places(&self) -> Seal {
        Seal::new(hmac::sign(&self.0, b"places in lists").as_ref())
    }

    /// A token for some resources from `now` on; `None` if a name is none that a stream or table can have.
    pub fn sign(&self, grants: &[(Resource<'_>, Level)], now: i64, lifetime_seconds: u32) -> Option<String> {
        let mut listed = String::new();
        for (resource, level) in grants {
            let (Resource::Stream(scope, name) | Resource::Table(scope, name)) = resource else { return None };
            if !is_plain(scope) || !is_plain(name) {
                return None;
            }
            listed.push_str(&format!("\"{resource}\":\"{level}\","));
        }
        let until = now.saturating_add(lifetime_seconds.into());
        let payload = format!(r#"{{"sub":"{SUBJECT}","aud":"{AUDIENCE}","iat":{now},{listed}"exp":{until}}}"#);
        let signed = format!("{}.{}", jws::encode(HEADER), jws::encode(payload));
        let signature = hmac::sign(&self.0, signed.as_bytes());
        Some(format!("{signed}.{}", jws::encode(signature)))
    }

    /// What a token grants; its times are for [`Claims::is_good`].
    ///
    /// # Errors
    /// [`TokenError::Refused`].
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        let token = Unverified::parse(token).filter(|token| token.algorithm == "HS512").ok_or(TokenError::Refused)?;
        hmac::verify(&self.0, token.signed.as_bytes(), &token.signature).map_err(|_| TokenError::Refused)?;
        let claims = token.claims().ok_or(TokenError::Refused)?;
        let time = |name| jws::time(&claims, name).map_err(|()| TokenError::Refused);
        let (until, from) = (time("exp")?.ok_or(TokenError::Refused)?, time("nbf")?.max(time("iat")?));
        if !jws::is_for(&claims, AUDIENCE) || claims.get("sub").and_then(Value::as_str) != Some(SUBJECT) {
            return Err(TokenError::Refused);
        }
        let grants =
            claims.iter().filter_map(|(name, value)| Some((Cover::parse(name)?, Level::parse(value.as_str()?)?)));
        Ok(Claims { grants: grants.collect(), from, until })
    }
}

/// Why a token is refused. Clients get a new one and try again only for the second.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TokenError {
    /// Missing, malformed, forged, or for something else.
    #[error("token does not allow this")]
    Refused,
    /// Its end has come.
    #[error("token has expired")]
    Expired,
}

/// Which segments a claim is about.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Cover {
    All,
    /// Those of a stream, and of the table of its name: Java clients ask for a table as if it were a stream.
    Stream(String),
    /// Those of a table.
    Table(String),
}

impl Cover {
    fn parse(claim: &str) -> Option<Self> {
        if claim == "*" {
            return Some(Self::All);
        }
        let (scope, rest) = claim.strip_prefix("prn::/scope:")?.split_once('/')?;
        let (kind, name) = rest.split_once(':')?;
        let path = format!("{scope}/{name}");
        match kind {
            _ if !is_plain(scope) || !is_plain(name) => None,
            "stream" => Some(Self::Stream(path)),
            "key-value-table" => Some(Self::Table(path)),
            _ => None,
        }
    }

    fn covers(&self, segment: &str) -> bool {
        let ends = |rest: &str| rest.is_empty() || rest.starts_with('/');
        match self {
            Self::All => true,
            Self::Stream(path) => segment
                .strip_prefix(path.as_str())
                .is_some_and(|rest| ends(rest) || rest.strip_prefix(TABLE).is_some_and(ends)),
            Self::Table(path) => {
                let rest = segment.strip_prefix(path.as_str()).and_then(|rest| rest.strip_prefix(TABLE));
                rest.is_some_and(ends)
            }
        }
    }
}

/// What a token says whose signature holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claims {
    grants: Vec<(Cover, Level)>,
    from: Option<i64>,
    /// When it ends, in seconds since 1970.
    pub until: i64,
}

impl Claims {
    /// Whether its time has come and not gone.
    ///
    /// # Errors
    /// Any [`TokenError`].
    pub fn is_good(&self, now: i64) -> Result<(), TokenError> {
        if now >= self.until {
            return Err(TokenError::Expired);
        }
        if self.from.is_some_and(|from| from > now.saturating_add(SKEW_SECONDS)) {
            Err(TokenError::Refused)
        } else {
            Ok(())
        }
    }

    /// What it allows on a segment, by the name that the client gave.
    pub fn level(&self, segment: &str) -> Level {
        let covering = || self.grants.iter().filter(|(cover, _)| cover.covers(segment));
        // A claim for the table says more about it than one for the stream of its name.
        let of_table = covering().filter(|(cover, _)| matches!(cover, Cover::Table(_))).map(|(_, level)| *level).max();
        of_table.or_else(|| covering().map(|(_, level)| *level).max()).unwrap_or(Level::None)
    }

    /// What it allows on everything there is.
    pub fn level_of_all(&self) -> Level {
        let all = self.grants.iter().filter(|(cover, _)| *cover == Cover::All);
        all.map(|(_, level)| *level).max().unwrap_or(Level::None)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD_NO_PAD;

    use super::*;

    /// Of the original: key `secret`, `prn::/scope:s1/stream:orders` READ_UPDATE, from 1767225600 for 600 s.
    const SAMPLE: &str = "eyJhbGciOiJIUzUxMiJ9.eyJzdWIiOiJzZWdtZW50c3RvcmVyZXNvdXJjZSIsImF1ZCI6InNlZ21lbnRzdG9yZSIsImlhdCI6MTc2NzIyNTYwMCwicHJuOjovc2NvcGU6czEvc3RyZWFtOm9yZGVycyI6IlJFQURfVVBEQVRFIiwiZXhwIjoxNzY3MjI2MjAwfQ.s6DWVwUIjpYOcYDubaFh7PjaP7Ob6qcvCI2amIGozY82mE9sO5H5V3V3i38Ibnrb-M8WWgld-Jr0KIVGahEVYQ";
    const ISSUED: i64 = 1_767_225_600;

    fn claims(resource: Resource<'_>, level: Level) -> Claims {
        let key = Key::of(b"k");
        key.verify(&key.sign(&[(resource, level)], ISSUED, 600).unwrap()).unwrap()
    }

    #[test]
    fn a_token_is_that_of_the_original_to_the_byte() {
        let key = Key::of(b"secret");
        let grants = [(Resource::Stream("s1", "orders"), Level::ReadUpdate)];
        assert_eq!(key.sign(&grants, ISSUED, 600).unwrap(), SAMPLE);
        let claims = key.verify(SAMPLE).unwrap();
        assert_eq!(claims.level("s1/orders/0.#epoch.0"), Level::ReadUpdate);
        assert_eq!(claims.is_good(ISSUED), Ok(()));
        assert_eq!(claims.is_good(ISSUED + 599), Ok(()));
        assert_eq!(claims.is_good(ISSUED + 600), Err(TokenError::Expired));
        assert_eq!(claims.is_good(ISSUED - 60), Err(TokenError::Refused));
    }

    #[test]
    fn a_claim_covers_its_stream_and_its_table_and_nothing_beside() {
        let stream = claims(Resource::Stream("s", "x"), Level::Read);
        let table = claims(Resource::Table("s", "x"), Level::Read);
        for (segment, of_stream, of_table) in [
            ("s/x/0.#epoch.0", true, false),
            ("s/x/0.#epoch.0#transaction.00000000000000000000000000000000", true, false),
            ("s/x", true, false),
            ("s/x_kvtable/0.#epoch.0", true, true),
            ("s/x_kvtable", true, true),
            ("s/x_kvtables/0", false, false),
            ("s/xy/0", false, false),
            ("s/x_/0", false, false),
            ("t/x/0", false, false),
            ("ss/x/0", false, false),
            ("x/0", false, false),
            ("_system/_tables/scopes", false, false),
            ("", false, false),
        ] {
            let expected = |covered| if covered { Level::Read } else { Level::None };
            assert_eq!(stream.level(segment), expected(of_stream), "{segment}");
            assert_eq!(table.level(segment), expected(of_table), "{segment}");
        }
        assert_eq!(stream.level_of_all(), Level::None);
    }

    #[test]
    fn names_that_no_stream_has_get_no_token() {
        let key = Key::of(b"k");
        for (scope, name) in [("s", ""), ("", "x"), ("s", "x/y"), ("s", "x\",\"*"), ("s", "x>"), ("s\u{fc}", "x")] {
            assert_eq!(key.sign(&[(Resource::Stream(scope, name), Level::Read)], 0, 600), None, "{scope:?} {name:?}");
        }
        assert_eq!(key.sign(&[(Resource::Root, Level::Read)], 0, 600), None);
    }

    #[test]
    fn the_payload_reads_the_same_in_the_alphabet_of_the_rust_client() {
        let key = Key::of(b"k");
        for name in ["a", "ab", "abc", "_RGgroup", "x_kvtable", "A.b-9"] {
            for now in 0..200 {
                let token = key.sign(&[(Resource::Stream("s", name), Level::Read)], ISSUED + now, 600).unwrap();
                let payload = token.split('.').nth(1).unwrap();
                let read = String::from_utf8(STANDARD_NO_PAD.decode(payload).unwrap()).unwrap();
                assert!(read.contains(&format!("\"exp\":{}", ISSUED + now + 600)), "{read}");
            }
        }
    }

    #[test]
    fn forgeries_are_refused() {
        let key = Key::of(b"secret");
        let (payload, signature) = SAMPLE.split_once('.').unwrap().1.split_once('.').unwrap();
        let other = |header: &str| {
            let signed = format!("{}.{payload}", jws::encode(header));
            let signature = hmac::sign(&key.0, signed.as_bytes());
            format!("{signed}.{}", jws::encode(signature))
        };
        let forever = format!(r#"{{"sub":"{SUBJECT}","aud":"{AUDIENCE}","iat":0,"*":"READ_UPDATE"}}"#);
        let elsewhere = format!(r#"{{"sub":"{SUBJECT}","aud":"other","iat":0,"*":"READ_UPDATE","exp":99999999999}}"#);
        let signed = |payload: &str| {
            let signed = format!("{}.{}", jws::encode(HEADER), jws::encode(payload));
            format!("{signed}.{}", jws::encode(hmac::sign(&key.0, signed.as_bytes())))
        };
        let short = format!("{}.{payload}.{}", jws::encode(HEADER), &signature[..40]);
        for token in [
            String::new(),
            "a.b.c".to_owned(),
            "..".to_owned(),
            format!("{SAMPLE}."),
            SAMPLE[1..].to_owned(),
            SAMPLE[..SAMPLE.len() - 1].to_owned(),
            format!("{}.{payload}.", jws::encode(r#"{"alg":"none"}"#)),
            format!("{}.{payload}.{signature}", jws::encode(r#"{"alg":"none"}"#)),
            other(r#"{"alg":"none"}"#),
            other(r#"{"alg":"HS256"}"#),
            other(r#"{"alg":"RS512"}"#),
            other(r#"{"alg":"HS512","crit":["exp"]}"#),
            other(r#"{}"#),
            short,
            signed(&forever),
            signed(&elsewhere),
            "x".repeat(jws::TOKEN_BYTES_MAX + 1),
        ] {
            assert_eq!(key.verify(&token), Err(TokenError::Refused), "{token}");
        }
        assert_eq!(Key::of(b"Secret").verify(SAMPLE), Err(TokenError::Refused));
    }

    #[test]
    fn a_short_key_is_no_key() {
        assert_eq!(Key::new(b"secret").unwrap_err(), ShortKey { bytes: 6 });
        assert!(Key::new(&[0; 32]).is_ok());
    }
}
