//! `headwater explain`: what an exit code or the word in an error means, and what to do about it.

use headwater_client::ErrorKind;

use crate::exit;

/// Every kind of error of a command on a store, with what a person can do.
const KINDS: [(ErrorKind, &str); 13] = [
    (
        ErrorKind::Invalid,
        "An argument is wrong and will stay so: a name, a size, a stream cut, an address. Nothing was done.",
    ),
    (
        ErrorKind::NotFound,
        "The scope, stream, transaction or event does not exist. Look with `headwater scope list` and `headwater stream list SCOPE`.",
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

/// Codes that have no kind.
const CODES: [(i32, &str); 9] = [
    (exit::DOUBT, "`check` or `doctor` found something, or a `bench` run has no figures. They said what."),
    (exit::USAGE, "A command was called in a way it cannot be. Nothing was done; --help shows how."),
    (exit::NO_INPUT, "A file could not be read, or something on the store does not exist."),
    (
        exit::FENCED,
        "For `serve`: another process has taken over this store's chunks in object storage. For other commands: the store did not answer.",
    ),
    (exit::BUG, "A bug: an assertion failed. What was acknowledged is safe. Please report what was said."),
    (
        exit::CANNOT_CREATE,
        "Something that has to be ours is not: a port, a data directory, object storage. Nothing was touched; later may be better.",
    ),
    (exit::DISK, "The disk failed, or stored bytes are not what was written. `headwater check DIR` tells more."),
    (exit::SETTINGS, "The settings are wrong, or the data was written by a newer release. Trying again does not help."),
    (exit::INTERRUPTED, "Somebody interrupted the command."),
];

/// Returns the code to end with.
pub(crate) fn explain(code: &str) -> i32 {
    let Some(text) = explanation(code) else {
        let words: Vec<_> = KINDS.iter().map(|(kind, _)| kind.code()).collect();
        eprintln!(
            "headwater: {code:?} is no code; there are the numbers that commands exit with and {}",
            words.join(", ")
        );
        return exit::USAGE;
    };
    crate::serve::print(&text);
    0
}

/// A line for every meaning of the word or number; `None` if it has none.
fn explanation(code: &str) -> Option<String> {
    let kind = KINDS.iter().find(|(kind, _)| kind.code() == code);
    let number: Option<i32> = code.parse().ok();
    let general = CODES.iter().find(|(general, _)| Some(*general) == number);
    let mut said = Vec::new();
    if let Some((kind, text)) = kind {
        said.push(format!("{} (exit code {}): {text}", kind.code(), exit::of_client(*kind)));
    }
    if let Some((general, text)) = general {
        said.push(format!("{general}: {text}"));
    }
    for (kind, text) in KINDS.iter().filter(|(kind, _)| Some(exit::of_client(*kind)) == number) {
        said.push(format!("{number} {}: {text}", kind.code(), number = exit::of_client(*kind)));
    }
    (!said.is_empty()).then(|| said.join("\n") + "\n")
}

/// What to do about an error, where that is not plain from it.
pub(super) fn advice(kind: ErrorKind) -> Option<String> {
    let helps =
        matches!(kind, ErrorKind::Unavailable | ErrorKind::Unauthenticated | ErrorKind::Denied | ErrorKind::Protocol);
    let (_, text) = KINDS.iter().find(|(of, _)| *of == kind)?;
    helps.then(|| (*text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_and_code_is_explained() {
        for (kind, text) in KINDS {
            let code = exit::of_client(kind);
            let said = explanation(kind.code()).expect("a kind");
            assert!(said.starts_with(&format!("{} (exit code {code}): {text}\n", kind.code())), "{said}");
            assert!(explanation(&code.to_string()).is_some_and(|said| said.contains(text)), "{code}");
        }
        for (code, text) in CODES {
            assert!(explanation(&code.to_string()).is_some_and(|said| said.contains(text)), "{code}");
        }
        assert_eq!(explanation("nonsense"), None);
        assert_eq!(explanation(""), None);
    }
}
