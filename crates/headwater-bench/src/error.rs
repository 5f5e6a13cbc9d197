//! Why a run has no figures.

use std::io;

use headwater_wire::{EncodeError, WireError};

use crate::check::Violation;

/// Why a run ended without figures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The operating system refused something.
    #[error("could not {action} {what}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        what: String,
        /// The system's words.
        source: io::Error,
    },
    /// A size, count or name makes no sense.
    #[error("{what}")]
    Setting {
        /// What is wrong, and what would be right.
        what: String,
    },
    /// The server sent what is no reply.
    #[error("the server's bytes are no replies")]
    Wire {
        /// What is wrong with them.
        source: WireError,
    },
    /// A request does not fit into a frame or the server is too old for it.
    #[error("a request cannot be sent")]
    Encode {
        /// Why.
        source: EncodeError,
    },
    /// The server answered something else than hoped for.
    #[error("{request} was answered with {reply}")]
    Refused {
        /// What was asked.
        request: &'static str,
        /// The answer, in words.
        reply: String,
    },
    /// The server closed the connection.
    #[error("the server closed the connection while {waiting}")]
    Closed {
        /// What was waited for.
        waiting: &'static str,
    },
    /// Nothing came for too long.
    #[error("no answer within {seconds} s while {waiting}")]
    Silent {
        /// The limit.
        seconds: u64,
        /// What was waited for.
        waiting: &'static str,
    },
    /// What was read is not what was written. No figure of such a run means anything.
    #[error("integrity violated in segment {segment}")]
    Integrity {
        /// Where.
        segment: String,
        /// What is wrong.
        source: Violation,
    },
    /// The generator could not keep its own schedule: the latencies would be its own.
    #[error("invalid run: {unsent} of {due} events were due and not sent (more than 1 %)")]
    Behind {
        /// Events due by the end.
        due: u64,
        /// Of these, not sent.
        unsent: u64,
    },
    /// A genuine client did not do what it should.
    #[error("the client failed with {what}")]
    Client {
        /// How it ended and what it said.
        what: String,
    },
    /// A child process, the server under test, did not do what it should.
    #[error("the server under test {what}")]
    Server {
        /// What it did.
        what: String,
    },
}

impl From<WireError> for BenchError {
    fn from(source: WireError) -> Self {
        Self::Wire { source }
    }
}

impl From<EncodeError> for BenchError {
    fn from(source: EncodeError) -> Self {
        Self::Encode { source }
    }
}

/// Says what was tried when the system refuses.
pub(crate) trait Context<T> {
    /// `action` and `what` make the sentence "could not action what".
    fn on(self, action: &'static str, what: impl std::fmt::Display) -> Result<T, BenchError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn on(self, action: &'static str, what: impl std::fmt::Display) -> Result<T, BenchError> {
        self.map_err(|source| BenchError::Io { action, what: what.to_string(), source: source.into() })
    }
}
