//! Lists of any length as one JSON document, written piece by piece while it is sent: the next one once the one before
//! was taken. A piece is a page of names, a few epochs, or as many streams as there is memory taken for; see [`Piece`].
//!
//! The first page is looked at before anything is answered, so that what is wrong gets its status. A list that breaks
//! later ends the connection before the end of the document, which no reader takes for a whole one. Who wants less asks
//! with `limit`, and goes on `after` the last name.

use std::future::Future;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use headwater_controller::Room;
use headwater_controller::model::{ControllerError, Page};
use headwater_types::Name;
use serde::Serialize;

use super::Asked;
use crate::problem::Problem;

/// What a caller wants of a list.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Name behind which it begins; empty is the beginning.
    pub(crate) after: String,
    /// Most entries.
    pub(crate) limit: usize,
}

/// Most entries that `limit` may ask for; without it there is no limit.
pub(crate) const LIMIT_MAX: i64 = 100_000;

impl Part {
    pub(crate) fn of(asked: &Asked) -> Result<Self, Problem> {
        let after = asked.text("after")?.unwrap_or_default();
        if !after.is_empty() && Name::parse(after).is_err() {
            return Err(Problem::bad("after is no name"));
        }
        let limit = asked.number("limit", 1..=LIMIT_MAX)?.map_or(usize::MAX, |limit| limit as usize);
        Ok(Self { after: after.to_owned(), limit })
    }
}

/// Pages of names from `part.after` to the end; `next` gives the page behind a name, empty at the end.
pub(crate) fn names<F, Fut>(part: &Part, next: F) -> BoxStream<'static, Result<Vec<String>, Problem>>
where
    F: Fn(String) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Page, Problem>> + Send,
{
    let begin = Some((part.after.clone(), next));
    stream::try_unfold(begin, async |place| {
        let Some((token, next)) = place else { return Ok(None) };
        let page = next(token).await?;
        Ok((!page.names.is_empty()).then_some((page.names, Some((page.token, next)))))
    })
    .boxed()
}

/// Entries that are written at once.
pub(crate) struct Piece<T> {
    pub(crate) entries: Vec<T>,
    /// The memory that they and their text take, given back once the text is sent; `None` for what takes little.
    pub(crate) room: Option<Room>,
}

impl<T> From<Vec<T>> for Piece<T> {
    fn from(entries: Vec<T>) -> Self {
        Self { entries, room: None }
    }
}

/// Text whose memory was taken before, and is given back with its last byte.
pub(crate) fn held(text: Vec<u8>, room: Room) -> Bytes {
    struct Held(Vec<u8>, #[expect(dead_code, reason = "dropped with the bytes")] Room);
    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    Bytes::from_owner(Held(text, room))
}

/// A document of `open`, entries parted by commas, and `close`.
///
/// # Errors
/// Whatever goes wrong before the first entries are there.
pub(crate) async fn document<T, P>(
    open: &'static str,
    close: &'static str,
    limit: usize,
    pieces: BoxStream<'static, Result<P, Problem>>,
) -> Result<Response, Problem>
where
    T: Serialize + Send + 'static,
    P: Into<Piece<T>> + 'static,
{
    let mut pieces = pieces.map_ok(Into::into).boxed();
    let first = pieces.try_next().await?;
    let document = Document { pieces, text: Bytes::new(), open, close: Some(close), left: limit, is_first: true };
    let document = document.with(first);
    let body = Body::from_stream(stream::try_unfold(document, Document::next));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Most text that is given away at once: who takes it may copy it, and keep the copy for as long as its peer takes nothing.
const SENT_BYTES: usize = 16 << 10;

/// A document that is being written.
struct Document<T> {
    pieces: BoxStream<'static, Result<Piece<T>, Problem>>,
    /// What is written and not sent.
    text: Bytes,
    /// The beginning, until it is written.
    open: &'static str,
    /// The end, until it is written.
    close: Option<&'static str>,
    /// Entries that are still wanted.
    left: usize,
    is_first: bool,
}

impl<T: Serialize + Send + 'static> Document<T> {
    /// Writes a piece, or the end. Everything before was sent.
    fn with(mut self, piece: Option<Piece<T>>) -> Self {
        let mut text = std::mem::take(&mut self.open).as_bytes().to_vec();
        let is_last = piece.is_none();
        let Piece { entries, room } = piece.unwrap_or_else(|| Vec::new().into());
        for entry in entries.into_iter().take(self.left) {
            if !std::mem::replace(&mut self.is_first, false) {
                text.push(b',');
            }
            serde_json::to_writer(&mut text, &entry).expect("what is listed has text keys and finite numbers");
            self.left -= 1;
        }
        // Nothing is looked up behind the last entry that is wanted.
        if is_last || self.left == 0 {
            text.extend(self.close.take().unwrap_or_default().as_bytes());
        }
        self.text = match room {
            Some(room) => held(text, room),
            None => text.into(),
        };
        self
    }

    async fn next(mut self) -> Result<Option<(Bytes, Self)>, std::io::Error> {
        while self.text.is_empty() {
            if self.close.is_none() {
                return Ok(None);
            }
            // Not while the next piece waits for its memory.
            self.text = Bytes::new();
            let piece = self.pieces.try_next().await.map_err(|problem| {
                tracing::warn!(?problem, "a list over HTTP ends before its end");
                std::io::Error::other("the list could not be read on")
            })?;
            self = self.with(piece);
        }
        let sent = self.text.split_to(self.text.len().min(SENT_BYTES));
        Ok(Some((sent, self)))
    }
}

/// One page of a listing inside a scope.
pub(crate) fn page(listing: Result<headwater_controller::model::Listing, ControllerError>) -> Result<Page, Problem> {
    use headwater_controller::model::Listing;
    match listing? {
        Listing::Page(page) => Ok(page),
        Listing::ScopeNotFound => Err(Problem::not_found("the scope")),
    }
}
