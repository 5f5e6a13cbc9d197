//! Copying a backup back into a data directory, or into a data directory and a bucket for its chunks.
//!
//! A directory is verified before the first byte is written. A bucket is read once: what it gives is verified while it is
//! written, and the file that makes a directory a store comes last.
#![allow(clippy::disallowed_methods, reason = "no store is there before the last file is")]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use headwater_server::io::{Io, RealClock, RealDisk, RealRandom};
use headwater_server::{BucketOptions, BucketRestore};

use super::list::List;
use super::place::Place;
use super::{BackupError, empty};

/// The file that makes a directory a store; copied last.
const IDENTITY: &str = "store";
/// While it is copied.
const IDENTITY_NEXT: &str = "store.next";
/// There while a restore is under way: the server refuses a directory that has it and no identity.
const RESTORING: &str = "restoring";

/// Verifies the backup and copies it. With `bucket`, its chunks go there.
pub(super) fn restore(source: &Place, directory: &Path, bucket: Option<&BucketOptions>) -> Result<(), BackupError> {
    let list = source.read_list()?;
    if !list.files.contains_key(IDENTITY) {
        let reason = format!("its list lacks the file {IDENTITY:?}");
        return Err(BackupError::NotABackup { path: source.shown().to_owned(), reason });
    }
    if let Place::Directory(_) = source {
        for (name, listed) in &list.files {
            source.verified(name, listed, |_| Ok(()))?;
        }
    }
    empty(directory)?;
    let marker = directory.join(RESTORING);
    File::create_new(&marker).and_then(|file| file.sync_all()).map_err(BackupError::io("create", &marker))?;
    sync(directory)?;
    let io = Io {
        disk: Arc::new(RealDisk::new(directory)),
        clock: Arc::new(RealClock::default()),
        random: Arc::new(RealRandom),
    };
    let chunks = match bucket {
        Some(bucket) => {
            Some(BucketRestore::begin(&io, bucket).map_err(BackupError::storage(Path::new(&bucket.shown)))?)
        }
        None => None,
    };
    copy_all(source, &list, directory, chunks.as_ref())?;
    let (next, path) = (directory.join(IDENTITY_NEXT), directory.join(IDENTITY));
    copy(source, &list, IDENTITY, &next)?;
    if let Some((chunks, bucket)) = chunks.zip(bucket) {
        chunks.finish(&io).map_err(BackupError::storage(Path::new(&bucket.shown)))?;
    }
    std::fs::rename(&next, &path).map_err(BackupError::io("rename", &next))?;
    sync(directory)?;
    std::fs::remove_file(&marker).map_err(BackupError::io("remove", &marker))?;
    sync(directory)?;
    match directory.canonicalize().ok().as_deref().and_then(Path::parent) {
        Some(parent) => sync(parent),
        None => Ok(()),
    }
}

fn sync(path: &Path) -> Result<(), BackupError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(BackupError::io("sync", path))
}

/// Everything but the identity, durably.
fn copy_all(source: &Place, list: &List, directory: &Path, chunks: Option<&BucketRestore>) -> Result<(), BackupError> {
    let mut directories = BTreeSet::from([directory.to_owned()]);
    for (name, listed) in list.files.iter().filter(|(name, _)| *name != IDENTITY) {
        if let Some(chunks) = chunks.filter(|_| name.starts_with("chunks-")) {
            let mut pieces = Vec::new();
            source.verified(name, listed, |piece| {
                pieces.push(piece);
                Ok(())
            })?;
            chunks.put(name, pieces.into()).map_err(BackupError::storage(directory))?;
            continue;
        }
        let path = directory.join(name);
        if let Some(parent) = path.parent().filter(|parent| !directories.contains(*parent)) {
            std::fs::create_dir(parent).map_err(BackupError::io("make", parent))?;
            directories.insert(parent.to_owned());
        }
        copy(source, list, name, &path)?;
    }
    // A container without chunks has a directory for them nevertheless.
    for place in list.files.keys().filter_map(|name| name.split_once('/')?.0.strip_prefix("catalogue-")) {
        let chunks = directory.join(format!("chunks-{place}"));
        if directories.insert(chunks.clone()) {
            std::fs::create_dir(&chunks).map_err(BackupError::io("make", &chunks))?;
        }
    }
    directories.iter().rev().try_for_each(|place| sync(place))
}

fn copy(source: &Place, list: &List, name: &str, to: &Path) -> Result<(), BackupError> {
    let mut file = File::create_new(to).map_err(BackupError::io("create", to))?;
    let listed = &list.files[name];
    source.verified(name, listed, |piece| file.write_all(&piece).map_err(BackupError::io("write", to)))?;
    file.sync_all().map_err(BackupError::io("sync", to))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use bytes::Bytes;
    use headwater_server::io::Objects as _;
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::backup::list::{FORMAT, List, Listed, hexadecimal};
    use crate::backup::place::Bucket;
    use crate::backup::tests::Memory;

    const FILES: [(&str, &str); 2] = [("store", "identity"), ("catalogue-0000/manifest", "manifest")];

    fn list() -> List {
        let listed = |content: &str| Listed {
            length: content.len() as u64,
            sha256: hexadecimal(&Sha256::digest(content)),
            part_bytes: None,
        };
        let files: BTreeMap<_, _> = FILES.iter().map(|(name, content)| ((*name).to_owned(), listed(content))).collect();
        List { format: FORMAT, made_by: String::new(), store: String::new(), frame: 1, files }
    }

    /// A backup of two files.
    fn backup() -> (tempfile::TempDir, Place) {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in FILES {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, content).unwrap();
        }
        let place = Place::Directory(directory.path().to_owned());
        place.write_list(&list()).unwrap();
        (directory, place)
    }

    /// The same in a bucket.
    fn backup_in_bucket() -> (Arc<Memory>, Place) {
        let objects = Arc::new(Memory::default());
        for (name, content) in FILES {
            objects.put(name, Bytes::from_static(content.as_bytes()).into(), &mut || ()).unwrap();
        }
        let place = Place::Bucket(Bucket { objects: objects.clone(), shown: PathBuf::from("s3://b/x") });
        place.write_list(&list()).unwrap();
        (objects, place)
    }

    #[test]
    fn a_backup_comes_back_whole_from_a_directory_and_from_a_bucket() {
        let (of_directory, of_bucket) = (backup(), backup_in_bucket());
        for source in [of_directory.1, of_bucket.1] {
            let to = tempfile::tempdir().unwrap();
            let to = to.path().join("data");
            restore(&source, &to, None).unwrap();
            assert_eq!(std::fs::read(to.join("store")).unwrap(), b"identity");
            assert_eq!(std::fs::read(to.join("catalogue-0000/manifest")).unwrap(), b"manifest");
            assert!(to.join("chunks-0000").is_dir());
            assert!(!to.join("backup.json").exists() && !to.join(RESTORING).exists());
            assert!(matches!(restore(&source, &to, None), Err(BackupError::NotEmpty { .. })));
        }
    }

    #[test]
    fn nothing_is_written_if_anything_in_a_directory_is_damaged_or_missing() {
        let rotten: [fn(&Path); 3] = [
            |path| std::fs::write(path, "manifesT").unwrap(),
            |path| std::fs::write(path, "manifest and more").unwrap(),
            |path| std::fs::remove_file(path).unwrap(),
        ];
        for change in rotten {
            let ((directory, source), to) = (backup(), tempfile::tempdir().unwrap());
            change(&directory.path().join("catalogue-0000/manifest"));
            let refused = restore(&source, to.path(), None);
            assert!(matches!(refused, Err(BackupError::Damaged { .. })), "{refused:?}");
            assert_eq!(std::fs::read_dir(to.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn what_a_damaged_backup_in_a_bucket_gives_is_no_store() {
        for content in [Some("manifesT"), Some("manifes"), Some("manifest and more"), None] {
            for name in ["store", "catalogue-0000/manifest"] {
                let ((objects, source), to) = (backup_in_bucket(), tempfile::tempdir().unwrap());
                objects.replace(name, content.map(|content| Bytes::from_static(content.as_bytes())));
                let refused = restore(&source, to.path(), None);
                assert!(matches!(refused, Err(BackupError::Damaged { .. })), "{refused:?}");
                assert!(!to.path().join("store").exists() && to.path().join(RESTORING).exists());
            }
        }
    }

    #[test]
    fn a_backup_without_its_list_is_none() {
        let ((objects, source), to) = (backup_in_bucket(), tempfile::tempdir().unwrap());
        objects.replace("backup.json", None);
        let refused = restore(&source, to.path(), None);
        assert!(matches!(refused, Err(BackupError::NotABackup { .. })), "{refused:?}");
        assert_eq!(std::fs::read_dir(to.path()).unwrap().count(), 0);
    }
}
