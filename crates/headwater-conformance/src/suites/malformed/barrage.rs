//! Every request command of the protocol, bent in every way that can be listed: thousands of frames that are nearly
//! right.
//!
//! The commands are described here once more, from the protocol's description (wire protocol 17): the server's own
//! codec must not vouch for itself.

use crate::raw::{Frame, Raw, code, frame, text};
use anyhow::{Context, Result, bail, ensure};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Connections at a time.
const AT_ONCE: usize = 8;
/// What is put in place of every number.
const NUMBERS: [i64; 6] = [-1, 0, 1, i32::MAX as i64, 0x00FF_FFFF, i64::MIN];
/// Frames that say a request was carried out.
const SUCCESS: [i32; 23] = [-6, -4, 2, 7, 10, 12, 21, 29, 31, 33, 35, 37, 39, 42, 59, 69, 75, 77, 79, 84, 86, 87, 91];

const TABLE: &str = "barrage/t_kvtable/0.#epoch.0";
const SEGMENT: &str = "barrage/none/0.#epoch.0";

/// A field of a command, with a value that is right.
#[derive(Clone)]
enum Field {
    Byte(u8),
    Int(i32),
    Long(i64),
    Uuid,
    Text(&'static str),
    /// A length of 32 bits and so many bytes.
    Bytes(&'static [u8]),
    /// Bytes to the end of the frame.
    Rest(&'static [u8]),
}

use Field::{Byte, Bytes, Int, Long, Rest, Text, Uuid};

/// One command: what it is called, its code, its fields in order.
type Command = (&'static str, i32, Vec<Field>);

fn commands() -> Vec<Command> {
    let (id, token) = (Long(7), Text(""));
    let entry = |version| vec![Int(13), Bytes(b"k"), Long(version), Int(5), Bytes(b"v")];
    let key = |version| vec![Int(13), Bytes(b"k"), Long(version)];
    let with = |before: &[Field], middle: Vec<Field>, after: &[Field]| [before, &middle, after].concat();
    let table =
        |list: Vec<Field>, after: &[Field]| with(&[id.clone(), Text(TABLE), token.clone(), Int(1)], list, after);
    let iterate = vec![id.clone(), Text(TABLE), token.clone(), Int(10), Bytes(b""), Bytes(b""), Bytes(b""), Bytes(b"")];
    let one = |kind: &'static str, code| (kind, code, vec![id.clone(), Text(SEGMENT), token.clone()]);
    vec![
        ("ListStorageChunks", -5, vec![Text(SEGMENT), token.clone(), id.clone()]),
        ("FlushToStorage", -3, vec![Int(9_999), token.clone(), id.clone()]),
        ("SetupAppend", 1, vec![id.clone(), Uuid, Text(SEGMENT), token.clone()]),
        ("AppendBlock", 3, vec![Uuid, Rest(b"\0\0\0\0\0\0\0\x01x")]),
        ("AppendBlockEnd", 4, vec![Uuid, Int(0), Bytes(b"\0\0\0\0\0\0\0\x01x"), Int(1), Long(1), id.clone()]),
        ("ConditionalAppend", 5, vec![Uuid, Long(1), Long(0), Int(0), Bytes(b"x"), id.clone()]),
        ("ConditionalBlockEnd", 89, vec![Uuid, Long(1), Long(0), Bytes(b"x"), id.clone()]),
        ("ReadSegment", 9, vec![Text(SEGMENT), Long(0), Int(100), token.clone(), id.clone()]),
        one("GetStreamSegmentInfo", 11),
        (
            "CreateSegment",
            20,
            vec![id.clone(), Text("barrage/made/0.#epoch.0"), Int(0), Byte(0), token.clone(), Long(0)],
        ),
        one("SealSegment", 28),
        one("DeleteSegment", 30),
        ("UpdateSegmentPolicy", 32, vec![id.clone(), Text(SEGMENT), Int(1), Byte(1), token.clone()]),
        ("GetSegmentAttribute", 34, vec![id.clone(), Text(SEGMENT), Uuid, token.clone()]),
        ("UpdateSegmentAttribute", 36, vec![id.clone(), Text(SEGMENT), Uuid, Long(1), Long(2), token.clone()]),
        ("TruncateSegment", 38, vec![id.clone(), Text(SEGMENT), Long(5), token.clone()]),
        ("CreateTransientSegment", 40, vec![id.clone(), Uuid, Text(SEGMENT), token.clone()]),
        ("LocateOffset", 41, vec![id.clone(), Text(SEGMENT), Long(5), token.clone()]),
        (
            "MergeSegments",
            58,
            vec![
                id.clone(),
                Text(SEGMENT),
                Text("barrage/none/0.#epoch.1"),
                token.clone(),
                Int(1),
                Uuid,
                Byte(4),
                Long(1),
                Long(2),
            ],
        ),
        one("GetTableSegmentInfo", 68),
        (
            "CreateTableSegment",
            70,
            vec![id.clone(), Text("barrage/m_kvtable/0.#epoch.0"), token.clone(), Byte(0), Int(0), Long(0)],
        ),
        ("DeleteTableSegment", 71, vec![id.clone(), Text("barrage/n_kvtable/0"), Byte(1), token.clone()]),
        ("MergeTableSegments", 72, vec![id.clone(), Text(TABLE), Text(TABLE), token.clone()]),
        ("SealTableSegment", 73, vec![id.clone(), Text(TABLE), token.clone()]),
        ("UpdateTableEntries", 74, table(entry(3), &[Long(-1)])),
        ("RemoveTableKeys", 76, table(key(3), &[Long(-1)])),
        ("ReadTable", 78, table(key(i64::MIN), &[])),
        ("ReadTableKeys", 83, iterate.clone()),
        ("ReadTableEntries", 85, iterate),
        ("ReadTableEntriesDelta", 88, vec![id.clone(), Text(TABLE), token.clone(), Long(0), Int(10)]),
        ("MergeSegmentsBatch", 90, vec![id, Text(SEGMENT), Int(1), Text("barrage/none/0.#epoch.1"), token]),
    ]
}

impl Field {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Byte(value) => out.push(*value),
            Int(value) => out.extend(value.to_be_bytes()),
            Long(value) => out.extend(value.to_be_bytes()),
            Uuid => out.extend([7; 16]),
            Text(content) => out.extend(text(content)),
            Bytes(content) => {
                out.extend((content.len() as u32).to_be_bytes());
                out.extend(*content);
            }
            Rest(content) => out.extend(*content),
        }
    }

    /// The field with another number where it has one, or bytes that are no text.
    fn bent(&self) -> Vec<(String, Vec<u8>)> {
        let mut bent = Vec::new();
        for number in NUMBERS {
            let bytes = match self {
                Byte(_) => vec![number as u8],
                Int(_) => (number as i32).to_be_bytes().to_vec(),
                Long(_) => number.to_be_bytes().to_vec(),
                Bytes(content) => [&(number as i32).to_be_bytes()[..], content].concat(),
                Text(content) => [&(number as u16).to_be_bytes()[..], content.as_bytes()].concat(),
                Uuid | Rest(_) => break,
            };
            bent.push((format!("number {number}"), bytes));
        }
        if let Text(_) = self {
            for bad in [&b"\xff\xfe"[..], b"\xc3", b"\xed\xa0\x80", b"a\xf0\x28\x8c\xbc"] {
                let bytes = [&(bad.len() as u16).to_be_bytes()[..], bad].concat();
                bent.push((format!("text of the bytes {bad:02x?}"), bytes));
            }
        }
        bent
    }
}

/// What the server may do with it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Allowed {
    /// Close, or say why not.
    Refuse,
    /// Also carry it out: with this number, or cut here, it may be right.
    Answer,
    /// Close without carrying anything out.
    Close,
}

struct Shot {
    name: String,
    after_hello: bool,
    bytes: Vec<u8>,
    allowed: Allowed,
}

fn payload(fields: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    fields.iter().for_each(|field| field.encode(&mut out));
    out
}

fn shots((name, code, fields): &Command) -> Vec<Shot> {
    let right = payload(fields);
    let mut shots = Vec::new();
    let mut add = |what: String, after_hello, payload: &[u8], allowed| {
        let name = format!("{name}: {what}");
        shots.push(Shot { name, after_hello, bytes: frame(*code, payload), allowed });
    };
    add("no payload".into(), true, &[], Allowed::Close);
    add("before Hello".into(), false, &right, Allowed::Close);
    add("as it should be".into(), true, &right, Allowed::Answer);
    for length in 1..right.len() {
        // Old clients stop before the fields that came later, so that some of these are whole.
        add(format!("cut to {length} of {} bytes", right.len()), true, &right[..length], Allowed::Answer);
    }
    for (at, field) in fields.iter().enumerate() {
        for (what, bytes) in field.bent() {
            let bent = [&payload(&fields[..at]), &bytes, &payload(&fields[at + 1..])[..]].concat();
            let allowed = if what.starts_with("text") { Allowed::Refuse } else { Allowed::Answer };
            add(format!("field {at} with {what}"), true, &bent, allowed);
        }
        if at + 1 < fields.len() {
            let mut order = fields.clone();
            order.swap(at, at + 1);
            add(format!("fields {at} and {} the wrong way round", at + 1), true, &payload(&order), Allowed::Answer);
        }
    }
    let reversed: Vec<_> = fields.iter().rev().cloned().collect();
    add("all fields in the wrong order".into(), true, &payload(&reversed), Allowed::Answer);
    shots
}

/// Sends one shot; the connection has to answer or to end, and if it does not end it has to go on working.
fn fire(address: &str, shot: &Shot) -> Result<()> {
    let mut raw = if shot.after_hello { Raw::hello(address)? } else { Raw::connect(address)? };
    raw.send_or_be_closed(&shot.bytes);
    if !shot.after_hello {
        let answer = raw.receive()?;
        ensure!(answer.is_none(), "answered by {answer:?}");
        return Ok(());
    }
    raw.send_or_be_closed(&frame(code::KEEP_ALIVE, &[]));
    let (mut alive, mut answers): (bool, Vec<Frame>) = (false, Vec::new());
    let closed = loop {
        match raw.receive()? {
            None => break true,
            Some((code::KEEP_ALIVE, _)) => alive = true,
            Some(answer) => answers.push(answer),
        }
        if alive && !answers.is_empty() {
            break false;
        }
    };
    let success = answers.iter().find(|(kind, _)| SUCCESS.contains(kind));
    match shot.allowed {
        Allowed::Close => ensure!(closed && answers.is_empty(), "not closed, answered by {answers:?}"),
        Allowed::Refuse => ensure!(success.is_none(), "carried out: {success:?}"),
        Allowed::Answer => ensure!(closed || answers.len() == 1, "answered {} times", answers.len()),
    }
    Ok(())
}

/// Fires everything, and calls `between` after each command. Returns how many shots there were.
///
/// # Errors
/// Names every shot whose outcome is wrong.
pub(super) fn run(address: &str, mut between: impl FnMut() -> Result<()>) -> Result<usize> {
    let mut raw = Raw::hello(address)?;
    let create = [&7_i64.to_be_bytes()[..], &text(TABLE), &text("")].concat();
    raw.send(&frame(code::CREATE_TABLE, &create))?;
    raw.receive()?.context("the table is created")?;
    let mut count = 0;
    for command in commands() {
        let shots = shots(&command);
        let next = AtomicUsize::new(0);
        let wrong: Vec<String> = std::thread::scope(|scope| {
            let shooter = || {
                let mut wrong = Vec::new();
                while let Some(shot) = shots.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = fire(address, shot) {
                        wrong.push(format!("{}: {error:#}", shot.name));
                    }
                }
                wrong
            };
            let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(shooter)).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("a shooter does not panic")).collect()
        });
        if !wrong.is_empty() {
            bail!("{} of {} shots:\n{}", wrong.len(), shots.len(), wrong.join("\n"));
        }
        between().with_context(|| format!("after {}", command.0))?;
        count += shots.len();
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_thousands_of_shots_and_each_has_its_own_name() {
        let all: Vec<_> = commands().iter().flat_map(shots).collect();
        // All that the list above comes to: none is lost by accident.
        assert_eq!((commands().len(), all.len()), (31, 2_856));
        let names: std::collections::BTreeSet<_> = all.iter().map(|shot| &shot.name).collect();
        assert_eq!(names.len(), all.len());
    }
}
