//! Epochs, successors, scales, cuts, truncation.

use std::time::Duration;

use headwater_controller::model::{
    ControllerError, FUTURE, Scale, ScaleProgress, ScalingKind, ScalingPolicy, StreamConfig, StreamCut, UpdateStream,
};
use headwater_types::SegmentId;

use crate::memory::Fault;
use crate::support::{World, assert_covers_key_space, id, stream};

fn cut(entries: &[(SegmentId, i64)]) -> StreamCut {
    entries.iter().copied().collect()
}

#[tokio::test(start_paused = true)]
async fn initial_segments_reach_exactly_one_for_counts_where_the_product_falls_short() {
    let world = World::new().await;
    world.controller.create_scope("s").await.unwrap();
    for count in [1, 3, 49, 98, 103] {
        let name = format!("t{count}");
        world.create(&name, count).await;
        let segments = world.controller.current_segments(&stream(&name)).await.unwrap();
        assert_eq!(segments.len(), count as usize);
        assert_covers_key_space(&segments);
    }
}

#[tokio::test(start_paused = true)]
async fn questions_about_a_missing_stream_are_not_found() {
    let world = World::new().await;
    let t = stream("t");
    let not_found = |error: ControllerError| assert!(matches!(error, ControllerError::NotFound(_)), "{error}");
    not_found(world.controller.current_segments(&t).await.unwrap_err());
    not_found(world.controller.epoch_segments(&t, 0).await.unwrap_err());
    not_found(world.controller.head_segments(&t).await.unwrap_err());
    not_found(world.controller.successors(&t, id(0, 0)).await.unwrap_err());
    not_found(world.controller.create_transaction(&t, 10_000).await.unwrap_err());
    assert_eq!(world.controller.check_scale(&t, 0).await.unwrap(), ScaleProgress::InvalidInput);
    assert_eq!(world.controller.scale(&t, vec![id(0, 0)], vec![(0.0, 1.0)]).await.unwrap(), Scale::Failure);
}

#[tokio::test(start_paused = true)]
async fn a_scale_replaces_segments_and_keeps_the_key_space_covered() {
    let (world, t) = World::with_stream(2).await;
    let started = world.controller.scale(&t, vec![id(1, 0)], vec![(0.5, 0.75), (0.75, 1.0)]).await.unwrap();
    let Scale::Started { epoch, segments } = started else { panic!("{started:?}") };
    assert_eq!(epoch, 0, "the epoch before");
    assert_eq!(segments.iter().map(|s| s.id).collect::<Vec<_>>(), vec![id(2, 1), id(3, 1)]);
    while world.controller.check_scale(&t, 0).await.unwrap() != ScaleProgress::Success {
        assert_covers_key_space(&world.controller.current_segments(&t).await.unwrap());
        tokio::task::yield_now().await;
    }
    assert!(world.store.segment("s/t/1.#epoch.0").unwrap().sealed, "success means sealed");
    let current = world.controller.current_segments(&t).await.unwrap();
    assert_covers_key_space(&current);
    assert_eq!(world.current(&t).await, vec![id(0, 0), id(2, 1), id(3, 1)]);
    assert!(world.controller.segment_is_open(&t, id(2, 1)).await.unwrap());
    assert!(!world.controller.segment_is_open(&t, id(1, 0)).await.unwrap());
    // And down again.
    world.scale(&t, &[id(0, 0), id(2, 1)], &[(0.0, 0.75)]).await;
    assert_eq!(world.current(&t).await, vec![id(4, 2), id(3, 1)]);
    let epochs = [vec![id(0, 0), id(1, 0)], vec![id(0, 0), id(2, 1), id(3, 1)], vec![id(4, 2), id(3, 1)]];
    for (epoch, expected) in epochs.iter().enumerate() {
        let found = world.controller.epoch_segments(&t, epoch as i32).await.unwrap();
        assert_eq!(&found.iter().map(|s| s.id).collect::<Vec<_>>(), expected);
    }
    assert!(matches!(world.controller.epoch_segments(&t, 3).await, Err(ControllerError::NotFound(_))));
    assert!(matches!(world.controller.epoch_segments(&t, -1).await, Err(ControllerError::Invalid(_))));
    assert_eq!(world.controller.check_scale(&t, 2).await.unwrap(), ScaleProgress::InProgress);
    assert_eq!(world.controller.check_scale(&t, 3).await.unwrap(), ScaleProgress::InvalidInput);
}

#[tokio::test(start_paused = true)]
async fn refused_scales_change_nothing() {
    let (world, t) = World::with_stream(2).await;
    let scale =
        async |seal: &[SegmentId], new: &[(f64, f64)]| world.controller.scale(&t, seal.to_vec(), new.to_vec()).await;
    assert_eq!(scale(&[id(1, 0)], &[(0.5, 0.9)]).await.unwrap(), Scale::Failure);
    assert_eq!(scale(&[id(7, 0)], &[(0.5, 1.0)]).await.unwrap(), Scale::PreconditionFailed);
    assert_eq!(scale(&[id(0, 0), id(1, 0)], &[(0.0, 1.0)]).await.unwrap(), Scale::PreconditionFailed, "fixed at two");
    assert!(matches!(scale(&[id(1, 0)], &[(0.5, 0.7), (0.5, 1.0)]).await, Err(ControllerError::Invalid(_))));
    assert_eq!(world.current(&t).await, vec![id(0, 0), id(1, 0)]);
}

#[tokio::test(start_paused = true)]
async fn successors_are_known_before_the_first_segment_is_sealed_and_name_all_predecessors() {
    let (world, t) = World::with_stream(3).await;
    assert!(world.controller.successors(&t, id(0, 0)).await.unwrap().is_empty(), "open");
    let rate = ScalingPolicy { kind: ScalingKind::Events, target_rate: 1, scale_factor: 2, min_segments: 1 };
    world.controller.update_stream(&t, StreamConfig::new(rate)).await.unwrap();
    // The bounds of three equal parts are what the server computed, not what we type.
    let ranges = world.controller.current_segments(&t).await.unwrap();
    let new = (ranges[0].range.low(), ranges[1].range.high());
    let started = world.controller.scale(&t, vec![id(0, 0), id(1, 0)], vec![new]).await.unwrap();
    assert!(matches!(started, Scale::Started { .. }));
    // The background proceeds one port call at a time; whenever the segment is sealed, successors are there.
    loop {
        let sealed = world.store.segment("s/t/0.#epoch.0").unwrap().sealed;
        let found = world.controller.successors(&t, id(0, 0)).await.unwrap();
        if sealed {
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].segment.id, id(3, 1));
            assert_eq!(found[0].predecessors, vec![id(0, 0), id(1, 0)]);
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_scale_that_cannot_go_on_leaves_everybody_able_to_write_and_read() {
    // Calls 1 to n of a run that is cut off after its n-th call: whatever is sealed has successors that exist.
    for at in 1..80 {
        let mut world = World::unrecovered(None);
        world.controller.recover().await.unwrap();
        world.controller.create_scope("s").await.unwrap();
        world.create("t", 1).await;
        let t = stream("t");
        world.restart(Some(Fault::CrashAfter(at)));
        let _ = world.controller.recover().await;
        let _ = world.controller.scale(&t, vec![id(0, 0)], vec![(0.0, 0.5), (0.5, 1.0)]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.restart(None);
        // Without recover: only what any reader does.
        if world.store.segment("s/t/0.#epoch.0").unwrap().sealed {
            let found = world.controller.successors(&t, id(0, 0)).await.unwrap();
            assert_eq!(found.len(), 2, "crash at {at}");
            for successor in found {
                assert!(world.store.segment(t.segment(successor.segment.id).as_str()).is_some());
            }
        }
        // The start finishes a scale that was recorded, though nobody asks for it again.
        world.controller.recover().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let other = world.controller.scale(&t, vec![id(0, 0)], vec![(0.0, 0.1), (0.1, 1.0)]).await.unwrap();
        assert!(matches!(other, Scale::Started { .. } | Scale::PreconditionFailed), "crash at {at}: {other:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_repeated_scale_request_gets_the_first_answer_and_another_one_fails() {
    let (world, t) = World::with_stream(1).await;
    let first = world.controller.scale(&t, vec![id(0, 0)], vec![(0.0, 0.5), (0.5, 1.0)]).await.unwrap();
    let same = world.controller.scale(&t, vec![id(0, 0)], vec![(0.5, 1.0), (0.0, 0.5)]).await.unwrap();
    let other = world.controller.scale(&t, vec![id(0, 0)], vec![(0.0, 0.3), (0.3, 1.0)]).await.unwrap();
    assert!(matches!(first, Scale::Started { .. }));
    assert_eq!(same, first);
    assert_eq!(other, Scale::Failure);
}

#[tokio::test(start_paused = true)]
async fn a_sealed_stream_has_no_open_segments_and_no_successors() {
    let (world, t) = World::with_stream(2).await;
    world.scale(&t, &[id(0, 0)], &[(0.0, 0.25), (0.25, 0.5)]).await;
    world.controller.seal_stream(&t).await.unwrap();
    assert!(world.controller.current_segments(&t).await.unwrap().is_empty(), "an empty list, not an error");
    assert!(world.controller.successors(&t, id(1, 0)).await.unwrap().is_empty());
    assert_eq!(world.controller.successors(&t, id(0, 0)).await.unwrap().len(), 2, "sealed by the scale");
    assert_eq!(world.controller.head_segments(&t).await.unwrap(), cut(&[(id(0, 0), 0), (id(1, 0), 0)]));
    assert_eq!(world.controller.scale(&t, vec![id(1, 0)], vec![(0.5, 1.0)]).await.unwrap(), Scale::Failure);
    let truncated = world.controller.truncate_stream(&t, cut(&[(id(0, 0), 0), (id(1, 0), 0)])).await.unwrap();
    assert_eq!(truncated, UpdateStream::Sealed);
    for segment in [id(1, 0), id(2, 1), id(3, 1)] {
        assert!(world.store.segment(t.segment(segment).as_str()).unwrap().sealed);
    }
}

#[tokio::test(start_paused = true)]
async fn an_update_scales_a_fixed_stream_to_its_new_count() {
    let (world, t) = World::with_stream(4).await;
    for count in [8, 3, 49] {
        let config = StreamConfig::new(ScalingPolicy::fixed(count));
        assert_eq!(world.controller.update_stream(&t, config.clone()).await.unwrap(), UpdateStream::Success);
        let current = world.controller.current_segments(&t).await.unwrap();
        assert_eq!(current.len(), count as usize);
        assert_covers_key_space(&current);
        assert_eq!(world.controller.stream_configuration(&t).await.unwrap(), config);
    }
    let rate = ScalingPolicy { kind: ScalingKind::Kilobytes, target_rate: 9, scale_factor: 2, min_segments: 2 };
    world.controller.update_stream(&t, StreamConfig::new(rate)).await.unwrap();
    let current = world.current(&t).await;
    assert_eq!(current.len(), 49, "more than the least number is fine for a rate");
    let segment = world.store.segment(t.segment(current[0]).as_str()).unwrap();
    assert_eq!((segment.hint.kind, segment.hint.rate), (1, 9), "the segments know the new policy");
    let missing = world.controller.update_stream(&stream("x"), StreamConfig::new(rate)).await.unwrap();
    assert_eq!(missing, UpdateStream::StreamNotFound);
}

#[tokio::test(start_paused = true)]
async fn a_truncation_moves_the_head_and_deletes_what_is_before_it() {
    let (world, t) = World::with_stream(2).await;
    world.append(&t, id(0, 0), "aaaa");
    world.append(&t, id(1, 0), "bbbb");
    world.scale(&t, &[id(0, 0), id(1, 0)], &[(0.0, 0.5), (0.5, 1.0)]).await;
    world.append(&t, id(2, 1), "cccc");
    let truncate =
        async |entries: &[(SegmentId, i64)]| world.controller.truncate_stream(&t, cut(entries)).await.unwrap();
    assert_eq!(truncate(&[(id(2, 1), 2), (id(1, 0), 3)]).await, UpdateStream::Success);
    assert_eq!(world.controller.head_segments(&t).await.unwrap(), cut(&[(id(2, 1), 2), (id(1, 0), 3)]));
    assert_eq!(world.store.segment("s/t/0.#epoch.0"), None);
    assert_eq!(world.store.segment("s/t/1.#epoch.0").unwrap().start, 3);
    assert_eq!(world.store.segment("s/t/2.#epoch.1").unwrap().start, 2);
    assert_eq!(truncate(&[(id(2, 1), 2), (id(1, 0), 3)]).await, UpdateStream::Success, "the same again");
    assert_eq!(truncate(&[(id(2, 1), 1), (id(1, 0), 3)]).await, UpdateStream::Failure, "behind the head");
    assert_eq!(truncate(&[(id(0, 0), 4), (id(1, 0), 3)]).await, UpdateStream::Failure, "behind the head");
    assert_eq!(truncate(&[(id(2, 1), 2)]).await, UpdateStream::Failure, "not a cut");
    assert_eq!(truncate(&[(id(2, 1), 2), (id(9, 9), 3)]).await, UpdateStream::Failure, "unknown epoch");
    assert_eq!(truncate(&[(id(2, 1), 5), (id(3, 1), 0)]).await, UpdateStream::Failure, "beyond the end");
    assert_eq!(truncate(&[]).await, UpdateStream::Failure);
    assert_eq!(truncate(&[(id(2, 1), 4), (id(3, 1), 0)]).await, UpdateStream::Success);
    assert_eq!(world.store.segment("s/t/1.#epoch.0"), None);
    // Epochs and successors outlive their segments.
    assert_eq!(world.controller.successors(&t, id(0, 0)).await.unwrap().len(), 1);
    assert_eq!(world.controller.epoch_segments(&t, 0).await.unwrap().len(), 2);
    assert_eq!(
        world.controller.segments_between(&t, &StreamCut::new(), &StreamCut::new()).await.unwrap_err(),
        ControllerError::Invalid("both stream cuts are empty".into())
    );
    let all = world.controller.segments_between(&t, &cut(&[(id(0, 0), 0), (id(1, 0), 0)]), &StreamCut::new()).await;
    assert_eq!(all.unwrap().len(), 4);
    let missing = world.controller.truncate_stream(&stream("x"), cut(&[(id(0, 0), 0)])).await.unwrap();
    assert_eq!(missing, UpdateStream::StreamNotFound);
}

#[tokio::test(start_paused = true)]
async fn offsets_of_unopened_segments_are_no_numbers() {
    let (world, t) = World::with_stream(2).await;
    world.append(&t, id(1, 0), "bbbb");
    world.controller.update_stream(&t, StreamConfig::new(ScalingPolicy::fixed(1))).await.unwrap();
    let half = cut(&[(id(1, 0), 2), (id(2, 1), FUTURE)]);
    assert!(world.controller.cut_is_valid(&t, &half).await.unwrap());
    assert_eq!(world.controller.truncate_stream(&t, half.clone()).await.unwrap(), UpdateStream::Success);
    assert_eq!(world.controller.head_segments(&t).await.unwrap(), half);
    assert_eq!(world.store.segment("s/t/0.#epoch.0"), None, "read to the end");
    assert_eq!(world.store.segment("s/t/2.#epoch.1").unwrap().start, 0);
    assert_eq!(world.controller.truncate_stream(&t, cut(&[(id(2, 1), 0)])).await.unwrap(), UpdateStream::Success);
    assert!(!world.controller.cut_is_valid(&t, &cut(&[(id(2, 1), FUTURE)])).await.unwrap());
    assert!(world.controller.cut_is_valid(&t, &StreamCut::new()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_head_stays_at_zero_when_a_client_truncates_a_segment_by_itself() {
    let (world, t) = World::with_stream(1).await;
    world.append(&t, id(0, 0), "aaaa");
    assert_eq!(world.controller.head_segments(&t).await.unwrap(), cut(&[(id(0, 0), 0)]));
    assert_eq!(world.controller.truncate_stream(&t, cut(&[(id(0, 0), 2)])).await.unwrap(), UpdateStream::Success);
}
