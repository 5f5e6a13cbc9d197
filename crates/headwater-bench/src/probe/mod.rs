//! `headwater bench probe`: what this machine can do, with nothing of the store in the way.
//!
//! Absolute figures do not travel between machines; every goal is a ratio to a figure of this probe, taken in the same
//! run. The one that matters most is the [floor program](floor).

mod commit;
pub(crate) mod floor;
mod memory;
mod network;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::durable::Way;
use crate::error::{BenchError, Context};
use crate::latency::Quantiles;
use crate::machine::Machine;

/// What the probe looks at and for how long.
#[derive(Clone, Debug, clap::Args)]
pub struct ProbeArgs {
    /// Directory on the disk to measure; files made there are removed again
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub json: bool,
    /// Measure only a third as long: for tests and a first look
    #[arg(long)]
    pub short: bool,
}

/// Everything the probe found.
#[derive(Clone, Debug, Serialize)]
pub struct Probe {
    /// Where it ran.
    pub machine: Machine,
    /// Commits the fast way, then the ordinary way.
    pub commits: Vec<Commit>,
    /// Direct sequential reads of 1 MiB, bytes per second. The goals call it Q.
    pub direct_read_bytes_per_second: f64,
    /// Whether the file system took direct I/O for these reads.
    pub direct_read_is_direct: bool,
    /// Round trip of 100 bytes over loopback TCP. The goals call its quantiles R50 and R99.
    pub round_trip: Quantiles,
    /// One way over loopback TCP, best of writes of 64 KiB, 256 KiB and 1 MiB, bytes per second. The goals call it T.
    pub loopback_bytes_per_second: f64,
    /// Copying 1 MiB, bytes per second.
    pub memcpy_bytes_per_second: f64,
    /// Checksumming 64 KiB with CRC32C, bytes per second.
    pub crc32c_bytes_per_second: f64,
    /// The floor program under each load.
    pub floor: Floor,
}

/// One size of commit, one way.
#[derive(Clone, Debug, Serialize)]
pub struct Commit {
    /// How it was made durable.
    pub way: Way,
    /// Bytes of each.
    pub bytes: usize,
    /// How many a second, one after the other.
    pub per_second: f64,
    /// How long each took.
    pub latency: Quantiles,
}

/// What the floor program reached.
#[derive(Clone, Debug, Serialize)]
pub struct Floor {
    /// How its file made writes durable.
    pub way: Way,
    /// 1 KiB events in 64 KiB blocks, one writer. The goals call it F1.
    pub kib_1_writer: FloorLoad,
    /// 1 KiB events in 64 KiB blocks, four writers. The goals call it F4.
    pub kib_4_writers: FloorLoad,
    /// 100 B events in 64 KiB blocks, one writer.
    pub small_1_writer: FloorLoad,
    /// One 1 KiB event per request, 1,000 a second, timed from when each was due. The goals call its quantiles f50, f99.
    pub kib_at_1000: Quantiles,
}

/// One load on the floor program.
#[derive(Clone, Debug, Serialize)]
pub struct FloorLoad {
    /// Events acknowledged a second.
    pub events_per_second: f64,
    /// Their bytes a second.
    pub bytes_per_second: f64,
    /// From sending a block to its acknowledgement.
    pub latency: Quantiles,
}

/// How long each part takes.
#[derive(Clone, Copy, Debug)]
struct Patience {
    commit: Duration,
    short: Duration,
    floor: Duration,
}

impl Probe {
    /// Measures everything; about 25 seconds, a third of it if `short`.
    ///
    /// # Errors
    /// Whatever the system refuses.
    pub fn take(directory: &Path, short: bool) -> Result<Self, BenchError> {
        let part = |millis: u64| Duration::from_millis(if short { millis / 3 } else { millis });
        let patience = Patience { commit: part(1200), short: part(1000), floor: part(2500) };
        let directory = tempfile::Builder::new()
            .prefix("headwater-probe-")
            .tempdir_in(directory)
            .on("create a directory in", directory.display())?;
        let mut commits = commit::direct(directory.path(), patience.commit)?;
        commits.extend(commit::buffered(directory.path(), patience.commit)?);
        let (direct_read_bytes_per_second, direct_read_is_direct) = commit::read(directory.path(), patience.short)?;
        Ok(Self {
            machine: Machine::look(directory.path()),
            commits,
            direct_read_bytes_per_second,
            direct_read_is_direct,
            round_trip: network::round_trip(patience.short)?,
            loopback_bytes_per_second: network::throughput(patience.short)?,
            memcpy_bytes_per_second: memory::copy(patience.short / 2),
            crc32c_bytes_per_second: memory::crc32c(patience.short / 2),
            floor: floor::measure(directory.path(), patience.floor)?,
        })
    }

    /// The commit at about the size a lightly loaded journal writes: d50 and d99 of the goals.
    pub fn small_commit(&self) -> Option<&Commit> {
        self.commits.iter().find(|commit| commit.bytes == 4096)
    }
}

impl std::fmt::Display for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(f, "\ncommit (write and durable)        size        /s      MB/s    p50 µs    p99 µs  p99.9 µs")?;
        for Commit { way, bytes, per_second, latency } in &self.commits {
            let way = match way {
                Way::DirectDsync => "zero-filled, O_DIRECT, DSYNC",
                Way::DirectSync => "zero-filled, O_DIRECT, fdatasync",
                Way::Buffered => "zero-filled, buffered, fdatasync",
            };
            let (kib, rate) = (bytes / 1024, per_second * *bytes as f64 / 1e6);
            let Quantiles { p50_us, p99_us, p999_us, .. } = latency;
            writeln!(f, "{way:32}{kib:4} KiB{per_second:10.0}{rate:10.0}{p50_us:10.0}{p99_us:10.0}{p999_us:10.0}")?;
        }
        let mega = |rate: f64| rate / 1e6;
        let direct = if self.direct_read_is_direct { "direct" } else { "not direct: the file system refuses" };
        writeln!(f, "\nsequential read, 1 MiB ({direct})  {:8.0} MB/s", mega(self.direct_read_bytes_per_second))?;
        writeln!(f, "loopback TCP, best of three sizes  {:8.0} MB/s", mega(self.loopback_bytes_per_second))?;
        writeln!(f, "loopback TCP round trip, 100 B     {}", self.round_trip)?;
        writeln!(f, "memcpy, 1 MiB                      {:8.0} MB/s", mega(self.memcpy_bytes_per_second))?;
        writeln!(f, "CRC32C, 64 KiB                     {:8.0} MB/s", mega(self.crc32c_bytes_per_second))?;
        let Floor { kib_1_writer, kib_4_writers, small_1_writer, kib_at_1000, .. } = &self.floor;
        writeln!(f, "\nfloor program                       events/s      MB/s")?;
        let loads = [
            ("1 KiB in 64 KiB blocks, 1 writer", kib_1_writer),
            ("1 KiB in 64 KiB blocks, 4 writers", kib_4_writers),
            ("100 B in 64 KiB blocks, 1 writer", small_1_writer),
        ];
        for (name, FloorLoad { events_per_second, bytes_per_second, latency }) in loads {
            writeln!(f, "{name:33}{events_per_second:11.0}{:10.0}  {latency}", mega(*bytes_per_second))?;
        }
        write!(f, "1 KiB, 1,000/s, one per request                      {kib_at_1000}")
    }
}
