//! Tables that earlier releases wrote: every release reads them all, answers what was answered then, and goes on with
//! what was under way.
//!
//! `tests/golden/RELEASE.store` is everything in the store as that release left it, `RELEASE.expected` what it answered
//! when asked for everything. Neither is changed once the release is out. A release that changes a record adds its own:
//! `HEADWATER_WRITE_GOLDEN=RELEASE cargo test --release -p headwater-controller golden`. `0.1.0` has transactions with
//! times by the wall clock, from before that release was out, `0.1.0-2` those that it writes.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use headwater_controller::Controller;
use headwater_controller::model::{
    ControllerError, CreateStream, DeleteScope, EndTransaction, GroupRetention, Listing, MoveSubscriber, NoteTime,
    RetentionKind, RetentionPolicy, ScalingKind, ScalingPolicy, StreamConfig, StreamCut, TableConfig, TransactionState,
    UpdateStream,
};
use headwater_types::{Name, ScopedStream};

use crate::memory::Store;
use crate::support::{World, group_config, id, scope, stream};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Runs with the time paused.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(future)
}

/// A controller on a copy of that store.
fn world(store: &str) -> World {
    World::on(Store::parse(store))
}

/// Something of every kind, some of it under way.
async fn write() -> World {
    let world = World::new().await;
    let c = &world.controller;
    c.create_scope("s").await.unwrap();
    c.create_scope("empty").await.unwrap();
    let t = stream("t");
    let scaling = ScalingPolicy { kind: ScalingKind::Events, target_rate: 1000, scale_factor: 2, min_segments: 2 };
    let retention = RetentionPolicy { kind: RetentionKind::Size, keep: 1 << 40, keep_max: i64::MAX };
    let config = StreamConfig {
        tags: vec!["red".into(), "blue".into()],
        retention: Some(retention),
        ..StreamConfig::new(scaling)
    };
    assert_eq!(c.create_stream("s", "t", config).await.unwrap(), CreateStream::Success);
    let committed = c.create_transaction(&t, 600_000).await.unwrap();
    let aborted = c.create_transaction(&t, 600_000).await.unwrap();
    world.scale(&t, &[id(0, 0)], &[(0.0, 0.25), (0.25, 0.5)]).await;
    for (id, state) in [(committed.id, TransactionState::Committed), (aborted.id, TransactionState::Aborted)] {
        let ended = match state {
            TransactionState::Committed => c.commit_transaction(&t, id, "writer".into(), 5).await.unwrap(),
            _ => c.abort_transaction(&t, id).await.unwrap(),
        };
        assert_eq!(ended, EndTransaction::Success);
        world.state_becomes(&t, id, state).await;
    }
    c.create_transaction(&t, 600_000).await.unwrap();
    let current = world.current(&t).await;
    world.append(&t, current[0], "0123456789");
    let mut cut: StreamCut = current.iter().map(|id| (*id, 0)).collect();
    cut.insert(current[0], 4);
    assert_eq!(c.truncate_stream(&t, cut.clone()).await.unwrap(), UpdateStream::Success);
    assert_eq!(c.note_time(&t, "writer", 5, cut.clone()).await.unwrap(), NoteTime::Success);
    for name in ["sealed", "gone"] {
        world.create(name, 3).await;
        assert_eq!(c.seal_stream(&stream(name)).await.unwrap(), UpdateStream::Success);
    }
    c.delete_stream(&stream("gone")).await.unwrap();
    let table = TableConfig { partitions: 2, primary_key_bytes: 4, secondary_key_bytes: 8, rollover_bytes: 1 << 20 };
    c.create_table("s", "k", table).await.unwrap();
    c.create_group("s", "g", 7, group_config(&[&t, &stream("sealed")], GroupRetention::Manual)).await.unwrap();
    assert_eq!(c.move_subscriber(&t, "s/g", 7, 0, cut).await.unwrap(), MoveSubscriber::Success);
    // Marks, ages and clocks are written now and then.
    tokio::time::sleep(Duration::from_secs(30)).await;
    world
}

fn names(listing: Listing) -> Vec<String> {
    match listing {
        Listing::Page(page) => page.names,
        other => panic!("{other:?}"),
    }
}

/// Everything there is to ask for, in words.
async fn told(c: &Controller) -> Result<String, ControllerError> {
    let mut told = String::new();
    let scopes = c.list_scopes("").await?.names;
    writeln!(told, "scopes {scopes:?}").unwrap();
    for scope in scopes.iter().map(|scope| Name::parse(scope).unwrap()) {
        let streams = names(c.list_streams(&scope, "").await?);
        let tables = names(c.list_tables(&scope, "").await?);
        let groups = names(c.list_groups(&scope, "").await?);
        let red = names(c.list_streams_by_tag(&scope, "red", "").await?);
        writeln!(told, "{scope}: streams {streams:?}, red {red:?}, tables {tables:?}, groups {groups:?}").unwrap();
        for name in tables.iter().map(|name| Name::parse(name).unwrap()) {
            let config = c.table_configuration(&scope, &name).await?;
            let partitions = c.table_partitions(&scope, &name).await?;
            writeln!(told, "table {name}: {config:?}, {partitions:?}").unwrap();
        }
        for name in groups.iter().map(|name| Name::parse(name).unwrap()) {
            writeln!(told, "group {name}: {:?}", c.group(&scope, &name).await?).unwrap();
        }
        for name in streams {
            let stream = Name::parse(&name).unwrap();
            tell_stream(c, &ScopedStream { scope: scope.clone(), stream }, &mut told).await?;
        }
    }
    Ok(told)
}

async fn tell_stream(c: &Controller, stream: &ScopedStream, told: &mut String) -> Result<(), ControllerError> {
    writeln!(told, "stream {stream}: {:?}", c.stream_configuration(stream).await?).unwrap();
    writeln!(told, "  current {:?}", c.current_segments(stream).await?).unwrap();
    writeln!(told, "  head {:?}", c.head_segments(stream).await?).unwrap();
    for epoch in c.epochs(stream, 0, 100).await? {
        writeln!(told, "  {epoch:?}").unwrap();
        for segment in c.epoch_segments(stream, epoch.epoch).await? {
            writeln!(told, "  {segment:?} before {:?}", c.successors(stream, segment.id).await?).unwrap();
        }
    }
    let live = c.live_transactions(stream, "", 100).await?;
    writeln!(told, "  under way {live:?}").unwrap();
    writeln!(told, "  ended {:?}", c.completed_transactions(stream).await?).unwrap();
    writeln!(told, "  subscribers {:?}", c.list_subscribers(stream).await?).unwrap();
    Ok(())
}

/// What a store says when it is opened and asked for everything, however that ends.
async fn opened(store: &str) -> Result<String, ControllerError> {
    let world = world(store);
    world.controller.recover().await?;
    let told = told(&world.controller).await;
    world.controller.shutdown();
    told
}

fn releases() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(golden()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "store") {
            let expected = fs::read_to_string(path.with_extension("expected")).unwrap();
            found.push((fs::read_to_string(&path).unwrap(), expected));
        }
    }
    assert!(!found.is_empty());
    found
}

#[test]
#[allow(clippy::disallowed_methods, reason = "what is written is part of the repository")]
fn golden_stores_are_read_as_they_were_and_go_on() {
    if let Ok(release) = std::env::var("HEADWATER_WRITE_GOLDEN") {
        let store = block_on(async { write().await.store.dump() });
        fs::create_dir_all(golden()).unwrap();
        fs::write(golden().join(format!("{release}.expected")), block_on(opened(&store)).unwrap()).unwrap();
        fs::write(golden().join(format!("{release}.store")), store).unwrap();
    }
    for (store, expected) in releases() {
        assert_eq!(block_on(opened(&store)).unwrap(), expected);
        block_on(go_on(&store));
    }
}

async fn go_on(store: &str) {
    let world = world(store);
    let (c, t) = (&world.controller, stream("t"));
    c.recover().await.unwrap();
    let open = c.live_transactions(&t, "", 10).await.unwrap();
    let open = open.transactions.first().expect("one was left open").id;
    assert_eq!(c.commit_transaction(&t, open, String::new(), i64::MIN).await.unwrap(), EndTransaction::Success);
    world.state_becomes(&t, open, TransactionState::Committed).await;
    let current = world.current(&t).await;
    world.scale(&t, &current[..1], &[(0.0, 0.125), (0.125, 0.25)]).await;
    world.create("gone", 1).await;
    let again = world.current(&stream("gone")).await;
    assert!(again[0] >= id(3, 0), "{again:?} comes after the numbers used before");
    assert_eq!(c.delete_scope_recursive(&scope()).await.unwrap(), DeleteScope::Success);
    assert!(world.store.segment_names().is_empty(), "{:?}", world.store.segment_names());
}

/// A record that this release cannot know is refused; what does not need it goes on, and nothing is made of it.
#[test]
fn a_newer_or_cut_record_is_refused_and_never_misread() {
    for (store, expected) in releases() {
        let lines: Vec<&str> = store.lines().collect();
        let (mut refused, mut unneeded) = (0, 0);
        for (number, line) in lines.iter().enumerate() {
            let Some((row, value)) = line.rsplit_once(' ').filter(|_| line.starts_with("entry ")) else { continue };
            if value.len() < 4 {
                continue;
            }
            for changed in [format!("{row} ff{}", &value[2..]), format!("{row} {}", &value[..value.len() - 2])] {
                let mut lines = lines.clone();
                lines[number] = &changed;
                match block_on(opened(&lines.join("\n"))) {
                    Err(_) => refused += 1,
                    Ok(told) => {
                        assert_eq!(told, expected, "{changed}");
                        unneeded += 1;
                    }
                }
            }
        }
        assert!(refused > 40, "{refused} refused, {unneeded} not needed");
    }
}
