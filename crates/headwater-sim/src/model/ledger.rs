//! The numbers the engine chose, as learnt from its answers, and the rules they must follow.

use std::collections::BTreeMap;

use bytes::Bytes;
use headwater_types::Offset;

/// A number an answer revealed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Finding {
    /// The version of an entry.
    Version {
        /// Of the table.
        incarnation: u64,
        /// Its key.
        key: Bytes,
        /// Number of the change in the model.
        change: u64,
        /// What the engine says.
        version: i64,
    },
    /// Where a table's log begins and ends.
    Length {
        /// Of the table.
        incarnation: u64,
        /// How often it grew, in the model.
        growth: u64,
        /// What the engine says; moved by compaction only, which may also move the end.
        start: Offset,
        /// What the engine says.
        length: Offset,
    },
    /// A position from which a delta can go on.
    Position {
        /// Of the table.
        incarnation: u64,
        /// What the engine says.
        position: Offset,
        /// Every change up to this one lies before the position.
        change: u64,
    },
}

/// All findings. Versions of one key grow with its changes and are never used twice; a log's length grows, and stays if neither
/// a change nor a compaction makes it longer.
#[derive(Clone, Debug)]
pub struct Ledger {
    versions: BTreeMap<(u64, Bytes), BTreeMap<u64, i64>>,
    /// By growth and start.
    lengths: BTreeMap<u64, BTreeMap<(u64, Offset), Offset>>,
    positions: BTreeMap<u64, BTreeMap<Offset, u64>>,
    table_compact_bytes: u64,
}

/// Of a store that compacts no table.
impl Default for Ledger {
    fn default() -> Self {
        Self::new(u64::MAX)
    }
}

impl Ledger {
    /// Nothing is known. Logs of tables shorter than `table_compact_bytes` are not compacted.
    pub fn new(table_compact_bytes: u64) -> Self {
        Self { versions: BTreeMap::new(), lengths: BTreeMap::new(), positions: BTreeMap::new(), table_compact_bytes }
    }

    /// The version of an entry, if it was ever shown.
    pub fn version(&self, incarnation: u64, key: &Bytes, change: u64) -> Option<i64> {
        self.versions.get(&(incarnation, key.clone()))?.get(&change).copied()
    }

    /// Every version ever shown for a key, oldest first.
    pub fn versions(&self, incarnation: u64, key: &Bytes) -> Vec<i64> {
        self.versions.get(&(incarnation, key.clone())).map_or_else(Vec::new, |known| known.values().copied().collect())
    }

    /// The length of a table's log after it grew so often, if it was ever shown and no compaction can have changed it since.
    pub fn table_length(&self, incarnation: u64, growth: u64) -> Option<Offset> {
        let known = self.lengths.get(&incarnation)?;
        let ((_, start), length) = known.range((growth, 0)..=(growth, Offset::MAX)).next_back()?;
        (length - start < self.table_compact_bytes).then_some(*length)
    }

    /// Every position ever shown for a table.
    pub fn positions(&self, incarnation: u64) -> Vec<Offset> {
        self.positions.get(&incarnation).map_or_else(Vec::new, |known| known.keys().copied().collect())
    }

    /// Every change up to the returned one lies before the position; 0 for an unknown position.
    pub fn changes_before(&self, incarnation: u64, position: Offset) -> u64 {
        self.positions.get(&incarnation).and_then(|known| known.get(&position)).copied().unwrap_or(0)
    }

    /// Whether a finding follows the rules, given all earlier ones.
    pub fn admit(&self, finding: &Finding) -> Result<(), String> {
        match finding {
            Finding::Version { incarnation, key, change, version } => {
                let empty = BTreeMap::new();
                let known = self.versions.get(&(*incarnation, key.clone())).unwrap_or(&empty);
                if *version < 0 {
                    return Err(format!("version {version} of key {key:?} is negative"));
                }
                in_order(known, *change, version).map_err(|known| {
                    format!("version {version} of key {key:?} (change {change}) does not fit {known:?}")
                })
            }
            Finding::Length { incarnation, growth, start, length } => {
                let Some(known) = self.lengths.get(incarnation) else { return Ok(()) };
                let here = ((*growth, *start), *length);
                let is_shorter = |one: Known, other: Known| match one.0.0 == other.0.0 {
                    // Only a log of that length is compacted, and only that moves its beginning.
                    true => one.1 <= other.1 && one.1.saturating_sub(one.0.1) >= self.table_compact_bytes,
                    false => one.1 < other.1 && one.0.1 <= other.0.1,
                };
                let own = |(at, length): (&(u64, Offset), &Offset)| (*at, *length);
                let before = known.range(..here.0).next_back().map(own).filter(|before| !is_shorter(*before, here));
                let same = known.get_key_value(&here.0).map(own).filter(|same| *same != here);
                let after = known.range(here.0..).map(own).find(|after| *after != here);
                match before.or(same).or(after.filter(|after| !is_shorter(here, *after))) {
                    Some(known) => Err(format!("table log {here:?} ((growth, start), length) does not fit {known:?}")),
                    None => Ok(()),
                }
            }
            Finding::Position { .. } => Ok(()),
        }
    }

    /// Remembers an admitted finding.
    pub fn learn(&mut self, finding: Finding) {
        match finding {
            Finding::Version { incarnation, key, change, version } => {
                self.versions.entry((incarnation, key)).or_default().insert(change, version);
            }
            Finding::Length { incarnation, growth, start, length } => {
                self.lengths.entry(incarnation).or_default().insert((growth, start), length);
            }
            Finding::Position { incarnation, position, change } => {
                let known = self.positions.entry(incarnation).or_default().entry(position).or_default();
                *known = change.max(*known);
            }
        }
    }
}

/// Growth and start of a log, and its length.
type Known = ((u64, Offset), Offset);

/// `Err` with the neighbour that `value` at `at` contradicts.
fn in_order<T: Copy + Ord>(known: &BTreeMap<u64, T>, at: u64, value: &T) -> Result<(), (u64, T)> {
    let before = known.range(..at).next_back().filter(|(_, before)| *before >= value);
    let same = known.get_key_value(&at).filter(|(_, same)| *same != value);
    let after = known.range(at + 1..).next().filter(|(_, after)| *after <= value);
    match before.or(same).or(after) {
        Some((at, value)) => Err((*at, *value)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(change: u64, version: i64) -> Finding {
        Finding::Version { incarnation: 1, key: Bytes::from_static(b"k"), change, version }
    }

    #[test]
    fn versions_of_a_key_grow_and_stay() {
        let mut ledger = Ledger::default();
        ledger.learn(version(5, 50));
        for good in [version(5, 50), version(4, 49), version(6, 51)] {
            assert_eq!(ledger.admit(&good), Ok(()));
        }
        for bad in [version(5, 51), version(4, 50), version(6, 50), version(6, 3), version(4, 60), version(1, -1)] {
            assert!(ledger.admit(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn logs_grow_by_changes_and_by_compaction() {
        let log = |growth, start, length| Finding::Length { incarnation: 1, growth, start, length };
        let mut ledger = Ledger::new(100);
        ledger.learn(log(5, 10, 150));
        let good = [
            log(5, 10, 150),
            log(4, 10, 149),
            log(6, 10, 151),
            log(5, 20, 150),
            log(5, 20, 160),
            log(5, 0, 150),
            log(6, 30, 151),
        ];
        for good in good {
            assert_eq!(ledger.admit(&good), Ok(()), "{good:?}");
        }
        let bad = [
            log(5, 10, 151),
            log(4, 10, 150),
            log(6, 10, 150),
            log(5, 20, 149),
            log(5, 0, 151),
            log(6, 9, 151),
            log(4, 11, 149),
        ];
        for bad in bad {
            assert!(ledger.admit(&bad).is_err(), "{bad:?}");
        }
        assert_eq!(ledger.table_length(1, 5), None, "a compaction may be about to move its end");
        ledger.learn(log(5, 60, 150));
        assert_eq!(ledger.table_length(1, 5), Some(150));
        for too_short in [log(5, 61, 150), log(5, 61, 160)] {
            assert!(ledger.admit(&too_short).is_err(), "{too_short:?}");
        }
    }
}
