//! The list of a backup's files, `backup.json`.
#![allow(clippy::disallowed_methods, reason = "backups are plain files beside the store, written by no part of it")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::BackupError;

/// Name of the list.
pub(super) const NAME: &str = "backup.json";
/// Version of the list.
pub(super) const FORMAT: u64 = 1;

/// What a backup consists of.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct List {
    pub(super) format: u64,
    /// Release that made it.
    pub(super) made_by: String,
    /// Number of the store, in hexadecimal.
    pub(super) store: String,
    /// Newest journal frame in it.
    pub(super) frame: u64,
    /// By name, relative to the backup.
    pub(super) files: BTreeMap<String, Listed>,
}

/// One file.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Listed {
    pub(super) length: u64,
    /// In hexadecimal.
    pub(super) sha256: String,
    /// It is kept in parts of this length, `NAME.000000` and so on; the sum is that of the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) part_bytes: Option<u64>,
}

impl List {
    pub(super) fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.length).sum()
    }

    /// Writes it, durably, under its name only when it is whole.
    pub(super) fn write(&self, directory: &Path) -> Result<(), BackupError> {
        let (path, next) = (directory.join(NAME), directory.join("backup.json.next"));
        let text = self.encode();
        let written = || -> std::io::Result<()> {
            let mut file = File::create_new(&next)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&next, &path)?;
            File::open(directory)?.sync_all()
        };
        written().map_err(BackupError::io("write", &path))
    }

    /// Its text.
    pub(super) fn encode(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers and texts are JSON")
    }

    /// Reads its text and makes sure that no name in it leads elsewhere. `place` is where the backup is.
    pub(super) fn decode(text: &str, place: &Path) -> Result<Self, BackupError> {
        let not_a_backup = |reason: String| BackupError::NotABackup { path: place.to_owned(), reason };
        let value: serde_json::Value =
            serde_json::from_str(text).map_err(|error| not_a_backup(format!("backup.json: {error}")))?;
        // The format first: a newer release may describe the rest differently.
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(FORMAT) => {}
            Some(found) => return Err(BackupError::Newer { path: place.join(NAME), found, known: FORMAT }),
            None => return Err(not_a_backup("backup.json has no format".into())),
        }
        let list: Self =
            serde_json::from_value(value).map_err(|error| not_a_backup(format!("backup.json: {error}")))?;
        if let Some(name) = list.files.keys().find(|name| !is_plain(name)) {
            return Err(not_a_backup(format!("backup.json names {name:?}")));
        }
        Ok(list)
    }
}

/// A name as the store makes them: below the directory, no deeper than one level.
pub(super) fn is_plain(name: &str) -> bool {
    let is_part = |part: &str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
        !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain)
    };
    name.split('/').count() <= 2 && name.split('/').all(is_part)
}

/// A checksum as it stands in the list.
pub(super) fn hexadecimal(sum: &[u8]) -> String {
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::place::Place;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["store", "journal/0000000000000001.log", "chunks-0000/0000000000000001.chunk"] {
            assert!(is_plain(name), "{name}");
        }
        for name in ["", "/etc/passwd", "../x", "a/../b", "a/b/c", "a//b", ".ssh", "a/.x", "a\\b", "A", "a b"] {
            assert!(!is_plain(name), "{name}");
        }
    }

    #[test]
    fn a_list_comes_back_and_a_newer_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::Directory(directory.path().to_owned());
        assert!(matches!(place.read_list(), Err(BackupError::NotABackup { .. })));
        let listed = Listed { length: 3, sha256: "00".into(), part_bytes: None };
        let files = BTreeMap::from([("store".to_owned(), listed)]);
        let mut list = List { format: FORMAT, made_by: "0".into(), store: "1".into(), frame: 7, files };
        list.write(directory.path()).unwrap();
        assert_eq!(place.read_list().unwrap(), list);
        list.format = 2;
        std::fs::remove_file(directory.path().join(NAME)).unwrap();
        list.write(directory.path()).unwrap();
        assert!(matches!(place.read_list(), Err(BackupError::Newer { found: 2, .. })));
    }
}
