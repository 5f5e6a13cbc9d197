//! Replays the corpus of the fuzz targets on every run, in stable Rust.

use crate::fuzz::{fuzz_client, fuzz_server};
use crate::support::unhex;

/// Inputs in hexadecimal, one per line; `#` begins a comment.
const CORPUS: &str = include_str!("corpus.txt");

/// Every input, each of at least one byte.
pub(crate) fn inputs() -> Vec<Vec<u8>> {
    let inputs = CORPUS.lines().map(|line| unhex(line.split('#').next().unwrap_or_default()).to_vec());
    inputs.filter(|input| !input.is_empty()).collect()
}

#[test]
fn the_corpus_does_no_harm() {
    let inputs = inputs();
    for input in &inputs {
        fuzz_server(input);
        fuzz_client(input);
        // Every prefix is what a peer that dies in the middle leaves behind.
        for end in 0..input.len() {
            fuzz_server(&input[..end]);
            fuzz_client(&input[..end]);
        }
    }
    assert!(inputs.len() >= 70, "{} inputs", inputs.len());
}
