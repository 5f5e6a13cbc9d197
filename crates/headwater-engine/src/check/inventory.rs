//! What is in the directory, and what of it is not ours.

use std::io::Result;
use std::path::Path;

use crate::io::{Entry, EntryKind, entries};
use crate::{bucket, chunks, journal, store};

use super::Finding;

/// Names at the top that are ours beside the directories.
const AT_THE_TOP: [&str; 6] = [store::PATH, store::NEXT_PATH, bucket::PATH, bucket::NEXT_PATH, "lock", BACKUP];
/// The list of a backup, in it.
const BACKUP: &str = "backup.json";
/// Where `check --repair` puts things.
pub(super) const ASIDE: &str = "aside";
/// The file that a server keeps in the data directory to sign tokens with. The store never reads it.
pub const TOKEN_KEY: &str = "token.key";
/// The directory in the data directory for certificate and key that a server made itself. The store never reads it.
pub const TLS: &str = "tls";
/// Permission bits that nobody but the owner needs.
const OF_OTHERS: u32 = 0o077;

/// Everything in a data directory, by name.
pub(super) struct Inventory {
    top: Vec<Entry>,
    inside: Vec<Entry>,
    mode: u32,
    /// Plain files of ours.
    pub(super) files: u64,
    /// Bytes in them.
    pub(super) bytes: u64,
}

impl Inventory {
    pub(super) fn take(root: &Path) -> Result<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let mode = std::fs::metadata(root)?.mode() & 0o7777;
        let top = entries(root, "")?;
        let mut inside = Vec::new();
        for directory in top.iter().filter(|entry| entry.kind == EntryKind::Directory && is_ours(&entry.path)) {
            inside.extend(entries(root, &directory.path)?);
        }
        let counted = |entry: &&Entry| entry.kind == EntryKind::File && is_known(&entry.path);
        let files: Vec<&Entry> = top.iter().chain(&inside).filter(counted).collect();
        let bytes = files.iter().filter(|entry| is_read(&entry.path)).map(|entry| entry.length).sum();
        let files = files.len() as u64;
        Ok(Self { top, inside, mode, files, bytes })
    }

    /// Something here was made by a store, even if its identity is gone.
    pub(super) fn looks_like_a_store(&self) -> bool {
        self.top.iter().any(|entry| entry.path == store::PATH || is_ours(&entry.path))
    }

    /// It lists its own files and their hashes.
    pub(super) fn is_backup(&self) -> bool {
        self.top.iter().any(|entry| entry.path == BACKUP)
    }

    /// Inside the store's directories, under names that it never gives. Names that are no text cannot be told to the disk.
    pub(super) fn strangers(&self) -> Vec<String> {
        let strange = |entry: &&Entry| !is_known(&entry.path) && !entry.path.contains(char::REPLACEMENT_CHARACTER);
        self.inside.iter().filter(strange).map(|entry| entry.path.clone()).collect()
    }

    pub(super) fn judge(&self, say: &mut dyn FnMut(Finding)) {
        if self.mode & OF_OTHERS != 0 {
            let what = format!("mode is {:o}, expected 700: others can look into it", self.mode);
            say(Finding::note("permissions", ".", what));
        }
        for entry in &self.top {
            match entry.kind {
                EntryKind::Directory if is_ours(&entry.path) || [ASIDE, TLS].contains(&entry.path.as_str()) => {
                    permissions(entry, say)
                }
                EntryKind::File if AT_THE_TOP.contains(&entry.path.as_str()) || entry.path == TOKEN_KEY => {
                    permissions(entry, say);
                }
                _ if AT_THE_TOP.contains(&entry.path.as_str()) || is_ours(&entry.path) => wrong_kind(entry, say),
                _ => say(Finding::note("foreign", &entry.path, "is not the store's; it stays as it is")),
            }
        }
        for entry in &self.inside {
            if !is_known(&entry.path) {
                say(Finding::doubt("foreign", &entry.path, "no store makes a file of this name; move it away"));
            } else if entry.kind != EntryKind::File {
                wrong_kind(entry, say);
            } else {
                permissions(entry, say);
            }
        }
    }
}

fn permissions(entry: &Entry, say: &mut dyn FnMut(Finding)) {
    if entry.mode & OF_OTHERS != 0 {
        let what = format!("mode is {:o}: others than its owner can use it", entry.mode);
        say(Finding::note("permissions", &entry.path, what));
    }
}

fn wrong_kind(entry: &Entry, say: &mut dyn FnMut(Finding)) {
    let expected = if entry.path.contains('/') { "a plain file" } else { "a plain file or directory of the store" };
    say(Finding::doubt("foreign", &entry.path, format!("is a link or something else where {expected} is expected")));
}

/// Number at the end of a name such as `chunks-0003`.
fn numbered(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|digits| digits.len() >= 4 && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A store that is being made makes files and directories of this name at the top.
pub(super) fn is_made_first(name: &str) -> bool {
    is_ours(name) || AT_THE_TOP.contains(&name) && name != BACKUP
}

fn is_ours(directory: &str) -> bool {
    directory == journal::DIRECTORY || numbered(directory, "catalogue-") || numbered(directory, "chunks-")
}

/// The store makes files of this name.
fn is_known(path: &str) -> bool {
    let Some((directory, name)) = path.split_once('/') else { return AT_THE_TOP.contains(&path) };
    let stem = |suffix: &str| name.strip_suffix(suffix).is_some_and(|stem| stem.parse::<u64>().is_ok());
    match directory {
        journal::DIRECTORY => {
            let spare = ["spare-", "zero-", "fresh-"].iter().any(|prefix| name.starts_with(prefix));
            stem(".log") || spare || name == "witness"
        }
        _ if numbered(directory, "catalogue-") => stem(".run") || name == "manifest" || name == "manifest.next",
        _ => chunks::number_of(name).is_some(),
    }
}

/// Its bytes are read by the check.
fn is_read(path: &str) -> bool {
    path.ends_with(".log") || path.ends_with(".run") || path.ends_with(".chunk")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;

    #[test]
    fn what_a_store_makes_is_known_and_nothing_else() {
        let ours = [
            catalogue::run_path(3, 7),
            catalogue::manifest_path(3),
            chunks::path_of(255, 9),
            "journal/0000000000000001.log".into(),
            "journal/spare-zero-0000000000000001".into(),
            "journal/fresh-0000000000000001".into(),
            "journal/witness".into(),
            "store".into(),
        ];
        for path in ours {
            assert!(is_known(&path), "{path}");
        }
        for path in ["thesis.txt", "journal/thesis.txt", "chunks-0000/a.chunk.bak", "catalogue-0000/x.run", "a/b"] {
            assert!(!is_known(path), "{path}");
        }
    }

    #[test]
    fn what_a_killed_creation_leaves_is_told_from_what_others_have_made() {
        for name in ["lock", "journal", "catalogue-0000", "chunks-0255", "store.next", "bucket", "bucket.next"] {
            assert!(is_made_first(name), "{name}");
        }
        for name in ["storeroom", "catalogue-of-stamps", "chunks-", "aside", "backup.json", "journal.txt", "restoring"]
        {
            assert!(!is_made_first(name), "{name}");
        }
    }
}
