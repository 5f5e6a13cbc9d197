//! Opening a data directory: who it is, what its checkpoints hold, what its journal adds.
//!
//! ```text
//!   store            identity, format and number of containers; written once
//!   lock             keeps other processes out
//!   journal/         see `journal`
//!   catalogue-NNNN/  see `catalogue`
//!   chunks-NNNN/     see `chunks`
//! ```

use std::sync::Arc;

use crate::backup::{PinnedDisk, PinnedObjects, Pins};
use crate::catalogue::{self, Manifest, RunCache};
use crate::chunks::{BlockCache, Chunks, Directory};
use crate::codec::{Decoder, Encoder, Malformed};
use crate::container::{Container, Effects, Limits, Token};
use crate::error::{IoContext, StoreError};
use crate::io::{Disk, Io, Objects};
use crate::journal::{self, Journal, Spares, Witness};

pub(crate) const PATH: &str = "store";
pub(crate) const NEXT_PATH: &str = "store.next";
const MAGIC: &[u8; 8] = b"HEADWTR\x01";
/// Version of the directory's layout as a whole.
const FORMAT: u32 = 1;
/// More containers than this would only cost memory.
const CONTAINERS_MAX: u32 = 256;

/// How large a store may be and how it divides its memory. Everything not named here is derived.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of containers, 1 to 256, fixed when the store is created; later starts use what the store says.
    pub containers: u32,
    /// Memory for everything, in bytes; at least [`MEMORY_BYTES_MIN`], or it is taken as that.
    pub memory_bytes: u64,
    /// Length of a journal file, in bytes; bounds the largest request. Fixed when the store is created. Tests make it
    /// small.
    pub journal_file_bytes: u64,
    /// What each container may use; `None` derives it from `memory_bytes`. Simulations make it tiny.
    pub container_limits: Option<ContainerLimits>,
}

/// How much one container may use. All bytes are bytes of memory.
#[derive(Clone, Copy, Debug)]
pub struct ContainerLimits {
    /// Bytes that are in no chunk yet at which a checkpoint begins.
    pub flush_bytes: u64,
    /// Bytes that are in no chunk yet above which writes wait for the checkpoint; not below `flush_bytes`.
    pub unstored_bytes_max: u64,
    /// Catalogue entries newer than the newest run at which a checkpoint begins.
    pub hot_bytes: usize,
    /// Bytes kept for readers although a chunk has them.
    pub cache_bytes: u64,
    /// Segments kept in memory although nothing happens to them.
    pub idle_segments: usize,
}

/// Less memory than this cannot hold the largest requests.
pub const MEMORY_BYTES_MIN: u64 = 128 << 20;

impl Default for Options {
    fn default() -> Self {
        Self { containers: 4, memory_bytes: 1 << 30, journal_file_bytes: journal::FILE_BYTES, container_limits: None }
    }
}

impl Options {
    /// Room for requests under way.
    pub(crate) fn room_bytes(&self) -> u64 {
        self.memory_bytes.max(MEMORY_BYTES_MIN) / 8
    }

    /// Memory for blocks of chunks.
    fn block_cache_bytes(&self) -> u64 {
        self.memory_bytes.max(MEMORY_BYTES_MIN) / 16
    }

    /// Blocks of the catalogues in memory.
    fn run_cache_bytes(&self) -> usize {
        usize::try_from(self.memory_bytes.max(MEMORY_BYTES_MIN) / 16).unwrap_or(usize::MAX)
    }

    pub(crate) fn limits(&self, containers: u32, journal_file_bytes: u64) -> Limits {
        let memory = self.memory_bytes.max(MEMORY_BYTES_MIN);
        let share = memory / u64::from(containers);
        let derived = ContainerLimits {
            // While one part is being written to chunks, the next collects; both together stay below the maximum.
            flush_bytes: (share / 16).min(journal_file_bytes * 2),
            unstored_bytes_max: share / 4,
            hot_bytes: (share / 16) as usize,
            cache_bytes: share / 16,
            idle_segments: (share / (64 << 10)) as usize,
        };
        let limits = self.container_limits.unwrap_or(derived);
        Limits {
            flush_bytes: limits.flush_bytes,
            unstored_bytes_max: limits.unstored_bytes_max.max(limits.flush_bytes),
            hot_bytes: limits.hot_bytes,
            cache_bytes: limits.cache_bytes,
            idle_segments: limits.idle_segments,
            record_bytes: journal::record_bytes_max(journal_file_bytes),
        }
    }
}

/// Everything that was opened, not yet in motion.
pub(crate) struct Opened<T> {
    pub(crate) containers: Vec<Container<T>>,
    pub(crate) manifests: Vec<Manifest>,
    /// Blocks of the catalogues.
    pub(crate) run_cache: Arc<RunCache>,
    /// What the containers want done first.
    pub(crate) effects: Vec<Effects<T>>,
    pub(crate) journal: Journal,
    pub(crate) spares: Spares,
    pub(crate) witness: Witness,
    pub(crate) cache: Arc<BlockCache>,
    /// What everything here writes to.
    pub(crate) disk: Arc<dyn Disk>,
    /// Where the chunks are, without pins.
    pub(crate) objects: Arc<dyn Objects>,
}

/// Opens the store, or creates it in an empty directory.
///
/// What an image holds by `pins` is not removed; images read from the disk of `io` itself and from [`Opened::objects`].
pub(crate) fn open<T: Token>(io: &Io, options: &Options, pins: &Arc<Pins>) -> Result<Opened<T>, StoreError> {
    let io = &Io { disk: Arc::new(PinnedDisk::new(io.disk.clone(), pins.clone())), ..io.clone() };
    let disk = &io.disk;
    let identity = match Identity::read(&**disk)? {
        Some(identity) => {
            // A killed process may have left it under its name without making that durable; from here on files are
            // made that must not outlive it.
            disk.sync_directory("").on(".", "sync")?;
            identity
        }
        None => Identity::create(io, options)?,
    };
    let limits = options.limits(identity.containers, identity.journal_file_bytes);
    let cache = Arc::new(BlockCache::new(options.block_cache_bytes()));
    let unpinned: Arc<dyn Objects> = Arc::new(Directory::new(disk.clone()));
    let objects: Arc<dyn Objects> = Arc::new(PinnedObjects::new(unpinned.clone(), pins.clone()));
    let run_cache = RunCache::new(options.run_cache_bytes());
    let mut containers = Vec::new();
    let mut manifests = Vec::new();
    for id in 0..identity.containers {
        let chunks = Chunks::new(objects.clone(), id, cache.clone());
        let (container, manifest) = Container::open(&**disk, chunks, id, limits, &run_cache)?;
        containers.push(container);
        manifests.push(manifest);
    }
    let witness = Witness::open(&**disk, identity.store)?;
    let mut effects = Vec::new();
    let (file_bytes, count) = (identity.journal_file_bytes, identity.containers);
    let (journal, spares) = Journal::open(disk.clone(), identity.store, file_bytes, &witness, |record| {
        let Some(record) = record else {
            // The containers look things up: a store that is damaged there is left as it is, too.
            for container in &mut containers {
                let mut wanted = Effects::default();
                container.recovered(&mut wanted)?;
                effects.push(wanted);
            }
            return Ok(());
        };
        match containers.get_mut(record.container as usize) {
            Some(container) => container.replay(record.sequence, record.operation, record.payload),
            None => {
                let what = format!("record of container {}, the store has {count}", record.container);
                Err(StoreError::damaged(journal::DIRECTORY, 0, what))
            }
        }
    })?;
    for (id, manifest) in (0..).zip(&manifests) {
        catalogue::tidy(&**disk, id, manifest)?;
    }
    Ok(Opened {
        containers,
        manifests,
        run_cache,
        effects,
        journal,
        spares,
        witness,
        cache,
        disk: disk.clone(),
        objects: unpinned,
    })
}

/// Who a store is.
pub(crate) struct Identity {
    pub(crate) store: u128,
    pub(crate) containers: u32,
    pub(crate) journal_file_bytes: u64,
}

impl Identity {
    /// `None` if there is none: the directory may be anything.
    pub(crate) fn read(disk: &dyn Disk) -> Result<Option<Self>, StoreError> {
        if !disk.list("").on(".", "list")?.iter().any(|name| name == PATH) {
            return Ok(None);
        }
        let file = disk.open(PATH).on(PATH, "open")?;
        let mut bytes = vec![0; (file.length().on(PATH, "measure")?.min(4096)) as usize];
        file.read_at(0, &mut bytes).on(PATH, "read")?;
        let malformed = StoreError::malformed(PATH, 0);
        let mut input = Decoder::new(&bytes);
        if input.take(8).map_err(&malformed)? != MAGIC {
            return Err(StoreError::damaged(PATH, 0, "not a store"));
        }
        let format = input.u32().map_err(&malformed)?;
        if format > FORMAT {
            return Err(StoreError::Newer { path: PATH.into(), found: format, known: FORMAT });
        }
        let fields = |mut input: Decoder<'_>| -> Result<Self, Malformed> {
            let identity = Self { store: input.u128()?, containers: input.u32()?, journal_file_bytes: input.u64()? };
            let covered = bytes.len() - input.remaining();
            let sum = input.u32()?;
            input.end()?;
            if sum != crc32c::crc32c(&bytes[..covered]) || identity.containers == 0 {
                return Err(Malformed("identity fails its checksum"));
            }
            Ok(identity)
        };
        Ok(Some(fields(input).map_err(&malformed)?))
    }

    /// Makes an empty store. The identity comes last: a directory without one holds nothing that was acknowledged, and
    /// its creation begins anew.
    fn create(io: &Io, options: &Options) -> Result<Self, StoreError> {
        let disk: &Arc<dyn Disk> = &io.disk;
        let identity = Self {
            store: io.random.bits(),
            containers: options.containers.clamp(1, CONTAINERS_MAX),
            journal_file_bytes: options.journal_file_bytes,
        };
        // The identity is durable before the journal's first file, so one without the other was taken away.
        if !disk.list(journal::DIRECTORY).on(journal::DIRECTORY, "list")?.is_empty() {
            return Err(StoreError::damaged(PATH, 0, "identity is missing, but there is a journal"));
        }
        disk.create_directory(journal::DIRECTORY).on(journal::DIRECTORY, "create")?;
        for id in 0..identity.containers {
            Container::<NoToken>::create(&**disk, id)?;
        }
        let mut out = Encoder::default();
        out.0.extend_from_slice(MAGIC);
        out.u32(FORMAT).u128(identity.store).u32(identity.containers).u64(identity.journal_file_bytes);
        let sum = crc32c::crc32c(&out.0);
        out.u32(sum);
        if disk.list("").on(".", "list")?.iter().any(|name| name == NEXT_PATH) {
            disk.remove(NEXT_PATH).on(NEXT_PATH, "remove")?;
        }
        let file = disk.create(NEXT_PATH).on(NEXT_PATH, "create")?;
        file.write_at(0, &out.0).on(NEXT_PATH, "write")?;
        file.sync().on(NEXT_PATH, "sync")?;
        // The directories first: a store with an identity has them.
        disk.sync_directory("").on(".", "sync")?;
        disk.rename(NEXT_PATH, PATH).on(NEXT_PATH, "rename")?;
        disk.sync_directory("").on(".", "sync")?;
        Ok(identity)
    }
}

/// Creating needs no answers.
pub(crate) struct NoToken;

impl Token for NoToken {
    fn is_abandoned(&self) -> bool {
        true
    }
}
