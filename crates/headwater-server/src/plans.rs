//! What the background work would do to a stream, without doing it.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use headwater_controller::model::{PlannedSegment, RetentionKind, RetentionPlan, StreamCut};
use serde::Serialize;

use crate::http::Pages;
use crate::problem::Problem;
use crate::rest;

/// The next retention run on one stream, as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Retention {
    /// `time` (milliseconds) or `size` (bytes).
    policy: &'static str,
    /// At least this much is kept.
    keep: i64,
    /// Readers may not hold back more than this; `null` is no bound.
    keep_max: Option<i64>,
    /// The wall clock has jumped by more than a day. Retention does not go by it.
    clock_jumped: bool,
    /// Bytes from the stream's head to its end.
    stored_bytes: i64,
    /// Bytes that the slowest subscriber has not read; `null` without subscribers.
    held_bytes: Option<i64>,
    /// Bytes that would go.
    truncated_bytes: i64,
    /// New head as segment id → offset; `null` if nothing would go.
    truncated_at: Option<BTreeMap<String, i64>>,
    /// Segments that would go or lose bytes, by ascending id: the first thousand.
    truncated_segments: Vec<Segment>,
    /// Segments that would go or lose bytes and are not listed.
    more_segments: usize,
}

/// What would go of a segment.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Segment {
    /// A number of 64 bits.
    segment_id: String,
    /// Offset of the first byte.
    from: i64,
    /// Offset behind the last.
    to: i64,
    /// The segment itself would go.
    deleted: bool,
}

impl From<PlannedSegment> for Segment {
    fn from(PlannedSegment { id, from, to, is_deleted }: PlannedSegment) -> Self {
        Self { segment_id: id.as_i64().to_string(), from, to, deleted: is_deleted }
    }
}

impl From<RetentionPlan> for Retention {
    fn from(plan: RetentionPlan) -> Self {
        let head = |cut: StreamCut| cut.into_iter().map(|(id, offset)| (id.as_i64().to_string(), offset)).collect();
        let (truncated_bytes, truncated_at, segments, more_segments) =
            plan.truncation.map_or((0, None, Vec::new(), 0), |planned| {
                (planned.bytes, Some(head(planned.cut)), planned.segments, planned.more_segments)
            });
        Self {
            policy: match plan.policy.kind {
                RetentionKind::Time => "time",
                RetentionKind::Size => "size",
            },
            keep: plan.policy.keep,
            keep_max: Some(plan.policy.keep_max).filter(|most| *most > 0 && *most < i64::MAX),
            clock_jumped: plan.clock_jumped,
            stored_bytes: plan.stored_bytes,
            held_bytes: plan.held_bytes,
            truncated_bytes,
            truncated_at,
            truncated_segments: segments.into_iter().map(Segment::from).collect(),
            more_segments,
        }
    }
}

/// `GET /v1/scopes/{scope}/streams/{stream}/retention`: 200 with the plan, 404 for no such stream, 204 for one without
/// a retention policy.
pub(crate) async fn retention(
    State(pages): State<Pages>,
    Path((scope, stream)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let controller = pages.controller()?;
    let plan = controller.retention_plan(&rest::stream(&scope, &stream)?).await?;
    Ok(plan.map_or_else(|| StatusCode::NO_CONTENT.into_response(), |plan| Json(Retention::from(plan)).into_response()))
}
