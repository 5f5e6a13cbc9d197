//! The engine as its callers see it, on a real disk.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests look at the real files from outside")]

mod backup;
mod bucket;
mod bucket_care;
mod check;
mod cold;
mod compaction;
mod faults;
mod fuzz;
mod golden;
mod repair;
mod rigged;
mod scrub;
mod segments;
mod store;
mod tables;

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use headwater_engine::api::*;
use headwater_engine::io::{Io, RealClock, RealDisk, RealRandom};
use headwater_engine::{Engine, Options, StoreError};
use headwater_types::{SegmentName, WriterId};

/// How often a test looks for what it waits for.
const TICK: Duration = Duration::from_millis(10);
/// Ticks before a test gives up: many times what a busy machine needs.
const PATIENCE_TICKS: u32 = 2_000;

/// A store in a directory of its own, closed when dropped.
struct Fixture {
    directory: Arc<tempfile::TempDir>,
    engine: Engine,
    /// Why the store had to stop.
    fault: Arc<OnceLock<StoreError>>,
}

fn io(directory: &tempfile::TempDir) -> Io {
    Io {
        disk: Arc::new(RealDisk::new(directory.path())),
        clock: Arc::new(RealClock::default()),
        random: Arc::new(RealRandom),
    }
}

fn small() -> Options {
    Options { containers: 2, memory_bytes: 0, journal_file_bytes: 1 << 20, ..Options::default() }
}

impl Fixture {
    fn new() -> Self {
        Self::with(&Options::default())
    }

    fn with(options: &Options) -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        let io = io(&directory);
        Self::open(directory, io, options).unwrap()
    }

    /// Opens the store in a directory, or makes it there.
    fn open(directory: Arc<tempfile::TempDir>, io: Io, options: &Options) -> Result<Self, StoreError> {
        let fault = Arc::new(OnceLock::new());
        let told = fault.clone();
        let on_fatal = move |error| told.set(error).expect("a store ends once");
        let engine = Engine::open(io, options, Arc::new(on_fatal))?;
        Ok(Self { directory, engine, fault })
    }

    /// Closes the store and opens it again.
    fn reopen(self, options: &Options) -> Self {
        self.engine.close();
        assert!(self.fault.get().is_none(), "{}", self.fault.get().unwrap());
        Self::open(self.directory.clone(), io(&self.directory), options).unwrap()
    }

    fn submit(&self, request: Request) -> Receiver<Outcome> {
        let (sender, receiver) = channel();
        self.engine.submit(request, Box::new(Answer(sender)));
        receiver
    }

    /// Waits for an answer; the fault, if the store ends without one.
    fn wait(&self, receiver: &Receiver<Outcome>) -> Result<Outcome, &StoreError> {
        for _ in 0..PATIENCE_TICKS {
            match receiver.recv_timeout(TICK) {
                Ok(outcome) => return Ok(outcome),
                Err(RecvTimeoutError::Timeout) => {}
                // The thread that had the request is ending, and tells why after that.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(TICK),
            }
            if let Some(fault) = self.fault.get() {
                return Err(fault);
            }
        }
        panic!("no answer in {:?}", TICK * PATIENCE_TICKS);
    }

    #[track_caller]
    fn call(&self, request: Request) -> Outcome {
        let receiver = self.submit(request);
        self.wait(&receiver).unwrap_or_else(|fault| panic!("the store ended: {fault}"))
    }

    /// Moves everything out of the journal.
    fn flush(&self) {
        for container in 0..self.engine.containers() {
            let (sender, receiver) = channel();
            self.engine.flush(container, Box::new(Answer(sender)));
            assert!(matches!(self.wait(&receiver), Ok(Ok(Response::Done))));
        }
    }

    fn metric(&self, name: &str) -> u64 {
        let metrics = self.engine.metrics();
        metrics.values.iter().find(|(known, _)| *known == name).expect("there is such a metric").1
    }

    fn create(&self, segment: &str, kind: SegmentKind) {
        let request =
            Request::Create { segment: name(segment), kind, policy: SegmentPolicy::default(), on_reserve: false };
        assert!(matches!(self.call(request), Ok(Response::Done)), "{segment} was not created");
    }

    fn append(&self, segment: &str, previous: Option<i64>, number: i64, data: &[u8]) -> Outcome {
        self.call(Request::Append(append(segment, previous, number, data)))
    }

    fn read(&self, segment: &str, offset: u64) -> Result<(Vec<u8>, bool, bool), Refusal> {
        match self.call(Request::Read { segment: name(segment), offset, bytes_max: 1 << 20 }) {
            Ok(Response::Read(read)) => Ok((read.data.concat(), read.at_tail, read.end_of_segment)),
            Ok(other) => panic!("{other:?} answers a read"),
            Err(refusal) => Err(refusal),
        }
    }

    /// Reads a whole segment, up to its present end.
    fn read_all(&self, segment: &str) -> Vec<u8> {
        let info = self.info(segment).unwrap();
        let mut all = Vec::new();
        while (info.start + all.len() as u64) < info.length {
            all.extend(self.read(segment, info.start + all.len() as u64).unwrap().0);
        }
        all
    }

    fn info(&self, segment: &str) -> Result<SegmentInfo, Refusal> {
        match self.call(Request::Info { segment: name(segment) }) {
            Ok(Response::Info(info)) => Ok(info),
            Ok(other) => panic!("{other:?} answers a question for information"),
            Err(refusal) => Err(refusal),
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.engine.close();
    }
}

/// Hands an outcome to a test.
struct Answer(Sender<Outcome>);

impl Reply for Answer {
    fn send(self: Box<Self>, outcome: Outcome) {
        // The test may have given up.
        let _ = self.0.send(outcome);
    }
}

/// Waits for something the store does on its own.
#[track_caller]
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..PATIENCE_TICKS {
        if is_so() {
            return;
        }
        std::thread::sleep(TICK);
    }
    panic!("{what}: not in {:?}", TICK * PATIENCE_TICKS);
}

fn name(text: &str) -> SegmentName {
    SegmentName::parse(text).unwrap()
}

const WRITER: WriterId = WriterId(7);

fn append(segment: &str, previous: Option<i64>, number: i64, data: &[u8]) -> Append {
    Append {
        segment: name(segment),
        writer: WRITER,
        data: Bytes::copy_from_slice(data),
        event_count: 1,
        previous,
        number,
        expected_length: None,
    }
}
