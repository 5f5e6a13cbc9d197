//! The whole server: three listeners, one store, one controller.
//!
//! ```text
//!   bind ─► lock the data directory ─► open the store ─► recover the controller ─► serve ─► stop
//!    │              │                        │                     │
//!    └──────────────┴────── a typed error; nothing was touched ────┘
//! ```
//!
//! Guarantees:
//! * nothing is written before all three addresses are ours, and nothing by two processes at once
//! * `/readyz` says yes only while clients are served
//! * a stop answers what is under way, closes the store and gives up what takes longer than its limits

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use headwater_controller::model::{ControllerError, ControllerOptions};
use headwater_controller::{Controller, Ports};
use headwater_engine::check::{TLS, TOKEN_KEY, is_made_first};
use headwater_engine::io::{
    Clock as _, DirectoryLock, Disk, Io, RealClock, RealDisk, RealRandom, S3Location, S3Objects, lock_directory,
};
use headwater_engine::{BucketOptions, Engine, MEMORY_BYTES_MIN, OnFatal, Options, StoreError};
use headwater_proto::controller::controller_service_server::ControllerServiceServer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::grpc::{Authenticated, Guarded};
use crate::auth::{AuthConfig, AuthError, Guard};
use crate::connection::{self, AnswerRoom, Context, ReadRoom, ReceivingRoom};
use crate::grpc::{self, ControllerGrpc};
use crate::hosts::Hosts;
use crate::http::{self, Pages, Phase};
use crate::listen::{self, Gate, Placed};
use crate::loads::{Loads, Meter};
use crate::metrics::Metrics;
use crate::ports::EnginePorts;
use crate::tls::{Handshake, PairError, Tls, TlsConfig};

/// Containers per processor of a new store: enough that one that waits does not leave a processor idle.
const CONTAINERS_PER_PROCESSOR: usize = 2;
/// Fewest containers of a new store, which may move to a larger machine.
const CONTAINERS_MIN: usize = 4;
/// Most containers of a new store.
const CONTAINERS_MAX: usize = 64;
/// Connections set aside for HTTP, so that health is answered when clients take all others.
const HTTP_CONNECTIONS: u64 = 64;
/// Part of the connections that is set aside for the controller.
const CONTROLLER_SHARE: u64 = 8;
/// Part of the memory that the store leaves to the connections themselves, which take 6 KiB each, and to the
/// controller.
const CONNECTIONS_SHARE: u64 = 8;
/// Part of the memory for records of streams that the controller keeps although nothing happens to them.
const RECORDS_SHARE: u64 = 32;
/// Part of the memory for large frames that are being received.
const RECEIVING_SHARE: u64 = 8;
/// Part of the memory for read data that peers have not taken yet.
const READING_SHARE: u64 = 16;
/// Part of the memory for answers about tables that peers have not taken yet.
const ANSWERING_SHARE: u64 = 16;
/// Part of the memory for requests under way and small answers that peers have not taken yet.
const REPLYING_SHARE: u64 = 32;
/// Part of the memory for reads that wait for data.
const PARKING_SHARE: u64 = 64;
/// How long connections may take to end when the server stops; they need less themselves.
const CONNECTIONS_PATIENCE: Duration = Duration::from_secs(3);
/// gRPC streams at a time on one connection.
const STREAMS_MAX: u32 = 32;
/// Longest a call may take, the arrival of its message included. Sealing waits for open transactions, deleting a scope
/// for all its tables.
const CALL_PATIENCE: Duration = Duration::from_secs(120);
/// How long a new peer may take to begin to speak.
const PREFACE_PATIENCE: Duration = Duration::from_secs(10);
/// Largest gRPC header list, in bytes.
const HEADER_LIST_BYTES_MAX: u32 = 16 << 10;
/// Streams that a peer opened and reset at once before the connection is ended.
const RESETS_MAX: usize = 20;
/// A silent gRPC connection is asked for a sign of life.
const PING_EVERY: Duration = Duration::from_secs(60);

/// With chunks in object storage, about this much is lost with the data directory.
const BUCKET_FLUSH_AGE: Duration = Duration::from_secs(60);

/// How to run a server.
#[derive(Clone)]
pub struct Config {
    /// Where the store lives; created if absent.
    pub data_dir: PathBuf,
    /// Where gRPC is served; port 0 takes a free one.
    pub controller: SocketAddr,
    /// Where the segment store protocol is served; port 0 takes a free one.
    pub segment_store: SocketAddr,
    /// Where HTTP is served; port 0 takes a free one.
    pub http: SocketAddr,
    /// Host that clients reach the segment store and the controller at: an IPv4 address or a name of letters, digits,
    /// dots and hyphens. `None`: the address of the segment store's listener.
    pub advertise: Option<String>,
    /// Further names that HTTP is asked for under, beside the advertised host, when nobody has to prove who they are.
    pub http_hosts: Vec<String>,
    /// Memory for everything, in bytes.
    pub memory_bytes: u64,
    /// Time between two looks at a stream with a retention policy.
    pub retention_every: Duration,
    /// Everything stored is read and verified once in this time; `None`: never.
    pub scrub: Option<Duration>,
    /// Allows listening beyond this machine, though nobody has to prove who they are.
    pub insecure: bool,
    /// How callers prove who they are; `None`: they need not, and everybody may do everything.
    pub auth: Option<AuthConfig>,
    /// Certificate of all three listeners; `None`: they are plain.
    pub tls: Option<TlsConfig>,
    /// Object storage for chunks; `None`: they are in the data directory.
    pub chunks: Option<ChunksConfig>,
    /// Called once when the store cannot go on; has to end the process.
    pub on_fatal: OnFatal,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { data_dir, controller, segment_store, http, advertise, memory_bytes, insecure, tls, auth, .. } = self;
        f.debug_struct("Config")
            .field("data_dir", data_dir)
            .field("controller", controller)
            .field("segment_store", segment_store)
            .field("http", http)
            .field("advertise", advertise)
            .field("memory_bytes", memory_bytes)
            .field("insecure", insecure)
            .field("tls", tls)
            .field("auth", auth)
            .finish_non_exhaustive()
    }
}

impl Config {
    fn store(&self) -> StoreConfig {
        StoreConfig {
            disk: Arc::new(RealDisk::new(&self.data_dir)),
            shown: self.data_dir.clone(),
            memory_bytes: self.memory_bytes,
            retention_every: self.retention_every,
            chunks: self.chunks.clone(),
            on_fatal: self.on_fatal.clone(),
        }
    }
}

/// What a store and its controller need, however they are reached.
pub(crate) struct StoreConfig {
    pub(crate) disk: Arc<dyn Disk>,
    /// Where that is, for errors.
    pub(crate) shown: PathBuf,
    pub(crate) memory_bytes: u64,
    pub(crate) retention_every: Duration,
    pub(crate) chunks: Option<ChunksConfig>,
    pub(crate) on_fatal: OnFatal,
}

/// Chunks in object storage.
#[derive(Clone)]
pub struct ChunksConfig {
    /// The bucket.
    pub location: S3Location,
    /// Endpoint, region, credentials: the variables that S3 tools read from the environment, with their names there.
    pub settings: Vec<(String, String)>,
    /// Whether an empty data directory takes over the store that is in the bucket.
    pub recover: bool,
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Anybody who reaches the address could do anything.
    #[error(
        "{listener} would listen on {address}, beyond this machine, without authentication and TLS; say --insecure to allow it"
    )]
    Insecure {
        /// Which.
        listener: &'static str,
        /// Where.
        address: SocketAddr,
    },
    /// Nobody could be identified.
    #[error("no authentication")]
    Auth(#[from] AuthError),
    /// Connections would not be encrypted.
    #[error("no TLS")]
    Tls(#[from] PairError),
    /// Clients could not connect to it.
    #[error("clients cannot reach the segment store at {address}; say --advertise HOST")]
    NotAdvertised {
        /// Where it listens.
        address: SocketAddr,
    },
    /// Clients could not parse it.
    #[error("advertised host {host:?} is neither an IPv4 address nor a name of letters, digits, dots and hyphens")]
    Advertise {
        /// As configured.
        host: String,
    },
    /// The store could not work.
    #[error("memory limit of {bytes} bytes, at least {MEMORY_BYTES_MIN} are needed")]
    Memory {
        /// As configured.
        bytes: u64,
    },
    /// Settings of object storage that make no sense.
    #[error("chunks cannot be kept in {location}: {reason}")]
    Chunks {
        /// Where.
        location: S3Location,
        /// Why.
        reason: String,
    },
    /// Taken, or not an address of this machine.
    #[error("{listener} could not listen on {address}")]
    Listen {
        /// Which.
        listener: &'static str,
        /// Where.
        address: SocketAddr,
        /// The system's word.
        source: std::io::Error,
    },
    /// Another process uses it.
    #[error("data directory {} is in use by another process", path.display())]
    Locked {
        /// Which.
        path: PathBuf,
    },
    /// It cannot be created or written.
    #[error("data directory {} cannot be used", path.display())]
    DataDirectory {
        /// Which.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The store does not open.
    #[error("store in {} cannot be opened", path.display())]
    Store {
        /// Where.
        path: PathBuf,
        /// Why.
        source: StoreError,
    },
    /// It is somebody else's.
    #[error("directory {} holds something else than a store ({found}); name an empty one", path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
        /// One of the names in it.
        found: String,
    },
    /// The controller's records were written by a newer release.
    #[error("controller could not recover")]
    NewerRecords {
        /// Which.
        source: ControllerError,
    },
    /// The controller's records cannot be read.
    #[error("controller could not recover")]
    Controller {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    controller_address: SocketAddr,
    segment_store_address: SocketAddr,
    http_address: SocketAddr,
    advertised: String,
    tls: Option<Tls>,
    guard: Guard,
    engine: Engine,
    controller: Controller,
    pages: Pages,
    /// Ends everything but HTTP.
    stopping: CancellationToken,
    tasks: TaskTracker,
    /// Ends HTTP.
    silent: CancellationToken,
    http_tasks: TaskTracker,
    _lock: DirectoryLock,
}

impl Server {
    /// Starts a server; when it returns, clients are served. Needs a multi-threaded Tokio runtime.
    ///
    /// # Errors
    /// Any [`StartError`]. The data directory is then as it was, apart from an empty lock file.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        if config.memory_bytes < MEMORY_BYTES_MIN {
            return Err(StartError::Memory { bytes: config.memory_bytes });
        }
        let listeners =
            [("segment store", config.segment_store), ("controller", config.controller), ("http", config.http)];
        for (listener, address) in listeners {
            check_exposure(listener, address, config.insecure || config.auth.is_some() && config.tls.is_some())?;
        }
        let advertised = match &config.tls {
            Some(_) if config.advertise.is_none() && config.segment_store.ip() == Ipv4Addr::LOCALHOST => tls_loopback(),
            _ => advertised_host(config.advertise.as_deref(), config.segment_store)?,
        };
        let [segment_store, controller, http] = listeners;
        let segment_store = bind(segment_store).await?;
        let controller = bind(controller).await?;
        let http = bind(http).await?;

        let metrics = Metrics::new();
        let places = listen::connections_max();
        metrics.connections_max.set(i64::try_from(places).expect("the limit is 65536"));
        let http_places = HTTP_CONNECTIONS.min(places / CONTROLLER_SHARE);
        let controller_places = places / CONTROLLER_SHARE;
        let segment_store_places = places - http_places - controller_places;

        let lock = lock(&config.data_dir)?;
        let (silent, http_tasks) = (CancellationToken::new(), TaskTracker::new());
        let tls = match &config.tls {
            None => None,
            Some(certificate) => {
                let names = certificate_names(&advertised, listeners.map(|(_, address)| address));
                let tls = Tls::open(certificate, &config.data_dir, &names)?;
                http_tasks.spawn(tls.clone().keep_fresh(metrics.clone(), silent.clone()));
                Some(tls)
            }
        };
        let guard = match &config.auth {
            None => Guard::off(),
            Some(auth) => {
                let clock = RealClock::default();
                let guard =
                    Guard::open(auth, &config.data_dir, Arc::new(move || clock.wall_millis()), metrics.clone())?;
                http_tasks.spawn(guard.clone().keep_fresh(silent.clone()));
                guard
            }
        };
        let handshake = |protocols: &[&str]| Handshake::new(tls.as_ref(), protocols, metrics.clone());

        // From here on HTTP tells how far we are.
        let pages = Pages::new(metrics.clone());
        let hosts = match guard.is_on() {
            true => Hosts::all(),
            false => Hosts::named(config.http_hosts.iter().map(String::as_str).chain([advertised.as_str()])),
        };
        let router = http::router(pages.clone(), &guard, &hosts);
        http_tasks.spawn(listen::accept_each(
            http.listener,
            Gate::new(http_places, metrics.clone()),
            handshake(&["http/1.1"]),
            silent.clone(),
            http_tasks.clone(),
            {
                let silent = silent.clone();
                move |socket, origin| http::serve(socket, origin, router.clone(), silent.clone())
            },
        ));

        let loads = Loads::default();
        let started = open(&config.store(), &pages, loads.clone()).await;
        let (engine, recovered) = match started {
            Ok(started) => started,
            Err(error) => {
                silent.cancel();
                return Err(error);
            }
        };

        let (stopping, tasks) = (CancellationToken::new(), TaskTracker::new());
        let context = context(&engine, config.memory_bytes, &metrics, loads, &guard, &stopping);
        tasks.spawn(listen::accept_each(
            segment_store.listener,
            Gate::new(segment_store_places, metrics.clone()),
            handshake(&[]),
            stopping.clone(),
            tasks.clone(),
            move |socket, _| connection::serve(socket, context.clone()),
        ));
        let (store_port, controller_port) = (segment_store.address.port(), controller.address.port());
        let service = ControllerGrpc::new(recovered.clone(), advertised.clone(), store_port, controller_port);
        let service = crate::auth::grpc::guarded(service, grpc::limited, guard.clone());
        let gate = Gate::new(controller_places, metrics.clone());
        let shaking = handshake(&["h2"]);
        tasks.spawn(serve_controller(service, controller.listener, gate, shaking, stopping.clone()));

        if let Some(period) = config.scrub {
            engine.scrub(period);
        }
        pages.enter(Phase::Ready);
        Ok(Self {
            controller_address: controller.address,
            segment_store_address: segment_store.address,
            http_address: http.address,
            advertised,
            tls,
            guard,
            engine,
            controller: recovered,
            pages,
            stopping,
            tasks,
            silent,
            http_tasks,
            _lock: lock,
        })
    }

    /// Where gRPC is served.
    pub fn controller(&self) -> SocketAddr {
        self.controller_address
    }

    /// Where the segment store protocol is served.
    pub fn segment_store(&self) -> SocketAddr {
        self.segment_store_address
    }

    /// Where HTTP is served.
    pub fn http(&self) -> SocketAddr {
        self.http_address
    }

    /// Host that clients are told.
    pub fn advertised(&self) -> &str {
        &self.advertised
    }

    /// What clients have to trust if the certificate was made here.
    pub fn authority(&self) -> Option<PathBuf> {
        self.tls.as_ref().and_then(Tls::authority)
    }

    /// Looks now whether certificate, users or keys were changed, not only when their time comes.
    pub fn reload(&self) {
        self.guard.look();
        if let Some(tls) = &self.tls {
            tls.look();
        }
    }

    /// Takes no more requests, answers those under way, closes the store. Connections that do not end in time are given
    /// up; how long the store takes is the disk's affair.
    pub async fn stop(self) {
        self.pages.enter(Phase::Stopping);
        self.stopping.cancel();
        self.tasks.close();
        if tokio::time::timeout(CONNECTIONS_PATIENCE, self.tasks.wait()).await.is_err() {
            tracing::warn!(connections = self.tasks.len(), "connections did not end in time");
        }
        self.controller.stop().await;
        let engine = self.engine.clone();
        let closing = tokio::task::spawn_blocking(move || engine.close());
        closing.await.expect("a panic ends the process");
        self.silent.cancel();
        self.http_tasks.close();
        let _ = tokio::time::timeout(Duration::from_millis(200), self.http_tasks.wait()).await;
    }

    /// Closes the store under whoever uses it, for an owner that cannot wait as [`stop`](Self::stop) does. Blocks until
    /// nothing is written any more, a few seconds at most. Calling it again does nothing.
    pub fn close(&self) {
        self.stopping.cancel();
        self.controller.shutdown();
        self.engine.close();
    }
}

/// Opens the store and makes its controller go on where it stopped. `pages` are told how far they are.
pub(crate) async fn open(
    config: &StoreConfig,
    pages: &Pages,
    loads: Loads,
) -> Result<(Engine, Controller), StartError> {
    let clock = Arc::new(RealClock::default());
    let io = Io { disk: config.disk.clone(), clock: clock.clone(), random: Arc::new(RealRandom) };
    let memory_bytes = config.memory_bytes - config.memory_bytes / CONNECTIONS_SHARE;
    let mut options = Options { containers: containers(), memory_bytes, ..Options::default() };
    if let Some(chunks) = &config.chunks {
        let location = chunks.location.clone();
        let objects = S3Objects::open(location.clone(), &chunks.settings)
            .map_err(|reason| StartError::Chunks { location: location.clone(), reason })?;
        let shown = location.to_string();
        options.bucket = Some(BucketOptions { objects: Arc::new(objects), shown, recover: chunks.recover });
        options.flush_age = BUCKET_FLUSH_AGE;
    }
    let on_fatal: OnFatal = {
        let (pages, on_fatal) = (pages.clone(), config.on_fatal.clone());
        Arc::new(move |error| {
            pages.enter(Phase::Failed);
            on_fatal(error);
        })
    };
    let opening = tokio::task::spawn_blocking(move || Engine::open(io, &options, on_fatal));
    let engine = opening.await.expect("a panic ends the process");
    let engine = engine.map_err(|source| StartError::Store { path: config.shown.clone(), source })?;
    for one in engine.recovered() {
        tracing::warn!(
            container = one.container,
            last_operation = one.operation,
            copied_millis = one.copied_millis,
            "taken over from object storage: whatever was acknowledged after this operation is not known"
        );
    }
    pages.opened(engine.clone());

    let ports = EnginePorts::open(engine.clone()).await.map_err(controller_error)?;
    let ports = Arc::new(ports);
    let ports = Ports {
        segments: ports.clone(),
        tables: ports,
        loads: Arc::new(Meter { loads, engine: engine.clone() }),
        clock: Arc::new(move || clock.wall_millis()),
    };
    let records_bytes_max = usize::try_from(config.memory_bytes / RECORDS_SHARE).unwrap_or(usize::MAX);
    let options = ControllerOptions { retention_every: config.retention_every, records_bytes_max };
    let controller = Controller::new(ports, options);
    pages.controlled(controller.clone());
    controller.recover().await.map_err(|error| match error {
        newer @ ControllerError::Newer(_) => StartError::NewerRecords { source: newer },
        other => controller_error(other),
    })?;
    Ok((engine, controller))
}

/// What every connection of a store with so much memory needs.
pub(crate) fn context(
    engine: &Engine,
    memory_bytes: u64,
    metrics: &Metrics,
    loads: Loads,
    guard: &Guard,
    stopping: &CancellationToken,
) -> Context {
    Context {
        engine: engine.clone(),
        metrics: metrics.clone(),
        loads,
        guard: guard.clone(),
        receiving: ReceivingRoom::new(memory_bytes / RECEIVING_SHARE, guard.is_on()),
        reading: ReadRoom::new(memory_bytes / READING_SHARE),
        answering: AnswerRoom::new(memory_bytes / ANSWERING_SHARE),
        replying: AnswerRoom::new(memory_bytes / REPLYING_SHARE),
        parking: Context::places_to_wait(memory_bytes / PARKING_SHARE),
        stopping: stopping.clone(),
    }
}

fn controller_error(error: impl std::error::Error + Send + Sync + 'static) -> StartError {
    StartError::Controller { source: Box::new(error) }
}

struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

/// Without authentication, only this machine may reach us, unless the operator said otherwise.
fn check_exposure(listener: &'static str, address: SocketAddr, insecure: bool) -> Result<(), StartError> {
    if address.ip().is_loopback() || insecure { Ok(()) } else { Err(StartError::Insecure { listener, address }) }
}

async fn bind((listener, address): (&'static str, SocketAddr)) -> Result<Bound, StartError> {
    let failed = |source| StartError::Listen { listener, address, source };
    let bound = TcpListener::bind(address).await.map_err(failed)?;
    let address = bound.local_addr().map_err(failed)?;
    Ok(Bound { listener: bound, address })
}

/// The host that clients are told to connect to. The Rust client takes IPv4 addresses and names, and of a name only
/// letters, digits, dots and hyphens.
fn advertised_host(configured: Option<&str>, segment_store: SocketAddr) -> Result<String, StartError> {
    match (configured, segment_store.ip()) {
        (Some(host), _) => {
            let unspecified = host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
            let readable = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.');
            let bounded = (1..=253).contains(&host.len()) && !host.starts_with(['-', '.']);
            if readable && bounded && !unspecified {
                Ok(host.to_owned())
            } else {
                Err(StartError::Advertise { host: host.to_owned() })
            }
        }
        (None, IpAddr::V4(address)) if !address.is_unspecified() => Ok(address.to_string()),
        (None, _) => Err(StartError::NotAdvertised { address: segment_store }),
    }
}

/// The Rust client checks certificates against names only, so clients of this machine get one, if it leads to us.
fn tls_loopback() -> String {
    // That client takes the last of the addresses.
    let last = ("localhost", 0).to_socket_addrs().ok().and_then(Iterator::last);
    let is_ours = last.is_some_and(|address| address.ip() == Ipv4Addr::LOCALHOST);
    if is_ours { "localhost".to_owned() } else { Ipv4Addr::LOCALHOST.to_string() }
}

/// Every name that clients may call us by.
fn certificate_names(advertised: &str, listeners: [SocketAddr; 3]) -> Vec<String> {
    let mut names = std::collections::BTreeSet::from([advertised.to_owned(), "localhost".to_owned()]);
    names.extend(["127.0.0.1".to_owned(), "::1".to_owned()]);
    names.extend(listeners.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string()));
    names.into_iter().collect()
}

pub(crate) fn lock(data_dir: &std::path::Path) -> Result<DirectoryLock, StartError> {
    if let Some(found) = foreign(data_dir) {
        return Err(StartError::Foreign { path: data_dir.to_path_buf(), found });
    }
    lock_directory(data_dir).map_err(|source| {
        let path = data_dir.to_path_buf();
        match source.kind() {
            std::io::ErrorKind::WouldBlock => StartError::Locked { path },
            _ => StartError::DataDirectory { path, source },
        }
    })
}

/// A name in a directory that has entries and never was a store. A directory that cannot be listed is refused by the
/// lock, with the system's word.
fn foreign(data_dir: &std::path::Path) -> Option<String> {
    let entries = headwater_engine::io::entries(data_dir, "").ok()?;
    // A process that is killed while it makes a store leaves some; the root of a file system has the last.
    let is_made = |name: &str| {
        let is_ours = [TLS, "lost+found"].contains(&name) || name.starts_with(TOKEN_KEY);
        is_ours || is_made_first(name)
    };
    if entries.iter().any(|entry| entry.path == "store") {
        return None;
    }
    entries.into_iter().map(|entry| entry.path).find(|name| !is_made(name))
}

fn containers() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from((processors * CONTAINERS_PER_PROCESSOR).clamp(CONTAINERS_MIN, CONTAINERS_MAX))
        .expect("the limit is 64")
}

async fn serve_controller(
    service: Authenticated<ControllerServiceServer<Guarded>>,
    listener: TcpListener,
    gate: Gate,
    handshake: Handshake,
    stopping: CancellationToken,
) {
    // A peer that says nothing never becomes a connection, and gives its place back soon.
    let (spoken, incoming) = tokio::sync::mpsc::channel(1);
    let accepting = tokio::spawn(async move {
        loop {
            let (socket, place) = listen::accept(&listener, &gate).await;
            let (spoken, handshake) = (spoken.clone(), handshake.clone());
            tokio::spawn(async move {
                let Some(mut socket) = handshake.open(socket).await else { return };
                if let Ok(Ok(())) = tokio::time::timeout(PREFACE_PATIENCE, socket.readable()).await {
                    // The listener may have ended meanwhile.
                    let _ = spoken.send(Ok::<_, std::io::Error>(Placed::new(socket, place))).await;
                }
            });
        }
    });
    let incoming = futures::stream::unfold(incoming, |mut incoming| async move {
        incoming.recv().await.map(|connection| (connection, incoming))
    });
    answer_calls(service, incoming, stopping).await;
    accepting.abort();
}

/// Answers calls to the controller on these connections until `stopping`.
pub(crate) async fn answer_calls<C>(
    service: Authenticated<ControllerServiceServer<Guarded>>,
    incoming: impl futures::Stream<Item = std::io::Result<C>>,
    stopping: CancellationToken,
) where
    C: tonic::transport::server::Connected + AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let served = tonic::transport::Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .timeout(CALL_PATIENCE)
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(RESETS_MAX))
        .http2_keepalive_interval(Some(PING_EVERY))
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, stopping.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::warn!(%error, "controller listener ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_an_address_they_can_use() {
        let concrete: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let wildcard: SocketAddr = "0.0.0.0:1".parse().unwrap();
        let six: SocketAddr = "[::1]:1".parse().unwrap();
        assert_eq!(advertised_host(None, concrete).unwrap(), "127.0.0.1");
        assert_eq!(advertised_host(Some("node-1.example"), wildcard).unwrap(), "node-1.example");
        for address in [wildcard, six, "[::]:1".parse().unwrap()] {
            assert!(matches!(advertised_host(None, address), Err(StartError::NotAdvertised { .. })), "{address}");
        }
        for host in ["", "0.0.0.0", "a b", "a_b", "host:1", "::1", "-a", &"a".repeat(254)] {
            assert!(matches!(advertised_host(Some(host), concrete), Err(StartError::Advertise { .. })), "{host}");
        }
    }

    #[test]
    fn nobody_listens_beyond_this_machine_by_accident() {
        for address in ["0.0.0.0:0", "192.0.2.1:1", "[::]:0"] {
            let address = address.parse().unwrap();
            assert!(matches!(check_exposure("http", address, false), Err(StartError::Insecure { .. })), "{address}");
            assert!(check_exposure("http", address, true).is_ok());
        }
        for address in ["127.0.0.1:0", "127.1.2.3:1", "[::1]:0"] {
            assert!(check_exposure("http", address.parse().unwrap(), false).is_ok(), "{address}");
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let first = bind(("http", "127.0.0.1:0".parse().unwrap())).await.unwrap();
        match bind(("http", first.address)).await {
            Err(StartError::Listen { listener: "http", address, .. }) => assert_eq!(address, first.address),
            other => panic!("{:?}", other.err()),
        }
    }

    #[test]
    fn a_directory_of_somebody_else_is_not_made_a_store() {
        let directory = tempfile::tempdir().unwrap();
        headwater_engine::io::lock_directory(directory.path()).unwrap();
        lock(directory.path()).unwrap();
        // What is there when object storage did not answer the first start.
        std::fs::create_dir(directory.path().join("bucket")).unwrap();
        std::fs::create_dir(directory.path().join("lost+found")).unwrap();
        lock(directory.path()).unwrap();
        for name in ["thesis", "storeroom", "catalogue-of-stamps"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
            match lock(directory.path()) {
                Err(StartError::Foreign { found, .. }) => assert_eq!(found, name),
                other => panic!("{other:?}"),
            }
            std::fs::remove_dir(directory.path().join(name)).unwrap();
        }
        std::fs::create_dir(directory.path().join("store")).unwrap();
        lock(directory.path()).unwrap();
    }

    #[test]
    fn a_locked_directory_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let _held = lock(directory.path()).unwrap();
        assert!(matches!(lock(directory.path()), Err(StartError::Locked { .. })));
    }
}
