//! Merging committed transactions into their stream, and deleting aborted ones.
//!
//! One commit run per stream at a time, under the stream's lock. Transactions of the lowest epoch go first, in the
//! order in which their commits were accepted. As long as the stream still has the layout that they were written for,
//! each of their segments is merged into the open segment of the same number. Otherwise they are *rolled* in: one epoch
//! repeats their layout and takes their events, and the next repeats the layout that was current. Readers pass through
//! both, so what was in the stream before the commit is read before it, and what comes after it after it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use headwater_types::{Offset, ScopedStream, SegmentId, SegmentName, TransactionId};
use tracing::{info, warn};

use super::open::{Open, missing_epoch};
use super::scaling::sealed_changes;
use super::{Result, fan_out, present, put, remove, segment_names};
use crate::model::ControllerError;
use crate::ports::{Change, Expect, Merged};
use crate::state::epochs::{Epoch, SealedSegment};
use crate::state::head::{Head, RollingCommit};
use crate::state::keys;
use crate::state::transactions::{Phase, Transaction};

/// Transactions merged by one step. Source: Pravega commits up to 100 at once.
const BATCH: usize = 100;

/// Segments of an epoch, each with where it ended after each transaction of a batch.
type Ends = Vec<(SegmentId, Vec<Offset>)>;

/// A transaction waiting to be committed and its position among them.
type Waiting = (i64, TransactionId);

impl Open {
    /// Commits everything that was accepted. Returns how many.
    pub(super) async fn run_commits(&mut self) -> Result<usize> {
        let mut count = 0;
        loop {
            let batch = self.next_batch().await?;
            let Some((_, first)) = batch.first() else { break };
            let epoch = first.epoch();
            count += batch.len();
            let view = self.view()?;
            let fits = view.current.epoch == epoch || view.current.reference == epoch;
            if fits && let Some(ends) = self.merge(&batch, &Arc::clone(&view.current)).await? {
                self.note_times(&batch, &ends).await?;
                let changes =
                    self.completed(batch.into_iter().map(|(position, id)| (id, keys::committing(position, id))), true);
                let changes = changes.await?;
                self.commit_beside(changes).await?;
                continue;
            }
            if fits {
                // Somebody sealed or deleted an open segment behind our back; new epochs heal the stream.
                warn!(stream = %self.slot.name, "an open segment does not take merges, rolling over it");
            }
            self.inner.mark(&self.slot).await?;
            let at_ms = self.inner.wall_ms();
            let rolling = RollingCommit { epoch, transactions: batch, at_ms, recorded: false };
            self.commit(Head { rolling: Some(rolling), ..view.head.clone() }, None, Vec::new()).await?;
            self.finish_rolling().await?;
        }
        if count > 0 {
            let inner = Arc::clone(&self.inner);
            inner.purge_completed(&self.slot).await?;
        }
        Ok(count)
    }

    async fn next_batch(&self) -> Result<Vec<Waiting>> {
        let tables = &self.inner.ports.tables;
        let page = tables.scan(&self.slot.table, keys::COMMITTING_PREFIX, None, BATCH).await?;
        let mut batch: Vec<Waiting> = Vec::with_capacity(page.len());
        for entry in page {
            let (Some(position), Some(id)) = (keys::committing_position(&entry.key), keys::transaction_of(&entry.key))
            else {
                continue;
            };
            if batch.first().is_some_and(|(_, first)| first.epoch() != id.epoch()) {
                break;
            }
            batch.push((position, id));
        }
        Ok(batch)
    }

    /// Merges a batch into the segments of an epoch with the transactions' layout. For each segment the ends that it
    /// had after each transaction; `None` if a segment is sealed or gone.
    async fn merge(&self, batch: &[Waiting], into: &Epoch) -> Result<Option<Ends>> {
        let name = &self.slot.name;
        let steps: Vec<_> = into
            .segments()
            .iter()
            .map(|segment| (name.segment(segment.id), sources(name, batch, segment.id.number)))
            .collect();
        let outcomes = fan_out(steps, |(target, sources)| {
            let segments = Arc::clone(&self.inner.ports.segments);
            async move { segments.merge_segments(&target, &sources).await }
        })
        .await?;
        let ends = into.ids().zip(outcomes).map(|(id, outcome)| match outcome {
            Merged::Merged { ends } => Some((id, ends)),
            Merged::TargetSealed | Merged::NoSuchTarget => None,
        });
        Ok(ends.collect())
    }

    /// Takes down the times that writers gave with their commits, each with the end of its transaction.
    async fn note_times(&self, batch: &[Waiting], ends: &Ends) -> Result<()> {
        let records: Vec<_> = batch.iter().map(|(_, id)| keys::transaction(*id)).collect();
        let found = self.inner.ports.tables.read(&self.slot.table, &records).await?;
        for (index, entry) in found.into_iter().enumerate() {
            let Some(entry) = entry else { continue };
            let Phase::Committing { writer, time_ms: Some(time), .. } = Transaction::decode(&entry.value)?.phase else {
                continue;
            };
            if writer.is_empty() {
                continue;
            }
            let position = ends.iter().filter_map(|(id, ends)| Some((*id, i64::try_from(*ends.get(index)?).ok()?)));
            match self.inner.put_mark(&self.slot, &writer, time, position.collect()).await {
                // A writer that contradicts itself is not a reason to keep its events back.
                Ok(_) | Err(ControllerError::Exhausted(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Creates both epochs, merges, seals. Each step can be run again: a duplicate is sealed only after everything was
    /// merged into it, and merging nothing more into it is no mistake.
    pub(super) async fn finish_rolling(&mut self) -> Result<()> {
        let view = self.view()?;
        let (inner, name) = (Arc::clone(&self.inner), self.slot.name.clone());
        let Some(rolling) = view.head.rolling.clone() else { return Ok(()) };
        let active = Arc::clone(&view.current);
        let layout =
            inner.epoch(&self.slot, rolling.epoch).await?.ok_or_else(|| missing_epoch(&self.slot, rolling.epoch))?;
        let passing = layout.duplicate(active.epoch + 1, rolling.epoch, rolling.at_ms);
        let next = Arc::new(active.duplicate(active.epoch + 2, active.reference, rolling.at_ms));
        if !rolling.recorded {
            let config = view.head.update.as_ref().unwrap_or(&view.head.config);
            inner.create_segments(segment_names(&name, passing.segments()), config).await?;
            // If this is run again after a crash, times may be noted again, behind all that was merged: later than they need
            // be, never too early.
            match self.merge(&rolling.transactions, &passing).await? {
                Some(ends) => self.note_times(&rolling.transactions, &ends).await?,
                None => self.clear_the_way(&rolling.transactions, &passing).await?,
            }
            let ends = inner.seal_segments(segment_names(&name, passing.segments())).await?;
            inner.create_segments(segment_names(&name, next.segments()), config).await?;
            let mut changes =
                vec![put(keys::epoch(passing.epoch), passing.encode()), put(keys::epoch(next.epoch), next.encode())];
            changes.extend(sealed_changes(active.ids().map(|id| (id, SealedSegment::BYTES_UNKNOWN)), passing.epoch));
            changes.extend(sealed_changes(passing.ids().zip(ends), next.epoch));
            let rolling = RollingCommit { recorded: true, ..rolling.clone() };
            self.commit(Head { rolling: Some(rolling), ..view.head.clone() }, None, changes).await?;
        }
        let ends = inner.seal_segments(segment_names(&name, active.segments())).await?;
        let mut changes = sealed_changes(active.ids().zip(ends), passing.epoch);
        let done = rolling.transactions.iter().map(|(position, id)| (*id, keys::committing(*position, *id)));
        changes.extend(self.completed(done, true).await?);
        let epoch = next.epoch;
        let head = Head { rolling: None, epoch, ..self.head()? };
        self.commit(head, Some(next), changes).await?;
        info!(stream = %name, epoch, transactions = rolling.transactions.len(), "committed over a scale");
        Ok(())
    }

    /// Somebody sealed or deleted a segment of this epoch, which nobody was told of. A batch is merged whole or not at all:
    /// while all that belongs into a segment is still there, nothing of it is in that segment, whatever else is, and it is
    /// made anew when this is tried again. Otherwise it has what it should have.
    async fn clear_the_way(&self, batch: &[Waiting], passing: &Epoch) -> Result<()> {
        let (segments, name) = (&self.inner.ports.segments, &self.slot.name);
        let mut cleared = None;
        for id in passing.ids() {
            let target = name.segment(id);
            if segments.segment_info(&target).await?.is_some_and(|info| !info.sealed) {
                continue;
            }
            let mut waits = true;
            for source in sources(name, batch, id.number) {
                waits = waits && segments.segment_info(&source).await?.is_some();
            }
            if waits {
                segments.delete_segment(&target).await?;
                cleared = Some(target);
            }
        }
        match cleared {
            Some(target) => {
                Err(ControllerError::Unavailable(format!("{target} took nothing of a commit, it is made anew")))
            }
            None => Ok(()),
        }
    }

    /// Deletes the segments of everything that was aborted. Returns how many transactions.
    pub(super) async fn run_aborts(&mut self) -> Result<usize> {
        let (inner, name) = (Arc::clone(&self.inner), self.slot.name.clone());
        let mut count = 0;
        loop {
            let page = inner.ports.tables.scan(&self.slot.table, keys::ABORTING_PREFIX, None, BATCH).await?;
            let ids: Vec<_> = page.iter().filter_map(|entry| keys::transaction_of(&entry.key)).collect();
            if ids.is_empty() {
                return Ok(count);
            }
            count += ids.len();
            for id in &ids {
                let layout = inner.epoch(&self.slot, id.epoch()).await?;
                let layout = layout.ok_or_else(|| missing_epoch(&self.slot, id.epoch()))?;
                let segments = layout.generalised(id.epoch());
                let segments = segments.iter().map(|parent| name.transaction_segment(parent.id, *id));
                inner.delete_segments(segments.collect()).await?;
            }
            let changes = self.completed(ids.into_iter().map(|id| (id, keys::aborting(id))), false).await?;
            self.commit_beside(changes).await?;
            inner.purge_completed(&self.slot).await?;
        }
    }

    /// Decides that some of the open transactions are aborted, since the stream is being sealed. Returns how many it
    /// saw.
    pub(super) async fn abort_open(&mut self) -> Result<usize> {
        let inner = Arc::clone(&self.inner);
        let page = inner.ports.tables.scan(&self.slot.table, keys::OPEN_PREFIX, None, BATCH).await?;
        let ids: Vec<_> = page.iter().filter_map(|entry| keys::transaction_of(&entry.key)).collect();
        for id in &ids {
            if inner.transaction(&self.slot, *id).await?.is_none() {
                self.commit_beside(vec![remove(keys::open(*id))]).await?;
            }
            inner.end_by_abort(&self.slot, *id).await?;
        }
        Ok(ids.len())
    }

    /// The open time at which transactions are completed now: behind those before, also when a hard stop has set the
    /// time back, since clients are told in what order they ended.
    async fn completed_ms(&self) -> Result<i64> {
        let slot = &self.slot;
        let mut last_ms = slot.completed_ms.load(Ordering::Relaxed);
        if last_ms < 0 {
            let newest = self.inner.ports.tables.scan(&slot.table, keys::COMPLETED_PREFIX, None, 1).await?;
            last_ms = newest.first().and_then(|entry| keys::completed_ms(&entry.key)).unwrap_or(0);
        }
        let at_ms = self.inner.recorded_moment().open_ms.max(last_ms.saturating_add(1));
        slot.completed_ms.store(at_ms, Ordering::Relaxed);
        Ok(at_ms)
    }

    /// The changes that complete transactions: new state, out of the index that is given with each, into the list of
    /// completed ones.
    async fn completed(
        &self,
        transactions: impl Iterator<Item = (TransactionId, Bytes)>,
        committed: bool,
    ) -> Result<Vec<Change>> {
        let at_ms = self.completed_ms().await?;
        let (ids, index): (Vec<_>, Vec<_>) = transactions.unzip();
        let records: Vec<_> = ids.iter().map(|id| keys::transaction(*id)).collect();
        let found = self.inner.ports.tables.read(&self.slot.table, &records).await?;
        let mut changes = Vec::with_capacity(3 * ids.len());
        for ((id, index), entry) in ids.into_iter().zip(index).zip(found) {
            changes.push(remove(index));
            let Some(entry) = entry else { continue };
            let phase = if committed { Phase::Committed { at_ms } } else { Phase::Aborted { at_ms } };
            let record = Transaction { phase, ..Transaction::decode(&entry.value)? };
            changes.push(Change { key: entry.key, expect: Expect::Version(entry.version), put: Some(record.encode()) });
            changes.push(put(keys::completed(at_ms, id), present()));
        }
        Ok(changes)
    }
}

/// Segments of the transactions that go into the segment of this number, in the order of commits.
fn sources(stream: &ScopedStream, batch: &[Waiting], number: i32) -> Vec<SegmentName> {
    batch.iter().map(|(_, id)| stream.transaction_segment(SegmentId::new(number, id.epoch()), *id)).collect()
}
