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
    fn write_direct(&self, offset: u64, data: &[u8], flags: ReadWriteFlags) -> Result<bool> {
        let direct = |offset, rest: &[u8]| rustix::io::pwritev2(&self.direct, &[IoSlice::new(rest)], offset, flags);
        write_around_cache(offset, data, &self.refused, direct, |offset, rest| self.cached.write_at(offset, rest))
    }
}

/// Writes everything, by `direct` as far as that goes, which may write less than it is given, and by `cached` from there
/// on; false if that was needed. Once `direct` is refused it is not tried again.
fn write_around_cache(
    mut offset: u64,
    mut data: &[u8],
    refused: &AtomicBool,
    mut direct: impl FnMut(u64, &[u8]) -> rustix::io::Result<usize>,
    cached: impl FnOnce(u64, &[u8]) -> Result<()>,
) -> Result<bool> {
    while !data.is_empty() {
        // What a short write left may lie off the boundaries.
        if refused.load(Relaxed) || !data.len().is_multiple_of(BLOCK_BYTES) {
            cached(offset, data)?;
            return Ok(false);
        }
        match direct(offset, data) {
            // Nothing was written: the file system cannot do this after all.
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => refused.store(true, Relaxed),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the write begins.
    const START: u64 = 7 * BLOCK_BYTES as u64;

    /// A write of four blocks whose direct calls end like this, one after the other; then they write all they are given.
    /// Every byte must land at its place whatever happens. Returns what the write said, how many calls were made, and
    /// the offset from which the page cache was used.
    #[track_caller]
    fn check(calls: &[rustix::io::Result<usize>]) -> (Result<bool>, usize, Option<u64>) {
        let data: Vec<u8> = (0..4 * BLOCK_BYTES).map(|at| (at % 251) as u8).collect();
        let file = std::cell::RefCell::new(vec![0xee_u8; START as usize + data.len()]);
        let put = |offset: u64, part: &[u8]| {
            file.borrow_mut()[offset as usize..offset as usize + part.len()].copy_from_slice(part);
        };
        let (mut made, mut cached_from, refused) = (0, None, AtomicBool::new(false));
        let direct = |offset: u64, rest: &[u8]| -> rustix::io::Result<usize> {
            assert!(rest.len().is_multiple_of(BLOCK_BYTES) && offset.is_multiple_of(BLOCK_BYTES as u64), "aligned");
            made += 1;
            let written = calls.get(made - 1).copied().unwrap_or(Ok(rest.len()))?;
            put(offset, &rest[..written]);
            Ok(written)
        };
        let cached = |offset: u64, rest: &[u8]| -> Result<()> {
            cached_from = Some(offset);
            put(offset, rest);
            Ok(())
        };
        let said = write_around_cache(START, &data, &refused, direct, cached);
        if let Ok(is_direct) = &said {
            assert_eq!(*is_direct, cached_from.is_none(), "whoever relies on it syncs what is in the page cache");
            let file = file.borrow();
            assert!(file[..START as usize].iter().all(|byte| *byte == 0xee) && file[START as usize..] == data);
        }
        (said, made, cached_from)
    }

    #[test]
    fn a_write_that_ends_short_goes_on_where_it_stopped() {
        assert!(matches!(check(&[]), (Ok(true), 1, None)));
        assert!(matches!(check(&[Ok(BLOCK_BYTES), Ok(2 * BLOCK_BYTES)]), (Ok(true), 3, None)));
        assert!(matches!(check(&[Err(Errno::INTR), Ok(BLOCK_BYTES), Err(Errno::INTR)]), (Ok(true), 4, None)));
    }

    #[test]
    fn what_a_short_write_leaves_off_the_boundaries_goes_through_the_page_cache() {
        for written in [1, 512, BLOCK_BYTES - 1, BLOCK_BYTES + 1, 4 * BLOCK_BYTES - 1] {
            let (said, made, cached_from) = check(&[Ok(written)]);
            assert_eq!((said.unwrap(), made, cached_from), (false, 1, Some(START + written as u64)));
        }
        let second = check(&[Ok(BLOCK_BYTES), Ok(BLOCK_BYTES + 100)]);
        assert!(matches!(second, (Ok(false), 2, Some(from)) if from == START + 2 * BLOCK_BYTES as u64 + 100));
    }

    #[test]
    fn a_file_system_that_refuses_at_first_gets_everything_through_the_page_cache() {
        for refusal in [Errno::INVAL, Errno::OPNOTSUPP, Errno::NOSYS] {
            assert!(matches!(check(&[Err(refusal)]), (Ok(false), 1, Some(START))));
        }
        let late = check(&[Ok(BLOCK_BYTES), Err(Errno::INVAL)]);
        assert!(matches!(late, (Ok(false), 2, Some(from)) if from == START + BLOCK_BYTES as u64));
    }

    #[test]
    fn a_write_that_fails_or_writes_nothing_is_an_error() {
        let said = |calls: &[rustix::io::Result<usize>]| check(calls).0.unwrap_err();
        assert_eq!(said(&[Ok(BLOCK_BYTES), Err(Errno::IO)]).raw_os_error(), Some(Errno::IO.raw_os_error()));
        assert_eq!(said(&[Err(Errno::NOSPC)]).kind(), io::ErrorKind::StorageFull);
        assert_eq!(said(&[Ok(BLOCK_BYTES), Ok(0)]).kind(), io::ErrorKind::WriteZero);
    }
}
