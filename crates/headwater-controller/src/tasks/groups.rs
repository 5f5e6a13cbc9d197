//! Reader groups of Java clients, as objects of the controller: a configuration, an internal stream `_RG<group>` in
//! which the readers agree on who reads what, and a hold on the retention of the streams they read.

use std::collections::BTreeSet;
use std::sync::Arc;

use headwater_types::{Name, ScopedStream};
use tracing::info;

use super::items::{Item, item_name};
use super::{Inner, Result};
use crate::model::{
    ControllerError, CreateGroup, CreateStream, DeleteGroup, DeleteStream, GROUP_CONFIG_BYTES_MAX, Group, GroupConfig,
    GroupRetention, Listing, ScalingPolicy, StreamConfig, UpdateGroup, UpdateStream,
};
use crate::state::groups::{GroupRecord, config_bytes};
use crate::state::keys;
use crate::state::tables::Life;

/// Where the chunks of a group's stream end. Source: Pravega, 4 MiB.
pub(super) const ROLLOVER_BYTES: i64 = 4 << 20;
/// Start of the names of groups' streams.
pub(super) const GROUP: &str = "_RG";

/// The stream in which a group's readers agree.
pub(super) fn group_stream(item: &Item) -> ScopedStream {
    let stream = Name::parse(&format!("{GROUP}{}", item.name)).expect("names of groups leave room for the prefix");
    ScopedStream { scope: item.scope.clone(), stream }
}

/// Streams whose retention the group holds back.
fn held(config: &GroupConfig) -> BTreeSet<&ScopedStream> {
    match config.retention {
        GroupRetention::None => BTreeSet::new(),
        GroupRetention::Manual | GroupRetention::Automatic => config.starting.iter().map(|cut| &cut.stream).collect(),
    }
}

/// What a group is called among those that hold a stream back.
fn subscriber(item: &Item) -> String {
    format!("{}/{}", item.scope, item.name)
}

fn check(config: &GroupConfig) -> Result<()> {
    let bytes = config_bytes(config);
    if bytes <= GROUP_CONFIG_BYTES_MAX {
        return Ok(());
    }
    Err(ControllerError::Invalid(format!("configuration of {bytes} bytes, at most {GROUP_CONFIG_BYTES_MAX}")))
}

impl Inner {
    pub(super) async fn create_group(
        self: &Arc<Self>,
        scope: Name,
        name: &str,
        id: u128,
        config: GroupConfig,
    ) -> Result<CreateGroup> {
        check(&config)?;
        let Some(name) = item_name(name) else { return Ok(CreateGroup::InvalidName) };
        let item = Item::group(&scope, &name);
        let _alone = self.lock_item(&item).await;
        if let Some(record) = self.settled_group(&item).await? {
            // A stream may have been created, or created again, since the group was.
            let subscriber = subscriber(&item);
            let held = held(&record.group.config);
            self.admit_subscriber(&held, &subscriber).await?;
            for stream in held {
                self.subscribe(stream, &subscriber, record.group.id, record.group.generation).await?;
            }
            return Ok(CreateGroup::Group(record.group));
        }
        self.admit_subscriber(&held(&config), &subscriber(&item)).await?;
        // Readers of old clients, which make it by themselves, may have written there: it stays as it is.
        let stream = group_stream(&item);
        if !self.is_fit_to_keep(&stream).await? {
            let text = format!("stream {stream} is there, and not what a group is kept in: seal and delete it first");
            return Err(ControllerError::Invalid(text));
        }
        let group = Group { id, generation: 0, config };
        let record = GroupRecord { life: Life::Creating, group, update: None };
        if !self.begin_item(&item, record.encode()).await? {
            return Ok(CreateGroup::ScopeNotFound);
        }
        let settled = self.settle_group(&item, record).await?;
        info!(%item, "created");
        let record = settled.ok_or_else(|| ControllerError::Internal(format!("{item} is gone while it is made")))?;
        Ok(CreateGroup::Group(record.group))
    }

    pub(super) async fn group(self: &Arc<Self>, scope: &Name, name: &Name) -> Result<Option<Group>> {
        let item = Item::group(scope, name);
        let record = match self.group_record(&item).await? {
            Some(record) if record.life == Life::Active && record.update.is_none() => Some(record),
            None => None,
            Some(_) => {
                let _alone = self.lock_item(&item).await;
                self.settled_group(&item).await?
            }
        };
        Ok(record.map(|record| record.group))
    }

    pub(super) async fn update_group(
        self: &Arc<Self>,
        scope: &Name,
        name: &Name,
        id: u128,
        generation: i64,
        config: GroupConfig,
    ) -> Result<UpdateGroup> {
        check(&config)?;
        let item = Item::group(scope, name);
        let _alone = self.lock_item(&item).await;
        let Some(record) = self.settled_group(&item).await? else { return Ok(UpdateGroup::NotFound) };
        if record.group.id != id || record.group.generation != generation {
            return Ok(UpdateGroup::InvalidConfig);
        }
        self.admit_subscriber(&held(&config), &subscriber(&item)).await?;
        self.note_item(&item).await?;
        let record = GroupRecord { update: Some(config), ..record };
        self.put_item(&item, record.encode()).await?;
        self.settle_group(&item, record).await?;
        let generation = generation + 1;
        info!(%item, generation, "updated");
        Ok(UpdateGroup::Success { generation })
    }

    /// `id` `None` is whatever id the group has.
    pub(super) async fn delete_group(
        self: &Arc<Self>,
        scope: &Name,
        name: &Name,
        id: Option<u128>,
    ) -> Result<DeleteGroup> {
        let item = Item::group(scope, name);
        let _alone = self.lock_item(&item).await;
        let Some(record) = self.settled_group(&item).await? else { return Ok(DeleteGroup::NotFound) };
        if id.is_some_and(|id| id != record.group.id) {
            return Ok(DeleteGroup::NotFound);
        }
        self.note_item(&item).await?;
        let record = GroupRecord { life: Life::Deleting, ..record };
        self.put_item(&item, record.encode()).await?;
        self.settle_group(&item, record).await?;
        info!(%item, "deleted");
        Ok(DeleteGroup::Success)
    }

    pub(super) async fn list_groups(&self, scope: &Name, token: &str) -> Result<Listing> {
        self.list_items(
            scope,
            keys::GROUP_PREFIX,
            token,
            |record| Ok(GroupRecord::decode(record)?.life == Life::Active),
        )
        .await
    }

    pub(super) async fn resume_group(self: &Arc<Self>, item: &Item) -> Result<()> {
        let _alone = self.lock_item(item).await;
        self.settled_group(item).await?;
        self.forget_item_note(item).await
    }

    async fn group_record(&self, item: &Item) -> Result<Option<GroupRecord>> {
        Ok(self.item_record(item).await?.map(|record| GroupRecord::decode(&record)).transpose()?)
    }

    /// The group after what was begun is finished; `None` if there is none. The caller holds its lock.
    async fn settled_group(self: &Arc<Self>, item: &Item) -> Result<Option<GroupRecord>> {
        match self.group_record(item).await? {
            Some(record) => self.settle_group(item, record).await,
            None => Ok(None),
        }
    }

    async fn settle_group(self: &Arc<Self>, item: &Item, mut record: GroupRecord) -> Result<Option<GroupRecord>> {
        let subscriber = subscriber(item);
        match (record.life, record.update.take()) {
            (Life::Active, None) => return Ok(Some(record)),
            (Life::Creating, _) => {
                for stream in held(&record.group.config) {
                    self.subscribe(stream, &subscriber, record.group.id, record.group.generation).await?;
                }
                let mut config = StreamConfig::new(ScalingPolicy::fixed(1));
                config.rollover_bytes = ROLLOVER_BYTES;
                match self.create_owned_stream(group_stream(item), config).await? {
                    CreateStream::Success | CreateStream::Exists => {}
                    CreateStream::ScopeNotFound | CreateStream::InvalidName => {
                        return Err(ControllerError::Internal(format!("the stream of {item} cannot be created")));
                    }
                }
                record.life = Life::Active;
            }
            (Life::Active, Some(config)) => {
                let generation = record.group.generation.saturating_add(1);
                let (before, after) = (held(&record.group.config), held(&config));
                for stream in before.difference(&after) {
                    self.unsubscribe(stream, &subscriber).await?;
                }
                for stream in after {
                    self.subscribe(stream, &subscriber, record.group.id, generation).await?;
                }
                record.group = Group { id: record.group.id, generation, config };
            }
            (Life::Deleting, update) => {
                for stream in held(&record.group.config).into_iter().chain(update.iter().flat_map(held)) {
                    self.unsubscribe(stream, &subscriber).await?;
                }
                self.remove_owned_stream(group_stream(item)).await?;
                self.remove_item(item).await?;
                self.forget_item_note(item).await?;
                return Ok(None);
            }
        }
        self.put_item(item, record.encode()).await?;
        self.forget_item_note(item).await?;
        Ok(Some(record))
    }

    /// Seals and deletes a stream; clients that delete a scope by force may have done either before.
    pub(super) async fn remove_owned_stream(self: &Arc<Self>, stream: ScopedStream) -> Result<()> {
        match self.seal_stream(stream.clone()).await? {
            UpdateStream::Success | UpdateStream::StreamNotFound | UpdateStream::Sealed => {}
            UpdateStream::Failure => return Err(ControllerError::Internal(format!("{stream} cannot be sealed"))),
        }
        match self.delete_stream(stream.clone()).await? {
            DeleteStream::Success | DeleteStream::NotFound => Ok(()),
            DeleteStream::NotSealed => Err(ControllerError::Internal(format!("{stream} is sealed and yet is not"))),
        }
    }
}
