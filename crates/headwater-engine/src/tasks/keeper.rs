//! The keeper's thread: checkpoints, and their copies in the bucket. Nothing here is waited for by a client, unless memory
//! runs out of room for what has not been written.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::OnFatal;
use crate::bucket::Afterwards;
use crate::catalogue::Manifest;
use crate::chunks::Chunks;
use crate::container::CheckpointJob;
use crate::error::StoreError;
use crate::io::{Clock, Disk};

use super::{ContainerInput, Figures, KeeperInput, SharedContainer, start};

/// Pause after a checkpoint that found the disk full or object storage away.
const TURN: Duration = Duration::from_millis(500);
/// Between two writes of about a mebibyte to a chunk while there is time: bursts delay the journal's commits.
const WRITE_PAUSE: Duration = Duration::from_millis(4);

/// Owns the manifests.
pub(crate) struct KeeperTask {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) inbox: Receiver<KeeperInput>,
    pub(crate) containers: Vec<Arc<SharedContainer>>,
    pub(crate) chunks: Vec<Arc<Chunks>>,
    pub(crate) manifests: Vec<Manifest>,
    pub(crate) afterwards: Afterwards,
    /// Bytes that are in no chunk, of all containers, at which writes wait.
    pub(crate) unstored_bytes_max: u64,
    /// Bytes stay in no chunk for about this long at most.
    pub(crate) flush_age: Duration,
    pub(crate) figures: Arc<Figures>,
}

impl KeeperTask {
    pub(crate) fn start(self, fatal: OnFatal) -> JoinHandle<()> {
        start("keeper".into(), fatal, move || self.run())
    }

    fn run(mut self) -> Result<(), StoreError> {
        let mut flushed = self.clock.monotonic();
        loop {
            match self.inbox.recv_timeout(TURN) {
                Ok(KeeperInput::Checkpoint(job)) => {
                    if let Some(closed) = self.checkpoint(*job)? {
                        let _ = closed.send(());
                        return Ok(());
                    }
                }
                Ok(KeeperInput::Close(done)) => {
                    let _ = done.send(());
                    return Ok(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            self.settle()?;
            let now = self.clock.monotonic();
            if now.saturating_sub(flushed) >= self.flush_age {
                flushed = now;
                // All at about the same time: what an emptied disk gets back fits together best then.
                for container in &self.containers {
                    container.send(ContainerInput::Checkpoint);
                }
            }
        }
    }

    /// Writes a checkpoint, however long a full disk or absent storage delays it, unless the store is closed meanwhile.
    fn checkpoint(&mut self, mut job: CheckpointJob) -> Result<Option<Sender<()>>, StoreError> {
        let container = job.container as usize;
        let mut others = Vec::new();
        let figures = self.figures.clone();
        let pace = Pace::new();
        let mut pause = || {
            let unstored: u64 = figures.containers.iter().map(|one| one.unstored_bytes.load(Relaxed)).sum();
            pace.wait(unstored, self.unstored_bytes_max);
        };
        loop {
            match job.run(&*self.disk, &mut self.manifests[container], &self.chunks[container], &mut pause) {
                Ok(done) => {
                    self.figures.checkpoints.fetch_add(1, Relaxed);
                    self.afterwards.checkpointed(job.container, job.take_dead_chunks(), &self.chunks[container]);
                    self.containers[container].send(ContainerInput::CheckpointDone(Box::new(done)));
                    break;
                }
                Err(error) if error.is_passing() => {
                    self.figures.waits(&error, "a checkpoint waits");
                    match self.inbox.recv_timeout(TURN) {
                        Ok(KeeperInput::Checkpoint(job)) => others.push(*job),
                        Ok(KeeperInput::Close(done)) => return Ok(Some(done)),
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => return Ok(None),
                    }
                }
                Err(error) => return Err(error),
            }
        }
        for job in others {
            if let Some(closed) = self.checkpoint(job)? {
                return Ok(Some(closed));
            }
        }
        Ok(None)
    }

    fn settle(&mut self) -> Result<(), StoreError> {
        let settled = self.afterwards.settle(&*self.disk, self.clock.wall_millis(), &self.chunks);
        self.figures.copies_due.store(self.afterwards.due(), Relaxed);
        match settled {
            Err(error) if error.is_passing() => {
                self.figures.waits(&error, "the copy of a catalogue waits");
                Ok(())
            }
            settled => settled,
        }
    }
}

/// Slows writing down while there is time, so that commits notice little of it.
struct Pace {
    /// Waiting is waiting for what nobody sends.
    never: (Sender<()>, Receiver<()>),
}

impl Pace {
    fn new() -> Self {
        Self { never: channel() }
    }

    fn wait(&self, unstored: u64, unstored_max: u64) {
        let pause = pause(unstored, unstored_max);
        if !pause.is_zero() {
            let _ = self.never.1.recv_timeout(pause);
        }
    }
}

/// Shorter the more there is to be written; none from half of what memory may hold on.
fn pause(unstored: u64, unstored_max: u64) -> Duration {
    let rest = (unstored_max / 2).saturating_sub(unstored);
    WRITE_PAUSE.mul_f64(rest as f64 / (unstored_max / 2).max(1) as f64)
}

#[test]
fn writing_hurries_as_memory_fills_up() {
    assert_eq!(pause(0, 100), WRITE_PAUSE);
    assert_eq!(pause(25, 100), WRITE_PAUSE / 2);
    assert_eq!(pause(50, 100), Duration::ZERO);
    assert_eq!(pause(1000, 100), Duration::ZERO);
    assert_eq!(pause(0, 0), Duration::ZERO);
}
