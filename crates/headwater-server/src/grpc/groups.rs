//! The calls about reader groups and about what they hold back.

use std::collections::BTreeMap;

use headwater_controller::model::{
    CreateGroup, DeleteGroup, Group, GroupConfig, GroupCut, GroupRetention, MoveSubscriber, UpdateGroup,
};
use headwater_proto::controller as proto;
use headwater_types::{Name, SegmentId};
use proto::reader_group_configuration::RetentionType;
use tonic::Status;
use uuid::Uuid;

use super::ControllerGrpc;
use super::messages::{Answer, answer, cut, missing, name, status, stream, stream_info};

/// An id as clients write it. Nil stands for "make one".
fn id(text: &str) -> Result<u128, Status> {
    match Uuid::parse_str(text) {
        Ok(id) => Ok(id.as_u128()),
        Err(_) => Err(Status::invalid_argument("readerGroupId is not a UUID")),
    }
}

/// `None` for a group that cannot exist.
fn group(scope: &str, group: &str) -> Result<Option<(Name, Name)>, Status> {
    Ok(name(scope, "scope")?.zip(name(group, "readerGroupName")?))
}

fn cuts(field: &str, cuts: Vec<proto::StreamCut>) -> Result<Vec<GroupCut>, Status> {
    let read = |message: proto::StreamCut| {
        let invalid = || Status::invalid_argument(format!("{field} has an impossible stream or segment"));
        let stream = stream(message.stream_info)?.ok_or_else(invalid)?;
        Ok(GroupCut { stream, cut: cut(message.cut).ok_or_else(invalid)? })
    };
    cuts.into_iter().map(read).collect()
}

fn config(message: proto::ReaderGroupConfiguration) -> Result<GroupConfig, Status> {
    let retention = match RetentionType::try_from(message.retention_type) {
        Ok(RetentionType::None) => GroupRetention::None,
        Ok(RetentionType::Manual) => GroupRetention::Manual,
        Ok(RetentionType::Automatic) => GroupRetention::Automatic,
        Err(_) => {
            return Err(Status::invalid_argument(format!("unknown retention type {}", message.retention_type)));
        }
    };
    Ok(GroupConfig {
        refresh_ms: message.group_refresh_time_millis,
        checkpoint_every_ms: message.automatic_checkpoint_interval_millis,
        checkpoints_max: message.max_outstanding_checkpoint_request,
        retention,
        starting: cuts("startingStreamCuts", message.starting_stream_cuts)?,
        ending: cuts("endingStreamCuts", message.ending_stream_cuts)?,
    })
}

/// Clients compare it with what they sent, field by field.
fn message(scope: String, name: String, group: Group) -> proto::ReaderGroupConfiguration {
    let cuts = |cuts: Vec<GroupCut>| {
        let message = |cut: GroupCut| proto::StreamCut {
            stream_info: Some(stream_info(cut.stream.scope.as_str(), cut.stream.stream.as_str())),
            cut: cut.cut.into_iter().map(|(id, offset)| (SegmentId::as_i64(id), offset)).collect::<BTreeMap<_, _>>(),
        };
        cuts.into_iter().map(message).collect()
    };
    proto::ReaderGroupConfiguration {
        scope,
        reader_group_name: name,
        group_refresh_time_millis: group.config.refresh_ms,
        automatic_checkpoint_interval_millis: group.config.checkpoint_every_ms,
        max_outstanding_checkpoint_request: group.config.checkpoints_max,
        retention_type: match group.config.retention {
            GroupRetention::None => RetentionType::None,
            GroupRetention::Manual => RetentionType::Manual,
            GroupRetention::Automatic => RetentionType::Automatic,
        }
        .into(),
        generation: group.generation,
        reader_group_id: Uuid::from_u128(group.id).to_string(),
        starting_stream_cuts: cuts(group.config.starting),
        ending_stream_cuts: cuts(group.config.ending),
        rollover_size_bytes: 0,
    }
}

impl ControllerGrpc {
    pub(super) async fn create_group(
        &self,
        request: proto::ReaderGroupConfiguration,
    ) -> Answer<proto::CreateReaderGroupResponse> {
        use proto::create_reader_group_response::Status as Wire;
        let asked = if request.reader_group_id.is_empty() { 0 } else { id(&request.reader_group_id)? };
        let id = if asked == 0 { Uuid::new_v4().as_u128() } else { asked };
        let (scope, name) = (request.scope.clone(), request.reader_group_name.clone());
        let outcome = self.controller.create_group(&scope, &name, id, config(request)?).await.map_err(status)?;
        let (config, status) = match outcome {
            CreateGroup::Group(group) => (Some(message(scope, name, group)), Wire::Success),
            CreateGroup::ScopeNotFound => (None, Wire::ScopeNotFound),
            CreateGroup::InvalidName => (None, Wire::InvalidRgName),
        };
        answer(proto::CreateReaderGroupResponse { status: status.into(), config })
    }

    pub(super) async fn group_config(
        &self,
        request: proto::ReaderGroupInfo,
    ) -> Answer<proto::ReaderGroupConfigResponse> {
        use proto::reader_group_config_response::Status as Wire;
        let found = match group(&request.scope, &request.reader_group)? {
            None => None,
            Some((scope, group)) => self.controller.group(&scope, &group).await.map_err(status)?,
        };
        let status = if found.is_some() { Wire::Success } else { Wire::RgNotFound };
        let config = found.map(|group| message(request.scope, request.reader_group, group));
        answer(proto::ReaderGroupConfigResponse { config, status: status.into() })
    }

    pub(super) async fn update_group(
        &self,
        request: proto::ReaderGroupConfiguration,
    ) -> Answer<proto::UpdateReaderGroupResponse> {
        use proto::update_reader_group_response::Status as Wire;
        let (id, generation) = (id(&request.reader_group_id)?, request.generation);
        let outcome = match group(&request.scope, &request.reader_group_name)? {
            None => UpdateGroup::NotFound,
            Some((scope, group)) => {
                let config = config(request)?;
                self.controller.update_group(&scope, &group, id, generation, config).await.map_err(status)?
            }
        };
        let (status, generation) = match outcome {
            UpdateGroup::Success { generation } => (Wire::Success, generation),
            UpdateGroup::NotFound => (Wire::RgNotFound, generation),
            UpdateGroup::InvalidConfig => (Wire::InvalidConfig, generation),
        };
        answer(proto::UpdateReaderGroupResponse { status: status.into(), generation })
    }

    pub(super) async fn delete_group(&self, request: proto::ReaderGroupInfo) -> Answer<proto::DeleteReaderGroupStatus> {
        use proto::delete_reader_group_status::Status as Wire;
        let id = id(&request.reader_group_id)?;
        let outcome = match group(&request.scope, &request.reader_group)? {
            None => DeleteGroup::NotFound,
            Some((scope, group)) => self.controller.delete_group(&scope, &group, Some(id)).await.map_err(status)?,
        };
        let status = match outcome {
            DeleteGroup::Success => Wire::Success,
            DeleteGroup::NotFound => Wire::RgNotFound,
        };
        answer(proto::DeleteReaderGroupStatus { status: status.into() })
    }

    pub(super) async fn subscribers(&self, request: proto::StreamInfo) -> Answer<proto::SubscribersResponse> {
        use proto::subscribers_response::Status as Wire;
        let found = match stream(Some(request))? {
            None => None,
            Some(stream) => self.controller.list_subscribers(&stream).await.map_err(status)?,
        };
        let status = if found.is_some() { Wire::Success } else { Wire::StreamNotFound };
        answer(proto::SubscribersResponse { subscribers: found.unwrap_or_default(), status: status.into() })
    }

    pub(super) async fn move_subscriber(
        &self,
        request: proto::SubscriberStreamCut,
    ) -> Answer<proto::UpdateSubscriberStatus> {
        use proto::update_subscriber_status::Status as Wire;
        let id = id(&request.reader_group_id)?;
        let message = request.stream_cut.ok_or_else(|| missing("streamCut"))?;
        // An impossible segment makes an invalid cut, but only of a stream and a subscriber that exist.
        let cut = cut(message.cut).unwrap_or_default();
        let outcome = match stream(message.stream_info)? {
            None => MoveSubscriber::StreamNotFound,
            Some(stream) => self
                .controller
                .move_subscriber(&stream, &request.subscriber, id, request.generation, cut)
                .await
                .map_err(status)?,
        };
        let status = match outcome {
            MoveSubscriber::Success => Wire::Success,
            MoveSubscriber::StreamNotFound => Wire::StreamNotFound,
            MoveSubscriber::SubscriberNotFound => Wire::SubscriberNotFound,
            MoveSubscriber::GenerationMismatch => Wire::GenerationMismatch,
            MoveSubscriber::CutNotValid => Wire::StreamCutNotValid,
        };
        answer(proto::UpdateSubscriberStatus { status: status.into() })
    }
}
