//! What a group's own record says of its readers: the list of changes that all of them agree on, as somebody reads it who
//! takes no part.

use super::{GROUP, Stage};
use anyhow::{Context, Result};
use bytes::Bytes;
use headwater_client::{Revision, RevisionedStream, ScopedStream};
use headwater_records::Offsets;
use headwater_records::group::{Initial, State, Update};
use headwater_records::revisioned::Payload;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// Ids of all readers that are out of the group, by themselves or not. No reader comes back under its id.
pub(super) type Gone = Arc<Mutex<BTreeSet<String>>>;

pub(super) struct Register {
    record: RevisionedStream,
    behind: Revision,
    state: Option<State>,
    /// How often the group was reset.
    generation: usize,
    /// The same at the time when each reader joined.
    joined: BTreeMap<String, usize>,
    /// Of each reader that is out, how far it had said last that it was in each segment that it had.
    said: BTreeMap<String, Offsets>,
    gone: Gone,
}

impl Register {
    pub(super) async fn open(stage: &Stage) -> Result<Self> {
        let stream = ScopedStream::parse(&format!("{}/_RG{GROUP}", stage.stream.scope))?;
        Ok(Self {
            record: stage.client.revisioned_stream(&stream).await.context("open the group's record")?,
            behind: Revision::ZERO,
            state: None,
            generation: 0,
            joined: BTreeMap::new(),
            said: BTreeMap::new(),
            gone: Gone::default(),
        })
    }

    pub(super) fn gone(&self) -> Gone {
        self.gone.clone()
    }

    /// Notes everything that was recorded since the last time.
    ///
    /// # Cancel safety
    /// What was noted stays noted.
    pub(super) async fn catch_up(&mut self) -> Result<()> {
        let mut entries = self.record.read(self.behind).await?;
        while let Some((behind, entry)) = entries.next().await? {
            self.note(&entry)?;
            self.behind = behind;
        }
        Ok(())
    }

    fn note(&mut self, entry: &Bytes) -> Result<()> {
        let updates = match Payload::decode(entry).context("an entry of the group's record")? {
            // The first one, or all of it once more.
            Payload::Initial(state) => {
                self.state = Some(Initial::decode(&state).context("a group's state")?.into());
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
            for reader in out {
                let held = state.assigned()[&reader].keys();
                let said = held.filter_map(|segment| Some((segment.clone(), *state.last_read().get(segment)?)));
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

    /// How often the group was reset.
    pub(super) fn generation(&self) -> usize {
        self.generation
    }

    /// The same before a reader joined.
    pub(super) fn joined(&self, reader: &str) -> Result<usize> {
        self.joined.get(reader).copied().with_context(|| format!("reader {reader} has never joined"))
    }

    /// Whether others go on before an event that this reader had, if it went without a word: it had the event's segment to
    /// the last, and had not said that it was further.
    pub(super) fn is_unsaid(&self, reader: &str, event: &super::readers::Handed) -> bool {
        let said = self.said.get(reader).and_then(|said| said.get(&*event.segment));
        // Below zero it had said that the segment is read to its end.
        said.and_then(|said| u64::try_from(*said).ok()).is_some_and(|said| said <= event.offset)
    }
}
