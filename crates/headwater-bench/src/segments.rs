//! `headwater bench segments`: creating many segments, and writing evenly over all of them against writing to one.

use std::time::Instant;

use headwater_wire::WRITERS_MAX;
use serde::Serialize;

use crate::connection::Connection;
use crate::error::BenchError;
use crate::target::{Attached, Run, Target};
use crate::write::{LoadArgs, WriteReport, measure, measure_on};

/// `bench segments`.
#[derive(Clone, Debug, clap::Args)]
pub struct SegmentsArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) load: SegmentsLoad,
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}

/// How many and how.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SegmentsLoad {
    /// Segments to create, and write evenly as far as connections take them
    #[arg(long, default_value_t = 10_000)]
    pub(crate) count: usize,
    /// Writers of both runs, each with a connection of its own, which takes at most 4096 segments
    #[arg(long, default_value_t = 4)]
    pub(crate) writers: usize,
    /// Payload bytes of each event
    #[arg(long, default_value_t = 1024)]
    pub(crate) size: usize,
    /// Seconds that count, of each run
    #[arg(long, default_value_t = 4.0)]
    pub(crate) seconds: f64,
}

/// What a run over many segments found.
#[derive(Clone, Debug, Serialize)]
pub struct SegmentsReport {
    /// How many were created.
    pub segments: usize,
    /// How many of them were written.
    pub written_segments: usize,
    /// Created per second, 64 requests under way.
    pub created_per_second: f64,
    /// Growth of the server's resident memory for each, in bytes, if we started it. New segments are not idle yet.
    pub resident_bytes_each: Option<f64>,
    /// All writers on one segment.
    pub one: WriteReport,
    /// The same load over those segments.
    pub many: WriteReport,
    /// Throughput over many as a share of that on one.
    pub throughput_ratio: f64,
    /// p99 over many as a multiple of that on one.
    pub p99_ratio: f64,
}

pub(crate) fn run(args: &SegmentsArgs) -> Result<SegmentsReport, BenchError> {
    let attached = args.target.attach()?;
    let (report, runs) = measure_all(&attached, &args.load)?;
    if !args.target.keep {
        runs.into_iter().try_for_each(|run| run.delete(&attached.server))?;
    }
    Ok(report)
}

pub(crate) fn measure_all(attached: &Attached, args: &SegmentsLoad) -> Result<(SegmentsReport, [Run; 2]), BenchError> {
    let SegmentsLoad { count, writers, size, seconds } = *args;
    let one = LoadArgs { size, writers, segments: 1, seconds, ..LoadArgs::default() };
    let created = LoadArgs { segments: count.max(1), ..one.clone() };
    created.check()?;
    let many = LoadArgs { segments: created.segments.min(writers * WRITERS_MAX), ..one.clone() };
    let (one, first) = measure(attached, &one)?;
    let resident = || attached.own().map(|own| own.resident_bytes()).transpose();
    let run = Run::named(created.segments);
    let mut connection = Connection::open(&attached.server)?;
    let (before, began) = (resident()?, Instant::now());
    connection.create(&run.segments)?;
    let created_per_second = count as f64 / began.elapsed().as_secs_f64();
    let grown = before.zip(resident()?).map(|(before, after)| after.saturating_sub(before));
    let written_segments = many.segments;
    let many = measure_on(attached, &many, &run.first(written_segments))?;
    let report = SegmentsReport {
        segments: count,
        written_segments,
        created_per_second,
        resident_bytes_each: grown.map(|bytes| bytes as f64 / count as f64),
        throughput_ratio: many.bytes_per_second / one.bytes_per_second,
        p99_ratio: many.latency.p99_us / one.latency.p99_us,
        one,
        many,
    };
    Ok((report, [first, run]))
}

impl std::fmt::Display for SegmentsReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} segments created at {:.0}/s", self.segments, self.created_per_second)?;
        if let Some(bytes) = self.resident_bytes_each {
            write!(f, ", {bytes:.0} B of memory each")?;
        }
        let mega = |report: &WriteReport| report.bytes_per_second / 1e6;
        writeln!(f, "\none segment   {:8.0} MB/s  {}", mega(&self.one), self.one.latency)?;
        let written = match self.written_segments == self.segments {
            true => "all of them".to_owned(),
            false => format!("{} of them", self.written_segments),
        };
        writeln!(f, "{written:13} {:8.0} MB/s  {}", mega(&self.many), self.many.latency)?;
        write!(f, "that is {:.0} % of the throughput and {:.1} × p99", self.throughput_ratio * 100.0, self.p99_ratio)
    }
}
