//! Tokens of an OpenID Connect issuer, and telling Python what becomes of them.

use std::sync::Arc;

use headwater::client::{OidcIssuer, OidcTokens};
use pyo3::prelude::*;

use crate::errors::raise;
use crate::pending::tell;
use crate::values::duration;

/// An issuer, on its way from `OidcIssuer`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Issuer {
    address: String,
    client: String,
    secret: Option<String>,
    scope: Option<String>,
    audience: Option<String>,
    trust: Option<Vec<u8>>,
    answer_timeout: f64,
    refresh_token: Option<String>,
    on_refresh_token: Option<Py<PyAny>>,
    /// With it a person signs in; without it the program itself does.
    on_sign_in: Option<Py<PyAny>>,
}

impl Issuer {
    pub(crate) fn tokens(self) -> PyResult<OidcTokens> {
        let mut issuer = OidcIssuer::new(&self.address, &self.client).map_err(raise)?;
        issuer = issuer.answer_timeout(duration(self.answer_timeout)?);
        if let Some(secret) = &self.secret {
            issuer = issuer.secret(secret);
        }
        if let Some(scope) = &self.scope {
            issuer = issuer.scope(scope);
        }
        if let Some(audience) = &self.audience {
            issuer = issuer.audience(audience);
        }
        if let Some(certificates) = &self.trust {
            issuer = issuer.trusting(certificates).map_err(raise)?;
        }
        if let Some(token) = &self.refresh_token {
            issuer = issuer.refresh_token(token);
        }
        if let Some(told) = self.on_refresh_token.map(Arc::new) {
            issuer = issuer.on_refresh_token(move |token| {
                let (told, token) = (told.clone(), token.to_owned());
                tell(move |py| told.call1(py, (token,)).map(drop));
            });
        }
        let tokens = match self.on_sign_in.map(Arc::new) {
            None => issuer.client_credentials(),
            Some(told) => issuer.device(move |sign_in| {
                let (told, sign_in) = (told.clone(), sign_in.clone());
                let time = sign_in.time.as_secs_f64();
                tell(move |py| {
                    told.call1(py, (sign_in.address, sign_in.code, sign_in.address_with_code, time)).map(drop)
                });
            }),
        };
        tokens.map_err(raise)
    }
}
