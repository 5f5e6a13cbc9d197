//! Scopes, and the index of streams, tags, tables and groups inside each.
//!
//! Adding a stream to a scope and deleting the scope exclude each other by a lock, so no stream is added to a scope
//! that was found empty.
//!
//! Whoever deletes a scope with its content is the only one to do so ([`Inner::emptying`]) for as long as it goes on: a
//! second one, being slower, might meet the next scope of that name. And no write about a scope that was given up takes
//! effect later, on another one or on the same when nobody expects it any more: each names the record that it replaces.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use headwater_types::{Name, ScopedStream};
use tokio::sync::RwLock;
use tracing::{info, warn};

use super::slots::locked;
use super::{Inner, Result, SCOPE_LOCKS, present, put, remove};
use crate::codec::{Decoder, Encoder};
use crate::model::{ControllerError, CreateScope, DeleteScope, Listing, PAGE_ENTRIES, Page};
use crate::ports::{Change, Entry, Expect, TableError, Version};
use crate::state::keys;

/// Scope of what the system keeps for itself.
pub(super) const SYSTEM: &str = "_system";

/// Pause before a deletion that failed is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The one who empties a scope, until it is dropped.
struct Alone<'a> {
    scopes: &'a Mutex<BTreeSet<Name>>,
    scope: &'a Name,
}

impl<'a> Alone<'a> {
    fn with(scopes: &'a Mutex<BTreeSet<Name>>, scope: &'a Name) -> Option<Self> {
        locked(scopes).insert(scope.clone()).then(|| Self { scopes, scope })
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        locked(self.scopes).remove(self.scope);
    }
}

/// Life of a scope.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ScopeState {
    Active,
    /// Nothing new comes in any more; what is in it is being deleted.
    Emptying,
    /// It is empty and about to go.
    Deleting,
}

fn encode(state: ScopeState) -> Bytes {
    let mut encoder = Encoder::new(1);
    encoder.u8(match state {
        ScopeState::Active => 1,
        ScopeState::Deleting => 2,
        ScopeState::Emptying => 3,
    });
    encoder.finish()
}

fn decode(bytes: &[u8]) -> Result<ScopeState> {
    let mut decoder = Decoder::new("scope", 1, bytes)?;
    let state = match decoder.u8()? {
        1 => ScopeState::Active,
        2 => ScopeState::Deleting,
        3 => ScopeState::Emptying,
        _ => return Err(decoder.malformed().into()),
    };
    decoder.finish()?;
    Ok(state)
}

impl Inner {
    fn scope_lock(&self, scope: &Name) -> &RwLock<()> {
        let sum = scope.as_str().bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        &self.scopes[sum % SCOPE_LOCKS]
    }

    async fn scope_state(&self, scope: &Name) -> Result<Option<ScopeState>> {
        Ok(self.scope_record(scope).await?.map(|(state, _)| state))
    }

    async fn scope_record(&self, scope: &Name) -> Result<Option<(ScopeState, Version)>> {
        let found = self.ports.tables.read(keys::SCOPES, &[keys::scope_key(scope)]).await?.pop().flatten();
        found.map(|entry| Ok((decode(&entry.value)?, entry.version))).transpose()
    }

    /// Replaces the record of a scope, if it is still of that version.
    async fn put_scope(&self, scope: &Name, version: Version, state: ScopeState) -> Result<()> {
        let (key, expect) = (keys::scope_key(scope), Expect::Version(version));
        self.ports.tables.commit(keys::SCOPES, vec![Change { key, expect, put: Some(encode(state)) }]).await?;
        Ok(())
    }

    pub(super) async fn scope_is_active(&self, scope: &Name) -> Result<bool> {
        Ok(self.scope_state(scope).await? == Some(ScopeState::Active))
    }

    pub(super) async fn create_scope(self: &Arc<Self>, scope: Name) -> Result<CreateScope> {
        let _lock = self.scope_lock(&scope).write().await;
        match self.scope_state(&scope).await? {
            Some(ScopeState::Active | ScopeState::Emptying) => return Ok(CreateScope::Exists),
            Some(ScopeState::Deleting) => self.finish_scope_deletion(&scope).await?,
            None => {}
        }
        // A table without a record is what an interrupted creation leaves; it is empty and serves the next one.
        self.ports.tables.create(&keys::scope_table(&scope)).await?;
        let (key, put) = (keys::scope_key(&scope), Some(encode(ScopeState::Active)));
        self.ports.tables.commit(keys::SCOPES, vec![Change { key, expect: Expect::Absent, put }]).await?;
        info!(%scope, "scope created");
        Ok(CreateScope::Success)
    }

    pub(super) async fn delete_scope(self: &Arc<Self>, scope: Name) -> Result<DeleteScope> {
        if scope.as_str() == SYSTEM {
            return Ok(DeleteScope::NotEmpty);
        }
        let _lock = self.scope_lock(&scope).write().await;
        match self.scope_record(&scope).await? {
            None => return Ok(DeleteScope::NotFound),
            Some((ScopeState::Deleting, _)) => {}
            // Its own deletion is under way, and ends what is in it.
            Some((ScopeState::Emptying, _)) => return Ok(DeleteScope::NotFound),
            Some((ScopeState::Active, version)) => {
                for kind in [keys::STREAM_PREFIX, keys::TABLE_PREFIX, keys::GROUP_PREFIX] {
                    if !self.scan_scope(&scope, kind, None, 1).await?.is_empty() {
                        return Ok(DeleteScope::NotEmpty);
                    }
                }
                if let Err(error) = self.begin_scope_end(&scope, version, ScopeState::Deleting).await {
                    // It may be written all the same, also later.
                    tokio::spawn(Arc::clone(self).resume_scope(scope.clone()));
                    return Err(error);
                }
            }
        }
        self.finish_scope_deletion(&scope).await?;
        info!(%scope, "scope deleted");
        Ok(DeleteScope::Success)
    }

    async fn begin_scope_end(&self, scope: &Name, version: Version, state: ScopeState) -> Result<()> {
        self.ports.tables.commit(keys::WORK, vec![put(keys::scope_work_key(scope), present())]).await?;
        self.put_scope(scope, version, state).await
    }

    /// Deletes a scope with everything in it. Returns when it is gone, or at once if that is under way already.
    pub(super) async fn delete_scope_recursive(self: &Arc<Self>, scope: Name) -> Result<DeleteScope> {
        if scope.as_str() == SYSTEM {
            return Ok(DeleteScope::NotEmpty);
        }
        let begun = {
            let _lock = self.scope_lock(&scope).write().await;
            match self.scope_record(&scope).await? {
                None => return Ok(DeleteScope::NotFound),
                Some((ScopeState::Emptying, _)) => return Ok(DeleteScope::Success),
                // It is empty. Without the lock it might be gone and made anew before we look into it.
                Some((ScopeState::Deleting, _)) => {
                    self.finish_scope_deletion(&scope).await?;
                    return Ok(DeleteScope::Success);
                }
                Some((ScopeState::Active, version)) => {
                    self.begin_scope_end(&scope, version, ScopeState::Emptying).await
                }
            }
        };
        let emptied = match begun {
            Ok(()) => self.empty_scope(&scope).await,
            Err(failed) => Err(failed),
        };
        match emptied {
            Ok(true) => info!(%scope, "scope deleted with its content"),
            Ok(false) => {}
            Err(error) => {
                // If the record says that it goes it has to, without the caller as well: a repetition leaves it to this one.
                tokio::spawn(Arc::clone(self).resume_scope(scope));
                return Err(error);
            }
        }
        Ok(DeleteScope::Success)
    }

    /// Deletes what is in a scope that takes nothing new, then the scope. Groups go first, since they own streams. What
    /// was being created as the scope closed is in the listing, and its deletion waits for the end of its creation.
    ///
    /// False, and nothing done, if somebody else is at it, who tries again if it fails; or was.
    async fn empty_scope(self: &Arc<Self>, scope: &Name) -> Result<bool> {
        let Some(_alone) = Alone::with(&self.emptying, scope) else { return Ok(false) };
        // From here on it goes to its end by us only, also if an earlier attempt wrote something and got no answer: it cannot
        // be gone and made anew while we look into it.
        {
            let _lock = self.scope_lock(scope).write().await;
            match self.scope_record(scope).await? {
                Some((ScopeState::Emptying, version)) => self.put_scope(scope, version, ScopeState::Emptying).await?,
                _ => return Ok(false),
            }
        }
        for kind in [keys::GROUP_PREFIX, keys::TABLE_PREFIX, keys::STREAM_PREFIX] {
            loop {
                let page = self.scan_scope(scope, kind, None, PAGE_ENTRIES).await?;
                if page.is_empty() {
                    break;
                }
                for entry in page {
                    let name = entry.key.get(kind.len()..).and_then(|name| std::str::from_utf8(name).ok());
                    let name = name.and_then(|name| Name::parse(name).ok());
                    let name = name.ok_or_else(|| ControllerError::Damaged("a name in a scope".into()))?;
                    if self.is_stopped() {
                        return Err(super::open::stopped());
                    }
                    if kind == keys::GROUP_PREFIX {
                        self.delete_group(scope, &name, None).await?;
                    } else if kind == keys::TABLE_PREFIX {
                        self.delete_table(scope, &name).await?;
                    } else {
                        let stream = ScopedStream { scope: scope.clone(), stream: name };
                        self.remove_owned_stream(stream.clone()).await?;
                        // The name of a stream that never came into being.
                        let entry = remove(keys::stream_entry(&stream.stream));
                        self.commit_in_scope(scope, vec![entry]).await?;
                    }
                }
            }
        }
        let _lock = self.scope_lock(scope).write().await;
        let Some((ScopeState::Emptying, version)) = self.scope_record(scope).await? else {
            return Err(ControllerError::Internal(format!("scope {scope} has changed while it was emptied")));
        };
        self.put_scope(scope, version, ScopeState::Deleting).await?;
        self.finish_scope_deletion(scope).await?;
        Ok(true)
    }

    /// Goes on with the deletion of a scope until it is gone.
    pub(super) async fn resume_scope(self: Arc<Self>, scope: Name) {
        let mut stopped = self.stopped.subscribe();
        while !self.is_stopped() {
            let Err(error) = self.resume_scope_deletion(&scope).await else { return };
            warn!(%scope, %error, "a scope is not deleted yet, trying again");
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
        }
    }

    /// What a restart does about a scope in the work table.
    pub(super) async fn resume_scope_deletion(self: &Arc<Self>, scope: &Name) -> Result<()> {
        {
            let _lock = self.scope_lock(scope).write().await;
            match self.scope_record(scope).await? {
                Some((ScopeState::Active, version)) => {
                    // What was written without an answer might take effect later, with nobody to finish it: not after this.
                    self.put_scope(scope, version, ScopeState::Active).await?;
                    self.ports.tables.commit(keys::WORK, vec![remove(keys::scope_work_key(scope))]).await?;
                    return Ok(());
                }
                Some((ScopeState::Deleting, _)) | None => return self.finish_scope_deletion(scope).await,
                Some((ScopeState::Emptying, _)) => {}
            }
        }
        self.empty_scope(scope).await.map(drop)
    }

    /// The caller holds the scope's lock for writing.
    async fn finish_scope_deletion(&self, scope: &Name) -> Result<()> {
        // Rust and Python clients make tables for their reader groups that no record here names.
        self.ports.segments.drop_tables_of_scope(scope).await?;
        self.ports.tables.drop_table(&keys::scope_table(scope)).await?;
        if let Some((_, version)) = self.scope_record(scope).await? {
            let change = Change { key: keys::scope_key(scope), expect: Expect::Version(version), put: None };
            self.ports.tables.commit(keys::SCOPES, vec![change]).await?;
        }
        self.ports.tables.commit(keys::WORK, vec![remove(keys::scope_work_key(scope))]).await?;
        Ok(())
    }

    /// Lists the stream in its scope. False if there is no such scope. A stream that belongs to something in the scope
    /// is also taken while the scope is being emptied: who owns it ends it.
    pub(super) async fn add_to_scope(&self, stream: &ScopedStream, owned: bool) -> Result<bool> {
        let _lock = self.scope_lock(&stream.scope).read().await;
        if !self.scope_takes(&stream.scope, owned).await? {
            return Ok(false);
        }
        let entry = put(keys::stream_entry(&stream.stream), present());
        self.ports.tables.commit(&keys::scope_table(&stream.scope), vec![entry]).await?;
        Ok(true)
    }

    pub(super) async fn scope_takes(&self, scope: &Name, owned: bool) -> Result<bool> {
        Ok(match self.scope_state(scope).await? {
            Some(ScopeState::Active) => true,
            Some(ScopeState::Emptying) => owned,
            Some(ScopeState::Deleting) | None => false,
        })
    }

    /// False, and nothing changed, if there is no such scope.
    pub(super) async fn commit_in_active_scope(&self, scope: &Name, changes: Vec<Change>) -> Result<bool> {
        let _lock = self.scope_lock(scope).read().await;
        if !self.scope_is_active(scope).await? {
            return Ok(false);
        }
        self.commit_in_scope(scope, changes).await?;
        Ok(true)
    }

    pub(super) async fn commit_in_scope(&self, scope: &Name, changes: Vec<Change>) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let only_removes = changes.iter().all(|change| change.put.is_none());
        match self.ports.tables.commit(&keys::scope_table(scope), changes).await {
            // What was to be taken out has gone with all the rest: the end of a stream that no listing names any more may come
            // after that of its scope.
            Err(TableError::NoSuchTable(_)) if only_removes => Ok(()),
            committed => Ok(committed.map(drop)?),
        }
    }

    pub(super) async fn scan_scope(
        &self,
        scope: &Name,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>> {
        match self.ports.tables.scan(&keys::scope_table(scope), prefix, after, limit).await {
            Ok(entries) => Ok(entries),
            Err(TableError::NoSuchTable(_)) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn list_scopes(&self, token: &str) -> Result<Page> {
        let mut after = after(b"", token)?;
        loop {
            let entries = self.ports.tables.scan(keys::SCOPES, b"", after.as_deref(), PAGE_ENTRIES).await?;
            let Some(last) = entries.last() else { return page(token, b"", &[]) };
            after = Some(last.key.clone());
            let mut active = Vec::with_capacity(entries.len());
            for entry in entries {
                if decode(&entry.value)? == ScopeState::Active {
                    active.push(entry);
                }
            }
            // An empty page would be taken for the end.
            if !active.is_empty() {
                return page(token, b"", &active);
            }
        }
    }

    pub(super) async fn list_streams(&self, scope: &Name, token: &str) -> Result<Listing> {
        self.list_in_scope(scope, keys::STREAM_PREFIX, token).await
    }

    pub(super) async fn list_streams_by_tag(&self, scope: &Name, tag: &str, token: &str) -> Result<Listing> {
        if tag.is_empty() || tag.contains('\0') {
            return Err(ControllerError::Invalid("the tag to search for is empty or has a NUL".into()));
        }
        if tag.len() > crate::model::TAG_BYTES_MAX {
            // No stream can carry it.
            return Ok(Listing::Page(Page::default()));
        }
        self.list_in_scope(scope, &keys::tag_prefix(tag), token).await
    }

    async fn list_in_scope(&self, scope: &Name, prefix: &[u8], token: &str) -> Result<Listing> {
        let after = after(prefix, token)?;
        if !self.scope_is_active(scope).await? {
            return Ok(Listing::ScopeNotFound);
        }
        let entries = self.scan_scope(scope, prefix, after.as_deref(), PAGE_ENTRIES).await?;
        Ok(Listing::Page(page(token, prefix, &entries)?))
    }
}

/// Where a page begins: behind the name that its token is.
pub(super) fn after(prefix: &[u8], token: &str) -> Result<Option<Bytes>> {
    if token.is_empty() {
        return Ok(None);
    }
    if Name::parse(token).is_err() {
        return Err(ControllerError::Invalid("the continuation token is none of ours".into()));
    }
    Ok(Some([prefix, token.as_bytes()].concat().into()))
}

/// A page and the token that leads past it. The token of an empty page stays where it is.
pub(super) fn page(token: &str, prefix: &[u8], entries: &[Entry]) -> Result<Page> {
    let mut names = Vec::with_capacity(entries.len());
    for entry in entries {
        let name = entry.key.get(prefix.len()..).and_then(|bytes| std::str::from_utf8(bytes).ok());
        names.push(name.ok_or_else(|| ControllerError::Damaged("a name in a listing".into()))?.to_owned());
    }
    let token = names.last().cloned().unwrap_or_else(|| token.to_owned());
    Ok(Page { names, token })
}
