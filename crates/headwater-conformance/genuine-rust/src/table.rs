//! Tables: conditional and unconditional put and remove, get, iterators over several pages, deltas.

use crate::context::{same_elements, Arguments, Context};
use anyhow::{anyhow, bail, ensure, Result};
use futures::StreamExt;
use pravega_client::sync::table::{Table, TableError, Version};
use std::collections::BTreeMap;

/// "The key must not exist", as a version.
const NOT_EXISTS: Version = -1;
/// No condition on the length of the table segment.
const ANY_LENGTH: i64 = -1;
/// Small, so that a few hundred entries take dozens of pages.
const PAGE: i32 = 7;

pub async fn run(context: &Context, arguments: &mut Arguments) -> Result<()> {
    let entries: usize = arguments.optional("--entries", 250)?;
    context.create_scope().await?;
    let table = context.factory.create_table(context.scope.clone(), "conditions".into()).await;
    conditions(context, &table).await?;
    batches(context, &table).await?;
    let table = context.factory.create_table(context.scope.clone(), "pages".into()).await;
    pages(context, &table, entries).await
}

fn key(name: &str) -> String {
    name.to_owned()
}

async fn get(table: &Table, name: &str) -> Result<Option<(String, Version)>> {
    table.get(&key(name)).await.map_err(|e| anyhow!("get {name}: {e}"))
}

fn refused_for_its_version<T: std::fmt::Debug>(result: Result<T, TableError>, what: &str) -> Result<()> {
    match result {
        Err(TableError::IncorrectKeyVersion { .. }) => Ok(()),
        Err(other) => bail!("{what}: expected a bad version, got {other}"),
        Ok(value) => bail!("{what}: expected a bad version, got {value:?}"),
    }
}

async fn conditions(context: &Context, table: &Table) -> Result<()> {
    let (one, two, three) = (key("one"), key("two"), key("three"));
    let put = |version| table.insert_conditionally(&one, &two, version, ANY_LENGTH);

    ensure!(get(table, "one").await?.is_none(), "a new table has a value");
    let first = put(NOT_EXISTS).await.map_err(|e| anyhow!("put if absent: {e}"))?;
    ensure!(first >= 0, "version {first} is negative");
    refused_for_its_version(put(NOT_EXISTS).await, "put if absent of a key that is there")?;
    ensure!(get(table, "one").await? == Some((two.clone(), first)), "get returns another value or version");
    context.held("put if absent stores once");

    let second = put(first).await.map_err(|e| anyhow!("put with the right version: {e}"))?;
    ensure!(second > first, "version {second} follows {first}");
    refused_for_its_version(
        table.insert_conditionally(&one, &three, first, ANY_LENGTH).await,
        "put with the version before the last",
    )?;
    ensure!(get(table, "one").await? == Some((two.clone(), second)), "a refused put changed the value");
    let third = table.insert(&one, &three, ANY_LENGTH).await.map_err(|e| anyhow!("unconditional put: {e}"))?;
    ensure!(third > second, "version {third} follows {second}");
    ensure!(get(table, "one").await? == Some((three.clone(), third)), "an unconditional put did not store");
    context.held("put with a version stores if and only if it is the latest");

    let absent = key("absent");
    ensure!(
        table.insert_conditionally(&absent, &two, 12_345, ANY_LENGTH).await.is_err(),
        "a put with a version stored a key that was missing"
    );
    ensure!(get(table, "absent").await?.is_none(), "a refused put created a key");

    refused_for_its_version(
        table.remove_conditionally(&one, second, ANY_LENGTH).await,
        "remove with the version before the last",
    )?;
    ensure!(get(table, "one").await?.is_some(), "a refused removal removed");
    table.remove_conditionally(&one, third, ANY_LENGTH).await.map_err(|e| anyhow!("remove with a version: {e}"))?;
    ensure!(get(table, "one").await?.is_none(), "a removed key has a value");
    table.remove(&one, ANY_LENGTH).await.map_err(|e| anyhow!("unconditional removal of a missing key: {e}"))?;
    match table.remove_conditionally(&one, third, ANY_LENGTH).await {
        Err(TableError::KeyDoesNotExist { .. }) => {}
        other => bail!("removal with a version of a missing key: expected 'does not exist', got {other:?}"),
    }
    let again = put(NOT_EXISTS).await.map_err(|e| anyhow!("put if absent after a removal: {e}"))?;
    ensure!(again > third, "version {again} after a removal does not follow {third}");
    context.held("remove with a version removes if and only if it is the latest");

    // A condition on the length of the table that cannot hold.
    ensure!(
        table.insert(&one, &two, 1 << 40).await.is_err(),
        "a put conditional on a length the table never had was accepted"
    );
    context.held("a put that expects another table length is refused");
    Ok(())
}

async fn batches(context: &Context, table: &Table) -> Result<()> {
    let names: Vec<String> = (0..20).map(|i| format!("batch-{i}")).collect();
    let values: Vec<String> = (0..20).map(|i| format!("value-{i}")).collect();
    let absent: Vec<_> = names.iter().zip(&values).map(|(k, v)| (k, v, NOT_EXISTS)).collect();
    let versions = table
        .insert_conditionally_all(absent.clone(), ANY_LENGTH)
        .await
        .map_err(|e| anyhow!("put twenty if absent: {e}"))?;
    ensure!(versions.len() == 20, "{} versions for twenty keys", versions.len());
    let mut asked: Vec<&String> = names.iter().collect();
    let missing = key("batch-missing");
    asked.insert(3, &missing);
    let got: Vec<Option<(String, Version)>> = table.get_all(asked).await.map_err(|e| anyhow!("get many: {e}"))?;
    ensure!(got.len() == 21 && got[3].is_none(), "get of 21 keys, the fourth missing, returned {got:?}");
    for (i, found) in got.iter().enumerate().filter(|(i, _)| *i != 3) {
        let i = if i < 3 { i } else { i - 1 };
        ensure!(*found == Some((values[i].clone(), versions[i])), "get many returned {found:?} for {}", names[i]);
    }
    context.held("a batch stores every entry and reports each version in order");

    let spoiled = key("spoiled");
    let mixed: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(i, k)| (k, &spoiled, if i == 11 { versions[i] - 1 } else { versions[i] }))
        .collect();
    ensure!(
        table.insert_conditionally_all(mixed, ANY_LENGTH).await.is_err(),
        "a batch with one wrong version was accepted"
    );
    let got: Vec<Option<(String, Version)>> =
        table.get_all(names.iter().collect()).await.map_err(|e| anyhow!("get many: {e}"))?;
    for (i, found) in got.iter().enumerate() {
        ensure!(*found == Some((values[i].clone(), versions[i])), "a refused batch changed {}", names[i]);
    }
    let mut wrong: Vec<_> = names.iter().zip(versions.iter().copied()).collect();
    wrong[7].1 += 1;
    ensure!(
        table.remove_conditionally_all(wrong, ANY_LENGTH).await.is_err(),
        "a removal with one wrong version was accepted"
    );
    ensure!(get(table, "batch-0").await?.is_some(), "a refused removal of many removed some");
    context.held("a batch with one wrong version changes nothing");

    // The Rust synchronizer really sends one key several times in one conditional update.
    let (again, other) = (key("again"), key("other"));
    let (v1, v2, v3) = (key("v1"), key("v2"), key("v3"));
    let doubled = vec![(&again, &v1, NOT_EXISTS), (&other, &v2, NOT_EXISTS), (&again, &v3, NOT_EXISTS)];
    let versions = table
        .insert_conditionally_all(doubled, ANY_LENGTH)
        .await
        .map_err(|e| anyhow!("one key twice in a batch: {e}"))?;
    ensure!(versions.len() == 3, "{} versions for three entries", versions.len());
    ensure!(
        get(table, "again").await? == Some((v3, versions[2])),
        "of one key twice in a batch the last must win, with its version"
    );
    context.held("one key several times in one batch: all are checked first, the last one wins");
    Ok(())
}

async fn pages(context: &Context, table: &Table, entries: usize) -> Result<()> {
    let value = |i: usize| format!("value-{i}-{}", "x".repeat(i % 50));
    let mut versions = BTreeMap::new();
    for i in 0..entries {
        let name = format!("entry-{i:04}");
        let version = table.insert(&name, &value(i), ANY_LENGTH).await.map_err(|e| anyhow!("put {name}: {e}"))?;
        versions.insert(name, version);
    }
    // Some are written again and some removed, so that the order of writing is not the order of keys.
    for i in (0..entries).step_by(5) {
        let name = format!("entry-{i:04}");
        table.remove(&name, ANY_LENGTH).await.map_err(|e| anyhow!("remove {name}: {e}"))?;
        versions.remove(&name);
    }
    for i in (1..entries).step_by(5) {
        let name = format!("entry-{i:04}");
        let version = table.insert(&name, &value(i), ANY_LENGTH).await.map_err(|e| anyhow!("put {name}: {e}"))?;
        versions.insert(name, version);
    }
    let expected: Vec<String> = versions.iter().map(|(name, version)| format!("{name}@{version}")).collect();

    let mut keys = Box::pin(table.read_keys_stream::<String>(PAGE));
    let mut seen = Vec::new();
    while let Some(item) = keys.next().await {
        let (name, version) = item.map_err(|e| anyhow!("iterate keys: {e}"))?;
        seen.push(format!("{name}@{version}"));
        ensure!(seen.len() <= 2 * entries + 1, "the iteration over keys does not end");
    }
    drop(keys);
    same_elements(seen, expected.clone(), "iteration over keys")?;

    let mut items = Box::pin(table.read_entries_stream::<String, String>(PAGE));
    let mut seen = Vec::new();
    while let Some(item) = items.next().await {
        let (name, text, version) = item.map_err(|e| anyhow!("iterate entries: {e}"))?;
        let index: usize = name.trim_start_matches("entry-").parse()?;
        ensure!(text == value(index), "{name} has the value {text:?}");
        seen.push(format!("{name}@{version}"));
        ensure!(seen.len() <= 2 * entries + 1, "the iteration over entries does not end");
    }
    drop(items);
    same_elements(seen, expected.clone(), "iteration over entries")?;
    context.held("iterators over several pages return every entry once, with its version");

    let mut deltas = Box::pin(table.read_entries_stream_from_position::<String, String>(PAGE, 0));
    let mut known = BTreeMap::<String, Version>::new();
    let mut count = 0;
    let mut position = 0;
    while let Some(item) = deltas.next().await {
        let (name, _, version, last) = item.map_err(|e| anyhow!("deltas: {e}"))?;
        ensure!(last >= position, "the position of a delta page went back from {position} to {last}");
        position = last;
        known.insert(name, version);
        count += 1;
        ensure!(count <= 4 * entries + 1, "the deltas do not end");
    }
    drop(deltas);
    let seen: Vec<String> = known.iter().map(|(name, version)| format!("{name}@{version}")).collect();
    same_elements(seen, expected, "deltas from the beginning")?;
    context.held("deltas from the beginning rebuild the table, and removed keys do not come back");

    let large = "L".repeat(900_000);
    table.insert(&key("large"), &large, ANY_LENGTH).await.map_err(|e| anyhow!("put 900,000 bytes: {e}"))?;
    ensure!(get(table, "large").await?.is_some_and(|(value, _)| value == large), "a large value came back changed");
    context.held("a value of 900,000 bytes comes back whole");
    Ok(())
}
