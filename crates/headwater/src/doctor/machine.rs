//! What is not the disk: open files, memory, ports, clocks.
#![allow(clippy::disallowed_methods, reason = "compares the machine's own clocks; nothing of the store runs here")]

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Resource;

use super::Finding;
use crate::check::size;
use crate::memory;
use crate::settings::Settings;

/// Fewer open files than this bound the connections to a few hundred.
const FILES_LEAST: u64 = 512;
/// As many as connections are allowed, and files beside them.
const FILES_WANTED: u64 = 65_536 + 1_024;
/// A machine needs a little for itself.
const MEMORY_SHARE_PERCENT: u64 = 80;
/// The wall clock may be stepped while we look; by more than this it is not only being slewed.
const DRIFT_MAX: Duration = Duration::from_millis(100);
/// Years that can be true: nothing of this project is older, and no machine of today lives longer.
const YEARS: std::ops::RangeInclusive<u64> = 2025..=2100;

pub(super) fn look(settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![files(), memory_limit(settings.memory_bytes, memory::limits())];
    for (listener, address) in
        [("controller", settings.controller), ("segment-store", settings.segment_store), ("http", settings.http)]
    {
        findings.push(port(listener, address));
    }
    findings
}

fn files() -> Finding {
    // The server raises its own limit to this one.
    let most = rustix::process::getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let what = match most {
        u64::MAX => "as many files as wanted can be open".to_owned(),
        most => format!("{most} files can be open at a time"),
    };
    let advice = "each connection is one: raise the limit (LimitNOFILE=1048576 in systemd, ulimit -Hn)";
    match most {
        0..FILES_LEAST => Finding::bad("open-files", what, advice),
        FILES_LEAST..FILES_WANTED => Finding::warning("open-files", what, advice),
        _ => Finding::fine("open-files", what),
    }
    .with("open_files_max", most)
}

fn memory_limit(budget: u64, limits: memory::Limits) -> Finding {
    let there = limits.cgroup.into_iter().chain(limits.machine).min();
    let Some(there) = there else {
        let what = format!("serve would use {}; how much there is cannot be found out", size(budget));
        return Finding::warning("memory", what, "say --memory-limit if that is too much");
    };
    let from = if limits.cgroup == Some(there) { "the cgroup's limit is" } else { "the machine has" };
    let what = format!("serve would use {}, {from} {}", size(budget), size(there));
    let finding = if budget > there {
        Finding::bad("memory", what, "the kernel would end the server: lower --memory-limit or raise the limit")
    } else if budget > there / 100 * MEMORY_SHARE_PERCENT {
        let advice = "sockets and the page cache need some, too: leave a fifth (--memory-limit)";
        Finding::warning("memory", what, advice)
    } else {
        Finding::fine("memory", what)
    };
    finding.with("budget_bytes", budget).with("available_bytes", there)
}

fn port(listener: &str, address: SocketAddr) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::fine("port", format!("{listener} can listen on {address}")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let what = format!("{listener}: {address} is taken");
            Finding::warning("port", what, "fine if Headwater runs already; else end what has it, or choose another")
        }
        Err(error) => {
            let what = format!("{listener} cannot listen on {address}: {error}");
            Finding::bad("port", what, format!("choose another address with --{listener}"))
        }
    }
}

/// Both clocks at one moment.
pub(super) struct Clocks {
    wall: SystemTime,
    steady: Instant,
}

impl Clocks {
    pub(super) fn now() -> Self {
        Self { wall: SystemTime::now(), steady: Instant::now() }
    }

    pub(super) fn judge(&self) -> Finding {
        let now = Self::now();
        let steady = now.steady.duration_since(self.steady);
        judge_clocks(self.wall, now.wall, steady)
    }
}

fn judge_clocks(before: SystemTime, after: SystemTime, steady: Duration) -> Finding {
    let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let drift = since(after).abs_diff(since(before) + steady);
    let year = 1970 + since(after).as_secs() / 31_556_952;
    let what = format!("it is {year}; {} ms between both clocks in {:.1} s", drift.as_millis(), steady.as_secs_f64());
    let advice = "tokens, certificates, times shown and the age of data after a restart depend on it: run a time service (chrony)";
    let finding = if YEARS.contains(&year) && drift <= DRIFT_MAX {
        Finding::fine("clock", what)
    } else {
        Finding::warning("clock", what, advice)
    };
    finding.with("drift_ms", drift.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;

    #[test]
    fn more_memory_than_there_is_is_bad_and_most_of_it_a_warning() {
        let gib = 1 << 30;
        for (budget, cgroup, machine, severity) in [
            (gib, None, Some(8 * gib), Severity::Fine),
            (gib, Some(gib), Some(8 * gib), Severity::Warning),
            (2 * gib, Some(gib), Some(8 * gib), Severity::Bad),
            (9 * gib, None, Some(8 * gib), Severity::Bad),
            (gib, None, None, Severity::Warning),
        ] {
            let finding = memory_limit(budget, memory::Limits { cgroup, machine });
            assert_eq!(finding.severity, severity, "{finding:?}");
        }
    }

    #[test]
    fn a_clock_that_jumps_or_is_in_another_century_is_pointed_out() {
        let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
        let day = 20_500 * 86_400;
        let second = Duration::from_secs(1);
        assert_eq!(judge_clocks(at(day), at(day + 1), second).severity, Severity::Fine);
        assert_eq!(judge_clocks(at(day), at(day + 9), second).severity, Severity::Warning);
        assert_eq!(judge_clocks(at(day), at(day - 9), second).severity, Severity::Warning);
        assert_eq!(judge_clocks(at(10), at(11), second).severity, Severity::Warning);
    }

    #[test]
    fn a_taken_port_is_named() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = holder.local_addr().unwrap();
        let finding = port("http", taken);
        assert!(finding.severity == Severity::Warning && finding.what.contains(&taken.to_string()), "{finding:?}");
        assert_eq!(port("http", "192.0.2.1:1".parse().unwrap()).severity, Severity::Bad);
    }
}
