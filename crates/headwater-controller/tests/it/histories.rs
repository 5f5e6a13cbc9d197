//! Long histories, as clients make them, on whatever ports and processes there are: a call that was not answered is repeated,
//! against the next process if the old one died. What was promised is looked for on the way and at the end: nothing may be
//! missing, doubled or left over.
//!
//! The controller's tests run them on ports in memory, the simulation on the engine.

use std::collections::BTreeMap;
use std::time::Duration;

use headwater_controller::Controller;
use headwater_controller::model::{
    ControllerError, CreateGroup, CreateScope, CreateStream, CreateTable, CreatedTransaction, DeleteGroup, DeleteScope,
    DeleteStream, DeleteTable, EndTransaction, Group, GroupConfig, GroupCut, GroupRetention, MoveSubscriber, NoteTime,
    RemoveWriter, RetentionKind, RetentionPolicy, Scale, ScaleProgress, ScalingKind, ScalingPolicy, SegmentRange,
    StreamConfig, StreamCut, TableConfig, TransactionState, UpdateGroup, UpdateStream,
};
use headwater_records::Watermark;
use headwater_types::{AttributeId, KeyRange, Name, ScopedStream, SegmentId, attribute};

/// A store, and the processes that work on it one after the other.
pub(crate) trait Processes {
    /// Of the running process.
    fn controller(&self) -> Controller;

    /// Whether the running process dies at some call.
    fn is_mortal(&self) -> bool;

    /// Kills the process. The next one has no faults and is recovered.
    async fn restart(&mut self);

    /// A client's append. False if the segment does not take it.
    async fn append(&self, segment: &str, bytes: &[u8]) -> bool;

    /// Of a segment that is no table.
    async fn content(&self, segment: &str) -> Option<Content>;

    /// An attribute of a segment that exists.
    async fn attribute(&self, segment: &str, id: AttributeId) -> Option<i64>;

    /// Names of all segments that are not the controller's own, tables included.
    async fn segment_names(&self) -> Vec<String>;

    /// The controller's own tables, and how many entries each has.
    async fn tables(&self) -> BTreeMap<String, usize>;
}

/// What a segment holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Content {
    pub(crate) start: u64,
    pub(crate) sealed: bool,
    /// From `start` on.
    pub(crate) bytes: Vec<u8>,
}

/// How often retention looks at the streams of the last history.
pub(crate) const RETENTION_EVERY: Duration = Duration::from_secs(20);

pub(crate) fn stream(name: &str) -> ScopedStream {
    ScopedStream { scope: scope(), stream: Name::parse(name).unwrap() }
}

pub(crate) fn scope() -> Name {
    Name::parse("s").unwrap()
}

/// As a Java client asks for it, unbounded on both sides.
pub(crate) fn group_config(streams: &[&ScopedStream], retention: GroupRetention) -> GroupConfig {
    let unbounded = |stream: &&ScopedStream| GroupCut { stream: (*stream).clone(), cut: StreamCut::new() };
    let cuts: Vec<_> = streams.iter().map(unbounded).collect();
    GroupConfig {
        refresh_ms: 3000,
        checkpoint_every_ms: 30_000,
        checkpoints_max: 3,
        retention,
        starting: cuts.clone(),
        ending: cuts,
    }
}

pub(crate) const fn id(number: i32, epoch: i32) -> SegmentId {
    SegmentId::new(number, epoch)
}

/// Clients compare neighbouring bounds and the last one with equality.
pub(crate) fn assert_covers_key_space(segments: &[SegmentRange]) {
    assert_eq!(segments.first().unwrap().range.low(), KeyRange::FULL.low());
    assert_eq!(segments.last().unwrap().range.high(), KeyRange::FULL.high());
    for pair in segments.windows(2) {
        assert_eq!(pair[0].range.high().to_bits(), pair[1].range.low().to_bits());
    }
}

/// More than any call needs in these histories; one that is asked more often goes round in circles.
const ATTEMPTS: usize = 20;
/// Between two looks at what is about to happen.
const SOON: Duration = Duration::from_millis(20);

/// Runs the call until it is answered. A process that may die and does not answer twice in a row is replaced; any other
/// has to recover by itself from a call that failed once.
macro_rules! ask {
    ($world:expr, |$controller:ident| $call:expr) => {{
        let mut answer = None;
        for attempt in 0..ATTEMPTS {
            let $controller = $world.controller();
            match $call.await {
                Err(ControllerError::Unavailable(_)) if attempt % 2 == 1 && $world.is_mortal() => {
                    $world.restart().await;
                }
                Err(ControllerError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(1)).await,
                other => {
                    answer = Some(other.expect("only unavailability is injected"));
                    break;
                }
            }
        }
        answer.expect("the call is answered in the end")
    }};
}

/// Looks until it is so. A process that died on its way does not come back by itself.
async fn until<P: Processes>(world: &mut P, what: &str, every: Duration, mut is_so: impl AsyncFnMut(&mut P) -> bool) {
    for round in 0..2000 {
        if is_so(world).await {
            return;
        }
        tokio::time::sleep(every).await;
        if round % 100 == 99 && world.is_mortal() {
            world.restart().await;
        }
    }
    panic!("{what} never happened");
}

async fn wait_for(
    world: &mut impl Processes,
    t: &ScopedStream,
    transaction: &CreatedTransaction,
    wanted: TransactionState,
) {
    until(world, "the end of a transaction", SOON, async |world| {
        ask!(world, |c| c.transaction_state(t, transaction.id)) == wanted
    })
    .await;
}

async fn scale(world: &mut impl Processes, t: &ScopedStream, seal: &[SegmentId], new: &[(f64, f64)]) {
    let answer = ask!(world, |c| c.scale(t, seal.to_vec(), new.to_vec()));
    // A request that was not answered may have happened.
    assert!(matches!(answer, Scale::Started { .. } | Scale::PreconditionFailed), "{answer:?}");
    let Scale::Started { epoch, .. } = answer else { return };
    until(world, "the end of a scale", SOON, async |world| {
        check_invariants(world, t).await;
        ask!(world, |c| c.check_scale(t, epoch)) == ScaleProgress::Success
    })
    .await;
}

/// What holds at every moment, whatever is under way.
async fn check_invariants(world: &mut impl Processes, t: &ScopedStream) {
    let current = ask!(world, |c| c.current_segments(t));
    assert_covers_key_space(&current);
    for segment in &current {
        let stored = world.content(t.segment(segment.id).as_str()).await;
        assert!(stored.is_some(), "{} is listed and exists", segment.id);
    }
    let mut epoch = 0;
    loop {
        let controller = world.controller();
        let segments = match controller.epoch_segments(t, epoch).await {
            Ok(segments) => segments,
            Err(ControllerError::NotFound(_)) => break,
            Err(_) if world.is_mortal() => {
                world.restart().await;
                continue;
            }
            Err(_) => continue,
        };
        assert_covers_key_space(&segments);
        for segment in &segments {
            // First: what is sealed by then has successors.
            let stored = world.content(t.segment(segment.id).as_str()).await;
            let successors = ask!(world, |c| c.successors(t, segment.id));
            if successors.is_empty() {
                // Open, or about to be: the next epoch can be asked for before it is the current one.
                let newest = current.iter().map(|open| open.id.epoch).max().unwrap();
                let open = current.iter().any(|open| open.id == segment.id) || segment.id.epoch > newest;
                assert!(open, "{} is closed and has no successors", segment.id);
                assert!(!stored.unwrap().sealed, "{} is sealed and has no successors", segment.id);
                continue;
            }
            for successor in &successors {
                assert!(successor.predecessors.contains(&segment.id));
            }
            let low = successors.iter().map(|s| s.segment.range.low()).fold(f64::MAX, f64::min);
            let high = successors.iter().map(|s| s.segment.range.high()).fold(f64::MIN, f64::max);
            assert!(low <= segment.range.low() && high >= segment.range.high());
        }
        epoch += 1;
    }
    assert!(epoch > 0);
}

async fn open(world: &mut impl Processes, t: &ScopedStream, text: &str) -> CreatedTransaction {
    let transaction = ask!(world, |c| c.create_transaction(t, 600_000));
    for parent in &transaction.segments {
        let name = t.transaction_segment(parent.id, transaction.id);
        assert!(world.append(name.as_str(), text.as_bytes()).await, "{name} takes events");
    }
    transaction
}

async fn exists(world: &impl Processes, segment: &str) -> bool {
    world.segment_names().await.iter().any(|name| name == segment)
}

/// How often a text stands in the segments of the stream that a reader can reach.
async fn occurrences(world: &impl Processes, t: &ScopedStream, text: &str) -> usize {
    let prefix = format!("{t}/");
    let mut count = 0;
    for name in world.segment_names().await {
        if name.starts_with(&prefix) && !name.contains("#transaction.") {
            let bytes = world.content(&name).await.unwrap().bytes;
            count += String::from_utf8(bytes).unwrap().matches(text).count();
        }
    }
    count
}

/// Once every note of work was looked at, all that is there is the system's own.
async fn assert_nothing_is_left(world: &mut impl Processes) {
    world.restart().await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(world.segment_names().await, Vec::<String>::new());
    let expected = [
        ("counters", None),
        ("deleted", None),
        ("retention", Some(0)),
        ("scaling", Some(0)),
        ("scope/_system", None),
        ("scopes", Some(1)),
        ("times", Some(0)),
        ("work", Some(0)),
    ];
    let tables = world.tables().await;
    assert!(tables.keys().map(String::as_str).eq(expected.map(|(name, _)| name)), "{tables:?}");
    for (name, entries) in expected {
        assert!(entries.is_none_or(|entries| tables[name] == entries), "{name}: {tables:?}");
    }
}

async fn begin(world: &mut impl Processes) {
    if world.controller().recover().await.is_err() {
        world.restart().await;
    }
}

/// A stream: transactions, a scale, a truncation, an update, its end.
pub(crate) async fn streams(world: &mut impl Processes) {
    begin(world).await;
    let t = stream("t");

    let created = ask!(world, |c| c.create_scope("s"));
    assert!(matches!(created, CreateScope::Success | CreateScope::Exists));
    let tagged = StreamConfig { tags: vec!["tag".into()], ..StreamConfig::new(ScalingPolicy::fixed(2)) };
    let created = ask!(world, |c| c.create_stream("s", "t", tagged.clone()));
    assert!(matches!(created, CreateStream::Success | CreateStream::Exists));
    assert!(exists(world, "s/_MARKt/0.#epoch.0").await);
    check_invariants(world, &t).await;

    let (rolled, aborted) = (open(world, &t, "[rolled]").await, open(world, &t, "[aborted]").await);
    scale(world, &t, &[id(0, 0)], &[(0.0, 0.25), (0.25, 0.5)]).await;
    let plain = open(world, &t, "[plain]").await;
    for transaction in [&plain, &rolled] {
        let accepted = ask!(world, |c| c.commit_transaction(&t, transaction.id, "w".into(), i64::MIN));
        assert_eq!(accepted, EndTransaction::Success);
    }
    let accepted = ask!(world, |c| c.abort_transaction(&t, aborted.id));
    assert_eq!(accepted, EndTransaction::Success);
    for transaction in [&plain, &rolled] {
        wait_for(world, &t, transaction, TransactionState::Committed).await;
    }
    wait_for(world, &t, &aborted, TransactionState::Aborted).await;
    check_invariants(world, &t).await;
    assert_eq!(occurrences(world, &t, "[rolled]").await, rolled.segments.len(), "once in each of its segments");
    assert_eq!(occurrences(world, &t, "[plain]").await, plain.segments.len());
    assert_eq!(occurrences(world, &t, "[aborted]").await, 0);

    let current = ask!(world, |c| c.current_segments(&t));
    let cut: StreamCut = current.iter().map(|segment| (segment.id, 0)).collect();
    let truncated = ask!(world, |c| c.truncate_stream(&t, cut.clone()));
    assert_eq!(truncated, UpdateStream::Success);
    assert_eq!(ask!(world, |c| c.head_segments(&t)), cut);
    assert!(!exists(world, "s/t/0.#epoch.0").await);
    let config = StreamConfig { tags: vec!["other".into()], ..StreamConfig::new(ScalingPolicy::fixed(5)) };
    let updated = ask!(world, |c| c.update_stream(&t, config.clone()));
    assert_eq!(updated, UpdateStream::Success);
    assert_eq!(ask!(world, |c| c.stream_configuration(&t)), config);
    assert_eq!(ask!(world, |c| c.current_segments(&t)).len(), 5);
    check_invariants(world, &t).await;

    let left = open(world, &t, "[left]").await;
    let last = open(world, &t, "[last]").await;
    let accepted = ask!(world, |c| c.commit_transaction(&t, last.id, String::new(), 5));
    assert_eq!(accepted, EndTransaction::Success);
    let sealed = ask!(world, |c| c.seal_stream(&t));
    assert_eq!(sealed, UpdateStream::Success);
    assert_eq!(ask!(world, |c| c.transaction_state(&t, left.id)), TransactionState::Aborted);
    assert_eq!(ask!(world, |c| c.transaction_state(&t, last.id)), TransactionState::Committed);
    assert_eq!(occurrences(world, &t, "[last]").await, last.segments.len());
    assert_eq!(occurrences(world, &t, "[left]").await, 0);
    assert!(ask!(world, |c| c.current_segments(&t)).is_empty());

    let deleted = ask!(world, |c| c.delete_stream(&t));
    assert!(matches!(deleted, DeleteStream::Success | DeleteStream::NotFound));
    assert!(!ask!(world, |c| c.stream_exists(&t)));
    // Two at first, two by the scale, five by the update.
    let highest = 8;
    let created = ask!(world, |c| c.create_stream("s", "t", StreamConfig::new(ScalingPolicy::fixed(1))));
    assert!(matches!(created, CreateStream::Success | CreateStream::Exists));
    let current = ask!(world, |c| c.current_segments(&t));
    assert!(current[0].id >= id(highest + 1, 0), "{} comes after all numbers used", current[0].id);
    ask!(world, |c| c.seal_stream(&t));
    ask!(world, |c| c.delete_stream(&t));
    let deleted = ask!(world, |c| c.delete_scope(&scope()));
    assert!(matches!(deleted, DeleteScope::Success | DeleteScope::NotFound));

    assert_nothing_is_left(world).await;
}

/// What is not a stream: tables, groups, and a scope that goes with everything in it.
pub(crate) async fn items(world: &mut impl Processes) {
    begin(world).await;
    let (t, group, table) = (stream("t"), Name::parse("g").unwrap(), Name::parse("k").unwrap());
    ask!(world, |c| c.create_scope("s"));
    // With a place in every index.
    let scaling = ScalingPolicy { kind: ScalingKind::Events, target_rate: 1000, scale_factor: 2, min_segments: 2 };
    let retention = RetentionPolicy { kind: RetentionKind::Time, keep: i64::MAX, keep_max: i64::MAX };
    let policies = StreamConfig { retention: Some(retention), ..StreamConfig::new(scaling) };
    ask!(world, |c| c.create_stream("s", "t", policies.clone()));
    let tables = world.tables().await;
    assert_eq!((tables["scaling"], tables["retention"]), (1, 1));

    let config = TableConfig { partitions: 2, primary_key_bytes: 4, secondary_key_bytes: 4, rollover_bytes: 0 };
    let created = ask!(world, |c| c.create_table("s", "k", config));
    assert!(matches!(created, CreateTable::Success | CreateTable::Exists), "{created:?}");
    assert_eq!(ask!(world, |c| c.table_configuration(&scope(), &table)), Some(config));
    assert!(exists(world, "s/k_kvtable/1.#epoch.0").await);

    let configured = group_config(&[&t], GroupRetention::Manual);
    let created = ask!(world, |c| c.create_group("s", "g", 7, configured.clone()));
    assert_eq!(created, CreateGroup::Group(Group { id: 7, generation: 0, config: configured }));
    assert!(exists(world, "s/_RGg/0.#epoch.0").await);
    assert_eq!(ask!(world, |c| c.list_subscribers(&t)), Some(vec!["s/g".to_owned()]));
    let cut: StreamCut = [(id(0, 0), 0), (id(1, 0), 0)].into();
    let moved = ask!(world, |c| c.move_subscriber(&t, "s/g", 7, 0, cut.clone()));
    assert_eq!(moved, MoveSubscriber::Success);
    let configured = group_config(&[&t], GroupRetention::None);
    let updated = ask!(world, |c| c.update_group(&scope(), &group, 7, 0, configured.clone()));
    // An update that was not answered may have happened.
    assert!(matches!(updated, UpdateGroup::Success { generation: 1 } | UpdateGroup::InvalidConfig), "{updated:?}");
    let group_now = ask!(world, |c| c.group(&scope(), &group));
    assert_eq!(group_now, Some(Group { id: 7, generation: 1, config: configured }));
    assert_eq!(ask!(world, |c| c.list_subscribers(&t)), Some(Vec::new()));

    let deleted = ask!(world, |c| c.delete_table(&scope(), &table));
    assert!(matches!(deleted, DeleteTable::Success | DeleteTable::NotFound));
    assert!(!exists(world, "s/k_kvtable/0.#epoch.0").await);
    ask!(world, |c| c.create_table("s", "k", config));
    assert!(exists(world, "s/k_kvtable/3.#epoch.0").await, "numbers go on");
    let configured = group_config(&[&t], GroupRetention::Automatic);
    ask!(world, |c| c.create_group("s", "h", 9, configured.clone()));
    let deleted = ask!(world, |c| c.delete_group(&scope(), &group, Some(7)));
    assert!(matches!(deleted, DeleteGroup::Success | DeleteGroup::NotFound));
    assert!(!exists(world, "s/_RGg/0.#epoch.0").await);

    let noted = ask!(world, |c| c.note_time(&t, "w", 5, cut.clone()));
    assert_eq!(noted, NoteTime::Success);
    let left = open(world, &t, "[left]").await;
    assert!(!left.segments.is_empty());
    ask!(world, |c| c.delete_scope_recursive(&scope()));
    // An answer that says it is under way says nothing about its end.
    until(world, "the end of a scope", SOON, async |world| world.tables().await["scopes"] == 1).await;
    assert_nothing_is_left(world).await;
}

/// Retention, what holds it back, and the time: a subscriber that goes from one segment to the next over a merge, and
/// watermarks of two writers.
pub(crate) async fn retained(world: &mut impl Processes) {
    const KEEP: i64 = 20;
    const MARKS: &str = "s/_MARKt/0.#epoch.0";
    begin(world).await;
    let (t, [a, b, m]) = (stream("t"), [id(1, 1), id(2, 1), id(3, 2)]);
    ask!(world, |c| c.create_scope("s"));
    let retention = RetentionPolicy { kind: RetentionKind::Size, keep: KEEP, keep_max: i64::MAX };
    let config = StreamConfig {
        retention: Some(retention),
        timestamp_aggregation_timeout_ms: 3_600_000,
        ..StreamConfig::new(ScalingPolicy::fixed(1))
    };
    ask!(world, |c| c.create_stream("s", "t", config.clone()));
    ask!(world, |c| c.create_group("s", "g", 7, group_config(&[&t], GroupRetention::Manual)));
    scale(world, &t, &[id(0, 0)], &[(0.0, 0.5), (0.5, 1.0)]).await;

    write(world, &t, a).await;
    write(world, &t, b).await;
    for (writer, time) in [("fast", 150), ("slow", 100)] {
        let noted = ask!(world, |c| c.note_time(&t, writer, time, [(a, 10), (b, 10)].into()));
        assert_eq!(noted, NoteTime::Success);
    }
    until(world, "the first watermark", A_WHILE, async |world| !watermarks(world, MARKS).await.is_empty()).await;
    // Ten bytes less than the policy keeps: nothing of them goes once they were all read.
    stand(world, &t, [(a, 5), (b, 0)].into()).await;
    write(world, &t, a).await;
    write(world, &t, b).await;
    until_head(world, &t, &[(a, 5), (b, 0)].into()).await;

    scale(world, &t, &[a, b], &[(0.0, 1.0)]).await;
    write(world, &t, m).await;
    for (writer, time) in [("fast", 250), ("slow", 200)] {
        assert_eq!(ask!(world, |c| c.note_time(&t, writer, time, [(m, 10)].into())), NoteTime::Success);
    }
    until(world, "the second watermark", A_WHILE, async |world| watermarks(world, MARKS).await.len() > 1).await;
    // It has read A to its end, half of B, and nothing of M.
    stand(world, &t, [(b, 10), (m, -1)].into()).await;
    until_head(world, &t, &[(b, 10), (m, -1)].into()).await;
    assert!(!exists(world, t.segment(a).as_str()).await, "A lies before the head");
    assert_eq!(world.content(t.segment(b).as_str()).await.unwrap().start, 10);

    // What was read goes at a cut that some run has taken down, and enough of it stays.
    until(world, "a truncation at a cut", RETENTION_EVERY, async |world| {
        write(world, &t, m).await;
        let stored = world.content(t.segment(m).as_str()).await.unwrap();
        let end = stored.start + stored.bytes.len() as u64;
        stand(world, &t, [(m, end as i64)].into()).await;
        let head = ask!(world, |c| c.head_segments(&t));
        let at = head.get(&m).copied().unwrap_or(-1);
        assert!(at <= end as i64 - KEEP, "{head:?} of {end}");
        at > 0
    })
    .await;
    assert!(!exists(world, t.segment(b).as_str()).await, "B lies before the head");
    let told: Vec<_> = watermarks(world, MARKS).await.iter().map(|(lower, upper, _)| (*lower, *upper)).collect();
    assert!(told.ends_with(&[(200, 250)]) && told.len() <= 2, "each time once: {told:?}");
    assert!(told.len() == 1 || told[0] == (100, 150), "{told:?}");

    for writer in ["fast", "slow"] {
        let removed = ask!(world, |c| c.remove_writer(&t, writer));
        // A removal that was not answered may have happened, and been noticed.
        assert!(matches!(removed, RemoveWriter::Success | RemoveWriter::UnknownWriter));
    }
    until(world, "the end of the writers", A_WHILE, async |world| world.tables().await["times"] == 0).await;
    ask!(world, |c| c.delete_group(&scope(), &Name::parse("g").unwrap(), None));
    assert_eq!(ask!(world, |c| c.list_subscribers(&t)), Some(Vec::new()));
    ask!(world, |c| c.seal_stream(&t));
    ask!(world, |c| c.delete_stream(&t));
    ask!(world, |c| c.delete_scope(&scope()));
    assert_nothing_is_left(world).await;
}

/// Between two looks at what some task does every ten or twenty seconds.
const A_WHILE: Duration = Duration::from_secs(5);

/// Ten bytes.
async fn write(world: &impl Processes, t: &ScopedStream, segment: SegmentId) {
    assert!(world.append(t.segment(segment).as_str(), b"0123456789").await, "{segment} takes events");
}

async fn stand(world: &mut impl Processes, t: &ScopedStream, cut: StreamCut) {
    assert_eq!(ask!(world, |c| c.move_subscriber(t, "s/g", 7, 0, cut.clone())), MoveSubscriber::Success);
}

/// Waits until the stream begins where the subscriber is, which it does not pass.
async fn until_head(world: &mut impl Processes, t: &ScopedStream, cut: &StreamCut) {
    let mut seen = Vec::new();
    until(world, "a truncation where the subscriber is", A_WHILE, async |world| {
        let head = ask!(world, |c| c.head_segments(t));
        if seen.last() != Some(&head) {
            seen.push(head.clone());
        }
        head == *cut
    })
    .await;
    assert!(seen.len() <= 2, "{seen:?}");
    check_invariants(world, t).await;
}

/// Lower and upper bound of each watermark in the mark segment, and where it begins. The attribute that tells readers where
/// to begin names one of them.
async fn watermarks(world: &impl Processes, segment: &str) -> Vec<(i64, i64, u64)> {
    let Content { start, bytes, .. } = world.content(segment).await.unwrap();
    let (mut found, mut rest) = (Vec::new(), &bytes[..]);
    while let Some((header, behind)) = rest.split_first_chunk::<8>() {
        let length = u64::from_be_bytes(*header) as usize;
        let mark = Watermark::decode(&behind[..length]).expect("each event is a watermark");
        found.push((mark.lower, mark.upper, start + (bytes.len() - rest.len()) as u64));
        rest = &behind[length..];
    }
    assert!(rest.is_empty());
    let from = world.attribute(segment, attribute::REVISION_MARK).await.filter(|from| *from != attribute::NULL);
    let begins = |from: i64| found.iter().any(|(.., at)| i64::try_from(*at) == Ok(from));
    assert!(from.is_none_or(|from| found.is_empty() || begins(from)), "{from:?} in {found:?}");
    found
}
