//! A disk that keeps exactly the promises of [`headwater_engine::io::Disk`] and no other.
//!
//! What may happen at a power cut: of each write since the last completed sync of its file nothing, all, or an
//! arbitrary subset of its 512-byte sectors is found, some filled with garbage, and un-synced writes have no order;
//! a creation, renaming or removal is found only if its directory was synced since, a length only if the file was,
//! otherwise either way. Beyond power cuts: errors at chosen calls, failing syncs, a full disk, rot.
//!
//! Everything follows from the seed and the calls made: same seed and same calls, same bytes and same [`SimDisk::trace`].
//!
//! Every call of either trait is counted, from 0. A call that changes something, syncs included, is an *I/O boundary*:
//! [`SimDisk::record`] takes an [`Image`] just before it, and [`Image::power_cut`] and [`Image::process_kill`] turn that
//! into the disk that a restarted program finds. Nothing is lost by looking only there: a call that was under way counts
//! as done and un-synced one boundary later.

mod bucket;
mod content;
mod image;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{Error, ErrorKind, Result};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater_engine::io::{Disk, File};

use crate::chance::Chance;
pub use bucket::SimBucket;
pub(crate) use content::SECTOR;
use content::{Content, Data};
pub use image::AfterFailedSync;
use image::{Inode, State};

/// A simulated disk; clones share it.
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Mutex<Inner>>,
}

struct Inner {
    state: State,
    /// How many handles lead to each file.
    handles: BTreeMap<Inode, u64>,
    chance: Chance,
    faults: Faults,
    crashed: bool,
    counts: Counts,
    trace: u64,
    recording: Option<Recording>,
    /// The newest write of each file: number of the call, and bytes.
    writes: BTreeMap<Inode, (u64, Range<u64>)>,
}

/// What goes wrong, and when. Calls are counted from 0; see [`SimDisk::counts`].
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// This call and every later one fails with [`Crashed`]: the program is dead and does not know it.
    pub crash_at_call: Option<u64>,
    /// The same, but if this call is a write, its first sectors arrive: none, all, or anything between.
    pub torn_at_call: Option<u64>,
    /// These calls fail with `EIO`. A write may have happened in part; a sync has failed as in `fail_sync`.
    pub error_at_calls: BTreeSet<u64>,
    /// These calls find no room, if they would take some: they create or lengthen nothing and fail with `StorageFull`.
    pub full_at_calls: BTreeSet<u64>,
    /// These syncs (of files and directories, counted together) fail.
    pub fail_syncs: BTreeSet<u64>,
    /// What reads show afterwards.
    pub after_failed_sync: AfterFailedSync,
    /// Most bytes all files together may have, holes included. A write that would exceed it stores what fits and fails
    /// with `StorageFull`; overwriting always works.
    pub capacity: Option<u64>,
    /// From this call on nothing can be changed: every such call fails with `EROFS`, as when a file system protects itself.
    pub read_only_from_call: Option<u64>,
    /// Of 1000 requests to the bucket that change or list something so many get no answer.
    pub remote_per_mille: u64,
    /// Bytes of files that cannot be read: every read that touches them fails with `EIO`, for ever.
    pub unreadable: Vec<(String, Range<u64>)>,
}

/// How much was asked of a disk.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// All calls.
    pub calls: u64,
    /// Those that change something or sync.
    pub boundaries: u64,
    /// Syncs of files and directories.
    pub syncs: u64,
}

/// The error of every call after the crash.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the simulated machine has crashed")]
pub struct Crashed;

impl Crashed {
    /// Whether this is the cause of an I/O error.
    pub fn caused(error: &Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }
}

/// Which boundaries leave an image behind.
struct Recording {
    chance: Chance,
    /// Of 1000 boundaries so many.
    per_mille: u64,
    images: Vec<Image>,
}

/// A disk as it was just before one of its I/O boundaries. Cheap to keep and to copy.
#[derive(Clone)]
pub struct Image {
    state: State,
    /// What was asked of the disk before that moment.
    pub counts: Counts,
}

impl Image {
    /// The disk after a power cut at that moment. Each seed loses something else.
    pub fn power_cut(&self, seed: u64) -> SimDisk {
        let mut chance = Chance::new(seed);
        SimDisk::holding(self.state.power_cut(&mut chance), chance)
    }

    /// The disk after the program was killed at that moment and the machine lives on: everything is visible, and what
    /// was in doubt still is. A failed sync is not forgiven.
    pub fn process_kill(&self, seed: u64) -> SimDisk {
        SimDisk::holding(self.state.process_kill(), Chance::new(seed))
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl SimDisk {
    /// An empty disk.
    pub fn new(seed: u64) -> Self {
        Self::holding(State::default(), Chance::new(seed))
    }

    fn holding(state: State, chance: Chance) -> Self {
        let inner = Inner {
            state,
            handles: BTreeMap::new(),
            chance,
            faults: Faults::default(),
            crashed: false,
            counts: Counts::default(),
            trace: 0,
            recording: None,
            writes: BTreeMap::new(),
        };
        Self { shared: Arc::new(Mutex::new(inner)) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic of the program under test must not hide the disk it leaves behind.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the planned faults.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// What was asked so far.
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// A hash over every call so far: kind, path, offset, length and content.
    pub fn trace(&self) -> u64 {
        self.lock().trace
    }

    /// From now on every call fails with [`Crashed`].
    pub fn crash(&self) {
        self.lock().crashed = true;
    }

    /// Whether it has crashed.
    pub fn is_crashed(&self) -> bool {
        self.lock().crashed
    }

    /// The disk as it is now.
    pub fn image(&self) -> Image {
        let inner = self.lock();
        Image { state: inner.state.clone(), counts: inner.counts }
    }

    /// From now on keeps an image before each boundary, or of `per_mille` out of 1000 of them, chosen by `seed`.
    /// Collect them with [`take_images`](Self::take_images).
    pub fn record(&self, per_mille: u64, seed: u64) {
        self.lock().recording = Some(Recording { chance: Chance::new(seed), per_mille, images: Vec::new() });
    }

    /// The images recorded since the last time.
    pub fn take_images(&self) -> Vec<Image> {
        self.lock().recording.as_mut().map_or_else(Vec::new, |recording| std::mem::take(&mut recording.images))
    }

    /// Paths of all files that have a name, sorted.
    pub fn paths(&self) -> Vec<String> {
        self.lock().state.paths().map(|(path, _)| path.to_owned()).collect()
    }

    /// Visible bytes of a file; not counted as a call.
    pub fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        let inner = self.lock();
        Ok(inner.state.content(inner.state.find(path)?).to_vec())
    }

    /// Overwrites stored bytes behind the program's back, as rot does; not counted as a call.
    pub fn damage(&self, path: &str, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut inner = self.lock();
        let inode = inner.state.find(path)?;
        inner.state.damage(inode, offset, bytes);
        Ok(())
    }

    /// Cuts a file behind the program's back; not counted as a call.
    pub fn cut(&self, path: &str, length: u64) -> Result<()> {
        let mut inner = self.lock();
        let inode = inner.state.find(path)?;
        inner.state.cut(inode, length);
        Ok(())
    }

    /// Removes a file behind the program's back; not counted as a call.
    pub fn vanish(&self, path: &str) -> Result<()> {
        let mut inner = self.lock();
        inner.state.find(path)?;
        inner.state.vanish(path);
        Ok(())
    }

    /// Length of a file; not counted as a call.
    pub fn length(&self, path: &str) -> Result<u64> {
        let inner = self.lock();
        Ok(inner.state.content(inner.state.find(path)?).length())
    }

    /// Some bytes of a file, fewer at its end; not counted as a call.
    pub fn part(&self, path: &str, range: Range<u64>) -> Result<Vec<u8>> {
        let inner = self.lock();
        let content = inner.state.content(inner.state.find(path)?);
        Ok(part_of(content, range))
    }

    /// The newest write of a file on this disk: number of the call, and bytes.
    pub fn last_write(&self, path: &str) -> Option<(u64, Range<u64>)> {
        let inner = self.lock();
        inner.state.find(path).ok().and_then(|inode| inner.writes.get(&inode).cloned())
    }

    /// Paths of files that are not what they were: changed, new or gone.
    pub fn changed_since(&self, image: &Image) -> Vec<String> {
        let inner = self.lock();
        let (now, then): (BTreeMap<_, _>, BTreeMap<_, _>) =
            (inner.state.paths().collect(), image.state.paths().collect());
        let differs = |path: &&str| match (now.get(path), then.get(path)) {
            (Some(one), Some(other)) => !inner.state.content(*one).is_same(image.state.content(*other)),
            _ => true,
        };
        let all: BTreeSet<&str> = now.keys().chain(then.keys()).copied().collect();
        all.into_iter().filter(differs).map(str::to_owned).collect()
    }

    /// Bytes that the file now at `path` had in an older image; zeros if the file is younger.
    pub fn earlier(&self, path: &str, range: Range<u64>, older: &Image) -> Result<Vec<u8>> {
        let inner = self.lock();
        let inode = inner.state.find(path)?;
        let length = part_of(inner.state.content(inode), range.clone()).len();
        let mut bytes = older.state.known(inode).map_or_else(Vec::new, |content| part_of(content, range));
        bytes.resize(length, 0);
        Ok(bytes)
    }

    fn handle(&self, inner: &mut Inner, inode: Inode, path: &str) -> Arc<dyn File> {
        *inner.handles.entry(inode).or_default() += 1;
        Arc::new(SimFile { disk: self.clone(), inode, path: path.to_owned() })
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.lock();
        f.debug_struct("SimDisk")
            .field("counts", &inner.counts)
            .field("crashed", &inner.crashed)
            .finish_non_exhaustive()
    }
}

/// Kinds of calls, as the trace knows them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Create,
    Open,
    Rename,
    Remove,
    List,
    CreateDirectory,
    SyncDirectory,
    Read,
    Write,
    Sync,
    SetLength,
    Length,
    Put,
    Delete,
}

impl Kind {
    fn is_boundary(self) -> bool {
        !matches!(self, Self::Open | Self::List | Self::Read | Self::Length)
    }

    fn is_sync(self) -> bool {
        matches!(self, Self::Sync | Self::SyncDirectory)
    }
}

fn part_of(content: &Content, range: Range<u64>) -> Vec<u8> {
    let end = range.end.min(content.length());
    let mut bytes = vec![0; end.saturating_sub(range.start) as usize];
    assert!(content.read(range.start.min(end), &mut bytes), "a file is as long as it says");
    bytes
}

/// How a call is to fail.
enum Injected {
    Error,
    Sync,
    /// The program dies in the middle of it, which is a write.
    Crash,
}

impl Inner {
    /// Counts, traces and records a call. Says whether it is to fail.
    fn begin(&mut self, kind: Kind, path: &str, numbers: [u64; 2], data: &[u8]) -> Result<Option<Injected>> {
        let call = self.counts.calls;
        let is_last = self.faults.torn_at_call == Some(call);
        if self.crashed || self.faults.crash_at_call.is_some_and(|at| call >= at) || is_last && kind != Kind::Write {
            self.crashed = true;
            return Err(Error::other(Crashed));
        }
        self.mix(kind as u64);
        self.mix(u64::from(crc32c::crc32c(path.as_bytes())));
        self.mix(numbers[0]);
        self.mix(numbers[1]);
        self.mix(u64::from(crc32c::crc32c(data)));
        if kind.is_boundary() {
            if let Some(recording) = &mut self.recording
                && recording.chance.below(1000) < recording.per_mille
            {
                recording.images.push(Image { state: self.state.clone(), counts: self.counts });
            }
            self.counts.boundaries += 1;
        }
        self.counts.calls += 1;
        let sync = self.counts.syncs;
        self.counts.syncs += u64::from(kind.is_sync());
        if is_last {
            self.crashed = true;
            return Ok(Some(Injected::Crash));
        }
        if kind.is_boundary() && self.faults.read_only_from_call.is_some_and(|from| call >= from) {
            return Err(Error::from_raw_os_error(EROFS));
        }
        if self.faults.error_at_calls.contains(&call) {
            return Ok(Some(if kind.is_sync() { Injected::Sync } else { Injected::Error }));
        }
        Ok((kind.is_sync() && self.faults.fail_syncs.contains(&sync)).then_some(Injected::Sync))
    }

    /// As [`begin`](Self::begin), for calls that do nothing at all when they fail.
    fn begin_or_fail(&mut self, kind: Kind, path: &str, numbers: [u64; 2]) -> Result<()> {
        match self.begin(kind, path, numbers, &[])? {
            Some(_) => Err(io_error()),
            None => Ok(()),
        }
    }

    fn mix(&mut self, value: u64) {
        let mixed = (self.trace ^ value).wrapping_mul(0x9fb2_1c65_1e98_df25);
        self.trace = mixed ^ (mixed >> 29);
    }

    /// Whether the call that has begun finds no room, however much there is.
    fn is_full_now(&self) -> bool {
        self.faults.full_at_calls.contains(&(self.counts.calls - 1))
    }

    /// Bytes by which `inode` may grow to `length`.
    fn room(&self, inode: Inode, length: u64) -> u64 {
        let now = self.state.content(inode).length();
        match self.faults.capacity {
            _ if self.is_full_now() => 0,
            Some(capacity) if length > now => {
                let used = self.state.used(|inode| self.handles.contains_key(&inode));
                (length - now).min(capacity.saturating_sub(used))
            }
            _ => length.saturating_sub(now),
        }
    }
}

const EROFS: i32 = 30;

/// `EIO`.
fn io_error() -> Error {
    Error::from_raw_os_error(5)
}

impl Disk for SimDisk {
    fn create(&self, path: &str) -> Result<Arc<dyn File>> {
        let mut inner = self.lock();
        inner.begin_or_fail(Kind::Create, path, [0; 2])?;
        if inner.is_full_now() {
            return Err(ErrorKind::StorageFull.into());
        }
        let inode = inner.state.create(path)?;
        Ok(self.handle(&mut inner, inode, path))
    }

    fn open(&self, path: &str) -> Result<Arc<dyn File>> {
        let mut inner = self.lock();
        inner.begin_or_fail(Kind::Open, path, [0; 2])?;
        let inode = inner.state.find(path)?;
        Ok(self.handle(&mut inner, inode, path))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let mut inner = self.lock();
        inner.begin_or_fail(Kind::Rename, from, [u64::from(crc32c::crc32c(to.as_bytes())), 0])?;
        inner.state.rename(from, to)
    }

    fn remove(&self, path: &str) -> Result<()> {
        let mut inner = self.lock();
        inner.begin_or_fail(Kind::Remove, path, [0; 2])?;
        inner.state.remove(path)
    }

    fn list(&self, directory: &str) -> Result<Vec<String>> {
        let mut inner = self.lock();
        inner.begin_or_fail(Kind::List, directory, [0; 2])?;
        Ok(inner.state.list(directory))
    }

    fn create_directory(&self, directory: &str) -> Result<()> {
        let mut inner = self.lock();
        inner.begin_or_fail(Kind::CreateDirectory, directory, [0; 2])?;
        if inner.is_full_now() {
            return Err(ErrorKind::StorageFull.into());
        }
        inner.state.create_directory(directory)
    }

    fn sync_directory(&self, directory: &str) -> Result<()> {
        let mut inner = self.lock();
        if inner.begin(Kind::SyncDirectory, directory, [0; 2], &[])?.is_some() {
            return Err(io_error());
        }
        let Inner { state, handles, .. } = &mut *inner;
        state.sync_directory(directory, |inode| handles.contains_key(&inode))
    }
}

/// An open file; dropping it closes it.
struct SimFile {
    disk: SimDisk,
    inode: Inode,
    path: String,
}

impl File for SimFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let mut inner = self.disk.lock();
        inner.begin_or_fail(Kind::Read, &self.path, [offset, buffer.len() as u64])?;
        let read = offset..offset.saturating_add(buffer.len() as u64);
        let touches =
            |(path, bad): &(String, Range<u64>)| *path == self.path && bad.start < read.end && read.start < bad.end;
        if inner.faults.unreadable.iter().any(touches) {
            return Err(io_error());
        }
        match inner.state.content(self.inode).read(offset, buffer) {
            true => Ok(()),
            false => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut inner = self.disk.lock();
        let injected = inner.begin(Kind::Write, &self.path, [offset, data.len() as u64], data)?;
        let Some(end) = offset.checked_add(data.len() as u64) else { return Err(ErrorKind::InvalidInput.into()) };
        let length = inner.state.content(self.inode).length();
        let missing = (end.saturating_sub(length) - inner.room(self.inode, end)) as usize;
        let mut arrived = data.len() - missing.min(data.len());
        if injected.is_some() {
            let sectors = inner.chance.index(arrived.div_ceil(SECTOR) + 1);
            arrived = arrived.min(sectors * SECTOR);
        }
        inner.state.write(self.inode, offset, Data::of(&data[..arrived]));
        let call = inner.counts.calls - 1;
        inner.writes.insert(self.inode, (call, offset..end));
        match injected {
            Some(Injected::Crash) => Err(Error::other(Crashed)),
            Some(Injected::Error | Injected::Sync) => Err(io_error()),
            None if missing > 0 => Err(ErrorKind::StorageFull.into()),
            None => Ok(()),
        }
    }

    fn sync(&self) -> Result<()> {
        let mut inner = self.disk.lock();
        if inner.begin(Kind::Sync, &self.path, [0; 2], &[])?.is_some() {
            let Inner { state, chance, faults, .. } = &mut *inner;
            state.fail_sync(self.inode, faults.after_failed_sync, chance);
            return Err(io_error());
        }
        inner.state.sync(self.inode);
        Ok(())
    }

    fn set_length(&self, length: u64) -> Result<()> {
        let mut inner = self.disk.lock();
        inner.begin_or_fail(Kind::SetLength, &self.path, [length, 0])?;
        let now = inner.state.content(self.inode).length();
        if length.saturating_sub(now) > inner.room(self.inode, length) {
            return Err(ErrorKind::StorageFull.into());
        }
        inner.state.set_length(self.inode, length);
        Ok(())
    }

    fn length(&self) -> Result<u64> {
        let mut inner = self.disk.lock();
        inner.begin_or_fail(Kind::Length, &self.path, [0; 2])?;
        Ok(inner.state.content(self.inode).length())
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut inner = self.disk.lock();
        if let Some(count) = inner.handles.get_mut(&self.inode) {
            *count -= 1;
            if *count == 0 {
                inner.handles.remove(&self.inode);
            }
        }
    }
}
