//! Copying a backup back into a data directory.
#![allow(clippy::disallowed_methods, reason = "no store is there before the last file is")]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use super::list::{List, digest};
use super::{BackupError, empty};

/// The file that makes a directory a store; copied last.
const IDENTITY: &str = "store";

/// Verifies the backup and copies it.
pub(super) fn restore(source: &Path, directory: &Path) -> Result<(), BackupError> {
    let list = List::read(source)?;
    if !list.files.contains_key(IDENTITY) {
        let reason = format!("its list lacks the file {IDENTITY:?}");
        return Err(BackupError::NotABackup { path: source.to_owned(), reason });
    }
    for name in list.files.keys() {
        verified(source, &list, name, |_| Ok(()))?;
    }
    empty(directory)?;
    let mut directories = BTreeSet::from([directory.to_owned()]);
    let others = list.files.keys().filter(|name| *name != IDENTITY);
    for name in others {
        let path = directory.join(name);
        if let Some(parent) = path.parent().filter(|parent| !directories.contains(*parent)) {
            std::fs::create_dir(parent).map_err(BackupError::io("make", parent))?;
            directories.insert(parent.to_owned());
        }
        copy(source, &list, name, &path)?;
    }
    // A container without chunks has a directory for them nevertheless.
    for place in list.files.keys().filter_map(|name| name.split_once('/')?.0.strip_prefix("catalogue-")) {
        let chunks = directory.join(format!("chunks-{place}"));
        if directories.insert(chunks.clone()) {
            std::fs::create_dir(&chunks).map_err(BackupError::io("make", &chunks))?;
        }
    }
    let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all()).map_err(BackupError::io("sync", path));
    for place in directories.iter().rev() {
        sync(place)?;
    }
    let (next, path) = (directory.join("store.next"), directory.join(IDENTITY));
    copy(source, &list, IDENTITY, &next)?;
    std::fs::rename(&next, &path).map_err(BackupError::io("rename", &next))?;
    sync(directory)?;
    if let Some(parent) = directory.canonicalize().ok().as_deref().and_then(Path::parent) {
        sync(parent)?;
    }
    Ok(())
}

fn copy(source: &Path, list: &List, name: &str, to: &Path) -> Result<(), BackupError> {
    let mut file = File::create_new(to).map_err(BackupError::io("create", to))?;
    verified(source, list, name, |bytes| file.write_all(bytes).map_err(BackupError::io("write", to)))?;
    file.sync_all().map_err(BackupError::io("sync", to))
}

/// Reads a file of the backup; what is not as listed is an error, at its end.
fn verified(
    source: &Path,
    list: &List,
    name: &str,
    take: impl FnMut(&[u8]) -> Result<(), BackupError>,
) -> Result<(), BackupError> {
    let (path, expected) = (source.join(name), &list.files[name]);
    let found = match digest(&path, take) {
        Err(BackupError::Io { source: error, .. }) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(BackupError::Damaged { path, what: "file of the backup is missing".into() });
        }
        found => found?,
    };
    if found == *expected {
        return Ok(());
    }
    let what = format!(
        "file has {} bytes with SHA-256 {}, expected {} with {}",
        found.length, found.sha256, expected.length, expected.sha256
    );
    Err(BackupError::Damaged { path, what })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::backup::list::{FORMAT, List};

    /// A backup of two files.
    fn backup() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let mut files = BTreeMap::new();
        for (name, content) in [("store", "identity"), ("catalogue-0000/manifest", "manifest")] {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, content).unwrap();
            files.insert(name.to_owned(), digest(&path, |_| Ok(())).unwrap());
        }
        let list = List { format: FORMAT, made_by: String::new(), store: String::new(), frame: 1, files };
        list.write(directory.path()).unwrap();
        directory
    }

    #[test]
    fn a_backup_comes_back_whole() {
        let (backup, to) = (backup(), tempfile::tempdir().unwrap());
        let to = to.path().join("data");
        restore(backup.path(), &to).unwrap();
        assert_eq!(std::fs::read(to.join("store")).unwrap(), b"identity");
        assert_eq!(std::fs::read(to.join("catalogue-0000/manifest")).unwrap(), b"manifest");
        assert!(to.join("chunks-0000").is_dir() && !to.join("backup.json").exists());
        assert!(matches!(restore(backup.path(), &to), Err(BackupError::NotEmpty { .. })));
    }

    #[test]
    fn nothing_is_written_if_anything_is_damaged_or_missing() {
        let rotten: [fn(&Path); 2] =
            [|path| std::fs::write(path, "manifesT").unwrap(), |path| std::fs::remove_file(path).unwrap()];
        for change in rotten {
            let (backup, to) = (backup(), tempfile::tempdir().unwrap());
            change(&backup.path().join("catalogue-0000/manifest"));
            let refused = restore(backup.path(), to.path());
            assert!(matches!(refused, Err(BackupError::Damaged { .. })), "{refused:?}");
            assert_eq!(std::fs::read_dir(to.path()).unwrap().count(), 0);
        }
    }
}
