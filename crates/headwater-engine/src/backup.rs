//! A consistent image of the store while it goes on, for a backup.
//!
//! ```text
//!   checkpoint everything ─► hold the journal's files ─► manifests, runs, chunks as of one instant ─► end of the journal
//! ```
//!
//! An image is what a machine that died at one instant would leave behind: recovery brings it to exactly the operations
//! of the journal's frames up to [`Image::frame`], in all containers alike, since they share the journal. Everything
//! that was acknowledged before the image was begun is among them.
//!
//! Invariants:
//! * while an image lives, no file it names is removed or written to: chunks and runs are never rewritten, their removal
//!   waits ([`PinnedDisk`]), and journal files are not recycled ([`Pins::unless_held`])
//! * no manifest is replaced and nothing removed while an image's files are being noted ([`Pins::note`])
//! * dropping the image removes what waited; a process that dies before has its next start tidy up
//!
//! Not here: who may have an image and for how long; that is the server's business.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Result as IoResult;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;

use crate::catalogue::{self, RunCache};
use crate::chunks;
use crate::container;
use crate::error::{IoContext, StoreError};
use crate::io::{Content, Disk, File, Objects, RemoteUsage};
use crate::journal;
use crate::store::{self, Identity};

/// Blocks of a catalogue that are kept in memory while it is gone through.
const CACHE_BYTES: usize = 1 << 20;

/// Between two steps of deleting a chunk, so that commits beside it are not delayed.
const DELETE_PAUSE: Duration = Duration::from_millis(6);

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Images pin disk space; one at a time is enough.
    #[error("another backup is under way")]
    UnderWay,
    /// The disk refused, or what it has is damaged.
    #[error("store cannot be read")]
    Store(#[from] StoreError),
}

/// A file of an image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ImageFile {
    /// Name, relative to the data directory; its directory is the part before the `/`.
    pub name: String,
    /// Length in bytes.
    pub length: u64,
}

/// Where the bytes of a file come from.
#[derive(Clone, Debug)]
enum Source {
    /// As they stand on the disk; only so many of them, followed by zeros.
    Disk(u64),
    /// An object.
    Chunk,
    /// Noted when the image was made.
    Noted(Arc<[u8]>),
}

/// A consistent image; what it names stays until it is dropped.
pub struct Image {
    pins: Arc<Pins>,
    disk: Arc<dyn Disk>,
    objects: Arc<dyn Objects>,
    /// Number of the store.
    pub store: u128,
    /// Newest journal frame that is part of it.
    pub frame: u64,
    files: BTreeMap<String, (u64, Source)>,
    after: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image").field("frame", &self.frame).field("files", &self.files.len()).finish_non_exhaustive()
    }
}

impl Image {
    /// Notes what belongs to the store at this instant and holds it. `after` is called once it is let go.
    pub(crate) fn take(
        pins: Arc<Pins>,
        disk: Arc<dyn Disk>,
        objects: Arc<dyn Objects>,
        after: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, ImageError> {
        let identity = Identity::read(&*disk)?.ok_or_else(|| StoreError::damaged(store::PATH, 0, "store is gone"))?;
        pins.hold()?;
        // From here on dropping the image lets everything go again.
        let mut image = Self {
            pins,
            disk,
            objects,
            store: identity.store,
            frame: 0,
            files: BTreeMap::new(),
            after: Box::new(after),
        };
        let mut files = image.pins.note(&image.disk, &*image.objects, identity.containers)?;
        let length = image.disk.open(store::PATH).and_then(|file| file.length()).on(store::PATH, "measure")?;
        files.insert(store::PATH.into(), (length, Source::Disk(length)));
        // After the manifests: the journal then holds every operation they include.
        let ends = journal::ends(&*image.disk, identity.store, identity.journal_file_bytes)?;
        for (path, end) in ends.files {
            files.insert(path, (identity.journal_file_bytes, Source::Disk(end)));
        }
        if ends.frame > 0 {
            let testimony = journal::testimony(identity.store, ends.frame);
            files.insert(journal::WITNESS_PATH.into(), (testimony.len() as u64, Source::Noted(testimony.into())));
        }
        (image.frame, image.files) = (ends.frame, files);
        Ok(image)
    }

    /// Its files with names after `after`, in order.
    pub fn files(&self, after: &str) -> impl Iterator<Item = ImageFile> {
        let range = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        self.files.range::<str, _>(range).map(|(name, (length, _))| ImageFile { name: name.clone(), length: *length })
    }

    /// Number of its files.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether it has no files; it always has.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Bytes in all its files.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|(length, _)| length).sum()
    }

    /// Length of a file; `None` if it is not part of the image.
    pub fn length(&self, name: &str) -> Option<u64> {
        self.files.get(name).map(|(length, _)| *length)
    }

    /// At most `bytes_max` bytes of a file from `offset` on; empty at its end. Blocks on the disk.
    ///
    /// # Errors
    /// `None` if it has no such file. Those of the disk.
    pub fn read(&self, name: &str, offset: u64, bytes_max: usize) -> Option<Result<Vec<u8>, StoreError>> {
        let (length, source) = self.files.get(name)?;
        let wanted = length.saturating_sub(offset).min(bytes_max as u64) as usize;
        let mut bytes = vec![0; wanted];
        match source {
            Source::Noted(noted) => {
                let from = offset.min(*length) as usize;
                bytes.copy_from_slice(&noted[from..from + wanted]);
            }
            Source::Chunk => match self.objects.get(name, offset, wanted) {
                Ok(found) => bytes.copy_from_slice(&found),
                Err(error) => return Some(Err(error)),
            },
            Source::Disk(end) => {
                let there = end.saturating_sub(offset).min(wanted as u64) as usize;
                let read = self
                    .disk
                    .open(name)
                    .on(name, "open")
                    .and_then(|file| file.read_at(offset, &mut bytes[..there]).on(name, "read"));
                if let Err(error) = read {
                    return Some(Err(error));
                }
            }
        }
        Some(Ok(bytes))
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        self.pins.let_go(&*self.disk, &*self.objects);
        (self.after)();
    }
}

/// What is held for an image. Shared by the disk that the store sees and the journal.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    /// Journal files are not given up. A lock of its own: commits must not wait while files are being noted.
    is_held: Mutex<bool>,
    state: Mutex<Pinned>,
}

#[derive(Debug, Default)]
struct Pinned {
    runs: BTreeSet<String>,
    chunks: BTreeSet<String>,
    /// Removals that wait.
    runs_waiting: Vec<String>,
    chunks_waiting: BTreeSet<String>,
}

impl Pins {
    fn state(&self) -> MutexGuard<'_, Pinned> {
        self.state.lock().expect("no holder of the pins panics")
    }

    /// Gives up journal files, unless an image needs them.
    pub(crate) fn unless_held(&self, release: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
        // Held on to: an image must not begin in the middle of it.
        let is_held = self.held();
        if *is_held { Ok(()) } else { release() }
    }

    fn held(&self) -> MutexGuard<'_, bool> {
        self.is_held.lock().expect("no holder of the pins panics")
    }

    /// Holds the journal, unless it is held already.
    fn hold(&self) -> Result<(), ImageError> {
        let mut is_held = self.held();
        if std::mem::replace(&mut *is_held, true) { Err(ImageError::UnderWay) } else { Ok(()) }
    }

    /// Notes manifests, runs and chunks of one instant, and pins them.
    fn note(
        &self,
        disk: &Arc<dyn Disk>,
        objects: &dyn Objects,
        containers: u32,
    ) -> Result<BTreeMap<String, (u64, Source)>, ImageError> {
        let mut files = BTreeMap::new();
        let mut state = self.state();
        for id in 0..containers {
            let path = catalogue::manifest_path(id);
            let noted = read_whole(&**disk, &path)?;
            files.insert(path, (noted.len() as u64, Source::Noted(noted.into())));
            let (catalogue, manifest) = catalogue::open(&**disk, id, &RunCache::new(CACHE_BYTES))?;
            state.runs.extend(manifest.run_paths());
            state.chunks.extend(container::chunks_of(&catalogue)?.map(|chunk| chunks::path_of(id, chunk)));
        }
        let (runs, chunks) = (state.runs.clone(), state.chunks.clone());
        drop(state);
        // They stay from here on, so this may take its time.
        for path in runs {
            let length = disk.open(&path).and_then(|file| file.length()).on(&path, "measure")?;
            files.insert(path, (length, Source::Disk(length)));
        }
        for id in 0..containers {
            let place = chunks::directory(id);
            // One question for all of them: where a question takes long, there may be many chunks.
            for (name, length) in objects.lengths(&place)? {
                let name = format!("{place}/{name}");
                if chunks.contains(&name) {
                    files.insert(name, (length, Source::Chunk));
                }
            }
        }
        if let Some(missing) = chunks.iter().find(|name| !files.contains_key(*name)) {
            return Err(StoreError::damaged(missing, 0, "chunk is missing").into());
        }
        Ok(files)
    }

    fn let_go(&self, disk: &dyn Disk, objects: &dyn Objects) {
        let Pinned { runs_waiting, chunks_waiting, .. } = std::mem::take(&mut *self.state());
        *self.held() = false;
        for path in runs_waiting {
            match disk.remove(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(path, %error, "could not remove a run that a backup had needed");
                }
                _ => {}
            }
        }
        let (_open, timer) = channel::<()>();
        for name in chunks_waiting {
            objects.give_up(&name);
            let mut pause = || {
                let _ = timer.recv_timeout(DELETE_PAUSE);
            };
            if let Err(error) = objects.delete(&name, &mut pause) {
                tracing::warn!(name, %error, "could not delete a chunk that a backup had needed");
            }
        }
    }
}

fn read_whole(disk: &dyn Disk, path: &str) -> Result<Vec<u8>, StoreError> {
    let file = disk.open(path).on(path, "open")?;
    let mut bytes = vec![0; file.length().on(path, "measure")? as usize];
    file.read_at(0, &mut bytes).on(path, "read")?;
    Ok(bytes)
}

/// The store's disk, on which removing what an image needs waits until the image is gone.
pub(crate) struct PinnedDisk {
    disk: Arc<dyn Disk>,
    pins: Arc<Pins>,
}

impl PinnedDisk {
    pub(crate) fn new(disk: Arc<dyn Disk>, pins: Arc<Pins>) -> Self {
        Self { disk, pins }
    }
}

impl Disk for PinnedDisk {
    fn create(&self, path: &str) -> IoResult<Arc<dyn File>> {
        self.disk.create(path)
    }

    fn open(&self, path: &str) -> IoResult<Arc<dyn File>> {
        self.disk.open(path)
    }

    fn open_direct(&self, path: &str) -> IoResult<Arc<dyn File>> {
        self.disk.open_direct(path)
    }

    fn rename(&self, from: &str, to: &str) -> IoResult<()> {
        // No manifest changes while an image is being noted.
        let _noting = to.starts_with("catalogue-").then(|| self.pins.state());
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &str) -> IoResult<()> {
        if path.starts_with("catalogue-") {
            let mut state = self.pins.state();
            if state.runs.contains(path) {
                state.runs_waiting.push(path.to_owned());
                return Ok(());
            }
        }
        // What no manifest names any more is in no image to come, so nobody has to wait for this.
        self.disk.remove(path)
    }

    fn list(&self, directory: &str) -> IoResult<Vec<String>> {
        self.disk.list(directory)
    }

    fn create_directory(&self, directory: &str) -> IoResult<()> {
        self.disk.create_directory(directory)
    }

    fn forget_cached(&self, path: &str) {
        self.disk.forget_cached(path);
    }

    fn sync_directory(&self, directory: &str) -> IoResult<()> {
        self.disk.sync_directory(directory)
    }
}

/// Where the store's chunks are; deleting what an image needs waits until the image is gone.
#[derive(Debug)]
pub(crate) struct PinnedObjects {
    objects: Arc<dyn Objects>,
    pins: Arc<Pins>,
}

impl PinnedObjects {
    pub(crate) fn new(objects: Arc<dyn Objects>, pins: Arc<Pins>) -> Self {
        Self { objects, pins }
    }

    /// True if the chunk is pinned; it is then deleted later.
    fn waits(&self, name: &str) -> bool {
        let mut state = self.pins.state();
        let is_pinned = state.chunks.contains(name);
        if is_pinned {
            state.chunks_waiting.insert(name.to_owned());
        }
        is_pinned
    }
}

impl Objects for PinnedObjects {
    fn put(&self, name: &str, content: Content<'_>, pause: &mut dyn FnMut()) -> Result<(), StoreError> {
        self.objects.put(name, content, pause)
    }

    fn get(&self, name: &str, offset: u64, length: usize) -> Result<Bytes, StoreError> {
        self.objects.get(name, offset, length)
    }

    fn length(&self, name: &str) -> Result<u64, StoreError> {
        self.objects.length(name)
    }

    fn give_up(&self, name: &str) {
        if !self.waits(name) {
            self.objects.give_up(name);
        }
    }

    fn delete(&self, name: &str, pause: &mut dyn FnMut()) -> Result<(), StoreError> {
        if self.waits(name) { Ok(()) } else { self.objects.delete(name, pause) }
    }

    fn list(&self, directory: &str) -> Result<Vec<String>, StoreError> {
        self.objects.list(directory)
    }

    fn lengths(&self, directory: &str) -> Result<Vec<(String, u64)>, StoreError> {
        self.objects.lengths(directory)
    }

    fn is_empty(&self) -> Result<bool, StoreError> {
        self.objects.is_empty()
    }

    fn ahead_bytes(&self) -> u64 {
        self.objects.ahead_bytes()
    }

    fn parallel(&self) -> usize {
        self.objects.parallel()
    }

    fn remote_usage(&self) -> Option<RemoteUsage> {
        self.objects.remote_usage()
    }
}
