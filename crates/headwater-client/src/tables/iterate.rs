//! Going through a key-value table: pages of all partitions, merged by key.
//!
//! Invariant: at most one page of each partition is held, and the next one of a partition is asked for when its last entry was
//! taken.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use headwater_wire::TableEntry as WireEntry;

use super::key_value::Shared;
use super::model::{Entry, TableKey, Version};
use super::plain::{PAGE_ENTRIES, entry};
use super::segment::{TableSegment, Wanted};
use crate::error::{Error, ErrorKind, Result};

/// Which keys of a [`KeyValueTable`](super::KeyValueTable) are wanted. Keys are ordered by their bytes, the primary part first.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KeyValueRange {
    primary: Option<Bytes>,
    from: Bytes,
    to: Bytes,
}

impl KeyValueRange {
    /// All keys.
    pub fn all() -> Self {
        Self::default()
    }

    /// Keys whose primary part lies between two bounds, both inclusive. A bound may be shorter than the part: then it stands for
    /// the least, or the greatest, key that begins so; an empty one for none.
    pub fn primary_between(from: impl Into<Bytes>, to: impl Into<Bytes>) -> Self {
        Self { primary: None, from: from.into(), to: to.into() }
    }

    /// Keys with this primary part. They lie in one partition.
    pub fn of_primary(primary: impl Into<Bytes>) -> Self {
        Self { primary: Some(primary.into()), from: Bytes::new(), to: Bytes::new() }
    }

    /// Keys with this primary part whose secondary part lies between two bounds, both inclusive; see
    /// [`primary_between`](Self::primary_between).
    pub fn secondary_between(primary: impl Into<Bytes>, from: impl Into<Bytes>, to: impl Into<Bytes>) -> Self {
        Self { primary: Some(primary.into()), from: from.into(), to: to.into() }
    }
}

/// Entries of a [`KeyValueTable`](super::KeyValueTable), by ascending key.
#[derive(Debug)]
pub struct EntryIterator(Merge);

/// Keys of a [`KeyValueTable`](super::KeyValueTable), by ascending key.
#[derive(Debug)]
pub struct KeyIterator(Merge);

impl EntryIterator {
    pub(super) fn new(shared: Arc<Shared>, range: &KeyValueRange) -> Result<Self> {
        Ok(Self(Merge::new(shared, range, true)?))
    }

    /// The next entry; `None` behind the last.
    ///
    /// # Errors
    /// `NotFound`: the table was deleted. `Denied`, `Unavailable`. The next call tries again.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Entry<TableKey>>> {
        let Some(next) = self.0.next().await? else { return Ok(None) };
        let Entry { key, value, version } = entry(next)?;
        Ok(Some(Entry { key: self.0.shared.decoded(key)?, value, version }))
    }
}

impl KeyIterator {
    pub(super) fn new(shared: Arc<Shared>, range: &KeyValueRange) -> Result<Self> {
        Ok(Self(Merge::new(shared, range, false)?))
    }

    /// The next key with its version; `None` behind the last.
    ///
    /// # Errors
    /// As [`EntryIterator::next`].
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Result<Option<(TableKey, Version)>> {
        let Some(next) = self.0.next().await? else { return Ok(None) };
        let Entry { key, version, .. } = entry(next)?;
        Ok(Some((self.0.shared.decoded(key)?, version)))
    }
}

#[derive(Debug)]
struct Merge {
    shared: Arc<Shared>,
    cursors: Vec<Cursor>,
}

/// How far one partition was read.
#[derive(Debug)]
struct Cursor {
    segment: TableSegment,
    /// The next page.
    wanted: Wanted,
    page: VecDeque<WireEntry>,
    over: bool,
}

impl Merge {
    fn new(shared: Arc<Shared>, range: &KeyValueRange, with_values: bool) -> Result<Self> {
        let (primary, secondary) = shared.key_bytes();
        let bound = |bound: &Bytes, fill: u8| match &range.primary {
            Some(prefix) if prefix.len() == primary => padded(prefix, bound, primary + secondary, secondary, fill),
            Some(prefix) => {
                let what = format!("primary key of {} bytes, not of {primary}", prefix.len());
                Err(Error::new(ErrorKind::Invalid, what))
            }
            None => padded(&[], bound, primary + secondary, primary, fill),
        };
        let (from, to) = (bound(&range.from, 0)?, bound(&range.to, 0xff)?);
        let over = from > to;
        let wanted = Wanted { with_values, entries_max: PAGE_ENTRIES, from, to, ..Wanted::default() };
        let cursor = |(_, segment): &(f64, TableSegment)| {
            let (segment, wanted) = (segment.clone(), wanted.clone());
            Cursor { segment, wanted, page: VecDeque::new(), over }
        };
        let cursors = match &range.primary {
            Some(primary) => vec![cursor(&shared.partitions[shared.partition(primary)])],
            None => shared.partitions.iter().map(cursor).collect(),
        };
        Ok(Self { shared, cursors })
    }

    async fn next(&mut self) -> Result<Option<WireEntry>> {
        let empty = self.cursors.iter_mut().filter(|cursor| cursor.page.is_empty() && !cursor.over);
        futures::future::try_join_all(empty.map(Cursor::fetch)).await?;
        let least = self.cursors.iter_mut().filter(|cursor| !cursor.page.is_empty());
        let least = least.min_by(|a, b| a.page[0].key.key.cmp(&b.page[0].key.key));
        Ok(least.and_then(|cursor| cursor.page.pop_front()))
    }
}

impl Cursor {
    async fn fetch(&mut self) -> Result<()> {
        let page = self.segment.page(&self.wanted).await?;
        let Some(last) = page.entries.last() else {
            self.over = true;
            return Ok(());
        };
        // What a server sends out of order would be read for ever.
        if last.key.key < self.wanted.from || last.key.key > self.wanted.to {
            return Err(Error::new(ErrorKind::Protocol, "segment store sent keys that were not asked for"));
        }
        match successor(&last.key.key) {
            Some(next) if next <= self.wanted.to => self.wanted.from = next,
            _ => self.over = true,
        }
        self.page = page.entries.into();
        Ok(())
    }
}

/// The first key that is greater and as long.
fn successor(key: &[u8]) -> Option<Bytes> {
    let mut next = key.to_vec();
    let at = next.iter().rposition(|byte| *byte != 0xff)?;
    next[at] += 1;
    next[at + 1..].fill(0);
    Some(next.into())
}

/// `prefix` and `bound`, of which the latter has at most `bound_bytes`, filled up to `bytes`.
fn padded(prefix: &[u8], bound: &[u8], bytes: usize, bound_bytes: usize, fill: u8) -> Result<Bytes> {
    if bound.len() > bound_bytes {
        let what = format!("bound of {} bytes, longer than the table's keys with {bound_bytes}", bound.len());
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    let mut padded = [prefix, bound].concat();
    padded.resize(bytes, fill);
    Ok(padded.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_followed_by_the_least_one_that_is_greater() {
        for (key, next) in [
            (&[0, 0][..], Some(&[0, 1][..])),
            (&[0, 0xff], Some(&[1, 0])),
            (&[7, 0xff, 0xff], Some(&[8, 0, 0])),
            (&[0xff, 0xff], None),
        ] {
            assert_eq!(successor(key).as_deref(), next, "{key:?}");
        }
    }

    #[test]
    fn bounds_are_filled_up_with_the_least_or_greatest_bytes() {
        assert_eq!(padded(b"ab", b"c", 5, 3, 0).unwrap(), &b"abc\0\0"[..]);
        assert_eq!(padded(b"", b"c", 3, 3, 0xff).unwrap(), &b"c\xff\xff"[..]);
        assert_eq!(padded(b"", b"abcd", 4, 3, 0).unwrap_err().kind(), ErrorKind::Invalid);
    }
}
