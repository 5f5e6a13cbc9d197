//! Truncating a stream at a cut.

use std::sync::Arc;

use headwater_types::{ScopedStream, SegmentId};
use tracing::{info, warn};

use super::open::Open;
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
        if !stream.may_truncate(&cut).await? {
            return Ok(UpdateStream::Failure);
        }
        self.mark(&stream.slot).await?;
        stream.commit(Head { truncate: Some(cut), ..view.head.clone() }, None, Vec::new()).await?;
        stream.settle().await?;
        info!(stream = %name, "truncated");
        Ok(UpdateStream::Success)
    }
}

impl Open {
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
        let before = view.head.truncation.clone();
        let bounds = cuts::creation_epochs(&cut);
        let before_bounds = before.as_ref().and_then(|truncation| cuts::creation_epochs(&truncation.cut));
        let (lowest, highest) = bounds.unwrap_or((0, 0));
        // From where the stream began until now to where it will begin.
        let first = before_bounds.map_or(0, |(lowest, _)| lowest);
        let history = self.history(first.min(lowest), highest).await?;
        let surface = cuts::surface(&cut, &history)
            .ok_or_else(|| ControllerError::Internal(format!("the recorded truncation of {name} is no cut")))?;
        let head_before = match (&before, before_bounds) {
            (Some(truncation), Some((lowest, highest))) => {
                let history = self.history(lowest, highest).await?;
                cuts::surface(&truncation.cut, &history)
            }
            _ => None,
        };

        let outcomes = fan_out(opened(&cut), |(id, offset)| {
            let (segments, segment) = (Arc::clone(&inner.ports.segments), name.segment(id));
            async move { segments.truncate_segment(&segment, offset).await }
        })
        .await?;
        if outcomes.contains(&Truncated::BeyondEnd) {
            warn!(stream = %name, "a segment is shorter than it was when its truncation was accepted");
        }
        let past: Vec<SegmentId> = history
            .segments()
            .values()
            .filter(|segment| surface.is_past(segment))
            .filter(|segment| !head_before.as_ref().is_some_and(|head| head.is_past(segment)))
            .map(|segment| segment.id)
            .collect();
        inner.delete_segments(past.iter().map(|id| name.segment(*id)).collect()).await?;

        let mut bytes = before.as_ref().map_or(0, |truncation| truncation.bytes - offsets(&truncation.cut));
        for sealed in self.sealed(&past).await?.into_iter().flatten() {
            bytes = bytes.saturating_add(sealed.bytes.max(0));
        }
        let truncation = Truncation { bytes: bytes.saturating_add(offsets(&cut)), cut };
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
