//! Tables: the segment's bytes are a log of entries, the catalogue knows the newest of each key.
//!
//! ```text
//!   entry │ 0 │ key length │ value length, or −1 │ version, or −2^63 │ key │ value │
//! ```
//!
//! An entry's version is the position of its first byte, unless it says otherwise: a live entry that was copied forward
//! keeps the version it was written with. So versions are never reused and grow with every change of a key, and a
//! position, once handed out, stays meaningful. The layout is that of Pravega's own tables.
//!
//! The log would grow for ever under a few keys that change all the time. Whenever most of it is dead, each update also
//! moves the live entries of a stretch at its head to its end and gives the stretch up ([`Container::compact`]).
//!
//! What a table has on the disk is looked up by others (`lookups`), and no step here walks over much at once.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use headwater_types::limits::{TABLE_ENTRY_BYTES_MAX, TABLE_KEY_BYTES_MAX, TABLE_PAGE_BYTES, TABLE_VALUE_BYTES_MAX};

use crate::api::{
    Delta, Expect, Refusal, Response, ScanRange, SegmentKind, TableChange, TableEntry, TableInfo, VERSION_MISSING,
};
use crate::canary;
use crate::catalogue::{Key, Stop, Warm};
use crate::codec::{Decoder, Encoder, Malformed};
use crate::error::StoreError;

use super::decide::{Decided, OPERATION_BYTES, Step};
use super::keys::{self, IndexEntry};
use super::lookups::{COMPACTION_TRIES_MAX, PageWork, Progress, Slot, Wanted, Work};
use super::operation::Operation;
use super::{Container, Effects, Token};

/// Bytes of an entry before its key.
const HEADER_BYTES: usize = 17;
/// Value length of an entry that removes its key.
const REMOVED: i32 = -1;
/// Version of an entry whose version is its position.
const OWN_POSITION: i64 = i64::MIN;
/// The log may be this many times as long as its live entries.
const COMPACT_RATIO: u64 = 3;
/// The log is read in stretches of this for a delta, unless a compaction's are shorter.
const DELTA_STRETCH_BYTES: u64 = 64 << 10;
/// Stretches that one step of a delta looks at.
const STRETCHES_PER_STEP: usize = 2;
/// Entries that one step of a scan walks over; a thread that may wait does the rest.
const ENTRIES_PER_STEP: usize = 512;

/// An entry as it stands in the log.
struct LogEntry<'a> {
    key: &'a [u8],
    /// `None` removes the key.
    value: Option<&'a [u8]>,
    version: i64,
    /// Whole length.
    length: usize,
}

fn encode(out: &mut Encoder, key: &[u8], value: Option<&[u8]>, version: i64) {
    let value_length = value.map_or(REMOVED, |value| value.len() as i32);
    out.u8(0).u32(key.len() as u32).u32(value_length as u32).i64(version);
    out.0.extend_from_slice(key);
    out.0.extend_from_slice(value.unwrap_or_default());
}

/// An entry as a log has it, for tests.
#[cfg(test)]
pub(super) fn entry_of(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut log = Encoder::default();
    encode(&mut log, key, Some(value), OWN_POSITION);
    log.0
}

/// Lengths of key and value, from an entry's header.
fn decode_header(bytes: &[u8]) -> Result<(usize, Option<usize>, i64), Malformed> {
    let mut input = Decoder::new(bytes);
    if input.u8()? != 0 {
        return Err(Malformed("table entry of unknown version"));
    }
    let (key, value, version) = (input.u32()? as usize, input.u32()? as i32, input.i64()?);
    let value = match value {
        REMOVED => None,
        length => Some(usize::try_from(length).map_err(|_| Malformed("table entry of negative length"))?),
    };
    Ok((key, value, version))
}

fn decode<'a>(input: &mut Decoder<'a>) -> Result<LogEntry<'a>, Malformed> {
    let before = input.remaining();
    let (key, value, version) = decode_header(input.take(HEADER_BYTES)?)?;
    let key = input.take(key)?;
    let value = value.map(|length| input.take(length)).transpose()?;
    Ok(LogEntry { key, value, version, length: before - input.remaining() })
}

/// Version of an entry that was put at a position.
fn own_version(position: u64, is_new: bool) -> i64 {
    if canary::is(13) && is_new { 0 } else { position as i64 }
}

pub(super) fn entry_bytes(key: &[u8], value: usize) -> u64 {
    (HEADER_BYTES + key.len() + value) as u64
}

impl<T: Token> Container<T> {
    fn key_length(&self, id: u64) -> Option<u32> {
        match self.segment(id).kind {
            SegmentKind::Table { key_length } => Some(key_length),
            SegmentKind::Stream | SegmentKind::Transient => None,
        }
    }

    fn index(&self, id: u64, key: &[u8]) -> Result<Option<IndexEntry>, StoreError> {
        let value = self.catalogue.get(&keys::table_key(id, key))?;
        value.map(|value| IndexEntry::decode(&value)).transpose().map_err(StoreError::malformed("catalogue", 0))
    }

    pub(super) fn table_update(
        &mut self,
        now: i64,
        id: u64,
        changes: &[TableChange],
        at: Option<u64>,
        may_wait: bool,
        effects: &mut Effects<T>,
    ) -> Result<Step, StoreError> {
        let Some(key_length) = self.key_length(id) else { return Ok(self.refused(id, Refusal::WrongKind)) };
        let length = self.segment(id).length;
        let refusal = if self.segment(id).sealed {
            Some(Refusal::Sealed)
        } else if at.is_some_and(|at| at != length) {
            Some(Refusal::OffsetMismatch { length })
        } else {
            check_sizes(changes, key_length, self.limits.record_bytes).err()
        };
        if let Some(refusal) = refusal {
            return Ok(self.refused(id, refusal));
        }
        let mut found = Vec::with_capacity(changes.len());
        let mut wanted = Vec::new();
        for change in changes {
            match self.index_warm(id, &change.key, may_wait)? {
                Ok(entry) => found.push(entry.map(|entry| entry.version)),
                Err(cold) => wanted.push(cold),
            }
        }
        if !wanted.is_empty() {
            return Ok(Step::LookUp(Work::Warm(wanted)));
        }
        if let Err(refusal) = check_versions(changes, &found, key_length > 0) {
            return Ok(self.refused(id, refusal));
        }
        let mut log = Encoder::default();
        let mut versions = Vec::with_capacity(changes.len());
        let mut put_before = BTreeSet::new();
        for (change, found) in changes.iter().zip(&found) {
            match &change.value {
                Some(value) => {
                    put_before.insert(&change.key);
                    versions.push(own_version(length + log.0.len() as u64, found.is_none()));
                    encode(&mut log, &change.key, Some(value), OWN_POSITION);
                }
                None => {
                    versions.push(VERSION_MISSING);
                    if found.is_some() || put_before.contains(&change.key) {
                        encode(&mut log, &change.key, None, OWN_POSITION);
                    }
                }
            }
        }
        if !log.0.is_empty() {
            self.order(Operation::TableEntries { segment: id, offset: length, now }, log.0.into(), effects)?;
        }
        let decided = self.now(id, Ok(Response::Versions(versions)));
        if !self.segment(id).compacting {
            self.compact(id, None, effects)?;
        }
        Ok(Step::Decided(decided))
    }

    fn refused(&self, id: u64, refusal: Refusal) -> Step {
        Step::Decided(self.now(id, Err(refusal)))
    }

    /// The index entry of a key, or what has to be looked up for it.
    fn index_warm(
        &self,
        id: u64,
        key: &[u8],
        may_wait: bool,
    ) -> Result<Result<Option<IndexEntry>, Wanted>, StoreError> {
        let key = keys::table_key(id, key);
        let value = match self.catalogue.get_warm(&key)? {
            Warm::Known(value) => value,
            Warm::Cold if may_wait => self.catalogue.get(&key)?,
            Warm::Cold => return Ok(Err(Wanted::Key(key))),
        };
        let entry = value.map(|value| IndexEntry::decode(&value)).transpose();
        entry.map(Ok).map_err(StoreError::malformed("catalogue", 0))
    }

    pub(super) fn table_get(&self, id: u64, wanted: &[Bytes], may_wait: bool) -> Result<Step, StoreError> {
        let Some(key_length) = self.key_length(id) else { return Ok(self.refused(id, Refusal::WrongKind)) };
        let mut slots = Vec::with_capacity(wanted.len());
        let mut is_known = true;
        for key in wanted {
            if let Err(refusal) = check_key(key, key_length) {
                return Ok(self.refused(id, refusal));
            }
            let slot = match self.index_warm(id, key, may_wait)? {
                Err(_) => Slot::Key(key.clone()),
                Ok(None) => Slot::Known(None),
                Ok(Some(found)) => match self.entry_in_memory(id, key, &found) {
                    Some(entry) => Slot::Known(Some(entry)),
                    None if may_wait => Slot::Known(Some(self.entry(id, key.clone(), &found)?)),
                    None => Slot::At(key.clone(), found),
                },
            };
            is_known &= matches!(slot, Slot::Known(_));
            slots.push(slot);
        }
        if !is_known {
            return Ok(Step::LookUp(Work::Values { segment: id, slots }));
        }
        let known = |slot| if let Slot::Known(entry) = slot { entry } else { unreachable!("all are known") };
        let values = slots.into_iter().map(known).collect();
        Ok(Step::Decided(self.now(id, Ok(Response::Values(values)))))
    }

    fn entry(&self, id: u64, key: Bytes, found: &IndexEntry) -> Result<TableEntry, StoreError> {
        let position = found.position + (HEADER_BYTES + key.len()) as u64;
        let value = self.bytes_of(id, position, found.value_length as usize)?;
        Ok(TableEntry { key, version: found.version, value })
    }

    fn entry_in_memory(&self, id: u64, key: &Bytes, found: &IndexEntry) -> Option<TableEntry> {
        let position = found.position + (HEADER_BYTES + key.len()) as u64;
        let length = found.value_length as usize;
        let value = match length {
            0 => Bytes::new(),
            _ => {
                let (start, extent) = self.segment(id).extent_at(position)?;
                let from = (position - start) as usize;
                extent.bytes.get(from..from + length)?;
                extent.bytes.slice(from..from + length)
            }
        };
        Some(TableEntry { key: key.clone(), version: found.version, value })
    }

    pub(super) fn table_scan(
        &self,
        id: u64,
        range: &ScanRange,
        count_max: usize,
        keys_only: bool,
        may_wait: bool,
    ) -> Result<Step, StoreError> {
        if self.key_length(id).is_none() {
            return Ok(self.refused(id, Refusal::WrongKind));
        }
        let count_max = count_max.max(1);
        if !may_wait {
            if let Some(page) = self.page_in_memory(id, range, count_max, keys_only)? {
                return Ok(Step::Decided(self.now(id, Ok(Response::Page(page)))));
            }
            let work = self.page_work(id, range, count_max, keys_only)?;
            return Ok(Step::LookUp(Work::Page(Box::new(work))));
        }
        let first: Key = keys::table_key(id, range.from.as_deref().unwrap_or_default().max(&range.prefix));
        let mut scan = self.catalogue.scan(std::ops::Bound::Included(&first))?;
        let mut entries = Vec::new();
        let mut bytes = 0;
        while entries.len() < count_max
            && bytes < TABLE_PAGE_BYTES
            && let Some((key, value)) = scan.next()?
        {
            let key = match is_in(&key, id, range) {
                In::Behind => break,
                In::LeftOut => continue,
                In::Page(key) => Bytes::copy_from_slice(key),
            };
            let found = IndexEntry::decode(&value).map_err(StoreError::malformed("catalogue", 0))?;
            let entry = if keys_only {
                TableEntry { key, version: found.version, value: Bytes::new() }
            } else {
                self.entry(id, key, &found)?
            };
            bytes += HEADER_BYTES + entry.key.len() + entry.value.len();
            entries.push(entry);
        }
        Ok(Step::Decided(self.now(id, Ok(Response::Page(entries)))))
    }

    /// A page, if it is short and all of it is in memory.
    fn page_in_memory(
        &self,
        id: u64,
        range: &ScanRange,
        count_max: usize,
        keys_only: bool,
    ) -> Result<Option<Vec<TableEntry>>, StoreError> {
        let first: Key = keys::table_key(id, range.from.as_deref().unwrap_or_default().max(&range.prefix));
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut walk = || {
            let mut scan = self.catalogue.scan_warm(std::ops::Bound::Included(&first))?;
            for _ in 0..ENTRIES_PER_STEP {
                if entries.len() == count_max || bytes >= TABLE_PAGE_BYTES {
                    return Ok(true);
                }
                let Some((key, value)) = scan.next_warm()? else { return Ok(true) };
                let key = match is_in(&key, id, range) {
                    In::Behind => return Ok(true),
                    In::LeftOut => continue,
                    In::Page(key) => Bytes::copy_from_slice(key),
                };
                let found = IndexEntry::decode(&value).map_err(StoreError::malformed("catalogue", 0))?;
                let entry = if keys_only {
                    TableEntry { key, version: found.version, value: Bytes::new() }
                } else {
                    match self.entry_in_memory(id, &key, &found) {
                        Some(entry) => entry,
                        None => return Ok(false),
                    }
                };
                bytes += HEADER_BYTES + entry.key.len() + entry.value.len();
                entries.push(entry);
            }
            Ok(false)
        };
        match walk() {
            Ok(true) => Ok(Some(entries)),
            Ok(false) | Err(Stop::Cold) => Ok(None),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    /// A page for somebody who may wait for the disk, with all that is newer than the runs.
    fn page_work(&self, id: u64, range: &ScanRange, count_max: usize, keys_only: bool) -> Result<PageWork, StoreError> {
        let first = keys::table_key(id, range.from.as_deref().unwrap_or_default().max(&range.prefix));
        let newer_max = count_max.saturating_mul(2).clamp(32, ENTRIES_PER_STEP);
        let (newer, known_to) = self.catalogue.newer(&first, &keys::table_key(id + 1, &[]), newer_max);
        let mut values = BTreeMap::new();
        for (key, value) in newer.iter().filter(|_| !keys_only) {
            if let Some(value) = value {
                let found = IndexEntry::decode(value).map_err(StoreError::malformed("catalogue", 0))?;
                let key = Bytes::copy_from_slice(&key[keys::PREFIX_BYTES..]);
                if let Some(entry) = self.entry_in_memory(id, &key, &found) {
                    values.insert(key, entry.value);
                }
            }
        }
        Ok(PageWork { segment: id, range: range.clone(), count_max, keys_only, newer, values, known_to })
    }

    pub(super) fn table_delta(
        &self,
        id: u64,
        from: u64,
        count_max: usize,
        progress: &mut Option<Progress>,
        may_wait: bool,
    ) -> Result<Step, StoreError> {
        let refusal = match self.key_length(id) {
            None => Some(Refusal::WrongKind),
            Some(0) if from > self.segment(id).length => Some(Refusal::Invalid("position is behind the table's end")),
            Some(0) => None,
            Some(_) => Some(Refusal::Unsupported),
        };
        if let Some(refusal) = refusal {
            return Ok(self.refused(id, refusal));
        }
        let segment = self.segment(id);
        let (start, length) = (segment.start, segment.length);
        let (mut position, mut loaded) = match progress.take() {
            Some(Progress { position, stretch }) => (position, stretch),
            None => (from, None),
        };
        if position < start {
            (position, loaded) = (start, None);
        }
        let mut entries = Vec::new();
        let mut bytes = 0;
        // An empty page before the log's end would make the Rust client stop, and an entry that is no longer its key's
        // newest would stay in its picture for ever: so look on until something is live or nothing is left.
        let mut stretches = 0;
        while position < length && entries.len() < count_max.max(1) && bytes < TABLE_PAGE_BYTES {
            let is_enough = stretches == STRETCHES_PER_STEP;
            let step = if is_enough {
                Stretch::Cold { to: position }
            } else {
                self.stretch(
                    id,
                    position,
                    length.min(position + DELTA_STRETCH_BYTES.min(self.limits.table_step_bytes)),
                    loaded.take(),
                    may_wait,
                )?
            };
            let stretch = match step {
                Stretch::Entries(stretch) => stretch,
                Stretch::NotAnEntry => {
                    return Ok(self.refused(id, Refusal::Invalid("position is not that of an entry")));
                }
                // A short page is one, too.
                Stretch::Cold { .. } if !entries.is_empty() => break,
                Stretch::Cold { to } => {
                    *progress = Some(Progress { position, stretch: None });
                    return Ok(Step::LookUp(if is_enough {
                        Work::Nothing
                    } else {
                        Work::Stretch { segment: id, from: position, to }
                    }));
                }
            };
            stretches += 1;
            let begun = position;
            let mut wanted = Vec::new();
            let mut live = Vec::new();
            let mut input = Decoder::new(&stretch);
            while !input.is_empty() {
                let entry = decode(&mut input).map_err(StoreError::malformed("table", position))?;
                if let Some(value) = entry.value {
                    match self.index_warm(id, entry.key, may_wait)? {
                        Ok(Some(found)) if found.position == position => {
                            live.push((position, entry.length, entry.key, value, found.version));
                        }
                        Ok(_) => {}
                        Err(cold) => wanted.push(cold),
                    }
                }
                position += entry.length as u64;
            }
            if !wanted.is_empty() {
                if !entries.is_empty() {
                    position = begun;
                    break;
                }
                *progress = Some(Progress { position: begun, stretch: Some(stretch.clone()) });
                return Ok(Step::LookUp(Work::Warm(wanted)));
            }
            for (at, length, key, value, version) in live {
                if entries.len() == count_max.max(1) || bytes >= TABLE_PAGE_BYTES {
                    position = at;
                    break;
                }
                bytes += length;
                entries.push(TableEntry {
                    key: Bytes::copy_from_slice(key),
                    version,
                    value: crate::codec::slice_of(&stretch, value),
                });
            }
        }
        let delta = Delta {
            entries,
            // Position 0 asks for everything there is; nothing can be missing from that.
            should_clear: 0 < from && from < start,
            reached_end: position == length,
            position,
        };
        Ok(Step::Decided(self.now(id, Ok(Response::Delta(delta)))))
    }

    /// Whole entries from `position` on, at least one; up to `end` if that is where an entry ends. A client chooses the
    /// position, so none may begin there; the bytes themselves were verified when they were read. `loaded` are bytes
    /// from the position on.
    fn stretch(
        &self,
        id: u64,
        position: u64,
        end: u64,
        loaded: Option<Bytes>,
        may_wait: bool,
    ) -> Result<Stretch, StoreError> {
        let length = self.segment(id).length;
        // What is in no chunk is in memory, so one read from chunks ends where memory begins.
        let cold_end = |end: u64| self.segment(id).next_extent(position).map_or(end, |next| next.min(end));
        let mut bytes = match loaded {
            Some(loaded) => loaded,
            None => match self.in_memory(id, position, end) {
                Some(bytes) => bytes,
                None if may_wait => self.bytes_of(id, position, (end - position) as usize)?,
                None => return Ok(Stretch::Cold { to: cold_end(end) }),
            },
        };
        loop {
            let mut input = Decoder::new(&bytes);
            let mut whole = 0;
            while !input.is_empty() {
                let Ok(entry) = decode(&mut input) else { break };
                whole += entry.length;
            }
            if whole > 0 {
                return Ok(Stretch::Entries(bytes.slice(..whole)));
            }
            // One entry is longer than these bytes, or none begins here.
            let needed = match bytes.get(..HEADER_BYTES) {
                None if length - position < HEADER_BYTES as u64 => return Ok(Stretch::NotAnEntry),
                None => HEADER_BYTES,
                Some(header) => {
                    let Ok((key, value, _)) = decode_header(header) else { return Ok(Stretch::NotAnEntry) };
                    // What looks like a header may be bytes of a client's value.
                    if key > TABLE_KEY_BYTES_MAX || value.is_some_and(|value| value > TABLE_VALUE_BYTES_MAX) {
                        return Ok(Stretch::NotAnEntry);
                    }
                    HEADER_BYTES + key + value.unwrap_or(0)
                }
            };
            if needed as u64 > length - position || needed <= bytes.len() {
                return Ok(Stretch::NotAnEntry);
            }
            let to = position + needed as u64;
            let all = self.in_memory(id, position, to).filter(|all| all.len() == needed && !canary::is(48));
            bytes = match all {
                Some(all) => all,
                None if !may_wait && cold_end(to) == to => return Ok(Stretch::Cold { to }),
                // Its beginning was just looked up, and its end is in memory.
                None => self.bytes_of(id, position, needed)?,
            };
        }
    }

    pub(super) fn table_info(&self, id: u64) -> Decided {
        let segment = self.segment(id);
        let outcome = match self.key_length(id) {
            None => Err(Refusal::WrongKind),
            Some(key_length) => Ok(Response::Table(TableInfo {
                start: segment.start,
                length: segment.length,
                entries: segment.entries,
                key_length,
            })),
        };
        self.now(id, outcome)
    }

    pub(super) fn table_delete(
        &mut self,
        id: u64,
        must_be_empty: bool,
        effects: &mut Effects<T>,
    ) -> Result<Decided, StoreError> {
        let refusal = match self.key_length(id) {
            None => Some(Refusal::WrongKind),
            Some(0) if must_be_empty && self.segment(id).entries > 0 => Some(Refusal::TableNotEmpty),
            Some(key_length) if must_be_empty && key_length > 0 => Some(Refusal::Unsupported),
            Some(_) => None,
        };
        if let Some(refusal) = refusal {
            return Ok(self.now(id, Err(refusal)));
        }
        self.order(Operation::Delete { segment: id }, Bytes::new(), effects)?;
        Ok((self.sequence, Ok(Response::Done)))
    }

    /// Brings the index up to date with entries that stand at `offset`. Part of applying an operation.
    pub(super) fn index_entries(&mut self, id: u64, offset: u64, payload: &[u8]) -> Result<(), StoreError> {
        let mut input = Decoder::new(payload);
        let mut position = offset;
        let mut entries = self.segment(id).entries;
        let mut live_bytes = self.segment(id).live_bytes;
        while !input.is_empty() {
            let entry = decode(&mut input).map_err(StoreError::malformed(crate::journal::DIRECTORY, 0))?;
            let key = keys::table_key(id, entry.key);
            let old = self.index(id, entry.key)?;
            let is_new = old.is_none();
            if let Some(old) = old {
                let bytes = entry_bytes(entry.key, old.value_length as usize);
                let left = entries.checked_sub(1).zip(live_bytes.checked_sub(bytes));
                (entries, live_bytes) = left.ok_or_else(|| {
                    let what =
                        format!("segment {id} has {entries} keys of {live_bytes} bytes, one of which has {bytes}");
                    StoreError::damaged("catalogue", 0, what)
                })?;
            }
            match entry.value {
                Some(value) => {
                    entries += 1;
                    live_bytes += entry.length as u64;
                    let version =
                        if entry.version == OWN_POSITION { own_version(position, is_new) } else { entry.version };
                    let found = IndexEntry { version, position, value_length: value.len() as u32 };
                    self.catalogue.put(key, found.encode());
                }
                None => self.catalogue.remove(key),
            }
            position += entry.length as u64;
        }
        let segment = self.segments.get_mut(&id).expect("the segment was touched before");
        segment.entries = entries;
        segment.live_bytes = live_bytes;
        Ok(())
    }

    /// Moves the live entries of the log's first stretch to its end, if too much of the log is dead. `looked_up`: where
    /// the log began when it was looked up, the bytes from there, and how often something was.
    pub(super) fn compact(
        &mut self,
        id: u64,
        looked_up: Option<(u64, Option<Bytes>, u32)>,
        effects: &mut Effects<T>,
    ) -> Result<(), StoreError> {
        let segment = self.segment(id);
        let (start, length) = (segment.start, segment.length);
        if length - start < self.limits.table_compact_bytes || length - start < segment.live_bytes * COMPACT_RATIO {
            return Ok(());
        }
        let (loaded, tries) = match looked_up {
            Some((position, stretch, tries)) if position == start => (stretch, tries),
            _ => (None, 0),
        };
        let may_wait = tries > COMPACTION_TRIES_MAX;
        let stretch = match self.stretch(id, start, length.min(start + self.limits.table_step_bytes), loaded, may_wait)
        {
            Ok(Stretch::Entries(stretch)) => stretch,
            Ok(Stretch::NotAnEntry) => {
                return Err(StoreError::damaged("table", start, "log does not begin with an entry"));
            }
            Ok(Stretch::Cold { to }) => {
                let work = Work::Stretch { segment: id, from: start, to };
                self.look_up_for_compaction(work, id, start, None, tries, effects);
                return Ok(());
            }
            // What cannot be read cannot be moved; the log stays as long as it is.
            Err(error) if error.is_in_chunk() => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut input = Decoder::new(&stretch);
        let mut log = Encoder::default();
        let mut wanted = Vec::new();
        let mut position = start;
        while !input.is_empty() {
            let entry = decode(&mut input).map_err(StoreError::malformed("table", position))?;
            if log.0.len() + entry.length + OPERATION_BYTES > self.limits.record_bytes {
                break;
            }
            if entry.value.is_some() {
                match self.index_warm(id, entry.key, may_wait)? {
                    Ok(Some(found)) if found.position == position => {
                        encode(&mut log, entry.key, entry.value, found.version);
                    }
                    Ok(_) => {}
                    Err(cold) => wanted.push(cold),
                }
            }
            position += entry.length as u64;
        }
        if !wanted.is_empty() {
            self.look_up_for_compaction(Work::Warm(wanted), id, start, Some(stretch.clone()), tries, effects);
        } else if position > start {
            let operation = Operation::TableCompact { segment: id, offset: length, start: position };
            self.order(operation, log.0.into(), effects)?;
        }
        Ok(())
    }
}

/// What a walk over a table's log finds at a position.
enum Stretch {
    Entries(Bytes),
    NotAnEntry,
    /// The bytes up to here have to be read from chunks.
    Cold {
        to: u64,
    },
}

/// Where a key of the catalogue stands with respect to a page of a table.
enum In<'a> {
    Page(&'a [u8]),
    LeftOut,
    Behind,
}

fn is_in<'a>(catalogue_key: &'a [u8], id: u64, range: &ScanRange) -> In<'a> {
    let Some(key) = catalogue_key.strip_prefix(&keys::table_key(id, &[])[..]) else { return In::Behind };
    if !key.starts_with(&range.prefix) || range.to.as_ref().is_some_and(|to| key > &to[..]) {
        In::Behind
    } else if range.exclusive && range.from.as_ref().is_some_and(|from| key == &from[..]) {
        In::LeftOut
    } else {
        In::Page(key)
    }
}

fn check_key(key: &[u8], key_length: u32) -> Result<(), Refusal> {
    if key.is_empty() || key.len() > TABLE_KEY_BYTES_MAX {
        Err(Refusal::Invalid("table keys have 1 to 8192 bytes"))
    } else if key_length > 0 && key.len() != key_length as usize {
        Err(Refusal::Invalid("key has another length than the table's keys"))
    } else {
        Ok(())
    }
}

fn check_sizes(changes: &[TableChange], key_length: u32, record_bytes: usize) -> Result<(), Refusal> {
    let mut total = OPERATION_BYTES;
    for change in changes {
        check_key(&change.key, key_length)?;
        let value = change.value.as_ref().map_or(0, Bytes::len);
        if value > TABLE_VALUE_BYTES_MAX {
            return Err(Refusal::Invalid("table values have at most 1040384 bytes"));
        }
        if HEADER_BYTES + change.key.len() + value > TABLE_ENTRY_BYTES_MAX {
            return Err(Refusal::Invalid("key and value are together longer than 1048559 bytes"));
        }
        if matches!(change.expect, Expect::Version(version) if version < 0) {
            return Err(Refusal::Invalid("expected version is negative"));
        }
        total += HEADER_BYTES + change.key.len() + value;
    }
    if total > record_bytes { Err(Refusal::Invalid("batch is too large")) } else { Ok(()) }
}

/// A missing key wins over wrong versions of other keys. Source: stock's order of checks.
fn check_versions(changes: &[TableChange], found: &[Option<i64>], is_fixed: bool) -> Result<(), Refusal> {
    let mut wrong = false;
    for (change, found) in changes.iter().zip(found) {
        match (change.expect, found) {
            (Expect::Any, _) | (Expect::Missing, None) => {}
            (Expect::Missing, Some(_)) if canary::is(42) => {}
            (Expect::Version(_), None) if !is_fixed => return Err(Refusal::KeyMissing),
            (Expect::Version(expected), Some(version)) if expected == *version => {}
            (Expect::Version(_) | Expect::Missing, _) => wrong = true,
        }
    }
    if wrong { Err(Refusal::KeyVersion) } else { Ok(()) }
}
