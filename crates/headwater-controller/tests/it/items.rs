//! Key-value tables, reader groups and their hold on streams.

use headwater_controller::model::{
    ControllerError, CreateGroup, CreateScope, CreateStream, CreateTable, DeleteGroup, DeleteScope, DeleteTable, Group,
    GroupRetention, Listing, MoveSubscriber, PARTITIONS_MAX, SUBSCRIBERS_MAX, ScalingPolicy, StreamConfig, StreamCut,
    TableConfig, UpdateGroup,
};
use headwater_types::Name;

use crate::support::{World, assert_covers_key_space, group_config, id, scope, stream};

const TABLE: TableConfig =
    TableConfig { partitions: 3, primary_key_bytes: 4, secondary_key_bytes: 0, rollover_bytes: 9 };

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn names(listing: Listing) -> Vec<String> {
    match listing {
        Listing::Page(page) => page.names,
        Listing::ScopeNotFound => panic!("the scope is there"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_table_is_created_once_and_its_partitions_are_table_segments() {
    let (world, _) = World::with_stream(1).await;
    let c = &world.controller;
    assert_eq!(c.create_table("s", "k", TABLE).await.unwrap(), CreateTable::Success);
    assert_eq!(c.create_table("s", "k", TableConfig { partitions: 1, ..TABLE }).await.unwrap(), CreateTable::Exists);
    assert_eq!(c.table_configuration(&scope(), &name("k")).await.unwrap(), Some(TABLE));
    let partitions = c.table_partitions(&scope(), &name("k")).await.unwrap();
    assert_eq!(partitions.len(), 3);
    assert_covers_key_space(&partitions);
    for partition in partitions {
        let segment = world.store.segment(&format!("s/k_kvtable/{}", partition.id)).unwrap();
        assert_eq!((segment.key_bytes, segment.rollover), (Some(4), 9));
    }
    assert_eq!(names(c.list_tables(&scope(), "").await.unwrap()), vec!["k"]);
    assert_eq!(names(c.list_tables(&scope(), "k").await.unwrap()), Vec::<String>::new());
    assert_eq!(c.list_tables(&name("none"), "").await.unwrap(), Listing::ScopeNotFound);
}

#[tokio::test(start_paused = true)]
async fn a_table_made_again_has_other_segments() {
    let (world, _) = World::with_stream(1).await;
    let c = &world.controller;
    c.create_table("s", "k", TABLE).await.unwrap();
    assert_eq!(c.delete_table(&scope(), &name("k")).await.unwrap(), DeleteTable::Success);
    assert_eq!(c.delete_table(&scope(), &name("k")).await.unwrap(), DeleteTable::NotFound);
    assert_eq!(c.table_configuration(&scope(), &name("k")).await.unwrap(), None);
    assert!(matches!(c.table_partitions(&scope(), &name("k")).await, Err(ControllerError::NotFound(_))));
    assert!(!world.store.segment_names().iter().any(|segment| segment.contains("kvtable")));
    c.create_table("s", "k", TABLE).await.unwrap();
    let partitions = c.table_partitions(&scope(), &name("k")).await.unwrap();
    assert_eq!(partitions.iter().map(|p| p.id).collect::<Vec<_>>(), vec![id(3, 0), id(4, 0), id(5, 0)]);
}

#[tokio::test(start_paused = true)]
async fn tables_that_cannot_be_are_refused_and_leave_nothing() {
    let (world, _) = World::with_stream(1).await;
    let c = &world.controller;
    let before = world.store.segment_names();
    for config in [
        TableConfig { partitions: 0, ..TABLE },
        TableConfig { partitions: -1, ..TABLE },
        TableConfig { partitions: PARTITIONS_MAX + 1, ..TABLE },
        TableConfig { partitions: i32::MAX, ..TABLE },
        TableConfig { primary_key_bytes: 0, ..TABLE },
        TableConfig { primary_key_bytes: i32::MAX, secondary_key_bytes: i32::MAX, ..TABLE },
        TableConfig { primary_key_bytes: 256, secondary_key_bytes: 1, ..TABLE },
        TableConfig { secondary_key_bytes: -1, ..TABLE },
        TableConfig { rollover_bytes: -1, ..TABLE },
    ] {
        assert!(matches!(c.create_table("s", "k", config).await, Err(ControllerError::Invalid(_))), "{config:?}");
    }
    for bad in ["_k", "a/b", "k_kvtable", &"k".repeat(251)] {
        assert_eq!(c.create_table("s", bad, TABLE).await.unwrap(), CreateTable::InvalidName, "{bad}");
    }
    assert!(matches!(c.create_table("s", "", TABLE).await, Err(ControllerError::Invalid(_))));
    assert_eq!(c.create_table("none", "k", TABLE).await.unwrap(), CreateTable::ScopeNotFound);
    assert_eq!(world.store.segment_names(), before);
    assert_eq!(world.store.table_len("work"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_table_does_not_take_over_what_a_client_made_by_itself() {
    let (world, _) = World::with_stream(1).await;
    world.store.create("s/k_kvtable/0.#epoch.0");
    assert_eq!(world.controller.create_table("s", "k", TABLE).await.unwrap(), CreateTable::Taken);
    assert!(world.store.segment("s/k_kvtable/0.#epoch.0").is_some());
    assert_eq!(names(world.controller.list_tables(&scope(), "").await.unwrap()), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_group_is_returned_as_it_was_created_whatever_is_asked_for_later() {
    let (world, t) = World::with_stream(1).await;
    let c = &world.controller;
    let mut config = group_config(&[&t], GroupRetention::None);
    config.starting[0].cut = [(id(0, 0), 5)].into();
    let group = Group { id: 7, generation: 0, config: config.clone() };
    assert_eq!(c.create_group("s", "g", 7, config).await.unwrap(), CreateGroup::Group(group.clone()));
    let other = group_config(&[], GroupRetention::Manual);
    assert_eq!(c.create_group("s", "g", 8, other.clone()).await.unwrap(), CreateGroup::Group(group.clone()));
    assert_eq!(c.group(&scope(), &name("g")).await.unwrap(), Some(group));
    assert_eq!(world.store.segment("s/_RGg/0.#epoch.0").unwrap().rollover, 4 << 20);
    assert_eq!(c.list_subscribers(&t).await.unwrap(), Some(Vec::new()));
    assert_eq!(names(c.list_groups(&scope(), "").await.unwrap()), vec!["g"]);
    assert!(names(c.list_streams(&scope(), "").await.unwrap()).contains(&"_RGg".to_owned()));
    assert_eq!(c.create_group("none", "g", 7, other.clone()).await.unwrap(), CreateGroup::ScopeNotFound);
    assert_eq!(c.create_group("s", "_g", 7, other).await.unwrap(), CreateGroup::InvalidName);
    assert_eq!(c.delete_scope(&scope()).await.unwrap(), DeleteScope::NotEmpty);
}

#[tokio::test(start_paused = true)]
async fn an_update_needs_the_groups_id_and_generation() {
    let (world, t) = World::with_stream(1).await;
    let c = &world.controller;
    c.create_group("s", "g", 7, group_config(&[&t], GroupRetention::None)).await.unwrap();
    let config = group_config(&[], GroupRetention::None);
    let (s, g) = (scope(), name("g"));
    assert_eq!(c.update_group(&s, &g, 8, 0, config.clone()).await.unwrap(), UpdateGroup::InvalidConfig);
    assert_eq!(c.update_group(&s, &g, 7, 1, config.clone()).await.unwrap(), UpdateGroup::InvalidConfig);
    assert_eq!(c.update_group(&s, &g, 7, 0, config.clone()).await.unwrap(), UpdateGroup::Success { generation: 1 });
    assert_eq!(c.update_group(&s, &g, 7, 0, config.clone()).await.unwrap(), UpdateGroup::InvalidConfig);
    assert_eq!(c.update_group(&s, &name("none"), 7, 0, config.clone()).await.unwrap(), UpdateGroup::NotFound);
    assert_eq!(c.group(&s, &g).await.unwrap().unwrap().config, config);
}

#[tokio::test(start_paused = true)]
async fn a_group_holds_the_streams_that_its_configuration_names() {
    let (world, t) = World::with_stream(1).await;
    world.create("u", 1).await;
    let (c, u, missing) = (&world.controller, stream("u"), stream("missing"));
    let (s, g) = (scope(), name("g"));
    c.create_group("s", "g", 7, group_config(&[&t, &missing], GroupRetention::Automatic)).await.unwrap();
    assert_eq!(c.list_subscribers(&t).await.unwrap(), Some(vec!["s/g".into()]));
    assert_eq!(c.list_subscribers(&u).await.unwrap(), Some(Vec::new()));
    assert_eq!(c.list_subscribers(&missing).await.unwrap(), None);

    c.update_group(&s, &g, 7, 0, group_config(&[&u], GroupRetention::Manual)).await.unwrap();
    assert_eq!(c.list_subscribers(&t).await.unwrap(), Some(Vec::new()));
    assert_eq!(c.list_subscribers(&u).await.unwrap(), Some(vec!["s/g".into()]));
    let cut: StreamCut = [(id(0, 0), 0)].into();
    let moved = c.move_subscriber(&u, "s/g", 7, 0, cut.clone()).await.unwrap();
    assert_eq!(moved, MoveSubscriber::GenerationMismatch, "the subscription has the new generation");
    assert_eq!(c.move_subscriber(&u, "s/g", 7, 1, cut).await.unwrap(), MoveSubscriber::Success);

    assert_eq!(c.delete_group(&s, &g, Some(8)).await.unwrap(), DeleteGroup::NotFound);
    assert_eq!(c.delete_group(&s, &g, Some(7)).await.unwrap(), DeleteGroup::Success);
    assert_eq!(c.delete_group(&s, &g, Some(7)).await.unwrap(), DeleteGroup::NotFound);
    assert_eq!(c.list_subscribers(&u).await.unwrap(), Some(Vec::new()));
    assert!(world.store.segment("s/_RGg/0.#epoch.0").is_none());
    // Made again, its stream goes on with other segments.
    c.create_group("s", "g", 7, group_config(&[&u], GroupRetention::None)).await.unwrap();
    assert!(world.store.segment("s/_RGg/1.#epoch.0").is_some());
}

#[tokio::test(start_paused = true)]
async fn so_many_groups_hold_a_stream_back_and_no_more() {
    let (world, t) = World::with_stream(1).await;
    let c = &world.controller;
    let config = group_config(&[&t], GroupRetention::Manual);
    for number in 0..SUBSCRIBERS_MAX {
        let created = c.create_group("s", &format!("g{number}"), number as u128 + 1, config.clone()).await.unwrap();
        assert!(matches!(created, CreateGroup::Group(_)));
    }
    let one_more = || c.create_group("s", "more", 7, config.clone());
    assert!(matches!(one_more().await, Err(ControllerError::Exhausted(_))));
    assert_eq!(c.group(&scope(), &name("more")).await.unwrap(), None, "nothing was begun");
    // Those that are there go on, and others that hold nothing back may come.
    assert!(matches!(c.create_group("s", "g5", 6, config.clone()).await.unwrap(), CreateGroup::Group(_)));
    let updated = c.update_group(&scope(), &name("g5"), 6, 0, config.clone()).await.unwrap();
    assert_eq!(updated, UpdateGroup::Success { generation: 1 });
    let free = group_config(&[&t], GroupRetention::None);
    assert!(matches!(c.create_group("s", "free", 7, free).await.unwrap(), CreateGroup::Group(_)));
    let refused = c.update_group(&scope(), &name("free"), 7, 0, config.clone()).await;
    assert!(matches!(refused, Err(ControllerError::Exhausted(_))));
    assert_eq!(c.delete_group(&scope(), &name("g9"), None).await.unwrap(), DeleteGroup::Success);
    assert!(matches!(one_more().await.unwrap(), CreateGroup::Group(_)));
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_moves_forwards_only_and_checks_come_in_the_order_of_the_original() {
    let (world, t) = World::with_stream(2).await;
    let c = &world.controller;
    c.create_group("s", "g", 7, group_config(&[&t], GroupRetention::Manual)).await.unwrap();
    let cut = |a: i64, b: i64| -> StreamCut { [(id(0, 0), a), (id(1, 0), b)].into() };
    let none = stream("none");
    assert_eq!(c.move_subscriber(&none, "s/g", 7, 0, cut(0, 0)).await.unwrap(), MoveSubscriber::StreamNotFound);
    assert_eq!(c.move_subscriber(&t, "s/x", 7, 5, cut(0, 0)).await.unwrap(), MoveSubscriber::SubscriberNotFound);
    assert_eq!(c.move_subscriber(&t, "s/g", 8, 5, cut(0, 0)).await.unwrap(), MoveSubscriber::SubscriberNotFound);
    assert_eq!(c.move_subscriber(&t, "s/g", 7, 5, StreamCut::new()).await.unwrap(), MoveSubscriber::GenerationMismatch);
    for bad in [StreamCut::new(), [(id(0, 0), 5)].into(), [(id(9, 0), 5)].into(), [(id(0, i32::MAX), 5)].into()] {
        assert_eq!(c.move_subscriber(&t, "s/g", 7, 0, bad).await.unwrap(), MoveSubscriber::CutNotValid);
    }
    assert_eq!(c.move_subscriber(&t, "s/g", 7, 0, cut(5, 5)).await.unwrap(), MoveSubscriber::Success);
    assert_eq!(c.move_subscriber(&t, "s/g", 7, 0, cut(5, 5)).await.unwrap(), MoveSubscriber::Success);
    assert_eq!(c.move_subscriber(&t, "s/g", 7, 0, cut(4, 9)).await.unwrap(), MoveSubscriber::CutNotValid);
    world.scale(&t, &[id(0, 0), id(1, 0)], &[(0.0, 0.7), (0.7, 1.0)]).await;
    let later: StreamCut = [(id(2, 1), 0), (id(3, 1), 0)].into();
    assert_eq!(c.move_subscriber(&t, "s/g", 7, 0, later).await.unwrap(), MoveSubscriber::Success);
    assert_eq!(c.move_subscriber(&t, "s/g", 7, 0, cut(9, 9)).await.unwrap(), MoveSubscriber::CutNotValid);
}

#[tokio::test(start_paused = true)]
async fn a_scope_goes_with_everything_in_it() {
    let (world, t) = World::with_stream(2).await;
    let c = &world.controller;
    let system = name("_system");
    assert_eq!(c.delete_scope_recursive(&system).await.unwrap(), DeleteScope::NotEmpty);
    assert_eq!(c.delete_scope_recursive(&name("none")).await.unwrap(), DeleteScope::NotFound);
    c.create_table("s", "k", TABLE).await.unwrap();
    c.create_group("s", "g", 7, group_config(&[&t], GroupRetention::Manual)).await.unwrap();
    c.create_transaction(&t, 60_000).await.unwrap();
    world.store.create("s/own_kvtable/0.#epoch.0");
    world.create("sealed", 1).await;
    c.seal_stream(&stream("sealed")).await.unwrap();
    assert_eq!(c.delete_scope(&scope()).await.unwrap(), DeleteScope::NotEmpty);
    assert_eq!(c.delete_scope_recursive(&scope()).await.unwrap(), DeleteScope::Success);
    assert!(!c.scope_exists(&scope()).await.unwrap());
    assert!(!c.stream_exists(&t).await.unwrap());
    assert_eq!(world.store.segment_names(), Vec::<String>::new());
    assert_eq!(c.create_scope("s").await.unwrap(), CreateScope::Success);
}

#[tokio::test(start_paused = true)]
async fn nothing_new_comes_into_a_scope_that_is_going() {
    let (world, _) = World::with_stream(1).await;
    for number in 0..30 {
        world.create(&format!("t{number}"), 1).await;
    }
    let c = world.controller.clone();
    let going = tokio::spawn(async move { c.delete_scope_recursive(&scope()).await });
    let c = &world.controller;
    while c.scope_exists(&scope()).await.unwrap() {
        tokio::task::yield_now().await;
    }
    let config = StreamConfig::new(ScalingPolicy::fixed(1));
    assert!(world.store.table_len("scopes") == 2, "it is still going");
    assert_eq!(c.create_stream("s", "new", config).await.unwrap(), CreateStream::ScopeNotFound);
    assert_eq!(c.create_table("s", "new", TABLE).await.unwrap(), CreateTable::ScopeNotFound);
    let group = group_config(&[], GroupRetention::None);
    assert_eq!(c.create_group("s", "new", 7, group).await.unwrap(), CreateGroup::ScopeNotFound);
    assert_eq!(c.create_scope("s").await.unwrap(), CreateScope::Exists);
    assert_eq!(c.delete_scope_recursive(&scope()).await.unwrap(), DeleteScope::Success, "under way");
    assert_eq!(going.await.unwrap().unwrap(), DeleteScope::Success);
    assert_eq!(world.store.segment_names(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn streams_that_are_being_created_while_their_scope_goes_are_gone_too() {
    for seed in 1..40 {
        let world = World::new().await;
        world.controller.create_scope("s").await.unwrap();
        let mut world = world;
        world.restart_jittery(None, seed);
        world.controller.recover().await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..5 {
            let c = world.controller.clone();
            tasks.spawn(async move {
                let config = StreamConfig::new(ScalingPolicy::fixed(1));
                c.create_stream("s", &format!("t{number}"), config).await.unwrap();
                c.create_group("s", &format!("g{number}"), 7, group_config(&[], GroupRetention::None)).await.unwrap();
                c.create_table("s", &format!("k{number}"), TABLE).await.unwrap();
            });
        }
        let c = world.controller.clone();
        tasks.spawn(async move {
            for _ in 0..seed {
                tokio::task::yield_now().await;
            }
            assert_eq!(c.delete_scope_recursive(&scope()).await.unwrap(), DeleteScope::Success);
        });
        while let Some(done) = tasks.join_next().await {
            done.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
        assert_eq!(world.store.segment_names(), Vec::<String>::new(), "seed {seed}");
        assert_eq!(world.store.table_len("scopes"), 1, "seed {seed}");
    }
}
