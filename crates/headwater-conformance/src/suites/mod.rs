//! What the genuine clients and the binary are put through.

use crate::prepare::Places;
use anyhow::Result;
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub mod auth;
pub mod bench;
pub mod ceiling;
pub mod clients;
pub mod crash;
pub mod features;
pub mod figures;
pub mod flights;
pub mod full;
pub mod java;
pub mod lifecycle;
pub mod malformed;
pub mod operations;
pub mod refusals;
pub mod s3;
pub mod storms;

/// One thing that is checked, by its name.
pub struct Case<'a> {
    /// A sentence.
    pub name: String,
    /// Returns a remark worth printing (figures), or nothing.
    pub check: Box<dyn FnOnce() -> Result<String> + Send + 'a>,
}

impl<'a> Case<'a> {
    /// A case.
    pub fn new(name: impl Into<String>, check: impl FnOnce() -> Result<String> + Send + 'a) -> Self {
        Self { name: name.into(), check: Box::new(check) }
    }
}

/// How a suite ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Cases that held.
    pub passed: usize,
    /// Cases that did not.
    pub failed: usize,
}

impl Outcome {
    /// One case.
    pub fn of(passed: bool) -> Self {
        Self { passed: usize::from(passed), failed: usize::from(!passed) }
    }

    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self { passed: self.passed + other.passed, failed: self.failed + other.failed }
    }
}

/// Runs cases, at most `at_once` at a time, and prints a line for each as it ends.
pub fn run_cases(cases: Vec<Case<'_>>, at_once: usize) -> Outcome {
    run_named_cases(cases, at_once).iter().fold(Outcome::default(), |sum, (_, held)| sum.and(Outcome::of(*held)))
}

/// As [`run_cases`]. Returns each case's name and whether it held, in the order in which they ended.
pub fn run_named_cases(cases: Vec<Case<'_>>, at_once: usize) -> Vec<(String, bool)> {
    let ended = Mutex::new(Vec::new());
    let waiting = Mutex::new(cases.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().expect("taking a case does not panic").next();
                    let Some(case) = next else { return };
                    let started = Instant::now();
                    let result = (case.check)();
                    let seconds = seconds(started.elapsed());
                    let held = result.is_ok();
                    match result {
                        Ok(remark) => {
                            let remark = if remark.is_empty() { remark } else { format!(": {remark}") };
                            println!("ok      {seconds:>6} s  {}{remark}", case.name);
                        }
                        Err(error) => {
                            println!("FAILED  {seconds:>6} s  {}\n{error:#}", case.name);
                        }
                    }
                    ended.lock().expect("keeping a result does not panic").push((case.name, held));
                }
            });
        }
    });
    ended.into_inner().expect("keeping a result does not panic")
}

fn seconds(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64())
}

/// Runs `body` in a scratch directory that is removed if everything held, and kept for a look if not.
///
/// # Errors
/// When the directory cannot be made or `body` cannot start.
pub fn in_scratch(
    places: &Places,
    suite: &str,
    body: impl FnOnce(&std::path::Path) -> Result<Outcome>,
) -> Result<Outcome> {
    let scratch = places.scratch(suite)?;
    let outcome = body(&scratch);
    match &outcome {
        Ok(Outcome { failed: 0, .. }) => {
            let _ = std::fs::remove_dir_all(&scratch);
        }
        _ => println!("        what the server left is kept in {}", scratch.display()),
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_run_once_and_counted() {
        let cases = (0..20)
            .map(|i| {
                Case::new(
                    format!("case {i}"),
                    move || if i % 4 == 0 { anyhow::bail!("bad") } else { Ok(String::new()) },
                )
            })
            .collect();
        assert_eq!(run_cases(cases, 3), Outcome { passed: 15, failed: 5 });
    }
}
