//! Taking apart CBOR, in which Rust and Python clients keep what their reader groups share.
//!
//! Guarantee: nesting is bounded, counts are checked against the bytes that remain, and against what memory may be
//! taken, before anything is allocated, and no bytes make this panic. What those clients do not write (tags, floats,
//! pieces of unknown length) is refused. Source: RFC 8949.

use headwater_records::{Allowance, Exceeded};

/// Deepest nesting; theirs has four levels.
const DEPTH_MAX: usize = 16;

/// The bytes are not what those clients write, or the allowance is exceeded, which says so.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not what a Rust or Python client writes")]
pub(crate) struct Foreign;

impl From<Exceeded> for Foreign {
    fn from(_: Exceeded) -> Self {
        Self
    }
}

/// Beside what it holds, and once more while the list that it is in grows.
const ITEM_BYTES: usize = 3 * size_of::<Value>();

/// One item, with what is in it. Lists of nothing but small numbers, by which those clients write bytes, are bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Number(i128),
    Bytes(Vec<u8>),
    Text(String),
    List(Vec<Value>),
    Map(Vec<(Value, Value)>),
    Null,
}

impl Value {
    /// The one item that the bytes are.
    pub(crate) fn read(bytes: &[u8], allowance: &Allowance) -> Result<Self, Foreign> {
        let mut rest = bytes;
        let value = item(&mut rest, 0, allowance)?;
        if rest.is_empty() { Ok(value) } else { Err(Foreign) }
    }

    /// A field of a map with texts as keys.
    pub(crate) fn field(&self, name: &str) -> Result<&Self, Foreign> {
        let fields = self.entries()?;
        let found = fields.iter().find(|(key, _)| matches!(key, Self::Text(key) if key == name));
        found.map(|(_, value)| value).ok_or(Foreign)
    }

    pub(crate) fn entries(&self) -> Result<&[(Self, Self)], Foreign> {
        if let Self::Map(entries) = self { Ok(entries) } else { Err(Foreign) }
    }

    /// A list of numbers, whatever their size.
    pub(crate) fn numbers(&self) -> Result<Vec<i64>, Foreign> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.iter().map(|byte| i64::from(*byte)).collect()),
            Self::List(items) => items.iter().map(Self::i64).collect(),
            Self::Number(_) | Self::Text(_) | Self::Map(_) | Self::Null => Err(Foreign),
        }
    }

    pub(crate) fn text(&self) -> Result<&str, Foreign> {
        if let Self::Text(text) = self { Ok(text) } else { Err(Foreign) }
    }

    pub(crate) fn i64(&self) -> Result<i64, Foreign> {
        if let Self::Number(number) = self { i64::try_from(*number).map_err(|_| Foreign) } else { Err(Foreign) }
    }

    /// Bytes, however they are written: as such or as a list of numbers.
    pub(crate) fn bytes(&self) -> Result<&[u8], Foreign> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err(Foreign) }
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], Foreign> {
    let (taken, left) = rest.split_at_checked(count).ok_or(Foreign)?;
    *rest = left;
    Ok(taken)
}

/// Kind of an item, and the number that belongs to it.
fn head(rest: &mut &[u8]) -> Result<(u8, u64), Foreign> {
    let first = take(rest, 1)?[0];
    let number = match first & 0x1f {
        short @ 0..=23 => u64::from(short),
        long @ 24..=27 => take(rest, 1 << (long - 24))?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)),
        _ => return Err(Foreign),
    };
    Ok((first >> 5, number))
}

/// A count of things of at least so many bytes each.
fn count(rest: &[u8], number: u64, item_bytes: usize) -> Result<usize, Foreign> {
    usize::try_from(number).ok().filter(|count| *count <= rest.len() / item_bytes).ok_or(Foreign)
}

/// The next item, if it is a number that a byte can hold.
fn small(rest: &mut &[u8]) -> Result<u8, Foreign> {
    match head(rest)? {
        (0, number) => u8::try_from(number).map_err(|_| Foreign),
        _ => Err(Foreign),
    }
}

fn item(rest: &mut &[u8], depth: usize, allowance: &Allowance) -> Result<Value, Foreign> {
    if depth == DEPTH_MAX {
        return Err(Foreign);
    }
    allowance.take(ITEM_BYTES)?;
    let (kind, number) = head(rest)?;
    Ok(match kind {
        0 => Value::Number(number.into()),
        1 => Value::Number(-1 - i128::from(number)),
        2 => {
            let count = count(rest, number, 1)?;
            allowance.take_text(count)?;
            Value::Bytes(take(rest, count)?.to_vec())
        }
        3 => {
            let count = count(rest, number, 1)?;
            allowance.take_text(count)?;
            Value::Text(std::str::from_utf8(take(rest, count)?).map_err(|_| Foreign)?.to_owned())
        }
        4 => {
            let count = count(rest, number, 1)?;
            let mut ahead = *rest;
            if (0..count).all(|_| small(&mut ahead).is_ok()) {
                allowance.take_text(count)?;
                Value::Bytes((0..count).map(|_| small(rest)).collect::<Result<_, Foreign>>()?)
            } else {
                Value::List((0..count).map(|_| item(rest, depth + 1, allowance)).collect::<Result<_, Foreign>>()?)
            }
        }
        5 => {
            let count = count(rest, number, 2)?;
            let mut entry = || Ok((item(rest, depth + 1, allowance)?, item(rest, depth + 1, allowance)?));
            Value::Map((0..count).map(|_| entry()).collect::<Result<_, Foreign>>()?)
        }
        7 if number == 22 => Value::Null,
        _ => return Err(Foreign),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plenty() -> Allowance {
        Allowance::new(1 << 20)
    }

    #[test]
    fn items_that_take_more_than_their_bytes_are_left_for_want_of_memory() {
        let nulls = [&[0x99, 0x10, 0x00][..], &[0xf6; 4096]].concat();
        let allowance = Allowance::new(16 * nulls.len());
        assert_eq!(Value::read(&nulls, &allowance), Err(Foreign));
        assert!(allowance.is_exceeded());
        assert!(Value::read(&nulls, &plenty()).is_ok());
        // The same of numbers are bytes, as those clients write them.
        let numbers = [&[0x99, 0x10, 0x00][..], &[0x07; 4096]].concat();
        assert!(Value::read(&numbers, &Allowance::new(2 * numbers.len())).is_ok());
    }

    #[test]
    fn examples_of_the_format_are_read() {
        for (bytes, expected) in [
            (&[0x17][..], Value::Number(23)),
            (&[0x18, 0x64], Value::Number(100)),
            (&[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Value::Number(i128::from(u64::MAX))),
            (&[0x38, 0x63], Value::Number(-100)),
            (&[0x64, 0x49, 0x45, 0x54, 0x46], Value::Text("IETF".to_owned())),
            (&[0x82, 0x01, 0xf6], Value::List(vec![Value::Number(1), Value::Null])),
            (&[0xa1, 0x61, 0x61, 0x41, 0x07], Value::Map(vec![(Value::Text("a".to_owned()), Value::Bytes(vec![7]))])),
        ] {
            assert_eq!(Value::read(bytes, &plenty()).unwrap(), expected);
        }
        let numbers = Value::read(&[0x82, 0x01, 0x18, 0xff], &plenty()).unwrap();
        assert_eq!((numbers.bytes(), numbers.numbers()), (Ok(&[1, 255][..]), Ok(vec![1, 255])));
        let larger = Value::read(&[0x82, 0x01, 0x19, 0x01, 0x00], &plenty()).unwrap();
        assert_eq!((larger.bytes(), larger.numbers()), (Err(Foreign), Ok(vec![1, 256])));
    }

    #[test]
    fn bytes_of_others_are_refused() {
        let deep = [0x81; 100];
        for bytes in
            [&[][..], &[0x18], &[0x9f, 0xff], &[0xc0, 0x01], &[0x01, 0x01], &[0x9a, 0xff, 0xff, 0xff, 0xff], &deep]
        {
            assert_eq!(Value::read(bytes, &plenty()), Err(Foreign), "{bytes:x?}");
        }
        for first in 0..=255 {
            for second in 0..=255 {
                let _ = Value::read(&[first, second, 0x61, 0x80, 0xff, 0xff, 0xff, 0xff], &plenty());
            }
        }
    }
}
