//! The queue of frames on their way out.

use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};
use headwater_wire::{FrameQueue, FrameSink, SHARE_BYTES_MIN};
use proptest::collection::vec;
use proptest::prelude::*;

#[test]
fn large_payloads_are_shared_and_small_ones_copied() {
    let (large, small) = (Bytes::from(vec![1; SHARE_BYTES_MIN]), Bytes::from(vec![2; SHARE_BYTES_MIN - 1]));
    let mut queue = FrameQueue::new();
    queue.put_slice(b"head");
    queue.put_shared(&large);
    queue.put_shared(&small);
    let mut slices = [IoSlice::new(b""); 8];
    assert_eq!(queue.chunks_vectored(&mut slices), 3);
    assert_eq!(&*slices[0], b"head");
    assert_eq!(slices[1].as_ptr(), large.as_ptr());
    assert_eq!(&*slices[2], &small[..]);
    assert_ne!(slices[2].as_ptr(), small.as_ptr());
}

proptest! {
    /// Whatever is put in and however it is taken out, the queue is the bytes in order.
    #[test]
    fn a_queue_is_its_bytes_in_order(steps in vec((0_usize..9000, any::<bool>(), 0_usize..9000), 1..30)) {
        let (mut queue, mut model) = (FrameQueue::new(), BytesMut::new());
        for (index, (length, shared, taken)) in steps.into_iter().enumerate() {
            let bytes = Bytes::from(vec![index as u8; length]);
            if shared {
                queue.put_shared(&bytes);
            } else {
                queue.put_slice(&bytes);
            }
            model.extend_from_slice(&bytes);
            let taken = taken.min(model.len());
            queue.advance(taken);
            model.advance(taken);
            prop_assert_eq!(queue.remaining(), model.len());
            prop_assert_eq!(queue.chunk().is_empty(), model.is_empty());
            let mut slices = [IoSlice::new(b""); 64];
            let filled = queue.chunks_vectored(&mut slices);
            let seen: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
            prop_assert_eq!(&seen[..], &model[..]);
        }
    }
}
