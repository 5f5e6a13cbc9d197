//! Chunks of which little is needed any more: what is needed moves to a new chunk, and the old one goes.
//!
//! This is part of writing a checkpoint, on the state that was frozen for it: the checkpoint says where the pieces are
//! now and does not name the old chunk. Meanwhile the container goes on with the old places; when it hears of the
//! checkpoint, it brings the pieces it still has to their new places ([`Container::pieces_moved`]). After a crash the
//! journal's operations are replayed on the new places, and the old chunk is one that nobody names.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::catalogue::Checkpoint;
use crate::chunks::{Chunks, Piece, Place, StoredPiece, Stretch};
use crate::error::StoreError;

use super::checkpoint::Running;
use super::keys::{self, StoredRun};
use super::{Container, Token};

/// Of a chunk that is compacted, at most one byte in so many is needed.
const NEEDED_SHARE: u64 = 2;
/// Chunks whose length is looked up per checkpoint, if it is not known.
const LOOKED_UP_MAX: usize = 16;

/// How much one checkpoint may move, and when that pays off.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes moved at most; they are in memory meanwhile.
    pub(super) moved_bytes_max: u64,
    /// Bytes of disk space that have to come free.
    pub(super) freed_bytes_min: u64,
}

/// What is to be moved.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    /// Chunks of which nothing is needed afterwards.
    pub(super) chunks: Vec<u64>,
    /// All that is needed of them.
    pub(super) pieces: Vec<Piece>,
    /// Where each piece is.
    pub(super) places: Vec<Place>,
}

/// Chooses chunks and reads what is needed of them. Empty if it does not pay off.
pub(super) fn choose(checkpoint: &Checkpoint, store: &Chunks, bounds: Bounds) -> Result<Compaction, StoreError> {
    let mut chosen = candidates(checkpoint, store, bounds)?;
    if chosen.is_empty() {
        return Ok(Compaction::default());
    }
    let mut found: BTreeMap<u64, Vec<(u64, StoredRun)>> = BTreeMap::new();
    let mut scan = checkpoint.scan(Bound::Included(keys::PIECES))?;
    while let Some((key, value)) = scan.next()?
        && key.starts_with(keys::PIECES)
    {
        let malformed = StoreError::malformed("catalogue", 0);
        let run = StoredRun::decode(&key, &value).map_err(&malformed)?;
        if chosen.contains_key(&run.place.chunk) {
            let segment = keys::owner(&key).map_err(&malformed)?;
            found.entry(run.place.chunk).or_default().push((segment, run));
        }
    }
    let mut compaction = Compaction::default();
    for (chunk, runs) in found {
        let counted: u64 = runs.iter().map(|(_, run)| run.length()).sum();
        if chosen.remove(&chunk) != Some(counted) {
            return Err(miscounted(chunk));
        }
        let read = |(segment, run): &(u64, StoredRun)| {
            let parts = store.read_pieces(Stretch { place: run.place, length: run.length() })?;
            Ok(Piece { segment: *segment, start: run.start, length: run.length(), parts })
        };
        match runs.iter().map(read).collect::<Result<Vec<_>, StoreError>>() {
            Ok(pieces) => {
                compaction.chunks.push(chunk);
                compaction.pieces.extend(pieces);
                compaction.places.extend(runs.iter().map(|(_, run)| run.place));
            }
            // Its readers answer for it; what cannot be read stays where it is.
            Err(error) if error.is_in_chunk() => tracing::warn!(chunk, %error, "a chunk cannot be compacted"),
            Err(error) => return Err(error),
        }
    }
    match chosen.first_key_value() {
        Some((chunk, _)) => Err(miscounted(*chunk)),
        None => Ok(compaction),
    }
}

/// What is needed of a chunk is what its pieces have: a catalogue that says otherwise was not written by a container.
fn miscounted(chunk: u64) -> StoreError {
    StoreError::damaged("catalogue", 0, format!("what is needed of chunk {chunk} is not what its pieces have"))
}

/// Chunks that are mostly dead, with the bytes needed of each, within the bounds.
fn candidates(checkpoint: &Checkpoint, store: &Chunks, bounds: Bounds) -> Result<BTreeMap<u64, u64>, StoreError> {
    let mut chosen = BTreeMap::new();
    let (mut moved, mut freed, mut looked_up) = (0, 0, 0);
    let mut scan = checkpoint.scan(Bound::Included(keys::CHUNKS))?;
    while let Some((key, value)) = scan.next()?
        && key.starts_with(keys::CHUNKS)
    {
        let malformed = StoreError::malformed("catalogue", 0);
        let chunk = keys::last_number(&key).map_err(&malformed)?;
        let needed = keys::decode_number(&value).map_err(&malformed)?;
        if needed > bounds.moved_bytes_max - moved {
            continue;
        }
        let length = match store.known_length(chunk) {
            Some(length) => length,
            None if looked_up == LOOKED_UP_MAX => continue,
            None => {
                looked_up += 1;
                match store.length(chunk) {
                    Ok(length) => length,
                    Err(error) if error.is_in_chunk() => continue,
                    Err(error) => return Err(error),
                }
            }
        };
        if needed * NEEDED_SHARE <= length {
            moved += needed;
            freed += length - needed;
            chosen.insert(chunk, needed);
        }
    }
    Ok(if freed >= bounds.freed_bytes_min { chosen } else { BTreeMap::new() })
}

impl<T: Token> Container<T> {
    /// What the container still needs of chunks that are about to go; asked before a checkpoint is installed.
    pub(super) fn needed_of(&self, chunks: &[u64]) -> Result<BTreeMap<u64, u64>, StoreError> {
        let mut needed = BTreeMap::new();
        for &chunk in chunks {
            if let Some(value) = self.catalogue.get(&keys::chunk(chunk))? {
                let bytes = keys::decode_number(&value).map_err(StoreError::malformed("catalogue", 0))?;
                needed.insert(chunk, bytes);
            }
        }
        Ok(needed)
    }

    /// Brings pieces to their new places, and gives up the chunks they came from. `needed`: see
    /// [`needed_of`](Self::needed_of).
    pub(super) fn pieces_moved(
        &mut self,
        running: &Running,
        pieces: &[(StoredPiece, Place)],
        mut needed: BTreeMap<u64, u64>,
    ) -> Result<(), StoreError> {
        for (piece, from) in pieces {
            let (id, start) = running.position_of(piece.segment, piece.start);
            let end = start + piece.length;
            let key = keys::piece(id, end);
            if self.catalogue.get(&key)?.is_none() {
                // Given up since the freeze, and with it the old place.
                self.release_chunk(piece.place.chunk, piece.length)?;
                continue;
            }
            self.catalogue.put(key, StoredRun { start, end, place: piece.place }.encode());
            let left = needed.get_mut(&from.chunk).ok_or_else(|| miscounted(from.chunk))?;
            *left = left.checked_sub(piece.length).ok_or_else(|| miscounted(from.chunk))?;
        }
        for (chunk, left) in needed {
            if left > 0 {
                return Err(miscounted(chunk));
            }
            self.catalogue.remove(keys::chunk(chunk));
            self.dead_chunks.push(chunk);
        }
        Ok(())
    }
}
