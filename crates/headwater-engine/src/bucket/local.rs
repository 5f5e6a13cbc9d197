//! What a data directory knows of its bucket: a file that is written before each start is announced there, so that a
//! start whose reply was lost is known again, and a stranger's is told from it.

use crate::codec::{Decoder, Encoder, Malformed};
use crate::error::{IoContext, StoreError};
use crate::io::Disk;

use super::{FORMAT, sealed, unsealed};

/// Name of the file.
pub(crate) const PATH: &str = "bucket";
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
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Local {
    pub(super) store: u128,
    /// The newest start in the bucket when this was written.
    pub(super) accepted: Start,
    /// The one that was about to be put there.
    pub(super) intended: Start,
}

impl Local {
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
            let local = Self { store, accepted: start()?, intended: start()? };
            input.end()?;
            Ok(local)
        };
        fields(input).map(Some).map_err(&malformed)
    }

    pub(super) fn write(&self, disk: &dyn Disk) -> Result<(), StoreError> {
        let Self { store, accepted, intended } = *self;
        let mut out = Encoder::default();
        out.0.extend_from_slice(MAGIC);
        out.u32(FORMAT).u128(store);
        out.u64(accepted.number).u128(accepted.mark).u64(intended.number).u128(intended.mark);
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
