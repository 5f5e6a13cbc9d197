//! Tokens of an issuer that the operator trusts: whether one is good now, and what it grants.
//!
//! A grant comes from two places: `authorization.permissions`, as Keycloak writes it, whose entries have the name of a
//! resource (`rsname`, a pattern as in the password file) and its `scopes` (`READ` or `READ_UPDATE`); and, if the operator
//! names one, a claim with texts of the form `resource,LEVEL`.
//!
//! Guarantee: a token without an end, without our audience or of another issuer is refused, whoever signed it.

use serde_json::{Map, Value};

use crate::grants::{Grant, Grants, Level};
use crate::jws;
use crate::keys::{KeySet, SignatureError};

/// How far the issuer's clock may be from ours, in seconds.
pub const SKEW_SECONDS: i64 = 30;
/// Most grants of one token.
const GRANTS_MAX: usize = 1024;

/// Whose tokens are believed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Trust {
    /// What `iss` has to be; `None`: any, since the keys say it all.
    pub issuer: Option<String>,
    /// What `aud` has to name.
    pub audience: String,
    /// A claim with further grants, its path with dots between the names.
    pub claim: Option<String>,
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TokenError {
    /// Nobody we trust signed it.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Its end has come, or it has none.
    #[error("expired, or without an end")]
    Expired,
    /// Its time has not come.
    #[error("not valid yet")]
    NotYet,
    /// It is another issuer's.
    #[error("of another issuer")]
    Issuer,
    /// It is for somebody else.
    #[error("for another audience")]
    Audience,
}

/// A token that is good now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bearer {
    /// Who it speaks of, for the log.
    pub subject: String,
    /// What it grants.
    pub grants: Grants,
    /// When it ends, in seconds since 1970.
    pub until: i64,
}

impl Trust {
    /// Judges a token at a moment.
    ///
    /// # Errors
    /// Any [`TokenError`].
    pub fn check(&self, keys: &KeySet, token: &str, now: i64) -> Result<Bearer, TokenError> {
        let claims = keys.verify(token)?;
        let time = |name| jws::time(&claims, name);
        let until = time("exp").ok().flatten().ok_or(TokenError::Expired)?;
        if now >= until.saturating_add(SKEW_SECONDS) {
            return Err(TokenError::Expired);
        }
        let from = time("nbf").map_err(|()| TokenError::NotYet)?.max(time("iat").map_err(|()| TokenError::NotYet)?);
        if from.is_some_and(|from| from > now.saturating_add(SKEW_SECONDS)) {
            return Err(TokenError::NotYet);
        }
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        if self.issuer.as_deref().is_some_and(|issuer| text("iss") != Some(issuer)) {
            return Err(TokenError::Issuer);
        }
        if !jws::is_for(&claims, &self.audience) {
            return Err(TokenError::Audience);
        }
        let subject = text("preferred_username").or(text("sub")).unwrap_or_default().to_owned();
        Ok(Bearer { subject, grants: self.grants(&claims), until: until.saturating_add(SKEW_SECONDS) })
    }

    fn grants(&self, claims: &Map<String, Value>) -> Grants {
        let mut grants = Vec::new();
        let permissions = claims.get("authorization").and_then(|part| part.get("permissions"));
        for permission in permissions.and_then(Value::as_array).into_iter().flatten() {
            let Some(pattern) = permission.get("rsname").and_then(Value::as_str) else { continue };
            let scopes = permission.get("scopes").and_then(Value::as_array).into_iter().flatten();
            let level = scopes.filter_map(|scope| Level::parse(scope.as_str()?)).max();
            grants.extend(level.and_then(|level| Grant::new(pattern, level).ok()));
        }
        if let Some(path) = &self.claim {
            let mut found = None;
            for (index, name) in path.split('.').enumerate() {
                found = if index == 0 { claims.get(name) } else { found.and_then(|value: &Value| value.get(name)) };
            }
            let texts: Vec<&str> = match found {
                Some(Value::String(text)) => text.split([' ', ';']).collect(),
                Some(Value::Array(texts)) => texts.iter().filter_map(Value::as_str).collect(),
                _ => Vec::new(),
            };
            grants.extend(texts.into_iter().filter_map(|text| Grant::parse(text).ok()));
        }
        grants.truncate(GRANTS_MAX);
        Grants::new(grants)
    }
}
