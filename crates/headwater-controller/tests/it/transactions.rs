//! Transactions, with time under the test's control.

use std::time::Duration;

use headwater_controller::model::{
    ControllerError, CreateScope, CreatedTransaction, EndTransaction, Ping, ScalingPolicy, StreamConfig,
    TransactionState, UpdateStream,
};
use headwater_types::{ScopedStream, SegmentId, TransactionId};

use crate::support::{World, assert_covers_key_space, id, stream};

const LEASE_MS: i64 = 10_000;

async fn open(world: &World, stream: &ScopedStream) -> CreatedTransaction {
    world.controller.create_transaction(stream, LEASE_MS).await.unwrap()
}

/// What a writer does with a transaction: appends to each of its segments, under the names the answer gave.
fn write(world: &World, stream: &ScopedStream, transaction: &CreatedTransaction, text: &str) {
    for parent in &transaction.segments {
        let name = stream.transaction_segment(parent.id, transaction.id);
        assert!(world.store.append(name.as_str(), text.as_bytes()), "{name} takes events");
    }
}

async fn commit(world: &World, stream: &ScopedStream, id: TransactionId) {
    let accepted = world.controller.commit_transaction(stream, id, "w".into(), i64::MIN).await.unwrap();
    assert_eq!(accepted, EndTransaction::Success);
}

fn transaction_segments(world: &World) -> Vec<String> {
    world.store.segment_names().into_iter().filter(|name| name.contains("#transaction.")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_committed_transaction_is_in_every_segment_and_an_aborted_one_in_none() {
    let (world, t) = World::with_stream(2).await;
    let (first, second) = (open(&world, &t).await, open(&world, &t).await);
    assert!(first.id < second.id, "ids grow");
    assert!(first.id.halves().1 >= 0 && second.id.halves().1 >= 0, "the low half keeps its sign bit clear");
    assert_covers_key_space(&first.segments);
    write(&world, &t, &first, "first");
    write(&world, &t, &second, "second");
    assert_eq!(world.bytes(&t, id(0, 0)), "", "invisible before the commit");
    commit(&world, &t, first.id).await;
    commit(&world, &t, first.id).await;
    assert_eq!(world.controller.abort_transaction(&t, second.id).await.unwrap(), EndTransaction::Success);
    assert_eq!(world.controller.abort_transaction(&t, second.id).await.unwrap(), EndTransaction::Success);
    world.state_becomes(&t, first.id, TransactionState::Committed).await;
    world.state_becomes(&t, second.id, TransactionState::Aborted).await;
    assert_eq!(world.bytes(&t, id(0, 0)), "first");
    assert_eq!(world.bytes(&t, id(1, 0)), "first");
    assert_eq!(transaction_segments(&world), Vec::<String>::new());
    commit(&world, &t, first.id).await;
    let refused = world.controller.abort_transaction(&t, first.id).await.unwrap();
    assert_eq!(refused, EndTransaction::Failure);
    let refused = world.controller.commit_transaction(&t, second.id, String::new(), 5).await.unwrap();
    assert_eq!(refused, EndTransaction::Failure);
    let listed = world.controller.completed_transactions(&t).await.unwrap();
    assert_eq!(listed.len(), 2);
    assert!(listed.contains(&(first.id, TransactionState::Committed)));
    assert!(listed.contains(&(second.id, TransactionState::Aborted)));
}

#[tokio::test(start_paused = true)]
async fn commits_keep_the_order_in_which_they_were_accepted() {
    let (world, t) = World::with_stream(1).await;
    let mut transactions = Vec::new();
    for _ in 0..130 {
        transactions.push(open(&world, &t).await);
    }
    transactions.reverse();
    let mut expected = String::new();
    for (number, transaction) in transactions.iter().enumerate() {
        write(&world, &t, transaction, &format!("[{number}]"));
        expected.push_str(&format!("[{number}]"));
    }
    for transaction in &transactions {
        commit(&world, &t, transaction.id).await;
    }
    for transaction in &transactions {
        world.state_becomes(&t, transaction.id, TransactionState::Committed).await;
    }
    assert_eq!(world.bytes(&t, id(0, 0)), expected);
}

#[tokio::test(start_paused = true)]
async fn what_is_unknown_is_answered_as_unknown() {
    let (world, t) = World::with_stream(1).await;
    let nobody = TransactionId(7);
    let (controller, missing) = (&world.controller, stream("x"));
    assert_eq!(controller.transaction_state(&t, nobody).await.unwrap(), TransactionState::Unknown);
    assert_eq!(controller.transaction_state(&missing, nobody).await.unwrap(), TransactionState::Unknown);
    assert_eq!(controller.ping_transaction(&t, nobody, LEASE_MS).await.unwrap(), Ping::Unknown);
    assert_eq!(controller.ping_transaction(&missing, nobody, LEASE_MS).await.unwrap(), Ping::Unknown);
    let commit = controller.commit_transaction(&t, nobody, String::new(), 0).await.unwrap();
    assert_eq!(commit, EndTransaction::Failure);
    assert_eq!(controller.abort_transaction(&t, nobody).await.unwrap(), EndTransaction::Failure);
    assert_eq!(controller.abort_transaction(&missing, nobody).await.unwrap(), EndTransaction::StreamNotFound);
    for lease in [9_999, 600_001, -1, i64::MAX] {
        let refused = controller.create_transaction(&t, lease).await;
        assert!(matches!(refused, Err(ControllerError::Invalid(_))), "{lease}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_a_transaction_only_after_half_of_itself_again() {
    let (world, t) = World::with_stream(1).await;
    let transaction = open(&world, &t).await;
    tokio::time::sleep(Duration::from_millis(14_000)).await;
    let state = world.controller.transaction_state(&t, transaction.id).await.unwrap();
    assert_eq!(state, TransactionState::Open, "the Rust client pings only when the lease is about over");
    assert_eq!(world.controller.ping_transaction(&t, transaction.id, LEASE_MS).await.unwrap(), Ping::Ok);
    tokio::time::sleep(Duration::from_millis(14_000)).await;
    let state = world.controller.transaction_state(&t, transaction.id).await.unwrap();
    assert_eq!(state, TransactionState::Open, "the ping counts from its own time");
    tokio::time::sleep(Duration::from_millis(2_000)).await;
    world.state_becomes(&t, transaction.id, TransactionState::Aborted).await;
    assert_eq!(world.controller.ping_transaction(&t, transaction.id, LEASE_MS).await.unwrap(), Ping::Aborted);
    assert_eq!(transaction_segments(&world), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn pings_are_bounded_in_lease_and_in_total_time() {
    let (world, t) = World::with_stream(1).await;
    let transaction = open(&world, &t).await;
    let ping = async |lease| world.controller.ping_transaction(&t, transaction.id, lease).await.unwrap();
    assert_eq!(ping(600_001).await, Ping::LeaseTooLarge);
    for none in [0, -1, i64::MIN] {
        let refused = world.controller.ping_transaction(&t, transaction.id, none).await;
        assert!(matches!(refused, Err(ControllerError::Invalid(_))), "{none}: {refused:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
        let state = world.controller.transaction_state(&t, transaction.id).await.unwrap();
        assert_eq!(state, TransactionState::Open, "a lease of {none} ms ends nothing");
    }
    // 1000 leases of 10 s are all it gets.
    for _ in 0..(10_000_000 / 590_000) {
        assert_eq!(ping(600_000).await, Ping::Ok);
        tokio::time::sleep(Duration::from_millis(590_000)).await;
    }
    assert_eq!(ping(600_000).await, Ping::MaxExecutionTimeExceeded);
    commit(&world, &t, transaction.id).await;
    world.state_becomes(&t, transaction.id, TransactionState::Committed).await;
    for lease in [10_000, 0, -1] {
        assert_eq!(ping(lease).await, Ping::Committed, "how it ended goes before what is wrong with the lease");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_arms_open_transactions_again() {
    let (mut world, t) = World::with_stream(1).await;
    let transaction = open(&world, &t).await;
    world.restart(None);
    world.controller.recover().await.unwrap();
    tokio::time::sleep(Duration::from_millis(14_000)).await;
    let state = world.controller.transaction_state(&t, transaction.id).await.unwrap();
    assert_eq!(state, TransactionState::Open);
    tokio::time::sleep(Duration::from_millis(2_000)).await;
    world.state_becomes(&t, transaction.id, TransactionState::Aborted).await;
    let next = open(&world, &t).await;
    assert!(next.id > transaction.id, "no id is given out twice");
}

#[tokio::test(start_paused = true)]
async fn the_five_hundred_that_were_completed_last_are_listed_newest_first() {
    let (world, t) = World::with_stream(1).await;
    let mut completed = Vec::new();
    for number in 0..520 {
        let transaction = open(&world, &t).await;
        let (ended, state) = match number % 3 {
            0 => (world.controller.abort_transaction(&t, transaction.id).await.unwrap(), TransactionState::Aborted),
            _ => (
                world.controller.commit_transaction(&t, transaction.id, String::new(), i64::MIN).await.unwrap(),
                TransactionState::Committed,
            ),
        };
        assert_eq!(ended, EndTransaction::Success);
        world.state_becomes(&t, transaction.id, state).await;
        completed.push((transaction.id, state));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    completed.reverse();
    completed.truncate(500);
    assert_eq!(world.controller.completed_transactions(&t).await.unwrap(), completed);
}

#[tokio::test(start_paused = true)]
async fn a_completed_transaction_is_forgotten_after_a_day() {
    let (world, t) = World::with_stream(1).await;
    let old = open(&world, &t).await;
    commit(&world, &t, old.id).await;
    world.state_becomes(&t, old.id, TransactionState::Committed).await;
    let before = world.store.table_len("stream/s/t");
    tokio::time::sleep(Duration::from_secs(23 * 3600)).await;
    assert_eq!(world.controller.transaction_state(&t, old.id).await.unwrap(), TransactionState::Committed);
    // Over a day, and all streams are gone through again after 25 hours only.
    tokio::time::sleep(Duration::from_secs(75 * 60)).await;
    assert_eq!(world.store.table_len("stream/s/t"), before, "it is there and not told of any more");
    assert_eq!(world.controller.transaction_state(&t, old.id).await.unwrap(), TransactionState::Unknown);
    assert_eq!(world.controller.completed_transactions(&t).await.unwrap(), vec![]);
    let new = open(&world, &t).await;
    commit(&world, &t, new.id).await;
    world.state_becomes(&t, new.id, TransactionState::Committed).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.store.table_len("stream/s/t"), before, "the old one's records made room");
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_leaves_the_store_also_where_no_transaction_ends_any_more() {
    let (mut world, t) = World::with_stream(1).await;
    world.create("idle", 1).await;
    let empty = world.store.table_len("stream/s/t");
    // More than go at once.
    for number in 0..510 {
        let transaction = open(&world, &t).await;
        match number % 2 {
            0 => commit(&world, &t, transaction.id).await,
            _ => _ = world.controller.abort_transaction(&t, transaction.id).await.unwrap(),
        }
        let state = if number % 2 == 0 { TransactionState::Committed } else { TransactionState::Aborted };
        world.state_becomes(&t, transaction.id, state).await;
    }
    let ended = world.store.table_len("stream/s/t");
    assert_eq!(ended, empty + 2 * 510, "a record of each, and its place in the list");
    world.restart(None);
    world.controller.recover().await.unwrap();
    tokio::time::sleep(Duration::from_secs(20 * 3600)).await;
    assert_eq!(world.store.table_len("stream/s/t"), ended, "they are remembered");
    tokio::time::sleep(Duration::from_secs(11 * 3600)).await;
    assert_eq!(world.store.table_len("stream/s/t"), empty);
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_leaves_the_store_although_another_scope_cannot_be_looked_at() {
    let (world, t) = World::with_stream(1).await;
    assert_eq!(world.controller.create_scope("before").await.unwrap(), CreateScope::Success);
    world.store.make_unreadable("scope/before");
    let empty = world.store.table_len("stream/s/t");
    let transaction = open(&world, &t).await;
    commit(&world, &t, transaction.id).await;
    world.state_becomes(&t, transaction.id, TransactionState::Committed).await;
    assert_eq!(world.store.table_len("stream/s/t"), empty + 2);
    tokio::time::sleep(Duration::from_secs(31 * 3600)).await;
    assert_eq!(world.store.table_len("stream/s/t"), empty);
}

#[tokio::test(start_paused = true)]
async fn a_segment_sealed_before_a_commit_passes_through_it_takes_no_event_away() {
    for foreign in [&b""[..], b"by hand"] {
        sealed_before_a_commit_passes_through(foreign).await;
    }
}

async fn sealed_before_a_commit_passes_through(foreign: &[u8]) {
    let (world, t) = World::with_stream(1).await;
    let transaction = open(&world, &t).await;
    write(&world, &t, &transaction, "kept");
    world.scale(&t, &[id(0, 0)], &[(0.0, 1.0)]).await;
    world.store.create("s/t/0.#epoch.2");
    assert!(world.store.append("s/t/0.#epoch.2", foreign));
    world.store.seal("s/t/0.#epoch.2");
    commit(&world, &t, transaction.id).await;
    world.state_becomes(&t, transaction.id, TransactionState::Committed).await;
    assert_eq!(world.bytes(&t, id(0, 2)), "kept");
    assert_eq!(world.current(&t).await, [id(1, 3)]);
}

#[tokio::test(start_paused = true)]
async fn segments_are_named_by_number_and_transaction_epoch() {
    let (world, t) = World::with_stream(2).await;
    world.scale(&t, &[id(1, 0)], &[(0.5, 0.75), (0.75, 1.0)]).await;
    let transaction = open(&world, &t).await;
    assert_eq!(transaction.id.epoch(), 1);
    let parents: Vec<SegmentId> = transaction.segments.iter().map(|segment| segment.id).collect();
    assert_eq!(parents, vec![id(0, 1), id(2, 1), id(3, 1)], "segment 0 was made in epoch 0 and never in epoch 1");
    write(&world, &t, &transaction, "x");
    commit(&world, &t, transaction.id).await;
    world.state_becomes(&t, transaction.id, TransactionState::Committed).await;
    assert_eq!(world.current(&t).await, vec![id(0, 0), id(2, 1), id(3, 1)], "no roll: the layout is the same");
    assert_eq!(world.bytes(&t, id(0, 0)), "x");
}

#[tokio::test(start_paused = true)]
async fn a_commit_over_a_scale_passes_through_two_epochs() {
    let (world, t) = World::with_stream(2).await;
    let transaction = open(&world, &t).await;
    write(&world, &t, &transaction, "txn");
    world.append(&t, id(0, 0), "before");
    world.scale(&t, &[id(0, 0), id(1, 0)], &[(0.0, 0.3), (0.3, 0.6), (0.6, 1.0)]).await;
    for segment in [id(2, 1), id(3, 1), id(4, 1)] {
        world.append(&t, segment, "after");
    }
    commit(&world, &t, transaction.id).await;
    world.state_becomes(&t, transaction.id, TransactionState::Committed).await;

    let active = vec![id(2, 3), id(3, 3), id(4, 3)];
    assert_eq!(world.current(&t).await, active);
    let passing = world.controller.epoch_segments(&t, 2).await.unwrap();
    assert_covers_key_space(&passing);
    assert_eq!(passing.iter().map(|s| s.id).collect::<Vec<_>>(), vec![id(0, 2), id(1, 2)]);
    for segment in &passing {
        assert_eq!(world.bytes(&t, segment.id), "txn");
        assert!(world.store.segment(t.segment(segment.id).as_str()).unwrap().sealed);
    }
    // Readers of the segments before the roll go through the transaction's layout to the new segments.
    let middle = world.controller.successors(&t, id(3, 1)).await.unwrap();
    let reached: Vec<_> = middle.iter().map(|successor| successor.segment.id).collect();
    assert_eq!(reached, vec![id(0, 2), id(1, 2)]);
    assert!(middle.iter().all(|successor| successor.predecessors.contains(&id(3, 1))));
    assert_eq!(middle[0].predecessors, vec![id(2, 1), id(3, 1)]);
    let last = world.controller.successors(&t, id(1, 2)).await.unwrap();
    assert_eq!(last.iter().map(|s| s.segment.id).collect::<Vec<_>>(), vec![id(3, 3), id(4, 3)]);
    for segment in active {
        world.append(&t, segment, "later");
    }
    // A transaction of the time after the roll has the layout of the scale, so it does not roll.
    let next = open(&world, &t).await;
    assert_eq!(next.id.epoch(), 1);
    write(&world, &t, &next, "next");
    commit(&world, &t, next.id).await;
    world.state_becomes(&t, next.id, TransactionState::Committed).await;
    assert_eq!(world.bytes(&t, id(2, 3)), "laternext");
    // And a scale goes on numbering.
    world.scale(&t, &[id(2, 3)], &[(0.0, 0.3)]).await;
    assert_eq!(world.current(&t).await, vec![id(5, 4), id(3, 3), id(4, 3)]);
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_a_client_sealed_does_not_stop_commits() {
    let (world, t) = World::with_stream(2).await;
    let transaction = open(&world, &t).await;
    write(&world, &t, &transaction, "txn");
    world.store.seal("s/t/1.#epoch.0");
    commit(&world, &t, transaction.id).await;
    world.state_becomes(&t, transaction.id, TransactionState::Committed).await;
    assert_eq!(world.bytes(&t, id(0, 0)), "txn");
    assert_eq!(world.bytes(&t, id(1, 1)), "txn");
    assert_eq!(world.bytes(&t, id(0, 1)), "", "merged once");
    for segment in world.current(&t).await {
        world.append(&t, segment, "open again");
    }
}

#[tokio::test(start_paused = true)]
async fn sealing_aborts_open_transactions_and_commits_accepted_ones() {
    let (world, t) = World::with_stream(1).await;
    let (left, accepted) = (open(&world, &t).await, open(&world, &t).await);
    write(&world, &t, &left, "left");
    write(&world, &t, &accepted, "accepted");
    commit(&world, &t, accepted.id).await;
    assert_eq!(world.controller.seal_stream(&t).await.unwrap(), UpdateStream::Success);
    assert_eq!(world.controller.transaction_state(&t, left.id).await.unwrap(), TransactionState::Aborted);
    assert_eq!(world.controller.transaction_state(&t, accepted.id).await.unwrap(), TransactionState::Committed);
    assert_eq!(world.bytes(&t, id(0, 0)), "accepted");
    assert!(transaction_segments(&world).is_empty());
    assert!(matches!(world.controller.create_transaction(&t, LEASE_MS).await, Err(ControllerError::Invalid(_))));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_opened_behind_the_back_of_a_seal() {
    for _ in 0..20 {
        let (world, t) = World::with_stream(3).await;
        let creators: Vec<_> = (0..10)
            .map(|_| {
                let (controller, t) = (world.controller.clone(), t.clone());
                tokio::spawn(async move { controller.create_transaction(&t, LEASE_MS).await })
            })
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(world.controller.seal_stream(&t).await.unwrap(), UpdateStream::Success);
        for creator in creators {
            if let Ok(created) = creator.await.unwrap() {
                let state = world.controller.transaction_state(&t, created.id).await.unwrap();
                assert_eq!(state, TransactionState::Aborted);
            }
        }
        assert!(transaction_segments(&world).is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn commit_and_abort_that_race_have_one_winner() {
    let (world, t) = World::with_stream(1).await;
    for round in 0..50 {
        let transaction = open(&world, &t).await;
        let (first, second) = (world.controller.clone(), world.controller.clone());
        let (stream, other, id) = (t.clone(), t.clone(), transaction.id);
        let commit = tokio::spawn(async move { first.commit_transaction(&stream, id, String::new(), 0).await });
        let abort = tokio::spawn(async move { second.abort_transaction(&other, id).await });
        let answers = [commit.await.unwrap().unwrap(), abort.await.unwrap().unwrap()];
        let won = answers.iter().filter(|answer| **answer == EndTransaction::Success).count();
        assert_eq!(won, 1, "round {round}: {answers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_transaction_on_the_hot_path_is_one_commit_and_its_segments() {
    let (mut world, t) = World::with_stream(3).await;
    world.restart(None);
    world.controller.recover().await.unwrap();
    open(&world, &t).await;
    let before = world.link.calls();
    open(&world, &t).await;
    assert_eq!(world.link.calls() - before, 1 + 3);
    let before = world.link.calls();
    for _ in 0..10 {
        world.controller.current_segments(&t).await.unwrap();
        world.controller.head_segments(&t).await.unwrap();
        world.controller.epoch_segments(&t, 0).await.unwrap();
    }
    assert_eq!(world.link.calls(), before, "questions about known streams are answered from memory");
}

#[tokio::test(start_paused = true)]
async fn notes_of_work_are_taken_back_when_nothing_is_left() {
    let (world, t) = World::with_stream(1).await;
    let transaction = open(&world, &t).await;
    assert_eq!(world.store.table_len("work"), 1);
    tokio::time::sleep(Duration::from_secs(9)).await;
    commit(&world, &t, transaction.id).await;
    world.state_becomes(&t, transaction.id, TransactionState::Committed).await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(world.store.table_len("work"), 0);
    world.controller.update_stream(&t, StreamConfig::new(ScalingPolicy::fixed(2))).await.unwrap();
    assert_eq!(world.store.table_len("work"), 1);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(world.store.table_len("work"), 0);
}
