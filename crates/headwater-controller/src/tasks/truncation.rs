//! Truncating a stream at a cut.

use std::sync::Arc;

use headwater_types::{ScopedStream, SegmentId};
use tracing::{info, warn};

use super::open::Open;
use super::slots::{Slot, View};
use super::{Inner, Result, fan_out};
use crate::model::{ControllerError, SEGMENTS_MAX, StreamCut, UpdateStream};
use crate::ports::Truncated;
use crate::state::cuts;
use crate::state::head::{Head, State, Truncation};

impl Inner {
    pub(super) async fn truncate_stream(self: &Arc<Self>, name: ScopedStream, cut: StreamCut) -> Result<UpdateStream> {
        let mut stream = self.open(&name).await?;
        stream.settle().await?;
        let Some(view) = stream.view.clone() else { return Ok(UpdateStream::StreamNotFound) };
        if view.head.state != State::Active {
            return Ok(UpdateStream::Sealed);
        }
        Ok(if stream.truncate(cut).await? { UpdateStream::Success } else { UpdateStream::Failure })
    }
}

impl Inner {
    /// Segments that lie wholly before a valid cut and not before the stream's head.
    pub(super) async fn past(&self, slot: &Slot, view: &View, cut: &StreamCut) -> Result<Vec<SegmentId>> {
        let name = &slot.name;
        let no_cut = || ControllerError::Internal(format!("a recorded position of {name} is no cut"));
        let (lowest, highest) = cuts::creation_epochs(cut).ok_or_else(no_cut)?;
        let before = view.head.truncation.as_ref().map(|truncation| &truncation.cut);
        let before_bounds = before.and_then(cuts::creation_epochs);
        // From where the stream begins to the cut.
        let first = before_bounds.map_or(0, |(lowest, _)| lowest).min(lowest);
        let history = self.epochs(slot, first, highest.max(before_bounds.map_or(0, |(_, highest)| highest))).await?;
        let surface = cuts::surface(cut, &history).ok_or_else(no_cut)?;
        let head = before.map(|cut| cuts::surface(cut, &history).ok_or_else(no_cut)).transpose()?;
        let past = history.segments().into_values().filter(|segment| surface.is_past(segment));
        Ok(past.filter(|segment| !head.as_ref().is_some_and(|head| head.is_past(segment))).map(|s| s.id).collect())
    }

    /// Bytes of the stream before a valid cut that is not before its head, since the stream was created.
    pub(super) async fn bytes_before(&self, slot: &Slot, view: &View, cut: &StreamCut) -> Result<i64> {
        let past = self.past(slot, view, cut).await?;
        self.bytes_of(slot, view, cut, &past).await
    }

    async fn bytes_of(&self, slot: &Slot, view: &View, cut: &StreamCut, past: &[SegmentId]) -> Result<i64> {
        let before = view.head.truncation.as_ref();
        let mut bytes = before.map_or(0, |truncation| truncation.bytes - offsets(&truncation.cut));
        for sealed in self.sealed(slot, past).await?.into_iter().flatten() {
            bytes = bytes.saturating_add(sealed.bytes.max(0));
        }
        Ok(bytes.saturating_add(offsets(cut)))
    }
}

impl Open {
    /// Truncates an open stream of which nothing is unfinished. False, and nothing changed, for a cut that is none.
    pub(super) async fn truncate(&mut self, cut: StreamCut) -> Result<bool> {
        if !self.may_truncate(&cut).await? {
            return Ok(false);
        }
        self.inner.mark(&self.slot).await?;
        let head = Head { truncate: Some(cut), ..self.head()? };
        self.commit(head, None, Vec::new()).await?;
        self.settle().await?;
        info!(stream = %self.slot.name, "truncated");
        Ok(true)
    }

    /// Whether the cut is one, is not behind the head, and stands on bytes that exist. The last could not be undone: a
    /// truncation that is recorded must be possible.
    async fn may_truncate(&self, cut: &StreamCut) -> Result<bool> {
        let view = self.view()?;
        let Some((lowest, highest)) = cuts::creation_epochs(cut) else { return Ok(false) };
        if highest > view.head.epoch || cut.len() > SEGMENTS_MAX {
            return Ok(false);
        }
        let history = self.history(lowest, highest).await?;
        if cuts::surface(cut, &history).is_none() {
            return Ok(false);
        }
        if let Some(truncation) = &view.head.truncation
            && let Some((before_lowest, before_highest)) = cuts::creation_epochs(&truncation.cut)
        {
            let history = self.history(lowest.min(before_lowest), highest.max(before_highest)).await?;
            if !cuts::is_equal_or_after(cut, &truncation.cut, &history) {
                return Ok(false);
            }
        }
        let positions = opened(cut);
        let infos = fan_out(positions.clone(), |(id, _)| {
            let (segments, segment) = (Arc::clone(&self.inner.ports.segments), self.slot.name.segment(id));
            async move { segments.segment_info(&segment).await }
        })
        .await?;
        Ok(positions.iter().zip(infos).all(|((_, offset), info)| info.is_none_or(|info| *offset <= info.length)))
    }

    /// Truncates the segments that the cut stands on, deletes those before it, records the new head.
    pub(super) async fn finish_truncation(&mut self) -> Result<()> {
        let view = self.view()?;
        let (inner, name) = (Arc::clone(&self.inner), self.slot.name.clone());
        let Some(cut) = view.head.truncate.clone() else { return Ok(()) };
        let outcomes = fan_out(opened(&cut), |(id, offset)| {
            let (segments, segment) = (Arc::clone(&inner.ports.segments), name.segment(id));
            async move { segments.truncate_segment(&segment, offset).await }
        })
        .await?;
        if outcomes.contains(&Truncated::BeyondEnd) {
            warn!(stream = %name, "a segment is shorter than it was when its truncation was accepted");
        }
        let past = inner.past(&self.slot, &view, &cut).await?;
        inner.delete_segments(past.iter().map(|id| name.segment(*id)).collect()).await?;
        let bytes = inner.bytes_of(&self.slot, &view, &cut, &past).await?;
        let truncation = Truncation { bytes, cut };
        let head = Head { truncation: Some(truncation), truncate: None, ..view.head.clone() };
        self.commit(head, None, Vec::new()).await
    }
}

/// Entries with a position in their segment.
fn opened(cut: &StreamCut) -> Vec<(SegmentId, u64)> {
    cut.iter().filter_map(|(id, offset)| Some((*id, u64::try_from(*offset).ok()?))).collect()
}

fn offsets(cut: &StreamCut) -> i64 {
    cut.values().fold(0, |sum: i64, offset| sum.saturating_add((*offset).max(0)))
}
