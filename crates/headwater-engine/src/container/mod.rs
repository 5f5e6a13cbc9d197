//! One segment container: the only writer of everything its segments remember.
//!
//! Requests become operations, get an order, become durable in the journal, and only then become visible. A segment
//! lives in exactly one container, so nothing here locks a segment.
//!
//! ```text
//!   request ─► decide ─► operation ─► apply ──► wait until durable ─► reply, readers see it
//!                │                      │
//!             refused               journal record (effect)
//! ```
//!
//! An operation is applied as soon as it is decided, so the next request is decided on the newest state; nothing ever
//! has to be taken back, because a journal that fails ends the process. What is not durable yet stays invisible: an
//! answer waits for the newest operation that touched its segment, and reads end at the durable length.
//!
//! Invariants, each asserted where the name stands:
//! * `durable_length ≤ length` for every segment, and bytes are handed out below `durable_length` only ([`Container::read`])
//! * a sealed segment never grows ([`Container::apply`])
//! * operations are numbered without gaps, in the journal too ([`Container::replay`])
//! * at most one checkpoint is under way ([`Container::freeze`])
//!
//! Everything here is deterministic: time comes as an argument, the disk is read through its seam, and what is to be
//! done is returned as [`Effects`]. Not here: bytes on disk (`journal`, `catalogue`, `chunks`), threads (`tasks`).
//! Start reading at [`Container::request`].

mod attributes;
mod checkpoint;
mod compact;
mod decide;
mod keys;
mod lookups;
mod operation;
mod reads;
mod segment;
mod tables;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use headwater_types::SegmentName;

use crate::api::{Outcome, Refusal, Request, Response, SYSTEM_TABLES, SegmentKind};
use crate::canary;
use crate::catalogue::{self, Catalogue, Installed, Manifest, RunCache};
use crate::chunks::{self, Chunks};
use crate::error::{IoContext, StoreError};
use crate::io::Disk;
use crate::journal::Record;
use checkpoint::Running;
pub(crate) use checkpoint::{CheckpointDone, CheckpointJob};
use keys::StoredRun;
pub(crate) use lookups::{Back, Found, Lookup};
pub(crate) use operation::Operation;
pub(crate) use reads::{Again, ColdOutcome, ColdRead};
use segment::{EXTENT_OVERHEAD_BYTES, Extent, Parked, Segment};
pub(crate) use verify::{Contents, chunks_of, owners, verify};

/// Where an answer goes.
pub(crate) trait Token {
    /// Nobody waits for it any more.
    fn is_abandoned(&self) -> bool;
}

/// How much one container may use. All bytes are bytes of memory unless said otherwise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes that are in no chunk yet at which a checkpoint begins.
    pub(crate) flush_bytes: u64,
    /// Bytes that are in no chunk yet above which writes wait for the checkpoint.
    pub(crate) unstored_bytes_max: u64,
    /// Bytes of records that are not durable yet above which writes wait: those have to fit the journal's reserve when the
    /// disk turns out to be full.
    pub(crate) underway_bytes: u64,
    /// Catalogue entries newer than the newest run at which a checkpoint begins.
    pub(crate) hot_bytes: usize,
    /// Bytes of mostly dead chunks that one checkpoint moves at most; they are in memory meanwhile.
    pub(crate) compacted_bytes_max: u64,
    /// Disk space that moving them has to free.
    pub(crate) compaction_frees_min: u64,
    /// Bytes kept for readers although a chunk has them.
    pub(crate) cache_bytes: u64,
    /// Segments kept in memory although nothing happens to them.
    pub(crate) idle_segments: usize,
    /// A table's log shorter than this is never compacted.
    pub(crate) table_compact_bytes: u64,
    /// Stretch of a table's log that one step of its compaction reads.
    pub(crate) table_step_bytes: u64,
    /// Largest journal record.
    pub(crate) record_bytes: usize,
}

/// An answer that may be given once an operation is durable.
pub(crate) struct Ack<T> {
    /// The operation.
    pub(crate) after: u64,
    pub(crate) token: T,
    pub(crate) outcome: Outcome,
}

/// What a segment in memory costs, in bytes, about: its record, its name twice, its places in the maps.
const SEGMENT_BYTES: usize = 700;

/// What a step wants done.
pub(crate) struct Effects<T> {
    /// To be made durable, in order.
    pub(crate) records: Vec<Record>,
    /// To be sent by whoever makes `records` durable, each after the record of its operation, which is one of them. So an
    /// acknowledgement does not have to find its way through the container again.
    pub(crate) acks: Vec<Ack<T>>,
    /// To be sent, in order.
    pub(crate) replies: Vec<(T, Outcome)>,
    /// To be read from chunks and answered.
    pub(crate) reads: Vec<ColdRead<T>>,
    /// To be looked up and answered, or brought back.
    pub(crate) lookups: Vec<Lookup<T>>,
    /// To be written; [`Container::checkpoint_done`] follows.
    pub(crate) checkpoint: Option<CheckpointJob>,
}

impl<T> Default for Effects<T> {
    fn default() -> Self {
        Self {
            records: Vec::new(),
            acks: Vec::new(),
            replies: Vec::new(),
            reads: Vec::new(),
            lookups: Vec::new(),
            checkpoint: None,
        }
    }
}

/// The state of a container.
pub(crate) struct Container<T> {
    id: u32,
    limits: Limits,
    chunks: Arc<Chunks>,
    catalogue: Catalogue,
    /// Ids of the segments in memory by the name they are kept under.
    names: BTreeMap<String, u64>,
    segments: BTreeMap<u64, Segment<T>>,
    /// Last operation ordered.
    sequence: u64,
    /// Last operation known to be durable.
    durable: u64,
    /// Operations up to here are in the durable checkpoint.
    checkpointed: u64,
    /// Bytes of all records ordered since the start, and of those that are durable.
    ordered_bytes: u64,
    durable_bytes: u64,
    next_segment: u64,
    next_chunk: u64,
    /// Answers by the operation they wait for, then by age: an operation of an earlier step, see [`Effects::acks`].
    waiting: BTreeMap<(u64, u64), (T, Outcome)>,
    next_answer: u64,
    /// What the operations that are not durable yet changed, in order.
    touched: VecDeque<Touched>,
    /// Requests that wait for memory, for room on the disk, or for the journal.
    held: VecDeque<(Request, T)>,
    /// Room on the disk is low.
    is_low: bool,
    /// Since room became low, something was ordered that frees some once a checkpoint is made.
    frees_room: bool,
    /// Segments with a write that something is looked up for, and the writes that came after it.
    looked_up_for: BTreeMap<String, VecDeque<(Request, T)>>,
    /// Segments in memory that are newer than the catalogue.
    dirty: usize,
    unstored_bytes: u64,
    cached_bytes: u64,
    /// Stored extents, oldest first; some are gone meanwhile.
    cached: VecDeque<(u64, u64)>,
    running: Option<Running>,
    /// Who waits until everything up to an operation is in a durable checkpoint.
    flushes: Vec<(u64, T)>,
    /// Frozen, waiting for its operations to become durable.
    frozen_job: Option<CheckpointJob>,
    /// Chunks that nothing needs any more, to be removed once a checkpoint says so.
    dead_chunks: Vec<u64>,
    /// Where the search for idle segments goes on.
    eviction_cursor: u64,
    closing: bool,
    /// Requests refused because a chunk could not be read.
    damaged_reads: u64,
    /// Chunks found at the start that nothing needs; removed once the whole store is known to be sound.
    orphans: Vec<u64>,
}

/// Last operation that the durable checkpoint of each container includes.
pub(crate) fn covered<T: Token>(containers: &[Container<T>]) -> BTreeMap<u32, u64> {
    containers.iter().map(|container| (container.id, container.checkpointed)).collect()
}

impl<T: Token> Container<T> {
    /// Makes the places of a container in a new store.
    pub(crate) fn create(disk: &dyn Disk, id: u32) -> Result<(), StoreError> {
        let place = chunks::directory(id);
        disk.create_directory(&place).on(&place, "create")?;
        catalogue::create(disk, id)
    }

    /// Opens the newest checkpoint. Replay and [`recovered`](Self::recovered) follow.
    pub(crate) fn open(
        disk: &dyn Disk,
        chunks: Chunks,
        id: u32,
        limits: Limits,
        run_cache: &Arc<RunCache>,
    ) -> Result<(Self, Manifest), StoreError> {
        let (catalogue, manifest) = catalogue::open(disk, id, run_cache)?;
        let place = chunks::directory(id);
        let mut known = BTreeSet::new();
        for (key, _) in catalogue.with_prefix(keys::CHUNKS)? {
            known.insert(keys::last_number(&key).map_err(StoreError::malformed("catalogue", 0))?);
        }
        let found = chunks.objects().list(&place)?;
        let found: BTreeSet<_> = found.iter().filter_map(|name| chunks::number_of(name)).collect();
        if let Some(missing) = known.difference(&found).next() {
            return Err(StoreError::damaged(&place, 0, format!("chunk {missing} is missing")));
        }
        // What is found there is given up and deleted later; its names are not for new chunks.
        let unused_chunk = found.last().map_or(1, |newest| newest + 1).max(chunks.first_of_start().unwrap_or(1));
        let position = manifest.position;
        let container = Self {
            id,
            limits,
            chunks: Arc::new(chunks),
            catalogue,
            names: BTreeMap::new(),
            segments: BTreeMap::new(),
            sequence: position.sequence,
            durable: position.sequence,
            checkpointed: position.sequence,
            ordered_bytes: 0,
            durable_bytes: 0,
            next_segment: if canary::is(45) { 1 } else { position.next_segment.max(1) },
            next_chunk: position.next_chunk.max(unused_chunk),
            waiting: BTreeMap::new(),
            next_answer: 0,
            touched: VecDeque::new(),
            held: VecDeque::new(),
            is_low: false,
            frees_room: false,
            looked_up_for: BTreeMap::new(),
            dirty: 0,
            unstored_bytes: 0,
            cached_bytes: 0,
            cached: VecDeque::new(),
            running: None,
            flushes: Vec::new(),
            frozen_job: None,
            dead_chunks: Vec::new(),
            eviction_cursor: 0,
            closing: false,
            damaged_reads: 0,
            // No checkpoint names these: they were written for one that never became durable, whose bytes the journal
            // still has, or the checkpoint that gave them up is durable. Either way nothing can need them.
            orphans: found.difference(&known).copied().collect(),
        };
        Ok((container, manifest))
    }

    /// Applies an operation found in the journal, unless the checkpoint includes it.
    pub(crate) fn replay(&mut self, sequence: u64, operation: &[u8], payload: &[u8]) -> Result<(), StoreError> {
        if sequence <= self.checkpointed {
            return Ok(());
        }
        if sequence != self.sequence + 1 {
            let what = format!("container {} continues with operation {sequence} after {}", self.id, self.sequence);
            return Err(StoreError::damaged(crate::journal::DIRECTORY, 0, what));
        }
        let operation = Operation::decode(operation).map_err(StoreError::malformed(crate::journal::DIRECTORY, 0))?;
        self.sequence = sequence;
        if canary::is(21) && matches!(operation, Operation::Truncate { .. }) {
            return Ok(());
        }
        // A slice would keep the whole journal file it was read from in memory.
        let payload = Bytes::copy_from_slice(payload);
        self.apply(operation, payload, &mut Effects::default())
    }

    /// Everything the journal had is applied, and will be durable before anything else happens. Gives up what was under way: transient segments belong to
    /// connections that are gone.
    pub(crate) fn recovered(&mut self, effects: &mut Effects<T>) -> Result<(), StoreError> {
        let orphans = std::mem::take(&mut self.orphans);
        match self.chunks.first_of_start() {
            // At once, and not after a day aside: `docs/decisions/0007-chunk-store.md` says why there is no doubt. Deleting
            // begins when the store is open: by then the name of this manifest is durable (`catalogue::tidy`).
            None => self.chunks.give_up(orphans),
            // The copy of the catalogue may be older than the catalogue and still name them. The next one does not.
            Some(first) => self.dead_chunks.extend(orphans.into_iter().filter(|chunk| *chunk < first)),
        }
        self.durable = self.sequence;
        self.durable_bytes = self.ordered_bytes;
        self.touched.clear();
        for segment in self.segments.values_mut() {
            segment.durable_length = segment.length;
        }
        for (key, _) in self.catalogue.with_prefix(keys::TRANSIENTS)? {
            let segment = keys::last_number(&key).map_err(StoreError::malformed("catalogue", 0))?;
            if !canary::is(36) {
                self.order(Operation::Delete { segment }, Bytes::new(), effects)?;
            }
        }
        self.evict();
        Ok(())
    }

    /// Decides a request. Its answer comes as an effect of this or a later step.
    pub(crate) fn request(
        &mut self,
        now: i64,
        request: Request,
        token: T,
        effects: &mut Effects<T>,
    ) -> Result<(), StoreError> {
        if self.closing {
            effects.replies.push((token, Err(Refusal::Closing)));
            return Ok(());
        }
        if (self.holds_back() || !self.held.is_empty()) && !self.overtakes(&request) {
            self.held.push_back((request, token));
        } else {
            self.admit(now, request, token, effects)?;
        }
        self.evict();
        Ok(())
    }

    /// Writes wait: for memory, for room on the disk, or for the journal.
    fn holds_back(&self) -> bool {
        let Limits { unstored_bytes_max, underway_bytes, .. } = self.limits;
        let underway = self.ordered_bytes - self.durable_bytes;
        self.is_low || self.unstored_bytes > unstored_bytes_max || underway > underway_bytes
    }

    /// Reads do not wait, and neither does what gives memory back, unless it would overtake a write to the same segment.
    /// On a full disk what frees room overtakes everything: writes to its own segment wait for just that. A creation that was
    /// overtaken by a deletion happens when there is room.
    fn overtakes(&self, request: &Request) -> bool {
        let is_next = || !self.held.iter().any(|(held, _)| held.segment().key() == request.segment().key());
        match request {
            _ if self.is_low && frees_room(request) => true,
            Request::Truncate { .. }
            | Request::Delete { .. }
            | Request::DeleteTable { .. }
            | Request::OpenWriter { .. } => is_next(),
            request => reads::is_read(request),
        }
    }

    /// Room on the disk is low from now on, or not any more.
    pub(crate) fn room_changed(&mut self, is_low: bool) {
        // A checkpoint is what lets the journal, and what was given up before, go.
        self.frees_room |= is_low && !self.is_low;
        self.is_low = is_low;
        if !is_low && canary::is(47) {
            self.held.pop_front();
        }
    }

    /// The first of those held back that need not wait any longer.
    fn releasable(&self) -> Option<usize> {
        if self.is_low {
            self.held.iter().position(|(request, _)| frees_room(request))
        } else if self.held.is_empty() || self.holds_back() {
            None
        } else {
            Some(if canary::is(31) { self.held.len() - 1 } else { 0 })
        }
    }

    /// Whether [`release`](Self::release) would decide something. Asked after every step.
    pub(crate) fn wants_release(&self) -> bool {
        self.releasable().is_some()
    }

    /// Decides one of those held back, if one need not wait any longer; false if none did.
    pub(crate) fn release(&mut self, now: i64, effects: &mut Effects<T>) -> Result<bool, StoreError> {
        let Some((request, token)) = self.releasable().and_then(|at| self.held.remove(at)) else { return Ok(false) };
        self.admit(now, request, token, effects)?;
        Ok(true)
    }

    /// Operations up to `sequence` are durable.
    pub(crate) fn durable(&mut self, sequence: u64, effects: &mut Effects<T>) -> Result<(), StoreError> {
        assert!(self.durable <= sequence && sequence <= self.sequence, "durability grows and never runs ahead");
        self.durable = sequence;
        // Answers first: a writer learns of its append no later than a reader does.
        while let Some(entry) = self.waiting.first_entry()
            && entry.key().0 <= sequence
        {
            effects.replies.push(entry.remove());
        }
        let mut grown = Vec::new();
        while let Some(touched) = self.touched.pop_front_if(|touched| touched.sequence <= sequence) {
            self.durable_bytes = touched.ordered_bytes;
            if let Some(segment) = self.segments.get_mut(&touched.segment) {
                assert!(segment.durable_length <= touched.length, "bytes become visible in order");
                segment.durable_length = touched.length;
                if !segment.parked.is_empty() && !canary::is(32) && grown.last() != Some(&touched.segment) {
                    grown.push(touched.segment);
                }
            }
        }
        for id in grown {
            self.wake(id, effects)?;
        }
        if self.frozen_job.as_ref().is_some_and(|job| job.position.sequence <= sequence) {
            effects.checkpoint = self.frozen_job.take();
        }
        self.evict();
        Ok(())
    }

    /// Whether so much is in memory that [`checkpoint`](Self::checkpoint) should be called. It goes through all segments in
    /// memory, so not every caller has the time.
    pub(crate) fn wants_checkpoint(&self) -> bool {
        let hot_bytes = self.catalogue.hot_bytes() + self.dirty * SEGMENT_BYTES;
        let is_much = self.unstored_bytes >= self.limits.flush_bytes || hot_bytes >= self.limits.hot_bytes;
        (is_much || self.is_low && self.frees_room) && self.running.is_none() && self.sequence > self.checkpointed
    }

    /// Begins a checkpoint if there is anything to put into one and none is under way.
    pub(crate) fn checkpoint(&mut self, effects: &mut Effects<T>) -> Result<(), StoreError> {
        if self.running.is_none() && self.sequence > self.checkpointed {
            self.freeze(effects)?;
        }
        Ok(())
    }

    /// Runs were merged; the manifest names what came of it.
    pub(crate) fn merged(&mut self, installed: Installed) {
        self.catalogue.merged(installed);
    }

    /// Answers once everything ordered so far is in a durable checkpoint, and begins one for that if it must.
    pub(crate) fn flush(&mut self, token: T, effects: &mut Effects<T>) -> Result<(), StoreError> {
        if self.closing {
            effects.replies.push((token, Err(Refusal::Closing)));
        } else {
            self.flushes.push((self.sequence, token));
            self.answer_flushes(effects)?;
        }
        Ok(())
    }

    fn answer_flushes(&mut self, effects: &mut Effects<T>) -> Result<(), StoreError> {
        for (sequence, token) in std::mem::take(&mut self.flushes) {
            if sequence <= self.checkpointed {
                effects.replies.push((token, Ok(Response::Done)));
            } else if !token.is_abandoned() {
                self.flushes.push((sequence, token));
            }
        }
        // One that is under way may hold less than was asked for; the next one begins when it is done.
        if self.flushes.is_empty() { Ok(()) } else { self.checkpoint(effects) }
    }

    /// Refuses everything from now on and lets go of parked reads. What was ordered still becomes durable.
    pub(crate) fn close(&mut self, effects: &mut Effects<T>) {
        self.closing = true;
        for segment in self.segments.values_mut() {
            let parked = segment.parked.drain(..);
            effects.replies.extend(parked.map(|parked| (parked.token, Err(Refusal::Closing))));
        }
        let held = self.held.drain(..);
        effects.replies.extend(held.map(|(_, token)| (token, Err(Refusal::Closing))));
        for (_, queue) in std::mem::take(&mut self.looked_up_for) {
            effects.replies.extend(queue.into_iter().map(|(_, token)| (token, Err(Refusal::Closing))));
        }
        effects.replies.extend(self.flushes.drain(..).map(|(_, token)| (token, Err(Refusal::Closing))));
    }

    /// Requests that wait for memory, for room on the disk, or for the journal.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Everything ordered is durable.
    pub(crate) fn is_quiet(&self) -> bool {
        self.durable == self.sequence
    }

    /// Reads chunks of this container's segments.
    pub(crate) fn chunks(&self) -> Arc<Chunks> {
        self.chunks.clone()
    }

    /// Last operation the durable checkpoint includes.
    pub(crate) fn checkpointed(&self) -> u64 {
        self.checkpointed
    }

    /// What it uses and has met.
    pub(crate) fn usage(&self) -> Usage {
        Usage {
            sequence: self.sequence,
            unstored_bytes: self.unstored_bytes,
            cached_bytes: self.cached_bytes,
            catalogue_bytes: self.catalogue.hot_bytes() as u64,
            index_bytes: self.catalogue.index_bytes() as u64,
            segments: self.segments.len() as u64,
            damaged_reads: self.damaged_reads,
        }
    }

    /// Gives an operation its number, applies it and has it made durable.
    fn order(&mut self, operation: Operation, payload: Bytes, effects: &mut Effects<T>) -> Result<(), StoreError> {
        self.sequence += 1;
        let record = Record {
            container: self.id,
            sequence: self.sequence,
            operation: operation.encode(),
            payload: payload.clone(),
        };
        self.ordered_bytes += record.length() as u64;
        effects.records.push(record);
        // While room is low little else is ordered than what frees some.
        self.frees_room |= self.is_low;
        self.apply(operation, payload, effects)
    }

    /// Sends an answer once the operation `after` is durable.
    fn answer(&mut self, after: u64, token: T, outcome: Outcome, effects: &mut Effects<T>) {
        if after <= self.durable || canary::is(2) {
            effects.replies.push((token, outcome));
        } else if effects.records.first().is_some_and(|first| first.sequence <= after) {
            effects.acks.push(Ack { after, token, outcome });
        } else {
            self.waiting.insert((after, self.next_answer), (token, outcome));
            self.next_answer += 1;
        }
    }

    /// The id of a segment, brought into memory.
    fn find(&mut self, name: &SegmentName) -> Result<Option<u64>, StoreError> {
        self.find_key(&name.key())
    }

    fn find_key(&mut self, key: &str) -> Result<Option<u64>, StoreError> {
        if let Some(id) = self.names.get(key) {
            return Ok(Some(*id));
        }
        let Some(value) = self.catalogue.get(&keys::name(key))? else { return Ok(None) };
        let id = keys::decode_number(&value).map_err(StoreError::malformed("catalogue", 0))?;
        self.load_named(key, id)?;
        Ok(Some(id))
    }

    /// Brings the segment into memory that the catalogue says has this name.
    fn load_named(&mut self, key: &str, id: u64) -> Result<(), StoreError> {
        if !self.load(id)? || self.segment(id).key != key {
            let what = format!("name {key:?} leads to segment {id}, which is another or not there");
            return Err(StoreError::damaged("catalogue", 0, what));
        }
        Ok(())
    }

    /// Brings a segment into memory; false if there is none.
    fn load(&mut self, id: u64) -> Result<bool, StoreError> {
        if self.segments.contains_key(&id) {
            return Ok(true);
        }
        let Some(record) = self.catalogue.get(&keys::segment(id))? else { return Ok(false) };
        let segment = Segment::decode(&record).map_err(StoreError::malformed("catalogue", 0))?;
        self.names.insert(segment.key.clone(), id);
        self.segments.insert(id, segment);
        Ok(true)
    }

    /// A segment that was just found.
    fn segment(&self, id: u64) -> &Segment<T> {
        self.segments.get(&id).expect("the segment was found before")
    }

    fn segment_mut(&mut self, id: u64) -> &mut Segment<T> {
        self.segments.get_mut(&id).expect("the segment was found before")
    }

    /// Changes state. Deterministic in the state and its arguments; the answer is the caller's business.
    fn apply(&mut self, operation: Operation, payload: Bytes, effects: &mut Effects<T>) -> Result<(), StoreError> {
        match operation {
            Operation::Create { key, kind, policy, now } => {
                let id = self.next_segment;
                self.next_segment += 1;
                self.catalogue.put(keys::name(&key), keys::number(id));
                if kind == SegmentKind::Transient {
                    self.catalogue.put(keys::transient(id), Vec::new());
                }
                self.names.insert(key.clone(), id);
                self.segments.insert(id, Segment::new(key, kind, policy, now));
                self.dirty += 1;
                self.touch(id, None)?;
            }
            Operation::Append { segment: id, offset, writer, number, event_count, now } => {
                let segment = self.touch(id, Some(now))?;
                segment.attributes.insert(writer.into(), number);
                segment.newest = Some((writer.into(), number));
                segment.event_count += u64::from(event_count);
                self.extend(id, offset, payload)?;
                self.remember_boundary(id)?;
            }
            Operation::Seal { segment: id, now } => self.touch(id, Some(now))?.sealed = true,
            Operation::Truncate { segment: id, offset } => {
                self.touch(id, None)?;
                self.truncate(id, offset)?;
            }
            Operation::Delete { segment: id } => {
                self.touch(id, None)?;
                self.delete(id, effects)?;
            }
            Operation::Merge { target, source, offset, attributes, now } => {
                self.touch(source, None)?;
                let into = self.touch(target, Some(now))?;
                into.attributes.extend(attributes);
                into.newest = None;
                self.merge(target, source, offset, effects)?;
                self.remember_boundary(target)?;
            }
            Operation::Attributes { segment: id, attributes } => {
                let segment = self.touch(id, None)?;
                segment.attributes.extend(attributes);
                segment.newest = None;
            }
            Operation::SetPolicy { segment: id, policy } => {
                let segment = self.touch(id, None)?;
                segment.policy.scale_type = policy.scale_type;
                segment.policy.rate = policy.rate;
            }
            Operation::TableEntries { segment: id, offset, now } => {
                self.touch(id, Some(now))?;
                self.index_entries(id, offset, &payload)?;
                self.extend(id, offset, payload)?;
            }
            Operation::TableCompact { segment: id, offset, start } => {
                self.touch(id, None)?;
                self.index_entries(id, offset, &payload)?;
                self.extend(id, offset, payload)?;
                self.truncate(id, start)?;
            }
        }
        Ok(())
    }

    /// Notes that the operation being applied changes a segment.
    fn touch(&mut self, id: u64, now: Option<i64>) -> Result<&mut Segment<T>, StoreError> {
        if !self.load(id)? {
            return Err(StoreError::damaged(
                crate::journal::DIRECTORY,
                0,
                format!("operation {} of container {} names segment {id}, which is not there", self.sequence, self.id),
            ));
        }
        let segment = self.segments.get_mut(&id).expect("it was just loaded");
        if !segment.dirty {
            self.dirty += 1;
        }
        segment.dirty = true;
        segment.last_sequence = self.sequence;
        segment.modified = now.unwrap_or(segment.modified);
        let (sequence, ordered_bytes) = (self.sequence, self.ordered_bytes);
        self.touched.push_back(Touched { sequence, segment: id, length: segment.length, ordered_bytes });
        Ok(segment)
    }

    /// Adds bytes at the end.
    fn extend(&mut self, id: u64, offset: u64, bytes: Bytes) -> Result<(), StoreError> {
        let segment = self.segments.get_mut(&id).expect("the segment was touched before");
        if segment.length != offset || segment.sealed {
            let what = format!("operation {} appends at {offset} of {}", self.sequence, segment.length);
            return Err(StoreError::damaged(crate::journal::DIRECTORY, 0, what));
        }
        segment.length += bytes.len() as u64;
        self.touched.back_mut().expect("the segment was touched before").length = segment.length;
        if !bytes.is_empty() {
            let extent = Extent { bytes, stored: false };
            self.unstored_bytes += extent.cost();
            segment.extents.insert(offset, extent);
        }
        Ok(())
    }

    /// Keeps about every tenth of a megabyte a place where an append ended, for `Locate`.
    fn remember_boundary(&mut self, id: u64) -> Result<(), StoreError> {
        const DISTANCE_BYTES: u64 = 100_000;
        let segment = self.segments.get_mut(&id).expect("the segment was touched before");
        if segment.kind == SegmentKind::Stream && segment.length - segment.last_boundary >= DISTANCE_BYTES {
            segment.last_boundary = segment.length;
            self.catalogue.put(keys::boundary(id, segment.length), Vec::new());
        }
        Ok(())
    }

    fn truncate(&mut self, id: u64, start: u64) -> Result<(), StoreError> {
        let segment = self.segments.get_mut(&id).expect("the segment was touched before");
        if !(segment.start..=segment.length).contains(&start) {
            let (sequence, from, to) = (self.sequence, segment.start, segment.length);
            let what = format!("operation {sequence} truncates bytes {from} to {to} at {start}");
            return Err(StoreError::damaged(crate::journal::DIRECTORY, 0, what));
        }
        segment.start = start;
        while let Some(entry) = segment.extents.first_entry()
            && *entry.key() < start
        {
            let (at, extent) = entry.remove_entry();
            let gone = (extent.bytes.len() as u64).min(start - at) as usize;
            let used = if extent.stored { &mut self.cached_bytes } else { &mut self.unstored_bytes };
            *used -= extent.cost();
            if gone < extent.bytes.len() {
                let rest = Extent { bytes: extent.bytes.slice(gone..), stored: extent.stored };
                *used += rest.cost();
                if rest.stored {
                    self.cached.push_back((id, start));
                }
                segment.extents.insert(start, rest);
            }
        }
        for (key, value) in self.catalogue.between(&keys::pieces(id), &keys::piece(id, start))? {
            let run = StoredRun::decode(&key, &value).map_err(StoreError::malformed("catalogue", 0))?;
            self.forget_run(id, &run)?;
        }
        if self.segment(id).is_table() {
            return Ok(());
        }
        for (key, _) in self.catalogue.between(&keys::boundaries(id), &keys::boundary(id, start))? {
            self.catalogue.remove(key);
        }
        Ok(())
    }

    fn delete(&mut self, id: u64, effects: &mut Effects<T>) -> Result<(), StoreError> {
        for run in self.stored_runs(id)? {
            self.forget_run(id, &run)?;
        }
        let segment = self.forget_segment(id)?;
        for extent in segment.extents.into_values() {
            let used = if extent.stored { &mut self.cached_bytes } else { &mut self.unstored_bytes };
            *used -= extent.cost();
        }
        for parked in segment.parked {
            self.answer(self.sequence, parked.token, Err(Refusal::NoSuchSegment), effects);
        }
        Ok(())
    }

    /// Moves every byte of `source` behind those of `target`.
    fn merge(&mut self, target: u64, source: u64, offset: u64, effects: &mut Effects<T>) -> Result<(), StoreError> {
        let runs = self.stored_runs(source)?;
        let moved = self.forget_segment(source)?;
        let Some(into) = self.segments.get_mut(&target) else {
            let what = format!("operation {} merges segment {target} into itself", self.sequence);
            return Err(StoreError::damaged(crate::journal::DIRECTORY, 0, what));
        };
        if into.length != offset || into.sealed || moved.start != 0 {
            let what = format!("operation {} merges at {offset} of {}", self.sequence, into.length);
            return Err(StoreError::damaged(crate::journal::DIRECTORY, 0, what));
        }
        into.length += moved.length;
        self.touched.back_mut().expect("the target was touched before").length = into.length;
        // The Java and Rust clients upload one event in one transient segment, whatever number of pieces it took.
        into.event_count += if moved.kind == SegmentKind::Transient { 1 } else { moved.event_count };
        for (start, extent) in moved.extents.into_iter().take(if canary::is(14) { 1 } else { usize::MAX }) {
            if extent.stored {
                self.cached.push_back((target, offset + start));
            }
            into.extents.insert(offset + start, extent);
        }
        for run in runs {
            self.catalogue.remove(keys::piece(source, run.end));
            let run = StoredRun { start: offset + run.start, end: offset + run.end, place: run.place };
            self.catalogue.put(keys::piece(target, run.end), run.encode());
        }
        if let Some(running) = &mut self.running {
            running.moved.insert(source, (target, offset));
        }
        for parked in moved.parked {
            self.answer(self.sequence, parked.token, Err(Refusal::NoSuchSegment), effects);
        }
        Ok(())
    }

    /// Removes a segment from memory and all its keys but those of its stored runs.
    fn forget_segment(&mut self, id: u64) -> Result<Segment<T>, StoreError> {
        let segment = self.segments.remove(&id).expect("the segment was touched before");
        self.dirty -= usize::from(segment.dirty);
        self.names.remove(&segment.key);
        self.catalogue.remove(keys::name(&segment.key));
        self.catalogue.remove(keys::segment(id));
        if segment.kind == SegmentKind::Transient {
            self.catalogue.remove(keys::transient(id));
        }
        // Its attributes, boundaries and table keys may be millions; no id is used twice, so nobody will look.
        self.catalogue.retire(id);
        Ok(segment)
    }

    /// The runs of a segment's bytes that are in chunks, in order.
    fn stored_runs(&self, id: u64) -> Result<Vec<StoredRun>, StoreError> {
        let entries = self.catalogue.with_prefix(&keys::pieces(id))?;
        let decode = |(key, value): &(Vec<u8>, Vec<u8>)| StoredRun::decode(key, value);
        entries.iter().map(decode).collect::<Result<_, _>>().map_err(StoreError::malformed("catalogue", 0))
    }

    /// Nothing needs this run any more; nor its chunk, if it was the last.
    fn forget_run(&mut self, id: u64, run: &StoredRun) -> Result<(), StoreError> {
        self.catalogue.remove(keys::piece(id, run.end));
        self.release_chunk(run.place.chunk, run.length())
    }

    fn release_chunk(&mut self, chunk: u64, bytes: u64) -> Result<(), StoreError> {
        let key = keys::chunk(chunk);
        let value = self.catalogue.get(&key)?;
        let needed = value.map(|value| keys::decode_number(&value)).transpose();
        let needed = needed.map_err(StoreError::malformed("catalogue", 0))?;
        match needed.and_then(|needed| needed.checked_sub(bytes)) {
            Some(0) => {
                self.catalogue.remove(key);
                self.dead_chunks.push(chunk);
            }
            Some(left) => self.catalogue.put(key, keys::number(left)),
            None => {
                let needed = needed.unwrap_or(0);
                let what = format!("{needed} bytes of chunk {chunk} are needed, and {bytes} are given up");
                return Err(StoreError::damaged("catalogue", 0, what));
            }
        }
        Ok(())
    }

    /// Gives memory back: cached bytes above the limit, then segments nobody uses.
    fn evict(&mut self) {
        while self.cached_bytes > self.limits.cache_bytes
            && let Some((id, start)) = self.cached.pop_front()
        {
            if let Some(segment) = self.segments.get_mut(&id)
                && segment.extents.get(&start).is_some_and(|extent| extent.stored)
                && let Some(extent) = segment.extents.remove(&start)
            {
                self.cached_bytes -= extent.cost();
            }
        }
        // Extents that went another way leave their places in the queue behind.
        if self.cached.len() as u64 > 1024 + self.cached_bytes / (EXTENT_OVERHEAD_BYTES / 2) {
            let segments = &self.segments;
            self.cached.retain(|(id, start)| {
                segments.get(id).and_then(|one| one.extents.get(start)).is_some_and(|extent| extent.stored)
            });
        }
        /// Segments looked at per step, so that no step becomes long.
        const LOOKED_AT: usize = 16;
        if self.segments.len() > self.limits.idle_segments {
            let mut idle = Vec::new();
            let mut last = None;
            for (id, segment) in self.segments.range(self.eviction_cursor..).take(LOOKED_AT) {
                last = Some(*id);
                if segment.is_idle(self.durable) {
                    idle.push(*id);
                }
            }
            self.eviction_cursor = last.map_or(0, |id| id + 1);
            for id in idle {
                let segment = self.segments.remove(&id).expect("it was just seen");
                self.names.remove(&segment.key);
            }
        }
    }
}

/// A segment that an operation changed, and its length since.
#[derive(Clone, Copy, Debug)]
struct Touched {
    sequence: u64,
    segment: u64,
    length: u64,
    /// Bytes of all records up to and including the operation's.
    ordered_bytes: u64,
}

/// Requests that free room on the disk, now or later, or end what holds it: records of a few bytes. Changes of system
/// tables and creations on the reserve belong to them.
fn frees_room(request: &Request) -> bool {
    match request {
        Request::Seal { .. }
        | Request::Truncate { .. }
        | Request::Delete { .. }
        | Request::DeleteTable { .. }
        | Request::Merge { .. }
        | Request::MergeBatch { .. } => true,
        Request::TableUpdate { segment, .. } => segment.as_str().starts_with(SYSTEM_TABLES),
        Request::Create { on_reserve, .. } => *on_reserve,
        _ => false,
    }
}

/// What a container uses, and how often it met damage.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Last operation ordered.
    pub(crate) sequence: u64,
    pub(crate) unstored_bytes: u64,
    pub(crate) cached_bytes: u64,
    pub(crate) catalogue_bytes: u64,
    pub(crate) index_bytes: u64,
    pub(crate) segments: u64,
    pub(crate) damaged_reads: u64,
}
