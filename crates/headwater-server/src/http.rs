//! The HTTP listener: health and figures, Pravega's interface for administrators, views for operators, online backups.
//!
//! | path | answer |
//! |---|---|
//! | `/` | name and version, as JSON |
//! | `/openapi.json` | every route, what it takes and what it answers, see [`crate::openapi`] |
//! | `/healthz` | 200 while the process is worth keeping (`ok`, `doubtful` if stored bytes have rotted, `full` if writes wait for room on the disk), 503 once the store cannot go on |
//! | `/readyz` | 200 while clients are served, 503 before and while stopping |
//! | `/ping` | 200 |
//! | `/metrics` | figures in the text format that Prometheus scrapes |
//! | `/v1/backups…` | online backups, see [`crate::backups`] |
//! | `/v1/health…`, `/v1/scopes…` | see [`crate::rest`], and [`crate::plans`] for what retention would do |
//!
//! What a caller needs for each is in the table of `headwater-auth`; a route without a row cannot be served. Where
//! nobody has to prove anything, requests for unknown hosts reach none of them, see [`crate::hosts`]. Whatever is wrong
//! is said by a [`Problem`].
//!
//! A connection answers one request. A peer that is slow to send its header is closed after [`HEADER_PATIENCE`], and
//! any peer after [`CONNECTION_PATIENCE`].

use std::future::poll_fn;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post, put};
use headwater_auth::HttpRoute;
use headwater_controller::Controller;
use headwater_engine::Engine;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::auth::http::guarded;
use crate::auth::{Guard, Origin};
use crate::backups::{self, Backups};
use crate::hosts::Hosts;
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::rest::{groups, health, scopes, streams, views};
use crate::socket::Socket;
use crate::{openapi, plans};

/// How long one connection may last: pages are small, and a peer that does not read must not keep its place.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(30);
/// How long a request's header may take.
const HEADER_PATIENCE: Duration = Duration::from_secs(10);
/// How long a peer may take to hear that its connection ends.
const PARTING_PATIENCE: Duration = Duration::from_secs(1);
/// Pieces of lists of streams that are looked up or being sent at a time.
const LISTING_MAX: usize = 2;
/// Longest header; every request that has an answer here is far shorter.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// Source: the OpenMetrics specification, which Prometheus asks for.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where the server stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// The store recovers.
    Starting,
    /// Clients are served.
    Ready,
    /// The last requests are answered.
    Stopping,
    /// The store cannot go on; the process is about to end.
    Failed,
}

/// What the pages are made from.
#[derive(Clone, Debug)]
pub(crate) struct Pages {
    phase: Arc<AtomicU8>,
    metrics: Metrics,
    pub(crate) backups: Backups,
    /// Turns of lists that take memory from what requests share, so that few who take their answers slowly have little of it.
    pub(crate) listing: Arc<Semaphore>,
    /// Set once the store is open.
    engine: Arc<OnceLock<Engine>>,
    /// Set once its records are read.
    controller: Arc<OnceLock<Controller>>,
}

impl Pages {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            phase: Arc::new(AtomicU8::new(Phase::Starting as u8)),
            metrics,
            backups: Backups::default(),
            listing: Arc::new(Semaphore::new(LISTING_MAX)),
            engine: Arc::default(),
            controller: Arc::default(),
        }
    }

    /// A failure is final.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::Relaxed);
    }

    pub(crate) fn opened(&self, engine: Engine) {
        assert!(self.engine.set(engine).is_ok(), "the store is opened once");
    }

    pub(crate) fn controlled(&self, controller: Controller) {
        assert!(self.controller.set(controller).is_ok(), "there is one controller");
    }

    /// The controller, while clients are served.
    pub(crate) fn controller(&self) -> Result<&Controller, Problem> {
        let controller = if self.is(Phase::Ready) { self.controller.get() } else { None };
        controller.ok_or_else(Problem::not_ready)
    }

    /// The store, while clients are served.
    pub(crate) fn ready(&self) -> Option<Engine> {
        if self.is(Phase::Ready) { self.engine.get().cloned() } else { None }
    }

    pub(crate) fn phase(&self) -> Phase {
        let phases = [Phase::Starting, Phase::Ready, Phase::Stopping, Phase::Failed];
        phases[usize::from(self.phase.load(Ordering::Relaxed))]
    }

    /// Times that stored bytes were not what was written; `None` before the store is open.
    pub(crate) fn doubts(&self) -> Option<u64> {
        self.engine.get().map(Engine::doubts)
    }

    /// Whether the wall clock has jumped; `None` before the controller is there.
    pub(crate) fn clock_jumped(&self) -> Option<bool> {
        self.controller.get().map(Controller::has_clock_jumped)
    }

    fn is(&self, phase: Phase) -> bool {
        self.phase() == phase
    }
}

pub(crate) fn router(pages: Pages, guard: &Guard, hosts: &Hosts) -> Router {
    let mut router = Router::new();
    for route in HttpRoute::ALL {
        router = router.route(route.path(), guarded(*route, handler(*route), guard));
    }
    let router = router.fallback(nothing_here).method_not_allowed_fallback(another_method);
    let hosts = hosts.clone();
    // Around everything, also what is at no path.
    router.with_state(pages).layer(from_fn(move |request, next| hosts.clone().guard(request, next)))
}

async fn nothing_here() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path; /openapi.json says what there is")
}

async fn another_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path is for other methods; the header allow says for which")
}

fn handler(route: HttpRoute) -> MethodRouter<Pages> {
    let backups = |handler: MethodRouter<Pages>| handler.route_layer(from_fn(backups::guard));
    match route {
        HttpRoute::About => get(about),
        HttpRoute::OpenApi => get(openapi::serve),
        HttpRoute::Ping => get(async || StatusCode::OK),
        HttpRoute::Healthz => get(healthz),
        HttpRoute::Readyz => get(readyz),
        HttpRoute::Metrics => get(metrics),
        HttpRoute::BeginBackup => backups(post(backups::begin)),
        HttpRoute::EndBackup => backups(delete(backups::end)),
        HttpRoute::ListBackup => backups(get(backups::list)),
        HttpRoute::ReadBackup => backups(get(backups::read)),
        HttpRoute::Health => get(health::all),
        HttpRoute::HealthOf => get(health::all_of),
        HttpRoute::Readiness => get(health::readiness),
        HttpRoute::ReadinessOf => get(health::readiness_of),
        HttpRoute::Liveness => get(health::liveness),
        HttpRoute::LivenessOf => get(health::liveness_of),
        HttpRoute::HealthDetails => get(health::details),
        HttpRoute::HealthDetailsOf => get(health::details_of),
        HttpRoute::HealthStatus => get(health::status),
        HttpRoute::HealthStatusOf => get(health::status_of),
        HttpRoute::ListScopes => get(scopes::list),
        HttpRoute::CreateScope => post(scopes::create),
        HttpRoute::GetScope => get(scopes::show),
        HttpRoute::DeleteScope => delete(scopes::delete),
        HttpRoute::ListStreams => get(streams::list),
        HttpRoute::CreateStream => post(streams::create),
        HttpRoute::GetStream => get(streams::show),
        HttpRoute::UpdateStream => put(streams::update),
        HttpRoute::DeleteStream => delete(streams::delete),
        HttpRoute::SealStream => put(streams::seal),
        HttpRoute::ScalingEvents => get(streams::scaling_events),
        HttpRoute::RetentionPlan => get(plans::retention),
        HttpRoute::SegmentHeat => get(views::heat),
        HttpRoute::Epochs => get(views::epochs),
        HttpRoute::Transactions => get(views::transactions),
        HttpRoute::OpenTransactions => get(views::open_transactions),
        HttpRoute::ListGroups => get(groups::list),
        HttpRoute::GetGroup => get(groups::show),
        HttpRoute::DeleteGroup => delete(groups::delete),
        HttpRoute::GroupLag => get(groups::lag),
    }
}

/// Serves one connection until it ends, or finishes its request when `stopping`.
pub(crate) async fn serve(socket: impl Into<Socket>, origin: Origin, router: Router, stopping: CancellationToken) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        // What guards a route asks for it.
        request.extensions_mut().insert(origin);
        Box::pin(router.call(request))
    });
    let mut connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_PATIENCE)
        .keep_alive(false)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(socket.into()), service);
    let ended = tokio::select! {
        ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => ended,
        () = tokio::time::sleep(CONNECTION_PATIENCE) => return,
        () = stopping.cancelled() => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            let last = poll_fn(|cx| connection.poll_without_shutdown(cx));
            let Ok(ended) = tokio::time::timeout(CONNECTION_PATIENCE, last).await else { return };
            ended
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "HTTP connection closed");
    }
    // Also after a request that is none: that was answered, too.
    let mut socket = connection.into_parts().io.into_inner();
    // TLS has a last word of its own, which a peer who takes nothing would keep waiting.
    match tokio::time::timeout(PARTING_PATIENCE, socket.shutdown()).await {
        Ok(Ok(())) => socket.into_split().0.linger().await,
        Ok(Err(error)) => tracing::debug!(%error, "HTTP connection lost after its answer"),
        Err(_) => tracing::debug!("HTTP peer takes no end of its connection"),
    }
}

async fn about() -> Response {
    let page = concat!("{\"name\":\"headwater\",\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}\n");
    ([(header::CONTENT_TYPE, "application/json")], page).into_response()
}

async fn healthz(State(pages): State<Pages>) -> Response {
    if pages.is(Phase::Failed) {
        return unavailable("failed\n");
    }
    match pages.engine.get().map_or(0, Engine::doubts) {
        0 if pages.engine.get().is_some_and(Engine::is_full) => {
            "full: the disk has no room, writes wait; reads, truncations and deletions go on\n".into_response()
        }
        0 => "ok\n".into_response(),
        doubts => {
            format!("doubtful: {doubts} times stored bytes were not what was written; see the log\n").into_response()
        }
    }
}

async fn readyz(State(pages): State<Pages>) -> Response {
    if pages.is(Phase::Ready) { "ready\n".into_response() } else { unavailable("not ready\n") }
}

async fn metrics(State(pages): State<Pages>) -> Response {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], pages.metrics.render(pages.engine.get(), pages.controller.get()))
        .into_response()
}

fn unavailable(text: &'static str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    /// Of a server without authentication.
    fn hosts() -> Hosts {
        Hosts::named(["h"])
    }

    /// Status line and body of one request.
    async fn ask(pages: &Pages, path: &str) -> (String, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let served = tokio::spawn(serve(
            server,
            Origin::default(),
            router(pages.clone(), &Guard::off(), &hosts()),
            CancellationToken::new(),
        ));
        let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        drop(client);
        served.await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    #[tokio::test]
    async fn a_connection_answers_one_request_and_ends() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let router = router(Pages::new(Metrics::new()), &Guard::off(), &hosts());
        let served = tokio::spawn(serve(server, Origin::default(), router, CancellationToken::new()));
        client.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        drop(client);
        served.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[tokio::test]
    async fn whoever_is_still_sending_gets_the_answer_and_no_reset() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let router = router(Pages::new(Metrics::new()), &Guard::off(), &hosts());
        let serving = tokio::spawn(serve(server, Origin::default(), router, CancellationToken::new()));
        let piece = vec![b'x'; 50 << 10];
        client.write_all(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 102400\r\n\r\n").await.unwrap();
        client.write_all(&piece).await.unwrap();
        // By now it is answered, with half of the body unread.
        tokio::time::sleep(Duration::from_millis(200)).await;
        client.write_all(&piece).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        drop(client);
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn a_header_that_is_too_large_is_refused_and_the_refusal_arrives() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let router = router(Pages::new(Metrics::new()), &Guard::off(), &hosts());
        let serving = tokio::spawn(serve(server, Origin::default(), router, CancellationToken::new()));
        let request = format!("GET / HTTP/1.1\r\nHost: h\r\nX-Long: {}\r\n\r\n", "x".repeat(4 * HEADER_BYTES_MAX));
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        drop(client);
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn readiness_follows_the_server_and_health_only_its_failure() {
        let pages = Pages::new(Metrics::new());
        for (phase, ready, healthy, word) in [
            (Phase::Starting, "503", "200", "\"STARTING\""),
            (Phase::Ready, "200", "200", "\"UP\""),
            (Phase::Stopping, "503", "200", "\"DOWN\""),
            (Phase::Failed, "503", "503", "\"FAILED\""),
        ] {
            pages.enter(phase);
            assert_eq!(ask(&pages, "/v1/health/status").await.1, word);
            for (path, expected) in [("/readyz", ready), ("/healthz", healthy)] {
                let (status, _) = ask(&pages, path).await;
                assert!(status.contains(expected), "{phase:?} {path}: {status}");
            }
        }
        pages.enter(Phase::Ready);
        assert!(ask(&pages, "/readyz").await.0.contains("503"), "a failure is final");
    }

    #[tokio::test]
    async fn what_needs_the_controller_is_for_later_until_it_is_there() {
        let pages = Pages::new(Metrics::new());
        for route in HttpRoute::ALL.iter().filter(|route| route.path().starts_with("/v1/scopes")) {
            let path = route.path().replace(['{', '}'], "") + "?from=0&to=1";
            if route.method() == "GET" {
                let (status, body) = ask(&pages, &path).await;
                assert!(status.contains("503") && body.contains("not ready"), "{path}: {status} {body}");
            }
        }
        assert!(ask(&pages, "/v1/health/readiness").await.1.contains("false"));
    }

    #[tokio::test]
    async fn figures_are_there_before_the_store_is() {
        let pages = Pages::new(Metrics::new());
        let (status, body) = ask(&pages, "/metrics").await;
        assert!(status.contains("200") && body.contains("connections_accepted_total"), "{status}\n{body}");
        let (_, about) = ask(&pages, "/").await;
        assert!(about.contains("\"name\":\"headwater\""), "{about}");
        assert!(ask(&pages, "/nothing").await.0.contains("404"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_ends_its_header_is_closed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
        let begun = tokio::time::Instant::now();
        let router = router(Pages::new(Metrics::new()), &Guard::off(), &hosts());
        serve(server, Origin::default(), router, CancellationToken::new()).await;
        assert!(begun.elapsed() >= HEADER_PATIENCE);
    }
}
