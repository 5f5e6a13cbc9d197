//! Readers that beat, and who finds out that one has stopped.
//!
//! A beat is a number in an attribute of the group's segment, one for each reader that beats: other readers, Java's among them,
//! neither see it nor lose anything by it. Nobody compares clocks: whoever watches counts how often it has looked and found the
//! same number, and looks at its own pace. A look that fails counts for nothing, so that a server that is away, or a process that
//! was asleep, makes nobody dead.
//!
//! Guarantees:
//! * a reader that never beats is never taken for dead
//! * one that beats is not before it was silent for the longer of the two times: its own and that of whoever watches
//! * nobody beats for another one of its id, which may have come after it was taken for dead
//! * what a dead reader had goes on from where it said last that everything was handled; for a reader that hands over at
//!   checkpoints, from its last checkpoint

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use headwater_records::Offsets;
use headwater_records::group::{Handover, State, decide};
use headwater_types::AttributeId;
use tokio::task::JoinHandle;

use super::ReaderGroup;
use crate::error::{Error, ErrorKind, Result};
use crate::revisioned::RevisionedStream;
use crate::segments::ASKED_AT_ONCE;

/// Looks in the time after which a reader is dead.
const LOOKS: u32 = 10;
/// Shorter times would take a slow answer for a death.
const DEAD_AFTER_MIN: Duration = Duration::from_secs(1);
/// What 31 bits of milliseconds hold: more than three weeks.
const DEAD_AFTER_MS_MAX: u64 = (1 << 31) - 1;

/// What a reader says of itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Beat {
    /// Grows with each beat, from a number by chance: one that comes back is not taken for what it was when it died, nor for
    /// another one of its id.
    count: u32,
    /// Its own idea of when it is dead: it beats [`LOOKS`] times in this time.
    dead_after: Duration,
    handover: Handover,
}

const COUNT_MAX: u32 = (1 << 31) - 1;

impl Beat {
    fn next(self) -> Self {
        Self { count: if self.count >= COUNT_MAX { 0 } else { self.count + 1 }, ..self }
    }

    fn encode(self) -> i64 {
        let millis = u64::try_from(self.dead_after.as_millis()).unwrap_or(u64::MAX).min(DEAD_AFTER_MS_MAX);
        let is_at_once = u64::from(self.handover == Handover::AtOnce);
        (u64::from(self.count & COUNT_MAX) << 32 | millis << 1 | is_at_once).cast_signed()
    }

    /// `None`: somebody else has written this.
    fn decode(value: i64) -> Option<Self> {
        let value = u64::try_from(value).ok()?;
        let handover = if value & 1 == 1 { Handover::AtOnce } else { Handover::AtCheckpoint };
        let dead_after = Duration::from_millis(value >> 1 & DEAD_AFTER_MS_MAX);
        Some(Self { count: (value >> 32) as u32, dead_after, handover })
    }
}

fn attribute_of(reader: &str) -> AttributeId {
    AttributeId::named(&format!("HeadwaterBeat {reader}"))
}

/// Time of one look.
fn look_every(dead_after: Duration) -> Duration {
    dead_after / LOOKS
}

/// How often each beating reader was found as it was.
#[derive(Debug, Default)]
struct Silences(BTreeMap<String, (Beat, u32)>);

impl Silences {
    /// Judges by one look at all readers that beat, and returns those that are dead.
    fn look(&mut self, seen: &BTreeMap<String, Beat>, dead_after: Duration) -> Vec<(String, Beat)> {
        self.0.retain(|reader, _| seen.contains_key(reader));
        let mut dead = Vec::new();
        for (reader, beat) in seen {
            let looks = match self.0.get(reader) {
                Some((last, looks)) if last == beat => looks + 1,
                _ => 0,
            };
            self.0.insert(reader.clone(), (*beat, looks));
            if look_every(dead_after) * looks >= dead_after.max(beat.dead_after) {
                dead.push((reader.clone(), *beat));
            }
        }
        dead
    }
}

/// Declares readers of a group offline that beat and have stopped, for as long as this is kept. See [`ReaderGroup::watch`].
#[derive(Debug)]
pub struct GroupWatch(JoinHandle<()>);

impl Drop for GroupWatch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The beats of one reader.
#[derive(Debug)]
pub(super) struct Beating {
    stream: RevisionedStream,
    attribute: AttributeId,
    /// The last that is known to be stored.
    beat: Beat,
    /// What the attribute is, as far as is known: the beat, nothing, or at first what was there before.
    stored: Option<i64>,
}

impl Beating {
    /// Beats for the first time.
    pub(super) async fn begin(
        group: &ReaderGroup,
        reader: &str,
        handover: Handover,
        dead_after: Duration,
    ) -> Result<Self> {
        let (stream, attribute) = (group.stream().await, attribute_of(reader));
        let dead_after = dead_after.max(DEAD_AFTER_MIN);
        let count = uuid::Uuid::new_v4().as_fields().0 & COUNT_MAX;
        let mut beating = Self { stream, attribute, beat: Beat { count, dead_after, handover }, stored: None };
        // What one of its id has left, somebody may just be taking away.
        loop {
            beating.stored = beating.stream.attribute(attribute).await?;
            if beating.beat().await? {
                return Ok(beating);
            }
        }
    }

    /// Beats; `false` if the next beat has to do it. After an error the next one is the same, and may be stored already.
    async fn beat(&mut self) -> Result<bool> {
        let next = self.beat.next();
        let value = Some(next.encode());
        if self.stream.replace_attribute(self.attribute, self.stored, value).await? {
            (self.beat, self.stored) = (next, value);
            return Ok(true);
        }
        match self.stream.attribute(self.attribute).await? {
            // An answer was lost.
            found if found == value => {
                (self.beat, self.stored) = (next, value);
                return Ok(true);
            }
            // Who has taken it away has taken the reader out, or is another one of its id, which could not join.
            None => self.stored = None,
            // Another one of its id beats. In its name it would not be found dead; if it is about to fail, this one goes on.
            Some(_) => {}
        }
        Ok(false)
    }

    /// Nobody is to wait for another beat.
    pub(super) async fn end(&mut self) -> Result<()> {
        match self.stored {
            stored @ Some(_) => self.stream.replace_attribute(self.attribute, stored, None).await.map(drop),
            None => Ok(()),
        }
    }
}

impl ReaderGroup {
    /// Declares readers offline that beat and have stopped for `dead_after`, at least 1 s; until the watch is dropped. Readers
    /// with [`ReaderOptions::dead_after`](super::ReaderOptions::dead_after) beat and do the same; this is for a process that
    /// supervises readers without being one.
    ///
    /// Readers that do not beat, as Java's, are never declared offline by it; [`reader_offline`](Self::reader_offline) does that.
    ///
    /// A beating reader that was only slow loses nothing but its segments: it stops with `Closed`, also if another one of its id
    /// has joined meanwhile, and what it had delivered and not reported is read again.
    pub fn watch(&self, dead_after: Duration) -> GroupWatch {
        GroupWatch(tokio::spawn(run(self.clone(), None, dead_after.max(DEAD_AFTER_MIN))))
    }

    /// The same, beating for a reader.
    pub(super) fn watch_for(&self, reader: &str, beating: Beating) -> GroupWatch {
        let dead_after = beating.beat.dead_after;
        GroupWatch(tokio::spawn(run(self.clone(), Some((reader.to_owned(), beating)), dead_after)))
    }

    /// Takes a reader out that has not beaten since it was seen.
    async fn bury(&self, reader: &str, seen: Beat) -> Result<()> {
        let (stream, attribute) = (self.stream().await, attribute_of(reader));
        if stream.attribute(attribute).await? != Some(seen.encode()) {
            return Ok(());
        }
        tracing::info!(target: crate::told::GROUP, group = %self.name(), reader, silent = ?seen.dead_after, "reader has stopped beating, declaring it offline");
        let at_once = seen.handover == Handover::AtOnce;
        self.change(|state| {
            let handled = if at_once { reported(state, reader) } else { Offsets::new() };
            Ok(decide::offline(state, reader, &handled).into_iter().collect())
        })
        .await?;
        stream.replace_attribute(attribute, Some(seen.encode()), None).await.map(drop)
    }
}

/// The reader is out of the group: nobody waits for its beats.
pub(super) async fn forget(stream: &RevisionedStream, reader: &str) -> Result<()> {
    let attribute = attribute_of(reader);
    match stream.attribute(attribute).await? {
        stored @ Some(_) => stream.replace_attribute(attribute, stored, None).await.map(drop),
        None => Ok(()),
    }
}

/// Where a reader said last that it was, in what it has.
fn reported(state: &State, reader: &str) -> Offsets {
    let held = state.assigned().get(reader).into_iter().flatten();
    held.filter_map(|(segment, _)| Some((segment.clone(), *state.last_read().get(segment)?))).collect()
}

/// Looks at the group for ever, and beats if there is somebody to beat for.
async fn run(group: ReaderGroup, mut reader: Option<(String, Beating)>, dead_after: Duration) {
    let mut silences = Silences::default();
    loop {
        tokio::time::sleep(look_every(dead_after)).await;
        match look(&group, &mut reader, &mut silences, dead_after).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) if error.kind() == ErrorKind::NotFound => return,
            Err(error) => {
                tracing::debug!(target: crate::told::RETRY, group = %group.name(), %error, "group was not looked at")
            }
        }
    }
}

/// One beat and one look; `false` if the reader is not in the group any more.
async fn look(
    group: &ReaderGroup,
    reader: &mut Option<(String, Beating)>,
    silences: &mut Silences,
    dead_after: Duration,
) -> Result<bool> {
    let mut online: BTreeSet<String> = group.online_readers().await?;
    if let Some((reader, beating)) = reader {
        if !online.remove(reader) {
            beating.end().await?;
            return Ok(false);
        }
        beating.beat().await?;
    }
    let stream = group.stream().await;
    let asked = online.into_iter().map(|reader| {
        let stream = stream.clone();
        async move {
            let value = stream.attribute(attribute_of(&reader)).await?;
            Ok::<_, Error>(value.and_then(Beat::decode).map(|beat| (reader, beat)))
        }
    });
    let seen = futures::stream::iter(asked).buffer_unordered(ASKED_AT_ONCE).try_collect::<Vec<_>>().await?;
    let seen = seen.into_iter().flatten().collect();
    for (dead, beat) in silences.look(&seen, dead_after) {
        group.bury(&dead, beat).await?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEAD_AFTER: Duration = Duration::from_secs(1);

    fn beat(count: u32) -> Beat {
        Beat { count, dead_after: DEAD_AFTER, handover: Handover::AtOnce }
    }

    /// Number of looks after which a reader is dead whose beats are these, one for each look; the last one stays.
    fn looks(beats: &[Beat], dead_after: Duration) -> usize {
        let mut silences = Silences::default();
        let beats = beats.iter().chain(std::iter::repeat(beats.last().unwrap()));
        let looks = beats.take(1000).take_while(|beat| {
            let seen = [("a".to_owned(), **beat)].into();
            silences.look(&seen, dead_after).is_empty()
        });
        looks.count()
    }

    #[test]
    fn a_reader_is_dead_after_ten_silent_looks_or_as_many_as_it_wants() {
        assert_eq!(looks(&[beat(1)], DEAD_AFTER), 10);
        assert_eq!(looks(&[beat(1), beat(2), beat(3)], DEAD_AFTER), 12);
        let patient = Beat { dead_after: DEAD_AFTER * 3, ..beat(1) };
        assert_eq!(looks(&[patient], DEAD_AFTER), 30);
        assert_eq!(looks(&[beat(1)], DEAD_AFTER * 5), 10, "looks are further apart then");
    }

    #[test]
    fn one_that_comes_back_begins_anew() {
        let mut silences = Silences::default();
        let mut look = |seen: &[(&str, u32)]| {
            let seen = seen.iter().map(|(reader, count)| ((*reader).to_owned(), beat(*count))).collect();
            silences.look(&seen, DEAD_AFTER).into_iter().map(|(reader, _)| reader).collect::<Vec<_>>()
        };
        for _ in 0..10 {
            assert!(look(&[("a", 1), ("b", 1)]).is_empty());
        }
        assert_eq!(look(&[("a", 1)]), ["a"]);
        assert!(look(&[("b", 1)]).is_empty(), "it was gone between");
    }

    #[test]
    fn beats_come_back_and_other_numbers_are_none() {
        let long = Duration::from_millis(DEAD_AFTER_MS_MAX);
        for beat in [beat(0), beat(COUNT_MAX), Beat { dead_after: long, handover: Handover::AtCheckpoint, ..beat(7) }] {
            assert_eq!(Beat::decode(beat.encode()), Some(beat));
        }
        assert_eq!([Beat::decode(-1), Beat::decode(i64::MIN)], [None; 2]);
    }
}
