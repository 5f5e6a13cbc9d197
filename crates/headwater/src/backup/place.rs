//! Where a backup is: a directory, or a place in a bucket. Both have the same names in the same layout.
#![allow(clippy::disallowed_methods, reason = "backups are plain files beside the store, written by no part of it")]

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use headwater_server::io::{Content, Objects};
use headwater_server::{S3Location, StoreError};
use sha2::{Digest as _, Sha256};

use super::list::{List, Listed, NAME, hexadecimal};
use super::{BackupError, empty};
use crate::storage;

/// Read at a time.
const PIECE_BYTES: u64 = 4 << 20;
/// Pieces of an object that are on their way at a time; those of a directory come one by one.
const AHEAD: usize = 4;
/// Files above this are kept in parts in a bucket: a part is in memory as a whole while it is put there.
const OBJECT_BYTES_MAX: u64 = 128 << 20;
/// Length of such parts, but for the last. A multiple of every length that is read at a time.
const PART_BYTES: u64 = 64 << 20;
/// First object of a backup: it keeps a second one from the place.
const BEGUN: &str = "backup.begun";
/// Longest list that is read: some millions of files.
const LIST_BYTES_MAX: u64 = 1 << 30;

/// See the module.
#[derive(Clone)]
pub(super) enum Place {
    /// Files below a directory.
    Directory(PathBuf),
    /// Objects.
    Bucket(Bucket),
}

/// A place in a bucket.
#[derive(Clone)]
pub(super) struct Bucket {
    pub(super) objects: Arc<dyn Objects>,
    /// What people call it.
    pub(super) shown: PathBuf,
}

impl Place {
    /// Takes `s3://…` for a bucket and everything else for a directory.
    pub(super) fn parse(text: &str) -> Result<Self, BackupError> {
        if !text.contains("://") {
            return Ok(Self::Directory(PathBuf::from(text)));
        }
        let location =
            S3Location::parse(text).map_err(|what| BackupError::NoPlace { what: format!("{text} {what}") })?;
        let objects = storage::open(&location).map_err(|what| BackupError::NoPlace { what })?;
        Ok(Self::Bucket(Bucket { objects, shown: PathBuf::from(location.to_string()) }))
    }

    /// What people call it.
    pub(super) fn shown(&self) -> &Path {
        match self {
            Self::Directory(path) => path,
            Self::Bucket(bucket) => &bucket.shown,
        }
    }

    /// Makes sure that nothing is there, and makes a directory.
    pub(super) fn make_empty(&self) -> Result<(), BackupError> {
        match self {
            Self::Directory(path) => empty(path),
            Self::Bucket(bucket) => match bucket.objects.is_empty().map_err(BackupError::storage(&bucket.shown))? {
                true => Ok(()),
                false => Err(BackupError::NotEmpty { path: bucket.shown.clone() }),
            },
        }
    }

    /// Writes the list, durably, under its name only when it is whole.
    pub(super) fn write_list(&self, list: &List) -> Result<(), BackupError> {
        match self {
            Self::Directory(path) => list.write(path),
            Self::Bucket(bucket) => bucket.put(NAME, Bytes::from(list.encode()).into()),
        }
    }

    /// Reads the list and makes sure that no name in it leads elsewhere.
    pub(super) fn read_list(&self) -> Result<List, BackupError> {
        let shown = self.shown();
        let not_a_backup = |reason: &str| BackupError::NotABackup { path: shown.to_owned(), reason: reason.into() };
        let text = match self {
            Self::Directory(path) => match std::fs::read_to_string(path.join(NAME)) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(not_a_backup("it has no backup.json"));
                }
                text => text.map_err(BackupError::io("read", &path.join(NAME)))?,
            },
            Self::Bucket(Bucket { objects, .. }) => {
                let length = match objects.length(NAME) {
                    Err(error) if is_not_found(&error) => return Err(not_a_backup(self.why_no_list())),
                    length => length.map_err(BackupError::storage(shown))?,
                };
                if length > LIST_BYTES_MAX {
                    return Err(not_a_backup("backup.json is too long for one"));
                }
                let text = objects.get(NAME, 0, length as usize).map_err(BackupError::storage(shown))?;
                String::from_utf8(text.into()).map_err(|_| not_a_backup("backup.json is no text"))?
            }
        };
        List::decode(&text, shown)
    }

    fn why_no_list(&self) -> &'static str {
        let is_begun = match self {
            Self::Directory(_) => false,
            Self::Bucket(Bucket { objects, .. }) => objects.length(BEGUN).is_ok(),
        };
        if is_begun { "it did not come to its end: it has no backup.json" } else { "it has no backup.json" }
    }

    /// Reads a file of the backup, in pieces; what is not as listed is an error, at its end.
    pub(super) fn verified(
        &self,
        name: &str,
        expected: &Listed,
        mut take: impl FnMut(Bytes) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        let path = self.shown().join(name);
        let (mut sum, mut length) = (Sha256::new(), 0);
        for (object, object_length) in parts(name, expected) {
            for piece in self.pieces(&object, object_length) {
                let piece = match piece {
                    Err(error) if error.is_missing() => {
                        return Err(BackupError::Damaged { path, what: "file of the backup is missing".into() });
                    }
                    piece => piece?,
                };
                sum.update(&piece);
                length += piece.len() as u64;
                take(piece)?;
            }
        }
        let found = hexadecimal(&sum.finalize());
        if (length, &found) == (expected.length, &expected.sha256) {
            return Ok(());
        }
        let what = format!(
            "file has {length} bytes with SHA-256 {found}, expected {} with {}",
            expected.length, expected.sha256
        );
        Err(BackupError::Damaged { path, what })
    }

    /// Pieces of an object in their order: all that it should have, and one more if it has more.
    fn pieces(&self, object: &str, length: u64) -> Box<dyn Iterator<Item = Result<Bytes, BackupError>> + '_> {
        match self {
            Self::Directory(directory) => Box::new(file_pieces(&directory.join(object))),
            Self::Bucket(bucket) => Box::new(bucket.pieces(object.to_owned(), length)),
        }
    }
}

impl Bucket {
    /// Claims the place for a backup.
    pub(super) fn begin(&self, about: String) -> Result<(), BackupError> {
        match self.objects.put(BEGUN, Bytes::from(about).into(), &mut || ()) {
            Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(BackupError::NotEmpty { path: self.shown.clone() })
            }
            put => put.map_err(BackupError::storage(&self.shown)),
        }
    }

    pub(super) fn put(&self, name: &str, content: Content<'_>) -> Result<(), BackupError> {
        self.objects.put(name, content, &mut || ()).map_err(BackupError::storage(&self.shown))
    }

    /// A few pieces at a time are on their way.
    fn pieces(&self, object: String, length: u64) -> impl Iterator<Item = Result<Bytes, BackupError>> + '_ {
        let mut from = 0;
        let mut here = std::collections::VecDeque::new();
        let mut measured = false;
        std::iter::from_fn(move || {
            if !std::mem::replace(&mut measured, true) {
                // An object that is longer than it should be was not put there by us.
                match self.objects.length(&object).map_err(BackupError::storage(&self.shown)) {
                    Err(error) => return Some(Err(error)),
                    Ok(found) if found == length => {}
                    Ok(found) => {
                        let what = format!("object has {found} bytes, expected {length}");
                        return Some(Err(BackupError::Damaged { path: self.shown.join(&object), what }));
                    }
                }
            }
            if here.is_empty() && from < length {
                let starts = (0..AHEAD as u64).map(|at| from + at * PIECE_BYTES).filter(|start| *start < length);
                let object = &object;
                let read = |start: u64| self.objects.get(object, start, PIECE_BYTES.min(length - start) as usize);
                std::thread::scope(|scope| {
                    let readers: Vec<_> = starts.map(|start| scope.spawn(move || read(start))).collect();
                    here.extend(readers.into_iter().map(|reader| reader.join().expect("reading does not panic")));
                });
                from += AHEAD as u64 * PIECE_BYTES;
            }
            here.pop_front().map(|piece| piece.map_err(BackupError::storage(&self.shown)))
        })
    }
}

fn file_pieces(path: &Path) -> impl Iterator<Item = Result<Bytes, BackupError>> + use<> {
    let path = path.to_owned();
    let mut file = None;
    let mut position = 0;
    std::iter::from_fn(move || {
        let mut read = || -> Result<Bytes, BackupError> {
            let file = match &mut file {
                Some(file) => file,
                none => none.insert(File::open(&path).map_err(BackupError::io("open", &path))?),
            };
            let mut piece = vec![0; PIECE_BYTES as usize];
            let count = file.read_at(&mut piece, position).map_err(BackupError::io("read", &path))?;
            piece.truncate(count);
            position += count as u64;
            Ok(piece.into())
        };
        match read() {
            Ok(piece) if piece.is_empty() => None,
            piece => Some(piece),
        }
    })
}

pub(super) fn is_not_found(error: &StoreError) -> bool {
    matches!(error, StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

/// Length of a file's parts in a bucket, if it is kept in parts.
pub(super) fn part_bytes(length: u64) -> Option<u64> {
    (length > OBJECT_BYTES_MAX).then_some(PART_BYTES)
}

/// Objects, or files, that a listed file consists of, and their lengths.
pub(super) fn parts(name: &str, listed: &Listed) -> Vec<(String, u64)> {
    let Some(part_bytes) = listed.part_bytes.filter(|bytes| *bytes > 0) else {
        return vec![(name.to_owned(), listed.length)];
    };
    let count = listed.length.div_ceil(part_bytes);
    let part = |at: u64| (part_name(name, at), part_bytes.min(listed.length - at * part_bytes));
    (0..count).map(part).collect()
}

/// Name of a part of a file.
pub(super) fn part_name(name: &str, part: u64) -> String {
    format!("{name}.{part:06}")
}
