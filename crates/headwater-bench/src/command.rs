//! The command line: `headwater bench …`.

use std::fmt::Display;
use std::io::Write as _;

use serde::Serialize;

use crate::all::{self, AllArgs};
use crate::catchup::{self, CatchupArgs};
use crate::clients::{self, ClientsArgs};
use crate::conns::{self, ConnsArgs};
use crate::error::BenchError;
use crate::fanout::{self, FanoutArgs};
use crate::genuine::{self, GenuineArgs};
use crate::growth::{self, GrowthArgs};
use crate::kv::{self, KvArgs};
use crate::mixed::{self, Beside, MixedArgs};
use crate::null::{self, NullArgs};
use crate::probe::{Probe, ProbeArgs};
use crate::recover::{self, RecoverArgs};
use crate::scale::{self, ScaleArgs};
use crate::segments::{self, SegmentsArgs};
use crate::tail::{self, TailArgs};
use crate::txn::{self, TxnArgs};
use crate::write::{self, WriteArgs};

/// Measure this machine, or a server on it.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Bench {
    /// Measure the limits of this machine: disk, loopback, memory, and the floor program
    Probe(ProbeArgs),
    /// Write to a running server, check that everything is there, and audit that it is durable
    Write(WriteArgs),
    /// Write, and read at the tail at the same time
    Tail(TailArgs),
    /// Write to one segment and read it at the tail by many, against one reader
    Fanout(FanoutArgs),
    /// Read what was written before, from memory and from the disk
    Catchup(CatchupArgs),
    /// Create many segments and write evenly over them, against one
    Segments(SegmentsArgs),
    /// Hold many idle connections, and write beside them
    Conns(ConnsArgs),
    /// Write beside bulk writes, flushes, checkpoints and deletions, or beside readers of old data
    Mixed(MixedArgs),
    /// Commit transactions of many events, against plain writes of the same events
    Txn(TxnArgs),
    /// Put, update on condition and get the keys of a table
    Kv(KvArgs),
    /// Split and merge a stream while it is written, against one that is left alone
    Scale(ScaleArgs),
    /// Start a server on an empty directory, fill it, kill it, start it again
    Recover(RecoverArgs),
    /// Serve without storing anything: what a client reaches against it is the client's own limit
    Null(NullArgs),
    /// Run a genuine client against a server and against one that stores nothing
    Genuine(GenuineArgs),
    /// Run our client, in this process and over sockets, and others' against a server: writing, latency, reading
    Clients(ClientsArgs),
    /// Measure how cost grows: keys of a table, bytes of a stream, idle segments, readers
    Growth(GrowthArgs),
    /// Measure every goal, each as a ratio to the limits of this machine found in the same round
    All(AllArgs),
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
            Self::Tail(args) => print(&tail::run(&args)?, args.json),
            Self::Fanout(args) => print(&fanout::run(&args)?, args.json),
            Self::Catchup(args) => print(&catchup::run(&args)?, args.json),
            Self::Segments(args) => print(&segments::run(&args)?, args.json),
            Self::Conns(args) => print(&conns::run(&args)?, args.json),
            Self::Mixed(args) => match args.beside {
                Beside::Bulk => print(&mixed::run(&args)?, args.json),
                Beside::Readers => print(&mixed::run_beside_readers(&args)?, args.json),
            },
            Self::Txn(args) => print(&txn::run(&args)?, args.json),
            Self::Kv(args) => print(&kv::run(&args)?, args.json),
            Self::Scale(args) => print(&scale::run(&args)?, args.json),
            Self::Recover(args) => print(&recover::run(&args)?, args.json),
            Self::Null(args) => null::run(&args),
            Self::Genuine(args) => print(&genuine::run(&args)?, args.json),
            Self::Clients(args) => print(&clients::run(&args)?, args.json),
            Self::Growth(args) => print(&growth::run(&args)?, args.json),
            Self::All(args) => print(&all::run(&args)?, args.json),
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
