//! Frames of older peers: each trailing field that a later version added may be missing and then has its default.

use bytes::{Bytes, BytesMut};
use headwater_types::WriterId;
use headwater_wire::{AppendCommand, ErrorCode, Event, Reply, Request, Text, Token, TokenFailure, WireError};

use crate::support::{Command, encode_reply};

/// Cuts the last `count` bytes off a frame's payload.
fn shortened(frame: &Bytes, count: usize) -> Bytes {
    let mut frame = BytesMut::from(&frame[..frame.len() - count]);
    let length = (frame.len() - 8) as i32;
    frame[4..8].copy_from_slice(&length.to_be_bytes());
    frame.freeze()
}

/// `command` has only defaults in its optional fields, whose sizes are `tails`, last one first.
#[track_caller]
fn check_command(command: Command, tails: &[usize]) {
    let newest = command.encode().expect("within limits");
    let mut cut = 0;
    for tail in tails {
        for part in 1..*tail {
            let in_field = Command::from_frame(&shortened(&newest, cut + part));
            assert!(matches!(in_field, Err(WireError::Malformed { .. })), "cut inside a field: {in_field:?}");
        }
        cut += tail;
        assert_eq!(Command::from_frame(&shortened(&newest, cut)), Ok(command.clone()), "{cut} bytes cut");
    }
    let required = Command::from_frame(&shortened(&newest, cut + 1));
    assert!(matches!(required, Err(WireError::Malformed { .. })), "the field before is required: {required:?}");
}

#[track_caller]
fn check_reply(reply: Reply, tails: &[usize]) {
    let newest = encode_reply(&reply);
    let mut cut = 0;
    for tail in tails {
        for part in 1..*tail {
            let in_field = Reply::from_frame(&shortened(&newest, cut + part));
            assert!(matches!(in_field, Err(WireError::Malformed { .. })), "cut inside a field: {in_field:?}");
        }
        cut += tail;
        assert_eq!(Reply::from_frame(&shortened(&newest, cut)), Ok(reply.clone()), "{cut} bytes cut");
    }
    let required = Reply::from_frame(&shortened(&newest, cut + 1));
    assert!(matches!(required, Err(WireError::Malformed { .. })), "the field before is required: {required:?}");
}

fn segment() -> Text {
    "s/t/0".into()
}

#[test]
fn requests_of_older_clients() {
    let token = || Token::new("token");
    let request = Command::Request;
    let read =
        Request::ReadSegment { segment: segment(), offset: 1, suggested_length: 2, token: token(), request_id: -1 };
    check_command(request(read), &[8]);
    let create = Request::CreateSegment {
        request_id: 1,
        segment: segment(),
        target_rate: 2,
        scale_type: 1,
        token: token(),
        rollover_bytes: 0,
    };
    check_command(request(create), &[8]);
    let create_table = Request::CreateTableSegment {
        request_id: 1,
        segment: segment(),
        token: token(),
        sorted: false,
        key_length: 0,
        rollover_bytes: 0,
    };
    check_command(request(create_table), &[8, 4, 1]);
    let merge = Request::MergeSegments {
        request_id: 1,
        target: segment(),
        source: segment(),
        token: token(),
        attribute_updates: Vec::new(),
    };
    check_command(request(merge), &[4]);
    let update = Request::UpdateTableEntries {
        request_id: 1,
        segment: segment(),
        token: token(),
        entries: Vec::new(),
        table_offset: -1,
    };
    check_command(request(update), &[8]);
    let remove = Request::RemoveTableKeys {
        request_id: 1,
        segment: segment(),
        token: token(),
        keys: Vec::new(),
        table_offset: -1,
    };
    check_command(request(remove), &[8]);
    let (continuation, empty) = (Bytes::from_static(b"next"), Bytes::new);
    let keys = Request::ReadTableKeys {
        request_id: 1,
        segment: segment(),
        token: token(),
        suggested_count: 10,
        continuation: continuation.clone(),
        prefix: empty(),
        from_key: empty(),
        to_key: empty(),
    };
    check_command(request(keys), &[4, 4, 4]);
    let entries = Request::ReadTableEntries {
        request_id: 1,
        segment: segment(),
        token: token(),
        suggested_count: 10,
        continuation,
        prefix: empty(),
        from_key: empty(),
        to_key: empty(),
    };
    check_command(request(entries), &[4, 4, 4]);
}

#[test]
fn appends_of_older_clients() {
    let writer = WriterId(1);
    let end = AppendCommand::AppendBlockEnd {
        writer,
        whole_bytes: 3,
        data: Bytes::from_static(b"abc"),
        event_count: 1,
        last_event_number: 1,
        request_id: -1,
    };
    check_command(Command::Append(end), &[8]);
    let conditional = AppendCommand::ConditionalAppend {
        writer,
        event_number: 1,
        expected_offset: 0,
        event: Event::new(b"abc").expect("small"),
        request_id: -1,
    };
    check_command(Command::Append(conditional), &[8]);
    // The request id of the newer of the two conditional commands was there from its beginning.
    let raw = AppendCommand::ConditionalBlockEnd {
        writer,
        event_number: 1,
        expected_offset: 0,
        data: Bytes::from_static(b"abc"),
        request_id: -1,
    };
    check_command(Command::Append(raw), &[]);
}

#[test]
fn replies_of_older_servers() {
    let (writer, request_id, trace) = (WriterId(1), 1, Text::default);
    check_reply(
        Reply::DataAppended { writer, event_number: 1, previous_event_number: -1, request_id: -1, segment_length: -1 },
        &[8, 8, 8],
    );
    check_reply(Reply::ConditionalCheckFailed { writer, event_number: 1, request_id: -1 }, &[8]);
    check_reply(
        Reply::SegmentRead {
            segment: segment(),
            offset: 0,
            at_tail: true,
            end_of_segment: false,
            data: Bytes::from_static(b"abc"),
            request_id: -1,
        },
        &[8],
    );
    check_reply(
        Reply::StreamSegmentInfo {
            request_id,
            segment: segment(),
            exists: true,
            sealed: true,
            deleted: false,
            last_modified: 1,
            write_offset: 2,
            start_offset: 0,
        },
        &[8],
    );
    check_reply(Reply::WrongHost { request_id, segment: segment(), correct_host: "host".into(), trace: trace() }, &[2]);
    check_reply(Reply::SegmentIsSealed { request_id, segment: segment(), trace: trace(), offset: -1 }, &[8, 2]);
    check_reply(Reply::SegmentAlreadyExists { request_id, segment: segment(), trace: trace() }, &[2]);
    check_reply(Reply::NoSuchSegment { request_id, segment: segment(), trace: trace(), offset: -1 }, &[8, 2]);
    check_reply(Reply::InvalidEventNumber { writer, request_id, trace: trace(), event_number: -1 }, &[8, 2]);
    check_reply(
        Reply::SegmentIsTruncated { request_id, segment: segment(), start_offset: 9, trace: trace(), offset: -1 },
        &[8, 2],
    );
    check_reply(Reply::OperationUnsupported { request_id, operation: "merge".into(), trace: trace() }, &[2]);
    check_reply(Reply::SegmentsMerged { request_id, target: segment(), source: segment(), target_length: -1 }, &[8]);
    check_reply(
        Reply::AuthTokenCheckFailed { request_id, trace: trace(), failure: TokenFailure::Unspecified },
        &[4, 2],
    );
    // No default: the stack trace of the table failures, and both texts and the code of the error message.
    check_reply(Reply::TableKeyBadVersion { request_id, segment: segment(), trace: trace() }, &[]);
    check_reply(Reply::TableKeyDoesNotExist { request_id, segment: segment(), trace: trace() }, &[]);
    check_reply(Reply::TableSegmentNotEmpty { request_id, segment: segment(), trace: trace() }, &[]);
    let code = ErrorCode::Unspecified;
    check_reply(Reply::ErrorMessage { request_id, segment: segment(), message: "no".into(), code }, &[]);
}
