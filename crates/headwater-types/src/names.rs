//! Names of scopes, streams and segments, and what the segment store derives from a segment's name.

use std::fmt;
use std::sync::Arc;

use crate::limits::{NAME_BYTES_MAX, SEGMENT_NAME_BYTES_MAX};
use crate::{SegmentId, TransactionId};

/// Name of a scope, stream, table or reader group: ASCII letters, digits, `.` and `-`, with one optional leading `_`
/// for internal ones; 1 to 255 bytes. `.` and `..` are allowed, so a name is never a path.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Name(Arc<str>);

/// Why a text is not a name.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("name is empty")]
    Empty,
    /// More than 255 bytes.
    #[error("name of {bytes} bytes, limit {NAME_BYTES_MAX}")]
    TooLong {
        /// Length found.
        bytes: usize,
    },
    /// A character outside the allowed set.
    #[error("name contains {character:?} at byte {at}")]
    Character {
        /// The character.
        character: char,
        /// Where it stands.
        at: usize,
    },
    /// No slash between a scope and a stream.
    #[error("name is not SCOPE/STREAM")]
    Unscoped,
    /// A segment name that is too long, empty, not printable ASCII, or has an empty part.
    #[error("segment name is malformed")]
    Segment,
}

impl Name {
    /// Accepts internal names too. Source: the controller's own check of scope and stream names.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let body = text.strip_prefix('_').unwrap_or(text);
        if body.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong { bytes: text.len() });
        }
        match body.char_indices().find(|(_, c)| !(c.is_ascii_alphanumeric() || *c == '.' || *c == '-')) {
            Some((at, character)) => Err(NameError::Character { character, at: at + text.len() - body.len() }),
            None => Ok(Self(text.into())),
        }
    }

    /// As a user gives it: no leading underscore.
    pub fn parse_user(text: &str) -> Result<Self, NameError> {
        if text.starts_with('_') {
            return Err(NameError::Character { character: '_', at: 0 });
        }
        Self::parse(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Made by the system for itself, such as `_MARKorders`.
    pub fn is_internal(&self) -> bool {
        self.0.starts_with('_')
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A stream and the scope it lives in.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ScopedStream {
    /// Scope.
    pub scope: Name,
    /// Stream.
    pub stream: Name,
}

impl ScopedStream {
    /// From `scope/stream`; internal names pass.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (scope, stream) = text.split_once('/').ok_or(NameError::Unscoped)?;
        Ok(Self { scope: Name::parse(scope)?, stream: Name::parse(stream)? })
    }

    /// Name of one of its segments at the segment store.
    pub fn segment(&self, id: SegmentId) -> SegmentName {
        SegmentName(format!("{}/{}/{id}", self.scope, self.stream).into())
    }

    /// Name of the segment in which a transaction collects what will go to the segment `id`.
    pub fn transaction_segment(&self, id: SegmentId, transaction: TransactionId) -> SegmentName {
        SegmentName(format!("{}/{}/{id}{TRANSACTION}{transaction}", self.scope, self.stream).into())
    }
}

impl fmt::Display for ScopedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.scope, self.stream)
    }
}

/// The parts of an ordinary stream segment's name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct StreamSegment {
    /// Stream it belongs to.
    pub stream: ScopedStream,
    /// Number and epoch.
    pub id: SegmentId,
}

impl StreamSegment {
    /// Its name at the segment store.
    pub fn name(&self) -> SegmentName {
        self.stream.segment(self.id)
    }
}

impl fmt::Display for StreamSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream, self.id)
    }
}

/// Name of a segment at the segment store: 1 to 1024 bytes of printable ASCII. Any such text is a name; those of
/// streams, transactions and transient segments have the forms of Pravega.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SegmentName(Arc<str>);

const EPOCH: &str = ".#epoch.";
const TRANSACTION: &str = "#transaction.";
const TRANSIENT: &str = "#transient.";
/// Hexadecimal digits of a uuid.
const UUID_DIGITS: usize = 32;

impl SegmentName {
    /// Checks length and characters only.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.is_empty() || text.len() > SEGMENT_NAME_BYTES_MAX || !printable {
            return Err(NameError::Segment);
        }
        Ok(Self(text.into()))
    }

    /// The text, as a client writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `<parent>#transient.<writer>.<random>`, the form the Java and Rust clients recognise.
    pub fn transient(&self, writer: crate::WriterId, random: u128) -> Self {
        Self(format!("{self}{TRANSIENT}{:032x}.{random:032x}", writer.0).into())
    }

    /// The segment that a transaction's or transient segment will merge into; `None` for an ordinary one.
    pub fn parent(&self) -> Option<Self> {
        let (base, suffix) = split_suffix(&self.0);
        (!suffix.is_empty()).then(|| Self(base.into()))
    }

    /// Made by `CreateTransientSegment`.
    pub fn is_transient(&self) -> bool {
        split_suffix(&self.0).1.starts_with(TRANSIENT)
    }

    /// Part that decides where a segment lives. Epoch and transaction stay out of it: a rolling commit merges a
    /// transaction's segment into the segment of that number in another epoch, and a merge never leaves a container.
    pub fn placement(&self) -> &str {
        // An upload into a transaction has two suffixes, and merges into it.
        let mut base = &*self.0;
        while let (parent, suffix) = split_suffix(base)
            && !suffix.is_empty()
        {
            base = parent;
        }
        base.find(EPOCH).map_or(base, |at| &base[..at])
    }

    /// The container, of `count`, that owns this segment. Stable for the life of a store.
    pub fn container(&self, count: u32) -> u32 {
        crc32c::crc32c(self.placement().as_bytes()) % count
    }

    /// Text under which the segment is kept. A transaction's segment is kept without its parent's epoch: a client that
    /// takes up a transaction again derives the parent's epoch differently and means the same segment.
    pub fn key(&self) -> std::borrow::Cow<'_, str> {
        let (_, suffix) = split_suffix(&self.0);
        if suffix.starts_with(TRANSACTION) { format!("{}{suffix}", self.placement()).into() } else { (&*self.0).into() }
    }

    /// The parts, if this is a plain `scope/stream/number.#epoch.epoch`.
    pub fn stream_segment(&self) -> Option<StreamSegment> {
        let mut parts = self.0.split('/');
        let (scope, stream, last) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let (number, epoch) = last.split_once(EPOCH).unwrap_or((last, "0"));
        let decimal = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<i32>().ok()).flatten();
        Some(StreamSegment {
            stream: ScopedStream { scope: Name::parse(scope).ok()?, stream: Name::parse(stream).ok()? },
            id: SegmentId::new(decimal(number)?, decimal(epoch)?),
        })
    }
}

/// Base and last suffix of a segment's name; the suffix is empty for an ordinary segment.
fn split_suffix(name: &str) -> (&str, &str) {
    for mark in [TRANSIENT, TRANSACTION] {
        if let Some(at) = name.rfind(mark)
            && at > 0
            && name.len() >= at + mark.len() + UUID_DIGITS
        {
            return name.split_at(at);
        }
    }
    (name, "")
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(text: &str) -> SegmentName {
        SegmentName::parse(text).unwrap()
    }

    #[test]
    fn names_follow_the_rule_of_pravega() {
        for good in ["a", "A.b-9", "_MARKorders", "..", "."] {
            assert!(Name::parse(good).is_ok(), "{good}");
        }
        assert_eq!(Name::parse(""), Err(NameError::Empty));
        assert_eq!(Name::parse("_"), Err(NameError::Empty));
        assert_eq!(Name::parse("a/b"), Err(NameError::Character { character: '/', at: 1 }));
        assert_eq!(Name::parse("__a"), Err(NameError::Character { character: '_', at: 1 }));
        assert_eq!(Name::parse("é"), Err(NameError::Character { character: 'é', at: 0 }));
        assert_eq!(Name::parse(&"a".repeat(256)), Err(NameError::TooLong { bytes: 256 }));
        assert!(Name::parse(&"a".repeat(255)).is_ok());
        assert!(Name::parse_user("_a").is_err());
    }

    #[test]
    fn a_scoped_stream_is_two_names_and_a_slash() {
        let parsed = ScopedStream::parse("s/_MARKt").unwrap();
        assert_eq!((parsed.scope.as_str(), parsed.stream.as_str()), ("s", "_MARKt"));
        assert_eq!(ScopedStream::parse("s"), Err(NameError::Unscoped));
        assert_eq!(ScopedStream::parse("s/"), Err(NameError::Empty));
        assert_eq!(ScopedStream::parse("s/t/u"), Err(NameError::Character { character: '/', at: 1 }));
    }

    #[test]
    fn all_epochs_and_transactions_of_a_segment_number_share_a_container() {
        let transaction = "#transaction.00000001000000020000000300000004";
        let expected = "s/t/7";
        for name in ["s/t/7.#epoch.0", "s/t/7.#epoch.12"] {
            assert_eq!(segment(name).placement(), expected);
            let inside = segment(&format!("{name}{transaction}"));
            assert_eq!(inside.placement(), expected);
            assert_eq!(inside.key(), format!("s/t/7{transaction}"));
            assert_eq!(inside.parent(), Some(segment(name)));
        }
    }

    #[test]
    fn a_transient_segment_names_its_parent() {
        let parent = segment("s/t/0.#epoch.0");
        let transient = parent.transient(crate::WriterId(1), 2);
        assert_eq!(
            transient.as_str(),
            "s/t/0.#epoch.0#transient.00000000000000000000000000000001.00000000000000000000000000000002"
        );
        assert!(transient.is_transient());
        assert_eq!(transient.parent(), Some(parent));
    }

    #[test]
    fn an_upload_into_a_transaction_shares_its_container_with_or_without_an_epoch() {
        let id = "00000001000000020000000300000004";
        for parent in ["s/t/7.#epoch.3", "s/t/7"] {
            let transaction = segment(&format!("{parent}{TRANSACTION}{id}"));
            let upload = transaction.transient(crate::WriterId(1), 2);
            assert_eq!(upload.parent(), Some(transaction));
            assert_eq!(upload.placement(), "s/t/7");
        }
    }

    #[test]
    fn stream_segments_parse_back_into_their_parts() {
        let stream = ScopedStream { scope: Name::parse("s").unwrap(), stream: Name::parse("t").unwrap() };
        let id = SegmentId::new(3, 4);
        assert_eq!(stream.segment(id).stream_segment(), Some(StreamSegment { stream, id }));
        for other in ["s/t/3.#epoch.+4", "s/t/x", "s/t", "s/t/1/2", "s//1", "s/t/99999999999"] {
            assert_eq!(segment(other).stream_segment(), None, "{other}");
        }
    }

    #[test]
    fn segment_names_are_printable_ascii_of_bounded_length() {
        for bad in ["", "a b", "a\u{0}", "é", &"a".repeat(1025)] {
            assert!(SegmentName::parse(bad).is_err(), "{bad:?}");
        }
    }
}
