//! A store for the tests of programs that use one: it can be stopped, started again, filled up and made to fail.
//!
//! ```
//! use headwater::client::{ScopedStream, StreamConfig};
//! use headwater::testing::TestStore;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut store = TestStore::start().await?;
//! let stream = ScopedStream::parse("shop/orders")?;
//! store.client().create_scope(&stream.scope).await?;
//! store.client().create_stream(&stream, &StreamConfig::fixed(1)).await?;
//! let writer = store.client().event_writer(&stream, Default::default()).await?;
//! let under_way = writer.write("key", "event").await?;
//! store.restart().await?;
//! under_way.await?;
//! # Ok(())
//! # }
//! ```

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use headwater_client::{Client, ClientOptions, Duplex, Endpoint, Service, Transport};
use headwater_server::StartError;
use headwater_server::io::MemoryDisk;
use headwater_server::{InProcess, Place};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use crate::embedded::{Embedded, EmbeddedOptions};

/// A store in memory with faults that a test controls. Its [client](Self::client) stays the same through restarts.
#[derive(Debug)]
pub struct TestStore {
    disk: MemoryDisk,
    line: Arc<Line>,
    client: Client,
    store: Option<InProcess>,
}

impl TestStore {
    /// A new, empty store. Needs a multi-threaded Tokio runtime.
    ///
    /// # Errors
    /// As [`Embedded::memory`].
    pub async fn start() -> Result<Self, StartError> {
        let line = Arc::new(Line::default());
        let client = ClientOptions::new("tcp://in-process")
            .and_then(|options| options.transport(line.clone()).connect())
            .expect("the address is one");
        let mut store = Self { disk: MemoryDisk::default(), line, client, store: None };
        store.resume().await?;
        Ok(store)
    }

    /// A client of this store.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Cuts all connections as if cables were pulled: whether requests under way were carried out, nobody learns. New
    /// connections are taken.
    pub fn cut(&self) {
        self.line.cut();
    }

    /// Stops the store. Until [`resume`](Self::resume), clients find nobody.
    pub async fn pause(&mut self) {
        self.line.lead_to(None);
        if let Some(store) = self.store.take() {
            store.stop().await;
        }
    }

    /// Starts a store that was stopped, with everything it had acknowledged.
    ///
    /// # Errors
    /// What keeps it from starting, such as a disk that was told to fail.
    pub async fn resume(&mut self) -> Result<(), StartError> {
        if self.store.is_none() {
            let embedded = Embedded::start(Place::Memory(self.disk.clone()), EmbeddedOptions::default()).await?;
            let store = embedded.into_store();
            self.line.lead_to(Some(store.transport()));
            self.store = Some(store);
        }
        Ok(())
    }

    /// Stops and starts.
    ///
    /// # Errors
    /// As [`resume`](Self::resume).
    pub async fn restart(&mut self) -> Result<(), StartError> {
        self.pause().await;
        self.resume().await
    }

    /// From now on there is no room on the disk, or there is again: writes wait meanwhile, reads go on.
    pub fn fill_disk(&self, is_full: bool) {
        self.disk.set_full(is_full);
    }

    /// From now on every access to the disk fails, or does not any more. The store does not go on after that by itself, as a
    /// server would not: [restart](Self::restart) it.
    pub fn break_disk(&self, is_broken: bool) {
        self.disk.set_broken(is_broken);
    }
}

/// What clients connect through.
#[derive(Debug, Default)]
struct Line(Mutex<Ends>);

#[derive(Debug, Default)]
struct Ends {
    to: Option<Arc<dyn Transport>>,
    /// Ends the connections made so far.
    cut: CancellationToken,
}

impl Line {
    fn lead_to(&self, to: Option<Arc<dyn Transport>>) {
        self.cut();
        self.0.lock().expect("nobody panics while it holds the line").to = to;
    }

    fn cut(&self) {
        let mut ends = self.0.lock().expect("nobody panics while it holds the line");
        std::mem::take(&mut ends.cut).cancel();
    }
}

impl Transport for Line {
    fn connect(&self, service: Service, endpoint: &Endpoint) -> BoxFuture<'static, io::Result<Box<dyn Duplex>>> {
        let ends = self.0.lock().expect("nobody panics while it holds the line");
        let (to, cut, endpoint) = (ends.to.clone(), ends.cut.clone(), endpoint.clone());
        Box::pin(async move {
            let to = to.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionRefused))?;
            let stream = to.connect(service, &endpoint).await?;
            let cut: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(cut.cancelled_owned());
            Ok(Box::new(Severable { stream, cut }) as Box<dyn Duplex>)
        })
    }
}

/// A connection that can be cut.
struct Severable {
    stream: Box<dyn Duplex>,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Severable {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionReset.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Severable {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Severable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
