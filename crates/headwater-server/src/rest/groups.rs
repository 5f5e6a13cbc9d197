//! Reader groups of Java clients.

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use headwater_auth::{Level, Resource};
use headwater_controller::Room;
use headwater_controller::model::{ControllerError, DeleteGroup, GroupCut, GroupRetention, SegmentReading};
use headwater_types::ScopedStream;
use serde::Serialize;

use super::Asked;
use super::lists::{self, Part};
use crate::auth::Caller;
use crate::http::Pages;
use crate::problem::Problem;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    reader_group_name: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    scope_name: String,
    reader_group_name: String,
    stream_list: Vec<String>,
    online_reader_ids: Vec<String>,
}

/// `GET /v1/scopes/{scope}/readergroups`: those that the caller may read.
pub(crate) async fn list(
    State(pages): State<Pages>,
    Extension(caller): Extension<Caller>,
    Path(scope): Path<String>,
    asked: Asked,
) -> Result<Response, Problem> {
    let controller = pages.controller()?.clone();
    let (part, scope) = (Part::of(&asked)?, super::scope(&scope)?);
    let of = scope.clone();
    let names = lists::names(&part, move |token| {
        let (controller, scope) = (controller.clone(), of.clone());
        async move { lists::page(controller.list_groups(&scope, &token).await) }
    });
    let seen = names.map(move |page| {
        let visible = page?.into_iter().filter(|name| caller.sees(Resource::ReaderGroup(scope.as_str(), name)));
        Ok(visible.map(|reader_group_name| Entry { reader_group_name }).collect::<Vec<_>>())
    });
    lists::document("{\"readerGroups\":[", "]}", part.limit, seen.boxed()).await
}

/// `GET /v1/scopes/{scope}/readergroups/{group}`: its streams and the readers that are online, as its own readers know
/// them.
pub(crate) async fn show(
    State(pages): State<Pages>,
    Path((scope, group)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let controller = pages.controller()?;
    let (scope, group) = super::group(&scope, &group)?;
    let (readers, room) = controller.readers(&scope, &group).await?;
    let shown = Group {
        scope_name: scope.to_string(),
        reader_group_name: group.to_string(),
        stream_list: readers.streams.iter().map(|reading| reading.stream.stream.to_string()).collect(),
        online_reader_ids: readers.online,
    };
    Ok(answer(&shown, room))
}

/// `DELETE /v1/scopes/{scope}/readergroups/{group}`: 204, 404. Whoever deletes one that holds back retention has to be
/// allowed to change its streams: what it held is dropped.
pub(crate) async fn delete(
    State(pages): State<Pages>,
    Extension(caller): Extension<Caller>,
    Path((scope, group)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let controller = pages.controller()?;
    let (scope, group) = super::group(&scope, &group)?;
    if let Some(found) =
        controller.group(&scope, &group).await?.filter(|it| it.config.retention != GroupRetention::None)
    {
        for GroupCut { stream: held, .. } in &found.config.starting {
            if !caller.may(Resource::Stream(held.scope.as_str(), held.stream.as_str()), Level::ReadUpdate) {
                let what = format!("the group holds back retention of {held}, which READ_UPDATE is missing for");
                return Err(Problem::new(StatusCode::FORBIDDEN, what));
            }
        }
    }
    match controller.delete_group(&scope, &group, None).await? {
        DeleteGroup::Success => Ok(StatusCode::NO_CONTENT.into_response()),
        DeleteGroup::NotFound => Err(Problem::not_found(format_args!("reader group {scope}/{group}"))),
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Lag {
    scope_name: String,
    reader_group_name: String,
    online_reader_ids: Vec<String>,
    /// Of all streams together; `null` if one of them is not known.
    unread_bytes: Option<i64>,
    streams: Vec<StreamLag>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StreamLag {
    scope_name: String,
    stream_name: String,
    unread_bytes: Option<i64>,
    segments: Vec<SegmentLag>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SegmentLag {
    segment_id: String,
    number: i32,
    epoch: i32,
    /// `null` if it waits for a reader.
    reader_id: Option<String>,
    /// Byte that is read next.
    offset: i64,
    /// To the end of the segment.
    unread_bytes: Option<i64>,
}

impl From<SegmentReading> for SegmentLag {
    fn from(reading: SegmentReading) -> Self {
        Self {
            segment_id: reading.id.as_i64().to_string(),
            number: reading.id.number,
            epoch: reading.id.epoch,
            reader_id: reading.reader,
            offset: reading.offset,
            unread_bytes: reading.unread_bytes,
        }
    }
}

/// `GET /v1/scopes/{scope}/readergroups/{group}/lag`: how far the group is behind, by what its readers last wrote down,
/// in those of its streams that the caller may read. Also of groups of Rust and Python clients, which are in no list.
pub(crate) async fn lag(
    State(pages): State<Pages>,
    Extension(caller): Extension<Caller>,
    Path((scope, group)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let controller = pages.controller()?;
    let (scope, group) = super::group(&scope, &group)?;
    let sees = |stream: &ScopedStream| caller.sees(Resource::Stream(stream.scope.as_str(), stream.stream.as_str()));
    let (readers, room) = match controller.group_lag(&scope, &group, sees).await {
        // A group of a Rust or Python client lies in a table, for those who may read that.
        Err(ControllerError::NotFound(_))
            if caller.sees(Resource::Stream(scope.as_str(), &format!("{group}_kvtable"))) =>
        {
            controller.table_group_lag(&scope, &group, sees).await?
        }
        readers => readers?,
    };
    let lag = Lag {
        scope_name: scope.to_string(),
        reader_group_name: group.to_string(),
        online_reader_ids: readers.online,
        unread_bytes: readers.streams.iter().map(|reading| reading.unread_bytes).sum(),
        streams: readers
            .streams
            .into_iter()
            .map(|reading| StreamLag {
                scope_name: reading.stream.scope.to_string(),
                stream_name: reading.stream.stream.to_string(),
                unread_bytes: reading.unread_bytes,
                segments: reading.segments.into_iter().map(SegmentLag::from).collect(),
            })
            .collect(),
    };
    Ok(answer(&lag, room))
}

/// An answer whose memory was taken before, and is given back once it is sent.
fn answer(shown: &impl Serialize, room: Room) -> Response {
    let text = serde_json::to_vec(shown).expect("texts, numbers and lists of them are JSON");
    ([(header::CONTENT_TYPE, "application/json")], lists::held(text, room)).into_response()
}
