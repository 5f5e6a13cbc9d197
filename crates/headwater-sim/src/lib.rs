//! Simulated disk, workloads and checkers: the engine under crashes, faults, rot, pressure and concurrent clients.
//!
//! ```text
//!   workload ─► harness ─► store on SimDisk ─► images at I/O boundaries ─► power cut ─► store opened again
//!      ▲           │                                                                      │
//!      └── model ◄─┴─ history: which states do the answers allow? ◄──── compare: what is found?
//! ```
//!
//! [`SimDisk`] keeps the durability rules and breaks everything they do not promise. [`model`] says what requests do,
//! in maps and vectors. [`History`] says what must have survived, given the answers. [`crash_run`] cuts the power,
//! [`fault_run`] and [`full_run`] let calls fail and the disk fill up, [`rot_run`] damages stored bytes; [`clients_run`] needs
//! no model: it checks what [several clients heard](histories). [`groups_run`] tries the rules of reader groups, without an engine. Anything that implements [`Store`] and [`Launch`] can be put
//! on trial, and the tests do so with stores that have a planted bug each; so does a build with feature `canary` with the
//! engine itself.
//!
//! Everything follows from a seed: a [`Mode`] is a function of one, and the same seed gives the same trace.
//!
//! `cargo run --release -p headwater-sim -- replay MODE SEED` runs a seed again; see `main.rs`.

#[cfg(feature = "canary")]
mod canaries;
mod chance;
mod clock;
mod compare;
mod disk;
mod groups;
mod harness;
pub mod histories;
mod history;
pub mod model;
mod modes;
mod soak;
mod stepped;
mod workload;

#[cfg(feature = "canary")]
pub use canaries::{Catch, catch_all, repeat_what_soak_found};
pub use chance::{Chance, SimRandom};
pub use clock::SimClock;
pub use compare::{Found, Refusing, look_at_all};
pub use disk::{AfterFailedSync, Counts, Crashed, Faults, Image, SimBucket, SimDisk};
pub use groups::{GroupsReport, groups_run};
pub use harness::clients::{ClientsReport, clients_run};
pub use harness::crash::{Plan, Report, crash_run};
pub use harness::faults::{FaultOutcome, FaultReport, FullReport, fault_run, full_run};
pub use harness::rot::{Damage, FileKind, RotReport, Verdict, every_bit_run, rot_run};
pub use harness::threads::threads_run;
pub use harness::{Failure, Launch, Store};
pub use history::{Allowed, History, Ticket};
pub use modes::{Mode, Summary};
pub use soak::soak;
pub use stepped::{EngineLaunch, SteppedEngine};
pub use workload::{Universe, Workload};
