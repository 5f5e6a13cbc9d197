//! How much memory there is to use.

use std::path::Path;

/// A share of a cgroup's limit: the rest is for what the budget does not count, such as code and socket buffers.
const OF_CGROUP: (u64, u64) = (3, 4);
/// A share of a machine that others use, too.
const OF_MACHINE: (u64, u64) = (1, 4);
/// If nothing can be found out.
const FALLBACK_BYTES: u64 = 512 << 20;
/// Least budget that is chosen without being asked for.
const LEAST_BYTES: u64 = 128 << 20;

/// Reads a size: a number of bytes, or one with a unit (KiB, MiB, GiB, or KB, MB, GB in thousands).
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err("is no size, such as 512MiB or 2GiB".into()),
    };
    let number: Option<u64> = number.parse().ok();
    number.and_then(|number| number.checked_mul(unit)).ok_or_else(|| "is no size, such as 512MiB or 2GiB".into())
}

/// What to use if nobody said: bytes, and where the figure comes from.
pub(crate) fn budget() -> (u64, &'static str) {
    let share = |bytes: u64, (part, whole): (u64, u64)| (bytes / whole * part).max(LEAST_BYTES);
    let Limits { cgroup, machine } = limits();
    match (cgroup, machine) {
        (Some(bytes), _) => (share(bytes, OF_CGROUP), "three quarters of the cgroup's limit"),
        (None, Some(bytes)) => (share(bytes, OF_MACHINE), "a quarter of the machine's memory"),
        (None, None) => (FALLBACK_BYTES, "default"),
    }
}

/// How much memory there is, in bytes, as far as it can be found out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Limit of the cgroup, if it is below what the machine has.
    pub(crate) cgroup: Option<u64>,
    /// What the machine has.
    pub(crate) machine: Option<u64>,
}

/// Looks it up.
pub(crate) fn limits() -> Limits {
    let machine = read("/proc/meminfo").and_then(|text| machine_bytes(&text));
    let cgroup = cgroup_bytes().filter(|cgroup| machine.is_none_or(|machine| *cgroup < machine));
    Limits { cgroup, machine }
}

fn machine_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The least limit of the group this process is in and the groups around it, of either version of cgroups.
fn cgroup_bytes() -> Option<u64> {
    let groups = read("/proc/self/cgroup")?;
    let mut least: Option<u64> = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next(), fields.next(), fields.next());
        let (root, file) = match controllers? {
            "" => ("/sys/fs/cgroup", "memory.max"),
            controllers if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // Inside a container the path may be one of the host; then the root is the group itself.
        for group in Path::new(path?).ancestors() {
            let group = group.strip_prefix("/").unwrap_or(group);
            let limit = read(Path::new(root).join(group).join(file)).and_then(|text| text.trim().parse::<u64>().ok());
            least = limit.map_or(least, |limit| Some(least.map_or(limit, |least| least.min(limit))));
        }
    }
    least
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("1", 1),
            ("4096B", 4096),
            ("512MiB", 512 << 20),
            ("2 GiB", 2 << 30),
            ("3KB", 3000),
            ("1GB", 1_000_000_000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5GiB", "1TiBs", "99999999999GiB", "1 mib"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_machine_says_how_much_memory_it_has() {
        assert_eq!(machine_bytes("MemTotal:       24576000 kB\nMemFree: 1 kB\n"), Some(24_576_000 * 1024));
        assert_eq!(machine_bytes("nothing"), None);
        assert!(budget().0 >= LEAST_BYTES);
    }
}
