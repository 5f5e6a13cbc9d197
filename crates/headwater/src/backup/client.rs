//! As much of an HTTP client as a backup needs: one request on one connection, a bounded answer.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_client::Credentials;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::header::HeaderValue;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{BackupError, ServerArguments};

/// How long one answer may take: checkpoints come before the first.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest answer; a piece of a file is shorter.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// A server's admin interface.
#[derive(Clone)]
pub(super) struct Client {
    server: String,
    address: SocketAddr,
    tls: Option<TlsConnector>,
    credentials: Option<Arc<dyn Credentials>>,
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What bytes go over.
trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

impl Client {
    /// The server is `http://HOST:PORT` or `https://ADDRESS:PORT`.
    pub(super) async fn new(arguments: &ServerArguments) -> Result<Self, BackupError> {
        let server = &arguments.server;
        let failed = |source: Cause| BackupError::Server { server: server.clone(), source };
        let (host, is_tls) = match (server.strip_prefix("http://"), server.strip_prefix("https://")) {
            (Some(host), _) => (host, false),
            (_, Some(host)) => (host, true),
            _ => return Err(failed("it begins neither with http:// nor with https://".into())),
        };
        let tls = match (&arguments.ca, is_tls) {
            (Some(path), true) => Some(connector(path).map_err(failed)?),
            (None, true) => return Err(failed("--ca has to say whom to trust".into())),
            (Some(_), false) => return Err(failed("--ca makes sense with https:// only".into())),
            (None, false) => None,
        };
        let credentials = arguments.credentials.as_deref().map(crate::credentials::read).transpose();
        let credentials = credentials.map_err(|error| failed(error.into()))?;
        let host = host.trim_end_matches('/');
        let address = tokio::net::lookup_host(host).await.map_err(|error| failed(error.into()))?.next();
        let address = address.ok_or_else(|| failed("its name has no address".into()))?;
        if credentials.is_some() && !is_tls && !address.ip().is_loopback() {
            return Err(failed("credentials leave this machine over https:// only".into()));
        }
        Ok(Self { server: server.clone(), address, tls, credentials })
    }

    async fn connect(&self) -> Result<Box<dyn Connection>, Cause> {
        let socket = TcpStream::connect(self.address).await?;
        match &self.tls {
            None => Ok(Box::new(socket)),
            Some(tls) => Ok(Box::new(tls.connect(ServerName::from(self.address.ip()), socket).await?)),
        }
    }

    /// Asks, and returns the body of an answer of success.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        range: Option<(u64, u64)>,
    ) -> Result<Bytes, BackupError> {
        let failed = |source| BackupError::Server { server: self.server.clone(), source };
        // Outside of the server's time: a person may have to sign in first.
        let authorization = self.authorization().await.map_err(failed)?;
        let answered = tokio::time::timeout(PATIENCE, self.exchange(method, path, range, authorization)).await;
        let answered = answered.unwrap_or_else(|_| Err("no answer in 30 s".into()));
        let (status, body) = answered.map_err(failed)?;
        if status.is_success() {
            return Ok(body);
        }
        let detail = serde_json::from_slice::<Value>(&body).ok();
        let detail = detail.and_then(|body| Some(body.get("detail")?.as_str()?.to_owned())).unwrap_or_default();
        Err(BackupError::Refused { server: self.server.clone(), status: status.as_u16(), detail })
    }

    /// [`ask`](Self::ask) for a JSON object.
    pub(super) async fn ask_json(&self, method: Method, path: &str) -> Result<Value, BackupError> {
        let body = self.ask(method, path, None).await?;
        serde_json::from_slice(&body)
            .map_err(|error| BackupError::Server { server: self.server.clone(), source: error.into() })
    }

    /// The error for an answer that lacks something.
    pub(super) fn odd(&self, what: &str) -> BackupError {
        BackupError::Server { server: self.server.clone(), source: what.into() }
    }

    async fn authorization(&self) -> Result<Option<HeaderValue>, Cause> {
        let Some(credentials) = &self.credentials else { return Ok(None) };
        let mut header = HeaderValue::try_from(credentials.authorization().await?)?;
        header.set_sensitive(true);
        Ok(Some(header))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        range: Option<(u64, u64)>,
        authorization: Option<HeaderValue>,
    ) -> Result<(StatusCode, Bytes), Cause> {
        let connection = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(connection)).await?;
        let connection = tokio::spawn(connection);
        // The address and not a name: that is what the server believes.
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, self.address.to_string());
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if let Some((from, to)) = range {
            request = request.header(header::RANGE, format!("bytes={from}-{to}"));
        }
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
        connection.abort();
        Ok((status, body))
    }
}

/// A side of TLS that trusts what is in a file and nothing else.
fn connector(path: &Path) -> Result<TlsConnector, Cause> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path)? {
        roots.add(certificate?)?;
    }
    if roots.is_empty() {
        return Err(format!("{} has no certificate", path.display()).into());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the operator's file, not the store's")]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn credentials_come_from_a_file_of_ones_own_and_leave_this_machine_over_tls_only() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("credentials");
        std::fs::write(&file, "admin:secret\n").unwrap();
        let refused = async |server: &str, mode| {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            let arguments = ServerArguments { server: server.to_owned(), ca: None, credentials: Some(file.clone()) };
            Client::new(&arguments).await.err().map(|error| crate::serve::chain(&error))
        };
        assert_eq!(refused("http://127.0.0.1:9091", 0o600).await, None);
        assert_eq!(refused("http://[::1]:9091", 0o600).await, None);
        let away = refused("http://192.0.2.1:9091", 0o600).await.unwrap();
        assert!(away.contains("https://"), "{away}");
        let exposed = refused("http://127.0.0.1:9091", 0o644).await.unwrap();
        assert!(exposed.contains("everybody"), "{exposed}");
    }
}
