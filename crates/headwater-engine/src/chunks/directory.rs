//! Objects as files of the store's own disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{Error, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use crate::error::{IoContext, StoreError};
use crate::io::{BLOCK_BYTES, BlockBuffer, Content, Disk, File, Objects};

/// Largest single write: long bursts delay the journal's commits.
const WRITE_BYTES: usize = 1 << 20;
/// Reads of this length use memory again: the large blocks of the readers.
const BUFFER_BYTES: usize = 1 << 20;
/// Buffers that wait to be used again.
const FREE_BUFFERS_MAX: usize = 8;
/// Files are cut by this much at a time before they are removed: freeing a large file at once delays every commit on
/// the same file system.
const CUT_BYTES: u64 = 4 << 20;
/// Files kept open.
const OPEN_FILES_MAX: usize = 256;
/// What a reader of a disk is given ahead: two replies.
const AHEAD_BYTES: u64 = 4 << 20;

/// Files below the data directory, one per object.
pub(crate) struct Directory {
    disk: Arc<dyn Disk>,
    state: Mutex<State>,
    buffers: Arc<Buffers>,
}

/// Memory for large reads, used again: memory fresh from the system has to be zeroed and mapped page by page, which costs
/// more than copying what is read.
#[derive(Default)]
struct Buffers {
    free: Mutex<Vec<Vec<u8>>>,
}

/// Goes back to where it came from when the last handle on its bytes is dropped.
struct Buffer {
    bytes: Vec<u8>,
    home: Arc<Buffers>,
}

impl Buffers {
    fn take(self: &Arc<Self>, length: usize) -> Buffer {
        let used = if length == BUFFER_BYTES { self.free().pop() } else { None };
        Buffer { bytes: used.unwrap_or_else(|| vec![0; length]), home: self.clone() }
    }

    fn free(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.free.lock().expect("no holder of the buffers panics")
    }
}

impl Buffer {
    fn is_pooled(&self) -> bool {
        self.bytes.len() == BUFFER_BYTES
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.is_pooled() {
            let mut free = self.home.free();
            if free.len() < FREE_BUFFERS_MAX {
                free.push(std::mem::take(&mut self.bytes));
            }
        }
    }
}

#[derive(Default)]
struct State {
    turn: u64,
    open: BTreeMap<String, (u64, Arc<dyn File>)>,
    /// Given up, and perhaps cut short already.
    given_up: BTreeSet<String>,
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").finish_non_exhaustive()
    }
}

impl Directory {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, state: Mutex::default(), buffers: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the open files panics")
    }

    fn file(&self, name: &str) -> Result<Arc<dyn File>, StoreError> {
        {
            let mut state = self.state();
            if state.given_up.contains(name) {
                return Err(Error::from(ErrorKind::NotFound)).on(name, "open");
            }
            state.turn += 1;
            let now = state.turn;
            if let Some((turn, file)) = state.open.get_mut(name) {
                *turn = now;
                return Ok(file.clone());
            }
        }
        let file = self.disk.open(name).on(name, "open")?;
        let mut state = self.state();
        if state.open.len() >= OPEN_FILES_MAX
            && let Some(oldest) = state.open.iter().min_by_key(|(_, (turn, _))| *turn).map(|(name, _)| name.clone())
        {
            state.open.remove(&oldest);
        }
        if !state.given_up.contains(name) {
            let turn = state.turn;
            state.open.insert(name.to_owned(), (turn, file.clone()));
        }
        Ok(file)
    }

    fn write(&self, name: &str, content: Content<'_>, pause: &mut dyn FnMut()) -> Result<(), StoreError> {
        let created = self.disk.create(name).on(name, "create")?;
        let length = content.length();
        let whole = length.next_multiple_of(BLOCK_BYTES as u64);
        created.allocate(whole).on(name, "allocate")?;
        let file = self.disk.open_direct(name).on(name, "open")?;
        let mut pending = BlockBuffer::default();
        pending.reserve(WRITE_BYTES.min(whole as usize));
        let mut written = 0;
        for part in content {
            let mut part = &part[..];
            while !part.is_empty() {
                let (now, later) = part.split_at(part.len().min(WRITE_BYTES - pending.len()));
                pending.extend_from_slice(now);
                part = later;
                if pending.len() == WRITE_BYTES {
                    file.write_around(written, pending.as_slice()).on(name, "write")?;
                    written += pending.len() as u64;
                    pending.clear();
                    pause();
                }
            }
        }
        assert_eq!(written + pending.len() as u64, length, "content is as long as was said");
        if !pending.is_empty() {
            pending.resize(pending.len().next_multiple_of(BLOCK_BYTES));
            file.write_around(written, pending.as_slice()).on(name, "write")?;
        }
        if whole > length {
            created.set_length(length).on(name, "cut")?;
        }
        if crate::canary::is(27) { Ok(()) } else { file.sync().on(name, "sync") }
    }
}

impl Objects for Directory {
    fn put(&self, name: &str, content: Content<'_>, pause: &mut dyn FnMut()) -> Result<(), StoreError> {
        self.write(name, content, pause)?;
        let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
        self.disk.sync_directory(directory).on(directory, "sync")
    }

    fn get(&self, name: &str, offset: u64, length: usize) -> Result<Bytes, StoreError> {
        let file = self.file(name)?;
        let mut buffer = self.buffers.take(length);
        file.read_at(offset, &mut buffer.bytes).on(name, "read")?;
        Ok(if buffer.is_pooled() { Bytes::from_owner(buffer) } else { std::mem::take(&mut buffer.bytes).into() })
    }

    fn length(&self, name: &str) -> Result<u64, StoreError> {
        self.file(name)?.length().on(name, "measure")
    }

    fn give_up(&self, name: &str) {
        let mut state = self.state();
        state.open.remove(name);
        state.given_up.insert(name.to_owned());
    }

    fn delete(&self, name: &str, pause: &mut dyn FnMut()) -> Result<(), StoreError> {
        self.give_up(name);
        let removed = self.remove(name, pause);
        // Names are not used twice: without its file it is not found anyway.
        self.state().given_up.remove(name);
        removed
    }

    fn list(&self, directory: &str) -> Result<Vec<String>, StoreError> {
        self.disk.list(directory).on(directory, "list")
    }

    fn ahead_bytes(&self) -> u64 {
        AHEAD_BYTES
    }
}

impl Directory {
    fn remove(&self, name: &str, pause: &mut dyn FnMut()) -> Result<(), StoreError> {
        let gone = |error: &Error| error.kind() == ErrorKind::NotFound;
        match self.disk.open(name) {
            Err(error) if gone(&error) => return Ok(()),
            Err(error) => return Err(error).on(name, "open"),
            Ok(file) => {
                let mut length = file.length().on(name, "measure")?;
                while length > CUT_BYTES {
                    length -= CUT_BYTES;
                    file.set_length(length).on(name, "cut")?;
                    pause();
                }
            }
        }
        match self.disk.remove(name) {
            Err(error) if !gone(&error) => Err(error).on(name, "remove"),
            _ => Ok(()),
        }
    }
}
