//! `headwater bench clients`: programs of several clients, one after the other on one server, in rounds.
//!
//! Each program takes `load --controller HOST:PORT --scope S --stream S --size N --seconds N --in-flight N --rate N
//! --read-mib N` (our own: `headwater bench load`), writes to the stream at the rate, then as fast as it can with so many events in flight; writes
//! so many MiB to the stream `S-read` and reads them five times through reader groups; prints one line of JSON ([`Figures`]) among
//! others. What is read is in the store's memory: what was written in the first part is more than that, and reading it would
//! measure the disk.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{BenchError, Context};
use crate::latency::median;
use crate::machine::Machine;
use crate::target::{Place, SCOPE};
use crate::verify::length_of_stream;

/// Bytes in flight, at most: what keeps the disk busy. More would only wait longer.
const IN_FLIGHT_BYTES: usize = 4 << 20;
/// Events in flight, at most.
const IN_FLIGHT_MAX: usize = 20_000;
/// Before each program.
const PAUSE: Duration = Duration::from_secs(2);
/// Names of what is always measured.
const OWN: &str = "headwater";
const EMBEDDED: &str = "embedded";

/// `bench clients`.
#[derive(Clone, Debug, clap::Args)]
pub struct ClientsArgs {
    #[command(flatten)]
    place: Place,
    /// Another client's program, as NAME=FILE; may be given several times
    #[arg(long = "with", value_name = "NAME=FILE", value_parser = other)]
    others: Vec<Other>,
    /// Payload bytes of each event, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "100,1024,10240", value_parser = clap::value_parser!(u32).range(1..=8_000_000))]
    sizes: Vec<u32>,
    /// Seconds that count of each part
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Rounds of all clients in turn; the medians count
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Events per second of the part with a fixed rate
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    /// MiB of events that each program reads; the store should have them in memory
    #[arg(long, default_value_t = 64)]
    read_mib: u32,
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug)]
struct Other {
    name: String,
    program: PathBuf,
}

fn other(text: &str) -> Result<Other, String> {
    match text.split_once('=') {
        Some((name, _)) if [OWN, EMBEDDED].contains(&name) => Err(format!("{name} is measured anyway")),
        Some((name, program)) if !name.is_empty() && !program.is_empty() => {
            Ok(Other { name: name.to_owned(), program: program.into() })
        }
        _ => Err("is not NAME=FILE".to_owned()),
    }
}

/// What one program found in one round.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Figures {
    /// Events written to the first stream; as many are stored, or the run has no figures.
    pub written: u64,
    /// Events per second, acknowledged, as fast as the client could.
    pub write_events_per_second: f64,
    /// From handing over to acknowledgement in that part: median, in microseconds. 0: the client does not tell.
    pub write_p50_us: f64,
    /// The same for 99 %.
    pub write_p99_us: f64,
    /// From when an event was due to its acknowledgement at the fixed rate: median, in microseconds.
    pub rate_p50_us: f64,
    /// The same for 99 %.
    pub rate_p99_us: f64,
    /// Events of each reading.
    pub read: u64,
    /// Events read per second, median of the readings.
    pub read_events_per_second: f64,
    /// Most memory the program ever had, in bytes; with `embedded` the store's is part of it. 0: unknown.
    pub resident_bytes: u64,
}

/// All rounds of all clients.
#[derive(Clone, Debug, Serialize)]
pub struct ClientsReport {
    machine: Machine,
    seconds: f64,
    rate: u32,
    /// By size, then by client.
    pub sizes: BTreeMap<u32, BTreeMap<String, Vec<Figures>>>,
}

pub(crate) fn run(args: &ClientsArgs) -> Result<ClientsReport, BenchError> {
    let own = args.place.program()?;
    let mut sizes = BTreeMap::new();
    for &size in &args.sizes {
        let mut clients: BTreeMap<String, Vec<Figures>> = BTreeMap::new();
        // A server of its own for each size: what it holds of others would be written to chunks meanwhile.
        let attached = args.place.attach()?;
        let controller = &attached.own().expect("the server is our own").controller;
        let data = attached.own_data().expect("the server is our own");
        // Our own, then all others, by what they are called, what runs, and its first words.
        let address = format!("tcp://{controller}");
        let mut over_sockets = vec![(OWN, own.clone(), vec!["bench", "load", "--controller", &address])];
        for Other { name, program } in &args.others {
            let program = std::fs::canonicalize(program).on("find", program.display())?;
            over_sockets.push((name, program, vec!["load", "--controller", controller]));
        }
        for round in 0..args.rounds {
            for (name, program, words) in &over_sockets {
                let figures = one_run(args, program, words, size, round, name)?;
                let stream = stream_of(name, size, round);
                length_of_stream(&attached.server, &stream, size as usize, figures.written)?;
                clients.entry((*name).to_owned()).or_default().push(figures);
            }
            let directory = data.with_file_name(format!("embedded-{round}"));
            let words = ["bench", "load", "--embedded", &directory.to_string_lossy()];
            let figures = one_run(args, &own, &words, size, round, EMBEDDED)?;
            std::fs::remove_dir_all(&directory).on("remove", directory.display())?;
            clients.entry(EMBEDDED.to_owned()).or_default().push(figures);
        }
        sizes.insert(size, clients);
    }
    let machine = Machine::look(&args.place.data_dir);
    Ok(ClientsReport { machine, seconds: args.seconds, rate: args.rate, sizes })
}

fn stream_of(client: &str, size: u32, round: u32) -> String {
    format!("{client}-{size}-{round}")
}

fn one_run(
    args: &ClientsArgs,
    program: &Path,
    words: &[&str],
    size: u32,
    round: u32,
    name: &str,
) -> Result<Figures, BenchError> {
    let in_flight = (IN_FLIGHT_BYTES / size as usize).clamp(1, IN_FLIGHT_MAX);
    // What the last one wrote is on its way to chunks.
    std::thread::sleep(PAUSE);
    let output = Command::new(program)
        .args(words)
        .args(["--scope", SCOPE, "--stream", &stream_of(name, size, round), "--size", &size.to_string()])
        .args(["--seconds", &args.seconds.to_string(), "--in-flight", &in_flight.to_string()])
        .args(["--rate", &args.rate.to_string(), "--read-mib", &args.read_mib.to_string()])
        .stdin(Stdio::null())
        .output()
        .on("run", program.display())?;
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = |what: &str| BenchError::Client {
        what: format!("{name}: {what}, {}: {}{said}", output.status, String::from_utf8_lossy(&output.stderr)),
    };
    if !output.status.success() {
        return Err(failed("did not succeed"));
    }
    let figures: Figures =
        said.lines().find_map(|line| serde_json::from_str(line).ok()).ok_or_else(|| failed("printed no figures"))?;
    Ok(figures)
}

impl fmt::Display for ClientsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let theirs = format!("or {OWN}-NAME's to NAME's where there is one");
        writeln!(f, "Medians of all rounds; × is ours to theirs, {theirs}. One segment, one writer, one reader.")?;
        for (size, clients) in &self.sizes {
            writeln!(f)?;
            writeln!(
                f,
                "{:<22}{:>12}{:>7}{:>11}{:>11}{:>11}{:>11}{:>12}{:>7}{:>9}",
                format!("{size} B events"),
                "write/s",
                "×",
                "p50 µs",
                "p99 µs",
                "paced p50",
                "paced p99",
                "read/s",
                "×",
                "MiB"
            )?;
            for (name, rounds) in clients {
                let ours = clients.get(&format!("{OWN}-{name}")).unwrap_or(&clients[OWN]);
                let of_ours = |figure: fn(&Figures) -> f64| median(ours.iter().map(figure));
                let figure = |figure: fn(&Figures) -> f64| median(rounds.iter().map(figure));
                let (write, read) = (figure(|it| it.write_events_per_second), figure(|it| it.read_events_per_second));
                writeln!(
                    f,
                    "{name:<22}{write:>12.0}{:>7.2}{:>11.0}{:>11.0}{:>11.0}{:>11.0}{read:>12.0}{:>7.2}{:>9.0}",
                    of_ours(|it| it.write_events_per_second) / write,
                    figure(|it| it.write_p50_us),
                    figure(|it| it.write_p99_us),
                    figure(|it| it.rate_p50_us),
                    figure(|it| it.rate_p99_us),
                    of_ours(|it| it.read_events_per_second) / read,
                    figure(|it| it.resident_bytes as f64 / f64::from(1 << 20)),
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_client_has_a_name_of_its_own_and_a_program() {
        let rust = other("rust=target/genuine").unwrap();
        assert_eq!((rust.name.as_str(), rust.program), ("rust", "target/genuine".into()));
        for bad in ["rust", "=x", "rust=", "headwater=x", "embedded=x"] {
            assert!(other(bad).is_err(), "{bad}");
        }
    }
}
