//! `headwater bench write`: load on the append path of any server that speaks the wire protocol.
//!
//! Segments are created directly, without a controller, written, read back and checked, and deleted again. A run whose
//! read-back finds a violation has no figures.

pub(crate) mod generator;

use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use headwater_wire::Text;
use serde::Serialize;

use crate::audit::Audit;
use crate::connection::Framing;
use crate::error::BenchError;
use crate::event::{EVENT_BYTES_MIN, HEADER_BYTES};
use crate::latency::{Latencies, Quantiles};
use crate::machine::Machine;
use crate::pace::Schedule;
use crate::rounds::sound;
use crate::target::{Attached, Run, Target};
use crate::verify::{Asking, Written, read_back};
use generator::{Generator, Load, Outcome, Pace, Times};

/// Largest event: that of an ordinary event on the wire.
const EVENT_BYTES_MAX: usize = headwater_types::limits::EVENT_BYTES_MAX;
/// Most data in one append, so that a block and its end stay far below a frame.
pub(crate) const BLOCK_BYTES_MAX: usize = 8 << 20;
/// Each is a thread.
pub(crate) const WRITERS_MAX: usize = 1024;
const SEGMENTS_MAX: usize = 1_000_000;
/// How long the device may take to write what is still in memory.
const SETTLE_PATIENCE: Duration = Duration::from_secs(5);

/// `bench write`.
#[derive(Clone, Debug, clap::Args)]
pub struct WriteArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is written.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// Payload bytes of each event, at least 28
    #[arg(long, default_value_t = 1024)]
    pub(crate) size: usize,
    /// Writers: each a thread with a connection
    #[arg(long, default_value_t = 1)]
    pub(crate) writers: usize,
    /// Segments, shared out among the writers; 0 for one per writer
    #[arg(long, default_value_t = 0)]
    pub(crate) segments: usize,
    /// Open loop: events per second in all, each timed from when it was due. Without it, as fast as possible
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Bytes of whole events in one append
    #[arg(long, default_value_t = 64 << 10)]
    pub(crate) block_bytes: usize,
    /// Unacknowledged bytes of each writer
    #[arg(long, default_value_t = 1 << 20)]
    pub(crate) inflight_bytes: u64,
    /// How appends are framed
    #[arg(long, value_enum, default_value_t)]
    pub(crate) framing: Framing,
    /// Seconds that count
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// Seconds before them
    #[arg(long, default_value_t = 1.0)]
    pub(crate) warmup: f64,
    /// Closed loop: a writer ends after so many events, for what is written to be read.
    #[arg(skip)]
    pub(crate) events_max: Option<u64>,
}

impl Default for LoadArgs {
    fn default() -> Self {
        Self {
            size: 1024,
            writers: 1,
            segments: 0,
            rate: None,
            block_bytes: 64 << 10,
            inflight_bytes: 1 << 20,
            framing: Framing::Block,
            seconds: 5.0,
            warmup: 1.0,
            events_max: None,
        }
    }
}

impl LoadArgs {
    pub(crate) fn check(&self) -> Result<(), BenchError> {
        sound("--size is from 28 to 8388608", (EVENT_BYTES_MIN..=EVENT_BYTES_MAX - HEADER_BYTES).contains(&self.size))?;
        sound("--writers is from 1 to 1024", (1..=WRITERS_MAX).contains(&self.writers))?;
        sound("--segments is at most 1000000", self.segments <= SEGMENTS_MAX)?;
        sound("--block-bytes is at most 8388608", self.block_bytes <= BLOCK_BYTES_MAX)?;
        sound("--seconds is from 0.1 to 3600", (0.1..=3600.0).contains(&self.seconds))?;
        sound("--warmup is from 0 to 600", (0.0..=600.0).contains(&self.warmup))?;
        sound("--rate is from 1 to 100000000", self.rate.is_none_or(|rate| (1.0..=1e8).contains(&rate)))
    }

    /// As many as the command line says, or one per writer.
    pub(crate) fn segment_count(&self) -> usize {
        if self.segments == 0 { self.writers } else { self.segments }
    }

    /// Numbers of the segments that a writer writes to.
    fn segments_of(&self, writer: usize) -> Vec<usize> {
        let segments = self.segment_count();
        if segments < self.writers {
            vec![writer % segments]
        } else {
            (writer..segments).step_by(self.writers).collect()
        }
    }

    /// Ids of the writers of one segment.
    pub(crate) fn writers_of(&self, run: &Run, segment: usize) -> impl Iterator<Item = u64> {
        let mut first = run.first_writer();
        let mut writers = Vec::new();
        for writer in 0..self.writers {
            let segments = self.segments_of(writer);
            writers.extend(segments.iter().position(|of| *of == segment).map(|lane| first + lane as u64));
            first += segments.len() as u64;
        }
        writers.into_iter()
    }

    fn block_events(&self) -> usize {
        (self.block_bytes / (HEADER_BYTES + self.size)).max(1)
    }

    fn load(&self) -> Load {
        let pace = match self.rate {
            None => Pace::Closed,
            Some(rate) => {
                let rate_milli = ((rate * 1000.0 / self.writers as f64) as u64).max(1);
                Pace::Open(Schedule::new(0, self.times(Instant::now()).end_ns, rate_milli))
            }
        };
        Load {
            event_bytes: self.size,
            block_events: self.block_events(),
            window_bytes: self.inflight_bytes,
            framing: self.framing,
            pace,
            events_max: self.events_max.unwrap_or(u64::MAX),
        }
    }

    pub(crate) fn times(&self, origin: Instant) -> Times {
        let ns = |seconds: f64| (seconds * 1e9) as u64;
        Times { origin, counted_from_ns: ns(self.warmup), end_ns: ns(self.warmup + self.seconds) }
    }
}

/// What a write run found.
#[derive(Clone, Debug, Serialize)]
pub struct WriteReport {
    /// Where it ran.
    pub machine: Machine,
    /// Payload bytes of each event.
    pub event_bytes: usize,
    /// Threads, each with a connection.
    pub writers: usize,
    /// Segments written evenly.
    pub segments: usize,
    /// Events of a full append.
    pub block_events: usize,
    /// Most unacknowledged bytes of each writer.
    pub inflight_bytes: u64,
    /// How appends were framed.
    pub framing: Framing,
    /// Events asked for per second; none in a closed loop.
    pub rate: Option<f64>,
    /// Seconds that counted.
    pub seconds: f64,
    /// Events acknowledged per second.
    pub events_per_second: f64,
    /// Their payload bytes per second.
    pub bytes_per_second: f64,
    /// Open loop: from when an event was due to its acknowledgement. Closed loop: from sending it.
    pub latency: Quantiles,
    /// Open loop: how much of that is the generator's own, from due to sent.
    pub lateness: Option<Quantiles>,
    /// Events written in all, warm-up included; all were read back and are right.
    pub events_verified: u64,
    /// Payload bytes read back per second, by as many readers as there were writers.
    pub read_back_bytes_per_second: f64,
    /// Processor time of the server for each gigabyte of events, if we started it.
    pub server_seconds_per_gigabyte: Option<f64>,
    /// Resident memory of the server when the last acknowledgement came, if we started it.
    pub server_resident_bytes: Option<u64>,
    /// Whether acknowledged was durable.
    pub audit: Audit,
}

/// Runs it.
pub(crate) fn run(args: &WriteArgs) -> Result<WriteReport, BenchError> {
    let attached = args.target.attach()?;
    let (report, run) = measure(&attached, &args.load)?;
    if !args.target.keep {
        run.delete(&attached.server)?;
    }
    Ok(report)
}

/// Writes to segments of its own, audits, reads back. The segments stay.
pub(crate) fn measure(attached: &Attached, args: &LoadArgs) -> Result<(WriteReport, Run), BenchError> {
    args.check()?;
    let run = Run::start(&attached.server, args.segment_count())?;
    let report = measure_on(attached, args, &run)?;
    Ok((report, run))
}

/// The same on segments that are there, empty.
pub(crate) fn measure_on(attached: &Attached, args: &LoadArgs, run: &Run) -> Result<WriteReport, BenchError> {
    args.check()?;
    let processor_time = || attached.own().map(|own| own.processor_time()).transpose();
    let (before, used_before) = (attached.watch.now()?, processor_time()?);
    let outcomes = generate(&attached.server, run, args, &OnceLock::new())?;
    let (acknowledged, used_after) = (attached.watch.now()?, processor_time()?);
    let resident_bytes = attached.own().map(|own| own.resident_bytes()).transpose()?;
    attached.watch.settle(SETTLE_PATIENCE);
    let settled = attached.watch.now()?;

    let written = Written::collect(run, args, &outcomes);
    let events_verified = written.iter().map(Written::events).sum();
    let began = Instant::now();
    read_back(&attached.server, args.writers, args.size, Asking::default(), &written)?;
    let payload_bytes = events_verified * args.size as u64;
    let read_back_bytes_per_second = payload_bytes as f64 / began.elapsed().as_secs_f64();

    let (mut latencies, mut lateness) = (Latencies::new(), Latencies::new());
    for outcome in &outcomes {
        latencies.merge(&outcome.latencies);
        lateness.merge(&outcome.lateness);
    }
    let events: u64 = outcomes.iter().map(|outcome| outcome.counted_events).sum();
    let appends = outcomes.iter().map(|outcome| outcome.appends).sum();
    let events_per_second = events as f64 / args.seconds;
    let used = used_after.zip(used_before).map(|(after, before)| after.saturating_sub(before).as_secs_f64());
    Ok(WriteReport {
        machine: attached.machine.clone(),
        event_bytes: args.size,
        writers: args.writers,
        segments: run.segments.len(),
        block_events: args.block_events(),
        inflight_bytes: args.inflight_bytes,
        framing: args.framing,
        rate: args.rate,
        seconds: args.seconds,
        events_per_second,
        bytes_per_second: events_per_second * args.size as f64,
        latency: latencies.quantiles(),
        lateness: args.rate.map(|_| lateness.quantiles()),
        events_verified,
        read_back_bytes_per_second,
        server_seconds_per_gigabyte: used.map(|used| used * 1e9 / payload_bytes.max(1) as f64),
        server_resident_bytes: resident_bytes,
        audit: Audit::between(before, acknowledged, settled, appends, payload_bytes),
    })
}

/// All writers from one moment on, which is put into `origin`.
pub(crate) fn generate(
    server: &str,
    run: &Run,
    args: &LoadArgs,
    origin: &OnceLock<Instant>,
) -> Result<Vec<Outcome>, BenchError> {
    let ready = Barrier::new(args.writers);
    thread::scope(|scope| {
        let mut first_writer = run.first_writer();
        let mut threads = Vec::new();
        for writer in 0..args.writers {
            let segments: Vec<Text> =
                args.segments_of(writer).into_iter().map(|number| run.segments[number].clone()).collect();
            let first = first_writer;
            first_writer += segments.len() as u64;
            let ready = &ready;
            threads.push(scope.spawn(move || {
                let generator = Generator::open(server, &segments, first, args.load());
                // Everybody comes here, also who failed: the others wait for all.
                ready.wait();
                generator?.run(args.times(*origin.get_or_init(Instant::now)))
            }));
        }
        threads.into_iter().map(|thread| thread.join().expect("no writer panics")).collect()
    })
}

/// Writes so many bytes of events to one segment per writer, for something else to be done with them.
pub(crate) fn fill(
    attached: &Attached,
    size: usize,
    writers: usize,
    bytes: u64,
) -> Result<(Vec<Written>, Run), BenchError> {
    let events = bytes / writers as u64 / size as u64;
    // The limit ends it, not the clock.
    let args = LoadArgs { size, writers, seconds: 3600.0, events_max: Some(events.max(1)), ..LoadArgs::default() };
    args.check()?;
    let run = Run::start(&attached.server, writers)?;
    let outcomes = generate(&attached.server, &run, &args, &OnceLock::new())?;
    Ok((Written::collect(&run, &args, &outcomes), run))
}

/// Writes about so many bytes in 64 KiB appends at so many a second to one segment, for others to be disturbed by.
pub(crate) fn fill_paced(attached: &Attached, bytes: u64, bytes_per_second: f64) -> Result<Run, BenchError> {
    let args = LoadArgs {
        size: (64 << 10) - HEADER_BYTES,
        rate: Some(bytes_per_second / f64::from(64 << 10)),
        seconds: bytes as f64 / bytes_per_second,
        warmup: 0.0,
        inflight_bytes: 4 << 20,
        ..LoadArgs::default()
    };
    args.check()?;
    let run = Run::start(&attached.server, 1)?;
    match generate(&attached.server, &run, &args, &OnceLock::new()) {
        // A server that cannot take that much is disturbed as much as it can be.
        Ok(_) | Err(BenchError::Behind { .. }) => Ok(run),
        Err(error) => Err(error),
    }
}

impl Written {
    /// What each segment must hold.
    pub(crate) fn collect(run: &Run, args: &LoadArgs, outcomes: &[Outcome]) -> Vec<Self> {
        let mut written: Vec<Self> =
            run.segments.iter().map(|segment| Self { segment: segment.clone(), writers: Vec::new() }).collect();
        for (writer, outcome) in outcomes.iter().enumerate() {
            for (number, (lane, events)) in args.segments_of(writer).into_iter().zip(&outcome.lanes) {
                written[number].writers.push((*lane, 0..*events));
            }
        }
        written
    }
}

impl std::fmt::Display for WriteReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { event_bytes, writers, segments, block_events, inflight_bytes, .. } = self;
        writeln!(f, "{}\n", self.machine)?;
        write!(f, "{event_bytes} B events, {writers} writers, {segments} segments, ")?;
        match self.rate {
            Some(rate) => writeln!(f, "open loop at {rate:.0}/s, {} s", self.seconds)?,
            None => writeln!(
                f,
                "closed loop, {:?} of {block_events}, {inflight_bytes} B in flight each, {} s",
                self.framing, self.seconds
            )?,
        }
        writeln!(f, "written   {:10.0} events/s  {:8.1} MB/s", self.events_per_second, self.bytes_per_second / 1e6)?;
        writeln!(f, "ack       {}", self.latency)?;
        if let Some(lateness) = &self.lateness {
            writeln!(f, "  of which late to be sent: {lateness}")?;
        }
        let back = self.read_back_bytes_per_second / 1e6;
        writeln!(
            f,
            "verified  {:10} events, none lost, doubled or out of order ({back:.0} MB/s)",
            self.events_verified
        )?;
        if let Some((seconds, bytes)) = self.server_seconds_per_gigabyte.zip(self.server_resident_bytes) {
            writeln!(f, "server    {seconds:.2} processor seconds per GB, {} MiB resident", bytes >> 20)?;
        }
        write!(f, "{}", self.audit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_shared_out_evenly_and_each_has_a_writer() {
        for (writers, segments) in [(1, 1), (4, 4), (4, 10), (3, 1), (5, 2), (2, 7)] {
            let args = LoadArgs { writers, segments, ..LoadArgs::default() };
            let mut writers_of = vec![0; segments];
            for writer in 0..writers {
                let of = args.segments_of(writer);
                assert!(!of.is_empty() && of.len().abs_diff(segments / writers) <= 1, "{writers} on {segments}");
                of.into_iter().for_each(|segment| writers_of[segment] += 1);
            }
            assert!(writers_of.iter().all(|count| *count >= 1), "{writers} on {segments}: {writers_of:?}");
        }
    }

    #[test]
    fn senseless_settings_are_named() {
        for (args, flag) in [
            (LoadArgs { size: 27, ..LoadArgs::default() }, "--size"),
            (LoadArgs { writers: 0, ..LoadArgs::default() }, "--writers"),
            (LoadArgs { rate: Some(0.0), ..LoadArgs::default() }, "--rate"),
            (LoadArgs { seconds: f64::NAN, ..LoadArgs::default() }, "--seconds"),
        ] {
            assert!(args.check().unwrap_err().to_string().contains(flag), "{flag}");
        }
    }
}
