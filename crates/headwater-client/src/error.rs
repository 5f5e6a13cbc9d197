//! What goes wrong, in kinds that tell a caller what to do about it.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

/// What a caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument is wrong and will stay so. Nothing was done.
    Invalid,
    /// The scope, stream, segment, table, group, transaction or key does not exist.
    NotFound,
    /// It exists already.
    AlreadyExists,
    /// It is in another state than the operation needs: a stream that has to be sealed first, a scope that is not empty,
    /// a version that was overtaken. Look again and decide again.
    Conflict,
    /// The stream or segment takes no more data. Nothing was stored.
    Sealed,
    /// What was to be read has been truncated.
    Truncated,
    /// The server does not know who calls.
    Unauthenticated,
    /// The server knows who calls and says no.
    Denied,
    /// No answer within the time for retries. What was asked **may have happened**.
    Unavailable,
    /// The server has no room, or a limit is reached. Later may be better.
    Exhausted,
    /// The server is too old, or does not do that.
    Unsupported,
    /// The server says what no server should say.
    Protocol,
    /// The client, writer or reader was closed.
    Closed,
}

impl ErrorKind {
    /// A word for logs, machines and the command line; stable.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not-found",
            Self::AlreadyExists => "already-exists",
            Self::Conflict => "conflict",
            Self::Sealed => "sealed",
            Self::Truncated => "truncated",
            Self::Unauthenticated => "unauthenticated",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
            Self::Exhausted => "exhausted",
            Self::Unsupported => "unsupported",
            Self::Protocol => "protocol",
            Self::Closed => "closed",
        }
    }
}

/// Why something was not done. Cheap to clone: one failure may end many events.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    what: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error without a cause below it.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self(Arc::new(Inner { kind, what: what.into(), source: None }))
    }

    /// An error with the one that caused it.
    pub fn caused(
        kind: ErrorKind,
        what: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self(Arc::new(Inner { kind, what: what.into(), source: Some(source.into()) }))
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)
    }
}

impl fmt::Debug for Error {
    /// With the causes: this is what `main` prints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0.what, self.0.kind.code())?;
        let mut source = self.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Invalid => io::ErrorKind::InvalidInput,
            ErrorKind::NotFound => io::ErrorKind::NotFound,
            ErrorKind::AlreadyExists => io::ErrorKind::AlreadyExists,
            ErrorKind::Unauthenticated | ErrorKind::Denied => io::ErrorKind::PermissionDenied,
            ErrorKind::Unavailable => io::ErrorKind::TimedOut,
            ErrorKind::Exhausted => io::ErrorKind::QuotaExceeded,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::Protocol => io::ErrorKind::InvalidData,
            ErrorKind::Conflict | ErrorKind::Sealed | ErrorKind::Truncated | ErrorKind::Closed => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// What a call of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_its_causes_once_each() {
        let below = Error::caused(ErrorKind::Unavailable, "no answer", std::io::Error::other("connection reset"));
        let error = Error::caused(below.kind(), "could not create s/t", below);
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.to_string(), "could not create s/t");
        assert_eq!(format!("{error:?}"), "could not create s/t (unavailable): no answer: connection reset");
    }
}
