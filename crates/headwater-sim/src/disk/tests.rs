//! The rules of the disk, one by one, and the disk against the real one.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use headwater_engine::io::{Disk, RealDisk};

use super::*;

/// What a program finds under these names after many power cuts: file contents, `None` for an absent file.
fn outcomes(disk: &SimDisk, paths: &[&str]) -> BTreeSet<Vec<Option<String>>> {
    let image = disk.image();
    let find = |seed| {
        let found = image.power_cut(seed);
        paths.iter().map(|path| found.bytes(path).ok().map(|bytes| String::from_utf8(bytes).unwrap())).collect()
    };
    (0..400).map(find).collect()
}

#[track_caller]
fn check(disk: &SimDisk, paths: &[&str], expected: &[&[Option<&str>]]) {
    let expected = expected.iter().map(|row| row.iter().map(|text| text.map(str::to_owned)).collect()).collect();
    assert_eq!(outcomes(disk, paths), expected);
}

/// A file that is on the disk for good.
fn durable(disk: &SimDisk, path: &str, text: &str) -> Arc<dyn File> {
    let file = disk.create(path).unwrap();
    file.write_at(0, text.as_bytes()).unwrap();
    file.sync().unwrap();
    disk.sync_directory(parent(path)).unwrap();
    file
}

fn parent(path: &str) -> &str {
    image::parent(path)
}

#[test]
fn what_was_synced_is_found_again() {
    let disk = SimDisk::new(1);
    durable(&disk, "a", "text");
    check(&disk, &["a"], &[&[Some("text")]]);
}

#[test]
fn an_unsynced_overwrite_of_one_sector_is_there_or_not() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", "old");
    file.write_at(0, b"new").unwrap();
    // Torn within its one sector it may also be garbage.
    let image = disk.image();
    let found: BTreeSet<Vec<u8>> = (0..400).map(|seed| image.power_cut(seed).bytes("a").unwrap()).collect();
    assert!(found.contains(&b"old"[..]) && found.contains(&b"new"[..]), "{found:?}");
    assert!(found.iter().all(|bytes| bytes.len() == 3), "{found:?}");
}

#[test]
fn a_length_that_was_not_synced_is_old_or_new_and_its_bytes_may_be_zeros() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", "12");
    file.write_at(2, b"34").unwrap();
    let image = disk.image();
    let found: BTreeSet<Vec<u8>> = (0..1000).map(|seed| image.power_cut(seed).bytes("a").unwrap()).collect();
    for expected in [&b"12"[..], b"1234", b"12\0\0"] {
        assert!(found.contains(expected), "{expected:?} in {found:?}");
    }
    assert!(found.iter().all(|bytes| bytes.starts_with(b"12") && [2, 4].contains(&bytes.len())), "{found:?}");
}

#[test]
fn a_torn_write_keeps_an_arbitrary_subset_of_its_sectors() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", &"o".repeat(2048));
    file.write_at(256, &[b'n'; 1536]).unwrap();
    let image = disk.image();
    let mut shapes = BTreeSet::new();
    for seed in 0..3000 {
        let bytes = image.power_cut(seed).bytes("a").unwrap();
        assert_eq!(bytes.len(), 2048);
        assert!(bytes[..256].iter().chain(&bytes[1792..]).all(|byte| *byte == b'o'), "bytes nobody wrote changed");
        let pieces = [256..512, 512..1024, 1024..1536, 1536..1792].map(|range| {
            let piece = &bytes[range];
            if piece.iter().all(|byte| *byte == b'o') {
                'o'
            } else if piece.iter().all(|byte| *byte == b'n') {
                'n'
            } else {
                'g'
            }
        });
        shapes.insert(pieces.iter().collect::<String>());
    }
    for shape in ["oooo", "nnnn", "nooo", "ooon", "onon", "nonn"] {
        assert!(shapes.contains(shape), "{shape} in {shapes:?}");
    }
    assert!(shapes.iter().any(|shape| shape.contains('g')));
}

#[test]
fn unsynced_writes_have_no_order() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", &"-".repeat(1024));
    file.write_at(0, &[b'1'; 512]).unwrap();
    file.write_at(512, &[b'2'; 512]).unwrap();
    let image = disk.image();
    let found: BTreeSet<(u8, u8)> =
        (0..400).map(|seed| image.power_cut(seed).bytes("a").unwrap()).map(|bytes| (bytes[0], bytes[512])).collect();
    for expected in [(b'-', b'-'), (b'1', b'-'), (b'-', b'2'), (b'1', b'2')] {
        assert!(found.contains(&expected), "{expected:?}");
    }
}

#[test]
fn an_unsynced_cut_leaves_the_old_or_the_new_length() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", "text");
    file.set_length(2).unwrap();
    check(&disk, &["a"], &[&[Some("text")], &[Some("te")]]);
    file.sync().unwrap();
    check(&disk, &["a"], &[&[Some("te")]]);
}

#[test]
fn growing_after_a_cut_shows_zeros() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", "text");
    file.set_length(2).unwrap();
    file.set_length(4).unwrap();
    file.sync().unwrap();
    assert_eq!(disk.bytes("a").unwrap(), b"te\0\0");
    check(&disk, &["a"], &[&[Some("te\0\0")]]);
}

#[test]
fn syncing_a_file_does_not_make_its_name_durable() {
    let disk = SimDisk::new(1);
    let file = disk.create("a").unwrap();
    file.write_at(0, b"text").unwrap();
    file.sync().unwrap();
    check(&disk, &["a"], &[&[None], &[Some("text")]]);
}

#[test]
fn syncing_a_directory_does_not_make_the_contents_durable() {
    let disk = SimDisk::new(1);
    let file = disk.create("a").unwrap();
    file.set_length(1).unwrap();
    disk.sync_directory("").unwrap();
    check(&disk, &["a"], &[&[Some("")], &[Some("\0")]]);
}

#[test]
fn a_file_created_and_renamed_has_no_name_the_old_one_or_the_new_one() {
    let disk = SimDisk::new(1);
    let file = disk.create("a.new").unwrap();
    file.write_at(0, b"text").unwrap();
    file.sync().unwrap();
    disk.rename("a.new", "a").unwrap();
    check(&disk, &["a.new", "a"], &[&[None, None], &[Some("text"), None], &[None, Some("text")]]);
    disk.sync_directory("").unwrap();
    check(&disk, &["a.new", "a"], &[&[None, Some("text")]]);
}

#[test]
fn a_rename_over_a_file_leaves_one_of_the_two_and_never_none() {
    let disk = SimDisk::new(1);
    durable(&disk, "a", "old");
    durable(&disk, "b", "new");
    disk.rename("b", "a").unwrap();
    check(&disk, &["a", "b"], &[&[Some("old"), Some("new")], &[Some("new"), None]]);
    disk.sync_directory("").unwrap();
    check(&disk, &["a", "b"], &[&[Some("new"), None]]);
}

#[test]
fn a_removal_that_was_not_synced_happened_or_not() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", "text");
    disk.remove("a").unwrap();
    let mut still = [0; 4];
    file.read_at(0, &mut still).unwrap();
    assert_eq!(&still, b"text");
    check(&disk, &["a"], &[&[None], &[Some("text")]]);
    disk.sync_directory("").unwrap();
    check(&disk, &["a"], &[&[None]]);
}

#[test]
fn a_rotation_never_loses_the_file_it_moved_aside() {
    let disk = SimDisk::new(1);
    durable(&disk, "log", "first");
    disk.rename("log", "log.1").unwrap();
    let next = disk.create("log").unwrap();
    next.sync().unwrap();
    check(&disk, &["log", "log.1"], &[&[Some("first"), None], &[None, Some("first")], &[Some(""), Some("first")]]);
}

#[test]
fn a_name_used_twice_survives_in_order() {
    let disk = SimDisk::new(1);
    durable(&disk, "a", "1");
    disk.remove("a").unwrap();
    let second = disk.create("a").unwrap();
    second.write_at(0, b"2").unwrap();
    second.sync().unwrap();
    check(&disk, &["a"], &[&[Some("1")], &[None], &[Some("2")]]);
}

#[test]
fn a_rename_across_directories_needs_both_synced() {
    let disk = SimDisk::new(1);
    for directory in ["x", "y"] {
        disk.create_directory(directory).unwrap();
    }
    disk.sync_directory("").unwrap();
    durable(&disk, "x/a", "text");
    disk.rename("x/a", "y/a").unwrap();
    disk.sync_directory("x").unwrap();
    check(&disk, &["x/a", "y/a"], &[&[Some("text"), None], &[None, Some("text")]]);
    disk.sync_directory("y").unwrap();
    check(&disk, &["x/a", "y/a"], &[&[None, Some("text")]]);
}

#[test]
fn what_lies_in_a_directory_is_lost_with_it() {
    let disk = SimDisk::new(1);
    disk.create_directory("x").unwrap();
    durable(&disk, "x/a", "text");
    check(&disk, &["x/a"], &[&[None], &[Some("text")]]);
    disk.sync_directory("").unwrap();
    check(&disk, &["x/a"], &[&[Some("text")]]);
}

#[test]
fn after_a_failed_sync_the_new_bytes_are_seen_until_the_power_cut() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", &"o".repeat(4096));
    let fail = Faults { fail_syncs: [disk.counts().syncs].into(), ..Faults::default() };
    disk.set_faults(fail);
    file.write_at(0, &[b'n'; 4096]).unwrap();
    assert!(file.sync().is_err());
    assert_eq!(disk.bytes("a").unwrap(), [b'n'; 4096]);
    file.sync().unwrap();
    assert_eq!(disk.image().process_kill(1).bytes("a").unwrap(), [b'n'; 4096], "a new process sees the cache");
    // What happened to the pages was decided when the sync failed; the second sync did not write them.
    let found: BTreeSet<Vec<u8>> = (0..50).map(|seed| disk.image().power_cut(seed).bytes("a").unwrap()).collect();
    assert_eq!(found.len(), 1);
    file.write_at(0, b"later").unwrap();
    file.sync().unwrap();
    let bytes = disk.image().power_cut(1).bytes("a").unwrap();
    assert!(bytes.starts_with(b"later"));
    assert_eq!(bytes[5..], found.first().unwrap()[5..]);
}

#[test]
fn some_failed_sync_loses_everything() {
    let lost = (0..50).filter(|seed| {
        let disk = SimDisk::new(*seed);
        let file = durable(&disk, "a", "old");
        disk.set_faults(Faults { fail_syncs: [disk.counts().syncs].into(), ..Faults::default() });
        file.write_at(0, b"new").unwrap();
        assert!(file.sync().is_err());
        disk.image().power_cut(0).bytes("a").unwrap() == b"old"
    });
    assert!(lost.count() > 5);
}

#[test]
fn a_failed_sync_can_show_the_old_bytes_at_once() {
    let seen: BTreeSet<Vec<u8>> = (0..50)
        .map(|seed| {
            let disk = SimDisk::new(seed);
            let file = durable(&disk, "a", "old");
            let fail_syncs = [disk.counts().syncs].into();
            let after_failed_sync = AfterFailedSync::OldAtOnce;
            disk.set_faults(Faults { fail_syncs, after_failed_sync, ..Faults::default() });
            file.write_at(0, b"new").unwrap();
            assert!(file.sync().is_err());
            let seen = disk.bytes("a").unwrap();
            assert_eq!(disk.image().power_cut(9).bytes("a").unwrap(), seen);
            seen
        })
        .collect();
    assert!(seen.contains(&b"old"[..]));
}

#[test]
fn a_failed_directory_sync_leaves_the_name_in_doubt_until_one_succeeds() {
    let disk = SimDisk::new(1);
    let file = disk.create("a").unwrap();
    file.sync().unwrap();
    disk.set_faults(Faults { fail_syncs: [disk.counts().syncs].into(), ..Faults::default() });
    assert!(disk.sync_directory("").is_err());
    check(&disk, &["a"], &[&[None], &[Some("")]]);
    disk.sync_directory("").unwrap();
    check(&disk, &["a"], &[&[Some("")]]);
}

#[test]
fn a_full_disk_takes_what_fits_and_lets_the_rest_be_overwritten() {
    let disk = SimDisk::new(1);
    disk.set_faults(Faults { capacity: Some(6), ..Faults::default() });
    let file = disk.create("a").unwrap();
    file.write_at(0, b"1234").unwrap();
    assert_eq!(file.write_at(4, b"5678").unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(disk.bytes("a").unwrap(), b"123456");
    assert_eq!(file.set_length(7).unwrap_err().kind(), ErrorKind::StorageFull);
    file.write_at(0, b"abcd").unwrap();
    file.set_length(3).unwrap();
    file.write_at(3, b"def").unwrap();
    disk.remove("a").unwrap();
    assert_eq!(disk.create("b").unwrap().set_length(1).unwrap_err().kind(), ErrorKind::StorageFull, "still held open");
    drop(file);
    disk.open("b").unwrap().set_length(6).unwrap();
}

#[test]
fn an_injected_error_hits_the_call_it_was_meant_for() {
    let disk = SimDisk::new(1);
    disk.set_faults(Faults { error_at_calls: [1].into(), ..Faults::default() });
    let file = disk.create("a").unwrap();
    assert_eq!(file.write_at(0, b"text").unwrap_err().raw_os_error(), Some(5));
    file.write_at(0, b"text").unwrap();
    assert_eq!(disk.bytes("a").unwrap(), b"text");
}

#[test]
fn after_the_crash_every_call_fails_and_the_disk_can_be_restarted() {
    let disk = SimDisk::new(1);
    disk.set_faults(Faults { crash_at_call: Some(5), ..Faults::default() });
    let file = durable(&disk, "a", "text");
    drop(disk.open("a").unwrap());
    for error in [file.sync().unwrap_err(), disk.open("a").err().unwrap(), disk.list("").unwrap_err()] {
        assert!(Crashed::caused(&error), "{error}");
    }
    assert!(disk.is_crashed());
    let again = disk.image().power_cut(1);
    assert_eq!(again.bytes("a").unwrap(), b"text");
    assert_eq!(again.list("").unwrap(), ["a"]);
}

#[test]
fn a_program_that_dies_within_a_write_leaves_some_of_its_sectors_and_dies_before_any_other_call() {
    let written = [7; 4 * SECTOR];
    let within = |call, seed| {
        let disk = SimDisk::new(seed);
        disk.set_faults(Faults { torn_at_call: Some(call), ..Faults::default() });
        let done = disk.create("a").and_then(|file| file.write_at(0, &written));
        assert!(Crashed::caused(&done.unwrap_err()) && Crashed::caused(&disk.list("").unwrap_err()));
        disk.bytes("a").ok()
    };
    assert_eq!(within(0, 1), None);
    let found: BTreeSet<_> = (0..100).map(|seed| within(1, seed).unwrap()).collect();
    let sectors: BTreeSet<_> = (0..=4).map(|count| written[..count * SECTOR].to_vec()).collect();
    assert_eq!(found, sectors);
}

#[test]
fn an_image_is_taken_before_each_boundary_and_stays_as_it_was() {
    let disk = SimDisk::new(1);
    disk.record(1000, 0);
    let file = durable(&disk, "a", "text");
    file.length().unwrap();
    let images = disk.take_images();
    assert_eq!(images.len() as u64, disk.counts().boundaries);
    file.write_at(0, b"next").unwrap();
    let seen: Vec<_> = images.iter().map(|image| image.process_kill(0).bytes("a").ok()).collect();
    assert_eq!(seen, [None, Some(b"".to_vec()), Some(b"text".to_vec()), Some(b"text".to_vec())]);
}

#[test]
fn same_seed_and_same_calls_give_the_same_trace_and_the_same_survivors() {
    let run = |seed: u64| {
        let disk = SimDisk::new(seed);
        let mut chance = Chance::new(seed);
        let files: Vec<_> = (0..4).map(|index| disk.create(&index.to_string()).unwrap()).collect();
        for _ in 0..100 {
            let mut data = vec![0; chance.index(3000)];
            chance.fill(&mut data);
            chance.pick(&files).write_at(chance.below(10_000), &data).unwrap();
            if chance.percent(10) {
                chance.pick(&files).sync().unwrap();
            }
        }
        let after = disk.image().power_cut(seed);
        let found: Vec<_> = after.paths().iter().map(|path| after.bytes(path).unwrap()).collect();
        (disk.trace(), found)
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).0, run(2).0);
}

#[test]
fn damage_is_durable_and_unnoticed() {
    let disk = SimDisk::new(1);
    durable(&disk, "a", "text");
    disk.damage("a", 1, b"3").unwrap();
    check(&disk, &["a"], &[&[Some("t3xt")]]);
}

#[test]
fn without_crashes_it_behaves_like_the_real_disk() {
    for seed in 0..30 {
        let root = tempfile::tempdir().unwrap();
        let real = RealDisk::new(root.path());
        let sim = SimDisk::new(seed);
        let disks: [&dyn Disk; 2] = [&real, &sim];
        let mut chance = Chance::new(seed);
        let paths = ["a", "b", "x/a", "x/b", "y/a"];
        for step in 0..200 {
            let (path, other) = (*chance.pick(&paths), *chance.pick(&paths));
            let (offset, length, kind) = (chance.below(9000), chance.index(6000), chance.below(10));
            let mut data = vec![0; length];
            chance.fill(&mut data);
            let results = disks.map(|disk| act(disk, kind, path, other, offset, &data));
            assert_eq!(results[0], results[1], "seed {seed}, step {step}: {kind} {path} {other} {offset} {length}");
        }
    }
}

/// Does one thing and tells everything that can be seen of it.
fn act(disk: &dyn Disk, kind: u64, path: &str, other: &str, offset: u64, data: &[u8]) -> String {
    let result = match kind {
        0 => disk.create(path).map(|_| Vec::new()),
        1 => disk.rename(path, other).map(|()| Vec::new()),
        2 => disk.remove(path).map(|()| Vec::new()),
        3 => disk.list(parent(path)).map(|names| names.join(" ").into_bytes()),
        4 => disk.create_directory(parent(other)).map(|()| Vec::new()),
        5 => disk.sync_directory(parent(path)).map(|()| Vec::new()),
        6 => disk.open(path).and_then(|file| file.set_length(offset)).map(|()| Vec::new()),
        7 => disk.open(path).and_then(|file| {
            file.sync()?;
            let mut buffer = vec![0; data.len()];
            file.read_at(offset, &mut buffer)?;
            Ok(buffer)
        }),
        _ => disk.open(path).and_then(|file| {
            file.write_at(offset, data)?;
            let mut buffer = vec![0; file.length()? as usize];
            file.read_at(0, &mut buffer)?;
            Ok(buffer)
        }),
    };
    match result {
        Ok(bytes) => format!("{} bytes, {:08x}", bytes.len(), crc32c::crc32c(&bytes)),
        Err(error) => format!("{:?}", error.kind()),
    }
}
