//! Append blocks: how a block and its end make one append.
//!
//! The length of a block is announced before its sender knows what will go into it. So its data is
//!
//! ```text
//!   whole events │ nothing, or Padding, or PartialEvent
//! ```
//!
//! and the end tells how many bytes are whole events. Padding and PartialEvent are frames inside the block: their own
//! header of 8 bytes and a payload that fills the block to its last byte. A partial event is the beginning of one more
//! event, whose rest is the end's data.

use bytes::{Bytes, BytesMut};

use crate::HEADER_BYTES;
use crate::error::{BlockMismatch, WireError};
use crate::frame;

/// Code of the filler without meaning.
pub(crate) const PADDING: i32 = -1;
/// Code of the filler that begins an event.
pub(crate) const PARTIAL_EVENT: i32 = -2;

/// What the end of a block says about its data.
pub(crate) struct BlockEnd {
    pub(crate) whole_bytes: i32,
    pub(crate) data: Bytes,
}

/// The data of the append. The block or a slice of it if the end adds nothing; pieces that have to be joined are copied
/// once.
pub(crate) fn assemble(block: Bytes, end: BlockEnd) -> Result<Bytes, WireError> {
    let block_bytes = block.len();
    let refused = |reason| WireError::Block { block_bytes, reason };
    let whole = usize::try_from(end.whole_bytes)
        .ok()
        .filter(|whole| *whole <= block_bytes)
        .ok_or(refused(BlockMismatch::WholeBytes { whole_bytes: end.whole_bytes }))?;
    let partial = if whole == block_bytes { None } else { partial_event(block.slice(whole..)).map_err(refused)? };
    match partial {
        None if !end.data.is_empty() => Err(refused(BlockMismatch::Unexpected { bytes: end.data.len() })),
        None if whole == block_bytes => Ok(block),
        None => Ok(frame::without_ballast(block.slice(..whole), block_bytes)),
        Some(partial) => Ok(join([block.slice(..whole), partial, end.data])),
    }
}

/// The payload of a partial event; `None` for padding.
fn partial_event(filler: Bytes) -> Result<Option<Bytes>, BlockMismatch> {
    let header = frame::peek(&filler).ok().flatten().ok_or(BlockMismatch::Filler)?;
    match header.code {
        _ if header.frame_bytes() != filler.len() => Err(BlockMismatch::Filler),
        PADDING => Ok(None),
        PARTIAL_EVENT => Ok(Some(filler.slice(HEADER_BYTES..))),
        _ => Err(BlockMismatch::Filler),
    }
}

fn join(pieces: [Bytes; 3]) -> Bytes {
    let mut filled = pieces.iter().filter(|piece| !piece.is_empty());
    if let (Some(only), None) = (filled.next(), filled.next()) {
        return only.clone();
    }
    let mut joined = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    for piece in &pieces {
        joined.extend_from_slice(piece);
    }
    joined.freeze()
}
