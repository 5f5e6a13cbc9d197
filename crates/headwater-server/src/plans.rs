//! What the background work would do to a stream, without doing it.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use headwater_controller::model::{RetentionKind, RetentionPlan};
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
}

impl From<RetentionPlan> for Retention {
    fn from(plan: RetentionPlan) -> Self {
        let (cut, bytes) = plan.truncation.map_or((None, 0), |(cut, bytes)| (Some(cut), bytes));
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
            truncated_bytes: bytes,
            truncated_at: cut
                .map(|cut| cut.into_iter().map(|(id, offset)| (id.as_i64().to_string(), offset)).collect()),
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
