//! `check --repair` changes only what is harmless.
//!
//! A store grows old, ends, and is littered: half-made files, files that no manifest names, a torn copy of the witness,
//! bytes where there should be zeros, and now and then real damage. One copy is started as it is, another is repaired and
//! then started. Right is: both serve the same; a repair that does nothing changes nothing; what was put right is not
//! found again; what was set aside is all there; and a power cut in the middle of a repair changes nothing of that.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use headwater_engine::check::repair::{self, Repaired};
use headwater_engine::check::{Finding, Progress, Watch};
use headwater_engine::io::Disk;

use super::rot::{FileKind, apply, draw};
use super::{Failure, Launch, Run};
use crate::chance::Chance;
use crate::compare::{Found, Refusing, look_at_all};
use crate::disk::{Image, SECTOR, SimDisk};
use crate::workload::Universe;

/// What became of littered stores.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct RepairReport {
    /// Stores looked at.
    pub(crate) stores: u64,
    /// Of these, put right.
    pub(crate) repaired: u64,
    /// Things put right in them.
    pub(crate) repairs: u64,
    /// Of the repaired ones, with a power cut in the middle.
    pub(crate) cut: u64,
    /// Left as they were, because of a doubt.
    pub(crate) left: u64,
    /// Hash over everything done.
    pub(crate) trace: u64,
}

/// Builds a store from `seed` and litters copies of it `count` times.
///
/// # Errors
/// A repair that did harm, did what it should not, or panicked.
pub(crate) fn repair_run<L: Launch>(launch: &L, seed: u64, count: u64) -> Result<RepairReport, Box<Failure>> {
    let universe = Universe::default();
    let mut run = Run::new(launch, &universe, seed);
    let mut report = RepairReport::default();
    let tried = run.build().and_then(|built| {
        for _ in 0..count {
            run.try_repair(&built.image, &built.older, &mut report)?;
        }
        Ok(())
    });
    run.report.points = report.stores;
    tried.map(|()| report).map_err(|what| run.failure(seed, what))
}

/// Keeps what was found.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Watch for Findings {
    fn finding(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    fn progress(&mut self, _progress: Progress<'_>) -> bool {
        true
    }
}

impl<L: Launch> Run<'_, L> {
    fn try_repair(&mut self, image: &Image, older: &Image, report: &mut RepairReport) -> Result<(), String> {
        let mut chance = self.chance.fork();
        let is_settled = chance.percent(60);
        let seed = chance.bits();
        let disk = if is_settled { image.power_cut(seed) } else { image.process_kill(seed) };
        let litter = litter(&disk, older, &mut chance).map_err(|error| format!("littering: {error}"))?;
        let littered = disk.image();
        let shown = |what: String| format!("littered with {litter:?}: {what}");
        report.stores += 1;

        let untouched = self.look_at(&littered.process_kill(seed), &mut chance);
        disk.record(1000, 0);
        let (repaired, after) = match repair_once(&disk)? {
            Ok(done) => done,
            // Of a newer format, for all that can be told.
            Err(error) => {
                let changed = disk.changed_since(&littered);
                return if changed.is_empty() {
                    Ok(())
                } else {
                    Err(shown(format!("{error}, but changed {changed:?}")))
                };
            }
        };
        report.trace = report.trace.rotate_left(11) ^ u64::from(crc32c::crc32c(format!("{repaired:?}").as_bytes()));
        if repaired.repairs.is_empty() {
            report.left += u64::from(!repaired.before.is_sound());
            let changed = disk.changed_since(&littered);
            return if changed.is_empty() {
                Ok(())
            } else {
                Err(shown(format!("did nothing, but changed {changed:?}")))
            };
        }
        report.repaired += 1;
        report.repairs += repaired.repairs.len() as u64;
        let untouched = untouched.map_err(|what| shown(format!("repaired what does not start: {what}")))?;
        judge(&repaired, &after, &disk, &littered).map_err(&shown)?;
        let images = disk.take_images();
        let found = self.look_at(&disk, &mut chance).map_err(&shown)?;
        if found != untouched {
            return Err(shown(format!("after {:?} something else is served", repaired.repairs)));
        }
        // Only what a power cut cannot take any more stays the same through one.
        if is_settled && !images.is_empty() {
            report.cut += 1;
            let cut = chance.pick(&images).power_cut(chance.bits());
            let again = cut.image().process_kill(chance.bits());
            let context = |what: String| shown(format!("after a power cut: {what}"));
            if self.look_at(&cut, &mut chance).map_err(context)? != untouched {
                return Err(context("something else is served".to_owned()));
            }
            let (repaired, _) = repair_once(&again)?.map_err(|error| context(error.to_string()))?;
            if !repaired.after.is_sound() || self.look_at(&again, &mut chance).map_err(context)? != untouched {
                return Err(context(format!("the second repair, {repaired:?}, does harm")));
            }
        }
        Ok(())
    }

    /// Opens the store and looks at everything.
    fn look_at(&self, disk: &SimDisk, chance: &mut Chance) -> Result<Found, String> {
        let mut running = self.world.open(disk, chance)?;
        look_at_all(self.world.universe, Refusing::Never, &mut |request| running.ask(request, chance))
    }
}

type Done = (Repaired, Vec<Finding>);

/// Repairs; the outer error is a panic.
fn repair_once(disk: &SimDisk) -> Result<Result<Done, headwater_engine::StoreError>, String> {
    let (mut before, mut after) = (Findings::default(), Findings::default());
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let repaired = catch_unwind(AssertUnwindSafe(|| repair::disk(disk, &mut before, &mut after)));
    repaired.map(|repaired| repaired.map(|repaired| (repaired, after.0))).map_err(|_| "the repair panicked".to_owned())
}

fn judge(repaired: &Repaired, after: &[Finding], disk: &SimDisk, littered: &Image) -> Result<(), String> {
    if !repaired.after.is_sound() {
        return Err(format!("doubtful afterwards: {after:?}"));
    }
    if let Some(again) = after.iter().find(|one| repaired.repairs.iter().any(|repair| repair.code == one.code)) {
        return Err(format!("found again: {again:?}"));
    }
    let original = littered.process_kill(0);
    for repair in &repaired.repairs {
        let kept = disk.bytes(&repair.aside).map_err(|error| format!("{repair:?}: {error}"))?;
        if kept != original.bytes(&repair.file).map_err(|error| format!("{repair:?}: {error}"))? {
            return Err(format!("{repair:?}: what is kept is not what was there"));
        }
    }
    // Nothing is lost: whatever is gone from its place is among what was set aside.
    let gone = original
        .paths()
        .into_iter()
        .find(|path| disk.length(path).is_err() && !repaired.repairs.iter().any(|repair| repair.file == *path));
    gone.map_or(Ok(()), |path| Err(format!("{path} is gone, and nobody said so")))
}

/// Leaves behind what killed processes, torn writes and bad disks leave; says what.
fn litter(disk: &SimDisk, older: &Image, chance: &mut Chance) -> std::io::Result<Vec<String>> {
    let mut litter = Vec::new();
    let names = [
        "store.next",
        "journal/fresh-0000000000000077",
        "journal/zero-0000000000000077",
        "journal/spare-0000000000000077",
        "catalogue-0000/manifest.next",
        "catalogue-0001/0000000000000777.run",
        "chunks-0000/0000000000000777.chunk",
        "chunks-0001/0000000000000778.chunk",
    ];
    for name in names {
        if chance.percent(25) {
            // Some look like the real thing.
            let paths: Vec<_> =
                disk.paths().into_iter().filter(|path| FileKind::of(path) == FileKind::of(name)).collect();
            let content = if paths.is_empty() || chance.percent(50) {
                vec![chance.below(256) as u8; chance.below(3000) as usize]
            } else {
                let path: &String = chance.pick(&paths);
                let whole = disk.bytes(path)?;
                whole[..chance.below(whole.len() as u64 + 1) as usize].to_vec()
            };
            let file = Disk::create(disk, name)?;
            file.write_at(0, &content)?;
            file.sync()?;
            disk.sync_directory(name.rsplit_once('/').map_or("", |(directory, _)| directory))?;
            litter.push(name.to_owned());
        }
    }
    let paths = disk.paths();
    if chance.percent(30) && paths.iter().any(|path| path == "journal/witness") {
        let slot = chance.below(2) * 4096;
        if disk.length("journal/witness")? > slot {
            disk.damage("journal/witness", slot + chance.below(40), &[chance.below(256) as u8])?;
            litter.push(format!("a torn slot at {slot}"));
        }
    }
    let journal: Vec<_> = paths.iter().filter(|path| FileKind::of(path) == FileKind::Journal).collect();
    if chance.percent(40) && !journal.is_empty() {
        // The end of a sector is often padding.
        let path = chance.pick(&journal);
        let sector = chance.below(disk.length(path)?.min(200_000) / SECTOR as u64) * SECTOR as u64;
        disk.damage(path, sector + SECTOR as u64 - 1 - chance.below(8), &[1 + chance.below(255) as u8])?;
        litter.push(format!("a byte in the sector at {sector} of {path}"));
    }
    if chance.percent(20) {
        let path = chance.pick(&paths).clone();
        let damage = draw(disk, &path, chance);
        if apply(disk, &path, &damage, older)?.is_some() {
            litter.push(format!("{damage:?} of {path}"));
        }
    }
    Ok(litter)
}
