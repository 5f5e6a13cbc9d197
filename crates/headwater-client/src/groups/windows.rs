//! What time it is where a group reads, from the marks that the server writes into the mark stream of each stream.
//!
//! A mark says of a place in the stream: writers had noted no time below its lower bound for anything behind it, and none above its
//! upper bound for anything before it. The group has passed a mark when every reader has said that it is behind it.
//!
//! Source: what a window is, and when a mark is passed, are those of `getCurrentTimeWindow` of Pravega's Java client.

use std::fmt;

use headwater_records::{READ, Watermark};
use headwater_types::{KeyRange, Name, ScopedStream, SegmentId};

use super::reader::EventReader;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::revisioned::{Revision, RevisionReader, RevisionedStream};

/// Between which times the events are that a group reads next, in the unit of [`note_time`](crate::EventWriter::note_time).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TimeWindow {
    /// Nothing that is read from here on was written before this time, as far as its writers noted times; `None` if no mark
    /// was passed yet.
    pub lower: Option<i64>,
    /// Nothing that was read up to here was written after this time; `None` if there is no mark ahead, as at the end of the
    /// stream.
    pub upper: Option<i64>,
}

/// The marks of one stream, read no further than to the first that the group has not passed.
pub(super) struct Marks {
    stream: RevisionedStream,
    /// Behind the last one that was read.
    revision: Option<Revision>,
    /// Those that are there.
    reader: Option<RevisionReader>,
    ahead: Option<Watermark>,
    passed: Option<i64>,
}

impl fmt::Debug for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { revision, ahead, passed, .. } = self;
        f.debug_struct("Marks")
            .field("revision", revision)
            .field("ahead", ahead)
            .field("passed", passed)
            .finish_non_exhaustive()
    }
}

/// Where the group is in one segment: its keys, if they are known, and the offset.
type Place = (SegmentId, Option<KeyRange>, i64);

/// Whether readers at these places have passed the mark.
fn has_passed(places: &[Place], mark: &Watermark) -> bool {
    places.iter().all(|(id, range, offset)| {
        let before = |(marked, (keys, marked_offset)): (&SegmentId, &(KeyRange, i64))| {
            if marked == id {
                return *offset != READ && offset < marked_offset;
            }
            // Of segments that share keys the one of the earlier epoch comes first; those of one epoch share none.
            id.epoch < marked.epoch && range.is_none_or(|range| range.overlaps(*keys))
        };
        !mark.position.iter().any(before)
    })
}

impl Marks {
    async fn open(client: &Client, stream: &ScopedStream) -> Result<Self> {
        let invalid = |error| Error::caused(ErrorKind::Invalid, format!("stream {stream} has no marks"), error);
        let name = Name::parse(&format!("_MARK{}", stream.stream)).map_err(invalid)?;
        let stream = client.revisioned_stream(&ScopedStream { scope: stream.scope.clone(), stream: name }).await?;
        Ok(Self { stream, revision: None, reader: None, ahead: None, passed: None })
    }

    /// The window of a group that is at these places. A dropped future loses nothing.
    async fn window(&mut self, places: &[Place]) -> Result<TimeWindow> {
        loop {
            match &self.ahead {
                Some(mark) if has_passed(places, mark) => self.passed = Some(mark.lower).max(self.passed),
                Some(_) => break,
                None => {}
            }
            self.ahead = self.next().await?;
            if self.ahead.is_none() {
                break;
            }
        }
        Ok(TimeWindow { lower: self.passed, upper: self.ahead.as_ref().map(|mark| mark.upper) })
    }

    async fn next(&mut self) -> Result<Option<Watermark>> {
        loop {
            if self.reader.is_none() {
                let begin = match self.revision {
                    Some(revision) => revision,
                    None => match self.stream.mark().await? {
                        Some(mark) => mark,
                        None => self.stream.oldest().await?,
                    },
                };
                match self.stream.read(begin).await {
                    Ok(reader) => self.reader = Some(reader),
                    // The server has let go of old marks. Later ones tell more.
                    Err(error) if error.kind() == ErrorKind::Truncated => {
                        self.revision = Some(self.stream.oldest().await?);
                    }
                    Err(error) => return Err(error),
                }
                continue;
            }
            let reader = self.reader.as_mut().expect("it was just made");
            match reader.next().await {
                Ok(Some((behind, entry))) => {
                    self.revision = Some(behind);
                    let odd = |error| {
                        let what = format!("stream {} does not hold marks", self.stream.stream());
                        Error::caused(ErrorKind::Protocol, what, error)
                    };
                    return Watermark::decode(&entry).map(Some).map_err(odd);
                }
                Ok(None) => {
                    self.reader = None;
                    return Ok(None);
                }
                Err(error) if error.kind() == ErrorKind::Truncated => {
                    (self.reader, self.revision) = (None, Some(self.stream.oldest().await?));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl EventReader {
    /// What time it is where the group reads one of its streams, as far as writers [noted times](crate::EventWriter::note_time)
    /// and readers said where they are, which each does every few seconds. Asks the server for new marks.
    ///
    /// # Errors
    /// * `Invalid`: the group does not read the stream;
    /// * `NotFound`: the stream or the group was deleted. `Closed`: the group has put the reader out;
    /// * `Protocol`: the mark stream holds something else. `Unavailable`, `Denied`.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn time_window(&mut self, stream: &ScopedStream) -> Result<TimeWindow> {
        let places: Vec<Place> = {
            let state = self.state().await?;
            if !state.configuration().starting.contains_key(stream) {
                let what = format!("the group of reader {} does not read stream {stream}", self.id());
                return Err(Error::new(ErrorKind::Invalid, what));
            }
            let of_stream = state.last_read().iter().filter(|(segment, _)| segment.stream == *stream);
            of_stream.map(|(segment, offset)| (segment.id, state.range(segment), *offset)).collect()
        };
        if !self.marks.contains_key(stream) {
            let marks = Marks::open(self.client(), stream).await?;
            self.marks.insert(stream.clone(), marks);
        }
        self.marks.get_mut(stream).expect("they were just opened").window(&places).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(position: &[(i32, i32, f64, f64, i64)]) -> Watermark {
        let place = |(number, epoch, low, high, offset): &(i32, i32, f64, f64, i64)| {
            (SegmentId::new(*number, *epoch), (KeyRange::new(*low, *high).unwrap(), *offset))
        };
        Watermark { lower: 1, upper: 2, position: position.iter().map(place).collect() }
    }

    fn at(number: i32, epoch: i32, keys: Option<(f64, f64)>, offset: i64) -> (SegmentId, Option<KeyRange>, i64) {
        (SegmentId::new(number, epoch), keys.map(|(low, high)| KeyRange::new(low, high).unwrap()), offset)
    }

    #[test]
    fn a_mark_is_passed_when_all_segments_are_at_it_or_behind() {
        let mark = mark(&[(0, 0, 0.0, 0.5, 10), (1, 0, 0.5, 1.0, 20)]);
        let passed = |places: &[Place]| has_passed(places, &mark);
        let (low, high) = (Some((0.0, 0.5)), Some((0.5, 1.0)));
        assert!(passed(&[at(0, 0, low, 10), at(1, 0, high, 20)]));
        assert!(!passed(&[at(0, 0, low, 9), at(1, 0, high, 20)]));
        assert!(passed(&[at(0, 0, None, 10), at(1, 0, None, 25)]), "one segment is itself, whatever its keys");
        assert!(passed(&[at(0, 0, low, READ), at(1, 0, high, READ)]));
        assert!(passed(&[at(2, 1, Some((0.0, 1.0)), 0)]), "it follows on both");
        assert!(passed(&[]), "there is nothing to be read");
    }

    #[test]
    fn who_reads_what_came_before_a_scale_has_not_passed_a_mark_behind_it() {
        let mark = mark(&[(2, 1, 0.0, 0.5, 0), (1, 0, 0.5, 1.0, 20)]);
        let passed = |places: &[Place]| has_passed(places, &mark);
        let (low, high) = (Some((0.0, 0.5)), Some((0.5, 1.0)));
        assert!(!passed(&[at(0, 0, low, 500), at(1, 0, high, 20)]));
        assert!(!passed(&[at(0, 0, None, READ), at(1, 0, high, 20)]), "unknown keys may be any");
        assert!(passed(&[at(2, 1, low, 0), at(1, 0, high, 20)]));
    }
}
