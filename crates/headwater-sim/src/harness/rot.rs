//! Stored bytes are not what was written: a bit flipped, a sector zeroed, swapped, stale or unreadable, a file cut or gone.
//!
//! A store is built from a seed and closed or killed; what is in it is known exactly. Then a copy of its disk is damaged in
//! one place, opened, and read back whole. Right is: what is served is what was written; where it is not served, the error
//! names the damaged file; a store that refuses to start has changed nothing; nothing panics.
//!
//! Damage in bytes that nobody needs goes unnoticed, and so may the loss of the very last commit: its frame in the
//! journal, if the store was killed before the witness (or anything newer) testified to it, cannot be told from a write
//! that was under way. The run knows which bytes those are ([`Blind`]), and allows nothing else.

use std::collections::BTreeMap;
use std::ops::Range;

use super::crash::NUDGE_PERCENT;
use super::{Event, Failure, Launch, Run, Running, Store, guarded, stopped};
use crate::chance::Chance;
use crate::compare::{Refusing, look_at_all};
use crate::disk::{Faults, Image, SECTOR, SimDisk};
use crate::history::History;
use crate::workload::Universe;

/// What a file is for, by its path.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum FileKind {
    /// Who the store is.
    Identity,
    /// Journal file in use: header and frames.
    Journal,
    /// Journal file ready for use.
    Spare,
    /// Second witness of what was durable.
    Witness,
    /// Root of a container's catalogue.
    Manifest,
    /// Sorted entries of a catalogue.
    Run,
    /// Segments' bytes.
    Chunk,
    /// Whose bucket it is.
    Bucket,
    /// Was being made when a process was killed.
    HalfMade,
    /// What a repair has set aside.
    Aside,
    /// Nobody knows: a store that makes one breaks the run, so that new files are not left out.
    Other,
}

impl FileKind {
    /// Of the files that a store has while nothing is done to them.
    pub const STORED: [Self; 8] = [
        Self::Identity,
        Self::Journal,
        Self::Spare,
        Self::Witness,
        Self::Manifest,
        Self::Run,
        Self::Chunk,
        Self::Bucket,
    ];

    /// The kind of the file at a path.
    pub fn of(path: &str) -> Self {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        match (directory, name) {
            (directory, _) if directory.starts_with("aside/") => Self::Aside,
            (_, name) if name.ends_with(".next") => Self::HalfMade,
            ("", "store") => Self::Identity,
            ("", "bucket") => Self::Bucket,
            ("journal", "witness") => Self::Witness,
            ("journal", name) if name.ends_with(".log") => Self::Journal,
            ("journal", name) if name.starts_with("spare-") => Self::Spare,
            ("journal", name) if name.starts_with("fresh-") || name.starts_with("zero-") => Self::HalfMade,
            (_, "manifest") => Self::Manifest,
            (_, name) if name.ends_with(".run") => Self::Run,
            (_, name) if name.ends_with(".chunk") => Self::Chunk,
            _ => Self::Other,
        }
    }
}

/// What happens to a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Damage {
    /// One bit is another.
    Bit {
        /// Of the byte.
        offset: u64,
        /// 0 to 7.
        bit: u8,
    },
    /// A sector holds zeros.
    Zeros {
        /// Where it begins.
        sector: u64,
    },
    /// Two sectors have changed places: a misdirected write and its victim.
    Swap {
        /// Where one begins.
        one: u64,
        /// Where the other begins.
        other: u64,
    },
    /// A sector holds what it held earlier: a write the disk has lost.
    Stale {
        /// Where it begins.
        sector: u64,
    },
    /// A sector cannot be read.
    Unreadable {
        /// Where it begins.
        sector: u64,
    },
    /// The file is shorter.
    Cut {
        /// Bytes left.
        length: u64,
    },
    /// The file is gone.
    Gone,
}

/// How damage showed itself.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Verdict {
    /// The store did not start, named the file, and changed nothing.
    RefusedToStart,
    /// The store started, met the damage, named the file and stopped.
    Stopped,
    /// What stood there was refused, everything else was served.
    RefusedToRead,
    /// Everything that was written was served.
    Harmless,
    /// The last commit is gone; nobody could know of it. See the module.
    Blind,
}

/// What became of all damage.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RotReport {
    /// How often each kind of file came to each end.
    pub tally: BTreeMap<(FileKind, Verdict), u64>,
    /// Hash over everything tried and seen.
    pub trace: u64,
}

impl RotReport {
    /// How much was damaged.
    pub fn count(&self) -> u64 {
        self.tally.values().sum()
    }

    /// How often it came to this end.
    pub fn ends(&self, verdict: Verdict) -> u64 {
        self.tally.iter().filter(|((_, end), _)| *end == verdict).map(|(_, count)| count).sum()
    }

    /// Adds another report.
    pub fn add(&mut self, other: &Self) {
        for (key, count) in &other.tally {
            *self.tally.entry(*key).or_default() += count;
        }
        self.trace = self.trace.rotate_left(9) ^ other.trace;
    }

    fn note(&mut self, path: &str, damage: &Damage, verdict: Verdict) {
        *self.tally.entry((FileKind::of(path), verdict)).or_default() += 1;
        let line = format!("{path} {damage:?} {verdict:?}");
        self.trace = self.trace.rotate_left(9) ^ u64::from(crc32c::crc32c(line.as_bytes()));
    }
}

/// The bytes whose loss nobody can notice, and the states that may be found then.
struct Blind {
    path: String,
    bytes: Range<u64>,
    /// Number of states of each container before the commit; see [`History::steps`].
    before: Vec<usize>,
}

/// A store that has ended.
pub(super) struct Built {
    pub(super) image: Image,
    /// The same store, some time before.
    pub(super) older: Image,
    history: History,
    blind: Option<Blind>,
}

/// Builds a store from `seed` and damages copies of it in `count` places, one at a time.
///
/// # Errors
/// Wrong bytes, a missing error, a panic.
pub fn rot_run<L: Launch>(launch: &L, seed: u64, count: u64) -> Result<RotReport, Box<Failure>> {
    let universe = Universe::default();
    let mut run = Run::new(launch, &universe, seed);
    let mut report = RotReport::default();
    let tried = run.build().and_then(|built| run.damage_at_random(&built, count, &mut report));
    run.report.points = report.count();
    tried.map(|()| report).map_err(|what| run.failure(seed, what))
}

/// Builds a store from `seed` and flips each bit of its small files, and of the heads of its other files, in turn.
///
/// # Errors
/// As [`rot_run`].
pub fn every_bit_run<L: Launch>(launch: &L, seed: u64) -> Result<RotReport, Box<Failure>> {
    let universe = Universe::default();
    let mut run = Run::new(launch, &universe, seed);
    let mut report = RotReport::default();
    let tried = run.build().and_then(|built| run.flip_every_bit(&built, &mut report));
    run.report.points = report.count();
    tried.map(|()| report).map_err(|what| run.failure(seed, what))
}

/// Bytes at the beginning of a file of which each bit is flipped.
const HEAD_BYTES: u64 = 64;
/// Files of one kind of which each bit is flipped.
const FILES_MAX: u32 = 2;
/// Draws until damage is found that changes something.
const DRAWS_MAX: u32 = 100;

impl<L: Launch> Run<'_, L> {
    /// Lets a store grow old over a few restarts and end.
    pub(super) fn build(&mut self) -> Result<Built, String> {
        let mut disk = SimDisk::new(self.chance.bits());
        let mut history = self.new_history();
        let restarts = 1 + self.chance.below(3);
        for restart in 0.. {
            self.events.push(Event::Opened);
            let mut running = self.world.open(&disk, &mut self.chance)?;
            history.opened(disk.counts().calls);
            let mut watch = Watch::new(&disk, &history);
            let requests = 30 + self.chance.below(90);
            let older_at = self.chance.below(requests);
            let mut older = disk.image();
            let mut submitted = 0;
            while submitted < requests {
                if self.chance.percent(40) {
                    submitted += 1;
                    self.submit(&mut running, &mut history)?;
                } else if self.chance.percent(NUDGE_PERCENT) {
                    running.nudge(self.chance.bits())?;
                } else {
                    self.run_one(&mut running, &mut history)?;
                }
                self.take_answers(&running, &mut history)?;
                watch.look(&disk, &history);
                if submitted == older_at {
                    older = disk.image();
                }
            }
            for _ in 0..super::WORK_MAX {
                let worked = self.run_one(&mut running, &mut history)?;
                self.take_answers(&running, &mut history)?;
                watch.look(&disk, &history);
                if !worked {
                    break;
                }
            }
            let closed = self.chance.percent(40);
            if closed {
                let Running { store, .. } = running;
                guarded("the store", move || store.close().map_err(|error| stopped(&error)))?;
            } else {
                drop(running);
            }
            self.events.push(Event::Crashed(if closed { "closed" } else { "killed" }));
            let blind = watch.blind.filter(|blind| !closed && !is_testified(&disk, blind));
            let image = disk.image();
            if let Some(path) = disk.paths().into_iter().find(|path| FileKind::of(path) == FileKind::Other) {
                return Err(format!("{path} is of no kind that is known here: nobody would damage it"));
            }
            if restart == restarts {
                return Ok(Built { image, older, history, blind });
            }
            let seed = self.chance.bits();
            disk = if self.chance.percent(50) { image.process_kill(seed) } else { image.power_cut(seed) };
            let newest = history.allowed_at(u64::MAX).into_iter();
            let newest = newest.map(|allowed| allowed.states.last().expect("there is a state").after_restart());
            history = History::new(newest.map(|state| vec![state]).collect(), history.into_numbers());
        }
        unreachable!("the last restart returns")
    }

    fn damage_at_random(&mut self, built: &Built, count: u64, report: &mut RotReport) -> Result<(), String> {
        let sound = built.image.process_kill(0);
        let mut by_kind: BTreeMap<FileKind, Vec<String>> = BTreeMap::new();
        for path in sound.paths() {
            by_kind.entry(FileKind::of(&path)).or_default().push(path);
        }
        let needed = |kind: &FileKind| !matches!(kind, FileKind::Spare | FileKind::Witness | FileKind::HalfMade);
        let (needed, redundant): (Vec<_>, Vec<_>) = by_kind.into_iter().partition(|(kind, _)| needed(kind));
        for _ in 0..count {
            let mut draws = 0;
            loop {
                draws += 1;
                if draws > DRAWS_MAX {
                    return Err("no damage changes anything".to_owned());
                }
                let kinds = if redundant.is_empty() || self.chance.percent(95) { &needed } else { &redundant };
                let (_, paths) = self.chance.pick(kinds);
                let mut path = self.chance.pick(paths).clone();
                let mut damage = draw(&sound, &path, &mut self.chance);
                if let Some(blind) = &built.blind
                    && self.chance.percent(3)
                {
                    path = blind.path.clone();
                    let offset = blind.bytes.start + self.chance.below(blind.bytes.end - blind.bytes.start);
                    damage = Damage::Bit { offset, bit: self.chance.below(8) as u8 };
                }
                if let Some(verdict) = self.try_damage(built, &path, &damage)? {
                    report.note(&path, &damage, verdict);
                    break;
                }
            }
        }
        Ok(())
    }

    fn flip_every_bit(&mut self, built: &Built, report: &mut RotReport) -> Result<(), String> {
        let sound = built.image.process_kill(0);
        let mut seen: BTreeMap<FileKind, u32> = BTreeMap::new();
        for path in sound.paths() {
            let seen = seen.entry(FileKind::of(&path)).or_default();
            *seen += 1;
            if *seen > FILES_MAX {
                continue;
            }
            let length = sound.length(&path).map_err(|error| error.to_string())?;
            let mut ranges = just(0..length.min(HEAD_BYTES));
            match FileKind::of(&path) {
                // Small: all of it, in the witness both of its slots.
                FileKind::Identity | FileKind::Manifest | FileKind::Bucket => ranges = just(0..length),
                FileKind::Witness => ranges.push(length.saturating_sub(HEAD_BYTES)..length),
                // The end is the footer.
                FileKind::Run | FileKind::Chunk => {
                    ranges.push(length.saturating_sub(HEAD_BYTES).max(HEAD_BYTES)..length)
                }
                FileKind::Journal => {
                    if let Some(blind) = built.blind.as_ref().filter(|blind| blind.path == path) {
                        ranges.push(blind.bytes.start..blind.bytes.start + HEAD_BYTES);
                    }
                }
                FileKind::Spare | FileKind::HalfMade | FileKind::Aside | FileKind::Other => {}
            }
            for offset in ranges.into_iter().flatten() {
                for bit in 0..8 {
                    let damage = Damage::Bit { offset, bit };
                    let verdict = self.try_damage(built, &path, &damage)?.expect("a flipped bit changes something");
                    let has_no_dead_bytes = matches!(FileKind::of(&path), FileKind::Identity | FileKind::Manifest);
                    if has_no_dead_bytes && verdict != Verdict::RefusedToStart {
                        return Err(format!("{path}, {damage:?}: every bit counts, but this one led to {verdict:?}"));
                    }
                    report.note(&path, &damage, verdict);
                }
            }
        }
        Ok(())
    }

    /// Damages a copy and looks at it. `None`: the damage changes nothing.
    fn try_damage(&mut self, built: &Built, path: &str, damage: &Damage) -> Result<Option<Verdict>, String> {
        let mut chance = self.chance.fork();
        let disk = built.image.process_kill(chance.bits());
        let Some(touched) = apply(&disk, path, damage, &built.older).map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        let verdict = self.judge(built, path, &touched, &disk, &mut chance);
        verdict.map(Some).map_err(|what| format!("{path} of {}, {damage:?}: {what}", disk.length(path).unwrap_or(0)))
    }

    fn judge(
        &mut self,
        built: &Built,
        path: &str,
        touched: &[Range<u64>],
        disk: &SimDisk,
        chance: &mut Chance,
    ) -> Result<Verdict, String> {
        let damaged = disk.image();
        let mut running = match self.world.open(disk, chance) {
            Ok(running) => running,
            Err(what) => {
                names(&what, path)?;
                let changed = disk.changed_since(&damaged);
                if !changed.is_empty() {
                    return Err(format!("a start that was refused ({what}) changed {changed:?}"));
                }
                return Ok(Verdict::RefusedToStart);
            }
        };
        let mut found = look_at_all(self.world.universe, Refusing::Never, &mut |request| running.ask(request, chance));
        if found.is_err() {
            // With a finer comb: what is served beside the damage must be right.
            found = look_at_all(self.world.universe, Refusing::Maybe, &mut |request| running.ask(request, chance));
        }
        for error in running.store.take_damage() {
            names(&super::chain(&error), path)?;
        }
        let found = match found {
            Ok(found) => found,
            Err(what) => {
                if !what.contains("the store stopped: ") {
                    return Err(what);
                }
                names(&what, path)?;
                return Ok(Verdict::Stopped);
            }
        };
        if found.is_incomplete() && damaged.process_kill(0).length(path).is_ok() && disk.length(path).is_err() {
            return Err("the damaged file was removed".to_owned());
        }
        let newest = built.history.steps();
        let is_blind = |blind: &&Blind| {
            blind.path == path
                && touched.iter().any(|touched| touched.start < blind.bytes.end && blind.bytes.start < touched.end)
        };
        let before = built.blind.as_ref().filter(is_blind).map_or(&newest, |blind| &blind.before);
        let allowed = built.history.allowed_from(before);
        let explained = self.world.explain(&found, &allowed, &self.ledger)?;
        let is_newest =
            allowed.iter().zip(&explained.fitting).all(|(allowed, fitting)| fitting + 1 == allowed.states.len());
        Ok(match (found.is_incomplete(), is_newest) {
            (true, true) => Verdict::RefusedToRead,
            (true, false) => return Err("the last commit is gone, and more is refused".to_owned()),
            (false, true) => Verdict::Harmless,
            (false, false) => Verdict::Blind,
        })
    }
}

/// An error must say which file it is about.
fn names(what: &str, path: &str) -> Result<(), String> {
    // A chunk that is missing is known by its number.
    let number = path.rsplit('/').next().and_then(|name| name.split('.').next());
    let number = number.map(|digits| digits.trim_start_matches('0')).unwrap_or_default();
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let is_missing =
        what.contains(&format!("{directory} at byte 0: ")) && what.contains(&format!(" {number} is missing"));
    if what.contains(" panicked: ") || !(what.contains(path) || is_missing) {
        return Err(format!("the error does not name the file: {what}"));
    }
    Ok(())
}

/// Draws damage that has a chance to hit what somebody needs.
pub(super) fn draw(disk: &SimDisk, path: &str, chance: &mut Chance) -> Damage {
    let length = disk.length(path).expect("the path was just listed");
    let sector_bytes = SECTOR as u64;
    if length == 0 {
        return Damage::Gone;
    }
    let mut sector = 0;
    for _ in 0..20 {
        sector = chance.below(length.div_ceil(sector_bytes)) * sector_bytes;
        let bytes = disk.part(path, sector..sector + sector_bytes).expect("the path was just listed");
        // Most of a journal file is empty.
        if bytes.iter().any(|byte| *byte != 0) || chance.percent(5) {
            break;
        }
    }
    match chance.below(100) {
        0..60 => {
            let offset = sector + chance.below(sector_bytes.min(length - sector));
            Damage::Bit { offset, bit: chance.below(8) as u8 }
        }
        60..70 => Damage::Zeros { sector },
        70..78 => Damage::Swap { one: sector, other: chance.below(length.div_ceil(sector_bytes)) * sector_bytes },
        78..84 => Damage::Stale { sector },
        84..90 => Damage::Unreadable { sector },
        90..97 => Damage::Cut { length: chance.below(length) },
        // The end of the journal may be taken away with the files it stands in; that is not what its checks are for.
        _ if FileKind::of(path) == FileKind::Journal => Damage::Cut { length: chance.below(length) },
        _ => Damage::Gone,
    }
}

/// Damages a file; which bytes, or `None` if they are as before.
pub(super) fn apply(
    disk: &SimDisk,
    path: &str,
    damage: &Damage,
    older: &Image,
) -> std::io::Result<Option<Vec<Range<u64>>>> {
    let sector_at = |at: u64| at..at + SECTOR as u64;
    let overwrite = |at: u64, bytes: &[u8]| -> std::io::Result<Option<Vec<Range<u64>>>> {
        let range = at..at + bytes.len() as u64;
        if disk.part(path, range.clone())? == bytes {
            return Ok(None);
        }
        disk.damage(path, at, bytes)?;
        Ok(Some(vec![range]))
    };
    match damage {
        Damage::Bit { offset, bit } => {
            let byte = disk.part(path, *offset..offset + 1)?[0];
            overwrite(*offset, &[byte ^ (1 << bit)])
        }
        Damage::Zeros { sector } => {
            let length = disk.part(path, sector_at(*sector))?.len();
            overwrite(*sector, &vec![0; length])
        }
        Damage::Swap { one, other } => {
            let (first, second) = (disk.part(path, sector_at(*one))?, disk.part(path, sector_at(*other))?);
            // The last sector of a file may be shorter.
            let both = first.len().min(second.len());
            let Some(mut touched) = overwrite(*one, &second[..both])? else { return Ok(None) };
            touched.extend(overwrite(*other, &first[..both])?.into_iter().flatten());
            Ok(Some(touched))
        }
        Damage::Stale { sector } => overwrite(*sector, &disk.earlier(path, sector_at(*sector), older)?),
        Damage::Unreadable { sector } => {
            let unreadable = vec![(path.to_owned(), sector_at(*sector))];
            disk.set_faults(Faults { unreadable, ..Faults::default() });
            Ok(Some(vec![sector_at(*sector)]))
        }
        Damage::Cut { length } => {
            let end = disk.length(path)?;
            disk.cut(path, *length)?;
            Ok(Some(just(*length..end)))
        }
        Damage::Gone => {
            let end = disk.length(path)?;
            disk.vanish(path)?;
            Ok(Some(just(0..end)))
        }
    }
}

fn just(range: Range<u64>) -> Vec<Range<u64>> {
    std::iter::once(range).collect()
}

/// Watches the journal for commits.
struct Watch {
    last_call: Option<u64>,
    /// States after the newest commit.
    steps: Vec<usize>,
    blind: Option<Blind>,
}

impl Watch {
    fn new(disk: &SimDisk, history: &History) -> Self {
        let last_call = newest_frame(disk).map(|(call, ..)| call);
        Self { last_call, steps: history.steps(), blind: None }
    }

    /// Called after every step, each of which commits at most once: everything asked before.
    fn look(&mut self, disk: &SimDisk, history: &History) {
        if let Some((call, path, bytes)) = newest_frame(disk)
            && Some(call) != self.last_call
        {
            self.last_call = Some(call);
            let before = std::mem::replace(&mut self.steps, history.steps());
            self.blind = Some(Blind { path, bytes, before });
        }
    }
}

fn newest_frame(disk: &SimDisk) -> Option<(u64, String, Range<u64>)> {
    let journal = disk.paths().into_iter().filter(|path| FileKind::of(path) == FileKind::Journal);
    let writes = journal.filter_map(|path| disk.last_write(&path).map(|(call, bytes)| (call, path, bytes)));
    writes.max_by_key(|(call, ..)| *call)
}

/// Whether the witness was written after the frame.
fn is_testified(disk: &SimDisk, blind: &Blind) -> bool {
    let written = |path: &str| disk.last_write(path).map(|(call, _)| call);
    written("journal/witness") > written(&blind.path)
}

#[test]
fn every_file_of_a_store_is_of_a_known_kind_and_no_other_is() {
    for (path, kind) in [
        ("store", FileKind::Identity),
        ("store.next", FileKind::HalfMade),
        ("bucket", FileKind::Bucket),
        ("bucket.next", FileKind::HalfMade),
        ("journal/0000000000000001.log", FileKind::Journal),
        ("journal/spare-zero-0000000000000001", FileKind::Spare),
        ("journal/fresh-0000000000000001", FileKind::HalfMade),
        ("journal/zero-0000000000000001", FileKind::HalfMade),
        ("journal/witness", FileKind::Witness),
        ("catalogue-0000/manifest", FileKind::Manifest),
        ("catalogue-0000/manifest.next", FileKind::HalfMade),
        ("catalogue-0001/0000000000000001.run", FileKind::Run),
        ("chunks-0000/0000000000000001.chunk", FileKind::Chunk),
        ("aside/0001/journal/0000000000000001.log", FileKind::Aside),
        ("journal/thesis.txt", FileKind::Other),
        ("chunks-0000/0000000000000001.piece", FileKind::Other),
        ("settings", FileKind::Other),
    ] {
        assert_eq!(FileKind::of(path), kind, "{path}");
    }
}
