//! What a data directory knows of its bucket: a file that is written before each start is announced there, so that a
//! start whose reply was lost is known again, and a stranger's is told from it.
//!
//! An announcement may arrive when its process is long gone, so every one that may still be under way is remembered, and
//! none is given the number of another.

use crate::codec::{Decoder, Encoder, Malformed};
use crate::error::{IoContext, StoreError};
use crate::io::Disk;

use super::{FORMAT, sealed, unsealed};

/// Name of the file.
pub(crate) const PATH: &str = "bucket";
/// Announcements remembered. So many in a row are answered by nothing only where nothing arrives at all.
const ATTEMPTS_MAX: usize = 64;
/// While it is written.
pub(crate) const NEXT_PATH: &str = "bucket.next";
const MAGIC: &[u8; 8] = b"HWBLOCL\x01";

/// One start of a store.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Start {
    pub(super) number: u64,
    /// Only the directory that began it knows this.
    pub(super) mark: u128,
}

/// The file's content.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Local {
    pub(super) store: u128,
    /// The newest start in the bucket when this was written.
    pub(super) accepted: Start,
    /// Those that were about to be put there since, oldest first. Each may arrive yet.
    attempts: Vec<Start>,
}

impl Local {
    /// For the first start of this directory with a bucket, and others that follow no earlier one.
    pub(super) fn new(store: u128, accepted: Start, intended: Start) -> Self {
        Self { store, accepted, attempts: vec![intended] }
    }

    /// For the start after `newest`, which is in the bucket now. `mark` is new.
    pub(super) fn after(before: Option<&Self>, store: u128, newest: Start, mark: u128) -> Self {
        let before = before.filter(|local| local.store == store);
        let mut attempts = before.map_or_else(Vec::new, |local| local.attempts.clone());
        attempts.retain(|start| start.number > newest.number);
        let last = attempts.last().map_or(newest.number, |start| start.number);
        attempts.push(Start { number: last + 1, mark });
        let forgotten = attempts.len().saturating_sub(ATTEMPTS_MAX);
        attempts.drain(..forgotten);
        Self { store, accepted: newest, attempts }
    }

    /// The one that is about to be put there.
    pub(super) fn intended(&self) -> Start {
        *self.attempts.last().expect("there is always one")
    }

    /// Whether this directory has seen or made that start.
    pub(super) fn knows(&self, start: Start) -> bool {
        start == self.accepted || self.attempts.contains(&start)
    }

    /// The store the directory belongs to, or was to belong to.
    pub(crate) fn store(&self) -> u128 {
        self.store
    }

    pub(crate) fn read(disk: &dyn Disk) -> Result<Option<Self>, StoreError> {
        if !disk.list("").on(".", "list")?.iter().any(|name| name == PATH) {
            return Ok(None);
        }
        let file = disk.open(PATH).on(PATH, "open")?;
        let mut bytes = vec![0; file.length().on(PATH, "measure")?.min(4096) as usize];
        file.read_at(0, &mut bytes).on(PATH, "read")?;
        let malformed = StoreError::malformed(PATH, 0);
        let mut input = Decoder::new(unsealed(PATH, &bytes)?);
        if input.take(8).map_err(&malformed)? != MAGIC {
            return Err(StoreError::damaged(PATH, 0, "does not say where the chunks are"));
        }
        let format = input.u32().map_err(&malformed)?;
        if format > FORMAT {
            return Err(StoreError::Newer { path: PATH.into(), found: format, known: FORMAT });
        }
        let fields = |mut input: Decoder<'_>| -> Result<Self, Malformed> {
            let store = input.u128()?;
            let mut start = || Ok(Start { number: input.u64()?, mark: input.u128()? });
            let (accepted, intended) = (start()?, start()?);
            let mut attempts = Vec::new();
            while !input.is_empty() {
                attempts.push(Start { number: input.u64()?, mark: input.u128()? });
            }
            attempts.push(intended);
            if !attempts.is_sorted_by(|one, next| one.number < next.number) {
                return Err(Malformed("starts are out of order"));
            }
            Ok(Self { store, accepted, attempts })
        };
        fields(input).map(Some).map_err(&malformed)
    }

    pub(super) fn write(&self, disk: &dyn Disk) -> Result<(), StoreError> {
        let mut out = Encoder::default();
        out.0.extend_from_slice(MAGIC);
        out.u32(FORMAT).u128(self.store);
        let (intended, earlier) = self.attempts.split_last().expect("there is always one");
        for start in [&self.accepted, intended].into_iter().chain(earlier) {
            out.u64(start.number).u128(start.mark);
        }
        let bytes = sealed(out);
        if disk.list("").on(".", "list")?.iter().any(|name| name == NEXT_PATH) {
            disk.remove(NEXT_PATH).on(NEXT_PATH, "remove")?;
        }
        let file = disk.create(NEXT_PATH).on(NEXT_PATH, "create")?;
        file.write_at(0, &bytes).on(NEXT_PATH, "write")?;
        file.sync().on(NEXT_PATH, "sync")?;
        disk.rename(NEXT_PATH, PATH).on(NEXT_PATH, "rename")?;
        disk.sync_directory("").on(".", "sync")
    }
}
