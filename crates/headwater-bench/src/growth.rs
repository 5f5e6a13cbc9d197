//! `headwater bench growth`: what operations cost when there is much of something, against the same when there is little.
//!
//! Each part has a server of its own on an empty directory. Requests that are measured one by one are due at a fixed rate
//! ([`pace`](crate::pace)) and timed from then, and each answer is compared with what was written.

use std::time::{Duration, Instant};

use bytes::Bytes;
use headwater_types::WriterId;
use headwater_wire::{NO_VERSION, Reply, Request, Token};
use serde::Serialize;

use crate::all::Better::{Less, More};
use crate::all::{Figure, Goal, goals, table};
use crate::check::Violation;
use crate::connection::{Connection, Framing, refused};
use crate::error::BenchError;
use crate::event::{Block, HEADER_BYTES, identify};
use crate::latency::{Latencies, Quantiles};
use crate::machine::Machine;
use crate::pace::{Schedule, sleep_exactly};
use crate::table::{Table, scattered};
use crate::tail::measure as tail;
use crate::target::{Attached, Place, Run};
use crate::write::{LoadArgs, fill, measure as write};

/// Requests per second of what is measured one by one.
const RATE: f64 = 1000.0;
/// Keys of the small table.
const FEW_KEYS: u64 = 1_000;
const VALUE_BYTES: usize = 100;
/// Payload of the events that make a stream long.
const LONG_EVENT_BYTES: usize = (64 << 10) - HEADER_BYTES;
/// The server may finish what it does in the background before it is measured.
const SETTLE_PATIENCE: Duration = Duration::from_secs(30);

/// `bench growth`.
#[derive(Clone, Debug, clap::Args)]
pub struct GrowthArgs {
    #[command(flatten)]
    place: Place,
    /// What to measure; everything if not said
    #[arg(long, value_enum)]
    only: Vec<Axis>,
    /// Keys of the large table
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Gibibytes of the long stream
    #[arg(long, default_value_t = 4)]
    gib: u64,
    /// Segments that nobody uses
    #[arg(long, default_value_t = 100_000)]
    idle: usize,
    /// Readers at the tail, each on a segment of its own
    #[arg(long, default_value_t = 100)]
    readers: usize,
    /// Seconds that count, of each load
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// What grows.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Axis {
    /// Keys of a table
    Keys,
    /// Bytes of a stream
    Stream,
    /// Segments that nobody uses
    Idle,
    /// Readers at the tail
    Readers,
}

/// How cost grows.
#[derive(Clone, Debug, Serialize)]
pub struct GrowthReport {
    /// Where it ran.
    pub machine: Machine,
    /// Large against small.
    pub goals: Vec<Goal>,
}

pub(crate) fn run(args: &GrowthArgs) -> Result<GrowthReport, BenchError> {
    let sound = (FEW_KEYS..=100_000_000).contains(&args.keys)
        && (1..=1024).contains(&args.gib)
        && (1..=1_000_000).contains(&args.idle)
        && (2..=1024).contains(&args.readers)
        && (0.1..=3600.0).contains(&args.seconds);
    if !sound {
        let what = "--keys is from 1000 to 100000000, --gib to 1024, --idle to 1000000, --readers from 2 to 1024, \
                    --seconds from 0.1 to 3600";
        return Err(BenchError::Setting { what: what.to_owned() });
    }
    sleep_exactly();
    let machine = Machine::look(&args.place.data_dir);
    let mut figures = Vec::new();
    for (axis, measure) in [
        (Axis::Keys, keys as fn(&GrowthArgs) -> Result<Vec<Figure>, BenchError>),
        (Axis::Stream, stream),
        (Axis::Idle, idle),
        (Axis::Readers, readers),
    ] {
        if args.only.is_empty() || args.only.contains(&axis) {
            eprintln!("{axis:?}");
            figures.extend(measure(args)?);
        }
    }
    Ok(GrowthReport { machine, goals: goals(vec![figures]) })
}

/// Something that is due [`RATE`] times a second, one after the other. What takes longer makes those behind it late.
fn paced(seconds: f64, mut one: impl FnMut(u64) -> Result<(), BenchError>) -> Result<Quantiles, BenchError> {
    const WARM_UP_SECONDS: f64 = 0.5;
    let end_ns = ((seconds + WARM_UP_SECONDS) * 1e9) as u64;
    let schedule = Schedule::new(0, end_ns, (RATE * 1000.0) as u64);
    let (began, mut latencies) = (Instant::now(), Latencies::new());
    let now_ns = || u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
    for n in 0..schedule.total() {
        let due = schedule.due(n);
        std::thread::sleep(Duration::from_nanos(due.saturating_sub(now_ns())));
        one(n)?;
        if due as f64 >= WARM_UP_SECONDS * 1e9 {
            latencies.record(now_ns().saturating_sub(due));
        }
    }
    Ok(latencies.quantiles())
}

fn keys(args: &GrowthArgs) -> Result<Vec<Figure>, BenchError> {
    let attached = args.place.attach()?;
    let mut connection = Connection::greeted(&attached.server)?;
    let table = Table::create(&mut connection)?;
    table.fill(&mut connection, 0..FEW_KEYS, NO_VERSION, value, |_, _| {})?;
    attached.watch.settle(SETTLE_PATIENCE);
    let few = gets(&table, &mut connection, FEW_KEYS, args.seconds)?;
    let began = Instant::now();
    table.fill(&mut connection, FEW_KEYS..args.keys, NO_VERSION, value, |_, _| {})?;
    let rate = (args.keys - FEW_KEYS) as f64 / began.elapsed().as_secs_f64();
    attached.watch.settle(SETTLE_PATIENCE);
    let many = gets(&table, &mut connection, args.keys, args.seconds)?;
    let measured = format!("{:.0} of {:.0} µs; put at {:.0} k/s", many.p99_us, few.p99_us, rate / 1e3);
    let also = format!("{:.0} of {:.0} µs", many.p50_us, few.p50_us);
    Ok(vec![
        against("get p99, many keys, of 1,000", "×", many.p99_us / few.p99_us, (Some(3.0), Some(1.5)), measured),
        against("get p50, many keys, of 1,000", "×", many.p50_us / few.p50_us, (None, Some(1.5)), also),
    ])
}

/// The less, the better.
fn against(
    name: &'static str,
    unit: &'static str,
    value: f64,
    (required, aim): (Option<f64>, Option<f64>),
    measured: String,
) -> Figure {
    Figure { name, unit, value, better: Less, required, aim, durable: None, measured }
}

/// The value of a key, which follows from its number.
fn value(number: u64) -> Bytes {
    let mut value = vec![b'v'; VALUE_BYTES - 8];
    value.extend_from_slice(&number.to_be_bytes());
    value.into()
}

/// Gets of keys that are there, of all of so many.
fn gets(table: &Table, connection: &mut Connection, count: u64, seconds: f64) -> Result<Quantiles, BenchError> {
    paced(seconds, |n| {
        let number = scattered(n ^ 0x5EED) % count;
        match connection.ask(|request_id| table.read(request_id, [number]))? {
            Reply::TableRead { entries, .. } if entries.len() == 1 && entries[0].value == value(number) => Ok(()),
            Reply::TableRead { entries, .. } if entries.len() == 1 => {
                let source = Violation::Value { key: number };
                Err(BenchError::Integrity { segment: table.segment.to_string(), source })
            }
            reply => Err(refused("ReadTable", &reply)),
        }
    })
}

fn stream(args: &GrowthArgs) -> Result<Vec<Figure>, BenchError> {
    let attached = args.place.attach()?;
    let (_, short) = fill(&attached, LONG_EVENT_BYTES, 1, LONG_EVENT_BYTES as u64)?;
    attached.watch.settle(SETTLE_PATIENCE);
    let few = acknowledged(&attached, &short, args.seconds)?;
    let bytes = args.gib << 30;
    let (written, long) = fill(&attached, LONG_EVENT_BYTES, 1, bytes)?;
    attached.watch.settle(SETTLE_PATIENCE);
    let events: u64 = written.iter().map(crate::verify::Written::events).sum();
    let opened = opened(&attached, &long, events, args.seconds)?;
    let many = acknowledged(&attached, &long, args.seconds)?;
    let of = |many: f64, few: f64| format!("{many:.0} of {few:.0} µs");
    let goal = (Some(1.2), Some(1.05));
    Ok(vec![
        against(
            "ack p50 on a long stream, of a short",
            "×",
            many.p50_us / few.p50_us,
            goal,
            of(many.p50_us, few.p50_us),
        ),
        against(
            "ack p99 on a long stream, of a short",
            "×",
            many.p99_us / few.p99_us,
            (None, Some(2.0)),
            of(many.p99_us, few.p99_us),
        ),
        against(
            "opening a long stream anywhere, p99",
            "ms",
            opened.p99_us / 1e3,
            (Some(10.0), Some(2.0)),
            format!("{} GiB, p50 {:.0} µs", args.gib, opened.p50_us),
        ),
    ])
}

/// Appends of one event each to a segment that has something, by a writer of its own.
fn acknowledged(attached: &Attached, run: &Run, seconds: f64) -> Result<Quantiles, BenchError> {
    let mut connection = Connection::open(&attached.server)?;
    let id = run.first_writer() + (1 << 20);
    let writer = WriterId(id.into());
    connection.set_up(writer, &run.segments[0])?;
    let mut block = Block::new(1024, 1);
    paced(seconds, |n| {
        block.stamp(id, n..n + 1, |_| 0);
        let bytes = block.lend();
        connection.append(Framing::Event, writer, bytes.clone(), 1, n.cast_signed() + 1)?;
        block.give_back(bytes);
        Ok(())
    })
}

/// First reads at places that nobody has read before, mostly.
fn opened(attached: &Attached, run: &Run, events: u64, seconds: f64) -> Result<Quantiles, BenchError> {
    let mut connection = Connection::open(&attached.server)?;
    let (segment, stride) = (&run.segments[0], (HEADER_BYTES + LONG_EVENT_BYTES) as u64);
    paced(seconds, |n| {
        let sequence = scattered(n) % events;
        let offset = sequence * stride;
        let mut found = Vec::new();
        // An answer ends where a piece does: whoever wants a whole event asks again.
        while (found.len() as u64) < stride {
            let at = offset + found.len() as u64;
            let reply = connection.ask(|request_id| Request::ReadSegment {
                segment: segment.clone(),
                offset: at.cast_signed(),
                suggested_length: (stride - found.len() as u64) as i32,
                token: Token::default(),
                request_id,
            })?;
            match reply {
                Reply::SegmentRead { data, .. } if !data.is_empty() => found.extend_from_slice(&data),
                reply => return Err(refused("ReadSegment", &reply)),
            }
        }
        let identity = identify(&found[HEADER_BYTES..stride as usize]);
        match identity {
            Some(identity) if identity.sequence == sequence => Ok(()),
            _ => Err(BenchError::Integrity { segment: segment.to_string(), source: Violation::Changed { offset } }),
        }
    })
}

fn idle(args: &GrowthArgs) -> Result<Vec<Figure>, BenchError> {
    let attached = args.place.attach()?;
    let resident = || attached.own().map_or(Ok(0), |own| own.resident_bytes());
    let load = LoadArgs { writers: 4, seconds: args.seconds, ..LoadArgs::default() };
    // Once before, so that both have the same behind them.
    write(&attached, &load)?.1.delete(&attached.server)?;
    let (none, first) = write(&attached, &load)?;
    first.delete(&attached.server)?;
    attached.watch.settle(SETTLE_PATIENCE);
    let before = resident()?;
    Run::start(&attached.server, args.idle)?;
    attached.watch.settle(SETTLE_PATIENCE);
    let (beside, _) = write(&attached, &load)?;
    attached.watch.settle(SETTLE_PATIENCE);
    let grown = resident()?.saturating_sub(before) as f64 / 1048576.0;
    let percent = 100.0 * beside.bytes_per_second / none.bytes_per_second;
    let measured = format!("{:.0} of {:.0} MB/s", beside.bytes_per_second / 1e6, none.bytes_per_second / 1e6);
    Ok(vec![
        Figure {
            name: "throughput beside idle segments, of without",
            unit: "%",
            value: percent,
            better: More,
            required: Some(80.0),
            aim: Some(95.0),
            durable: Some(none.audit.durable.max(beside.audit.durable)),
            measured,
        },
        against(
            "memory that idle segments take",
            "MiB",
            grown,
            (Some(200.0), Some(60.0)),
            format!("{} segments", args.idle),
        ),
    ])
}

fn readers(args: &GrowthArgs) -> Result<Vec<Figure>, BenchError> {
    // As many events in all: what grows is how many wait for them.
    let load = LoadArgs { rate: Some(RATE), seconds: args.seconds, ..LoadArgs::default() };
    let measure = |load: LoadArgs, readers| {
        let attached = args.place.attach()?;
        let (report, _) = tail(&attached, &load, readers)?;
        let used = attached.own().map_or(Ok(Duration::ZERO), |own| own.processor_time())?;
        Ok::<_, BenchError>((report, used.as_secs_f64()))
    };
    let (one, used_by_one) = measure(load.clone(), 1)?;
    let (many, used_by_many) = measure(LoadArgs { segments: args.readers, ..load }, args.readers)?;
    let durable = Some(one.durable.max(many.durable));
    let (one, many) = (one.read, many.read);
    let figures = vec![
        against(
            "tail p99 of many readers, of one",
            "×",
            many.p99_us / one.p99_us,
            (None, Some(2.0)),
            format!("{:.0} of {:.0} µs, {} readers", many.p99_us, one.p99_us, args.readers),
        ),
        against(
            "processor time for as many events",
            "×",
            used_by_many / used_by_one,
            (Some(2.0), Some(1.2)),
            format!("{used_by_many:.2} of {used_by_one:.2} s"),
        ),
    ];
    Ok(figures.into_iter().map(|figure| Figure { durable, ..figure }).collect())
}

impl std::fmt::Display for GrowthReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}\n", self.machine)?;
        table(f, 1, &self.goals)
    }
}

#[test]
fn what_is_late_makes_what_is_behind_it_late() {
    let stall = Duration::from_millis(100);
    let slow = paced(0.3, |n| {
        if n == 600 {
            std::thread::sleep(stall);
        }
        Ok(())
    });
    let slow = slow.unwrap();
    assert_eq!(slow.count, 300);
    assert!(slow.max_us >= 100_000.0 && slow.p90_us >= 50_000.0, "{slow}");
}
