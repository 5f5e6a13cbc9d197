//! Carries bytes between clients and a controller, and changes the tokens for the segment store among them, so that a
//! genuine client comes there with one that is no good. It would not make one by itself.
//!
//! A token is as long after the change as before it, so that nothing around it has to be understood: no frame of HTTP/2 and
//! no message says anything about its bytes but how many there are.

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// How every token begins: `{"alg":"HS512"}`.
const HEADER: &[u8] = b"eyJhbGciOiJIUzUxMiJ9.";
/// Of a signature under HS512, in base64.
const SIGNATURE_BYTES: usize = 86;
/// How long ago a token ended that has expired, in seconds.
const AGO: i64 = 3600;

/// What becomes of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It passes as it is.
    Nothing,
    /// Its signature is another.
    Forged,
    /// It is signed, with a key that is not the server's.
    Foreign,
    /// It is signed by the server's key, for another scope.
    Elsewhere,
    /// It is signed by the server's key, and its end has come.
    Expired,
    /// The same for the first one of its kind; those that follow pass as they are.
    ExpiredOnce,
}

impl Change {
    /// Those after which no token is good.
    pub const FOR_EVER: [Self; 4] = [Self::Forged, Self::Foreign, Self::Elsewhere, Self::Expired];
}

/// The one in the middle.
#[derive(Debug)]
pub struct Courier {
    /// Where clients find it.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The server's key.
    key: hmac::Key,
    /// What is done, and the kinds of tokens that passed since that was said.
    todo: Mutex<(Change, BTreeSet<String>)>,
    stopped: AtomicBool,
}

impl Drop for Courier {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        // Its thread waits for somebody to come.
        let _ = TcpStream::connect(self.address);
    }
}

impl Courier {
    /// Before the controller at `to`, whose tokens are signed with the key in the file `key`.
    ///
    /// # Errors
    /// When it cannot listen, or the key cannot be read.
    pub fn start(to: &str, key: &Path) -> Result<Self> {
        let key = std::fs::read(key).with_context(|| format!("read {}", key.display()))?;
        let listener = TcpListener::bind("127.0.0.1:0").context("listen before the controller")?;
        let address = listener.local_addr().context("listen before the controller")?;
        let shared = Arc::new(Shared {
            key: hmac::Key::new(hmac::HMAC_SHA512, key.trim_ascii_end()),
            todo: Mutex::new((Change::Nothing, BTreeSet::new())),
            stopped: AtomicBool::new(false),
        });
        let (to, of_thread) = (to.to_owned(), shared.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if of_thread.stopped.load(Ordering::Relaxed) {
                    return;
                }
                // A client whose controller is gone finds its connection closed.
                if let Ok(server) = TcpStream::connect(&to) {
                    let _ = carry(client, server, &of_thread);
                }
            }
        });
        Ok(Self { address, shared })
    }

    /// Does this with tokens from now on.
    pub fn do_with_tokens(&self, change: Change) {
        *self.shared.todo.lock().expect("nobody panics with it") = (change, BTreeSet::new());
    }
}

/// Both ways until one side ends.
fn carry(client: TcpStream, server: TcpStream, shared: &Arc<Shared>) -> std::io::Result<()> {
    for socket in [&client, &server] {
        socket.set_nodelay(true)?;
    }
    let (mut asking, mut asked) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut asking, &mut asked);
        let _ = asked.shutdown(Shutdown::Both);
    });
    let shared = shared.clone();
    std::thread::spawn(move || {
        let _ = answer(server, &client, &shared);
        let _ = client.shutdown(Shutdown::Both);
    });
    Ok(())
}

fn answer(mut from: TcpStream, mut to: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    let (mut held, mut piece) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let count = from.read(&mut piece)?;
        if count == 0 {
            return to.write_all(&held);
        }
        held.extend_from_slice(&piece[..count]);
        let ready = shared.pass(&mut held);
        to.write_all(&held[..ready])?;
        held.drain(..ready);
    }
}

/// How many bytes the token has that `bytes` begin with; `None` if its end has not come.
fn length(bytes: &[u8]) -> Option<usize> {
    let payload = bytes[HEADER.len()..].iter().position(|byte| *byte == b'.')?;
    let length = HEADER.len() + payload + 1 + SIGNATURE_BYTES;
    (bytes.len() >= length).then_some(length)
}

impl Shared {
    /// Changes all tokens that are whole, and says how many bytes may go on: not those of a token that is not.
    fn pass(&self, held: &mut [u8]) -> usize {
        let mut at = 0;
        while let Some(found) = held[at..].windows(HEADER.len()).position(|bytes| bytes == HEADER) {
            let begin = at + found;
            let Some(length) = length(&held[begin..]) else { return begin };
            at = begin + length;
            let changed = std::str::from_utf8(&held[begin..at]).ok().and_then(|token| self.change(token));
            if let Some(changed) = changed {
                held[begin..at].copy_from_slice(changed.as_bytes());
            }
        }
        let begun = (1..HEADER.len()).rev().find(|count| held[at..].ends_with(&HEADER[..*count]));
        held.len() - begun.unwrap_or(0)
    }

    /// Another token in place of this one, of the same length.
    fn change(&self, token: &str) -> Option<String> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let payload = String::from_utf8(URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        let change = {
            let mut todo = self.todo.lock().expect("nobody panics with it");
            let (change, seen) = &mut *todo;
            // What it grants, without its times.
            let is_first = seen.insert(payload.replace(|c: char| c.is_ascii_digit(), ""));
            if *change == Change::ExpiredOnce && !is_first { Change::Nothing } else { *change }
        };
        let sign = |payload: &str, key: &hmac::Key| {
            let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
            let signature = URL_SAFE_NO_PAD.encode(hmac::sign(key, signed.as_bytes()));
            format!("{signed}.{signature}")
        };
        let changed = match change {
            Change::Nothing => return None,
            Change::Forged => {
                let other = if signature.starts_with('A') { 'B' } else { 'A' };
                format!("{signed}.{other}{}", &signature[1..])
            }
            Change::Foreign => sign(&payload, &hmac::Key::new(hmac::HMAC_SHA512, &[7; 64])),
            Change::Elsewhere => sign(&payload.replace("/scope:auth-", "/scope:htua-"), &self.key),
            Change::Expired | Change::ExpiredOnce => {
                sign(&earlier(&earlier(&payload, "\"iat\":")?, "\"exp\":")?, &self.key)
            }
        };
        (changed.len() == token.len() && changed != token).then_some(changed)
    }
}

/// With the time that follows `name` so long ago that it is past.
fn earlier(payload: &str, name: &str) -> Option<String> {
    let begin = payload.find(name)? + name.len();
    let end = begin + payload[begin..].find(|c: char| !c.is_ascii_digit())?;
    let time: i64 = payload[begin..end].parse().ok()?;
    Some(format!("{}{}{}", &payload[..begin], time - AGO, &payload[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"secret";
    /// As the original's controller makes it: until 1767226200, for the stream `s1/orders`, signed with [`KEY`].
    const TOKEN: &str = "eyJhbGciOiJIUzUxMiJ9.eyJzdWIiOiJzZWdtZW50c3RvcmVyZXNvdXJjZSIsImF1ZCI6InNlZ21lbnRzdG9yZSIs\
                         ImlhdCI6MTc2NzIyNTYwMCwicHJuOjovc2NvcGU6czEvc3RyZWFtOm9yZGVycyI6IlJFQURfVVBEQVRFIiwiZXhwIjoxNzY3MjI2MjAwfQ.\
                         s6DWVwUIjpYOcYDubaFh7PjaP7Ob6qcvCI2amIGozY82mE9sO5H5V3V3i38Ibnrb-M8WWgld-Jr0KIVGahEVYQ";

    fn shared(change: Change) -> Shared {
        Shared {
            key: hmac::Key::new(hmac::HMAC_SHA512, KEY),
            todo: Mutex::new((change, BTreeSet::new())),
            stopped: AtomicBool::new(false),
        }
    }

    /// All that passes of a stream that comes in pieces of `size`.
    fn carried(shared: &Shared, bytes: &[u8], size: usize) -> Vec<u8> {
        let (mut held, mut passed) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(size) {
            held.extend_from_slice(piece);
            let ready = shared.pass(&mut held);
            passed.extend(held.drain(..ready));
        }
        passed.extend(held);
        passed
    }

    fn payload(token: &str) -> String {
        let part = token.split('.').nth(1).unwrap();
        String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    #[test]
    fn tokens_are_changed_wherever_they_stand_and_however_they_are_cut() {
        let between =
            [&b"\0\0\x05eyJhbGci"[..], TOKEN.as_bytes(), b"\0\x01eyJ", TOKEN.as_bytes(), b"eyJhbGci"].concat();
        for change in Change::FOR_EVER.into_iter().filter(|change| *change != Change::Elsewhere) {
            let whole = carried(&shared(change), &between, between.len());
            assert_eq!((whole.len(), whole != between), (between.len(), true), "{change:?}");
            assert!(!whole.windows(TOKEN.len()).any(|bytes| bytes == TOKEN.as_bytes()), "{change:?}");
            for size in 1..between.len() {
                assert_eq!(carried(&shared(change), &between, size), whole, "{change:?} in pieces of {size}");
            }
        }
        assert_eq!(carried(&shared(Change::Nothing), &between, 7), between);
    }

    #[test]
    fn what_has_expired_is_signed_by_the_right_key_and_only_once_if_that_is_said() {
        let once = shared(Change::ExpiredOnce);
        let expired = once.change(TOKEN).expect("the first of its kind");
        assert!(payload(&expired).ends_with(&format!("\"exp\":{}}}", 1_767_226_200 - AGO)));
        let (signed, signature) = expired.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        hmac::verify(&once.key, signed.as_bytes(), &signature).expect("the server's key");
        assert_eq!(once.change(TOKEN), None);
        let foreign = shared(Change::Foreign).change(TOKEN).unwrap();
        assert_eq!(payload(&foreign), payload(TOKEN));
        assert_ne!(foreign, TOKEN);
    }
}
