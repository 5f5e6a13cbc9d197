//! Simulated disk, workloads and checkers: the engine under crashes.

mod chance;
mod clock;
mod disk;

pub use chance::{Chance, SimRandom};
pub use clock::SimClock;
pub use disk::{AfterFailedSync, Counts, Crashed, Faults, Image, SimDisk};
