//! Commits of four sizes, one after the other, and sequential reads: the device's side of the floor.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::durable::{AlignedBuffer, DurableFile};
use crate::error::BenchError;
use crate::latency::Latencies;
use crate::probe::Commit;

/// Small enough to be filled quickly, large enough that writes do not overtake their own writeback.
const FILE_BYTES: u64 = 64 << 20;
const SIZES: [usize; 4] = [4 << 10, 64 << 10, 256 << 10, 1 << 20];
/// Larger than a device's own cache is likely to make look good.
const READ_FILE_BYTES: u64 = 512 << 20;

/// The fast way; see [`DurableFile::direct`].
pub(crate) fn direct(directory: &Path, each: Duration) -> Result<Vec<Commit>, BenchError> {
    all_sizes(&DurableFile::direct(&directory.join("commit-direct"), FILE_BYTES)?, each)
}

/// Through the page cache, for comparison.
pub(crate) fn buffered(directory: &Path, each: Duration) -> Result<Vec<Commit>, BenchError> {
    all_sizes(&DurableFile::buffered(&directory.join("commit-buffered"), FILE_BYTES)?, each)
}

fn all_sizes(file: &DurableFile, each: Duration) -> Result<Vec<Commit>, BenchError> {
    SIZES.iter().map(|size| one_size(file, *size, each)).collect()
}

fn one_size(file: &DurableFile, bytes: usize, each: Duration) -> Result<Commit, BenchError> {
    let mut buffer = AlignedBuffer::zeroed(bytes);
    let mut latencies = Latencies::new();
    let mut position = 0;
    let started = Instant::now();
    while started.elapsed() < each {
        // Different bytes each time: a device that compresses or compares would flatter itself.
        buffer.bytes_mut()[..8].copy_from_slice(&latencies.count().to_be_bytes());
        let begun = Instant::now();
        file.write(position, buffer.bytes())?;
        latencies.record(begun.elapsed().as_nanos() as u64);
        position = (position + bytes as u64) % file.length();
    }
    let per_second = latencies.count() as f64 / started.elapsed().as_secs_f64();
    Ok(Commit { way: file.way(), bytes, per_second, latency: latencies.quantiles() })
}

/// Sequential reads of 1 MiB, one after the other: bytes per second, and whether they went past the page cache.
pub(crate) fn read(directory: &Path, patience: Duration) -> Result<(f64, bool), BenchError> {
    let file = DurableFile::direct(&directory.join("read"), READ_FILE_BYTES)?;
    let mut buffer = AlignedBuffer::zeroed(1 << 20);
    let (mut position, mut bytes) = (0, 0);
    let started = Instant::now();
    while started.elapsed() < patience {
        file.read(position, buffer.bytes_mut())?;
        bytes += buffer.bytes().len() as u64;
        position = (position + buffer.bytes().len() as u64) % file.length();
    }
    Ok((bytes as f64 / started.elapsed().as_secs_f64(), file.way() != crate::durable::Way::Buffered))
}
