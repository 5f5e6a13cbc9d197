//! The engine as the server sees it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use headwater_types::{SegmentName, WriterId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::api::{Outcome, Refusal, Reply, Request};
use crate::backup::{Image, ImageError, Pins};
use crate::bucket::Recovered;
use crate::catalogue::RunCache;
use crate::chunks::BlockCache;
use crate::container::covered;
use crate::error::StoreError;
use crate::io::{Disk, Io, Objects, Random};
use crate::journal::Reserve;
use crate::scrub::Scrubber;
use crate::store::{self, Options};
use crate::tasks::{
    ContainerFigures, ContainerInput, Figures, JournalInput, JournalTask, KeeperInput, KeeperTask, Lookups, Lull,
    Merges, Neighbours, SharedContainer, WitnessTask, once, start_lookups, start_readers, start_reaper,
};

/// How long closing waits for each of its steps before it goes on without; a full disk can make a step endless.
const CLOSE_STEP: Duration = Duration::from_millis(1500);

/// How long an image waits for checkpoints; without them it is larger, not worse.
const IMAGE_PATIENCE: Duration = Duration::from_secs(10);
/// How often it looks.
const IMAGE_TICK: Duration = Duration::from_millis(50);

/// Called once, from a thread of the engine, when the store cannot go on (a failed write or sync, damage, a broken
/// invariant). The process has to end: nothing may be acknowledged any more.
pub type OnFatal = Arc<dyn Fn(StoreError) + Send + Sync>;

/// Room for requests under way, in bytes; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    _permit: OwnedSemaphorePermit,
}

/// A handle on the open store; clones share it. The store's threads run until [`Engine::close`].
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    containers: Vec<Arc<SharedContainer>>,
    journal: Sender<JournalInput>,
    keeper: Sender<KeeperInput>,
    room: Arc<Semaphore>,
    room_bytes: u32,
    run_cache: Arc<RunCache>,
    random: Arc<dyn Random>,
    figures: Arc<Figures>,
    pins: Arc<Pins>,
    /// Disk and objects without pins, for images.
    disk: Arc<dyn Disk>,
    objects: Arc<dyn Objects>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Dropped to end the thread that deletes chunks.
    deleting: Mutex<Option<Sender<()>>>,
    /// Dropped to end the scrubber.
    scrubbing: Mutex<Option<Sender<()>>>,
    cache: Arc<BlockCache>,
    witness: Sender<Sender<()>>,
    recovered: Vec<Recovered>,
    reserve: Arc<Reserve>,
    unstored_bytes_max: u64,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("containers", &self.shared.containers.len()).finish_non_exhaustive()
    }
}

/// Figures for `/metrics`.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Pairs of metric name and value; names end in their unit, counters in `_total`.
    pub values: Vec<(&'static str, u64)>,
}

impl Engine {
    /// Opens (or creates) the store on `io`, replays its journal and starts its threads. Blocks while it recovers.
    ///
    /// # Errors
    /// Any [`StoreError`]. If it is [`StoreError::Damaged`] or [`StoreError::Newer`], nothing was changed.
    pub fn open(io: Io, options: &Options, on_fatal: OnFatal) -> Result<Self, StoreError> {
        let pins = Arc::new(Pins::default());
        let opened = store::open(&io, options, &pins)?;
        let fatal = once(on_fatal);
        let count = opened.containers.len();
        let figures = Arc::new(Figures {
            tail_discarded_bytes: opened.journal.discarded_bytes.into(),
            replayed_bytes: opened.journal.replayed_bytes.into(),
            containers: (0..count).map(|_| ContainerFigures::default()).collect(),
            ..Figures::default()
        });
        let (journal, journal_inbox) = channel();
        let (keeper, keeper_inbox) = channel();
        let (readers, readers_inbox) = channel();
        let (lookups, lookups_inboxes) = Lookups::channel();
        let chunks: Vec<_> = opened.containers.iter().map(|container| container.chunks()).collect();
        let covered = covered(&opened.containers);

        let (deleting, closing) = channel();
        let containers: Vec<_> = (0..)
            .zip(opened.containers)
            .zip(opened.effects)
            .map(|((id, container), first)| {
                let neighbours = Neighbours {
                    journal: journal.clone(),
                    keeper: keeper.clone(),
                    readers: readers.clone(),
                    lookups: lookups.clone(),
                    clock: io.clock.clone(),
                    figures: figures.clone(),
                };
                SharedContainer::new(id, container, first, neighbours, fatal.clone())
            })
            .collect();
        drop(readers);
        drop(lookups);
        let journal_file_bytes = opened.journal.file_bytes();
        let mut threads = start_readers(readers_inbox, &containers, &chunks, &figures, &fatal);
        threads.push(start_reaper(chunks.clone(), closing, fatal.clone()));
        threads.extend(start_lookups(lookups_inboxes, &containers, &chunks, &figures, &fatal));
        let lull = Arc::new(Lull::default());
        let journal_task = JournalTask {
            journal: opened.journal,
            inbox: journal_inbox,
            backlog: VecDeque::new(),
            group: Default::default(),
            acks: VecDeque::new(),
            durable: BTreeMap::new(),
            close: None,
            containers: containers.clone(),
            covered,
            asked: BTreeMap::new(),
            pins: pins.clone(),
            reserve: opened.reserve.clone(),
            lull: lull.clone(),
            figures: figures.clone(),
        };
        threads.push(journal_task.start(fatal.clone()));
        let keeper_task = KeeperTask {
            disk: opened.disk.clone(),
            clock: io.clock.clone(),
            inbox: keeper_inbox,
            containers: containers.clone(),
            chunks,
            merges: Merges::new(opened.manifests.len()),
            manifests: opened.manifests,
            afterwards: opened.afterwards,
            flush_bytes: options.limits(count as u32, journal_file_bytes).flush_bytes,
            flush_age: options.flush_age,
            lull,
            reserve: opened.reserve.clone(),
            figures: figures.clone(),
        };
        threads.push(keeper_task.start(fatal.clone()));
        let (witness, witness_inbox) = channel();
        let witness_task = WitnessTask {
            disk: io.disk.clone(),
            inbox: witness_inbox,
            containers: containers.clone(),
            witness: opened.witness,
            reserve: opened.reserve.clone(),
            figures: figures.clone(),
        };
        threads.push(witness_task.start(fatal));
        threads.extend(containers.iter().map(SharedContainer::start));
        let room_bytes = u32::try_from(options.room_bytes()).unwrap_or(u32::MAX);
        let shared = Shared {
            containers,
            journal,
            keeper,
            room: Arc::new(Semaphore::new(room_bytes as usize)),
            room_bytes,
            run_cache: opened.run_cache,
            random: io.random,
            figures,
            pins,
            disk: io.disk,
            objects: opened.objects,
            threads: Mutex::new(threads),
            deleting: Mutex::new(Some(deleting)),
            scrubbing: Mutex::default(),
            cache: opened.cache,
            witness,
            recovered: opened.recovered,
            reserve: opened.reserve,
            unstored_bytes_max: options.unstored_bytes_max(count as u32),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Hands over a request. The reply comes from a thread of the engine, or from this one before the call returns. Never
    /// blocks. Requests handed over one after
    /// the other for one segment are decided in that order, except that reads overtake writes that wait for memory.
    pub fn submit(&self, request: Request, reply: Box<dyn Reply>) {
        let containers = &self.shared.containers;
        let container = request.segment().container(containers.len() as u32);
        let foreign = match &request {
            Request::Merge { source, .. } => source.container(containers.len() as u32) != container,
            Request::MergeBatch { sources, .. } => {
                sources.iter().any(|source| source.container(containers.len() as u32) != container)
            }
            _ => false,
        };
        if foreign {
            reply.send(Err(Refusal::Invalid("source and target of a merge differ in more than epoch and suffix")));
            return;
        }
        containers[container as usize].leave(ContainerInput::Request(request, reply));
        containers[container as usize].help();
    }

    /// [`submit`](Self::submit) and wait.
    ///
    /// # Cancel safety
    /// Dropping the future gives up waiting; the request is carried out all the same (a parked read is dropped).
    pub async fn call(&self, request: Request) -> Outcome {
        let (sender, receiver) = oneshot::channel();
        self.submit(request, Box::new(sender));
        receiver.await.unwrap_or(Err(Refusal::Closing))
    }

    /// Number of containers of this store.
    pub fn containers(&self) -> u32 {
        self.shared.containers.len() as u32
    }

    /// Answers [`Response::Done`](crate::api::Response::Done) once everything that `container` has decided so far is in
    /// chunks and in a durable checkpoint. Begins one for that, so a caller should ask rarely.
    ///
    /// # Panics
    /// If `container` is not below [`containers`](Self::containers).
    pub fn flush(&self, container: u32, reply: Box<dyn Reply>) {
        let container = &self.shared.containers[container as usize];
        container.leave(ContainerInput::Flush(reply));
        container.help();
    }

    /// Takes room for `bytes` of a request, waiting until there is some: the caller stops reading from its connection
    /// meanwhile. Keep the permit until the reply. `bytes` above the whole room wait for all of it.
    pub async fn room(&self, bytes: usize) -> Permit {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.shared.room_bytes);
        let permit = self.shared.room.clone().acquire_many_owned(bytes).await;
        Permit { _permit: permit.expect("the room is never closed") }
    }

    /// Room for the requests of all connections together, in bytes.
    pub fn room_bytes(&self) -> usize {
        self.shared.room_bytes as usize
    }

    /// The disk was found full and what the store keeps in reserve is not whole: whatever grows waits. Reads go on, and so
    /// does what frees room: truncations, deletions, seals, merges, and changes of [`SYSTEM_TABLES`](crate::api::SYSTEM_TABLES).
    pub fn is_full(&self) -> bool {
        self.shared.reserve.is_low()
    }

    /// What an emptied data directory got back from object storage when the store was opened; empty otherwise.
    pub fn recovered(&self) -> &[Recovered] {
        &self.shared.recovered
    }

    /// Draws the name for a transient segment of `parent`.
    pub fn transient_name(&self, parent: &SegmentName, writer: WriterId) -> SegmentName {
        parent.transient(writer, self.shared.random.bits())
    }

    /// Starts the thread that reads everything stored once in each `period` and logs what is not as it was written. At
    /// most once; it ends when the store closes.
    pub fn scrub(&self, period: Duration) {
        let (open, closing) = channel();
        let scrubber = Scrubber {
            disk: self.shared.disk.clone(),
            objects: self.shared.objects.clone(),
            period,
            chance: self.shared.random.bits(),
            figures: self.shared.figures.clone(),
            closing,
        };
        let before = self.shared.scrubbing.lock().expect("closing does not panic").replace(open);
        assert!(before.is_none(), "one scrubber is enough");
        let thread = scrubber.start();
        self.shared.threads.lock().expect("closing does not panic").push(thread);
    }

    /// How often stored bytes were found not to be what was written, by readers and the scrubber, since the start.
    pub fn doubts(&self) -> u64 {
        let figures = &self.shared.figures;
        let read = figures.containers.iter().map(|one| one.damaged_reads.load(Relaxed)).sum::<u64>();
        read + figures.damaged_reads.load(Relaxed) + figures.scrub_findings.load(Relaxed)
    }

    /// A consistent image of the store as of now, for a backup. Everything acknowledged before this call is in it. First
    /// has checkpoints made, so that the journal's part of it is short, but waits at most ten seconds for them.
    /// Blocks; call it from a thread that may. While the image lives, nothing it needs is removed, so the disk fills.
    ///
    /// # Errors
    /// Any [`ImageError`].
    pub fn image(&self) -> Result<Image, ImageError> {
        let figures = &self.shared.figures.containers;
        let wanted: Vec<_> = figures.iter().map(|one| one.sequence.load(Relaxed)).collect();
        let (_open, timer) = channel::<()>();
        for _ in 0..IMAGE_PATIENCE.as_millis() / IMAGE_TICK.as_millis() {
            let behind: Vec<_> =
                figures.iter().zip(&wanted).map(|(one, &it)| one.checkpointed.load(Relaxed) < it).collect();
            if !behind.contains(&true) {
                break;
            }
            for (container, _) in self.shared.containers.iter().zip(behind).filter(|(_, is_behind)| *is_behind) {
                container.send(ContainerInput::Checkpoint);
            }
            let _ = timer.recv_timeout(IMAGE_TICK);
        }
        let journal = self.shared.journal.clone();
        // The journal may be closed by then.
        let after = move || drop(journal.send(JournalInput::Unpinned));
        let (disk, objects) = (self.shared.disk.clone(), self.shared.objects.clone());
        Image::take(self.shared.pins.clone(), disk, objects, after)
    }

    /// Figures of this moment.
    pub fn metrics(&self) -> Metrics {
        let figures = &self.shared.figures;
        let sum = |pick: fn(&ContainerFigures) -> u64| figures.containers.iter().map(pick).sum::<u64>();
        let room = u64::from(self.shared.room_bytes);
        let blocks = self.shared.cache.usage();
        let (reserve_bytes, reserve_wanted_bytes) = self.shared.reserve.bytes();
        let remote = self.shared.objects.remote_usage().unwrap_or_default();
        Metrics {
            values: vec![
                ("wal_syncs_total", figures.journal_syncs.load(Relaxed)),
                ("wal_written_bytes_total", figures.journal_bytes.load(Relaxed)),
                ("wal_records_total", figures.journal_records.load(Relaxed)),
                ("wal_files_bytes", figures.journal_files_bytes.load(Relaxed)),
                ("wal_tail_discarded_bytes", figures.tail_discarded_bytes.load(Relaxed)),
                ("wal_replayed_bytes", figures.replayed_bytes.load(Relaxed)),
                ("checkpoints_total", figures.checkpoints.load(Relaxed)),
                (
                    "crc_failures_total",
                    figures.damaged_reads.load(Relaxed) + sum(|one| one.damaged_reads.load(Relaxed)),
                ),
                ("disk_full", u64::from(self.is_full())),
                ("disk_reserve_bytes", reserve_bytes),
                ("disk_reserve_wanted_bytes", reserve_wanted_bytes),
                ("requests_held", sum(|one| one.held.load(Relaxed))),
                ("disk_full_waits_total", figures.disk_full_waits.load(Relaxed)),
                ("scrub_read_bytes_total", figures.scrub_bytes.load(Relaxed)),
                ("scrub_passes_total", figures.scrub_passes.load(Relaxed)),
                ("scrub_findings_total", figures.scrub_findings.load(Relaxed)),
                ("scrub_storage_waits_total", figures.scrub_waits.load(Relaxed)),
                ("scrub_pass_bytes", figures.scrub_pass_bytes.load(Relaxed)),
                ("scrub_pass_read_bytes", figures.scrub_pass_read_bytes.load(Relaxed)),
                ("unstored_bytes", sum(|one| one.unstored_bytes.load(Relaxed))),
                ("cache_bytes", sum(|one| one.cached_bytes.load(Relaxed))),
                ("chunk_blocks_bytes", blocks.bytes),
                ("chunk_blocks_limit_bytes", blocks.bytes_max),
                ("chunk_block_hits_total", blocks.hits),
                ("chunk_block_misses_total", blocks.misses),
                ("chunk_blocks_fetched_ahead_total", blocks.ahead),
                ("chunk_storage_requests_total", remote.requests),
                ("chunk_storage_retries_total", remote.retries),
                ("chunk_storage_failures_total", remote.failures),
                ("chunk_storage_waits_total", figures.storage_waits.load(Relaxed)),
                ("chunk_storage_refused_reads_total", figures.storage_refusals.load(Relaxed)),
                ("chunk_storage_copies_due", figures.copies_due.load(Relaxed)),
                ("unstored_limit_bytes", self.shared.unstored_bytes_max),
                ("catalogue_hot_bytes", sum(|one| one.catalogue_bytes.load(Relaxed))),
                ("catalogue_index_bytes", sum(|one| one.index_bytes.load(Relaxed))),
                ("catalogue_cache_bytes", self.shared.run_cache.bytes() as u64),
                ("catalogue_merges_total", figures.merges.load(Relaxed)),
                ("segments_in_memory", sum(|one| one.segments.load(Relaxed))),
                ("requests_room_bytes", room),
                ("requests_room_used_bytes", room - self.shared.room.available_permits() as u64),
            ],
        }
    }

    /// Refuses new requests, answers parked reads, makes everything durable, closes the journal and ends the threads.
    /// Blocks, a few seconds at most; call it from a thread that may. Calling it again does nothing.
    pub fn close(&self) {
        let threads = std::mem::take(&mut *self.shared.threads.lock().expect("closing does not panic"));
        if threads.is_empty() {
            return;
        }
        drop(self.shared.scrubbing.lock().expect("closing does not panic").take());
        drop(self.shared.deleting.lock().expect("closing does not panic").take());
        let (sender, receiver) = channel();
        for container in &self.shared.containers {
            container.send(ContainerInput::Close(sender.clone()));
        }
        drop(sender);
        // Ends when every container has answered, is gone, or takes too long: what it ordered was never acknowledged.
        while receiver.recv_timeout(CLOSE_STEP).is_ok() {}
        let (sender, receiver) = channel();
        let _ = self.shared.journal.send(JournalInput::Close(sender));
        let _ = receiver.recv_timeout(CLOSE_STEP);
        let (sender, receiver) = channel();
        let _ = self.shared.keeper.send(KeeperInput::Close(sender));
        let _ = receiver.recv_timeout(CLOSE_STEP);
        let (sender, receiver) = channel();
        let _ = self.shared.witness.send(sender);
        let _ = receiver.recv_timeout(CLOSE_STEP);
        for thread in threads {
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}
