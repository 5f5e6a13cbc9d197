//! Changes by agreement: revisioned streams, and states that Python classes keep.
//!
//! A state's codec is Python code and may raise. What it raises first is kept, ends the operation, and is raised again
//! from there: the client itself sees bytes that cannot be read.

use std::sync::{Arc, Mutex as StdMutex};

use bytes::Bytes;
use headwater::client::{
    Client, Error, ErrorKind, Result, Revision, RevisionReader, RevisionedStream, ScopedStream, SharedState,
    StateSynchronizer,
};
use pyo3::exceptions::{PyStopAsyncIteration, PyStopIteration};
use pyo3::prelude::*;
use pyo3::types::PyList;
use tokio::sync::Mutex;

use crate::client::NativeClient;
use crate::errors::Failure;
use crate::pending::Pending;
use crate::reading::{Cursor, Source, readable};
use crate::runtime::{runtime, wait};
use crate::values::{PyRevision, payload, stream};

/// A stream of entries that several clients write by agreement.
#[pyclass(frozen, module = "headwater._native", name = "RevisionedStream")]
pub(crate) struct NativeRevisionedStream {
    stream: RevisionedStream,
}

#[pyfunction]
pub(crate) fn _revisioned_stream(client: &NativeClient, stream: &str) -> PyResult<Pending> {
    let (client, stream) = (client.client.clone(), self::stream(stream)?);
    Pending::start(
        async move { client.revisioned_stream(&stream).await.map(|stream| NativeRevisionedStream { stream }) },
    )
}

#[pymethods]
impl NativeRevisionedStream {
    #[getter]
    fn stream(&self) -> String {
        self.stream.stream().to_string()
    }

    fn latest(&self) -> PyResult<Pending> {
        let stream = self.stream.clone();
        Pending::start(async move { stream.latest().await.map(PyRevision) })
    }

    fn oldest(&self) -> PyResult<Pending> {
        let stream = self.stream.clone();
        Pending::start(async move { stream.oldest().await.map(PyRevision) })
    }

    fn read(&self, from: &PyRevision) -> PyResult<Pending> {
        let (stream, from) = (self.stream.clone(), from.0);
        Pending::start(async move {
            let reader = stream.read(from).await?;
            Ok::<_, Error>(NativeRevisionReader { cursor: Cursor::of(reader) })
        })
    }

    fn write(&self, entry: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let (stream, entry) = (self.stream.clone(), payload(entry)?);
        Pending::start(async move { stream.write(&entry).await })
    }

    fn write_at(&self, expected: &PyRevision, entry: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let (stream, expected, entry) = (self.stream.clone(), expected.0, payload(entry)?);
        Pending::start(async move { Ok::<_, Error>(stream.write_at(expected, &entry).await?.map(PyRevision)) })
    }

    fn mark(&self) -> PyResult<Pending> {
        let stream = self.stream.clone();
        Pending::start(async move { Ok::<_, Error>(stream.mark().await?.map(PyRevision)) })
    }

    fn replace_mark(
        &self,
        expected: Option<PyRef<'_, PyRevision>>,
        new: Option<PyRef<'_, PyRevision>>,
    ) -> PyResult<Pending> {
        let (stream, expected, new) = (self.stream.clone(), expected.map(|it| it.0), new.map(|it| it.0));
        Pending::start(async move { stream.replace_mark(expected, new).await })
    }

    fn truncate(&self, to: &PyRevision) -> PyResult<Pending> {
        let (stream, to) = (self.stream.clone(), to.0);
        Pending::start(async move { stream.truncate(to).await })
    }
}

impl Source for RevisionReader {
    type Item = (Revision, Bytes);

    async fn next(&mut self) -> Result<Option<(Revision, Bytes)>> {
        RevisionReader::next(self).await
    }
}

/// Goes through the entries that are there.
#[pyclass(frozen, module = "headwater._native", name = "RevisionReader")]
pub(crate) struct NativeRevisionReader {
    cursor: Cursor<RevisionReader>,
}

impl NativeRevisionReader {
    fn object(&self, py: Python<'_>, (revision, entry): (Revision, Bytes)) -> PyResult<Py<PyAny>> {
        use pyo3::IntoPyObjectExt as _;
        (PyRevision(revision), entry).into_py_any(py)
    }

    fn objects<'py>(&self, py: Python<'py>, items: Vec<(Revision, Bytes)>) -> PyResult<Bound<'py, PyList>> {
        let objects = items.into_iter().map(|item| self.object(py, item));
        PyList::new(py, objects.collect::<PyResult<Vec<_>>>()?)
    }
}

readable!(NativeRevisionReader {});

tokio::task_local! {
    /// The codec of the state that this task works on: the client's trait has no place for one where it decodes.
    static CODEC: Codec;
}

/// Python's half of a state, and what it raised.
#[derive(Clone)]
struct Codec {
    object: Arc<Py<PyAny>>,
    raised: Arc<StdMutex<Option<PyErr>>>,
}

impl Codec {
    fn keep(&self, error: PyErr) {
        let mut raised = self.raised.lock().expect("nobody panics while it keeps an error");
        raised.get_or_insert(error);
    }

    fn take(&self) -> Option<PyErr> {
        self.raised.lock().expect("nobody panics while it keeps an error").take()
    }

    /// Calls a method of the codec with one or two arguments.
    fn call<'py>(
        py: Python<'py>,
        method: &str,
        arguments: impl pyo3::call::PyCallArgs<'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        CODEC.with(|codec| codec.object.bind(py).clone()).call_method1(method, arguments)
    }

    fn kept<T>(outcome: PyResult<T>) -> Result<T> {
        outcome.map_err(|error| {
            CODEC.with(|codec| codec.keep(error));
            Error::new(ErrorKind::Protocol, "the state's codec raised")
        })
    }

    /// What could not be encoded becomes more bytes than an entry may have: the client refuses them before it sends anything.
    fn encoded(value: &Py<PyAny>, method: &str) -> Bytes {
        let encoded = Python::attach(|py| payload(&Self::call(py, method, (value.bind(py),))?));
        Self::kept(encoded).unwrap_or_else(|_| vec![0; ENTRY_BYTES_MAX + 1].into())
    }
}

/// Source: the largest event of all clients, which an entry of a revisioned stream is.
const ENTRY_BYTES_MAX: usize = 8 << 20;

/// A state that Python holds.
struct PyState(Py<PyAny>);

impl SharedState for PyState {
    type Update = Py<PyAny>;

    fn encode(&self) -> Bytes {
        Codec::encoded(&self.0, "encode")
    }

    fn decode(bytes: &Bytes) -> Result<Self> {
        Codec::kept(Python::attach(|py| Ok(Self(Codec::call(py, "decode", (bytes.clone(),))?.unbind()))))
    }

    fn encode_update(update: &Py<PyAny>) -> Bytes {
        Codec::encoded(update, "encode_update")
    }

    fn decode_update(bytes: &Bytes) -> Result<Py<PyAny>> {
        Codec::kept(Python::attach(|py| Ok(Codec::call(py, "decode_update", (bytes.clone(),))?.unbind())))
    }

    fn apply(&mut self, update: Py<PyAny>) {
        let applied = Python::attach(|py| Ok(Codec::call(py, "apply", (self.0.bind(py), update))?.unbind()));
        if let Ok(state) = Codec::kept(applied) {
            self.0 = state;
        }
    }
}

/// A shared state with a copy here.
#[pyclass(frozen, module = "headwater._native", name = "StateSynchronizer")]
pub(crate) struct NativeStateSynchronizer {
    client: Client,
    stream: ScopedStream,
    codec: Arc<Py<PyAny>>,
    copy: Arc<Mutex<StateSynchronizer<PyState>>>,
}

#[pyfunction]
pub(crate) fn _state_synchronizer(client: &NativeClient, stream: &str, codec: Py<PyAny>) -> PyResult<Pending> {
    let (client, stream) = (client.client.clone(), self::stream(stream)?);
    Pending::start(async move {
        let copy = Arc::new(Mutex::new(client.state_synchronizer(&stream).await?));
        Ok::<_, Error>(NativeStateSynchronizer { client, stream, codec: Arc::new(codec), copy })
    })
}

fn object(state: Option<&PyState>) -> Option<Py<PyAny>> {
    state.map(|state| Python::attach(|py| state.0.clone_ref(py)))
}

impl NativeStateSynchronizer {
    /// Works on the copy, on a thread that may wait for the interpreter.
    fn work<T, W>(&self, work: W) -> PyResult<Pending>
    where
        T: for<'py> IntoPyObject<'py> + Send + 'static,
        W: AsyncFnOnce(&mut StateSynchronizer<PyState>, &Codec) -> Result<T> + Send + 'static,
    {
        let codec = Codec { object: self.codec.clone(), raised: Arc::default() };
        let (client, stream, copy) = (self.client.clone(), self.stream.clone(), self.copy.clone());
        let handle = runtime()?.handle().clone();
        Pending::start(async move {
            let at_work = tokio::task::spawn_blocking(move || {
                handle.block_on(CODEC.scope(codec.clone(), async move {
                    let mut copy = copy.lock().await;
                    let outcome = work(&mut copy, &codec).await;
                    let Some(raised) = codec.take() else { return outcome.map_err(Failure::from) };
                    // What was applied when it raised, nobody knows: the next call fetches everything anew.
                    *copy = client.state_synchronizer(&stream).await?;
                    Err(Failure::Raised(raised))
                }))
            });
            at_work.await.unwrap_or(Err(Failure::Panicked))
        })
    }
}

#[pymethods]
impl NativeStateSynchronizer {
    #[getter]
    fn stream(&self) -> String {
        self.stream.to_string()
    }

    /// The state as it was when it was fetched or changed here last.
    fn state(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let copy = match self.copy.try_lock() {
            Ok(copy) => copy,
            Err(_) => wait(py, std::pin::pin!(self.copy.lock()))?,
        };
        Ok(copy.state().map(|state| state.0.clone_ref(py)))
    }

    fn initialize(&self, state: Py<PyAny>) -> PyResult<Pending> {
        self.work(async move |copy, _| copy.initialize(PyState(state)).await)
    }

    fn fetch(&self) -> PyResult<Pending> {
        self.work(async |copy, _| copy.fetch().await.map(object))
    }

    /// `decide` is called with the state and returns the changes to make.
    fn update(&self, decide: Py<PyAny>) -> PyResult<Pending> {
        self.work(async move |copy, codec| {
            let decided = |state: &PyState| {
                let updates = Python::attach(|py| {
                    let updates = decide.bind(py).call1((state.0.bind(py),))?;
                    updates.try_iter()?.map(|update| Ok(update?.unbind())).collect::<PyResult<Vec<_>>>()
                });
                // Nothing to do ends it; then what was raised is told.
                updates.unwrap_or_else(|error| {
                    codec.keep(error);
                    Vec::new()
                })
            };
            copy.update(decided).await.map(|state| object(Some(state)))
        })
    }

    fn update_anyway(&self, updates: Vec<Py<PyAny>>) -> PyResult<Pending> {
        self.work(async move |copy, _| copy.update_anyway(&updates).await)
    }

    fn compact(&self) -> PyResult<Pending> {
        self.work(async |copy, _| copy.compact().await)
    }
}
