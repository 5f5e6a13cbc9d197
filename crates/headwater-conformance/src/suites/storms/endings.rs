//! Truncations, seals and deletions under kills: whoever was not answered finds each of them either done or not begun, can ask
//! again until it is done, and then nothing is left of what went.

use super::{PATIENCE, Stage};
use anyhow::{Context, Result, bail, ensure};
use headwater_client::{
    Client, ClientOptions, ErrorKind, KeyRange, KeyValueTableConfig, Name, ReaderGroupConfig, ScopedStream,
    ScopedTable, SegmentId, StreamConfig,
};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

/// Each ends scopes of its own. So many that every kill finds some of them waiting for an answer.
const ACTORS: u64 = 16;
const SEGMENTS: u32 = 3;
/// Events of each stream before it ends.
const EVENTS: u64 = 30;
/// An attempt and hardly another: a server that is away shows as a call that was not answered.
const IMPATIENCE: Duration = Duration::from_millis(20);

pub(super) async fn run(stage: Stage) -> Result<String> {
    let local = LocalSet::new();
    let acting: Vec<_> = (0..ACTORS).map(|number| local.spawn_local(act(stage.clone(), number))).collect();
    let mut all = Endings::default();
    for acting in acting {
        let Endings { asked, unanswered } = local.run_until(acting).await??;
        all.asked += asked;
        all.unanswered += unanswered;
    }
    let Endings { asked, unanswered } = all;
    ensure!(unanswered > 0, "each of {asked} endings was answered: that was no storm");
    let mut left = stage.client.scopes().await?;
    left.retain(|scope| !scope.as_str().starts_with('_'));
    ensure!(left == [stage.stream.scope.clone()], "scopes are left: {left:?}");
    Ok(format!("{asked} truncations, seals and deletions, {unanswered} of them not answered at first"))
}

#[derive(Default)]
struct Endings {
    asked: u32,
    unanswered: u32,
}

impl Endings {
    /// Asks once for something. If nobody answers, `look` judges what there is then, and it is asked for until it is done.
    async fn ask<T>(
        &mut self,
        what: &str,
        [hasty, patient]: [&Client; 2],
        call: impl AsyncFn(&Client) -> headwater_client::Result<T>,
        look: impl AsyncFn() -> Result<()>,
    ) -> Result<()> {
        self.asked += 1;
        let begun = Instant::now();
        let mut asked = call(hasty).await;
        if asked.is_err() {
            self.unanswered += 1;
        }
        while let Err(error) = asked {
            ensure!(error.kind() == ErrorKind::Unavailable, "{what}: {error:?}");
            ensure!(begun.elapsed() < PATIENCE, "{what} is not done in the end: {error:?}");
            look().await.with_context(|| format!("{what}, which was not answered"))?;
            asked = call(patient).await;
        }
        Ok(())
    }
}

async fn act(stage: Stage, number: u64) -> Result<Endings> {
    let hasty = ClientOptions::new(&stage.controller)?.retry_for(IMPATIENCE).connect()?;
    let (mut endings, mut chance) = (Endings::default(), stage.chance(number));
    let mut round = 0;
    while !stage.is_over() {
        let scope = Name::parse(&format!("ending-{number}-{round}"))?;
        let (clients, is_scaled) = ([&hasty, &stage.client], chance.below(2) == 0);
        end(clients, &scope, is_scaled, &mut endings).await.with_context(|| format!("scope {scope}"))?;
        round += 1;
    }
    Ok(endings)
}

/// Makes a scope, truncates one of its streams, seals and deletes another, and deletes the scope with all that is left.
async fn end(clients: [&Client; 2], scope: &Name, is_scaled: bool, endings: &mut Endings) -> Result<()> {
    let [_, patient] = clients;
    patient.create_scope(scope).await?;
    let [cut, gone] = ["cut", "gone"].map(|name| ScopedStream::parse(&format!("{scope}/{name}")));
    let (cut, gone) = (cut?, gone?);
    for stream in [&cut, &gone] {
        patient.create_stream(stream, &StreamConfig::fixed(SEGMENTS)).await?;
        write(patient, stream).await?;
    }
    let group = Name::parse("group")?;
    patient.create_reader_group(scope, &group, &ReaderGroupConfig::of(&cut)).await?;
    let table = ScopedTable::parse(&format!("{scope}/table"))?;
    patient.create_key_value_table(&table, &KeyValueTableConfig::new(1, 4)).await?;

    let head = head_of(patient, &cut).await?;
    let to = patient.tail_cut(&cut).await?;
    if is_scaled {
        split_first(patient, &cut).await?;
    }
    write(patient, &cut).await?;
    let expected: BTreeMap<_, _> = to.offsets.iter().map(|(id, offset)| (*id, offset.unsigned_abs())).collect();
    let look = async || -> Result<()> {
        let now = head_of(patient, &cut).await?;
        ensure!(now == head || now == expected, "the stream begins at {now:?}, neither {head:?} nor {expected:?}");
        Ok(())
    };
    endings.ask("truncate", clients, async |client| client.truncate_stream(&to).await, look).await?;
    let now = head_of(patient, &cut).await?;
    ensure!(now == expected, "a truncated stream begins at {now:?}, not at {expected:?}");
    for (id, start) in expected {
        let info = patient.segment_info(&cut, id).await?;
        ensure!(info.start == start, "segment {id} begins at {}, not at {start}", info.start);
    }

    let before = patient.current_segments(&gone).await?;
    let length = patient.tail_cut(&gone).await?;
    let look = async || -> Result<()> {
        let now = patient.current_segments(&gone).await?;
        ensure!(now.is_empty() || now == before, "half sealed: {now:?} of {before:?}");
        Ok(())
    };
    endings.ask("seal", clients, async |client| client.seal_stream(&gone).await, look).await?;
    ensure!(patient.current_segments(&gone).await?.is_empty(), "a sealed stream has segments that are open");
    for (id, end) in &length.offsets {
        let info = patient.segment_info(&gone, *id).await?;
        ensure!(info.end == end.unsigned_abs() && info.sealed, "of a sealed stream segment {id} is {info:?}");
    }

    let look = async || -> Result<()> {
        let is_listed = patient.streams(scope).await?.contains(&gone.stream);
        let exists = patient.stream_exists(&gone).await?;
        ensure!(is_listed || !exists, "a stream exists and is not listed");
        Ok(())
    };
    endings.ask("delete", clients, async |client| client.delete_stream(&gone).await, look).await?;
    ensure!(!patient.stream_exists(&gone).await?, "a deleted stream exists");
    ensure!(patient.streams(scope).await? == [cut.stream.clone()], "a deleted stream is listed");
    for id in length.offsets.keys() {
        assert_gone(patient, &gone, *id).await?;
    }
    patient.create_stream(&gone, &StreamConfig::fixed(1)).await?;
    let again = patient.current_segments(&gone).await?[0].id;
    ensure!(!length.offsets.contains_key(&again), "segment {again} comes twice");
    ensure!(patient.segment_info(&gone, again).await?.end == 0, "a new stream is not empty");

    let slices = patient.slices(&cut).await?;
    let mut left: Vec<_> = slices.into_iter().map(|slice| (slice.stream, slice.segment)).collect();
    left.push((gone.clone(), again));
    for internal in ["_MARKcut", "_RGgroup"] {
        left.push((ScopedStream::parse(&format!("{scope}/{internal}"))?, SegmentId::new(0, 0)));
    }
    for (stream, id) in &left {
        patient.segment_info(stream, *id).await.with_context(|| format!("look at segment {id} of {stream}"))?;
    }
    // Streams go one after the other, and nobody promises which first.
    let look = async || -> Result<()> { Ok(()) };
    endings.ask("delete all", clients, async |client| client.delete_scope_recursively(scope).await, look).await?;
    // It is not listed any more as soon as its end has begun, and can be made anew once that is over. An answer that is lost
    // shows as a scope that exists.
    let begun = Instant::now();
    while !patient.create_scope(scope).await? && !patient.scope_exists(scope).await? {
        ensure!(begun.elapsed() < PATIENCE, "the scope does not end");
        sleep(Duration::from_millis(20)).await;
    }
    for (stream, id) in left {
        // A stream whose end a kill had interrupted may end after its scope.
        while assert_gone(patient, &stream, id).await.is_err() {
            ensure!(begun.elapsed() < PATIENCE, "segment {id} of {stream} is left");
            sleep(Duration::from_millis(20)).await;
        }
    }
    ensure!(patient.streams(scope).await?.is_empty(), "streams of a deleted scope are there");
    ensure!(patient.key_value_tables(scope).await?.is_empty(), "tables of a deleted scope are there");
    patient.delete_scope(scope).await?;
    Ok(())
}

async fn write(client: &Client, stream: &ScopedStream) -> Result<()> {
    let into = client.event_writer(stream, Default::default()).await?;
    for number in 0..EVENTS {
        // The flush below tells of all.
        let _later = into.write(&number.to_string(), format!("event {number}")).await?;
    }
    into.flush().await.with_context(|| format!("write to {stream}"))
}

/// Splits the first segment, or tries to: a kill may come between.
async fn split_first(client: &Client, stream: &ScopedStream) -> Result<()> {
    let current = client.current_segments(stream).await?;
    let (low, high) = (current[0].range.low(), current[0].range.high());
    let halves = [KeyRange::new(low, (low + high) / 2.0)?, KeyRange::new((low + high) / 2.0, high)?];
    match client.scale_stream(stream, &[current[0].id], &halves).await {
        Err(error) if !matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Unavailable) => {
            Err(error).context("scale")
        }
        _ => Ok(()),
    }
}

async fn head_of(client: &Client, stream: &ScopedStream) -> Result<BTreeMap<SegmentId, u64>> {
    Ok(client.head_segments(stream).await?.into_iter().collect())
}

async fn assert_gone(client: &Client, stream: &ScopedStream, id: SegmentId) -> Result<()> {
    match client.segment_info(stream, id).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("look for segment {id} of {stream}")),
        Ok(info) => bail!("segment {id} of {stream} is left: {info:?}"),
    }
}
