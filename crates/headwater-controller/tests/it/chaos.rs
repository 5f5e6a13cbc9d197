//! Many callers at once, on a process that dies again and again (T8 and T9 of `docs/internals/promises.md`). Which call
//! ends when, and where a process dies, comes from the seed, so that a seed that fails fails again.
//!
//! Streams are split and merged all the time; transactions are opened, kept alive, ended, and ended again by requests
//! that come twice or too late; writers of single keys follow the segments as they are sealed. At the end every key's
//! events stand on its way through the stream in the order they were acknowledged, and every transaction is there whole,
//! in one piece and once, or not at all. The wall clock jumps all the while (T20), and nobody notices.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use headwater_controller::Controller;
use headwater_controller::model::{
    ControllerError, EndTransaction, Ping, Scale, ScalingKind, ScalingPolicy, SegmentRange, StreamConfig,
    TransactionState, UpdateStream,
};
use headwater_types::{ScopedStream, SegmentId, TransactionId};

use crate::memory::{Fault, Store, mix};
use crate::support::{World, assert_covers_key_space};

/// Processes per run; all but the last die.
const LIVES: u64 = 6;
/// Callers at once.
const CALLERS: usize = 4;
/// Keys whose way through the stream is walked at the end.
const KEYS: [f64; 5] = [0.0, 0.24, 0.5, 0.77, 0.999];

/// How far the wall clock is wrong now and then, in milliseconds.
const JUMPS_MS: [i64; 6] = [0, 3_600_000, 172_800_000, 315_360_000_000, -86_400_000, -315_360_000_000];

#[derive(Debug)]
struct Ended {
    segments: usize,
    accepted: Option<EndTransaction>,
    commit: bool,
}

type Transactions = BTreeMap<TransactionId, Ended>;

/// Writes the events of one key, through all processes.
#[derive(Debug)]
struct Writer {
    key: f64,
    /// Events that were acknowledged.
    acknowledged: usize,
    /// The segment the last one went to.
    at: Option<SegmentId>,
}

struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = mix(self.0);
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

/// One caller's life in one process. Ends when the process does.
async fn call_at_random(
    controller: Controller,
    store: Store,
    jump: Arc<AtomicI64>,
    t: ScopedStream,
    mut chance: Chance,
    writer: &mut Writer,
) -> Transactions {
    let mut transactions = Transactions::new();
    for _ in 0..16 {
        if chance.below(4) == 0 {
            jump.store(JUMPS_MS[chance.below(JUMPS_MS.len())], Ordering::Relaxed);
        }
        let outcome = match chance.below(8) {
            0 | 1 => scale_at_random(&controller, &t, &mut chance).await,
            2 => update_at_random(&controller, &t, &mut chance).await,
            3..6 => transact(&controller, &store, &t, &mut chance, &mut transactions).await,
            _ => writer.write(&controller, &store, &t, 1 + chance.below(6)).await,
        };
        match outcome {
            Ok(()) => {}
            Err(ControllerError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("{error}"),
        }
    }
    transactions
}

impl Writer {
    /// Appends some events, as a client does: to the segment it knows until that is sealed, then to the successor that
    /// has the key.
    async fn write(
        &mut self,
        controller: &Controller,
        store: &Store,
        t: &ScopedStream,
        events: usize,
    ) -> Result<(), ControllerError> {
        let mut left = events;
        while left > 0 {
            let at = match self.at {
                Some(at) => at,
                None => at_key(&controller.current_segments(t).await?, self.key),
            };
            self.at = Some(at);
            let event = format!("<{} {}>", self.key, self.acknowledged);
            if store.append(t.segment(at).as_str(), event.as_bytes()) {
                self.acknowledged += 1;
                left -= 1;
                tokio::task::yield_now().await;
                continue;
            }
            let successors = controller.successors(t, at).await?;
            assert!(!successors.is_empty(), "{at} takes no events and nothing follows it");
            let successors: Vec<_> = successors.iter().map(|successor| successor.segment).collect();
            self.at = Some(at_key(&successors, self.key));
        }
        Ok(())
    }
}

async fn scale_at_random(
    controller: &Controller,
    t: &ScopedStream,
    chance: &mut Chance,
) -> Result<(), ControllerError> {
    let current = controller.current_segments(t).await?;
    assert_covers_key_space(&current);
    let from = chance.below(current.len());
    let to = (from + 1 + chance.below(3)).min(current.len());
    let (low, high) = (current[from].range.low(), current[to - 1].range.high());
    let pieces = 1 + chance.below(3);
    let bound = |i: usize| if i == pieces { high } else { low + (high - low) / pieces as f64 * i as f64 };
    let new: Vec<_> = (0..pieces).map(|i| (bound(i), bound(i + 1))).collect();
    let seal = current[from..to].iter().map(|segment| segment.id).collect();
    match controller.scale(t, seal, new).await? {
        Scale::Started { .. } | Scale::Failure | Scale::PreconditionFailed => Ok(()),
    }
}

async fn update_at_random(
    controller: &Controller,
    t: &ScopedStream,
    chance: &mut Chance,
) -> Result<(), ControllerError> {
    let min_segments = i32::try_from(1 + chance.below(6)).unwrap();
    let kind = ScalingKind::Events;
    let policy = ScalingPolicy { kind, target_rate: 1, scale_factor: 2, min_segments };
    let updated = controller.update_stream(t, StreamConfig::new(policy)).await?;
    assert_eq!(updated, UpdateStream::Success);
    Ok(())
}

async fn transact(
    controller: &Controller,
    store: &Store,
    t: &ScopedStream,
    chance: &mut Chance,
    transactions: &mut Transactions,
) -> Result<(), ControllerError> {
    let created = controller.create_transaction(t, 600_000).await?;
    assert_covers_key_space(&created.segments);
    for parent in &created.segments {
        let name = t.transaction_segment(parent.id, created.id);
        assert!(store.append(name.as_str(), format!("[{} first]", created.id).as_bytes()), "{name} takes events");
    }
    tokio::task::yield_now().await;
    // Others write to the stream meanwhile, and end transactions of their own.
    for parent in &created.segments {
        let name = t.transaction_segment(parent.id, created.id);
        assert!(store.append(name.as_str(), format!("[{} last]", created.id).as_bytes()), "{name} takes events");
    }
    for turn in 0..chance.below(40) {
        tokio::task::yield_now().await;
        if turn == 20 {
            let pinged = controller.ping_transaction(t, created.id, 600_000).await?;
            assert_eq!(pinged, Ping::Ok, "it is open");
        }
    }
    let commit = chance.below(3) > 0;
    let ended = Ended { segments: created.segments.len(), accepted: None, commit };
    transactions.insert(created.id, ended);
    let end = |commit: bool| async move {
        if commit {
            controller.commit_transaction(t, created.id, String::new(), i64::MIN).await
        } else {
            controller.abort_transaction(t, created.id).await
        }
    };
    // Some requests come twice, the second time while the first is under way or after it.
    let answer = match chance.below(3) {
        0 => {
            let (first, second) = tokio::join!(end(commit), end(commit));
            assert_eq!(second?, EndTransaction::Success, "the same again");
            first
        }
        1 => {
            let first = end(commit).await;
            // Its opposite, too late.
            let late = end(!commit).await?;
            assert!(first.is_err() || late != EndTransaction::Success, "ended twice: {late:?}");
            first
        }
        _ => end(commit).await,
    };
    let accepted = answer?;
    assert_eq!(accepted, EndTransaction::Success, "nobody else ends it");
    transactions.get_mut(&created.id).expect("inserted above").accepted = Some(accepted);
    Ok(())
}

fn at_key(segments: &[SegmentRange], key: f64) -> SegmentId {
    let range = |segment: &&SegmentRange| segment.range.low() <= key && key < segment.range.high();
    segments.iter().find(range).expect("the key space is covered").id
}

async fn run(seed: u64) {
    let (mut world, t) = World::with_stream(3).await;
    let mut chance = Chance(seed);
    let mut transactions = Transactions::new();
    let mut writers: Vec<_> =
        KEYS.into_iter().take(CALLERS).map(|key| Writer { key, acknowledged: 0, at: None }).collect();
    for life in 0..LIVES {
        let at = 30 + chance.below(250) as u64;
        let fault = if chance.below(2) == 0 { Fault::CrashBefore(at) } else { Fault::CrashAfter(at) };
        world.restart_jittery((life + 1 < LIVES).then_some(fault), mix(seed ^ life) | 1);
        if world.controller.recover().await.is_err() {
            continue;
        }
        let callers: Vec<_> = (0_u64..)
            .zip(writers.drain(..))
            .map(|(caller, mut writer)| {
                let chance = Chance(mix(seed ^ (life << 8) ^ (caller << 16)));
                let (controller, store, t) = (world.controller.clone(), world.store.clone(), t.clone());
                let jump = Arc::clone(&world.jump);
                tokio::spawn(async move {
                    // A writer that was a process of its own, or one that died with the server's.
                    writer.at = writer.at.filter(|_| caller % 2 == 0);
                    (call_at_random(controller, store, jump, t, chance, &mut writer).await, writer)
                })
            })
            .collect();
        for caller in callers {
            let (ended, writer) = caller.await.unwrap();
            transactions.extend(ended);
            writers.push(writer);
        }
    }
    assert_eq!(world.controller.seal_stream(&t).await.unwrap(), UpdateStream::Success);
    assert!(writers.iter().map(|writer| writer.acknowledged).sum::<usize>() > 10, "{writers:?}");
    check(&world, &t, &transactions, &writers).await;
}

async fn check(world: &World, t: &ScopedStream, transactions: &Transactions, writers: &[Writer]) {
    let controller = &world.controller;
    let mut epochs = Vec::new();
    while let Ok(segments) = controller.epoch_segments(t, i32::try_from(epochs.len()).unwrap()).await {
        assert_covers_key_space(&segments);
        epochs.push(segments);
    }
    // The way of a reader is the way of the epochs.
    for key in KEYS {
        let mut expected: Vec<SegmentId> = epochs.iter().map(|segments| at_key(segments, key)).collect();
        expected.dedup();
        let mut walked = vec![expected[0]];
        loop {
            let last = *walked.last().expect("it has one element");
            let successors = controller.successors(t, last).await.unwrap();
            if successors.is_empty() {
                break;
            }
            assert!(successors.iter().all(|successor| successor.predecessors.contains(&last)));
            let segments: Vec<_> = successors.iter().map(|successor| successor.segment).collect();
            walked.push(at_key(&segments, key));
        }
        assert_eq!(walked, expected, "key {key}");
        let Some(writer) = writers.iter().find(|writer| writer.key == key) else { continue };
        // A reader that goes this way sees them all, once, in order.
        let seen: String = walked.iter().map(|id| world.bytes(t, *id)).collect();
        let seen = seen.split('<').filter_map(|text| text.split_once('>')).map(|(event, _)| event);
        let seen: Vec<&str> = seen.filter(|event| event.starts_with(&format!("{key} "))).collect();
        let written: Vec<String> = (0..writer.acknowledged).map(|number| format!("{key} {number}")).collect();
        assert_eq!(seen, written);
    }
    let segments: Vec<(String, Vec<u8>)> = world
        .store
        .segment_names()
        .into_iter()
        .filter(|name| name.starts_with(&format!("{t}/")))
        .map(|name| (name.clone(), world.store.segment(&name).expect("it was listed").bytes))
        .collect();
    assert!(segments.iter().all(|(name, _)| !name.contains("#transaction.")), "no transaction is left");
    let content: String = segments.into_iter().map(|(_, bytes)| String::from_utf8(bytes).unwrap()).collect();
    for (id, ended) in transactions {
        let state = controller.transaction_state(t, *id).await.unwrap();
        let found = content.matches(&format!("[{id} ")).count();
        let whole = content.matches(&format!("[{id} first][{id} last]")).count();
        assert_eq!(found, 2 * whole, "{id} is in one piece wherever it is");
        match (state, ended.accepted, ended.commit) {
            (TransactionState::Committed, _, true) => assert_eq!(whole, ended.segments, "{id} {ended:?}"),
            (TransactionState::Aborted, None, _) | (TransactionState::Aborted, _, false) => assert_eq!(found, 0),
            other => panic!("{id} is {other:?}"),
        }
    }
}

fn run_seeds(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let outcome = std::panic::catch_unwind(|| runtime.block_on(run(seed)));
        if let Err(panic) = outcome {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn callers_at_once_and_processes_that_die_lose_and_double_nothing() {
    let slow = std::env::var_os("HEADWATER_SLOW").is_some();
    run_seeds(0..if slow { 5_000 } else { 100 });
}
