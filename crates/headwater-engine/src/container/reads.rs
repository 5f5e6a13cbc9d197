//! Reading a segment's bytes: from memory at once, from chunks as an effect, at the tail later.

use bytes::{Bytes, BytesMut};
use headwater_types::limits::READ_BYTES_MAX;

use crate::api::{Outcome, ReadResult, Refusal, Request, Response};
use crate::canary;
use crate::chunks::{Chunks, Place, Stretch};
use crate::error::StoreError;

use super::keys::{self, StoredRun};
use super::{Container, Effects, Parked, Token};

/// Neighbouring pieces shorter than this are joined: a reply of many tiny pieces costs more than the copy.
const JOIN_BYTES: usize = 16 << 10;
/// Stretches of chunks that one reply may be made of, and as many that may be fetched ahead.
const COLD_PIECES_MAX: usize = 64;
/// Parked reads of a segment between two searches for abandoned ones.
const PRUNE_EVERY: usize = 64;

/// Requests that change nothing and may overtake writes that wait for memory.
pub(super) fn is_read(request: &Request) -> bool {
    match request {
        Request::Read { .. }
        | Request::Info { .. }
        | Request::Attribute { .. }
        | Request::Locate { .. }
        | Request::TableGet { .. }
        | Request::TableScan { .. }
        | Request::TableDelta { .. }
        | Request::TableInfo { .. }
        | Request::ListChunks { .. } => true,
        // An open writer has to be told of its appends that wait.
        Request::OpenWriter { .. }
        | Request::Create { .. }
        | Request::Append(_)
        | Request::Seal { .. }
        | Request::Truncate { .. }
        | Request::Delete { .. }
        | Request::Merge { .. }
        | Request::MergeBatch { .. }
        | Request::UpdateAttributes { .. }
        | Request::SetPolicy { .. }
        | Request::TableUpdate { .. }
        | Request::DeleteTable { .. } => false,
    }
}

/// A read whose bytes are in chunks.
pub(crate) struct ColdRead<T> {
    again: Again<T>,
    stretches: Vec<Stretch>,
    /// Whether it ends at the tail, or with the segment.
    ends: (bool, bool),
    /// What follows, for a reader that goes on.
    ahead: Vec<Stretch>,
}

/// A read that has to be decided once more: its bytes were given up while it was under way.
pub(crate) struct Again<T> {
    segment: u64,
    parked: Parked<T>,
    /// It was decided again before; a chunk that is gone twice is missing.
    is_second: bool,
}

/// What became of a [`ColdRead`].
pub(crate) enum ColdOutcome<T> {
    /// Send this.
    Answer(T, Outcome),
    /// Hand this to [`Container::read_again`].
    Again(Again<T>),
    /// Refuse, and tell a person why.
    Failed(T, StoreError),
}

impl<T> ColdRead<T> {
    /// Segment, first byte, and the byte behind the last.
    pub(crate) fn range(&self) -> (u64, u64, u64) {
        let offset = self.again.parked.offset;
        (self.again.segment, offset, offset + self.stretches.iter().map(|stretch| stretch.length).sum::<u64>())
    }

    /// What a reader that goes on will want next; empty from then on.
    pub(crate) fn take_ahead(&mut self) -> Vec<Stretch> {
        std::mem::take(&mut self.ahead)
    }

    /// Reads, verifies and builds the answer. Blocks on the disk.
    pub(crate) fn run(self, chunks: &Chunks) -> ColdOutcome<T> {
        let mut data = Joined::default();
        for stretch in self.stretches {
            match chunks.read_pieces(stretch) {
                Ok(pieces) => pieces.into_iter().for_each(|piece| data.push(piece)),
                Err(error) if error.is_not_found() && !self.again.is_second => return ColdOutcome::Again(self.again),
                Err(error) => return ColdOutcome::Failed(self.again.parked.token, error),
            }
        }
        let (at_tail, end_of_segment) = self.ends;
        let result = ReadResult { data: data.finish(), at_tail, end_of_segment };
        ColdOutcome::Answer(self.again.parked.token, Ok(Response::Read(result)))
    }
}

/// Pieces of a reply, with short neighbours joined.
#[derive(Default)]
struct Joined {
    data: Vec<Bytes>,
    short: BytesMut,
}

impl Joined {
    fn push(&mut self, piece: Bytes) {
        if piece.len() < JOIN_BYTES {
            self.short.extend_from_slice(&piece);
        } else {
            self.end_short();
            self.data.push(piece);
        }
    }

    fn end_short(&mut self) {
        if !self.short.is_empty() {
            self.data.push(self.short.split().freeze());
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.end_short();
        self.data
    }
}

impl<T: Token> Container<T> {
    /// Answers a read, has it read from chunks, or parks it.
    pub(super) fn read(
        &mut self,
        id: u64,
        offset: u64,
        bytes_max: usize,
        token: T,
        effects: &mut Effects<T>,
    ) -> Result<(), StoreError> {
        let segment = self.segment(id);
        let last = segment.last_sequence;
        let visible = if canary::is(20) { segment.length } else { segment.durable_length };
        let is_durable = last <= self.durable;
        assert!(visible <= segment.length, "visible bytes exist");
        if offset < segment.start && !canary::is(38) {
            let refusal = Refusal::Truncated { start: segment.start };
            self.answer(last, token, Err(refusal), effects);
            return Ok(());
        }
        // A seal that is not durable has not happened yet for a reader.
        let is_finished = segment.sealed && is_durable;
        if offset >= visible {
            if !is_finished {
                self.park(id, Parked { offset, bytes_max, token });
            } else if offset == visible {
                let result = ReadResult { data: Vec::new(), at_tail: false, end_of_segment: true };
                effects.replies.push((token, Ok(Response::Read(result))));
            } else {
                effects.replies.push((token, Err(Refusal::BehindEnd { length: visible })));
            }
            return Ok(());
        }
        // Eight bytes are an event's header: less would make no progress for a client. Source: stock's minimum.
        let wanted = bytes_max.clamp(8, READ_BYTES_MAX) as u64;
        let end = visible.min(offset + wanted);
        // Whether what was read up to there ends at the tail, or with the segment: then it had room for more.
        let ends = |reached: u64| {
            let at_end = reached == visible && reached - offset < wanted;
            (at_end && !is_finished, at_end && is_finished)
        };
        let data = self.memory(id, offset, end);
        if !data.is_empty() {
            let read: usize = data.iter().map(Bytes::len).sum();
            let (at_tail, end_of_segment) = ends(offset + read as u64);
            let result = ReadResult { data, at_tail, end_of_segment };
            effects.replies.push((token, Ok(Response::Read(result))));
            return Ok(());
        }
        let stretches = self.stretches(id, offset, end)?;
        let reached = offset + stretches.iter().map(|stretch| stretch.length).sum::<u64>();
        let ahead_end = visible.min(reached.saturating_add(self.chunks.objects().ahead_bytes()));
        let ahead = if reached < ahead_end { self.stretches(id, reached, ahead_end)? } else { Vec::new() };
        let again = Again { segment: id, parked: Parked { offset, bytes_max, token }, is_second: false };
        effects.reads.push(ColdRead { again, stretches, ends: ends(reached), ahead });
        Ok(())
    }

    /// Decides a read again whose bytes were given up while they were being read.
    pub(crate) fn read_again(&mut self, again: Again<T>, effects: &mut Effects<T>) -> Result<(), StoreError> {
        let Again { segment, parked: Parked { offset, bytes_max, token }, .. } = again;
        let before = effects.reads.len();
        if self.closing {
            effects.replies.push((token, Err(Refusal::Closing)));
        } else if self.load(segment)? {
            self.read(segment, offset, bytes_max, token, effects)?;
        } else {
            self.answer(self.sequence, token, Err(Refusal::NoSuchSegment), effects);
        }
        for read in &mut effects.reads[before..] {
            read.again.is_second = true;
        }
        Ok(())
    }

    fn park(&mut self, id: u64, parked: Parked<T>) {
        let segment = self.segments.get_mut(&id).expect("the segment was found before");
        if segment.parked.len() % PRUNE_EVERY == PRUNE_EVERY - 1 {
            segment.parked.retain(|parked| !parked.token.is_abandoned());
        }
        segment.parked.push(parked);
    }

    /// Drops the parked reads that nobody waits for any more.
    pub(crate) fn sweep(&mut self) {
        for segment in self.segments.values_mut() {
            segment.parked.retain(|parked| !parked.token.is_abandoned());
            if segment.parked.is_empty() {
                segment.parked.shrink_to_fit();
            }
        }
    }

    /// Looks at the parked reads of a segment again: it has grown, or ended.
    pub(super) fn wake(&mut self, id: u64, effects: &mut Effects<T>) -> Result<(), StoreError> {
        let Some(segment) = self.segments.get_mut(&id) else { return Ok(()) };
        let is_finished = segment.sealed && segment.last_sequence <= self.durable;
        let length = segment.durable_length;
        for parked in std::mem::take(&mut segment.parked) {
            if parked.token.is_abandoned() {
                continue;
            }
            if is_finished && parked.offset > length {
                // It was no mistake to wait there before the end was known, as it is to ask from now on.
                effects.replies.push((parked.token, Err(Refusal::Sealed)));
            } else {
                self.read(id, parked.offset, parked.bytes_max, parked.token, effects)?;
            }
        }
        Ok(())
    }

    /// The bytes from `offset` on that are in memory without a gap, up to `end`.
    fn memory(&self, id: u64, offset: u64, end: u64) -> Vec<Bytes> {
        let segment = self.segment(id);
        let mut data = Joined::default();
        let mut position = offset;
        while position < end
            && let Some((start, extent)) = segment.extent_at(position)
        {
            let from = (position - start) as usize;
            let to = extent.bytes.len().min((end - start) as usize);
            data.push(extent.bytes.slice(from..to));
            position = start + to as u64;
        }
        data.finish()
    }

    /// Where the bytes from `offset` on are in chunks, up to `end` or the next byte in memory.
    fn stretches(&self, id: u64, offset: u64, end: u64) -> Result<Vec<Stretch>, StoreError> {
        let segment = self.segment(id);
        if segment.extent_at(offset).is_some() {
            return Ok(Vec::new());
        }
        let end = segment.next_extent(offset).map_or(end, |next| next.min(end));
        let mut stretches = Vec::new();
        let mut position = offset;
        let prefix = keys::pieces(id);
        let after = keys::piece(id, offset);
        let mut scan = self.catalogue.scan(std::ops::Bound::Excluded(&after))?;
        while position < end && stretches.len() < COLD_PIECES_MAX {
            let run = match scan.next()? {
                Some((key, value)) if key.starts_with(&prefix) => {
                    StoredRun::decode(&key, &value).map_err(StoreError::malformed("catalogue", 0))?
                }
                _ => break,
            };
            if run.start > position {
                break;
            }
            let skip = position - run.start;
            let length = run.end.min(end) - position;
            let place = Place { chunk: run.place.chunk, position: run.place.position + skip };
            stretches.push(Stretch { place, length });
            position += length;
        }
        if stretches.is_empty() {
            let what = format!("segment {id} has no bytes at {offset}, although it begins before and ends behind");
            return Err(StoreError::damaged("catalogue", 0, what));
        }
        Ok(stretches)
    }

    /// Bytes of a segment from `offset` on, durable or not, that are in memory without a gap; at most up to `end`.
    pub(super) fn in_memory(&self, id: u64, offset: u64, end: u64) -> Option<Bytes> {
        let mut parts = self.memory(id, offset, end);
        match parts.len() {
            0 => None,
            1 => parts.pop(),
            _ => Some(parts.concat().into()),
        }
    }

    /// Bytes of a segment, durable or not, read here and now. For tables, whose entries are small.
    pub(super) fn bytes_of(&self, id: u64, offset: u64, length: usize) -> Result<Bytes, StoreError> {
        let end = offset + length as u64;
        if let Some((start, extent)) = self.segment(id).extent_at(offset)
            && end <= start + extent.bytes.len() as u64
        {
            let from = (offset - start) as usize;
            return Ok(extent.bytes.slice(from..from + length));
        }
        let mut all = BytesMut::with_capacity(length);
        let mut position = offset;
        while position < end {
            let parts = self.memory(id, position, end);
            let parts = if parts.is_empty() {
                let stretches = self.stretches(id, position, end)?;
                let read = |stretch: &Stretch| self.chunks.read(stretch.place, stretch.length as usize);
                stretches.iter().map(read).collect::<Result<_, _>>()?
            } else {
                parts
            };
            for part in parts {
                position += part.len() as u64;
                all.extend_from_slice(&part);
            }
        }
        Ok(all.freeze())
    }
}
