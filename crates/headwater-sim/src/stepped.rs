//! The engine as a [`Store`].

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_engine::api::{Reply, Request};
use headwater_engine::io::Io;
use headwater_engine::{BucketOptions, ContainerLimits, Options, Stepper, StoreError, Ticket};

use crate::disk::SimBucket;
use crate::harness::{Launch, Store};

/// Opens the real engine, driven step by step.
#[derive(Clone, Debug)]
pub struct EngineLaunch {
    /// Of every store it opens.
    pub options: Options,
    /// Chunks are in the bucket beside the disk.
    pub has_bucket: bool,
}

/// Small enough that files are filled, recycled and checkpointed all the time, large enough for every request of the
/// workload.
const JOURNAL_FILE_BYTES: u64 = 512 << 10;

impl Default for EngineLaunch {
    fn default() -> Self {
        let options = Options { containers: 2, journal_file_bytes: JOURNAL_FILE_BYTES, ..Options::default() };
        Self { options, has_bucket: false }
    }
}

impl EngineLaunch {
    /// The same store with almost no memory: whatever happens only under pressure happens all the time.
    pub fn tiny() -> Self {
        let limits = ContainerLimits {
            flush_bytes: 12 << 10,
            unstored_bytes_max: 24 << 10,
            hot_bytes: 6 << 10,
            cache_bytes: 8 << 10,
            idle_segments: 2,
            table_compact_bytes: 2 << 10,
            table_step_bytes: 128,
        };
        let usual = Self::default();
        Self { options: Options { container_limits: Some(limits), ..usual.options }, ..usual }
    }

    /// The same store with its chunks in a bucket.
    pub fn in_bucket(self) -> Self {
        Self { has_bucket: true, ..self }
    }
}

impl Launch for EngineLaunch {
    type Store = SteppedEngine;

    fn open(&self, io: Io, bucket: SimBucket) -> Result<SteppedEngine, StoreError> {
        let bucket = self.has_bucket.then(|| BucketOptions {
            objects: Arc::new(bucket),
            shown: "the simulated bucket".to_owned(),
            recover: false,
        });
        let options = Options { bucket, ..self.options.clone() };
        Ok(SteppedEngine { stepper: Stepper::open(io, options)?, waiting: BTreeMap::new() })
    }

    fn containers(&self) -> u32 {
        self.options.containers
    }

    fn table_compact_bytes(&self) -> u64 {
        let limits = self.options.container_limits;
        limits.map_or(ContainerLimits::TABLE_COMPACT_BYTES, |limits| limits.table_compact_bytes)
    }
}

/// The engine in one thread.
pub struct SteppedEngine {
    stepper: Stepper,
    waiting: BTreeMap<Ticket, Box<dyn Reply>>,
}

impl SteppedEngine {
    /// Sends on what the step that just ended has answered.
    fn deliver(&mut self) {
        for (ticket, outcome) in self.stepper.take_replies() {
            let reply = self.waiting.remove(&ticket).expect("every request is answered once");
            reply.send(outcome);
        }
    }
}

impl Store for SteppedEngine {
    fn submit(&mut self, request: Request, reply: Box<dyn Reply>) -> Result<(), StoreError> {
        let ticket = self.stepper.submit(request)?;
        self.waiting.insert(ticket, reply);
        self.deliver();
        Ok(())
    }

    fn catch_up(&mut self, container: u32) -> Result<(), StoreError> {
        self.stepper.catch_up(container)?;
        self.deliver();
        Ok(())
    }

    fn run_one(&mut self, choice: u64) -> Result<bool, StoreError> {
        let worked = self.stepper.run_one(choice)?;
        self.deliver();
        Ok(worked)
    }

    fn nudge(&mut self, choice: u64) -> Result<(), StoreError> {
        let container = (choice % u64::from(self.stepper.containers())) as u32;
        self.stepper.checkpoint(container)?;
        self.deliver();
        Ok(())
    }

    fn held(&self, container: u32) -> usize {
        self.stepper.held(container)
    }

    fn is_full(&self) -> bool {
        self.stepper.is_full()
    }

    fn take_damage(&mut self) -> Vec<StoreError> {
        self.stepper.take_damage()
    }

    fn close(self) -> Result<(), StoreError> {
        let Self { stepper, mut waiting } = self;
        for (ticket, outcome) in stepper.close()? {
            waiting.remove(&ticket).expect("every request is answered once").send(outcome);
        }
        Ok(())
    }
}
