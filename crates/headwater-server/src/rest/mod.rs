//! Pravega's `/v1` interface for administrators, and views of our own for operators. JSON in, one call of the
//! controller, JSON out; nothing is decided here.
//!
//! | module | what |
//! |---|---|
//! | [`scopes`], [`streams`], [`groups`], [`health`] | what Pravega has, with its names, words and statuses |
//! | [`views`] | heat, epochs and transactions of a stream |
//! | [`models`] | the objects, and how they follow from the controller's |
//! | [`lists`] | lists of any length, page by page |
//! | [`body`] | what a body may be |
//!
//! Guarantees:
//! * whoever asks for a list gets only what they may read
//! * a list takes the memory of one page of names, or of one piece of what has them, however long it is
//! * a mistake of the caller is a status from 400 to 499 and a problem that says which; a name that breaks the rules
//!   names nothing, so it is answered like one that does not exist, and is a mistake only where something is created
//!
//! What each route needs is in the table of `headwater-auth`, what it takes and answers in [`crate::openapi`].

pub(crate) mod body;
pub(crate) mod groups;
pub(crate) mod health;
pub(crate) mod lists;
pub(crate) mod models;
pub(crate) mod scopes;
pub(crate) mod streams;
pub(crate) mod views;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use headwater_types::{Name, ScopedStream};

use crate::problem::Problem;

/// A scope that may exist.
pub(crate) fn scope(name: &str) -> Result<Name, Problem> {
    Name::parse(name).map_err(|_| Problem::not_found("a scope of such a name"))
}

/// A stream that may exist.
pub(crate) fn stream(scope: &str, stream: &str) -> Result<ScopedStream, Problem> {
    let names = Name::parse(scope).ok().zip(Name::parse(stream).ok());
    let (scope, stream) = names.ok_or_else(|| Problem::not_found("a stream of such a name"))?;
    Ok(ScopedStream { scope, stream })
}

/// A group that may exist.
pub(crate) fn group(scope: &str, group: &str) -> Result<(Name, Name), Problem> {
    let names = Name::parse(scope).ok().zip(Name::parse_user(group).ok());
    names.ok_or_else(|| Problem::not_found("a reader group of such a name"))
}

/// What stands behind the `?` of a request.
pub(crate) struct Asked(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        query.map(|Query(pairs)| Self(pairs)).map_err(|_| Problem::bad("what stands behind the ? cannot be read"))
    }
}

impl Asked {
    /// A parameter that may be given once.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.0.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            (_, Some(_)) => Err(Problem::bad(format!("{name} is given more than once"))),
        }
    }

    /// A number in a range.
    pub(crate) fn number(&self, name: &str, range: std::ops::RangeInclusive<i64>) -> Result<Option<i64>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match text.parse::<i64>() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(Problem::bad(format!("{name} is no number from {} to {}", range.start(), range.end()))),
        }
    }
}
