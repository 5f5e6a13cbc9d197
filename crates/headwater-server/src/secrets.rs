//! Small files of the operator that are no part of the store: certificates, keys, passwords.
//!
//! Guarantees:
//! * what has to be secret is refused if everybody on this machine can read it
//! * a file is replaced as a whole or not at all

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
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
    #[error("{} can be read by everybody on this machine; take that right away (chmod o-r)", path.display())]
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
    if is_secret && mode & 0o004 != 0 {
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

/// Reads a whole file of text.
pub(crate) fn read_text(path: &Path, is_secret: bool) -> Result<String, FileError> {
    String::from_utf8(read(path, is_secret)?).map_err(|_| FileError::NotText { path: path.to_owned() })
}

/// Writes a file beside its place, then puts it there.
#[allow(clippy::disallowed_methods, reason = "the operator's file, not the store's")]
pub(crate) fn put(path: &Path, text: &str, mode: u32) -> Result<(), FileError> {
    let failed = |source| FileError::Unwritable { path: path.to_owned(), source };
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let _ = std::fs::remove_file(&new);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&new, path).map_err(failed)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
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
