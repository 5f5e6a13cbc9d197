//! What each request on the wire asks of the store. Pure: bytes were decoded before, nothing is carried out here.
//!
//! Guarantees:
//! * a name that no segment can have, or that belongs to the controller's own tables, never reaches the store
//! * a request that can never succeed is answered here, with words
//! * every size a client suggests is brought into its limits
//!
//! Source: Pravega wire protocol 17, its request processor's reading of each field.

use bytes::Bytes;
use headwater_engine::api::{
    ATTRIBUTE_UPDATES_MAX, AttributeUpdate, Expect, Request, SegmentKind, SegmentPolicy, TableChange, UpdateKind,
};
use headwater_types::limits::{READ_BYTES_MAX, SEGMENT_NAME_BYTES_MAX, TABLE_KEY_BYTES_MAX, TABLE_VALUE_BYTES_MAX};
use headwater_types::{Offset, SegmentName, WriterId};
use headwater_wire::{NO_VERSION, NOT_EXISTS, Request as Wire, TableKey, Text};

use crate::private::{find_client_table, is_client_table, note_client_table, public_name};
use crate::replies::{Asked, Page, Verdict, What, illegal, no_such_segment, table_get, table_scan};

/// Smallest read that is carried out; stock servers have the same.
const READ_BYTES_MIN: i32 = 8;
/// Longest fixed key of a table.
const FIXED_KEY_BYTES_MAX: i32 = 256;
/// Most entries of one page, whatever the client suggests; the page's size in bytes is limited besides.
const PAGE_ENTRIES_MAX: i32 = 65_536;

/// What to do with a request.
#[derive(Debug)]
pub(crate) enum Plan {
    /// Ask the store.
    Ask(Request, Asked),
    /// The same, for a transient segment of this connection, which has to be deleted with it.
    AskTransient(SegmentName, Request, Asked),
    /// Have everything in this container stored; there may be no such container.
    Flush(u32, Asked),
    /// It is decided already, or takes several steps.
    Decided(Verdict),
}

/// Reads the name of a segment to be created: `stream/number` or `scope/stream/number`, the number with or without
/// epoch and transaction. Nothing else has a place in a stream or table, so nobody would find it again.
fn new_name(text: &str) -> Option<SegmentName> {
    let name = public_name(text)?;
    let base = name.parent();
    let (before, number) = base.as_ref().unwrap_or(&name).as_str().rsplit_once('/')?;
    let (number, epoch) = number.split_once(".#epoch.").unwrap_or((number, "0"));
    let decimal = |text: &str| (1..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    let owned = before.split('/').count() <= 2 && before.split('/').all(word);
    (owned && decimal(number) && decimal(epoch)).then_some(name)
}

/// Decides what a request asks of the store. `transient_name` draws a name for a transient segment of a parent.
pub(crate) fn plan(request: Wire, transient_name: impl FnOnce(&SegmentName, WriterId) -> SegmentName) -> Plan {
    use Plan::Ask;
    let request_id = request.request_id();
    let refuse = |segment: &Text, message: &str| Plan::Decided(Verdict::Reply(illegal(request_id, segment, message)));
    let find =
        |segment: &Text, what: What| (public_name(segment), Asked { request_id, segment: segment.clone(), what });
    // Shorthand for the common case: one segment, one request.
    let ask = |segment: &Text, what: What, make: &dyn Fn(SegmentName) -> Request| match find(segment, what) {
        (Some(name), asked) => Ask(make(name), asked),
        (None, asked) => missing(&asked),
    };
    match request {
        Wire::ListStorageChunks { segment, .. } => {
            ask(&segment, What::ListChunks, &|segment| Request::ListChunks { segment })
        }
        Wire::FlushToStorage { container_id, .. } => match u32::try_from(container_id) {
            Ok(container) => Plan::Flush(container, Asked { request_id, segment: Text::default(), what: What::Flush }),
            Err(_) => refuse(&Text::default(), "container is negative"),
        },
        Wire::ReadSegment { segment, offset, suggested_length, .. } => {
            let bytes_max = usize::try_from(suggested_length.max(READ_BYTES_MIN)).unwrap_or(0).min(READ_BYTES_MAX);
            let Ok(from) = Offset::try_from(offset) else { return refuse(&segment, "offset is negative") };
            ask(&segment, What::Read { offset, bytes_max }, &|segment| Request::Read {
                segment,
                offset: from,
                bytes_max,
            })
        }
        Wire::GetStreamSegmentInfo { segment, .. } => ask(&segment, What::Info, &|segment| Request::Info { segment }),
        Wire::CreateSegment { segment, target_rate, scale_type, rollover_bytes, .. } => {
            let Some(name) = new_name(&segment) else { return refuse(&segment, "segment name is malformed") };
            let Some(policy) = policy(scale_type, target_rate, rollover_bytes) else {
                return refuse(&segment, "scale type is none of 0, 1 and 2");
            };
            let asked = Asked { request_id, segment, what: What::Create };
            Ask(Request::Create { segment: name, kind: SegmentKind::Stream, policy, on_reserve: false }, asked)
        }
        Wire::CreateTransientSegment { writer, parent, .. } => {
            let Some(name) = public_name(&parent).filter(|parent| !parent.is_transient()) else {
                return refuse(&parent, "segment cannot have transient segments");
            };
            let transient = transient_name(&name, writer);
            if transient.as_str().len() > SEGMENT_NAME_BYTES_MAX {
                return refuse(&parent, "segment name is too long for a transient segment");
            }
            let asked = Asked { request_id, segment: transient.as_str().into(), what: What::CreateTransient };
            let (kind, policy) = (SegmentKind::Transient, SegmentPolicy::default());
            let request = Request::Create { segment: transient.clone(), kind, policy, on_reserve: false };
            Plan::AskTransient(transient, request, asked)
        }
        Wire::SealSegment { segment, .. } => ask(&segment, What::Seal, &|segment| Request::Seal { segment }),
        Wire::DeleteSegment { segment, .. } => ask(&segment, What::Delete, &|segment| Request::Delete { segment }),
        Wire::UpdateSegmentPolicy { segment, target_rate, scale_type, .. } => {
            let Some(policy) = policy(scale_type, target_rate, 0) else {
                return refuse(&segment, "scale type is none of 0, 1 and 2");
            };
            ask(&segment, What::SetPolicy, &|segment| Request::SetPolicy { segment, policy })
        }
        Wire::GetSegmentAttribute { segment, attribute, .. } => {
            ask(&segment, What::Attribute, &|segment| Request::Attribute { segment, id: attribute })
        }
        Wire::UpdateSegmentAttribute { segment, attribute, new_value, expected_value, .. } => {
            let update =
                AttributeUpdate { id: attribute, kind: UpdateKind::IfEquals(expected_value), value: new_value };
            let updates = || vec![update];
            ask(&segment, What::UpdateAttribute, &|segment| Request::UpdateAttributes { segment, updates: updates() })
        }
        Wire::TruncateSegment { segment, truncation_offset, .. } => {
            // No segment is that long: the store refuses and says where the segment starts, as clients expect.
            let offset = Offset::try_from(truncation_offset).unwrap_or(Offset::MAX);
            // What has lost its beginning cannot be merged any more, and its transaction could never be committed.
            if public_name(&segment).is_some_and(|name| name.parent().is_some()) {
                return refuse(&segment, "segment of a transaction or upload keeps its beginning");
            }
            let what = What::Truncate { offset: truncation_offset };
            ask(&segment, what, &|segment| Request::Truncate { segment, offset })
        }
        Wire::LocateOffset { segment, target_offset, .. } => {
            let offset = Offset::try_from(target_offset).unwrap_or(0);
            ask(&segment, What::Locate, &|segment| Request::Locate { segment, offset })
        }
        Wire::MergeSegments { target, source, attribute_updates, .. } => {
            let updates: Option<Vec<_>> = attribute_updates.iter().map(update).collect();
            let Some(updates) = updates.filter(|updates| updates.len() <= ATTRIBUTE_UPDATES_MAX) else {
                return refuse(&target, "attribute updates are too many or of an unknown type");
            };
            let asked = Asked { request_id, segment: target.clone(), what: What::Merge { source: source.clone() } };
            match (public_name(&target), public_name(&source)) {
                (Some(target), Some(source)) if target.placement() == source.placement() => {
                    Ask(Request::Merge { target, source, updates }, asked)
                }
                (Some(_), Some(_)) => refuse(&target, "segments of a merge must share stream and number"),
                _ => missing(&asked),
            }
        }
        Wire::MergeSegmentsBatch { target, sources, .. } => {
            let names: Option<Vec<_>> = sources.iter().map(|source| public_name(source)).collect();
            let (name, asked) = find(&target, What::MergeBatch { sources });
            let Some(name) = name else { return missing(&asked) };
            match names {
                Some(sources) if sources.iter().all(|source| source.placement() == name.placement()) => {
                    Ask(Request::MergeBatch { target: name, sources }, asked)
                }
                _ => refuse(&target, "segments of a merge must share stream and number"),
            }
        }
        Wire::GetTableSegmentInfo { segment, .. } => {
            ask(&segment, What::TableInfo, &|segment| Request::TableInfo { segment })
        }
        Wire::CreateTableSegment { segment, key_length, rollover_bytes, .. } => {
            let Some(name) = new_name(&segment) else { return refuse(&segment, "segment name is malformed") };
            if !(0..=FIXED_KEY_BYTES_MAX).contains(&key_length) {
                return refuse(&segment, "key length is none of 0 to 256");
            }
            if name.parent().is_some() {
                return refuse(&segment, "segment of a transaction or upload is no table");
            }
            let kind = SegmentKind::Table { key_length: key_length.unsigned_abs() };
            let rollover_bytes = u64::try_from(rollover_bytes).unwrap_or(0);
            let policy = SegmentPolicy { rollover_bytes, ..SegmentPolicy::default() };
            let create = Request::Create { segment: name.clone(), kind, policy, on_reserve: false };
            if is_client_table(&name) {
                let what = What::CreateClientTable { request: Box::new(create) };
                Ask(note_client_table(&name), Asked { request_id, segment, what })
            } else {
                Ask(create, Asked { request_id, segment, what: What::Create })
            }
        }
        Wire::DeleteTableSegment { segment, must_be_empty, .. } => match find(&segment, What::DeleteTable) {
            (Some(name), Asked { segment, .. }) if is_client_table(&name) => {
                let request = find_client_table(&name);
                let what = What::DeleteClientTable { table: name, must_be_empty };
                Ask(request, Asked { request_id, segment, what })
            }
            (Some(name), asked) => Ask(Request::DeleteTable { segment: name, must_be_empty }, asked),
            (None, asked) => missing(&asked),
        },
        Wire::UpdateTableEntries { segment, entries, table_offset, .. } => {
            let changes = entries.into_iter().map(|entry| change(entry.key, Some(entry.value)));
            let what = What::TableUpdate { offset: table_offset };
            update_table(request_id, segment, what, changes.collect(), table_offset)
        }
        Wire::RemoveTableKeys { segment, keys, table_offset, .. } => {
            let changes = keys.into_iter().map(|key| change(key, None));
            let what = What::TableRemove { offset: table_offset };
            update_table(request_id, segment, what, changes.collect(), table_offset)
        }
        Wire::ReadTable { segment, keys, .. } => {
            if keys.iter().any(|key| key.key.len() > TABLE_KEY_BYTES_MAX) {
                return refuse(&segment, "key is longer than 8192 bytes");
            }
            let keys = keys.into_iter().map(|key| key.key).collect();
            match find(&segment, What::TableInfo) {
                (Some(name), _) => Plan::Decided(table_get(request_id, segment, name, keys)),
                (None, asked) => missing(&asked),
            }
        }
        Wire::ReadTableKeys { segment, suggested_count, continuation, from_key, to_key, .. } => {
            let page = page(suggested_count, continuation, from_key, to_key, true);
            scan(request_id, segment, page)
        }
        Wire::ReadTableEntries { segment, suggested_count, continuation, from_key, to_key, .. } => {
            let page = page(suggested_count, continuation, from_key, to_key, false);
            scan(request_id, segment, page)
        }
        Wire::ReadTableEntriesDelta { segment, from_position, suggested_count, .. } => {
            let Ok(from) = Offset::try_from(from_position) else { return refuse(&segment, "position is negative") };
            let count_max = entries_max(suggested_count);
            ask(&segment, What::Delta, &|segment| Request::TableDelta { segment, from, count_max })
        }
    }
}

/// For everything but creations: a name that cannot be is a segment that is not there.
fn missing(asked: &Asked) -> Plan {
    Plan::Decided(Verdict::Reply(no_such_segment(asked)))
}

fn policy(scale_type: i8, rate: i32, rollover_bytes: i64) -> Option<SegmentPolicy> {
    let scale_type = u8::try_from(scale_type).ok().filter(|scale_type| *scale_type <= 2)?;
    // A negative size means "default", as zero does.
    Some(SegmentPolicy { scale_type, rate, rollover_bytes: u64::try_from(rollover_bytes).unwrap_or(0) })
}

fn update(update: &headwater_wire::AttributeUpdate) -> Option<AttributeUpdate> {
    let kind = match update.update_type {
        0 => UpdateKind::IfAbsent,
        1 => UpdateKind::Replace,
        2 => UpdateKind::IfGreater,
        3 => UpdateKind::Accumulate,
        4 => UpdateKind::IfEquals(update.old_value),
        _ => return None,
    };
    Some(AttributeUpdate { id: update.attribute, kind, value: update.new_value })
}

/// The words say why the change can never be made.
fn change(key: TableKey, value: Option<Bytes>) -> Result<TableChange, &'static str> {
    let expect = match key.version {
        NO_VERSION => Expect::Any,
        NOT_EXISTS => Expect::Missing,
        version if version >= 0 => Expect::Version(version),
        _ => return Err("version is none of those that exist"),
    };
    if key.key.len() > TABLE_KEY_BYTES_MAX {
        return Err("key is longer than 8192 bytes");
    }
    if value.as_ref().is_some_and(|value| value.len() > TABLE_VALUE_BYTES_MAX) {
        return Err("value is longer than 1040384 bytes");
    }
    Ok(TableChange { key: key.key, value, expect })
}

fn update_table(
    request_id: i64,
    segment: Text,
    what: What,
    changes: Result<Vec<TableChange>, &'static str>,
    table_offset: i64,
) -> Plan {
    let asked = Asked { request_id, segment, what };
    let Some(name) = public_name(&asked.segment) else { return missing(&asked) };
    let changes = match changes {
        Ok(changes) if changes.is_empty() => Err("batch is empty"),
        other => other,
    };
    match changes {
        Ok(changes) => {
            // A negative offset other than −1 is none that a table can have.
            let at = (table_offset != -1).then(|| Offset::try_from(table_offset).unwrap_or(Offset::MAX));
            Plan::Ask(Request::TableUpdate { segment: name, changes, at }, asked)
        }
        Err(message) => Plan::Decided(Verdict::Reply(illegal(request_id, &asked.segment, message))),
    }
}

fn page(suggested_count: i32, continuation: Bytes, from: Bytes, to: Bytes, keys_only: bool) -> Page {
    Page { continuation, from, to, count_max: entries_max(suggested_count), keys_only }
}

fn scan(request_id: i64, segment: Text, page: Page) -> Plan {
    // Its bounds are keys, and a continuation is one with a byte before it: longer ones would only be held while it waits.
    let bounds = [page.from.len(), page.to.len(), page.continuation.len().saturating_sub(1)];
    if bounds.iter().any(|bytes| *bytes > TABLE_KEY_BYTES_MAX) {
        return Plan::Decided(Verdict::Reply(illegal(
            request_id,
            &segment,
            "bound of a page is longer than 8192 bytes",
        )));
    }
    match public_name(&segment) {
        Some(name) => Plan::Decided(table_scan(request_id, segment, name, page)),
        None => missing(&Asked { request_id, segment, what: What::TableInfo }),
    }
}

/// A page that holds nothing would look like the end.
fn entries_max(suggested_count: i32) -> usize {
    usize::try_from(suggested_count.clamp(1, PAGE_ENTRIES_MAX)).expect("the lower bound is positive")
}

#[cfg(test)]
mod tests {
    use headwater_wire::{Reply, TableEntry, Token};

    use super::*;

    const SEGMENT: &str = "scope/stream/0.#epoch.0";

    fn planned(request: Wire) -> Plan {
        plan(request, |parent, writer| parent.transient(writer, 7))
    }

    #[track_caller]
    fn refused(request: Wire) -> Reply {
        match planned(request) {
            Plan::Decided(Verdict::Reply(reply)) => reply,
            other => panic!("{other:?}"),
        }
    }

    fn read(segment: &str, offset: i64, suggested_length: i32) -> Wire {
        Wire::ReadSegment { segment: segment.into(), offset, suggested_length, token: Token::default(), request_id: 3 }
    }

    #[test]
    fn a_name_no_segment_can_have_is_answered_and_repeated() {
        for name in ["", "a b", "\u{e9}", &"a".repeat(1025), "_system/_tables/x"] {
            match refused(read(name, 9, 100)) {
                Reply::NoSuchSegment { request_id: 3, segment, offset: 9, .. } => assert_eq!(&*segment, name),
                other => panic!("{name:?}: {other:?}"),
            }
            let create = Wire::CreateSegment {
                request_id: 3,
                segment: name.into(),
                target_rate: 0,
                scale_type: 0,
                token: Token::default(),
                rollover_bytes: 0,
            };
            assert!(matches!(refused(create), Reply::ErrorMessage { request_id: 3, .. }), "{name:?}");
        }
    }

    #[test]
    fn only_names_that_belong_to_a_stream_or_table_are_created() {
        for good in [
            SEGMENT,
            "scope/stream/7",
            "stream/0.#epoch.1",
            "_system/_RGgroup/0.#epoch.0",
            "scope/group_kvtable/0.#epoch.0",
            "../a.b-c/0.#epoch.0",
            "scope/stream/0.#epoch.4#transaction.00000004000000000000000000000002",
        ] {
            assert!(new_name(good).is_some(), "{good}");
        }
        for bad in [
            "stream",
            "/0.#epoch.0",
            "/stream/0.#epoch.0",
            "scope//0.#epoch.0",
            "scope/stream/x",
            "scope/stream/0.#epoch.",
            "scope/stream/0.#epoch.-1",
            "scope/stream/99999999999",
            "scope/str eam/0",
            "scope/st#ream/0",
            "a/../../b/0.#epoch.0",
            "../../../../tmp/escaped",
        ] {
            assert!(new_name(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_read_asks_for_eight_bytes_to_two_mebibytes() {
        for (suggested, expected) in
            [(i32::MIN, 8), (-1, 8), (0, 8), (8, 8), (100, 100), (8 << 20, 2 << 20), (i32::MAX, 2 << 20)]
        {
            match planned(read(SEGMENT, 0, suggested)) {
                Plan::Ask(Request::Read { bytes_max, .. }, _) => assert_eq!(bytes_max, expected, "{suggested}"),
                other => panic!("{suggested}: {other:?}"),
            }
        }
        assert!(matches!(refused(read(SEGMENT, -1, 8)), Reply::ErrorMessage { .. }));
    }

    #[test]
    fn versions_in_a_batch_mean_what_the_protocol_says() {
        let batch = |version| Wire::UpdateTableEntries {
            request_id: 3,
            segment: SEGMENT.into(),
            token: Token::default(),
            entries: vec![TableEntry { key: TableKey { key: "k".into(), version }, value: "v".into() }],
            table_offset: -1,
        };
        for (version, expected) in
            [(i64::MIN, Expect::Any), (-1, Expect::Missing), (0, Expect::Version(0)), (9, Expect::Version(9))]
        {
            match planned(batch(version)) {
                Plan::Ask(Request::TableUpdate { changes, at: None, .. }, _) => assert_eq!(changes[0].expect, expected),
                other => panic!("{version}: {other:?}"),
            }
        }
        assert!(matches!(refused(batch(-2)), Reply::ErrorMessage { .. }));
    }

    #[test]
    fn a_merge_stays_within_one_stream_and_number() {
        let merge = |source: &str| Wire::MergeSegments {
            request_id: 3,
            target: SEGMENT.into(),
            source: source.into(),
            token: Token::default(),
            attribute_updates: Vec::new(),
        };
        let transaction = "scope/stream/0.#epoch.4#transaction.00000004000000000000000000000002";
        assert!(matches!(planned(merge(transaction)), Plan::Ask(Request::Merge { .. }, _)));
        assert!(matches!(refused(merge("scope/stream/1.#epoch.0")), Reply::ErrorMessage { .. }));
    }

    #[test]
    fn a_transient_segment_is_answered_with_the_name_drawn_for_it() {
        let create = |parent: &str| Wire::CreateTransientSegment {
            request_id: 3,
            writer: WriterId(1),
            parent: parent.into(),
            token: Token::default(),
        };
        match planned(create(SEGMENT)) {
            Plan::AskTransient(name, Request::Create { segment, kind: SegmentKind::Transient, .. }, asked) => {
                assert_eq!((name.as_str(), segment.as_str()), (&*asked.segment, &*asked.segment));
                assert!(name.is_transient());
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(refused(create(&"a".repeat(1000))), Reply::ErrorMessage { .. }));
    }

    #[test]
    fn a_transaction_cannot_be_made_unmergeable() {
        let truncate = |segment: &str| Wire::TruncateSegment {
            request_id: 3,
            segment: segment.into(),
            truncation_offset: 1,
            token: Token::default(),
        };
        let transaction = "scope/stream/0.#epoch.4#transaction.00000004000000000000000000000002";
        assert!(matches!(refused(truncate(transaction)), Reply::ErrorMessage { .. }));
        let table = Wire::CreateTableSegment {
            request_id: 3,
            segment: transaction.into(),
            token: Token::default(),
            sorted: false,
            key_length: 0,
            rollover_bytes: 0,
        };
        assert!(matches!(refused(table), Reply::ErrorMessage { .. }));
        assert!(matches!(planned(truncate(SEGMENT)), Plan::Ask(Request::Truncate { .. }, _)));
    }

    #[test]
    fn a_page_is_bounded_by_keys_that_can_be() {
        let scan = |continuation: usize, from: usize, to: usize| Wire::ReadTableKeys {
            request_id: 3,
            segment: SEGMENT.into(),
            token: Token::default(),
            suggested_count: 10,
            continuation: vec![1; continuation].into(),
            // Retired: it bounds nothing, whatever is in it.
            prefix: vec![1; 100_000].into(),
            from_key: vec![1; from].into(),
            to_key: vec![1; to].into(),
        };
        for good in [scan(0, 8192, 8192), scan(8193, 0, 0), scan(0, 0, 0)] {
            assert!(matches!(planned(good), Plan::Decided(Verdict::Again(..))));
        }
        for bad in [scan(0, 8193, 0), scan(0, 0, 8193), scan(8194, 0, 0)] {
            assert!(matches!(refused(bad), Reply::ErrorMessage { request_id: 3, .. }));
        }
    }

    #[test]
    fn an_upload_has_no_uploads_and_a_policy_is_one_of_three() {
        let parent = SegmentName::parse(SEGMENT).unwrap().transient(WriterId(1), 2);
        let (request_id, segment, token) = (3, || SEGMENT.into(), Token::default);
        let create = Wire::CreateTransientSegment {
            request_id,
            writer: WriterId(1),
            parent: parent.as_str().into(),
            token: token(),
        };
        assert!(matches!(refused(create), Reply::ErrorMessage { .. }));
        for scale_type in [-1, 3, i8::MAX] {
            let (target_rate, rollover_bytes) = (1, 0);
            let create = Wire::CreateSegment {
                request_id,
                segment: segment(),
                target_rate,
                scale_type,
                token: token(),
                rollover_bytes,
            };
            assert!(matches!(refused(create), Reply::ErrorMessage { .. }), "{scale_type}");
            let update =
                Wire::UpdateSegmentPolicy { request_id, segment: segment(), target_rate, scale_type, token: token() };
            assert!(matches!(refused(update), Reply::ErrorMessage { .. }), "{scale_type}");
        }
    }

    #[test]
    fn a_flush_names_a_container_that_can_be() {
        let flush = |container_id| Wire::FlushToStorage { container_id, token: Token::default(), request_id: 3 };
        assert!(matches!(planned(flush(7)), Plan::Flush(7, Asked { request_id: 3, .. })));
        assert!(matches!(refused(flush(-1)), Reply::ErrorMessage { request_id: 3, .. }));
    }
}
