//! Who is there: members that beat in a stream.

use headwater::client::{Error, ErrorKind, Member, Membership, Result};
use pyo3::exceptions::{PyStopAsyncIteration, PyStopIteration};
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::client::NativeClient;
use crate::errors::raise;
use crate::pending::Pending;
use crate::reading::{Cursor, Source, readable};
use crate::values::{duration, stream};

/// A membership until it is left.
pub(crate) struct Joined {
    membership: Option<Membership>,
}

fn left() -> Error {
    Error::new(ErrorKind::Closed, "the membership was left")
}

/// Changes, of which there is always a next one.
impl Source for Joined {
    type Item = Vec<Member>;

    async fn next(&mut self) -> Result<Option<Vec<Member>>> {
        self.membership.as_mut().ok_or_else(left)?.changed().await.map(Some)
    }
}

/// Membership of this process in something.
#[pyclass(frozen, module = "headwater._native", name = "Membership")]
pub(crate) struct NativeMembership {
    name: String,
    cursor: Cursor<Joined>,
}

#[pyfunction]
pub(crate) fn _join(client: &NativeClient, stream: &str, name: String, every: f64) -> PyResult<Pending> {
    let (client, stream, every) = (client.client.clone(), self::stream(stream)?, duration(every)?);
    Pending::start(async move {
        let membership = client.join(&stream, &name, every).await?;
        Ok::<_, Error>(NativeMembership { name, cursor: Cursor::of(Joined { membership: Some(membership) }) })
    })
}

/// Name of each member, and whether it is healthy.
fn told(members: Vec<Member>) -> Vec<(String, bool)> {
    members.into_iter().map(|member| (member.name, member.is_healthy)).collect()
}

impl NativeMembership {
    fn object(&self, py: Python<'_>, members: Vec<Member>) -> PyResult<Py<PyAny>> {
        use pyo3::IntoPyObjectExt as _;
        told(members).into_py_any(py)
    }

    fn objects<'py>(&self, py: Python<'py>, items: Vec<Vec<Member>>) -> PyResult<Bound<'py, PyList>> {
        let objects = items.into_iter().map(|item| self.object(py, item));
        PyList::new(py, objects.collect::<PyResult<Vec<_>>>()?)
    }
}

readable!(NativeMembership {
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// As of the last beat.
    fn members(&self, py: Python<'_>) -> PyResult<Vec<(String, bool)>> {
        let taken = self.cursor.locked(py)?;
        let membership = taken.source.membership.as_ref().ok_or_else(|| raise(left()))?;
        membership.members().map(told).map_err(raise)
    }

    /// Stops beating and tells the others. Leaving twice does no harm.
    fn leave(&self) -> PyResult<Pending> {
        self.cursor.give_up();
        let shared = self.cursor.shared();
        Pending::start(async move {
            let mut taken = shared.lock().await;
            taken.ready = None;
            match taken.source.membership.take() {
                Some(membership) => membership.leave().await,
                None => Ok(()),
            }
        })
    }
});
