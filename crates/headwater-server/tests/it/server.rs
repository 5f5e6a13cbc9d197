//! The whole server, under TLS, and clients that trust it. It runs in this process, or, where `HEADWATER_TEST_BINARY`
//! names the binary that is shipped, as that.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use headwater_proto::controller::controller_service_client::ControllerServiceClient;
use headwater_server::{Config, Server, TlsConfig};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use crate::binary::Binary;
use crate::client::Client;

/// What a test runs.
pub(crate) struct Running {
    pub(crate) server: Served,
    pub(crate) directory: TempDir,
}

/// The server of a test.
pub(crate) enum Served {
    Here(Here),
    Binary(Binary),
}

/// One in this process. It writes no more when its owner is gone, who may remove its directory then.
pub(crate) struct Here(Option<Box<Server>>);

impl Drop for Here {
    fn drop(&mut self) {
        if let Some(server) = &self.0 {
            server.close();
        }
    }
}

impl std::ops::Deref for Here {
    type Target = Server;

    fn deref(&self) -> &Server {
        self.0.as_ref().expect("it is stopped at the end only")
    }
}

impl Served {
    pub(crate) fn controller(&self) -> SocketAddr {
        match self {
            Self::Here(server) => server.controller(),
            Self::Binary(binary) => binary.controller,
        }
    }

    pub(crate) fn segment_store(&self) -> SocketAddr {
        match self {
            Self::Here(server) => server.segment_store(),
            Self::Binary(binary) => binary.segment_store,
        }
    }

    pub(crate) fn http(&self) -> SocketAddr {
        match self {
            Self::Here(server) => server.http(),
            Self::Binary(binary) => binary.http,
        }
    }

    pub(crate) fn reload(&self) {
        match self {
            Self::Here(server) => server.reload(),
            Self::Binary(binary) => binary.reload(),
        }
    }

    pub(crate) async fn stop(self) {
        match self {
            Self::Here(mut server) => server.0.take().unwrap().stop().await,
            Self::Binary(binary) => binary.stop(),
        }
    }
}

/// On loopback, any ports, with a certificate of its own.
pub(crate) fn config(directory: &TempDir) -> Config {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    Config {
        data_dir: directory.path().join("data"),
        controller: any,
        segment_store: any,
        http: any,
        advertise: None,
        http_hosts: Vec::new(),
        memory_bytes: 256 << 20,
        retention_every: std::time::Duration::from_secs(1800),
        scrub: None,
        insecure: false,
        tls: Some(TlsConfig::SelfSigned),
        auth: None,
        chunks: None,
        on_fatal: Arc::new(|error| panic!("{error}")),
    }
}

impl Running {
    pub(crate) async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config(&directory);
        change(&mut config);
        let server = match std::env::var_os("HEADWATER_TEST_BINARY") {
            Some(path) => Served::Binary(Binary::start(path, &config)),
            None => Served::Here(Here(Some(Box::new(Server::start(config).await.unwrap())))),
        };
        Self { server, directory }
    }

    pub(crate) fn authority(&self) -> PathBuf {
        self.directory.path().join("data/tls/ca.pem")
    }

    /// A connection under TLS that trusts the server's authority.
    pub(crate) async fn connect(&self, address: SocketAddr, alpn: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
        let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
        connect(&self.authority(), address, "localhost", alpn, &versions).await
    }

    /// A client of the segment store.
    pub(crate) async fn store(&self) -> Client<TlsStream<TcpStream>> {
        Client::greet(self.connect(self.server.segment_store(), &[]).await.unwrap()).await
    }

    /// A client of the controller.
    pub(crate) async fn controller(&self) -> ControllerServiceClient<Channel> {
        ControllerServiceClient::new(self.channel().await)
    }

    /// A connection to the controller.
    pub(crate) async fn channel(&self) -> Channel {
        channel(self.authority(), self.server.controller()).await.0
    }

    /// Answer to an HTTP request, head and body.
    pub(crate) async fn http(&self, method: &str, path: &str, headers: &str) -> String {
        let mut socket = self.connect(self.server.http(), &["http/1.1"]).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

/// A channel to a controller, trusting the authority in a file, and how many connections it has made.
pub(crate) async fn channel(authority: PathBuf, address: SocketAddr) -> (Channel, Arc<AtomicUsize>) {
    let made = Arc::new(AtomicUsize::new(0));
    let connector = tower::service_fn({
        let made = made.clone();
        move |_| {
            let authority = authority.clone();
            made.fetch_add(1, Ordering::Relaxed);
            async move {
                let versions = [&rustls::version::TLS13];
                connect(&authority, address, "localhost", &["h2"], &versions).await.map(TokioIo::new)
            }
        }
    });
    (Endpoint::from_static("https://localhost").connect_with_connector(connector).await.unwrap(), made)
}

/// A handshake with chosen versions, trusting the authority in a file.
pub(crate) async fn connect(
    authority: &std::path::Path,
    address: SocketAddr,
    name: &'static str,
    alpn: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let socket = TcpStream::connect(address).await?;
    // Small messages would wait for each other.
    socket.set_nodelay(true)?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name).unwrap(), socket).await
}
