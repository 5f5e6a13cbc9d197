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
    /// The length of a table's log.
    Length {
        /// Of the table.
        incarnation: u64,
        /// How often it grew, in the model.
        growth: u64,
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

/// All findings. Versions of one key grow with its changes and are never used twice; a log's length grows.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    versions: BTreeMap<(u64, Bytes), BTreeMap<u64, i64>>,
    lengths: BTreeMap<u64, BTreeMap<u64, Offset>>,
    positions: BTreeMap<u64, BTreeMap<Offset, u64>>,
}

impl Ledger {
    /// The version of an entry, if it was ever shown.
    pub fn version(&self, incarnation: u64, key: &Bytes, change: u64) -> Option<i64> {
        self.versions.get(&(incarnation, key.clone()))?.get(&change).copied()
    }

    /// Every version ever shown for a key, oldest first.
    pub fn versions(&self, incarnation: u64, key: &Bytes) -> Vec<i64> {
        self.versions.get(&(incarnation, key.clone())).map_or_else(Vec::new, |known| known.values().copied().collect())
    }

    /// The length of a table's log after it grew so often, if it was ever shown.
    pub fn table_length(&self, incarnation: u64, growth: u64) -> Option<Offset> {
        self.lengths.get(&incarnation)?.get(&growth).copied()
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
            Finding::Length { incarnation, growth, length } => {
                let empty = BTreeMap::new();
                let known = self.lengths.get(incarnation).unwrap_or(&empty);
                in_order(known, *growth, length)
                    .map_err(|known| format!("table length {length} after growth {growth} does not fit {known:?}"))
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
            Finding::Length { incarnation, growth, length } => {
                self.lengths.entry(incarnation).or_default().insert(growth, length);
            }
            Finding::Position { incarnation, position, change } => {
                let known = self.positions.entry(incarnation).or_default().entry(position).or_default();
                *known = change.max(*known);
            }
        }
    }
}

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
}
