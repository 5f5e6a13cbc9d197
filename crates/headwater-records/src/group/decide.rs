//! How readers share segments: each looks at the state and decides for itself what to take and what to give.
//!
//! Nothing here has to be the same for all readers, since every change is appended under the condition that the state has not
//! moved; but readers that follow other rules than Java's would take and give in turns for ever.
//!
//! Source: `ReaderGroupStateManager` of Pravega's client.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use headwater_types::{KeyRange, SegmentId, StreamSegment, hash};

use super::state::DISTANCE_MS_MIN;
use super::{State, Successor, Update, is_silent};
use crate::Offsets;

/// What timers count in. Source: Java's `TIME_UNIT`.
pub(super) const UNIT: Duration = Duration::from_secs(1);
/// A state is not compacted before as many bytes were written.
const COMPACTION_BYTES: u64 = 512 * 1024;
/// How often it is then, at each look.
const COMPACTION_CHANCE: f64 = 0.05;

/// An application asks for a checkpoint while it has as many under way as the group may have.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{outstanding} checkpoints are under way, limit {max}")]
pub struct TooManyCheckpoints {
    /// Under way.
    pub outstanding: usize,
    /// Limit of the group's configuration.
    pub max: usize,
}

/// How much each reader has: segments, weighed by how far behind it is in relation to who is furthest behind.
pub fn sizes<'a>(state: &'a State) -> BTreeMap<&'a str, f64> {
    let distance = |reader: &str| {
        let said = state.distances_ms().get(reader).copied().unwrap_or(DISTANCE_MS_MIN);
        said.max(DISTANCE_MS_MIN) as f64
    };
    let busy = state.assigned().iter().filter(|(_, held)| !held.is_empty());
    let furthest = busy.map(|(reader, _)| distance(reader)).fold(0.0, f64::max);
    let size = |(reader, held): (&'a String, &Offsets)| match held.len() {
        0 => (reader.as_str(), 0.0),
        count => (reader.as_str(), count as f64 * distance(reader) / furthest),
    };
    state.assigned().iter().map(size).collect()
}

/// How many readers have more than this one; of readers with the same the later in the alphabet has less.
fn rank(state: &State, reader: &str) -> usize {
    let sizes = sizes(state);
    let own = sizes.get(reader).copied().unwrap_or(0.0);
    let more = |(name, size): &(&&str, &f64)| **size > own || **size == own && **name < reader;
    sizes.iter().filter(more).count()
}

/// How many segments a reader should take, of those that wait for one. At least one if there is one.
pub fn share(state: &State, reader: &str) -> usize {
    let unassigned = state.unassigned().len();
    let readers = state.assigned().len();
    if unassigned == 0 || readers == 0 {
        return 0;
    }
    let own = state.assigned().get(reader).map_or(0, BTreeMap::len);
    let total = unassigned + state.assigned().values().map(BTreeMap::len).sum::<usize>();
    // To the nearest, and a half upwards.
    let fair = (2 * total + readers) / (2 * readers);
    (unassigned / readers).max(unassigned.min(fair.saturating_sub(own))).max(1)
}

/// The segment that a reader should give back, if it has too many. Readers choose differently among the same ones.
pub fn to_release<'a>(state: &'a State, reader: &str) -> Option<&'a StreamSegment> {
    let held = state.assigned().get(reader).filter(|held| held.len() > 1)?;
    let sizes = sizes(state);
    let least = sizes.values().copied().fold(f64::INFINITY, f64::min);
    if sizes[reader] <= least + state.unassigned().len().max(1) as f64 {
        return None;
    }
    let drawn = |segment: &StreamSegment| hash::seeded(reader, &segment.to_string());
    held.keys().max_by(|a, b| drawn(a).total_cmp(&drawn(b)))
}

/// How long a reader waits after it took something: those that have little take again soon.
pub fn acquire_pause(state: &State, reader: &str) -> Duration {
    let readers = state.assigned().len().max(1);
    UNIT * u32::try_from(readers - rank(state, reader).min(readers - 1)).unwrap_or(u32::MAX)
}

/// How long a reader waits after it gave something back: those that have much give again soon.
pub fn release_pause(state: &State, reader: &str) -> Duration {
    UNIT * u32::try_from(1 + rank(state, reader)).unwrap_or(u32::MAX)
}

/// How long a reader waits until it says again how far it is.
pub fn report_pause(state: &State) -> Duration {
    UNIT * u32::try_from(1 + state.assigned().len()).unwrap_or(u32::MAX)
}

/// Whether a reader should write the whole state, so that who comes later has less to read. `bytes` are those that came since
/// the last whole one, `chance` is drawn from 0 to 1 at each look: one of many readers does it.
pub fn compacts(bytes: u64, chance: f64) -> bool {
    bytes > COMPACTION_BYTES && chance < COMPACTION_CHANCE
}

/// What begins a checkpoint that an application asked for.
///
/// # Errors
/// Too many are under way; silent ones do not count.
pub fn checkpoint(state: &State, name: &str) -> Result<Update, TooManyCheckpoints> {
    let outstanding = state.outstanding_checkpoints().count();
    let max = usize::try_from(state.configuration().outstanding_checkpoints_max).unwrap_or(0);
    if !is_silent(name) && outstanding >= max {
        return Err(TooManyCheckpoints { outstanding, max });
    }
    Ok(Update::CreateCheckpoint { checkpoint: name.to_owned() })
}

/// Segments whose keys have to be known before it can be said what `successors` of a segment wait for, and that the state does
/// not say: none, unless one of them follows on a segment that is neither read nor waits.
pub fn unplaced(state: &State, completed: &StreamSegment, successors: &[Successor]) -> BTreeSet<SegmentId> {
    let unread: BTreeSet<SegmentId> = state.unread(&completed.stream).map(|segment| segment.id).collect();
    let undecided = successors.iter().filter(|one| !state.future().contains_key(&one.segment));
    let before = undecided.flat_map(|one| &one.predecessors).filter_map(|id| SegmentId::from_i64(*id));
    let nowhere: BTreeSet<SegmentId> = before.filter(|id| !unread.contains(id)).collect();
    if nowhere.is_empty() {
        return nowhere;
    }
    let known = state.unread(&completed.stream).chain(state.ending(&completed.stream));
    let open = known.filter(|segment| state.range(segment).is_none());
    open.map(|segment| segment.id).chain(nowhere.iter().copied()).collect()
}

/// What a successor of a segment that is being completed waits for: of all that it follows on, the segment itself and whatever
/// is [not read yet](crate::is_unread). A group that begins where two segments were about to be followed by one, and one of the
/// two was read, never hears of that one. By the rules of Java's client, whose readers name all of them, it waits for it for ever.
///
/// So it would for one that lies behind the end of the group, where the group ends in front of the successor. It waits for those
/// in which the group ends before it comes to that one.
///
/// Both hold where a reader of ours completes the first segment that the successor follows on. Where one of Java's does, it writes
/// all predecessors, and what is written once stays.
pub fn awaited(
    state: &State,
    completed: &StreamSegment,
    successor: &Successor,
    ranges: &BTreeMap<SegmentId, KeyRange>,
) -> Vec<i64> {
    let others = move || state.unread(&completed.stream).filter(move |segment| *segment != completed);
    let range = |segment: &StreamSegment| state.range(segment).or_else(|| ranges.get(&segment.id).copied());
    let is_unread = |id: SegmentId, keys: Option<KeyRange>| {
        crate::is_unread(id, keys, others().map(|segment| (segment.id, range(segment))))
    };
    let mut awaited = BTreeSet::new();
    for before in &successor.predecessors {
        let Some(id) = SegmentId::from_i64(*before).filter(|id| *id != completed.id) else {
            awaited.insert(*before);
            continue;
        };
        let keys = ranges.get(&id).copied();
        if !is_unread(id, keys) {
            continue;
        }
        let is_placed = others().any(|segment| segment.id == id);
        let leads = |end: &StreamSegment| end.id < id && range(end).zip(keys).is_some_and(|(a, b)| a.overlaps(b));
        let ends: Vec<_> = state.ending(&completed.stream).filter(|&end| !is_placed && leads(end)).collect();
        if ends.is_empty() {
            awaited.insert(*before);
        }
        awaited.extend(ends.into_iter().filter(|&end| is_unread(end.id, range(end))).map(|end| end.id.as_i64()));
    }
    awaited.into_iter().collect()
}

/// What takes a reader out of the group, which left by itself or is taken for dead; nothing if it is not in it. What it has is
/// read on from `offsets`, or if they do not say, from where it stopped for a checkpoint last.
pub fn offline(state: &State, reader: &str, offsets: &Offsets) -> Option<Update> {
    let removed = || Update::RemoveReader { reader: reader.to_owned(), offsets: offsets.clone() };
    state.is_online(reader).then(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::{Compacted, Initial};
    use crate::testing::segment;

    /// Readers with so many segments and so far behind, and so many unassigned segments.
    fn state(readers: &[(&str, i32, i64)], unassigned: i32) -> State {
        let mut number = 0..;
        let mut take = |count: i32| -> Offsets {
            let names = (0..count).map(|_| format!("s/t/{}.#epoch.0", number.next().unwrap()));
            names.map(|name| (segment(&name), 0)).collect()
        };
        State::from(Initial::Compacted(Box::new(Compacted {
            assigned: readers.iter().map(|(name, count, _)| ((*name).to_owned(), take(*count))).collect(),
            distances_ms: readers.iter().map(|(name, _, distance)| ((*name).to_owned(), *distance)).collect(),
            unassigned: take(unassigned),
            ..Compacted::default()
        })))
    }

    #[test]
    fn readers_take_what_makes_them_even() {
        assert_eq!(share(&state(&[("a", 0, 0)], 0), "a"), 0);
        assert_eq!(share(&state(&[("a", 0, 0)], 6), "a"), 6);
        assert_eq!(share(&state(&[("a", 0, 0), ("b", 0, 0), ("c", 0, 0)], 6), "b"), 2);
        assert_eq!(share(&state(&[("a", 4, 0), ("b", 0, 0)], 1), "b"), 1);
        assert_eq!(share(&state(&[("a", 4, 0), ("b", 0, 0)], 1), "a"), 1, "nothing is left lying about");
        assert_eq!(share(&state(&[("a", 1, 0), ("b", 0, 0)], 4), "b"), 3, "a half is rounded upwards");
        assert_eq!(share(&state(&[("a", 2, 0), ("b", 0, 0)], 9), "a"), 4);
    }

    #[test]
    fn who_has_two_more_than_the_least_gives_one_back() {
        assert_eq!(to_release(&state(&[("a", 2, 0), ("b", 1, 0)], 0), "a"), None);
        assert!(to_release(&state(&[("a", 2, 0), ("b", 0, 0)], 1), "a").is_some());
        assert_eq!(to_release(&state(&[("a", 2, 0), ("b", 0, 0)], 2), "a"), None, "b will take those");
        assert_eq!(to_release(&state(&[("a", 2, 0), ("b", 0, 0)], 0), "b"), None);
        assert_eq!(to_release(&state(&[("a", 3, 0), ("b", 2, 90_000)], 0), "b"), None);
        assert!(to_release(&state(&[("a", 3, 0), ("b", 3, 90_000)], 0), "b").is_some(), "it is far behind");
        let held = state(&[("a", 5, 0), ("b", 0, 0)], 0);
        let chosen = to_release(&held, "a").unwrap();
        assert!(held.assigned()["a"].contains_key(chosen));
    }

    #[test]
    fn readers_with_much_wait_longer_to_take_and_shorter_to_give() {
        let held = state(&[("a", 1, 0), ("b", 3, 0), ("c", 1, 0)], 0);
        let seconds = |pause: fn(&State, &str) -> Duration| ["a", "b", "c", "x"].map(|one| pause(&held, one).as_secs());
        assert_eq!(seconds(acquire_pause), [2, 3, 1, 1]);
        assert_eq!(seconds(release_pause), [2, 1, 3, 4]);
        assert_eq!(report_pause(&held), Duration::from_secs(4));
        assert_eq!(acquire_pause(&state(&[], 1), "a"), UNIT);
    }

    #[test]
    fn nothing_waits_for_what_lies_behind_the_end_of_the_group() {
        let [lower, upper] = [segment("s/t/0.#epoch.0"), segment("s/t/1.#epoch.0")];
        // It follows on the upper half, and what comes last on it and on the lower half.
        let (between, last) = (segment("s/t/2.#epoch.1"), segment("s/t/3.#epoch.2"));
        let [low, high] = [KeyRange::new(0.0, 0.5).unwrap(), KeyRange::new(0.5, 1.0).unwrap()];
        let ranges = [(lower.id, low), (upper.id, high), (between.id, high), (last.id, KeyRange::FULL)].into();
        let predecessors = vec![lower.id.as_i64(), between.id.as_i64()];
        let successor = Successor { segment: last.clone(), range: KeyRange::FULL, predecessors };
        let state = |unassigned: &[(&StreamSegment, i64)], ends: &[(&StreamSegment, i64)]| {
            let offsets =
                |of: &[(&StreamSegment, i64)]| of.iter().map(|(one, offset)| ((*one).clone(), *offset)).collect();
            State::from(Initial::Compacted(Box::new(Compacted {
                assigned: [("a".to_owned(), [(lower.clone(), crate::READ)].into())].into(),
                unassigned: offsets(unassigned),
                ends: offsets(ends),
                ..Compacted::default()
            })))
        };
        let waits_for = |state: &State, expected: &[&StreamSegment]| {
            let unplaced = asked_ranges(state, &lower, &successor, &ranges);
            let expected: Vec<_> = expected.iter().map(|one| one.id.as_i64()).collect();
            assert_eq!(awaited(state, &lower, &successor, &unplaced), expected);
        };
        let ends = [(&upper, 7), (&last, 0)];
        waits_for(&state(&[(&upper, 5)], &[]), &[&lower, &between]);
        waits_for(&state(&[(&upper, 5)], &ends), &[&lower, &upper]);
        waits_for(&state(&[], &ends), &[&lower]);
        // Here the group does come to it.
        waits_for(&state(&[(&upper, 5)], &[(&last, 0)]), &[&lower, &between]);
        waits_for(&state(&[(&between, 5)], &[(&last, 0)]), &[&lower, &between]);
    }

    /// The keys that are asked for.
    fn asked_ranges(
        state: &State,
        completed: &StreamSegment,
        successor: &Successor,
        all: &BTreeMap<SegmentId, KeyRange>,
    ) -> BTreeMap<SegmentId, KeyRange> {
        let asked = unplaced(state, completed, std::slice::from_ref(successor));
        asked.into_iter().map(|id| (id, all[&id])).collect()
    }

    #[test]
    fn a_state_is_compacted_once_in_a_while() {
        assert!(!compacts(COMPACTION_BYTES, 0.0));
        assert!(compacts(COMPACTION_BYTES + 1, 0.049));
        assert!(!compacts(COMPACTION_BYTES + 1, 0.05));
    }

    #[test]
    fn only_so_many_checkpoints_are_under_way_and_silent_ones_do_not_count() {
        let mut held = state(&[("a", 1, 0)], 0);
        for name in ["1", "2", "3"] {
            let silent = checkpoint(&held, &crate::group::silent_checkpoint(name)).unwrap();
            held.apply(&silent).unwrap();
            let update = checkpoint(&held, name).unwrap();
            held.apply(&update).unwrap();
        }
        assert_eq!(checkpoint(&held, "4"), Err(TooManyCheckpoints { outstanding: 3, max: 3 }));
        assert!(checkpoint(&held, &crate::group::silent_checkpoint("4")).is_ok());
    }
}
