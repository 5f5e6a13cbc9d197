//! Reader groups that hold back a stream's retention: what they have not read, up to the policy's maximum, is kept.
//!
//! The records lie in the stream's own table, so they go with the stream.

use std::collections::BTreeSet;
use std::sync::Arc;

use headwater_types::ScopedStream;
use headwater_types::limits::NAME_BYTES_MAX;

use super::slots::Slot;
use super::{Inner, Result, put, remove};
use crate::model::{ControllerError, MoveSubscriber, PAGE_ENTRIES, SEGMENTS_MAX, SUBSCRIBERS_MAX, StreamCut};
use crate::ports::{Change, Expect, TableError};
use crate::state::cuts;
use crate::state::groups::Subscriber;
use crate::state::head::State;
use crate::state::keys;

/// Longest name of a subscriber, `scope/group`.
const SUBSCRIBER_BYTES_MAX: usize = 2 * NAME_BYTES_MAX + 1;

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
            if found.is_none() && self.has_as_many(&table, keys::SUBSCRIBER_PREFIX, SUBSCRIBERS_MAX).await? {
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
        Ok(Some(self.subscribers(&slot).await?.into_iter().map(|(name, _)| name).collect()))
    }

    pub(super) async fn subscribers(&self, slot: &Slot) -> Result<Vec<(String, Subscriber)>> {
        let mut found = Vec::new();
        let mut after: Option<bytes::Bytes> = None;
        loop {
            let scan = self.ports.tables.scan(&slot.table, keys::SUBSCRIBER_PREFIX, after.as_deref(), PAGE_ENTRIES);
            let page = scan.await?;
            let Some(last) = page.last() else { return Ok(found) };
            after = Some(last.key.clone());
            for entry in page {
                let name = String::from_utf8_lossy(&entry.key[keys::SUBSCRIBER_PREFIX.len()..]).into_owned();
                found.push((name, Subscriber::decode(&entry.value)?));
            }
        }
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
        let Some(view) = self.view(&slot).await?.filter(|view| view.head.state != State::Deleting) else {
            return Ok(MoveSubscriber::StreamNotFound);
        };
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
            let known = cuts::creation_epochs(&cut).is_some_and(|(_, highest)| highest <= view.head.epoch);
            if !known || cut.len() > SEGMENTS_MAX || !self.cut_is_valid(name, &cut).await? {
                return Ok(MoveSubscriber::CutNotValid);
            }
            if !self.cut_is_at_or_after(&slot, &cut, &record.cut).await? {
                return Ok(MoveSubscriber::CutNotValid);
            }
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

    /// Both cuts are valid, or `before` is empty.
    pub(super) async fn cut_is_at_or_after(&self, slot: &Slot, cut: &StreamCut, before: &StreamCut) -> Result<bool> {
        let Some((lowest, highest)) = cuts::creation_epochs(cut) else { return Ok(before.is_empty()) };
        let Some((before_lowest, before_highest)) = cuts::creation_epochs(before) else { return Ok(true) };
        let history = self.epochs(slot, lowest.min(before_lowest), highest.max(before_highest)).await?;
        Ok(cuts::is_equal_or_after(cut, before, &history))
    }
}
