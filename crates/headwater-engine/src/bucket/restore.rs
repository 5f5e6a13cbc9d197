//! A store that is restored into a bucket: its chunks go there, everything else into a data directory.
//!
//! ```text
//!   claim ─► chunks ─► start ─► copies of the catalogues ─► identity        then the directory's own identity
//! ```
//!
//! Guarantees:
//! * nothing is put into a place that is not empty, and two restores cannot share one ([`BucketRestore::begin`])
//! * a place without an identity is nobody's store, and one that was claimed is refused by every start
//! * chunks that the store makes later have numbers that none of the restored ones has

use crate::catalogue::StoredManifest;
use crate::chunks;
use crate::codec::Encoder;
use crate::error::StoreError;
use crate::io::{Content, Io};
use crate::store::{self, Identity};

use super::local::{Local, Start};
use super::start::{CLAIM, IDENTITY, encode_identity, put};
use super::{Bucket, BucketOptions, CHUNK_COUNT_BITS, FORMAT};

const CLAIM_MAGIC: &[u8; 8] = b"HWBREST\x01";

/// A restore into a bucket, under way.
#[derive(Debug)]
pub struct BucketRestore {
    options: BucketOptions,
}

impl BucketRestore {
    /// Claims an empty place.
    ///
    /// # Errors
    /// [`StoreError::Mismatched`] if it is not empty; [`StoreError::Unreachable`].
    pub fn begin(io: &Io, options: &BucketOptions) -> Result<Self, StoreError> {
        if !options.objects.is_empty()? {
            return Err(StoreError::Mismatched(format!("{} is not empty", options.shown)));
        }
        let mut claim = Encoder::default();
        claim.0.extend_from_slice(CLAIM_MAGIC);
        claim.u32(FORMAT).u128(io.random.bits());
        put(&*options.objects, &options.shown, CLAIM, claim)?;
        Ok(Self { options: options.clone() })
    }

    /// Puts a chunk, under the name it has in the backup.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`]; [`StoreError::Io`] if something else stands there.
    pub fn put(&self, name: &str, content: Content<'_>) -> Result<(), StoreError> {
        self.options.objects.put(name, content, &mut || ())
    }

    /// Makes the place this store's, once all chunks are there. The data directory has everything but its identity, which
    /// is there as `store.next` and gets its name afterwards.
    ///
    /// # Errors
    /// Any [`StoreError`]; the place is then claimed and nobody's.
    pub fn finish(self, io: &Io) -> Result<(), StoreError> {
        let (disk, options) = (&*io.disk, &self.options);
        let identity = Identity::read_at(disk, store::NEXT_PATH)?;
        let mut newest = 0;
        for container in 0..identity.containers {
            let named = options.objects.list(&chunks::directory(container))?;
            let stored = named.iter().filter_map(|name| chunks::number_of(name)).max().unwrap_or(0);
            newest = newest.max(stored).max(StoredManifest::read(disk, container)?.position.next_chunk);
        }
        // As if this start had made the chunks: the next one counts on from a number that none of them has.
        let start = Start { number: (newest >> CHUNK_COUNT_BITS) + 1, mark: io.random.bits() };
        let local = Local::new(identity.store, start, start);
        let mut bucket = Bucket::prepare(options, &identity, local)?;
        bucket.announce(disk)?;
        for container in 0..identity.containers {
            bucket.copy(disk, container, io.clock.wall_millis())?;
        }
        put(&*options.objects, &options.shown, IDENTITY, encode_identity(&identity))
    }
}
