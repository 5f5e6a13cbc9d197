//! The bodies of the fuzz targets of texts from outside: names, password files, tokens, key sets. The fuzz package includes
//! this file; here the bodies replay a small corpus, and meet it changed at random.

#[cfg(test)]
#[path = "../../../fuzz/mutate.rs"]
mod mutate;

use headwater_auth::delegation::Key;
use headwater_auth::keys::KeySet;
use headwater_auth::passwords::{PasswordFile, with_entry};
use headwater_types::limits::{NAME_BYTES_MAX, SEGMENT_NAME_BYTES_MAX};
use headwater_types::{Name, ScopedStream, SegmentName};

/// Names of scopes, streams and segments.
pub(crate) fn fuzz_names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for name in [Name::parse(text), Name::parse_user(text)].into_iter().flatten() {
        assert_eq!(name.as_str(), text);
        assert!((1..=NAME_BYTES_MAX).contains(&text.len()) && !text.contains('/'));
    }
    if let Ok(stream) = ScopedStream::parse(text) {
        assert_eq!(ScopedStream::parse(&stream.to_string()).as_ref(), Ok(&stream));
    }
    let Ok(name) = SegmentName::parse(text) else { return };
    assert!(name.as_str() == text && text.len() <= SEGMENT_NAME_BYTES_MAX);
    assert!(text.starts_with(name.placement()) && name.container(7) < 7);
    if let Some(parent) = name.parent() {
        assert!(text.starts_with(parent.as_str()) && parent.as_str().len() < text.len());
        assert_eq!(parent.placement(), name.placement(), "a merge never leaves its container");
    }
    if let Some(segment) = name.stream_segment() {
        assert_eq!(segment.name().stream_segment(), Some(segment));
    }
}

/// Password files.
pub(crate) fn fuzz_passwords(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(file) = PasswordFile::parse(text) else { return };
    for (user, _) in file.users() {
        let (without, was_there) = with_entry(text, user, None).expect("the file was read before");
        assert!(was_there);
        let without = PasswordFile::parse(&without).expect("a file with a line less is a file");
        assert!(without.users().all(|(other, _)| other != user));
    }
}

/// Tokens, and the keys that others' tokens are signed with.
pub(crate) fn fuzz_tokens(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let key = Key::new(&[7; 64]).expect("it is long enough");
    assert!(key.verify(text).is_err(), "nobody else knows the key");
    if let Ok(keys) = KeySet::parse(text) {
        assert!(keys.verify("a.b.c").is_err() && keys.verify(text).is_err());
    }
}

/// For all bodies.
const CORPUS: &[&str] = &[
    "",
    "scope",
    "..",
    "scope/stream",
    "scope/stream/0.#epoch.0",
    "scope/stream/2147483647.#epoch.2147483647#transaction.00000004000000000000000000000002",
    "scope/stream/0.#epoch.0#transient.00000004000000000000000000000002.00000004000000000000000000000002",
    "#epoch.#transaction.#transient.",
    ".#epoch.1",
    "a/b/.#epoch.",
    "_tables/_x",
    "user:5:00:00:*,READ",
    "user:1388:0011223344556677:0011223344556677:prn::*,READ_UPDATE;scope:a,READ\nother:1:00:00:;;",
    ":::::",
    "user:ffffffffffffffff:zz:zz:",
    "eyJhbGciOiJIUzUxMiJ9.eyJzdWIiOiJ1IiwiYXVkIjoic2VnbWVudHN0b3JlIiwiZXhwIjoxfQ.AAAA",
    "eyJhbGciOiJub25lIn0.e30.",
    r#"{"keys":[{"kty":"RSA","kid":"a","alg":"RS256","n":"AQAB","e":"AQAB"}]}"#,
    r#"{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}"#,
    r#"{"keys":[[[[[[[[]]]]]]]]}"#,
];

#[test]
fn the_corpus_does_no_harm() {
    for text in CORPUS {
        for end in 0..=text.len() {
            for body in [fuzz_names, fuzz_passwords, fuzz_tokens] {
                body(&text.as_bytes()[..end]);
            }
        }
    }
}

#[test]
fn texts_that_nobody_has_chosen_do_no_harm() {
    let corpus: Vec<Vec<u8>> = CORPUS.iter().map(|text| text.as_bytes().to_vec()).collect();
    let bodies = [("names", fuzz_names as fn(&[u8])), ("passwords", fuzz_passwords), ("tokens", fuzz_tokens)];
    for (what, body) in bodies {
        mutate::meet(what, &corpus, std::time::Duration::from_millis(1_500), body);
    }
}
