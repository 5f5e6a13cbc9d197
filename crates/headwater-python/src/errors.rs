//! Errors of the client as exceptions of the package, which stand in `headwater/_errors.py`.

use std::error::Error as StdError;

use headwater::StartError;
use headwater::client::{Error, ErrorKind};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

/// Code of a store that could not be opened.
const NOT_STARTED: &str = "not-started";

/// Why something was not done, until there is an interpreter to tell.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The client's word.
    Client(Error),
    /// The embedded store's.
    Start(StartError),
    /// What Python code raised that was called meanwhile.
    Raised(PyErr),
    /// Somebody gave it up: interrupted, cancelled, or closed what it was about.
    GivenUp,
    /// What went wrong was a panic: a bug of ours.
    Panicked,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Client(error) => exception(error.kind().code(), &error),
            Failure::Start(error) => exception(NOT_STARTED, &error),
            Failure::Raised(error) => error,
            Failure::GivenUp => raise(Error::new(ErrorKind::Closed, "the operation was given up")),
            Failure::Panicked => PyRuntimeError::new_err("a bug in headwater: an operation panicked"),
        }
    }
}

/// An exception for what the client says.
pub(crate) fn raise(error: Error) -> PyErr {
    Failure::from(error).into()
}

/// An exception for an argument that is none.
pub(crate) fn invalid(what: impl std::fmt::Display) -> PyErr {
    raise(Error::new(ErrorKind::Invalid, what.to_string()))
}

/// The exception of a code, with the texts of all causes.
fn exception(code: &str, error: &dyn StdError) -> PyErr {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    Python::attach(|py| match class(py, code) {
        Ok(class) => PyErr::from_type(class, (text,)),
        Err(error) => error,
    })
}

fn class<'py>(py: Python<'py>, code: &str) -> PyResult<Bound<'py, PyType>> {
    static CLASSES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let classes = CLASSES.get_or_try_init(py, || {
        let classes = py.import("headwater._errors")?.getattr("_BY_CODE")?;
        Ok::<_, PyErr>(classes.cast_into::<PyDict>()?.unbind())
    })?;
    let found = classes.bind(py).get_item(code)?;
    // A code that a later client has: the class of all errors.
    let found = match found {
        Some(found) => Some(found),
        None => classes.bind(py).get_item("")?,
    };
    let class = found.ok_or_else(|| PyRuntimeError::new_err("headwater._errors is not of this version"))?;
    Ok(class.cast_into::<PyType>()?)
}
