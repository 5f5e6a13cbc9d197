//! The handle that callers hold: one method per rpc.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use headwater_types::{Name, NameError, ScopedStream, SegmentId, TransactionId};
use tracing::warn;

use super::open::stopped;
use super::scopes::SYSTEM;
use super::{Inner, Result, detached};
use crate::model::{
    ControllerError, ControllerOptions, CreateGroup, CreateScope, CreateStream, CreateTable, CreatedTransaction,
    DeleteGroup, DeleteScope, DeleteStream, DeleteTable, EndTransaction, EpochRecord, Group, GroupConfig, GroupReaders,
    Listing, MoveSubscriber, NoteTime, OpenTransactionPage, Page, Ping, RemoveWriter, RetentionPlan, Scale,
    ScaleProgress, SegmentHeat, SegmentRange, StreamConfig, StreamCut, Successor, TableConfig, TransactionPage,
    TransactionState, UpdateGroup, UpdateStream,
};
use crate::ports::{Ports, Room};

/// Longest time that an end in good order waits for the clock to be written down: a full disk lets writes wait.
const CLOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Scopes, streams and transactions. A cheap clone; all clones share everything.
///
/// Call [`recover`](Self::recover) once before anything else. Must be used inside a Tokio runtime: work goes on after a
/// call was answered or dropped. Every method can fail with [`ControllerError::Unavailable`] when a port does not
/// answer; what was asked may have happened then, and asking again is safe.
#[derive(Clone)]
pub struct Controller {
    inner: Arc<Inner>,
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Controller")
    }
}

/// What creates something, updates or scales a stream, or opens a transaction answers [`ControllerError::Exhausted`]
/// while the disk is full.
impl Controller {
    /// A controller on these ports. No other may work on the same tables.
    pub fn new(ports: Ports, options: ControllerOptions) -> Self {
        Self { inner: Arc::new(Inner::new(ports, options)) }
    }

    /// Makes an empty store usable, and has what an earlier run left unfinished done in the background. Takes a read
    /// per thousand streams that had work or open transactions; idle streams cost nothing.
    pub async fn recover(&self) -> Result<(), ControllerError> {
        let inner = self.running()?;
        detached(async move { inner.recover().await }).await
    }

    /// Stops the background work. Calls that change something answer [`ControllerError::Unavailable`] from now on;
    /// steps under way run to their next record.
    pub fn shutdown(&self) {
        self.inner.stopped.send_replace(true);
    }

    /// Writes down how far the store's clock has come, if that is done within a second, and [shuts down](Self::shutdown):
    /// without it the next run counts on from where it was written down last.
    ///
    /// # Cancel safety
    /// The clock may be written down or not, and nothing is shut down.
    pub async fn stop(&self) {
        match tokio::time::timeout(CLOCK_PATIENCE, self.inner.keep_clock()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "the next run counts time from before this end"),
            Err(_) => warn!("the next run counts time from before this end: the store takes no writes"),
        }
        self.shutdown();
    }

    fn running(&self) -> Result<Arc<Inner>> {
        if self.inner.is_stopped() { Err(stopped()) } else { Ok(Arc::clone(&self.inner)) }
    }

    /// For what makes the store grow: it is refused while the disk is full, since it would wait for room and keep its
    /// stream from being sealed and deleted meanwhile. What frees room, or leads to it, goes on.
    fn growing(&self) -> Result<Arc<Inner>> {
        let inner = self.running()?;
        if inner.ports.loads.has_room() {
            Ok(inner)
        } else {
            let text = "the disk is full: only what frees room is done until there is some";
            Err(ControllerError::Exhausted(text.into()))
        }
    }

    /// Creates an empty scope.
    ///
    /// # Errors
    /// [`ControllerError::Invalid`] for an empty name; other bad names have a status of their own.
    pub async fn create_scope(&self, scope: &str) -> Result<CreateScope, ControllerError> {
        let inner = self.growing()?;
        let Some(scope) = name(scope)? else { return Ok(CreateScope::InvalidName) };
        detached(async move { inner.create_scope(scope).await }).await
    }

    /// Whether a scope exists.
    pub async fn scope_exists(&self, scope: &Name) -> Result<bool, ControllerError> {
        self.inner.scope_is_active(scope).await
    }

    /// Names of scopes after the place that `token` stands for; "" is the beginning. Ends with an empty page.
    ///
    /// # Errors
    /// [`ControllerError::Invalid`] for a token that never was in a page.
    pub async fn list_scopes(&self, token: &str) -> Result<Page, ControllerError> {
        self.inner.list_scopes(token).await
    }

    /// Deletes a scope that has no streams, and the tables that clients made in it.
    pub async fn delete_scope(&self, scope: &Name) -> Result<DeleteScope, ControllerError> {
        let (inner, scope) = (self.running()?, scope.clone());
        detached(async move { inner.delete_scope(scope).await }).await
    }

    /// Creates a stream, and its mark stream `_MARK<stream>` unless its own name starts with `_`. Returns when it can
    /// be written to. Segment numbers continue behind those of a deleted stream of the same name.
    ///
    /// Names that begin with `_MARK` are taken for the streams they mark, and answered as bad ones; those that begin with
    /// `_RG` for reader groups.
    ///
    /// # Errors
    /// [`ControllerError::Invalid`] for an empty name or a configuration beyond the limits, more than
    /// [`segments_max`](crate::model::segments_max) segments among them, and for the stream of a reader group with anything
    /// but one fixed segment, no retention and no tags.
    pub async fn create_stream(
        &self,
        scope: &str,
        stream: &str,
        config: StreamConfig,
    ) -> Result<CreateStream, ControllerError> {
        let inner = self.growing()?;
        let Some(stream) = name(stream)? else { return Ok(CreateStream::InvalidName) };
        let Some(scope) = name(scope)? else { return Ok(CreateStream::ScopeNotFound) };
        // The system's own tables have names that begin like segments of a stream of this name.
        if scope.as_str() == SYSTEM && stream.as_str() == "_tables" {
            return Ok(CreateStream::InvalidName);
        }
        let stream = ScopedStream { scope, stream };
        detached(async move { inner.create_stream(stream, config).await }).await
    }

    /// Whether a stream exists, sealed or not.
    pub async fn stream_exists(&self, stream: &ScopedStream) -> Result<bool, ControllerError> {
        self.inner.stream_exists(stream).await
    }

    /// Configuration of a stream, sealed or not.
    ///
    /// # Errors
    /// [`ControllerError::NotFound`] for no such stream.
    pub async fn stream_configuration(&self, stream: &ScopedStream) -> Result<StreamConfig, ControllerError> {
        self.inner.stream_configuration(stream).await
    }

    /// Replaces the configuration. A fixed stream with another number of segments, and any with too few, is scaled to
    /// the least number. Returns when everything is in force.
    ///
    /// # Errors
    /// [`ControllerError::Invalid`] for a configuration beyond the limits, and for a stream that is kept for a reader group
    /// or another stream (`_RG…`, `_MARK…`), any but one fixed segment without retention and tags.
    pub async fn update_stream(
        &self,
        stream: &ScopedStream,
        config: StreamConfig,
    ) -> Result<UpdateStream, ControllerError> {
        let (inner, stream) = (self.growing()?, stream.clone());
        detached(async move { inner.update_stream(stream, config).await }).await
    }

    /// Drops everything before a cut, which must be valid and not behind the head. The same cut again succeeds.
    pub async fn truncate_stream(
        &self,
        stream: &ScopedStream,
        cut: StreamCut,
    ) -> Result<UpdateStream, ControllerError> {
        let (inner, stream) = (self.running()?, stream.clone());
        detached(async move { inner.truncate_stream(stream, cut).await }).await
    }

    /// Aborts open transactions, finishes commits that were accepted, and makes the stream read-only. Sealing a sealed
    /// stream succeeds.
    pub async fn seal_stream(&self, stream: &ScopedStream) -> Result<UpdateStream, ControllerError> {
        let (inner, stream) = (self.running()?, stream.clone());
        detached(async move { inner.seal_stream(stream).await }).await
    }

    /// Deletes a sealed stream with its mark stream.
    pub async fn delete_stream(&self, stream: &ScopedStream) -> Result<DeleteStream, ControllerError> {
        let (inner, stream) = (self.running()?, stream.clone());
        detached(async move { inner.delete_stream(stream).await }).await
    }

    /// Deletes a scope with everything in it: reader groups, key-value tables, streams, what clients made by
    /// themselves. Nothing new can be created in it meanwhile. Returns when it is gone, or at once if that is under way
    /// already; once begun, it is finished even if this call fails.
    pub async fn delete_scope_recursive(&self, scope: &Name) -> Result<DeleteScope, ControllerError> {
        let (inner, scope) = (self.running()?, scope.clone());
        detached(async move { inner.delete_scope_recursive(scope).await }).await
    }

    /// Creates a key-value table. Partition numbers continue behind those of a deleted table of the same name.
    ///
    /// # Errors
    /// [`ControllerError::Invalid`] for an empty name or a configuration beyond the limits.
    pub async fn create_table(
        &self,
        scope: &str,
        table: &str,
        config: TableConfig,
    ) -> Result<CreateTable, ControllerError> {
        let inner = self.growing()?;
        if name(table)?.is_none() {
            return Ok(CreateTable::InvalidName);
        }
        let Some(scope) = name(scope)? else { return Ok(CreateTable::ScopeNotFound) };
        let table = table.to_owned();
        detached(async move { inner.create_table(scope, &table, config).await }).await
    }

    /// Configuration of a key-value table; `None` if there is no such table.
    pub async fn table_configuration(
        &self,
        scope: &Name,
        table: &Name,
    ) -> Result<Option<TableConfig>, ControllerError> {
        self.inner.table_config(scope, table).await
    }

    /// Partitions of a key-value table by ascending key. Their segments are named `<scope>/<table>_kvtable/<id>`.
    ///
    /// # Errors
    /// [`ControllerError::NotFound`] for no such table.
    pub async fn table_partitions(&self, scope: &Name, table: &Name) -> Result<Vec<SegmentRange>, ControllerError> {
        self.inner.table_partitions(scope, table).await
    }

    /// Deletes a key-value table with everything in it.
    pub async fn delete_table(&self, scope: &Name, table: &Name) -> Result<DeleteTable, ControllerError> {
        let (inner, scope, table) = (self.running()?, scope.clone(), table.clone());
        detached(async move { inner.delete_table(&scope, &table).await }).await
    }

    /// Names of key-value tables of a scope; pages as in [`list_scopes`](Self::list_scopes).
    pub async fn list_tables(&self, scope: &Name, token: &str) -> Result<Listing, ControllerError> {
        self.inner.list_tables(scope, token).await
    }

    /// Creates a reader group, or returns the one that is there. `id` is kept as the group's own, and must not be 0.
    ///
    /// # Errors
    /// [`ControllerError::Invalid`] for an empty name, a configuration that takes too many bytes, or a stream that is there
    /// in the place of the group's own and is not as that would be.
    pub async fn create_group(
        &self,
        scope: &str,
        group: &str,
        id: u128,
        config: GroupConfig,
    ) -> Result<CreateGroup, ControllerError> {
        let inner = self.growing()?;
        if name(group)?.is_none() {
            return Ok(CreateGroup::InvalidName);
        }
        let Some(scope) = name(scope)? else { return Ok(CreateGroup::ScopeNotFound) };
        let group = group.to_owned();
        detached(async move { inner.create_group(scope, &group, id, config).await }).await
    }

    /// A reader group; `None` if there is no such group.
    pub async fn group(&self, scope: &Name, group: &Name) -> Result<Option<Group>, ControllerError> {
        self.inner.group(scope, group).await
    }

    /// Replaces the configuration of a group that has this id and generation.
    ///
    /// # Errors
    /// [`ControllerError::Invalid`] for a configuration that takes too many bytes.
    pub async fn update_group(
        &self,
        scope: &Name,
        group: &Name,
        id: u128,
        generation: i64,
        config: GroupConfig,
    ) -> Result<UpdateGroup, ControllerError> {
        let (inner, scope, group) = (self.running()?, scope.clone(), group.clone());
        detached(async move { inner.update_group(&scope, &group, id, generation, config).await }).await
    }

    /// Deletes a group of this id, or of any if `None`, with its stream and its hold on retention.
    pub async fn delete_group(
        &self,
        scope: &Name,
        group: &Name,
        id: Option<u128>,
    ) -> Result<DeleteGroup, ControllerError> {
        let (inner, scope, group) = (self.running()?, scope.clone(), group.clone());
        detached(async move { inner.delete_group(&scope, &group, id).await }).await
    }

    /// Names of reader groups of a scope that Java clients made; pages as in [`list_scopes`](Self::list_scopes).
    pub async fn list_groups(&self, scope: &Name, token: &str) -> Result<Listing, ControllerError> {
        self.inner.list_groups(scope, token).await
    }

    /// Memory from what all requests share, for an answer; waits a little for it.
    ///
    /// # Errors
    /// [`ControllerError::Exhausted`] if it is not free, or more than half of all there is.
    pub async fn room(&self, bytes: usize) -> Result<Room, ControllerError> {
        Ok(self.inner.ports.segments.room(bytes).await?)
    }

    /// Where the readers of a Java client's group stand. What is unread is not looked up. The memory for it, and for an
    /// answer made of it, is held until the room is dropped, and so is the turn: one group is looked at at a time.
    ///
    /// # Errors
    /// [`ControllerError::NotFound`] for no such group, [`ControllerError::Foreign`] if what its stream holds is not
    /// the state of a group, [`ControllerError::Exhausted`] if telling it takes too much memory.
    pub async fn readers(&self, scope: &Name, group: &Name) -> Result<(GroupReaders, Room), ControllerError> {
        self.inner.readers(scope, group).await
    }

    /// As [`readers`](Self::readers), with what is unread of the streams that `wanted` says yes to; others are left
    /// out.
    pub async fn group_lag(
        &self,
        scope: &Name,
        group: &Name,
        wanted: impl Fn(&ScopedStream) -> bool,
    ) -> Result<(GroupReaders, Room), ControllerError> {
        self.inner.group_lag(scope, group, wanted).await
    }

    /// As [`group_lag`](Self::group_lag), of a group that Rust or Python clients keep in a table of theirs.
    ///
    /// # Errors
    /// [`ControllerError::NotFound`] for no such table, or one that is no group's; [`ControllerError::Foreign`] if what
    /// a group's table holds is not the state of a group.
    pub async fn table_group_lag(
        &self,
        scope: &Name,
        group: &Name,
        wanted: impl Fn(&ScopedStream) -> bool,
    ) -> Result<(GroupReaders, Room), ControllerError> {
        self.inner.table_group_lag(scope, group, wanted).await
    }

    /// Reader groups that hold back the retention of a stream, as `scope/group`; `None` if there is no such stream.
    pub async fn list_subscribers(&self, stream: &ScopedStream) -> Result<Option<Vec<String>>, ControllerError> {
        self.inner.list_subscribers(stream).await
    }

    /// Says that a group no longer needs what lies before a cut.
    pub async fn move_subscriber(
        &self,
        stream: &ScopedStream,
        subscriber: &str,
        id: u128,
        generation: i64,
        cut: StreamCut,
    ) -> Result<MoveSubscriber, ControllerError> {
        let (inner, stream, subscriber) = (self.running()?, stream.clone(), subscriber.to_owned());
        detached(async move { inner.move_subscriber(&stream, &subscriber, id, generation, cut).await }).await
    }

    /// Takes down that a writer has written everything up to a time, and where it was then. Watermarks follow from it.
    ///
    /// # Errors
    /// [`ControllerError::NotFound`] for no such stream, [`ControllerError::Invalid`] for an internal one or a writer
    /// id beyond the limit, [`ControllerError::Exhausted`] for more than [`WRITERS_MAX`](crate::model::WRITERS_MAX)
    /// writers.
    pub async fn note_time(
        &self,
        stream: &ScopedStream,
        writer: &str,
        time: i64,
        position: StreamCut,
    ) -> Result<NoteTime, ControllerError> {
        let (inner, stream, writer) = (self.running()?, stream.clone(), writer.to_owned());
        detached(async move { inner.note_time(&stream, writer, time, position).await }).await
    }

    /// Says that a writer has gone, so that nobody waits for it.
    pub async fn remove_writer(&self, stream: &ScopedStream, writer: &str) -> Result<RemoveWriter, ControllerError> {
        let (inner, stream, writer) = (self.running()?, stream.clone(), writer.to_owned());
        detached(async move { inner.remove_writer(&stream, &writer).await }).await
    }

    /// Load of a stream's open segments, by ascending key; none for a sealed stream.
    ///
    /// # Errors
    /// [`ControllerError::NotFound`] for no such stream.
    pub async fn segment_heat(&self, stream: &ScopedStream) -> Result<Vec<SegmentHeat>, ControllerError> {
        self.inner.heat(stream).await
    }

    /// Epochs of a stream from `first` on, oldest first, at most `count` and fewer if they are large; none behind the
    /// current one.
    ///
    /// # Errors
    /// [`ControllerError::NotFound`] for no such stream.
    pub async fn epochs(
        &self,
        stream: &ScopedStream,
        first: i32,
        count: usize,
    ) -> Result<Vec<EpochRecord>, ControllerError> {
        self.inner.epoch_records(stream, first, count).await
    }

    /// Open transactions of all streams, at most `count` behind the place that `token` stands for; "" is the beginning.
    ///
    /// # Errors
    /// [`ControllerError::Invalid`] for a token that never was in a page.
    pub async fn open_transactions(&self, token: &str, count: usize) -> Result<OpenTransactionPage, ControllerError> {
        self.inner.open_transactions(token, count).await
    }

    /// Transactions of a stream that are not over, at most `count` behind the place that `token` stands for; "" is the
    /// beginning.
    ///
    /// # Errors
    /// [`ControllerError::NotFound`] for no such stream, [`ControllerError::Invalid`] for a token that never was in a
    /// page.
    pub async fn live_transactions(
        &self,
        stream: &ScopedStream,
        token: &str,
        count: usize,
    ) -> Result<TransactionPage, ControllerError> {
        self.inner.live_transactions(stream, token, count).await
    }

    /// What the next retention run would do about a stream; `None` without a retention policy. Changes nothing.
    ///
    /// # Errors
    /// [`ControllerError::NotFound`] for no such stream.
    pub async fn retention_plan(&self, stream: &ScopedStream) -> Result<Option<RetentionPlan>, ControllerError> {
        self.inner.retention_plan(stream).await
    }

    /// Whether the wall clock is more than a day away from where the time that has passed would have it. Retention does
    /// not go by it.
    pub fn has_clock_jumped(&self) -> bool {
        self.inner.clock_jumped()
    }

    /// Names of streams of a scope, internal ones included; pages as in [`list_scopes`](Self::list_scopes).
    pub async fn list_streams(&self, scope: &Name, token: &str) -> Result<Listing, ControllerError> {
        self.inner.list_streams(scope, token).await
    }

    /// Names of streams that carry exactly this tag; internal streams are not found.
    ///
    /// # Errors
    /// [`ControllerError::Invalid`] for an empty tag.
    pub async fn list_streams_by_tag(&self, scope: &Name, tag: &str, token: &str) -> Result<Listing, ControllerError> {
        self.inner.list_streams_by_tag(scope, tag, token).await
    }

    /// Segments that take events now, by ascending key; none for a sealed stream.
    ///
    /// # Errors
    /// [`ControllerError::NotFound`] for no such stream.
    pub async fn current_segments(&self, stream: &ScopedStream) -> Result<Vec<SegmentRange>, ControllerError> {
        self.inner.current_segments(stream).await
    }

    /// Segments of one epoch, by ascending key.
    ///
    /// # Errors
    /// [`ControllerError::NotFound`] for no such stream or epoch, [`ControllerError::Invalid`] for a negative one.
    pub async fn epoch_segments(
        &self,
        stream: &ScopedStream,
        epoch: i32,
    ) -> Result<Vec<SegmentRange>, ControllerError> {
        self.inner.epoch_segments(stream, epoch).await
    }

    /// Where the stream begins: the cut of the last truncation, or the segments of epoch 0 at offset 0.
    ///
    /// # Errors
    /// [`ControllerError::NotFound`] for no such stream.
    pub async fn head_segments(&self, stream: &ScopedStream) -> Result<StreamCut, ControllerError> {
        self.inner.head_segments(stream).await
    }

    /// What follows a segment. Empty if it is open, unknown, or was sealed with its stream; never for a segment that a
    /// scale or a commit over a scale sealed, also after it was truncated away.
    ///
    /// # Errors
    /// [`ControllerError::NotFound`] for no such stream.
    pub async fn successors(
        &self,
        stream: &ScopedStream,
        segment: SegmentId,
    ) -> Result<Vec<Successor>, ControllerError> {
        self.inner.successors(stream, segment).await
    }

    /// All segments between two cuts, in no order. An empty `from` is the start of epoch 0, an empty `to` the tail.
    ///
    /// # Errors
    /// [`ControllerError::Invalid`] if both are empty, one is not valid, or `to` is behind `from`.
    pub async fn segments_between(
        &self,
        stream: &ScopedStream,
        from: &StreamCut,
        to: &StreamCut,
    ) -> Result<Vec<SegmentId>, ControllerError> {
        self.inner.segments_between(stream, from, to).await
    }

    /// Whether a segment takes events now.
    pub async fn segment_is_open(&self, stream: &ScopedStream, segment: SegmentId) -> Result<bool, ControllerError> {
        self.inner.segment_is_open(stream, segment).await
    }

    /// Whether a cut is one that a reader can have reached. Offsets are not compared with lengths.
    ///
    /// # Errors
    /// [`ControllerError::Invalid`] for an empty cut.
    pub async fn cut_is_valid(&self, stream: &ScopedStream, cut: &StreamCut) -> Result<bool, ControllerError> {
        self.inner.cut_is_valid(stream, cut).await
    }

    /// Replaces open segments by new ones with the given `(low, high)` ranges. Returns once this is certain to happen;
    /// [`check_scale`](Self::check_scale) with the epoch of the answer tells when it has.
    ///
    /// # Errors
    /// [`ControllerError::Invalid`] if two ranges begin at the same key, limits are exceeded, or the stream is kept for a
    /// reader group or another stream (`_RG…`, `_MARK…`).
    pub async fn scale(
        &self,
        stream: &ScopedStream,
        seal: Vec<SegmentId>,
        new: Vec<(f64, f64)>,
    ) -> Result<Scale, ControllerError> {
        let (inner, stream) = (self.growing()?, stream.clone());
        detached(async move { inner.scale(stream, seal, new).await }).await
    }

    /// Progress of the scale that began in `epoch`. Success means that the old segments are sealed.
    pub async fn check_scale(&self, stream: &ScopedStream, epoch: i32) -> Result<ScaleProgress, ControllerError> {
        self.inner.check_scale(stream, epoch).await
    }

    /// Opens a transaction. It is aborted when nobody pings it for its lease and half of that again, or for that long
    /// after a start. Pings keep it open for 1000 times this lease and at most 24 hours in which the store is open.
    ///
    /// # Errors
    /// [`ControllerError::Invalid`] if the lease is outside 10 s to 600 s, the stream is sealed, or it has more segments than
    /// [one answer](crate::model::answer_segments_max), as only earlier servers allowed,
    /// [`ControllerError::NotFound`] for no such stream.
    pub async fn create_transaction(
        &self,
        stream: &ScopedStream,
        lease_ms: i64,
    ) -> Result<CreatedTransaction, ControllerError> {
        let (inner, stream) = (self.growing()?, stream.clone());
        detached(async move { inner.create_transaction(stream, lease_ms).await }).await
    }

    /// Extends the lease of an open transaction to `lease_ms` from now.
    ///
    /// # Errors
    /// [`ControllerError::Invalid`] if it is open and the lease is 0 or less; it stays open with the lease that it has.
    pub async fn ping_transaction(
        &self,
        stream: &ScopedStream,
        id: TransactionId,
        lease_ms: i64,
    ) -> Result<Ping, ControllerError> {
        self.inner.ping(stream, id, lease_ms).await
    }

    /// Accepts an open transaction for committing: from now on it will be visible, soon. `time_ms` of `i64::MIN` is
    /// "no time".
    pub async fn commit_transaction(
        &self,
        stream: &ScopedStream,
        id: TransactionId,
        writer: String,
        time_ms: i64,
    ) -> Result<EndTransaction, ControllerError> {
        let (inner, stream) = (self.running()?, stream.clone());
        detached(async move { inner.commit_transaction(&stream, id, writer, time_ms).await }).await
    }

    /// Accepts an open transaction for aborting: from now on it will never be visible.
    pub async fn abort_transaction(
        &self,
        stream: &ScopedStream,
        id: TransactionId,
    ) -> Result<EndTransaction, ControllerError> {
        let (inner, stream) = (self.running()?, stream.clone());
        detached(async move { inner.abort_transaction(&stream, id).await }).await
    }

    /// State of a transaction. Completed ones are forgotten after 24 hours in which the store was open.
    pub async fn transaction_state(
        &self,
        stream: &ScopedStream,
        id: TransactionId,
    ) -> Result<TransactionState, ControllerError> {
        self.inner.transaction_state(stream, id).await
    }

    /// The most recently completed transactions, newest first, at most 500.
    ///
    /// # Errors
    /// [`ControllerError::NotFound`] for no such stream.
    pub async fn completed_transactions(
        &self,
        stream: &ScopedStream,
    ) -> Result<Vec<(TransactionId, TransactionState)>, ControllerError> {
        self.inner.completed_transactions(stream).await
    }
}

/// `None` for a name that breaks the rule; an empty one is no question at all.
fn name(text: &str) -> Result<Option<Name>> {
    match Name::parse(text) {
        Ok(name) => Ok(Some(name)),
        Err(NameError::Empty) if text.is_empty() => Err(ControllerError::Invalid("the name is empty".into())),
        Err(_) => Ok(None),
    }
}
