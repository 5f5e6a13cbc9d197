//! Everything that can be seen of a store, and whether it fits a state of the model.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use headwater_engine::api::{Outcome, Refusal, Request, Response, ScanRange, SegmentInfo, TableEntry, TableInfo};
use headwater_types::{AttributeId, SegmentName};

use crate::model::{Finding, Ledger, Segment, State};
use crate::workload::Universe;

/// What was found under every name of the universe, by [`SegmentName::key`]; absent segments are left out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    segments: BTreeMap<String, FoundSegment>,
    names: Vec<SegmentName>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum FoundSegment {
    Bytes {
        info: SegmentInfo,
        bytes: Vec<u8>,
        /// Parts of `bytes` that were refused because they cannot be had; zeros stand in their place.
        refused: Vec<Range<usize>>,
        attributes: BTreeMap<AttributeId, i64>,
    },
    Table {
        info: TableInfo,
        entries: Vec<TableEntry>,
        /// Keys whose values were refused because they cannot be had.
        refused: BTreeSet<Bytes>,
    },
}

/// Whether reads may be refused because their bytes cannot be had.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusing {
    /// Every byte must be served.
    Never,
    /// What is served must be right.
    Maybe,
}

/// So many bytes behind a refused offset are not asked for.
const REFUSED_STEP: usize = 997;

/// Asks a store for everything. `ask` hands over one request and waits for the outcome.
///
/// # Errors
/// What `ask` says, or what is wrong with an answer whatever the state.
pub fn look_at_all(
    universe: &Universe,
    refusing: Refusing,
    ask: &mut dyn FnMut(Request) -> Result<Outcome, String>,
) -> Result<Found, String> {
    let mut segments = BTreeMap::new();
    let mut names = Vec::new();
    for name in universe.byte_segments() {
        let key = name.key().into_owned();
        names.push(name.clone());
        if !segments.contains_key(&key)
            && let Some(found) = look_at_bytes(universe, name, refusing, ask)?
        {
            segments.insert(key, found);
        }
    }
    for (name, key_length) in &universe.tables {
        names.push(name.clone());
        if let Some(found) = look_at_table(universe, name, *key_length, refusing, ask)? {
            segments.insert(name.key().into_owned(), found);
        }
    }
    Ok(Found { segments, names })
}

type Ask<'a> = &'a mut dyn FnMut(Request) -> Result<Outcome, String>;

fn unexpected(name: &SegmentName, outcome: &Outcome) -> String {
    format!("{name}: unexpected answer {outcome:?}")
}

fn look_at_bytes(
    universe: &Universe,
    name: &SegmentName,
    refusing: Refusing,
    ask: Ask<'_>,
) -> Result<Option<FoundSegment>, String> {
    let segment = || name.clone();
    let info = match ask(Request::Info { segment: segment() })? {
        Ok(Response::Info(info)) => info,
        Err(Refusal::NoSuchSegment) => return Ok(None),
        other => return Err(unexpected(name, &other)),
    };
    let (mut bytes, mut refused) = (Vec::new(), Vec::new());
    while info.start + (bytes.len() as u64) < info.length {
        let offset = info.start + bytes.len() as u64;
        // Odd sizes, so that reads begin and end where no append did.
        let outcome = ask(Request::Read { segment: segment(), offset, bytes_max: 40_009 })?;
        match &outcome {
            Ok(Response::Read(read)) if read.data.iter().any(|piece| !piece.is_empty()) => {
                bytes.extend(read.data.concat());
            }
            Err(Refusal::Damaged) if refusing == Refusing::Maybe => {
                let rest = (info.length - offset) as usize;
                refused.push(bytes.len()..bytes.len() + rest.min(REFUSED_STEP));
                bytes.resize(bytes.len() + rest.min(REFUSED_STEP), 0);
            }
            _ => return Err(unexpected(name, &outcome)),
        }
    }
    if info.sealed {
        let outcome = ask(Request::Read { segment: segment(), offset: info.length, bytes_max: 100 })?;
        match &outcome {
            Ok(Response::Read(read)) if read.end_of_segment && read.data.iter().all(Bytes::is_empty) => {}
            _ => return Err(unexpected(name, &outcome)),
        }
    }
    let mut attributes = BTreeMap::new();
    for id in universe.attribute_ids() {
        match ask(Request::Attribute { segment: segment(), id })? {
            Ok(Response::Attribute(value)) => {
                if value != headwater_types::attribute::NULL {
                    attributes.insert(id, value);
                }
            }
            other => return Err(unexpected(name, &other)),
        }
    }
    Ok(Some(FoundSegment::Bytes { info, bytes, refused, attributes }))
}

/// Looks at a table in every way there is; all must agree.
fn look_at_table(
    universe: &Universe,
    name: &SegmentName,
    key_length: u32,
    refusing: Refusing,
    ask: Ask<'_>,
) -> Result<Option<FoundSegment>, String> {
    let segment = || name.clone();
    let info = match ask(Request::TableInfo { segment: segment() })? {
        Ok(Response::Table(info)) => info,
        Err(Refusal::NoSuchSegment) => return Ok(None),
        other => return Err(unexpected(name, &other)),
    };
    if refusing == Refusing::Maybe {
        return look_key_by_key(universe, name, info, ask).map(Some);
    }
    let entries = scan_all(name, ask)?;

    let keys = universe.keys_of(key_length).to_vec();
    match ask(Request::TableGet { segment: segment(), keys })? {
        Ok(Response::Values(values)) => {
            let mut got: Vec<_> = values.into_iter().flatten().collect();
            got.sort_by(|one, other| one.key.cmp(&other.key));
            if got != entries {
                return Err(format!("{name}: a scan shows {entries:?}\n   but lookups show {got:?}"));
            }
        }
        other => return Err(unexpected(name, &other)),
    }
    if key_length == 0 {
        let walked = delta_all(name, ask)?;
        if walked != entries {
            return Err(format!("{name}: a scan shows {entries:?}\n   but the log shows {walked:?}"));
        }
    }
    Ok(Some(FoundSegment::Table { info, entries, refused: BTreeSet::new() }))
}

/// Looks at a table some of whose values cannot be had. A scan must be refused then; without values it must not.
fn look_key_by_key(
    universe: &Universe,
    name: &SegmentName,
    info: TableInfo,
    ask: Ask<'_>,
) -> Result<FoundSegment, String> {
    let (mut entries, mut refused) = (Vec::new(), BTreeSet::new());
    let mut keys = universe.keys_of(info.key_length).to_vec();
    keys.sort();
    for key in keys {
        match ask(Request::TableGet { segment: name.clone(), keys: vec![key.clone()] })? {
            Ok(Response::Values(mut values)) if values.len() == 1 => entries.extend(values.remove(0)),
            Err(Refusal::Damaged) => {
                refused.insert(key);
            }
            other => return Err(unexpected(name, &other)),
        }
    }
    let range = ScanRange::default();
    let outcome = ask(Request::TableScan { segment: name.clone(), range, count_max: 1000, keys_only: false })?;
    match &outcome {
        Ok(Response::Page(page)) if refused.is_empty() && *page == entries => {}
        Err(Refusal::Damaged) if !refused.is_empty() => {}
        other => return Err(unexpected(name, other)),
    }
    if info.key_length == 0 {
        match ask(Request::TableDelta { segment: name.clone(), from: 0, count_max: 1000 })? {
            // The log also holds what is dead by now, and lookups do not.
            Ok(Response::Delta(delta)) => {
                if let Some(wrong) = delta.entries.iter().find(|entry| !entries.contains(entry)) {
                    return Err(format!("{name}: the log shows {wrong:?}, but lookups show {entries:?}"));
                }
            }
            Err(Refusal::Damaged) => {}
            other => return Err(unexpected(name, &other)),
        }
    }
    Ok(FoundSegment::Table { info, entries, refused })
}

fn scan_all(name: &SegmentName, ask: Ask<'_>) -> Result<Vec<TableEntry>, String> {
    let mut entries: Vec<TableEntry> = Vec::new();
    loop {
        let from = entries.last().map(|entry| entry.key.clone());
        let range = ScanRange { from, exclusive: true, ..ScanRange::default() };
        match ask(Request::TableScan { segment: name.clone(), range, count_max: 5, keys_only: false })? {
            Ok(Response::Page(page)) if page.is_empty() => return Ok(entries),
            Ok(Response::Page(page)) => entries.extend(page),
            other => return Err(unexpected(name, &other)),
        }
        if !entries.is_sorted_by(|one, other| one.key < other.key) {
            return Err(format!("{name}: a scan is not in order: {entries:?}"));
        }
    }
}

/// Everything that a walk over the log shows. What is moved to the end meanwhile may come twice.
fn delta_all(name: &SegmentName, ask: Ask<'_>) -> Result<Vec<TableEntry>, String> {
    let (mut entries, mut from) = (BTreeMap::new(), 0);
    loop {
        match ask(Request::TableDelta { segment: name.clone(), from, count_max: 3 })? {
            Ok(Response::Delta(page)) => {
                let ends = page.reached_end;
                if !ends && page.position <= from {
                    return Err(format!("{name}: a delta from {from} does not advance: {page:?}"));
                }
                from = page.position;
                let keys: BTreeSet<_> = page.entries.iter().map(|entry| &entry.key).collect();
                if keys.len() < page.entries.len() {
                    return Err(format!("{name}: a page of the log shows a key twice: {page:?}"));
                }
                for entry in page.entries {
                    if let Some(before) = entries.insert(entry.key.clone(), entry.clone()).filter(|it| *it != entry) {
                        return Err(format!("{name}: the log shows {before:?}, then {entry:?}"));
                    }
                }
                if ends {
                    return Ok(entries.into_values().collect());
                }
            }
            other => return Err(unexpected(name, &other)),
        }
    }
}

impl Found {
    /// Whether something was refused because its bytes cannot be had.
    pub fn is_incomplete(&self) -> bool {
        self.segments.values().any(|found| match found {
            FoundSegment::Bytes { refused, .. } => !refused.is_empty(),
            FoundSegment::Table { refused, .. } => !refused.is_empty(),
        })
    }

    /// Compares one container with a state of the model; returns what can be learnt from it.
    ///
    /// # Errors
    /// The first difference.
    pub fn fits(
        &self,
        state: &State,
        ledger: &Ledger,
        is_in_container: &dyn Fn(&SegmentName) -> bool,
    ) -> Result<Vec<Finding>, String> {
        let mut findings = Vec::new();
        for name in self.names.iter().filter(|name| is_in_container(name)) {
            match (state.find(name), self.segments.get(&*name.key())) {
                (None, None) => {}
                (Some(_), None) => return Err(format!("{name} is missing")),
                (None, Some(_)) => return Err(format!("{name} should not be there")),
                (Some(expected), Some(found)) => {
                    findings.extend(found.fits(expected).map_err(|difference| format!("{name}: {difference}"))?);
                }
            }
        }
        for finding in &findings {
            ledger.admit(finding)?;
        }
        Ok(findings)
    }
}

impl FoundSegment {
    fn fits(&self, expected: &Segment) -> Result<Vec<Finding>, String> {
        let incarnation = expected.incarnation;
        match self {
            Self::Bytes { info, bytes, refused, attributes } => {
                let wanted = (expected.start, expected.length(), expected.sealed, expected.event_count);
                let got = (info.start, info.length, info.sealed, info.event_count);
                if wanted != got {
                    return Err(format!("(start, length, sealed, events) should be {wanted:?}, found {got:?}"));
                }
                let mut wanted = expected.bytes(expected.start, usize::MAX);
                refused.iter().for_each(|refused| wanted[refused.clone()].fill(0));
                if wanted != *bytes {
                    let same = wanted.iter().zip(bytes).take_while(|(wanted, got)| wanted == got).count();
                    return Err(format!("bytes differ from offset {}", expected.start + same as u64));
                }
                if expected.attributes != *attributes {
                    return Err(format!("attributes should be {:?}, found {attributes:?}", expected.attributes));
                }
                Ok(Vec::new())
            }
            Self::Table { info, entries, refused } => {
                let table = &expected.table;
                if let Some(key) = refused.iter().find(|key| !table.entries.contains_key(*key)) {
                    return Err(format!("key {key:?} is not there, but looking for it was refused"));
                }
                let shown = (entries.len() + refused.len()) as u64;
                let counts = (table.entries.len() as u64, info.entries, shown);
                if counts.0 != counts.1 || counts.0 != counts.2 {
                    return Err(format!("should have {} entries, says {}, shows {}", counts.0, counts.1, counts.2));
                }
                let served = || table.entries.iter().filter(|(key, _)| !refused.contains(*key));
                let wanted = served().map(|(key, entry)| (key, &entry.value));
                let got = entries.iter().map(|found| (&found.key, &found.value));
                if let Some((wanted, got)) = wanted.zip(got).find(|(wanted, got)| wanted != got) {
                    return Err(format!("entry should be {wanted:?}, found {got:?}"));
                }
                let versions = served().zip(entries).map(|((key, entry), found)| Finding::Version {
                    incarnation,
                    key: key.clone(),
                    change: entry.change,
                    version: found.version,
                });
                let length = (!table.growth_in_doubt).then_some(Finding::Length {
                    incarnation,
                    growth: table.growth,
                    start: info.start,
                    length: info.length,
                });
                Ok(versions.chain(length).collect())
            }
        }
    }
}
