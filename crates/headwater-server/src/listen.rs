//! Taking connections, within limits.
//!
//! Guarantees:
//! * at most as many connections as the listener's [`Gate`] has places; further ones wait unaccepted in the kernel's
//!   queue, where they cost us nothing, and the store always has files left to open
//! * a TLS handshake holds up nobody: it has the place of its connection, and a limit of time
//! * every accepted socket sends without delay and notices, in the end, that its peer is gone
//! * a failing `accept` (no memory, no files) is tried again and ends nothing

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::auth::Origin;
use crate::metrics::Metrics;
use crate::socket::Socket;
use crate::tls::Handshake;

/// Files that are not for connections: the store's own, the lock, standard streams.
const FILES_RESERVED: u64 = 64 + 192;
/// Most connections, whatever the system allows: each costs some memory.
const CONNECTIONS_MAX: u64 = 65_536;
/// A machine that allows fewer is not fit to serve.
const CONNECTIONS_MIN: u64 = 32;
/// After a failed `accept`.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A peer that vanished without a word is noticed after this silence and some probes. Clients keep silent connections
/// for hours, so silence alone ends nothing.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
/// Between probes.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);

/// Places for connections of one listener.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    places: Arc<Semaphore>,
    metrics: Metrics,
}

/// A place taken by a connection; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    connections: Gauge,
    /// Where the peer is.
    pub(crate) origin: Origin,
}

impl Place {
    fn new(permit: OwnedSemaphorePermit, origin: Origin, metrics: &Metrics) -> Self {
        metrics.accepted.inc();
        metrics.connections.inc();
        Self { _permit: permit, connections: metrics.connections.clone(), origin }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.dec();
    }
}

impl Gate {
    pub(crate) fn new(places: u64, metrics: Metrics) -> Self {
        let places = usize::try_from(places).expect("the limit is 65536");
        Self { places: Arc::new(Semaphore::new(places)), metrics }
    }
}

/// Connections this process may have, by its limit of open files.
pub(crate) fn connections_max() -> u64 {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    files.saturating_sub(FILES_RESERVED).clamp(CONNECTIONS_MIN, CONNECTIONS_MAX)
}

/// Accepts one connection.
pub(crate) async fn accept(listener: &TcpListener, gate: &Gate) -> (TcpStream, Place) {
    // First the place: a connection that cannot be served is better left to the kernel.
    let permit = gate.places.clone().acquire_owned().await.expect("places are never closed");
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                prepare(&socket);
                return (socket, Place::new(permit, peer.ip().into(), &gate.metrics));
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Accepts connections, has them shake hands and starts `serve` on each, until `stopping`.
pub(crate) async fn accept_each<F>(
    listener: TcpListener,
    gate: Gate,
    handshake: Handshake,
    stopping: CancellationToken,
    tasks: tokio_util::task::TaskTracker,
    serve: impl Fn(Socket, Origin) -> F + Clone + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    while let Some((socket, place)) = stopping.run_until_cancelled(accept(&listener, &gate)).await {
        let (handshake, serve, stopping) = (handshake.clone(), serve.clone(), stopping.clone());
        tasks.spawn(async move {
            if let Some(Some(socket)) = stopping.run_until_cancelled(handshake.open(socket)).await {
                serve(socket, place.origin).await;
            }
            drop(place);
        });
    }
}

/// A peer that is gone already fails these; reading will tell.
fn prepare(socket: &TcpStream) {
    let _ = socket.set_nodelay(true);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY);
    let _ = SockRef::from(socket).set_tcp_keepalive(&keepalive);
}

/// A connection that keeps its place.
#[derive(Debug)]
pub(crate) struct Placed {
    socket: Socket,
    place: Place,
}

impl Placed {
    pub(crate) fn new(socket: Socket, place: Place) -> Self {
        Self { socket, place }
    }
}

impl tonic::transport::server::Connected for Placed {
    /// Each call has it among its extensions. Nothing but a place in a line depends on it.
    type ConnectInfo = Origin;

    fn connect_info(&self) -> Origin {
        self.place.origin
    }
}

impl AsyncRead for Placed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
