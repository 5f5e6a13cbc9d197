//! Reader groups that hold back a stream's retention: what they have not read, up to the policy's maximum, is kept.
//!
//! The records lie in the stream's own table, so they go with the stream.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use headwater_types::ScopedStream;
use headwater_types::limits::NAME_BYTES_MAX;

use super::slots::Slot;
use super::walks::For;
use super::{Inner, Result, put, remove};
use crate::model::{ControllerError, MoveSubscriber, SEGMENTS_MAX, SUBSCRIBERS_MAX, StreamCut};
use crate::ports::{Change, Expect, TableError};
use crate::state::groups::Subscriber;
use crate::state::head::State;
use crate::state::keys;

/// Longest name of a subscriber, `scope/group`.
const SUBSCRIBER_BYTES_MAX: usize = 2 * NAME_BYTES_MAX + 1;
/// Records that hold a cut each, of up to 160 KB, read at a time.
pub(super) const CUTS_PER_PAGE: usize = 8;

impl Inner {
    /// Asks, before anything of a group is written, whether each of the streams may be held back by it. Groups that
    /// come at the same time may be a few more than the limit.
    pub(super) async fn admit_subscriber(&self, streams: &BTreeSet<&ScopedStream>, subscriber: &str) -> Result<()> {
        let key = keys::subscriber(subscriber);
        for stream in streams {
            let table = keys::stream_table(stream);
            let found = match self.ports.tables.read(&table, std::slice::from_ref(&key)).await {
                Ok(mut found) => found.pop().flatten(),
                Err(TableError::NoSuchTable(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            if found.is_none() && self.count(&table, keys::SUBSCRIBER_PREFIX, SUBSCRIBERS_MAX).await? >= SUBSCRIBERS_MAX
            {
                let text = format!("{SUBSCRIBERS_MAX} reader groups hold back the retention of {stream}");
                return Err(ControllerError::Exhausted(text));
            }
        }
        Ok(())
    }

    /// Notes that a group holds the stream back, from its beginning on. A stream that does not exist is held by nobody.
    /// The same call again changes nothing.
    pub(super) async fn subscribe(
        &self,
        stream: &ScopedStream,
        subscriber: &str,
        id: u128,
        generation: i64,
    ) -> Result<()> {
        let (table, key) = (keys::stream_table(stream), keys::subscriber(subscriber));
        // Retention decides under this lock: what it does not see yet must not have been answered.
        let slot = self.slots.slot(stream);
        let _work = slot.work.lock().await;
        let found = match self.ports.tables.read(&table, std::slice::from_ref(&key)).await {
            Ok(mut found) => found.pop().flatten(),
            Err(TableError::NoSuchTable(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if let Some(entry) = found {
            let before = Subscriber::decode(&entry.value)?;
            if before.id == id && before.generation >= generation {
                return Ok(());
            }
        }
        let record = Subscriber { id, generation, cut: StreamCut::new() };
        self.commit_if_there(&table, put(key, record.encode())).await
    }

    pub(super) async fn unsubscribe(&self, stream: &ScopedStream, subscriber: &str) -> Result<()> {
        self.commit_if_there(&keys::stream_table(stream), remove(keys::subscriber(subscriber))).await
    }

    async fn commit_if_there(&self, table: &str, change: Change) -> Result<()> {
        match self.ports.tables.commit(table, vec![change]).await {
            Ok(_) | Err(TableError::NoSuchTable(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Names `scope/group`; `None` if there is no such stream.
    pub(super) async fn list_subscribers(&self, name: &ScopedStream) -> Result<Option<Vec<String>>> {
        let slot = self.slots.slot(name);
        if self.view(&slot).await?.is_none_or(|view| view.head.state == State::Deleting) {
            return Ok(None);
        }
        let (mut names, mut after) = (Vec::new(), None::<Bytes>);
        loop {
            let page = self.subscribers(&slot, after.as_deref()).await?;
            let Some((last, _)) = page.last() else { return Ok(Some(names)) };
            after = Some(last.clone());
            let name = |key: &Bytes| String::from_utf8_lossy(&key[keys::SUBSCRIBER_PREFIX.len()..]).into_owned();
            names.extend(page.iter().map(|(key, _)| name(key)));
        }
    }

    /// Some subscribers behind a key, with their keys; none at the end.
    pub(super) async fn subscribers(&self, slot: &Slot, after: Option<&[u8]>) -> Result<Vec<(Bytes, Subscriber)>> {
        let page = self.ports.tables.scan(&slot.table, keys::SUBSCRIBER_PREFIX, after, CUTS_PER_PAGE).await?;
        page.into_iter().map(|entry| Ok((entry.key, Subscriber::decode(&entry.value)?))).collect()
    }

    pub(super) async fn move_subscriber(
        self: &Arc<Self>,
        name: &ScopedStream,
        subscriber: &str,
        id: u128,
        generation: i64,
        cut: StreamCut,
    ) -> Result<MoveSubscriber> {
        let slot = self.slots.slot(name);
        if self.view(&slot).await?.is_none_or(|view| view.head.state == State::Deleting) {
            return Ok(MoveSubscriber::StreamNotFound);
        }
        // No group has such a name, and no table such a key.
        if subscriber.len() > SUBSCRIBER_BYTES_MAX {
            return Ok(MoveSubscriber::SubscriberNotFound);
        }
        let key = keys::subscriber(subscriber);
        loop {
            let found = self.ports.tables.read(&slot.table, std::slice::from_ref(&key)).await?.pop().flatten();
            let Some(entry) = found else { return Ok(MoveSubscriber::SubscriberNotFound) };
            let record = Subscriber::decode(&entry.value)?;
            if record.id != id {
                return Ok(MoveSubscriber::SubscriberNotFound);
            }
            if record.generation != generation {
                return Ok(MoveSubscriber::GenerationMismatch);
            }
            if cut.is_empty() || cut.len() > SEGMENTS_MAX {
                return Ok(MoveSubscriber::CutNotValid);
            }
            let mut walk = self.walk(&slot, For::Client);
            let Some(surface) = walk.surface(&cut).await? else { return Ok(MoveSubscriber::CutNotValid) };
            if !walk.is_at_or_after((&surface, &cut), &record.cut).await? {
                return Ok(MoveSubscriber::CutNotValid);
            }
            drop((walk, surface));
            let record = Subscriber { cut: cut.clone(), ..record };
            let change =
                Change { key: key.clone(), expect: Expect::Version(entry.version), put: Some(record.encode()) };
            match self.ports.tables.commit(&slot.table, vec![change]).await {
                Ok(_) => return Ok(MoveSubscriber::Success),
                // Moved, updated or removed meanwhile.
                Err(TableError::Conflict(_)) => {}
                Err(TableError::NoSuchTable(_)) => return Ok(MoveSubscriber::StreamNotFound),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
