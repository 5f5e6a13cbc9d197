//! The keeper's thread: checkpoints, and their copies in the bucket. Nothing here is waited for by a client, unless memory
//! runs out of room for what has not been written.

use std::collections::VecDeque;
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
use crate::journal::Reserve;

use super::{ContainerInput, Figures, KeeperInput, Lull, Merges, SharedContainer, announce, start};

/// Pause after a checkpoint that found the disk full or object storage away.
const TURN: Duration = Duration::from_millis(500);
/// Between two writes of about a mebibyte to a chunk while there is time: bursts delay the journal's commits. The second half
/// of it ends as soon as a commit does.
const WRITE_PAUSE: Duration = Duration::from_millis(4);

/// Slices of merges between two looks at the inbox: merges keep pace with checkpoints, and these do not wait long.
const SLICES_PER_TURN: usize = 4;
/// Looks at the inbox while there is something to merge, until the rest has its turn: about half a second.
const MERGING_TURNS: u64 = 16;

/// Owns the manifests.
pub(crate) struct KeeperTask {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) inbox: Receiver<KeeperInput>,
    pub(crate) containers: Vec<Arc<SharedContainer>>,
    pub(crate) chunks: Vec<Arc<Chunks>>,
    pub(crate) manifests: Vec<Manifest>,
    pub(crate) merges: Merges,
    pub(crate) afterwards: Afterwards,
    /// Bytes of a container that are in no chunk at which its checkpoint begins.
    pub(crate) flush_bytes: u64,
    /// Bytes stay in no chunk for about this long at most.
    pub(crate) flush_age: Duration,
    pub(crate) lull: Arc<Lull>,
    pub(crate) reserve: Arc<Reserve>,
    pub(crate) figures: Arc<Figures>,
}

impl KeeperTask {
    pub(crate) fn start(self, fatal: OnFatal) -> JoinHandle<()> {
        start("keeper".into(), fatal, move || self.run())
    }

    fn run(mut self) -> Result<(), StoreError> {
        let mut flushed = self.clock.monotonic();
        let mut merging = true;
        let mut merged = 0_u64;
        loop {
            // Between two slices of a merge whatever else there is goes first.
            let pause = if merging { Duration::ZERO } else { TURN };
            match self.inbox.recv_timeout(pause) {
                Ok(KeeperInput::Checkpoint(job)) => {
                    if let Some(closed) = self.checkpoint(*job)? {
                        let _ = closed.send(());
                        return Ok(());
                    }
                    merging = self.merge_some()?;
                }
                Ok(KeeperInput::Close(done)) => {
                    let _ = done.send(());
                    return Ok(());
                }
                Err(RecvTimeoutError::Timeout) if merging => {
                    merging = self.merge_some()?;
                    merged += 1;
                    if !merged.is_multiple_of(MERGING_TURNS) {
                        continue;
                    }
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

    /// A few slices of merges; false if there are none to do.
    fn merge_some(&mut self) -> Result<bool, StoreError> {
        for _ in 0..SLICES_PER_TURN {
            if !self.merges.slice(&*self.disk, &mut self.manifests, &self.containers, &self.figures)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes a checkpoint, however long a full disk or absent storage delays it, unless the store is closed meanwhile.
    fn checkpoint(&mut self, first: CheckpointJob) -> Result<Option<Sender<()>>, StoreError> {
        let mut jobs = VecDeque::from([first]);
        let figures = self.figures.clone();
        let pace = Pace::new(self.lull.clone());
        let mut pause = || {
            let unstored = figures.containers.iter().map(|one| one.unstored_bytes.load(Relaxed)).max();
            pace.wait(unstored.unwrap_or(0), self.flush_bytes);
        };
        while let Some(mut job) = jobs.pop_front() {
            let container = job.container as usize;
            match job.run(&*self.disk, &mut self.manifests[container], &self.chunks[container], &mut pause) {
                Ok(done) => {
                    self.reserve.helped();
                    self.figures.checkpoints.fetch_add(1, Relaxed);
                    self.afterwards.checkpointed(job.container, job.take_dead_chunks(), &self.chunks[container]);
                    self.merges.ask(container);
                    self.containers[container].send(ContainerInput::CheckpointDone(Box::new(done)));
                }
                Err(error) if error.is_passing() => {
                    let is_lent = error.is_full() && self.reserve.lend()?;
                    announce(&self.reserve, &self.figures, &self.containers);
                    if is_lent {
                        self.figures.disk_full_waits.fetch_add(1, Relaxed);
                        jobs.push_front(job);
                        continue;
                    }
                    // Another container's may be smaller, or free more.
                    jobs.push_back(job);
                    self.figures.waits(&error, "a checkpoint waits");
                    match self.inbox.recv_timeout(TURN) {
                        Ok(KeeperInput::Checkpoint(job)) => jobs.push_front(*job),
                        Ok(KeeperInput::Close(done)) => return Ok(Some(done)),
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => return Ok(None),
                    }
                }
                Err(error) => return Err(error),
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
    lull: Arc<Lull>,
}

impl Pace {
    fn new(lull: Arc<Lull>) -> Self {
        Self { never: channel(), lull }
    }

    fn wait(&self, unstored: u64, flush_bytes: u64) {
        let pause = pause(unstored, flush_bytes);
        if !pause.is_zero() {
            let _ = self.never.1.recv_timeout(pause / 2);
            self.lull.wait(pause / 2);
        }
    }
}

/// Shorter the more of the next part has been collected while this one is written, `unstored` being that of the fullest
/// container; none once the next part is complete, since from there on memory and the journal would grow.
fn pause(unstored: u64, flush_bytes: u64) -> Duration {
    let rest = (2 * flush_bytes).saturating_sub(unstored).min(flush_bytes);
    WRITE_PAUSE.mul_f64(rest as f64 / flush_bytes.max(1) as f64)
}

#[test]
fn writing_hurries_as_the_next_part_fills_up() {
    assert_eq!(pause(0, 100), WRITE_PAUSE);
    assert_eq!(pause(100, 100), WRITE_PAUSE);
    assert_eq!(pause(150, 100), WRITE_PAUSE / 2);
    assert_eq!(pause(200, 100), Duration::ZERO);
    assert_eq!(pause(1000, 100), Duration::ZERO);
    assert_eq!(pause(0, 0), Duration::ZERO);
}
