//! Streams of a scope.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::future::try_join_all;
use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use headwater_auth::Resource;
use headwater_controller::Controller;
use headwater_controller::model::{ControllerError, CreateStream, DeleteStream, EpochRecord, UpdateStream};
use headwater_types::{Name, ScopedStream};

use super::body::Json;
use super::lists::{self, Part, Piece};
use super::models::{self, ScaleMetadata};
use super::{Asked, views};
use crate::auth::Caller;
use crate::http::Pages;
use crate::problem::Problem;

/// Configurations of a list's streams that are looked up at a time.
const LOOK_UPS: usize = 8;
/// Where a piece of a list ends, in bytes of its text, with the stream that takes it there. Most lists are one piece.
const PIECE_BYTES: usize = 256 << 10;
/// What a piece takes: the streams that are looked up (tags are 128 KiB at most, each with an allocation of its own), those
/// of the piece, whose last one has 0.8 MiB of text at most, and their text, while it grows.
const PIECE_ROOM_BYTES: usize = 4 << 20;

/// Which streams of a scope a caller wants.
enum Wanted {
    /// Those that users made.
    Users,
    /// Those that clients and the server keep things in.
    Internal,
    /// Those that carry this tag.
    Tagged(String),
}

impl Wanted {
    fn of(asked: &Asked) -> Result<Self, Problem> {
        match (asked.text("filter_type")?, asked.text("filter_value")?) {
            (None | Some(""), _) => Ok(Self::Users),
            (Some("showInternalStreams"), _) => Ok(Self::Internal),
            (Some("tag"), Some(tag)) if !tag.is_empty() => Ok(Self::Tagged(tag.to_owned())),
            (Some("tag"), _) => Err(Problem::bad("filter_type tag needs a filter_value")),
            (Some(_), _) => Err(Problem::bad("filter_type is neither showInternalStreams nor tag")),
        }
    }
}

/// `GET /v1/scopes/{scope}/streams`: those that the caller may read, with their configurations.
pub(crate) async fn list(
    State(pages): State<Pages>,
    Extension(caller): Extension<Caller>,
    Path(scope): Path<String>,
    asked: Asked,
) -> Result<Response, Problem> {
    let controller = pages.controller()?.clone();
    let (wanted, part, scope) = (Wanted::of(&asked)?, Part::of(&asked)?, super::scope(&scope)?);
    let with_internal = matches!(wanted, Wanted::Internal);
    let tag = match wanted {
        Wanted::Tagged(tag) => Some(tag),
        Wanted::Users | Wanted::Internal => None,
    };
    let names = {
        let (controller, scope) = (controller.clone(), scope.clone());
        lists::names(&part, move |token| {
            let (controller, scope, tag) = (controller.clone(), scope.clone(), tag.clone());
            async move {
                lists::page(match tag {
                    Some(tag) => controller.list_streams_by_tag(&scope, &tag, &token).await,
                    None => controller.list_streams(&scope, &token).await,
                })
            }
        })
    };
    let seen = {
        let scope = scope.clone();
        move |page: Vec<String>| -> Vec<Name> {
            let names = page.into_iter().filter_map(|name| Name::parse(&name).ok());
            let wanted = names.filter(|name| name.is_internal() == with_internal);
            wanted.filter(|name| caller.sees(Resource::Stream(scope.as_str(), name.as_str()))).collect()
        }
    };
    let at_once = part.limit.min(LOOK_UPS);
    let names = names.map_ok(seen).boxed();
    let listed = Listed { pages, controller, scope, names, waiting: VecDeque::new(), at_once };
    let pieces = stream::try_unfold(listed, Listed::next).boxed();
    lists::document("{\"streams\":[", "]}", part.limit, pieces).await
}

/// Streams of a scope that somebody wants to see.
struct Listed {
    pages: Pages,
    controller: Controller,
    scope: Name,
    names: BoxStream<'static, Result<Vec<Name>, Problem>>,
    /// Names of the last page whose streams are in no piece yet.
    waiting: VecDeque<Name>,
    /// Streams that are looked up at a time.
    at_once: usize,
}

impl Listed {
    /// The next piece, once there is a turn and memory for it. Between two pieces nothing is kept but names.
    async fn next(mut self) -> Result<Option<(Piece<models::Stream>, Self)>, Problem> {
        let turn = self.pages.listing.clone().acquire_owned().await.expect("never closed");
        let room = self.controller.room(PIECE_ROOM_BYTES).await?.with(turn);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while bytes < PIECE_BYTES {
            if self.waiting.is_empty() {
                let Some(page) = self.names.try_next().await? else { break };
                self.waiting.extend(page);
                continue;
            }
            let stream = |stream: &Name| ScopedStream { scope: self.scope.clone(), stream: stream.clone() };
            let some = self.waiting.iter().take(self.at_once).map(|name| configured(&self.controller, stream(name)));
            let found = try_join_all(some).await?;
            // Those that have no place here are looked up again: a piece has the memory of one.
            for stream in found {
                if bytes >= PIECE_BYTES {
                    break;
                }
                self.waiting.pop_front();
                bytes += stream.as_ref().map_or(0, models::Stream::bytes_max);
                entries.extend(stream);
            }
        }
        Ok((!entries.is_empty()).then_some((Piece { entries, room: Some(room) }, self)))
    }
}

/// `None` for a stream that has gone since it was listed.
async fn configured(controller: &Controller, stream: ScopedStream) -> Result<Option<models::Stream>, Problem> {
    match controller.stream_configuration(&stream).await {
        Ok(config) => Ok(Some(models::Stream::of(&stream, config))),
        Err(ControllerError::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// `POST /v1/scopes/{scope}/streams`: 201, 400, 404 for no such scope, 409 if there is one of that name.
pub(crate) async fn create(
    State(pages): State<Pages>,
    Path(scope): Path<String>,
    Json(request): Json<models::CreateStream>,
) -> Result<Response, Problem> {
    let controller = pages.controller()?;
    let scope = super::scope(&scope)?;
    let invalid = |error: &dyn std::fmt::Display| Problem::bad(format!("streamName: {error}"));
    let stream = Name::parse_user(&request.stream_name).map_err(|error| invalid(&error))?;
    let config = request.config.created()?;
    match controller.create_stream(scope.as_str(), stream.as_str(), config.clone()).await? {
        CreateStream::Success => {
            let created = models::Stream::of(&ScopedStream { scope, stream }, config);
            Ok((StatusCode::CREATED, axum::Json(created)).into_response())
        }
        CreateStream::Exists => Err(Problem::new(StatusCode::CONFLICT, format!("stream {scope}/{stream} exists"))),
        CreateStream::ScopeNotFound => Err(Problem::not_found(format_args!("scope {scope}"))),
        CreateStream::InvalidName => Err(invalid(&"the name is too long")),
    }
}

/// `GET /v1/scopes/{scope}/streams/{stream}`
pub(crate) async fn show(
    State(pages): State<Pages>,
    Path((scope, stream)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let controller = pages.controller()?;
    let stream = super::stream(&scope, &stream)?;
    let config = controller.stream_configuration(&stream).await?;
    Ok(axum::Json(models::Stream::of(&stream, config)).into_response())
}

/// `PUT /v1/scopes/{scope}/streams/{stream}`: 200, 400, 404, 412 for a stream that is sealed.
pub(crate) async fn update(
    State(pages): State<Pages>,
    Path((scope, stream)): Path<(String, String)>,
    Json(request): Json<models::UpdateStream>,
) -> Result<Response, Problem> {
    let controller = pages.controller()?;
    let stream = super::stream(&scope, &stream)?;
    let config = request.updated()?;
    changed(&stream, controller.update_stream(&stream, config.clone()).await?)?;
    Ok(axum::Json(models::Stream::of(&stream, config)).into_response())
}

/// `DELETE /v1/scopes/{scope}/streams/{stream}`: 204, 404, 412 for one that is not sealed.
pub(crate) async fn delete(
    State(pages): State<Pages>,
    Path((scope, stream)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let controller = pages.controller()?;
    let stream = super::stream(&scope, &stream)?;
    match controller.delete_stream(&stream).await? {
        DeleteStream::Success => Ok(StatusCode::NO_CONTENT.into_response()),
        DeleteStream::NotFound => Err(Problem::not_found(format_args!("stream {stream}"))),
        DeleteStream::NotSealed => {
            Err(Problem::new(StatusCode::PRECONDITION_FAILED, format!("stream {stream} is not sealed")))
        }
    }
}

/// `PUT /v1/scopes/{scope}/streams/{stream}/state`: seals the stream; 200 also if it was sealed.
pub(crate) async fn seal(
    State(pages): State<Pages>,
    Path((scope, stream)): Path<(String, String)>,
    Json(state): Json<models::StreamState>,
) -> Result<Response, Problem> {
    let controller = pages.controller()?;
    let stream = super::stream(&scope, &stream)?;
    match state.stream_state {
        models::State::Sealed => changed(&stream, controller.seal_stream(&stream).await?)?,
    }
    Ok(axum::Json(state).into_response())
}

fn changed(stream: &ScopedStream, outcome: UpdateStream) -> Result<(), Problem> {
    match outcome {
        UpdateStream::Success => Ok(()),
        UpdateStream::StreamNotFound => Err(Problem::not_found(format_args!("stream {stream}"))),
        UpdateStream::Sealed => {
            Err(Problem::new(StatusCode::PRECONDITION_FAILED, format!("stream {stream} is sealed")))
        }
        UpdateStream::Failure => {
            Err(Problem::new(StatusCode::CONFLICT, format!("stream {stream} is being changed by somebody else")))
        }
    }
}

/// `GET /v1/scopes/{scope}/streams/{stream}/scaling-events`: the epochs that began between two times, and before them
/// the last one before, from which they come.
pub(crate) async fn scaling_events(
    State(pages): State<Pages>,
    Path((scope, stream)): Path<(String, String)>,
    asked: Asked,
) -> Result<Response, Problem> {
    let controller = pages.controller()?;
    let time = |name: &str| {
        asked
            .number(name, 0..=i64::MAX)?
            .ok_or_else(|| Problem::bad(format!("{name} is missing, a time in milliseconds")))
    };
    let (from, to) = (time("from")?, time("to")?);
    if from > to {
        return Err(Problem::bad("from lies behind to"));
    }
    let stream = super::stream(&scope, &stream)?;
    let epochs = views::epochs_from(controller.clone(), stream, 0);
    let events = Events { epochs, times: from..=to, before: None, reference: None, state: Reading::Early };
    lists::document("[", "]", usize::MAX, stream::try_unfold(events, Events::next).boxed()).await
}

/// What happened to a stream between two times, epoch by epoch.
struct Events {
    epochs: BoxStream<'static, Result<Vec<EpochRecord>, Problem>>,
    times: RangeInclusive<i64>,
    /// The epoch read last.
    before: Option<EpochRecord>,
    /// The last one that began before the times.
    reference: Option<ScaleMetadata>,
    state: Reading,
}

#[derive(PartialEq)]
enum Reading {
    /// None that began in the times has been seen.
    Early,
    Begun,
    Ended,
}

impl Events {
    async fn next(mut self) -> Result<Option<(Vec<ScaleMetadata>, Self)>, Problem> {
        if self.state == Reading::Ended {
            return Ok(None);
        }
        let Some(page) = self.epochs.try_next().await? else {
            self.state = Reading::Ended;
            return Ok(Some((self.reference.take().into_iter().collect(), self)));
        };
        let mut events = Vec::new();
        for epoch in page {
            let segments = self.before.as_ref().map_or(&[][..], |before| &before.segments);
            if self.times.contains(&epoch.created_ms) {
                events.extend(self.reference.take());
                events.push(ScaleMetadata::of(&epoch, segments));
                self.state = Reading::Begun;
            } else if epoch.created_ms < *self.times.start() && self.state == Reading::Early {
                self.reference = Some(ScaleMetadata::of(&epoch, segments));
            }
            self.before = Some(epoch);
        }
        Ok(Some((events, self)))
    }
}
