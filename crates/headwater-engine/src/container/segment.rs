//! What a container remembers of a segment while it is in use.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use headwater_types::AttributeId;

use crate::api::{SegmentKind, SegmentPolicy};
use crate::canary;
use crate::codec::{Decoder, Encoder, Malformed};

use super::keys::OFFSET_MAX;
use super::operation::{decode_kind, decode_policy, encode_kind, encode_policy};

/// A segment in memory. Everything here but `extents`, `parked` and the counters at the end is also in the catalogue,
/// except what is marked dirty.
#[derive(Debug)]
pub(super) struct Segment<T> {
    /// Name it is kept under.
    pub(super) key: String,
    pub(super) kind: SegmentKind,
    pub(super) policy: SegmentPolicy,
    pub(super) created: i64,
    pub(super) modified: i64,
    pub(super) start: u64,
    /// Bytes ordered so far, durable or not.
    pub(super) length: u64,
    pub(super) sealed: bool,
    pub(super) event_count: u64,
    /// Live keys of a table.
    pub(super) entries: u64,
    /// Bytes of the log that live entries take up.
    pub(super) live_bytes: u64,
    /// Where the newest remembered append ended.
    pub(super) last_boundary: u64,

    /// Some of the above is newer than the catalogue.
    pub(super) dirty: bool,
    /// Attributes newer than the catalogue.
    pub(super) attributes: BTreeMap<AttributeId, i64>,
    /// How many are set, as far as known without looking. Kept of transient segments, which none survives its run.
    pub(super) attributes_set: Option<usize>,
    /// Bytes in memory, by offset: all that is in no chunk yet, and what the cache has kept. Never overlapping.
    pub(super) extents: BTreeMap<u64, Extent>,
    /// The writer of the newest append and its number, in the catalogue or not: most segments have one writer at a time.
    pub(super) newest: Option<(AttributeId, i64)>,
    /// Something is looked up for the compaction of its log.
    pub(super) compacting: bool,
    /// Reads that wait for the segment to grow or end.
    pub(super) parked: Vec<Parked<T>>,
    /// Last operation that touched the segment.
    pub(super) last_sequence: u64,
    /// Bytes that readers may see. Never above `length`.
    pub(super) durable_length: u64,
}

/// What an extent costs in memory beside its bytes: its place in the map, its handle, its place in the cache's queue.
pub(super) const EXTENT_OVERHEAD_BYTES: u64 = 160;

/// Consecutive bytes in memory.
#[derive(Clone, Debug)]
pub(super) struct Extent {
    pub(super) bytes: Bytes,
    /// Also in a chunk, or about to be named by the catalogue: memory may be given back.
    pub(super) stored: bool,
}

impl Extent {
    /// Memory it takes, in bytes.
    pub(super) fn cost(&self) -> u64 {
        self.bytes.len() as u64 + EXTENT_OVERHEAD_BYTES
    }
}

/// A read that waits.
#[derive(Debug)]
pub(super) struct Parked<T> {
    pub(super) offset: u64,
    pub(super) bytes_max: usize,
    pub(super) token: T,
}

impl<T> Segment<T> {
    pub(super) fn new(key: String, kind: SegmentKind, policy: SegmentPolicy, now: i64) -> Self {
        Self {
            key,
            kind,
            policy,
            created: now,
            modified: now,
            start: 0,
            length: 0,
            sealed: false,
            event_count: 0,
            entries: 0,
            live_bytes: 0,
            last_boundary: 0,
            dirty: true,
            attributes: BTreeMap::new(),
            attributes_set: Some(0),
            extents: BTreeMap::new(),
            newest: None,
            compacting: false,
            parked: Vec::new(),
            last_sequence: 0,
            durable_length: 0,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.u8(1).bytes(self.key.as_bytes());
        encode_kind(&mut out, self.kind);
        encode_policy(&mut out, &self.policy);
        out.i64(self.created)
            .i64(self.modified)
            .u64(self.start)
            .u64(self.length)
            .u8(u8::from(self.sealed && !canary::is(30)));
        out.u64(self.event_count).u64(self.entries).u64(self.live_bytes).u64(self.last_boundary);
        out.0
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(bytes);
        if input.u8()? != 1 {
            return Err(Malformed("segment record of unknown version"));
        }
        let key = input.text()?.to_owned();
        let kind = decode_kind(&mut input)?;
        let policy = decode_policy(&mut input)?;
        let created = input.i64()?;
        let mut segment = Self::new(key, kind, policy, created);
        segment.modified = input.i64()?;
        segment.start = input.u64()?;
        segment.length = input.u64()?;
        segment.sealed = input.u8()? != 0;
        segment.event_count = input.u64()?;
        segment.entries = input.u64()?;
        segment.live_bytes = input.u64()?;
        segment.last_boundary = input.u64()?;
        input.end()?;
        if segment.start > segment.length || segment.length > OFFSET_MAX {
            return Err(Malformed("segment begins behind its end"));
        }
        if segment.last_boundary > segment.length || segment.event_count > OFFSET_MAX {
            return Err(Malformed("segment has appends behind its end"));
        }
        if segment.live_bytes > segment.length - segment.start || segment.entries > segment.live_bytes {
            return Err(Malformed("table has more keys than bytes"));
        }
        segment.durable_length = segment.length;
        segment.dirty = false;
        segment.attributes_set = None;
        Ok(segment)
    }

    /// The value of an attribute, if it is in memory.
    pub(super) fn attribute_in_memory(&self, id: AttributeId) -> Option<i64> {
        let newest = || self.newest.filter(|(writer, _)| *writer == id).map(|(_, number)| number);
        self.attributes.get(&id).copied().or_else(newest)
    }

    /// The extent that holds the byte at `offset`, and where it starts.
    pub(super) fn extent_at(&self, offset: u64) -> Option<(u64, &Extent)> {
        let (start, extent) = self.extents.range(..=offset).next_back()?;
        (offset < start + extent.bytes.len() as u64).then_some((*start, extent))
    }

    /// Start of the first extent behind `offset`.
    pub(super) fn next_extent(&self, offset: u64) -> Option<u64> {
        self.extents.range((Bound::Excluded(offset), Bound::Unbounded)).next().map(|(start, _)| *start)
    }

    pub(super) fn is_table(&self) -> bool {
        matches!(self.kind, SegmentKind::Table { .. })
    }

    /// Nothing would be lost if memory forgot the segment.
    pub(super) fn is_idle(&self, durable: u64) -> bool {
        (!self.dirty || canary::is(37))
            && self.attributes.is_empty()
            && self.extents.is_empty()
            && self.parked.is_empty()
            && self.last_sequence <= durable
    }
}
