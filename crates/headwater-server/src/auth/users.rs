//! Changing a password file from the command line.

use std::path::Path;

use headwater_auth::passwords::{self, EntryError, FileError as LineError, PasswordFile};

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
/// is there keeps theirs. True if the user was there.
///
/// # Errors
/// Any [`UserError`]; the file is as it was.
pub fn add(path: &Path, user: &str, password: &[u8], grants: &[String]) -> Result<bool, UserError> {
    let text = match secrets::read_text(path, true) {
        Err(FileError::Unreadable { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => String::new(),
        text => text?,
    };
    let mut grants = grants.to_vec();
    if grants.is_empty() {
        let file = PasswordFile::parse(&text)?;
        let theirs = file.users().find(|(name, _)| *name == user);
        grants.extend(theirs.into_iter().flat_map(|(_, grants)| grants.iter().map(ToString::to_string)));
    }
    let line = passwords::new_entry(user, password, &grants, &files::chance()?, passwords::ITERATIONS)?;
    let (text, was_there) = passwords::with_entry(&text, user, Some(&line))?;
    secrets::put(path, &text, mode(path))?;
    Ok(was_there)
}

/// Takes a user away. True if the user was there.
///
/// # Errors
/// Any [`UserError`]; the file is as it was.
pub fn remove(path: &Path, user: &str) -> Result<bool, UserError> {
    let (text, was_there) = passwords::with_entry(&secrets::read_text(path, true)?, user, None)?;
    if was_there {
        secrets::put(path, &text, mode(path))?;
    }
    Ok(was_there)
}

/// That of the file, or for its owner alone.
#[allow(clippy::disallowed_methods, reason = "the operator's file, not the store's")]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).map_or(0o600, |metadata| metadata.permissions().mode() & 0o660)
}
