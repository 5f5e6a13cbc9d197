//! Scopes, streams as items of a scope, listings.

use std::collections::BTreeSet;
use std::time::Duration;

use headwater_controller::model::{
    ControllerError, CreateGroup, CreateScope, CreateStream, DeleteScope, DeleteStream, GroupRetention, Listing,
    PAGE_ENTRIES, Page, RetentionKind, RetentionPolicy, ScalingKind, ScalingPolicy, StreamConfig, UpdateStream,
};
use headwater_types::Name;

use crate::memory::{Fault, Store};
use crate::support::{World, group_config, id, scope, stream};

fn page(listing: Listing) -> Page {
    match listing {
        Listing::Page(page) => page,
        Listing::ScopeNotFound => panic!("no such scope"),
    }
}

/// As every client does: ask until a page is empty.
async fn streams(world: &World) -> Vec<String> {
    let mut names = Vec::new();
    let mut token = String::new();
    loop {
        let page = page(world.controller.list_streams(&scope(), &token).await.unwrap());
        if page.names.is_empty() {
            return names;
        }
        assert_ne!(page.token, token, "the token leads past the page");
        token = page.token;
        names.extend(page.names);
    }
}

async fn tagged(world: &World, tag: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut token = String::new();
    loop {
        let page = page(world.controller.list_streams_by_tag(&scope(), tag, &token).await.unwrap());
        if page.names.is_empty() {
            return names;
        }
        token = page.token;
        names.extend(page.names);
    }
}

#[tokio::test(start_paused = true)]
async fn a_scope_is_created_once_and_deleted_when_empty() {
    let world = World::new().await;
    let controller = &world.controller;
    assert_eq!(controller.create_scope("s").await.unwrap(), CreateScope::Success);
    assert_eq!(controller.create_scope("s").await.unwrap(), CreateScope::Exists);
    assert_eq!(controller.create_scope("a b").await.unwrap(), CreateScope::InvalidName);
    assert!(matches!(controller.create_scope("").await, Err(ControllerError::Invalid(_))));
    assert!(controller.scope_exists(&scope()).await.unwrap());
    assert_eq!(controller.delete_scope(&scope()).await.unwrap(), DeleteScope::Success);
    assert_eq!(controller.delete_scope(&scope()).await.unwrap(), DeleteScope::NotFound);
    assert!(!controller.scope_exists(&scope()).await.unwrap());
    assert_eq!(controller.list_streams(&scope(), "").await.unwrap(), Listing::ScopeNotFound);
}

#[tokio::test(start_paused = true)]
async fn the_internal_scope_is_listed_and_cannot_be_deleted() {
    let world = World::new().await;
    assert_eq!(world.controller.list_scopes("").await.unwrap().names, vec!["_system"]);
    let system = Name::parse("_system").unwrap();
    assert_eq!(world.controller.delete_scope(&system).await.unwrap(), DeleteScope::NotEmpty);
    let config = StreamConfig::new(ScalingPolicy::fixed(1));
    let created = world.controller.create_stream("_system", "_tables", config).await.unwrap();
    assert_eq!(created, CreateStream::InvalidName, "the tables of the system have names of that form");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_scope_takes_client_made_tables_with_it() {
    let world = World::new().await;
    world.controller.create_scope("s").await.unwrap();
    world.store.create("s/group_kvtable/0.#epoch.0");
    world.store.create("s2/group_kvtable/0.#epoch.0");
    assert_eq!(world.controller.delete_scope(&scope()).await.unwrap(), DeleteScope::Success);
    assert_eq!(world.store.segment_names(), vec!["s2/group_kvtable/0.#epoch.0"]);
}

#[tokio::test(start_paused = true)]
async fn a_scope_with_internal_streams_is_not_empty() {
    let (world, t) = World::with_stream(1).await;
    assert_eq!(world.controller.delete_scope(&scope()).await.unwrap(), DeleteScope::NotEmpty);
    world.controller.seal_stream(&t).await.unwrap();
    assert_eq!(world.controller.delete_stream(&t).await.unwrap(), DeleteStream::Success);
    // The mark stream vanished with its owner.
    assert_eq!(world.controller.delete_scope(&scope()).await.unwrap(), DeleteScope::Success);
}

#[tokio::test(start_paused = true)]
async fn every_user_stream_has_a_mark_stream_and_listings_show_it() {
    let (world, _) = World::with_stream(3).await;
    assert_eq!(streams(&world).await, vec!["_MARKt", "t"]);
    assert_eq!(world.current(&stream("_MARKt")).await, vec![id(0, 0)]);
    world.create("_RGgroup", 1).await;
    assert_eq!(streams(&world).await, vec!["_MARKt", "_RGgroup", "t"], "internal streams have none");
}

/// Clients ask for the streams of groups by themselves, and may do so with the right to read alone.
#[tokio::test(start_paused = true)]
async fn nobody_makes_a_mark_stream_and_a_groups_stream_only_as_a_group_would() {
    let (world, _) = World::with_stream(1).await;
    let create = |name: &'static str, config| world.controller.create_stream("s", name, config);
    let plain = StreamConfig::new(ScalingPolicy::fixed(1));
    let by_rate = ScalingPolicy { kind: ScalingKind::Events, target_rate: 1, scale_factor: 2, min_segments: 1 };
    let retention = Some(RetentionPolicy { kind: RetentionKind::Time, keep: 1, keep_max: i64::MAX });
    for name in ["_MARK", "_MARKorders", "_MARKt"] {
        for config in [plain.clone(), StreamConfig::new(ScalingPolicy::fixed(7))] {
            assert_eq!(create(name, config).await.unwrap(), CreateStream::InvalidName, "{name}");
        }
    }
    for config in [
        StreamConfig::new(ScalingPolicy::fixed(2)),
        StreamConfig::new(by_rate),
        StreamConfig { retention, ..plain.clone() },
        StreamConfig { tags: vec!["a".into()], ..plain.clone() },
        StreamConfig { rollover_bytes: 1, ..plain.clone() },
    ] {
        let refused = create("_RGbig", config.clone()).await;
        assert!(matches!(refused, Err(ControllerError::Invalid(_))), "{config:?}: {refused:?}");
    }
    assert_eq!(streams(&world).await, vec!["_MARKt", "t"]);
    assert_eq!(create("_RGbig", plain.clone()).await.unwrap(), CreateStream::Success);
    let rolling = StreamConfig { rollover_bytes: 4 << 20, ..plain };
    assert_eq!(create("_RGother", rolling).await.unwrap(), CreateStream::Success);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_for_a_group_or_another_stream_stays_in_its_one_segment() {
    let (world, _) = World::with_stream(1).await;
    world.create("_RGg", 1).await;
    for name in ["_RGg", "_MARKt"] {
        let kept = stream(name);
        let scaled = world.controller.scale(&kept, vec![id(0, 0)], vec![(0.0, 1.0)]).await;
        assert!(matches!(scaled, Err(ControllerError::Invalid(_))), "{name}: {scaled:?}");
        let plain = StreamConfig::new(ScalingPolicy::fixed(1));
        let retention = Some(RetentionPolicy { kind: RetentionKind::Time, keep: 1, keep_max: i64::MAX });
        let limited = StreamConfig { retention, ..plain.clone() };
        for config in [StreamConfig::new(ScalingPolicy::fixed(2)), limited] {
            let updated = world.controller.update_stream(&kept, config).await;
            assert!(matches!(updated, Err(ControllerError::Invalid(_))), "{name}: {updated:?}");
        }
        assert_eq!(world.controller.update_stream(&kept, plain).await.unwrap(), UpdateStream::Success);
        assert_eq!(world.current(&kept).await, [id(0, 0)], "{name}");
    }
}

/// Earlier servers made streams of these names as they were asked to.
#[tokio::test(start_paused = true)]
async fn what_was_made_in_the_place_of_a_mark_or_group_stream_is_not_taken_for_it() {
    let world = World::new().await;
    world.controller.create_scope("s").await.unwrap();
    for name in ["_MARXorders", "_MARXsealed", "_RXbig"] {
        world.create(name, 7).await;
    }
    world.controller.seal_stream(&stream("_MARXsealed")).await.unwrap();
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let old = [("_MARX", "_MARK"), ("_RX", "_RG")]
        .iter()
        .fold(world.store.dump(), |dump, (from, to)| dump.replace(from, to).replace(&hex(from), &hex(to)));
    let world = World::on(Store::parse(&old));
    world.controller.recover().await.unwrap();
    assert_eq!(streams(&world).await, vec!["_MARKorders", "_MARKsealed", "_RGbig"]);

    for name in ["orders", "sealed"] {
        world.create(name, 2).await;
        assert_eq!(world.current(&stream(&format!("_MARK{name}"))).await, vec![id(7, 0)], "{name}");
    }
    let c = &world.controller;
    let group = || c.create_group("s", "big", 7, group_config(&[&stream("orders")], GroupRetention::None));
    assert!(matches!(group().await, Err(ControllerError::Invalid(_))), "it may be somebody's");
    assert_eq!(c.group(&scope(), &Name::parse("big").unwrap()).await.unwrap(), None);
    c.seal_stream(&stream("_RGbig")).await.unwrap();
    assert!(matches!(group().await, Err(ControllerError::Invalid(_))), "nothing can be written there");
    c.delete_stream(&stream("_RGbig")).await.unwrap();
    assert!(matches!(group().await, Ok(CreateGroup::Group(_))));
    assert_eq!(world.current(&stream("_RGbig")).await, vec![id(7, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_mark_stream_may_be_deleted_before_or_after_its_owner() {
    let (world, t) = World::with_stream(1).await;
    let mark = stream("_MARKt");
    assert_eq!(world.controller.seal_stream(&mark).await.unwrap(), UpdateStream::Success);
    assert_eq!(world.controller.delete_stream(&mark).await.unwrap(), DeleteStream::Success);
    world.controller.seal_stream(&t).await.unwrap();
    assert_eq!(world.controller.delete_stream(&t).await.unwrap(), DeleteStream::Success);
    assert_eq!(world.controller.seal_stream(&mark).await.unwrap(), UpdateStream::StreamNotFound);
    assert_eq!(world.controller.delete_stream(&mark).await.unwrap(), DeleteStream::NotFound);
}

#[tokio::test(start_paused = true)]
async fn listings_end_with_an_empty_page() {
    let world = World::new().await;
    world.controller.create_scope("s").await.unwrap();
    let count = PAGE_ENTRIES / 2 + 100;
    for number in 0..count {
        world.create(&format!("t{number}"), 1).await;
    }
    let names = streams(&world).await;
    assert_eq!(names.len(), 2 * count, "with mark streams");
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 2 * count, "each once");
    let last = page(world.controller.list_streams(&scope(), names.last().unwrap()).await.unwrap());
    assert!(last.names.is_empty());
    assert!(world.controller.list_streams(&scope(), "no/token").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn streams_are_found_by_exact_tag_over_more_than_one_page() {
    let world = World::new().await;
    world.controller.create_scope("s").await.unwrap();
    let count = PAGE_ENTRIES + 5;
    for number in 0..count {
        let tags = if number % 2 == 0 { vec!["all".into(), "even".into()] } else { vec!["all".into()] };
        let config = StreamConfig { tags, ..StreamConfig::new(ScalingPolicy::fixed(1)) };
        world.controller.create_stream("s", &format!("t{number:05}"), config).await.unwrap();
    }
    assert_eq!(tagged(&world, "all").await.len(), count);
    assert_eq!(tagged(&world, "even").await.len(), count.div_ceil(2));
    assert!(tagged(&world, "eve").await.is_empty());
    assert!(matches!(world.controller.list_streams_by_tag(&scope(), "", "").await, Err(ControllerError::Invalid(_))));
}

#[tokio::test(start_paused = true)]
async fn an_update_moves_a_stream_between_tags() {
    let world = World::new().await;
    world.controller.create_scope("s").await.unwrap();
    let config = |tags: &[&str]| StreamConfig {
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        ..StreamConfig::new(ScalingPolicy::fixed(1))
    };
    world.controller.create_stream("s", "t", config(&["a", "b", "b"])).await.unwrap();
    assert_eq!(tagged(&world, "b").await, vec!["t"]);
    world.controller.update_stream(&stream("t"), config(&["b", "c"])).await.unwrap();
    assert!(tagged(&world, "a").await.is_empty());
    assert_eq!(tagged(&world, "b").await, vec!["t"]);
    assert_eq!(tagged(&world, "c").await, vec!["t"]);
    world.controller.seal_stream(&stream("t")).await.unwrap();
    world.controller.delete_stream(&stream("t")).await.unwrap();
    assert!(tagged(&world, "c").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_configuration_comes_back_as_it_was_given() {
    let world = World::new().await;
    world.controller.create_scope("s").await.unwrap();
    let config = StreamConfig {
        scaling: ScalingPolicy { kind: ScalingKind::Events, target_rate: 10, scale_factor: 2, min_segments: 3 },
        retention: Some(RetentionPolicy { kind: RetentionKind::Size, keep: 5, keep_max: i64::MAX }),
        tags: vec!["b".into(), "a".into()],
        timestamp_aggregation_timeout_ms: 7,
        rollover_bytes: 8,
    };
    assert_eq!(world.controller.create_stream("s", "t", config.clone()).await.unwrap(), CreateStream::Success);
    assert_eq!(world.controller.stream_configuration(&stream("t")).await.unwrap(), config);
    let segment = world.store.segment("s/t/0.#epoch.0").unwrap();
    assert_eq!((segment.hint.kind, segment.hint.rate, segment.rollover), (2, 10, 8));
    let missing = world.controller.stream_configuration(&stream("x")).await;
    assert!(matches!(missing, Err(ControllerError::NotFound(_))));
}

#[tokio::test(start_paused = true)]
async fn creating_a_stream_answers_each_case() {
    let (world, _) = World::with_stream(1).await;
    let config = StreamConfig::new(ScalingPolicy::fixed(1));
    let create = async |scope: &str, stream: &str, config: &StreamConfig| {
        world.controller.create_stream(scope, stream, config.clone()).await
    };
    assert_eq!(create("s", "t", &config).await.unwrap(), CreateStream::Exists);
    assert_eq!(create("x", "t", &config).await.unwrap(), CreateStream::ScopeNotFound);
    assert_eq!(create("s", "a/b", &config).await.unwrap(), CreateStream::InvalidName);
    assert_eq!(create("s", &"a".repeat(251), &config).await.unwrap(), CreateStream::InvalidName, "no mark stream fits");
    assert_eq!(create("s", &"a".repeat(250), &config).await.unwrap(), CreateStream::Success);
    for bad in [
        StreamConfig::new(ScalingPolicy::fixed(0)),
        StreamConfig::new(ScalingPolicy::fixed(1_000_000)),
        StreamConfig { rollover_bytes: -1, ..config.clone() },
        StreamConfig { tags: vec!["x".repeat(5000)], ..config.clone() },
    ] {
        assert!(matches!(create("s", "u", &bad).await, Err(ControllerError::Invalid(_))));
    }
    assert!(!world.controller.stream_exists(&stream("u")).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_stream_exists_until_it_is_deleted() {
    let (world, t) = World::with_stream(1).await;
    assert!(world.controller.stream_exists(&t).await.unwrap());
    assert!(!world.controller.stream_exists(&stream("never")).await.unwrap(), "an answer, not an error");
    assert_eq!(world.controller.delete_stream(&t).await.unwrap(), DeleteStream::NotSealed);
    assert_eq!(world.controller.seal_stream(&t).await.unwrap(), UpdateStream::Success);
    assert_eq!(world.controller.seal_stream(&t).await.unwrap(), UpdateStream::Success);
    assert!(world.controller.stream_exists(&t).await.unwrap());
    let config = StreamConfig::new(ScalingPolicy::fixed(2));
    assert_eq!(world.controller.update_stream(&t, config).await.unwrap(), UpdateStream::Sealed);
    assert_eq!(world.controller.delete_stream(&t).await.unwrap(), DeleteStream::Success);
    assert_eq!(world.controller.delete_stream(&t).await.unwrap(), DeleteStream::NotFound);
    assert!(!world.controller.stream_exists(&t).await.unwrap());
    assert!(world.store.segment_names().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_made_again_numbers_on() {
    let (world, t) = World::with_stream(2).await;
    world.scale(&t, &[id(0, 0)], &[(0.0, 0.25), (0.25, 0.5)]).await;
    world.controller.seal_stream(&t).await.unwrap();
    world.controller.delete_stream(&t).await.unwrap();
    world.create("t", 2).await;
    assert_eq!(world.current(&t).await, vec![id(4, 0), id(5, 0)]);
    // Also when the scope goes with it.
    world.controller.seal_stream(&t).await.unwrap();
    world.controller.delete_stream(&t).await.unwrap();
    world.controller.delete_scope(&scope()).await.unwrap();
    world.controller.create_scope("s").await.unwrap();
    world.create("t", 1).await;
    assert_eq!(world.current(&t).await, vec![id(6, 0)]);
}

#[tokio::test(start_paused = true)]
async fn concurrent_creations_of_one_name_have_one_winner() {
    let world = World::new().await;
    world.controller.create_scope("s").await.unwrap();
    let config = StreamConfig::new(ScalingPolicy::fixed(1));
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let (controller, config) = (world.controller.clone(), config.clone());
            tokio::spawn(async move { controller.create_stream("s", "t", config).await.unwrap() })
        })
        .collect();
    let mut won = 0;
    for call in calls {
        won += usize::from(call.await.unwrap() == CreateStream::Success);
    }
    assert_eq!(won, 1);
}

#[tokio::test(start_paused = true)]
async fn a_start_after_idle_streams_touches_none_of_them() {
    let (mut world, _) = World::with_stream(1).await;
    for number in 0..50 {
        world.create(&format!("t{number}"), 2).await;
    }
    assert_eq!(world.store.table_len("work"), 0);
    world.restart(None);
    world.controller.recover().await.unwrap();
    assert!(world.link.calls() < 20, "{} calls", world.link.calls());
}

/// The last step of a stream's end is not the one that takes it out of the listing by which a scope's end finds it.
#[tokio::test(start_paused = true)]
async fn a_stream_whose_end_was_under_way_ends_also_after_its_scope() {
    for last in 1.. {
        let mut calls = 0;
        for seed in 1..6 {
            let (mut world, _) = World::with_stream(2).await;
            world.restart(Some(Fault::CrashBefore(last)));
            let _ = world.controller.recover().await;
            let _ = world.controller.delete_scope_recursive(&scope()).await;
            calls = world.link.calls();
            world.restart_jittery(None, seed);
            world.controller.recover().await.unwrap();
            world.controller.delete_scope_recursive(&scope()).await.unwrap();
            tokio::time::sleep(Duration::from_secs(120)).await;
            assert_eq!(world.store.segment_names(), Vec::<String>::new(), "before call {last}, seed {seed}");
            let left: Vec<_> =
                world.store.table_names().into_iter().filter(|name| name.starts_with("stream/")).collect();
            assert_eq!((left, world.store.table_len("work")), (Vec::new(), 0), "before call {last}, seed {seed}");
        }
        if calls < last {
            assert!(last > 40, "only {last} calls");
            return;
        }
    }
}

/// The store says that it did not write what it writes later.
#[tokio::test(start_paused = true)]
async fn the_beginning_of_a_deletion_that_was_given_up_takes_no_effect_later() {
    let (world, t) = World::with_stream(1).await;
    world.link.delay("scopes");
    assert!(world.controller.delete_scope_recursive(&scope()).await.is_err());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(world.link.land().is_err(), "the record is another one now");
    assert!(
        world.controller.scope_exists(&scope()).await.unwrap() && world.controller.stream_exists(&t).await.unwrap()
    );
    assert_eq!(world.store.table_len("work"), 0);
    assert_eq!(world.controller.delete_scope_recursive(&scope()).await.unwrap(), DeleteScope::Success);
    assert_eq!(world.store.segment_names(), Vec::<String>::new());
    assert!(!world.controller.scope_exists(&scope()).await.unwrap());
}

/// The first deletion fails and is tried again while the second is under way.
#[tokio::test(start_paused = true)]
async fn whoever_deletes_a_scope_leaves_the_next_one_of_its_name_alone() {
    for seed in 1..50 {
        let (mut world, _) = World::with_stream(1).await;
        world.create("u", 1).await;
        world.restart_jittery(None, seed);
        let c = world.controller.clone();
        c.recover().await.unwrap();
        world.link.delay("scopes");
        let (scope, next) = (scope(), scope());
        let (first, second) = tokio::join!(c.delete_scope_recursive(&scope), c.delete_scope_recursive(&next));
        assert!(first.is_err() && second == Ok(DeleteScope::Success), "seed {seed}: {first:?} {second:?}");
        assert_eq!(c.create_scope("s").await.unwrap(), CreateScope::Success, "seed {seed}");
        world.create("t", 1).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(c.stream_exists(&stream("t")).await.unwrap(), "seed {seed}");
        assert_eq!(streams(&world).await, vec!["_MARKt", "t"], "seed {seed}");
        c.shutdown();
    }
}
