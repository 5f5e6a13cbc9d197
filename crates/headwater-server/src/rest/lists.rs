//! Lists of any length as one JSON document, written page by page while it is sent.
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

/// A document of `open`, entries parted by commas, and `close`.
///
/// # Errors
/// Whatever goes wrong before the first entries are there.
pub(crate) async fn document<T: Serialize + Send + 'static>(
    open: &'static str,
    close: &'static str,
    limit: usize,
    mut pages: BoxStream<'static, Result<Vec<T>, Problem>>,
) -> Result<Response, Problem> {
    let first = pages.try_next().await?;
    let document = Document { pages, text: open.as_bytes().to_vec(), close: Some(close), left: limit, is_first: true };
    let document = document.with(first);
    let body = Body::from_stream(stream::try_unfold(document, Document::next));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// A document that is being written.
struct Document<T> {
    pages: BoxStream<'static, Result<Vec<T>, Problem>>,
    /// What is written and not sent.
    text: Vec<u8>,
    /// The end, until it is written.
    close: Option<&'static str>,
    /// Entries that are still wanted.
    left: usize,
    is_first: bool,
}

impl<T: Serialize + Send + 'static> Document<T> {
    /// Writes a page, or the end.
    fn with(mut self, page: Option<Vec<T>>) -> Self {
        let is_last = page.is_none();
        for entry in page.into_iter().flatten().take(self.left) {
            if !std::mem::replace(&mut self.is_first, false) {
                self.text.push(b',');
            }
            serde_json::to_writer(&mut self.text, &entry).expect("what is listed has text keys and finite numbers");
            self.left -= 1;
        }
        // Nothing is looked up behind the last entry that is wanted.
        if is_last || self.left == 0 {
            self.text.extend(self.close.take().unwrap_or_default().as_bytes());
        }
        self
    }

    async fn next(mut self) -> Result<Option<(Bytes, Self)>, std::io::Error> {
        while self.text.is_empty() {
            if self.close.is_none() {
                return Ok(None);
            }
            let page = self.pages.try_next().await.map_err(|problem| {
                tracing::warn!(?problem, "a list over HTTP ends before its end");
                std::io::Error::other("the list could not be read on")
            })?;
            self = self.with(page);
        }
        Ok(Some((std::mem::take(&mut self.text).into(), self)))
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
