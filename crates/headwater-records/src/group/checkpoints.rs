//! The checkpoints of a group: which are under way, who has to report still, and what was reported.

use std::collections::{BTreeMap, BTreeSet};

use super::{CheckpointsRecord, Contradiction};
use crate::Offsets;

/// Part of the name of a checkpoint that readers report to without stopping.
const SILENT: &str = "_SILENT_";

/// The name of a checkpoint at which readers report without stopping, made from some random text.
pub fn silent_checkpoint(random: &str) -> String {
    format!("{random}{SILENT}")
}

/// Readers report to it and go on: neither they nor what they have are touched.
pub fn is_silent(checkpoint: &str) -> bool {
    checkpoint.contains(SILENT)
}

/// Checkpoints, oldest first.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Checkpoints {
    record: CheckpointsRecord,
}

impl From<CheckpointsRecord> for Checkpoints {
    fn from(record: CheckpointsRecord) -> Self {
        Self { record }
    }
}

impl Checkpoints {
    /// None yet, and nothing that the controller would have to be told.
    pub(super) fn new() -> Self {
        Self { record: CheckpointsRecord { published: true, ..CheckpointsRecord::default() } }
    }

    pub(super) fn record(&self) -> &CheckpointsRecord {
        &self.record
    }

    /// One of this name that is there already stays as it is. Without readers it is complete at once, but is not the last
    /// complete one.
    pub(super) fn create(&mut self, name: &str, readers: Vec<String>, unassigned: &Offsets) {
        let record = &mut self.record;
        if record.offsets.contains_key(name) {
            return;
        }
        if !readers.is_empty() {
            record.missing.insert(name.to_owned(), readers);
        }
        record.offsets.insert(name.to_owned(), unassigned.clone());
        record.names.push(name.to_owned());
    }

    /// The oldest that a reader has to report to.
    pub(super) fn due(&self, reader: &str) -> Option<&str> {
        // Most of the time there is none at all.
        if self.record.missing.is_empty() {
            return None;
        }
        let misses = |name: &&String| self.misses(name, reader);
        self.record.names.iter().find(misses).map(String::as_str)
    }

    fn misses(&self, name: &str, reader: &str) -> bool {
        self.record.missing.get(name).is_some_and(|readers| readers.iter().any(|one| one == reader))
    }

    /// Whether a report contradicts what is known. One to a checkpoint that is complete or gone changes nothing.
    pub(super) fn accepts(&self, name: &str, reader: &str) -> Result<(), Contradiction> {
        if self.record.missing.contains_key(name) && !self.misses(name, reader) {
            let (checkpoint, reader) = (name.to_owned(), reader.to_owned());
            return Err(Contradiction::NotAwaited { checkpoint, reader });
        }
        Ok(())
    }

    pub(super) fn report(&mut self, name: &str, reader: &str, offsets: &Offsets) {
        let record = &mut self.record;
        let Some(readers) = record.missing.get_mut(name) else { return };
        readers.retain(|one| one != reader);
        let complete = readers.is_empty();
        let reported = record.offsets.entry(name.to_owned()).or_default();
        reported.extend(offsets.iter().map(|(segment, offset)| (segment.clone(), *offset)));
        if complete {
            record.missing.remove(name);
            if !is_silent(name) {
                record.last = reported.clone();
                record.published = false;
            }
        }
    }

    /// A reader that is gone has reported to all it owed.
    pub(super) fn remove(&mut self, reader: &str, offsets: &Offsets) {
        let owed: Vec<String> = self.record.missing.keys().filter(|name| self.misses(name, reader)).cloned().collect();
        for name in owed {
            self.report(&name, reader, offsets);
        }
    }

    /// Forgets all that are older than one, complete or not. One that is not known changes nothing.
    pub(super) fn clear_before(&mut self, name: &str) {
        let record = &mut self.record;
        if !record.offsets.contains_key(name) {
            return;
        }
        let keep = record.names.iter().position(|one| one == name).unwrap_or(record.names.len());
        for old in record.names.drain(..keep) {
            record.missing.remove(&old);
            record.offsets.remove(&old);
        }
    }

    /// Those at which readers stop, and which are not complete.
    pub(super) fn outstanding(&self) -> impl Iterator<Item = &String> {
        let distinct: BTreeSet<&String> = self.record.names.iter().collect();
        distinct.into_iter().filter(|name| !is_silent(name) && self.record.missing.contains_key(*name))
    }

    /// Gives up the outstanding ones. Their names stay until they are cleared, as with Java.
    pub(super) fn cancel(&mut self) {
        let outstanding: Vec<String> = self.outstanding().cloned().collect();
        for name in outstanding {
            self.record.missing.remove(&name);
            self.record.offsets.remove(&name);
        }
    }

    pub(super) fn is_complete(&self, name: &str) -> bool {
        !self.record.missing.contains_key(name)
    }

    /// What was reported to a complete one.
    pub(super) fn reported(&self, name: &str) -> Option<&Offsets> {
        self.record.offsets.get(name).filter(|_| self.is_complete(name))
    }

    pub(super) fn is_any_under_way(&self) -> bool {
        !self.record.missing.is_empty()
    }

    pub(super) fn missing(&self) -> &BTreeMap<String, Vec<String>> {
        &self.record.missing
    }

    pub(super) fn last(&self) -> Option<&Offsets> {
        Some(&self.record.last).filter(|last| !last.is_empty())
    }

    pub(super) fn set_published(&mut self, published: bool) {
        self.record.published = published;
    }
}
