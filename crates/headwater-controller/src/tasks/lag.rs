//! How far reader groups are behind. Nothing changes here.
//!
//! The readers of a Java client's group write down in the group's stream who reads what and how far; this reads it as
//! they do, from the last whole state on. Rust and Python clients keep the same in a table of their own, which the
//! controller has no record of. What readers have read and not written down yet counts as unread.
//!
//! What clients wrote may become much larger than it is. So one group is looked at at a time, and all of it, the answer
//! included, is within memory taken from what requests share: little at first, and more if it does not do.

use std::sync::Arc;

use bytes::Bytes;
use headwater_records::Allowance;
use headwater_types::attribute::REVISION_MARK as MARK;
use headwater_types::{Name, Offset, ScopedStream, SegmentName};

use super::groups::group_stream;
use super::items::Item;
use super::walks::For;
use super::{Inner, Result, fan_out};
use crate::model::{ControllerError, FUTURE, Group, GroupCut, GroupReaders, PAGE_ENTRIES, StreamCut, StreamReading};
use crate::ports::{Room, SegmentRead};
use crate::state::cuts::{self, Order};
use crate::state::readers::{ReadersState, StateReader};
use crate::state::table_readers::TableReader;

/// Bytes read at a time.
const PIECE_BYTES: usize = 1 << 20;
/// Most bytes of a state and what came since. Clients write a whole state again after half a MiB or so.
const STATE_BYTES_MAX: usize = 8 << 20;
/// Memory that is tried with first: enough for a group of some hundred segments.
const ROOM_BYTES: usize = 1 << 20;
/// Most memory for one group: enough for one of more than ten thousand segments.
const ROOM_BYTES_MAX: usize = 32 << 20;
/// Attempts at a state whose beginning is truncated away meanwhile.
const ATTEMPTS: usize = 5;

/// What is known of a group.
struct Known {
    /// `None`: nobody has written one.
    state: Option<Box<ReadersState>>,
    readers: GroupReaders,
    /// Has place for all of it.
    room: Room,
}

/// What came of looking at the state of a group.
enum Looked {
    /// Without a state if nobody has written one.
    All { state: Option<Box<ReadersState>>, readers: GroupReaders },
    /// It takes more memory than is allowed.
    TooMuch,
    /// It is not what clients write; says why.
    Foreign(String),
    /// It was truncated away meanwhile.
    Gone,
}

impl Looked {
    fn told(state: Option<ReadersState>, allowance: &Allowance) -> Self {
        match state.as_ref().map(|state| state.readers(allowance)).transpose() {
            Ok(readers) => Self::All { readers: readers.unwrap_or_default(), state: state.map(Box::new) },
            Err(_) => Self::TooMuch,
        }
    }
}

/// Memory to try with when so much was not enough.
fn more(bytes: usize, scope: &Name, name: &Name) -> Result<usize> {
    if bytes < ROOM_BYTES_MAX {
        return Ok((bytes * 4).min(ROOM_BYTES_MAX));
    }
    let text = format!("what reader group {scope}/{name} keeps takes more than {bytes} bytes to tell");
    Err(ControllerError::Exhausted(text))
}

fn foreign(scope: &Name, name: &Name, why: &str) -> ControllerError {
    let what = format!("what clients wrote for reader group {scope}/{name}");
    ControllerError::Foreign(format!("{what} is no state of a group: {why}"))
}

impl Inner {
    pub(super) async fn readers(self: &Arc<Self>, scope: &Name, name: &Name) -> Result<(GroupReaders, Room)> {
        let (_, known) = self.known(scope, name).await?;
        Ok((known.readers, known.room))
    }

    pub(super) async fn group_lag(
        self: &Arc<Self>,
        scope: &Name,
        name: &Name,
        wanted: impl Fn(&ScopedStream) -> bool,
    ) -> Result<(GroupReaders, Room)> {
        let (group, known) = self.known(scope, name).await?;
        self.measured(known, &group.config.ending, wanted).await
    }

    pub(super) async fn table_group_lag(
        &self,
        scope: &Name,
        name: &Name,
        wanted: impl Fn(&ScopedStream) -> bool,
    ) -> Result<(GroupReaders, Room)> {
        let missing = || ControllerError::NotFound(format!("reader group {scope}/{name}"));
        let table = SegmentName::parse(&format!("{scope}/{name}_kvtable/0.#epoch.0")).map_err(|_| missing())?;
        let turn = self.looking.clone().acquire_owned().await.expect("never closed");
        let mut bytes = ROOM_BYTES;
        let (state, readers, room) = loop {
            let room = self.ports.segments.room(bytes).await?;
            match self.table_state(&table, Allowance::new(bytes)).await? {
                Looked::All { state, readers } => break (state.ok_or_else(missing)?, readers, room),
                Looked::TooMuch => bytes = more(bytes, scope, name)?,
                Looked::Foreign(why) => return Err(foreign(scope, name, &why)),
                Looked::Gone => return Err(missing()),
            }
        };
        self.measured(Known { state: Some(state), readers, room: room.with(turn) }, &[], wanted).await
    }

    /// What a table says; without a state if it is no group's.
    async fn table_state(&self, table: &SegmentName, allowance: Allowance) -> Result<Looked> {
        let (mut reader, mut bytes, mut after) = (TableReader::default(), 0, None::<Bytes>);
        loop {
            let page = self.ports.segments.scan_client_table(table, after.as_deref(), PAGE_ENTRIES).await?;
            let page = page.unwrap_or_default();
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            for entry in &page {
                bytes += entry.key.len() + entry.value.len();
                let fed = reader.feed(&entry.key, &entry.value, &allowance);
                if allowance.is_exceeded() {
                    return Ok(Looked::TooMuch);
                }
                if let Err(error) = fed {
                    return Ok(Looked::Foreign(error.to_string()));
                }
            }
            // Beyond that it is some other table of this name.
            if bytes > STATE_BYTES_MAX {
                return Ok(Looked::All { state: None, readers: GroupReaders::default() });
            }
        }
        Ok(Looked::told(reader.finish(), &allowance))
    }

    /// Fills in what is unread of the streams that are wanted; others are left out.
    async fn measured(
        &self,
        known: Known,
        ends: &[GroupCut],
        wanted: impl Fn(&ScopedStream) -> bool,
    ) -> Result<(GroupReaders, Room)> {
        let Known { state, mut readers, room } = known;
        readers.streams.retain(|reading| wanted(&reading.stream));
        let Some(state) = state else { return Ok((readers, room)) };
        for reading in &mut readers.streams {
            let end = ends.iter().find(|cut| cut.stream == reading.stream && !cut.cut.is_empty());
            match self.measure(&state, reading, end.map(|end| &end.cut)).await {
                Ok(()) => {}
                // It has gone, and what the group has not read of it with it.
                Err(ControllerError::NotFound(_)) => reading.unread_bytes = None,
                Err(error) => return Err(error),
            }
        }
        Ok((readers, room))
    }

    /// The group, and what its readers have written; no state before the first of them.
    async fn known(self: &Arc<Self>, scope: &Name, name: &Name) -> Result<(Group, Known)> {
        let group = self.group(scope, name).await?;
        let group = group.ok_or_else(|| ControllerError::NotFound(format!("reader group {scope}/{name}")))?;
        let stream = group_stream(&Item::group(scope, name));
        let segment = match self.current_segments(&stream).await {
            Ok(segments) => segments.first().map(|segment| stream.segment(segment.id)),
            Err(ControllerError::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        let turn = self.looking.clone().acquire_owned().await.expect("never closed");
        let Some(segment) = segment else {
            let readers = configured(&group, GroupReaders::default());
            return Ok((group, Known { state: None, readers, room: Room::new(turn) }));
        };
        let (mut bytes, mut attempts) = (ROOM_BYTES, 0);
        loop {
            let room = self.ports.segments.room(bytes).await?;
            match self.stream_state(&segment, bytes).await? {
                Looked::All { state, readers } => {
                    let readers = configured(&group, readers);
                    return Ok((group, Known { state, readers, room: room.with(turn) }));
                }
                Looked::TooMuch => bytes = more(bytes, scope, name)?,
                Looked::Foreign(why) => return Err(foreign(scope, name, &why)),
                Looked::Gone if attempts < ATTEMPTS => attempts += 1,
                Looked::Gone => {
                    let text = format!("the state of reader group {scope}/{name} is written too often");
                    return Err(ControllerError::Unavailable(text));
                }
            }
        }
    }

    /// What the events from the last whole state on say.
    async fn stream_state(&self, segment: &SegmentName, room_bytes: usize) -> Result<Looked> {
        let nothing = || Looked::All { state: None, readers: GroupReaders::default() };
        let store = &self.ports.segments;
        let Some(info) = store.segment_info(segment).await? else { return Ok(nothing()) };
        let mark = store.attribute(segment, MARK).await?.and_then(|mark| Offset::try_from(mark).ok());
        let mut at = mark.unwrap_or(0).max(info.start);
        let length = usize::try_from(info.length.saturating_sub(at)).unwrap_or(usize::MAX);
        if length > STATE_BYTES_MAX {
            let text = format!("more than {STATE_BYTES_MAX} bytes of {segment} lie behind its mark");
            return Err(ControllerError::Exhausted(text));
        }
        // An event is put together of pieces, and may have been copied to make place for another.
        let Some(allowed) = room_bytes.checked_sub(2 * length) else { return Ok(Looked::TooMuch) };
        let allowance = Allowance::new(allowed);
        let mut reader = StateReader::new(&allowance);
        // What comes later is for the next look. A whole state may have been marked since.
        while at < info.length {
            let wanted = usize::try_from(info.length - at).unwrap_or(usize::MAX).min(PIECE_BYTES);
            match store.read_segment(segment, at, wanted).await? {
                SegmentRead::Bytes(bytes) if bytes.is_empty() => break,
                SegmentRead::Bytes(bytes) => {
                    at += bytes.len() as u64;
                    let fed = reader.feed(&bytes);
                    if allowance.is_exceeded() {
                        return Ok(Looked::TooMuch);
                    }
                    if let Err(error) = fed {
                        return Ok(Looked::Foreign(error.to_string()));
                    }
                }
                SegmentRead::Outside { .. } => return Ok(Looked::Gone),
                SegmentRead::NoSuchSegment => return Ok(nothing()),
            }
        }
        Ok(match reader.finish() {
            Ok(state) => Looked::told(state, &allowance),
            Err(error) => Looked::Foreign(error.to_string()),
        })
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
        let tail = fan_out(view.current.ids().collect(), |id| {
            let (store, segment) = (Arc::clone(&self.ports.segments), stream.segment(id));
            async move { Ok((id, store.segment_info(&segment).await?)) }
        })
        .await?;
        let offset = |info: Option<crate::ports::SegmentInfo>| {
            info.map_or(0, |info| i64::try_from(info.length).unwrap_or(i64::MAX))
        };
        let tail: StreamCut = tail.into_iter().map(|(id, info)| (id, offset(info))).collect();
        let mut walk = self.walk(&slot, For::Client);
        let Some(on_head) = walk.standing(&head).await? else { return Ok(()) };
        let Some(on_place) = walk.surface(&place).await? else { return Ok(()) };
        let (place, on_place) = match cuts::order_on((&on_place, &place), (&on_head, &head)) {
            Order::EqualOrAfter => (place, on_place),
            // Nothing before the head can be read.
            Order::Before => (head, on_head),
            Order::Overlaps => return Ok(()),
        };
        let mut end_bytes = walk.bytes_before(&view, &tail).await?;
        if let Some(end) = end
            && let Some(on_end) = walk.surface(end).await?
            && cuts::order_on((&on_end, end), (&on_place, &place)) == Order::EqualOrAfter
        {
            end_bytes = end_bytes.min(walk.bytes_before(&view, end).await?);
        }
        let read_bytes = walk.bytes_before(&view, &place).await?;
        reading.unread_bytes = Some(end_bytes.saturating_sub(read_bytes).max(0));
        Ok(())
    }
}

/// With what the group is configured to read, where its readers have written nothing of it.
fn configured(group: &Group, mut readers: GroupReaders) -> GroupReaders {
    for cut in &group.config.starting {
        if let Err(at) = readers.streams.binary_search_by(|reading| reading.stream.cmp(&cut.stream)) {
            let (segments, later) = (Vec::new(), Vec::new());
            let reading = StreamReading { stream: cut.stream.clone(), segments, later, unread_bytes: None };
            readers.streams.insert(at, reading);
        }
    }
    readers
}
