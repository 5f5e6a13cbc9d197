//! Tables of both kinds.

use bytes::Bytes;
use headwater::client::{
    Condition, Error, KeyValueRange, KeyValueTable, KeyValueTableConfig, Name, Put, Table, TableKey, Version,
};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::client::NativeClient;
use crate::errors::{invalid, raise};
use crate::pending::Pending;
use crate::reading::{Entries, NativeEntries};
use crate::values::{PyVersion, name, payload, table};

/// What has to be true of a key: nothing, that it is absent, or that it has a version.
fn condition(wanted: Option<&Bound<'_, PyAny>>) -> PyResult<Condition> {
    let Some(wanted) = wanted.filter(|wanted| !wanted.is_none()) else { return Ok(Condition::None) };
    if let Ok(version) = wanted.cast::<PyVersion>() {
        return Ok(Condition::At(version.get().0));
    }
    match wanted.extract::<String>().as_deref() {
        Ok("absent") => Ok(Condition::Absent),
        _ => Err(invalid("a condition is None, ABSENT, or a Version")),
    }
}

/// A key, or a pair of a primary and a secondary one.
fn table_key(key: &Bound<'_, PyAny>) -> PyResult<TableKey> {
    if let Ok(pair) = key.cast::<PyTuple>() {
        if pair.len() != 2 {
            return Err(invalid(format_args!("a key has one or two parts, and not {}", pair.len())));
        }
        return Ok(TableKey::new(payload(&pair.get_item(0)?)?, payload(&pair.get_item(1)?)?));
    }
    payload(key).map(TableKey::from)
}

/// Puts, each a key, a value and a condition.
fn puts<K>(puts: &Bound<'_, PyAny>, key: impl Fn(&Bound<'_, PyAny>) -> PyResult<K>) -> PyResult<Vec<Put<K>>> {
    let one = |put: PyResult<Bound<'_, PyAny>>| {
        let put = put?.cast_into::<PyTuple>()?;
        let condition = condition(Some(&put.get_item(2)?))?;
        Ok(Put { key: key(&put.get_item(0)?)?, value: payload(&put.get_item(1)?)?, condition })
    };
    puts.try_iter()?.map(one).collect()
}

/// Removals, each a key and a condition.
fn removals<K>(
    keys: &Bound<'_, PyAny>,
    key: impl Fn(&Bound<'_, PyAny>) -> PyResult<K>,
) -> PyResult<Vec<(K, Condition)>> {
    let one = |removal: PyResult<Bound<'_, PyAny>>| {
        let removal = removal?.cast_into::<PyTuple>()?;
        Ok((key(&removal.get_item(0)?)?, condition(Some(&removal.get_item(1)?))?))
    };
    keys.try_iter()?.map(one).collect()
}

fn found(found: Vec<Option<(Bytes, Version)>>) -> Vec<Option<(Bytes, PyVersion)>> {
    found.into_iter().map(|one| one.map(|(value, version)| (value, PyVersion(version)))).collect()
}

fn versions(versions: Vec<Version>) -> Vec<PyVersion> {
    versions.into_iter().map(PyVersion).collect()
}

#[pyfunction]
pub(crate) fn _create_key_value_table(
    client: &NativeClient,
    table: &str,
    partitions: u32,
    primary_key_bytes: u32,
    secondary_key_bytes: u32,
    rollover_bytes: u64,
) -> PyResult<Pending> {
    let (client, table) = (client.client.clone(), self::table(table)?);
    let config = KeyValueTableConfig { partitions, primary_key_bytes, secondary_key_bytes, rollover_bytes };
    Pending::start(async move { client.create_key_value_table(&table, &config).await })
}

#[pyfunction]
pub(crate) fn _key_value_tables(client: &NativeClient, scope: &str) -> PyResult<Pending> {
    let (client, scope) = (client.client.clone(), name(scope)?);
    Pending::start(async move {
        let tables = client.key_value_tables(&scope).await?;
        Ok::<_, Error>(tables.iter().map(Name::to_string).collect::<Vec<_>>())
    })
}

#[pyfunction]
pub(crate) fn _delete_key_value_table(client: &NativeClient, table: &str) -> PyResult<Pending> {
    let (client, table) = (client.client.clone(), self::table(table)?);
    Pending::start(async move { client.delete_key_value_table(&table).await })
}

#[pyfunction]
pub(crate) fn _key_value_table(client: &NativeClient, table: &str) -> PyResult<Pending> {
    let (client, table) = (client.client.clone(), self::table(table)?);
    Pending::start(async move { client.key_value_table(&table).await.map(|table| NativeKeyValueTable { table }) })
}

#[pyfunction]
pub(crate) fn _table(client: &NativeClient, table: &str) -> PyResult<Pending> {
    let (client, table) = (client.client.clone(), self::table(table)?);
    Pending::start(async move { client.table(&table).await.map(|table| NativeTable { table }) })
}

#[pyfunction]
pub(crate) fn _delete_table(client: &NativeClient, table: &str) -> PyResult<Pending> {
    let (client, table) = (client.client.clone(), self::table(table)?);
    Pending::start(async move { client.delete_table(&table).await })
}

/// A table of several partitions, with keys of fixed lengths.
#[pyclass(frozen, module = "headwater._native", name = "KeyValueTable")]
pub(crate) struct NativeKeyValueTable {
    table: KeyValueTable,
}

#[pymethods]
impl NativeKeyValueTable {
    #[getter]
    fn name(&self) -> String {
        self.table.name().to_string()
    }

    /// Partitions, lengths of both parts of keys, rollover size.
    #[getter]
    fn config(&self) -> (u32, u32, u32, u64) {
        let config = self.table.config();
        (config.partitions, config.primary_key_bytes, config.secondary_key_bytes, config.rollover_bytes)
    }

    fn get_all(&self, keys: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let keys = keys.try_iter()?.map(|key| table_key(&key?)).collect::<PyResult<Vec<_>>>()?;
        let table = self.table.clone();
        Pending::start(async move { table.get_all(&keys).await.map(found) })
    }

    fn update(&self, puts: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let (table, puts) = (self.table.clone(), self::puts(puts, table_key)?);
        Pending::start(async move { table.update(puts).await.map(versions) })
    }

    fn remove_all(&self, keys: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let (table, keys) = (self.table.clone(), removals(keys, table_key)?);
        Pending::start(async move { table.remove_all(keys).await })
    }

    /// With their values, or without.
    fn entries(
        &self,
        primary: Option<&Bound<'_, PyAny>>,
        first: Option<&Bound<'_, PyAny>>,
        last: Option<&Bound<'_, PyAny>>,
        values: bool,
    ) -> PyResult<NativeEntries> {
        let bound = |bound: Option<&Bound<'_, PyAny>>| bound.map_or(Ok(Bytes::new()), payload);
        let (first, last) = (bound(first)?, bound(last)?);
        let range = match primary.map(payload).transpose()? {
            Some(primary) => KeyValueRange::secondary_between(primary, first, last),
            None => KeyValueRange::primary_between(first, last),
        };
        let _entered = crate::runtime::entered()?;
        let entries = match values {
            true => Entries::Partitioned(self.table.entries(&range).map_err(raise)?),
            false => Entries::Keys(self.table.keys(&range).map_err(raise)?),
        };
        Ok(NativeEntries::of(entries))
    }

    fn count(&self) -> PyResult<Pending> {
        let table = self.table.clone();
        Pending::start(async move { table.count().await })
    }
}

/// A table of one segment, with keys of any length.
#[pyclass(frozen, module = "headwater._native", name = "Table")]
pub(crate) struct NativeTable {
    table: Table,
}

#[pymethods]
impl NativeTable {
    #[getter]
    fn name(&self) -> String {
        self.table.name().to_string()
    }

    fn get_all(&self, keys: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let (table, keys) = (self.table.clone(), crate::values::payloads(keys)?);
        Pending::start(async move { table.get_all(&keys).await.map(found) })
    }

    fn update(&self, puts: &Bound<'_, PyAny>, position: Option<u64>) -> PyResult<Pending> {
        let (table, puts) = (self.table.clone(), self::puts(puts, payload)?);
        Pending::start(async move {
            match position {
                Some(position) => table.update_at(puts, position).await.map(versions),
                None => table.update(puts).await.map(versions),
            }
        })
    }

    fn remove_all(&self, keys: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let (table, keys) = (self.table.clone(), removals(keys, payload)?);
        Pending::start(async move { table.remove_all(keys).await })
    }

    fn entries(&self) -> PyResult<NativeEntries> {
        let _entered = crate::runtime::entered()?;
        Ok(NativeEntries::of(Entries::Plain(Box::new(self.table.entries()))))
    }

    /// Entries changed, position to go on from, whether that is the end, whether to start over.
    fn changes(&self, from: u64, limit: u32) -> PyResult<Pending> {
        let table = self.table.clone();
        Pending::start(async move {
            let changes = table.changes(from, limit).await?;
            let entries = changes.entries.into_iter().map(|it| (it.key, it.value, PyVersion(it.version)));
            Ok::<_, Error>((entries.collect::<Vec<_>>(), changes.next, changes.is_end, changes.start_over))
        })
    }

    /// Number of keys, and the position behind the last change.
    fn info(&self) -> PyResult<Pending> {
        let table = self.table.clone();
        Pending::start(async move { table.info().await.map(|info| (info.entries, info.end)) })
    }
}
