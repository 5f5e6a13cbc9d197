//! Replays the corpus of the fuzz targets on every run, in stable Rust.

use crate::fuzz::{fuzz_client, fuzz_server};
use crate::support::unhex;

/// Inputs in hexadecimal, one per line; `#` begins a comment.
const CORPUS: &str = include_str!("corpus.txt");

#[test]
fn the_corpus_does_no_harm() {
    let mut replayed = 0;
    for line in CORPUS.lines() {
        let input = unhex(line.split('#').next().unwrap_or_default());
        if !input.is_empty() {
            fuzz_server(&input);
            fuzz_client(&input);
            // Every prefix is what a peer that dies in the middle leaves behind.
            for end in 0..input.len() {
                fuzz_server(&input[..end]);
                fuzz_client(&input[..end]);
            }
            replayed += 1;
        }
    }
    assert!(replayed >= 70, "{replayed} inputs");
}
