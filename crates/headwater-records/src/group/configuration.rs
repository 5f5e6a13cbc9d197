//! How a group is to read: what its readers keep beside their state, and the controller as well.

use std::collections::BTreeMap;

use bytes::Bytes;
use headwater_types::ScopedStream;

use crate::{Cut, Input, Output, RecordError};

/// How a group is to read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GroupConfiguration {
    /// Time between two checkpoints that readers make by themselves, in milliseconds; 0 or less for none.
    pub automatic_checkpoint_ms: i64,
    /// How often a reader looks at the group's state, in milliseconds.
    pub refresh_ms: i64,
    /// Streams that are read, and from where.
    pub starting: BTreeMap<ScopedStream, Cut>,
    /// Where reading ends; a stream that is not here never ends.
    pub ending: BTreeMap<ScopedStream, Cut>,
    /// Most checkpoints that applications may have under way at once.
    pub outstanding_checkpoints_max: i32,
    /// Whether the group keeps what it has not read from being truncated.
    pub retention: Retention,
    /// Counts changes of the configuration; -1 before the controller has one.
    pub generation: i64,
    /// Uuid of the group; 0 before the controller has one.
    pub id: u128,
}

/// Whether a group keeps what it has not read from being truncated, and what lets go of it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Retention {
    /// It does not.
    #[default]
    None,
    /// The application says up to where.
    AtCut,
    /// Up to the last checkpoint.
    AtCheckpoint,
}

impl Retention {
    /// The number that records and the controller have for it.
    pub const fn as_i32(self) -> i32 {
        match self {
            Self::None => 0,
            Self::AtCut => 1,
            Self::AtCheckpoint => 2,
        }
    }

    /// From that number.
    pub const fn from_i32(number: i32) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::AtCut),
            2 => Some(Self::AtCheckpoint),
            _ => None,
        }
    }
}

impl Default for GroupConfiguration {
    /// The defaults of Java's client; no streams.
    fn default() -> Self {
        Self {
            automatic_checkpoint_ms: 30_000,
            refresh_ms: 3_000,
            starting: BTreeMap::new(),
            ending: BTreeMap::new(),
            outstanding_checkpoints_max: 3,
            retention: Retention::None,
            generation: -1,
            id: 0,
        }
    }
}

/// Least bytes of a stream with its cut.
const ENTRY_BYTES: usize = 3;

impl GroupConfiguration {
    /// As bytes.
    ///
    /// # Errors
    /// A cut with an offset beyond 2^61.
    pub fn encode(&self) -> Result<Bytes, RecordError> {
        let cuts = |output: &mut Output| {
            output.i64(self.automatic_checkpoint_ms).i64(self.refresh_ms);
            for cuts in [&self.starting, &self.ending] {
                output.map(cuts, Output::stream, |output, cut| output.nested(cut.encode()));
            }
        };
        let mut output = Output::default();
        output.record(
            0,
            &[
                &cuts,
                // Clients read only the latest that they know.
                &|output| {
                    cuts(output);
                    output.i32(self.outstanding_checkpoints_max);
                },
                &|output| {
                    let retention = usize::try_from(self.retention.as_i32()).expect("kinds are counted from 0");
                    output.compact_int(retention).i64(self.generation).uuid(self.id);
                },
            ],
        );
        output.finish()
    }

    /// From bytes, also those of older clients, with defaults for what they did not know.
    ///
    /// # Errors
    /// Something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        Self::read(Input::new(bytes))
    }

    pub(super) fn read(mut input: Input<'_>) -> Result<Self, RecordError> {
        let mut revisions = input.record(0)?;
        input.end()?;
        let mut read = Self::default();
        read.read_cuts(&mut revisions.first()?)?;
        if let Some(mut second) = revisions.later() {
            // The same once more, and then what the first had no place for.
            read.read_cuts(&mut second)?;
            read.outstanding_checkpoints_max = second.i32()?;
        }
        if let Some(mut third) = revisions.later() {
            let number = third.compact_int()?;
            let unknown = || RecordError::Unknown { what: "retention type", number: number.into() };
            read.retention = i32::try_from(number).ok().and_then(Retention::from_i32).ok_or_else(unknown)?;
            (read.generation, read.id) = (third.i64()?, third.uuid()?);
        }
        Ok(read)
    }

    fn read_cuts(&mut self, body: &mut Input<'_>) -> Result<(), RecordError> {
        (self.automatic_checkpoint_ms, self.refresh_ms) = (body.i64()?, body.i64()?);
        let cut = |input: &mut Input<'_>| Cut::read(input.nested()?);
        self.starting = body.map(ENTRY_BYTES, Input::stream, cut)?;
        self.ending = body.map(ENTRY_BYTES, Input::stream, cut)?;
        Ok(())
    }
}
