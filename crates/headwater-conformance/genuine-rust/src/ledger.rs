//! Writers that keep a ledger of what was acknowledged, and a reader that writes down what it saw.
//!
//! The ledger is a text file of lines `writer key sequence`, one for each event whose acknowledgement arrived, written
//! and flushed before the writer goes on. The reader writes binary records of a length (u32, big-endian) and as many
//! payload bytes, in the order of delivery. Neither side judges; the harness does, with its own code.
//!
//! With `--transactions` one more writer commits transactions: transaction n writes event n of every key. Its events
//! count as acknowledged once the controller says that the transaction is committed.
//!
//! Payload of an event, all numbers big-endian:
//!
//! ```text
//! "HWLE" · run u64 · writer u32 · key u32 · sequence u64 · filler · crc32c u32 of everything before
//! ```

use crate::context::{soon, within, Arguments, Context, PATIENCE};
use crate::jumbo::noise;
use anyhow::{anyhow, ensure, Context as _, Result};
use pravega_client::error::Error;
use pravega_client::event::reader::EventReader;
use pravega_client::event::transactional_writer::{Transaction, TransactionalEventWriter};
use pravega_client::event::EventWriter;
use pravega_client_shared::{ScopedStream, Timestamp, TransactionStatus, WriterId};
use serde_json::json;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::sync::oneshot;

/// How long acknowledgements of the last events may take. Longer than the client's longest pause between attempts.
const LAST_ACKNOWLEDGEMENTS: Duration = Duration::from_secs(180);

fn payload(run: u64, writer: u32, key: u32, sequence: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(b"HWLE");
    bytes.extend_from_slice(&run.to_be_bytes());
    bytes.extend_from_slice(&writer.to_be_bytes());
    bytes.extend_from_slice(&key.to_be_bytes());
    bytes.extend_from_slice(&sequence.to_be_bytes());
    // Sizes from nothing to a kilobyte, now and then 40 KiB: appends of one and of many blocks.
    let seed = run ^ (u64::from(writer) << 48) ^ (u64::from(key) << 40) ^ sequence;
    let length = if sequence % 97 == 96 { 40_000 } else { (seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54) as usize };
    bytes.extend(noise(seed, length));
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes
}

#[derive(Default)]
struct Counters {
    sent: AtomicU64,
    acknowledged: AtomicU64,
    failed: AtomicU64,
    stop: AtomicBool,
}

/// Writes until standard input closes or `--seconds` passed, then waits for every acknowledgement.
pub async fn write(context: &Context, arguments: &mut Arguments) -> Result<()> {
    let name: String = arguments.required("--stream")?;
    let path: String = arguments.required("--ledger")?;
    let writers: u32 = arguments.optional("--writers", 4)?;
    let keys: u32 = arguments.optional("--keys", 16)?;
    let run: u64 = arguments.optional("--run", 1)?;
    let in_flight: usize = arguments.optional("--in-flight", 64)?;
    let seconds: u64 = arguments.optional("--seconds", 0)?;
    let transactions: bool = arguments.optional("--transactions", false)?;
    let stream = context.stream(&name);
    let ledger = Arc::new(Mutex::new(File::create(&path).with_context(|| format!("create {path}"))?));
    let counters = Arc::new(Counters::default());

    let mut tasks = Vec::new();
    for writer in 0..writers {
        let event_writer = context.factory.create_event_writer(stream.clone());
        let (ledger, counters) = (ledger.clone(), counters.clone());
        tasks.push(tokio::spawn(one_writer(event_writer, Plan { run, writer, keys, in_flight }, ledger, counters)));
    }
    if transactions {
        let id = WriterId(u128::from(writers) + 1);
        let event_writer = context.factory.create_transactional_event_writer(stream.clone(), id).await;
        let (ledger, counters) = (ledger.clone(), counters.clone());
        let plan = Plan { run, writer: writers, keys, in_flight };
        tasks.push(tokio::spawn(one_transactional_writer(event_writer, plan, ledger, counters)));
    }
    let started = Instant::now();
    let mut stdin = tokio::io::stdin();
    let mut buffer = [0; 64];
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            _ = tick.tick() => report(context, &counters),
            read = stdin.read(&mut buffer), if seconds == 0 => {
                if matches!(read, Ok(0) | Err(_)) {
                    break;
                }
            }
        }
        if (seconds > 0 && started.elapsed().as_secs() >= seconds) || tasks.iter().any(|task| task.is_finished()) {
            break;
        }
    }
    counters.stop.store(true, Ordering::Relaxed);
    let mut sent = Vec::new();
    for (writer, task) in tasks.into_iter().enumerate() {
        let per_key =
            within(LAST_ACKNOWLEDGEMENTS, "the last acknowledgements", task).await?.context("writer task")??;
        sent.push(json!({ "writer": writer, "sent_per_key": per_key }));
    }
    report(context, &counters);
    context.print(json!({
        "sent": counters.sent.load(Ordering::Relaxed),
        "acknowledged": counters.acknowledged.load(Ordering::Relaxed),
        "failed": counters.failed.load(Ordering::Relaxed),
        "writers": sent,
    }));
    Ok(())
}

fn report(context: &Context, counters: &Counters) {
    context.print(json!({
        "progress": counters.acknowledged.load(Ordering::Relaxed),
        "sent": counters.sent.load(Ordering::Relaxed),
    }));
}

struct Plan {
    run: u64,
    writer: u32,
    keys: u32,
    in_flight: usize,
}

struct Pending {
    key: u32,
    sequence: u64,
    acknowledgement: oneshot::Receiver<Result<(), Error>>,
}

/// One writer object from the beginning to the end, whatever happens to the server. Returns how many events it sent
/// for each key.
async fn one_writer(
    mut writer: EventWriter,
    plan: Plan,
    ledger: Arc<Mutex<File>>,
    counters: Arc<Counters>,
) -> Result<Vec<u64>> {
    let mut next = vec![0_u64; plan.keys as usize];
    let mut pending = VecDeque::<Pending>::new();
    let mut turn = plan.writer;
    while !counters.stop.load(Ordering::Relaxed) {
        turn = turn.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let key = (turn >> 16) % plan.keys;
        let sequence = next[key as usize];
        next[key as usize] += 1;
        let event = payload(plan.run, plan.writer, key, sequence);
        counters.sent.fetch_add(1, Ordering::Relaxed);
        // The four writers share their keys, so that one segment sees them interleaved.
        let acknowledgement = writer.write_event_by_routing_key(format!("key-{key}"), event).await;
        pending.push_back(Pending { key, sequence, acknowledgement });
        if pending.len() >= plan.in_flight {
            settle(&mut pending, plan.in_flight / 2, plan.writer, &ledger, &counters).await?;
        }
    }
    settle(&mut pending, 0, plan.writer, &ledger, &counters).await?;
    Ok(next)
}

/// One transaction after the other, until told to stop. Returns how many events it sent for each key, the same number
/// for all of them.
async fn one_transactional_writer(
    mut writer: TransactionalEventWriter,
    plan: Plan,
    ledger: Arc<Mutex<File>>,
    counters: Arc<Counters>,
) -> Result<Vec<u64>> {
    let mut number = 0;
    while !counters.stop.load(Ordering::Relaxed) {
        // The client tries for about a minute by itself; a server that is away for longer fails the next attempt, too.
        let Ok(mut transaction) = writer.begin().await else {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        number += 1;
        counters.sent.fetch_add(u64::from(plan.keys), Ordering::Relaxed);
        match tokio::time::timeout(PATIENCE, one_transaction(&mut transaction, &plan, number - 1)).await {
            Ok(true) => {
                let mut lines = String::new();
                for key in 0..plan.keys {
                    lines.push_str(&format!("{} {key} {}\n", plan.writer, number - 1));
                }
                note(&ledger, &lines)?;
                counters.acknowledged.fetch_add(u64::from(plan.keys), Ordering::Relaxed);
            }
            // Aborted, or nobody knows: all of it may be there or nothing.
            Ok(false) | Err(_) => {
                counters.failed.fetch_add(u64::from(plan.keys), Ordering::Relaxed);
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(vec![number; plan.keys as usize])
}

/// Writes and commits; true when the controller says that it is committed.
async fn one_transaction(transaction: &mut Transaction, plan: &Plan, sequence: u64) -> bool {
    for key in 0..plan.keys {
        let event = payload(plan.run, plan.writer, key, sequence);
        if transaction.write_event(Some(format!("key-{key}")), event).await.is_err() {
            return false;
        }
    }
    // An error says nothing: the commit may have arrived. Only the state tells.
    let _ = transaction.commit(Timestamp(0)).await;
    loop {
        match transaction.check_status().await {
            Ok(TransactionStatus::Committed) => return true,
            Ok(TransactionStatus::Aborted | TransactionStatus::Aborting | TransactionStatus::Open) => return false,
            Ok(TransactionStatus::Committing) | Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Waits until at most `leave` events are under way; each that is acknowledged goes to the ledger.
async fn settle(
    pending: &mut VecDeque<Pending>,
    leave: usize,
    writer: u32,
    ledger: &Mutex<File>,
    counters: &Counters,
) -> Result<()> {
    let mut lines = String::new();
    while pending.len() > leave {
        let Some(Pending { key, sequence, acknowledgement }) = pending.pop_front() else { break };
        // No time limit of its own: a killed server may be away for long. The harness watches the progress.
        match acknowledgement.await {
            Ok(Ok(())) => {
                lines.push_str(&format!("{writer} {key} {sequence}\n"));
                counters.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Err(_)) | Err(_) => {
                counters.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    note(ledger, &lines)
}

fn note(ledger: &Mutex<File>, lines: &str) -> Result<()> {
    let mut file = ledger.lock().expect("no writer panics while it holds the ledger");
    file.write_all(lines.as_bytes()).context("write the ledger")?;
    file.flush().context("write the ledger")
}

/// Reads the stream through a reader group until `--expect` events came and then nothing for `--quiet-seconds`.
pub async fn read(context: &Context, arguments: &mut Arguments) -> Result<()> {
    let stream = context.stream(&arguments.required::<String>("--stream")?);
    let path: String = arguments.required("--out")?;
    let expect: u64 = arguments.required("--expect")?;
    let readers: usize = arguments.optional("--readers", 2)?;
    let quiet = Duration::from_secs(arguments.optional("--quiet-seconds", 4)?);
    let group_name: String = arguments.optional("--group", "ledger-readers".to_owned())?;
    let out = Arc::new(Mutex::new(BufWriter::new(File::create(&path).with_context(|| format!("create {path}"))?)));
    let count = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));

    let group = context.factory.create_reader_group(group_name, stream.clone()).await;
    let mut tasks = Vec::new();
    for i in 0..readers {
        let reader = group.create_reader(format!("reader-{i}")).await;
        tasks.push(tokio::spawn(one_reader(reader, out.clone(), count.clone(), stop.clone())));
    }
    let started = Instant::now();
    let (mut last_count, mut last_change) = (0, Instant::now());
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = count.load(Ordering::Relaxed);
        if now != last_count {
            (last_count, last_change) = (now, Instant::now());
            context.print(json!({ "progress": now }));
        }
        if (now >= expect && last_change.elapsed() >= quiet) || tasks.iter().any(|task| task.is_finished()) {
            break;
        }
        // What is missing is for the harness to judge; here it only must not take for ever.
        if last_change.elapsed() >= PATIENCE {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        soon("a reader's end", task).await?.context("reader task")??;
    }
    out.lock().expect("no reader panics while it holds the file").flush().context("write the payloads")?;
    let seconds = last_change.duration_since(started).as_secs_f64();
    context.print(json!({ "read": count.load(Ordering::Relaxed), "seconds": seconds }));
    Ok(())
}

async fn one_reader(
    mut reader: EventReader,
    out: Arc<Mutex<BufWriter<File>>>,
    count: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let slice = soon("acquire", reader.acquire_segment()).await?.map_err(|e| anyhow!("acquire: {e}"))?;
        let Some(mut slice) = slice else { continue };
        {
            // Held over the slice: the order in the file is the order of delivery, across readers.
            let mut out = out.lock().expect("no reader panics while it holds the file");
            for event in slice.by_ref() {
                let length = u32::try_from(event.value.len()).context("an event above 4 GiB")?;
                out.write_all(&length.to_be_bytes()).context("write a payload")?;
                out.write_all(&event.value).context("write a payload")?;
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        soon("release", reader.release_segment(slice)).await?.map_err(|e| anyhow!("release: {e}"))?;
    }
    soon("reader offline", reader.reader_offline()).await?.map_err(|e| anyhow!("reader offline: {e}"))
}

/// Fills a stream as fast as the client can, for measurements.
pub async fn fill(context: &Context, arguments: &mut Arguments) -> Result<()> {
    let name: String = arguments.required("--stream")?;
    let mib: usize = arguments.required("--mib")?;
    let event_bytes: usize = arguments.optional("--event", 64 * 1024)?;
    let (stream, _): (ScopedStream, bool) = context.create_stream(&name, 4).await?;
    ensure!(event_bytes > 0, "--event must be at least 1");
    let events = mib * 1024 * 1024 / event_bytes;
    let event = noise(3, event_bytes);
    let mut writer = context.factory.create_event_writer(stream);
    let started = Instant::now();
    for i in 0..events {
        let _ = writer.write_event_by_routing_key(format!("key-{}", i % 64), event.clone()).await;
    }
    soon("flush", writer.flush()).await?.map_err(|e| anyhow!("flush: {e}"))?;
    let seconds = started.elapsed().as_secs_f64();
    context.print(json!({ "events": events, "bytes": events * event_bytes, "seconds": seconds }));
    Ok(())
}
