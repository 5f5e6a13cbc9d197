//! `check --repair` on real files: what it puts right, what it leaves alone, and who keeps it out.

use std::fs;
use std::path::{Path, PathBuf};

use headwater_engine::check::repair::{self, Repair, Repaired};
use headwater_engine::check::{CheckError, Finding, Progress, Watch};

use super::check::{S, files, filled, judged, sound};
use super::*;

#[derive(Default)]
struct Told {
    findings: Vec<Finding>,
    repairs: Vec<Repair>,
}

impl Watch for Told {
    fn finding(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    fn repaired(&mut self, repair: &Repair) {
        self.repairs.push(repair.clone());
    }

    fn progress(&mut self, _progress: Progress<'_>) -> bool {
        true
    }
}

fn mend(root: &Path) -> Result<Repaired, CheckError> {
    let mut before = Told::default();
    let repaired = repair::directory(root, None, &mut before, &mut Told::default())?;
    assert_eq!(before.repairs, repaired.repairs, "everything done is told");
    Ok(repaired)
}

fn contents(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    files(root)
        .into_iter()
        .filter(|path| !path.ends_with("lock"))
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

/// Leftovers of killed processes, files of others, a torn copy of the witness, and a byte where only zeros are written.
fn litter(root: &Path) -> Vec<&'static str> {
    let left = [
        "catalogue-0000/manifest.next",
        "catalogue-0001/0000000000000777.run",
        "chunks-0000/0000000000000777.chunk",
        "journal/fresh-0000000000000777",
        "journal/spare-0000000000000777",
        "journal/thesis.txt",
        "store.next",
    ];
    for file in left {
        fs::write(root.join(file), format!("content of {file}")).unwrap();
    }
    left.into()
}

#[test]
fn what_is_left_over_is_set_aside_and_everything_is_served_as_before() {
    let directory = filled();
    let whole = contents(directory.path());
    let left = litter(directory.path());
    let newest = files(&directory.path().join("journal"))
        .into_iter()
        .rfind(|path| path.extension().is_some_and(|it| it == "log"));
    let newest = newest.unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    // Behind the header; only zeros are ever written there.
    bytes[1000] = 1;
    fs::write(&newest, &bytes).unwrap();
    let (summary, findings) = judged(directory.path()).unwrap();
    assert!(!summary.is_sound(), "{findings:?}");

    let repaired = mend(directory.path()).unwrap();
    assert!(!repaired.before.is_sound() && repaired.after.is_sound(), "{repaired:?}");
    for file in left {
        let repair =
            repaired.repairs.iter().find(|repair| repair.file == file).unwrap_or_else(|| panic!("{file} stays"));
        assert_eq!(fs::read_to_string(directory.path().join(&repair.aside)).unwrap(), format!("content of {file}"));
        assert!(!directory.path().join(file).exists(), "{file}");
    }
    let changed = repaired.repairs.iter().find(|repair| repair.code == "damaged").unwrap();
    assert_eq!(fs::read(directory.path().join(&changed.aside)).unwrap(), bytes, "the file as it was is kept");
    assert!(changed.what.starts_with("1 bytes from byte 1000 on"), "{}", changed.what);
    let now: Vec<_> = contents(directory.path())
        .into_iter()
        .filter(|(path, _)| !path.starts_with(directory.path().join("aside")))
        .collect();
    assert!(now == whole, "every file that means something is as it was written");

    sound(directory.path());
    let again = mend(directory.path()).unwrap();
    assert!(again.repairs.is_empty(), "{again:?}");
    let store = Fixture::open(directory.clone(), io(&directory), &small()).unwrap();
    assert_eq!(store.read_all(S).len(), 150 * 60_000);
    assert_eq!(store.read_all("scope/late/1.#epoch.0"), b"in the journal");
}

#[test]
fn a_store_with_any_other_doubt_is_left_as_it_is() {
    for file in ["chunks-", "catalogue-", "journal/0"] {
        let directory = filled();
        litter(directory.path());
        let victim = files(directory.path()).into_iter().find(|path| {
            let name = path.strip_prefix(directory.path()).unwrap().to_str().unwrap();
            name.starts_with(file) && !name.contains("777") && !name.ends_with("next")
        });
        let victim = victim.unwrap();
        let mut bytes = fs::read(&victim).unwrap();
        let middle = bytes.len().min(8192) / 2 + 10;
        bytes[middle] ^= 1;
        fs::write(&victim, bytes).unwrap();
        let before = contents(directory.path());
        let repaired = mend(directory.path()).unwrap();
        assert!(repaired.repairs.is_empty() && !repaired.after.is_sound(), "{file}: {repaired:?}");
        assert!(contents(directory.path()) == before, "{file}: something was changed");
    }
}

#[test]
fn a_store_in_use_a_backup_and_what_is_no_store_are_not_repaired() {
    let directory = filled();
    litter(directory.path());
    let before = contents(directory.path());
    let held = headwater_engine::io::lock_directory(directory.path()).unwrap();
    assert!(matches!(mend(directory.path()), Err(CheckError::Locked { .. })));
    drop(held);
    let judging = headwater_engine::io::lock_for_reading(directory.path()).unwrap();
    assert!(matches!(mend(directory.path()), Err(CheckError::Locked { .. })), "somebody is looking at it");
    drop(judging);
    assert!(contents(directory.path()) == before);
    fs::write(directory.path().join("backup.json"), b"{}").unwrap();
    assert!(matches!(mend(directory.path()), Err(CheckError::Backup { .. })));
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(mend(empty.path()), Err(CheckError::NotAStore { .. })));
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
}
