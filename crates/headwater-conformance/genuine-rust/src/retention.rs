//! Retention: the server truncates streams by itself while this client writes to them and reads from them. The server
//! looks at them once a minute.

use crate::bytes::{read, write};
use crate::context::{fixed, order_per_key, read_all, same_elements, soon, texts, Arguments, Context, Seen};
use crate::jumbo::noise;
use anyhow::{anyhow, ensure, Context as _, Result};
use pravega_client::event::reader::EventReader;
use pravega_client::event::EventWriter;
use pravega_client_shared::{Retention, RetentionType, ScopedStream};
use std::io::SeekFrom;
use std::ops::Range;
use std::time::{Duration, Instant};

/// From one run of the server to the next, and some time for the run.
const RUN: Duration = Duration::from_secs(90);
const QUIET: Duration = Duration::from_secs(2);
/// More than the client reads ahead.
const BYTES: usize = 4 << 20;

pub async fn run(context: &Context, _arguments: &mut Arguments) -> Result<()> {
    context.create_scope().await?;
    // A run takes the streams in the order of their names: with the last of them it has been at all three.
    let mut by_size = Retained::create(context, "by-size", RetentionType::Size, 1).await?;
    let mut by_time = Retained::create(context, "by-time", RetentionType::Time, 0).await?;
    let bytes = create(context, "by-time-bytes", RetentionType::Time, 0).await?;
    by_size.write(0..100).await?;
    by_time.write(0..100).await?;
    let content = noise(7, BYTES);
    let mut writer = soon("byte writer", context.factory.create_byte_writer(bytes.clone())).await?;
    write(&mut writer, &content).await?;
    let mut behind = soon("byte reader", context.factory.create_byte_reader(bytes.clone())).await?;
    let mut asking = soon("byte reader", context.factory.create_byte_reader(bytes.clone())).await?;
    for reader in [&mut behind, &mut asking] {
        ensure!(read(reader, 1000).await? == content[..1000], "the bytes came back changed");
    }
    let ends = (by_size.read(0..100).await?, by_time.read(0..100).await?);

    until_head(context, &bytes, BYTES as i64).await?;
    ensure!(head(context, &by_size.stream).await? == 0, "nothing was written since the server first looked at by-size");
    ensure!(head(context, &by_time.stream).await? == ends.1, "by-time does not begin where it ended");
    by_time.write(100..150).await?;
    by_time.read(100..150).await?;
    by_time.left(context, 100..150).await?;
    context.held("what is older than the policy's time goes: a reader that was ahead reads on, a new group begins at the new head");

    let head = asking.current_head().await.context("head")?;
    ensure!(head == BYTES as u64, "the byte stream begins at {head}");
    asking.seek(SeekFrom::Start(head)).await.context("seek to the head")?;
    let more = noise(8, 100_000);
    write(&mut writer, &more).await?;
    ensure!(read(&mut asking, more.len()).await? == more, "other bytes from the new head on");
    let (mut buffer, mut at) = (vec![0; 100_000], 1000);
    // What it read ahead is as it was written, and then it is told.
    loop {
        match soon("a read behind the head", behind.read(&mut buffer)).await? {
            Ok(count) => {
                ensure!(count > 0 && at + count < BYTES, "a reader behind the head reads {count} bytes at {at}");
                ensure!(buffer[..count] == content[at..at + count], "other bytes at {at}");
                at += count;
            }
            Err(_) => break,
        }
    }
    context.held("a byte reader that asks for the new head goes on there, and one that does not is told");

    by_size.write(100..150).await?;
    until_head(context, &by_size.stream, ends.0).await?;
    by_size.read(100..150).await?;
    by_size.left(context, 100..150).await?;
    context.held("what is more than the policy's size goes: a reader that was ahead reads on, a new group begins at the new head");
    by_size.end().await?;
    by_time.end().await
}

async fn create(context: &Context, name: &str, kind: RetentionType, retention_param: i64) -> Result<ScopedStream> {
    let stream = context.stream(name);
    let mut config = fixed(&stream, 1);
    config.retention = Retention { retention_type: kind, retention_param };
    let created =
        context.controller().create_stream(&config).await.map_err(|e| anyhow!("create {stream}: {}", e.error))?;
    ensure!(created, "{stream} existed");
    Ok(stream)
}

async fn head(context: &Context, stream: &ScopedStream) -> Result<i64> {
    let head = context.controller().get_head_segments(stream).await.map_err(|e| anyhow!("head: {}", e.error))?;
    ensure!(head.len() == 1, "{stream} begins in {} segments", head.len());
    head.values().next().copied().context("it has one")
}

async fn until_head(context: &Context, stream: &ScopedStream, wanted: i64) -> Result<()> {
    let started = Instant::now();
    loop {
        let head = head(context, stream).await?;
        if head == wanted {
            return Ok(());
        }
        ensure!(head == 0, "{stream} begins at {head}, which is neither its beginning nor {wanted}");
        ensure!(started.elapsed() < RUN, "{stream} still begins at 0 after {RUN:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// A stream of events with a policy, one that writes to it and one that reads everything from it.
struct Retained {
    stream: ScopedStream,
    writer: EventWriter,
    reader: EventReader,
}

fn event(number: usize) -> (String, String) {
    let key = format!("key-{}", number % 7);
    let text = format!("{key}:{number}");
    (key, text)
}

impl Retained {
    async fn create(context: &Context, name: &str, kind: RetentionType, parameter: i64) -> Result<Self> {
        let stream = create(context, name, kind, parameter).await?;
        let writer = context.factory.create_event_writer(stream.clone());
        let group = context.factory.create_reader_group(format!("{name}-ahead"), stream.clone()).await;
        Ok(Self { stream, writer, reader: group.create_reader("reader".into()).await })
    }

    async fn write(&mut self, numbers: Range<usize>) -> Result<()> {
        for number in numbers {
            let (key, event) = event(number);
            let _ = self.writer.write_event_by_routing_key(key, event.into_bytes()).await;
        }
        soon("flush", self.writer.flush()).await?.map_err(|e| anyhow!("flush: {e}"))
    }

    /// Exactly these come. Returns where the last of them ends.
    async fn read(&mut self, numbers: Range<usize>) -> Result<i64> {
        Self::expect(&mut self.reader, numbers).await
    }

    async fn expect(reader: &mut EventReader, numbers: Range<usize>) -> Result<i64> {
        let seen: Vec<Seen> = read_all(reader, numbers.len(), QUIET).await?;
        let texts = texts(&seen)?;
        order_per_key(&texts, "a stream with retention")?;
        same_elements(texts, numbers.map(|number| event(number).1).collect(), "a stream with retention")?;
        seen.iter().map(|event| event.offset + 8 + event.payload.len() as i64).max().context("there are events")
    }

    /// Exactly these are there for somebody new.
    async fn left(&self, context: &Context, numbers: Range<usize>) -> Result<()> {
        let name = format!("{}-new", self.stream.stream.name);
        let group = context.factory.create_reader_group(name, self.stream.clone()).await;
        let mut reader = group.create_reader("reader".into()).await;
        Self::expect(&mut reader, numbers).await?;
        soon("reader offline", reader.reader_offline()).await?.map_err(|e| anyhow!("reader offline: {e}"))
    }

    async fn end(mut self) -> Result<()> {
        soon("reader offline", self.reader.reader_offline()).await?.map_err(|e| anyhow!("reader offline: {e}"))
    }
}
