//! A store of which files of one format were changed. The body is shared with the tests of the engine.

#![no_main]
#![allow(dead_code, reason = "the file has the bodies of all formats")]

#[path = "../../crates/headwater-engine/tests/it/fuzz.rs"]
mod fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::fuzz_disk(fuzz::Kind::BucketFile, bytes));
