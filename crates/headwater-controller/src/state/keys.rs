//! Names of tables and keys of records.
//!
//! | table | key | value |
//! |---|---|---|
//! | `scopes` | scope | state of the scope |
//! | `counters` | `transactions` | next unused transaction number |
//! | | `retention` | how far the store's clock had come when it was last written down |
//! | `deleted` | `scope/stream`, `scope/table_kvtable` | last segment number that a deleted stream or table of this name used |
//! | `work` | `scope/stream`, `scope/`, `scope/:k` table, `scope/:r` group | present while something there may be unfinished or a transaction open |
//! | `retention` | `scope/stream` | present while the stream may have a retention policy |
//! | `scaling` | `scope/stream` | present while the stream may scale by itself |
//! | `times` | `scope/stream` | present while a writer of the stream has said what time it is |
//! | `scope/S` | `s` stream | present for each stream |
//! | | `g` tag NUL stream | present for each tag of a stream |
//! | | `k` table | record of a key-value table |
//! | | `r` group | record of a reader group |
//! | `stream/S/T` | `h` | the stream's head record |
//! | | `e` epoch | epoch record |
//! | | `x` segment id | epoch in which the segment was sealed, and its final length |
//! | | `c` number | where the stream ended when retention looked at it; ascending is oldest first |
//! | | `t` transaction id | transaction record |
//! | | `o` transaction id | present while it is open |
//! | | `m` epoch, position, id | present while it waits to be committed; ascending is the order of commits |
//! | | `a` transaction id | present while it waits to be aborted |
//! | | `u` scope/group | a reader group that holds back the stream's retention, and up to where |
//! | | `w` writer | what the writer said about time, and where it was |
//! | | `d` inverted open time, id | present once it is completed; ascending is newest first |
//! | | `z` inverted wall time, id | the same, from before the store counted how long it is open |
//!
//! Numbers are big-endian, so that byte order is number order. A table of one stream takes all that a step changes, so
//! a step is one atomic batch.

use bytes::Bytes;
use headwater_types::{Name, ScopedStream, SegmentId, TransactionId};

use crate::model::ControllerError;

pub(crate) const SCOPES: &str = "scopes";
pub(crate) const COUNTERS: &str = "counters";
pub(crate) const DELETED: &str = "deleted";
pub(crate) const WORK: &str = "work";
pub(crate) const TIMES: &str = "times";
pub(crate) const RETENTION: &str = "retention";
pub(crate) const SCALING: &str = "scaling";

pub(crate) const TRANSACTION_COUNTER: &[u8] = b"transactions";
/// Named after who went by it first.
pub(crate) const CLOCK: &[u8] = b"retention";
pub(crate) const HEAD: &[u8] = b"h";
pub(crate) const STREAM_PREFIX: &[u8] = b"s";
pub(crate) const TABLE_PREFIX: &[u8] = b"k";
pub(crate) const GROUP_PREFIX: &[u8] = b"r";
pub(crate) const SUBSCRIBER_PREFIX: &[u8] = b"u";
pub(crate) const KEPT_PREFIX: &[u8] = b"c";
pub(crate) const WRITER_PREFIX: &[u8] = b"w";
pub(crate) const EPOCH_PREFIX: &[u8] = b"e";
pub(crate) const OPEN_PREFIX: &[u8] = b"o";
pub(crate) const COMMITTING_PREFIX: &[u8] = b"m";
pub(crate) const ABORTING_PREFIX: &[u8] = b"a";
pub(crate) const COMPLETED_PREFIX: &[u8] = b"d";
/// All of these come behind all of the former.
pub(crate) const COMPLETED_BY_WALL_PREFIX: &[u8] = b"z";

pub(crate) fn scope_table(scope: &Name) -> String {
    format!("scope/{scope}")
}

pub(crate) fn stream_table(stream: &ScopedStream) -> String {
    format!("stream/{stream}")
}

pub(crate) fn scope_key(scope: &Name) -> Bytes {
    Bytes::copy_from_slice(scope.as_str().as_bytes())
}

pub(crate) fn scoped_key(stream: &ScopedStream) -> Bytes {
    stream.to_string().into()
}

/// Key of a scope in the work table; no stream's, since a stream has a name.
pub(crate) fn scope_work_key(scope: &Name) -> Bytes {
    format!("{scope}/").into()
}

/// The stream whose key [`scoped_key`] made.
pub(crate) fn scoped_stream(key: &[u8]) -> Result<ScopedStream, ControllerError> {
    let parts = std::str::from_utf8(key).ok().and_then(|key| key.split_once('/'));
    let stream = parts.and_then(|(scope, stream)| {
        Some(ScopedStream { scope: Name::parse(scope).ok()?, stream: Name::parse(stream).ok()? })
    });
    stream.ok_or_else(|| ControllerError::Damaged("the name of a stream in an index".into()))
}

/// A name that was stored.
pub(crate) fn stored_name(name: &str) -> Result<Name, ControllerError> {
    Name::parse(name).map_err(|_| ControllerError::Damaged("a name in a listing".into()))
}

pub(crate) fn stream_entry(stream: &Name) -> Bytes {
    join(STREAM_PREFIX, &[stream.as_str().as_bytes()])
}

/// Key of a table or group in its scope; `prefix` says which.
pub(crate) fn item(prefix: &[u8], name: &Name) -> Bytes {
    join(prefix, &[name.as_str().as_bytes()])
}

/// Key of a table or group in the work table; no stream's, since no name has a colon.
pub(crate) fn item_work_key(prefix: &[u8], scope: &Name, name: &Name) -> Bytes {
    join(scope.as_str().as_bytes(), &[b"/:", prefix, name.as_str().as_bytes()])
}

/// Key under which the numbers of a deleted table are remembered; no stream's, since names have no such underscore.
pub(crate) fn deleted_table(scope: &Name, table: &Name) -> Bytes {
    format!("{scope}/{table}_kvtable").into()
}

/// `subscriber` is `scope/group`, or whatever somebody takes for one.
pub(crate) fn subscriber(subscriber: &str) -> Bytes {
    join(SUBSCRIBER_PREFIX, &[subscriber.as_bytes()])
}

pub(crate) fn kept(number: u64) -> Bytes {
    join(KEPT_PREFIX, &[&number.to_be_bytes()])
}

/// The number in a key that [`kept`] made.
pub(crate) fn kept_number(key: &[u8]) -> u64 {
    key.last_chunk().map_or(0, |number| u64::from_be_bytes(*number))
}

pub(crate) fn writer(writer: &str) -> Bytes {
    join(WRITER_PREFIX, &[writer.as_bytes()])
}

pub(crate) fn tag_prefix(tag: &str) -> Bytes {
    join(b"g", &[tag.as_bytes(), &[0]])
}

pub(crate) fn tag_entry(tag: &str, stream: &Name) -> Bytes {
    join(b"g", &[tag.as_bytes(), &[0], stream.as_str().as_bytes()])
}

pub(crate) fn epoch(epoch: i32) -> Bytes {
    join(EPOCH_PREFIX, &[&(epoch as u32).to_be_bytes()])
}

pub(crate) fn sealed(segment: SegmentId) -> Bytes {
    join(b"x", &[&segment.as_i64().to_be_bytes()])
}

pub(crate) fn transaction(id: TransactionId) -> Bytes {
    join(b"t", &[&id.0.to_be_bytes()])
}

pub(crate) fn open(id: TransactionId) -> Bytes {
    join(OPEN_PREFIX, &[&id.0.to_be_bytes()])
}

pub(crate) fn committing(position: i64, id: TransactionId) -> Bytes {
    join(COMMITTING_PREFIX, &[&(id.epoch() as u32).to_be_bytes(), &position.to_be_bytes(), &id.0.to_be_bytes()])
}

/// Position in the order of commits.
pub(crate) fn committing_position(key: &[u8]) -> Option<i64> {
    Some(i64::from_be_bytes(key.get(5..13)?.try_into().ok()?))
}

pub(crate) fn aborting(id: TransactionId) -> Bytes {
    join(ABORTING_PREFIX, &[&id.0.to_be_bytes()])
}

/// `open_ms`: how long the store had been open then.
pub(crate) fn completed(open_ms: i64, id: TransactionId) -> Bytes {
    join(COMPLETED_PREFIX, &[&(!(open_ms.max(0) as u64)).to_be_bytes(), &id.0.to_be_bytes()])
}

/// The open time in a key that [`completed`] made.
pub(crate) fn completed_ms(key: &[u8]) -> Option<i64> {
    let inverted = key.get(COMPLETED_PREFIX.len()..)?.first_chunk()?;
    i64::try_from(!u64::from_be_bytes(*inverted)).ok()
}

/// Everything completed before `open_ms` comes after this key.
pub(crate) fn completed_before(open_ms: i64) -> Bytes {
    join(COMPLETED_PREFIX, &[&(!(open_ms.max(0) as u64)).to_be_bytes(), &[0xff; 16]])
}

/// The transaction id that each of the index keys ends with.
pub(crate) fn transaction_of(key: &[u8]) -> Option<TransactionId> {
    Some(TransactionId(u128::from_be_bytes(*key.last_chunk()?)))
}

fn join(prefix: &[u8], parts: &[&[u8]]) -> Bytes {
    let mut key = prefix.to_vec();
    for part in parts {
        key.extend_from_slice(part);
    }
    key.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_sort_by_epoch_and_then_by_position() {
        let id = |epoch: u128, number: u128| TransactionId(epoch << 96 | number);
        let mut keys =
            [committing(7, id(1, 1)), committing(300, id(0, 2)), committing(2, id(0, 9)), committing(2, id(0x0100, 0))];
        keys.sort();
        let order: Vec<_> = keys.iter().map(|key| transaction_of(key).unwrap()).collect();
        assert_eq!(order, vec![id(0, 9), id(0, 2), id(1, 1), id(0x0100, 0)]);
        assert_eq!(committing_position(&keys[1]), Some(300));
    }

    #[test]
    fn completed_transactions_sort_newest_first() {
        let id = TransactionId(1);
        let (old, new) = (completed(1000, id), completed(2000, id));
        assert!(new < old);
        assert!(completed_before(1500) < old && completed_before(1500) > new);
        assert!(completed_before(1000) > old, "the very millisecond is not before");
        assert_eq!([&old, &new].map(|key| completed_ms(key)), [Some(1000), Some(2000)]);
        assert_eq!(completed_ms(b"d"), None);
        assert!(completed(0, id).as_ref() < COMPLETED_BY_WALL_PREFIX);
    }
}
