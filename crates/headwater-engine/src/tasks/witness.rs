//! The thread that keeps the journal's second witness young and its reserve filled, whatever else takes long.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::OnFatal;
use crate::error::StoreError;
use crate::io::Disk;
use crate::journal::{Reserve, Witness};

use super::{ContainerInput, Figures, SharedContainer, announce, start};

/// The witness is at most this old.
const TURN: Duration = Duration::from_millis(500);
/// Turns between two searches for reads that nobody waits for.
const SWEEP_TURNS: u64 = 10;

/// Owns the witness.
pub(crate) struct WitnessTask {
    pub(crate) disk: Arc<dyn Disk>,
    /// A sender is an order to end, and is told when that is done.
    pub(crate) inbox: Receiver<Sender<()>>,
    pub(crate) containers: Vec<Arc<SharedContainer>>,
    pub(crate) witness: Witness,
    pub(crate) reserve: Arc<Reserve>,
    pub(crate) figures: Arc<Figures>,
}

impl WitnessTask {
    pub(crate) fn start(self, fatal: OnFatal) -> JoinHandle<()> {
        start("witness".into(), fatal, move || self.run())
    }

    fn run(mut self) -> Result<(), StoreError> {
        // Not while the store is opened: clients need not wait for it.
        self.reserve.fill()?;
        announce(&self.reserve, &self.figures, &self.containers);
        for turn in 1_u64.. {
            match self.inbox.recv_timeout(TURN) {
                Ok(done) => {
                    self.testify()?;
                    let _ = done.send(());
                    return Ok(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            self.testify()?;
            if self.reserve.fill()? {
                self.reserve.prepare()?;
            }
            self.reserve.turn()?;
            announce(&self.reserve, &self.figures, &self.containers);
            if turn.is_multiple_of(SWEEP_TURNS) {
                for container in &self.containers {
                    container.send(ContainerInput::Sweep);
                }
            }
        }
        Ok(())
    }

    fn testify(&mut self) -> Result<(), StoreError> {
        match self.witness.testify(&*self.disk, self.figures.journal_frame.load(Relaxed)) {
            // An old witness is allowed; a full disk passes.
            Err(error) if error.is_full() => Ok(()),
            result => result,
        }
    }
}
