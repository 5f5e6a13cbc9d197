//! Operations under way, which a thread can wait for and a coroutine can await.
//!
//! ```text
//!   Python ─ start ─► task of the runtime ─► outcome ─┬─► thread in wait(): a condition variable
//!      ▲                                              └─► coroutines: courier ─► loop.call_soon_threadsafe(deliver)
//!      └──────────────────────────────────────────────────────┘
//! ```
//!
//! The courier also calls what Python wants to be told with ([`tell`]).
//!
//! Invariants:
//! * no thread of the runtime ever waits for the interpreter: only the courier does, so that Python code at work stops no
//!   connection
//! * the courier takes everything that has arrived while it waited, and wakes each loop once for it
//! * whoever is interrupted or cancelled gives the operation up; what that means is said by the client as "cancel safety"

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::thread::JoinHandle;

use pyo3::IntoPyObjectExt as _;
use pyo3::exceptions::{PyStopIteration, PyTimeoutError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PyTuple};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::errors::Failure;
use crate::runtime::{SLICE, runtime};

/// Turns what came out into an object, on a thread of Python's.
type Outcome = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

/// An operation under way. It goes on whether or not somebody waits.
#[pyclass(frozen, module = "headwater._native")]
pub(crate) struct Pending {
    slot: Arc<Slot>,
}

pub(crate) struct Slot {
    state: Mutex<State>,
    done: Condvar,
    task: OnceLock<AbortHandle>,
}

enum State {
    /// Futures of loops that wait, each with its loop.
    UnderWay(Vec<(Py<PyAny>, Py<PyAny>)>),
    Arrived(Outcome),
    /// Somebody is making an object of it, or has.
    Told(Option<PyResult<Py<PyAny>>>),
}

impl Slot {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while it holds the state of an operation")
    }

    fn arrive(self: Arc<Self>, outcome: Outcome) {
        let before = std::mem::replace(&mut *self.locked(), State::Arrived(outcome));
        self.done.notify_all();
        if let State::UnderWay(waiting) = before {
            for (event_loop, future) in waiting {
                send(Errand::Deliver(News { event_loop, future, slot: self.clone() }));
            }
        }
    }

    fn has_arrived(&self) -> bool {
        !matches!(*self.locked(), State::UnderWay(_))
    }

    /// What came out, as often as it is asked for. It has arrived.
    fn tell(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let arrived = std::mem::replace(&mut *self.locked(), State::Told(None));
        let told = match arrived {
            State::Arrived(outcome) => outcome(py),
            State::Told(Some(told)) => told,
            State::Told(None) | State::UnderWay(_) => Err(Failure::Panicked.into()),
        };
        let copy = match &told {
            Ok(value) => Ok(value.clone_ref(py)),
            Err(error) => Err(error.clone_ref(py)),
        };
        *self.locked() = State::Told(Some(copy));
        told
    }

    pub(crate) fn give_up(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

/// Drops the operation's outcome into its slot, also if the operation panics or is given up.
struct Arrival(Option<Arc<Slot>>);

impl Drop for Arrival {
    fn drop(&mut self) {
        if let Some(slot) = self.0.take() {
            let why = if std::thread::panicking() { Failure::Panicked } else { Failure::GivenUp };
            slot.arrive(Box::new(|_| Err(why.into())));
        }
    }
}

impl Pending {
    /// By which it can be given up.
    pub(crate) fn slot(&self) -> Arc<Slot> {
        self.slot.clone()
    }

    /// Starts an operation whose outcome PyO3 knows how to convert.
    pub(crate) fn start<T, E>(future: impl Future<Output = Result<T, E>> + Send + 'static) -> PyResult<Self>
    where
        T: for<'py> IntoPyObject<'py> + Send + 'static,
        E: Into<Failure>,
    {
        Self::start_with(future, |py, value| value.into_py_any(py))
    }

    /// Starts an operation.
    pub(crate) fn start_with<T, E>(
        future: impl Future<Output = Result<T, E>> + Send + 'static,
        convert: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
    ) -> PyResult<Self>
    where
        T: Send + 'static,
        E: Into<Failure>,
    {
        let runtime = runtime()?;
        let state = Mutex::new(State::UnderWay(Vec::new()));
        let slot = Arc::new(Slot { state, done: Condvar::new(), task: OnceLock::new() });
        let mut arrival = Arrival(Some(slot.clone()));
        let task = runtime.spawn(async move {
            let outcome = future.await.map_err(Into::<Failure>::into);
            if let Some(slot) = arrival.0.take() {
                slot.arrive(Box::new(move |py| convert(py, outcome?)));
            }
        });
        let _ = slot.task.set(task.abort_handle());
        Ok(Self { slot })
    }
}

#[pymethods]
impl Pending {
    /// Waits for the outcome. `TimeoutError` after `timeout` seconds: the operation goes on.
    #[pyo3(signature = (timeout=None))]
    pub(crate) fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        let until =
            timeout.map(|timeout| crate::values::duration(timeout).map(|it| Instant::now() + it)).transpose()?;
        while !self.slot.has_arrived() {
            let slice = match until {
                None => SLICE,
                Some(until) => match until.checked_duration_since(Instant::now()) {
                    Some(rest) if !rest.is_zero() => rest.min(SLICE),
                    _ => return Err(PyTimeoutError::new_err("no answer within the time given")),
                },
            };
            py.detach(|| {
                let state = self.slot.locked();
                if matches!(*state, State::UnderWay(_)) {
                    let _ = self.slot.done.wait_timeout(state, slice);
                }
            });
            if let Err(interrupt) = py.check_signals() {
                self.slot.give_up();
                return Err(interrupt);
            }
        }
        self.slot.tell(py)
    }

    /// As `wait`, but the operation ends with the time.
    fn wait_or_give_up(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        self.wait(py, timeout).inspect_err(|_| self.slot.give_up())
    }

    /// Whether the outcome is there.
    fn done(&self) -> bool {
        self.slot.has_arrived()
    }

    fn __await__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        if self.slot.has_arrived() {
            return Told { slot: self.slot.clone() }.into_py_any(py);
        }
        let event_loop = running_loop(py)?;
        let future = event_loop.call_method0("create_future")?;
        let abandon = Abandon { slot: self.slot.clone() };
        future.call_method1("add_done_callback", (abandon,))?;
        let entry = (event_loop.clone().unbind(), future.clone().unbind());
        let late = match &mut *self.slot.locked() {
            State::UnderWay(waiting) => {
                waiting.push(entry);
                None
            }
            _ => Some(entry),
        };
        if let Some((event_loop, future)) = late {
            send(Errand::Deliver(News { event_loop, future, slot: self.slot.clone() }));
        }
        Ok(future.call_method0("__await__")?.unbind())
    }
}

/// Awaiting something that has arrived: no loop has anything to do with it.
#[pyclass(frozen, module = "headwater._native")]
struct Told {
    slot: Arc<Slot>,
}

#[pymethods]
impl Told {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let value = self.slot.tell(py)?;
        Err(PyStopIteration::new_err((value,)))
    }
}

/// Is called when a loop's future is done: gives the operation up if that is because it was cancelled.
#[pyclass(frozen, module = "headwater._native")]
struct Abandon {
    slot: Arc<Slot>,
}

#[pymethods]
impl Abandon {
    fn __call__(&self, future: &Bound<'_, PyAny>) -> PyResult<()> {
        if future.call_method0("cancelled")?.is_truthy()? {
            self.slot.give_up();
        }
        Ok(())
    }
}

fn running_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static GET: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    GET.import(py, "asyncio", "get_running_loop")?.call0()
}

/// An outcome on its way to a loop.
struct News {
    event_loop: Py<PyAny>,
    future: Py<PyAny>,
    slot: Arc<Slot>,
}

/// Something to call with the interpreter.
type Call = Box<dyn FnOnce(Python<'_>) -> PyResult<()> + Send>;

/// What the courier has to do.
enum Errand {
    Deliver(News),
    Call(Call),
}

/// Who carries news: the way to it, and its thread. Gone once the interpreter ends.
type Courier = (Sender<Errand>, JoinHandle<()>);

static COURIER: Mutex<Option<Courier>> = Mutex::new(None);
static HAS_STOPPED: AtomicBool = AtomicBool::new(false);

/// Calls Python code soon, from whatever thread; nobody waits for it. An exception goes to `sys.unraisablehook`. Nothing is
/// called once the interpreter ends.
pub(crate) fn tell(call: impl FnOnce(Python<'_>) -> PyResult<()> + Send + 'static) {
    send(Errand::Call(Box::new(call)));
}

fn send(errand: Errand) {
    let mut courier = COURIER.lock().expect("nobody panics while it holds the courier");
    if HAS_STOPPED.load(Ordering::Relaxed) {
        return;
    }
    if courier.is_none() {
        let (sender, receiver) = channel();
        let thread = std::thread::Builder::new().name("headwater-asyncio".to_owned()).spawn(move || carry(&receiver));
        // Without a thread nobody would ever be told, which a process that has none left notices anyway.
        *courier = thread.ok().map(|thread| (sender, thread));
    }
    if let Some((sender, _)) = &*courier {
        let _ = sender.send(errand);
    }
}

/// Ends the courier before the interpreter ends, which ends threads that ask for it by force.
#[pyfunction]
pub(crate) fn _stop(py: Python<'_>) {
    py.detach(|| {
        let courier = {
            let mut courier = COURIER.lock().expect("nobody panics while it holds the courier");
            HAS_STOPPED.store(true, Ordering::Relaxed);
            courier.take()
        };
        if let Some((sender, thread)) = courier {
            drop(sender);
            let _ = thread.join();
        }
    });
}

fn carry(receiver: &Receiver<Errand>) {
    while let Ok(first) = receiver.recv() {
        let attached = Python::try_attach(|py| {
            let mut batches: Vec<(Py<PyAny>, Vec<News>)> = Vec::new();
            let mut calls = Vec::new();
            for errand in std::iter::once(first).chain(receiver.try_iter()) {
                let news = match errand {
                    Errand::Deliver(news) => news,
                    Errand::Call(call) => {
                        calls.push(call);
                        continue;
                    }
                };
                match batches.iter_mut().find(|(event_loop, _)| event_loop.is(&news.event_loop)) {
                    Some((_, batch)) => batch.push(news),
                    None => batches.push((news.event_loop.clone_ref(py), vec![news])),
                }
            }
            for (event_loop, batch) in batches {
                // A loop that was closed meanwhile has nobody who waits.
                let _ = wake(py, event_loop.bind(py), batch);
            }
            // Last: nobody knows how long they take.
            for call in calls {
                if let Err(error) = call(py) {
                    error.write_unraisable(py, None);
                }
            }
        });
        if attached.is_none() {
            // The interpreter ends.
            return;
        }
    }
}

fn wake(py: Python<'_>, event_loop: &Bound<'_, PyAny>, batch: Vec<News>) -> PyResult<()> {
    static DELIVER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let deliver = DELIVER.import(py, "headwater._native", "_deliver")?;
    let told = batch.into_iter().map(|news| Ok((news.future, Py::new(py, Pending { slot: news.slot })?)));
    let told = PyList::new(py, told.collect::<PyResult<Vec<_>>>()?)?;
    event_loop.call_method1("call_soon_threadsafe", (deliver, told)).map(drop)
}

/// In a loop's thread: gives each future what came out.
#[pyfunction]
pub(crate) fn _deliver(py: Python<'_>, told: &Bound<'_, PyList>) -> PyResult<()> {
    for one in told.iter() {
        let one = one.cast_into::<PyTuple>()?;
        let future = one.get_item(0)?;
        let pending = one.get_item(1)?.cast_into::<Pending>()?;
        if future.call_method0("done")?.is_truthy()? {
            continue;
        }
        let told = match pending.get().slot.tell(py) {
            Ok(value) => future.call_method1("set_result", (value,)),
            Err(error) => match future.call_method1("set_exception", (error.clone_ref(py),)) {
                // A future takes no StopIteration, which Python code that we called may have raised.
                Err(refused) => {
                    refused.set_cause(py, Some(error));
                    future.call_method1("set_exception", (refused,))
                }
                taken => taken,
            },
        };
        // One that was done meanwhile does not keep the others from being told.
        drop(told);
    }
    Ok(())
}
