//! How to make a client.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::client::Client;
use crate::credentials::{Credentials, Hidden};
use crate::endpoint::Address;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Tcp, Transport};

/// Settings of a [`Client`] before it is made.
#[derive(Clone)]
pub struct ClientOptions {
    pub(crate) address: Address,
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
    pub(crate) transport: Option<Arc<dyn Transport>>,
    pub(crate) credentials: Option<Hidden>,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) retry_for: Duration,
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, credentials, connect_timeout, request_timeout, retry_for, .. } = self;
        f.debug_struct("ClientOptions")
            .field("address", address)
            .field("credentials", credentials)
            .field("connect_timeout", connect_timeout)
            .field("request_timeout", request_timeout)
            .field("retry_for", retry_for)
            .finish_non_exhaustive()
    }
}

impl ClientOptions {
    /// Settings for the controllers at an address: `tcp://HOST[:PORT]` or `tls://HOST[:PORT]`, several separated by commas,
    /// of which the next is tried when one does not answer. The port is 9090 unless said; `pravega`, `pravegas` and `ssl`
    /// are taken as schemes, too.
    ///
    /// # Errors
    /// `Invalid`: this is no address.
    pub fn new(address: &str) -> Result<Self> {
        Ok(Self {
            address: address.parse()?,
            tls: None,
            transport: None,
            credentials: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            retry_for: Duration::from_secs(60),
        })
    }

    /// Proves who the client is; see [`basic`](crate::basic), [`bearer`](crate::bearer) and
    /// [`OidcIssuer`](crate::OidcIssuer). Without, nobody is told.
    #[must_use]
    pub fn credentials(mut self, credentials: impl Credentials) -> Self {
        self.credentials = Some(Hidden(Arc::new(credentials)));
        self
    }

    /// Trusts servers whose certificate one of these signed (PEM, one or more), and no others. Needed with `tls://` unless
    /// [`tls`](Self::tls) is given.
    ///
    /// # Errors
    /// `Invalid`: there is no certificate in it.
    pub fn trusting(mut self, certificates: &[u8]) -> Result<Self> {
        self.tls = Some(Arc::new(trust(certificates)?));
        Ok(self)
    }

    /// How to speak TLS, in every detail.
    #[must_use]
    pub fn tls(mut self, config: Arc<rustls::ClientConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Opens connections in another way than over sockets.
    #[must_use]
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// How long a connection may take to open, TLS and the server's hello included. Default 5 s.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// How long one attempt may take to be answered, and how long a server that owes answers may be silent. Default 30 s; an
    /// attempt takes no longer than there is time for retries left, or a second where there is less. A
    /// server that gives signs of life is waited for where that is the nature of what was asked: events that there is no
    /// room for yet, reads at the end of what is written.
    #[must_use]
    pub fn request_timeout(mut self, limit: Duration) -> Self {
        self.request_timeout = limit;
        self
    }

    /// How long attempts that fail for want of a server are repeated before the caller gets
    /// [`Unavailable`](ErrorKind::Unavailable). Default 60 s. A call ends within this time also when a server takes connections
    /// and says nothing, give or take a second; events under way, and reads, find such a server out by its silence
    /// ([`request_timeout`](Self::request_timeout)) before this time begins.
    #[must_use]
    pub fn retry_for(mut self, limit: Duration) -> Self {
        self.retry_for = limit;
        self
    }

    /// A client with these settings. It connects when it is first used.
    ///
    /// # Errors
    /// `Invalid`: TLS without knowing whom to trust.
    pub fn connect(self) -> Result<Client> {
        Client::new(self)
    }

    pub(crate) fn make_transport(&self) -> Result<Arc<dyn Transport>> {
        if let Some(transport) = &self.transport {
            return Ok(transport.clone());
        }
        match (&self.tls, self.address.tls) {
            (Some(config), true) => Ok(Arc::new(Tcp::tls(config.clone()))),
            (None, true) => Err(Error::new(ErrorKind::Invalid, "TLS needs certificates to trust")),
            (_, false) => Ok(Arc::new(Tcp::plain())),
        }
    }
}

/// TLS that trusts whoever one of these (PEM) signed for, and nobody else.
pub(crate) fn trust(certificates: &[u8]) -> Result<rustls::ClientConfig> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let bad = |error: &dyn fmt::Display| Error::new(ErrorKind::Invalid, format!("trusted certificates: {error}"));
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(certificates) {
        roots.add(certificate.map_err(|error| bad(&error))?).map_err(|error| bad(&error))?;
    }
    if roots.is_empty() {
        return Err(bad(&"no certificate found"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(&error))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
