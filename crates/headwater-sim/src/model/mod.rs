//! What the engine is supposed to do, written as naively as possible: maps and vectors, one request after the other.
//!
//! A [`State`] is all that one container remembers. [`State::decide`] says what a request makes of it, and what the
//! answer has to look like. States are values: the harness keeps the state after every step, so that what is found
//! after a crash can be compared with each of them.
//!
//! Two things the interface leaves to the engine are kept symbolic here: the version of a table entry (here the number
//! of its change, [`Entry::change`]) and the length of a table's log (here how often it grew). The [`Ledger`] learns the
//! real numbers from answers and checks that they grow as promised.
//!
//! Not here: which steps must have survived a crash (`history`).

mod answer;
mod ledger;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use headwater_engine::api::{
    ATTRIBUTE_UPDATES_MAX, Append, AttributeUpdate, Expect, Refusal, Request, SegmentKind, SegmentPolicy, TableChange,
    UpdateKind,
};
use headwater_types::limits::{TABLE_KEY_BYTES_MAX, TABLE_VALUE_BYTES_MAX};
use headwater_types::{AttributeId, Offset, SegmentName, attribute};

pub use answer::{Answer, DeltaAnswer};
pub use ledger::{Finding, Ledger};

/// All segments of one container, by [`SegmentName::key`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct State {
    /// Cheap to copy: states share what did not change between them.
    pub segments: BTreeMap<String, Arc<Segment>>,
}

/// One segment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Segment {
    /// Tells a segment from an earlier one of the same name.
    pub incarnation: u64,
    /// What it holds.
    pub kind: SegmentKind,
    /// Kept, not interpreted.
    pub policy: SegmentPolicy,
    /// First readable byte.
    pub start: Offset,
    /// All appends, truncated ones too: the offset where each ends, and its bytes.
    pub pieces: Vec<(Offset, Bytes)>,
    /// Never grows again.
    pub sealed: bool,
    /// Writer numbers among them.
    pub attributes: BTreeMap<AttributeId, i64>,
    /// Events appended and merged.
    pub event_count: u64,
    /// Empty unless it is one.
    pub table: Table,
}

/// Keys and values.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Table {
    /// Live keys.
    pub entries: BTreeMap<Bytes, Entry>,
    /// How often its log has certainly grown.
    pub growth: u64,
    /// An update since then changed nothing; whether it made the log longer is the engine's business.
    pub growth_in_doubt: bool,
    /// Newest change, 0 if there was none.
    pub last_change: u64,
}

/// A live entry of a table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Value.
    pub value: Bytes,
    /// Number of the change that put it; stands for its version and grows with time.
    pub change: u64,
}

/// Source of numbers that are never used twice in a run, not even by steps that a crash undid.
#[derive(Clone, Debug, Default)]
pub struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// What a request does.
#[derive(Clone, Debug)]
pub struct Decision {
    /// States after each of its steps: none if it changes nothing; a batch of merges may become durable piece by piece.
    pub steps: Vec<State>,
    /// What the answer must look like.
    pub answer: Answer,
    /// Whether the steps change anything a client could see. If not, the store need not remember them.
    pub changes: bool,
}

impl Decision {
    fn shows(answer: Answer) -> Self {
        Self { steps: Vec::new(), answer, changes: false }
    }

    fn steps(steps: Vec<State>, answer: Answer) -> Self {
        Self { changes: !steps.is_empty(), steps, answer }
    }

    fn refused(refusals: impl Into<Vec<Refusal>>) -> Self {
        Self::shows(Answer::Refused(refusals.into()))
    }
}

impl Segment {
    fn new(incarnation: u64, kind: SegmentKind, policy: SegmentPolicy) -> Self {
        Self {
            incarnation,
            kind,
            policy,
            start: 0,
            pieces: Vec::new(),
            sealed: false,
            attributes: BTreeMap::new(),
            event_count: 0,
            table: Table::default(),
        }
    }

    /// Bytes ever written to a stream or transient segment.
    pub fn length(&self) -> Offset {
        self.pieces.last().map_or(0, |(end, _)| *end)
    }

    /// Bytes from `offset` to the end of what is there, at most `bytes_max`.
    pub fn bytes(&self, offset: Offset, bytes_max: usize) -> Vec<u8> {
        let mut found = Vec::new();
        let first = self.pieces.partition_point(|(end, _)| *end <= offset);
        for (end, piece) in &self.pieces[first..] {
            let begin = end - piece.len() as u64;
            let skip = offset.saturating_sub(begin) as usize;
            let take = (piece.len() - skip).min(bytes_max - found.len());
            found.extend_from_slice(&piece[skip..skip + take]);
            if found.len() == bytes_max {
                break;
            }
        }
        found
    }

    /// Whether it is a table.
    pub fn is_table(&self) -> bool {
        matches!(self.kind, SegmentKind::Table { .. })
    }

    fn attribute(&self, id: AttributeId) -> i64 {
        self.attributes.get(&id).copied().unwrap_or(attribute::NULL)
    }

    fn set_attribute(&mut self, id: AttributeId, value: i64) {
        if value == attribute::NULL {
            self.attributes.remove(&id);
        } else {
            self.attributes.insert(id, value);
        }
    }

    fn push(&mut self, bytes: &Bytes) {
        self.pieces.push((self.length() + bytes.len() as u64, bytes.clone()));
    }

    /// New values, or `None` if a condition fails.
    fn updated(&self, updates: &[AttributeUpdate]) -> Option<Vec<(AttributeId, i64)>> {
        let new_value = |update: &AttributeUpdate| {
            let old = self.attribute(update.id);
            let unset = old == attribute::NULL;
            let holds = match update.kind {
                UpdateKind::IfAbsent => unset,
                UpdateKind::Replace | UpdateKind::Accumulate => true,
                UpdateKind::IfGreater => unset || update.value > old,
                UpdateKind::IfEquals(expected) => old == expected,
            };
            let value = match update.kind {
                UpdateKind::Accumulate if !unset => old.wrapping_add(update.value),
                _ => update.value,
            };
            holds.then_some((update.id, value))
        };
        updates.iter().map(new_value).collect()
    }
}

impl State {
    /// The segment of that name.
    pub fn find(&self, name: &SegmentName) -> Option<&Segment> {
        self.segments.get(&*name.key()).map(|segment| &**segment)
    }

    /// As a new process finds it: uploads that were under way are gone.
    pub fn after_restart(&self) -> Self {
        let lives = |segment: &Segment| segment.kind != SegmentKind::Transient;
        let kept = self.segments.iter().filter(|(_, segment)| lives(segment));
        Self { segments: kept.map(|(key, segment)| (key.clone(), segment.clone())).collect() }
    }

    /// What `request` does to this state. Reads are not decided here: what they show depends on when they are served.
    pub fn decide(&self, request: &Request, ledger: &Ledger, numbers: &mut Numbers) -> Decision {
        if let Request::Create { segment, kind, policy, .. } = request {
            return self.create(segment, *kind, *policy, numbers);
        }
        if let Request::MergeBatch { target, sources } = request {
            return self.merge_batch(target, sources);
        }
        let Some(found) = self.find(request.segment()) else {
            let mut refusals = vec![Refusal::NoSuchSegment];
            refusals.extend(malformed(request, None));
            return Decision::refused(refusals);
        };
        if takes_table(request) == Some(!found.is_table()) {
            return Decision::refused([Refusal::WrongKind]);
        }
        if let Some(refusal) = malformed(request, Some(found)) {
            let sealed = found.sealed.then_some(Refusal::Sealed);
            return Decision::refused(sealed.into_iter().chain([refusal]).collect::<Vec<_>>());
        }
        match request {
            Request::Create { .. } | Request::MergeBatch { .. } => unreachable!("decided above"),
            Request::Read { .. } => Decision::shows(Answer::Read),
            Request::Info { .. } => Decision::shows(Answer::Info {
                start: found.start,
                length: found.length(),
                sealed: found.sealed,
                event_count: found.event_count,
            }),
            Request::OpenWriter { writer, .. } => {
                Decision::shows(Answer::LastEvent(found.attributes.get(&(*writer).into()).copied()))
            }
            Request::Append(append) => self.append(found, append),
            Request::Seal { segment } if !found.sealed => {
                self.change(segment, Answer::Sealed { length: found.length() }, |segment| segment.sealed = true)
            }
            Request::Seal { .. } => Decision::refused([Refusal::Sealed]),
            Request::Truncate { segment, offset } if (found.start..=found.length()).contains(offset) => {
                self.change(segment, Answer::Done, |segment| segment.start = *offset)
            }
            Request::Truncate { .. } => Decision::refused([Refusal::Truncated { start: found.start }]),
            Request::Delete { segment } => self.remove(segment),
            Request::Merge { target, source, updates } => self.merge(found, target, source, updates),
            Request::Attribute { id, .. } => Decision::shows(Answer::Attribute(found.attribute(*id))),
            Request::UpdateAttributes { .. } | Request::SetPolicy { .. } if found.sealed => {
                Decision::refused([Refusal::Sealed])
            }
            Request::UpdateAttributes { segment, updates } => match found.updated(updates) {
                None => Decision::refused([Refusal::AttributeMismatch]),
                Some(values) => self.change(segment, Answer::Done, |segment| {
                    for (id, value) in &values {
                        segment.set_attribute(*id, *value);
                    }
                }),
            },
            Request::SetPolicy { segment, policy } => self.change(segment, Answer::Done, |segment| {
                segment.policy = SegmentPolicy { rollover_bytes: segment.policy.rollover_bytes, ..*policy };
            }),
            Request::Locate { offset, .. } => {
                let ends = found.pieces.iter().map(|(end, _)| *end).filter(|end| end >= offset);
                let known = ends.chain((*offset == 0).then_some(0)).chain([found.length()]).collect();
                Decision::shows(Answer::Located(known))
            }
            Request::TableUpdate { segment, changes, at } => {
                self.table_update(found, segment, changes, *at, ledger, numbers)
            }
            Request::TableGet { keys, .. } => {
                let values = keys.iter().map(|key| found.table.entries.get_key_value(key));
                let values = values.map(|entry| entry.map(|(key, entry)| (key.clone(), entry.clone()))).collect();
                Decision::shows(Answer::Values { incarnation: found.incarnation, values })
            }
            Request::TableScan { range, count_max, keys_only, .. } => {
                let inside = |key: &Bytes| {
                    let after = range.from.as_ref().is_none_or(|from| key > from || (key == from && !range.exclusive));
                    after && range.to.as_ref().is_none_or(|to| key <= to) && key.starts_with(&range.prefix)
                };
                let entries = found.table.entries.iter().filter(|(key, _)| inside(key));
                Decision::shows(Answer::Page {
                    incarnation: found.incarnation,
                    entries: entries.map(|(key, entry)| (key.clone(), entry.clone())).collect(),
                    count_max: *count_max,
                    keys_only: *keys_only,
                })
            }
            Request::TableDelta { from, count_max, .. } => {
                if found.kind != (SegmentKind::Table { key_length: 0 }) {
                    return Decision::refused([Refusal::Unsupported]);
                }
                Decision::shows(Answer::Delta(DeltaAnswer {
                    incarnation: found.incarnation,
                    table: found.table.clone(),
                    newer_than: ledger.changes_before(found.incarnation, *from),
                    count_max: *count_max,
                }))
            }
            Request::ListChunks { .. } => unreachable!("where bytes are stored is not part of what is promised"),
            Request::TableInfo { .. } => {
                let SegmentKind::Table { key_length } = found.kind else { unreachable!("checked above") };
                let table = &found.table;
                Decision::shows(Answer::Table {
                    incarnation: found.incarnation,
                    growth: (!table.growth_in_doubt).then_some(table.growth),
                    entries: table.entries.len() as u64,
                    key_length,
                })
            }
            Request::DeleteTable { segment, must_be_empty } => {
                let fixed = found.kind != (SegmentKind::Table { key_length: 0 });
                match *must_be_empty {
                    true if fixed => Decision::refused([Refusal::Unsupported]),
                    true if !found.table.entries.is_empty() => Decision::refused([Refusal::TableNotEmpty]),
                    _ => self.remove(segment),
                }
            }
        }
    }

    fn change(&self, name: &SegmentName, answer: Answer, change: impl FnOnce(&mut Segment)) -> Decision {
        let mut next = self.clone();
        let found = next.segments.get_mut(&*name.key()).expect("the caller found it");
        let before = found.clone();
        change(Arc::make_mut(found));
        // Whether a log has grown is not known here, and nobody is shown it but by its length.
        let doubt = found.table.growth_in_doubt;
        let table = Table { growth_in_doubt: doubt, ..before.table.clone() };
        let changes = **found != Segment { table, ..(*before).clone() };
        Decision { steps: vec![next], answer, changes }
    }

    fn remove(&self, name: &SegmentName) -> Decision {
        let mut next = self.clone();
        next.segments.remove(&*name.key());
        Decision::steps(vec![next], Answer::Done)
    }

    fn create(&self, name: &SegmentName, kind: SegmentKind, policy: SegmentPolicy, numbers: &mut Numbers) -> Decision {
        if self.find(name).is_some() {
            return Decision::refused([Refusal::SegmentExists]);
        }
        let mut next = self.clone();
        next.segments.insert(name.key().into_owned(), Arc::new(Segment::new(numbers.next(), kind, policy)));
        Decision::steps(vec![next], Answer::Done)
    }

    fn append(&self, found: &Segment, append: &Append) -> Decision {
        let stored = found.attributes.get(&append.writer.into()).copied();
        if found.sealed {
            return Decision::refused([Refusal::Sealed]);
        }
        let mut refusals = Vec::new();
        if stored != append.previous {
            refusals.push(Refusal::WriterConflict { stored });
        } else if append.expected_length.is_some_and(|expected| expected != found.length()) {
            refusals.push(Refusal::LengthMismatch { length: found.length() });
        }
        // An upload that can never be merged is refused at once, for this reason or for its own.
        if found.kind == SegmentKind::Transient && self.parent_is_closed(&append.segment) {
            refusals.push(Refusal::Sealed);
        }
        if !refusals.is_empty() {
            return Decision::refused(refusals);
        }
        let length = found.length() + append.data.len() as u64;
        self.change(&append.segment, Answer::Appended { length }, |segment| {
            segment.push(&append.data);
            segment.set_attribute(append.writer.into(), append.number);
            segment.event_count += u64::from(append.event_count);
        })
    }

    fn parent_is_closed(&self, name: &SegmentName) -> bool {
        name.parent().is_some_and(|parent| self.find(&parent).is_none_or(|parent| parent.sealed))
    }

    /// Everything that stands against a merge; the interface does not say which is named first.
    fn against_merge(&self, target: &Segment, source: Option<&Segment>) -> Vec<Refusal> {
        let Some(source) = source else { return vec![Refusal::NoSuchSegment] };
        let mut refusals = Vec::new();
        refusals.extend(target.sealed.then_some(Refusal::Sealed));
        refusals.extend(source.is_table().then_some(Refusal::WrongKind));
        refusals.extend((source.start > 0).then_some(Refusal::SourceTruncated));
        refusals
    }

    fn merge(
        &self,
        found: &Segment,
        target: &SegmentName,
        source: &SegmentName,
        updates: &[AttributeUpdate],
    ) -> Decision {
        let from = self.find(source);
        let mut refusals = self.against_merge(found, from);
        let updated = found.updated(updates);
        refusals.extend(updated.is_none().then_some(Refusal::AttributeMismatch));
        let (true, Some(from), Some(updated)) = (refusals.is_empty(), from, updated) else {
            if from.is_none() && found.sealed {
                refusals.push(Refusal::Sealed);
            }
            return Decision::refused(refusals);
        };
        let next = self.merged(target, source, &updated);
        let length = found.length() + from.length();
        Decision::steps(vec![next], Answer::Merged { length })
    }

    fn merged(&self, target: &SegmentName, source: &SegmentName, updated: &[(AttributeId, i64)]) -> Self {
        let mut next = self.clone();
        let source = next.segments.remove(&*source.key()).expect("the caller found it");
        let target = next.segments.get_mut(&*target.key()).expect("the caller found it");
        let target = Arc::make_mut(target);
        for (_, piece) in &source.pieces {
            target.push(piece);
        }
        // However many pieces an upload came in, it is one event.
        target.event_count += if source.kind == SegmentKind::Transient { 1 } else { source.event_count };
        for (id, value) in updated {
            target.set_attribute(*id, *value);
        }
        next
    }

    fn merge_batch(&self, target: &SegmentName, sources: &[SegmentName]) -> Decision {
        let Some(found) = self.find(target) else { return Decision::refused([Refusal::NoSuchSegment]) };
        if found.is_table() {
            return Decision::refused([Refusal::WrongKind]);
        }
        let refusals: Vec<_> = sources
            .iter()
            .filter(|source| self.find(source).is_some_and(|found| !found.is_table()))
            .flat_map(|source| self.against_merge(found, self.find(source)))
            .collect();
        if !refusals.is_empty() {
            return Decision::refused(refusals);
        }
        let (mut now, mut steps, mut lengths) = (self.clone(), Vec::new(), Vec::new());
        for source in sources {
            // A table can never be merged, and is passed over.
            if now.find(source).is_some_and(|found| !found.is_table()) {
                now = now.merged(target, source, &[]);
                steps.push(now.clone());
            }
            lengths.push(now.find(target).expect("a target outlives the merge").length());
        }
        Decision::steps(steps, Answer::MergedBatch(lengths))
    }

    fn table_update(
        &self,
        found: &Segment,
        name: &SegmentName,
        changes: &[TableChange],
        at: Option<Offset>,
        ledger: &Ledger,
        numbers: &mut Numbers,
    ) -> Decision {
        let refusals = against_update(found, changes, at, ledger);
        if !refusals.is_empty() {
            return Decision::refused(refusals);
        }
        let last_of: BTreeMap<&Bytes, usize> =
            changes.iter().enumerate().map(|(index, change)| (&change.key, index)).collect();
        let numbered: Vec<Option<u64>> =
            changes.iter().map(|change| change.value.as_ref().map(|_| numbers.next())).collect();
        let versions = changes.iter().enumerate().zip(&numbered).map(|((index, change), number)| {
            number.map(|number| (last_of[&change.key] == index).then_some((change.key.clone(), number)))
        });
        let answer = Answer::Versions { incarnation: found.incarnation, versions: versions.collect() };
        self.change(name, answer, |segment| {
            let table = &mut segment.table;
            let mut grew = false;
            for (key, index) in last_of {
                grew |= match (&changes[index].value, numbered[index]) {
                    (Some(value), Some(change)) => {
                        table.entries.insert(key.clone(), Entry { value: value.clone(), change });
                        table.last_change = table.last_change.max(change);
                        true
                    }
                    _ => table.entries.remove(key).is_some(),
                };
            }
            if grew {
                table.growth = numbers.next();
                table.growth_in_doubt = false;
            } else {
                table.growth_in_doubt = true;
            }
        })
    }
}

/// Everything that stands against a table update. A missing key beats a wrong version.
fn against_update(found: &Segment, changes: &[TableChange], at: Option<Offset>, ledger: &Ledger) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    if let Some(at) = at {
        let length =
            ledger.table_length(found.incarnation, found.table.growth).filter(|_| !found.table.growth_in_doubt);
        if length != Some(at) {
            refusals.push(Refusal::OffsetMismatch { length: length.unwrap_or(Answer::ANY_LENGTH) });
        }
    }
    let is_fixed = found.kind != (SegmentKind::Table { key_length: 0 });
    let (mut missing, mut version) = (false, false);
    for change in changes {
        match (change.expect, found.table.entries.get(&change.key)) {
            (Expect::Any, _) | (Expect::Missing, None) => {}
            // Tables with keys of fixed length do not tell the two apart. Source: Pravega's segment store.
            (Expect::Version(_), None) if is_fixed => version = true,
            (Expect::Version(_), None) => missing = true,
            (Expect::Missing, Some(_)) => version = true,
            (Expect::Version(expected), Some(entry)) => {
                // A version not learnt yet is newer than any the workload can name.
                version |= ledger.version(found.incarnation, &change.key, entry.change) != Some(expected);
            }
        }
    }
    if missing {
        refusals.push(Refusal::KeyMissing);
    } else if version {
        refusals.push(Refusal::KeyVersion);
    }
    refusals
}

/// `Some(true)`: only for tables; `Some(false)`: only for others. How long a table's log is and what is in it only the engine
/// knows, so nobody here asks a table for its bytes, its `Info`, or a place in it.
fn takes_table(request: &Request) -> Option<bool> {
    match request {
        // A table is a segment to whatever does not change its bytes, and it can go like one.
        Request::Create { .. }
        | Request::Info { .. }
        | Request::ListChunks { .. }
        | Request::OpenWriter { .. }
        | Request::Read { .. }
        | Request::Delete { .. }
        | Request::Attribute { .. }
        | Request::UpdateAttributes { .. }
        | Request::SetPolicy { .. }
        | Request::Locate { .. } => None,
        Request::TableUpdate { .. }
        | Request::TableGet { .. }
        | Request::TableScan { .. }
        | Request::TableDelta { .. }
        | Request::TableInfo { .. }
        | Request::DeleteTable { .. } => Some(true),
        Request::Append(_)
        | Request::Seal { .. }
        | Request::Truncate { .. }
        | Request::Merge { .. }
        | Request::MergeBatch { .. } => Some(false),
    }
}

/// A request that can never succeed; with `found`, on this segment.
fn malformed(request: &Request, found: Option<&Segment>) -> Option<Refusal> {
    let key_length = match found.map(|segment| segment.kind) {
        Some(SegmentKind::Table { key_length }) => key_length as usize,
        _ => 0,
    };
    let bad_key = |key: &Bytes| match key_length {
        0 => key.is_empty() || key.len() > TABLE_KEY_BYTES_MAX,
        fixed => key.len() != fixed,
    };
    let bad = match request {
        Request::Merge { updates, .. } | Request::UpdateAttributes { updates, .. } => {
            updates.len() > ATTRIBUTE_UPDATES_MAX
        }
        Request::TableUpdate { changes, .. } => {
            let bad_value = |value: &Bytes| value.len() > TABLE_VALUE_BYTES_MAX;
            changes.is_empty()
                || changes.iter().any(|change| bad_key(&change.key) || change.value.as_ref().is_some_and(bad_value))
        }
        _ => false,
    };
    bad.then_some(Refusal::Invalid(""))
}

#[cfg(test)]
mod tests;
