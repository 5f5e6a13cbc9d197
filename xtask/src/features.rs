//! One set of features: what is shipped is built from the same packages with the same features as the whole workspace with
//! its tests. Otherwise cargo builds everything above a difference twice, and the tests' binary is not the one people run.

use crate::metadata::tree;
use anyhow::{Result, ensure};

/// What is built by itself: the binary by `cargo run`, the Python package by its wheel.
const SHIPPED: &[&str] = &["headwater", "headwater-python"];

/// Judges this workspace. Returns a line to print.
///
/// # Errors
/// Every package that is built with other features for its own sake.
pub(crate) fn check_workspace() -> Result<String> {
    const PACKAGE_AND_FEATURES: [&str; 2] = ["--format", "{p} [{f}]"];
    let everything = [&["--workspace", "--edges", "normal,build,dev"], &PACKAGE_AND_FEATURES[..]].concat();
    let everything = tree(&everything)?;
    for name in SHIPPED {
        let alone = [&["--package", name, "--edges", "normal,build"], &PACKAGE_AND_FEATURES[..]].concat();
        let alone = tree(&alone)?;
        let other: Vec<&str> = alone.difference(&everything).map(String::as_str).collect();
        ensure!(
            other.is_empty(),
            "built for {name} alone, these have other features than in the whole workspace; name the features in the \
             root's Cargo.toml:\n{}",
            other.join("\n")
        );
    }
    Ok(format!("{} packages, each with the same features wherever it is built", everything.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shipped_is_built_once() {
        check_workspace().expect("one set of features");
    }
}
