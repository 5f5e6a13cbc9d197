//! Bearer tokens of an OpenID Connect issuer, renewed before they end.
//!
//! ```text
//!   calls ─► OidcTokens ─► a token that is good ────────────────► header
//!                │
//!                └─► due? one renewal for all ─► grant ─► http ─► issuer
//! ```
//!
//! Guarantees:
//! * a token is renewed once two thirds of its time are over, or a minute before its end: while it is good, nobody waits
//! * one question to the issuer is under way at a time, whoever asks, and a failure is not asked about again for
//!   [`renewal::PAUSE`]
//! * secrets and tokens go to the addresses that the issuer names about itself, over TLS or inside this machine, and nowhere
//!   else: no redirects, no proxies; they are in no `Debug` output and in no error
//! * what the issuer answers is limited before memory is taken for it, in time as in length
//!
//! [`http`] asks, [`answers`] says what an answer means, [`device`] when a person's sign-in is asked about, [`renewal`] when
//! tokens are. Start reading at [`OidcTokens`].
//!
//! Source: RFC 6749 (4.4 client credentials, 5 answers, 6 refreshing), RFC 8628 (sign-in on another device), OpenID Connect
//! Discovery 1.0.

mod answers;
mod device;
mod http;
mod renewal;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

pub use self::answers::DeviceSignIn;
use self::http::Asker;
use self::renewal::{Grant, Renewal};
use crate::credentials::Credentials;
use crate::error::{Error, ErrorKind, Result};
use crate::options::trust;

/// A text that nobody may see.
#[derive(Clone, Eq, PartialEq)]
struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hidden")
    }
}

type Told = Arc<dyn Fn(&str) + Send + Sync>;

/// An issuer of tokens, and what it knows this program as.
///
/// ```no_run
/// # fn main() -> headwater_client::Result<()> {
/// use headwater_client::{ClientOptions, OidcIssuer};
///
/// let tokens = OidcIssuer::new("https://id.example/realms/shop", "ingest")?
///     .secret("of the client")
///     .client_credentials()?;
/// let options = ClientOptions::new("tls://store.example")?.credentials(tokens);
/// # drop(options);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct OidcIssuer {
    address: String,
    client: String,
    secret: Option<Secret>,
    scopes: Vec<String>,
    audience: Option<String>,
    refresh: Option<Secret>,
    tell_refresh: Option<Told>,
    tls: Option<Arc<rustls::ClientConfig>>,
    answer_timeout: Duration,
}

impl fmt::Debug for OidcIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, client, secret, scopes, audience, refresh, answer_timeout, .. } = self;
        f.debug_struct("OidcIssuer")
            .field("address", address)
            .field("client", client)
            .field("secret", secret)
            .field("scopes", scopes)
            .field("audience", audience)
            .field("refresh", refresh)
            .field("answer_timeout", answer_timeout)
            .finish_non_exhaustive()
    }
}

impl OidcIssuer {
    /// The issuer at an address, such as `https://id.example/realms/shop`: what its tokens have as `iss`, and below which its
    /// description is (`/.well-known/openid-configuration`). It has to be `https://`, or `http://` of this machine
    /// (`localhost`, 127.0.0.0/8, `::1`); so do the addresses in its description. Nothing is asked yet.
    ///
    /// # Errors
    /// `Invalid`: no such address, or one with a user, a query or a fragment in it; no client.
    pub fn new(address: &str, client: &str) -> Result<Self> {
        let is_plain = http::safe(address).is_some_and(|url| {
            url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none()
        });
        if !is_plain {
            // Not repeated: there may be a password in it.
            let what =
                "an issuer's address is https://HOST or http:// of this machine, without user, query and fragment";
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        if client.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "the name that the issuer knows this client by is empty"));
        }
        Ok(Self {
            address: address.to_owned(),
            client: client.to_owned(),
            secret: None,
            scopes: Vec::new(),
            audience: None,
            refresh: None,
            tell_refresh: None,
            tls: None,
            answer_timeout: Duration::from_secs(10),
        })
    }

    /// What proves that this is the client. Sent as HTTP Basic authentication, or in the form if the issuer says that it takes
    /// only that (`token_endpoint_auth_methods_supported`).
    #[must_use]
    pub fn secret(mut self, secret: &str) -> Self {
        self.secret = Some(Secret(secret.to_owned()));
        self
    }

    /// Asks for this scope, too; several with spaces between them. Without any, the issuer decides. Many issuers give a refresh
    /// token to a person's program only for `offline_access`.
    #[must_use]
    pub fn scope(mut self, scope: &str) -> Self {
        self.scopes.push(scope.to_owned());
        self
    }

    /// Sends `audience`, for issuers that want to be told what the token is for.
    #[must_use]
    pub fn audience(mut self, audience: &str) -> Self {
        self.audience = Some(audience.to_owned());
        self
    }

    /// Begins with a refresh token from before, so that nobody has to sign in again. One that the issuer does not take any more
    /// is dropped, and the grant begins anew.
    #[must_use]
    pub fn refresh_token(mut self, token: &str) -> Self {
        self.refresh = Some(Secret(token.to_owned()));
        self
    }

    /// Hears of each new refresh token, in order to keep it for [`refresh_token`](Self::refresh_token). It is a secret. Called
    /// by a task of the runtime: must not wait.
    #[must_use]
    pub fn on_refresh_token(mut self, tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.tell_refresh = Some(Arc::new(tell));
        self
    }

    /// Trusts issuers whose certificate one of these signed (PEM, one or more), and no others. Without this, and without
    /// [`tls`](Self::tls), those that the system trusts.
    ///
    /// # Errors
    /// `Invalid`: there is no certificate in it.
    pub fn trusting(mut self, certificates: &[u8]) -> Result<Self> {
        self.tls = Some(Arc::new(trust(certificates)?));
        Ok(self)
    }

    /// How to speak TLS with the issuer, in every detail.
    #[must_use]
    pub fn tls(mut self, config: Arc<rustls::ClientConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// How long the issuer may take for one answer, from the connection to the last byte. Default 10 s.
    #[must_use]
    pub fn answer_timeout(mut self, limit: Duration) -> Self {
        self.answer_timeout = limit;
        self
    }

    /// Tokens for the client itself, for programs that nobody sits at (grant `client_credentials`).
    ///
    /// # Errors
    /// `Invalid`: there is no secret, or the system has no certificates to trust.
    pub fn client_credentials(self) -> Result<OidcTokens> {
        if self.secret.is_none() {
            let what = "client credentials need the client's secret: OidcIssuer::secret";
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        self.tokens(Grant::ClientCredentials)
    }

    /// Tokens for a person, who signs in with a browser on any device (RFC 8628). `ask` is called when somebody has to, with the
    /// address to go to and the code to enter there: when the first token is needed, and again when the issuer takes the
    /// refresh token no more. The call that needed the token waits meanwhile, at most for the code's time; whoever does not want
    /// that to be any call signs in with [`OidcTokens::obtain`] first. `ask` is called by a task of the runtime: must not wait.
    ///
    /// # Errors
    /// `Invalid`: the system has no certificates to trust.
    pub fn device(self, ask: impl Fn(&DeviceSignIn) + Send + Sync + 'static) -> Result<OidcTokens> {
        self.tokens(Grant::Device(Box::new(ask)))
    }

    fn tokens(self, grant: Grant) -> Result<OidcTokens> {
        let asker = Asker::new(&self.address, self.client, self.secret, self.tls.as_deref(), self.answer_timeout)?;
        let scope = (!self.scopes.is_empty()).then(|| self.scopes.join(" "));
        let wanted = [("scope", scope), ("audience", self.audience)];
        let wanted = wanted.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let renewal = Renewal::new(asker, grant, wanted, self.refresh, self.tell_refresh);
        Ok(OidcTokens { renewal: Arc::new(renewal) })
    }
}

/// [`Credentials`] out of tokens that an issuer gives. Cheap to clone; all clones share the token, so that one may be given to
/// each of several clients.
///
/// What a token is made of is between the issuer and the store: the access token is sent as it is.
#[derive(Clone)]
pub struct OidcTokens {
    renewal: Arc<Renewal>,
}

impl fmt::Debug for OidcTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OidcTokens").field("issuer", &self.renewal.issuer()).finish_non_exhaustive()
    }
}

impl OidcTokens {
    /// Has a token that is good now: signs in, or finds out that it cannot be. Needs a Tokio runtime.
    ///
    /// # Errors
    /// * `Unavailable`: the issuer does not answer in time, cannot be reached, or says that it cannot now
    /// * `Unauthenticated`: it does not know this client or does not take its secret; nobody signed in in time
    /// * `Denied`: the person, or the issuer, said no
    /// * `Invalid`, `Unsupported`: it does not know this scope, this grant
    /// * `Protocol`: what it answers makes no sense, is too long, or leads to an address that nothing is safe on
    ///
    /// For a second after a failure, that one is returned and the issuer is not asked.
    ///
    /// # Cancel safety
    /// The question to the issuer goes on, and its answer is there for the next call.
    pub async fn obtain(&self) -> Result<()> {
        self.renewal.authorization().await.map(drop)
    }
}

impl Credentials for OidcTokens {
    fn authorization(&self) -> BoxFuture<'_, Result<String>> {
        Box::pin(self.renewal.authorization())
    }

    fn refused(&self) -> bool {
        self.renewal.refused()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_reached_over_tls_or_on_this_machine() {
        for (address, expected) in [
            ("https://id.example/realms/r", true),
            ("http://127.0.0.1:8080/", true),
            ("http://127.8.0.1", true),
            ("http://[::1]:8080/", true),
            ("http://localhost:8080", true),
            ("http://id.example", false),
            ("http://localhost.example", false),
            ("http://127.0.0.1.example", false),
            ("https://user:password@id.example", false),
            ("https://id.example/?realm=r", false),
            ("https://id.example/#r", false),
            ("file:///etc/passwd", false),
            ("id.example", false),
            ("", false),
        ] {
            let made = OidcIssuer::new(address, "c");
            assert_eq!(made.is_ok(), expected, "{address}");
            assert!(!made.err().is_some_and(|error| error.to_string().contains("password")), "{address}");
        }
        assert!(OidcIssuer::new("https://id.example", "").is_err());
    }

    #[test]
    fn secrets_are_not_shown() {
        let issuer = OidcIssuer::new("http://127.0.0.1:1", "client").unwrap();
        let issuer = issuer.secret("planted").refresh_token("planted").scope("openid");
        assert_eq!(
            format!("{issuer:?}"),
            "OidcIssuer { address: \"http://127.0.0.1:1\", client: \"client\", secret: Some(hidden), \
             scopes: [\"openid\"], audience: None, refresh: Some(hidden), answer_timeout: 10s, .. }"
        );
        let tokens = issuer.client_credentials().unwrap();
        assert_eq!(format!("{tokens:?}"), "OidcTokens { issuer: \"http://127.0.0.1:1\", .. }");
    }
}
