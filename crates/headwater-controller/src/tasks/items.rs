//! What key-value tables and reader groups have in common: a record in their scope, changed under a lock of its own,
//! and a note in the work table while something is being done to it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_types::Name;
use tokio::sync::MutexGuard;
use tracing::warn;

use super::{Inner, Result, present, put, remove};
use crate::model::{ControllerError, ITEM_NAME_BYTES_MAX, Listing, PAGE_ENTRIES, Page};
use crate::ports::TableError;
use crate::state::keys;

/// Tables and groups share this many locks.
pub(super) const ITEM_LOCKS: usize = 64;
/// Pause before work that failed after a restart is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// A table or a group: what kind, in which scope, of what name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Item {
    /// Prefix of the record's key.
    pub(super) kind: &'static [u8],
    pub(super) scope: Name,
    pub(super) name: Name,
}

impl Item {
    pub(super) fn table(scope: &Name, name: &Name) -> Self {
        Self { kind: keys::TABLE_PREFIX, scope: scope.clone(), name: name.clone() }
    }

    pub(super) fn group(scope: &Name, name: &Name) -> Self {
        Self { kind: keys::GROUP_PREFIX, scope: scope.clone(), name: name.clone() }
    }

    pub(super) fn key(&self) -> Bytes {
        keys::item(self.kind, &self.name)
    }

    fn work_key(&self) -> Bytes {
        keys::item_work_key(self.kind, &self.scope, &self.name)
    }
}

impl std::fmt::Display for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.kind == keys::TABLE_PREFIX { "key-value table" } else { "reader group" };
        write!(f, "{kind} {}/{}", self.scope, self.name)
    }
}

/// The name of a table or group as a user may give it.
pub(super) fn item_name(text: &str) -> Option<Name> {
    Name::parse_user(text).ok().filter(|name| name.as_str().len() <= ITEM_NAME_BYTES_MAX)
}

impl Inner {
    pub(super) async fn lock_item(&self, item: &Item) -> MutexGuard<'_, ()> {
        let bytes = item.scope.as_str().bytes().chain(item.kind.iter().copied()).chain(item.name.as_str().bytes());
        let sum = bytes.fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        self.items[sum % ITEM_LOCKS].lock().await
    }

    pub(super) async fn item_record(&self, item: &Item) -> Result<Option<Bytes>> {
        match self.ports.tables.read(&keys::scope_table(&item.scope), &[item.key()]).await {
            Ok(mut found) => Ok(found.pop().flatten().map(|entry| entry.value)),
            Err(TableError::NoSuchTable(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts the first record of an item into its scope, and a note that something is to be done. False if there is no
    /// such scope. The caller holds the item's lock.
    pub(super) async fn begin_item(&self, item: &Item, record: Bytes) -> Result<bool> {
        // Before the note, which would outlive a scope that is not there.
        if !self.scope_is_active(&item.scope).await? {
            return Ok(false);
        }
        self.note_item(item).await?;
        let change = put(item.key(), record);
        if !self.commit_in_active_scope(&item.scope, vec![change]).await? {
            self.forget_item_note(item).await?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Replaces the record of an item. The caller holds the item's lock.
    pub(super) async fn put_item(&self, item: &Item, record: Bytes) -> Result<()> {
        self.commit_in_scope(&item.scope, vec![put(item.key(), record)]).await
    }

    pub(super) async fn remove_item(&self, item: &Item) -> Result<()> {
        self.commit_in_scope(&item.scope, vec![remove(item.key())]).await
    }

    pub(super) async fn note_item(&self, item: &Item) -> Result<()> {
        self.ports.tables.commit(keys::WORK, vec![put(item.work_key(), present())]).await?;
        Ok(())
    }

    pub(super) async fn forget_item_note(&self, item: &Item) -> Result<()> {
        self.ports.tables.commit(keys::WORK, vec![remove(item.work_key())]).await?;
        Ok(())
    }

    /// What a restart does about an item in the work table.
    pub(super) async fn resume_item(self: Arc<Self>, item: Item) {
        let mut stopped = self.stopped.subscribe();
        while !self.is_stopped() {
            let settled = if item.kind == keys::TABLE_PREFIX {
                self.resume_table(&item).await
            } else {
                self.resume_group(&item).await
            };
            let Err(error) = settled else { return };
            warn!(%item, %error, "unfinished work is left, trying again");
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
        }
    }

    /// Names of items of one kind that `is_active` takes for existing.
    pub(super) async fn list_items(
        &self,
        scope: &Name,
        kind: &'static [u8],
        token: &str,
        is_active: impl Fn(&[u8]) -> Result<bool>,
    ) -> Result<Listing> {
        let mut after = super::scopes::after(kind, token)?;
        if !self.scope_is_active(scope).await? {
            return Ok(Listing::ScopeNotFound);
        }
        loop {
            let entries = self.scan_scope(scope, kind, after.as_deref(), PAGE_ENTRIES).await?;
            let Some(last) = entries.last() else {
                return Ok(Listing::Page(Page { names: Vec::new(), token: token.to_owned() }));
            };
            after = Some(last.key.clone());
            let mut active = Vec::with_capacity(entries.len());
            for entry in entries {
                if is_active(&entry.value)? {
                    active.push(entry);
                }
            }
            // An empty page would be taken for the end.
            if !active.is_empty() {
                return Ok(Listing::Page(super::scopes::page(token, kind, &active)?));
            }
        }
    }
}

/// The item that a key of the work table, behind `scope/:`, is about.
pub(super) fn item_of(scope: &Name, rest: &str) -> Result<Item> {
    let damaged = || ControllerError::Damaged("a key of the work table".into());
    for kind in [keys::TABLE_PREFIX, keys::GROUP_PREFIX] {
        if let Some(name) = rest.as_bytes().strip_prefix(kind) {
            let name = std::str::from_utf8(name).ok().and_then(|name| Name::parse(name).ok()).ok_or_else(damaged)?;
            return Ok(Item { kind, scope: scope.clone(), name });
        }
    }
    Err(damaged())
}
