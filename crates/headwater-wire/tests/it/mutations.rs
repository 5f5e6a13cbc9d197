//! Both ends meet the corpus changed at random, in every run.

#[path = "../../../../fuzz/mutate.rs"]
mod mutate;

use std::time::Duration;

use headwater_types::WriterId;

use crate::corpus;
use crate::fuzz::{fuzz_client, fuzz_server};
use crate::support::{SEG, hello, serve, set_up};

/// One of the writers of the corpus.
const WRITER: WriterId = WriterId(1);
/// How long each end is tried, both at once.
const LONG: Duration = Duration::from_millis(2_500);

#[test]
fn the_server_end_meets_inputs_that_nobody_has_chosen() {
    mutate::meet("server end", &corpus::inputs(), LONG, fuzz_server);
}

#[test]
fn the_client_end_meets_inputs_that_nobody_has_chosen() {
    mutate::meet("client end", &corpus::inputs(), LONG, fuzz_client);
}

#[test]
fn a_seed_makes_one_input_and_inputs_come_to_good_and_to_bad_ends() {
    let corpus = corpus::inputs();
    let (mut good, mut bad) = (0, 0);
    let mut distinct = std::collections::BTreeSet::new();
    for seed in 0..4_000 {
        let made = mutate::input(&corpus, seed);
        assert_eq!(made, mutate::input(&corpus, seed), "of seed {seed}");
        let (events, end) = serve(&[&hello(), &set_up(WRITER, SEG), made.get(1..).unwrap_or_default()]);
        good += usize::from(events.len() > 2);
        bad += usize::from(end.is_err());
        distinct.insert(made);
    }
    assert!(distinct.len() > 3_500, "{} different inputs", distinct.len());
    assert!(good > 100 && (1_000..3_900).contains(&bad), "{good} inputs bring something, {bad} are refused");
}
