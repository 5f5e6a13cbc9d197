//! Reading a whole chunk to see whether it is what was written.

use bytes::Bytes;

use crate::error::StoreError;
use crate::io::Objects;

use super::format::{BLOCK_BYTES, HEADER_BYTES, HEADER_USED_BYTES};
use super::path_of;
use super::read::OpenChunk;

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
/// When the chunk's header, footer or table is bad: nothing of it can be read then. [`StoreError::Unreachable`], wherever it
/// is met: nothing is said about the rest then.
pub(crate) fn verify(
    objects: &dyn Objects,
    container: u32,
    number: u64,
    go_on: &mut dyn FnMut(u64) -> bool,
    bad: &mut dyn FnMut(BadBlock),
) -> Result<u64, StoreError> {
    let path = path_of(container, number);
    let chunk = OpenChunk::open(objects, container, number)?;
    let header = objects.get(&path, 0, HEADER_BYTES)?;
    if header[HEADER_USED_BYTES..].iter().any(|byte| *byte != 0) {
        return Err(StoreError::damaged(&path, HEADER_USED_BYTES as u64, "header is not followed by zeros"));
    }
    let mut position = 0;
    while position < chunk.length {
        let length = (READ_BYTES as u64).min(chunk.length - position) as usize;
        let whole = match objects.get(&path, HEADER_BYTES as u64 + position, length) {
            Err(error @ StoreError::Unreachable { .. }) => return Err(error),
            whole => whole,
        };
        for from in (0..length).step_by(BLOCK_BYTES) {
            let block_length = BLOCK_BYTES.min(length - from);
            let start = position + from as u64;
            let offset = HEADER_BYTES as u64 + start;
            let block: Result<Bytes, StoreError> = match &whole {
                Ok(bytes) => Ok(bytes.slice(from..from + block_length)),
                // One bad sector must not hide the blocks around it.
                Err(_) => objects.get(&path, offset, block_length),
            };
            let error = match block {
                Err(error @ StoreError::Unreachable { .. }) => return Err(error),
                Err(error) => error,
                Ok(block) => match chunk.check_block(start, &block) {
                    Err(error) => error,
                    Ok(()) => continue,
                },
            };
            bad(BadBlock { position: start, length: block_length as u64, error });
        }
        position += length as u64;
        if !go_on(length as u64) {
            break;
        }
    }
    Ok(chunk.length)
}
