//! `headwater bench tail`: how soon a reader at the tail sees what was written, beside the writers' acknowledgements of the
//! same run.

use std::sync::OnceLock;
use std::thread;
use std::time::Instant;

use headwater_wire::{Reply, Request, Text, Token};
use serde::Serialize;

use crate::audit::Durable;
use crate::check::Checker;
use crate::connection::{Connection, refused};
use crate::error::BenchError;
use crate::latency::{Latencies, Quantiles};
use crate::target::{Attached, Run, Target};
use crate::verify::Written;
use crate::write::{LoadArgs, generate};

/// What a reader asks for at a time, as the Rust client does.
const READ_BYTES: i32 = 1 << 20;
/// Each is a thread.
pub(crate) const READERS_MAX: usize = 1024;

/// `bench tail`.
#[derive(Clone, Debug, clap::Args)]
pub struct TailArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// Readers, shared out among the segments, each with a connection
    #[arg(long, default_value_t = 1)]
    pub(crate) readers: usize,
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a tail run found.
#[derive(Clone, Debug, Serialize)]
pub struct TailReport {
    /// Payload bytes of each event.
    pub event_bytes: usize,
    /// Writers.
    pub writers: usize,
    /// Readers.
    pub readers: usize,
    /// Events asked for per second; none in a closed loop.
    pub rate: Option<f64>,
    /// Events acknowledged per second.
    pub events_per_second: f64,
    /// Events that came to readers while it counted, per second, of all readers together.
    pub events_read_per_second: f64,
    /// To the acknowledgement: from when an event was due, or sent in a closed loop.
    pub acknowledged: Quantiles,
    /// To the reader, from the same moment.
    pub read: Quantiles,
    /// Median of the reader minus that of the writer, in microseconds: negative if readers are told first.
    pub reader_behind_p50_us: f64,
    /// Events that readers checked, of all readers together: each saw every event of its segment.
    pub events_verified: u64,
    /// Whether acknowledged was durable.
    pub durable: Durable,
}

pub(crate) fn run(args: &TailArgs) -> Result<TailReport, BenchError> {
    let attached = args.target.attach()?;
    let (report, run) = measure(&attached, &args.load, args.readers)?;
    if !args.target.keep {
        run.delete(&attached.server)?;
    }
    Ok(report)
}

/// One reader of one segment.
struct Tail {
    latencies: Latencies,
    counted: u64,
    /// The segment it read, and how far the check of it got.
    segment: usize,
    checker: Checker,
}

pub(crate) fn measure(attached: &Attached, load: &LoadArgs, readers: usize) -> Result<(TailReport, Run), BenchError> {
    load.check()?;
    if !(1..=READERS_MAX).contains(&readers) {
        return Err(BenchError::Setting { what: format!("--readers is from 1 to {READERS_MAX}") });
    }
    let server = &attached.server;
    let run = Run::start(server, load.segment_count())?;
    let origin = OnceLock::new();
    let before = attached.watch.now()?;
    let (outcomes, after, tails) = thread::scope(|scope| {
        let threads: Vec<_> = (0..readers)
            .map(|reader| {
                let (run, origin, segment) = (&run, &origin, reader % load.segment_count());
                scope.spawn(move || follow(server, load, run, segment, origin))
            })
            .collect();
        let outcomes = generate(server, &run, load, &origin);
        let after = attached.watch.now();
        // Whatever became of the writers: at the end of a sealed segment readers stop waiting.
        let sealed = seal(server, &run.segments);
        let tails: Result<Vec<Tail>, BenchError> =
            threads.into_iter().map(|thread| thread.join().expect("no reader panics")).collect();
        sealed?;
        Ok::<_, BenchError>((outcomes?, after?, tails?))
    })?;

    let written = Written::collect(&run, load, &outcomes);
    let (mut acknowledged, mut read) = (Latencies::new(), Latencies::new());
    let (mut read_events, mut events_verified) = (0, 0);
    for Tail { latencies, counted, segment, mut checker } in tails {
        read.merge(&latencies);
        read_events += counted;
        checker.settle(&written[segment].writers);
        events_verified += written[segment].events();
        let name = &written[segment].segment;
        checker.finish().map_err(|source| BenchError::Integrity { segment: name.to_string(), source })?;
    }
    outcomes.iter().for_each(|outcome| acknowledged.merge(&outcome.latencies));
    let events: u64 = outcomes.iter().map(|outcome| outcome.counted_events).sum();
    let appends = outcomes.iter().map(|outcome| outcome.appends).sum();
    let (acknowledged, read) = (acknowledged.quantiles(), read.quantiles());
    let report = TailReport {
        event_bytes: load.size,
        writers: load.writers,
        readers,
        rate: load.rate,
        events_per_second: events as f64 / load.seconds,
        events_read_per_second: read_events as f64 / load.seconds,
        reader_behind_p50_us: read.p50_us - acknowledged.p50_us,
        acknowledged,
        read,
        events_verified,
        durable: Durable::between(before, after, appends),
    };
    Ok((report, run))
}

/// Reads a segment as it grows, until it is sealed.
fn follow(
    server: &str,
    load: &LoadArgs,
    run: &Run,
    segment: usize,
    origin: &OnceLock<Instant>,
) -> Result<Tail, BenchError> {
    let name = &run.segments[segment];
    let violated = |source| BenchError::Integrity { segment: name.to_string(), source };
    let mut connection = Connection::open(server)?;
    // How many each writes is not known yet.
    let mut checker = Checker::new(load.size, load.writers_of(run, segment).map(|writer| (writer, 0..u64::MAX)));
    let (mut latencies, mut counted, mut offset) = (Latencies::new(), 0, 0_u64);
    loop {
        let reply = connection.ask(|request_id| Request::ReadSegment {
            segment: name.clone(),
            offset: offset.cast_signed(),
            suggested_length: READ_BYTES,
            token: Token::default(),
            request_id,
        })?;
        let (data, end) = match reply {
            Reply::SegmentRead { data, end_of_segment, .. } => (data, end_of_segment),
            Reply::SegmentIsSealed { .. } => break,
            reply => return Err(refused("ReadSegment", &reply)),
        };
        if !data.is_empty() {
            let times = load.times(*origin.get().expect("writers begin before there is something to read"));
            let now = times.now_ns();
            let seen = |identity: &crate::event::Identity| {
                if times.counts(identity.due_ns) {
                    latencies.record(now.saturating_sub(identity.due_ns));
                }
                // What comes after the end is latency; it is not throughput any more.
                counted += u64::from(times.counts(now));
            };
            checker.feed(&data, seen).map_err(violated)?;
            offset += data.len() as u64;
        }
        if end {
            break;
        }
    }
    Ok(Tail { latencies, counted, segment, checker })
}

fn seal(server: &str, segments: &[Text]) -> Result<(), BenchError> {
    let mut connection = Connection::open(server)?;
    for segment in segments {
        let reply = connection.ask(|request_id| Request::SealSegment {
            request_id,
            segment: segment.clone(),
            token: Token::default(),
        })?;
        if !matches!(reply, Reply::SegmentSealed { .. }) {
            return Err(refused("SealSegment", &reply));
        }
    }
    Ok(())
}

impl std::fmt::Display for TailReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { event_bytes, writers, readers, .. } = self;
        let rate = self.rate.map_or("closed loop".to_owned(), |rate| format!("open loop at {rate:.0}/s"));
        writeln!(f, "{event_bytes} B events, {writers} writers, {readers} readers at the tail, {rate}")?;
        writeln!(f, "written  {:10.0} events/s   acknowledged  {}", self.events_per_second, self.acknowledged)?;
        writeln!(f, "read     {:10.0} events/s   read          {}", self.events_read_per_second, self.read)?;
        writeln!(f, "the reader's median is {:+.0} µs beside the acknowledgement's", self.reader_behind_p50_us)?;
        write!(f, "durable: {}", self.durable)
    }
}
