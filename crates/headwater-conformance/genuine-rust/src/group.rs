//! Reader groups: hand-over between readers, a reader that dies, stream cuts, several streams, deletion.

use crate::context::{order_per_key, same_elements, soon, take_slice, texts, Arguments, Context, Seen, PATIENCE};
use anyhow::{anyhow, ensure, Result};
use pravega_client::event::reader::EventReader;
use pravega_client::event::reader_group::{ReaderGroupConfigBuilder, StreamCutV1, StreamCutVersioned};
use pravega_client_shared::{ScopedSegment, ScopedStream, Segment};
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// The client tries to balance segments among readers at this interval, no more often.
const REBALANCE: Duration = Duration::from_secs(10);

pub async fn run(context: &Context, arguments: &mut Arguments) -> Result<()> {
    let events: usize = arguments.optional("--events", 2000)?;
    let (stream, created) = context.create_stream("handed-over", 4).await?;
    ensure!(created, "{stream} existed");
    let mut source = Source::new(context, &stream, "key");
    source.write(events).await?;
    hand_over(context, &stream, &mut source).await?;
    death(context, &stream, &mut source).await?;
    cuts(context, &stream, &mut source).await?;
    context.outlive(arguments).await?;
    two_streams(context, &stream, &source).await
}

/// Writes `key:number` events and remembers them.
struct Source {
    writer: pravega_client::event::EventWriter,
    /// What its keys begin with.
    keys: &'static str,
    written: Vec<String>,
}

impl Source {
    fn new(context: &Context, stream: &ScopedStream, keys: &'static str) -> Self {
        Self { writer: context.factory.create_event_writer(stream.clone()), keys, written: Vec::new() }
    }

    async fn write(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let number = self.written.len();
            let key = format!("{}-{}", self.keys, number % 20);
            let text = format!("{key}:{number}");
            let _ = self.writer.write_event_by_routing_key(key, text.clone().into_bytes()).await;
            self.written.push(text);
        }
        soon("flush", self.writer.flush()).await?.map_err(|e| anyhow!("flush: {e}"))
    }
}

async fn offline(reader: &mut EventReader) -> Result<()> {
    soon("reader offline", reader.reader_offline()).await?.map_err(|e| anyhow!("reader offline: {e}"))
}

/// Two readers; the second comes later and takes over segments, the first leaves in order. Every event exactly once.
async fn hand_over(context: &Context, stream: &ScopedStream, source: &mut Source) -> Result<()> {
    let group = context.factory.create_reader_group("hand-over".into(), stream.clone()).await;
    let mut first = group.create_reader("first".into()).await;
    let mut seen: Vec<Seen> = Vec::new();
    seen.extend(take_slice(&mut first).await?.unwrap_or_default());

    let mut second = group.create_reader("second".into()).await;
    let mut readers = group.list_readers().await.into_iter().map(|r| r.name).collect::<Vec<_>>();
    readers.sort();
    ensure!(readers == ["first", "second"], "the group lists the readers {readers:?}");
    // The first gives segments up once its interval has passed and it releases a slice; so keep events coming.
    let start = Instant::now();
    let mut by_second = 0;
    while by_second == 0 {
        source.write(200).await?;
        seen.extend(take_slice(&mut first).await?.unwrap_or_default());
        let taken = take_slice(&mut second).await?.unwrap_or_default();
        by_second += taken.len();
        seen.extend(taken);
        ensure!(start.elapsed() < 3 * REBALANCE + PATIENCE, "the second reader never got a segment");
    }
    context.held("a reader that joins takes over segments");

    offline(&mut first).await?;
    source.write(200).await?;
    collect(&mut second, &mut seen, source.written.len()).await?;
    let seen = texts(&seen)?;
    order_per_key(&seen, "hand-over")?;
    same_elements(seen, source.written.clone(), "hand-over")?;
    offline(&mut second).await?;
    context.held("every event exactly once and in order per key over the hand-over");

    context
        .factory
        .delete_reader_group(context.scope.clone(), "hand-over".into())
        .await
        .map_err(|e| anyhow!("delete a reader group: {e}"))?;
    context.held("a reader group is deleted");
    Ok(())
}

/// Reads until `count` events are there and two seconds nothing more came.
async fn collect(reader: &mut EventReader, seen: &mut Vec<Seen>, count: usize) -> Result<()> {
    let mut last = Instant::now();
    loop {
        let taken = take_slice(reader).await?.unwrap_or_default();
        if !taken.is_empty() {
            last = Instant::now();
        }
        seen.extend(taken);
        if seen.len() >= count && last.elapsed() > Duration::from_secs(2) {
            return Ok(());
        }
        ensure!(last.elapsed() < PATIENCE, "{} of {count} events came, then none for {PATIENCE:?}", seen.len());
    }
}

/// A reader takes a slice and is never heard of again; the group declares it offline, another one finishes.
async fn death(context: &Context, stream: &ScopedStream, source: &mut Source) -> Result<()> {
    let group = context.factory.create_reader_group("death".into(), stream.clone()).await;
    let mut dying = group.create_reader("dying".into()).await;
    let mut kept: Vec<Seen> = Vec::new();
    kept.extend(take_slice(&mut dying).await?.unwrap_or_default());
    let start = Instant::now();
    let lost = loop {
        let slice = soon("acquire", dying.acquire_segment()).await?.map_err(|e| anyhow!("acquire: {e}"))?;
        match slice {
            Some(slice) => break slice,
            None => ensure!(start.elapsed() < PATIENCE, "the reader that is to die got no slice"),
        }
    };
    // Neither dropped nor released: dropping would say goodbye.
    std::mem::forget(lost);
    std::mem::forget(dying);
    group.reader_offline("dying".into(), None).await.map_err(|e| anyhow!("declare a reader offline: {e}"))?;
    ensure!(group.list_readers().await.is_empty(), "a reader declared offline is still listed");

    let mut heir = group.create_reader("heir".into()).await;
    let mut after: Vec<Seen> = Vec::new();
    let before: BTreeSet<String> = texts(&kept)?.into_iter().collect();
    let start = Instant::now();
    loop {
        after.extend(take_slice(&mut heir).await?.unwrap_or_default());
        let all: BTreeSet<String> = before.iter().cloned().chain(texts(&after)?).collect();
        if all.len() >= source.written.len() {
            break;
        }
        ensure!(
            start.elapsed() < PATIENCE,
            "{} of {} events came back after a reader died",
            all.len(),
            source.written.len()
        );
    }
    // The dead reader's last positions may be older than what it read, never newer: events may repeat, none is lost,
    // and what the heir reads is in order.
    let after = texts(&after)?;
    order_per_key(&after, "after a reader died")?;
    let all: BTreeSet<String> = before.into_iter().chain(after).collect();
    same_elements(all.into_iter().collect(), source.written.clone(), "after a reader died")?;
    offline(&mut heir).await?;
    context.held("segments of a reader that died are read on by another");
    Ok(())
}

/// A group that starts at the cut of another reads exactly the rest.
async fn cuts(context: &Context, stream: &ScopedStream, source: &mut Source) -> Result<()> {
    let group = context.factory.create_reader_group("cut-source".into(), stream.clone()).await;
    let mut reader = group.create_reader("reader".into()).await;
    let mut seen = Vec::new();
    collect(&mut reader, &mut seen, source.written.len()).await?;
    offline(&mut reader).await?;
    let cut = group.get_streamcut().await;
    let positions: HashMap<ScopedSegment, i64> = cut
        .segment_offset_map
        .iter()
        .map(|(segment, offset)| {
            let segment = Segment::from(*segment);
            (ScopedSegment { scope: stream.scope.clone(), stream: stream.stream.clone(), segment }, *offset)
        })
        .collect();
    ensure!(positions.len() == 4, "the cut of a stream of four segments has {} positions", positions.len());

    let rest = source.written.len();
    source.write(300).await?;
    let mut config = ReaderGroupConfigBuilder::default();
    config.read_from_stream(stream.clone(), StreamCutVersioned::V1(StreamCutV1::new(stream.clone(), positions)));
    let group = context
        .factory
        .create_reader_group_with_config(context.scope.clone(), "cut-start".into(), config.build())
        .await;
    let mut reader = group.create_reader("reader".into()).await;
    let mut seen = Vec::new();
    collect(&mut reader, &mut seen, 300).await?;
    same_elements(texts(&seen)?, source.written[rest..].to_vec(), "from a stream cut")?;
    offline(&mut reader).await?;

    let mut config = ReaderGroupConfigBuilder::default();
    config.read_from_tail_of_stream(stream.clone());
    let group = context
        .factory
        .create_reader_group_with_config(context.scope.clone(), "tail-start".into(), config.build())
        .await;
    let mut reader = group.create_reader("reader".into()).await;
    let rest = source.written.len();
    source.write(100).await?;
    let mut seen = Vec::new();
    collect(&mut reader, &mut seen, 100).await?;
    same_elements(texts(&seen)?, source.written[rest..].to_vec(), "from the tail")?;
    offline(&mut reader).await?;
    context.held("groups start at a stream cut and at the tail");
    Ok(())
}

/// One group reads a stream that is full and another one, from their heads.
async fn two_streams(context: &Context, stream: &ScopedStream, source: &Source) -> Result<()> {
    let (other, created) = context.create_stream("handed-over-other", 2).await?;
    ensure!(created, "{other} existed");
    let mut second = Source::new(context, &other, "other");
    second.write(300).await?;
    let mut config = ReaderGroupConfigBuilder::default();
    config.add_stream(stream.clone()).add_stream(other);
    let group =
        context.factory.create_reader_group_with_config(context.scope.clone(), "both".into(), config.build()).await;
    ensure!(group.get_managed_streams().len() == 2, "the group reads {:?}", group.get_managed_streams());
    let mut reader = group.create_reader("reader".into()).await;
    let mut seen = Vec::new();
    collect(&mut reader, &mut seen, source.written.len() + second.written.len()).await?;
    let seen = texts(&seen)?;
    order_per_key(&seen, "two streams")?;
    let expected = source.written.iter().chain(&second.written).cloned().collect();
    same_elements(seen, expected, "two streams")?;
    offline(&mut reader).await?;
    context.held("a group over two streams reads both");
    Ok(())
}
