//! The harness on trial, and then the store.

mod controller;
#[path = "../../../headwater-controller/tests/it/histories.rs"]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod controller_histories;
mod engine;
mod histories;
mod naive;
mod trial;
