//! Tables: conditions, versions, iteration, the log seen from a position.

use std::collections::BTreeMap;

use headwater_engine::ContainerLimits;

use super::*;

const T: &str = "scope/group_kvtable/0.#epoch.0";

fn change(key: &str, value: Option<&str>, expect: Expect) -> TableChange {
    let value = value.map(|value| Bytes::copy_from_slice(value.as_bytes()));
    TableChange { key: Bytes::copy_from_slice(key.as_bytes()), value, expect }
}

impl Fixture {
    fn table() -> Self {
        let store = Self::new();
        store.create(T, SegmentKind::Table { key_length: 0 });
        store
    }

    fn update(&self, changes: Vec<TableChange>) -> Result<Vec<i64>, Refusal> {
        match self.call(Request::TableUpdate { segment: name(T), changes, at: None }) {
            Ok(Response::Versions(versions)) => Ok(versions),
            Ok(other) => panic!("{other:?} answers a table update"),
            Err(refusal) => Err(refusal),
        }
    }

    fn get(&self, key: &str) -> Option<(i64, String)> {
        let keys = vec![Bytes::copy_from_slice(key.as_bytes())];
        match self.call(Request::TableGet { segment: name(T), keys }) {
            Ok(Response::Values(mut values)) => {
                values.pop().unwrap().map(|entry| (entry.version, String::from_utf8(entry.value.to_vec()).unwrap()))
            }
            other => panic!("{other:?}"),
        }
    }

    fn delta(&self, from: u64, count_max: usize) -> Delta {
        match self.call(Request::TableDelta { segment: name(T), from, count_max }) {
            Ok(Response::Delta(delta)) => delta,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn versions_begin_at_zero_and_are_positions_in_the_log() {
    let store = Fixture::table();
    assert_eq!(store.update(vec![change("k1", Some("v1"), Expect::Missing)]).unwrap(), [0]);
    let versions = store.update(vec![change("k2", Some("v"), Expect::Any), change("k3", None, Expect::Any)]);
    assert_eq!(versions.unwrap(), [21, VERSION_MISSING]);
    assert_eq!(store.get("k1"), Some((0, "v1".into())));
    assert_eq!(store.get("k3"), None);
}

#[test]
fn every_row_of_the_condition_table_holds() {
    let store = Fixture::table();
    let version = store.update(vec![change("there", Some("x"), Expect::Any)]).unwrap()[0];
    for (key, expect, refusal) in [
        ("gone", Expect::Version(3), Some(Refusal::KeyMissing)),
        ("there", Expect::Missing, Some(Refusal::KeyVersion)),
        ("there", Expect::Version(version + 1), Some(Refusal::KeyVersion)),
        ("there", Expect::Version(-5), Some(Refusal::Invalid("expected version is negative"))),
    ] {
        assert_eq!(store.update(vec![change(key, Some("y"), expect)]).err(), refusal, "{key} {expect:?}");
    }
    // A missing key wins over a wrong version before it, and the batch leaves no trace.
    let mixed = vec![
        change("fresh", Some("z"), Expect::Any),
        change("there", Some("z"), Expect::Version(99)),
        change("gone", Some("z"), Expect::Version(1)),
    ];
    assert_eq!(store.update(mixed).unwrap_err(), Refusal::KeyMissing);
    assert_eq!(store.get("fresh"), None);
    store.update(vec![change("there", None, Expect::Version(version))]).unwrap();
    store.update(vec![change("there", None, Expect::Missing)]).unwrap();
    store.update(vec![change("there", None, Expect::Any)]).unwrap();
}

#[test]
fn the_last_of_several_changes_to_one_key_wins_and_each_has_a_version() {
    let store = Fixture::table();
    let twice = vec![change("k", Some("first"), Expect::Missing), change("k", Some("second"), Expect::Missing)];
    let versions = store.update(twice).unwrap();
    assert_eq!(versions.len(), 2);
    assert_eq!(store.get("k"), Some((versions[1], "second".into())));
    let gone = vec![change("n", Some("x"), Expect::Any), change("n", None, Expect::Any)];
    store.update(gone).unwrap();
    assert_eq!(store.get("n"), None);
}

#[test]
fn pages_run_through_all_keys_in_order_and_end_with_an_empty_one() {
    let store = Fixture::table();
    for number in 0..100 {
        store.update(vec![change(&format!("key-{number:03}"), Some("v"), Expect::Any)]).unwrap();
    }
    let mut seen = Vec::new();
    let mut range = ScanRange { prefix: Bytes::from_static(b"key-"), exclusive: true, ..ScanRange::default() };
    loop {
        let request = Request::TableScan { segment: name(T), range: range.clone(), count_max: 7, keys_only: false };
        let Ok(Response::Page(page)) = store.call(request) else { panic!("a scan is answered with a page") };
        let Some(last) = page.last() else { break };
        range.from = Some(last.key.clone());
        seen.extend(page.into_iter().map(|entry| entry.key));
    }
    let expected: Vec<_> = (0..100).map(|number| Bytes::from(format!("key-{number:03}"))).collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_delta_shows_only_what_is_still_newest_and_is_empty_only_at_the_end() {
    let store = Fixture::table();
    for number in 0..50 {
        store.update(vec![change(&format!("k{number}"), Some("v"), Expect::Any)]).unwrap();
    }
    for number in 0..45 {
        store.update(vec![change(&format!("k{number}"), None, Expect::Any)]).unwrap();
    }
    let first = store.delta(0, 3);
    let keys: Vec<_> = first.entries.iter().map(|entry| entry.key.clone()).collect();
    assert_eq!(keys, ["k45", "k46", "k47"]);
    assert!(!first.reached_end);
    let second = store.delta(first.position, 10);
    assert_eq!(second.entries.len(), 2);
    assert!(second.reached_end);
    let end = store.delta(second.position, 10);
    assert!(end.entries.is_empty() && end.reached_end);
    assert_eq!(end.position, second.position);
    let behind = store.call(Request::TableDelta { segment: name(T), from: second.position + 1, count_max: 1 });
    assert!(matches!(behind, Err(Refusal::Invalid(_))));
}

#[test]
fn a_delta_begins_only_where_an_entry_does() {
    let store = Fixture::table();
    store.update(vec![change("k1", Some("v1"), Expect::Any)]).unwrap();
    let end = store.delta(0, 10).position;
    // Clients choose the position, so none of them may end the store.
    for from in 1..end {
        let inside = store.call(Request::TableDelta { segment: name(T), from, count_max: 10 });
        assert!(matches!(inside, Err(Refusal::Invalid(_))), "from {from}: {inside:?}");
    }
    assert_eq!(store.get("k1"), Some((0, "v1".into())));
}

#[test]
fn a_table_cannot_be_sealed_and_goes_on_being_changed() {
    let store = Fixture::table();
    store.update(vec![change("k1", Some("v1"), Expect::Any)]).unwrap();
    assert_eq!(store.call(Request::Seal { segment: name(T) }).unwrap_err(), Refusal::WrongKind);
    let versions = store.update(vec![change("k1", Some("v2"), Expect::Version(0))]).unwrap();
    assert_eq!(store.get("k1"), Some((versions[0], "v2".into())));
}

#[test]
fn a_log_of_few_keys_stays_short_and_versions_survive_its_compaction() {
    let store = Fixture::table();
    let kept = store.update(vec![change("kept", Some("for ever"), Expect::Any)]).unwrap()[0];
    let value = "x".repeat(10_000);
    for _ in 0..1_000 {
        store.update(vec![change("busy", Some(&value), Expect::Any)]).unwrap();
    }
    let Ok(Response::Table(info)) = store.call(Request::TableInfo { segment: name(T) }) else { panic!("no table") };
    assert!(info.length - info.start < 2 << 20, "{} bytes of log for two keys", info.length - info.start);
    assert_eq!(info.entries, 2);
    assert_eq!(store.get("kept"), Some((kept, "for ever".into())));
    let (mut seen, mut next) = (0, store.delta(0, 10));
    while !next.reached_end {
        seen += next.entries.len();
        next = store.delta(next.position, 10);
    }
    assert_eq!(seen + next.entries.len(), 2);
    assert!(store.delta(1, 10).should_clear);
    let store = store.reopen(&Options::default());
    assert_eq!(store.get("kept"), Some((kept, "for ever".into())));
    store.update(vec![change("kept", Some("still"), Expect::Version(kept))]).unwrap();
}

/// An entry may be longer than the stretch that a compaction or a delta begins with, and its beginning may be in memory,
/// in chunks, or in one while its end is in the other.
#[test]
fn entries_longer_than_a_stretch_of_the_log_are_compacted_wherever_they_are() {
    let limits = |flush_bytes, cache_bytes| Options {
        container_limits: Some(ContainerLimits {
            flush_bytes,
            unstored_bytes_max: 2 * flush_bytes,
            hot_bytes: 64 << 10,
            cache_bytes,
            idle_segments: 2,
            table_compact_bytes: ContainerLimits::TABLE_COMPACT_BYTES,
            table_step_bytes: ContainerLimits::TABLE_STEP_BYTES,
        }),
        ..Options::default()
    };
    for options in [Options::default(), limits(100 << 10, 0), limits(700 << 10, 0), limits(400 << 10, 500 << 10)] {
        let step = ContainerLimits::TABLE_STEP_BYTES as usize - 17 - "busy".len();
        for size in [(64 << 10) - 21, step - 1, step, step + 1, 270_000, 1_040_384] {
            let store = Fixture::with(&options);
            store.create(T, SegmentKind::Table { key_length: 0 });
            let kept = store.update(vec![change("kept", Some("for ever"), Expect::Any)]).unwrap()[0];
            let value_of = |number: usize| {
                let number = number.to_string();
                "0".repeat(size - number.len()) + &number
            };
            let mut puts = 0;
            eventually("the log is compacted", || {
                puts += 1;
                let value = value_of(puts);
                store.update(vec![change("busy", Some(&value), Expect::Any)]).unwrap();
                let (_, found) = store.get("busy").unwrap();
                assert!(found == value, "{puts} of {size} bytes");
                let info = store.call(Request::TableInfo { segment: name(T) });
                matches!(info, Ok(Response::Table(info)) if info.start > 0 && puts * size > 3 << 20)
            });
            let newest = |delta: Delta| {
                let entries = delta.entries.iter().map(|entry| (entry.key.clone(), entry.value.len()));
                entries.collect::<BTreeMap<_, _>>()
            };
            let (mut seen, mut next) = (BTreeMap::new(), store.delta(0, 10));
            while !next.reached_end {
                let position = next.position;
                seen.extend(newest(next));
                next = store.delta(position, 10);
            }
            seen.extend(newest(next));
            assert_eq!(seen, BTreeMap::from([("busy".into(), size), ("kept".into(), "for ever".len())]));
            let store = store.reopen(&options);
            assert_eq!(store.get("kept"), Some((kept, "for ever".into())));
            assert_eq!(store.get("busy").unwrap().1, value_of(puts));
        }
    }
}

#[test]
fn a_position_inside_an_entry_reads_no_more_than_an_entry_can_have() {
    let store = Fixture::table();
    // The value looks like the header of an entry of nearly a gigabyte.
    let mut forged = vec![0];
    forged.extend_from_slice(&4_u32.to_be_bytes());
    forged.extend_from_slice(&800_000_000_u32.to_be_bytes());
    forged.extend_from_slice(&[0; 8]);
    let value = Some(Bytes::from(forged));
    let change = TableChange { key: Bytes::from_static(b"k"), value, expect: Expect::Any };
    store.update(vec![change]).unwrap();
    let inside = store.call(Request::TableDelta { segment: name(T), from: 18, count_max: 1 });
    assert!(matches!(inside, Err(Refusal::Invalid(_))), "{inside:?}");
}

#[test]
fn sizes_are_checked_and_kinds_are_not_confused() {
    let store = Fixture::table();
    let long = "k".repeat(8193);
    for key in ["", &long] {
        assert!(matches!(store.update(vec![change(key, Some("v"), Expect::Any)]), Err(Refusal::Invalid(_))));
    }
    let value = "v".repeat(1_040_385);
    assert!(matches!(store.update(vec![change("k", Some(&value), Expect::Any)]), Err(Refusal::Invalid(_))));
    store.update(vec![change("k", Some(&value[1..]), Expect::Any)]).unwrap();
    assert_eq!(store.append(T, None, 1, b"x").unwrap_err(), Refusal::WrongKind);
    store.create("scope/stream/0.#epoch.0", SegmentKind::Stream);
    let keys = vec![Bytes::from_static(b"k")];
    let get = store.call(Request::TableGet { segment: name("scope/stream/0.#epoch.0"), keys });
    assert_eq!(get.unwrap_err(), Refusal::WrongKind);
    let delete = |must_be_empty| store.call(Request::DeleteTable { segment: name(T), must_be_empty });
    assert_eq!(delete(true).unwrap_err(), Refusal::TableNotEmpty);
    delete(false).unwrap();
    assert_eq!(delete(false).unwrap_err(), Refusal::NoSuchSegment);
}
