//! Truncating a stream at a cut.

use std::sync::Arc;

use headwater_types::{ScopedStream, SegmentId};
use tracing::{info, warn};

use super::open::Open;
use super::walks::{For, bytes_from_head};
use super::{Inner, Result, fan_out};
use crate::model::{SEGMENTS_MAX, StreamCut, UpdateStream};
use crate::ports::Truncated;
use crate::state::head::{Head, State, Truncation};

impl Inner {
    pub(super) async fn truncate_stream(self: &Arc<Self>, name: ScopedStream, cut: StreamCut) -> Result<UpdateStream> {
        let mut stream = self.open(&name).await?;
        stream.settle().await?;
        let Some(view) = stream.view.clone() else { return Ok(UpdateStream::StreamNotFound) };
        if view.head.state != State::Active {
            return Ok(UpdateStream::Sealed);
        }
        Ok(if stream.truncate(cut, For::Client).await? { UpdateStream::Success } else { UpdateStream::Failure })
    }
}

impl Open {
    /// Truncates an open stream of which nothing is unfinished. False, and nothing changed, for a cut that is none.
    pub(super) async fn truncate(&mut self, cut: StreamCut, whose: For) -> Result<bool> {
        if !self.may_truncate(&cut, whose).await? {
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
    async fn may_truncate(&self, cut: &StreamCut, whose: For) -> Result<bool> {
        let view = self.view()?;
        if cut.len() > SEGMENTS_MAX {
            return Ok(false);
        }
        let head = view.head.truncation.as_ref().map(|truncation| &truncation.cut);
        let mut walk = self.inner.walk(&self.slot, whose);
        let Some(surface) = walk.surface(cut).await? else { return Ok(false) };
        if let Some(head) = head
            && !walk.is_at_or_after((&surface, cut), head).await?
        {
            return Ok(false);
        }
        drop((walk, surface));
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
        let mut bytes = bytes_from_head(&view, &cut);
        let mut walk = inner.walk(&self.slot, For::Itself);
        let mut past = walk.past(&view, &cut).await?;
        while let Some(ids) = walk.more_past(&mut past).await? {
            // Deleting may take longer than looking.
            walk.rest();
            inner.delete_segments(ids.iter().map(|id| name.segment(*id)).collect()).await?;
            bytes = bytes.saturating_add(inner.sealed_bytes(&self.slot, &ids).await?);
        }
        drop((walk, past));
        let truncation = Truncation { bytes, cut };
        let head = Head { truncation: Some(truncation), truncate: None, ..view.head.clone() };
        self.commit(head, None, Vec::new()).await
    }
}

/// Entries with a position in their segment.
fn opened(cut: &StreamCut) -> Vec<(SegmentId, u64)> {
    cut.iter().filter_map(|(id, offset)| Some((*id, u64::try_from(*offset).ok()?))).collect()
}
