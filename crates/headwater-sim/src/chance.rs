//! Chance that can be repeated: the same seed draws the same numbers, on every machine.

use std::sync::{Mutex, PoisonError};

use headwater_engine::io::Random;

/// A stream of pseudo-random numbers. Not for secrets.
///
/// The generator is SplitMix64 (Steele, Lea, Flood 2014): one 64-bit state, every seed is a good one.
#[derive(Clone, Debug)]
pub struct Chance {
    state: u64,
}

impl Chance {
    /// The stream that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        let mut chance = Self { state: seed };
        // Neighbouring seeds would otherwise share their numbers, shifted by one.
        chance.state = chance.bits() ^ 0x6a09_e667_f3bc_c908;
        chance
    }

    /// A stream of its own, drawn from this one: what one part draws does not shift what another part draws.
    pub fn fork(&mut self) -> Self {
        Self::new(self.bits())
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which must not be 0. The bias is below 2^-32 for bounds below 2^32.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing is below zero");
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// An index into something of `count` elements, which must not be 0.
    pub fn index(&mut self, count: usize) -> usize {
        self.below(count as u64) as usize
    }

    /// One of `items`, which must not be empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.index(items.len())]
    }

    /// True in `percent` of 100 cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Fills `buffer`.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            chunk.copy_from_slice(&self.bits().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// [`Random`] from a seed.
#[derive(Debug)]
pub struct SimRandom(Mutex<Chance>);

impl SimRandom {
    /// The stream that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(Chance::new(seed)))
    }
}

impl Random for SimRandom {
    fn bits(&self) -> u128 {
        let mut chance = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (u128::from(chance.bits()) << 64) | u128::from(chance.bits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_draws_the_same_numbers() {
        let draw = |seed| {
            let mut chance = Chance::new(seed);
            (0..4).map(|_| chance.bits()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert_eq!(SimRandom::new(7).bits(), SimRandom::new(7).bits());
    }

    #[test]
    fn every_number_below_the_bound_is_drawn_and_none_above() {
        let mut chance = Chance::new(1);
        let mut seen = [0_u32; 7];
        for _ in 0..7000 {
            seen[chance.index(7)] += 1;
        }
        assert!(seen.iter().all(|count| (800..1200).contains(count)), "{seen:?}");
    }
}
