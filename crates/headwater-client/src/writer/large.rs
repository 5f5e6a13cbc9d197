//! Events too long for one append: uploaded as a segment of their own, which is then merged into the one they are for.
//!
//! The merge moves the writer's number in the target from the one known to the new one and fails if it was another, so that
//! an upload whose answer was lost is not merged twice. Source: the large events of Pravega's clients, which lack that.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use headwater_types::limits::EVENT_BYTES_MAX;
use headwater_types::{EventNumber, SegmentId, SegmentName, WriterId};
use headwater_wire::{AttributeUpdate, OutgoingAppend, Reply, Request};
use tokio::sync::oneshot;

use super::Shared;
use crate::connection::AppendSink;
use crate::error::{Error, ErrorKind, Result};
use crate::segments::{Target, Verdict, unexpected};

/// Bytes of one append. Source: the piece size of Pravega's clients.
const PIECE_BYTES: usize = EVENT_BYTES_MAX;

/// How an upload ended that did not fail.
enum Uploaded {
    /// The target has this length now.
    Merged(Option<u64>),
    /// The writer's number in the segment was not the expected one: what the segment has got has to be asked again.
    Overtaken,
    /// The target takes no more.
    Sealed,
}

/// Uploads the bytes and tells the writer.
pub(super) async fn send(
    this: Weak<Shared>,
    segment: SegmentId,
    generation: u64,
    data: Bytes,
    previous: Option<EventNumber>,
    number: EventNumber,
) {
    let Some(shared) = this.upgrade() else { return };
    let target = shared.target(segment);
    let outcome = upload(&shared, &target, segment, &data, previous, number).await;
    shared.change(|state| {
        if state.core.writer_at(segment, generation).is_none() {
            return;
        }
        match outcome {
            Ok(Uploaded::Merged(length)) => {
                state.troubled.remove(&segment);
                state.core.uploaded(segment, generation, number, length);
            }
            Ok(Uploaded::Sealed) => shared.sealed(state, segment, generation),
            Ok(Uploaded::Overtaken) => {
                let what = format!("another writer uses the same id on segment {segment}");
                shared.trouble(state, segment, Error::new(ErrorKind::Conflict, what));
                state.core.disconnected(segment, generation);
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                shared.trouble(state, segment, error);
                state.core.disconnected(segment, generation);
            }
            Err(error) => state.core.fail(segment, &error),
        }
    });
}

async fn upload(
    shared: &Shared,
    target: &Target,
    segment: SegmentId,
    data: &Bytes,
    previous: Option<EventNumber>,
    number: EventNumber,
) -> Result<Uploaded> {
    let segments = shared.client.segments();
    let connection = segments.lease(target).await?;
    let token = segments.token(target).await?;
    let judged = |reply| match segments.judge(target, reply) {
        Verdict::Answer(reply) => Ok(reply),
        // The whole upload is tried again.
        Verdict::Again(error) => Err(Error::caused(ErrorKind::Unavailable, "upload has to be repeated", error)),
        Verdict::Refused(error) => Err(error),
    };
    let uploader = WriterId(uuid::Uuid::new_v4().as_u128());
    let reply = connection.call(|request_id| Request::CreateTransientSegment {
        request_id,
        writer: uploader,
        parent: target.text(),
        token: token.clone(),
    });
    let source = match judged(reply.await?)? {
        Reply::SegmentCreated { segment, .. } => segment,
        Reply::SegmentIsSealed { .. } | Reply::NoSuchSegment { .. } => return Ok(Uploaded::Sealed),
        reply => return Err(unexpected(target, "CreateTransientSegment", &reply)),
    };
    let transient = SegmentName::parse(&source).map_err(|error| {
        Error::caused(ErrorKind::Protocol, "segment store made a segment without a proper name", error)
    })?;
    let transient = target.named(transient);

    let (answer, answered) = oneshot::channel();
    let sink = Arc::new(Once(std::sync::Mutex::new(Some(answer))));
    let id = connection.set_up(uploader, source.clone(), token.clone(), sink)?;
    let reply = answered.await.map_err(|_| Error::new(ErrorKind::Unavailable, "connection was lost"))?;
    connection.forget(id);
    match judged(reply?)? {
        Reply::AppendSetup { .. } => {}
        reply => return Err(unexpected(&transient, "SetupAppend", &reply)),
    }
    for (at, start) in (0i64..).zip((0..data.len()).step_by(PIECE_BYTES)) {
        let piece = data.slice(start..data.len().min(start + PIECE_BYTES));
        let append = |request_id| OutgoingAppend {
            request_id,
            writer: uploader,
            data: piece,
            event_count: 1,
            last_event_number: at,
        };
        let expected_offset = i64::try_from(start).expect("an event's length fits into 32 bits");
        match judged(connection.append_at(append, expected_offset, false).await?)? {
            Reply::DataAppended { .. } => {}
            // The server tells so, by the name of the target, that this one was sealed meanwhile.
            Reply::SegmentIsSealed { .. } => return Ok(Uploaded::Sealed),
            Reply::NoSuchSegment { .. } => return Err(Error::new(ErrorKind::Unavailable, "upload is gone")),
            reply => return Err(unexpected(&transient, "ConditionalBlockEnd", &reply)),
        }
    }
    let writer = super::core::writer_on(shared.writer, segment);
    let moved = AttributeUpdate {
        attribute: writer.into(),
        update_type: if previous.is_some() { ONLY_IF_EQUAL } else { ONLY_IF_UNSET },
        new_value: number,
        old_value: previous.unwrap_or(headwater_types::attribute::NULL),
    };
    let reply = connection.call(|request_id| Request::MergeSegments {
        request_id,
        target: target.text(),
        source,
        token,
        attribute_updates: vec![moved],
    });
    match judged(reply.await?)? {
        Reply::SegmentsMerged { target_length, .. } => Ok(Uploaded::Merged(u64::try_from(target_length).ok())),
        Reply::SegmentAttributeUpdated { .. } => Ok(Uploaded::Overtaken),
        Reply::SegmentIsSealed { .. } => Ok(Uploaded::Sealed),
        // The upload may be gone with a server that was restarted; whether the target is there the next attempt tells.
        Reply::NoSuchSegment { .. } => Err(Error::new(ErrorKind::Unavailable, "upload is gone")),
        reply => Err(unexpected(target, "MergeSegments", &reply)),
    }
}

/// Kinds of attribute updates. Source: wire protocol 13.
const ONLY_IF_UNSET: i8 = 0;
const ONLY_IF_EQUAL: i8 = 4;

/// Passes the first reply on.
struct Once(std::sync::Mutex<Option<oneshot::Sender<Result<Reply>>>>);

impl Once {
    fn send(&self, outcome: Result<Reply>) {
        if let Some(answer) = self.0.lock().expect("nobody panics while it holds this lock").take() {
            let _ = answer.send(outcome);
        }
    }
}

impl AppendSink for Once {
    fn reply(&self, reply: Reply) {
        self.send(Ok(reply));
    }

    fn closed(&self, error: &Error) {
        self.send(Err(error.clone()));
    }
}
