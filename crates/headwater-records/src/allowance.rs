//! How much memory may be taken while bytes of others are taken apart.
//!
//! Whoever wrote the bytes decides what becomes of them: a few can stand for an entry of a map, and a name that is there once
//! be told again with each of thousands of segments. So memory is asked for here before it is allocated. Counted is the
//! most that collections and texts may take, not what they do take.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// What a text takes beside its bytes: its place, and what an allocation costs. Names are two of them.
const TEXT_BYTES: usize = 64;
/// Entries of a node of an ordered map; a map has at least one node.
const NODE_ENTRIES: usize = 11;
/// Entries are sorted before a map is made of them, and its nodes may be half empty.
const ENTRY_PLACES: usize = 3;

/// Memory that is left for it. Of one reader at a time, which may wait between two pieces, on whatever thread.
#[derive(Debug)]
pub struct Allowance {
    left: AtomicUsize,
    is_exceeded: AtomicBool,
}

/// There is no memory left for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("takes more memory than is allowed")]
pub struct Exceeded;

impl Allowance {
    /// So many bytes.
    pub fn new(bytes: usize) -> Self {
        Self { left: AtomicUsize::new(bytes), is_exceeded: AtomicBool::new(false) }
    }

    /// Asked for more than there was. What was read then has failed for want of memory, whatever error it has.
    pub fn is_exceeded(&self) -> bool {
        self.is_exceeded.load(Relaxed)
    }

    /// For anything else.
    ///
    /// # Errors
    /// There are fewer bytes left.
    pub fn take(&self, bytes: usize) -> Result<(), Exceeded> {
        match self.left.load(Relaxed).checked_sub(bytes) {
            Some(left) => {
                self.left.store(left, Relaxed);
                Ok(())
            }
            None => {
                self.is_exceeded.store(true, Relaxed);
                Err(Exceeded)
            }
        }
    }

    /// For a collection of so many entries, in order or not.
    ///
    /// # Errors
    /// There is too little left.
    pub fn take_entries<T>(&self, count: usize) -> Result<(), Exceeded> {
        let places = if count == 0 { 0 } else { count.saturating_mul(ENTRY_PLACES).saturating_add(NODE_ENTRIES) };
        self.take(places.saturating_mul(size_of::<T>()))
    }

    /// For a text of so many bytes, or a name made of it.
    ///
    /// # Errors
    /// There is too little left.
    pub fn take_text(&self, bytes: usize) -> Result<(), Exceeded> {
        self.take(bytes.saturating_add(TEXT_BYTES))
    }

    /// Gives back what `work` takes, which has to keep nothing.
    pub fn lend<T>(&self, work: impl FnOnce() -> T) -> T {
        let left = self.left.load(Relaxed);
        let done = work();
        self.left.store(left, Relaxed);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is_and_what_was_lent_comes_back() {
        let allowance = Allowance::new(1000);
        allowance.take_text(36).unwrap();
        allowance.lend(|| allowance.take(900)).unwrap();
        allowance.take_entries::<u64>(20).unwrap();
        assert!(!allowance.is_exceeded());
        assert_eq!(allowance.take(1000 - 100 - 71 * 8 + 1), Err(Exceeded));
        assert!(allowance.is_exceeded());
        assert_eq!(allowance.take_entries::<u64>(usize::MAX), Err(Exceeded));
        allowance.take(1000 - 100 - 71 * 8).unwrap();
        allowance.take_entries::<u64>(0).unwrap();
    }
}
