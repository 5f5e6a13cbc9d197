//! The keeper's thread: checkpoints, zero-filled journal files, the witness. Nothing here is waited for by a client.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::OnFatal;
use crate::catalogue::Manifest;
use crate::chunks::Chunks;
use crate::container::CheckpointJob;
use crate::error::StoreError;
use crate::io::Disk;
use crate::journal::{self, Spares, Witness};

use super::{ContainerInput, Figures, KeeperInput, Merges, SharedContainer, start};

/// The witness is at most this old; also the pause after a checkpoint that found the disk full.
const TURN: Duration = Duration::from_millis(500);

/// Slices of merges between two looks at the inbox: merges keep pace with checkpoints, and these do not wait long.
const SLICES_PER_TURN: usize = 4;
/// Looks at the inbox while there is something to merge, until the rest has its turn: about half a second.
const MERGING_TURNS: u64 = 16;

/// Turns between two searches for reads that nobody waits for.
const SWEEP_TURNS: u64 = 10;

/// Owns the manifests and the witness.
pub(crate) struct KeeperTask {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) inbox: Receiver<KeeperInput>,
    pub(crate) containers: Vec<Arc<SharedContainer>>,
    pub(crate) chunks: Vec<Arc<Chunks>>,
    pub(crate) manifests: Vec<Manifest>,
    pub(crate) merges: Merges,
    pub(crate) witness: Witness,
    pub(crate) spares: Spares,
    pub(crate) journal_file_bytes: u64,
    /// First number for a spare file of this run.
    pub(crate) first_spare: u64,
    pub(crate) figures: Arc<Figures>,
}

impl KeeperTask {
    pub(crate) fn start(self, fatal: OnFatal) -> JoinHandle<()> {
        start("keeper".into(), fatal, move || self.run())
    }

    fn run(mut self) -> Result<(), StoreError> {
        let mut spare = self.first_spare;
        let mut turns = 0_u64;
        let mut merging = true;
        let mut merged = 0_u64;
        loop {
            // Between two slices of a merge whatever else there is goes first.
            let pause = if merging { Duration::ZERO } else { TURN };
            match self.inbox.recv_timeout(pause) {
                Ok(KeeperInput::Checkpoint(job)) => {
                    if let Some(closed) = self.checkpoint(*job)? {
                        return self.close(&closed);
                    }
                    merging = self.merge_some()?;
                }
                Ok(KeeperInput::Close(done)) => return self.close(&done),
                Err(RecvTimeoutError::Timeout) if merging => {
                    merging = self.merge_some()?;
                    merged += 1;
                    if !merged.is_multiple_of(MERGING_TURNS) {
                        continue;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    spare += 1;
                    match journal::prepare_spare(&*self.disk, &self.spares, self.journal_file_bytes, spare) {
                        Err(error) if !error.is_full() => return Err(error),
                        _ => {}
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            self.testify()?;
            turns += 1;
            if turns.is_multiple_of(SWEEP_TURNS) {
                for container in &self.containers {
                    container.send(ContainerInput::Sweep);
                }
            }
        }
    }

    /// A few slices of merges; false if there are none to do.
    fn merge_some(&mut self) -> Result<bool, StoreError> {
        for _ in 0..SLICES_PER_TURN {
            if !self.merges.slice(&*self.disk, &mut self.manifests, &self.containers, &self.figures)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes a checkpoint, however long a full disk delays it, unless the store is closed meanwhile.
    fn checkpoint(&mut self, mut job: CheckpointJob) -> Result<Option<Sender<()>>, StoreError> {
        let container = job.container as usize;
        let mut others = Vec::new();
        loop {
            match job.run(&*self.disk, &mut self.manifests[container], &self.chunks[container], &mut || ()) {
                Ok(done) => {
                    self.figures.checkpoints.fetch_add(1, Relaxed);
                    self.merges.ask(container);
                    self.containers[container].send(ContainerInput::CheckpointDone(Box::new(done)));
                    break;
                }
                Err(error) if error.is_full() => {
                    if self.figures.disk_full_waits.fetch_add(1, Relaxed).is_multiple_of(60) {
                        tracing::warn!(%error, "disk is full, a checkpoint waits");
                    }
                    self.testify()?;
                    match self.inbox.recv_timeout(TURN) {
                        Ok(KeeperInput::Checkpoint(job)) => others.push(*job),
                        Ok(KeeperInput::Close(done)) => return Ok(Some(done)),
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => return Ok(None),
                    }
                }
                Err(error) => return Err(error),
            }
            self.testify()?;
        }
        for job in others {
            if let Some(closed) = self.checkpoint(job)? {
                return Ok(Some(closed));
            }
        }
        Ok(None)
    }

    fn close(&mut self, done: &Sender<()>) -> Result<(), StoreError> {
        self.testify()?;
        let _ = done.send(());
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
