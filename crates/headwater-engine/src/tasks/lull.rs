//! The moment after a commit: who was acknowledged prepares what comes next, and the disk has nothing to do.
//!
//! Large writes that nobody waits for begin then. Beside a commit they delay it by about as long as they take.
//!
//! Guarantees:
//! * who waits goes on when the next commit ends, or when its patience does: nothing depends on commits coming
//! * the journal's thread never waits here, and does next to nothing while nobody waits

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, MutexGuard};
use std::thread::Thread;
use std::time::Duration;

/// Shared by the journal's thread and the one that waits.
#[derive(Debug, Default)]
pub(crate) struct Lull {
    is_awaited: AtomicBool,
    /// Who waited last.
    waiting: Mutex<Option<Thread>>,
}

impl Lull {
    /// Waits until a commit ends, at most so long; now and then less.
    pub(crate) fn wait(&self, patience: Duration) {
        *self.waiting() = Some(std::thread::current());
        self.is_awaited.store(true, SeqCst);
        std::thread::park_timeout(patience);
        self.is_awaited.store(false, SeqCst);
    }

    /// A commit has ended, and whoever waited for it was told.
    pub(crate) fn begins(&self) {
        if self.is_awaited.swap(false, SeqCst)
            && let Some(thread) = &*self.waiting()
        {
            thread.unpark();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Thread>> {
        self.waiting.lock().expect("nobody panics with it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_goes_on_when_a_commit_ends() {
        let lull = Lull::default();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| lull.wait(Duration::from_secs(3600)));
            while !waiter.is_finished() {
                lull.begins();
                std::thread::yield_now();
            }
        });
    }

    #[test]
    fn without_commits_waiting_ends_by_itself() {
        let lull = Lull::default();
        lull.begins();
        lull.wait(Duration::from_millis(1));
        assert!(!lull.is_awaited.load(SeqCst), "the next commit wakes nobody");
    }
}
