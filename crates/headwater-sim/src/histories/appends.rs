//! Appends to one segment, conditional or not, by several writers.
//!
//! Every value knows itself: its bytes name it, so the segment's content is the order in which everything happened.

use std::collections::BTreeMap;

use super::{Span, against_time, overlaps, seen_between};
use crate::chance::Chance;

/// Names a value. A value that is sent again keeps its name.
pub type Value = u64;

/// One attempt to append a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Append {
    /// What.
    pub value: Value,
    /// Who.
    pub writer: u128,
    /// Number the writer's last event had, as far as it knew.
    pub previous: Option<i64>,
    /// Number of this one.
    pub number: i64,
    /// Length the segment had to have.
    pub condition: Option<u64>,
    /// When.
    pub span: Span,
    /// What was heard.
    pub result: Heard,
}

/// What was heard of an append.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Heard {
    /// It is stored and ends there.
    Stored {
        /// Length of the segment right after.
        length: u64,
    },
    /// The segment had another length.
    OtherLength {
        /// Which.
        length: u64,
    },
    /// The writer's last number was another.
    OtherNumber {
        /// Which.
        stored: Option<i64>,
    },
    /// Nothing.
    Nothing,
}

/// Bytes that somebody saw.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Read {
    /// First byte.
    pub offset: u64,
    /// From there on.
    pub bytes: Vec<u8>,
    /// When.
    pub span: Span,
}

/// A segment's length that somebody saw.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Seen {
    /// The length.
    pub length: u64,
    /// When.
    pub span: Span,
}

/// Everything about one segment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AppendHistory {
    /// Attempts to append.
    pub appends: Vec<Append>,
    /// Reads.
    pub reads: Vec<Read>,
    /// Questions for the length.
    pub lengths: Vec<Seen>,
    /// All bytes, after everything.
    pub content: Vec<u8>,
}

const HEAD_BYTES: usize = 16;

/// The bytes of a value: its name, the length of the whole, a checksum, and a filler of `filler` bytes.
pub fn bytes_of(value: Value, filler: usize) -> Vec<u8> {
    let mut bytes = value.to_be_bytes().to_vec();
    bytes.extend(((HEAD_BYTES + filler) as u32).to_be_bytes());
    let mut rest = vec![0; filler];
    Chance::new(value).fill(&mut rest);
    let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes), &rest);
    bytes.extend(sum.to_be_bytes());
    bytes.extend(rest);
    bytes
}

/// A value and where it ends.
#[derive(Clone, Copy, Debug)]
struct Stored {
    value: Value,
    start: u64,
    end: u64,
}

fn parse(content: &[u8]) -> Result<Vec<Stored>, String> {
    let mut stored = Vec::new();
    let mut at = 0;
    while at < content.len() {
        let malformed = || format!("bytes nobody wrote at offset {at}");
        let head = content.get(at..at + HEAD_BYTES).ok_or_else(malformed)?;
        let value = Value::from_be_bytes(head[..8].try_into().expect("eight bytes"));
        let length = u32::from_be_bytes(head[8..12].try_into().expect("four bytes")) as usize;
        let whole = content.get(at..at + length.max(HEAD_BYTES)).ok_or_else(malformed)?;
        if bytes_of(value, whole.len() - HEAD_BYTES) != whole {
            return Err(malformed());
        }
        let end = at + whole.len();
        stored.push(Stored { value, start: at as u64, end: end as u64 });
        at = end;
    }
    Ok(stored)
}

impl AppendHistory {
    /// Whether one order of events explains everything.
    ///
    /// # Errors
    /// What it does not explain.
    pub fn check(&self) -> Result<(), String> {
        let order = parse(&self.content)?;
        let position = self.positions(&order)?;
        let mut did: Vec<Option<&Append>> = vec![None; order.len()];
        for append in &self.appends {
            self.check_heard(append, &order, &position)?;
            let Some(&at) = position.get(&append.value) else { continue };
            // Of several attempts the one that was told so did it; otherwise the first that heard nothing.
            let did = &mut did[at];
            match append.result {
                Heard::Stored { .. } => *did = Some(append),
                Heard::Nothing if did.is_none() => *did = Some(append),
                Heard::Nothing | Heard::OtherLength { .. } | Heard::OtherNumber { .. } => {}
            }
        }
        let mut spans = Vec::with_capacity(order.len());
        let mut newest: BTreeMap<u128, i64> = BTreeMap::new();
        for (stored, did) in order.iter().zip(&did) {
            let Some(append) = did else {
                return Err(format!("value {} was refused, but is there", stored.value));
            };
            if append.condition.is_some_and(|condition| condition != stored.start) {
                return Err(format!("value {} stands at {}, against its condition", stored.value, stored.start));
            }
            let before = newest.insert(append.writer, append.number);
            if before != append.previous {
                return Err(format!("value {} follows number {before:?} of its writer", stored.value));
            }
            // Which of the attempts did it is not known: from the first to the last.
            spans.push(self.span_of(stored.value));
        }
        if let Some(at) = against_time(spans.iter().copied()) {
            return Err(format!("value {} ended before one began that stands before it", order[at].value));
        }
        let windows = seen_between(&spans);
        self.check_refusals(&order, &did, &windows)?;
        self.check_seen(&order, &windows)
    }

    fn positions(&self, order: &[Stored]) -> Result<BTreeMap<Value, usize>, String> {
        let mut position = BTreeMap::new();
        for (at, stored) in order.iter().enumerate() {
            if !self.appends.iter().any(|append| append.value == stored.value) {
                return Err(format!("value {} is there, and nobody sent it", stored.value));
            }
            if position.insert(stored.value, at).is_some() {
                return Err(format!("value {} is there twice", stored.value));
            }
        }
        Ok(position)
    }

    fn check_heard(&self, append: &Append, order: &[Stored], position: &BTreeMap<Value, usize>) -> Result<(), String> {
        let Heard::Stored { length } = append.result else { return Ok(()) };
        match position.get(&append.value).map(|at| order[*at]) {
            None => Err(format!("value {} was stored and is not there", append.value)),
            Some(stored) if stored.end != length => {
                Err(format!("value {} was said to end at {length} and ends at {}", append.value, stored.end))
            }
            Some(_) => Ok(()),
        }
    }

    fn span_of(&self, value: Value) -> Span {
        let attempts = self.appends.iter().filter(|append| append.value == value);
        let attempts: Vec<_> = attempts.filter(|append| append.result_allows()).collect();
        let told = attempts.iter().find(|append| matches!(append.result, Heard::Stored { .. }));
        let begun = attempts.iter().map(|append| append.span.begun).min().unwrap_or(0);
        told.map_or(Span { begun, ended: None }, |told| {
            if attempts.len() == 1 { told.span } else { Span { begun, ended: told.span.ended } }
        })
    }

    fn check_refusals(&self, order: &[Stored], did: &[Option<&Append>], windows: &[(u64, u64)]) -> Result<(), String> {
        for append in &self.appends {
            match append.result {
                Heard::OtherLength { length } => {
                    if append.condition == Some(length) || append.condition.is_none() {
                        return Err(format!("value {} was refused although its condition held", append.value));
                    }
                    self.check_length(order, windows, Seen { length, span: append.span })?;
                }
                Heard::OtherNumber { stored } => {
                    if append.previous == stored {
                        return Err(format!("value {} was refused although its writer's number fits", append.value));
                    }
                    // States in which this number was the writer's last.
                    let mut newest = None;
                    let mut is_justified = stored.is_none() && overlaps(windows[0], append.span);
                    for (at, did) in did.iter().enumerate() {
                        let did = did.expect("checked before");
                        if did.writer == append.writer {
                            newest = Some(did.number);
                        }
                        is_justified |= newest == stored && overlaps(windows[at + 1], append.span);
                    }
                    if !is_justified {
                        return Err(format!(
                            "value {} was refused for number {stored:?}, which its writer did not have then",
                            append.value
                        ));
                    }
                }
                Heard::Stored { .. } | Heard::Nothing => {}
            }
        }
        Ok(())
    }

    fn check_length(&self, order: &[Stored], windows: &[(u64, u64)], seen: Seen) -> Result<(), String> {
        let at = if seen.length == 0 {
            Some(0)
        } else {
            order.iter().position(|stored| stored.end == seen.length).map(|at| at + 1)
        };
        match at {
            None => Err(format!("a length of {} was seen, where nothing ends", seen.length)),
            Some(at) if overlaps(windows[at], seen.span) => Ok(()),
            Some(_) => Err(format!("a length of {} was seen at {:?}, when it was another", seen.length, seen.span)),
        }
    }

    fn check_seen(&self, order: &[Stored], windows: &[(u64, u64)]) -> Result<(), String> {
        for seen in &self.lengths {
            self.check_length(order, windows, *seen)?;
        }
        for read in &self.reads {
            let end = read.offset + read.bytes.len() as u64;
            if self.content.get(read.offset as usize..end as usize) != Some(&read.bytes) {
                return Err(format!("bytes {}..{end} were read that are not there", read.offset));
            }
            let last = order.iter().position(|stored| stored.end >= end);
            if let Some(last) = last
                && !read.bytes.is_empty()
                && windows[last + 1].0 >= read.span.end()
            {
                return Err(format!("bytes {}..{end} were read before they were sent", read.offset));
            }
        }
        Ok(())
    }
}

impl Append {
    /// Whether this attempt may have stored the value.
    fn result_allows(&self) -> bool {
        matches!(self.result, Heard::Stored { .. } | Heard::Nothing)
    }
}
