//! Field encodings: numbers, text, byte strings, lists. Everything is big-endian.
//!
//! A [`Reader`] never reads past its frame and never allocates for a length or count before it has compared it with
//! what is left. Text is `u16` length + UTF-8, byte strings are `i32` length + bytes, lists `i32` count + items.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use headwater_types::{AttributeId, WriterId};

use crate::error::{EncodeError, Malformed, WireError};
use crate::{FrameSink, LIST_ITEMS_MAX};

/// Text as it stood on the wire, at most 65 535 bytes. Emit ASCII only: Java and Rust clients disagree on some of the rest.
pub type Text = Arc<str>;

/// A delegation token: empty when there is none. It does not show in debug output.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Token(Text);

impl Token {
    /// Any text is a token; whether it is a good one is for whoever checks it.
    pub fn new(text: impl Into<Text>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "hidden" })
    }
}

/// All bytes from here to the end of the frame.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rest(pub Bytes);

/// One event with its 8-byte header (code 0, then the payload's length), which is how event writers store it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event(Bytes);

impl Event {
    /// Puts the header in front of `payload`.
    pub fn new(payload: &[u8]) -> Result<Self, EncodeError> {
        let limit = crate::FRAME_PAYLOAD_BYTES_MAX;
        if payload.len() > limit {
            return Err(EncodeError::FrameTooLong { bytes: payload.len(), limit });
        }
        let mut bytes = BytesMut::with_capacity(8 + payload.len());
        bytes.extend_from_slice(&EVENT_CODE.to_be_bytes());
        bytes.extend_from_slice(&(payload.len() as i32).to_be_bytes());
        bytes.extend_from_slice(payload);
        Ok(Self(bytes.freeze()))
    }

    /// Header and payload.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

/// Code of an event, in data that is stored and inside `ConditionalAppend`.
const EVENT_CODE: i32 = 0;

/// Where the bytes of byte strings come from.
enum Backing<'a> {
    /// Slices of a frame that is worth keeping as a whole.
    Slices(&'a Bytes),
    /// A copy per byte string: right for commands that have one.
    CopyField,
    /// Slices of one copy of the frame, made when first needed: right for commands that may have hundreds.
    CopyFrame(Option<Bytes>),
}

/// Reads the payload of one frame from front to back.
pub(crate) struct Reader<'a> {
    payload: &'a [u8],
    at: usize,
    backing: Backing<'a>,
}

impl<'a> Reader<'a> {
    /// Byte strings become slices of `payload` and keep it alive.
    pub(crate) fn slicing(payload: &'a Bytes) -> Self {
        Self { payload, at: 0, backing: Backing::Slices(payload) }
    }

    /// Every byte string becomes an allocation of its own.
    pub(crate) fn copying(payload: &'a [u8]) -> Self {
        Self { payload, at: 0, backing: Backing::CopyField }
    }

    /// All byte strings share one copy of the payload.
    pub(crate) fn copying_once(mut self) -> Self {
        if let Backing::CopyField = self.backing {
            self.backing = Backing::CopyFrame(None);
        }
        self
    }

    /// All of the payload, read or not.
    pub(crate) fn payload(&self) -> &'a [u8] {
        self.payload
    }

    fn left(&self) -> usize {
        self.payload.len() - self.at
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let left = &self.payload[self.at..];
        let taken = left.get(..count).ok_or(Malformed::Short { needed: count, left: left.len() })?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        Ok(self.take(N)?.try_into().expect("took N bytes"))
    }

    fn take_bytes(&mut self, count: usize) -> Result<Bytes, Malformed> {
        let start = self.at;
        let taken = self.take(count)?;
        Ok(match &mut self.backing {
            Backing::Slices(frame) => frame.slice(start..start + count),
            Backing::CopyField => Bytes::copy_from_slice(taken),
            Backing::CopyFrame(copy) => {
                copy.get_or_insert_with(|| Bytes::copy_from_slice(self.payload)).slice(start..start + count)
            }
        })
    }

    /// A length or count: never negative.
    fn length(&mut self) -> Result<usize, Malformed> {
        let length = i32::take(self)?;
        usize::try_from(length).map_err(|_| Malformed::Negative { length })
    }

    /// A field that every version of the command has.
    pub(crate) fn required<T: Field>(&mut self, command: &'static str, field: &'static str) -> Result<T, WireError> {
        T::take(self).map_err(|reason| WireError::Malformed { command, field, reason })
    }

    /// A field that older peers do not send. It is absent when nothing at all is left: a frame that ends in the middle
    /// of a field was cut, no version ever sent one.
    pub(crate) fn optional<T: Field>(
        &mut self,
        command: &'static str,
        field: &'static str,
        absent: T,
    ) -> Result<T, WireError> {
        if self.left() == 0 { Ok(absent) } else { self.required(command, field) }
    }
}

/// One field of a command.
pub(crate) trait Field: Sized {
    /// Fewest bytes a value takes; bounds what a list may announce.
    const BYTES_MIN: usize;
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed>;
    /// Bytes that `put` will write, or why it must not be called.
    fn encoded_bytes(&self) -> Result<usize, EncodeError>;
    fn put(&self, out: &mut impl FrameSink);
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Field for $number {
            const BYTES_MIN: usize = size_of::<$number>();
            fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
                Ok(Self::from_be_bytes(reader.array()?))
            }
            fn encoded_bytes(&self) -> Result<usize, EncodeError> {
                Ok(Self::BYTES_MIN)
            }
            fn put(&self, out: &mut impl FrameSink) {
                out.put_slice(&self.to_be_bytes());
            }
        }
    )*};
}
numbers!(i8, i32, i64);

/// Ids are 16 bytes, the most significant first.
macro_rules! ids {
    ($($id:ident),*) => {$(
        impl Field for $id {
            const BYTES_MIN: usize = 16;
            fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
                Ok(Self(u128::from_be_bytes(reader.array()?)))
            }
            fn encoded_bytes(&self) -> Result<usize, EncodeError> {
                Ok(Self::BYTES_MIN)
            }
            fn put(&self, out: &mut impl FrameSink) {
                out.put_slice(&self.0.to_be_bytes());
            }
        }
    )*};
}
ids!(WriterId, AttributeId);

impl Field for bool {
    const BYTES_MIN: usize = 1;
    /// Anything but zero is true, as in the Java client; we write only 0 and 1, which is all the Rust client accepts.
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(i8::take(reader)? != 0)
    }
    fn encoded_bytes(&self) -> Result<usize, EncodeError> {
        Ok(Self::BYTES_MIN)
    }
    fn put(&self, out: &mut impl FrameSink) {
        i8::from(*self).put(out);
    }
}

impl Field for Text {
    const BYTES_MIN: usize = 2;
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let length = u16::from_be_bytes(reader.array()?);
        if length == 0 {
            return Ok(Self::default());
        }
        let text = str::from_utf8(reader.take(length.into())?).map_err(|_| Malformed::NotUtf8)?;
        Ok(text.into())
    }
    fn encoded_bytes(&self) -> Result<usize, EncodeError> {
        let bytes = self.len();
        if bytes > usize::from(u16::MAX) { Err(EncodeError::TextTooLong { bytes }) } else { Ok(2 + bytes) }
    }
    fn put(&self, out: &mut impl FrameSink) {
        out.put_slice(&(self.len() as u16).to_be_bytes());
        out.put_slice(self.as_bytes());
    }
}

impl Field for Token {
    const BYTES_MIN: usize = Text::BYTES_MIN;
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Text::take(reader).map(Self)
    }
    fn encoded_bytes(&self) -> Result<usize, EncodeError> {
        self.0.encoded_bytes()
    }
    fn put(&self, out: &mut impl FrameSink) {
        self.0.put(out);
    }
}

impl Field for Bytes {
    const BYTES_MIN: usize = 4;
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let length = reader.length()?;
        reader.take_bytes(length)
    }
    fn encoded_bytes(&self) -> Result<usize, EncodeError> {
        Ok(4 + self.len())
    }
    fn put(&self, out: &mut impl FrameSink) {
        (self.len() as i32).put(out);
        out.put_shared(self);
    }
}

impl Field for Rest {
    const BYTES_MIN: usize = 0;
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let left = reader.left();
        reader.take_bytes(left).map(Self)
    }
    fn encoded_bytes(&self) -> Result<usize, EncodeError> {
        Ok(self.0.len())
    }
    fn put(&self, out: &mut impl FrameSink) {
        out.put_shared(&self.0);
    }
}

impl Field for Event {
    const BYTES_MIN: usize = 8;
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let start = reader.at;
        let code = i32::take(reader)?;
        if code != EVENT_CODE {
            return Err(Malformed::NotAnEvent { code });
        }
        let length = reader.length()?;
        reader.at = start;
        reader.take_bytes(8 + length).map(Self)
    }
    fn encoded_bytes(&self) -> Result<usize, EncodeError> {
        Ok(self.0.len())
    }
    fn put(&self, out: &mut impl FrameSink) {
        out.put_shared(&self.0);
    }
}

impl<T: Field> Field for Vec<T> {
    const BYTES_MIN: usize = 4;
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = reader.length()?;
        if count > LIST_ITEMS_MAX || count > reader.left() / T::BYTES_MIN {
            return Err(Malformed::TooManyItems { count });
        }
        let mut items = Self::with_capacity(count);
        for _ in 0..count {
            items.push(T::take(reader)?);
        }
        Ok(items)
    }
    fn encoded_bytes(&self) -> Result<usize, EncodeError> {
        if self.len() > LIST_ITEMS_MAX {
            return Err(EncodeError::TooManyItems { count: self.len() });
        }
        self.iter().try_fold(4, |sum, item| Ok(sum + item.encoded_bytes()?))
    }
    fn put(&self, out: &mut impl FrameSink) {
        (self.len() as i32).put(out);
        for item in self {
            item.put(out);
        }
    }
}

/// Implements [`Field`] for a plain struct, field after field in the order of the list.
macro_rules! record {
    ($record:ident { $($field:ident : $type:ty),* }) => {
        impl $crate::field::Field for $record {
            const BYTES_MIN: usize = 0 $(+ <$type as $crate::field::Field>::BYTES_MIN)*;
            fn take(reader: &mut $crate::field::Reader<'_>) -> Result<Self, $crate::error::Malformed> {
                Ok(Self { $($field: <$type as $crate::field::Field>::take(reader)?),* })
            }
            fn encoded_bytes(&self) -> Result<usize, $crate::error::EncodeError> {
                Ok(0 $(+ $crate::field::Field::encoded_bytes(&self.$field)?)*)
            }
            fn put(&self, out: &mut impl $crate::FrameSink) {
                $($crate::field::Field::put(&self.$field, out);)*
            }
        }
    };
}
pub(crate) use record;

/// The inner size that precedes keys and values of tables; it must be exactly what its contents need.
pub(crate) fn take_inner_size(reader: &mut Reader<'_>) -> Result<i32, Malformed> {
    i32::take(reader)
}

/// Compares an inner size with what its contents took.
pub(crate) fn check_inner_size(announced: i32, needed: usize) -> Result<(), Malformed> {
    if usize::try_from(announced) == Ok(needed) { Ok(()) } else { Err(Malformed::InnerSize { announced, needed }) }
}
