//! `headwater bench mixed`: acknowledgements while the server flushes chunks, deletes segments and makes checkpoints, or
//! while others read old data ([`reading`]).
//!
//! One writer sends single events at a fixed rate throughout. First alone, then beside others who write in bulk (so that
//! bytes leave the journal for chunks and checkpoints are made) to segments that are deleted as soon as they are written. The
//! server's checkpoints are counted: a run in which none was made says so.

mod reading;

pub use self::reading::{ReadingReport, WriterFigures};

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde::Serialize;

use self::reading::ReadingLoad;
use crate::audit::{Audit, Durable};
use crate::error::BenchError;
use crate::latency::Quantiles;
use crate::target::{Attached, Target};
use crate::write::{LoadArgs, fill_paced, measure};

/// `bench mixed`.
#[derive(Clone, Debug, clap::Args)]
pub struct MixedArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// What goes on beside the writers
    #[arg(long, value_enum, default_value_t)]
    pub(crate) beside: Beside,
    #[command(flatten)]
    pub(crate) load: MixedLoad,
    #[command(flatten)]
    pub(crate) reading: ReadingLoad,
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}

/// What goes on beside the writers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Beside {
    /// Bulk writes to segments that are deleted when they are written
    #[default]
    Bulk,
    /// Readers of what was written before
    Readers,
}

/// Who writes what.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct MixedLoad {
    /// Events per second of the writer whose acknowledgements are timed
    #[arg(long, default_value_t = 1000.0)]
    pub(crate) rate: f64,
    /// Beside bulk: megabytes per second written
    #[arg(long, default_value_t = 100.0)]
    pub(crate) bulk: f64,
    /// Beside bulk: mebibytes of a segment before it is deleted
    #[arg(long, default_value_t = 64)]
    pub(crate) bulk_mib: u64,
    /// Seconds that count, of each run
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
}

/// What disturbances cost.
#[derive(Clone, Debug, Serialize)]
pub struct MixedReport {
    /// Megabytes per second beside it.
    pub bulk_megabytes_per_second: f64,
    /// Bulk segments written and deleted meanwhile.
    pub bulk_segments_deleted: u64,
    /// Checkpoints that the server made from before the first disturbed event to the last acknowledgement; none if it does
    /// not tell. With 0 the figures are of bulk writes alone.
    pub checkpoints: Option<u64>,
    /// Acknowledgements with nothing else going on.
    pub quiet: Quantiles,
    /// Acknowledgements beside bulk writes and deletions.
    pub disturbed: Quantiles,
    /// p99 disturbed as a multiple of quiet.
    pub p99_ratio: f64,
    /// Whether acknowledged was durable, in both runs.
    pub durable: Durable,
}

pub(crate) fn run(args: &MixedArgs) -> Result<MixedReport, BenchError> {
    measure_both(&args.target.attach()?, &args.load)
}

/// Beside readers instead of bulk writes.
pub(crate) fn run_beside_readers(args: &MixedArgs) -> Result<ReadingReport, BenchError> {
    let MixedLoad { rate, seconds, .. } = args.load;
    args.reading.check(rate, seconds)?;
    reading::measure(&args.target.attach()?, &args.reading, rate, seconds, args.target.keep)
}

pub(crate) fn measure_both(attached: &Attached, args: &MixedLoad) -> Result<MixedReport, BenchError> {
    if args.bulk_mib == 0 || !(1.0..=1e5).contains(&args.bulk) {
        return Err(BenchError::Setting { what: "--bulk and --bulk-mib are at least 1".to_owned() });
    }
    let load = LoadArgs { rate: Some(args.rate), seconds: args.seconds, ..LoadArgs::default() };
    let once = || {
        let (report, run) = measure(attached, &load)?;
        run.delete(&attached.server)?;
        Ok::<_, BenchError>((report.latency, report.audit))
    };
    let (quiet, Audit { durable, .. }) = once()?;
    let done = AtomicBool::new(false);
    let ((disturbed, audit), bulk_segments_deleted) = thread::scope(|scope| {
        let bulk = scope.spawn(|| {
            let mut deleted = 0;
            while !done.load(Ordering::Relaxed) {
                fill_paced(attached, args.bulk_mib << 20, args.bulk * 1e6)?.delete(&attached.server)?;
                deleted += 1;
            }
            Ok::<u64, BenchError>(deleted)
        });
        let disturbed = once();
        done.store(true, Ordering::Relaxed);
        let deleted = bulk.join().expect("the bulk writer does not panic")?;
        Ok::<_, BenchError>((disturbed?, deleted))
    })?;
    Ok(MixedReport {
        bulk_megabytes_per_second: args.bulk,
        bulk_segments_deleted,
        checkpoints: audit.server_checkpoints,
        p99_ratio: disturbed.p99_us / quiet.p99_us,
        quiet,
        disturbed,
        durable: durable.max(audit.durable),
    })
}

impl std::fmt::Display for MixedReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "ack alone                    {}", self.quiet)?;
        let (rate, deleted) = (self.bulk_megabytes_per_second, self.bulk_segments_deleted);
        writeln!(f, "ack beside {rate:.0} MB/s in bulk  {}", self.disturbed)?;
        writeln!(f, "p99 is {:.1} × as long ({deleted} bulk segments written and deleted meanwhile)", self.p99_ratio)?;
        match self.checkpoints {
            Some(0) => write!(f, "disturbed: NO (the server made no checkpoint meanwhile: this is bulk writing alone)"),
            Some(count) => write!(f, "disturbed: yes ({count} checkpoints of the server meanwhile)"),
            None => write!(f, "disturbed: unknown (without --metrics the server does not tell of checkpoints)"),
        }?;
        write!(f, "\ndurable: {}", self.durable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_a_checkpoint_says_so() {
        let said = |checkpoints| {
            let report = MixedReport {
                bulk_megabytes_per_second: 100.0,
                bulk_segments_deleted: 1,
                checkpoints,
                quiet: Quantiles::default(),
                disturbed: Quantiles::default(),
                p99_ratio: 1.0,
                durable: Durable::Yes,
            };
            report.to_string()
        };
        assert!(said(Some(0)).contains("disturbed: NO"));
        assert!(said(Some(3)).contains("disturbed: yes (3 checkpoints"));
        assert!(said(None).contains("disturbed: unknown"));
    }
}
