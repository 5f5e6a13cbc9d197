//! A genuine client at work: a child process that prints one JSON object per line.

use crate::prepare::{PYTHON_CLIENT, Places};
use crate::server::wait;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a child writes to standard error is kept up to here; a client in distress repeats itself.
const STDERR_BYTES_MAX: u64 = 64 * 1024;

/// What the page of compatibility calls the Java client, which drives itself.
pub const JAVA_CLIENT: &str = "Java artifact `io.pravega:pravega-client`";

/// Which genuine client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// The published crate.
    Rust,
    /// The published wheel.
    Python,
}

impl Client {
    /// What the crate is called.
    pub const RUST: &str = "Rust crate `pravega-client`";
    /// What the wheel is called.
    pub const PYTHON: &str = "Python wheel `pravega`";

    /// What it is called, its package included.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rust => Self::RUST,
            Self::Python => Self::PYTHON,
        }
    }

    /// In names of cases and scopes.
    pub fn short_name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Python => "python",
        }
    }

    /// Which one is driven.
    ///
    /// # Errors
    /// When the file that fixes it does not say.
    pub fn version(self, places: &Places) -> Result<String> {
        match self {
            Self::Python => {
                Ok(PYTHON_CLIENT.split_once("==").context("the wheel's requirement names a version")?.1.to_owned())
            }
            Self::Rust => {
                let path = places.genuine_rust_lock();
                let lock = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
                let (_, entry) =
                    lock.split_once("name = \"pravega-client\"\nversion = \"").context("no crate locked")?;
                Ok(entry.split('"').next().context("no version locked")?.to_owned())
            }
        }
    }

    /// The command line of one of its drivers against the server at `controller`.
    pub fn command(self, places: &Places, controller: &str, name: &str, arguments: &[&str]) -> Command {
        let mut command = match self {
            Self::Rust => Command::new(places.genuine_rust()),
            Self::Python => {
                let mut command = Command::new(places.python());
                command.arg(places.python_drivers());
                // Compiled files belong below the target directory, not beside the source.
                command.env("PYTHONDONTWRITEBYTECODE", "1");
                command
            }
        };
        command.arg(name).args(["--controller", controller]).args(arguments);
        command
    }
}

/// A driver that is running. Dropping it kills it.
#[derive(Debug)]
pub struct Driver {
    child: Child,
    description: String,
    lines: Receiver<Value>,
    stderr: Option<JoinHandle<String>>,
    /// Everything it printed so far.
    pub printed: Vec<Value>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Driver {
    /// Starts it; its standard input stays open until [`finish`](Self::finish).
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(mut command: Command) -> Result<Self> {
        let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        let description = format!("{program} {}", arguments.join(" "));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {description}"))?;
        let stdout = child.stdout.take().context("a driver's standard output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The wheel mixes log lines into its output; only objects are ours.
                if let Ok(value @ Value::Object(_)) = serde_json::from_str::<Value>(&line) {
                    let _ = sender.send(value);
                }
            }
        });
        let mut stderr = child.stderr.take().context("a driver's standard error")?;
        let stderr = std::thread::spawn(move || {
            let mut kept = Vec::new();
            let _ = (&mut stderr).take(STDERR_BYTES_MAX).read_to_end(&mut kept);
            // The rest is read and dropped: a full pipe would stop the client.
            let _ = std::io::copy(&mut stderr, &mut std::io::sink());
            String::from_utf8_lossy(&kept).into_owned()
        });
        Ok(Self { child, description, lines, stderr: Some(stderr), printed: Vec::new() })
    }

    /// Runs it to its end, which must be a good one.
    ///
    /// # Errors
    /// When it fails, takes longer than `limit`, or a task inside the client panicked.
    pub fn run(command: Command, limit: Duration) -> Result<Vec<Value>> {
        Self::start(command)?.finish(limit)
    }

    /// Waits for a line for which `wanted` returns something.
    ///
    /// # Errors
    /// When the driver ends first, or after `limit`.
    pub fn wait_for<T>(&mut self, what: &str, limit: Duration, wanted: impl Fn(&Value) -> Option<T>) -> Result<T> {
        let started = Instant::now();
        loop {
            match self.lines.recv_timeout(limit.saturating_sub(started.elapsed())) {
                Ok(value) => {
                    let found = wanted(&value);
                    self.keep(value);
                    if let Some(found) = found {
                        return Ok(found);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("{}: waited {limit:?} for {what}, last line {:?}", self.description, self.printed.last())
                }
                Err(RecvTimeoutError::Disconnected) => bail!("{}", self.failure("ended")),
            }
        }
    }

    /// The highest `progress` printed so far.
    pub fn progress(&mut self) -> u64 {
        while let Ok(value) = self.lines.try_recv() {
            self.keep(value);
        }
        self.printed.iter().rev().find_map(|value| value.get("progress")?.as_u64()).unwrap_or(0)
    }

    /// Waits until it ends, well or not.
    ///
    /// # Errors
    /// When it takes longer than `limit`.
    pub fn until_it_ends(&mut self, limit: Duration) -> Result<()> {
        match wait(&mut self.child, limit)? {
            Some(_) => Ok(()),
            None => bail!("{}", self.failure(&format!("did not end within {limit:?}"))),
        }
    }

    /// Writes a line to its standard input.
    ///
    /// # Errors
    /// When it does not read any more.
    pub fn say(&mut self, line: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("its standard input is open")?;
        writeln!(stdin, "{line}").context("write to its standard input")
    }

    /// Closes its standard input: the sign to finish.
    pub fn tell_to_finish(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Ended already?
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Closes its standard input and waits for a good end. Returns everything it printed.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn finish(self, limit: Duration) -> Result<Vec<Value>> {
        self.finish_allowing_panics(limit, false)
    }

    /// As [`finish`](Self::finish), for runs in which the server is killed: the genuine client's background tasks may
    /// panic then, which is theirs to answer for; what was acknowledged is judged by the ledger all the same.
    ///
    /// # Errors
    /// As [`run`](Self::run), panics excepted.
    pub fn finish_after_crashes(self, limit: Duration) -> Result<Vec<Value>> {
        self.finish_allowing_panics(limit, true)
    }

    fn finish_allowing_panics(mut self, limit: Duration, allowed: bool) -> Result<Vec<Value>> {
        self.tell_to_finish();
        let Some(status) = wait(&mut self.child, limit)? else {
            let _ = self.child.kill();
            bail!("{}", self.failure(&format!("did not end within {limit:?}")));
        };
        while let Ok(value) = self.lines.recv_timeout(Duration::from_secs(5)) {
            self.keep(value);
        }
        if !status.success() {
            bail!("{}", self.failure(&format!("ended with {status}")));
        }
        let stderr = self.stderr();
        ensure!(allowed || !stderr.contains("panicked at"), "{}: the client panicked\n{stderr}", self.description);
        Ok(std::mem::take(&mut self.printed))
    }

    /// Progress lines replace each other; everything else is kept.
    fn keep(&mut self, value: Value) {
        let is_progress = |value: &Value| value.get("progress").is_some();
        if is_progress(&value) && self.printed.last().is_some_and(is_progress) {
            self.printed.pop();
        }
        self.printed.push(value);
    }

    fn stderr(&mut self) -> String {
        self.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }

    fn failure(&mut self, what: &str) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let stderr = self.stderr();
        let held: Vec<&str> = self.printed.iter().filter_map(|value| value.get("check")?.as_str()).collect();
        format!("{} {what}; checks that held before: {held:?}\n{}", self.description, stderr.trim_end())
    }
}

/// A number that a driver printed under `name`.
///
/// # Errors
/// When it printed none.
pub fn number(printed: &[Value], name: &str) -> Result<f64> {
    printed
        .iter()
        .rev()
        .find_map(|value| value.get(name)?.as_f64())
        .with_context(|| format!("the driver printed no {name}"))
}
