//! The disk below the data directory: how fast a sync is, whether it can be believed, how much room there is.
//!
//! A lying disk cannot be caught in the act by a program that stays up. What can be seen: that syncs return faster than
//! any device answers, that the kernel sent nothing to the device meanwhile, that the file system was told not to.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use headwater_server::sync_times;

use super::Finding;
use crate::check::size;

/// Writes measured of each kind.
const WRITES: usize = 400;
/// At most this long for each kind.
const PATIENCE: Duration = Duration::from_secs(3);
/// No device answers faster: the call did not reach one.
const IMPOSSIBLE: Duration = Duration::from_micros(4);
/// Only a cache that survives a power cut answers as fast.
const SUSPICIOUS: Duration = Duration::from_micros(15);
/// A disk that turns needs this long for a sync, at least now and then.
const TURNING: Duration = Duration::from_millis(1);
/// Slower than this at the median, group commit still helps; a single writer will notice.
const SLOW: Duration = Duration::from_millis(20);
/// A server needs this for its journal alone.
const ROOM_LEAST_BYTES: u64 = 512 << 20;
/// Less room, or less than this part of the disk, is worth a word.
const ROOM_WANTED_BYTES: u64 = 4 << 30;
const ROOM_WANTED_PERCENT: u64 = 5;
/// Every chunk and run is a file.
const INODES_WANTED: u64 = 20_000;

pub(super) fn look(directory: &Path) -> Vec<Finding> {
    let (place, mut findings) = place(directory);
    let Some(place) = place else { return findings };
    let mount = Mount::of(&place);
    findings.extend(mount.as_ref().map(Mount::judge));
    let device = Device::of(&place);
    findings.extend(device.as_ref().and_then(|device| device.judge(mount.as_ref())));
    findings.extend(syncs(&place, device.as_ref(), mount.as_ref()));
    findings.extend(room(&place));
    findings
}

/// The directory itself, or the one it would be made in.
fn place(directory: &Path) -> (Option<PathBuf>, Vec<Finding>) {
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    if let Ok(metadata) = std::fs::metadata(&absolute) {
        if !metadata.is_dir() {
            let advice = "name a directory";
            return (None, vec![Finding::bad("directory", format!("{} is no directory", absolute.display()), advice)]);
        }
        let own = metadata.uid() == rustix::process::geteuid().as_raw();
        let mode = metadata.mode() & 0o777;
        let finding = if own && mode & 0o077 == 0 {
            Finding::fine("directory", format!("{} is this user's alone", absolute.display()))
        } else if own {
            let what = format!("others than its owner can look into {} (mode {mode:o})", absolute.display());
            Finding::warning("directory", what, format!("chmod 700 {}", absolute.display()))
        } else {
            let what = format!("{} belongs to user {}", absolute.display(), metadata.uid());
            Finding::warning("directory", what, "run the doctor and the server as the user it belongs to")
        };
        return (Some(absolute), vec![finding]);
    }
    let parent = absolute.ancestors().skip(1).find(|parent| parent.is_dir()).map(Path::to_path_buf);
    let what = format!("{} will be made", absolute.display());
    (parent, vec![Finding::fine("directory", what)])
}

fn syncs(place: &Path, device: Option<&Device>, mount: Option<&Mount>) -> Vec<Finding> {
    let name = format!(".headwater-doctor-{}", std::process::id());
    let before = device.and_then(Device::writes);
    let times = match sync_times(place, &name, WRITES, PATIENCE) {
        Ok(times) => times,
        Err(error) => {
            let what = format!("a file in {} cannot be written and synced: {error}", place.display());
            return vec![Finding::bad("sync", what, "give the server a directory that it can write to")];
        }
    };
    let after = device.and_then(Device::writes);
    let count = (times.buffered.len() + times.direct.len()) as u64;
    let buffered = Spread::of(&times.buffered);
    let direct = Spread::of(&times.direct);
    let what = format!(
        "4 KiB durable: written and synced p50 {}, p99 {}; direct p50 {}, p99 {}",
        micros(buffered.half),
        micros(buffered.most),
        micros(direct.half),
        micros(direct.most)
    );
    let figures = |finding: Finding| {
        finding
            .with("buffered_p50_us", buffered.half.as_micros() as u64)
            .with("buffered_p99_us", buffered.most.as_micros() as u64)
            .with("direct_p50_us", direct.half.as_micros() as u64)
            .with("direct_p99_us", direct.most.as_micros() as u64)
            .with("writes", count)
    };
    let fastest = buffered.half.min(direct.half);
    let turns = device.is_some_and(|device| device.rotational);
    let mut findings = vec![figures(if mount.is_some_and(|mount| mount.volatile()) {
        Finding::fine("sync", what)
    } else if fastest < IMPOSSIBLE {
        let advice =
            "something swallows syncs: look for eatmydata in LD_PRELOAD, or a host that caches writes unsafely";
        Finding::bad("sync", format!("{what}: no device answers that fast"), advice)
    } else if turns && fastest < TURNING {
        let advice = "its write cache must survive a power cut (battery), or be switched off: hdparm -W0";
        Finding::warning("sync", format!("{what}: a disk that turns answers from its cache"), advice)
    } else if fastest < SUSPICIOUS {
        let advice = "fine if the device's cache survives a power cut; a virtual disk may cache unsafely on its host";
        Finding::warning("sync", format!("{what}: faster than flash"), advice)
    } else if direct.half > SLOW {
        Finding::warning(
            "sync",
            what,
            "one writer gets as many acknowledgements per second as syncs fit in; use a faster disk",
        )
    } else {
        Finding::fine("sync", what)
    })];
    if let (Some(before), Some(after)) = (before, after) {
        let reached = after.saturating_sub(before);
        findings.push(if reached * 2 < count {
            let what = format!("{count} durable writes became {reached} writes of the device");
            Finding::bad("sync-reached", what, "syncs do not reach the device: see above, or the host's cache settings")
        } else {
            Finding::fine("sync-reached", format!("{count} durable writes, {reached} writes and flushes at the device"))
        });
    }
    findings
}

/// Median and nearly the slowest.
struct Spread {
    half: Duration,
    most: Duration,
}

impl Spread {
    fn of(times: &[Duration]) -> Self {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        let at = |percent: usize| sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)));
        Self { half: at(50).copied().unwrap_or_default(), most: at(99).copied().unwrap_or_default() }
    }
}

fn micros(time: Duration) -> String {
    match time.as_micros() {
        few @ 0..10_000 => format!("{few} µs"),
        many => format!("{:.1} ms", many as f64 / 1000.0),
    }
}

/// What the kernel knows of a block device.
struct Device {
    /// Its directory in sysfs.
    sysfs: PathBuf,
    /// It turns.
    rotational: bool,
    /// It keeps writes in memory until it is told to flush.
    is_volatile: Option<bool>,
}

impl Device {
    /// `None` where the file system has no device of its own, or sysfs does not know it.
    fn of(place: &Path) -> Option<Self> {
        let number = std::fs::metadata(place).ok()?.dev();
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        let sysfs = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        // A partition has no queue of its own; its disk has, one directory up.
        let real = sysfs.canonicalize().ok()?;
        let queue = [sysfs.join("queue"), real.parent()?.join("queue")];
        let queue = queue.iter().find(|queue| queue.is_dir())?;
        let read = |name: &str| std::fs::read_to_string(queue.join(name)).ok();
        let is_volatile = read("write_cache").map(|cache| cache.trim() == "write back");
        // A virtual disk says that it turns when nobody told it otherwise.
        let is_virtual = real.to_string_lossy().contains("/virtio");
        let rotational = !is_virtual && read("rotational").is_some_and(|text| text.trim() == "1");
        Some(Self { sysfs, rotational, is_volatile })
    }

    /// Writes and flushes it has completed. Source: the kernel's `Documentation/block/stat.rst`.
    fn writes(&self) -> Option<u64> {
        let stat = std::fs::read_to_string(self.sysfs.join("stat")).ok()?;
        let field = |at: usize| stat.split_ascii_whitespace().nth(at).and_then(|text| text.parse::<u64>().ok());
        Some(field(4)? + field(15).unwrap_or(0))
    }

    fn judge(&self, mount: Option<&Mount>) -> Option<Finding> {
        Some(match self.is_volatile? {
            true if mount.is_some_and(Mount::has_no_barriers) => {
                let what = "the device caches writes in memory, and the file system does not flush it";
                Finding::bad("write-cache", what, "mount without nobarrier or barrier=0")
            }
            true => Finding::fine("write-cache", "the device has a volatile cache; every sync flushes it"),
            false => Finding::fine("write-cache", "the device says that what it took is safe (write through)"),
        })
    }
}

/// How a file system is mounted.
#[derive(Debug)]
struct Mount {
    kind: String,
    point: String,
    options: Vec<String>,
}

impl Mount {
    fn of(place: &Path) -> Option<Self> {
        let place = place.canonicalize().ok()?;
        Self::find(&std::fs::read_to_string("/proc/self/mountinfo").ok()?, &place)
    }

    /// The innermost mount that holds `place`; of several at one point the last, which hides the others. Source:
    /// `proc_pid_mountinfo(5)`.
    fn find(mountinfo: &str, place: &Path) -> Option<Self> {
        let mut best: Option<Self> = None;
        for line in mountinfo.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let (fields, last): (Vec<_>, Vec<_>) = (before.split(' ').collect(), after.split(' ').collect());
            let (Some(point), Some(own), Some(kind)) = (fields.get(4), fields.get(5), last.first()) else { continue };
            // Spaces and the like stand as octal numbers.
            let point = point.replace("\\040", " ");
            let inner = best.as_ref().is_none_or(|best| point.len() >= best.point.len());
            if place.starts_with(&point) && inner {
                let options = own.split(',').chain(last.get(2).unwrap_or(&"").split(',')).map(str::to_owned).collect();
                best = Some(Self { kind: (*kind).to_owned(), point, options });
            }
        }
        best
    }

    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|one| one == option)
    }

    fn has_no_barriers(&self) -> bool {
        self.has("nobarrier") || self.has("barrier=0")
    }

    /// Gone when the machine is switched off.
    fn volatile(&self) -> bool {
        matches!(self.kind.as_str(), "tmpfs" | "ramfs")
    }

    fn judge(&self) -> Finding {
        let on = format!("{} on {}", self.kind, self.point);
        match self.kind.as_str() {
            _ if self.volatile() => {
                let advice = "everything is gone when the machine stops: use a directory on a disk";
                Finding::bad("file-system", format!("{on} keeps files in memory"), advice)
            }
            _ if self.has("ro") => Finding::bad("file-system", format!("{on} is read-only"), "mount it writable"),
            _ if self.has_no_barriers() => {
                let what = format!("{on} is mounted without write barriers");
                Finding::bad(
                    "file-system",
                    what,
                    "a power cut loses acknowledged events: mount without nobarrier or barrier=0",
                )
            }
            "overlay" | "aufs" => {
                let advice = "what is written goes with the container: put the data directory on a volume";
                Finding::warning("file-system", format!("{on} is a container's own layer"), advice)
            }
            "nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "ceph" | "glusterfs" | "fuse.sshfs" | "virtiofs" => {
                let advice = "locks and syncs are as good as that server's; use a local disk if you can";
                Finding::warning("file-system", format!("{on} is somebody else's disk"), advice)
            }
            kind if kind.starts_with("fuse") => {
                let advice =
                    "whether a sync reaches a disk is up to the program behind it; use a local disk if you can";
                Finding::warning("file-system", format!("{on} is a program's file system"), advice)
            }
            _ if self.has("discard") => {
                let advice = "removing files makes some devices slow; mount without discard and run fstrim weekly";
                Finding::warning("file-system", format!("{on} discards at once"), advice)
            }
            _ => Finding::fine("file-system", on),
        }
        .with("kind", self.kind.clone())
        .with("options", self.options.join(","))
    }
}

fn room(place: &Path) -> Vec<Finding> {
    let Ok(room) = rustix::fs::statvfs(place) else { return Vec::new() };
    let (free, total) = (room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize);
    let percent = (free * 100).checked_div(total).unwrap_or(0);
    let what = format!("{} of {} are free ({percent} %)", size(free), size(total));
    let finding = if free < ROOM_LEAST_BYTES {
        Finding::bad(
            "free-space",
            what,
            "the journal alone needs 256 MiB; writes wait while the disk is full: make room",
        )
    } else if free < ROOM_WANTED_BYTES || percent < ROOM_WANTED_PERCENT {
        Finding::warning("free-space", what, "writes wait while the disk is full: make room, or set retention")
    } else {
        Finding::fine("free-space", what)
    };
    let mut findings = vec![finding.with("free_bytes", free).with("total_bytes", total)];
    // A file system without a fixed number of files says 0.
    if room.f_files > 0 {
        let what = format!("{} more files can be made", room.f_favail);
        let advice = "chunks and runs are files: make room, or a file system with more inodes";
        let finding = if room.f_favail < INODES_WANTED {
            Finding::warning("free-inodes", what, advice)
        } else {
            Finding::fine("free-inodes", what)
        };
        findings.push(finding.with("free_inodes", room.f_favail));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;

    const MOUNTS: &str = "\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
23 22 0:20 / /run rw shared:1 - tmpfs tmpfs rw,size=1k
24 22 8:1 / /data\\040disk rw,noatime - xfs /dev/sda1 rw,nobarrier
25 22 0:99 / /srv rw - nfs4 host:/srv rw
26 22 0:98 / /c rw - overlay overlay rw
27 22 8:2 / /good rw - ext4 /dev/sdb rw
";

    #[test]
    fn how_a_file_system_is_mounted_decides() {
        for (place, severity, word) in [
            ("/home/x", Severity::Warning, "discard"),
            ("/run/x", Severity::Bad, "memory"),
            ("/data disk/x", Severity::Bad, "barriers"),
            ("/srv", Severity::Warning, "somebody else"),
            ("/c/d", Severity::Warning, "container"),
            ("/good/x", Severity::Fine, "ext4"),
        ] {
            let finding = Mount::find(MOUNTS, Path::new(place)).unwrap().judge();
            assert!(finding.severity == severity && finding.what.contains(word), "{place}: {finding:?}");
            assert_eq!(finding.advice.is_empty(), severity == Severity::Fine, "{finding:?}");
        }
    }

    #[test]
    fn a_directory_that_is_not_there_is_judged_by_where_it_would_be() {
        let directory = tempfile::tempdir().unwrap();
        let findings = look(&directory.path().join("a/b/c"));
        assert!(findings.iter().any(|finding| finding.code == "sync" && !finding.figures.is_empty()), "{findings:?}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let missing = look(Path::new("/proc/headwater-nothing"));
        assert!(missing.iter().any(|finding| finding.severity == Severity::Bad), "{missing:?}");
    }
}
