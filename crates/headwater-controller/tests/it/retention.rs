//! Streams that are truncated as their policies say.

use std::sync::atomic::Ordering;
use std::time::Duration;

use headwater_controller::model::{
    GroupRetention, MoveSubscriber, PLANNED_SEGMENTS_MAX, PlannedSegment, PlannedTruncation, RetentionKind,
    RetentionPolicy, ScalingPolicy, StreamConfig, StreamCut, UpdateStream,
};
use headwater_types::{ScopedStream, SegmentId};

use crate::support::{World, group_config, id};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

async fn world(kind: RetentionKind, keep: i64, keep_max: i64) -> (World, ScopedStream) {
    let (world, t) = World::with_stream(1).await;
    let mut config = StreamConfig::new(ScalingPolicy::fixed(1));
    config.retention = Some(RetentionPolicy { kind, keep, keep_max });
    assert_eq!(world.controller.update_stream(&t, config).await.unwrap(), UpdateStream::Success);
    tokio::time::sleep(Duration::from_secs(61)).await;
    (world, t)
}

/// Ten bytes and a run, so many times.
async fn runs(world: &World, t: &ScopedStream, count: u64) {
    for _ in 0..count {
        let segment = world.current(t).await[0];
        world.append(t, segment, "0123456789");
        minutes(30).await;
    }
}

async fn minutes(count: u64) {
    tokio::time::sleep(Duration::from_secs(60 * count)).await;
}

async fn head(world: &World, t: &ScopedStream) -> i64 {
    *world.controller.head_segments(t).await.unwrap().first_key_value().unwrap().1
}

#[tokio::test(start_paused = true)]
async fn what_is_beyond_the_size_to_keep_goes() {
    let (world, t) = world(RetentionKind::Size, 35, i64::MAX).await;
    runs(&world, &t, 3).await;
    assert_eq!(head(&world, &t).await, 0);
    let plan = world.controller.retention_plan(&t).await.unwrap().unwrap();
    assert_eq!((plan.stored_bytes, plan.held_bytes, plan.truncation), (30, None, None));
    runs(&world, &t, 3).await;
    assert_eq!(head(&world, &t).await, 20, "40 of 60 bytes are kept, the least that is not below 35");
    world.append(&t, id(0, 0), "0123456789");
    let plan = world.controller.retention_plan(&t).await.unwrap().unwrap();
    assert_eq!(plan.stored_bytes, 50);
    let planned = PlannedTruncation {
        cut: [(id(0, 0), 30)].into(),
        bytes: 10,
        segments: vec![part(id(0, 0), 20, 30)],
        more_segments: 0,
    };
    assert_eq!(plan.truncation, Some(planned), "nothing has gone by asking");
    assert_eq!(head(&world, &t).await, 20);
    assert_eq!(world.store.segment("s/t/0.#epoch.0").unwrap().start, 20);
}

fn part(id: SegmentId, from: i64, to: i64) -> PlannedSegment {
    PlannedSegment { id, from, to, is_deleted: false }
}

fn whole(id: SegmentId, from: i64, to: i64) -> PlannedSegment {
    PlannedSegment { id, from, to, is_deleted: true }
}

/// Replaces the stream's policy by one of a size, and asks what that would take.
async fn planned(world: &World, t: &ScopedStream, keep: i64) -> PlannedTruncation {
    let segments = i32::try_from(world.current(t).await.len()).unwrap();
    let mut config = StreamConfig::new(ScalingPolicy::fixed(segments));
    config.retention = Some(RetentionPolicy { kind: RetentionKind::Size, keep, keep_max: i64::MAX });
    assert_eq!(world.controller.update_stream(t, config).await.unwrap(), UpdateStream::Success);
    world.controller.retention_plan(t).await.unwrap().unwrap().truncation.expect("something would go")
}

#[tokio::test(start_paused = true)]
async fn a_plan_lists_what_would_go_and_then_that_goes() {
    let (world, t) = world(RetentionKind::Size, 1 << 40, i64::MAX).await;
    world.append(&t, id(0, 0), "0123456789");
    let head: StreamCut = [(id(0, 0), 4)].into();
    assert_eq!(world.controller.truncate_stream(&t, head).await.unwrap(), UpdateStream::Success);
    world.scale(&t, &[id(0, 0)], &[(0.0, 0.5), (0.5, 1.0)]).await;
    world.append(&t, id(1, 1), "01234");
    // One that nobody wrote to, and one that is still written to.
    world.scale(&t, &[id(2, 1)], &[(0.5, 1.0)]).await;
    world.append(&t, id(3, 2), "012");
    let plan = planned(&world, &t, 0).await;
    let expected = [whole(id(0, 0), 4, 10), part(id(1, 1), 0, 5), whole(id(2, 1), 0, 0), part(id(3, 2), 0, 3)];
    assert_eq!((&plan.segments[..], plan.more_segments), (&expected[..], 0));
    assert_eq!(plan.bytes, 14, "what was cut off before is not counted again");
    assert!(world.store.segment("s/t/0.#epoch.0").is_some(), "nothing has gone by asking");
    minutes(31).await;
    assert_eq!(world.controller.head_segments(&t).await.unwrap(), plan.cut);
    for segment in plan.segments {
        let left = world.store.segment(t.segment(segment.id).as_str());
        assert_eq!(left.is_none(), segment.is_deleted, "{segment:?}");
        assert!(left.is_none_or(|left| left.start == u64::try_from(segment.to).unwrap()), "{segment:?}");
    }
    assert_eq!(world.controller.retention_plan(&t).await.unwrap().unwrap().truncation, None);
}

#[tokio::test(start_paused = true)]
async fn a_plan_lists_a_thousand_segments_and_counts_the_others() {
    let (world, t) = world(RetentionKind::Size, 1 << 40, i64::MAX).await;
    let scales = i32::try_from(PLANNED_SEGMENTS_MAX).unwrap() + 5;
    for number in 0..scales {
        world.append(&t, id(number, number), "x");
        world.scale(&t, &[id(number, number)], &[(0.0, 1.0)]).await;
    }
    let plan = planned(&world, &t, 0).await;
    assert_eq!((plan.segments.len(), plan.more_segments), (PLANNED_SEGMENTS_MAX, 5));
    assert_eq!(plan.segments[7], whole(id(7, 7), 0, 1));
    assert_eq!(plan.bytes, i64::from(scales));
}

#[tokio::test(start_paused = true)]
async fn what_is_older_than_the_time_to_keep_goes_also_from_an_idle_stream() {
    let (world, t) = world(RetentionKind::Time, 2 * 60 * 60 * 1000, i64::MAX).await;
    runs(&world, &t, 3).await;
    assert_eq!(head(&world, &t).await, 0);
    minutes(60).await;
    assert_eq!(head(&world, &t).await, 10);
    minutes(60).await;
    assert_eq!(head(&world, &t).await, 30, "everything is older than two hours");
    let calls = world.link.calls();
    minutes(300).await;
    assert!(world.link.calls() - calls < 300, "an idle stream is looked at and left alone");
}

#[tokio::test(start_paused = true)]
async fn retention_goes_over_scales_and_deletes_what_lies_behind() {
    let (world, t) = world(RetentionKind::Size, 10, i64::MAX).await;
    runs(&world, &t, 2).await;
    world.scale(&t, &[id(0, 0)], &[(0.0, 0.5), (0.5, 1.0)]).await;
    runs(&world, &t, 2).await;
    let head = world.controller.head_segments(&t).await.unwrap();
    assert_eq!(head, [(id(1, 1), 10), (id(2, 1), 0)].into());
    assert!(world.store.segment("s/t/0.#epoch.0").is_none());
    let plan = world.controller.retention_plan(&t).await.unwrap().unwrap();
    assert_eq!((plan.stored_bytes, plan.truncation), (10, None));
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_holds_back_what_it_has_not_read_up_to_the_maximum() {
    let (world, t) = world(RetentionKind::Size, 10, 60).await;
    let c = &world.controller;
    c.create_group("s", "g", 7, group_config(&[&t], GroupRetention::Manual)).await.unwrap();
    runs(&world, &t, 5).await;
    assert_eq!(head(&world, &t).await, 0, "the group has named no position");
    let read: StreamCut = [(id(0, 0), 25)].into();
    assert_eq!(c.move_subscriber(&t, "s/g", 7, 0, read).await.unwrap(), MoveSubscriber::Success);
    let plan = c.retention_plan(&t).await.unwrap().unwrap();
    assert_eq!((plan.stored_bytes, plan.held_bytes), (50, Some(25)));
    minutes(30).await;
    assert_eq!(head(&world, &t).await, 25, "all that was read goes, at the very byte");
    runs(&world, &t, 8).await;
    assert_eq!(head(&world, &t).await, 70, "no more than 60 bytes are held back");
    assert_eq!(
        c.delete_group(&crate::support::scope(), &headwater_types::Name::parse("g").unwrap(), None).await.unwrap(),
        headwater_controller::model::DeleteGroup::Success
    );
    minutes(31).await;
    assert_eq!(head(&world, &t).await, 120, "nobody holds anything back any more");
}

/// A stream of two segments with a policy and a group that says where it is, after its first run.
async fn world_of_two(kind: RetentionKind, keep: i64, keep_max: i64) -> (World, ScopedStream) {
    let (world, t) = World::with_stream(1).await;
    let mut config = StreamConfig::new(ScalingPolicy::fixed(1));
    config.retention = Some(RetentionPolicy { kind, keep, keep_max });
    assert_eq!(world.controller.update_stream(&t, config).await.unwrap(), UpdateStream::Success);
    // One of two segments would never have fewer.
    world.scale(&t, &[id(0, 0)], &[(0.0, 0.5), (0.5, 1.0)]).await;
    world.controller.create_group("s", "g", 7, group_config(&[&t], GroupRetention::Manual)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(61)).await;
    (world, t)
}

/// So many bytes into each of the segments, and a run.
async fn run_with(world: &World, t: &ScopedStream, bytes: &[(SegmentId, usize)]) {
    for (segment, count) in bytes {
        world.append(t, *segment, &"x".repeat(*count));
    }
    minutes(30).await;
}

async fn stand(world: &World, t: &ScopedStream, cut: &[(SegmentId, i64)]) {
    let cut = cut.iter().copied().collect();
    assert_eq!(world.controller.move_subscriber(t, "s/g", 7, 0, cut).await.unwrap(), MoveSubscriber::Success);
}

async fn assert_head(world: &World, t: &ScopedStream, cut: &[(SegmentId, i64)], why: &str) {
    let cut: StreamCut = cut.iter().copied().collect();
    assert_eq!(world.controller.head_segments(t).await.unwrap(), cut, "{why}");
    for (id, offset) in &cut {
        let start = world.store.segment(t.segment(*id).as_str()).unwrap().start;
        assert_eq!(start, u64::try_from(*offset).unwrap_or(0), "{why}: {id}");
    }
}

const A: SegmentId = id(1, 1);
const B: SegmentId = id(2, 1);
const M: SegmentId = id(3, 2);

#[tokio::test(start_paused = true)]
async fn a_group_that_is_ahead_on_one_segment_and_behind_on_another_loses_nothing_over_a_merge() {
    for (kind, keep) in [(RetentionKind::Time, 89 * 60 * 1000), (RetentionKind::Size, 30)] {
        let (world, t) = world_of_two(kind, keep, i64::MAX).await;
        run_with(&world, &t, &[(A, 5), (B, 5)]).await;
        run_with(&world, &t, &[(A, 5), (B, 5)]).await;
        run_with(&world, &t, &[(A, 10), (B, 10)]).await;
        world.scale(&t, &[A, B], &[(0.0, 1.0)]).await;
        run_with(&world, &t, &[(M, 10)]).await;
        assert_head(&world, &t, &[(id(0, 0), 0)], "the group has said nothing").await;
        stand(&world, &t, &[(A, 20), (B, 7)]).await;
        // What is just old or far enough is at 10 in A and B, where B's reader has not been; the one before is at 5.
        run_with(&world, &t, &[]).await;
        assert_head(&world, &t, &[(A, 5), (B, 5)], "the newest cut that the readers are past everywhere").await;
        if kind == RetentionKind::Size {
            continue;
        }
        stand(&world, &t, &[(B, 7), (M, -1)]).await;
        run_with(&world, &t, &[]).await;
        assert_head(&world, &t, &[(A, 5), (B, 5)], "the cut at the ends of A and B is ahead of B's reader").await;
        stand(&world, &t, &[(B, 15), (M, -1)]).await;
        run_with(&world, &t, &[]).await;
        assert_head(&world, &t, &[(B, 15), (M, -1)], "M is old enough, and so is all that was read").await;
        assert!(world.store.segment(t.segment(A).as_str()).is_none());
        stand(&world, &t, &[(M, 4)]).await;
        run_with(&world, &t, &[]).await;
        assert_head(&world, &t, &[(M, 4)], "and all of B").await;
        assert!(world.store.segment(t.segment(B).as_str()).is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_beyond_the_maximum_goes_also_from_a_group_that_is_ahead_of_it_on_another_segment() {
    let (world, t) = world_of_two(RetentionKind::Time, 29 * 60 * 1000, 89 * 60 * 1000).await;
    run_with(&world, &t, &[(A, 5), (B, 5)]).await;
    run_with(&world, &t, &[(A, 5), (B, 5)]).await;
    run_with(&world, &t, &[(A, 10), (B, 10)]).await;
    stand(&world, &t, &[(A, 5), (B, 5)]).await;
    world.scale(&t, &[A, B], &[(0.0, 1.0)]).await;
    run_with(&world, &t, &[(M, 10)]).await;
    assert_head(&world, &t, &[(A, 5), (B, 5)], "all that was read").await;
    stand(&world, &t, &[(A, 20), (B, 7)]).await;
    let plan = world.controller.retention_plan(&t).await.unwrap().unwrap();
    assert_eq!(plan.truncation.map(|planned| planned.cut), Some([(A, 20), (B, 7)].into()), "nothing is too old yet");
    run_with(&world, &t, &[]).await;
    assert_head(&world, &t, &[(A, 10), (B, 10)], "what was there ninety minutes ago goes, and no more").await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_that_is_behind_the_head_on_one_segment_is_no_place_to_truncate_at() {
    let (world, t) = world_of_two(RetentionKind::Size, 30, i64::MAX).await;
    run_with(&world, &t, &[(A, 10), (B, 60)]).await;
    run_with(&world, &t, &[(A, 100)]).await;
    stand(&world, &t, &[(A, 50), (B, 0)]).await;
    run_with(&world, &t, &[]).await;
    assert_head(&world, &t, &[(A, 50), (B, 0)], "all that was read").await;
    stand(&world, &t, &[(A, 110), (B, 60)]).await;
    // The cut of the first run is at 10 in A and has more bytes before it than the head.
    let plan = world.controller.retention_plan(&t).await.unwrap().unwrap();
    assert_eq!((plan.held_bytes, plan.truncation), (Some(0), None), "nothing is planned that would not be done");
    run_with(&world, &t, &[(B, 30)]).await;
    assert_head(&world, &t, &[(A, 110), (B, 60)], "the next is").await;
}

/// Days go by, and a run now and then.
async fn days(count: u64) {
    minutes(24 * 60 * count).await;
}

#[tokio::test(start_paused = true)]
async fn no_jump_of_the_clock_makes_anything_older() {
    for jump in [DAY_MS, 2 * DAY_MS, 365 * DAY_MS, 3650 * DAY_MS, -DAY_MS, -3650 * DAY_MS] {
        let (mut world, t) = world(RetentionKind::Time, 7 * DAY_MS, i64::MAX).await;
        runs(&world, &t, 4).await;
        world.jump.store(jump, Ordering::Relaxed);
        runs(&world, &t, 4).await;
        assert_eq!(head(&world, &t).await, 0);
        assert_eq!(world.controller.has_clock_jumped(), jump.abs() > DAY_MS);
        days(3).await;
        world.restart(None);
        world.controller.recover().await.unwrap();
        let plan = world.controller.retention_plan(&t).await.unwrap().unwrap();
        assert_eq!(plan.truncation, None);
        days(3).await;
        assert_eq!(head(&world, &t).await, 0, "after {jump} ms everything is six days old");
        days(2).await;
        assert_eq!(head(&world, &t).await, 80, "after {jump} ms it is eight");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_goes_to_and_fro_makes_nothing_older() {
    let (world, t) = world(RetentionKind::Time, DAY_MS / 2, i64::MAX).await;
    for round in 0..8 {
        // Steps below a day, which nobody would call a jump.
        world.jump.store(if round % 2 == 0 { -20 * 60 * 60 * 1000 } else { 3 * 60 * 60 * 1000 }, Ordering::Relaxed);
        runs(&world, &t, 2).await;
        assert_eq!(head(&world, &t).await, 0, "round {round}");
    }
    minutes(60 * 13).await;
    assert_eq!(head(&world, &t).await, 160);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_while_the_server_is_away_makes_nothing_older() {
    for jump in [10 * DAY_MS, 3650 * DAY_MS, -10 * DAY_MS] {
        let (mut world, t) = world(RetentionKind::Time, DAY_MS / 2, i64::MAX).await;
        runs(&world, &t, 4).await;
        world.jump.store(jump, Ordering::Relaxed);
        world.restart(None);
        world.controller.recover().await.unwrap();
        assert!(world.controller.has_clock_jumped());
        minutes(60).await;
        assert_eq!(head(&world, &t).await, 0);
        minutes(60 * 12).await;
        assert_eq!(head(&world, &t).await, 40);
    }
}

#[tokio::test(start_paused = true)]
async fn hours_that_the_server_was_away_count() {
    let (mut world, t) = world(RetentionKind::Time, DAY_MS / 2, i64::MAX).await;
    runs(&world, &t, 4).await;
    world.jump.store(DAY_MS * 3 / 4, Ordering::Relaxed);
    world.restart(None);
    world.controller.recover().await.unwrap();
    minutes(2).await;
    assert_eq!(head(&world, &t).await, 40);
    assert!(!world.controller.has_clock_jumped());
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_made_while_a_run_is_under_way_holds_everything_or_finds_it_gone() {
    for seed in 1..60 {
        let (mut world, t) = world(RetentionKind::Size, 10, i64::MAX).await;
        world.restart_jittery(None, seed);
        world.controller.recover().await.unwrap();
        for _ in 0..2 {
            world.append(&t, id(0, 0), "0123456789");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        // The first run of this start comes at 60 s; the group is made about then.
        tokio::time::sleep(Duration::from_millis(57_990) + Duration::from_micros(seed * 400)).await;
        world.append(&t, id(0, 0), "0123456789");
        let config = group_config(&[&t], GroupRetention::Automatic);
        world.controller.create_group("s", "g", 7, config).await.unwrap();
        let then = head(&world, &t).await;
        runs(&world, &t, 4).await;
        assert_eq!(head(&world, &t).await, then, "seed {seed}: what was there when the group was answered stays");
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_that_was_made_before_its_stream_holds_it_once_it_is_asked_for_again() {
    let (world, t) = world(RetentionKind::Size, 0, i64::MAX).await;
    let u = crate::support::stream("u");
    let config = group_config(&[&u], GroupRetention::Automatic);
    world.controller.create_group("s", "g", 7, config.clone()).await.unwrap();
    world.create("u", 1).await;
    assert_eq!(world.controller.list_subscribers(&u).await.unwrap(), Some(Vec::new()));
    world.controller.create_group("s", "g", 7, config).await.unwrap();
    assert_eq!(world.controller.list_subscribers(&u).await.unwrap(), Some(vec!["s/g".into()]));
    assert_eq!(world.controller.list_subscribers(&t).await.unwrap(), Some(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_makes_no_sense_is_refused() {
    let (world, _) = World::with_stream(1).await;
    for (keep, keep_max) in [(-1, i64::MAX), (i64::MIN, 0), (100, 99), (2, 1)] {
        let mut config = StreamConfig::new(ScalingPolicy::fixed(1));
        config.retention = Some(RetentionPolicy { kind: RetentionKind::Size, keep, keep_max });
        let refused = world.controller.create_stream("s", "u", config).await;
        assert!(matches!(refused, Err(headwater_controller::model::ControllerError::Invalid(_))), "{keep} {keep_max}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_is_taken_back_leaves_the_stream_alone() {
    let (world, t) = world(RetentionKind::Size, 0, i64::MAX).await;
    assert_eq!(world.store.table_len("retention"), 1);
    let config = StreamConfig::new(ScalingPolicy::fixed(1));
    world.controller.update_stream(&t, config).await.unwrap();
    runs(&world, &t, 3).await;
    assert_eq!(head(&world, &t).await, 0);
    assert_eq!(world.controller.retention_plan(&t).await.unwrap(), None);
    assert_eq!(world.store.table_len("retention"), 0);
}
