//! Writing events that have numbers of the caller's. They are handed over as in `writing`.

use std::pin::pin;
use std::sync::Arc;

use headwater::client::{Error, NumberedWriter};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::client::{NativeClient, WriterOptions};
use crate::errors::raise;
use crate::pending::Pending;
use crate::runtime::{at_once, now};
use crate::values::{payload, payloads, stream, unsigned};
use crate::writing::{EVENTS_PER_TURN, place};

/// Writes numbered events to a stream, each once, whatever process writes it.
#[pyclass(frozen, module = "headwater._native", name = "NumberedWriter")]
pub(crate) struct NativeNumberedWriter {
    writer: Arc<NumberedWriter>,
}

#[pyfunction]
pub(crate) fn _numbered_writer(
    client: &NativeClient,
    stream: &str,
    name: String,
    options: WriterOptions,
) -> PyResult<Pending> {
    let (client, stream, options) = (client.client.clone(), self::stream(stream)?, options.read()?);
    Pending::start(async move {
        let writer = client.numbered_writer(&stream, &name, options).await?;
        Ok::<_, Error>(NativeNumberedWriter { writer: Arc::new(writer) })
    })
}

fn number(value: &Bound<'_, PyAny>) -> PyResult<u64> {
    unsigned(value, "number of an event")
}

#[pymethods]
impl NativeNumberedWriter {
    #[getter]
    fn stream(&self) -> String {
        self.writer.stream().to_string()
    }

    #[getter]
    fn bytes_under_way(&self) -> usize {
        self.writer.bytes_under_way()
    }

    #[getter]
    fn resume_after(&self) -> u64 {
        self.writer.resume_after()
    }

    fn is_stored(&self, number: &Bound<'_, PyAny>, routing_key: &str) -> PyResult<bool> {
        Ok(self.writer.is_stored(self::number(number)?, routing_key))
    }

    /// Hands over an event; waits for room if there is none.
    fn write(
        &self,
        py: Python<'_>,
        number: &Bound<'_, PyAny>,
        event: &Bound<'_, PyAny>,
        routing_key: &str,
    ) -> PyResult<()> {
        let (number, event) = (self::number(number)?, payload(event)?);
        at_once(py, self.writer.write(number, routing_key, event)).map(drop)
    }

    /// Hands over an event if there is room for it.
    fn try_write(&self, number: &Bound<'_, PyAny>, event: &Bound<'_, PyAny>, routing_key: &str) -> PyResult<bool> {
        let (number, event) = (self::number(number)?, payload(event)?);
        match now(pin!(self.writer.write(number, routing_key, event)))? {
            Some(taken) => taken.map(|_| true).map_err(raise),
            None => Ok(false),
        }
    }

    /// Hands over an event as soon as there is room for it.
    fn write_later(
        &self,
        number: &Bound<'_, PyAny>,
        event: &Bound<'_, PyAny>,
        routing_key: String,
    ) -> PyResult<Pending> {
        let (writer, number, event) = (self.writer.clone(), self::number(number)?, payload(event)?);
        Pending::start(async move { writer.write(number, &routing_key, event).await.map(drop) })
    }

    /// Hands over all pairs of a number and an event; returns how many there were. `routing_key` is one for all, or makes one
    /// of each event.
    fn write_many(&self, py: Python<'_>, events: &Bound<'_, PyAny>, routing_key: &Bound<'_, PyAny>) -> PyResult<usize> {
        let common = routing_key.cast::<PyString>().ok();
        let mut count = 0;
        for pair in events.try_iter()? {
            let (number, event): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair?.extract()?;
            let made;
            let key = match common {
                Some(common) => common.to_cow()?,
                None => {
                    made = routing_key.call1((&event,))?;
                    made.cast::<PyString>()?.to_cow()?
                }
            };
            at_once(py, self.writer.write(self::number(&number)?, &key, payload(&event)?)).map(drop)?;
            count += 1;
            if count % EVENTS_PER_TURN == 0 {
                py.detach(|| ());
                py.check_signals()?;
            }
        }
        Ok(count)
    }

    /// Hands over several events of one key and number, which are stored together or not at all.
    fn write_all(
        &self,
        number: &Bound<'_, PyAny>,
        events: &Bound<'_, PyAny>,
        routing_key: String,
    ) -> PyResult<Pending> {
        let (writer, number, events) = (self.writer.clone(), self::number(number)?, payloads(events)?);
        Pending::start(async move { writer.write_all(number, &routing_key, &events).await.map(drop) })
    }

    /// Hands over an event; what is returned resolves once it is stored.
    fn submit(
        &self,
        py: Python<'_>,
        number: &Bound<'_, PyAny>,
        event: &Bound<'_, PyAny>,
        routing_key: &str,
    ) -> PyResult<Pending> {
        let (number, event) = (self::number(number)?, payload(event)?);
        let ack = at_once(py, self.writer.write(number, routing_key, event))?;
        Pending::start(async move { ack.await.map(place) })
    }

    /// As `submit` for those who must not wait for room here.
    fn store(&self, number: &Bound<'_, PyAny>, event: &Bound<'_, PyAny>, routing_key: String) -> PyResult<Pending> {
        let (writer, number, event) = (self.writer.clone(), self::number(number)?, payload(event)?);
        Pending::start(async move {
            let ack = writer.write(number, &routing_key, event).await?;
            Ok::<_, Error>(place(ack.await?))
        })
    }

    fn flush(&self) -> PyResult<Pending> {
        let writer = self.writer.clone();
        Pending::start(async move { writer.flush().await })
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
