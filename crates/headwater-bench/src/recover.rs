//! `headwater bench recover`: how long a server is away after `kill -9`, how long a first start takes, and that nothing
//! acknowledged is gone.

use std::path::Path;
use std::thread;
use std::time::Duration;

use serde::Serialize;

use crate::error::{BenchError, Context};
use crate::target::{Place, Restart};
use crate::verify::{Asking, read_back};
use crate::write::fill;

/// Starts on an empty directory, of which the median counts.
const STARTS: usize = 5;
/// A server is idle so long after its start.
const IDLE_AFTER: Duration = Duration::from_millis(500);

/// `bench recover`.
#[derive(Clone, Debug, clap::Args)]
pub struct RecoverArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Mebibytes of events to write before the server is killed
    #[arg(long, default_value_t = 512)]
    pub(crate) mib: u64,
    /// Segments they go to, each with a writer
    #[arg(long, default_value_t = 4)]
    pub(crate) writers: usize,
    /// Payload bytes of each event
    #[arg(long, default_value_t = 1024)]
    pub(crate) size: usize,
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}

/// What starts took.
#[derive(Clone, Debug, Serialize)]
pub struct RecoverReport {
    /// From starting the process to ready, on an empty directory: median of five.
    pub empty_start_ms: f64,
    /// Resident memory half a second later, largest of five.
    pub idle_resident_bytes: u64,
    /// Events written and acknowledged before the server was killed, in bytes.
    pub written_bytes: u64,
    /// How much of the journal no checkpoint had yet, in bytes, from the oldest such record to its end: what the server says
    /// of its start.
    pub replayed_bytes: u64,
    /// Files of the journal in use when it was killed, in bytes: what a start could have to read. It reads all of the last,
    /// and of the oldest what it needs.
    pub journal_bytes: u64,
    /// From starting the process again to ready.
    pub recovery_ms: f64,
    /// Events found after that: all that were acknowledged, in order, once.
    pub events_verified: u64,
}

pub(crate) fn run(args: &RecoverArgs) -> Result<RecoverReport, BenchError> {
    if args.mib == 0 || !(1..=1000).contains(&args.writers) {
        return Err(BenchError::Setting { what: "--mib is at least 1, --writers from 1 to 1000".to_owned() });
    }
    let (mut starts, mut idle_resident_bytes) = (Vec::new(), 0);
    for _ in 0..STARTS {
        let attached = args.place.attach()?;
        let own = attached.own().expect("the server is our own");
        starts.push(own.ready_after);
        thread::sleep(IDLE_AFTER);
        idle_resident_bytes = idle_resident_bytes.max(own.resident_bytes()?);
    }
    starts.sort();

    let attached = args.place.attach()?;
    let (written, _) = fill(&attached, args.size, args.writers, args.mib << 20)?;
    let journal = attached.own_data().expect("the server is our own").join("journal");
    // At once: as much as possible is in the journal only.
    let mut journal_bytes = 0;
    let attached = attached.restart(Restart::Killed, |_| {
        journal_bytes = used_bytes(&journal)?;
        Ok(())
    })?;
    let replayed_bytes = attached.watch.replayed_bytes()?;
    let recovery = attached.own().expect("the server is our own").ready_after;
    read_back(&attached.server, args.writers, args.size, Asking::default(), &written)?;
    let events_verified = written.iter().map(crate::verify::Written::events).sum();
    Ok(RecoverReport {
        empty_start_ms: starts[STARTS / 2].as_secs_f64() * 1e3,
        idle_resident_bytes,
        written_bytes: events_verified * args.size as u64,
        replayed_bytes,
        journal_bytes,
        recovery_ms: recovery.as_secs_f64() * 1e3,
        events_verified,
    })
}

/// Room that the files in use of a journal take.
fn used_bytes(directory: &Path) -> Result<u64, BenchError> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory).on("list", directory.display())? {
        let entry = entry.on("list", directory.display())?;
        // The others are spares, which nobody reads.
        if entry.path().extension().is_some_and(|extension| extension == "log") {
            bytes += entry.metadata().on("look at", entry.path().display())?.blocks() * 512;
        }
    }
    Ok(bytes)
}

impl std::fmt::Display for RecoverReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mebibytes = |bytes: u64| bytes as f64 / 1048576.0;
        let Self { empty_start_ms, idle_resident_bytes, written_bytes, recovery_ms, .. } = self;
        writeln!(f, "start on an empty directory   {empty_start_ms:8.0} ms")?;
        writeln!(f, "resident when idle            {:8.1} MiB", mebibytes(*idle_resident_bytes))?;
        let (replayed, journal) = (mebibytes(self.replayed_bytes), mebibytes(self.journal_bytes));
        let written = mebibytes(*written_bytes);
        write!(f, "ready after kill -9           {recovery_ms:8.0} ms, {written:.0} MiB written, ")?;
        writeln!(f, "{replayed:.0} MiB of the journal's {journal:.0} MiB in no checkpoint")?;
        write!(f, "verified                      {:8} events, none lost, doubled or out of order", self.events_verified)
    }
}
