//! Files whose writes are durable when they return, the fast way and the ordinary way.
//!
//! The fast way is what a journal at its best does: a file that was filled with zeros once and is written over and over,
//! past the page cache (`O_DIRECT`), each write durable by itself (`RWF_DSYNC`): no length, no extent and no other
//! metadata changes. Where the file system refuses one of these, [`DurableFile`] falls back and [`Way`] says so.

use std::fs::File;
use std::io::IoSlice;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags};
use serde::Serialize;

use crate::error::{BenchError, Context};

/// What positions, lengths and addresses of direct I/O are multiples of. Every common device has blocks of 512 or 4096.
pub(crate) const ALIGNMENT: usize = 4096;

/// Bytes that start at a multiple of [`ALIGNMENT`]. The vector never grows, so they stay where they are.
#[derive(Debug)]
pub(crate) struct AlignedBuffer {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl AlignedBuffer {
    pub(crate) fn zeroed(length: usize) -> Self {
        let bytes = vec![0; length + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        assert!(start < ALIGNMENT, "every address is at most a page before a multiple of the page");
        Self { bytes, start, length }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.length]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }
}

/// How a file makes its writes durable.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub enum Way {
    /// `O_DIRECT` and `RWF_DSYNC`.
    #[serde(rename = "O_DIRECT + RWF_DSYNC")]
    DirectDsync,
    /// `O_DIRECT` and `fdatasync`: the system has no `RWF_DSYNC`.
    #[serde(rename = "O_DIRECT + fdatasync")]
    DirectSync,
    /// The page cache and `fdatasync`: asked for, or the file system refuses direct I/O.
    #[serde(rename = "buffered + fdatasync")]
    Buffered,
}

/// A file of fixed length, filled with zeros.
#[derive(Debug)]
pub(crate) struct DurableFile {
    file: File,
    way: Way,
    length: u64,
}

impl DurableFile {
    /// Creates the file the fast way, or the best that works.
    pub(crate) fn direct(path: &Path, length: u64) -> Result<Self, BenchError> {
        let open = |flags: OFlags| {
            let flags = flags.bits().cast_signed();
            File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .custom_flags(flags)
                .open(path)
        };
        let (file, way) = match open(OFlags::DIRECT) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
                (open(OFlags::empty()).on("create", path.display())?, Way::Buffered)
            }
            file => (file.on("create", path.display())?, Way::DirectDsync),
        };
        let mut made = Self { file, way, length };
        made.fill(path)?;
        if made.way == Way::DirectDsync {
            let block = AlignedBuffer::zeroed(ALIGNMENT);
            let slices = [IoSlice::new(block.bytes())];
            match rustix::io::pwritev2(&made.file, &slices, 0, ReadWriteFlags::DSYNC) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => made.way = Way::DirectSync,
                result => drop(result.on("write to", path.display())?),
            }
        }
        Ok(made)
    }

    /// Creates the file with zeros already in it, written through the page cache.
    pub(crate) fn buffered(path: &Path, length: u64) -> Result<Self, BenchError> {
        let file = File::options().read(true).write(true).create(true).truncate(true).mode(0o600).open(path);
        let mut made = Self { file: file.on("create", path.display())?, way: Way::Buffered, length };
        made.fill(path)?;
        Ok(made)
    }

    fn fill(&mut self, path: &Path) -> Result<(), BenchError> {
        let zeros = AlignedBuffer::zeroed(1 << 20);
        assert!(self.length.is_multiple_of(1 << 20), "lengths are whole mebibytes");
        for position in (0..self.length).step_by(1 << 20) {
            self.file.write_all_at(zeros.bytes(), position).on("fill", path.display())?;
        }
        self.file.sync_all().on("sync", path.display())
    }

    /// How writes are made durable.
    pub(crate) fn way(&self) -> Way {
        self.way
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Writes and returns once it is durable. With direct I/O all of position, length and address are aligned.
    pub(crate) fn write(&self, position: u64, bytes: &[u8]) -> Result<(), BenchError> {
        assert!(position + bytes.len() as u64 <= self.length, "the file never grows");
        if self.way != Way::DirectDsync {
            self.file.write_all_at(bytes, position).on("write", "the file")?;
            return self.file.sync_data().on("sync", "the file");
        }
        let mut written = 0;
        while written < bytes.len() {
            let slices = [IoSlice::new(&bytes[written..])];
            let at = position + written as u64;
            match rustix::io::pwritev2(&self.file, &slices, at, ReadWriteFlags::DSYNC) {
                Ok(0) => return Err(std::io::Error::from(std::io::ErrorKind::WriteZero)).on("write", "the file"),
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).on("write", "the file"),
            }
        }
        Ok(())
    }

    /// Reads whole blocks: past the page cache if the file is open for direct I/O.
    pub(crate) fn read(&self, position: u64, bytes: &mut [u8]) -> Result<(), BenchError> {
        self.file.read_exact_at(bytes, position).on("read", "the file")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_buffers_are_aligned_wherever_they_are_moved() {
        for length in [1, 4096, 70_000] {
            let buffer = AlignedBuffer::zeroed(length);
            let moved = Box::new(buffer);
            assert_eq!(moved.bytes().as_ptr().addr() % ALIGNMENT, 0);
            assert_eq!(moved.bytes().len(), length);
        }
    }

    #[test]
    fn what_was_written_the_fast_way_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let file = DurableFile::direct(&directory.path().join("file"), 1 << 20).unwrap();
        let mut block = AlignedBuffer::zeroed(2 * ALIGNMENT);
        block.bytes_mut().fill(7);
        file.write(ALIGNMENT as u64, block.bytes()).unwrap();
        let mut back = AlignedBuffer::zeroed(4 * ALIGNMENT);
        file.read(0, back.bytes_mut()).unwrap();
        let sevens: Vec<bool> =
            back.bytes().chunks(ALIGNMENT).map(|block| block.iter().all(|byte| *byte == 7)).collect();
        assert_eq!(sevens, [false, true, true, false]);
    }
}
