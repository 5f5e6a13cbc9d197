//! Every port call of three long histories fails once, or is the last one of its process.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use headwater_controller::Controller;
use headwater_controller::model::ControllerOptions;
use headwater_types::AttributeId;

use crate::histories::{self, Content, Processes};
use crate::memory::Fault;
use crate::support::World;

impl Processes for World {
    fn controller(&self) -> Controller {
        self.controller.clone()
    }

    fn is_mortal(&self) -> bool {
        matches!(self.link.fault(), Some(Fault::CrashBefore(_) | Fault::CrashAfter(_)))
    }

    async fn restart(&mut self) {
        World::restart(self, None);
        self.controller.recover().await.expect("the next process has no faults");
    }

    async fn append(&self, segment: &str, bytes: &[u8]) -> bool {
        self.store.append(segment, bytes)
    }

    async fn content(&self, segment: &str) -> Option<Content> {
        let segment = self.store.segment(segment)?;
        let bytes = segment.bytes[usize::try_from(segment.start).unwrap()..].to_vec();
        Some(Content { start: segment.start, sealed: segment.sealed, bytes })
    }

    async fn attribute(&self, segment: &str, id: AttributeId) -> Option<i64> {
        self.store.segment(segment).unwrap().attributes.get(&id.0).copied()
    }

    async fn segment_names(&self) -> Vec<String> {
        self.store.segment_names()
    }

    async fn tables(&self) -> BTreeMap<String, usize> {
        self.store.table_names().into_iter().map(|name| (name.clone(), self.store.table_len(&name))).collect()
    }
}

/// Runs a history with a fault in its first process. Returns how many port calls that made.
fn run(fault: Option<Fault>, options: ControllerOptions, history: &impl AsyncFn(&mut World)) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut world = World::with(fault, options);
        let link = Arc::clone(&world.link);
        history(&mut world).await;
        link.calls()
    })
}

fn run_each(fault: &impl Fn(u64) -> Fault, options: &ControllerOptions, history: impl AsyncFn(&mut World)) {
    let mut at = 1;
    loop {
        let fault = fault(at);
        let ran = AssertUnwindSafe(|| run(Some(fault), options.clone(), &history));
        let calls = std::panic::catch_unwind(ran).unwrap_or_else(|panic| {
            eprintln!("with {fault:?}");
            std::panic::resume_unwind(panic)
        });
        if calls < at {
            assert!(at > 100, "the history has only {at} calls");
            return;
        }
        at += 1;
    }
}

fn often() -> ControllerOptions {
    ControllerOptions { retention_every: histories::RETENTION_EVERY, ..ControllerOptions::default() }
}

/// Each history per port call and kind of fault.
fn run_all(fault: impl Fn(u64) -> Fault) {
    let options = ControllerOptions::default();
    run_each(&fault, &options, async |world| histories::streams(world).await);
    run_each(&fault, &options, async |world| histories::items(world).await);
    run_each(&fault, &often(), async |world| histories::retained(world).await);
}

#[test]
fn the_histories_work_without_faults() {
    run(None, ControllerOptions::default(), &async |world: &mut World| histories::streams(world).await);
    run(None, ControllerOptions::default(), &async |world: &mut World| histories::items(world).await);
    run(None, often(), &async |world: &mut World| histories::retained(world).await);
}

#[test]
fn any_call_may_fail_once_without_effect() {
    run_all(Fault::OnceBefore);
}

#[test]
fn any_call_may_take_effect_and_lose_its_answer() {
    run_all(Fault::OnceAfter);
}

#[test]
fn the_process_may_die_before_any_call() {
    run_all(Fault::CrashBefore);
}

#[test]
fn the_process_may_die_after_any_call() {
    run_all(Fault::CrashAfter);
}
