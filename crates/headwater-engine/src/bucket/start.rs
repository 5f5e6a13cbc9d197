//! Starting with a bucket: whose it is, and that nobody else has it.

use std::sync::Arc;

use bytes::Bytes;

use crate::canary;
use crate::codec::{Decoder, Encoder, Malformed};
use crate::error::StoreError;
use crate::io::{Disk, Io, Objects};
use crate::store::Identity;

use super::copy::{Copied, newest_copy};
use super::local::{Local, Start};
use super::{Bucket, BucketOptions, FORMAT, sealed, unsealed};

/// Makes a bucket a store's.
pub(super) const IDENTITY: &str = "root/store";
/// Put before anything else of a restore.
pub(super) const CLAIM: &str = "root/restore";
const IDENTITY_MAGIC: &[u8; 8] = b"HWBSTOR\x01";
const STARTS: &str = "starts";
const START_MAGIC: &[u8; 8] = b"HWBSTRT\x01";
/// No small object of ours is larger.
const SMALL_BYTES: u64 = 4096;

/// What an empty data directory finds in a bucket.
pub(crate) enum Found {
    /// Nothing: a new store may begin.
    Nothing,
    /// A store that this directory began to create.
    Begun(Identity),
    /// A store that has lived.
    Store(Identity),
}

fn start_name(number: u64) -> String {
    format!("{STARTS}/{number:016}")
}

/// All of a small object; `None` if it is not there.
fn small(objects: &dyn Objects, name: &str) -> Result<Option<Bytes>, StoreError> {
    match objects.length(name) {
        Err(error) if error.is_not_found() => Ok(None),
        Ok(length) if length > SMALL_BYTES => Err(StoreError::damaged(name, 0, format!("has {length} bytes"))),
        length => objects.get(name, 0, length? as usize).map(Some),
    }
}

/// Opens a small object: its fields behind magic and format.
fn fields<T>(
    name: &str,
    bytes: &[u8],
    magic: &[u8; 8],
    read: impl FnOnce(&mut Decoder<'_>) -> Result<T, Malformed>,
) -> Result<T, StoreError> {
    let malformed = StoreError::malformed(name, 0);
    let mut input = Decoder::new(unsealed(name, bytes)?);
    if input.take(8).map_err(&malformed)? != magic {
        return Err(StoreError::damaged(name, 0, "is something else"));
    }
    let format = input.u32().map_err(&malformed)?;
    if format > FORMAT {
        return Err(StoreError::Newer { path: name.into(), found: format, known: FORMAT });
    }
    let value = read(&mut input).map_err(&malformed)?;
    input.end().map_err(&malformed)?;
    Ok(value)
}

pub(super) fn encode_identity(identity: &Identity) -> Encoder {
    let mut out = Encoder::default();
    out.0.extend_from_slice(IDENTITY_MAGIC);
    out.u32(FORMAT).u128(identity.store).u32(identity.containers).u64(identity.journal_file_bytes);
    out
}

fn identity(objects: &dyn Objects) -> Result<Option<Identity>, StoreError> {
    let Some(bytes) = small(objects, IDENTITY)? else { return Ok(None) };
    let read = |input: &mut Decoder<'_>| Identity::decode(input)?.check();
    fields(IDENTITY, &bytes, IDENTITY_MAGIC, read).map(Some)
}

/// The newest start in the bucket; number 0 if there is none.
fn newest_start(objects: &dyn Objects, store: u128) -> Result<Start, StoreError> {
    let Some(number) = newest_start_number(objects)? else { return Ok(Start::default()) };
    let name = start_name(number);
    let bytes = small(objects, &name)?.ok_or_else(|| StoreError::damaged(&name, 0, "was there a moment ago"))?;
    let (owner, mark) = fields(&name, &bytes, START_MAGIC, |input| Ok((input.u128()?, input.u128()?)))?;
    if owner != store {
        return Err(StoreError::Mismatched(format!("{name} belongs to another store than {IDENTITY}")));
    }
    Ok(Start { number, mark })
}

fn newest_start_number(objects: &dyn Objects) -> Result<Option<u64>, StoreError> {
    Ok(objects.list(STARTS)?.iter().filter_map(|name| name.parse().ok()).max())
}

impl Bucket {
    /// What an empty data directory finds. `local` is left of a start that did not come to its end.
    pub(crate) fn look(options: &BucketOptions, local: Option<&Local>) -> Result<Found, StoreError> {
        let objects = &*options.objects;
        let Some(identity) = identity(objects)? else {
            refuse_others(options)?;
            return Ok(Found::Nothing);
        };
        let newest = newest_start(objects, identity.store)?;
        let is_begun = local.is_some_and(|local| {
            local.store == identity.store && local.accepted == Start::default() && newest.number <= 1
        });
        for container in 0..identity.containers {
            if newest_copy(objects, identity.store, container)?.is_some() {
                return Ok(Found::Store(identity));
            }
        }
        Ok(if is_begun { Found::Begun(identity) } else { Found::Store(identity) })
    }

    /// Begins a store in an empty bucket, or goes on beginning it. The directory's own identity follows.
    pub(crate) fn create(io: &Io, options: &BucketOptions, new: &Identity) -> Result<Self, StoreError> {
        // An earlier attempt may have put its start; only its own mark makes it ours.
        let before = Local::read(&*io.disk)?.filter(|local| local.store == new.store);
        let first = Start { number: 1, mark: io.random.bits() };
        let local = before.unwrap_or_else(|| Local::new(new.store, Start::default(), first));
        local.write(&*io.disk)?;
        put(&*options.objects, &options.shown, IDENTITY, encode_identity(new))?;
        let mut bucket = Self::prepare(options, new, local)?;
        bucket.announce(&*io.disk)?;
        Ok(bucket)
    }

    /// Goes on with the bucket of a store that is in the data directory. Changes nothing before it is
    /// [announced](Self::announce).
    pub(crate) fn resume(io: &Io, options: &BucketOptions, own: &Identity, local: &Local) -> Result<Self, StoreError> {
        check_store(options, own)?;
        let newest = current_start(options, own, local)?.map_err(StoreError::Mismatched)?;
        Self::prepare(options, own, Local::after(Some(local), own.store, newest, io.random.bits()))
    }

    /// Takes over what is in the bucket; the data directory has nothing yet. [`recover`](Self::recover) fills it.
    pub(crate) fn take_over(io: &Io, options: &BucketOptions, found: &Identity) -> Result<Self, StoreError> {
        let newest = newest_start(&*options.objects, found.store)?;
        let before = Local::read(&*io.disk)?;
        let local = Local::after(before.as_ref(), found.store, newest, io.random.bits());
        let mut bucket = Self::prepare(options, found, local)?;
        bucket.announce(&*io.disk)?;
        Ok(bucket)
    }

    /// A start that is not [announced](Self::announce) yet.
    pub(super) fn prepare(options: &BucketOptions, identity: &Identity, local: Local) -> Result<Self, StoreError> {
        let objects: &Arc<dyn Objects> = &options.objects;
        let copied = (0..identity.containers)
            .map(|container| Copied::open(&**objects, identity.store, container))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            objects: objects.clone(),
            shown: options.shown.clone(),
            store: identity.store,
            start: local.intended().number,
            unannounced: Some(local),
            copied,
        })
    }

    /// Tells the data directory and the bucket of this start; from then on no other may write there. Before it, nothing
    /// is changed: a store that is refused stays as it is.
    ///
    /// # Errors
    /// [`StoreError::Mismatched`] if another start was announced meanwhile, and those of the disk and the bucket.
    pub(crate) fn announce(&mut self, disk: &dyn Disk) -> Result<(), StoreError> {
        let Some(local) = self.unannounced.take() else { return Ok(()) };
        local.write(disk)?;
        let mut out = Encoder::default();
        out.0.extend_from_slice(START_MAGIC);
        out.u32(FORMAT).u128(self.store).u128(local.intended().mark);
        match put(&*self.objects, &self.shown, &start_name(self.start), out) {
            Err(StoreError::Unreachable { .. }) if canary::is(19) => {
                Err(StoreError::Mismatched(format!("{}: another start was first", self.shown)))
            }
            announced => announced,
        }
    }

    /// Fails if another start has begun since: this process must not touch the bucket any more.
    pub(super) fn check_owner(&self) -> Result<(), StoreError> {
        match newest_start_number(&*self.objects)? {
            Some(newest) if newest > self.start => {
                Err(StoreError::Fenced(format!("{} was taken over by start {newest} of this store", self.shown)))
            }
            _ => Ok(()),
        }
    }
}

/// Refuses a place that has no store and yet something that looks like parts of one: a store begun there would delete it
/// as what a dead start left behind.
fn refuse_others(options: &BucketOptions) -> Result<(), StoreError> {
    let (objects, shown) = (&*options.objects, &options.shown);
    if small(objects, CLAIM)?.is_some() {
        let what = format!("a restore into {shown} did not come to its end; use another place, or empty it");
        return Err(StoreError::Mismatched(what));
    }
    for place in [crate::catalogue::directory(0), crate::chunks::directory(0)] {
        if let Some(name) = objects.list(&place)?.first() {
            let what = format!("{shown} has {place}/{name} and is no store: a backup, or part of something");
            return Err(StoreError::Mismatched(what));
        }
    }
    Ok(())
}

/// Refuses a bucket that is not this store's.
pub(super) fn check_store(options: &BucketOptions, own: &Identity) -> Result<(), StoreError> {
    let shown = &options.shown;
    let what = match identity(&*options.objects)? {
        None => format!("{shown} has no store, and the chunks of this one should be there"),
        Some(found) if found.store != own.store => format!("{shown} belongs to another store"),
        Some(_) => return Ok(()),
    };
    Err(StoreError::Mismatched(what))
}

/// The newest start of a bucket that belongs to the directory's store; words for a person if the directory has not seen it.
pub(super) fn current_start(
    options: &BucketOptions,
    own: &Identity,
    local: &Local,
) -> Result<Result<Start, String>, StoreError> {
    let newest = newest_start(&*options.objects, own.store)?;
    if local.knows(newest) {
        return Ok(Ok(newest));
    }
    Ok(Err(format!(
        "{} was used since by another copy of this data directory (start {}); this one is out of date",
        options.shown, newest.number
    )))
}

/// Puts a small object, unless another one stands there.
pub(super) fn put(objects: &dyn Objects, shown: &str, name: &str, content: Encoder) -> Result<(), StoreError> {
    match objects.put(name, sealed(content).into(), &mut || ()) {
        Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(StoreError::Mismatched(format!("{shown}: another store is just beginning there")))
        }
        put => put,
    }
}
