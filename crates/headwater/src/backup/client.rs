//! As much of an HTTP client as a backup needs: one request on one connection, a bounded answer.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::BackupError;

/// How long one answer may take: checkpoints come before the first.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest answer; a piece of a file is shorter.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// A server's admin interface.
pub(super) struct Client {
    server: String,
    address: SocketAddr,
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

impl Client {
    /// `server` is `http://HOST:PORT`.
    pub(super) async fn new(server: &str) -> Result<Self, BackupError> {
        let failed = |source: Cause| BackupError::Server { server: server.to_owned(), source };
        let host = server.strip_prefix("http://").ok_or_else(|| failed("it does not begin with http://".into()))?;
        let host = host.trim_end_matches('/');
        let address = tokio::net::lookup_host(host).await.map_err(|error| failed(error.into()))?.next();
        let address = address.ok_or_else(|| failed("its name has no address".into()))?;
        Ok(Self { server: server.to_owned(), address })
    }

    /// Asks, and returns the body of an answer of success.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        range: Option<(u64, u64)>,
    ) -> Result<Bytes, BackupError> {
        let answered = tokio::time::timeout(PATIENCE, self.exchange(method, path, range)).await;
        let answered = answered.unwrap_or_else(|_| Err("no answer in 30 s".into()));
        let failed = |source| BackupError::Server { server: self.server.clone(), source };
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

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        range: Option<(u64, u64)>,
    ) -> Result<(StatusCode, Bytes), Cause> {
        let socket = TcpStream::connect(self.address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        let connection = tokio::spawn(connection);
        // The address and not a name: that is what the server believes.
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, self.address.to_string());
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
