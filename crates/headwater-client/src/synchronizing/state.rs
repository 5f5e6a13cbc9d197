//! A state that is one value, kept as a list of changes in a [`RevisionedStream`].
//!
//! Guarantees:
//! * all copies go through the same states, in the same order
//! * a conditional change is applied to exactly the state it was decided on
//! * whoever comes late, or behind a compaction, begins with a whole state and no part of one
//!
//! Source: Pravega's `StateSynchronizer`; entries, mark and truncation are the same, so that Java clients can take part if the
//! states and updates themselves are encoded alike.

use std::fmt;

use bytes::Bytes;
use headwater_records::revisioned::Payload;
use headwater_types::ScopedStream;

use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::revisioned::{Revision, RevisionedStream};

/// How often a state is looked for again that is truncated away meanwhile (each time somebody has compacted), and a mark moved
/// again after a lost answer.
const ATTEMPTS_MAX: usize = 10;

/// A value that is shared, and how it and its changes are written.
pub trait SharedState: Sized {
    /// A change.
    type Update;

    /// The state as bytes, less than 8 MiB.
    fn encode(&self) -> Bytes;

    /// The state that [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// These bytes are none; `Protocol` is the kind for it.
    fn decode(bytes: &Bytes) -> Result<Self>;

    /// A change as bytes.
    fn encode_update(update: &Self::Update) -> Bytes;

    /// The change that [`encode_update`](Self::encode_update) wrote.
    ///
    /// # Errors
    /// These bytes are none; `Protocol` is the kind for it.
    fn decode_update(bytes: &Bytes) -> Result<Self::Update>;

    /// Makes a change. It has to come out alike wherever it is made: no clock, no chance.
    fn apply(&mut self, update: Self::Update);
}

/// One process's copy of a shared state.
#[doc = crate::example!("../examples/state_synchronizer.rs")]
pub struct StateSynchronizer<S> {
    stream: RevisionedStream,
    /// With the revision behind the last entry that was applied.
    current: Option<(S, Revision)>,
}

impl<S> fmt::Debug for StateSynchronizer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateSynchronizer")
            .field("stream", &self.stream)
            .field("revision", &self.current.as_ref().map(|(_, revision)| revision))
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A copy of the state that is shared in a stream of one segment. It is empty until the first
    /// [`fetch`](StateSynchronizer::fetch) or [`initialize`](StateSynchronizer::initialize).
    ///
    /// # Errors
    /// `NotFound`; `Sealed`; `Invalid`: the stream has several segments.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn state_synchronizer<S: SharedState>(&self, stream: &ScopedStream) -> Result<StateSynchronizer<S>> {
        Ok(StateSynchronizer { stream: self.revisioned_stream(stream).await?, current: None })
    }
}

impl<S: SharedState> StateSynchronizer<S> {
    /// The state as it was when it was fetched or changed here last; `None` if there was none.
    pub fn state(&self) -> Option<&S> {
        self.current.as_ref().map(|(state, _)| state)
    }

    /// The place behind the last change that [`state`](Self::state) has.
    pub fn revision(&self) -> Option<Revision> {
        self.current.as_ref().map(|(_, revision)| *revision)
    }

    /// The stream that holds the state.
    pub fn stream(&self) -> &RevisionedStream {
        &self.stream
    }

    /// Sets the state if there never was one, and fetches the one that is there. Whether this one was set.
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch); after `Unavailable` it **may have been set**. `Invalid`: the state is too large.
    ///
    /// # Cancel safety
    /// It may have been set.
    pub async fn initialize(&mut self, state: S) -> Result<bool> {
        let entry = encoded(&Payload::Initial(state.encode()))?;
        match self.stream.write_at(Revision::ZERO, &entry).await? {
            Some(revision) => {
                self.current = Some((state, revision));
                Ok(true)
            }
            None => {
                self.fetch().await?;
                Ok(false)
            }
        }
    }

    /// Applies all changes that others have made until now. Returns the state; `None` if there is none yet.
    ///
    /// # Errors
    /// * `Protocol`: the stream holds something else, or bytes that [`SharedState`] does not take;
    /// * `NotFound`: the stream was deleted. `Unavailable`, `Denied`. The next call goes on from where this one came to.
    ///
    /// # Cancel safety
    /// The state may have some of the changes; the next call goes on.
    pub async fn fetch(&mut self) -> Result<Option<&S>> {
        for attempt in 1.. {
            match self.catch_up().await {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::Truncated && attempt < ATTEMPTS_MAX => {
                    // Somebody has compacted: what is before is in the whole state that follows.
                    self.current = None;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self.state())
    }

    async fn catch_up(&mut self) -> Result<()> {
        let from = match &self.current {
            Some((_, revision)) => *revision,
            None => match self.stream.mark().await? {
                Some(mark) => mark,
                None => self.stream.oldest().await?,
            },
        };
        let mut entries = self.stream.read(from).await?;
        while let Some((revision, entry)) = entries.next().await? {
            self.take(revision, &entry)?;
        }
        Ok(())
    }

    /// Applies an entry as a whole.
    fn take(&mut self, revision: Revision, entry: &Bytes) -> Result<()> {
        let payload = Payload::decode(entry).map_err(|error| {
            let what = format!("{} holds something else than a shared state", self.stream.segment());
            Error::caused(ErrorKind::Protocol, what, error)
        })?;
        match payload {
            Payload::Initial(state) => self.current = Some((S::decode(&state)?, revision)),
            Payload::Updates(updates) => {
                // Changes of a state that was never set change nothing.
                let Some((state, applied)) = &mut self.current else { return Ok(()) };
                let updates: Vec<_> = updates.iter().map(S::decode_update).collect::<Result<_>>()?;
                for update in updates {
                    state.apply(update);
                }
                *applied = revision;
            }
        }
        Ok(())
    }

    /// Changes the state: `decide` is shown it and says what to do, which is done if nobody else was faster; otherwise it is
    /// asked again with what others have made of it. Nothing is written when it returns no changes. Returns the state after it.
    ///
    /// The changes of one call are applied together or not at all; they have less than 8 MiB.
    ///
    /// # Errors
    /// * `Conflict`: there is no state; [`initialize`](Self::initialize) it;
    /// * `Unavailable`: the changes **may have been made**; fetch and look;
    /// * `Invalid`: they are too large. Otherwise as [`fetch`](Self::fetch).
    ///
    /// # Cancel safety
    /// The changes may have been made.
    pub async fn update(&mut self, mut decide: impl FnMut(&S) -> Vec<S::Update>) -> Result<&S> {
        if self.current.is_none() {
            self.fetch().await?;
        }
        loop {
            let (state, revision) = self.current.as_mut().ok_or_else(|| missing(&self.stream))?;
            let updates = decide(state);
            if updates.is_empty() {
                break;
            }
            let entry = encoded(&Payload::Updates(updates.iter().map(S::encode_update).collect()))?;
            if let Some(behind) = self.stream.write_at(*revision, &entry).await? {
                for update in updates {
                    state.apply(update);
                }
                *revision = behind;
                break;
            }
            self.fetch().await?;
        }
        self.state().ok_or_else(|| missing(&self.stream))
    }

    /// Makes changes whatever the state is. This copy has them after the next [`fetch`](Self::fetch).
    ///
    /// # Errors
    /// `Unavailable`: they **may have been made**. `Invalid`: there are none, or they are too large. `NotFound`, `Sealed`,
    /// `Denied`.
    ///
    /// # Cancel safety
    /// They may have been made.
    pub async fn update_anyway(&self, updates: &[S::Update]) -> Result<()> {
        if updates.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "nothing to change"));
        }
        let entry = encoded(&Payload::Updates(updates.iter().map(S::encode_update).collect()))?;
        self.stream.write(&entry).await
    }

    /// Writes the whole state, marks it as the place to begin, and drops what lies before the place marked last: so much stays
    /// that nobody who is just reading loses the way. Call it now and then, or the stream grows for ever.
    ///
    /// # Errors
    /// As [`update`](Self::update); the state itself does not change.
    ///
    /// # Cancel safety
    /// It may be half done, which does no harm.
    pub async fn compact(&mut self) -> Result<()> {
        if self.current.is_none() {
            self.fetch().await?;
        }
        let begin = loop {
            let (state, revision) = self.current.as_mut().ok_or_else(|| missing(&self.stream))?;
            let entry = encoded(&Payload::Initial(state.encode()))?;
            if let Some(behind) = self.stream.write_at(*revision, &entry).await? {
                break std::mem::replace(revision, behind);
            }
            self.fetch().await?;
        };
        let old = self.stream.mark().await?;
        if old.is_none_or(|old| old < begin)
            && self.move_mark(old, begin).await?
            && let Some(old) = old
        {
            self.stream.truncate(old).await?;
        }
        Ok(())
    }

    /// Whether the mark is at `begin` now. Nobody else moves it there: what begins there is an entry of ours.
    async fn move_mark(&self, old: Option<Revision>, begin: Revision) -> Result<bool> {
        for attempt in 1.. {
            let lost = match self.stream.replace_mark(old, Some(begin)).await {
                Err(error) if error.kind() == ErrorKind::Unavailable && attempt < ATTEMPTS_MAX => error,
                outcome => return outcome,
            };
            tracing::debug!(target: crate::told::RETRY, stream = %self.stream.stream(), error = %lost, "mark may have moved");
            let now = self.stream.mark().await?;
            if now != old {
                return Ok(now == Some(begin));
            }
        }
        Ok(false)
    }
}

fn encoded(payload: &Payload) -> Result<Bytes> {
    payload.encode().map_err(|error| Error::caused(ErrorKind::Invalid, "shared state is too large", error))
}

fn missing(stream: &RevisionedStream) -> Error {
    Error::new(ErrorKind::Conflict, format!("{} holds no state yet", stream.segment()))
}
