//! The controller over gRPC: messages in, one call of the [`Controller`], messages out. Nothing is decided here.

mod groups;
mod messages;
#[cfg(test)]
mod mistakes;
mod tables;
#[cfg(test)]
mod tests;

use headwater_controller::Controller;
use headwater_controller::model::{
    ANSWER_BYTES_MAX, CreateScope, CreateStream, DeleteScope, DeleteStream, EndTransaction, Listing, NoteTime, Ping,
    RemoveWriter, Scale, ScaleProgress, TransactionState, UpdateStream,
};
use headwater_proto::controller as proto;
use headwater_proto::controller::controller_service_server::{ControllerService, ControllerServiceServer};
use headwater_types::SegmentId;
use messages::{
    Answer, answer, config, config_message, cut, delete_scope_status, end_status, existing, fits, listing, missing,
    name, range, ranges, segment, segment_id, status, stream, token, transaction, transaction_id, update_status,
};
use tonic::{Request, Status};

/// Largest request: a scaling or a cut of as many segments as a stream may have takes a quarter of it.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// The controller service of one server.
#[derive(Clone, Debug)]
pub(crate) struct ControllerGrpc {
    controller: Controller,
    host: String,
    segment_store_port: u16,
    controller_port: u16,
}

impl ControllerGrpc {
    /// `host` is what clients are told to connect to, for both ports.
    pub(crate) fn new(controller: Controller, host: String, segment_store_port: u16, controller_port: u16) -> Self {
        Self { controller, host, segment_store_port, controller_port }
    }

    /// The service for a tonic server without the guard that asks who calls; only tests have it.
    #[cfg(test)]
    fn into_service(self) -> ControllerServiceServer<Self> {
        limited(ControllerServiceServer::new(self))
    }

    fn node(&self, port: u16) -> proto::NodeUri {
        proto::NodeUri { endpoint: self.host.clone(), port: port.into() }
    }

    async fn successors(&self, request: proto::SegmentId) -> Answer<proto::SuccessorResponse> {
        let info = request.stream_info.clone();
        let stream = existing(info)?;
        let found = self.controller.successors(&stream, segment(request.segment_id)?).await.map_err(status)?;
        fits(&stream, found.len())?;
        let segments = found
            .into_iter()
            .map(|successor| proto::successor_response::SegmentEntry {
                segment: Some(range(&stream, successor.segment)),
                value: successor.predecessors.into_iter().map(SegmentId::as_i64).collect(),
            })
            .collect();
        answer(proto::SuccessorResponse { segments, delegation_token: String::new() })
    }
}

/// Bounds the messages of a service.
pub(crate) fn limited<S>(service: ControllerServiceServer<S>) -> ControllerServiceServer<S> {
    service.max_decoding_message_size(REQUEST_BYTES_MAX).max_encoding_message_size(ANSWER_BYTES_MAX)
}

#[tonic::async_trait]
impl ControllerService for ControllerGrpc {
    async fn get_controller_server_list(&self, _: Request<proto::ServerRequest>) -> Answer<proto::ServerResponse> {
        answer(proto::ServerResponse { node_uri: vec![self.node(self.controller_port)] })
    }

    async fn create_stream(&self, request: Request<proto::StreamConfig>) -> Answer<proto::CreateStreamStatus> {
        use proto::create_stream_status::Status as Wire;
        let mut request = request.into_inner();
        let info = request.stream_info.take().ok_or_else(|| missing("streamInfo"))?;
        let config = config(request)?;
        let outcome = self.controller.create_stream(&info.scope, &info.stream, config).await.map_err(status)?;
        let status = match outcome {
            CreateStream::Success => Wire::Success,
            CreateStream::Exists => Wire::StreamExists,
            CreateStream::ScopeNotFound => Wire::ScopeNotFound,
            CreateStream::InvalidName => Wire::InvalidStreamName,
        };
        answer(proto::CreateStreamStatus { status: status.into() })
    }

    async fn update_stream(&self, request: Request<proto::StreamConfig>) -> Answer<proto::UpdateStreamStatus> {
        let mut request = request.into_inner();
        let Some(stream) = stream(request.stream_info.take())? else {
            return update_status(UpdateStream::StreamNotFound);
        };
        let config = config(request)?;
        update_status(self.controller.update_stream(&stream, config).await.map_err(status)?)
    }

    async fn truncate_stream(&self, request: Request<proto::StreamCut>) -> Answer<proto::UpdateStreamStatus> {
        let request = request.into_inner();
        let Some(stream) = stream(request.stream_info)? else {
            return update_status(UpdateStream::StreamNotFound);
        };
        // An impossible segment makes an invalid cut, but only of a stream that exists and is open.
        let cut = cut(request.cut).unwrap_or_default();
        update_status(self.controller.truncate_stream(&stream, cut).await.map_err(status)?)
    }

    async fn seal_stream(&self, request: Request<proto::StreamInfo>) -> Answer<proto::UpdateStreamStatus> {
        let Some(stream) = stream(Some(request.into_inner()))? else {
            return update_status(UpdateStream::StreamNotFound);
        };
        update_status(self.controller.seal_stream(&stream).await.map_err(status)?)
    }

    async fn delete_stream(&self, request: Request<proto::StreamInfo>) -> Answer<proto::DeleteStreamStatus> {
        use proto::delete_stream_status::Status as Wire;
        let outcome = match stream(Some(request.into_inner()))? {
            None => DeleteStream::NotFound,
            Some(stream) => self.controller.delete_stream(&stream).await.map_err(status)?,
        };
        let status = match outcome {
            DeleteStream::Success => Wire::Success,
            DeleteStream::NotFound => Wire::StreamNotFound,
            DeleteStream::NotSealed => Wire::StreamNotSealed,
        };
        answer(proto::DeleteStreamStatus { status: status.into() })
    }

    async fn get_current_segments(&self, request: Request<proto::StreamInfo>) -> Answer<proto::SegmentRanges> {
        let stream = existing(Some(request.into_inner()))?;
        let segments = self.controller.current_segments(&stream).await.map_err(status)?;
        fits(&stream, segments.len())?;
        answer(ranges(&stream, segments))
    }

    async fn get_epoch_segments(
        &self,
        request: Request<proto::GetEpochSegmentsRequest>,
    ) -> Answer<proto::SegmentRanges> {
        let request = request.into_inner();
        let stream = existing(request.stream_info)?;
        let segments = self.controller.epoch_segments(&stream, request.epoch).await.map_err(status)?;
        fits(&stream, segments.len())?;
        answer(ranges(&stream, segments))
    }

    async fn get_segments(&self, request: Request<proto::GetSegmentsRequest>) -> Answer<proto::SegmentsAtTime> {
        let stream = existing(request.into_inner().stream_info)?;
        let head = self.controller.head_segments(&stream).await.map_err(status)?;
        fits(&stream, head.len())?;
        let segments = head
            .into_iter()
            .map(|(id, offset)| proto::segments_at_time::SegmentLocation {
                segment_id: Some(segment_id(&stream, id)),
                offset,
            })
            .collect();
        answer(proto::SegmentsAtTime { segments, delegation_token: String::new() })
    }

    async fn get_segments_immediatly_following(
        &self,
        request: Request<proto::SegmentId>,
    ) -> Answer<proto::SuccessorResponse> {
        self.successors(request.into_inner()).await
    }

    async fn get_segments_immediately_following(
        &self,
        request: Request<proto::SegmentId>,
    ) -> Answer<proto::SuccessorResponse> {
        self.successors(request.into_inner()).await
    }

    async fn get_segments_between(
        &self,
        request: Request<proto::StreamCutRange>,
    ) -> Answer<proto::StreamCutRangeResponse> {
        let request = request.into_inner();
        let stream = existing(request.stream_info)?;
        let invalid = || Status::invalid_argument("a stream cut names an impossible segment");
        let (from, to) = (cut(request.from).ok_or_else(invalid)?, cut(request.to).ok_or_else(invalid)?);
        let found = self.controller.segments_between(&stream, &from, &to).await.map_err(status)?;
        // Between distant cuts of a stream that has scaled often there are more than it ever had at a time.
        fits(&stream, found.len())?;
        let segments = found.into_iter().map(|id| segment_id(&stream, id)).collect();
        answer(proto::StreamCutRangeResponse { segments, delegation_token: String::new() })
    }

    async fn scale(&self, request: Request<proto::ScaleRequest>) -> Answer<proto::ScaleResponse> {
        use proto::scale_response::ScaleStreamStatus as Wire;
        let request = request.into_inner();
        let stream = stream(request.stream_info)?;
        let seal: Option<Vec<_>> = request.sealed_segments.into_iter().map(SegmentId::from_i64).collect();
        let new = request.new_key_ranges.iter().map(|entry| (entry.start, entry.end)).collect();
        let outcome = match (&stream, seal) {
            (None, _) => Scale::Failure,
            (Some(_), None) => Scale::PreconditionFailed,
            (Some(stream), Some(seal)) => self.controller.scale(stream, seal, new).await.map_err(status)?,
        };
        let refused = |status: Wire| proto::ScaleResponse { status: status.into(), segments: Vec::new(), epoch: 0 };
        answer(match (stream, outcome) {
            (Some(stream), Scale::Started { epoch, segments }) => proto::ScaleResponse {
                status: Wire::Started.into(),
                segments: segments.into_iter().map(|segment| range(&stream, segment)).collect(),
                epoch,
            },
            (_, Scale::PreconditionFailed) => refused(Wire::PreconditionFailed),
            (_, Scale::Failure | Scale::Started { .. }) => refused(Wire::Failure),
        })
    }

    async fn check_scale(&self, request: Request<proto::ScaleStatusRequest>) -> Answer<proto::ScaleStatusResponse> {
        use proto::scale_status_response::ScaleStatus as Wire;
        let request = request.into_inner();
        let progress = match stream(request.stream_info)? {
            None => ScaleProgress::InvalidInput,
            Some(stream) => self.controller.check_scale(&stream, request.epoch).await.map_err(status)?,
        };
        let status = match progress {
            ScaleProgress::InProgress => Wire::InProgress,
            ScaleProgress::Success => Wire::Success,
            ScaleProgress::InvalidInput => Wire::InvalidInput,
        };
        answer(proto::ScaleStatusResponse { status: status.into() })
    }

    /// Never asks whether the segment exists: clients ask for tables and for parents of transactions' segments.
    async fn get_uri(&self, _: Request<proto::SegmentId>) -> Answer<proto::NodeUri> {
        answer(self.node(self.segment_store_port))
    }

    async fn is_segment_valid(&self, request: Request<proto::SegmentId>) -> Answer<proto::SegmentValidityResponse> {
        let request = request.into_inner();
        let stream = existing(request.stream_info)?;
        let response = match SegmentId::from_i64(request.segment_id) {
            None => false,
            Some(id) => self.controller.segment_is_open(&stream, id).await.map_err(status)?,
        };
        answer(proto::SegmentValidityResponse { response })
    }

    async fn is_stream_cut_valid(
        &self,
        request: Request<proto::StreamCut>,
    ) -> Answer<proto::StreamCutValidityResponse> {
        let request = request.into_inner();
        let stream = existing(request.stream_info)?;
        let response = match cut(request.cut) {
            None => false,
            Some(cut) => self.controller.cut_is_valid(&stream, &cut).await.map_err(status)?,
        };
        answer(proto::StreamCutValidityResponse { response })
    }

    async fn create_transaction(&self, request: Request<proto::CreateTxnRequest>) -> Answer<proto::CreateTxnResponse> {
        let request = request.into_inner();
        let stream = existing(request.stream_info)?;
        let created = self.controller.create_transaction(&stream, request.lease).await.map_err(status)?;
        answer(proto::CreateTxnResponse {
            txn_id: Some(transaction_id(created.id)),
            active_segments: created.segments.into_iter().map(|segment| range(&stream, segment)).collect(),
            delegation_token: String::new(),
        })
    }

    async fn commit_transaction(&self, request: Request<proto::TxnRequest>) -> Answer<proto::TxnStatus> {
        let request = request.into_inner();
        let id = transaction(request.txn_id)?;
        let Some(stream) = stream(request.stream_info)? else {
            return end_status(EndTransaction::StreamNotFound);
        };
        let ended = self.controller.commit_transaction(&stream, id, request.writer_id, request.timestamp).await;
        end_status(ended.map_err(status)?)
    }

    async fn abort_transaction(&self, request: Request<proto::TxnRequest>) -> Answer<proto::TxnStatus> {
        let request = request.into_inner();
        let id = transaction(request.txn_id)?;
        let Some(stream) = stream(request.stream_info)? else {
            return end_status(EndTransaction::StreamNotFound);
        };
        end_status(self.controller.abort_transaction(&stream, id).await.map_err(status)?)
    }

    async fn ping_transaction(&self, request: Request<proto::PingTxnRequest>) -> Answer<proto::PingTxnStatus> {
        use proto::ping_txn_status::Status as Wire;
        let request = request.into_inner();
        let id = transaction(request.txn_id)?;
        let outcome = match stream(request.stream_info)? {
            None => Ping::Unknown,
            Some(stream) => self.controller.ping_transaction(&stream, id, request.lease).await.map_err(status)?,
        };
        let status = match outcome {
            Ping::Ok => Wire::Ok,
            Ping::LeaseTooLarge => Wire::LeaseTooLarge,
            Ping::MaxExecutionTimeExceeded => Wire::MaxExecutionTimeExceeded,
            Ping::Disconnected => Wire::Disconnected,
            Ping::Committed => Wire::Committed,
            Ping::Aborted => Wire::Aborted,
            Ping::Unknown => Wire::Unknown,
        };
        answer(proto::PingTxnStatus { status: status.into() })
    }

    async fn check_transaction_state(&self, request: Request<proto::TxnRequest>) -> Answer<proto::TxnState> {
        use proto::txn_state::State as Wire;
        let request = request.into_inner();
        let id = transaction(request.txn_id)?;
        let found = match stream(request.stream_info)? {
            None => TransactionState::Unknown,
            Some(stream) => self.controller.transaction_state(&stream, id).await.map_err(status)?,
        };
        let state = match found {
            TransactionState::Unknown => Wire::Unknown,
            TransactionState::Open => Wire::Open,
            TransactionState::Committing => Wire::Committing,
            TransactionState::Committed => Wire::Committed,
            TransactionState::Aborting => Wire::Aborting,
            TransactionState::Aborted => Wire::Aborted,
        };
        answer(proto::TxnState { state: state.into() })
    }

    async fn list_completed_transactions(
        &self,
        request: Request<proto::ListCompletedTxnRequest>,
    ) -> Answer<proto::ListCompletedTxnResponse> {
        use proto::txn_response::Status as Wire;
        let stream = existing(request.into_inner().stream_info)?;
        let found = self.controller.completed_transactions(&stream).await.map_err(status)?;
        let response = found
            .into_iter()
            .filter_map(|(id, state)| {
                let status = match state {
                    TransactionState::Committed => Wire::Committed,
                    TransactionState::Aborted => Wire::Aborted,
                    // Forgotten while the list was read; none of the others is ever in it.
                    TransactionState::Unknown
                    | TransactionState::Open
                    | TransactionState::Committing
                    | TransactionState::Aborting => return None,
                };
                Some(proto::TxnResponse { txn_id: Some(transaction_id(id)), status: status.into() })
            })
            .collect();
        answer(proto::ListCompletedTxnResponse { response })
    }

    async fn create_scope(&self, request: Request<proto::ScopeInfo>) -> Answer<proto::CreateScopeStatus> {
        use proto::create_scope_status::Status as Wire;
        let status = match self.controller.create_scope(&request.into_inner().scope).await.map_err(status)? {
            CreateScope::Success => Wire::Success,
            CreateScope::Exists => Wire::ScopeExists,
            CreateScope::InvalidName => Wire::InvalidScopeName,
        };
        answer(proto::CreateScopeStatus { status: status.into() })
    }

    async fn list_scopes(&self, request: Request<proto::ScopesRequest>) -> Answer<proto::ScopesResponse> {
        let token = token(request.into_inner().continuation_token);
        let page = self.controller.list_scopes(&token).await.map_err(status)?;
        answer(proto::ScopesResponse {
            scopes: page.names,
            continuation_token: Some(proto::ContinuationToken { token: page.token }),
        })
    }

    async fn check_scope_exists(&self, request: Request<proto::ScopeInfo>) -> Answer<proto::ExistsResponse> {
        let exists = match name(&request.into_inner().scope, "scope")? {
            None => false,
            Some(scope) => self.controller.scope_exists(&scope).await.map_err(status)?,
        };
        answer(proto::ExistsResponse { exists })
    }

    async fn check_stream_exists(&self, request: Request<proto::StreamInfo>) -> Answer<proto::ExistsResponse> {
        let exists = match stream(Some(request.into_inner()))? {
            None => false,
            Some(stream) => self.controller.stream_exists(&stream).await.map_err(status)?,
        };
        answer(proto::ExistsResponse { exists })
    }

    async fn list_streams_in_scope(
        &self,
        request: Request<proto::StreamsInScopeRequest>,
    ) -> Answer<proto::StreamsInScopeResponse> {
        let request = request.into_inner();
        let scope = request.scope.ok_or_else(|| missing("scope"))?.scope;
        let found = match name(&scope, "scope")? {
            None => Listing::ScopeNotFound,
            Some(scope) => {
                self.controller.list_streams(&scope, &token(request.continuation_token)).await.map_err(status)?
            }
        };
        listing(&scope, found)
    }

    async fn delete_scope(&self, request: Request<proto::ScopeInfo>) -> Answer<proto::DeleteScopeStatus> {
        let Some(scope) = name(&request.into_inner().scope, "scope")? else {
            return delete_scope_status(DeleteScope::NotFound);
        };
        delete_scope_status(self.controller.delete_scope(&scope).await.map_err(status)?)
    }

    async fn delete_scope_recursive(&self, request: Request<proto::ScopeInfo>) -> Answer<proto::DeleteScopeStatus> {
        let Some(scope) = name(&request.into_inner().scope, "scope")? else {
            return delete_scope_status(DeleteScope::Success);
        };
        // Also for a scope that is not there. That of the system does not go, and of the statuses that clients know of this
        // call FAILURE is the one that says so and is not tried again.
        use proto::delete_scope_status::Status as Wire;
        let status = match self.controller.delete_scope_recursive(&scope).await.map_err(status)? {
            DeleteScope::Success | DeleteScope::NotFound => Wire::Success,
            DeleteScope::NotEmpty => Wire::Failure,
        };
        answer(proto::DeleteScopeStatus { status: status.into() })
    }

    /// Empty, whatever it is asked for: also for tables and groups. Where authorization is on, the guard in front
    /// answers.
    async fn get_delegation_token(&self, _: Request<proto::StreamInfo>) -> Answer<proto::DelegationToken> {
        answer(proto::DelegationToken { delegation_token: String::new() })
    }

    async fn remove_writer(&self, request: Request<proto::RemoveWriterRequest>) -> Answer<proto::RemoveWriterResponse> {
        use proto::remove_writer_response::Status as Wire;
        let request = request.into_inner();
        let outcome = match stream(request.stream)? {
            None => RemoveWriter::UnknownWriter,
            Some(stream) => self.controller.remove_writer(&stream, &request.writer).await.map_err(status)?,
        };
        let status = match outcome {
            RemoveWriter::Success => Wire::Success,
            RemoveWriter::UnknownWriter => Wire::UnknownWriter,
        };
        answer(proto::RemoveWriterResponse { result: status.into() })
    }

    async fn note_timestamp_from_writer(
        &self,
        request: Request<proto::TimestampFromWriter>,
    ) -> Answer<proto::TimestampResponse> {
        use proto::timestamp_response::Status as Wire;
        let request = request.into_inner();
        let position = request.position.ok_or_else(|| missing("position"))?;
        let stream = existing(position.stream_info)?;
        let outcome = match cut(position.cut) {
            None => NoteTime::InvalidPosition,
            Some(cut) => {
                self.controller.note_time(&stream, &request.writer, request.timestamp, cut).await.map_err(status)?
            }
        };
        let status = match outcome {
            NoteTime::Success => Wire::Success,
            NoteTime::InvalidTime => Wire::InvalidTime,
            NoteTime::InvalidPosition => Wire::InvalidPosition,
        };
        answer(proto::TimestampResponse { result: status.into() })
    }

    async fn create_key_value_table(
        &self,
        request: Request<proto::KeyValueTableConfig>,
    ) -> Answer<proto::CreateKeyValueTableStatus> {
        self.create_table(request.into_inner()).await
    }

    async fn get_current_segments_key_value_table(
        &self,
        request: Request<proto::KeyValueTableInfo>,
    ) -> Answer<proto::SegmentRanges> {
        self.table_segments(request.into_inner()).await
    }

    async fn list_key_value_tables_in_scope(
        &self,
        request: Request<proto::KvTablesInScopeRequest>,
    ) -> Answer<proto::KvTablesInScopeResponse> {
        self.list_tables(request.into_inner()).await
    }

    async fn get_key_value_table_configuration(
        &self,
        request: Request<proto::KeyValueTableInfo>,
    ) -> Answer<proto::KeyValueTableConfigResponse> {
        self.table_configuration(request.into_inner()).await
    }

    async fn delete_key_value_table(
        &self,
        request: Request<proto::KeyValueTableInfo>,
    ) -> Answer<proto::DeleteKvTableStatus> {
        self.delete_table(request.into_inner()).await
    }

    async fn list_subscribers(&self, request: Request<proto::StreamInfo>) -> Answer<proto::SubscribersResponse> {
        self.subscribers(request.into_inner()).await
    }

    async fn update_subscriber_stream_cut(
        &self,
        request: Request<proto::SubscriberStreamCut>,
    ) -> Answer<proto::UpdateSubscriberStatus> {
        self.move_subscriber(request.into_inner()).await
    }

    async fn create_reader_group(
        &self,
        request: Request<proto::ReaderGroupConfiguration>,
    ) -> Answer<proto::CreateReaderGroupResponse> {
        self.create_group(request.into_inner()).await
    }

    async fn get_reader_group_config(
        &self,
        request: Request<proto::ReaderGroupInfo>,
    ) -> Answer<proto::ReaderGroupConfigResponse> {
        self.group_config(request.into_inner()).await
    }

    async fn delete_reader_group(
        &self,
        request: Request<proto::ReaderGroupInfo>,
    ) -> Answer<proto::DeleteReaderGroupStatus> {
        self.delete_group(request.into_inner()).await
    }

    async fn update_reader_group(
        &self,
        request: Request<proto::ReaderGroupConfiguration>,
    ) -> Answer<proto::UpdateReaderGroupResponse> {
        self.update_group(request.into_inner()).await
    }

    async fn get_stream_configuration(&self, request: Request<proto::StreamInfo>) -> Answer<proto::StreamConfig> {
        let stream = existing(Some(request.into_inner()))?;
        let config = self.controller.stream_configuration(&stream).await.map_err(status)?;
        answer(config_message(&stream, config))
    }

    async fn list_streams_in_scope_for_tag(
        &self,
        request: Request<proto::StreamsInScopeWithTagRequest>,
    ) -> Answer<proto::StreamsInScopeResponse> {
        let request = request.into_inner();
        let scope = request.scope.ok_or_else(|| missing("scope"))?.scope;
        let token = token(request.continuation_token);
        let found = match name(&scope, "scope")? {
            None => Listing::ScopeNotFound,
            Some(scope) => self.controller.list_streams_by_tag(&scope, &request.tag, &token).await.map_err(status)?,
        };
        listing(&scope, found)
    }

    /// One process does the work of all controllers, in one bucket.
    async fn get_controller_to_bucket_mapping(
        &self,
        request: Request<proto::ControllerToBucketMappingRequest>,
    ) -> Answer<proto::ControllerToBucketMappingResponse> {
        let service = request.into_inner().service_type;
        if proto::controller_to_bucket_mapping_request::BucketType::try_from(service).is_err() {
            return Err(Status::invalid_argument(format!("unknown service type {service}")));
        }
        let mapping = [(self.host.clone(), proto::BucketIds { id: vec![0] })].into();
        answer(proto::ControllerToBucketMappingResponse { mapping })
    }
}
