//! The copy of a container's catalogue in the bucket, and taking it back.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::catalogue::{self, RunCache, StoredManifest};
use crate::codec::{Decoder, Encoder, Malformed};
use crate::error::{IoContext, StoreError, verify_sum};
use crate::io::{Disk, Objects};

use super::{Bucket, FORMAT, sealed, unsealed};

const MAGIC: &[u8; 8] = b"HWBCOPY\x01";
/// Runs are copied in parts of this size, so that memory does not grow with them.
const PART_BYTES: usize = 8 << 20;
/// No copy is larger: it names runs, and there are few.
const COPY_BYTES_MAX: u64 = 16 << 20;

/// What the bucket has of one container's catalogue.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// Name of the newest copy; empty if there is none.
    name: String,
    /// Last operation it includes.
    sequence: u64,
    /// Parts of the runs that are there.
    runs: BTreeMap<u64, Vec<Part>>,
    /// Copies made by this start.
    count: u64,
    /// No longer needed.
    stale: Vec<String>,
}

/// Part of a run in the bucket.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) length: u64,
    sum: u32,
}

impl Part {
    /// Its bytes, verified.
    pub(super) fn read(&self, objects: &dyn Objects, container: u32) -> Result<Bytes, StoreError> {
        let object = path_of(container, &self.name);
        if self.length > PART_BYTES as u64 {
            return Err(StoreError::damaged(&object, 0, format!("part of {} bytes", self.length)));
        }
        let bytes = objects.get(&object, 0, self.length as usize)?;
        verify_sum(&object, 0, "part of a run", self.sum, &bytes)?;
        Ok(bytes)
    }
}

/// Content of a copy.
#[derive(Debug)]
pub(super) struct Copy {
    sequence: u64,
    /// When it was made, in milliseconds since 1970.
    made: i64,
    manifest: Bytes,
    runs: BTreeMap<u64, Vec<Part>>,
}

/// What an emptied directory got back of one container.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Recovered {
    /// Which.
    pub container: u32,
    /// Last operation that is included; what came after is not known.
    pub operation: u64,
    /// When that was copied, in milliseconds since 1970; `None`: it never was, and nothing was got back.
    pub copied_millis: Option<i64>,
}

pub(super) fn directory(container: u32) -> String {
    catalogue::directory(container)
}

pub(super) fn path_of(container: u32, name: &str) -> String {
    format!("{}/{name}", directory(container))
}

/// Start and number of a copy, from its name.
fn copy_number(name: &str) -> Option<(u64, u64)> {
    let (start, count) = name.strip_suffix(".copy")?.split_once('-')?;
    Some((start.parse().ok()?, count.parse().ok()?))
}

/// Start that put an object of a catalogue, from its name.
pub(super) fn start_of(name: &str) -> Option<u64> {
    let is_ours = name.ends_with(".copy") || name.ends_with(".run");
    name.split_once('-').filter(|_| is_ours)?.0.parse().ok()
}

/// The newest copy of a container's catalogue and its name.
pub(super) fn newest_copy(
    objects: &dyn Objects,
    store: u128,
    container: u32,
) -> Result<Option<(String, Copy)>, StoreError> {
    let names = objects.list(&directory(container))?;
    let newest = names.iter().filter_map(|name| Some((copy_number(name)?, name))).max();
    let Some((_, name)) = newest else { return Ok(None) };
    let path = path_of(container, name);
    let length = objects.length(&path)?;
    if length > COPY_BYTES_MAX {
        return Err(StoreError::damaged(&path, COPY_BYTES_MAX, format!("has {length} bytes")));
    }
    let copy = Copy::decode(&path, &objects.get(&path, 0, length as usize)?, store, container)?;
    Ok(Some((name.clone(), copy)))
}

impl Copy {
    /// Parts of all its runs.
    pub(super) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.runs.values().flatten()
    }

    fn encode(&self, store: u128, container: u32) -> Bytes {
        let mut out = Encoder::default();
        out.0.extend_from_slice(MAGIC);
        out.u32(FORMAT).u128(store).u32(container).u64(self.sequence).i64(self.made).bytes(&self.manifest);
        out.u32(self.runs.len() as u32);
        for (number, parts) in &self.runs {
            out.u64(*number).u32(parts.len() as u32);
            for part in parts {
                out.bytes(part.name.as_bytes()).u64(part.length).u32(part.sum);
            }
        }
        sealed(out)
    }

    fn decode(path: &str, bytes: &[u8], store: u128, container: u32) -> Result<Self, StoreError> {
        let malformed = StoreError::malformed(path, 0);
        let mut input = Decoder::new(unsealed(path, bytes)?);
        if input.take(8).map_err(&malformed)? != MAGIC {
            return Err(StoreError::damaged(path, 0, "not a copy of a catalogue"));
        }
        let format = input.u32().map_err(&malformed)?;
        if format > FORMAT {
            return Err(StoreError::Newer { path: path.into(), found: format, known: FORMAT });
        }
        let fields = |mut input: Decoder<'_>| -> Result<Self, Malformed> {
            if (input.u128()?, input.u32()?) != (store, container) {
                return Err(Malformed("copy belongs to another store or container"));
            }
            let (sequence, made) = (input.u64()?, input.i64()?);
            let manifest = Bytes::copy_from_slice(input.bytes()?);
            let mut runs = BTreeMap::new();
            for _ in 0..input.u32()? {
                let number = input.u64()?;
                let mut parts = Vec::new();
                for _ in 0..input.u32()? {
                    parts.push(Part { name: input.text()?.to_owned(), length: input.u64()?, sum: input.u32()? });
                }
                runs.insert(number, parts);
            }
            input.end()?;
            Ok(Self { sequence, made, manifest, runs })
        };
        fields(input).map_err(&malformed)
    }
}

impl Copied {
    /// What is there of a container, and what is left of starts that are over.
    pub(super) fn open(objects: &dyn Objects, store: u128, container: u32) -> Result<Self, StoreError> {
        let mut copied = Self::default();
        if let Some((name, copy)) = newest_copy(objects, store, container)? {
            (copied.name, copied.sequence, copied.runs) = (name, copy.sequence, copy.runs);
        }
        let named: BTreeSet<&str> = copied.runs.values().flatten().map(|part| &*part.name).collect();
        // Names that are not made like ours are somebody's, who knows why.
        let is_stale = |name: &String| start_of(name).is_some() && *name != copied.name && !named.contains(&**name);
        copied.stale = objects.list(&directory(container))?.into_iter().filter(is_stale).collect();
        Ok(copied)
    }
}

impl Bucket {
    /// Whether the newest copy includes everything up to this operation.
    pub(crate) fn has(&self, container: u32, sequence: u64) -> bool {
        let copied = &self.copied[container as usize];
        !copied.name.is_empty() && copied.sequence >= sequence
    }

    /// Copies the durable checkpoint of a container. Afterwards chunks that it does not name may be deleted.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if another start has the bucket; [`StoreError::Unreachable`] may pass.
    pub(crate) fn copy(&mut self, disk: &dyn Disk, container: u32, now: i64) -> Result<(), StoreError> {
        self.check_owner()?;
        let manifest = StoredManifest::read(disk, container)?;
        let path = catalogue::manifest_path(container);
        let file = disk.open(&path).on(&path, "open")?;
        let mut bytes = vec![0; file.length().on(&path, "measure")? as usize];
        file.read_at(0, &mut bytes).on(&path, "read")?;
        let mut runs = BTreeMap::new();
        for &number in &manifest.runs {
            let parts = match self.copied[container as usize].runs.get(&number) {
                Some(parts) => parts.clone(),
                None => self.copy_run(disk, container, number)?,
            };
            // Kept at once: an attempt that fails later need not repeat it.
            self.copied[container as usize].runs.insert(number, parts.clone());
            runs.insert(number, parts);
        }
        let copied = &mut self.copied[container as usize];
        copied.count += 1;
        let name = format!("{:016}-{:016}.copy", self.start, copied.count);
        let copy = Copy { sequence: manifest.position.sequence, made: now, manifest: bytes.into(), runs: runs.clone() };
        let content = copy.encode(self.store, container);
        self.objects.put(&path_of(container, &name), content.into(), &mut || ())?;
        copied.sequence = copy.sequence;
        let before = std::mem::replace(&mut copied.name, name);
        copied.stale.extend(Some(before).filter(|name| !name.is_empty()));
        for (number, parts) in std::mem::replace(&mut copied.runs, runs) {
            if !copied.runs.contains_key(&number) {
                copied.stale.extend(parts.into_iter().map(|part| part.name));
            }
        }
        // A start that took over meanwhile may need what this one does not.
        self.check_owner()?;
        let copied = &mut self.copied[container as usize];
        // What cannot be deleted now is tried again with the next copy.
        let objects = &self.objects;
        copied.stale.retain(|name| objects.delete(&path_of(container, name), &mut || ()).is_err());
        Ok(())
    }

    fn copy_run(&self, disk: &dyn Disk, container: u32, number: u64) -> Result<Vec<Part>, StoreError> {
        let path = catalogue::run_path(container, number);
        let file = disk.open(&path).on(&path, "open")?;
        let length = file.length().on(&path, "measure")?;
        let mut parts = Vec::new();
        let mut position = 0;
        while position < length {
            let mut bytes = vec![0; (length - position).min(PART_BYTES as u64) as usize];
            file.read_at(position, &mut bytes).on(&path, "read")?;
            let name = format!("{:016}-{number:016}-{:06}.run", self.start, parts.len());
            let part = Part { name, length: bytes.len() as u64, sum: crc32c::crc32c(&bytes) };
            position += part.length;
            self.objects.put(&path_of(container, &part.name), Bytes::from(bytes).into(), &mut || ())?;
            parts.push(part);
        }
        Ok(parts)
    }

    /// Puts into an empty data directory what the newest copies say; the identity follows. Whatever a recovery that did
    /// not come to its end has left there is replaced.
    pub(crate) fn recover(&self, disk: &dyn Disk, containers: u32) -> Result<Vec<Recovered>, StoreError> {
        let mut report = Vec::new();
        for container in 0..containers {
            let place = catalogue::directory(container);
            let Some((_, copy)) = newest_copy(&*self.objects, self.store, container)? else {
                report.push(Recovered { container, operation: 0, copied_millis: None });
                continue;
            };
            for name in disk.list(&place).on(&place, "list")? {
                let path = format!("{place}/{name}");
                disk.remove(&path).on(&path, "remove")?;
            }
            for (number, parts) in &copy.runs {
                self.recover_run(disk, container, *number, parts)?;
            }
            let path = catalogue::manifest_path(container);
            let file = disk.create(&path).on(&path, "create")?;
            file.write_at(0, &copy.manifest).on(&path, "write")?;
            file.sync().on(&path, "sync")?;
            disk.sync_directory(&place).on(&place, "sync")?;
            // Judged by the same code as at every start.
            catalogue::open(disk, container, &RunCache::new(0))?;
            report.push(Recovered { container, operation: copy.sequence, copied_millis: Some(copy.made) });
        }
        Ok(report)
    }

    fn recover_run(&self, disk: &dyn Disk, container: u32, number: u64, parts: &[Part]) -> Result<(), StoreError> {
        let path = catalogue::run_path(container, number);
        let file = disk.create(&path).on(&path, "create")?;
        let mut position = 0;
        for part in parts {
            let bytes = part.read(&*self.objects, container)?;
            file.write_at(position, &bytes).on(&path, "write")?;
            position += part.length;
        }
        file.sync().on(&path, "sync")
    }
}
