//! `headwater bench conns`: what connections that say nothing cost those that write.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::BytesMut;
use headwater_wire::{ClientEnd, HELLO_FRAME_BYTES_MAX};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

use crate::audit::Durable;
use crate::error::{BenchError, Context};
use crate::latency::Quantiles;
use crate::target::{Attached, Target};
use crate::write::{LoadArgs, measure as write};

/// Beyond this one address has no free ports left.
const CONNECTIONS_MAX: usize = 25_000;
const HELLO_PATIENCE: Duration = Duration::from_secs(10);

/// `bench conns`.
#[derive(Clone, Debug, clap::Args)]
pub struct ConnsArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) load: ConnsLoad,
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}

/// How many, and what is written meanwhile.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ConnsLoad {
    /// Connections that say hello and nothing more
    #[arg(long, default_value_t = 10_000)]
    pub(crate) connections: usize,
    /// Events per second of the one that writes
    #[arg(long, default_value_t = 1000.0)]
    pub(crate) rate: f64,
    /// Seconds that count, of each run
    #[arg(long, default_value_t = 4.0)]
    pub(crate) seconds: f64,
}

/// What idle connections cost.
#[derive(Clone, Debug, Serialize)]
pub struct ConnsReport {
    /// How many were idle.
    pub connections: usize,
    /// Resident memory of the server for each, in bytes, if we started it.
    pub resident_bytes_each: Option<f64>,
    /// Acknowledgements without them.
    pub alone: Quantiles,
    /// Acknowledgements beside them.
    pub beside: Quantiles,
    /// p99 beside them as a multiple of that without.
    pub p99_ratio: f64,
    /// Whether acknowledged was durable, in both runs.
    pub durable: Durable,
}

pub(crate) fn run(args: &ConnsArgs) -> Result<ConnsReport, BenchError> {
    measure(&args.target.attach()?, &args.load)
}

pub(crate) fn measure(attached: &Attached, args: &ConnsLoad) -> Result<ConnsReport, BenchError> {
    if !(1..=CONNECTIONS_MAX).contains(&args.connections) {
        return Err(BenchError::Setting { what: format!("--connections is from 1 to {CONNECTIONS_MAX}") });
    }
    raise_file_limit(args.connections)?;
    let load = LoadArgs { rate: Some(args.rate), seconds: args.seconds, ..LoadArgs::default() };
    let once = || {
        let (report, run) = write(attached, &load)?;
        run.delete(&attached.server)?;
        Ok::<_, BenchError>((report.latency, report.audit.durable))
    };
    let resident = || attached.own().map(|own| own.resident_bytes()).transpose();
    let (alone, durable_alone) = once()?;
    let before = resident()?;
    let idle: Vec<TcpStream> = (0..args.connections).map(|_| say_hello(&attached.server)).collect::<Result<_, _>>()?;
    let grown = before.zip(resident()?).map(|(before, after)| after.saturating_sub(before));
    let (beside, durable_beside) = once()?;
    drop(idle);
    Ok(ConnsReport {
        connections: args.connections,
        resident_bytes_each: grown.map(|bytes| bytes as f64 / args.connections as f64),
        p99_ratio: beside.p99_us / alone.p99_us,
        alone,
        beside,
        durable: durable_alone.max(durable_beside),
    })
}

/// A connection that both sides have agreed on.
fn say_hello(server: &str) -> Result<TcpStream, BenchError> {
    let mut socket = TcpStream::connect(server).on("connect to", server)?;
    socket.set_read_timeout(Some(HELLO_PATIENCE)).on("configure", "a socket")?;
    let (mut out, mut input) = (BytesMut::new(), BytesMut::new());
    let mut end = ClientEnd::connect(&mut out);
    socket.write_all(&out).on("write to", server)?;
    let mut bytes = [0; HELLO_FRAME_BYTES_MAX];
    while end.next_reply(&mut input)?.is_none() {
        match socket.read(&mut bytes).on("read from", server)? {
            0 => return Err(BenchError::Closed { waiting: "it had to say hello" }),
            count => input.extend_from_slice(&bytes[..count]),
        }
    }
    Ok(socket)
}

/// Each connection takes a file on our side, too.
fn raise_file_limit(connections: usize) -> Result<(), BenchError> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .on("raise", "the limit of open files")?;
    match limit.maximum {
        Some(most) if most < connections as u64 + 64 => {
            Err(BenchError::Setting { what: format!("only {most} files may be open: fewer --connections") })
        }
        _ => Ok(()),
    }
}

impl std::fmt::Display for ConnsReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} idle connections", self.connections)?;
        if let Some(bytes) = self.resident_bytes_each {
            write!(f, ", {:.1} KiB of memory each", bytes / 1024.0)?;
        }
        writeln!(f, "\nack without them  {}", self.alone)?;
        writeln!(f, "ack beside them   {}", self.beside)?;
        write!(f, "p99 is {:.2} × as long\ndurable: {}", self.p99_ratio, self.durable)
    }
}
