//! Chunks: what left the journal. A chunk is an immutable object that holds runs of segments' bytes and nothing else;
//! which segment they belong to is the catalogue's knowledge.
//!
//! Invariants:
//! * a chunk is written once, durable together with its name, and never changed ([`Chunks::write`])
//! * every 64 KiB of its bytes have a checksum, which is verified before any of them is served ([`Chunks::read`])
//! * a chunk is removed only after a durable checkpoint no longer names it ([`Chunks::give_up`])
//!
//! Names are numbers; a segment's name is nowhere on disk but in the catalogue. Where the objects are is behind
//! [`Objects`](crate::io::Objects): files by default ([`Directory`]).

mod cache;
mod directory;
mod format;
mod read;
mod verify;
mod write;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::error::StoreError;
use crate::io::Objects;
pub(crate) use cache::BlockCache;
pub(crate) use directory::Directory;
use read::OpenChunks;
pub(crate) use verify::{BadBlock, verify};
pub(crate) use write::Written;

/// Where a run of a segment's bytes stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    /// Chunk.
    pub(crate) chunk: u64,
    /// Position among the chunk's bytes.
    pub(crate) position: u64,
}

/// Part of a chunk's bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Stretch {
    pub(crate) place: Place,
    pub(crate) length: u64,
}

/// A run of a segment's bytes that is to be stored.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) segment: u64,
    pub(crate) start: u64,
    pub(crate) length: u64,
    pub(crate) parts: Vec<Bytes>,
}

/// A run of a segment's bytes and where it is now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredPiece {
    pub(crate) segment: u64,
    pub(crate) start: u64,
    pub(crate) length: u64,
    pub(crate) place: Place,
}

/// Directory of a container's chunks.
pub(crate) fn directory(container: u32) -> String {
    format!("chunks-{container:04}")
}

/// Name of a chunk.
pub(crate) fn path_of(container: u32, chunk: u64) -> String {
    format!("{}/{chunk:016}.chunk", directory(container))
}

/// Number of a chunk from its file name.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(".chunk")?.parse().ok()
}

/// The chunks of one container; cheap to share between threads.
pub(crate) struct Chunks {
    objects: Arc<dyn Objects>,
    container: u32,
    /// In a bucket: the first number of this start. Another start may be named by what is there.
    first_of_start: Option<u64>,
    cache: Arc<BlockCache>,
    open: Mutex<OpenChunks>,
    /// Bytes in chunks, as far as they are known.
    lengths: Mutex<BTreeMap<u64, u64>>,
    /// To be deleted when there is time.
    given_up: Mutex<VecDeque<u64>>,
}

impl Chunks {
    /// `first_of_start`: in a bucket, the first number of this start of the store.
    pub(crate) fn new(
        objects: Arc<dyn Objects>,
        container: u32,
        first_of_start: Option<u64>,
        cache: Arc<BlockCache>,
    ) -> Self {
        Self {
            objects,
            container,
            first_of_start,
            cache,
            open: Mutex::default(),
            lengths: Mutex::default(),
            given_up: Mutex::default(),
        }
    }

    /// In a bucket: the first number of this start.
    pub(crate) fn first_of_start(&self) -> Option<u64> {
        self.first_of_start
    }

    /// Where the chunks are.
    pub(crate) fn objects(&self) -> &dyn Objects {
        &*self.objects
    }

    /// Bytes in a chunk, if they are known without asking the disk.
    pub(crate) fn known_length(&self, chunk: u64) -> Option<u64> {
        self.lengths.lock().expect("no holder of the lengths panics").get(&chunk).copied()
    }

    /// Bytes in a chunk. Blocks on the disk.
    pub(crate) fn length(&self, chunk: u64) -> Result<u64, StoreError> {
        let length = self.chunk(chunk)?.length;
        self.note_length(chunk, length);
        Ok(length)
    }

    fn note_length(&self, chunk: u64, length: u64) {
        self.lengths.lock().expect("no holder of the lengths panics").insert(chunk, length);
    }

    /// Gives up chunks that no durable checkpoint names any more. They are not found from now on; [`reap`](Self::reap)
    /// deletes them.
    pub(crate) fn give_up(&self, chunks: impl IntoIterator<Item = u64>) {
        let mut given_up = self.given_up.lock().expect("no holder of the list panics");
        for chunk in chunks {
            self.objects.give_up(&path_of(self.container, chunk));
            self.forget(chunk);
            self.lengths.lock().expect("no holder of the lengths panics").remove(&chunk);
            given_up.push_back(chunk);
        }
    }

    /// Deletes one chunk that was given up; false if there is none. What cannot be deleted now is at the next start.
    pub(crate) fn reap(&self, pause: &mut dyn FnMut()) -> bool {
        let Some(chunk) = self.given_up.lock().expect("no holder of the list panics").pop_front() else { return false };
        let name = path_of(self.container, chunk);
        if let Err(error) = self.objects.delete(&name, pause) {
            tracing::warn!(name, %error, "could not delete a chunk");
        }
        true
    }
}
