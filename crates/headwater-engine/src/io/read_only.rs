//! Looking at a data directory without leaving a trace in it: for `check`, which judges a store and must not change what
//! it judges.
#![allow(clippy::disallowed_methods, reason = "the real disk's read-only face; nothing else of the engine uses it")]

use std::fs;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Disk, File};

/// The files below one directory, opened for reading only. Whatever would change something fails.
#[derive(Debug)]
pub struct ReadOnlyDisk {
    root: PathBuf,
}

impl ReadOnlyDisk {
    /// `root` should exist.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }
}

fn refused<T>() -> Result<T> {
    Err(Error::new(ErrorKind::ReadOnlyFilesystem, "opened for reading only"))
}

impl Disk for ReadOnlyDisk {
    fn create(&self, _path: &str) -> Result<Arc<dyn File>> {
        refused()
    }

    fn open(&self, path: &str) -> Result<Arc<dyn File>> {
        Ok(Arc::new(ReadOnlyFile(fs::File::open(self.root.join(path))?)))
    }

    fn rename(&self, _from: &str, _to: &str) -> Result<()> {
        refused()
    }

    fn remove(&self, _path: &str) -> Result<()> {
        refused()
    }

    fn list(&self, directory: &str) -> Result<Vec<String>> {
        super::RealDisk::new(&self.root).list(directory)
    }

    fn create_directory(&self, _directory: &str) -> Result<()> {
        refused()
    }

    fn sync_directory(&self, _directory: &str) -> Result<()> {
        refused()
    }
}

struct ReadOnlyFile(fs::File);

impl File for ReadOnlyFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, _offset: u64, _data: &[u8]) -> Result<()> {
        refused()
    }

    fn sync(&self) -> Result<()> {
        refused()
    }

    fn set_length(&self, _length: u64) -> Result<()> {
        refused()
    }

    fn length(&self) -> Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

/// Keeps a server from starting on a directory for as long as it lives; others may look at the same time.
#[derive(Debug)]
pub struct ReadLock {
    _file: Option<fs::File>,
}

/// Takes the lock of a data directory for reading, without creating anything. A directory that no server ever used has
/// no lock file, and nobody to be kept out.
///
/// # Errors
/// `WouldBlock` if a server has the directory; any other error of opening.
pub fn lock_for_reading(root: &Path) -> Result<ReadLock> {
    let file = match fs::File::open(root.join("lock")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(ReadLock { _file: None }),
        file => file?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(ReadLock { _file: Some(file) }),
        Err(fs::TryLockError::WouldBlock) => Err(ErrorKind::WouldBlock.into()),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// What stands under a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EntryKind {
    /// A plain file.
    File,
    /// A directory.
    Directory,
    /// A link, a socket, a device: nothing the store ever makes.
    Other,
}

/// One name of a directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Relative to the data directory, `/`-separated. Bytes that are no text are replaced.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes of a file.
    pub length: u64,
    /// Permission bits.
    pub mode: u32,
}

/// Everything directly in `directory`, sorted by name. Nothing is opened, no link is followed.
///
/// # Errors
/// Those of listing and of looking at an entry.
pub fn entries(root: &Path, directory: &str) -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join(directory))? {
        let entry = entry?;
        let metadata = match entry.metadata() {
            // Gone since it was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        let kind = if metadata.is_file() {
            EntryKind::File
        } else if metadata.is_dir() {
            EntryKind::Directory
        } else {
            EntryKind::Other
        };
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let path = if directory.is_empty() { name.into_owned() } else { format!("{directory}/{name}") };
        found.push(Entry { path, kind, length: metadata.len(), mode: metadata.mode() & 0o7777 });
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}
