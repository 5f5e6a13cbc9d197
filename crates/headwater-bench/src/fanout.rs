//! `headwater bench fanout`: many readers at the tail of one segment, against one reader there.
//!
//! Each round has four runs: one writer as fast as it can with one reader and with all of them, for the throughput, and at a
//! fixed rate with one and with all, for the latency. Every reader checks every event.

use serde::Serialize;

use crate::error::BenchError;
use crate::machine::Machine;
use crate::rounds::{Rounds, Spread, sound};
use crate::tail::{READERS_MAX, TailReport, measure as tail};
use crate::target::{Attached, Target};
use crate::write::LoadArgs;

/// `bench fanout`.
#[derive(Clone, Debug, clap::Args)]
pub struct FanoutArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) load: FanoutLoad,
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}

/// Who reads what.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct FanoutLoad {
    /// Readers of the one segment, each with a connection
    #[arg(long, default_value_t = 10)]
    pub(crate) readers: usize,
    /// Payload bytes of each event, at least 28
    #[arg(long, default_value_t = 1024)]
    pub(crate) size: usize,
    /// Events per second of the runs whose latency counts, each timed from when it was due
    #[arg(long, default_value_t = 1000.0)]
    pub(crate) rate: f64,
    #[command(flatten)]
    pub(crate) rounds: Rounds,
}

/// What many readers cost.
#[derive(Clone, Debug, Serialize)]
pub struct FanoutReport {
    /// Where it ran.
    pub machine: Machine,
    /// Payload bytes of each event.
    pub event_bytes: usize,
    /// Events per second of the runs whose latency counts.
    pub rate: f64,
    /// Seconds that counted, of each run.
    pub seconds: f64,
    /// With one reader.
    pub one: FanoutFigures,
    /// With all of them.
    pub all: FanoutFigures,
    /// Bytes delivered to all as a multiple of those delivered to one.
    pub delivered_ratio: Spread,
    /// What the writer reaches with all as a share of what it reaches with one.
    pub written_ratio: Spread,
    /// p99 to a reader with all as a multiple of that with one.
    pub read_p99_ratio: Spread,
    /// Events checked by all readers of all runs together: each reader saw every event once and in order.
    pub events_verified: u64,
}

/// With so many readers.
#[derive(Clone, Debug, Serialize)]
pub struct FanoutFigures {
    /// How many.
    pub readers: usize,
    /// Payload bytes acknowledged per second, as fast as one writer could.
    pub written_bytes_per_second: Spread,
    /// Payload bytes that came to readers per second meanwhile, of all together.
    pub delivered_bytes_per_second: Spread,
    /// At the fixed rate, from when an event was due to a reader: median, in microseconds.
    pub read_p50_us: Spread,
    /// The same for 99 %.
    pub read_p99_us: Spread,
    /// At the fixed rate, from when an event was due to its acknowledgement: 99 %, in microseconds.
    pub acknowledged_p99_us: Spread,
}

impl FanoutLoad {
    fn check(&self) -> Result<(), BenchError> {
        self.rounds.check()?;
        sound(&format!("--readers is from 2 to {READERS_MAX}"), (2..=READERS_MAX).contains(&self.readers))?;
        self.paced().check()
    }

    fn full(&self) -> LoadArgs {
        let Rounds { seconds, warmup, .. } = self.rounds;
        LoadArgs { size: self.size, seconds, warmup, ..LoadArgs::default() }
    }

    fn paced(&self) -> LoadArgs {
        LoadArgs { rate: Some(self.rate), ..self.full() }
    }
}

pub(crate) fn run(args: &FanoutArgs) -> Result<FanoutReport, BenchError> {
    // Before a server is started for nothing.
    args.load.check()?;
    measure(&args.target.attach()?, &args.load, args.target.keep)
}

/// Both runs of one round with so many readers.
struct Pair {
    full: TailReport,
    paced: TailReport,
}

fn measure(attached: &Attached, load: &FanoutLoad, keep: bool) -> Result<FanoutReport, BenchError> {
    let one_run = |args: &LoadArgs, readers: usize| {
        let (report, run) = tail(attached, args, readers)?;
        if !keep {
            run.delete(&attached.server)?;
        }
        Ok::<_, BenchError>(report)
    };
    let pair = |readers: usize| {
        Ok::<_, BenchError>(Pair { full: one_run(&load.full(), readers)?, paced: one_run(&load.paced(), readers)? })
    };
    let found = load.rounds.each(|| Ok((pair(1)?, pair(load.readers)?)))?;
    let verified = |pair: &Pair| pair.full.events_verified + pair.paced.events_verified;
    let ratio = |figure: fn(&Pair) -> f64| Spread::of(found.iter().map(|(one, all)| figure(all) / figure(one)));
    Ok(FanoutReport {
        machine: attached.machine.clone(),
        event_bytes: load.size,
        rate: load.rate,
        seconds: load.rounds.seconds,
        one: figures(load, found.iter().map(|(one, _)| one)),
        all: figures(load, found.iter().map(|(_, all)| all)),
        delivered_ratio: ratio(|pair| pair.full.events_read_per_second),
        written_ratio: ratio(|pair| pair.full.events_per_second),
        read_p99_ratio: ratio(|pair| pair.paced.read.p99_us),
        events_verified: found.iter().map(|(one, all)| verified(one) + verified(all)).sum(),
    })
}

fn figures<'a>(load: &FanoutLoad, pairs: impl Iterator<Item = &'a Pair> + Clone) -> FanoutFigures {
    let of = |figure: &dyn Fn(&Pair) -> f64| Spread::of(pairs.clone().map(figure));
    let bytes = load.size as f64;
    FanoutFigures {
        readers: pairs.clone().map(|pair| pair.full.readers).max().unwrap_or_default(),
        written_bytes_per_second: of(&|pair| pair.full.events_per_second * bytes),
        delivered_bytes_per_second: of(&|pair| pair.full.events_read_per_second * bytes),
        read_p50_us: of(&|pair| pair.paced.read.p50_us),
        read_p99_us: of(&|pair| pair.paced.read.p99_us),
        acknowledged_p99_us: of(&|pair| pair.paced.acknowledged.p99_us),
    }
}

impl std::fmt::Display for FanoutReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}\n", self.machine)?;
        let Self { event_bytes, rate, seconds, .. } = self;
        writeln!(f, "{event_bytes} B events, one writer, one segment, {seconds} s, medians of all rounds")?;
        for figures in [&self.one, &self.all] {
            let FanoutFigures { readers, read_p50_us, read_p99_us, acknowledged_p99_us, .. } = figures;
            let mega = |spread: &Spread| spread.divided_by(1e6);
            let (written, delivered) =
                (mega(&figures.written_bytes_per_second), mega(&figures.delivered_bytes_per_second));
            writeln!(f, "{readers:4} readers  written {written} MB/s, delivered {delivered} MB/s")?;
            writeln!(
                f,
                "      at {rate:.0}/s  read p50 {read_p50_us}  p99 {read_p99_us}  ack p99 {acknowledged_p99_us} µs"
            )?;
        }
        let (delivered, written) = (&self.delivered_ratio, self.written_ratio.divided_by(0.01));
        writeln!(f, "delivered {delivered:.1} × as much, written {written} %, read p99 {:.1} ×", self.read_p99_ratio)?;
        write!(f, "verified  {} events at the readers, none lost, doubled or out of order", self.events_verified)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senseless_settings_are_named() {
        let rounds = Rounds { rounds: 1, seconds: 1.0, warmup: 0.0 };
        let load = FanoutLoad { readers: 10, size: 1024, rate: 1000.0, rounds: rounds.clone() };
        assert!(load.check().is_ok());
        for (load, flag) in [
            (FanoutLoad { readers: 1, ..load.clone() }, "--readers"),
            (FanoutLoad { size: 27, ..load.clone() }, "--size"),
            (FanoutLoad { rate: 0.0, ..load.clone() }, "--rate"),
            (FanoutLoad { rounds: Rounds { rounds: 0, ..rounds }, ..load }, "--rounds"),
        ] {
            assert!(load.check().unwrap_err().to_string().contains(flag), "{flag}");
        }
    }
}
