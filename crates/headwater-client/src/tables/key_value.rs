//! Key-value tables: partitions, keys of fixed length.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use headwater_types::hash;

use super::iterate::{EntryIterator, KeyIterator, KeyValueRange};
use super::manage::{KeyValueTableConfig, table_info};
use super::model::{Condition, Put, ScopedTable, TableKey, Version};
use super::segment::TableSegment;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::SegmentRange;
use crate::streams::call;

/// A table of several partitions, whose keys have a primary and a secondary part of fixed lengths. Cheap to clone.
///
/// Entries that share the primary part lie in one partition, and can be changed at once. Java clients see the same entries.
///
/// # Source
/// Matches Pravega's `KeyValueTable`, from release 0.10 on.
#[doc = crate::example!("../examples/key_value_table.rs")]
#[derive(Clone, Debug)]
pub struct KeyValueTable {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    name: ScopedTable,
    pub(super) config: KeyValueTableConfig,
    /// By ascending keys, each with the last key of its range.
    pub(super) partitions: Vec<(f64, TableSegment)>,
}

impl Client {
    /// Opens a table that was made with [`create_key_value_table`](Self::create_key_value_table) or by a Java client.
    ///
    /// # Errors
    /// `NotFound`; `Denied`; `Unavailable`.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn key_value_table(&self, name: &ScopedTable) -> Result<KeyValueTable> {
        let config = self.key_value_table_config(name).await?;
        let asked = table_info(name);
        let answer = call!(self, "getCurrentSegmentsKeyValueTable", get_current_segments_key_value_table, asked)?;
        let mut segments = SegmentRange::all_of_proto(&answer.segment_ranges)?;
        if segments.len() != config.partitions as usize {
            let what = format!("{name} has {} partitions in place of {}", segments.len(), config.partitions);
            return Err(Error::new(ErrorKind::Protocol, what));
        }
        segments.sort_by(|a, b| a.range.low().total_cmp(&b.range.low()));
        let segment = |segment: SegmentRange| {
            let target = name.partition(segment.id, true)?;
            Ok((segment.range.high(), TableSegment::new(self.segments().clone(), target)))
        };
        let partitions = segments.into_iter().map(segment).collect::<Result<_>>()?;
        Ok(KeyValueTable { shared: Arc::new(Shared { name: name.clone(), config, partitions }) })
    }
}

impl Shared {
    /// The first bound that is not below, as in Java.
    pub(super) fn partition(&self, primary: &[u8]) -> usize {
        let hash = hash::table_key(primary);
        let at = self.partitions.partition_point(|(high, _)| *high < hash);
        at.min(self.partitions.len() - 1)
    }

    /// Both parts, one behind the other.
    fn encoded(&self, key: &TableKey) -> Result<Bytes> {
        let (primary, secondary) = self.key_bytes();
        if (key.primary.len(), key.secondary.len()) != (primary, secondary) {
            let (found, more) = (key.primary.len(), key.secondary.len());
            let what = format!("{}: key of {found} and {more} bytes, not of {primary} and {secondary}", self.name);
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        let mut bytes = BytesMut::with_capacity(primary + secondary);
        bytes.extend_from_slice(&key.primary);
        bytes.extend_from_slice(&key.secondary);
        Ok(bytes.freeze())
    }

    pub(super) fn decoded(&self, mut bytes: Bytes) -> Result<TableKey> {
        let (primary, secondary) = self.key_bytes();
        if bytes.len() != primary + secondary {
            let what = format!("segment store sent a key of {} bytes from {}", bytes.len(), self.name);
            return Err(Error::new(ErrorKind::Protocol, what));
        }
        let secondary = bytes.split_off(primary);
        Ok(TableKey { primary: bytes, secondary })
    }

    /// Lengths of both parts.
    pub(super) fn key_bytes(&self) -> (usize, usize) {
        (self.config.primary_key_bytes as usize, self.config.secondary_key_bytes as usize)
    }

    /// The partition of keys that have to share it.
    fn common<'a>(&self, mut keys: impl Iterator<Item = &'a TableKey>) -> Result<&TableSegment> {
        let first = keys.next().ok_or_else(|| Error::new(ErrorKind::Invalid, "nothing to change"))?;
        if keys.any(|key| key.primary != first.primary) {
            let what = "keys that are changed at once have to share their primary part";
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        Ok(&self.partitions[self.partition(&first.primary)].1)
    }
}

impl KeyValueTable {
    /// Its name.
    pub fn name(&self) -> &ScopedTable {
        &self.shared.name
    }

    /// How it was made.
    pub fn config(&self) -> &KeyValueTableConfig {
        &self.shared.config
    }

    /// What a key holds; `None` if the table does not have it.
    ///
    /// # Errors
    /// `Invalid`: the key has other lengths than the table's. `NotFound`: the table was deleted. `Denied`; `Unavailable`.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn get(&self, key: &TableKey) -> Result<Option<(Bytes, Version)>> {
        Ok(self.get_all(std::slice::from_ref(key)).await?.pop().flatten())
    }

    /// What each of several keys holds, in their order. Partitions are asked at once, each for fifteen keys at a time: together
    /// they need not have held this at one instant.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn get_all(&self, keys: &[TableKey]) -> Result<Vec<Option<(Bytes, Version)>>> {
        let partitions = &self.shared.partitions;
        let mut asked = vec![(Vec::new(), Vec::new()); partitions.len()];
        for (at, key) in keys.iter().enumerate() {
            let (places, encoded) = &mut asked[self.shared.partition(&key.primary)];
            places.push(at);
            encoded.push(self.shared.encoded(key)?);
        }
        let read = partitions.iter().zip(&asked).map(|((_, segment), (_, keys))| segment.read(keys));
        let answers = futures::future::try_join_all(read).await?;
        let mut found = vec![None; keys.len()];
        for ((places, _), answers) in asked.iter().zip(answers) {
            for (at, answer) in places.iter().zip(answers) {
                found[*at] = answer;
            }
        }
        Ok(found)
    }

    /// Puts a value, whatever the key holds.
    ///
    /// # Errors
    /// `Invalid`: the key has other lengths than the table's, or the value is too long. `NotFound`, `Denied`. `Unavailable`:
    /// it **may have been put**.
    ///
    /// # Cancel safety
    /// It may have been put.
    pub async fn put(&self, key: impl Into<TableKey>, value: impl Into<Bytes>) -> Result<Version> {
        self.update_one(Put::new(key, value)).await
    }

    /// Puts a value if the table does not have the key.
    ///
    /// # Errors
    /// As [`put`](Self::put); `Conflict`: it has it.
    ///
    /// # Cancel safety
    /// It may have been put.
    pub async fn put_if_absent(&self, key: impl Into<TableKey>, value: impl Into<Bytes>) -> Result<Version> {
        self.update_one(Put::new(key, value).only_if(Condition::Absent)).await
    }

    /// Puts a value if the key has a version.
    ///
    /// # Errors
    /// As [`put`](Self::put); `Conflict`: it has another one, or does not exist.
    ///
    /// # Cancel safety
    /// It may have been put.
    pub async fn replace(
        &self,
        key: impl Into<TableKey>,
        value: impl Into<Bytes>,
        version: Version,
    ) -> Result<Version> {
        self.update_one(Put::new(key, value).only_if(Condition::At(version))).await
    }

    async fn update_one(&self, put: Put<TableKey>) -> Result<Version> {
        let versions = self.update(vec![put]).await?;
        Ok(versions[0])
    }

    /// Puts several values at once, all or none. Returns their versions.
    ///
    /// * `puts`: 1 to 256 whose keys share their primary part; keys and values together less than 16 MiB.
    ///
    /// # Errors
    /// As [`put`](Self::put); `Conflict`: one of the conditions does not hold. `Invalid` also: too many, too large or none, or of
    /// several primary keys.
    ///
    /// # Cancel safety
    /// They may have been put.
    pub async fn update(&self, puts: Vec<Put<TableKey>>) -> Result<Vec<Version>> {
        let segment = self.shared.common(puts.iter().map(|put| &put.key))?;
        let puts = puts.into_iter().map(|put| Ok((self.shared.encoded(&put.key)?, put.value, put.condition)));
        segment.update(puts.collect::<Result<_>>()?, None).await
    }

    /// Removes a key. Nothing happens if the table does not have it.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    ///
    /// # Cancel safety
    /// It may be gone.
    pub async fn remove(&self, key: impl Into<TableKey>) -> Result<()> {
        self.remove_all(vec![(key.into(), Condition::None)]).await
    }

    /// Removes several keys at once, each under its condition, all or none. [`Condition::Absent`] demands that the table does
    /// not have the key.
    ///
    /// * `keys`: 1 to 256 that share their primary part.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    ///
    /// # Cancel safety
    /// They may be gone.
    pub async fn remove_all(&self, keys: Vec<(TableKey, Condition)>) -> Result<()> {
        let segment = self.shared.common(keys.iter().map(|(key, _)| key))?;
        let keys = keys.iter().map(|(key, condition)| Ok((self.shared.encoded(key)?, *condition)));
        segment.remove(keys.collect::<Result<_>>()?, None).await
    }

    /// Entries of a range, by ascending key. What is changed meanwhile may or may not be among them.
    ///
    /// # Errors
    /// `Invalid`: a bound is longer than the table's keys.
    pub fn entries(&self, range: &KeyValueRange) -> Result<EntryIterator> {
        EntryIterator::new(self.shared.clone(), range)
    }

    /// Keys of a range with their versions, by ascending key.
    ///
    /// # Errors
    /// As [`entries`](Self::entries).
    pub fn keys(&self, range: &KeyValueRange) -> Result<KeyIterator> {
        KeyIterator::new(self.shared.clone(), range)
    }

    /// How many keys have a value, one partition counted after the other.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, `Unavailable`.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn count(&self) -> Result<u64> {
        let infos = self.shared.partitions.iter().map(|(_, segment)| segment.info());
        let infos = futures::future::try_join_all(infos).await?;
        Ok(infos.iter().map(|info| info.entries).sum())
    }
}
