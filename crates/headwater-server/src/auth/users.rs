//! Changing a password file from the command line.
//!
//! Guarantee: of several who change a file at once, also through links, each changes what the one before has left. The file
//! is held from when it is read until it is replaced, and not while a password is derived.

use std::num::NonZeroU32;
use std::path::Path;

use headwater_auth::passwords::{self, EntryError, FileError as LineError, NewUser, PasswordFile};

use super::{AuthError, files};
use crate::secrets::{self, FileError};

/// Why a password file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// It has a bad line.
    #[error(transparent)]
    Line(#[from] LineError),
    /// The new entry makes no sense.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// No salt.
    #[error(transparent)]
    Chance(#[from] AuthError),
}

/// Name and grants of a user.
pub type Listed = (String, Vec<String>);

/// Everybody in a file, by name.
///
/// # Errors
/// Any [`UserError`].
pub fn list(path: &Path) -> Result<Vec<Listed>, UserError> {
    let file = PasswordFile::parse(&secrets::read_text(path, true)?)?;
    Ok(file.users().map(|(name, grants)| (name.to_owned(), grants.iter().map(ToString::to_string).collect())).collect())
}

/// Puts a user into a file, which is made if it is not there, or gives one a new password. Without `grants` a user who
/// is there keeps theirs. True if the user was there. Waits while somebody else changes a file of that directory so.
///
/// # Errors
/// Any [`UserError`]; the file is as it was.
pub fn add(path: &Path, user: &str, password: &[u8], grants: &[String]) -> Result<bool, UserError> {
    add_with(path, user, password, grants, passwords::ITERATIONS)
}

fn add_with(
    path: &Path,
    user: &str,
    password: &[u8],
    grants: &[String],
    iterations: NonZeroU32,
) -> Result<bool, UserError> {
    let mut grants = passwords::parse_grants(grants)?;
    let new = NewUser::new(user, password, &files::chance()?, iterations)?;
    let unwritable = |source| FileError::Unwritable { path: path.to_owned(), source };
    let held = secrets::hold(path).map_err(unwritable)?;
    let text = match secrets::read_text(&held.path, true) {
        Err(FileError::Unreadable { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => String::new(),
        text => text?,
    };
    if grants.is_empty() {
        let file = PasswordFile::parse(&text)?;
        let theirs = file.users().find(|(name, _)| *name == user);
        grants.extend(theirs.into_iter().flat_map(|(_, grants)| grants.iter().cloned()));
    }
    let (text, was_there) = passwords::with_entry(&text, user, Some(&new.line(&grants)))?;
    secrets::put(&held.path, &text, mode(&held.path))?;
    Ok(was_there)
}

/// Takes a user away. True if the user was there. Waits as [`add`] does.
///
/// # Errors
/// Any [`UserError`]; the file is as it was.
pub fn remove(path: &Path, user: &str) -> Result<bool, UserError> {
    // Without its directory the file is not there.
    let unreadable = |source| FileError::Unreadable { path: path.to_owned(), source };
    let held = secrets::hold(path).map_err(unreadable)?;
    let (text, was_there) = passwords::with_entry(&secrets::read_text(&held.path, true)?, user, None)?;
    if was_there {
        secrets::put(&held.path, &text, mode(&held.path))?;
    }
    Ok(was_there)
}

/// That of the file, or for its owner alone.
#[allow(clippy::disallowed_methods, reason = "the operator's file, not the store's")]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).map_or(0o600, |metadata| metadata.permissions().mode() & 0o660)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const FEW: NonZeroU32 = NonZeroU32::new(2).unwrap();

    fn add(path: &Path, user: &str, grants: &[&str]) -> bool {
        let grants: Vec<_> = grants.iter().map(|grant| (*grant).to_owned()).collect();
        add_with(path, user, b"x", &grants, FEW).unwrap()
    }

    #[test]
    fn what_several_change_at_once_is_all_changed() {
        const WRITERS: usize = 6;
        const CHANGES: usize = 8;
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("users"), directory.path().join("link"));
        std::os::unix::fs::symlink("users", &link).unwrap();
        let named = |kind: &str| -> Vec<_> {
            (0..WRITERS)
                .flat_map(|writer| (0..CHANGES).map(move |change| format!("{writer}-{change}")))
                .map(|name| format!("{kind}-{name}"))
                .collect()
        };
        for user in named("old") {
            assert!(!add(&path, &user, &["prn::/,READ"]));
        }
        std::thread::scope(|scope| {
            let (path, link) = (&path, &link);
            for writer in 0..WRITERS {
                scope.spawn(move || {
                    let path = if writer % 2 == 0 { path } else { link };
                    for change in 0..CHANGES {
                        assert!(!add(path, &format!("new-{writer}-{change}"), &["prn::/,READ"]));
                        assert!(remove(path, &format!("old-{writer}-{change}")).unwrap());
                    }
                });
            }
        });
        let users: Vec<_> = list(&path).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(users, named("new"));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2, "nothing is left beside it");
    }

    #[test]
    fn what_is_not_there_cannot_be_read_to_take_somebody_out_or_written_to_put_somebody_in() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["users", "nowhere/users"] {
            let path = directory.path().join(name);
            let removed = remove(&path, "u");
            assert!(matches!(removed, Err(UserError::File(FileError::Unreadable { .. }))), "{name}: {removed:?}");
        }
        let added = add_with(&directory.path().join("nowhere/users"), "u", b"x", &[], FEW);
        assert!(matches!(added, Err(UserError::File(FileError::Unwritable { .. }))), "{added:?}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn whoever_keeps_their_grants_keeps_those_that_the_one_before_gave() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        assert!(!add(&path, "u", &["prn::*,READ_UPDATE"]));
        let held = secrets::hold(&path).unwrap();
        std::thread::scope(|scope| {
            let (done, is_done) = mpsc::channel();
            let path = &path;
            scope.spawn(move || {
                assert!(add(path, "u", &[]));
                // Heard only if it did not wait.
                _ = done.send(());
            });
            // It had time to read what is going to be changed.
            assert_eq!(is_done.recv_timeout(Duration::from_millis(200)), Err(mpsc::RecvTimeoutError::Timeout));
            let given = passwords::new_entry("u", b"y", &["prn::/,READ".to_owned()], &[7; 32], FEW).unwrap();
            secrets::put(path, &given, 0o600).unwrap();
            drop(held);
        });
        assert_eq!(list(&path).unwrap(), [("u".to_owned(), vec!["prn::/,READ".to_owned()])]);
    }
}
