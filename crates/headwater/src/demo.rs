//! `headwater demo`: flights through a stream that splits while one watches.
//!
//! A store of its own, in this process and on this disk; one writer; two readers of a group that read along. In the end every flight
//! must have been read once, and those of each carrier in order: otherwise the demo fails, and says so.

#![allow(clippy::disallowed_methods, reason = "shows real time to a person; nothing here runs in the simulator")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, Read as _, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use headwater::Embedded;
use headwater::client::{
    Batch, Client, EventReader, EventWriterOptions, KeyRange, Name, ReaderGroupConfig, ReaderOptions, ScopedStream,
    SegmentRange, StreamConfig,
};

use crate::exit;

/// Flights that are made up.
const FLIGHTS: u32 = 300_000;
/// Time that writing takes, so that there is something to watch.
const WRITING: Duration = Duration::from_secs(6);
/// Between two lines about how far it is.
const EVERY: Duration = Duration::from_millis(500);
const READERS: usize = 2;
/// Flights a reader takes at a time.
const BATCH: usize = 512;
/// Longest line of a file, in bytes.
const LINE_BYTES_MAX: usize = 64 << 10;
const CARRIERS: [&str; 16] =
    ["9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV"];
const AIRPORTS: [&str; 8] = ["EWR", "JFK", "LGA", "BOS", "ORD", "ATL", "MIA", "LAX"];

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Flights of your own, one in each line; without it some are made up
    file: Option<PathBuf>,
    /// Which column of the file, separated by commas, is the routing key
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    key_column: u32,
}

/// Whoever reads our output may have enough of it.
macro_rules! say {
    ($($words:tt)*) => {
        writeln!(std::io::stdout(), $($words)*)?
    };
}

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Returns the code to end with.
pub(crate) fn run(arguments: &Arguments) -> i32 {
    let flights = match flights(arguments) {
        Ok(flights) => Arc::new(flights),
        Err((code, error)) => {
            eprintln!("headwater: {error}");
            return code;
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(Fault::from).and_then(|runtime| runtime.block_on(show(flights))) {
        Ok(true) => 0,
        Ok(false) => exit::INTERRUPTED,
        Err(error) if is_broken_pipe(&*error) => 0,
        Err(error) => {
            eprintln!("headwater: {}", crate::serve::chain(&*error));
            exit::DOUBT
        }
    }
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// A routing key, and what is written.
struct Flight {
    carrier: String,
    line: String,
}

/// What flies, or the code to end with and why.
fn flights(arguments: &Arguments) -> Result<Vec<Flight>, (i32, String)> {
    let Some(path) = &arguments.file else { return Ok((0..FLIGHTS).map(made_up).collect()) };
    let unreadable = |error: std::io::Error| (exit::NO_INPUT, format!("{} cannot be read: {error}", path.display()));
    let odd = |what: String| (exit::DATA, format!("{}: {what}", path.display()));
    let mut file = std::io::BufReader::new(std::fs::File::open(path).map_err(unreadable)?);
    let mut flights = Vec::new();
    for number in 1.. {
        let mut line = Vec::new();
        let bytes = (&mut file).take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line).map_err(unreadable)?;
        if bytes == 0 {
            break;
        }
        if bytes > LINE_BYTES_MAX {
            return Err(odd(format!("line {number} has more than {LINE_BYTES_MAX} bytes")));
        }
        let line = String::from_utf8(line).map_err(|_| odd(format!("line {number} is no text")))?;
        let line = line.trim_end_matches(['\r', '\n']).to_owned();
        let column = arguments.key_column;
        let carrier = line.split(',').nth(column as usize - 1);
        let carrier = carrier.ok_or_else(|| odd(format!("line {number} has no column {column}")))?.to_owned();
        flights.push(Flight { carrier, line });
    }
    if flights.is_empty() { Err(odd("there is nothing in it".to_owned())) } else { Ok(flights) }
}

/// The same for every number, everywhere.
fn made_up(number: u32) -> Flight {
    // Neighbours have little in common.
    let mixed = u64::from(number).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let pick = |from: u32, of: usize| (mixed >> from) as usize % of;
    let carrier = CARRIERS[pick(20, CARRIERS.len())].to_owned();
    let (origin, further) = (pick(30, AIRPORTS.len()), 1 + pick(40, AIRPORTS.len() - 1));
    let (origin, destination) = (AIRPORTS[origin], AIRPORTS[(origin + further) % AIRPORTS.len()]);
    let minute = number / 120 % 1440;
    let (delay, flight) = (pick(50, 90) as i64 - 20, pick(10, 6000) + 1);
    let line = format!("{:02}:{:02},{delay},{carrier},{flight},{origin},{destination}", minute / 60, minute % 60);
    Flight { carrier, line }
}

/// What readers have found: of each carrier the numbers of its flights, in the order in which they were handed out.
#[derive(Default)]
struct Found {
    flights: Mutex<BTreeMap<String, Vec<usize>>>,
    count: AtomicU64,
}

/// `false` if it was interrupted. The store is gone in any case.
async fn show(flights: Arc<Vec<Flight>>) -> Result<bool, Fault> {
    let directory = tempfile::Builder::new().prefix("headwater-demo-").tempdir()?;
    say!("a store in {}", directory.path().display());
    let store = Embedded::open(directory.path()).await?;
    let outcome = tokio::select! {
        outcome = fly(store.client(), flights) => outcome.map(|()| true),
        Ok(()) = tokio::signal::ctrl_c() => Ok(false),
    };
    store.stop().await;
    outcome
}

async fn fly(client: &Client, flights: Arc<Vec<Flight>>) -> Result<(), Fault> {
    let stream = ScopedStream::parse("demo/flights")?;
    client.create_scope(&stream.scope).await?;
    client.create_stream(&stream, &StreamConfig::fixed(1)).await?;
    say!("{} flights go into the stream {stream} by their carriers, and {READERS} readers read along", flights.len());
    let group = Name::parse("watchers")?;
    let config = ReaderGroupConfig::of(&stream).every(EVERY / 5, Some(EVERY / 2));
    client.create_reader_group(&stream.scope, &group, &config).await?;
    let group = client.reader_group(&stream.scope, &group).await?;
    let found: Vec<Arc<Found>> = (0..READERS).map(|_| Arc::default()).collect();
    let order = Arc::new(Found::default());
    let mut readers = tokio::task::JoinSet::new();
    for (number, own) in found.iter().enumerate() {
        let reader = group.reader_with(&format!("reader {}", number + 1), ReaderOptions::at_once()).await?;
        readers.spawn(read(reader, flights.clone(), own.clone(), order.clone()));
    }

    let written = Arc::new(AtomicU64::new(0));
    let mut writing = tokio::spawn(write(client.clone(), stream.clone(), flights.clone(), written.clone()));
    let begun = Instant::now();
    let mut segments = client.current_segments(&stream).await?;
    let mut tick = tokio::time::interval(EVERY);
    let (third, mut splits) = (flights.len() as u64 / 3, 0);
    loop {
        tokio::select! {
            outcome = &mut writing => {
                outcome??;
                break;
            }
            _ = tick.tick() => {}
        }
        let so_far = written.load(Ordering::Relaxed);
        tell(begun, so_far, &found, &segments)?;
        if splits < 2 && so_far > third * (splits + 1) {
            splits += 1;
            segments = split(client, &stream, &segments).await?;
            say!("        every segment is split: {} now", segments.len());
        }
    }
    client.seal_stream(&stream).await?;
    while let Some(ended) = readers.join_next().await {
        ended??;
    }
    tell(begun, flights.len() as u64, &found, &segments)?;
    verify(&flights, &order.flights.lock().expect("readers do not panic"))?;
    say!("all {} flights were read once, and those of each carrier in order", flights.len());
    Ok(())
}

fn tell(begun: Instant, written: u64, found: &[Arc<Found>], segments: &[SegmentRange]) -> Result<(), Fault> {
    let seconds = begun.elapsed().as_secs_f64();
    let read: Vec<String> = found.iter().map(|it| it.count.load(Ordering::Relaxed).to_string()).collect();
    let keys: Vec<String> = segments.iter().map(|it| format!("{:.2}–{:.2}", it.range.low(), it.range.high())).collect();
    say!("{seconds:5.1} s  written {written:>7}  read {:>15}  segments {}", read.join(" + "), keys.join(" "));
    Ok(())
}

async fn write(
    client: Client,
    stream: ScopedStream,
    flights: Arc<Vec<Flight>>,
    written: Arc<AtomicU64>,
) -> Result<(), Fault> {
    let writer = client.event_writer(&stream, EventWriterOptions::default()).await?;
    let (begun, pause) = (Instant::now(), WRITING / u32::try_from(flights.len()).unwrap_or(u32::MAX).max(1));
    for (number, flight) in flights.iter().enumerate() {
        // Failures are flush's.
        drop(writer.write(&flight.carrier, format!("{number},{}", flight.line)).await?);
        written.store(number as u64 + 1, Ordering::Relaxed);
        if number % 256 == 0 {
            tokio::time::sleep_until((begun + pause * number as u32).into()).await;
        }
    }
    Ok(writer.flush().await?)
}

/// Splits every segment in two.
async fn split(client: &Client, stream: &ScopedStream, segments: &[SegmentRange]) -> Result<Vec<SegmentRange>, Fault> {
    let sealed: Vec<_> = segments.iter().map(|segment| segment.id).collect();
    let mut ranges = Vec::new();
    for segment in segments {
        let (low, high) = (segment.range.low(), segment.range.high());
        let middle = f64::midpoint(low, high);
        for (low, high) in [(low, middle), (middle, high)] {
            ranges.push(KeyRange::new(low, high)?);
        }
    }
    client.scale_stream(stream, &sealed, &ranges).await?;
    Ok(client.current_segments(stream).await?)
}

async fn read(
    mut reader: EventReader,
    flights: Arc<Vec<Flight>>,
    own: Arc<Found>,
    order: Arc<Found>,
) -> Result<(), Fault> {
    while let Some(batch) = reader.next_batch(BATCH).await? {
        let Batch::Events(events) = batch else { continue };
        // What comes behind these in the keys' order is handed to others only once this reader asks for more.
        let mut all = order.flights.lock().expect("readers do not panic");
        for event in events.iter() {
            let text = std::str::from_utf8(event)?;
            let number: usize = text.split_once(',').ok_or("a flight has a number")?.0.parse()?;
            let flight = flights.get(number).ok_or("nobody wrote a flight of this number")?;
            all.entry(flight.carrier.clone()).or_default().push(number);
        }
        own.count.fetch_add(events.len() as u64, Ordering::Relaxed);
    }
    Ok(reader.close().await?)
}

fn verify(flights: &[Flight], found: &BTreeMap<String, Vec<usize>>) -> Result<(), Fault> {
    let mut expected: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (number, flight) in flights.iter().enumerate() {
        expected.entry(&flight.carrier).or_default().push(number);
    }
    for (carrier, numbers) in &expected {
        let read = found.get(*carrier).map_or(&[][..], Vec::as_slice);
        if read != numbers {
            return Err(format!(
                "{} flights of {carrier} were written, and {} read, or in another order",
                numbers.len(),
                read.len()
            )
            .into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flight_that_is_lost_doubled_or_late_is_noticed() {
        let flights: Vec<Flight> = (0..200).map(made_up).collect();
        let mut found: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (number, flight) in flights.iter().enumerate() {
            found.entry(flight.carrier.clone()).or_default().push(number);
        }
        verify(&flights, &found).unwrap();
        let lost = |it: &mut Vec<usize>| it.truncate(it.len() - 1);
        let doubled = |it: &mut Vec<usize>| it.push(it[0]);
        let late = |it: &mut Vec<usize>| it.swap(0, 1);
        for change in [lost, doubled, late] {
            let mut other = found.clone();
            change(other.get_mut("UA").unwrap());
            verify(&flights, &other).unwrap_err();
        }
    }
}
