//! A server that is running when its disk fails: it ends at once with 74 and names the file, and after the next start
//! everything that it acknowledged is there (P13).
//!
//! The disk is sound. strace takes the server's calls from it, which is why the machine must let one process trace another.

use super::IO_OR_INTEGRITY;
use crate::raw::Raw;
use crate::server::Launch;
use crate::suites::ceiling::Writer;
use crate::suites::full::read;
use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

const SEGMENT: &str = "disk/stream/0.#epoch.0";
const EVENT_BYTES: usize = 5_000;
/// Acknowledged before the disk fails.
const EVENTS: u64 = 300;
/// At once, for a machine that is busy. The witness is rewritten every second.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// How the disk fails, and what must come of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failing {
    /// A sentence.
    pub(super) what: &'static str,
    /// System calls that fail from one moment on.
    calls: &'static str,
    /// How, for strace.
    error: &'static str,
    /// How, for a person.
    says: &'static str,
    /// A journal that needs none of these calls goes on until something else does.
    may_acknowledge: bool,
}

const EVERY_CHANGE: &str = "pwrite64,pwritev2,fsync,fdatasync";

pub(super) const FAILING: [Failing; 3] = [
    Failing {
        what: "writes and syncs fail with EIO",
        calls: EVERY_CHANGE,
        error: "EIO",
        says: "Input/output error",
        may_acknowledge: false,
    },
    Failing {
        what: "syncs alone fail with EIO",
        calls: "fsync,fdatasync",
        error: "EIO",
        says: "Input/output error",
        may_acknowledge: true,
    },
    Failing {
        what: "the file system can only be read any more",
        calls: EVERY_CHANGE,
        error: "EROFS",
        says: "Read-only file system",
        may_acknowledge: false,
    },
];

pub(super) fn check(launch: &Launch, failing: Failing) -> Result<String> {
    let server = launch.start()?;
    let mut writer = Writer::open(&server.ready.segment_store, 1, SEGMENT)?;
    for number in 0..EVENTS {
        writer.append(&event(number))?;
    }
    let tracer = Tracer::attach(server.ready.pid, failing, &launch.data.with_extension("strace"))?;
    let failed = Instant::now();
    let mut acknowledged = EVENTS;
    while writer.send(&event(acknowledged)).is_ok() && writer.is_acknowledged_within(ENDS_WITHIN)? {
        acknowledged += 1;
        ensure!(failed.elapsed() < ENDS_WITHIN, "it still acknowledges after {ENDS_WITHIN:?}");
    }
    let status = server.ends_by_itself(ENDS_WITHIN)?;
    let ended = failed.elapsed();
    drop(tracer);
    let log = std::fs::read_to_string(&launch.log).context("read the server's log")?;
    ensure!(status.code() == Some(IO_OR_INTEGRITY), "it ended with {status}\n{log}");
    let more = acknowledged - EVENTS;
    ensure!(more == 0 || failing.may_acknowledge, "{more} events were acknowledged by a disk that takes none");
    let names_a_file = |line: &str| {
        let mut words = line.split(|c: char| c.is_whitespace() || "\"=:".contains(c));
        words.any(|word| !word.is_empty() && launch.data.join(word).is_file())
    };
    ensure!(
        log.lines().any(|line| line.contains(failing.says) && names_a_file(line)),
        "no line names a file of {} and says {:?}:\n{log}",
        launch.data.display(),
        failing.says
    );

    let server = launch.start().context("start again on a disk that does not fail")?;
    // Behind what is there; the event that had no answer may be, or not.
    let mut writer = Writer::open(&server.ready.segment_store, 2, SEGMENT)?;
    let last = event(u64::MAX);
    writer.append(&last)?;
    let mut reader = Raw::hello(&server.ready.segment_store)?;
    let mut read = |number: u64| {
        let at = |number: u64| number * EVENT_BYTES as u64;
        read(&mut reader, SEGMENT, at(number)..at(number + 1))
    };
    for number in 0..acknowledged {
        ensure!(read(number)? == event(number), "event {number} was acknowledged and is lost or changed");
    }
    let next = read(acknowledged)?;
    ensure!(
        next == last || next == event(acknowledged) && read(acknowledged + 1)? == last,
        "behind {acknowledged} acknowledged events stands what nobody wrote there"
    );
    server.stop()?;
    Ok(format!("ended after {} ms, {more} more events acknowledged until then", ended.as_millis()))
}

fn event(number: u64) -> Vec<u8> {
    let mut event = vec![number as u8; EVENT_BYTES];
    event[..8].copy_from_slice(&number.to_be_bytes());
    event
}

/// strace on a server, taken away when dropped.
struct Tracer {
    strace: Child,
    /// Kept open: strace ends if nobody takes what it says.
    said: BufReader<ChildStderr>,
}

impl Tracer {
    /// Returns when all threads of the process are traced: from then on the calls fail.
    fn attach(pid: u32, failing: Failing, trace: &Path) -> Result<Self> {
        let Failing { calls, error, .. } = failing;
        let mut command = Command::new("strace");
        command.args(["-f", "-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:error={error}")]);
        command.arg("-o").arg(trace).args(["-p", &pid.to_string()]);
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut strace = command.spawn().context("start strace (Debian has it in a package of that name)")?;
        let said = BufReader::new(strace.stderr.take().context("what strace says")?);
        let mut tracer = Self { strace, said };
        let mut line = String::new();
        tracer.said.read_line(&mut line).context("read what strace says")?;
        if !line.contains("attached") {
            bail!("strace may not trace the server: {}", line.trim());
        }
        Ok(tracer)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}
