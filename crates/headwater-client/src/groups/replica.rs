//! A copy of the state that a group's readers agree on, and how it is changed.
//!
//! Guarantees:
//! * the copy is the state at its revision: all before it is applied, nothing behind it
//! * a change is appended only where its author has seen everything before it
//! * a dropped future leaves the copy at some revision; it may be behind, and is never wrong

use bytes::Bytes;
use headwater_records::RecordError;
use headwater_records::group::{Initial, Member, State, Update, decide};
use headwater_records::revisioned::Payload;

use super::calls::GroupName;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::revisioned::{Revision, RevisionedStream};

pub(super) struct Replica {
    pub(super) stream: RevisionedStream,
    pub(super) state: State,
    revision: Revision,
    /// Where the last whole state begins that is known of.
    whole: Revision,
    /// Of a reader's copy: its id, and whether it was put out since it joined. Another one of its id may be in the group.
    reader: Option<String>,
    is_out: bool,
}

/// What the first entry is that was fetched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum First {
    /// The one that was looked for.
    Wanted,
    /// Another, or there is none.
    Another,
    /// It is gone, and what it was with it.
    Gone,
}

impl Replica {
    /// Opens the state from the last whole one on.
    ///
    /// # Errors
    /// `NotFound`: there is no group, or it is only just being made.
    pub(super) async fn open(client: &Client, group: &GroupName) -> Result<Self> {
        let missing = |error: Error| if error.kind() == ErrorKind::NotFound { group.missing() } else { error };
        Self::load(client.revisioned_stream(&group.stream).await.map_err(missing)?).await
    }

    async fn load(stream: RevisionedStream) -> Result<Self> {
        loop {
            let begin = match stream.mark().await? {
                Some(mark) => mark,
                None => stream.oldest().await?,
            };
            let mut reader = match stream.read(begin).await {
                // Compacted meanwhile: the mark is elsewhere.
                Err(error) if error.kind() == ErrorKind::Truncated => continue,
                reader => reader?,
            };
            let first = match reader.next().await {
                Err(error) if error.kind() == ErrorKind::Truncated => continue,
                first => first?,
            };
            let Some((revision, entry)) = first else {
                let what =
                    format!("reader group of {} has no state yet; it may be only just being made", stream.stream());
                return Err(Error::new(ErrorKind::NotFound, what));
            };
            let malformed = |error| malformed(&stream, error);
            let state = match Payload::decode(&entry).map_err(malformed)? {
                Payload::Initial(state) => Initial::decode(&state).map_err(malformed)?.into(),
                Payload::Updates(_) => {
                    let what = format!("stream {} does not begin with the state of a group", stream.stream());
                    return Err(Error::new(ErrorKind::Protocol, what));
                }
            };
            let mut replica = Self { stream, state, revision, whole: begin, reader: None, is_out: false };
            replica.fetch().await?;
            return Ok(replica);
        }
    }

    /// Writes the state of a group that begins; `false` if it has one.
    pub(super) async fn begin(client: &Client, group: &GroupName, state: Initial) -> Result<bool> {
        let stream = client.revisioned_stream(&group.stream).await?;
        let entry = Payload::Initial(encoded(state.encode())?);
        Ok(stream.write_at(Revision::ZERO, &encoded(entry.encode())?).await?.is_some())
    }

    /// Applies what others have appended.
    pub(super) async fn fetch(&mut self) -> Result<()> {
        self.fetch_and_find(None).await.map(drop)
    }

    /// The same; says whether the first entry was this one.
    pub(super) async fn fetch_and_find(&mut self, wanted: Option<&Bytes>) -> Result<First> {
        let entries = match self.entries().await {
            // It slept through two compactions.
            Err(error) if error.kind() == ErrorKind::Truncated => {
                let loaded = Box::pin(Self::load(self.stream.clone())).await?;
                // What became of its reader meanwhile only the state says.
                *self = Self { reader: self.reader.take(), is_out: self.is_out, ..loaded };
                return Ok(First::Gone);
            }
            entries => entries?,
        };
        let first = entries.first().map(|(_, entry)| entry);
        let first = if first.is_some() && first == wanted { First::Wanted } else { First::Another };
        // All at once: who asks whether its entry is there learns so before anything is applied, or finds nothing applied.
        for (behind, entry) in entries {
            self.apply(&entry, behind)?;
        }
        Ok(first)
    }

    async fn entries(&self) -> Result<Vec<(Revision, Bytes)>> {
        let mut reader = self.stream.read(self.revision).await?;
        let mut entries = Vec::new();
        while let Some(entry) = reader.next().await? {
            entries.push(entry);
        }
        Ok(entries)
    }

    fn apply(&mut self, entry: &Bytes, behind: Revision) -> Result<()> {
        let malformed = |error| malformed(&self.stream, error);
        match Payload::decode(entry).map_err(malformed)? {
            Payload::Initial(state) => {
                self.state = Initial::decode(&state).map_err(malformed)?.into();
                self.whole = self.revision;
            }
            Payload::Updates(updates) => {
                let updates = updates.iter().map(|update| Update::decode(update).map_err(malformed));
                let updates: Vec<Update> = updates.collect::<Result<_>>()?;
                let contradicts = |error| {
                    let what = format!("stream {} holds a change that cannot be", self.stream.stream());
                    Error::caused(ErrorKind::Protocol, what, error)
                };
                if let [update] = updates.as_slice() {
                    self.state.apply(update).map_err(contradicts)?;
                } else {
                    // All of them or none.
                    let mut state = self.state.clone();
                    updates.iter().try_for_each(|update| state.apply(update)).map_err(contradicts)?;
                    self.state = state;
                }
                let puts_out = |update: &Update| match update {
                    Update::RemoveReader { reader, .. } => self.reader.as_ref() == Some(reader),
                    Update::Replace(_) => self.reader.is_some(),
                    _ => false,
                };
                self.is_out |= updates.iter().any(puts_out);
            }
        }
        self.revision = behind;
        Ok(())
    }

    /// Appends an entry where everything is known before it, and applies it. `false` if something else is there.
    pub(super) async fn append(&mut self, entry: &Bytes) -> Result<bool> {
        match self.stream.write_at(self.revision, entry).await? {
            Some(behind) => self.apply(entry, behind).map(|()| true),
            None => Ok(false),
        }
    }

    /// Appends an entry wherever the end is. It is applied when it is fetched.
    pub(super) async fn append_anywhere(&self, entry: &Bytes) -> Result<()> {
        self.stream.write(entry).await
    }

    /// Changes the state by what `decide` makes of it, as often as others are faster. `false` if it makes nothing.
    pub(super) async fn change(&mut self, mut decide: impl FnMut(&State) -> Result<Vec<Update>>) -> Result<bool> {
        loop {
            self.fetch().await?;
            let updates = decide(&self.state)?;
            if updates.is_empty() {
                return Ok(false);
            }
            if self.append(&entry(&updates)?).await? {
                return Ok(true);
            }
        }
    }

    /// Adds a reader. From here on this is its copy, and notes when it is put out.
    pub(super) async fn join(&mut self, decide: impl FnMut(&State) -> Result<Vec<Update>>, reader: &str) -> Result<()> {
        self.change(decide).await?;
        self.reader = Some(reader.to_owned());
        Ok(())
    }

    /// The reader was put out since it joined.
    pub(super) fn is_out(&self) -> bool {
        self.is_out
    }

    /// Takes the reader out with where it is. `false` if it is out, whoever has its id now.
    pub(super) async fn leave(&mut self, member: &Member) -> Result<bool> {
        loop {
            self.fetch().await?;
            let Some(update) = member.leave(&self.state).filter(|_| !self.is_out) else { return Ok(false) };
            if self.append(&entry(&[update])?).await? {
                return Ok(true);
            }
        }
    }

    /// Once in a while, writes the whole state, marks it and drops what came before the last marked one. Others that read
    /// from there meanwhile are not disturbed, and that somebody else was faster does no harm.
    pub(super) async fn compact(&mut self) -> Result<()> {
        let chance = f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX);
        if !decide::compacts(self.revision.offset() - self.whole.offset(), chance) {
            return Ok(());
        }
        let begin = self.revision;
        let state = Initial::Compacted(Box::new(self.state.compacted()));
        let whole = encoded(Payload::Initial(encoded(state.encode())?).encode())?;
        if !self.append(&whole).await? {
            return Ok(());
        }
        let mark = self.stream.mark().await?;
        if mark.is_none_or(|mark| mark < begin)
            && self.stream.replace_mark(mark, Some(begin)).await?
            && let Some(mark) = mark
        {
            self.stream.truncate(mark).await?;
        }
        Ok(())
    }
}

/// Changes as one entry.
///
/// # Errors
/// `Invalid`: a name or an offset that the form cannot hold.
pub(super) fn entry(updates: &[Update]) -> Result<Bytes> {
    let updates = updates.iter().map(Update::encode).collect::<std::result::Result<Vec<_>, _>>();
    encoded(Payload::Updates(encoded(updates)?).encode())
}

fn encoded<T>(outcome: std::result::Result<T, RecordError>) -> Result<T> {
    outcome.map_err(|error| Error::caused(ErrorKind::Invalid, "state of the reader group cannot be written", error))
}

fn malformed(stream: &RevisionedStream, error: RecordError) -> Error {
    let what = format!("stream {} does not hold the state of a group", stream.stream());
    Error::caused(ErrorKind::Protocol, what, error)
}
