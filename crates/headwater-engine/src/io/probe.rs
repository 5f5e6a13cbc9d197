//! How long the disk below a directory takes to make a small write durable, along the paths the journal uses.
#![allow(clippy::disallowed_methods, reason = "measures the real disk in real time; the store itself never does")]

use std::io::{Error, Result};
use std::path::Path;
use std::time::{Duration, Instant};

use super::{BLOCK_BYTES, BlockBuffer, Disk, File, RealDisk};

/// Length of the file that is written to.
const FILE_BYTES: u64 = 8 << 20;

/// Times of single durable writes of 4 KiB, in the order they were made.
#[derive(Clone, Debug, Default)]
pub struct SyncTimes {
    /// Written through the page cache, then synced.
    pub buffered: Vec<Duration>,
    /// Written round the page cache and made durable in one call, as the journal does; as buffered where the file system
    /// cannot do that.
    pub direct: Vec<Duration>,
}

/// Measures at most `writes` writes of each kind, each kind for at most `patience`. Makes a file of 8 MiB called `name`
/// in `directory` and removes it.
///
/// # Errors
/// Those of the disk, the first of them; `AlreadyExists` if there is such a file.
pub fn sync_times(directory: &Path, name: &str, writes: usize, patience: Duration) -> Result<SyncTimes> {
    let disk = RealDisk::new(directory);
    let file = disk.create(name)?;
    let measured = measure(&disk, &*file, name, writes, patience);
    drop(file);
    let removed = disk.remove(name);
    let times = measured?;
    removed?;
    Ok(times)
}

fn measure(disk: &RealDisk, file: &dyn File, name: &str, writes: usize, patience: Duration) -> Result<SyncTimes> {
    // As the journal's spares: allocated and filled, so that a write changes no metadata.
    file.allocate(FILE_BYTES)?;
    let zeros = vec![0; 1 << 20];
    for position in (0..FILE_BYTES).step_by(zeros.len()) {
        file.write_at(position, &zeros)?;
    }
    file.sync()?;
    let mut block = BlockBuffer::default();
    block.resize(BLOCK_BYTES);
    let direct = disk.open_direct(name)?;
    let mut times = SyncTimes::default();
    let mut each = |write: &dyn Fn(u64, &[u8]) -> Result<()>, times: &mut Vec<Duration>| {
        let begun = Instant::now();
        for count in 0..writes as u64 {
            block.as_mut_slice().fill((count % 255) as u8 + 1);
            let started = Instant::now();
            write(count * BLOCK_BYTES as u64 % FILE_BYTES, block.as_slice())?;
            times.push(started.elapsed());
            if begun.elapsed() > patience {
                break;
            }
        }
        Ok::<_, Error>(())
    };
    each(
        &|offset, data| {
            file.write_at(offset, data)?;
            file.sync()
        },
        &mut times.buffered,
    )?;
    each(&|offset, data| direct.write_durable(offset, data), &mut times.direct)?;
    Ok(times)
}

#[test]
fn a_probe_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let times = sync_times(directory.path(), "probe", 5, Duration::from_secs(5)).unwrap();
    assert!(!times.buffered.is_empty() && !times.direct.is_empty());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}
