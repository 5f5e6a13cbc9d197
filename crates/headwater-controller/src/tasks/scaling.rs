//! Manual scales, from the request to the end.

use std::sync::Arc;

use headwater_types::{ScopedStream, SegmentId};
use tracing::info;

use super::open::Open;
use super::streams::{is_kept_for_another, plain_only};
use super::{Inner, Result, put, segment_names};
use crate::model::{ControllerError, Scale, ScaleProgress, SegmentRange, segments_max};
use crate::ports::Change;
use crate::state::epochs::SealedSegment;
use crate::state::head::{Head, State};
use crate::state::keys;
use crate::state::scale::{self, ScalePlan, ScaleRefused};

impl Inner {
    /// Records a scale and answers; it is carried out in the background.
    pub(super) async fn scale(
        self: &Arc<Self>,
        name: ScopedStream,
        seal: Vec<SegmentId>,
        new: Vec<(f64, f64)>,
    ) -> Result<Scale> {
        if is_kept_for_another(&name) {
            return Err(plain_only(&name));
        }
        let slot = self.slots.slot(&name);
        // Without waiting: a request that is repeated while its scale runs gets the answer of the first.
        if let Some(view) = self.view(&slot).await?
            && let Some(plan) = &view.head.scale
        {
            return Ok(answer_pending(plan, view.head.epoch, &seal, &new));
        }
        let mut stream = self.open_slot(&slot).await?;
        if let Some(view) = &stream.view
            && let Some(plan) = &view.head.scale
        {
            return Ok(answer_pending(plan, view.head.epoch, &seal, &new));
        }
        stream.settle().await?;
        let Some(view) = stream.view.clone() else { return Ok(Scale::Failure) };
        if view.head.state != State::Active {
            return Ok(Scale::Failure);
        }
        let plan = match scale::plan(&view.current, &seal, &new, view.head.config.scaling.min_segments, self.wall_ms())
        {
            Ok(plan) => plan,
            Err(ScaleRefused::Failure) => return Ok(Scale::Failure),
            Err(ScaleRefused::Precondition) => return Ok(Scale::PreconditionFailed),
            Err(ScaleRefused::Invalid(error)) => return Err(error),
        };
        let (before, most) = (view.current.segments().len(), segments_max(&name));
        let count = before - plan.sealed.len() + plan.new.len();
        if count > most && count >= before {
            let text = format!("{count} segments after the scale, at most {most} with names of this length");
            return Err(ControllerError::Invalid(text));
        }
        let started = started(&plan, view.head.epoch);
        self.mark(&stream.slot).await?;
        stream.commit(Head { scale: Some(plan), ..view.head.clone() }, None, Vec::new()).await?;
        // Dropping the stream with something unfinished starts its driver.
        Ok(started)
    }

    pub(super) async fn check_scale(&self, name: &ScopedStream, epoch: i32) -> Result<ScaleProgress> {
        let slot = self.slots.slot(name);
        let Some(view) = self.view(&slot).await? else { return Ok(ScaleProgress::InvalidInput) };
        Ok(match epoch {
            ..0 => ScaleProgress::InvalidInput,
            epoch if epoch > view.head.epoch => ScaleProgress::InvalidInput,
            epoch if epoch == view.head.epoch || epoch == view.current.reference => ScaleProgress::InProgress,
            // The new epoch becomes current only after the old segments are sealed, so an older one is done.
            _ => ScaleProgress::Success,
        })
    }
}

fn started(plan: &ScalePlan, epoch: i32) -> Scale {
    let segments = plan.new.iter().map(|segment| SegmentRange { id: segment.id, range: segment.range }).collect();
    Scale::Started { epoch, segments }
}

fn answer_pending(plan: &ScalePlan, epoch: i32, seal: &[SegmentId], new: &[(f64, f64)]) -> Scale {
    if plan.is_for(seal, new) { started(plan, epoch) } else { Scale::Failure }
}

impl Open {
    /// Creates the new segments, writes the new epoch, seals the old segments, makes the epoch current; in this order,
    /// so that successors can be asked for before anybody meets a sealed segment.
    pub(super) async fn finish_scale(&mut self) -> Result<()> {
        let view = self.view()?;
        let (inner, name) = (Arc::clone(&self.inner), self.slot.name.clone());
        let Some(plan) = view.head.scale.clone() else { return Ok(()) };
        let next = Arc::new(plan.next(&view.current));
        if !plan.recorded {
            let config = view.head.update.as_ref().unwrap_or(&view.head.config);
            inner.create_segments(segment_names(&name, &plan.new), config).await?;
            let mut changes = vec![put(keys::epoch(next.epoch), next.encode())];
            changes
                .extend(sealed_changes(plan.sealed.iter().map(|id| (*id, SealedSegment::BYTES_UNKNOWN)), next.epoch));
            let plan = ScalePlan { recorded: true, ..plan.clone() };
            self.commit(Head { scale: Some(plan), ..view.head.clone() }, None, changes).await?;
        }
        let ends = inner.seal_segments(plan.sealed.iter().map(|id| name.segment(*id)).collect()).await?;
        let changes = sealed_changes(plan.sealed.iter().copied().zip(ends), next.epoch);
        let (epoch, count) = (next.epoch, next.segments().len());
        let head = Head { scale: None, epoch, ..self.head()? };
        self.commit(head, Some(next), changes).await?;
        inner.load_has_changed(&name, self.view()?.as_ref());
        info!(stream = %name, epoch, segments = count, "scaled");
        Ok(())
    }
}

/// Records of segments that `epoch` is the first not to have.
pub(super) fn sealed_changes(sealed: impl IntoIterator<Item = (SegmentId, i64)>, epoch: i32) -> Vec<Change> {
    sealed.into_iter().map(|(id, bytes)| put(keys::sealed(id), SealedSegment { epoch, bytes }.encode())).collect()
}
