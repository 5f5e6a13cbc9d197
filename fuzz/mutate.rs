//! Inputs that nobody has chosen, in stable Rust: the tests that replay the corpus of a fuzz target also hand the target
//! changed inputs for a moment, in every run. Included by them.
//!
//! Each input is a function of its seed, and the seeds of a run follow each other. The first one is fresh and printed. An
//! input that fails prints its own seed, and `HEADWATER_FUZZ_SEED=N` makes a run begin with it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Names the seed of the first input.
const SEED: &str = "HEADWATER_FUZZ_SEED";

/// Chance that can be repeated. The generator is SplitMix64 (Steele, Lea, Flood 2014).
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        // Neighbouring seeds would share their numbers otherwise, shifted by one.
        Self(Self(seed).draw())
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 if nothing is.
    fn below(&mut self, bound: usize) -> usize {
        (self.draw() % bound.max(1) as u64) as usize
    }

    /// A byte, which every other time is one of a text.
    fn byte(&mut self) -> u8 {
        let bits = self.draw();
        bits as u8 & if bits >> 63 == 0 { 0x7f } else { 0xff }
    }

    /// A number at which lengths and counts go wrong. `left`: bytes from there on.
    fn odd_number(&mut self, left: usize) -> i32 {
        let near = [0, 1, -1, i32::MIN, i32::MAX, 0x00ff_ffff, 0x0100_0000, 131_072, left as i32];
        near[self.below(near.len())].wrapping_add(self.below(5) as i32 - 2)
    }
}

/// Some inputs of the corpus behind each other, with a few changes.
pub(crate) fn input(corpus: &[Vec<u8>], seed: u64) -> Vec<u8> {
    let mut chance = Chance::new(seed);
    let mut input = corpus[chance.below(corpus.len())].clone();
    for _ in 0..chance.below(3) {
        // Without its first byte: where an input chooses how the rest is taken, that is it.
        input.extend_from_slice(corpus[chance.below(corpus.len())].get(1..).unwrap_or_default());
    }
    for _ in 0..=chance.below(4) {
        let at = chance.below(input.len());
        let end = input.len().min(at + 1 + chance.below(16));
        match chance.below(8) {
            0 | 1 if at < input.len() => input[at] ^= 1 << chance.below(8),
            2 if at < input.len() => input[at] = chance.byte(),
            3 if at + 4 <= input.len() => {
                let number = chance.odd_number(input.len() - at);
                input[at..at + 4].copy_from_slice(&number.to_be_bytes());
            }
            4 => drop(input.drain(at..end)),
            5 => {
                let again = input[at..end].to_vec();
                drop(input.splice(at..at, again));
            }
            6 => input.insert(at, chance.byte()),
            7 if chance.below(4) == 0 => input.truncate(at),
            _ => {}
        }
    }
    input
}

/// Says which input it was, if it was the last.
struct Current(u64);

impl Drop for Current {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{SEED}={} begins with the input that failed", self.0);
        }
    }
}

/// Hands changed inputs to a target for so long, at least one. The corpus must not be empty.
#[allow(clippy::disallowed_methods, reason = "how many inputs there are and which is the first is left to the clock")]
pub(crate) fn meet(target: &str, corpus: &[Vec<u8>], long: Duration, mut fuzz: impl FnMut(&[u8])) {
    let first = match std::env::var(SEED) {
        Ok(seed) => seed.parse().expect("the seed is a number"),
        Err(_) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
            // Short enough to be typed again.
            now.as_nanos() as u64 % 1_000_000_000
        }
    };
    println!("{target}: {SEED}={first} and what follows");
    let until = Instant::now() + long;
    let mut seed = first;
    while seed == first || Instant::now() < until {
        let _current = Current(seed);
        fuzz(&input(corpus, seed));
        seed = seed.wrapping_add(1);
    }
    println!("{target}: {} inputs", seed.wrapping_sub(first));
}
