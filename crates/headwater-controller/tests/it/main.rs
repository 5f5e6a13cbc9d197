//! The controller on ports in memory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod autoscale;
mod chaos;
mod clock;
mod crashes;
mod golden;
mod histories;
mod items;
mod memory;
mod retention;
mod scopes;
mod segments;
mod support;
mod transactions;
mod walks;
mod watermarks;
