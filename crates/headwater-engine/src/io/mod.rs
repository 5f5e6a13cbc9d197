//! The seams between the engine and the world: disk, clock, chance. Everything the engine learns from outside or leaves
//! outside goes through these traits, so that a simulator can lose, tear and reorder it.
//!
//! There is one real implementation of each ([`RealDisk`], [`RealClock`], [`RealRandom`]), as thin as possible.
//! Paths are relative to the data directory, `/`-separated, made by the engine from numbers; no name a client gives
//! ever becomes part of one.

mod block;
mod memory;
mod objects;
mod probe;
mod read_only;
mod real;
mod s3;

use std::io::Result;
use std::sync::Arc;
use std::time::Duration;

pub use block::{BLOCK_BYTES, BlockBuffer};
pub use memory::MemoryDisk;
pub use objects::{Content, Objects, RemoteUsage};
pub use probe::{SyncTimes, sync_times};
pub use read_only::{Entry, EntryKind, ReadLock, ReadOnlyDisk, entries, lock_for_reading};
pub use real::{DirectoryLock, RealClock, RealDisk, RealRandom, lock_directory};
pub use s3::{S3Location, S3Objects};

/// A directory tree with POSIX durability rules.
///
/// * What was written to a file survives a crash only after [`File::sync`] returned `Ok`.
/// * That a file exists, has this name, or is gone survives only after [`Disk::sync_directory`] of its directory.
/// * After a failed sync nothing about the file is known; the caller must not go on writing to it.
pub trait Disk: Send + Sync + 'static {
    /// Creates an empty file for reading and writing. Fails with `AlreadyExists` if there is one.
    fn create(&self, path: &str) -> Result<Arc<dyn File>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &str) -> Result<Arc<dyn File>>;
    /// Opens an existing file for [`File::write_durable`] and [`File::write_around`], round the page cache where the file
    /// system can do that. The file has its final length: such writes never extend it.
    fn open_direct(&self, path: &str) -> Result<Arc<dyn File>> {
        self.open(path)
    }
    /// Gives a file another name, replacing what had that name.
    fn rename(&self, from: &str, to: &str) -> Result<()>;
    /// Removes a file.
    fn remove(&self, path: &str) -> Result<()>;
    /// Names of the files in a directory, sorted, without the directory; empty if the directory is absent.
    fn list(&self, directory: &str) -> Result<Vec<String>>;
    /// Creates a directory; succeeds if it is there. Its parent must exist.
    fn create_directory(&self, directory: &str) -> Result<()>;
    /// Lets go of what memory holds of a file, so that the next reading comes from the disk itself. A hint: where the
    /// system cannot do that, nothing happens.
    fn forget_cached(&self, _path: &str) {}
    /// Makes creations, renames and removals in this directory durable. `""` is the data directory itself.
    fn sync_directory(&self, directory: &str) -> Result<()>;
}

/// An open file. Positions are absolute; there is no cursor.
pub trait File: Send + Sync {
    /// Fills `buffer` from `offset`; `UnexpectedEof` if the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;
    /// Writes all of `data` at `offset`, growing the file if needed.
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()>;
    /// Makes everything written so far, and the length, durable.
    fn sync(&self) -> Result<()>;
    /// Writes round the page cache where the file can; [`sync`](Self::sync) is still needed. Position, length and memory
    /// as for [`write_durable`](Self::write_durable).
    fn write_around(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.write_at(offset, data)
    }
    /// Writes and makes durable in one step. Position, length and the memory of `data` are multiples of
    /// [`BLOCK_BYTES`], see [`BlockBuffer`].
    fn write_durable(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.write_at(offset, data)?;
        self.sync()
    }
    /// Cuts or extends (with zeros) the file.
    fn set_length(&self, length: u64) -> Result<()>;
    /// Extends the file to `length` and reserves the disk space, so that writing inside cannot find the disk full.
    fn allocate(&self, length: u64) -> Result<()> {
        self.set_length(length)
    }
    /// Current length in bytes.
    fn length(&self) -> Result<u64>;
}

/// Time. No promise of the store depends on the wall clock.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970.
    fn wall_millis(&self) -> i64;
    /// Time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;
}

/// Chance.
pub trait Random: Send + Sync + 'static {
    /// 128 unpredictable bits.
    fn bits(&self) -> u128;
}

/// The three seams together.
#[derive(Clone)]
pub struct Io {
    /// Files of this store.
    pub disk: Arc<dyn Disk>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub random: Arc<dyn Random>,
}

impl std::fmt::Debug for Io {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Io").finish_non_exhaustive()
    }
}
