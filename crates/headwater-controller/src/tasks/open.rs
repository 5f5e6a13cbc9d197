//! A stream under its lock: loading it, changing its head record, and finishing what is unfinished.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use headwater_types::ScopedStream;
use tokio::sync::OwnedMutexGuard;
use tracing::{debug, warn};

use super::slots::{Slot, View, locked};
use super::{Inner, Result, present, put, remove};
use crate::model::ControllerError;
use crate::ports::{Change, Expect, TableError};
use crate::state::epochs::{Epoch, SealedSegment};
use crate::state::head::{Head, State};
use crate::state::keys;

/// Pause of a driver after the first failure; doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause of a driver.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// A stream that nobody else changes meanwhile.
pub(super) struct Open {
    pub(super) inner: Arc<Inner>,
    pub(super) slot: Arc<Slot>,
    /// `None`: there is no such stream.
    pub(super) view: Option<Arc<View>>,
    /// A write is under way or failed: memory may be behind the table.
    pub(super) in_doubt: bool,
    _work: OwnedMutexGuard<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.in_doubt {
            self.slot.publish(None);
        }
        if self.in_doubt || self.view.as_ref().is_some_and(|view| view.head.is_unfinished()) {
            self.inner.kick(&self.slot);
        }
    }
}

impl Inner {
    /// Takes the stream's lock and loads it.
    pub(super) async fn open(self: &Arc<Self>, name: &ScopedStream) -> Result<Open> {
        let slot = self.slots.slot(name);
        self.open_slot(&slot).await
    }

    pub(super) async fn open_slot(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<Open> {
        let work = Arc::clone(&slot.work).lock_owned().await;
        let view = self.load(slot).await?;
        Ok(Open { inner: Arc::clone(self), slot: Arc::clone(slot), view, in_doubt: false, _work: work })
    }

    /// What the stream's records say, from memory if they are there; `None` for no such stream.
    pub(super) async fn view(&self, slot: &Slot) -> Result<Option<Arc<View>>> {
        if let Some(view) = slot.view() {
            return Ok(Some(view));
        }
        // Under the lock nobody publishes something newer between our read and our publication.
        let _work = slot.work.lock().await;
        self.load(slot).await
    }

    /// The caller holds `slot.work`.
    pub(super) async fn load(&self, slot: &Slot) -> Result<Option<Arc<View>>> {
        if let Some(view) = slot.view() {
            return Ok(Some(view));
        }
        let key = bytes::Bytes::from_static(keys::HEAD);
        let found = match self.ports.tables.read(&slot.table, &[key]).await {
            Ok(mut found) => found.pop().flatten(),
            Err(TableError::NoSuchTable(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let Some(entry) = found else { return Ok(None) };
        let head = Head::decode(&entry.value)?;
        // Whose bytes are at hand does not wait behind those whose bytes are slow to come.
        let current = self.read_epoch(slot, head.epoch).await?.ok_or_else(|| missing_epoch(slot, head.epoch))?;
        let view = Arc::new(View { head, version: entry.version, current });
        slot.publish(Some(Arc::clone(&view)));
        Ok(Some(view))
    }

    /// An epoch record; `None` if there is none of that number.
    pub(super) async fn epoch(&self, slot: &Slot, epoch: i32) -> Result<Option<Arc<Epoch>>> {
        if let Some(epoch) = slot.epoch(epoch) {
            return Ok(Some(epoch));
        }
        let _reading = self.records.acquire().await.expect("never closed");
        self.read_epoch(slot, epoch).await
    }

    async fn read_epoch(&self, slot: &Slot, epoch: i32) -> Result<Option<Arc<Epoch>>> {
        if let Some(epoch) = slot.epoch(epoch) {
            return Ok(Some(epoch));
        }
        let generation = slot.generation();
        let found = self.ports.tables.read(&slot.table, &[keys::epoch(epoch)]).await?.pop().flatten();
        let Some(entry) = found else { return Ok(None) };
        let record = Arc::new(Epoch::decode(&entry.value)?);
        if record.epoch != epoch {
            return Err(missing_epoch(slot, epoch));
        }
        slot.remember_epoch(Arc::clone(&record), generation);
        Ok(Some(record))
    }

    /// Sealing records of segments; `None` for those that are open.
    pub(super) async fn sealed(
        &self,
        slot: &Slot,
        segments: &[headwater_types::SegmentId],
    ) -> Result<Vec<Option<SealedSegment>>> {
        let mut found = Vec::with_capacity(segments.len());
        for chunk in segments.chunks(1000) {
            let keys: Vec<_> = chunk.iter().map(|id| keys::sealed(*id)).collect();
            for entry in self.ports.tables.read(&slot.table, &keys).await? {
                found.push(entry.map(|entry| SealedSegment::decode(&entry.value)).transpose()?);
            }
        }
        Ok(found)
    }

    /// Notes in the work table that the stream has something to finish.
    pub(super) async fn mark(&self, slot: &Slot) -> Result<()> {
        let mut mark = slot.mark.lock().await;
        if mark.is_none() {
            let change = put(keys::scoped_key(&slot.name), present());
            let versions = self.ports.tables.commit(keys::WORK, vec![change]).await?;
            *mark = versions.first().copied();
        }
        Ok(())
    }

    /// Takes the note back. The caller holds `slot.work` and knows that nothing is unfinished and no transaction is
    /// alive.
    pub(super) async fn unmark(&self, slot: &Slot) -> Result<()> {
        let mut mark = slot.mark.lock().await;
        let Some(version) = mark.take() else { return Ok(()) };
        let change = Change { key: keys::scoped_key(&slot.name), expect: Expect::Version(version), put: None };
        match self.ports.tables.commit(keys::WORK, vec![change]).await {
            // A later note has a later version, and stays.
            Ok(_) | Err(TableError::Conflict(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Has the stream's unfinished work done in the background.
    pub(super) fn kick(self: &Arc<Self>, slot: &Arc<Slot>) {
        if self.is_stopped() {
            return;
        }
        {
            let mut driver = locked(&slot.driver);
            driver.wanted = true;
            if driver.running {
                return;
            }
            driver.running = true;
        }
        let (inner, slot) = (Arc::clone(self), Arc::clone(slot));
        tokio::spawn(async move { inner.run_driver(&slot).await });
    }

    async fn run_driver(self: &Arc<Self>, slot: &Arc<Slot>) {
        let mut stopped = self.stopped.subscribe();
        let mut pause = PAUSE_MIN;
        loop {
            locked(&slot.driver).wanted = false;
            match self.drive(slot).await {
                Ok(()) => {
                    pause = PAUSE_MIN;
                    let mut driver = locked(&slot.driver);
                    if !driver.wanted {
                        driver.running = false;
                        return;
                    }
                }
                Err(error) => {
                    warn!(stream = %slot.name, %error, ?pause, "unfinished work is left, trying again");
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        _ = stopped.wait_for(|stopped| *stopped) => {}
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
            if self.is_stopped() {
                locked(&slot.driver).running = false;
                return;
            }
        }
    }

    async fn drive(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<()> {
        let _permit = self.drivers.acquire().await.map_err(|_| stopped())?;
        if slot.rearm.load(Ordering::Acquire) {
            self.rearm(slot).await?;
            slot.rearm.store(false, Ordering::Release);
        }
        let mut stream = self.open_slot(slot).await?;
        if stream.view.is_none() {
            return stream.remove_leftovers().await;
        }
        stream.settle().await?;
        if stream.view.is_some() {
            stream.run_aborts().await?;
            stream.run_commits().await?;
        }
        debug!(stream = %slot.name, "nothing is unfinished");
        Ok(())
    }
}

impl Open {
    /// The stream's records; only where it is known to exist.
    pub(super) fn view(&self) -> Result<Arc<View>> {
        self.view.clone().ok_or_else(|| ControllerError::NotFound(format!("stream {}", self.slot.name)))
    }

    pub(super) fn head(&self) -> Result<Head> {
        Ok(self.view()?.head.clone())
    }

    /// Replaces the head record and makes further changes with it, all or nothing. `current` is given when the current
    /// epoch changes.
    pub(super) async fn commit(
        &mut self,
        head: Head,
        current: Option<Arc<Epoch>>,
        mut changes: Vec<Change>,
    ) -> Result<()> {
        let view = self.view()?;
        let current = current.unwrap_or_else(|| Arc::clone(&view.current));
        assert_eq!(head.epoch, current.epoch, "the head names the current epoch");
        changes.insert(
            0,
            Change {
                key: bytes::Bytes::from_static(keys::HEAD),
                expect: Expect::Version(view.version),
                put: Some(head.encode()),
            },
        );
        self.in_doubt = true;
        let versions = self.inner.ports.tables.commit(&self.slot.table, changes).await?;
        let version = *versions.first().ok_or_else(|| ControllerError::Internal("a put has no version".into()))?;
        self.publish(head, version, current);
        Ok(())
    }

    /// Writes the first head record.
    pub(super) async fn commit_first(&mut self, head: Head, first: Epoch) -> Result<()> {
        let changes = vec![
            Change { key: bytes::Bytes::from_static(keys::HEAD), expect: Expect::Absent, put: Some(head.encode()) },
            put(keys::epoch(0), first.encode()),
        ];
        self.in_doubt = true;
        let versions = self.inner.ports.tables.commit(&self.slot.table, changes).await?;
        let version = *versions.first().ok_or_else(|| ControllerError::Internal("a put has no version".into()))?;
        self.publish(head, version, Arc::new(first));
        Ok(())
    }

    fn publish(&mut self, head: Head, version: i64, current: Arc<Epoch>) {
        self.slot.remember_epoch(Arc::clone(&current), self.slot.generation());
        let view = Arc::new(View { head, version, current });
        self.slot.publish(Some(Arc::clone(&view)));
        self.view = Some(view);
        self.in_doubt = false;
    }

    /// Changes records of the stream other than its head.
    pub(super) async fn commit_beside(&mut self, changes: Vec<Change>) -> Result<()> {
        self.inner.ports.tables.commit(&self.slot.table, changes).await?;
        Ok(())
    }

    /// Finishes whatever was begun: what a crash or an error interrupted, and what the caller just recorded.
    pub(super) async fn settle(&mut self) -> Result<()> {
        while let Some(view) = self.view.clone() {
            let head = &view.head;
            if head.is_unfinished() {
                self.inner.mark(&self.slot).await?;
            }
            if head.rolling.is_some() {
                self.finish_rolling().await?;
            } else if head.scale.is_some() {
                self.finish_scale().await?;
            } else if head.truncate.is_some() {
                self.finish_truncation().await?;
            } else if head.update.is_some() {
                self.finish_update().await?;
            } else {
                match head.state {
                    State::Creating => self.finish_creation().await?,
                    State::Sealing => self.finish_sealing().await?,
                    State::Deleting => self.finish_deletion().await?,
                    State::Active | State::Sealed => return Ok(()),
                }
            }
        }
        Ok(())
    }

    /// A creation that did not come as far as a head record, or a deletion that came beyond it.
    async fn remove_leftovers(&mut self) -> Result<()> {
        if self.slot.mark.lock().await.is_none() {
            return Ok(());
        }
        let scope = keys::scope_table(&self.slot.name.scope);
        let change = remove(keys::stream_entry(&self.slot.name.stream));
        match self.inner.ports.tables.commit(&scope, vec![change]).await {
            Ok(_) | Err(TableError::NoSuchTable(_)) => {}
            Err(error) => return Err(error.into()),
        }
        self.inner.ports.tables.drop_table(&self.slot.table).await?;
        *self.slot.times.lock().await = None;
        self.slot.forget_all();
        self.inner.unmark(&self.slot).await
    }
}

pub(super) fn missing_epoch(slot: &Slot, epoch: i32) -> ControllerError {
    ControllerError::Internal(format!("stream {} has no record of epoch {epoch}", slot.name))
}

pub(super) fn stopped() -> ControllerError {
    ControllerError::Unavailable("controller is shutting down".into())
}
