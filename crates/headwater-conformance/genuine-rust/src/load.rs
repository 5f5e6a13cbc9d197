//! The client's part in `headwater bench clients`: writes as fast as it can, then at a rate, and reads from memory.

use crate::context::{soon, Arguments, Context};
use crate::jumbo::noise;
use anyhow::{anyhow, ensure, Context as _, Result};
use pravega_client_shared::ScopedStream;
use serde_json::json;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tokio::sync::oneshot::error::TryRecvError;

/// Times that what is there to be read is read; the median counts.
const READINGS: usize = 5;
/// Events between two looks at the clock: it would be part of the figure.
const STEP: u32 = 256;

pub async fn run(context: &Context, arguments: &mut Arguments) -> Result<()> {
    let name: String = arguments.required("--stream")?;
    let size: usize = arguments.optional("--size", 1024)?;
    let in_flight: usize = arguments.optional("--in-flight", 20_000)?;
    let counted = Duration::from_secs_f64(arguments.optional("--seconds", 3.0)?);
    let warmup = Duration::from_secs_f64(arguments.optional("--warmup", 1.0)?);
    let rate: u32 = arguments.optional("--rate", 1000)?;
    let read_mib: u64 = arguments.optional("--read-mib", 64)?;
    ensure!(size > 0 && in_flight > 0 && rate > 0, "--size, --in-flight and --rate are at least 1");
    let (stream, _) = context.create_stream(&name, 1).await?;
    let (paced, mut at_rate) = at_a_rate(context, &stream, size, rate, counted).await?;
    let (fast, per_second, mut write) = as_fast_as_it_can(context, &stream, size, in_flight, warmup, counted).await?;
    let (read, read_per_second) = read(context, &name, size, read_mib).await?;
    context.print(json!({
        "written": fast + paced,
        "write_events_per_second": per_second,
        "write_p50_us": quantile(&mut write, 0.5),
        "write_p99_us": quantile(&mut write, 0.99),
        "rate_p50_us": quantile(&mut at_rate, 0.5),
        "rate_p99_us": quantile(&mut at_rate, 0.99),
        "read": read,
        "read_events_per_second": read_per_second,
        "resident_bytes": peak_bytes(),
    }));
    Ok(())
}

async fn as_fast_as_it_can(
    context: &Context,
    stream: &ScopedStream,
    size: usize,
    in_flight: usize,
    warmup: Duration,
    counted: Duration,
) -> Result<(u64, f64, Vec<Duration>)> {
    let event = noise(5, size);
    let mut writer = context.factory.create_event_writer(stream.clone());
    let mut pending = VecDeque::with_capacity(in_flight);
    let mut latencies = Vec::new();
    let (mut written, mut acknowledged) = (0_u64, 0_u64);
    let started = Instant::now();
    let mut counting: Option<(Instant, u64)> = None;
    let rate = loop {
        let now = Instant::now();
        if counting.is_none() && now >= started + warmup {
            counting = Some((now, acknowledged));
        }
        if let Some((since, before)) = counting.filter(|(since, _)| now > *since && now - *since >= counted) {
            break (acknowledged - before) as f64 / (now - since).as_secs_f64();
        }
        let mut count = |latency| {
            acknowledged += 1;
            if counting.is_some() {
                latencies.push(latency);
            }
        };
        for _ in 0..STEP {
            pending.push_back((now, writer.write_event_by_routing_key("key".to_owned(), event.clone()).await));
            written += 1;
            if pending.len() >= in_flight {
                let (sent, oldest) = pending.pop_front().context("an event is pending")?;
                soon("an acknowledgement", oldest).await??.map_err(|e| anyhow!("write: {e}"))?;
                count(sent.elapsed());
            }
        }
        let now = Instant::now();
        while let Some((sent, oldest)) = pending.front_mut() {
            match oldest.try_recv() {
                Ok(outcome) => {
                    outcome.map_err(|e| anyhow!("write: {e}"))?;
                    count(now - *sent);
                    pending.pop_front();
                }
                Err(TryRecvError::Empty) => break,
                Err(error) => return Err(anyhow!("an acknowledgement: {error}")),
            }
        }
    };
    soon("flush", writer.flush()).await?.map_err(|e| anyhow!("flush: {e}"))?;
    Ok((written, rate, latencies))
}

/// Latencies count from when an event was due.
async fn at_a_rate(
    context: &Context,
    stream: &ScopedStream,
    size: usize,
    rate: u32,
    counted: Duration,
) -> Result<(u64, Vec<Duration>)> {
    let event = noise(5, size);
    let mut writer = context.factory.create_event_writer(stream.clone());
    let count = (f64::from(rate) * counted.as_secs_f64()).ceil() as u32;
    let (sender, mut pending) = tokio::sync::mpsc::unbounded_channel::<(Instant, tokio::sync::oneshot::Receiver<_>)>();
    let collected = tokio::spawn(async move {
        let mut latencies = Vec::new();
        while let Some((due, acknowledgement)) = pending.recv().await {
            let outcome: Result<(), _> = acknowledgement.await.context("an acknowledgement")?;
            outcome.map_err(|e: pravega_client::error::Error| anyhow!("write: {e}"))?;
            latencies.push(due.elapsed());
        }
        anyhow::Ok(latencies)
    });
    let runtime = tokio::runtime::Handle::current();
    // The runtime's timers are as fine as a millisecond, and so would the latencies be.
    let sent = tokio::task::spawn_blocking(move || {
        let started = Instant::now();
        for number in 0..count {
            let due = started + Duration::from_secs_f64(f64::from(number) / f64::from(rate));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let acknowledgement = writer.write_event_by_routing_key("key".to_owned(), event.clone());
            // The collector ends first only with an error, which it tells.
            let _ = sender.send((due, runtime.block_on(acknowledgement)));
        }
        writer
    });
    // Dropping the writer gives up what is under way.
    let _writer = sent.await.context("the writing thread")?;
    Ok((u64::from(count), soon("acknowledgements", collected).await???))
}

/// Writes what fits into memory and reads it through groups of one reader: events of each reading, and per second.
async fn read(context: &Context, name: &str, size: usize, mib: u64) -> Result<(u64, f64)> {
    let (stream, _) = context.create_stream(&format!("{name}-read"), 1).await?;
    let event = noise(5, size);
    let mut writer = context.factory.create_event_writer(stream.clone());
    let count = (mib << 20).div_ceil(size as u64);
    for _ in 0..count {
        let _ = writer.write_event_by_routing_key("key".to_owned(), event.clone()).await;
    }
    soon("flush", writer.flush()).await?.map_err(|e| anyhow!("flush: {e}"))?;
    let mut rates = Vec::new();
    for number in 0..READINGS {
        let group = context.factory.create_reader_group(format!("{name}-read-{number}"), stream.clone()).await;
        let mut reader = group.create_reader("reader".to_owned()).await;
        let (mut read, mut since) = (0_u64, Instant::now());
        while read < count {
            let slice = soon("acquire", reader.acquire_segment()).await?.map_err(|e| anyhow!("acquire: {e}"))?;
            let Some(mut slice) = slice else { continue };
            for event in slice.by_ref() {
                // Joining the group is not reading.
                if read == 0 {
                    since = Instant::now();
                }
                ensure!(event.value.len() == size, "event {read} has {} bytes", event.value.len());
                read += 1;
            }
            soon("release", reader.release_segment(slice)).await?.map_err(|e| anyhow!("release: {e}"))?;
        }
        rates.push(count as f64 / since.elapsed().as_secs_f64());
        soon("reader offline", reader.reader_offline()).await?.map_err(|e| anyhow!("reader offline: {e}"))?;
    }
    rates.sort_by(f64::total_cmp);
    Ok((count, rates[READINGS / 2]))
}

/// In microseconds; 0 of nothing.
fn quantile(latencies: &mut [Duration], at: f64) -> f64 {
    latencies.sort_unstable();
    let index = ((latencies.len() as f64 * at).ceil() as usize).saturating_sub(1);
    latencies.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
}

fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).map_or(0, |kib| kib << 10)
}
