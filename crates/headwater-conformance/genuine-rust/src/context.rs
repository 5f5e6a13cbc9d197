//! What every subcommand shares: arguments, the client, and the lines it prints.

use anyhow::{anyhow, ensure, Context as _, Result};
use pravega_client::client_factory::ClientFactoryAsync;
use pravega_client::event::reader::EventReader;
use pravega_client_shared::{
    Retention, RetentionType, ScaleType, Scaling, Scope, ScopedStream, Stream, StreamConfiguration,
};
use pravega_controller_client::ControllerClient;
use serde_json::{json, Value};
use std::future::Future;
use std::io::Write;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Longest wait for something the server should do soon. Generous: the client itself may back off ten seconds.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Command line options; every one has the form `--name VALUE`.
pub struct Arguments(pico_args::Arguments);

impl Arguments {
    pub fn new(arguments: pico_args::Arguments) -> Self {
        Self(arguments)
    }

    pub fn required<T: FromStr>(&mut self, name: &'static str) -> Result<T>
    where
        T::Err: std::fmt::Display,
    {
        self.0.value_from_str(name).map_err(|reason| anyhow!("{name}: {reason}"))
    }

    pub fn optional<T: FromStr>(&mut self, name: &'static str, default: T) -> Result<T>
    where
        T::Err: std::fmt::Display,
    {
        Ok(self.0.opt_value_from_str(name).map_err(|reason| anyhow!("{name}: {reason}"))?.unwrap_or(default))
    }

    /// Nothing may be left over: a mistyped option would silently mean its default.
    pub fn finish(self) -> Result<()> {
        let rest = self.0.finish();
        ensure!(rest.is_empty(), "unknown options {rest:?}");
        Ok(())
    }
}

/// The client and the scope it works in.
pub struct Context {
    pub factory: ClientFactoryAsync,
    pub scope: Scope,
    started: Instant,
}

impl Context {
    pub fn new(factory: ClientFactoryAsync, scope: String) -> Self {
        Self { factory, scope: Scope::from(scope), started: Instant::now() }
    }

    pub fn controller(&self) -> &dyn ControllerClient {
        self.factory.controller_client()
    }

    pub fn stream(&self, name: &str) -> ScopedStream {
        ScopedStream { scope: self.scope.clone(), stream: Stream::from(name.to_owned()) }
    }

    /// Creates the scope, which may exist.
    pub async fn create_scope(&self) -> Result<()> {
        self.controller().create_scope(&self.scope).await.map_err(|e| anyhow!("create scope: {}", e.error))?;
        Ok(())
    }

    /// Creates the scope and a stream with a fixed number of segments; says whether the stream is new.
    pub async fn create_stream(&self, name: &str, segments: i32) -> Result<(ScopedStream, bool)> {
        self.create_scope().await?;
        let stream = self.stream(name);
        let created = self
            .controller()
            .create_stream(&fixed(&stream, segments))
            .await
            .map_err(|e| anyhow!("create stream {stream}: {}", e.error))?;
        Ok((stream, created))
    }

    /// Waits until this process is as old as `--outlive SECONDS` says, if it says anything: what comes behind that meets
    /// tokens that have ended.
    pub async fn outlive(&self, arguments: &mut Arguments) -> Result<()> {
        let seconds: u64 = arguments.optional("--outlive", 0)?;
        tokio::time::sleep(Duration::from_secs(seconds).saturating_sub(self.started.elapsed())).await;
        Ok(())
    }

    /// Prints that a check held.
    pub fn held(&self, check: &str) {
        self.print(json!({ "check": check, "ms": self.started.elapsed().as_millis() as u64 }));
    }

    /// The same for one that belongs to another group of features than the rest of its command.
    pub fn held_of(&self, group: &str, check: &str) {
        let ms = self.started.elapsed().as_millis() as u64;
        self.print(json!({ "check": check, "group": group, "ms": ms }));
    }

    pub fn done(&self, command: &str) {
        self.print(json!({ "done": command, "ms": self.started.elapsed().as_millis() as u64 }));
    }

    /// One line, at once: the harness follows what is printed. A harness that went away is no reason to panic.
    pub fn print(&self, value: Value) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{value}");
        let _ = out.flush();
    }
}

/// A configuration with a fixed number of segments, no retention, no tags.
pub fn fixed(stream: &ScopedStream, segments: i32) -> StreamConfiguration {
    StreamConfiguration {
        scoped_stream: stream.clone(),
        scaling: Scaling {
            scale_type: ScaleType::FixedNumSegments,
            target_rate: 0,
            scale_factor: 0,
            min_num_segments: segments,
        },
        retention: Retention { retention_type: RetentionType::None, retention_param: 0 },
        tags: None,
    }
}

/// Waits for `future`, at most [`PATIENCE`].
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> Result<T> {
    within(PATIENCE, what, future).await
}

/// Waits for `future`, at most `limit`.
pub async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(limit, future).await.map_err(|_| anyhow!("{what}: nothing within {limit:?}"))
}

/// One event as a reader saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub segment: String,
    pub offset: i64,
    pub payload: Vec<u8>,
}

/// Takes one slice and everything in it, and gives it back. `None` when the reader found nothing within its own
/// second of waiting.
pub async fn take_slice(reader: &mut EventReader) -> Result<Option<Vec<Seen>>> {
    let slice = soon("acquire a segment slice", reader.acquire_segment())
        .await?
        .map_err(|e| anyhow!("acquire a segment slice: {e}"))?;
    let Some(mut slice) = slice else { return Ok(None) };
    let segment = slice.meta.scoped_segment.clone();
    let mut seen = Vec::new();
    for event in slice.by_ref() {
        seen.push(Seen { segment: segment.clone(), offset: event.offset_in_segment, payload: event.value });
    }
    soon("release a segment slice", reader.release_segment(slice))
        .await?
        .map_err(|e| anyhow!("release a segment slice: {e}"))?;
    Ok(Some(seen))
}

/// Reads until `count` events came, then until nothing more comes for `quiet`: whatever is delivered twice shows.
pub async fn read_all(reader: &mut EventReader, count: usize, quiet: Duration) -> Result<Vec<Seen>> {
    let mut seen = Vec::new();
    let mut last = Instant::now();
    loop {
        match take_slice(reader).await? {
            Some(events) if !events.is_empty() => {
                seen.extend(events);
                last = Instant::now();
            }
            _ if seen.len() >= count && last.elapsed() >= quiet => return Ok(seen),
            _ => {
                ensure!(last.elapsed() < PATIENCE, "{} of {count} events came, then none for {PATIENCE:?}", seen.len())
            }
        }
    }
}

/// Nothing may arrive for `quiet`.
pub async fn expect_silence(reader: &mut EventReader, quiet: Duration, why: &str) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < quiet {
        if let Some(events) = take_slice(reader).await? {
            ensure!(events.is_empty(), "{why}: a reader saw {} events", events.len());
        }
    }
    Ok(())
}

/// Text payloads, for the suites that write text.
pub fn texts(seen: &[Seen]) -> Result<Vec<String>> {
    seen.iter()
        .map(|event| String::from_utf8(event.payload.clone()).context("an event is not the text that was written"))
        .collect()
}

/// The same elements, however often and in whatever order they came, except that none may repeat.
pub fn same_elements(mut seen: Vec<String>, mut expected: Vec<String>, what: &str) -> Result<()> {
    seen.sort();
    expected.sort();
    if seen == expected {
        return Ok(());
    }
    let lost: Vec<_> = expected.iter().filter(|e| seen.binary_search(e).is_err()).take(5).collect();
    let invented: Vec<_> = seen.iter().filter(|e| expected.binary_search(e).is_err()).take(5).collect();
    let twice: Vec<_> = seen.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]).take(5).collect();
    Err(anyhow!(
        "{what}: saw {} of {} elements; lost {lost:?}, not written {invented:?}, twice {twice:?}",
        seen.len(),
        expected.len()
    ))
}

/// Elements `key:number` must have growing numbers within each key.
pub fn order_per_key(seen: &[String], what: &str) -> Result<()> {
    let mut last = std::collections::BTreeMap::<&str, u64>::new();
    for text in seen {
        let (key, number) = text.split_once(':').with_context(|| format!("{what}: {text:?} is not key:number"))?;
        let number: u64 = number.parse().with_context(|| format!("{what}: {text:?} is not key:number"))?;
        if let Some(previous) = last.insert(key, number) {
            ensure!(previous < number, "{what}: key {key} delivered {number} after {previous}");
        }
    }
    Ok(())
}
