//! The journal's thread: group commit without a timer. While one commit is in the disk, the next collects.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::OnFatal;
use crate::backup::Pins;
use crate::container::Ack;
use crate::error::StoreError;
use crate::journal::{FRAME_BODY_BYTES, Journal, Record, Reserve};

use super::{Answer, ContainerInput, Figures, JournalInput, Lull, SharedContainer, announce, start};

/// How long a commit that found the disk full waits before it tries again.
const FULL_PAUSE: Duration = Duration::from_millis(500);

/// What one commit gathers.
#[derive(Default)]
struct Group {
    records: Vec<Record>,
    /// Each with its container.
    acks: VecDeque<(u32, Ack<Answer>)>,
    bytes: usize,
}

impl Group {
    fn add(&mut self, records: Vec<Record>, acks: Vec<Ack<Answer>>) {
        let container = records.first().expect("a container sends what it has").container;
        self.bytes += records.iter().map(Record::length).sum::<usize>();
        self.acks.extend(acks.into_iter().map(|ack| (container, ack)));
        if self.records.is_empty() { self.records = records } else { self.records.extend(records) }
    }
}

/// Owns the journal.
pub(crate) struct JournalTask {
    pub(crate) journal: Journal,
    pub(crate) inbox: Receiver<JournalInput>,
    /// Taken from the inbox while the disk was full.
    pub(crate) backlog: VecDeque<JournalInput>,
    pub(crate) containers: Vec<Arc<SharedContainer>>,
    /// Operations each container's durable checkpoint includes.
    pub(crate) covered: BTreeMap<u32, u64>,
    /// What was covered when each container was last asked for a checkpoint.
    pub(crate) asked: BTreeMap<u32, u64>,
    /// Keeps files from being released.
    pub(crate) pins: Arc<Pins>,
    pub(crate) reserve: Arc<Reserve>,
    /// Told of the end of each commit.
    pub(crate) lull: Arc<Lull>,
    pub(crate) figures: Arc<Figures>,
}

impl JournalTask {
    pub(crate) fn start(self, fatal: OnFatal) -> JoinHandle<()> {
        start("journal".into(), fatal, move || self.run())
    }

    fn run(mut self) -> Result<(), StoreError> {
        // A backup may have begun before this thread does.
        self.pins.unless_held(|| self.journal.release(&self.covered))?;
        self.ask_for_checkpoints();
        self.publish();
        while let Some(first) = self.next_input() {
            let mut group = Group::default();
            let mut close = None;
            let mut next = Some(first);
            while let Some(input) = next.take() {
                match input {
                    JournalInput::Records(records, acks) => group.add(records, acks),
                    JournalInput::Covered(container, sequence) => self.release(container, sequence)?,
                    JournalInput::Unpinned => self.pins.unless_held(|| self.journal.release(&self.covered))?,
                    JournalInput::Close(done) => {
                        close = Some(done);
                        break;
                    }
                }
                if group.bytes < FRAME_BODY_BYTES {
                    next = self.backlog.pop_front().or_else(|| self.inbox.try_recv().ok());
                }
            }
            let is_durable = self.commit(group)?;
            self.ask_for_checkpoints();
            if let Some(done) = close {
                match self.journal.close() {
                    // The next start has one frame to doubt, as after a crash.
                    Err(error) if error.is_full() => tracing::warn!(%error, "journal is left open"),
                    closed => closed?,
                }
                self.publish();
                let _ = done.send(());
                return Ok(());
            }
            if !is_durable {
                return Ok(());
            }
            self.publish();
        }
        Ok(())
    }

    /// Has the oldest file freed, once there are too many. Each container is asked once per file: asking again while its
    /// checkpoint is under way would change nothing.
    fn ask_for_checkpoints(&mut self) {
        if !self.journal.is_long() {
            return;
        }
        for container in self.journal.pinning(&self.covered) {
            let covered = self.covered.get(&container).copied().unwrap_or(0);
            if self.asked.insert(container, covered) != Some(covered) {
                self.containers[container as usize].send(ContainerInput::Checkpoint);
            }
        }
    }

    fn next_input(&mut self) -> Option<JournalInput> {
        self.backlog.pop_front().or_else(|| self.inbox.recv().ok())
    }

    fn release(&mut self, container: u32, sequence: u64) -> Result<(), StoreError> {
        self.covered.insert(container, sequence);
        self.pins.unless_held(|| self.journal.release(&self.covered))
    }

    /// Makes a group durable, tells its containers and gives its answers, however long a full disk delays it. False if
    /// the store was closed meanwhile: the rest was never acknowledged.
    fn commit(&mut self, group: Group) -> Result<bool, StoreError> {
        let Group { records, mut acks, .. } = group;
        let mut durable = BTreeMap::new();
        let mut rest = &records[..];
        while !rest.is_empty() {
            match self.journal.commit(rest) {
                Ok(count) => {
                    let (frame, later) = rest.split_at(count);
                    rest = later;
                    self.figures.journal_records.fetch_add(count as u64, Relaxed);
                    self.acknowledge(frame, &mut durable, &mut acks);
                    self.lull.begins();
                }
                Err(error) if error.is_full() => {
                    self.figures
                        .waits(&error, "disk is full, and the reserve is used up: everything that is written waits");
                    announce(&self.reserve, &self.figures, &self.containers);
                    // A checkpoint may free a file meanwhile; anything else keeps its place behind what waits.
                    match self.inbox.recv_timeout(FULL_PAUSE) {
                        Ok(JournalInput::Covered(container, sequence)) => self.release(container, sequence)?,
                        Ok(JournalInput::Unpinned) => {
                            self.pins.unless_held(|| self.journal.release(&self.covered))?;
                        }
                        Ok(JournalInput::Close(done)) => {
                            let _ = done.send(());
                            return Ok(false);
                        }
                        Ok(input) => self.backlog.push_back(input),
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => return Ok(false),
                    }
                }
                Err(error) => return Err(error),
            }
        }
        assert!(acks.is_empty(), "an answer waits for a record of its own group");
        Ok(true)
    }

    /// These records of a group are durable, and `durable` were before.
    fn acknowledge(
        &self,
        records: &[Record],
        durable: &mut BTreeMap<u32, u64>,
        acks: &mut VecDeque<(u32, Ack<Answer>)>,
    ) {
        let newest: BTreeMap<u32, u64> = records.iter().map(|record| (record.container, record.sequence)).collect();
        // The containers first: who hears an acknowledgement may ask at once, and has to find what was acknowledged. Both
        // stand in the container's inbox then, in this order.
        for (container, sequence) in &newest {
            self.containers[*container as usize].leave(ContainerInput::Durable(*sequence));
        }
        durable.extend(&newest);
        // In their order: one whose turn has come may wait for the next frame behind one whose turn has not.
        let is_due =
            |(container, ack): &mut (u32, Ack<Answer>)| durable.get(container).is_some_and(|last| ack.after <= *last);
        while let Some((_, ack)) = acks.pop_front_if(is_due) {
            ack.token.send(ack.outcome);
        }
        // Readers at the tail are next.
        for container in newest.keys() {
            self.containers[*container as usize].help();
        }
    }

    fn publish(&self) {
        announce(&self.reserve, &self.figures, &self.containers);
        self.figures.journal_syncs.store(self.journal.syncs, Relaxed);
        self.figures.journal_bytes.store(self.journal.bytes, Relaxed);
        self.figures.journal_files_bytes.store(self.journal.bytes_in_use(), Relaxed);
        self.figures.journal_frame.store(self.journal.synced(), Relaxed);
    }
}
