//! What operators ask and no client does: a stream's epochs over time, its transactions under way, and the open ones of
//! all streams. Nothing changes here.
//!
//! Answers come in pages, so that none is larger than a few records however long the stream has lived.

use std::sync::Arc;

use headwater_types::{Name, ScopedStream, TransactionId};

use super::leases::Key;
use super::{Inner, Result};
use crate::model::{ControllerError, EpochRecord, LiveTransaction, OpenTransactionPage, SegmentRange, TransactionPage};
use crate::state::keys;
use crate::state::transactions::{Phase, Transaction};

/// Indexes of transactions that are not over, in the order of a listing.
const LIVE: [&[u8]; 3] = [keys::OPEN_PREFIX, keys::COMMITTING_PREFIX, keys::ABORTING_PREFIX];

impl Inner {
    pub(super) async fn epoch_records(
        &self,
        name: &ScopedStream,
        first: i32,
        count: usize,
    ) -> Result<Vec<EpochRecord>> {
        let (slot, view) = self.complete(name).await?;
        let first = first.max(0);
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        let last = first.saturating_add(count.saturating_sub(1)).min(view.head.epoch);
        if count == 0 || first > last {
            return Ok(Vec::new());
        }
        let count = (last - first) as usize + 1;
        let record = |epoch: &crate::state::epochs::Epoch| EpochRecord {
            epoch: epoch.epoch,
            reference: epoch.reference,
            created_ms: epoch.created_ms,
            segments: epoch
                .segments()
                .iter()
                .map(|segment| (SegmentRange { id: segment.id, range: segment.range }, segment.created_ms))
                .collect(),
        };
        Ok(self.epoch_page(&slot, first, count).await?.0.iter().map(record).collect())
    }

    pub(super) async fn live_transactions(
        &self,
        name: &ScopedStream,
        token: &str,
        count: usize,
    ) -> Result<TransactionPage> {
        let (slot, _) = self.complete(name).await?;
        let mut after = place(token)?;
        let mut page = TransactionPage::default();
        let begun = after.as_ref().map_or(0, |key| LIVE.iter().position(|prefix| key.starts_with(prefix)).unwrap_or(0));
        for prefix in &LIVE[begun..] {
            loop {
                let room = count - page.transactions.len();
                if room == 0 {
                    page.token = after.map(|key| hex(&key));
                    return Ok(page);
                }
                let entries = self.ports.tables.scan(&slot.table, prefix, after.as_deref(), room).await?;
                let Some(last) = entries.last() else { break };
                after = Some(last.key.to_vec());
                let ids: Vec<TransactionId> =
                    entries.iter().filter_map(|entry| keys::transaction_of(&entry.key)).collect();
                let records: Vec<_> = ids.iter().map(|id| keys::transaction(*id)).collect();
                let records = self.ports.tables.read(&slot.table, &records).await?;
                for (id, record) in ids.into_iter().zip(records) {
                    // Forgotten since the index was read.
                    let Some(record) = record else { continue };
                    page.transactions.extend(self.live(name, id, &Transaction::decode(&record.value)?));
                }
            }
            // The next index begins at its beginning.
            after = None;
        }
        Ok(page)
    }

    /// Every open transaction has a timer, so these say which there are.
    pub(super) async fn open_transactions(self: &Arc<Self>, token: &str, count: usize) -> Result<OpenTransactionPage> {
        let keys = self.leases.behind(open_place(token)?.as_ref(), count);
        let last = keys.last().filter(|_| keys.len() == count);
        let mut page = OpenTransactionPage { token: last.map(open_token), ..OpenTransactionPage::default() };
        for (stream, id) in keys {
            let found = self.transaction(&self.slots.slot(&stream), id).await?;
            let live = found.and_then(|(transaction, _)| self.live(&stream, id, &transaction));
            page.transactions.extend(live.map(|live| (stream, live)));
        }
        Ok(page)
    }

    /// `None` for one that is over by now.
    fn live(&self, stream: &ScopedStream, id: TransactionId, transaction: &Transaction) -> Option<LiveTransaction> {
        let now = self.moment();
        match transaction.phase {
            Phase::Open | Phase::Committing { .. } | Phase::Aborting => {
                // One of an earlier run that has no timer yet is about to get it.
                let timer = self.leases.remaining(stream, id);
                let left = timer.unwrap_or_else(|| transaction.patience_after_start(now.open_ms));
                let left_ms = i64::try_from(left.as_millis()).unwrap_or(i64::MAX);
                let most_ms = transaction.expires_ms_max.saturating_sub(now.open_ms);
                Some(LiveTransaction {
                    id,
                    state: transaction.state(now.open_ms),
                    created_ms: transaction.created_ms,
                    lease_ms: transaction.lease_ms,
                    expires_ms: now.wall_ms.saturating_add(left_ms),
                    expires_ms_max: now.wall_ms.saturating_add(most_ms),
                })
            }
            Phase::Committed { .. } | Phase::Aborted { .. } => None,
        }
    }
}

fn open_token((stream, id): &Key) -> String {
    format!("{stream}/{:032x}", id.0)
}

/// The open transaction that a token stands for.
fn open_place(token: &str) -> Result<Option<Key>> {
    if token.is_empty() {
        return Ok(None);
    }
    let place = || {
        let (stream, id) = token.rsplit_once('/')?;
        let (scope, stream) = stream.split_once('/')?;
        let (scope, stream) = (Name::parse(scope).ok()?, Name::parse(stream).ok()?);
        let id = u128::from_str_radix(id, 16).ok().filter(|_| id.len() == 32)?;
        Some((ScopedStream { scope, stream }, TransactionId(id)))
    };
    place().map(Some).ok_or_else(|| ControllerError::Invalid("the continuation token is none of ours".into()))
}

/// The key of an index that a token stands for.
fn place(token: &str) -> Result<Option<Vec<u8>>> {
    if token.is_empty() {
        return Ok(None);
    }
    let invalid = || ControllerError::Invalid("the continuation token is none of ours".into());
    let key = unhex(token).ok_or_else(invalid)?;
    if LIVE.iter().any(|prefix| key.starts_with(prefix)) { Ok(Some(key)) } else { Err(invalid()) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| Some(c.to_digit(16)? as u8)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0 && digits.len() <= 128)?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
