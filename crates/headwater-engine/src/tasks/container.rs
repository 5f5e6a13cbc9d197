//! The thread of one container.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, Sender};
use std::thread::JoinHandle;

use crate::OnFatal;
use crate::container::{Container, Effects};
use crate::error::StoreError;
use crate::io::Clock;

use super::{Answer, ContainerInput, Figures, JournalInput, KeeperInput, ReadInput, start};

/// Inputs taken before their effects are carried out: enough to fill a commit, few enough that answers do not wait.
const INPUTS_PER_TURN: usize = 256;

/// Owns a container.
pub(crate) struct ContainerTask {
    pub(crate) id: u32,
    pub(crate) container: Container<Answer>,
    pub(crate) inbox: Receiver<ContainerInput>,
    pub(crate) journal: Sender<JournalInput>,
    pub(crate) keeper: Sender<KeeperInput>,
    pub(crate) readers: Sender<ReadInput>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) figures: Arc<Figures>,
}

impl ContainerTask {
    /// `first`: what the container wanted done when it was opened.
    pub(crate) fn start(self, first: Effects<Answer>, fatal: OnFatal) -> JoinHandle<()> {
        start(format!("container-{}", self.id), fatal, move || self.run(first))
    }

    fn run(mut self, first: Effects<Answer>) -> Result<(), StoreError> {
        let mut effects = first;
        let mut closed: Option<Sender<()>> = None;
        loop {
            self.carry_out(std::mem::take(&mut effects));
            if self.container.is_quiet()
                && let Some(closed) = &closed
            {
                // The engine may have stopped waiting.
                let _ = closed.send(());
                return Ok(());
            }
            // Every sender is gone: nobody can ask for anything any more.
            let Ok(mut input) = self.inbox.recv() else { return Ok(()) };
            for turn in 0.. {
                match input {
                    ContainerInput::Request(request, answer) => {
                        self.container.request(self.clock.wall_millis(), request, answer, &mut effects)?;
                    }
                    ContainerInput::Durable(sequence) => self.container.durable(sequence, &mut effects)?,
                    ContainerInput::CheckpointDone(done) => {
                        self.container.checkpoint_done(self.clock.wall_millis(), *done, &mut effects)?;
                        let covered = JournalInput::Covered(self.id, self.container.checkpointed());
                        // The journal's thread ends only after all containers'.
                        let _ = self.journal.send(covered);
                    }
                    ContainerInput::ReadAgain(again) => self.container.read_again(again, &mut effects)?,
                    ContainerInput::Sweep => self.container.sweep(),
                    ContainerInput::Checkpoint => self.container.checkpoint(&mut effects)?,
                    ContainerInput::Close(done) => {
                        self.container.close(&mut effects);
                        closed = Some(done);
                    }
                }
                if turn == INPUTS_PER_TURN || effects.checkpoint.is_some() {
                    break;
                }
                match self.inbox.try_recv() {
                    Ok(next) => input = next,
                    Err(_) => break,
                }
            }
        }
    }

    fn carry_out(&self, effects: Effects<Answer>) {
        // A thread that is gone met a fault and has told; these sends are then in vain, and nothing is acknowledged.
        if !effects.records.is_empty() {
            let _ = self.journal.send(JournalInput::Records(effects.records, effects.acks));
        }
        for (answer, outcome) in effects.replies {
            answer.send(outcome);
        }
        for read in effects.reads {
            let _ = self.readers.send((self.id, read));
        }
        if let Some(job) = effects.checkpoint {
            let _ = self.keeper.send(KeeperInput::Checkpoint(Box::new(job)));
        }
        let usage = self.container.usage();
        let figures = &self.figures.containers[self.id as usize];
        figures.sequence.store(usage.sequence, Relaxed);
        figures.checkpointed.store(self.container.checkpointed(), Relaxed);
        figures.unstored_bytes.store(usage.unstored_bytes, Relaxed);
        figures.cached_bytes.store(usage.cached_bytes, Relaxed);
        figures.catalogue_bytes.store(usage.catalogue_bytes, Relaxed);
        figures.segments.store(usage.segments, Relaxed);
        figures.damaged_reads.store(usage.damaged_reads, Relaxed);
    }
}
