//! Tokens of an issuer that the operator trusts: whether one is good now, and what it grants.
//!
//! A grant comes from two places: `authorization.permissions`, as Keycloak writes it, whose entries have the name of a
//! resource (`rsname`, a pattern as in the password file) and its `scopes` (`READ` or `READ_UPDATE`; Keycloak leaves an
//! empty list out); and, if the operator names one, a claim with texts of the form `resource,LEVEL`.
//!
//! Guarantees:
//! * a token without an end, without our audience or of another issuer is refused, whoever signed it
//! * so is one with a grant that begins like one of ours and cannot be read, or with too many: a denial may be among what
//!   would be left out. What is of another form is another service's and passed over
//! * a permission for a resource of ours without a level among its scopes denies, as `NONE` does: it speaks of this
//!   resource in particular, and a wider one is not to grant what this one does not

use serde_json::{Map, Value};

use crate::grants::{Grant, GrantError, Grants, Level};
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
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
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
    /// It says something about our resources that cannot be read.
    #[error("with a malformed grant: {0}")]
    Grant(GrantError),
    /// It grants more than anyone can look through.
    #[error("with more than {GRANTS_MAX} grants")]
    TooManyGrants,
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
        Ok(Bearer { subject, grants: self.grants(&claims)?, until: until.saturating_add(SKEW_SECONDS) })
    }

    fn grants(&self, claims: &Map<String, Value>) -> Result<Grants, TokenError> {
        let mut grants = Vec::new();
        let permissions = claims.get("authorization").and_then(|part| part.get("permissions"));
        for permission in permissions.and_then(Value::as_array).into_iter().flatten() {
            let pattern = permission.get("rsname").and_then(Value::as_str).filter(|pattern| is_ours(pattern));
            let Some(pattern) = pattern else { continue };
            let scopes = permission.get("scopes").and_then(Value::as_array).into_iter().flatten();
            // Words beside a level may be another service's.
            let levels: Vec<_> = scopes.filter_map(|scope| level(scope.as_str()?)).collect();
            let is_denied = levels.contains(&Level::None);
            let most = levels.iter().copied().max().filter(|_| !is_denied);
            match Grant::new(pattern, most.unwrap_or(Level::None)) {
                // Neither a pattern nor a level of ours.
                Err(_) if levels.is_empty() && !pattern.trim_start().starts_with("prn::") => {}
                grant => grants.push(grant.map_err(TokenError::Grant)?),
            }
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
            for text in texts.into_iter().filter(|text| is_ours(text)) {
                grants.push(Grant::parse(text).map_err(TokenError::Grant)?);
            }
        }
        if grants.len() > GRANTS_MAX { Err(TokenError::TooManyGrants) } else { Ok(Grants::new(grants)) }
    }
}

/// A level among the scopes of a permission. A denial is one however it is written; nothing is granted by a guess.
fn level(scope: &str) -> Option<Level> {
    Level::parse(scope).or_else(|| scope.eq_ignore_ascii_case(Level::None.as_str()).then_some(Level::None))
}

/// Whether a text is meant to be about a resource of ours.
fn is_ours(text: &str) -> bool {
    let text = text.trim_start();
    text.starts_with("prn::") || text.starts_with('*')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::grants::Resource;

    fn grants(claims: &Value) -> Result<Grants, TokenError> {
        let trust = Trust { issuer: None, audience: String::new(), claim: Some("a.b".to_owned()) };
        trust.grants(claims.as_object().unwrap())
    }

    fn permissions(pattern: &str, levels: &[&str]) -> Value {
        json!({ "authorization": { "permissions": [{ "rsname": pattern, "scopes": levels }] } })
    }

    #[test]
    fn what_is_of_another_form_is_passed_over_and_what_looks_like_ours_has_to_be_read() {
        let claim = |texts: Value| grants(&json!({ "a": { "b": texts } }));
        let count = |claims: Result<Grants, _>| claims.unwrap().iter().count();
        assert_eq!(count(claim(json!(["prn::/,READ", "openid", "scope:a,READ", 7]))), 1);
        assert_eq!(count(claim(json!("openid prn::/,READ;*,NONE"))), 2);
        assert_eq!(count(claim(json!({}))), 0);
        assert_eq!(count(grants(&permissions("default", &["READ"]))), 0);
        assert_eq!(count(grants(&permissions("*x", &["view"]))), 0);
        for (pattern, levels) in [
            (" prn::/scope:s", &[][..]),
            ("prn::/scope:s ", &["NONE"]),
            ("prn::/scope:s\u{200b}", &["NONE"]),
            ("prn::/scope:s\u{fe0f}", &["view"]),
            ("*x", &["READ"]),
        ] {
            let error = grants(&permissions(pattern, levels)).unwrap_err();
            assert_eq!(error, TokenError::Grant(GrantError::Pattern), "{pattern:?}");
        }
        for (text, error) in [
            ("prn::/scope:s", GrantError::NoLevel),
            ("prn::/scope:s,NOEN", GrantError::Level),
            (" prn::/scope:s,none", GrantError::Level),
            ("*:s,NONE", GrantError::Pattern),
        ] {
            assert_eq!(claim(json!(["prn::*,READ", text])), Err(TokenError::Grant(error)), "{text}");
        }
        assert_eq!(grants(&permissions("*x", &["NONE"])), Err(TokenError::Grant(GrantError::Pattern)));
        let many = |count: usize| claim(json!(vec!["prn::/,READ"; count]));
        assert_eq!(count(many(GRANTS_MAX)), GRANTS_MAX);
        assert_eq!(many(GRANTS_MAX + 1), Err(TokenError::TooManyGrants));
    }

    #[test]
    fn a_denial_within_a_permission_wins() {
        let level = |levels: &[&str]| grants(&permissions("prn::/", levels)).unwrap().level(Resource::Root);
        assert_eq!(level(&["READ", "READ_UPDATE"]), Level::ReadUpdate);
        assert_eq!(level(&["READ_UPDATE", "NONE", "READ"]), Level::None);
        assert_eq!(level(&["READ_UPDATE", "none"]), Level::None);
        assert_eq!(level(&["view", "READ"]), Level::Read, "beside a level there may be words of others");
    }

    #[test]
    fn a_permission_without_a_level_grants_nothing_and_hides_what_a_wider_one_grants() {
        let scopes = [
            json!(["none"]),
            json!(["None", "view"]),
            json!(["view"]),
            json!(["read", "READ-UPDATE", " READ"]),
            json!([]),
            json!([7, null, ["READ"]]),
            json!("READ"),
            Value::Null,
        ];
        let wide = json!({ "rsid": "1", "rsname": "prn::*", "scopes": ["READ_UPDATE"] });
        let check = |permission: Value, said: &Value| {
            let found = grants(&json!({ "authorization": { "permissions": [wide, permission] } })).unwrap();
            assert_eq!(found.level(Resource::Scope("s")), Level::None, "{said}");
            assert_eq!(found.level(Resource::Scope("t")), Level::ReadUpdate, "{said}");
        };
        for said in scopes {
            check(json!({ "rsid": "2", "rsname": "prn::/scope:s", "scopes": said }), &said);
        }
        // As Keycloak writes an empty list.
        check(json!({ "rsid": "2", "rsname": "prn::/scope:s" }), &Value::Null);
    }
}
