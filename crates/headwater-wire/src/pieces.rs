//! Data of a read that lies in several places in memory.

use bytes::Bytes;

use crate::error::EncodeError;
use crate::field::{Field, Text};
use crate::{FRAME_PAYLOAD_BYTES_MAX, FrameSink, Reply};

/// [`Reply::SegmentRead`] with its data in pieces: the same frame, without joining them first.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentPieces {
    /// As in the request.
    pub segment: Text,
    /// The offset that was asked for, always.
    pub offset: i64,
    /// Nothing follows the data yet.
    pub at_tail: bool,
    /// The segment is sealed and the data reaches its end.
    pub end_of_segment: bool,
    /// The data, in order.
    pub data: Vec<Bytes>,
    /// As in the request.
    pub request_id: i64,
}

impl SegmentPieces {
    /// Appends the whole frame to `out`.
    ///
    /// # Errors
    /// Text or frame above its limit. Then `out` is untouched.
    pub fn encode(&self, out: &mut impl FrameSink) -> Result<(), EncodeError> {
        let Self { segment, offset, at_tail, end_of_segment, data, request_id } = self;
        let data_bytes: usize = data.iter().map(Bytes::len).sum();
        let around = segment.encoded_bytes()? + offset.encoded_bytes()? + at_tail.encoded_bytes()?;
        let around = around + end_of_segment.encoded_bytes()? + request_id.encoded_bytes()?;
        let (bytes, limit) = (around + 4 + data_bytes, FRAME_PAYLOAD_BYTES_MAX);
        if bytes > limit {
            return Err(EncodeError::FrameTooLong { bytes, limit });
        }
        let empty = Reply::SegmentRead {
            segment: segment.clone(),
            offset: *offset,
            at_tail: *at_tail,
            end_of_segment: *end_of_segment,
            data: Bytes::new(),
            request_id: *request_id,
        };
        crate::frame::put_header(empty.code(), bytes, out);
        segment.put(out);
        offset.put(out);
        at_tail.put(out);
        end_of_segment.put(out);
        i32::try_from(data_bytes).expect("checked against a limit far below i32::MAX").put(out);
        for piece in data {
            out.put_shared(piece);
        }
        request_id.put(out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    #[test]
    fn pieces_give_the_same_frame_as_the_whole() {
        let whole = Bytes::from((0..20_000_u32).map(|byte| byte as u8).collect::<Vec<_>>());
        for cuts in [vec![], vec![0], vec![1, 5000, 19_999], vec![20_000]] {
            let mut data = Vec::new();
            let mut from = 0;
            for cut in cuts {
                data.push(whole.slice(from..cut));
                from = cut;
            }
            data.push(whole.slice(from..));
            let segment = Text::from("scope/stream/0.#epoch.0");
            let pieces =
                SegmentPieces { segment, offset: 7, at_tail: true, end_of_segment: false, data, request_id: 42 };
            let mut out = BytesMut::new();
            pieces.encode(&mut out).unwrap();
            let expected = Reply::SegmentRead {
                segment: pieces.segment.clone(),
                offset: 7,
                at_tail: true,
                end_of_segment: false,
                data: whole.clone(),
                request_id: 42,
            };
            assert_eq!(Reply::from_frame(&out.freeze()).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_too_much_for_a_frame_leaves_the_queue_untouched() {
        let data = vec![Bytes::from(vec![0; 9 << 20]); 2];
        let segment = Text::from("s");
        let pieces = SegmentPieces { segment, offset: 0, at_tail: false, end_of_segment: false, data, request_id: 1 };
        let mut out = BytesMut::new();
        assert!(matches!(pieces.encode(&mut out), Err(EncodeError::FrameTooLong { .. })));
        assert!(out.is_empty());
    }
}
