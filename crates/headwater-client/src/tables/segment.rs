//! What is asked of the segment of a table, or of one of its partitions.

use bytes::Bytes;
use headwater_types::limits::TABLE_VALUE_BYTES_MAX;
use headwater_wire::{NO_VERSION, Reply, Request, TableEntry, TableKey as WireKey};

use super::model::{Condition, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::segments::{Repeat, SegmentStores, Target, offset, signed, unexpected};

/// Keys asked for at once: the answer has to fit into a frame, whatever their values. Source: Pravega's Java client.
const KEYS_PER_READ: usize = 15;
/// Keys changed at once. Source: Pravega's Java client.
const KEYS_PER_CHANGE_MAX: usize = 256;
/// Bytes of keys and values changed at once, with what stands between them. Source: Pravega's Java client.
const CHANGE_BYTES_MAX: usize = 0x00ff_ffff - 8192;
/// What stands before a key, a version and a value.
const ENTRY_EXTRA_BYTES: usize = 24;

/// A segment that is a table.
#[derive(Clone, Debug)]
pub(crate) struct TableSegment {
    stores: SegmentStores,
    target: Target,
}

/// A page of a table's content, in the table's own order.
#[derive(Debug)]
pub(super) struct Page {
    /// Without values if only keys were asked for. Empty: the end.
    pub(super) entries: Vec<TableEntry>,
    /// Where the next page begins, if the segment has no order.
    pub(super) continuation: Bytes,
}

/// What is wanted of a segment's content.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) with_values: bool,
    pub(super) entries_max: i32,
    /// Of the page before; only in segments without an order.
    pub(super) continuation: Bytes,
    /// Both inclusive; empty for the least and the greatest. Only in segments with an order.
    pub(super) from: Bytes,
    pub(super) to: Bytes,
}

impl TableSegment {
    pub(super) fn new(stores: SegmentStores, target: Target) -> Self {
        Self { stores, target }
    }

    /// How long attempts are repeated.
    pub(crate) fn retry_for(&self) -> std::time::Duration {
        self.stores.retry_for()
    }

    fn refused(&self, asked: &'static str, reply: &Reply) -> Error {
        let conflict = |what: &str| Error::new(ErrorKind::Conflict, format!("{}: {what}", self.target.name));
        match reply {
            Reply::TableKeyBadVersion { .. } => conflict("a key has another version than expected"),
            Reply::TableKeyDoesNotExist { .. } => conflict("a key that was expected does not exist"),
            Reply::TableSegmentNotEmpty { .. } => conflict("table is not empty"),
            Reply::SegmentIsTruncated { .. } => conflict("table was changed"),
            reply => unexpected(&self.target, asked, reply),
        }
    }

    /// What the keys hold, in their order.
    pub(super) async fn read(&self, keys: &[Bytes]) -> Result<Vec<Option<(Bytes, Version)>>> {
        let mut found = Vec::with_capacity(keys.len());
        for keys in keys.chunks(KEYS_PER_READ) {
            let asked: Vec<_> = keys.iter().map(|key| WireKey { key: key.clone(), version: NO_VERSION }).collect();
            let reply = self.stores.ask(&self.target, Repeat::Harmless, |request_id, segment, token| {
                Request::ReadTable { request_id, segment, token, keys: asked.clone() }
            });
            let entries = match reply.await? {
                Reply::TableRead { entries, .. } => entries,
                reply => return Err(self.refused("ReadTable", &reply)),
            };
            if !entries.iter().map(|entry| &entry.key.key).eq(keys) {
                return Err(self.odd("other keys than those it was asked for"));
            }
            found
                .extend(entries.into_iter().map(|entry| Some((entry.value, Version::from_number(entry.key.version)?))));
        }
        Ok(found)
    }

    fn odd(&self, what: &str) -> Error {
        Error::new(ErrorKind::Protocol, format!("segment store sent {what} about {}", self.target.name))
    }

    /// Puts values, all or none; with `at`, only if nothing changed since that position.
    pub(super) async fn update(&self, puts: Vec<(Bytes, Bytes, Condition)>, at: Option<u64>) -> Result<Vec<Version>> {
        check_values(&puts)?;
        check_batch(puts.iter().map(|(key, value, _)| key.len() + value.len()))?;
        let repeat = repeat(puts.iter().map(|(_, _, condition)| condition), at);
        let table_offset = at.map_or(Ok(-1), signed)?;
        let entries: Vec<_> = puts
            .into_iter()
            .map(|(key, value, condition)| TableEntry { key: WireKey { key, version: condition.on_wire() }, value })
            .collect();
        let reply = self.stores.ask(&self.target, repeat, |request_id, segment, token| Request::UpdateTableEntries {
            request_id,
            segment,
            token,
            entries: entries.clone(),
            table_offset,
        });
        let versions = match reply.await? {
            Reply::TableEntriesUpdated { versions, .. } => versions,
            reply => return Err(self.refused("UpdateTableEntries", &reply)),
        };
        let versions: Vec<_> = versions.into_iter().filter_map(Version::from_number).collect();
        if versions.len() != entries.len() {
            return Err(self.odd("another number of versions than of values"));
        }
        Ok(versions)
    }

    /// Removes keys, all or none.
    pub(super) async fn remove(&self, keys: Vec<(Bytes, Condition)>, at: Option<u64>) -> Result<()> {
        check_batch(keys.iter().map(|(key, _)| key.len()))?;
        let repeat = repeat(keys.iter().map(|(_, condition)| condition), at);
        let table_offset = at.map_or(Ok(-1), signed)?;
        let keys: Vec<_> =
            keys.into_iter().map(|(key, condition)| WireKey { key, version: condition.on_wire() }).collect();
        let reply = self.stores.ask(&self.target, repeat, |request_id, segment, token| Request::RemoveTableKeys {
            request_id,
            segment,
            token,
            keys: keys.clone(),
            table_offset,
        });
        match reply.await? {
            Reply::TableKeysRemoved { .. } => Ok(()),
            reply => Err(self.refused("RemoveTableKeys", &reply)),
        }
    }

    /// Part of the content.
    pub(super) async fn page(&self, wanted: &Wanted) -> Result<Page> {
        let reply = self.stores.ask(&self.target, Repeat::Harmless, |request_id, segment, token| {
            let Wanted { with_values, entries_max: suggested_count, continuation, from, to } = wanted.clone();
            let (prefix, from_key, to_key) = (Bytes::new(), from, to);
            if with_values {
                Request::ReadTableEntries {
                    request_id,
                    segment,
                    token,
                    suggested_count,
                    continuation,
                    prefix,
                    from_key,
                    to_key,
                }
            } else {
                Request::ReadTableKeys {
                    request_id,
                    segment,
                    token,
                    suggested_count,
                    continuation,
                    prefix,
                    from_key,
                    to_key,
                }
            }
        });
        match reply.await? {
            Reply::TableEntriesRead { entries, continuation, .. } => Ok(Page { entries, continuation }),
            Reply::TableKeysRead { keys, continuation, .. } => {
                let entries = keys.into_iter().map(|key| TableEntry { key, value: Bytes::new() });
                Ok(Page { entries: entries.collect(), continuation })
            }
            reply => Err(self.refused("ReadTableEntries", &reply)),
        }
    }

    /// What was put since a position and is still there.
    pub(super) async fn changes(&self, from: u64, entries_max: i32) -> Result<super::plain::TableChanges> {
        let from_position = signed(from)?;
        let reply = self.stores.ask(&self.target, Repeat::Harmless, |request_id, segment, token| {
            Request::ReadTableEntriesDelta { request_id, segment, token, from_position, suggested_count: entries_max }
        });
        match reply.await? {
            Reply::TableEntriesDeltaRead { entries, should_clear, reached_end, last_position, .. } => {
                let entries = entries.into_iter().map(super::plain::entry).collect::<Result<_>>()?;
                // Some servers send 0 when there is nothing new.
                let next = offset(last_position)?.max(from);
                Ok(super::plain::TableChanges { entries, next, is_end: reached_end, start_over: should_clear })
            }
            reply => Err(self.refused("ReadTableEntriesDelta", &reply)),
        }
    }

    pub(super) async fn info(&self) -> Result<super::plain::TableInfo> {
        let reply = self.stores.ask(&self.target, Repeat::Harmless, |request_id, segment, token| {
            Request::GetTableSegmentInfo { request_id, segment, token }
        });
        match reply.await? {
            Reply::TableSegmentInfo { length, entry_count, key_length, .. } => Ok(super::plain::TableInfo {
                entries: offset(entry_count)?,
                end: offset(length)?,
                key_bytes: u32::try_from(key_length).map_err(|_| self.odd("a negative key length"))?,
            }),
            reply => Err(self.refused("GetTableSegmentInfo", &reply)),
        }
    }

    /// Makes the segment, for keys of any length. `false` if it was there.
    pub(super) async fn create(&self) -> Result<bool> {
        let reply = self.stores.ask(&self.target, Repeat::Harmless, |request_id, segment, token| {
            Request::CreateTableSegment { request_id, segment, token, sorted: false, key_length: 0, rollover_bytes: 0 }
        });
        match reply.await? {
            Reply::SegmentCreated { .. } => Ok(true),
            Reply::SegmentAlreadyExists { .. } => Ok(false),
            reply => Err(self.refused("CreateTableSegment", &reply)),
        }
    }

    /// Deletes the segment with all it holds. `false` if it was not there.
    pub(super) async fn delete(&self) -> Result<bool> {
        let reply = self.stores.ask(&self.target, Repeat::Harmless, |request_id, segment, token| {
            Request::DeleteTableSegment { request_id, segment, token, must_be_empty: false }
        });
        match reply.await? {
            Reply::SegmentDeleted { .. } => Ok(true),
            Reply::NoSuchSegment { .. } => Ok(false),
            reply => Err(self.refused("DeleteTableSegment", &reply)),
        }
    }
}

/// A change under conditions that is made twice fails the second time, and nobody would know of the first.
fn repeat<'a>(mut conditions: impl Iterator<Item = &'a Condition>, at: Option<u64>) -> Repeat {
    if at.is_none() && conditions.all(|condition| *condition == Condition::None) {
        Repeat::Harmless
    } else {
        Repeat::Never
    }
}

fn check_values(puts: &[(Bytes, Bytes, Condition)]) -> Result<()> {
    match puts.iter().map(|(_, value, _)| value.len()).find(|bytes| *bytes > TABLE_VALUE_BYTES_MAX) {
        None => Ok(()),
        Some(bytes) => {
            Err(Error::new(ErrorKind::Invalid, format!("value of {bytes} bytes, limit {TABLE_VALUE_BYTES_MAX}")))
        }
    }
}

fn check_batch(bytes: impl ExactSizeIterator<Item = usize>) -> Result<()> {
    let count = bytes.len();
    if count == 0 {
        return Err(Error::new(ErrorKind::Invalid, "nothing to change"));
    }
    if count > KEYS_PER_CHANGE_MAX {
        let what = format!("{count} keys to be changed at once, limit {KEYS_PER_CHANGE_MAX}");
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    let bytes: usize = bytes.map(|bytes| bytes + ENTRY_EXTRA_BYTES).sum();
    if bytes > CHANGE_BYTES_MAX {
        let what = format!("{bytes} bytes to be changed at once, limit {CHANGE_BYTES_MAX}");
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    Ok(())
}
