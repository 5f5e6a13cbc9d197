//! The server under test: the real release binary as a child process.
//!
//! * it is ready when it says so on its standard output, and not before
//! * its standard error goes to a file, so that a full pipe never stops it
//! * it ends with its owner: dropping a [`Server`] kills it

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// A start that takes longer has failed. Recovery of what the suites write takes seconds at most.
pub const READY_WITHIN: Duration = Duration::from_secs(60);
/// The server's promise for a graceful stop.
pub const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Addresses to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// gRPC.
    pub controller: SocketAddr,
    /// Wire protocol.
    pub segment_store: SocketAddr,
    /// Health, metrics.
    pub http: SocketAddr,
}

impl Addresses {
    /// Lets the server take any free ports.
    pub fn any() -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { controller: any, segment_store: any, http: any }
    }

    /// Ports that are free now, for servers that must come back on the same ones.
    ///
    /// # Errors
    /// When the machine has none left.
    pub fn free() -> Result<Self> {
        // All three are held until all are known, so that they differ.
        let held: Vec<TcpListener> =
            (0..3).map(|_| TcpListener::bind("127.0.0.1:0").context("find a free port")).collect::<Result<_>>()?;
        let address = |i: usize| held[i].local_addr().context("find a free port");
        Ok(Self { controller: address(0)?, segment_store: address(1)?, http: address(2)? })
    }
}

/// How to start a server.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The binary.
    pub binary: PathBuf,
    /// Its data directory.
    pub data: PathBuf,
    /// Where its standard error goes; appended to.
    pub log: PathBuf,
    /// Where it listens.
    pub addresses: Addresses,
    /// More arguments after `serve` and the above.
    pub extra: Vec<String>,
    /// More environment variables.
    pub environment: Vec<(String, String)>,
}

impl Launch {
    /// A server in `scratch`, on any free ports.
    pub fn new(binary: PathBuf, scratch: &Path) -> Self {
        Self {
            binary,
            data: scratch.join("data"),
            log: scratch.join("server.log"),
            addresses: Addresses::any(),
            extra: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// The command line, for a start or for a person who wants to repeat it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("serve").arg("--data-dir").arg(&self.data);
        command.arg("--controller").arg(self.addresses.controller.to_string());
        command.arg("--segment-store").arg(self.addresses.segment_store.to_string());
        command.arg("--http").arg(self.addresses.http.to_string());
        command.args(&self.extra);
        // Nothing of the person's own settings may reach the server under test.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HEADWATER_") {
                command.env_remove(name);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    /// Starts it and returns at once, without waiting for it to be ready.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn spawn(&self) -> Result<Starting> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log).context("open the server's log")?;
        let mut command = self.command();
        let started = Instant::now();
        let mut child =
            command.stdout(Stdio::piped()).stderr(log).spawn().with_context(|| format!("start {command:?}"))?;
        let stdout = child.stdout.take().context("the server's standard output")?;
        let (lines, received) = channel();
        std::thread::spawn(move || {
            // Reads on to the end even if nobody listens any more: a full pipe would stop the server.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = lines.send((Instant::now(), line));
            }
        });
        Ok(Starting { process: Process(child), lines: received, started, log: self.log.clone() })
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it ends or is not ready within [`READY_WITHIN`]; the end of its log is part of the message.
    pub fn start(&self) -> Result<Server> {
        self.spawn()?.ready()
    }
}

/// A child that is killed when its owner goes away.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server that was started and is perhaps not ready yet.
#[derive(Debug)]
pub struct Starting {
    process: Process,
    lines: Receiver<(Instant, String)>,
    started: Instant,
    log: PathBuf,
}

impl Starting {
    /// Waits until it is ready.
    ///
    /// # Errors
    /// As [`Launch::start`].
    pub fn ready(self) -> Result<Server> {
        let Self { mut process, lines, started, log } = self;
        let mut banner = Vec::new();
        loop {
            let rest = READY_WITHIN.saturating_sub(started.elapsed());
            match lines.recv_timeout(rest) {
                Ok((at, line)) => match Ready::parse(&line) {
                    Some(ready) => {
                        let ready = ready?;
                        ensure!(
                            ready.pid == process.0.id(),
                            "the ready line says pid {}, the process is {}",
                            ready.pid,
                            process.0.id()
                        );
                        return Ok(Server { process, ready, ready_after: at.duration_since(started), banner, log });
                    }
                    None => banner.push(line),
                },
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the server was not ready within {READY_WITHIN:?}\n{}", tail(&log))
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = process.0.wait().context("wait for the server")?;
                    bail!("the server ended before it was ready, {status}\n{}", tail(&log))
                }
            }
        }
    }

    /// Kills it (SIGKILL) wherever it is.
    pub fn kill(self) {
        drop(self.process);
    }
}

/// What the ready line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// gRPC, as given to clients.
    pub controller: String,
    /// Wire protocol.
    pub segment_store: String,
    /// Health, metrics.
    pub http: String,
    /// The data directory.
    pub data: String,
    /// The server's process.
    pub pid: u32,
}

impl Ready {
    /// `None` for any other line; an error for a ready line that lacks something.
    fn parse(line: &str) -> Option<Result<Self>> {
        let fields = line.strip_prefix("ready ")?;
        let field = |name: &str| {
            fields
                .split(' ')
                .find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
                .map(str::to_owned)
                .with_context(|| format!("no {name}= in the line {line:?}"))
        };
        Some((|| {
            Ok(Self {
                controller: field("controller")?,
                segment_store: field("segment-store")?,
                http: field("http")?,
                data: field("data")?,
                pid: field("pid")?.parse().context("pid")?,
            })
        })())
    }
}

/// A server that is ready.
#[derive(Debug)]
pub struct Server {
    process: Process,
    /// What it said when it became ready.
    pub ready: Ready,
    /// From the start of the process to the ready line.
    pub ready_after: Duration,
    /// Lines before the ready line.
    pub banner: Vec<String>,
    log: PathBuf,
}

impl Server {
    /// Ends it with SIGKILL: no goodbye, as a crash.
    ///
    /// # Errors
    /// When it had already ended: then something else killed it.
    pub fn kill(mut self) -> Result<()> {
        if let Some(status) = self.process.0.try_wait().context("look at the server")? {
            bail!("the server had ended by itself, {status}\n{}", self.log_tail());
        }
        self.process.0.kill().context("kill the server")?;
        self.process.0.wait().context("wait for the server")?;
        Ok(())
    }

    /// Asks it to stop (SIGTERM) and expects a graceful end.
    ///
    /// # Errors
    /// When it takes longer than [`STOP_WITHIN`] or does not end with status 0.
    pub fn stop(self) -> Result<Duration> {
        self.end_by(Signal::TERM)
    }

    /// Asks it to stop by `signal` and expects a graceful end.
    ///
    /// # Errors
    /// As [`stop`](Self::stop).
    pub fn end_by(mut self, signal: Signal) -> Result<Duration> {
        let started = Instant::now();
        self.signal(signal)?;
        let status = wait(&mut self.process.0, STOP_WITHIN)?.with_context(|| {
            format!("the server did not stop within {STOP_WITHIN:?} of {signal:?}\n{}", self.log_tail())
        })?;
        ensure!(status.success(), "the server stopped with {status} after {signal:?}\n{}", self.log_tail());
        Ok(started.elapsed())
    }

    /// Waits until it ends without being asked.
    ///
    /// # Errors
    /// When it has not after `limit`.
    pub fn ends_by_itself(mut self, limit: Duration) -> Result<ExitStatus> {
        let status = wait(&mut self.process.0, limit)?;
        status.with_context(|| format!("the server goes on after {limit:?}\n{}", self.log_tail()))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it had already ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.process.0.try_wait().context("look at the server")? {
            bail!("the server had ended by itself, {status}\n{}", self.log_tail());
        }
        let pid = Pid::from_child(&self.process.0);
        kill_process(pid, signal).context("send a signal to the server")
    }

    /// Still running?
    ///
    /// # Errors
    /// When it ended; the end of its log is part of the message.
    pub fn alive(&mut self) -> Result<()> {
        match self.process.0.try_wait().context("look at the server")? {
            None => Ok(()),
            Some(status) => bail!("the server ended by itself, {status}\n{}", self.log_tail()),
        }
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn resident_bytes(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.process.0.id());
        let status = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS")?;
        Ok(kibibytes * 1024)
    }

    /// Status code of `GET path` on the HTTP port, and the body.
    ///
    /// # Errors
    /// When the port does not answer HTTP.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        let mut connection = TcpStream::connect(&self.ready.http).context("connect to the HTTP port")?;
        connection.set_read_timeout(Some(Duration::from_secs(10))).context("set a time limit")?;
        write!(connection, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").context("GET")?;
        let mut reply = String::new();
        connection.read_to_string(&mut reply).with_context(|| format!("GET {path}"))?;
        let (head, body) = reply.split_once("\r\n\r\n").with_context(|| format!("GET {path} answered {reply:?}"))?;
        let code = head.split(' ').nth(1).context("no status code")?.parse().context("status code")?;
        Ok((code, body.to_owned()))
    }

    /// The end of what it wrote to standard error.
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }
}

/// Waits for a child, at most `limit`.
///
/// # Errors
/// When the system does not tell.
pub fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("wait for a child process")? {
            return Ok(Some(status));
        }
        if started.elapsed() >= limit {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The last lines of a log, for an error message.
pub fn tail(path: &Path) -> String {
    const LINES: usize = 25;
    let mut text = String::new();
    if File::open(path).and_then(|mut file| file.read_to_string(&mut text)).is_err() {
        return "(no log)".to_owned();
    }
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LINES);
    lines[from..].iter().map(|line| format!("  server: {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_names_its_addresses_its_directory_and_its_process() {
        let line = "ready controller=127.0.0.1:1 segment-store=127.0.0.1:2 http=127.0.0.1:3 data=/var/lib/x pid=77";
        let ready = Ready::parse(line).expect("a ready line").expect("nothing lacks");
        assert_eq!((ready.controller.as_str(), ready.segment_store.as_str()), ("127.0.0.1:1", "127.0.0.1:2"));
        assert_eq!((ready.http.as_str(), ready.data.as_str(), ready.pid), ("127.0.0.1:3", "/var/lib/x", 77));
    }

    #[test]
    fn a_ready_line_without_a_port_is_an_error_and_another_line_is_none() {
        assert!(Ready::parse("ready controller=127.0.0.1:1 pid=7").expect("a ready line").is_err());
        assert!(Ready::parse("already here").is_none());
    }
}
