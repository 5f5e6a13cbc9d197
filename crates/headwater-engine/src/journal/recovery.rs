//! Opening the journal: what was acknowledged comes back, a torn tail is dropped, anything else stops the store.
//!
//! Let `known` be the largest frame number that any intact frame head, file header or the witness says was durable. The
//! intact frames must form an unbroken chain at least up to `known`; if not, acknowledged bytes have rotted. What
//! follows the chain was never acknowledged and is dropped, even if parts of it are intact: writes that were not synced
//! land in any order.
//!
//! Frames at the end of the chain that nothing testifies to may stand in the page cache alone (a sync may have failed
//! and its error may have been told to a process that is gone). They are written again, to a fresh file, and synced
//! before anything of them is served.
//!
//! Checkpoints include much of the oldest file. What stands before a [`Mark`] in it is passed over if they include all of
//! that: it is as good as recycled.

mod verify;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::canary;
use crate::codec::Decoder;
use crate::error::{IoContext, StoreError};
use crate::io::{Disk, File};

pub(crate) use verify::{JournalState, ends, leftovers, verify, verify_idle};

use super::format::{BLOCK_BYTES, FORMAT, FileHeader, FrameHead, FrameKind, HEAD_BYTES, HeaderError, Mark};
use super::{
    Current, DIRECTORY, Journal, RECORD_HEAD_BYTES, Record, Reserve, UsedFile, Witness, includes, take_into_use,
};

/// Bytes read at a time, unless a frame is longer. Memory that nothing has touched yet costs several times what it takes
/// to read into it, so that one small buffer for all is much faster than one for each file.
const WINDOW_BYTES: u64 = 1 << 20;

/// A record found in the journal.
pub(crate) struct Replayed<'a> {
    pub(crate) container: u32,
    pub(crate) sequence: u64,
    pub(crate) operation: &'a [u8],
    pub(crate) payload: &'a [u8],
}

/// A file whose header is that of this store.
struct Found {
    path: String,
    file: Arc<dyn File>,
    length: u64,
    header: FileHeader,
    /// The block that the header is in.
    block: Vec<u8>,
    /// Of the file before.
    marks: Vec<Mark>,
    /// Where in the block they end.
    marks_end: usize,
}

/// A frame with an intact head, at a block boundary of a file.
struct Seen<'a> {
    at: u64,
    head: FrameHead,
    /// All of it, up to where the next frame may begin; none if its body is not intact.
    bytes: Option<&'a [u8]>,
}

impl<'a> Seen<'a> {
    fn body(&self) -> Option<&'a [u8]> {
        Some(&self.bytes?[HEAD_BYTES..HEAD_BYTES + self.head.body_length as usize])
    }
}

/// The part of a file that is in memory.
#[derive(Default)]
struct Window {
    buffer: Vec<u8>,
    /// Of the file.
    range: Range<u64>,
}

impl Journal {
    /// Opens the journal and hands every record of the unbroken chain to `replay`, in order, and `None` behind the last:
    /// all that is known to be durable has been seen then, and nothing was changed yet. At the beginning records are left
    /// out that checkpoints include, whose newest sequences `covered` has. The reserve is as it was found.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if acknowledged records are missing or rotten, and what `replay` returns; nothing was
    /// changed then. The disk's errors.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        store: u128,
        file_bytes: u64,
        witness: &Witness,
        covered: &BTreeMap<u32, u64>,
        mut replay: impl FnMut(Option<Replayed<'_>>) -> Result<(), StoreError>,
    ) -> Result<(Self, Arc<Reserve>), StoreError> {
        let (numbers, leftovers) = list(&*disk)?;
        let mut known = if canary::is(25) { 0 } else { witness.frame };
        let mut chain: Option<Chain> = None;
        let mut files: VecDeque<UsedFile> = VecDeque::new();
        let mut newest_header = None;
        let mut window = Window::default();
        let mut replayed_bytes = 0;
        let open = |number: &u64| open_file(&*disk, store, *number, file_bytes);
        let mut next = numbers.first().map(open).transpose()?;
        for (&number, after) in numbers.iter().zip(1..) {
            let found = next.take().expect("it was opened with the one before");
            next = numbers.get(after).map(open).transpose()?;
            known = known.max(found.header.first_frame - 1);
            let mut newest = BTreeMap::new();
            let chain = chain.get_or_insert_with(|| Chain::starting_at(&found.header));
            chain.go_on_in(&found)?;
            let mut marks = next.iter().flat_map(|next| next.marks.iter().rev());
            // Once there is news, nothing is left out.
            if replayed_bytes == 0
                && let Some(mark) = marks.find(|mark| mark.is_covered(covered) || canary::is(50))
            {
                chain.pass_over_to(mark);
            }
            found.scan(&mut window, chain.position, &mut |seen| {
                known = known.max(seen.head.synced);
                chain.see(&*disk, &seen, |head, body, is_repeat| {
                    let mut is_news = false;
                    if head.kind == FrameKind::Records {
                        each_record(&found.path, body, |record| {
                            // This copy may be the only one that lasts.
                            newest.insert(record.container, record.sequence);
                            is_news |= !includes(covered, record.container, record.sequence);
                            if is_repeat { Ok(()) } else { replay(Some(record)) }
                        })?;
                    }
                    if !is_repeat && (is_news || replayed_bytes > 0) {
                        replayed_bytes += head.span();
                    }
                    Ok(())
                })
            })?;
            files.push_back(UsedFile::new(number, newest));
            newest_header = Some(found.header);
        }
        drop(window);
        let chain = chain.unwrap_or_else(Chain::empty);
        let known = if canary::is(9) { known.min(chain.next_frame - 1) } else { known };
        if chain.next_frame - 1 < known {
            return Err(StoreError::damaged(
                &chain.path,
                chain.position,
                format!("journal ends with frame {}, but frame {known} was durable", chain.next_frame - 1),
            ));
        }

        replay(None)?;

        // From here on files are changed: everything that was acknowledged has been seen intact. What a killed process
        // renamed or removed may not be durable yet; a file must not be used under its new name before it is.
        disk.sync_directory(DIRECTORY).on(DIRECTORY, "sync")?;
        let ready = tidy(&*disk, leftovers, file_bytes)?;
        let reserve = Reserve::new(disk.clone(), file_bytes, ready, files.len());
        let unproven = if canary::is(6) { Vec::new() } else { chain.unproven(known) };
        let (next_frame, last_sum) = match unproven.first() {
            Some(first) => (first.head.frame, first.head.previous_sum),
            None => (chain.next_frame, chain.last_sum),
        };
        let current = match newest_header {
            // Nothing to write again: go on behind the last frame. A start on a full disk needs no new file then.
            Some(header) if unproven.is_empty() => {
                let file = disk.open_direct(&chain.path).on(&chain.path, "open")?;
                Current { path: chain.path, file, header, position: chain.position }
            }
            _ => {
                let number = numbers.last().map_or(1, |last| last + 1);
                let header = FileHeader { store, file: number, first_frame: next_frame };
                files.push_back(UsedFile::new(number, BTreeMap::new()));
                take_into_use(&*disk, header, &[], file_bytes, reserve.take_at_start())?
            }
        };
        let mut journal = Self {
            disk: disk.clone(),
            store,
            file_bytes,
            current,
            files,
            reserve: reserve.clone(),
            next_frame,
            synced: next_frame - 1,
            last_sum,
            open: None,
            buffers: Vec::new(),
            syncs: 0,
            bytes: 0,
            discarded_bytes: chain.discarded,
            replayed_bytes,
        };
        for frame in unproven {
            let mut records = Vec::new();
            each_record(&frame.path, &frame.body(&*disk)?, |record| {
                records.push(Record {
                    container: record.container,
                    sequence: record.sequence,
                    operation: record.operation.to_vec(),
                    payload: Bytes::copy_from_slice(record.payload),
                });
                Ok(())
            })?;
            match frame.head.kind {
                FrameKind::Records => journal.commit_all(&records)?,
                FrameKind::Close => journal.close()?,
            }
        }
        reserve.uses(journal.files.len());
        Ok((journal, reserve))
    }
}

/// The unbroken run of frames found so far.
struct Chain {
    next_frame: u64,
    last_sum: u32,
    /// Where it ends: in which file, how long that is, and at which byte of it.
    path: String,
    length: u64,
    position: u64,
    /// Number of the frame that belongs there; smaller than `next_frame` while frames come that were written again.
    expected: u64,
    discarded: u64,
    /// Where that is: file and bytes.
    dropped: Vec<(String, Range<u64>)>,
    /// The newest frames, while nothing newer testifies to them. One frame is under way at a time, so few are kept.
    newest: VecDeque<ChainFrame>,
}

#[derive(Clone)]
struct ChainFrame {
    path: String,
    at: u64,
    head: FrameHead,
}

impl ChainFrame {
    /// Reads its body once more.
    fn body(&self, disk: &dyn Disk) -> Result<Vec<u8>, StoreError> {
        let mut body = vec![0; self.head.body_length as usize];
        let read = disk.open(&self.path).and_then(|file| file.read_at(self.at + HEAD_BYTES as u64, &mut body));
        read.on(&self.path, "read")?;
        if crc32c::crc32c(&body) != self.head.body_sum {
            let what = format!("frame {} is another than when it was read first", self.head.frame);
            return Err(StoreError::damaged(&self.path, self.at, what));
        }
        Ok(body)
    }
}

impl Chain {
    fn empty() -> Self {
        Self {
            next_frame: 1,
            last_sum: 0,
            path: DIRECTORY.into(),
            length: 0,
            position: 0,
            expected: 1,
            discarded: 0,
            dropped: Vec::new(),
            newest: VecDeque::new(),
        }
    }

    fn starting_at(header: &FileHeader) -> Self {
        Self { next_frame: header.first_frame, ..Self::empty() }
    }

    /// A file may begin with frames that an earlier file holds too: they were written again when the store was opened,
    /// and what followed them in the earlier file was dropped then.
    fn go_on_in(&mut self, found: &Found) -> Result<(), StoreError> {
        if found.header.first_frame > self.next_frame {
            return Err(StoreError::damaged(
                &self.path,
                self.position,
                format!(
                    "frame {} is missing, {} begins with {}",
                    self.next_frame, found.path, found.header.first_frame
                ),
            ));
        }
        (self.path, self.length) = (found.path.clone(), found.length);
        (self.position, self.expected) = (BLOCK_BYTES, found.header.first_frame);
        Ok(())
    }

    /// Goes on at a mark of the file, whose frames before it are not needed. What cannot be a mark of it says nothing.
    fn pass_over_to(&mut self, mark: &Mark) {
        let is_place =
            mark.position.is_multiple_of(BLOCK_BYTES) && (self.position..=self.length).contains(&mark.position);
        if !is_place || mark.frame < self.expected {
            return;
        }
        (self.position, self.expected) = (mark.position, mark.frame);
        if mark.frame > self.next_frame {
            (self.next_frame, self.last_sum) = (mark.frame, mark.previous_sum);
            self.newest.clear();
        }
    }

    /// Follows the chain through a file, whose frames are shown in order. Those seen before are checked, and told from new
    /// ones.
    fn see(
        &mut self,
        disk: &dyn Disk,
        seen: &Seen<'_>,
        take: impl FnOnce(&FrameHead, &[u8], bool) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let Seen { at, head, .. } = seen;
        match seen.body() {
            Some(body) if *at == self.position && self.continues_with(head) => {
                let is_repeat = head.frame < self.next_frame;
                take(head, body, is_repeat)?;
                if !is_repeat {
                    self.next_frame = head.frame + 1;
                    self.last_sum = head.body_sum;
                    self.newest.push_back(ChainFrame { path: self.path.clone(), at: *at, head: *head });
                    if self.newest.len() > 2 {
                        self.newest.pop_front();
                    }
                } else if let Some(first) = self.newest.iter().find(|first| first.head.frame == head.frame)
                    && first.body(disk)? != body
                {
                    let what = format!("frame {} differs from its first copy", head.frame);
                    return Err(StoreError::damaged(&self.path, *at, what));
                }
                self.expected += 1;
                self.position += head.span();
            }
            _ => {
                self.discarded += head.span();
                self.dropped.push((self.path.clone(), *at..(at + head.span()).min(self.length)));
            }
        }
        Ok(())
    }

    fn continues_with(&self, head: &FrameHead) -> bool {
        let is_new = head.frame >= self.next_frame;
        // The first frame of the oldest file has nothing before it to be compared with.
        head.frame == self.expected && (!is_new || self.last_sum == 0 || head.previous_sum == self.last_sum)
    }

    /// Frames above `known`.
    fn unproven(&self, known: u64) -> Vec<ChainFrame> {
        let unproven: Vec<_> = self.newest.iter().filter(|frame| frame.head.frame > known).cloned().collect();
        assert!(self.next_frame - 1 - known <= unproven.len() as u64, "a frame testifies to the one before it");
        unproven
    }
}

/// Numbers of the files in use, in order, and names of everything else but the witness.
fn list(disk: &dyn Disk) -> Result<(Vec<u64>, Vec<String>), StoreError> {
    let mut numbers = Vec::new();
    let mut leftovers = Vec::new();
    for name in disk.list(DIRECTORY).on(DIRECTORY, "list")? {
        match name.strip_suffix(".log").and_then(|digits| digits.parse().ok()) {
            Some(number) => numbers.push(number),
            None if name != "witness" => leftovers.push(format!("{DIRECTORY}/{name}")),
            None => {}
        }
    }
    for pair in numbers.windows(2) {
        if pair[0] + 1 != pair[1] {
            return Err(StoreError::damaged(DIRECTORY, 0, format!("file {} is missing", pair[0] + 1)));
        }
    }
    Ok((numbers, leftovers))
}

/// Keeps whole spare files and removes half-made ones.
fn tidy(disk: &dyn Disk, leftovers: Vec<String>, file_bytes: u64) -> Result<VecDeque<String>, StoreError> {
    let mut ready = VecDeque::new();
    for path in leftovers {
        let whole = || -> std::io::Result<bool> { Ok(disk.open(&path)?.length()? == file_bytes) };
        if path.contains("/spare-") && whole().on(&path, "open")? {
            ready.push_back(path);
        } else {
            disk.remove(&path).on(&path, "remove")?;
        }
    }
    Ok(ready)
}

fn open_file(disk: &dyn Disk, store: u128, number: u64, file_bytes: u64) -> Result<Found, StoreError> {
    let path = super::path_of(number);
    let file = disk.open(&path).on(&path, "open")?;
    let length = file.length().on(&path, "measure")?;
    if length != file_bytes {
        return Err(StoreError::damaged(&path, length, format!("file has {length} bytes, expected {file_bytes}")));
    }
    let mut block = vec![0; BLOCK_BYTES as usize];
    file.read_at(0, &mut block).on(&path, "read")?;
    match FileHeader::decode(&block) {
        Ok(header) if header.store == store && header.file == number && header.first_frame > 0 => {
            let (marks, marks_end) = Mark::decode_all(&block, &header);
            Ok(Found { path, file, length, header, block, marks, marks_end })
        }
        Ok(header) => {
            Err(StoreError::damaged(&path, 0, format!("header of file {} of store {:032x}", header.file, header.store)))
        }
        Err(HeaderError::Newer(found)) => Err(StoreError::Newer { path, found, known: FORMAT }),
        Err(HeaderError::Damaged) => Err(StoreError::damaged(&path, 0, "header fails its checksum")),
    }
}

impl Found {
    /// Looks for frames at every block boundary from one on, also behind damage: what they testify to decides what damage
    /// means. Shows them in order.
    fn scan(
        &self,
        window: &mut Window,
        mut at: u64,
        see: &mut dyn FnMut(Seen<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        window.range = 0..0;
        while at + HEAD_BYTES as u64 <= self.length {
            let Some(head) = FrameHead::decode(self.bytes(window, at, HEAD_BYTES as u64)?, &self.header) else {
                at += BLOCK_BYTES;
                continue;
            };
            let (span, left) = (head.span(), self.length - at);
            let bytes = if HEAD_BYTES as u64 + u64::from(head.body_length) <= left {
                Some(self.bytes(window, at, span.min(left))?)
            } else {
                None
            };
            let mut seen = Seen { at, head, bytes };
            if seen.body().is_none_or(|body| crc32c::crc32c(body) != head.body_sum && !canary::is(8)) {
                seen.bytes = None;
            }
            at += if seen.bytes.is_some() { span } else { BLOCK_BYTES };
            see(seen)?;
        }
        Ok(())
    }

    /// Bytes of the file, which has them, through the window.
    fn bytes<'a>(&self, window: &'a mut Window, from: u64, length: u64) -> Result<&'a [u8], StoreError> {
        let Window { buffer, range } = window;
        if from < range.start || from + length > range.end {
            let kept = if range.contains(&from) {
                let kept = (from - range.start) as usize..(range.end - range.start) as usize;
                buffer.copy_within(kept.clone(), 0);
                kept.len()
            } else {
                0
            };
            let filled = length.max(WINDOW_BYTES).min(self.length - from);
            if buffer.len() < filled as usize {
                buffer.resize(filled as usize, 0);
            }
            // Nothing of it counts if reading fails.
            *range = 0..0;
            let rest = &mut buffer[kept..filled as usize];
            self.file.read_at(from + kept as u64, rest).on(&self.path, "read")?;
            *range = from..from + filled;
        }
        Ok(&buffer[(from - range.start) as usize..][..length as usize])
    }
}

fn each_record(
    path: &str,
    body: &[u8],
    mut take: impl FnMut(Replayed<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let damaged = StoreError::malformed(path, 0);
    let mut input = Decoder::new(body);
    if input.is_empty() {
        return Ok(());
    }
    let count = input.u32().map_err(&damaged)? as usize;
    if count > input.remaining() / RECORD_HEAD_BYTES {
        return Err(StoreError::damaged(path, 0, "frame announces more records than fit"));
    }
    for _ in 0..count {
        let container = input.u32().map_err(&damaged)?;
        let sequence = input.u64().map_err(&damaged)?;
        let operation = input.u32().map_err(&damaged)? as usize;
        let payload = input.u32().map_err(&damaged)? as usize;
        let operation = input.take(operation).map_err(&damaged)?;
        let payload = input.take(payload).map_err(&damaged)?;
        take(Replayed { container, sequence, operation, payload })?;
    }
    input.end().map_err(&damaged)
}
