//! Making a frozen map durable, and finding the newest checkpoint again.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use crate::canary;
use crate::codec::{Decoder, Encoder, Malformed};
use crate::error::{IoContext, StoreError, verify_sum};
use crate::io::Disk;

use super::cache::RunCache;
use super::merge::{MERGE_RATIO, Walk};
use super::run::Run;
use super::writer::RunWriter;
use super::{Catalogue, Entries, Scan, Snapshot};

const MAGIC: &[u8; 8] = b"HWMANIF\x01";
const FORMAT: u32 = 1;
/// Runs up to this together are merged by the checkpoint itself: it costs less than one more file. Longer ones would hold
/// it up, and with it every write that waits for memory; they are merged beside it ([`Merge`](super::Merge)).
const MERGED_AT_ONCE_BYTES: u64 = 4 << 20;

/// What a checkpoint includes, and the numbers that must not be used twice.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Position {
    /// Last operation of the container that is included.
    pub(crate) sequence: u64,
    /// Next segment id.
    pub(crate) next_segment: u64,
    /// Next chunk file.
    pub(crate) next_chunk: u64,
}

/// The durable root of a container's catalogue.
#[derive(Clone)]
pub(crate) struct Manifest {
    pub(crate) container: u32,
    pub(crate) position: Position,
    pub(super) next_run: u64,
    /// Oldest first.
    pub(super) runs: Vec<Arc<Run>>,
    pub(super) cache: Arc<RunCache>,
    /// The newest of the runs that are being merged beside checkpoints, if any are.
    pub(super) merging: Option<u64>,
}

/// A manifest as it stands in its file.
#[derive(Debug, Default)]
pub(crate) struct StoredManifest {
    pub(crate) position: Position,
    next_run: u64,
    /// Numbers of the runs, oldest first.
    pub(crate) runs: Vec<u64>,
}

/// A checkpoint's work, to be done away from the container.
pub(crate) struct Checkpoint {
    /// What is older than what was frozen.
    pub(crate) runs: Snapshot,
    pub(crate) frozen: Arc<Entries>,
}

/// Runs that are durable and named by the durable manifest.
pub(crate) struct Installed {
    pub(super) runs: Vec<Arc<Run>>,
}

/// Directory of a container's runs and manifest.
pub(crate) fn directory(container: u32) -> String {
    format!("catalogue-{container:04}")
}

/// Path of a run.
pub(crate) fn run_path(container: u32, number: u64) -> String {
    format!("{}/{number:016}.run", directory(container))
}

/// Path of a manifest.
pub(crate) fn manifest_path(container: u32) -> String {
    format!("{}/manifest", directory(container))
}

/// Makes the place and the first, empty manifest of a container. From then on a missing manifest is damage.
pub(crate) fn create(disk: &dyn Disk, container: u32) -> Result<(), StoreError> {
    let place = directory(container);
    disk.create_directory(&place).on(&place, "create")?;
    StoredManifest::default().store(disk, container)
}

/// Opens the newest checkpoint of a container. [`tidy`] follows.
pub(crate) fn open(
    disk: &dyn Disk,
    container: u32,
    cache: &Arc<RunCache>,
) -> Result<(Catalogue, Manifest), StoreError> {
    let stored = StoredManifest::read(disk, container)?;
    let open = |&number: &u64| Ok(Arc::new(open_run(disk, container, number, cache)?));
    let runs = stored.runs.iter().map(open).collect::<Result<Vec<_>, StoreError>>()?;
    let StoredManifest { position, next_run, .. } = stored;
    let cache = cache.clone();
    let manifest = Manifest { container, position, next_run, runs: runs.clone(), cache, merging: None };
    Ok((Catalogue::new(runs), manifest))
}

/// Opens a run and verifies its header, index and footer.
pub(crate) fn open_run(disk: &dyn Disk, container: u32, number: u64, cache: &Arc<RunCache>) -> Result<Run, StoreError> {
    Run::open(disk, container, run_path(container, number), number, cache.clone())
}

/// Removes files that the manifest does not name: they belong to a checkpoint that never became durable, or are left of
/// one that was replaced. Called once the whole store is known to be sound.
pub(crate) fn tidy(disk: &dyn Disk, container: u32, manifest: &Manifest) -> Result<(), StoreError> {
    let place = directory(container);
    // A killed process may have left a manifest whose name is not durable yet. Before anything it does not need is
    // removed, it must be.
    disk.sync_directory(&place).on(&place, "sync")?;
    let kept: BTreeSet<_> = manifest.runs.iter().map(|run| format!("{:016}.run", run.number)).collect();
    for name in disk.list(&place).on(&place, "list")? {
        if name != "manifest" && !kept.contains(&name) {
            let path = format!("{place}/{name}");
            disk.remove(&path).on(&path, "remove")?;
        }
    }
    Ok(())
}

impl Checkpoint {
    /// Live entries as of this checkpoint from `from` on, in key order.
    pub(crate) fn scan(&self, from: Bound<&[u8]>) -> Result<Scan<'_>, StoreError> {
        self.runs.scan(from, &self.frozen)
    }

    /// Writes what was frozen, together with `additions` (newer than anything frozen), and replaces the manifest.
    /// Afterwards the checkpoint at `position` is durable.
    pub(crate) fn write(
        &self,
        disk: &dyn Disk,
        manifest: &mut Manifest,
        position: Position,
        additions: &Entries,
    ) -> Result<Installed, StoreError> {
        let mut runs = manifest.runs.clone();
        let mut replaced = Vec::new();
        let mut made = None;
        if !self.frozen.is_empty() || !additions.is_empty() {
            let mut merged = 0;
            let mut size: u64 = self.frozen.iter().map(|(key, value)| entry_bytes(key, value.as_deref())).sum();
            while let Some(older) = runs.len().checked_sub(merged + 1).map(|at| &runs[at])
                && older.length <= size.saturating_mul(MERGE_RATIO)
                && size + older.length <= MERGED_AT_ONCE_BYTES
                && manifest.merging != Some(older.number)
            {
                size += older.length;
                merged += 1;
            }
            replaced = runs.split_off(runs.len() - merged);
            let number = manifest.take_number();
            let path = run_path(manifest.container, number);
            let written = self.write_run(disk, manifest, &path, number, additions, &replaced, runs.is_empty());
            match written {
                Ok(run) => runs.push(made.insert(Arc::new(run)).clone()),
                Err(error) => {
                    // The room of this attempt may be what the next one lacks.
                    let _ = disk.remove(&path);
                    return Err(error);
                }
            }
        }
        if let Err(error) = manifest.replace(disk, position, runs) {
            if error.is_full()
                && let Some(run) = made
            {
                let _ = disk.remove(run.path());
            }
            return Err(error);
        }
        remove_all(disk, &replaced);
        Ok(Installed { runs: manifest.runs.clone() })
    }

    /// `is_oldest`: nothing older remains, so removals have nothing left to hide.
    #[allow(clippy::too_many_arguments, reason = "all of it is one run's description, used once")]
    fn write_run(
        &self,
        disk: &dyn Disk,
        manifest: &Manifest,
        path: &str,
        number: u64,
        additions: &Entries,
        replaced: &[Arc<Run>],
        is_oldest: bool,
    ) -> Result<Run, StoreError> {
        let mut writer =
            RunWriter::create(disk, manifest.container, path.to_owned(), number, manifest.cache.clone(), true)?;
        let mut walk = Walk::new(&[additions, &self.frozen], replaced, is_oldest)?;
        while let Some((key, value)) = walk.next()? {
            writer.add(&key, value.as_deref())?;
        }
        writer.finish()
    }
}

fn entry_bytes(key: &[u8], value: Option<&[u8]>) -> u64 {
    (8 + key.len() + value.map_or(0, <[u8]>::len)) as u64
}

/// Removes the files of runs that no durable manifest names any more.
pub(super) fn remove_all(disk: &dyn Disk, runs: &[Arc<Run>]) {
    for run in runs {
        if let Err(error) = disk.remove(run.path()) {
            // The checkpoint stands; the next start tidies up.
            tracing::warn!(path = run.path(), %error, "could not remove a replaced run");
        }
    }
}

impl Manifest {
    /// Paths of the runs.
    pub(crate) fn run_paths(&self) -> impl Iterator<Item = String> {
        self.runs.iter().map(|run| run.path().to_owned())
    }

    /// The number of a new run.
    pub(super) fn take_number(&mut self) -> u64 {
        self.next_run += 1;
        self.next_run - 1
    }

    /// Makes other runs, and the position they include, the durable ones. Nothing has changed if it fails.
    pub(super) fn replace(
        &mut self,
        disk: &dyn Disk,
        position: Position,
        runs: Vec<Arc<Run>>,
    ) -> Result<(), StoreError> {
        let numbers = runs.iter().map(|run| run.number).collect();
        let stored = StoredManifest { position, next_run: self.next_run, runs: numbers };
        stored.store(disk, self.container)?;
        self.position = position;
        self.runs = runs;
        Ok(())
    }
}

impl StoredManifest {
    /// The manifest of a container.
    pub(crate) fn read(disk: &dyn Disk, container: u32) -> Result<Self, StoreError> {
        let place = directory(container);
        let names = disk.list(&place).on(&place, "list")?;
        let path = manifest_path(container);
        if !names.iter().any(|name| name == "manifest") {
            return Err(StoreError::damaged(&path, 0, "manifest is missing"));
        }
        let file = disk.open(&path).on(&path, "open")?;
        let mut bytes = vec![0; file.length().on(&path, "measure")? as usize];
        file.read_at(0, &mut bytes).on(&path, "read")?;
        Self::decode(&bytes, container, &path)
    }

    fn store(&self, disk: &dyn Disk, container: u32) -> Result<(), StoreError> {
        let mut out = Encoder::default();
        out.0.extend_from_slice(MAGIC);
        out.u32(FORMAT).u32(container);
        let Position { sequence, next_segment, next_chunk } = self.position;
        out.u64(sequence).u64(next_segment).u64(next_chunk).u64(self.next_run);
        out.u32(self.runs.len() as u32);
        for run in &self.runs {
            out.u64(*run);
        }
        let sum = crc32c::crc32c(&out.0);
        out.u32(sum);
        let place = directory(container);
        let (path, next) = (manifest_path(container), format!("{place}/manifest.next"));
        let file = match disk.create(&next) {
            // Left by a checkpoint that failed for want of space.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => disk.open(&next),
            made => made,
        }
        .on(&next, "create")?;
        file.set_length(out.0.len() as u64).on(&next, "cut")?;
        file.write_at(0, &out.0).on(&next, "write")?;
        file.sync().on(&next, "sync")?;
        // The new runs' names become durable with the same call, before or together with the manifest's.
        disk.sync_directory(&place).on(&place, "sync")?;
        disk.rename(&next, &path).on(&next, "rename")?;
        if canary::is(28) { Ok(()) } else { disk.sync_directory(&place).on(&place, "sync") }
    }

    fn decode(bytes: &[u8], container: u32, path: &str) -> Result<Self, StoreError> {
        let malformed = StoreError::malformed(path, 0);
        let mut input = Decoder::new(bytes);
        if input.take(8).map_err(&malformed)? != MAGIC {
            return Err(StoreError::damaged(path, 0, "not a manifest"));
        }
        let format = input.u32().map_err(&malformed)?;
        if format > FORMAT {
            return Err(StoreError::Newer { path: path.into(), found: format, known: FORMAT });
        }
        if !canary::is(22) {
            let (content, sum) = bytes.split_last_chunk::<4>().expect("more than that was taken from them");
            verify_sum(path, 0, "manifest", u32::from_be_bytes(*sum), content)?;
        }
        let fields = |mut input: Decoder<'_>| -> Result<(u32, Self), Malformed> {
            let owner = input.u32()?;
            let position = Position { sequence: input.u64()?, next_segment: input.u64()?, next_chunk: input.u64()? };
            let next_run = input.u64()?;
            let count = input.u32()? as usize;
            if count > input.remaining() / 8 {
                return Err(Malformed("manifest announces more runs than fit"));
            }
            let runs = (0..count).map(|_| input.u64()).collect::<Result<_, _>>()?;
            Ok((owner, Self { position, next_run, runs }))
        };
        let (owner, manifest) = fields(input).map_err(&malformed)?;
        if owner != container {
            return Err(StoreError::damaged(path, 0, format!("manifest of container {owner}")));
        }
        Ok(manifest)
    }
}
