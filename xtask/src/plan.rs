//! Which suites there are, in which order they run, and what each of them needs.

use crate::metadata::{cargo, root};
use crate::report::{Counts, Line, Report, Verdict};
use crate::run::{end_children_when_interrupted, run};
use crate::system::{CLIPPY, JAVA, LINKER, MOUNT, NODE, Need, PYTHON, RUSTFMT, STRACE, provide};
use crate::{features, layers, licences};
use anyhow::{Result, bail};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// What `cargo xtask test` was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) quick: bool,
    pub(crate) ci: bool,
    pub(crate) only: Vec<String>,
}

/// What a suite does.
enum Work {
    /// Cargo with these arguments, in the root or in a folder below it.
    Cargo(&'static [&'static str], &'static str),
    /// A function of this program; the text is printed.
    Here(fn() -> Result<String>),
    /// The Python package, as a wheel in an environment of its own.
    Wheel,
    /// Tests of the server that these arguments choose, with the binary in place of a server in their own process.
    Binary(&'static [&'static str]),
    /// The simulation against planted bugs.
    Canaries,
    /// The conformance harness with these arguments.
    Conformance(&'static [&'static str]),
}

struct Suite {
    name: &'static str,
    work: Work,
    needs: &'static [Need],
    /// Part of the inner loop.
    quick: bool,
    limit: Duration,
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

/// In order: what fails fast comes first. All choose the whole workspace, and its targets by their names: with fewer
/// packages cargo would switch off features that only the others ask for, and build most of the tree once more.
const SUITES: &[Suite] = &[
    Suite {
        name: "format",
        work: Work::Cargo(&["fmt", "--all", "--check"], "."),
        needs: &[RUSTFMT],
        quick: true,
        limit: minutes(2),
    },
    Suite {
        name: "format-genuine",
        work: Work::Cargo(&["fmt", "--check"], "crates/headwater-conformance/genuine-rust"),
        needs: &[RUSTFMT],
        quick: true,
        limit: minutes(2),
    },
    Suite { name: "layers", work: Work::Here(layers::check_workspace), needs: &[], quick: true, limit: minutes(5) },
    Suite { name: "features", work: Work::Here(features::check_workspace), needs: &[], quick: true, limit: minutes(5) },
    Suite { name: "licences", work: Work::Here(licences::check_workspace), needs: &[], quick: true, limit: minutes(5) },
    Suite {
        name: "clippy",
        work: Work::Cargo(&["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"], "."),
        needs: &[CLIPPY, LINKER],
        quick: true,
        limit: minutes(15),
    },
    Suite {
        name: "unit-tests",
        work: Work::Cargo(&["test", "--release", "--workspace", "--no-fail-fast", "--lib", "--bins", "--quiet"], "."),
        needs: &[LINKER],
        quick: true,
        limit: minutes(20),
    },
    // Of the crates; the simulation has its own line below.
    Suite {
        name: "integration-tests",
        work: Work::Cargo(
            &[
                "test",
                "--release",
                "--workspace",
                "--no-fail-fast",
                "--exclude",
                "headwater-sim",
                "--test",
                "*",
                "--quiet",
            ],
            ".",
        ),
        needs: &[LINKER],
        quick: false,
        limit: minutes(15),
    },
    Suite {
        name: "doc-tests",
        work: Work::Cargo(&["test", "--release", "--workspace", "--no-fail-fast", "--doc", "--quiet"], "."),
        needs: &[LINKER],
        quick: false,
        limit: minutes(10),
    },
    Suite {
        name: "simulation",
        work: Work::Cargo(
            &["test", "--release", "--workspace", "--no-fail-fast", "--test", "simulation", "--quiet"],
            ".",
        ),
        needs: &[LINKER],
        quick: false,
        limit: minutes(10),
    },
    Suite {
        name: "binary",
        // One asks for tokens of four seconds, which the command line refuses.
        work: Work::Binary(&["auth::", "hostile::", "tls::", "hosts::", "--skip", "appends_end_with_the_token"]),
        needs: &[LINKER],
        quick: false,
        limit: minutes(15),
    },
    Suite { name: "wheel", work: Work::Wheel, needs: &[LINKER, PYTHON], quick: false, limit: minutes(8) },
    Suite { name: "canaries", work: Work::Canaries, needs: &[LINKER], quick: false, limit: minutes(10) },
    Suite {
        name: "genuine-clients",
        work: Work::Conformance(&["prepare"]),
        needs: &[LINKER, PYTHON],
        quick: false,
        limit: minutes(25),
    },
    Suite {
        name: "refusals",
        work: Work::Conformance(&["refusals", "--prepared"]),
        needs: &[STRACE],
        quick: false,
        limit: minutes(5),
    },
    Suite {
        name: "lifecycle",
        work: Work::Conformance(&["lifecycle", "--prepared"]),
        needs: &[],
        quick: false,
        limit: minutes(5),
    },
    Suite {
        name: "bench",
        work: Work::Conformance(&["bench", "--prepared"]),
        needs: &[],
        quick: false,
        limit: minutes(3),
    },
    Suite {
        name: "operations",
        work: Work::Conformance(&["operations", "--prepared"]),
        needs: &[],
        quick: false,
        limit: minutes(5),
    },
    Suite {
        name: "rust-client",
        work: Work::Conformance(&["rust", "--prepared"]),
        needs: &[],
        quick: false,
        limit: minutes(8),
    },
    Suite {
        name: "python-client",
        work: Work::Conformance(&["python", "--prepared"]),
        needs: &[PYTHON],
        quick: false,
        limit: minutes(8),
    },
    Suite {
        name: "java-client",
        work: Work::Conformance(&["java", "--prepared"]),
        needs: &[JAVA],
        quick: false,
        limit: minutes(8),
    },
    Suite {
        name: "auth",
        work: Work::Conformance(&["auth", "--prepared"]),
        needs: &[PYTHON, NODE],
        quick: false,
        limit: minutes(5),
    },
    Suite {
        name: "malformed",
        work: Work::Conformance(&["malformed", "--prepared"]),
        needs: &[],
        quick: false,
        limit: minutes(8),
    },
    Suite {
        name: "s3",
        work: Work::Conformance(&["s3", "--prepared"]),
        needs: &[PYTHON],
        quick: false,
        limit: minutes(3),
    },
    Suite {
        name: "ceiling",
        work: Work::Conformance(&["ceiling", "--prepared"]),
        needs: &[],
        quick: false,
        limit: minutes(4),
    },
    Suite {
        name: "full-disk",
        work: Work::Conformance(&["full", "--prepared"]),
        needs: &[PYTHON, MOUNT],
        quick: false,
        limit: minutes(4),
    },
    Suite {
        name: "flights",
        work: Work::Conformance(&["flights", "--prepared"]),
        needs: &[PYTHON],
        quick: false,
        limit: minutes(10),
    },
    Suite {
        name: "crash",
        work: Work::Conformance(&["crash", "--cycles", "10", "--prepared"]),
        needs: &[],
        quick: false,
        limit: minutes(10),
    },
    Suite {
        name: "storms",
        work: Work::Conformance(&["storms", "--prepared"]),
        needs: &[],
        quick: false,
        limit: minutes(5),
    },
    Suite {
        name: "compatibility",
        work: Work::Conformance(&["compatibility"]),
        needs: &[],
        quick: false,
        limit: minutes(1),
    },
];

/// Everything together ends by itself, with a table of what there was no time for, before somebody ends it who gives it an
/// hour and a half. From a clean clone it took 47 minutes on the slowest two cores seen so far.
const ALL_WITHIN: Duration = minutes(80);

/// Runs the suites. True when everything held.
///
/// # Errors
/// When a suite is asked for that does not exist, or signals cannot be received.
pub(crate) fn test(options: &Options) -> Result<bool> {
    for name in &options.only {
        if !SUITES.iter().any(|suite| suite.name == name) {
            let names: Vec<&str> = SUITES.iter().map(|suite| suite.name).collect();
            bail!("there is no suite {name}, only {}", names.join(", "));
        }
    }
    end_children_when_interrupted()?;
    let started = Instant::now();
    let mut report = Report::default();
    let mut clients_missing = None;
    for suite in SUITES {
        // The genuine clients are needed by every suite behind them.
        let behind_the_clients = matches!(suite.work, Work::Conformance(_));
        let asked = options.only.is_empty()
            || options.only.iter().any(|name| name == suite.name)
            || (suite.name == "genuine-clients" && options.only.iter().any(|name| is_conformance(name)));
        if !asked {
            continue;
        }
        let begun = Instant::now();
        let rest = ALL_WITHIN.saturating_sub(started.elapsed());
        let skip = if options.quick && !suite.quick {
            Some("--quick".to_owned())
        } else if rest.is_zero() {
            Some(format!("{} minutes are over", ALL_WITHIN.as_secs() / 60))
        } else if behind_the_clients && let Some(why) = &clients_missing {
            Some(format!("the genuine clients are not there: {why}"))
        } else {
            suite.needs.iter().find_map(|need| provide(need, options.ci).err())
        };
        let line = match skip {
            Some(why) => Line {
                suite: suite.name.to_owned(),
                verdict: Verdict::Skipped(why),
                counts: Counts::default(),
                took: begun.elapsed(),
                recap: Vec::new(),
            },
            None => {
                println!("\n=== {} ===", suite.name);
                perform(suite, rest)
            }
        };
        if suite.name == "genuine-clients" {
            clients_missing = match &line.verdict {
                Verdict::Passed => None,
                Verdict::Failed(why) | Verdict::Skipped(why) => Some(why.clone()),
            };
        }
        report.add(line);
    }
    report.print(started.elapsed());
    Ok(report.good(options.ci))
}

fn is_conformance(name: &str) -> bool {
    SUITES.iter().any(|suite| suite.name == name && matches!(suite.work, Work::Conformance(_)))
}

fn perform(suite: &Suite, rest: Duration) -> Line {
    let started = Instant::now();
    let line =
        |verdict, counts, recap| Line { suite: suite.name.to_owned(), verdict, counts, took: started.elapsed(), recap };
    let commands = match &suite.work {
        Work::Here(check) => {
            return match check() {
                Ok(summary) => {
                    println!("{summary}");
                    line(Verdict::Passed, Counts { passed: 1, failed: 0 }, Vec::new())
                }
                Err(error) => {
                    println!("{error:#}");
                    line(Verdict::Failed(format!("{error:#}")), Counts { passed: 0, failed: 1 }, Vec::new())
                }
            };
        }
        Work::Cargo(arguments, folder) => {
            let mut command = cargo();
            command.args(*arguments).current_dir(root().join(folder));
            vec![command]
        }
        Work::Wheel => {
            let mut command = Command::new("python3");
            command.args(["crates/headwater-python/tests/run.py", "target"]).current_dir(root());
            vec![command]
        }
        Work::Binary(arguments) => {
            let (build, path) = built("headwater", &[]);
            let mut test = cargo();
            test.args(["test", "--release", "--quiet", "--workspace", "--no-fail-fast", "--test", "it", "--"])
                .args(*arguments);
            test.env("HEADWATER_TEST_BINARY", path).current_dir(root());
            vec![build, test]
        }
        Work::Canaries => binary("headwater-sim", &["--features", "headwater-sim/canary"], &["canaries"]),
        Work::Conformance(arguments) => binary("headwater-conformance", &[], arguments),
    };
    let limit = suite.limit.min(rest);
    let mut counts = Counts::default();
    let mut recap = Vec::new();
    for command in commands {
        match run(command, limit.saturating_sub(started.elapsed())) {
            Err(error) => return line(Verdict::Failed(format!("{error:#}")), counts, recap),
            Ok(ended) => {
                counts += ended.counts;
                recap = ended.recap;
                if let Some(why) = ended.failure {
                    return line(Verdict::Failed(why), counts, recap);
                }
            }
        }
    }
    if counts.failed > 0 {
        return line(Verdict::Failed(format!("{} tests failed", counts.failed)), counts, recap);
    }
    let silent = counts == Counts::default();
    line(Verdict::Passed, if silent { Counts { passed: 1, failed: 0 } } else { counts }, recap)
}

/// Builds a binary of this workspace and runs it. By its path: `cargo run` takes no whole workspace.
fn binary(name: &str, features: &[&str], arguments: &[&str]) -> Vec<Command> {
    let (build, path) = built(name, features);
    let mut run = Command::new(path);
    run.args(arguments).current_dir(root());
    vec![build, run]
}

/// How a binary of this workspace is built, and where it is then.
fn built(name: &str, features: &[&str]) -> (Command, PathBuf) {
    let mut build = cargo();
    build.args(["build", "--release", "--quiet", "--workspace", "--bin", name]).args(features).current_dir(root());
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    (build, root().join(target).join("release").join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_have_names_of_their_own() {
        for (i, suite) in SUITES.iter().enumerate() {
            assert!(SUITES[..i].iter().all(|other| other.name != suite.name), "{}", suite.name);
        }
    }

    /// One run is to show every failure; and names of tests that passed, of which some speak of failures, are noise.
    #[test]
    fn cargo_goes_on_behind_a_program_that_failed_and_names_no_test_that_passed() {
        for suite in SUITES {
            if let Work::Cargo(arguments @ ["test", ..], _) = &suite.work {
                assert!(arguments.contains(&"--no-fail-fast") && arguments.contains(&"--quiet"), "{}", suite.name);
            }
        }
    }

    #[test]
    fn the_inner_loop_needs_no_genuine_client() {
        assert!(SUITES.iter().all(|suite| !suite.quick || !matches!(suite.work, Work::Conformance(_))));
    }
}
