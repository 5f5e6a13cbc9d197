//! Reading: what is here is handed out on Python's own thread, one by one; what is not is waited for by a task.
//!
//! Invariants:
//! * nothing is lost when a wait is given up: what the task took stays with the reader and is handed out next
//! * at most one event is taken and not handed out; readers' positions never include it

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::task::Poll;

use bytes::Bytes;
use headwater::client::{
    Entry, EntryIterator, KeyIterator, ReadEvent, Result, ScopedStream, SegmentId, SliceReader, StreamCut,
    StreamReader, TableEntries, TableKey,
};
use pyo3::exceptions::{PyStopAsyncIteration, PyStopIteration};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use tokio::sync::{Mutex, MutexGuard, Notify, OwnedMutexGuard};

use crate::errors::raise;
use crate::pending::{Pending, Slot};
use crate::runtime::{now, wait};
use crate::values::{PyEventPointer, PyStreamCut, PyVersion};

/// Something that is read one by one, and loses nothing when a wait for the next one is dropped.
pub(crate) trait Source: Send + 'static {
    type Item: Send + 'static;

    /// The next one; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Self::Item>>> + Send;

    /// The next one is not here: what comes may find nobody there any more.
    fn about_to_wait(&mut self) {}
}

/// A source and what was taken from it while nobody was there any more.
pub(crate) struct Cursor<S: Source> {
    inner: Arc<Mutex<Taken<S>>>,
    /// Who stands in line for the source while it is waited for what comes.
    wanted: Arc<Wanted>,
    /// The wait that was begun last.
    waiting: StdMutex<Option<Arc<Slot>>>,
}

/// How many want the source for themselves, for a moment; whoever waits with it is told when they are more.
#[derive(Default)]
struct Wanted {
    count: AtomicUsize,
    more: Notify,
}

/// Somebody who wants it.
struct Wants<'a>(&'a Wanted);

impl<'a> Wants<'a> {
    fn of(wanted: &'a Wanted) -> Self {
        wanted.count.fetch_add(1, Ordering::SeqCst);
        wanted.more.notify_one();
        Self(wanted)
    }
}

impl Drop for Wants<'_> {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(crate) struct Taken<S: Source> {
    pub(crate) source: S,
    pub(crate) ready: Option<Result<Option<S::Item>>>,
}

impl<S: Source> Cursor<S> {
    pub(crate) fn of(source: S) -> Self {
        let inner = Arc::new(Mutex::new(Taken { source, ready: None }));
        Self { inner, wanted: Arc::default(), waiting: StdMutex::new(None) }
    }

    /// The next one if it is here; `None` if it has to be waited for.
    pub(crate) fn take(&self) -> PyResult<Option<Option<S::Item>>> {
        let Ok(mut taken) = self.inner.try_lock() else { return Ok(None) };
        let next = match taken.ready.take() {
            Some(ready) => Some(ready),
            None => now(std::pin::pin!(taken.source.next()))?,
        };
        next.transpose().map_err(raise)
    }

    /// Waits until there is something to take.
    pub(crate) fn fill(&self) -> PyResult<Pending> {
        let (inner, wanted) = (self.inner.clone(), self.wanted.clone());
        let pending = Pending::start(async move {
            loop {
                let mut taken = inner.lock().await;
                if taken.ready.is_some() {
                    return Ok::<_, headwater::client::Error>(());
                }
                // Whoever wants it stands in its line, and is before us the next time.
                if wanted.count.load(Ordering::SeqCst) > 0 {
                    drop(taken);
                    tokio::task::yield_now().await;
                    continue;
                }
                taken.source.about_to_wait();
                tokio::select! {
                    biased;
                    next = taken.source.next() => taken.ready = Some(next),
                    () = wanted.more.notified() => {}
                }
            }
        })?;
        *self.waiting.lock().expect("nobody panics while it holds a handle") = Some(pending.slot());
        Ok(pending)
    }

    /// Ends the wait that is under way: whoever waits there is told so, and whoever comes next finds the source free.
    pub(crate) fn give_up(&self) {
        if let Some(slot) = self.waiting.lock().expect("nobody panics while it holds a handle").take() {
            slot.give_up();
        }
    }

    /// The next one, waiting for at most so long.
    pub(crate) fn next(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<S::Item>> {
        loop {
            if let Some(next) = self.take()? {
                return Ok(next);
            }
            self.fill_within(py, timeout)?;
        }
    }

    /// Waits for at most so long until there is something to take.
    pub(crate) fn fill_within(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let pending = self.fill()?;
        // Whoever was interrupted or has waited long enough takes nothing in his absence.
        pending.wait(py, timeout).inspect_err(|_| pending.slot().give_up()).map(drop)
    }

    /// Up to `limit` that are here; waits for the first one. None at the end only.
    pub(crate) fn many(&self, py: Python<'_>, limit: usize, timeout: Option<f64>) -> PyResult<Vec<S::Item>> {
        let mut found = Vec::new();
        if let Some(first) = self.next(py, timeout)? {
            found.push(first);
            self.more(&mut found, limit)?;
        }
        Ok(found)
    }

    /// More of what is here. What goes wrong meanwhile is told next time: it comes behind what was found.
    fn more(&self, found: &mut Vec<S::Item>, limit: usize) -> PyResult<()> {
        let Ok(mut taken) = self.inner.try_lock() else { return Ok(()) };
        while found.len() < limit && taken.ready.is_none() {
            let next = now(std::pin::pin!(taken.source.next()))?;
            match next {
                Some(Ok(Some(item))) => found.push(item),
                Some(end) => taken.ready = Some(end),
                None => break,
            }
        }
        Ok(())
    }

    /// Up to `limit` that are here; `None` if even the first has to be waited for.
    pub(crate) fn many_now(&self, limit: usize) -> PyResult<Option<Vec<S::Item>>> {
        let mut found = Vec::new();
        match self.take()? {
            None => return Ok(None),
            Some(None) => {}
            Some(Some(first)) => {
                found.push(first);
                self.more(&mut found, limit)?;
            }
        }
        Ok(Some(found))
    }

    /// Does something with the source. `None` if somebody else has it.
    pub(crate) fn free<R>(&self, work: impl FnOnce(&mut Taken<S>) -> PyResult<R>) -> PyResult<Option<R>> {
        self.inner.try_lock().ok().map(|mut taken| work(&mut taken)).transpose()
    }

    /// The source: a wait for what comes is interrupted for it, and loses nothing.
    pub(crate) fn locked(&self, py: Python<'_>) -> PyResult<MutexGuard<'_, Taken<S>>> {
        let mut locking = std::pin::pin!(self.inner.lock());
        // First into the line, then the wait is asked to let go.
        match now(locking.as_mut())? {
            Some(taken) => Ok(taken),
            None => {
                let _wants = Wants::of(&self.wanted);
                wait(py, locking)
            }
        }
    }

    /// The same for a task.
    pub(crate) fn lent(&self) -> impl Future<Output = OwnedMutexGuard<Taken<S>>> + Send + use<S> {
        let (inner, wanted) = (self.inner.clone(), self.wanted.clone());
        async move {
            let mut locking = std::pin::pin!(inner.lock_owned());
            match futures::poll!(locking.as_mut()) {
                Poll::Ready(taken) => taken,
                Poll::Pending => {
                    let _wants = Wants::of(&wanted);
                    locking.await
                }
            }
        }
    }

    pub(crate) fn shared(&self) -> Arc<Mutex<Taken<S>>> {
        self.inner.clone()
    }
}

/// The methods by which `headwater/_facade.py` reads. The end is an empty list, `StopIteration` or `StopAsyncIteration`.
macro_rules! readable {
    ($class:ident { $($more:tt)* }) => {
        #[pymethods]
        impl $class {
            fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
                this
            }

            fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
                self.cursor.next(py, None)?.map(|item| self.object(py, item)).transpose()
            }

            /// Waits for so many seconds; `StopIteration` at the end.
            fn next(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
                match self.cursor.next(py, timeout)? {
                    Some(item) => self.object(py, item),
                    None => Err(PyStopIteration::new_err(())),
                }
            }

            /// What is here, or `None`; `StopAsyncIteration` at the end.
            fn take(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
                match self.cursor.take()? {
                    Some(Some(item)) => self.object(py, item).map(Some),
                    Some(None) => Err(PyStopAsyncIteration::new_err(())),
                    None => Ok(None),
                }
            }

            /// Ends when there is something to take.
            fn fill(&self) -> PyResult<Pending> {
                self.cursor.fill()
            }

            fn many<'py>(&self, py: Python<'py>, limit: usize, timeout: Option<f64>) -> PyResult<Bound<'py, PyList>> {
                let found = self.cursor.many(py, limit, timeout)?;
                self.objects(py, found)
            }

            fn many_now<'py>(&self, py: Python<'py>, limit: usize) -> PyResult<Option<Bound<'py, PyList>>> {
                self.cursor.many_now(limit)?.map(|found| self.objects(py, found)).transpose()
            }

            $($more)*
        }
    };
}

pub(crate) use readable;

/// An event and where it is.
#[pyclass(frozen, module = "headwater", name = "Event")]
pub(crate) struct PyEvent {
    event: Bytes,
    segment: SegmentId,
    offset: u64,
    stream: Arc<ScopedStream>,
}

impl PyEvent {
    pub(crate) fn of(event: Bytes, stream: Arc<ScopedStream>, segment: SegmentId, offset: u64) -> Self {
        Self { event, segment, offset, stream }
    }
}

#[pymethods]
impl PyEvent {
    /// What was written.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.event)
    }

    /// Stream it is in, as SCOPE/STREAM.
    #[getter]
    fn stream(&self) -> String {
        self.stream.to_string()
    }

    /// Segment it is in.
    #[getter]
    fn segment(&self) -> i64 {
        self.segment.as_i64()
    }

    /// Offset of its header there, in bytes.
    #[getter]
    fn offset(&self) -> u64 {
        self.offset
    }

    /// By which it can be fetched again.
    #[getter]
    fn pointer(&self) -> PyResult<PyEventPointer> {
        let event = ReadEvent { event: self.event.clone(), segment: self.segment, offset: self.offset };
        event.pointer(&self.stream).map(PyEventPointer).map_err(raise)
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.data(py)
    }

    fn __len__(&self) -> usize {
        self.event.len()
    }

    fn __repr__(&self) -> String {
        format!(
            "<Event of {} bytes at {} of segment {} of {}>",
            self.event.len(),
            self.offset,
            self.segment,
            self.stream
        )
    }
}

/// The whole of a stream, perhaps up to a cut.
pub(crate) struct Whole {
    reader: StreamReader,
    until: Option<StreamCut>,
}

impl Source for Whole {
    type Item = ReadEvent;

    async fn next(&mut self) -> Result<Option<ReadEvent>> {
        match &self.until {
            Some(cut) => self.reader.next_before(cut).await,
            None => self.reader.next().await,
        }
    }
}

/// Reads a whole stream alone.
#[pyclass(frozen, module = "headwater._native", name = "StreamReader")]
pub(crate) struct NativeStreamReader {
    cursor: Cursor<Whole>,
    stream: Arc<ScopedStream>,
    /// Of what is handed out: the bytes instead of events.
    is_plain: std::sync::atomic::AtomicBool,
}

impl NativeStreamReader {
    pub(crate) fn of(reader: StreamReader, until: Option<StreamCut>) -> Self {
        let stream = Arc::new(reader.stream().clone());
        Self { cursor: Cursor::of(Whole { reader, until }), stream, is_plain: false.into() }
    }

    fn object(&self, py: Python<'_>, item: ReadEvent) -> PyResult<Py<PyAny>> {
        if self.is_plain.load(std::sync::atomic::Ordering::Relaxed) {
            return Ok(PyBytes::new(py, &item.event).into_any().unbind());
        }
        Ok(Py::new(py, PyEvent::of(item.event, self.stream.clone(), item.segment, item.offset))?.into_any())
    }

    fn objects<'py>(&self, py: Python<'py>, items: Vec<ReadEvent>) -> PyResult<Bound<'py, PyList>> {
        let objects = items.into_iter().map(|item| self.object(py, item));
        PyList::new(py, objects.collect::<PyResult<Vec<_>>>()?)
    }
}

readable!(NativeStreamReader {
    #[getter]
    fn stream(&self) -> String {
        self.stream.to_string()
    }

    /// From now on the bytes of events are handed out, without where they are.
    fn plain(&self) {
        self.is_plain.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// The position behind the last event that was handed out.
    fn cut(&self, py: Python<'_>) -> PyResult<PyStreamCut> {
        let taken = self.cursor.locked(py)?;
        let mut cut = taken.source.reader.cut().map_err(raise)?;
        // Events of a segment are taken in order: an event that is not handed out yet is the last that was taken there.
        if let Some(Ok(Some(event))) = &taken.ready {
            cut.offsets.insert(event.segment, event.offset.cast_signed());
        }
        Ok(PyStreamCut(cut))
    }
});

impl Source for SliceReader {
    type Item = (u64, Bytes);

    async fn next(&mut self) -> Result<Option<(u64, Bytes)>> {
        SliceReader::next(self).await
    }
}

/// Reads the events of a slice in order.
#[pyclass(frozen, module = "headwater._native", name = "SliceReader")]
pub(crate) struct NativeSliceReader {
    cursor: Cursor<SliceReader>,
    stream: Arc<ScopedStream>,
    segment: SegmentId,
}

impl NativeSliceReader {
    pub(crate) fn of(reader: SliceReader, stream: ScopedStream, segment: SegmentId) -> Self {
        Self { cursor: Cursor::of(reader), stream: Arc::new(stream), segment }
    }

    fn object(&self, py: Python<'_>, (offset, event): (u64, Bytes)) -> PyResult<Py<PyAny>> {
        Ok(Py::new(py, PyEvent::of(event, self.stream.clone(), self.segment, offset))?.into_any())
    }

    fn objects<'py>(&self, py: Python<'py>, items: Vec<(u64, Bytes)>) -> PyResult<Bound<'py, PyList>> {
        let objects = items.into_iter().map(|item| self.object(py, item));
        PyList::new(py, objects.collect::<PyResult<Vec<_>>>()?)
    }
}

readable!(NativeSliceReader {});

/// Entries of a table of either kind, or entries that lack their values.
pub(crate) enum Entries {
    Plain(Box<TableEntries>),
    Partitioned(EntryIterator),
    Keys(KeyIterator),
}

impl Source for Entries {
    type Item = Entry<TableKey>;

    async fn next(&mut self) -> Result<Option<Entry<TableKey>>> {
        match self {
            Self::Plain(entries) => {
                let entry = entries.next().await?;
                Ok(entry.map(|it| Entry { key: TableKey::from(it.key), value: it.value, version: it.version }))
            }
            Self::Partitioned(entries) => entries.next().await,
            Self::Keys(keys) => {
                let entry = keys.next().await?;
                Ok(entry.map(|(key, version)| Entry { key, value: Bytes::new(), version }))
            }
        }
    }
}

/// Goes through the entries of a table.
#[pyclass(frozen, module = "headwater._native", name = "Entries")]
pub(crate) struct NativeEntries {
    cursor: Cursor<Entries>,
}

impl NativeEntries {
    pub(crate) fn of(entries: Entries) -> Self {
        Self { cursor: Cursor::of(entries) }
    }

    /// Key, secondary key, value and version.
    fn object(&self, py: Python<'_>, entry: Entry<TableKey>) -> PyResult<Py<PyAny>> {
        use pyo3::IntoPyObjectExt as _;
        (entry.key.primary, entry.key.secondary, entry.value, PyVersion(entry.version)).into_py_any(py)
    }

    fn objects<'py>(&self, py: Python<'py>, items: Vec<Entry<TableKey>>) -> PyResult<Bound<'py, PyList>> {
        let objects = items.into_iter().map(|item| self.object(py, item));
        PyList::new(py, objects.collect::<PyResult<Vec<_>>>()?)
    }
}

readable!(NativeEntries {});
