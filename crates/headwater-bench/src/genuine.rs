//! `headwater bench genuine`: a published client against a server of ours, as a share of the same client against one that
//! acknowledges at once.
//!
//! The client is a program of its own: `genuine bench --controller HOST:PORT --scope S --stream S --size N --seconds N`,
//! which prints one line `{"events": N, "seconds": N, "written": N, …}` among others: the events that count, how long
//! they took, and all that were acknowledged. The conformance suites build it for the Rust client.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::error::{BenchError, Context};
use crate::latency::median;
use crate::own::OwnServer;
use crate::target::{Place, SCOPE};
use crate::verify::length_of_stream;

/// Rounds of both servers in turn; the medians count.
const ROUNDS: usize = 3;

/// `bench genuine`.
#[derive(Clone, Debug, clap::Args)]
pub struct GenuineArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) load: GenuineLoad,
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which client and what it writes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct GenuineLoad {
    /// The client's program
    #[arg(long, value_name = "FILE")]
    pub(crate) client: PathBuf,
    /// Payload bytes of each event
    #[arg(long, default_value_t = 1024)]
    pub(crate) size: usize,
    /// Seconds that count, of each of three rounds
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
}

/// What the client reached.
#[derive(Clone, Debug, Serialize)]
pub struct GenuineReport {
    /// Payload bytes of each event.
    pub event_bytes: usize,
    /// Events acknowledged by the server in all rounds, uncounted ones too; its segments are as long as all of them.
    pub events_stored: u64,
    /// Events per second against the server, each round.
    pub server_events_per_second: Vec<f64>,
    /// Events per second against the server that stores nothing, each round.
    pub null_events_per_second: Vec<f64>,
    /// Median of the one as a share of the median of the other.
    pub ratio: f64,
}

pub(crate) fn run(args: &GenuineArgs) -> Result<GenuineReport, BenchError> {
    measure(&args.place, &args.load)
}

pub(crate) fn measure(place: &Place, load: &GenuineLoad) -> Result<GenuineReport, BenchError> {
    let attached = place.attach()?;
    let own = attached.own().expect("the server is our own");
    let log = attached.own_data().expect("the server is our own").with_file_name("null.log");
    let null = OwnServer::start_null(&place.program()?, &log)?;
    let (mut server_rates, mut null_rates, mut events_stored) = (Vec::new(), Vec::new(), 0);
    for round in 0..ROUNDS {
        let stream = format!("genuine-{round}");
        let ran = one_run(load, &own.controller, &stream)?;
        length_of_stream(&attached.server, &stream, load.size, ran.written)?;
        events_stored += ran.written;
        server_rates.push(ran.events_per_second());
        null_rates.push(one_run(load, &null.controller, &stream)?.events_per_second());
    }
    Ok(GenuineReport {
        event_bytes: load.size,
        events_stored,
        ratio: median(server_rates.iter().copied()) / median(null_rates.iter().copied()),
        server_events_per_second: server_rates,
        null_events_per_second: null_rates,
    })
}

/// What the client prints.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
struct Ran {
    /// Acknowledged while it counted.
    events: f64,
    seconds: f64,
    /// Acknowledged in all.
    written: u64,
}

impl Ran {
    /// Out of the first line that has all figures.
    fn find(said: &str) -> Option<Self> {
        said.lines().find_map(|line| serde_json::from_str(line).ok())
    }

    fn events_per_second(self) -> f64 {
        self.events / self.seconds
    }
}

/// One run of the client.
fn one_run(load: &GenuineLoad, controller: &str, stream: &str) -> Result<Ran, BenchError> {
    let client = std::fs::canonicalize(&load.client).on("find", load.client.display())?;
    let output = Command::new(&client)
        .args(["bench", "--controller", controller, "--scope", SCOPE])
        .args(["--stream", stream, "--size", &load.size.to_string()])
        .args(["--seconds", &load.seconds.to_string()])
        .stdin(Stdio::null())
        .output()
        .on("run", client.display())?;
    let said = String::from_utf8_lossy(&output.stdout);
    Ran::find(&said).filter(|_| output.status.success()).ok_or_else(|| BenchError::Client {
        what: format!("{}: {}{said}", output.status, String::from_utf8_lossy(&output.stderr)),
    })
}

impl std::fmt::Display for GenuineReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rates = |rates: &[f64]| rates.iter().map(|rate| format!("{rate:9.0}")).collect::<String>();
        writeln!(f, "{} B events to one segment, events per second of each round", self.event_bytes)?;
        writeln!(f, "against the server         {}", rates(&self.server_events_per_second))?;
        writeln!(f, "against one that stores nothing {}", rates(&self.null_events_per_second))?;
        writeln!(f, "that is {:.0} %", self.ratio * 100.0)?;
        write!(f, "stored    {:10} events, by the length of their segments", self.events_stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_found_among_other_lines() {
        let line = r#"{"events":500,"bytes":1,"seconds":2.0,"written":700}"#;
        let ran = Ran::find(&format!("noise\n{{\"check\":1}}\n{line}\n{{\"done\":1}}")).unwrap();
        assert_eq!((ran.events_per_second(), ran.written), (250.0, 700));
        assert_eq!(Ran::find(r#"{"events":500,"seconds":2.0}"#), None);
    }

    #[test]
    fn the_median_ignores_one_outlier() {
        assert_eq!(median([3.0, 900.0, 2.0]), 3.0);
    }
}
