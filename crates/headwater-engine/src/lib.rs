//! The store: one journal, containers that own segments, an ordered catalogue, chunks, tables.

pub mod api;
mod engine;
pub mod io;

pub use engine::{Engine, MEMORY_BYTES_MIN, Metrics, OnFatal, Options, Permit, StoreError};
