//! The journal: everything the store promised and has not yet put elsewhere.
//!
//! ```text
//!   containers ─► records ─► one frame ─► write ─► sync ─► durable
//! ```
//!
//! Files of fixed length are filled frame by frame; a frame holds the records of one group commit and is written only
//! after the frame before it is durable. Files whose records all live elsewhere are recycled.
//!
//! Invariants:
//! * frames are numbered without gaps, and a frame is durable before the next is written ([`Journal::commit`])
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
use format::{BLOCK_BYTES, FileHeader, FrameHead, FrameKind, HEAD_BYTES, span};
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
    /// Body checksum of the newest frame.
    last_sum: u32,
    buffer: BlockBuffer,
    pub(crate) syncs: u64,
    pub(crate) bytes: u64,
    /// Bytes found behind the last frame that was ever acknowledged when the journal was opened.
    pub(crate) discarded_bytes: u64,
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
}

impl Journal {
    /// Makes the first of these records durable, as many as one frame takes, and says how many. A full disk shows when a
    /// file is taken into use, never when a frame is written: files are allocated whole.
    ///
    /// # Errors
    /// [`StoreError::is_full`]: nothing was written, the same may be tried again later. Any other error is final: what is
    /// durable is unknown until the journal is opened again.
    pub(crate) fn commit(&mut self, records: &[Record]) -> Result<usize, StoreError> {
        let body_max = FRAME_BODY_BYTES.min(record_bytes_max(self.file_bytes));
        let mut body = 4;
        let mut count = 0;
        for record in records {
            if count > 0 && body + record.length() > body_max {
                break;
            }
            body += record.length();
            count += 1;
        }
        let records = &records[..count];
        if count > 0 {
            self.make_room(body)?;
            let sum = self.encode_records(records);
            self.write_frame(FrameKind::Records, sum)?;
            let newest = &mut self.files.back_mut().expect("the current file is in use").newest;
            for record in records {
                newest.insert(record.container, record.sequence);
            }
        }
        Ok(count)
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
        self.buffer.clear();
        self.buffer.resize(HEAD_BYTES);
        self.write_frame(FrameKind::Close, crc32c::crc32c(&[]))
    }

    /// Number of the newest durable frame.
    pub(crate) fn synced(&self) -> u64 {
        self.next_frame - 1
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

    /// Puts a body into the buffer, behind room for its head, and returns its checksum.
    fn encode_records(&mut self, records: &[Record]) -> u32 {
        self.buffer.clear();
        self.buffer.resize(HEAD_BYTES);
        let mut body = Body { buffer: &mut self.buffer, sum: 0 };
        body.put(&(records.len() as u32).to_be_bytes());
        for record in records {
            assert!(record.length() <= record_bytes_max(self.file_bytes), "containers refuse what no record can hold");
            let mut head = [0; RECORD_HEAD_BYTES];
            head[..4].copy_from_slice(&record.container.to_be_bytes());
            head[4..12].copy_from_slice(&record.sequence.to_be_bytes());
            head[12..16].copy_from_slice(&(record.operation.len() as u32).to_be_bytes());
            head[16..].copy_from_slice(&(record.payload.len() as u32).to_be_bytes());
            body.put(&head);
            body.put(&record.operation);
            body.put(&record.payload);
        }
        body.sum
    }

    /// Writes the body that stands in the buffer behind room for its head.
    fn write_frame(&mut self, kind: FrameKind, body_sum: u32) -> Result<(), StoreError> {
        let body = &self.buffer.as_slice()[HEAD_BYTES..];
        let head = FrameHead {
            kind,
            file: self.current.header.file,
            store: self.store,
            frame: self.next_frame,
            synced: self.next_frame - 1,
            previous_sum: self.last_sum,
            body_length: body.len() as u32,
            body_sum,
        };
        head.encode(&mut self.buffer.as_mut_slice()[..HEAD_BYTES]);
        self.buffer.resize(head.span() as usize);
        let Current { path, file, position, .. } = &mut self.current;
        assert!(*position + head.span() <= self.file_bytes, "room was made for the frame");
        // Not "write": room was allocated, so a disk that finds itself full here has broken its word.
        let bytes = self.buffer.as_slice();
        let written =
            if canary::is(1) { file.write_at(*position, bytes) } else { file.write_durable(*position, bytes) };
        let written = if canary::is(4) { Ok(()) } else { written };
        let written = if canary::is(5) { written.or_else(|_| file.sync()) } else { written };
        written.on(path, "write a frame")?;
        *position += head.span();
        self.next_frame += 1;
        self.last_sum = head.body_sum;
        self.syncs += 1;
        self.bytes += head.span();
        Ok(())
    }

    /// Moves on to the next file if a frame with this body would not fit in the current one.
    fn make_room(&mut self, body_length: usize) -> Result<(), StoreError> {
        if self.current.position + span(body_length) <= self.file_bytes {
            return Ok(());
        }
        let number = self.current.header.file + 1;
        let header = FileHeader { store: self.store, file: number, first_frame: self.next_frame };
        // On a full disk the reserve goes first: what room there is else is not taken before the reserve is whole again.
        let spare = if self.reserve.is_low() { self.reserve.take_reserved() } else { self.reserve.take_spare() };
        self.current = match take_into_use(&*self.disk, header, self.file_bytes, spare) {
            Err(error) if error.is_full() => match self.reserve.take_reserved() {
                Some(reserved) => take_into_use(&*self.disk, header, self.file_bytes, Some(reserved))?,
                None => return Err(error),
            },
            taken => taken?,
        };
        self.files.push_back(UsedFile { number, newest: BTreeMap::new() });
        self.reserve.uses(self.files.len());
        if !self.reserve.is_low() {
            self.reserve.fill()?;
        }
        Ok(())
    }
}

impl UsedFile {
    /// Containers with records here that no durable checkpoint includes.
    fn uncovered(&self, covered: &BTreeMap<u32, u64>) -> impl Iterator<Item = u32> {
        let is_newer = |(id, newest): &(&u32, &u64)| covered.get(*id).is_none_or(|sequence| sequence < *newest);
        self.newest.iter().filter(is_newer).map(|(id, _)| *id)
    }
}

/// A body that is being put together.
struct Body<'a> {
    buffer: &'a mut BlockBuffer,
    sum: u32,
}

impl Body<'_> {
    /// Appends, and takes into the checksum while the bytes are near: a pass over a whole body finds half of it gone from
    /// the processor's caches.
    fn put(&mut self, bytes: &[u8]) {
        const NEAR_BYTES: usize = 64 << 10;
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

/// Gives a file its header and its name, both durable before the first frame.
fn take_into_use(
    disk: &dyn Disk,
    header: FileHeader,
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
    file.write_at(0, &header.encode()).on(&made, "write")?;
    file.sync().on(&made, "sync")?;
    disk.rename(&made, &path).on(&made, "rename")?;
    if !canary::is(3) {
        disk.sync_directory(DIRECTORY).on(DIRECTORY, "sync")?;
    }
    let file = disk.open_direct(&path).on(&path, "open")?;
    Ok(Current { path, file, header, position: BLOCK_BYTES })
}
