//! Streams that are truncated as their policies say.

use std::sync::atomic::Ordering;
use std::time::Duration;

use headwater_controller::model::{
    GroupRetention, MoveSubscriber, RetentionKind, RetentionPolicy, ScalingPolicy, StreamConfig, StreamCut,
    UpdateStream,
};
use headwater_types::ScopedStream;

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
    assert_eq!(plan.truncation, Some(([(id(0, 0), 30)].into(), 10)), "nothing has gone by asking");
    assert_eq!(head(&world, &t).await, 20);
    assert_eq!(world.store.segment("s/t/0.#epoch.0").unwrap().start, 20);
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

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_ahead_truncates_nothing_until_it_was_steady_for_a_day() {
    for jump in [2 * DAY_MS, 365 * DAY_MS, 3650 * DAY_MS] {
        let (mut world, t) = world(RetentionKind::Time, DAY_MS / 2, i64::MAX).await;
        runs(&world, &t, 4).await;
        world.jump.store(jump, Ordering::Relaxed);
        runs(&world, &t, 4).await;
        assert_eq!(head(&world, &t).await, 0);
        assert!(world.controller.is_clock_doubted());
        let plan = world.controller.retention_plan(&t).await.unwrap().unwrap();
        assert!(plan.clock_doubted && plan.truncation.is_none());
        // A restart is no reason to believe it.
        world.restart(None);
        world.controller.recover().await.unwrap();
        minutes(60 * 12).await;
        assert_eq!(head(&world, &t).await, 0);
        minutes(60 * 13).await;
        assert!(!world.controller.is_clock_doubted());
        assert_eq!(head(&world, &t).await, 80);
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_comes_back_is_believed_at_once() {
    let (world, t) = world(RetentionKind::Time, DAY_MS / 2, i64::MAX).await;
    runs(&world, &t, 4).await;
    world.jump.store(365 * DAY_MS, Ordering::Relaxed);
    minutes(60).await;
    assert!(world.controller.is_clock_doubted());
    world.jump.store(0, Ordering::Relaxed);
    minutes(31).await;
    assert!(!world.controller.is_clock_doubted());
    assert_eq!(head(&world, &t).await, 0);
    minutes(60 * 13).await;
    assert_eq!(head(&world, &t).await, 40);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_while_the_server_is_away_or_backwards_truncates_nothing() {
    let (mut world, t) = world(RetentionKind::Time, DAY_MS / 2, i64::MAX).await;
    runs(&world, &t, 4).await;
    world.jump.store(10 * DAY_MS, Ordering::Relaxed);
    world.restart(None);
    world.controller.recover().await.unwrap();
    minutes(60).await;
    assert!(world.controller.is_clock_doubted());
    assert_eq!(head(&world, &t).await, 0);
    let (world, t) = self::world(RetentionKind::Time, DAY_MS / 2, i64::MAX).await;
    runs(&world, &t, 4).await;
    world.jump.store(-DAY_MS, Ordering::Relaxed);
    runs(&world, &t, 4).await;
    assert_eq!(head(&world, &t).await, 0);
    minutes(60 * 14).await;
    assert_eq!(head(&world, &t).await, 80, "it goes on by the new time");
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
