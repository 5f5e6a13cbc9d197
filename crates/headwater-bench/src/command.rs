//! The command line: `headwater bench …`.

use crate::error::BenchError;
use crate::probe::{Probe, ProbeArgs};
use crate::write::{self, WriteArgs};
use serde::Serialize;
use std::fmt::Display;
use std::io::Write as _;

/// Measure this machine, or a server on it.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Bench {
    /// Measure the limits of this machine: disk, loopback, memory, and the floor program
    Probe(ProbeArgs),
    /// Write to a running server, check that everything is there, and audit that it is durable
    Write(WriteArgs),
}

impl Bench {
    /// Does it and prints the outcome.
    ///
    /// # Errors
    /// Why there are no figures.
    pub fn run(self) -> Result<(), BenchError> {
        match self {
            Self::Probe(args) => print(&Probe::take(&args.dir, args.short)?, args.json),
            Self::Write(args) => print(&write::run(&args)?, args.json),
        }
    }
}

/// To standard output, for people or as one JSON object.
fn print(report: &(impl Display + Serialize), json: bool) -> Result<(), BenchError> {
    let text = if json {
        serde_json::to_string_pretty(report).expect("reports are structures with names for keys")
    } else {
        report.to_string()
    };
    let mut out = std::io::stdout().lock();
    // A reader who has seen enough is nobody's problem.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    Ok(())
}
