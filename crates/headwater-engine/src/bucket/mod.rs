//! A store whose chunks are in object storage: whose bucket it is, and the copy of the catalogue that is kept there.
//!
//! ```text
//!   root/store                  identity, put once
//!   root/restore                begun as a restore; without an identity, one that did not come to its end
//!   starts/S                    one for each start of the store, with a mark that only this start knows
//!   chunks-NNNN/N.chunk         see `chunks`; numbers begin with the start that made them
//!   catalogue-NNNN/S-N.copy     a manifest, and the parts of its runs
//!   catalogue-NNNN/S-N-P.run    part P of a run
//! ```
//!
//! Every object is put once under a name that was never used, so a request that arrives late can change nothing.
//!
//! Guarantees:
//! * one data directory and one bucket belong together: a bucket that another directory (or a copy of this one) has
//!   used since is refused ([`Bucket::resume`])
//! * the newest copy of a container's catalogue names only what is in the bucket; a chunk is deleted only after a copy
//!   that does not name it is there ([`Bucket::copy`])
//! * an emptied directory gets back what the newest copies say, if a person asks for it, and says what they do not
//!   ([`Bucket::recover`])

mod afterwards;
mod copy;
mod local;
mod restore;
mod start;
mod verify;

use std::sync::Arc;

use bytes::Bytes;

use crate::codec::Encoder;
use crate::error::{StoreError, verify_sum};
use crate::io::Objects;
pub(crate) use afterwards::Afterwards;
use copy::Copied;
pub use copy::Recovered;
pub(crate) use local::{Local, NEXT_PATH, PATH};
pub use restore::BucketRestore;
pub(crate) use start::Found;
pub(crate) use verify::{BucketCheck, outdated};

/// Object storage for a store's chunks.
#[derive(Clone, Debug)]
pub struct BucketOptions {
    /// The objects; nobody else uses these names.
    pub objects: Arc<dyn Objects>,
    /// What people call it.
    pub shown: String,
    /// Whether an empty data directory takes over what is there.
    pub recover: bool,
}

/// The bucket of an open store.
pub(crate) struct Bucket {
    objects: Arc<dyn Objects>,
    shown: String,
    store: u128,
    /// Number of this start, from 1 on.
    start: u64,
    /// What the data directory is to know of this start, before it is announced.
    unannounced: Option<Local>,
    /// By container.
    copied: Vec<Copied>,
}

const FORMAT: u32 = 1;

/// Bits of a chunk's number that count within one start.
const CHUNK_COUNT_BITS: u32 = 36;

impl Bucket {
    /// First chunk of this start; no other start uses this number or a following one.
    pub(crate) fn first_chunk(&self) -> u64 {
        self.start << CHUNK_COUNT_BITS
    }

    /// The objects.
    pub(crate) fn objects(&self) -> &Arc<dyn Objects> {
        &self.objects
    }
}

/// Closes a small object or file with its checksum.
fn sealed(out: Encoder) -> Bytes {
    let mut out = out;
    let sum = crc32c::crc32c(&out.0);
    out.u32(sum);
    out.0.into()
}

/// The content of a small object or file, without its checksum.
fn unsealed<'a>(path: &str, bytes: &'a [u8]) -> Result<&'a [u8], StoreError> {
    // The format, behind eight bytes that say what it is, is looked at before the checksum is believed: a newer release
    // may lay out the rest differently.
    if let Some((magic, rest)) = bytes.split_first_chunk::<8>()
        && magic.starts_with(b"HWB")
        && let Some(format) = rest.first_chunk::<4>().map(|format| u32::from_be_bytes(*format))
        && format > FORMAT
    {
        return Err(StoreError::Newer { path: path.into(), found: format, known: FORMAT });
    }
    let Some((content, sum)) = bytes.split_last_chunk::<4>() else {
        return Err(StoreError::damaged(path, bytes.len() as u64, "too short for a checksum"));
    };
    verify_sum(path, 0, "content", u32::from_be_bytes(*sum), content)?;
    Ok(content)
}
