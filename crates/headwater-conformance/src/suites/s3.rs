//! Chunks in somebody else's S3 server, reached through a proxy that misbehaves.

mod backup;

use super::{Case, Outcome, in_scratch, run_cases};
use crate::chance::Chance;
use crate::prepare::Places;
use crate::raw::{Raw, code, frame, text};
use crate::s3::{Proxy, S3Server};
use crate::server::{Launch, Server, tail, wait};
use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use std::time::{Duration, Instant};

const BUCKET: &str = "headwater";
/// Of 100 requests so many meet a fault: seldom enough that six attempts in a row do not all fail.
const FAULT_PERCENT: u32 = 20;
/// One append; with the sizes below, some ten checkpoints are made.
const EVENT_BYTES: usize = 256 << 10;
const EVENTS: u64 = 96;
/// Background work that takes longer has stopped.
const PATIENCE: Duration = Duration::from_secs(30);
/// The settings contradict what is found.
const CONFIG: i32 = 78;
/// It cannot be called so.
const USAGE: i32 = 64;
/// Something that should be there does not answer.
const CANNOT_CREATE: i32 = 73;

/// Runs it.
///
/// # Errors
/// When the suite's directory or the S3 server cannot be made.
pub fn run(places: &Places, seed: u64) -> Result<Outcome> {
    in_scratch(places, "s3", |scratch| {
        let s3 = S3Server::start(places, scratch, BUCKET)?;
        let place = |name: &str| -> Result<Place> {
            let directory = scratch.join(name);
            std::fs::create_dir_all(&directory).context("make a directory")?;
            let proxy = Proxy::start(s3.address, seed)?;
            let launch = launch(places, &directory, &proxy, name);
            Ok(Place { proxy, launch })
        };
        let cases = vec![
            Case::new(
                "s3: what was written among faults is read after kill -9, and again from an emptied disk",
                || written_among_faults(&place("faults")?, seed),
            ),
            Case::new("s3: storage that is away delays nothing but reads from it", || away(&place("away")?)),
            Case::new("s3: a bucket that is not this store's is refused", || foreign(&place("one")?, &place("two")?)),
            Case::new(
                "s3: a backup into a bucket among faults comes back whole, and a flipped byte in it is found",
                || backup::into_a_bucket(&s3, &place("saved")?),
            ),
            Case::new("s3: a backup that is killed is none, and nothing takes its place for one", || {
                backup::killed(&s3, &place("killed")?)
            }),
            Case::new("s3: a store with a bucket is checked and backed up with what is there", || {
                backup::of_a_bucket(&s3, &place("bucket")?)
            }),
        ];
        Ok(run_cases(cases, 4))
    })
}

/// A server's directory and its way to the bucket.
struct Place {
    proxy: Proxy,
    launch: Launch,
}

fn address(prefix: &str) -> String {
    format!("s3://{BUCKET}/{prefix}")
}

fn launch(places: &Places, directory: &Path, proxy: &Proxy, prefix: &str) -> Launch {
    let mut launch = Launch::new(places.server(), directory);
    let extra = ["--memory-limit", "128MiB", "--chunks", &address(prefix)];
    launch.extra = extra.map(str::to_owned).to_vec();
    let settings = [
        ("AWS_ENDPOINT_URL", format!("http://{}", proxy.address)),
        ("AWS_REGION", "us-east-1".into()),
        ("AWS_ACCESS_KEY_ID", "test".into()),
        ("AWS_SECRET_ACCESS_KEY", "test".into()),
    ];
    launch.environment = settings.map(|(name, value)| (name.to_owned(), value)).to_vec();
    launch
}

fn written_among_faults(place: &Place, seed: u64) -> Result<String> {
    let Place { proxy, launch } = place;
    proxy.set_faults(FAULT_PERCENT);
    let server = launch.start()?;
    let mut writers = (0..2_u64).map(|number| Writer::open(&server, number, seed)).collect::<Result<Vec<_>>>()?;
    for _ in 0..EVENTS {
        for writer in &mut writers {
            writer.append()?;
        }
    }
    metric_reaches(&server, "checkpoints_total", 4)?;
    server.kill()?;
    let server = launch.start().context("start after kill -9")?;
    for writer in &writers {
        let read = writer.read_all(&server)?;
        ensure!(read == writer.written, "{}: read {} bytes, not those written", writer.segment, read.len());
    }
    // What is not in the bucket then is what no checkpoint has, a few mebibytes at most.
    metric_falls_to(&server, "unstored_bytes", 8 << 20)?;
    metric_falls_to(&server, "chunk_storage_copies_due", 0)?;
    server.stop()?;
    let met = proxy.faults();
    for (fault, count) in &met {
        ensure!(*count > 0, "no request met {fault:?}: {met:?}");
    }
    proxy.set_faults(0);

    let kept = launch.data.with_extension("kept");
    std::fs::rename(&launch.data, &kept).context("empty the disk")?;
    refused(launch, CONFIG, "--recover-from-chunks")?;
    let mut recovering = launch.clone();
    recovering.extra.push("--recover-from-chunks".into());
    let server = recovering.start().context("start from an emptied disk")?;
    let log = server.log_tail();
    ensure!(log.contains("taken over from object storage") && log.contains("last_operation"), "{log}");
    let mut back = 0;
    for writer in &writers {
        let read = writer.read_all(&server)?;
        ensure!(writer.written.starts_with(&read), "{}: {} bytes that are not its first", writer.segment, read.len());
        back += read.len();
    }
    ensure!(back >= 8 << 20, "only {back} bytes were got back");
    // It goes on from there.
    let mut writer = Writer::open(&server, 9, seed)?;
    writer.append()?;
    server.kill()?;
    let server = launch.start().context("start after the recovery")?;
    ensure!(writer.read_all(&server)? == writer.written, "what was written after the recovery is not there");
    server.stop()?;

    let mut outdated = launch.clone();
    outdated.data = kept;
    refused(&outdated, CONFIG, "another copy of this data directory")?;
    let faults = met.iter().map(|(fault, count)| format!("{count} {fault:?}")).collect::<Vec<_>>().join(", ");
    let written: usize = writers.iter().map(|writer| writer.written.len()).sum();
    Ok(format!("{} MiB, {} MiB of them after the disk was emptied; met {faults}", written >> 20, back >> 20))
}

fn away(place: &Place) -> Result<String> {
    let Place { proxy, launch } = place;
    let server = launch.start()?;
    let mut writer = Writer::open(&server, 1, 1)?;
    for _ in 0..EVENTS / 2 {
        writer.append()?;
    }
    metric_reaches(&server, "checkpoints_total", 2)?;
    server.kill()?;
    let server = launch.start()?;
    proxy.set_down(true);
    // The first bytes are in the bucket alone.
    let asked = Instant::now();
    ensure!(writer.read_at(&server, 0).is_err(), "bytes were read from storage that is away");
    ensure!(asked.elapsed() < PATIENCE, "refusing a read took {:?}", asked.elapsed());
    let mut other = Writer::open(&server, 2, 2)?;
    for _ in 0..8 {
        other.append()?;
    }
    ensure!(metric(&server, "chunk_storage_refused_reads_total")? > 0, "the refused read was not counted");
    proxy.set_down(false);
    ensure!(writer.read_all(&server)? == writer.written, "not what was written");
    ensure!(other.read_all(&server)? == other.written, "not what was written while storage was away");
    server.stop()?;
    proxy.set_down(true);
    refused(launch, CANNOT_CREATE, "object storage")?;
    Ok(String::new())
}

fn foreign(one: &Place, two: &Place) -> Result<String> {
    one.launch.start()?.stop()?;
    two.launch.start()?.stop()?;
    let mut swapped = one.launch.clone();
    swapped.extra = two.launch.extra.clone();
    refused(&swapped, CONFIG, "belongs to another store")?;
    let mut without = one.launch.clone();
    without.extra.truncate(2);
    refused(&without, CONFIG, "--chunks")?;
    let mut nobody = one.launch.clone();
    *nobody.extra.last_mut().context("the address of the bucket")? = format!("s3://{BUCKET}/nothing/here");
    refused(&nobody, CONFIG, "has no store")?;
    // Nothing of that was written down.
    one.launch.start()?.stop()?;
    Ok(String::new())
}

/// A start that has to end with this code and say why.
fn refused(launch: &Launch, code: i32, mention: &str) -> Result<()> {
    let log = std::fs::File::create(&launch.log).context("empty the log")?;
    let mut child = launch.command().stdout(std::process::Stdio::null()).stderr(log).spawn().context("start")?;
    let Some(status) = wait(&mut child, PATIENCE)? else {
        let _ = child.kill();
        let _ = child.wait();
        bail!("not refused within {PATIENCE:?}");
    };
    let said = tail(&launch.log);
    ensure!(status.code() == Some(code), "ended with {status} instead of {code}\n{said}");
    ensure!(said.contains(mention), "{mention:?} is not mentioned in\n{said}");
    Ok(())
}

pub(super) fn metric(server: &Server, name: &str) -> Result<u64> {
    let (_, page) = server.get("/metrics")?;
    let line = page
        .lines()
        .find(|line| !line.starts_with('#') && line.split(' ').next().is_some_and(|known| known.ends_with(name)));
    let value = line.and_then(|line| line.rsplit(' ').next()).with_context(|| format!("no metric {name}"))?;
    Ok(value.parse::<f64>().with_context(|| format!("{name} is {value}"))? as u64)
}

fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !is_so()? {
        ensure!(started.elapsed() < PATIENCE, "{what}: not in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn metric_reaches(server: &Server, name: &str, value: u64) -> Result<()> {
    until(name, || Ok(metric(server, name)? >= value))
}

fn metric_falls_to(server: &Server, name: &str, value: u64) -> Result<()> {
    until(name, || Ok(metric(server, name)? <= value))
}

/// A writer with a segment of its own, and what it wrote.
struct Writer {
    raw: Raw,
    segment: String,
    id: u128,
    number: i64,
    chance: Chance,
    written: Vec<u8>,
}

impl Writer {
    fn open(server: &Server, number: u64, seed: u64) -> Result<Self> {
        let segment = format!("s3/stream{number}/0.#epoch.0");
        let mut raw = Raw::hello(&server.ready.segment_store.to_string())?;
        let create = [&1_i64.to_be_bytes()[..], &text(&segment), &[0; 5], &text(""), &[0; 8]].concat();
        expect(&mut raw, frame(code::CREATE_SEGMENT, &create), SEGMENT_CREATED)?;
        let id = u128::from(number) + 1;
        let setup = [&2_i64.to_be_bytes()[..], &id.to_be_bytes(), &text(&segment), &text("")].concat();
        expect(&mut raw, frame(code::SETUP_APPEND, &setup), APPEND_SETUP)?;
        Ok(Self { raw, segment, id, number: 0, chance: Chance::new(seed ^ number), written: Vec::new() })
    }

    fn append(&mut self) -> Result<()> {
        self.number += 1;
        let data = self.chance.bytes(EVENT_BYTES);
        let end = [
            &self.id.to_be_bytes()[..],
            &0_i32.to_be_bytes(),
            &(data.len() as i32).to_be_bytes(),
            &data,
            &1_i32.to_be_bytes(),
            &self.number.to_be_bytes(),
            &3_i64.to_be_bytes(),
        ]
        .concat();
        expect(&mut self.raw, frame(code::APPEND_BLOCK_END, &end), DATA_APPENDED)?;
        self.written.extend_from_slice(&data);
        Ok(())
    }

    /// The segment from its beginning to its present end.
    fn read_all(&self, server: &Server) -> Result<Vec<u8>> {
        let mut raw = Raw::hello(&server.ready.segment_store.to_string())?;
        let info = [&4_i64.to_be_bytes()[..], &text(&self.segment), &text("")].concat();
        raw.send(&frame(code::SEGMENT_INFO, &info))?;
        let length = match raw.receive()?.context("closed instead of information")? {
            // Id, name, exists, sealed, deleted, modified: the length follows.
            (SEGMENT_INFO_REPLY, payload) => {
                let at = 8 + 2 + self.segment.len() + 3 + 8;
                i64::from_be_bytes(payload.get(at..at + 8).context("short reply")?.try_into()?)
            }
            (code::NO_SUCH_SEGMENT, _) => return Ok(Vec::new()),
            (other, _) => bail!("a question for information was answered by command {other}"),
        };
        let mut read = Vec::new();
        while read.len() < length as usize {
            let more = self.ask(&mut raw, read.len() as i64)?;
            ensure!(!more.is_empty(), "an empty reply before the end");
            read.extend_from_slice(&more);
        }
        Ok(read)
    }

    fn read_at(&self, server: &Server, offset: i64) -> Result<Vec<u8>> {
        self.ask(&mut Raw::hello(&server.ready.segment_store.to_string())?, offset)
    }

    fn ask(&self, raw: &mut Raw, offset: i64) -> Result<Vec<u8>> {
        let length = 1_i32 << 20;
        let read =
            [&text(&self.segment)[..], &offset.to_be_bytes(), &length.to_be_bytes(), &text(""), &5_i64.to_be_bytes()];
        raw.send(&frame(code::READ_SEGMENT, &read.concat()))?;
        let started = Instant::now();
        let (kind, payload) = loop {
            match raw.receive() {
                // Object storage may take several attempts.
                Err(_) if started.elapsed() < PATIENCE => {}
                received => break received?.context("closed instead of bytes")?,
            }
        };
        ensure!(kind == SEGMENT_READ, "a read was answered by command {kind}");
        let at = 2 + self.segment.len() + 8 + 2;
        let count = i32::from_be_bytes(payload.get(at..at + 4).context("short reply")?.try_into()?) as usize;
        Ok(payload.get(at + 4..at + 4 + count).context("short reply")?.to_vec())
    }
}

const APPEND_SETUP: i32 = 2;
const DATA_APPENDED: i32 = 7;
const SEGMENT_READ: i32 = 10;
const SEGMENT_INFO_REPLY: i32 = 12;
const SEGMENT_CREATED: i32 = 21;

fn expect(raw: &mut Raw, request: Vec<u8>, reply: i32) -> Result<()> {
    raw.send(&request)?;
    let started = Instant::now();
    loop {
        match raw.receive() {
            // Memory may be full of what storage has not taken yet.
            Err(_) if started.elapsed() < PATIENCE => {}
            received => {
                let (kind, _) = received?.context("closed instead of an answer")?;
                ensure!(kind == reply, "answered by command {kind} instead of {reply}");
                return Ok(());
            }
        }
    }
}
