//! Questions about a stream's segments. Nothing changes here.

use std::sync::Arc;

use headwater_types::{ScopedStream, SegmentId};

use super::open::missing_epoch;
use super::slots::{Slot, View};
use super::walks::For;
use super::{Inner, Result};
use crate::model::{ControllerError, SegmentRange, StreamConfig, StreamCut, Successor};
use crate::state::cuts::Surface;
use crate::state::epochs::{self, SealedSegment};
use crate::state::head::State;
use crate::state::keys;

impl Inner {
    /// Records of a stream that exists, sealed or not.
    async fn existing(&self, name: &ScopedStream) -> Result<(Arc<Slot>, Arc<View>)> {
        let slot = self.slots.slot(name);
        let view = self.view(&slot).await?.filter(|view| view.head.state != State::Deleting);
        match view {
            Some(view) => Ok((slot, view)),
            None => Err(ControllerError::NotFound(format!("stream {name}"))),
        }
    }

    /// Records of a stream that has all its segments.
    pub(super) async fn complete(&self, name: &ScopedStream) -> Result<(Arc<Slot>, Arc<View>)> {
        let (slot, view) = self.existing(name).await?;
        if view.head.state == State::Creating {
            return Err(ControllerError::Unavailable(format!("stream {name} is being created")));
        }
        Ok((slot, view))
    }

    pub(super) async fn stream_exists(&self, name: &ScopedStream) -> Result<bool> {
        match self.existing(name).await {
            Ok(_) => Ok(true),
            Err(ControllerError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn stream_configuration(&self, name: &ScopedStream) -> Result<StreamConfig> {
        Ok(self.existing(name).await?.1.head.config.clone())
    }

    pub(super) async fn current_segments(&self, name: &ScopedStream) -> Result<Vec<SegmentRange>> {
        let (_, view) = self.complete(name).await?;
        Ok(if view.head.state == State::Sealed { Vec::new() } else { view.current.ranges() })
    }

    pub(super) async fn epoch_segments(&self, name: &ScopedStream, epoch: i32) -> Result<Vec<SegmentRange>> {
        if epoch < 0 {
            return Err(ControllerError::Invalid(format!("epoch {epoch} is negative")));
        }
        let (slot, _) = self.complete(name).await?;
        match self.epoch(&slot, epoch).await? {
            Some(epoch) => Ok(epoch.ranges()),
            None => Err(ControllerError::NotFound(format!("epoch {epoch} of stream {name}"))),
        }
    }

    pub(super) async fn head_segments(&self, name: &ScopedStream) -> Result<StreamCut> {
        let (slot, view) = self.complete(name).await?;
        self.head_cut(&slot, &view).await
    }

    pub(super) async fn successors(&self, name: &ScopedStream, segment: SegmentId) -> Result<Vec<Successor>> {
        let (slot, _) = self.complete(name).await?;
        let sealed_in = match slot.sealed_in(segment) {
            Some(epoch) => epoch,
            None => {
                let found = self.ports.tables.read(&slot.table, &[keys::sealed(segment)]).await?.pop().flatten();
                // Open, unknown, or sealed with its stream: nothing follows.
                let Some(entry) = found else { return Ok(Vec::new()) };
                let epoch = SealedSegment::decode(&entry.value)?.epoch;
                slot.remember_sealed(segment, epoch);
                epoch
            }
        };
        let before = self.epoch(&slot, sealed_in - 1).await?.ok_or_else(|| missing_epoch(&slot, sealed_in - 1))?;
        let after = self.epoch(&slot, sealed_in).await?.ok_or_else(|| missing_epoch(&slot, sealed_in))?;
        epochs::successors(segment, &before, &after).ok_or_else(|| missing_epoch(&slot, sealed_in - 1))
    }

    pub(super) async fn segment_is_open(&self, name: &ScopedStream, segment: SegmentId) -> Result<bool> {
        let (_, view) = self.complete(name).await?;
        Ok(view.head.state != State::Sealed && view.current.segment(segment).is_some())
    }

    pub(super) async fn cut_is_valid(&self, name: &ScopedStream, cut: &StreamCut) -> Result<bool> {
        if cut.is_empty() {
            return Err(ControllerError::Invalid("the stream cut is empty".into()));
        }
        let (slot, _) = self.complete(name).await?;
        Ok(self.walk(&slot, For::Client).surface(cut).await?.is_some())
    }

    pub(super) async fn segments_between(
        &self,
        name: &ScopedStream,
        from: &StreamCut,
        to: &StreamCut,
    ) -> Result<Vec<SegmentId>> {
        let invalid = |text: &str| ControllerError::Invalid(text.to_owned());
        if from.is_empty() && to.is_empty() {
            return Err(invalid("both stream cuts are empty"));
        }
        let (slot, view) = self.complete(name).await?;
        let mut walk = self.walk(&slot, For::Client);
        let from = if from.is_empty() {
            let first = walk.epoch(0).await?.ok_or_else(|| missing_epoch(&slot, 0))?;
            Surface::of_segments(first.segments())
        } else {
            walk.surface(from).await?.ok_or_else(|| invalid("the first stream cut is not valid"))?
        };
        let to = if to.is_empty() {
            Surface::of_segments(view.current.segments())
        } else {
            walk.surface(to).await?.ok_or_else(|| invalid("the second stream cut is not valid"))?
        };
        walk.between(&from, &to).await?.ok_or_else(|| invalid("the second stream cut is behind the first"))
    }
}
