//! The same clients on the real engine, with its threads: whatever the simulated steps do not interleave, the machine does.
//!
//! The disk is simulated, so the power can go; the order of events is not, so a seed does not give the same run twice. The
//! histories must make sense all the same.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headwater_engine::api::{Outcome, Refusal, Reply, Request, SegmentPolicy};
use headwater_engine::io::Io;
use headwater_engine::{Engine, OnFatal};

use super::Failure;
use super::clients::{CLIENTS, Clients, ClientsReport, LOST_PERCENT};
use crate::chance::{Chance, SimRandom};
use crate::clock::SimClock;
use crate::disk::SimDisk;
use crate::stepped::EngineLaunch;

/// How often somebody who waits for an answer looks whether the store has crashed.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// So often, then the answer is considered forgotten.
const LOOKS_MAX: u32 = 10_000;

/// Lets clients do so many operations, on threads of their own, on one store that crashes a few times.
///
/// # Errors
/// Something no order of events explains, or a forgotten answer.
pub fn threads_run(launch: &EngineLaunch, seed: u64, operations: u64) -> Result<ClientsReport, Box<Failure>> {
    let clients = Mutex::new(Clients::new());
    let failure = |what| Box::new(Failure { seed, points: 0, what, history: Vec::new() });
    run(launch, seed, operations, &clients).map_err(failure)?;
    Ok(clients.into_inner().unwrap_or_else(PoisonError::into_inner).report)
}

struct Store {
    engine: Engine,
    disk: SimDisk,
    /// The power is gone, or the store has stopped.
    is_down: Arc<AtomicBool>,
    /// Why it has stopped.
    fault: Arc<Mutex<Option<String>>>,
}

struct Answer(Sender<Outcome>);

impl Reply for Answer {
    fn send(self: Box<Self>, outcome: Outcome) {
        // Nobody waits after a crash.
        let _ = self.0.send(outcome);
    }
}

impl Store {
    fn open(launch: &EngineLaunch, disk: SimDisk, chance: &mut Chance) -> Result<Self, String> {
        let is_down = Arc::new(AtomicBool::new(false));
        let fault: Arc<Mutex<Option<String>>> = Arc::default();
        let (told, why) = (is_down.clone(), fault.clone());
        let on_fatal: OnFatal = Arc::new(move |error| {
            *why.lock().unwrap_or_else(PoisonError::into_inner) = Some(super::chain(&error));
            told.store(true, Ordering::SeqCst);
        });
        let random = Arc::new(SimRandom::new(chance.bits()));
        let io = Io { disk: Arc::new(disk.clone()), clock: Arc::new(SimClock::new(1_700_000_000_000)), random };
        let engine = Engine::open(io, &launch.options, on_fatal).map_err(|error| super::chain(&error))?;
        Ok(Self { engine, disk, is_down, fault })
    }

    /// `None`: the store went down, and nobody knows.
    fn ask(&self, request: Request) -> Result<Option<Outcome>, String> {
        let (sender, receiver) = channel();
        let text = format!("{request:?}");
        self.engine.submit(request, Box::new(Answer(sender)));
        for _ in 0..LOOKS_MAX {
            match receiver.recv_timeout(LOOK_EVERY) {
                // What is read from a disk that is gone cannot be had.
                Ok(Err(Refusal::Damaged)) if self.disk.is_crashed() => return Ok(None),
                Ok(outcome) => return Ok(Some(outcome)),
                Err(RecvTimeoutError::Timeout) if !self.is_down.load(Ordering::SeqCst) => {}
                Err(_) => return Ok(None),
            }
        }
        Err(format!("no answer to {text}"))
    }
}

fn lock(clients: &Mutex<Clients>) -> MutexGuard<'_, Clients> {
    clients.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(launch: &EngineLaunch, seed: u64, operations: u64, clients: &Mutex<Clients>) -> Result<(), String> {
    let mut chance = Chance::new(seed);
    let mut store = Store::open(launch, SimDisk::new(chance.bits()), &mut chance)?;
    for (segment, kind) in lock(clients).segments() {
        let request = Request::Create { segment, kind, policy: SegmentPolicy::default(), on_reserve: false };
        store.ask(request)?.ok_or("the store went down")?.map_err(|refusal| refusal.to_string())?;
    }
    let crashes = chance.below(4);
    for epoch in 0..=crashes {
        let until = operations * (epoch + 1) / (crashes + 1);
        work(&store, clients, until, epoch < crashes, &mut chance)?;
        if !store.disk.is_crashed()
            && let Some(fault) = store.fault.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            return Err(format!("the store stopped: {fault}"));
        }
        if epoch < crashes {
            lock(clients).crash();
            let (image, seed) = (store.disk.image(), chance.bits());
            let disk = if chance.percent(30) { image.process_kill(seed) } else { image.power_cut(seed) };
            store = Store::open(launch, disk, &mut chance)?;
        }
    }
    let mut clients = lock(clients);
    clients.see_the_end(&mut |request| store.ask(request)?.ok_or_else(|| "the store went down".to_owned()))?;
    store.engine.close();
    clients.check()
}

/// All clients at a time, until so many operations were begun; then the power goes, or all answers are waited for.
fn work(
    store: &Store,
    clients: &Mutex<Clients>,
    until: u64,
    ends_with_a_crash: bool,
    chance: &mut Chance,
) -> Result<(), String> {
    let chances: Vec<Chance> = (0..CLIENTS).map(|_| chance.fork()).collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = chances
            .into_iter()
            .enumerate()
            .map(|(index, mut chance)| {
                scope.spawn(move || -> Result<(), String> {
                    while !store.is_down.load(Ordering::SeqCst) {
                        let mut locked = lock(clients);
                        if locked.report.operations >= until {
                            if ends_with_a_crash {
                                // In the middle of what the others are doing.
                                store.disk.crash();
                                store.is_down.store(true, Ordering::SeqCst);
                            }
                            break;
                        }
                        let (ticket, request) = locked.begin(index, &mut chance);
                        drop(locked);
                        let Some(outcome) = store.ask(request)? else { break };
                        let is_lost = chance.percent(LOST_PERCENT);
                        lock(clients).hear(ticket, &outcome, is_lost)?;
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a client panicked".to_owned())?)
    })
}
