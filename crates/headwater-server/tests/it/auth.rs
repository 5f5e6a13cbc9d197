//! Every operation of every protocol, asked for with every kind of credential (T19 of the internal list of promises).

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use headwater_auth::passwords::new_entry;
use headwater_auth::{HttpRoute, Level, Rpc, WireCommand};
use headwater_proto::controller as proto;
use headwater_server::{AuthConfig, BearerConfig};
use headwater_types::{AttributeId, WriterId};
use headwater_wire::{Reply, Request as Wire, TableEntry, TableKey, Token, TokenFailure};
use prost::Message as _;
use ring::hmac;
use tokio::io::AsyncWriteExt;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::client::{PATIENCE, SEGMENT, acknowledged};
use crate::server::Running;
use crate::signer::Signer;

/// Signs what the server believes; known to these tests.
const KEY: &str = "a key for tests that has more than thirty-two bytes";
/// Few, so that the tests spend their time elsewhere.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(16).unwrap();

pub(crate) fn entry(user: &str, password: &str, grants: &[&str]) -> String {
    let grants: Vec<_> = grants.iter().map(|grant| (*grant).to_owned()).collect();
    new_entry(user, password.as_bytes(), &grants, &[9; 32], ITERATIONS).unwrap() + "\n"
}

pub(crate) fn users() -> String {
    entry("admin", "a", &["prn::*,READ_UPDATE"])
        + &entry("reader", "r", &["prn::/,READ", "prn::/scope:scope,READ", "prn::/scope:scope/*,READ"])
        + &entry("other", "o", &["prn::/scope:other,READ_UPDATE", "prn::/scope:other/*,READ_UPDATE"])
        + &entry("one", "1", &["prn::/,READ", "prn::/scope:scope,READ", "prn::/scope:scope/stream:t3*,READ_UPDATE"])
}

#[allow(clippy::disallowed_methods, reason = "the operator's files, not the store's")]
pub(crate) fn put(path: &Path, text: &str) {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.unwrap().write_all(text.as_bytes()).unwrap();
}

pub(crate) async fn start(change: impl FnOnce(&mut AuthConfig)) -> (Running, tempfile::TempDir) {
    let files = tempfile::tempdir().unwrap();
    put(&files.path().join("users"), &users());
    put(&files.path().join("key"), KEY);
    let mut auth = AuthConfig {
        passwords: Some(files.path().join("users")),
        bearer: None,
        token_key: Some(files.path().join("key")),
        token_lifetime_seconds: 600,
    };
    change(&mut auth);
    let running = Running::start(|config| config.auth = Some(auth)).await;
    (running, files)
}

pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn now() -> i64 {
    #[allow(clippy::disallowed_methods, reason = "the server under test asks the real clock")]
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64
}

/// A signed token, its parts as given.
pub(crate) fn signed(header: &str, payload: &str, key: &[u8]) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA512, key), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn payload(claim: &str, level: &str, from: i64, until: i64) -> String {
    format!(r#"{{"sub":"segmentstoreresource","aud":"segmentstore","iat":{from},"{claim}":"{level}","exp":{until}}}"#)
}

pub(crate) fn token(claim: &str, level: &str) -> String {
    signed(r#"{"alg":"HS512"}"#, &payload(claim, level, now(), now() + 600), KEY.as_bytes())
}

const CLAIM: &str = "prn::/scope:scope/stream:stream";

/// What is refused whatever it is for, and how.
fn bad_tokens() -> Vec<(&'static str, String, TokenFailure)> {
    let now = now();
    let good = payload(CLAIM, "READ_UPDATE", now, now + 600);
    let hs512 = r#"{"alg":"HS512"}"#;
    let unsigned = |header: &str| format!("{}.{}.", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(&good));
    let refused = TokenFailure::Refused;
    vec![
        ("none", String::new(), refused),
        ("no token", "let me in".to_owned(), refused),
        (
            "expired",
            signed(hs512, &payload(CLAIM, "READ_UPDATE", now - 700, now - 1), KEY.as_bytes()),
            TokenFailure::Expired,
        ),
        ("not yet valid", signed(hs512, &payload(CLAIM, "READ_UPDATE", now + 300, now + 900), KEY.as_bytes()), refused),
        ("wrong key", signed(hs512, &good, b"another key that has more than thirty-two bytes"), refused),
        ("algorithm none", unsigned(r#"{"alg":"none"}"#), refused),
        ("algorithm None", unsigned(r#"{"alg":"None"}"#), refused),
        ("no signature", unsigned(hs512), refused),
        ("signed as RS512", signed(r#"{"alg":"RS512"}"#, &good, KEY.as_bytes()), refused),
        ("signed as HS256", signed(r#"{"alg":"HS256"}"#, &good, KEY.as_bytes()), refused),
        ("no end", signed(hs512, &good.replace("exp", "end"), KEY.as_bytes()), refused),
        ("other audience", signed(hs512, &good.replace("\"segmentstore\"", "\"x\""), KEY.as_bytes()), refused),
        ("other scope", token("prn::/scope:other/stream:stream", "READ_UPDATE"), refused),
        ("other stream", token("prn::/scope:scope/stream:strea", "READ_UPDATE"), refused),
        ("table of that name", token("prn::/scope:scope/key-value-table:stream", "READ_UPDATE"), refused),
        ("the scope alone", token("prn::/scope:scope", "READ_UPDATE"), refused),
        ("level NONE", token(CLAIM, "NONE"), refused),
    ]
}

/// Commands that need READ_UPDATE, written down a second time: the table that the server has is what is tested.
const WIRE_CHANGES: [WireCommand; 15] = [
    WireCommand::SetupAppend,
    WireCommand::CreateSegment,
    WireCommand::SealSegment,
    WireCommand::DeleteSegment,
    WireCommand::TruncateSegment,
    WireCommand::UpdateSegmentPolicy,
    WireCommand::UpdateSegmentAttribute,
    WireCommand::CreateTransientSegment,
    WireCommand::MergeSegments,
    WireCommand::MergeSegmentsBatch,
    WireCommand::CreateTableSegment,
    WireCommand::DeleteTableSegment,
    WireCommand::UpdateTableEntries,
    WireCommand::RemoveTableKeys,
    WireCommand::FlushToStorage,
];

/// One of each command, all about segments of one stream.
fn commands(token: &str) -> Vec<(WireCommand, Wire)> {
    use WireCommand as Row;
    let token = Token::new(token);
    let (segment, request_id) = (headwater_wire::Text::from(SEGMENT), 7);
    let table = headwater_wire::Text::from("scope/stream/9.#epoch.0");
    let key = || TableKey { key: "k".into(), version: i64::MIN };
    macro_rules! about {
        ($name:ident, $segment:expr $(, $field:ident: $value:expr)*) => {
            (Row::$name, Wire::$name { request_id, segment: $segment.clone(), token: token.clone() $(, $field: $value)* })
        };
    }
    vec![
        about!(CreateSegment, segment, target_rate: 0, scale_type: 0, rollover_bytes: 0),
        about!(GetStreamSegmentInfo, segment),
        about!(UpdateSegmentPolicy, segment, target_rate: 0, scale_type: 0),
        about!(GetSegmentAttribute, segment, attribute: AttributeId(1)),
        about!(UpdateSegmentAttribute, segment, attribute: AttributeId(1), new_value: 1, expected_value: i64::MIN),
        about!(LocateOffset, segment, target_offset: 0),
        (
            Row::CreateTransientSegment,
            Wire::CreateTransientSegment {
                request_id,
                writer: WriterId(3),
                parent: segment.clone(),
                token: token.clone(),
            },
        ),
        (
            Row::MergeSegments,
            Wire::MergeSegments {
                request_id,
                target: segment.clone(),
                source: "scope/stream/0.#epoch.0#transaction.00000000000000000000000000000001".into(),
                token: token.clone(),
                attribute_updates: Vec::new(),
            },
        ),
        (
            Row::MergeSegmentsBatch,
            Wire::MergeSegmentsBatch {
                request_id,
                target: segment.clone(),
                sources: vec!["scope/stream/0.#epoch.0#transaction.00000000000000000000000000000002".into()],
                token: token.clone(),
            },
        ),
        about!(ListStorageChunks, segment),
        about!(TruncateSegment, segment, truncation_offset: 0),
        about!(SealSegment, segment),
        // Of a sealed segment, whose end is answered at once.
        about!(ReadSegment, segment, offset: 0, suggested_length: 1024),
        about!(DeleteSegment, segment),
        about!(CreateTableSegment, table, sorted: false, key_length: 0, rollover_bytes: 0),
        about!(GetTableSegmentInfo, table),
        about!(UpdateTableEntries, table,
            entries: vec![TableEntry { key: key(), value: "v".into() }], table_offset: -1),
        about!(ReadTable, table, keys: vec![key()]),
        about!(ReadTableKeys, table, suggested_count: 1, continuation: "".into(), prefix: "".into(),
            from_key: "".into(), to_key: "".into()),
        about!(ReadTableEntries, table, suggested_count: 1, continuation: "".into(), prefix: "".into(),
            from_key: "".into(), to_key: "".into()),
        about!(ReadTableEntriesDelta, table, from_position: 0, suggested_count: 1),
        about!(RemoveTableKeys, table, keys: vec![key()], table_offset: -1),
        about!(DeleteTableSegment, table, must_be_empty: false),
        (Row::FlushToStorage, Wire::FlushToStorage { container_id: 0, token: token.clone(), request_id }),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wire_command_needs_a_token_that_allows_it() {
    let (running, _files) = start(|_| {}).await;
    let mut client = running.store().await;
    let listed: Vec<_> = commands("").iter().map(|(row, _)| *row).chain([WireCommand::SetupAppend]).collect();
    for row in WireCommand::ALL {
        assert_eq!(listed.iter().filter(|one| *one == row).count(), 1, "{row:?}");
    }

    for (kind, token, failure) in bad_tokens() {
        for (row, command) in commands(&token) {
            match client.ask(command).await {
                Reply::AuthTokenCheckFailed { request_id: 7, failure: said, .. } => {
                    assert_eq!(said, failure, "{row:?} with {kind}");
                }
                other => panic!("{row:?} with {kind}: {other:?}"),
            }
        }
        let mut writer = running.store().await;
        writer.token = Token::new(token.as_str());
        match writer.try_set_up(5, SEGMENT).await {
            Reply::AuthTokenCheckFailed { failure: said, .. } => assert_eq!(said, failure, "set-up with {kind}"),
            other => panic!("set-up with {kind}: {other:?}"),
        }
        if failure == TokenFailure::Expired {
            assert_eq!(writer.next().await, None, "the connection ends, so that the client comes back");
        }
    }

    let is_refused = |reply: &Reply| matches!(reply, Reply::AuthTokenCheckFailed { .. });
    for (row, command) in commands(&token(CLAIM, "READ")) {
        let refused = is_refused(&client.ask(command).await);
        assert_eq!(refused, WIRE_CHANGES.contains(&row), "{row:?} with READ");
    }
    client.token = Token::new(token(CLAIM, "READ"));
    assert!(is_refused(&client.try_set_up(5, SEGMENT).await));

    for (row, command) in commands(&token(CLAIM, "READ_UPDATE")) {
        // A container has segments of many streams.
        let refused = is_refused(&client.ask(command).await);
        assert_eq!(refused, row == WireCommand::FlushToStorage, "{row:?} with READ_UPDATE");
    }
    for (row, command) in commands(&token("*", "READ_UPDATE")) {
        assert!(!is_refused(&client.ask(command).await), "{row:?} with everything");
    }
    client.token = Token::new(token(CLAIM, "READ_UPDATE"));
    client.create("scope/stream/1.#epoch.0").await;
    assert_eq!(client.set_up(5, "scope/stream/1.#epoch.0").await, i64::MIN);
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_needs_both_ends() {
    let (running, _files) = start(|_| {}).await;
    let mut client = running.store().await;
    let token = Token::new(token(CLAIM, "READ_UPDATE"));
    for (target, source) in [(SEGMENT, "other/stream/0.#epoch.0"), ("other/stream/0.#epoch.0", SEGMENT)] {
        let (target, source) = (headwater_wire::Text::from(target), headwater_wire::Text::from(source));
        let one = Wire::MergeSegments {
            request_id: 1,
            target: target.clone(),
            source: source.clone(),
            token: token.clone(),
            attribute_updates: Vec::new(),
        };
        let batch = Wire::MergeSegmentsBatch { request_id: 2, target, sources: vec![source], token: token.clone() };
        for command in [one, batch] {
            assert!(matches!(client.ask(command).await, Reply::AuthTokenCheckFailed { .. }));
        }
    }
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_frames_of_strangers_do_not_keep_users_from_sending_theirs() {
    let (running, _files) = start(|_| {}).await;
    let mut user = running.store().await;
    user.token = Token::new(token(CLAIM, "READ_UPDATE"));
    user.create(SEGMENT).await;
    user.set_up(1, SEGMENT).await;
    // Far more than may be received at a time, and each goes on as fast as one may who holds a part of the room.
    let mut strangers = Vec::new();
    for _ in 0..150 {
        let mut socket = running.connect(running.server.segment_store(), &[]).await.unwrap();
        strangers.push(tokio::spawn(async move {
            let mut out = bytes::BytesMut::new();
            headwater_wire::ClientEnd::connect(&mut out);
            // The end of a block of 16 MB, whose first 300 KB are there.
            out.extend_from_slice(&[0, 0, 0, 4, 0, 0xf4, 0x24, 0]);
            out.resize(out.len() + 300_000, 0);
            while socket.write_all(&out).await.is_ok() && socket.flush().await.is_ok() {
                out.clear();
                out.resize(100_000, 0);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }));
    }
    let data = vec![7; 16_000_000];
    assert_eq!(user.append(1, 1, &data).await, acknowledged(1, 1, i64::MIN, data.len() as i64));
    for stranger in strangers {
        stranger.abort();
    }
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_end_with_the_token_of_their_set_up() {
    let (running, _files) = start(|auth| auth.token_lifetime_seconds = 4).await;
    let mut controller = running.controller().await;
    let mut info = proto::StreamInfo { scope: "scope".into(), stream: "stream".into(), access_operation: 4 };
    let asked = authorized(info.clone(), &basic("admin", "a"));
    let issued = controller.get_delegation_token(asked).await.unwrap().into_inner().delegation_token;
    let (mut idle, mut busy) = (running.store().await, running.store().await);
    for client in [&mut idle, &mut busy] {
        client.token = Token::new(issued.as_str());
    }
    idle.create(SEGMENT).await;
    idle.set_up(1, SEGMENT).await;
    busy.set_up(2, SEGMENT).await;
    let begun = tokio::time::Instant::now();
    let mut number = 0;
    loop {
        number += 1;
        busy.put_append(2, number, b"x");
        busy.send().await;
        match busy.next().await {
            Some(reply) => assert!(matches!(reply, Reply::DataAppended { .. }), "{reply:?}"),
            None => break,
        }
        assert!(begun.elapsed() < PATIENCE, "appends go on after the token's end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(number > 10, "appends are stored until the token ends");
    assert_eq!(idle.next().await, None, "an idle writer is told, too");
    let mut late = running.store().await;
    late.token = Token::new(issued.as_str());
    assert!(matches!(
        late.try_set_up(1, SEGMENT).await,
        Reply::AuthTokenCheckFailed { failure: TokenFailure::Expired, .. }
    ));
    info.access_operation = 0;
    let asked = authorized(info, &basic("admin", "a"));
    let fresh = controller.get_delegation_token(asked).await.unwrap().into_inner().delegation_token;
    let mut again = running.store().await;
    again.token = Token::new(fresh.as_str());
    // The last append had no answer, and may have been stored all the same.
    let stored = again.set_up(2, SEGMENT).await;
    assert!((number - 1..=number).contains(&stored), "{stored} of {number}");
    assert_eq!(again.append(2, stored + 1, b"x").await, acknowledged(2, stored + 1, stored, stored + 1));
    running.server.stop().await;
}

pub(crate) fn authorized<T>(message: T, header: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", header.parse().unwrap());
    request
}

/// Messages as bytes, so that one loop can make every call.
#[derive(Clone, Copy, Default)]
pub(crate) struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        use bytes::Buf as _;
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

/// A call about the scope `scope` and what is called `name` in it.
pub(crate) fn message(rpc: Rpc, name: &str) -> Vec<u8> {
    let scope_info = proto::ScopeInfo { scope: "scope".into() };
    let info = proto::StreamInfo { scope: "scope".into(), stream: name.to_owned(), access_operation: 0 };
    let stream_info = Some(info.clone());
    let cut = proto::StreamCut { stream_info: stream_info.clone(), ..Default::default() };
    let txn = proto::TxnRequest { stream_info: stream_info.clone(), ..Default::default() };
    let segment = proto::SegmentId { stream_info: stream_info.clone(), segment_id: 0 };
    let table = proto::KeyValueTableInfo { scope: "scope".into(), kvt_name: name.to_owned() };
    let group = proto::ReaderGroupInfo { scope: "scope".into(), reader_group: name.to_owned(), ..Default::default() };
    let group_config = proto::ReaderGroupConfiguration {
        scope: "scope".into(),
        reader_group_name: name.to_owned(),
        ..Default::default()
    };
    match rpc {
        Rpc::GetControllerServerList => proto::ServerRequest::default().encode_to_vec(),
        Rpc::GetControllerToBucketMapping => proto::ControllerToBucketMappingRequest::default().encode_to_vec(),
        Rpc::ListScopes => proto::ScopesRequest::default().encode_to_vec(),
        Rpc::CreateScope | Rpc::DeleteScope | Rpc::DeleteScopeRecursive | Rpc::CheckScopeExists => {
            scope_info.encode_to_vec()
        }
        Rpc::ListStreamsInScope => {
            proto::StreamsInScopeRequest { scope: Some(scope_info), ..Default::default() }.encode_to_vec()
        }
        Rpc::ListStreamsInScopeForTag => {
            proto::StreamsInScopeWithTagRequest { scope: Some(scope_info), ..Default::default() }.encode_to_vec()
        }
        Rpc::ListKeyValueTablesInScope => {
            proto::KvTablesInScopeRequest { scope: Some(scope_info), ..Default::default() }.encode_to_vec()
        }
        Rpc::CreateStream | Rpc::UpdateStream => {
            proto::StreamConfig { stream_info, ..Default::default() }.encode_to_vec()
        }
        Rpc::TruncateStream | Rpc::IsStreamCutValid => cut.encode_to_vec(),
        Rpc::SealStream
        | Rpc::DeleteStream
        | Rpc::GetCurrentSegments
        | Rpc::CheckStreamExists
        | Rpc::GetStreamConfiguration
        | Rpc::ListSubscribers
        | Rpc::GetDelegationToken => info.encode_to_vec(),
        Rpc::Scale => proto::ScaleRequest { stream_info, ..Default::default() }.encode_to_vec(),
        Rpc::GetEpochSegments => proto::GetEpochSegmentsRequest { stream_info, ..Default::default() }.encode_to_vec(),
        Rpc::GetSegments => proto::GetSegmentsRequest { stream_info, ..Default::default() }.encode_to_vec(),
        Rpc::GetSegmentsImmediatlyFollowing
        | Rpc::GetSegmentsImmediatelyFollowing
        | Rpc::GetUri
        | Rpc::IsSegmentValid => segment.encode_to_vec(),
        Rpc::GetSegmentsBetween => proto::StreamCutRange { stream_info, ..Default::default() }.encode_to_vec(),
        Rpc::CheckScale => proto::ScaleStatusRequest { stream_info, ..Default::default() }.encode_to_vec(),
        Rpc::CreateTransaction => proto::CreateTxnRequest { stream_info, ..Default::default() }.encode_to_vec(),
        Rpc::CommitTransaction | Rpc::AbortTransaction | Rpc::CheckTransactionState => txn.encode_to_vec(),
        Rpc::PingTransaction => proto::PingTxnRequest { stream_info, ..Default::default() }.encode_to_vec(),
        Rpc::ListCompletedTransactions => proto::ListCompletedTxnRequest { stream_info }.encode_to_vec(),
        Rpc::NoteTimestampFromWriter => {
            proto::TimestampFromWriter { position: Some(cut), ..Default::default() }.encode_to_vec()
        }
        Rpc::RemoveWriter => proto::RemoveWriterRequest { stream: stream_info, ..Default::default() }.encode_to_vec(),
        Rpc::UpdateSubscriberStreamCut => {
            proto::SubscriberStreamCut { stream_cut: Some(cut), ..Default::default() }.encode_to_vec()
        }
        Rpc::CreateReaderGroup | Rpc::UpdateReaderGroup => group_config.encode_to_vec(),
        Rpc::DeleteReaderGroup | Rpc::GetReaderGroupConfig => group.encode_to_vec(),
        Rpc::CreateKeyValueTable => {
            proto::KeyValueTableConfig { scope: "scope".into(), kvt_name: name.to_owned(), ..Default::default() }
                .encode_to_vec()
        }
        Rpc::GetCurrentSegmentsKeyValueTable | Rpc::DeleteKeyValueTable | Rpc::GetKeyValueTableConfiguration => {
            table.encode_to_vec()
        }
    }
}

/// What the caller gets for a call.
pub(crate) async fn ask(
    client: &mut Grpc<Channel>,
    rpc: Rpc,
    message: Vec<u8>,
    header: Option<&str>,
) -> Result<Vec<u8>, Status> {
    client.ready().await.unwrap();
    let mut request = Request::new(message);
    if let Some(header) = header {
        request.metadata_mut().insert("authorization", header.parse().unwrap());
    }
    let path = format!("/io.pravega.controller.stream.api.grpc.v1.ControllerService/{}", rpc.name());
    client.unary(request, path.parse().unwrap(), Raw).await.map(tonic::Response::into_inner)
}

/// The same about `stream` over a connection of its own.
async fn call(running: &Running, rpc: Rpc, header: Option<&str>) -> Result<Vec<u8>, Status> {
    let mut client = Grpc::new(running.channel().await).max_decoding_message_size(1 << 20);
    ask(&mut client, rpc, message(rpc, "stream"), header).await
}

/// What something is asked of.
#[derive(Clone, Copy)]
enum On {
    /// Nothing has to be granted, nor has anybody to say who they are.
    Nobody,
    Root,
    Scope,
    Stream,
    Table,
    /// A reader group, and besides to look at its scope.
    Group,
    /// The stream, or the table of its name: Java clients ask for one as if it were the other.
    StreamOrTable,
}

const R: Level = Level::Read;
const RU: Level = Level::ReadUpdate;

/// What each call of the controller needs, as it is documented. Written down a second time: the table that the server
/// has is what is tested.
///
/// Source: Pravega's permissions; groups as in `docs/operations.md`.
const MATRIX: [(&str, On, Level); 47] = [
    ("getControllerServerList", On::Nobody, Level::None),
    ("createScope", On::Root, RU),
    ("deleteScope", On::Root, RU),
    ("deleteScopeRecursive", On::Root, RU),
    ("getControllerToBucketMapping", On::Root, RU),
    ("listScopes", On::Root, R),
    ("checkScopeExists", On::Scope, R),
    ("listStreamsInScope", On::Scope, R),
    ("listStreamsInScopeForTag", On::Scope, R),
    ("listKeyValueTablesInScope", On::Scope, R),
    ("createStream", On::Scope, RU),
    ("updateStream", On::Stream, RU),
    ("truncateStream", On::Stream, RU),
    ("sealStream", On::Stream, RU),
    ("deleteStream", On::Stream, RU),
    ("scale", On::Stream, RU),
    ("getEpochSegments", On::Stream, RU),
    // As clients ask for them that do not say what for.
    ("getCurrentSegments", On::Stream, RU),
    ("getSegments", On::Stream, RU),
    ("getSegmentsImmediatlyFollowing", On::Stream, R),
    ("getSegmentsImmediatelyFollowing", On::Stream, R),
    ("getSegmentsBetween", On::Stream, R),
    ("getURI", On::Stream, R),
    ("isSegmentValid", On::Stream, R),
    ("isStreamCutValid", On::Stream, R),
    ("checkScale", On::Stream, R),
    ("checkStreamExists", On::Stream, R),
    ("getStreamConfiguration", On::Stream, R),
    ("createTransaction", On::Stream, RU),
    ("commitTransaction", On::Stream, RU),
    ("abortTransaction", On::Stream, RU),
    ("pingTransaction", On::Stream, RU),
    ("checkTransactionState", On::Stream, R),
    ("listCompletedTransactions", On::Stream, R),
    ("noteTimestampFromWriter", On::Stream, RU),
    ("removeWriter", On::Stream, RU),
    ("listSubscribers", On::Stream, RU),
    ("updateSubscriberStreamCut", On::Stream, RU),
    ("createReaderGroup", On::Group, R),
    ("updateReaderGroup", On::Group, R),
    ("deleteReaderGroup", On::Group, R),
    ("getReaderGroupConfig", On::Group, R),
    ("createKeyValueTable", On::Scope, RU),
    ("getCurrentSegmentsKeyValueTable", On::Table, RU),
    ("deleteKeyValueTable", On::Table, RU),
    ("getKeyValueTableConfiguration", On::Table, R),
    ("getDelegationToken", On::StreamOrTable, RU),
];

/// The same for the routes of HTTP.
///
/// Source: Pravega's permissions for what is Pravega's; `docs/http.md` and `docs/operations.md` for what is ours.
const HTTP_MATRIX: [(&str, &str, On, Level); 40] = [
    ("GET", "/", On::Nobody, Level::None),
    ("GET", "/openapi.json", On::Nobody, Level::None),
    ("GET", "/ping", On::Nobody, Level::None),
    ("GET", "/healthz", On::Nobody, Level::None),
    ("GET", "/readyz", On::Nobody, Level::None),
    ("GET", "/metrics", On::Root, R),
    ("GET", "/v1/health", On::Root, R),
    ("GET", "/v1/health/{id}", On::Root, R),
    ("GET", "/v1/health/readiness", On::Root, R),
    ("GET", "/v1/health/readiness/{id}", On::Root, R),
    ("GET", "/v1/health/liveness", On::Root, R),
    ("GET", "/v1/health/liveness/{id}", On::Root, R),
    ("GET", "/v1/health/details", On::Root, R),
    ("GET", "/v1/health/details/{id}", On::Root, R),
    ("GET", "/v1/health/status", On::Root, R),
    ("GET", "/v1/health/status/{id}", On::Root, R),
    ("POST", "/v1/backups", On::Root, RU),
    ("DELETE", "/v1/backups/{id}", On::Root, RU),
    // To read a backup is to read everything there is.
    ("GET", "/v1/backups/{id}/files", On::Root, RU),
    ("GET", "/v1/backups/{id}/files/{*name}", On::Root, RU),
    ("GET", "/v1/transactions", On::Root, R),
    ("GET", "/v1/scopes", On::Root, R),
    ("POST", "/v1/scopes", On::Root, RU),
    ("GET", "/v1/scopes/{scope}", On::Scope, R),
    ("DELETE", "/v1/scopes/{scope}", On::Root, RU),
    ("GET", "/v1/scopes/{scope}/streams", On::Scope, R),
    ("POST", "/v1/scopes/{scope}/streams", On::Scope, RU),
    ("GET", "/v1/scopes/{scope}/streams/{stream}", On::Stream, R),
    ("PUT", "/v1/scopes/{scope}/streams/{stream}", On::Stream, RU),
    ("DELETE", "/v1/scopes/{scope}/streams/{stream}", On::Stream, RU),
    ("PUT", "/v1/scopes/{scope}/streams/{stream}/state", On::Stream, RU),
    ("GET", "/v1/scopes/{scope}/streams/{stream}/scaling-events", On::Stream, R),
    ("GET", "/v1/scopes/{scope}/streams/{stream}/retention", On::Stream, R),
    ("GET", "/v1/scopes/{scope}/streams/{stream}/heat", On::Stream, R),
    ("GET", "/v1/scopes/{scope}/streams/{stream}/epochs", On::Stream, R),
    ("GET", "/v1/scopes/{scope}/streams/{stream}/transactions", On::Stream, R),
    ("GET", "/v1/scopes/{scope}/readergroups", On::Scope, R),
    ("GET", "/v1/scopes/{scope}/readergroups/{group}", On::Group, R),
    ("DELETE", "/v1/scopes/{scope}/readergroups/{group}", On::Group, RU),
    ("GET", "/v1/scopes/{scope}/readergroups/{group}/lag", On::Group, R),
];

/// What has to be granted: all of these, each of which is a level on one of some resources.
type Needs = Vec<(Vec<String>, Level)>;

impl On {
    /// About what is called `name` in the scope `scope`.
    fn needs(self, level: Level, name: &str) -> Needs {
        let scope = || vec!["prn::/scope:scope".to_owned()];
        let of = |kind: &str| format!("prn::/scope:scope/{kind}:{name}");
        match self {
            Self::Nobody => Vec::new(),
            Self::Root => vec![(vec!["prn::/".to_owned()], level)],
            Self::Scope => vec![(scope(), level)],
            Self::Stream => vec![(vec![of("stream")], level)],
            Self::Table => vec![(vec![of("key-value-table")], level)],
            Self::Group => vec![(scope(), R), (vec![of("reader-group")], level)],
            Self::StreamOrTable => vec![(vec![of("stream"), of("key-value-table")], level)],
        }
    }
}

/// Users who differ in what was granted to them.
#[derive(Default)]
struct Users(BTreeMap<Vec<String>, String>);

impl Users {
    /// What a user says of whom this was granted.
    fn with(&mut self, grants: Vec<String>) -> String {
        let number = self.0.len();
        basic(self.0.entry(grants).or_insert(format!("user{number}")), "p")
    }

    /// What users say who may do what needs this, and no more than that; and users who may do everything but one thing
    /// that it needs, or not at that level.
    fn of(&mut self, needs: &Needs) -> Vec<(String, bool)> {
        let grant = |(any, level): &(Vec<String>, Level)| format!("{},{level}", any[0]);
        let allowed = self.with(needs.iter().map(grant).collect());
        let mut users = vec![(allowed, true)];
        for (any, level) in needs {
            for lower in [Level::None, R].into_iter().filter(|lower| lower < level) {
                let but = any.iter().map(|resource| format!("{resource},{lower}"));
                users.push((self.with(but.chain(["prn::*,READ_UPDATE".to_owned()]).collect()), false));
            }
        }
        users
    }

    async fn start(&self) -> (Running, tempfile::TempDir) {
        let entries = self.0.iter().map(|(grants, user)| {
            let grants: Vec<_> = grants.iter().map(String::as_str).collect();
            entry(user, "p", &grants)
        });
        let file: String = entries.collect();
        start(|auth| put(auth.passwords.as_ref().unwrap(), &file)).await
    }
}

/// Who comes with these is nobody.
fn wrong_credentials() -> [String; 7] {
    [
        basic("admin", "b"),
        basic("nobody", "a"),
        basic("admin", ""),
        "Basic".to_owned(),
        "Basic !!!".to_owned(),
        "Digest YWRtaW46YQ==".to_owned(),
        format!("Bearer {}", token("*", "READ_UPDATE")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_each_call_of_the_controller_needs_is_what_is_documented() {
    use proto::stream_info::AccessOperation;

    let documented: BTreeSet<_> = MATRIX.iter().map(|(name, ..)| *name).collect();
    assert_eq!(documented, Rpc::ALL.iter().map(|rpc| rpc.name()).collect::<BTreeSet<_>>());
    let row = |(name, on, level): (&str, On, Level)| {
        let rpc = Rpc::named(name).unwrap();
        (rpc, message(rpc, "stream"), on.needs(level, "stream"))
    };
    let mut rows: Vec<_> = MATRIX.into_iter().map(row).collect();
    // Whoever says that they are going to write nothing needs less, and so does who makes what a group or a stream is
    // going to be kept in.
    let looking = |access: AccessOperation| proto::StreamInfo {
        scope: "scope".into(),
        stream: "stream".into(),
        access_operation: access.into(),
    };
    let stream_info = Some(looking(AccessOperation::None));
    let head = proto::GetSegmentsRequest { stream_info, timestamp: 0 }.encode_to_vec();
    let mark = [On::Scope.needs(R, "m"), On::Stream.needs(R, "m")].concat();
    rows.extend([
        (Rpc::GetCurrentSegments, looking(AccessOperation::None).encode_to_vec(), On::Stream.needs(R, "stream")),
        (Rpc::GetSegments, head, On::Stream.needs(R, "stream")),
        (Rpc::GetDelegationToken, looking(AccessOperation::Read).encode_to_vec(), On::StreamOrTable.needs(R, "stream")),
        (Rpc::CreateStream, message(Rpc::CreateStream, "_RGg"), On::Group.needs(R, "g")),
        (Rpc::CreateStream, message(Rpc::CreateStream, "_MARKm"), mark),
    ]);

    let mut users = Users::default();
    let rows: Vec<_> = rows.into_iter().map(|(rpc, message, needs)| (rpc, message, users.of(&needs))).collect();
    let (running, _files) = users.start().await;
    let mut client = Grpc::new(running.channel().await);
    let name = |header: &str| users.0.iter().find(|(_, user)| basic(user, "p") == header).map(|(grants, _)| grants);
    let mut wrong = Vec::new();
    for (rpc, message, users) in rows {
        for (header, is_allowed) in users {
            let code = ask(&mut client, rpc, message.clone(), Some(&header)).await.err().map(|status| status.code());
            assert_ne!(code, Some(Code::Unauthenticated), "{rpc:?}");
            if (code != Some(Code::PermissionDenied)) != is_allowed {
                wrong.push(format!("{rpc:?}: {code:?} for a user with {:?}", name(&header)));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_each_route_needs_is_what_is_documented() {
    let documented: BTreeSet<_> = HTTP_MATRIX.iter().map(|(method, path, ..)| (*method, *path)).collect();
    let routes: BTreeSet<_> = HttpRoute::ALL.iter().map(|route| (route.method(), route.path())).collect();
    assert_eq!(documented, routes);
    let mut users = Users::default();
    let rows =
        HTTP_MATRIX.map(|(method, path, on, level)| (method, filled(path), users.of(&on.needs(level, "stream"))));
    let (running, _files) = users.start().await;
    let mut wrong = Vec::new();
    for (method, path, users) in rows {
        for (header, is_allowed) in users {
            let answer = running.http(method, &path, &format!("Authorization: {header}\r\n")).await;
            let status = answer.split(' ').nth(1).unwrap().to_owned();
            assert_ne!(status, "401", "{method} {path}");
            if (status != "403") != is_allowed {
                wrong.push(format!("{method} {path}: {answer}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_of_the_controller_needs_a_grant() {
    let (running, _files) = start(|_| {}).await;
    let level = |rpc: Rpc| MATRIX.iter().find(|(name, ..)| *name == rpc.name()).map(|(_, _, level)| *level);
    for rpc in Rpc::ALL.iter().copied() {
        let code = async |header: Option<&str>| call(&running, rpc, header).await.err().map(|status| status.code());
        let is_open = rpc == Rpc::GetControllerServerList;
        let nobody = code(None).await;
        assert_eq!(nobody, (!is_open).then_some(Code::Unauthenticated), "{rpc:?} without credentials");
        for wrong in wrong_credentials() {
            assert_eq!(code(Some(&wrong)).await, Some(Code::Unauthenticated), "{rpc:?} with {wrong}");
        }
        let other = code(Some(&basic("other", "o"))).await;
        assert_eq!(other == Some(Code::PermissionDenied), !is_open, "{rpc:?} of another scope: {other:?}");
        let reader = code(Some(&basic("reader", "r"))).await;
        let is_change = level(rpc) == Some(RU);
        assert_eq!(reader == Some(Code::PermissionDenied), is_change, "{rpc:?} with READ: {reader:?}");
        // Last of all the one who may; what the calls do to each other does not matter here.
        let admin = code(Some(&basic("admin", "a"))).await;
        assert!(!matches!(admin, Some(Code::PermissionDenied | Code::Unauthenticated)), "{rpc:?}: {admin:?}");
    }
    running.server.stop().await;
}

/// Routes that everybody may ask for.
const OPEN: [&str; 5] = ["/", "/openapi.json", "/ping", "/healthz", "/readyz"];

/// A path of a route, about the scope `scope` and what is called `stream` in it.
fn filled(path: &str) -> String {
    let path = path.replace("{id}", "x").replace("{*name}", "y");
    path.replace("{scope}", "scope").replace("{stream}", "stream").replace("{group}", "stream")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_that_is_not_for_everybody_asks_who_it_is() {
    let (running, _files) = start(|_| {}).await;
    for route in HttpRoute::ALL {
        let path = filled(route.path());
        let status = async |header: &str| {
            let answer = running.http(route.method(), &path, header).await;
            answer.split(' ').nth(1).unwrap().to_owned()
        };
        let as_user = |header: &str| format!("Authorization: {header}\r\n");
        let is_open = OPEN.contains(&route.path());
        assert_eq!(status("").await, if is_open { "200" } else { "401" }, "{route}");
        if !is_open {
            for wrong in wrong_credentials() {
                assert_eq!(status(&as_user(&wrong)).await, "401", "{route} with {wrong}");
            }
            assert_eq!(status(&as_user(&basic("other", "o"))).await, "403", "{route}");
            let reader = status(&as_user(&basic("reader", "r"))).await;
            assert!(reader == "403" || route.method() == "GET" && reader != "401", "{route} with READ: {reader}");
            let admin = status(&as_user(&basic("admin", "a"))).await;
            assert!(!["401", "403"].contains(&admin.as_str()), "{route}: {admin}");
        }
    }
    let reader = format!("Authorization: {}\r\n", basic("reader", "r"));
    assert!(running.http("GET", "/metrics", &reader).await.starts_with("HTTP/1.1 200"));
    assert!(running.http("POST", "/v1/backups", &reader).await.starts_with("HTTP/1.1 403"));
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_change_under_load_and_no_login_fails() {
    let (running, files) = start(|_| {}).await;
    let running = Arc::new(running);
    let stopping = tokio_util::sync::CancellationToken::new();
    let load = tokio::spawn({
        let (running, stopping) = (running.clone(), stopping.clone());
        async move {
            let mut client = running.controller().await;
            let mut calls = 0;
            while !stopping.is_cancelled() || calls < 50 {
                let request = authorized(proto::ScopesRequest::default(), &basic("admin", "a"));
                client.list_scopes(request).await.unwrap();
                calls += 1;
            }
        }
    });
    let (whole, path) = (users(), files.path().join("users"));
    for round in 0..1000 {
        // Cut within a line, which makes no sense; a cut between lines is a file like any other.
        put(&path, &whole[..40 + round % 60]);
        running.server.reload();
        // Now and then it stays like this.
        tokio::time::sleep(Duration::from_millis(if round % 200 == 0 { 300 } else { 2 })).await;
        put(&path, &(whole.clone() + &entry(&format!("user{round}"), "x", &["prn::*,READ"])));
        running.server.reload();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let last = basic("user999", "x");
    tokio::time::timeout(PATIENCE, async {
        while call(&running, Rpc::ListScopes, Some(&last)).await.is_err() {
            running.server.reload();
        }
    })
    .await
    .expect("the last file is taken");
    // Whoever was taken away is out at once, also with a password that was believed a moment ago.
    put(&path, &users());
    tokio::time::timeout(PATIENCE, async {
        while call(&running, Rpc::ListScopes, Some(&last)).await.is_ok() {
            running.server.reload();
        }
    })
    .await
    .expect("the user is gone");
    stopping.cancel();
    load.await.unwrap();
    let admin = format!("Authorization: {}\r\n", basic("admin", "a"));
    let page = running.http("GET", "/metrics", &admin).await;
    let refused = page.lines().find_map(|line| line.strip_prefix("auth_reloads_failed_total ")).unwrap();
    assert!(refused.parse::<u32>().unwrap() > 0, "half of a file was seen and refused");
    assert!(page.lines().any(|line| line.starts_with("auth_refused_total{kind=\"basic\"} ")), "{page}");
    assert!(page.contains("auth_refused_total{kind=\"bearer\"} 0\n") && page.contains("auth_busy_total 0\n"), "{page}");
    Arc::into_inner(running).unwrap().server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_an_issuer_are_believed_and_forgeries_are_not() {
    let (issuer, other) = (Signer::new(), Signer::new());
    let published = format!(r#"{{"keys":[{}]}}"#, issuer.published("k1"));
    let keys = tempfile::tempdir().unwrap();
    put(&keys.path().join("keys.json"), &published);
    let bearer = BearerConfig {
        keys: Some(keys.path().join("keys.json")),
        issuer: Some("https://id.example".to_owned()),
        audience: "pravega-controller".to_owned(),
        claim: Some("realm.grants".to_owned()),
    };
    let (running, _files) = start(|auth| auth.bearer = Some(bearer)).await;
    let header = r#"{"alg":"ES256","kid":"k1"}"#;
    let claims = |from: i64, until: i64, issuer: &str, audience: &str, permissions: &str| {
        format!(
            r#"{{"iss":"{issuer}","aud":["account","{audience}"],"sub":"u","nbf":{from},"exp":{until},{permissions}}}"#
        )
    };
    let now = now();
    let permissions = |level: &str| {
        format!(r#""authorization":{{"permissions":[{{"rsname":"prn::*","rsid":"1","scopes":["{level}"]}}]}}"#)
    };
    let (home, us) = ("https://id.example", "pravega-controller");
    let good = claims(now, now + 300, home, us, &permissions("READ_UPDATE"));
    let code = async |token: &str| {
        let created = call(&running, Rpc::CreateScope, Some(token)).await;
        created.err().map(|status| status.code())
    };
    let allowed = [
        ("Keycloak's permissions", issuer.sign(header, &good)),
        ("no key named", issuer.sign(r#"{"alg":"ES256"}"#, &good)),
        (
            "a claim",
            issuer.sign(header, &claims(now, now + 300, home, us, r#""realm":{"grants":["prn::/,READ_UPDATE"]}"#)),
        ),
    ];
    for (kind, token) in &allowed {
        assert_eq!(code(token).await, None, "{kind}");
    }
    let reader = issuer.sign(header, &claims(now, now + 300, home, us, &permissions("READ")));
    assert_eq!(code(&reader).await, Some(Code::PermissionDenied));
    let nothing = issuer.sign(header, &claims(now, now + 300, home, us, r#""scope":"READ_UPDATE""#));
    assert_eq!(code(&nothing).await, Some(Code::PermissionDenied));

    let hmac_with = |key: &[u8], algorithm: &str| {
        let header = format!(r#"{{"alg":"{algorithm}","kid":"k1"}}"#);
        format!("Bearer {}", signed(&header, &good, key))
    };
    let unsigned = |algorithm: &str| {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{algorithm}","kid":"k1"}}"#));
        format!("Bearer {header}.{}.", URL_SAFE_NO_PAD.encode(&good))
    };
    let point = issuer.point().to_vec();
    let everything = permissions("READ_UPDATE");
    let mut forgeries = vec![
        ("another key", other.sign(header, &good)),
        ("unknown key", issuer.sign(r#"{"alg":"ES256","kid":"k2"}"#, &good)),
        ("expired", issuer.sign(header, &claims(now - 600, now - 60, home, us, &everything))),
        ("not yet", issuer.sign(header, &claims(now + 120, now + 600, home, us, &everything))),
        ("other issuer", issuer.sign(header, &claims(now, now + 300, "https://id.example.evil", us, &everything))),
        ("other audience", issuer.sign(header, &claims(now, now + 300, home, "x", &everything))),
        ("no end", issuer.sign(header, &good.replace("exp", "end"))),
        ("end is text", issuer.sign(header, &good.replace(&format!("\"exp\":{}", now + 300), "\"exp\":\"later\""))),
        ("extension", issuer.sign(r#"{"alg":"ES256","kid":"k1","crit":["x"],"x":1}"#, &good)),
        ("key by address", issuer.sign(r#"{"alg":"ES256","kid":"../../etc/passwd","jku":"http://127.0.0.1/"}"#, &good)),
        ("key in the token", other.sign(&format!(r#"{{"alg":"ES256","jwk":{}}}"#, other.published("k1")), &good)),
        ("too long", issuer.sign(header, &good.replace("\"u\"", &format!("\"{}\"", "u".repeat(8 << 10))))),
        ("delegation token", format!("Bearer {}", token("*", "READ_UPDATE"))),
        ("no token", "Bearer x".to_owned()),
        ("nothing", "Bearer ".to_owned()),
    ];
    // Nothing is wrong with this one, and it is for something else.
    let grants = r#""realm":{"grants":["prn::/scope:other,READ_UPDATE","prn::/scope:other/*,READ_UPDATE"]}"#;
    let elsewhere = issuer.sign(header, &claims(now, now + 300, home, us, grants));
    for rpc in Rpc::ALL.iter().copied() {
        let denied = call(&running, rpc, Some(&elsewhere)).await.err().map(|status| status.code());
        let is_open = rpc == Rpc::GetControllerServerList;
        assert_eq!(denied, (!is_open).then_some(Code::PermissionDenied), "{rpc:?} of another scope");
    }
    for route in HttpRoute::ALL.iter().filter(|route| !OPEN.contains(&route.path())) {
        let header = format!("Authorization: {elsewhere}\r\n");
        let answer = running.http(route.method(), &filled(route.path()), &header).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{route} of another scope: {answer}");
    }
    // What is wrong with a token does not depend on what it is for.
    for (kind, token) in &forgeries {
        for rpc in Rpc::ALL.iter().copied() {
            let refused = call(&running, rpc, Some(token)).await.err().map(|status| status.code());
            assert_eq!(refused, Some(Code::Unauthenticated), "{rpc:?} with {kind}");
        }
        for route in HttpRoute::ALL.iter().filter(|route| !OPEN.contains(&route.path())) {
            let header = format!("Authorization: {token}\r\n");
            let answer = running.http(route.method(), &filled(route.path()), &header).await;
            assert!(answer.starts_with("HTTP/1.1 401"), "{route} with {kind}: {answer}");
        }
    }
    for algorithm in ["HS256", "HS384", "HS512", "RS256", "PS256", "ES384", "EdDSA", "none", "None", "NONE", ""] {
        forgeries.push(("secret is the public key", hmac_with(&point, algorithm)));
        forgeries.push(("secret is the published key", hmac_with(published.as_bytes(), algorithm)));
        forgeries.push(("unsigned", unsigned(algorithm)));
        let header = format!(r#"{{"alg":"{algorithm}","kid":"k1"}}"#);
        forgeries.push(("algorithm renamed", issuer.sign(&header, &good)));
    }
    let whole = issuer.sign(header, &good);
    forgeries.push(("cut", whole[..whole.len() - 4].to_owned()));
    forgeries.push(("changed", whole.replace('.', "..")));
    assert!(forgeries.len() > 40);
    for (kind, token) in &forgeries {
        assert_eq!(code(token).await, Some(Code::Unauthenticated), "{kind}: {token}");
    }

    // Another key takes over; the file is half written for a while.
    let rotated = format!(r#"{{"keys":[{}]}}"#, other.published("k2"));
    put(&keys.path().join("keys.json"), &rotated[..rotated.len() / 2]);
    running.server.reload();
    assert_eq!(code(&allowed[0].1).await, None);
    put(&keys.path().join("keys.json"), &rotated);
    let new = other.sign(r#"{"alg":"ES256","kid":"k2"}"#, &good);
    tokio::time::timeout(PATIENCE, async {
        while code(&new).await.is_some() {
            running.server.reload();
        }
    })
    .await
    .expect("the new key is taken");
    assert_eq!(code(&allowed[0].1).await, Some(Code::Unauthenticated), "the old key is no good any more");
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_asked_of_the_issuer_seldom_and_kept_when_it_is_gone() {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    let (first, second) = (Signer::new(), Signer::new());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let home = format!("http://{}", listener.local_addr().unwrap());
    let published = Arc::new(Mutex::new(format!(r#"{{"keys":[{}]}}"#, first.published("k1"))));
    let asked = Arc::new(AtomicUsize::new(0));
    let about = format!(r#"{{"issuer":"{home}","jwks_uri":"{home}/keys"}}"#);
    let router = axum::Router::new()
        .route("/.well-known/openid-configuration", axum::routing::get(async move || about))
        .route("/keys", {
            let (published, asked) = (published.clone(), asked.clone());
            axum::routing::get(async move || {
                asked.fetch_add(1, Ordering::Relaxed);
                published.lock().unwrap().clone()
            })
        });
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });

    let bearer = BearerConfig {
        keys: None,
        issuer: Some(home.clone()),
        audience: "pravega-controller".to_owned(),
        claim: Some("grants".to_owned()),
    };
    let (running, _files) = start(|auth| auth.bearer = Some(bearer)).await;
    let until = now() + 300;
    let payload = |user: &str| {
        let grants = r#"["prn::*,READ_UPDATE"]"#;
        format!(r#"{{"iss":"{home}","aud":"pravega-controller","sub":"{user}","exp":{until},"grants":{grants}}}"#)
    };
    let signed = |issuer: &Signer, key: &str, user: &str| {
        issuer.sign(&format!(r#"{{"alg":"ES256","kid":"{key}"}}"#), &payload(user))
    };
    let is_allowed = async |token: &str| call(&running, Rpc::ListScopes, Some(token)).await.is_ok();
    assert!(is_allowed(&signed(&first, "k1", "a")).await);
    assert!(is_allowed(&signed(&first, "k1", "b")).await);
    let (before, begun) = (asked.load(Ordering::Relaxed), tokio::time::Instant::now());
    for number in 0..50 {
        assert!(!is_allowed(&signed(&second, "k2", &number.to_string())).await, "a key that nobody published");
    }
    let more = asked.load(Ordering::Relaxed) - before;
    let took = begun.elapsed();
    assert!(more as u64 <= 1 + took.as_secs() / 10, "asked {more} times in {took:?} for 50 tokens with an unknown key");

    // The issuer changes its key: known within the pause between two questions.
    *published.lock().unwrap() = format!(r#"{{"keys":[{}]}}"#, second.published("k2"));
    tokio::time::timeout(PATIENCE, async {
        while !is_allowed(&signed(&second, "k2", "c")).await {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await
    .expect("the new key is asked for");
    serving.abort();
    let _ = serving.await;
    assert!(is_allowed(&signed(&second, "k2", "d")).await, "the issuer is gone, its keys are known");
    assert!(!is_allowed(&signed(&first, "k1", "e")).await);
    running.server.stop().await;
}
