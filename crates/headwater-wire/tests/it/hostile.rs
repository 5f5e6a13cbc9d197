//! Bytes that no client or server would send: a typed error, no panic, and nothing held that was not sent.

use bytes::{Bytes, BytesMut};
use expect_test::{Expect, expect};
use headwater_wire::{
    AppendCommand, EncodeError, LIST_ITEMS_MAX, Malformed, Reply, Request, SERVER_FRAME_BYTES_MAX, ServerEvent,
    SessionCommand, TableKey, Text, Token, WireError,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::samples::{any_command, any_reply, some_commands, some_replies};
use crate::support::{
    Command, SEG, W, encode_reply, hello, receive, receive_cut_everywhere, serve, serve_cut_everywhere, set_up, unhex,
};

/// A header that announces `length` bytes of payload.
fn header(code: i32, length: i32) -> Vec<u8> {
    [code.to_be_bytes(), length.to_be_bytes()].concat()
}

fn frame(code: i32, payload: &[u8]) -> Bytes {
    [header(code, payload.len() as i32), payload.to_vec()].concat().into()
}

fn code_of(frame: &[u8]) -> i32 {
    i32::from_be_bytes(frame[..4].try_into().expect("four bytes"))
}

/// Last field of these is "the rest of the frame", so that any shorter frame is another good one.
fn ends_with_the_rest(command: &Command) -> bool {
    matches!(command, Command::Append(AppendCommand::Padding { .. } | AppendCommand::AppendBlock { .. }))
}

#[test]
fn a_frame_without_its_fields_is_refused() {
    for command in some_commands() {
        let code = code_of(&command.encode().expect("within limits"));
        let result = serve_cut_everywhere(&frame(code, b"")).1;
        if matches!(
            command,
            Command::Session(SessionCommand::KeepAlive) | Command::Append(AppendCommand::Padding { .. })
        ) {
            assert_eq!(result, Ok(8));
        } else {
            let short = matches!(result, Err(WireError::Malformed { reason: Malformed::Short { left: 0, .. }, .. }));
            assert!(short, "{command:?}: {result:?}");
        }
    }
    for reply in some_replies() {
        let result = receive_cut_everywhere(&frame(reply.code(), b"")).1;
        let refused = matches!(result, Err(WireError::Malformed { reason: Malformed::Short { left: 0, .. }, .. }));
        assert!(refused || reply == Reply::KeepAlive, "{reply:?}: {result:?}");
    }
}

#[test]
fn a_frame_that_lacks_its_last_byte_is_refused() {
    for command in some_commands() {
        let whole = command.encode().expect("within limits");
        if whole.len() == 8 || ends_with_the_rest(&command) {
            continue;
        }
        let short = frame(code_of(&whole), &whole[8..whole.len() - 1]);
        let result = serve(&[&hello(), &set_up(W, SEG), &short]).1;
        assert!(matches!(result, Err(WireError::Malformed { .. })), "{command:?}: {result:?}");
    }
    for reply in some_replies() {
        let whole = encode_reply(&reply);
        if whole.len() > 8 {
            let result = receive(&[&hello(), &frame(reply.code(), &whole[8..whole.len() - 1])]).1;
            assert!(matches!(result, Err(WireError::Malformed { .. })), "{reply:?}: {result:?}");
        }
    }
}

#[test]
fn nothing_but_hello_may_come_first() {
    for command in some_commands() {
        let first = command.encode().expect("within limits");
        let code = code_of(&first);
        if !matches!(command, Command::Session(SessionCommand::Hello { .. })) {
            assert_eq!(serve(&[&first[..8]]), (vec![], Err(WireError::HelloMissing { code })), "by its header alone");
        }
    }
    for reply in some_replies() {
        if !matches!(reply, Reply::Hello { .. }) {
            let refused = receive(&[&encode_reply(&reply)[..8]]);
            assert_eq!(refused, (vec![], Err(WireError::HelloMissing { code: reply.code() })));
        }
    }
}

#[test]
fn what_only_the_other_side_may_say_is_refused() {
    let mut refused = 0;
    for code in -200..200 {
        let known = [SessionCommand::CODES, AppendCommand::CODES, Request::CODES].concat();
        if !known.iter().any(|(one, _)| *one == code) {
            let result = serve(&[&hello(), &header(code, 100)]).1;
            assert_eq!(result, Err(WireError::UnexpectedCommand { code }), "by its header alone");
            refused += 1;
        }
        if !Reply::CODES.iter().any(|(one, _)| *one == code) {
            let result = receive(&[&hello(), &header(code, 100)]).1;
            assert_eq!(result, Err(WireError::UnexpectedCommand { code }), "by its header alone");
        }
    }
    assert_eq!(refused, 400 - 2 - 6 - 24, "all but the commands of clients");
}

/// Overwrites the beginning of every segment name and token of the samples.
#[test]
fn text_that_is_not_utf_8_is_refused() {
    let mut refused = 0;
    for command in some_commands() {
        let texts = match &command {
            Command::Append(AppendCommand::SetupAppend { segment, token, .. }) => vec![&**segment, token.as_str()],
            Command::Request(request) => {
                request.segment().into_iter().map(|segment| &**segment).chain([request.token().as_str()]).collect()
            }
            Command::Session(_) | Command::Append(_) => vec![],
        };
        let whole = command.encode().expect("within limits");
        for text in texts.into_iter().filter(|text| (3..10_000).contains(&text.len())) {
            let field = [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat();
            let at = whole.windows(field.len()).position(|window| window == field).expect("the text is in the frame");
            // A byte that UTF-8 never has, Java's U+0000, and half of what Java writes for one above U+FFFF.
            for bad in [&b"\xff"[..], b"\xc0\x80", b"\xed\xa0\x80"] {
                let mut damaged = whole.to_vec();
                damaged[at + 2..at + 2 + bad.len()].copy_from_slice(bad);
                let result = serve(&[&hello(), &set_up(W, SEG), &damaged]).1;
                let expected = matches!(result, Err(WireError::Malformed { reason: Malformed::NotUtf8, .. }));
                assert!(expected, "{command:?}: {result:?}");
                refused += 1;
            }
        }
    }
    assert!(refused > 500, "{refused} texts tried");
}

/// Every inner length and count of the requests, by where it stands in a frame of the shortest texts.
#[test]
fn inner_lengths_and_counts_are_compared_with_what_is_left() {
    // Request id, empty segment name, empty token.
    const AFTER_TOKEN: usize = 8 + 2 + 2;
    let key = "0000000d 00000001 6b 0000000000000000";
    let value = "00000005 00000001 76";
    let id = "0000000000000005";
    let empty = "00000000";
    let writer = "000102030405060708090a0b0c0d0e0f";
    let cases = [
        ("MergeSegments.attribute_updates", 58, format!("{id} 0000 0000 0000 00000000"), AFTER_TOKEN + 2),
        ("MergeSegmentsBatch.sources", 90, format!("{id} 0000 00000000 0000"), 8 + 2),
        ("UpdateTableEntries.entries", 74, format!("{id} 0000 0000 00000001 {key} {value} {id}"), AFTER_TOKEN),
        ("UpdateTableEntries key size", 74, format!("{id} 0000 0000 00000001 {key} {value} {id}"), AFTER_TOKEN + 4),
        ("UpdateTableEntries key", 74, format!("{id} 0000 0000 00000001 {key} {value} {id}"), AFTER_TOKEN + 8),
        ("UpdateTableEntries value size", 74, format!("{id} 0000 0000 00000001 {key} {value} {id}"), AFTER_TOKEN + 21),
        ("UpdateTableEntries value", 74, format!("{id} 0000 0000 00000001 {key} {value} {id}"), AFTER_TOKEN + 25),
        ("RemoveTableKeys.keys", 76, format!("{id} 0000 0000 00000001 {key} {id}"), AFTER_TOKEN),
        ("RemoveTableKeys key size", 76, format!("{id} 0000 0000 00000001 {key} {id}"), AFTER_TOKEN + 4),
        ("RemoveTableKeys key", 76, format!("{id} 0000 0000 00000001 {key} {id}"), AFTER_TOKEN + 8),
        ("ReadTable.keys", 78, format!("{id} 0000 0000 00000001 {key}"), AFTER_TOKEN),
        ("ReadTable key size", 78, format!("{id} 0000 0000 00000001 {key}"), AFTER_TOKEN + 4),
        ("ReadTable key", 78, format!("{id} 0000 0000 00000001 {key}"), AFTER_TOKEN + 8),
        ("ReadTableKeys.continuation", 83, format!("{id} 0000 0000 0000000a 00000000"), AFTER_TOKEN + 4),
        ("ReadTableKeys.prefix", 83, format!("{id} 0000 0000 0000000a 00000000 00000000"), AFTER_TOKEN + 8),
        ("ReadTableKeys.from_key", 83, format!("{id} 0000 0000 0000000a {empty} {empty} {empty}"), AFTER_TOKEN + 12),
        (
            "ReadTableKeys.to_key",
            83,
            format!("{id} 0000 0000 0000000a {empty} {empty} {empty} {empty}"),
            AFTER_TOKEN + 16,
        ),
        ("ReadTableEntries.continuation", 85, format!("{id} 0000 0000 0000000a 00000000"), AFTER_TOKEN + 4),
        ("ReadTableEntries.prefix", 85, format!("{id} 0000 0000 0000000a 00000000 00000000"), AFTER_TOKEN + 8),
        ("AppendBlockEnd.data", 4, format!("{writer} 00000001 00000001 78 00000001 {id} {id}"), 20),
        ("ConditionalAppend.event", 5, format!("{writer} {id} {id} 00000000 00000001 78 {id}"), 36),
        ("ConditionalBlockEnd.data", 89, format!("{writer} {id} {id} 00000001 78 {id}"), 32),
    ];
    for (name, code, payload, at) in cases {
        let mut payload = unhex(&payload).to_vec();
        let good = serve(&[&hello(), &set_up(W, SEG), &frame(code, &payload)]).1;
        assert_eq!(good, Ok(8), "{name} as it should be");
        for bad in [-1, i32::MIN, i32::MAX, 0x00FF_FFFF, payload.len() as i32] {
            payload[at..at + 4].copy_from_slice(&bad.to_be_bytes());
            let result = serve(&[&hello(), &set_up(W, SEG), &frame(code, &payload)]).1;
            assert!(matches!(result, Err(WireError::Malformed { .. })), "{name} = {bad}: {result:?}");
        }
    }
}

#[track_caller]
fn check_refused(bytes: &[u8], expect: Expect) {
    let text = serve_cut_everywhere(bytes).1.expect_err("refused").to_string();
    expect.assert_eq(&text);
}

#[test]
fn refusals_say_what_is_wrong() {
    let key = |size: &str, rest: &str| frame(78, &unhex(&format!("0000000000000005 0000 0000 00000001 {size} {rest}")));
    check_refused(&key("0000000c", "00000000 0000000000000000 00"), expect!["ReadTable, field keys: empty table key"]);
    check_refused(
        &key("0000000e", "00000001 6b 0000000000000000"),
        expect!["ReadTable, field keys: inner size 14, contents need 13"],
    );
    check_refused(&key("0000000d", ""), expect!["ReadTable, field keys: list of 1 items"]);
    check_refused(
        &frame(5, &unhex("000102030405060708090a0b0c0d0e0f 0000000000000001 0000000000000000 00000001 00000000")),
        expect!["ConditionalAppend, field event: nested command code 1 is not an event"],
    );
    check_refused(
        &frame(28, &unhex("0000000000000005 0005 61626364")),
        expect!["SealSegment, field segment: 5 bytes needed, 4 left"],
    );
    check_refused(
        &frame(28, &unhex("0000000000000005 0001 ff 0000")),
        expect!["SealSegment, field segment: text is not utf-8"],
    );
    check_refused(&header(9, -1), expect!["frame of negative length -1"]);
    check_refused(&header(9, i32::MIN), expect!["frame of negative length -2147483648"]);
    check_refused(&header(6, 0), expect!["unexpected command code 6"]);
    check_refused(&header(-2, 0), expect!["unexpected command code -2"]);
}

#[test]
fn a_frame_above_the_limit_is_refused_before_its_bytes_arrive() {
    let limit = SERVER_FRAME_BYTES_MAX;
    let announced = |payload: i32| serve(&[&hello(), &header(4, payload)]).1;
    assert_eq!(announced(16_777_207), Ok(16_777_207), "all of it is wanted");
    assert_eq!(announced(16_777_208), Err(WireError::FrameTooLong { bytes: 16_777_216, limit }));
    assert_eq!(announced(i32::MAX), Err(WireError::FrameTooLong { bytes: 0x8000_0007, limit }));
    // Clients accept 8 bytes more: there the limit counts the payload alone.
    let announced = |payload: i32| receive(&[&hello(), &header(10, payload)]).1;
    assert_eq!(announced(16_777_215), Ok(16_777_215));
    assert_eq!(announced(16_777_216), Err(WireError::FrameTooLong { bytes: 16_777_224, limit: 16_777_223 }));
    // Before hello nobody makes us hold more than a little.
    let bytes = 8 + 16_000;
    assert_eq!(serve(&[&header(-127, 16_000)]).1, Err(WireError::FrameTooLong { bytes, limit: 1024 }));
    assert_eq!(receive(&[&header(-127, 16_000)]).1, Err(WireError::FrameTooLong { bytes, limit: 1024 }));
}

#[test]
fn peers_without_a_version_in_common_part_after_hello() {
    let hello_of = |high: i32, low: i32| frame(-127, &[high.to_be_bytes(), low.to_be_bytes()].concat());
    let keep_alive = unhex("00000064 00000000");
    for (high, low, fits) in
        [(17, 5, true), (15, 5, true), (5, 1, true), (99, 17, true), (4, 1, false), (99, 18, false), (17, 5, true)]
    {
        let (events, end) = serve(&[&hello_of(high, low), &keep_alive]);
        let (high_version, low_version) = (high, low);
        let (replies, client_end) = receive(&[&hello_of(high, low), &keep_alive]);
        if fits {
            let hello = ServerEvent::Hello { high_version, low_version };
            assert_eq!((events, end), (vec![hello, ServerEvent::KeepAlive], Ok(8)));
            assert_eq!(
                (replies, client_end),
                (vec![Reply::Hello { high_version, low_version }, Reply::KeepAlive], Ok(8))
            );
        } else {
            let error = Err(WireError::VersionsDoNotOverlap { low, high });
            assert_eq!((events, end), (vec![ServerEvent::Incompatible { high_version, low_version }], error.clone()));
            assert_eq!((replies, client_end), (vec![], error));
        }
    }
    // A second hello is answered like the first one.
    let (events, end) = serve(&[&hello_of(17, 5), &hello_of(16, 5), &keep_alive]);
    assert_eq!((events.len(), end), (3, Ok(8)));
    assert!(serve(&[&hello_of(17, 5), &hello_of(3, 1), &keep_alive]).1.is_err());
}

#[test]
fn a_hello_and_what_is_right_behind_it_arrive_in_any_cuts() {
    let read = unhex(
        "00000009 0000002f 001773636f70652f73747265616d2f302e2365706f63682e3000000000000000
                      1c0004000000000000000200000000",
    );
    let bytes = [hello(), read].concat();
    let (events, end) = serve(&[&bytes]);
    assert_eq!((events.len(), &end), (2, &Ok(8)));
    for cut in 1..bytes.len() {
        assert_eq!(serve(&[&bytes[..cut], &bytes[cut..]]), (events.clone(), end.clone()), "cut at {cut}");
    }
    let single: Vec<_> = bytes.chunks(1).collect();
    assert_eq!(serve(&single), (events, end));
}

#[test]
fn the_client_end_sends_nothing_that_the_server_is_too_old_for() {
    let locate =
        Request::LocateOffset { request_id: 1, segment: SEG.into(), target_offset: 0, token: Token::default() };
    let send_to = |high: i32| {
        let mut out = BytesMut::new();
        let mut client = headwater_wire::ClientEnd::connect(&mut out);
        let server_hello = frame(-127, &[high.to_be_bytes(), 5_i32.to_be_bytes()].concat());
        client.next_reply(&mut BytesMut::from(&server_hello[..])).expect("versions overlap");
        assert_eq!(client.agreed_version(), Some(high.min(17)));
        client.request(&locate, &mut out)
    };
    assert_eq!(send_to(99), Ok(()));
    assert_eq!(send_to(17), Ok(()));
    assert_eq!(send_to(16), Err(EncodeError::Version { command: "LocateOffset", needed: 17, agreed: Some(16) }));
}

#[test]
fn what_cannot_be_encoded_leaves_the_output_as_it_was() {
    let segment = Text::from("s");
    let key = TableKey { key: Bytes::from_static(b"k"), version: 0 };
    let read = |data: usize| Reply::SegmentRead {
        segment: segment.clone(),
        offset: 0,
        at_tail: false,
        end_of_segment: false,
        data: Bytes::from(vec![0; data]),
        request_id: 1,
    };
    let fixed = 2 + 1 + 8 + 1 + 1 + 4 + 8;
    let cases = [
        (read(16_777_216 - fixed), EncodeError::FrameTooLong { bytes: 16_777_216, limit: 16_777_215 }),
        (
            Reply::SegmentSealed { request_id: 1, segment: "s".repeat(65_536).into() },
            EncodeError::TextTooLong { bytes: 65_536 },
        ),
        (
            Reply::TableKeysRead {
                request_id: 1,
                segment: segment.clone(),
                keys: vec![key.clone(), TableKey { key: Bytes::new(), version: 0 }],
                continuation: Bytes::new(),
            },
            EncodeError::EmptyKey,
        ),
        (
            Reply::TableEntriesUpdated { request_id: 1, versions: vec![0; LIST_ITEMS_MAX + 1] },
            EncodeError::TooManyItems { count: LIST_ITEMS_MAX + 1 },
        ),
    ];
    for (reply, error) in cases {
        let mut out = BytesMut::from("before");
        assert_eq!(reply.encode(&mut out), Err(error));
        assert_eq!(out, "before");
    }
    let largest = encode_reply(&read(16_777_215 - fixed));
    assert_eq!(receive(&[&hello(), &largest]).0.len(), 2);
    let many = encode_reply(&Reply::TableEntriesUpdated { request_id: 1, versions: vec![0; LIST_ITEMS_MAX] });
    assert_eq!(receive(&[&hello(), &many]).0.len(), 2);
    let mut more = many.to_vec();
    more.extend_from_slice(&[0; 8]);
    let length = (more.len() - 8) as i32;
    more[4..8].copy_from_slice(&length.to_be_bytes());
    more[16..20].copy_from_slice(&(LIST_ITEMS_MAX as i32 + 1).to_be_bytes());
    assert!(matches!(
        receive(&[&hello(), &more]).1,
        Err(WireError::Malformed { reason: Malformed::TooManyItems { .. }, .. })
    ));
}

/// Where the only byte string of a request lies, and how large a piece of memory it keeps alive.
fn kept_alive(request: &Bytes) -> usize {
    let (events, end) = serve(&[&hello(), request]);
    assert_eq!(end, Ok(8));
    let mut events = events.into_iter();
    let bytes = match events.nth(1) {
        Some(ServerEvent::Request(Request::ReadTable { mut keys, .. })) => keys.remove(0).key,
        Some(ServerEvent::Request(Request::UpdateTableEntries { mut entries, .. })) => entries.remove(0).value,
        Some(ServerEvent::Request(Request::ReadTableKeys { continuation, .. })) => continuation,
        other => panic!("{other:?}"),
    };
    assert_eq!(bytes, "k");
    bytes.try_into_mut().expect("nobody else has it").capacity()
}

#[test]
fn a_request_does_not_keep_alive_what_stood_beside_it_in_its_frame() {
    let (id, key) = (unhex("0000000000000005"), unhex("0000000d 00000001 6b 0000000000000000"));
    let long_token = [&2000_u16.to_be_bytes()[..], &[b't'; 2000]].concat();
    for ballast in [1_500, 100_000, 1 << 20] {
        let behind = vec![0; ballast];
        let get = [&id[..], &[0; 4], &1_i32.to_be_bytes(), &key, &behind].concat();
        let put = [&id[..], &[0; 4], &1_i32.to_be_bytes(), &key, &unhex("00000005 00000001 6b"), &id, &behind].concat();
        let page = [&id[..], &[0; 4], &9_i32.to_be_bytes(), &1_i32.to_be_bytes(), b"k"].concat();
        let retired = [&page[..], &(ballast as i32).to_be_bytes(), &behind].concat();
        let with_token = [&id[..], &[0; 2], &long_token, &1_i32.to_be_bytes(), &key].concat();
        for (code, payload) in [(78, get), (74, put), (83, retired), (78, with_token)] {
            let kept = kept_alive(&frame(code, &payload));
            assert!(kept <= 1024, "one byte keeps {kept} alive, with {ballast} beside it in a frame of {code}");
        }
    }
}

/// Good frames with some bytes overwritten, inserted or left out.
fn damaged(good: Bytes, damage: Vec<(usize, u8, u8)>) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for (at, kind, byte) in damage {
        let at = at % bytes.len().max(1);
        match kind % 3 {
            0 if at < bytes.len() => bytes[at] = byte,
            1 if at < bytes.len() => drop(bytes.remove(at)),
            _ => bytes.insert(at, byte),
        }
    }
    bytes
}

fn damage() -> impl Strategy<Value = Vec<(usize, u8, u8)>> {
    // Most damage near the front, where codes, lengths and counts are.
    vec((prop_oneof![0_usize..64, any::<usize>()], any::<u8>(), prop_oneof![any::<u8>(), Just(0), Just(255)]), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..300)) {
        crate::fuzz::fuzz_server(&bytes);
        crate::fuzz::fuzz_client(&bytes);
    }

    #[test]
    fn damaged_frames_do_no_harm(
        commands in vec(any_command(), 1..4),
        replies in vec(any_reply(), 1..4),
        damage in damage(),
    ) {
        let sent: Vec<u8> = commands.iter().flat_map(|command| command.encode().expect("within limits")).collect();
        crate::fuzz::fuzz_server(&[&[1], &damaged(sent.into(), damage.clone())[..]].concat());
        let sent: Vec<u8> = replies.iter().flat_map(encode_reply).collect();
        crate::fuzz::fuzz_client(&[&[1], &damaged(sent.into(), damage)[..]].concat());
    }
}
