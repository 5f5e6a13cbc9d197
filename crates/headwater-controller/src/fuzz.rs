//! The body of the fuzz target of the controller's records, and of what clients keep and the controller reads. The fuzz
//! package calls it; in tests it replays the records of released stores, and meets them changed at random.

#[cfg(test)]
#[path = "../../../fuzz/mutate.rs"]
mod mutate;

use crate::codec::DecodeError;
use crate::state::clock::Moment;
use crate::state::epochs::{Epoch, SealedSegment};
use crate::state::groups::{GroupRecord, Subscriber};
use crate::state::head::Head;
use crate::state::readers::StateReader;
use crate::state::retention::Kept;
use crate::state::tables::Table;
use crate::state::transactions::Transaction;
use crate::state::watermarks::WriterMark;

/// What can be read is written, and read as the same.
fn again<T>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
    encode: impl Fn(T) -> bytes::Bytes,
) -> usize {
    let Ok(record) = decode(bytes) else { return 0 };
    let written = encode(record);
    // Written anew it may be shorter: an older version of a record lacks fields, and none has more than it says.
    let Ok(record) = decode(&written) else { panic!("a record that was just written cannot be read") };
    assert_eq!(encode(record), written);
    1
}

/// Takes bytes for a record of every kind. Returns of how many kinds they were.
pub fn fuzz_records(bytes: &[u8]) -> usize {
    let allowance = headwater_records::Allowance::new(16 << 20);
    let mut reader = StateReader::new(&allowance);
    let is_state = reader.feed(bytes).is_ok() && matches!(reader.finish(), Ok(Some(_)));
    usize::from(is_state)
        + again(bytes, Epoch::decode, |record| record.encode())
        + again(bytes, SealedSegment::decode, |record| record.encode())
        + again(bytes, GroupRecord::decode, |record| record.encode())
        + again(bytes, Subscriber::decode, |record| record.encode())
        + again(bytes, Head::decode, |record| record.encode())
        + again(bytes, Kept::decode, |record| record.encode())
        + again(bytes, Moment::decode, |record| record.encode())
        + again(bytes, Table::decode, |record| record.encode())
        + again(bytes, Transaction::decode, |record| record.encode())
        + again(bytes, WriterMark::decode, |record| record.encode())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records_of_released_stores() -> Vec<Vec<u8>> {
        let stores =
            concat!(include_str!("../tests/golden/0.1.0.store"), include_str!("../tests/golden/0.1.0-2.store"));
        let is_hexadecimal =
            |word: &&str| word.len().is_multiple_of(2) && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        let record = |word: &str| {
            let byte = |at: usize| u8::from_str_radix(&word[at..at + 2], 16).unwrap();
            (0..word.len()).step_by(2).map(byte).collect()
        };
        stores.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(is_hexadecimal).map(record).collect()
    }

    #[test]
    fn records_that_nobody_has_chosen_do_no_harm() {
        let long = std::time::Duration::from_millis(1_500);
        mutate::meet("records", &records_of_released_stores(), long, |input| _ = fuzz_records(input));
    }

    #[test]
    fn records_of_released_stores_do_no_harm_however_they_are_cut() {
        let mut read = 0;
        for record in records_of_released_stores() {
            read += fuzz_records(&record);
            for end in 0..record.len().min(300) {
                fuzz_records(&record[..end]);
                let mut changed = record.clone();
                changed[end] ^= 0xff;
                fuzz_records(&changed);
            }
        }
        assert!(read >= 10, "{read} records");
    }
}
