//! Random requests over a few names, so that they get into each other's way.
//!
//! The workload looks at the model's newest state to ask for what has a chance to succeed, and asks for the rest often
//! enough. It never asks what the interface leaves open: the model could not tell whether the answer is right.

use bytes::Bytes;
use headwater_engine::api::{
    Append, AttributeUpdate, Expect, Request, ScanRange, SegmentKind, SegmentPolicy, TableChange, UpdateKind,
};
use headwater_types::{AttributeId, SegmentName, WriterId, attribute};

use crate::chance::Chance;
use crate::history::History;
use crate::model::{Ledger, Segment};

/// Every name a run can touch. A name always holds the same kind of segment.
#[derive(Debug)]
pub struct Universe {
    /// Ordinary segments.
    pub streams: Vec<SegmentName>,
    /// Segments of transactions and uploads, with the segments they may merge into.
    pub sources: Vec<(SegmentName, Vec<SegmentName>)>,
    /// Tables and their key lengths.
    pub tables: Vec<(SegmentName, u32)>,
    /// Who appends.
    pub writers: Vec<WriterId>,
    /// Attributes other than writers' numbers.
    pub attributes: Vec<AttributeId>,
    /// Keys of variable length.
    pub keys: Vec<Bytes>,
    /// Keys of four bytes.
    pub fixed_keys: Vec<Bytes>,
}

impl Default for Universe {
    fn default() -> Self {
        let name = |text: &str| SegmentName::parse(text).expect("fixed names are well formed");
        let streams: Vec<_> = ["s/a/0.#epoch.0", "s/a/0.#epoch.1", "s/a/1.#epoch.0", "s/b/0.#epoch.0"].map(name).into();
        let mut sources = Vec::new();
        for (parents, number) in [(&streams[..2], 1), (&streams[..2], 2), (&streams[2..3], 3), (&streams[3..], 4)] {
            // Clients spell a transaction's segment with whatever epoch they take its parent to have.
            for parent in parents {
                sources.push((name(&format!("{parent}#transaction.{number:032x}")), parents.to_vec()));
            }
            sources.push((parents[0].transient(WriterId(7), number), vec![parents[0].clone()]));
        }
        Self {
            streams,
            sources,
            tables: vec![(name("s/a/groups"), 0), (name("_system/_tables/x"), 0), (name("s/kv/0.#epoch.0"), 4)],
            writers: (1..=3).map(WriterId).collect(),
            attributes: (1..=3).map(|low| AttributeId((0x1234 << 64) | low)).collect(),
            keys: (0..12)
                .map(|index| Bytes::from(format!("key{}", "-".repeat(index * index)) + &index.to_string()))
                .collect(),
            fixed_keys: (0..6_u32)
                .map(|index| Bytes::copy_from_slice(&index.wrapping_mul(0x5555_5555).to_be_bytes()))
                .collect(),
        }
    }
}

impl Universe {
    /// Streams and sources.
    pub fn byte_segments(&self) -> impl Iterator<Item = &SegmentName> {
        self.streams.iter().chain(self.sources.iter().map(|(name, _)| name))
    }

    /// The keys that fit a table.
    pub fn keys_of(&self, key_length: u32) -> &[Bytes] {
        if key_length == 0 { &self.keys } else { &self.fixed_keys }
    }

    /// Every attribute the workload may set, writers' numbers among them.
    pub fn attribute_ids(&self) -> impl Iterator<Item = AttributeId> {
        self.attributes.iter().copied().chain(self.writers.iter().map(|writer| (*writer).into()))
    }
}

/// Draws requests.
#[derive(Debug)]
pub struct Workload {
    chance: Chance,
    universe: Universe,
    /// Percent of payloads that are large; some runs fill memory, others the journal's frames.
    large_percent: u64,
    /// Percent of requests that go to one table, whose log is then long enough to be compacted.
    one_table_percent: u64,
    serial: u64,
}

impl Workload {
    /// The workload of a seed.
    pub fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let mut large_percent = *chance.pick(&[0, 2, 10, 30]);
        let one_table_percent = *chance.pick(&[0, 0, 0, 0, 0, 60]);
        if one_table_percent > 0 {
            large_percent = 60;
        }
        Self { chance, universe: Universe::default(), large_percent, one_table_percent, serial: 0 }
    }

    /// The names it uses.
    pub fn universe(&self) -> &Universe {
        &self.universe
    }

    /// The next request. `history` says what there is, `ledger` which versions and positions clients know.
    pub fn next(&mut self, history: &History, ledger: &Ledger) -> Request {
        if self.chance.percent(self.one_table_percent) {
            let table = self.universe.tables[0].clone();
            return match history.newest(&table.0).find(&table.0) {
                None => {
                    let kind = SegmentKind::Table { key_length: table.1 };
                    Request::Create { segment: table.0, kind, policy: SegmentPolicy::default(), on_reserve: false }
                }
                Some(_) if self.chance.percent(70) => self.table_update(history, ledger, table),
                Some(_) => self.table_look(history, ledger, table),
            };
        }
        let table = self.table(history);
        match self.chance.below(100) {
            0..10 => self.create(history),
            10..38 => self.append(history),
            38..50 => self.read(history),
            50..53 => Request::Seal { segment: self.byte_segment(history, 80) },
            53..57 => self.truncate(history),
            57..60 => self.delete(history),
            60..65 => self.merge(history),
            65..68 => self.merge_batch(history),
            68..72 => self.attributes(history),
            72..76 => self.look(history),
            76..88 => self.table_update(history, ledger, table),
            _ => self.table_look(history, ledger, table),
        }
    }

    fn exists(history: &History, name: &SegmentName) -> bool {
        history.newest(name).find(name).is_some()
    }

    /// A stream or source, in `percent` of 100 cases one that exists.
    fn byte_segment(&mut self, history: &History, percent: u64) -> SegmentName {
        let wanted = self.chance.percent(percent);
        let fitting = |name: &&SegmentName| Self::exists(history, name) == wanted;
        let names: Vec<_> = self.universe.byte_segments().filter(fitting).collect();
        match names.is_empty() {
            true => self.chance.pick(&self.universe.streams).clone(),
            false => (*self.chance.pick(&names)).clone(),
        }
    }

    fn table(&mut self, history: &History) -> (SegmentName, u32) {
        let tables = &self.universe.tables;
        let existing: Vec<_> = tables.iter().filter(|(name, _)| Self::exists(history, name)).collect();
        match existing.is_empty() || self.chance.percent(5) {
            true => self.chance.pick(tables).clone(),
            false => (*self.chance.pick(&existing)).clone(),
        }
    }

    fn policy(&mut self) -> SegmentPolicy {
        let scale_type = self.chance.below(3) as u8;
        SegmentPolicy { scale_type, rate: self.chance.below(1000) as i32, rollover_bytes: self.chance.below(2) << 20 }
    }

    fn create(&mut self, history: &History) -> Request {
        let policy = self.policy();
        let tables_missing = self.universe.tables.iter().any(|(name, _)| !Self::exists(history, name));
        if self.chance.percent(if tables_missing { 40 } else { 3 }) {
            let (segment, key_length) = self.chance.pick(&self.universe.tables).clone();
            return Request::Create { segment, kind: SegmentKind::Table { key_length }, policy, on_reserve: false };
        }
        let segment = self.byte_segment(history, 10);
        let kind = if segment.is_transient() { SegmentKind::Transient } else { SegmentKind::Stream };
        // Drawn with the rate, so that seeds go on meaning what they meant.
        Request::Create { segment, kind, policy, on_reserve: policy.rate % 3 == 0 }
    }

    /// Bytes that no other payload holds, so that bytes in the wrong place are noticed.
    fn payload(&mut self) -> Bytes {
        self.serial += 1;
        let length = match self.chance.below(100) {
            percent if percent < self.large_percent => self.chance.index(60_000),
            percent if percent < 95 => self.chance.index(200),
            _ => 0,
        };
        let mut bytes = format!("<{}:", self.serial).into_bytes();
        let mut rest = Chance::new(self.serial);
        bytes.resize(length.max(bytes.len()), 0);
        if length > 16 {
            rest.fill(&mut bytes[12..]);
        }
        bytes.truncate(length);
        bytes.into()
    }

    fn append(&mut self, history: &History) -> Request {
        let segment = self.byte_segment(history, 95);
        let writer = *self.chance.pick(&self.universe.writers);
        let found = history.newest(&segment).find(&segment);
        let stored = found.and_then(|found| found.attributes.get(&writer.into()).copied());
        let length = found.map_or(0, Segment::length);
        let previous = match self.chance.below(100) {
            0..88 => stored,
            88..91 => None,
            91..95 => stored.map(|stored| stored - 1),
            _ => Some(self.chance.below(50) as i64),
        };
        let step = if self.chance.percent(5) { 0 } else { 1 + self.chance.below(3) as i64 };
        let expected_length = match self.chance.below(20) {
            0..2 => Some(length),
            2 => Some(self.chance.below(length + 2)),
            _ => None,
        };
        let number = previous.unwrap_or(self.chance.below(100) as i64) + step;
        let event_count = self.chance.below(4) as u32;
        Request::Append(Append {
            segment,
            writer,
            data: self.payload(),
            event_count,
            previous,
            number,
            expected_length,
        })
    }

    fn read(&mut self, history: &History) -> Request {
        let segment = self.byte_segment(history, 97);
        let found = history.newest(&segment).find(&segment);
        let (start, length) = found.map_or((0, 0), |found| (found.start, found.length()));
        let offset = match self.chance.below(10) {
            0..2 => length,
            2..4 => start,
            4 => length + self.chance.below(100),
            5 => self.chance.below(start + 1),
            _ => start + self.chance.below(length - start + 1),
        };
        Request::Read { segment, offset, bytes_max: 8 << self.chance.below(14) }
    }

    fn truncate(&mut self, history: &History) -> Request {
        let segment = self.byte_segment(history, 95);
        let found = history.newest(&segment).find(&segment);
        let (start, length) = found.map_or((0, 0), |found| (found.start, found.length()));
        let offset = match self.chance.below(10) {
            0 => length + 1 + self.chance.below(10),
            1 => self.chance.below(start + 1),
            2 => length,
            _ => start + self.chance.below(length - start + 1),
        };
        Request::Truncate { segment, offset }
    }

    fn delete(&mut self, history: &History) -> Request {
        if self.chance.percent(20) {
            let (segment, _) = self.table(history);
            let must_be_empty = self.chance.percent(60);
            // Not drawn, so that seeds go on meaning what they meant.
            return match must_be_empty || self.serial.is_multiple_of(2) {
                true => Request::DeleteTable { segment, must_be_empty },
                false => Request::Delete { segment },
            };
        }
        Request::Delete { segment: self.byte_segment(history, 95) }
    }

    fn updates(&mut self, found: Option<&Segment>) -> Vec<AttributeUpdate> {
        let mut ids: Vec<_> = self.universe.attribute_ids().collect();
        let count = self.chance.index(4);
        let mut updates = Vec::new();
        for _ in 0..count {
            let id = ids.swap_remove(self.chance.index(ids.len()));
            let now = found.and_then(|found| found.attributes.get(&id).copied());
            let value = self.chance.below(100) as i64;
            let kind = match self.chance.below(10) {
                0 => UpdateKind::IfAbsent,
                1..4 => UpdateKind::Replace,
                4 => UpdateKind::IfGreater,
                5..7 => UpdateKind::Accumulate,
                7 => UpdateKind::IfEquals(self.chance.below(100) as i64),
                _ => UpdateKind::IfEquals(now.unwrap_or(attribute::NULL)),
            };
            let removes = matches!(kind, UpdateKind::Replace | UpdateKind::IfEquals(_)) && self.chance.percent(25);
            updates.push(AttributeUpdate { id, kind, value: if removes { attribute::NULL } else { value } });
        }
        updates
    }

    fn source(&mut self, history: &History) -> (SegmentName, SegmentName) {
        let sources = &self.universe.sources;
        let existing: Vec<_> = sources.iter().filter(|(name, _)| Self::exists(history, name)).collect();
        let (source, targets) = match existing.is_empty() || self.chance.percent(10) {
            true => self.chance.pick(sources),
            false => self.chance.pick(&existing),
        };
        (source.clone(), self.chance.pick(targets).clone())
    }

    fn merge(&mut self, history: &History) -> Request {
        let (source, target) = self.source(history);
        let updates = match self.chance.percent(30) {
            true => self.updates(history.newest(&target).find(&target)),
            false => Vec::new(),
        };
        Request::Merge { target, source, updates }
    }

    fn merge_batch(&mut self, history: &History) -> Request {
        let (_, target) = self.source(history);
        let newest = history.newest(&target);
        // What a batch does before it meets a truncated source is left open.
        let allowed = |(name, targets): &&(SegmentName, Vec<SegmentName>)| {
            targets.contains(&target) && newest.find(name).is_none_or(|found| found.start == 0)
        };
        let candidates: Vec<_> = self.universe.sources.iter().filter(allowed).map(|(name, _)| name.clone()).collect();
        if candidates.is_empty() {
            return Request::Info { segment: target };
        }
        let count = 1 + self.chance.index(3);
        let sources = (0..count).map(|_| self.chance.pick(&candidates).clone()).collect();
        Request::MergeBatch { target, sources }
    }

    fn attributes(&mut self, history: &History) -> Request {
        let segment = self.byte_segment(history, 97);
        if self.chance.percent(15) {
            return Request::SetPolicy { segment, policy: self.policy() };
        }
        let updates = self.updates(history.newest(&segment).find(&segment));
        match updates.is_empty() {
            true => Request::Info { segment },
            false => Request::UpdateAttributes { segment, updates },
        }
    }

    fn look(&mut self, history: &History) -> Request {
        let segment = self.byte_segment(history, 95);
        match self.chance.below(4) {
            0 => Request::Info { segment },
            1 => Request::OpenWriter { segment, writer: *self.chance.pick(&self.universe.writers) },
            2 => {
                let ids: Vec<_> = self.universe.attribute_ids().collect();
                Request::Attribute { segment, id: *self.chance.pick(&ids) }
            }
            _ => {
                let found = history.newest(&segment).find(&segment);
                let (start, length) = found.map_or((0, 0), |found| (found.start, found.length()));
                let offset = start + self.chance.below(length - start + 1);
                Request::Locate { segment, offset }
            }
        }
    }

    fn expectation(&mut self, found: Option<&Segment>, key: &Bytes, ledger: &Ledger) -> Expect {
        let Some(found) = found else { return Expect::Any };
        let now = found.table.entries.get(key);
        let known = now.and_then(|entry| ledger.version(found.incarnation, key, entry.change));
        let stale = ledger.versions(found.incarnation, key);
        match self.chance.below(10) {
            0..4 => Expect::Any,
            4 => Expect::Missing,
            5 if !stale.is_empty() => Expect::Version(*self.chance.pick(&stale)),
            6 if self.chance.percent(20) => Expect::Version(i64::MAX),
            _ if now.is_none() => Expect::Missing,
            _ => known.map_or(Expect::Any, Expect::Version),
        }
    }

    fn table_update(&mut self, history: &History, ledger: &Ledger, table: (SegmentName, u32)) -> Request {
        let (segment, key_length) = table;
        let found = history.newest(&segment).find(&segment);
        let mut changes = Vec::new();
        for _ in 0..1 + self.chance.index(4) {
            let key = self.chance.pick(self.universe.keys_of(key_length)).clone();
            let expect = self.expectation(found, &key, ledger);
            let value = (!self.chance.percent(25)).then(|| self.payload());
            changes.push(TableChange { key, value, expect });
        }
        if self.chance.percent(10) {
            // The reader groups of the Rust client do this.
            changes.push(TableChange { value: Some(self.payload()), ..changes[0].clone() });
        }
        // An update that is held back may leave in doubt whether the log has grown.
        let known = found.filter(|found| !found.table.growth_in_doubt && !history.is_held(&segment));
        let known = known.and_then(|found| ledger.table_length(found.incarnation, found.table.growth));
        let at = match self.chance.below(20) {
            0..3 => known,
            3 => Some(u64::MAX >> 2),
            _ => None,
        };
        Request::TableUpdate { segment, changes, at }
    }

    fn table_look(&mut self, history: &History, ledger: &Ledger, table: (SegmentName, u32)) -> Request {
        let (segment, key_length) = table;
        let keys = self.universe.keys_of(key_length);
        match self.chance.below(5) {
            0 => {
                let count = 1 + self.chance.index(4);
                let keys = (0..count).map(|_| self.chance.pick(keys).clone()).collect();
                Request::TableGet { segment, keys }
            }
            1 => {
                let range = ScanRange {
                    from: self.chance.percent(50).then(|| self.chance.pick(keys).clone()),
                    exclusive: self.chance.percent(50),
                    to: self.chance.percent(30).then(|| self.chance.pick(keys).clone()),
                    prefix: if self.chance.percent(20) { keys[1].slice(..2) } else { Bytes::new() },
                };
                let (count_max, keys_only) = (1 + self.chance.index(10), self.chance.percent(30));
                Request::TableScan { segment, range, count_max, keys_only }
            }
            2..4 => {
                let found = history.newest(&segment).find(&segment);
                let known = found.map_or_else(Vec::new, |found| ledger.positions(found.incarnation));
                let from = if known.is_empty() || self.chance.percent(40) { 0 } else { *self.chance.pick(&known) };
                Request::TableDelta { segment, from, count_max: 1 + self.chance.index(8) }
            }
            _ => Request::TableInfo { segment },
        }
    }
}
