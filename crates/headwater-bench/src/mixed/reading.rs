//! `headwater bench mixed --beside readers`: writers at the tail while others catch up with old data, against the same
//! writers alone.
//!
//! Each round has four runs: at a fixed rate alone and beside the readers, for the latency, and as fast as the writers can
//! alone and beside them, for the throughput. Readers read what was written before all rounds, from beginning to end over
//! and over; what they read and what was written is checked event by event.

use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::BenchError;
use crate::event::HEADER_BYTES;
use crate::machine::Machine;
use crate::rounds::{Spread, sound};
use crate::target::Attached;
use crate::verify::{Asking, Written, read_back};
use crate::write::{LoadArgs, WriteReport, fill, measure as write};

const READERS_MAX: usize = 1024;
/// What was written before the rounds finds its place meanwhile.
const SETTLE_PATIENCE: Duration = Duration::from_secs(10);

/// Who reads what, and how often everything is measured.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ReadingLoad {
    /// Beside readers: how many, each with a segment and a connection of its own
    #[arg(long, default_value_t = 1)]
    pub(crate) readers: usize,
    /// Beside readers: mebibytes of old data, of all readers together
    #[arg(long, default_value_t = 256)]
    pub(crate) mib: u64,
    /// Beside readers: writers, each with a segment and a connection of its own
    #[arg(long, default_value_t = 1)]
    pub(crate) writers: usize,
    /// Beside readers: payload bytes of each event, old and new, at least 28
    #[arg(long, default_value_t = 1024)]
    pub(crate) size: usize,
    /// Beside readers: rounds of all runs in turn; the medians count
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: u32,
    /// Beside readers: seconds before those that count, of each run
    #[arg(long, default_value_t = 0.5)]
    pub(crate) warmup: f64,
}

/// What readers of old data cost those who write.
#[derive(Clone, Debug, Serialize)]
pub struct ReadingReport {
    /// Where it ran.
    pub machine: Machine,
    /// Payload bytes of each event.
    pub event_bytes: usize,
    /// Writers.
    pub writers: usize,
    /// Readers.
    pub readers: usize,
    /// Bytes of old data, events' headers included.
    pub old_bytes: u64,
    /// Events per second of the runs whose latency counts.
    pub rate: f64,
    /// Seconds that counted, of each run.
    pub seconds: f64,
    /// Writers alone.
    pub alone: WriterFigures,
    /// Writers beside the readers.
    pub beside: WriterFigures,
    /// Payload bytes that all readers read per second beside the writers at the fixed rate.
    pub read_bytes_per_second_paced: Spread,
    /// The same beside writers as fast as they can.
    pub read_bytes_per_second_full: Spread,
    /// p99 at the fixed rate beside readers as a multiple of that alone.
    pub p99_ratio: Spread,
    /// Throughput beside readers as a share of that alone.
    pub throughput_ratio: Spread,
    /// Events written in all runs and read back, those of the readers not counted.
    pub events_verified: u64,
}

/// Of the writers.
#[derive(Clone, Debug, Serialize)]
pub struct WriterFigures {
    /// Payload bytes acknowledged per second, as fast as they could.
    pub bytes_per_second: Spread,
    /// At the fixed rate, from when an event was due to its acknowledgement: median, in microseconds.
    pub p50_us: Spread,
    /// The same for 99 %.
    pub p99_us: Spread,
}

impl ReadingLoad {
    /// At a fixed rate; without the rate, as fast as the writers can.
    fn paced(&self, rate: f64, seconds: f64) -> LoadArgs {
        let Self { size, writers, warmup, .. } = *self;
        LoadArgs { size, writers, rate: Some(rate), seconds, warmup, ..LoadArgs::default() }
    }

    pub(super) fn check(&self, rate: f64, seconds: f64) -> Result<(), BenchError> {
        sound("--readers is from 1 to 1024", (1..=READERS_MAX).contains(&self.readers))?;
        sound("--mib is from 1 to 1048576", (1..=1 << 20).contains(&self.mib))?;
        sound("--rounds is from 1 to 100", (1..=100).contains(&self.rounds))?;
        self.paced(rate, seconds).check()
    }
}

/// Both runs of one round, alone or beside readers.
struct Pair {
    paced: WriteReport,
    full: WriteReport,
    /// Payload bytes read per second beside each.
    read: [f64; 2],
}

pub(super) fn measure(
    attached: &Attached,
    load: &ReadingLoad,
    rate: f64,
    seconds: f64,
    keep: bool,
) -> Result<ReadingReport, BenchError> {
    let (old, old_run) = fill(attached, load.size, load.readers, load.mib << 20)?;
    attached.watch.settle(SETTLE_PATIENCE);
    let paced = load.paced(rate, seconds);
    let full = LoadArgs { rate: None, ..paced.clone() };
    let one_run = |args: &LoadArgs, old: &[Written]| {
        let writing = || {
            let (report, run) = write(attached, args)?;
            if !keep {
                run.delete(&attached.server)?;
            }
            Ok(report)
        };
        beside(&attached.server, load.size, old, writing)
    };
    let pair = |old: &[Written]| {
        let ((paced, read_paced), (full, read_full)) = (one_run(&paced, old)?, one_run(&full, old)?);
        Ok::<_, BenchError>(Pair { paced, full, read: [read_paced, read_full] })
    };
    let found: Vec<(Pair, Pair)> =
        (0..load.rounds).map(|_| Ok((pair(&[])?, pair(&old)?))).collect::<Result<_, BenchError>>()?;
    if !keep {
        old_run.delete(&attached.server)?;
    }
    let ratio =
        |figure: fn(&Pair) -> f64| Spread::of(found.iter().map(|(alone, beside)| figure(beside) / figure(alone)));
    let verified = |pair: &Pair| pair.paced.events_verified + pair.full.events_verified;
    Ok(ReadingReport {
        machine: attached.machine.clone(),
        event_bytes: load.size,
        writers: load.writers,
        readers: load.readers,
        old_bytes: old.iter().map(Written::events).sum::<u64>() * (HEADER_BYTES + load.size) as u64,
        rate,
        seconds,
        alone: figures(found.iter().map(|(alone, _)| alone)),
        beside: figures(found.iter().map(|(_, beside)| beside)),
        read_bytes_per_second_paced: Spread::of(found.iter().map(|(_, beside)| beside.read[0])),
        read_bytes_per_second_full: Spread::of(found.iter().map(|(_, beside)| beside.read[1])),
        p99_ratio: ratio(|pair| pair.paced.latency.p99_us),
        throughput_ratio: ratio(|pair| pair.full.bytes_per_second),
        events_verified: found.iter().map(|(alone, beside)| verified(alone) + verified(beside)).sum(),
    })
}

fn figures<'a>(pairs: impl Iterator<Item = &'a Pair> + Clone) -> WriterFigures {
    let of = |figure: fn(&Pair) -> f64| Spread::of(pairs.clone().map(figure));
    WriterFigures {
        bytes_per_second: of(|pair| pair.full.bytes_per_second),
        p50_us: of(|pair| pair.paced.latency.p50_us),
        p99_us: of(|pair| pair.paced.latency.p99_us),
    }
}

/// Does something while one reader for each of these segments reads it over and over. Returns also how many payload bytes
/// they read per second, each until the end of its last reading.
fn beside<T>(
    server: &str,
    event_bytes: usize,
    old: &[Written],
    work: impl FnOnce() -> Result<T, BenchError>,
) -> Result<(T, f64), BenchError> {
    let done = AtomicBool::new(false);
    let one_reader = |written: &Written| {
        let (began, mut bytes) = (Instant::now(), 0);
        while !done.load(Ordering::Relaxed) {
            read_back(server, 1, event_bytes, Asking::default(), slice::from_ref(written))?;
            bytes += written.events() * event_bytes as u64;
        }
        Ok::<f64, BenchError>(bytes as f64 / began.elapsed().as_secs_f64())
    };
    thread::scope(|scope| {
        let readers: Vec<_> = old.iter().map(|written| scope.spawn(|| one_reader(written))).collect();
        let outcome = work();
        done.store(true, Ordering::Relaxed);
        let rates = readers.into_iter().map(|reader| reader.join().expect("no reader panics"));
        let rate: Result<f64, BenchError> = rates.sum();
        Ok((outcome?, rate?))
    })
}

impl std::fmt::Display for ReadingReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}\n", self.machine)?;
        let Self { event_bytes, writers, readers, old_bytes, rate, seconds, .. } = self;
        let old = old_bytes >> 20;
        writeln!(
            f,
            "{event_bytes} B events, {writers} writers, {readers} readers of {old} MiB, {seconds} s, medians of all rounds"
        )?;
        for (name, figures) in [("alone", &self.alone), ("beside readers", &self.beside)] {
            let WriterFigures { bytes_per_second, p50_us, p99_us } = figures;
            let written = bytes_per_second.divided_by(1e6);
            writeln!(f, "{name:14}  written {written} MB/s; at {rate:.0}/s  ack p50 {p50_us}  p99 {p99_us} µs")?;
        }
        let mega = |spread: &Spread| spread.divided_by(1e6);
        let (paced, full) = (mega(&self.read_bytes_per_second_paced), mega(&self.read_bytes_per_second_full));
        writeln!(f, "read meanwhile  {full} MB/s; {paced} MB/s beside writers at {rate:.0}/s")?;
        let share = self.throughput_ratio.divided_by(0.01);
        writeln!(f, "beside readers writers have {share} % of the throughput and {:.1} × p99", self.p99_ratio)?;
        write!(f, "verified  {} events written, and all that was read", self.events_verified)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senseless_settings_are_named() {
        let load = ReadingLoad { readers: 1, mib: 256, writers: 1, size: 1024, rounds: 3, warmup: 0.5 };
        assert!(load.check(1000.0, 1.0).is_ok());
        for (load, rate, flag) in [
            (ReadingLoad { readers: 0, ..load.clone() }, 1000.0, "--readers"),
            (ReadingLoad { mib: 0, ..load.clone() }, 1000.0, "--mib"),
            (ReadingLoad { writers: 0, ..load.clone() }, 1000.0, "--writers"),
            (ReadingLoad { size: 27, ..load.clone() }, 1000.0, "--size"),
            (ReadingLoad { rounds: 0, ..load.clone() }, 1000.0, "--rounds"),
            (load, 0.0, "--rate"),
        ] {
            assert!(load.check(rate, 1.0).unwrap_err().to_string().contains(flag), "{flag}");
        }
    }

    #[test]
    fn without_readers_there_is_only_the_work() {
        assert_eq!(beside("nowhere", 100, &[], || Ok(7)).unwrap(), (7, 0.0));
    }
}
