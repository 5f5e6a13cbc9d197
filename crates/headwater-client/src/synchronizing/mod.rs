//! State that several processes share and change by agreement: each holds a copy, decides on it, and its change is made only
//! if nobody was faster; otherwise it looks again and decides again.

mod membership;
mod state;
mod table;

pub use membership::{Member, Membership};
pub use state::{SharedState, StateSynchronizer};
pub use table::{SharedMaps, SharedPut, TableSynchronizer};
