//! Plain events: writers with and without keys, writers and readers while the stream scales, and the end of a stream.

use crate::admin::{current_segments, scale_to};
use crate::context::{
    fixed, order_per_key, read_all, same_elements, soon, take_slice, texts, Arguments, Context, Seen, PATIENCE,
};
use anyhow::{anyhow, ensure, Result};
use pravega_client::event::reader::EventReader;
use pravega_client::event::EventWriter;
use pravega_client_shared::{ScaleType, Scaling, ScopedStream};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const QUIET: Duration = Duration::from_secs(2);
/// Of a stream whose load is ten times its policy's all the time.
const SPLIT_WITHIN: Duration = Duration::from_secs(60);
/// A writer makes so many keys.
const KEYS: usize = 20;

pub async fn writer(context: &Context, _arguments: &mut Arguments) -> Result<()> {
    keys(context).await?;
    sizes(context).await?;
    sealed(context).await
}

fn event(run: &str, number: usize) -> (String, String) {
    let key = format!("{run}{}", number % KEYS);
    let text = format!("{key}:{number}");
    (key, text)
}

/// Writes `key:number` for each number, and does not wait.
async fn send(writer: &mut EventWriter, run: &str, numbers: std::ops::Range<usize>) -> Vec<String> {
    let mut written = Vec::new();
    for number in numbers {
        let (key, text) = event(run, number);
        let _ = writer.write_event_by_routing_key(key, text.clone().into_bytes()).await;
        written.push(text);
    }
    written
}

async fn flush(writer: &mut EventWriter) -> Result<()> {
    soon("flush", writer.flush()).await?.map_err(|e| anyhow!("flush: {e}"))
}

async fn reader(context: &Context, stream: &ScopedStream) -> EventReader {
    let group = context.factory.create_reader_group(format!("{}-group", stream.stream.name), stream.clone()).await;
    group.create_reader("reader".into()).await
}

async fn offline(mut reader: EventReader) -> Result<()> {
    soon("reader offline", reader.reader_offline()).await?.map_err(|e| anyhow!("reader offline: {e}"))
}

/// Two writers with keys of their own at once, and one without any.
async fn keys(context: &Context) -> Result<()> {
    let (stream, created) = context.create_stream("written", 4).await?;
    ensure!(created, "{stream} existed");
    let mut first = context.factory.create_event_writer(stream.clone());
    let mut second = context.factory.create_event_writer(stream.clone());
    let (mut written, more) = tokio::join!(send(&mut first, "first-", 0..500), send(&mut second, "second-", 0..500));
    written.extend(more);
    flush(&mut first).await?;
    flush(&mut second).await?;
    let mut events = reader(context, &stream).await;
    let seen = texts(&read_all(&mut events, written.len(), QUIET).await?)?;
    order_per_key(&seen, "events with keys")?;
    same_elements(seen, written, "events with keys")?;
    context.held("events with routing keys are stored once each, in order per key");

    let mut written = Vec::new();
    for number in 0..400 {
        let text = format!("keyless:{number}");
        let _ = first.write_event(text.clone().into_bytes()).await;
        written.push(text);
    }
    flush(&mut first).await?;
    let seen = read_all(&mut events, written.len(), QUIET).await?;
    let segments: std::collections::BTreeSet<&str> = seen.iter().map(|event| event.segment.as_str()).collect();
    ensure!(segments.len() == 4, "400 events without keys went to {segments:?} of four segments");
    same_elements(texts(&seen)?, written, "events without keys")?;
    context.held("events without keys are stored once each, over all segments");
    offline(events).await
}

/// From a byte to the greatest that is not uploaded in pieces. An empty one can be written, and the client's reader
/// takes it for the end of what there is to read.
async fn sizes(context: &Context) -> Result<()> {
    let (stream, created) = context.create_stream("sized", 1).await?;
    ensure!(created, "{stream} existed");
    let mut writer = context.factory.create_event_writer(stream.clone());
    let written: Vec<Vec<u8>> = [1, 8 * 1024 * 1024, 7].map(|length| vec![b'x'; length]).to_vec();
    for event in &written {
        let _ = writer.write_event_by_routing_key("k".into(), event.clone()).await;
    }
    flush(&mut writer).await?;
    let mut events = reader(context, &stream).await;
    let seen: Vec<Vec<u8>> =
        read_all(&mut events, written.len(), QUIET).await?.into_iter().map(|event| event.payload).collect();
    let lengths = |events: &[Vec<u8>]| events.iter().map(Vec::len).collect::<Vec<_>>();
    ensure!(seen == written, "events of {:?} bytes came back with {:?}", lengths(&written), lengths(&seen));
    context.held("events from a byte to the greatest size come back");
    offline(events).await
}

/// What is written to a stream that was sealed is refused, and what was written before is read to its end.
async fn sealed(context: &Context) -> Result<()> {
    let (stream, created) = context.create_stream("ended", 2).await?;
    ensure!(created, "{stream} existed");
    let mut writer = context.factory.create_event_writer(stream.clone());
    let written = send(&mut writer, "key-", 0..100).await;
    flush(&mut writer).await?;
    context.controller().seal_stream(&stream).await.map_err(|e| anyhow!("seal: {}", e.error))?;
    let acknowledged = soon("an answer to a write after the seal", async {
        writer.write_event_by_routing_key("key-0".into(), b"late".to_vec()).await.await
    });
    ensure!(!matches!(acknowledged.await?, Ok(Ok(()))), "a write to a sealed stream was acknowledged");
    context.held("a writer of a stream that was sealed is told");

    let mut events = reader(context, &stream).await;
    let seen = texts(&read_all(&mut events, written.len(), QUIET).await?)?;
    order_per_key(&seen, "a sealed stream")?;
    same_elements(seen, written, "a sealed stream")?;
    context.held("readers of a sealed stream come to its end");
    offline(events).await
}

/// Splits and merges while a writer writes and a reader reads.
pub async fn scaling(context: &Context, _arguments: &mut Arguments) -> Result<()> {
    let (stream, created) = context.create_stream("scaled", 1).await?;
    ensure!(created, "{stream} existed");
    let mut writer = context.factory.create_event_writer(stream.clone());
    let mut events = reader(context, &stream).await;
    let (mut written, mut seen) = (Vec::new(), Vec::<Seen>::new());
    for to in [3, 1, 4, 2] {
        let from = written.len();
        let (sent, scaled) = tokio::join!(write_slowly(&mut writer, from..from + 400), scale_to(context, &stream, to));
        scaled?;
        written.extend(sent?);
        seen.extend(take_slice(&mut events).await?.unwrap_or_default());
    }
    context.held("writers follow splits and merges while they write");

    let epochs = all_come(&mut events, seen, written, "over splits and merges").await?;
    ensure!(epochs > 2, "all events are in segments of {epochs} epochs");
    context.held("readers follow splits and merges: every event once, in order per key");
    offline(events).await
}

/// Reads until everything came: once, and in order per key. Returns of how many epochs the segments are.
async fn all_come(events: &mut EventReader, mut seen: Vec<Seen>, written: Vec<String>, what: &str) -> Result<usize> {
    let started = Instant::now();
    while seen.len() < written.len() {
        seen.extend(take_slice(events).await?.unwrap_or_default());
        ensure!(started.elapsed() < PATIENCE, "{} of {} events came", seen.len(), written.len());
    }
    seen.extend(read_all(events, 0, QUIET).await?);
    let epochs: BTreeSet<&str> = seen.iter().filter_map(|event| event.segment.rsplit('.').next()).collect();
    let seen = texts(&seen)?;
    order_per_key(&seen, what)?;
    same_elements(seen, written, what)?;
    Ok(epochs.len())
}

/// A stream that is to split by itself, under a load of ten times what it is made for.
pub async fn elastic(context: &Context, _arguments: &mut Arguments) -> Result<()> {
    context.create_scope().await?;
    let stream = context.stream("elastic");
    let mut config = fixed(&stream, 1);
    config.scaling =
        Scaling { scale_type: ScaleType::ByRateInEventsPerSec, target_rate: 10, scale_factor: 2, min_num_segments: 1 };
    let created =
        context.controller().create_stream(&config).await.map_err(|e| anyhow!("create {stream}: {}", e.error))?;
    ensure!(created, "{stream} existed");
    let mut writer = context.factory.create_event_writer(stream.clone());
    let mut events = reader(context, &stream).await;
    let (mut written, mut seen) = (Vec::new(), Vec::<Seen>::new());
    let started = Instant::now();
    while current_segments(context, &stream).await?.key_segment_map.len() < 2 {
        ensure!(started.elapsed() < SPLIT_WITHIN, "no split after {} events in {SPLIT_WITHIN:?}", written.len());
        let from = written.len();
        written.extend(write_slowly(&mut writer, from..from + 100).await?);
        seen.extend(take_slice(&mut events).await?.unwrap_or_default());
    }
    context.print(json!({ "split_after_ms": started.elapsed().as_millis() as u64, "events": written.len() }));
    let from = written.len();
    written.extend(write_slowly(&mut writer, from..from + 500).await?);
    let epochs = all_come(&mut events, seen, written, "over a split by load").await?;
    ensure!(epochs > 1, "all events are in segments of one epoch");
    context.held("a stream by rate splits by itself within a minute of overload: every event once, in order per key");
    offline(events).await
}

/// Some four seconds per thousand events: a scale comes into the midst of them.
async fn write_slowly(writer: &mut EventWriter, numbers: std::ops::Range<usize>) -> Result<Vec<String>> {
    let mut written = Vec::new();
    for number in numbers {
        written.extend(send(writer, "key-", number..number + 1).await);
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    flush(writer).await?;
    Ok(written)
}

/// Somebody whom the server does not know, or knows and granted nothing here, gets nothing done.
pub async fn refused(context: &Context, arguments: &mut Arguments) -> Result<()> {
    let because: String = arguments.required("--because")?;
    let stream = context.stream("forbidden");
    let controller = context.controller();
    let expect = |what: &str, error: Option<String>| {
        let error = error.ok_or_else(|| anyhow!("{what} is not refused"))?;
        ensure!(error.contains(&because), "{what} is refused, but not with {because:?}: {error}");
        Ok(())
    };
    let created = soon("create a scope", controller.create_scope(&context.scope)).await?;
    expect("the creation of a scope", created.err().map(|e| format!("{:?}", e.error)))?;
    let token = soon("a token", controller.get_or_refresh_delegation_token_for(stream.clone())).await?;
    expect("a wish for a token", token.err().map(|e| format!("{:?}", e.error)))?;
    context.held("nothing is created, told or granted");
    Ok(())
}
