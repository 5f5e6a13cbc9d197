//! Events out of a segment's bytes, however these are cut.
//!
//! An event that lies within one piece is a slice of it; only those across two are copied.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::error::{Error, ErrorKind, Result};
use crate::writer::HEADER_BYTES;

/// Cuts bytes into events. Feed it what comes in order, beginning with an event.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// Whole events and the beginning of one, unread.
    piece: Bytes,
    /// The beginning of an event whose rest comes later; then `piece` is empty.
    partial: BytesMut,
    /// Bytes of events taken so far.
    taken: u64,
}

impl Events {
    /// Bytes of whole events taken so far, headers included.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// Bytes fed and not taken.
    pub(crate) fn pending(&self) -> usize {
        self.partial.len() + self.piece.len()
    }

    /// Adds what comes next. Take all events of the piece before first.
    pub(crate) fn feed(&mut self, piece: Bytes) {
        assert!(self.piece.is_empty(), "a piece is taken apart before the next one is fed");
        if self.partial.is_empty() {
            self.piece = piece;
        } else {
            self.partial.extend_from_slice(&piece);
        }
    }

    /// The next event, without its header; `None` until more is fed.
    ///
    /// # Errors
    /// `Protocol`: these are no events, as in a stream of bytes.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>> {
        let Some(bytes) = self.first()? else { return Ok(None) };
        let mut event = self.piece.split_to(bytes);
        event.advance(HEADER_BYTES);
        self.taken += bytes as u64;
        Ok(Some(event))
    }

    /// The next events that are here, up to so many (at least one), as they are stored: with their headers, one behind the
    /// other; and how many. `None` until more is fed.
    ///
    /// # Errors
    /// As [`next`](Self::next), once the events before are taken.
    pub(crate) fn next_stored(&mut self, count_max: usize) -> Result<Option<(Bytes, usize)>> {
        let Some(mut bytes) = self.first()? else { return Ok(None) };
        let mut count = 1;
        while count < count_max
            && let Ok(Some(length)) = whole(&self.piece[bytes..])
        {
            bytes += length;
            count += 1;
        }
        self.taken += bytes as u64;
        Ok(Some((self.piece.split_to(bytes), count)))
    }

    /// Bytes of the next event, which is whole in `piece` then.
    fn first(&mut self) -> Result<Option<usize>> {
        if !self.partial.is_empty() {
            let Some(bytes) = whole(&self.partial)? else { return Ok(None) };
            self.piece = std::mem::take(&mut self.partial).freeze();
            return Ok(Some(bytes));
        }
        let first = whole(&self.piece)?;
        if first.is_none() {
            let rest = std::mem::take(&mut self.piece);
            if !rest.is_empty() {
                // A large event gets its room at once.
                self.partial.reserve(wanted(&rest).unwrap_or(0).min(RESERVE_BYTES_MAX).max(rest.len()));
                self.partial.extend_from_slice(&rest);
            }
        }
        Ok(first)
    }
}

/// Events as they are stored, one behind the other.
#[derive(Clone, Debug)]
pub(crate) struct Stored<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Stored<'a> {
    /// An event, without its header.
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let bytes = wanted(self.0).expect("only whole events are here");
        let (event, rest) = self.0.split_at(bytes);
        self.0 = rest;
        Some(&event[HEADER_BYTES..])
    }
}

/// Room made for an event on the word of its header alone.
const RESERVE_BYTES_MAX: usize = 16 << 20;

/// Bytes of the event at the front, by its header.
fn wanted(bytes: &[u8]) -> Option<usize> {
    let length: [u8; 4] = bytes.get(4..HEADER_BYTES)?.try_into().expect("four bytes were taken");
    usize::try_from(i32::from_be_bytes(length)).ok().map(|length| HEADER_BYTES + length)
}

/// Bytes of the event at the front, if all of them are here.
fn whole(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(header) = bytes.get(..HEADER_BYTES) else { return Ok(None) };
    if header[..4] != [0; 4] {
        return Err(Error::new(ErrorKind::Protocol, "segment does not hold events here; it may be one of bytes"));
    }
    match wanted(bytes) {
        Some(wanted) => Ok((bytes.len() >= wanted).then_some(wanted)),
        None => Err(Error::new(ErrorKind::Protocol, "segment holds an event of negative length")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(events: &[&[u8]]) -> Bytes {
        let mut bytes = Vec::new();
        for event in events {
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&i32::try_from(event.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(event);
        }
        bytes.into()
    }

    fn read(pieces: &[&[u8]]) -> Vec<Bytes> {
        let (mut events, mut found) = (Events::default(), Vec::new());
        for piece in pieces {
            events.feed(Bytes::copy_from_slice(piece));
            while let Some(event) = events.next().unwrap() {
                found.push(event);
            }
        }
        found
    }

    #[test]
    fn events_are_the_same_however_their_bytes_are_cut() {
        let expected: [&[u8]; 4] = [b"one", b"", b"three and more", b"4"];
        let bytes = stored(&expected);
        assert_eq!(read(&[&bytes]), expected);
        for first in 0..bytes.len() {
            for second in first..bytes.len() {
                let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                assert_eq!(read(&pieces), expected, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn many_are_taken_as_they_are_stored_up_to_the_first_that_is_not_whole() {
        let (one, bytes) = (stored(&[b"one"]).len(), stored(&[b"one", b"", b"three", b"4"]));
        let mut events = Events::default();
        events.feed(bytes.slice(..bytes.len() - 1));
        assert_eq!(events.next_stored(1).unwrap(), Some((bytes.slice(..one), 1)));
        assert_eq!(events.taken(), one as u64);
        let (rest, count) = events.next_stored(9).unwrap().unwrap();
        assert_eq!((Stored(&rest).collect::<Vec<_>>(), count), (vec![&b""[..], b"three"], 2));
        assert_eq!(events.next_stored(9).unwrap(), None);
        events.feed(bytes.slice(bytes.len() - 1..));
        let (last, count) = events.next_stored(9).unwrap().unwrap();
        assert_eq!((Stored(&last).collect::<Vec<_>>(), count), (vec![&b"4"[..]], 1));
        // What is behind them and no event is told after them.
        events.feed([&bytes[..one], b"plain text"].concat().into());
        assert_eq!(events.next_stored(9).unwrap(), Some((bytes.slice(..one), 1)));
        assert_eq!(events.next_stored(9).unwrap_err().kind(), ErrorKind::Protocol);
    }

    #[test]
    fn what_is_no_event_is_refused() {
        for bytes in [&b"plain text"[..], &[0, 0, 0, 0, 0xff, 0, 0, 0]] {
            let mut events = Events::default();
            events.feed(Bytes::copy_from_slice(bytes));
            assert_eq!(events.next().unwrap_err().kind(), ErrorKind::Protocol);
        }
    }

    #[test]
    fn what_was_taken_is_counted_with_headers() {
        let mut events = Events::default();
        events.feed(stored(&[b"ab", b"c"]));
        events.next().unwrap();
        assert_eq!((events.taken(), events.pending()), (10, 9));
    }
}
