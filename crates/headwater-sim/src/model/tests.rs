//! The model's rules that are easiest to get wrong, and answers that must be rejected.

use std::sync::Arc;

use headwater_engine::api::{Delta, Outcome, Response, ScanRange, TableEntry};
use headwater_engine::io::{Io, MemoryDisk};
use headwater_engine::{Options, Stepper};
use headwater_types::WriterId;

use super::*;
use crate::{SimClock, SimRandom};

fn name(text: &str) -> SegmentName {
    SegmentName::parse(text).unwrap()
}

const TARGET: &str = "s/t/0.#epoch.0";
const SOURCE: &str = "s/t/0.#epoch.0#transaction.00000000000000000000000000000001";
const UPLOAD: &str = "s/t/0.#epoch.0#transient.00000000000000000000000000000001.00000000000000000000000000000001";

/// A container under test: decides, keeps the last step.
#[derive(Default)]
struct Sandbox {
    state: State,
    ledger: Ledger,
    numbers: Numbers,
}

impl Sandbox {
    fn ask(&mut self, request: Request) -> Answer {
        let decision = self.state.decide(&request, &self.ledger, &mut self.numbers);
        if let Some(last) = decision.steps.into_iter().last() {
            self.state = last;
        }
        decision.answer
    }

    fn create(&mut self, text: &str, kind: SegmentKind) {
        let policy = SegmentPolicy::default();
        assert_eq!(self.ask(Request::Create { segment: name(text), kind, policy, on_reserve: false }), Answer::Done);
    }

    fn append(&mut self, text: &str, data: &'static str, previous: Option<i64>, expected: Option<u64>) -> Answer {
        self.ask(Request::Append(Append {
            segment: name(text),
            writer: WriterId(1),
            data: Bytes::from_static(data.as_bytes()),
            event_count: 2,
            previous,
            number: previous.unwrap_or(0) + 1,
            expected_length: expected,
        }))
    }

    fn update(&mut self, changes: &[(&'static str, Option<&'static str>, Expect)]) -> Answer {
        let change = |(key, value, expect): &(&'static str, Option<&'static str>, Expect)| TableChange {
            key: Bytes::from_static(key.as_bytes()),
            value: value.map(|value| Bytes::from_static(value.as_bytes())),
            expect: *expect,
        };
        let changes = changes.iter().map(change).collect();
        self.ask(Request::TableUpdate { segment: name(TARGET), changes, at: None })
    }
}

#[test]
fn a_sealed_segment_beats_a_stale_writer_and_a_stale_writer_beats_a_wrong_length() {
    let mut sandbox = Sandbox::default();
    sandbox.create(TARGET, SegmentKind::Stream);
    assert_eq!(sandbox.append(TARGET, "abc", None, Some(0)), Answer::Appended { length: 3 });
    let conflict = Answer::Refused(vec![Refusal::WriterConflict { stored: Some(1) }]);
    assert_eq!(sandbox.append(TARGET, "abc", None, Some(9)), conflict);
    let mismatch = Answer::Refused(vec![Refusal::LengthMismatch { length: 3 }]);
    assert_eq!(sandbox.append(TARGET, "abc", Some(1), Some(9)), mismatch);
    assert_eq!(sandbox.ask(Request::Seal { segment: name(TARGET) }), Answer::Sealed { length: 3 });
    assert_eq!(sandbox.append(TARGET, "abc", None, Some(9)), Answer::Refused(vec![Refusal::Sealed]));
}

#[test]
fn a_merge_moves_bytes_and_events_and_an_upload_is_one_event() {
    let mut sandbox = Sandbox::default();
    sandbox.create(TARGET, SegmentKind::Stream);
    sandbox.create(SOURCE, SegmentKind::Stream);
    sandbox.create(UPLOAD, SegmentKind::Transient);
    for text in [TARGET, SOURCE, UPLOAD] {
        sandbox.append(text, "abc", None, None);
    }
    let merge = Request::MergeBatch { target: name(TARGET), sources: vec![name(SOURCE), name(UPLOAD), name(SOURCE)] };
    assert_eq!(sandbox.ask(merge), Answer::MergedBatch(vec![6, 9, 9]));
    assert_eq!(
        sandbox.ask(Request::Info { segment: name(TARGET) }),
        Answer::Info { start: 0, length: 9, sealed: false, event_count: 5 }
    );
    assert_eq!(sandbox.state.find(&name(TARGET)).unwrap().bytes(2, 5), b"cabca");
    assert_eq!(sandbox.state.segments.len(), 1);
}

#[test]
fn conditions_of_a_batch_look_at_the_state_before_it_and_the_last_change_of_a_key_wins() {
    let mut sandbox = Sandbox::default();
    sandbox.create(TARGET, SegmentKind::Table { key_length: 0 });
    let twice = [("k", Some("1"), Expect::Missing), ("k", Some("2"), Expect::Missing)];
    assert!(matches!(sandbox.update(&twice), Answer::Versions { .. }));
    assert_eq!(sandbox.update(&twice), Answer::Refused(vec![Refusal::KeyVersion]));
    let table = &sandbox.state.find(&name(TARGET)).unwrap().table;
    assert_eq!(table.entries[&b"k"[..]].value, "2");
    let both = [("k", None, Expect::Missing), ("absent", None, Expect::Version(0))];
    assert_eq!(sandbox.update(&both), Answer::Refused(vec![Refusal::KeyMissing]));
}

#[test]
fn uploads_end_with_the_process() {
    let mut sandbox = Sandbox::default();
    sandbox.create(TARGET, SegmentKind::Stream);
    sandbox.create(UPLOAD, SegmentKind::Transient);
    let after = sandbox.state.after_restart();
    assert!(after.find(&name(TARGET)).is_some() && after.find(&name(UPLOAD)).is_none());
}

#[test]
fn pages_of_a_log_that_break_a_rule_are_rejected() {
    let mut sandbox = Sandbox::default();
    sandbox.create(TARGET, SegmentKind::Table { key_length: 0 });
    sandbox.update(&[("a", Some("1"), Expect::Any), ("b", Some("2"), Expect::Any)]);
    let answer = sandbox.ask(Request::TableDelta { segment: name(TARGET), from: 0, count_max: 2 });
    let entry = |key: &'static str, version, value: &'static str| TableEntry {
        key: Bytes::from_static(key.as_bytes()),
        version,
        value: Bytes::from_static(value.as_bytes()),
    };
    let check = |entries: Vec<TableEntry>, reached_end| {
        let delta = Delta { entries, should_clear: false, reached_end, position: 9 };
        answer.is_right(&Ok(Response::Delta(delta)), &sandbox.ledger)
    };
    assert!(check(vec![entry("a", 0, "1"), entry("b", 5, "2")], true));
    assert!(check(vec![entry("a", 0, "1")], false));
    for (entries, reached_end, why) in [
        (vec![], false, "empty before the end"),
        (vec![entry("a", 0, "1")], true, "an entry is owed"),
        (vec![entry("a", 0, "1"), entry("a", 0, "1")], false, "twice"),
        (vec![entry("a", 0, "2")], false, "another value"),
        (vec![entry("c", 0, "1")], false, "not live"),
        (vec![entry("a", -1, "1")], false, "negative version"),
    ] {
        assert!(!check(entries, reached_end), "{why}");
    }
}

/// A store with one container beside the model: both are asked, and have to agree.
struct Pair {
    model: Sandbox,
    engine: Stepper,
}

impl Pair {
    fn new() -> Self {
        let (clock, random) = (Arc::new(SimClock::new(0)), Arc::new(SimRandom::new(1)));
        let io = Io { disk: Arc::new(MemoryDisk::default()), clock, random };
        let options = Options { containers: 1, journal_file_bytes: 512 << 10, ..Options::default() };
        Self { model: Sandbox::default(), engine: Stepper::open(io, options).unwrap() }
    }

    fn engine(&mut self, request: Request) -> Outcome {
        self.engine.submit(request).unwrap();
        self.engine.run_all().unwrap();
        let (_, outcome) = self.engine.take_replies().pop().expect("nothing here waits");
        outcome
    }

    #[track_caller]
    fn ask(&mut self, request: Request) -> Outcome {
        let answer = self.model.ask(request.clone());
        let outcome = self.engine(request.clone());
        if let Err(what) = answer.check(&outcome, &self.model.ledger) {
            panic!("{request:?}: {what}");
        }
        outcome
    }
}

#[test]
fn the_engine_and_the_model_agree_on_what_a_table_allows_and_what_only_a_table_does() {
    const STREAM: &str = "s/t/1.#epoch.0";
    const TABLE_AS_SOURCE: &str = "s/t/1.#epoch.0#transaction.00000000000000000000000000000002";
    let mut pair = Pair::new();
    let table = SegmentKind::Table { key_length: 0 };
    for (text, kind) in [(TARGET, table), (SOURCE, SegmentKind::Stream), (STREAM, SegmentKind::Stream)] {
        let policy = SegmentPolicy::default();
        pair.ask(Request::Create { segment: name(text), kind, policy, on_reserve: false }).unwrap();
    }
    let policy = SegmentPolicy::default();
    pair.ask(Request::Create { segment: name(TABLE_AS_SOURCE), kind: table, policy, on_reserve: false }).unwrap();
    let (key, value) = (Bytes::from_static(b"key"), Some(Bytes::from_static(b"value")));
    let update = |text: &str| {
        let changes = vec![TableChange { key: key.clone(), value: value.clone(), expect: Expect::Any }];
        Request::TableUpdate { segment: name(text), changes, at: None }
    };
    pair.ask(update(TARGET)).unwrap();

    let id = AttributeId((0x1234 << 64) | 1);
    let updates = vec![AttributeUpdate { id, kind: UpdateKind::Replace, value: 7 }];
    let segment = || name(TARGET);
    for allowed in [
        Request::OpenWriter { segment: segment(), writer: WriterId(1) },
        Request::UpdateAttributes { segment: segment(), updates: updates.clone() },
        Request::Attribute { segment: segment(), id },
        Request::SetPolicy { segment: segment(), policy: SegmentPolicy { rate: 5, ..SegmentPolicy::default() } },
    ] {
        assert!(pair.ask(allowed.clone()).is_ok(), "{allowed:?}");
    }
    let log = pair.engine(Request::Read { segment: segment(), offset: 0, bytes_max: 1000 });
    assert!(matches!(&log, Ok(Response::Read(read)) if read.data.concat().ends_with(b"keyvalue")), "{log:?}");
    let passed_over = Request::MergeBatch { target: name(STREAM), sources: vec![name(TABLE_AS_SOURCE)] };
    assert!(pair.ask(passed_over).is_ok(), "a batch that waited for a table would wait for ever");

    let append = Append {
        segment: segment(),
        writer: WriterId(1),
        data: Bytes::from_static(b"x"),
        event_count: 1,
        previous: None,
        number: 1,
        expected_length: None,
    };
    let (stream, range) = (|| name(STREAM), ScanRange::default());
    for refused in [
        Request::Append(append),
        Request::Seal { segment: segment() },
        Request::Truncate { segment: segment(), offset: 1 },
        Request::Merge { target: segment(), source: name(SOURCE), updates: Vec::new() },
        Request::Merge { target: stream(), source: name(TABLE_AS_SOURCE), updates: Vec::new() },
        Request::MergeBatch { target: segment(), sources: vec![name(SOURCE)] },
        update(STREAM),
        Request::TableGet { segment: stream(), keys: vec![key.clone()] },
        Request::TableScan { segment: stream(), range, count_max: 10, keys_only: false },
        Request::TableDelta { segment: stream(), from: 0, count_max: 10 },
        Request::TableInfo { segment: stream() },
        Request::DeleteTable { segment: stream(), must_be_empty: false },
    ] {
        assert_eq!(pair.ask(refused.clone()).unwrap_err(), Refusal::WrongKind, "{refused:?}");
    }

    pair.ask(Request::Delete { segment: segment() }).unwrap();
    assert_eq!(pair.ask(Request::TableInfo { segment: segment() }).unwrap_err(), Refusal::NoSuchSegment);
}
