//! Where the readers of a Rust or Python client's group stand: the state that they keep in the group's table.
//!
//! Each key is an outer name with its length before it, and behind a slash an inner one; each value says its type and has
//! its bytes. Source: the layout of `ReaderGroupState` in the crate `pravega-client` 0.3.7.

use std::collections::BTreeSet;

use headwater_records::group::Compacted;
use headwater_types::{Name, ScopedStream, SegmentId, SegmentName, StreamSegment};

use super::cbor::{Foreign, Value};
use super::readers::ReadersState;

/// The key that every group has and no other table of such a client.
pub(crate) const CONFIG: &str = "06config/default";
const ASSIGNED: &str = "17assigned_segments/";
const UNASSIGNED: &str = "19unassigned_segments/";
const FUTURE: &str = "15future_segments/";
/// Type of a value that stands for none.
const TOMBSTONE: &str = "tombstone";

impl ReadersState {
    /// What the entries of a table say; `None` if it is no group's.
    pub(crate) fn of_table<'a>(
        entries: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<Option<Self>, Foreign> {
        let mut state = Compacted::default();
        let mut is_group = false;
        for (key, value) in entries {
            // Tables that are no groups have any keys.
            let Ok(Value::Text(key)) = Value::read(key) else { continue };
            if key == CONFIG {
                is_group = true;
            } else if let Some(reader) = key.strip_prefix(ASSIGNED) {
                let Some(held) = content(value)? else { continue };
                let position = |(segment, offset): &(Value, Value)| Ok((held_segment(segment)?, position(offset)?));
                let held = held.entries()?.iter().map(position).collect::<Result<_, _>>()?;
                state.assigned.insert(reader.to_owned(), held);
            } else if let Some(segment) = key.strip_prefix(UNASSIGNED) {
                let Some(offset) = content(value)? else { continue };
                state.unassigned.insert(named_segment(segment)?, position(&offset)?);
            } else if let Some(segment) = key.strip_prefix(FUTURE) {
                let Some(waits_for) = content(value)? else { continue };
                let waits_for = waits_for.list()?.iter().map(Value::i64).collect::<Result<BTreeSet<_>, _>>()?;
                state.future.insert(named_segment(segment)?, waits_for);
            }
        }
        Ok(is_group.then(|| state.into()))
    }
}

/// What a value holds; `None` for a tombstone.
fn content(value: &[u8]) -> Result<Option<Value>, Foreign> {
    let value = Value::read(value)?;
    if value.field("type_id")?.text()? == TOMBSTONE {
        return Ok(None);
    }
    Value::read(&value.field("data")?.bytes()?).map(Some)
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

    /// Entries that the Python client 0.3.8 wrote, key and value: a configuration, a segment that waits for a reader, one that
    /// a reader has, and a tombstone of the time before that.
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
        ReadersState::of_table(entries.iter().map(|(key, value)| (key.as_slice(), value.as_slice())))
    }

    #[test]
    fn a_group_as_the_python_client_wrote_it() {
        let readers = read(&recorded()).unwrap().unwrap().readers();
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
