//! The journal: everything the store promised and has not yet put elsewhere.
//!
//! ```text
//!   containers ─► records ─► one frame ─► write ─► sync ─► durable
//! ```
//!
//! Files of fixed length are filled frame by frame; a frame holds the records of one group commit and is written only
//! after the frame before it is durable. It may be put together before that ([`Journal::add`]): while one frame is in
//! the disk, the processor has the next to copy and to sum. Files whose records all live elsewhere are recycled.
//!
//! Invariants:
//! * frames are numbered without gaps, and a frame is durable before the next is written ([`Frame::write`])
//! * a file is taken into use when all frames before it are durable: its header says so
//! * after a failed write or sync nothing more is written: the error ends the store
//! * there is room for what frees room, also on a full disk ([`reserve`])
//! * a file is recycled only when every container's checkpoint covers it, and the checkpoint is durable
//! * after opening, every record that was replayed is durable *again* in a file of this run: what a failed sync left
//!   readable in the page cache only cannot be served and lost later ([`recovery`])
//!
//! Not here: what a record means (`container`).

mod format;
mod recovery;
mod reserve;
#[cfg(test)]
mod tests;
mod witness;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::canary;
use crate::error::{IoContext, StoreError};
use crate::io::{BlockBuffer, Disk, File};
use format::{BLOCK_BYTES, FileHeader, FrameHead, FrameKind, HEAD_BYTES, Mark, span};
pub(crate) use recovery::{JournalState, Replayed, ends, leftovers, verify, verify_idle};
pub(crate) use reserve::Reserve;
pub(crate) use witness::{PATH as WITNESS_PATH, Slots, Witness, testimony};

/// Directory of the journal's files.
pub(crate) const DIRECTORY: &str = "journal";
/// Length of a file, in bytes. Two of the largest records fit; small enough that recycling is steady.
pub(crate) const FILE_BYTES: u64 = 32 << 20;
/// More files than this are not left for a restart to read.
const FILES_WANTED: usize = 6;
/// A frame is closed once its body reaches this, so that one slow commit does not delay everybody: with 2 MiB, four
/// writers that fill the journal wait three times as long now and then (p99).
pub(crate) const FRAME_BODY_BYTES: usize = 3 << 19;
/// Largest record a file of this length takes: a whole wire frame and its bookkeeping fit into [`FILE_BYTES`].
pub(crate) const fn record_bytes_max(file_bytes: u64) -> usize {
    (file_bytes - 2 * BLOCK_BYTES) as usize - HEAD_BYTES
}

/// Parts of a file that a start may pass over one by one; see [`Mark`].
const PARTS: u64 = 16;

/// Memory of a frame up to this is kept for the next.
const BUFFER_BYTES_MAX: usize = 4 << 20;
/// So much is still in the processor's caches when it was copied.
const NEAR_BYTES: usize = 64 << 10;
/// A body begins with how many records it has.
const COUNT_BYTES: usize = 4;
/// Fixed part of a record inside a frame: container, sequence and two lengths.
const RECORD_HEAD_BYTES: usize = 4 + 8 + 4 + 4;
/// One operation of one container, on its way to the disk.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// Whose.
    pub(crate) container: u32,
    /// Counts the container's operations, without gaps.
    pub(crate) sequence: u64,
    /// The operation.
    pub(crate) operation: Vec<u8>,
    /// Bulk bytes that belong to it.
    pub(crate) payload: Bytes,
}

impl Record {
    pub(crate) fn length(&self) -> usize {
        RECORD_HEAD_BYTES + self.operation.len() + self.payload.len()
    }
}

/// The open journal.
pub(crate) struct Journal {
    disk: Arc<dyn Disk>,
    store: u128,
    file_bytes: u64,
    current: Current,
    /// Files in use, oldest first, the current one last.
    files: VecDeque<UsedFile>,
    reserve: Arc<Reserve>,
    next_frame: u64,
    /// Number of the newest durable frame.
    synced: u64,
    /// Body checksum of the newest frame.
    last_sum: u32,
    /// The next frame, as far as it has been put together.
    open: Option<OpenFrame>,
    /// Memory of frames that were written, to be used again.
    buffers: Vec<BlockBuffer>,
    pub(crate) syncs: u64,
    pub(crate) bytes: u64,
    /// Bytes found behind the last frame that was ever acknowledged when the journal was opened.
    pub(crate) discarded_bytes: u64,
    /// Bytes of the frames found then, from the first with a record that no checkpoint had to the last.
    pub(crate) replayed_bytes: u64,
}

/// Records in the form in which they are written, and where that is.
pub(crate) struct Frame {
    path: String,
    file: Arc<dyn File>,
    position: u64,
    number: u64,
    bytes: BlockBuffer,
    /// How many there are.
    pub(crate) records: usize,
    /// Highest sequence of each container among them.
    pub(crate) newest: BTreeMap<u32, u64>,
}

impl Frame {
    /// Bytes that are written.
    pub(crate) fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Makes it durable. The frame before it must be durable already; [`Journal::wrote`] follows.
    ///
    /// # Errors
    /// Final: whether the frame is durable is unknown until the journal is opened again.
    pub(crate) fn write(&self) -> Result<(), StoreError> {
        let Self { path, file, position, .. } = self;
        // Not "write": room was allocated, so a disk that finds itself full here has broken its word.
        let bytes = self.bytes.as_slice();
        let written =
            if canary::is(1) { file.write_at(*position, bytes) } else { file.write_durable(*position, bytes) };
        let written = if canary::is(4) { Ok(()) } else { written };
        let written = if canary::is(5) { written.or_else(|_| file.sync()) } else { written };
        written.on(path, "write a frame")
    }
}

struct Current {
    path: String,
    file: Arc<dyn File>,
    header: FileHeader,
    position: u64,
}

#[derive(Debug)]
struct UsedFile {
    number: u64,
    /// Highest sequence of each container in this file.
    newest: BTreeMap<u32, u64>,
    /// Places in it, of this run of the store.
    marks: Vec<Mark>,
}

impl Journal {
    /// Makes the first of these records durable, as many as one frame takes, and says how many.
    ///
    /// # Errors
    /// As [`add`](Self::add) and [`Frame::write`].
    pub(crate) fn commit(&mut self, records: &[Record]) -> Result<usize, StoreError> {
        let count = self.add(records)?;
        if let Some(frame) = self.close_frame() {
            frame.write()?;
            self.wrote(frame);
        }
        Ok(count)
    }

    /// Copies the first of these records into the frame that is open, as many as it takes, and says how many: all the same
    /// if there is none yet, and then at least one. A full disk shows when a file is taken into use, never when a frame is
    /// written: files are allocated whole.
    ///
    /// Whoever opens a frame before another was written has to know that it [needs no file](Self::needs_file).
    ///
    /// # Errors
    /// [`StoreError::is_full`]: nothing was done, the same may be tried again later. Any other error is final.
    pub(crate) fn add<'a>(&mut self, records: impl IntoIterator<Item = &'a Record>) -> Result<usize, StoreError> {
        let mut records = records.into_iter().peekable();
        let mut open = match (self.open.take(), records.peek()) {
            (Some(open), _) => open,
            (None, None) => return Ok(0),
            (None, Some(first)) => {
                self.make_room(COUNT_BYTES + first.length())?;
                OpenFrame::new(self.buffers.pop().unwrap_or_default())
            }
        };
        let room = self.file_bytes - self.current.position;
        let before = open.records;
        for record in records {
            assert!(record.length() <= record_bytes_max(self.file_bytes), "containers refuse what no record can hold");
            let body = open.body_bytes() + record.length();
            if open.records > 0 && (body > FRAME_BODY_BYTES || span(body) > room) {
                break;
            }
            open.add(record);
        }
        let count = open.records - before;
        self.open = Some(open);
        Ok(count)
    }

    /// Whether a frame that begins with this record does not fit into the current file.
    pub(crate) fn needs_file(&self, first: &Record) -> bool {
        self.open.is_none() && self.current.position + span(COUNT_BYTES + first.length()) > self.file_bytes
    }

    /// The frame that was open, ready to be written; `None` if there was none.
    pub(crate) fn close_frame(&mut self) -> Option<Frame> {
        let OpenFrame { mut buffer, sum, records, newest } = self.open.take()?;
        let count = (records as u32).to_be_bytes();
        buffer.as_mut_slice()[HEAD_BYTES..HEAD_BYTES + COUNT_BYTES].copy_from_slice(&count);
        // The count stands first and is known last. To join two sums takes as long as to sum some ten thousand bytes.
        let body = &buffer.as_slice()[HEAD_BYTES..];
        let sum = if body.len() <= NEAR_BYTES {
            crc32c::crc32c(body)
        } else {
            crc32c::crc32c_combine(crc32c::crc32c(&count), sum, body.len() - COUNT_BYTES)
        };
        let used = self.files.back_mut().expect("the current file is in use");
        used.mark(self.current.position, self.next_frame, self.last_sum, self.file_bytes / PARTS);
        used.newest.extend(&newest);
        Some(self.frame(FrameKind::Records, buffer, sum, records, newest))
    }

    /// The frame is durable.
    pub(crate) fn wrote(&mut self, frame: Frame) {
        assert_eq!(frame.number, self.synced + 1, "frames become durable in their order");
        self.synced = frame.number;
        self.syncs += 1;
        self.bytes += frame.length();
        // That of a few large records is given back.
        if frame.bytes.len() <= BUFFER_BYTES_MAX {
            self.buffers.push(frame.bytes);
        }
    }

    /// Makes all of these records durable, in as many frames as it takes.
    ///
    /// # Errors
    /// As [`commit`](Self::commit); some may be durable.
    pub(crate) fn commit_all(&mut self, mut records: &[Record]) -> Result<(), StoreError> {
        while !records.is_empty() {
            records = &records[self.commit(records)?..];
        }
        Ok(())
    }

    /// Writes the frame that says nothing was under way. Afterwards any damage is known to be damage.
    pub(crate) fn close(&mut self) -> Result<(), StoreError> {
        self.make_room(0)?;
        let mut bytes = self.buffers.pop().unwrap_or_default();
        bytes.clear();
        bytes.resize(HEAD_BYTES);
        let frame = self.frame(FrameKind::Close, bytes, crc32c::crc32c(&[]), 0, BTreeMap::new());
        frame.write()?;
        self.wrote(frame);
        Ok(())
    }

    /// Number of the newest durable frame.
    pub(crate) fn synced(&self) -> u64 {
        self.synced
    }

    /// Whether so many files are in use that containers are to be asked for checkpoints.
    pub(crate) fn is_long(&self) -> bool {
        self.files.len() > FILES_WANTED
    }

    /// Length of every file.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Bytes of disk the files in use take up.
    pub(crate) fn bytes_in_use(&self) -> u64 {
        self.files.len() as u64 * self.file_bytes
    }

    /// Containers whose checkpoint would free the oldest file, if there is a file besides the current one. Files that
    /// are free already were released before.
    pub(crate) fn pinning(&self, covered: &BTreeMap<u32, u64>) -> Vec<u32> {
        if self.files.len() < 2 { Vec::new() } else { self.files[0].uncovered(covered).collect() }
    }

    /// Recycles the oldest files whose records are all covered. `covered`: per container, the sequence that its durable
    /// checkpoint includes.
    pub(crate) fn release(&mut self, covered: &BTreeMap<u32, u64>) -> Result<(), StoreError> {
        while self.files.len() > 1 {
            let oldest = &self.files[0];
            if oldest.uncovered(covered).next().is_some() && !canary::is(29) {
                break;
            }
            let path = path_of(oldest.number);
            // The new name must be durable before the header is overwritten: a file never carries the name of one number
            // and the header of another.
            let spare = format!("{DIRECTORY}/spare-{:016}", oldest.number);
            self.disk.rename(&path, &spare).on(&path, "set aside")?;
            if !canary::is(35) {
                self.disk.sync_directory(DIRECTORY).on(DIRECTORY, "sync")?;
            }
            self.reserve.put_back(spare);
            self.files.pop_front();
            self.reserve.uses(self.files.len());
        }
        Ok(())
    }

    /// The next frame, of a body that stands behind room for its head. Room for it was made.
    fn frame(
        &mut self,
        kind: FrameKind,
        mut bytes: BlockBuffer,
        body_sum: u32,
        records: usize,
        newest: BTreeMap<u32, u64>,
    ) -> Frame {
        let head = FrameHead {
            kind,
            file: self.current.header.file,
            store: self.store,
            frame: self.next_frame,
            // It is, when this is written.
            synced: self.next_frame - 1,
            previous_sum: self.last_sum,
            body_length: (bytes.len() - HEAD_BYTES) as u32,
            body_sum,
        };
        head.encode(&mut bytes.as_mut_slice()[..HEAD_BYTES]);
        bytes.resize(head.span() as usize);
        let Current { path, file, position, .. } = &mut self.current;
        assert!(*position + head.span() <= self.file_bytes, "room was made for the frame");
        let frame = Frame {
            path: path.clone(),
            file: file.clone(),
            position: *position,
            number: self.next_frame,
            bytes,
            records,
            newest,
        };
        *position += head.span();
        self.next_frame += 1;
        self.last_sum = head.body_sum;
        frame
    }

    /// Moves on to the next file if a frame with this body would not fit in the current one.
    fn make_room(&mut self, body_length: usize) -> Result<(), StoreError> {
        if self.current.position + span(body_length) <= self.file_bytes {
            return Ok(());
        }
        assert_eq!(self.synced + 1, self.next_frame, "everything before a new file is durable");
        let number = self.current.header.file + 1;
        let header = FileHeader { store: self.store, file: number, first_frame: self.next_frame };
        let used = self.files.back_mut().expect("the current file is in use");
        used.mark(self.current.position, self.next_frame, self.last_sum, 0);
        let marks = &used.marks;
        // On a full disk the reserve goes first: what room there is else is not taken before the reserve is whole again.
        let spare = if self.reserve.is_low() { self.reserve.take_reserved() } else { self.reserve.take_spare() };
        self.current = match take_into_use(&*self.disk, header, marks, self.file_bytes, spare) {
            Err(error) if error.is_full() => match self.reserve.take_reserved() {
                Some(reserved) => take_into_use(&*self.disk, header, marks, self.file_bytes, Some(reserved))?,
                None => return Err(error),
            },
            taken => taken?,
        };
        self.files.push_back(UsedFile::new(number, BTreeMap::new()));
        self.reserve.uses(self.files.len());
        if !self.reserve.is_low() {
            self.reserve.fill()?;
        }
        Ok(())
    }
}

impl UsedFile {
    fn new(number: u64, newest: BTreeMap<u32, u64>) -> Self {
        Self { number, newest, marks: Vec::new() }
    }

    /// Remembers where the next frame begins, at least so far behind the place remembered before.
    fn mark(&mut self, position: u64, frame: u64, previous_sum: u32, distance: u64) {
        let last = self.marks.last().map_or(BLOCK_BYTES, |mark| mark.position);
        if position > last && position - last >= distance {
            self.marks.push(Mark { position, frame, previous_sum, before: self.newest.clone() });
        }
    }

    /// Containers with records here that no durable checkpoint includes.
    fn uncovered(&self, covered: &BTreeMap<u32, u64>) -> impl Iterator<Item = u32> {
        self.newest.iter().filter(|(id, newest)| !includes(covered, **id, **newest)).map(|(id, _)| *id)
    }
}

/// Whether checkpoints that include these sequences include this one of this container.
fn includes(covered: &BTreeMap<u32, u64>, container: u32, sequence: u64) -> bool {
    covered.get(&container).is_some_and(|newest| sequence <= *newest)
}

/// A frame that records are added to.
struct OpenFrame {
    /// Room for the head and the count, and what was added.
    buffer: BlockBuffer,
    /// Of what was added.
    sum: u32,
    records: usize,
    newest: BTreeMap<u32, u64>,
}

impl OpenFrame {
    fn new(mut buffer: BlockBuffer) -> Self {
        buffer.clear();
        buffer.resize(HEAD_BYTES + COUNT_BYTES);
        Self { buffer, sum: 0, records: 0, newest: BTreeMap::new() }
    }

    fn body_bytes(&self) -> usize {
        self.buffer.len() - HEAD_BYTES
    }

    fn add(&mut self, record: &Record) {
        self.buffer.reserve(record.length());
        let mut head = [0; RECORD_HEAD_BYTES];
        head[..4].copy_from_slice(&record.container.to_be_bytes());
        head[4..12].copy_from_slice(&record.sequence.to_be_bytes());
        head[12..16].copy_from_slice(&(record.operation.len() as u32).to_be_bytes());
        head[16..].copy_from_slice(&(record.payload.len() as u32).to_be_bytes());
        self.put(&head);
        self.put(&record.operation);
        self.put(&record.payload);
        self.records += 1;
        self.newest.insert(record.container, record.sequence);
    }

    /// Appends, and takes into the checksum while the bytes are near: a pass over a whole body finds half of it gone from
    /// the processor's caches.
    fn put(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(NEAR_BYTES) {
            self.buffer.extend_from_slice(part);
            self.sum = crc32c::crc32c_append(self.sum, part);
        }
    }
}

/// Path of a file in use.
pub(crate) fn path_of(number: u64) -> String {
    format!("{DIRECTORY}/{number:016}.log")
}

/// Gives a file its header, with marks of the file before, and its name, all durable before the first frame.
fn take_into_use(
    disk: &dyn Disk,
    header: FileHeader,
    marks: &[Mark],
    file_bytes: u64,
    spare: Option<String>,
) -> Result<Current, StoreError> {
    let path = path_of(header.file);
    let (made, file) = match spare {
        Some(spare) => {
            let file = disk.open(&spare).on(&spare, "open")?;
            (spare, file)
        }
        None => {
            let fresh = format!("{DIRECTORY}/fresh-{:016}", header.file);
            let file = match disk.create(&fresh) {
                // Left by an attempt that found the disk full.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => disk.open(&fresh),
                made => made,
            }
            .on(&fresh, "create")?;
            if let Err(error) = file.allocate(file_bytes) {
                // Part of it may have been allocated, and others may need that room to free some.
                disk.remove(&fresh).on(&fresh, "remove")?;
                return Err(error).on(&fresh, "allocate");
            }
            (fresh, file)
        }
    };
    let mut block = header.encode();
    Mark::encode_all(marks, &header, &mut block);
    file.write_at(0, &block).on(&made, "write")?;
    file.sync().on(&made, "sync")?;
    disk.rename(&made, &path).on(&made, "rename")?;
    if !canary::is(3) {
        disk.sync_directory(DIRECTORY).on(DIRECTORY, "sync")?;
    }
    let file = disk.open_direct(&path).on(&path, "open")?;
    Ok(Current { path, file, header, position: BLOCK_BYTES })
}
