//! One suite as a child: a process group of its own, a time limit, its output shown and counted, its end kept.

use crate::recap::Recap;
use crate::report::Counts;
use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The child that runs now, for whoever interrupts us. Suites run one after the other.
static RUNNING: Mutex<Option<Pid>> = Mutex::new(None);

/// Ends the running suite, with everything it started, when we are interrupted: a server must not outlive its test.
///
/// # Errors
/// When signals cannot be received.
pub(crate) fn end_children_when_interrupted() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("receive signals")?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            if let Some(group) = *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) {
                let _ = kill_process_group(group, Signal::KILL);
            }
            eprintln!("xtask: interrupted");
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// How a child ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its good end; otherwise why not.
    pub(crate) failure: Option<String>,
    /// Tests it said it ran.
    pub(crate) counts: Counts,
    /// What of its standard output is shown once more if it failed.
    pub(crate) recap: Vec<String>,
}

/// Runs `command` to its end, at most `limit`. Its output is shown as it comes.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn run(mut command: Command, limit: Duration) -> Result<Ended> {
    let started = Instant::now();
    let mut child = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {command:?}"))?;
    let group = Pid::from_child(&child);
    set_running(Some(group));
    let stdout = child.stdout.take().context("the child's standard output")?;
    let reader = std::thread::spawn(move || {
        let mut counts = Counts::default();
        let mut recap = Recap::default();
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            println!("{line}");
            counts.read(&line);
            recap.read(&line);
        }
        (counts, recap.finish())
    });
    let status = wait(&mut child, started, limit)?;
    // Whatever the child left behind ends with it, and closes the pipe that the reader waits for.
    let _ = kill_process_group(group, Signal::KILL);
    set_running(None);
    let (counts, recap) = reader.join().unwrap_or_default();
    let failure = match status {
        None => Some(format!("killed after {} s", limit.as_secs())),
        Some(status) if status.success() => None,
        Some(status) => Some(status.to_string()),
    };
    Ok(Ended { failure, counts, recap })
}

fn set_running(group: Option<Pid>) {
    *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = group;
}

/// `None` when the time was up; the child is killed and collected then.
fn wait(child: &mut Child, started: Instant, limit: Duration) -> Result<Option<std::process::ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait().context("wait for a child")? {
            return Ok(Some(status));
        }
        if started.elapsed() >= limit {
            let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
            let _ = child.wait();
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    // One test for all: RUNNING is one for the process.
    #[test]
    fn children_are_counted_their_end_is_kept_and_those_that_hang_are_killed_with_their_own_children() {
        let good = run(shell("echo 'test result: ok. 3 passed; 0 failed; 1 ignored;'"), Duration::from_secs(10));
        let good = good.expect("sh starts");
        assert!(good.failure.is_none());
        assert_eq!((good.counts.passed, good.counts.failed), (3, 0));

        let bad = run(shell("echo '1 passed, 2 failed'; exit 3"), Duration::from_secs(10)).expect("sh starts");
        assert!(bad.failure.is_some_and(|failure| failure.contains('3')));
        assert_eq!((bad.counts.passed, bad.counts.failed), (1, 2));
        assert_eq!(bad.recap, ["1 passed, 2 failed"]);

        let started = Instant::now();
        let hung = run(shell("sleep 60 & sleep 60"), Duration::from_millis(300)).expect("sh starts");
        assert!(hung.failure.is_some_and(|failure| failure.contains("killed")));
        assert!(started.elapsed() < Duration::from_secs(20), "the grandchild held the pipe open");
    }
}
