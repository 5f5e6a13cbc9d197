//! Simulated disk, workloads and checkers: the engine under crashes.

mod chance;
mod clock;
mod compare;
mod disk;
mod harness;
mod history;
pub mod model;
mod stepped;
mod workload;

pub use chance::{Chance, SimRandom};
pub use clock::SimClock;
pub use compare::{Found, look_at_all};
pub use disk::{AfterFailedSync, Counts, Crashed, Faults, Image, SimDisk};
pub use harness::{Failure, FaultOutcome, Launch, Plan, Report, Store, crash_run, fault_run};
pub use history::{Allowed, History, Ticket};
pub use stepped::{EngineLaunch, SteppedEngine};
pub use workload::{Universe, Workload};
