//! `headwater bench load`: our own client's part in `headwater bench clients`, which runs it and the other clients' programs
//! with the same words. It runs by itself just as well.

#![allow(
    clippy::disallowed_methods,
    reason = "a load generator paces and times itself; nothing here runs in the simulator"
)]

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt as _;
use headwater::Embedded;
use headwater::client::{
    Ack, Batch, Client, ClientOptions, EventWriter, Name, ReaderGroupConfig, ReaderOptions, ScopedStream, StreamConfig,
};
use headwater_bench::{EVENT_HEADER_BYTES, Figures, Latencies, median};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::cli::scope_name;
use crate::exit;

/// Times that what is there to be read is read; the median counts.
const READINGS: usize = 5;
/// Events taken at a time, if they are there.
const BATCH: usize = 1024;
/// Events between two looks at the clock: it would be part of the figure.
const STEP: u32 = 256;

/// Write events with our own client, then at a fixed rate, then read them back
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The controller of a running server
    #[arg(long, value_name = "ADDR", default_value = "tcp://127.0.0.1:9090", conflicts_with = "embedded")]
    controller: String,
    /// A directory for a store in this process, instead of a server
    #[arg(long, value_name = "DIR")]
    embedded: Option<PathBuf>,
    /// Scope of the stream; may exist
    #[arg(long, default_value = "bench", value_parser = scope_name)]
    scope: Name,
    /// The stream, which must not exist
    #[arg(long, value_parser = scope_name)]
    stream: Name,
    /// Bytes of each event
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=8_000_000))]
    size: u32,
    /// Seconds of each part that count
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    seconds: f64,
    /// Seconds before, of the part that writes as fast as it can
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    warmup: f64,
    /// Most events written and not acknowledged
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    in_flight: u32,
    /// Events per second of the part with a fixed rate
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// MiB of events that are read, several times: few enough that the store has them in memory
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    read_mib: u32,
}

fn seconds(text: &str) -> Result<f64, String> {
    let sane = text.parse().ok().filter(|seconds| (0.0..=3600.0).contains(seconds));
    sane.ok_or_else(|| "not between 0 and 3600".to_owned())
}

type Fault = Box<dyn std::error::Error + Send + Sync>;

pub(crate) fn run(arguments: &Arguments) -> i32 {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = runtime.map_err(Fault::from).and_then(|runtime| runtime.block_on(measure(arguments)));
    match outcome {
        Ok(report) => {
            crate::serve::print(&format!("{}\n", serde_json::to_string(&report).expect("numbers with names")));
            0
        }
        Err(error) => {
            eprintln!("headwater: {}", crate::serve::chain(&*error));
            error.downcast_ref::<headwater::client::Error>().map_or(exit::DOUBT, |error| exit::of_client(error.kind()))
        }
    }
}

async fn measure(arguments: &Arguments) -> Result<Figures, Fault> {
    let (client, store) = match &arguments.embedded {
        Some(directory) => {
            let store = Embedded::open(directory).await?;
            (store.client().clone(), Some(store))
        }
        None => (ClientOptions::new(&arguments.controller)?.connect()?, None),
    };
    let stream = ScopedStream { scope: arguments.scope.clone(), stream: arguments.stream.clone() };
    client.create_scope(&stream.scope).await?;
    create(&client, &stream).await?;
    let event = noise(arguments.size as usize);
    let writer = client.event_writer(&stream, Default::default()).await?;
    let (paced, rate) = at_a_rate(arguments, &writer, &event).await?;
    let (written, write_events_per_second, write) = as_fast_as_it_can(arguments, &writer, &event).await?;
    let first = client.current_segments(&stream).await?.first().ok_or("the stream has no segment")?.id;
    let stored = client.segment_info(&stream, first).await?.end;
    if stored != (written + paced) * (EVENT_HEADER_BYTES as u64 + u64::from(arguments.size)) {
        return Err(format!("{} events were acknowledged, and {stored} bytes are stored", written + paced).into());
    }
    let (read, read_events_per_second) = read(&client, arguments, &event).await?;
    let (write, rate) = (write.quantiles(), rate.quantiles());
    let report = Figures {
        written: written + paced,
        write_events_per_second,
        write_p50_us: write.p50_us,
        write_p99_us: write.p99_us,
        rate_p50_us: rate.p50_us,
        rate_p99_us: rate.p99_us,
        read,
        read_events_per_second,
        resident_bytes: peak_bytes(),
    };
    if let Some(store) = store {
        store.stop().await;
    }
    Ok(report)
}

/// All that were written, how many per second after the warm-up, and their latencies.
async fn as_fast_as_it_can(
    arguments: &Arguments,
    writer: &EventWriter,
    event: &Bytes,
) -> Result<(u64, f64, Latencies), Fault> {
    let in_flight = arguments.in_flight as usize;
    let mut pending: VecDeque<(Instant, Ack)> = VecDeque::with_capacity(in_flight);
    let mut latencies = Latencies::new();
    let (mut written, mut acknowledged) = (0_u64, 0_u64);
    let started = Instant::now();
    let (warmup, counted) = (Duration::from_secs_f64(arguments.warmup), Duration::from_secs_f64(arguments.seconds));
    let mut counting: Option<(Instant, u64)> = None;
    let rate = loop {
        let now = Instant::now();
        if now >= started + warmup && counting.is_none() {
            counting = Some((now, acknowledged));
        }
        // From when counting began: a stall before must not leave nothing to be counted.
        if let Some((since, before)) = counting.filter(|(since, _)| now > *since && now - *since >= counted) {
            break (acknowledged - before) as f64 / (now - since).as_secs_f64();
        }
        let mut count = |sent: Instant, now: Instant| {
            acknowledged += 1;
            if counting.is_some() {
                latencies.record((now - sent).as_nanos() as u64);
            }
        };
        for _ in 0..STEP {
            pending.push_back((now, writer.write("key", event.clone()).await?));
            written += 1;
            if pending.len() >= in_flight {
                let (sent, oldest) = pending.pop_front().expect("there are some in flight");
                oldest.await?;
                count(sent, Instant::now());
            }
        }
        // Those that are there already.
        let now = Instant::now();
        while let Some((sent, oldest)) = pending.front_mut() {
            let Some(outcome) = oldest.now_or_never() else { break };
            outcome?;
            count(*sent, now);
            pending.pop_front();
        }
    };
    writer.flush().await?;
    Ok((written, rate, latencies))
}

/// How many, and their latencies from when each was due.
async fn at_a_rate(arguments: &Arguments, writer: &EventWriter, event: &Bytes) -> Result<(u64, Latencies), Fault> {
    let count = (f64::from(arguments.rate) * arguments.seconds).ceil() as u32;
    let (sender, mut acks) = mpsc::unbounded_channel::<(Instant, Ack)>();
    let collected = tokio::spawn(async move {
        let mut latencies = Latencies::new();
        while let Some((due, ack)) = acks.recv().await {
            ack.await?;
            latencies.record(due.elapsed().as_nanos() as u64);
        }
        Ok::<_, Fault>(latencies)
    });
    let (runtime, writer, event, rate) = (Handle::current(), writer.clone(), event.clone(), arguments.rate);
    // The runtime's timers are as fine as a millisecond, and so would the latencies be.
    let sent = tokio::task::spawn_blocking(move || {
        let started = Instant::now();
        for number in 0..count {
            let due = started + Duration::from_secs_f64(f64::from(number) / f64::from(rate));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // The collector ends first only with an error, which it tells.
            let _ = sender.send((due, runtime.block_on(writer.write("key", event.clone()))?));
        }
        Ok::<_, Fault>(())
    });
    sent.await??;
    Ok((u64::from(count), collected.await??))
}

/// Writes what fits into memory and reads it through groups of one reader: events of each reading, and per second.
async fn read(client: &Client, arguments: &Arguments, event: &Bytes) -> Result<(u64, f64), Fault> {
    let stream = Name::parse(&format!("{}-read", arguments.stream))?;
    let stream = ScopedStream { scope: arguments.scope.clone(), stream };
    create(client, &stream).await?;
    let writer = client.event_writer(&stream, Default::default()).await?;
    let count = (u64::from(arguments.read_mib) << 20).div_ceil(u64::from(arguments.size));
    for _ in 0..count {
        // Failures are flush's.
        drop(writer.write("key", event.clone()).await?);
    }
    writer.flush().await?;
    let mut rates = Vec::new();
    for number in 0..READINGS {
        let name = Name::parse(&format!("{}-{number}", stream.stream))?;
        client.create_reader_group(&stream.scope, &name, &ReaderGroupConfig::of(&stream)).await?;
        let group = client.reader_group(&stream.scope, &name).await?;
        let mut reader = group.reader_with("reader", ReaderOptions::at_once()).await?;
        let (mut read, mut since) = (0_u64, Instant::now());
        while read < count {
            let found = match reader.next_batch(BATCH).await? {
                Some(Batch::Events(found)) => found,
                Some(Batch::Checkpoint(_)) => continue,
                None => return Err(format!("the group ended after {read} of {count} events").into()),
            };
            // Joining the group is not reading.
            if read == 0 {
                since = Instant::now();
            }
            if let Some(odd) = found.iter().find(|found| found.len() != event.len()) {
                return Err(format!("an event behind {} has {} bytes", found.offset(), odd.len()).into());
            }
            read += found.len() as u64;
        }
        rates.push(count as f64 / since.elapsed().as_secs_f64());
        reader.close().await?;
    }
    Ok((count, median(rates)))
}

async fn create(client: &Client, stream: &ScopedStream) -> Result<(), Fault> {
    if client.create_stream(stream, &StreamConfig::fixed(1)).await? {
        return Ok(());
    }
    Err(format!("stream {stream} exists").into())
}

/// Bytes that nothing compresses.
fn noise(length: usize) -> Bytes {
    let mut state = 5_u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(next).collect()
}

/// Most memory this process ever had, in bytes; 0 if the system does not say.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).map_or(0, |kib| kib << 10)
}
