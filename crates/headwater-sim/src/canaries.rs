//! Plants bugs in the engine, one at a time, and has the simulation look for them. Only in builds with `--cfg canary`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use headwater_engine::canary::{CANARIES, plant};

use crate::modes::Mode;
use crate::soak::soak;

/// What found a planted bug.
#[derive(Clone, Debug)]
pub struct Catch {
    /// Its number; see the engine's list.
    pub number: u32,
    /// What it is.
    pub bug: &'static str,
    /// Mode, seed and beginning of the failure; `None` if no seed found it.
    pub by: Option<(Mode, u64, String)>,
}

/// Rounds after which a bug is given up.
const ROUNDS: u64 = 20;
/// Rounds of an engine without a planted bug.
const ROUNDS_SOUND: u64 = 3;
/// In which order the modes are tried; the quick ones first.
const MODES: [Mode; 11] = [
    Mode::Rot,
    Mode::RotTiny,
    Mode::Sync,
    Mode::Error,
    Mode::Full,
    Mode::FullTiny,
    Mode::ReadOnly,
    Mode::Histories,
    Mode::Crash,
    Mode::CrashTiny,
    Mode::CrashBucket,
];

/// Plants each bug in turn, on two threads. The first is none: nothing may be found then.
pub fn catch_all() -> Vec<Catch> {
    // Panics are one way to be caught, and no news here.
    std::panic::set_hook(Box::new(|_| {}));
    let bugs: Vec<_> = std::iter::once(&(0, "none")).chain(CANARIES).collect();
    let next = AtomicUsize::new(0);
    let catches = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((number, bug)) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    plant(*number);
                    let rounds = if *number == 0 { ROUNDS_SOUND } else { ROUNDS };
                    let by = (0..rounds).find_map(find);
                    plant(0);
                    catches.lock().expect("no run panics").push(Catch { number: *number, bug, by });
                }
            });
        }
    });
    let mut catches = catches.into_inner().expect("no run panics");
    catches.sort_by_key(|catch| catch.number);
    catches
}

/// One round over all modes.
fn find(round: u64) -> Option<(Mode, u64, String)> {
    MODES.into_iter().find_map(|mode| {
        // A run with one fault takes milliseconds, and most faults hit something else.
        let seeds = match mode {
            Mode::Crash
            | Mode::CrashTiny
            | Mode::CrashClock
            | Mode::CrashBucket
            | Mode::Rot
            | Mode::RotTiny
            | Mode::RotBucket
            | Mode::EveryBit
            | Mode::Repair => 1,
            Mode::Error
            | Mode::Sync
            | Mode::ReadOnly
            | Mode::Full
            | Mode::FullTiny
            | Mode::Histories
            | Mode::Groups => 10,
        };
        let mut seeds = round * seeds..(round + 1) * seeds;
        seeds.find_map(|seed| mode.run(seed).err().map(|failure| (mode, seed, beginning(&failure.what))))
    })
}

/// A truncation that is forgotten after a crash, which the first mode of a soak meets at once.
const SOAKED: u32 = 21;

/// Has a soak find a planted bug and takes what it prints at its word: what it says to type must fail in the same way, and
/// hold in an engine without the bug. Returns what was typed.
///
/// # Errors
/// What is wrong with it.
pub fn repeat_what_soak_found() -> Result<String, String> {
    plant(SOAKED);
    let repeated = soak(1, Duration::ZERO).err().ok_or("nothing found".to_owned()).and_then(|found| {
        let printed = found.to_string();
        let typed = printed.lines().last().and_then(|line| line.strip_prefix("see it again: "));
        let typed = typed.ok_or_else(|| format!("the last line does not say what to type:\n{printed}"))?.to_owned();
        let (mode, seed) = replayed(&typed).ok_or_else(|| format!("{typed:?} is no way to replay a seed"))?;
        match mode.run(seed) {
            Err(again) if found.what.starts_with(&again.what) => Ok((typed, mode, seed)),
            Err(again) => Err(format!("{typed:?} finds something else: {}", beginning(&again.what))),
            Ok(_) => Err(format!("{typed:?} finds nothing")),
        }
    });
    plant(0);
    let (typed, mode, seed) = repeated?;
    match mode.run(seed) {
        Ok(_) => Ok(typed),
        Err(failure) => Err(format!("{typed:?} fails without a bug: {}", beginning(&failure.what))),
    }
}

/// Mode and seed of a line to type.
fn replayed(typed: &str) -> Option<(Mode, u64)> {
    let (_, arguments) = typed.split_once(" -- replay ")?;
    let (mode, seed) = arguments.split_once(' ')?;
    Some((Mode::of(mode)?, seed.parse().ok()?))
}

/// Enough of a failure to recognize it, on one line.
fn beginning(what: &str) -> String {
    let line = what.lines().filter(|line| !line.trim().is_empty()).take(2).collect::<Vec<_>>().join(" ");
    line.chars().take(160).collect()
}
