//! Byte streams: write, read, seek, tail, truncate, conditional failure, seal.

use crate::context::{soon, within, Arguments, Context, PATIENCE};
use crate::jumbo::noise;
use anyhow::{anyhow, bail, ensure, Context as _, Result};
use pravega_client::byte::reader::ByteReader;
use pravega_client::error::Error;
use std::io::SeekFrom;
use std::time::Duration;

pub async fn run(context: &Context, arguments: &mut Arguments) -> Result<()> {
    let mib: usize = arguments.optional("--mib", 12)?;
    let (stream, created) = context.create_stream("bytes", 1).await?;
    ensure!(created, "{stream} existed");
    let content = noise(7, mib * 1024 * 1024);

    let mut writer = soon("byte writer", context.factory.create_byte_writer(stream.clone())).await?;
    let mut written = 0;
    // Pieces of uneven sizes, the first larger than one append may be.
    for piece in [9 << 20, 1, 4095, 65_536, 777_777].into_iter().cycle() {
        if written == content.len() {
            break;
        }
        let end = content.len().min(written + piece);
        written += soon("write", writer.write(&content[written..end])).await?.map_err(|e| anyhow!("write: {e}"))?;
    }
    soon("flush", writer.flush()).await?.map_err(|e| anyhow!("flush: {e}"))?;
    ensure!(writer.current_offset() == content.len() as u64, "the writer stands at {}", writer.current_offset());
    context.held("bytes are written and acknowledged");

    let mut reader = soon("byte reader", context.factory.create_byte_reader(stream.clone())).await?;
    let tail = reader.current_tail().await.context("tail")?;
    ensure!(tail == content.len() as u64, "the tail is {tail} after {} bytes", content.len());
    ensure!(read(&mut reader, content.len()).await? == content, "the bytes came back changed");
    context.held("bytes come back as they were written");

    for (from, length) in [(0, 10), (1, 100_000), (content.len() / 2, 3_000_000), (content.len() - 5, 5)] {
        let at = reader.seek(SeekFrom::Start(from as u64)).await.context("seek")?;
        ensure!(at == from as u64, "a seek to {from} arrived at {at}");
        let length = length.min(content.len() - from);
        ensure!(read(&mut reader, length).await? == content[from..from + length], "other bytes at {from}");
    }
    reader.seek(SeekFrom::End(-100)).await.context("seek from the end")?;
    ensure!(read(&mut reader, 40).await? == content[content.len() - 100..content.len() - 60], "seek from the end");
    reader.seek(SeekFrom::Current(-20)).await.context("seek from here")?;
    ensure!(read(&mut reader, 80).await? == content[content.len() - 80..], "seek from here");
    context.held("seeks from the start, the end and the present position");

    // At the tail: the read must wait, and return when bytes arrive.
    let more = noise(8, 100_000);
    let waiting = tokio::spawn(async move {
        let bytes = read(&mut reader, 100_000).await;
        (reader, bytes)
    });
    tokio::time::sleep(Duration::from_millis(700)).await;
    ensure!(!waiting.is_finished(), "a read at the tail returned before anything was written");
    write(&mut writer, &more).await?;
    let (mut reader, bytes) = within(PATIENCE, "a read at the tail", waiting).await??;
    ensure!(bytes? == more, "the reader at the tail got other bytes");
    context.held("a reader at the tail waits and gets what is written");

    // A second writer starts at offset 0 by the client's design; its write must fail, and go through after a seek.
    let mut second = soon("byte writer", context.factory.create_byte_writer(stream.clone())).await?;
    // The write tells of it itself if the answer is there by then. A flush after that panics in the client, which waits
    // for the same answer once more.
    let refused = match second.write(b"lost").await {
        Err(refused) => Err(refused),
        Ok(_) => soon("flush of a conflicting write", second.flush()).await?,
    };
    match refused {
        Err(Error::ConditionalCheckFailure { .. }) => {}
        other => bail!("a write at offset 0 of a stream with content: expected a failed condition, got {other:?}"),
    }
    second.reset().await.map_err(|e| anyhow!("reset: {e}"))?;
    soon("seek to the tail", second.seek_to_tail()).await?;
    write(&mut second, b"found").await?;
    ensure!(read(&mut reader, 5).await? == b"found", "the bytes after a failed condition are not the ones written");
    context.held("a write at the wrong offset is refused, and nothing of it is stored");

    let cut = content.len() as i64 / 3;
    soon("truncate", second.truncate_data_before(cut)).await?.map_err(|e| anyhow!("truncate: {e}"))?;
    let head = reader.current_head().await.context("head")?;
    ensure!(head == cut as u64, "the head is {head} after a truncation at {cut}");
    reader.seek(SeekFrom::Start(cut as u64)).await.context("seek to the head")?;
    ensure!(read(&mut reader, 1000).await? == content[cut as usize..cut as usize + 1000], "other bytes at the head");
    reader.seek(SeekFrom::Start(0)).await.context("seek below the head")?;
    let mut buffer = vec![0; 10];
    let below = soon("read below the head", reader.read(&mut buffer)).await?;
    ensure!(below.is_err(), "a read below the head returned {below:?}");
    context.held("a truncated stream starts at its new head");

    // After a failed read the client's reader is used up.
    let mut reader = soon("byte reader", context.factory.create_byte_reader(stream.clone())).await?;
    soon("seal", second.seal()).await?.map_err(|e| anyhow!("seal: {e}"))?;
    reader.seek(SeekFrom::End(-5)).await.context("seek from the end")?;
    ensure!(read(&mut reader, 5).await? == b"found", "the last bytes of a sealed stream");
    let end = soon("read at the end of a sealed stream", reader.read(&mut buffer)).await?;
    ensure!(matches!(end, Ok(0)) || end.is_err(), "a sealed stream goes on after its end: {end:?}");
    let mut third = soon("byte writer", context.factory.create_byte_writer(stream.clone())).await?;
    soon("seek to the tail", third.seek_to_tail()).await?;
    let refused = match third.write(b"never").await {
        Err(_) => true,
        // In a task: waiting for a refusal that has come already panics in the client. What was stored is looked at below.
        Ok(_) => tokio::spawn(async move {
            tokio::time::timeout(Duration::from_secs(20), third.flush()).await.map_or(true, |flush| flush.is_err())
        })
        .await
        .unwrap_or(true),
    };
    ensure!(refused, "a sealed stream accepted a write");
    let tail = reader.current_tail().await.context("tail")?;
    ensure!(tail == content.len() as u64 + 100_005, "the tail of the sealed stream is {tail}");
    context.held("a sealed stream ends, and takes no more");
    Ok(())
}

pub async fn write(writer: &mut pravega_client::byte::ByteWriter, bytes: &[u8]) -> Result<()> {
    let mut written = 0;
    while written < bytes.len() {
        written += soon("write", writer.write(&bytes[written..])).await?.map_err(|e| anyhow!("write: {e}"))?;
    }
    soon("flush", writer.flush()).await?.map_err(|e| anyhow!("flush: {e}"))
}

pub async fn read(reader: &mut ByteReader, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        let count = soon("read", reader.read(&mut bytes[filled..])).await?.context("read")?;
        ensure!(count > 0, "the stream ended {} bytes early", length - filled);
        filled += count;
    }
    Ok(bytes)
}
