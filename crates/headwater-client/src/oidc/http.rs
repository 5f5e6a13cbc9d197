//! Questions to an issuer: where it takes them, how long they may take, how much it may answer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{RequestBuilder, StatusCode, Url};
use rustls_platform_verifier::BuilderVerifierExt as _;
use serde_json::Value;

use super::Secret;
use super::answers::Refusal;
use crate::error::{Error, ErrorKind, Result};

/// Longest answer taken, in bytes: descriptions have some thousands, tokens less than servers take as a header.
const ANSWER_BYTES_MAX: usize = 128 << 10;
/// Of the forms that are posted.
const SECRET_FIELDS: [&str; 2] = ["refresh_token", "device_code"];

/// Where the issuer takes questions, by its own description.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) token: Url,
    /// Not every issuer lets people sign in on another device; an error if it wants that where others can listen, which is
    /// nothing to those who do not want it.
    pub(super) device: Option<Result<Url>>,
    /// It takes the client's secret in the form, and not as HTTP authentication.
    secret_in_form: bool,
}

/// Asks one issuer as one client.
pub(super) struct Asker {
    issuer: String,
    client: String,
    secret: Option<Secret>,
    http: reqwest::Client,
    /// Asked for once, and again after an answer that was none: the issuer may have moved.
    places: Mutex<Option<Arc<Places>>>,
}

impl Asker {
    /// `tls`: `None` trusts whom the system trusts.
    pub(super) fn new(
        issuer: &str,
        client: String,
        secret: Option<Secret>,
        tls: Option<&rustls::ClientConfig>,
        timeout: Duration,
    ) -> Result<Self> {
        let tls = match tls {
            Some(config) => config.clone(),
            None => trusting_the_system(issuer)?,
        };
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .timeout(timeout)
            // What is secret goes where the issuer's description says, not where an answer leads.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            // Minutes pass between two questions.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| Error::caused(ErrorKind::Invalid, "no HTTP client for the issuer", error))?;
        Ok(Self { issuer: issuer.to_owned(), client, secret, http, places: Mutex::default() })
    }

    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Where questions go.
    pub(super) async fn places(&self) -> Result<Arc<Places>> {
        if let Some(places) = &*self.locked() {
            return Ok(places.clone());
        }
        let about = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let (status, body) = self.exchange(self.http.get(about)).await?;
        if !status.is_success() {
            return Err(self.answered_with(status));
        }
        let about = serde_json::from_slice(&body).map_err(|_| self.odd("its description is no JSON"))?;
        let places = Arc::new(self.described(&about)?);
        *self.locked() = Some(places.clone());
        Ok(places)
    }

    fn described(&self, about: &Value) -> Result<Places> {
        if about.get("issuer").and_then(Value::as_str) != Some(&self.issuer) {
            return Err(self.odd("it calls itself otherwise"));
        }
        let named = |name| about.get(name).filter(|at| !at.is_null());
        let place = |name| match named(name).map(|at| at.as_str().and_then(safe)) {
            None => Ok(None),
            Some(Some(at)) => Ok(Some(at)),
            Some(None) => Err(self.odd(&format!("its {name} is neither https:// nor on this machine"))),
        };
        let methods = about.get("token_endpoint_auth_methods_supported").and_then(Value::as_array);
        let takes = |method: &str| methods.is_some_and(|all| all.iter().any(|one| one.as_str() == Some(method)));
        Ok(Places {
            token: place("token_endpoint")?.ok_or_else(|| self.odd("it does not say where its tokens are"))?,
            device: place("device_authorization_endpoint").transpose(),
            secret_in_form: takes("client_secret_post") && !takes("client_secret_basic"),
        })
    }

    /// Posts a form as the client, and returns the object that was answered, or the issuer's no.
    pub(super) async fn post(
        &self,
        at: &Url,
        places: &Places,
        fields: &[(&str, &str)],
    ) -> Result<Result<Value, Refusal>> {
        let outcome = self.posted(self.form(at, places, fields)).await;
        if outcome.is_err() {
            *self.locked() = None;
        }
        let of_the_form = fields.iter().filter(|(name, _)| SECRET_FIELDS.contains(name)).map(|(_, value)| *value);
        let secrets: Vec<&str> = of_the_form.chain(self.secret.iter().map(|secret| secret.0.as_str())).collect();
        Ok(outcome?.map_err(|refusal| refusal.hiding(&secrets)))
    }

    /// The form, with what proves that this is the client.
    fn form(&self, at: &Url, places: &Places, fields: &[(&str, &str)]) -> RequestBuilder {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields);
        let mut request = self.http.post(at.clone());
        match &self.secret {
            Some(Secret(secret)) if places.secret_in_form => {
                form.append_pair("client_id", &self.client).append_pair("client_secret", secret);
            }
            Some(Secret(secret)) => {
                // RFC 6749, 2.3.1: both are encoded as in a form first.
                let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let pair = STANDARD.encode(format!("{}:{}", encoded(&self.client), encoded(secret)));
                let mut header = HeaderValue::try_from(format!("Basic {pair}")).expect("base64 can stand in a header");
                header.set_sensitive(true);
                request = request.header(AUTHORIZATION, header);
            }
            None => {
                form.append_pair("client_id", &self.client);
            }
        }
        request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form.finish())
    }

    async fn posted(&self, request: RequestBuilder) -> Result<Result<Value, Refusal>> {
        let (status, body) = self.exchange(request).await?;
        let answer = serde_json::from_slice::<Value>(&body).ok().filter(Value::is_object);
        // Some say no with a status of success, and some "later" with one of failure.
        if let Some(refusal) = answer.as_ref().and_then(Refusal::of)
            && (refusal.is_pace() || !may_pass(status))
        {
            return Ok(Err(refusal));
        }
        if !status.is_success() {
            return Err(self.answered_with(status));
        }
        answer.map(Ok).ok_or_else(|| self.odd("its answer is no JSON object"))
    }

    async fn exchange(&self, request: RequestBuilder) -> Result<(StatusCode, Vec<u8>)> {
        let failed = |error: reqwest::Error| {
            // The form, which has secrets in it, is in no such error; the address is said once.
            let what = format!("issuer {} does not answer", self.issuer);
            Error::caused(ErrorKind::Unavailable, what, error.without_url())
        };
        let mut response = request.header(ACCEPT, "application/json").send().await.map_err(failed)?;
        let too_long = || self.odd(&format!("its answer has more than {ANSWER_BYTES_MAX} bytes"));
        if response.content_length().is_some_and(|length| length > ANSWER_BYTES_MAX as u64) {
            return Err(too_long());
        }
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(failed)? {
            if body.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(too_long());
            }
            body.extend_from_slice(&piece);
        }
        Ok((response.status(), body))
    }

    fn answered_with(&self, status: StatusCode) -> Error {
        let kind = match status {
            _ if may_pass(status) => ErrorKind::Unavailable,
            StatusCode::UNAUTHORIZED => ErrorKind::Unauthenticated,
            StatusCode::FORBIDDEN => ErrorKind::Denied,
            _ => ErrorKind::Protocol,
        };
        Error::new(kind, format!("issuer {} answers with {status}", self.issuer))
    }

    /// An answer that no issuer should give.
    pub(super) fn odd(&self, what: &str) -> Error {
        Error::new(ErrorKind::Protocol, format!("issuer {}: {what}", self.issuer))
    }

    /// The error for a no of the issuer.
    pub(super) fn refused(&self, refusal: &Refusal) -> Error {
        let words = refusal.words();
        Error::new(refusal.kind(), format!("issuer {} refuses client {}: {words}", self.issuer, self.client))
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Option<Arc<Places>>> {
        self.places.lock().expect("nobody panics while it holds the places")
    }
}

/// Whether it may be otherwise when it is asked again.
fn may_pass(status: StatusCode) -> bool {
    status.is_server_error() || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status)
}

/// An address where nobody on the way can listen.
pub(super) fn safe(address: &str) -> Option<Url> {
    let url = Url::parse(address).ok()?;
    let host = url.host_str()?;
    let is_here = || {
        host == "localhost"
            || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    match url.scheme() {
        "https" => Some(url),
        "http" if is_here() => Some(url),
        _ => None,
    }
}

fn trusting_the_system(issuer: &str) -> Result<rustls::ClientConfig> {
    let failed = |error| Error::caused(ErrorKind::Invalid, "certificates that the system trusts", error);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(failed)?;
    let builder = match builder.clone().with_platform_verifier() {
        Ok(builder) => builder,
        // An issuer on this machine needs none, and a container often has none.
        Err(_) if issuer.starts_with("http://") => builder.with_root_certificates(rustls::RootCertStore::empty()),
        Err(error) => return Err(failed(error)),
    };
    Ok(builder.with_no_client_auth())
}
