//! Where a run took place: what a reader needs to judge its figures.

use std::path::Path;

use serde::Serialize;

/// One machine, at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Version of this program.
    pub version: &'static str,
    /// Kernel release.
    pub kernel: String,
    /// Model of the processor.
    pub processor: String,
    /// Processors we may use.
    pub processors: usize,
    /// Memory of the machine, in bytes.
    pub memory_bytes: u64,
    /// File system below the measured directory, with its options.
    pub file_system: String,
    /// Load average of the last minute when the run began. Above about 0.5 someone else was at work.
    pub load_average: f64,
    /// Processor time the hypervisor gave to others since the machine started, in hundredths.
    pub steal_percent: f64,
}

impl Machine {
    /// Looks at the machine below `directory`; what cannot be found out is empty or zero.
    pub fn look(directory: &Path) -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map_or(String::new(), |(_, value)| value.trim().to_owned())
        };
        let memory = read("/proc/meminfo");
        let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB"));
        Self {
            version: env!("CARGO_PKG_VERSION"),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: field("model name"),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: memory.and_then(|kib| kib.trim().parse::<u64>().ok()).map_or(0, |kib| kib * 1024),
            file_system: file_system(&read("/proc/self/mountinfo"), directory),
            load_average: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
            steal_percent: steal_percent(&read("/proc/stat")).unwrap_or(0.0),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { version, kernel, processor, processors, memory_bytes, file_system, load_average, steal_percent } =
            self;
        writeln!(f, "headwater {version}, Linux {kernel}, {processors} × {processor}, {} GiB", memory_bytes >> 30)?;
        write!(f, "{file_system}, load {load_average:.2}, steal {steal_percent:.2} %")
    }
}

/// Type and options of the mount that `directory` is on: the one with the longest mount point above it.
fn file_system(mountinfo: &str, directory: &Path) -> String {
    let directory = std::fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    let mut best = (0, String::new());
    for line in mountinfo.lines() {
        // id parent device root mount-point options tags... - type source super-options
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let mut before = before.split(' ').skip(4);
        let (Some(point), Some(options)) = (before.next(), before.next()) else { continue };
        let mut after = after.split(' ');
        let (Some(kind), _, Some(more)) = (after.next(), after.next(), after.next()) else { continue };
        if directory.starts_with(point) && point.len() >= best.0 {
            best = (point.len(), format!("{kind} ({options}; {more})"));
        }
    }
    best.1
}

fn steal_percent(stat: &str) -> Option<f64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|ticks| ticks.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guest time is part of user time.
    let all: u64 = ticks.iter().take(8).sum();
    (all > 0).then(|| *ticks.get(7).unwrap_or(&0) as f64 * 100.0 / all as f64)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_is_the_one_mounted_nearest() {
        let mounts = "1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,discard\n\
                      2 1 0:5 / /tmp rw - tmpfs tmpfs rw,size=1g\n";
        assert_eq!(file_system(mounts, Path::new("/nowhere/at/all")), "ext4 (rw,relatime; rw,discard)");
        assert_eq!(file_system(mounts, Path::new("/tmp/nowhere")), "tmpfs (rw; rw,size=1g)");
    }

    #[test]
    fn steal_is_the_eighth_figure_of_all_processors() {
        assert_eq!(steal_percent("cpu  10 0 10 60 0 0 0 20 5 0\ncpu0 1 1\n"), Some(20.0));
        assert_eq!(steal_percent(""), None);
    }
}
