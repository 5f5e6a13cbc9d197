//! The controller's side of the null server: every scope exists, streams have the segments they were created with, and
//! all segments are at one address.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Mutex;

use headwater_proto::controller as proto;
use headwater_proto::controller::controller_service_server::{ControllerService, ControllerServiceServer};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::error::{BenchError, Context};

/// More segments than any client measures.
const SEGMENTS_MAX: i32 = 10_000;

/// Serves until the process is ended.
pub(crate) fn serve(listener: TcpListener, segment_store: SocketAddr) -> Result<(), BenchError> {
    listener.set_nonblocking(true).on("configure", "a socket")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().on("start", "a runtime")?;
    let null = Null { segment_store, streams: Mutex::default() };
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).on("listen on", "a socket")?;
        let service = ControllerServiceServer::new(null);
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        Server::builder()
            .add_service(service)
            .serve_with_incoming(incoming)
            .await
            .map_err(|error| BenchError::Server { what: format!("stopped serving: {error}") })
    })
}

/// See the module.
struct Null {
    segment_store: SocketAddr,
    /// Segments of each stream, by scope and name.
    streams: Mutex<BTreeMap<(String, String), i32>>,
}

impl Null {
    fn create_stream(&self, config: proto::StreamConfig) -> Result<proto::CreateStreamStatus, Status> {
        use proto::create_stream_status::Status as Wire;
        let info = config.stream_info.ok_or_else(|| Status::invalid_argument("streamInfo is missing"))?;
        let segments = config.scaling_policy.map_or(1, |policy| policy.min_num_segments).clamp(1, SEGMENTS_MAX);
        let mut streams = self.streams.lock().expect("no call panics");
        let status = match streams.insert((info.scope, info.stream), segments) {
            None => Wire::Success,
            Some(_) => Wire::StreamExists,
        };
        Ok(proto::CreateStreamStatus { status: status.into() })
    }

    fn segments(&self, info: &proto::StreamInfo) -> Option<i32> {
        let streams = self.streams.lock().expect("no call panics");
        streams.get(&(info.scope.clone(), info.stream.clone())).copied()
    }

    fn current_segments(&self, info: proto::StreamInfo) -> Result<proto::SegmentRanges, Status> {
        let count = self.segments(&info).ok_or_else(|| Status::not_found("nobody created the stream"))?;
        let bound = |index: i32| f64::from(index) / f64::from(count);
        let range = |index: i32| proto::SegmentRange {
            segment_id: Some(proto::SegmentId { stream_info: Some(info.clone()), segment_id: index.into() }),
            min_key: bound(index),
            max_key: bound(index + 1),
        };
        let segment_ranges = (0..count).map(range).collect();
        Ok(proto::SegmentRanges { segment_ranges, delegation_token: String::new() })
    }

    fn node(&self) -> proto::NodeUri {
        proto::NodeUri { endpoint: self.segment_store.ip().to_string(), port: self.segment_store.port().into() }
    }
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'a>>;

/// Implements the calls that have an answer here and refuses the others.
macro_rules! calls {
    ($($call:ident($request:ident) -> $answer:ident $(= $make:expr)?;)*) => {
        impl ControllerService for Null {
            $(fn $call<'a, 'b>(&'a self, request: Request<proto::$request>) -> Answer<'b, proto::$answer>
            where
                'a: 'b,
                Self: 'b,
            {
                Box::pin(async move { calls!(self, request $(, $make)?) })
            })*
        }
    };
    ($null:expr, $request:expr) => {{
        let _ = $request;
        Err(Status::unimplemented("the null server only takes appends"))
    }};
    ($null:expr, $request:expr, $make:expr) => {{
        let make: fn(&Null, _) -> Result<_, Status> = $make;
        make($null, $request.into_inner()).map(Response::new)
    }};
}

calls! {
    get_controller_server_list(ServerRequest) -> ServerResponse;
    create_stream(StreamConfig) -> CreateStreamStatus = |null, config| null.create_stream(config);
    update_stream(StreamConfig) -> UpdateStreamStatus;
    truncate_stream(StreamCut) -> UpdateStreamStatus;
    seal_stream(StreamInfo) -> UpdateStreamStatus;
    delete_stream(StreamInfo) -> DeleteStreamStatus;
    get_current_segments(StreamInfo) -> SegmentRanges = |null, info| null.current_segments(info);
    get_epoch_segments(GetEpochSegmentsRequest) -> SegmentRanges;
    get_segments(GetSegmentsRequest) -> SegmentsAtTime;
    get_segments_immediatly_following(SegmentId) -> SuccessorResponse;
    get_segments_immediately_following(SegmentId) -> SuccessorResponse;
    get_segments_between(StreamCutRange) -> StreamCutRangeResponse;
    scale(ScaleRequest) -> ScaleResponse;
    check_scale(ScaleStatusRequest) -> ScaleStatusResponse;
    get_uri(SegmentId) -> NodeUri = |null, _| Ok(null.node());
    is_segment_valid(SegmentId) -> SegmentValidityResponse = |_, _| Ok(proto::SegmentValidityResponse { response: true });
    is_stream_cut_valid(StreamCut) -> StreamCutValidityResponse;
    create_transaction(CreateTxnRequest) -> CreateTxnResponse;
    commit_transaction(TxnRequest) -> TxnStatus;
    abort_transaction(TxnRequest) -> TxnStatus;
    ping_transaction(PingTxnRequest) -> PingTxnStatus;
    check_transaction_state(TxnRequest) -> TxnState;
    list_completed_transactions(ListCompletedTxnRequest) -> ListCompletedTxnResponse;
    create_scope(ScopeInfo) -> CreateScopeStatus = |_, _| {
        Ok(proto::CreateScopeStatus { status: proto::create_scope_status::Status::Success.into() })
    };
    list_scopes(ScopesRequest) -> ScopesResponse;
    check_scope_exists(ScopeInfo) -> ExistsResponse = |_, _| Ok(proto::ExistsResponse { exists: true });
    check_stream_exists(StreamInfo) -> ExistsResponse = |null, info| {
        Ok(proto::ExistsResponse { exists: null.segments(&info).is_some() })
    };
    list_streams_in_scope(StreamsInScopeRequest) -> StreamsInScopeResponse;
    delete_scope(ScopeInfo) -> DeleteScopeStatus;
    delete_scope_recursive(ScopeInfo) -> DeleteScopeStatus;
    get_delegation_token(StreamInfo) -> DelegationToken = |_, _| {
        Ok(proto::DelegationToken { delegation_token: String::new() })
    };
    remove_writer(RemoveWriterRequest) -> RemoveWriterResponse;
    note_timestamp_from_writer(TimestampFromWriter) -> TimestampResponse;
    create_key_value_table(KeyValueTableConfig) -> CreateKeyValueTableStatus;
    get_current_segments_key_value_table(KeyValueTableInfo) -> SegmentRanges;
    list_key_value_tables_in_scope(KvTablesInScopeRequest) -> KvTablesInScopeResponse;
    get_key_value_table_configuration(KeyValueTableInfo) -> KeyValueTableConfigResponse;
    delete_key_value_table(KeyValueTableInfo) -> DeleteKvTableStatus;
    list_subscribers(StreamInfo) -> SubscribersResponse;
    update_subscriber_stream_cut(SubscriberStreamCut) -> UpdateSubscriberStatus;
    create_reader_group(ReaderGroupConfiguration) -> CreateReaderGroupResponse;
    get_reader_group_config(ReaderGroupInfo) -> ReaderGroupConfigResponse;
    delete_reader_group(ReaderGroupInfo) -> DeleteReaderGroupStatus;
    update_reader_group(ReaderGroupConfiguration) -> UpdateReaderGroupResponse;
    get_stream_configuration(StreamInfo) -> StreamConfig;
    list_streams_in_scope_for_tag(StreamsInScopeWithTagRequest) -> StreamsInScopeResponse;
    get_controller_to_bucket_mapping(ControllerToBucketMappingRequest) -> ControllerToBucketMappingResponse;
}
