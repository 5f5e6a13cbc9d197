//! `headwater bench catchup`: reading what was written before, from the server's memory and from the disk.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::Advice;
use serde::Serialize;

use crate::error::{BenchError, Context};
use crate::target::{Attached, Restart, Target};
use crate::verify::{Asking, Written, read_back};
use crate::write::fill;

const READERS_MAX: usize = 1024;
/// How long the server may take to bring what was written to where it stays.
const SETTLE_PATIENCE: Duration = Duration::from_secs(10);

/// `bench catchup`.
#[derive(Clone, Debug, clap::Args)]
pub struct CatchupArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) read: CatchupLoad,
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is read and how.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CatchupLoad {
    /// Payload bytes of each event, at least 28
    #[arg(long, default_value_t = 1024)]
    pub(crate) size: usize,
    /// Mebibytes of events to write first
    #[arg(long, default_value_t = 512)]
    pub(crate) mib: u64,
    /// Readers, each with a segment and a connection of its own
    #[arg(long, default_value_t = 1)]
    pub(crate) readers: usize,
    /// Bytes of each read
    #[arg(long, default_value_t = 1 << 20)]
    pub(crate) read_bytes: u32,
    /// Reads of one reader under way at a time
    #[arg(long, default_value_t = 2)]
    pub(crate) depth: usize,
}

/// What a catch-up run found. Every event was checked while it was read.
#[derive(Clone, Debug, Serialize)]
pub struct CatchupReport {
    /// Payload bytes of each event.
    pub event_bytes: usize,
    /// Bytes that each reading took, events' headers included.
    pub bytes: u64,
    /// Readers.
    pub readers: usize,
    /// Right after writing, second reading of two, bytes per second.
    pub cached_bytes_per_second: f64,
    /// The same in events per second.
    pub cached_events_per_second: f64,
    /// Out of the disk, bytes per second.
    pub cold_bytes_per_second: f64,
    /// How the caches were emptied before.
    pub cold_by: ColdBy,
}

/// How caches were emptied.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ColdBy {
    /// The server was stopped, its files were dropped from the page cache, and it was started again.
    Restart,
    /// Only files were dropped from the page cache; the server may have kept something in its own memory.
    PageCacheOnly,
}

pub(crate) fn run(args: &CatchupArgs) -> Result<CatchupReport, BenchError> {
    let (report, _) = measure(args.target.attach()?, &args.read, &args.target.place.data_dir, args.target.keep)?;
    Ok(report)
}

/// `data_dir` is where the files of a server lie that is not our own. Hands the server back, restarted if it is our own.
pub(crate) fn measure(
    attached: Attached,
    load: &CatchupLoad,
    data_dir: &Path,
    keep: bool,
) -> Result<(CatchupReport, Attached), BenchError> {
    let sound = (1..=READERS_MAX).contains(&load.readers) && load.depth > 0 && load.read_bytes > 0 && load.mib > 0;
    if !sound {
        return Err(BenchError::Setting { what: "readers, depth, bytes and mebibytes are at least 1".to_owned() });
    }
    let (written, run) = fill(&attached, load.size, load.readers, load.mib << 20)?;
    // The first reading may find things on their way to where they stay.
    attached.watch.settle(SETTLE_PATIENCE);
    time(&attached.server, load, &written)?;
    let cached = time(&attached.server, load, &written)?;
    let (attached, cold_by) = if attached.own().is_some() {
        (attached.restart(Restart::Orderly, drop_from_page_cache)?, ColdBy::Restart)
    } else {
        drop_from_page_cache(data_dir)?;
        (attached, ColdBy::PageCacheOnly)
    };
    let cold = time(&attached.server, load, &written)?;
    let events: u64 = written.iter().map(Written::events).sum();
    let bytes = events * (crate::event::HEADER_BYTES + load.size) as u64;
    if !keep {
        run.delete(&attached.server)?;
    }
    let report = CatchupReport {
        event_bytes: load.size,
        bytes,
        readers: load.readers,
        cached_bytes_per_second: bytes as f64 / cached.as_secs_f64(),
        cached_events_per_second: events as f64 / cached.as_secs_f64(),
        cold_bytes_per_second: bytes as f64 / cold.as_secs_f64(),
        cold_by,
    };
    Ok((report, attached))
}

fn time(server: &str, load: &CatchupLoad, written: &[Written]) -> Result<Duration, BenchError> {
    let asking = Asking { bytes: load.read_bytes, depth: load.depth };
    let began = Instant::now();
    read_back(server, load.readers, load.size, asking, written)?;
    Ok(began.elapsed())
}

/// Every file below a directory, written out first: the kernel keeps what is not on the disk yet.
fn drop_from_page_cache(directory: &Path) -> Result<(), BenchError> {
    for entry in std::fs::read_dir(directory).on("list", directory.display())? {
        let path = entry.on("list", directory.display())?.path();
        let kind = std::fs::symlink_metadata(&path).on("look at", path.display())?.file_type();
        if kind.is_dir() {
            drop_from_page_cache(&path)?;
        } else if kind.is_file() {
            let file = File::open(&path).on("open", path.display())?;
            file.sync_all().on("sync", path.display())?;
            rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).on("drop from the page cache", path.display())?;
        }
    }
    Ok(())
}

impl std::fmt::Display for CatchupReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { event_bytes, readers, bytes, .. } = self;
        writeln!(f, "{event_bytes} B events, {} MiB, {readers} readers, every event checked", bytes >> 20)?;
        let (cached, events) = (self.cached_bytes_per_second / 1e6, self.cached_events_per_second);
        writeln!(f, "cached  {cached:8.0} MB/s  {events:10.0} events/s")?;
        let by = match self.cold_by {
            ColdBy::Restart => "after a restart with an empty page cache",
            ColdBy::PageCacheOnly => "files dropped from the page cache; the server's own memory was not emptied",
        };
        write!(f, "cold    {:8.0} MB/s  ({by})", self.cold_bytes_per_second / 1e6)
    }
}
