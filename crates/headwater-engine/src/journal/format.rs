//! Bytes of a journal file: one header block, then frames, each beginning on a block boundary.
//!
//! ```text
//!   block 0        │ header: magic, format, store, file number, first frame number, checksum; at byte 512 marks
//!   block 1…       │ frame: 64-byte head, body, zeros up to the next block
//! ```
//!
//! A frame is what one sync makes durable: all records of one group commit. Its head and its body have checksums of
//! their own, so a rotten length is told from a rotten body. File number and store id keep a recycled file's old frames
//! from being taken for new ones.
//!
//! Marks are about the file before: how much of it a start need not read if checkpoints include what is said there. They
//! have a checksum of their own, and without them everything is read.

use std::collections::BTreeMap;

use super::includes;
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

/// Where marks stand in the block of a header.
pub(super) const MARKS_AT: usize = 512;
const MARKS_MAGIC: u32 = 0x4857_4d4b;
/// Bytes of marks without any, with their checksum.
const MARKS_BYTES: usize = 4 + 8 + 16 + 4 + 4;
const MARK_BYTES: usize = 8 + 8 + 4 + 4;
const MARK_EACH_BYTES: usize = 4 + 8;

/// A place in a file of the journal, which the next file's header remembers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Mark {
    /// Where a frame begins, or would.
    pub(super) position: u64,
    /// Its number.
    pub(super) frame: u64,
    /// Body checksum of the frame before it.
    pub(super) previous_sum: u32,
    /// Highest sequence of each container in the frames of the file that stand before it.
    pub(super) before: BTreeMap<u32, u64>,
}

impl Mark {
    /// Nothing before it in its file is needed by a start whose checkpoints include these sequences.
    pub(super) fn is_covered(&self, covered: &BTreeMap<u32, u64>) -> bool {
        self.before.iter().all(|(id, newest)| includes(covered, *id, *newest))
    }

    /// Puts marks of the file before into the block of a header: as many as there is room for, as far apart as possible, and
    /// the last.
    pub(super) fn encode_all(marks: &[Self], header: &FileHeader, block: &mut [u8]) {
        let Some(last) = marks.last() else { return };
        let room = BLOCK_BYTES as usize - MARKS_AT - MARKS_BYTES;
        // What stands before a place only grows.
        let fit = room / (MARK_BYTES + MARK_EACH_BYTES * last.before.len());
        if fit == 0 {
            return;
        }
        let chosen: Vec<_> = marks.iter().rev().step_by(marks.len().div_ceil(fit)).collect();
        let mut out = Encoder::default();
        out.u32(MARKS_MAGIC).u64(header.file).u128(header.store).u32(chosen.len() as u32);
        for mark in chosen.into_iter().rev() {
            out.u64(mark.position).u64(mark.frame).u32(mark.previous_sum).u32(mark.before.len() as u32);
            for (container, sequence) in &mark.before {
                out.u32(*container).u64(*sequence);
            }
        }
        let sum = crc32c::crc32c(&out.0);
        out.u32(sum);
        block[MARKS_AT..MARKS_AT + out.0.len()].copy_from_slice(&out.0);
    }

    /// The marks in the block of a header, in order, and where in it they end. None if they do not testify.
    pub(super) fn decode_all(block: &[u8], header: &FileHeader) -> (Vec<Self>, usize) {
        let parse = || -> Result<(Vec<Self>, usize), Malformed> {
            let bytes = block.get(MARKS_AT..).unwrap_or_default();
            let mut input = Decoder::new(bytes);
            if input.u32()? != MARKS_MAGIC || input.u64()? != header.file || input.u128()? != header.store {
                return Err(Malformed("no marks of this file"));
            }
            let mut marks = Vec::new();
            for _ in 0..input.u32()? {
                let (position, frame, previous_sum) = (input.u64()?, input.u64()?, input.u32()?);
                let mut before = BTreeMap::new();
                for _ in 0..input.u32()? {
                    before.insert(input.u32()?, input.u64()?);
                }
                marks.push(Self { position, frame, previous_sum, before });
            }
            let covered = bytes.len() - input.remaining();
            if crc32c::crc32c(&bytes[..covered]) != input.u32()? {
                return Err(Malformed("marks fail their checksum"));
            }
            Ok((marks, MARKS_AT + bytes.len() - input.remaining()))
        };
        parse().unwrap_or((Vec::new(), MARKS_AT))
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

    fn mark(number: u64, containers: u32) -> Mark {
        let before = (0..containers).map(|container| (container, 100 * number + u64::from(container))).collect();
        Mark { position: number * BLOCK_BYTES, frame: 2 * number, previous_sum: 3 * number as u32, before }
    }

    #[test]
    fn marks_come_back_and_any_flipped_bit_makes_them_none() {
        let marks: Vec<_> = (1..=16).map(|number| mark(number, 4)).collect();
        let mut block = HEADER.encode();
        Mark::encode_all(&marks, &HEADER, &mut block);
        assert_eq!(FileHeader::decode(&block), Ok(HEADER));
        let (found, end) = Mark::decode_all(&block, &HEADER);
        assert_eq!(found, marks);
        assert!(block[end - 4..end].iter().any(|byte| *byte != 0) && block[end..].iter().all(|byte| *byte == 0));
        for bit in MARKS_AT * 8..end * 8 {
            let mut rotten = block.clone();
            rotten[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Mark::decode_all(&rotten, &HEADER), (Vec::new(), MARKS_AT), "bit {bit}");
        }
        assert_eq!(Mark::decode_all(&block, &FileHeader { file: 4, ..HEADER }).0, []);
        assert_eq!(Mark::decode_all(&block, &FileHeader { store: 8, ..HEADER }).0, []);
        assert_eq!(Mark::decode_all(&HEADER.encode(), &HEADER).0, []);
    }

    #[test]
    fn of_more_marks_than_there_is_room_for_the_last_and_some_before_it_are_kept() {
        for (containers, kept) in [(40, 6), (250, 1), (1000, 0)] {
            let marks: Vec<_> = (1..=17).map(|number| mark(number, containers)).collect();
            let mut block = HEADER.encode();
            Mark::encode_all(&marks, &HEADER, &mut block);
            let (found, end) = Mark::decode_all(&block, &HEADER);
            assert!(end <= block.len());
            assert_eq!(found.len(), kept, "{containers} containers");
            assert!(found.iter().all(|mark| marks.contains(mark)) && found.is_sorted_by_key(|mark| mark.frame));
            assert_eq!(found.last(), marks.last().filter(|_| kept > 0));
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
