//! A server with little memory, and peers that each want much of it: it stays below its ceiling, and a peer that asks
//! for little is served as before.
//!
//! Idle connections, a thousand readers that hardly read, peers that announce 16 MiB, send a part and then trickle,
//! peers that ask for segments with very long names and take no answer, and beside all of them writers of the largest
//! frames there are; with a memory limit of 256 MiB.

use super::{Case, Outcome, in_scratch, run_cases};
use crate::prepare::Places;
use crate::raw::{Raw, code, frame, header, text};
use crate::server::{Launch, Server};
use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What the server is given.
const MEMORY_BYTES: u64 = 256 << 20;
/// It may take a fifth more.
const CEILING_BYTES: u64 = MEMORY_BYTES / 5 * 6;
const SLOW_READERS: usize = 1_000;
/// What each of these sends at once: more than is received without room.
const HALF_FRAME_BYTES: usize = 300_000;
/// And so much, so often, for as long as it is let.
const TRICKLE_BYTES: usize = 1_000;
const TRICKLE_EVERY: Duration = Duration::from_millis(250);
/// Peers that ask and take no answer. Each would be owed gigabytes.
const DEAF: usize = 40;
/// A name that no segment can have; the answer repeats it.
const LONG_NAME_BYTES: usize = 60_000;
/// A frame of 16 MiB beside the crowd is stored within this time.
const HONEST_WITHIN: Duration = Duration::from_secs(20);
/// Frames that each of these writes.
const LARGE_FRAMES: i64 = 6;
/// Just below the limit of a frame.
const LARGE_BYTES: usize = 16_700_000;
/// Times the latency beside greedy peers is taken.
const ROUNDS: usize = 3;
/// Appends whose latency is looked at.
const SAMPLES: i64 = 1_500;
/// Below this a latency is no reason to worry on a machine with two cores.
const LATENCY_FLOOR: Duration = Duration::from_millis(15);

/// How many there are of each, beside the slow readers.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    idle: usize,
    half_frames: usize,
    large_writers: u8,
}

impl Crowd {
    /// Takes seconds.
    pub const QUICK: Self = Self { idle: 1_000, half_frames: 200, large_writers: 8 };
    /// What is promised; needs 13,000 open files and takes a minute.
    pub const FULL: Self = Self { idle: 10_000, half_frames: 980, large_writers: 20 };
}

/// Runs it.
///
/// # Errors
/// When the server does not start.
pub fn run(places: &Places, crowd: Crowd) -> Result<Outcome> {
    // Two sockets for every connection: the server inherits this limit.
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).context("raise the limit of open files")?;
    in_scratch(places, "ceiling", |scratch| {
        let case = Case::new("ceiling: greedy peers neither fill the memory nor slow others down", || {
            check(places, scratch, crowd)
        });
        Ok(run_cases(vec![case], 1))
    })
}

fn check(places: &Places, scratch: &Path, crowd: Crowd) -> Result<String> {
    let Crowd { idle, half_frames, large_writers } = crowd;
    let mut launch = Launch::new(places.server(), scratch);
    launch.extra = vec!["--memory-limit".into(), MEMORY_BYTES.to_string()];
    let mut server = launch.start()?;
    let address = server.ready.segment_store.clone();

    let mut healthy = Writer::open(&address, 1, "ceiling/healthy/0.#epoch.0")?;
    healthy.latencies(SAMPLES / 3)?;
    let baseline = p99(healthy.latencies(SAMPLES)?);
    let mut source = Writer::open(&address, 2, "ceiling/source/0.#epoch.0")?;
    for _ in 0..2 {
        source.append(&vec![7; LARGE_BYTES])?;
    }

    let highest = AtomicU64::new(0);
    let is_over = AtomicBool::new(false);
    let (greedy, bare, writing, stored, left) = std::thread::scope(|scope| -> Result<_> {
        let watch = scope.spawn(|| watch(&server, &highest, &is_over));
        let measured = (|| {
            let idle: Vec<Raw> = (0..idle).map(|_| Raw::hello(&address)).collect::<Result<_>>()?;
            let slow: Vec<Raw> = (0..SLOW_READERS).map(|_| slow_reader(&address)).collect::<Result<_>>()?;
            let half: Vec<Raw> = (0..half_frames).map(|_| half_frame(&address)).collect::<Result<_>>()?;
            let deaf: Vec<Deaf> = (0..DEAF).map(|_| Deaf::hello(&address)).collect::<Result<_>>()?;
            let crowd = scope.spawn(|| trickle(half, &is_over));
            scope.spawn(|| ask_on(deaf, &is_over));
            // The best of a few: a machine that is busy otherwise spoils one, peers that starve others spoil them all.
            let mut greedy = p99(healthy.latencies(SAMPLES)?);
            for _ in 1..ROUNDS {
                greedy = greedy.min(p99(healthy.latencies(SAMPLES)?));
            }
            let bare = p99(bare_latencies()?);
            let mut honest = Writer::open(&address, 99, "ceiling/honest/0.#epoch.0")?;
            let begun = Instant::now();
            honest.append(&vec![9; LARGE_BYTES])?;
            let stored = begun.elapsed();
            ensure!(stored <= HONEST_WITHIN, "an honest frame took {stored:?} beside a crowd of slow ones");
            let writers: Vec<_> = (0..large_writers)
                .map(|number| {
                    scope.spawn({
                        let address = &address;
                        move || large_writer(address, number)
                    })
                })
                .collect();
            let writing = p99(healthy.latencies(SAMPLES / 10)?);
            for writer in writers {
                writer.join().expect("a writer does not panic")?;
            }
            let mut witness = Raw::hello(&address)?;
            witness.still_works()?;
            drop((idle, slow));
            is_over.store(true, Ordering::Relaxed);
            let left = crowd.join().expect("trickling does not panic");
            Ok((greedy, bare, writing, stored, left))
        })();
        is_over.store(true, Ordering::Relaxed);
        watch.join().expect("watching does not panic")?;
        measured
    })?;
    server.alive()?;
    let highest = highest.into_inner();
    ensure!(highest <= CEILING_BYTES, "the server took {} MiB of its {}", highest >> 20, MEMORY_BYTES >> 20);
    // On a machine that is busy otherwise nobody is served as before, not even without a server.
    let allowed = (baseline.max(bare) * 3).max(LATENCY_FLOOR);
    ensure!(greedy <= allowed, "p99 of a small append rose from {baseline:?} to {greedy:?}");
    server.stop()?;
    Ok(format!(
        "at most {} MiB; p99 of a small append {baseline:?} alone, {greedy:?} beside greedy peers, where a bare exchange \
         between two threads takes {bare:?}, {writing:?} beside writers of 16 MiB; one of those took {stored:?} beside \
         {half_frames} slow ones, of which {left} were left at the end",
        highest >> 20
    ))
}

/// A kibibyte there and a little back between two threads that do nothing else: what the machine lets anybody have at
/// this moment, without a server and without a disk.
fn bare_latencies() -> Result<Vec<Duration>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut socket = TcpStream::connect(listener.local_addr()?)?;
    socket.set_nodelay(true)?;
    let (mut peer, _) = listener.accept()?;
    peer.set_nodelay(true)?;
    let echo = std::thread::spawn(move || -> std::io::Result<()> {
        let mut data = [0; 1024];
        while peer.read_exact(&mut data).is_ok() {
            peer.write_all(&data[..64])?;
        }
        Ok(())
    });
    let (data, mut answer) = ([5; 1024], [0; 64]);
    let once = |_| {
        let begun = Instant::now();
        socket.write_all(&data)?;
        socket.read_exact(&mut answer)?;
        Ok(begun.elapsed())
    };
    let latencies = (0..SAMPLES).map(once).collect::<Result<Vec<_>>>()?;
    drop(socket);
    echo.join().expect("an echo does not panic")?;
    Ok(latencies)
}

fn watch(server: &Server, highest: &AtomicU64, is_over: &AtomicBool) -> Result<()> {
    while !is_over.load(Ordering::Relaxed) {
        highest.fetch_max(server.resident_bytes()?, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Asks for 32 MiB and takes none of it.
fn slow_reader(address: &str) -> Result<Raw> {
    let mut raw = Raw::hello(address)?;
    for part in 0..16_i64 {
        let (offset, id) = ((part * (2 << 20)).to_be_bytes(), part.to_be_bytes());
        let name = text("ceiling/source/0.#epoch.0");
        raw.send(&frame(
            code::READ_SEGMENT,
            &[&name[..], &offset, &(2_i32 << 20).to_be_bytes(), &text(""), &id].concat(),
        ))?;
    }
    Ok(raw)
}

/// Sends a little more of each frame again and again. Returns how many were not closed in the end.
fn trickle(mut half: Vec<Raw>, is_over: &AtomicBool) -> usize {
    while !is_over.load(Ordering::Relaxed) {
        half.retain_mut(|raw| raw.offer(&[0; TRICKLE_BYTES]));
        std::thread::sleep(TRICKLE_EVERY);
    }
    half.len()
}

/// Asks for what cannot be there, again and again, and takes no answer.
struct Deaf {
    raw: Raw,
    question: Vec<u8>,
    at: usize,
}

impl Deaf {
    fn hello(address: &str) -> Result<Self> {
        let name = text(&"x".repeat(LONG_NAME_BYTES));
        let question = frame(code::SEGMENT_INFO, &[&1_i64.to_be_bytes()[..], &name, &text("")].concat());
        Ok(Self { raw: Raw::hello(address)?, question, at: 0 })
    }

    /// Asks as often as is taken at once. False when the server has closed.
    fn ask(&mut self) -> bool {
        loop {
            let rest = &self.question[self.at..];
            match self.raw.offer_part(rest) {
                Some(taken) if taken == rest.len() => self.at = 0,
                Some(taken) => {
                    self.at += taken;
                    return true;
                }
                None => return false,
            }
        }
    }
}

fn ask_on(mut deaf: Vec<Deaf>, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) && !deaf.is_empty() {
        deaf.retain_mut(Deaf::ask);
        std::thread::sleep(TRICKLE_EVERY / 10);
    }
}

/// Announces the largest frame and sends a little of it.
fn half_frame(address: &str) -> Result<Raw> {
    let mut raw = Raw::hello(address)?;
    raw.send(&header(code::APPEND_BLOCK_END, LARGE_BYTES as i32))?;
    raw.offer(&[0; HALF_FRAME_BYTES]);
    Ok(raw)
}

fn large_writer(address: &str, number: u8) -> Result<()> {
    let mut writer = Writer::open(address, 100 + number, &format!("ceiling/large/{number}.#epoch.0"))?;
    let data = vec![number; LARGE_BYTES];
    for _ in 0..LARGE_FRAMES {
        writer.append(&data)?;
    }
    Ok(())
}

/// A writer of one segment, one append at a time.
pub(super) struct Writer {
    raw: Raw,
    id: [u8; 16],
    number: i64,
}

impl Writer {
    pub(super) fn open(address: &str, id: u8, segment: &str) -> Result<Self> {
        let mut raw = Raw::hello(address)?;
        let create = [&1_i64.to_be_bytes()[..], &text(segment), &0_i32.to_be_bytes(), &[0], &text("")].concat();
        raw.send(&frame(code::CREATE_SEGMENT, &create))?;
        raw.receive()?.context("a segment is created")?;
        let id = [id; 16];
        raw.send(&frame(code::SETUP_APPEND, &[&1_i64.to_be_bytes()[..], &id, &text(segment), &text("")].concat()))?;
        match raw.receive()? {
            Some((code::APPEND_SETUP, _)) => Ok(Self { raw, id, number: 0 }),
            other => bail!("a writer was set up with {other:?}"),
        }
    }

    /// Appends, and waits for the acknowledgement.
    pub(super) fn append(&mut self, data: &[u8]) -> Result<()> {
        self.send(data)?;
        self.acknowledged_within(Duration::from_secs(120))
    }

    /// Sends an append.
    pub(super) fn send(&mut self, data: &[u8]) -> Result<()> {
        self.number += 1;
        let number = self.number.to_be_bytes();
        let length = (data.len() as u32).to_be_bytes();
        let parts = [&self.id[..], &[0; 4], &length, data, &1_u32.to_be_bytes(), &number, &number];
        self.raw.send(&frame(code::APPEND_BLOCK_END, &parts.concat()))
    }

    /// Waits for the acknowledgement of the oldest append that has none.
    pub(super) fn acknowledged_within(&mut self, limit: Duration) -> Result<()> {
        ensure!(self.is_acknowledged_within(limit)?, "the connection was closed before an append was answered");
        Ok(())
    }

    /// The same; false if the server closed instead.
    pub(super) fn is_acknowledged_within(&mut self, limit: Duration) -> Result<bool> {
        match self.raw.receive_within(limit)? {
            Some((code::DATA_APPENDED, _)) => Ok(true),
            Some(other) => bail!("an append was answered by {other:?}"),
            None => Ok(false),
        }
    }

    fn latencies(&mut self, count: i64) -> Result<Vec<Duration>> {
        let data = [5; 1024];
        (0..count)
            .map(|_| {
                let begun = Instant::now();
                self.append(&data)?;
                Ok(begun.elapsed())
            })
            .collect()
    }
}

fn p99(mut latencies: Vec<Duration>) -> Duration {
    latencies.sort_unstable();
    latencies[latencies.len() * 99 / 100]
}
