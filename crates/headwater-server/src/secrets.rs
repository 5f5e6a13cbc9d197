//! Small files of the operator that are no part of the store: certificates, keys, passwords.
//!
//! Guarantees:
//! * what has to be secret is refused if everybody on this machine can read or write it
//! * a file is replaced as a whole or not at all, by one of the same owner and group: whoever could read it still can. A
//!   symbolic link stays one, and what it leads to is replaced
//! * of those who [`hold`] a file one after the other changes it, and what one of them left who was killed is removed

use std::ffi::OsStr;
use std::fs::TryLockError;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

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

/// A file that is going to be changed by what is in it: until this is dropped nobody else has it.
#[derive(Debug)]
pub(crate) struct Held {
    /// Where the file is, or is going to be, behind all symbolic links.
    pub(crate) path: PathBuf,
    /// Locked. Unlike the file it is there before the first change, and stays the same when the file is replaced.
    _directory: std::fs::File,
}

/// How long somebody else may have a file of the directory: changes take milliseconds.
const HELD_MAX: Duration = Duration::from_secs(30);

/// Waits until nobody else has a file of this directory. The system lets go of what a process had that is gone.
///
/// # Errors
/// `WouldBlock`: somebody has it for 30 s, who need not be one of us.
#[allow(clippy::disallowed_methods, reason = "the operator's file, not the store's")]
pub(crate) fn hold(path: &Path) -> std::io::Result<Held> {
    let path = place(path)?;
    let place = directory(&path);
    let (directory, begun) = (std::fs::File::open(place)?, Instant::now());
    loop {
        match directory.try_lock() {
            Ok(()) => {
                sweep(&path);
                return Ok(Held { path, _directory: directory });
            }
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if begun.elapsed() < HELD_MAX => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                let what = format!("somebody has had {} locked for {} s", place.display(), HELD_MAX.as_secs());
                return Err(std::io::Error::new(std::io::ErrorKind::WouldBlock, what));
            }
        }
    }
}

/// Removes what those left beside a file who were killed while they replaced it. Nobody replaces it now: it is held.
#[allow(clippy::disallowed_methods, reason = "the operator's file, not the store's")]
fn sweep(path: &Path) {
    let (Some(name), Ok(entries)) = (path.file_name(), std::fs::read_dir(directory(path))) else { return };
    for entry in entries.flatten().filter(|entry| is_beside(name, &entry.file_name())) {
        // What cannot be removed is in nobody's way.
        let _ = std::fs::remove_file(entry.path());
    }
}

/// Where a file is, or is going to be, behind all symbolic links.
fn place(path: &Path) -> std::io::Result<PathBuf> {
    // Also ends where links lead round in a circle.
    if let Err(error) = std::fs::metadata(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error);
    }
    match std::fs::read_link(path) {
        Ok(to) => place(&directory(path).join(to)),
        // No link, or nothing yet.
        Err(_) => Ok(path.to_owned()),
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes a file beside its place, then puts it there. One that was there keeps its owner and group, or stays as it is.
#[allow(clippy::disallowed_methods, reason = "the operator's file, not the store's")]
pub(crate) fn put(path: &Path, text: &str, mode: u32) -> Result<(), FileError> {
    let failed = |source| FileError::Unwritable { path: path.to_owned(), source };
    let path = &place(path).map_err(failed)?;
    let (new, file) = beside(path).map_err(failed)?;
    if let Err(error) = write(file, path, text, mode).and_then(|()| std::fs::rename(&new, path)) {
        let _ = std::fs::remove_file(&new);
        return Err(failed(error));
    }
    std::fs::File::open(directory(path)).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// Makes a file beside another, under a name that nobody else has.
fn beside(path: &Path) -> std::io::Result<(PathBuf, std::fs::File)> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}-{}.new", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
        match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&name) {
            // Of a process of this number that was killed, or that counts its processes otherwise.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => return made.map(|file| (name.into(), file)),
        }
    }
}

/// Whether a name is one that [`beside`] gives to what is going to be `name`.
fn is_beside(name: &OsStr, other: &OsStr) -> bool {
    let rest = other.as_bytes().strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"."));
    let Some(numbers) = rest.and_then(|rest| rest.strip_suffix(b".new")) else { return false };
    let is_number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let mut numbers = numbers.split(|byte| *byte == b'-');
    numbers.next().is_some_and(is_number) && numbers.next().is_some_and(is_number) && numbers.next().is_none()
}

/// Fills a file, which gets the owner and group of the one that it is going to replace, if there is one.
fn write(mut file: std::fs::File, old: &Path, text: &str, mode: u32) -> std::io::Result<()> {
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

    #[test]
    fn a_link_stays_and_what_it_leads_to_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("there")).unwrap();
        for (link, to) in [("users", "there/link"), ("there/link", "users"), ("a", "b"), ("b", "a")] {
            std::os::unix::fs::symlink(to, at(link)).unwrap();
        }
        // At first they lead to nothing.
        for text in ["first", "second"] {
            put(&at("users"), text, 0o600).unwrap();
            assert_eq!(read(&at("there/users"), true).unwrap(), text.as_bytes());
            assert_eq!(hold(&at("users")).unwrap().path, at("there/users"));
            assert!(at("users").is_symlink() && at("there/link").is_symlink() && !at("there/users").is_symlink());
        }
        assert!(matches!(put(&at("a"), "x", 0o600), Err(FileError::Unwritable { .. })), "they lead nowhere");
        assert!(matches!(put(&at("there"), "x", 0o600), Err(FileError::Unwritable { .. })), "a directory is no file");
        let left = |name: &str| std::fs::read_dir(at(name)).unwrap().count();
        assert_eq!((left(""), left("there")), (4, 2), "nothing is left beside them");
    }

    #[test]
    fn what_those_left_who_were_killed_goes_when_the_file_is_held_again() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let left = ["users.17-0.new", "users.4194304-12.new"];
        let others =
            ["users", "users.new", "users.1-.new", "users.1-2-3.new", "users.1-x.new", "users.1-2", "users.bak"];
        let of_others = ["users2.1-2.new", "old.users.1-2.new"];
        for name in left.iter().chain(&others).chain(&of_others) {
            std::fs::write(at(name), "x").unwrap();
        }
        drop(hold(&at("users")).unwrap());
        for (names, is_there) in [(&left[..], false), (&others[..], true), (&of_others[..], true)] {
            for name in names {
                assert_eq!(at(name).exists(), is_there, "{name}");
            }
        }
    }

    #[test]
    fn what_another_process_left_is_in_nobodys_way() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        // All the names that this process would take next.
        for number in 0..1000 {
            let left = directory.path().join(format!("users.{}-{number}.new", std::process::id()));
            std::fs::write(left, "left").unwrap();
        }
        put(&path, "new", 0o600).unwrap();
        assert_eq!(read(&path, true).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1001, "and stays");
    }
}
