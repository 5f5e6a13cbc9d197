//! Streams with a long past: what a question about it loads, and how much at once.

use std::time::Duration;

use headwater_controller::Controller;
use headwater_controller::model::{
    CreateGroup, DeleteStream, GroupRetention, MoveSubscriber, NoteTime, RetentionKind, RetentionPolicy, Scale,
    ScaleProgress, ScalingPolicy, StreamConfig, StreamCut, UpdateStream,
};
use headwater_types::{ScopedStream, SegmentId};

use crate::support::{World, group_config, id, stream};

const SEGMENTS: i32 = 2000;
const SCALES: i32 = 60;
/// An epoch's record.
const RECORD_BYTES: usize = SEGMENTS as usize * 32 + 21;
/// Bytes of records that are looked at at a time.
const PAGE_BYTES: usize = 1 << 20;
/// Single records that are read at once.
const RECORDS: usize = 64;

/// Of many segments the first was replaced at the beginning, and the second ever since.
async fn long_past() -> (World, ScopedStream) {
    let (world, t) = World::with_stream(SEGMENTS).await;
    let ranges = world.controller.current_segments(&t).await.unwrap();
    let range = |at: usize| (ranges[at].range.low(), ranges[at].range.high());
    world.scale(&t, &[id(0, 0)], &[range(0)]).await;
    let mut second = id(1, 0);
    for _ in 1..SCALES {
        second = world.scale(&t, &[second], &[range(1)]).await[0].id;
    }
    let mut world = world;
    // Nothing is in memory that an earlier call put there.
    world.restart(None);
    world.controller.recover().await.unwrap();
    world.link.take_loaded();
    (world, t)
}

/// The current segments, at their beginnings.
async fn tail(world: &World, t: &ScopedStream) -> StreamCut {
    world.current(t).await.into_iter().map(|id| (id, 0)).collect()
}

/// A reader that has finished the second segment and all that followed it, and is still in the first.
async fn staggered(world: &World, t: &ScopedStream) -> StreamCut {
    let mut cut = tail(world, t).await;
    cut.remove(&id(SEGMENTS, 1)).unwrap();
    cut.insert(id(0, 0), 0);
    cut
}

#[tokio::test(start_paused = true)]
async fn a_cut_that_leaves_keys_out_is_refused_whatever_lies_between() {
    let (world, t) = long_past().await;
    let c = &world.controller;
    let newest = *tail(&world, &t).await.last_key_value().unwrap().0;
    assert_eq!(newest.epoch, SCALES);
    let two: StreamCut = [(id(0, 0), 0), (newest, 0)].into();
    let group = c.create_group("s", "g", 7, group_config(&[&t], GroupRetention::Manual)).await.unwrap();
    assert!(matches!(group, CreateGroup::Group(_)));
    world.link.take_loaded();
    assert!(!c.cut_is_valid(&t, &two).await.unwrap());
    assert!(c.segments_between(&t, &two, &StreamCut::new()).await.is_err());
    assert_eq!(c.truncate_stream(&t, two.clone()).await.unwrap(), UpdateStream::Failure);
    assert_eq!(c.move_subscriber(&t, "s/g", 7, 0, two).await.unwrap(), MoveSubscriber::CutNotValid);
    let loaded = world.link.take_loaded();
    assert!(loaded.total < 10 * RECORD_BYTES, "{loaded:?}");
    // What was open together is a cut, and needs no more.
    assert!(c.cut_is_valid(&t, &tail(&world, &t).await).await.unwrap());
    let loaded = world.link.take_loaded();
    assert!(loaded.total < 2 * RECORD_BYTES, "{loaded:?}");
    assert_eq!(world.link.rooms().most, 0, "what requests share is theirs");
}

#[tokio::test(start_paused = true)]
async fn what_lies_between_is_looked_at_in_pages_and_by_one_at_a_time() {
    let (world, t) = long_past().await;
    let cut = staggered(&world, &t).await;
    let questions: Vec<_> = (0..12)
        .map(|number| {
            let (c, t, cut) = (world.controller.clone(), t.clone(), cut.clone());
            tokio::spawn(async move {
                if number % 2 == 0 {
                    assert!(c.cut_is_valid(&t, &cut).await.unwrap());
                } else {
                    let between = c.segments_between(&t, &StreamCut::new(), &StreamCut::new()).await;
                    assert!(between.is_err(), "both are empty");
                    let between = c.segments_between(&t, &StreamCut::new(), &cut).await.unwrap();
                    // All but the first's successor.
                    assert_eq!(between.len(), (SEGMENTS + SCALES - 1) as usize);
                }
            })
        })
        .collect();
    for question in questions {
        question.await.unwrap();
    }
    let loaded = world.link.take_loaded();
    assert!(loaded.most <= PAGE_BYTES, "{loaded:?}, a record has {RECORD_BYTES}");
    assert_eq!(world.link.rooms().most, 0, "what requests share is theirs");
    world.controller.truncate_stream(&t, cut.clone()).await.unwrap();
    assert_eq!(world.controller.head_segments(&t).await.unwrap(), cut);
    let loaded = world.link.take_loaded();
    assert!(loaded.most <= PAGE_BYTES, "{loaded:?}");
    assert!(world.store.segment("s/t/0.#epoch.0").is_some() && world.store.segment("s/t/1.#epoch.0").is_none());
    assert_eq!(
        world.store.segment_names().iter().filter(|name| name.starts_with("s/t/")).count(),
        SEGMENTS as usize + 1
    );
}

#[tokio::test(start_paused = true)]
async fn of_epochs_that_are_asked_for_only_so_many_are_read_at_once() {
    let (mut world, t) = World::with_stream(1).await;
    world.scale(&t, &[id(0, 0)], &[(0.0, 1.0)]).await;
    world.restart(None);
    world.controller.recover().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.current(&t).await, [id(1, 1)], "and no other epoch is in memory");
    world.link.take_reads();
    let ask = |_| {
        let (c, t) = (world.controller.clone(), t.clone());
        tokio::spawn(async move { c.epoch_segments(&t, 0).await.unwrap().len() })
    };
    let questions: Vec<_> = (0..500).map(ask).collect();
    for question in questions {
        assert_eq!(question.await.unwrap(), 1);
    }
    assert_eq!(world.link.take_reads(), RECORDS, "some whose bytes are slow to come do not hold up the others");
}

/// A stream whose only segment was replaced so often that going through all of its past takes a turn.
async fn replaced(world: &World, name: &str) -> ScopedStream {
    world.create(name, 1).await;
    let t = stream(name);
    for epoch in 0..16 {
        world.scale(&t, &[id(epoch, epoch)], &[(0.0, 1.0)]).await;
    }
    t
}

/// Has the past of a stream deleted, by its end or by a truncation.
async fn forget(c: Controller, t: ScopedStream, truncates: bool) {
    if truncates {
        let end = c.current_segments(&t).await.unwrap().iter().map(|segment| (segment.id, 0)).collect();
        assert_eq!(c.truncate_stream(&t, end).await.unwrap(), UpdateStream::Success);
    } else {
        assert_eq!(c.seal_stream(&t).await.unwrap(), UpdateStream::Success);
        assert_eq!(c.delete_stream(&t).await.unwrap(), DeleteStream::Success);
    }
}

#[tokio::test(start_paused = true)]
async fn who_deletes_what_was_found_in_a_past_lets_others_look_at_theirs() {
    for truncates in [false, true] {
        let (world, _) = World::with_stream(1).await;
        // More of them than have a turn at once.
        let mut waiting = Vec::new();
        for number in 0..8 {
            let t = replaced(&world, &format!("slow{number}")).await;
            world.store.hold_deletion(t.segment(id(1, 1)).as_str());
            waiting.push(tokio::spawn(forget(world.controller.clone(), t, truncates)));
        }
        let t = replaced(&world, "quick").await;
        let forgotten = forget(world.controller.clone(), t, truncates);
        let forgotten = tokio::time::timeout(Duration::from_secs(60), forgotten).await;
        assert!(forgotten.is_ok(), "it waits for the deletions of others, {truncates}");
        assert!(waiting.iter().all(|task| !task.is_finished()), "{truncates}");
        world.store.let_deletions_go_on();
        for task in waiting {
            task.await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_lies_between_makes_a_cut_none_however_far_back_it_is() {
    let (world, t) = World::with_stream(2).await;
    let one = StreamConfig::new(ScalingPolicy::fixed(1));
    assert_eq!(world.controller.update_stream(&t, one).await.unwrap(), UpdateStream::Success);
    let mut second = world.current(&t).await[0];
    assert_eq!(world.current(&t).await.len(), 1, "merged");
    let halves = world.scale(&t, &[second], &[(0.0, 0.5), (0.5, 1.0)]).await;
    second = halves[1].id;
    for _ in 0..40 {
        second = world.scale(&t, &[second], &[(0.5, 1.0)]).await[0].id;
    }
    world.scale(&t, &[halves[0].id], &[(0.0, 0.5)]).await;
    let valid = async |cut: &[(SegmentId, i64)]| {
        world.controller.cut_is_valid(&t, &cut.iter().copied().collect()).await.unwrap()
    };
    assert!(valid(&[(halves[0].id, 3), (second, 0)]).await);
    assert!(
        !valid(&[(id(0, 0), 3), (second, 0)]).await,
        "whoever read the other half has read what both were merged into"
    );
}

#[tokio::test(start_paused = true)]
async fn retention_holds_few_of_its_cuts_at_once() {
    let (world, t) = World::with_stream(SEGMENTS).await;
    let mut config = StreamConfig::new(ScalingPolicy::fixed(SEGMENTS));
    config.retention = Some(RetentionPolicy { kind: RetentionKind::Size, keep: 75, keep_max: i64::MAX });
    assert_eq!(world.controller.update_stream(&t, config).await.unwrap(), UpdateStream::Success);
    tokio::time::sleep(Duration::from_secs(61)).await;
    for _ in 0..20 {
        world.append(&t, id(7, 0), "0123456789");
        world.link.take_loaded();
        tokio::time::sleep(Duration::from_secs(30 * 60)).await;
        // A cut has 16 bytes a segment.
        let loaded = world.link.take_loaded();
        assert!(loaded.most <= 8 * (SEGMENTS as usize * 16 + 64), "{loaded:?}");
    }
    assert_eq!(world.controller.head_segments(&t).await.unwrap()[&id(7, 0)], 120, "80 of 200 bytes");
}

#[tokio::test(start_paused = true)]
async fn one_more_writer_is_noted_without_reading_what_the_others_said() {
    let (world, t) = World::with_stream(SEGMENTS).await;
    let position = tail(&world, &t).await;
    let note = async |writer: &str| world.controller.note_time(&t, writer, 1, position.clone()).await.unwrap();
    for writer in 0..50 {
        assert_eq!(note(&format!("w{writer}")).await, NoteTime::Success);
    }
    world.link.take_loaded();
    let calls = world.link.calls();
    assert_eq!(note("one more").await, NoteTime::Success);
    let loaded = world.link.take_loaded();
    assert!(loaded.total < 2 * RECORD_BYTES, "{loaded:?}");
    assert!(world.link.calls() - calls < 6, "they are not counted anew");
}

#[tokio::test(start_paused = true)]
async fn positions_on_successors_are_taken_while_the_old_segments_are_being_sealed() {
    let (world, t) = World::with_stream(2).await;
    let c = &world.controller;
    let group = c.create_group("s", "g", 7, group_config(&[&t], GroupRetention::Manual)).await.unwrap();
    assert!(matches!(group, CreateGroup::Group(_)));
    world.store.let_seals_wait(true);
    let started = c.scale(&t, vec![id(1, 0)], vec![(0.5, 0.75), (0.75, 1.0)]).await.unwrap();
    assert!(matches!(started, Scale::Started { epoch: 0, .. }), "{started:?}");
    while c.successors(&t, id(1, 0)).await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(world.current(&t).await, vec![id(0, 0), id(1, 0)], "the new epoch is not the current one yet");
    let cut: StreamCut = [(id(0, 0), 0), (id(2, 1), 0), (id(3, 1), 0)].into();
    assert!(c.cut_is_valid(&t, &cut).await.unwrap());
    assert_eq!(c.note_time(&t, "w", 5, cut.clone()).await.unwrap(), NoteTime::Success);
    assert_eq!(c.move_subscriber(&t, "s/g", 7, 0, cut.clone()).await.unwrap(), MoveSubscriber::Success);
    let unknown: StreamCut = [(id(0, 0), 0), (id(4, 2), 0)].into();
    assert_eq!(c.note_time(&t, "w", 6, unknown.clone()).await.unwrap(), NoteTime::InvalidPosition);
    assert_eq!(c.move_subscriber(&t, "s/g", 7, 0, unknown).await.unwrap(), MoveSubscriber::CutNotValid);
    world.store.let_seals_wait(false);
    while c.check_scale(&t, 0).await.unwrap() != ScaleProgress::Success {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.current(&t).await, vec![id(0, 0), id(2, 1), id(3, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_beyond_the_end_holds_nothing() {
    let (world, t) = World::with_stream(1).await;
    let c = &world.controller;
    let mut config = StreamConfig::new(ScalingPolicy::fixed(1));
    config.retention = Some(RetentionPolicy { kind: RetentionKind::Size, keep: 10, keep_max: i64::MAX });
    assert_eq!(c.update_stream(&t, config).await.unwrap(), UpdateStream::Success);
    let group = c.create_group("s", "g", 7, group_config(&[&t], GroupRetention::Manual)).await.unwrap();
    assert!(matches!(group, CreateGroup::Group(_)));
    world.append(&t, id(0, 0), "0123456789");
    let held = async || c.retention_plan(&t).await.unwrap().unwrap().held_bytes;
    assert_eq!(held().await, Some(10));
    for beyond in [11, i64::MAX] {
        let cut: StreamCut = [(id(0, 0), beyond)].into();
        assert_eq!(c.move_subscriber(&t, "s/g", 7, 0, cut).await.unwrap(), MoveSubscriber::Success);
        assert_eq!(held().await, Some(0));
    }
}
