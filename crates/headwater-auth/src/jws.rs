//! The compact form of signed tokens: three parts of URL-safe base64. Only taken apart here; who may have signed is for
//! `keys` and `delegation` to say.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// Longest token.
pub(crate) const TOKEN_BYTES_MAX: usize = 8 << 10;

/// A token whose signature nobody has looked at yet.
pub(crate) struct Unverified<'a> {
    pub(crate) algorithm: String,
    pub(crate) key_id: Option<String>,
    /// What the signature is of.
    pub(crate) signed: &'a str,
    pub(crate) signature: Vec<u8>,
    payload: &'a str,
}

impl<'a> Unverified<'a> {
    /// Takes a token apart; `None` if it is none, or too long, or demands something of us that we do not know.
    pub(crate) fn parse(token: &'a str) -> Option<Self> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let header = object(header)?;
        let text = |name: &str| header.get(name).and_then(Value::as_str).map(str::to_owned);
        // Extensions that have to be understood, none of which are.
        if header.contains_key("crit") || payload.contains('.') {
            return None;
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        Some(Self { algorithm: text("alg")?, key_id: text("kid"), signed, signature, payload })
    }

    /// What it says. Only for callers that have verified the signature.
    pub(crate) fn claims(&self) -> Option<Map<String, Value>> {
        object(self.payload)
    }
}

fn object(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A time of a token, in seconds since 1970; fractions are dropped. `Err` if it is there and no time.
pub(crate) fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<i64>, ()> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => match (value.as_i64(), value.as_f64()) {
            (Some(seconds), _) => Ok(Some(seconds)),
            // No time that anybody means is beyond what a double keeps exactly.
            (None, Some(seconds)) if seconds.abs() < 9e15 => Ok(Some(seconds as i64)),
            _ => Err(()),
        },
    }
}

/// Whether `aud`, a text or a list of texts, names us.
pub(crate) fn is_for(claims: &Map<String, Value>, audience: &str) -> bool {
    match claims.get("aud") {
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(several)) => several.iter().any(|one| one.as_str() == Some(audience)),
        _ => false,
    }
}
