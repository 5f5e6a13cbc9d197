//! Object storage beside the disk, which keeps exactly the promises of [`Objects`] and no other.
//!
//! It belongs to the same world as the disk: its calls are counted and traced with the disk's, an [`Image`](super::Image)
//! holds both, and a power cut takes nothing from it. What may happen instead:
//!
//! * a request gets no answer that is worth anything ([`StoreError::Unreachable`]): it did nothing, it did what was
//!   asked, or, if it stores an object, it is still on its way and arrives at some later time
//! * whoever asks dies meanwhile: the same three
//!
//! Reads are asked again until they are answered, as the real client does for half a minute.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Error, ErrorKind};

use bytes::Bytes;
use headwater_engine::StoreError;
use headwater_engine::io::{Content, Objects};

use super::{Inner, Kind, SimDisk, io_error};
use crate::chance::Chance;

/// Of 100 calls so many are overtaken by an object that was on its way.
const ARRIVAL_PERCENT: u64 = 10;
/// How far ahead of a sequential reader to fetch.
const AHEAD_BYTES: u64 = 256 << 10;

/// What is in the bucket, and what is on its way there.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    objects: BTreeMap<String, Bytes>,
    under_way: Vec<(String, Bytes)>,
}

impl Held {
    /// Stores an object unless one of that name is there.
    fn store(&mut self, name: String, bytes: Bytes) {
        self.objects.entry(name).or_insert(bytes);
    }

    /// Perhaps something arrives.
    fn arrive(&mut self, chance: &mut Chance) {
        if !self.under_way.is_empty() && chance.percent(ARRIVAL_PERCENT) {
            let (name, bytes) = self.under_way.swap_remove(chance.index(self.under_way.len()));
            self.store(name, bytes);
        }
    }
}

/// The bucket beside a [`SimDisk`]; clones share it.
#[derive(Clone)]
pub struct SimBucket {
    disk: SimDisk,
}

impl SimDisk {
    /// The bucket in the same world.
    pub fn bucket(&self) -> SimBucket {
        SimBucket { disk: self.clone() }
    }
}

impl fmt::Debug for SimBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.disk.lock();
        let held = &inner.state.bucket;
        f.debug_struct("SimBucket")
            .field("objects", &held.objects.len())
            .field("under_way", &held.under_way.len())
            .finish_non_exhaustive()
    }
}

fn failed(name: &str, action: &'static str, source: Error) -> StoreError {
    StoreError::Io { path: name.to_owned(), action, source }
}

fn unreachable(name: &str, action: &'static str) -> StoreError {
    StoreError::Unreachable { object: name.to_owned(), action, attempts: 1, source: io_error().into() }
}

/// What becomes of a request that gets no answer.
enum Lost {
    NotDone,
    Done,
    Later,
}

impl Inner {
    /// Counts a call that changes or lists; `Some` if it gets no answer.
    fn begin_remote(
        &mut self,
        kind: Kind,
        name: &str,
        action: &'static str,
        data: &[u8],
    ) -> Result<Option<Lost>, StoreError> {
        let injected = self.begin(kind, name, [data.len() as u64, 0], data);
        let injected = injected.map_err(|error| failed(name, action, error))?;
        let Self { state, chance, faults, .. } = self;
        state.bucket.arrive(chance);
        let is_lost = faults.remote_per_mille > 0 && chance.below(1000) < faults.remote_per_mille;
        Ok((injected.is_some() || is_lost).then(|| match chance.below(3) {
            0 => Lost::NotDone,
            1 => Lost::Done,
            _ => Lost::Later,
        }))
    }

    fn begin_remote_read(&mut self, name: &str, numbers: [u64; 2]) -> Result<Bytes, StoreError> {
        // A fault at this call is one of those that the client hides by asking again.
        self.begin(Kind::Read, name, numbers, &[]).map_err(|error| failed(name, "get", error))?;
        let Self { state, chance, .. } = self;
        state.bucket.arrive(chance);
        let found = state.bucket.objects.get(name).cloned();
        found.ok_or_else(|| failed(name, "get", ErrorKind::NotFound.into()))
    }
}

impl Objects for SimBucket {
    fn put(&self, name: &str, content: Content<'_>, pause: &mut dyn FnMut()) -> Result<(), StoreError> {
        pause();
        let bytes = content.concat();
        let mut inner = self.disk.lock();
        // For the image that is taken now: whoever asks may be dead before there is an answer.
        let asked = (name.to_owned(), bytes.clone());
        inner.state.bucket.under_way.push(asked.clone());
        let begun = inner.begin_remote(Kind::Put, name, "put", &bytes);
        let held = &mut inner.state.bucket;
        let there = held.objects.get(name).cloned();
        held.under_way.retain(|one| *one != asked);
        match begun? {
            None if there.as_ref().is_some_and(|there| *there != bytes) => {
                Err(failed(name, "put", ErrorKind::AlreadyExists.into()))
            }
            None => {
                held.store(asked.0, asked.1);
                Ok(())
            }
            Some(lost) => {
                match lost {
                    Lost::NotDone => {}
                    Lost::Done => held.store(asked.0, asked.1),
                    Lost::Later => held.under_way.push(asked),
                }
                Err(unreachable(name, "put"))
            }
        }
    }

    fn get(&self, name: &str, offset: u64, length: usize) -> Result<Bytes, StoreError> {
        let object = self.disk.lock().begin_remote_read(name, [offset, length as u64])?;
        match offset.checked_add(length as u64) {
            Some(end) if end <= object.len() as u64 => Ok(object.slice(offset as usize..end as usize)),
            _ => Err(failed(name, "get", ErrorKind::UnexpectedEof.into())),
        }
    }

    fn length(&self, name: &str) -> Result<u64, StoreError> {
        Ok(self.disk.lock().begin_remote_read(name, [0; 2])?.len() as u64)
    }

    fn give_up(&self, _name: &str) {}

    fn delete(&self, name: &str, pause: &mut dyn FnMut()) -> Result<(), StoreError> {
        pause();
        let mut inner = self.disk.lock();
        let begun = inner.begin_remote(Kind::Delete, name, "delete", &[])?;
        if !matches!(begun, Some(Lost::NotDone | Lost::Later)) {
            inner.state.bucket.objects.remove(name);
        }
        if begun.is_some() { Err(unreachable(name, "delete")) } else { Ok(()) }
    }

    fn list(&self, directory: &str) -> Result<Vec<String>, StoreError> {
        let mut inner = self.disk.lock();
        if inner.begin_remote(Kind::List, directory, "list", &[])?.is_some() {
            return Err(unreachable(directory, "list"));
        }
        let below = |name: &String| {
            let (parent, file) = name.rsplit_once('/').unwrap_or(("", name));
            (parent == directory).then(|| file.to_owned())
        };
        Ok(inner.state.bucket.objects.keys().filter_map(below).collect())
    }

    fn is_empty(&self) -> Result<bool, StoreError> {
        let mut inner = self.disk.lock();
        match inner.begin_remote(Kind::List, "", "list", &[])? {
            Some(_) => Err(unreachable("", "list")),
            None => Ok(inner.state.bucket.objects.is_empty()),
        }
    }

    fn ahead_bytes(&self) -> u64 {
        AHEAD_BYTES
    }
}

#[cfg(test)]
mod tests {
    use headwater_engine::io::Disk;

    use super::*;
    use crate::disk::Faults;

    fn put(bucket: &SimBucket, name: &str) -> Result<(), StoreError> {
        bucket.put(name, vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")].into(), &mut || ())
    }

    #[test]
    fn what_was_put_is_there_after_a_power_cut() {
        let disk = SimDisk::new(1);
        put(&disk.bucket(), "a/b").unwrap();
        disk.create("gone").unwrap();
        let after = disk.image().power_cut(2);
        assert_eq!(after.bucket().get("a/b", 1, 2).unwrap(), "bc");
        assert_eq!(after.bucket().list("a").unwrap(), ["b"]);
        assert!(after.bucket().get("a/b", 1, 3).is_err());
    }

    #[test]
    fn a_name_is_given_once() {
        let bucket = SimDisk::new(1).bucket();
        put(&bucket, "a/b").unwrap();
        let again = bucket.put("a/b", Bytes::from_static(b"other").into(), &mut || ());
        assert!(matches!(again, Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::AlreadyExists));
        put(&bucket, "a/b").expect("the same again: the first answer was lost");
    }

    #[test]
    fn a_put_that_is_not_answered_did_nothing_or_all_or_arrives_late() {
        let (mut at_once, mut late, mut never) = (0, 0, 0);
        for seed in 0..200 {
            let disk = SimDisk::new(seed);
            disk.set_faults(Faults { remote_per_mille: 1000, ..Faults::default() });
            assert!(matches!(put(&disk.bucket(), "a/b"), Err(StoreError::Unreachable { .. })));
            disk.set_faults(Faults::default());
            let is_there = || !disk.bucket().list("a").unwrap().is_empty();
            if is_there() {
                at_once += 1;
            } else if (0..200).any(|_| is_there()) {
                late += 1;
            } else {
                never += 1;
            }
        }
        assert!(at_once > 30 && late > 30 && never > 30, "{at_once} {late} {never}");
    }

    #[test]
    fn an_object_whose_writer_died_may_arrive() {
        let disk = SimDisk::new(3);
        disk.record(1000, 0);
        put(&disk.bucket(), "a/b").unwrap();
        let image = disk.take_images().pop().unwrap();
        let found = (0..50).filter(|seed| {
            let bucket = image.process_kill(*seed).bucket();
            (0..20).any(|_| !bucket.list("a").unwrap().is_empty())
        });
        assert!((10..50).contains(&found.count()));
    }
}
