//! Calls to the controller: which server is asked, how long, and how often.
//!
//! Guarantees:
//! * a call that cannot do harm twice is repeated until it is answered or the time for retries is over, each time at the
//!   next controller
//! * a call ends within the time for retries, and a second where that leaves too little for one attempt

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use headwater_proto::controller::controller_service_client::ControllerServiceClient;
use hyper_util::rt::TokioIo;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Uri};
use tonic::{Code, Request, Response, Status};

use crate::credentials::Hidden;
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::options::ClientOptions;
use crate::retry::Backoff;
use crate::told;
use crate::transport::{Duplex, Service, Transport};

/// Largest answer taken, in bytes: the configuration of a group with thousands of streams. Servers bound theirs below.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// An idle connection to a controller is asked for a sign of life, so that one that died is noticed.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) type Stub = ControllerServiceClient<Channel>;

/// All controllers of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Controllers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    channels: Vec<(Endpoint, Channel)>,
    /// The one asked last; a failure moves on to the next.
    current: AtomicUsize,
    credentials: Option<Hidden>,
    request_timeout: Duration,
    retry_for: Duration,
}

impl Controllers {
    pub(crate) fn new(options: &ClientOptions, transport: &Arc<dyn Transport>) -> Self {
        let channels = options
            .address
            .controllers
            .iter()
            .map(|endpoint| (endpoint.clone(), channel(endpoint, transport.clone(), options.connect_timeout)));
        Self {
            shared: Arc::new(Shared {
                channels: channels.collect(),
                current: AtomicUsize::new(0),
                credentials: options.credentials.clone(),
                request_timeout: options.request_timeout,
                retry_for: options.retry_for,
            }),
        }
    }

    /// Whether callers prove who they are; without that, segment stores ask for no tokens.
    pub(crate) fn has_credentials(&self) -> bool {
        self.shared.credentials.is_some()
    }

    /// Calls until there is an answer. The call is repeated after failures, so it must be one that does no harm twice.
    pub(crate) async fn call<Q, A, F>(
        &self,
        name: &'static str,
        request: Q,
        call: impl Fn(Stub, Request<Q>) -> F,
    ) -> Result<A>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let mut backoff = Backoff::for_at_most(self.shared.retry_for);
        let mut asked_again = false;
        loop {
            let at = self.shared.current.load(Ordering::Relaxed);
            let (endpoint, channel) = &self.shared.channels[at];
            let stub = ControllerServiceClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
            let mut asked = Request::new(request.clone());
            if let Err(error) = self.authorize(&mut asked).await {
                // Whoever gives the proof is away, not the controller.
                if error.kind() != ErrorKind::Unavailable || !backoff.pause().await {
                    return Err(error);
                }
                continue;
            }
            let limit = backoff.attempt(self.shared.request_timeout);
            let outcome = tokio::time::timeout(limit, call(stub, asked)).await;
            let status = match outcome {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(format!("no answer within {limit:.1?}")),
            };
            let error = error_of(name, endpoint, &status);
            if error.kind() == ErrorKind::Unauthenticated
                && !asked_again
                && self.shared.credentials.as_ref().is_some_and(|credentials| credentials.0.refused())
            {
                asked_again = true;
                continue;
            }
            if !may_pass(&status) {
                return Err(error);
            }
            let next = (at + 1) % self.shared.channels.len();
            let _ = self.shared.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
            tracing::debug!(target: told::RETRY, call = name, controller = %endpoint, error = %status, "controller did not answer");
            // Another controller is asked at once; a pause is for when all were asked.
            if next == 0 && !backoff.pause().await {
                return Err(error);
            }
            if backoff.left().is_zero() {
                return Err(error);
            }
        }
    }

    async fn authorize<Q>(&self, request: &mut Request<Q>) -> Result<()> {
        if let Some(credentials) = &self.shared.credentials {
            let header = credentials.0.authorization().await?;
            let mut value = AsciiMetadataValue::try_from(header)
                .map_err(|_| Error::new(ErrorKind::Invalid, "credentials have characters that no header has"))?;
            value.set_sensitive(true);
            request.metadata_mut().insert("authorization", value);
        }
        Ok(())
    }
}

fn channel(endpoint: &Endpoint, transport: Arc<dyn Transport>, connect_timeout: Duration) -> Channel {
    let connector = {
        let endpoint = endpoint.clone();
        tower::service_fn(move |_: Uri| -> BoxFuture<'static, std::io::Result<TokioIo<Box<dyn Duplex>>>> {
            let (stream, controller) = (transport.connect(Service::Controller, &endpoint), endpoint.clone());
            Box::pin(async move {
                let outcome = stream.await;
                match &outcome {
                    Ok(_) => tracing::debug!(target: told::CONNECTION, %controller, "connection opened"),
                    Err(error) => {
                        tracing::debug!(target: told::CONNECTION, %controller, %error, "connection could not be opened");
                    }
                }
                Ok(TokioIo::new(outcome?))
            })
        })
    };
    // Only the path is looked at by servers; where the connection goes is the connector's business.
    let uri = Uri::builder().scheme("http").authority(endpoint.to_string()).path_and_query("/").build();
    Channel::builder(uri.expect("an endpoint's host was checked when it was read"))
        .connect_timeout(connect_timeout)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .connect_with_connector_lazy(connector)
}

/// Whether the same call may be answered otherwise a little later.
fn may_pass(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Aborted => true,
        // A connection that broke while the answer was on its way shows as one of these, with its cause below.
        Code::Unknown | Code::Cancelled | Code::Internal => std::error::Error::source(status).is_some(),
        _ => false,
    }
}

fn error_of(name: &'static str, endpoint: &Endpoint, status: &Status) -> Error {
    let kind = match status.code() {
        Code::InvalidArgument | Code::OutOfRange => ErrorKind::Invalid,
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::FailedPrecondition => ErrorKind::Conflict,
        Code::Unauthenticated => ErrorKind::Unauthenticated,
        Code::PermissionDenied => ErrorKind::Denied,
        Code::ResourceExhausted => ErrorKind::Exhausted,
        Code::Unimplemented => ErrorKind::Unsupported,
        Code::Unavailable | Code::DeadlineExceeded | Code::Aborted | Code::Cancelled => ErrorKind::Unavailable,
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => {
            if may_pass(status) {
                ErrorKind::Unavailable
            } else {
                ErrorKind::Protocol
            }
        }
    };
    // What lies below the status is in its words already.
    Error::new(kind, format!("{name} at controller {endpoint}: {}", words(status)))
}

/// The server's words, which may be empty.
fn words(status: &Status) -> String {
    if status.message().is_empty() { status.code().description().to_owned() } else { status.message().to_owned() }
}
