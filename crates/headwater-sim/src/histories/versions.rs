//! Conditional updates of a table's keys by several clients.
//!
//! Versions of a key grow with each change, so they are the order of what was put; a removal follows the version it
//! expected. Clients put only under a condition, so that every change names the one before it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Moment, Span, against_time, overlaps, seen_between};

/// Names a key.
pub type Key = u32;
/// Names a value; no value is put twice.
pub type Value = u64;

/// What a change expects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Condition {
    /// The key is not there.
    Missing,
    /// It has this version.
    Version(i64),
}

/// One key's part of an update.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Change {
    /// Which.
    pub key: Key,
    /// On what condition.
    pub condition: Condition,
    /// `None` removes the key.
    pub value: Option<Value>,
}

/// An update of one or several keys, all or none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Update {
    /// At most one of a key.
    pub changes: Vec<Change>,
    /// When.
    pub span: Span,
    /// What was heard.
    pub result: Heard,
}

/// What was heard of an update.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Heard {
    /// Done; one version for each change, −1 for a removal.
    Done(Vec<i64>),
    /// A condition did not hold.
    Refused,
    /// Nothing.
    Nothing,
}

/// What somebody saw of a key: version and value, or that it is missing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Get {
    /// Which.
    pub key: Key,
    /// What was there.
    pub found: Option<(i64, Value)>,
    /// When.
    pub span: Span,
}

/// Everything about one table.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct VersionHistory {
    /// Updates.
    pub updates: Vec<Update>,
    /// Look-ups.
    pub gets: Vec<Get>,
    /// What is there after everything.
    pub last: BTreeMap<Key, (i64, Value)>,
}

/// Something that happened to a key.
#[derive(Clone, Copy, Debug)]
struct Event {
    /// Index of the update.
    update: usize,
    condition: Condition,
    /// What the key held afterwards.
    after: Option<(i64, Value)>,
    span: Span,
}

impl VersionHistory {
    /// Whether one order of events explains everything.
    ///
    /// # Errors
    /// What it does not explain.
    pub fn check(&self) -> Result<(), String> {
        let versions = self.versions()?;
        let keys: BTreeSet<Key> =
            self.updates.iter().flat_map(|update| &update.changes).map(|change| change.key).collect();
        let mut chains = BTreeMap::new();
        for key in keys {
            let chain = self.chain(key, &versions)?;
            if let Some(at) = against_time(chain.iter().map(|event| event.span)) {
                return Err(format!("key {key}: {:?} ended before what came before it began", chain[at].after));
            }
            chains.insert(key, chain);
        }
        self.check_batches(&chains)?;
        let windows: Windows = chains.iter().map(|(key, chain)| (*key, states(chain))).collect();
        for get in &self.gets {
            let known = windows.get(&get.key).map_or(&[][..], Vec::as_slice);
            let is_seen = |(state, window): &Window| *state == get.found && overlaps(*window, get.span);
            if !known.iter().any(is_seen) && (get.found.is_some() || windows.contains_key(&get.key)) {
                return Err(format!("key {} was seen as {:?}, which it was not then", get.key, get.found));
            }
        }
        self.updates.iter().try_for_each(|update| check_refusal(update, &windows))
    }

    /// The version of each value, as far as anybody saw it.
    fn versions(&self) -> Result<BTreeMap<Value, i64>, String> {
        let mut versions = BTreeMap::new();
        let mut owners: BTreeMap<(Key, i64), Value> = BTreeMap::new();
        let mut learn = |key: Key, version: i64, value: Value| {
            if version < 0 {
                return Err(format!("key {key}: value {value} has version {version}"));
            }
            if *versions.entry(value).or_insert(version) != version {
                return Err(format!("key {key}: value {value} has two versions"));
            }
            if *owners.entry((key, version)).or_insert(value) != value {
                return Err(format!("key {key}: version {version} stands for two values"));
            }
            Ok(())
        };
        for update in &self.updates {
            if let Heard::Done(heard) = &update.result {
                for (change, version) in update.changes.iter().zip(heard) {
                    match change.value {
                        Some(value) => learn(change.key, *version, value)?,
                        None if *version != -1 => return Err(format!("a removal has version {version}")),
                        None => {}
                    }
                }
            }
        }
        for get in &self.gets {
            if let Some((version, value)) = get.found {
                learn(get.key, version, value)?;
            }
        }
        for (key, (version, value)) in &self.last {
            learn(*key, *version, *value)?;
        }
        Ok(versions)
    }

    /// Everything that happened to a key, in order.
    fn chain(&self, key: Key, versions: &BTreeMap<Value, i64>) -> Result<Vec<Event>, String> {
        let mut puts: BTreeMap<i64, Event> = BTreeMap::new();
        let mut removals: BTreeMap<i64, Vec<Event>> = BTreeMap::new();
        for (index, update) in self.updates.iter().enumerate() {
            for change in update.changes.iter().filter(|change| change.key == key) {
                let version = change.value.and_then(|value| versions.get(&value).map(|version| (*version, value)));
                let event = Event { update: index, condition: change.condition, after: version, span: update.span };
                match (change.value, version, &update.result) {
                    (Some(value), Some(_), Heard::Refused) => {
                        return Err(format!("key {key}: value {value} was refused and seen"));
                    }
                    (Some(_), Some((version, _)), _) => {
                        puts.insert(version, event);
                    }
                    // Nobody saw it: it did not happen, or the end would show it.
                    (Some(_), None, _) | (None, _, Heard::Refused) => {}
                    (None, _, _) => {
                        let Condition::Version(version) = change.condition else {
                            return Err(format!("key {key}: a removal that expects nothing"));
                        };
                        removals.entry(version).or_default().push(event);
                    }
                }
            }
        }
        let seen = self.gets.iter().filter(|get| get.key == key).filter_map(|get| get.found);
        for (version, value) in seen.chain(self.last.get(&key).copied()) {
            if !puts.contains_key(&version) {
                return Err(format!("key {key}: value {value} was seen, and nobody sent it"));
            }
        }
        let mut chain: Vec<Event> = Vec::new();
        let mut puts = puts.into_values().peekable();
        let mut before: Option<(i64, Value)> = None;
        loop {
            // What became of the state before: removed, replaced, or still there.
            let next = puts.peek().copied();
            if let Some((version, _)) = before {
                let told = |event: &&Event| matches!(self.updates[event.update].result, Heard::Done(_));
                let found = removals.get(&version).map_or(&[][..], Vec::as_slice);
                if found.iter().filter(told).count() > 1 {
                    return Err(format!("key {key}: version {version} was removed twice"));
                }
                let is_followed = next.is_some_and(|next| next.condition == Condition::Version(version));
                let was_told = found.iter().any(|event| told(&event));
                if is_followed && was_told {
                    return Err(format!("key {key}: version {version} was both removed and replaced"));
                }
                let is_gone = match next {
                    Some(next) => next.condition == Condition::Missing,
                    None => !self.last.contains_key(&key),
                };
                if was_told || is_gone {
                    let Some(removal) = found.iter().find(told).or_else(|| found.first()) else {
                        return Err(format!("key {key}: version {version} is gone, and nobody removed it"));
                    };
                    chain.push(Event { after: None, ..*removal });
                    before = None;
                }
            }
            let Some(next) = puts.next() else { break };
            let holds = match (next.condition, before) {
                (Condition::Missing, None) => true,
                (Condition::Version(expected), Some((version, _))) => expected == version,
                _ => false,
            };
            if !holds {
                return Err(format!(
                    "key {key}: {:?} expected {:?} and followed {before:?}",
                    next.after, next.condition
                ));
            }
            before = next.after;
            chain.push(next);
        }
        if before != self.last.get(&key).copied() {
            return Err(format!("key {key} ends as {:?}, but {before:?} was last", self.last.get(&key)));
        }
        for update in self.updates.iter().filter(|update| matches!(update.result, Heard::Done(_))) {
            for change in update.changes.iter().filter(|change| change.key == key && change.value.is_none()) {
                if !chain.iter().any(|event| event.after.is_none() && event.condition == change.condition) {
                    return Err(format!("key {key}: {:?} was removed, but never was", change.condition));
                }
            }
        }
        Ok(chain)
    }

    /// An update happened to all of its keys or to none.
    fn check_batches(&self, chains: &BTreeMap<Key, Vec<Event>>) -> Result<(), String> {
        for (index, update) in self.updates.iter().enumerate() {
            let happened = |change: &&Change| chains[&change.key].iter().any(|event| event.update == index);
            let count = update.changes.iter().filter(happened).count();
            if count != 0 && count != update.changes.len() {
                return Err(format!("half of an update happened: {:?}", update.changes));
            }
        }
        Ok(())
    }
}

/// The states of a key, and when each may have been seen.
fn states(chain: &[Event]) -> Vec<Window> {
    let spans: Vec<_> = chain.iter().map(|event| event.span).collect();
    let held = std::iter::once(None).chain(chain.iter().map(|event| event.after));
    held.zip(seen_between(&spans)).collect()
}

/// A state of a key, and when it may have been seen.
type Window = (Option<(i64, Value)>, (Moment, Moment));
type Windows = BTreeMap<Key, Vec<Window>>;

/// A refusal needs a state, while it was under way, in which a condition did not hold.
fn check_refusal(update: &Update, windows: &Windows) -> Result<(), String> {
    if update.result != Heard::Refused {
        return Ok(());
    }
    let fails = |change: &Change| {
        windows[&change.key].iter().filter(|(_, window)| overlaps(*window, update.span)).any(|(state, _)| {
            match (change.condition, state) {
                (Condition::Missing, Some(_)) | (Condition::Version(_), None) => true,
                (Condition::Version(expected), Some((version, _))) => expected != *version,
                (Condition::Missing, None) => false,
            }
        })
    };
    if update.changes.iter().any(fails) {
        return Ok(());
    }
    Err(format!("an update was refused although its conditions held: {:?}", update.changes))
}
