//! Where the readers of a Rust or Python client's group stand: the state that they keep in the group's table.
//!
//! Each key is an outer name with its length before it, and behind a slash an inner one; each value says its type and
//! has its bytes. Source: the layout of `ReaderGroupState` in the crate `pravega-client` 0.3.7.

use std::collections::BTreeSet;

use headwater_records::group::Compacted;
use headwater_records::{Allowance, Offsets};
use headwater_types::{Name, ScopedStream, SegmentId, SegmentName, StreamSegment};

use super::cbor::{Foreign, Value};
use super::readers::{ReadersState, WAITING_BYTES};

/// The key that every group has and no other table of such a client.
pub(crate) const CONFIG: &str = "06config/default";
const ASSIGNED: &str = "17assigned_segments/";
const UNASSIGNED: &str = "19unassigned_segments/";
const FUTURE: &str = "15future_segments/";
/// Type of a value that stands for none.
const TOMBSTONE: &str = "tombstone";

/// The entries of a table, one after the other.
#[derive(Debug, Default)]
pub(crate) struct TableReader {
    state: Compacted,
    is_group: bool,
}

impl TableReader {
    /// What an entry says. What memory its parts take is lent, what stays in the state is taken.
    pub(crate) fn feed(&mut self, key: &[u8], value: &[u8], allowance: &Allowance) -> Result<(), Foreign> {
        // Tables that are no groups have any keys.
        let key = allowance.lend(|| Value::read(key, allowance));
        if allowance.is_exceeded() {
            return Err(Foreign);
        }
        let Ok(Value::Text(key)) = key else { return Ok(()) };
        if key == CONFIG {
            self.is_group = true;
        } else if let Some(reader) = key.strip_prefix(ASSIGNED) {
            let held = |held: Value| {
                let entries = held.entries()?;
                let position = |(segment, offset): &(Value, Value)| Ok((held_segment(segment)?, position(offset)?));
                entries.iter().map(position).collect::<Result<Offsets, Foreign>>()
            };
            if let Some(held) = content(value, allowance, held)? {
                allowance.take_text(reader.len())?;
                allowance.take_entries::<(StreamSegment, i64)>(held.len())?;
                held.keys().try_for_each(|segment| take_names(segment, allowance))?;
                self.state.assigned.insert(reader.to_owned(), held);
            }
        } else if let Some(segment) = key.strip_prefix(UNASSIGNED) {
            if let Some(offset) = content(value, allowance, |offset| position(&offset))? {
                let segment = named_segment(segment)?;
                take_names(&segment, allowance)?;
                self.state.unassigned.insert(segment, offset);
            }
        } else if let Some(segment) = key.strip_prefix(FUTURE)
            && let Some(waits_for) = content(value, allowance, |waits_for| waits_for.numbers())?
        {
            let segment = named_segment(segment)?;
            take_names(&segment, allowance)?;
            allowance.take((1 + waits_for.len()).saturating_mul(WAITING_BYTES))?;
            self.state.future.insert(segment, BTreeSet::from_iter(waits_for));
        }
        Ok(())
    }

    /// What all entries together say; `None` if the table is no group's.
    pub(crate) fn finish(self) -> Option<ReadersState> {
        self.is_group.then(|| self.state.into())
    }
}

/// A segment that stays in the state, as an entry of a map.
fn take_names(StreamSegment { stream, .. }: &StreamSegment, allowance: &Allowance) -> Result<(), Foreign> {
    allowance.take_text(stream.scope.as_str().len() + stream.stream.as_str().len())?;
    Ok(allowance.take(3 * size_of::<(StreamSegment, i64)>())?)
}

/// What is made of what a value holds, whose memory is lent; `None` for a tombstone.
fn content<T>(
    value: &[u8],
    allowance: &Allowance,
    make: impl FnOnce(Value) -> Result<T, Foreign>,
) -> Result<Option<T>, Foreign> {
    allowance.lend(|| {
        let value = Value::read(value, allowance)?;
        if value.field("type_id")?.text()? == TOMBSTONE {
            return Ok(None);
        }
        make(Value::read(value.field("data")?.bytes()?, allowance)?).map(Some)
    })
}

fn position(offset: &Value) -> Result<i64, Foreign> {
    offset.field("read")?.i64()
}

fn held_segment(segment: &Value) -> Result<StreamSegment, Foreign> {
    let name = |part: &str| Name::parse(segment.field(part)?.field("name")?.text()?).map_err(|_| Foreign);
    let stream = ScopedStream { scope: name("scope")?, stream: name("stream")? };
    let number = segment.field("segment")?.field("number")?.i64()?;
    Ok(StreamSegment { stream, id: SegmentId::from_i64(number).ok_or(Foreign)? })
}

fn named_segment(name: &str) -> Result<StreamSegment, Foreign> {
    SegmentName::parse(name).ok().and_then(|name| name.stream_segment()).ok_or(Foreign)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries that the Python client 0.3.8 wrote, key and value: a configuration, a segment that waits for a reader,
    /// one that a reader has, and a tombstone of the time before that.
    const RECORDED: [(&str, &str); 4] = [
        (
            "703036636f6e6669672f64656661756c74",
            "a267747970655f6964781a52656164657247726f7570436f6e66696756657273696f6e6564646461746180",
        ),
        (
            "782f3139756e61737369676e65645f7365676d656e74732f64656d6f2f6772656574696e67732f312e2365706f63682e30",
            "a267747970655f6964664f666673657464646174618718a11864187218651861186400",
        ),
        (
            "781c313761737369676e65645f7365676d656e74732f7265616465722d31",
            "a267747970655f6964781e486173684d61703c53636f7065645365676d656e742c204f66667365743e6464617461984918a118a3186518\
             731863186f1870186518a11864186e1861186d1865186418641865186d186f186618731874187218651861186d18a11864186e1861186d\
             18651869186718721865186518741869186e186718731867187318651867186d1865186e187418a21866186e1875186d18621865187200\
             186518741878185f1869186418f618a11864187218651861186400",
        ),
        (
            "782f3139756e61737369676e65645f7365676d656e74732f64656d6f2f6772656574696e67732f302e2365706f63682e30",
            "a267747970655f696469746f6d6273746f6e6564646174618118a0",
        ),
    ];

    fn unhex(text: &str) -> Vec<u8> {
        let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(byte).collect()
    }

    fn recorded() -> Vec<(Vec<u8>, Vec<u8>)> {
        RECORDED.iter().map(|(key, value)| (unhex(key), unhex(value))).collect()
    }

    fn read(entries: &[(Vec<u8>, Vec<u8>)]) -> Result<Option<ReadersState>, Foreign> {
        let allowance = Allowance::new(1 << 20);
        let mut reader = TableReader::default();
        entries.iter().try_for_each(|(key, value)| reader.feed(key, value, &allowance))?;
        Ok(reader.finish())
    }

    #[test]
    fn a_table_that_becomes_much_larger_than_its_bytes_is_left_for_want_of_memory() {
        let allowance = Allowance::new(4 << 10);
        let nulls = [&[0x99, 0x10, 0x00][..], &[0xf6; 4096]].concat();
        let key = unhex(RECORDED[2].0);
        assert_eq!(TableReader::default().feed(&key, &nulls, &allowance), Err(Foreign));
        assert!(allowance.is_exceeded());
        // Every entry is small, and all together are not.
        let (key, value) = recorded().swap_remove(1);
        let allowance = Allowance::new(64 << 10);
        let fed = (0..1000).try_for_each(|_| TableReader::default().feed(&key, &value, &allowance));
        assert_eq!(fed, Err(Foreign));
        assert!(allowance.is_exceeded());
    }

    #[test]
    fn a_group_as_the_python_client_wrote_it() {
        let readers = read(&recorded()).unwrap().unwrap().readers(&Allowance::new(1 << 20)).unwrap();
        assert_eq!(readers.online, ["reader-1"]);
        assert_eq!(readers.streams.len(), 1);
        assert_eq!(readers.streams[0].stream.to_string(), "demo/greetings");
        let segments = &readers.streams[0].segments;
        let found: Vec<_> = segments.iter().map(|one| (one.id.number, one.reader.as_deref(), one.offset)).collect();
        assert_eq!(found, [(0, Some("reader-1"), 0), (1, None, 0)]);
    }

    #[test]
    fn a_table_without_a_configuration_is_no_group() {
        assert_eq!(read(&recorded()[1..]), Ok(None));
        assert_eq!(read(&[(b"any".to_vec(), b"thing".to_vec())]), Ok(None));
    }

    #[test]
    fn no_bytes_make_reading_panic() {
        let good = recorded();
        for index in 1..good.len() {
            let whole = &good[index].1;
            for cut in 0..whole.len() {
                let mut bad = good.clone();
                bad[index].1.truncate(cut);
                assert_eq!(read(&bad), Err(Foreign), "{index} {cut}");
                bad[index].1 = whole.clone();
                bad[index].1[cut] ^= 0xff;
                let _ = read(&bad);
            }
        }
    }
}
