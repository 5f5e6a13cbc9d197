//! What goes in and comes out: names, payloads, times, positions.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;
use headwater::client::{
    Checkpoint, Cut, EventPointer, Name, Position, Retention, Revision, Scaling, ScopedStream, ScopedTable, SegmentId,
    StreamConfig, StreamCut, TransactionId, Version,
};
use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView};

use crate::errors::invalid;

/// Bytes of a `bytes`, `bytearray` or `memoryview`.
pub(crate) fn payload(value: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(Bytes::copy_from_slice(bytes.as_bytes()));
    }
    if let Ok(bytes) = value.cast::<PyByteArray>() {
        return Ok(bytes.to_vec().into());
    }
    if value.is_instance_of::<PyMemoryView>() {
        let bytes = value.call_method0("tobytes")?;
        return Ok(Bytes::copy_from_slice(bytes.cast::<PyBytes>()?.as_bytes()));
    }
    let what = format!("bytes are wanted, and not {}", value.get_type().name()?);
    Err(PyTypeError::new_err(what))
}

pub(crate) fn payloads(values: &Bound<'_, PyAny>) -> PyResult<Vec<Bytes>> {
    values.try_iter()?.map(|value| payload(&value?)).collect()
}

/// A number of at most 64 bits that is not negative; `what` says of what kind.
pub(crate) fn unsigned(value: &Bound<'_, PyAny>, what: &str) -> PyResult<u64> {
    value.extract::<u64>().map_err(|error| {
        if error.is_instance_of::<PyOverflowError>(value.py()) {
            return invalid(format_args!("{value} is no {what}"));
        }
        error
    })
}

pub(crate) fn stream(text: &str) -> PyResult<ScopedStream> {
    ScopedStream::parse(text).map_err(|error| invalid(format_args!("{text:?} is no SCOPE/STREAM: {error}")))
}

pub(crate) fn table(text: &str) -> PyResult<ScopedTable> {
    ScopedTable::parse(text).map_err(|error| invalid(format_args!("{text:?} is no SCOPE/TABLE: {error}")))
}

pub(crate) fn name(text: &str) -> PyResult<Name> {
    Name::parse(text).map_err(|error| invalid(format_args!("{text:?} is no name: {error}")))
}

pub(crate) fn segment(id: i64) -> PyResult<SegmentId> {
    SegmentId::from_i64(id).ok_or_else(|| invalid(format_args!("{id} is no id of a segment")))
}

pub(crate) fn transaction(text: &str) -> PyResult<TransactionId> {
    let id = u128::from_str_radix(text, 16).map_err(|_| invalid(format_args!("{text:?} is no transaction's id")))?;
    Ok(TransactionId(id))
}

/// Seconds as Python has them.
pub(crate) fn duration(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|_| invalid(format_args!("{seconds} seconds are no duration")))
}

/// A stream's configuration on its way between `headwater/_values.py` and here.
#[derive(FromPyObject, IntoPyObject)]
pub(crate) struct Config {
    #[pyo3(item)]
    scaling: String,
    #[pyo3(item)]
    segments: u32,
    #[pyo3(item)]
    target: u32,
    #[pyo3(item)]
    factor: u32,
    #[pyo3(item)]
    retention: Option<String>,
    #[pyo3(item)]
    min: f64,
    #[pyo3(item)]
    max: Option<f64>,
    #[pyo3(item)]
    tags: Vec<String>,
    #[pyo3(item)]
    timestamp_aggregation_timeout: f64,
    #[pyo3(item)]
    rollover_bytes: u64,
}

impl Config {
    pub(crate) fn read(self) -> PyResult<StreamConfig> {
        let (segments, target, factor) = (self.segments, self.target, self.factor);
        let scaling = match self.scaling.as_str() {
            "fixed" => Scaling::Fixed { segments },
            "throughput" => Scaling::ByThroughput { target, factor, segments_min: segments },
            "event-rate" => Scaling::ByEventRate { target, factor, segments_min: segments },
            other => return Err(invalid(format_args!("{other:?} is no way to scale"))),
        };
        let retention = match self.retention.as_deref() {
            None => None,
            Some("time") => {
                Some(Retention::Time { min: duration(self.min)?, max: self.max.map(duration).transpose()? })
            }
            Some("size") => {
                Some(Retention::Size { min_bytes: whole(self.min)?, max_bytes: self.max.map(whole).transpose()? })
            }
            Some(other) => return Err(invalid(format_args!("{other:?} is no way to retain"))),
        };
        let timestamp_aggregation_timeout = duration(self.timestamp_aggregation_timeout)?;
        let (tags, rollover_bytes) = (self.tags, self.rollover_bytes);
        Ok(StreamConfig { scaling, retention, tags, timestamp_aggregation_timeout, rollover_bytes })
    }

    pub(crate) fn of(config: StreamConfig) -> Self {
        let (scaling, segments, target, factor) = match config.scaling {
            Scaling::Fixed { segments } => ("fixed", segments, 0, 0),
            Scaling::ByThroughput { target, factor, segments_min } => ("throughput", segments_min, target, factor),
            Scaling::ByEventRate { target, factor, segments_min } => ("event-rate", segments_min, target, factor),
        };
        let (retention, min, max) = match config.retention {
            None => (None, 0.0, None),
            Some(Retention::Time { min, max }) => {
                (Some("time".to_owned()), min.as_secs_f64(), max.map(|max| max.as_secs_f64()))
            }
            Some(Retention::Size { min_bytes, max_bytes }) => {
                (Some("size".to_owned()), min_bytes as f64, max_bytes.map(|max| max as f64))
            }
        };
        Self {
            scaling: scaling.to_owned(),
            segments,
            target,
            factor,
            retention,
            min,
            max,
            tags: config.tags,
            timestamp_aggregation_timeout: config.timestamp_aggregation_timeout.as_secs_f64(),
            rollover_bytes: config.rollover_bytes,
        }
    }
}

/// Bytes as a floating number, which is exact up to 8 PiB.
fn whole(bytes: f64) -> PyResult<u64> {
    let is_whole = bytes >= 0.0 && bytes.fract() == 0.0 && bytes <= 2f64.powi(53);
    if is_whole { Ok(bytes as u64) } else { Err(invalid(format_args!("{bytes} is no number of bytes"))) }
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A position in a stream. Its text is the one that Java's clients write.
#[pyclass(frozen, eq, module = "headwater", name = "StreamCut")]
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct PyStreamCut(pub(crate) StreamCut);

#[pymethods]
impl PyStreamCut {
    /// From the text that `str()` makes.
    #[staticmethod]
    fn parse(text: &str) -> PyResult<Self> {
        StreamCut::from_text(text)
            .map(Self)
            .map_err(|error| invalid(format_args!("{text:?} is no stream cut: {error}")))
    }

    /// From a stream and the offset in each of its segments.
    #[staticmethod]
    fn of(stream: &str, offsets: std::collections::BTreeMap<i64, i64>) -> PyResult<Self> {
        let offsets = offsets.into_iter().map(|(id, offset)| Ok((segment(id)?, offset)));
        Ok(Self(StreamCut { stream: self::stream(stream)?, offsets: offsets.collect::<PyResult<_>>()? }))
    }

    /// The stream, as SCOPE/STREAM.
    #[getter]
    fn stream(&self) -> String {
        self.0.stream.to_string()
    }

    /// Offset in each segment, in bytes.
    #[getter]
    fn offsets(&self) -> std::collections::BTreeMap<i64, i64> {
        self.0.offsets.iter().map(|(id, offset)| (id.as_i64(), *offset)).collect()
    }

    fn __str__(&self) -> String {
        self.0.to_text()
    }

    fn __repr__(&self) -> String {
        format!("StreamCut.of({:?}, {:?})", self.stream(), self.offsets())
    }

    fn __hash__(&self) -> u64 {
        hash_of(&self.0)
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (String,))> {
        Ok((py.get_type::<Self>().getattr("parse")?, (self.__str__(),)))
    }
}

/// Where one event is. Its text is the one that Java's clients write.
#[pyclass(frozen, eq, module = "headwater", name = "EventPointer")]
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct PyEventPointer(pub(crate) EventPointer);

#[pymethods]
impl PyEventPointer {
    /// From the text that `str()` makes.
    #[staticmethod]
    fn parse(text: &str) -> PyResult<Self> {
        text.parse().map(Self).map_err(|error| invalid(format_args!("{text:?} is no event pointer: {error}")))
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("EventPointer.parse({:?})", self.__str__())
    }

    fn __hash__(&self) -> u64 {
        hash_of(&self.0)
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (String,))> {
        Ok((py.get_type::<Self>().getattr("parse")?, (self.__str__(),)))
    }
}

/// How far a reader of a group is.
#[pyclass(frozen, eq, module = "headwater", name = "Position")]
#[derive(Clone, PartialEq)]
pub(crate) struct PyPosition(pub(crate) Position);

#[pymethods]
impl PyPosition {
    /// From what `bytes()` makes.
    #[staticmethod]
    fn decode(data: &[u8]) -> PyResult<Self> {
        Position::decode(data).map(Self).map_err(|error| invalid(format_args!("these bytes are no position: {error}")))
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = self.0.encode().map_err(|error| invalid(format_args!("position: {error}")))?;
        Ok(PyBytes::new(py, &bytes))
    }

    fn __repr__(&self) -> String {
        let offsets = self.0.offsets.iter().map(|(segment, offset)| format!("{segment}: {offset}"));
        format!("<Position {}>", offsets.collect::<Vec<_>>().join(", "))
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        Ok((py.get_type::<Self>().getattr("decode")?, (self.__bytes__(py)?,)))
    }
}

/// Where all readers of a group were.
#[pyclass(frozen, eq, module = "headwater", name = "Checkpoint")]
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct PyCheckpoint(pub(crate) Checkpoint);

#[pymethods]
impl PyCheckpoint {
    /// From what `bytes()` makes.
    #[staticmethod]
    fn decode(data: &[u8]) -> PyResult<Self> {
        Checkpoint::decode(data)
            .map(Self)
            .map_err(|error| invalid(format_args!("these bytes are no checkpoint: {error}")))
    }

    /// Its name.
    #[getter]
    fn name(&self) -> &str {
        &self.0.name
    }

    /// A cut for each stream.
    #[getter]
    fn cuts(&self) -> std::collections::BTreeMap<String, PyStreamCut> {
        self.0.cuts.iter().map(|(stream, cut)| (stream.to_string(), PyStreamCut(cut.clone()))).collect()
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = self.0.encode().map_err(|error| invalid(format_args!("checkpoint: {error}")))?;
        Ok(PyBytes::new(py, &bytes))
    }

    fn __repr__(&self) -> String {
        format!("<Checkpoint {:?} of {} streams>", self.0.name, self.0.cuts.len())
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        Ok((py.get_type::<Self>().getattr("decode")?, (self.__bytes__(py)?,)))
    }
}

/// Which change gave a key its value.
#[pyclass(frozen, eq, ord, hash, module = "headwater", name = "Version")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PyVersion(pub(crate) Version);

#[pymethods]
impl PyVersion {
    /// Its number, which has no meaning but its order.
    #[getter]
    fn number(&self) -> i64 {
        self.0.number()
    }

    fn __repr__(&self) -> String {
        format!("<Version {}>", self.0.number())
    }
}

/// A place between two entries of a revisioned stream.
#[pyclass(frozen, eq, ord, hash, module = "headwater", name = "Revision")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PyRevision(pub(crate) Revision);

#[pymethods]
impl PyRevision {
    #[new]
    #[pyo3(signature = (offset=0))]
    fn new(offset: u64) -> Self {
        Self(Revision::at(offset))
    }

    /// Offset in the segment, in bytes.
    #[getter]
    fn offset(&self) -> u64 {
        self.0.offset()
    }

    fn __repr__(&self) -> String {
        format!("<Revision {}.{}>", self.0.offset(), self.0.index())
    }
}

/// Where to begin or end: nothing, or a cut.
pub(crate) fn cut(cut: Option<PyRef<'_, PyStreamCut>>) -> Cut {
    cut.map_or(Cut::Unbounded, |cut| Cut::At(cut.0.clone()))
}
