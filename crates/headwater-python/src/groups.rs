//! Reader groups.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex as StdMutex};

use headwater::client::{
    Batch, CheckpointUnderWay, Cut, Delivery, Error, ErrorKind, EventBatch, EventReader, GroupEvent, GroupRetention,
    GroupWatch, Handover, Position, ReaderGroup, ReaderGroupConfig, ReaderOptions, Result, StreamSegment, TimeWindow,
};
use pyo3::exceptions::{PyStopAsyncIteration, PyStopIteration};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::acknowledging::{self, Options as AcknowledgingOptions};
use crate::client::NativeClient;
use crate::errors::{invalid, raise};
use crate::pending::Pending;
use crate::reading::{Cursor, PyEvent, Source, readable};
use crate::runtime::{entered, now};
use crate::values::{PyCheckpoint, PyPosition, PyStreamCut, cut, duration, name, stream};

/// A group's configuration on its way from `headwater/_values.py`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Config<'py> {
    streams: Vec<(String, Option<PyRef<'py, PyStreamCut>>)>,
    ends: Vec<PyRef<'py, PyStreamCut>>,
    automatic_checkpoint: Option<f64>,
    refresh: f64,
    checkpoints_max: u32,
    retention: Option<String>,
}

impl Config<'_> {
    fn read(self) -> PyResult<ReaderGroupConfig> {
        let mut config = ReaderGroupConfig {
            automatic_checkpoint: self.automatic_checkpoint.map(duration).transpose()?,
            refresh: duration(self.refresh)?,
            checkpoints_max: self.checkpoints_max,
            retention: match self.retention.as_deref() {
                None => GroupRetention::None,
                Some("cut") => GroupRetention::AtCut,
                Some("checkpoint") => GroupRetention::AtCheckpoint,
                Some(other) => return Err(invalid(format_args!("{other:?} is no retention of a group"))),
            },
            ..ReaderGroupConfig::default()
        };
        for (stream, from) in self.streams {
            config = config.stream_from(&self::stream(&stream)?, cut(from));
        }
        for end in self.ends {
            config = config.until(end.0.clone());
        }
        Ok(config)
    }
}

/// The same on its way there.
type ConfigParts = (Vec<(String, Option<PyStreamCut>)>, Vec<PyStreamCut>, Option<f64>, f64, u32, Option<&'static str>);

fn parts(config: ReaderGroupConfig) -> ConfigParts {
    let placed = |cut| match cut {
        Cut::Unbounded => None,
        Cut::At(cut) => Some(PyStreamCut(cut)),
    };
    let retention = match config.retention {
        GroupRetention::None => None,
        GroupRetention::AtCut => Some("cut"),
        GroupRetention::AtCheckpoint => Some("checkpoint"),
    };
    (
        config.streams.into_iter().map(|(stream, from)| (stream.to_string(), placed(from))).collect(),
        config.ends.into_values().filter_map(placed).collect(),
        config.automatic_checkpoint.map(|every| every.as_secs_f64()),
        config.refresh.as_secs_f64(),
        config.checkpoints_max,
        retention,
    )
}

#[pyfunction]
pub(crate) fn _create_reader_group(
    client: &NativeClient,
    scope: &str,
    group: &str,
    config: Config<'_>,
) -> PyResult<Pending> {
    let (client, scope, group, config) = (client.client.clone(), name(scope)?, name(group)?, config.read()?);
    Pending::start(async move { client.create_reader_group(&scope, &group, &config).await })
}

#[pyfunction]
pub(crate) fn _delete_reader_group(client: &NativeClient, scope: &str, group: &str) -> PyResult<Pending> {
    let (client, scope, group) = (client.client.clone(), name(scope)?, name(group)?);
    Pending::start(async move { client.delete_reader_group(&scope, &group).await })
}

#[pyfunction]
pub(crate) fn _reader_group(client: &NativeClient, scope: &str, group: &str) -> PyResult<Pending> {
    let (client, scope, group) = (client.client.clone(), name(scope)?, name(group)?);
    Pending::start(async move { client.reader_group(&scope, &group).await.map(|group| NativeReaderGroup { group }) })
}

/// Readers that share the events of streams.
#[pyclass(frozen, module = "headwater._native", name = "ReaderGroup")]
pub(crate) struct NativeReaderGroup {
    group: ReaderGroup,
}

#[pymethods]
impl NativeReaderGroup {
    #[getter]
    fn scope(&self) -> String {
        self.group.scope().to_string()
    }

    #[getter]
    fn name(&self) -> String {
        self.group.name().to_string()
    }

    fn config(&self) -> PyResult<Pending> {
        let group = self.group.clone();
        Pending::start(async move { group.config().await.map(parts) })
    }

    fn reader(
        &self,
        id: String,
        at_once: bool,
        delay: f64,
        piece_bytes: usize,
        dead_after: Option<f64>,
    ) -> PyResult<Pending> {
        let handover = if at_once { Handover::AtOnce } else { Handover::AtCheckpoint };
        let (delay, dead_after) = (duration(delay)?, dead_after.map(duration).transpose()?);
        let (group, options) = (self.group.clone(), ReaderOptions { handover, delay, piece_bytes, dead_after });
        Pending::start(async move { group.reader_with(&id, options).await.map(|it| NativeEventReader::of(it, group)) })
    }

    fn acknowledging_reader(&self, id: String, options: AcknowledgingOptions) -> PyResult<Pending> {
        acknowledging::join(&self.group, id, options)
    }

    fn watch(&self, dead_after: f64) -> PyResult<PyGroupWatch> {
        let dead_after = duration(dead_after)?;
        let _entered = entered()?;
        Ok(PyGroupWatch(StdMutex::new(Some(self.group.watch(dead_after)))))
    }

    fn online_readers(&self) -> PyResult<Pending> {
        let group = self.group.clone();
        Pending::start(async move { group.online_readers().await })
    }

    fn reader_offline(&self, id: String, position: Option<PyRef<'_, PyPosition>>) -> PyResult<Pending> {
        let (group, position) = (self.group.clone(), position.map(|it| it.0.clone()));
        Pending::start(async move { group.reader_offline(&id, position.as_ref()).await })
    }

    fn initiate_checkpoint(&self, name: String) -> PyResult<Pending> {
        let group = self.group.clone();
        Pending::start(async move {
            let under_way = group.initiate_checkpoint(&name).await?;
            Ok::<_, Error>(NativeCheckpointUnderWay { under_way: Arc::new(under_way) })
        })
    }

    fn generate_stream_cuts(&self) -> PyResult<Pending> {
        let group = self.group.clone();
        Pending::start(async move {
            let cuts = group.generate_stream_cuts().await?.into_iter();
            Ok::<_, Error>(cuts.map(|(stream, cut)| (stream.to_string(), PyStreamCut(cut))).collect::<BTreeMap<_, _>>())
        })
    }

    fn cancel_checkpoints(&self) -> PyResult<Pending> {
        let group = self.group.clone();
        Pending::start(async move { group.cancel_checkpoints().await })
    }

    fn unread_bytes(&self) -> PyResult<Pending> {
        let group = self.group.clone();
        Pending::start(async move { group.unread_bytes().await })
    }

    fn reset(&self, config: Config<'_>) -> PyResult<Pending> {
        let (group, config) = (self.group.clone(), config.read()?);
        Pending::start(async move { group.reset(&config).await })
    }

    fn reset_to(&self, checkpoint: &PyCheckpoint) -> PyResult<Pending> {
        let (group, checkpoint) = (self.group.clone(), checkpoint.0.clone());
        Pending::start(async move { group.reset_to(&checkpoint).await })
    }

    fn release_before(&self, cuts: Vec<PyRef<'_, PyStreamCut>>) -> PyResult<Pending> {
        let (group, cuts) = (self.group.clone(), cuts.iter().map(|cut| cut.0.clone()).collect::<Vec<_>>());
        Pending::start(async move { group.release_before(&cuts).await })
    }
}

/// A checkpoint that has begun.
#[pyclass(frozen, module = "headwater._native", name = "CheckpointUnderWay")]
pub(crate) struct NativeCheckpointUnderWay {
    under_way: Arc<CheckpointUnderWay>,
}

#[pymethods]
impl NativeCheckpointUnderWay {
    #[getter]
    fn name(&self) -> &str {
        self.under_way.name()
    }

    fn wait(&self) -> PyResult<Pending> {
        let under_way = self.under_way.clone();
        Pending::start(async move { under_way.wait().await.map(PyCheckpoint) })
    }
}

/// Declares readers of a group offline that beat and have stopped, until it is closed or nobody has it any more.
#[pyclass(frozen, module = "headwater", name = "GroupWatch")]
pub(crate) struct PyGroupWatch(StdMutex<Option<GroupWatch>>);

#[pymethods]
impl PyGroupWatch {
    /// Ends it. Closing twice does no harm.
    fn close(&self) {
        drop(self.0.lock().expect("nobody panics while it holds a watch").take());
    }

    fn __enter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    #[pyo3(signature = (*_raised))]
    fn __exit__(&self, _raised: &Bound<'_, PyTuple>) {
        self.close();
    }
}

/// A reader, and where it was before it took what is not handed out yet.
pub(crate) struct Shared {
    /// Gone once it is closed.
    reader: Option<EventReader>,
    before: Option<Position>,
}

impl Source for Shared {
    type Item = Delivery;

    async fn next(&mut self) -> Result<Option<Delivery>> {
        self.reader.as_mut().ok_or_else(closed)?.next().await
    }

    /// Whoever waits may give up, and then what comes stays with the reader, which has left its place already.
    fn about_to_wait(&mut self) {
        self.before = self.reader.as_ref().map(EventReader::position);
    }
}

/// A reader of a group. Its position and its leaving are those of the last event that was handed out.
#[pyclass(frozen, module = "headwater._native", name = "EventReader")]
pub(crate) struct NativeEventReader {
    id: String,
    group: ReaderGroup,
    cursor: Cursor<Shared>,
}

impl NativeEventReader {
    fn of(reader: EventReader, group: ReaderGroup) -> Self {
        let id = reader.id().to_owned();
        Self { id, group, cursor: Cursor::of(Shared { reader: Some(reader), before: None }) }
    }

    /// An event, or the name of a checkpoint.
    fn object(&self, py: Python<'_>, delivery: Delivery) -> PyResult<Py<PyAny>> {
        use pyo3::IntoPyObjectExt as _;
        match delivery {
            Delivery::Event(event) => Ok(Py::new(py, event_of(event))?.into_any()),
            Delivery::Checkpoint(name) => name.into_py_any(py),
        }
    }

    fn objects<'py>(&self, py: Python<'py>, items: Vec<Delivery>) -> PyResult<Bound<'py, PyList>> {
        let objects = items.into_iter().map(|item| self.object(py, item));
        PyList::new(py, objects.collect::<PyResult<Vec<_>>>()?)
    }
}

/// What a reader is asked for many at once answers.
enum Found {
    Checkpoint(String),
    Batch(Events),
}

impl NativeEventReader {
    /// What is here; `None` if it has to be waited for.
    fn found(&self, events_max: usize) -> PyResult<Option<Option<Found>>> {
        let found = self.cursor.free(|taken| {
            // What came while nobody was there is before everything else.
            if let Some(ready) = taken.ready.take() {
                let ready = ready.map(|delivery| {
                    delivery.map(|delivery| match delivery {
                        Delivery::Event(event) => Found::Batch(Events::One(event)),
                        Delivery::Checkpoint(name) => Found::Checkpoint(name),
                    })
                });
                return ready.map(Some).map_err(raise);
            }
            let reader = taken.source.reader.as_mut().ok_or_else(|| raise(closed()))?;
            let batch = now(pin!(reader.next_batch(events_max)))?.transpose().map_err(raise)?;
            Ok(batch.map(|batch| {
                batch.map(|batch| match batch {
                    Batch::Events(events) => Found::Batch(Events::Stored(events)),
                    Batch::Checkpoint(name) => Found::Checkpoint(name),
                })
            }))
        })?;
        Ok(found.flatten())
    }

    fn found_object(py: Python<'_>, found: Option<Found>) -> PyResult<Py<PyAny>> {
        use pyo3::IntoPyObjectExt as _;
        match found {
            None => Ok(py.None()),
            Some(Found::Checkpoint(name)) => name.into_py_any(py),
            Some(Found::Batch(events)) => PyEventBatch(events).into_py_any(py),
        }
    }
}

enum Events {
    Stored(EventBatch),
    One(GroupEvent),
}

/// Events of one segment that follow one another: a sequence of what was written.
#[pyclass(frozen, module = "headwater", name = "EventBatch")]
pub(crate) struct PyEventBatch(Events);

impl PyEventBatch {
    fn place(&self) -> &Arc<StreamSegment> {
        match &self.0 {
            Events::Stored(batch) => batch.segment(),
            Events::One(event) => &event.segment,
        }
    }
}

#[pymethods]
impl PyEventBatch {
    /// The stream, as SCOPE/STREAM.
    #[getter]
    fn stream(&self) -> String {
        self.place().stream.to_string()
    }

    /// The segment they are in.
    #[getter]
    fn segment(&self) -> i64 {
        self.place().id.as_i64()
    }

    /// Offset of the first one's header in the segment.
    #[getter]
    fn offset(&self) -> u64 {
        match &self.0 {
            Events::Stored(batch) => batch.offset(),
            Events::One(event) => event.offset,
        }
    }

    fn __len__(&self) -> usize {
        match &self.0 {
            Events::Stored(batch) => batch.len(),
            Events::One(_) => 1,
        }
    }

    /// Goes through what was written.
    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        // One list is made faster than an object is asked for each of its items.
        let payloads = match &self.0 {
            Events::Stored(batch) => {
                PyList::new(py, batch.iter().map(|event| PyBytes::new(py, event)).collect::<Vec<_>>())?
            }
            Events::One(event) => PyList::new(py, [PyBytes::new(py, &event.event)])?,
        };
        Ok(payloads.try_iter()?.into_any())
    }

    /// The same events, each with its place.
    fn events(&self) -> Vec<PyEvent> {
        match &self.0 {
            Events::Stored(batch) => {
                let stream = Arc::new(batch.segment().stream.clone());
                let event = |it: GroupEvent| PyEvent::of(it.event, stream.clone(), it.segment.id, it.offset);
                batch.events().map(event).collect()
            }
            Events::One(event) => vec![event_of(event.clone())],
        }
    }

    fn __repr__(&self) -> String {
        format!(
            "<EventBatch of {} at {} of segment {} of {}>",
            self.__len__(),
            self.offset(),
            self.segment(),
            self.stream()
        )
    }
}

fn event_of(event: GroupEvent) -> PyEvent {
    let stream = Arc::new(event.segment.stream.clone());
    PyEvent::of(event.event, stream, event.segment.id, event.offset)
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the reader was closed")
}

readable!(NativeEventReader {
    /// A batch, the name of a checkpoint, or `None` at the end; waits for at most so many seconds.
    fn batch(&self, py: Python<'_>, limit: usize, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        loop {
            if let Some(found) = self.found(limit)? {
                return Self::found_object(py, found);
            }
            self.cursor.fill_within(py, timeout)?;
        }
    }

    /// The same, if it is here; otherwise `NotImplemented`, which stands for "wait".
    fn batch_now(&self, py: Python<'_>, limit: usize) -> PyResult<Py<PyAny>> {
        match self.found(limit)? {
            Some(found) => Self::found_object(py, found),
            None => Ok(py.NotImplemented()),
        }
    }

    #[getter]
    fn id(&self) -> &str {
        &self.id
    }

    /// Behind the last event that was handed out.
    fn position(&self, py: Python<'_>) -> PyResult<PyPosition> {
        let taken = self.cursor.locked(py)?;
        let kept = matches!(taken.ready, Some(Ok(Some(Delivery::Event(_))))).then(|| taken.source.before.clone()).flatten();
        let position = match (kept, &taken.source.reader) {
            (Some(before), _) => before,
            (None, Some(reader)) => reader.position(),
            (None, None) => return Err(raise(closed())),
        };
        Ok(PyPosition(position))
    }

    /// Between which times the group reads a stream.
    fn time_window(&self, stream: &str) -> PyResult<Pending> {
        let (lent, stream) = (self.cursor.lent(), self::stream(stream)?);
        Pending::start(async move {
            let mut taken = lent.await;
            // To the group it is read, and may be older than what that has passed since: nothing is known then.
            let window = if matches!(taken.ready, Some(Ok(Some(Delivery::Event(_))))) {
                TimeWindow::default()
            } else {
                taken.source.reader.as_mut().ok_or_else(closed)?.time_window(&stream).await?
            };
            Ok::<_, Error>((window.lower, window.upper))
        })
    }

    /// Leaves the group. Closing twice does no harm.
    fn close(&self) -> PyResult<Pending> {
        self.cursor.give_up();
        let (shared, group, id) = (self.cursor.shared(), self.group.clone(), self.id.clone());
        Pending::start(async move {
            let mut taken = shared.lock().await;
            let Some(reader) = taken.source.reader.take() else { return Ok(()) };
            match (taken.ready.take(), taken.source.before.take()) {
                // Taken and never handed out: others have to read it.
                (Some(Ok(Some(Delivery::Event(_)))), Some(before)) => {
                    drop(reader);
                    group.reader_offline(&id, Some(&before)).await.map(drop)
                }
                _ => reader.close().await,
            }
        })
    }
});
