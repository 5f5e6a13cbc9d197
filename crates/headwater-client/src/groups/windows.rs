//! What time it is where a group reads, from the marks that the server writes into the mark stream of each stream.
//!
//! A mark says of a place in the stream: writers had noted no time below its lower bound for anything behind it, and none above its
//! upper bound for anything before it. The group has passed a mark when every reader has said that it is at it or behind it.
//!
//! Source: what a window is, and when a mark is passed, are those of `getCurrentTimeWindow` of Pravega's Java client; where no
//! mark is ahead of all readers, that one names the upper bound of the last mark, which what was read may exceed.

use std::collections::VecDeque;
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
    /// Nothing that was read up to here was written after this time; `None` if no mark is ahead of all readers, as at the end
    /// of the stream.
    pub upper: Option<i64>,
}

/// Marks kept that the group has not passed: one that reads some segments long before others has many.
const AHEAD_MAX: usize = 256;

/// The marks of one stream, read no further than to the first that no reader is behind.
pub(super) struct Marks {
    stream: RevisionedStream,
    /// Behind the last one that was read.
    revision: Option<Revision>,
    /// Those that are there.
    reader: Option<RevisionReader>,
    ahead: Ahead,
}

impl fmt::Debug for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { revision, ahead, .. } = self;
        f.debug_struct("Marks").field("revision", revision).field("ahead", ahead).finish_non_exhaustive()
    }
}

/// Where the group is in one segment: its keys, if they are known, and the offset.
type Place = (SegmentId, Option<KeyRange>, i64);

/// Whether readers at these places are before the mark anywhere, and whether they are behind it anywhere.
fn compare(places: &[Place], mark: &Watermark) -> (bool, bool) {
    let (mut before, mut behind) = (false, false);
    for (id, range, offset) in places {
        for (marked, (keys, marked_offset)) in &mark.position {
            if marked == id {
                before |= *offset != READ && offset < marked_offset;
                behind |= *offset == READ || offset > marked_offset;
            } else if range.is_none_or(|range| range.overlaps(*keys)) {
                // Of segments that share keys the one of the earlier epoch comes first; those of one epoch share none.
                before |= id.epoch < marked.epoch;
                behind |= id.epoch > marked.epoch;
            }
        }
    }
    (before, behind)
}

/// What marks say to a group.
#[derive(Debug, Default)]
struct Ahead {
    /// Those that the group has not passed, in their order. Readers may be behind all but the last of them somewhere.
    marks: VecDeque<Watermark>,
    /// The lower bound of those that it has passed.
    passed: Option<i64>,
}

impl Ahead {
    /// The group is at these places now.
    fn look(&mut self, places: &[Place]) {
        while let Some(mark) = self.marks.pop_front_if(|mark| !compare(places, mark).0) {
            self.passed = Some(mark.lower).max(self.passed);
        }
    }

    /// Adds the next mark.
    fn add(&mut self, places: &[Place], mark: Watermark) {
        if !compare(places, &mark).0 {
            self.passed = Some(mark.lower).max(self.passed);
            return;
        }
        if self.marks.len() == AHEAD_MAX {
            // The lower bound grows in larger steps then: the one goes whose neighbours are closest to each other.
            let step = |at: &usize| self.marks[at + 1].lower.saturating_sub(self.marks[at - 1].lower);
            if let Some(at) = (1..AHEAD_MAX - 1).min_by_key(step) {
                self.marks.remove(at);
            }
        }
        self.marks.push_back(mark);
    }

    /// The upper bound of the first mark that readers at these places are nowhere behind, if it is known already.
    fn upper(&self, places: &[Place]) -> Option<i64> {
        // A mark before it says nothing: what one reader has read behind that may be of a later time.
        self.marks.back().filter(|mark| !compare(places, mark).1).map(|mark| mark.upper)
    }
}

impl Marks {
    async fn open(client: &Client, stream: &ScopedStream) -> Result<Self> {
        let invalid = |error| Error::caused(ErrorKind::Invalid, format!("stream {stream} has no marks"), error);
        let name = Name::parse(&format!("_MARK{}", stream.stream)).map_err(invalid)?;
        let stream = client.revisioned_stream(&ScopedStream { scope: stream.scope.clone(), stream: name }).await?;
        Ok(Self { stream, revision: None, reader: None, ahead: Ahead::default() })
    }

    /// The window of a group that is at these places. A dropped future loses nothing.
    async fn window(&mut self, places: &[Place]) -> Result<TimeWindow> {
        self.ahead.look(places);
        loop {
            let upper = self.ahead.upper(places);
            let next = if upper.is_none() { self.next().await? } else { None };
            match next {
                Some(mark) => self.ahead.add(places, mark),
                None => return Ok(TimeWindow { lower: self.ahead.passed, upper }),
            }
        }
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
        let passed = |places: &[Place]| !compare(places, &mark).0;
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
        let passed = |places: &[Place]| !compare(places, &mark).0;
        let (low, high) = (Some((0.0, 0.5)), Some((0.5, 1.0)));
        assert!(!passed(&[at(0, 0, low, 500), at(1, 0, high, 20)]));
        assert!(!passed(&[at(0, 0, None, READ), at(1, 0, high, 20)]), "unknown keys may be any");
        assert!(passed(&[at(2, 1, low, 0), at(1, 0, high, 20)]));
    }

    #[test]
    fn what_was_read_bounds_the_window_from_above() {
        let two = |lower, upper, first, second| Watermark {
            lower,
            upper,
            ..mark(&[(0, 0, 0.0, 0.5, first), (1, 0, 0.5, 1.0, second)])
        };
        let places = |first, second| [at(0, 0, Some((0.0, 0.5)), first), at(1, 0, Some((0.5, 1.0)), second)];
        let mut marks = VecDeque::from([two(100, 120, 10, 20), two(200, 220, 50, 150), two(300, 320, 60, 160)]);
        let mut ahead = Ahead::default();
        let mut window = |places: &[Place]| {
            ahead.look(places);
            while ahead.upper(places).is_none()
                && let Some(mark) = marks.pop_front()
            {
                ahead.add(places, mark);
            }
            (ahead.passed, ahead.upper(places))
        };
        assert_eq!(window(&places(5, 20)), (None, Some(120)));
        assert_eq!(window(&places(5, 100)), (None, Some(220)), "the second segment was read behind the first mark");
        assert_eq!(window(&places(10, 150)), (Some(100), Some(220)));
        assert_eq!(window(&places(49, 155)), (Some(100), Some(320)));
        assert_eq!(window(&places(50, 161)), (Some(200), None), "no mark is ahead of both");
        assert_eq!(window(&places(60, 161)), (Some(300), None));
        assert_eq!(compare(&[at(2, 1, Some((0.0, 1.0)), 0)], &two(1, 2, 0, 0)), (false, true), "it follows on both");
        assert_eq!(compare(&[at(0, 0, None, READ)], &two(1, 2, 7, 7)), (false, true));
    }

    #[test]
    fn marks_between_a_slow_reader_and_a_fast_one_are_thinned_out() {
        let places = |first, second| [at(0, 0, Some((0.0, 0.5)), first), at(1, 0, Some((0.5, 1.0)), second)];
        let mut ahead = Ahead::default();
        for at in 1..=10_000 {
            assert_eq!(ahead.upper(&places(0, 10_000)), None);
            let position = mark(&[(0, 0, 0.0, 0.5, at), (1, 0, 0.5, 1.0, at)]).position;
            ahead.add(&places(0, 10_000), Watermark { lower: at, upper: at + 1, position });
            assert!(ahead.marks.len() <= AHEAD_MAX);
        }
        assert_eq!(ahead.upper(&places(0, 10_000)), Some(10_001));
        ahead.look(&places(5_000, 10_000));
        assert!(ahead.passed.is_some_and(|passed| (4_000..=5_000).contains(&passed)), "{:?}", ahead.passed);
        ahead.look(&places(10_000, 10_000));
        assert_eq!(ahead.passed, Some(10_000));
    }
}
