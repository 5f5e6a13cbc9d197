//! Stream cuts: a position in a whole stream, as bytes and as the text that applications put into settings.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use headwater_types::{KeyRange, ScopedStream, SegmentId, StreamSegment};

use crate::input::stream;
use crate::{Input, Offsets, Output, RecordError};

/// A position in a stream: how far each of some segments that hold all keys is read. A negative offset means that a segment
/// is read to its end, or, as the server's controller has it, that it has not been opened.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct StreamCut {
    /// Stream.
    pub stream: ScopedStream,
    /// Offset in each segment, in bytes.
    pub offsets: BTreeMap<SegmentId, i64>,
}

/// Where reading begins or ends.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Cut {
    /// As early as there is something, or never.
    #[default]
    Unbounded,
    /// There.
    At(StreamCut),
}

/// Text form of a cut that is none.
const UNBOUNDED: &str = "UNBOUNDED";
/// Bytes that the text within the text form may have: many times what ten thousand segments need.
const TEXT_BYTES_MAX: u64 = 4 << 20;
/// Least bytes of a segment's entry.
const ENTRY_BYTES: usize = 2;

impl StreamCut {
    /// The part of `offsets` that is in `stream`.
    pub fn of(stream: ScopedStream, offsets: &Offsets) -> Self {
        let ours = offsets.iter().filter(|(segment, _)| segment.stream == stream);
        let offsets = ours.map(|(segment, offset)| (segment.id, *offset)).collect();
        Self { stream, offsets }
    }

    /// All streams that `offsets` name, each with its part.
    pub fn all(offsets: &Offsets) -> Vec<Self> {
        let mut cuts: BTreeMap<&ScopedStream, BTreeMap<SegmentId, i64>> = BTreeMap::new();
        for (segment, offset) in offsets {
            cuts.entry(&segment.stream).or_default().insert(segment.id, *offset);
        }
        cuts.into_iter().map(|(stream, offsets)| Self { stream: stream.clone(), offsets }).collect()
    }

    /// Its segments under their full names.
    pub fn segments(&self) -> impl Iterator<Item = (StreamSegment, i64)> {
        let named =
            |(id, offset): (&SegmentId, &i64)| (StreamSegment { stream: self.stream.clone(), id: *id }, *offset);
        self.offsets.iter().map(named)
    }

    /// As bytes.
    ///
    /// # Errors
    /// An offset beyond 2^61.
    pub fn encode(&self) -> Result<Bytes, RecordError> {
        let mut output = Output::default();
        self.write(&mut output);
        output.finish()
    }

    /// From bytes, also those of clients before offsets had a sign.
    ///
    /// # Errors
    /// Something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut input = Input::new(bytes);
        let cut = Self::read(&mut input)?;
        input.end()?;
        Ok(cut)
    }

    pub(crate) fn write(&self, output: &mut Output) {
        output.record(
            1,
            &[&|output| {
                output.stream(&self.stream).map(
                    &self.offsets,
                    |output, id| output.compact_long(id.as_i64()),
                    |output, offset| output.compact_signed_long(*offset),
                );
            }],
        );
    }

    pub(crate) fn read(input: &mut Input<'_>) -> Result<Self, RecordError> {
        let mut revisions = input.record(1)?;
        let mut body = revisions.first()?;
        let stream = body.stream()?;
        let offset = if revisions.version() == 0 { Input::compact_long } else { Input::compact_signed_long };
        Ok(Self { stream, offsets: body.map(ENTRY_BYTES, |input| id(input.compact_long()?), offset)? })
    }

    /// As text.
    pub fn to_text(&self) -> String {
        let list = |number: fn((&SegmentId, &i64)) -> i64| {
            self.offsets.iter().map(|entry| number(entry).to_string()).collect::<Vec<_>>().join(",")
        };
        let (numbers, epochs) = (list(|(id, _)| id.number.into()), list(|(id, _)| id.epoch.into()));
        let text = format!("0:{}:{numbers}:{epochs}:{}", self.stream, list(|(_, offset)| *offset));
        let mut zipped = GzEncoder::new(Vec::new(), Compression::default());
        let zipped = zipped.write_all(text.as_bytes()).and_then(|()| zipped.finish());
        STANDARD.encode(zipped.expect("nothing fails that is written into memory"))
    }

    /// From text.
    ///
    /// # Errors
    /// Something else.
    pub fn from_text(text: &str) -> Result<Self, RecordError> {
        let malformed = || RecordError::Form("stream cut");
        let zipped = STANDARD.decode(text.trim()).map_err(|_| malformed())?;
        let mut inner = String::new();
        let unzipped = GzDecoder::new(zipped.as_slice()).take(TEXT_BYTES_MAX + 1).read_to_string(&mut inner);
        unzipped.map_err(|_| malformed())?;
        let parts: Vec<&str> = inner.splitn(5, ':').collect();
        let [version, name, numbers, epochs, offsets] = parts[..] else { return Err(malformed()) };
        if version != "0" || inner.len() as u64 > TEXT_BYTES_MAX {
            return Err(malformed());
        }
        // A cut of no segments has three empty lists.
        let list = |text: &str| -> Result<Vec<i64>, RecordError> {
            let numbers = text.split(',').map(str::trim).filter(|_| !text.is_empty());
            numbers.map(|number| number.parse().map_err(|_| malformed())).collect()
        };
        let (numbers, epochs, offsets) = (list(numbers)?, list(epochs)?, list(offsets)?);
        if numbers.len() != epochs.len() || numbers.len() != offsets.len() {
            return Err(malformed());
        }
        let half = |number: i64| i32::try_from(number).ok().filter(|number| *number >= 0).ok_or_else(malformed);
        let ids =
            numbers.into_iter().zip(epochs).map(|(number, epoch)| Ok(SegmentId::new(half(number)?, half(epoch)?)));
        let offsets = ids.zip(offsets).map(|(id, offset)| Ok((id?, offset))).collect::<Result<_, _>>()?;
        Ok(Self { stream: stream(name)?, offsets })
    }
}

fn id(number: i64) -> Result<SegmentId, RecordError> {
    SegmentId::from_i64(number).ok_or(RecordError::OutOfRange { what: "segment", number })
}

impl Cut {
    /// As bytes; an unbounded one has none.
    ///
    /// # Errors
    /// An offset beyond 2^61.
    pub fn encode(&self) -> Result<Bytes, RecordError> {
        match self {
            Self::Unbounded => Ok(Bytes::new()),
            Self::At(cut) => cut.encode(),
        }
    }

    /// From bytes.
    ///
    /// # Errors
    /// Something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        Self::read(Input::new(bytes))
    }

    pub(crate) fn read(mut input: Input<'_>) -> Result<Self, RecordError> {
        if input.is_empty() {
            return Ok(Self::Unbounded);
        }
        let cut = StreamCut::read(&mut input)?;
        input.end()?;
        Ok(Self::At(cut))
    }

    /// As text.
    pub fn to_text(&self) -> String {
        match self {
            Self::Unbounded => UNBOUNDED.to_owned(),
            Self::At(cut) => cut.to_text(),
        }
    }

    /// From text.
    ///
    /// # Errors
    /// Something else.
    pub fn from_text(text: &str) -> Result<Self, RecordError> {
        if text == UNBOUNDED { Ok(Self::Unbounded) } else { StreamCut::from_text(text).map(Self::At) }
    }
}

/// Whether a segment is still to be read by whoever reads these segments of its stream, or waits to, each with its keys. For
/// each key one segment is the first that is not read; what was there no later and has a key in common with another that is
/// not among them leads to it. Where keys are not known, it is taken to be unread.
pub fn is_unread(
    segment: SegmentId,
    range: Option<KeyRange>,
    unread: impl IntoIterator<Item = (SegmentId, Option<KeyRange>)>,
) -> bool {
    // Ids order by epoch first, and segments of one epoch have no key in common.
    let leads = |(first, keys): (SegmentId, Option<KeyRange>)| {
        first == segment || first < segment && keys.zip(range).is_none_or(|(keys, range)| keys.overlaps(range))
    };
    unread.into_iter().any(leads)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{any_cut, hex, stream, unhex};
    use proptest::prelude::*;

    #[test]
    fn a_cut_has_the_bytes_that_java_gives_it() {
        let cut = StreamCut {
            stream: stream("scope/stream"),
            offsets: [(SegmentId::new(0, 0), 28), (SegmentId::new(1, 1), -1)].into(),
        };
        let bytes = "000101000000001a000c73636f70652f73747265616d02001cc00000010000000180";
        assert_eq!(hex(&cut.encode().unwrap()), bytes);
        assert_eq!(StreamCut::decode(&unhex(bytes)), Ok(cut));
        let cut = StreamCut {
            stream: stream("s1/orders"),
            offsets: [(SegmentId::new(0, 0), 100), (SegmentId::new(2, 1), -1)].into(),
        };
        let bytes = "0001010000000018000973312f6f726465727302002064c00000010000000280";
        assert_eq!(hex(&cut.encode().unwrap()), bytes);
        assert_eq!(Cut::decode(&unhex(bytes)), Ok(Cut::At(cut)));
    }

    #[test]
    fn what_was_there_no_later_and_shares_a_key_leads_to_a_segment() {
        let (low, high) = (KeyRange::new(0.0, 0.5).unwrap(), KeyRange::new(0.5, 1.0).unwrap());
        let [a, b, c] = [SegmentId::new(0, 0), SegmentId::new(1, 0), SegmentId::new(2, 1)];
        assert!(!is_unread(a, Some(low), [(b, Some(high))]), "the other half is nothing to it");
        assert!(is_unread(c, Some(low), [(a, Some(low)), (b, Some(high))]), "it comes after the first");
        assert!(!is_unread(a, Some(low), [(c, Some(low)), (b, Some(high))]), "what comes after it is read already");
        assert!(is_unread(b, None, [(b, None)]), "it is there itself");
        assert!(is_unread(c, None, [(b, Some(high))]) && is_unread(c, Some(low), [(b, None)]), "nobody knows the keys");
        assert!(!is_unread(c, Some(low), []), "nothing is read any more");
    }

    #[test]
    fn a_cut_of_an_older_client_is_read() {
        // The offset 100 without a sign takes two bytes, with the first two bits telling so.
        let bytes = unhex("00000100000000090003732f7401004064");
        let cut = StreamCut { stream: stream("s/t"), offsets: [(SegmentId::new(0, 0), 100)].into() };
        assert_eq!(StreamCut::decode(&bytes), Ok(cut));
    }

    #[test]
    fn a_text_of_java_is_read() {
        let cut = StreamCut {
            stream: stream("scope/stream"),
            offsets: [(SegmentId::new(0, 0), 28), (SegmentId::new(1, 1), -1)].into(),
        };
        let text = "H4sIAAAAAAAAADOwKk7OL0jVLy4pSk3MtTLQMQRjIwsdXUMABz/BcRwAAAA=";
        assert_eq!(StreamCut::from_text(text), Ok(cut.clone()));
        assert_eq!(StreamCut::from_text(&cut.to_text()), Ok(cut));
        assert_eq!(Cut::from_text("UNBOUNDED"), Ok(Cut::Unbounded));
        assert_eq!(Cut::Unbounded.to_text(), "UNBOUNDED");
        assert_eq!(Cut::decode(&[]), Ok(Cut::Unbounded));
    }

    #[test]
    fn other_texts_are_refused() {
        let zip = |text: &str| {
            let mut zipped = GzEncoder::new(Vec::new(), Compression::default());
            zipped.write_all(text.as_bytes()).unwrap();
            STANDARD.encode(zipped.finish().unwrap())
        };
        assert!(StreamCut::from_text(&zip("0:s/t:0:0:1")).is_ok());
        assert!(StreamCut::from_text(&zip("0:s/t:::")).unwrap().offsets.is_empty());
        for inner in ["", "1:s/t:0:0:1", "0:s:0:0:1", "0:s/t:0:0", "0:s/t:0,1:0:1", "0:s/t:-1:0:1", "0:s/t:x:0:1"] {
            assert!(StreamCut::from_text(&zip(inner)).is_err(), "{inner}");
        }
        let bomb = zip(&format!("0:s/t:0:0:{}", " ".repeat(TEXT_BYTES_MAX as usize)));
        assert!(bomb.len() < 10_000 && StreamCut::from_text(&bomb).is_err());
        for text in ["", "H4sI", "unbounded", "\u{e9}"] {
            assert!(StreamCut::from_text(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_cut_comes_back(cut in any_cut()) {
            prop_assert_eq!(Cut::decode(&cut.encode().unwrap()), Ok(cut.clone()));
            prop_assert_eq!(Cut::from_text(&cut.to_text()), Ok(cut));
        }

        #[test]
        fn no_bytes_and_no_text_make_reading_panic(bytes in any::<Vec<u8>>(), text in any::<String>()) {
            let _ = (Cut::decode(&bytes), Cut::from_text(&text), Cut::from_text(&STANDARD.encode(&bytes)));
        }
    }
}
