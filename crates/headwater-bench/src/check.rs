//! Whether a segment holds exactly what was written to it.
//!
//! A [`Checker`] knows the writers of one segment and which of its events each has written there. It is fed the segment's
//! bytes, cut anywhere, and stops at the first that does not fit: an event of somebody else, a byte that changed, an event
//! twice, missing or in another place, or something behind or instead of events.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::event::{HEADER_BYTES, Identity, identify};

/// How a segment differs from what was written.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A key has not the value that was put.
    #[error("key {key} does not have the value that was put")]
    Value {
        /// Its number in the run.
        key: u64,
    },
    /// A change was made although its condition did not hold.
    #[error("an update of key {key} was made on condition of a version that it no longer had")]
    Unconditional {
        /// Its number in the run.
        key: u64,
    },
    /// Where an event should begin, something else stands.
    #[error("no event of {expected} bytes begins at offset {offset}")]
    NotAnEvent {
        /// In the segment.
        offset: u64,
        /// Payload bytes of every event of the run.
        expected: usize,
    },
    /// The checksum does not fit the bytes.
    #[error("the event at offset {offset} was changed")]
    Changed {
        /// In the segment.
        offset: u64,
    },
    /// Nobody of this run wrote this event here.
    #[error("the event at offset {offset} is of writer {writer:#x}, who never wrote here")]
    Foreign {
        /// In the segment.
        offset: u64,
        /// Whose it is.
        writer: u64,
    },
    /// Events before it are missing, or come later.
    #[error("writer {writer:#x}: event {found} at offset {offset} came when {expected} was next")]
    Gap {
        /// In the segment.
        offset: u64,
        /// Whose.
        writer: u64,
        /// The one that was next.
        expected: u64,
        /// The one that came.
        found: u64,
    },
    /// It was there before.
    #[error("writer {writer:#x}: event {found} at offset {offset} came again, {expected} was next")]
    Repeated {
        /// In the segment.
        offset: u64,
        /// Whose.
        writer: u64,
        /// The one that was next.
        expected: u64,
        /// The one that came.
        found: u64,
    },
    /// More events than were written, though each looks right.
    #[error("writer {writer:#x}: event {found} at offset {offset} was never acknowledged as written")]
    Surplus {
        /// In the segment.
        offset: u64,
        /// Whose.
        writer: u64,
        /// Its number.
        found: u64,
    },
    /// Acknowledged events are not there.
    #[error("writer {writer:#x}: {found} events instead of {expected}")]
    Missing {
        /// Whose.
        writer: u64,
        /// How many were acknowledged.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// The server says the segment has another length than all events together.
    #[error("the segment has {found} bytes instead of {expected}")]
    Length {
        /// All events with their headers.
        expected: u64,
        /// As the server says.
        found: i64,
    },
    /// The segment ends inside an event.
    #[error("the last {bytes} bytes are no whole event")]
    CutShort {
        /// Behind the last whole event.
        bytes: usize,
    },
}

/// Of one writer.
#[derive(Clone, Copy, Debug)]
struct Expected {
    /// What it wrote before stands elsewhere.
    first: u64,
    next: u64,
    /// Behind its last event, or behind the last there may be while writing goes on.
    end: u64,
}

/// Reads one segment from its beginning.
#[derive(Debug)]
pub(crate) struct Checker {
    event_bytes: usize,
    writers: BTreeMap<u64, Expected>,
    /// Offset of the first byte that was not checked yet.
    offset: u64,
    /// The beginning of an event whose end has not come yet.
    carried: Vec<u8>,
}

impl Checker {
    /// `writers` with the sequences of the events each has written to this segment, all of `event_bytes` bytes.
    pub(crate) fn new(event_bytes: usize, writers: impl IntoIterator<Item = (u64, Range<u64>)>) -> Self {
        let expected = |Range { start, end }| Expected { first: start, next: start, end };
        let writers = writers.into_iter().map(|(writer, sequences)| (writer, expected(sequences))).collect();
        Self { event_bytes, writers, offset: 0, carried: Vec::new() }
    }

    /// Bytes the segment must have.
    pub(crate) fn expected_bytes(&self) -> u64 {
        self.writers.values().map(|writer| writer.end - writer.first).sum::<u64>()
            * (HEADER_BYTES + self.event_bytes) as u64
    }

    /// Takes the bytes that follow; `seen` is told of every event.
    ///
    /// # Errors
    /// The first violation; the checker is of no use after it.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut seen: impl FnMut(&Identity)) -> Result<(), Violation> {
        let stride = HEADER_BYTES + self.event_bytes;
        if !self.carried.is_empty() {
            let missing = (stride - self.carried.len()).min(bytes.len());
            self.carried.extend_from_slice(&bytes[..missing]);
            bytes = &bytes[missing..];
            if self.carried.len() < stride {
                return Ok(());
            }
            let event = std::mem::take(&mut self.carried);
            self.one(&event, &mut seen)?;
            self.carried = event;
            self.carried.clear();
        }
        let events = bytes.chunks_exact(stride);
        let rest = events.remainder();
        for event in events {
            self.one(event, &mut seen)?;
        }
        self.carried.extend_from_slice(rest);
        Ok(())
    }

    fn one(&mut self, event: &[u8], seen: &mut impl FnMut(&Identity)) -> Result<(), Violation> {
        let offset = self.offset;
        let (header, payload) = event.split_at(HEADER_BYTES);
        if header[..4] != [0; 4] || header[4..] != (self.event_bytes as u32).to_be_bytes() {
            return Err(Violation::NotAnEvent { offset, expected: self.event_bytes });
        }
        let identity = identify(payload).ok_or(Violation::Changed { offset })?;
        let Identity { writer, sequence: found, .. } = identity;
        let known = self.writers.get_mut(&writer).ok_or(Violation::Foreign { offset, writer })?;
        let expected = known.next;
        if found > expected {
            return Err(Violation::Gap { offset, writer, expected, found });
        }
        if found < expected {
            return Err(Violation::Repeated { offset, writer, expected, found });
        }
        if found >= known.end {
            return Err(Violation::Surplus { offset, writer, found });
        }
        known.next += 1;
        self.offset += event.len() as u64;
        seen(&identity);
        Ok(())
    }

    /// Says which events each writer has written in the end, if that was not known before.
    pub(crate) fn settle(&mut self, writers: &[(u64, Range<u64>)]) {
        for (writer, sequences) in writers {
            if let Some(known) = self.writers.get_mut(writer) {
                known.end = sequences.end;
            }
        }
    }

    /// The segment has ended.
    ///
    /// # Errors
    /// Something is missing.
    pub(crate) fn finish(self) -> Result<(), Violation> {
        if !self.carried.is_empty() {
            return Err(Violation::CutShort { bytes: self.carried.len() });
        }
        for (writer, Expected { first, next, end }) in self.writers {
            if next != end {
                return Err(Violation::Missing { writer, expected: end - first, found: next - first });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Block;

    const EVENT_BYTES: usize = 40;
    const STRIDE: u64 = (HEADER_BYTES + EVENT_BYTES) as u64;

    /// The bytes of these events, in this order.
    fn history(events: &[(u64, u64)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (writer, sequence) in events {
            let mut block = Block::new(EVENT_BYTES, 1);
            block.stamp(*writer, *sequence..*sequence + 1, |_| 5);
            bytes.extend_from_slice(&block.lend());
        }
        bytes
    }

    /// Two writers who each wrote three events.
    fn judge(bytes: &[u8]) -> Result<(), Violation> {
        let verdict = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let mut checker = Checker::new(EVENT_BYTES, [(1, 0..3), (2, 0..3)]);
            for piece in pieces {
                checker.feed(piece, |_| {})?;
            }
            checker.finish()
        };
        let whole = verdict(&mut std::iter::once(bytes));
        for size in [1, 7, 48, 49, 100] {
            assert_eq!(verdict(&mut bytes.chunks(size)), whole, "cut into pieces of {size}");
        }
        whole
    }

    #[test]
    fn a_writer_that_came_from_another_segment_goes_on_where_it_was_there() {
        let judge = |events: &[(u64, u64)]| {
            let mut checker = Checker::new(EVENT_BYTES, [(1, 7..9)]);
            assert_eq!(checker.expected_bytes(), 2 * STRIDE);
            checker.feed(&history(events), |_| {})?;
            checker.finish()
        };
        assert_eq!(judge(&[(1, 7), (1, 8)]), Ok(()));
        assert_eq!(judge(&[(1, 6)]), Err(Violation::Repeated { offset: 0, writer: 1, expected: 7, found: 6 }));
        assert_eq!(judge(&[(1, 8)]), Err(Violation::Gap { offset: 0, writer: 1, expected: 7, found: 8 }));
        assert_eq!(judge(&[(1, 7)]), Err(Violation::Missing { writer: 1, expected: 2, found: 1 }));
        let surplus = Violation::Surplus { offset: 2 * STRIDE, writer: 1, found: 9 };
        assert_eq!(judge(&[(1, 7), (1, 8), (1, 9)]), Err(surplus));
    }

    #[test]
    fn what_was_written_passes_however_writers_interleave() {
        assert_eq!(judge(&history(&[(1, 0), (2, 0), (2, 1), (1, 1), (1, 2), (2, 2)])), Ok(()));
    }

    #[test]
    fn a_lost_event_in_the_middle_is_a_gap() {
        let found = judge(&history(&[(1, 0), (1, 2), (2, 0), (2, 1), (2, 2)]));
        assert_eq!(found, Err(Violation::Gap { offset: STRIDE, writer: 1, expected: 1, found: 2 }));
    }

    #[test]
    fn a_lost_event_at_the_end_is_missing() {
        let found = judge(&history(&[(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]));
        assert_eq!(found, Err(Violation::Missing { writer: 2, expected: 3, found: 2 }));
    }

    #[test]
    fn an_event_that_came_twice_is_repeated() {
        let found = judge(&history(&[(1, 0), (1, 1), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]));
        assert_eq!(found, Err(Violation::Repeated { offset: 2 * STRIDE, writer: 1, expected: 2, found: 1 }));
    }

    #[test]
    fn two_events_that_changed_places_are_found_at_the_first() {
        let found = judge(&history(&[(1, 0), (1, 2), (1, 1), (2, 0), (2, 1), (2, 2)]));
        assert_eq!(found, Err(Violation::Gap { offset: STRIDE, writer: 1, expected: 1, found: 2 }));
    }

    #[test]
    fn an_event_of_nobody_in_this_run_is_foreign() {
        let found = judge(&history(&[(1, 0), (3, 0)]));
        assert_eq!(found, Err(Violation::Foreign { offset: STRIDE, writer: 3 }));
    }

    #[test]
    fn an_event_beyond_the_last_is_surplus() {
        let found = judge(&history(&[(1, 0), (1, 1), (1, 2), (1, 3)]));
        assert_eq!(found, Err(Violation::Surplus { offset: 3 * STRIDE, writer: 1, found: 3 }));
    }

    #[test]
    fn a_changed_byte_is_found_where_it_is() {
        let mut bytes = history(&[(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]);
        bytes[STRIDE as usize + HEADER_BYTES + 39] ^= 4;
        assert_eq!(judge(&bytes), Err(Violation::Changed { offset: STRIDE }));
        bytes[STRIDE as usize + 7] ^= 1;
        assert_eq!(judge(&bytes), Err(Violation::NotAnEvent { offset: STRIDE, expected: EVENT_BYTES }));
    }

    #[test]
    fn half_an_event_at_the_end_is_cut_short() {
        let bytes = history(&[(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (2, 3)]);
        assert_eq!(judge(&bytes[..bytes.len() - 1]), Err(Violation::CutShort { bytes: STRIDE as usize - 1 }));
    }
}
