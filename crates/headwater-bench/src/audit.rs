//! Whether "durable" was true: what the device did between two moments, and what the server says it did.
//!
//! A server that acknowledges without flushing shows here: the device counts the flushes it was asked for. The counters
//! are the whole device's, so other programs' writes count too; a run on a busy machine flatters nobody but tells less.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::error::{BenchError, Context};

/// Bytes of a sector in `/proc/diskstats`, whatever the device's blocks are.
const SECTOR_BYTES: u64 = 512;
const METRICS_PATIENCE: Duration = Duration::from_secs(5);
/// Name of the server's figure of durable journal writes.
const SYNCS: &str = "wal_syncs_total";
/// And of checkpoints.
const CHECKPOINTS: &str = "checkpoints_total";
/// And of bytes of events that no checkpoint has yet.
const REPLAYED: &str = "wal_replayed_bytes";

/// What is watched.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    /// Directory on the device.
    pub(crate) directory: PathBuf,
    /// Where the server shows its figures, if it does.
    pub(crate) metrics: Option<String>,
}

/// Counters at one moment. What cannot be read is `None`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    device: Option<Device>,
    /// Nothing becomes durable on the device without a flush that it counts.
    counts_flushes: bool,
    syncs: Option<u64>,
    checkpoints: Option<u64>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Device {
    sectors_written: u64,
    flushes: u64,
}

/// What happened between two moments.
#[derive(Clone, Debug, Serialize)]
pub struct Audit {
    /// Flushes the device completed; none if it does not tell.
    pub device_flushes: Option<u64>,
    /// Bytes the device wrote.
    pub device_bytes: Option<u64>,
    /// Durable writes of the journal that the server counted.
    pub server_syncs: Option<u64>,
    /// Checkpoints that the server made until the last acknowledgement.
    pub server_checkpoints: Option<u64>,
    /// Appends acknowledged.
    pub acknowledgements: u64,
    /// Bytes written to the device for each byte of acknowledged events, until the device was quiet again.
    pub write_amplification: Option<f64>,
    /// Whether acknowledged was durable.
    pub durable: Durable,
}

/// Whether acknowledgements meant what they say; of several runs the greatest counts.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durable {
    /// The device was flushed at least as often as the server counted durable writes, and at least once.
    Yes,
    /// The device or the server does not tell, or the device has no need of flushes.
    Unknown,
    /// Fewer flushes than durable writes, or none at all.
    No,
}

impl Durable {
    /// Of so many acknowledgements between two moments.
    pub(crate) fn between(before: Counters, acknowledged: Counters, acknowledgements: u64) -> Self {
        let flushes = difference(before.flushes(), acknowledged.flushes());
        let verdict = match (flushes, difference(before.syncs, acknowledged.syncs)) {
            (Some(0), _) if acknowledgements > 0 => Self::No,
            (Some(flushes), Some(syncs)) if flushes < syncs => Self::No,
            (Some(_), Some(_)) => Self::Yes,
            _ => Self::Unknown,
        };
        if verdict == Self::No && !before.counts_flushes { Self::Unknown } else { verdict }
    }
}

impl std::fmt::Display for Durable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Yes => "yes",
            Self::Unknown => "unknown",
            Self::No => "NO",
        })
    }
}

impl Counters {
    fn flushes(&self) -> Option<u64> {
        self.device.map(|device| device.flushes)
    }
}

impl Watch {
    pub(crate) fn now(&self) -> Result<Counters, BenchError> {
        let (mut syncs, mut checkpoints) = (None, None);
        if let Some(address) = &self.metrics {
            let page = page(address)?;
            (syncs, checkpoints) = (Some(shown(&page, SYNCS)?), Some(shown(&page, CHECKPOINTS)?));
        }
        let counts_flushes = disk(&self.directory).is_some_and(|disk| counts_flushes(&disk));
        Ok(Counters { device: device(&self.directory), counts_flushes, syncs, checkpoints })
    }

    /// Bytes of the journal that no checkpoint had when the server started, by its figures.
    pub(crate) fn replayed_bytes(&self) -> Result<u64, BenchError> {
        shown(&page(self.metrics.as_deref().unwrap_or_default())?, REPLAYED)
    }

    /// Waits until the device writes next to nothing, or `patience` is over: what is still in memory belongs to the run.
    pub(crate) fn settle(&self, patience: Duration) {
        const STEP: Duration = Duration::from_millis(250);
        const QUIET_SECTORS: u64 = 256;
        let mut before = device(&self.directory);
        for _ in 0..patience.as_millis() / STEP.as_millis() {
            std::thread::sleep(STEP);
            let after = device(&self.directory);
            let (Some(earlier), Some(later)) = (before, after) else { return };
            if later.sectors_written - earlier.sectors_written < QUIET_SECTORS {
                return;
            }
            before = after;
        }
    }
}

impl Audit {
    /// `acknowledged` is counted when the last acknowledgement came, `settled` when the device was quiet again.
    pub(crate) fn between(
        before: Counters,
        acknowledged: Counters,
        settled: Counters,
        acknowledgements: u64,
        payload_bytes: u64,
    ) -> Self {
        let bytes = |counters: Counters| counters.device.map(|device| device.sectors_written * SECTOR_BYTES);
        let device_bytes = difference(bytes(before), bytes(settled));
        Self {
            device_flushes: difference(before.flushes(), acknowledged.flushes()),
            device_bytes,
            server_syncs: difference(before.syncs, acknowledged.syncs),
            server_checkpoints: difference(before.checkpoints, acknowledged.checkpoints),
            acknowledgements,
            write_amplification: device_bytes.map(|bytes| bytes as f64 / payload_bytes.max(1) as f64),
            durable: Durable::between(before, acknowledged, acknowledgements),
        }
    }
}

impl std::fmt::Display for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let or_unknown = |figure: Option<u64>| figure.map_or("?".to_owned(), |figure| figure.to_string());
        write!(f, "durable: {} ({} device flushes", self.durable, or_unknown(self.device_flushes))?;
        write!(f, ", {} syncs of the server", or_unknown(self.server_syncs))?;
        write!(f, ", {} acknowledgements)", self.acknowledgements)?;
        if let Some(amplification) = self.write_amplification {
            write!(f, ", write amplification {amplification:.2}")?;
        }
        Ok(())
    }
}

fn difference(before: Option<u64>, after: Option<u64>) -> Option<u64> {
    // A server that was restarted counts from zero again.
    Some(after?.saturating_sub(before?))
}

/// What the kernel shows of the whole disk that `directory` lies on: partitions have no flushes of their own.
fn disk(directory: &Path) -> Option<PathBuf> {
    let number = std::fs::metadata(directory).ok()?.dev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let entry = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    if entry.join("partition").exists() { entry.parent().map(Path::to_path_buf) } else { Some(entry) }
}

fn device(directory: &Path) -> Option<Device> {
    let disk = disk(directory)?;
    parse(&std::fs::read_to_string("/proc/diskstats").ok()?, disk.file_name()?.to_str()?)
}

/// Whether every durable write is a flush that the kernel counts: not without a cache to flush, not where a write can go
/// past the cache by itself (`REQ_FUA`), and not on what is made of other devices (mapped, encrypted), which has no queue.
fn counts_flushes(disk: &Path) -> bool {
    let is = |file: &str, what: &str| std::fs::read_to_string(disk.join(file)).is_ok_and(|said| said.trim() == what);
    is("queue/write_cache", "write back") && is("queue/fua", "0") && disk.join("mq").is_dir()
}

fn parse(diskstats: &str, name: &str) -> Option<Device> {
    let fields = diskstats.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let fields = fields.into_iter().find(|fields| fields.get(2) == Some(&name))?;
    // major minor name, then: 4 of reads, 4 of writes with sectors third, 3 of queues, 4 of discards, 2 of flushes.
    let figure = |at: usize| fields.get(3 + at).and_then(|figure| figure.parse().ok());
    Some(Device { sectors_written: figure(6)?, flushes: figure(15)? })
}

/// The page of figures, fetched with one plain request.
fn page(address: &str) -> Result<String, BenchError> {
    let mut socket = TcpStream::connect(address).on("connect to", address)?;
    socket.set_read_timeout(Some(METRICS_PATIENCE)).on("configure", "a socket")?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).on("write to", address)?;
    let mut text = String::new();
    socket.read_to_string(&mut text).on("read from", address)?;
    Ok(text)
}

fn shown(page: &str, name: &str) -> Result<u64, BenchError> {
    figure(page, name).ok_or_else(|| BenchError::Server { what: format!("shows no {name} among its figures") })
}

/// Value of an unlabelled figure.
fn figure(page: &str, name: &str) -> Option<u64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flushes_and_written_sectors_are_found_in_the_line_of_the_disk() {
        let stats = "   8       0 sda 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n\
                     254       0 vda 11 0 12 1 13 0 800 1 0 1 1 5 0 6 0 42 9\n";
        assert_eq!(parse(stats, "vda"), Some(Device { sectors_written: 800, flushes: 42 }));
        assert_eq!(parse(stats, "vdb"), None);
        // Kernels before 5.5 count no flushes.
        assert_eq!(parse(" 254 0 vda 11 0 12 1 13 0 800 1 0 1 1 5 0 6 0", "vda"), None);
    }

    #[test]
    fn only_a_disk_with_a_cache_and_no_way_past_it_counts_every_flush() {
        let judge = |cache: &str, past_it: &str, has_queue: bool| {
            let disk = tempfile::tempdir().unwrap();
            std::fs::create_dir(disk.path().join("queue")).unwrap();
            std::fs::write(disk.path().join("queue/write_cache"), cache).unwrap();
            std::fs::write(disk.path().join("queue/fua"), past_it).unwrap();
            if has_queue {
                std::fs::create_dir(disk.path().join("mq")).unwrap();
            }
            counts_flushes(disk.path())
        };
        assert!(judge("write back\n", "0\n", true));
        assert!(!judge("write through\n", "0\n", true));
        assert!(!judge("write back\n", "1\n", true));
        assert!(!judge("write back\n", "0\n", false));
        assert!(!counts_flushes(Path::new("/nowhere")));
    }

    #[test]
    fn a_figure_is_found_by_its_whole_name() {
        let page = "HTTP/1.1 200 OK\r\n\r\nwal_syncs_total_ever 9\nwal_syncs_total 7\n";
        assert_eq!(figure(page, SYNCS), Some(7));
        assert_eq!(figure("", SYNCS), None);
    }

    #[test]
    fn only_flushes_make_a_run_durable() {
        let at = |flushes, syncs, counts_flushes| Counters {
            device: Some(Device { sectors_written: 1000 + flushes, flushes }),
            counts_flushes,
            syncs: Some(syncs),
            checkpoints: None,
        };
        let judge = |flushes: u64, syncs: u64, counts_flushes| {
            let (before, after) = (at(10, 5, counts_flushes), at(10 + flushes, 5 + syncs, counts_flushes));
            Audit::between(before, after, after, 100, 512).durable
        };
        assert_eq!(judge(20, 20, true), Durable::Yes);
        assert_eq!(judge(19, 20, true), Durable::No);
        assert_eq!(judge(0, 0, true), Durable::No);
        // Where a write can be durable without a flush, too few of them are no evidence; enough of them still are.
        assert_eq!(judge(20, 20, false), Durable::Yes);
        assert_eq!((judge(19, 20, false), judge(0, 0, false)), (Durable::Unknown, Durable::Unknown));
        let silent = Audit::between(at(1, 1, true), Counters::default(), Counters::default(), 100, 512);
        assert_eq!((silent.durable, silent.write_amplification), (Durable::Unknown, None));
    }
}
