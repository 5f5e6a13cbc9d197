//! Deciding requests: look at the newest state, refuse or order an operation, say what the answer waits for.

use bytes::Bytes;
use headwater_types::{EventNumber, SegmentName, WriterId, attribute};

use crate::api::{
    Append, AttributeUpdate, Outcome, Refusal, Request, Response, SegmentInfo, SegmentKind, StoredChunk,
    TRANSIENT_ATTRIBUTES_MAX,
};
use crate::canary;
use crate::chunks;
use crate::error::StoreError;

use super::attributes::{TOO_MANY_ATTRIBUTES, is_core};
use super::keys::StoredRun;
use super::lookups::{Pending, TRIES_MAX, Wanted, Work};
use super::operation::Operation;
use super::{Container, Effects, Token, keys};

/// A writer's id is also the id of an attribute.
const CORE_WRITER: Refusal = Refusal::Invalid("writer id is that of a core attribute");

/// An answer and the operation it has to wait for.
pub(super) type Decided = (u64, Outcome);

/// What became of a request about entries of a table.
pub(super) enum Step {
    Decided(Decided),
    /// This has to be looked up first.
    LookUp(Work),
}

/// The writer whose number a request asks for.
fn writer_of(request: &Request) -> Option<WriterId> {
    match request {
        Request::OpenWriter { writer, .. } => Some(*writer),
        Request::Append(append) => Some(append.writer),
        _ => None,
    }
}

fn is_of_table_entries(request: &Request) -> bool {
    matches!(
        request,
        Request::TableUpdate { .. } | Request::TableGet { .. } | Request::TableScan { .. } | Request::TableDelta { .. }
    )
}

/// Runs that one answer lists: they have to fit into a frame.
const CHUNKS_LISTED_MAX: usize = 100_000;

/// Bytes of an operation beside its payload, at most, for operations whose payload a client chooses.
pub(super) const OPERATION_BYTES: usize = 256;

impl<T: Token> Container<T> {
    /// Decides one request; parked and cold reads keep the token, everything else answers. False: something has to be
    /// looked up first, and the request comes again.
    pub(super) fn decide(
        &mut self,
        now: i64,
        pending: Pending<T>,
        effects: &mut Effects<T>,
    ) -> Result<bool, StoreError> {
        let may_wait = pending.tries >= TRIES_MAX;
        let found = if may_wait {
            self.find(pending.request.segment())?
        } else {
            match self.find_warm(&pending.request.segment().key())? {
                Ok(found) => found,
                Err(mut wanted) => {
                    if let (Wanted::Segment { attribute, .. }, Some(writer)) =
                        (&mut wanted, writer_of(&pending.request))
                    {
                        *attribute = Some(writer.into());
                    }
                    self.look_up(None, Work::Warm(vec![wanted]), pending, effects);
                    return Ok(false);
                }
            }
        };
        let Some(id) = found else {
            let Pending { request, token, .. } = pending;
            let (after, outcome) = match request {
                Request::Create { segment, kind, policy, .. } => {
                    let key = segment.key().into_owned();
                    match kind {
                        SegmentKind::Table { key_length } if key_length > 256 => {
                            (self.sequence, Err(Refusal::Invalid("fixed keys have 1 to 256 bytes")))
                        }
                        _ => {
                            self.order(Operation::Create { key, kind, policy, now }, Bytes::new(), effects)?;
                            (self.sequence, Ok(Response::Done))
                        }
                    }
                }
                _ => (self.sequence, Err(Refusal::NoSuchSegment)),
            };
            self.answer(after, token, outcome, effects);
            return Ok(true);
        };
        if !may_wait {
            let wanted = self.wanted(id, &pending.request)?;
            if !wanted.is_empty() {
                self.look_up(None, Work::Warm(wanted), pending, effects);
                return Ok(false);
            }
        }
        if is_of_table_entries(&pending.request) {
            return self.decide_entries(now, id, pending, effects);
        }
        let Pending { request, token, .. } = pending;
        let (after, outcome) = match request {
            Request::Read { offset, bytes_max, .. } => {
                self.read(id, offset, bytes_max, token, effects)?;
                return Ok(true);
            }
            Request::Create { .. } => self.now(id, Err(Refusal::SegmentExists)),
            Request::Info { .. } => self.info(id),
            Request::OpenWriter { writer, .. } if is_core(writer.into()) => self.now(id, Err(CORE_WRITER)),
            Request::OpenWriter { writer, .. } => {
                let number = self.attribute(id, writer.into())?;
                let wrong = i64::from(canary::is(11) && self.segment(id).sealed);
                self.now(id, Ok(Response::LastEvent(stored_number(number).map(|number| number - wrong))))
            }
            Request::Append(append) => self.append(now, id, append, effects)?,
            Request::Seal { .. } => self.seal(now, id, effects)?,
            Request::Truncate { offset, .. } => self.cut(id, offset, effects)?,
            Request::Delete { .. } => {
                self.order(Operation::Delete { segment: id }, Bytes::new(), effects)?;
                (self.sequence, Ok(Response::Done))
            }
            Request::Merge { source, updates, .. } => self.merge_one(now, id, &source, &updates, effects)?,
            Request::MergeBatch { sources, .. } => self.merge_batch(now, id, &sources, effects)?,
            Request::Attribute { id: attribute, .. } => {
                let value = self.attribute(id, attribute)?;
                self.now(id, Ok(Response::Attribute(value)))
            }
            Request::UpdateAttributes { updates, .. } => self.set_attributes(id, &updates, effects)?,
            Request::SetPolicy { policy, .. } => {
                if self.segment(id).sealed {
                    self.now(id, Err(Refusal::Sealed))
                } else {
                    self.order(Operation::SetPolicy { segment: id, policy }, Bytes::new(), effects)?;
                    (self.sequence, Ok(Response::Done))
                }
            }
            Request::Locate { offset, .. } => self.locate(id, offset)?,
            Request::TableUpdate { .. }
            | Request::TableGet { .. }
            | Request::TableScan { .. }
            | Request::TableDelta { .. } => unreachable!("decided above"),
            Request::TableInfo { .. } => self.table_info(id),
            Request::ListChunks { .. } => self.list_chunks(id)?,
            Request::DeleteTable { must_be_empty, .. } => self.table_delete(id, must_be_empty, effects)?,
        };
        self.answer(after, token, outcome, effects);
        Ok(true)
    }

    /// The part of [`decide`](Self::decide) for the entries of tables, which may be on the disk.
    fn decide_entries(
        &mut self,
        now: i64,
        id: u64,
        mut pending: Pending<T>,
        effects: &mut Effects<T>,
    ) -> Result<bool, StoreError> {
        let may_wait = pending.tries >= TRIES_MAX;
        let begun = pending.progress.as_ref().map(|progress| progress.position);
        let step = match &pending.request {
            Request::TableUpdate { changes, at, .. } => self.table_update(now, id, changes, *at, may_wait, effects),
            Request::TableGet { keys, .. } => self.table_get(id, keys, may_wait),
            Request::TableScan { range, count_max, keys_only, .. } => {
                self.table_scan(id, range, *count_max, *keys_only, may_wait)
            }
            Request::TableDelta { from, count_max, .. } => {
                self.table_delta(id, *from, *count_max, &mut pending.progress, may_wait)
            }
            _ => unreachable!("the caller has looked"),
        };
        match self.or_damaged(id, step)? {
            Step::Decided((after, outcome)) => {
                self.answer(after, pending.token, outcome, effects);
                Ok(true)
            }
            Step::LookUp(work) => {
                if pending.progress.as_ref().map(|progress| progress.position) > begun {
                    pending.tries = 0;
                }
                self.look_up(Some(id), work, pending, effects);
                Ok(false)
            }
        }
    }

    /// An answer that shows the segment as it is, once that is durable.
    pub(super) fn now(&self, id: u64, outcome: Outcome) -> Decided {
        (self.segment(id).last_sequence, outcome)
    }

    /// Bytes of a chunk that cannot be had are this request's trouble; anything else is the store's.
    fn or_damaged(&mut self, id: u64, step: Result<Step, StoreError>) -> Result<Step, StoreError> {
        match step {
            Err(error) if error.is_in_chunk() => {
                if error.is_passing() {
                    tracing::warn!(error = &error as &dyn std::error::Error, "stored bytes cannot be reached");
                } else {
                    tracing::error!(error = &error as &dyn std::error::Error, "stored bytes cannot be served");
                    self.damaged_reads += 1;
                }
                Ok(Step::Decided(self.now(id, Err(error.refusal()))))
            }
            step => step,
        }
    }

    fn info(&self, id: u64) -> Decided {
        let segment = self.segment(id);
        let info = SegmentInfo {
            start: segment.start,
            length: segment.length,
            sealed: segment.sealed,
            modified_millis: segment.modified,
            event_count: segment.event_count,
        };
        self.now(id, Ok(Response::Info(info)))
    }

    fn append(&mut self, now: i64, id: u64, append: Append, effects: &mut Effects<T>) -> Result<Decided, StoreError> {
        let Append { writer, data, event_count, previous, number, expected_length, segment: name } = append;
        let segment = self.segment(id);
        if segment.is_table() {
            return Ok(self.now(id, Err(Refusal::WrongKind)));
        }
        if is_core(writer.into()) {
            return Ok(self.now(id, Err(CORE_WRITER)));
        }
        // A sealed segment beats a stale writer, and a stale writer beats a wrong length. Source: stock's order of checks.
        let parent_sealed = segment.kind == SegmentKind::Transient && self.parent_sealed(&name)?;
        let segment = self.segment(id);
        if parent_sealed {
            return Ok((self.sequence, Err(Refusal::Sealed)));
        }
        if segment.sealed {
            return Ok(self.now(id, Err(Refusal::Sealed)));
        }
        if previous.is_some_and(|previous| number < previous) {
            return Ok(self.now(id, Err(Refusal::Invalid("event number goes back"))));
        }
        if number == attribute::NULL {
            return Ok(self.now(id, Err(Refusal::Invalid("event number stands for nothing"))));
        }
        let offset = segment.length;
        let stored = stored_number(self.attribute(id, writer.into())?);
        if stored != previous {
            return Ok(self.now(id, Err(Refusal::WriterConflict { stored })));
        }
        let known = if canary::is(12) { self.segment(id).durable_length } else { offset };
        if expected_length.is_some_and(|expected| expected != known) {
            return Ok(self.now(id, Err(Refusal::LengthMismatch { length: offset })));
        }
        if data.len() + OPERATION_BYTES > self.limits.record_bytes {
            return Ok(self.now(id, Err(Refusal::Invalid("append is too large"))));
        }
        let mut set = None;
        if stored.is_none() && self.segment(id).kind == SegmentKind::Transient {
            let before = self.attributes_set(id)?;
            if before >= TRANSIENT_ATTRIBUTES_MAX {
                return Ok(self.now(id, Err(TOO_MANY_ATTRIBUTES)));
            }
            set = Some(before + 1);
        }
        let length = offset + data.len() as u64;
        self.order(Operation::Append { segment: id, offset, writer, number, event_count, now }, data, effects)?;
        if set.is_some() {
            self.segment_mut(id).attributes_set = set;
        }
        Ok((self.sequence, Ok(Response::Appended { length })))
    }

    /// An upload into a sealed parent is told so at its first piece, not after the last: the Rust client repeats an
    /// upload for ever if only the merge fails. A parent that is gone was sealed before, or its transaction is over: whoever
    /// looks for what follows a sealed segment finds out which.
    fn parent_sealed(&mut self, name: &SegmentName) -> Result<bool, StoreError> {
        let Some(parent) = name.parent() else { return Ok(false) };
        Ok(match self.find(&parent)? {
            Some(parent) => self.segment(parent).sealed,
            None => true,
        })
    }

    fn seal(&mut self, now: i64, id: u64, effects: &mut Effects<T>) -> Result<Decided, StoreError> {
        if self.segment(id).is_table() {
            return Ok(self.now(id, Err(Refusal::WrongKind)));
        }
        if self.segment(id).sealed {
            return Ok(self.now(id, Err(Refusal::Sealed)));
        }
        self.order(Operation::Seal { segment: id, now }, Bytes::new(), effects)?;
        Ok((self.sequence, Ok(Response::Sealed { length: self.segment(id).length })))
    }

    fn cut(&mut self, id: u64, offset: u64, effects: &mut Effects<T>) -> Result<Decided, StoreError> {
        let segment = self.segment(id);
        let start = segment.start;
        if segment.is_table() {
            return Ok(self.now(id, Err(Refusal::WrongKind)));
        }
        if offset < start || offset > segment.length {
            return Ok(self.now(id, Err(Refusal::Truncated { start })));
        }
        if offset > start {
            self.order(Operation::Truncate { segment: id, offset }, Bytes::new(), effects)?;
        }
        Ok(self.now(id, Ok(Response::Done)))
    }

    fn merge_one(
        &mut self,
        now: i64,
        target: u64,
        source: &SegmentName,
        updates: &[AttributeUpdate],
        effects: &mut Effects<T>,
    ) -> Result<Decided, StoreError> {
        let Some(source) = self.find(source)? else {
            return Ok((self.sequence, Err(Refusal::NoSuchSegment)));
        };
        if let Some(refusal) = self.merge_refusal(target, Some(source)) {
            let after = self.segment(target).last_sequence.max(self.segment(source).last_sequence);
            return Ok((after, Err(refusal)));
        }
        let attributes = match self.decide_attributes(target, updates)? {
            Ok(attributes) => attributes,
            Err(refusal) => return Ok(self.now(target, Err(refusal))),
        };
        let offset = self.segment(target).length;
        self.order(Operation::Merge { target, source, offset, attributes, now }, Bytes::new(), effects)?;
        self.segment_mut(target).attributes_set = None;
        Ok((self.sequence, Ok(Response::Merged { length: self.segment(target).length })))
    }

    fn merge_batch(
        &mut self,
        now: i64,
        target: u64,
        sources: &[SegmentName],
        effects: &mut Effects<T>,
    ) -> Result<Decided, StoreError> {
        if self.segment(target).is_table() {
            return Ok(self.now(target, Err(Refusal::WrongKind)));
        }
        // Sources that are gone were merged: where nothing is left to do a seal is no hindrance. Otherwise before the first
        // is merged: a refusal says that nothing was done.
        for source in sources {
            if let Some(source) = self.find(source)?
                && !self.segment(source).is_table()
                && let Some(refusal) = self.merge_refusal(target, Some(source))
            {
                return Ok((self.sequence, Err(refusal)));
            }
        }
        let mut lengths = Vec::with_capacity(sources.len());
        for source in sources {
            if let Some(source) = self.find(source)? {
                // It can never be merged, and a batch that waited for it would wait for ever.
                if self.segment(source).is_table() {
                    tracing::warn!(segment = source, "a table stands in the place of a segment to be merged");
                    lengths.push(self.segment(target).length);
                    continue;
                }
                // The same source twice.
                if let Some(refusal) = self.merge_refusal(target, Some(source)) {
                    return Ok((self.sequence, Err(refusal)));
                }
                let offset = self.segment(target).length;
                let attributes = Vec::new();
                self.order(Operation::Merge { target, source, offset, attributes, now }, Bytes::new(), effects)?;
            }
            lengths.push(self.segment(target).length);
        }
        // That a source is gone may not be durable yet either.
        Ok((self.sequence, Ok(Response::MergedBatch(lengths))))
    }

    fn merge_refusal(&self, target: u64, source: Option<u64>) -> Option<Refusal> {
        let into = self.segment(target);
        if into.is_table() {
            return Some(Refusal::WrongKind);
        }
        if into.sealed {
            return Some(Refusal::Sealed);
        }
        let source = source?;
        let from = self.segment(source);
        if source == target {
            Some(Refusal::Invalid("a segment does not merge into itself"))
        } else if from.is_table() {
            Some(Refusal::WrongKind)
        } else if from.start > 0 {
            Some(Refusal::SourceTruncated)
        } else {
            None
        }
    }

    fn set_attributes(
        &mut self,
        id: u64,
        updates: &[AttributeUpdate],
        effects: &mut Effects<T>,
    ) -> Result<Decided, StoreError> {
        if self.segment(id).sealed {
            return Ok(self.now(id, Err(Refusal::Sealed)));
        }
        match self.decide_attributes(id, updates)? {
            Err(refusal) => Ok(self.now(id, Err(refusal))),
            Ok(attributes) => {
                self.order(Operation::Attributes { segment: id, attributes }, Bytes::new(), effects)?;
                self.segment_mut(id).attributes_set = None;
                Ok((self.sequence, Ok(Response::Done)))
            }
        }
    }

    fn list_chunks(&self, id: u64) -> Result<Decided, StoreError> {
        let runs = self.stored_runs(id)?;
        if runs.len() > CHUNKS_LISTED_MAX {
            return Ok(self.now(id, Err(Refusal::Invalid("segment is in too many chunks for one answer"))));
        }
        let chunk = |run: &StoredRun| StoredChunk {
            start: run.start,
            length: run.length(),
            name: chunks::path_of(self.id, run.place.chunk),
        };
        Ok(self.now(id, Ok(Response::Chunks(runs.iter().map(chunk).collect()))))
    }

    fn locate(&self, id: u64, offset: u64) -> Result<Decided, StoreError> {
        let wanted = offset.max(self.segment(id).start);
        let mut scan = self.catalogue.scan(std::ops::Bound::Included(&keys::boundary(id, wanted)))?;
        let located = match scan.next()? {
            Some((key, _)) if key.starts_with(&keys::boundaries(id)) => {
                keys::last_number(&key).map_err(StoreError::malformed("catalogue", 0))?
            }
            _ => self.segment(id).length,
        };
        Ok(self.now(id, Ok(Response::Located(located))))
    }
}

fn stored_number(value: i64) -> Option<EventNumber> {
    (value != attribute::NULL).then_some(value)
}
