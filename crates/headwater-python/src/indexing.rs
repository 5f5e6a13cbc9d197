//! Streams of labelled records.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use headwater::client::{Error, IndexReader, IndexRecord, IndexRecords, IndexWriter, Result};
use pyo3::exceptions::{PyStopAsyncIteration, PyStopIteration};
use pyo3::prelude::*;
use pyo3::types::PyList;
use tokio::sync::Mutex;

use crate::client::NativeClient;
use crate::pending::Pending;
use crate::reading::{Cursor, Source, readable};
use crate::values::{payload, stream, unsigned};

/// Appends records to a stream.
#[pyclass(frozen, module = "headwater._native", name = "IndexWriter")]
pub(crate) struct NativeIndexWriter {
    stream: String,
    writer: Arc<Mutex<IndexWriter>>,
}

#[pyfunction]
pub(crate) fn _index_writer(client: &NativeClient, stream: &str, record_bytes: usize) -> PyResult<Pending> {
    let (client, stream) = (client.client.clone(), self::stream(stream)?);
    Pending::start(async move {
        let writer = Arc::new(Mutex::new(client.index_writer(&stream, record_bytes).await?));
        Ok::<_, Error>(NativeIndexWriter { stream: stream.to_string(), writer })
    })
}

/// Labels and data of a record.
type Parts = (BTreeMap<String, u64>, Bytes);

/// The same as Python gives them.
type Given<'py> = (BTreeMap<String, Bound<'py, PyAny>>, Bound<'py, PyAny>);

fn parts(record: IndexRecord) -> Parts {
    (record.labels, record.data)
}

fn offset(value: &Bound<'_, PyAny>) -> PyResult<u64> {
    unsigned(value, "offset")
}

#[pymethods]
impl NativeIndexWriter {
    #[getter]
    fn stream(&self) -> &str {
        &self.stream
    }

    /// Records as pairs of their labels and their data.
    fn append(&self, records: Vec<Given<'_>>) -> PyResult<Pending> {
        let one = |(labels, data): Given<'_>| {
            let labels = labels.into_iter().map(|(label, value)| Ok((label, unsigned(&value, "value of a label")?)));
            Ok(IndexRecord { labels: labels.collect::<PyResult<_>>()?, data: payload(&data)? })
        };
        let records = records.into_iter().map(one).collect::<PyResult<Vec<_>>>()?;
        let writer = self.writer.clone();
        Pending::start(async move { writer.lock().await.append(&records).await })
    }

    fn truncate(&self, to: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let (writer, to) = (self.writer.clone(), offset(to)?);
        Pending::start(async move { writer.lock().await.truncate(to).await })
    }
}

/// Finds and reads records of a stream.
#[pyclass(frozen, module = "headwater._native", name = "IndexReader")]
pub(crate) struct NativeIndexReader {
    stream: String,
    reader: IndexReader,
}

#[pyfunction]
pub(crate) fn _index_reader(client: &NativeClient, stream: &str) -> PyResult<Pending> {
    let (client, stream) = (client.client.clone(), self::stream(stream)?);
    Pending::start(async move {
        let reader = client.index_reader(&stream).await?;
        Ok::<_, Error>(NativeIndexReader { stream: stream.to_string(), reader })
    })
}

#[pymethods]
impl NativeIndexReader {
    #[getter]
    fn stream(&self) -> &str {
        &self.stream
    }

    #[getter]
    fn record_bytes(&self) -> usize {
        self.reader.record_bytes()
    }

    fn bounds(&self) -> PyResult<Pending> {
        let reader = self.reader.clone();
        Pending::start(async move { reader.bounds().await })
    }

    fn record(&self, offset: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let (reader, offset) = (self.reader.clone(), self::offset(offset)?);
        Pending::start(async move { reader.record(offset).await.map(parts) })
    }

    fn search(&self, label: String, value: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let (reader, value) = (self.reader.clone(), unsigned(value, "value of a label")?);
        Pending::start(async move { reader.search(&label, value).await })
    }

    /// From an offset on, or from the first record that is there.
    fn records(&self, from: Option<&Bound<'_, PyAny>>) -> PyResult<Pending> {
        let (reader, from) = (self.reader.clone(), from.map(offset).transpose()?);
        Pending::start(async move {
            let from = match from {
                Some(from) => from,
                None => reader.bounds().await?.0,
            };
            Ok::<_, Error>(NativeIndexRecords { cursor: Cursor::of(reader.records(from).await?) })
        })
    }
}

impl Source for IndexRecords {
    type Item = (u64, IndexRecord);

    async fn next(&mut self) -> Result<Option<(u64, IndexRecord)>> {
        IndexRecords::next(self).await
    }
}

/// Goes through records.
#[pyclass(frozen, module = "headwater._native", name = "IndexRecords")]
pub(crate) struct NativeIndexRecords {
    cursor: Cursor<IndexRecords>,
}

impl NativeIndexRecords {
    /// Offset, and labels and data.
    fn object(&self, py: Python<'_>, (offset, record): (u64, IndexRecord)) -> PyResult<Py<PyAny>> {
        use pyo3::IntoPyObjectExt as _;
        (offset, parts(record)).into_py_any(py)
    }

    fn objects<'py>(&self, py: Python<'py>, items: Vec<(u64, IndexRecord)>) -> PyResult<Bound<'py, PyList>> {
        let objects = items.into_iter().map(|item| self.object(py, item));
        PyList::new(py, objects.collect::<PyResult<Vec<_>>>()?)
    }
}

readable!(NativeIndexRecords {});
