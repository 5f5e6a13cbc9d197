//! A container and what is to be told to it: whoever has something for it may move it.
//!
//! ```text
//!   caller ──► inbox ──► step, at once, in the caller's thread ──► records to the journal
//!                │
//!                └─ somebody is at it, or the step is long: left to them, or to the container's own thread
//! ```
//!
//! A sleeping thread takes tens of microseconds to wake up, and an append took four of them. So most steps run where the
//! input comes from: appends and reads in the thread of their connection, durability in the journal's.
//!
//! Guarantees:
//! * inputs are taken in the order in which they were given
//! * nobody waits for a container but its own thread, and no input is left lying: who finds it busy leaves the input to
//!   whoever is at it, who looks into the inbox once more after letting go
//! * only the container's own thread does what may take long ([`ContainerInput::is_long`])

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread::{JoinHandle, Thread};

use crate::OnFatal;
use crate::api::Refusal;
use crate::container::{Container, Effects};
use crate::error::StoreError;
use crate::io::Clock;

use super::{Answer, ContainerInput, Figures, JournalInput, KeeperInput, Lookups, ReadInput, start};

/// Inputs taken before their effects are carried out: enough to fill a commit, few enough that answers do not wait.
const INPUTS_PER_TURN: usize = 256;
/// Turns a helper takes before it leaves the rest to the container's own thread.
const TURNS_OF_A_HELPER: usize = 4;

/// See the [module](self). Clones of the `Arc` share it.
pub(crate) struct SharedContainer {
    id: u32,
    inbox: Mutex<VecDeque<ContainerInput>>,
    owned: Mutex<Owned>,
    /// Stored bytes are not on this machine: reading them may take seconds.
    is_far: bool,
    /// The container's own thread, once it runs.
    thread: OnceLock<Thread>,
    fatal: OnFatal,
}

/// Whom a container's effects go to.
pub(crate) struct Neighbours {
    pub(crate) journal: Sender<JournalInput>,
    pub(crate) keeper: Sender<KeeperInput>,
    pub(crate) readers: Sender<ReadInput>,
    pub(crate) lookups: Lookups,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) figures: Arc<Figures>,
}

/// `None` once the container is closed or has met a fault. Then its neighbours may end, too.
type Owned = Option<Running>;

struct Running {
    id: u32,
    container: Container<Answer>,
    neighbours: Neighbours,
    /// Of the turn under way; kept for its memory.
    effects: Effects<Answer>,
    /// Whom to tell when everything is durable.
    closing: Option<Sender<()>>,
}

/// Why a turn ended.
enum Turn {
    /// The inbox was empty.
    Empty,
    /// There is more.
    More,
    /// What comes next is not for a helper.
    Long,
}

impl SharedContainer {
    /// `first`: what the container wanted done when it was opened.
    pub(crate) fn new(
        id: u32,
        container: Container<Answer>,
        first: Effects<Answer>,
        neighbours: Neighbours,
        fatal: OnFatal,
    ) -> Arc<Self> {
        let is_far = container.chunks().objects().remote_usage().is_some();
        let running = Running { id, container, neighbours, effects: first, closing: None };
        let (inbox, thread) = (Mutex::default(), OnceLock::new());
        Arc::new(Self { id, inbox, owned: Mutex::new(Some(running)), is_far, thread, fatal })
    }

    /// Starts the container's own thread. It ends when the container is closed or has met a fault.
    pub(crate) fn start(self: &Arc<Self>) -> JoinHandle<()> {
        let shared = self.clone();
        let thread = start(format!("container-{}", self.id), self.fatal.clone(), move || {
            shared.run();
            Ok(())
        });
        self.thread.set(thread.thread().clone()).expect("a container is started once");
        // What was given meanwhile found nobody to wake.
        thread.thread().unpark();
        thread
    }

    /// Gives it something without doing anything about it: [`help`](Self::help) has to follow.
    pub(crate) fn leave(&self, input: ContainerInput) {
        self.inbox().push_back(input);
    }

    /// Gives it something that its own thread is to do.
    pub(crate) fn send(&self, input: ContainerInput) {
        self.leave(input);
        self.wake();
    }

    /// Does what is in the inbox here and now, as far as it is short and nobody else is at it.
    pub(crate) fn help(&self) {
        for _ in 0..TURNS_OF_A_HELPER {
            let Ok(mut owned) = self.owned.try_lock() else { return };
            match self.turn(&mut owned, false) {
                Turn::Long => return self.wake(),
                Turn::Empty | Turn::More => {}
            }
            drop(owned);
            // Only now: what was given before somebody found us busy is in the inbox by now.
            if self.inbox().is_empty() {
                return;
            }
        }
        self.wake();
    }

    fn run(&self) {
        loop {
            let mut owned = self.owned.lock().expect("a panic ends the process");
            let turn = self.turn(&mut owned, true);
            if owned.is_none() {
                return;
            }
            drop(owned);
            if matches!(turn, Turn::Empty) && self.inbox().is_empty() {
                std::thread::park();
            }
        }
    }

    /// Takes inputs and carries out what they want done. A fault ends the container, and the process once it has heard.
    fn turn(&self, owned: &mut Owned, may_be_long: bool) -> Turn {
        let Some(running) = owned else {
            // Outside the lock of the inbox: whoever hears may have something to say.
            let left = std::mem::take(&mut *self.inbox());
            for input in left {
                if let ContainerInput::Request(_, answer) | ContainerInput::Flush(answer) = input {
                    answer.send(Err(Refusal::Closing));
                }
            }
            return Turn::Empty;
        };
        match running.turn(self, may_be_long) {
            Ok(turn) => {
                if running.has_closed() {
                    *owned = None;
                    self.wake();
                }
                turn
            }
            Err(fault) => {
                *owned = None;
                (self.fatal)(fault);
                self.wake();
                Turn::Empty
            }
        }
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn inbox(&self) -> MutexGuard<'_, VecDeque<ContainerInput>> {
        self.inbox.lock().expect("nobody panics with the inbox")
    }

    /// The next input, if the caller may do it.
    fn take(&self, may_be_long: bool) -> Result<ContainerInput, Turn> {
        let mut inbox = self.inbox();
        match inbox.front() {
            None => Err(Turn::Empty),
            Some(next) if (next.is_long() || self.is_far && next.may_read_chunks()) && !may_be_long => Err(Turn::Long),
            Some(_) => Ok(inbox.pop_front().expect("it was just seen")),
        }
    }
}

impl Running {
    fn turn(&mut self, shared: &SharedContainer, may_be_long: bool) -> Result<Turn, StoreError> {
        let mut inputs = 0;
        let ended = loop {
            let input = match shared.take(may_be_long) {
                Ok(input) => input,
                Err(ended) => break ended,
            };
            self.on_input(input)?;
            inputs += 1;
            if inputs == INPUTS_PER_TURN || self.effects.checkpoint.is_some() {
                break Turn::More;
            }
        };
        let is_due = self.container.wants_checkpoint() || self.container.wants_release();
        if is_due && may_be_long {
            while self.container.release(self.neighbours.clock.wall_millis(), &mut self.effects)? {}
            if self.container.wants_checkpoint() {
                self.container.checkpoint(&mut self.effects)?;
            }
        }
        self.carry_out();
        Ok(if is_due && !may_be_long { Turn::Long } else { ended })
    }

    fn on_input(&mut self, input: ContainerInput) -> Result<(), StoreError> {
        let Self { container, effects, neighbours: Neighbours { clock, journal, figures, .. }, .. } = self;
        match input {
            ContainerInput::Request(request, answer) => {
                container.request(clock.wall_millis(), request, answer, effects)?;
            }
            ContainerInput::Durable(sequence) => container.durable(sequence, effects)?,
            ContainerInput::CheckpointDone(done) => {
                container.checkpoint_done(*done, effects)?;
                // The journal's thread ends only after all containers are closed.
                let _ = journal.send(JournalInput::Covered(self.id, container.checkpointed()));
            }
            ContainerInput::ReadAgain(again) => container.read_again(again, effects)?,
            ContainerInput::LookedUp(back) => container.looked_up(clock.wall_millis(), back, effects)?,
            ContainerInput::Merged(installed) => container.merged(installed),
            ContainerInput::Flush(answer) => container.flush(answer, effects)?,
            ContainerInput::Room => container.room_changed(figures.is_low.load(SeqCst)),
            ContainerInput::Sweep => container.sweep(),
            ContainerInput::Checkpoint => container.checkpoint(effects)?,
            ContainerInput::Close(done) => {
                container.close(effects);
                self.closing = Some(done);
            }
        }
        Ok(())
    }

    fn carry_out(&mut self) {
        let Neighbours { journal, keeper, readers, lookups, figures, .. } = &self.neighbours;
        let effects = &mut self.effects;
        // A thread that is gone met a fault and has told; these sends are then in vain, and nothing is acknowledged.
        if !effects.records.is_empty() {
            let records = std::mem::take(&mut effects.records);
            let _ = journal.send(JournalInput::Records(records, std::mem::take(&mut effects.acks)));
        }
        for (answer, outcome) in effects.replies.drain(..) {
            answer.send(outcome);
        }
        for read in effects.reads.drain(..) {
            let _ = readers.send((self.id, read));
        }
        for lookup in effects.lookups.drain(..) {
            lookups.send(self.id, lookup);
        }
        if let Some(job) = effects.checkpoint.take() {
            let _ = keeper.send(KeeperInput::Checkpoint(Box::new(job)));
        }
        let usage = self.container.usage();
        let figures = &figures.containers[self.id as usize];
        figures.unstored_bytes.store(usage.unstored_bytes, Relaxed);
        figures.cached_bytes.store(usage.cached_bytes, Relaxed);
        figures.catalogue_bytes.store(usage.catalogue_bytes, Relaxed);
        figures.index_bytes.store(usage.index_bytes, Relaxed);
        figures.segments.store(usage.segments, Relaxed);
        figures.damaged_reads.store(usage.damaged_reads, Relaxed);
        figures.held.store(self.container.held() as u64, Relaxed);
        figures.sequence.store(usage.sequence, Relaxed);
        figures.checkpointed.store(self.container.checkpointed(), Relaxed);
    }

    /// Whether it was closed and everything is durable; tells so.
    fn has_closed(&mut self) -> bool {
        let is_done = self.closing.is_some() && self.container.is_quiet();
        if is_done && let Some(closing) = self.closing.take() {
            // The engine may have stopped waiting.
            let _ = closing.send(());
        }
        is_done
    }
}
