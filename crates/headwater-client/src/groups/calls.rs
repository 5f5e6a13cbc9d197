//! What a client asks the controller about groups.

use headwater_proto::controller as proto;
use headwater_records::group::{Fresh, GroupConfiguration, Placed, Places};
use headwater_records::{Cut, Offsets, READ, StreamCut};
use headwater_types::{Name, ScopedStream, StreamSegment};

use super::config::{of_proto, to_proto, uuid_text};
use crate::client::Client;
use crate::cuts::Place;
use crate::error::{Error, ErrorKind, Result};
use crate::model::cut_to_proto;
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

    /// The state in which a group of this configuration begins. Keys of the first segments are left open, as with Java.
    pub(super) async fn fresh_state(&self, configuration: GroupConfiguration) -> Result<Fresh> {
        let (mut starting, mut ends) = (Places::new(), Offsets::new());
        for (stream, from) in &configuration.starting {
            let cut = match from {
                Cut::Unbounded => self.head_cut(stream).await?,
                Cut::At(cut) => cut.clone(),
            };
            for (id, place) in self.places(&cut).await? {
                let offset = match place {
                    Place::At(offset) => signed(offset)?,
                    Place::Read => READ,
                    // Readers come to it when they have read what it follows on.
                    Place::Unopened => continue,
                };
                let segment = StreamSegment { stream: cut.stream.clone(), id };
                starting.insert(segment, Placed { offset, range: None });
            }
        }
        for cut in configuration.ending.values() {
            let Cut::At(cut) = cut else { continue };
            for (id, place) in self.ends(cut).await? {
                let end = match place {
                    Place::At(offset) => signed(offset)?,
                    Place::Read => i64::MAX,
                    // What it follows on is read to its end, and it is done when somebody takes it.
                    Place::Unopened => 0,
                };
                ends.insert(StreamSegment { stream: cut.stream.clone(), id }, end);
            }
        }
        Ok(Fresh { configuration, starting, ends, reconfiguring: false })
    }
}
