//! TLS on every listener: one certificate, taken from files or made here, changed without a restart.
//!
//! ```text
//!   PEM files ──look every few seconds──► identity ◄──asked at each handshake── listeners
//!                     │
//!                  no good: the one before stays, a line in the log, a figure
//! ```
//!
//! Guarantees:
//! * TLS 1.2 and 1.3 only, and never a plain byte on a listener that has TLS
//! * a certificate and a key are taken together or not at all, and not while they are being written; connections that
//!   are open keep theirs
//! * a handshake takes [`HANDSHAKE_PATIENCE`] at most, and meanwhile only its own place
//!
//! Not here: where certificates for development come from (`self_signed`), what is in the files (`files`).

mod files;
mod self_signed;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::files::Pair;
pub use self::files::PairError;
use crate::metrics::Metrics;
use crate::secrets::chain;
use crate::settling::{Look, Occasion, Settling, settle};
use crate::socket::Socket;

/// How long a handshake may take.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);

/// Where the certificate comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TlsConfig {
    /// PEM files of the operator: the chain, our own certificate first, and its key.
    Files {
        /// The chain.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// Made here and kept in the data directory. For development: clients have to be given `tls/ca.pem`.
    SelfSigned,
}

/// What every handshake asks for: the certificate of this moment.
#[derive(Debug)]
struct Identity(RwLock<Arc<CertifiedKey>>);

impl Identity {
    fn replace(&self, by: CertifiedKey) {
        *self.0.write().expect("a panic ends the process") = Arc::new(by);
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().expect("a panic ends the process").clone())
    }
}

/// The certificate of this server, and what keeps it fresh.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    identity: Arc<Identity>,
    provider: Arc<CryptoProvider>,
    files: (PathBuf, PathBuf),
    authority: Option<PathBuf>,
    seen: Arc<Mutex<Settling<Pair>>>,
    look: Arc<Notify>,
}

impl Tls {
    /// Reads the certificate, or makes one for `names` if it is ours to make.
    ///
    /// # Errors
    /// [`PairError`]; nothing falls back to plain connections.
    pub(crate) fn open(config: &TlsConfig, data_dir: &std::path::Path, names: &[String]) -> Result<Self, PairError> {
        let (files, authority) = match config {
            TlsConfig::Files { certificate, key } => ((certificate.clone(), key.clone()), None),
            TlsConfig::SelfSigned => {
                let directory = data_dir.join(headwater_engine::check::TLS);
                (self_signed::prepare(&directory, names)?, Some(directory.join(self_signed::AUTHORITY)))
            }
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let pair = Pair::read(&files.0, &files.1)?;
        let key = pair.certified(&provider)?;
        let identity = Arc::new(Identity(RwLock::new(Arc::new(key))));
        let seen = Arc::new(Mutex::new(Settling::new(pair)));
        Ok(Self { identity, provider, files, authority, seen, look: Arc::default() })
    }

    /// What a listener needs. `protocols`: what it speaks, by its ALPN names; a client that names none is served, too.
    pub(crate) fn acceptor(&self, protocols: &[&str]) -> TlsAcceptor {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .expect("ring has suites for both versions")
            .with_no_client_auth()
            .with_cert_resolver(self.identity.clone());
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }

    /// What clients have to trust if the certificate was made here.
    pub(crate) fn authority(&self) -> Option<PathBuf> {
        self.authority.clone()
    }

    /// Looks at the files now.
    pub(crate) fn look(&self) {
        self.look.notify_one();
    }

    /// Looks at the files now and then until `stopping`.
    pub(crate) async fn keep_fresh(self, metrics: Metrics, stopping: CancellationToken) {
        let tell = |looked: Result<PathBuf, PairError>| match looked {
            Ok(certificate) => {
                metrics.tls_reloads.inc();
                tracing::info!(certificate = %certificate.display(), "new certificate in use");
            }
            Err(error) => {
                metrics.tls_reloads_failed.inc();
                tracing::warn!(error = chain(&error), "certificate not reloaded, the one before stays in use");
            }
        };
        loop {
            let occasion = tokio::select! {
                () = stopping.cancelled() => return,
                occasion = Occasion::next(&self.look) => occasion,
            };
            let tls = self.clone();
            settle(occasion, move |settling| vec![tls.reload(settling)], tell).await;
        }
    }

    /// Takes the files if they changed since they were last taken and have stayed as they are for `settling`.
    fn reload(&self, settling: Duration) -> Look<PairError> {
        let mut seen = self.seen.lock().expect("a panic ends the process");
        let (certificate, key) = &self.files;
        let take = |pair: &Pair| pair.certified(&self.provider).map(|certified| self.identity.replace(certified));
        seen.look(Instant::now(), settling, &[certificate, key], || Pair::read(certificate, key), take)
    }
}

/// How a listener turns accepted sockets into connections.
#[derive(Clone)]
pub(crate) struct Handshake {
    acceptor: Option<TlsAcceptor>,
    metrics: Metrics,
}

impl Handshake {
    /// Without `tls` there is none: connections are plain.
    pub(crate) fn new(tls: Option<&Tls>, protocols: &[&str], metrics: Metrics) -> Self {
        Self { acceptor: tls.map(|tls| tls.acceptor(protocols)), metrics }
    }

    /// The connection, or nothing if the peer does not come to an agreement with us in time.
    pub(crate) async fn open(&self, socket: TcpStream) -> Option<Socket> {
        let Some(acceptor) = &self.acceptor else { return Some(Socket::Plain(socket)) };
        match timeout(HANDSHAKE_PATIENCE, acceptor.accept(socket)).await {
            Ok(Ok(stream)) => return Some(Socket::Layered(Box::new(stream))),
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => tracing::debug!("TLS handshake took too long"),
        }
        self.metrics.tls_handshakes_failed.inc();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::FileError;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the operator's files, not the store's")]
    fn half_written_and_mismatched_pairs_leave_the_old_one_in_use() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (certificate, key) = self_signed::prepare(first.path(), &names(&["localhost"])).unwrap();
        let (other_certificate, other_key) = self_signed::prepare(second.path(), &names(&["localhost"])).unwrap();
        let config = TlsConfig::Files { certificate: certificate.clone(), key: key.clone() };
        let tls = Tls::open(&config, first.path(), &[]).unwrap();
        let used = |tls: &Tls| tls.identity.0.read().unwrap().cert.clone();
        let original = used(&tls);
        let look = |tls: &Tls| tls.reload(Duration::ZERO);
        assert!(matches!(look(&tls), Look::Same), "nothing changed");
        // What is new is never taken at the first look.
        let settled = |tls: &Tls| {
            assert!(matches!(look(tls), Look::Unsettled));
            look(tls)
        };

        let leaf = std::fs::read(&other_certificate).unwrap();
        for bytes in [0, 1, 30, leaf.len() / 2, leaf.len() - 30] {
            std::fs::write(&certificate, &leaf[..bytes]).unwrap();
            assert!(matches!(settled(&tls), Look::Failed(_)), "{bytes} bytes of a certificate");
            assert!(matches!(look(&tls), Look::Same), "reported once");
        }
        std::fs::write(&certificate, &leaf).unwrap();
        assert!(matches!(settled(&tls), Look::Failed(PairError::Mismatch { .. })), "certificate of another key");
        std::fs::remove_file(&key).unwrap();
        assert!(matches!(look(&tls), Look::Failed(PairError::File(FileError::Unreadable { .. }))));
        assert!(matches!(look(&tls), Look::Same), "reported once");
        assert_eq!(used(&tls), original);

        // The pair is whole and of use at every look, and its chain is not: each look finds one certificate more.
        std::fs::copy(&other_key, &key).unwrap();
        let chain = [&leaf[..], &std::fs::read(second.path().join(self_signed::AUTHORITY)).unwrap()].concat();
        for blocks in [&leaf, &chain, &[&chain[..], &leaf].concat()] {
            std::fs::write(&certificate, blocks).unwrap();
            assert!(matches!(look(&tls), Look::Unsettled), "{} bytes of a chain", blocks.len());
            assert_eq!(used(&tls), original);
        }
        std::fs::write(&certificate, &chain).unwrap();
        assert!(matches!(settled(&tls), Look::Changed(path) if path == certificate));
        assert_eq!(used(&tls).len(), 2, "the whole chain");
        assert!(matches!(look(&tls), Look::Same));
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the operator's files, not the store's")]
    fn a_key_that_everybody_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = self_signed::prepare(directory.path(), &names(&["localhost"])).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
        let opened = Tls::open(&TlsConfig::Files { certificate, key }, directory.path(), &[]);
        assert!(matches!(opened, Err(PairError::File(FileError::Exposed { .. }))), "{opened:?}");
    }
}
