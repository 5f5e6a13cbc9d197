//! What each outcome of the store looks like on the wire. The one place that invents replies of the segment store
//! protocol, and it is exhaustive: a new refusal of the engine does not compile until it has a reply here.
//!
//! The protocol has no reply for our own troubles (damage, a store that closes), and clients take an unknown one worse
//! than a closed connection, so those are answered with [`Verdict::Close`].
//!
//! Rules that hold for every reply:
//! * the request id, the offset and the segment's name are the ones that were asked, since clients match by them
//! * a transient segment is never named in a refusal, its parent is: the Rust client cannot parse the name
//! * a read of an open segment is never answered empty: readers take that for the end
//! * a page of a table with entries carries a continuation, only the empty page carries none
//!
//! Source: Pravega wire protocol 17, failure mapping of its request processor.

use bytes::{BufMut, Bytes, BytesMut};
use headwater_engine::api::{
    Outcome, ReadResult, Refusal, Request, Response, ScanRange, StoredChunk, TableEntry as StoredEntry, VERSION_MISSING,
};
use headwater_types::limits::{FRAME_PAYLOAD_BYTES_MAX, TABLE_KEY_BYTES_MAX, TABLE_VALUE_BYTES_MAX};
use headwater_types::{EventNumber, Offset, SegmentName, WriterId};
use headwater_wire::{
    ChunkInfo, ErrorCode, MergedSource, NOT_EXISTS, Reply, SegmentPieces, TableEntry, TableKey, Text,
};

use crate::private::forget_client_table;
use crate::session::{Answer, AppendResult};

/// What a reply has to repeat of its request, or needs besides the outcome.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The client's id.
    pub(crate) request_id: i64,
    /// The segment as the client named it; of a merge the target, of a transient segment its own name.
    pub(crate) segment: Text,
    /// What was asked.
    pub(crate) what: What,
}

/// See [`Asked`]. Offsets are those of the request, whatever they are.
#[derive(Debug)]
pub(crate) enum What {
    Create,
    /// A table that goes with its scope; its name was put down, `request` creates it.
    CreateClientTable {
        request: Box<Request>,
    },
    CreateTransient,
    Info,
    Read {
        offset: i64,
        bytes_max: usize,
    },
    Seal,
    Truncate {
        offset: i64,
    },
    Delete,
    Merge {
        source: Text,
    },
    MergeBatch {
        sources: Vec<Text>,
    },
    Attribute,
    UpdateAttribute,
    SetPolicy,
    Locate,
    TableUpdate {
        offset: i64,
    },
    TableRemove {
        offset: i64,
    },
    /// `left`: keys not yet looked up; `found`: entries of those that were; `bytes`: what they take in a reply.
    TableGet {
        table: SegmentName,
        left: Vec<Bytes>,
        found: Vec<TableEntry>,
        bytes: usize,
        asked: Vec<Bytes>,
    },
    /// The kind of the table decides whether the page may be asked for in this way.
    ScanOfKind {
        table: SegmentName,
        page: Page,
    },
    Scan {
        keys_only: bool,
    },
    Delta,
    TableInfo,
    DeleteTable,
    ListChunks,
    /// Of a whole container.
    Flush,
    /// A table that goes with its scope: the version of its note was asked for.
    DeleteClientTable {
        table: SegmentName,
        must_be_empty: bool,
    },
    /// Its deletion was asked for; its note has this version.
    DeleteNotedTable {
        table: SegmentName,
        note: Option<i64>,
    },
    /// It is deleted, and whether its note is gone changes nothing.
    ForgetClientTable,
}

/// A page of a table's iteration, as asked for.
#[derive(Debug)]
pub(crate) struct Page {
    /// The continuation of an earlier page; empty for none.
    pub(crate) continuation: Bytes,
    /// First key, included; empty for none.
    pub(crate) from: Bytes,
    /// Last key, included; empty for none.
    pub(crate) to: Bytes,
    /// Most entries.
    pub(crate) count_max: usize,
    /// No values wanted.
    pub(crate) keys_only: bool,
}

/// What to do about an outcome.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Send this.
    Reply(Reply),
    /// Send this: a read whose data is in several pieces.
    Pieces(SegmentPieces),
    /// Send this, then close the connection.
    ReplyAndClose(Reply),
    /// Close the connection without a reply; the text is for the log.
    Close(&'static str),
    /// The answer takes one more request to the store.
    Again(Request, Asked),
}

/// Most keys looked up at a time: with the largest values their reply just fits into a frame.
pub(crate) const GET_KEYS_MAX: usize = 15;
const _: () =
    assert!(GET_KEYS_MAX * (TABLE_KEY_BYTES_MAX + TABLE_VALUE_BYTES_MAX + ENTRY_OVERHEAD_BYTES) < REPLY_BYTES_MAX);

/// Bytes of an entry in a reply besides its key and value.
const ENTRY_OVERHEAD_BYTES: usize = 24;
/// Entries a reply may carry; leaves room for the fields around them.
const REPLY_BYTES_MAX: usize = FRAME_PAYLOAD_BYTES_MAX - (64 << 10) - 1024;

/// First byte of our continuations; the rest is the last key of the page. Clients return them as they are.
const CONTINUATION_VERSION: u8 = 1;

/// No offset to report.
const NO_OFFSET: i64 = -1;

/// The answer to anything but appends and setups.
pub(crate) fn verdict(asked: Asked, outcome: Outcome) -> Verdict {
    match outcome {
        Ok(response) => done(asked, response),
        // Someone created a table of that name meanwhile, or the store closes: the deletion stays true.
        Err(_) if matches!(asked.what, What::ForgetClientTable) => Verdict::Reply(deleted(asked)),
        Err(refusal) => refused(&asked, refusal),
    }
}

fn deleted(asked: Asked) -> Reply {
    Reply::SegmentDeleted { request_id: asked.request_id, segment: asked.segment }
}

/// A request whose segment name no segment can have.
pub(crate) fn no_such_segment(asked: &Asked) -> Reply {
    refusal_of_missing(asked)
}

/// A request that can never succeed. `message` is ASCII: clients decode it strictly.
pub(crate) fn illegal(request_id: i64, segment: &Text, message: &str) -> Reply {
    debug_assert!(message.is_ascii(), "messages are ASCII");
    let (segment, code) = (segment.clone(), ErrorCode::IllegalArgument);
    Reply::ErrorMessage { request_id, segment, message: message.into(), code }
}

/// The answer to an append or setup whose turn has come.
pub(crate) fn writer_verdict(writer: WriterId, segment: &Text, answer: Answer) -> Verdict {
    let trace = Text::default();
    Verdict::Reply(match answer {
        Answer::Opened { request, last } => Reply::AppendSetup {
            request_id: request,
            segment: segment.clone(),
            writer,
            last_event_number: number_on_wire(last),
        },
        Answer::Stored { request, number, previous, length } => Reply::DataAppended {
            writer,
            event_number: number,
            previous_event_number: number_on_wire(previous),
            request_id: request,
            segment_length: on_wire(length),
        },
        Answer::ConditionFailed { request, number } => {
            Reply::ConditionalCheckFailed { writer, event_number: number, request_id: request }
        }
        Answer::Stale { request, number } => {
            let reply = Reply::InvalidEventNumber { writer, request_id: request, trace, event_number: number };
            return Verdict::ReplyAndClose(reply);
        }
        Answer::NotOpened { request, refusal } => return setup_refused(request, segment, refusal),
        Answer::Refused { request, number, refusal } => return append_refused(request, segment, number, refusal),
    })
}

/// What an append's outcome means for its writer.
pub(crate) fn append_result(outcome: Outcome) -> AppendResult {
    match outcome {
        Ok(Response::Appended { length }) => AppendResult::Stored { length },
        Ok(other) => unreachable!("the store answered an append with {other:?}"),
        Err(Refusal::LengthMismatch { .. }) => AppendResult::ConditionFailed,
        Err(Refusal::WriterConflict { .. }) => AppendResult::Stale,
        Err(refusal) => AppendResult::Refused(refusal),
    }
}

fn setup_refused(request_id: i64, segment: &Text, refusal: Refusal) -> Verdict {
    let asked = Asked { request_id, segment: segment.clone(), what: What::Info };
    match refusal {
        Refusal::NoSuchSegment => Verdict::Reply(refusal_of_missing(&asked)),
        other => close(&other),
    }
}

fn append_refused(request_id: i64, segment: &Text, number: EventNumber, refusal: Refusal) -> Verdict {
    let (segment, trace) = (named(segment), Text::default());
    match refusal {
        Refusal::Sealed => Verdict::Reply(Reply::SegmentIsSealed { request_id, segment, trace, offset: number }),
        Refusal::NoSuchSegment => {
            Verdict::Reply(Reply::NoSuchSegment { request_id, segment, trace, offset: NO_OFFSET })
        }
        Refusal::Unsupported => {
            let operation = "appending data".into();
            Verdict::Reply(Reply::OperationUnsupported { request_id, operation, trace })
        }
        other => close(&other),
    }
}

/// Refusals that the protocol has no reply for, in the words of the log.
fn close(refusal: &Refusal) -> Verdict {
    Verdict::Close(match refusal {
        Refusal::NoSuchSegment => "no such segment",
        Refusal::SegmentExists => "segment exists",
        Refusal::Sealed => "segment is sealed",
        Refusal::Truncated { .. } => "offset was truncated",
        Refusal::BehindEnd { .. } => "offset behind the end",
        Refusal::WriterConflict { .. } => "writer's number is another",
        Refusal::LengthMismatch { .. } => "segment's length is another",
        Refusal::AttributeMismatch => "attribute has another value",
        Refusal::KeyMissing => "key does not exist",
        Refusal::KeyVersion => "key has another version",
        Refusal::OffsetMismatch { .. } => "table's length is another",
        Refusal::TableNotEmpty => "table is not empty",
        Refusal::WrongKind => "segment is of another kind",
        Refusal::SourceTruncated => "source of a merge is truncated",
        Refusal::Invalid(what) => what,
        Refusal::Unsupported => "not supported",
        Refusal::Damaged => "stored bytes are damaged",
        Refusal::Unavailable => "stored bytes cannot be reached for now",
        Refusal::Closing => "store is closing",
    })
}

fn refused(asked: &Asked, refusal: Refusal) -> Verdict {
    let Asked { request_id, segment, what } = asked;
    let (request_id, trace) = (*request_id, Text::default());
    Verdict::Reply(match refusal {
        Refusal::NoSuchSegment => refusal_of_missing(asked),
        Refusal::SegmentExists => Reply::SegmentAlreadyExists { request_id, segment: segment.clone(), trace },
        Refusal::Sealed => {
            let (segment, offset) = (named(name_in_refusal(asked)), asked_offset(what));
            Reply::SegmentIsSealed { request_id, segment, trace, offset }
        }
        Refusal::Truncated { start } => match what {
            // Odd, but what clients of this command know.
            What::Locate => Reply::SegmentTruncated { request_id, segment: segment.clone() },
            _ => Reply::SegmentIsTruncated {
                request_id,
                segment: segment.clone(),
                start_offset: on_wire(start),
                trace,
                offset: asked_offset(what),
            },
        },
        Refusal::OffsetMismatch { length } => Reply::SegmentIsTruncated {
            request_id,
            segment: segment.clone(),
            start_offset: on_wire(length),
            trace,
            offset: asked_offset(what),
        },
        Refusal::BehindEnd { .. } => illegal(request_id, segment, "offset lies behind the end of the segment"),
        Refusal::AttributeMismatch => Reply::SegmentAttributeUpdated { request_id, success: false },
        Refusal::KeyMissing => Reply::TableKeyDoesNotExist { request_id, segment: segment.clone(), trace },
        Refusal::KeyVersion => Reply::TableKeyBadVersion { request_id, segment: segment.clone(), trace },
        Refusal::TableNotEmpty => Reply::TableSegmentNotEmpty { request_id, segment: segment.clone(), trace },
        Refusal::Invalid(message) => illegal(request_id, segment, message),
        Refusal::Unsupported => Reply::OperationUnsupported { request_id, operation: operation(what).into(), trace },
        Refusal::WriterConflict { .. }
        | Refusal::LengthMismatch { .. }
        | Refusal::WrongKind
        | Refusal::SourceTruncated
        | Refusal::Damaged
        | Refusal::Unavailable
        | Refusal::Closing => return close(&refusal),
    })
}

fn done(asked: Asked, response: Response) -> Verdict {
    let Asked { request_id, segment, what } = asked;
    Verdict::Reply(match (what, response) {
        (What::Create | What::CreateTransient, Response::Done) => Reply::SegmentCreated { request_id, segment },
        (What::CreateClientTable { request }, Response::Versions(_)) => {
            return Verdict::Again(*request, Asked { request_id, segment, what: What::Create });
        }
        (What::Info, Response::Info(info)) => Reply::StreamSegmentInfo {
            request_id,
            segment,
            exists: true,
            sealed: info.sealed,
            deleted: false,
            last_modified: info.modified_millis,
            write_offset: on_wire(info.length),
            start_offset: on_wire(info.start),
        },
        (What::Read { offset, bytes_max }, Response::Read(read)) => {
            return read_done(request_id, segment, offset, bytes_max, read);
        }
        (What::Seal, Response::Sealed { .. }) => Reply::SegmentSealed { request_id, segment },
        (What::Flush, Response::Done) => Reply::StorageFlushed { request_id },
        (What::ListChunks, Response::Chunks(chunks)) => {
            let chunk = |chunk: StoredChunk| ChunkInfo {
                length_in_metadata: on_wire(chunk.length),
                // The catalogue names only what was written and synced before.
                length_in_storage: on_wire(chunk.length),
                start_offset: on_wire(chunk.start),
                chunk_name: chunk.name.as_str().into(),
                exists_in_storage: true,
            };
            Reply::StorageChunksListed { request_id, chunks: chunks.into_iter().map(chunk).collect() }
        }
        (What::Truncate { .. }, Response::Done) => Reply::SegmentTruncated { request_id, segment },
        (What::Delete | What::DeleteTable, Response::Done) => Reply::SegmentDeleted { request_id, segment },
        (What::DeleteClientTable { table, must_be_empty }, Response::Values(notes)) => {
            let note = notes.into_iter().next().flatten().map(|note| note.version);
            let request = Request::DeleteTable { segment: table.clone(), must_be_empty };
            let what = What::DeleteNotedTable { table, note };
            return Verdict::Again(request, Asked { request_id, segment, what });
        }
        (What::DeleteNotedTable { table, note: Some(version) }, Response::Done) => {
            let request = forget_client_table(&table, version);
            return Verdict::Again(request, Asked { request_id, segment, what: What::ForgetClientTable });
        }
        (What::DeleteNotedTable { note: None, .. }, Response::Done)
        | (What::ForgetClientTable, Response::Versions(_)) => Reply::SegmentDeleted { request_id, segment },
        (What::Merge { source }, Response::Merged { length }) => {
            Reply::SegmentsMerged { request_id, target: segment, source, target_length: on_wire(length) }
        }
        (What::MergeBatch { sources }, Response::MergedBatch(lengths)) => {
            assert_eq!(sources.len(), lengths.len(), "the store answers every source of a merge");
            let merged = sources.into_iter().zip(lengths);
            let merged = merged.map(|(source, length)| MergedSource { source, target_length: on_wire(length) });
            Reply::SegmentsBatchMerged { request_id, target: segment, merged: merged.collect() }
        }
        (What::Attribute, Response::Attribute(value)) => Reply::SegmentAttribute { request_id, value },
        (What::UpdateAttribute, Response::Done) => Reply::SegmentAttributeUpdated { request_id, success: true },
        (What::SetPolicy, Response::Done) => Reply::SegmentPolicyUpdated { request_id, segment },
        (What::Locate, Response::Located(offset)) => {
            Reply::OffsetLocated { request_id, segment, offset: on_wire(offset) }
        }
        (What::TableUpdate { .. }, Response::Versions(versions)) => Reply::TableEntriesUpdated { request_id, versions },
        (What::TableRemove { .. }, Response::Versions(_)) => Reply::TableKeysRemoved { request_id, segment },
        (What::TableGet { table, left, found, bytes, asked }, Response::Values(values)) => {
            return got(request_id, segment, Lookup { table, left, found, bytes, asked }, values);
        }
        (What::ScanOfKind { table, page }, Response::Table(info)) => {
            return scan_of_kind(request_id, segment, table, page, info.key_length);
        }
        (What::Scan { keys_only }, Response::Page(entries)) => {
            let continuation = entries.last().map_or(Bytes::new(), |last| {
                let mut continuation = BytesMut::with_capacity(1 + last.key.len());
                continuation.put_u8(CONTINUATION_VERSION);
                continuation.extend_from_slice(&last.key);
                continuation.freeze()
            });
            if keys_only {
                let keys = entries.into_iter().map(|entry| TableKey { key: entry.key, version: entry.version });
                Reply::TableKeysRead { request_id, segment, keys: keys.collect(), continuation }
            } else {
                let entries = entries.into_iter().map(entry_on_wire).collect();
                Reply::TableEntriesRead { request_id, segment, entries, continuation }
            }
        }
        (What::Delta, Response::Delta(delta)) => Reply::TableEntriesDeltaRead {
            request_id,
            segment,
            entries: delta.entries.into_iter().map(entry_on_wire).collect(),
            should_clear: delta.should_clear,
            reached_end: delta.reached_end,
            last_position: on_wire(delta.position),
        },
        (What::TableInfo, Response::Table(info)) => Reply::TableSegmentInfo {
            request_id,
            segment,
            start_offset: on_wire(info.start),
            length: on_wire(info.length),
            entry_count: i64::try_from(info.entries).unwrap_or(i64::MAX),
            key_length: i32::try_from(info.key_length).expect("key lengths are at most 256"),
        },
        (what, response) => unreachable!("the store answered {what:?} with {response:?}"),
    })
}

fn read_done(request_id: i64, segment: Text, offset: i64, bytes_max: usize, read: ReadResult) -> Verdict {
    let bytes: usize = read.data.iter().map(Bytes::len).sum();
    assert!(bytes <= bytes_max, "the store reads {bytes} bytes at most {bytes_max}");
    if bytes == 0 && !read.end_of_segment {
        // The store is closing. An empty reply would look like the end of the segment to the Rust client's byte reader.
        return close(&Refusal::Closing);
    }
    let ReadResult { mut data, at_tail, end_of_segment } = read;
    if data.len() > 1 {
        return Verdict::Pieces(SegmentPieces { segment, offset, at_tail, end_of_segment, data, request_id });
    }
    let data = data.pop().unwrap_or_default();
    Verdict::Reply(Reply::SegmentRead { segment, offset, at_tail, end_of_segment, data, request_id })
}

/// A `ReadTable` that is looked up in parts, so that many keys with large values never lie in memory together.
struct Lookup {
    table: SegmentName,
    left: Vec<Bytes>,
    found: Vec<TableEntry>,
    bytes: usize,
    asked: Vec<Bytes>,
}

fn got(request_id: i64, segment: Text, mut lookup: Lookup, values: Vec<Option<StoredEntry>>) -> Verdict {
    assert_eq!(lookup.asked.len(), values.len(), "the store answers every key");
    for (key, value) in lookup.asked.drain(..).zip(values) {
        let entry = match value {
            Some(entry) => entry_on_wire(entry),
            None => TableEntry { key: TableKey { key, version: NOT_EXISTS }, value: Bytes::new() },
        };
        lookup.bytes += ENTRY_OVERHEAD_BYTES + entry.key.key.len() + entry.value.len();
        lookup.found.push(entry);
    }
    if lookup.bytes > REPLY_BYTES_MAX {
        return Verdict::Reply(illegal(request_id, &segment, "the values asked for do not fit into one reply"));
    }
    if lookup.left.is_empty() {
        return Verdict::Reply(Reply::TableRead { request_id, segment, entries: lookup.found });
    }
    look_up(request_id, segment, lookup)
}

/// Looks up the next keys of a `ReadTable`.
fn look_up(request_id: i64, segment: Text, lookup: Lookup) -> Verdict {
    let Lookup { table, mut left, found, bytes, .. } = lookup;
    let rest = left.split_off(left.len().min(GET_KEYS_MAX));
    let request = Request::TableGet { segment: table.clone(), keys: left.clone() };
    let what = What::TableGet { table, left: rest, found, bytes, asked: left };
    Verdict::Again(request, Asked { request_id, segment, what })
}

/// The first lookup of a `ReadTable`.
pub(crate) fn table_get(request_id: i64, segment: Text, table: SegmentName, keys: Vec<Bytes>) -> Verdict {
    look_up(request_id, segment, Lookup { table, left: keys, found: Vec::new(), bytes: 0, asked: Vec::new() })
}

/// The first page of an iteration, or a later one.
pub(crate) fn table_scan(request_id: i64, segment: Text, table: SegmentName, page: Page) -> Verdict {
    if page.continuation.is_empty() && page.from.is_empty() && page.to.is_empty() {
        return scan(request_id, segment, table, ScanRange::default(), &page);
    }
    let request = Request::TableInfo { segment: table.clone() };
    Verdict::Again(request, Asked { request_id, segment, what: What::ScanOfKind { table, page } })
}

fn scan_of_kind(request_id: i64, segment: Text, table: SegmentName, page: Page, key_length: u32) -> Verdict {
    let fixed = key_length > 0;
    let refuse = |message| Verdict::Reply(illegal(request_id, &segment, message));
    let some = |key: &Bytes| (!key.is_empty()).then(|| key.clone());
    let range = match (fixed, page.continuation.first()) {
        (true, Some(_)) => return refuse("a table of fixed key length is continued by its keys"),
        (true, None) => ScanRange { from: some(&page.from), to: some(&page.to), ..ScanRange::default() },
        (false, _) if !page.from.is_empty() || !page.to.is_empty() => {
            return refuse("a hash table has no ranges of keys");
        }
        (false, Some(&CONTINUATION_VERSION)) if page.continuation.len() > 1 => {
            ScanRange { from: Some(page.continuation.slice(1..)), exclusive: true, ..ScanRange::default() }
        }
        (false, Some(_)) => return refuse("continuation is not one of ours"),
        (false, None) => ScanRange::default(),
    };
    scan(request_id, segment, table, range, &page)
}

fn scan(request_id: i64, segment: Text, table: SegmentName, range: ScanRange, page: &Page) -> Verdict {
    let Page { count_max, keys_only, .. } = *page;
    let request = Request::TableScan { segment: table, range, count_max, keys_only };
    Verdict::Again(request, Asked { request_id, segment, what: What::Scan { keys_only } })
}

fn refusal_of_missing(asked: &Asked) -> Reply {
    Reply::NoSuchSegment {
        request_id: asked.request_id,
        segment: named(name_in_refusal(asked)),
        trace: Text::default(),
        offset: asked_offset(&asked.what),
    }
}

/// Merges of one segment are refused in the name of their source, whichever of the two is at fault.
fn name_in_refusal(asked: &Asked) -> &Text {
    match &asked.what {
        What::Merge { source } => source,
        _ => &asked.segment,
    }
}

/// The name to use in a refusal: a transient segment goes by its parent's.
fn named(segment: &Text) -> Text {
    match SegmentName::parse(segment) {
        Ok(name) if name.is_transient() => name.parent().map_or(segment.clone(), |parent| parent.as_str().into()),
        _ => segment.clone(),
    }
}

/// The offset that a refusal repeats.
fn asked_offset(what: &What) -> i64 {
    match what {
        What::Read { offset, .. }
        | What::Truncate { offset }
        | What::TableUpdate { offset }
        | What::TableRemove { offset } => *offset,
        What::Create
        | What::CreateClientTable { .. }
        | What::CreateTransient
        | What::Info
        | What::Seal
        | What::Delete
        | What::Merge { .. }
        | What::MergeBatch { .. }
        | What::Attribute
        | What::UpdateAttribute
        | What::SetPolicy
        | What::Locate
        | What::TableGet { .. }
        | What::ScanOfKind { .. }
        | What::Scan { .. }
        | What::Delta
        | What::TableInfo
        | What::DeleteTable
        | What::ListChunks
        | What::Flush
        | What::DeleteClientTable { .. }
        | What::DeleteNotedTable { .. }
        | What::ForgetClientTable => NO_OFFSET,
    }
}

/// What an unsupported operation is called.
fn operation(what: &What) -> &'static str {
    match what {
        What::Create | What::CreateClientTable { .. } | What::CreateTransient => "createSegment",
        What::Info => "getStreamSegmentInfo",
        What::Read { .. } => "readSegment",
        What::Seal => "sealSegment",
        What::Truncate { .. } => "truncateSegment",
        What::Delete => "deleteSegment",
        What::Merge { .. } | What::MergeBatch { .. } => "mergeSegments",
        What::Attribute => "getSegmentAttribute",
        What::UpdateAttribute => "updateSegmentAttribute",
        What::SetPolicy => "updateSegmentPolicy",
        What::Locate => "locateOffset",
        What::TableUpdate { .. } => "updateTableEntries",
        What::TableRemove { .. } => "removeTableKeys",
        What::TableGet { .. } => "readTable",
        What::ScanOfKind { .. } | What::Scan { .. } => "readTableEntries",
        What::Delta => "readTableEntriesDelta",
        What::TableInfo => "getTableSegmentInfo",
        What::ListChunks => "listStorageChunks",
        What::Flush => "flushToStorage",
        What::DeleteTable
        | What::DeleteClientTable { .. }
        | What::DeleteNotedTable { .. }
        | What::ForgetClientTable => "deleteTableSegment",
    }
}

fn entry_on_wire(entry: StoredEntry) -> TableEntry {
    assert!(entry.version > VERSION_MISSING, "versions are never negative");
    TableEntry { key: TableKey { key: entry.key, version: entry.version }, value: entry.value }
}

fn on_wire(offset: Offset) -> i64 {
    i64::try_from(offset).expect("no segment reaches 2^63 bytes")
}

fn number_on_wire(number: Option<EventNumber>) -> i64 {
    number.unwrap_or(i64::MIN)
}

#[cfg(test)]
mod tests {
    use headwater_engine::api::TableInfo;

    use super::*;

    const SEGMENT: &str = "scope/stream/0.#epoch.0";
    const TRANSIENT: &str =
        "scope/stream/0.#epoch.0#transient.00000000000000000000000000000001.00000000000000000000000000000002";

    fn asked(segment: &str, what: What) -> Asked {
        Asked { request_id: 5, segment: segment.into(), what }
    }

    #[track_caller]
    fn reply(asked: Asked, outcome: Outcome) -> Reply {
        match verdict(asked, outcome) {
            Verdict::Reply(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    fn table() -> SegmentName {
        SegmentName::parse("s/t_kvtable/0.#epoch.0").unwrap()
    }

    #[test]
    fn a_truncated_read_names_where_data_starts_before_what_was_asked() {
        let what = What::Read { offset: 3, bytes_max: 8 };
        let expected = Reply::SegmentIsTruncated {
            request_id: 5,
            segment: SEGMENT.into(),
            start_offset: 13,
            trace: "".into(),
            offset: 3,
        };
        assert_eq!(reply(asked(SEGMENT, what), Err(Refusal::Truncated { start: 13 })), expected);
    }

    #[test]
    fn a_transient_segment_is_never_named_in_a_refusal() {
        let merge = || asked(SEGMENT, What::Merge { source: TRANSIENT.into() });
        for (refusal, asked) in [
            (Refusal::NoSuchSegment, asked(TRANSIENT, What::Info)),
            (Refusal::Sealed, asked(TRANSIENT, What::Seal)),
            (Refusal::NoSuchSegment, merge()),
            (Refusal::Sealed, merge()),
        ] {
            match reply(asked, Err(refusal)) {
                Reply::NoSuchSegment { segment, .. } | Reply::SegmentIsSealed { segment, .. } => {
                    assert_eq!(&*segment, SEGMENT);
                }
                other => panic!("{other:?}"),
            }
        }
        for refusal in [Refusal::Sealed, Refusal::NoSuchSegment] {
            let answer = Answer::Refused { request: 5, number: 0, refusal };
            match writer_verdict(WriterId(1), &TRANSIENT.into(), answer) {
                Verdict::Reply(Reply::SegmentIsSealed { segment, offset: 0, .. })
                | Verdict::Reply(Reply::NoSuchSegment { segment, offset: -1, .. }) => assert_eq!(&*segment, SEGMENT),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_merge_of_a_transaction_is_refused_in_the_name_of_its_source() {
        let source = "scope/stream/0.#epoch.0#transaction.00000000000000010000000000000002";
        let what = What::Merge { source: source.into() };
        match reply(asked(SEGMENT, what), Err(Refusal::NoSuchSegment)) {
            Reply::NoSuchSegment { segment, offset: -1, .. } => assert_eq!(&*segment, source),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_open_segment_is_never_read_empty() {
        let empty = |end_of_segment| {
            let read = ReadResult { data: Vec::new(), at_tail: true, end_of_segment };
            verdict(asked(SEGMENT, What::Read { offset: 0, bytes_max: 8 }), Ok(Response::Read(read)))
        };
        assert!(matches!(empty(false), Verdict::Close(_)));
        assert!(matches!(empty(true), Verdict::Reply(Reply::SegmentRead { end_of_segment: true, .. })));
    }

    #[test]
    fn pieces_of_a_read_are_sent_in_order_and_not_joined() {
        let data = vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")];
        let read = ReadResult { data: data.clone(), at_tail: false, end_of_segment: false };
        match verdict(asked(SEGMENT, What::Read { offset: 7, bytes_max: 8 }), Ok(Response::Read(read))) {
            Verdict::Pieces(SegmentPieces { offset: 7, data: sent, .. }) => assert_eq!(sent, data),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_lookup_of_many_keys_goes_in_parts_and_answers_every_key_in_order() {
        let keys: Vec<Bytes> = (0..40_u8).map(|key| vec![key].into()).collect();
        let mut next = table_get(5, "t".into(), table(), keys.clone());
        let mut rounds = 0;
        let entries = loop {
            match next {
                Verdict::Again(Request::TableGet { keys, .. }, asked) => {
                    assert!(keys.len() <= GET_KEYS_MAX);
                    rounds += 1;
                    // Every other key exists.
                    let value = |key: Bytes| {
                        key[0].is_multiple_of(2).then(|| StoredEntry { key: key.clone(), version: 7, value: key })
                    };
                    next = verdict(asked, Ok(Response::Values(keys.into_iter().map(value).collect())));
                }
                Verdict::Reply(Reply::TableRead { entries, .. }) => break entries,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(rounds, 3);
        assert_eq!(entries.iter().map(|entry| entry.key.key.clone()).collect::<Vec<_>>(), keys);
        for entry in entries {
            let even = entry.key.key[0].is_multiple_of(2);
            assert_eq!((entry.key.version, entry.value.is_empty()), if even { (7, false) } else { (-1, true) });
        }
    }

    #[test]
    fn a_lookup_whose_values_do_not_fit_into_a_frame_ends_as_soon_as_that_is_known() {
        let value = Bytes::from(vec![7; TABLE_VALUE_BYTES_MAX]);
        let mut next = table_get(5, "t".into(), table(), vec![Bytes::from_static(b"k"); 100]);
        let mut rounds = 0;
        loop {
            match next {
                Verdict::Again(Request::TableGet { keys, .. }, asked) => {
                    rounds += 1;
                    let found = |key| Some(StoredEntry { key, version: 7, value: value.clone() });
                    next = verdict(asked, Ok(Response::Values(keys.into_iter().map(found).collect())));
                }
                Verdict::Reply(Reply::ErrorMessage { request_id: 5, code: ErrorCode::IllegalArgument, .. }) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(rounds, 2, "what one lookup brings always fits");
    }

    #[test]
    fn only_the_empty_page_has_no_continuation_and_a_continuation_goes_on_behind_its_key() {
        let page = |continuation: Bytes| Page {
            continuation,
            from: Bytes::new(),
            to: Bytes::new(),
            count_max: 1,
            keys_only: false,
        };
        let Verdict::Again(_, first) = table_scan(5, "t".into(), table(), page(Bytes::new())) else { panic!() };
        let entry = StoredEntry { key: "k1".into(), version: 0, value: "v1".into() };
        let continuation = match verdict(first, Ok(Response::Page(vec![entry]))) {
            Verdict::Reply(Reply::TableEntriesRead { continuation, .. }) => continuation,
            other => panic!("{other:?}"),
        };
        let Verdict::Again(Request::TableInfo { .. }, kind) = table_scan(5, "t".into(), table(), page(continuation))
        else {
            panic!()
        };
        let info = TableInfo { start: 0, length: 21, entries: 1, key_length: 0 };
        let second = match verdict(kind, Ok(Response::Table(info))) {
            Verdict::Again(Request::TableScan { range, .. }, second) => {
                let expected = ScanRange { from: Some("k1".into()), exclusive: true, ..ScanRange::default() };
                assert_eq!(range, expected);
                second
            }
            other => panic!("{other:?}"),
        };
        match verdict(second, Ok(Response::Page(Vec::new()))) {
            Verdict::Reply(Reply::TableEntriesRead { entries, continuation, .. }) => {
                assert!(entries.is_empty() && continuation.is_empty());
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_kind_of_table_is_paged_in_its_own_way_only() {
        for (key_length, continuation, from, good) in [
            (0, &b"\x01a"[..], &b""[..], true),
            (0, b"\x02a", b"", false),
            (0, b"\x01", b"", false),
            (0, b"", b"a", false),
            (4, b"", b"aaaa", true),
            (4, b"\x01a", b"", false),
        ] {
            let page = Page {
                continuation: Bytes::copy_from_slice(continuation),
                from: Bytes::copy_from_slice(from),
                to: Bytes::new(),
                count_max: 1,
                keys_only: true,
            };
            let Verdict::Again(_, kind) = table_scan(5, "t".into(), table(), page) else { panic!() };
            let info = TableInfo { start: 0, length: 0, entries: 0, key_length };
            let said = verdict(kind, Ok(Response::Table(info)));
            match said {
                Verdict::Again(Request::TableScan { .. }, _) if good => {}
                Verdict::Reply(Reply::ErrorMessage { code: ErrorCode::IllegalArgument, .. }) if !good => {}
                other => panic!("{key_length} {continuation:?} {from:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_invalid_event_number_closes_the_connection() {
        let answer = Answer::Stale { request: 9, number: 5 };
        match writer_verdict(WriterId(1), &SEGMENT.into(), answer) {
            Verdict::ReplyAndClose(Reply::InvalidEventNumber { request_id: 9, event_number: 5, .. }) => {}
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_writer_that_never_wrote_gets_the_number_that_says_so() {
        match writer_verdict(WriterId(1), &SEGMENT.into(), Answer::Opened { request: 1, last: None }) {
            Verdict::Reply(Reply::AppendSetup { last_event_number: i64::MIN, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}
