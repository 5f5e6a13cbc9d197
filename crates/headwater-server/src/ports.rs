//! The controller's two ports, on the engine.
//!
//! Guarantees:
//! * a metadata table is the table segment `_system/_tables/<table>`, and two tables never share a segment
//!   ([`table_segment`]); clients of the segment store cannot reach any of them
//! * outcomes that a repeated call can meet are values; errors pass, except those that name a mistake
//! * every table that a client makes under a scope is remembered before it exists, so that deleting the scope finds it
//!   (`private`)

use std::fmt::Write as _;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use headwater_controller::{
    AppendedAt, Change, Created, Deleted, Entry, Expect, Merged, MetadataTable, PolicyUpdated, PortError, Room,
    ScaleHint, Sealed, SegmentInfo, SegmentOps, SegmentRead, TableError, Truncated, Version,
};
use headwater_engine::Engine;
use headwater_engine::api::{
    self, Outcome, Refusal, Request, Response, ScanRange, SegmentKind, SegmentPolicy, TableChange,
};
use headwater_types::{AttributeId, Name, Offset, SegmentName, WriterId, attribute};

use crate::private::{PRIVATE_TABLES, client_tables, forget_client_table};

/// Who appends for the controller; all its appends say where, so one name serves them all.
const WRITER: WriterId = WriterId(0x6865_6164_7761_7465_7200_0000_0000_0001);
/// How long an append or a creation for the controller may take. On a full disk they wait for room, and whoever asks
/// must not: it may hold what making room needs.
const PATIENCE: Duration = Duration::from_secs(5);
/// One request of the controller may have this part of what all requests share.
const ROOM_SHARE: usize = 2;
/// Names looked up at a time when a scope is deleted.
const CLIENT_TABLES_PAGE: usize = 500;

/// The engine as the controller sees it.
#[derive(Clone, Debug)]
pub struct EnginePorts {
    engine: Engine,
}

impl EnginePorts {
    /// Makes sure that there is a table of client tables; before, clients cannot create tables of their own.
    ///
    /// # Errors
    /// The engine did not create it.
    pub async fn open(engine: Engine) -> Result<Self, PortError> {
        let ports = Self { engine };
        ports.create_table(client_tables()).await?;
        Ok(ports)
    }

    async fn call(&self, request: Request) -> Outcome {
        self.engine.call(request).await
    }

    async fn create_table(&self, segment: SegmentName) -> Result<(), PortError> {
        let (kind, policy) = (SegmentKind::Table { key_length: 0 }, SegmentPolicy::default());
        self.create(Request::Create { segment, kind, policy, on_reserve: false }).await.map(drop)
    }

    /// Creates a segment. One that took too long may be there later.
    async fn create(&self, request: Request) -> Result<Created, PortError> {
        match tokio::time::timeout(PATIENCE, self.call(request)).await {
            Ok(Ok(_)) => Ok(Created::Created),
            Ok(Err(Refusal::SegmentExists)) => Ok(Created::Exists),
            Ok(Err(refusal)) => Err(port_error(&refusal)),
            Err(_) => Err(PortError::Unavailable("a creation takes too long".into())),
        }
    }

    /// Creates a segment whose name is the controller's to give. Whoever may write to a stream or table can make and delete
    /// its segments on the wire, also those that are still to come, and as a segment of the other kind, which nobody could
    /// write to as what it should be: that makes way.
    async fn create_own(&self, request: Request) -> Result<Created, PortError> {
        let Request::Create { segment, kind, .. } = &request else { return self.create(request).await };
        let is_wanted_as_table = matches!(kind, SegmentKind::Table { .. });
        let created = self.create(request.clone()).await?;
        if created == Created::Exists && self.is_table(segment).await? == Some(!is_wanted_as_table) {
            self.delete_segment(segment).await?;
            return self.create(request).await;
        }
        Ok(created)
    }

    /// `None` if there is no such segment.
    async fn is_table(&self, segment: &SegmentName) -> Result<Option<bool>, PortError> {
        match self.call(Request::TableInfo { segment: segment.clone() }).await {
            Ok(_) => Ok(Some(true)),
            Err(Refusal::WrongKind) => Ok(Some(false)),
            Err(Refusal::NoSuchSegment) => Ok(None),
            Err(refusal) => Err(port_error(&refusal)),
        }
    }

    async fn page(
        &self,
        table: &str,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
        keys_only: bool,
    ) -> Result<Vec<api::TableEntry>, TableError> {
        let range = ScanRange {
            from: after.map(Bytes::copy_from_slice),
            exclusive: after.is_some(),
            to: None,
            prefix: Bytes::copy_from_slice(prefix),
        };
        let segment = table_segment(table)?;
        let request = Request::TableScan { segment, range, count_max: limit.max(1), keys_only };
        match self.call(request).await {
            Ok(Response::Page(page)) => Ok(page),
            Ok(other) => unexpected(&other),
            Err(refusal) => Err(table_error(table, &refusal)),
        }
    }

    async fn delete_table(&self, segment: SegmentName) -> Result<(), PortError> {
        match self.call(Request::DeleteTable { segment, must_be_empty: false }).await {
            Ok(_) | Err(Refusal::NoSuchSegment) => Ok(()),
            Err(refusal) => Err(port_error(&refusal)),
        }
    }
}

/// The segment that holds a metadata table. Whatever a segment name cannot hold, and what would mean something in one,
/// is written as `%` and two digits, so different tables have different segments.
fn table_segment(table: &str) -> Result<SegmentName, PortError> {
    let mut name = String::with_capacity(PRIVATE_TABLES.len() + table.len());
    name.push_str(PRIVATE_TABLES);
    for byte in table.bytes() {
        match byte {
            b'%' | b'#' => write!(name, "%{byte:02x}").expect("a String takes whatever is written to it"),
            byte if byte.is_ascii_graphic() => name.push(char::from(byte)),
            byte => write!(name, "%{byte:02x}").expect("a String takes whatever is written to it"),
        }
    }
    if table.is_empty() {
        return Err(PortError::Refused("a table needs a name".into()));
    }
    SegmentName::parse(&name)
        .map_err(|_| PortError::Refused(format!("table name of {} bytes is too long", table.len())))
}

fn port_error(refusal: &Refusal) -> PortError {
    match refusal {
        Refusal::Closing | Refusal::Unavailable => PortError::Unavailable(refusal.to_string()),
        Refusal::Damaged => PortError::Damaged(refusal.to_string()),
        Refusal::NoSuchSegment
        | Refusal::SegmentExists
        | Refusal::Sealed
        | Refusal::Truncated { .. }
        | Refusal::BehindEnd { .. }
        | Refusal::WriterConflict { .. }
        | Refusal::LengthMismatch { .. }
        | Refusal::AttributeMismatch
        | Refusal::KeyMissing
        | Refusal::KeyVersion
        | Refusal::OffsetMismatch { .. }
        | Refusal::TableNotEmpty
        | Refusal::WrongKind
        | Refusal::SourceTruncated
        | Refusal::Invalid(_)
        | Refusal::Unsupported => PortError::Refused(refusal.to_string()),
    }
}

fn table_error(table: &str, refusal: &Refusal) -> TableError {
    match refusal {
        Refusal::NoSuchSegment => TableError::NoSuchTable(table.into()),
        Refusal::KeyMissing | Refusal::KeyVersion => TableError::Conflict(table.into()),
        other => TableError::Port(port_error(other)),
    }
}

/// The engine answers each request with the response its documentation names.
fn unexpected(response: &Response) -> ! {
    unreachable!("the store answered with {response:?}")
}

fn policy(scale: ScaleHint, rollover_bytes: u64) -> Result<SegmentPolicy, PortError> {
    let scale_type = u8::try_from(scale.kind).map_err(|_| PortError::Refused("scale type is negative".into()))?;
    Ok(SegmentPolicy { scale_type, rate: scale.rate, rollover_bytes })
}

#[async_trait]
impl SegmentOps for EnginePorts {
    async fn create_segment(
        &self,
        segment: &SegmentName,
        scale: ScaleHint,
        rollover_bytes: u64,
    ) -> Result<Created, PortError> {
        let policy = policy(scale, rollover_bytes)?;
        // On a full disk the controller creates segments only to finish what keeps a stream from being sealed.
        let request = Request::Create { segment: segment.clone(), kind: SegmentKind::Stream, policy, on_reserve: true };
        self.create_own(request).await
    }

    async fn seal_segment(&self, segment: &SegmentName) -> Result<Sealed, PortError> {
        match self.call(Request::Seal { segment: segment.clone() }).await {
            Ok(Response::Sealed { length }) => Ok(Sealed::Sealed { end: length }),
            Ok(other) => unexpected(&other),
            Err(Refusal::Sealed) => {
                let info = SegmentOps::segment_info(self, segment).await?;
                Ok(info.map_or(Sealed::NoSuchSegment, |info| Sealed::Sealed { end: info.length }))
            }
            // A table in its place, which a client made there, has nothing of the stream, either.
            Err(Refusal::NoSuchSegment | Refusal::WrongKind) => Ok(Sealed::NoSuchSegment),
            Err(refusal) => Err(port_error(&refusal)),
        }
    }

    async fn truncate_segment(&self, segment: &SegmentName, offset: Offset) -> Result<Truncated, PortError> {
        match self.call(Request::Truncate { segment: segment.clone(), offset }).await {
            Ok(_) => Ok(Truncated::Truncated),
            Err(Refusal::Truncated { start }) if offset < start => Ok(Truncated::Truncated),
            Err(Refusal::Truncated { .. }) => Ok(Truncated::BeyondEnd),
            Err(Refusal::NoSuchSegment | Refusal::WrongKind) => Ok(Truncated::NoSuchSegment),
            Err(refusal) => Err(port_error(&refusal)),
        }
    }

    async fn delete_segment(&self, segment: &SegmentName) -> Result<Deleted, PortError> {
        match self.call(Request::Delete { segment: segment.clone() }).await {
            Ok(_) => Ok(Deleted::Deleted),
            Err(Refusal::NoSuchSegment) => Ok(Deleted::NoSuchSegment),
            Err(refusal) => Err(port_error(&refusal)),
        }
    }

    async fn merge_segments(&self, target: &SegmentName, sources: &[SegmentName]) -> Result<Merged, PortError> {
        if sources.iter().any(|source| source.placement() != target.placement()) {
            return Err(PortError::Refused("segments of a merge must share stream and number".into()));
        }
        let request = Request::MergeBatch { target: target.clone(), sources: sources.to_vec() };
        match self.call(request).await {
            Ok(Response::MergedBatch(ends)) => Ok(Merged::Merged { ends }),
            Ok(other) => unexpected(&other),
            Err(Refusal::Sealed) => Ok(Merged::TargetSealed),
            // Only the target can be one: no segment of a transaction is a table.
            Err(Refusal::NoSuchSegment | Refusal::WrongKind) => Ok(Merged::NoSuchTarget),
            Err(refusal) => Err(port_error(&refusal)),
        }
    }

    async fn segment_info(&self, segment: &SegmentName) -> Result<Option<SegmentInfo>, PortError> {
        match self.call(Request::Info { segment: segment.clone() }).await {
            Ok(Response::Info(info)) => {
                Ok(Some(SegmentInfo { start: info.start, length: info.length, sealed: info.sealed }))
            }
            Ok(other) => unexpected(&other),
            Err(Refusal::NoSuchSegment) => Ok(None),
            Err(refusal) => Err(port_error(&refusal)),
        }
    }

    async fn update_policy(&self, segment: &SegmentName, scale: ScaleHint) -> Result<PolicyUpdated, PortError> {
        let request = Request::SetPolicy { segment: segment.clone(), policy: policy(scale, 0)? };
        match self.call(request).await {
            Ok(_) | Err(Refusal::Sealed) => Ok(PolicyUpdated::Updated),
            Err(Refusal::NoSuchSegment) => Ok(PolicyUpdated::NoSuchSegment),
            Err(refusal) => Err(port_error(&refusal)),
        }
    }

    async fn create_table_segment(
        &self,
        segment: &SegmentName,
        key_bytes: u32,
        rollover_bytes: u64,
    ) -> Result<Created, PortError> {
        let kind = SegmentKind::Table { key_length: key_bytes };
        let policy = policy(ScaleHint::default(), rollover_bytes)?;
        self.create_own(Request::Create { segment: segment.clone(), kind, policy, on_reserve: false }).await
    }

    async fn delete_table_segment(&self, segment: &SegmentName) -> Result<Deleted, PortError> {
        match self.call(Request::DeleteTable { segment: segment.clone(), must_be_empty: false }).await {
            Ok(_) => Ok(Deleted::Deleted),
            Err(Refusal::NoSuchSegment) => Ok(Deleted::NoSuchSegment),
            // A client made another segment in its place.
            Err(Refusal::WrongKind) => self.delete_segment(segment).await,
            Err(refusal) => Err(port_error(&refusal)),
        }
    }

    async fn segment_exists(&self, segment: &SegmentName) -> Result<bool, PortError> {
        match self.call(Request::Info { segment: segment.clone() }).await {
            Ok(_) | Err(Refusal::WrongKind) => Ok(true),
            Err(Refusal::NoSuchSegment) => Ok(false),
            Err(refusal) => Err(port_error(&refusal)),
        }
    }

    async fn read_segment(
        &self,
        segment: &SegmentName,
        offset: Offset,
        bytes_max: usize,
    ) -> Result<SegmentRead, PortError> {
        // A read at the end of an open segment would wait.
        match SegmentOps::segment_info(self, segment).await? {
            None => return Ok(SegmentRead::NoSuchSegment),
            Some(info) if offset < info.start || offset > info.length => {
                return Ok(SegmentRead::Outside { start: info.start });
            }
            Some(info) if offset == info.length => return Ok(SegmentRead::Bytes(Bytes::new())),
            Some(_) => {}
        }
        match self.call(Request::Read { segment: segment.clone(), offset, bytes_max }).await {
            Ok(Response::Read(read)) => Ok(SegmentRead::Bytes(read.data.concat().into())),
            Ok(other) => unexpected(&other),
            Err(Refusal::Truncated { start }) => Ok(SegmentRead::Outside { start }),
            Err(Refusal::BehindEnd { .. }) => Ok(SegmentRead::Bytes(Bytes::new())),
            Err(Refusal::NoSuchSegment) => Ok(SegmentRead::NoSuchSegment),
            Err(refusal) => Err(port_error(&refusal)),
        }
    }

    async fn append_at(&self, segment: &SegmentName, end: Offset, data: Bytes) -> Result<AppendedAt, PortError> {
        let previous = match self.call(Request::OpenWriter { segment: segment.clone(), writer: WRITER }).await {
            Ok(Response::LastEvent(previous)) => previous,
            Ok(other) => unexpected(&other),
            Err(Refusal::NoSuchSegment) => return Ok(AppendedAt::NoSuchSegment),
            Err(refusal) => return Err(port_error(&refusal)),
        };
        let bytes = data.len();
        let append = api::Append {
            segment: segment.clone(),
            writer: WRITER,
            data,
            event_count: 1,
            previous,
            number: previous.unwrap_or(0).saturating_add(1),
            expected_length: Some(end),
        };
        let appending = async {
            let _room = self.engine.room(bytes).await;
            self.call(Request::Append(append)).await
        };
        let Ok(outcome) = tokio::time::timeout(PATIENCE, appending).await else {
            return Err(PortError::Unavailable("an append takes too long".into()));
        };
        match outcome {
            Ok(_) => Ok(AppendedAt::Appended),
            // Both say that somebody else, or an earlier call of ours, was faster.
            Err(Refusal::LengthMismatch { .. } | Refusal::WriterConflict { .. }) => Ok(AppendedAt::Moved),
            Err(Refusal::Sealed) => Ok(AppendedAt::Sealed),
            Err(Refusal::NoSuchSegment) => Ok(AppendedAt::NoSuchSegment),
            Err(refusal) => Err(port_error(&refusal)),
        }
    }

    async fn attribute(&self, segment: &SegmentName, id: AttributeId) -> Result<Option<i64>, PortError> {
        match self.call(Request::Attribute { segment: segment.clone(), id }).await {
            Ok(Response::Attribute(value)) => Ok(Some(value).filter(|value| *value != attribute::NULL)),
            Ok(other) => unexpected(&other),
            Err(Refusal::NoSuchSegment) => Ok(None),
            Err(refusal) => Err(port_error(&refusal)),
        }
    }

    async fn swap_attribute(
        &self,
        segment: &SegmentName,
        id: AttributeId,
        from: Option<i64>,
        to: i64,
    ) -> Result<bool, PortError> {
        let kind = api::UpdateKind::IfEquals(from.unwrap_or(attribute::NULL));
        let updates = vec![api::AttributeUpdate { id, kind, value: to }];
        match self.call(Request::UpdateAttributes { segment: segment.clone(), updates }).await {
            Ok(_) => Ok(true),
            Err(Refusal::AttributeMismatch | Refusal::NoSuchSegment | Refusal::Sealed) => Ok(false),
            Err(refusal) => Err(port_error(&refusal)),
        }
    }

    async fn scan_client_table(
        &self,
        segment: &SegmentName,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Option<Vec<Entry>>, PortError> {
        let (from, exclusive) = (after.map(Bytes::copy_from_slice), after.is_some());
        let range = ScanRange { from, exclusive, ..ScanRange::default() };
        let request = Request::TableScan { segment: segment.clone(), range, count_max: limit.max(1), keys_only: false };
        match self.call(request).await {
            Ok(Response::Page(page)) => Ok(Some(page.into_iter().map(entry).collect())),
            Ok(other) => unexpected(&other),
            Err(Refusal::NoSuchSegment | Refusal::WrongKind) => Ok(None),
            Err(refusal) => Err(port_error(&refusal)),
        }
    }

    async fn room(&self, bytes: usize) -> Result<Room, PortError> {
        let most = self.engine.room_bytes() / ROOM_SHARE;
        if bytes > most {
            return Err(PortError::Exhausted(format!("{bytes} bytes at once, of {most} that one request may have")));
        }
        match tokio::time::timeout(PATIENCE, self.engine.room(bytes)).await {
            Ok(permit) => Ok(Room::new(permit)),
            Err(_) => Err(PortError::Exhausted(format!("{bytes} bytes are not free now"))),
        }
    }

    async fn drop_tables_of_scope(&self, scope: &Name) -> Result<(), PortError> {
        loop {
            let range = ScanRange { prefix: format!("{scope}/").into(), ..ScanRange::default() };
            let (segment, count_max) = (client_tables(), CLIENT_TABLES_PAGE);
            let request = Request::TableScan { segment, range, count_max, keys_only: true };
            let page = match self.call(request).await {
                Ok(Response::Page(page)) => page,
                Ok(other) => unexpected(&other),
                Err(refusal) => return Err(port_error(&refusal)),
            };
            if page.is_empty() {
                return Ok(());
            }
            for entry in page {
                let name = std::str::from_utf8(&entry.key).ok().and_then(|name| SegmentName::parse(name).ok());
                let name = name.expect("only names of segments are put down");
                match self.call(Request::DeleteTable { segment: name.clone(), must_be_empty: false }).await {
                    // Not there, or something else of that name, which was never a table.
                    Ok(_) | Err(Refusal::NoSuchSegment | Refusal::WrongKind) => {}
                    Err(refusal) => return Err(port_error(&refusal)),
                }
                match self.call(forget_client_table(&name, entry.version)).await {
                    // Put down again meanwhile: the next page has it.
                    Ok(_) | Err(Refusal::KeyVersion | Refusal::KeyMissing) => {}
                    Err(refusal) => return Err(port_error(&refusal)),
                }
            }
        }
    }
}

#[async_trait]
impl MetadataTable for EnginePorts {
    async fn create(&self, table: &str) -> Result<(), PortError> {
        self.create_table(table_segment(table)?).await
    }

    async fn drop_table(&self, table: &str) -> Result<(), PortError> {
        self.delete_table(table_segment(table)?).await
    }

    async fn scan(
        &self,
        table: &str,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, TableError> {
        Ok(self.page(table, prefix, after, limit, false).await?.into_iter().map(entry).collect())
    }

    async fn scan_keys(
        &self,
        table: &str,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Bytes>, TableError> {
        Ok(self.page(table, prefix, after, limit, true).await?.into_iter().map(|entry| entry.key).collect())
    }

    async fn read(&self, table: &str, keys: &[Bytes]) -> Result<Vec<Option<Entry>>, TableError> {
        let request = Request::TableGet { segment: table_segment(table)?, keys: keys.to_vec() };
        match self.call(request).await {
            Ok(Response::Values(values)) => Ok(values.into_iter().map(|value| value.map(entry)).collect()),
            Ok(other) => unexpected(&other),
            Err(refusal) => Err(table_error(table, &refusal)),
        }
    }

    async fn commit(&self, table: &str, changes: Vec<Change>) -> Result<Vec<Version>, TableError> {
        let segment = table_segment(table)?;
        let changes = changes.into_iter().map(|Change { key, expect, put }| {
            let expect = match expect {
                Expect::Any => api::Expect::Any,
                Expect::Absent => api::Expect::Missing,
                Expect::Version(version) => api::Expect::Version(version),
            };
            TableChange { key, value: put, expect }
        });
        let request = Request::TableUpdate { segment, changes: changes.collect(), at: None };
        // No room is taken for it: clients' appends that a full disk makes wait have all of it, and what is to make
        // room on the disk would wait for them. What the controller has under way is bounded by its calls.
        match self.call(request).await {
            Ok(Response::Versions(versions)) => Ok(versions),
            Ok(other) => unexpected(&other),
            Err(refusal) => Err(table_error(table, &refusal)),
        }
    }
}

fn entry(entry: api::TableEntry) -> Entry {
    Entry { key: entry.key, value: entry.value, version: entry.version }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn different_tables_have_different_segments() {
        let tables = ["a", "%61", "a%", "a%25", "a#epoch", "a%23epoch", "a b", "a%20b", "#clients", "\u{e9}", "A"];
        let segments: BTreeSet<_> = tables.iter().map(|table| table_segment(table).unwrap()).collect();
        assert_eq!(segments.len(), tables.len());
        assert!(!segments.contains(&client_tables()));
        for segment in segments {
            assert_eq!(segment.placement(), segment.as_str(), "nothing in the name is read as a suffix");
            assert!(crate::private::public_name(segment.as_str()).is_none(), "clients cannot reach it");
        }
    }

    #[tokio::test]
    async fn a_scope_can_go_although_something_else_has_the_name_of_a_table() {
        use headwater_engine::io::{Io, RealClock, RealDisk, RealRandom};

        let directory = tempfile::tempdir().unwrap();
        let io = Io {
            disk: std::sync::Arc::new(RealDisk::new(directory.path())),
            clock: std::sync::Arc::new(RealClock::default()),
            random: std::sync::Arc::new(RealRandom),
        };
        let options = headwater_engine::Options::default();
        let engine = Engine::open(io, &options, std::sync::Arc::new(|fault| panic!("{fault}"))).unwrap();
        let ports = EnginePorts::open(engine.clone()).await.unwrap();
        let name = SegmentName::parse("s/x_kvtable/0.#epoch.0").unwrap();
        let (kind, policy) = (SegmentKind::Stream, SegmentPolicy::default());
        engine.call(Request::Create { segment: name.clone(), kind, policy, on_reserve: false }).await.unwrap();
        // A client's attempt to make a table of this name leaves its note behind.
        engine.call(crate::private::note_client_table(&name)).await.unwrap();
        let scope = Name::parse("s").unwrap();
        ports.drop_tables_of_scope(&scope).await.unwrap();
        ports.drop_tables_of_scope(&scope).await.unwrap();
        assert!(engine.call(Request::Info { segment: name }).await.is_ok(), "what is no table stays");
        tokio::task::spawn_blocking(move || engine.close()).await.unwrap();
    }

    #[tokio::test]
    async fn a_commit_over_a_scale_is_finished_on_a_full_disk_and_its_stream_can_go() {
        use std::sync::Arc;
        use std::time::Duration;

        use headwater_controller::model::{
            ControllerError, ControllerOptions, DeleteStream, Scale, ScaleProgress, ScalingPolicy, StreamConfig,
            TransactionState, UpdateStream,
        };
        use headwater_controller::{Controller, Ports};
        use headwater_engine::api::Append;
        use headwater_engine::io::{Io, MemoryDisk, RealClock, RealRandom};
        use headwater_types::ScopedStream;

        let disk = Arc::new(MemoryDisk::default());
        let io = Io { disk: disk.clone(), clock: Arc::new(RealClock::default()), random: Arc::new(RealRandom) };
        let options = headwater_engine::Options { journal_file_bytes: 1 << 20, ..Default::default() };
        let engine = Engine::open(io, &options, Arc::new(|fault| panic!("{fault}"))).unwrap();
        let segments = Arc::new(EnginePorts::open(engine.clone()).await.unwrap());
        let loads = crate::loads::Meter { loads: crate::loads::Loads::default(), engine: engine.clone() };
        let ports = Ports {
            segments: segments.clone(),
            tables: segments.clone(),
            loads: Arc::new(loads),
            clock: Arc::new(|| 1_000_000),
        };
        let controller = Controller::new(ports, ControllerOptions::default());
        controller.recover().await.unwrap();
        controller.create_scope("s").await.unwrap();
        let config = StreamConfig::new(ScalingPolicy::fixed(1));
        controller.create_stream("s", "t", config).await.unwrap();
        let stream = ScopedStream::parse("s/t").unwrap();
        let transaction = controller.create_transaction(&stream, 600_000).await.unwrap();
        let halves = vec![(0.0, 0.5), (0.5, 1.0)];
        let scaled = controller.scale(&stream, vec![transaction.segments[0].id], halves).await.unwrap();
        assert!(matches!(scaled, Scale::Started { .. }), "{scaled:?}");
        let other = SegmentName::parse("s/other/0.#epoch.0").unwrap();
        segments.create_segment(&other, ScaleHint::default(), 0).await.unwrap();
        while controller.check_scale(&stream, 0).await.unwrap() != ScaleProgress::Success {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }

        disk.set_full(true);
        for number in 0.. {
            let append = Append {
                segment: other.clone(),
                writer: WriterId(7),
                data: vec![1; 100 << 10].into(),
                event_count: 1,
                previous: (number > 0).then_some(number),
                number: number + 1,
                expected_length: None,
            };
            let engine = engine.clone();
            let answer = tokio::spawn(async move { engine.call(Request::Append(append)).await });
            if tokio::time::timeout(Duration::from_millis(500), answer).await.is_err() {
                break;
            }
        }
        assert!(engine.is_full());
        let refused = controller.create_transaction(&stream, 600_000).await;
        assert!(matches!(refused, Err(ControllerError::Exhausted(_))), "{refused:?}");
        controller.commit_transaction(&stream, transaction.id, String::new(), i64::MIN).await.unwrap();
        assert_eq!(controller.seal_stream(&stream).await.unwrap(), UpdateStream::Success);
        assert_eq!(
            controller.transaction_state(&stream, transaction.id).await.unwrap(),
            TransactionState::Committed,
            "what was accepted is there before the seal"
        );
        assert_eq!(controller.delete_stream(&stream).await.unwrap(), DeleteStream::Success);
        disk.set_full(false);
        tokio::task::spawn_blocking(move || engine.close()).await.unwrap();
    }

    #[test]
    fn a_table_name_that_cannot_be_kept_is_refused() {
        assert!(matches!(table_segment(""), Err(PortError::Refused(_))));
        assert!(matches!(table_segment(&"a".repeat(2000)), Err(PortError::Refused(_))));
        assert!(table_segment(&"a".repeat(600)).is_ok());
    }
}
