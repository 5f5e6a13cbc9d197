//! `headwater doctor`: whether this machine can keep what the server promises, before it has to.
//!
//! Every line says what was found and, unless all is well, what to do. The exit code is 1 if something found would break
//! a promise; warnings alone leave it 0. The only trace is a file of 8 MiB, made to measure the disk and removed.

mod disk;
mod machine;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::exit;
use crate::serve::print;
use crate::settings::{Flags, Settings};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Severity {
    /// As it should be.
    Fine,
    /// Works, but worse than it could, or for how long is not known.
    Warning,
    /// Breaks a promise.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
struct Finding {
    severity: Severity,
    /// What was looked at, from a list that only grows: see `docs/operations.md`.
    code: &'static str,
    /// What was found.
    what: String,
    /// What to do about it; empty if nothing.
    advice: String,
    /// Figures behind it, by name.
    figures: Vec<(&'static str, Value)>,
}

impl Finding {
    fn fine(code: &'static str, what: impl Into<String>) -> Self {
        let (what, advice) = (what.into(), String::new());
        Self { severity: Severity::Fine, code, what, advice, figures: Vec::new() }
    }

    fn warning(code: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, advice: advice.into(), ..Self::fine(code, what) }
    }

    fn bad(code: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { severity: Severity::Bad, advice: advice.into(), ..Self::fine(code, what) }
    }

    fn with(mut self, name: &'static str, figure: impl Into<Value>) -> Self {
        self.figures.push((name, figure.into()));
        self
    }
}

/// What to look at and how to say it.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Data directory, made already or not [default: the one `serve` would use]
    directory: Option<PathBuf>,
    /// Print one JSON object instead of lines for people
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) flags: Flags,
}

/// Looks at everything; returns the code to end with.
pub(crate) fn run(arguments: &Arguments, settings: &Settings) -> i32 {
    let directory = arguments.directory.as_ref().unwrap_or(&settings.data_dir);
    let clocks = machine::Clocks::now();
    let mut findings = disk::look(directory);
    findings.extend(machine::look(settings));
    findings.push(clocks.judge());
    let worst = findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Fine);
    print(&if arguments.json { object(directory, &findings, worst) } else { lines(directory, &findings, worst) });
    if worst == Severity::Bad { exit::DOUBT } else { 0 }
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Fine => "fine",
        Severity::Warning => "warning",
        Severity::Bad => "bad",
    }
}

fn lines(directory: &Path, findings: &[Finding], worst: Severity) -> String {
    let mut page = String::new();
    for Finding { severity, code, what, advice, .. } in findings {
        page.push_str(&format!("{:7} {code:12} {what}\n", word(*severity)));
        if !advice.is_empty() {
            page.push_str(&format!("{:20} -> {advice}\n", ""));
        }
    }
    let verdict = match worst {
        Severity::Fine => "nothing to do",
        Severity::Warning => "usable; see the warnings",
        Severity::Bad => "do not run a store here before this is mended",
    };
    format!("{page}{}: {verdict}\n", directory.display())
}

fn object(directory: &Path, findings: &[Finding], worst: Severity) -> String {
    let one = |finding: &Finding| {
        let figures: serde_json::Map<_, _> =
            finding.figures.iter().map(|(name, figure)| ((*name).to_owned(), figure.clone())).collect();
        json!({
            "severity": word(finding.severity),
            "code": finding.code,
            "what": finding.what,
            "advice": finding.advice,
            "figures": figures,
        })
    };
    let findings: Vec<_> = findings.iter().map(one).collect();
    let directory = directory.to_string_lossy();
    format!("{}\n", json!({"format": 1, "directory": directory, "verdict": word(worst), "findings": findings}))
}
