//! A state that is many values, each under two keys, kept in a [`Table`]: changes of different values do not stand in each
//! other's way.
//!
//! Guarantees:
//! * a change is made only if each value that it touches is as it was when it was decided
//! * after [`fetch`](TableSynchronizer::fetch) the copy has every change that was acknowledged before it began
//!
//! A table tells what was put since a position and not what was removed. It tells how many entries it has, though, and a copy
//! with all puts and too many entries has some that were removed: then it is read anew.

use std::collections::BTreeMap;

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::retry::Backoff;
use crate::tables::{Condition, Put, ScopedTable, Table, Version};

/// Entries asked for at a time.
const PAGE_ENTRIES: u32 = 1000;
/// How often a copy is read anew in one fetch while others remove entries all the time.
const READS_MAX: usize = 5;
/// Bytes of the length that stands before an outer key.
const LENGTH_BYTES: usize = 2;

/// A copy of what a [`TableSynchronizer`] shares: values under an outer and an inner key.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SharedMaps {
    maps: BTreeMap<Bytes, BTreeMap<Bytes, (Bytes, Version)>>,
    count: u64,
}

impl SharedMaps {
    /// The value under both keys.
    pub fn get(&self, outer: &[u8], inner: &[u8]) -> Option<&Bytes> {
        Some(&self.maps.get(outer)?.get(inner)?.0)
    }

    /// Inner keys and values under an outer key, by ascending key.
    pub fn map(&self, outer: &[u8]) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.maps.get(outer).into_iter().flatten().map(|(inner, (value, _))| (inner, value))
    }

    /// Outer keys that have values, ascending.
    pub fn outer_keys(&self) -> impl Iterator<Item = &Bytes> {
        self.maps.keys()
    }

    /// How many values there are.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What has to be true for the value to be as it is here.
    fn condition(&self, outer: &[u8], inner: &[u8]) -> Condition {
        let held = self.maps.get(outer).and_then(|map| map.get(inner));
        held.map_or(Condition::Absent, |(_, version)| Condition::At(*version))
    }

    fn put(&mut self, outer: Bytes, inner: Bytes, value: Bytes, version: Version) {
        let map = self.maps.entry(outer).or_default();
        // Tables may tell an entry again, with the version it had.
        if map.get(&inner).is_some_and(|(_, held)| *held >= version) {
            return;
        }
        if map.insert(inner, (value, version)).is_none() {
            self.count += 1;
        }
    }

    fn remove(&mut self, outer: &[u8], inner: &[u8]) {
        let Some(map) = self.maps.get_mut(outer) else { return };
        if map.remove(inner).is_some() {
            self.count -= 1;
        }
        if map.is_empty() {
            self.maps.remove(outer);
        }
    }
}

/// A value to be put under two keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SharedPut {
    /// Outer key; may be empty.
    pub outer: Bytes,
    /// Inner key; may be empty. Both have at most 8190 bytes together.
    pub inner: Bytes,
    /// At most 1,040,384 bytes.
    pub value: Bytes,
}

impl SharedPut {
    /// Of its parts.
    pub fn new(outer: impl Into<Bytes>, inner: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { outer: outer.into(), inner: inner.into(), value: value.into() }
    }
}

/// One process's copy of values that several share. Pravega's Rust client has the same thing with other bytes: the two do
/// not share a table.
#[derive(Debug)]
pub struct TableSynchronizer {
    table: Table,
    maps: SharedMaps,
    /// Everything before it is in `maps`.
    position: u64,
}

impl Client {
    /// A copy of the values that are shared in a [`Table`], which is made if it is not there. The copy is empty until the first
    /// [`fetch`](TableSynchronizer::fetch).
    ///
    /// # Errors
    /// As [`table`](Self::table).
    ///
    /// # Cancel safety
    /// The table may be made.
    pub async fn table_synchronizer(&self, name: &ScopedTable) -> Result<TableSynchronizer> {
        Ok(TableSynchronizer { table: self.table(name).await?, maps: SharedMaps::default(), position: 0 })
    }
}

impl TableSynchronizer {
    /// The values as they were when they were fetched or changed here last.
    pub fn maps(&self) -> &SharedMaps {
        &self.maps
    }

    /// The table that holds them.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Takes over what others have changed until now. Returns the values.
    ///
    /// A key that is removed while this runs may still be there afterwards, until the next call.
    ///
    /// # Errors
    /// `NotFound`: the table was deleted. `Protocol`: it holds something else. `Denied`, `Unavailable`.
    ///
    /// # Cancel safety
    /// The copy may have some of the changes; the next call goes on.
    pub async fn fetch(&mut self) -> Result<&SharedMaps> {
        Self::follow(&self.table, &mut self.maps, &mut self.position).await?;
        for _ in 0..READS_MAX {
            if self.table.info().await?.entries >= self.maps.count {
                break;
            }
            // Something was removed, and only the whole tells what.
            let (mut maps, mut position) = (SharedMaps::default(), 0);
            Self::follow(&self.table, &mut maps, &mut position).await?;
            (self.maps, self.position) = (maps, position);
        }
        Ok(&self.maps)
    }

    async fn follow(table: &Table, maps: &mut SharedMaps, position: &mut u64) -> Result<()> {
        loop {
            let changes = table.changes(*position, PAGE_ENTRIES).await?;
            let mut entries = Vec::with_capacity(changes.entries.len());
            for entry in changes.entries {
                let (outer, inner) = decoded(&entry.key).ok_or_else(|| {
                    let what = format!("table {} holds something else than shared values", table.name());
                    Error::new(ErrorKind::Protocol, what)
                })?;
                entries.push((outer, inner, entry.value, entry.version));
            }
            if changes.start_over && *position > 0 {
                *maps = SharedMaps::default();
                *position = 0;
                continue;
            }
            for (outer, inner, value, version) in entries {
                maps.put(outer, inner, value, version);
            }
            *position = changes.next;
            if changes.is_end {
                return Ok(());
            }
        }
    }

    /// Puts values: `decide` is shown what there is and says what to put, which is done, all or nothing, if none of these values
    /// was changed by somebody else meanwhile; otherwise it is asked again with what others have made of it. Nothing is done
    /// when it returns nothing. Values that it only looked at may have changed.
    ///
    /// * at most 256 values with less than 16 MiB
    ///
    /// # Errors
    /// * `Unavailable`: the values **may have been put**; fetch and look;
    /// * `Conflict`: others were faster for the whole time for retries;
    /// * `Invalid`: too many or too large. Otherwise as [`fetch`](Self::fetch).
    ///
    /// # Cancel safety
    /// The values may have been put.
    pub async fn put(&mut self, mut decide: impl FnMut(&SharedMaps) -> Vec<SharedPut>) -> Result<&SharedMaps> {
        let mut backoff = Backoff::for_at_most(self.table.segment.retry_for());
        loop {
            let wanted = decide(&self.maps);
            if wanted.is_empty() {
                return Ok(&self.maps);
            }
            let puts = wanted.iter().map(|put| {
                let condition = self.maps.condition(&put.outer, &put.inner);
                Ok(Put::new(encoded(&put.outer, &put.inner)?, put.value.clone()).only_if(condition))
            });
            match self.table.update(puts.collect::<Result<_>>()?).await {
                Ok(versions) => {
                    for (put, version) in wanted.into_iter().zip(versions) {
                        self.maps.put(put.outer, put.inner, put.value, version);
                    }
                    return Ok(&self.maps);
                }
                Err(error) if error.kind() == ErrorKind::Conflict && backoff.pause().await => {}
                Err(error) => return Err(error),
            }
            self.fetch().await?;
        }
    }

    /// Removes values: as [`put`](Self::put), with the outer and inner keys of what is to go. Keys that have no value have to
    /// have none still.
    ///
    /// # Errors
    /// As `put`.
    ///
    /// # Cancel safety
    /// The values may be gone.
    pub async fn remove(&mut self, mut decide: impl FnMut(&SharedMaps) -> Vec<(Bytes, Bytes)>) -> Result<&SharedMaps> {
        let mut backoff = Backoff::for_at_most(self.table.segment.retry_for());
        loop {
            let wanted = decide(&self.maps);
            if wanted.is_empty() {
                return Ok(&self.maps);
            }
            let keys =
                wanted.iter().map(|(outer, inner)| Ok((encoded(outer, inner)?, self.maps.condition(outer, inner))));
            match self.table.remove_all(keys.collect::<Result<_>>()?).await {
                Ok(()) => {
                    for (outer, inner) in wanted {
                        self.maps.remove(&outer, &inner);
                    }
                    return Ok(&self.maps);
                }
                Err(error) if error.kind() == ErrorKind::Conflict && backoff.pause().await => {}
                Err(error) => return Err(error),
            }
            self.fetch().await?;
        }
    }
}

/// Both keys as one: the outer one's length, the outer one, the inner one.
fn encoded(outer: &Bytes, inner: &Bytes) -> Result<Bytes> {
    let length = u16::try_from(outer.len());
    let length = length.map_err(|_| Error::new(ErrorKind::Invalid, format!("key of {} bytes", outer.len())))?;
    let mut key = BytesMut::with_capacity(LENGTH_BYTES + outer.len() + inner.len());
    key.put_u16(length);
    key.extend_from_slice(outer);
    key.extend_from_slice(inner);
    Ok(key.freeze())
}

fn decoded(key: &Bytes) -> Option<(Bytes, Bytes)> {
    let (length, _) = key.split_first_chunk::<LENGTH_BYTES>()?;
    let end = LENGTH_BYTES + usize::from(u16::from_be_bytes(*length));
    (end <= key.len()).then(|| (key.slice(LENGTH_BYTES..end), key.slice(end..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart_by_where_the_outer_one_ends() {
        let keys = [("", ""), ("a", "b"), ("ab", ""), ("", "ab")];
        let encoded: Vec<_> = keys.iter().map(|(a, b)| encoded(&(*a).into(), &(*b).into()).unwrap()).collect();
        for (key, encoded) in keys.iter().zip(&encoded) {
            assert_eq!(decoded(encoded), Some((key.0.into(), key.1.into())));
        }
        assert!(encoded.iter().collect::<std::collections::BTreeSet<_>>().len() == keys.len());
        for bad in [&b""[..], b"\0", b"\0\x02a"] {
            assert_eq!(decoded(&Bytes::from_static(bad)), None);
        }
    }
}
