//! Judging a store that no server uses: every file is read, every checksum computed, everything that names something
//! else followed. Nothing is changed.
//!
//! ```text
//!   identity ─► files that are there ─► per container: manifest ─► runs ─► what they say ─► chunks ─► journal ─► replay
//! ```
//!
//! Guarantees:
//! * nothing is opened for writing, nothing created, no time of access relied on
//! * no doubt means: the store would open, and every acknowledged byte in it would be served
//! * object storage that does not answer is no finding: it ends the check with an error
//! * what a killed process leaves behind is a note and no doubt: a torn tail, files that no manifest names
//! * memory grows with the number of files and, for the replay, with the length of the journal; never with the bytes stored
//!
//! [`repair`] puts right what can be proven to be harmless. Start reading at [`directory`].

mod container;
mod inventory;
pub mod repair;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::bucket::{self, BucketOptions, Local};
use crate::catalogue::RunCache;
use crate::chunks::{BlockCache, Chunks, Directory};
use crate::container::Container;
use crate::error::{IoContext, StoreError};
use crate::io::{Disk, Objects, ReadOnlyDisk, lock_for_reading};
use crate::journal::{self, JournalState, Slots, Witness};
use crate::store::{self, Identity, NoToken, Options};

use inventory::Inventory;
pub use inventory::{TLS, TOKEN_KEY};
use repair::{Cure, Remedy};

/// Memory for blocks of chunks, which a replay looks at for table entries.
const CACHE_BYTES: u64 = 16 << 20;
/// Blocks of a catalogue that are kept in memory while its keys are looked up.
const RUN_CACHE_BYTES: usize = 16 << 20;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// Worth knowing; nothing that was acknowledged is affected.
    Note,
    /// Something is not as it should be.
    Doubt,
}

/// One thing that was found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// What kind, from a list that only grows: see `docs/operations.md`.
    pub code: &'static str,
    /// File or directory, relative to the data directory; `.` for the directory itself.
    pub file: String,
    /// Byte in the file, if one can be named.
    pub offset: Option<u64>,
    /// Container it belongs to.
    pub container: Option<u32>,
    /// Segment that is affected, as clients know it (`scope/stream/number.#epoch.number`).
    pub segment: Option<String>,
    /// What was expected and what was found, in one line.
    pub what: String,
}

impl Finding {
    fn new(severity: Severity, code: &'static str, file: impl Into<String>, what: impl Into<String>) -> Self {
        let (file, what) = (file.into(), what.into());
        Self { severity, code, file, offset: None, container: None, segment: None, what }
    }

    fn doubt(code: &'static str, file: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(Severity::Doubt, code, file, what)
    }

    fn note(code: &'static str, file: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(Severity::Note, code, file, what)
    }

    fn of_error(error: &StoreError) -> Self {
        match error {
            StoreError::Io { path, action, source } => {
                let code = if error.is_not_found() { "missing" } else { "unreadable" };
                Self::doubt(code, path, format!("could not {action}: {source}"))
            }
            StoreError::Damaged { path, offset, what } => {
                Self { offset: Some(*offset), ..Self::doubt("damaged", path, what) }
            }
            StoreError::Newer { path, found, known } => {
                Self::doubt("newer", path, format!("format {found}, this release reads up to {known}"))
            }
            StoreError::Unreachable { object, .. } => Self::doubt("unreadable", object, error.to_string()),
            StoreError::Mismatched(what) | StoreError::Fenced(what) => Self::doubt("misfit", bucket::PATH, what),
        }
    }

    fn of_container(self, container: u32) -> Self {
        Self { container: Some(container), ..self }
    }
}

/// How far the check is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Bytes read so far.
    pub bytes: u64,
    /// Bytes there are to read.
    pub bytes_total: u64,
    /// What is being read.
    pub place: &'a str,
}

/// Is told what the check finds while it goes on.
pub trait Watch {
    /// Something was found.
    fn finding(&mut self, finding: Finding);
    /// Something was put right, see [`repair`].
    fn repaired(&mut self, _repair: &repair::Repair) {}
    /// A megabyte or so was read. False ends the check early; the summary then says so.
    fn progress(&mut self, progress: Progress<'_>) -> bool;
}

/// What was looked at, and the verdict.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Number of the store, drawn when it was created; 0 if it could not be read.
    pub store: u128,
    /// Number of containers.
    pub containers: u32,
    /// Files looked at.
    pub files: u64,
    /// Bytes read and verified.
    pub bytes: u64,
    /// Segments in the checkpoints.
    pub segments: u64,
    /// Entries of tables are not counted here; chunks are.
    pub chunks: u64,
    /// Journal files in use.
    pub journal_files: u64,
    /// Newest journal frame.
    pub journal_frame: u64,
    /// Records replayed on top of the checkpoints.
    pub records: u64,
    /// Bytes behind the journal's last frame that were never acknowledged.
    pub torn_bytes: u64,
    /// The store was closed in good order.
    pub is_closed: bool,
    /// Findings that are doubts.
    pub doubts: u64,
    /// Findings that are notes.
    pub notes: u64,
    /// Everything was looked at.
    pub is_complete: bool,
    /// Chunks are in a bucket that was not named, and were not looked at.
    pub are_chunks_left_out: bool,
}

impl Summary {
    /// Everything was looked at and nothing is doubtful.
    pub fn is_sound(&self) -> bool {
        self.is_complete && self.doubts == 0
    }
}

/// Why a directory cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It holds no store and never did.
    #[error("{} is no data directory: it has no store file", path.display())]
    NotAStore {
        /// Which.
        path: PathBuf,
    },
    /// What is read would change meanwhile.
    #[error("data directory {} is in use by a server; stop it, or check a backup", path.display())]
    Locked {
        /// Which.
        path: PathBuf,
    },
    /// It cannot be looked at.
    #[error("data directory {} cannot be read", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// Repairing would make it something else than what was backed up.
    #[error("{} is a backup and stays as it is; restore it and repair what that makes", path.display())]
    Backup {
        /// Which.
        path: PathBuf,
    },
    /// The disk refused while something was put right. What was done before stays done.
    #[error("store in {} could not be repaired", path.display())]
    Repair {
        /// Which.
        path: PathBuf,
        /// Why.
        source: StoreError,
    },
    /// Written by a newer release, or the disk does not even list it.
    #[error("store in {} cannot be checked", path.display())]
    Store {
        /// Which.
        path: PathBuf,
        /// Why.
        source: StoreError,
    },
}

/// Judges the store in a directory. Keeps servers out meanwhile. Blocks for as long as reading everything takes. Chunks in
/// a bucket are not looked at, which is a doubt.
///
/// # Errors
/// Any [`CheckError`]. Damage is not one: it is a finding.
pub fn directory(root: &Path, watch: &mut dyn Watch) -> Result<Summary, CheckError> {
    judge(root, None, watch)
}

/// Judges the store in a directory together with its bucket, as [`directory`] does.
///
/// # Errors
/// Any [`CheckError`]; [`CheckError::Store`] also if the bucket is not this store's or does not answer.
pub fn directory_with_bucket(
    root: &Path,
    bucket: &BucketOptions,
    watch: &mut dyn Watch,
) -> Result<Summary, CheckError> {
    judge(root, Some(bucket), watch)
}

fn judge(root: &Path, bucket: Option<&BucketOptions>, watch: &mut dyn Watch) -> Result<Summary, CheckError> {
    let path = || root.to_path_buf();
    let no_directory = |source| CheckError::Directory { path: path(), source };
    if !std::fs::metadata(root).map_err(no_directory)?.is_dir() {
        return Err(no_directory(std::io::ErrorKind::NotADirectory.into()));
    }
    let _lock = lock_for_reading(root).map_err(|source| match source.kind() {
        std::io::ErrorKind::WouldBlock => CheckError::Locked { path: path() },
        _ => no_directory(source),
    })?;
    let inventory = Inventory::take(root).map_err(no_directory)?;
    if !inventory.looks_like_a_store() {
        return Err(CheckError::NotAStore { path: path() });
    }
    let mut check = Check::of(&inventory, Arc::new(ReadOnlyDisk::new(root)), bucket, watch);
    let judged = check.store();
    judged.map_err(|source| CheckError::Store { path: path(), source })?;
    Ok(check.summary)
}

/// Judges the store on a disk; of what else is there, nothing is said. For simulation, and for what only looks like a disk.
///
/// # Errors
/// [`StoreError::Newer`], and when directories cannot be listed.
pub fn disk(disk: Arc<dyn Disk>, watch: &mut dyn Watch) -> Result<Summary, StoreError> {
    let mut check = Check::new(disk, None, 0, watch);
    check.store()?;
    Ok(check.summary)
}

/// Whether a name at the top of a directory is one that a store gives while it is made. A directory without a store and
/// with other names is somebody else's.
pub fn is_made_first(name: &str) -> bool {
    inventory::is_made_first(name)
}

/// A check under way.
struct Check<'a> {
    disk: Arc<dyn Disk>,
    watch: &'a mut dyn Watch,
    summary: Summary,
    bytes_total: u64,
    is_ended: bool,
    /// Where people say that the chunks are.
    bucket: Option<BucketOptions>,
    /// Where they are; `None`: in a bucket that was not named.
    objects: Option<Arc<dyn Objects>>,
    /// What could be put right.
    remedies: Vec<Remedy>,
    /// Doubts that would be gone then.
    curable: u64,
    /// Newest frame of the journal that anything testifies to.
    known: u64,
}

impl<'a> Check<'a> {
    fn new(disk: Arc<dyn Disk>, bucket: Option<&BucketOptions>, bytes_total: u64, watch: &'a mut dyn Watch) -> Self {
        Self {
            disk,
            watch,
            summary: Summary::default(),
            bytes_total,
            is_ended: false,
            bucket: bucket.cloned(),
            objects: None,
            remedies: Vec::new(),
            curable: 0,
            known: 0,
        }
    }

    /// Of a directory, about which something is said before its store is looked at.
    fn of(
        inventory: &Inventory,
        disk: Arc<dyn Disk>,
        bucket: Option<&BucketOptions>,
        watch: &'a mut dyn Watch,
    ) -> Self {
        let mut check = Self::new(disk, bucket, inventory.bytes, watch);
        check.summary.files = inventory.files;
        inventory.judge(&mut |finding| check.say(finding));
        for path in inventory.strangers() {
            check.curable += 1;
            check.remedy("foreign", path, Cure::SetAside);
        }
        check
    }

    fn remedy(&mut self, code: &'static str, file: impl Into<String>, cure: Cure) {
        self.remedies.push(Remedy { code, file: file.into(), cure });
    }

    /// A file that the next start would remove, or that nothing reads.
    fn left_over(&mut self, finding: Finding) {
        self.remedy(finding.code, &finding.file, Cure::SetAside);
        self.say(finding);
    }

    fn say(&mut self, finding: Finding) {
        match finding.severity {
            Severity::Doubt => self.summary.doubts += 1,
            Severity::Note => self.summary.notes += 1,
        }
        self.watch.finding(finding);
    }

    /// Counts bytes that were read; false once the check is to end.
    fn has_read(&mut self, bytes: u64, place: &str) -> bool {
        self.summary.bytes += bytes;
        if self.bucket.is_some() {
            // Not all that is there is known beforehand.
            self.bytes_total = self.bytes_total.max(self.summary.bytes);
        }
        let progress = Progress { bytes: self.summary.bytes, bytes_total: self.bytes_total, place };
        self.is_ended |= !self.watch.progress(progress);
        !self.is_ended
    }

    fn store(&mut self) -> Result<(), StoreError> {
        let identity = match Identity::read(&*self.disk) {
            Ok(Some(identity)) => Some(identity),
            Ok(None) => {
                self.say(Finding::doubt("missing", store::PATH, "identity of the store is missing"));
                None
            }
            Err(error @ StoreError::Newer { .. }) => return Err(error),
            Err(error) => {
                self.say(Finding::of_error(&error));
                None
            }
        };
        self.locate_chunks(identity.as_ref())?;
        let containers = match &identity {
            Some(identity) => identity.containers,
            None => self.containers_by_directory()?,
        };
        self.summary.containers = containers;
        let mut sound = Vec::new();
        for id in 0..containers {
            sound.push(self.container(id)?);
            if let Some(identity) = &identity {
                self.copy(identity.store, id)?;
            }
            if self.is_ended {
                return Ok(());
            }
        }
        match identity {
            Some(identity) => {
                self.summary.store = identity.store;
                self.half_made(identity.journal_file_bytes)?;
                self.journal(&identity, &sound)?;
            }
            None => {
                let what = "journal is not checked: without its identity nobody knows whose it is";
                self.say(Finding::doubt("not-checked", journal::DIRECTORY, what));
            }
        }
        self.summary.is_complete = !self.is_ended && !self.summary.are_chunks_left_out;
        Ok(())
    }

    /// Finds out where the chunks are, and that this is their place.
    fn locate_chunks(&mut self, identity: Option<&Identity>) -> Result<(), StoreError> {
        let in_bucket = self.bucket.as_ref().map(|bucket| bucket.objects.clone());
        match (Local::read(&*self.disk), &self.bucket) {
            (Ok(None), None) => self.objects = Some(Arc::new(Directory::new(self.disk.clone()))),
            (Ok(None), Some(_)) => {
                let what = "this store keeps its chunks in its directory, and not in a bucket";
                return Err(StoreError::Mismatched(what.into()));
            }
            (Ok(Some(local)), Some(bucket)) => {
                self.objects = in_bucket;
                let outdated = match identity {
                    Some(identity) => bucket::outdated(bucket, identity, &local)?,
                    None => None,
                };
                if let Some(what) = outdated {
                    self.say(Finding::doubt("misfit", bucket::PATH, what));
                }
            }
            (Ok(Some(_)), None) => {
                let what =
                    "the chunks of this store are in object storage and are NOT looked at: name it with --chunks";
                self.say(Finding::doubt("not-checked", bucket::PATH, what));
            }
            (Err(error @ StoreError::Newer { .. }), _) => return Err(error),
            (Err(error), _) => {
                self.objects = in_bucket;
                self.say(Finding::of_error(&error));
            }
        }
        self.summary.are_chunks_left_out = self.objects.is_none();
        Ok(())
    }

    /// Files that were being made when a process was killed.
    fn half_made(&mut self, journal_file_bytes: u64) -> Result<(), StoreError> {
        let names = self.disk.list("").on(".", "list")?;
        for name in names.iter().filter(|name| [store::NEXT_PATH, bucket::NEXT_PATH].contains(&name.as_str())) {
            self.left_over(Finding::note("unreferenced", name, "left by a process that was killed; nothing reads it"));
        }
        for path in journal::leftovers(&*self.disk, journal_file_bytes)? {
            let what = "half made: left by a process that was killed; the next start removes it";
            self.left_over(Finding::note("unreferenced", path, what));
        }
        Ok(())
    }

    fn containers_by_directory(&self) -> Result<u32, StoreError> {
        let mut count = 0;
        while !self.disk.list(&crate::catalogue::directory(count)).on(".", "list")?.is_empty() {
            count += 1;
        }
        Ok(count)
    }

    /// The journal, and what it adds to the containers that are sound so far.
    fn journal(&mut self, identity: &Identity, sound: &[bool]) -> Result<(), StoreError> {
        let disk = self.disk.clone();
        let slots = match Slots::read(&*disk, identity.store) {
            Ok(slots) => slots,
            Err(error) => {
                self.say(Finding::of_error(&error));
                Slots::default()
            }
        };
        let witness = Witness::open(&*disk, identity.store)?;
        let limits = Options::default().limits(identity.containers, identity.journal_file_bytes);
        let cache = Arc::new(BlockCache::new(CACHE_BYTES));
        let run_cache = RunCache::new(RUN_CACHE_BYTES);
        let mut replay = Replay::default();
        for (id, sound) in (0..).zip(sound) {
            let objects = self.objects.as_ref().filter(|_| *sound);
            let opened = objects.map(|objects| {
                let chunks = Chunks::new(objects.clone(), id, None, cache.clone());
                Container::<NoToken>::open(&*disk, chunks, id, limits, &run_cache)
            });
            let opened = match opened {
                Some(Err(error @ StoreError::Unreachable { .. })) => return Err(error),
                Some(Ok((container, _))) => Some(container),
                Some(Err(_)) | None => None,
            };
            replay.containers.push(opened);
        }
        let (mut bad, mut read) = (Vec::new(), 0);
        let state = journal::verify(
            &*disk,
            identity.store,
            identity.journal_file_bytes,
            &witness,
            &mut |record| replay.take(&record),
            &mut |bytes| {
                read += bytes;
                self.has_read(bytes, journal::DIRECTORY)
            },
            &mut |error| bad.push(error),
        )?;
        for error in bad {
            self.say(Finding::of_error(&error));
        }
        for (id, sound) in (0..).zip(sound) {
            if !sound {
                let what = "what the journal adds is not checked: the checkpoint it would be added to is doubtful";
                self.say(Finding::note("not-checked", crate::catalogue::directory(id), what).of_container(id));
            }
        }
        for (id, what) in replay.contradictions {
            self.say(Finding::doubt("contradiction", journal::DIRECTORY, what).of_container(id));
        }
        self.summary.records = replay.records;
        self.judge_journal(&state, slots, &witness);
        Ok(())
    }

    fn judge_journal(&mut self, state: &JournalState, slots: Slots, witness: &Witness) {
        let summary = &mut self.summary;
        (summary.journal_files, summary.journal_frame) = (state.files, state.frame);
        (summary.torn_bytes, summary.is_closed) = (state.torn_bytes, state.is_closed && state.torn_bytes == 0);
        self.known = state.known;
        for (path, range) in &state.rubbish {
            self.curable += 1;
            self.say(Finding::of_error(&StoreError::damaged(path, range.start, "there should be zeros")));
        }
        for (path, ranges) in repair::by_file(&state.rubbish) {
            self.remedy("damaged", path, Cure::Zero(ranges));
        }
        if state.torn_bytes > 0 && state.is_sound {
            let what = format!("{} bytes behind frame {} were never acknowledged", state.torn_bytes, state.frame);
            self.say(Finding::note("torn-tail", journal::DIRECTORY, what));
            for (path, ranges) in repair::by_file(&state.torn) {
                self.remedy("torn-tail", path, Cure::Zero(ranges));
            }
        }
        let file = journal::WITNESS_PATH;
        if slots.is_there && slots.intact == 0 {
            self.say(Finding::doubt(
                "witness",
                file,
                "no slot testifies: a journal that was cut off would not be noticed",
            ));
        } else if slots.damaged > 0 {
            let what = format!("one slot is torn, the other testifies to frame {}", witness.frame);
            self.say(Finding::note("witness", file, what));
            self.remedy("witness", file, Cure::Repeat);
        } else if !slots.is_there && state.newest_file > 1 {
            self.say(Finding::doubt("missing", file, "nothing testifies to the journal's end"));
        }
    }
}

/// Containers that are given what the journal has, as at a start.
#[derive(Default)]
struct Replay {
    /// `None`: not judged any further.
    containers: Vec<Option<Container<NoToken>>>,
    contradictions: Vec<(u32, String)>,
    records: u64,
}

impl Replay {
    fn take(&mut self, record: &journal::Replayed<'_>) -> Result<(), StoreError> {
        let id = record.container;
        let Some(place) = self.containers.get_mut(id as usize) else {
            let what = format!("record of container {id}, the store has {}", self.containers.len());
            return Err(StoreError::damaged(journal::DIRECTORY, 0, what));
        };
        let Some(mut container) = place.take() else { return Ok(()) };
        // A container asserts what only another container or its own past could have broken; here that is a finding.
        let replayed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            container.replay(record.sequence, record.operation, record.payload).map(|()| container)
        }));
        self.records += 1;
        match replayed {
            Ok(Ok(container)) => *place = Some(container),
            Ok(Err(error @ StoreError::Unreachable { .. })) => return Err(error),
            Ok(Err(error)) => self.contradictions.push((id, error.to_string())),
            Err(panic) => {
                let said = panic.downcast_ref::<String>().map(String::as_str);
                let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("an invariant is broken");
                let what = format!("operation {} does not fit the checkpoint: {said}", record.sequence);
                self.contradictions.push((id, what));
            }
        }
        Ok(())
    }
}
