//! A real disk on which chosen calls fail, and which remembers what was asked of it.

use std::io::{ErrorKind, Result};
use std::path::Path;
use std::sync::{Arc, Mutex};

use headwater_engine::io::{Disk, File, Io, RealClock, RealDisk, RealRandom};

/// What a store does to a disk; reading is never refused and not remembered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Deed {
    Create,
    Open,
    Rename,
    Remove,
    CreateDirectory,
    SyncDirectory,
    Write,
    Sync,
    SetLength,
    Allocate,
}

/// Says how a call fails, if it does. A file keeps the path it was created or opened under, whatever it is renamed to.
type Rule = Box<dyn FnMut(Deed, &str) -> Option<ErrorKind> + Send>;

/// Clones share the rule and the memory.
#[derive(Clone)]
pub(crate) struct Rigged {
    disk: Arc<RealDisk>,
    rig: Arc<Rig>,
}

struct Rig {
    rule: Mutex<Rule>,
    calls: Mutex<Vec<(Deed, String)>>,
}

struct RiggedFile {
    file: Arc<dyn File>,
    path: String,
    rig: Arc<Rig>,
}

impl Rigged {
    /// A disk on which nothing fails yet.
    pub(crate) fn new(root: &Path) -> Self {
        let rig = Rig { rule: Mutex::new(Box::new(|_, _| None)), calls: Mutex::default() };
        Self { disk: Arc::new(RealDisk::new(root)), rig: Arc::new(rig) }
    }

    /// From now on calls fail as `rule` says, without having done anything.
    pub(crate) fn refuse(&self, rule: impl FnMut(Deed, &str) -> Option<ErrorKind> + Send + 'static) {
        *self.rig.rule.lock().unwrap() = Box::new(rule);
    }

    /// From now on every such call on a path that contains `part` fails.
    pub(crate) fn refuse_all(&self, deed: Deed, part: &'static str, kind: ErrorKind) {
        self.refuse(move |done, path| (done == deed && path.contains(part)).then_some(kind));
    }

    /// The next such call on a path that contains `part` fails.
    pub(crate) fn refuse_once(&self, deed: Deed, part: &'static str, kind: ErrorKind) {
        let mut left = Some(kind);
        self.refuse(move |done, path| if done == deed && path.contains(part) { left.take() } else { None });
    }

    /// Every call so far, refused or not, in order.
    pub(crate) fn calls(&self) -> Vec<(Deed, String)> {
        self.rig.calls.lock().unwrap().clone()
    }

    /// The seams of a store on this disk.
    pub(crate) fn io(&self) -> Io {
        Io { disk: Arc::new(self.clone()), clock: Arc::new(RealClock::default()), random: Arc::new(RealRandom) }
    }

    fn wrap(&self, path: &str, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(RiggedFile { file, path: path.into(), rig: self.rig.clone() })
    }
}

impl Rig {
    fn check(&self, deed: Deed, path: &str) -> Result<()> {
        self.calls.lock().unwrap().push((deed, path.into()));
        (self.rule.lock().unwrap())(deed, path).map_or(Ok(()), |kind| Err(kind.into()))
    }
}

impl Disk for Rigged {
    fn create(&self, path: &str) -> Result<Arc<dyn File>> {
        self.rig.check(Deed::Create, path)?;
        Ok(self.wrap(path, self.disk.create(path)?))
    }

    fn open(&self, path: &str) -> Result<Arc<dyn File>> {
        self.rig.check(Deed::Open, path)?;
        Ok(self.wrap(path, self.disk.open(path)?))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.rig.check(Deed::Rename, from)?;
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &str) -> Result<()> {
        self.rig.check(Deed::Remove, path)?;
        self.disk.remove(path)
    }

    fn list(&self, directory: &str) -> Result<Vec<String>> {
        self.disk.list(directory)
    }

    fn create_directory(&self, directory: &str) -> Result<()> {
        self.rig.check(Deed::CreateDirectory, directory)?;
        self.disk.create_directory(directory)
    }

    fn sync_directory(&self, directory: &str) -> Result<()> {
        self.rig.check(Deed::SyncDirectory, directory)?;
        self.disk.sync_directory(directory)
    }
}

impl File for RiggedFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.rig.check(Deed::Write, &self.path)?;
        self.file.write_at(offset, data)
    }

    fn sync(&self) -> Result<()> {
        self.rig.check(Deed::Sync, &self.path)?;
        self.file.sync()
    }

    fn set_length(&self, length: u64) -> Result<()> {
        self.rig.check(Deed::SetLength, &self.path)?;
        self.file.set_length(length)
    }

    fn allocate(&self, length: u64) -> Result<()> {
        self.rig.check(Deed::Allocate, &self.path)?;
        self.file.allocate(length)
    }

    fn length(&self) -> Result<u64> {
        self.file.length()
    }
}
