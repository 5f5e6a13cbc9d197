//! How bytes reach a server: over TCP, over TLS, or inside the process.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::addresses::connect_any;
use crate::endpoint::Endpoint;

/// A connection's bytes in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Duplex for T {}

/// What is at the other end of a connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Service {
    /// gRPC.
    Controller,
    /// Pravega's segment store protocol.
    SegmentStore,
}

/// Opens connections.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// A new connection. The client limits how long it may take.
    fn connect(&self, service: Service, endpoint: &Endpoint) -> BoxFuture<'static, io::Result<Box<dyn Duplex>>>;
}

/// A peer that vanished without a word is noticed after this silence and some probes.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);

/// Sockets, plain or under TLS.
#[derive(Clone)]
pub(crate) struct Tcp {
    tls: Option<TlsConnector>,
}

impl Tcp {
    pub(crate) fn plain() -> Self {
        Self { tls: None }
    }

    pub(crate) fn tls(config: Arc<rustls::ClientConfig>) -> Self {
        Self { tls: Some(TlsConnector::from(config)) }
    }
}

impl fmt::Debug for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls.is_some() { "tls" } else { "tcp" })
    }
}

impl Transport for Tcp {
    fn connect(&self, _service: Service, endpoint: &Endpoint) -> BoxFuture<'static, io::Result<Box<dyn Duplex>>> {
        let (tls, endpoint) = (self.tls.clone(), endpoint.clone());
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((endpoint.host(), endpoint.port())).await?;
            let socket = connect_any(addresses, TcpStream::connect).await?;
            socket.set_nodelay(true)?;
            let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE_AFTER);
            socket2::SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
            let Some(tls) = tls else { return Ok(Box::new(socket) as Box<dyn Duplex>) };
            let name = ServerName::try_from(endpoint.host().to_owned())
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
            Ok(Box::new(tls.connect(name, socket).await?))
        })
    }
}
