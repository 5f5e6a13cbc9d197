//! Bytes of a journal file: one header block, then frames, each beginning on a block boundary.
//!
//! ```text
//!   block 0        │ header: magic, format, store, file number, first frame number, checksum
//!   block 1…       │ frame: 64-byte head, body, zeros up to the next block
//! ```
//!
//! A frame is what one sync makes durable: all records of one group commit. Its head and its body have checksums of
//! their own, so a rotten length is told from a rotten body. File number and store id keep a recycled file's old frames
//! from being taken for new ones.

use crate::codec::{Decoder, Encoder, Malformed};

/// Frames begin at multiples of this.
pub(super) const BLOCK_BYTES: u64 = 4096;
const _: () = assert!((BLOCK_BYTES as usize).is_multiple_of(crate::io::BLOCK_BYTES), "frames can be written directly");
/// Bytes of a frame's head.
pub(super) const HEAD_BYTES: usize = 64;
/// Version of everything in this directory.
pub(super) const FORMAT: u32 = 1;

const FILE_MAGIC: &[u8; 8] = b"HWJOURN\x01";
const FRAME_MAGIC: u32 = 0x4857_4652;

/// First block of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct FileHeader {
    pub(super) store: u128,
    /// Grows by one per file; the file's name says the same.
    pub(super) file: u64,
    /// Every frame before this one was durable when the file was taken into use.
    pub(super) first_frame: u64,
}

/// Why a header block cannot be used.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum HeaderError {
    Damaged,
    Newer(u32),
}

impl FileHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.0.extend_from_slice(FILE_MAGIC);
        out.u32(FORMAT).u128(self.store).u64(self.file).u64(self.first_frame);
        let sum = crc32c::crc32c(&out.0);
        out.u32(sum);
        out.0.resize(BLOCK_BYTES as usize, 0);
        out.0
    }

    pub(super) fn decode(block: &[u8]) -> Result<Self, HeaderError> {
        fn fields(block: &[u8]) -> Result<(u32, FileHeader, u32, u32), Malformed> {
            let mut input = Decoder::new(block);
            if input.take(8)? != FILE_MAGIC {
                return Err(Malformed("not a journal file"));
            }
            let format = input.u32()?;
            let header = FileHeader { store: input.u128()?, file: input.u64()?, first_frame: input.u64()? };
            let covered = block.len() - input.remaining();
            Ok((format, header, crc32c::crc32c(&block[..covered]), input.u32()?))
        }
        let (format, header, computed, stored) = fields(block).map_err(|_| HeaderError::Damaged)?;
        // The format stands before the checksum is believed: a newer release may lay out the rest differently.
        if format > FORMAT {
            return Err(HeaderError::Newer(format));
        }
        if computed == stored { Ok(header) } else { Err(HeaderError::Damaged) }
    }
}

/// What a frame is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FrameKind {
    /// Records of a group commit.
    Records,
    /// The store was closed in good order; nothing was under way.
    Close,
}

/// First bytes of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct FrameHead {
    pub(super) kind: FrameKind,
    pub(super) file: u64,
    pub(super) store: u128,
    /// Counts frames over the life of the store, without gaps.
    pub(super) frame: u64,
    /// Every frame up to this one was known to be durable when this one was written.
    pub(super) synced: u64,
    /// Body checksum of the frame before: a frame cannot be taken for the successor of another history.
    pub(super) previous_sum: u32,
    pub(super) body_length: u32,
    pub(super) body_sum: u32,
}

impl FrameHead {
    pub(super) fn encode(&self, out: &mut [u8]) {
        let mut head = Encoder::default();
        head.u32(FRAME_MAGIC).u8(match self.kind {
            FrameKind::Records => 1,
            FrameKind::Close => 2,
        });
        head.u64(self.file).u128(self.store).u64(self.frame).u64(self.synced);
        head.u32(self.previous_sum).u32(self.body_length).u32(self.body_sum);
        let sum = crc32c::crc32c(&head.0);
        head.u32(sum);
        out[..head.0.len()].copy_from_slice(&head.0);
        out[head.0.len()..HEAD_BYTES].fill(0);
    }

    /// `None`: no frame of this file begins here, as far as anyone can tell.
    pub(super) fn decode(bytes: &[u8], header: &FileHeader) -> Option<Self> {
        let parse = || -> Result<(Self, bool), Malformed> {
            let mut input = Decoder::new(bytes);
            if input.u32()? != FRAME_MAGIC {
                return Err(Malformed("not a frame"));
            }
            let kind = match input.u8()? {
                1 => FrameKind::Records,
                2 => FrameKind::Close,
                _ => return Err(Malformed("frame of unknown kind")),
            };
            let head = Self {
                kind,
                file: input.u64()?,
                store: input.u128()?,
                frame: input.u64()?,
                synced: input.u64()?,
                previous_sum: input.u32()?,
                body_length: input.u32()?,
                body_sum: input.u32()?,
            };
            let covered = bytes.len() - input.remaining();
            Ok((head, crc32c::crc32c(&bytes[..covered]) == input.u32()?))
        };
        let (head, intact) = parse().ok()?;
        (intact && head.file == header.file && head.store == header.store).then_some(head)
    }

    /// Bytes from the start of this frame to where the next may begin.
    pub(super) fn span(&self) -> u64 {
        span(self.body_length as usize)
    }
}

/// Bytes a frame with a body of this length takes up in its file.
pub(super) fn span(body_length: usize) -> u64 {
    (HEAD_BYTES as u64 + body_length as u64).next_multiple_of(BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: FileHeader = FileHeader { store: 7, file: 3, first_frame: 12 };

    fn head() -> FrameHead {
        FrameHead {
            kind: FrameKind::Records,
            file: 3,
            store: 7,
            frame: 12,
            synced: 11,
            previous_sum: 5,
            body_length: 100,
            body_sum: 9,
        }
    }

    #[test]
    fn a_header_block_comes_back_and_any_flipped_bit_is_seen() {
        let block = HEADER.encode();
        assert_eq!(FileHeader::decode(&block), Ok(HEADER));
        for bit in 0..48 * 8 {
            let mut rotten = block.clone();
            rotten[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(FileHeader::decode(&rotten), Ok(HEADER), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let mut block = HEADER.encode();
        block[11] = 2;
        assert_eq!(FileHeader::decode(&block), Err(HeaderError::Newer(2)));
    }

    #[test]
    fn a_frame_head_comes_back_and_any_flipped_bit_hides_it() {
        let mut bytes = vec![0; HEAD_BYTES];
        head().encode(&mut bytes);
        assert_eq!(FrameHead::decode(&bytes, &HEADER), Some(head()));
        for bit in 0..61 * 8 {
            let mut rotten = bytes.clone();
            rotten[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHead::decode(&rotten, &HEADER), None, "bit {bit}");
        }
    }

    #[test]
    fn frames_of_another_file_are_not_ours() {
        let mut bytes = vec![0; HEAD_BYTES];
        head().encode(&mut bytes);
        assert_eq!(FrameHead::decode(&bytes, &FileHeader { file: 4, ..HEADER }), None);
        assert_eq!(FrameHead::decode(&bytes, &FileHeader { store: 8, ..HEADER }), None);
    }
}
