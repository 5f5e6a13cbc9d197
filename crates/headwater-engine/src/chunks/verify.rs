//! Reading a whole chunk to see whether it is what was written.

use crate::error::{IoContext, StoreError};
use crate::io::Disk;

use super::{BLOCK_BYTES, HEADER_BYTES, OpenChunk, path_of};

/// Bytes read at a time.
const READ_BYTES: usize = 16 * BLOCK_BYTES;

/// A stretch of a chunk that is not what was written, or cannot be read.
#[derive(Debug)]
pub(crate) struct BadBlock {
    /// First of its bytes, among the chunk's bytes.
    pub(crate) position: u64,
    /// How many.
    pub(crate) length: u64,
    /// What is wrong; its offset is one in the file.
    pub(crate) error: StoreError,
}

/// Reads all of a chunk. `go_on` is told how many bytes were read and may end the reading; `bad` is told of each block
/// that fails. Returns the number of bytes in the chunk.
///
/// # Errors
/// When the chunk's header, footer or table is bad: nothing of it can be read then.
pub(crate) fn verify(
    disk: &dyn Disk,
    container: u32,
    number: u64,
    go_on: &mut dyn FnMut(u64) -> bool,
    bad: &mut dyn FnMut(BadBlock),
) -> Result<u64, StoreError> {
    let path = path_of(container, number);
    let chunk = OpenChunk::open(disk, container, number)?;
    let mut header = [0; HEADER_BYTES];
    chunk.file.read_at(0, &mut header).on(&path, "read")?;
    if header[super::HEADER_USED_BYTES..].iter().any(|byte| *byte != 0) {
        return Err(StoreError::damaged(&path, super::HEADER_USED_BYTES as u64, "header is not followed by zeros"));
    }
    let mut buffer = vec![0; READ_BYTES];
    let mut position = 0;
    while position < chunk.length {
        let length = (READ_BYTES as u64).min(chunk.length - position) as usize;
        let whole = chunk.file.read_at(HEADER_BYTES as u64 + position, &mut buffer[..length]);
        for (at, block) in buffer[..length].chunks_mut(BLOCK_BYTES).enumerate() {
            let start = position + (at * BLOCK_BYTES) as u64;
            let offset = HEADER_BYTES as u64 + start;
            let read = match &whole {
                Ok(()) => Ok(()),
                // One bad sector must not hide the blocks around it.
                Err(_) => chunk.file.read_at(offset, block),
            };
            let (expected, found) = (chunk.sums[(start / BLOCK_BYTES as u64) as usize], crc32c::crc32c(block));
            let error = match read {
                Err(source) => StoreError::Io { path: path.clone(), action: "read", source },
                Ok(()) if expected != found => {
                    let what = format!("block has checksum {found:08x}, expected {expected:08x}");
                    StoreError::damaged(&path, offset, what)
                }
                Ok(()) => continue,
            };
            bad(BadBlock { position: start, length: block.len() as u64, error });
        }
        position += length as u64;
        if !go_on(length as u64) {
            break;
        }
    }
    Ok(chunk.length)
}
