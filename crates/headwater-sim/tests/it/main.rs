//! The harness on trial, and then the store.

mod engine;
mod naive;
mod trial;
