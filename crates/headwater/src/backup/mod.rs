//! `headwater backup` and `headwater restore`: a running server's store into a directory or a bucket, and back.
//!
//! A backup has the layout of a data directory, so `check` judges it as it is, and beside it a list, `backup.json`, with the
//! length and SHA-256 of every file. The list is written last: a place without it is no backup. In a bucket the names are
//! those of a directory; files above 128 MiB are in parts.
//!
//! Guarantees:
//! * what was acknowledged before the backup began is in it; it is the store at one instant
//! * nothing that is there is overwritten: both refuse a place that is not empty
//! * a restore verifies every byte, of a directory before it writes the first, and the restored store after the last; what
//!   becomes a store becomes one with the last file

mod client;
mod disk;
mod list;
mod place;
mod restore;
mod save;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use headwater_server::check::CheckError;
use headwater_server::{BucketOptions, S3Location, StoreError};
use serde_json::json;

use self::disk::ObjectDisk;
use self::list::List;
use self::place::{Bucket, Place};
use crate::credentials::CredentialsError;
use crate::serve::chain;
use crate::storage;
use crate::{check, cli, exit};

/// What to back up and where to.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct BackupArguments {
    #[command(flatten)]
    server: ServerArguments,
    /// Directory or s3://bucket/prefix for the backup; made if absent, refused if not empty
    destination: String,
    /// Do not verify the backup after it was written
    #[arg(long)]
    skip_check: bool,
    /// Print JSON, one object per line: what `check` says of the backup, then the backup; an error is one on standard error
    #[arg(long)]
    json: bool,
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
    /// File whose first line is USER:PASSWORD, `Bearer` and a token, or OIDC ISSUER CLIENT [secret=SECRET] [scope=SCOPE]
    /// [audience=AUDIENCE] [ca=FILE]; without a secret, a person is asked to sign in
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,
}

/// What to restore and where to.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct RestoreArguments {
    /// Directory or s3://bucket/prefix of a backup
    source: String,
    /// Data directory to make; refused if not empty
    directory: PathBuf,
    /// Object storage for the restored store's chunks, as `serve` is told; refused if not empty
    #[arg(long, value_name = "URL", value_parser = S3Location::parse)]
    chunks: Option<S3Location>,
    /// Print JSON: what `check` says of the restored store; an error is one on standard error
    #[arg(long)]
    json: bool,
}

/// Why there is no backup, or no restored store.
#[derive(Debug, thiserror::Error)]
enum BackupError {
    /// Neither a directory nor a bucket.
    #[error("{what}")]
    NoPlace { what: String },
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
    #[error("{}", path.display())]
    Storage { path: PathBuf, source: StoreError },
    #[error(transparent)]
    NotJudged(#[from] CheckError),
    #[error("could not {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
}

impl BackupError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    fn storage(path: &Path) -> impl FnOnce(StoreError) -> Self {
        move |source| Self::Storage { path: path.to_owned(), source }
    }

    /// A file that should be there is not.
    fn is_missing(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            Self::Storage { source, .. } => place::is_not_found(source),
            _ => false,
        }
    }

    fn code(&self) -> i32 {
        match self {
            Self::NoPlace { .. } | Self::NotEmpty { .. } | Self::NotABackup { .. } | Self::Newer { .. } => {
                exit::SETTINGS
            }
            Self::Damaged { .. } => exit::DISK,
            Self::Server { source, .. } => {
                source.downcast_ref().map_or(exit::CANNOT_CREATE, |error: &CredentialsError| error.code())
            }
            Self::Refused { .. } => exit::CANNOT_CREATE,
            Self::Storage { source, .. } => exit::of_store(source),
            Self::NotJudged(error) => check::of_error(error),
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
    let done = Place::parse(&arguments.destination).and_then(|destination| {
        let list = save::save(&arguments.server, &destination)?;
        // Judged before it is called a backup.
        if !arguments.skip_check && !is_sound(&destination, &list, arguments.json)? {
            let what = "what was copied is doubtful; it is kept for a look, without a list".to_owned();
            return Err(BackupError::Damaged { path: destination.shown().to_owned(), what });
        }
        destination.write_list(&list)?;
        let (files, bytes, frame) = (list.files.len(), check::size(list.bytes()), list.frame);
        let shown = destination.shown().display();
        crate::serve::print(&match arguments.json {
            true => {
                let bytes = list.bytes();
                let object =
                    json!({"backup": shown.to_string(), "files": files, "bytes": bytes, "journal_frame": frame});
                format!("{object}\n")
            }
            false => format!("backup of {files} files, {bytes}, journal to frame {frame}, in {shown}\n"),
        });
        Ok(())
    });
    code(done, arguments.json)
}

/// Restores; returns the code to end with.
pub(crate) fn restore(arguments: &RestoreArguments) -> i32 {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let directory = &arguments.directory;
    let done = (|| {
        let source = Place::parse(&arguments.source)?;
        let bucket = arguments.chunks.as_ref().map(storage::chunks).transpose();
        let bucket = bucket.map_err(|what| BackupError::NoPlace { what })?;
        restore::restore(&source, directory, bucket.as_ref())?;
        if is_sound_directory(directory, bucket.as_ref(), arguments.json)? {
            return Ok(());
        }
        let what = "the restored store is doubtful".to_owned();
        Err(BackupError::Damaged { path: directory.clone(), what })
    })();
    code(done, arguments.json)
}

/// Judges a backup in a bucket, as `check` judges one in a directory; returns the code to end with.
pub(crate) fn judge(text: &str, json: bool) -> i32 {
    let judged = Place::parse(text).and_then(|place| {
        let list = place.read_list()?;
        match &place {
            Place::Bucket(bucket) => judge_bucket(bucket, &list, json),
            Place::Directory(_) => Err(BackupError::NoPlace { what: format!("{text} is no bucket") }),
        }
    });
    match judged {
        Ok(true) => 0,
        Ok(false) => exit::DOUBT,
        Err(error) => code(Err(error), json),
    }
}

fn code(done: Result<(), BackupError>, is_json: bool) -> i32 {
    match done {
        Ok(()) => 0,
        Err(error) => cli::refuse(is_json, &chain(&error), error.code()),
    }
}

fn is_sound(place: &Place, list: &List, json: bool) -> Result<bool, BackupError> {
    match place {
        Place::Directory(path) => is_sound_directory(path, None, json),
        Place::Bucket(bucket) => judge_bucket(bucket, list, json),
    }
}

fn is_sound_directory(directory: &Path, bucket: Option<&BucketOptions>, json: bool) -> Result<bool, BackupError> {
    Ok(check::judge(directory, bucket, json)?.is_sound())
}

/// Whether what the list names is a sound store.
fn judge_bucket(bucket: &Bucket, list: &List, json: bool) -> Result<bool, BackupError> {
    let disk = Arc::new(ObjectDisk::new(bucket.objects.clone(), list));
    let judged = check::tell(&bucket.shown.to_string_lossy(), json, |watch| {
        let mut summary = headwater_server::check::disk(disk.clone(), watch)?;
        summary.files = list.files.len() as u64;
        Ok(summary)
    });
    match disk.away() {
        // Whatever was said of the rest.
        Some(away) => Err(BackupError::storage(&bucket.shown)(away)),
        None => judged.map(|summary| summary.is_sound()).map_err(BackupError::storage(&bucket.shown)),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::ErrorKind;
    use std::sync::Mutex;

    use bytes::Bytes;
    use headwater_server::io::{Content, Objects};

    use super::*;

    /// Object storage in memory.
    #[derive(Debug, Default)]
    pub(super) struct Memory(Mutex<BTreeMap<String, Bytes>>);

    impl Memory {
        /// Changes or takes away what a name holds, as only damage does.
        pub(super) fn replace(&self, name: &str, content: Option<Bytes>) {
            let mut objects = self.0.lock().unwrap();
            match content {
                Some(content) => objects.insert(name.to_owned(), content),
                None => objects.remove(name),
            };
        }

        fn refused<T>(name: &str, action: &'static str, kind: ErrorKind) -> Result<T, StoreError> {
            Err(StoreError::Io { path: name.into(), action, source: kind.into() })
        }
    }

    impl Objects for Memory {
        fn put(&self, name: &str, content: Content<'_>, _pause: &mut dyn FnMut()) -> Result<(), StoreError> {
            if self.0.lock().unwrap().contains_key(name) {
                return Self::refused(name, "put", ErrorKind::AlreadyExists);
            }
            self.replace(name, Some(content.concat()));
            Ok(())
        }

        fn get(&self, name: &str, offset: u64, length: usize) -> Result<Bytes, StoreError> {
            match self.0.lock().unwrap().get(name) {
                None => Self::refused(name, "get", ErrorKind::NotFound),
                Some(found) if found.len() < offset as usize + length => {
                    Self::refused(name, "get", ErrorKind::UnexpectedEof)
                }
                Some(found) => Ok(found.slice(offset as usize..offset as usize + length)),
            }
        }

        fn length(&self, name: &str) -> Result<u64, StoreError> {
            match self.0.lock().unwrap().get(name) {
                None => Self::refused(name, "measure", ErrorKind::NotFound),
                Some(found) => Ok(found.len() as u64),
            }
        }

        fn give_up(&self, _name: &str) {}

        fn delete(&self, name: &str, _pause: &mut dyn FnMut()) -> Result<(), StoreError> {
            self.replace(name, None);
            Ok(())
        }

        fn list(&self, directory: &str) -> Result<Vec<String>, StoreError> {
            let start = if directory.is_empty() { String::new() } else { format!("{directory}/") };
            Ok(self.0.lock().unwrap().keys().filter_map(|name| name.strip_prefix(&start)).map(str::to_owned).collect())
        }

        fn ahead_bytes(&self) -> u64 {
            1
        }
    }

    #[test]
    fn a_place_that_has_anything_takes_no_backup() {
        let objects = Arc::new(Memory::default());
        let bucket = Bucket { objects: objects.clone(), shown: PathBuf::from("s3://b/x") };
        let place = Place::Bucket(bucket.clone());
        place.make_empty().unwrap();
        bucket.begin("one".into()).unwrap();
        assert!(matches!(place.make_empty(), Err(BackupError::NotEmpty { .. })));
        assert!(matches!(bucket.begin("two".into()), Err(BackupError::NotEmpty { .. })));
        assert!(place.read_list().unwrap_err().to_string().contains("did not come to its end"));
    }

    #[test]
    fn a_place_is_a_directory_or_a_bucket_and_nothing_else() {
        assert!(matches!(Place::parse("/a/b"), Ok(Place::Directory(_))));
        for text in ["http://b/x", "gs://b/x", "s3://", "s3://B/x"] {
            assert!(matches!(Place::parse(text), Err(BackupError::NoPlace { .. })), "{text}");
        }
    }
}
