//! Starting after whatever ended the last run, and looking after streams in the background.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use headwater_types::{Name, ScopedStream};
use tracing::{info, warn};

use super::items::{Item, item_of};
use super::scopes::SYSTEM;
use super::slots::Slot;
use super::{Inner, Result};
use crate::model::{ControllerError, CreateScope, PAGE_ENTRIES};
use crate::ports::TableError;
use crate::state::keys;

/// How often notes of work that is done are taken back.
const SWEEP: Duration = Duration::from_secs(30);

impl Inner {
    /// Makes the common tables, reads the work table and has everything in it finished in the background. Idle streams
    /// are not touched. Nothing has to be finished before calls are served: whoever opens a stream settles it first.
    pub(super) async fn recover(self: &Arc<Self>) -> Result<()> {
        for table in
            [keys::SCOPES, keys::COUNTERS, keys::DELETED, keys::WORK, keys::TIMES, keys::RETENTION, keys::SCALING]
        {
            self.ports.tables.create(table).await?;
        }
        self.recover_clock().await?;
        let mut after: Option<bytes::Bytes> = None;
        let mut count = 0;
        loop {
            let page = self.ports.tables.scan(keys::WORK, b"", after.as_deref(), PAGE_ENTRIES).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            for entry in page {
                count += 1;
                match work_of(&entry.key)? {
                    Work::Scope(scope) => drop(tokio::spawn(Arc::clone(self).resume_scope(scope))),
                    Work::Item(item) => drop(tokio::spawn(Arc::clone(self).resume_item(item))),
                    Work::Stream(stream) => {
                        let slot = self.slots.slot(&stream);
                        *slot.mark.lock().await = Some(entry.version);
                        slot.rearm.store(true, Ordering::Release);
                        self.kick(&slot);
                    }
                }
            }
        }
        self.recover_times().await?;
        let system = Name::parse(SYSTEM).expect("the name follows the rule");
        if self.create_scope(system).await? == CreateScope::Success {
            info!("first start");
        }
        info!(unfinished = count, "controller recovered");
        tokio::spawn(Arc::clone(self).run_clock());
        tokio::spawn(Arc::clone(self).run_leases());
        tokio::spawn(Arc::clone(self).run_sweeps());
        tokio::spawn(Arc::clone(self).run_watermarks());
        tokio::spawn(Arc::clone(self).run_retention());
        tokio::spawn(Arc::clone(self).run_purges());
        tokio::spawn(Arc::clone(self).run_autoscale());
        tokio::spawn(Arc::clone(self).find_scaled());
        Ok(())
    }

    async fn run_sweeps(self: Arc<Self>) {
        let mut stopped = self.stopped.subscribe();
        loop {
            tokio::select! {
                () = tokio::time::sleep(SWEEP) => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
            for slot in self.slots.all() {
                if let Err(error) = self.sweep(&slot).await {
                    warn!(stream = %slot.name, %error, "could not take back a note of work");
                }
            }
        }
    }

    /// Takes back the stream's note in the work table if nothing is left to do. Waits for nobody: who is busy with the
    /// stream is looked at the next time.
    async fn sweep(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<()> {
        if slot.mark.try_lock().is_ok_and(|mark| mark.is_none()) || slot.rearm.load(Ordering::Acquire) {
            return Ok(());
        }
        let Ok(_work) = Arc::clone(&slot.work).try_lock_owned() else { return Ok(()) };
        let Ok(_creating) = slot.creators.try_write() else { return Ok(()) };
        if slot.view().is_some_and(|view| view.head.is_unfinished()) {
            self.kick(slot);
            return Ok(());
        }
        for prefix in [keys::OPEN_PREFIX, keys::ABORTING_PREFIX, keys::COMMITTING_PREFIX] {
            match self.ports.tables.scan(&slot.table, prefix, None, 1).await {
                Ok(found) if found.is_empty() => {}
                // What is left of a stream without records is its driver's.
                Ok(_) | Err(TableError::NoSuchTable(_)) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        // Only now: records that had to give way to others are not read for as long as a transaction is open.
        match self.load(slot).await? {
            Some(view) if view.head.is_unfinished() => self.kick(slot),
            Some(_) => self.unmark(slot).await?,
            None => {}
        }
        Ok(())
    }
}

/// What an entry of the work table is about.
enum Work {
    Scope(Name),
    Stream(ScopedStream),
    Item(Item),
}

fn work_of(key: &[u8]) -> Result<Work> {
    let damaged = || ControllerError::Damaged("a key of the work table".into());
    let (scope, stream) = std::str::from_utf8(key).ok().and_then(|key| key.split_once('/')).ok_or_else(damaged)?;
    let scope = Name::parse(scope).map_err(|_| damaged())?;
    if stream.is_empty() {
        return Ok(Work::Scope(scope));
    }
    if let Some(item) = stream.strip_prefix(':') {
        return Ok(Work::Item(item_of(&scope, item)?));
    }
    Ok(Work::Stream(ScopedStream { scope, stream: Name::parse(stream).map_err(|_| damaged())? }))
}
