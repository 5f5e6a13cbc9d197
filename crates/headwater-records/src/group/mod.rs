//! Reader groups: what their readers write into the group's stream, and what follows from it.
//!
//! Every reader has a copy of the [`State`] and applies the same changes in the same order, so that all agree without a server
//! that decides. A reader that wants to change something looks at its copy and appends the change on the condition that
//! nothing was appended since; if something was, it applies that and decides anew.
//!
//! [`Member`] is one reader, step by step; [`decide`] are the rules by which readers share. Both know no clock and no server.

mod checkpoints;
mod configuration;
pub mod decide;
mod member;
mod records;
mod state;

pub use checkpoints::{is_silent, silent_checkpoint};
pub use configuration::{GroupConfiguration, Retention};
pub use member::{Effect, Handover, Intent, Member, Offline, Step, Successor};
pub use records::{CheckpointsRecord, Compacted, Fresh, Initial, Placed, Places, Update};
pub use state::{Contradiction, State};
