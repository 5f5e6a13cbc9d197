//! The scrubber: reads everything that is stored, slowly and again and again, so that rot is found while there is still a
//! backup of what rotted.
//!
//! ```text
//!   measure ─► runs and chunks of each container ─► journal files that are full ─► from the beginning
//! ```
//!
//! Guarantees:
//! * it reads at the pace at which everything is read once in the period it is given, and never faster than
//!   [`BYTES_PER_SECOND_MAX`]
//! * nothing is changed, nothing deleted, and the store goes on whatever it finds
//! * what a checkpoint gave up meanwhile is no finding: a doubt is looked at again before it is one
//! * object storage that does not answer is no finding: what could not be read is asked for again, and in the end left out;
//!   then the pass does not count as one
//! * what it reads comes from the disk and not from memory, where the system can do that ([`Disk::forget_cached`])
//!
//! It begins at another container after each start, so that a server that is restarted often is not read at one end only.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::catalogue::{self, Catalogue, RunCache, StoredManifest};
use crate::chunks;
use crate::container;
use crate::error::StoreError;
use crate::io::{Disk, Objects};
use crate::journal;
use crate::store::Identity;
use crate::tasks::{Figures, start};

/// Commits must not notice. A store too large for its period at this rate takes longer.
const BYTES_PER_SECOND_MAX: u64 = 64 << 20;
/// Blocks of a catalogue that are kept in memory while its chunks are looked up.
const RUN_CACHE_BYTES: usize = 1 << 20;
/// Before the first pass: a server that starts has better things to do.
const BEFORE_FIRST: Duration = Duration::from_secs(60);
/// At least this between two passes, whatever the period is.
const BETWEEN_PASSES: Duration = Duration::from_secs(10);
/// Before a chunk is asked for again that object storage did not give; each such pause is twice as long as the one before.
const AWAY_PAUSE: Duration = Duration::from_secs(15);
/// Times a chunk is asked for before it is left out of the pass. All pauses together take half an hour.
const AWAY_TRIES: u32 = 8;
/// Findings of one pass that are logged; the figure counts all.
const LOGGED_MAX: u64 = 100;

/// What the scrubber needs.
pub(crate) struct Scrubber {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) objects: Arc<dyn Objects>,
    /// In which everything is read once.
    pub(crate) period: Duration,
    /// Chooses where it begins.
    pub(crate) chance: u128,
    pub(crate) figures: Arc<Figures>,
    /// Its other end is dropped when the store closes.
    pub(crate) closing: Receiver<()>,
}

/// The store is closing.
struct Closing;

/// How a pass goes.
struct Pass {
    bytes_per_second: u64,
    findings: u64,
    /// Chunks that object storage did not give.
    left_out: u64,
}

/// What a reading of a chunk found.
struct Verified {
    bad: Vec<chunks::BadBlock>,
    /// The chunk as a whole.
    error: Option<StoreError>,
}

impl Scrubber {
    /// Starts its thread, which ends when the store closes.
    pub(crate) fn start(self) -> JoinHandle<()> {
        let never = Arc::new(|_: StoreError| {});
        start("scrubber".into(), never, move || {
            self.run();
            Ok(())
        })
    }

    fn run(self) {
        let mut pause = BEFORE_FIRST.min(self.period);
        while self.wait(pause).is_ok() {
            // What cannot even be listed shows itself in better places than here.
            if let Ok(Err(error)) = self.pass() {
                tracing::warn!(%error, "scrubbing was cut short");
                pause = BEFORE_FIRST.min(self.period);
                continue;
            }
            pause = BETWEEN_PASSES.min(self.period);
        }
    }

    fn wait(&self, time: Duration) -> Result<(), Closing> {
        match self.closing.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            _ => Err(Closing),
        }
    }

    /// One reading of everything.
    fn pass(&self) -> Result<Result<(), StoreError>, Closing> {
        let Ok(Some(identity)) = Identity::read(&*self.disk) else { return Ok(Ok(())) };
        let bytes = match self.measure(&identity) {
            Ok(bytes) => bytes,
            Err(error) => return Ok(Err(error)),
        };
        self.figures.scrub_pass_bytes.store(bytes, Relaxed);
        self.figures.scrub_pass_read_bytes.store(0, Relaxed);
        let wanted = bytes / self.period.as_secs().max(1);
        let mut pass = Pass { bytes_per_second: wanted.clamp(1, BYTES_PER_SECOND_MAX), findings: 0, left_out: 0 };
        let first = (self.chance % u128::from(identity.containers)) as u32;
        for id in (0..identity.containers).map(|id| (id + first) % identity.containers) {
            if let Err(error) = self.container(id, &mut pass)? {
                return Ok(Err(error));
            }
        }
        if let Err(error) = self.journal(&identity, &mut pass)? {
            return Ok(Err(error));
        }
        if pass.left_out > 0 {
            tracing::warn!(chunks = pass.left_out, "not everything stored was read: object storage did not give it");
            return Ok(Ok(()));
        }
        self.figures.scrub_passes.fetch_add(1, Relaxed);
        tracing::info!(bytes, findings = pass.findings, "everything stored was read");
        Ok(Ok(()))
    }

    /// The catalogue of a container as of its newest checkpoint, and the numbers of its runs.
    fn open(&self, id: u32) -> Result<(Catalogue, Vec<u64>), StoreError> {
        let runs = StoredManifest::read(&*self.disk, id)?.runs;
        let (catalogue, _) = catalogue::open(&*self.disk, id, &RunCache::new(RUN_CACHE_BYTES))?;
        Ok((catalogue, runs))
    }

    fn measure(&self, identity: &Identity) -> Result<u64, StoreError> {
        let mut bytes = 0;
        for id in 0..identity.containers {
            // What cannot be opened or read is a finding when its turn comes.
            let Ok((catalogue, runs)) = self.open(id) else { continue };
            for run in runs {
                // Replaced meanwhile, perhaps.
                bytes += self.disk.open(&catalogue::run_path(id, run)).and_then(|file| file.length()).unwrap_or(0);
            }
            let named: BTreeSet<_> = container::chunks_of(&catalogue).into_iter().flatten().collect();
            let lengths = match self.objects.lengths(&chunks::directory(id)) {
                // Without its size there is no pace to read it at.
                Err(error @ StoreError::Unreachable { .. }) => return Err(error),
                lengths => lengths.unwrap_or_default(),
            };
            let is_named = |name: &str| chunks::number_of(name).is_some_and(|number| named.contains(&number));
            bytes += lengths.iter().filter(|(name, _)| is_named(name)).map(|(_, length)| length).sum::<u64>();
        }
        let names = self.disk.list(journal::DIRECTORY).unwrap_or_default();
        let files = names.iter().filter(|name| name.ends_with(".log")).count().saturating_sub(1);
        Ok(bytes + files as u64 * identity.journal_file_bytes)
    }

    /// Counts what was read and waits for as long as it may take.
    fn has_read(&self, bytes: u64, pass: &Pass) -> Result<(), Closing> {
        self.figures.scrub_bytes.fetch_add(bytes, Relaxed);
        self.figures.scrub_pass_read_bytes.fetch_add(bytes, Relaxed);
        self.wait(Duration::from_secs_f64(bytes as f64 / pass.bytes_per_second as f64))
    }

    fn container(&self, id: u32, pass: &mut Pass) -> Result<Result<(), StoreError>, Closing> {
        // Twice: a run may have been replaced between the reading of the manifest and its own.
        let (catalogue, runs) = match self.open(id).or_else(|_| self.open(id)) {
            Ok(opened) => opened,
            Err(error @ StoreError::Damaged { .. }) => {
                self.say(&error, None, pass);
                return Ok(Ok(()));
            }
            Err(error) => return Ok(Err(error)),
        };
        // If a run keeps them from being read, it is found below.
        let chunks: Vec<_> = container::chunks_of(&catalogue).into_iter().flatten().collect();
        drop(catalogue);
        for run in runs {
            let path = catalogue::run_path(id, run);
            self.disk.forget_cached(&path);
            let mut bad = Vec::new();
            let mut ended = Ok(());
            match catalogue::open_run(&*self.disk, id, run, &RunCache::new(0)) {
                Ok(open) => {
                    let mut go_on = |bytes: u64| {
                        ended = self.has_read(bytes, pass);
                        ended.is_ok()
                    };
                    open.verify(&mut go_on, &mut |error| bad.push(error));
                }
                Err(error) => bad.push(error),
            }
            ended?;
            let is_named = || StoredManifest::read(&*self.disk, id).is_ok_and(|manifest| manifest.runs.contains(&run));
            if !bad.is_empty() && is_named() {
                bad.iter().for_each(|error| self.say(error, None, pass));
            }
        }
        for chunk in chunks {
            self.disk.forget_cached(&chunks::path_of(id, chunk));
            let Verified { bad, error } = self.chunk(id, chunk, pass)?;
            if bad.is_empty() && error.is_none() {
                continue;
            }
            let Ok((catalogue, _)) = self.open(id) else { continue };
            // Given up meanwhile: nobody needs it.
            if !container::chunks_of(&catalogue).is_ok_and(|mut named| named.any(|named| named == chunk)) {
                continue;
            }
            let whole = error.map(|error| (0..u64::MAX, error));
            let blocks = bad.into_iter().map(|block| (block.position..block.position + block.length, block.error));
            for (stretch, error) in blocks.chain(whole) {
                let mut owner = None;
                let stretches = [(chunk, stretch)];
                let _ =
                    container::owners(&catalogue, &stretches, &mut |_, name, _| owner = owner.take().or(Some(name)));
                self.say(&error, owner.as_deref(), pass);
            }
        }
        Ok(Ok(()))
    }

    /// Reads a chunk, however often object storage has to be asked, within reason.
    fn chunk(&self, id: u32, chunk: u64, pass: &mut Pass) -> Result<Verified, Closing> {
        let mut pause = AWAY_PAUSE.min(self.period);
        // What was read before storage went away is read again, and counted again: it was.
        for tries in 1.. {
            let mut bad = Vec::new();
            let mut ended = Ok(());
            let mut go_on = |bytes: u64| {
                ended = self.has_read(bytes, pass);
                ended.is_ok()
            };
            let verified = chunks::verify(&*self.objects, id, chunk, &mut go_on, &mut |block| bad.push(block));
            ended?;
            let away = match verified {
                Err(error @ StoreError::Unreachable { .. }) => error,
                verified => return Ok(Verified { bad, error: verified.err() }),
            };
            self.figures.scrub_waits.fetch_add(1, Relaxed);
            if tries == AWAY_TRIES {
                tracing::warn!(error = %away, "a chunk is left out of this scrubbing");
                pass.left_out += 1;
                break;
            }
            self.wait(pause)?;
            pause *= 2;
        }
        Ok(Verified { bad: Vec::new(), error: None })
    }

    /// Journal files that nothing is written to any more.
    fn journal(&self, identity: &Identity, pass: &mut Pass) -> Result<Result<(), StoreError>, Closing> {
        let names = self.disk.list(journal::DIRECTORY).unwrap_or_default();
        let numbers: Vec<u64> = names.iter().filter_map(|name| name.strip_suffix(".log")?.parse().ok()).collect();
        for pair in numbers.windows(2) {
            let verify =
                || journal::verify_idle(&*self.disk, identity.store, identity.journal_file_bytes, pair[0], pair[1]);
            self.disk.forget_cached(&journal::path_of(pair[0]));
            // Twice: the file may have been recycled while it was read, and is then not there under its name.
            if verify().is_err()
                && let Err(error) = verify()
                && !error.is_not_found()
            {
                self.say(&error, None, pass);
            }
            self.has_read(identity.journal_file_bytes, pass)?;
        }
        Ok(Ok(()))
    }

    fn say(&self, error: &StoreError, segment: Option<&str>, pass: &mut Pass) {
        self.figures.scrub_findings.fetch_add(1, Relaxed);
        pass.findings += 1;
        if pass.findings <= LOGGED_MAX {
            tracing::error!(%error, segment, "stored bytes are not what was written; restore them from a backup");
        }
    }
}
