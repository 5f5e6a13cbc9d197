//! Plants bugs in the engine, one at a time, and has the simulation look for them. Only in builds with `--cfg canary`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use headwater_engine::canary::{CANARIES, plant};

use crate::modes::Mode;

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

/// Seeds after which a bug is given up.
const SEEDS: u64 = 20;
/// Seeds of an engine without a planted bug.
const SEEDS_SOUND: u64 = 3;
/// In which order seeds of the modes are tried; the quick ones first.
const MODES: [Mode; 10] = [
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
                    let seeds = if *number == 0 { SEEDS_SOUND } else { SEEDS };
                    let by = (0..seeds).find_map(find);
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

fn find(seed: u64) -> Option<(Mode, u64, String)> {
    MODES.into_iter().find_map(|mode| mode.run(seed).err().map(|failure| (mode, seed, beginning(&failure.what))))
}

/// Enough of a failure to recognize it, on one line.
fn beginning(what: &str) -> String {
    let line = what.lines().filter(|line| !line.trim().is_empty()).take(2).collect::<Vec<_>>().join(" ");
    line.chars().take(160).collect()
}
