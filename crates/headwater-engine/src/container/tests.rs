//! What a catalogue says that no container ever wrote is damage, even behind checksums that are right.

use std::sync::Arc;

use super::keys::{self, IndexEntry, OFFSET_MAX, StoredRun};
use super::segment::Segment;
use super::{Container, tables};
use crate::Options;
use crate::api::{SegmentKind, SegmentPolicy};
use crate::catalogue::RunCache;
use crate::chunks::{BlockCache, Chunks, Directory, Place};
use crate::error::StoreError;
use crate::io::{Disk, MemoryDisk};
use crate::store::NoToken;

const TABLE: u64 = 7;

fn segment(entries: u64, live_bytes: u64) -> Segment<NoToken> {
    let kind = SegmentKind::Table { key_length: 0 };
    let mut segment = Segment::new("scope/table".into(), kind, SegmentPolicy::default(), 0);
    (segment.length, segment.entries, segment.live_bytes) = (100, entries, live_bytes);
    segment
}

fn container() -> Container<NoToken> {
    let disk = MemoryDisk::default();
    Container::<NoToken>::create(&disk, 0).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let cache = Arc::new(BlockCache::new(1 << 20));
    let chunks = Chunks::new(Arc::new(Directory::new(disk.clone())), 0, None, cache);
    let limits = Options::default().limits(1, 1 << 20);
    Container::open(&*disk, chunks, 0, limits, &RunCache::new(1 << 20)).unwrap().0
}

#[test]
fn a_tables_entry_that_is_longer_than_the_table_is_damage() {
    for (entries, live_bytes, stored_length) in [(1, 30, 20), (0, 0, 3)] {
        let mut container = container();
        container.segments.insert(TABLE, segment(entries, live_bytes));
        let stored = IndexEntry { version: 0, position: 0, value_length: stored_length };
        container.catalogue.put(keys::table_key(TABLE, b"key"), stored.encode());
        let update = tables::entry_of(b"key", b"new");
        let outcome = container.index_entries(TABLE, 100, &update);
        assert!(matches!(outcome, Err(StoreError::Damaged { .. })), "{outcome:?}");
    }
}

#[test]
fn positions_that_no_byte_can_have_are_damage() {
    let entry = |position, value_length| IndexEntry { version: 0, position, value_length };
    assert!(IndexEntry::decode(&entry(OFFSET_MAX, 1_000_000).encode()).is_ok());
    assert!(IndexEntry::decode(&entry(OFFSET_MAX + 1, 0).encode()).is_err());
    assert!(IndexEntry::decode(&entry(0, u32::MAX).encode()).is_err());

    let run = |start, end, position| {
        let run = StoredRun { start, end, place: Place { chunk: 1, position } };
        StoredRun::decode(&keys::piece(TABLE, end), &run.encode())
    };
    assert!(run(0, OFFSET_MAX, OFFSET_MAX).is_ok());
    for (start, end, position) in [(5, 5, 0), (6, 5, 0), (0, OFFSET_MAX + 1, 0), (0, 5, OFFSET_MAX + 1)] {
        assert!(run(start, end, position).is_err(), "{start} to {end} at {position}");
    }
}

#[test]
fn a_segment_that_begins_behind_its_end_or_has_more_keys_than_bytes_is_damage() {
    let decode = |segment: &Segment<NoToken>| Segment::<NoToken>::decode(&segment.encode()).map(drop);
    assert!(decode(&segment(2, 100)).is_ok());
    assert!(decode(&segment(2, 101)).is_err());
    assert!(decode(&segment(101, 100)).is_err());
    let mut backward = segment(0, 0);
    backward.start = 101;
    assert!(decode(&backward).is_err());
    backward.length = OFFSET_MAX + 1;
    assert!(decode(&backward).is_err());
}
