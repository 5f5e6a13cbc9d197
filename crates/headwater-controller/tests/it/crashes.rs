//! Every port call of two long histories fails once, or is the last one of its process.
//!
//! The history goes on as a client would: it repeats a call that was not answered, against the next process if the old
//! one died. At the end nothing that was promised may be missing, doubled or left over.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use headwater_controller::model::{
    ControllerError, CreateGroup, CreateScope, CreateStream, CreateTable, CreatedTransaction, DeleteGroup, DeleteScope,
    DeleteStream, DeleteTable, EndTransaction, Group, GroupRetention, MoveSubscriber, NoteTime, RetentionKind,
    RetentionPolicy, Scale, ScaleProgress, ScalingKind, ScalingPolicy, StreamConfig, StreamCut, TableConfig,
    TransactionState, UpdateGroup, UpdateStream,
};
use headwater_types::{Name, ScopedStream, SegmentId};

use crate::memory::Fault;
use crate::support::{World, assert_covers_key_space, group_config, id, scope, stream};

/// More than any call needs in these histories; one that is asked more often goes round in circles.
const ATTEMPTS: usize = 20;

/// Runs the call until it is answered. A process that may die and does not answer twice in a row is replaced; any other
/// has to recover by itself from a call that failed once.
macro_rules! ask {
    ($world:expr, |$controller:ident| $call:expr) => {{
        let mut answer = None;
        for attempt in 0..ATTEMPTS {
            let $controller = $world.controller.clone();
            match $call.await {
                Err(ControllerError::Unavailable(_)) if attempt % 2 == 1 && is_mortal($world) => {
                    restart($world).await;
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

fn is_mortal(world: &World) -> bool {
    matches!(world.link.fault(), Some(Fault::CrashBefore(_) | Fault::CrashAfter(_)))
}

async fn restart(world: &mut World) {
    world.restart(None);
    world.controller.recover().await.expect("the next process has no faults");
}

async fn wait_for(world: &mut World, t: &ScopedStream, transaction: &CreatedTransaction, wanted: TransactionState) {
    for round in 0..2000 {
        if ask!(world, |c| c.transaction_state(t, transaction.id)) == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        // A process that died on its way does not come back by itself.
        if round % 100 == 99 && is_mortal(world) {
            restart(world).await;
        }
    }
    panic!("transaction never became {wanted:?}");
}

async fn scale(world: &mut World, t: &ScopedStream, seal: &[SegmentId], new: &[(f64, f64)]) {
    let answer = ask!(world, |c| c.scale(t, seal.to_vec(), new.to_vec()));
    // A request that was not answered may have happened.
    assert!(matches!(answer, Scale::Started { .. } | Scale::PreconditionFailed), "{answer:?}");
    let Scale::Started { epoch, .. } = answer else { return };
    for round in 0..2000 {
        check_invariants(world, t).await;
        if ask!(world, |c| c.check_scale(t, epoch)) == ScaleProgress::Success {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        if round % 100 == 99 && is_mortal(world) {
            restart(world).await;
        }
    }
    panic!("the scale never ended");
}

/// What holds at every moment, whatever is under way.
async fn check_invariants(world: &mut World, t: &ScopedStream) {
    let current = ask!(world, |c| c.current_segments(t));
    assert_covers_key_space(&current);
    for segment in &current {
        assert!(world.store.segment(t.segment(segment.id).as_str()).is_some(), "{} is listed and exists", segment.id);
    }
    let mut epoch = 0;
    loop {
        let controller = world.controller.clone();
        let segments = match controller.epoch_segments(t, epoch).await {
            Ok(segments) => segments,
            Err(ControllerError::NotFound(_)) => break,
            Err(_) if is_mortal(world) => {
                restart(world).await;
                continue;
            }
            Err(_) => continue,
        };
        assert_covers_key_space(&segments);
        for segment in &segments {
            let successors = ask!(world, |c| c.successors(t, segment.id));
            let stored = world.store.segment(t.segment(segment.id).as_str());
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

async fn open(world: &mut World, t: &ScopedStream, text: &str) -> CreatedTransaction {
    let transaction = ask!(world, |c| c.create_transaction(t, 600_000));
    for parent in &transaction.segments {
        let name = t.transaction_segment(parent.id, transaction.id);
        assert!(world.store.append(name.as_str(), text.as_bytes()), "{name} takes events");
    }
    transaction
}

/// How often a text stands in the segments of the stream that a reader can reach.
fn occurrences(world: &World, t: &ScopedStream, text: &str) -> usize {
    let prefix = format!("{t}/");
    let names = world.store.segment_names();
    let names = names.iter().filter(|name| name.starts_with(&prefix) && !name.contains("#transaction."));
    names
        .map(|name| {
            let bytes = world.store.segment(name).unwrap().bytes;
            String::from_utf8(bytes).unwrap().matches(text).count()
        })
        .sum()
}

/// Once every note of work was looked at, all that is there is the system's own.
async fn assert_nothing_is_left(world: &mut World) {
    restart(world).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(world.store.segment_names(), Vec::<String>::new());
    let tables: BTreeSet<String> = world.store.table_names().into_iter().collect();
    let expected =
        ["counters", "deleted", "retention", "scaling", "scope/_system", "scopes", "times", "work"].map(str::to_owned);
    assert_eq!(tables, expected.into());
    assert_eq!(world.store.table_len("scopes"), 1);
    for index in ["retention", "scaling", "times", "work"] {
        assert_eq!(world.store.table_len(index), 0, "{index}");
    }
}

/// The history. Returns the port calls of its first process.
async fn run(fault: Option<Fault>) -> u64 {
    let mut world = World::unrecovered(fault);
    let link = Arc::clone(&world.link);
    let world = &mut world;
    if world.controller.recover().await.is_err() {
        restart(world).await;
    }
    let t = stream("t");

    let created = ask!(world, |c| c.create_scope("s"));
    assert!(matches!(created, CreateScope::Success | CreateScope::Exists));
    let tagged = StreamConfig { tags: vec!["tag".into()], ..StreamConfig::new(ScalingPolicy::fixed(2)) };
    let created = ask!(world, |c| c.create_stream("s", "t", tagged.clone()));
    assert!(matches!(created, CreateStream::Success | CreateStream::Exists));
    assert!(world.store.segment("s/_MARKt/0.#epoch.0").is_some());
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
    assert_eq!(occurrences(world, &t, "[rolled]"), rolled.segments.len(), "once in each of its segments");
    assert_eq!(occurrences(world, &t, "[plain]"), plain.segments.len());
    assert_eq!(occurrences(world, &t, "[aborted]"), 0);

    let current = ask!(world, |c| c.current_segments(&t));
    let cut: StreamCut = current.iter().map(|segment| (segment.id, 0)).collect();
    let truncated = ask!(world, |c| c.truncate_stream(&t, cut.clone()));
    assert_eq!(truncated, UpdateStream::Success);
    assert_eq!(ask!(world, |c| c.head_segments(&t)), cut);
    assert!(world.store.segment("s/t/0.#epoch.0").is_none());
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
    assert_eq!(occurrences(world, &t, "[last]"), last.segments.len());
    assert_eq!(occurrences(world, &t, "[left]"), 0);
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
    link.calls()
}

/// The history of what is not a stream: tables, groups, and a scope that goes with everything in it.
async fn run_items(fault: Option<Fault>) -> u64 {
    let mut world = World::unrecovered(fault);
    let link = Arc::clone(&world.link);
    let world = &mut world;
    if world.controller.recover().await.is_err() {
        restart(world).await;
    }
    let (t, group, table) = (stream("t"), Name::parse("g").unwrap(), Name::parse("k").unwrap());
    ask!(world, |c| c.create_scope("s"));
    // With a place in every index.
    let scaling = ScalingPolicy { kind: ScalingKind::Events, target_rate: 1000, scale_factor: 2, min_segments: 2 };
    let retention = RetentionPolicy { kind: RetentionKind::Time, keep: i64::MAX, keep_max: i64::MAX };
    let policies = StreamConfig { retention: Some(retention), ..StreamConfig::new(scaling) };
    ask!(world, |c| c.create_stream("s", "t", policies.clone()));
    assert_eq!(world.store.table_len("scaling") + world.store.table_len("retention"), 2);

    let config = TableConfig { partitions: 2, primary_key_bytes: 4, secondary_key_bytes: 4, rollover_bytes: 0 };
    let created = ask!(world, |c| c.create_table("s", "k", config));
    assert!(matches!(created, CreateTable::Success | CreateTable::Exists), "{created:?}");
    assert_eq!(ask!(world, |c| c.table_configuration(&scope(), &table)), Some(config));
    assert_eq!(world.store.segment("s/k_kvtable/1.#epoch.0").unwrap().key_bytes, Some(8));

    let configured = group_config(&[&t], GroupRetention::Manual);
    let created = ask!(world, |c| c.create_group("s", "g", 7, configured.clone()));
    assert_eq!(created, CreateGroup::Group(Group { id: 7, generation: 0, config: configured }));
    assert!(world.store.segment("s/_RGg/0.#epoch.0").is_some());
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
    assert!(world.store.segment("s/k_kvtable/0.#epoch.0").is_none());
    ask!(world, |c| c.create_table("s", "k", config));
    assert!(world.store.segment("s/k_kvtable/3.#epoch.0").is_some(), "numbers go on");
    let configured = group_config(&[&t], GroupRetention::Automatic);
    ask!(world, |c| c.create_group("s", "h", 9, configured.clone()));
    let deleted = ask!(world, |c| c.delete_group(&scope(), &group, Some(7)));
    assert!(matches!(deleted, DeleteGroup::Success | DeleteGroup::NotFound));
    assert!(world.store.segment("s/_RGg/0.#epoch.0").is_none());

    let noted = ask!(world, |c| c.note_time(&t, "w", 5, cut.clone()));
    assert_eq!(noted, NoteTime::Success);
    let left = open(world, &t, "[left]").await;
    assert!(!left.segments.is_empty());
    ask!(world, |c| c.delete_scope_recursive(&scope()));
    // An answer that says it is under way says nothing about its end.
    for round in 0..2000 {
        if world.store.table_len("scopes") == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        if round % 100 == 99 && is_mortal(world) {
            restart(world).await;
        }
    }
    assert_nothing_is_left(world).await;
    link.calls()
}

/// Each history per port call and kind of fault.
fn run_all(fault: impl Fn(u64) -> Fault) {
    run_each(&fault, run);
    run_each(&fault, run_items);
}

fn run_each<R: Future<Output = u64>>(fault: &impl Fn(u64) -> Fault, run: impl Fn(Option<Fault>) -> R) {
    let mut at = 1;
    loop {
        let fault = fault(at);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let calls = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(run(Some(fault)))));
        let calls = calls.unwrap_or_else(|panic| {
            eprintln!("with {fault:?}");
            std::panic::resume_unwind(panic)
        });
        if calls < at {
            assert!(at > 100, "the history has only {at} calls");
            return;
        }
        at += 1;
    }
}

#[test]
fn the_histories_work_without_faults() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(run(None));
    runtime.block_on(run_items(None));
}

#[test]
fn any_call_may_fail_once_without_effect() {
    run_all(Fault::OnceBefore);
}

#[test]
fn any_call_may_take_effect_and_lose_its_answer() {
    run_all(Fault::OnceAfter);
}

#[test]
fn the_process_may_die_before_any_call() {
    run_all(Fault::CrashBefore);
}

#[test]
fn the_process_may_die_after_any_call() {
    run_all(Fault::CrashAfter);
}
