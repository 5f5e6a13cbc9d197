//! Readers of groups whose events are acknowledged one by one.

use bytes::Bytes;
use headwater::client::{
    Acknowledger, AcknowledgingOptions, AcknowledgingReader, Error, ErrorKind, GroupEvent, ReaderGroup, Received,
    Result,
};
use pyo3::exceptions::{PyStopAsyncIteration, PyStopIteration};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::errors::raise;
use crate::pending::Pending;
use crate::reading::{Cursor, Source, readable};
use crate::values::{PyEventPointer, PyPosition, duration};

/// How such a reader reads, on its way from `headwater/_facade.py`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Options {
    unacknowledged_max: usize,
    unacknowledged_bytes_max: usize,
    redeliver_after: f64,
    delay: f64,
    piece_bytes: usize,
    dead_after: Option<f64>,
}

impl Options {
    fn read(self) -> PyResult<AcknowledgingOptions> {
        Ok(AcknowledgingOptions {
            unacknowledged_max: self.unacknowledged_max,
            unacknowledged_bytes_max: self.unacknowledged_bytes_max,
            redeliver_after: duration(self.redeliver_after)?,
            delay: duration(self.delay)?,
            piece_bytes: self.piece_bytes,
            dead_after: self.dead_after.map(duration).transpose()?,
        })
    }
}

/// Adds a reader to a group.
pub(crate) fn join(group: &ReaderGroup, id: String, options: Options) -> PyResult<Pending> {
    let (group, options) = (group.clone(), options.read()?);
    Pending::start(async move {
        let reader = group.acknowledging_reader(&id, options).await?;
        let by = reader.acknowledger();
        Ok::<_, Error>(NativeAcknowledgingReader { id, by, cursor: Cursor::of(Open { reader: Some(reader) }) })
    })
}

/// A reader until it is closed.
pub(crate) struct Open {
    reader: Option<AcknowledgingReader>,
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the reader was closed")
}

impl Source for Open {
    type Item = Received;

    async fn next(&mut self) -> Result<Option<Received>> {
        let reader = self.reader.as_mut().ok_or_else(closed)?;
        // With as many out as there may be it waits, and not for ever: the first of them comes again when its time is over.
        reader.room().await?;
        reader.next().await
    }
}

/// A reader of a group. What it has taken and not handed out is not acknowledged, and so read by others when it leaves.
#[pyclass(frozen, module = "headwater._native", name = "AcknowledgingReader")]
pub(crate) struct NativeAcknowledgingReader {
    id: String,
    by: Acknowledger,
    cursor: Cursor<Open>,
}

impl NativeAcknowledgingReader {
    fn object(&self, py: Python<'_>, received: Received) -> PyResult<Py<PyAny>> {
        let Received { event, attempt } = received;
        Ok(Py::new(py, PyReceived { event, attempt, by: self.by.clone() })?.into_any())
    }

    fn objects<'py>(&self, py: Python<'py>, items: Vec<Received>) -> PyResult<Bound<'py, PyList>> {
        let objects = items.into_iter().map(|item| self.object(py, item));
        PyList::new(py, objects.collect::<PyResult<Vec<_>>>()?)
    }
}

readable!(NativeAcknowledgingReader {
    #[getter]
    fn id(&self) -> &str {
        &self.id
    }

    #[getter]
    fn unacknowledged(&self) -> usize {
        self.by.unacknowledged()
    }

    /// Before the first event of each segment that is not acknowledged.
    fn position(&self, py: Python<'_>) -> PyResult<PyPosition> {
        let mut taken = self.cursor.locked(py)?;
        let reader = taken.source.reader.as_mut().ok_or_else(|| raise(closed()))?;
        Ok(PyPosition(reader.position()))
    }

    /// Leaves the group. Closing twice does no harm.
    fn close(&self) -> PyResult<Pending> {
        self.cursor.give_up();
        let shared = self.cursor.shared();
        Pending::start(async move {
            let mut taken = shared.lock().await;
            taken.ready = None;
            match taken.source.reader.take() {
                Some(reader) => reader.close().await,
                None => Ok(()),
            }
        })
    }
});

/// An event that is to be acknowledged.
#[pyclass(frozen, module = "headwater", name = "Received")]
pub(crate) struct PyReceived {
    event: GroupEvent,
    attempt: u32,
    by: Acknowledger,
}

#[pymethods]
impl PyReceived {
    /// What was written.
    #[getter]
    fn data(&self) -> Bytes {
        self.event.event.clone()
    }

    /// Stream it is in, as SCOPE/STREAM.
    #[getter]
    fn stream(&self) -> String {
        self.event.segment.stream.to_string()
    }

    /// Segment it is in.
    #[getter]
    fn segment(&self) -> i64 {
        self.event.segment.id.as_i64()
    }

    /// Offset of its header there, in bytes.
    #[getter]
    fn offset(&self) -> u64 {
        self.event.offset
    }

    /// By which it can be fetched again.
    #[getter]
    fn pointer(&self) -> PyResult<PyEventPointer> {
        self.event.pointer().map(PyEventPointer).map_err(raise)
    }

    /// How often the reader has handed it out, this time included. 1 does not say that no other reader has had it.
    #[getter]
    fn attempt(&self) -> u32 {
        self.attempt
    }

    /// It is handled. False if nobody waits for that: it was acknowledged before, or others have its segment by now.
    fn acknowledge(&self) -> bool {
        self.by.acknowledge(&self.event)
    }

    /// It is not handled: it comes again at once. False as with `acknowledge`.
    fn give_back(&self) -> bool {
        self.by.give_back(&self.event)
    }

    fn __enter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    /// Acknowledges it, or gives it back after an exception, which passes through.
    #[pyo3(signature = (kind, *_rest))]
    fn __exit__(&self, kind: &Bound<'_, PyAny>, _rest: &Bound<'_, PyTuple>) {
        if kind.is_none() {
            self.acknowledge()
        } else {
            self.give_back()
        };
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.event.event)
    }

    fn __len__(&self) -> usize {
        self.event.event.len()
    }

    fn __repr__(&self) -> String {
        format!(
            "<Received {} bytes at {} of segment {} of {}, attempt {}>",
            self.event.event.len(),
            self.event.offset,
            self.segment(),
            self.stream(),
            self.attempt
        )
    }
}
