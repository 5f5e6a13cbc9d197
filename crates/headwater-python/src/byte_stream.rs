//! Streams of bytes.

use std::pin::pin;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use headwater::client::{ByteAck, ByteReader, ByteWriter, ByteWriterOptions, Error, Result};
use pyo3::prelude::*;
use tokio::sync::Mutex;

use crate::client::NativeClient;
use crate::errors::raise;
use crate::pending::Pending;
use crate::runtime::{at_once, now};
use crate::values::{payload, stream};

/// Appends bytes to a stream.
#[pyclass(frozen, module = "headwater._native", name = "ByteWriter")]
pub(crate) struct NativeByteWriter {
    writer: ByteWriter,
}

/// Reads bytes of a stream.
#[pyclass(frozen, module = "headwater._native", name = "ByteReader")]
pub(crate) struct NativeByteReader {
    inner: Arc<Mutex<Reading>>,
}

struct Reading {
    reader: ByteReader,
    /// Taken from the reader and not yet handed out: it stands before the reader's offset.
    rest: Bytes,
}

impl Reading {
    fn offset(&self) -> u64 {
        self.reader.offset() - self.rest.len() as u64
    }

    fn seek(&mut self, offset: u64) {
        match offset.checked_sub(self.offset()).and_then(|skip| usize::try_from(skip).ok()) {
            Some(skip) if skip <= self.rest.len() => self.rest.advance(skip),
            _ => {
                self.rest = Bytes::new();
                self.reader.seek_to(offset);
            }
        }
    }

    /// Makes something to take; `false` at the end. Nothing is lost when it is dropped.
    async fn fill(&mut self) -> Result<bool> {
        if self.rest.is_empty() {
            match self.reader.next().await? {
                Some(bytes) => self.rest = bytes,
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

impl NativeByteWriter {
    fn hand_over(&self, bytes: Bytes) -> impl Future<Output = Result<ByteAck>> + Send + use<'_> {
        self.writer.write(bytes)
    }
}

#[pyfunction]
pub(crate) fn _byte_writer(
    client: &NativeClient,
    stream: &str,
    batch_bytes: Option<usize>,
    window_bytes: Option<usize>,
) -> PyResult<Pending> {
    let (client, stream) = (client.client.clone(), self::stream(stream)?);
    let mut options = ByteWriterOptions::default();
    if let Some(bytes) = batch_bytes {
        options = options.batch_bytes(bytes);
    }
    if let Some(bytes) = window_bytes {
        options = options.window_bytes(bytes);
    }
    Pending::start(async move { client.byte_writer(&stream, options).await.map(|writer| NativeByteWriter { writer }) })
}

#[pyfunction]
pub(crate) fn _byte_reader(client: &NativeClient, stream: &str, from: u64) -> PyResult<Pending> {
    let (client, stream) = (client.client.clone(), self::stream(stream)?);
    Pending::start(async move {
        let reader = client.byte_reader(&stream, from).await?;
        let inner = Arc::new(Mutex::new(Reading { reader, rest: Bytes::new() }));
        Ok::<_, Error>(NativeByteReader { inner })
    })
}

#[pymethods]
impl NativeByteWriter {
    #[getter]
    fn stream(&self) -> String {
        self.writer.stream().to_string()
    }

    #[getter]
    fn bytes_under_way(&self) -> usize {
        self.writer.bytes_under_way()
    }

    /// Hands over bytes; waits for room if there is none.
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        let data = payload(data)?;
        let length = data.len();
        // As a file does: nothing to write is no mistake.
        if length > 0 {
            at_once(py, self.hand_over(data)).map(drop)?;
        }
        Ok(length)
    }

    fn try_write(&self, data: &Bound<'_, PyAny>) -> PyResult<bool> {
        let data = payload(data)?;
        // More than one piece is not given up half way.
        if data.len() > 8 << 20 {
            return Ok(false);
        }
        if data.is_empty() {
            return Ok(true);
        }
        match now(pin!(self.hand_over(data)))? {
            Some(taken) => taken.map(|_| true).map_err(raise),
            None => Ok(false),
        }
    }

    fn write_later(&self, data: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let (writer, data) = (self.writer.clone(), payload(data)?);
        Pending::start(async move { writer.write(data).await.map(drop) })
    }

    fn flush(&self) -> PyResult<Pending> {
        let writer = self.writer.clone();
        Pending::start(async move { writer.flush().await })
    }

    fn tail(&self) -> PyResult<Pending> {
        let writer = self.writer.clone();
        Pending::start(async move { writer.tail().await })
    }

    fn truncate(&self, to: u64) -> PyResult<Pending> {
        let writer = self.writer.clone();
        Pending::start(async move { writer.truncate(to).await })
    }

    fn seal(&self) -> PyResult<Pending> {
        let writer = self.writer.clone();
        Pending::start(async move { writer.seal().await })
    }
}

#[pymethods]
impl NativeByteReader {
    /// Up to `size` bytes, as many as are here, or as came first; none at the end.
    fn read(&self, size: usize) -> PyResult<Pending> {
        let inner = self.inner.clone();
        Pending::start_with(
            async move {
                let mut reading = inner.lock_owned().await;
                reading.fill().await?;
                Ok::<_, Error>(reading)
            },
            // Taken on Python's thread: whoever gave up meanwhile has taken nothing.
            move |py, mut reading| {
                use pyo3::IntoPyObjectExt as _;
                let size = size.min(reading.rest.len());
                let bytes = reading.rest.split_to(size);
                bytes.into_py_any(py)
            },
        )
    }

    fn tell(&self) -> PyResult<Pending> {
        let inner = self.inner.clone();
        Pending::start(async move { Ok::<_, Error>(inner.lock().await.offset()) })
    }

    /// From the first byte ever written, from here, or from the end.
    fn seek(&self, offset: i64, whence: u8) -> PyResult<Pending> {
        let inner = self.inner.clone();
        Pending::start(async move {
            let mut reading = inner.lock().await;
            let from = match whence {
                0 => 0,
                1 => reading.offset(),
                2 => reading.reader.tail().await?,
                _ => return Err(bad(format!("whence is 0, 1 or 2, and not {whence}"))),
            };
            let to = from.checked_add_signed(offset).ok_or_else(|| bad("seek to an offset before 0".to_owned()))?;
            reading.seek(to);
            Ok(to)
        })
    }

    fn head(&self) -> PyResult<Pending> {
        let inner = self.inner.clone();
        Pending::start(async move { inner.lock().await.reader.head().await })
    }

    fn tail(&self) -> PyResult<Pending> {
        let inner = self.inner.clone();
        Pending::start(async move { inner.lock().await.reader.tail().await })
    }
}

fn bad(what: String) -> Error {
    Error::new(headwater::client::ErrorKind::Invalid, what)
}
