//! `headwater explain`: what an exit code or the word in an error means, and what to do about it.

use headwater_client::ErrorKind;
use serde_json::json;

use super::{Action, Failure, bytes, event, group, scope, stream, table};
use crate::exit;

/// Every kind of error of a command on a store, with what a person can do.
const KINDS: [(ErrorKind, &str); 13] = [
    (
        ErrorKind::Invalid,
        "An argument is wrong and will stay so: a name, a size, a stream cut, an address. Nothing was done.",
    ),
    (
        ErrorKind::NotFound,
        "The scope, stream, reader group, table, transaction or event does not exist. Look with `headwater scope list`, and with `headwater stream list SCOPE`, `group list` and `table list`.",
    ),
    (ErrorKind::AlreadyExists, "It exists already. Nothing was changed."),
    (
        ErrorKind::Conflict,
        "It is in another state than the command needs: a stream has to be sealed before it is deleted, a scope has to be empty, a transaction open. Look at it again, then decide.",
    ),
    (ErrorKind::Sealed, "The stream is sealed and takes no more events, for ever. Reading goes on."),
    (
        ErrorKind::Truncated,
        "What was to be read was dropped, by retention or by somebody. Read from `head` to begin with what is left.",
    ),
    (
        ErrorKind::Unauthenticated,
        "The store, or the issuer of tokens, does not know who calls. Say --credentials FILE; its first line is USER:PASSWORD, or Bearer and a token, or OIDC ISSUER CLIENT. Users are made with `headwater user add`.",
    ),
    (
        ErrorKind::Denied,
        "The store knows who calls and says no. Grants are shown by `headwater user list` on the server's machine.",
    ),
    (
        ErrorKind::Unavailable,
        "No answer within --patience. What was asked may have happened. Is the server running, and is --server its controller's address? It prints that when it starts. A server whose disk is full lets writes wait.",
    ),
    (ErrorKind::Exhausted, "The server has no room: its disk is full, or a limit is reached. Its log says which."),
    (ErrorKind::Unsupported, "The server is too old, or does not do that."),
    (
        ErrorKind::Protocol,
        "What answered is no such server, or the data is not what was expected: --server wants the controller's address, and `event read` a stream of events, not of bytes.",
    ),
    (ErrorKind::Closed, "The command ended before it was done."),
];

/// Codes that have no kind, with a word for each.
const CODES: [(i32, &str, &str); 10] = [
    (exit::DOUBT, "doubt", "`check` or `doctor` found something, or a `bench` run has no figures. They said what."),
    (exit::USAGE, "usage", "A command was called in a way it cannot be. Nothing was done; --help shows how."),
    (exit::DATA, "data", "The input is not what the command takes; what stands before that was written."),
    (exit::NO_INPUT, "no-input", "A file could not be read, or something on the store does not exist."),
    (
        exit::FENCED,
        "fenced",
        "For `serve`: another process has taken over this store's chunks in object storage. For other commands: the store did not answer.",
    ),
    (exit::BUG, "bug", "A bug: an assertion failed. What was acknowledged is safe. Please report what was said."),
    (
        exit::CANNOT_CREATE,
        "cannot-create",
        "Something that has to be ours is not: a port, a data directory, object storage. Nothing was touched; later may be better.",
    ),
    (
        exit::DISK,
        "disk",
        "The disk failed, or stored bytes are not what was written. `headwater check DIR` tells more. For a command on a store: its output could not be written.",
    ),
    (
        exit::SETTINGS,
        "settings",
        "The settings are wrong, or the data was written by a newer release. Trying again does not help.",
    ),
    (exit::INTERRUPTED, "interrupted", "Somebody interrupted the command."),
];

/// The word of a code that has no kind.
///
/// # Panics
/// If the code has one.
pub(super) fn word(code: i32) -> &'static str {
    CODES.iter().find(|(of, ..)| *of == code).expect("every code without a kind is in the table").1
}

/// Says on standard error why a command that is not on a store ends with a code, in one of the two forms. Returns the code.
pub(crate) fn refuse(is_json: bool, message: &str, code: i32) -> i32 {
    match is_json {
        true => eprintln!("{}", object(word(code), message, code)),
        false => eprintln!("headwater: {message} ({})", word(code)),
    }
    code
}

/// An error, for programs.
pub(super) fn object(word: &str, message: &str, code: i32) -> serde_json::Value {
    json!({"error": word, "message": message, "exit": code})
}

/// Returns the code to end with.
pub(crate) fn explain(code: &str, is_json: bool) -> i32 {
    let meanings = meanings(code);
    if meanings.is_empty() {
        let words: Vec<_> =
            KINDS.iter().map(|(kind, _)| kind.code()).chain(CODES.iter().map(|(_, word, _)| *word)).collect();
        let what =
            format!("{code:?} is no code; there are the numbers that commands exit with and {}", words.join(", "));
        return refuse(is_json, &what, exit::USAGE);
    }
    let said = meanings.iter().map(|(word, code, text)| match is_json {
        true => format!("{}\n", json!({"word": word, "exit": code, "text": text})),
        false => format!("{word} (exit code {code}): {text}\n"),
    });
    crate::serve::print(&said.collect::<String>());
    0
}

/// Every meaning of the word or number: its word, the exit code, and what to do.
fn meanings(code: &str) -> Vec<(&'static str, i32, &'static str)> {
    let kind = KINDS.iter().find(|(kind, _)| kind.code() == code);
    let number: Option<i32> = code.parse().ok();
    let general = CODES.iter().find(|(general, word, _)| Some(*general) == number || *word == code);
    let mut said = Vec::new();
    if let Some((kind, text)) = kind {
        said.push((kind.code(), exit::of_client(*kind), *text));
    }
    if let Some((general, word, text)) = general {
        said.push((*word, *general, *text));
    }
    for (kind, text) in KINDS.iter().filter(|(kind, _)| Some(exit::of_client(*kind)) == number) {
        said.push((kind.code(), exit::of_client(*kind), *text));
    }
    said
}

/// What to do about a failure, where that is not plain from it: a line for each thing.
pub(super) fn advice(action: &Action, failure: &Failure) -> Vec<&'static str> {
    let mut lines = Vec::new();
    if let Failure::Client(error) | Failure::Lost { source: error, .. } = failure {
        lines.extend(advice_for(action, error.kind()));
    }
    if let Failure::Lost { hint, .. } = failure {
        lines.extend(*hint);
    }
    lines
}

fn advice_for(action: &Action, kind: ErrorKind) -> Option<&'static str> {
    use ErrorKind as Kind;
    match (kind, action) {
        (Kind::Unavailable | Kind::Unauthenticated | Kind::Denied | Kind::Protocol | Kind::Exhausted, _) => {
            KINDS.iter().find(|(of, _)| *of == kind).map(|(_, text)| *text)
        }
        (Kind::NotFound, Action::Stream { action: stream::Action::Create { .. }, .. }) => {
            Some("Make the scope first, with `headwater scope create SCOPE`, or say --create-scope.")
        }
        (Kind::NotFound, Action::Table { action: table::Action::Create { .. }, .. }) => {
            Some("Make the scope first, with `headwater scope create SCOPE`.")
        }
        (Kind::NotFound, Action::Scope { .. } | Action::Stream { action: stream::Action::List { .. }, .. }) => {
            Some("`headwater scope list` shows which scopes there are.")
        }
        (Kind::NotFound, Action::Group { action: group::Action::Offline { .. }, .. }) => Some(
            "`headwater group describe SCOPE/GROUP` shows its readers, `headwater group list SCOPE` which groups there are.",
        ),
        (
            Kind::NotFound,
            Action::Group {
                action:
                    group::Action::Describe { .. }
                    | group::Action::Read { .. }
                    | group::Action::Checkpoint { .. }
                    | group::Action::Delete { .. },
                ..
            },
        ) => Some("`headwater group list SCOPE` shows which reader groups there are."),
        (Kind::NotFound, Action::Table { .. }) => Some(
            "`headwater table list SCOPE` shows which tables there are, `headwater table entries SCOPE/TABLE` what is in one.",
        ),
        (Kind::NotFound, _) => Some("`headwater scope list` and `headwater stream list SCOPE` show what there is."),
        (Kind::Conflict, Action::Stream { action: stream::Action::Delete { seal: false, .. }, .. }) => {
            Some("--seal seals it first: nothing can be written to it from then on.")
        }
        (Kind::Conflict, Action::Scope { action: scope::Action::Delete { recursive: false, .. }, .. }) => Some(
            "--recursive deletes everything in it, too. `headwater stream list`, `group list` and `table list` show what that is.",
        ),
        (Kind::Conflict, Action::Table { action: table::Action::Put { .. } | table::Action::Remove { .. }, .. }) => {
            Some("`headwater table get SCOPE/TABLE KEY --json` shows which version the key has.")
        }
        (Kind::Conflict, Action::Txn { .. }) => Some("`headwater txn state SCOPE/STREAM ID` shows what became of it."),
        (Kind::AlreadyExists, Action::Group { action: group::Action::Create { .. }, .. }) => {
            Some("`headwater group reset` gives it other streams, or another place to begin.")
        }
        (Kind::AlreadyExists, Action::Group { action: group::Action::Read { .. }, .. }) => {
            Some("Say another --reader. One that died is taken out with `headwater group offline SCOPE/GROUP READER`.")
        }
        (Kind::AlreadyExists, Action::Group { action: group::Action::Checkpoint { .. }, .. }) => {
            Some("Leave the name out, and the checkpoint gets one that no other has.")
        }
        (Kind::Sealed, Action::Event { .. } | Action::Bytes { .. }) => {
            Some("What is sealed takes nothing more, for ever. It can still be read.")
        }
        (Kind::Truncated, Action::Event { action: event::Action::Read { .. }, .. }) => {
            Some("--from head begins with what is left.")
        }
        (Kind::Truncated, Action::Bytes { action: bytes::Action::Read { .. }, .. }) => {
            Some("Without --from, reading begins with what is left.")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_and_code_is_explained() {
        for (kind, text) in KINDS {
            let code = exit::of_client(kind);
            let said = (kind.code(), code, text);
            assert_eq!(meanings(kind.code()).first(), Some(&said));
            assert!(meanings(&code.to_string()).contains(&said), "{code}");
        }
        for (code, word, text) in CODES {
            assert!(meanings(&code.to_string()).contains(&(word, code, text)), "{code}");
            assert!(meanings(word).contains(&(word, code, text)), "{word}");
        }
        assert_eq!(meanings("nonsense"), []);
        assert_eq!(meanings(""), []);
    }
}
