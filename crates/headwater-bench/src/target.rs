//! The server under load, and what a run leaves on it.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use headwater_wire::Text;

use crate::audit::Watch;
use crate::connection::Connection;
use crate::error::BenchError;
use crate::machine::Machine;

/// Where the server is.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Target {
    /// The segment store of the server, host:port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:12345")]
    pub(crate) server: String,
    /// Where the server shows /metrics, host:port: its durable writes are compared with the device's flushes
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<String>,
    /// A directory on the server's disk, whose flushes and written bytes are counted
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) data_dir: PathBuf,
    /// Do not delete the segments of the run
    #[arg(long)]
    pub(crate) keep: bool,
}

/// Segments of one run, and what is watched meanwhile.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) server: String,
    pub(crate) watch: Watch,
    pub(crate) machine: Machine,
    pub(crate) segments: Vec<Text>,
    keep: bool,
    /// Tells this run's writers from those of any other.
    tag: u32,
}

impl Run {
    /// Creates so many segments that nobody else has.
    pub(crate) fn start(target: &Target, segments: usize) -> Result<Self, BenchError> {
        let tag = tag();
        let name = |number| format!("bench/run-{tag:08x}/{number}.#epoch.0").into();
        let run = Self {
            server: target.server.clone(),
            watch: Watch { directory: target.data_dir.clone(), metrics: target.metrics.clone() },
            machine: Machine::look(&target.data_dir),
            segments: (0..segments).map(name).collect(),
            keep: target.keep,
            tag,
        };
        Connection::open(&run.server)?.create(&run.segments)?;
        Ok(run)
    }

    /// Ids of this run's writers begin here.
    pub(crate) fn first_writer(&self) -> u64 {
        u64::from(self.tag) << 32
    }

    /// Deletes the segments, unless they are to be kept. A run that failed keeps them: they are its evidence.
    pub(crate) fn end(self) -> Result<(), BenchError> {
        if self.keep { Ok(()) } else { Connection::open(&self.server)?.delete(&self.segments) }
    }
}

/// Differs from run to run, also of the same second; never zero.
fn tag() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    let mixed = (now ^ u64::from(std::process::id()) << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ((mixed >> 32) as u32).max(1)
}
