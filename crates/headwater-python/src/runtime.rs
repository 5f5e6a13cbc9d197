//! The threads on which the client works, and waiting for them from Python's.

use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use headwater::client::Result;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tokio::runtime::Runtime;

use crate::errors::raise;

/// How long a thread waits before it looks whether somebody pressed Ctrl-C.
pub(crate) const SLICE: Duration = Duration::from_millis(50);

/// One runtime for the process. It lives until the process ends.
static RUNTIME: OnceLock<(Runtime, u32)> = OnceLock::new();

/// The runtime, made when it is first needed.
///
/// # Errors
/// The process was forked off one that had used the runtime: its threads are not in this one, and whoever waits for them
/// would wait for ever. Or the system has no threads to give.
pub(crate) fn runtime() -> PyResult<&'static Runtime> {
    let process = std::process::id();
    let (runtime, of) = match RUNTIME.get() {
        Some(made) => made,
        None => {
            let made = tokio::runtime::Builder::new_multi_thread().thread_name("headwater").enable_all().build()?;
            RUNTIME.get_or_init(|| (made, process))
        }
    };
    if *of != process {
        return Err(forked());
    }
    Ok(runtime)
}

/// Whether this process was forked off one that had used the runtime.
static IS_FORKED: AtomicBool = AtomicBool::new(false);

/// Python calls it in the child of a fork.
#[pyfunction]
pub(crate) fn _after_fork() {
    IS_FORKED.store(RUNTIME.get().is_some(), Ordering::Relaxed);
}

fn forked() -> PyErr {
    let what =
        "headwater was used before this process was forked: use it in the child only, or start children by spawn";
    PyRuntimeError::new_err(what)
}

/// The runtime for those who have something that was made with it: no look at the process, which costs a system call, but
/// at what Python said of it.
pub(crate) fn entered() -> PyResult<tokio::runtime::EnterGuard<'static>> {
    if IS_FORKED.load(Ordering::Relaxed) {
        return Err(forked());
    }
    match RUNTIME.get() {
        Some((runtime, _)) => Ok(runtime.enter()),
        None => runtime().map(Runtime::enter),
    }
}

/// Looks once whether something is ready already. `None`: it waits for something.
pub(crate) fn now<F: Future>(future: Pin<&mut F>) -> PyResult<Option<F::Output>> {
    let _entered = entered()?;
    Ok(match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    })
}

/// Waits with the interpreter left to others, and ends with `KeyboardInterrupt` on Ctrl-C.
pub(crate) fn wait<F>(py: Python<'_>, mut future: Pin<&mut F>) -> PyResult<F::Output>
where
    F: Future + Send,
    F::Output: Send,
{
    if tokio::runtime::Handle::try_current().is_ok() {
        let what = "a callback cannot wait for the client that called it: call it beside, or with what is known before";
        return Err(PyRuntimeError::new_err(what));
    }
    let runtime = runtime()?;
    loop {
        let slice = future.as_mut();
        let ended = py.detach(move || runtime.block_on(async move { tokio::time::timeout(SLICE, slice).await }));
        match ended {
            Ok(output) => return Ok(output),
            Err(_) => py.check_signals()?,
        }
    }
}

/// What is mostly ready at once: looks, and waits if it is not.
pub(crate) fn at_once<T: Send>(py: Python<'_>, future: impl Future<Output = Result<T>> + Send) -> PyResult<T> {
    let mut future = std::pin::pin!(future);
    let output = match now(future.as_mut())? {
        Some(output) => output,
        None => wait(py, future)?,
    };
    output.map_err(raise)
}
