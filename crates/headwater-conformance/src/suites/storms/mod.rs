//! Storms: scales, kills, lost and late calls, readers that come and go, all at once, against the binary with our own
//! client. Three are T8, T9 and T11 of `docs/internals/promises.md`; the simulation goes through many more of them, without
//! a real disk, real sockets and a real clock.

mod endings;
mod readers;
mod register;
mod scales;
mod transactions;

use super::{Case, Outcome, in_scratch, run_cases};
use crate::chance::Chance;
use crate::prepare::Places;
use crate::server::{Addresses, Launch, Server};
use anyhow::{Context, Result, bail, ensure};
use headwater_client::{
    Client, ClientOptions, ErrorKind, KeyRange, Name, ReaderGroup, ReaderGroupConfig, ScopedStream, SegmentRange,
    StreamConfig,
};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::time::Instant;

/// What is decided ends so long after the last kill; a client repeats its calls for that long, too.
const PATIENCE: Duration = Duration::from_secs(60);
/// Streams keep so few segments that merges and splits meet.
const SEGMENTS_MAX: usize = 8;
/// Name of the group of readers.
const GROUP: &str = "group";

/// Runs all of them, each for so long.
///
/// # Errors
/// When a server does not start.
pub fn run(places: &Places, seed: u64, lasting: Duration) -> Result<Outcome> {
    in_scratch(places, "storms", |scratch| {
        let storm = |number: u64, name: &str| Storm::brew(places, &scratch.join(name), seed + number, lasting);
        // Leases last longer than a storm, and begin anew with every server: the first storm's end while others blow.
        let left = &Mutex::new(None);
        let cases = vec![
            Case::new("storms: transactions are whole or not there when calls are lost, late and repeated", || {
                let ((said, leases), calm) = storm(2, "transactions")?.blow(transactions::run)?;
                let said = calm.said(&said);
                *left.lock().expect("nobody panics with it") = Some((leases, calm));
                Ok(said)
            }),
            Case::new("storms: scales every 50 ms and kills leave every key in order and covered once", || {
                let (said, calm) = storm(1, "scales")?.blow(scales::run)?;
                calm.end(&said)
            }),
            Case::new(
                "storms: a group whose readers come, go, sleep and die misses nothing, also when it is reset",
                || {
                    let (said, calm) = storm(3, "readers")?.blow(readers::run)?;
                    calm.end(&said)
                },
            ),
            Case::new(
                "storms: truncations, seals and deletions under kills are done or not begun, and leave nothing",
                || {
                    let (said, calm) = storm(4, "endings")?.blow(endings::run)?;
                    calm.end(&said)
                },
            ),
            Case::new("storms: of the first storm's transactions those end that nobody pings, and no others", || {
                let left = left.lock().expect("nobody panics with it").take();
                let (leases, calm) = left.context("there was no storm of transactions")?;
                let said = calm.runtime.block_on(leases.end(&calm.stage))?;
                calm.end(&said)
            }),
        ];
        Ok(run_cases(cases, 1))
    })
}

/// A server that is killed now and then, and a stream on it.
struct Storm {
    launch: Launch,
    server: Server,
    seed: u64,
    lasting: Duration,
}

/// What those who act in a storm know of it.
#[derive(Clone)]
struct Stage {
    /// The controller's address.
    controller: String,
    client: Client,
    stream: ScopedStream,
    seed: u64,
    /// When everybody stops.
    until: Instant,
}

impl Storm {
    fn brew(places: &Places, scratch: &Path, seed: u64, lasting: Duration) -> Result<Self> {
        std::fs::create_dir_all(scratch).context("make a directory")?;
        let mut launch = Launch::new(places.server(), scratch);
        launch.addresses = Addresses::free()?;
        let server = launch.start()?;
        Ok(Self { launch, server, seed, lasting })
    }

    /// Lets `act` act, and kills the server meanwhile. Returns what `act` says, and what is left.
    fn blow<T>(self, act: impl AsyncFnOnce(Stage) -> Result<T>) -> Result<(T, Calm)> {
        let Self { launch, server, seed, lasting } = self;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start a runtime for clients")?;
        let controller = server.ready.controller.clone();
        // Connections belong to a runtime.
        let entered = runtime.enter();
        let client = client(&controller)?;
        drop(entered);
        let stream = runtime.block_on(stream_of_one(&client))?;
        let until = Instant::now() + lasting;
        let killing = std::thread::spawn(move || kill_until(until, &launch, server, Chance::new(seed)));
        let stage = Stage { controller, client, stream, seed, until };
        let said = runtime.block_on(act(stage.clone()));
        let ended = killing.join().map_err(|_| anyhow::anyhow!("whoever kills the server panicked"))?;
        let said = said?;
        let (server, kills) = ended?;
        ensure!(kills > 0, "the server was never killed");
        Ok((said, Calm { runtime, stage, server, kills }))
    }
}

/// A server after its storm, and the clients that are still there.
struct Calm {
    runtime: Runtime,
    stage: Stage,
    server: Server,
    kills: u32,
}

impl Calm {
    fn said(&self, said: &str) -> String {
        format!("{said}; {} kills", self.kills)
    }

    fn end(self, said: &str) -> Result<String> {
        let said = self.said(said);
        drop(self.runtime);
        self.server.stop()?;
        Ok(said)
    }
}

fn client(controller: &str) -> Result<Client> {
    Ok(ClientOptions::new(controller)?.retry_for(PATIENCE).connect()?)
}

async fn stream_of_one(client: &Client) -> Result<ScopedStream> {
    let stream = ScopedStream::parse("storm/stream")?;
    client.create_scope(&stream.scope).await?;
    client.create_stream(&stream, &StreamConfig::fixed(1)).await?;
    Ok(stream)
}

/// Returns the server that is left, and how many were killed.
fn kill_until(until: Instant, launch: &Launch, mut server: Server, mut chance: Chance) -> Result<(Server, u32)> {
    let mut kills = 0;
    loop {
        let pause = Duration::from_millis(1500 + chance.below(2000));
        if Instant::now() + pause > until {
            return Ok((server, kills));
        }
        std::thread::sleep(pause);
        server.kill()?;
        std::thread::sleep(Duration::from_millis(chance.below(200)));
        server = launch.start().context("start after a kill")?;
        kills += 1;
    }
}

impl Stage {
    fn chance(&self, of: u64) -> Chance {
        Chance::new(self.seed.wrapping_mul(1000).wrapping_add(of))
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// A group that reads the stream and shares anew at once.
    async fn group(&self) -> Result<ReaderGroup> {
        let config = ReaderGroupConfig::of(&self.stream).every(Duration::from_millis(50), None);
        let name = Name::parse(GROUP)?;
        self.client.create_reader_group(&self.stream.scope, &name, &config).await?;
        Ok(self.client.reader_group(&self.stream.scope, &name).await?)
    }

    /// Writes events `writer-key number` to so many keys, as fast as `pause` after each round allows. Returns how many there
    /// are of each key; all are acknowledged.
    async fn write(self, writer: usize, keys: usize, pause: Duration) -> Result<Vec<u64>> {
        let into = self.client.event_writer(&self.stream, Default::default()).await?;
        let mut counts = vec![0; keys];
        while !self.is_over() {
            for (key, count) in counts.iter_mut().enumerate() {
                let key = format!("{writer}-{key}");
                // The flush below tells of all.
                let _later = into.write(&key, format!("{key} {count}")).await?;
                *count += 1;
            }
            tokio::time::sleep(pause).await;
        }
        into.flush().await?;
        Ok(counts)
    }

    /// Tries to split a segment or to merge two, again and again. Returns how often that was done.
    async fn scale(self, every: Duration) -> Result<u32> {
        let mut chance = self.chance(99);
        let (mut scales, mut tries) = (0, 0);
        while !self.is_over() {
            tokio::time::sleep(every).await;
            tries += 1;
            let current = self.client.current_segments(&self.stream).await?;
            let (sealed, ranges) = plan(&current, &mut chance)?;
            let sealed: Vec<_> = sealed.iter().map(|segment| segment.id).collect();
            match self.client.scale_stream(&self.stream, &sealed, &ranges).await {
                Ok(()) => scales += 1,
                // A kill came between, and what it left half done is not finished yet.
                Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Unavailable) => {}
                Err(error) => return Err(error).context("scale"),
            }
        }
        ensure!(scales > 0 && scales * 10 >= tries, "only {scales} of {tries} scales were made: that was no storm");
        Ok(scales)
    }

    /// Seals the stream, once the last scale has ended.
    async fn seal(&self) -> Result<()> {
        let begun = Instant::now();
        while let Err(error) = self.client.seal_stream(&self.stream).await {
            if begun.elapsed() > PATIENCE {
                return Err(error).context("seal the stream");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}

/// What to seal, and what follows on it.
fn plan<'a>(current: &'a [SegmentRange], chance: &mut Chance) -> Result<(&'a [SegmentRange], Vec<KeyRange>)> {
    let split = current.len() == 1 || (current.len() < SEGMENTS_MAX && chance.below(2) == 0);
    let width = if split { 1 } else { 2 };
    let first = chance.below((current.len() - width + 1) as u64) as usize;
    let sealed = &current[first..first + width];
    let [low, high] = [sealed[0].range.low(), sealed[width - 1].range.high()];
    let bounds = if split { vec![low, (low + high) / 2.0, high] } else { vec![low, high] };
    let ranges = bounds.windows(2).map(|pair| KeyRange::new(pair[0], pair[1]));
    Ok((sealed, ranges.collect::<Result<_, _>>().context("a range of keys")?))
}

/// Whether these open segments have every key once.
fn covers(segments: &[SegmentRange]) -> Result<()> {
    let mut end = 0.0;
    for segment in segments {
        if segment.range.low() != end {
            bail!("the key space is not covered once: {segments:?}");
        }
        end = segment.range.high();
    }
    ensure!(end == 1.0, "the key space is not covered to its end: {segments:?}");
    Ok(())
}

/// `key number` of an event.
fn parsed(event: &[u8]) -> Result<(String, u64)> {
    let text = std::str::from_utf8(event).context("an event of ours is text")?;
    let (key, number) = text.split_once(' ').with_context(|| format!("an event that nobody wrote: {text}"))?;
    Ok((key.to_owned(), number.parse().with_context(|| format!("an event that nobody wrote: {text}"))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_client::SegmentId;

    fn segments(bounds: &[(f64, f64)]) -> Vec<SegmentRange> {
        let segment = |(number, (low, high)): (i64, &(f64, f64))| SegmentRange {
            id: SegmentId::from_i64(number).expect("a segment's id"),
            range: KeyRange::new(*low, *high).expect("a range"),
        };
        (0..).zip(bounds).map(segment).collect()
    }

    #[test]
    fn gaps_overlaps_and_missing_ends_are_seen() {
        assert!(covers(&segments(&[(0.0, 0.5), (0.5, 1.0)])).is_ok());
        for bad in [&[(0.0, 0.5), (0.6, 1.0)][..], &[(0.0, 0.5), (0.4, 1.0)], &[(0.0, 0.5)], &[(0.1, 1.0)], &[]] {
            assert!(covers(&segments(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn whatever_is_planned_covers_what_it_replaces() {
        let mut chance = Chance::new(1);
        let mut current = segments(&[(0.0, 1.0)]);
        let mut most = 0;
        for _ in 0..1000 {
            let (sealed, ranges) = plan(&current, &mut chance).expect("a plan");
            let bounds = |ranges: &[KeyRange]| (ranges[0].low(), ranges[ranges.len() - 1].high());
            assert_eq!(bounds(&ranges), (sealed[0].range.low(), sealed[sealed.len() - 1].range.high()));
            let ids: Vec<_> = sealed.iter().map(|segment| segment.id).collect();
            let rest = current.iter().filter(|segment| !ids.contains(&segment.id)).map(|segment| segment.range);
            let mut all: Vec<_> = rest.chain(ranges).map(|range| (range.low(), range.high())).collect();
            all.sort_by(|one, other| one.0.total_cmp(&other.0));
            current = segments(&all);
            covers(&current).expect("a cover");
            most = most.max(current.len());
        }
        assert_eq!(most, SEGMENTS_MAX);
    }
}
