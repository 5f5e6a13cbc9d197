//! Files of the operator that are read again when they change.
//!
//! Guarantee: what looks find the same, written at the same time, for [`SETTLING`] by a clock that does not jump, is taken,
//! and nothing else: a file that is being written may make sense and not say all, as a chain of certificates without its
//! last, or users up to the line at which the writer paused. Who asks for a look says that the writing is over: then
//! [`SETTLING_ASKED`] is enough, since somebody else may write just then.
//!
//! Not here: what is in the files, and when they are looked at first (`auth`, `tls`).

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::secrets;

/// How often files are looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long changed files have to stay as they are before they are taken. Nobody who writes a small file pauses for longer.
const SETTLING: Duration = Duration::from_secs(2);
/// That, if somebody asked for the look.
const SETTLING_ASKED: Duration = Duration::from_millis(100);
/// How often files that keep changing are looked at in a row then.
const LOOKS_ASKED: u32 = 10;

/// What files had.
pub(crate) struct Settling<T> {
    /// When they were last taken, good or not; nothing if they could not be read.
    taken: Option<T>,
    /// At the last look, if that was something else.
    unsettled: Option<Unsettled<T>>,
    /// Why they could not be read at the last look, in words.
    unreadable: Option<String>,
}

struct Unsettled<T> {
    found: T,
    /// When each was written.
    written: Vec<Option<SystemTime>>,
    /// When it was first found so.
    since: Instant,
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
        Self { taken: Some(taken), unsettled: None, unreadable: None }
    }

    /// Reads the files, of which the first names them all, and has what is new used once it has stayed as it is for
    /// `settling`, at the second look at the earliest. What is no good is reported once, and so is each reason for which files
    /// cannot be read one after the other: what was to be taken away by a change is still there.
    pub(crate) fn look<E: std::error::Error>(
        &mut self,
        now: Instant,
        settling: Duration,
        files: &[&Path],
        read: impl FnOnce() -> Result<T, E>,
        take: impl FnOnce(&T) -> Result<(), E>,
    ) -> Look<E> {
        // Before they are read: what is written after that has another time at the next look.
        let written = files.iter().map(|file| secrets::written(file)).collect();
        let found = match read() {
            Ok(found) => found,
            Err(error) => {
                (self.taken, self.unsettled) = (None, None);
                let why = Some(secrets::chain(&error));
                if self.unreadable == why {
                    return Look::Same;
                }
                self.unreadable = why;
                return Look::Failed(error);
            }
        };
        self.unreadable = None;
        if self.taken.as_ref() == Some(&found) {
            self.unsettled = None;
            return Look::Same;
        }
        match &self.unsettled {
            Some(before) if before.found == found && before.written == written => {
                if now.saturating_duration_since(before.since) < settling {
                    return Look::Unsettled;
                }
            }
            _ => {
                self.unsettled = Some(Unsettled { found, written, since: now });
                return Look::Unsettled;
            }
        }
        self.unsettled = None;
        match take(self.taken.insert(found)) {
            Ok(()) => Look::Changed(files[0].to_owned()),
            Err(error) => Look::Failed(error),
        }
    }
}

/// Why files are looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Occasion {
    /// It was time.
    Time,
    /// Somebody asked.
    Asked,
}

impl Occasion {
    /// Waits for the next one.
    pub(crate) async fn next(asked: &Notify) -> Self {
        tokio::select! {
            () = asked.notified() => Self::Asked,
            () = sleep(LOOK_EVERY) => Self::Time,
        }
    }
}

/// Looks, and tells of what is in use now and what is no good. `looks` are given how long a change has to stay as it is. If
/// somebody asked, until everything has settled or keeps changing; else the next occasion comes soon enough.
pub(crate) async fn settle<E: Send + 'static>(
    occasion: Occasion,
    looks: impl Fn(Duration) -> Vec<Look<E>> + Clone + Send + 'static,
    mut tell: impl FnMut(Result<PathBuf, E>),
) {
    let (settling, count) = match occasion {
        Occasion::Time => (SETTLING, 1),
        Occasion::Asked => (SETTLING_ASKED, LOOKS_ASKED),
    };
    for number in 1..=count {
        let looks = looks.clone();
        let looked = tokio::task::spawn_blocking(move || looks(settling)).await.expect("a panic ends the process");
        let is_settled = !looked.iter().any(|look| matches!(look, Look::Unsettled));
        for look in looked {
            match look {
                Look::Same | Look::Unsettled => {}
                Look::Changed(path) => tell(Ok(path)),
                Look::Failed(error) => tell(Err(error)),
            }
        }
        if is_settled || number == count {
            return;
        }
        sleep(settling).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::FileError;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the operator's file, not the store's")]
    fn what_changes_is_taken_once_it_has_stayed_as_it_is_for_long_enough() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let begin = Instant::now();
        let mut settling = Settling::new("old".to_owned());
        let mut taken = Vec::new();
        let unreadable = |why: &str| FileError::Unreadable { path: "file".into(), source: std::io::Error::other(why) };
        let mut look = |text: &str, at_ms: u64, settling_ms: u64| {
            let (now, settled) = (begin + Duration::from_millis(at_ms), Duration::from_millis(settling_ms));
            let take = |text: &String| {
                taken.push(text.clone());
                Ok::<_, FileError>(())
            };
            let read = || match text.strip_prefix('!') {
                Some(why) => Err(unreadable(why)),
                None => Ok(text.to_owned()),
            };
            match settling.look(now, settled, &[&path], read, take) {
                Look::Same => "same",
                Look::Unsettled => "unsettled",
                Look::Changed(_) => "changed",
                Look::Failed(_) => "failed",
            }
        };
        std::fs::write(&path, "").unwrap();
        for (text, at_ms, settling_ms, expected) in [
            ("old", 0, 2000, "same"),
            ("half", 2000, 2000, "unsettled"),
            ("half", 3999, 2000, "unsettled"),
            ("whole", 4000, 2000, "unsettled"),
            ("whole", 5999, 2000, "unsettled"),
            // A clock that says less than before.
            ("whole", 0, 2000, "unsettled"),
            ("whole", 6000, 2000, "changed"),
            ("whole", 8000, 2000, "same"),
            // Back in time it is what is in use.
            ("half", 8000, 2000, "unsettled"),
            ("whole", 9000, 2000, "same"),
            ("half", 10_000, 2000, "unsettled"),
            // Somebody asks.
            ("half", 10_100, 100, "changed"),
            ("more", 10_200, 100, "unsettled"),
            ("more", 10_299, 100, "unsettled"),
            ("most", 10_300, 100, "unsettled"),
            ("most", 10_400, 100, "changed"),
            // Each reason once; what is there again is new.
            ("!gone", 11_000, 2000, "failed"),
            ("!gone", 12_000, 2000, "same"),
            ("!open to others", 13_000, 2000, "failed"),
            ("!gone", 14_000, 2000, "failed"),
            ("most", 15_000, 2000, "unsettled"),
            ("!gone", 16_000, 2000, "failed"),
            ("most", 17_000, 2000, "unsettled"),
            ("most", 19_000, 2000, "changed"),
        ] {
            assert_eq!(look(text, at_ms, settling_ms), expected, "{text} at {at_ms} ms");
        }
        // Written again, and as it was.
        assert_eq!(look("last", 20_000, 2000), "unsettled");
        let later = SystemTime::UNIX_EPOCH + Duration::from_secs(77);
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_modified(later).unwrap();
        assert_eq!(look("last", 22_000, 2000), "unsettled");
        assert_eq!(look("last", 24_000, 2000), "changed");
        assert_eq!(taken, ["whole", "half", "most", "most", "last"]);
    }
}
