//! Transactions while the wall clock jumps (P18): it decides nothing about them, whether it jumps while the server runs
//! or while it is away. What retention makes of jumps is in `retention`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use headwater_controller::model::{EndTransaction, Ping, TransactionState};
use headwater_types::{ScopedStream, TransactionId};

use crate::memory::Store;
use crate::support::{World, stream};

const LEASE_MS: i64 = 10_000;
const HOUR_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// The first is believed where the wall clock is asked at all.
const JUMPS_MS: [i64; 5] = [20 * HOUR_MS, 2 * DAY_MS, 3650 * DAY_MS, -2 * DAY_MS, -3650 * DAY_MS];

/// Each jump, while the server runs and while it is away.
fn jumps() -> impl Iterator<Item = (i64, bool)> {
    JUMPS_MS.into_iter().flat_map(|jump_ms| [(jump_ms, false), (jump_ms, true)])
}

async fn seconds(count: u64) {
    tokio::time::sleep(Duration::from_secs(count)).await;
}

async fn hours(count: u64) {
    seconds(3600 * count).await;
}

/// With 23 hours before it more than a day, but not so long that all streams are gone through again, which happens 25
/// hours after a start: what is forgotten is there, and only the next end of its stream makes room.
async fn until_forgotten() {
    seconds(75 * 60).await;
}

async fn jump(world: &mut World, jump_ms: i64, is_away: bool) {
    world.jump.store(jump_ms, Ordering::Relaxed);
    if is_away {
        restart(world).await;
    }
}

async fn restart(world: &mut World) {
    world.restart(None);
    world.controller.recover().await.unwrap();
}

async fn open(world: &World, t: &ScopedStream) -> TransactionId {
    world.controller.create_transaction(t, LEASE_MS).await.unwrap().id
}

async fn committed(world: &World, t: &ScopedStream) -> TransactionId {
    let id = open(world, t).await;
    let accepted = world.controller.commit_transaction(t, id, String::new(), i64::MIN).await.unwrap();
    assert_eq!(accepted, EndTransaction::Success);
    world.state_becomes(t, id, TransactionState::Committed).await;
    id
}

async fn aborted(world: &World, t: &ScopedStream) -> TransactionId {
    let id = open(world, t).await;
    assert_eq!(world.controller.abort_transaction(t, id).await.unwrap(), EndTransaction::Success);
    world.state_becomes(t, id, TransactionState::Aborted).await;
    id
}

async fn state(world: &World, t: &ScopedStream, id: TransactionId) -> TransactionState {
    world.controller.transaction_state(t, id).await.unwrap()
}

async fn ping(world: &World, t: &ScopedStream, id: TransactionId, lease_ms: i64) -> Ping {
    world.controller.ping_transaction(t, id, lease_ms).await.unwrap()
}

async fn listed(world: &World, t: &ScopedStream) -> Vec<(TransactionId, TransactionState)> {
    world.controller.completed_transactions(t).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn no_jump_ends_a_transaction_that_is_pinged() {
    for (jump_ms, is_away) in jumps() {
        let (mut world, t) = World::with_stream(1).await;
        let id = open(&world, &t).await;
        for jump_ms in [jump_ms, 0, jump_ms] {
            jump(&mut world, jump_ms, is_away).await;
            for _ in 0..4 {
                assert_eq!(ping(&world, &t, id, LEASE_MS).await, Ping::Ok, "{jump_ms} {is_away}");
                seconds(14).await;
                assert_eq!(state(&world, &t, id).await, TransactionState::Open, "{jump_ms} {is_away}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_jump_keeps_a_transaction_open_that_nobody_pings() {
    for (jump_ms, is_away) in jumps() {
        let (mut world, t) = World::with_stream(1).await;
        let id = open(&world, &t).await;
        jump(&mut world, jump_ms, is_away).await;
        seconds(14).await;
        assert_eq!(state(&world, &t, id).await, TransactionState::Open, "{jump_ms} {is_away}");
        let shown = world.controller.live_transactions(&t, "", 1).await.unwrap().transactions[0];
        let left_ms = shown.expires_ms - crate::support::BEGIN_MS - jump_ms;
        assert!((14_000..20_000).contains(&left_ms), "people are shown when it ends by the clock they have: {shown:?}");
        seconds(2).await;
        world.state_becomes(&t, id, TransactionState::Aborted).await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_jump_makes_the_longest_time_shorter_or_endless() {
    for (jump_ms, is_away) in jumps() {
        let (mut world, t) = World::with_stream(1).await;
        let id = open(&world, &t).await;
        let mut lived = 0;
        loop {
            match ping(&world, &t, id, 600_000).await {
                Ping::Ok => seconds(500).await,
                Ping::MaxExecutionTimeExceeded => break,
                other => panic!("{other:?} after {lived} s, {jump_ms} {is_away}"),
            }
            lived += 500;
            // Each start forgets what was not written down: here the time since the last ping.
            let round = lived / 500;
            jump(&mut world, if round % 2 == 0 { jump_ms } else { 0 }, is_away && round % 5 == 0).await;
            assert!(lived < 13_000, "1000 leases of 10 s are all it gets, {jump_ms} {is_away}");
        }
        assert!(lived > 10_000 - 600, "{lived} s, {jump_ms} {is_away}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_jump_changes_how_long_an_end_is_remembered() {
    for (jump_ms, is_away) in jumps() {
        let (mut world, t) = World::with_stream(1).await;
        let ended = [
            (committed(&world, &t).await, TransactionState::Committed),
            (aborted(&world, &t).await, TransactionState::Aborted),
        ];
        let newest_first: Vec<_> = ended.into_iter().rev().collect();
        jump(&mut world, jump_ms, is_away).await;
        assert_eq!(listed(&world, &t).await, newest_first, "{jump_ms} {is_away}");
        let before = world.store.table_len("stream/s/t");
        hours(23).await;
        for (id, end) in ended {
            assert_eq!(state(&world, &t, id).await, end, "{jump_ms} {is_away}");
        }
        assert_eq!(listed(&world, &t).await, newest_first, "{jump_ms} {is_away}");
        until_forgotten().await;
        assert_eq!(world.store.table_len("stream/s/t"), before, "{jump_ms} {is_away}");
        for (id, _) in ended {
            assert_eq!(state(&world, &t, id).await, TransactionState::Unknown, "{jump_ms} {is_away}");
        }
        assert_eq!(listed(&world, &t).await, vec![]);
        committed(&world, &t).await;
        seconds(1).await;
        assert_eq!(world.store.table_len("stream/s/t"), before - 2, "two made room for one, {jump_ms} {is_away}");
    }
}

#[tokio::test(start_paused = true)]
async fn days_in_which_the_server_is_away_are_nobodys() {
    for away_ms in [HOUR_MS, 20 * HOUR_MS, 30 * DAY_MS] {
        let (mut world, t) = World::with_stream(1).await;
        let (ended, id) = (committed(&world, &t).await, open(&world, &t).await);
        jump(&mut world, away_ms, true).await;
        seconds(14).await;
        assert_eq!(ping(&world, &t, id, LEASE_MS).await, Ping::Ok, "nobody could ping it for {away_ms} ms");
        assert_eq!(state(&world, &t, ended).await, TransactionState::Committed, "nobody could ask for {away_ms} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn what_ends_after_a_hard_stop_is_listed_before_what_ended_before_it() {
    let (mut world, t) = World::with_stream(1).await;
    let mut expected = Vec::new();
    for _ in 0..3 {
        seconds(50).await;
        expected.insert(0, (committed(&world, &t).await, TransactionState::Committed));
        seconds(50).await;
        expected.insert(0, (committed(&world, &t).await, TransactionState::Committed));
        // The last fifty seconds were not written down.
        restart(&mut world).await;
        expected.insert(0, (committed(&world, &t).await, TransactionState::Committed));
        assert_eq!(listed(&world, &t).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_ping_that_comes_as_the_lease_ends_wins_or_is_told() {
    let (mut won, mut lost) = (0, 0);
    for seed in 1..400 {
        let (mut world, t) = World::with_stream(1).await;
        world.restart_jittery(None, seed);
        world.controller.recover().await.unwrap();
        let id = open(&world, &t).await;
        // The lease and its grace end in the same millisecond.
        seconds(15).await;
        for _ in 0..seed % 9 {
            tokio::task::yield_now().await;
        }
        match ping(&world, &t, id, LEASE_MS).await {
            Ping::Ok => {
                won += 1;
                seconds(14).await;
                assert_eq!(state(&world, &t, id).await, TransactionState::Open, "seed {seed}: it was pinged");
                seconds(2).await;
            }
            Ping::Aborted => lost += 1,
            other => panic!("seed {seed}: {other:?}"),
        }
        world.state_becomes(&t, id, TransactionState::Aborted).await;
    }
    assert!(won > 10 && lost > 10, "{won} won, {lost} lost");
}

/// The first records had all times by the wall clock, which may have been anywhere then and may be anywhere now.
#[tokio::test(start_paused = true)]
async fn transactions_that_were_recorded_by_the_wall_clock_go_on_by_the_time_the_store_is_open() {
    let (left_open, t) = (TransactionId(1 << 96 | 2), stream("t"));
    let ended = [(TransactionId(1), TransactionState::Aborted), (TransactionId(0), TransactionState::Committed)];
    for (jump_ms, is_away) in jumps().chain([(0, false), (0, true)]) {
        let mut world = World::on(Store::parse(include_str!("../golden/0.1.0.store")));
        world.jump.store(if is_away { 0 } else { jump_ms }, Ordering::Relaxed);
        world.controller.recover().await.unwrap();
        jump(&mut world, jump_ms, is_away).await;
        assert_eq!(listed(&world, &t).await, ended, "{jump_ms} {is_away}");
        // Its lease is ten minutes.
        for _ in 0..2 {
            assert_eq!(ping(&world, &t, left_open, 600_000).await, Ping::Ok, "{jump_ms} {is_away}");
            seconds(890).await;
            assert_eq!(state(&world, &t, left_open).await, TransactionState::Open, "{jump_ms} {is_away}");
        }
        seconds(20).await;
        world.state_becomes(&t, left_open, TransactionState::Aborted).await;
        let mut all = vec![(left_open, TransactionState::Aborted)];
        all.extend(ended);
        assert_eq!(listed(&world, &t).await, all, "{jump_ms} {is_away}");
        hours(23).await;
        assert_eq!(listed(&world, &t).await, all, "{jump_ms} {is_away}");
        let before = world.store.table_len("stream/s/t");
        until_forgotten().await;
        assert_eq!(world.store.table_len("stream/s/t"), before, "{jump_ms} {is_away}");
        assert_eq!(listed(&world, &t).await, vec![], "{jump_ms} {is_away}");
        assert_eq!(state(&world, &t, ended[0].0).await, TransactionState::Unknown, "{jump_ms} {is_away}");
        let last = aborted(&world, &t).await;
        seconds(1).await;
        assert_eq!(listed(&world, &t).await, [(last, TransactionState::Aborted)]);
        assert_eq!(world.store.table_len("stream/s/t"), before - 4, "three made room for one, {jump_ms} {is_away}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_short_runs_count_adds_up_if_they_end_in_order() {
    let (mut world, t) = World::with_stream(1).await;
    let id = open(&world, &t).await;
    let mut lived = 0;
    'lives: loop {
        // Shorter than it takes until the clock is written down again by itself.
        for _ in 0..5 {
            seconds(10).await;
            lived += 10;
            match ping(&world, &t, id, LEASE_MS).await {
                Ping::Ok => assert!(lived < 10_100, "a thousand leases are over"),
                Ping::MaxExecutionTimeExceeded => break 'lives,
                other => panic!("{other:?} after {lived} s"),
            }
        }
        world.controller.stop().await;
        restart(&mut world).await;
    }
    assert!(lived > 9_900, "its time was over after {lived} s");
}

/// Ends the run in order, or as `kill -9` does, and begins the next.
async fn begin_next_run(world: &mut World, is_killed: bool) {
    if !is_killed {
        world.controller.stop().await;
    }
    restart(world).await;
}

/// Each run is shorter than a lease, and grants the whole of it.
#[tokio::test(start_paused = true)]
async fn however_short_the_runs_they_end_a_transaction_that_nobody_pings() {
    for is_killed in [false, true] {
        let (mut world, t) = World::with_stream(1).await;
        let id = open(&world, &t).await;
        let mut lived = 0;
        while state(&world, &t, id).await == TransactionState::Open {
            assert!(lived < 13_000, "a thousand leases of 10 s are over, {is_killed}");
            seconds(5).await;
            lived += 5;
            begin_next_run(&mut world, is_killed).await;
        }
        assert!(lived > 10_000, "{lived} s, {is_killed}");
        world.state_becomes(&t, id, TransactionState::Aborted).await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_number_of_starts_takes_from_the_lease_that_the_last_ping_got() {
    for is_killed in [false, true] {
        let (mut world, t) = World::with_stream(1).await;
        let id = open(&world, &t).await;
        let mut lived = 0;
        while ping(&world, &t, id, LEASE_MS).await == Ping::Ok {
            seconds(3).await;
            lived += 3;
            begin_next_run(&mut world, is_killed).await;
        }
        assert!(lived > 9_990, "{lived} s, {is_killed}");
        // Three of the fifteen seconds are over.
        for _ in 0..11 {
            seconds(1).await;
            assert_eq!(state(&world, &t, id).await, TransactionState::Open, "{is_killed}");
            begin_next_run(&mut world, is_killed).await;
        }
        assert_eq!(ping(&world, &t, id, LEASE_MS).await, Ping::MaxExecutionTimeExceeded, "{is_killed}");
        seconds(if is_killed { 15 } else { 2 }).await;
        world.state_becomes(&t, id, TransactionState::Aborted).await;
    }
}
