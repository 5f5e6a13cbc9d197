//! Looking things up that are not in memory, so that no container waits for the disk on behalf of one request.
//!
//! ```text
//!   decide ──all in memory──► answer
//!      │ ▲
//!      │ └──────── again: the cache has it now ────────┐
//!      └─► [Lookup] ─► a thread that may wait ─────────┴──► answer
//! ```
//!
//! Values and pages of tables are answered by that thread: it sees the runs of the moment of the decision, and the
//! container gave it all that was newer. Everything else only has the cache filled, and is decided anew.
//!
//! Guarantees:
//! * what is decided is decided on the newest state, by the container; a look-up changes nothing
//! * writes to one segment keep their order: those behind one that is looked up wait for it ([`Container::admit`])
//! * a look-up that comes back for the [`TRIES_MAX`]th time is no longer put off: then the container waits for the disk

use std::collections::VecDeque;
use std::ops::Bound;

use bytes::{Bytes, BytesMut};
use headwater_types::limits::TABLE_PAGE_BYTES;

use crate::api::{Outcome, Refusal, Request, Response, ScanRange, TableEntry};
use crate::canary;
use crate::catalogue::{Entries, Key, Snapshot, Stop, Warm};
use crate::chunks::{Chunks, Place};
use crate::error::StoreError;

use super::keys::{self, IndexEntry, StoredRun};
use super::{Container, Effects, Token, reads};

/// Times that a request is put off.
pub(super) const TRIES_MAX: u32 = 2;
/// The same for a compaction, which comes back for bytes and for their keys.
pub(super) const COMPACTION_TRIES_MAX: u32 = 2 * TRIES_MAX;
/// Entries one look-up walks over for a page, removed ones included, before others have their turn.
const EXAMINED_MAX: usize = 16_384;
/// Values nearer than this to one another are read together.
const GAP_BYTES: u64 = 16 << 10;
/// Most bytes read together.
const GROUP_BYTES: u64 = 1 << 20;
/// Bytes of an entry in a page beside key and value.
pub(super) const PAGE_ENTRY_BYTES: usize = 17;

/// A request, and how far it has come.
pub(crate) struct Pending<T> {
    pub(super) request: Request,
    pub(super) token: T,
    /// Times it was looked up for.
    pub(super) tries: u32,
    pub(super) progress: Option<Progress>,
}

/// How far a walk over a table's log has come.
pub(super) struct Progress {
    pub(super) position: u64,
    /// Bytes from the position on.
    pub(super) stretch: Option<Bytes>,
}

/// Something to be brought into the cache.
pub(super) enum Wanted {
    /// A key of the catalogue.
    Key(Key),
    /// A segment's record by its name, and an attribute of it.
    Segment { name: Key, attribute: Option<headwater_types::AttributeId> },
}

/// What to look up.
pub(super) enum Work {
    /// The caller only gives others their turn.
    Nothing,
    Warm(Vec<Wanted>),
    Values {
        segment: u64,
        slots: Vec<Slot>,
    },
    Page(Box<PageWork>),
    /// Bytes of a table's log.
    Stretch {
        segment: u64,
        from: u64,
        to: u64,
    },
}

/// What is known of one key of a [`Request::TableGet`].
pub(super) enum Slot {
    Known(Option<TableEntry>),
    /// The value is in a chunk.
    At(Bytes, IndexEntry),
    /// The key is in no map.
    Key(Bytes),
}

/// A page of a table.
pub(super) struct PageWork {
    pub(super) segment: u64,
    pub(super) range: ScanRange,
    pub(super) count_max: usize,
    pub(super) keys_only: bool,
    /// Index entries newer than the runs.
    pub(super) newer: Entries,
    /// Values of these that are in memory, by their key.
    pub(super) values: std::collections::BTreeMap<Bytes, Bytes>,
    /// Behind this key there may be newer entries than those above.
    pub(super) known_to: Option<Key>,
}

/// Whose look-up it is.
enum Owner<T> {
    Request(Pending<T>),
    /// The compaction of a table's log, which nobody waits for.
    Compaction {
        segment: u64,
        position: u64,
        stretch: Option<Bytes>,
        tries: u32,
    },
}

/// Something to be looked up by a thread that may wait for the disk.
pub(crate) struct Lookup<T> {
    snapshot: Snapshot,
    work: Work,
    owner: Owner<T>,
    /// The answer has to wait for this operation.
    after: Option<u64>,
}

/// What became of a [`Lookup`].
pub(crate) enum Found<T> {
    /// Send this.
    Answer(T, Outcome),
    /// Hand this to [`Container::looked_up`].
    Back(Back<T>),
    /// Refuse, and tell a person why.
    Failed(T, StoreError),
    /// A compaction met damage; it is not tried again before the next start.
    Abandoned(StoreError),
}

/// What a container goes on with.
pub(crate) enum Back<T> {
    Again(Pending<T>),
    /// Send this once the operation is durable.
    Answer(u64, T, Outcome),
    Compaction {
        segment: u64,
        position: u64,
        stretch: Option<Bytes>,
        tries: u32,
    },
}

/// Why bytes cannot be had.
enum Missed {
    /// They were given up meanwhile.
    Gone(StoreError),
    Failed(StoreError),
}

impl<T> Lookup<T> {
    /// Bytes of chunks may be needed, which may be far away; everything else is in the catalogue, on this machine.
    pub(crate) fn reads_chunks(&self) -> bool {
        match self.work {
            Work::Nothing | Work::Warm(_) => false,
            Work::Values { .. } | Work::Page(_) | Work::Stretch { .. } => true,
        }
    }

    /// Looks up and builds the answer. Blocks on the disk.
    ///
    /// # Errors
    /// Damage of the catalogue, or a disk error there: the store cannot go on.
    pub(crate) fn run(self, chunks: &Chunks) -> Result<Found<T>, StoreError> {
        let Self { snapshot, work, owner, after } = self;
        let source = Source { snapshot: &snapshot, chunks };
        let done = match work {
            Work::Nothing => Ok(Done::Warm),
            Work::Warm(wanted) => {
                wanted.iter().try_for_each(|wanted| source.warm(wanted))?;
                Ok(Done::Warm)
            }
            Work::Values { segment, slots } => source.values(segment, slots).map(Done::Outcome),
            Work::Page(page) => source.page(*page),
            Work::Stretch { segment, from, to } => {
                source.bytes(segment, from, (to - from) as usize).map(|bytes| Done::Stretch(from, bytes))
            }
        };
        match (done, owner) {
            (Ok(Done::Outcome(response)), Owner::Request(pending)) => Ok(match after {
                None => Found::Answer(pending.token, Ok(response)),
                Some(after) => Found::Back(Back::Answer(after, pending.token, Ok(response))),
            }),
            (Ok(done), Owner::Request(mut pending)) => {
                match done {
                    Done::GoOn(from) => {
                        if let Request::TableScan { range, .. } = &mut pending.request {
                            (range.from, range.exclusive) = (Some(from), true);
                        }
                        pending.tries = 0;
                    }
                    Done::Stretch(position, stretch) => {
                        pending.progress = Some(Progress { position, stretch: Some(stretch) });
                    }
                    Done::Warm | Done::Outcome(_) => pending.tries += 1,
                }
                Ok(Found::Back(Back::Again(pending)))
            }
            (Ok(done), Owner::Compaction { segment, position, stretch, tries }) => {
                let stretch = match done {
                    Done::Stretch(_, bytes) => Some(bytes),
                    _ => stretch,
                };
                Ok(Found::Back(Back::Compaction { segment, position, stretch, tries: tries + 1 }))
            }
            // The container looks again, at what is there now, and waits for it if it must.
            (Err(Missed::Gone(_)), Owner::Request(mut pending)) if pending.tries < TRIES_MAX => {
                pending.tries = TRIES_MAX;
                Ok(Found::Back(Back::Again(pending)))
            }
            (Err(Missed::Gone(_)), Owner::Compaction { segment, position, stretch, tries })
                if tries <= COMPACTION_TRIES_MAX && !canary::is(48) =>
            {
                let tries = COMPACTION_TRIES_MAX + 1;
                Ok(Found::Back(Back::Compaction { segment, position, stretch, tries }))
            }
            // Whoever asked the storage has waited for it. A compaction has nobody to answer to, and goes on.
            (
                Err(Missed::Failed(StoreError::Unreachable { .. })),
                Owner::Compaction { segment, position, stretch, tries },
            ) => Ok(Found::Back(Back::Compaction { segment, position, stretch, tries })),
            (Err(Missed::Gone(error) | Missed::Failed(error)), owner) => match owner {
                _ if !error.is_in_chunk() => Err(error),
                Owner::Request(pending) => Ok(Found::Failed(pending.token, error)),
                Owner::Compaction { .. } => Ok(Found::Abandoned(error)),
            },
        }
    }
}

/// What a look-up brought.
enum Done {
    Warm,
    Outcome(Response),
    /// Nothing yet up to this key of the table.
    GoOn(Bytes),
    Stretch(u64, Bytes),
}

/// Where a look-up looks.
struct Source<'a> {
    snapshot: &'a Snapshot,
    chunks: &'a Chunks,
}

impl Source<'_> {
    fn warm(&self, wanted: &Wanted) -> Result<(), StoreError> {
        match wanted {
            Wanted::Key(key) => self.snapshot.get(key).map(drop),
            Wanted::Segment { name, attribute } => {
                let Some(id) = self.snapshot.get(name)? else { return Ok(()) };
                let id = keys::decode_number(&id).map_err(StoreError::malformed("catalogue", 0))?;
                self.snapshot.get(&keys::segment(id))?;
                match attribute {
                    Some(attribute) => self.snapshot.get(&keys::attribute(id, *attribute)).map(drop),
                    None => Ok(()),
                }
            }
        }
    }

    fn values(&self, segment: u64, slots: Vec<Slot>) -> Result<Response, Missed> {
        let mut values = Vec::with_capacity(slots.len());
        for slot in slots {
            let (key, found) = match slot {
                Slot::Known(entry) => {
                    values.push(entry);
                    continue;
                }
                Slot::At(key, found) => (key, found),
                Slot::Key(key) => {
                    let value = self.snapshot.get(&keys::table_key(segment, &key)).map_err(Missed::Failed)?;
                    let Some(value) = value else {
                        values.push(None);
                        continue;
                    };
                    (key, decode_index(&value).map_err(Missed::Failed)?)
                }
            };
            let position = found.position + (PAGE_ENTRY_BYTES + key.len()) as u64;
            let value = self.bytes(segment, position, found.value_length as usize)?;
            values.push(Some(TableEntry { key, version: found.version, value }));
        }
        Ok(Response::Values(values))
    }

    fn page(&self, work: PageWork) -> Result<Done, Missed> {
        let PageWork { segment, range, count_max, keys_only, newer, values, known_to } = work;
        let first = keys::table_key(segment, range.from.as_deref().unwrap_or_default().max(&range.prefix));
        let prefix = keys::table_key(segment, &range.prefix);
        let mut scan = self.snapshot.scan(Bound::Included(&first), &newer).map_err(Missed::Failed)?;
        let (mut found, mut bytes, mut examined) = (Vec::new(), 0, 0);
        // Where the walk stopped, unless that was the end or the page is full.
        let stopped = loop {
            if found.len() == count_max || bytes >= TABLE_PAGE_BYTES {
                break None;
            }
            let Some((key, value)) = scan.next_raw().map_err(Stop::failed).map_err(Missed::Failed)? else {
                break known_to;
            };
            if known_to.as_ref().is_some_and(|known| key > *known) {
                break known_to;
            }
            let table_key = key.get(keys::PREFIX_BYTES..).unwrap_or_default();
            if !key.starts_with(&prefix) || range.to.as_ref().is_some_and(|to| table_key > &to[..]) {
                break None;
            }
            examined += 1;
            let is_excluded = range.exclusive && range.from.as_ref().is_some_and(|from| table_key == &from[..]);
            let value: Option<Vec<u8>> = value.filter(|_| !is_excluded);
            if let Some(value) = value {
                let index = decode_index(&value).map_err(Missed::Failed)?;
                let value_length = if keys_only { 0 } else { index.value_length as usize };
                bytes += PAGE_ENTRY_BYTES + table_key.len() + value_length;
                found.push((Bytes::copy_from_slice(table_key), index));
            }
            if examined == EXAMINED_MAX {
                break Some(key);
            }
        };
        if found.is_empty()
            && let Some(stopped) = stopped
        {
            return Ok(Done::GoOn(Bytes::copy_from_slice(&stopped[keys::PREFIX_BYTES..])));
        }
        let page = if keys_only {
            found
                .into_iter()
                .map(|(key, index)| TableEntry { key, version: index.version, value: Bytes::new() })
                .collect()
        } else {
            self.page_values(segment, found, &values)?
        };
        Ok(Done::Outcome(Response::Page(page)))
    }

    /// Adds the values to a page; those that lie near one another are read together.
    fn page_values(
        &self,
        segment: u64,
        found: Vec<(Bytes, IndexEntry)>,
        values: &std::collections::BTreeMap<Bytes, Bytes>,
    ) -> Result<Vec<TableEntry>, Missed> {
        let mut page = Vec::with_capacity(found.len());
        let mut cold = Vec::new();
        for (key, index) in found {
            let value = values.get(&key).cloned();
            if value.is_none() {
                let position = index.position + (PAGE_ENTRY_BYTES + key.len()) as u64;
                cold.push((position, u64::from(index.value_length), page.len()));
            }
            page.push(TableEntry { key, version: index.version, value: value.unwrap_or_default() });
        }
        cold.sort_unstable();
        let mut rest = &cold[..];
        while let Some((start, length, _)) = rest.first() {
            let (start, mut end) = (*start, start + length);
            let near = |(position, length, _): &&(u64, u64, usize)| {
                let joins = *position <= end + GAP_BYTES && position + length - start <= GROUP_BYTES.max(end - start);
                if joins {
                    end = end.max(position + length);
                }
                joins
            };
            let count = rest.iter().take_while(near).count();
            let bytes = match self.bytes(segment, start, (end - start) as usize) {
                // What is damaged may lie in a gap that nobody needs.
                Err(Missed::Failed(error)) if error.is_in_chunk() && count > 1 => {
                    for (position, length, at) in &rest[..count] {
                        page[*at].value = self.bytes(segment, *position, *length as usize)?;
                    }
                    rest = &rest[count..];
                    continue;
                }
                bytes => bytes?,
            };
            for (position, length, at) in &rest[..count] {
                let from = (position - start) as usize;
                // A copy: the gaps would stay in memory with it.
                page[*at].value = Bytes::copy_from_slice(&bytes[from..from + *length as usize]);
            }
            rest = &rest[count..];
        }
        Ok(page)
    }

    /// Bytes of a table that are in chunks.
    fn bytes(&self, segment: u64, offset: u64, length: usize) -> Result<Bytes, Missed> {
        let end = offset + length as u64;
        let prefix = keys::pieces(segment);
        let mut all = BytesMut::new();
        let mut position = offset;
        let newer = Entries::new();
        let from = keys::piece(segment, offset);
        let mut scan = self.snapshot.scan(Bound::Excluded(&from), &newer).map_err(Missed::Failed)?;
        while position < end {
            let run = match scan.next().map_err(Missed::Failed)? {
                Some((key, value)) if key.starts_with(&prefix) => StoredRun::decode(&key, &value)
                    .map_err(StoreError::malformed("catalogue", 0))
                    .map_err(Missed::Failed)?,
                _ => return Err(gone(segment, position)),
            };
            if run.start > position {
                return Err(gone(segment, position));
            }
            let part = (run.end.min(end) - position) as usize;
            let place = Place { chunk: run.place.chunk, position: run.place.position + (position - run.start) };
            let read = self.chunks.read(place, part);
            let read =
                read.map_err(|error| if error.is_not_found() { Missed::Gone(error) } else { Missed::Failed(error) })?;
            if part == length {
                return Ok(read);
            }
            all.extend_from_slice(&read);
            position += part as u64;
        }
        Ok(all.freeze())
    }
}

fn gone(segment: u64, offset: u64) -> Missed {
    let what = format!("segment {segment} has no bytes at {offset}, although its index names them");
    Missed::Gone(StoreError::damaged("catalogue", 0, what))
}

fn decode_index(value: &[u8]) -> Result<IndexEntry, StoreError> {
    IndexEntry::decode(value).map_err(StoreError::malformed("catalogue", 0))
}

impl<T: Token> Container<T> {
    /// Decides a request, after those to its segment that wait for a look-up.
    pub(super) fn admit(
        &mut self,
        now: i64,
        request: Request,
        token: T,
        effects: &mut Effects<T>,
    ) -> Result<(), StoreError> {
        if !self.looked_up_for.is_empty()
            && !reads::is_read(&request)
            && let Some(queue) = self.queue_of(&request)
        {
            queue.push_back((request, token));
            return Ok(());
        }
        self.decide(now, Pending { request, token, tries: 0, progress: None }, effects).map(drop)
    }

    fn queue_of(&mut self, request: &Request) -> Option<&mut VecDeque<(Request, T)>> {
        let sources = match request {
            Request::Merge { source, .. } => std::slice::from_ref(source),
            Request::MergeBatch { sources, .. } => sources,
            _ => &[],
        };
        let named = std::iter::once(request.segment()).chain(sources);
        let key = named.map(|name| name.key()).find(|key| self.looked_up_for.contains_key(key.as_ref()))?;
        self.looked_up_for.get_mut(key.as_ref())
    }

    /// Has something looked up for a request.
    pub(super) fn look_up(&mut self, id: Option<u64>, work: Work, pending: Pending<T>, effects: &mut Effects<T>) {
        if !reads::is_read(&pending.request) {
            self.looked_up_for.entry(pending.request.segment().key().into_owned()).or_default();
        }
        let after = id.map(|id| self.segment(id).last_sequence).filter(|last| *last > self.durable);
        let snapshot = self.catalogue.snapshot();
        effects.lookups.push(Lookup { snapshot, work, owner: Owner::Request(pending), after });
    }

    /// Has something looked up for the compaction of a table.
    pub(super) fn look_up_for_compaction(
        &mut self,
        work: Work,
        segment: u64,
        position: u64,
        stretch: Option<Bytes>,
        tries: u32,
        effects: &mut Effects<T>,
    ) {
        self.segments.get_mut(&segment).expect("the segment was found before").compacting = true;
        let owner = Owner::Compaction { segment, position, stretch, tries };
        effects.lookups.push(Lookup { snapshot: self.catalogue.snapshot(), work, owner, after: None });
    }

    /// Goes on with what was looked up.
    pub(crate) fn looked_up(&mut self, now: i64, back: Back<T>, effects: &mut Effects<T>) -> Result<(), StoreError> {
        match back {
            Back::Answer(after, token, outcome) => self.answer(after, token, outcome, effects),
            Back::Again(pending) if self.closing => effects.replies.push((pending.token, Err(Refusal::Closing))),
            Back::Again(pending) => {
                let waits = !reads::is_read(&pending.request);
                let key = pending.request.segment().key().into_owned();
                let is_decided = self.decide(now, pending, effects)?;
                if waits && is_decided {
                    for (request, token) in self.looked_up_for.remove(&key).unwrap_or_default() {
                        self.admit(now, request, token, effects)?;
                    }
                }
            }
            Back::Compaction { .. } if self.closing => {}
            Back::Compaction { segment, position, stretch, tries } => {
                if self.load(segment)? && self.segment(segment).is_table() {
                    self.segments.get_mut(&segment).expect("it was just loaded").compacting = false;
                    self.compact(segment, Some((position, stretch, tries)), effects)?;
                }
            }
        }
        self.evict();
        Ok(())
    }

    /// The id of a segment, brought into memory; or what has to be looked up for that.
    pub(super) fn find_warm(&mut self, key: &str) -> Result<Result<Option<u64>, Wanted>, StoreError> {
        if let Some(id) = self.names.get(key) {
            return Ok(Ok(Some(*id)));
        }
        let wanted = |name| Ok(Err(Wanted::Segment { name, attribute: None }));
        let name = keys::name(key);
        let id = match self.catalogue.get_warm(&name)? {
            Warm::Known(None) => return Ok(Ok(None)),
            Warm::Known(Some(id)) => keys::decode_number(&id).map_err(StoreError::malformed("catalogue", 0))?,
            Warm::Cold => return wanted(name),
        };
        if !self.segments.contains_key(&id) && self.catalogue.get_warm(&keys::segment(id))? == Warm::Cold {
            return wanted(name);
        }
        self.load_named(key, id)?;
        Ok(Ok(Some(id)))
    }

    /// What has to be looked up before a request to a segment in memory can be decided without waiting.
    pub(super) fn wanted(&mut self, id: u64, request: &Request) -> Result<Vec<Wanted>, StoreError> {
        let mut wanted = Vec::new();
        let mut attributes = Vec::new();
        match request {
            Request::OpenWriter { writer, .. } => attributes.push((*writer).into()),
            Request::Append(append) => {
                attributes.push(append.writer.into());
                if append.segment.is_transient()
                    && let Some(parent) = append.segment.parent()
                {
                    wanted.extend(self.find_warm(&parent.key())?.err());
                }
            }
            Request::Attribute { id, .. } => attributes.push(*id),
            Request::UpdateAttributes { updates, .. } => attributes.extend(updates.iter().map(|update| update.id)),
            Request::Merge { source, updates, .. } => {
                wanted.extend(self.find_warm(&source.key())?.err());
                attributes.extend(updates.iter().map(|update| update.id));
            }
            Request::MergeBatch { sources, .. } => {
                for source in sources {
                    wanted.extend(self.find_warm(&source.key())?.err());
                }
            }
            _ => return Ok(wanted),
        }
        for attribute in attributes {
            if self.segment(id).attribute_in_memory(attribute).is_none() {
                let key = keys::attribute(id, attribute);
                if self.catalogue.get_warm(&key)? == Warm::Cold {
                    wanted.push(Wanted::Key(key));
                }
            }
        }
        Ok(wanted)
    }
}
