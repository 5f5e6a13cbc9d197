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
use std::time::Duration;

use crate::backup::{PinnedDisk, PinnedObjects, Pins};
use crate::bucket::{Afterwards, Bucket, BucketOptions, Found, Local, Recovered};
use crate::catalogue::{self, Manifest, RunCache};
use crate::chunks::{BlockCache, Chunks, Directory};
use crate::codec::{Decoder, Encoder, Malformed};
use crate::container::{Container, Effects, Limits, Token, covered};
use crate::error::{IoContext, StoreError, verify_sum};
use crate::io::{Disk, Io, Objects};
use crate::journal::{self, Journal, Reserve, Witness};

pub(crate) const PATH: &str = "store";
pub(crate) const NEXT_PATH: &str = "store.next";
const MAGIC: &[u8; 8] = b"HEADWTR\x01";
/// Version of the directory's layout as a whole.
const FORMAT: u32 = 1;
/// More containers than this would only cost memory.
const CONTAINERS_MAX: u32 = 256;
/// Journal files of no store are shorter: a request of some use has to fit.
const JOURNAL_FILE_BYTES_MIN: u64 = 64 << 10;
/// Nor longer: one is allocated before it is needed.
const JOURNAL_FILE_BYTES_MAX: u64 = 64 << 20;

/// How large a store may be and how it divides its memory. Everything not named here is derived.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of containers, 1 to 256, fixed when the store is created; later starts use what the store says.
    pub containers: u32,
    /// Memory for everything, in bytes; at least [`MEMORY_BYTES_MIN`], or it is taken as that.
    pub memory_bytes: u64,
    /// Length of a journal file, in bytes, 64 KiB to 64 MiB; bounds the largest request. Fixed when the store is created.
    /// Tests make it small.
    pub journal_file_bytes: u64,
    /// What each container may use; `None` derives it from `memory_bytes`. Simulations make it tiny.
    pub container_limits: Option<ContainerLimits>,
    /// Bytes stay in the journal alone for about this long at most.
    pub flush_age: Duration,
    /// Where chunks are kept, if not in the data directory. A store keeps its choice.
    pub bucket: Option<BucketOptions>,
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
    /// A table's log shorter than this is never compacted.
    pub table_compact_bytes: u64,
    /// Stretch of a table's log that one step of its compaction reads; an entry may be longer.
    pub table_step_bytes: u64,
}

impl ContainerLimits {
    /// Usual [`table_compact_bytes`](Self::table_compact_bytes).
    pub const TABLE_COMPACT_BYTES: u64 = 1 << 20;
    /// Usual [`table_step_bytes`](Self::table_step_bytes).
    pub const TABLE_STEP_BYTES: u64 = 256 << 10;
}

/// Less memory than this cannot hold the largest requests.
pub const MEMORY_BYTES_MIN: u64 = 128 << 20;

/// Bytes in no chunk at which a container's checkpoint begins, whatever memory there is: with four times as much a store
/// takes no more events, and four times the memory.
const FLUSH_BYTES_MAX: u64 = 16 << 20;
/// One such part is being written, one is complete and a third collects.
const UNSTORED_BYTES_MAX: u64 = 3 * FLUSH_BYTES_MAX;
/// Bytes that a container keeps for readers right behind the tail, although a chunk has them; others have blocks.
const CACHE_BYTES_MAX: u64 = 8 << 20;

/// Bytes of mostly dead chunks that one checkpoint moves, whatever memory there is; less than a chunk.
const COMPACTED_BYTES_MAX: u64 = 32 << 20;

/// Bytes on their way to the journal that a container may have at least, however many containers there are.
const UNDERWAY_BYTES_MIN: u64 = 128 << 10;

/// Moving bytes has to free at least this part of what a checkpoint begins at: finding them takes a walk through all pieces.
const COMPACTION_FREES_SHARE: u64 = 32;

/// An idle segment's last bytes do not keep the journal long for ever.
const FLUSH_AGE: Duration = Duration::from_secs(600);

impl Default for Options {
    fn default() -> Self {
        Self {
            containers: 4,
            memory_bytes: 1 << 30,
            journal_file_bytes: journal::FILE_BYTES,
            container_limits: None,
            flush_age: FLUSH_AGE,
            bucket: None,
        }
    }
}

impl Options {
    /// Room for requests under way.
    pub(crate) fn room_bytes(&self) -> u64 {
        self.memory_bytes.max(MEMORY_BYTES_MIN) / 8
    }

    /// Bytes that are in no chunk, of all of so many containers, at which writes wait.
    pub(crate) fn unstored_bytes_max(&self, containers: u32) -> u64 {
        self.limits(containers, self.journal_file_bytes).unstored_bytes_max * u64::from(containers)
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
            flush_bytes: (share / 16).min(journal_file_bytes * 2).min(FLUSH_BYTES_MAX),
            unstored_bytes_max: (share / 4).min(UNSTORED_BYTES_MAX),
            hot_bytes: (share / 16) as usize,
            cache_bytes: (share / 16).min(CACHE_BYTES_MAX),
            idle_segments: (share / (64 << 10)) as usize,
            table_compact_bytes: ContainerLimits::TABLE_COMPACT_BYTES,
            table_step_bytes: ContainerLimits::TABLE_STEP_BYTES,
        };
        let limits = self.container_limits.unwrap_or(derived);
        Limits {
            flush_bytes: limits.flush_bytes,
            unstored_bytes_max: limits.unstored_bytes_max.max(limits.flush_bytes),
            compacted_bytes_max: limits.flush_bytes.min(COMPACTED_BYTES_MAX),
            compaction_frees_min: limits.flush_bytes / COMPACTION_FREES_SHARE,
            // Of all containers together half a file: what is on its way to a disk that turns out to be full fits into the
            // reserve, with one request of the largest size on top. More of those at that moment wait for room.
            underway_bytes: (journal_file_bytes / 2 / u64::from(containers)).max(UNDERWAY_BYTES_MIN),
            hot_bytes: limits.hot_bytes,
            cache_bytes: limits.cache_bytes,
            idle_segments: limits.idle_segments,
            table_compact_bytes: limits.table_compact_bytes,
            table_step_bytes: limits.table_step_bytes,
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
    pub(crate) reserve: Arc<Reserve>,
    pub(crate) witness: Witness,
    pub(crate) cache: Arc<BlockCache>,
    /// What everything here writes to.
    pub(crate) disk: Arc<dyn Disk>,
    /// Where the chunks are, without pins.
    pub(crate) objects: Arc<dyn Objects>,
    pub(crate) afterwards: Afterwards,
    /// What an emptied directory got back just now.
    pub(crate) recovered: Vec<Recovered>,
}

/// Opens the store, or creates it in an empty directory.
///
/// What an image holds by `pins` is not removed; images read from the disk of `io` itself and from [`Opened::objects`].
pub(crate) fn open<T: Token>(io: &Io, options: &Options, pins: &Arc<Pins>) -> Result<Opened<T>, StoreError> {
    let io = &Io { disk: Arc::new(PinnedDisk::new(io.disk.clone(), pins.clone())), ..io.clone() };
    let disk = &io.disk;
    let Origin { identity, mut bucket, recovered } = origin(io, options)?;
    let limits = options.limits(identity.containers, identity.journal_file_bytes);
    let cache = Arc::new(BlockCache::new(options.block_cache_bytes()));
    let unpinned = match &bucket {
        Some(bucket) => bucket.objects().clone(),
        None => Arc::new(Directory::new(disk.clone())) as Arc<dyn Objects>,
    };
    let objects: Arc<dyn Objects> = Arc::new(PinnedObjects::new(unpinned.clone(), pins.clone()));
    let first_chunk = bucket.as_ref().map(Bucket::first_chunk);
    let run_cache = RunCache::new(options.run_cache_bytes());
    let mut containers = Vec::new();
    let mut manifests = Vec::new();
    for id in 0..identity.containers {
        let chunks = Chunks::new(objects.clone(), id, first_chunk, cache.clone());
        let (container, manifest) = Container::open(&**disk, chunks, id, limits, &run_cache)?;
        containers.push(container);
        manifests.push(manifest);
    }
    let witness = Witness::open(&**disk, identity.store)?;
    let mut effects = Vec::new();
    let (file_bytes, count) = (identity.journal_file_bytes, identity.containers);
    let covered = covered(&containers);
    let (journal, reserve) = Journal::open(disk.clone(), identity.store, file_bytes, &witness, &covered, |record| {
        let Some(record) = record else {
            // The containers look things up: a store that is damaged there is left as it is, too.
            for container in &mut containers {
                let mut wanted = Effects::default();
                container.recovered(&mut wanted)?;
                effects.push(wanted);
            }
            if let Some(bucket) = &mut bucket {
                bucket.announce(&**disk)?;
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
    let afterwards = Afterwards::new(bucket, &manifests);
    Ok(Opened {
        containers,
        manifests,
        run_cache,
        effects,
        journal,
        reserve,
        witness,
        cache,
        disk: disk.clone(),
        objects: unpinned,
        afterwards,
        recovered,
    })
}

/// Whose a data directory is.
struct Origin {
    identity: Identity,
    bucket: Option<Bucket>,
    recovered: Vec<Recovered>,
}

/// Finds out whose the data directory and the place of its chunks are, and that they belong together.
fn origin(io: &Io, options: &Options) -> Result<Origin, StoreError> {
    let disk = &*io.disk;
    let refuse = |what: &str| Err(StoreError::Mismatched(what.to_owned()));
    let own = Identity::read(disk)?;
    let local = Local::read(disk)?;
    if own.is_some() {
        // A killed process may have left it under its name without making that durable; from here on files are made
        // that must not outlive it.
        disk.sync_directory("").on(".", "sync")?;
    }
    let mut recovered = Vec::new();
    let (identity, bucket) = match (own, local, &options.bucket) {
        (Some(own), None, None) => (own, None),
        (None, None, None) => {
            let new = Identity::new(io, options);
            new.create(disk)?;
            (new, None)
        }
        (_, Some(_), None) => return refuse("the chunks of this store are in object storage: name it with --chunks"),
        (Some(_), None, Some(_)) => {
            return refuse(
                "without a file `bucket` this store keeps its chunks in its directory; they do not move to object storage by --chunks",
            );
        }
        (Some(own), Some(local), Some(bucket)) => {
            let bucket = Bucket::resume(io, bucket, &own, &local)?;
            (own, Some(bucket))
        }
        (None, local, Some(bucket)) => match Bucket::look(bucket, local.as_ref())? {
            Found::Store(_) if !bucket.recover => {
                return Err(StoreError::Mismatched(format!(
                    "the data directory is empty, and {} has a store: --recover-from-chunks takes over what it has, which is \
                     older than what was acknowledged last",
                    bucket.shown
                )));
            }
            Found::Store(found) => {
                let bucket = Bucket::take_over(io, bucket, &found)?;
                found.create_places(disk)?;
                recovered = bucket.recover(disk, found.containers)?;
                found.write(disk)?;
                (found, Some(bucket))
            }
            Found::Begun(begun) => {
                let bucket = Bucket::create(io, bucket, &begun)?;
                begun.create(disk)?;
                (begun, Some(bucket))
            }
            Found::Nothing => {
                let mut new = Identity::new(io, options);
                // An attempt that did not reach the bucket has chosen a name already.
                new.store = local.map_or(new.store, |local| local.store());
                let bucket = Bucket::create(io, bucket, &new)?;
                new.create(disk)?;
                (new, Some(bucket))
            }
        },
    };
    Ok(Origin { identity, bucket, recovered })
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
        Self::read_at(disk, PATH).map(Some)
    }

    /// Reads it from a file of this name.
    pub(crate) fn read_at(disk: &dyn Disk, path: &str) -> Result<Self, StoreError> {
        let file = disk.open(path).on(path, "open")?;
        let mut bytes = vec![0; (file.length().on(path, "measure")?.min(4096)) as usize];
        file.read_at(0, &mut bytes).on(path, "read")?;
        let malformed = StoreError::malformed(path, 0);
        let mut input = Decoder::new(&bytes);
        if input.take(8).map_err(&malformed)? != MAGIC {
            return Err(StoreError::damaged(path, 0, "not a store"));
        }
        let format = input.u32().map_err(&malformed)?;
        if format > FORMAT {
            return Err(StoreError::Newer { path: path.into(), found: format, known: FORMAT });
        }
        let identity = Self::decode(&mut input).map_err(&malformed)?;
        let covered = bytes.len() - input.remaining();
        let sum = input.u32().map_err(&malformed)?;
        input.end().map_err(&malformed)?;
        verify_sum(path, 0, "identity", sum, &bytes[..covered])?;
        identity.check().map_err(&malformed)
    }

    /// The fields alone, whatever they say: a checksum may stand behind them.
    pub(crate) fn decode(input: &mut Decoder<'_>) -> Result<Self, Malformed> {
        Ok(Self { store: input.u128()?, containers: input.u32()?, journal_file_bytes: input.u64()? })
    }

    /// Fields that no store was ever created with are damage, even behind a checksum that is right.
    pub(crate) fn check(self) -> Result<Self, Malformed> {
        if !(1..=CONTAINERS_MAX).contains(&self.containers) {
            return Err(Malformed("store has an odd number of containers"));
        }
        if !(JOURNAL_FILE_BYTES_MIN..=JOURNAL_FILE_BYTES_MAX).contains(&self.journal_file_bytes) {
            return Err(Malformed("store has journal files of an odd length"));
        }
        Ok(self)
    }

    /// Who a store that begins now is.
    fn new(io: &Io, options: &Options) -> Self {
        Self {
            store: io.random.bits(),
            containers: options.containers.clamp(1, CONTAINERS_MAX),
            journal_file_bytes: options.journal_file_bytes.clamp(JOURNAL_FILE_BYTES_MIN, JOURNAL_FILE_BYTES_MAX),
        }
    }

    /// Makes an empty store. The identity comes last: a directory without one holds nothing that was acknowledged, and
    /// its creation begins anew.
    fn create(&self, disk: &dyn Disk) -> Result<(), StoreError> {
        self.create_places(disk)?;
        self.write(disk)
    }

    fn create_places(&self, disk: &dyn Disk) -> Result<(), StoreError> {
        // The identity is durable before the journal's first file, so one without the other was taken away.
        if !disk.list(journal::DIRECTORY).on(journal::DIRECTORY, "list")?.is_empty() {
            return Err(StoreError::damaged(PATH, 0, "identity is missing, but there is a journal"));
        }
        disk.create_directory(journal::DIRECTORY).on(journal::DIRECTORY, "create")?;
        for id in 0..self.containers {
            Container::<NoToken>::create(disk, id)?;
        }
        Ok(())
    }

    fn write(&self, disk: &dyn Disk) -> Result<(), StoreError> {
        let mut out = Encoder::default();
        out.0.extend_from_slice(MAGIC);
        out.u32(FORMAT).u128(self.store).u32(self.containers).u64(self.journal_file_bytes);
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
        disk.sync_directory("").on(".", "sync")
    }
}

/// Creating needs no answers.
pub(crate) struct NoToken;

impl Token for NoToken {
    fn is_abandoned(&self) -> bool {
        true
    }
}

#[test]
fn more_memory_does_not_make_parts_larger_than_the_disk_needs_them() {
    let limits = |memory_bytes| Options { memory_bytes, ..Options::default() }.limits(4, journal::FILE_BYTES);
    let (small, large) = (limits(MEMORY_BYTES_MIN), limits(1 << 40));
    assert_eq!(large.unstored_bytes_max, 3 * large.flush_bytes);
    assert_eq!(4 * (large.unstored_bytes_max + large.cache_bytes), 224 << 20);
    assert_eq!(4 * (small.unstored_bytes_max + small.cache_bytes), MEMORY_BYTES_MIN / 16 * 5);
    assert!(small.unstored_bytes_max >= 2 * small.flush_bytes, "one part is written while the next collects");
}

#[test]
fn an_identity_with_fields_that_no_store_has_is_damage_whatever_its_checksum_says() {
    let read_back = |containers, journal_file_bytes| {
        let disk = crate::io::MemoryDisk::default();
        Identity { store: 1, containers, journal_file_bytes }.write(&disk).expect("memory does not fail");
        Identity::read(&disk).map(|found| found.map(|found| (found.containers, found.journal_file_bytes)))
    };
    assert_eq!(read_back(4, journal::FILE_BYTES).unwrap(), Some((4, journal::FILE_BYTES)));
    let odd = [(0, 1 << 20), (CONTAINERS_MAX + 1, 1 << 20), (4, u64::MAX), (4, 0), (4, JOURNAL_FILE_BYTES_MAX + 1)];
    for (containers, journal_file_bytes) in odd {
        let outcome = read_back(containers, journal_file_bytes);
        assert!(matches!(outcome, Err(StoreError::Damaged { .. })), "{containers}, {journal_file_bytes}: {outcome:?}");
    }
}
