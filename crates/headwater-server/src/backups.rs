//! Online backups over HTTP: one at a time, held by a lease that its client keeps alive by asking.
//!
//! | method and path | answer |
//! |---|---|
//! | `POST /v1/backups` | 201, a JSON object: `id`, `store`, `frame`, `files`, `bytes`, `lease_seconds`; 409 if one is under way |
//! | `GET /v1/backups/ID/files?after=NAME` | names and lengths of the files behind `NAME`, at most [`PAGE_FILES`] |
//! | `GET /v1/backups/ID/files/NAME` | bytes of one file; `Range: bytes=A-B` gives at most [`PIECE_BYTES`] of them |
//! | `DELETE /v1/backups/ID` | 204; what the backup held is free again |
//!
//! Guarantees:
//! * a client that is gone holds nothing for longer than [`LEASE`]
//! * a request takes at most [`PIECE_BYTES`] of memory, and few at a time read from the disk
//! * pages in a browser cannot ask for a backup or read one: requests with an `Origin` are refused, and so is a host
//!   that could be such a page's own (see [`crate::hosts`])
//!
//! What a backup is: `headwater_engine::Image`.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use headwater_engine::{Engine, Image, ImageError, StoreError};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::http::Pages;
use crate::problem::Problem;

/// How long a backup outlives its client's last request.
const LEASE: Duration = Duration::from_secs(60);
/// Most bytes of a file in one answer.
const PIECE_BYTES: u64 = 4 << 20;
/// Most files in one list.
const PAGE_FILES: usize = 1000;
/// Pieces read at a time.
const READS_MAX: usize = 4;

/// The backup under way, if there is one. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Backups {
    lease: Arc<Mutex<Option<Lease>>>,
    reads: Arc<Semaphore>,
}

#[derive(Debug)]
struct Lease {
    id: String,
    image: Arc<Image>,
    /// When its client was last heard of.
    used: Instant,
}

impl Default for Backups {
    fn default() -> Self {
        Self { lease: Arc::default(), reads: Arc::new(Semaphore::new(READS_MAX)) }
    }
}

impl Backups {
    fn lease(&self) -> MutexGuard<'_, Option<Lease>> {
        self.lease.lock().expect("no holder of the lease panics")
    }

    /// The image of a backup, whose client is hereby heard of.
    fn image(&self, id: &str) -> Option<Arc<Image>> {
        let mut lease = self.lease();
        let lease = lease.as_mut().filter(|lease| lease.id == id)?;
        lease.used = Instant::now();
        Some(lease.image.clone())
    }

    async fn begin(&self, engine: Engine) -> Response {
        let image = match tokio::task::spawn_blocking(move || engine.image()).await.expect("a panic ends the process") {
            Ok(image) => Arc::new(image),
            Err(ImageError::UnderWay) => {
                return problem(
                    StatusCode::CONFLICT,
                    "another backup is under way; it ends 60 s after its client does",
                );
            }
            Err(ImageError::Store(error @ StoreError::Unreachable { .. })) => {
                tracing::warn!(%error, "could not begin a backup");
                return problem(StatusCode::SERVICE_UNAVAILABLE, "object storage does not answer");
            }
            Err(ImageError::Store(error)) => {
                tracing::error!(%error, "could not begin a backup");
                return problem(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the store could not be read; the server's log says more",
                );
            }
        };
        // Another number after each start: a client must not go on with another image.
        let id = format!("{:016x}", RandomState::new().hash_one(image.frame));
        let about = json!({
            "id": id,
            "store": format!("{:032x}", image.store),
            "frame": image.frame,
            "files": image.len(),
            "bytes": image.bytes(),
            "lease_seconds": LEASE.as_secs(),
        });
        tracing::info!(backup = id, frame = image.frame, files = image.len(), bytes = image.bytes(), "backup begun");
        *self.lease() = Some(Lease { id: id.clone(), image, used: Instant::now() });
        let backups = self.clone();
        tokio::spawn(async move { backups.watch(&id).await });
        (StatusCode::CREATED, Json(about)).into_response()
    }

    /// Ends the backup once nobody has asked for it for too long.
    async fn watch(&self, id: &str) {
        loop {
            let until = match &*self.lease() {
                Some(lease) if lease.id == id => lease.used + LEASE,
                _ => return,
            };
            if until <= Instant::now() {
                tracing::warn!(backup = id, "backup ended: nobody asked for it any more");
                self.end(id).await;
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    /// True if there was such a backup.
    async fn end(&self, id: &str) -> bool {
        let ended = self.lease().take_if(|lease| lease.id == id);
        let was_there = ended.is_some();
        // Letting go deletes what waited for it.
        tokio::task::spawn_blocking(move || drop(ended)).await.expect("a panic ends the process");
        was_there
    }
}

/// Refuses what a page in somebody's browser could send.
pub(crate) async fn guard(request: Request, next: Next) -> Response {
    let headers = request.headers();
    if headers.contains_key(header::ORIGIN) {
        return problem(StatusCode::FORBIDDEN, "pages in a browser may not ask for this");
    }
    next.run(request).await
}

pub(crate) async fn begin(State(pages): State<Pages>) -> Response {
    match pages.ready() {
        Some(engine) => pages.backups.begin(engine).await,
        None => problem(StatusCode::SERVICE_UNAVAILABLE, "the server is not ready"),
    }
}

#[derive(serde::Deserialize)]
pub(crate) struct After {
    #[serde(default)]
    after: String,
}

pub(crate) async fn list(State(pages): State<Pages>, Path(id): Path<String>, Query(after): Query<After>) -> Response {
    let Some(image) = pages.backups.image(&id) else { return gone() };
    let files = image.files(&after.after).take(PAGE_FILES);
    let files: Vec<_> = files.map(|file| json!({"name": file.name, "length": file.length})).collect();
    Json(json!({ "files": files })).into_response()
}

pub(crate) async fn read(
    State(pages): State<Pages>,
    Path((id, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let Some(image) = pages.backups.image(&id) else { return gone() };
    let Some(length) = image.length(&name) else {
        return problem(StatusCode::NOT_FOUND, "the backup has no such file");
    };
    let wanted = match headers.get(header::RANGE).map(|range| range.to_str().ok().and_then(parse_range)) {
        None if length > PIECE_BYTES => {
            return problem(StatusCode::RANGE_NOT_SATISFIABLE, "ask for a range: files above 4 MiB come in pieces");
        }
        None => None,
        Some(Some((from, _))) if from >= length => {
            return problem(StatusCode::RANGE_NOT_SATISFIABLE, "the file ends before that range");
        }
        Some(Some((from, to))) => Some((from, to.min(length - 1).min(from + PIECE_BYTES - 1))),
        Some(None) => return problem(StatusCode::RANGE_NOT_SATISFIABLE, "range is not of the form bytes=A-B"),
    };
    let (from, count) = wanted.map_or((0, length), |(from, to)| (from, to - from + 1));
    let _turn = pages.backups.reads.acquire().await.expect("the semaphore is never closed");
    let (reader, file) = (image.clone(), name.clone());
    let bytes = tokio::task::spawn_blocking(move || reader.read(&file, from, count as usize));
    match bytes.await.expect("a panic ends the process") {
        Some(Ok(bytes)) => match wanted {
            None => bytes.into_response(),
            Some((from, to)) => {
                let range = format!("bytes {from}-{to}/{length}");
                (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, range)], bytes).into_response()
            }
        },
        Some(Err(error @ StoreError::Unreachable { .. })) => {
            tracing::warn!(%error, name, "a backup cannot have a chunk now");
            problem(StatusCode::SERVICE_UNAVAILABLE, "object storage does not answer")
        }
        Some(Err(error)) => {
            tracing::error!(%error, name, "could not read a file for a backup");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "the file could not be read; the server's log says more")
        }
        None => problem(StatusCode::NOT_FOUND, "the backup has no such file"),
    }
}

pub(crate) async fn end(State(pages): State<Pages>, Path(id): Path<String>) -> Response {
    if pages.backups.end(&id).await { StatusCode::NO_CONTENT.into_response() } else { gone() }
}

fn gone() -> Response {
    problem(StatusCode::NOT_FOUND, "there is no such backup; its lease may have ended")
}

fn problem(status: StatusCode, detail: &str) -> Response {
    Problem::new(status, detail).into_response()
}

/// First and last byte of `bytes=A-B` or `bytes=A-`. Source: RFC 9110, 14.1.
fn parse_range(text: &str) -> Option<(u64, u64)> {
    let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
    let from = from.parse().ok()?;
    let to = if to.is_empty() { u64::MAX } else { to.parse().ok()? };
    (from <= to).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_backup_whose_client_is_gone_ends_and_one_that_is_asked_for_stays() {
        use headwater_engine::io::{Io, RealClock, RealDisk, RealRandom};

        let directory = tempfile::tempdir().unwrap();
        let io = Io {
            disk: Arc::new(RealDisk::new(directory.path())),
            clock: Arc::new(RealClock::default()),
            random: Arc::new(RealRandom),
        };
        let options = headwater_engine::Options::default();
        let engine = Engine::open(io, &options, Arc::new(|fault| panic!("{fault}"))).unwrap();
        let backups = Backups::default();
        assert_eq!(backups.begin(engine.clone()).await.status(), StatusCode::CREATED);
        assert_eq!(backups.begin(engine.clone()).await.status(), StatusCode::CONFLICT);
        let id = backups.lease().as_ref().unwrap().id.clone();
        for _ in 0..5 {
            tokio::time::sleep(LEASE - Duration::from_secs(1)).await;
            assert!(backups.image(&id).is_some(), "its client asks for it");
        }
        tokio::time::sleep(LEASE + Duration::from_secs(1)).await;
        assert!(backups.image(&id).is_none(), "nobody asked for it");
        // The lease is gone first; what the image held follows.
        while engine.image().is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(!backups.end(&id).await);
        tokio::task::spawn_blocking(move || engine.close()).await.unwrap();
    }

    #[test]
    fn ranges_are_two_numbers_or_one() {
        assert_eq!(parse_range("bytes=0-9"), Some((0, 9)));
        assert_eq!(parse_range("bytes=7-"), Some((7, u64::MAX)));
        for text in ["", "bytes=", "bytes=-5", "bytes=9-1", "bytes=0-1,3-4", "items=0-1", "bytes=a-b"] {
            assert_eq!(parse_range(text), None, "{text}");
        }
    }
}
