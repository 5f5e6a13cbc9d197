//! The list of a backup's files, `backup.json`.
#![allow(clippy::disallowed_methods, reason = "backups are plain files beside the store, written by no part of it")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::BackupError;
use super::disk::BLOCK_BYTES;

/// Name of the list.
pub(super) const NAME: &str = "backup.json";
/// Version of the list.
pub(super) const FORMAT: u64 = 1;
/// Parts of one file: their names have six digits.
const PARTS_MAX: u64 = 1_000_000;
/// Files of stores and backups together are shorter.
const BYTES_MAX: u64 = 1 << 60;

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
    /// Of all files; [`decode`](Self::decode) has made sure that there is such a number.
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

    /// Reads its text and makes sure that no name in it leads elsewhere, and no length to more than there can be. `place`
    /// is where the backup is.
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
        let total = list.files.values().try_fold(0_u64, |sum, file| sum.checked_add(file.length));
        if total.is_none_or(|total| total > BYTES_MAX) {
            return Err(not_a_backup("backup.json has files longer than any store".into()));
        }
        if let Some((name, _)) = list.files.iter().find(|(_, file)| !file.has_plain_parts()) {
            return Err(not_a_backup(format!("backup.json has {name} in parts that no backup has")));
        }
        Ok(list)
    }
}

impl Listed {
    /// What reads it takes whole blocks, each from one part.
    fn has_plain_parts(&self) -> bool {
        self.part_bytes.is_none_or(|bytes| {
            bytes > 0 && bytes.is_multiple_of(BLOCK_BYTES) && self.length.div_ceil(bytes) <= PARTS_MAX
        })
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

    fn decode(text: &str) -> Result<List, BackupError> {
        List::decode(text, Path::new("backup"))
    }

    fn list(length: u64, part_bytes: Option<u64>) -> String {
        let listed = Listed { length, sha256: "00".into(), part_bytes };
        let files = BTreeMap::from([("journal/1.log".to_owned(), listed.clone()), ("store".to_owned(), listed)]);
        List { format: FORMAT, made_by: "0".into(), store: "1".into(), frame: 7, files }.encode()
    }

    #[test]
    fn lengths_and_parts_that_no_backup_has_are_refused() {
        assert!(decode(&list(BYTES_MAX / 2, None)).is_ok());
        assert!(decode(&list(PARTS_MAX * BLOCK_BYTES, Some(BLOCK_BYTES))).is_ok());
        for (length, part_bytes) in [
            (BYTES_MAX, None),
            (u64::MAX, None),
            (3, Some(0)),
            (3, Some(1)),
            (3, Some(BLOCK_BYTES + 1)),
            (PARTS_MAX * BLOCK_BYTES + 1, Some(BLOCK_BYTES)),
        ] {
            let outcome = decode(&list(length, part_bytes));
            assert!(matches!(outcome, Err(BackupError::NotABackup { .. })), "{length} {part_bytes:?}: {outcome:?}");
        }
    }

    /// What a list says is looked at in the order of its bytes: whatever they are, that ends in a list that can be used or
    /// in an error.
    #[test]
    fn a_list_that_is_changed_anywhere_is_refused_or_can_be_used() {
        let text = list(3 * BLOCK_BYTES + 5, Some(BLOCK_BYTES));
        let pieces: [&[u8]; 9] = [b"", b"0", b"99999999999999999999", b"-1", b"1e9", b"\"", b"{", b"[[[[", b"null"];
        let (mut usable, mut noise) = (0, 0x5EED_u64);
        for _ in 0..20_000 {
            let mut bytes = text.clone().into_bytes();
            for _ in 0..=noise % 3 {
                noise = noise.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
                let (at, count) = ((noise >> 33) as usize % bytes.len(), (noise >> 20) as usize % 4);
                let piece = pieces[(noise >> 50) as usize % pieces.len()];
                let end = bytes.len().min(at + count);
                bytes.splice(at..end, piece.iter().copied());
            }
            let Ok(list) = decode(&String::from_utf8_lossy(&bytes)) else { continue };
            usable += 1;
            assert!(list.bytes() <= BYTES_MAX);
            for (name, file) in &list.files {
                let parts = crate::backup::place::parts(name, file);
                assert_eq!(parts.iter().map(|(_, length)| length).sum::<u64>(), file.length);
            }
        }
        assert!(usable > 100, "{usable} of 20000: nothing behind the syntax was looked at");
    }
}
