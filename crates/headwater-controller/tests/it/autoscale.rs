//! Streams that scale by their load.

use std::time::Duration;

use headwater_controller::model::{ScalingKind, ScalingPolicy, StreamConfig, UpdateStream};
use headwater_types::{ScopedStream, SegmentId, StreamSegment};

use crate::support::{World, assert_covers_key_space, id};

async fn world(kind: ScalingKind) -> (World, ScopedStream) {
    let (world, t) = World::with_stream(1).await;
    let scaling = ScalingPolicy { kind, target_rate: 10, scale_factor: 2, min_segments: 1 };
    let updated = world.controller.update_stream(&t, StreamConfig::new(scaling)).await.unwrap();
    assert_eq!(updated, UpdateStream::Success);
    (world, t)
}

/// Seconds of a load spread over the open segments as their keys are.
async fn load(world: &World, t: &ScopedStream, seconds: u64, events_per_second: f64, bytes_per_event: f64) {
    for _ in 0..seconds {
        for segment in world.controller.current_segments(t).await.unwrap() {
            let share = segment.range.high() - segment.range.low();
            let events = events_per_second * share;
            let segment = StreamSegment { stream: t.clone(), id: segment.id };
            world.store.load(segment, events as u64, (events * bytes_per_event) as u64);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn count(world: &World, t: &ScopedStream) -> usize {
    let current = world.controller.current_segments(t).await.unwrap();
    assert_covers_key_space(&current);
    current.len()
}

#[tokio::test(start_paused = true)]
async fn a_busy_stream_grows_within_a_minute_and_shrinks_when_nobody_writes() {
    let (world, t) = world(ScalingKind::Events).await;
    load(&world, &t, 60, 40.0, 0.0).await;
    assert_eq!(count(&world, &t).await, 2);
    load(&world, &t, 60, 40.0, 0.0).await;
    assert_eq!(count(&world, &t).await, 4);
    let heat = world.controller.segment_heat(&t).await.unwrap();
    assert!(heat.iter().all(|heat| (9.0..11.0).contains(&heat.events_per_second[0])), "{heat:?}");
    load(&world, &t, 1200, 40.0, 0.0).await;
    assert_eq!(count(&world, &t).await, 4, "each is at its target");
    tokio::time::sleep(Duration::from_secs(3 * 60 * 60)).await;
    assert_eq!(count(&world, &t).await, 1);
}

#[tokio::test(start_paused = true)]
async fn bytes_count_where_the_policy_counts_bytes() {
    let (world, t) = world(ScalingKind::Kilobytes).await;
    load(&world, &t, 60, 1.0, 40.0 * 1024.0).await;
    assert_eq!(count(&world, &t).await, 2);
    let (world, t) = self::world(ScalingKind::Kilobytes).await;
    load(&world, &t, 60, 4000.0, 1.0).await;
    assert_eq!(count(&world, &t).await, 1, "many events of few bytes");
}

#[tokio::test(start_paused = true)]
async fn a_fixed_stream_stays_as_it_is() {
    let (world, t) = World::with_stream(1).await;
    load(&world, &t, 300, 40_000.0, 1.0).await;
    assert_eq!(count(&world, &t).await, 1);
    let heat = world.controller.segment_heat(&t).await.unwrap();
    assert!(heat[0].events_per_second[0] > 30_000.0, "its load is known all the same");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_scaled_while_the_disk_is_full() {
    let (world, t) = world(ScalingKind::Events).await;
    world.store.fill(true);
    load(&world, &t, 120, 40.0, 0.0).await;
    assert_eq!(count(&world, &t).await, 1);
    world.store.fill(false);
    load(&world, &t, 10, 40.0, 0.0).await;
    assert_eq!(count(&world, &t).await, 2);
}

#[tokio::test(start_paused = true)]
async fn transactions_count_for_the_segment_of_their_number() {
    let (world, t) = world(ScalingKind::Events).await;
    load(&world, &t, 60, 40.0, 0.0).await;
    let current = world.current(&t).await;
    for _ in 0..60 {
        // As a transaction of this epoch names its parents.
        let parent = StreamSegment { stream: t.clone(), id: SegmentId::new(current[0].number, 7) };
        world.store.load(parent, 40, 0);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let after = world.current(&t).await;
    assert!(!after.contains(&current[0]) && after.contains(&current[1]), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_restart_does_not_forget_a_stream_that_should_shrink() {
    let (mut world, t) = world(ScalingKind::Events).await;
    load(&world, &t, 120, 40.0, 0.0).await;
    assert_eq!(count(&world, &t).await, 4);
    world.restart(None);
    world.controller.recover().await.unwrap();
    tokio::time::sleep(Duration::from_secs(19 * 60)).await;
    assert_eq!(count(&world, &t).await, 4, "nobody knows yet that it is idle");
    tokio::time::sleep(Duration::from_secs(60 * 60)).await;
    assert_eq!(count(&world, &t).await, 1);
    // A stream that has come to rest costs nothing any more.
    let calls = world.link.calls();
    tokio::time::sleep(Duration::from_secs(60 * 60)).await;
    assert!(world.link.calls() - calls < 20, "{} calls in an hour", world.link.calls() - calls);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_ever_wrote_to_comes_back_to_its_least_number_of_segments() {
    const COOL_DOWN: Duration = Duration::from_secs(60 * 60);
    // Split by hand.
    let (world, t) = world(ScalingKind::Events).await;
    world.scale(&t, &[id(0, 0)], &[(0.0, 0.25), (0.25, 0.5), (0.5, 1.0)]).await;
    assert_eq!(count(&world, &t).await, 3);
    tokio::time::sleep(COOL_DOWN).await;
    assert_eq!(count(&world, &t).await, 1);

    // Told to scale by itself, and then that it needs fewer segments.
    let (world, t) = World::with_stream(4).await;
    tokio::time::sleep(COOL_DOWN).await;
    for least in [2, 1] {
        let scaling =
            ScalingPolicy { kind: ScalingKind::Events, target_rate: 10, scale_factor: 2, min_segments: least };
        let updated = world.controller.update_stream(&t, StreamConfig::new(scaling)).await.unwrap();
        assert_eq!(updated, UpdateStream::Success);
        tokio::time::sleep(COOL_DOWN).await;
        assert_eq!(count(&world, &t).await, least as usize);
    }
}

#[tokio::test(start_paused = true)]
async fn load_of_streams_that_do_not_exist_is_nobodys_business() {
    let (world, t) = world(ScalingKind::Events).await;
    let nowhere = ScopedStream { scope: t.scope.clone(), stream: headwater_types::Name::parse("none").unwrap() };
    for number in [0, 5, i32::MAX] {
        world.store.load(StreamSegment { stream: nowhere.clone(), id: SegmentId::new(number, 0) }, u64::MAX, u64::MAX);
        world.store.load(
            StreamSegment { stream: t.clone(), id: SegmentId::new(number + (number == 0) as i32, 3) },
            1 << 60,
            1,
        );
    }
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(count(&world, &t).await, 1);
}
