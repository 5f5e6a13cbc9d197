//! A controller, its store and its time, for tests that run with Tokio's time paused.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use headwater_controller::Controller;
use headwater_controller::model::{
    ControllerOptions, CreateScope, CreateStream, Scale, ScaleProgress, ScalingPolicy, SegmentRange, StreamConfig,
    TransactionState,
};
use headwater_types::{ScopedStream, SegmentId, TransactionId};
use tokio::time::Instant;

pub(crate) use crate::histories::{assert_covers_key_space, group_config, id, scope, stream};
use crate::memory::{Fault, Link, Store};

/// Wall clock at the beginning of each test.
pub(crate) const BEGIN_MS: i64 = 1_700_000_000_000;

pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) controller: Controller,
    /// The running process's way to the store.
    pub(crate) link: Arc<Link>,
    begin: Instant,
    options: ControllerOptions,
    /// By how many milliseconds the wall clock is wrong.
    pub(crate) jump: Arc<AtomicI64>,
}

impl World {
    /// A recovered controller on an empty store.
    pub(crate) async fn new() -> Self {
        let world = Self::unrecovered(None);
        world.controller.recover().await.unwrap();
        world
    }

    pub(crate) fn unrecovered(fault: Option<Fault>) -> Self {
        Self::with(fault, ControllerOptions::default())
    }

    /// Not recovered yet, on an empty store.
    pub(crate) fn with(fault: Option<Fault>, options: ControllerOptions) -> Self {
        let store = Store::default();
        let begin = Instant::now();
        let link = store.link(fault);
        let jump = Arc::default();
        let controller = Controller::new(link.ports(clock(begin, &jump)), options.clone());
        Self { store, controller, link, begin, options, jump }
    }

    /// A controller on that store, not recovered yet.
    pub(crate) fn on(store: Store) -> Self {
        let mut world = Self::unrecovered(None);
        world.store = store;
        world.restart(None);
        world
    }

    /// The process is killed; the next one finds what is in the store. It is not recovered yet.
    pub(crate) fn restart(&mut self, fault: Option<Fault>) {
        self.controller.shutdown();
        self.link = self.store.link(fault);
        self.controller = Controller::new(self.link.ports(clock(self.begin, &self.jump)), self.options.clone());
    }

    /// As [`restart`](Self::restart), with calls that end in an order decided by the seed.
    pub(crate) fn restart_jittery(&mut self, fault: Option<Fault>, seed: u64) {
        self.controller.shutdown();
        self.link = self.store.jittery_link(fault, seed);
        self.controller = Controller::new(self.link.ports(clock(self.begin, &self.jump)), self.options.clone());
    }

    /// A world with a scope `s` and a stream `t` of so many fixed segments.
    pub(crate) async fn with_stream(segments: i32) -> (Self, ScopedStream) {
        let world = Self::new().await;
        assert_eq!(world.controller.create_scope("s").await.unwrap(), CreateScope::Success);
        world.create("t", segments).await;
        (world, stream("t"))
    }

    pub(crate) async fn create(&self, name: &str, segments: i32) {
        let config = StreamConfig::new(ScalingPolicy::fixed(segments));
        let created = self.controller.create_stream("s", name, config).await.unwrap();
        assert_eq!(created, CreateStream::Success);
    }

    /// Scales and waits until it is done.
    pub(crate) async fn scale(
        &self,
        stream: &ScopedStream,
        seal: &[SegmentId],
        new: &[(f64, f64)],
    ) -> Vec<SegmentRange> {
        let started = self.controller.scale(stream, seal.to_vec(), new.to_vec()).await.unwrap();
        let Scale::Started { epoch, segments } = started else { panic!("{started:?}") };
        while self.controller.check_scale(stream, epoch).await.unwrap() == ScaleProgress::InProgress {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(self.controller.check_scale(stream, epoch).await.unwrap(), ScaleProgress::Success);
        segments
    }

    pub(crate) async fn state_becomes(&self, stream: &ScopedStream, id: TransactionId, state: TransactionState) {
        for _ in 0..1000 {
            if self.controller.transaction_state(stream, id).await.unwrap() == state {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{id} is {:?}", self.controller.transaction_state(stream, id).await);
    }

    pub(crate) async fn current(&self, stream: &ScopedStream) -> Vec<SegmentId> {
        self.controller.current_segments(stream).await.unwrap().iter().map(|segment| segment.id).collect()
    }

    /// Content of a segment of a stream.
    pub(crate) fn bytes(&self, stream: &ScopedStream, id: SegmentId) -> String {
        let segment = self.store.segment(stream.segment(id).as_str()).expect("the segment exists");
        String::from_utf8(segment.bytes).unwrap()
    }

    pub(crate) fn append(&self, stream: &ScopedStream, id: SegmentId, text: &str) {
        assert!(self.store.append(stream.segment(id).as_str(), text.as_bytes()), "{id} takes events");
    }
}

fn clock(begin: Instant, jump: &Arc<AtomicI64>) -> impl Fn() -> i64 + Send + Sync + 'static {
    let jump = Arc::clone(jump);
    move || BEGIN_MS + i64::try_from(begin.elapsed().as_millis()).unwrap() + jump.load(Ordering::Relaxed)
}
