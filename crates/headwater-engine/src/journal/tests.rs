//! What the journal says after its files were cut, torn, rotted or recycled.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests damage the real files from outside")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::format::BLOCK_BYTES;
use super::{Journal, Record, Reserve, Witness};
use crate::error::StoreError;
use crate::io::{Disk, RealDisk};

const STORE: u128 = 0xABCD;
const FILE_BYTES: u64 = 64 << 10;
const FIRST: &str = "journal/0000000000000001.log";

/// Opens the journal below `root` and returns the sequences it replays.
fn open(root: &Path) -> Result<(Journal, Arc<Reserve>, Witness, Vec<u64>), StoreError> {
    open_covered(root, BTreeMap::new())
}

/// The same with checkpoints.
fn open_covered(
    root: &Path,
    covered: BTreeMap<u32, u64>,
) -> Result<(Journal, Arc<Reserve>, Witness, Vec<u64>), StoreError> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(root));
    disk.create_directory("journal").unwrap();
    let witness = Witness::open(&*disk, STORE)?;
    let mut replayed = Vec::new();
    let (journal, reserve) = Journal::open(disk, STORE, FILE_BYTES, &witness, &covered, |record| {
        let Some(record) = record else { return Ok(()) };
        assert_eq!(record.payload, payload(record.sequence), "a record brings its own bytes");
        replayed.push(record.sequence);
        Ok(())
    })?;
    reserve.fill()?;
    Ok((journal, reserve, witness, replayed))
}

fn payload(sequence: u64) -> Bytes {
    vec![sequence as u8; 100].into()
}

fn record(sequence: u64) -> Record {
    Record { container: 3, sequence, operation: sequence.to_be_bytes().to_vec(), payload: payload(sequence) }
}

fn commit(journal: &mut Journal, sequences: std::ops::RangeInclusive<u64>) {
    for sequence in sequences {
        journal.commit_all(&[record(sequence)]).unwrap();
    }
}

/// Changes one of the files in place.
fn damage(root: &Path, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(root.join(file)).unwrap();
    change(&mut bytes);
    std::fs::write(root.join(file), bytes).unwrap();
}

/// Where the frame of a sequence begins, with one record in each frame.
fn frame(sequence: u64) -> usize {
    (sequence * BLOCK_BYTES) as usize
}

#[test]
fn what_was_committed_is_replayed_in_order_over_many_files() {
    let root = tempfile::tempdir().unwrap();
    let (mut journal, ..) = open(root.path()).unwrap();
    commit(&mut journal, 1..=100);
    assert!(journal.files.len() > 5);
    drop(journal);
    let (_, _, _, replayed) = open(root.path()).unwrap();
    assert_eq!(replayed, (1..=100).collect::<Vec<_>>());
}

/// Writes a frame that was closed.
fn write(journal: &mut Journal, frame: Option<super::Frame>) {
    let frame = frame.expect("it was open");
    frame.write().unwrap();
    journal.wrote(frame);
}

#[test]
fn a_frame_may_be_put_together_before_the_one_before_is_written() {
    let root = tempfile::tempdir().unwrap();
    let (mut journal, ..) = open(root.path()).unwrap();
    assert!(journal.close_frame().is_none(), "nothing was added");
    assert_eq!(journal.add(&[record(1)]).unwrap(), 1);
    let first = journal.close_frame();
    assert_eq!(journal.add(&[record(2)]).unwrap(), 1);
    assert_eq!(journal.add(&[record(3), record(4)]).unwrap(), 2);
    let second = journal.close_frame();
    assert_eq!(second.as_ref().map(|frame| (frame.records, frame.newest.clone())), Some((3, [(3, 4)].into())));
    assert_eq!(journal.synced(), 0);
    write(&mut journal, first);
    assert_eq!(journal.synced(), 1);
    assert_eq!(open(root.path()).unwrap().3, [1], "what was not written is not there");

    let root = tempfile::tempdir().unwrap();
    let (mut journal, ..) = open(root.path()).unwrap();
    for sequence in [1, 3, 5] {
        journal.add(&[record(sequence)]).unwrap();
        let first = journal.close_frame();
        journal.add(&[record(sequence + 1)]).unwrap();
        write(&mut journal, first);
        let second = journal.close_frame();
        write(&mut journal, second);
    }
    assert_eq!((journal.synced(), journal.buffers.len()), (6, 2));
    assert_eq!(open(root.path()).unwrap().3, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_frame_takes_what_its_file_has_room_for() {
    let root = tempfile::tempdir().unwrap();
    let (mut journal, ..) = open(root.path()).unwrap();
    // 15 blocks behind the header; a record takes 128 bytes and its frame's head 64.
    let records: Vec<_> = (1..=1000).map(record).collect();
    let taken = journal.add(&records).unwrap();
    assert_eq!(taken, ((FILE_BYTES - BLOCK_BYTES) as usize - 64 - 4) / 128);
    assert_eq!(journal.add(&records[taken..]).unwrap(), 0, "it is full");
    let frame = journal.close_frame();
    assert!(journal.needs_file(&records[taken]));
    write(&mut journal, frame);
    journal.commit_all(&records[taken..]).unwrap();
    assert_eq!(open(root.path()).unwrap().3, (1..=1000).collect::<Vec<_>>());
}

#[test]
fn large_and_small_frames_have_the_sum_of_their_bodies() {
    let root = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(root.path()));
    disk.create_directory("journal").unwrap();
    let witness = Witness::open(&*disk, STORE).unwrap();
    let opened = || Journal::open(disk.clone(), STORE, 1 << 20, &witness, &BTreeMap::new(), |_| Ok(()));
    for length in [0, 1, (64 << 10) - 24, (64 << 10) - 23, 200_000] {
        let (mut journal, _) = opened().unwrap();
        let payload = vec![7; length].into();
        journal.commit_all(&[Record { container: 0, sequence: 1, operation: Vec::new(), payload }]).unwrap();
        let found = std::fs::read(root.path().join(&journal.current.path)).unwrap();
        let body =
            &found[(journal.current.position as usize - super::span(24 + length) as usize) + 64..][..24 + length];
        assert_eq!(crc32c::crc32c(body), journal.last_sum, "{length}");
    }
}

#[test]
#[should_panic(expected = "everything before a new file is durable")]
fn no_file_is_begun_while_a_frame_is_on_its_way() {
    let root = tempfile::tempdir().unwrap();
    let (mut journal, ..) = open(root.path()).unwrap();
    commit(&mut journal, 1..=14);
    assert!(!journal.needs_file(&record(15)), "15 frames fill a file");
    journal.add(&[record(15)]).unwrap();
    let _on_its_way = journal.close_frame();
    assert!(journal.needs_file(&record(16)));
    drop(journal.add(&[record(16)]));
}

#[test]
fn a_torn_tail_is_dropped_and_what_came_before_it_stays() {
    let root = tempfile::tempdir().unwrap();
    let (mut journal, ..) = open(root.path()).unwrap();
    commit(&mut journal, 1..=5);
    drop(journal);
    damage(root.path(), FIRST, |bytes| bytes[frame(5) + 80] ^= 1);
    let (mut journal, _, _, replayed) = open(root.path()).unwrap();
    assert_eq!(replayed, [1, 2, 3, 4]);
    assert_eq!(journal.discarded_bytes, BLOCK_BYTES);
    commit(&mut journal, 5..=7);
    drop(journal);
    assert_eq!(open(root.path()).unwrap().3, (1..=7).collect::<Vec<_>>());
}

#[test]
fn damage_that_a_later_frame_testifies_against_stops_the_store() {
    let root = tempfile::tempdir().unwrap();
    let (mut journal, ..) = open(root.path()).unwrap();
    commit(&mut journal, 1..=5);
    drop(journal);
    damage(root.path(), FIRST, |bytes| bytes[frame(3) + 80] ^= 1);
    let error = open(root.path()).map(|_| ()).unwrap_err().to_string();
    assert_eq!(error, format!("{FIRST} at byte {}: journal ends with frame 2, but frame 4 was durable", frame(3)));
}

#[test]
fn a_journal_that_was_cut_off_is_found_out_by_the_witness() {
    let root = tempfile::tempdir().unwrap();
    let (mut journal, _, mut witness, _) = open(root.path()).unwrap();
    commit(&mut journal, 1..=5);
    witness.testify(&RealDisk::new(root.path()), journal.synced()).unwrap();
    drop(journal);
    damage(root.path(), FIRST, |bytes| bytes[frame(5)..].fill(0));
    let error = open(root.path()).map(|_| ()).unwrap_err().to_string();
    assert!(error.ends_with("journal ends with frame 4, but frame 5 was durable"), "{error}");
}

#[test]
fn after_a_clean_stop_any_damage_is_damage() {
    let root = tempfile::tempdir().unwrap();
    let (mut journal, ..) = open(root.path()).unwrap();
    commit(&mut journal, 1..=5);
    journal.close().unwrap();
    drop(journal);
    damage(root.path(), FIRST, |bytes| bytes[frame(5) + 80] ^= 1);
    assert!(matches!(open(root.path()).map(|_| ()), Err(StoreError::Damaged { .. })));
}

#[test]
fn a_frame_nothing_testified_to_is_written_again_before_it_is_served() {
    let root = tempfile::tempdir().unwrap();
    let (mut journal, ..) = open(root.path()).unwrap();
    commit(&mut journal, 1..=5);
    drop(journal);
    assert_eq!(open(root.path()).unwrap().3.len(), 5);
    // The first copy stood in the page cache alone and is gone after a power cut.
    damage(root.path(), FIRST, |bytes| bytes[frame(5)..].fill(0));
    assert_eq!(open(root.path()).unwrap().3, [1, 2, 3, 4, 5]);
}

#[test]
fn a_start_passes_over_what_checkpoints_include() {
    let root = tempfile::tempdir().unwrap();
    let (mut journal, ..) = open(root.path()).unwrap();
    // 15 frames fill a file.
    commit(&mut journal, 1..=40);
    drop(journal);
    let replayed = |covered: &[(u32, u64)]| {
        open_covered(root.path(), covered.iter().copied().collect()).map(|(_, _, _, replayed)| replayed)
    };
    for none in [&[][..], &[(3, 0)], &[(9, 100)]] {
        assert_eq!(replayed(none).unwrap(), (1..=40).collect::<Vec<_>>(), "{none:?}");
    }
    assert_eq!(replayed(&[(3, 1)]).unwrap(), (2..=40).collect::<Vec<_>>());
    assert_eq!(replayed(&[(3, 15)]).unwrap(), (16..=40).collect::<Vec<_>>());
    assert_eq!(replayed(&[(3, 20)]).unwrap(), (21..=40).collect::<Vec<_>>());
    // Nobody has marks of the file that was being written to.
    assert_eq!(replayed(&[(3, 40)]).unwrap(), (31..=40).collect::<Vec<_>>());

    let (mut journal, ..) = open_covered(root.path(), BTreeMap::from([(3, 20)])).unwrap();
    assert_eq!(journal.replayed_bytes, 20 * BLOCK_BYTES, "the last frame once, although each start wrote it again");
    let files = journal.files.len();
    journal.release(&BTreeMap::from([(3, 20)])).unwrap();
    assert_eq!(journal.files.len(), files - 1, "the file whose end was not needed has records that are");
    drop(journal);
    assert_eq!(replayed(&[(3, 20)]).unwrap(), (21..=40).collect::<Vec<_>>());
}

#[test]
fn a_record_written_again_is_not_passed_over_by_marks_of_the_file_that_has_it_again() {
    let root = tempfile::tempdir().unwrap();
    let (mut journal, ..) = open(root.path()).unwrap();
    commit(&mut journal, 1..=5);
    drop(journal);
    // Frame 5 is written again to the second file; the next start finds both, and another container fills that file.
    for sequences in [1..=1, 2..=40] {
        let (mut journal, _, mut witness, _) = open(root.path()).unwrap();
        for sequence in sequences {
            journal.commit_all(&[Record { container: 9, ..record(sequence) }]).unwrap();
        }
        witness.testify(&RealDisk::new(root.path()), journal.synced()).unwrap();
    }
    // Only the second copy lasts.
    damage(root.path(), FIRST, |bytes| bytes[frame(5)..].fill(0));
    let (mut journal, _, _, replayed) = open_covered(root.path(), BTreeMap::from([(3, 4), (9, 40)])).unwrap();
    assert_eq!(journal.replayed_bytes / BLOCK_BYTES, 41, "frame 5 and what is behind it");
    assert_eq!(replayed[..5], [1, 2, 3, 4, 5], "{replayed:?}");
    journal.release(&BTreeMap::from([(3, 4), (9, 40)])).unwrap();
    drop(journal);
    let (_, _, _, replayed) = open_covered(root.path(), BTreeMap::from([(3, 4), (9, 40)])).unwrap();
    assert_eq!(replayed[0], 5, "{replayed:?}");
}

#[test]
fn damage_is_found_where_a_start_reads_and_rotten_marks_are_none() {
    let root = tempfile::tempdir().unwrap();
    let (mut journal, ..) = open(root.path()).unwrap();
    commit(&mut journal, 1..=40);
    drop(journal);
    let second = "journal/0000000000000002.log";
    let covered = || BTreeMap::from([(3, 20)]);
    let open_all = || open(root.path()).map(|(_, _, _, replayed)| replayed);
    let open_covered = || open_covered(root.path(), covered()).map(|(_, _, _, replayed)| replayed);
    damage(root.path(), FIRST, |bytes| bytes[frame(3) + 80] ^= 1);
    assert!(matches!(open_all(), Err(StoreError::Damaged { .. })));
    assert_eq!(open_covered().unwrap(), (21..=40).collect::<Vec<_>>());
    // Frame 21 is where the second file is begun.
    damage(root.path(), second, |bytes| bytes[frame(6) + 80] ^= 1);
    assert!(matches!(open_covered(), Err(StoreError::Damaged { .. })));
    damage(root.path(), second, |bytes| bytes[frame(6) + 80] ^= 1);
    damage(root.path(), second, |bytes| bytes[super::format::MARKS_AT + 10] ^= 1);
    assert!(matches!(open_covered(), Err(StoreError::Damaged { .. })), "the first file is read");
    damage(root.path(), FIRST, |bytes| bytes[frame(3) + 80] ^= 1);
    assert_eq!(open_covered().unwrap(), (1..=15).chain(21..=40).collect::<Vec<_>>());
}

#[test]
fn old_frames_in_a_recycled_file_are_not_taken_for_new_ones() {
    let root = tempfile::tempdir().unwrap();
    let (mut journal, ..) = open(root.path()).unwrap();
    commit(&mut journal, 1..=40);
    let covered = BTreeMap::from([(3, 39)]);
    journal.release(&covered).unwrap();
    assert_eq!(journal.files.len(), 1, "all but the current file are free");
    commit(&mut journal, 41..=60);
    drop(journal);
    let (_, _, _, replayed) = open(root.path()).unwrap();
    assert_eq!(replayed.last(), Some(&60));
    assert!(replayed.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{replayed:?}");
    assert!(replayed[0] > 1);
}

#[test]
fn a_file_is_kept_until_every_container_in_it_is_covered() {
    let root = tempfile::tempdir().unwrap();
    let (mut journal, ..) = open(root.path()).unwrap();
    journal.commit_all(&[Record { container: 9, ..record(1) }]).unwrap();
    commit(&mut journal, 1..=40);
    let files = journal.files.len();
    journal.release(&BTreeMap::from([(3, 40)])).unwrap();
    assert_eq!(journal.files.len(), files);
    assert_eq!(journal.pinning(&BTreeMap::from([(3, 40)])), [9]);
    journal.release(&BTreeMap::from([(3, 40), (9, 1)])).unwrap();
    assert_eq!(journal.files.len(), 1);
}

#[test]
fn a_journal_keeps_as_many_files_ready_as_it_uses_and_three() {
    let root = tempfile::tempdir().unwrap();
    let (mut journal, reserve, ..) = open(root.path()).unwrap();
    assert_eq!(reserve.ready(), 4);
    for _ in 0..4 {
        reserve.prepare().unwrap();
    }
    assert_eq!(reserve.ready(), 5, "one more is filled with zeros");
    // 15 frames fill a file.
    commit(&mut journal, 1..=40);
    assert_eq!((journal.files.len(), reserve.ready(), reserve.is_low()), (3, 6, false));
    journal.release(&BTreeMap::from([(3, 40)])).unwrap();
    assert_eq!((journal.files.len(), reserve.ready()), (1, 8), "what was used is kept");
    for turn in 0..200 {
        reserve.turn().unwrap();
        assert!(turn >= 60 || reserve.ready() == 8, "for a while");
    }
    assert_eq!((reserve.ready(), reserve.is_low()), (5, false), "as many as at the beginning");
    drop(journal);
    let (_, reserve, _, replayed) = open(root.path()).unwrap();
    // The newest frames are written again, to a file of their own.
    assert_eq!((reserve.ready(), replayed.len()), (5, 10));
}

#[test]
fn room_given_to_a_checkpoint_is_low_until_it_is_back() {
    let root = tempfile::tempdir().unwrap();
    let (mut journal, reserve, ..) = open(root.path()).unwrap();
    assert!(reserve.lend().unwrap());
    reserve.helped();
    assert!(reserve.lend().unwrap(), "the next checkpoint may need room, too");
    assert_eq!((reserve.ready(), reserve.is_low()), (2, true));
    commit(&mut journal, 1..=16);
    assert_eq!((reserve.ready(), reserve.is_low()), (1, true), "the reserve is used, and nothing else taken");
    assert!(!reserve.lend().unwrap(), "the last is for the next start");
    assert_eq!(reserve.take_reserved(), None, "and for nobody else");
    assert!(reserve.fill().unwrap());
    assert_eq!((reserve.ready(), reserve.is_low()), (5, false));
}

#[test]
fn checkpoints_that_were_given_room_in_vain_leave_that_of_records() {
    let root = tempfile::tempdir().unwrap();
    let (mut journal, reserve, ..) = open(root.path()).unwrap();
    assert!(reserve.lend().unwrap() && reserve.lend().unwrap());
    assert!(!reserve.lend().unwrap(), "what one file holds fits into two, merging included");
    assert_eq!((reserve.ready(), reserve.is_low()), (2, true));
    commit(&mut journal, 1..=16);
    assert_eq!((journal.files.len(), reserve.ready()), (2, 1), "one is for records");
    assert!(reserve.fill().unwrap());
    assert!((0..3).all(|_| reserve.lend().unwrap()), "two are in use");
    assert!(!reserve.lend().unwrap());
    assert_eq!(reserve.ready(), 2);
}
