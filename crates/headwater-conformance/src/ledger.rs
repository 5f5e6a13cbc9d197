//! Judges a run of writers under crashes: what was acknowledged, what was sent, what was read.
//!
//! What must hold, whatever was killed meanwhile:
//! * acknowledged ⊆ read: an acknowledged event is never lost
//! * read ⊆ sent: nothing is read that nobody wrote (acknowledged or not)
//! * no event is read twice: the writers lived through every restart, and their numbers make repetitions harmless
//! * events of one writer and one key are read in the order in which they were written
//! * every payload carries the checksum it was written with
//! * of a transaction everything is read or nothing
//!
//! Pure functions over plain values; the drivers only write down what they did and saw.
//!
//! Payload of an event, all numbers big-endian:
//!
//! ```text
//! "HWLE" · run u64 · writer u32 · key u32 · sequence u64 · filler · crc32c u32 of everything before
//! ```

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

const MAGIC: &[u8; 4] = b"HWLE";
const HEADER_BYTES: usize = 4 + 8 + 4 + 4 + 8;
const CHECKSUM_BYTES: usize = 4;
/// Of each kind of violation so many are reported; one is enough to fail, a few help to see the pattern.
const REPORTED_MAX: usize = 5;

/// Which event: writers number the events of each of their keys from 0, without gaps.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EventId {
    /// Which of the writers of this run.
    pub writer: u32,
    /// Which routing key; the writers share them.
    pub key: u32,
    /// Position among the events of this writer and key.
    pub sequence: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "writer {} key {} sequence {}", self.writer, self.key, self.sequence)
    }
}

/// What the writers did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Number of the run; every payload carries it.
    pub run: u64,
    /// Events whose acknowledgement arrived.
    pub acknowledged: Vec<EventId>,
    /// (writer, key) → number of events sent, acknowledged or not.
    pub sent: BTreeMap<(u32, u32), u64>,
    /// A writer of transactions: transaction n wrote event n of each of its keys.
    pub transactional: Option<u32>,
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Acknowledged and not read.
    Lost(EventId),
    /// Read more than once.
    Duplicate(EventId),
    /// Read after a later event of the same writer and key.
    Reordered {
        /// The event that came too late.
        event: EventId,
        /// The sequence that had already been read.
        after: u64,
    },
    /// A payload that does not carry its checksum, or is too short to carry one.
    Corrupted {
        /// Its position among everything that was read.
        index: usize,
        /// Its length.
        bytes: usize,
    },
    /// Well formed, and nobody sent it in this run.
    Invented(EventId),
    /// A transaction of which some events were read and others not.
    Torn {
        /// Its number, and that of its events.
        sequence: u64,
        /// Keys whose event was read.
        read: usize,
        /// Keys it wrote to.
        keys: usize,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(event) => write!(f, "lost: {event} was acknowledged and not read"),
            Self::Duplicate(event) => write!(f, "duplicate: {event} was read twice"),
            Self::Reordered { event, after } => write!(f, "reordered: {event} was read after sequence {after}"),
            Self::Corrupted { index, bytes } => write!(f, "corrupted: payload {index} of {bytes} bytes"),
            Self::Invented(event) => write!(f, "invented: {event} was read and never sent"),
            Self::Torn { sequence, read, keys } => write!(f, "torn: of transaction {sequence} {read} of {keys} events"),
        }
    }
}

/// Totals of a run in which nothing was broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events sent.
    pub sent: u64,
    /// Of these, acknowledged.
    pub acknowledged: u64,
    /// Events read.
    pub read: u64,
    /// Read without having been acknowledged: written before a crash that ate the acknowledgement.
    pub unknown_read: u64,
}

/// Judges what was read, in the order of delivery.
///
/// # Errors
/// Every promise that was broken, at most a few of each kind.
pub fn check(written: &Written, read: impl IntoIterator<Item = Vec<u8>>) -> Result<Totals, Vec<Violation>> {
    let mut broken = Violations::default();
    let mut seen: BTreeMap<(u32, u32), Lane> = BTreeMap::new();
    let mut count = 0;
    for (index, payload) in read.into_iter().enumerate() {
        count += 1;
        let Some((run, event)) = decode(&payload) else {
            broken.add(Violation::Corrupted { index, bytes: payload.len() });
            continue;
        };
        let sent = written.sent.get(&(event.writer, event.key)).copied().unwrap_or(0);
        if run != written.run || event.sequence >= sent {
            broken.add(Violation::Invented(event));
            continue;
        }
        let lane = seen.entry((event.writer, event.key)).or_insert_with(|| Lane::new(sent));
        lane.take(event, &mut broken);
    }
    let mut acknowledged_read = 0;
    for event in &written.acknowledged {
        let lane = seen.get(&(event.writer, event.key));
        if lane.is_some_and(|lane| lane.has(event.sequence)) {
            acknowledged_read += 1;
        } else {
            broken.add(Violation::Lost(*event));
        }
    }
    if let Some(writer) = written.transactional {
        let lanes: Vec<(u64, Option<&Lane>)> =
            written.sent.range((writer, 0)..=(writer, u32::MAX)).map(|(lane, sent)| (*sent, seen.get(lane))).collect();
        for sequence in 0..lanes.iter().map(|(sent, _)| *sent).max().unwrap_or(0) {
            let read = lanes.iter().filter(|(_, lane)| lane.is_some_and(|lane| lane.has(sequence))).count();
            if read != 0 && read != lanes.len() {
                broken.add(Violation::Torn { sequence, read, keys: lanes.len() });
            }
        }
    }
    if broken.0.is_empty() {
        Ok(Totals {
            sent: written.sent.values().sum(),
            acknowledged: written.acknowledged.len() as u64,
            read: count,
            unknown_read: count - acknowledged_read,
        })
    } else {
        Err(broken.0)
    }
}

/// Events of one writer and key.
struct Lane {
    seen: Vec<bool>,
    highest: Option<u64>,
}

impl Lane {
    fn new(sent: u64) -> Self {
        Self { seen: vec![false; sent as usize], highest: None }
    }

    fn has(&self, sequence: u64) -> bool {
        self.seen.get(sequence as usize).copied().unwrap_or(false)
    }

    /// `event.sequence` is below the number sent.
    fn take(&mut self, event: EventId, broken: &mut Violations) {
        if std::mem::replace(&mut self.seen[event.sequence as usize], true) {
            broken.add(Violation::Duplicate(event));
        } else if let Some(after) = self.highest.filter(|highest| *highest > event.sequence) {
            broken.add(Violation::Reordered { event, after });
        }
        self.highest = self.highest.max(Some(event.sequence));
    }
}

#[derive(Default)]
struct Violations(Vec<Violation>);

impl Violations {
    fn add(&mut self, violation: Violation) {
        let kind = std::mem::discriminant(&violation);
        if self.0.iter().filter(|known| std::mem::discriminant(*known) == kind).count() < REPORTED_MAX {
            self.0.push(violation);
        }
    }
}

/// The run and the event a payload belongs to, or nothing if it is damaged.
fn decode(payload: &[u8]) -> Option<(u64, EventId)> {
    if payload.len() < HEADER_BYTES + CHECKSUM_BYTES {
        return None;
    }
    let (content, checksum) = payload.split_at(payload.len() - CHECKSUM_BYTES);
    if !content.starts_with(MAGIC) || crc32c::crc32c(content).to_be_bytes() != checksum {
        return None;
    }
    let event = EventId {
        writer: u32::from_be_bytes(content[12..16].try_into().ok()?),
        key: u32::from_be_bytes(content[16..20].try_into().ok()?),
        sequence: u64::from_be_bytes(content[20..28].try_into().ok()?),
    };
    Some((u64::from_be_bytes(content[4..12].try_into().ok()?), event))
}

/// Reads the ledger: lines `writer key sequence`.
///
/// # Errors
/// A line that is not three numbers. The driver is never killed, so no line may be torn.
pub fn parse_ledger(text: &str) -> Result<Vec<EventId>> {
    text.lines()
        .map(|line| {
            let mut words = line.split(' ');
            let mut next = || words.next().with_context(|| format!("ledger line {line:?}"));
            let event = EventId {
                writer: next()?.parse().with_context(|| format!("ledger line {line:?}"))?,
                key: next()?.parse().with_context(|| format!("ledger line {line:?}"))?,
                sequence: next()?.parse().with_context(|| format!("ledger line {line:?}"))?,
            };
            ensure!(words.next().is_none(), "ledger line {line:?}");
            Ok(event)
        })
        .collect()
}

/// Judges what a reader wrote down, without ever holding all of it: each payload after its length (u32, big-endian).
///
/// # Errors
/// A file that cannot be read or ends inside a record. What the run broke is the inner result.
pub fn check_file(written: &Written, path: &Path) -> Result<Result<Totals, Vec<Violation>>> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    check_records(written, BufReader::with_capacity(1 << 20, file))
}

fn check_records(written: &Written, mut input: impl Read) -> Result<Result<Totals, Vec<Violation>>> {
    let mut torn = None;
    let payloads = std::iter::from_fn(|| match next_record(&mut input) {
        Ok(payload) => payload,
        Err(error) => {
            torn = Some(error);
            None
        }
    });
    let verdict = check(written, payloads);
    torn.map_or(Ok(verdict), Err)
}

/// The next payload, or nothing at the end.
fn next_record(input: &mut impl Read) -> Result<Option<Vec<u8>>> {
    let mut length = Vec::with_capacity(4);
    input.take(4).read_to_end(&mut length).context("read the reader's file")?;
    if length.is_empty() {
        return Ok(None);
    }
    let length: [u8; 4] = length.try_into().ok().context("the reader's file ends inside a length")?;
    let length = u32::from_be_bytes(length);
    // Grows with what is there, whatever the length promises.
    let mut payload = Vec::new();
    input.take(u64::from(length)).read_to_end(&mut payload).context("read the reader's file")?;
    ensure!(payload.len() == length as usize, "the reader's file ends inside a payload of {length} bytes");
    Ok(Some(payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: u64 = 42;

    fn event(writer: u32, key: u32, sequence: u64) -> EventId {
        EventId { writer, key, sequence }
    }

    fn payload_of(run: u64, event: EventId) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&run.to_be_bytes());
        bytes.extend_from_slice(&event.writer.to_be_bytes());
        bytes.extend_from_slice(&event.key.to_be_bytes());
        bytes.extend_from_slice(&event.sequence.to_be_bytes());
        bytes.extend_from_slice(b"filler");
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_be_bytes());
        bytes
    }

    fn payload(event: EventId) -> Vec<u8> {
        payload_of(RUN, event)
    }

    /// Two writers, two keys, four events each; the last of every four is not acknowledged.
    fn written() -> Written {
        let mut written = Written { run: RUN, ..Written::default() };
        for writer in 0..2 {
            for key in 0..2 {
                written.sent.insert((writer, key), 4);
                written.acknowledged.extend((0..3).map(|sequence| event(writer, key, sequence)));
            }
        }
        written
    }

    /// Everything acknowledged and one of the unknown, interleaved by sequence.
    fn good() -> Vec<EventId> {
        let mut read = written().acknowledged;
        read.sort_by_key(|event| event.sequence);
        read.push(event(1, 1, 3));
        read
    }

    #[track_caller]
    fn finds(read: &[Vec<u8>], expected: &[Violation]) {
        assert_eq!(check(&written(), read.to_vec()), Err(expected.to_vec()));
    }

    fn payloads(events: &[EventId]) -> Vec<Vec<u8>> {
        events.iter().copied().map(payload).collect()
    }

    #[test]
    fn acknowledged_and_some_unknown_events_in_order_are_a_good_history() {
        let totals = Totals { sent: 16, acknowledged: 12, read: 13, unknown_read: 1 };
        assert_eq!(check(&written(), payloads(&good())), Ok(totals));
    }

    #[test]
    fn an_acknowledged_event_that_is_missing_is_lost() {
        let mut read = good();
        read.retain(|e| *e != event(0, 1, 1));
        finds(&payloads(&read), &[Violation::Lost(event(0, 1, 1))]);
    }

    #[test]
    fn an_unknown_event_that_is_missing_is_no_loss() {
        let mut read = good();
        read.pop();
        assert!(check(&written(), payloads(&read)).is_ok());
    }

    #[test]
    fn an_event_read_twice_is_a_duplicate_even_if_nobody_acknowledged_it() {
        let mut read = good();
        read.push(event(1, 1, 3));
        read.push(event(0, 0, 2));
        finds(&payloads(&read), &[Violation::Duplicate(event(1, 1, 3)), Violation::Duplicate(event(0, 0, 2))]);
    }

    #[test]
    fn an_event_after_a_later_one_of_its_writer_and_key_is_reordered() {
        let mut read = good();
        read.retain(|e| *e != event(1, 0, 1));
        read.push(event(1, 0, 1));
        finds(&payloads(&read), &[Violation::Reordered { event: event(1, 0, 1), after: 2 }]);
    }

    #[test]
    fn writers_and_keys_may_interleave_in_any_way() {
        let mut read = good();
        read.sort_by_key(|event| (event.key, event.writer, event.sequence));
        assert!(check(&written(), payloads(&read)).is_ok());
    }

    #[test]
    fn a_changed_byte_anywhere_is_corruption_and_the_event_is_lost() {
        let victim = payload(event(0, 0, 0));
        for position in 0..victim.len() {
            let mut read = payloads(&good());
            let index = read.iter().position(|p| *p == victim).expect("the victim is in the history");
            read[index][position] ^= 0x20;
            finds(&read, &[Violation::Corrupted { index, bytes: victim.len() }, Violation::Lost(event(0, 0, 0))]);
        }
    }

    #[test]
    fn a_payload_cut_short_is_corruption() {
        let mut read = payloads(&good());
        read.push(payload(event(1, 1, 3))[..20].to_vec());
        read.push(Vec::new());
        let bytes = [20, 0];
        finds(&read, &[0, 1].map(|i| Violation::Corrupted { index: 13 + i, bytes: bytes[i] }));
    }

    #[test]
    fn a_transaction_of_which_only_some_keys_are_read_is_torn() {
        // Sequence 3 of writer 1 is not acknowledged: its transaction may be there or not, but not by half.
        let written = Written { transactional: Some(1), ..written() };
        let mut read = good();
        assert_eq!(check(&written, payloads(&read)), Err(vec![Violation::Torn { sequence: 3, read: 1, keys: 2 }]));
        read.push(event(1, 0, 3));
        assert!(check(&written, payloads(&read)).is_ok());
        read.truncate(12);
        assert!(check(&written, payloads(&read)).is_ok());
    }

    #[test]
    fn an_event_nobody_sent_is_invented() {
        let mut read = payloads(&good());
        read.push(payload(event(0, 0, 4)));
        read.push(payload(event(7, 0, 0)));
        read.push(payload_of(RUN + 1, event(0, 0, 3)));
        finds(&read, &[event(0, 0, 4), event(7, 0, 0), event(0, 0, 3)].map(Violation::Invented));
    }

    #[test]
    fn of_many_violations_a_few_of_each_kind_are_reported() {
        let broken = check(&written(), [Vec::new()]).expect_err("everything is lost");
        assert_eq!(broken.len(), 1 + REPORTED_MAX);
    }

    #[test]
    fn a_ledger_is_lines_of_three_numbers() {
        assert_eq!(parse_ledger("0 1 2\n3 4 5\n").expect("two lines"), [event(0, 1, 2), event(3, 4, 5)]);
        assert!(parse_ledger("0 1\n").is_err());
        assert!(parse_ledger("0 1 2 3\n").is_err());
        assert!(parse_ledger("0 1 x\n").is_err());
    }

    #[test]
    fn a_readers_file_is_judged_record_by_record_and_refused_if_it_is_cut_off() {
        let mut file = Vec::new();
        for payload in payloads(&good()) {
            file.extend_from_slice(&(payload.len() as u32).to_be_bytes());
            file.extend_from_slice(&payload);
        }
        let verdict = check_records(&written(), file.as_slice()).expect("a whole file");
        assert_eq!(verdict.map(|totals| totals.read), Ok(13));
        for cut in [file.len() - 1, 3, 5] {
            assert!(check_records(&written(), &file[..cut]).is_err(), "cut at {cut}");
        }
        let nothing = check_records(&written(), &file[..0]).expect("an empty file is whole");
        assert!(nothing.is_err(), "everything is lost");
    }
}
