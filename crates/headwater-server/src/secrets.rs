//! Small files of the operator that are no part of the store: certificates, keys, passwords.
//!
//! Guarantees:
//! * what has to be secret is refused if everybody on this machine can read or write it
//! * a file is replaced as a whole or not at all, by one of the same owner and group: whoever could read it still can

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Longest file.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Why such a file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// Others on this machine could take it.
    #[error("{} can be read or written by everybody on this machine; take those rights away (chmod o-rw)", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
    },
    /// It has to be text.
    #[error("{} is not UTF-8", path.display())]
    NotText {
        /// Which file.
        path: PathBuf,
    },
    /// It cannot be kept.
    #[error("{} cannot be written", path.display())]
    Unwritable {
        /// Which file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
}

/// Reads a whole file.
#[allow(clippy::disallowed_methods, reason = "the operator's file, not the store's")]
pub(crate) fn read(path: &Path, is_secret: bool) -> Result<Vec<u8>, FileError> {
    let failed = |source| FileError::Unreadable { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if is_secret && mode & 0o006 != 0 {
        return Err(FileError::Exposed { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(failed(std::io::ErrorKind::FileTooLarge.into()));
    }
    Ok(bytes)
}

/// When a file was last written, if the system says.
#[allow(clippy::disallowed_methods, reason = "the operator's file, not the store's")]
pub(crate) fn written(path: &Path) -> Option<std::time::SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// Reads a whole file of text that is a secret: refused if others on this machine could read or write it.
///
/// # Errors
/// Any [`FileError`] but [`FileError::Unwritable`].
pub fn read_secret_text(path: &Path) -> Result<String, FileError> {
    read_text(path, true)
}

/// Reads a whole file of text.
pub(crate) fn read_text(path: &Path, is_secret: bool) -> Result<String, FileError> {
    String::from_utf8(read(path, is_secret)?).map_err(|_| FileError::NotText { path: path.to_owned() })
}

/// Writes a file beside its place, then puts it there. One that was there keeps its owner and group, or stays as it is.
#[allow(clippy::disallowed_methods, reason = "the operator's file, not the store's")]
pub(crate) fn put(path: &Path, text: &str, mode: u32) -> Result<(), FileError> {
    let failed = |source| FileError::Unwritable { path: path.to_owned(), source };
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let _ = std::fs::remove_file(&new);
    if let Err(error) = write(&new, path, text, mode).and_then(|()| std::fs::rename(&new, path)) {
        let _ = std::fs::remove_file(&new);
        return Err(failed(error));
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// Makes a file with the owner and group of the one that it is going to replace, if there is one.
#[allow(clippy::disallowed_methods, reason = "the operator's file, not the store's")]
fn write(new: &Path, old: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    match std::fs::metadata(old) {
        Ok(old) => {
            let made = file.metadata()?;
            if (made.uid(), made.gid()) != (old.uid(), old.gid()) {
                std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()))?;
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // After the owner, since that could take rights away; and as it was said, whatever the umask.
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// An error and its cause in one line, for the log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the operator's file, not the store's")]
mod tests {
    use super::*;

    fn file(directory: &tempfile::TempDir, mode: u32) -> PathBuf {
        let path = directory.path().join("users");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_secret_that_others_may_read_or_write_is_none() {
        let directory = tempfile::tempdir().unwrap();
        for (mode, is_refused) in [(0o600, false), (0o660, false), (0o604, true), (0o602, true), (0o646, true)] {
            let path = file(&directory, mode);
            assert_eq!(matches!(read(&path, true), Err(FileError::Exposed { .. })), is_refused, "{mode:o}");
            assert_eq!(read(&path, false).unwrap(), b"old");
        }
    }

    #[test]
    fn a_file_that_is_replaced_keeps_its_owner_and_gets_its_rights() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(&directory, 0o640);
        let me = std::fs::metadata(&path).unwrap();
        // Only a superuser can give files away; others see here that their own stay theirs.
        let (uid, gid) = match std::os::unix::fs::chown(&path, Some(4321), Some(4322)) {
            Ok(()) => (4321, 4322),
            Err(_) => (me.uid(), me.gid()),
        };
        put(&path, "new", 0o660).unwrap();
        let replaced = std::fs::metadata(&path).unwrap();
        assert_eq!((replaced.uid(), replaced.gid()), (uid, gid));
        assert_eq!(replaced.mode() & 0o777, 0o660, "whatever the umask");
        assert_eq!(read(&path, true).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
