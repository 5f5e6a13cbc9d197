//! The bytes of a chunk around those it is for.
//!
//! ```text
//!   │ header │ bytes of one or more pieces │ table of checksums │ footer │
//! ```

use bytes::Bytes;

use crate::codec::{Decoder, Encoder};
use crate::error::{StoreError, verify_sum};

const MAGIC: &[u8; 8] = b"HWCHUNK\x01";
const FORMAT: u32 = 1;
/// Magic, format, container, number, checksum; zeros follow.
pub(super) const HEADER_USED_BYTES: usize = 8 + 4 + 4 + 8 + 4;
/// Bytes before those of the pieces.
pub(super) const HEADER_BYTES: usize = 64;
/// Length of the bytes, checksum of the table, checksum of the footer.
pub(super) const FOOTER_BYTES: usize = 8 + 4 + 4;
/// Bytes under one checksum.
pub(super) const BLOCK_BYTES: usize = 64 << 10;

/// The first bytes of a chunk.
pub(super) fn header(container: u32, chunk: u64) -> Bytes {
    let mut header = Encoder::default();
    header.0.extend_from_slice(MAGIC);
    header.u32(FORMAT).u32(container).u64(chunk);
    let sum = crc32c::crc32c(&header.0);
    header.u32(sum);
    header.0.resize(HEADER_BYTES, 0);
    header.0.into()
}

/// Verifies the first bytes of a chunk.
pub(super) fn check_header(path: &str, header: &[u8], container: u32, chunk: u64) -> Result<(), StoreError> {
    let malformed = StoreError::malformed(path, 0);
    let mut input = Decoder::new(header);
    if input.take(8).map_err(&malformed)? != MAGIC {
        return Err(StoreError::damaged(path, 0, "not a chunk"));
    }
    let format = input.u32().map_err(&malformed)?;
    if format > FORMAT {
        return Err(StoreError::Newer { path: path.into(), found: format, known: FORMAT });
    }
    let owner = (input.u32().map_err(&malformed)?, input.u64().map_err(&malformed)?);
    let covered = header.len() - input.remaining();
    verify_sum(path, 0, "header", input.u32().map_err(&malformed)?, &header[..covered])?;
    if owner != (container, chunk) {
        let what = format!("chunk {} of container {}, expected {chunk} of {container}", owner.1, owner.0);
        return Err(StoreError::damaged(path, 0, what));
    }
    Ok(())
}

/// Collects the checksums of a chunk's bytes while they are added, wherever they are cut.
#[derive(Default)]
pub(super) struct Sums {
    length: u64,
    /// Of the block that is not complete yet.
    open: u32,
    table: Encoder,
}

impl Sums {
    pub(super) fn add(&mut self, mut part: &[u8]) {
        while !part.is_empty() {
            let filled = (self.length % BLOCK_BYTES as u64) as usize;
            let (now, later) = part.split_at(part.len().min(BLOCK_BYTES - filled));
            self.open = crc32c::crc32c_append(self.open, now);
            self.length += now.len() as u64;
            if filled + now.len() == BLOCK_BYTES {
                self.table.u32(std::mem::take(&mut self.open));
            }
            part = later;
        }
    }

    /// What follows the bytes: table and footer, [`tail_bytes`] long.
    pub(super) fn tail(mut self) -> Bytes {
        if !self.length.is_multiple_of(BLOCK_BYTES as u64) {
            self.table.u32(self.open);
        }
        let mut tail = self.table;
        let sum = crc32c::crc32c(&tail.0);
        let mut footer = Encoder::default();
        footer.u64(self.length).u32(sum);
        let sum = crc32c::crc32c(&footer.0);
        footer.u32(sum);
        tail.0.extend_from_slice(&footer.0);
        tail.0.into()
    }
}

/// Length of what follows `length` bytes of pieces.
pub(super) fn tail_bytes(length: u64) -> u64 {
    table_bytes(length) + FOOTER_BYTES as u64
}

fn table_bytes(length: u64) -> u64 {
    length.div_ceil(BLOCK_BYTES as u64) * 4
}

/// What the end of a chunk says.
pub(super) struct Footer {
    /// Bytes of pieces.
    pub(super) length: u64,
    table_sum: u32,
}

impl Footer {
    /// Verifies the last bytes of a chunk whose file has `size` bytes.
    pub(super) fn decode(path: &str, size: u64, footer: &[u8]) -> Result<Self, StoreError> {
        let footer_at = size - FOOTER_BYTES as u64;
        let malformed = StoreError::malformed(path, footer_at);
        let mut input = Decoder::new(footer);
        let (length, table_sum) = (input.u64().map_err(&malformed)?, input.u32().map_err(&malformed)?);
        let covered = footer.len() - input.remaining();
        verify_sum(path, footer_at, "footer", input.u32().map_err(&malformed)?, &footer[..covered])?;
        let footer = Self { length, table_sum };
        let fits = (HEADER_BYTES as u64).checked_add(length).and_then(|end| end.checked_add(footer.table_bytes()));
        if fits != Some(footer_at) {
            let what = format!("footer behind {length} bytes does not fit a file of {size}");
            return Err(StoreError::damaged(path, footer_at, what));
        }
        Ok(footer)
    }

    /// Length of the table of checksums.
    pub(super) fn table_bytes(&self) -> u64 {
        table_bytes(self.length)
    }

    /// Verifies the table and takes it apart.
    pub(super) fn sums(&self, path: &str, table: &[u8]) -> Result<Vec<u32>, StoreError> {
        verify_sum(path, HEADER_BYTES as u64 + self.length, "table of checksums", self.table_sum, table)?;
        Ok(table.chunks_exact(4).map(|sum| u32::from_be_bytes(sum.try_into().expect("four bytes"))).collect())
    }
}
