//! Files of the operator that are read again when they change.
//!
//! Guarantee: what two looks in a row find the same, written at the same time, is taken, and nothing else: a file that
//! is being written may make sense and not say all, as a chain of certificates without its last.
//!
//! Not here: what is in the files, and when they are looked at first (`auth`, `tls`).

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::secrets;

/// How often files are looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long changed files have to stay as they are before they are taken.
const SETTLING: Duration = Duration::from_millis(100);
/// How often files that keep changing are looked at in a row.
const SETTLING_LOOKS: usize = 10;

/// What files had.
pub(crate) struct Settling<T> {
    /// When they were last taken, good or not; nothing if they could not be read.
    taken: Option<T>,
    /// At the last look, if that was something else, and when each was written.
    unsettled: Option<(T, Vec<Option<SystemTime>>)>,
}

impl<T> std::fmt::Debug for Settling<T> {
    /// Never what the files have, which may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settling").finish_non_exhaustive()
    }
}

/// What a look at files found.
#[derive(Debug)]
pub(crate) enum Look<E> {
    /// Nothing new.
    Same,
    /// Something new that may still be written.
    Unsettled,
    /// Something new, which is in use now, by the name of its file.
    Changed(PathBuf),
    /// Something new that is no good.
    Failed(E),
}

impl<T: Eq> Settling<T> {
    /// That is in use.
    pub(crate) fn new(taken: T) -> Self {
        Self { taken: Some(taken), unsettled: None }
    }

    /// Reads the files, of which the first names them all, and has what is new used once it has settled. What is no good
    /// is reported once.
    pub(crate) fn look<E>(
        &mut self,
        files: &[&Path],
        read: impl FnOnce() -> Result<T, E>,
        take: impl FnOnce(&T) -> Result<(), E>,
    ) -> Look<E> {
        // Before they are read: what is written after that has another time at the next look.
        let written = files.iter().map(|file| secrets::written(file)).collect();
        let found = match read() {
            Ok(found) => found,
            Err(error) => {
                self.unsettled = None;
                return self.taken.take().map_or(Look::Same, |_| Look::Failed(error));
            }
        };
        if self.taken.as_ref() == Some(&found) {
            self.unsettled = None;
            return Look::Same;
        }
        let found = (found, written);
        if self.unsettled.as_ref() != Some(&found) {
            self.unsettled = Some(found);
            return Look::Unsettled;
        }
        self.unsettled = None;
        match take(self.taken.insert(found.0)) {
            Ok(()) => Look::Changed(files[0].to_owned()),
            Err(error) => Look::Failed(error),
        }
    }
}

/// Looks until everything has settled, or keeps changing, and tells of what is in use now and what is no good.
pub(crate) async fn settle<E: Send + 'static>(
    looks: impl Fn() -> Vec<Look<E>> + Clone + Send + 'static,
    mut tell: impl FnMut(Result<PathBuf, E>),
) {
    for _ in 0..SETTLING_LOOKS {
        let looked = tokio::task::spawn_blocking(looks.clone()).await.expect("a panic ends the process");
        let is_settled = !looked.iter().any(|look| matches!(look, Look::Unsettled));
        for look in looked {
            match look {
                Look::Same | Look::Unsettled => {}
                Look::Changed(path) => tell(Ok(path)),
                Look::Failed(error) => tell(Err(error)),
            }
        }
        if is_settled {
            return;
        }
        tokio::time::sleep(SETTLING).await;
    }
}
