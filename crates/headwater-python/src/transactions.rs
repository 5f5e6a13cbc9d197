//! Transactions.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use headwater::client::{Ack, Committing, Error, ErrorKind, Result, Transaction, TransactionWriter};
use pyo3::prelude::*;
use tokio::sync::RwLock;

use crate::errors::raise;
use crate::pending::Pending;
use crate::runtime::{at_once, now};
use crate::values::{payload, transaction};

/// Begins transactions on a stream.
#[pyclass(frozen, module = "headwater._native", name = "TransactionWriter")]
pub(crate) struct NativeTransactionWriter {
    writer: TransactionWriter,
}

impl NativeTransactionWriter {
    pub(crate) fn of(writer: TransactionWriter) -> Self {
        Self { writer }
    }
}

#[pymethods]
impl NativeTransactionWriter {
    #[getter]
    fn stream(&self) -> String {
        self.writer.stream().to_string()
    }

    fn begin(&self) -> PyResult<Pending> {
        let writer = self.writer.clone();
        Pending::start(async move { writer.begin().await.map(NativeTransaction::of) })
    }

    fn resume(&self, id: &str) -> PyResult<Pending> {
        let (writer, id) = (self.writer.clone(), transaction(id)?);
        Pending::start(async move { writer.resume(id).await.map(NativeTransaction::of) })
    }

    fn note_end(&self) -> PyResult<Pending> {
        let writer = self.writer.clone();
        Pending::start(async move { writer.note_end().await })
    }
}

/// A transaction, open until it is committed or aborted.
#[pyclass(frozen, module = "headwater._native", name = "Transaction")]
pub(crate) struct NativeTransaction {
    id: String,
    open: Arc<RwLock<Option<Transaction>>>,
}

fn over() -> Error {
    Error::new(ErrorKind::Closed, "the transaction was committed or aborted")
}

async fn hand_over(open: &RwLock<Option<Transaction>>, event: Bytes, routing_key: &str) -> Result<Ack> {
    open.read().await.as_ref().ok_or_else(over)?.write(routing_key, event).await
}

impl NativeTransaction {
    fn of(transaction: Transaction) -> Self {
        Self { id: transaction.id().to_string(), open: Arc::new(RwLock::new(Some(transaction))) }
    }
}

#[pymethods]
impl NativeTransaction {
    #[getter]
    fn id(&self) -> &str {
        &self.id
    }

    /// Whether it was neither committed nor aborted through this object.
    #[getter]
    fn is_open(&self) -> bool {
        self.open.try_read().is_ok_and(|open| open.is_some())
    }

    /// Hands over an event; waits for room if there is none.
    fn write(&self, py: Python<'_>, event: &Bound<'_, PyAny>, routing_key: &str) -> PyResult<()> {
        let event = payload(event)?;
        at_once(py, hand_over(&self.open, event, routing_key)).map(drop)
    }

    /// Hands over an event if there is room for it.
    fn try_write(&self, event: &Bound<'_, PyAny>, routing_key: &str) -> PyResult<bool> {
        let event = payload(event)?;
        match now(pin!(hand_over(&self.open, event, routing_key)))? {
            Some(taken) => taken.map(|_| true).map_err(raise),
            None => Ok(false),
        }
    }

    /// Hands over an event as soon as there is room for it.
    fn write_later(&self, event: &Bound<'_, PyAny>, routing_key: String) -> PyResult<Pending> {
        let (open, event) = (self.open.clone(), payload(event)?);
        Pending::start(async move { hand_over(&open, event, &routing_key).await.map(drop) })
    }

    fn flush(&self) -> PyResult<Pending> {
        let open = self.open.clone();
        Pending::start(async move { open.read().await.as_ref().ok_or_else(over)?.flush().await })
    }

    /// Commits, and waits until its events can be read if `wait` says so. It stays open when an event could not be stored.
    fn commit(&self, time: Option<i64>, wait: bool) -> PyResult<Pending> {
        let open = self.open.clone();
        Pending::start(async move {
            open.read().await.as_ref().ok_or_else(over)?.flush().await?;
            let transaction = open.write().await.take().ok_or_else(over)?;
            let committing: Committing = transaction.commit(time).await?;
            if wait { committing.committed().await } else { Ok(()) }
        })
    }

    fn abort(&self) -> PyResult<Pending> {
        let open = self.open.clone();
        Pending::start(async move {
            let transaction = open.write().await.take().ok_or_else(over)?;
            transaction.abort().await
        })
    }
}
