//! A backup in a bucket, looked at as if it were a data directory, so that the same check judges it.
//!
//! Guarantees:
//! * only what the list names is there, with the lengths of the list; nothing can be changed
//! * reads go out in blocks of [`BLOCK_BYTES`], of which a few are kept
//! * storage that does not answer is asked no more, and is remembered ([`ObjectDisk::away`]): what the check then says of
//!   the rest is worth nothing

use std::collections::{BTreeMap, VecDeque};
use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use headwater_server::StoreError;
use headwater_server::io::{Disk, File, Objects};

use super::list::{List, Listed};
use super::place::{is_not_found, part_name};

/// Fetched at a time; every length of parts is a multiple of it.
pub(super) const BLOCK_BYTES: u64 = 4 << 20;
/// Blocks in memory.
const BLOCKS_MAX: usize = 8;

/// See the module.
pub(super) struct ObjectDisk {
    shared: Arc<Shared>,
}

struct Shared {
    objects: Arc<dyn Objects>,
    files: BTreeMap<String, Listed>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By object and the offset in it; the one used last is behind.
    blocks: VecDeque<((String, u64), Bytes)>,
    away: Option<StoreError>,
}

impl ObjectDisk {
    pub(super) fn new(objects: Arc<dyn Objects>, list: &List) -> Self {
        Self { shared: Arc::new(Shared { objects, files: list.files.clone(), state: Mutex::default() }) }
    }

    /// Why storage was not asked any more.
    pub(super) fn away(&self) -> Option<StoreError> {
        self.shared.state().away.take()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the blocks panics")
    }

    /// A block of an object, less at its end.
    fn block(&self, object: &str, offset: u64, length: u64) -> Result<Bytes> {
        let mut state = self.state();
        if state.away.is_some() {
            return Err(Error::from(ErrorKind::NotConnected));
        }
        let key = (object.to_owned(), offset);
        if let Some(at) = state.blocks.iter().position(|(known, _)| *known == key) {
            let found = state.blocks.remove(at).expect("it was found there");
            state.blocks.push_back(found.clone());
            return Ok(found.1);
        }
        match self.objects.get(object, offset, length as usize) {
            Ok(bytes) => {
                if state.blocks.len() == BLOCKS_MAX {
                    state.blocks.pop_front();
                }
                state.blocks.push_back((key, bytes.clone()));
                Ok(bytes)
            }
            Err(error) if is_not_found(&error) => Err(ErrorKind::NotFound.into()),
            Err(StoreError::Io { source, .. }) => Err(source),
            Err(error) => {
                let said = Error::other(error.to_string());
                state.away = Some(error);
                Err(said)
            }
        }
    }
}

fn refused<T>() -> Result<T> {
    Err(Error::new(ErrorKind::ReadOnlyFilesystem, "a backup is only looked at"))
}

impl Disk for ObjectDisk {
    fn create(&self, _path: &str) -> Result<Arc<dyn File>> {
        refused()
    }

    fn open(&self, path: &str) -> Result<Arc<dyn File>> {
        let listed = self.shared.files.get(path).ok_or(ErrorKind::NotFound)?;
        Ok(Arc::new(ObjectFile { shared: self.shared.clone(), name: path.to_owned(), listed: listed.clone() }))
    }

    fn rename(&self, _from: &str, _to: &str) -> Result<()> {
        refused()
    }

    fn remove(&self, _path: &str) -> Result<()> {
        refused()
    }

    fn list(&self, directory: &str) -> Result<Vec<String>> {
        let start = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        let inside = self.shared.files.keys().filter_map(|name| name.strip_prefix(&start));
        Ok(inside.filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }

    fn create_directory(&self, _directory: &str) -> Result<()> {
        refused()
    }

    fn sync_directory(&self, _directory: &str) -> Result<()> {
        refused()
    }
}

struct ObjectFile {
    shared: Arc<Shared>,
    name: String,
    listed: Listed,
}

impl File for ObjectFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.listed.length);
        let end = end.ok_or(ErrorKind::UnexpectedEof)?;
        let mut position = offset;
        while position < end {
            let block_at = position - position % BLOCK_BYTES;
            let block_length = BLOCK_BYTES.min(self.listed.length - block_at);
            let block = match self.listed.part_bytes {
                None => self.shared.block(&self.name, block_at, block_length)?,
                Some(bytes) => {
                    let object = part_name(&self.name, block_at / bytes);
                    self.shared.block(&object, block_at % bytes, block_length)?
                }
            };
            let (skip, to) = ((position - block_at) as usize, (position - offset) as usize);
            let count = (block.len() - skip).min((end - position) as usize);
            buffer[to..to + count].copy_from_slice(&block[skip..skip + count]);
            position += count as u64;
        }
        Ok(())
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
        Ok(self.listed.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::list::FORMAT;
    use crate::backup::place::parts;
    use crate::backup::tests::Memory;

    #[test]
    fn files_are_read_whatever_they_are_cut_into() {
        let objects = Arc::new(Memory::default());
        let content: Vec<u8> = (0..BLOCK_BYTES * 3 + 77).map(|at| (at % 251) as u8).collect();
        let length = content.len() as u64;
        let whole = Listed { length, sha256: String::new(), part_bytes: None };
        let cut = Listed { part_bytes: Some(BLOCK_BYTES), ..whole.clone() };
        let files = BTreeMap::from([("a/whole".to_owned(), whole), ("a/cut".to_owned(), cut)]);
        for (name, listed) in &files {
            let mut from = 0;
            for (object, length) in parts(name, listed) {
                let bytes = Bytes::copy_from_slice(&content[from..from + length as usize]);
                objects.put(&object, bytes.into(), &mut || ()).unwrap();
                from += length as usize;
            }
        }
        assert_eq!(objects.list("a").unwrap().len(), 5);
        let list = List { format: FORMAT, made_by: String::new(), store: String::new(), frame: 1, files };
        let disk = ObjectDisk::new(objects.clone(), &list);
        assert_eq!(disk.list("a").unwrap(), ["cut", "whole"]);
        assert!(disk.list("").unwrap().is_empty());
        for name in ["a/whole", "a/cut"] {
            let file = disk.open(name).unwrap();
            for (offset, count) in [(0, content.len()), (BLOCK_BYTES - 3, 7), (length - 5, 5), (length, 0)] {
                let mut buffer = vec![0; count];
                file.read_at(offset, &mut buffer).unwrap();
                assert!(buffer == content[offset as usize..offset as usize + count], "{name} at {offset}");
            }
            assert_eq!(file.read_at(length - 1, &mut [0; 2]).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        }
        assert!(disk.away().is_none() && disk.open("b").is_err());
    }
}
