//! Messages to the controller's values and back, and its outcomes to statuses.
//!
//! A name that breaks the rule names nothing, so it is answered like one that does not exist; an absent or empty one is
//! a mistake of the caller. Mistakes that stay mistakes are INVALID_ARGUMENT, so that clients do not retry them for a
//! minute.

use std::collections::BTreeMap;

use headwater_controller::model::{
    ControllerError, DeleteScope, EndTransaction, Listing, Page, RetentionKind, RetentionPolicy, ScalingKind,
    ScalingPolicy, SegmentRange, StreamConfig, StreamCut, UpdateStream, answer_segments_max,
};
use headwater_proto::controller as proto;
use headwater_types::{Name, ScopedStream, SegmentId, TransactionId};
use proto::retention_policy::RetentionPolicyType;
use proto::scaling_policy::ScalingPolicyType;
use tonic::{Response, Status};

pub(super) type Answer<T> = Result<Response<T>, Status>;

pub(super) fn answer<T>(message: T) -> Answer<T> {
    Ok(Response::new(message))
}

pub(super) fn status(error: ControllerError) -> Status {
    let text = error.to_string();
    match error {
        ControllerError::Invalid(_) => Status::invalid_argument(text),
        ControllerError::NotFound(_) => Status::not_found(text),
        ControllerError::Unavailable(_) => Status::unavailable(text),
        ControllerError::Exhausted(_) => Status::resource_exhausted(text),
        ControllerError::Foreign(_) => Status::failed_precondition(text),
        ControllerError::Damaged(_) => Status::data_loss(text),
        ControllerError::Newer(_) | ControllerError::Internal(_) => Status::internal(text),
    }
}

pub(super) fn missing(field: &str) -> Status {
    Status::invalid_argument(format!("{field} is missing"))
}

/// `None` for a name that breaks the rule.
pub(super) fn name(text: &str, field: &str) -> Result<Option<Name>, Status> {
    if text.is_empty() { Err(missing(field)) } else { Ok(Name::parse(text).ok()) }
}

/// `None` for a stream that cannot exist.
pub(super) fn stream(info: Option<proto::StreamInfo>) -> Result<Option<ScopedStream>, Status> {
    let info = info.ok_or_else(|| missing("streamInfo"))?;
    let (scope, stream) = (name(&info.scope, "scope")?, name(&info.stream, "stream")?);
    Ok(scope.zip(stream).map(|(scope, stream)| ScopedStream { scope, stream }))
}

pub(super) fn existing(info: Option<proto::StreamInfo>) -> Result<ScopedStream, Status> {
    stream(info)?.ok_or_else(|| Status::not_found("a stream of such a name does not exist"))
}

pub(super) fn segment(id: i64) -> Result<SegmentId, Status> {
    SegmentId::from_i64(id).ok_or_else(|| Status::invalid_argument(format!("{id} is not a segment id")))
}

pub(super) fn transaction(id: Option<proto::TxnId>) -> Result<TransactionId, Status> {
    let id = id.ok_or_else(|| missing("txnId"))?;
    Ok(TransactionId::from_halves(id.high_bits, id.low_bits))
}

pub(super) fn transaction_id(id: TransactionId) -> proto::TxnId {
    let (high_bits, low_bits) = id.halves();
    proto::TxnId { high_bits, low_bits }
}

pub(super) fn stream_info(scope: &str, stream: &str) -> proto::StreamInfo {
    proto::StreamInfo { scope: scope.to_owned(), stream: stream.to_owned(), access_operation: 0 }
}

pub(super) fn segment_id(stream: &ScopedStream, id: SegmentId) -> proto::SegmentId {
    let info = stream_info(stream.scope.as_str(), stream.stream.as_str());
    proto::SegmentId { stream_info: Some(info), segment_id: id.as_i64() }
}

pub(super) fn range(stream: &ScopedStream, segment: SegmentRange) -> proto::SegmentRange {
    proto::SegmentRange {
        segment_id: Some(segment_id(stream, segment.id)),
        min_key: segment.range.low(),
        max_key: segment.range.high(),
    }
}

/// Whether so many segments fit an answer that clients take. Nothing of it has been made yet.
pub(super) fn fits(stream: &ScopedStream, segments: usize) -> Result<(), Status> {
    let most = answer_segments_max(stream);
    if segments <= most {
        return Ok(());
    }
    // A status that clients do not try again at: it will not fit later either.
    Err(Status::invalid_argument(format!("{segments} segments of {stream} do not fit one answer, at most {most} do")))
}

pub(super) fn ranges(stream: &ScopedStream, segments: Vec<SegmentRange>) -> proto::SegmentRanges {
    let segment_ranges = segments.into_iter().map(|segment| range(stream, segment)).collect();
    proto::SegmentRanges { segment_ranges, delegation_token: String::new() }
}

/// `None` if one of the numbers is no segment.
pub(super) fn cut(entries: BTreeMap<i64, i64>) -> Option<StreamCut> {
    entries.into_iter().map(|(id, offset)| Some((SegmentId::from_i64(id)?, offset))).collect()
}

pub(super) fn token(token: Option<proto::ContinuationToken>) -> String {
    token.map_or_else(String::new, |token| token.token)
}

pub(super) fn config(message: proto::StreamConfig) -> Result<StreamConfig, Status> {
    let scaling = message.scaling_policy.ok_or_else(|| missing("scalingPolicy"))?;
    let kind = match ScalingPolicyType::try_from(scaling.scale_type) {
        Ok(ScalingPolicyType::FixedNumSegments) => ScalingKind::Fixed,
        Ok(ScalingPolicyType::ByRateInKbytesPerSec) => ScalingKind::Kilobytes,
        Ok(ScalingPolicyType::ByRateInEventsPerSec) => ScalingKind::Events,
        Err(_) => return Err(Status::invalid_argument(format!("unknown scale type {}", scaling.scale_type))),
    };
    let retention = match message.retention_policy {
        None => None,
        Some(policy) => {
            let kind = match RetentionPolicyType::try_from(policy.retention_type) {
                // The Rust client's way to say "none".
                Ok(RetentionPolicyType::Unknown) => None,
                Ok(RetentionPolicyType::Time) => Some(RetentionKind::Time),
                Ok(RetentionPolicyType::Size) => Some(RetentionKind::Size),
                Err(_) => {
                    let text = format!("unknown retention type {}", policy.retention_type);
                    return Err(Status::invalid_argument(text));
                }
            };
            kind.map(|kind| RetentionPolicy { kind, keep: policy.retention_param, keep_max: policy.retention_max })
        }
    };
    Ok(StreamConfig {
        scaling: ScalingPolicy {
            kind,
            target_rate: scaling.target_rate,
            scale_factor: scaling.scale_factor,
            min_segments: scaling.min_num_segments,
        },
        retention,
        tags: message.tags.map_or_else(Vec::new, |tags| tags.tag),
        timestamp_aggregation_timeout_ms: message.timestamp_aggregation_timeout,
        rollover_bytes: message.rollover_size_bytes,
    })
}

/// Clients rely on stream info and scaling policy being there.
pub(super) fn config_message(stream: &ScopedStream, config: StreamConfig) -> proto::StreamConfig {
    let scale_type = match config.scaling.kind {
        ScalingKind::Fixed => ScalingPolicyType::FixedNumSegments,
        ScalingKind::Kilobytes => ScalingPolicyType::ByRateInKbytesPerSec,
        ScalingKind::Events => ScalingPolicyType::ByRateInEventsPerSec,
    };
    proto::StreamConfig {
        stream_info: Some(stream_info(stream.scope.as_str(), stream.stream.as_str())),
        scaling_policy: Some(proto::ScalingPolicy {
            scale_type: scale_type.into(),
            target_rate: config.scaling.target_rate,
            scale_factor: config.scaling.scale_factor,
            min_num_segments: config.scaling.min_segments,
        }),
        retention_policy: config.retention.map(|policy| proto::RetentionPolicy {
            retention_type: match policy.kind {
                RetentionKind::Time => RetentionPolicyType::Time,
                RetentionKind::Size => RetentionPolicyType::Size,
            }
            .into(),
            retention_param: policy.keep,
            retention_max: policy.keep_max,
        }),
        tags: Some(proto::Tags { tag: config.tags }),
        timestamp_aggregation_timeout: config.timestamp_aggregation_timeout_ms,
        rollover_size_bytes: config.rollover_bytes,
    }
}

pub(super) fn update_status(outcome: UpdateStream) -> Answer<proto::UpdateStreamStatus> {
    use proto::update_stream_status::Status as Wire;
    let status = match outcome {
        UpdateStream::Success => Wire::Success,
        UpdateStream::Failure => Wire::Failure,
        UpdateStream::StreamNotFound => Wire::StreamNotFound,
        UpdateStream::Sealed => Wire::StreamSealed,
    };
    answer(proto::UpdateStreamStatus { status: status.into() })
}

pub(super) fn end_status(outcome: EndTransaction) -> Answer<proto::TxnStatus> {
    use proto::txn_status::Status as Wire;
    let status = match outcome {
        EndTransaction::Success => Wire::Success,
        EndTransaction::Failure => Wire::Failure,
        EndTransaction::StreamNotFound => Wire::StreamNotFound,
    };
    answer(proto::TxnStatus { status: status.into() })
}

pub(super) fn delete_scope_status(outcome: DeleteScope) -> Answer<proto::DeleteScopeStatus> {
    use proto::delete_scope_status::Status as Wire;
    let status = match outcome {
        DeleteScope::Success => Wire::Success,
        DeleteScope::NotFound => Wire::ScopeNotFound,
        DeleteScope::NotEmpty => Wire::ScopeNotEmpty,
    };
    answer(proto::DeleteScopeStatus { status: status.into() })
}

pub(super) fn listing(scope: &str, listing: Listing) -> Answer<proto::StreamsInScopeResponse> {
    use proto::streams_in_scope_response::Status as Wire;
    let (page, status) = match listing {
        Listing::Page(page) => (page, Wire::Success),
        Listing::ScopeNotFound => (Page::default(), Wire::ScopeNotFound),
    };
    answer(proto::StreamsInScopeResponse {
        streams: page.names.iter().map(|name| stream_info(scope, name)).collect(),
        continuation_token: Some(proto::ContinuationToken { token: page.token }),
        status: status.into(),
    })
}
