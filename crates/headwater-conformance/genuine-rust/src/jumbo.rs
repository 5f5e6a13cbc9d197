//! Events above 8 MiB: the client uploads them in pieces to a transient segment and merges it.

use crate::context::{read_all, soon, Arguments, Context};
use anyhow::{anyhow, ensure, Result};
use std::time::Duration;

pub async fn run(context: &Context, arguments: &mut Arguments) -> Result<()> {
    let mib: usize = arguments.optional("--mib", 20)?;
    let (stream, created) = context.create_stream("jumbo", 1).await?;
    ensure!(created, "{stream} existed");

    // Sizes around the client's limit for an ordinary event, and the jumbo event between small ones.
    let sizes = [10, 8 * 1024 * 1024, 11, 8 * 1024 * 1024 + 1, 12, mib * 1024 * 1024, 13];
    let events: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(i, size)| noise(i as u64 + 1, *size)).collect();
    let mut writer = context.factory.create_event_writer(stream.clone());
    for event in &events {
        let ack = writer.write_event_by_routing_key("key".into(), event.clone()).await;
        soon("acknowledgement of a large event", ack).await??.map_err_to_anyhow(event.len())?;
    }
    context.held("events below, at and above 8 MiB are acknowledged");

    let group = context.factory.create_reader_group("jumbo-group".into(), stream.clone()).await;
    let mut reader = group.create_reader("reader".into()).await;
    let seen = read_all(&mut reader, events.len(), Duration::from_secs(2)).await?;
    ensure!(seen.len() == events.len(), "{} events came back, {} were written", seen.len(), events.len());
    for (seen, written) in seen.iter().zip(&events) {
        ensure!(
            seen.payload.len() == written.len(),
            "an event of {} bytes came back with {}",
            written.len(),
            seen.payload.len()
        );
        ensure!(
            crc32c::crc32c(&seen.payload) == crc32c::crc32c(written) && seen.payload == *written,
            "an event of {} bytes came back changed",
            written.len()
        );
    }
    soon("reader offline", reader.reader_offline()).await?.map_err(|e| anyhow!("{e}"))?;
    context.held("every one comes back whole, in the order of writing");
    Ok(())
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

trait Acknowledged {
    fn map_err_to_anyhow(self, length: usize) -> Result<()>;
}

impl Acknowledged for std::result::Result<(), pravega_client::error::Error> {
    fn map_err_to_anyhow(self, length: usize) -> Result<()> {
        self.map_err(|e| anyhow!("an event of {length} bytes was refused: {e}"))
    }
}
