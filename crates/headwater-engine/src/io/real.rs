//! The real disk, clock and source of chance: POSIX calls and nothing else.
#![allow(
    clippy::disallowed_methods,
    reason = "this module is the one place of the engine that touches files, clocks and chance"
)]

use std::fs;
use std::io::{self, IoSlice, Result};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::io::{Errno, ReadWriteFlags};

use super::{BLOCK_BYTES, Clock, Disk, File, Random};

/// Files below one directory, readable by their owner only.
#[derive(Debug)]
pub struct RealDisk {
    root: PathBuf,
}

impl RealDisk {
    /// `root` must exist.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
}

impl Disk for RealDisk {
    fn create(&self, path: &str) -> Result<Arc<dyn File>> {
        let file = fs::File::options().read(true).write(true).create_new(true).mode(0o600).open(self.at(path))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, path: &str) -> Result<Arc<dyn File>> {
        Ok(Arc::new(RealFile(fs::File::options().read(true).write(true).open(self.at(path))?)))
    }

    fn open_direct(&self, path: &str) -> Result<Arc<dyn File>> {
        let direct = rustix::fs::OFlags::DIRECT.bits() as i32;
        match fs::File::options().read(true).write(true).custom_flags(direct).open(self.at(path)) {
            // Some file systems, the one in memory among them, have nothing to go round.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => self.open(path),
            Err(error) => Err(error),
            Ok(direct) => {
                let cached = RealFile(fs::File::options().read(true).write(true).open(self.at(path))?);
                Ok(Arc::new(DirectFile { cached, direct, refused: AtomicBool::new(false) }))
            }
        }
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, path: &str) -> Result<()> {
        fs::remove_file(self.at(path))
    }

    fn list(&self, directory: &str) -> Result<Vec<String>> {
        let entries = match fs::read_dir(self.at(directory)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn create_directory(&self, directory: &str) -> Result<()> {
        match fs::DirBuilder::new().mode(0o700).create(self.at(directory)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result,
        }
    }

    fn forget_cached(&self, path: &str) {
        if let Ok(file) = fs::File::open(self.at(path)) {
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        }
    }

    fn sync_directory(&self, directory: &str) -> Result<()> {
        fs::File::open(self.at(directory))?.sync_all()
    }
}

struct RealFile(fs::File);

impl File for RealFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn sync(&self) -> Result<()> {
        self.0.sync_data()
    }

    fn set_length(&self, length: u64) -> Result<()> {
        self.0.set_len(length)
    }

    fn allocate(&self, length: u64) -> Result<()> {
        match rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), 0, length) {
            Err(rustix::io::Errno::OPNOTSUPP) => {}
            result => return Ok(result?),
        }
        // A file system that cannot reserve room can still be made to use it.
        let zeros = vec![0; 1 << 20];
        for position in (0..length).step_by(zeros.len()) {
            let part = zeros.len().min((length - position) as usize);
            self.0.write_all_at(&zeros[..part], position)?;
        }
        self.0.sync_data()
    }

    fn length(&self) -> Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

/// A file whose durable writes go round the page cache: no copy in it, and no second call to sync.
struct DirectFile {
    cached: RealFile,
    direct: fs::File,
    /// The file system took the flag when the file was opened, and refused the first write.
    refused: AtomicBool,
}

impl DirectFile {
    /// Writes everything; false if some of it went through the page cache after all.
    fn write_direct(&self, mut offset: u64, mut data: &[u8], flags: ReadWriteFlags) -> Result<bool> {
        while !data.is_empty() {
            let rest = [IoSlice::new(data)];
            // What a short write left may lie off the boundaries.
            if self.refused.load(Relaxed) || !data.len().is_multiple_of(BLOCK_BYTES) {
                self.cached.write_at(offset, data)?;
                return Ok(false);
            }
            match rustix::io::pwritev2(&self.direct, &rest, offset, flags) {
                // Nothing was written: the file system cannot do this after all.
                Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => self.refused.store(true, Relaxed),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    data = &data[written..];
                }
            }
        }
        Ok(true)
    }
}

impl File for DirectFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.cached.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.cached.write_at(offset, data)
    }

    fn sync(&self) -> Result<()> {
        self.cached.sync()
    }

    fn write_durable(&self, offset: u64, data: &[u8]) -> Result<()> {
        let is_direct = self.write_direct(offset, data, ReadWriteFlags::DSYNC)?;
        if is_direct { Ok(()) } else { self.cached.sync() }
    }

    fn write_around(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.write_direct(offset, data, ReadWriteFlags::empty()).map(drop)
    }

    fn set_length(&self, length: u64) -> Result<()> {
        self.cached.set_length(length)
    }

    fn allocate(&self, length: u64) -> Result<()> {
        self.cached.allocate(length)
    }

    fn length(&self) -> Result<u64> {
        self.cached.length()
    }
}

/// The system's clocks.
#[derive(Debug)]
pub struct RealClock(Instant);

impl Default for RealClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for RealClock {
    fn wall_millis(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The system's source of chance.
#[derive(Debug, Default)]
pub struct RealRandom;

impl Random for RealRandom {
    fn bits(&self) -> u128 {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the system's random source answers once it is initialised");
        u128::from_ne_bytes(bytes)
    }
}

/// Keeps other processes out of a data directory for as long as it lives, also across `kill -9`: the kernel drops the
/// lock with the process.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: fs::File,
}

/// Creates `root` (mode 0700) if it is absent and takes its lock file.
///
/// # Errors
/// `WouldBlock` if another process holds the lock; any other error of creating or opening.
pub fn lock_directory(root: &Path) -> Result<DirectoryLock> {
    if !root.is_dir() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(root)?;
        // That the directory exists must be as durable as what will be in it.
        if let Some(parent) = root.canonicalize()?.parent() {
            fs::File::open(parent)?.sync_all()?;
        }
    }
    let file =
        fs::File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(root.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(DirectoryLock { _file: file }),
        Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}
