//! Commands that operate a running store: what people would otherwise need a program for.
//!
//! Every command takes `--json`: then each thing it has to say is one JSON object on a line of its own, with keys that stay
//! as they are. Otherwise it is text for people. Errors go to standard error, in the same two forms, with the word that
//! `headwater explain` takes, and the exit code says of which kind they are.

#![allow(
    clippy::disallowed_methods,
    reason = "reads a person's files, clocks and terminal; nothing here runs in the simulator"
)]

mod bytes;
mod event;
mod explain;
mod group;
mod output;
mod scope;
mod stream;
mod table;
mod transaction;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use headwater_client::{Client, ClientOptions, Cut, Error, ErrorKind, Result, ScopedStream, StreamCut};
use serde_json::json;

pub(crate) use self::explain::{explain, refuse};
use self::output::Output;
use crate::credentials::CredentialsError;
use crate::exit;

/// Variables that stand for flags of these commands, and are no settings of a server.
pub(crate) const VARIABLES: [&str; 3] = [SERVER, CREDENTIALS, CA];
const SERVER: &str = "HEADWATER_SERVER";
const CREDENTIALS: &str = "HEADWATER_CREDENTIALS";
const CA: &str = "HEADWATER_CA";

/// A server that owes an answer and is silent for so long is taken for gone, whatever the patience.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Below, nothing can be told from a busy moment.
const SILENCE_MIN: Duration = Duration::from_secs(1);

/// Which store, how to be let in, and how to say what there is to say.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Place {
    /// Controllers of the store: tcp://HOST:PORT or tls://HOST:PORT, several with commas between them
    #[arg(
        long,
        value_name = "ADDRESS",
        env = SERVER,
        hide_env_values = true,
        default_value = "tcp://127.0.0.1:9090",
        global = true
    )]
    server: String,
    /// PEM file with the certificates to trust, for tls://
    #[arg(long, value_name = "FILE", env = CA, hide_env_values = true, global = true)]
    ca: Option<PathBuf>,
    /// File whose first line is USER:PASSWORD, `Bearer` and a token, or OIDC ISSUER CLIENT [secret=SECRET] [scope=SCOPE]
    /// [audience=AUDIENCE] [ca=FILE]; without a secret, a person is asked to sign in
    #[arg(long, value_name = "FILE", env = CREDENTIALS, hide_env_values = true, global = true)]
    credentials: Option<PathBuf>,
    /// How long to go on trying when the store does not answer, such as 30s or a number of seconds
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s", global = true)]
    patience: Duration,
    /// Print JSON, one object per line; an error is one on standard error
    #[arg(long, global = true)]
    json: bool,
}

/// A group of commands on one kind of thing.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Action {
    /// Scopes: the namespaces that streams live in
    Scope {
        #[command(subcommand)]
        action: scope::Action,
        #[command(flatten)]
        place: Place,
    },
    /// Streams: make, look at, change, scale, truncate, seal, delete
    Stream {
        #[command(subcommand)]
        action: stream::Action,
        #[command(flatten)]
        place: Place,
    },
    /// Events: write from a file or standard input, read, follow, fetch by pointer
    Event {
        #[command(subcommand)]
        action: event::Action,
        #[command(flatten)]
        place: Place,
    },
    /// Reader groups: make, list, look at, read as a member, take a checkpoint, reset, delete
    Group {
        #[command(subcommand)]
        action: group::Action,
        #[command(flatten)]
        place: Place,
    },
    /// Streams of bytes: append a file, copy to standard output, truncate
    Bytes {
        #[command(subcommand)]
        action: bytes::Action,
        #[command(flatten)]
        place: Place,
    },
    /// Key-value tables: make, put, get, go through, delete
    Table {
        #[command(subcommand)]
        action: table::Action,
        #[command(flatten)]
        place: Place,
    },
    /// Transactions: look at, commit, abort
    Txn {
        #[command(subcommand)]
        action: transaction::Action,
        #[command(flatten)]
        place: Place,
    },
}

impl Action {
    fn place(&self) -> &Place {
        match self {
            Self::Scope { place, .. }
            | Self::Stream { place, .. }
            | Self::Event { place, .. }
            | Self::Group { place, .. }
            | Self::Bytes { place, .. }
            | Self::Table { place, .. }
            | Self::Txn { place, .. } => place,
        }
    }
}

/// Returns the code to end with.
pub(crate) fn run(action: &Action) -> i32 {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("headwater: threads cannot be started: {error}");
            return exit::CANNOT_CREATE;
        }
    };
    let ends_itself = matches!(action, Action::Group { action, .. } if action.ends_itself());
    let outcome = runtime.block_on(async {
        if ends_itself {
            return carry_out(action.clone()).await;
        }
        // Whoever interrupts a command that follows a stream wants it to end, not to fail.
        tokio::select! {
            outcome = carry_out(action.clone()) => outcome,
            Ok(()) = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
        }
    });
    // Connections end with the process.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => 0,
        Err(Failure::Interrupted) => exit::INTERRUPTED,
        // Whoever reads our output has enough of it.
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => 0,
        Err(failure) => {
            failure.tell(action);
            failure.code()
        }
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Client(#[from] Error),
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error("{what} cannot be read")]
    Input { what: String, source: std::io::Error },
    #[error("output cannot be written")]
    Output(#[from] std::io::Error),
    #[error("{written} events were written before this")]
    Partly { written: u64, source: Box<Failure> },
    /// The store did not take all events that it was given.
    #[error("{stored} events were acknowledged, {doubtful} may be stored or not")]
    Lost { stored: u64, doubtful: u64, hint: Option<&'static str>, source: Error },
    #[error("interrupted")]
    Interrupted,
}

impl Failure {
    fn code(&self) -> i32 {
        match self {
            Self::Client(error) | Self::Lost { source: error, .. } => exit::of_client(error.kind()),
            Self::Usage(_) => exit::USAGE,
            Self::Credentials(error) => error.code(),
            Self::Input { .. } => exit::NO_INPUT,
            Self::Partly { source, .. } if matches!(**source, Self::Input { .. }) => exit::NO_INPUT,
            Self::Partly { .. } => exit::DATA,
            Self::Output(_) => exit::DISK,
            Self::Interrupted => exit::INTERRUPTED,
        }
    }

    /// The word that `headwater explain` takes.
    fn word(&self) -> &'static str {
        match self {
            Self::Client(error) | Self::Lost { source: error, .. } => error.kind().code(),
            other => explain::word(other.code()),
        }
    }

    /// Says on standard error what went wrong: to people with what they can do about it, to programs as one object.
    fn tell(&self, action: &Action) {
        let (word, message) = (self.word(), crate::serve::chain(self));
        if action.place().json {
            let mut object = explain::object(word, &message, self.code());
            if let Self::Lost { stored, doubtful, .. } = self {
                object["acknowledged"] = json!(stored);
                object["uncertain"] = json!(doubtful);
            }
            eprintln!("{object}");
            return;
        }
        eprintln!("headwater: {message} ({word})");
        for advice in explain::advice(action, self) {
            eprintln!("{advice}");
        }
    }
}

async fn carry_out(action: Action) -> Result<(), Failure> {
    match action {
        Action::Scope { action, place } => scope::run(action, &place.connect()?, &mut place.output()).await,
        Action::Stream { action, place } => stream::run(action, &place.connect()?, &mut place.output()).await,
        Action::Event { action, place } => event::run(action, &place.connect()?, &mut place.output()).await,
        Action::Group { action, place } => group::run(action, &place.connect()?, &mut place.output()).await,
        Action::Bytes { action, place } => bytes::run(action, &place.connect()?, &mut place.output()).await,
        Action::Table { action, place } => table::run(action, &place.connect()?, &mut place.output()).await,
        Action::Txn { action, place } => transaction::run(action, &place.connect()?, &mut place.output()).await,
    }
}

impl Place {
    fn connect(&self) -> Result<Client, Failure> {
        let mut options = ClientOptions::new(&self.server)?.retry_for(self.patience);
        // What is under way with a server that says nothing is given up as soon as a call would be.
        options = options.request_timeout(self.patience.clamp(SILENCE_MIN, SILENCE_MAX));
        if let Some(path) = &self.ca {
            let certificates =
                std::fs::read(path).map_err(|source| Failure::Input { what: path.display().to_string(), source })?;
            options = options.trusting(&certificates)?;
        }
        if let Some(path) = &self.credentials {
            options = options.credentials(crate::credentials::read(path)?);
        }
        // All that can be wrong with a client that has not called yet.
        options.connect().map_err(|error| usage(format!("{error}: give them with --ca FILE")))
    }

    fn output(&self) -> Output {
        Output::new(self.json)
    }
}

/// Reads `SCOPE/STREAM`.
fn stream_name(text: &str) -> Result<ScopedStream, String> {
    ScopedStream::parse(text).map_err(|error| error.to_string())
}

/// Reads a cut of a stream: its text, `head` or `tail`.
async fn cut_of(client: &Client, stream: &ScopedStream, text: &str) -> Result<StreamCut, Failure> {
    match text {
        "head" => Ok(client.head_cut(stream).await?),
        "tail" => Ok(client.tail_cut(stream).await?),
        text => match Cut::from_text(text) {
            Ok(Cut::At(cut)) if cut.stream == *stream => Ok(cut),
            Ok(Cut::At(cut)) => Err(usage(format!("this is a cut of stream {}", cut.stream))),
            Ok(Cut::Unbounded) => Ok(client.head_cut(stream).await?),
            Err(_) => Err(usage(format!("{text:?} is neither head nor tail nor a stream cut"))),
        },
    }
}

/// Reads a scope.
pub(crate) fn scope_name(text: &str) -> Result<headwater_client::Name, String> {
    headwater_client::Name::parse(text).map_err(|error| error.to_string())
}

/// Reads a size, such as 512MiB.
fn size(text: &str) -> Result<u64, String> {
    crate::memory::parse_size(text)
}

/// Reads a time, such as 90s, 15m, 12h, 7d or a number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no time, such as 90s, 15m, 12h or 7d");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| bad())?;
    let (unit, millis) = match &text[digits.len()..] {
        "ms" => (1, true),
        "" | "s" => (1, false),
        "m" => (60, false),
        "h" => (3600, false),
        "d" => (86400, false),
        _ => return Err(bad()),
    };
    let number = number.checked_mul(unit).ok_or_else(bad)?;
    Ok(if millis { Duration::from_millis(number) } else { Duration::from_secs(number) })
}

/// Writes a time as [`duration`] reads it, in the largest unit that it is a whole number of.
fn span(time: Duration) -> String {
    let (seconds, millis) = (time.as_secs(), time.subsec_millis());
    if millis > 0 {
        return format!("{}ms", time.as_millis());
    }
    let units = [(86400, 'd'), (3600, 'h'), (60, 'm')];
    let (unit, name) = units.into_iter().find(|(unit, _)| seconds > 0 && seconds % unit == 0).unwrap_or((1, 's'));
    format!("{}{name}", seconds / unit)
}

/// A number of things: `1 segment`, `2 segments`.
fn counted(number: impl Into<u64>, what: &str) -> String {
    let number = number.into();
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A file, or standard input without one: its name and what is in it.
fn input(file: Option<&Path>) -> Result<(String, Box<dyn BufRead + Send>), Failure> {
    const BUFFER_BYTES: usize = 1 << 20;
    let Some(file) = file else {
        return Ok(("standard input".to_owned(), Box::new(BufReader::with_capacity(BUFFER_BYTES, std::io::stdin()))));
    };
    let what = file.display().to_string();
    match std::fs::File::open(file) {
        Ok(open) => Ok((what, Box::new(BufReader::with_capacity(BUFFER_BYTES, open)))),
        Err(source) => Err(Failure::Input { what, source }),
    }
}

fn usage(what: impl Into<String>) -> Failure {
    Failure::Usage(what.into())
}

/// What was to be there is not.
fn missing(what: &str, name: impl std::fmt::Display) -> Failure {
    Failure::Client(Error::new(ErrorKind::NotFound, format!("{what} {name} does not exist")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, expected) in [("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("7d", 604_800)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(expected)), "{text}");
        }
        assert_eq!(duration("5ms"), Ok(Duration::from_millis(5)));
        for text in ["90s", "15m", "25h", "7d", "0s", "1500ms"] {
            assert_eq!(span(duration(text).unwrap()), text);
        }
        for text in ["", "s", "-1", "1.5h", "1y", "99999999999999999999", "18446744073709551615d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
