//! Automation: `cargo xtask test` builds and runs every suite, in one target directory and one profile.
//!
//! * every suite is a child process group with a time limit; what hangs is killed and reported, never waited for
//! * what cannot run here is skipped, said loudly at the end, and a failure under `--ci`
//! * one run shows every failure: none keeps what comes behind it from running, and all are shown once more at the end
//! * the last line counts tests: `N passed, N failed`, and `, N skipped` when some were
//!
//! `--quick` is the inner loop: formatting, lints, layers, features and unit tests, no genuine clients.
//! `--ci` also installs missing system packages, since it may start on a machine that was just made.

#![allow(
    clippy::disallowed_methods,
    reason = "starts processes, reads files and watches the clock; nothing here runs in the simulator"
)]

mod features;
mod layers;
mod licences;
mod metadata;
mod plan;
mod recap;
mod report;
mod run;
mod system;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask test [--quick] [--ci] [--only SUITE]...
       cargo xtask layers | licences

  --quick        formatting, lints, layers, features, licences and unit tests; no genuine clients
  --ci           everything; installs missing system packages, and a skipped suite is a failure
  --only SUITE   only this suite, for instance clippy, simulation, flights, crash
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["test", options @ ..] => match parse(options) {
            Some(options) => plan::test(&options),
            None => return usage(),
        },
        ["layers"] => layers::check_workspace().map(|summary| {
            println!("{summary}");
            true
        }),
        ["licences"] => licences::check_workspace().map(|summary| {
            println!("{summary}");
            true
        }),
        _ => return usage(),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprint!("{USAGE}");
    ExitCode::from(2)
}

fn parse(options: &[&str]) -> Option<plan::Options> {
    let mut parsed = plan::Options::default();
    let mut rest = options.iter();
    while let Some(option) = rest.next() {
        match *option {
            "--quick" => parsed.quick = true,
            "--ci" => parsed.ci = true,
            "--only" => parsed.only.push((*rest.next()?).to_owned()),
            _ => return None,
        }
    }
    // Continuous integration that skips most of it would be a contradiction.
    (!(parsed.quick && parsed.ci)).then_some(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_understood_and_contradictions_refused() {
        let only = parse(&["--only", "crash", "--ci"]).expect("valid options");
        assert!(only.ci && !only.quick && only.only == ["crash"]);
        assert!(parse(&["--quick", "--ci"]).is_none());
        assert!(parse(&["--only"]).is_none());
        assert!(parse(&["--slow"]).is_none());
    }
}
