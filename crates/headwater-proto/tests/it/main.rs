//! What a client puts into the HTTP/2 path and onto the wire.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use headwater_proto::controller::controller_service_client::ControllerServiceClient;
use headwater_proto::controller::{self as proto, txn_state};
use prost::Message;
use tonic::body::Body;
use tonic::codegen::{Service, http};

/// A transport that notes the path of each request and refuses it.
#[derive(Clone, Default)]
struct NotePath(Arc<Mutex<Vec<String>>>);

impl Service<http::Request<Body>> for NotePath {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.0.lock().expect("no test panics while it holds the list").push(request.uri().path().to_owned());
        ready(Ok(tonic::Status::unimplemented("only the path counts").into_http()))
    }
}

/// Calls every method of the client stub; the list must equal the one of the interface.
macro_rules! call_all {
    ($client:ident; $($method:ident)*) => {{
        let mut count = 0;
        $(
            let error = $client.$method(tonic::Request::new(Default::default())).await.unwrap_err();
            assert_eq!(error.code(), tonic::Code::Unimplemented);
            count += 1;
        )*
        count
    }};
}

#[tokio::test]
async fn every_call_of_the_interface_has_its_path() {
    let transport = NotePath::default();
    let mut client = ControllerServiceClient::new(transport.clone());
    let called = call_all!(client;
        get_controller_server_list create_stream update_stream truncate_stream seal_stream delete_stream
        get_current_segments get_epoch_segments get_segments get_segments_immediatly_following
        get_segments_immediately_following get_segments_between scale check_scale get_uri is_segment_valid
        is_stream_cut_valid create_transaction commit_transaction abort_transaction ping_transaction
        check_transaction_state list_completed_transactions create_scope list_scopes check_scope_exists
        check_stream_exists list_streams_in_scope delete_scope delete_scope_recursive get_delegation_token
        remove_writer note_timestamp_from_writer create_key_value_table get_current_segments_key_value_table
        list_key_value_tables_in_scope get_key_value_table_configuration delete_key_value_table list_subscribers
        update_subscriber_stream_cut create_reader_group get_reader_group_config delete_reader_group
        update_reader_group get_stream_configuration list_streams_in_scope_for_tag get_controller_to_bucket_mapping
    );
    let paths = transport.0.lock().unwrap();
    let names: BTreeSet<&str> = paths
        .iter()
        .map(|path| path.strip_prefix("/io.pravega.controller.stream.api.grpc.v1.ControllerService/").unwrap())
        .collect();
    let expected: BTreeSet<&str> = "getControllerServerList createStream updateStream truncateStream sealStream \
        deleteStream getCurrentSegments getEpochSegments getSegments getSegmentsImmediatlyFollowing \
        getSegmentsImmediatelyFollowing getSegmentsBetween scale checkScale getURI isSegmentValid isStreamCutValid \
        createTransaction commitTransaction abortTransaction pingTransaction checkTransactionState \
        listCompletedTransactions createScope listScopes checkScopeExists checkStreamExists listStreamsInScope \
        deleteScope deleteScopeRecursive getDelegationToken removeWriter noteTimestampFromWriter \
        createKeyValueTable getCurrentSegmentsKeyValueTable listKeyValueTablesInScope \
        getKeyValueTableConfiguration deleteKeyValueTable listSubscribers updateSubscriberStreamCut \
        createReaderGroup getReaderGroupConfig deleteReaderGroup updateReaderGroup getStreamConfiguration \
        listStreamsInScopeForTag getControllerToBucketMapping"
        .split_whitespace()
        .collect();
    assert_eq!(names, expected);
    assert_eq!(called, 47);
}

#[test]
fn completed_transactions_travel_in_field_two() {
    let response = proto::ListCompletedTxnResponse {
        response: vec![proto::TxnResponse {
            txn_id: Some(proto::TxnId { high_bits: 1, low_bits: 2 }),
            status: proto::txn_response::Status::Aborted as i32,
        }],
    };
    assert_eq!(response.encode_to_vec(), [0x12, 8, 0x0a, 4, 8, 1, 16, 2, 16, 1]);
}

#[test]
fn a_cut_is_a_map_of_plain_numbers() {
    let cut = proto::StreamCut { stream_info: None, cut: [(1, 300), (2, -1)].into() };
    let minus_one = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let mut expected = vec![0x12, 5, 8, 1, 16, 0xac, 0x02, 0x12, 13, 8, 2, 16];
    expected.extend(minus_one);
    assert_eq!(cut.encode_to_vec(), expected);
}

#[test]
fn what_the_older_interface_lacks_is_skipped_and_read_as_zero() {
    // Only streamInfo { scope "s", stream "t" } and a fixed policy of one segment, as the Rust client may send it.
    let bytes = [0x0a, 6, 0x0a, 1, b's', 0x12, 1, b't', 0x12, 2, 0x20, 1];
    let config = proto::StreamConfig::decode(&bytes[..]).unwrap();
    assert_eq!(config.rollover_size_bytes, 0);
    assert_eq!(config.timestamp_aggregation_timeout, 0);
    assert_eq!(config.retention_policy, None);
    assert_eq!(config.scaling_policy.unwrap().min_num_segments, 1);
}

#[test]
fn states_have_the_numbers_of_the_interface() {
    use txn_state::State;
    let numbers = [State::Unknown, State::Open, State::Committing, State::Committed, State::Aborting, State::Aborted];
    assert_eq!(numbers.map(|state| state as i32), [0, 1, 2, 3, 4, 5]);
    assert_eq!(proto::update_stream_status::Status::StreamSealed as i32, 4);
    assert_eq!(proto::ping_txn_status::Status::Unknown as i32, 7);
    assert_eq!(proto::stream_info::AccessOperation::ReadWrite as i32, 5);
    assert_eq!(proto::scale_response::ScaleStreamStatus::PreconditionFailed as i32, 2);
    assert_eq!(proto::scale_status_response::ScaleStatus::InvalidInput as i32, 2);
}
