//! Checkpoints as applications keep them: a name, and where all readers of a group were.

use std::collections::BTreeMap;

use bytes::Bytes;
use headwater_types::ScopedStream;

use crate::{Input, Offsets, Output, RecordError, StreamCut};

/// Where a group was in all its streams.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Checkpoint {
    /// Name, as whoever asked for it gave it.
    pub name: String,
    /// One cut for each stream, under its name.
    pub cuts: BTreeMap<ScopedStream, StreamCut>,
}

/// Least bytes of an entry: a name and a cut without segments.
const ENTRY_BYTES: usize = 13;

impl Checkpoint {
    /// A checkpoint at these offsets.
    pub fn new(name: impl Into<String>, offsets: &Offsets) -> Self {
        let cuts = StreamCut::all(offsets).into_iter().map(|cut| (cut.stream.clone(), cut)).collect();
        Self { name: name.into(), cuts }
    }

    /// As bytes.
    ///
    /// # Errors
    /// A name of 64 KiB or more, an offset beyond 2^61.
    pub fn encode(&self) -> Result<Bytes, RecordError> {
        let mut output = Output::default();
        output.record(
            0,
            &[&|output| {
                output.text(&self.name).map(&self.cuts, Output::stream, |output, cut| {
                    cut.write(output);
                    output
                });
            }],
        );
        output.finish()
    }

    /// From bytes.
    ///
    /// # Errors
    /// Something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut input = Input::new(bytes);
        let mut body = input.record(0)?.first()?;
        input.end()?;
        Ok(Self { name: body.text()?, cuts: body.map(ENTRY_BYTES, Input::stream, StreamCut::read)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{any_offsets, hex, segment};
    use proptest::prelude::*;

    #[test]
    fn a_checkpoint_has_the_form_of_java() {
        let offsets = [(segment("s/t/0.#epoch.0"), 5), (segment("s/u/1.#epoch.0"), -1)].into();
        let checkpoint = Checkpoint::new("c", &offsets);
        assert_eq!(checkpoint.cuts.len(), 2);
        // Put together by hand: a name, two entries, each a stream and the record of its cut.
        let cut = |name: &str, id: &str, offset: &str| format!("0003{name}00010100000000080003{name}01{id}{offset}");
        let expected = format!("000001000000002e00016302{}{}", cut("732f74", "00", "05"), cut("732f75", "01", "80"));
        assert_eq!(hex(&checkpoint.encode().unwrap()), expected);
        assert_eq!(Checkpoint::decode(&checkpoint.encode().unwrap()), Ok(checkpoint));
    }

    proptest! {
        #[test]
        fn a_checkpoint_comes_back(name in any::<String>(), offsets in any_offsets()) {
            let offsets = offsets.into_iter().map(|(segment, offset)| (segment, offset >> 3)).collect();
            let checkpoint = Checkpoint::new(name, &offsets);
            prop_assert_eq!(Checkpoint::decode(&checkpoint.encode().unwrap()), Ok(checkpoint));
        }

        #[test]
        fn no_bytes_make_reading_panic(bytes in any::<Vec<u8>>()) {
            let _ = Checkpoint::decode(&bytes);
        }
    }
}
