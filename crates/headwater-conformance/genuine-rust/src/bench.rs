//! How fast the client writes events of one size to a stream of one segment, for comparison between servers.

use crate::context::{soon, Arguments, Context};
use crate::jumbo::noise;
use anyhow::{anyhow, ensure, Context as _, Result};
use serde_json::json;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Writes for `--seconds` after `--warmup`, with at most `--in-flight` events unacknowledged; prints the events that
/// were acknowledged meanwhile, and how many were in all.
pub async fn run(context: &Context, arguments: &mut Arguments) -> Result<()> {
    let name: String = arguments.required("--stream")?;
    let size: usize = arguments.optional("--size", 1024)?;
    let in_flight: usize = arguments.optional("--in-flight", 20_000)?;
    let counted = Duration::from_secs_f64(arguments.optional("--seconds", 5.0)?);
    let warmup = Duration::from_secs_f64(arguments.optional("--warmup", 1.0)?);
    ensure!(size > 0 && in_flight > 0, "--size and --in-flight are at least 1");
    let (stream, _) = context.create_stream(&name, 1).await?;
    let event = noise(5, size);
    let mut writer = context.factory.create_event_writer(stream);
    let mut pending = VecDeque::with_capacity(in_flight);
    let (mut acknowledged, mut before) = (0_u64, 0_u64);
    let started = Instant::now();
    let mut counting_since = None;
    let elapsed = loop {
        let now = started.elapsed();
        if counting_since.is_none() && now >= warmup {
            (counting_since, before) = (Some(now), acknowledged);
        }
        if let Some(since) = counting_since.filter(|since| now >= *since + counted) {
            break now - since;
        }
        // In steps: looking at the clock for every event would be part of the figure.
        for _ in 0..256 {
            pending.push_back(writer.write_event_by_routing_key("key".to_owned(), event.clone()).await);
            if pending.len() >= in_flight {
                let oldest = pending.pop_front().context("an event is pending")?;
                soon("an acknowledgement", oldest).await??.map_err(|e| anyhow!("write: {e}"))?;
                acknowledged += 1;
            }
        }
        // Acknowledgements that are there already.
        while let Some(oldest) = pending.front_mut() {
            match oldest.try_recv() {
                Ok(outcome) => {
                    outcome.map_err(|e| anyhow!("write: {e}"))?;
                    pending.pop_front();
                    acknowledged += 1;
                }
                Err(tokio::sync::oneshot::error::TryRecvError::Empty) => break,
                Err(error) => return Err(anyhow!("an acknowledgement: {error}")),
            }
        }
    };
    let events = acknowledged - before;
    soon("flush", writer.flush()).await?.map_err(|e| anyhow!("flush: {e}"))?;
    // Those that are pending are acknowledged now.
    let written = acknowledged + pending.len() as u64;
    context.print(json!({
        "events": events,
        "bytes": events * size as u64,
        "seconds": elapsed.as_secs_f64(),
        "written": written,
    }));
    Ok(())
}
