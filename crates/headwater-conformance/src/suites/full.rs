//! A disk that fills up under a writer: nothing acknowledged is lost, no read fails, and writing goes on as soon as
//! there is room again. Once room is made from outside, and once by the published Python client, which deletes a stream
//! while the disk is full.
//!
//! The disk is a small file system in memory, mounted for the purpose: without the right to do that it fails.

use super::ceiling::Writer;
use super::s3::metric;
use super::{Case, Outcome, in_scratch, run_cases};
use crate::driver::{Client, Driver};
use crate::prepare::Places;
use crate::raw::{Raw, code, frame, text};
use crate::server::Launch;
use anyhow::{Context, Result, bail, ensure};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Of the file system.
const DISK_BYTES: u64 = 768 << 20;
/// Left when the writer begins.
const ROOM_BYTES: u64 = 100 << 20;
const APPEND_BYTES: usize = 200_000;
/// In the stream that is deleted.
const VICTIM_EVENTS: u64 = 600;
/// The client may back off ten seconds for a connection it has lost.
const DELETED_WITHIN: Duration = Duration::from_secs(30);
/// Without an acknowledgement for so long the server is asked whether the disk is full.
const HELD: Duration = Duration::from_secs(3);
/// A disk that is not takes so long at most; then the server closes the connection.
const SLOW: Duration = Duration::from_secs(50);
/// The promise.
const RESUMED_WITHIN: Duration = Duration::from_secs(5);
const SEGMENT: &str = "full/stream/0.#epoch.0";
const VICTIM: &str = "full/victim/0.#epoch.0";

/// Runs it.
///
/// # Errors
/// When the server does not start.
pub fn run(places: &Places) -> Result<Outcome> {
    in_scratch(places, "full", |scratch| {
        let case = Case::new("full: a disk that fills up twice loses nothing and is written to again at once", || {
            let disk = Mounted::new(scratch.join("disk")).context("mount a file system for it")?;
            check(places, scratch, &disk.0)
        });
        Ok(run_cases(vec![case], 1))
    })
}

/// How room is made.
#[derive(Clone, Copy, Debug)]
enum Room {
    FromOutside,
    ByDeleting,
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
    let client = |command: &str| {
        let arguments = ["--scope", "full", "--stream", "victim"];
        Driver::run(Client::Python.command(places, &server.ready.controller, command, &arguments), DELETED_WITHIN)
    };
    client("make-stream")?;
    let mut victim = Writer::open(&address, 2, VICTIM)?;
    for number in 0..VICTIM_EVENTS {
        victim.send(&event(number))?;
        victim.acknowledged_within(HELD)?;
    }
    let mut writer = Writer::open(&address, 1, SEGMENT)?;
    let mut acknowledged = 0_u64;
    let mut resumed = Vec::new();
    for room in [Room::FromOutside, Room::ByDeleting, Room::FromOutside] {
        let ballast = disk.join("ballast");
        let file = std::fs::File::create(&ballast)?;
        let free = free_bytes(disk)?;
        if free > ROOM_BYTES {
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, free - ROOM_BYTES)?;
        }
        drop(file);
        loop {
            writer.send(&event(acknowledged))?;
            let sent = Instant::now();
            let is_full = loop {
                match writer.acknowledged_within(HELD) {
                    Ok(()) => break false,
                    Err(error) if !is_silence(&error) => return Err(error),
                    Err(_) if metric(&server, "disk_full")? == 1 => break true,
                    Err(_) => ensure!(sent.elapsed() < SLOW, "writes wait, and the disk is not full"),
                }
            };
            if is_full {
                break;
            }
            acknowledged += 1;
            ensure!(acknowledged * (APPEND_BYTES as u64) < 4 * DISK_BYTES, "the disk does not fill up");
        }
        let mut reader = Raw::hello(&address)?;
        for number in (0..acknowledged).step_by(20).chain([acknowledged - 1]) {
            ensure!(read_event(&mut reader, number)? == event(number), "event {number} is not what was acknowledged");
        }
        match room {
            Room::FromOutside => std::fs::remove_file(&ballast)?,
            Room::ByDeleting => drop(client("remove-stream").context("a stream is deleted on a full disk")?),
        }
        let freed = Instant::now();
        writer.acknowledged_within(RESUMED_WITHIN).with_context(|| format!("room was made {room:?}"))?;
        resumed.push((room, freed.elapsed()));
        acknowledged += 1;
        for _ in 0..20 {
            writer.send(&event(acknowledged))?;
            writer.acknowledged_within(Duration::from_secs(30))?;
            acknowledged += 1;
        }
        if ballast.exists() {
            std::fs::remove_file(&ballast)?;
        }
    }
    server.alive()?;
    let server = {
        server.kill()?;
        launch.start().context("start again")?
    };
    let mut reader = Raw::hello(&server.ready.segment_store)?;
    for number in 0..acknowledged {
        ensure!(read_event(&mut reader, number)? == event(number), "event {number} is lost or changed");
    }
    server.stop()?;
    Ok(format!("{acknowledged} events of {APPEND_BYTES} bytes, resumed after {resumed:?}"))
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

fn read_event(raw: &mut Raw, number: u64) -> Result<Vec<u8>> {
    read(raw, SEGMENT, number * APPEND_BYTES as u64..(number + 1) * APPEND_BYTES as u64)
}

/// Bytes of a segment, all of which are there.
pub(super) fn read(raw: &mut Raw, segment: &str, range: Range<u64>) -> Result<Vec<u8>> {
    let (mut offset, end) = (range.start, range.end);
    let mut read = Vec::with_capacity((end - offset) as usize);
    while offset < end {
        let wanted = ((end - offset) as i32).to_be_bytes();
        let request = [&text(segment)[..], &offset.to_be_bytes(), &wanted, &text(""), &5_i64.to_be_bytes()];
        raw.send(&frame(code::READ_SEGMENT, &request.concat()))?;
        let Some((code::SEGMENT_READ, reply)) = raw.receive()? else { bail!("a read was not answered by data") };
        // Name, offset, two flags, length, data, id.
        let data = reply.get(text(segment).len() + 8 + 2 + 4..reply.len() - 8).context("a read's fields")?;
        ensure!(!data.is_empty(), "an empty answer at {offset}");
        read.extend_from_slice(data);
        offset += data.len() as u64;
    }
    Ok(read)
}
