//! Scopes and streams: make, change, list, scale, seal, delete.

use std::collections::{BTreeMap, BTreeSet};

use headwater_proto::controller as proto;
use headwater_records::StreamCut;
use headwater_types::{KeyRange, Name, ScopedStream, SegmentId};

use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{SegmentRange, StreamConfig, Successor, cut_to_proto, segment_id, stream_info};

/// Calls an rpc by its generated name.
macro_rules! call {
    ($client:expr, $name:literal, $method:ident, $request:expr) => {
        $client
            .controllers()
            .call($name, $request, |mut stub, request| async move { stub.$method(request).await })
            .await
    };
}

pub(crate) use call;

pub(crate) fn not_found(what: &str, name: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::NotFound, format!("{what} {name} does not exist"))
}

pub(crate) fn failed(what: &str, name: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unavailable, format!("controller could not {what} {name}; its log says why"))
}

/// Most pages of a listing that are fetched; a server that says "more" for ever is not believed.
pub(crate) const PAGES_MAX: usize = 100_000;

impl Client {
    /// Makes a scope. `false` if it was there.
    ///
    /// # Errors
    /// `Invalid`: the server does not take the name.
    ///
    /// # Cancel safety
    /// It may be there.
    pub async fn create_scope(&self, scope: &Name) -> Result<bool> {
        use proto::create_scope_status::Status;
        let answer = call!(self, "createScope", create_scope, proto::ScopeInfo { scope: scope.to_string() })?;
        match answer.status() {
            Status::Success => Ok(true),
            Status::ScopeExists => Ok(false),
            Status::InvalidScopeName => Err(Error::new(ErrorKind::Invalid, format!("{scope} is no name for a scope"))),
            Status::Failure => Err(failed("create scope", scope)),
        }
    }

    /// Deletes an empty scope. `false` if it was not there.
    ///
    /// # Errors
    /// `Conflict`: it is not empty.
    ///
    /// # Cancel safety
    /// It may be gone.
    pub async fn delete_scope(&self, scope: &Name) -> Result<bool> {
        let answer = call!(self, "deleteScope", delete_scope, proto::ScopeInfo { scope: scope.to_string() })?;
        deleted_scope(scope, answer)
    }

    /// Deletes a scope with all streams, groups and tables in it. `false` if it was not there.
    ///
    /// # Errors
    /// `Conflict`: somebody makes streams in it meanwhile.
    ///
    /// # Cancel safety
    /// Some of it may be gone, or all; the server goes on, and [`scope_exists`](Self::scope_exists) tells when it is done.
    pub async fn delete_scope_recursively(&self, scope: &Name) -> Result<bool> {
        let asked = proto::ScopeInfo { scope: scope.to_string() };
        let answer = call!(self, "deleteScopeRecursive", delete_scope_recursive, asked)?;
        deleted_scope(scope, answer)
    }

    /// Whether a scope is there.
    ///
    /// # Errors
    /// Those of every call.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn scope_exists(&self, scope: &Name) -> Result<bool> {
        let asked = proto::ScopeInfo { scope: scope.to_string() };
        Ok(call!(self, "checkScopeExists", check_scope_exists, asked)?.exists)
    }

    /// Names of all scopes.
    ///
    /// # Errors
    /// Those of every call.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn scopes(&self) -> Result<Vec<Name>> {
        let (mut found, mut token) = (Vec::new(), String::new());
        for _ in 0..PAGES_MAX {
            let asked = proto::ScopesRequest { continuation_token: Some(proto::ContinuationToken { token }) };
            let page = call!(self, "listScopes", list_scopes, asked)?;
            if page.scopes.is_empty() {
                return Ok(found);
            }
            token = page.continuation_token.unwrap_or_default().token;
            for scope in page.scopes {
                found.push(name_of(&scope)?);
            }
        }
        Err(endless("scopes"))
    }

    /// Makes a stream, ready to be written to. `false` if it was there; its configuration is then as it was.
    ///
    /// # Errors
    /// `NotFound`: the scope does not exist. `Invalid`: the server does not take the name or the configuration.
    ///
    /// # Cancel safety
    /// It may be there.
    pub async fn create_stream(&self, stream: &ScopedStream, config: &StreamConfig) -> Result<bool> {
        use proto::create_stream_status::Status;
        let answer = call!(self, "createStream", create_stream, config.to_proto(stream)?)?;
        match answer.status() {
            Status::Success => Ok(true),
            Status::StreamExists => Ok(false),
            Status::ScopeNotFound => Err(not_found("scope", &stream.scope)),
            Status::InvalidStreamName => {
                Err(Error::new(ErrorKind::Invalid, format!("{} is no name for a stream", stream.stream)))
            }
            Status::Failure => Err(failed("create stream", stream)),
        }
    }

    /// Replaces a stream's configuration. When it returns, the new one is in force.
    ///
    /// # Errors
    /// `NotFound`; `Sealed`.
    ///
    /// # Cancel safety
    /// It may be changed.
    pub async fn update_stream(&self, stream: &ScopedStream, config: &StreamConfig) -> Result<()> {
        let answer = call!(self, "updateStream", update_stream, config.to_proto(stream)?)?;
        updated("update", stream, answer)
    }

    /// A stream's configuration.
    ///
    /// # Errors
    /// `NotFound`.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn stream_config(&self, stream: &ScopedStream) -> Result<StreamConfig> {
        let answer = call!(self, "getStreamConfiguration", get_stream_configuration, stream_info(stream))?;
        StreamConfig::of_proto(&answer)
    }

    /// Whether a stream is there, sealed or not.
    ///
    /// # Errors
    /// Those of every call.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn stream_exists(&self, stream: &ScopedStream) -> Result<bool> {
        Ok(call!(self, "checkStreamExists", check_stream_exists, stream_info(stream))?.exists)
    }

    /// Names of all streams of a scope that people made; those that the system keeps for itself are left out.
    ///
    /// # Errors
    /// `NotFound`: the scope does not exist.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn streams(&self, scope: &Name) -> Result<Vec<Name>> {
        let mut found = self.all_streams(scope).await?;
        found.retain(|name| !name.is_internal());
        Ok(found)
    }

    /// Names of all streams of a scope, the system's own among them.
    pub(crate) async fn all_streams(&self, scope: &Name) -> Result<Vec<Name>> {
        let (mut found, mut token) = (Vec::new(), String::new());
        for _ in 0..PAGES_MAX {
            let asked = proto::StreamsInScopeRequest {
                scope: Some(proto::ScopeInfo { scope: scope.to_string() }),
                continuation_token: Some(proto::ContinuationToken { token }),
            };
            let page = call!(self, "listStreamsInScope", list_streams_in_scope, asked)?;
            match names_of(scope, page, &mut found)? {
                Some(next) => token = next,
                None => return Ok(found),
            }
        }
        Err(endless("streams"))
    }

    /// Names of the streams of a scope that carry a tag.
    ///
    /// # Errors
    /// `NotFound`: the scope does not exist.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn streams_with_tag(&self, scope: &Name, tag: &str) -> Result<Vec<Name>> {
        let (mut found, mut token) = (Vec::new(), String::new());
        for _ in 0..PAGES_MAX {
            let asked = proto::StreamsInScopeWithTagRequest {
                scope: Some(proto::ScopeInfo { scope: scope.to_string() }),
                tag: tag.to_owned(),
                continuation_token: Some(proto::ContinuationToken { token }),
            };
            let page = call!(self, "listStreamsInScopeForTag", list_streams_in_scope_for_tag, asked)?;
            match names_of(scope, page, &mut found)? {
                Some(next) => token = next,
                None => {
                    found.retain(|name: &Name| !name.is_internal());
                    return Ok(found);
                }
            }
        }
        Err(endless("streams"))
    }

    /// Makes a stream read-only for ever. Open transactions are aborted. Sealing twice does no harm.
    ///
    /// # Errors
    /// `NotFound`.
    ///
    /// # Cancel safety
    /// It may be sealed.
    pub async fn seal_stream(&self, stream: &ScopedStream) -> Result<()> {
        let answer = call!(self, "sealStream", seal_stream, stream_info(stream))?;
        updated("seal", stream, answer)
    }

    /// Deletes a sealed stream. `false` if it was not there.
    ///
    /// # Errors
    /// `Conflict`: it is not sealed.
    ///
    /// # Cancel safety
    /// It may be gone.
    pub async fn delete_stream(&self, stream: &ScopedStream) -> Result<bool> {
        use proto::delete_stream_status::Status;
        let answer = call!(self, "deleteStream", delete_stream, stream_info(stream))?;
        match answer.status() {
            Status::Success => Ok(true),
            Status::StreamNotFound => Ok(false),
            Status::StreamNotSealed => Err(Error::new(
                ErrorKind::Conflict,
                format!("stream {stream} has to be sealed before it can be deleted"),
            )),
            Status::Failure => Err(failed("delete stream", stream)),
        }
    }

    /// Drops everything before a cut. Dropping it twice does no harm.
    ///
    /// # Errors
    /// `NotFound`; `Invalid`: the cut is none of this stream, or before what was truncated already.
    ///
    /// # Cancel safety
    /// It may be truncated.
    pub async fn truncate_stream(&self, cut: &StreamCut) -> Result<()> {
        let answer = call!(self, "truncateStream", truncate_stream, cut_to_proto(cut))?;
        // Whatever may go well the next time is no answer at all.
        if answer.status() == proto::update_stream_status::Status::Failure {
            let what = format!("cut is none of stream {}, or lies before what was truncated already", cut.stream);
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        updated("truncate", &cut.stream, answer)
    }

    /// Segments that take events now, by ascending keys; none once the stream is sealed.
    ///
    /// # Errors
    /// `NotFound`.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn current_segments(&self, stream: &ScopedStream) -> Result<Vec<SegmentRange>> {
        let answer = call!(self, "getCurrentSegments", get_current_segments, stream_info(stream))?;
        SegmentRange::all_of_proto(&answer.segment_ranges)
    }

    /// Segments of one epoch.
    ///
    /// # Errors
    /// `NotFound`: no such stream or epoch.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn epoch_segments(&self, stream: &ScopedStream, epoch: i32) -> Result<Vec<SegmentRange>> {
        let asked = proto::GetEpochSegmentsRequest { stream_info: Some(stream_info(stream)), epoch };
        let answer = call!(self, "getEpochSegments", get_epoch_segments, asked)?;
        SegmentRange::all_of_proto(&answer.segment_ranges)
    }

    /// Keys of segments, as far as they exist.
    pub(crate) async fn ranges_of(
        &self,
        stream: &ScopedStream,
        ids: &BTreeSet<SegmentId>,
    ) -> Result<BTreeMap<SegmentId, KeyRange>> {
        let epochs: BTreeSet<i32> = ids.iter().map(|id| id.epoch).collect();
        let mut ranges = BTreeMap::new();
        for epoch in epochs {
            match self.epoch_segments(stream, epoch).await {
                Ok(segments) => ranges.extend(segments.into_iter().map(|segment| (segment.id, segment.range))),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        ranges.retain(|id, _| ids.contains(id));
        Ok(ranges)
    }

    /// The cut before everything that is in the stream now. An offset of -1 says that readers come to the segment when they have
    /// read others of the cut, on which it follows; the stream was truncated at such a cut then.
    ///
    /// # Errors
    /// `NotFound`.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn head_cut(&self, stream: &ScopedStream) -> Result<StreamCut> {
        let asked = proto::GetSegmentsRequest { stream_info: Some(stream_info(stream)), timestamp: 0 };
        let answer = call!(self, "getSegments", get_segments, asked)?;
        let odd = || Error::new(ErrorKind::Protocol, "controller sent a segment without an id");
        let located = |it: proto::segments_at_time::SegmentLocation| {
            let id = it.segment_id.and_then(|id| SegmentId::from_i64(id.segment_id)).ok_or_else(odd)?;
            Ok((id, it.offset))
        };
        let offsets = answer.segments.into_iter().map(located).collect::<Result<_>>()?;
        self.plain_head(StreamCut { stream: stream.clone(), offsets }).await
    }

    /// Where the stream begins: its oldest segments and the offset in each. What follows on one of them is not among them.
    ///
    /// # Errors
    /// `NotFound`.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn head_segments(&self, stream: &ScopedStream) -> Result<Vec<(SegmentId, u64)>> {
        let head = self.head_cut(stream).await?;
        Ok(head.offsets.into_iter().filter_map(|(id, offset)| Some((id, u64::try_from(offset).ok()?))).collect())
    }

    /// What follows on a segment that is sealed; nothing if its stream is sealed, too. All of it is of later epochs than the
    /// segment, so whoever goes from segment to segment comes to an end.
    ///
    /// # Errors
    /// `NotFound`. `Protocol`: the server names a successor that is no later than the segment.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn successors(&self, stream: &ScopedStream, id: SegmentId) -> Result<Vec<Successor>> {
        let asked = segment_id(stream, id);
        let answer = call!(self, "getSegmentsImmediatelyFollowing", get_segments_immediately_following, asked)?;
        answer.segments.into_iter().map(|entry| successor_of(id, entry)).collect()
    }

    /// Reader groups that hold back the retention of a stream, as `scope/group`.
    ///
    /// # Errors
    /// `NotFound`.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn subscribers(&self, stream: &ScopedStream) -> Result<Vec<String>> {
        use proto::subscribers_response::Status;
        let answer = call!(self, "listSubscribers", list_subscribers, stream_info(stream))?;
        match answer.status() {
            Status::Success => Ok(answer.subscribers),
            Status::StreamNotFound => Err(not_found("stream", stream)),
            Status::Failure => Err(failed("list subscribers of", stream)),
        }
    }

    /// A writer notes no times any more, and nobody's time windows wait for it; a later note takes it back. Without this they do
    /// until it has been silent for the stream's [`timestamp_aggregation_timeout`](StreamConfig::timestamp_aggregation_timeout).
    /// `false`: nobody has noted a time under this name, or the server has forgotten it.
    ///
    /// * `writer`: under what it notes times: the name of a [`TransactionWriter`](crate::TransactionWriter), or what a Java client
    ///   was configured with. Our other writers have no names: [`EventWriter::note_end`](crate::EventWriter::note_end).
    ///
    /// # Errors
    /// `Unavailable`, `Denied`.
    ///
    /// # Cancel safety
    /// It may be removed.
    ///
    /// # Source
    /// `removeWriter`, which Pravega's own clients do not call.
    pub async fn remove_writer(&self, stream: &ScopedStream, writer: &str) -> Result<bool> {
        use proto::remove_writer_response::Status;
        let asked = proto::RemoveWriterRequest { writer: writer.to_owned(), stream: Some(stream_info(stream)) };
        let answer = call!(self, "removeWriter", remove_writer, asked)?;
        match answer.result() {
            Status::Success => Ok(true),
            Status::UnknownWriter => Ok(false),
            Status::StreamDoesNotExist => Err(not_found("stream", stream)),
            Status::InternalError => Err(failed("remove a writer of", stream)),
        }
    }

    /// Replaces segments by others for the same keys, and waits until it is done. `sealed` are current segments whose
    /// ranges touch each other, `ranges` what follows on them.
    ///
    /// # Errors
    /// `Conflict`: they are not the current segments any more, fewer would be left than the configuration wants, the ranges do
    /// not cover the same keys, or another scale is under way (also an earlier attempt of this one whose answer was lost).
    ///
    /// # Cancel safety
    /// A scale that has begun goes on.
    pub async fn scale_stream(&self, stream: &ScopedStream, sealed: &[SegmentId], ranges: &[KeyRange]) -> Result<()> {
        use proto::scale_response::ScaleStreamStatus;
        use proto::scale_status_response::ScaleStatus;
        let asked = proto::ScaleRequest {
            stream_info: Some(stream_info(stream)),
            sealed_segments: sealed.iter().map(|id| id.as_i64()).collect(),
            new_key_ranges: ranges
                .iter()
                .map(|range| proto::scale_request::KeyRangeEntry { start: range.low(), end: range.high() })
                .collect(),
            scale_timestamp: 0,
        };
        let answer = call!(self, "scale", scale, asked)?;
        match answer.status() {
            ScaleStreamStatus::Started => {}
            // An answer that was lost: it is done already.
            ScaleStreamStatus::PreconditionFailed if self.is_scaled(stream, sealed, ranges).await? => return Ok(()),
            ScaleStreamStatus::PreconditionFailed => {
                let what = format!(
                    "stream {stream} cannot be scaled so: other segments are current, or fewer would be left than its configuration wants"
                );
                return Err(Error::new(ErrorKind::Conflict, what));
            }
            ScaleStreamStatus::Failure => {
                let what = format!(
                    "stream {stream} is not scaled: the new ranges do not cover the keys of the old, or another scale is under way"
                );
                return Err(Error::new(ErrorKind::Conflict, what));
            }
        }
        let epoch = answer.epoch;
        loop {
            let asked = proto::ScaleStatusRequest { stream_info: Some(stream_info(stream)), epoch };
            match call!(self, "checkScale", check_scale, asked)?.status() {
                ScaleStatus::Success => return Ok(()),
                ScaleStatus::InProgress => tokio::time::sleep(SCALE_LOOK_EVERY).await,
                ScaleStatus::InvalidInput | ScaleStatus::InternalError => return Err(failed("scale stream", stream)),
            }
        }
    }

    /// Whether these segments were replaced by such ones, and no others with them.
    async fn is_scaled(&self, stream: &ScopedStream, sealed: &[SegmentId], ranges: &[KeyRange]) -> Result<bool> {
        let mut found = Vec::new();
        for id in sealed {
            let successors = match self.successors(stream, *id).await {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
                successors => successors?,
            };
            found.extend(successors);
        }
        let are_from_these = found.iter().all(|it| it.predecessors.iter().all(|id| sealed.contains(id)));
        let is_there = |range: &KeyRange| found.iter().any(|it| it.segment.range == *range);
        let was_asked = found.iter().all(|it| ranges.contains(&it.segment.range));
        Ok(!found.is_empty() && are_from_these && was_asked && ranges.iter().all(is_there))
    }
}

/// A successor is made by a scale, and each scale has an epoch of its own: one that is no later would lead in a circle.
fn successor_of(segment: SegmentId, entry: proto::successor_response::SegmentEntry) -> Result<Successor> {
    let odd = || Error::new(ErrorKind::Protocol, "controller sent a successor without a segment");
    let next = SegmentRange::of_proto(entry.segment.as_ref().ok_or_else(odd)?)?;
    if next.id.epoch <= segment.epoch {
        let what = format!("controller sent {} as successor of {segment}, which is no earlier", next.id);
        return Err(Error::new(ErrorKind::Protocol, what));
    }
    let predecessors = entry.value.into_iter().map(|id| SegmentId::from_i64(id).ok_or_else(odd));
    Ok(Successor { segment: next, predecessors: predecessors.collect::<Result<_>>()? })
}

/// A scale of an idle stream takes some milliseconds.
const SCALE_LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(10);

fn deleted_scope(scope: &Name, answer: proto::DeleteScopeStatus) -> Result<bool> {
    use proto::delete_scope_status::Status;
    match answer.status() {
        Status::Success => Ok(true),
        Status::ScopeNotFound => Ok(false),
        Status::ScopeNotEmpty => Err(Error::new(ErrorKind::Conflict, format!("scope {scope} is not empty"))),
        Status::Failure => Err(failed("delete scope", scope)),
    }
}

pub(crate) fn updated(what: &str, stream: &ScopedStream, answer: proto::UpdateStreamStatus) -> Result<()> {
    use proto::update_stream_status::Status;
    match answer.status() {
        Status::Success => Ok(()),
        Status::StreamNotFound => Err(not_found("stream", stream)),
        Status::ScopeNotFound => Err(not_found("scope", &stream.scope)),
        Status::StreamSealed => Err(Error::new(ErrorKind::Sealed, format!("stream {stream} is sealed"))),
        Status::Failure => Err(failed(what, stream)),
    }
}

pub(crate) fn name_of(text: &str) -> Result<Name> {
    Name::parse(text)
        .map_err(|error| Error::caused(ErrorKind::Protocol, format!("controller sent the name {text:?}"), error))
}

/// Adds a page's names; where the next one begins, if there may be one.
fn names_of(scope: &Name, page: proto::StreamsInScopeResponse, found: &mut Vec<Name>) -> Result<Option<String>> {
    use proto::streams_in_scope_response::Status;
    match page.status() {
        Status::Success => {}
        Status::ScopeNotFound => return Err(not_found("scope", scope)),
        Status::Failure => return Err(failed("list streams of", scope)),
    }
    let token = page.continuation_token.unwrap_or_default().token;
    let more = !page.streams.is_empty();
    for stream in page.streams {
        found.push(name_of(&stream.stream)?);
    }
    Ok(more.then_some(token))
}

pub(crate) fn endless(what: &str) -> Error {
    Error::new(ErrorKind::Protocol, format!("controller does not come to an end of its {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_is_of_a_later_epoch_than_what_it_follows_on() {
        let stream = ScopedStream::parse("s/t").unwrap();
        let entry = |number, epoch| {
            let segment = proto::SegmentRange {
                segment_id: Some(crate::model::segment_id(&stream, SegmentId::new(number, epoch))),
                min_key: 0.0,
                max_key: 1.0,
            };
            proto::successor_response::SegmentEntry {
                segment: Some(segment),
                value: vec![SegmentId::new(0, 1).as_i64()],
            }
        };
        let before = SegmentId::new(0, 1);
        let later = successor_of(before, entry(1, 2)).unwrap();
        assert_eq!((later.segment.id, later.predecessors), (SegmentId::new(1, 2), vec![before]));
        // Itself, another of its epoch, and what it follows on.
        for (number, epoch) in [(0, 1), (1, 1), (1, 0)] {
            let error = successor_of(before, entry(number, epoch)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol, "{number} of {epoch}: {error}");
        }
    }
}
