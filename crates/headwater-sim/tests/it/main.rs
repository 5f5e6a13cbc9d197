//! The harness on trial, and then the store.

mod naive;
mod trial;
