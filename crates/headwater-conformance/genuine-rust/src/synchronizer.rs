//! Two table synchronizers on one table: conflicting updates, removals, convergence.

use crate::context::{soon, Arguments, Context};
use anyhow::{anyhow, ensure, Result};
use pravega_client::sync::synchronizer::{deserialize_from, Synchronizer};
use std::collections::BTreeMap;

pub async fn run(context: &Context, arguments: &mut Arguments) -> Result<()> {
    let rounds: u64 = arguments.optional("--rounds", 40)?;
    context.create_scope().await?;
    let name = "shared-map".to_owned();
    let mut left = context.factory.create_synchronizer(context.scope.clone(), name.clone()).await;
    let mut right = context.factory.create_synchronizer(context.scope.clone(), name.clone()).await;

    put(&mut left, "cities", "oslo", 1).await?;
    put(&mut right, "cities", "bergen", 2).await?;
    fetch(&mut left).await?;
    fetch(&mut right).await?;
    ensure!(view(&left)? == view(&right)?, "two synchronizers differ: {:?} and {:?}", view(&left)?, view(&right)?);
    ensure!(view(&left)?.len() == 2, "two insertions left {:?}", view(&left)?);
    context.held("insertions on both sides reach both sides");

    // Both count in one entry without looking first; every increment must survive the conflicts.
    for round in 0..rounds {
        let side = if round % 2 == 0 { &mut left } else { &mut right };
        increment(side).await?;
        if round % 3 == 0 {
            increment(side).await?;
        }
    }
    let expected = rounds + rounds.div_ceil(3);
    fetch(&mut left).await?;
    fetch(&mut right).await?;
    for (side, map) in [("left", view(&left)?), ("right", view(&right)?)] {
        let count = map.get("counters/shared").copied();
        ensure!(count == Some(expected), "{side} counts {count:?} after {expected} increments");
    }
    context.held("no increment is lost in conflicts");

    // A tombstone first, then the removal: the way reader groups take an entry away.
    soon("tombstone", left.insert(|update| update.insert_tombstone("cities".to_owned(), "oslo".to_owned())))
        .await?
        .map_err(|e| anyhow!("tombstone: {e}"))?;
    fetch(&mut left).await?;
    fetch(&mut right).await?;
    for (side, map) in [("left", view(&left)?), ("right", view(&right)?)] {
        ensure!(!map.contains_key("cities/oslo"), "{side} still has the removed entry: {map:?}");
        ensure!(map.contains_key("cities/bergen"), "{side} lost an entry nobody removed: {map:?}");
    }
    context.held("a removal reaches both sides");

    let mut third = context.factory.create_synchronizer(context.scope.clone(), name).await;
    fetch(&mut third).await?;
    ensure!(view(&third)? == view(&left)?, "a newcomer sees {:?}, the others {:?}", view(&third)?, view(&left)?);
    context.held("a newcomer sees what the others see, and nothing that was removed");
    Ok(())
}

async fn put(side: &mut Synchronizer, outer: &str, inner: &str, value: u64) -> Result<()> {
    let inserted = side.insert(|update| {
        update.insert(outer.to_owned(), inner.to_owned(), "u64".to_owned(), Box::new(value));
        Ok(())
    });
    soon("insert into a synchronizer", inserted).await?.map_err(|e| anyhow!("insert {outer}/{inner}: {e}"))
}

async fn increment(side: &mut Synchronizer) -> Result<()> {
    let inserted = side.insert(|update| {
        let known = if update.contains_key("counters", "shared") { update.get("counters", "shared") } else { None };
        let count: u64 = known.map_or(0, |value| deserialize_from(&value.data).expect("what was written is a u64"));
        update.insert("counters".to_owned(), "shared".to_owned(), "u64".to_owned(), Box::new(count + 1));
        Ok(())
    });
    soon("increment in a synchronizer", inserted).await?.map_err(|e| anyhow!("increment: {e}"))
}

async fn fetch(side: &mut Synchronizer) -> Result<()> {
    soon("fetch updates", side.fetch_updates()).await?.map_err(|e| anyhow!("fetch updates: {e}"))?;
    Ok(())
}

/// `outer/inner` → value.
fn view(side: &Synchronizer) -> Result<BTreeMap<String, u64>> {
    let mut view = BTreeMap::new();
    for (outer, inner) in side.get_outer_map() {
        for (name, value) in inner {
            let number = deserialize_from(&value.data).map_err(|e| anyhow!("{outer}/{name} is no number: {e}"))?;
            view.insert(format!("{outer}/{name}"), number);
        }
    }
    Ok(view)
}
