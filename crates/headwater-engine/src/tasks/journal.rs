//! The journal's thread: group commit without a timer. While one commit is in the disk, the next collects.
//!
//! ```text
//!   containers ─► group ─► frame ─┬─► written here ──────────────┬─► acknowledged
//!                                 └─► written by the other thread ┘
//!                                     while the next is put together here
//! ```
//!
//! A hand-over to another thread costs more than putting a small frame together, so it is for large ones.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::OnFatal;
use crate::backup::Pins;
use crate::container::Ack;
use crate::error::StoreError;
use crate::journal::{FRAME_BODY_BYTES, Frame, Journal, Record, Reserve};

use super::{Answer, ContainerInput, Figures, JournalInput, Lull, SharedContainer, announce, start};

/// How long a commit that found the disk full waits before it tries again.
const FULL_PAUSE: Duration = Duration::from_millis(500);

/// While a frame of at least this part of a journal file is written, the next is put together: 256 KiB, which take several
/// times as long to write as it takes to wake two threads.
const WORTH_SHARE: u64 = 128;
/// How often somebody looks meanwhile what there is to put together.
const LOOK_EVERY: Duration = Duration::from_micros(250);

/// What was collected and is in no frame yet.
#[derive(Default)]
pub(crate) struct Group {
    records: VecDeque<Record>,
    bytes: usize,
}

/// Writes frames, one at a time, on a thread of its own.
struct Writer {
    frames: Sender<Frame>,
    written: Receiver<(Frame, Result<(), StoreError>)>,
    is_busy: bool,
}

impl Writer {
    fn start(fatal: OnFatal) -> Self {
        let (frames, inbox) = channel::<Frame>();
        let (outbox, written) = channel();
        // It ends with this, and has nothing to do then.
        let _thread = start("journal-writer".into(), fatal, move || {
            for frame in inbox {
                let result = frame.write();
                // Who started this may have met an error of its own.
                let _ = outbox.send((frame, result));
            }
            Ok(())
        });
        Self { frames, written, is_busy: false }
    }

    /// The frame before was waited for.
    fn begin(&mut self, frame: Frame) {
        assert!(!self.is_busy, "one frame is written at a time");
        self.frames.send(frame).expect("the thread lives as long as this");
        self.is_busy = true;
    }

    /// Waits for the frame that was begun, at most so long.
    fn end_within(&mut self, patience: Duration) -> Result<Option<Frame>, StoreError> {
        match self.written.recv_timeout(patience) {
            Ok((frame, result)) => {
                self.is_busy = false;
                result.map(|()| Some(frame))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => panic!("the thread lives as long as this"),
        }
    }

    /// Waits for the frame that was begun.
    fn end(&mut self) -> Result<Frame, StoreError> {
        loop {
            if let Some(frame) = self.end_within(Duration::from_secs(1))? {
                return Ok(frame);
            }
        }
    }
}

/// Owns the journal.
pub(crate) struct JournalTask {
    pub(crate) journal: Journal,
    pub(crate) inbox: Receiver<JournalInput>,
    /// Taken from the inbox while the disk was full.
    pub(crate) backlog: VecDeque<JournalInput>,
    pub(crate) group: Group,
    /// Answers that wait for what is collected or in a frame, each with its container.
    pub(crate) acks: VecDeque<(u32, Ack<Answer>)>,
    /// Newest operation of each container that was made durable in this run.
    pub(crate) durable: BTreeMap<u32, u64>,
    /// Set when everything that is collected is to be the last.
    pub(crate) close: Option<Sender<()>>,
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
        start("journal".into(), fatal.clone(), move || self.run(Writer::start(fatal)))
    }

    fn run(mut self, mut writer: Writer) -> Result<(), StoreError> {
        // A backup may have begun before this thread does.
        self.pins.unless_held(|| self.journal.release(&self.covered))?;
        self.ask_for_checkpoints();
        self.publish();
        loop {
            if self.group.records.is_empty() && !writer.is_busy {
                match self.next_input() {
                    Some(input) => self.take(input)?,
                    None => return Ok(()),
                }
            }
            if !self.collect(&mut writer)? {
                return Ok(());
            }
            while writer.is_busy {
                if let Some(frame) = writer.end_within(LOOK_EVERY)? {
                    self.landed(frame);
                }
                // What has come meanwhile goes with the next frame, if there is room in it.
                if !self.collect(&mut writer)? {
                    return Ok(());
                }
            }
            if let Some(frame) = self.journal.close_frame() {
                if frame.length() >= self.journal.file_bytes() / WORTH_SHARE {
                    writer.begin(frame);
                } else {
                    frame.write()?;
                    self.landed(frame);
                }
            }
            self.ask_for_checkpoints();
            self.publish();
            if self.group.records.is_empty()
                && !writer.is_busy
                && let Some(done) = self.close.take()
            {
                match self.journal.close() {
                    // The next start has one frame to doubt, as after a crash.
                    Err(error) if error.is_full() => tracing::warn!(%error, "journal is left open"),
                    closed => closed?,
                }
                self.publish();
                let _ = done.send(());
                return Ok(());
            }
        }
    }

    /// Puts what is there into the next frame, and of what it does not take collects as much as one frame takes. False if the
    /// store was closed meanwhile.
    fn collect(&mut self, writer: &mut Writer) -> Result<bool, StoreError> {
        self.gather()?;
        let goes_on = self.fill(writer)?;
        if !self.group.records.is_empty() {
            self.gather()?;
        }
        Ok(goes_on)
    }

    /// Collects what is there, as much as one frame takes.
    fn gather(&mut self) -> Result<(), StoreError> {
        while self.group.bytes < FRAME_BODY_BYTES && self.close.is_none() {
            let Some(input) = self.backlog.pop_front().or_else(|| self.inbox.try_recv().ok()) else { break };
            self.take(input)?;
        }
        Ok(())
    }

    fn take(&mut self, input: JournalInput) -> Result<(), StoreError> {
        match input {
            JournalInput::Records(records, acks) => {
                let container = records.first().expect("a container sends what it has").container;
                self.group.bytes += records.iter().map(Record::length).sum::<usize>();
                self.group.records.extend(records);
                self.acks.extend(acks.into_iter().map(|ack| (container, ack)));
            }
            JournalInput::Covered(container, sequence) => self.release(container, sequence)?,
            JournalInput::Unpinned => self.pins.unless_held(|| self.journal.release(&self.covered))?,
            JournalInput::Close(done) => self.close = Some(done),
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

    /// Puts what was collected into the next frame, as much as it takes, however long a full disk delays that. False if the
    /// store was closed meanwhile: the rest was never acknowledged.
    fn fill(&mut self, writer: &mut Writer) -> Result<bool, StoreError> {
        loop {
            if writer.is_busy && self.group.records.front().is_some_and(|first| self.journal.needs_file(first)) {
                self.land(writer)?;
            }
            match self.journal.add(&self.group.records) {
                Ok(count) => {
                    let taken = self.group.records.drain(..count).map(|record| record.length());
                    self.group.bytes -= taken.sum::<usize>();
                    return Ok(true);
                }
                Err(error) if error.is_full() => {
                    self.figures
                        .waits(&error, "disk is full, and the reserve is used up: everything that is written waits");
                    // However long it waits, what has landed is to be seen.
                    self.publish();
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
    }

    /// Waits for the frame that is being written, if there is one.
    fn land(&mut self, writer: &mut Writer) -> Result<(), StoreError> {
        if writer.is_busy {
            let frame = writer.end()?;
            self.landed(frame);
        }
        Ok(())
    }

    /// A frame is durable: tells its containers and gives the answers that waited for it.
    fn landed(&mut self, frame: Frame) {
        let newest = frame.newest.clone();
        self.figures.journal_records.fetch_add(frame.records as u64, Relaxed);
        self.journal.wrote(frame);
        // The containers first: who hears an acknowledgement may ask at once, and has to find what was acknowledged. Both
        // stand in the container's inbox then, in this order.
        for (container, sequence) in &newest {
            self.containers[*container as usize].leave(ContainerInput::Durable(*sequence));
        }
        self.durable.extend(&newest);
        // In their order: one whose turn has come may wait for the next frame behind one whose turn has not.
        let durable = &self.durable;
        let is_due =
            |(container, ack): &mut (u32, Ack<Answer>)| durable.get(container).is_some_and(|last| ack.after <= *last);
        while let Some((_, ack)) = self.acks.pop_front_if(is_due) {
            ack.token.send(ack.outcome);
        }
        // Readers at the tail are next.
        for container in newest.keys() {
            self.containers[*container as usize].help();
        }
        self.lull.begins();
    }

    fn publish(&self) {
        announce(&self.reserve, &self.figures, &self.containers);
        self.figures.journal_syncs.store(self.journal.syncs, Relaxed);
        self.figures.journal_bytes.store(self.journal.bytes, Relaxed);
        self.figures.journal_files_bytes.store(self.journal.bytes_in_use(), Relaxed);
        self.figures.journal_frame.store(self.journal.synced(), Relaxed);
    }
}
