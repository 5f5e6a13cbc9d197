//! What a group's own record says of its readers: the list of changes that all of them agree on, as somebody reads it who
//! takes no part.

use super::{GROUP, Stage};
use anyhow::{Context, Result};
use bytes::Bytes;
use headwater_client::{Error, ErrorKind, Revision, RevisionedStream, ScopedStream, StreamSegment};
use headwater_records::group::{Initial, State, Update};
use headwater_records::revisioned::Payload;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// Ids of all readers that are out of the group, by themselves or not. No reader comes back under its id.
pub(super) type Gone = Arc<Mutex<BTreeSet<String>>>;

pub(super) struct Register {
    record: RevisionedStream,
    behind: Revision,
    known: Known,
}

/// What was learnt from the record.
#[derive(Default)]
struct Known {
    state: Option<State>,
    /// The record was cut off behind the last entry that was noted: it goes on with a whole state.
    is_cut: bool,
    /// How often the group was reset.
    generation: usize,
    /// The same at the time when each reader joined.
    joined: BTreeMap<String, usize>,
    /// Of each reader that is out, how far it had said last that it was in each segment that it had.
    said: BTreeMap<String, BTreeMap<StreamSegment, u64>>,
    /// What the generation was before and after each piece of the record that nobody saw.
    missed: BTreeSet<usize>,
    gone: Gone,
}

impl Register {
    pub(super) async fn open(stage: &Stage) -> Result<Self> {
        let stream = ScopedStream::parse(&format!("{}/_RG{GROUP}", stage.stream.scope))?;
        let record = stage.client.revisioned_stream(&stream).await.context("open the group's record")?;
        Ok(Self { record, behind: Revision::ZERO, known: Known::default() })
    }

    pub(super) fn gone(&self) -> Gone {
        self.known.gone.clone()
    }

    /// Notes everything that was recorded since the last time.
    ///
    /// # Cancel safety
    /// What was noted stays noted.
    pub(super) async fn catch_up(&mut self) -> Result<()> {
        while let Err(error) = self.read_on().await {
            let is_cut = error.downcast_ref().is_some_and(|error: &Error| error.kind() == ErrorKind::Truncated);
            if !is_cut {
                return Err(error);
            }
            // Readers have written a whole state twice since, and dropped what came before the first.
            (self.behind, self.known.is_cut) = (self.record.oldest().await?, true);
        }
        Ok(())
    }

    async fn read_on(&mut self) -> Result<()> {
        let mut entries = self.record.read(self.behind).await?;
        while let Some((behind, entry)) = entries.next().await? {
            self.known.note(&entry)?;
            self.behind = behind;
        }
        Ok(())
    }

    /// How often the group was reset.
    pub(super) fn generation(&self) -> usize {
        self.known.generation
    }

    /// The same before a reader joined.
    pub(super) fn joined(&self, reader: &str) -> Result<usize> {
        self.known.joined(reader)
    }

    /// Whether others go on before an event that this reader had, if it went without a word: it had the event's segment to
    /// the last, and had not said that it was further.
    pub(super) fn is_unsaid(&self, reader: &str, event: &super::readers::Handed) -> bool {
        self.known.is_unsaid(reader, &event.segment, event.offset)
    }
}

impl Known {
    fn note(&mut self, entry: &Bytes) -> Result<()> {
        let updates = match Payload::decode(entry).context("an entry of the group's record")? {
            // The first one, or all of it once more.
            Payload::Initial(state) => {
                let state: State = Initial::decode(&state).context("a group's state")?.into();
                if std::mem::take(&mut self.is_cut) {
                    self.miss(&state);
                }
                self.state = Some(state);
                return Ok(());
            }
            Payload::Updates(updates) => updates,
        };
        for update in &updates {
            let update = Update::decode(update).context("a change of a group")?;
            let state = self.state.as_mut().context("a record begins with a state")?;
            let out: Vec<String> = match &update {
                Update::RemoveReader { reader, .. } if state.is_online(reader) => vec![reader.clone()],
                Update::Replace(_) => state.assigned().keys().cloned().collect(),
                _ => Vec::new(),
            };
            // Who leaves says with that where it is.
            let leaves_at = |segment| match &update {
                Update::RemoveReader { offsets, .. } => offsets.get(segment),
                _ => None,
            };
            for reader in out {
                let said = state.assigned()[&reader].keys().filter_map(|segment| {
                    let said = state.last_read().get(segment).into_iter().chain(leaves_at(segment));
                    // Below zero it had said that the segment is read to its end.
                    let furthest = said.map(|said| u64::try_from(*said).unwrap_or(u64::MAX)).max()?;
                    Some((segment.clone(), furthest))
                });
                self.said.insert(reader.clone(), said.collect());
                self.gone.lock().expect("nobody panics with it").insert(reader);
            }
            match &update {
                Update::AddReader { reader } => _ = self.joined.insert(reader.clone(), self.generation),
                Update::Replace(_) => self.generation += 1,
                _ => {}
            }
            state.apply(&update).context("a change that contradicts the group's state")?;
        }
        Ok(())
    }

    /// Makes of the state behind a piece of the record that nobody saw what can be made of it.
    fn miss(&mut self, behind: &State) {
        let Some(before) = &self.state else { return };
        self.missed.insert(self.generation);
        let resets = behind.configuration().generation.saturating_sub(before.configuration().generation);
        self.generation += usize::try_from(resets).unwrap_or(0);
        self.missed.insert(self.generation);
        let out = before.assigned().keys().filter(|reader| resets > 0 || !behind.is_online(reader));
        self.gone.lock().expect("nobody panics with it").extend(out.cloned());
        for reader in behind.assigned().keys() {
            self.joined.entry(reader.clone()).or_insert(self.generation);
        }
    }

    /// One that nobody saw joined while nobody looked. That has to have been in one generation.
    fn joined(&self, reader: &str) -> Result<usize> {
        let seen = self.joined.get(reader).copied();
        let unseen = self.missed.first().copied().filter(|_| self.missed.len() == 1);
        seen.or(unseen).with_context(|| format!("reader {reader} has never joined, or nobody knows when"))
    }

    fn is_unsaid(&self, reader: &str, segment: &StreamSegment, offset: u64) -> bool {
        match self.said.get(reader) {
            Some(said) => said.get(segment).is_some_and(|said| *said <= offset),
            // It is still there, or went while nobody looked.
            None => !self.missed.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_client::SegmentId;
    use headwater_records::Offsets;
    use headwater_records::group::Compacted;

    fn segment(number: i64) -> StreamSegment {
        let stream = ScopedStream::parse("s/t").expect("a stream");
        StreamSegment { stream, id: SegmentId::from_i64(number).expect("an id") }
    }

    fn offsets(of: &[(i64, i64)]) -> Offsets {
        of.iter().map(|(number, offset)| (segment(*number), *offset)).collect()
    }

    /// A state with these readers and what each of them has.
    fn whole(generation: i64, readers: &[(&str, &[(i64, i64)])]) -> Initial {
        let mut state = Compacted::default();
        state.configuration.generation = generation;
        for (reader, held) in readers {
            state.assigned.insert((*reader).to_owned(), offsets(held));
            state.last_read.extend(offsets(held));
        }
        Initial::Compacted(Box::new(state))
    }

    fn state(state: &Initial) -> Bytes {
        Payload::Initial(state.encode().expect("a state")).encode().expect("an entry")
    }

    fn change(update: &Update) -> Bytes {
        Payload::Updates(vec![update.encode().expect("a change")]).encode().expect("an entry")
    }

    fn known(entries: &[Bytes]) -> Known {
        let mut known = Known::default();
        entries.iter().for_each(|entry| known.note(entry).expect("an entry"));
        known
    }

    #[test]
    fn who_is_put_out_has_not_said_what_is_behind_its_last_word_and_who_leaves_has_said_all() {
        let begin = state(&whole(0, &[("a", &[(0, 100)]), ("b", &[(1, 50), (2, 70)])]));
        let remove = |reader: &str, offsets| change(&Update::RemoveReader { reader: reader.to_owned(), offsets });
        let known = known(&[begin, remove("a", offsets(&[(0, 300)])), remove("b", offsets(&[(2, -1)]))]);
        let unsaid = |reader: &str, number: i64| {
            [0, 50, 70, 100, 299, 300, 1_000].map(|offset| known.is_unsaid(reader, &segment(number), offset))
        };
        assert_eq!(unsaid("a", 0), [false, false, false, false, false, true, true], "it left at 300");
        assert_eq!(unsaid("b", 1), [false, true, true, true, true, true, true], "its last word was 50");
        assert_eq!(unsaid("b", 2), [false; 7], "it had read it to its end");
        assert_eq!([unsaid("a", 1), unsaid("c", 0)], [[false; 7]; 2]);
        assert!(known.joined("c").is_err());
        assert_eq!(*known.gone.lock().expect("a list"), BTreeSet::from(["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn what_nobody_saw_is_made_up_from_the_state_behind_it() {
        let begin = state(&whole(3, &[("stays", &[(0, 100)]), ("leaves", &[(1, 50)])]));
        let mut known = known(&[begin, change(&Update::AddReader { reader: "seen".to_owned() })]);
        let is_gone = |known: &Known, reader: &str| known.gone.lock().expect("a list").contains(reader);
        known.is_cut = true;
        let entry = state(&whole(3, &[("stays", &[(0, 200)]), ("seen", &[]), ("new", &[])]));
        known.note(&entry).expect("an entry");
        assert_eq!(["seen", "new", "short"].map(|reader| known.joined(reader).expect("a generation")), [0; 3]);
        assert!(is_gone(&known, "leaves") && !is_gone(&known, "stays"));
        assert!(known.is_unsaid("leaves", &segment(1), 0), "nobody knows what it said");

        known.is_cut = true;
        let entry = state(&whole(4, &[("newest", &[])]));
        known.note(&entry).expect("an entry");
        assert_eq!(["seen", "new", "newest"].map(|reader| known.joined(reader).expect("a generation")), [0, 0, 1]);
        assert!(known.joined("short").is_err(), "before the reset or behind it");
        assert_eq!(known.generation, 1);
        assert!(["stays", "seen", "new"].iter().all(|reader| is_gone(&known, reader)));
    }
}
