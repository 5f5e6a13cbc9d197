//! Credentials that were found good a moment ago, so that a password is not derived for every call.
//!
//! Guarantees:
//! * no credential is kept, only what a key of this process makes of it
//! * at most [`ENTRIES_MAX`]; what was found good is asked again after [`KEPT_SECONDS`]
//! * what was good once is told from what never was, for as long as there is place, also when it is not believed any more

use std::collections::BTreeMap;
use std::fmt;

use ring::hmac;

/// How long something is believed without looking again, in seconds.
pub const KEPT_SECONDS: i64 = 60;
/// Most that is kept.
pub const ENTRIES_MAX: usize = 1024;

/// See the [module](self).
pub struct Cache<T> {
    key: hmac::Key,
    entries: BTreeMap<Vec<u8>, (T, i64)>,
}

impl<T> fmt::Debug for Cache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}

impl<T: Clone> Cache<T> {
    /// Empty. `key` has to be random and of this process.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), entries: BTreeMap::new() }
    }

    /// What was found for a credential, if it may still be believed.
    pub fn find(&self, credential: &[u8], now: i64) -> Option<T> {
        let (found, until) = self.entries.get(&self.mark(credential))?;
        (now < *until).then(|| found.clone())
    }

    /// Keeps what was found, for a while and not beyond `until`.
    pub fn keep(&mut self, credential: &[u8], found: T, now: i64, until: i64) {
        let until = until.min(now.saturating_add(KEPT_SECONDS));
        let mark = self.mark(credential);
        if self.entries.len() >= ENTRIES_MAX && !self.entries.contains_key(&mark) {
            let first = self.entries.iter().min_by_key(|(_, (_, until))| *until).map(|(mark, _)| mark.clone());
            first.map(|mark| self.entries.remove(&mark));
        }
        self.entries.insert(mark, (found, until));
    }

    /// Whether a credential was good some time, and may be again. Nothing is granted by that.
    pub fn was_good(&self, credential: &[u8]) -> bool {
        self.entries.contains_key(&self.mark(credential))
    }

    /// Believes nothing any more: what is good has changed.
    pub fn doubt(&mut self) {
        self.entries.values_mut().for_each(|(_, until)| *until = i64::MIN);
    }

    fn mark(&self, credential: &[u8]) -> Vec<u8> {
        hmac::sign(&self.key, credential).as_ref().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_good_is_believed_for_a_while_and_within_limits() {
        let mut cache = Cache::new(&[1; 32]);
        cache.keep(b"a", 1, 100, i64::MAX);
        cache.keep(b"b", 2, 100, 110);
        assert_eq!((cache.find(b"a", 159), cache.find(b"a", 160)), (Some(1), None));
        assert_eq!((cache.find(b"b", 109), cache.find(b"b", 110)), (Some(2), None));
        assert_eq!(cache.find(b"c", 100), None);
        for number in 0..3000_u32 {
            cache.keep(&number.to_le_bytes(), 3, 100, i64::MAX);
            assert!(cache.entries.len() <= ENTRIES_MAX);
        }
        assert!(!cache.was_good(b"b") && !cache.was_good(b"c"), "what ended first went first");
        let last = 2999_u32.to_le_bytes();
        assert_eq!(cache.find(&last, 100), Some(3));
        cache.doubt();
        assert_eq!((cache.find(&last, 100), cache.find(&last, i64::MIN)), (None, None));
        assert!(cache.was_good(&last));
    }
}
