//! What is on the disk and not in memory: the same answers, in the same order, only later.

use headwater_engine::ContainerLimits;

use super::*;

const S: &str = "scope/stream/0.#epoch.0";
const T: &str = "scope/cold_kvtable/0.#epoch.0";

/// Bytes of an entry in a table's log before its key.
const ENTRY_HEADER_BYTES: u64 = 17;

/// A key, whose first byte spreads the order in which keys are put.
fn key(number: u64) -> Bytes {
    format!("{:02x}-key-{number:06}", number % 251).into()
}

fn value(number: u64) -> Bytes {
    format!("value-{number}-{}", "x".repeat((number % 90) as usize)).into()
}

fn put(number: u64, value: Bytes) -> TableChange {
    TableChange { key: key(number), value: Some(value), expect: Expect::Any }
}

fn update(changes: Vec<TableChange>) -> Request {
    Request::TableUpdate { segment: name(T), changes, at: None }
}

/// A store whose table is in chunks and runs alone: it was closed after everything was stored.
fn cold(keys: u64) -> Fixture {
    let store = Fixture::with(&small());
    store.create(T, SegmentKind::Table { key_length: 0 });
    for first in (0..keys).step_by(100) {
        let changes = (first..keys.min(first + 100)).map(|number| put(number, value(number))).collect();
        store.call(update(changes)).unwrap();
    }
    reopen_cold(store)
}

fn reopen_cold(store: Fixture) -> Fixture {
    store.flush();
    store.reopen(&small())
}

#[test]
fn a_read_from_chunks_says_where_it_ends() {
    let store = Fixture::with(&small());
    store.create(S, SegmentKind::Stream);
    store.append(S, None, 1, b"0123456789").unwrap();
    let store = reopen_cold(store);
    assert_eq!(store.read(S, 4).unwrap(), (b"456789".to_vec(), true, false), "at the tail");
    store.call(Request::Seal { segment: name(S) }).unwrap();
    let store = reopen_cold(store);
    assert_eq!(store.read(S, 4).unwrap(), (b"456789".to_vec(), false, true), "at the end");
}

fn values(store: &Fixture, numbers: impl Iterator<Item = u64>) -> Vec<Option<Bytes>> {
    let keys = numbers.map(key).collect();
    match store.call(Request::TableGet { segment: name(T), keys }) {
        Ok(Response::Values(values)) => values.into_iter().map(|entry| entry.map(|entry| entry.value)).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn values_are_found_whether_they_are_in_memory_or_not() {
    let store = cold(5_000);
    // Some are newer than the disk, one is gone since, one was never there.
    store.call(update(vec![put(7, "new".into())])).unwrap();
    store.call(update(vec![TableChange { key: key(8), value: None, expect: Expect::Any }])).unwrap();
    let found = values(&store, [7, 8, 9, 4_999, 99_999].into_iter());
    assert_eq!(found, [Some("new".into()), None, Some(value(9)), Some(value(4_999)), None]);
    for first in (0..5_000).step_by(50) {
        let expected = |number| match number {
            7 => Some("new".into()),
            8 => None,
            _ => Some(value(number)),
        };
        assert_eq!(values(&store, first..first + 50), (first..first + 50).map(expected).collect::<Vec<_>>());
    }
}

#[test]
fn conditions_are_checked_against_what_is_on_the_disk_and_pipelined_changes_keep_their_order() {
    let store = cold(5_000);
    let missing = TableChange { key: key(77), value: Some("w".into()), expect: Expect::Missing };
    assert_eq!(store.call(update(vec![missing])).unwrap_err(), Refusal::KeyVersion);
    let absent = TableChange { key: key(99_999), value: Some("w".into()), expect: Expect::Version(3) };
    assert_eq!(store.call(update(vec![absent])).unwrap_err(), Refusal::KeyMissing);
    // None of these is waited for, and each but the first meets a key that was not looked up yet.
    let answers: Vec<_> = (0..200_u64)
        .map(|number| {
            let changes = vec![put(1, format!("{number}").into()), put(number * 20, format!("{number}").into())];
            store.submit(update(changes))
        })
        .collect();
    let mut last = 0;
    for answer in answers {
        match store.wait(&answer).unwrap() {
            Ok(Response::Versions(versions)) => {
                assert!(versions[0] > last, "changes of one table are carried out in the order they came");
                last = versions[0];
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(values(&store, [1, 3_980].into_iter()), [Some("199".into()), Some("199".into())]);
}

/// Every key from one to another, in pages.
fn pages(store: &Fixture, mut range: ScanRange, count_max: usize, keys_only: bool) -> Vec<TableEntry> {
    let mut all: Vec<TableEntry> = Vec::new();
    loop {
        let request = Request::TableScan { segment: name(T), range: range.clone(), count_max, keys_only };
        let Ok(Response::Page(page)) = store.call(request) else { panic!("a scan is answered with a page") };
        let Some(last) = page.last() else { return all };
        assert!(page.len() <= count_max);
        (range.from, range.exclusive) = (Some(last.key.clone()), true);
        all.extend(page);
    }
}

#[test]
fn pages_run_through_memory_and_disk_in_one_order() {
    let store = cold(5_000);
    let mut expected: std::collections::BTreeMap<Bytes, Bytes> = (0..5_000).map(|n| (key(n), value(n))).collect();
    // More removals in a row than one look at memory takes in.
    for first in (0..1_200).step_by(100) {
        let gone: Vec<Bytes> = expected.keys().skip(1_000).take(100).cloned().collect();
        let remove = |key: &Bytes| TableChange { key: key.clone(), value: None, expect: Expect::Any };
        store.call(update(gone.iter().map(remove).collect())).unwrap();
        gone.iter().for_each(|key| drop(expected.remove(key)));
        let number = 10_000 + first;
        store.call(update(vec![put(number, value(number))])).unwrap();
        expected.insert(key(number), value(number));
    }
    for (count_max, keys_only) in [(7_000, false), (313, false), (1, true), (5_000, true)] {
        let all = pages(&store, ScanRange::default(), count_max, keys_only);
        assert!(all.iter().map(|entry| &entry.key).eq(expected.keys()), "{count_max}");
        if !keys_only {
            assert!(all.iter().map(|entry| &entry.value).eq(expected.values()), "{count_max}");
        }
    }
    let (from, to) = (Bytes::from_static(b"30"), key(4_000));
    let range = ScanRange { from: Some(from.clone()), to: Some(to.clone()), ..ScanRange::default() };
    let found = pages(&store, range, 100, true);
    assert!(found.iter().map(|entry| &entry.key).eq(expected.range(from..=to).map(|(key, _)| key)));
    let prefix = ScanRange { prefix: Bytes::from_static(b"4a-"), ..ScanRange::default() };
    let found = pages(&store, prefix, 100, true);
    assert!(found.iter().map(|entry| &entry.key).eq(expected.keys().filter(|key| key.starts_with(b"4a-"))));
}

#[test]
fn a_log_on_the_disk_is_walked_to_its_end_and_shows_what_is_live() {
    let store = cold(5_000);
    for first in (0..4_500).step_by(100) {
        let gone =
            (first..first + 100).map(|number| TableChange { key: key(number), value: None, expect: Expect::Any });
        store.call(update(gone.collect())).unwrap();
    }
    let store = reopen_cold(store);
    let (mut position, mut seen, mut begins) = (0, Vec::new(), Vec::new());
    loop {
        let request = Request::TableDelta { segment: name(T), from: position, count_max: 64 };
        let Ok(Response::Delta(delta)) = store.call(request) else { panic!("a walk is answered with a page") };
        assert!(!delta.entries.is_empty() || delta.reached_end, "an empty page is the end");
        assert!(delta.position > position || delta.reached_end);
        position = delta.position;
        seen.extend(delta.entries.into_iter().map(|entry| (entry.key, entry.value)));
        if delta.reached_end {
            break;
        }
        begins.push(position);
    }
    assert_eq!(seen, (4_500..5_000).map(|number| (key(number), value(number))).collect::<Vec<_>>());
    // Where a page ends an entry begins, also when nothing is in memory. Inside of one, where its key begins, none does.
    let store = reopen_cold(store);
    let from = |from| store.call(Request::TableDelta { segment: name(T), from, count_max: 10 });
    for begin in begins {
        assert!(matches!(from(begin), Ok(Response::Delta(_))), "from {begin}");
        let inside = from(begin + ENTRY_HEADER_BYTES).unwrap_err();
        assert_eq!(inside, Refusal::Invalid("position is not that of an entry"), "inside the entry at {begin}");
    }
}

#[test]
fn a_log_on_the_disk_is_compacted_too() {
    let store = cold(20_000);
    let length = |store: &Fixture| match store.call(Request::TableInfo { segment: name(T) }) {
        Ok(Response::Table(table)) => (table.start, table.length, table.entries),
        other => panic!("{other:?}"),
    };
    for round in 0..6 {
        for first in (0..20_000).step_by(100) {
            let changes = (first..first + 100).map(|number| put(number, format!("{round}").into())).collect();
            store.call(update(changes)).unwrap();
        }
    }
    eventually("the head of the log is given up", || {
        store.call(update(vec![put(1, "5".into())])).unwrap();
        let (start, length, _) = length(&store);
        length - start < 6 << 20 && start > 0
    });
    assert_eq!(length(&store).2, 20_000);
    let store = reopen_cold(store);
    for first in (0..20_000).step_by(100) {
        assert!(values(&store, first..first + 100).iter().all(|value| value.as_deref() == Some(b"5")));
    }
}

#[test]
fn requests_to_a_segment_that_has_to_be_found_first_keep_their_order() {
    let store = Fixture::with(&small());
    for number in 0..300 {
        let segment = format!("scope/idle/{number}.#epoch.0");
        store.create(&segment, SegmentKind::Stream);
        store.append(&segment, None, 1, b"first").unwrap();
    }
    let store = reopen_cold(store);
    for number in 0..300 {
        let segment = format!("scope/idle/{number}.#epoch.0");
        let open = store.submit(Request::OpenWriter { segment: name(&segment), writer: WRITER });
        let appends: Vec<_> =
            (2..6_i64).map(|at| store.submit(Request::Append(append(&segment, Some(at - 1), at, b"later")))).collect();
        let seal = store.submit(Request::Seal { segment: name(&segment) });
        assert!(matches!(store.wait(&open), Ok(Ok(Response::LastEvent(Some(1))))));
        for (at, append) in (1..).zip(&appends) {
            match store.wait(append) {
                Ok(Ok(Response::Appended { length })) => assert_eq!(length, 5 + at * 5),
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(store.wait(&seal), Ok(Ok(Response::Sealed { length: 25 }))));
        let again = Request::Create {
            segment: name(&segment),
            kind: SegmentKind::Stream,
            policy: SegmentPolicy::default(),
            on_reserve: false,
        };
        assert_eq!(store.call(again).unwrap_err(), Refusal::SegmentExists);
    }
    assert_eq!(store.info("scope/idle/300.#epoch.0").unwrap_err(), Refusal::NoSuchSegment);
}

#[test]
fn thousands_of_idle_segments_leave_memory_and_are_all_there() {
    const SEGMENTS: u64 = 5_000;
    let limits = ContainerLimits {
        flush_bytes: 64 << 10,
        unstored_bytes_max: 256 << 10,
        hot_bytes: 64 << 10,
        cache_bytes: 16 << 10,
        idle_segments: 200,
        table_compact_bytes: ContainerLimits::TABLE_COMPACT_BYTES,
        table_step_bytes: ContainerLimits::TABLE_STEP_BYTES,
    };
    let options = Options { container_limits: Some(limits), ..small() };
    let in_memory_max = u64::from(options.containers) * limits.idle_segments as u64;
    let store = Fixture::with(&options);
    let segment = |number: u64| format!("scope/idle-{}/{}.#epoch.0", number / 100, number % 100);
    let all_done = |requests: &mut dyn Iterator<Item = Request>| {
        let answers: Vec<_> = requests.map(|request| store.submit(request)).collect();
        for answer in answers {
            store.wait(&answer).unwrap().unwrap();
        }
    };
    let (kind, policy) = (SegmentKind::Stream, SegmentPolicy::default());
    let create = |number| Request::Create { segment: name(&segment(number)), kind, policy, on_reserve: false };
    let event = |number: u64| number.to_be_bytes();
    all_done(&mut (0..SEGMENTS).map(create));
    all_done(&mut (0..SEGMENTS).map(|number| Request::Append(append(&segment(number), None, 1, &event(number)))));
    store.flush();
    let leave_memory = || {
        eventually("idle segments leave memory", || {
            // Some at every step of a container, and nothing happens without one.
            for number in 0..16 {
                assert_eq!(store.info(&format!("scope/none/{number}")).unwrap_err(), Refusal::NoSuchSegment);
            }
            store.metric("segments_in_memory") <= in_memory_max
        });
    };
    leave_memory();
    // Each is found again, goes on where it was, and its name is not free.
    for number in 0..SEGMENTS {
        assert_eq!(store.read(&segment(number), 0).unwrap().0, event(number), "segment {number}");
    }
    all_done(&mut (0..SEGMENTS).map(|number| Request::Append(append(&segment(number), Some(1), 2, b"on"))));
    assert_eq!(store.call(create(SEGMENTS / 2)).unwrap_err(), Refusal::SegmentExists);
    store.flush();
    leave_memory();
    let store = store.reopen(&options);
    for number in (0..SEGMENTS).step_by(7) {
        assert_eq!(store.info(&segment(number)).unwrap().length, 10, "segment {number}");
    }
}
