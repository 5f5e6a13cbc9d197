//! A group as those see it who run its readers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use headwater_records::group::{Initial, State, Update, decide, silent_checkpoint};
use headwater_records::{Checkpoint, Offsets, Position, StreamCut};
use headwater_types::{Name, ScopedStream, StreamSegment};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::beating::{self, Beating};
use super::calls::GroupName;
use super::config::ReaderGroupConfig;
use super::reader::{EventReader, ReaderOptions};
use super::replica::{Replica, entry};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::revisioned::RevisionedStream;

/// How often is looked whether a checkpoint is complete. Readers look less often.
const CHECKPOINT_LOOK_EVERY: Duration = Duration::from_millis(100);

/// A group of readers that share the events of streams. Cheap to clone.
#[doc = crate::example!("../examples/reader_group.rs")]
#[derive(Clone)]
pub struct ReaderGroup {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    group: GroupName,
    replica: Mutex<Replica>,
}

impl fmt::Debug for ReaderGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReaderGroup").field("group", &self.shared.group).finish_non_exhaustive()
    }
}

impl Client {
    /// Names of a scope's reader groups. A group that is being made or deleted may be among them.
    ///
    /// # Errors
    /// `NotFound`: the scope does not exist.
    ///
    /// # Cancel safety
    /// It only asks.
    ///
    /// # Source
    /// No call lists groups: each has a stream whose name begins with `_RG`, as Java's clients name it.
    pub async fn reader_groups(&self, scope: &Name) -> Result<Vec<Name>> {
        let streams = self.all_streams(scope).await?;
        Ok(streams.iter().filter_map(GroupName::of_stream).collect())
    }

    /// Makes a reader group. `false` if it was there, with the same configuration.
    ///
    /// # Errors
    /// * `AlreadyExists`: it is there with another configuration; [`reset`](ReaderGroup::reset) changes that;
    /// * `NotFound`: the scope or a stream does not exist;
    /// * `Invalid`: the server does not take the name, or the configuration is none.
    ///
    /// # Cancel safety
    /// The group may be there, perhaps without its first state. The same call again completes it.
    pub async fn create_reader_group(&self, scope: &Name, name: &Name, config: &ReaderGroupConfig) -> Result<bool> {
        let group = GroupName::new(scope, name)?;
        let wanted = config.to_records(0, Uuid::new_v4().as_u128())?;
        // What does not exist is found out before there is a group that wants it.
        self.fresh_state(wanted.clone()).await?;
        let stored = self.make_group(&group, &wanted).await?;
        let (id, generation) = (stored.id, stored.generation);
        if stored != config.to_records(generation, id)? {
            let what = format!("reader group {group} exists with another configuration");
            return Err(Error::new(ErrorKind::AlreadyExists, what));
        }
        if generation > 0 {
            return Ok(false);
        }
        let state = Initial::Fresh(self.fresh_state(stored).await?);
        Replica::begin(self, &group, state).await
    }

    /// Opens a reader group.
    ///
    /// # Errors
    /// `NotFound`: it does not exist, or is only just being made.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn reader_group(&self, scope: &Name, name: &Name) -> Result<ReaderGroup> {
        let group = GroupName::new(scope, name)?;
        let replica = Mutex::new(Replica::open(self, &group).await?);
        Ok(ReaderGroup { shared: Arc::new(Shared { client: self.clone(), group, replica }) })
    }

    /// Deletes a reader group with everything that its readers agreed on. `false` if it was not there.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`.
    ///
    /// # Cancel safety
    /// It may be deleted.
    pub async fn delete_reader_group(&self, scope: &Name, name: &Name) -> Result<bool> {
        let group = GroupName::new(scope, name)?;
        match self.group_config(&group).await? {
            Some(config) => self.drop_group(&group, config.id, config.generation).await,
            None => Ok(false),
        }
    }
}

impl ReaderGroup {
    /// Scope of the group.
    pub fn scope(&self) -> &Name {
        &self.shared.group.scope
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.shared.group.name
    }

    async fn look<T>(&self, at: impl FnOnce(&State) -> T) -> Result<T> {
        let mut replica = self.shared.replica.lock().await;
        replica.fetch().await?;
        Ok(at(&replica.state))
    }

    /// Where the readers agree.
    pub(super) async fn stream(&self) -> RevisionedStream {
        self.shared.replica.lock().await.stream.clone()
    }

    pub(super) async fn change(&self, decide: impl FnMut(&State) -> Result<Vec<Update>>) -> Result<bool> {
        self.shared.replica.lock().await.change(decide).await
    }

    /// How it reads.
    ///
    /// # Errors
    /// `NotFound`: it was deleted. `Unavailable`, `Denied`.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn config(&self) -> Result<ReaderGroupConfig> {
        self.look(|state| ReaderGroupConfig::of_records(state.configuration())).await
    }

    /// Adds a reader with default options, which hands over at checkpoints as Java's do.
    ///
    /// # Errors
    /// As [`reader_with`](Self::reader_with).
    ///
    /// # Cancel safety
    /// The reader may be in the group.
    pub async fn reader(&self, id: &str) -> Result<EventReader> {
        self.reader_with(id, ReaderOptions::default()).await
    }

    /// Adds a reader.
    ///
    /// # Errors
    /// * `AlreadyExists`: one of this id is in the group. If it is dead, [say so](Self::reader_offline) first;
    /// * `Invalid`: the id is empty or longer than 64 KiB;
    /// * `NotFound`: the group was deleted. `Unavailable`: the reader **may be in the group**.
    ///
    /// # Cancel safety
    /// The reader may be in the group.
    pub async fn reader_with(&self, id: &str, options: ReaderOptions) -> Result<EventReader> {
        if id.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "a reader's id is empty"));
        }
        let mut beating = None;
        if let Some(dead_after) = options.dead_after {
            // Not in the name of one that is there: it may be dead.
            if self.look(|state| state.is_online(id)).await? {
                let what = format!("reader {id} of group {} exists", self.shared.group);
                return Err(Error::new(ErrorKind::AlreadyExists, what));
            }
            // Before it joins, so that whatever happens then, others see that it has stopped.
            beating = Some(Beating::begin(self, id, options.handover, dead_after).await?);
        }
        let joined = EventReader::join(self.shared.client.clone(), self.shared.group.clone(), id, options).await;
        match (joined, beating) {
            (Ok(mut reader), Some(beating)) => {
                reader.watch = Some(self.watch_for(id, beating));
                Ok(reader)
            }
            (Err(error), Some(mut beating)) => {
                // Nobody has to wait for a reader that is not there; if this fails, nobody does. One that may be there is
                // taken out for its silence.
                if error.kind() != ErrorKind::Unavailable {
                    let _ = beating.end().await;
                }
                Err(error)
            }
            (joined, None) => joined,
        }
    }

    /// Ids of all readers that are in the group, dead ones included.
    ///
    /// # Errors
    /// `NotFound`: the group was deleted. `Unavailable`, `Denied`.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn online_readers(&self) -> Result<BTreeSet<String>> {
        self.look(|state| state.assigned().keys().cloned().collect()).await
    }

    /// Takes a reader out of the group that died, or is to stop. What it has is read on by others from `position`, or where
    /// the position does not say, from where it stopped for a checkpoint last. `false` if it is not in the group.
    ///
    /// If it lives, it finds out within the group's refresh time and stops; what it delivers until then others read as well.
    ///
    /// # Errors
    /// `NotFound`: the group was deleted. `Unavailable`: it **may be out**. `Denied`.
    ///
    /// # Cancel safety
    /// It may be out.
    pub async fn reader_offline(&self, id: &str, position: Option<&Position>) -> Result<bool> {
        let none = Offsets::new();
        let offsets = position.map_or(&none, |position| &position.offsets);
        let was_online = self.change(|state| Ok(decide::offline(state, id, offsets).into_iter().collect())).await?;
        if was_online {
            beating::forget(&self.stream().await, id).await?;
        }
        Ok(was_online)
    }

    /// Begins a checkpoint: each reader is told of it in the order of its events, and where all of them were becomes the
    /// checkpoint. It completes while readers ask for events.
    ///
    /// # Errors
    /// * `Exhausted`: as many are under way as the group may have;
    /// * `AlreadyExists`: one of this name is under way, or the last one;
    /// * `NotFound`: the group was deleted. `Unavailable`: it **may have begun**.
    ///
    /// # Cancel safety
    /// It may have begun.
    pub async fn initiate_checkpoint(&self, name: &str) -> Result<CheckpointUnderWay> {
        self.change(|state| {
            if !state.is_checkpoint_complete(name) || state.checkpoint(name).is_some() {
                let what = format!("checkpoint {name} is there already");
                return Err(Error::new(ErrorKind::AlreadyExists, what));
            }
            let begun = decide::checkpoint(state, name);
            let too_many = |error| Error::caused(ErrorKind::Exhausted, "too many checkpoints are under way", error);
            begun.map(|update| vec![update]).map_err(too_many)
        })
        .await?;
        Ok(CheckpointUnderWay { group: self.clone(), name: name.to_owned() })
    }

    /// Where the readers are now: one cut for each stream, behind what they have delivered. They do not stop for it, and have
    /// to ask for events meanwhile.
    ///
    /// # Errors
    /// `Conflict`: the group was reset meanwhile. `NotFound`: it was deleted. `Unavailable`, `Denied`.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn generate_stream_cuts(&self) -> Result<BTreeMap<ScopedStream, StreamCut>> {
        let checkpoint = self.initiate_checkpoint(&silent_checkpoint(&Uuid::new_v4().to_string())).await?;
        Ok(checkpoint.wait().await?.cuts)
    }

    /// Gives up all checkpoints that are under way.
    ///
    /// # Errors
    /// `NotFound`: the group was deleted. `Unavailable`, `Denied`.
    ///
    /// # Cancel safety
    /// They may be given up.
    pub async fn cancel_checkpoints(&self) -> Result<()> {
        self.change(|state| {
            let any = state.outstanding_checkpoints().next().is_some();
            Ok(if any { vec![Update::CancelCheckpoints] } else { Vec::new() })
        })
        .await
        .map(drop)
    }

    /// Bytes that are stored and not read, as far as readers have said what they read: each does every few seconds. Includes
    /// headers of events, and what was read since the readers said so.
    ///
    /// # Errors
    /// `NotFound`: the group was deleted. `Unavailable`, `Denied`.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn unread_bytes(&self) -> Result<u64> {
        let (mut places, ends) = self
            .look(|state| {
                let unassigned = state.unassigned().iter().map(|(segment, offset)| (segment.clone(), *offset));
                let said = |segment: &StreamSegment| state.last_read().get(segment).copied().unwrap_or(0);
                // Below zero it is read, whatever else is known.
                let latest = |segment: &StreamSegment, offset: i64| {
                    if offset < 0 || said(segment) < 0 { -1 } else { offset.max(said(segment)) }
                };
                let assigned = state.assigned().values().flatten();
                let assigned = assigned.map(|(segment, offset)| (segment.clone(), latest(segment, *offset)));
                let places: Vec<(StreamSegment, i64)> = unassigned.chain(assigned).collect();
                let ends: Offsets = places.iter().filter_map(|(it, _)| Some((it.clone(), state.end(it)?))).collect();
                (places, ends)
            })
            .await?;
        let (mut seen, mut unread) = (BTreeSet::new(), 0);
        while let Some((segment, offset)) = places.pop() {
            if !seen.insert(segment.clone()) {
                continue;
            }
            let client = &self.shared.client;
            let info = match client.segment_info(&segment.stream, segment.id).await {
                Ok(info) => Some(info),
                // Truncated away.
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            let end = ends.get(&segment).map(|end| u64::try_from(*end).unwrap_or(0));
            if let (Some(info), Ok(offset)) = (&info, u64::try_from(offset)) {
                let until = end.unwrap_or(u64::MAX).min(info.end);
                unread += until.saturating_sub(offset.max(info.start));
            }
            if end.is_none() && info.is_none_or(|info| info.sealed) {
                match client.successors(&segment.stream, segment.id).await {
                    Ok(successors) => places.extend(successors.into_iter().map(|successor| {
                        (StreamSegment { stream: segment.stream.clone(), id: successor.segment.id }, 0)
                    })),
                    // The whole stream is gone, and what was unread of it.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(unread)
    }

    /// Begins anew with another configuration, or from other cuts. All readers are put out of the group: they stop with
    /// `Closed`, and have to be added again.
    ///
    /// # Errors
    /// * `Conflict`: somebody else reset the group meanwhile;
    /// * `Invalid`: the configuration is none. `NotFound`: the group or a stream does not exist;
    /// * `Unavailable`: it **may be reset**. `Denied`.
    ///
    /// # Cancel safety
    /// The group may be reset, or be about to be: its readers then complete it, and so does the same call again.
    pub async fn reset(&self, config: &ReaderGroupConfig) -> Result<()> {
        let Shared { client, group, replica } = &*self.shared;
        let current = client.group_config(group).await?.ok_or_else(|| group.missing())?;
        let wanted = config.to_records(current.generation, current.id)?;
        client.fresh_state(wanted.clone()).await?;
        let mut replica = replica.lock().await;
        let tell =
            |state: &State| Ok(if state.is_reconfiguring() { Vec::new() } else { vec![Update::Reconfiguring(true)] });
        replica.change(tell).await?;
        let updated = client.update_group(group, &wanted).await?;
        // Also where another was faster: nobody else may be left to do it.
        adopt(client, group, &mut replica).await?;
        match updated {
            Some(_) => Ok(()),
            None => Err(Error::new(ErrorKind::Conflict, format!("reader group {group} was reset meanwhile"))),
        }
    }

    /// Begins anew where a checkpoint was taken, otherwise as before.
    ///
    /// # Errors
    /// As [`reset`](Self::reset); `Invalid`: the checkpoint is one of other streams.
    ///
    /// # Cancel safety
    /// As [`reset`](Self::reset).
    pub async fn reset_to(&self, checkpoint: &Checkpoint) -> Result<()> {
        let mut config = self.config().await?;
        for (stream, from) in &mut config.streams {
            let cut = checkpoint.cuts.get(stream).ok_or_else(|| {
                let what = format!("checkpoint {} says nothing of stream {stream}", checkpoint.name);
                Error::new(ErrorKind::Invalid, what)
            })?;
            *from = headwater_records::Cut::At(cut.clone());
        }
        self.reset(&config).await
    }

    /// Lets go of what lies before these cuts, for a group that keeps what it has not read [up to where the application
    /// says](headwater_records::group::Retention::AtCut).
    ///
    /// # Errors
    /// * `Invalid`: the group keeps nothing in this way, or a cut lies before the last one;
    /// * `NotFound`: the group or a stream does not exist. `Conflict`: it was reset meanwhile. `Unavailable`, `Denied`.
    ///
    /// # Cancel safety
    /// Some of the cuts may count.
    pub async fn release_before<'a>(&self, cuts: impl IntoIterator<Item = &'a StreamCut>) -> Result<()> {
        let config = self.look(|state| state.configuration().clone()).await?;
        if config.retention != headwater_records::group::Retention::AtCut {
            let what =
                format!("reader group {} does not keep what the application has not released", self.shared.group);
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        for cut in cuts {
            self.shared.client.release_before(&self.shared.group, &config, cut).await?;
        }
        Ok(())
    }
}

/// Replaces the state by a fresh one if the controller has a newer configuration.
pub(super) async fn adopt(client: &Client, group: &GroupName, replica: &mut Replica) -> Result<()> {
    let config = client.group_config(group).await?.ok_or_else(|| group.missing())?;
    let generation = config.generation;
    let fresh = client.fresh_state(config).await?;
    let replace = |state: &State| {
        let is_older = state.configuration().generation < generation;
        let fresh = || Update::Replace(Box::new(Initial::Fresh(fresh.clone())));
        Ok(if is_older { vec![fresh()] } else { Vec::new() })
    };
    replica.change(replace).await.map(drop)
}

/// A checkpoint that readers are reporting to.
#[derive(Clone, Debug)]
pub struct CheckpointUnderWay {
    group: ReaderGroup,
    name: String,
}

impl CheckpointUnderWay {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until all readers have reported, for as long as that takes.
    ///
    /// Where the group has read one of two segments that another follows on, a cut has no place for the keys of the one: groups
    /// and readers of whole streams begin there, and a server refuses to truncate there (`Invalid`).
    ///
    /// # Errors
    /// * `Conflict`: it was given up, or the group was reset;
    /// * `NotFound`: the group was deleted. `Unavailable`, `Denied`.
    ///
    /// # Cancel safety
    /// The next call goes on waiting.
    pub async fn wait(&self) -> Result<Checkpoint> {
        loop {
            let name = &self.name;
            let reported =
                self.group.look(|state| state.is_checkpoint_complete(name).then(|| state.checkpoint(name).cloned()));
            match reported.await? {
                None => tokio::time::sleep(CHECKPOINT_LOOK_EVERY).await,
                Some(Some(offsets)) => {
                    let before = name.clone();
                    let clear = entry(&[Update::ClearCheckpoints { before }])?;
                    self.group.shared.replica.lock().await.append_anywhere(&clear).await?;
                    return Ok(Checkpoint::new(name.clone(), &offsets));
                }
                Some(None) => {
                    let what = format!("checkpoint {name} was given up, or its group reset");
                    return Err(Error::new(ErrorKind::Conflict, what));
                }
            }
        }
    }
}
