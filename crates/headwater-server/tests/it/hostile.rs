//! Every call of the controller with messages that no client sends: without fields, with fields of other types, with
//! numbers and texts that mean nothing, cut off anywhere. It is always the caller's mistake, and said to be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use headwater_auth::Rpc;
use headwater_proto::controller as proto;
use prost::Message as _;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::auth::{Raw, message};
use crate::server::Running;

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// A field of a number and a wire type, with what follows. Source: the encoding of Protocol Buffers.
fn field(number: u64, wire: u64, content: &[u8]) -> Vec<u8> {
    [&varint(number << 3 | wire)[..], content].concat()
}

fn counted(number: u64, content: &[u8]) -> Vec<u8> {
    field(number, 2, &[&varint(content.len() as u64)[..], content].concat())
}

/// What a field may be instead of what it should be.
fn values(number: u64) -> Vec<Vec<u8>> {
    let numbers = [0, i32::MAX as u64, i64::MIN as u64, u64::MAX];
    let long = "n".repeat(70_000);
    let texts: [&[u8]; 6] = [b"", b"a/b", b"_MARKx", b"\0", &[0xff, 0xfe], long.as_bytes()];
    let mut values: Vec<_> = numbers.iter().map(|value| field(number, 0, &varint(*value))).collect();
    values.extend([f64::NAN, -1.0].map(|value| field(number, 1, &value.to_le_bytes())));
    values.extend(texts.map(|text| counted(number, text)));
    // A number of four bytes, a group, a length beyond the end, a wire type that there is not.
    values.extend([field(number, 5, &[1; 4]), field(number, 3, &[]), field(number, 2, &[100]), field(number, 7, &[])]);
    values
}

/// A message in a message: what is before it, its number, its content, and what is behind it.
type Part = (Vec<u8>, u64, Vec<u8>, Vec<u8>);

fn varint_at(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0_u64;
    for shift in 0..10 {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << (shift * 7);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn parts(bytes: &[u8]) -> Option<Vec<Part>> {
    let number = |at: &mut usize| varint_at(bytes, at);
    let (mut at, mut found) = (0, Vec::new());
    while at < bytes.len() {
        let begin = at;
        let key = number(&mut at)?;
        match key & 7 {
            0 => _ = number(&mut at)?,
            1 => at += 8,
            2 => {
                let length = usize::try_from(number(&mut at)?).ok()?;
                let content = bytes.get(at..at.checked_add(length)?)?.to_vec();
                at += length;
                found.push((bytes[..begin].to_vec(), key >> 3, content, bytes[at..].to_vec()));
            }
            5 => at += 4,
            _ => return None,
        }
    }
    (at == bytes.len()).then_some(found)
}

/// The message with each field as it should not be, also in the messages inside.
fn spoilt(message: &[u8], numbers: u64, depth: usize) -> Vec<Vec<u8>> {
    let mut spoilt = Vec::new();
    for number in 1..=numbers {
        spoilt.extend(values(number).into_iter().map(|value| [message, &value].concat()));
    }
    for (before, number, content, behind) in parts(message).unwrap_or_default() {
        // Left out.
        spoilt.push([before.clone(), behind.clone()].concat());
        if depth > 0 && parts(&content).is_some_and(|parts| !parts.is_empty()) {
            for inner in self::spoilt(&content, 3, depth - 1) {
                spoilt.push([before.clone(), counted(number, &inner), behind.clone()].concat());
            }
        }
    }
    spoilt
}

/// Calls that leave less behind come first; some wait for what others make.
fn order(rpc: Rpc) -> u8 {
    let name = rpc.name();
    match name {
        _ if name.starts_with("deleteScope") => 4,
        _ if name.starts_with("delete") => 3,
        "sealStream" => 2,
        "truncateStream" | "scale" | "updateStream" => 1,
        "checkScale" | "removeWriter" | "updateSubscriberStreamCut" => 1,
        _ => 0,
    }
}

/// A call that may be carried out, as far as it stands in its message. `open`: a transaction that was opened for it.
fn whole(rpc: Rpc, open: proto::TxnId) -> Vec<u8> {
    let stream_info = Some(proto::StreamInfo { scope: "scope".into(), stream: "stream".into(), access_operation: 0 });
    let cut = proto::StreamCut { stream_info: stream_info.clone(), cut: [(0, 0), (1, 0)].into() };
    let scaling_policy = Some(proto::ScalingPolicy { min_num_segments: 2, ..Default::default() });
    let txn_id = Some(proto::TxnId { high_bits: 0, low_bits: 7 });
    let reader_group_id = "00000000-0000-0000-0000-000000000001".to_owned();
    match rpc {
        Rpc::CreateStream | Rpc::UpdateStream => {
            let retention_policy =
                Some(proto::RetentionPolicy { retention_type: 2, retention_param: 1 << 40, retention_max: i64::MAX });
            proto::StreamConfig { stream_info, scaling_policy, retention_policy, ..Default::default() }.encode_to_vec()
        }
        Rpc::TruncateStream | Rpc::IsStreamCutValid => cut.encode_to_vec(),
        Rpc::GetSegmentsBetween => {
            proto::StreamCutRange { stream_info, from: cut.cut.clone(), to: cut.cut }.encode_to_vec()
        }
        Rpc::Scale => {
            let new_key_ranges = vec![proto::scale_request::KeyRangeEntry { start: 0.0, end: 0.5 }];
            proto::ScaleRequest { stream_info, sealed_segments: vec![0], new_key_ranges, scale_timestamp: 0 }
                .encode_to_vec()
        }
        Rpc::CreateTransaction => {
            proto::CreateTxnRequest { stream_info, lease: 20_000, ..Default::default() }.encode_to_vec()
        }
        Rpc::CommitTransaction | Rpc::CheckTransactionState => {
            proto::TxnRequest { stream_info, txn_id, ..Default::default() }.encode_to_vec()
        }
        Rpc::AbortTransaction => {
            proto::TxnRequest { stream_info, txn_id: Some(open), ..Default::default() }.encode_to_vec()
        }
        Rpc::PingTransaction => {
            proto::PingTxnRequest { stream_info, txn_id: Some(open), lease: 20_000 }.encode_to_vec()
        }
        Rpc::NoteTimestampFromWriter => {
            proto::TimestampFromWriter { writer: "w".into(), position: Some(cut), timestamp: 1 }.encode_to_vec()
        }
        Rpc::RemoveWriter => proto::RemoveWriterRequest { writer: "w".into(), stream: stream_info }.encode_to_vec(),
        Rpc::UpdateSubscriberStreamCut => {
            let stream_cut = Some(cut);
            // As it is after one update.
            let (subscriber, generation) = ("scope/stream".into(), 1);
            proto::SubscriberStreamCut { subscriber, generation, reader_group_id, stream_cut }.encode_to_vec()
        }
        Rpc::CreateReaderGroup | Rpc::UpdateReaderGroup => proto::ReaderGroupConfiguration {
            scope: "scope".into(),
            reader_group_name: "stream".into(),
            retention_type: 1,
            reader_group_id,
            starting_stream_cuts: vec![cut],
            ..Default::default()
        }
        .encode_to_vec(),
        Rpc::DeleteReaderGroup => {
            let (scope, reader_group) = ("scope".into(), "stream".into());
            proto::ReaderGroupInfo { scope, reader_group, reader_group_id, generation: 0 }.encode_to_vec()
        }
        Rpc::CreateKeyValueTable => proto::KeyValueTableConfig {
            scope: "scope".into(),
            kvt_name: "table".into(),
            partition_count: 2,
            primary_key_length: 8,
            ..Default::default()
        }
        .encode_to_vec(),
        Rpc::GetCurrentSegmentsKeyValueTable | Rpc::GetKeyValueTableConfiguration | Rpc::DeleteKeyValueTable => {
            message(rpc, "table")
        }
        Rpc::ListStreamsInScopeForTag => {
            let scope = Some(proto::ScopeInfo { scope: "scope".into() });
            proto::StreamsInScopeWithTagRequest { scope, tag: "tag".into(), continuation_token: None }.encode_to_vec()
        }
        _ => message(rpc, "stream"),
    }
}

/// What a call says.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Said {
    /// The number of a gRPC code.
    Code(i32),
    /// What the field of an answer says that tells how it went.
    Status(u64),
}

/// What a call says to all of this, neither more nor less, and the field of its answers that tells how it went, if there
/// is one.
///
/// Source: Pravega's interface. To a mistake of the caller it answers INTERNAL or UNKNOWN in many places, which clients
/// try again for a minute; here that is INVALID_ARGUMENT. Of the statuses none means that the server failed, or that it
/// may go well next time, where a comment does not say otherwise.
fn documented(rpc: Rpc) -> (Option<u64>, BTreeSet<Said>) {
    const MISTAKE: &[Code] = &[Code::InvalidArgument];
    const MISTAKE_OR_NOWHERE: &[Code] = &[Code::InvalidArgument, Code::NotFound];
    let (codes, field, statuses): (_, _, &[u64]) = match rpc {
        // SUCCESS, SCOPE_EXISTS, INVALID_SCOPE_NAME.
        Rpc::CreateScope => (MISTAKE, Some(1), &[0, 2, 3]),
        // SUCCESS, SCOPE_NOT_FOUND.
        Rpc::DeleteScope => (MISTAKE, Some(1), &[0, 2]),
        // SUCCESS, also for none.
        Rpc::DeleteScopeRecursive => (MISTAKE, Some(1), &[0]),
        // SUCCESS, STREAM_EXISTS, SCOPE_NOT_FOUND, INVALID_STREAM_NAME.
        Rpc::CreateStream => (MISTAKE, Some(1), &[0, 2, 3, 4]),
        // SUCCESS, STREAM_NOT_FOUND.
        Rpc::UpdateStream | Rpc::SealStream | Rpc::DeleteStream => (MISTAKE, Some(1), &[0, 2]),
        // SUCCESS, FAILURE for a cut that is none, STREAM_NOT_FOUND.
        Rpc::TruncateStream => (MISTAKE, Some(1), &[0, 1, 2]),
        // STARTED, FAILURE for ranges that do not fit, PRECONDITION_FAILED.
        Rpc::Scale => (MISTAKE, Some(1), &[0, 1, 2]),
        // SUCCESS, INVALID_INPUT.
        Rpc::CheckScale => (MISTAKE, Some(1), &[1, 2]),
        // SUCCESS, FAILURE for a transaction that is not there, STREAM_NOT_FOUND.
        Rpc::CommitTransaction => (MISTAKE, Some(1), &[0, 1, 2]),
        // SUCCESS, also for what is aborted, FAILURE for a transaction that is not there, STREAM_NOT_FOUND.
        Rpc::AbortTransaction => (MISTAKE, Some(1), &[0, 1, 2]),
        // OK, LEASE_TOO_LARGE, UNKNOWN; never ABORTED, since no ping ends what it is for.
        Rpc::PingTransaction => (MISTAKE, Some(1), &[0, 1, 7]),
        // UNKNOWN, COMMITTED.
        Rpc::CheckTransactionState => (MISTAKE, Some(1), &[0, 3]),
        // SUCCESS, INVALID_TIME.
        Rpc::NoteTimestampFromWriter => (MISTAKE_OR_NOWHERE, Some(1), &[0, 1]),
        // SUCCESS, UNKNOWN_WRITER.
        Rpc::RemoveWriter => (MISTAKE, Some(1), &[0, 1]),
        // SUCCESS, TABLE_EXISTS, SCOPE_NOT_FOUND, INVALID_TABLE_NAME.
        Rpc::CreateKeyValueTable => (MISTAKE, Some(1), &[0, 2, 3, 4]),
        // SUCCESS, TABLE_NOT_FOUND.
        Rpc::GetKeyValueTableConfiguration => (MISTAKE, Some(2), &[0, 2]),
        Rpc::DeleteKeyValueTable => (MISTAKE, Some(1), &[0, 2]),
        // SUCCESS, STREAM_NOT_FOUND.
        Rpc::ListSubscribers => (MISTAKE, Some(2), &[0, 2]),
        // SUCCESS, STREAM_NOT_FOUND, SUBSCRIBER_NOT_FOUND, STREAM_CUT_NOT_VALID, GENERATION_MISMATCH.
        Rpc::UpdateSubscriberStreamCut => (MISTAKE, Some(1), &[0, 2, 3, 4, 5]),
        // SUCCESS, SCOPE_NOT_FOUND, INVALID_RG_NAME.
        Rpc::CreateReaderGroup => (MISTAKE, Some(1), &[0, 2, 3]),
        // SUCCESS, RG_NOT_FOUND, INVALID_CONFIG.
        Rpc::UpdateReaderGroup => (MISTAKE, Some(1), &[0, 2, 3]),
        // SUCCESS, RG_NOT_FOUND.
        Rpc::DeleteReaderGroup => (MISTAKE, Some(1), &[0, 2]),
        Rpc::GetReaderGroupConfig => (MISTAKE, Some(2), &[0, 2]),
        // SUCCESS, SCOPE_NOT_FOUND.
        Rpc::ListStreamsInScope | Rpc::ListStreamsInScopeForTag | Rpc::ListKeyValueTablesInScope => {
            (MISTAKE, Some(3), &[0, 2])
        }
        Rpc::GetControllerServerList | Rpc::GetControllerToBucketMapping | Rpc::ListScopes => (MISTAKE, None, &[]),
        Rpc::CheckScopeExists | Rpc::CheckStreamExists => (MISTAKE, None, &[]),
        // Whatever they are asked for.
        Rpc::GetUri | Rpc::GetDelegationToken => (MISTAKE, None, &[]),
        Rpc::GetCurrentSegments | Rpc::GetEpochSegments | Rpc::GetSegments => (MISTAKE_OR_NOWHERE, None, &[]),
        Rpc::GetSegmentsImmediatlyFollowing | Rpc::GetSegmentsImmediatelyFollowing | Rpc::GetSegmentsBetween => {
            (MISTAKE_OR_NOWHERE, None, &[])
        }
        Rpc::IsSegmentValid | Rpc::IsStreamCutValid | Rpc::GetStreamConfiguration => (MISTAKE_OR_NOWHERE, None, &[]),
        Rpc::CreateTransaction | Rpc::ListCompletedTransactions => (MISTAKE_OR_NOWHERE, None, &[]),
        Rpc::GetCurrentSegmentsKeyValueTable => (MISTAKE_OR_NOWHERE, None, &[]),
    };
    let codes = codes.iter().map(|code| Said::Code(*code as i32));
    (field, codes.chain(statuses.iter().map(|status| Said::Status(*status))).collect())
}

/// The number in a field of an answer; 0 when it is not there.
fn number(answer: &[u8], wanted: u64) -> Option<u64> {
    let (mut at, mut found) = (0, 0);
    while at < answer.len() {
        let key = varint_at(answer, &mut at)?;
        match key & 7 {
            0 => {
                let value = varint_at(answer, &mut at)?;
                if key >> 3 == wanted {
                    found = value;
                }
            }
            1 => at += 8,
            2 => at += usize::try_from(varint_at(answer, &mut at)?).ok()?,
            5 => at += 4,
            _ => return None,
        }
    }
    Some(found)
}

async fn call(client: &mut Grpc<Channel>, rpc: Rpc, bytes: Vec<u8>) -> Result<Vec<u8>, Code> {
    client.ready().await.unwrap();
    let path = format!("/io.pravega.controller.stream.api.grpc.v1.ControllerService/{}", rpc.name());
    let answer = client.unary(Request::new(bytes), path.parse().unwrap(), Raw).await;
    answer.map(tonic::Response::into_inner).map_err(|status| status.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_with_a_call_is_its_callers_mistake() {
    let running = Running::start(|_| {}).await;
    let mut controller = running.controller().await;
    controller.create_scope(proto::ScopeInfo { scope: "scope".into() }).await.unwrap();
    let info = proto::StreamInfo { scope: "scope".into(), stream: "stream".into(), access_operation: 0 };
    let config = proto::StreamConfig {
        stream_info: Some(info.clone()),
        scaling_policy: Some(proto::ScalingPolicy { min_num_segments: 2, ..Default::default() }),
        ..Default::default()
    };
    controller.create_stream(config).await.unwrap();

    let mut client = Grpc::new(running.channel().await);
    let mut rpcs = Rpc::ALL.to_vec();
    rpcs.sort_by_key(|rpc| order(*rpc));
    assert_eq!(rpcs.len(), 47);
    let (mut calls, mut wrong) = (0, Vec::new());
    for rpc in rpcs {
        let (field, expected) = documented(rpc);
        // Each with the first call that it was said to.
        let mut said: BTreeMap<Said, Vec<u8>> = BTreeMap::new();
        let transaction = match rpc {
            Rpc::PingTransaction | Rpc::AbortTransaction => {
                let lease = 600_000;
                let open = proto::CreateTxnRequest { stream_info: Some(info.clone()), lease, ..Default::default() };
                controller.create_transaction(open).await.unwrap().into_inner().txn_id.unwrap()
            }
            _ => proto::TxnId::default(),
        };
        if rpc == Rpc::CheckScale {
            // Scales of before may be under way.
            let asked = proto::ScaleStatusRequest { stream_info: Some(info.clone()), epoch: 0 };
            while controller.check_scale(asked.clone()).await.unwrap().into_inner().status()
                == proto::scale_status_response::ScaleStatus::InProgress
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        let good = whole(rpc, transaction);
        let mut cases = vec![Vec::new(), good.clone(), vec![0xff; 64]];
        cases.extend((1..good.len()).map(|cut| good[..cut].to_vec()));
        cases.extend(spoilt(&good, 5, 2));
        cases.extend(values(11).into_iter().map(|value| [&good[..], &value].concat()));
        // Behind a field that nobody knows there is more than a request may have.
        let beyond = [&good[..], &counted(15, &vec![b'n'; 1 << 20])].concat();
        assert_eq!(call(&mut client, rpc, beyond).await, Err(Code::OutOfRange), "{} of a megabyte", rpc.name());
        for case in cases {
            let answer = call(&mut client, rpc, case.clone()).await;
            calls += 1;
            let heard = match answer {
                Err(code) => Said::Code(code as i32),
                Ok(answer) => match field {
                    None => continue,
                    Some(field) => Said::Status(number(&answer, field).expect("an answer is a message")),
                },
            };
            said.entry(heard).or_insert_with(|| case[..case.len().min(200)].to_vec());
        }
        for (heard, case) in &said {
            if !expected.contains(heard) {
                wrong.push(format!("{} says {heard:?} to {case:02x?}", rpc.name()));
            }
        }
        for missing in expected.iter().filter(|expected| !said.contains_key(expected)) {
            wrong.push(format!("{} never says {missing:?}", rpc.name()));
        }
        if rpc == Rpc::PingTransaction {
            let (stream_info, txn_id) = (Some(info.clone()), Some(transaction));
            let asked = proto::TxnRequest { stream_info, txn_id, ..Default::default() };
            let found = controller.check_transaction_state(asked).await.unwrap().into_inner();
            assert_eq!(found.state(), proto::txn_state::State::Open, "whatever a ping said");
        }
    }
    assert!(calls > 5000, "{calls} calls");
    assert!(wrong.is_empty(), "{wrong:#?}");
    // It is none the worse for it.
    let created = controller.create_scope(proto::ScopeInfo { scope: "after".into() }).await.unwrap().into_inner();
    assert_eq!(created.status(), proto::create_scope_status::Status::Success);
    running.server.stop().await;
}
