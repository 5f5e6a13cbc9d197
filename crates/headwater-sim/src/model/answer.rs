//! What an answer must look like, and whether one does.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use headwater_engine::api::{Delta, Outcome, Refusal, Response, TableEntry, VERSION_MISSING};
use headwater_types::Offset;

use super::{Entry, Finding, Ledger, Table};

/// What the interface promises about one answer.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "fields are those of the response or refusal of the same name")]
pub enum Answer {
    /// One of these; where the interface does not say which condition is checked first, there are several.
    Refused(Vec<Refusal>),
    Done,
    Info {
        start: Offset,
        length: Offset,
        sealed: bool,
        event_count: u64,
    },
    LastEvent(Option<i64>),
    Appended {
        length: Offset,
    },
    Sealed {
        length: Offset,
    },
    Merged {
        length: Offset,
    },
    /// Lengths right after each merge; a later length of the same batch will do.
    MergedBatch(Vec<Offset>),
    Attribute(i64),
    /// One of these.
    Located(BTreeSet<Offset>),
    /// Per change: `None` for a removal; key and change number for the put that lasts, `Some(None)` for one that a later change of the
    /// same key overrode.
    Versions {
        incarnation: u64,
        versions: Vec<Option<Option<(Bytes, u64)>>>,
    },
    Values {
        incarnation: u64,
        values: Vec<Option<(Bytes, Entry)>>,
    },
    /// `entries` are all that match.
    Page {
        incarnation: u64,
        entries: Vec<(Bytes, Entry)>,
        count_max: usize,
        keys_only: bool,
    },
    Delta(DeltaAnswer),
    /// `growth` is `None` if the length cannot be predicted.
    Table {
        incarnation: u64,
        growth: Option<u64>,
        entries: u64,
        key_length: u32,
    },
    /// Checked against several states; see the history.
    Read,
}

/// What a page of a table's log must look like.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeltaAnswer {
    /// Of the table.
    pub incarnation: u64,
    /// Its state.
    pub table: Table,
    /// Live entries with a later change must appear before the end of the log.
    pub newer_than: u64,
    /// Most entries.
    pub count_max: usize,
}

impl Answer {
    /// In an expected refusal: a length the model cannot know.
    pub const ANY_LENGTH: Offset = Offset::MAX;

    /// Compares; returns what can be learnt from the outcome.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, outcome: &Outcome, ledger: &Ledger) -> Result<Vec<Finding>, String> {
        let findings =
            self.findings(outcome).map_err(|what| format!("{what}\n   expected {self:?}\n      found {outcome:?}"))?;
        for finding in &findings {
            ledger.admit(finding)?;
        }
        Ok(findings)
    }

    /// Whether [`check`](Self::check) would find nothing wrong; does not say what.
    pub fn is_right(&self, outcome: &Outcome, ledger: &Ledger) -> bool {
        self.findings(outcome).is_ok_and(|findings| findings.iter().all(|finding| ledger.admit(finding).is_ok()))
    }

    fn findings(&self, outcome: &Outcome) -> Result<Vec<Finding>, &'static str> {
        match (self, outcome) {
            (Self::Refused(expected), Err(refusal)) if expected.iter().any(|one| same_refusal(one, refusal)) => {
                Ok(Vec::new())
            }
            (_, Err(_)) => Err("another refusal"),
            (Self::Refused(_), Ok(_)) => Err("no refusal"),
            (_, Ok(response)) => self.check_response(response),
        }
    }

    fn check_response(&self, response: &Response) -> Result<Vec<Finding>, &'static str> {
        let mut findings = Vec::new();
        let same = match (self, response) {
            (Self::Done, Response::Done) => true,
            (Self::Info { start, length, sealed, event_count }, Response::Info(info)) => {
                (*start, *length, *sealed, *event_count) == (info.start, info.length, info.sealed, info.event_count)
            }
            (Self::LastEvent(expected), Response::LastEvent(found)) => expected == found,
            (Self::Appended { length: expected }, Response::Appended { length })
            | (Self::Sealed { length: expected }, Response::Sealed { length })
            | (Self::Merged { length: expected }, Response::Merged { length }) => expected == length,
            (Self::MergedBatch(expected), Response::MergedBatch(found)) => {
                let last = expected.last().copied().unwrap_or(0);
                let in_range = |(expected, found): (&Offset, &Offset)| (*expected..=last).contains(found);
                expected.len() == found.len() && expected.iter().zip(found).all(in_range)
            }
            (Self::Attribute(expected), Response::Attribute(found)) => expected == found,
            (Self::Located(known), Response::Located(found)) => known.contains(found),
            (Self::Versions { incarnation, versions }, Response::Versions(found)) => {
                let fits = versions.len() == found.len()
                    && versions.iter().zip(found).all(|(expected, found)| expected.is_some() == (*found >= 0))
                    && found.iter().all(|version| *version >= VERSION_MISSING);
                let lasting =
                    versions.iter().zip(found).filter_map(|(put, version)| Some((put.as_ref()?.as_ref()?, version)));
                findings.extend(lasting.map(|((key, change), version)| Finding::Version {
                    incarnation: *incarnation,
                    key: key.clone(),
                    change: *change,
                    version: *version,
                }));
                fits
            }
            (Self::Values { incarnation, values }, Response::Values(found)) => {
                values.len() == found.len()
                    && values.iter().zip(found).all(|pair| match pair {
                        (None, None) => true,
                        (Some((key, entry)), Some(found)) => {
                            findings.push(version(*incarnation, key, entry, found));
                            *key == found.key && entry.value == found.value
                        }
                        _ => false,
                    })
            }
            (Self::Page { incarnation, entries, count_max, keys_only }, Response::Page(found)) => {
                found.len() <= (*count_max).max(1)
                    && found.len() <= entries.len()
                    && found.is_empty() == entries.is_empty()
                    && entries.iter().zip(found).all(|((key, entry), found)| {
                        findings.push(version(*incarnation, key, entry, found));
                        let value = if *keys_only { &Bytes::new() } else { &entry.value };
                        *key == found.key && *value == found.value
                    })
            }
            (Self::Delta(expected), Response::Delta(found)) => {
                findings = expected.check(found)?;
                true
            }
            (Self::Table { incarnation, growth, entries, key_length }, Response::Table(info)) => {
                findings.extend(growth.map(|growth| Finding::Length {
                    incarnation: *incarnation,
                    growth,
                    start: info.start,
                    length: info.length,
                }));
                *entries == info.entries && *key_length == info.key_length && info.start <= info.length
            }
            _ => false,
        };
        if same { Ok(findings) } else { Err("another answer") }
    }
}

impl DeltaAnswer {
    fn check(&self, found: &Delta) -> Result<Vec<Finding>, &'static str> {
        let mut findings = Vec::new();
        let mut newest = self.newer_than;
        let mut seen = BTreeMap::new();
        for entry in &found.entries {
            let Some(live) = self.table.entries.get(&entry.key) else {
                return Err("a delta shows a key that is not live");
            };
            if live.value != entry.value {
                return Err("a delta shows another value");
            }
            if seen.insert(&entry.key, ()).is_some() {
                return Err("a delta shows a key twice");
            }
            newest = newest.max(live.change);
            findings.push(version(self.incarnation, &entry.key, live, entry));
        }
        if found.entries.len() > self.count_max.max(1) {
            return Err("a delta shows more than was asked for");
        }
        if found.entries.is_empty() && !found.reached_end {
            return Err("a delta is empty before the end of the log");
        }
        if found.reached_end {
            let owed = |(key, entry): (&Bytes, &Entry)| entry.change > self.newer_than && !seen.contains_key(key);
            // An entry may also have been moved in front of the position by compaction, which the reader is told.
            if !found.should_clear && self.table.entries.iter().any(owed) {
                return Err("a delta reaches the end without an entry that is newer than its position");
            }
            newest = newest.max(self.table.last_change);
        }
        findings.push(Finding::Position { incarnation: self.incarnation, position: found.position, change: newest });
        Ok(findings)
    }
}

fn version(incarnation: u64, key: &Bytes, entry: &Entry, found: &TableEntry) -> Finding {
    Finding::Version { incarnation, key: key.clone(), change: entry.change, version: found.version }
}

fn same_refusal(expected: &Refusal, found: &Refusal) -> bool {
    match (expected, found) {
        (Refusal::Invalid(_), Refusal::Invalid(_)) => true,
        (Refusal::OffsetMismatch { length: Answer::ANY_LENGTH }, Refusal::OffsetMismatch { .. }) => true,
        _ => expected == found,
    }
}
