//! Reader groups: what their readers write into the group's stream, and what follows from it.
//!
//! Every reader has a copy of the [`State`] and applies the same changes in the same order, so that all agree without a server
//! that decides. A reader that wants to change something looks at its copy and appends the change on the condition that
//! nothing was appended since; if something was, it applies that and decides anew.

mod checkpoints;
mod configuration;
mod records;
mod state;

pub use checkpoints::{is_silent, silent_checkpoint};
pub use configuration::{GroupConfiguration, Retention};
pub use records::{CheckpointsRecord, Compacted, Fresh, Initial, Placed, Places, Update};
pub use state::{Contradiction, State};
