//! T8: splits and merges every 50 ms, under writers, readers and kills.

use super::{PATIENCE, Stage, covers, parsed};
use anyhow::{Context, Result, bail, ensure};
use headwater_client::{Delivery, ErrorKind, EventReader, ReaderOptions};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

const WRITERS: usize = 3;
const KEYS: usize = 8;

pub(super) async fn run(stage: Stage) -> Result<String> {
    let group = stage.group().await?;
    let (sender, mut found) = mpsc::unbounded_channel();
    for id in ["a", "b"] {
        let reader = group.reader_with(id, ReaderOptions::at_once()).await?;
        tokio::spawn(read_all(reader, sender.clone()));
    }
    drop(sender);
    let scaling = tokio::spawn(stage.clone().scale(Duration::from_millis(50)));
    let watching = tokio::spawn(watch(stage.clone()));
    let writing = (0..WRITERS).map(|writer| tokio::spawn(stage.clone().write(writer, KEYS, Duration::from_millis(2))));
    let mut expected = BTreeMap::new();
    for (writer, writing) in writing.collect::<Vec<_>>().into_iter().enumerate() {
        let counts = writing.await?.with_context(|| format!("writer {writer}"))?;
        expected.extend(counts.into_iter().enumerate().map(|(key, count)| (format!("{writer}-{key}"), count)));
    }
    let (scales, looks) = (scaling.await??, watching.await??);
    stage.seal().await?;

    let mut numbers: BTreeMap<String, u64> = BTreeMap::new();
    // The readers hang up when they are at the end of the sealed stream.
    while let Some(event) = timeout(PATIENCE, found.recv()).await.context("the readers do not come to the end")? {
        let (key, number) = parsed(&event?)?;
        let next = numbers.entry(key.clone()).or_default();
        ensure!(number == *next, "event {number} of key {key} was handed out where {next} comes");
        *next += 1;
    }
    ensure!(numbers == expected, "read {numbers:?}, acknowledged were {expected:?}");
    let events: u64 = expected.values().sum();
    Ok(format!("{events} events once and in order, {scales} scales, {looks} looks at the cover"))
}

/// What a reader got is sent before it asks for more: what another gets of that key comes later.
async fn read_all(mut reader: EventReader, found: mpsc::UnboundedSender<Result<bytes::Bytes>>) {
    loop {
        let said = match reader.next().await {
            Ok(None) => return,
            Ok(Some(Delivery::Event(event))) => Ok(event.event),
            Ok(Some(other)) => Err(anyhow::anyhow!("nobody asked for {other:?}")),
            Err(error) => Err(error.into()),
        };
        let ends = said.is_err();
        if found.send(said).is_err() || ends {
            return;
        }
    }
}

/// Looks again and again whether the open segments cover all keys once. Returns how often.
async fn watch(stage: Stage) -> Result<u64> {
    let mut looks = 0;
    while !stage.is_over() {
        match stage.client.current_segments(&stage.stream).await {
            Ok(current) => covers(&current)?,
            Err(error) if error.kind() == ErrorKind::Unavailable => continue,
            Err(error) => bail!("look at the segments: {error}"),
        }
        looks += 1;
        sleep(Duration::from_millis(1)).await;
    }
    Ok(looks)
}
