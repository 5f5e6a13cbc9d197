//! What each call of the controller says to each kind of mistake, exactly. What a client does next hangs on it: at
//! INVALID_ARGUMENT and NOT_FOUND it gives up, at most others it tries again for a minute.
//!
//! Source: Pravega's statuses, with INVALID_ARGUMENT where the original fails with INTERNAL or UNKNOWN for good.

use std::collections::BTreeSet;

use headwater_auth::Rpc;
use headwater_proto::controller as proto;
use tonic::{Response, Status};

use super::tests::{config, group, info, request, scope, with_stream};

/// How a call went, by the name of the gRPC code or of the status in the answer; whether, for a question of that kind;
/// `OK` where an answer has neither.
trait Outcome {
    fn outcome(&self) -> String;
}

macro_rules! outcomes {
    ($($message:ident $answer:ident: $said:expr,)*) => {
        $(impl Outcome for proto::$message {
            fn outcome(&self) -> String {
                let $answer = self;
                $said.to_string()
            }
        })*
    };
}

outcomes! {
    CreateScopeStatus it: it.status().as_str_name(),
    DeleteScopeStatus it: it.status().as_str_name(),
    CreateStreamStatus it: it.status().as_str_name(),
    UpdateStreamStatus it: it.status().as_str_name(),
    DeleteStreamStatus it: it.status().as_str_name(),
    StreamsInScopeResponse it: it.status().as_str_name(),
    ScaleResponse it: it.status().as_str_name(),
    ScaleStatusResponse it: it.status().as_str_name(),
    TxnStatus it: it.status().as_str_name(),
    PingTxnStatus it: it.status().as_str_name(),
    TxnState it: it.state().as_str_name(),
    TimestampResponse it: it.result().as_str_name(),
    RemoveWriterResponse it: it.result().as_str_name(),
    CreateKeyValueTableStatus it: it.status().as_str_name(),
    KeyValueTableConfigResponse it: it.status().as_str_name(),
    KvTablesInScopeResponse it: it.status().as_str_name(),
    DeleteKvTableStatus it: it.status().as_str_name(),
    SubscribersResponse it: it.status().as_str_name(),
    UpdateSubscriberStatus it: it.status().as_str_name(),
    CreateReaderGroupResponse it: it.status().as_str_name(),
    ReaderGroupConfigResponse it: it.status().as_str_name(),
    UpdateReaderGroupResponse it: it.status().as_str_name(),
    DeleteReaderGroupStatus it: it.status().as_str_name(),
    ExistsResponse it: it.exists,
    SegmentValidityResponse it: it.response,
    StreamCutValidityResponse it: it.response,
    ServerResponse _it: "OK",
    ScopesResponse _it: "OK",
    ControllerToBucketMappingResponse _it: "OK",
    SegmentRanges _it: "OK",
    SegmentsAtTime _it: "OK",
    SuccessorResponse _it: "OK",
    StreamCutRangeResponse _it: "OK",
    NodeUri _it: "OK",
    CreateTxnResponse _it: "OK",
    ListCompletedTxnResponse _it: "OK",
    DelegationToken _it: "OK",
    StreamConfig _it: "OK",
}

/// The caller's mistake.
const I: &str = "InvalidArgument";
/// What is not there, or cannot be.
const N: &str = "NotFound";
/// Does not apply: the call has no such name, or makes what is not there.
const NA: &str = "";

/// What is named in place of the stream `t` in the scope `s`, which are there.
fn places() -> [(&'static str, Option<proto::StreamInfo>); 9] {
    let long = "n".repeat(256);
    [
        ("nothing", None),
        ("an empty scope", Some(info("", "t"))),
        ("an empty name", Some(info("s", ""))),
        ("a scope that is no name", Some(info("a b", "t"))),
        ("a name that is none", Some(info("s", "a/b"))),
        ("a name that is too long", Some(info("s", &long))),
        ("a scope that is not there", Some(info("x", "t"))),
        ("a name that is not there", Some(info("s", "x"))),
        ("an internal name", Some(info("s", "_x"))),
    ]
}

/// What was asked, and what was said otherwise than expected.
#[derive(Default)]
struct Judge {
    asked: BTreeSet<&'static str>,
    wrong: Vec<String>,
}

impl Judge {
    fn hear<T: Outcome>(&mut self, rpc: Rpc, about: &str, answer: Result<Response<T>, Status>, expected: &str) {
        self.asked.insert(rpc.name());
        let said = match answer {
            Ok(answer) => answer.get_ref().outcome(),
            Err(status) => format!("{:?}", status.code()),
        };
        if said != expected {
            self.wrong.push(format!("{} about {about} says {said}, not {expected}", rpc.name()));
        }
    }
}

/// Each call about each of the [`places`].
macro_rules! about_places {
    (
        $client:ident $judge:ident;
        $($rpc:ident $method:ident |$info:ident| $message:expr => [$($expected:expr),*],)*
    ) => {
        $(for ((about, $info), expected) in places().into_iter().zip([$($expected),*]) {
            if expected != NA {
                $judge.hear(Rpc::$rpc, about, $client.$method($message).await, expected);
            }
        })*
    };
}

/// Calls with something else that is wrong with them.
macro_rules! about {
    (
        $client:ident $judge:ident;
        $($rpc:ident $method:ident { $($about:literal $message:expr => $expected:expr,)* })*
    ) => {
        $($($judge.hear(Rpc::$rpc, $about, $client.$method($message).await, $expected);)*)*
    };
}

fn cut(stream_info: Option<proto::StreamInfo>, cut: &[(i64, i64)]) -> proto::StreamCut {
    proto::StreamCut { stream_info, cut: cut.iter().copied().collect() }
}

/// Of the stream that is there, with as many segments more than it has.
fn long_cut(segments: i64) -> proto::StreamCut {
    proto::StreamCut { stream_info: Some(info("s", "t")), cut: (0..segments).map(|id| (id, i64::MAX)).collect() }
}

fn scope_of(info: Option<proto::StreamInfo>) -> Option<proto::ScopeInfo> {
    info.map(|info| scope(&info.scope))
}

fn table(info: Option<proto::StreamInfo>) -> proto::KeyValueTableInfo {
    let info = info.unwrap_or_default();
    proto::KeyValueTableInfo { scope: info.scope, kvt_name: info.stream }
}

fn table_config(info: Option<proto::StreamInfo>) -> proto::KeyValueTableConfig {
    let info = info.unwrap_or_default();
    proto::KeyValueTableConfig {
        scope: info.scope,
        kvt_name: info.stream,
        partition_count: 1,
        primary_key_length: 1,
        ..Default::default()
    }
}

const ID: &str = "4f3c2b1a-0000-4000-8000-00000000000f";

fn group_config(info: Option<proto::StreamInfo>) -> proto::ReaderGroupConfiguration {
    let info = info.unwrap_or_default();
    proto::ReaderGroupConfiguration { scope: info.scope, reader_group_name: info.stream, ..group(ID) }
}

fn group_info(info: Option<proto::StreamInfo>) -> proto::ReaderGroupInfo {
    let info = info.unwrap_or_default();
    proto::ReaderGroupInfo {
        scope: info.scope,
        reader_group: info.stream,
        reader_group_id: ID.into(),
        ..Default::default()
    }
}

fn moving(stream_cut: proto::StreamCut) -> proto::SubscriberStreamCut {
    let subscriber = "s/g".into();
    proto::SubscriberStreamCut { subscriber, generation: 0, reader_group_id: ID.into(), stream_cut: Some(stream_cut) }
}

fn noting(position: proto::StreamCut) -> proto::TimestampFromWriter {
    proto::TimestampFromWriter { writer: "w".into(), position: Some(position), timestamp: 1 }
}

fn scaling(stream_info: Option<proto::StreamInfo>, segment: i64, ranges: &[(f64, f64)]) -> proto::ScaleRequest {
    let range = |(start, end): &(f64, f64)| proto::scale_request::KeyRangeEntry { start: *start, end: *end };
    let new_key_ranges = ranges.iter().map(range).collect();
    proto::ScaleRequest { stream_info, sealed_segments: vec![segment], new_key_ranges, scale_timestamp: 0 }
}

fn opening(stream_info: Option<proto::StreamInfo>, lease: i64) -> proto::CreateTxnRequest {
    proto::CreateTxnRequest { stream_info, lease, scale_grace_period: 0 }
}

fn ping(stream_info: Option<proto::StreamInfo>, txn_id: Option<proto::TxnId>, lease: i64) -> proto::PingTxnRequest {
    proto::PingTxnRequest { stream_info, txn_id, lease }
}

fn of(stream_info: Option<proto::StreamInfo>) -> proto::TxnRequest {
    proto::TxnRequest { stream_info, ..request(NOBODY) }
}

fn segment(stream_info: Option<proto::StreamInfo>, segment_id: i64) -> proto::SegmentId {
    proto::SegmentId { stream_info, segment_id }
}

fn tagged(stream: &str, tags: Vec<String>) -> proto::StreamConfig {
    proto::StreamConfig { tags: Some(proto::Tags { tag: tags }), ..config(stream, 1) }
}

fn keeping(stream: &str, keep: i64, keep_max: i64) -> proto::StreamConfig {
    let policy = proto::RetentionPolicy { retention_type: 2, retention_param: keep, retention_max: keep_max };
    proto::StreamConfig { retention_policy: Some(policy), ..config(stream, 1) }
}

fn token(text: &str) -> Option<proto::ContinuationToken> {
    Some(proto::ContinuationToken { token: text.into() })
}

fn tag(tag: &str, text: &str) -> proto::StreamsInScopeWithTagRequest {
    proto::StreamsInScopeWithTagRequest { scope: Some(scope("s")), tag: tag.into(), continuation_token: token(text) }
}

/// A transaction that is not there.
const NOBODY: Option<proto::TxnId> = Some(proto::TxnId { high_bits: 0, low_bits: 77 });

#[tokio::test]
async fn each_call_says_to_each_mistake_what_is_documented() {
    const SCOPE: &str = "SCOPE_NOT_FOUND";
    const STREAM: &str = "STREAM_NOT_FOUND";
    const TABLE: &str = "TABLE_NOT_FOUND";
    const GROUP: &str = "RG_NOT_FOUND";
    let mut client = with_stream(1).await;
    client.create_reader_group(group(ID)).await.unwrap();
    let open = client.create_transaction(opening(Some(info("s", "t")), 90_000)).await.unwrap().into_inner().txn_id;
    let mut judge = Judge::default();
    let here = || Some(info("s", "t"));

    // Nothing, empty scope, empty name, bad scope, bad name, long name, no such scope, no such name, internal name.
    about_places! { client judge;
        CheckScopeExists check_scope_exists |info| scope_of(info).unwrap_or_default()
            => [I, I, NA, "false", NA, NA, "false", NA, NA],
        DeleteScope delete_scope |info| scope_of(info).unwrap_or_default() => [I, I, NA, SCOPE, NA, NA, SCOPE, NA, NA],
        // Also for none, as the original.
        DeleteScopeRecursive delete_scope_recursive |info| scope_of(info).unwrap_or_default()
            => [I, I, NA, "SUCCESS", NA, NA, "SUCCESS", NA, NA],
        ListStreamsInScope list_streams_in_scope
            |info| proto::StreamsInScopeRequest { scope: scope_of(info), continuation_token: None }
            => [I, I, NA, SCOPE, NA, NA, SCOPE, NA, NA],
        ListStreamsInScopeForTag list_streams_in_scope_for_tag
            |info| proto::StreamsInScopeWithTagRequest { scope: scope_of(info), ..tag("a", "") }
            => [I, I, NA, SCOPE, NA, NA, SCOPE, NA, NA],
        ListKeyValueTablesInScope list_key_value_tables_in_scope
            |info| proto::KvTablesInScopeRequest { scope: scope_of(info), continuation_token: None }
            => [I, I, NA, SCOPE, NA, NA, SCOPE, NA, NA],

        UpdateStream update_stream |info| proto::StreamConfig { stream_info: info, ..config("t", 1) }
            => [I, I, I, STREAM, STREAM, STREAM, STREAM, STREAM, STREAM],
        TruncateStream truncate_stream |info| cut(info, &[(0, 0)])
            => [I, I, I, STREAM, STREAM, STREAM, STREAM, STREAM, STREAM],
        SealStream seal_stream |info| info.unwrap_or_default()
            => [I, I, I, STREAM, STREAM, STREAM, STREAM, STREAM, STREAM],
        DeleteStream delete_stream |info| info.unwrap_or_default()
            => [I, I, I, STREAM, STREAM, STREAM, STREAM, STREAM, STREAM],
        Scale scale |info| scaling(info, 0, &[(0.0, 1.0)])
            => [I, I, I, "FAILURE", "FAILURE", "FAILURE", "FAILURE", "FAILURE", "FAILURE"],
        CheckScale check_scale |info| proto::ScaleStatusRequest { stream_info: info, epoch: 0 }
            => [I, I, I, "INVALID_INPUT", "INVALID_INPUT", "INVALID_INPUT", "INVALID_INPUT", "INVALID_INPUT",
                "INVALID_INPUT"],
        CheckStreamExists check_stream_exists |info| info.unwrap_or_default()
            => [I, I, I, "false", "false", "false", "false", "false", "false"],
        GetStreamConfiguration get_stream_configuration |info| info.unwrap_or_default()
            => [I, I, I, N, N, N, N, N, N],
        GetCurrentSegments get_current_segments |info| info.unwrap_or_default() => [I, I, I, N, N, N, N, N, N],
        GetEpochSegments get_epoch_segments |info| proto::GetEpochSegmentsRequest { stream_info: info, epoch: 0 }
            => [I, I, I, N, N, N, N, N, N],
        GetSegments get_segments |info| proto::GetSegmentsRequest { stream_info: info, timestamp: 0 }
            => [I, I, I, N, N, N, N, N, N],
        GetSegmentsImmediatlyFollowing get_segments_immediatly_following |info| segment(info, 0)
            => [I, I, I, N, N, N, N, N, N],
        GetSegmentsImmediatelyFollowing get_segments_immediately_following |info| segment(info, 0)
            => [I, I, I, N, N, N, N, N, N],
        GetSegmentsBetween get_segments_between
            |info| proto::StreamCutRange { stream_info: info, from: [(0, 0)].into(), to: [(0, 0)].into() }
            => [I, I, I, N, N, N, N, N, N],
        IsSegmentValid is_segment_valid |info| segment(info, 0) => [I, I, I, N, N, N, N, N, N],
        IsStreamCutValid is_stream_cut_valid |info| cut(info, &[(0, 0)]) => [I, I, I, N, N, N, N, N, N],
        // Whatever they are asked for: clients ask for what was never there.
        GetUri get_uri |info| segment(info, 0) => ["OK", "OK", "OK", "OK", "OK", "OK", "OK", "OK", "OK"],
        GetDelegationToken get_delegation_token |info| info.unwrap_or_default()
            => ["OK", "OK", "OK", "OK", "OK", "OK", "OK", "OK", "OK"],

        CreateTransaction create_transaction |info| opening(info, 90_000) => [I, I, I, N, N, N, N, N, N],
        CommitTransaction commit_transaction |info| of(info)
            => [I, I, I, STREAM, STREAM, STREAM, STREAM, STREAM, STREAM],
        AbortTransaction abort_transaction |info| of(info)
            => [I, I, I, STREAM, STREAM, STREAM, STREAM, STREAM, STREAM],
        PingTransaction ping_transaction |info| ping(info, NOBODY, 90_000)
            => [I, I, I, "UNKNOWN", "UNKNOWN", "UNKNOWN", "UNKNOWN", "UNKNOWN", "UNKNOWN"],
        CheckTransactionState check_transaction_state |info| of(info)
            => [I, I, I, "UNKNOWN", "UNKNOWN", "UNKNOWN", "UNKNOWN", "UNKNOWN", "UNKNOWN"],
        ListCompletedTransactions list_completed_transactions
            |info| proto::ListCompletedTxnRequest { stream_info: info } => [I, I, I, N, N, N, N, N, N],
        // No stream has a time whose name is the server's own.
        NoteTimestampFromWriter note_timestamp_from_writer |info| noting(cut(info, &[(0, 0)]))
            => [I, I, I, N, N, N, N, N, I],
        RemoveWriter remove_writer |info| proto::RemoveWriterRequest { writer: "w".into(), stream: info }
            => [I, I, I, "UNKNOWN_WRITER", "UNKNOWN_WRITER", "UNKNOWN_WRITER", "UNKNOWN_WRITER", "UNKNOWN_WRITER",
                "UNKNOWN_WRITER"],
        ListSubscribers list_subscribers |info| info.unwrap_or_default()
            => [I, I, I, STREAM, STREAM, STREAM, STREAM, STREAM, STREAM],
        UpdateSubscriberStreamCut update_subscriber_stream_cut |info| moving(cut(info, &[(0, 0)]))
            => [I, I, I, STREAM, STREAM, STREAM, STREAM, STREAM, STREAM],

        GetCurrentSegmentsKeyValueTable get_current_segments_key_value_table |info| table(info)
            => [I, I, I, N, N, N, N, N, N],
        GetKeyValueTableConfiguration get_key_value_table_configuration |info| table(info)
            => [I, I, I, TABLE, TABLE, TABLE, TABLE, TABLE, TABLE],
        DeleteKeyValueTable delete_key_value_table |info| table(info)
            => [I, I, I, TABLE, TABLE, TABLE, TABLE, TABLE, TABLE],
        GetReaderGroupConfig get_reader_group_config |info| group_info(info)
            => [I, I, I, GROUP, GROUP, GROUP, GROUP, GROUP, GROUP],
        UpdateReaderGroup update_reader_group |info| group_config(info)
            => [I, I, I, GROUP, GROUP, GROUP, GROUP, GROUP, GROUP],
        DeleteReaderGroup delete_reader_group |info| group_info(info)
            => [I, I, I, GROUP, GROUP, GROUP, GROUP, GROUP, GROUP],

        CreateKeyValueTable create_key_value_table |info| table_config(info)
            => [I, I, I, SCOPE, "INVALID_TABLE_NAME", "INVALID_TABLE_NAME", SCOPE, NA, "INVALID_TABLE_NAME"],
        CreateReaderGroup create_reader_group |info| group_config(info)
            => [I, I, I, SCOPE, "INVALID_RG_NAME", "INVALID_RG_NAME", SCOPE, NA, "INVALID_RG_NAME"],
        CreateScope create_scope |info| scope_of(info).unwrap_or_default()
            => [I, I, NA, "INVALID_SCOPE_NAME", NA, NA, NA, NA, NA],
        // Java clients make the streams of their reader groups.
        CreateStream create_stream |info| proto::StreamConfig { stream_info: info, ..config("x", 1) }
            => [I, I, I, SCOPE, "INVALID_STREAM_NAME", "INVALID_STREAM_NAME", SCOPE, NA, "SUCCESS"],
    }

    let many_ranges: Vec<_> = (0..10_001).map(|i| (f64::from(i) / 10_001.0, f64::from(i + 1) / 10_001.0)).collect();
    let policy =
        |kind, min| Some(proto::ScalingPolicy { scale_type: kind, min_num_segments: min, ..Default::default() });
    let retention =
        |kind| Some(proto::RetentionPolicy { retention_type: kind, retention_param: 1, retention_max: i64::MAX });
    about! { client judge;
        GetControllerServerList get_controller_server_list { "nothing" proto::ServerRequest {} => "OK", }
        GetControllerToBucketMapping get_controller_to_bucket_mapping {
            "a service that there is not" proto::ControllerToBucketMappingRequest { service_type: 2 } => I,
            "a negative service" proto::ControllerToBucketMappingRequest { service_type: -1 } => I,
        }
        ListScopes list_scopes {
            "a token of somebody else" proto::ScopesRequest { continuation_token: token("a b") } => I,
        }
        ListStreamsInScope list_streams_in_scope {
            "a token of somebody else"
                proto::StreamsInScopeRequest { scope: Some(scope("s")), continuation_token: token("a b") } => I,
        }
        ListStreamsInScopeForTag list_streams_in_scope_for_tag {
            "a token of somebody else" tag("a", "a b") => I,
            "an empty tag" tag("", "") => I,
            "a tag with a NUL" tag("a\0", "") => I,
            "a tag that no stream can have" tag(&"a".repeat(1025), "") => "SUCCESS",
        }
        ListKeyValueTablesInScope list_key_value_tables_in_scope {
            "a token of somebody else"
                proto::KvTablesInScopeRequest { scope: Some(scope("s")), continuation_token: token("a b") } => I,
        }
        CreateScope create_scope {
            "a name that is too long" scope(&"n".repeat(256)) => "INVALID_SCOPE_NAME",
            "a name that is there" scope("s") => "SCOPE_EXISTS",
        }
        DeleteScope delete_scope { "one that has something in it" scope("s") => "SCOPE_NOT_EMPTY", }
        CreateStream create_stream {
            "a name that is there" config("t", 1) => "STREAM_EXISTS",
            "a name without room for its mark" config(&"n".repeat(251), 1) => "INVALID_STREAM_NAME",
            "no policy" proto::StreamConfig { scaling_policy: None, ..config("n", 1) } => I,
            "a policy that there is not" proto::StreamConfig { scaling_policy: policy(3, 1), ..config("n", 1) } => I,
            "no segment" config("n", 0) => I,
            "fewer segments than none" config("n", -1) => I,
            "more segments than there may be" config("n", 10_001) => I,
            "a retention that there is not"
                proto::StreamConfig { retention_policy: retention(3), ..config("n", 1) } => I,
            "a negative retention" keeping("n", -1, i64::MAX) => I,
            "a retention of at most less than at least" keeping("n", 10, 9) => I,
            "a negative rollover size" proto::StreamConfig { rollover_size_bytes: -1, ..config("n", 1) } => I,
            "one tag too many" tagged("n", (0..1025).map(|tag| tag.to_string()).collect()) => I,
            "a tag that is too long" tagged("n", vec!["a".repeat(1025)]) => I,
            "a tag with a NUL" tagged("n", vec!["\0".into()]) => I,
            "tags that are too long together" tagged("n", (0..129).map(|tag| format!("{tag:01024}")).collect()) => I,
        }
        UpdateStream update_stream {
            "no policy" proto::StreamConfig { scaling_policy: None, ..config("t", 1) } => I,
            "a policy that there is not" proto::StreamConfig { scaling_policy: policy(3, 1), ..config("t", 1) } => I,
            "no segment" config("t", 0) => I,
            "more segments than there may be" config("t", 10_001) => I,
            "a retention that there is not"
                proto::StreamConfig { retention_policy: retention(3), ..config("t", 1) } => I,
            "a retention of at most less than at least" keeping("t", 10, 9) => I,
            "one tag too many" tagged("t", (0..1025).map(|tag| tag.to_string()).collect()) => I,
        }
        TruncateStream truncate_stream {
            "no segment" cut(here(), &[]) => "FAILURE",
            "a segment that cannot be" cut(here(), &[(-1, 0)]) => "FAILURE",
            "a segment that is not there" cut(here(), &[(7, 0)]) => "FAILURE",
            "an epoch that is not there" cut(here(), &[(1 << 32, 0)]) => "FAILURE",
        }
        DeleteStream delete_stream { "one that is open" info("s", "t") => "STREAM_NOT_SEALED", }
        Scale scale {
            "no range" scaling(here(), 0, &[]) => "FAILURE",
            "a segment that cannot be" scaling(here(), -1, &[(0.0, 1.0)]) => "PRECONDITION_FAILED",
            "a segment that is not there" scaling(here(), 7, &[(0.0, 1.0)]) => "PRECONDITION_FAILED",
            "a range that ends before it begins" scaling(here(), 0, &[(1.0, 0.0)]) => "FAILURE",
            "a range without numbers" scaling(here(), 0, &[(f64::NAN, 1.0)]) => "FAILURE",
            "ranges that are not the segment's" scaling(here(), 0, &[(0.0, 0.5)]) => "FAILURE",
            "two ranges with one beginning" scaling(here(), 0, &[(0.0, 0.5), (0.0, 1.0)]) => I,
            "more segments than there may be" scaling(here(), 0, &many_ranges) => I,
        }
        CheckScale check_scale {
            "a negative epoch" proto::ScaleStatusRequest { stream_info: here(), epoch: -1 } => "INVALID_INPUT",
            "an epoch that is not there" proto::ScaleStatusRequest { stream_info: here(), epoch: 9 } => "INVALID_INPUT",
        }
        GetEpochSegments get_epoch_segments {
            "a negative epoch" proto::GetEpochSegmentsRequest { stream_info: here(), epoch: -1 } => I,
            "an epoch that is not there" proto::GetEpochSegmentsRequest { stream_info: here(), epoch: 1 } => N,
        }
        GetSegmentsImmediatlyFollowing get_segments_immediatly_following {
            "a segment that cannot be" segment(here(), -1) => I,
        }
        GetSegmentsImmediatelyFollowing get_segments_immediately_following {
            "a segment that cannot be" segment(here(), -1) => I,
        }
        GetSegmentsBetween get_segments_between {
            "no cut" proto::StreamCutRange { stream_info: here(), ..Default::default() } => I,
            "a segment that cannot be"
                proto::StreamCutRange { stream_info: here(), from: [(-1, 0)].into(), ..Default::default() } => I,
            "a segment that is not there"
                proto::StreamCutRange { stream_info: here(), to: [(7, 0)].into(), ..Default::default() } => I,
        }
        IsSegmentValid is_segment_valid {
            "a segment that cannot be" segment(here(), -1) => "false",
            "a segment that is not there" segment(here(), 7) => "false",
        }
        IsStreamCutValid is_stream_cut_valid {
            "no segment" cut(here(), &[]) => I,
            "a segment that cannot be" cut(here(), &[(-1, 0)]) => "false",
            "a segment that is not there" cut(here(), &[(7, 0)]) => "false",
        }
        GetUri get_uri { "a segment that cannot be" segment(here(), -1) => "OK", }
        CreateTransaction create_transaction {
            "no lease" opening(here(), 0) => I,
            "a negative lease" opening(here(), i64::MIN) => I,
            "a lease that is too short" opening(here(), 9_999) => I,
            "a lease that is too long" opening(here(), 600_001) => I,
        }
        CommitTransaction commit_transaction {
            "no id" request(None) => I,
            "one that is not there" request(NOBODY) => "FAILURE",
            "a writer that is too long" proto::TxnRequest { writer_id: "w".repeat(4097), ..request(open) } => I,
        }
        AbortTransaction abort_transaction {
            "no id" request(None) => I,
            "one that is not there" request(NOBODY) => "FAILURE",
        }
        PingTransaction ping_transaction {
            "no id" ping(here(), None, 90_000) => I,
            "one that is not there" ping(here(), NOBODY, 90_000) => "UNKNOWN",
            "no lease" ping(here(), open, 0) => I,
            "a negative lease" ping(here(), open, -1) => I,
            "a lease beyond all numbers" ping(here(), open, i64::MIN) => I,
            "a lease that is too long" ping(here(), open, 600_001) => "LEASE_TOO_LARGE",
        }
        CheckTransactionState check_transaction_state {
            "no id" request(None) => I,
            "one that is not there" request(NOBODY) => "UNKNOWN",
            "one that met all of these" request(open) => "OPEN",
        }
        NoteTimestampFromWriter note_timestamp_from_writer {
            "no position" proto::TimestampFromWriter { position: None, ..noting(cut(None, &[])) } => I,
            "no writer" proto::TimestampFromWriter { writer: String::new(), ..noting(cut(here(), &[(0, 0)])) } => I,
            "a writer that is too long"
                proto::TimestampFromWriter { writer: "w".repeat(4097), ..noting(cut(here(), &[(0, 0)])) } => I,
            "a segment that cannot be" noting(cut(here(), &[(-1, 0)])) => "INVALID_POSITION",
            "a segment that is not there" noting(cut(here(), &[(7, 0)])) => "INVALID_POSITION",
            "more segments than there may be" noting(long_cut(10_001)) => "INVALID_POSITION",
        }
        RemoveWriter remove_writer {
            "no writer" proto::RemoveWriterRequest { writer: String::new(), stream: here() } => "UNKNOWN_WRITER",
            "a writer that is too long"
                proto::RemoveWriterRequest { writer: "w".repeat(4097), stream: here() } => "UNKNOWN_WRITER",
        }
        UpdateSubscriberStreamCut update_subscriber_stream_cut {
            "no cut" proto::SubscriberStreamCut { stream_cut: None, ..moving(cut(None, &[])) } => I,
            "no id"
                proto::SubscriberStreamCut { reader_group_id: String::new(), ..moving(cut(here(), &[(0, 0)])) } => I,
            "an id that is none"
                proto::SubscriberStreamCut { reader_group_id: "7".into(), ..moving(cut(here(), &[])) } => I,
            "no subscriber"
                proto::SubscriberStreamCut { subscriber: String::new(), ..moving(cut(here(), &[(0, 0)])) }
                => "SUBSCRIBER_NOT_FOUND",
            "a subscriber that is too long"
                proto::SubscriberStreamCut { subscriber: "s".repeat(512), ..moving(cut(here(), &[(0, 0)])) }
                => "SUBSCRIBER_NOT_FOUND",
            "another generation"
                proto::SubscriberStreamCut { generation: 1, ..moving(cut(here(), &[(0, 0)])) } => "GENERATION_MISMATCH",
            "no segment" moving(cut(here(), &[])) => "STREAM_CUT_NOT_VALID",
            "a segment that cannot be" moving(cut(here(), &[(-1, 0)])) => "STREAM_CUT_NOT_VALID",
            "more segments than there may be" moving(long_cut(10_001)) => "STREAM_CUT_NOT_VALID",
        }
        CreateKeyValueTable create_key_value_table {
            "a name without room for its segments"
                table_config(Some(info("s", &"n".repeat(251)))) => "INVALID_TABLE_NAME",
            "no partition" proto::KeyValueTableConfig { partition_count: 0, ..table_config(here()) } => I,
            "more partitions than there may be"
                proto::KeyValueTableConfig { partition_count: 1001, ..table_config(here()) } => I,
            "keys without a length" proto::KeyValueTableConfig { primary_key_length: 0, ..table_config(here()) } => I,
            "a negative length" proto::KeyValueTableConfig { secondary_key_length: -1, ..table_config(here()) } => I,
            "keys that are too long"
                proto::KeyValueTableConfig { secondary_key_length: 256, ..table_config(here()) } => I,
            "lengths beyond all numbers"
                proto::KeyValueTableConfig { secondary_key_length: i32::MAX, ..table_config(here()) } => I,
            "a negative rollover size"
                proto::KeyValueTableConfig { rollover_size_bytes: -1, ..table_config(here()) } => I,
        }
        CreateReaderGroup create_reader_group {
            "a name without room for its stream" group_config(Some(info("s", &"n".repeat(251)))) => "INVALID_RG_NAME",
            "an id that is none" proto::ReaderGroupConfiguration { reader_group_id: "7".into(), ..group(ID) } => I,
            "a retention that there is not" proto::ReaderGroupConfiguration { retention_type: 3, ..group(ID) } => I,
            "a cut of no stream"
                proto::ReaderGroupConfiguration { starting_stream_cuts: vec![cut(None, &[])], ..group(ID) } => I,
            "a cut of a stream that cannot be"
                proto::ReaderGroupConfiguration {
                    ending_stream_cuts: vec![cut(Some(info("s", "a/b")), &[])],
                    ..group(ID)
                }
                => I,
            "a segment that cannot be"
                proto::ReaderGroupConfiguration { starting_stream_cuts: vec![cut(here(), &[(-1, 0)])], ..group(ID) }
                => I,
            "more than a record takes"
                proto::ReaderGroupConfiguration { starting_stream_cuts: vec![long_cut(40_000)], ..group(ID) } => I,
        }
        UpdateReaderGroup update_reader_group {
            "no id" group("") => I,
            "an id that is none" group("7") => I,
            "another id" group("4f3c2b1a-0000-4000-8000-000000000001") => "INVALID_CONFIG",
            "another generation" proto::ReaderGroupConfiguration { generation: 1, ..group(ID) } => "INVALID_CONFIG",
            "a retention that there is not" proto::ReaderGroupConfiguration { retention_type: 3, ..group(ID) } => I,
            "more than a record takes"
                proto::ReaderGroupConfiguration { starting_stream_cuts: vec![long_cut(40_000)], ..group(ID) } => I,
        }
        DeleteReaderGroup delete_reader_group {
            "no id" proto::ReaderGroupInfo { reader_group_id: String::new(), ..group_info(Some(info("s", "g"))) } => I,
            "an id that is none"
                proto::ReaderGroupInfo { reader_group_id: "7".into(), ..group_info(Some(info("s", "g"))) } => I,
            "another id"
                proto::ReaderGroupInfo {
                    reader_group_id: "4f3c2b1a-0000-4000-8000-000000000001".into(),
                    ..group_info(Some(info("s", "g")))
                }
                => GROUP,
        }
    }
    assert!(judge.wrong.is_empty(), "{:#?}", judge.wrong);
    let all: BTreeSet<_> = Rpc::ALL.iter().map(|rpc| rpc.name()).collect();
    assert_eq!(judge.asked, all, "every call is in one of the tables");
}
