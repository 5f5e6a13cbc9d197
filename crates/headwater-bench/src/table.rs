//! A table segment whose keys are numbers, and what is asked about it.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use headwater_wire::{NO_VERSION, Reply, Request, TableEntry, TableKey, Text, Token};

use crate::connection::{Connection, refused};
use crate::error::BenchError;
use crate::target::Run;

const KEY_BYTES: usize = 16;
/// Most entries of one update, and most bytes of their values: far below what servers take.
const BATCH: u64 = 500;
const BATCH_BYTES: usize = 1 << 20;
/// Updates under way.
const UNDER_WAY: usize = 16;

/// Numbers that follow no order, the same in every run.
pub(crate) fn scattered(n: u64) -> u64 {
    let mixed = (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed ^ (mixed >> 31)
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) segment: Text,
}

impl Table {
    /// One that nobody else has. `connection` has been [greeted](Connection::greeted).
    pub(crate) fn create(connection: &mut Connection) -> Result<Self, BenchError> {
        let segment = Run::named(1).segments.swap_remove(0);
        let reply = connection.ask(|request_id| Request::CreateTableSegment {
            request_id,
            segment: segment.clone(),
            token: Token::default(),
            sorted: false,
            key_length: 0,
            rollover_bytes: 0,
        })?;
        match reply {
            Reply::SegmentCreated { .. } => Ok(Self { segment }),
            reply => Err(refused("CreateTableSegment", &reply)),
        }
    }

    pub(crate) fn delete(self, connection: &mut Connection) -> Result<(), BenchError> {
        let reply = connection.ask(|request_id| Request::DeleteTableSegment {
            request_id,
            segment: self.segment,
            must_be_empty: false,
            token: Token::default(),
        })?;
        match reply {
            Reply::SegmentDeleted { .. } => Ok(()),
            reply => Err(refused("DeleteTableSegment", &reply)),
        }
    }

    fn key(number: u64, version: i64) -> TableKey {
        let mut key = vec![b'k'; KEY_BYTES - 8];
        key.extend_from_slice(&scattered(number).to_be_bytes());
        TableKey { key: key.into(), version }
    }

    /// Puts a value, if the key has the version.
    pub(crate) fn entry(number: u64, version: i64, value: Bytes) -> TableEntry {
        TableEntry { key: Self::key(number, version), value }
    }

    pub(crate) fn update(&self, request_id: i64, entries: Vec<TableEntry>) -> Request {
        let (segment, token) = (self.segment.clone(), Token::default());
        Request::UpdateTableEntries { request_id, segment, token, entries, table_offset: -1 }
    }

    pub(crate) fn read(&self, request_id: i64, numbers: impl IntoIterator<Item = u64>) -> Request {
        let keys = numbers.into_iter().map(|number| Self::key(number, NO_VERSION)).collect();
        Request::ReadTable { request_id, segment: self.segment.clone(), token: Token::default(), keys }
    }

    /// Puts values of so many keys, many in one request and several requests under way, if each key has the version.
    /// `seen` is told of each key and its new version.
    pub(crate) fn fill(
        &self,
        connection: &mut Connection,
        numbers: Range<u64>,
        version: i64,
        mut value: impl FnMut(u64) -> Bytes,
        mut seen: impl FnMut(u64, i64),
    ) -> Result<(), BenchError> {
        let mut under_way: BTreeMap<i64, Range<u64>> = BTreeMap::new();
        let mut next = numbers.start;
        while next < numbers.end || !under_way.is_empty() {
            if next < numbers.end && under_way.len() < UNDER_WAY {
                let (first, mut bytes, mut entries) = (next, 0, Vec::new());
                while next < numbers.end && next - first < BATCH && bytes < BATCH_BYTES {
                    let value = value(next);
                    bytes += value.len();
                    entries.push(Self::entry(next, version, value));
                    next += 1;
                }
                let id = connection.put_request(|request_id| self.update(request_id, entries))?;
                connection.flush()?;
                under_way.insert(id, first..next);
                continue;
            }
            match connection.reply("a table was filled")? {
                Reply::TableEntriesUpdated { request_id, versions } => {
                    let of = under_way.remove(&request_id).filter(|of| of.end - of.start == versions.len() as u64);
                    let Some(of) = of else {
                        let reply = format!("{} versions for request {request_id}", versions.len());
                        return Err(BenchError::Refused { request: "UpdateTableEntries", reply });
                    };
                    of.zip(versions).for_each(|(number, version)| seen(number, version));
                }
                Reply::KeepAlive => {}
                reply => return Err(refused("UpdateTableEntries", &reply)),
            }
        }
        Ok(())
    }
}
