//! Tables of one segment, with keys of any length and the order of their changes.

use std::collections::VecDeque;

use bytes::Bytes;
use headwater_types::SegmentId;
use headwater_types::limits::TABLE_KEY_BYTES_MAX;
use headwater_wire::TableEntry as WireEntry;

use super::model::{Condition, Entry, Put, ScopedTable, Version};
use super::segment::{TableSegment, Wanted};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};

/// A table of one segment. Keys have 1 to 8192 bytes, values up to 1,040,384. Cheap to clone.
///
/// The controller does not know of it: it lies where Pravega's Rust and Python clients keep theirs, under the name
/// `scope/table_kvtable/0.#epoch.0`, and holds bytes as they are (those clients encode theirs as CBOR). A
/// [`KeyValueTable`](super::KeyValueTable) of the same name would lie in the same place: there can be only one of them.
#[doc = crate::example!("../examples/table.rs")]
#[derive(Clone, Debug)]
pub struct Table {
    name: ScopedTable,
    pub(crate) segment: TableSegment,
}

/// What a [`Table`] holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TableInfo {
    /// Keys that have a value. Pravega's servers count only roughly while unconditional changes are under way.
    pub entries: u64,
    /// The position behind the last change.
    pub end: u64,
    /// Length of all keys, in bytes; 0 if they have any length.
    pub(super) key_bytes: u32,
}

/// Changes of a [`Table`] from a position on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TableChanges {
    /// Keys that were put since, each once with the value it has now, in no order. Keys that were removed meanwhile are
    /// left out. Entries can come again with a version that is known.
    pub entries: Vec<Entry<Bytes>>,
    /// Position to go on from.
    pub next: u64,
    /// There was nothing behind `next`.
    pub is_end: bool,
    /// The position lay so far back that entries may be missing: forget what is known and begin at 0.
    pub start_over: bool,
}

pub(super) fn entry(entry: WireEntry) -> Result<Entry<Bytes>> {
    let version = Version::from_number(entry.key.version).ok_or_else(|| {
        Error::new(ErrorKind::Protocol, format!("segment store sent an entry of version {}", entry.key.version))
    })?;
    Ok(Entry { key: entry.key.key, value: entry.value, version })
}

fn segment_of(client: &Client, name: &ScopedTable) -> Result<TableSegment> {
    Ok(TableSegment::new(client.segments().clone(), name.partition(SegmentId::new(0, 0), false)?))
}

impl Client {
    /// Opens a table of one segment, and makes it if it is not there.
    ///
    /// # Errors
    /// `Invalid`: there is a [`KeyValueTable`](super::KeyValueTable) of this name, or this is no name. `Denied`;
    /// `Unavailable`.
    ///
    /// # Cancel safety
    /// The table may be made.
    pub async fn table(&self, name: &ScopedTable) -> Result<Table> {
        let segment = segment_of(self, name)?;
        if !segment.create().await? && segment.info().await?.key_bytes != 0 {
            let what = format!("{name} is a key-value table, whose keys have a fixed length");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        Ok(Table { name: name.clone(), segment })
    }

    /// Deletes a table of one segment with all it holds. `false` if it was not there. Not for a
    /// [`KeyValueTable`](super::KeyValueTable).
    ///
    /// # Errors
    /// `Denied`; `Unavailable`.
    ///
    /// # Cancel safety
    /// It may be gone.
    pub async fn delete_table(&self, name: &ScopedTable) -> Result<bool> {
        segment_of(self, name)?.delete().await
    }
}

fn check(key: &Bytes) -> Result<()> {
    if key.is_empty() || key.len() > TABLE_KEY_BYTES_MAX {
        let what = format!("key of {} bytes; a key has 1 to {TABLE_KEY_BYTES_MAX}", key.len());
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    Ok(())
}

impl Table {
    /// Its name.
    pub fn name(&self) -> &ScopedTable {
        &self.name
    }

    /// What a key holds; `None` if the table does not have it.
    ///
    /// # Errors
    /// `Invalid`: this can be no key. `NotFound`: the table was deleted. `Denied`; `Unavailable`.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn get(&self, key: &Bytes) -> Result<Option<(Bytes, Version)>> {
        Ok(self.get_all(std::slice::from_ref(key)).await?.pop().flatten())
    }

    /// What each of several keys holds, in their order. They are asked for fifteen at a time: together they need not have held
    /// this at one instant.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn get_all(&self, keys: &[Bytes]) -> Result<Vec<Option<(Bytes, Version)>>> {
        keys.iter().try_for_each(check)?;
        self.segment.read(keys).await
    }

    /// Puts a value, whatever the key holds.
    ///
    /// # Errors
    /// `Invalid`: key or value is too long. `NotFound`, `Denied`. `Unavailable`: it **may have been put**.
    ///
    /// # Cancel safety
    /// It may have been put.
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<Version> {
        self.update_one(Put::new(key, value)).await
    }

    /// Puts a value if the table does not have the key.
    ///
    /// # Errors
    /// As [`put`](Self::put); `Conflict`: it has it.
    ///
    /// # Cancel safety
    /// It may have been put.
    pub async fn put_if_absent(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<Version> {
        self.update_one(Put::new(key, value).only_if(Condition::Absent)).await
    }

    /// Puts a value if the key has a version.
    ///
    /// # Errors
    /// As [`put`](Self::put); `Conflict`: it has another one, or does not exist.
    ///
    /// # Cancel safety
    /// It may have been put.
    pub async fn replace(&self, key: impl Into<Bytes>, value: impl Into<Bytes>, version: Version) -> Result<Version> {
        self.update_one(Put::new(key, value).only_if(Condition::At(version))).await
    }

    async fn update_one(&self, put: Put<Bytes>) -> Result<Version> {
        let versions = self.update(vec![put]).await?;
        Ok(versions[0])
    }

    /// Puts several values at once, all or none. Returns their versions.
    ///
    /// * `puts`: 1 to 256, keys and values together less than 16 MiB. Of two with one key the last stays.
    ///
    /// # Errors
    /// As [`put`](Self::put); `Conflict`: one of the conditions does not hold. `Invalid` also: too many, too large or none.
    ///
    /// # Cancel safety
    /// They may have been put.
    pub async fn update(&self, puts: Vec<Put<Bytes>>) -> Result<Vec<Version>> {
        self.update_when(puts, None).await
    }

    /// As [`update`](Self::update), if nothing in the table has changed since a position: the [`end`](TableInfo::end) it had, or
    /// [`next`](TableChanges::next) of the last changes that were seen.
    ///
    /// # Errors
    /// As `update`; `Conflict` also if something has changed.
    ///
    /// # Cancel safety
    /// They may have been put.
    pub async fn update_at(&self, puts: Vec<Put<Bytes>>, position: u64) -> Result<Vec<Version>> {
        self.update_when(puts, Some(position)).await
    }

    async fn update_when(&self, puts: Vec<Put<Bytes>>, at: Option<u64>) -> Result<Vec<Version>> {
        puts.iter().try_for_each(|put| check(&put.key))?;
        let puts = puts.into_iter().map(|put| (put.key, put.value, put.condition));
        self.segment.update(puts.collect(), at).await
    }

    /// Removes a key. Nothing happens if the table does not have it.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    ///
    /// # Cancel safety
    /// It may be gone.
    pub async fn remove(&self, key: impl Into<Bytes>) -> Result<()> {
        self.remove_all(vec![(key.into(), Condition::None)]).await
    }

    /// Removes several keys at once, each under its condition, all or none. [`Condition::Absent`] demands that the table does
    /// not have the key.
    ///
    /// * `keys`: 1 to 256.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    ///
    /// # Cancel safety
    /// They may be gone.
    pub async fn remove_all(&self, keys: Vec<(Bytes, Condition)>) -> Result<()> {
        keys.iter().try_for_each(|(key, _)| check(key))?;
        self.segment.remove(keys, None).await
    }

    /// All entries, page by page, in no order. What is changed meanwhile may or may not be among them.
    pub fn entries(&self) -> TableEntries {
        let wanted = Wanted { with_values: true, entries_max: PAGE_ENTRIES, ..Wanted::default() };
        TableEntries { segment: self.segment.clone(), wanted, page: VecDeque::new(), over: false }
    }

    /// What was put since a position and is still there, in a page of about `entries_max`, at least 1; position 0 is the
    /// beginning. Removals are not told: a key that is known and not among [`entries`](Self::entries) any more is gone.
    ///
    /// # Errors
    /// `Invalid`: the table does not reach so far. `NotFound`, `Denied`, `Unavailable`.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn changes(&self, from: u64, entries_max: u32) -> Result<TableChanges> {
        self.segment.changes(from, i32::try_from(entries_max.max(1)).unwrap_or(i32::MAX)).await
    }

    /// How much the table holds.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, `Unavailable`.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn info(&self) -> Result<TableInfo> {
        self.segment.info().await
    }
}

/// Entries asked for at a time; servers send about 2 MiB at most.
pub(super) const PAGE_ENTRIES: i32 = 1000;

/// Entries of a [`Table`].
#[derive(Debug)]
pub struct TableEntries {
    segment: TableSegment,
    wanted: Wanted,
    page: VecDeque<WireEntry>,
    over: bool,
}

impl TableEntries {
    /// The next entry; `None` behind the last.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, `Unavailable`. The next call tries again.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Entry<Bytes>>> {
        loop {
            if let Some(next) = self.page.pop_front() {
                return Ok(Some(entry(next)?));
            }
            if self.over {
                return Ok(None);
            }
            let page = self.segment.page(&self.wanted).await?;
            // Only an empty page is the end.
            self.over = page.entries.is_empty();
            self.wanted.continuation = page.continuation;
            self.page = page.entries.into();
        }
    }
}
