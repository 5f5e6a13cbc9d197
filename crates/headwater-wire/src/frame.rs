//! Frames: an 8-byte header (`i32` code, `i32` payload length) and the payload.

use bytes::{Buf, Bytes, BytesMut};

use crate::error::WireError;
use crate::field::Reader;
use crate::{COPY_BYTES_MAX, FrameSink, HEADER_BYTES};

/// A header whose length is neither negative nor above the limit it was read with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) code: i32,
    pub(crate) payload_bytes: usize,
}

impl Header {
    /// Bytes of the whole frame.
    pub(crate) fn frame_bytes(self) -> usize {
        HEADER_BYTES + self.payload_bytes
    }

    /// Refuses a frame above `limit` bytes, header included.
    pub(crate) fn check_limit(self, limit: usize) -> Result<(), WireError> {
        let bytes = self.frame_bytes();
        if bytes > limit { Err(WireError::FrameTooLong { bytes, limit }) } else { Ok(()) }
    }
}

/// Reads the header at the front of `input`; `None` if it is not complete.
pub(crate) fn peek(input: &[u8]) -> Result<Option<Header>, WireError> {
    let Some(header) = input.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let word = |at: usize| i32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let length = word(4);
    let payload_bytes = usize::try_from(length).map_err(|_| WireError::NegativeLength { length })?;
    Ok(Some(Header { code: word(0), payload_bytes }))
}

/// Takes the complete frame at the front of `input` and gives its payload to `decode`. Small frames are decoded where
/// they stand, with copies of what is to be kept, and large ones are cut off the buffer and shared: see [`COPY_BYTES_MAX`].
pub(crate) fn cut<T>(
    input: &mut BytesMut,
    header: Header,
    decode: impl FnOnce(Reader<'_>) -> Result<T, WireError>,
) -> Result<T, WireError> {
    let frame_bytes = header.frame_bytes();
    assert!(input.len() >= frame_bytes, "the frame is complete");
    if frame_bytes <= COPY_BYTES_MAX {
        let decoded = decode(Reader::copying(&input[HEADER_BYTES..frame_bytes]));
        input.advance(frame_bytes);
        decoded
    } else {
        let mut frame = input.split_to(frame_bytes);
        frame.advance(HEADER_BYTES);
        decode(Reader::slicing(&frame.freeze()))
    }
}

/// The data, in an allocation of its own if it is clearly less than the `held_bytes` it would keep alive: padding and
/// bytes behind the last field cost their sender nothing, and the data may be kept for long.
pub(crate) fn without_ballast(data: Bytes, held_bytes: usize) -> Bytes {
    if data.len() < held_bytes / 4 * 3 { Bytes::copy_from_slice(&data) } else { data }
}

/// Code and payload of a buffer that holds one whole frame and nothing else.
pub(crate) fn split(frame: &Bytes) -> Result<(i32, Bytes), WireError> {
    match peek(frame)? {
        Some(header) if header.frame_bytes() == frame.len() => Ok((header.code, frame.slice(HEADER_BYTES..))),
        _ => Err(WireError::NotOneFrame { bytes: frame.len() }),
    }
}

pub(crate) fn put_header(code: i32, payload_bytes: usize, out: &mut impl FrameSink) {
    out.put_slice(&code.to_be_bytes());
    let length = i32::try_from(payload_bytes).expect("payloads are checked against a limit far below i32::MAX");
    out.put_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_that_is_a_small_part_of_what_it_holds_is_copied_out() {
        let frame = Bytes::from(vec![7; 1 << 20]);
        let owned = without_ballast(frame.slice(..100), frame.len());
        drop(frame);
        let kept = owned.try_into_mut().expect("nobody else has it").capacity();
        assert!(kept < 1000, "100 bytes keep {kept} alive");
        let frame = Bytes::from(vec![7; 1 << 20]);
        let most = without_ballast(frame.slice(..900_000), frame.len());
        assert_eq!(most.as_ptr(), frame.as_ptr(), "what is most of it is shared");
    }
}
