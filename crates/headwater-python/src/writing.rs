//! Writing events.
//!
//! An event that finds room in the writer's window costs no change of thread: it is handed over on Python's own, with the
//! interpreter kept. Only who finds the window full waits, and leaves the interpreter to others meanwhile.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use headwater::client::{Ack, Error, EventWriter, Result, Written};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::errors::raise;
use crate::pending::Pending;
use crate::runtime::{at_once, now};
use crate::values::{duration, payload, payloads};

/// After so many events, others may have the interpreter, and Ctrl-C is heard.
pub(crate) const EVENTS_PER_TURN: usize = 1024;

/// Writes events to a stream.
#[pyclass(frozen, module = "headwater._native", name = "EventWriter")]
pub(crate) struct NativeEventWriter {
    writer: Arc<EventWriter>,
}

impl NativeEventWriter {
    pub(crate) fn of(writer: EventWriter) -> Self {
        Self { writer: Arc::new(writer) }
    }
}

async fn hand_over(writer: &EventWriter, event: Bytes, key: Option<&str>) -> Result<Ack> {
    match key {
        Some(key) => writer.write(key, event).await,
        None => writer.write_anywhere(event).await,
    }
}

/// Segment, offset and length.
pub(crate) fn place(written: Written) -> (i64, Option<u64>, u64) {
    (written.segment.as_i64(), written.offset, written.length)
}

#[pymethods]
impl NativeEventWriter {
    #[getter]
    fn stream(&self) -> String {
        self.writer.stream().to_string()
    }

    #[getter]
    fn bytes_under_way(&self) -> usize {
        self.writer.bytes_under_way()
    }

    /// Hands over an event; waits for room if there is none.
    #[pyo3(signature = (event, routing_key=None))]
    fn write(&self, py: Python<'_>, event: &Bound<'_, PyAny>, routing_key: Option<&str>) -> PyResult<()> {
        let event = payload(event)?;
        at_once(py, hand_over(&self.writer, event, routing_key)).map(drop)
    }

    /// Hands over an event if there is room for it.
    fn try_write(&self, event: &Bound<'_, PyAny>, routing_key: Option<&str>) -> PyResult<bool> {
        let event = payload(event)?;
        match now(pin!(hand_over(&self.writer, event, routing_key)))? {
            Some(taken) => taken.map(|_| true).map_err(raise),
            None => Ok(false),
        }
    }

    /// Hands over an event as soon as there is room for it.
    fn write_later(&self, event: &Bound<'_, PyAny>, routing_key: Option<String>) -> PyResult<Pending> {
        let (writer, event) = (self.writer.clone(), payload(event)?);
        Pending::start(async move { hand_over(&writer, event, routing_key.as_deref()).await.map(drop) })
    }

    /// Hands over all events of an iterable; returns how many there were. `routing_key` is one for all, or makes one of each.
    #[pyo3(signature = (events, routing_key=None))]
    fn write_many(
        &self,
        py: Python<'_>,
        events: &Bound<'_, PyAny>,
        routing_key: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<usize> {
        let mut count = 0;
        let common = routing_key.map(|key| key.cast::<PyString>()).and_then(std::result::Result::ok);
        for event in events.try_iter()? {
            let event = event?;
            let made = match (routing_key, common) {
                (Some(make), None) => Some(make.call1((&event,))?),
                _ => None,
            };
            let key = match (&made, common) {
                (Some(made), _) => Some(made.cast::<PyString>()?.to_cow()?),
                (None, Some(common)) => Some(common.to_cow()?),
                (None, None) => None,
            };
            at_once(py, hand_over(&self.writer, payload(&event)?, key.as_deref())).map(drop)?;
            count += 1;
            if count % EVENTS_PER_TURN == 0 {
                py.detach(|| ());
                py.check_signals()?;
            }
        }
        Ok(count)
    }

    /// Hands over several events of one key, which are stored together or not at all.
    fn write_all(&self, events: &Bound<'_, PyAny>, routing_key: String) -> PyResult<Pending> {
        let (writer, events) = (self.writer.clone(), payloads(events)?);
        Pending::start(async move { writer.write_all(&routing_key, &events).await.map(drop) })
    }

    /// Hands over an event; what is returned resolves once it is stored.
    #[pyo3(signature = (event, routing_key=None))]
    fn submit(&self, py: Python<'_>, event: &Bound<'_, PyAny>, routing_key: Option<&str>) -> PyResult<Pending> {
        let event = payload(event)?;
        let ack = at_once(py, hand_over(&self.writer, event, routing_key))?;
        Pending::start(async move { ack.await.map(place) })
    }

    /// As `submit` for those who must not wait for room here.
    fn store(&self, event: &Bound<'_, PyAny>, routing_key: Option<String>) -> PyResult<Pending> {
        let (writer, event) = (self.writer.clone(), payload(event)?);
        Pending::start(async move {
            let ack = hand_over(&writer, event, routing_key.as_deref()).await?;
            Ok::<_, Error>(place(ack.await?))
        })
    }

    fn flush(&self) -> PyResult<Pending> {
        let writer = self.writer.clone();
        Pending::start(async move { writer.flush().await })
    }

    /// `False`: not everything is stored after so many seconds. The next one waits for it, too, and tells of what fails.
    fn flush_within(&self, limit: f64) -> PyResult<Pending> {
        let (writer, limit) = (self.writer.clone(), duration(limit)?);
        Pending::start(async move {
            match tokio::time::timeout(limit, writer.flush()).await {
                Ok(flushed) => flushed.map(|()| true),
                Err(_) => Ok(false),
            }
        })
    }

    fn note_time(&self, time: i64) -> PyResult<Pending> {
        let writer = self.writer.clone();
        Pending::start(async move { writer.note_time(time).await })
    }

    fn note_end(&self) -> PyResult<Pending> {
        let writer = self.writer.clone();
        Pending::start(async move { writer.note_end().await })
    }
}
