//! The floor program: the least a durable stream store has to do, and nothing else.
//!
//! ```text
//!   writer ── length, payload ──► connection ── copy, CRC ──► batch ──► commit thread ── write, durable ──┐
//!      ▲                                                                                                  │
//!      └────────────────────────────── bytes durable so far ──────────────────────────────────────────────┘
//! ```
//!
//! Client and server share this process and the machine, connected over loopback TCP. One thread per connection copies
//! each frame into the batch that is being collected, checksumming it on the way; one thread writes batches to a
//! zero-filled file that it goes round and round in, durable when the write returns, and then tells every writer how many
//! of its bytes are safe. While one batch is in the device the next collects: no timer. There is no index, no name, no
//! reading, no recovery. A real store cannot be faster on this machine; how close it comes is its quality.
//!
//! Invariants:
//! * an acknowledgement is sent only after the write that contains its bytes returned durable ([`commit`])
//! * what a writer sent stays in order, and its acknowledgements never go back ([`closed_loop`] asserts it)

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::durable::{ALIGNMENT, AlignedBuffer, DurableFile};
use crate::error::{BenchError, Context};
use crate::latency::{Latencies, Quantiles};
use crate::pace::{Schedule, readable, sleep_exactly};
use crate::probe::{Floor, FloorLoad, network};

/// A batch is written at this size at the latest. Beyond it latency grows and bandwidth does not.
const BATCH_BYTES_MAX: usize = 2 << 20;
/// Room before the records of a batch for what a recovery would need: magic, number, length, checksum.
const BATCH_HEAD_BYTES: usize = 64;
const FILE_BYTES: u64 = 256 << 20;
/// Bytes of whole events in one block.
const BLOCK_BYTES: usize = 64 << 10;
/// Unacknowledged bytes of one writer. Two batches' worth: one in the device, one collecting.
const WINDOW_BYTES: u64 = 1 << 20;
const LENGTH_BYTES: usize = 4;
const RECEIVE_BYTES: usize = 256 << 10;

/// Runs every load of [`Floor`] for so long each.
pub(crate) fn measure(directory: &Path, each: Duration) -> Result<Floor, BenchError> {
    let file = DurableFile::direct(&directory.join("floor"), FILE_BYTES)?;
    let saturate =
        |event_bytes, writers| with_server(&file, writers, |sockets| closed_loops(sockets, event_bytes, each));
    Ok(Floor {
        way: file.way(),
        kib_1_writer: saturate(1024, 1)?,
        kib_4_writers: saturate(1024, 4)?,
        small_1_writer: saturate(100, 1)?,
        kib_at_1000: with_server(&file, 1, |mut sockets| {
            let socket = sockets.pop().expect("there is one writer");
            open_loop(socket, 1024, 1000 * 1000, each)
        })?,
    })
}

/// What connections and the commit thread share.
struct Shared {
    collecting: Mutex<Collecting>,
    /// There is something to write, or nothing will come any more.
    filled: Condvar,
    /// The batch was taken away: there is room again.
    emptied: Condvar,
}

struct Collecting {
    batch: AlignedBuffer,
    /// Bytes in it, its head included.
    used: usize,
    /// Of each connection: payload bytes received in all. What is durable is acknowledged with this figure.
    received: Vec<u64>,
    /// Connections that may still send.
    open: usize,
    failed: bool,
}

/// Runs a server with so many connections, hands their other ends to `load`, and stops.
fn with_server<T: Send>(
    file: &DurableFile,
    connections: usize,
    load: impl FnOnce(Vec<TcpStream>) -> Result<T, BenchError>,
) -> Result<T, BenchError> {
    let (mut ours, mut theirs, mut acknowledge) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..connections {
        let (our, their) = network::pair()?;
        ours.push(our);
        acknowledge.push(their.try_clone().on("share", "a socket")?);
        theirs.push(their);
    }
    let shared = Shared {
        collecting: Mutex::new(Collecting {
            batch: empty_batch(),
            used: BATCH_HEAD_BYTES,
            received: vec![0; connections],
            open: connections,
            failed: false,
        }),
        filled: Condvar::new(),
        emptied: Condvar::new(),
    };
    thread::scope(|scope| {
        for (i, socket) in theirs.into_iter().enumerate() {
            let shared = &shared;
            scope.spawn(move || receive(socket, i, shared));
        }
        let committer = scope.spawn(|| commit(file, &shared, acknowledge));
        let outcome = load(ours);
        committer.join().expect("the commit thread does not panic")?;
        outcome
    })
}

fn empty_batch() -> AlignedBuffer {
    AlignedBuffer::zeroed((BATCH_HEAD_BYTES + BATCH_BYTES_MAX).next_multiple_of(ALIGNMENT))
}

/// Copies whole frames of one connection into the batch until the peer closes.
fn receive(mut socket: TcpStream, connection: usize, shared: &Shared) {
    let mut buffer = vec![0; RECEIVE_BYTES];
    let mut filled = 0;
    while let Ok(count @ 1..) = socket.read(&mut buffer[filled..]) {
        filled += count;
        let mut taken = 0;
        while let Some(frame) = whole_frame(&buffer[taken..filled]) {
            let sum = crc32c::crc32c(frame);
            let mut collecting = shared.collecting.lock().expect("no thread of the floor panics");
            while collecting.used + 4 + frame.len() > BATCH_BYTES_MAX && !collecting.failed {
                collecting = shared.emptied.wait(collecting).expect("no thread of the floor panics");
            }
            let Collecting { batch, used, received, failed, .. } = &mut *collecting;
            if *failed {
                break;
            }
            let was_empty = *used == BATCH_HEAD_BYTES;
            let room = &mut batch.bytes_mut()[*used..];
            room[..4].copy_from_slice(&sum.to_be_bytes());
            room[4..4 + frame.len()].copy_from_slice(frame);
            *used += 4 + frame.len();
            received[connection] += (frame.len() - LENGTH_BYTES) as u64;
            drop(collecting);
            if was_empty {
                shared.filled.notify_one();
            }
            taken += frame.len();
        }
        buffer.copy_within(taken..filled, 0);
        filled -= taken;
    }
    shared.collecting.lock().expect("no thread of the floor panics").open -= 1;
    shared.filled.notify_one();
}

/// The frame at the front, its length included, once all of it is there.
fn whole_frame(bytes: &[u8]) -> Option<&[u8]> {
    let length = bytes.first_chunk::<LENGTH_BYTES>()?;
    bytes.get(..LENGTH_BYTES + u32::from_be_bytes(*length) as usize)
}

/// Writes batch after batch until every connection is closed, and acknowledges each.
fn commit(file: &DurableFile, shared: &Shared, mut acknowledge: Vec<TcpStream>) -> Result<(), BenchError> {
    let mut batch = empty_batch();
    let mut acknowledged = vec![0; acknowledge.len()];
    let (mut position, mut number) = (0, 0_u64);
    loop {
        let mut collecting = shared.collecting.lock().expect("no thread of the floor panics");
        while collecting.used == BATCH_HEAD_BYTES && collecting.open > 0 {
            collecting = shared.filled.wait(collecting).expect("no thread of the floor panics");
        }
        if collecting.used == BATCH_HEAD_BYTES {
            return Ok(());
        }
        std::mem::swap(&mut collecting.batch, &mut batch);
        let used = std::mem::replace(&mut collecting.used, BATCH_HEAD_BYTES);
        let received = collecting.received.clone();
        drop(collecting);
        shared.emptied.notify_all();

        number += 1;
        let head = &mut batch.bytes_mut()[..16];
        head[..8].copy_from_slice(&number.to_be_bytes());
        head[8..].copy_from_slice(&(used as u64).to_be_bytes());
        let padded = used.next_multiple_of(ALIGNMENT);
        if position + padded as u64 > file.length() {
            position = 0;
        }
        if let Err(error) = file.write(position, &batch.bytes()[..padded]) {
            shared.collecting.lock().expect("no thread of the floor panics").failed = true;
            shared.emptied.notify_all();
            for socket in &acknowledge {
                // Writers wait for acknowledgements that will not come.
                let _ = socket.shutdown(std::net::Shutdown::Both);
            }
            return Err(error);
        }
        position += padded as u64;
        for ((socket, before), now) in acknowledge.iter_mut().zip(&mut acknowledged).zip(received) {
            if *before != now {
                *before = now;
                // A writer that is gone needs no acknowledgement.
                let _ = socket.write_all(&now.to_be_bytes());
            }
        }
    }
}

/// Reads acknowledgements, each the number of bytes that are durable.
struct Acknowledgements {
    bytes: [u8; 4096],
    filled: usize,
    durable: u64,
}

impl Acknowledgements {
    fn new() -> Self {
        Self { bytes: [0; 4096], filled: 0, durable: 0 }
    }

    /// Waits for at least one byte more and returns how many payload bytes are durable by now.
    fn read(&mut self, socket: &mut TcpStream) -> Result<u64, BenchError> {
        let count = socket.read(&mut self.bytes[self.filled..]).on("read from", "the floor program")?;
        if count == 0 {
            return Err(BenchError::Closed { waiting: "the floor program had to acknowledge" });
        }
        self.filled += count;
        let whole = self.filled / 8 * 8;
        if let Some(last) = self.bytes[..whole].last_chunk::<8>() {
            let durable = u64::from_be_bytes(*last);
            assert!(durable >= self.durable, "acknowledgements never go back");
            self.durable = durable;
            self.bytes.copy_within(whole..self.filled, 0);
            self.filled -= whole;
        }
        Ok(self.durable)
    }
}

fn closed_loops(sockets: Vec<TcpStream>, event_bytes: usize, each: Duration) -> Result<FloorLoad, BenchError> {
    let outcomes: Vec<Result<(f64, Latencies), BenchError>> = thread::scope(|scope| {
        let threads: Vec<_> =
            sockets.into_iter().map(|socket| scope.spawn(move || closed_loop(socket, event_bytes, each))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no writer panics")).collect()
    });
    let (mut bytes_per_second, mut latencies) = (0.0, Latencies::new());
    for outcome in outcomes {
        let (rate, part) = outcome?;
        bytes_per_second += rate;
        latencies.merge(&part);
    }
    let events_per_second = bytes_per_second / event_bytes as f64;
    Ok(FloorLoad { events_per_second, bytes_per_second, latency: latencies.quantiles() })
}

/// Sends blocks as fast as the window allows; bytes acknowledged per second and the latency of each block.
fn closed_loop(mut socket: TcpStream, event_bytes: usize, each: Duration) -> Result<(f64, Latencies), BenchError> {
    let payload = BLOCK_BYTES / event_bytes * event_bytes;
    let block = frame(payload);
    let mut acknowledgements = Acknowledgements::new();
    let mut under_way = VecDeque::new();
    let mut latencies = Latencies::new();
    let mut sent = 0;
    let started = Instant::now();
    let rate = loop {
        if sent + payload as u64 - acknowledgements.durable > WINDOW_BYTES {
            let durable = acknowledgements.read(&mut socket)?;
            let now = Instant::now();
            while let Some((end, begun)) = under_way.pop_front_if(|(end, _): &mut (u64, Instant)| *end <= durable) {
                assert!(end <= sent, "only what was sent is acknowledged");
                latencies.record((now - begun).as_nanos() as u64);
            }
            if started.elapsed() >= each {
                break durable as f64 / started.elapsed().as_secs_f64();
            }
            continue;
        }
        sent += payload as u64;
        under_way.push_back((sent, Instant::now()));
        socket.write_all(&block).on("write to", "the floor program")?;
    };
    Ok((rate, latencies))
}

/// One event per frame, each at its time; latency from when it was due.
fn open_loop(
    mut socket: TcpStream,
    event_bytes: usize,
    rate_milli: u64,
    each: Duration,
) -> Result<Quantiles, BenchError> {
    sleep_exactly();
    let event = frame(event_bytes);
    let started = Instant::now();
    let now_ns = || started.elapsed().as_nanos() as u64;
    let schedule = Schedule::new(0, each.as_nanos() as u64, rate_milli);
    let (mut sent, mut sent_in_time, mut done) = (0, 0, 0);
    let mut acknowledgements = Acknowledgements::new();
    let mut latencies = Latencies::new();
    while done < schedule.total() {
        let now = now_ns();
        while sent < schedule.due_by(now) {
            socket.write_all(&event).on("write to", "the floor program")?;
            sent += 1;
        }
        if now <= schedule.judged_at() {
            sent_in_time = sent;
        }
        let until = if sent < schedule.total() { schedule.due(sent) } else { now + 1_000_000_000 };
        if readable(&socket, now_ns(), until)? {
            let durable = acknowledgements.read(&mut socket)?;
            let now = now_ns();
            for n in done..durable / event_bytes as u64 {
                latencies.record(now.saturating_sub(schedule.due(n)));
            }
            done = durable / event_bytes as u64;
        }
    }
    schedule.judge(sent_in_time)?;
    Ok(latencies.quantiles())
}

/// A frame with a payload that is not all alike.
fn frame(payload: usize) -> Vec<u8> {
    let mut bytes = (payload as u32).to_be_bytes().to_vec();
    bytes.extend((0..payload).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 11) as u8));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_whole_only_with_its_last_byte() {
        let bytes = frame(10);
        assert_eq!(whole_frame(&bytes), Some(&bytes[..]));
        for cut in 0..bytes.len() {
            assert_eq!(whole_frame(&bytes[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn everything_the_floor_acknowledges_is_in_its_file_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let file = DurableFile::direct(&directory.path().join("floor"), 4 << 20).unwrap();
        let frames: Vec<Vec<u8>> = (1..=40_usize).map(|n| frame(n * 100)).collect();
        with_server(&file, 1, |mut sockets| {
            let mut socket = sockets.pop().unwrap();
            let mut acknowledgements = Acknowledgements::new();
            let mut sent = 0;
            for frame in &frames {
                socket.write_all(frame).unwrap();
                sent += (frame.len() - LENGTH_BYTES) as u64;
            }
            while acknowledgements.read(&mut socket)? < sent {}
            Ok(())
        })
        .unwrap();
        let mut content = AlignedBuffer::zeroed(4 << 20);
        file.read(0, content.bytes_mut()).unwrap();
        let (mut rest, mut found) = (content.bytes(), Vec::new());
        while rest.len() > BATCH_HEAD_BYTES && rest[..8] != [0; 8] {
            let used = u64::from_be_bytes(rest[8..16].try_into().unwrap()) as usize;
            let mut records = &rest[BATCH_HEAD_BYTES..used];
            while !records.is_empty() {
                let sum = u32::from_be_bytes(records[..4].try_into().unwrap());
                let frame = whole_frame(&records[4..]).unwrap();
                assert_eq!(crc32c::crc32c(frame), sum);
                found.push(frame.to_vec());
                records = &records[4 + frame.len()..];
            }
            rest = &rest[used.next_multiple_of(ALIGNMENT)..];
        }
        assert_eq!(found, frames);
    }
}
