//! A store that lives in this process.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use headwater_client::{Client, ClientOptions};
use headwater_server::io::MemoryDisk;
use headwater_server::{InProcess, InProcessConfig, Place, StartError};

/// Names no socket: the store's own transport leads to the store.
const ADDRESS: &str = "tcp://in-process";

/// How a store is embedded.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddedOptions {
    memory_bytes: u64,
    retention_every: Duration,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self { memory_bytes: 256 << 20, retention_every: Duration::from_secs(30 * 60) }
    }
}

impl EmbeddedOptions {
    /// Memory the store may use for everything, in bytes. Default 256 MiB; less than 128 MiB is refused at the start.
    #[must_use]
    pub fn memory_bytes(mut self, bytes: u64) -> Self {
        self.memory_bytes = bytes;
        self
    }

    /// Time between two looks at a stream with a retention policy. Default 30 min.
    #[must_use]
    pub fn retention_every(mut self, period: Duration) -> Self {
        self.retention_every = period;
        self
    }
}

/// A store in this process, with the promises of the server: what is acknowledged is durable in its directory. One process
/// has a directory at a time; a server can take it over later, and the other way round.
#[derive(Debug)]
pub struct Embedded {
    store: InProcess,
    client: Client,
}

impl Embedded {
    /// Opens the store in a directory, which is made if it is not there. Needs a multi-threaded Tokio runtime.
    ///
    /// # Errors
    /// The directory is in use, holds something else, or its store cannot be opened.
    pub async fn open(directory: impl Into<PathBuf>) -> Result<Self, StartError> {
        Self::open_with(directory, EmbeddedOptions::default()).await
    }

    /// As [`open`](Self::open), with other settings.
    ///
    /// # Errors
    /// As `open`; also if the memory is too little.
    pub async fn open_with(directory: impl Into<PathBuf>, options: EmbeddedOptions) -> Result<Self, StartError> {
        Self::start(Place::Directory(directory.into()), options).await
    }

    /// A new store in memory, which is gone when this is: for tests. [`testing`](crate::testing) has one that can be made to
    /// fail.
    ///
    /// # Errors
    /// None that a program could do something about.
    pub async fn memory() -> Result<Self, StartError> {
        Self::start(Place::Memory(MemoryDisk::default()), EmbeddedOptions::default()).await
    }

    pub(crate) async fn start(place: Place, options: EmbeddedOptions) -> Result<Self, StartError> {
        let store = InProcess::start(InProcessConfig {
            place,
            memory_bytes: options.memory_bytes,
            retention_every: options.retention_every,
            scrub: None,
            // Nothing is acknowledged any more; what the program does about that is its own affair.
            on_fatal: Arc::new(|error| tracing::error!(%error, "embedded store cannot go on")),
        })
        .await?;
        let client = ClientOptions::new(ADDRESS)
            .and_then(|options| options.transport(store.transport()).connect())
            .expect("the address is one");
        Ok(Self { store, client })
    }

    /// A client of this store.
    pub fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn into_store(self) -> InProcess {
        self.store
    }

    /// Answers what is under way and closes the store. Dropping it instead loses nothing either: it closes by itself, and its
    /// directory can be opened again a little later.
    pub async fn stop(self) {
        self.store.stop().await;
    }
}
