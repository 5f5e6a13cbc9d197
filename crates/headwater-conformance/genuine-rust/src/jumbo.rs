//! Events above 8 MiB: uploaded in pieces to a transient segment, which is then merged.
//!
//! The published writer takes the whole event through its frame codec first and so refuses what is above a frame
//! (16 MiB); its reader takes any size. An event above that is therefore sent by hand with the client's own codec, in
//! the same sequence of commands that its writer uses.

use crate::context::{read_all, soon, Arguments, Context};
use anyhow::{anyhow, bail, ensure, Context as _, Result};
use pravega_client_shared::{ScopedStream, WriterId};
use pravega_wire_protocol::commands::{
    ConditionalBlockEndCommand, CreateTransientSegmentCommand, HelloCommand, MergeSegmentsCommand, SetupAppendCommand,
};
use pravega_wire_protocol::wire_commands::{Decode, Encode, Replies, Requests};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MIB: usize = 1024 * 1024;
/// The client cuts a large event in pieces of this size.
const PIECE: usize = 8 * MIB;
/// The largest frame, and so about the largest event the published writer takes.
const FRAME: usize = 0x00FF_FFFF;

pub async fn run(context: &Context, arguments: &mut Arguments) -> Result<()> {
    let mib: usize = arguments.optional("--mib", 20)?;
    let (stream, created) = context.create_stream("jumbo", 1).await?;
    ensure!(created, "{stream} existed");

    // Sizes around the client's limit for an ordinary event, and large events between small ones.
    let sizes = [10, 8 * MIB, 11, 8 * MIB + 1, 12, FRAME - 100, 13];
    let mut events: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(i, size)| noise(i as u64 + 1, *size)).collect();
    let mut writer = context.factory.create_event_writer(stream.clone());
    for event in &events {
        write(&mut writer, event.clone()).await?;
    }
    context.held("events below, at and above 8 MiB are acknowledged");

    let large = noise(99, mib * MIB);
    upload(context, &stream, &large).await?;
    events.push(large);
    let last = noise(100, 14);
    write(&mut writer, last.clone()).await?;
    events.push(last);
    context.held("an event above the size of a frame is uploaded and merged");

    let group = context.factory.create_reader_group("jumbo-group".into(), stream.clone()).await;
    let mut reader = group.create_reader("reader".into()).await;
    let seen = read_all(&mut reader, events.len(), Duration::from_secs(2)).await?;
    ensure!(seen.len() == events.len(), "{} events came back, {} were written", seen.len(), events.len());
    for (seen, written) in seen.iter().zip(&events) {
        let (seen, written) = (&seen.payload, written);
        ensure!(seen.len() == written.len(), "an event of {} bytes came back with {}", written.len(), seen.len());
        ensure!(
            crc32c::crc32c(seen) == crc32c::crc32c(written) && seen == written,
            "an event of {} bytes came back changed",
            written.len()
        );
    }
    soon("reader offline", reader.reader_offline()).await?.map_err(|e| anyhow!("{e}"))?;
    context.held("events of up to 20 MiB come back whole, in the order of writing");
    Ok(())
}

async fn write(writer: &mut pravega_client::event::EventWriter, event: Vec<u8>) -> Result<()> {
    let length = event.len();
    let acknowledgement = writer.write_event_by_routing_key("key".into(), event).await;
    soon("acknowledgement of a large event", acknowledgement)
        .await??
        .map_err(|e| anyhow!("an event of {length} bytes was refused: {e}"))
}

/// The sequence of the client's own writer for large events, on a connection of its own.
async fn upload(context: &Context, stream: &ScopedStream, event: &[u8]) -> Result<()> {
    let segments = context.controller().get_current_segments(stream).await.map_err(|e| anyhow!("{}", e.error))?;
    let parent = segments.get_segment_for_string("key").clone();
    let endpoint = context.controller().get_endpoint_for_segment(&parent).await.map_err(|e| anyhow!("{}", e.error))?;
    let mut connection = TcpStream::connect(endpoint.to_socket_addr()).await.context("connect")?;
    let writer_id = WriterId(0x4a55_4d42_4f00_0000_0000_0000_0000_0001).0;
    let token = String::new;

    let hello = Requests::Hello(HelloCommand { high_version: 15, low_version: 5 });
    let Replies::Hello(_) = exchange(&mut connection, hello).await? else { bail!("no Hello") };
    let create = Requests::CreateTransientSegment(CreateTransientSegmentCommand {
        request_id: 1,
        writer_id,
        segment: parent.to_string(),
        delegation_token: token(),
    });
    let transient = match exchange(&mut connection, create).await? {
        Replies::SegmentCreated(created) => created.segment,
        other => bail!("create a transient segment: {other:?}"),
    };
    let setup = Requests::SetupAppend(SetupAppendCommand {
        request_id: 2,
        writer_id,
        segment: transient.clone(),
        delegation_token: token(),
    });
    match exchange(&mut connection, setup).await? {
        Replies::AppendSetup(setup) if setup.last_event_number == i64::MIN => {}
        other => bail!("set up appends to a transient segment: {other:?}"),
    }
    let mut bytes = 0_i32.to_be_bytes().to_vec();
    bytes.extend_from_slice(&i32::try_from(event.len())?.to_be_bytes());
    bytes.extend_from_slice(event);
    for (number, piece) in bytes.chunks(PIECE).enumerate() {
        let append = Requests::ConditionalBlockEnd(ConditionalBlockEndCommand {
            writer_id,
            event_number: number as i64,
            expected_offset: (number * PIECE) as i64,
            data: piece.to_vec(),
            request_id: 3 + number as i64,
        });
        match exchange(&mut connection, append).await? {
            Replies::DataAppended(appended) if appended.event_number == number as i64 => {}
            other => bail!("append piece {number}: {other:?}"),
        }
    }
    let merge = Requests::MergeSegments(MergeSegmentsCommand {
        request_id: 99,
        target: parent.to_string(),
        source: transient,
        delegation_token: token(),
    });
    match exchange(&mut connection, merge).await? {
        Replies::SegmentsMerged(_) => Ok(()),
        other => bail!("merge a transient segment: {other:?}"),
    }
}

/// Sends a request and waits for its reply.
async fn exchange(connection: &mut TcpStream, request: Requests) -> Result<Replies> {
    let frame = request.write_fields().map_err(|e| anyhow!("encode a request: {e}"))?;
    soon("send", connection.write_all(&frame)).await?.context("send")?;
    let mut reply = vec![0; 8];
    soon("a reply", connection.read_exact(&mut reply)).await?.context("receive")?;
    let length = u32::from_be_bytes([reply[4], reply[5], reply[6], reply[7]]) as usize;
    ensure!(length <= FRAME, "a reply of {length} bytes");
    reply.resize(8 + length, 0);
    soon("a reply", connection.read_exact(&mut reply[8..])).await?.context("receive")?;
    Replies::read_from(&reply).map_err(|e| anyhow!("decode a reply: {e}"))
}

/// Bytes that do not compress and do not repeat (xorshift).
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_be_bytes());
    }
    bytes.truncate(length);
    bytes
}
