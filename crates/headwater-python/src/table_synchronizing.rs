//! Values that several processes share in a table, each under two keys.
//!
//! What decides on changes is Python code, and is called on a thread that may wait for the interpreter. What it raises ends
//! the operation: nothing is changed then.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use headwater::client::{Error, Result, SharedMaps, SharedPut, TableSynchronizer};
use pyo3::prelude::*;
use tokio::sync::Mutex;

use crate::client::NativeClient;
use crate::errors::Failure;
use crate::pending::Pending;
use crate::runtime::{runtime, wait};
use crate::values::{payload, table};

/// Values as they were when they were fetched or changed last: a copy, which stays as it is.
#[pyclass(frozen, module = "headwater", name = "SharedMaps")]
pub(crate) struct PySharedMaps(SharedMaps);

#[pymethods]
impl PySharedMaps {
    /// The value under both keys; None if there is none.
    fn get(&self, outer: &Bound<'_, PyAny>, inner: &Bound<'_, PyAny>) -> PyResult<Option<Bytes>> {
        Ok(self.0.get(&payload(outer)?, &payload(inner)?).cloned())
    }

    /// Inner keys and values under an outer key, by ascending key.
    fn map(&self, outer: &Bound<'_, PyAny>) -> PyResult<BTreeMap<Bytes, Bytes>> {
        let outer = payload(outer)?;
        Ok(self.0.map(&outer).map(|(inner, value)| (inner.clone(), value.clone())).collect())
    }

    /// Outer keys that have values, ascending.
    fn outer_keys(&self) -> Vec<Bytes> {
        self.0.outer_keys().cloned().collect()
    }

    fn __len__(&self) -> usize {
        usize::try_from(self.0.len()).unwrap_or(usize::MAX)
    }

    fn __repr__(&self) -> String {
        format!("<SharedMaps of {} values>", self.0.len())
    }
}

/// A copy of what is shared.
#[pyclass(frozen, module = "headwater._native", name = "TableSynchronizer")]
pub(crate) struct NativeTableSynchronizer {
    name: String,
    copy: Arc<Mutex<TableSynchronizer>>,
}

#[pyfunction]
pub(crate) fn _table_synchronizer(client: &NativeClient, table: &str) -> PyResult<Pending> {
    let (client, table) = (client.client.clone(), self::table(table)?);
    Pending::start(async move {
        let copy = Arc::new(Mutex::new(client.table_synchronizer(&table).await?));
        Ok::<_, Error>(NativeTableSynchronizer { name: table.to_string(), copy })
    })
}

/// What `decide` wants of these values; nothing if it raises, which is kept.
fn decided<T>(
    decide: &Py<PyAny>,
    maps: &SharedMaps,
    raised: &mut Option<PyErr>,
    one: impl Fn(&Bound<'_, PyAny>) -> PyResult<T>,
) -> Vec<T> {
    let maps = PySharedMaps(maps.clone());
    let wanted = Python::attach(|py| {
        let wanted = decide.bind(py).call1((maps,))?;
        wanted.try_iter()?.map(|wanted| one(&wanted?)).collect::<PyResult<Vec<_>>>()
    });
    wanted.unwrap_or_else(|error| {
        *raised = Some(error);
        Vec::new()
    })
}

fn shared_put(put: &Bound<'_, PyAny>) -> PyResult<SharedPut> {
    let (outer, inner, value): (Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>) = put.extract()?;
    Ok(SharedPut { outer: payload(&outer)?, inner: payload(&inner)?, value: payload(&value)? })
}

fn both_keys(keys: &Bound<'_, PyAny>) -> PyResult<(Bytes, Bytes)> {
    let (outer, inner): (Bound<'_, PyAny>, Bound<'_, PyAny>) = keys.extract()?;
    Ok((payload(&outer)?, payload(&inner)?))
}

impl NativeTableSynchronizer {
    /// Works on the copy, on a thread that may wait for the interpreter. Returns the values after it.
    fn work<W>(&self, work: W) -> PyResult<Pending>
    where
        W: AsyncFnOnce(&mut TableSynchronizer, &mut Option<PyErr>) -> Result<()> + Send + 'static,
    {
        let (copy, handle) = (self.copy.clone(), runtime()?.handle().clone());
        Pending::start(async move {
            let at_work = tokio::task::spawn_blocking(move || {
                handle.block_on(async move {
                    let (mut copy, mut raised) = (copy.lock().await, None);
                    let outcome = work(&mut copy, &mut raised).await;
                    match raised {
                        Some(raised) => Err(Failure::Raised(raised)),
                        None => outcome.map(|()| PySharedMaps(copy.maps().clone())).map_err(Failure::from),
                    }
                })
            });
            at_work.await.unwrap_or(Err(Failure::Panicked))
        })
    }
}

#[pymethods]
impl NativeTableSynchronizer {
    #[getter]
    fn table(&self) -> &str {
        &self.name
    }

    /// The values as they were when they were fetched or changed here last.
    fn maps(&self, py: Python<'_>) -> PyResult<PySharedMaps> {
        let copy = match self.copy.try_lock() {
            Ok(copy) => copy,
            Err(_) => wait(py, std::pin::pin!(self.copy.lock()))?,
        };
        Ok(PySharedMaps(copy.maps().clone()))
    }

    fn fetch(&self) -> PyResult<Pending> {
        let copy = self.copy.clone();
        Pending::start(async move { copy.lock().await.fetch().await.map(|maps| PySharedMaps(maps.clone())) })
    }

    /// `decide` is called with the values and returns what to put: outer key, inner key and value of each.
    fn put(&self, decide: Py<PyAny>) -> PyResult<Pending> {
        self.work(async move |copy, raised| copy.put(|maps| decided(&decide, maps, raised, shared_put)).await.map(drop))
    }

    /// `decide` is called with the values and returns what is to go: outer and inner key of each.
    fn remove(&self, decide: Py<PyAny>) -> PyResult<Pending> {
        self.work(async move |copy, raised| {
            copy.remove(|maps| decided(&decide, maps, raised, both_keys)).await.map(drop)
        })
    }
}
