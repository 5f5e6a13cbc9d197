//! What a client asks the controller about groups.

use std::collections::BTreeSet;

use headwater_proto::controller as proto;
use headwater_records::group::{Fresh, GroupConfiguration, Placed, Places};
use headwater_records::{Cut, Offsets, READ, StreamCut, is_unread};
use headwater_types::{Name, ScopedStream, SegmentId, StreamSegment};

use super::config::{cut_to_proto, of_proto, to_proto, uuid_text};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::segments::signed;
use crate::streams::{call, failed};

/// Begins the name of a group's stream.
const STREAM_PREFIX: &str = "_RG";

/// Who is meant.
#[derive(Clone, Debug)]
pub(super) struct GroupName {
    pub(super) scope: Name,
    pub(super) name: Name,
    /// Where the readers agree.
    pub(super) stream: ScopedStream,
}

impl GroupName {
    /// Source: the stream's name is Java's.
    ///
    /// # Errors
    /// `Invalid`: the name is too long.
    pub(super) fn new(scope: &Name, name: &Name) -> Result<Self> {
        let invalid = |error| Error::caused(ErrorKind::Invalid, format!("{name} is no name for a reader group"), error);
        let stream = Name::parse(&format!("{STREAM_PREFIX}{name}")).map_err(invalid)?;
        let stream = ScopedStream { scope: scope.clone(), stream };
        Ok(Self { scope: scope.clone(), name: name.clone(), stream })
    }

    /// The group whose readers agree in a stream, if it is such a one.
    pub(super) fn of_stream(stream: &Name) -> Option<Name> {
        Name::parse(stream.as_str().strip_prefix(STREAM_PREFIX)?).ok()
    }

    pub(super) fn missing(&self) -> Error {
        Error::new(ErrorKind::NotFound, format!("reader group {self} does not exist"))
    }

    fn info(&self, id: u128, generation: i64) -> proto::ReaderGroupInfo {
        proto::ReaderGroupInfo {
            scope: self.scope.to_string(),
            reader_group: self.name.to_string(),
            reader_group_id: uuid_text(id),
            generation,
        }
    }
}

impl std::fmt::Display for GroupName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.scope, self.name)
    }
}

impl Client {
    /// Makes a group, or finds it; returns the configuration that it has.
    pub(super) async fn make_group(
        &self,
        group: &GroupName,
        config: &GroupConfiguration,
    ) -> Result<GroupConfiguration> {
        use proto::create_reader_group_response::Status;
        let asked = to_proto(&group.scope, &group.name, config);
        let answer = call!(self, "createReaderGroup", create_reader_group, asked)?;
        match answer.status() {
            Status::Success => {
                let odd = || Error::new(ErrorKind::Protocol, "controller made a reader group without a configuration");
                of_proto(answer.config.ok_or_else(odd)?)
            }
            Status::ScopeNotFound => {
                Err(Error::new(ErrorKind::NotFound, format!("scope {} does not exist", group.scope)))
            }
            Status::InvalidRgName => {
                Err(Error::new(ErrorKind::Invalid, format!("{} is no name for a reader group", group.name)))
            }
            Status::Failure => Err(failed("create reader group", group)),
        }
    }

    /// What the controller has of a group.
    pub(super) async fn group_config(&self, group: &GroupName) -> Result<Option<GroupConfiguration>> {
        use proto::reader_group_config_response::Status;
        let answer = call!(self, "getReaderGroupConfig", get_reader_group_config, group.info(0, 0))?;
        match answer.status() {
            Status::Success => {
                let odd = || Error::new(ErrorKind::Protocol, "controller has a reader group without a configuration");
                of_proto(answer.config.ok_or_else(odd)?).map(Some)
            }
            Status::RgNotFound => Ok(None),
            Status::Failure => Err(failed("find reader group", group)),
        }
    }

    /// Replaces a configuration that has the same id and generation; returns the new generation, `None` if it has others.
    pub(super) async fn update_group(&self, group: &GroupName, config: &GroupConfiguration) -> Result<Option<i64>> {
        use proto::update_reader_group_response::Status;
        let asked = to_proto(&group.scope, &group.name, config);
        let answer = call!(self, "updateReaderGroup", update_reader_group, asked)?;
        match answer.status() {
            Status::Success => Ok(Some(answer.generation)),
            Status::InvalidConfig => Ok(None),
            Status::RgNotFound => Err(group.missing()),
            Status::Failure => Err(failed("update reader group", group)),
        }
    }

    /// `false`: it was not there.
    pub(super) async fn drop_group(&self, group: &GroupName, id: u128, generation: i64) -> Result<bool> {
        use proto::delete_reader_group_status::Status;
        let answer = call!(self, "deleteReaderGroup", delete_reader_group, group.info(id, generation))?;
        match answer.status() {
            Status::Success => Ok(true),
            Status::RgNotFound => Ok(false),
            Status::Failure => Err(failed("delete reader group", group)),
        }
    }

    /// Lets go of what lies before a cut, as far as the group is concerned.
    pub(super) async fn release_before(
        &self,
        group: &GroupName,
        config: &GroupConfiguration,
        cut: &StreamCut,
    ) -> Result<()> {
        use proto::update_subscriber_status::Status;
        let asked = proto::SubscriberStreamCut {
            subscriber: group.to_string(),
            generation: config.generation,
            reader_group_id: uuid_text(config.id),
            stream_cut: Some(cut_to_proto(cut)),
        };
        let answer = call!(self, "updateSubscriberStreamCut", update_subscriber_stream_cut, asked)?;
        let stream = &cut.stream;
        let error = |kind, what: String| Err(Error::new(kind, what));
        match answer.status() {
            Status::Success => Ok(()),
            Status::StreamNotFound => error(ErrorKind::NotFound, format!("stream {stream} does not exist")),
            Status::SubscriberNotFound => {
                error(ErrorKind::NotFound, format!("reader group {group} keeps nothing of stream {stream}"))
            }
            Status::StreamCutNotValid => {
                error(ErrorKind::Invalid, format!("cut of stream {stream} lies before the last one, or is none"))
            }
            Status::GenerationMismatch => {
                error(ErrorKind::Conflict, format!("reader group {group} was reset meanwhile"))
            }
            Status::Failure => Err(failed("release what was read of stream", stream)),
        }
    }

    /// A cut without the segments that cannot be opened before others of it are read. Cuts of controllers mark them by an offset
    /// below 0, which in those of readers says that a segment is read to its end.
    async fn opened<'a>(&self, cut: &'a StreamCut) -> Result<impl Iterator<Item = (StreamSegment, i64)> + 'a> {
        let marked: BTreeSet<SegmentId> = cut.offsets.iter().filter(|at| *at.1 < 0).map(|at| *at.0).collect();
        let mut follow = BTreeSet::new();
        if !marked.is_empty() {
            let ranges = self.ranges_of(&cut.stream, &cut.offsets.keys().copied().collect()).await?;
            let placed = ranges.iter().filter(|(id, _)| !marked.contains(id));
            let placed: Vec<_> = placed.map(|(id, range)| (*id, Some(*range))).collect();
            follow.extend(marked.into_iter().filter(|id| {
                // Where nobody knows the keys, the cut is taken as it stands.
                ranges.get(id).is_some_and(|range| is_unread(*id, Some(*range), placed.iter().copied()))
            }));
        }
        Ok(cut.segments().filter(move |(segment, _)| !follow.contains(&segment.id)))
    }

    /// The state in which a group of this configuration begins. Keys of the first segments are left open, as with Java.
    pub(super) async fn fresh_state(&self, configuration: GroupConfiguration) -> Result<Fresh> {
        let (mut starting, mut ends) = (Places::new(), Offsets::new());
        for (stream, from) in &configuration.starting {
            match from {
                Cut::Unbounded => {
                    for (id, offset) in self.head_segments(stream).await? {
                        let segment = StreamSegment { stream: stream.clone(), id };
                        starting.insert(segment, Placed { offset: signed(offset)?, range: None });
                    }
                }
                Cut::At(cut) => {
                    let opened = self.opened(cut).await?;
                    starting.extend(opened.map(|(segment, offset)| (segment, Placed { offset, range: None })));
                }
            }
        }
        for cut in configuration.ending.values() {
            if let Cut::At(cut) = cut {
                let end = |offset| if offset == READ { i64::MAX } else { offset };
                ends.extend(cut.segments().map(|(segment, offset)| (segment, end(offset))));
            }
        }
        Ok(Fresh { configuration, starting, ends, reconfiguring: false })
    }
}
