//! The real disk, clock and source of chance: POSIX calls and nothing else.
#![allow(
    clippy::disallowed_methods,
    reason = "this module is the one place of the engine that touches files, clocks and chance"
)]

use std::fs;
use std::io::{self, Result};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{Clock, Disk, File, Random};

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
