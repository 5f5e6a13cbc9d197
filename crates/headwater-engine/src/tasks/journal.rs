//! The journal's thread: group commit without a timer. While one commit is in the disk, the next collects.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::OnFatal;
use crate::error::StoreError;
use crate::journal::{FRAME_BODY_BYTES, Journal, Record};

use super::{ContainerInput, Figures, JournalInput, start};

/// How long a commit that found the disk full waits before it tries again.
const FULL_PAUSE: Duration = Duration::from_millis(500);

/// Owns the journal.
pub(crate) struct JournalTask {
    pub(crate) journal: Journal,
    pub(crate) inbox: Receiver<JournalInput>,
    /// Taken from the inbox while the disk was full.
    pub(crate) backlog: VecDeque<JournalInput>,
    pub(crate) containers: Vec<Sender<ContainerInput>>,
    /// Operations each container's durable checkpoint includes.
    pub(crate) covered: BTreeMap<u32, u64>,
    /// What was covered when each container was last asked for a checkpoint.
    pub(crate) asked: BTreeMap<u32, u64>,
    pub(crate) figures: Arc<Figures>,
}

impl JournalTask {
    pub(crate) fn start(self, fatal: OnFatal) -> JoinHandle<()> {
        start("journal".into(), fatal, move || self.run())
    }

    fn run(mut self) -> Result<(), StoreError> {
        self.journal.release(&self.covered)?;
        self.ask_for_checkpoints();
        self.publish();
        while let Some(first) = self.next_input() {
            let mut records: Vec<Record> = Vec::new();
            let mut bytes = 0;
            let mut close = None;
            let mut next = Some(first);
            while let Some(input) = next.take() {
                match input {
                    JournalInput::Records(more) => {
                        bytes += more.iter().map(Record::length).sum::<usize>();
                        if records.is_empty() { records = more } else { records.extend(more) }
                    }
                    JournalInput::Covered(container, sequence) => self.release(container, sequence)?,
                    JournalInput::Close(done) => {
                        close = Some(done);
                        break;
                    }
                }
                if bytes < FRAME_BODY_BYTES {
                    next = self.backlog.pop_front().or_else(|| self.inbox.try_recv().ok());
                }
            }
            let is_durable = self.commit(&records)?;
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
                let _ = self.containers[container as usize].send(ContainerInput::Checkpoint);
            }
        }
    }

    fn next_input(&mut self) -> Option<JournalInput> {
        self.backlog.pop_front().or_else(|| self.inbox.recv().ok())
    }

    fn release(&mut self, container: u32, sequence: u64) -> Result<(), StoreError> {
        self.covered.insert(container, sequence);
        self.journal.release(&self.covered)
    }

    /// Makes the records durable and tells their containers, however long a full disk delays it. False if the store was
    /// closed meanwhile: the rest was never acknowledged.
    fn commit(&mut self, records: &[Record]) -> Result<bool, StoreError> {
        let mut done = 0;
        while done < records.len() {
            let before = done;
            let result = self.journal.commit(&records[before..], &mut done);
            let mut durable = BTreeMap::new();
            for record in &records[before..done] {
                durable.insert(record.container, record.sequence);
            }
            for (container, sequence) in durable {
                let _ = self.containers[container as usize].send(ContainerInput::Durable(sequence));
            }
            self.figures.journal_records.fetch_add((done - before) as u64, Relaxed);
            match result {
                Ok(()) => {}
                Err(error) if error.is_full() => {
                    if self.figures.disk_full_waits.fetch_add(1, Relaxed).is_multiple_of(60) {
                        tracing::warn!(%error, "disk is full, writes wait");
                    }
                    // A checkpoint may free a file meanwhile; anything else keeps its place behind what waits.
                    match self.inbox.recv_timeout(FULL_PAUSE) {
                        Ok(JournalInput::Covered(container, sequence)) => self.release(container, sequence)?,
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
        Ok(true)
    }

    fn publish(&self) {
        self.figures.journal_syncs.store(self.journal.syncs, Relaxed);
        self.figures.journal_bytes.store(self.journal.bytes, Relaxed);
        self.figures.journal_files_bytes.store(self.journal.bytes_in_use(), Relaxed);
        self.figures.journal_frame.store(self.journal.synced(), Relaxed);
    }
}
