//! How far reader groups are behind. Nothing changes here.
//!
//! The readers of a Java client's group write down in the group's stream who reads what and how far; this reads it as they
//! do, from the last whole state on. Rust and Python clients keep the same in a table of their own, which the controller has
//! no record of. What readers have read and not written down yet counts as unread.

use std::sync::Arc;

use headwater_types::attribute::REVISION_MARK as MARK;
use headwater_types::{Name, Offset, ScopedStream, SegmentName};

use super::groups::group_stream;
use super::items::Item;
use super::{Inner, Result, fan_out};
use crate::model::{ControllerError, FUTURE, Group, GroupCut, GroupReaders, PAGE_ENTRIES, StreamCut, StreamReading};
use crate::ports::{Entry, SegmentRead};
use crate::state::cuts::{self, Order};
use crate::state::readers::{NoGroup, ReadersState, StateReader};

/// Bytes read at a time.
const PIECE_BYTES: usize = 1 << 20;
/// Most bytes of a state and what came since. Clients write a whole state again after half a MiB or so.
const STATE_BYTES_MAX: usize = 32 << 20;
/// Attempts at a state whose beginning is truncated away meanwhile.
const ATTEMPTS: usize = 5;

impl Inner {
    pub(super) async fn readers(self: &Arc<Self>, scope: &Name, name: &Name) -> Result<GroupReaders> {
        let (group, state) = self.group_state(scope, name).await?;
        Ok(known(&group, state.as_ref()))
    }

    pub(super) async fn group_lag(
        self: &Arc<Self>,
        scope: &Name,
        name: &Name,
        wanted: impl Fn(&ScopedStream) -> bool,
    ) -> Result<GroupReaders> {
        let (group, state) = self.group_state(scope, name).await?;
        let readers = known(&group, state.as_ref());
        let Some(state) = &state else {
            let streams = readers.streams.into_iter().filter(|reading| wanted(&reading.stream)).collect();
            return Ok(GroupReaders { streams, ..readers });
        };
        self.measured(state, readers, &group.config.ending, wanted).await
    }

    pub(super) async fn table_group_lag(
        &self,
        scope: &Name,
        name: &Name,
        wanted: impl Fn(&ScopedStream) -> bool,
    ) -> Result<GroupReaders> {
        let missing = || ControllerError::NotFound(format!("reader group {scope}/{name}"));
        let table = SegmentName::parse(&format!("{scope}/{name}_kvtable/0.#epoch.0")).map_err(|_| missing())?;
        let (mut entries, mut bytes): (Vec<Entry>, usize) = (Vec::new(), 0);
        loop {
            let after = entries.last().map(|entry| entry.key.clone());
            let page = self.ports.segments.scan_client_table(&table, after.as_deref(), PAGE_ENTRIES).await?;
            let page = page.ok_or_else(missing)?;
            if page.is_empty() {
                break;
            }
            bytes += page.iter().map(|entry| entry.key.len() + entry.value.len()).sum::<usize>();
            // Beyond that it is some other table of this name.
            if bytes > STATE_BYTES_MAX {
                return Err(missing());
            }
            entries.extend(page);
        }
        let pairs = entries.iter().map(|entry| (entry.key.as_ref(), entry.value.as_ref()));
        let state = ReadersState::of_table(pairs)
            .map_err(|error| ControllerError::Damaged(format!("state of reader group {scope}/{name}: {error}")))?;
        let state = state.ok_or_else(missing)?;
        self.measured(&state, state.readers(), &[], wanted).await
    }

    /// Fills in what is unread of the streams that are wanted; others are left out.
    async fn measured(
        &self,
        state: &ReadersState,
        mut readers: GroupReaders,
        ends: &[GroupCut],
        wanted: impl Fn(&ScopedStream) -> bool,
    ) -> Result<GroupReaders> {
        readers.streams.retain(|reading| wanted(&reading.stream));
        for reading in &mut readers.streams {
            let end = ends.iter().find(|cut| cut.stream == reading.stream && !cut.cut.is_empty());
            match self.measure(state, reading, end.map(|end| &end.cut)).await {
                Ok(()) => {}
                // It has gone, and what the group has not read of it with it.
                Err(ControllerError::NotFound(_)) => reading.unread_bytes = None,
                Err(error) => return Err(error),
            }
        }
        Ok(readers)
    }

    /// The group, and what its readers have written; `None` before the first of them.
    async fn group_state(self: &Arc<Self>, scope: &Name, name: &Name) -> Result<(Group, Option<ReadersState>)> {
        let group = self.group(scope, name).await?;
        let group = group.ok_or_else(|| ControllerError::NotFound(format!("reader group {scope}/{name}")))?;
        let stream = group_stream(&Item::group(scope, name));
        let segment = match self.current_segments(&stream).await {
            Ok(segments) => segments.first().map(|segment| stream.segment(segment.id)),
            Err(ControllerError::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        let Some(segment) = segment else { return Ok((group, None)) };
        for _ in 0..ATTEMPTS {
            let read = self.read_state(&segment, &format!("{scope}/{name}")).await?;
            let Some(state) = read else { continue };
            return Ok((group, state));
        }
        Err(ControllerError::Unavailable(format!("the state of reader group {scope}/{name} is written too often")))
    }

    /// The state, if there is one, from the last whole one on; `None` if that was truncated meanwhile.
    async fn read_state(&self, segment: &SegmentName, group: &str) -> Result<Option<Option<ReadersState>>> {
        let store = &self.ports.segments;
        let damaged = |error: NoGroup| ControllerError::Damaged(format!("state of reader group {group}: {error}"));
        let Some(info) = store.segment_info(segment).await? else { return Ok(Some(None)) };
        let mark = store.attribute(segment, MARK).await?.and_then(|mark| Offset::try_from(mark).ok());
        let begin = mark.unwrap_or(0).max(info.start);
        let (mut at, mut reader) = (begin, StateReader::default());
        // What comes later is for the next look. A whole state may have been marked since.
        while at < info.length {
            let room = usize::try_from(info.length - at).unwrap_or(usize::MAX).min(PIECE_BYTES);
            match store.read_segment(segment, at, room).await? {
                SegmentRead::Bytes(bytes) if bytes.is_empty() => break,
                SegmentRead::Bytes(bytes) => {
                    at += bytes.len() as u64;
                    if at - begin > STATE_BYTES_MAX as u64 {
                        let text = format!("more than {STATE_BYTES_MAX} bytes of {segment} lie behind its mark");
                        return Err(ControllerError::Exhausted(text));
                    }
                    reader.feed(&bytes).map_err(damaged)?;
                }
                SegmentRead::Outside { .. } => return Ok(None),
                SegmentRead::NoSuchSegment => return Ok(Some(None)),
            }
        }
        reader.finish().map(Some).map_err(damaged)
    }

    /// Fills in what is unread of one stream.
    async fn measure(&self, state: &ReadersState, reading: &mut StreamReading, end: Option<&StreamCut>) -> Result<()> {
        let stream = reading.stream.clone();
        let ids = reading.segments.iter().map(|segment| segment.id).collect();
        let infos = fan_out(ids, |id| {
            let (store, segment) = (Arc::clone(&self.ports.segments), stream.segment(id));
            async move { store.segment_info(&segment).await }
        })
        .await?;
        for (segment, info) in reading.segments.iter_mut().zip(infos) {
            segment.unread_bytes = info.map(|info| {
                let length = i64::try_from(info.length).unwrap_or(i64::MAX);
                let start = i64::try_from(info.start).unwrap_or(i64::MAX);
                let end = state.end(&stream, segment.id).map_or(length, |end| end.min(length));
                (end - segment.offset.max(start)).max(0)
            });
        }
        let (slot, view) = self.complete(&stream).await?;
        if reading.segments.is_empty() && reading.later.is_empty() {
            // Everything there was to read is read.
            reading.unread_bytes = Some(0);
            return Ok(());
        }
        let later = reading.later.iter().map(|id| (*id, FUTURE));
        let place: StreamCut =
            reading.segments.iter().map(|segment| (segment.id, segment.offset)).chain(later).collect();
        let head = self.head_cut(&slot, &view).await?;
        let (Some((lowest, highest)), Some((head_lowest, head_highest))) =
            (cuts::creation_epochs(&place), cuts::creation_epochs(&head))
        else {
            return Ok(());
        };
        let history = self.epochs(&slot, lowest.min(head_lowest), highest.max(head_highest)).await?;
        let place = match cuts::order(&place, &head, &history) {
            Some(Order::EqualOrAfter) => place,
            // Nothing before the head can be read.
            Some(Order::Before) => head,
            Some(Order::Overlaps) | None => return Ok(()),
        };
        let tail = fan_out(view.current.ids().collect(), |id| {
            let (store, segment) = (Arc::clone(&self.ports.segments), stream.segment(id));
            async move { Ok((id, store.segment_info(&segment).await?)) }
        })
        .await?;
        let offset = |info: Option<crate::ports::SegmentInfo>| {
            info.map_or(0, |info| i64::try_from(info.length).unwrap_or(i64::MAX))
        };
        let tail: StreamCut = tail.into_iter().map(|(id, info)| (id, offset(info))).collect();
        let mut end_bytes = self.bytes_before(&slot, &view, &tail).await?;
        if let Some(end) = end
            && self.cut_is_valid(&stream, end).await?
            && self.cut_is_at_or_after(&slot, end, &place).await?
        {
            end_bytes = end_bytes.min(self.bytes_before(&slot, &view, end).await?);
        }
        let read_bytes = self.bytes_before(&slot, &view, &place).await?;
        reading.unread_bytes = Some((end_bytes - read_bytes).max(0));
        Ok(())
    }
}

/// What the readers have written, or before that what the group is configured to read.
fn known(group: &Group, state: Option<&ReadersState>) -> GroupReaders {
    let mut readers = state.map(ReadersState::readers).unwrap_or_default();
    for cut in &group.config.starting {
        if let Err(at) = readers.streams.binary_search_by(|reading| reading.stream.cmp(&cut.stream)) {
            let (segments, later) = (Vec::new(), Vec::new());
            let reading = StreamReading { stream: cut.stream.clone(), segments, later, unread_bytes: None };
            readers.streams.insert(at, reading);
        }
    }
    readers
}
