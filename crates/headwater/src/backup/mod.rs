//! `headwater backup` and `headwater restore`: a running server's store into a directory, and back.
//!
//! A backup has the layout of a data directory, so `check` judges it as it is, and beside it a list, `backup.json`, with the
//! length and SHA-256 of every file. The list is written last: a directory without it is no backup.
//!
//! Guarantees:
//! * what was acknowledged before the backup began is in it; it is the store at one instant
//! * nothing that is there is overwritten: both refuse a place that is not empty
//! * a restore verifies every byte before it writes the first, and the restored store after the last

mod client;
mod list;
mod restore;
mod save;

use std::path::{Path, PathBuf};

use crate::check;
use crate::exit;
use crate::serve::chain;

/// What to back up and where to.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct BackupArguments {
    #[command(flatten)]
    server: ServerArguments,
    /// Directory for the backup; made if absent, refused if not empty
    destination: String,
    /// Do not verify the backup after it was written
    #[arg(long)]
    skip_check: bool,
}

/// Which server, and how to be let in.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct ServerArguments {
    /// HTTP address of the server; with https:// it has to be an IP address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9091")]
    server: String,
    /// PEM file with the certificates to trust, for https://
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// File whose first line is USER:PASSWORD, or `Bearer` and a token
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,
}

/// What to restore and where to.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct RestoreArguments {
    /// Directory of a backup
    source: String,
    /// Data directory to make; refused if not empty
    directory: PathBuf,
}

/// Why there is no backup, or no restored store.
#[derive(Debug, thiserror::Error)]
enum BackupError {
    /// A place that this release cannot use.
    #[error("{place} is no directory; buckets are not supported yet")]
    NotADirectory { place: String },
    #[error("{} is not empty", path.display())]
    NotEmpty { path: PathBuf },
    #[error("{} is no backup: {reason}", path.display())]
    NotABackup { path: PathBuf, reason: String },
    #[error("{} has format {found}, this release reads up to {known}", path.display())]
    Newer { path: PathBuf, found: u64, known: u64 },
    #[error("{}: {what}", path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("server {server} could not be asked")]
    Server { server: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("server {server} answers {status}: {detail}")]
    Refused { server: String, status: u16, detail: String },
    #[error("could not {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
}

impl BackupError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    fn code(&self) -> i32 {
        match self {
            Self::NotADirectory { .. } | Self::NotEmpty { .. } | Self::NotABackup { .. } | Self::Newer { .. } => {
                exit::SETTINGS
            }
            Self::Damaged { .. } => exit::DISK,
            Self::Server { .. } | Self::Refused { .. } => exit::CANNOT_CREATE,
            Self::Io { action, .. } => {
                if *action == "make" {
                    exit::CANNOT_CREATE
                } else {
                    exit::DISK
                }
            }
        }
    }
}

/// Backs up; returns the code to end with.
pub(crate) fn backup(arguments: &BackupArguments) -> i32 {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let done = place(&arguments.destination).and_then(|destination| {
        let list = save::save(&arguments.server, &destination)?;
        // Judged before it is called a backup.
        if !arguments.skip_check && !is_sound(&destination) {
            let what = "what was copied is doubtful; it is kept for a look, without a list".to_owned();
            return Err(BackupError::Damaged { path: destination, what });
        }
        list.write(&destination)?;
        let (files, bytes, frame) = (list.files.len(), check::size(list.bytes()), list.frame);
        crate::serve::print(&format!(
            "backup of {files} files, {bytes}, journal to frame {frame}, in {}\n",
            destination.display()
        ));
        Ok(())
    });
    code(done)
}

/// Restores; returns the code to end with.
pub(crate) fn restore(arguments: &RestoreArguments) -> i32 {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let directory = &arguments.directory;
    let done = place(&arguments.source).and_then(|source| restore::restore(&source, directory)).and_then(|()| {
        if is_sound(directory) {
            return Ok(());
        }
        let what = "the restored store is doubtful".to_owned();
        Err(BackupError::Damaged { path: directory.clone(), what })
    });
    code(done)
}

fn code(done: Result<(), BackupError>) -> i32 {
    match done {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("headwater: {}", chain(&error));
            error.code()
        }
    }
}

/// Where a backup is. Other places than directories come with the buckets.
fn place(text: &str) -> Result<PathBuf, BackupError> {
    if text.contains("://") {
        Err(BackupError::NotADirectory { place: text.to_owned() })
    } else {
        Ok(PathBuf::from(text))
    }
}

fn is_sound(directory: &Path) -> bool {
    match check::judge(directory, None, false) {
        Ok(summary) => summary.is_sound(),
        Err(error) => {
            eprintln!("headwater: {}", chain(&error));
            false
        }
    }
}

/// Makes a directory, or makes sure that there is an empty one.
fn empty(directory: &Path) -> Result<(), BackupError> {
    use std::os::unix::fs::DirBuilderExt as _;
    match std::fs::read_dir(directory) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(BackupError::NotEmpty { path: directory.to_owned() }),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
            made.map_err(BackupError::io("make", directory))
        }
        Err(error) => Err(BackupError::io("make", directory)(error)),
    }
}
