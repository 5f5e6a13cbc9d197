//! What writers say about time, and the watermarks in the mark stream.

use std::time::Duration;

use headwater_controller::model::{
    ControllerError, EndTransaction, NoteTime, RemoveWriter, ScalingPolicy, StreamConfig, StreamCut, TransactionState,
    UpdateStream,
};
use headwater_types::ScopedStream;

use crate::support::{World, id, stream};

const MARKS: &str = "s/_MARKt/0.#epoch.0";
/// Names the place from which readers begin.
const MARK: u128 = 0x7df9_a874_246c_c9d6_9397_cdd1_9ead_68c5;

/// Lower and upper bound of each watermark, and (segment, offset) of its position.
type Marks = Vec<(i64, i64, Vec<(i64, i64)>)>;

/// Reads the mark stream as a reader of another implementation would.
fn marks(world: &World) -> Marks {
    let bytes = world.store.segment(MARKS).unwrap().bytes;
    let long = |at: usize| i64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    let int = |at: usize| i32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let (mut found, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        assert_eq!(int(at), 0, "type of an event");
        let (end, body) = (at + 8 + int(at + 4), at + 16);
        let count = usize::from(bytes[body + 16]);
        let entry = |n: usize| body + 17 + n * 40;
        let position = (0..count).map(|n| (long(entry(n) + 8), long(entry(n) + 32))).collect();
        found.push((long(body), long(body + 8), position));
        assert_eq!(entry(count), end);
        at = end;
    }
    found
}

fn attribute(world: &World) -> Option<i64> {
    world.store.segment(MARKS).unwrap().attributes.get(&MARK).copied()
}

async fn note(world: &World, t: &ScopedStream, writer: &str, time: i64, position: &[(i32, i64)]) -> NoteTime {
    let position: StreamCut = position.iter().map(|(number, offset)| (id(*number, 0), *offset)).collect();
    world.controller.note_time(t, writer, time, position).await.unwrap()
}

async fn rounds(count: u64) {
    tokio::time::sleep(Duration::from_secs(10 * count + 1)).await;
}

/// With writers that are waited for as long as this.
async fn world(timeout_ms: i64) -> (World, ScopedStream) {
    let (world, t) = World::with_stream(2).await;
    let mut config = StreamConfig::new(ScalingPolicy::fixed(2));
    config.timestamp_aggregation_timeout_ms = timeout_ms;
    assert_eq!(world.controller.update_stream(&t, config).await.unwrap(), UpdateStream::Success);
    (world, t)
}

#[tokio::test(start_paused = true)]
async fn a_watermark_follows_the_slowest_writer() {
    let (world, t) = world(60_000).await;
    assert_eq!(note(&world, &t, "a", 100, &[(0, 10)]).await, NoteTime::Success);
    assert_eq!(note(&world, &t, "b", 200, &[(0, 20), (1, 5)]).await, NoteTime::Success);
    rounds(1).await;
    assert_eq!(marks(&world), vec![(100, 200, vec![(0, 20), (1, 5)])]);
    assert_eq!(attribute(&world), Some(0));
    note(&world, &t, "b", 300, &[(0, 30)]).await;
    rounds(2).await;
    assert_eq!(marks(&world).len(), 1, "a has not gone on");
    note(&world, &t, "a", 250, &[(1, 9)]).await;
    rounds(1).await;
    assert_eq!(marks(&world)[1..], [(250, 300, vec![(0, 30), (1, 9)])]);
    assert_eq!(attribute(&world), Some(0), "readers begin with the one before the last");
    for (writer, time) in [("a", 400), ("b", 400)] {
        note(&world, &t, writer, time, &[]).await;
    }
    rounds(1).await;
    let found = marks(&world);
    assert_eq!(found[2..], [(400, 400, vec![(0, 30), (1, 9)])], "what writers do not name, the last watermark does");
    assert_eq!(attribute(&world), Some(world.store.segment(MARKS).unwrap().bytes.len() as i64 / 3));
}

#[tokio::test(start_paused = true)]
async fn a_silent_writer_is_waited_for_as_long_as_the_stream_says() {
    let (world, t) = world(25_000).await;
    note(&world, &t, "silent", 100, &[]).await;
    note(&world, &t, "busy", 100, &[]).await;
    rounds(1).await;
    note(&world, &t, "busy", 500, &[]).await;
    rounds(2).await;
    assert_eq!(marks(&world).len(), 1);
    rounds(2).await;
    assert_eq!(marks(&world)[1..], [(500, 500, vec![(0, 0), (1, 0)])]);
    // It may come back whenever it likes, with a time of its own.
    assert_eq!(note(&world, &t, "silent", 50, &[]).await, NoteTime::Success);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_writer_that_said_goodbye() {
    let (world, t) = world(i64::MAX).await;
    note(&world, &t, "gone", 100, &[]).await;
    note(&world, &t, "busy", 100, &[]).await;
    rounds(1).await;
    note(&world, &t, "busy", 500, &[]).await;
    rounds(3).await;
    assert_eq!(marks(&world).len(), 1);
    let c = &world.controller;
    assert_eq!(c.remove_writer(&t, "gone").await.unwrap(), RemoveWriter::Success);
    assert_eq!(c.remove_writer(&t, "nobody").await.unwrap(), RemoveWriter::UnknownWriter);
    assert_eq!(c.remove_writer(&stream("none"), "gone").await.unwrap(), RemoveWriter::UnknownWriter);
    rounds(1).await;
    assert_eq!(marks(&world).len(), 2);
    assert_eq!(c.remove_writer(&t, "gone").await.unwrap(), RemoveWriter::UnknownWriter, "forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_goes_back_is_refused_and_nothing_changes() {
    let (world, t) = world(60_000).await;
    note(&world, &t, "a", 100, &[(0, 10)]).await;
    assert_eq!(note(&world, &t, "a", 99, &[(0, 11)]).await, NoteTime::InvalidTime);
    assert_eq!(note(&world, &t, "a", 101, &[(0, 9)]).await, NoteTime::InvalidPosition);
    assert_eq!(note(&world, &t, "a", 101, &[(7, 9)]).await, NoteTime::InvalidPosition, "there is no such segment");
    let far: StreamCut = [(id(0, i32::MAX), 0)].into();
    assert_eq!(world.controller.note_time(&t, "a", 101, far).await.unwrap(), NoteTime::InvalidPosition);
    rounds(1).await;
    assert_eq!(marks(&world), vec![(100, 100, vec![(0, 10), (1, 0)])]);
    let c = &world.controller;
    let missing = c.note_time(&stream("none"), "a", 1, StreamCut::new()).await;
    assert!(matches!(missing, Err(ControllerError::NotFound(_))));
    for writer in ["", &"w".repeat(5000)] {
        let refused = c.note_time(&t, writer, 1, StreamCut::new()).await;
        assert!(matches!(refused, Err(ControllerError::Invalid(_))));
    }
    let internal = c.note_time(&stream("_MARKt"), "a", 1, StreamCut::new()).await;
    assert!(matches!(internal, Err(ControllerError::Invalid(_))));
}

#[tokio::test(start_paused = true)]
async fn a_commit_with_a_time_is_a_writers_word() {
    let (world, t) = world(60_000).await;
    let c = &world.controller;
    let transaction = c.create_transaction(&t, 60_000).await.unwrap();
    for parent in &transaction.segments {
        world.store.append(t.transaction_segment(parent.id, transaction.id).as_str(), b"12345");
    }
    world.append(&t, id(0, 0), "123");
    assert_eq!(c.commit_transaction(&t, transaction.id, "w".into(), 77).await.unwrap(), EndTransaction::Success);
    world.state_becomes(&t, transaction.id, TransactionState::Committed).await;
    rounds(1).await;
    assert_eq!(marks(&world), vec![(77, 77, vec![(0, 8), (1, 5)])]);
}

#[tokio::test(start_paused = true)]
async fn a_watermark_follows_its_stream_over_scales() {
    let (world, t) = World::with_stream(1).await;
    note(&world, &t, "a", 100, &[(0, 10)]).await;
    rounds(1).await;
    world.scale(&t, &[id(0, 0)], &[(0.0, 0.5), (0.5, 1.0)]).await;
    let position: StreamCut = [(id(2, 1), 7)].into();
    assert_eq!(world.controller.note_time(&t, "a", 200, position).await.unwrap(), NoteTime::Success);
    rounds(1).await;
    let found = marks(&world);
    assert_eq!(found[1], (200, 200, vec![(id(1, 1).as_i64(), 0), (id(2, 1).as_i64(), 7)]));
}

#[tokio::test(start_paused = true)]
async fn watermarks_before_the_streams_beginning_go_but_for_the_last() {
    let (world, t) = world(60_000).await;
    let data = world.store.segment("s/t/0.#epoch.0").map_or(0, |segment| segment.bytes.len()) as i64;
    assert_eq!(data, 0);
    world.append(&t, id(0, 0), &"x".repeat(1000));
    world.append(&t, id(1, 0), &"y".repeat(1000));
    let begins = || world.store.segment(MARKS).unwrap().start;
    for round in 1..=8 {
        note(&world, &t, "a", 100 * round, &[(0, 10 * round), (1, 20 * round)]).await;
        rounds(1).await;
    }
    let event = world.store.segment(MARKS).unwrap().bytes.len() as u64 / 8;
    assert_eq!(begins(), 0, "readers of the whole stream need the whole of its time");
    // Between the third and the fourth in one segment, between the fourth and the fifth in the other.
    let cut: StreamCut = [(id(0, 0), 39), (id(1, 0), 85)].into();
    assert_eq!(world.controller.truncate_stream(&t, cut).await.unwrap(), UpdateStream::Success);
    note(&world, &t, "a", 900, &[(0, 90), (1, 180)]).await;
    rounds(1).await;
    assert_eq!(begins(), 2 * event, "the third tells the time at the beginning");
    let calls = world.link.calls();
    note(&world, &t, "a", 1000, &[(0, 100), (1, 200)]).await;
    rounds(1).await;
    let first = world.link.calls() - calls;
    assert_eq!(begins(), 2 * event);
    // Everything is truncated: what readers and the next look begin with stays.
    let cut: StreamCut = [(id(0, 0), 1000), (id(1, 0), 1000)].into();
    assert_eq!(world.controller.truncate_stream(&t, cut).await.unwrap(), UpdateStream::Success);
    for round in 11..=13 {
        note(&world, &t, "a", 100 * round, &[(0, 10 * round), (1, 20 * round)]).await;
        rounds(1).await;
        let from = attribute(&world).unwrap() as u64;
        assert!(begins() <= from && from - begins() <= 2 * event, "{} {from}", begins());
    }
    assert_eq!(marks(&world).len(), 13, "and time goes on");
    assert!(first > 0);
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_where_the_last_run_was() {
    let (mut world, t) = world(60_000).await;
    note(&world, &t, "a", 100, &[]).await;
    rounds(1).await;
    note(&world, &t, "a", 200, &[]).await;
    world.restart(None);
    world.controller.recover().await.unwrap();
    rounds(1).await;
    assert_eq!(marks(&world).iter().map(|mark| mark.0).collect::<Vec<_>>(), vec![100, 200]);
    // Once nobody says anything any more, the stream is looked at no longer.
    rounds(20).await;
    assert_eq!(world.store.table_len("times"), 0);
    let calls = world.link.calls();
    rounds(20).await;
    assert!(world.link.calls() - calls < 10, "idle streams cost nothing");
}

#[tokio::test(start_paused = true)]
async fn an_append_whose_answer_is_lost_is_not_repeated() {
    use crate::memory::Fault;
    let (mut world, t) = world(60_000).await;
    note(&world, &t, "a", 100, &[]).await;
    for call in 1..40 {
        world.restart(Some(Fault::OnceAfter(call)));
        while world.controller.recover().await.is_err() {}
        let time = 100 + i64::try_from(call).unwrap();
        while world.controller.note_time(&t, "a", time, StreamCut::new()).await.is_err() {}
        rounds(3).await;
        let times: Vec<_> = marks(&world).iter().map(|mark| mark.0).collect();
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
        assert_eq!(times.last(), Some(&time), "after a failure at call {call}");
    }
}
