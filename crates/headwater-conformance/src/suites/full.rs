//! A disk that fills up under a writer: nothing acknowledged is lost, reads go on, and writing goes on as soon as there is
//! room again.
//!
//! The disk is a small file system in memory, mounted for the purpose; where that is not allowed the suite says so.

use super::ceiling::Writer;
use super::{Case, Outcome, in_scratch, run_cases};
use crate::prepare::Places;
use crate::raw::{Raw, code, frame, text};
use crate::server::Launch;
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Of the file system.
const DISK_BYTES: u64 = 768 << 20;
/// Left when the writer begins.
const ROOM_BYTES: u64 = 100 << 20;
const APPEND_BYTES: usize = 200_000;
const ROUNDS: usize = 2;
/// Without an acknowledgement for so long the disk counts as full.
const HELD: Duration = Duration::from_secs(3);
/// The promise.
const RESUMED_WITHIN: Duration = Duration::from_secs(5);
const SEGMENT: &str = "full/stream/0.#epoch.0";

/// Runs it.
///
/// # Errors
/// When the server does not start.
pub fn run(places: &Places) -> Result<Outcome> {
    in_scratch(places, "full", |scratch| {
        let case = Case::new("full: a disk that fills up twice loses nothing and is written to again at once", || {
            match Mounted::new(scratch.join("disk")) {
                Ok(disk) => check(places, scratch, &disk.0),
                Err(error) => Ok(format!("not run, no file system can be mounted here: {error:#}")),
            }
        });
        Ok(run_cases(vec![case], 1))
    })
}

/// A file system, taken away when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(place: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&place)?;
        let size = format!("size={DISK_BYTES}");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&place).output();
        let done = done.context("start mount")?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr).trim());
        Ok(Self(place))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn check(places: &Places, scratch: &Path, disk: &Path) -> Result<String> {
    let mut launch = Launch::new(places.server(), scratch);
    launch.data = disk.join("data");
    launch.extra = vec!["--memory-limit".into(), (128_u64 << 20).to_string()];
    let mut server = launch.start()?;
    let address = server.ready.segment_store.clone();
    let mut writer = Writer::open(&address, 1, SEGMENT)?;
    let mut acknowledged = 0_u64;
    let mut slowest = Duration::ZERO;
    for round in 0..ROUNDS {
        let ballast = disk.join("ballast");
        let file = std::fs::File::create(&ballast)?;
        let free = free_bytes(disk)?;
        if free > ROOM_BYTES {
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, free - ROOM_BYTES)?;
        }
        loop {
            writer.send(&event(acknowledged))?;
            match writer.acknowledged_within(HELD) {
                Ok(()) => acknowledged += 1,
                Err(error) if is_silence(&error) => break,
                Err(error) => return Err(error),
            }
            ensure!(acknowledged * (APPEND_BYTES as u64) < 4 * DISK_BYTES, "the disk does not fill up");
        }
        let mut reader = Raw::hello(&address)?;
        for number in [0, acknowledged / 2, acknowledged - 1] {
            ensure!(read(&mut reader, number)? == event(number), "event {number} is not what was acknowledged");
        }
        drop(file);
        let freed = Instant::now();
        std::fs::remove_file(&ballast)?;
        writer.acknowledged_within(RESUMED_WITHIN).with_context(|| format!("round {round}: after room was made"))?;
        slowest = slowest.max(freed.elapsed());
        acknowledged += 1;
        for _ in 0..20 {
            writer.send(&event(acknowledged))?;
            writer.acknowledged_within(Duration::from_secs(30))?;
            acknowledged += 1;
        }
    }
    server.alive()?;
    let server = {
        server.kill()?;
        launch.start().context("start again")?
    };
    let mut reader = Raw::hello(&server.ready.segment_store)?;
    for number in 0..acknowledged {
        ensure!(read(&mut reader, number)? == event(number), "event {number} is lost or changed");
    }
    server.stop()?;
    Ok(format!("{acknowledged} events of {APPEND_BYTES} bytes, resumed within {slowest:?}"))
}

fn event(number: u64) -> Vec<u8> {
    let mut event = vec![number as u8; APPEND_BYTES];
    event[..8].copy_from_slice(&number.to_be_bytes());
    event
}

fn is_silence(error: &anyhow::Error) -> bool {
    let silent =
        |error: &std::io::Error| matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
    error.downcast_ref::<std::io::Error>().is_some_and(silent)
}

fn free_bytes(place: &Path) -> Result<u64> {
    let figures = rustix::fs::statvfs(place)?;
    Ok(figures.f_bavail * figures.f_frsize)
}

/// The bytes of one event.
fn read(raw: &mut Raw, number: u64) -> Result<Vec<u8>> {
    let (mut offset, end) = (number * APPEND_BYTES as u64, (number + 1) * APPEND_BYTES as u64);
    let mut event = Vec::with_capacity(APPEND_BYTES);
    while offset < end {
        let wanted = ((end - offset) as i32).to_be_bytes();
        let request = [&text(SEGMENT)[..], &offset.to_be_bytes(), &wanted, &text(""), &5_i64.to_be_bytes()];
        raw.send(&frame(code::READ_SEGMENT, &request.concat()))?;
        let Some((code::SEGMENT_READ, reply)) = raw.receive()? else { bail!("a read was not answered by data") };
        // Name, offset, two flags, length, data, id.
        let data = reply.get(text(SEGMENT).len() + 8 + 2 + 4..reply.len() - 8).context("a read's fields")?;
        ensure!(!data.is_empty(), "an empty answer at {offset}");
        event.extend_from_slice(data);
        offset += data.len() as u64;
    }
    Ok(event)
}
