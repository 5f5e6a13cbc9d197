//! Places in lists, as callers hold them to come back with: sealed, since what a list goes on behind may be something that the
//! caller may not read.
//!
//! Guarantees:
//! * whoever has no key reads nothing in a sealed place, not even how long it is, and makes none
//! * a place of one list is none of another
//! * a key that stays the same over a start opens what was sealed before it

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::jws::{self, TOKEN_BYTES_MAX};

/// What a place is filled up to, in bytes: more than a scope, a stream and a transaction, so that all look alike.
const PLACE_BYTES: usize = 576;
/// Where a place ends and what it is filled up with begins.
const END: u8 = 1;

/// Bytes by which two sealed places of one key differ. Random ones, for each place.
pub type Salt = [u8; NONCE_LEN];

/// Seals places, and opens them. Of a [`delegation::Key`](crate::delegation::Key).
pub struct Seal(LessSafeKey);

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal(…)")
    }
}

impl Seal {
    /// `secret` has as many bytes as the key of the cipher, at least.
    pub(crate) fn new(secret: &[u8]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &secret[..CHACHA20_POLY1305.key_len()]);
        Self(LessSafeKey::new(key.expect("it has the length of a key")))
    }

    /// A place of a list, as text that fits an address of the web.
    pub fn seal(&self, list: &str, place: &str, salt: Salt) -> String {
        let mut bytes = place.as_bytes().to_vec();
        bytes.push(END);
        bytes.resize(bytes.len().next_multiple_of(PLACE_BYTES), 0);
        let nonce = Nonce::assume_unique_for_key(salt);
        let sealed = self.0.seal_in_place_append_tag(nonce, Aad::from(list), &mut bytes);
        sealed.expect("a place is far below what the cipher takes");
        jws::encode([&salt[..], &bytes].concat())
    }

    /// The place; `None` for what is none of this list, or was not sealed with this key.
    pub fn open(&self, list: &str, sealed: &str) -> Option<String> {
        if sealed.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (salt, sealed) = bytes.split_first_chunk()?;
        let mut sealed = sealed.to_vec();
        let place = self.0.open_in_place(Nonce::assume_unique_for_key(*salt), Aad::from(list), &mut sealed).ok()?;
        let end = place.iter().rposition(|byte| *byte == END)?;
        String::from_utf8(place[..end].to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use crate::delegation::Key;

    #[test]
    fn a_place_comes_back_from_the_list_it_is_of_and_tells_nothing_meanwhile() {
        let seal = || Key::new(&[7; 64]).unwrap().places();
        let mut lengths = std::collections::BTreeSet::new();
        for (number, place) in ["", "a", "zsecret-merger-2027", "\u{1}", &"n".repeat(544)].into_iter().enumerate() {
            let sealed = seal().seal("streams", place, [number as u8; 12]);
            assert_eq!(seal().open("streams", &sealed).as_deref(), Some(place));
            assert_eq!(seal().open("scopes", &sealed), None);
            assert_eq!(Key::new(&[8; 64]).unwrap().places().open("streams", &sealed), None);
            lengths.insert(sealed.len());
        }
        assert_eq!(lengths.len(), 1, "{lengths:?}");
    }

    #[test]
    fn forgeries_are_refused() {
        let seal = Key::new(&[7; 64]).unwrap().places();
        let good = seal.seal("streams", "t", [1; 12]);
        for at in 0..good.len() {
            let mut bad = good.clone().into_bytes();
            bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(seal.open("streams", std::str::from_utf8(&bad).unwrap()), None, "{at}");
            assert_eq!(seal.open("streams", &good[..at]), None, "{at}");
        }
        for bad in ["t", "!", &"A".repeat(100_000)] {
            assert_eq!(seal.open("streams", bad), None, "{bad}");
        }
    }
}
