//! The checkers of histories must accept what makes sense and reject everything else: one history for each anomaly.

use headwater_sim::histories::appends::{self, Append, AppendHistory, Read, Seen, bytes_of};
use headwater_sim::histories::versions::{self, Change, Condition, Get, Update, VersionHistory};
use headwater_sim::histories::{Moment, Span};

/// Bytes of a value here.
const SIZE: u64 = 20;

fn bytes(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| bytes_of(*value, SIZE as usize - 16)).collect()
}

fn append(value: u64, writer: u128, previous: Option<i64>, number: i64, begun: Moment, length: u64) -> Append {
    let result = appends::Heard::Stored { length };
    Append { value, writer, previous, number, condition: None, span: Span::new(begun, begun + 1), result }
}

/// Writer 1 appends 11 and 13, writer 2 appends 12 between them, one after the other.
fn three_appends() -> AppendHistory {
    AppendHistory {
        appends: vec![
            append(11, 1, None, 1, 10, SIZE),
            append(12, 2, None, 1, 20, 2 * SIZE),
            append(13, 1, Some(1), 2, 30, 3 * SIZE),
        ],
        reads: vec![Read { offset: 3, bytes: bytes(&[11, 12])[3..30].to_vec(), span: Span::new(25, 26) }],
        lengths: vec![Seen { length: SIZE, span: Span::new(12, 21) }],
        content: bytes(&[11, 12, 13]),
    }
}

#[track_caller]
fn rejects_appends(expected: &str, spoil: impl FnOnce(&mut AppendHistory)) {
    let mut history = three_appends();
    spoil(&mut history);
    let what = history.check().expect_err("this makes no sense");
    assert!(what.contains(expected), "{what}");
}

/// Adds an append that was refused between `begun` and the moment after.
fn refused(history: &mut AppendHistory, begun: Moment, condition: Option<u64>, result: appends::Heard) {
    history.appends.push(Append { condition, result, ..append(19, 1, Some(1), 2, begun, 0) });
}

#[test]
fn appends_that_make_sense_are_accepted() {
    assert_eq!(three_appends().check(), Ok(()));
    // Lost replies, sent again, refused for good reason.
    let mut history = three_appends();
    history.appends[1].result = appends::Heard::Nothing;
    history.appends[1].span = Span::open(20);
    let again = Append { result: appends::Heard::OtherNumber { stored: Some(1) }, ..append(12, 2, None, 1, 40, 0) };
    history.appends.push(again);
    refused(&mut history, 30, Some(7), appends::Heard::OtherLength { length: 2 * SIZE });
    history.appends.push(Append {
        result: appends::Heard::Nothing,
        span: Span::open(50),
        ..append(15, 3, None, 1, 50, 0)
    });
    assert_eq!(history.check(), Ok(()));
}

#[test]
fn a_lost_append_is_noticed() {
    rejects_appends("value 13 was stored and is not there", |history| history.content = bytes(&[11, 12]));
}

#[test]
fn an_append_that_was_refused_and_is_there_is_noticed() {
    rejects_appends("value 12 was refused, but is there", |history| {
        history.appends[1].result = appends::Heard::OtherNumber { stored: Some(5) };
    });
}

#[test]
fn an_append_that_happened_twice_is_noticed() {
    rejects_appends("value 12 is there twice", |history| history.content = bytes(&[11, 12, 13, 12]));
}

#[test]
fn a_value_nobody_sent_is_noticed() {
    rejects_appends("nobody sent it", |history| history.content.extend(bytes(&[99])));
}

#[test]
fn bytes_nobody_wrote_are_noticed() {
    rejects_appends("bytes nobody wrote at offset 60", |history| history.content.extend([1, 2, 3]));
}

#[test]
fn half_a_value_is_noticed() {
    rejects_appends("bytes nobody wrote at offset 40", |history| history.content.truncate(50));
}

#[test]
fn a_changed_byte_is_noticed() {
    rejects_appends("bytes nobody wrote at offset 20", |history| history.content[38] ^= 1);
}

#[test]
fn a_wrong_position_is_noticed() {
    rejects_appends("said to end at 41", |history| {
        history.appends[1].result = appends::Heard::Stored { length: 41 };
    });
}

#[test]
fn the_wrong_order_of_a_writers_events_is_noticed() {
    rejects_appends("value 13 follows number None of its writer", |history| {
        history.content = bytes(&[13, 11, 12]);
        history.appends.iter_mut().for_each(|append| append.result = appends::Heard::Nothing);
    });
}

#[test]
fn a_gap_in_a_writers_events_is_noticed() {
    rejects_appends("value 13 follows number None of its writer", |history| {
        history.appends[0].result = appends::Heard::Nothing;
        history.appends[1].result = appends::Heard::Stored { length: SIZE };
        history.appends[2].result = appends::Heard::Stored { length: 2 * SIZE };
        history.content = bytes(&[12, 13]);
    });
}

#[test]
fn an_event_number_used_by_two_events_is_noticed() {
    rejects_appends("value 14 follows number Some(2) of its writer", |history| {
        history.appends.push(append(14, 1, Some(1), 2, 40, 4 * SIZE));
        history.content.extend(bytes(&[14]));
    });
}

#[test]
fn an_order_against_time_is_noticed() {
    rejects_appends("value 11 ended before one began that stands before it", |history| {
        history.content = bytes(&[12, 11, 13]);
        history.appends[0].result = appends::Heard::Stored { length: 2 * SIZE };
        history.appends[1].result = appends::Heard::Stored { length: SIZE };
    });
}

#[test]
fn a_condition_that_did_not_hold_is_noticed() {
    rejects_appends("value 12 stands at 20, against its condition", |history| {
        history.appends[1].condition = Some(0);
    });
}

#[test]
fn a_refusal_without_reason_is_noticed() {
    let same = appends::Heard::OtherLength { length: 3 * SIZE };
    rejects_appends("although its condition held", |history| refused(history, 40, Some(3 * SIZE), same));
}

#[test]
fn a_refusal_for_a_length_that_never_was_is_noticed() {
    let never = appends::Heard::OtherLength { length: 7 };
    rejects_appends("where nothing ends", |history| refused(history, 40, Some(1), never));
}

#[test]
fn a_refusal_for_a_length_that_was_over_is_noticed() {
    let over = appends::Heard::OtherLength { length: SIZE };
    rejects_appends("when it was another", |history| refused(history, 40, Some(1), over));
}

#[test]
fn a_refusal_for_a_length_to_come_is_noticed() {
    let later = appends::Heard::OtherLength { length: 3 * SIZE };
    rejects_appends("when it was another", |history| refused(history, 22, Some(1), later));
}

#[test]
fn a_refusal_for_the_number_that_was_expected_is_noticed() {
    let fits = appends::Heard::OtherNumber { stored: Some(1) };
    rejects_appends("although its writer's number fits", |history| refused(history, 22, None, fits));
}

#[test]
fn a_refusal_for_a_number_the_writer_never_had_is_noticed() {
    let never = appends::Heard::OtherNumber { stored: Some(9) };
    rejects_appends("which its writer did not have then", |history| refused(history, 40, None, never));
}

#[test]
fn a_refusal_for_a_number_from_before_is_noticed() {
    rejects_appends("which its writer did not have then", |history| {
        refused(history, 40, None, appends::Heard::OtherNumber { stored: None });
    });
}

#[test]
fn readers_that_disagree_are_noticed() {
    rejects_appends("were read that are not there", |history| history.reads[0].bytes[4] ^= 1);
}

#[test]
fn a_read_that_a_crash_undid_is_noticed() {
    rejects_appends("were read that are not there", |history| {
        history.reads.push(Read { offset: 3 * SIZE, bytes: bytes(&[14]), span: Span::new(40, 41) });
        let unheard = Append { result: appends::Heard::Nothing, ..append(14, 3, None, 1, 35, 0) };
        history.appends.push(Append { span: Span::open(35), ..unheard });
    });
}

#[test]
fn a_read_before_the_write_is_noticed() {
    rejects_appends("before they were sent", |history| history.reads[0].span = Span::new(15, 16));
}

#[test]
fn a_length_that_was_over_is_noticed() {
    rejects_appends("when it was another", |history| history.lengths[0].span = Span::new(40, 41));
}

#[test]
fn a_length_inside_a_value_is_noticed() {
    rejects_appends("where nothing ends", |history| history.lengths[0].length = 25);
}

fn update(changes: &[(u32, Condition, Option<u64>)], begun: Moment, heard: versions::Heard) -> Update {
    let change = |(key, condition, value): &(u32, Condition, Option<u64>)| Change {
        key: *key,
        condition: *condition,
        value: *value,
    };
    Update { changes: changes.iter().map(change).collect(), span: Span::new(begun, begun + 1), result: heard }
}

fn done(versions: &[i64]) -> versions::Heard {
    versions::Heard::Done(versions.to_vec())
}

use Condition::{Missing, Version};

/// Key 1 is put, replaced, removed and put again; keys 2 and 3 are put together.
fn updates() -> VersionHistory {
    VersionHistory {
        updates: vec![
            update(&[(1, Missing, Some(101))], 10, done(&[10])),
            update(&[(1, Version(10), Some(102))], 20, done(&[20])),
            update(&[(1, Version(20), None)], 30, done(&[-1])),
            update(&[(1, Missing, Some(103))], 40, done(&[30])),
            update(&[(2, Missing, Some(201)), (3, Missing, Some(202))], 50, done(&[5, 6])),
        ],
        gets: vec![
            Get { key: 1, found: Some((20, 102)), span: Span::new(25, 26) },
            Get { key: 1, found: None, span: Span::new(35, 36) },
        ],
        last: [(1, (30, 103)), (2, (5, 201)), (3, (6, 202))].into(),
    }
}

#[track_caller]
fn rejects_updates(expected: &str, spoil: impl FnOnce(&mut VersionHistory)) {
    let mut history = updates();
    spoil(&mut history);
    let what = history.check().expect_err("this makes no sense");
    assert!(what.contains(expected), "{what}");
}

#[test]
fn updates_that_make_sense_are_accepted() {
    assert_eq!(updates().check(), Ok(()));
    let mut history = updates();
    for index in [1, 2, 4] {
        history.updates[index].result = versions::Heard::Nothing;
        history.updates[index].span.ended = None;
    }
    history.updates.push(update(&[(1, Version(10), Some(104))], 22, versions::Heard::Refused));
    let unheard =
        Update { span: Span::open(60), ..update(&[(2, Version(5), Some(203))], 60, versions::Heard::Nothing) };
    history.updates.push(unheard);
    assert_eq!(history.check(), Ok(()));
}

#[test]
fn a_lost_update_is_noticed() {
    rejects_updates("expected Version(10) and followed", |history| {
        history.updates.push(update(&[(1, Version(10), Some(104))], 20, done(&[25])));
    });
}

#[test]
fn a_removal_nobody_heard_of_explains_one_new_beginning_and_not_two() {
    rejects_updates("version 9 is gone, and nobody removed it", |history| {
        history.updates.push(update(&[(2, Version(5), None)], 60, versions::Heard::Nothing));
        history.updates.push(update(&[(2, Missing, Some(204))], 70, done(&[9])));
        history.updates.push(update(&[(2, Missing, Some(205))], 80, done(&[11])));
        history.last.insert(2, (11, 205));
    });
}

#[test]
fn a_key_that_is_gone_although_nobody_removed_it_is_noticed() {
    rejects_updates("is gone, and nobody removed it", |history| {
        history.last.remove(&2);
    });
}

#[test]
fn a_key_created_where_one_was_is_noticed() {
    rejects_updates("version 5 is gone, and nobody removed it", |history| {
        history.updates.push(update(&[(2, Missing, Some(204))], 60, done(&[9])));
        history.last.insert(2, (9, 204));
    });
}

#[test]
fn a_version_used_again_after_a_removal_is_noticed() {
    rejects_updates("version 10 stands for two values", |history| history.updates[3].result = done(&[10]));
}

#[test]
fn a_negative_version_is_noticed() {
    rejects_updates("has version -1", |history| history.updates[1].result = done(&[-1]));
}

#[test]
fn a_value_with_two_versions_is_noticed() {
    rejects_updates("value 102 has two versions", |history| history.gets[0].found = Some((21, 102)));
}

#[test]
fn a_refused_update_that_is_seen_is_noticed() {
    rejects_updates("value 102 was refused and seen", |history| {
        history.updates[1].result = versions::Heard::Refused;
    });
}

#[test]
fn a_value_from_nowhere_is_noticed() {
    rejects_updates("value 999 was seen, and nobody sent it", |history| history.gets[0].found = Some((15, 999)));
}

#[test]
fn an_update_that_did_not_last_is_noticed() {
    rejects_updates("ends as", |history| {
        history.last.insert(1, (20, 102));
    });
}

#[test]
fn updates_against_time_are_noticed() {
    rejects_updates("ended before what came before it began", |history| {
        history.updates[1].span = Span::new(2, 3);
        history.gets.clear();
    });
}

#[test]
fn a_value_seen_after_it_was_replaced_is_noticed() {
    rejects_updates("which it was not then", |history| {
        history.gets.push(Get { key: 1, found: Some((10, 101)), span: Span::new(24, 25) });
    });
}

#[test]
fn a_value_seen_before_it_was_put_is_noticed() {
    rejects_updates("which it was not then", |history| history.gets[0].span = Span::new(15, 16));
}

#[test]
fn a_removed_value_that_is_seen_again_is_noticed() {
    rejects_updates("which it was not then", |history| history.gets[0].span = Span::new(35, 36));
}

#[test]
fn a_key_seen_as_missing_while_it_was_there_is_noticed() {
    rejects_updates("seen as None", |history| history.gets[1].span = Span::new(24, 25));
}

#[test]
fn an_update_refused_without_reason_is_noticed() {
    rejects_updates("although its conditions held", |history| {
        history.updates.push(update(&[(1, Version(20), Some(104))], 24, versions::Heard::Refused));
    });
}

#[test]
fn an_update_refused_because_of_what_was_over_is_noticed() {
    rejects_updates("although its conditions held", |history| {
        history.updates.push(update(&[(2, Version(5), Some(204))], 60, versions::Heard::Refused));
    });
}

#[test]
fn half_an_update_is_noticed() {
    rejects_updates("half of an update happened", |history| {
        history.updates[4].result = versions::Heard::Nothing;
        history.last.remove(&3);
    });
}

#[test]
fn a_version_removed_twice_is_noticed() {
    rejects_updates("version 20 was removed twice", |history| {
        history.updates.push(update(&[(1, Version(20), None)], 30, done(&[-1])));
    });
}

#[test]
fn a_version_both_removed_and_replaced_is_noticed() {
    rejects_updates("version 20 was both removed and replaced", |history| {
        history.updates[3].changes[0].condition = Version(20);
    });
}

#[test]
fn a_removal_that_left_a_version_is_noticed() {
    rejects_updates("a removal has version 7", |history| history.updates[2].result = done(&[7]));
}

#[test]
fn a_removal_that_did_not_last_is_noticed() {
    rejects_updates("ends as Some((20, 102)), but None was last", |history| {
        history.updates.remove(3);
        history.last.insert(1, (20, 102));
    });
}

#[test]
fn versions_that_go_back_are_noticed() {
    rejects_updates("expected Version(20) and followed", |history| {
        history.updates[2] = update(&[(1, Version(20), Some(104))], 30, done(&[15]));
        history.updates.remove(3);
        history.gets.clear();
        history.last.insert(1, (15, 104));
    });
}

#[test]
fn an_update_of_a_version_that_never_was_is_noticed() {
    rejects_updates("expected Version(11) and followed", |history| {
        history.updates[1].changes[0].condition = Version(11);
    });
}
