//! The controller over a real gRPC connection, on ports in memory.

#[allow(dead_code, reason = "these tests need some of it")]
#[path = "../../../headwater-controller/tests/it/memory.rs"]
mod memory;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use headwater_controller::Controller;
use headwater_controller::model::{ControllerOptions, segments_max};
use headwater_proto::controller as proto;
use headwater_proto::controller::controller_service_client::ControllerServiceClient;
use headwater_types::{Name, ScopedStream};
use proto::{
    create_scope_status, create_stream_status, delete_stream_status, scale_response, scale_status_response,
    streams_in_scope_response, txn_state, txn_status, update_stream_status,
};
use tokio::net::TcpListener;
use tonic::Code;
use tonic::transport::{Channel, Server};

pub(super) type Client = ControllerServiceClient<Channel>;

async fn client() -> Client {
    client_of(false).await
}

/// Of a server whose disk is full, or not.
async fn client_of(is_full: bool) -> Client {
    let store = memory::Store::default();
    let controller = Controller::new(store.link(None).ports(|| 1_700_000_000_000), ControllerOptions::default());
    controller.recover().await.unwrap();
    store.fill(is_full);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let service = super::ControllerGrpc::new(controller, "127.0.0.1".to_owned(), 12345, address.port());
    let service = service.into_service();
    tokio::spawn(async move {
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
    });
    Client::connect(format!("http://{address}")).await.unwrap()
}

pub(super) fn info(scope: &str, stream: &str) -> proto::StreamInfo {
    proto::StreamInfo { scope: scope.into(), stream: stream.into(), access_operation: 0 }
}

pub(super) fn scope(scope: &str) -> proto::ScopeInfo {
    proto::ScopeInfo { scope: scope.into() }
}

/// As the Rust client sends it: the retention policy of type UNKNOWN is always there.
pub(super) fn config(stream: &str, segments: i32) -> proto::StreamConfig {
    proto::StreamConfig {
        stream_info: Some(info("s", stream)),
        scaling_policy: Some(proto::ScalingPolicy { min_num_segments: segments, ..Default::default() }),
        retention_policy: Some(proto::RetentionPolicy::default()),
        ..Default::default()
    }
}

pub(super) async fn with_stream(segments: i32) -> Client {
    let mut client = client().await;
    let created = client.create_scope(scope("s")).await.unwrap().into_inner();
    assert_eq!(created.status(), create_scope_status::Status::Success);
    let created = client.create_stream(config("t", segments)).await.unwrap().into_inner();
    assert_eq!(created.status(), create_stream_status::Status::Success);
    client
}

pub(super) fn request(id: Option<proto::TxnId>) -> proto::TxnRequest {
    proto::TxnRequest { stream_info: Some(info("s", "t")), txn_id: id, writer_id: "1".into(), timestamp: i64::MIN }
}

#[tokio::test]
async fn a_writer_finds_its_segments_and_their_store() {
    let mut client = with_stream(2).await;
    let current = client.get_current_segments(info("s", "t")).await.unwrap().into_inner();
    assert_eq!(current.delegation_token, "");
    let bounds: Vec<_> = current.segment_ranges.iter().map(|range| (range.min_key, range.max_key)).collect();
    assert_eq!(bounds, vec![(0.0, 0.5), (0.5, 1.0)]);
    let id = current.segment_ranges[1].segment_id.clone().unwrap();
    assert_eq!((id.segment_id, id.stream_info.clone()), (1, Some(info("s", "t"))));
    let node = client.get_uri(id).await.unwrap().into_inner();
    assert_eq!((node.endpoint.as_str(), node.port), ("127.0.0.1", 12345));
    // Tables and parents of transactions do not exist as streams.
    for stream in ["group_kvtable", "t"] {
        let id = proto::SegmentId { stream_info: Some(info("s", stream)), segment_id: 77 << 32 };
        assert!(client.get_uri(id).await.is_ok());
    }
    let token = client.get_delegation_token(info("s", "group_kvtable")).await.unwrap().into_inner();
    assert_eq!(token.delegation_token, "");
    let servers = client.get_controller_server_list(proto::ServerRequest {}).await.unwrap().into_inner();
    assert_eq!(servers.node_uri.len(), 1);
}

#[tokio::test]
async fn a_configuration_always_has_what_clients_unwrap() {
    let mut client = with_stream(2).await;
    let found = client.get_stream_configuration(info("s", "t")).await.unwrap().into_inner();
    assert_eq!(found.stream_info, Some(info("s", "t")));
    assert_eq!(found.scaling_policy.unwrap().min_num_segments, 2);
    assert_eq!(found.retention_policy, None, "UNKNOWN is none");
    let mut changed = config("t", 3);
    changed.retention_policy =
        Some(proto::RetentionPolicy { retention_type: 2, retention_param: 10, retention_max: i64::MAX });
    changed.tags = Some(proto::Tags { tag: vec!["a".into()] });
    let updated = client.update_stream(changed.clone()).await.unwrap().into_inner();
    assert_eq!(updated.status(), update_stream_status::Status::Success);
    let found = client.get_stream_configuration(info("s", "t")).await.unwrap().into_inner();
    assert_eq!(found, changed);
    let missing = client.get_stream_configuration(info("s", "x")).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
}

#[tokio::test]
async fn listings_always_have_a_token_and_end() {
    let mut client = with_stream(1).await;
    let mut request = proto::StreamsInScopeRequest { scope: Some(scope("s")), continuation_token: None };
    let page = client.list_streams_in_scope(request.clone()).await.unwrap().into_inner();
    assert_eq!(page.status(), streams_in_scope_response::Status::Success);
    assert_eq!(page.streams, vec![info("s", "_MARKt"), info("s", "t")]);
    request.continuation_token = page.continuation_token;
    assert!(request.continuation_token.is_some());
    let page = client.list_streams_in_scope(request).await.unwrap().into_inner();
    assert!(page.streams.is_empty() && page.continuation_token.is_some());
    let missing = proto::StreamsInScopeRequest { scope: Some(scope("x")), continuation_token: None };
    let page = client.list_streams_in_scope(missing).await.unwrap().into_inner();
    assert_eq!(page.status(), streams_in_scope_response::Status::ScopeNotFound);
    assert!(page.continuation_token.is_some());
    let scopes = client.list_scopes(proto::ScopesRequest::default()).await.unwrap().into_inner();
    assert_eq!(scopes.scopes, vec!["_system", "s"]);
    assert!(scopes.continuation_token.is_some());
}

#[tokio::test]
async fn a_scale_and_its_progress_pass_through() {
    let mut client = with_stream(1).await;
    let request = proto::ScaleRequest {
        stream_info: Some(info("s", "t")),
        sealed_segments: vec![0],
        new_key_ranges: vec![
            proto::scale_request::KeyRangeEntry { start: 0.0, end: 0.5 },
            proto::scale_request::KeyRangeEntry { start: 0.5, end: 1.0 },
        ],
        scale_timestamp: 0,
    };
    let started = client.scale(request.clone()).await.unwrap().into_inner();
    assert_eq!(started.status(), scale_response::ScaleStreamStatus::Started);
    assert_eq!((started.epoch, started.segments.len()), (0, 2));
    let progress = proto::ScaleStatusRequest { stream_info: Some(info("s", "t")), epoch: 0 };
    loop {
        let progress = client.check_scale(progress.clone()).await.unwrap().into_inner();
        match progress.status() {
            scale_status_response::ScaleStatus::InProgress => tokio::time::sleep(Duration::from_millis(1)).await,
            scale_status_response::ScaleStatus::Success => break,
            other => panic!("{other:?}"),
        }
    }
    let again = client.scale(request).await.unwrap().into_inner();
    assert_eq!(again.status(), scale_response::ScaleStreamStatus::PreconditionFailed);
    let id = proto::SegmentId { stream_info: Some(info("s", "t")), segment_id: 0 };
    let successors = client.get_segments_immediately_following(id.clone()).await.unwrap().into_inner();
    assert_eq!(successors.segments.len(), 2);
    assert!(successors.segments.iter().all(|entry| entry.value == vec![0]));
    let alias = client.get_segments_immediatly_following(id).await.unwrap().into_inner();
    assert_eq!(alias, successors);
    let cut: std::collections::BTreeMap<i64, i64> =
        successors.segments.iter().map(|e| (e.segment.clone().unwrap().segment_id.unwrap().segment_id, 0)).collect();
    let cut = proto::StreamCut { stream_info: Some(info("s", "t")), cut };
    assert!(client.is_stream_cut_valid(cut.clone()).await.unwrap().into_inner().response);
    let truncated = client.truncate_stream(cut.clone()).await.unwrap().into_inner();
    assert_eq!(truncated.status(), update_stream_status::Status::Success);
    let head = proto::GetSegmentsRequest { stream_info: Some(info("s", "t")), timestamp: 0 };
    let head = client.get_segments(head).await.unwrap().into_inner();
    let head: Vec<_> = head.segments.iter().map(|s| (s.segment_id.clone().unwrap().segment_id, s.offset)).collect();
    assert_eq!(head, cut.cut.into_iter().collect::<Vec<_>>());
    let impossible = proto::StreamCut { stream_info: Some(info("s", "t")), cut: [(-1, 0)].into() };
    let refused = client.truncate_stream(impossible.clone()).await.unwrap().into_inner();
    assert_eq!(refused.status(), update_stream_status::Status::Failure);
    assert!(!client.is_stream_cut_valid(impossible).await.unwrap().into_inner().response);
}

#[tokio::test]
async fn a_transaction_lives_and_ends() {
    let mut client = with_stream(2).await;
    let open = proto::CreateTxnRequest { stream_info: Some(info("s", "t")), lease: 90_000, scale_grace_period: 0 };
    let created = client.create_transaction(open).await.unwrap().into_inner();
    let id = created.txn_id.expect("clients unwrap it");
    assert!(id.low_bits >= 0);
    assert_eq!(created.active_segments.len(), 2);
    let ping = proto::PingTxnRequest { stream_info: Some(info("s", "t")), txn_id: Some(id), lease: 90_000 };
    let ping = client.ping_transaction(ping).await.unwrap().into_inner();
    assert_eq!(ping.status(), proto::ping_txn_status::Status::Ok);
    let state = client.check_transaction_state(request(Some(id))).await.unwrap().into_inner();
    assert_eq!(state.state(), txn_state::State::Open);
    let accepted = client.commit_transaction(request(Some(id))).await.unwrap().into_inner();
    assert_eq!(accepted.status(), txn_status::Status::Success);
    while client.check_transaction_state(request(Some(id))).await.unwrap().into_inner().state()
        != txn_state::State::Committed
    {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let refused = client.abort_transaction(request(Some(id))).await.unwrap().into_inner();
    assert_eq!(refused.status(), txn_status::Status::Failure);
    let list = proto::ListCompletedTxnRequest { stream_info: Some(info("s", "t")) };
    let list = client.list_completed_transactions(list).await.unwrap().into_inner();
    assert_eq!(list.response.len(), 1);
    assert_eq!(list.response[0].txn_id, Some(id));
}

#[tokio::test]
async fn mistakes_fail_at_once_and_what_is_missing_is_said_so() {
    let mut client = with_stream(1).await;
    let invalid = |status: tonic::Status| assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    invalid(client.create_scope(scope("")).await.unwrap_err());
    invalid(client.create_stream(proto::StreamConfig::default()).await.unwrap_err());
    invalid(client.create_stream(config("u", 0)).await.unwrap_err());
    invalid(client.get_current_segments(info("", "t")).await.unwrap_err());
    invalid(client.check_transaction_state(request(None)).await.unwrap_err());
    let short = proto::CreateTxnRequest { stream_info: Some(info("s", "t")), lease: 1, scale_grace_period: 0 };
    invalid(client.create_transaction(short).await.unwrap_err());
    let tag = proto::StreamsInScopeWithTagRequest { scope: Some(scope("s")), ..Default::default() };
    invalid(client.list_streams_in_scope_for_tag(tag).await.unwrap_err());
    let negative = proto::GetEpochSegmentsRequest { stream_info: Some(info("s", "t")), epoch: -1 };
    invalid(client.get_epoch_segments(negative).await.unwrap_err());

    let bad_name = client.create_scope(scope("a b")).await.unwrap().into_inner();
    assert_eq!(bad_name.status(), create_scope_status::Status::InvalidScopeName);
    let bad_name = client.create_stream(config("a/b", 1)).await.unwrap().into_inner();
    assert_eq!(bad_name.status(), create_stream_status::Status::InvalidStreamName);
    for stream in ["x", "a b"] {
        assert!(!client.check_stream_exists(info("s", stream)).await.unwrap().into_inner().exists);
        let missing = client.get_current_segments(info("s", stream)).await.unwrap_err();
        assert_eq!(missing.code(), Code::NotFound);
        let missing = client.delete_stream(info("s", stream)).await.unwrap().into_inner();
        assert_eq!(missing.status(), delete_stream_status::Status::StreamNotFound);
        let missing = client.seal_stream(info("s", stream)).await.unwrap().into_inner();
        assert_eq!(missing.status(), update_stream_status::Status::StreamNotFound);
    }
    assert!(!client.check_scope_exists(scope("a b")).await.unwrap().into_inner().exists);
}

#[tokio::test]
async fn a_stream_is_sealed_and_deleted() {
    let mut client = with_stream(1).await;
    let open = client.delete_stream(info("s", "t")).await.unwrap().into_inner();
    assert_eq!(open.status(), delete_stream_status::Status::StreamNotSealed);
    let sealed = client.seal_stream(info("s", "t")).await.unwrap().into_inner();
    assert_eq!(sealed.status(), update_stream_status::Status::Success);
    let current = client.get_current_segments(info("s", "t")).await.unwrap().into_inner();
    assert!(current.segment_ranges.is_empty());
    let updated = client.update_stream(config("t", 2)).await.unwrap().into_inner();
    assert_eq!(updated.status(), update_stream_status::Status::StreamSealed);
    let deleted = client.delete_stream(info("s", "t")).await.unwrap().into_inner();
    assert_eq!(deleted.status(), delete_stream_status::Status::Success);
    let deleted = client.delete_scope(scope("s")).await.unwrap().into_inner();
    assert_eq!(deleted.status(), proto::delete_scope_status::Status::Success);
}

#[tokio::test]
async fn what_a_writer_says_about_time_passes_through() {
    use proto::timestamp_response::Status;
    let mut client = with_stream(1).await;
    let note = |stream: &str, timestamp: i64, cut: &[(i64, i64)]| proto::TimestampFromWriter {
        writer: "w".into(),
        position: Some(proto::StreamCut { stream_info: Some(info("s", stream)), cut: cut.iter().copied().collect() }),
        timestamp,
    };
    for (request, expected) in [
        (note("t", 5, &[(0, 5)]), Status::Success),
        (note("t", 4, &[(0, 5)]), Status::InvalidTime),
        (note("t", 6, &[(0, 4)]), Status::InvalidPosition),
        (note("t", 6, &[(-1, 4)]), Status::InvalidPosition),
    ] {
        let answer = client.note_timestamp_from_writer(request).await.unwrap().into_inner();
        assert_eq!(answer.result(), expected);
    }
    assert_eq!(client.note_timestamp_from_writer(note("x", 1, &[])).await.unwrap_err().code(), Code::NotFound);
    let empty = proto::TimestampFromWriter::default();
    assert_eq!(client.note_timestamp_from_writer(empty).await.unwrap_err().code(), Code::InvalidArgument);
    let remove = |writer: &str| proto::RemoveWriterRequest { writer: writer.into(), stream: Some(info("s", "t")) };
    let removed = client.remove_writer(remove("w")).await.unwrap().into_inner();
    assert_eq!(removed.result(), proto::remove_writer_response::Status::Success);
    let removed = client.remove_writer(remove("v")).await.unwrap().into_inner();
    assert_eq!(removed.result(), proto::remove_writer_response::Status::UnknownWriter);
}

#[tokio::test]
async fn one_process_does_all_the_background_work() {
    let mut client = client().await;
    for service_type in [0, 1] {
        let request = proto::ControllerToBucketMappingRequest { service_type };
        let mapping = client.get_controller_to_bucket_mapping(request).await.unwrap().into_inner().mapping;
        let entries: Vec<_> = mapping.into_iter().map(|(host, ids)| (host, ids.id)).collect();
        assert_eq!(entries, vec![("127.0.0.1".to_owned(), vec![0])]);
    }
    let request = proto::ControllerToBucketMappingRequest { service_type: 2 };
    assert_eq!(client.get_controller_to_bucket_mapping(request).await.unwrap_err().code(), Code::InvalidArgument);
}

pub(super) fn group(id: &str) -> proto::ReaderGroupConfiguration {
    let cut = |stream: &str, cut: &[(i64, i64)]| proto::StreamCut {
        stream_info: Some(info("s", stream)),
        cut: cut.iter().copied().collect(),
    };
    proto::ReaderGroupConfiguration {
        scope: "s".into(),
        reader_group_name: "g".into(),
        group_refresh_time_millis: 3000,
        automatic_checkpoint_interval_millis: -1,
        max_outstanding_checkpoint_request: 3,
        retention_type: 1,
        generation: 0,
        reader_group_id: id.into(),
        starting_stream_cuts: vec![cut("u", &[]), cut("t", &[(0, 7), (1, -1)])],
        ending_stream_cuts: vec![],
        rollover_size_bytes: 0,
    }
}

#[tokio::test]
async fn a_groups_configuration_comes_back_field_by_field() {
    use proto::create_reader_group_response::Status;
    let mut client = with_stream(2).await;
    let asked = group("4f3c2b1a-0000-4000-8000-00000000000f");
    let created = client.create_reader_group(asked.clone()).await.unwrap().into_inner();
    assert_eq!((created.status(), created.config), (Status::Success, Some(asked.clone())));
    // Java sends no id with this question.
    let asking =
        proto::ReaderGroupInfo { scope: "s".into(), reader_group: "g".into(), ..proto::ReaderGroupInfo::default() };
    let found = client.get_reader_group_config(asking.clone()).await.unwrap().into_inner();
    assert_eq!(found.config, Some(asked.clone()));
    let listed = client.list_subscribers(info("s", "t")).await.unwrap().into_inner();
    assert_eq!(listed.subscribers, vec!["s/g"]);
    let mut moving = proto::SubscriberStreamCut {
        subscriber: "s/g".into(),
        generation: 0,
        reader_group_id: asked.reader_group_id.clone(),
        stream_cut: Some(proto::StreamCut { stream_info: Some(info("s", "t")), cut: [(0, 0), (1, 0)].into() }),
    };
    let moved = client.update_subscriber_stream_cut(moving.clone()).await.unwrap().into_inner();
    assert_eq!(moved.status(), proto::update_subscriber_status::Status::Success);
    moving.stream_cut = Some(proto::StreamCut { stream_info: Some(info("s", "t")), cut: [(-5, 0)].into() });
    let moved = client.update_subscriber_stream_cut(moving).await.unwrap().into_inner();
    assert_eq!(moved.status(), proto::update_subscriber_status::Status::StreamCutNotValid);

    let mut changed = asked.clone();
    changed.retention_type = 0;
    let updated = client.update_reader_group(changed.clone()).await.unwrap().into_inner();
    assert_eq!((updated.status(), updated.generation), (proto::update_reader_group_response::Status::Success, 1));
    let updated = client.update_reader_group(changed).await.unwrap().into_inner();
    assert_eq!(updated.status(), proto::update_reader_group_response::Status::InvalidConfig);

    let bad = proto::ReaderGroupInfo { reader_group_id: "7".into(), ..asking.clone() };
    assert_eq!(client.delete_reader_group(bad).await.unwrap_err().code(), Code::InvalidArgument);
    let other =
        proto::ReaderGroupInfo { reader_group_id: "4f3c2b1a-0000-4000-8000-000000000001".into(), ..asking.clone() };
    let deleted = client.delete_reader_group(other).await.unwrap().into_inner();
    assert_eq!(deleted.status(), proto::delete_reader_group_status::Status::RgNotFound);
    let right = proto::ReaderGroupInfo { reader_group_id: asked.reader_group_id, ..asking.clone() };
    let deleted = client.delete_reader_group(right).await.unwrap().into_inner();
    assert_eq!(deleted.status(), proto::delete_reader_group_status::Status::Success);
    let found = client.get_reader_group_config(asking).await.unwrap().into_inner();
    assert_eq!((found.status(), found.config), (proto::reader_group_config_response::Status::RgNotFound, None));
}

#[tokio::test]
async fn a_group_without_an_id_gets_one_and_bad_groups_are_refused() {
    use proto::create_reader_group_response::Status;
    let mut client = with_stream(2).await;
    for (name, id) in [("nil", "00000000-0000-0000-0000-000000000000"), ("empty", "")] {
        let asked = proto::ReaderGroupConfiguration { reader_group_name: name.into(), ..group(id) };
        let config = client.create_reader_group(asked).await.unwrap().into_inner().config.unwrap();
        assert!(config.reader_group_id.len() == 36 && !config.reader_group_id.starts_with("00000000"), "{config:?}");
    }
    for bad in [
        proto::ReaderGroupConfiguration { reader_group_id: "no".into(), ..group("") },
        proto::ReaderGroupConfiguration { retention_type: 3, ..group("") },
        proto::ReaderGroupConfiguration { scope: String::new(), ..group("") },
        proto::ReaderGroupConfiguration { reader_group_name: String::new(), ..group("") },
        proto::ReaderGroupConfiguration { starting_stream_cuts: vec![proto::StreamCut::default()], ..group("") },
    ] {
        let refused = client.create_reader_group(bad.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{bad:?}");
    }
    let nowhere = proto::ReaderGroupConfiguration { scope: "x".into(), ..group("") };
    let answer = client.create_reader_group(nowhere).await.unwrap().into_inner();
    assert_eq!((answer.status(), answer.config), (Status::ScopeNotFound, None));
    let internal = proto::ReaderGroupConfiguration { reader_group_name: "_g".into(), ..group("") };
    let answer = client.create_reader_group(internal).await.unwrap().into_inner();
    assert_eq!(answer.status(), Status::InvalidRgName);
}

#[tokio::test]
async fn a_tables_life_passes_through() {
    let mut client = with_stream(1).await;
    let config = proto::KeyValueTableConfig {
        scope: "s".into(),
        kvt_name: "k".into(),
        partition_count: 2,
        primary_key_length: 8,
        secondary_key_length: 4,
        rollover_size_bytes: 5,
    };
    let table = proto::KeyValueTableInfo { scope: "s".into(), kvt_name: "k".into() };
    let missing = client.get_current_segments_key_value_table(table.clone()).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let created = client.create_key_value_table(config.clone()).await.unwrap().into_inner();
    assert_eq!(created.status(), proto::create_key_value_table_status::Status::Success);
    let again = client.create_key_value_table(config.clone()).await.unwrap().into_inner();
    assert_eq!(again.status(), proto::create_key_value_table_status::Status::TableExists);
    let keyless = proto::KeyValueTableConfig { primary_key_length: 0, ..config.clone() };
    assert_eq!(client.create_key_value_table(keyless).await.unwrap_err().code(), Code::InvalidArgument);
    let found = client.get_key_value_table_configuration(table.clone()).await.unwrap().into_inner();
    assert_eq!(found.config, Some(config));
    let segments = client.get_current_segments_key_value_table(table.clone()).await.unwrap().into_inner();
    let ids: Vec<_> = segments.segment_ranges.iter().map(|range| range.segment_id.clone().unwrap()).collect();
    assert_eq!(ids.iter().map(|id| id.segment_id).collect::<Vec<_>>(), vec![0, 1]);
    assert!(ids.iter().all(|id| id.stream_info == Some(info("s", "k"))), "the table's name, without a suffix");
    let mut listing = proto::KvTablesInScopeRequest { scope: Some(scope("s")), continuation_token: None };
    let page = client.list_key_value_tables_in_scope(listing.clone()).await.unwrap().into_inner();
    assert_eq!(page.kvtables, vec![table.clone()]);
    listing.continuation_token = page.continuation_token;
    assert!(listing.continuation_token.is_some());
    let page = client.list_key_value_tables_in_scope(listing).await.unwrap().into_inner();
    assert!(page.kvtables.is_empty() && page.continuation_token.is_some());
    let deleted = client.delete_key_value_table(table.clone()).await.unwrap().into_inner();
    assert_eq!(deleted.status(), proto::delete_kv_table_status::Status::Success);
    let found = client.get_key_value_table_configuration(table).await.unwrap().into_inner();
    assert_eq!((found.status(), found.config), (proto::key_value_table_config_response::Status::TableNotFound, None));
    let gone = client.delete_scope_recursive(scope("s")).await.unwrap().into_inner();
    assert_eq!(gone.status(), proto::delete_scope_status::Status::Success);
    let again = client.delete_scope_recursive(scope("s")).await.unwrap().into_inner();
    assert_eq!(again.status(), proto::delete_scope_status::Status::Success, "as the original");
    let own = client.delete_scope_recursive(scope("_system")).await.unwrap().into_inner();
    assert_eq!(own.status(), proto::delete_scope_status::Status::Failure, "the system's own stays");
    assert!(client.check_scope_exists(scope("_system")).await.unwrap().into_inner().exists);
    let own = client.delete_scope(scope("_system")).await.unwrap().into_inner();
    assert_eq!(own.status(), proto::delete_scope_status::Status::ScopeNotEmpty);
}

#[tokio::test]
async fn on_a_full_disk_only_what_frees_room_is_begun() {
    let mut client = client_of(true).await;
    let refused = [
        client.create_scope(scope("s")).await.map(drop),
        client.create_stream(config("a", 1)).await.map(drop),
        client.update_stream(config("a", 1)).await.map(drop),
        client.scale(proto::ScaleRequest { stream_info: Some(info("s", "a")), ..Default::default() }).await.map(drop),
        client
            .create_transaction(proto::CreateTxnRequest {
                stream_info: Some(info("s", "a")),
                lease: 10_000,
                ..Default::default()
            })
            .await
            .map(drop),
    ];
    for refused in refused {
        assert_eq!(refused.unwrap_err().code(), Code::ResourceExhausted);
    }
    client.seal_stream(info("s", "a")).await.unwrap();
    client.delete_stream(info("s", "a")).await.unwrap();
    client.delete_scope(scope("s")).await.unwrap();
}

#[tokio::test]
async fn of_what_can_be_created_clients_can_be_told() {
    let mut client = client().await;
    let (long, name) = ("s".repeat(255), "t".repeat(250));
    client.create_scope(scope(&long)).await.unwrap();
    let here = || Some(info(&long, &name));
    let names = (Name::parse(&long).unwrap(), Name::parse(&name).unwrap());
    let most = segments_max(&ScopedStream { scope: names.0, stream: names.1 }) as i32;
    assert!((7000..10_000).contains(&most), "{most}");
    let sized = |segments| proto::StreamConfig { stream_info: here(), ..config("", segments) };
    for too_many in [most + 1, 10_000] {
        let refused = client.create_stream(sized(too_many)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    let created = client.create_stream(sized(most)).await.unwrap().into_inner();
    assert_eq!(created.status(), create_stream_status::Status::Success);
    assert_eq!(client.update_stream(sized(10_000)).await.unwrap_err().code(), Code::InvalidArgument);

    let info = || here().unwrap_or_default();
    let current = client.get_current_segments(info()).await.unwrap().into_inner().segment_ranges;
    assert_eq!(current.len(), most as usize);
    let epoch = proto::GetEpochSegmentsRequest { stream_info: here(), epoch: 0 };
    assert_eq!(client.get_epoch_segments(epoch).await.unwrap().into_inner().segment_ranges, current);
    let head = proto::GetSegmentsRequest { stream_info: here(), timestamp: 0 };
    let head = client.get_segments(head).await.unwrap().into_inner().segments;
    let from: BTreeMap<i64, i64> =
        head.iter().map(|at| (at.segment_id.as_ref().unwrap().segment_id, at.offset)).collect();
    let between = proto::StreamCutRange { stream_info: here(), from, to: BTreeMap::new() };
    let found = client.get_segments_between(between.clone()).await.unwrap().into_inner();
    assert_eq!(found.segments.len(), most as usize);
    let opening = proto::CreateTxnRequest { stream_info: here(), lease: 30_000, scale_grace_period: 0 };
    let opened = client.create_transaction(opening).await.unwrap().into_inner();
    assert_eq!(opened.active_segments.len(), most as usize);

    // One more than fits; then as many as before in other places, so that all that ever were do not fit.
    let entry = |start, end| proto::scale_request::KeyRangeEntry { start, end };
    let scaling = |sealed: &[proto::SegmentRange], new_key_ranges| proto::ScaleRequest {
        stream_info: here(),
        sealed_segments: sealed.iter().map(|range| range.segment_id.as_ref().unwrap().segment_id).collect(),
        new_key_ranges,
        scale_timestamp: 0,
    };
    let (first, second) = (&current[0], &current[1]);
    let half = (first.min_key + first.max_key) / 2.0;
    let split = scaling(&current[..1], vec![entry(first.min_key, half), entry(half, first.max_key)]);
    assert_eq!(client.scale(split).await.unwrap_err().code(), Code::InvalidArgument);
    let moved = scaling(&current[..2], vec![entry(first.min_key, half), entry(half, second.max_key)]);
    assert_eq!(client.scale(moved).await.unwrap().into_inner().status(), scale_response::ScaleStreamStatus::Started);
    let progress = proto::ScaleStatusRequest { stream_info: here(), epoch: 0 };
    let is_under_way =
        |answer: proto::ScaleStatusResponse| answer.status() == scale_status_response::ScaleStatus::InProgress;
    while is_under_way(client.check_scale(progress.clone()).await.unwrap().into_inner()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(client.get_current_segments(info()).await.unwrap().into_inner().segment_ranges.len(), most as usize);
    let refused = client.get_segments_between(between).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(refused.message().contains("do not fit one answer"), "{refused}");
}
