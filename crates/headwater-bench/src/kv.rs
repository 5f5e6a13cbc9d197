//! `headwater bench kv`: putting, updating on condition and getting the keys of a table.
//!
//! Each round has a table of its own, filled with all keys. Then each operation runs twice: with many requests under way as
//! fast as they are answered, for the throughput, and at a fixed rate, for the latency. A client goes round its keys in an
//! order that looks like chance; no two requests about one key are under way, so that every answer is known beforehand:
//! a get must bring the value and the version of the last put. At the end all values are read and compared, and an update
//! on condition of an old version must be refused.

use std::collections::VecDeque;
use std::ops::Range;
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use headwater_types::limits::TABLE_VALUE_BYTES_MAX;
use headwater_wire::{NO_VERSION, NOT_EXISTS, Reply, Text};
use serde::Serialize;

use crate::check::Violation;
use crate::connection::{Connection, refused};
use crate::error::BenchError;
use crate::event::{Block, EVENT_BYTES_MIN, HEADER_BYTES, Identity};
use crate::latency::Quantiles;
use crate::machine::Machine;
use crate::pace::{Schedule, readable, sleep_exactly};
use crate::rounds::{Rounds, Spread, sound};
use crate::steps::Done;
use crate::table::Table;
use crate::target::{Attached, Target};
use crate::write::generator::{Pace, Times};

const KEYS_MAX: u64 = 100_000_000;
const CLIENTS_MAX: usize = 1024;
/// More would only wait in the server.
const IN_FLIGHT_MAX: usize = 4096;
/// Bounds what a client and the server hold of values under way.
const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;
/// Keys of one request when all values are compared; their values stay far below a frame.
const COMPARED: u64 = 100;
const COMPARED_BYTES: usize = 1 << 20;
/// A prime above all numbers of keys: steps of it, round and round, meet every key once before any twice.
const STEP: u64 = 2_654_435_761;

/// `bench kv`.
#[derive(Clone, Debug, clap::Args)]
pub struct KvArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) load: KvLoad,
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is put and got.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct KvLoad {
    /// Keys of the table, each of 16 bytes
    #[arg(long, default_value_t = 100_000)]
    pub(crate) keys: u64,
    /// Bytes of each value, at least 28
    #[arg(long, default_value_t = 100)]
    pub(crate) size: usize,
    /// Clients: each a thread with a connection and its share of the keys
    #[arg(long, default_value_t = 1)]
    pub(crate) clients: usize,
    /// Requests of one client under way; each has one key
    #[arg(long, default_value_t = 64)]
    pub(crate) in_flight: usize,
    /// Requests per second of the runs whose latency counts, each timed from when it was due
    #[arg(long, default_value_t = 1000.0)]
    pub(crate) rate: f64,
    #[command(flatten)]
    pub(crate) rounds: Rounds,
}

/// What a table can do.
#[derive(Clone, Debug, Serialize)]
pub struct KvReport {
    /// Where it ran.
    pub machine: Machine,
    /// Keys of the table.
    pub keys: u64,
    /// Bytes of each value.
    pub value_bytes: usize,
    /// Clients.
    pub clients: usize,
    /// Requests of one client under way.
    pub in_flight: usize,
    /// Requests per second of the runs whose latency counts.
    pub rate: f64,
    /// Seconds that counted, of each run.
    pub seconds: f64,
    /// Values put, whatever was there.
    pub put: OperationFigures,
    /// Values put on condition of the version that was there.
    pub update: OperationFigures,
    /// Values got.
    pub get: OperationFigures,
    /// Values that were compared with what had been put: those of all gets, and all of the table after each round.
    pub values_verified: u64,
}

/// Of one operation.
#[derive(Clone, Debug, Serialize)]
pub struct OperationFigures {
    /// As fast as they were answered, of all clients together.
    pub per_second: Spread,
    /// From sending to the answer meanwhile: median, in microseconds.
    pub p50_us: Spread,
    /// The same for 99 %.
    pub p99_us: Spread,
    /// At the fixed rate, from when a request was due to its answer: median, in microseconds.
    pub paced_p50_us: Spread,
    /// The same for 99 %.
    pub paced_p99_us: Spread,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Operation {
    Put,
    Update,
    Get,
}

const OPERATIONS: [Operation; 3] = [Operation::Put, Operation::Update, Operation::Get];

impl KvLoad {
    fn check(&self) -> Result<(), BenchError> {
        self.rounds.check()?;
        let size = EVENT_BYTES_MIN..=TABLE_VALUE_BYTES_MAX;
        sound(&format!("--size is from {EVENT_BYTES_MIN} to {TABLE_VALUE_BYTES_MAX}"), size.contains(&self.size))?;
        sound("--clients is from 1 to 1024", (1..=CLIENTS_MAX).contains(&self.clients))?;
        sound("--in-flight is from 1 to 4096", (1..=IN_FLIGHT_MAX).contains(&self.in_flight))?;
        let bytes = self.in_flight * self.size <= IN_FLIGHT_BYTES_MAX;
        sound("--in-flight times --size is at most 67108864 bytes", bytes)?;
        let least = (self.clients * self.in_flight) as u64;
        let keys = format!("--keys is from {least} (requests under way, of all clients) to {KEYS_MAX}");
        sound(&keys, (least..=KEYS_MAX).contains(&self.keys))?;
        sound("--rate is from 1 to 100000000", (1.0..=1e8).contains(&self.rate))
    }

    /// Numbers of the keys of a client. Whatever does not divide evenly is the last one's.
    fn share(&self, client: usize) -> Range<u64> {
        let (client, clients) = (client as u64, self.clients as u64);
        let each = self.keys / clients;
        client * each..if client + 1 == clients { self.keys } else { (client + 1) * each }
    }

    fn paced(&self, times: &Times) -> Pace {
        let rate_milli = ((self.rate * 1000.0 / self.clients as f64) as u64).max(1);
        Pace::Open(Schedule::new(0, times.end_ns, rate_milli))
    }
}

pub(crate) fn run(args: &KvArgs) -> Result<KvReport, BenchError> {
    args.load.check()?;
    measure(&args.target.attach()?, &args.load, args.target.keep)
}

/// Of one operation in one round.
struct Found {
    per_second: f64,
    full: Quantiles,
    paced: Quantiles,
}

fn measure(attached: &Attached, load: &KvLoad, keep: bool) -> Result<KvReport, BenchError> {
    let mut values_verified = 0;
    let rounds = load.rounds.each(|| {
        let (found, verified) = one_round(&attached.server, load, keep)?;
        values_verified += verified;
        Ok(found)
    })?;
    let figures = |index: usize| {
        let of = |figure: fn(&Found) -> f64| Spread::of(rounds.iter().map(|found| figure(&found[index])));
        OperationFigures {
            per_second: of(|found| found.per_second),
            p50_us: of(|found| found.full.p50_us),
            p99_us: of(|found| found.full.p99_us),
            paced_p50_us: of(|found| found.paced.p50_us),
            paced_p99_us: of(|found| found.paced.p99_us),
        }
    };
    Ok(KvReport {
        machine: attached.machine.clone(),
        keys: load.keys,
        value_bytes: load.size,
        clients: load.clients,
        in_flight: load.in_flight,
        rate: load.rate,
        seconds: load.rounds.seconds,
        put: figures(0),
        update: figures(1),
        get: figures(2),
        values_verified,
    })
}

/// What [`OPERATIONS`] found, in their order, and how many values were compared.
fn one_round(server: &str, load: &KvLoad, keep: bool) -> Result<(Vec<Found>, u64), BenchError> {
    let mut owner = Connection::greeted(server)?;
    let table = Table::create(&mut owner)?;
    let mut clients: Vec<Client> =
        (0..load.clients).map(|number| Client::open(server, &table, load, number)).collect::<Result<_, _>>()?;
    for client in &mut clients {
        client.fill()?;
    }
    let mut found = Vec::new();
    for operation in OPERATIONS {
        let full = together(&mut clients, |client| {
            let times = load.rounds.times(Instant::now());
            client.work(operation, &times, Pace::Closed)
        })?;
        let paced = together(&mut clients, |client| {
            let times = load.rounds.times(Instant::now());
            client.work(operation, &times, load.paced(&times))
        })?;
        let per_second = full.counted as f64 / load.rounds.seconds;
        found.push(Found { per_second, full: full.latencies.quantiles(), paced: paced.latencies.quantiles() });
    }
    let mut verified = 0;
    for mut client in clients {
        client.refuse_stale()?;
        client.compare_all()?;
        verified += client.verified;
    }
    if !keep {
        table.delete(&mut owner)?;
    }
    Ok((found, verified))
}

/// All clients at the same time, each on a thread.
fn together(
    clients: &mut [Client],
    work: impl Fn(&mut Client) -> Result<Done, BenchError> + Sync,
) -> Result<Done, BenchError> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = clients.iter_mut().map(|client| scope.spawn(move || work(client))).collect();
        let mut all = Done::default();
        for thread in threads {
            all.merge(&thread.join().expect("no client panics")?);
        }
        Ok(all)
    })
}

/// What a client knows of one of its keys.
#[derive(Clone, Copy, Debug)]
struct Key {
    /// Puts acknowledged, the first that filled the table included.
    puts: u64,
    version: i64,
}

#[derive(Clone, Copy, Debug)]
struct UnderWay {
    request_id: i64,
    operation: Operation,
    /// Index into the client's keys.
    key: usize,
    due_ns: u64,
}

/// One client with its keys, of which nobody else changes any.
struct Client {
    connection: Connection,
    table: Table,
    /// Number of its first key.
    first: u64,
    keys: Vec<Key>,
    /// Requests ever sent: says which key is next.
    sent: u64,
    under_way: VecDeque<UnderWay>,
    in_flight: usize,
    values: Values,
    verified: u64,
}

/// Makes values that say which key they are of and which put it was.
struct Values(Block);

impl Values {
    fn of(&mut self, number: u64, put: u64) -> &[u8] {
        // Writers are never zero.
        let identity = Identity { writer: number + 1, sequence: put, due_ns: 0 };
        &self.0.one(identity)[HEADER_BYTES..]
    }

    fn bytes_of(&mut self, number: u64, put: u64) -> Bytes {
        Bytes::copy_from_slice(self.of(number, put))
    }
}

impl Client {
    fn open(server: &str, table: &Table, load: &KvLoad, number: usize) -> Result<Self, BenchError> {
        let share = load.share(number);
        Ok(Self {
            connection: Connection::greeted(server)?,
            table: table.clone(),
            first: share.start,
            keys: vec![Key { puts: 0, version: NOT_EXISTS }; (share.end - share.start) as usize],
            sent: 0,
            under_way: VecDeque::new(),
            in_flight: load.in_flight,
            values: Values(Block::new(load.size, 1)),
            verified: 0,
        })
    }

    fn fill(&mut self) -> Result<(), BenchError> {
        let Self { connection, table, first, keys, values, .. } = self;
        let numbers = *first..*first + keys.len() as u64;
        table.fill(
            connection,
            numbers,
            NOT_EXISTS,
            |number| values.bytes_of(number, 0),
            |number, version| keys[(number - *first) as usize] = Key { puts: 1, version },
        )
    }

    /// Which key the `n`th request is about.
    fn key(&self, n: u64) -> usize {
        let count = self.keys.len() as u64;
        ((n % count) * STEP % count) as usize
    }

    /// One operation on one key after the other until the end, then waits for everything under way.
    fn work(&mut self, operation: Operation, times: &Times, pace: Pace) -> Result<Done, BenchError> {
        sleep_exactly();
        let (mut done, mut sent) = (Done::default(), 0);
        let end_ns = match pace {
            Pace::Closed => times.end_ns,
            Pace::Open(schedule) => schedule.judged_at(),
        };
        loop {
            let now = times.now_ns();
            let due = match pace {
                Pace::Closed => u64::MAX,
                Pace::Open(schedule) if sent == schedule.total() => break,
                Pace::Open(schedule) => schedule.due_by(now),
            };
            if now >= end_ns {
                break;
            }
            while sent < due && self.under_way.len() < self.in_flight {
                let due_ns = match pace {
                    Pace::Closed => times.now_ns(),
                    Pace::Open(schedule) => schedule.due(sent),
                };
                self.ask(operation, due_ns)?;
                sent += 1;
            }
            self.connection.flush()?;
            let until = match pace {
                Pace::Open(schedule) if self.under_way.len() < self.in_flight => schedule.due(sent).min(end_ns),
                _ => end_ns,
            };
            if readable(self.connection.socket(), times.now_ns(), until)? {
                self.take_replies(times, pace, &mut done)?;
            }
        }
        while !self.under_way.is_empty() {
            self.take_replies(times, pace, &mut done)?;
        }
        if let Pace::Open(schedule) = pace {
            schedule.judge(sent)?;
        }
        Ok(done)
    }

    fn ask(&mut self, operation: Operation, due_ns: u64) -> Result<(), BenchError> {
        let key = self.key(self.sent);
        let number = self.first + key as u64;
        let Key { puts, version } = self.keys[key];
        let table = &self.table;
        let request_id = match operation {
            Operation::Get => self.connection.put_request(|request_id| table.read(request_id, [number]))?,
            Operation::Put | Operation::Update => {
                let version = if operation == Operation::Put { NO_VERSION } else { version };
                let entry = Table::entry(number, version, self.values.bytes_of(number, puts));
                self.connection.put_request(|request_id| table.update(request_id, vec![entry]))?
            }
        };
        self.sent += 1;
        self.under_way.push_back(UnderWay { request_id, operation, key, due_ns });
        Ok(())
    }

    /// Waits until something comes and handles all of it.
    fn take_replies(&mut self, times: &Times, pace: Pace, done: &mut Done) -> Result<(), BenchError> {
        self.connection.receive("requests to a table were under way")?;
        let now = times.now_ns();
        while let Some(reply) = self.connection.buffered_reply()? {
            if matches!(reply, Reply::KeepAlive) {
                continue;
            }
            let at = self.under_way.iter().position(|asked| Some(asked.request_id) == reply.request_id());
            let asked = at.and_then(|at| self.under_way.remove(at));
            let Some(UnderWay { operation, key, due_ns, .. }) = asked else {
                return Err(refused("a request to a table", &reply));
            };
            self.judge(operation, key, reply)?;
            let timed = match pace {
                Pace::Closed => times.counts(now),
                Pace::Open(_) => times.counts(due_ns),
            };
            if timed {
                done.latencies.record(now.saturating_sub(due_ns));
            }
            done.counted += u64::from(times.counts(now));
        }
        Ok(())
    }

    /// Whether the answer is the one that had to come.
    fn judge(&mut self, operation: Operation, key: usize, reply: Reply) -> Result<(), BenchError> {
        match (operation, reply) {
            (Operation::Put | Operation::Update, Reply::TableEntriesUpdated { versions, .. })
                if versions.len() == 1 =>
            {
                let puts = self.keys[key].puts + 1;
                self.keys[key] = Key { puts, version: versions[0] };
                Ok(())
            }
            (Operation::Get, Reply::TableRead { entries, .. }) if entries.len() == 1 => {
                self.compare(key, entries[0].key.version, &entries[0].value)
            }
            (Operation::Get, reply) => Err(refused("ReadTable", &reply)),
            (_, reply) => Err(refused("UpdateTableEntries", &reply)),
        }
    }

    /// Whether a key has what its last put gave it.
    fn compare(&mut self, key: usize, version: i64, value: &[u8]) -> Result<(), BenchError> {
        let number = self.first + key as u64;
        let known = self.keys[key];
        if version != known.version || value != self.values.of(number, known.puts - 1) {
            return Err(violated(&self.table.segment, Violation::Value { key: number }));
        }
        self.verified += 1;
        Ok(())
    }

    /// A key that is there must not be put on condition that it is not.
    fn refuse_stale(&mut self) -> Result<(), BenchError> {
        let number = self.first;
        let entry = Table::entry(number, NOT_EXISTS, self.values.bytes_of(number, self.keys[0].puts));
        let table = &self.table;
        match self.connection.ask(|request_id| table.update(request_id, vec![entry]))? {
            Reply::TableKeyBadVersion { .. } => Ok(()),
            Reply::TableEntriesUpdated { .. } => {
                Err(violated(&table.segment, Violation::Unconditional { key: number }))
            }
            reply => Err(refused("UpdateTableEntries", &reply)),
        }
    }

    fn compare_all(&mut self) -> Result<(), BenchError> {
        let count = self.keys.len() as u64;
        let bytes = self.values.of(0, 0).len();
        let at_once = COMPARED.min((COMPARED_BYTES / bytes) as u64).max(1);
        let mut from = 0;
        while from < count {
            let to = count.min(from + at_once);
            let (table, numbers) = (&self.table, self.first + from..self.first + to);
            match self.connection.ask(|request_id| table.read(request_id, numbers))? {
                Reply::TableRead { entries, .. } if entries.len() as u64 == to - from => {
                    for (key, entry) in (from..to).zip(entries) {
                        self.compare(key as usize, entry.key.version, &entry.value)?;
                    }
                }
                reply => return Err(refused("ReadTable", &reply)),
            }
            from = to;
        }
        Ok(())
    }
}

fn violated(segment: &Text, source: Violation) -> BenchError {
    BenchError::Integrity { segment: segment.to_string(), source }
}

impl std::fmt::Display for KvReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}\n", self.machine)?;
        let Self { keys, value_bytes, clients, in_flight, rate, seconds, .. } = self;
        writeln!(
            f,
            "{keys} keys, values of {value_bytes} B, {clients} clients, {in_flight} requests of each under way, {seconds} s"
        )?;
        for (name, figures) in [("put", &self.put), ("update if version", &self.update), ("get", &self.get)] {
            let OperationFigures { per_second, p50_us, p99_us, paced_p50_us, paced_p99_us } = figures;
            writeln!(f, "{name:17}  {per_second} /s  p50 {p50_us}  p99 {p99_us} µs")?;
            writeln!(f, "   at {rate:6.0}/s                p50 {paced_p50_us}  p99 {paced_p99_us} µs")?;
        }
        write!(f, "verified  {} values, each the one that was put last", self.values_verified)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn load() -> KvLoad {
        let rounds = Rounds { rounds: 1, seconds: 1.0, warmup: 0.0 };
        KvLoad { keys: 1000, size: 100, clients: 3, in_flight: 64, rate: 1000.0, rounds }
    }

    #[test]
    fn every_key_is_some_clients_and_no_two_requests_under_way_are_about_one() {
        let load = load();
        let shares: Vec<_> = (0..load.clients).map(|client| load.share(client)).collect();
        assert_eq!(shares.iter().cloned().flatten().collect::<Vec<_>>(), (0..load.keys).collect::<Vec<_>>());
        for count in [1, 2, 333, 334, 4096, 100_000] {
            let met: BTreeSet<u64> = (0..count).map(|n| (n % count) * STEP % count).collect();
            assert_eq!(met.len() as u64, count, "of {count} keys");
        }
        // The product stays a number of 64 bits.
        assert!(STEP.checked_mul(KEYS_MAX).is_some() && STEP > KEYS_MAX);
    }

    #[test]
    fn a_value_says_whose_it_is_and_which_put_it_was() {
        let mut values = Values(Block::new(100, 1));
        let first = values.bytes_of(7, 0);
        assert_eq!(first.len(), 100);
        assert_ne!(first, values.bytes_of(7, 1));
        assert_ne!(first, values.bytes_of(8, 0));
        assert_eq!(first, values.bytes_of(7, 0));
    }

    #[test]
    fn senseless_settings_are_named() {
        assert!(load().check().is_ok());
        for (load, flag) in [
            (KvLoad { keys: 191, ..load() }, "--keys"),
            (KvLoad { keys: KEYS_MAX + 1, ..load() }, "--keys"),
            (KvLoad { size: 27, ..load() }, "--size"),
            (KvLoad { size: TABLE_VALUE_BYTES_MAX + 1, ..load() }, "--size"),
            (KvLoad { clients: 0, ..load() }, "--clients"),
            (KvLoad { in_flight: 0, ..load() }, "--in-flight"),
            (KvLoad { size: 1_000_000, in_flight: 68, ..load() }, "--in-flight times"),
            (KvLoad { rate: 0.0, ..load() }, "--rate"),
        ] {
            assert!(load.check().unwrap_err().to_string().contains(flag), "{flag}");
        }
    }
}
