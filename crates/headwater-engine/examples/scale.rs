//! How the engine's cost grows with the number of segments and of keys, measured in one process without sockets.
//!
//! ```text
//!   cargo run --release -p headwater-engine --example scale -- segments 1000000 DIR [memory MiB]
//!   cargo run --release -p headwater-engine --example scale -- table 10000000 DIR [memory MiB]
//! ```
//!
//! Either makes a store in DIR (which must be empty), fills it, closes it, and opens it again twice: after a close, and
//! after it was left without one. What it did is checked as it goes: every answer, and a sample of what was stored.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, reason = "a measuring program")]

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use headwater_engine::api::*;
use headwater_engine::io::{Io, RealClock, RealDisk, RealRandom};
use headwater_engine::{Engine, Options};
use headwater_types::{SegmentName, WriterId};

/// Requests under way at a time.
const WINDOW: usize = 4096;

struct Answer(Sender<(Instant, Outcome)>, Instant);

impl Reply for Answer {
    fn send(self: Box<Self>, outcome: Outcome) {
        let _ = self.0.send((self.1, outcome));
    }
}

struct Store {
    engine: Engine,
    sender: Sender<(Instant, Outcome)>,
    receiver: Receiver<(Instant, Outcome)>,
}

impl Store {
    fn open(directory: &Path, memory_bytes: u64) -> Self {
        let io = Io {
            disk: Arc::new(RealDisk::new(directory)),
            clock: Arc::new(RealClock::default()),
            random: Arc::new(RealRandom),
        };
        let options = Options { memory_bytes, ..Options::default() };
        let begun = Instant::now();
        let engine = Engine::open(io, &options, Arc::new(|error| panic!("{error}"))).unwrap();
        let (sender, receiver) = channel();
        let store = Self { engine, sender, receiver };
        println!("opened in {:.3} s, {}", begun.elapsed().as_secs_f64(), store.memory());
        store
    }

    fn memory(&self) -> String {
        let metrics = self.engine.metrics().values;
        let of = |name| metrics.iter().find(|(known, _)| *known == name).map_or(0, |(_, value)| *value);
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("?").trim().to_owned();
        format!(
            "resident {} (peak {}); segments in memory {}, hot {} KiB, indexes {} KiB, blocks {} KiB, merges {}",
            field("VmRSS:"),
            field("VmHWM:"),
            of("segments_in_memory"),
            of("catalogue_hot_bytes") >> 10,
            of("catalogue_index_bytes") >> 10,
            of("catalogue_cache_bytes") >> 10,
            of("catalogue_merges_total")
        )
    }

    /// Sends requests with a window of their number under way, and returns how long each took.
    fn run(
        &self,
        requests: impl Iterator<Item = Request>,
        window: usize,
        mut check: impl FnMut(Outcome),
    ) -> Vec<Duration> {
        let mut latencies = Vec::new();
        let mut under_way = 0;
        let mut take = |latencies: &mut Vec<Duration>| {
            let (sent, outcome) = self.receiver.recv().unwrap();
            latencies.push(sent.elapsed());
            check(outcome);
        };
        for request in requests {
            if under_way == window {
                take(&mut latencies);
                under_way -= 1;
            }
            self.engine.submit(request, Box::new(Answer(self.sender.clone(), Instant::now())));
            under_way += 1;
        }
        for _ in 0..under_way {
            take(&mut latencies);
        }
        latencies
    }

    fn flush(&self) {
        for container in 0..self.engine.containers() {
            self.engine.flush(container, Box::new(Answer(self.sender.clone(), Instant::now())));
        }
        for _ in 0..self.engine.containers() {
            self.receiver.recv().unwrap().1.unwrap();
        }
    }

    fn merge_all(&self) {
        let merges =
            || self.engine.metrics().values.iter().find(|(name, _)| *name == "catalogue_merges_total").unwrap().1;
        let begun = Instant::now();
        let mut last = (merges(), Instant::now());
        while last.1.elapsed() < Duration::from_secs(3) && begun.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(100));
            if merges() != last.0 {
                last = (merges(), Instant::now());
            }
        }
    }
}

fn report(what: &str, mut latencies: Vec<Duration>) -> Duration {
    latencies.sort_unstable();
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
    println!(
        "{what}: n {}, p50 {:?}, p99 {:?}, p99.9 {:?}, max {:?}",
        latencies.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
    at(0.99)
}

/// A sequence that visits numbers below `below` in no order.
fn scattered(below: u64, count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(move |number| (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) % below)
}

fn segment(number: u64) -> SegmentName {
    SegmentName::parse(&format!("scope/stream-{}/{}.#epoch.0", number / 100, number % 100)).unwrap()
}

fn segments(directory: &Path, count: u64, memory_bytes: u64) {
    let store = Store::open(directory, memory_bytes);
    let create = |number| Request::Create {
        segment: segment(number),
        kind: SegmentKind::Stream,
        policy: SegmentPolicy::default(),
        on_reserve: false,
    };
    let begun = Instant::now();
    let latencies = store.run((0..count).map(create), WINDOW, |outcome| drop(outcome.unwrap()));
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    println!("created {count} segments, {rate:.0} per second; {}", store.memory());
    report("creation with 4096 under way", latencies);
    let append = |number: u64, event: i64| {
        Request::Append(Append {
            segment: segment(number),
            writer: WriterId(number.into()),
            data: Bytes::from_static(&[7; 100]),
            event_count: 1,
            previous: (event > 1).then_some(event - 1),
            number: event,
            expected_length: None,
        })
    };
    let half = count.min(100_000);
    let begun = Instant::now();
    let spread = (0..half).map(|number| append(number * (count / half), 1));
    store.run(spread, WINDOW, |outcome| drop(outcome.unwrap()));
    println!("one append to each of {half} idle ones, {:.0} per second", half as f64 / begun.elapsed().as_secs_f64());
    store.engine.close();
    println!("closed; {}", store.memory());
    drop(store);

    let store = Store::open(directory, memory_bytes);
    let info = |number| Request::Info { segment: segment(number) };
    report(
        "info of a cold segment",
        store.run(scattered(count, 20_000).map(info), 1, |outcome| drop(outcome.unwrap())),
    );
    let absent = (0..20_000).map(|number| info(count + number));
    report("info of none", store.run(absent, 1, |outcome| assert!(outcome.is_err())));
    let cold = (0..5_000).map(|number| append(number * (count / half), 2));
    report("append to a cold segment", store.run(cold, 1, |outcome| drop(outcome.unwrap())));
    println!("{}", store.memory());
    store.flush();
    // Left as a killed process leaves it: the engine's threads end with this one.
    println!("left open");
    std::mem::forget(store);
}

const TABLE: &str = "scope/table_kvtable/0.#epoch.0";

fn key(number: u64) -> Bytes {
    format!("user-{:012}", number.wrapping_mul(7_777_777_777) % 1_000_000_000_000).into()
}

fn value(number: u64) -> Bytes {
    let mut value = vec![number as u8; 100];
    value[..8].copy_from_slice(&number.to_be_bytes());
    value.into()
}

fn fill(store: &Store, table: &SegmentName, keys: u64) -> f64 {
    let create = Request::Create {
        segment: table.clone(),
        kind: SegmentKind::Table { key_length: 0 },
        policy: SegmentPolicy::default(),
        on_reserve: false,
    };
    store.run(std::iter::once(create), 1, |outcome| drop(outcome.unwrap()));
    let batch = |first: u64| {
        let change = |number| TableChange { key: key(number), value: Some(value(number)), expect: Expect::Any };
        let changes = (first..keys.min(first + 100)).map(change).collect();
        Request::TableUpdate { segment: table.clone(), changes, at: None }
    };
    let begun = Instant::now();
    store.run((0..keys).step_by(100).map(batch), 64, |outcome| drop(outcome.unwrap()));
    keys as f64 / begun.elapsed().as_secs_f64()
}

fn get(table: &SegmentName, number: u64) -> Request {
    Request::TableGet { segment: table.clone(), keys: vec![key(number)] }
}

fn gets(store: &Store, what: &str, table: &SegmentName, keys: u64) -> Duration {
    let numbers: Vec<_> = scattered(keys, 20_000).collect();
    let mut asked = numbers.iter();
    let requests = numbers.iter().map(|number| get(table, *number));
    let check = |outcome: Outcome| {
        let Ok(Response::Values(values)) = outcome else { panic!("values answer a question for them") };
        assert_eq!(values[0].as_ref().unwrap().value, value(*asked.next().unwrap()));
    };
    report(what, store.run(requests, 1, check))
}

fn table(directory: &Path, keys: u64, memory_bytes: u64) {
    let (large, small) = (SegmentName::parse(TABLE).unwrap(), SegmentName::parse("scope/small_kvtable/0").unwrap());
    let store = Store::open(directory, memory_bytes);
    fill(&store, &small, 1_000);
    let baseline = gets(&store, "get among 1000 keys", &small, 1_000);
    let rate = fill(&store, &large, keys);
    println!("put {keys} keys, {rate:.0} per second; {}", store.memory());
    store.flush();
    store.merge_all();
    gets(&store, "get among all keys", &large, keys);
    store.engine.close();
    drop(store);

    let store = Store::open(directory, memory_bytes);
    let begun = Instant::now();
    let first = store.run(std::iter::once(get(&large, 4_711)), 1, |outcome| drop(outcome.unwrap()));
    println!("first get {:?} after {:?}", first[0], begun.elapsed());
    gets(&store, "get among all keys, cold", &large, keys);
    let again = gets(&store, "get among all keys, again", &large, keys);
    gets(&store, "get among 1000 keys beside them", &small, 1_000);
    let update = |number| {
        let change = TableChange { key: key(number), value: Some(value(number)), expect: Expect::Any };
        Request::TableUpdate { segment: large.clone(), changes: vec![change], at: None }
    };
    report("put to a cold key", store.run(scattered(keys, 5_000).map(update), 1, |outcome| drop(outcome.unwrap())));
    let scan = |number| {
        let range = ScanRange { from: Some(key(number)), ..ScanRange::default() };
        Request::TableScan { segment: large.clone(), range, count_max: 100, keys_only: false }
    };
    report("scan of 100 keys", store.run(scattered(keys, 200).map(scan), 1, |outcome| drop(outcome.unwrap())));
    println!("{}; p99 {:.1} times that of 1000 keys", store.memory(), again.as_secs_f64() / baseline.as_secs_f64());
    std::mem::forget(store);
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, count, directory, rest @ ..] = &arguments[..] else {
        println!("usage: scale segments|table COUNT DIR [memory MiB]");
        return;
    };
    let count: u64 = count.parse().expect("COUNT is a number");
    let memory_bytes = rest.first().map_or(256, |mebibytes| mebibytes.parse::<u64>().expect("a number of MiB")) << 20;
    let directory = Path::new(directory);
    std::fs::create_dir_all(directory).unwrap();
    match what.as_str() {
        "segments" => segments(directory, count, memory_bytes),
        "table" => table(directory, count, memory_bytes),
        "open" => std::mem::forget(Store::open(directory, memory_bytes)),
        other => println!("{other}: not one of segments, table and open"),
    }
}
