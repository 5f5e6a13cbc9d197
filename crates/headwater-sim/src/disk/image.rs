//! Everything a simulated disk holds at one moment: what programs see, what is durable, and what lies between.
//!
//! Copies are cheap (files share their pages), so one run can leave thousands of images behind and each can lose power
//! in its own way.
//!
//! Names. The visible and the durable name table are two maps; [`NameChange`]s lead from one to the other, in order.
//! At a power cut each change survives or not, with two rules that every file system we promise to run on keeps:
//! * a rename is one change: never is the file under both names, never under neither
//! * changes of one name survive in order: whoever sees the later one sees the earlier one too
//!
//! A change is settled once every directory it touches was synced after it. A directory sync that fails settles nothing,
//! and a later one that succeeds settles everything: names are kept by the file system's own journal, which never
//! succeeds again once it has lost something.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, ErrorKind, Result};
use std::sync::Arc;

use super::bucket::Held;
use super::content::{Change, Content, Data, Mood, survive};
use crate::chance::Chance;

/// Number of a file, whatever its name.
pub(super) type Inode = u64;

/// What a name stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Node {
    File(Inode),
    Directory,
}

#[derive(Clone, Debug, Default)]
struct FileState {
    durable: Content,
    visible: Content,
    /// Leads from `durable` to `visible`, unless `diverged`.
    changes: Vec<Change>,
    /// A sync failed: `visible` shows bytes that no later sync will write.
    diverged: bool,
}

#[derive(Clone, Debug)]
struct NameChange {
    effect: Effect,
    /// Directories that were not synced since.
    unsynced: BTreeSet<String>,
}

#[derive(Clone, Debug)]
enum Effect {
    Create { path: String, inode: Inode },
    CreateDirectory { path: String },
    Rename { from: String, to: String, inode: Inode },
    Remove { path: String, inode: Inode },
}

impl Effect {
    /// Names it changes.
    fn slots(&self) -> impl Iterator<Item = &str> {
        let (first, second) = match self {
            Self::Create { path, .. } | Self::CreateDirectory { path } | Self::Remove { path, .. } => (path, None),
            Self::Rename { from, to, .. } => (from, Some(to)),
        };
        std::iter::once(first.as_str()).chain(second.map(String::as_str))
    }

    fn apply(&self, names: &mut BTreeMap<String, Node>) {
        match self {
            Self::Create { path, inode } => {
                names.insert(path.clone(), Node::File(*inode));
            }
            Self::CreateDirectory { path } => {
                names.insert(path.clone(), Node::Directory);
            }
            Self::Rename { from, to, inode } => {
                if names.get(from) == Some(&Node::File(*inode)) {
                    names.remove(from);
                }
                names.insert(to.clone(), Node::File(*inode));
            }
            Self::Remove { path, inode } => {
                if names.get(path) == Some(&Node::File(*inode)) {
                    names.remove(path);
                }
            }
        }
    }

    fn inode(&self) -> Option<Inode> {
        match self {
            Self::Create { inode, .. } | Self::Rename { inode, .. } | Self::Remove { inode, .. } => Some(*inode),
            Self::CreateDirectory { .. } => None,
        }
    }
}

/// State of a disk; see the module.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    files: BTreeMap<Inode, Arc<FileState>>,
    visible: BTreeMap<String, Node>,
    durable: BTreeMap<String, Node>,
    changes: Vec<NameChange>,
    last_inode: Inode,
    /// Beside the disk, and not touched by what happens to it.
    pub(super) bucket: Held,
}

/// What reads show after a sync failed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum AfterFailedSync {
    /// The new bytes, until the power cut; then what was there before. So behave ext4 and XFS.
    #[default]
    NewUntilPowerCut,
    /// What was there before, at once. So behaves Btrfs.
    OldAtOnce,
}

pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

fn not_found() -> Error {
    ErrorKind::NotFound.into()
}

impl State {
    fn is_directory(&self, path: &str) -> bool {
        path.is_empty() || self.visible.get(path) == Some(&Node::Directory)
    }

    fn change(&mut self, effect: Effect) {
        let unsynced = effect.slots().map(|slot| parent(slot).to_owned()).collect();
        effect.apply(&mut self.visible);
        self.changes.push(NameChange { effect, unsynced });
    }

    pub(super) fn create(&mut self, path: &str) -> Result<Inode> {
        if !self.is_directory(parent(path)) {
            return Err(not_found());
        }
        if path.is_empty() || self.visible.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.last_inode += 1;
        self.files.insert(self.last_inode, Arc::default());
        self.change(Effect::Create { path: path.to_owned(), inode: self.last_inode });
        Ok(self.last_inode)
    }

    pub(super) fn create_directory(&mut self, path: &str) -> Result<()> {
        match self.visible.get(path) {
            Some(Node::File(_)) => Err(ErrorKind::NotADirectory.into()),
            _ if self.is_directory(path) => Ok(()),
            _ if !self.is_directory(parent(path)) => Err(not_found()),
            _ => {
                self.change(Effect::CreateDirectory { path: path.to_owned() });
                Ok(())
            }
        }
    }

    pub(super) fn find(&self, path: &str) -> Result<Inode> {
        match self.visible.get(path) {
            Some(Node::File(inode)) => Ok(*inode),
            Some(Node::Directory) => Err(ErrorKind::IsADirectory.into()),
            None if path.is_empty() => Err(ErrorKind::IsADirectory.into()),
            None => Err(not_found()),
        }
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        let inode = self.find(from)?;
        if !self.is_directory(parent(to)) {
            return Err(not_found());
        }
        if self.is_directory(to) {
            return Err(ErrorKind::IsADirectory.into());
        }
        if from != to {
            self.change(Effect::Rename { from: from.to_owned(), to: to.to_owned(), inode });
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &str) -> Result<()> {
        let inode = self.find(path)?;
        self.change(Effect::Remove { path: path.to_owned(), inode });
        Ok(())
    }

    pub(super) fn list(&self, directory: &str) -> Vec<String> {
        self.visible
            .iter()
            .filter(|(path, node)| matches!(node, Node::File(_)) && parent(path) == directory)
            .map(|(path, _)| path.rsplit_once('/').map_or(path.as_str(), |(_, name)| name).to_owned())
            .collect()
    }

    /// Every file with its path.
    pub(super) fn paths(&self) -> impl Iterator<Item = (&str, Inode)> {
        self.visible.iter().filter_map(|(path, node)| match node {
            Node::File(inode) => Some((path.as_str(), *inode)),
            Node::Directory => None,
        })
    }

    /// Settles what waited for this directory. `open` says which nameless files somebody still holds.
    pub(super) fn sync_directory(&mut self, directory: &str, open: impl Fn(Inode) -> bool) -> Result<()> {
        if !self.is_directory(directory) {
            return Err(not_found());
        }
        for change in &mut self.changes {
            change.unsynced.remove(directory);
        }
        let mut settled: Vec<bool> = self.changes.iter().map(|change| change.unsynced.is_empty()).collect();
        self.close_over_slots(&mut settled);
        let mut index = 0;
        let durable = &mut self.durable;
        self.changes.retain(|change| {
            index += 1;
            if settled[index - 1] {
                change.effect.apply(durable);
            }
            !settled[index - 1]
        });
        self.forget_unreachable(open);
        Ok(())
    }

    /// Where a later change of a name holds, so do the earlier ones.
    fn close_over_slots(&self, holds: &mut [bool]) {
        let mut slots = BTreeSet::new();
        for (change, holds) in self.changes.iter().zip(holds).rev() {
            *holds |= change.effect.slots().any(|slot| slots.contains(slot));
            if *holds {
                slots.extend(change.effect.slots());
            }
        }
    }

    fn forget_unreachable(&mut self, open: impl Fn(Inode) -> bool) {
        let mut reachable: BTreeSet<Inode> = self.changes.iter().filter_map(|change| change.effect.inode()).collect();
        for node in self.visible.values().chain(self.durable.values()) {
            if let Node::File(inode) = node {
                reachable.insert(*inode);
            }
        }
        self.files.retain(|inode, _| reachable.contains(inode) || open(*inode));
    }

    fn file(&self, inode: Inode) -> &FileState {
        self.files.get(&inode).expect("a file is kept while a name or a handle leads to it")
    }

    fn file_mut(&mut self, inode: Inode) -> &mut FileState {
        Arc::make_mut(self.files.get_mut(&inode).expect("a file is kept while a name or a handle leads to it"))
    }

    pub(super) fn content(&self, inode: Inode) -> &Content {
        &self.file(inode).visible
    }

    pub(super) fn write(&mut self, inode: Inode, offset: u64, data: Data) {
        if data.len() > 0 {
            let file = self.file_mut(inode);
            file.visible.write(offset, &data);
            file.changes.push(Change::Write { offset, data });
        }
    }

    pub(super) fn set_length(&mut self, inode: Inode, length: u64) {
        let file = self.file_mut(inode);
        file.visible.set_length(length);
        file.changes.push(Change::SetLength(length));
    }

    pub(super) fn sync(&mut self, inode: Inode) {
        let file = self.file_mut(inode);
        let changes = std::mem::take(&mut file.changes);
        if !file.diverged {
            file.durable = file.visible.clone();
            return;
        }
        // Only what was written after the failure is still on its way to the disk.
        for change in changes {
            match change {
                Change::Write { offset, data } => file.durable.write(offset, &data),
                Change::SetLength(length) => file.durable.set_length(length),
            }
        }
    }

    /// The pages count as clean from now on, whatever became of them: no later sync writes them.
    pub(super) fn fail_sync(&mut self, inode: Inode, after: AfterFailedSync, chance: &mut Chance) {
        let mood = mood(chance);
        let file = self.file_mut(inode);
        let changes = std::mem::take(&mut file.changes);
        file.durable = survive(&file.durable, &changes, mood, chance);
        match after {
            AfterFailedSync::NewUntilPowerCut => file.diverged = true,
            AfterFailedSync::OldAtOnce => {
                file.visible = file.durable.clone();
                file.diverged = false;
            }
        }
    }

    /// Changes stored bytes behind everybody's back, as rot does.
    pub(super) fn damage(&mut self, inode: Inode, offset: u64, bytes: &[u8]) {
        let data = Data::of(bytes);
        let file = self.file_mut(inode);
        file.visible.write(offset, &data);
        file.durable.write(offset, &data);
    }

    /// Cuts a file behind everybody's back.
    pub(super) fn cut(&mut self, inode: Inode, length: u64) {
        let file = self.file_mut(inode);
        file.visible.set_length(length);
        file.durable.set_length(length);
    }

    /// Removes a name behind everybody's back.
    pub(super) fn vanish(&mut self, path: &str) {
        self.visible.remove(path);
        self.durable.remove(path);
    }

    /// Bytes of a file as this state knows it, if it does.
    pub(super) fn known(&self, inode: Inode) -> Option<&Content> {
        self.files.get(&inode).map(|file| &file.visible)
    }

    /// Sum of the lengths of all files that have a name or a holder, in bytes.
    pub(super) fn used(&self, open: impl Fn(Inode) -> bool) -> u64 {
        let named: BTreeSet<Inode> = self.paths().map(|(_, inode)| inode).collect();
        let kept = self.files.iter().filter(|(inode, _)| named.contains(inode) || open(**inode));
        kept.map(|(_, file)| file.visible.length()).sum()
    }

    /// What is found after the power came back.
    pub(super) fn power_cut(&self, chance: &mut Chance) -> Self {
        let mood = mood(chance);
        let mut survives: Vec<bool> = self.changes.iter().map(|_| chance.percent(mood.whole_percent)).collect();
        self.close_over_slots(&mut survives);
        let mut names = self.durable.clone();
        for (change, survives) in self.changes.iter().zip(survives) {
            if survives {
                change.effect.apply(&mut names);
            }
        }
        drop_orphans(&mut names);

        let mut files = BTreeMap::new();
        for node in names.values() {
            if let Node::File(inode) = node {
                let file = self.file(*inode);
                let content = survive(&file.durable, &file.changes, mood, chance);
                let found = FileState { durable: content.clone(), visible: content, ..FileState::default() };
                files.insert(*inode, Arc::new(found));
            }
        }
        Self {
            files,
            visible: names.clone(),
            durable: names,
            changes: Vec::new(),
            last_inode: self.last_inode,
            bucket: self.bucket.clone(),
        }
    }

    /// What a new process finds after the old one was killed: the page cache lives on, open files without a name do not.
    pub(super) fn process_kill(&self) -> Self {
        let mut state = self.clone();
        state.forget_unreachable(|_| false);
        state
    }
}

/// Removes what lies in directories that did not survive.
fn drop_orphans(names: &mut BTreeMap<String, Node>) {
    let directories: BTreeSet<String> =
        names.iter().filter(|(_, node)| **node == Node::Directory).map(|(path, _)| path.clone()).collect();
    names.retain(|path, _| {
        let mut above = parent(path);
        while !above.is_empty() {
            if !directories.contains(above) {
                return false;
            }
            above = parent(above);
        }
        true
    });
}

fn mood(chance: &mut Chance) -> Mood {
    Mood {
        whole_percent: *chance.pick(&[0, 5, 50, 50, 90, 100]),
        torn_percent: *chance.pick(&[0, 30, 100]),
        garbage_percent: *chance.pick(&[0, 0, 50]),
    }
}
