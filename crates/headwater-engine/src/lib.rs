//! The store: one journal, containers that own segments, an ordered catalogue, chunks, tables.
//!
//! ```text
//!   api ─► engine ─► tasks ─► container ─► catalogue      decides, remembers
//!                      │          │
//!                      ├─► journal│                       makes durable
//!                      └─► chunks ┘                       keeps for good
//! ```
//!
//! `container` is a deterministic step function: requests in, effects out. `tasks` owns the threads that carry the
//! effects out; [`Stepper`] does the same in one thread for simulation. Only [`io`] touches files, clocks and chance.
//!
//! Start reading at [`api`], then at `container`.

pub mod api;
mod backup;
mod bucket;
pub mod canary;
mod catalogue;
pub mod check;
mod chunks;
mod codec;
mod container;
mod engine;
mod error;
pub mod io;
mod journal;
mod scrub;
mod stepper;
mod store;
mod tasks;

pub use backup::{Image, ImageError, ImageFile};
pub use bucket::{BucketOptions, BucketRestore, Recovered};
pub use engine::{Engine, Metrics, OnFatal, Permit};
pub use error::StoreError;
pub use stepper::{Stepper, Ticket};
pub use store::{ContainerLimits, MEMORY_BYTES_MIN, Options};
