//! The controller on the engine: it dies at its calls of the engine, the machine with it, and the next start finds what the disk
//! kept. The histories are those that the controller's own tests run on ports in memory.
//!
//! In CI every tenth call is a last one, with `HEADWATER_SLOW=1` each.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use headwater_controller::model::ControllerOptions;
use headwater_controller::{
    AppendedAt, Change, Controller, Created, Deleted, Entry, Load, LoadMeter, Merged, MetadataTable, PolicyUpdated,
    PortError, Ports, Room, ScaleHint, Sealed, SegmentInfo, SegmentOps, SegmentRead, TableError, Truncated, Version,
};
use headwater_engine::io::Io;
use headwater_engine::{Engine, StoreError};
use headwater_server::ports::EnginePorts;
use headwater_sim::{EngineLaunch, SimClock, SimDisk, SimRandom};
use headwater_types::{AttributeId, Name, Offset, SegmentName};
use tokio::time::Instant;

use crate::controller_histories::{self as histories, Content, Processes};

/// Wall clock at the beginning.
const BEGIN_MS: i64 = 1_700_000_000_000;

/// At which of its calls a process dies.
#[derive(Clone, Copy, Debug)]
struct Death {
    call: u64,
    /// Once that call has had its effect.
    is_after: bool,
}

/// Keeps Tokio's time where it is until it is dropped: it is stopped, and would jump ahead whenever everybody waits for the
/// engine's threads.
struct Standstill {
    _ends: std::sync::mpsc::Sender<()>,
}

impl Standstill {
    fn new() -> Self {
        let (ends, ended) = std::sync::mpsc::channel();
        tokio::task::spawn_blocking(move || ended.recv());
        Self { _ends: ends }
    }
}

/// One process's way to the engine.
struct Link {
    ports: EnginePorts,
    death: Option<Death>,
    calls: AtomicU64,
    /// Segments and tables that any process has asked for.
    names: Arc<Mutex<Names>>,
}

#[derive(Default)]
struct Names {
    segments: BTreeSet<SegmentName>,
    tables: BTreeSet<String>,
}

impl Link {
    /// Counts a call, and lets the process die before or after it.
    async fn call<T, E: From<PortError>>(&self, call: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let died = || E::from(PortError::Unavailable(format!("died at call {number}")));
        let Some(Death { call: last, is_after }) = self.death else {
            let _still = Standstill::new();
            return call.await;
        };
        if number > last || number == last && !is_after {
            return Err(died());
        }
        let _still = Standstill::new();
        let answer = call.await;
        if number == last { Err(died()) } else { answer }
    }

    fn named(&self, segment: &SegmentName) {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).segments.insert(segment.clone());
    }
}

#[async_trait]
impl SegmentOps for Link {
    async fn create_segment(
        &self,
        segment: &SegmentName,
        scale: ScaleHint,
        rollover: u64,
    ) -> Result<Created, PortError> {
        self.named(segment);
        self.call(self.ports.create_segment(segment, scale, rollover)).await
    }

    async fn seal_segment(&self, segment: &SegmentName) -> Result<Sealed, PortError> {
        self.call(self.ports.seal_segment(segment)).await
    }

    async fn truncate_segment(&self, segment: &SegmentName, offset: Offset) -> Result<Truncated, PortError> {
        self.call(self.ports.truncate_segment(segment, offset)).await
    }

    async fn delete_segment(&self, segment: &SegmentName) -> Result<Deleted, PortError> {
        self.call(self.ports.delete_segment(segment)).await
    }

    async fn merge_segments(&self, target: &SegmentName, sources: &[SegmentName]) -> Result<Merged, PortError> {
        self.call(self.ports.merge_segments(target, sources)).await
    }

    async fn segment_info(&self, segment: &SegmentName) -> Result<Option<SegmentInfo>, PortError> {
        self.call(self.ports.segment_info(segment)).await
    }

    async fn update_policy(&self, segment: &SegmentName, scale: ScaleHint) -> Result<PolicyUpdated, PortError> {
        self.call(self.ports.update_policy(segment, scale)).await
    }

    async fn create_table_segment(
        &self,
        segment: &SegmentName,
        key_bytes: u32,
        rollover: u64,
    ) -> Result<Created, PortError> {
        self.named(segment);
        self.call(self.ports.create_table_segment(segment, key_bytes, rollover)).await
    }

    async fn delete_table_segment(&self, segment: &SegmentName) -> Result<Deleted, PortError> {
        self.call(self.ports.delete_table_segment(segment)).await
    }

    async fn segment_exists(&self, segment: &SegmentName) -> Result<bool, PortError> {
        self.call(self.ports.segment_exists(segment)).await
    }

    async fn read_segment(&self, segment: &SegmentName, offset: Offset, most: usize) -> Result<SegmentRead, PortError> {
        self.call(self.ports.read_segment(segment, offset, most)).await
    }

    async fn append_at(&self, segment: &SegmentName, end: Offset, data: Bytes) -> Result<AppendedAt, PortError> {
        self.call(self.ports.append_at(segment, end, data)).await
    }

    async fn attribute(&self, segment: &SegmentName, id: AttributeId) -> Result<Option<i64>, PortError> {
        self.call(self.ports.attribute(segment, id)).await
    }

    async fn swap_attribute(
        &self,
        segment: &SegmentName,
        id: AttributeId,
        from: Option<i64>,
        to: i64,
    ) -> Result<bool, PortError> {
        self.call(self.ports.swap_attribute(segment, id, from, to)).await
    }

    async fn scan_client_table(
        &self,
        segment: &SegmentName,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Option<Vec<Entry>>, PortError> {
        self.call(self.ports.scan_client_table(segment, after, limit)).await
    }

    async fn room(&self, bytes: usize) -> Result<Room, PortError> {
        self.ports.room(bytes).await
    }

    async fn drop_tables_of_scope(&self, scope: &Name) -> Result<(), PortError> {
        self.call(self.ports.drop_tables_of_scope(scope)).await
    }
}

#[async_trait]
impl MetadataTable for Link {
    async fn create(&self, table: &str) -> Result<(), PortError> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).tables.insert(table.to_owned());
        self.call(self.ports.create(table)).await
    }

    async fn drop_table(&self, table: &str) -> Result<(), PortError> {
        self.call(self.ports.drop_table(table)).await
    }

    async fn scan(
        &self,
        table: &str,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, TableError> {
        self.call(self.ports.scan(table, prefix, after, limit)).await
    }

    async fn scan_keys(
        &self,
        table: &str,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Bytes>, TableError> {
        self.call(self.ports.scan_keys(table, prefix, after, limit)).await
    }

    async fn read(&self, table: &str, keys: &[Bytes]) -> Result<Vec<Option<Entry>>, TableError> {
        self.call(self.ports.read(table, keys)).await
    }

    async fn commit(&self, table: &str, changes: Vec<Change>) -> Result<Vec<Version>, TableError> {
        self.call(self.ports.commit(table, changes)).await
    }
}

/// Nobody writes enough to be counted.
struct NoLoad;

impl LoadMeter for NoLoad {
    fn take(&self) -> Vec<Load> {
        Vec::new()
    }

    fn has_room(&self) -> bool {
        true
    }
}

/// A machine, and what runs on it.
struct Machine {
    disk: SimDisk,
    engine: Engine,
    link: Arc<Link>,
    controller: Controller,
    options: ControllerOptions,
    begin: Instant,
    starts: u64,
}

impl Machine {
    async fn new(death: Option<Death>, options: ControllerOptions) -> Self {
        let (disk, begin) = (SimDisk::new(1), Instant::now());
        let (engine, link) = start(&disk, 0, death, Arc::default()).await;
        let controller = Controller::new(ports(&link, begin), options.clone());
        Self { disk, engine, link, controller, options, begin, starts: 1 }
    }
}

async fn start(disk: &SimDisk, seed: u64, death: Option<Death>, names: Arc<Mutex<Names>>) -> (Engine, Arc<Link>) {
    let _still = Standstill::new();
    let clock = Arc::new(SimClock::new(BEGIN_MS));
    let io = Io { disk: Arc::new(disk.clone()), clock, random: Arc::new(SimRandom::new(seed)) };
    let on_fatal = |error: StoreError| panic!("the engine stopped: {error}");
    let engine = Engine::open(io, &EngineLaunch::default().options, Arc::new(on_fatal)).expect("the store opens");
    let ports = EnginePorts::open(engine.clone()).await.expect("the engine has room for a table");
    (engine, Arc::new(Link { ports, death, calls: AtomicU64::default(), names }))
}

fn ports(link: &Arc<Link>, begin: Instant) -> Ports {
    let clock = move || BEGIN_MS + i64::try_from(begin.elapsed().as_millis()).expect("no test lasts so long");
    Ports { segments: link.clone(), tables: link.clone(), loads: Arc::new(NoLoad), clock: Arc::new(clock) }
}

fn parsed(segment: &str) -> SegmentName {
    SegmentName::parse(segment).expect("a segment's name")
}

impl Processes for Machine {
    fn controller(&self) -> Controller {
        self.controller.clone()
    }

    fn is_mortal(&self) -> bool {
        self.link.death.is_some()
    }

    async fn restart(&mut self) {
        self.controller.shutdown();
        // What ends orderly now is a machine that nobody has any more.
        let image = self.disk.image();
        self.engine.close();
        self.starts += 1;
        // A killed process leaves the page cache to the next, a machine without power does not.
        let seed = self.starts ^ self.link.calls.load(Ordering::Relaxed);
        self.disk = if seed.is_multiple_of(2) { image.process_kill(seed) } else { image.power_cut(seed) };
        (self.engine, self.link) = start(&self.disk, seed, None, self.link.names.clone()).await;
        self.controller = Controller::new(ports(&self.link, self.begin), self.options.clone());
        self.controller.recover().await.expect("the next process has no faults");
    }

    async fn append(&self, segment: &str, bytes: &[u8]) -> bool {
        let (_still, segment, ports) = (Standstill::new(), parsed(segment), &self.link.ports);
        let Some(info) = ports.segment_info(&segment).await.expect("the engine answers") else { return false };
        let appended = ports.append_at(&segment, info.length, Bytes::copy_from_slice(bytes)).await;
        appended.expect("the engine answers") == AppendedAt::Appended
    }

    async fn content(&self, segment: &str) -> Option<Content> {
        let (_still, segment, ports) = (Standstill::new(), parsed(segment), &self.link.ports);
        let SegmentInfo { start, length, sealed } = ports.segment_info(&segment).await.expect("the engine answers")?;
        let mut bytes = Vec::new();
        while start + (bytes.len() as u64) < length {
            match ports.read_segment(&segment, start + bytes.len() as u64, 1 << 20).await.expect("the engine answers") {
                SegmentRead::Bytes(more) => bytes.extend_from_slice(&more),
                other => panic!("{segment}: {other:?}"),
            }
        }
        Some(Content { start, sealed, bytes })
    }

    async fn attribute(&self, segment: &str, id: AttributeId) -> Option<i64> {
        let _still = Standstill::new();
        SegmentOps::attribute(&self.link.ports, &parsed(segment), id).await.expect("the engine answers")
    }

    async fn segment_names(&self) -> Vec<String> {
        let _still = Standstill::new();
        let named = self.link.names.lock().unwrap_or_else(PoisonError::into_inner).segments.clone();
        let mut found = Vec::new();
        for segment in named {
            if self.link.ports.segment_exists(&segment).await.expect("the engine answers") {
                found.push(segment.to_string());
            }
        }
        found
    }

    async fn tables(&self) -> BTreeMap<String, usize> {
        let _still = Standstill::new();
        let named = self.link.names.lock().unwrap_or_else(PoisonError::into_inner).tables.clone();
        let mut found = BTreeMap::new();
        for table in named {
            match self.link.ports.scan(&table, b"", None, 1000).await {
                Ok(entries) => {
                    found.insert(table, entries.len());
                }
                Err(TableError::NoSuchTable(_)) => {}
                Err(error) => panic!("{table}: {error}"),
            }
        }
        found
    }
}

/// Runs a history whose first process dies. Returns how many calls that made.
fn run(death: Option<Death>, options: &ControllerOptions, history: &impl AsyncFn(&mut Machine)) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let mut machine = Machine::new(death, options.clone()).await;
        let link = Arc::clone(&machine.link);
        history(&mut machine).await;
        machine.controller.shutdown();
        machine.engine.close();
        link.calls.load(Ordering::Relaxed)
    })
}

fn run_each(is_after: bool, options: ControllerOptions, history: impl AsyncFn(&mut Machine) + Sync) {
    let every = if std::env::var_os("HEADWATER_SLOW").is_some() { 1 } else { 10 };
    let all = run(None, &options, &history);
    assert!(all > 100, "the history has only {all} calls");
    // Others than those before which a process dies are those after which it does.
    let next = AtomicU64::new(if is_after { 1 + every / 2 } else { 1 });
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let death = Death { call: next.fetch_add(every, Ordering::Relaxed), is_after };
                    let ran = AssertUnwindSafe(|| run(Some(death), &options, &history));
                    let calls = std::panic::catch_unwind(ran).unwrap_or_else(|panic| {
                        eprintln!("with {death:?}");
                        std::panic::resume_unwind(panic)
                    });
                    if calls < death.call {
                        return;
                    }
                }
            });
        }
    });
}

fn often() -> ControllerOptions {
    ControllerOptions { retention_every: histories::RETENTION_EVERY, ..ControllerOptions::default() }
}

#[test]
fn a_stream_goes_on_when_the_controller_and_its_store_die_at_any_call() {
    for is_after in [false, true] {
        run_each(is_after, ControllerOptions::default(), async |machine: &mut Machine| {
            histories::streams(machine).await
        });
    }
}

#[test]
fn tables_and_groups_go_on_when_the_controller_and_its_store_die_at_any_call() {
    for is_after in [false, true] {
        run_each(is_after, ControllerOptions::default(), async |machine: &mut Machine| histories::items(machine).await);
    }
}

#[test]
fn retention_and_the_time_go_on_when_the_controller_and_its_store_die_at_any_call() {
    for is_after in [false, true] {
        run_each(is_after, often(), async |machine: &mut Machine| histories::retained(machine).await);
    }
}
