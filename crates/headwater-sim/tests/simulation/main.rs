//! The harness on trial, and then the store.

mod engine;
mod histories;
mod naive;
mod trial;
