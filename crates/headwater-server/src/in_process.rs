//! The whole store inside a process: no listener, and no file but the store's own.
//!
//! ```text
//!   headwater-client ─► Transport ─► pipe ─► connection ─► engine
//!                          └───────► pipe ─► grpc ───────► controller
//! ```
//!
//! Clients in the process speak the same protocols over pipes, so they get the same answers, guarantees and limits as
//! over a socket. Nobody has to prove who they are: whoever runs in the process can read its memory anyway.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use headwater_client::{Duplex, Endpoint, Service, Transport};
use headwater_controller::Controller;
use headwater_engine::io::{DirectoryLock, Disk, MemoryDisk, RealDisk};
use headwater_engine::{Engine, MEMORY_BYTES_MIN, OnFatal};
use tokio::io::{BufReader, DuplexStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Guard;
use crate::connection::{self, Context};
use crate::grpc::{self, ControllerGrpc};
use crate::http::Pages;
use crate::loads::Loads;
use crate::metrics::Metrics;
use crate::server::{self, StartError, StoreConfig};
use crate::socket::Socket;

/// Bytes that a pipe takes before its writer waits.
const PIPE_BYTES: usize = 1 << 20;
/// Taken out of a pipe at a time.
const READ_BYTES: usize = 64 << 10;
/// Host that clients in the process are told; it leads to the pipes, whatever its name.
const HOST: &str = "in-process";
/// Ports without a listener: they only have to be numbers.
const STORE_PORT: u16 = 12345;
const CONTROLLER_PORT: u16 = 9090;
/// How long connections may take to end when the store stops.
const CONNECTIONS_PATIENCE: Duration = Duration::from_secs(3);

/// How to run a store in the process.
#[derive(Clone)]
pub struct InProcessConfig {
    /// Where the store lives.
    pub place: Place,
    /// Memory for everything, in bytes.
    pub memory_bytes: u64,
    /// Time between two looks at a stream with a retention policy.
    pub retention_every: Duration,
    /// Everything stored is read and verified once in this time; `None`: never.
    pub scrub: Option<Duration>,
    /// Called once when the store cannot go on. Nothing is acknowledged after that, whether it ends the process or not.
    pub on_fatal: OnFatal,
}

impl fmt::Debug for InProcessConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, memory_bytes, .. } = self;
        f.debug_struct("InProcessConfig")
            .field("place", place)
            .field("memory_bytes", memory_bytes)
            .finish_non_exhaustive()
    }
}

/// Where a store lives.
#[derive(Clone, Debug)]
pub enum Place {
    /// A data directory; created if absent.
    Directory(PathBuf),
    /// Memory, for as long as somebody has this disk.
    Memory(MemoryDisk),
}

/// A running store.
#[derive(Debug)]
pub struct InProcess {
    engine: Engine,
    controller: Controller,
    pipes: Arc<Pipes>,
    lock: Option<DirectoryLock>,
    is_stopped: bool,
}

/// Connects clients with the store.
#[derive(Debug)]
struct Pipes {
    context: Context,
    calls: mpsc::Sender<io::Result<DuplexStream>>,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

impl InProcess {
    /// Starts a store; when it returns, clients are served. Needs a multi-threaded Tokio runtime.
    ///
    /// # Errors
    /// Any [`StartError`] that is not about listeners.
    pub async fn start(config: InProcessConfig) -> Result<Self, StartError> {
        if config.memory_bytes < MEMORY_BYTES_MIN {
            return Err(StartError::Memory { bytes: config.memory_bytes });
        }
        let (lock, disk, shown): (_, Arc<dyn Disk>, _) = match config.place {
            Place::Directory(path) => (Some(server::lock(&path)?), Arc::new(RealDisk::new(&path)), path),
            Place::Memory(disk) => (None, Arc::new(disk), PathBuf::from("memory")),
        };
        let (metrics, loads, guard) = (Metrics::new(), Loads::default(), Guard::off());
        let pages = Pages::new(metrics.clone());
        let store = StoreConfig {
            disk,
            shown,
            memory_bytes: config.memory_bytes,
            retention_every: config.retention_every,
            chunks: None,
            on_fatal: config.on_fatal,
        };
        let (engine, controller) = server::open(&store, &pages, loads.clone()).await?;
        let (stopping, tasks) = (CancellationToken::new(), TaskTracker::new());
        let context = server::context(&engine, config.memory_bytes, &metrics, loads, &guard, &stopping);
        let (calls, connections) = mpsc::channel(16);
        let service = ControllerGrpc::new(controller.clone(), HOST.to_owned(), STORE_PORT, CONTROLLER_PORT);
        let service = crate::auth::grpc::guarded(service, grpc::limited, guard);
        let connections = futures::stream::unfold(connections, |mut connections| async move {
            connections.recv().await.map(|connection| (connection, connections))
        });
        tasks.spawn(server::answer_calls(service, connections, stopping.clone()));
        if let Some(period) = config.scrub {
            engine.scrub(period);
        }
        let pipes = Arc::new(Pipes { context, calls, stopping, tasks });
        Ok(Self { engine, controller, pipes, lock, is_stopped: false })
    }

    /// How clients of this process reach it.
    pub fn transport(&self) -> Arc<dyn Transport> {
        self.pipes.clone()
    }

    /// Takes no more requests, answers those under way, closes the store.
    pub async fn stop(mut self) {
        self.pipes.stopping.cancel();
        self.pipes.tasks.close();
        if tokio::time::timeout(CONNECTIONS_PATIENCE, self.pipes.tasks.wait()).await.is_err() {
            tracing::warn!(connections = self.pipes.tasks.len(), "connections did not end in time");
        }
        self.controller.stop().await;
        let engine = self.engine.clone();
        let closing = tokio::task::spawn_blocking(move || engine.close());
        closing.await.expect("closing a store does not panic");
        // Nobody writes there any more.
        self.lock = None;
        self.is_stopped = true;
    }
}

impl Drop for InProcess {
    /// Without [`stop`](InProcess::stop), the store closes by itself, and its directory is free for another one after
    /// that.
    #[allow(clippy::disallowed_methods, reason = "closing may wait for the disk, and there may be no runtime any more")]
    fn drop(&mut self) {
        if self.is_stopped {
            return;
        }
        self.pipes.stopping.cancel();
        self.controller.shutdown();
        let (engine, lock) = (self.engine.clone(), self.lock.take());
        std::thread::spawn(move || {
            engine.close();
            drop(lock);
        });
    }
}

impl Transport for Pipes {
    fn connect(&self, service: Service, _: &Endpoint) -> BoxFuture<'static, io::Result<Box<dyn Duplex>>> {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let (context, calls) = (self.context.clone(), self.calls.clone());
        let (stopping, tasks) = (self.stopping.clone(), self.tasks.clone());
        Box::pin(async move {
            if stopping.is_cancelled() {
                return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the store has stopped"));
            }
            match service {
                Service::SegmentStore => {
                    let socket = Socket::Layered(Box::new(BufReader::with_capacity(READ_BYTES, ours)));
                    tasks.spawn(connection::serve(socket, context));
                }
                Service::Controller => {
                    let stopped = |_| io::Error::new(io::ErrorKind::ConnectionRefused, "the store has stopped");
                    calls.send(Ok(ours)).await.map_err(stopped)?;
                }
            }
            Ok(Box::new(theirs) as Box<dyn Duplex>)
        })
    }
}
