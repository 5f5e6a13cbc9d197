//! `headwater bench scale`: a stream that is split and merged by hand while it is written, against one that is left alone.
//!
//! Events of some keys come at a fixed rate, each timed from when it was due. The stream begins with one segment; at each
//! interval it is split in two or merged again. Each round has a stream that scales and one that does not. At the end every
//! segment that the stream ever had is read back: it must hold, key by key, exactly the events that were acknowledged for
//! it, in order, and a key's events in a segment must go on where those in the segment before ended.

mod writer;

use std::collections::BTreeMap;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use headwater_types::{KeyRange, ScopedStream};
use headwater_wire::Text;
use serde::Serialize;

use self::writer::{Outcome, Writer};
use crate::controller::{Controller, Piece};
use crate::error::BenchError;
use crate::event::EVENT_BYTES_MIN;
use crate::latency::{Latencies, Quantiles};
use crate::machine::Machine;
use crate::pace::{Schedule, sleep_exactly};
use crate::rounds::{Rounds, Spread, sound};
use crate::target::{Attached, ControllerAt, Run, Target};
use crate::verify::{Asking, Written, read_back};
use crate::write::generator::Times;

/// More than one append of them is nothing that a segment is split for.
const EVENT_BYTES_MAX: usize = 1 << 20;
const KEYS_MAX: usize = 10_000;
/// One connection has at most 4096 segments, in our server; a scale makes at most two.
const SCALES_MAX: u64 = 2000;
/// A scale that is not done by then never will be.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at a scale.
const LOOK_AFTER: Duration = Duration::from_micros(500);

/// `bench scale`.
#[derive(Clone, Debug, clap::Args)]
pub struct ScaleArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) controller: ControllerAt,
    #[command(flatten)]
    pub(crate) load: ScaleLoad,
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is written and how often it is scaled.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ScaleLoad {
    /// Seconds between two scales; at most --seconds
    #[arg(long, default_value_t = 1.0)]
    pub(crate) every: f64,
    /// Events per second of all keys together, each timed from when it was due
    #[arg(long, default_value_t = 2000.0)]
    pub(crate) rate: f64,
    /// Routing keys, written in turn
    #[arg(long, default_value_t = 16)]
    pub(crate) keys: usize,
    /// Payload bytes of each event, at least 28
    #[arg(long, default_value_t = 1024)]
    pub(crate) size: usize,
    #[command(flatten)]
    pub(crate) rounds: Rounds,
}

/// What scaling costs those who write.
#[derive(Clone, Debug, Serialize)]
pub struct ScaleReport {
    /// Where it ran.
    pub machine: Machine,
    /// Payload bytes of each event.
    pub event_bytes: usize,
    /// Routing keys.
    pub keys: usize,
    /// Events asked for per second.
    pub rate: f64,
    /// Seconds that counted, of each run.
    pub seconds: f64,
    /// Seconds between two scales.
    pub every: f64,
    /// With one segment that stays.
    pub quiet: ScaleFigures,
    /// While it was split and merged.
    pub scaling: ScaleFigures,
    /// Scales of all rounds.
    pub scales: u64,
    /// From asking for a scale until the controller says that it is done: median, in milliseconds.
    pub scale_p50_ms: Spread,
    /// The longest, in milliseconds.
    pub scale_max_ms: Spread,
    /// Throughput while scaling as a share of quiet.
    pub throughput_ratio: Spread,
    /// p99 while scaling as a multiple of quiet.
    pub p99_ratio: Spread,
    /// Segments read back.
    pub segments_verified: u64,
    /// Events in them: all that were acknowledged, once, each key's in order.
    pub events_verified: u64,
}

/// Of quiet runs, or of scaling ones.
#[derive(Clone, Debug, Serialize)]
pub struct ScaleFigures {
    /// Events acknowledged per second.
    pub events_per_second: Spread,
    /// From when an event was due to its acknowledgement: median, in microseconds.
    pub p50_us: Spread,
    /// The same for 99 %.
    pub p99_us: Spread,
    /// The longest of them.
    pub max_us: Spread,
    /// The longest time between two acknowledgements of one key, in milliseconds; events of a key are due `keys` ÷ `rate`
    /// seconds apart.
    pub longest_pause_ms: Spread,
}

impl ScaleLoad {
    fn check(&self) -> Result<(), BenchError> {
        self.rounds.check()?;
        sound("--every is from 0.05 to --seconds", (0.05..=self.rounds.seconds).contains(&self.every))?;
        sound("--seconds is at most 2000 times --every", self.scales() <= SCALES_MAX)?;
        sound("--rate is from 1 to 1000000", (1.0..=1e6).contains(&self.rate))?;
        sound("--keys is from 2 to 10000", (2..=KEYS_MAX).contains(&self.keys))?;
        let size = EVENT_BYTES_MIN..=EVENT_BYTES_MAX;
        sound(&format!("--size is from {EVENT_BYTES_MIN} to {EVENT_BYTES_MAX}"), size.contains(&self.size))
    }

    /// Of one run.
    fn scales(&self) -> u64 {
        // A hundredth of a scale more: 0.3 / 0.1 is a little less than three.
        (self.rounds.seconds / self.every + 0.01) as u64
    }

    /// When a scale of a run is due, in nanoseconds since it began: half an interval before and after all of them.
    fn due_ns(&self, scale: u64) -> u64 {
        ((self.rounds.warmup + self.every * (scale as f64 + 0.5)) * 1e9) as u64
    }
}

pub(crate) fn run(args: &ScaleArgs) -> Result<ScaleReport, BenchError> {
    args.load.check()?;
    let attached = args.target.attach()?;
    measure(&attached, args.controller.of(&attached), &args.load, args.target.keep)
}

/// One run.
struct Found {
    events_per_second: f64,
    latency: Quantiles,
    longest_pause_ms: f64,
    /// How long scales took.
    scales: Latencies,
    segments_verified: u64,
    events_verified: u64,
}

fn measure(attached: &Attached, controller: &str, load: &ScaleLoad, keep: bool) -> Result<ScaleReport, BenchError> {
    let one_run = |scales| one_run(&attached.server, controller, load, scales, keep);
    let found = load.rounds.each(|| Ok((one_run(0)?, one_run(load.scales())?)))?;
    let ratio =
        |figure: fn(&Found) -> f64| Spread::of(found.iter().map(|(quiet, scaling)| figure(scaling) / figure(quiet)));
    let scales = |figure: fn(Quantiles) -> f64| {
        Spread::of(found.iter().map(|(_, scaling)| figure(scaling.scales.quantiles()) / 1e3))
    };
    let both =
        |figure: fn(&Found) -> u64| -> u64 { found.iter().map(|(one, other)| figure(one) + figure(other)).sum() };
    Ok(ScaleReport {
        machine: attached.machine.clone(),
        event_bytes: load.size,
        keys: load.keys,
        rate: load.rate,
        seconds: load.rounds.seconds,
        every: load.every,
        quiet: figures(found.iter().map(|(quiet, _)| quiet)),
        scaling: figures(found.iter().map(|(_, scaling)| scaling)),
        scales: both(|found| found.scales.count()),
        scale_p50_ms: scales(|scales| scales.p50_us),
        scale_max_ms: scales(|scales| scales.max_us),
        throughput_ratio: ratio(|found| found.events_per_second),
        p99_ratio: ratio(|found| found.latency.p99_us),
        segments_verified: both(|found| found.segments_verified),
        events_verified: both(|found| found.events_verified),
    })
}

fn figures<'a>(found: impl Iterator<Item = &'a Found> + Clone) -> ScaleFigures {
    let of = |figure: fn(&Found) -> f64| Spread::of(found.clone().map(figure));
    ScaleFigures {
        events_per_second: of(|found| found.events_per_second),
        p50_us: of(|found| found.latency.p50_us),
        p99_us: of(|found| found.latency.p99_us),
        max_us: of(|found| found.latency.max_us),
        longest_pause_ms: of(|found| found.longest_pause_ms),
    }
}

/// Writes to a stream of its own that is scaled so many times, and reads back every segment it ever had.
fn one_run(server: &str, controller: &str, load: &ScaleLoad, scales: u64, keep: bool) -> Result<Found, BenchError> {
    let run = Run::named(1);
    let stream = run.stream();
    let owner = Controller::open(controller)?;
    owner.create(&stream, 1)?;
    let first = owner.current_segments(&stream)?;
    let writer = Writer::open(server, controller, &stream, run.first_writer(), load.keys, load.size)?;
    let times = load.rounds.times(Instant::now());
    let schedule = Schedule::new(0, times.end_ns, (load.rate * 1000.0) as u64);
    let (outcome, scaled) = thread::scope(|scope| {
        let writing = scope.spawn(|| writer.run(&times, &schedule));
        let scaled = scale(&owner, &stream, load, first, scales, &times);
        let outcome = writing.join().expect("the writer does not panic");
        Ok::<_, BenchError>((outcome?, scaled?))
    })?;
    let Outcome { latencies, counted, longest_pause_ns, mut written } = outcome;
    unbroken(&written, load.keys);
    for segment in scaled.segments {
        // One that the writer never met must be empty.
        if !written.iter().any(|written| written.segment == segment) {
            written.push(Written { segment, writers: Vec::new() });
        }
    }
    read_back(server, 1, load.size, Asking::default(), &written)?;
    if !keep {
        owner.delete(&stream)?;
    }
    Ok(Found {
        events_per_second: counted as f64 / load.rounds.seconds,
        latency: latencies.quantiles(),
        longest_pause_ms: longest_pause_ns as f64 / 1e6,
        scales: scaled.latencies,
        segments_verified: written.len() as u64,
        events_verified: written.iter().map(Written::events).sum(),
    })
}

/// Of our own account: each key's events go on, from segment to segment, where they ended.
///
/// # Panics
/// If they do not; then the writer is wrong and not the server.
fn unbroken(written: &[Written], keys: usize) {
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    for Written { segment, writers } in written {
        for (key, Range { start, end }) in writers {
            let before = next.insert(*key, *end).unwrap_or(0);
            assert_eq!(before, *start, "key {key:#x} goes on in {segment} where it ended");
        }
    }
    assert!(next.len() <= keys, "nobody else's keys are among them");
}

/// What was done to a stream.
struct Scaled {
    latencies: Latencies,
    /// All segments that it ever had.
    segments: Vec<Text>,
}

/// Splits the only segment in two, or merges the two, so many times, each when it is due.
fn scale(
    controller: &Controller,
    stream: &ScopedStream,
    load: &ScaleLoad,
    mut current: Vec<Piece>,
    scales: u64,
    times: &Times,
) -> Result<Scaled, BenchError> {
    sleep_exactly();
    let name = |piece: &Piece| -> Text { stream.segment(piece.id).as_str().into() };
    let mut scaled = Scaled { latencies: Latencies::new(), segments: current.iter().map(name).collect() };
    for number in 0..scales {
        thread::sleep(Duration::from_nanos(load.due_ns(number).saturating_sub(times.now_ns())));
        let ranges = if current.len() == 1 { KeyRange::split(2) } else { vec![KeyRange::FULL] };
        let asked = Instant::now();
        let (epoch, new) = controller.scale(stream, &current, &ranges)?;
        while !controller.is_scaled(stream, epoch)? {
            if asked.elapsed() > PATIENCE {
                let waiting = "a stream was being scaled";
                return Err(BenchError::Silent { seconds: PATIENCE.as_secs(), waiting });
            }
            thread::sleep(LOOK_AFTER);
        }
        scaled.latencies.record(asked.elapsed().as_nanos() as u64);
        scaled.segments.extend(new.iter().map(name));
        current = new;
    }
    Ok(scaled)
}

impl std::fmt::Display for ScaleReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}\n", self.machine)?;
        let Self { event_bytes, keys, rate, seconds, every, scales, .. } = self;
        writeln!(
            f,
            "{event_bytes} B events of {keys} keys, open loop at {rate:.0}/s, {seconds} s; a scale every {every} s"
        )?;
        for (name, figures) in [("quiet", &self.quiet), ("scaling", &self.scaling)] {
            let ScaleFigures { events_per_second, p50_us, p99_us, max_us, longest_pause_ms } = figures;
            writeln!(f, "{name:7}  {events_per_second} events/s  ack p50 {p50_us}  p99 {p99_us}  max {max_us} µs")?;
            writeln!(f, "         longest pause of a key {longest_pause_ms:.1} ms")?;
        }
        writeln!(f, "{scales} scales, p50 {:.1}  longest {:.1} ms", self.scale_p50_ms, self.scale_max_ms)?;
        let share = self.throughput_ratio.divided_by(0.01);
        writeln!(f, "scaling has {share:.1} % of the throughput and {:.1} × p99", self.p99_ratio)?;
        let (segments, events) = (self.segments_verified, self.events_verified);
        write!(f, "verified  {events} events in {segments} segments, none lost or doubled, each key's in order")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load() -> ScaleLoad {
        let rounds = Rounds { rounds: 1, seconds: 3.0, warmup: 0.5 };
        ScaleLoad { every: 1.0, rate: 2000.0, keys: 16, size: 1024, rounds }
    }

    #[test]
    fn scales_are_due_in_the_middle_of_their_intervals() {
        assert_eq!(load().scales(), 3);
        assert_eq!([0, 2].map(|scale| load().due_ns(scale)), [1_000_000_000, 3_000_000_000]);
        let rounds = Rounds { seconds: 0.3, ..load().rounds };
        assert_eq!(ScaleLoad { every: 0.1, rounds, ..load() }.scales(), 3);
    }

    #[test]
    fn senseless_settings_are_named() {
        assert!(load().check().is_ok());
        for (load, flag) in [
            (ScaleLoad { every: 0.01, ..load() }, "--every"),
            (ScaleLoad { every: 3.1, ..load() }, "--every"),
            (ScaleLoad { every: f64::NAN, ..load() }, "--every"),
            (ScaleLoad { rounds: Rounds { seconds: 3600.0, ..load().rounds }, ..load() }, "--seconds"),
            (ScaleLoad { rate: 0.0, ..load() }, "--rate"),
            (ScaleLoad { keys: 1, ..load() }, "--keys"),
            (ScaleLoad { size: 27, ..load() }, "--size"),
        ] {
            assert!(load.check().unwrap_err().to_string().contains(flag), "{flag}");
        }
    }

    #[test]
    #[should_panic(expected = "goes on in b where it ended")]
    fn an_account_with_a_hole_between_two_segments_is_a_bug() {
        let written = |segment: &str, sequences| Written { segment: segment.into(), writers: vec![(1, sequences)] };
        unbroken(&[written("a", 0..3), written("b", 4..5)], 1);
    }
}
