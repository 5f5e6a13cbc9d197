//! Connections to segment stores, owned by one user at a time and kept for the next.
//!
//! Guarantees:
//! * a connection goes back to the pool only when it owes nobody an answer; otherwise it ends with its lease
//! * connections for reads, which wait at the tail for hours, are shared: many readers need few of them
//! * at most [`IDLE_MAX`] connections per server wait for use, none longer than [`IDLE_FOR_MAX`]

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::told;
use crate::transport::{Service, Transport};

/// Idle connections kept per server. More callers than that at once open connections of their own.
const IDLE_MAX: usize = 8;
/// Servers and what stands before them close silent connections sooner or later.
const IDLE_FOR_MAX: Duration = Duration::from_secs(60);

/// Shared connections per server: as many tasks may work on what comes in.
const SHARED_MAX: usize = 4;
/// Readers on a connection before another one is opened, as long as there may be more.
const SHARED_USERS: usize = 8;

/// Where connections come from.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    transport: Arc<dyn Transport>,
    connect_timeout: Duration,
    /// See [`Connection::open`].
    silence_max: Duration,
    idle: Mutex<BTreeMap<Endpoint, Vec<(Connection, Instant)>>>,
    shared: Mutex<BTreeMap<Endpoint, Vec<Connection>>>,
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, BTreeMap<Endpoint, Vec<(Connection, Instant)>>> {
        self.idle.lock().expect("nobody panics while it holds the pool")
    }
}

/// A connection for one user; goes back when dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: Connection,
    endpoint: Endpoint,
    pool: Arc<Shared>,
}

impl Deref for Lease {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.connection.is_idle() {
            return;
        }
        let now = Instant::now();
        let mut idle = self.pool.locked();
        let waiting = idle.entry(self.endpoint.clone()).or_default();
        waiting.retain(|(_, since)| now - *since < IDLE_FOR_MAX);
        if waiting.len() < IDLE_MAX {
            waiting.push((self.connection.clone(), now));
        }
    }
}

impl Pool {
    pub(crate) fn new(transport: Arc<dyn Transport>, connect_timeout: Duration, silence_max: Duration) -> Self {
        Self {
            shared: Arc::new(Shared {
                transport,
                connect_timeout,
                silence_max,
                idle: Mutex::default(),
                shared: Mutex::default(),
            }),
        }
    }

    /// A connection that nobody else uses, the one that was used last if there is any.
    /// Opening one may take `limit`, and never longer than usual.
    pub(crate) async fn lease(&self, endpoint: &Endpoint, limit: Duration) -> Result<Lease> {
        let connection = match self.idle(endpoint) {
            Some(connection) => connection,
            None => self.open_within(endpoint, limit).await?,
        };
        Ok(Lease { connection, endpoint: endpoint.clone(), pool: self.shared.clone() })
    }

    /// A connection that others use, too.
    pub(crate) async fn share(&self, endpoint: &Endpoint) -> Result<Connection> {
        if let Some(connection) = self.shared(endpoint) {
            return Ok(connection);
        }
        let connection = self.open(endpoint).await?;
        let mut shared = self.shared.shared.lock().expect("nobody panics while it holds the pool");
        let connections = shared.entry(endpoint.clone()).or_default();
        // Somebody else may have opened the last one meanwhile; ours is then for this user alone.
        if connections.len() < SHARED_MAX {
            connections.push(connection.clone());
        }
        Ok(connection)
    }

    /// The shared connection with the fewest users, unless there should be another.
    fn shared(&self, endpoint: &Endpoint) -> Option<Connection> {
        let mut shared = self.shared.shared.lock().expect("nobody panics while it holds the pool");
        let connections = shared.get_mut(endpoint)?;
        connections.retain(Connection::takes_writers);
        let least = connections.iter().min_by_key(|connection| connection.handles())?;
        (connections.len() == SHARED_MAX || least.handles() <= SHARED_USERS).then(|| least.clone())
    }

    /// A new connection that never comes here.
    pub(crate) async fn open(&self, endpoint: &Endpoint) -> Result<Connection> {
        self.open_within(endpoint, Duration::MAX).await
    }

    async fn open_within(&self, endpoint: &Endpoint, limit: Duration) -> Result<Connection> {
        let limit = limit.min(self.shared.connect_timeout);
        let open = async {
            let stream = self.shared.transport.connect(Service::SegmentStore, endpoint).await;
            let stream = stream.map_err(|error| {
                Error::caused(ErrorKind::Unavailable, format!("could not connect to segment store {endpoint}"), error)
            })?;
            Connection::open(stream, endpoint.clone(), self.shared.silence_max).await
        };
        let opened = tokio::time::timeout(limit, open).await.unwrap_or_else(|_| {
            let what = format!("segment store {endpoint} did not take a connection within {limit:.1?}");
            Err(Error::new(ErrorKind::Unavailable, what))
        });
        match &opened {
            Ok(_) => tracing::debug!(target: told::CONNECTION, segment_store = %endpoint, "connection opened"),
            Err(error) => {
                tracing::debug!(target: told::CONNECTION, segment_store = %endpoint, ?error, "connection could not be opened");
            }
        }
        opened
    }

    fn idle(&self, endpoint: &Endpoint) -> Option<Connection> {
        let now = Instant::now();
        let mut idle = self.shared.locked();
        let waiting = idle.get_mut(endpoint)?;
        while let Some((connection, since)) = waiting.pop() {
            if now - since < IDLE_FOR_MAX && connection.is_idle() {
                return Some(connection);
            }
        }
        None
    }
}
