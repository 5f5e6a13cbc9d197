//! What the readers of a group write into its stream: whole states, and changes of them.
//!
//! Each is the content of one entry of a [`Payload`](crate::revisioned::Payload). Source: the serializers of Pravega's
//! `ReaderGroupState` and `CheckpointState`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use headwater_types::{KeyRange, StreamSegment};

use super::GroupConfiguration;
use crate::{Allowance, Input, Offsets, Output, Ranges, RecordError, Revisions};

/// An offset with the keys of its segment, as far as they are known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placed {
    /// Offset in bytes.
    pub offset: i64,
    /// Keys.
    pub range: Option<KeyRange>,
}

/// Segments with offset and keys.
pub type Places = BTreeMap<StreamSegment, Placed>;

/// A whole state.
#[derive(Clone, Debug, PartialEq)]
pub enum Initial {
    /// Of a group that begins, or begins anew.
    Fresh(Fresh),
    /// Everything that was agreed on so far.
    Compacted(Box<Compacted>),
}

/// State of a group that begins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fresh {
    /// How it is to read.
    pub configuration: GroupConfiguration,
    /// Where it begins.
    pub starting: Places,
    /// Where it ends; `i64::MAX` for the end of a segment.
    pub ends: Offsets,
    /// The configuration is being replaced.
    pub reconfiguring: bool,
}

/// Everything that a group has agreed on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compacted {
    /// How it is to read.
    pub configuration: GroupConfiguration,
    /// Checkpoints under way and the last one.
    pub checkpoints: CheckpointsRecord,
    /// How far each reader is behind, in milliseconds.
    pub distances_ms: BTreeMap<String, i64>,
    /// Segments that nobody may read yet, each with the ids of those that it waits for.
    pub future: BTreeMap<StreamSegment, BTreeSet<i64>>,
    /// What each reader reads, from where.
    pub assigned: BTreeMap<String, Offsets>,
    /// What waits for a reader.
    pub unassigned: Offsets,
    /// Where it ends.
    pub ends: Offsets,
    /// How far readers said they were.
    pub last_read: Offsets,
    /// Keys of all these segments.
    pub ranges: Ranges,
    /// The configuration is being replaced.
    pub reconfiguring: bool,
}

/// Checkpoints of a group.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CheckpointsRecord {
    /// All that were not cleared, oldest first.
    pub names: Vec<String>,
    /// Who has to report still, of those that are not complete.
    pub missing: BTreeMap<String, Vec<String>>,
    /// What was reported.
    pub offsets: BTreeMap<String, Offsets>,
    /// Those of the last complete one that stopped the readers; none if empty.
    pub last: Offsets,
    /// The controller has been told of that one.
    pub published: bool,
}

/// A change of the state.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// All of it.
    Replace(Box<Initial>),
    /// A reader joins.
    AddReader {
        /// Its id.
        reader: String,
    },
    /// A reader leaves, or is taken for dead.
    RemoveReader {
        /// Its id.
        reader: String,
        /// How far it was; of segments that are not here the group knows best.
        offsets: Offsets,
    },
    /// A reader gives a segment back.
    Release {
        /// Its id.
        reader: String,
        /// The segment.
        segment: StreamSegment,
        /// Where the next one is to go on.
        offset: i64,
    },
    /// A reader takes a segment.
    Acquire {
        /// Its id.
        reader: String,
        /// The segment.
        segment: StreamSegment,
    },
    /// A reader says how far it is.
    Report {
        /// Its id.
        reader: String,
        /// How far behind the end, in milliseconds.
        distance_ms: i64,
        /// Where in each segment; older clients did not say.
        last_read: Option<Places>,
    },
    /// A reader has read a segment to its end, and what is to come of it was handled.
    Complete {
        /// Its id.
        reader: String,
        /// The segment.
        segment: StreamSegment,
        /// Segments that follow, each with the ids of all that it follows.
        successors: BTreeMap<StreamSegment, Vec<i64>>,
        /// Keys of all these; older clients did not say.
        ranges: Ranges,
    },
    /// A reader says where it is at a checkpoint.
    ReportCheckpoint {
        /// Name of the checkpoint.
        checkpoint: String,
        /// Its id.
        reader: String,
        /// Offset in each segment that it has; below zero for one it has read.
        offsets: Offsets,
    },
    /// A checkpoint begins.
    CreateCheckpoint {
        /// Its name.
        checkpoint: String,
    },
    /// Checkpoints older than one are forgotten.
    ClearCheckpoints {
        /// Name of the one.
        before: String,
    },
    /// Whether the controller knows of the last checkpoint.
    Published(bool),
    /// Whether the configuration is being replaced.
    Reconfiguring(bool),
    /// Checkpoints under way are given up.
    CancelCheckpoints,
}

/// Least bytes of an entry with a text and a number of eight bytes.
const NUMBER_ENTRY_BYTES: usize = 10;
/// The same with a range.
const PLACE_BYTES: usize = 26;
/// Least bytes of an entry with a text and a collection.
const COLLECTION_ENTRY_BYTES: usize = 3;
/// Least bytes of a text.
const TEXT_BYTES: usize = 2;

impl Initial {
    /// As bytes.
    ///
    /// # Errors
    /// A text or an offset that the form cannot hold.
    pub fn encode(&self) -> Result<Bytes, RecordError> {
        let mut output = Output::default();
        self.write(&mut output);
        output.finish()
    }

    /// From bytes. What follows the record is passed over: Java's client writes as many bytes as its buffer has, and what is
    /// left of that is zeros.
    ///
    /// # Errors
    /// Something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        Self::decode_input(Input::new(bytes))
    }

    /// The same in no more memory than is allowed.
    ///
    /// # Errors
    /// As [`decode`](Self::decode), and [`RecordError::Memory`].
    pub fn decode_within(bytes: &[u8], allowance: &Allowance) -> Result<Self, RecordError> {
        Self::decode_input(Input::within(bytes, allowance))
    }

    fn decode_input(mut input: Input<'_>) -> Result<Self, RecordError> {
        let (kind, revisions) = input.typed_record()?;
        Self::read(kind, revisions)?.ok_or(RecordError::Unknown { what: "state type", number: kind.into() })
    }

    fn read(kind: u8, revisions: Revisions<'_>) -> Result<Option<Self>, RecordError> {
        match kind {
            0 => Fresh::read(revisions).map(|fresh| Some(Self::Fresh(fresh))),
            1 => Compacted::read(revisions).map(|compacted| Some(Self::Compacted(Box::new(compacted)))),
            _ => Ok(None),
        }
    }

    fn write(&self, output: &mut Output) {
        match self {
            Self::Fresh(fresh) => fresh.write(output),
            Self::Compacted(compacted) => compacted.write(output),
        }
    }
}

impl Fresh {
    fn write(&self, output: &mut Output) {
        output.typed_record(
            0,
            &[
                &|output| {
                    output.nested(self.configuration.encode());
                    output.map(&self.starting, Output::segment, |output, placed| output.i64(placed.offset));
                    output.offsets(&self.ends);
                },
                &|output| write_places(output, &self.starting),
                &|output| {
                    output.bool(self.reconfiguring);
                },
            ],
        );
    }

    fn read(mut revisions: Revisions<'_>) -> Result<Self, RecordError> {
        let mut first = revisions.first()?;
        let configuration = GroupConfiguration::read(first.nested()?)?;
        let bare = |(segment, offset)| (segment, Placed { offset, range: None });
        let mut starting: Places = first.offsets()?.into_iter().map(bare).collect();
        let ends = first.offsets()?;
        if let Some(mut second) = revisions.later() {
            starting = read_places(&mut second)?;
        }
        let reconfiguring = revisions.later().map(|mut third| third.bool()).transpose()?.unwrap_or(false);
        Ok(Self { configuration, starting, ends, reconfiguring })
    }
}

impl Compacted {
    fn write(&self, output: &mut Output) {
        output.typed_record(
            1,
            &[
                &|output| {
                    output.nested(self.configuration.encode()).nested(self.checkpoints.encode());
                    output.map(&self.distances_ms, |o, reader| o.text(reader), |o, distance| o.i64(*distance));
                    output.map(&self.future, Output::segment, |o, ids| o.list(ids.iter(), |o, id| o.i64(*id)));
                    output.map(&self.assigned, |o, reader| o.text(reader), Output::offsets);
                    output.offsets(&self.unassigned).offsets(&self.ends);
                },
                &|output| {
                    output.offsets(&self.last_read).ranges(&self.ranges);
                },
                &|output| {
                    output.bool(self.reconfiguring);
                },
            ],
        );
    }

    fn read(mut revisions: Revisions<'_>) -> Result<Self, RecordError> {
        let mut first = revisions.first()?;
        let ids = |input: &mut Input<'_>| Ok(input.list(8, Input::i64)?.into_iter().collect());
        let mut read = Self {
            configuration: GroupConfiguration::read(first.nested()?)?,
            checkpoints: CheckpointsRecord::read(first.nested()?)?,
            distances_ms: first.map(NUMBER_ENTRY_BYTES, Input::text, Input::i64)?,
            future: first.map(COLLECTION_ENTRY_BYTES, Input::segment, ids)?,
            assigned: first.map(COLLECTION_ENTRY_BYTES, Input::text, Input::offsets)?,
            unassigned: first.offsets()?,
            ends: first.offsets()?,
            ..Self::default()
        };
        if let Some(mut second) = revisions.later() {
            (read.last_read, read.ranges) = (second.offsets()?, second.ranges()?);
        }
        if let Some(mut third) = revisions.later() {
            read.reconfiguring = third.bool()?;
        }
        Ok(read)
    }
}

impl CheckpointsRecord {
    fn encode(&self) -> Result<Bytes, RecordError> {
        let mut output = Output::default();
        output.record(
            0,
            &[
                &|output| {
                    output.list(self.names.iter(), |o, name| o.text(name));
                    output.map(
                        &self.missing,
                        |o, name| o.text(name),
                        |o, readers| o.list(readers.iter(), |o, reader| o.text(reader)),
                    );
                    output.map(&self.offsets, |o, name| o.text(name), Output::offsets).offsets(&self.last);
                },
                &|output| {
                    output.bool(self.published);
                },
            ],
        );
        output.finish()
    }

    fn read(mut input: Input<'_>) -> Result<Self, RecordError> {
        let mut revisions = input.record(0)?;
        input.end()?;
        let mut first = revisions.first()?;
        let texts = |input: &mut Input<'_>| input.list(TEXT_BYTES, Input::text);
        Ok(Self {
            names: texts(&mut first)?,
            missing: first.map(COLLECTION_ENTRY_BYTES, Input::text, texts)?,
            offsets: first.map(COLLECTION_ENTRY_BYTES, Input::text, Input::offsets)?,
            last: first.offsets()?,
            published: revisions.later().map(|mut second| second.bool()).transpose()?.unwrap_or(false),
        })
    }
}

impl Update {
    /// As bytes.
    ///
    /// # Errors
    /// A text or an offset that the form cannot hold.
    pub fn encode(&self) -> Result<Bytes, RecordError> {
        let mut output = Output::default();
        let o = &mut output;
        match self {
            Self::Replace(initial) => initial.write(o),
            Self::AddReader { reader } => one(o, 2, &|o| o.text(reader)),
            Self::RemoveReader { reader, offsets } => one(o, 3, &|o| o.text(reader).offsets(offsets)),
            Self::Release { reader, segment, offset } => one(o, 4, &|o| o.text(reader).segment(segment).i64(*offset)),
            Self::Acquire { reader, segment } => one(o, 5, &|o| o.text(reader).segment(segment)),
            Self::Report { reader, distance_ms, last_read } => {
                let first = |o: &mut Output| {
                    o.text(reader).i64(*distance_ms);
                };
                match last_read {
                    Some(places) => o.typed_record(6, &[&first, &|o| write_places(o, places)]),
                    None => o.typed_record(6, &[&first]),
                };
            }
            Self::Complete { reader, segment, successors, ranges } => {
                let first = |o: &mut Output| {
                    o.text(reader).segment(segment);
                    o.map(successors, Output::segment, |o, ids| o.list(ids.iter(), |o, id| o.i64(*id)));
                };
                let second = |o: &mut Output| {
                    o.ranges(ranges);
                };
                o.typed_record(7, &[&first, &second]);
            }
            Self::ReportCheckpoint { checkpoint, reader, offsets } => {
                one(o, 8, &|o| o.text(checkpoint).text(reader).offsets(offsets));
            }
            Self::CreateCheckpoint { checkpoint } => one(o, 9, &|o| o.text(checkpoint)),
            Self::ClearCheckpoints { before } => one(o, 10, &|o| o.text(before)),
            Self::Published(published) => one(o, 11, &|o| o.bool(*published)),
            Self::Reconfiguring(reconfiguring) => one(o, 12, &|o| o.bool(*reconfiguring)),
            Self::CancelCheckpoints => {
                o.typed_record(13, &[&|_| ()]);
            }
        }
        output.finish()
    }

    /// From bytes.
    ///
    /// # Errors
    /// Something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        Self::decode_input(Input::new(bytes))
    }

    /// The same in no more memory than is allowed.
    ///
    /// # Errors
    /// As [`decode`](Self::decode), and [`RecordError::Memory`].
    pub fn decode_within(bytes: &[u8], allowance: &Allowance) -> Result<Self, RecordError> {
        Self::decode_input(Input::within(bytes, allowance))
    }

    fn decode_input(mut input: Input<'_>) -> Result<Self, RecordError> {
        let (kind, mut revisions) = input.typed_record()?;
        input.end()?;
        if kind < 2 {
            let initial = Initial::read(kind, revisions)?;
            return Ok(Self::Replace(Box::new(initial.expect("types below 2 are those of whole states"))));
        }
        let mut first = revisions.first()?;
        let input = &mut first;
        Ok(match kind {
            2 => Self::AddReader { reader: input.text()? },
            3 => Self::RemoveReader { reader: input.text()?, offsets: input.offsets()? },
            4 => Self::Release { reader: input.text()?, segment: input.segment()?, offset: input.i64()? },
            5 => Self::Acquire { reader: input.text()?, segment: input.segment()? },
            6 => Self::Report {
                reader: input.text()?,
                distance_ms: input.i64()?,
                last_read: revisions.later().map(|mut second| read_places(&mut second)).transpose()?,
            },
            7 => Self::Complete {
                reader: input.text()?,
                segment: input.segment()?,
                successors: input.map(COLLECTION_ENTRY_BYTES, Input::segment, |ids| ids.list(8, Input::i64))?,
                ranges: revisions.later().map(|mut second| second.ranges()).transpose()?.unwrap_or_default(),
            },
            8 => {
                let (checkpoint, reader) = (input.text()?, input.text()?);
                Self::ReportCheckpoint { checkpoint, reader, offsets: input.offsets()? }
            }
            9 => Self::CreateCheckpoint { checkpoint: input.text()? },
            10 => Self::ClearCheckpoints { before: input.text()? },
            11 => Self::Published(input.bool()?),
            12 => Self::Reconfiguring(input.bool()?),
            13 => Self::CancelCheckpoints,
            _ => return Err(RecordError::Unknown { what: "update type", number: kind.into() }),
        })
    }
}

/// A record with one revision.
fn one(output: &mut Output, kind: u8, body: &dyn Fn(&mut Output) -> &mut Output) {
    output.typed_record(
        kind,
        &[&|output| {
            body(output);
        }],
    );
}

fn write_places(output: &mut Output, places: &Places) {
    output.list(places.iter(), |output, (segment, placed)| {
        output.segment(segment).range(placed.range).i64(placed.offset)
    });
}

fn read_places(input: &mut Input<'_>) -> Result<Places, RecordError> {
    let entries = input.list(PLACE_BYTES, |input| {
        let (segment, range) = (input.segment()?, input.range()?);
        Ok((segment, Placed { offset: input.i64()?, range }))
    })?;
    Ok(entries.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{
        any_cut, any_id, any_offsets, any_range, any_ranges, any_segment, any_stream, hex, segment, unhex,
    };
    use crate::{Cut, revisioned};
    use proptest::collection::{btree_map, btree_set, vec};
    use proptest::option;
    use proptest::prelude::*;

    use super::super::Retention;

    fn any_configuration() -> impl Strategy<Value = GroupConfiguration> {
        let cuts = || {
            btree_map(any_stream(), any_cut(), 0..3).prop_map(|cuts| -> BTreeMap<_, _> {
                let named = |(stream, cut)| match cut {
                    Cut::At(cut) => (cut.stream.clone(), Cut::At(cut)),
                    Cut::Unbounded => (stream, cut),
                };
                cuts.into_iter().map(named).collect()
            })
        };
        let retention = (0..3).prop_map(|number| Retention::from_i32(number).unwrap());
        let numbers = (any::<i64>(), any::<i64>(), any::<i32>(), any::<i64>(), any::<u128>());
        (numbers, cuts(), cuts(), retention).prop_map(|(numbers, starting, ending, retention)| {
            let (automatic_checkpoint_ms, refresh_ms, outstanding_checkpoints_max, generation, id) = numbers;
            GroupConfiguration {
                automatic_checkpoint_ms,
                refresh_ms,
                starting,
                ending,
                outstanding_checkpoints_max,
                retention,
                generation,
                id,
            }
        })
    }

    fn any_name() -> impl Strategy<Value = String> {
        "[a-z]{0,5}|\\PC{0,5}"
    }

    fn any_places() -> impl Strategy<Value = Places> {
        let placed = (any::<i64>(), option::of(any_range())).prop_map(|(offset, range)| Placed { offset, range });
        btree_map(any_segment(), placed, 0..3)
    }

    fn any_checkpoints() -> impl Strategy<Value = CheckpointsRecord> {
        (
            vec(any_name(), 0..3),
            btree_map(any_name(), vec(any_name(), 0..3), 0..3),
            btree_map(any_name(), any_offsets(), 0..3),
            any_offsets(),
            any::<bool>(),
        )
            .prop_map(|(names, missing, offsets, last, published)| CheckpointsRecord {
                names,
                missing,
                offsets,
                last,
                published,
            })
    }

    fn any_initial() -> impl Strategy<Value = Initial> {
        let fresh = (any_configuration(), any_places(), any_offsets(), any::<bool>()).prop_map(
            |(configuration, starting, ends, reconfiguring)| {
                Initial::Fresh(Fresh { configuration, starting, ends, reconfiguring })
            },
        );
        let segments = (
            btree_map(any_segment(), btree_set(any::<i64>(), 0..3), 0..3),
            btree_map(any_name(), any_offsets(), 0..3),
            any_offsets(),
            any_offsets(),
            any_offsets(),
            any_ranges(),
        );
        let others = (any_configuration(), any_checkpoints(), btree_map(any_name(), any::<i64>(), 0..3), any::<bool>());
        let compacted = (segments, others).prop_map(|(segments, others)| {
            let (future, assigned, unassigned, ends, last_read, ranges) = segments;
            let (configuration, checkpoints, distances_ms, reconfiguring) = others;
            Initial::Compacted(Box::new(Compacted {
                configuration,
                checkpoints,
                distances_ms,
                future,
                assigned,
                unassigned,
                ends,
                last_read,
                ranges,
                reconfiguring,
            }))
        });
        prop_oneof![fresh, compacted]
    }

    fn any_update() -> impl Strategy<Value = Update> {
        let successors = btree_map(any_segment(), vec(any_id().prop_map(|id| id.as_i64()), 0..3), 0..3);
        prop_oneof![
            any_initial().prop_map(|initial| Update::Replace(Box::new(initial))),
            any_name().prop_map(|reader| Update::AddReader { reader }),
            (any_name(), any_offsets()).prop_map(|(reader, offsets)| Update::RemoveReader { reader, offsets }),
            (any_name(), any_segment(), any::<i64>()).prop_map(|(reader, segment, offset)| Update::Release {
                reader,
                segment,
                offset
            }),
            (any_name(), any_segment()).prop_map(|(reader, segment)| Update::Acquire { reader, segment }),
            (any_name(), any::<i64>(), option::of(any_places()))
                .prop_map(|(reader, distance_ms, last_read)| { Update::Report { reader, distance_ms, last_read } }),
            (any_name(), any_segment(), successors, any_ranges()).prop_map(|(reader, segment, successors, ranges)| {
                Update::Complete { reader, segment, successors, ranges }
            }),
            (any_name(), any_name(), any_offsets())
                .prop_map(|(checkpoint, reader, offsets)| { Update::ReportCheckpoint { checkpoint, reader, offsets } }),
            any_name().prop_map(|checkpoint| Update::CreateCheckpoint { checkpoint }),
            any_name().prop_map(|before| Update::ClearCheckpoints { before }),
            any::<bool>().prop_map(Update::Published),
            any::<bool>().prop_map(Update::Reconfiguring),
            Just(Update::CancelCheckpoints),
        ]
    }

    #[test]
    fn an_event_that_adds_a_reader_has_the_bytes_that_java_gives_it() {
        let update = Update::AddReader { reader: "reader-1".to_owned() };
        let payload = revisioned::Payload::Updates(vec![update.encode().unwrap()]);
        let event = revisioned::event(&payload.encode().unwrap()).unwrap();
        let bytes = "000000000000001b000000020000001300020001000000000a00087265616465722d31";
        assert_eq!(hex(&event), bytes);
        let mut events = revisioned::Events::new(0, 100);
        events.feed(&unhex(bytes));
        let (_, found) = events.next_event().unwrap().unwrap();
        let revisioned::Payload::Updates(updates) = revisioned::Payload::decode(&found).unwrap() else { panic!() };
        assert_eq!(Update::decode(&updates[0]), Ok(update));
    }

    #[test]
    fn what_older_clients_did_not_write_has_defaults() {
        let mut output = Output::default();
        output.typed_record(
            6,
            &[&|output| {
                output.text("r").i64(7);
            }],
        );
        let report = Update::Report { reader: "r".to_owned(), distance_ms: 7, last_read: None };
        assert_eq!(Update::decode(&output.finish().unwrap()), Ok(report));
        let mut output = Output::default();
        output.record(
            0,
            &[&|output| {
                output.i64(5).i64(6).u8(0).u8(0);
            }],
        );
        let configuration = GroupConfiguration::decode(&output.finish().unwrap()).unwrap();
        assert_eq!(configuration.outstanding_checkpoints_max, 3);
        assert_eq!((configuration.automatic_checkpoint_ms, configuration.refresh_ms), (5, 6));
        let mut output = Output::default();
        output.typed_record(
            0,
            &[&|output| {
                output.nested(GroupConfiguration::default().encode());
                output.offsets(&[(segment("s/t/0.#epoch.0"), 5)].into()).u8(0);
            }],
        );
        let Ok(Initial::Fresh(fresh)) = Initial::decode(&output.finish().unwrap()) else { panic!() };
        assert_eq!(fresh.starting[&segment("s/t/0.#epoch.0")], Placed { offset: 5, range: None });
    }

    proptest! {
        #[test]
        fn states_come_back(initial in any_initial()) {
            prop_assert_eq!(Initial::decode(&initial.encode().unwrap()), Ok(initial));
        }

        #[test]
        fn changes_come_back(update in any_update()) {
            prop_assert_eq!(Update::decode(&update.encode().unwrap()), Ok(update));
        }

        #[test]
        fn no_bytes_make_reading_panic(update in any_update(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = update.encode().unwrap().to_vec();
            let at = at.index(bytes.len());
            prop_assert!(Update::decode(&bytes[..at]).is_err());
            bytes[at] = byte;
            let _ = (Update::decode(&bytes), Initial::decode(&bytes));
        }
    }
}
