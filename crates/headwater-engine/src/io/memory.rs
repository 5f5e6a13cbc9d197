//! A disk in memory, for stores that live no longer than their process: tests of programs that embed one.
//!
//! What is written is there at once and stays until the disk is dropped; a sync has nothing to do. It can be told to be full
//! or to fail, so that a program's own tests see what a real disk does on a bad day. Zeros take no memory before something
//! else was written there, since the journal fills its files with them beforehand.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{Error, ErrorKind, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use super::{Disk, File};

/// Unit of memory: the zeros within one that holds anything else are kept.
const PIECE_BYTES: usize = 16 << 10;
const HELD: &str = "nobody panics while it holds a file in memory";

/// See the module. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    files: Mutex<BTreeMap<String, Arc<Contents>>>,
    is_full: AtomicBool,
    is_broken: AtomicBool,
}

#[derive(Debug, Default)]
struct Contents(RwLock<Pieces>);

#[derive(Debug, Default)]
struct Pieces {
    length: u64,
    /// By number. What is not here is zeros.
    pieces: BTreeMap<u64, Box<[u8]>>,
}

#[derive(Debug)]
struct MemoryFile {
    contents: Arc<Contents>,
    disk: Arc<Shared>,
}

impl MemoryDisk {
    /// From now on there is room for nothing more, or there is again. What was reserved can still be written.
    pub fn set_full(&self, is_full: bool) {
        self.shared.is_full.store(is_full, Ordering::SeqCst);
    }

    /// From now on every access fails, or does not any more. A store that met a failing disk does not go on by itself.
    pub fn set_broken(&self, is_broken: bool) {
        self.shared.is_broken.store(is_broken, Ordering::SeqCst);
    }

    fn files(&self) -> Result<MutexGuard<'_, BTreeMap<String, Arc<Contents>>>> {
        self.shared.check()?;
        Ok(self.shared.files.lock().expect(HELD))
    }

    fn file(&self, contents: Arc<Contents>) -> Arc<dyn File> {
        Arc::new(MemoryFile { contents, disk: self.shared.clone() })
    }
}

impl Shared {
    fn check(&self) -> Result<()> {
        if self.is_broken.load(Ordering::SeqCst) { Err(Error::other("memory disk was told to fail")) } else { Ok(()) }
    }

    fn check_room(&self) -> Result<()> {
        if self.is_full.load(Ordering::SeqCst) { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

fn missing(path: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("{path} does not exist"))
}

impl Disk for MemoryDisk {
    fn create(&self, path: &str) -> Result<Arc<dyn File>> {
        let mut files = self.files()?;
        self.shared.check_room()?;
        match files.entry(path.to_owned()) {
            Entry::Occupied(_) => Err(ErrorKind::AlreadyExists.into()),
            Entry::Vacant(place) => Ok(self.file(place.insert(Arc::default()).clone())),
        }
    }

    fn open(&self, path: &str) -> Result<Arc<dyn File>> {
        let contents = self.files()?.get(path).cloned().ok_or_else(|| missing(path))?;
        Ok(self.file(contents))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let mut files = self.files()?;
        let contents = files.remove(from).ok_or_else(|| missing(from))?;
        files.insert(to.to_owned(), contents);
        Ok(())
    }

    fn remove(&self, path: &str) -> Result<()> {
        self.files()?.remove(path).map(|_| ()).ok_or_else(|| missing(path))
    }

    fn list(&self, directory: &str) -> Result<Vec<String>> {
        let within = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        let files = self.files()?;
        let names = files.keys().filter_map(|path| path.strip_prefix(&within)).filter(|name| !name.contains('/'));
        Ok(names.map(str::to_owned).collect())
    }

    fn create_directory(&self, _directory: &str) -> Result<()> {
        self.shared.check()
    }

    fn sync_directory(&self, _directory: &str) -> Result<()> {
        self.shared.check()
    }
}

/// The pieces that a range touches: number of each, where in it, and how much.
fn touched(offset: u64, bytes: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut at = offset;
    let end = offset + bytes as u64;
    std::iter::from_fn(move || {
        let (number, inside) = (at / PIECE_BYTES as u64, (at % PIECE_BYTES as u64) as usize);
        let count = (PIECE_BYTES - inside).min((end - at) as usize);
        at += count as u64;
        (count > 0).then_some((number, inside, count))
    })
}

impl File for MemoryFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.disk.check()?;
        let contents = self.contents.0.read().expect(HELD);
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > contents.length) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let mut rest = buffer;
        for (number, inside, count) in touched(offset, rest.len()) {
            let (part, after) = rest.split_at_mut(count);
            match contents.pieces.get(&number) {
                Some(piece) => part.copy_from_slice(&piece[inside..inside + count]),
                None => part.fill(0),
            }
            rest = after;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.disk.check()?;
        let end = offset.checked_add(data.len() as u64).ok_or(ErrorKind::FileTooLarge)?;
        let mut contents = self.contents.0.write().expect(HELD);
        if end > contents.length {
            self.disk.check_room()?;
            contents.length = end;
        }
        let mut rest = data;
        for (number, inside, count) in touched(offset, data.len()) {
            let (part, after) = rest.split_at(count);
            rest = after;
            match contents.pieces.entry(number) {
                Entry::Occupied(mut piece) => piece.get_mut()[inside..inside + count].copy_from_slice(part),
                Entry::Vacant(_) if part.iter().all(|byte| *byte == 0) => {}
                Entry::Vacant(place) => {
                    let piece = place.insert(vec![0; PIECE_BYTES].into_boxed_slice());
                    piece[inside..inside + count].copy_from_slice(part);
                }
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.disk.check()
    }

    fn set_length(&self, length: u64) -> Result<()> {
        self.disk.check()?;
        let mut contents = self.contents.0.write().expect(HELD);
        if length > contents.length {
            self.disk.check_room()?;
        }
        contents.length = length;
        let (kept, inside) = (length / PIECE_BYTES as u64, (length % PIECE_BYTES as u64) as usize);
        contents.pieces.retain(|number, _| *number < kept || (*number == kept && inside > 0));
        if let Some(last) = contents.pieces.get_mut(&kept) {
            last[inside..].fill(0);
        }
        Ok(())
    }

    fn length(&self) -> Result<u64> {
        self.disk.check()?;
        Ok(self.contents.0.read().expect(HELD).length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_memory_is_an_array_of_bytes() {
        let disk = MemoryDisk::default();
        let file = disk.create("a/b").unwrap();
        assert_eq!(disk.create("a/b").err().map(|error| error.kind()), Some(ErrorKind::AlreadyExists));
        let data: Vec<u8> = (0..100_000u32).map(|at| (at % 251) as u8 + 1).collect();
        file.write_at(10_000, &data).unwrap();
        file.allocate(200_000).unwrap();
        let mut found = vec![9; 200_000];
        file.read_at(0, &mut found).unwrap();
        assert!(found[..10_000].iter().chain(&found[110_000..]).all(|byte| *byte == 0));
        assert_eq!(found[10_000..110_000], data);
        assert_eq!(file.read_at(199_999, &mut [0; 2]).unwrap_err().kind(), ErrorKind::UnexpectedEof);

        file.set_length(20_000).unwrap();
        file.set_length(30_000).unwrap();
        let mut found = vec![9; 30_000];
        disk.open("a/b").unwrap().read_at(0, &mut found).unwrap();
        assert_eq!(found[10_000..20_000], data[..10_000]);
        assert!(found[20_000..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn names_are_moved_listed_and_removed() {
        let disk = MemoryDisk::default();
        for path in ["x", "d/1", "d/2", "d/e/3"] {
            disk.create(path).unwrap();
        }
        assert_eq!(disk.list("d").unwrap(), ["1", "2"]);
        assert_eq!(disk.list("").unwrap(), ["x"]);
        disk.rename("d/1", "d/2").unwrap();
        assert_eq!(disk.list("d").unwrap(), ["2"]);
        disk.remove("d/2").unwrap();
        assert_eq!(disk.remove("d/2").unwrap_err().kind(), ErrorKind::NotFound);
        assert!(disk.open("d/2").is_err());
    }

    #[test]
    fn a_full_disk_takes_what_has_its_place_already() {
        let disk = MemoryDisk::default();
        let file = disk.create("a").unwrap();
        file.allocate(4096).unwrap();
        disk.set_full(true);
        file.write_at(0, &[1; 4096]).unwrap();
        assert_eq!(file.write_at(4096, &[1]).unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(disk.create("b").err().map(|error| error.kind()), Some(ErrorKind::StorageFull));
        disk.set_full(false);
        file.write_at(4096, &[1]).unwrap();
        disk.set_broken(true);
        assert!(file.sync().is_err());
    }
}
