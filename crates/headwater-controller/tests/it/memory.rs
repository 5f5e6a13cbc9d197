//! Both ports in memory, with faults: a call may fail before or after its effect, once or from then on for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use headwater_controller::{
    AppendedAt, Change, Created, Deleted, Entry, Expect, Load, LoadMeter, Merged, MetadataTable, PolicyUpdated,
    PortError, Ports, Room, ScaleHint, Sealed, SegmentInfo, SegmentOps, SegmentRead, TableError, Truncated, Version,
};
use headwater_types::{AttributeId, Name, Offset, SegmentName, StreamSegment};

/// A segment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Segment {
    pub(crate) bytes: Vec<u8>,
    pub(crate) start: Offset,
    pub(crate) sealed: bool,
    pub(crate) hint: ScaleHint,
    pub(crate) rollover: u64,
    /// Of a table segment.
    pub(crate) key_bytes: Option<u32>,
    pub(crate) attributes: BTreeMap<u128, i64>,
}

type Table = BTreeMap<Bytes, (Bytes, Version)>;

#[derive(Debug, Default)]
struct State {
    segments: BTreeMap<String, Segment>,
    tables: BTreeMap<String, Table>,
    version: Version,
    loads: Vec<Load>,
    full: bool,
    /// Segments are not sealed for as long as this is so.
    seals_wait: bool,
    /// Deletions of these wait.
    held: BTreeSet<String>,
    /// A table that is there and cannot be read.
    unreadable: Option<String>,
}

impl State {
    fn readable(&self, table: &str) -> Result<&Table, TableError> {
        if self.unreadable.as_deref() == Some(table) {
            return Err(TableError::Port(PortError::Unavailable(format!("{table} cannot be read"))));
        }
        self.tables.get(table).ok_or_else(|| TableError::NoSuchTable(table.to_owned()))
    }

    /// All changes or none.
    fn apply(&mut self, table: &str, changes: Vec<Change>) -> Result<Vec<Version>, TableError> {
        let entries = self.tables.get_mut(table).ok_or_else(|| TableError::NoSuchTable(table.to_owned()))?;
        let mut keys: Vec<_> = changes.iter().map(|change| change.key.clone()).collect();
        keys.sort();
        assert!(keys.windows(2).all(|pair| pair[0] != pair[1]), "no batch names a key twice");
        for change in &changes {
            let version = entries.get(&change.key).map(|(_, version)| *version);
            let holds = match change.expect {
                Expect::Any => true,
                Expect::Absent => version.is_none(),
                Expect::Version(expected) => version == Some(expected),
            };
            if !holds {
                return Err(TableError::Conflict(table.to_owned()));
            }
        }
        let mut versions = Vec::new();
        for change in changes {
            match change.put {
                Some(value) => {
                    self.version += 1;
                    entries.insert(change.key, (value, self.version));
                    versions.push(self.version);
                }
                None => {
                    entries.remove(&change.key);
                    versions.push(-1);
                }
            }
        }
        Ok(versions)
    }
}

/// What survives a crash.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store(Arc<Mutex<State>>);

/// When a call fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// The n-th call fails without effect.
    OnceBefore(u64),
    /// The n-th call takes effect and its answer is lost.
    OnceAfter(u64),
    /// From the n-th call on, all fail without effect.
    CrashBefore(u64),
    /// The n-th call takes effect, and from there on all fail.
    CrashAfter(u64),
}

/// One process's way to the store.
#[derive(Debug)]
pub(crate) struct Link {
    store: Store,
    fault: Option<Fault>,
    calls: Mutex<u64>,
    /// Decides how long calls take; 0 is the same for all.
    seed: u64,
    /// A table whose next change takes effect late.
    late: Mutex<Option<String>>,
    /// That change, which nobody was told of.
    held: Mutex<Option<(String, Vec<Change>)>>,
    loaded: Mutex<Loaded>,
    /// Bytes of memory that were asked for.
    rooms: Arc<Mutex<Used>>,
    /// Reads of entries that are under way.
    reads: Arc<Mutex<Used>>,
}

/// Bytes of records that tables have answered with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) total: usize,
    /// By one answer.
    pub(crate) most: usize,
}

/// How much of something is in use.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    now: usize,
    /// At once.
    pub(crate) most: usize,
}

/// So much of it, until this is dropped.
struct Taken {
    of: Arc<Mutex<Used>>,
    amount: usize,
}

impl Taken {
    fn new(of: &Arc<Mutex<Used>>, amount: usize) -> Self {
        let mut used = locked(of);
        used.now += amount;
        used.most = used.most.max(used.now);
        Self { of: Arc::clone(of), amount }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        locked(&self.of).now -= self.amount;
    }
}

/// Scrambles a number.
pub(crate) fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    pub(crate) fn link(&self, fault: Option<Fault>) -> Arc<Link> {
        self.jittery_link(fault, 0)
    }

    /// Calls that are under way together end in an order that the seed decides.
    pub(crate) fn jittery_link(&self, fault: Option<Fault>, seed: u64) -> Arc<Link> {
        Arc::new(Link {
            store: self.clone(),
            fault,
            calls: Mutex::default(),
            seed,
            late: Mutex::default(),
            held: Mutex::default(),
            loaded: Mutex::default(),
            rooms: Arc::default(),
            reads: Arc::default(),
        })
    }

    pub(crate) fn segment(&self, name: &str) -> Option<Segment> {
        locked(&self.0).segments.get(name).cloned()
    }

    pub(crate) fn segment_names(&self) -> Vec<String> {
        locked(&self.0).segments.keys().cloned().collect()
    }

    pub(crate) fn table_names(&self) -> Vec<String> {
        locked(&self.0).tables.keys().cloned().collect()
    }

    pub(crate) fn table_len(&self, name: &str) -> usize {
        locked(&self.0).tables.get(name).map_or(0, BTreeMap::len)
    }

    /// A client's append. False if the segment does not take it.
    pub(crate) fn append(&self, name: &str, bytes: &[u8]) -> bool {
        let mut state = locked(&self.0);
        let Some(segment) = state.segments.get_mut(name).filter(|segment| !segment.sealed) else { return false };
        segment.bytes.extend_from_slice(bytes);
        true
    }

    /// The disk is full, or not any more.
    pub(crate) fn fill(&self, full: bool) {
        locked(&self.0).full = full;
    }

    /// Whoever seals a segment waits, or not any more.
    pub(crate) fn let_seals_wait(&self, wait: bool) {
        locked(&self.0).seals_wait = wait;
    }

    /// Whoever deletes this segment waits until [deletions go on](Self::let_deletions_go_on).
    pub(crate) fn hold_deletion(&self, name: &str) {
        locked(&self.0).held.insert(name.to_owned());
    }

    pub(crate) fn let_deletions_go_on(&self) {
        locked(&self.0).held.clear();
    }

    /// From now on this table cannot be read.
    pub(crate) fn make_unreadable(&self, table: &str) {
        locked(&self.0).unreadable = Some(table.to_owned());
    }

    /// Events that clients wrote, as far as load is concerned.
    pub(crate) fn load(&self, segment: StreamSegment, events: u64, bytes: u64) {
        locked(&self.0).loads.push(Load { segment, events, bytes });
    }

    /// A client's own table or segment.
    pub(crate) fn create(&self, name: &str) {
        locked(&self.0).segments.insert(name.to_owned(), Segment::default());
    }

    /// A client's own seal.
    pub(crate) fn seal(&self, name: &str) {
        locked(&self.0).segments.get_mut(name).expect("the test made it").sealed = true;
    }
}

/// Everything there is as text, a line for each thing; see [`Store::parse`].
impl Store {
    pub(crate) fn dump(&self) -> String {
        let state = locked(&self.0);
        let mut out = format!("version {}\n", state.version);
        for (name, segment) in &state.segments {
            let Segment { bytes, start, sealed, hint, rollover, key_bytes, attributes } = segment;
            let key_bytes = key_bytes.map_or("-".to_owned(), |bytes| bytes.to_string());
            let attributes: Vec<_> = attributes.iter().map(|(id, value)| format!("{id}={value}")).collect();
            let (kind, rate, attributes, bytes) = (hint.kind, hint.rate, attributes.join(","), hex(bytes));
            writeln!(out, "segment {name} {start} {sealed} {kind} {rate} {rollover} {key_bytes} {attributes};{bytes}")
                .unwrap();
        }
        for (name, table) in &state.tables {
            writeln!(out, "table {name}").unwrap();
            for (key, (value, version)) in table {
                writeln!(out, "entry {name} {} {version} {}", hex(key), hex(value)).unwrap();
            }
        }
        out
    }

    pub(crate) fn parse(text: &str) -> Self {
        let mut state = State::default();
        for line in text.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            match fields[..] {
                ["version", version] => state.version = version.parse().unwrap(),
                ["segment", name, start, sealed, kind, rate, rollover, key_bytes, rest] => {
                    let (attributes, bytes) = rest.split_once(';').unwrap();
                    let attribute = |text: &str| {
                        let (id, value) = text.split_once('=').unwrap();
                        (id.parse().unwrap(), value.parse().unwrap())
                    };
                    let segment = Segment {
                        bytes: unhex(bytes),
                        start: start.parse().unwrap(),
                        sealed: sealed.parse().unwrap(),
                        hint: ScaleHint { kind: kind.parse().unwrap(), rate: rate.parse().unwrap() },
                        rollover: rollover.parse().unwrap(),
                        key_bytes: key_bytes.parse().ok(),
                        attributes: attributes.split(',').filter(|text| !text.is_empty()).map(attribute).collect(),
                    };
                    state.segments.insert(name.to_owned(), segment);
                }
                ["table", name] => {
                    state.tables.insert(name.to_owned(), Table::new());
                }
                ["entry", name, key, version, value] => {
                    let entry = (unhex(value).into(), version.parse().unwrap());
                    state.tables.get_mut(name).unwrap().insert(unhex(key).into(), entry);
                }
                _ => panic!("{line:?}"),
            }
        }
        Self(Arc::new(Mutex::new(state)))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digits).collect()
}

impl Link {
    /// What goes wrong on this way.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// The next change of a table is answered by an error and takes effect [when it is told to](Self::land).
    pub(crate) fn delay(&self, table: &str) {
        *locked(&self.late) = Some(table.to_owned());
    }

    /// The change that was delayed takes effect, unless its conditions do not hold any more.
    pub(crate) fn land(&self) -> Result<(), TableError> {
        let (table, changes) = locked(&self.held).take().expect("a change was delayed");
        locked(&self.store.0).apply(&table, changes).map(drop)
    }

    /// What tables have answered with since the last time.
    pub(crate) fn take_loaded(&self) -> Loaded {
        std::mem::take(&mut *locked(&self.loaded))
    }

    pub(crate) fn rooms(&self) -> Used {
        *locked(&self.rooms)
    }

    /// Most reads of entries at once since the last time.
    pub(crate) fn take_reads(&self) -> usize {
        std::mem::take(&mut locked(&self.reads).most)
    }

    fn load<'a>(&self, entries: impl IntoIterator<Item = &'a Entry>) {
        let bytes = entries.into_iter().map(|entry| entry.value.len()).sum();
        let mut loaded = locked(&self.loaded);
        loaded.total += bytes;
        loaded.most = loaded.most.max(bytes);
    }

    /// Calls so far.
    pub(crate) fn calls(&self) -> u64 {
        *locked(&self.calls)
    }

    pub(crate) fn ports(self: &Arc<Self>, clock: impl Fn() -> i64 + Send + Sync + 'static) -> Ports {
        Ports {
            segments: Arc::clone(self) as _,
            tables: Arc::clone(self) as _,
            loads: Arc::clone(self) as _,
            clock: Arc::new(clock),
        }
    }

    /// Runs one call, unless or until the fault hits.
    async fn call<T, E: From<PortError>>(&self, effect: impl FnOnce(&mut State) -> Result<T, E>) -> Result<T, E> {
        let call = {
            let mut calls = locked(&self.calls);
            *calls += 1;
            *calls
        };
        // Other tasks may run between any two calls, and between a call and its answer.
        let turns = if self.seed == 0 { 1 } else { mix(self.seed ^ call) % 6 };
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        let lost = || E::from(PortError::Unavailable(format!("injected at call {call}")));
        match self.fault {
            Some(Fault::OnceBefore(at)) if call == at => return Err(lost()),
            Some(Fault::CrashBefore(at)) if call >= at => return Err(lost()),
            Some(Fault::CrashAfter(at)) if call > at => return Err(lost()),
            _ => {}
        }
        let result = effect(&mut locked(&self.store.0));
        if self.seed != 0 && mix(self.seed ^ !call).is_multiple_of(3) {
            tokio::task::yield_now().await;
        }
        match self.fault {
            Some(Fault::OnceAfter(at) | Fault::CrashAfter(at)) if call == at => Err(lost()),
            _ => result,
        }
    }
}

#[async_trait]
impl SegmentOps for Link {
    async fn room(&self, bytes: usize) -> Result<Room, PortError> {
        Ok(Room::new(Taken::new(&self.rooms, bytes)))
    }

    async fn create_segment(
        &self,
        segment: &SegmentName,
        hint: ScaleHint,
        rollover: u64,
    ) -> Result<Created, PortError> {
        self.call(|state| {
            if state.segments.contains_key(segment.as_str()) {
                return Ok(Created::Exists);
            }
            let new = Segment { hint, rollover, ..Segment::default() };
            state.segments.insert(segment.to_string(), new);
            Ok(Created::Created)
        })
        .await
    }

    async fn seal_segment(&self, segment: &SegmentName) -> Result<Sealed, PortError> {
        while locked(&self.store.0).seals_wait {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        self.call(|state| {
            let Some(segment) = state.segments.get_mut(segment.as_str()) else { return Ok(Sealed::NoSuchSegment) };
            segment.sealed = true;
            Ok(Sealed::Sealed { end: segment.bytes.len() as u64 })
        })
        .await
    }

    async fn truncate_segment(&self, segment: &SegmentName, offset: Offset) -> Result<Truncated, PortError> {
        self.call(|state| {
            let Some(segment) = state.segments.get_mut(segment.as_str()) else { return Ok(Truncated::NoSuchSegment) };
            if offset > segment.bytes.len() as u64 {
                return Ok(Truncated::BeyondEnd);
            }
            segment.start = segment.start.max(offset);
            Ok(Truncated::Truncated)
        })
        .await
    }

    async fn delete_segment(&self, segment: &SegmentName) -> Result<Deleted, PortError> {
        while locked(&self.store.0).held.contains(segment.as_str()) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        self.call(|state| {
            Ok(match state.segments.remove(segment.as_str()) {
                Some(_) => Deleted::Deleted,
                None => Deleted::NoSuchSegment,
            })
        })
        .await
    }

    async fn merge_segments(&self, target: &SegmentName, sources: &[SegmentName]) -> Result<Merged, PortError> {
        self.call(|state| {
            match state.segments.get(target.as_str()) {
                None => return Ok(Merged::NoSuchTarget),
                // Where nothing is left to be merged a seal is no hindrance.
                Some(target) if target.sealed && sources.iter().any(|it| state.segments.contains_key(it.as_str())) => {
                    return Ok(Merged::TargetSealed);
                }
                Some(_) => {}
            }
            let mut ends = Vec::new();
            for source in sources {
                let bytes = state.segments.remove(source.as_str()).unwrap_or_default().bytes;
                let target = state.segments.get_mut(target.as_str()).expect("it was there above");
                target.bytes.extend(bytes);
                ends.push(target.bytes.len() as u64);
            }
            Ok(Merged::Merged { ends })
        })
        .await
    }

    async fn segment_info(&self, segment: &SegmentName) -> Result<Option<SegmentInfo>, PortError> {
        self.call(|state| {
            Ok(state.segments.get(segment.as_str()).map(|segment| SegmentInfo {
                start: segment.start,
                length: segment.bytes.len() as u64,
                sealed: segment.sealed,
            }))
        })
        .await
    }

    async fn update_policy(&self, segment: &SegmentName, hint: ScaleHint) -> Result<PolicyUpdated, PortError> {
        self.call(|state| {
            Ok(match state.segments.get_mut(segment.as_str()) {
                None => PolicyUpdated::NoSuchSegment,
                Some(segment) => {
                    segment.hint = hint;
                    PolicyUpdated::Updated
                }
            })
        })
        .await
    }

    async fn create_table_segment(
        &self,
        segment: &SegmentName,
        key_bytes: u32,
        rollover: u64,
    ) -> Result<Created, PortError> {
        self.call(|state| {
            if state.segments.contains_key(segment.as_str()) {
                return Ok(Created::Exists);
            }
            let new = Segment { key_bytes: Some(key_bytes), rollover, ..Segment::default() };
            state.segments.insert(segment.to_string(), new);
            Ok(Created::Created)
        })
        .await
    }

    async fn delete_table_segment(&self, segment: &SegmentName) -> Result<Deleted, PortError> {
        self.delete_segment(segment).await
    }

    async fn segment_exists(&self, segment: &SegmentName) -> Result<bool, PortError> {
        self.call(|state| Ok(state.segments.contains_key(segment.as_str()))).await
    }

    async fn read_segment(
        &self,
        segment: &SegmentName,
        offset: Offset,
        bytes_max: usize,
    ) -> Result<SegmentRead, PortError> {
        self.call(|state| {
            let Some(segment) = state.segments.get(segment.as_str()) else { return Ok(SegmentRead::NoSuchSegment) };
            let length = segment.bytes.len() as u64;
            if offset < segment.start || offset > length {
                return Ok(SegmentRead::Outside { start: segment.start });
            }
            let bytes = &segment.bytes[offset as usize..];
            Ok(SegmentRead::Bytes(Bytes::copy_from_slice(&bytes[..bytes.len().min(bytes_max)])))
        })
        .await
    }

    async fn append_at(&self, segment: &SegmentName, end: Offset, data: Bytes) -> Result<AppendedAt, PortError> {
        self.call(|state| {
            let Some(segment) = state.segments.get_mut(segment.as_str()) else { return Ok(AppendedAt::NoSuchSegment) };
            if segment.sealed {
                return Ok(AppendedAt::Sealed);
            }
            if end != segment.bytes.len() as u64 {
                return Ok(AppendedAt::Moved);
            }
            segment.bytes.extend_from_slice(&data);
            Ok(AppendedAt::Appended)
        })
        .await
    }

    async fn attribute(&self, segment: &SegmentName, id: AttributeId) -> Result<Option<i64>, PortError> {
        self.call(|state| Ok(state.segments.get(segment.as_str()).and_then(|s| s.attributes.get(&id.0)).copied())).await
    }

    async fn swap_attribute(
        &self,
        segment: &SegmentName,
        id: AttributeId,
        from: Option<i64>,
        to: i64,
    ) -> Result<bool, PortError> {
        self.call(|state| {
            let Some(segment) = state.segments.get_mut(segment.as_str()) else { return Ok(false) };
            let holds = segment.attributes.get(&id.0).copied() == from;
            if holds {
                segment.attributes.insert(id.0, to);
            }
            Ok(holds)
        })
        .await
    }

    async fn scan_client_table(
        &self,
        segment: &SegmentName,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Option<Vec<Entry>>, PortError> {
        self.call(|state| {
            let Some(segment) = state.segments.get(segment.as_str()).filter(|segment| segment.key_bytes.is_some())
            else {
                return Ok(None);
            };
            // No test writes into one.
            assert!(segment.bytes.is_empty() && after.is_none() && limit > 0);
            Ok(Some(Vec::new()))
        })
        .await
    }

    async fn drop_tables_of_scope(&self, scope: &Name) -> Result<(), PortError> {
        self.call(|state| {
            let prefix = format!("{scope}/");
            state.segments.retain(|name, _| !(name.starts_with(&prefix) && name.contains("_kvtable/")));
            Ok(())
        })
        .await
    }
}

impl LoadMeter for Link {
    fn take(&self) -> Vec<Load> {
        std::mem::take(&mut locked(&self.store.0).loads)
    }

    fn has_room(&self) -> bool {
        !locked(&self.store.0).full
    }
}

#[async_trait]
impl MetadataTable for Link {
    async fn create(&self, table: &str) -> Result<(), PortError> {
        self.call(|state| {
            state.tables.entry(table.to_owned()).or_default();
            Ok(())
        })
        .await
    }

    async fn drop_table(&self, table: &str) -> Result<(), PortError> {
        self.call(|state| {
            state.tables.remove(table);
            Ok(())
        })
        .await
    }

    async fn scan(
        &self,
        table: &str,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, TableError> {
        let found: Result<Vec<Entry>, TableError> = self
            .call(|state| {
                let entries = state.readable(table)?;
                let found = entries
                    .iter()
                    .filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|after| key.as_ref() > after))
                    .take(limit)
                    .map(|(key, (value, version))| Entry { key: key.clone(), value: value.clone(), version: *version });
                Ok(found.collect())
            })
            .await;
        self.load(found.iter().flatten());
        found
    }

    async fn scan_keys(
        &self,
        table: &str,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Bytes>, TableError> {
        self.call(|state| {
            let entries = state.readable(table)?;
            let keys = entries.keys().filter(|key| key.starts_with(prefix));
            Ok(keys.filter(|key| after.is_none_or(|after| key.as_ref() > after)).take(limit).cloned().collect())
        })
        .await
    }

    async fn read(&self, table: &str, keys: &[Bytes]) -> Result<Vec<Option<Entry>>, TableError> {
        let _reading = Taken::new(&self.reads, 1);
        let found: Result<Vec<Option<Entry>>, TableError> = self
            .call(|state| {
                let entries = state.readable(table)?;
                let entry = |key: &Bytes| {
                    let (value, version) = entries.get(key)?;
                    Some(Entry { key: key.clone(), value: value.clone(), version: *version })
                };
                Ok(keys.iter().map(entry).collect())
            })
            .await;
        self.load(found.iter().flatten().flatten());
        found
    }

    async fn commit(&self, table: &str, changes: Vec<Change>) -> Result<Vec<Version>, TableError> {
        if locked(&self.late).take_if(|late| late.as_str() == table).is_some() {
            *locked(&self.held) = Some((table.to_owned(), changes));
            return Err(PortError::Unavailable("no answer".into()).into());
        }
        self.call(|state| state.apply(table, changes)).await
    }
}
