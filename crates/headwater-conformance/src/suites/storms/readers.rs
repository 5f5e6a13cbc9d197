//! T11: readers of one group join, leave and die, while checkpoints are made, the stream is scaled and the server killed.

use super::{PATIENCE, Stage, parsed};
use crate::chance::Chance;
use anyhow::{Context, Result, ensure};
use headwater_client::{Checkpoint, Delivery, ErrorKind, EventReader, ReadFrom, ReaderGroup, ReaderOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Readers at a time.
const SLOTS: u64 = 3;
const KEYS: usize = 8;

/// What was handed out: to whom, and of which key which number.
type Handed = Arc<Mutex<Vec<(String, String, u64)>>>;

pub(super) async fn run(stage: Stage) -> Result<String> {
    let group = stage.group().await?;
    let handed = Handed::default();
    let writing = tokio::spawn(stage.clone().write(0, KEYS, Duration::from_millis(8)));
    let scaling = tokio::spawn(stage.clone().scale(Duration::from_secs(1)));
    let checkpointing = tokio::spawn(checkpoint(stage.clone(), group.clone()));
    let living =
        (0..SLOTS).map(|slot| tokio::spawn(live(group.clone(), slot, stage.chance(200 + slot), handed.clone())));
    let living: Vec<_> = living.collect();
    let counts = writing.await??;
    let expected: BTreeMap<String, u64> = (0..).zip(counts).map(|(key, count)| (format!("0-{key}"), count)).collect();
    let (scales, checkpoints) = (scaling.await??, checkpointing.await??);
    stage.seal().await?;
    let (mut lives, mut dead) = (0, BTreeSet::new());
    for living in living {
        let (count, died) =
            timeout(PATIENCE, living).await.context("the readers do not come to the end of the stream")???;
        lives += count;
        dead.extend(died);
    }

    let handed = std::mem::take(&mut *handed.lock().expect("nobody panics with it"));
    let mut first: BTreeMap<(String, u64), String> = BTreeMap::new();
    let mut again = 0;
    for (reader, key, number) in handed {
        if let Some(before) = first.insert((key.clone(), number), reader.clone()) {
            ensure!(dead.contains(&before), "{key} {number}: {before} had it and left in order, {reader} had it again");
            again += 1;
        }
    }
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for (key, _) in first.into_keys() {
        *counts.entry(key).or_default() += 1;
    }
    ensure!(counts == expected, "of each key were handed out {counts:?}, acknowledged {expected:?}");

    // What the group hands out from a checkpoint on is what stands in the stream behind its cut.
    let last = checkpoints.last().context("no checkpoint was made")?;
    let (from_there, behind) = (read_from(&group, last).await?, read_behind(&stage, last).await?);
    ensure!(from_there == behind, "from the checkpoint on come {from_there:?}, behind it are {behind:?}");
    for (key, numbers) in &behind {
        let count = expected[key];
        let wanted: Vec<u64> = (count - numbers.len() as u64..count).collect();
        ensure!(*numbers == wanted, "the checkpoint cuts key {key} into pieces: {numbers:?}");
    }
    Ok(format!(
        "{} events, no gap, {again} handed out again after {} deaths in {lives} lives; {} checkpoints, {} events read from \
         the last one; {scales} scales",
        expected.values().sum::<u64>(),
        dead.len(),
        checkpoints.len(),
        from_there.values().map(Vec::len).sum::<usize>(),
    ))
}

/// A reader after the other, until one finds the end of the stream. Returns how many there were, and who died.
async fn live(group: ReaderGroup, slot: u64, mut chance: Chance, handed: Handed) -> Result<(u64, Vec<String>)> {
    let options = ReaderOptions { dead_after: Some(Duration::from_secs(2)), ..ReaderOptions::at_once() };
    let mut died = Vec::new();
    for life in 1.. {
        let id = format!("{slot}-{life}");
        let mut reader = group.reader_with(&id, options).await?;
        let end = Instant::now() + Duration::from_millis(200 + chance.below(2500));
        match read_until(&mut reader, end, &handed).await? {
            Ended::Stream => {
                reader.close().await?;
                return Ok((life, died));
            }
            Ended::Life if chance.below(3) > 0 => {
                // One that others took for dead before it went has left its events to be read again.
                if !group.online_readers().await?.contains(&id) {
                    died.push(id);
                }
                reader.close().await?;
            }
            // It goes without a word.
            Ended::Life | Ended::DeclaredDead => died.push(id),
        }
    }
    unreachable!("lives are not counted so far")
}

enum Ended {
    Stream,
    Life,
    /// Others took it for dead: the server was away, or the machine busy, for longer than it may be silent.
    DeclaredDead,
}

async fn read_until(reader: &mut EventReader, end: Instant, handed: &Handed) -> Result<Ended> {
    let id = reader.id().to_owned();
    loop {
        match timeout_at(end, reader.next()).await {
            Err(_) => return Ok(Ended::Life),
            Ok(Ok(None)) => return Ok(Ended::Stream),
            Ok(Ok(Some(Delivery::Checkpoint(_)))) => {}
            Ok(Ok(Some(Delivery::Event(event)))) => {
                let (key, number) = parsed(&event.event)?;
                handed.lock().expect("nobody panics with it").push((id.clone(), key, number));
            }
            Ok(Err(error)) if error.kind() == ErrorKind::Closed => return Ok(Ended::DeclaredDead),
            Ok(Err(error)) => return Err(error).with_context(|| format!("reader {id}")),
        }
    }
}

/// A checkpoint after the other; those that do not come about in time are given up.
async fn checkpoint(stage: Stage, group: ReaderGroup) -> Result<Vec<Checkpoint>> {
    let mut made = Vec::new();
    for number in 0.. {
        if stage.is_over() {
            break;
        }
        sleep(Duration::from_millis(700)).await;
        let under_way = group.initiate_checkpoint(&format!("checkpoint {number}")).await?;
        match timeout(Duration::from_secs(8), under_way.wait()).await {
            Ok(checkpoint) => made.push(checkpoint?),
            Err(_) => group.cancel_checkpoints().await?,
        }
    }
    Ok(made)
}

/// What is in the stream of each key from a checkpoint to the end.
async fn read_behind(stage: &Stage, checkpoint: &Checkpoint) -> Result<BTreeMap<String, Vec<u64>>> {
    let cut = checkpoint.cuts.get(&stage.stream).cloned().context("a checkpoint without its stream")?;
    let mut reader = stage.client.stream_reader(&stage.stream, ReadFrom::Cut(cut)).await?;
    let mut numbers: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    while let Some(event) = reader.next().await? {
        let (key, number) = parsed(&event.event)?;
        numbers.entry(key).or_default().push(number);
    }
    Ok(numbers)
}

/// What one reader gets of each key from a checkpoint to the end.
async fn read_from(group: &ReaderGroup, checkpoint: &Checkpoint) -> Result<BTreeMap<String, Vec<u64>>> {
    group.reset_to(checkpoint).await?;
    let mut reader = group.reader_with("last", ReaderOptions::at_once()).await?;
    let handed = Handed::default();
    let ended = read_until(&mut reader, Instant::now() + PATIENCE, &handed).await?;
    ensure!(matches!(ended, Ended::Stream), "the reader does not come to the end from a checkpoint");
    reader.close().await?;
    let mut numbers: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (_, key, number) in std::mem::take(&mut *handed.lock().expect("nobody panics with it")) {
        numbers.entry(key).or_default().push(number);
    }
    Ok(numbers)
}
