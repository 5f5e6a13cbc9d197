//! Texts from outside. The body is shared with the tests of the authorization crate, which replay its corpus.

#![no_main]
#![allow(dead_code, reason = "the file has the bodies of all kinds of text")]

#[path = "../../crates/headwater-auth/tests/fuzz.rs"]
mod fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::fuzz_tokens(bytes));
