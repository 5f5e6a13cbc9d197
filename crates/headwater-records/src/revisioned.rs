//! One segment as a list of changes that clients agree on: each appends a change at the end that it has seen, and the server
//! refuses the append if the end has moved.
//!
//! ```text
//!   ┌───────┬──────────────────────┬───────┬───────┬──────────────────────┬───────┐
//!   │ event │ event: a whole state │ event │ event │ event: a whole state │ event │ ► next append at the end, or not at all
//!   └───────┴──────────────────────┴───────┴───────┴──────────────────────┴───────┘
//!     gone    truncated here                         the attribute names this place: read from here
//! ```
//!
//! Source: Pravega's revisioned stream client and its state synchronizer.

use bytes::{Buf, Bytes, BytesMut};

use crate::{Allowance, Input, RecordError};

/// Bytes of an event's header: a type, which is 0, and the length of what follows.
pub const HEADER_BYTES: usize = 8;

/// `payload` as an event.
///
/// # Errors
/// A payload of 2 GiB or more.
pub fn event(payload: &[u8]) -> Result<Bytes, RecordError> {
    let mut output = crate::Output::default();
    output.i32(0).counted(|output| {
        output.raw(payload);
    });
    output.finish()
}

/// Events, read from an event's begin on in pieces of any size.
#[derive(Debug)]
pub struct Events {
    rest: BytesMut,
    /// Where the rest begins.
    offset: u64,
    payload_bytes_max: usize,
}

impl Events {
    /// The first event begins at `offset`. A payload of more than `payload_bytes_max` is refused before its bytes arrive.
    pub fn new(offset: u64, payload_bytes_max: usize) -> Self {
        Self { rest: BytesMut::new(), offset, payload_bytes_max }
    }

    /// Takes the bytes that follow those it has.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
    }

    /// Where the next event begins: the place at which reading can go on later, if no more bytes come.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Nothing of the next event has come.
    pub fn is_at_boundary(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next event, if it is here as a whole: where it begins, and what it holds. It ends at [`offset`](Self::offset).
    ///
    /// # Errors
    /// Something that is no event of that size.
    pub fn next_event(&mut self) -> Result<Option<(u64, Bytes)>, RecordError> {
        let Some((header, _)) = self.rest.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let mut header = Input::new(header);
        let (kind, number) = (header.i32()?, header.i32()?);
        if kind != 0 {
            return Err(RecordError::Unknown { what: "event type", number: kind.into() });
        }
        let length = usize::try_from(number).ok().filter(|length| *length <= self.payload_bytes_max);
        let length = length.ok_or(RecordError::OutOfRange { what: "event length", number: number.into() })?;
        if self.rest.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        self.rest.advance(HEADER_BYTES);
        let begin = self.offset;
        self.offset += (HEADER_BYTES + length) as u64;
        Ok(Some((begin, self.rest.split_to(length).freeze())))
    }
}

/// What one event of a state synchronizer holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Payload {
    /// A whole state, which does not depend on what came before.
    Initial(Bytes),
    /// Changes of the state, each applied to what the one before has left.
    Updates(Vec<Bytes>),
}

const INITIAL: i32 = 1;
const UPDATES: i32 = 2;

impl Payload {
    /// As bytes, without the header of an event.
    ///
    /// # Errors
    /// An update of 2 GiB or more.
    pub fn encode(&self) -> Result<Bytes, RecordError> {
        let mut output = crate::Output::default();
        match self {
            Self::Initial(state) => {
                output.i32(INITIAL).raw(state);
            }
            Self::Updates(updates) => {
                output.i32(UPDATES);
                for update in updates {
                    output.counted(|output| {
                        output.raw(update);
                    });
                }
            }
        }
        output.finish()
    }

    /// From bytes, which are shared and not copied.
    ///
    /// # Errors
    /// Something else.
    pub fn decode(payload: &Bytes) -> Result<Self, RecordError> {
        Self::read(payload, Input::new(payload))
    }

    /// The same in no more memory than is allowed.
    ///
    /// # Errors
    /// As [`decode`](Self::decode), and [`RecordError::Memory`].
    pub fn decode_within(payload: &Bytes, allowance: &Allowance) -> Result<Self, RecordError> {
        Self::read(payload, Input::within(payload, allowance))
    }

    fn read(payload: &Bytes, mut input: Input<'_>) -> Result<Self, RecordError> {
        match input.i32()? {
            INITIAL => Ok(Self::Initial(payload.slice(4..))),
            UPDATES => {
                let mut updates = Vec::new();
                while !input.is_empty() {
                    // The list may be twice as long as what is in it, and has been copied to get there.
                    input.allow(|allowance| allowance.take(3 * size_of::<Bytes>()))?;
                    updates.push(payload.slice_ref(input.counted()?.rest()));
                }
                Ok(Self::Updates(updates))
            }
            other => Err(RecordError::Unknown { what: "payload kind", number: other.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn all(events: &mut Events) -> Vec<(u64, Bytes)> {
        std::iter::from_fn(|| events.next_event().unwrap()).collect()
    }

    #[test]
    fn an_event_that_is_none_is_refused_before_its_bytes_arrive() {
        let refused = |header: [u8; 8]| {
            let mut events = Events::new(0, 1000);
            events.feed(&header);
            events.next_event().unwrap_err().to_string()
        };
        assert_eq!(refused([0, 0, 0, 0, 0, 0, 3, 0xe9]), "event length 1001 is out of range");
        assert_eq!(refused([0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]), "event length -1 is out of range");
        assert_eq!(refused([0, 0, 0, 1, 0, 0, 0, 0]), "event type 1 is unknown");
    }

    #[test]
    fn a_payload_of_another_kind_is_refused() {
        for bytes in [&[0, 0, 0, 3][..], &[0, 0, 0], &[0, 0, 0, 2, 0, 0, 0, 1], &[0, 0, 0, 2, 0xff, 0, 0, 0]] {
            assert!(Payload::decode(&Bytes::copy_from_slice(bytes)).is_err(), "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn events_come_back_however_their_bytes_come(
            payloads in vec(vec(any::<u8>(), 0..40), 0..8),
            pieces in vec(1..30_usize, 1..50),
            start in 0..1_u64 << 40,
        ) {
            let bytes: Vec<u8> = payloads.iter().flat_map(|payload| event(payload).unwrap().to_vec()).collect();
            let (mut events, mut found, mut rest) = (Events::new(start, 40), Vec::new(), bytes.as_slice());
            for piece in pieces.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at(piece.min(rest.len()));
                events.feed(now);
                found.extend(all(&mut events));
                rest = later;
            }
            prop_assert_eq!(events.offset(), start + bytes.len() as u64);
            let mut at = start;
            prop_assert_eq!(found.len(), payloads.len());
            for ((begin, found), payload) in found.into_iter().zip(payloads) {
                prop_assert_eq!((begin, found.to_vec()), (at, payload.clone()));
                at += (HEADER_BYTES + payload.len()) as u64;
            }
        }

        #[test]
        fn payloads_come_back(updates in vec(vec(any::<u8>(), 0..20), 0..5), state in vec(any::<u8>(), 0..20)) {
            for payload in [Payload::Updates(updates.into_iter().map(Bytes::from).collect()), Payload::Initial(state.into())] {
                prop_assert_eq!(Payload::decode(&payload.encode().unwrap()), Ok(payload));
            }
        }

        #[test]
        fn no_bytes_make_reading_panic(bytes in any::<Vec<u8>>()) {
            let _ = Payload::decode(&bytes.clone().into());
            let mut events = Events::new(0, 1000);
            events.feed(&bytes);
            while let Ok(Some(_)) = events.next_event() {}
        }
    }
}
