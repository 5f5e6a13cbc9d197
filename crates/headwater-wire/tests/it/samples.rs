//! One strategy per command, in both directions, and a fixed sample of each.

use bytes::{Bytes, BytesMut};
use headwater_types::{AttributeId, WriterId};
use headwater_wire::{
    AppendCommand, AttributeUpdate, ChunkInfo, ErrorCode, Event, FrameQueue, MergedSource, Reply, Request, Rest,
    SessionCommand, TableEntry, TableKey, Text, Token, TokenFailure,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

use crate::support::Command;

/// `command!(Request::X { field: strategy, … })` is a strategy for that command.
macro_rules! command {
    ($set:ident :: $command:ident { $($field:ident : $strategy:expr),* $(,)? }) => {
        ($($strategy,)*).prop_map(|($($field,)*)| $set::$command { $($field),* }).boxed()
    };
}

fn i8s() -> impl Strategy<Value = i8> {
    any::<i8>()
}
fn i32s() -> impl Strategy<Value = i32> {
    prop_oneof![any::<i32>(), Just(i32::MIN), Just(-1), Just(0), Just(i32::MAX)]
}
fn i64s() -> impl Strategy<Value = i64> {
    prop_oneof![any::<i64>(), Just(i64::MIN), Just(-1), Just(0), Just(i64::MAX)]
}
fn bools() -> impl Strategy<Value = bool> {
    any::<bool>()
}
fn text() -> impl Strategy<Value = Text> {
    prop_oneof![8 => "[ -~]{0,40}", 1 => ".{0,8}", 1 => Just("long".repeat(16_383))].prop_map(Text::from)
}
fn token() -> impl Strategy<Value = Token> {
    text().prop_map(Token::new)
}
fn writer() -> impl Strategy<Value = WriterId> {
    any::<u128>().prop_map(WriterId)
}
fn attribute() -> impl Strategy<Value = AttributeId> {
    any::<u128>().prop_map(AttributeId)
}
fn bytes() -> impl Strategy<Value = Bytes> {
    let large = (any::<u8>(), 4000_usize..40_000).prop_map(|(byte, count)| Bytes::from(vec![byte; count]));
    prop_oneof![4 => vec(any::<u8>(), 0..60).prop_map(Bytes::from), 1 => large]
}
fn event() -> impl Strategy<Value = Event> {
    bytes().prop_map(|payload| Event::new(&payload).expect("a small event"))
}
fn key() -> impl Strategy<Value = TableKey> {
    (vec(any::<u8>(), 1..40), i64s()).prop_map(|(key, version)| TableKey { key: key.into(), version })
}
fn keys() -> impl Strategy<Value = Vec<TableKey>> {
    vec(key(), 0..6)
}
fn entries() -> impl Strategy<Value = Vec<TableEntry>> {
    vec((key(), bytes()).prop_map(|(key, value)| TableEntry { key, value }), 0..6)
}
fn updates() -> impl Strategy<Value = Vec<AttributeUpdate>> {
    let update = (attribute(), i8s(), i64s(), i64s()).prop_map(|(attribute, update_type, new_value, old_value)| {
        AttributeUpdate { attribute, update_type, new_value, old_value }
    });
    vec(update, 0..4)
}
fn merged() -> impl Strategy<Value = Vec<MergedSource>> {
    vec((text(), i64s()).prop_map(|(source, target_length)| MergedSource { source, target_length }), 0..4)
}
fn chunks() -> impl Strategy<Value = Vec<ChunkInfo>> {
    let chunk = (i64s(), i64s(), i64s(), text(), bools()).prop_map(
        |(length_in_metadata, length_in_storage, start_offset, chunk_name, exists_in_storage)| ChunkInfo {
            length_in_metadata,
            length_in_storage,
            start_offset,
            chunk_name,
            exists_in_storage,
        },
    );
    vec(chunk, 0..4)
}
fn token_failure() -> impl Strategy<Value = TokenFailure> {
    prop_oneof![Just(TokenFailure::Unspecified), Just(TokenFailure::Refused), Just(TokenFailure::Expired)]
}
fn error_code() -> impl Strategy<Value = ErrorCode> {
    prop_oneof![Just(ErrorCode::Unspecified), Just(ErrorCode::IllegalArgument)]
}

/// One strategy per session command.
fn session_commands() -> Vec<BoxedStrategy<SessionCommand>> {
    vec![
        command!(SessionCommand::Hello { high_version: i32s(), low_version: i32s() }),
        Just(SessionCommand::KeepAlive).boxed(),
    ]
}

/// One strategy per append command.
fn append_commands() -> Vec<BoxedStrategy<AppendCommand>> {
    vec![
        command!(AppendCommand::Padding { zeros: bytes().prop_map(Rest) }),
        command!(AppendCommand::SetupAppend { request_id: i64s(), writer: writer(), segment: text(), token: token() }),
        command!(AppendCommand::AppendBlock { writer: writer(), data: bytes().prop_map(Rest) }),
        command!(AppendCommand::AppendBlockEnd {
            writer: writer(),
            whole_bytes: i32s(),
            data: bytes(),
            event_count: i32s(),
            last_event_number: i64s(),
            request_id: i64s(),
        }),
        command!(AppendCommand::ConditionalAppend {
            writer: writer(),
            event_number: i64s(),
            expected_offset: i64s(),
            event: event(),
            request_id: i64s(),
        }),
        command!(AppendCommand::ConditionalBlockEnd {
            writer: writer(),
            event_number: i64s(),
            expected_offset: i64s(),
            data: bytes(),
            request_id: i64s(),
        }),
    ]
}

/// One strategy per request.
fn requests() -> Vec<BoxedStrategy<Request>> {
    vec![
        command!(Request::ListStorageChunks { segment: text(), token: token(), request_id: i64s() }),
        command!(Request::FlushToStorage { container_id: i32s(), token: token(), request_id: i64s() }),
        command!(Request::ReadSegment {
            segment: text(),
            offset: i64s(),
            suggested_length: i32s(),
            token: token(),
            request_id: i64s(),
        }),
        command!(Request::GetStreamSegmentInfo { request_id: i64s(), segment: text(), token: token() }),
        command!(Request::CreateSegment {
            request_id: i64s(),
            segment: text(),
            target_rate: i32s(),
            scale_type: i8s(),
            token: token(),
            rollover_bytes: i64s(),
        }),
        command!(Request::SealSegment { request_id: i64s(), segment: text(), token: token() }),
        command!(Request::DeleteSegment { request_id: i64s(), segment: text(), token: token() }),
        command!(Request::UpdateSegmentPolicy {
            request_id: i64s(),
            segment: text(),
            target_rate: i32s(),
            scale_type: i8s(),
            token: token(),
        }),
        command!(Request::GetSegmentAttribute {
            request_id: i64s(),
            segment: text(),
            attribute: attribute(),
            token: token(),
        }),
        command!(Request::UpdateSegmentAttribute {
            request_id: i64s(),
            segment: text(),
            attribute: attribute(),
            new_value: i64s(),
            expected_value: i64s(),
            token: token(),
        }),
        command!(Request::TruncateSegment {
            request_id: i64s(),
            segment: text(),
            truncation_offset: i64s(),
            token: token(),
        }),
        command!(Request::CreateTransientSegment {
            request_id: i64s(),
            writer: writer(),
            parent: text(),
            token: token(),
        }),
        command!(Request::LocateOffset { request_id: i64s(), segment: text(), target_offset: i64s(), token: token() }),
        command!(Request::MergeSegments {
            request_id: i64s(),
            target: text(),
            source: text(),
            token: token(),
            attribute_updates: updates(),
        }),
        command!(Request::GetTableSegmentInfo { request_id: i64s(), segment: text(), token: token() }),
        command!(Request::CreateTableSegment {
            request_id: i64s(),
            segment: text(),
            token: token(),
            sorted: bools(),
            key_length: i32s(),
            rollover_bytes: i64s(),
        }),
        command!(Request::DeleteTableSegment {
            request_id: i64s(),
            segment: text(),
            must_be_empty: bools(),
            token: token(),
        }),
        command!(Request::UpdateTableEntries {
            request_id: i64s(),
            segment: text(),
            token: token(),
            entries: entries(),
            table_offset: i64s(),
        }),
        command!(Request::RemoveTableKeys {
            request_id: i64s(),
            segment: text(),
            token: token(),
            keys: keys(),
            table_offset: i64s(),
        }),
        command!(Request::ReadTable { request_id: i64s(), segment: text(), token: token(), keys: keys() }),
        command!(Request::ReadTableKeys {
            request_id: i64s(),
            segment: text(),
            token: token(),
            suggested_count: i32s(),
            continuation: bytes(),
            prefix: bytes(),
            from_key: bytes(),
            to_key: bytes(),
        }),
        command!(Request::ReadTableEntries {
            request_id: i64s(),
            segment: text(),
            token: token(),
            suggested_count: i32s(),
            continuation: bytes(),
            prefix: bytes(),
            from_key: bytes(),
            to_key: bytes(),
        }),
        command!(Request::ReadTableEntriesDelta {
            request_id: i64s(),
            segment: text(),
            token: token(),
            from_position: i64s(),
            suggested_count: i32s(),
        }),
        command!(Request::MergeSegmentsBatch {
            request_id: i64s(),
            target: text(),
            sources: vec(text(), 0..4),
            token: token(),
        }),
    ]
}

/// One strategy per reply.
fn replies() -> Vec<BoxedStrategy<Reply>> {
    vec![
        command!(Reply::Hello { high_version: i32s(), low_version: i32s() }),
        command!(Reply::StorageChunksListed { request_id: i64s(), chunks: chunks() }),
        command!(Reply::StorageFlushed { request_id: i64s() }),
        command!(Reply::AppendSetup {
            request_id: i64s(),
            segment: text(),
            writer: writer(),
            last_event_number: i64s(),
        }),
        command!(Reply::DataAppended {
            writer: writer(),
            event_number: i64s(),
            previous_event_number: i64s(),
            request_id: i64s(),
            segment_length: i64s(),
        }),
        command!(Reply::ConditionalCheckFailed { writer: writer(), event_number: i64s(), request_id: i64s() }),
        command!(Reply::SegmentRead {
            segment: text(),
            offset: i64s(),
            at_tail: bools(),
            end_of_segment: bools(),
            data: bytes(),
            request_id: i64s(),
        }),
        command!(Reply::StreamSegmentInfo {
            request_id: i64s(),
            segment: text(),
            exists: bools(),
            sealed: bools(),
            deleted: bools(),
            last_modified: i64s(),
            write_offset: i64s(),
            start_offset: i64s(),
        }),
        command!(Reply::SegmentCreated { request_id: i64s(), segment: text() }),
        command!(Reply::SegmentSealed { request_id: i64s(), segment: text() }),
        command!(Reply::SegmentDeleted { request_id: i64s(), segment: text() }),
        command!(Reply::SegmentPolicyUpdated { request_id: i64s(), segment: text() }),
        command!(Reply::SegmentAttribute { request_id: i64s(), value: i64s() }),
        command!(Reply::SegmentAttributeUpdated { request_id: i64s(), success: bools() }),
        command!(Reply::SegmentTruncated { request_id: i64s(), segment: text() }),
        command!(Reply::OffsetLocated { request_id: i64s(), segment: text(), offset: i64s() }),
        command!(Reply::WrongHost { request_id: i64s(), segment: text(), correct_host: text(), trace: text() }),
        command!(Reply::SegmentIsSealed { request_id: i64s(), segment: text(), trace: text(), offset: i64s() }),
        command!(Reply::SegmentAlreadyExists { request_id: i64s(), segment: text(), trace: text() }),
        command!(Reply::NoSuchSegment { request_id: i64s(), segment: text(), trace: text(), offset: i64s() }),
        command!(Reply::InvalidEventNumber {
            writer: writer(),
            request_id: i64s(),
            trace: text(),
            event_number: i64s(),
        }),
        command!(Reply::SegmentIsTruncated {
            request_id: i64s(),
            segment: text(),
            start_offset: i64s(),
            trace: text(),
            offset: i64s(),
        }),
        command!(Reply::OperationUnsupported { request_id: i64s(), operation: text(), trace: text() }),
        command!(Reply::SegmentsMerged { request_id: i64s(), target: text(), source: text(), target_length: i64s() }),
        command!(Reply::AuthTokenCheckFailed { request_id: i64s(), trace: text(), failure: token_failure() }),
        command!(Reply::ErrorMessage { request_id: i64s(), segment: text(), message: text(), code: error_code() }),
        command!(Reply::TableSegmentInfo {
            request_id: i64s(),
            segment: text(),
            start_offset: i64s(),
            length: i64s(),
            entry_count: i64s(),
            key_length: i32s(),
        }),
        command!(Reply::TableEntriesUpdated { request_id: i64s(), versions: vec(i64s(), 0..6) }),
        command!(Reply::TableKeysRemoved { request_id: i64s(), segment: text() }),
        command!(Reply::TableRead { request_id: i64s(), segment: text(), entries: entries() }),
        command!(Reply::TableSegmentNotEmpty { request_id: i64s(), segment: text(), trace: text() }),
        command!(Reply::TableKeyDoesNotExist { request_id: i64s(), segment: text(), trace: text() }),
        command!(Reply::TableKeyBadVersion { request_id: i64s(), segment: text(), trace: text() }),
        command!(Reply::TableKeysRead { request_id: i64s(), segment: text(), keys: keys(), continuation: bytes() }),
        command!(Reply::TableEntriesRead {
            request_id: i64s(),
            segment: text(),
            entries: entries(),
            continuation: bytes(),
        }),
        command!(Reply::TableEntriesDeltaRead {
            request_id: i64s(),
            segment: text(),
            entries: entries(),
            should_clear: bools(),
            reached_end: bools(),
            last_position: i64s(),
        }),
        command!(Reply::SegmentsBatchMerged { request_id: i64s(), target: text(), merged: merged() }),
        Just(Reply::KeepAlive).boxed(),
    ]
}

/// Anything a client may send in one frame.
pub(crate) fn any_command() -> impl Strategy<Value = Command> {
    let session = proptest::strategy::Union::new(session_commands()).prop_map(Command::Session);
    let append = proptest::strategy::Union::new(append_commands()).prop_map(Command::Append);
    let request = proptest::strategy::Union::new(requests()).prop_map(Command::Request);
    prop_oneof![1 => session, 3 => append, 12 => request]
}

/// Anything a server may send.
pub(crate) fn any_reply() -> impl Strategy<Value = Reply> {
    proptest::strategy::Union::new(replies())
}

/// A few values of each strategy, the same in every run.
fn some<T: std::fmt::Debug>(strategies: Vec<BoxedStrategy<T>>) -> Vec<T> {
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &[7; 32]),
    );
    let sample = |strategy: &BoxedStrategy<T>| {
        (0..8).map(|_| strategy.new_tree(&mut runner).expect("no filters").current()).collect::<Vec<_>>()
    };
    strategies.iter().flat_map(sample).collect()
}

/// Several samples of every command a client can send.
pub(crate) fn some_commands() -> Vec<Command> {
    let session = some(session_commands()).into_iter().map(Command::Session);
    let append = some(append_commands()).into_iter().map(Command::Append);
    session.chain(append).chain(some(requests()).into_iter().map(Command::Request)).collect()
}

/// Several samples of every reply.
pub(crate) fn some_replies() -> Vec<Reply> {
    some(replies())
}

/// Names of the samples against names of the catalogue, so that a new command cannot be forgotten here.
#[test]
fn every_command_is_sampled() {
    let names = |codes: &[(i32, &'static str)]| codes.iter().map(|(_, name)| *name).collect::<Vec<_>>();
    fn once<T: PartialEq>(mut names: Vec<T>) -> Vec<T> {
        names.dedup();
        names
    }
    assert_eq!(once(some(session_commands()).iter().map(SessionCommand::name).collect()), names(SessionCommand::CODES));
    assert_eq!(once(some(append_commands()).iter().map(AppendCommand::name).collect()), names(AppendCommand::CODES));
    assert_eq!(once(some(requests()).iter().map(Request::name).collect()), names(Request::CODES));
    assert_eq!(once(some(replies()).iter().map(Reply::name).collect()), names(Reply::CODES));
}

proptest! {
    #[test]
    fn what_a_client_encodes_decodes_back(command in any_command()) {
        let frame = command.encode().expect("within limits");
        prop_assert_eq!(Command::from_frame(&frame), Ok(command));
    }

    #[test]
    fn what_a_server_encodes_decodes_back(reply in any_reply()) {
        let mut frame = BytesMut::new();
        reply.encode(&mut frame).expect("within limits");
        let frame = frame.freeze();
        prop_assert_eq!(Reply::from_frame(&frame), Ok(reply.clone()));
        let mut queue = FrameQueue::new();
        reply.encode(&mut queue).expect("within limits");
        prop_assert_eq!(bytes::Buf::copy_to_bytes(&mut queue, frame.len()), frame, "the queue has the same bytes");
    }

    /// A newer peer appends fields that we do not know.
    #[test]
    fn bytes_behind_the_last_known_field_are_skipped(reply in any_reply(), more in vec(any::<u8>(), 1..20)) {
        let mut frame = BytesMut::new();
        reply.encode(&mut frame).expect("within limits");
        frame.extend_from_slice(&more);
        let length = (frame.len() - 8) as i32;
        frame[4..8].copy_from_slice(&length.to_be_bytes());
        prop_assert_eq!(Reply::from_frame(&frame.freeze()), Ok(reply));
    }
}
