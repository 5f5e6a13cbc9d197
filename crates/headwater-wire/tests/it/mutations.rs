//! Both ends meet the corpus changed at random, in every run.

#[path = "../../../../fuzz/mutate.rs"]
mod mutate;

use std::time::Duration;

use crate::corpus;
use crate::fuzz::{fuzz_client, fuzz_server};

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
