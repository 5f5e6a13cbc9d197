//! Opening, pinging and ending transactions. What merges and deletes their segments is in `commits`.
//!
//! No lock is held here: the version of a transaction's record decides between callers that race.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use headwater_types::{ScopedStream, SegmentName, TransactionId};
use tracing::warn;

use super::slots::Slot;
use super::{Inner, Result, TRANSACTION_NUMBERS, fan_out, present, put, remove};
use crate::codec::{Decoder, Encoder};
use crate::model::{
    COMPLETED_LIST_MAX, ControllerError, CreatedTransaction, EndTransaction, LEASE_MS_MAX, LEASE_MS_MIN, Listing, Ping,
    TRANSACTIONS_OPEN_MAX, TransactionState, WRITER_ID_BYTES_MAX, answer_segments_max,
};
use crate::ports::{Change, Expect, ScaleHint, TableError, Version};
use crate::state::head::State;
use crate::state::transactions::{Phase, Transaction, transaction_id};
use crate::state::{keys, transactions};

/// Entries per read of an index.
const SCAN: usize = 1000;
/// Completed transactions that are forgotten in one batch.
const PURGED_AT_ONCE: usize = 500;
/// Pause before those of all streams are looked for the first time: a start has better things to do.
const PURGE_FIRST: Duration = Duration::from_secs(60 * 60);
/// Pause after that: a quarter of the time for which they are remembered.
const PURGE_EVERY: Duration = Duration::from_secs(6 * 60 * 60);
/// Pause before each look at a stream, of which there may be a million.
const PURGE_GENTLY: Duration = Duration::from_millis(1);

impl Inner {
    pub(super) async fn create_transaction(
        self: &Arc<Self>,
        name: ScopedStream,
        lease_ms: i64,
    ) -> Result<CreatedTransaction> {
        if !(LEASE_MS_MIN..=LEASE_MS_MAX).contains(&lease_ms) {
            let text = format!("lease of {lease_ms} ms, allowed are {LEASE_MS_MIN} to {LEASE_MS_MAX}");
            return Err(ControllerError::Invalid(text));
        }
        if self.leases.len() >= TRANSACTIONS_OPEN_MAX {
            return Err(ControllerError::Exhausted(format!("{TRANSACTIONS_OPEN_MAX} transactions are open")));
        }
        let slot = self.slots.slot(&name);
        let (_creating, view) = loop {
            self.complete(&name).await?;
            // Taken while no lock is waited for: who seals the stream holds its lock and waits for us.
            let creating = slot.creators.read().await;
            if let Some(view) = slot.view() {
                break (creating, view);
            }
        };
        if view.head.state != State::Active {
            return Err(ControllerError::Invalid(format!("stream {name} is sealed")));
        }
        let (count, most) = (view.current.segments().len(), answer_segments_max(&name));
        if count > most {
            // Of an earlier server's making. Whoever cannot be told of a transaction cannot end it either.
            let text = format!("{count} segments do not fit one answer, at most {most} with names of this length do");
            return Err(ControllerError::Invalid(text));
        }
        self.mark(&slot).await?;
        let epoch = view.current.reference;
        let id = transaction_id(epoch, self.transaction_number().await?);
        let transaction = Transaction::open(lease_ms, self.recorded_moment());
        let record = Change { key: keys::transaction(id), expect: Expect::Absent, put: Some(transaction.encode()) };
        if let Err(error) = self.ports.tables.commit(&slot.table, vec![record, put(keys::open(id), present())]).await {
            // It may have been written all the same, and then its lease must end it.
            self.leases.arm(&name, id, transaction.patience());
            return Err(error.into());
        }

        let parents = view.current.generalised(epoch);
        let names: Vec<SegmentName> = parents.iter().map(|parent| name.transaction_segment(parent.id, id)).collect();
        let rollover = view.head.config.rollover();
        let created = fan_out(names, |segment| {
            let segments = Arc::clone(&self.ports.segments);
            async move { segments.create_segment(&segment, ScaleHint::default(), rollover).await }
        })
        .await;
        self.leases.arm(&name, id, transaction.patience());
        if let Err(error) = created {
            if let Err(error) = self.end_by_abort(&slot, id).await {
                warn!(stream = %name, transaction = %id, %error, "left to its lease");
            }
            return Err(error);
        }
        Ok(CreatedTransaction { id, segments: parents })
    }

    /// The next number of the counter. Ranges are taken durably, so none is given out twice.
    async fn transaction_number(&self) -> Result<i64> {
        let mut numbers = self.numbers.lock().await;
        if numbers.is_empty() {
            let key = bytes::Bytes::from_static(keys::TRANSACTION_COUNTER);
            let found = self.ports.tables.read(keys::COUNTERS, std::slice::from_ref(&key)).await?.pop().flatten();
            let (first, expect) = match found {
                None => (0, Expect::Absent),
                Some(entry) => {
                    let mut decoder = Decoder::new("counter", 1, &entry.value)?;
                    let first = decoder.i64()?;
                    decoder.finish()?;
                    (first, Expect::Version(entry.version))
                }
            };
            let end = first
                .checked_add(TRANSACTION_NUMBERS)
                .filter(|_| first >= 0)
                .ok_or_else(|| ControllerError::Internal("transaction numbers are used up".into()))?;
            let mut encoder = Encoder::new(1);
            encoder.i64(end);
            let change = Change { key, expect, put: Some(encoder.finish()) };
            self.ports.tables.commit(keys::COUNTERS, vec![change]).await?;
            *numbers = first..end;
        }
        Ok(numbers.next().expect("the range was filled"))
    }

    /// Record of a transaction and its version.
    pub(super) async fn transaction(&self, slot: &Slot, id: TransactionId) -> Result<Option<(Transaction, Version)>> {
        let found = match self.ports.tables.read(&slot.table, &[keys::transaction(id)]).await {
            Ok(mut found) => found.pop().flatten(),
            Err(TableError::NoSuchTable(_)) => None,
            Err(error) => return Err(error.into()),
        };
        found.map(|entry| Ok((Transaction::decode(&entry.value)?, entry.version))).transpose()
    }

    /// Replaces a record if it still has the version. False if it has not: look again.
    async fn replace(
        &self,
        slot: &Slot,
        id: TransactionId,
        transaction: &Transaction,
        version: Version,
        mut index: Vec<Change>,
    ) -> Result<bool> {
        let key = keys::transaction(id);
        index.insert(0, Change { key, expect: Expect::Version(version), put: Some(transaction.encode()) });
        match self.ports.tables.commit(&slot.table, index).await {
            Ok(_) => Ok(true),
            Err(TableError::Conflict(_) | TableError::NoSuchTable(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn ping(self: &Arc<Self>, name: &ScopedStream, id: TransactionId, lease_ms: i64) -> Result<Ping> {
        if self.is_stopped() {
            return Ok(Ping::Disconnected);
        }
        let slot = self.slots.slot(name);
        let Some(view) = self.view(&slot).await? else { return Ok(Ping::Unknown) };
        loop {
            let Some((mut transaction, version)) = self.transaction(&slot, id).await? else {
                return Ok(Ping::Unknown);
            };
            if transaction.phase != Phase::Open {
                // Who ended it may have done so before the first attempt set the timer.
                self.leases.disarm(name, id);
            }
            let open_ms = self.recorded_moment().open_ms;
            if transaction.state(open_ms) == TransactionState::Unknown {
                return Ok(Ping::Unknown);
            }
            let answer = transaction.ping(lease_ms, view.head.state != State::Active, open_ms)?;
            if answer != Ping::Ok {
                return Ok(answer);
            }
            // Before the record changes; see `leases`.
            self.leases.arm(name, id, transaction.patience());
            if self.replace(&slot, id, &transaction, version, Vec::new()).await? {
                return Ok(answer);
            }
        }
    }

    pub(super) async fn commit_transaction(
        self: &Arc<Self>,
        name: &ScopedStream,
        id: TransactionId,
        writer: String,
        time_ms: i64,
    ) -> Result<EndTransaction> {
        if writer.len() > WRITER_ID_BYTES_MAX {
            return Err(ControllerError::Invalid(format!("writer id of {} bytes", writer.len())));
        }
        let slot = self.slots.slot(name);
        if self.view(&slot).await?.is_none() {
            return Ok(EndTransaction::StreamNotFound);
        }
        loop {
            let Some((mut transaction, version)) = self.transaction(&slot, id).await? else {
                return Ok(EndTransaction::Failure);
            };
            if transaction.phase == Phase::Open {
                self.mark(&slot).await?;
            }
            let position = self.next_position(&slot).await?;
            if let Some(answer) = transaction.commit(position, writer.clone(), time_ms) {
                self.kick(&slot);
                return Ok(answer);
            }
            let index = vec![remove(keys::open(id)), put(keys::committing(position, id), present())];
            if self.replace(&slot, id, &transaction, version, index).await? {
                self.leases.disarm(name, id);
                self.kick(&slot);
                return Ok(EndTransaction::Success);
            }
        }
    }

    /// Positions grow with each commit of a stream, also across restarts.
    async fn next_position(&self, slot: &Slot) -> Result<i64> {
        let mut position = slot.position.lock().await;
        let last = match *position {
            Some(last) => last,
            None => {
                let mut last = 0;
                let mut after = None;
                loop {
                    let page =
                        self.ports.tables.scan(&slot.table, keys::COMMITTING_PREFIX, after.as_deref(), SCAN).await?;
                    let Some(end) = page.last() else { break last };
                    after = Some(end.key.clone());
                    last = page.iter().filter_map(|e| keys::committing_position(&e.key)).fold(last, i64::max);
                }
            }
        };
        *position = Some(last + 1);
        Ok(last + 1)
    }

    pub(super) async fn abort_transaction(
        self: &Arc<Self>,
        name: &ScopedStream,
        id: TransactionId,
    ) -> Result<EndTransaction> {
        let slot = self.slots.slot(name);
        if self.view(&slot).await?.is_none() {
            return Ok(EndTransaction::StreamNotFound);
        }
        self.end_by_abort(&slot, id).await
    }

    /// Decides that a transaction is aborted and has it done.
    pub(super) async fn end_by_abort(self: &Arc<Self>, slot: &Arc<Slot>, id: TransactionId) -> Result<EndTransaction> {
        loop {
            let Some((transaction, version)) = self.transaction(slot, id).await? else {
                return Ok(EndTransaction::Failure);
            };
            if transaction.phase == Phase::Open {
                self.mark(slot).await?;
            }
            if let Some(answer) = transaction.clone().abort() {
                self.kick(slot);
                return Ok(answer);
            }
            if self.decide_abort(slot, id, transaction, version).await? {
                return Ok(EndTransaction::Success);
            }
        }
    }

    /// Decides that an open transaction is aborted and has it done, if its record still has the version. False if it
    /// has not. The stream is marked.
    pub(super) async fn decide_abort(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        id: TransactionId,
        mut transaction: Transaction,
        version: Version,
    ) -> Result<bool> {
        let ended = transaction.abort();
        assert_eq!(ended, None, "only an open transaction is aborted");
        let index = vec![remove(keys::open(id)), put(keys::aborting(id), present())];
        let is_decided = self.replace(slot, id, &transaction, version, index).await?;
        if is_decided {
            self.leases.disarm(&slot.name, id);
            self.kick(slot);
        }
        Ok(is_decided)
    }

    pub(super) async fn transaction_state(&self, name: &ScopedStream, id: TransactionId) -> Result<TransactionState> {
        let slot = self.slots.slot(name);
        let found = self.transaction(&slot, id).await?;
        Ok(found.map_or(TransactionState::Unknown, |(transaction, _)| transaction.state(self.open_ms())))
    }

    /// Newest first.
    pub(super) async fn completed_transactions(
        &self,
        name: &ScopedStream,
    ) -> Result<Vec<(TransactionId, TransactionState)>> {
        let (slot, _) = self.complete(name).await?;
        let open_ms = self.open_ms();
        let mut found = Vec::new();
        for index in [keys::COMPLETED_PREFIX, keys::COMPLETED_BY_WALL_PREFIX] {
            self.list_completed(&slot, index, open_ms, &mut found).await?;
        }
        Ok(found)
    }

    /// Adds those that an index names to a list, until that is full or they are forgotten.
    async fn list_completed(
        &self,
        slot: &Slot,
        index: &[u8],
        open_ms: i64,
        found: &mut Vec<(TransactionId, TransactionState)>,
    ) -> Result<()> {
        let mut after: Option<bytes::Bytes> = None;
        while found.len() < COMPLETED_LIST_MAX {
            let count = COMPLETED_LIST_MAX - found.len();
            let page = self.ports.tables.scan(&slot.table, index, after.as_deref(), count).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            let ids: Vec<_> = page.iter().filter_map(|entry| keys::transaction_of(&entry.key)).collect();
            let records: Vec<_> = ids.iter().map(|id| keys::transaction(*id)).collect();
            for (id, entry) in ids.iter().zip(self.ports.tables.read(&slot.table, &records).await?) {
                // One that was tidied away between the two reads is no longer remembered.
                let Some(entry) = entry else { continue };
                match Transaction::decode(&entry.value)?.state(open_ms) {
                    // What comes behind it ended earlier still.
                    TransactionState::Unknown => return Ok(()),
                    state => found.push((*id, state)),
                }
            }
        }
        Ok(())
    }

    /// Gives the open transactions of an earlier run their timers. Who has pinged since the start has one already.
    pub(super) async fn rearm(&self, slot: &Slot) -> Result<()> {
        let mut after: Option<bytes::Bytes> = None;
        loop {
            let page = match self.ports.tables.scan(&slot.table, keys::OPEN_PREFIX, after.as_deref(), SCAN).await {
                Ok(page) => page,
                Err(TableError::NoSuchTable(_)) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.key.clone());
            let open_ms = self.recorded_moment().open_ms;
            let ids: Vec<_> = page.iter().filter_map(|entry| keys::transaction_of(&entry.key)).collect();
            let records: Vec<_> = ids.iter().map(|id| keys::transaction(*id)).collect();
            for (id, entry) in ids.iter().zip(self.ports.tables.read(&slot.table, &records).await?) {
                let Some(entry) = entry else { continue };
                let patience = Transaction::decode(&entry.value)?.patience_after_start(open_ms);
                self.leases.arm_missing(&slot.name, *id, patience);
            }
        }
    }

    /// Forgets transactions that were completed long ago, some at a time and not often.
    pub(super) async fn purge_completed(&self, slot: &Slot) -> Result<()> {
        const EVERY_MS: i64 = 60_000;
        let open_ms = self.open_ms();
        if open_ms.saturating_sub(slot.purged_ms.load(Ordering::Relaxed)) < EVERY_MS {
            return Ok(());
        }
        if self.purge_some(&slot.table, open_ms).await? < PURGED_AT_ONCE {
            slot.purged_ms.store(open_ms, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Does the same for all streams now and then: where no transaction ends any more nothing else would.
    pub(super) async fn run_purges(self: Arc<Self>) {
        let mut stopped = self.stopped.subscribe();
        let mut pause = PURGE_FIRST;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
            pause = PURGE_EVERY;
            if let Err(error) = self.purge_all().await {
                warn!(%error, "ends of transactions that are not remembered stay until the next time");
            }
        }
    }

    /// One stream after the other, without anything of it being kept in memory. Where one scope or stream cannot be
    /// looked at, the others are.
    async fn purge_all(&self) -> Result<()> {
        let mut scopes = self.list_scopes("").await?;
        while !scopes.names.is_empty() {
            for scope in &scopes.names {
                if let Err(error) = self.purge_scope(scope).await {
                    warn!(%scope, %error, "ends that are not remembered stay until the next time");
                }
                if self.is_stopped() {
                    return Ok(());
                }
            }
            scopes = self.list_scopes(&scopes.token).await?;
        }
        Ok(())
    }

    async fn purge_scope(&self, scope: &str) -> Result<()> {
        let mut token = String::new();
        let name = keys::stored_name(scope)?;
        while let Listing::Page(page) = self.list_streams(&name, &token).await?
            && !page.names.is_empty()
        {
            for stream in &page.names {
                let stream = ScopedStream { scope: name.clone(), stream: keys::stored_name(stream)? };
                match self.purge_stream(&stream).await {
                    // It comes or goes.
                    Ok(()) | Err(TableError::NoSuchTable(_)) => {}
                    Err(error) => warn!(%stream, %error, "ends that are not remembered stay until the next time"),
                }
                if self.is_stopped() {
                    return Ok(());
                }
            }
            token = page.token;
        }
        Ok(())
    }

    async fn purge_stream(&self, stream: &ScopedStream) -> Result<(), TableError> {
        let table = keys::stream_table(stream);
        loop {
            tokio::time::sleep(PURGE_GENTLY).await;
            if self.purge_some(&table, self.open_ms()).await? < PURGED_AT_ONCE {
                return Ok(());
            }
        }
    }

    /// Forgets some of what a stream's table says of transactions that were completed long ago. Returns how many; no more
    /// than are removed at once.
    async fn purge_some(&self, table: &str, open_ms: i64) -> Result<usize, TableError> {
        let tables = &self.ports.tables;
        let forgotten_ms = open_ms.saturating_sub(transactions::REMEMBERED_MS);
        let before = keys::completed_before(forgotten_ms);
        let mut page = tables.scan_keys(table, keys::COMPLETED_PREFIX, Some(&before), PURGED_AT_ONCE).await?;
        if forgotten_ms > 0 && page.len() < PURGED_AT_ONCE {
            // All of these ended before the store was open for the first millisecond that it counts.
            let rest = PURGED_AT_ONCE - page.len();
            page.extend(tables.scan_keys(table, keys::COMPLETED_BY_WALL_PREFIX, None, rest).await?);
        }
        let count = page.len();
        let changes: Vec<Change> = page
            .into_iter()
            .filter_map(|key| Some([remove(keys::transaction(keys::transaction_of(&key)?)), remove(key)]))
            .flatten()
            .collect();
        if !changes.is_empty() {
            tables.commit(table, changes).await?;
        }
        Ok(count)
    }
}
