//! Values for tests.

use headwater_types::{KeyRange, Name, ScopedStream, SegmentId, StreamSegment};
use proptest::collection::btree_map;
use proptest::option;
use proptest::prelude::*;

use crate::{Cut, Offsets, Ranges, StreamCut, input};

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

pub(crate) fn stream(text: &str) -> ScopedStream {
    input::stream(text).unwrap()
}

pub(crate) fn segment(text: &str) -> StreamSegment {
    input::segment(text).unwrap()
}

pub(crate) fn any_id() -> impl Strategy<Value = SegmentId> {
    (0..i32::MAX, 0..0x3fff_ffff_i32).prop_map(|(number, epoch)| SegmentId::new(number >> (epoch & 31), epoch))
}

pub(crate) fn any_stream() -> impl Strategy<Value = ScopedStream> {
    let name = || "_?[a-z0-9.-]{1,6}".prop_map(|text| Name::parse(&text).unwrap());
    (name(), name()).prop_map(|(scope, stream)| ScopedStream { scope, stream })
}

pub(crate) fn any_segment() -> impl Strategy<Value = StreamSegment> {
    (any_stream(), any_id()).prop_map(|(stream, id)| StreamSegment { stream, id })
}

pub(crate) fn any_range() -> impl Strategy<Value = KeyRange> {
    (0.0..1.0, 0.0..1.0)
        .prop_map(|(low, width): (f64, f64)| KeyRange::new(low, (low + width).min(1.0)).unwrap_or(KeyRange::FULL))
}

pub(crate) fn any_offsets() -> impl Strategy<Value = Offsets> {
    btree_map(any_segment(), any::<i64>(), 0..4)
}

pub(crate) fn any_ranges() -> impl Strategy<Value = Ranges> {
    btree_map(any_segment(), option::of(any_range()), 0..4)
}

pub(crate) fn any_cut() -> impl Strategy<Value = Cut> {
    let offsets = btree_map(any_id(), (-1_i64 << 61)..1 << 61, 0..5);
    let at = (any_stream(), offsets).prop_map(|(stream, offsets)| Cut::At(StreamCut { stream, offsets }));
    prop_oneof![Just(Cut::Unbounded), at]
}
