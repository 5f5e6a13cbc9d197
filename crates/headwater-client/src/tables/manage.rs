//! Key-value tables: make, list, delete.

use headwater_proto::controller as proto;
use headwater_types::Name;

use super::model::ScopedTable;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::streams::{PAGES_MAX, call, endless, failed, name_of, not_found};

/// How a key-value table is made. It stays so.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeyValueTableConfig {
    /// Parts that lie on servers of their own; at least 1.
    pub partitions: u32,
    /// Length of the primary part of each key, in bytes; at least 1, with the secondary part at most 256.
    pub primary_key_bytes: u32,
    /// Length of the secondary part of each key, in bytes; 0 for none.
    pub secondary_key_bytes: u32,
    /// Size at which the store begins a new object for a partition's bytes, in bytes. 0 leaves it to the server.
    pub rollover_bytes: u64,
}

impl KeyValueTableConfig {
    /// So many partitions, keys of so many bytes without a secondary part.
    pub fn new(partitions: u32, primary_key_bytes: u32) -> Self {
        Self { partitions, primary_key_bytes, secondary_key_bytes: 0, rollover_bytes: 0 }
    }

    fn to_proto(self, name: &ScopedTable) -> Result<proto::KeyValueTableConfig> {
        let too_large = |what: &str| Error::new(ErrorKind::Invalid, format!("{what} of {name} is too large"));
        let number = |what: &str, value: u32| i32::try_from(value).map_err(|_| too_large(what));
        Ok(proto::KeyValueTableConfig {
            scope: name.scope.to_string(),
            kvt_name: name.table.to_string(),
            partition_count: number("number of partitions", self.partitions)?,
            primary_key_length: number("primary key", self.primary_key_bytes)?,
            secondary_key_length: number("secondary key", self.secondary_key_bytes)?,
            rollover_size_bytes: i64::try_from(self.rollover_bytes).map_err(|_| too_large("rollover size"))?,
        })
    }

    fn of_proto(config: &proto::KeyValueTableConfig) -> Result<Self> {
        let odd = || Error::new(ErrorKind::Protocol, "controller sent a key-value table with a negative number");
        let number = |value: i32| u32::try_from(value).map_err(|_| odd());
        Ok(Self {
            partitions: number(config.partition_count)?,
            primary_key_bytes: number(config.primary_key_length)?,
            secondary_key_bytes: number(config.secondary_key_length)?,
            rollover_bytes: u64::try_from(config.rollover_size_bytes).map_err(|_| odd())?,
        })
    }
}

pub(super) fn table_info(name: &ScopedTable) -> proto::KeyValueTableInfo {
    proto::KeyValueTableInfo { scope: name.scope.to_string(), kvt_name: name.table.to_string() }
}

impl Client {
    /// Makes a key-value table. `false` if it was there; it is then as it was.
    ///
    /// # Errors
    /// `NotFound`: the scope does not exist. `Invalid`: the server does not take the name or the lengths.
    ///
    /// # Cancel safety
    /// It may be there.
    pub async fn create_key_value_table(&self, name: &ScopedTable, config: &KeyValueTableConfig) -> Result<bool> {
        use proto::create_key_value_table_status::Status;
        let keys = u64::from(config.primary_key_bytes) + u64::from(config.secondary_key_bytes);
        if config.partitions == 0 || config.primary_key_bytes == 0 || keys > KEY_BYTES_MAX {
            let what = "a key-value table has at least one partition and keys of 1 to 256 bytes, some of them primary";
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        let answer = call!(self, "createKeyValueTable", create_key_value_table, config.to_proto(name)?)?;
        match answer.status() {
            Status::Success => Ok(true),
            Status::TableExists => Ok(false),
            Status::ScopeNotFound => Err(not_found("scope", &name.scope)),
            Status::InvalidTableName => {
                Err(Error::new(ErrorKind::Invalid, format!("{} is no name for a table", name.table)))
            }
            Status::Failure => Err(failed("create key-value table", name)),
        }
    }

    /// How a key-value table was made.
    ///
    /// # Errors
    /// `NotFound`.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn key_value_table_config(&self, name: &ScopedTable) -> Result<KeyValueTableConfig> {
        use proto::key_value_table_config_response::Status;
        let asked = table_info(name);
        let answer = call!(self, "getKeyValueTableConfiguration", get_key_value_table_configuration, asked)?;
        match answer.status() {
            Status::Success => KeyValueTableConfig::of_proto(&answer.config.unwrap_or_default()),
            Status::TableNotFound => Err(not_found("key-value table", name)),
            Status::Failure => Err(failed("look up key-value table", name)),
        }
    }

    /// Names of all key-value tables of a scope.
    ///
    /// # Errors
    /// `NotFound`: the scope does not exist.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn key_value_tables(&self, scope: &Name) -> Result<Vec<Name>> {
        use proto::kv_tables_in_scope_response::Status;
        let (mut found, mut token) = (Vec::new(), String::new());
        for _ in 0..PAGES_MAX {
            let asked = proto::KvTablesInScopeRequest {
                scope: Some(proto::ScopeInfo { scope: scope.to_string() }),
                continuation_token: Some(proto::ContinuationToken { token }),
            };
            let page = call!(self, "listKeyValueTablesInScope", list_key_value_tables_in_scope, asked)?;
            match page.status() {
                Status::Success => {}
                Status::ScopeNotFound => return Err(not_found("scope", scope)),
                Status::Failure => return Err(failed("list key-value tables of", scope)),
            }
            if page.kvtables.is_empty() {
                return Ok(found);
            }
            token = page.continuation_token.unwrap_or_default().token;
            for table in page.kvtables {
                found.push(name_of(&table.kvt_name)?);
            }
        }
        Err(endless("key-value tables"))
    }

    /// Deletes a key-value table with all it holds. `false` if it was not there.
    ///
    /// # Errors
    /// Those of every call.
    ///
    /// # Cancel safety
    /// It may be gone.
    pub async fn delete_key_value_table(&self, name: &ScopedTable) -> Result<bool> {
        use proto::delete_kv_table_status::Status;
        let answer = call!(self, "deleteKeyValueTable", delete_key_value_table, table_info(name))?;
        match answer.status() {
            Status::Success => Ok(true),
            Status::TableNotFound => Ok(false),
            Status::Failure => Err(failed("delete key-value table", name)),
        }
    }
}

/// Both parts together. Source: the fixed-key-length tables of Pravega's segment store.
const KEY_BYTES_MAX: u64 = 256;
