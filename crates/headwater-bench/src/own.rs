//! A server of our own: a child process on a data directory, for measurements that start, kill or look into it.
//!
//! It ends with its owner, and nothing of the person's own settings reaches it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{BenchError, Context};

/// A start that takes longer has failed; recovery of what is written here takes seconds at most.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// An orderly stop that takes longer has failed.
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// Of the end of the log, so much is shown when a server fails.
const LOG_BYTES: u64 = 2000;

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct OwnServer {
    child: Child,
    log: PathBuf,
    /// host:port of the segment store.
    pub(crate) segment_store: String,
    /// host:port of the controller.
    pub(crate) controller: String,
    /// host:port of the figures.
    pub(crate) http: String,
    /// From starting the process to its saying that it is ready.
    pub(crate) ready_after: Duration,
}

impl OwnServer {
    /// Starts `binary serve` on `data` with any free ports and waits until it is ready.
    pub(crate) fn start(binary: &Path, data: &Path) -> Result<Self, BenchError> {
        let mut command = Command::new(binary);
        command.arg("serve").arg("--data-dir").arg(data).args(["--log", "warn"]);
        for listener in ["--controller", "--segment-store", "--http"] {
            command.args([listener, "127.0.0.1:0"]);
        }
        Self::launch(command, &data.with_extension("log"))
    }

    /// Starts `binary bench null` on any free ports; its log goes to `log`.
    pub(crate) fn start_null(binary: &Path, log: &Path) -> Result<Self, BenchError> {
        let mut command = Command::new(binary);
        command.args(["bench", "null", "--controller", "127.0.0.1:0", "--segment-store", "127.0.0.1:0"]);
        Self::launch(command, log)
    }

    fn launch(mut command: Command, log: &Path) -> Result<Self, BenchError> {
        let output = File::options().create(true).append(true).open(log).on("create", log.display())?;
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HEADWATER_") {
                command.env_remove(name);
            }
        }
        // A settings file may lie where we are; where the data will be there is none.
        command.current_dir(log.parent().unwrap_or(Path::new("/")));
        let started = Instant::now();
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(output).spawn().on("start", "the server")?;
        let lines = BufReader::new(child.stdout.take().expect("standard output is piped")).lines();
        let (sender, received) = channel();
        thread::spawn(move || {
            // Reads on to the end, though only the first line matters: a full pipe would stop the server.
            for line in lines.map_while(Result::ok) {
                let _ = sender.send((started.elapsed(), line));
            }
        });
        let mut server = Self {
            child,
            log: log.to_owned(),
            segment_store: String::new(),
            controller: String::new(),
            http: String::new(),
            ready_after: Duration::ZERO,
        };
        match received.recv_timeout(READY_WITHIN) {
            Ok((after, line)) if line.starts_with("ready ") => {
                let field = |key: &str| {
                    let value = line.split(' ').find_map(|field| field.strip_prefix(key)?.strip_prefix('='));
                    value.unwrap_or_default().to_owned()
                };
                server.ready_after = after;
                server.segment_store = field("segment-store");
                server.controller = field("controller");
                server.http = field("http");
                Ok(server)
            }
            Ok((_, line)) => Err(server.failure(&format!("said {line:?} when it had to be ready"))),
            Err(RecvTimeoutError::Disconnected) => Err(server.failure("ended before it was ready")),
            Err(RecvTimeoutError::Timeout) => Err(server.failure("was not ready in time")),
        }
    }

    /// What it did, with the end of its log.
    fn failure(&self, what: &str) -> BenchError {
        let mut end = String::new();
        if let Ok(mut log) = File::open(&self.log) {
            let length = log.metadata().map_or(0, |data| data.len());
            let _ = log.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES)));
            let _ = log.read_to_string(&mut end);
        }
        BenchError::Server { what: format!("{what}; the end of its log:\n{end}") }
    }

    /// As if its power went: nothing is written any more, nobody is told.
    pub(crate) fn kill(mut self) -> Result<(), BenchError> {
        self.child.kill().on("kill", "the server")?;
        self.child.wait().on("wait for", "the server")?;
        Ok(())
    }

    /// In order, with a checkpoint.
    pub(crate) fn stop(mut self) -> Result<(), BenchError> {
        kill_process(self.pid(), Signal::TERM).on("stop", "the server")?;
        let asked = Instant::now();
        while asked.elapsed() < STOP_WITHIN {
            match self.child.try_wait().on("wait for", "the server")? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.failure(&format!("stopped with {status}"))),
                None => thread::sleep(Duration::from_millis(10)),
            }
        }
        Err(self.failure("did not stop in time"))
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Memory that is resident, in bytes.
    pub(crate) fn resident_bytes(&self) -> Result<u64, BenchError> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).on("read", &path)?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB"));
        let kib: Option<u64> = kib.and_then(|kib| kib.trim().parse().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| self.failure("shows no resident memory"))
    }

    /// Processor time it has used so far.
    pub(crate) fn processor_time(&self) -> Result<Duration, BenchError> {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = std::fs::read_to_string(&path).on("read", &path)?;
        let ticks = processor_ticks(&stat).ok_or_else(|| self.failure("shows no processor time"))?;
        Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// User and system time: the 14th and 15th field. The name, the 2nd, is in brackets and may contain anything.
fn processor_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(ticks()? + ticks()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "12 (a ) b) S 1 12 12 0 -1 4194560 1 2 3 4 70 8 0 0 20 0 1 0 9";
        assert_eq!(processor_ticks(stat), Some(78));
        assert_eq!(processor_ticks("12 (x) S 1"), None);
    }

    #[test]
    fn a_program_that_is_no_server_is_told_with_what_it_said() {
        let directory = tempfile::tempdir().unwrap();
        let error = OwnServer::start(Path::new("/bin/echo"), &directory.path().join("data")).unwrap_err();
        assert!(error.to_string().contains("said \"serve --data-dir"), "{error}");
        let error = OwnServer::start(Path::new("/bin/false"), &directory.path().join("data")).unwrap_err();
        assert!(error.to_string().contains("ended before it was ready"), "{error}");
    }
}
