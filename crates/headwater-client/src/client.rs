//! A client of one cluster.

use std::sync::Arc;
use std::time::Duration;

use crate::controller::Controllers;
use crate::error::Result;
use crate::options::ClientOptions;
use crate::pool::Pool;
use crate::segments::SegmentStores;

/// Below, nothing can be told from a busy moment.
const REQUEST_TIMEOUT_MIN: Duration = Duration::from_millis(100);

/// A client of one cluster: everything begins here. Cheap to clone; all clones share connections.
#[doc = crate::example!("examples/client.rs")]
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) controllers: Controllers,
    pub(crate) segments: SegmentStores,
}

impl Client {
    /// A client of the controllers at an address, with all settings at their defaults; see [`ClientOptions::new`] for what
    /// an address is. It connects when it is first used, and needs a Tokio runtime then.
    ///
    /// # Errors
    /// `Invalid`: this is no address, or it asks for TLS without saying whom to trust.
    pub fn connect(address: &str) -> Result<Self> {
        ClientOptions::new(address)?.connect()
    }

    pub(crate) fn new(options: ClientOptions) -> Result<Self> {
        let transport = options.make_transport()?;
        let controllers = Controllers::new(&options, &transport);
        let pool = Pool::new(transport, options.connect_timeout, options.request_timeout.max(REQUEST_TIMEOUT_MIN));
        let segments = SegmentStores::new(controllers.clone(), pool, options.request_timeout, options.retry_for);
        Ok(Self { shared: Arc::new(Shared { controllers, segments }) })
    }

    pub(crate) fn controllers(&self) -> &Controllers {
        &self.shared.controllers
    }

    pub(crate) fn segments(&self) -> &SegmentStores {
        &self.shared.segments
    }
}
