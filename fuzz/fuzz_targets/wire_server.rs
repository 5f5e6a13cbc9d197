//! Arbitrary bytes from a peer of the server end. The body is shared with the tests of the wire crate, which replay its
//! corpus on every run.

#![no_main]
#![allow(dead_code, reason = "the file has the bodies of both ends")]

#[path = "../../crates/headwater-wire/tests/it/fuzz.rs"]
mod fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::fuzz_server(bytes));
