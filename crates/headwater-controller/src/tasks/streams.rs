//! Creating, configuring, sealing and deleting streams.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use headwater_types::{KeyRange, Name, ScopedStream};
use tracing::info;

use super::groups::{GROUP, ROLLOVER_BYTES as GROUP_ROLLOVER_BYTES};
use super::open::{Open, missing_epoch};
use super::walks::For;
use super::{Inner, Result, fan_out, present, put, remove, segment_names};
use crate::codec::{Decoder, Encoder};
use crate::model::{
    ControllerError, CreateStream, DeleteStream, STREAM_NAME_BYTES_MAX, ScalingKind, ScalingPolicy, StreamConfig,
    UpdateStream,
};
use crate::ports::Change;
use crate::state::cuts::Spans;
use crate::state::epochs::Epoch;
use crate::state::head::{Head, State};
use crate::state::{keys, scale};

/// The stream into which the store writes another stream's time. Java readers open it for every stream they read.
pub(super) fn mark_stream(stream: &ScopedStream) -> Option<ScopedStream> {
    if stream.stream.is_internal() {
        return None;
    }
    let name = Name::parse(&format!("{MARK}{}", stream.stream)).ok()?;
    Some(ScopedStream { scope: stream.scope.clone(), stream: name })
}

/// Start of the names of streams into which the store writes times.
const MARK: &str = "_MARK";

/// Whether something else can be kept in a stream that is so configured: one segment for ever, of which nothing goes by
/// itself and which no tag finds. Source: what Java's clients of all versions, and the controller for them, make for the
/// readers of a group.
fn is_plain(config: &StreamConfig) -> bool {
    let StreamConfig { scaling, retention, tags, timestamp_aggregation_timeout_ms: _, rollover_bytes } = config;
    let is_single = scaling.kind == ScalingKind::Fixed && scaling.min_segments == 1;
    is_single && retention.is_none() && tags.is_empty() && [0, GROUP_ROLLOVER_BYTES].contains(rollover_bytes)
}

/// Whether a stream of this name holds what the readers of a group know of each other, or the time of another stream.
/// Clients look for either in its first segment only, and one that is sealed stands still for ever.
pub(super) fn is_kept_for_another(name: &ScopedStream) -> bool {
    [GROUP, MARK].iter().any(|prefix| name.stream.as_str().starts_with(prefix))
}

pub(super) fn plain_only(name: &ScopedStream) -> ControllerError {
    let text = format!("{name} is for a reader group or another stream: one fixed segment, no retention, no tags");
    ControllerError::Invalid(text)
}

/// Tags by which a stream can be found; internal streams cannot.
fn indexed_tags<'a>(stream: &ScopedStream, config: &'a StreamConfig) -> BTreeSet<&'a str> {
    if stream.stream.is_internal() { BTreeSet::new() } else { config.tags.iter().map(String::as_str).collect() }
}

impl Inner {
    /// For a client. Whoever may only read may ask for what a group or a stream is going to be kept in, so it gets these as
    /// the controller would make them, or not at all: its owner takes what is there.
    pub(super) async fn create_stream(
        self: &Arc<Self>,
        name: ScopedStream,
        config: StreamConfig,
    ) -> Result<CreateStream> {
        if name.stream.as_str().starts_with(MARK) {
            // No client makes one: it comes and goes with its stream.
            return Ok(CreateStream::InvalidName);
        }
        if is_kept_for_another(&name) && !is_plain(&config) {
            return Err(plain_only(&name));
        }
        self.create(name, config, false).await
    }

    /// Whether something else can be kept in a stream: there is none yet, or it is as its owner would make it.
    pub(super) async fn is_fit_to_keep(&self, name: &ScopedStream) -> Result<bool> {
        let Some(view) = self.view(&self.slots.slot(name)).await? else { return Ok(true) };
        Ok(match view.head.state {
            State::Creating | State::Active => is_plain(&view.head.config) && view.current.segments().len() == 1,
            State::Sealing | State::Sealed => false,
            // That comes to its end before another one is made.
            State::Deleting => true,
        })
    }

    /// Creates a stream that belongs to something else in its scope. In a box, since creating a stream creates its mark
    /// stream, and that is creating a stream.
    pub(super) fn create_owned_stream(
        self: &Arc<Self>,
        name: ScopedStream,
        config: StreamConfig,
    ) -> Pin<Box<dyn Future<Output = Result<CreateStream>> + Send + '_>> {
        Box::pin(self.create(name, config, true))
    }

    async fn create(self: &Arc<Self>, name: ScopedStream, config: StreamConfig, owned: bool) -> Result<CreateStream> {
        config.check(&name)?;
        if name.stream.as_str().len() > STREAM_NAME_BYTES_MAX && !name.stream.is_internal() {
            return Ok(CreateStream::InvalidName);
        }
        let mut stream = self.open(&name).await?;
        if let Some(view) = &stream.view {
            match view.head.state {
                State::Creating => {
                    stream.settle().await?;
                    return Ok(CreateStream::Exists);
                }
                State::Deleting => stream.settle().await?,
                State::Active | State::Sealing | State::Sealed => return Ok(CreateStream::Exists),
            }
        }
        if !stream.begin_creation(config, owned).await? {
            return Ok(CreateStream::ScopeNotFound);
        }
        // A transaction begun as soon as the stream is active relies on the note of work it finds. So nobody begins one
        // between the two.
        let slot = Arc::clone(&stream.slot);
        let alone = slot.creators.write().await;
        stream.settle().await?;
        self.unmark(&slot).await?;
        drop(alone);
        info!(stream = %name, "created");
        Ok(CreateStream::Success)
    }

    async fn ensure_mark_stream(self: &Arc<Self>, name: ScopedStream) -> Result<()> {
        // Whoever made it before there was a stream to be marked, as earlier servers allowed, has no use for it.
        if !self.is_fit_to_keep(&name).await? {
            self.delete_mark_stream(name.clone()).await?;
        }
        match self.create_owned_stream(name, StreamConfig::new(ScalingPolicy::fixed(1))).await? {
            CreateStream::Success | CreateStream::Exists => Ok(()),
            CreateStream::ScopeNotFound | CreateStream::InvalidName => {
                Err(ControllerError::Internal("a mark stream cannot be created beside its stream".into()))
            }
        }
    }

    /// Deletes a mark stream whatever state it is in.
    fn delete_mark_stream(
        self: &Arc<Self>,
        name: ScopedStream,
    ) -> Pin<Box<dyn Future<Output = Result<()>> + Send + '_>> {
        Box::pin(async move {
            let mut stream = self.open(&name).await?;
            if stream.view.is_some() {
                stream.begin_deletion().await?;
                stream.settle().await?;
            }
            Ok(())
        })
    }

    pub(super) async fn update_stream(
        self: &Arc<Self>,
        name: ScopedStream,
        config: StreamConfig,
    ) -> Result<UpdateStream> {
        config.check(&name)?;
        if is_kept_for_another(&name) && !is_plain(&config) {
            return Err(plain_only(&name));
        }
        let mut stream = self.open(&name).await?;
        stream.settle().await?;
        let Some(view) = &stream.view else { return Ok(UpdateStream::StreamNotFound) };
        if view.head.state != State::Active {
            return Ok(UpdateStream::Sealed);
        }
        self.mark(&stream.slot).await?;
        let head = Head { update: Some(config), ..view.head.clone() };
        stream.commit(head, None, Vec::new()).await?;
        stream.settle().await?;
        info!(stream = %name, "configuration updated");
        Ok(UpdateStream::Success)
    }

    pub(super) async fn seal_stream(self: &Arc<Self>, name: ScopedStream) -> Result<UpdateStream> {
        let mut stream = self.open(&name).await?;
        stream.settle().await?;
        let Some(view) = &stream.view else { return Ok(UpdateStream::StreamNotFound) };
        if view.head.state == State::Sealed {
            return Ok(UpdateStream::Success);
        }
        self.mark(&stream.slot).await?;
        let head = Head { state: State::Sealing, ..view.head.clone() };
        stream.commit(head, None, Vec::new()).await?;
        stream.settle().await?;
        info!(stream = %name, "sealed");
        Ok(UpdateStream::Success)
    }

    pub(super) async fn delete_stream(self: &Arc<Self>, name: ScopedStream) -> Result<DeleteStream> {
        let mut stream = self.open(&name).await?;
        let state = stream.view.as_ref().map(|view| view.head.state);
        // A stream that never came into being may go as it is; anything else is finished first.
        if state != Some(State::Creating) {
            stream.settle().await?;
        }
        let Some(view) = &stream.view else {
            let deleted_now = state == Some(State::Deleting);
            return Ok(if deleted_now { DeleteStream::Success } else { DeleteStream::NotFound });
        };
        if !matches!(view.head.state, State::Sealed | State::Creating) {
            return Ok(DeleteStream::NotSealed);
        }
        stream.begin_deletion().await?;
        stream.settle().await?;
        info!(stream = %name, "deleted");
        Ok(DeleteStream::Success)
    }
}

impl Open {
    /// Records that the stream is being created. False if there is no such scope.
    async fn begin_creation(&mut self, config: StreamConfig, owned: bool) -> Result<bool> {
        let (inner, name) = (Arc::clone(&self.inner), self.slot.name.clone());
        if !inner.scope_takes(&name.scope, owned).await? {
            return Ok(false);
        }
        // From here on something may be left that nobody knows of but the work table.
        self.in_doubt = true;
        inner.mark(&self.slot).await?;
        if !inner.add_to_scope(&name, owned).await? {
            inner.unmark(&self.slot).await?;
            self.in_doubt = false;
            return Ok(false);
        }
        let first_number = inner.first_number(&name).await?;
        let now_ms = inner.wall_ms();
        let count = usize::try_from(config.scaling.min_segments).expect("the configuration was checked");
        if first_number.checked_add(config.scaling.min_segments).is_none() {
            return Err(ControllerError::Exhausted(format!("segment numbers of {name} are used up")));
        }
        inner.note_retention(&name, &config).await?;
        inner.note_scaling(&name, &config).await?;
        inner.ports.tables.create(&self.slot.table).await?;
        self.commit_first(Head::new(config, now_ms), Epoch::first(first_number, count, now_ms)).await?;
        Ok(true)
    }

    pub(super) async fn finish_creation(&mut self) -> Result<()> {
        let view = self.view()?;
        let (inner, name) = (Arc::clone(&self.inner), self.slot.name.clone());
        inner.create_segments(segment_names(&name, view.current.segments()), &view.head.config).await?;
        if let Some(mark) = mark_stream(&name) {
            inner.ensure_mark_stream(mark).await?;
        }
        let tags: Vec<Change> = indexed_tags(&name, &view.head.config)
            .into_iter()
            .map(|tag| put(keys::tag_entry(tag, &name.stream), present()))
            .collect();
        inner.commit_in_scope(&name.scope, tags).await?;
        self.commit(Head { state: State::Active, ..view.head.clone() }, None, Vec::new()).await
    }

    /// Puts the new configuration in force. Ends without finishing when the stream has to be scaled for it; the scale
    /// is recorded then, and this is called again after it.
    pub(super) async fn finish_update(&mut self) -> Result<()> {
        let view = self.view()?;
        let (inner, name) = (Arc::clone(&self.inner), self.slot.name.clone());
        let Some(new) = view.head.update.clone() else { return Ok(()) };
        let hint = new.scaling.hint();
        fan_out(segment_names(&name, view.current.segments()), |segment| {
            let segments = Arc::clone(&inner.ports.segments);
            async move { segments.update_policy(&segment, hint).await }
        })
        .await?;

        let (count, least) = (view.current.segments().len(), new.scaling.min_segments as usize);
        if count < least || (new.scaling.kind == ScalingKind::Fixed && count != least) {
            let all: Vec<_> = view.current.ids().collect();
            let ranges: Vec<_> = KeyRange::split(least).iter().map(|range| (range.low(), range.high())).collect();
            let plan = scale::plan(&view.current, &all, &ranges, new.scaling.min_segments, inner.wall_ms())
                .map_err(|refused| ControllerError::Internal(format!("{name} cannot be scaled: {refused:?}")))?;
            return self.commit(Head { scale: Some(plan), ..view.head.clone() }, None, Vec::new()).await;
        }

        inner.note_retention(&name, &new).await?;
        inner.note_scaling(&name, &new).await?;
        let (before, after) = (indexed_tags(&name, &view.head.config), indexed_tags(&name, &new));
        let added = after.difference(&before).map(|tag| put(keys::tag_entry(tag, &name.stream), present()));
        let removed = before.difference(&after).map(|tag| remove(keys::tag_entry(tag, &name.stream)));
        inner.commit_in_scope(&name.scope, added.chain(removed).collect()).await?;
        self.commit(Head { config: new, update: None, ..view.head.clone() }, None, Vec::new()).await?;
        inner.load_has_changed(&name, self.view()?.as_ref());
        Ok(())
    }

    /// No new transaction begins any more; those that live are brought to an end, then the segments are sealed.
    pub(super) async fn finish_sealing(&mut self) -> Result<()> {
        // Creators that saw the stream open have their records written once this returns.
        drop(self.slot.creators.write().await);
        loop {
            let aborted = self.abort_open().await?;
            let ended = self.run_aborts().await? + self.run_commits().await?;
            if aborted + ended == 0 {
                break;
            }
        }
        let view = self.view()?;
        self.inner.seal_segments(segment_names(&self.slot.name, view.current.segments())).await?;
        self.commit(Head { state: State::Sealed, ..view.head.clone() }, None, Vec::new()).await
    }

    async fn begin_deletion(&mut self) -> Result<()> {
        self.inner.mark(&self.slot).await?;
        let head = Head { state: State::Deleting, ..self.head()? };
        self.commit(head, None, Vec::new()).await
    }

    /// Deletes segments, mark stream, index entries and records, in an order in which each step can be run again.
    pub(super) async fn finish_deletion(&mut self) -> Result<()> {
        let view = self.view()?;
        let (inner, name) = (Arc::clone(&self.inner), self.slot.name.clone());
        let truncated = view.head.truncation.as_ref().and_then(|truncation| truncation.cut.first_key_value());
        let lowest = truncated.map_or(0, |(id, _)| id.epoch);
        // The segments of the first epoch may be older than it; later ones are found where they were created.
        let mut walk = inner.walk(&self.slot, For::Itself);
        let first = walk.epoch(lowest).await?.ok_or_else(|| missing_epoch(&self.slot, lowest))?;
        inner.delete_segments(segment_names(&name, first.segments())).await?;
        let mut later = Spans::new(vec![(lowest.saturating_add(1), view.head.epoch)]);
        while let Some(created) = walk.created(&mut later).await? {
            // Deleting may take longer than looking.
            walk.rest();
            inner.delete_segments(segment_names(&name, &created)).await?;
        }
        drop(walk);
        if let Some(mark) = mark_stream(&name) {
            inner.delete_mark_stream(mark).await?;
        }
        inner.remember_number(&name, view.current.highest_number()).await?;
        let mut changes = vec![remove(keys::stream_entry(&name.stream))];
        let mut tags = indexed_tags(&name, &view.head.config);
        if let Some(update) = &view.head.update {
            tags.extend(indexed_tags(&name, update));
        }
        changes.extend(tags.into_iter().map(|tag| remove(keys::tag_entry(tag, &name.stream))));
        inner.commit_in_scope(&name.scope, changes).await?;
        for index in [keys::RETENTION, keys::SCALING] {
            inner.ports.tables.commit(index, vec![remove(keys::scoped_key(&name))]).await?;
        }
        self.in_doubt = true;
        inner.ports.tables.drop_table(&self.slot.table).await?;
        *self.slot.times.lock().await = None;
        self.slot.forget_all();
        self.view = None;
        inner.unmark(&self.slot).await?;
        self.in_doubt = false;
        Ok(())
    }
}

impl Inner {
    /// First segment number of a new stream: above all that a deleted stream of the same name used, since clients may
    /// still remember its segments.
    async fn first_number(&self, stream: &ScopedStream) -> Result<i32> {
        let found = self.ports.tables.read(keys::DELETED, &[keys::scoped_key(stream)]).await?.pop().flatten();
        let Some(entry) = found else { return Ok(0) };
        let mut decoder = Decoder::new("deleted stream", 1, &entry.value)?;
        let last = decoder.i32()?;
        decoder.finish()?;
        last.checked_add(1)
            .ok_or_else(|| ControllerError::Exhausted(format!("segment numbers of {stream} are used up")))
    }

    async fn remember_number(&self, stream: &ScopedStream, last: i32) -> Result<()> {
        let mut encoder = Encoder::new(1);
        encoder.i32(last);
        self.ports.tables.commit(keys::DELETED, vec![put(keys::scoped_key(stream), encoder.finish())]).await?;
        Ok(())
    }
}
