//! The engine as its callers see it, on a real disk.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests look at the real files from outside")]

mod segments;
mod store;
mod tables;

use std::sync::Arc;

use bytes::Bytes;
use headwater_engine::api::*;
use headwater_engine::io::{Io, RealClock, RealDisk, RealRandom};
use headwater_engine::{Engine, Options};
use headwater_types::{SegmentName, WriterId};

/// A store in a directory of its own.
struct Fixture {
    directory: tempfile::TempDir,
    engine: Engine,
}

fn io(directory: &tempfile::TempDir) -> Io {
    Io {
        disk: Arc::new(RealDisk::new(directory.path())),
        clock: Arc::new(RealClock::default()),
        random: Arc::new(RealRandom),
    }
}

fn open(directory: &tempfile::TempDir, options: &Options) -> Engine {
    Engine::open(io(directory), options, Arc::new(|fault| panic!("{fault}"))).unwrap()
}

fn small() -> Options {
    Options { containers: 2, memory_bytes: 0, journal_file_bytes: 1 << 20 }
}

impl Fixture {
    fn new() -> Self {
        Self::with(&Options::default())
    }

    fn with(options: &Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let engine = open(&directory, options);
        Self { directory, engine }
    }

    /// Closes the store and opens it again.
    fn reopen(self, options: &Options) -> Self {
        self.engine.close();
        let engine = open(&self.directory, options);
        Self { directory: self.directory, engine }
    }

    fn call(&self, request: Request) -> Outcome {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.engine.submit(request, Box::new(sender));
        receiver.blocking_recv().unwrap()
    }

    fn create(&self, segment: &str, kind: SegmentKind) {
        let request = Request::Create { segment: name(segment), kind, policy: SegmentPolicy::default() };
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
