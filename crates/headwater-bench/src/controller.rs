//! The controller as blocking calls: streams, their segments, transactions, scales. Any server of the protocol answers them.
//!
//! Each has a connection and a runtime of the calling thread, which works only while a call is under way: nothing of it
//! competes with the loads for the processor.

use std::time::Duration;

use headwater_proto::controller as proto;
use headwater_proto::controller::controller_service_client::ControllerServiceClient;
use headwater_types::{KeyRange, ScopedStream, SegmentId, TransactionId};
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use crate::error::{BenchError, Context};

/// A controller that says nothing for so long will not say anything any more.
const PATIENCE: Duration = Duration::from_secs(30);
/// A transaction of ours takes a small part of it. The shortest that servers take.
const LEASE_MS: i64 = 10_000;
/// "No time" in a commit.
const NO_TIME: i64 = i64::MIN;

type Stub = ControllerServiceClient<Channel>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Controller {
    runtime: Runtime,
    stub: Stub,
}

/// A segment and its part of the key space.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Piece {
    pub(crate) id: SegmentId,
    pub(crate) range: KeyRange,
}

/// What has become of a transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TransactionState {
    Committing,
    Committed,
}

impl Controller {
    /// `address` is host:port.
    pub(crate) fn open(address: &str) -> Result<Self, BenchError> {
        let wrong = |_| BenchError::Setting { what: format!("--controller: {address} is not host:port") };
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(wrong)?.connect_timeout(PATIENCE);
        let runtime = Builder::new_current_thread().enable_all().build().on("start", "a runtime")?;
        // Connects with the first call; what goes wrong there is that call's failure.
        let stub = runtime.block_on(async { Stub::new(endpoint.connect_lazy()) });
        Ok(Self { runtime, stub })
    }

    fn call<A, F>(&self, name: &'static str, call: impl FnOnce(Stub) -> F) -> Result<A, BenchError>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let stub = self.stub.clone();
        let answer = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, call(stub)).await });
        match answer {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(refused(name, &format!("{}: {}", status.code(), status.message()))),
            Err(_) => Err(refused(name, &format!("nothing within {} s", PATIENCE.as_secs()))),
        }
    }

    /// Creates a stream with so many segments of equal parts of the key space, and its scope if that is missing.
    pub(crate) fn create(&self, stream: &ScopedStream, segments: usize) -> Result<(), BenchError> {
        use proto::create_scope_status::Status as Scope;
        use proto::create_stream_status::Status as Stream;
        let scope = proto::ScopeInfo { scope: stream.scope.to_string() };
        let answer = self.call("createScope", |mut stub| async move { stub.create_scope(scope).await })?;
        if !matches!(answer.status(), Scope::Success | Scope::ScopeExists) {
            return Err(refused("createScope", answer.status().as_str_name()));
        }
        let config = proto::StreamConfig {
            stream_info: Some(info(stream)),
            scaling_policy: Some(proto::ScalingPolicy {
                scale_type: proto::scaling_policy::ScalingPolicyType::FixedNumSegments.into(),
                min_num_segments: i32::try_from(segments).expect("segments were checked"),
                ..Default::default()
            }),
            ..Default::default()
        };
        let answer = self.call("createStream", |mut stub| async move { stub.create_stream(config).await })?;
        match answer.status() {
            Stream::Success => Ok(()),
            status => Err(refused("createStream", status.as_str_name())),
        }
    }

    /// Seals and deletes a stream.
    pub(crate) fn delete(&self, stream: &ScopedStream) -> Result<(), BenchError> {
        use proto::delete_stream_status::Status as Deleted;
        use proto::update_stream_status::Status as Sealed;
        let asked = info(stream);
        let answer = self.call("sealStream", |mut stub| async move { stub.seal_stream(asked).await })?;
        if answer.status() != Sealed::Success {
            return Err(refused("sealStream", answer.status().as_str_name()));
        }
        let asked = info(stream);
        let answer = self.call("deleteStream", |mut stub| async move { stub.delete_stream(asked).await })?;
        match answer.status() {
            Deleted::Success => Ok(()),
            status => Err(refused("deleteStream", status.as_str_name())),
        }
    }

    /// Segments that accept events now.
    pub(crate) fn current_segments(&self, stream: &ScopedStream) -> Result<Vec<Piece>, BenchError> {
        const CALL: &str = "getCurrentSegments";
        let asked = info(stream);
        let answer = self.call(CALL, |mut stub| async move { stub.get_current_segments(asked).await })?;
        pieces(CALL, answer.segment_ranges)
    }

    /// Segments that follow one that is sealed; none if it is not, as far as the controller knows.
    pub(crate) fn successors(&self, stream: &ScopedStream, id: SegmentId) -> Result<Vec<Piece>, BenchError> {
        const CALL: &str = "getSegmentsImmediatelyFollowing";
        let asked = proto::SegmentId { stream_info: Some(info(stream)), segment_id: id.as_i64() };
        let call = |mut stub: Stub| async move { stub.get_segments_immediately_following(asked).await };
        let entries = self.call(CALL, call)?.segments;
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        pieces(CALL, entries.into_iter().filter_map(|entry| entry.segment).collect())
    }

    /// Begins to replace segments by others with these parts of the key space. Returns the epoch before, and the new segments.
    pub(crate) fn scale(
        &self,
        stream: &ScopedStream,
        old: &[Piece],
        new: &[KeyRange],
    ) -> Result<(i32, Vec<Piece>), BenchError> {
        use proto::scale_response::ScaleStreamStatus as Status;
        const CALL: &str = "scale";
        let range = |range: &KeyRange| proto::scale_request::KeyRangeEntry { start: range.low(), end: range.high() };
        let asked = proto::ScaleRequest {
            stream_info: Some(info(stream)),
            sealed_segments: old.iter().map(|piece| piece.id.as_i64()).collect(),
            new_key_ranges: new.iter().map(range).collect(),
            scale_timestamp: 0,
        };
        let answer = self.call(CALL, |mut stub| async move { stub.scale(asked).await })?;
        match answer.status() {
            Status::Started => Ok((answer.epoch, pieces(CALL, answer.segments)?)),
            status => Err(refused(CALL, status.as_str_name())),
        }
    }

    /// Whether the scale that began in an epoch is done.
    pub(crate) fn is_scaled(&self, stream: &ScopedStream, epoch: i32) -> Result<bool, BenchError> {
        use proto::scale_status_response::ScaleStatus as Status;
        let asked = proto::ScaleStatusRequest { stream_info: Some(info(stream)), epoch };
        let answer = self.call("checkScale", |mut stub| async move { stub.check_scale(asked).await })?;
        match answer.status() {
            Status::InProgress => Ok(false),
            Status::Success => Ok(true),
            status => Err(refused("checkScale", status.as_str_name())),
        }
    }

    /// Begins a transaction; its segments are those of the stream.
    pub(crate) fn begin(&self, stream: &ScopedStream) -> Result<(TransactionId, Vec<Piece>), BenchError> {
        const CALL: &str = "createTransaction";
        let asked = proto::CreateTxnRequest { stream_info: Some(info(stream)), lease: LEASE_MS, ..Default::default() };
        let answer = self.call(CALL, |mut stub| async move { stub.create_transaction(asked).await })?;
        let id = answer.txn_id.ok_or_else(|| refused(CALL, "no id"))?;
        Ok((TransactionId::from_halves(id.high_bits, id.low_bits), pieces(CALL, answer.active_segments)?))
    }

    /// Decides that a transaction is to be committed; when it is, [`state`](Self::state) tells.
    pub(crate) fn commit(&self, stream: &ScopedStream, id: TransactionId) -> Result<(), BenchError> {
        let asked = transaction(stream, id);
        let answer = self.call("commitTransaction", |mut stub| async move { stub.commit_transaction(asked).await })?;
        match answer.status() {
            proto::txn_status::Status::Success => Ok(()),
            status => Err(refused("commitTransaction", status.as_str_name())),
        }
    }

    /// Decides that a transaction is to be aborted.
    pub(crate) fn abort(&self, stream: &ScopedStream, id: TransactionId) -> Result<(), BenchError> {
        let asked = transaction(stream, id);
        let answer = self.call("abortTransaction", |mut stub| async move { stub.abort_transaction(asked).await })?;
        match answer.status() {
            proto::txn_status::Status::Success => Ok(()),
            status => Err(refused("abortTransaction", status.as_str_name())),
        }
    }

    /// Of a transaction that is to be committed.
    pub(crate) fn state(&self, stream: &ScopedStream, id: TransactionId) -> Result<TransactionState, BenchError> {
        use proto::txn_state::State;
        const CALL: &str = "checkTransactionState";
        let asked = transaction(stream, id);
        let answer = self.call(CALL, |mut stub| async move { stub.check_transaction_state(asked).await })?;
        match answer.state() {
            State::Committing => Ok(TransactionState::Committing),
            State::Committed => Ok(TransactionState::Committed),
            state => Err(refused(CALL, state.as_str_name())),
        }
    }
}

fn info(stream: &ScopedStream) -> proto::StreamInfo {
    proto::StreamInfo {
        scope: stream.scope.to_string(),
        stream: stream.stream.to_string(),
        access_operation: proto::stream_info::AccessOperation::ReadWrite.into(),
    }
}

fn transaction(stream: &ScopedStream, id: TransactionId) -> proto::TxnRequest {
    let (high_bits, low_bits) = id.halves();
    proto::TxnRequest {
        stream_info: Some(info(stream)),
        txn_id: Some(proto::TxnId { high_bits, low_bits }),
        writer_id: String::new(),
        timestamp: NO_TIME,
    }
}

/// Segments as the controller sent them, of which there must be at least one.
fn pieces(call: &'static str, ranges: Vec<proto::SegmentRange>) -> Result<Vec<Piece>, BenchError> {
    let piece = |range: proto::SegmentRange| {
        let id = SegmentId::from_i64(range.segment_id?.segment_id)?;
        Some(Piece { id, range: KeyRange::new(range.min_key, range.max_key).ok()? })
    };
    let all: Option<Vec<Piece>> = ranges.into_iter().map(piece).collect();
    all.filter(|all| !all.is_empty()).ok_or_else(|| refused(call, "segments that are none"))
}

fn refused(request: &'static str, reply: &str) -> BenchError {
    BenchError::Refused { request, reply: reply.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(id: i64, min_key: f64, max_key: f64) -> proto::SegmentRange {
        let segment_id = Some(proto::SegmentId { stream_info: None, segment_id: id });
        proto::SegmentRange { segment_id, min_key, max_key }
    }

    #[test]
    fn segments_that_are_none_are_the_servers_fault() {
        let found = pieces("x", vec![range((1 << 32) | 2, 0.5, 1.0)]).unwrap();
        assert_eq!(found, [Piece { id: SegmentId::new(2, 1), range: KeyRange::new(0.5, 1.0).unwrap() }]);
        for bad in [vec![], vec![range(-1, 0.0, 1.0)], vec![range(0, 0.5, 0.5)], vec![proto::SegmentRange::default()]] {
            let error = pieces("x", bad).unwrap_err().to_string();
            assert_eq!(error, "x was answered with segments that are none");
        }
    }

    #[test]
    fn an_address_that_is_none_is_a_setting_and_a_controller_that_is_not_there_is_told() {
        assert!(matches!(Controller::open("a b").unwrap_err(), BenchError::Setting { .. }));
        let stream = ScopedStream::parse("bench/run").unwrap();
        let error = Controller::open("127.0.0.1:1").unwrap().create(&stream, 1).unwrap_err();
        assert!(error.to_string().starts_with("createScope was answered with"), "{error}");
    }
}
