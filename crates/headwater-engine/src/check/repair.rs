//! Putting right what a check found, where that is proven to be harmless: a start would do the same, or nothing would ever
//! read it.
//!
//! The proof is the check itself. Only a store in which everything was read and nothing is doubtful, but for what is put
//! right here, is touched: in a store with any other doubt, what looks left over may be what a person needs to save it.
//!
//! Guarantees:
//! * nothing is removed and no byte that means something is written to: what goes is moved to a directory of its own below
//!   `aside`, what changes is copied there before
//! * what a start serves afterwards is what it would have served before
//! * killed at any moment, it leaves a store of which both are true, and can be run again

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::bucket::BucketOptions;
use crate::error::{IoContext, StoreError};
use crate::io::{Disk, RealDisk, lock_directory};
use crate::journal::{WITNESS_PATH, Witness};

use super::inventory::{ASIDE, Inventory};
use super::{Check, CheckError, Summary, Watch};

/// Bytes that are copied at a time.
const STRETCH_BYTES: u64 = 1 << 20;
/// Repairs of one store whose traces are kept; more are refused until a person has looked.
const REPAIRS_MAX: u32 = 9999;

/// One thing that was put right.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Repair {
    /// The code of the finding it answers: see `docs/operations.md`.
    pub code: &'static str,
    /// What was changed, relative to the data directory.
    pub file: String,
    /// Where it is now, or where a copy of how it was is.
    pub aside: String,
    /// What was done, in one line.
    pub what: String,
}

/// What a repair did and left.
#[derive(Clone, Debug)]
pub struct Repaired {
    /// Before.
    pub before: Summary,
    /// What was put right, in order. Empty if nothing was to be done, or if a doubt was left that nothing here cures.
    pub repairs: Vec<Repair>,
    /// Afterwards, by another check of everything.
    pub after: Summary,
}

/// What a check can put right, and why.
#[derive(Clone, Debug)]
pub(super) struct Remedy {
    pub(super) code: &'static str,
    pub(super) file: String,
    pub(super) cure: Cure,
}

#[derive(Clone, Debug)]
pub(super) enum Cure {
    /// Nothing reads it.
    SetAside,
    /// These bytes mean nothing; zeros mean nothing, too.
    Zero(Vec<Range<u64>>),
    /// One copy is intact, the other is written again.
    Repeat,
}

/// Checks the store in a directory, puts right what is harmless, and checks it again. Keeps servers and other checks out
/// meanwhile. The bucket that has its chunks is read and never written to: a start removes what it does not need there.
/// Without it nothing is proven of a store that has one, and nothing is touched.
///
/// `before` hears of what the first check finds and of every repair, `after` of what the second finds.
///
/// # Errors
/// As [`super::directory_with_bucket`], and [`CheckError::Backup`], [`CheckError::Repair`].
pub fn directory(
    root: &Path,
    bucket: Option<&BucketOptions>,
    before: &mut dyn Watch,
    after: &mut dyn Watch,
) -> Result<Repaired, CheckError> {
    let path = || root.to_path_buf();
    let store = |source| CheckError::Store { path: path(), source };
    let no_directory = |source| CheckError::Directory { path: path(), source };
    let take = || -> Result<Inventory, CheckError> {
        let inventory = Inventory::take(root).map_err(no_directory)?;
        if !inventory.looks_like_a_store() {
            return Err(CheckError::NotAStore { path: path() });
        }
        if inventory.is_backup() {
            return Err(CheckError::Backup { path: path() });
        }
        Ok(inventory)
    };
    // Before the lock, which makes a file.
    take()?;
    let _lock = lock_directory(root).map_err(|source| match source.kind() {
        std::io::ErrorKind::WouldBlock => CheckError::Locked { path: path() },
        _ => no_directory(source),
    })?;
    let inventory = take()?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(root));
    let mut check = Check::of(&inventory, disk.clone(), bucket, before);
    check.store().map_err(store)?;
    let (plan, summary) = check.plan();
    let repairs = carry_out(&*disk, &plan, before).map_err(|source| CheckError::Repair { path: path(), source })?;
    let inventory = take()?;
    let mut check = Check::of(&inventory, disk, bucket, after);
    check.store().map_err(store)?;
    Ok(Repaired { before: summary, repairs, after: check.summary })
}

/// The same on a disk; of what else is there, nothing is said or set aside. For simulation.
///
/// # Errors
/// As [`super::disk`], and whatever the disk refuses while it is repaired.
pub fn disk(disk: Arc<dyn Disk>, before: &mut dyn Watch, after: &mut dyn Watch) -> Result<Repaired, StoreError> {
    let mut check = Check::new(disk.clone(), None, 0, before);
    check.store()?;
    let (plan, summary) = check.plan();
    let repairs = carry_out(&*disk, &plan, before)?;
    let mut check = Check::new(disk, None, 0, after);
    check.store()?;
    Ok(Repaired { before: summary, repairs, after: check.summary })
}

/// What is to be done, and what has to be known for it.
pub(super) struct Plan {
    remedies: Vec<Remedy>,
    store: u128,
    /// Newest frame that anything in the journal testifies to.
    known: u64,
}

impl Check<'_> {
    /// Takes what can be put right: nothing, if a doubt remains then.
    fn plan(self) -> (Plan, Summary) {
        let is_proven = self.summary.is_complete && self.summary.doubts == self.curable;
        let mut remedies = if is_proven { self.remedies } else { Vec::new() };
        // The witness first: it may be needed for what follows.
        remedies.sort_by_key(|remedy| !matches!(remedy.cure, Cure::Repeat));
        (Plan { remedies, store: self.summary.store, known: self.known }, self.summary)
    }
}

fn carry_out(disk: &dyn Disk, plan: &Plan, watch: &mut dyn Watch) -> Result<Vec<Repair>, StoreError> {
    let mut repairs = Vec::new();
    if plan.remedies.is_empty() {
        return Ok(repairs);
    }
    let place = new_place(disk)?;
    for Remedy { code, file, cure } in &plan.remedies {
        let aside = format!("{place}/{file}");
        let (directory, _) = file.rsplit_once('/').unwrap_or(("", file));
        let target = make_directories(disk, &place, directory)?;
        let what = match cure {
            Cure::SetAside => {
                disk.rename(file, &aside).on(file, "set aside")?;
                // There before it is gone here.
                disk.sync_directory(&target).on(&target, "sync")?;
                disk.sync_directory(directory).on(directory, "sync")?;
                "moved aside".to_owned()
            }
            Cure::Zero(ranges) => {
                copy(disk, file, &aside, &target, &[])?;
                // In another file that takes this one's place: no write under way may tear what stands beside it.
                let next = format!("{aside}.next");
                copy(disk, file, &next, &target, ranges)?;
                // What is dropped may be all that testifies to the frames before it.
                let mut witness = Witness::open(disk, plan.store)?;
                let told = if witness.frame < plan.known { ", and so is the witness, which is newer now" } else { "" };
                if witness.is_there() && !told.is_empty() {
                    copy(disk, WITNESS_PATH, &format!("{place}/{WITNESS_PATH}"), &target, &[])?;
                }
                witness.testify(disk, plan.known)?;
                disk.rename(&next, file).on(&next, "rename")?;
                disk.sync_directory(directory).on(directory, "sync")?;
                disk.sync_directory(&target).on(&target, "sync")?;
                let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
                let first = ranges.first().map_or(0, |range| range.start);
                format!("{bytes} bytes from byte {first} on are zeros now; the file as it was is kept{told}")
            }
            Cure::Repeat => {
                copy(disk, file, &aside, &target, &[])?;
                Witness::open(disk, plan.store)?.repeat()?;
                "the damaged copy was written again from the intact one; the file as it was is kept".to_owned()
            }
        };
        let repair = Repair { code, file: file.clone(), aside, what };
        watch.repaired(&repair);
        repairs.push(repair);
    }
    Ok(repairs)
}

/// A directory that no repair has used yet.
fn new_place(disk: &dyn Disk) -> Result<String, StoreError> {
    disk.create_directory(ASIDE).on(ASIDE, "create")?;
    for number in 1..=REPAIRS_MAX {
        let place = format!("{ASIDE}/{number:04}");
        // Whatever is in it has a mark, which comes first.
        let mark = format!("{place}/repair");
        disk.create_directory(&place).on(&place, "create")?;
        match disk.create(&mark) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            file => {
                file.on(&mark, "create")?.sync().on(&mark, "sync")?;
                for directory in [&place, ASIDE, ""] {
                    disk.sync_directory(directory).on(directory, "sync")?;
                }
                return Ok(place);
            }
        }
    }
    Err(StoreError::Mismatched(format!("{ASIDE} has {REPAIRS_MAX} repairs: move it away")))
}

/// Makes the same directory in `place`, and returns its path.
fn make_directories(disk: &dyn Disk, place: &str, directory: &str) -> Result<String, StoreError> {
    if directory.is_empty() {
        return Ok(place.to_owned());
    }
    let target = format!("{place}/{directory}");
    disk.create_directory(&target).on(&target, "create")?;
    disk.sync_directory(place).on(place, "sync")?;
    Ok(target)
}

/// Copies a file, with zeros in some places.
fn copy(disk: &dyn Disk, from: &str, to: &str, directory: &str, zeros: &[Range<u64>]) -> Result<(), StoreError> {
    // A file with two remedies was copied as it was when the first began.
    let copied = match disk.create(to) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        created => created.on(to, "create")?,
    };
    let file = disk.open(from).on(from, "open")?;
    let length = file.length().on(from, "measure")?;
    let mut at = 0;
    while at < length {
        let mut bytes = vec![0; STRETCH_BYTES.min(length - at) as usize];
        file.read_at(at, &mut bytes).on(from, "read")?;
        let end = at + bytes.len() as u64;
        for zeros in zeros {
            let (first, last) = (zeros.start.clamp(at, end), zeros.end.clamp(at, end));
            bytes[(first - at) as usize..(last - at) as usize].fill(0);
        }
        copied.write_at(at, &bytes).on(to, "write")?;
        at = end;
    }
    copied.sync().on(to, "sync")?;
    disk.sync_directory(directory).on(directory, "sync")
}

/// Ranges of each file, in order of the files.
pub(super) fn by_file(ranges: &[(String, Range<u64>)]) -> Vec<(String, Vec<Range<u64>>)> {
    let mut files: Vec<(String, Vec<Range<u64>>)> = Vec::new();
    for (path, range) in ranges {
        match files.last_mut().filter(|(last, _)| last == path) {
            Some((_, ranges)) => ranges.push(range.clone()),
            None => files.push((path.clone(), vec![range.clone()])),
        }
    }
    files
}
