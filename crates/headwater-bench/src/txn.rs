//! `headwater bench txn`: transactions of many events, against plain writes of the same events.
//!
//! A writer has one transaction at a time: begin, all events as one append, commit, until the events can be read. Plainly, it
//! appends the same events and waits for the acknowledgement. Both are done in each round, each on a stream of its own.
//!
//! At the end every writer writes one more transaction and aborts it: what is read back must have every event of every
//! committed transaction, in order, once, and nothing of an aborted one.

use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use headwater_types::{ScopedStream, SegmentId, WriterId};
use headwater_wire::Text;
use serde::Serialize;

use crate::connection::{Connection, Framing};
use crate::controller::{Controller, TransactionState};
use crate::error::BenchError;
use crate::event::{Block, EVENT_BYTES_MIN, HEADER_BYTES};
use crate::latency::{Latencies, Quantiles};
use crate::machine::Machine;
use crate::pace::Schedule;
use crate::rounds::{Rounds, Spread, sound};
use crate::steps::{Done, one_by_one};
use crate::target::{Attached, ControllerAt, Run, Target};
use crate::verify::{Asking, Written, read_back};
use crate::write::generator::{Pace, Times, wire_id};
use crate::write::{BLOCK_BYTES_MAX, WRITERS_MAX};

/// Segments of a stream; more would measure the creation of transactions' segments only.
const SEGMENTS_MAX: usize = 1024;
/// Between two looks at a transaction that is being committed, at least; else a tenth of how long it has been, so that
/// looking costs little and what is told is at most a tenth too long.
const LOOK_AFTER: Duration = Duration::from_micros(200);
/// A transaction that is not committed by then never will be.
const PATIENCE: Duration = Duration::from_secs(30);

/// `bench txn`.
#[derive(Clone, Debug, clap::Args)]
pub struct TxnArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) controller: ControllerAt,
    #[command(flatten)]
    pub(crate) load: TxnLoad,
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is committed.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct TxnLoad {
    /// Events of each transaction, all to one segment
    #[arg(long, default_value_t = 100)]
    pub(crate) events: usize,
    /// Payload bytes of each event, at least 28
    #[arg(long, default_value_t = 100)]
    pub(crate) size: usize,
    /// Writers: each a thread with connections of its own and one transaction at a time
    #[arg(long, default_value_t = 1)]
    pub(crate) writers: usize,
    /// Segments of the stream, shared out among the writers
    #[arg(long, default_value_t = 1)]
    pub(crate) segments: usize,
    /// Open loop: transactions per second in all, each timed from when it was due. Without it, as fast as possible
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    #[command(flatten)]
    pub(crate) rounds: Rounds,
}

/// What transactions cost.
#[derive(Clone, Debug, Serialize)]
pub struct TxnReport {
    /// Where it ran.
    pub machine: Machine,
    /// Events of each transaction, and of each plain append.
    pub events: usize,
    /// Payload bytes of each event.
    pub event_bytes: usize,
    /// Writers.
    pub writers: usize,
    /// Segments of the stream.
    pub segments: usize,
    /// Transactions asked for per second; none in a closed loop.
    pub rate: Option<f64>,
    /// Seconds that counted, of each run.
    pub seconds: f64,
    /// Transactions, from begin to committed.
    pub transactions: TxnFigures,
    /// Of that, from the call that commits to committed: median, in microseconds.
    pub commit_p50_us: Spread,
    /// The same for 99 %.
    pub commit_p99_us: Spread,
    /// Plain appends of the same events, from sending to acknowledgement.
    pub plain: TxnFigures,
    /// Events per second in transactions as a share of plain ones.
    pub events_ratio: Spread,
    /// Median of a transaction as a multiple of a plain append's.
    pub p50_ratio: Spread,
    /// Events read back, of transactions and plain: all that were committed or acknowledged, and nothing else.
    pub events_verified: u64,
    /// Transactions that were aborted; nothing of them is there.
    pub aborted: u64,
}

/// Of transactions, or of plain appends.
#[derive(Clone, Debug, Serialize)]
pub struct TxnFigures {
    /// Transactions committed, or appends acknowledged, per second.
    pub per_second: Spread,
    /// Their events per second.
    pub events_per_second: Spread,
    /// Open loop: from when it was due; closed loop: from when it began. Median, in microseconds.
    pub p50_us: Spread,
    /// The same for 99 %.
    pub p99_us: Spread,
}

/// How events get to their segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Transaction,
    Plain,
}

impl TxnLoad {
    fn check(&self) -> Result<(), BenchError> {
        self.rounds.check()?;
        sound("--size is at least 28", self.size >= EVENT_BYTES_MIN)?;
        let bytes = self.size.checked_add(HEADER_BYTES).and_then(|stride| stride.checked_mul(self.events));
        let fits = bytes.is_some_and(|bytes| (1..=BLOCK_BYTES_MAX).contains(&bytes));
        sound("--events is at least 1, and all events of a transaction have at most 8388608 bytes", fits)?;
        sound("--writers is from 1 to 1024", (1..=WRITERS_MAX).contains(&self.writers))?;
        sound("--segments is from 1 to 1024", (1..=SEGMENTS_MAX).contains(&self.segments))?;
        sound("--rate is from 0.1 to 1000000", self.rate.is_none_or(|rate| (0.1..=1e6).contains(&rate)))
    }

    fn pace(&self, times: &Times) -> Pace {
        match self.rate {
            None => Pace::Closed,
            Some(rate) => {
                let rate_milli = ((rate * 1000.0 / self.writers as f64) as u64).max(1);
                Pace::Open(Schedule::new(0, times.end_ns, rate_milli))
            }
        }
    }
}

pub(crate) fn run(args: &TxnArgs) -> Result<TxnReport, BenchError> {
    args.load.check()?;
    let attached = args.target.attach()?;
    measure(&attached, args.controller.of(&attached), &args.load, args.target.keep)
}

/// What one way found in one round.
#[derive(Debug, Default)]
struct Found {
    done: Done,
    /// From the call that commits to committed.
    commits: Latencies,
    verified: u64,
}

fn measure(attached: &Attached, controller: &str, load: &TxnLoad, keep: bool) -> Result<TxnReport, BenchError> {
    let one_run = |way| one_run(&attached.server, controller, load, way, keep);
    let found = load.rounds.each(|| Ok((one_run(Way::Transaction)?, one_run(Way::Plain)?)))?;
    let transactions = figures(load, found.iter().map(|(transactions, _)| transactions));
    let plain = figures(load, found.iter().map(|(_, plain)| plain));
    let commits: Vec<Quantiles> = found.iter().map(|(transactions, _)| transactions.commits.quantiles()).collect();
    let ratio = |ours: &Spread, theirs: &Spread| {
        Spread::of(ours.rounds.iter().zip(&theirs.rounds).map(|(ours, theirs)| ours / theirs))
    };
    Ok(TxnReport {
        machine: attached.machine.clone(),
        events: load.events,
        event_bytes: load.size,
        writers: load.writers,
        segments: load.segments,
        rate: load.rate,
        seconds: load.rounds.seconds,
        commit_p50_us: Spread::of(commits.iter().map(|commits| commits.p50_us)),
        commit_p99_us: Spread::of(commits.iter().map(|commits| commits.p99_us)),
        events_ratio: ratio(&transactions.events_per_second, &plain.events_per_second),
        p50_ratio: ratio(&transactions.p50_us, &plain.p50_us),
        transactions,
        plain,
        events_verified: found.iter().map(|(one, other)| one.verified + other.verified).sum(),
        aborted: found.len() as u64 * load.writers as u64,
    })
}

fn figures<'a>(load: &TxnLoad, found: impl Iterator<Item = &'a Found> + Clone) -> TxnFigures {
    let of = |figure: &dyn Fn(&Found) -> f64| Spread::of(found.clone().map(figure));
    let per_second = |found: &Found| found.done.counted as f64 / load.rounds.seconds;
    TxnFigures {
        per_second: of(&per_second),
        events_per_second: of(&|found| per_second(found) * load.events as f64),
        p50_us: of(&|found| found.done.latencies.quantiles().p50_us),
        p99_us: of(&|found| found.done.latencies.quantiles().p99_us),
    }
}

/// All writers, each its way, on a stream of their own; then everything is read back.
fn one_run(server: &str, controller: &str, load: &TxnLoad, way: Way, keep: bool) -> Result<Found, BenchError> {
    let run = Run::named(load.segments);
    let stream = run.stream();
    let owner = Controller::open(controller)?;
    owner.create(&stream, load.segments)?;
    let (ready, origin) = (Barrier::new(load.writers), OnceLock::new());
    let outcomes: Vec<(Done, Latencies, u64)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..load.writers)
            .map(|number| {
                let (run, stream, ready, origin) = (&run, &stream, &ready, &origin);
                scope.spawn(move || {
                    let writer = Writer::open(server, controller, load, run, stream, number);
                    // Everybody comes here, also who failed: the others wait for all.
                    ready.wait();
                    writer?.write(way, &load.rounds.times(*origin.get_or_init(Instant::now)))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no writer panics")).collect::<Result<_, BenchError>>()
    })?;

    let mut written: Vec<Written> =
        run.segments.iter().map(|segment| Written { segment: segment.clone(), writers: Vec::new() }).collect();
    let mut found = Found::default();
    for (number, (done, commits, batches)) in outcomes.into_iter().enumerate() {
        let sequences = 0..batches * load.events as u64;
        written[number % load.segments].writers.push((run.first_writer() + number as u64, sequences));
        found.done.merge(&done);
        found.commits.merge(&commits);
    }
    read_back(server, load.writers.min(load.segments), load.size, Asking::default(), &written)?;
    found.verified = written.iter().map(Written::events).sum();
    if !keep {
        owner.delete(&stream)?;
    }
    Ok(found)
}

/// One writer with its connections.
struct Writer {
    connection: Connection,
    controller: Controller,
    stream: ScopedStream,
    /// Where its events go in the end.
    home: SegmentId,
    home_name: Text,
    /// In its events, and of those of its aborted transaction, which nobody may read.
    id: u64,
    aborted_id: u64,
    wire_id: WriterId,
    block: Block,
    events: u64,
    load: TxnLoad,
    commits: Latencies,
}

impl Writer {
    fn open(
        server: &str,
        controller: &str,
        load: &TxnLoad,
        run: &Run,
        stream: &ScopedStream,
        number: usize,
    ) -> Result<Self, BenchError> {
        let home = number % load.segments;
        let id = run.first_writer() + number as u64;
        Ok(Self {
            connection: Connection::greeted(server)?,
            controller: Controller::open(controller)?,
            stream: stream.clone(),
            home: SegmentId::new(i32::try_from(home).expect("segments were checked"), 0),
            home_name: run.segments[home].clone(),
            id,
            aborted_id: id + load.writers as u64,
            wire_id: wire_id(id),
            block: Block::new(load.size, load.events),
            events: load.events as u64,
            load: load.clone(),
            commits: Latencies::new(),
        })
    }

    /// What it did, and how many transactions or appends that were in all.
    fn write(mut self, way: Way, times: &Times) -> Result<(Done, Latencies, u64), BenchError> {
        let pace = self.load.pace(times);
        let mut batches = 0;
        if way == Way::Plain {
            self.connection.set_up(self.wire_id, &self.home_name)?;
        }
        let done = one_by_one(times, pace, |n| {
            match way {
                Way::Transaction => self.transaction(n, times)?,
                Way::Plain => self.append(self.id, n, (n + 1) * self.events)?,
            }
            batches = n + 1;
            Ok(())
        })?;
        if way == Way::Transaction {
            let transaction = self.begin()?;
            self.append(self.aborted_id, 0, self.events)?;
            self.controller.abort(&self.stream, transaction)?;
        }
        Ok((done, self.commits, batches))
    }

    /// The events of batch `n`; in their segment the last has this number.
    fn append(&mut self, id: u64, n: u64, last_number: u64) -> Result<(), BenchError> {
        self.block.stamp(id, n * self.events..(n + 1) * self.events, |_| 0);
        let data = self.block.lend();
        let number = last_number.cast_signed();
        let outcome = self.connection.append(Framing::Block, self.wire_id, data.clone(), self.events as usize, number);
        self.block.give_back(data);
        outcome
    }

    /// A new transaction, with the writer registered for its part of the home segment.
    fn begin(&mut self) -> Result<headwater_types::TransactionId, BenchError> {
        let (transaction, pieces) = self.controller.begin(&self.stream)?;
        if !pieces.iter().any(|piece| piece.id == self.home) {
            let reply = format!("a transaction without segment {}", self.home);
            return Err(BenchError::Refused { request: "createTransaction", reply });
        }
        let segment: Text = self.stream.transaction_segment(self.home, transaction).as_str().into();
        self.connection.set_up(self.wire_id, &segment)?;
        Ok(transaction)
    }

    fn transaction(&mut self, n: u64, times: &Times) -> Result<(), BenchError> {
        let transaction = self.begin()?;
        self.append(self.id, n, self.events)?;
        let asked = Instant::now();
        self.controller.commit(&self.stream, transaction)?;
        while self.controller.state(&self.stream, transaction)? == TransactionState::Committing {
            let waited = asked.elapsed();
            if waited > PATIENCE {
                return Err(BenchError::Silent {
                    seconds: PATIENCE.as_secs(),
                    waiting: "a transaction was being committed",
                });
            }
            thread::sleep((waited / 10).max(LOOK_AFTER));
        }
        if times.counts(times.now_ns()) {
            self.commits.record(asked.elapsed().as_nanos() as u64);
        }
        Ok(())
    }
}

impl std::fmt::Display for TxnReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}\n", self.machine)?;
        let Self { events, event_bytes, writers, segments, seconds, .. } = self;
        let rate = self.rate.map_or("closed loop".to_owned(), |rate| format!("open loop at {rate}/s"));
        writeln!(
            f,
            "{events} events of {event_bytes} B each, {writers} writers, {segments} segments, {rate}, {seconds} s"
        )?;
        for (name, figures) in [("transactions", &self.transactions), ("plain appends", &self.plain)] {
            let TxnFigures { per_second, events_per_second, p50_us, p99_us } = figures;
            writeln!(f, "{name:13}  {per_second:.1} /s  {events_per_second} events/s  p50 {p50_us}  p99 {p99_us} µs")?;
        }
        writeln!(f, "of which committing takes  p50 {}  p99 {} µs", self.commit_p50_us, self.commit_p99_us)?;
        let share = self.events_ratio.divided_by(0.01);
        writeln!(f, "that is {share:.1} % of the plain events, and {:.1} × the time", self.p50_ratio)?;
        let (verified, aborted) = (self.events_verified, self.aborted);
        write!(
            f,
            "verified  {verified} events, none lost, doubled or out of order, none of {aborted} aborted transactions"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senseless_settings_are_named() {
        let rounds = Rounds { rounds: 1, seconds: 1.0, warmup: 0.0 };
        let load = TxnLoad { events: 100, size: 100, writers: 1, segments: 1, rate: None, rounds };
        assert!(load.check().is_ok());
        for (load, flag) in [
            (TxnLoad { events: 0, ..load.clone() }, "--events"),
            (TxnLoad { events: usize::MAX, ..load.clone() }, "--events"),
            (TxnLoad { size: 27, ..load.clone() }, "--size"),
            (TxnLoad { writers: 0, ..load.clone() }, "--writers"),
            (TxnLoad { segments: 1025, ..load.clone() }, "--segments"),
            (TxnLoad { rate: Some(0.0), ..load }, "--rate"),
        ] {
            assert!(load.check().unwrap_err().to_string().contains(flag), "{flag}");
        }
    }
}
