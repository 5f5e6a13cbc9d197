//! Every call of the controller with messages that no client sends: without fields, with fields of other types, with
//! numbers and texts that mean nothing, cut off anywhere. It is always the caller's mistake, and said to be.

use headwater_auth::Rpc;
use headwater_proto::controller as proto;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::auth::{Raw, message};
use crate::server::Running;

/// Codes that a client does not try again on, or that name a limit. Anything else would be the server's failure.
const THEIRS: [Code; 6] = [
    Code::InvalidArgument,
    Code::NotFound,
    Code::FailedPrecondition,
    Code::OutOfRange,
    Code::AlreadyExists,
    Code::ResourceExhausted,
];

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

fn parts(bytes: &[u8]) -> Option<Vec<Part>> {
    let number = |at: &mut usize| {
        let mut value = 0_u64;
        for shift in 0..9 {
            let byte = *bytes.get(*at)?;
            *at += 1;
            value |= u64::from(byte & 0x7f) << (shift * 7);
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    };
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

/// Calls that leave less behind come first.
fn order(rpc: Rpc) -> u8 {
    let name = rpc.name();
    match name {
        _ if name.starts_with("deleteScope") => 4,
        _ if name.starts_with("delete") => 3,
        "sealStream" => 2,
        "truncateStream" | "scale" | "updateStream" => 1,
        _ => 0,
    }
}

async fn call(client: &mut Grpc<Channel>, rpc: Rpc, bytes: Vec<u8>) -> Code {
    client.ready().await.unwrap();
    let path = format!("/io.pravega.controller.stream.api.grpc.v1.ControllerService/{}", rpc.name());
    client
        .unary(Request::new(bytes), path.parse().unwrap(), Raw)
        .await
        .map_or_else(|status| status.code(), |_| Code::Ok)
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
    let mut calls = 0;
    for rpc in rpcs {
        let good = message(rpc, "stream");
        let mut cases = vec![Vec::new(), good.clone(), vec![0xff; 64]];
        cases.extend((1..good.len()).map(|cut| good[..cut].to_vec()));
        cases.extend(spoilt(&good, 5, 2));
        cases.extend(values(11).into_iter().map(|value| [&good[..], &value].concat()));
        for case in cases {
            let code = call(&mut client, rpc, case.clone()).await;
            calls += 1;
            let shown = &case[..case.len().min(200)];
            assert!(code == Code::Ok || THEIRS.contains(&code), "{} answers {code:?} to {shown:02x?}", rpc.name());
        }
    }
    assert!(calls > 5000, "{calls} calls");
    // It is none the worse for it.
    let created = controller.create_scope(proto::ScopeInfo { scope: "after".into() }).await.unwrap().into_inner();
    assert_eq!(created.status(), proto::create_scope_status::Status::Success);
    running.server.stop().await;
}
