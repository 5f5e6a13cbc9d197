//! Copying and checksumming: what each pass over the bytes costs.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Bytes copied a second, 1 MiB at a time.
pub(crate) fn copy(patience: Duration) -> f64 {
    let from = vec![1_u8; 1 << 20];
    let mut to = vec![0_u8; 1 << 20];
    repeat(patience, from.len(), || black_box(&mut to[..]).copy_from_slice(black_box(&from)))
}

/// Bytes checksummed a second, 64 KiB at a time.
pub(crate) fn crc32c(patience: Duration) -> f64 {
    let bytes = vec![1_u8; 64 << 10];
    repeat(patience, bytes.len(), || {
        black_box(crc32c::crc32c(black_box(&bytes)));
    })
}

fn repeat(patience: Duration, bytes: usize, mut pass: impl FnMut()) -> f64 {
    /// The clock is looked at only now and then.
    const PASSES: usize = 64;
    let started = Instant::now();
    let mut done = 0;
    while started.elapsed() < patience {
        (0..PASSES).for_each(|_| pass());
        done += PASSES * bytes;
    }
    done as f64 / started.elapsed().as_secs_f64()
}
